//! `veth-forward`: how much of a plain AF_XDP forwarder's rate Tandem keeps while it encrypts.
//!
//! Two paths of network namespaces, the same in everything but the device in the middle: a forwarder that does
//! nothing but pass descriptors on, and a Tandem gateway that seals every packet (AES-128-GCM, tunnel mode).
//! The forwarder uses xsk-rs, an AF_XDP implementation independent of Tandem's; generator and sink are the
//! kernel's (XDP live frames, XDP_DROP), because a generator over AF_XDP reaches hardly more than the devices do
//! and would hide their difference. The generator has the first core, the device the second; devices are
//! measured in turn, and a ratio is that of two neighbours in time.
//!
//! veth copies every frame in the kernel, which costs far more than the encryption: this benchmark shows that
//! nothing is lost against plain AF_XDP, not how fast the encryption is. For that see `esp-memory`.

mod bpf;
mod path;
mod tandem;
mod xsk;

use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::{Context, Result};
use tandem_testbed::lab::Lab;
use tandem_testbed::report::Report;

use crate::frames::{self, Flow};
use crate::pin::{self, Role};
use crate::veth::bpf::{Arrived, Attached};
use crate::veth::path::{INSIDE, OUTSIDE, Passed, Path};
use crate::veth::xsk::Forwarder;

/// Frame sizes on the inside, in octets.
const SIZES: [usize; 2] = [64, 1420];
/// Share of the plain forwarder's rate that is expected.
const EXPECTED: f64 = 0.7;
/// Destination MAC address of the frames: the virtual one of Tandem's inside interface.
const GATEWAY_MAC: [u8; 6] = [0x02, 0, 0, 0, 0x01, 0x01];
const FLOW: Flow = Flow {
    to_mac: GATEWAY_MAC,
    from_mac: [0x02, 0, 0, 0, 0x01, 0x02],
    from: Ipv4Addr::new(10, 101, 0, 2),
    to: Ipv4Addr::new(10, 102, 0, 2),
};

/// Runs the benchmark.
pub fn run(full: bool) -> Result<Report> {
    let mut report = Report::new("veth-forward");
    let (rounds, duration) =
        if full { (25, Duration::from_secs(1)) } else { (5, Duration::from_millis(500)) };
    let cores = pin::core(Role::Generator)? != pin::core(Role::UnderTest)?;
    report.check(
        "generator and device have a core each",
        cores,
        if cores { "two cores" } else { "one core" },
    );

    let folder = tempfile::tempdir()?;
    let mut lab = Lab::new(folder.path())?;
    let plain = Path::build(&mut lab, "plain")?;
    for size in SIZES {
        let alone = plain.generator_alone(&frames::udp(FLOW, size, 0), duration)?;
        report.figure(&format!("generator_alone_{size}_pps"), alone);
    }
    let (mut forwarder, _steering) = plain.gateway.enter(|| {
        let forwarder = Forwarder::open(INSIDE, OUTSIDE)?;
        let steering = Attached::to_socket(INSIDE, forwarder.socket())?;
        Ok((forwarder, steering))
    })?;
    let sealed = Path::build(&mut lab, "tandem")?;
    let mut gateway = tandem::start(&sealed, folder.path()).context("starting Tandem")?;

    let mut arrived = Arrived::default();
    for size in SIZES {
        let frame = frames::udp(FLOW, size, 0);
        let mut rows = Vec::with_capacity(rounds);
        for _ in 0..rounds {
            let reference = plain.measure(&frame, Some(&mut forwarder), duration)?;
            let tandem = sealed.measure(&frame, None, duration)?;
            eprintln!(
                "{size:>5} octets: plain {:>9.0} of {:>9.0}/s, Tandem {:>9.0} of {:>9.0}/s",
                reference.arrived, reference.offered, tandem.arrived, tandem.offered
            );
            arrived.udp += tandem.frames.udp;
            arrived.esp += tandem.frames.esp;
            arrived.other += tandem.frames.other;
            rows.push((reference, tandem));
        }
        summarize(&mut report, size, &rows);
    }
    report.check("Tandem sent nothing but ESP", arrived.udp == 0 && arrived.esp > 0, format!("{arrived:?}"));
    report.check("Tandem's daemons live", gateway.is_alive(), "asked at the end");
    Ok(report)
}

/// Figures and checks of one frame size.
fn summarize(report: &mut Report, size: usize, rows: &[(Passed, Passed)]) {
    let of = |value: fn(&(Passed, Passed)) -> f64| median(rows.iter().map(value).collect());
    let ratio = of(|(plain, tandem)| tandem.arrived / plain.arrived);
    report.figure(&format!("veth_ratio_{size}"), ratio);
    report.figure(&format!("plain_{size}_pps"), of(|(plain, _)| plain.arrived));
    report.figure(&format!("tandem_{size}_pps"), of(|(_, tandem)| tandem.arrived));
    report.figure(&format!("tandem_{size}_gbps"), of(|(_, tandem)| tandem.arrived) * size as f64 * 8e-9);
    // Where the generator sends hardly more than arrives, it and not the device may be the limit.
    let plain = of(|(plain, _)| plain.offered / plain.arrived);
    let tandem = of(|(_, tandem)| tandem.offered / tandem.arrived);
    report.figure(&format!("plain_{size}_offered_ratio"), plain);
    report.figure(&format!("tandem_{size}_offered_ratio"), tandem);
    report.check(
        &format!("Tandem reaches {EXPECTED} of the plain forwarder at {size} octets"),
        ratio >= EXPECTED,
        format!("{ratio:.3} (median of {} pairs)", rows.len()),
    );
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

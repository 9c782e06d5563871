//! `veth-forward`: how much of a plain AF_XDP forwarder's rate Tandem keeps while it encrypts.
//!
//! Two paths of network namespaces, the same in everything but the device in the middle: a forwarder that does
//! nothing but pass descriptors on, and a Tandem gateway that seals every packet (AES-128-GCM, tunnel mode).
//! The forwarder uses xsk-rs, an AF_XDP implementation independent of Tandem's; generator and sink are the
//! kernel's (XDP live frames, XDP_DROP), because a generator over AF_XDP reaches hardly more than the devices do
//! and would hide their difference. The generator has the first core, the device the second; devices are
//! measured in turn, and a ratio is that of two neighbours in time.
//!
//! The load is a half more than the most that the plain forwarder has passed on: a greater one slows both down,
//! the plain one more. A pair counts only where the generator kept its rate, that was more than the plain forwarder
//! could pass on, and the devices had their core.
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
use crate::veth::path::{Device, INSIDE, Load, OUTSIDE, Passed, Path};
use crate::veth::xsk::Forwarder;

/// Frame sizes on the inside, in octets.
const SIZES: [usize; 2] = [64, 1420];
/// Share of the plain forwarder's rate that is expected.
const EXPECTED: f64 = 0.7;
/// The load, in parts of what the plain forwarder passes on.
const OVERLOAD: f64 = 1.5;
/// A generator that keeps this share of its rate, and a device that has its core for this share of the time, were
/// not disturbed.
const UNDISTURBED: f64 = 0.95;
/// A load below this many times what the plain forwarder passes on does not show what it can do.
const OVERLOAD_MIN: f64 = 1.2;
/// Fewer undisturbed pairs than this say too little.
const PAIRS_MIN: usize = 3;
/// Destination MAC address of the frames: the virtual one of Tandem's inside interface.
const GATEWAY_MAC: [u8; 6] = [0x02, 0, 0, 0, 0x01, 0x01];
const FLOW: Flow = Flow {
    to_mac: GATEWAY_MAC,
    from_mac: [0x02, 0, 0, 0, 0x01, 0x02],
    from: Ipv4Addr::new(10, 101, 0, 2),
    to: Ipv4Addr::new(10, 102, 0, 2),
};

/// How much is measured.
#[derive(Clone, Copy, Debug)]
struct Effort {
    /// Undisturbed pairs that are enough.
    pairs: usize,
    /// The most pairs, disturbed or not.
    pairs_max: usize,
    /// Duration of one measurement.
    duration: Duration,
}

/// Runs the benchmark.
pub fn run(full: bool) -> Result<Report> {
    let mut report = Report::new("veth-forward");
    let effort = match full {
        true => Effort { pairs: 25, pairs_max: 75, duration: Duration::from_secs(1) },
        false => Effort { pairs: 5, pairs_max: 15, duration: Duration::from_millis(500) },
    };
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
        let alone = plain.generator_alone(&frames::udp(FLOW, size, 0), effort.duration)?;
        report.figure(&format!("generator_alone_{size}_pps"), alone);
    }
    let (mut forwarder, _steering) = plain.gateway.enter(|| {
        let forwarder = Forwarder::open(INSIDE, OUTSIDE)?;
        let steering = Attached::to_socket(INSIDE, forwarder.socket())?;
        Ok((forwarder, steering))
    })?;
    let sealed = Path::build(&mut lab, "tandem")?;
    let mut gateway = tandem::start(&sealed, folder.path()).context("starting Tandem")?;
    let threads = tandem::threads(&sealed)?;

    let mut arrived = Arrived::default();
    for size in SIZES {
        let frame = frames::udp(FLOW, size, 0);
        let mut best = capacity(&plain, &mut forwarder, &frame, effort.duration)?;
        let mut pairs: Vec<Pair> = Vec::new();
        while pairs.len() < effort.pairs_max && undisturbed(&pairs).len() < effort.pairs {
            let load = Load { frame: &frame, rate: Some(OVERLOAD * best), duration: effort.duration };
            let reference = plain.measure(load, Device::Plain(&mut forwarder))?;
            let tandem = sealed.measure(load, Device::Running(&threads))?;
            progress(size, &reference, &tandem);
            arrived.udp += tandem.frames.udp;
            arrived.esp += tandem.frames.esp;
            arrived.other += tandem.frames.other;
            pairs.push(Pair { rate: OVERLOAD * best, plain: reference, tandem });
            best = best.max(reference.arrived);
        }
        summarize(&mut report, size, &pairs);
    }
    report.check("Tandem sent nothing but ESP", arrived.udp == 0 && arrived.esp > 0, format!("{arrived:?}"));
    report.check("Tandem's daemons live", gateway.is_alive(), "asked at the end");
    Ok(report)
}

/// Both devices under the same load, one after the other.
#[derive(Clone, Copy, Debug)]
struct Pair {
    /// Frames a second that were to be sent.
    rate: f64,
    plain: Passed,
    tandem: Passed,
}

/// The most frames a second that the plain forwarder passes on, over several loads: the first one is far too
/// much, the others come closer to what it can do.
fn capacity(plain: &Path, forwarder: &mut Forwarder, frame: &[u8], duration: Duration) -> Result<f64> {
    let mut best = 0.0f64;
    for step in 0..3 {
        let rate = (step > 0).then_some(OVERLOAD * best);
        let passed = plain.measure(Load { frame, rate, duration }, Device::Plain(forwarder))?;
        best = best.max(passed.arrived);
    }
    anyhow::ensure!(best > 0.0, "the plain forwarder passed nothing on");
    Ok(best)
}

fn progress(size: usize, plain: &Passed, tandem: &Passed) {
    let device = |passed: &Passed| {
        let Passed { offered, arrived, core_share, .. } = passed;
        format!("{arrived:>8.0} of {offered:>8.0}/s ({:>3.0} % of its core)", core_share * 100.0)
    };
    eprintln!("{size:>5} octets: plain {}, Tandem {}", device(plain), device(tandem));
}

/// The pairs in which nobody else took a core, and the load was one.
fn undisturbed(pairs: &[Pair]) -> Vec<Pair> {
    let quiet = |pair: &&Pair| {
        [pair.plain, pair.tandem]
            .iter()
            .all(|passed| passed.offered >= UNDISTURBED * pair.rate && passed.core_share >= UNDISTURBED)
            && pair.plain.offered >= OVERLOAD_MIN * pair.plain.arrived
    };
    pairs.iter().filter(quiet).copied().collect()
}

/// Figures and checks of one frame size.
fn summarize(report: &mut Report, size: usize, pairs: &[Pair]) {
    let quiet = undisturbed(pairs);
    report.figure(&format!("undisturbed_pairs_{size}"), quiet.len() as f64);
    report.expect(
        &format!("generator and device had their cores to themselves often enough at {size} octets"),
        quiet.len() >= PAIRS_MIN,
        format!("in {} of {} pairs", quiet.len(), pairs.len()),
    );
    let counted = if quiet.len() >= PAIRS_MIN { &quiet[..] } else { pairs };
    let of = |value: fn(&Pair) -> f64| median(counted.iter().map(value).collect());
    let ratio = of(|pair| pair.tandem.arrived / pair.plain.arrived);
    report.figure(&format!("veth_ratio_{size}"), ratio);
    report.figure(&format!("plain_{size}_pps"), of(|pair| pair.plain.arrived));
    report.figure(&format!("tandem_{size}_pps"), of(|pair| pair.tandem.arrived));
    report.figure(&format!("tandem_{size}_gbps"), of(|pair| pair.tandem.arrived) * size as f64 * 8e-9);
    // More was sent than came through: the device is the limit and not the generator.
    let offered = of(|pair| pair.plain.offered / pair.plain.arrived);
    report.figure(&format!("offered_to_plain_ratio_{size}"), offered);
    report.expect(
        &format!("the generator sends more than the plain forwarder passes on at {size} octets"),
        offered > 1.1,
        format!("{offered:.2} times as much"),
    );
    report.expect(
        &format!("Tandem reaches {EXPECTED} of the plain forwarder at {size} octets"),
        ratio >= EXPECTED,
        format!("{ratio:.3} (median of {} pairs)", counted.len()),
    );
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passed(offered: f64, core_share: f64) -> Passed {
        Passed { offered, arrived: 60.0, frames: Arrived::default(), core_share }
    }

    #[test]
    fn a_pair_counts_only_if_nobody_was_disturbed_and_the_load_was_one() {
        let quiet = passed(100.0, 1.0);
        let pair = |rate, plain, tandem| Pair { rate, plain, tandem };
        let pairs = [
            pair(100.0, quiet, quiet),
            pair(100.0, passed(90.0, 1.0), quiet),
            pair(100.0, quiet, passed(90.0, 1.0)),
            pair(100.0, passed(100.0, 0.5), quiet),
            pair(100.0, quiet, passed(100.0, 0.5)),
            pair(62.0, passed(62.0, 1.0), passed(62.0, 1.0)),
        ];
        let counted = undisturbed(&pairs);
        assert_eq!(counted.len(), 1);
        assert_eq!(counted[0].rate, 100.0);
    }
}

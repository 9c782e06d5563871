//! `esp-memory`: the whole path of a packet through a worker, without a kernel: receive (one copy into a frame),
//! policy, SA, seal or open with the anti-replay window, route, send (a count). One core, AES-128-GCM, tunnel mode.
//!
//! Debian's ipsec-secgw does the same beside it, from the same frames: 64, 512 and 1420 octets is the size of the
//! inner Ethernet frame, 14 octets of Ethernet header included, on both sides and in both directions.
//!
//! Packets of several SAs come in turn, so that no two of a batch share an SA.

pub(crate) mod site;

use std::time::Duration;

use anyhow::{Context, Result};
use tandem_testbed::report::Report;

use crate::memory::site::{Site, plain};
use crate::pin::{self, Role};
use crate::quiet::{Contender, Distribution, Effort, Meter, round_robin};
use crate::secgw::{self, Direction, Secgw};

/// Sizes of the inner frames, in octets.
const SIZES: [usize; 3] = [64, 512, 1420];
const DIRECTIONS: [Direction; 2] = [Direction::Encrypt, Direction::Decrypt];
/// Numbers of SAs.
const SAS: [u32; 3] = [1, 1000, 100_000];
/// Packets of a call.
const CALL: usize = 1024;
/// The sizes at which Tandem is expected to be no worse than ipsec-secgw.
const EXPECTED: [usize; 2] = [512, 1420];

/// Runs the benchmark.
pub fn run(full: bool) -> Result<Report> {
    let mut report = Report::new("esp-memory");
    pin::this_thread(Role::UnderTest)?;
    let mut meter = Meter::calibrate();
    report.figure("tsc_hz", meter.hertz());

    // Before and after Tandem, so that both meet the same neighbours.
    let seconds = if full { 6 } else { 2 };
    let mut peer = Peer::prepare()?;
    peer.measure(seconds)?;
    let mut fewest = u64::MAX;
    for sas in SAS {
        eprintln!("Tandem, {sas} SAs");
        for result in tandem(&mut meter, sas, full)? {
            fewest = fewest.min(result.quiet_samples());
            note(&mut report, &meter, &result);
        }
    }
    peer.measure(seconds)?;
    peer.note(&mut report, &meter);

    report.figure("quiet_adds_per_ns", meter.best_adds_per_ns());
    report.figure("quiet_samples_min", fewest as f64);
    report.expect("the core was quiet often enough", fewest >= 3, format!("{fewest} quiet samples at least"));
    report.check("every packet was forwarded", true, "asserted at each call");
    for size in SIZES {
        compare(&mut report, size);
    }
    Ok(report)
}

/// Measures every size and direction with `sas` SAs. Names are those of the figures.
fn tandem(meter: &mut Meter, sas: u32, full: bool) -> Result<Vec<Distribution>> {
    let recorded = (sas as usize).max(secgw::FRAMES).next_multiple_of(CALL);
    let suffix = if sas == 1 { String::new() } else { format!("_sas{sas}") };
    let mut contenders = Vec::new();
    for size in SIZES {
        let frames = plain(sas, size, recorded);
        let mut sealing = Site::encrypting(sas, &frames, CALL)?;
        let mut opening = Site::decrypting(sas, &sealing.sealed()?, CALL)?;
        let name = |direction: Direction| format!("{}_{size}{suffix}", direction.name());
        contenders.push(Contender {
            name: name(Direction::Encrypt),
            packets: CALL as u64,
            call: Box::new(move || sealing.call()),
        });
        contenders.push(Contender {
            name: name(Direction::Decrypt),
            packets: CALL as u64,
            call: Box::new(move || opening.call()),
        });
    }
    let effort = match full {
        true => Effort { quiet_samples: 301, budget: Duration::from_secs(60) },
        false => Effort { quiet_samples: 41, budget: Duration::from_secs(15) },
    };
    Ok(round_robin(meter, &mut contenders, effort))
}

fn note(report: &mut Report, meter: &Meter, result: &Distribution) {
    let name = &result.name;
    for (figure, quantile) in [("cycles", 0.5), ("cycles_p25", 0.25), ("cycles_p75", 0.75)] {
        if let Some(cycles) = result.cycles(quantile) {
            report.figure(&format!("{name}_{figure}"), cycles);
        }
    }
    if let Some(cycles) = result.median() {
        report.figure(&format!("{name}_mpps"), meter.hertz() / cycles / 1e6);
    }
}

/// ipsec-secgw and its packets a second at each point.
struct Peer {
    program: Secgw,
    rates: Vec<(String, f64)>,
}

impl Peer {
    fn prepare() -> Result<Self> {
        let program = Secgw::prepare().context("preparing ipsec-secgw")?;
        for size in SIZES {
            program.record(size).with_context(|| format!("recording frames of {size} octets"))?;
        }
        Ok(Self { program, rates: Vec::new() })
    }

    fn measure(&mut self, seconds: usize) -> Result<()> {
        for direction in DIRECTIONS {
            for size in SIZES {
                let name = format!("secgw_{}_{size}", direction.name());
                let rates = self.program.rates(direction, size, seconds).with_context(|| name.clone())?;
                eprintln!("{name}: {rates:.0?} packets a second");
                self.rates.extend(rates.into_iter().map(|rate| (name.clone(), rate)));
            }
        }
        Ok(())
    }

    fn note(&self, report: &mut Report, meter: &Meter) {
        report.figure("secgw_huge_pages", f64::from(u8::from(self.program.has_huge_pages())));
        for direction in DIRECTIONS {
            for size in SIZES {
                let name = format!("secgw_{}_{size}", direction.name());
                let best = self
                    .rates
                    .iter()
                    .filter(|(of, _)| *of == name)
                    .map(|&(_, rate)| rate)
                    .fold(f64::NAN, f64::max);
                report.figure(&format!("{name}_cycles"), meter.hertz() / best);
                report.figure(&format!("{name}_mpps"), best / 1e6);
            }
        }
    }
}

/// Our cycles by ipsec-secgw's, the larger of both directions.
fn compare(report: &mut Report, size: usize) {
    let ratio = |direction: Direction| {
        let figure = |prefix: &str| {
            report.figures().get(&format!("{prefix}{}_{size}_cycles", direction.name())).copied()
        };
        Some(figure("")? / figure("secgw_")?)
    };
    let ratios = (ratio(Direction::Encrypt), ratio(Direction::Decrypt));
    let (Some(encrypt), Some(decrypt)) = ratios else {
        report.check(&format!("compared with ipsec-secgw at {size} octets"), false, "a figure is missing");
        return;
    };
    let worse = encrypt.max(decrypt);
    report.figure(&format!("secgw_ratio_{size}"), worse);
    if EXPECTED.contains(&size) {
        report.expect(
            &format!("no worse than ipsec-secgw at {size} octets"),
            worse <= 1.0,
            format!("encrypt {encrypt:.3}, decrypt {decrypt:.3} of its cycles"),
        );
    }
}

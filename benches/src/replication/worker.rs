//! What strict handling costs a worker in each packet: cycles with it less cycles without it, over memory.
//!
//! Strictly an inbound packet is parked in one round and leaves in the next, after the acknowledgement of its record;
//! an outbound one needs a lease. Both ways SAs are marked, and read by the thread that replicates. That thread works
//! on the other core between two rounds, so that cache lines travel as in the product; a round is measured, and what
//! lies between two is not.

use std::time::Duration;

use anyhow::Result;
use tandem_shm::Handling;
use tandem_testbed::report::Report;

use crate::memory::site::{Site, plain};
use crate::quiet::{Contender, Distribution, Effort, Meter, round_robin};
use crate::replication::acknowledger::{Acknowledger, Manner};
use crate::secgw::{self, Direction};

/// Size of the inner frames in octets.
const SIZE: usize = 512;
/// Packets of a call.
const CALL: usize = 1024;
/// Fewer quiet samples than this say too little.
const QUIET_MIN: u64 = 3;

/// What is compared: name, handling, what the replicating thread does.
const KINDS: [(&str, Handling, Manner); 3] = [
    ("alone", Handling::Alone, Manner::Idle),
    ("strict", Handling::Strict, Manner::Awake),
    ("strict_ringing", Handling::Strict, Manner::Asleep),
];
const WAYS: [(&str, Direction); 2] = [("in", Direction::Decrypt), ("out", Direction::Encrypt)];

/// Measures with each number of SAs and notes the figures.
pub fn measure(report: &mut Report, meter: &mut Meter, numbers: &[u32], budget: Duration) -> Result<()> {
    let mut fewest = u64::MAX;
    for &sas in numbers {
        let effort = Effort { quiet_samples: 301, budget: budget / numbers.len() as u32 };
        let results = distributions(meter, sas, effort)?;
        fewest = results.iter().map(Distribution::quiet_samples).min().unwrap_or(0).min(fewest);
        for (way, _) in WAYS {
            let cycles = |kind: &str| {
                results.iter().find(|result| result.name == name(kind, way)).and_then(Distribution::median)
            };
            let Some(alone) = cycles("alone") else { continue };
            report.figure(&format!("alone_cycles_{way}_{sas}"), alone);
            for (kind, ..) in &KINDS[1..] {
                let Some(strict) = cycles(kind) else { continue };
                report.figure(&format!("{kind}_cycles_{way}_{sas}"), strict - alone);
                report.figure(&format!("{kind}_ns_{way}_{sas}"), meter.nanoseconds(strict - alone));
            }
        }
    }
    report.figure("quiet_samples_min", fewest as f64);
    report.expect(
        "the core of the worker was quiet often enough",
        fewest >= QUIET_MIN,
        format!("{fewest} quiet samples at least"),
    );
    report.check("every packet over memory was forwarded, strictly too", true, "asserted at each call");
    Ok(())
}

fn name(kind: &str, way: &str) -> String {
    format!("{kind}_{way}")
}

fn distributions(meter: &mut Meter, sas: u32, effort: Effort) -> Result<Vec<Distribution>> {
    let recorded = (sas as usize).max(secgw::FRAMES).next_multiple_of(CALL);
    let frames = plain(sas, SIZE, recorded);
    let sealed = Site::encrypting(sas, &frames, CALL)?.sealed()?;
    let mut contenders = Vec::new();
    for (way, direction) in WAYS {
        for (kind, handling, manner) in KINDS {
            let site = match direction {
                Direction::Encrypt => Site::encrypting(sas, &frames, CALL)?,
                Direction::Decrypt => Site::decrypting(sas, &sealed, CALL)?,
            };
            let mut pair = Handled::new(site, handling, manner)?;
            contenders.push(Contender {
                name: name(kind, way),
                packets: CALL as u64,
                call: Box::new(move || pair.call()),
            });
        }
    }
    Ok(round_robin(meter, &mut contenders, effort))
}

/// A gateway and the thread that replicates for it.
struct Handled {
    acknowledger: Acknowledger,
    site: Site,
}

impl Handled {
    fn new(site: Site, handling: Handling, manner: Manner) -> Result<Self> {
        let acknowledger = Acknowledger::start(site.gateway(), manner)?;
        // The first leases.
        acknowledger.turn();
        let word = &site.gateway().shared().hot.header().handling;
        word.store(handling.word(1), std::sync::atomic::Ordering::SeqCst);
        Ok(Self { acknowledger, site })
    }

    fn call(&mut self) -> u64 {
        self.site.call_in_rounds(|| self.acknowledger.turn())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tandem_api::counters::Counter;

    #[test]
    fn strict_packets_wait_for_the_acknowledgement_of_each_round_and_all_leave() {
        let frames = plain(100, 64, 256);
        let sealed = Site::encrypting(100, &frames, 128).and_then(|mut site| site.sealed()).expect("frames");
        for (kind, handling, manner) in KINDS {
            let site = Site::decrypting(100, &sealed, 128).expect("a gateway");
            let mut handled = Handled::new(site, handling, manner).expect("a thread");
            for _ in 0..5 {
                handled.call();
            }
            let parked = if handling == Handling::Strict { (5 * 128, 64) } else { (0, 0) };
            let gateway = handled.site.gateway();
            assert_eq!((gateway.counter(Counter::ParkedTotal), gateway.parked()), parked, "{kind}");
            gateway.account().expect("every frame is accounted for");
        }
    }

    #[test]
    fn strict_gateway_sends_within_leases_and_none_without_them() {
        let frames = plain(100, 64, 256);
        let site = Site::encrypting(100, &frames, 128).expect("a gateway");
        let mut handled = Handled::new(site, Handling::Strict, Manner::Awake).expect("a thread");
        handled.call();
        let site = Site::encrypting(100, &frames, 128).expect("a gateway");
        let mut without = Handled::new(site, Handling::Strict, Manner::Idle).expect("a thread");
        let lost = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| without.call()));
        assert!(lost.is_err(), "sent without a lease");
    }
}

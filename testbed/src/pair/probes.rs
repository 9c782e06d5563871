//! Numbered datagrams both ways, about one a millisecond: they measure outages.

use crate::network::Network;
use crate::report::count;
use crate::run::Run;
use crate::traffic::flow::{Flow, FlowResult};
use anyhow::Result;
use std::time::{Duration, Instant};

/// Datagrams a second, each way.
pub const PER_SECOND: u32 = 1000;
/// Octets of each payload.
const PAYLOAD: usize = 200;

/// Probes that run.
#[derive(Debug)]
pub struct Probes {
    there: Flow,
    back: Flow,
}

/// What became of them.
#[derive(Clone, Debug)]
pub struct ProbeResults {
    /// From site A to site B: outbound for the pair.
    pub there: FlowResult,
    /// From site B to site A: inbound for the pair.
    pub back: FlowResult,
}

impl Probes {
    /// Starts both, on `port` and the next one, and waits until they flow.
    ///
    /// # Errors
    /// Where a socket cannot be made or nothing arrives.
    pub fn start(net: &Network, port: u16) -> Result<Self> {
        let probes = Self {
            there: net.start_flow(true, port, PER_SECOND, PAYLOAD)?,
            back: net.start_flow(false, port + 1, PER_SECOND, PAYLOAD)?,
        };
        probes.wait(300, Duration::from_secs(10))?;
        Ok(probes)
    }

    /// Waits until another `count` have arrived each way.
    ///
    /// # Errors
    /// Where they have not within `limit`.
    pub fn wait(&self, count: u64, limit: Duration) -> Result<()> {
        self.there.wait_for_arrivals(count, limit)?;
        self.back.wait_for_arrivals(count, limit)?;
        Ok(())
    }

    /// Ends both.
    ///
    /// # Errors
    /// Where a thread panicked.
    pub fn stop(self) -> Result<ProbeResults> {
        Ok(ProbeResults { there: self.there.stop()?, back: self.back.stop()? })
    }
}

impl ProbeResults {
    /// Longest time without an arrival around a moment, there and back, in milliseconds.
    #[must_use]
    pub fn gaps_ms(&self, at: Instant) -> (f64, f64) {
        let gap = |flow: &FlowResult| flow.arrivals.longest_gap_ms(at, at + Duration::from_millis(600));
        (gap(&self.there), gap(&self.back))
    }

    /// Probes that were lost, both ways together.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.there.lost() + self.back.lost()
    }

    /// Checks that nothing was repeated or damaged.
    pub fn check_once(&self, run: &mut Run, when: &str) {
        let sound = [&self.there, &self.back].iter().all(|flow| flow.repeated == 0 && flow.damaged == 0);
        run.check(&format!("{when}: no probe arrives twice or damaged"), sound, self.summary());
    }

    /// Checks that not one probe was lost, repeated or damaged, each way.
    pub fn check_whole(&self, run: &mut Run, when: &str) {
        run.report.figure(&format!("{}_lost", when.replace([' ', '-'], "_")), count(self.lost()));
        for (way, flow) in [("a to b", &self.there), ("b to a", &self.back)] {
            run.check(
                &format!("{when}: no probe {way} is lost or repeated"),
                flow.is_whole(),
                flow.summary(),
            );
        }
    }

    /// One line for a reader.
    #[must_use]
    pub fn summary(&self) -> String {
        format!("there: {}; back: {}", self.there.summary(), self.back.summary())
    }
}

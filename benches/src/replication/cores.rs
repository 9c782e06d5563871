//! How much of both cores others leave.

use std::time::{Duration, Instant};

use anyhow::Result;

use crate::pin::{self, Role};
use crate::tsc;

/// Additions between two looks at the clock: some 50 microseconds.
const ADDS: u64 = 1_000_000;
/// How long a probe lasts: longer than a turn of another process.
const PROBE: Duration = Duration::from_millis(20);

/// Probes of both cores at once. Daemons of a lab without traffic take next to nothing; what is missing is taken by
/// other work on the machine, or by a neighbour of the virtual one.
#[derive(Debug)]
pub struct Cores {
    /// Best rate seen, in additions a nanosecond. It only rises.
    best: f64,
}

impl Cores {
    /// Measures the best rate of a tenth of a second.
    ///
    /// # Errors
    /// Where a thread cannot be pinned.
    pub fn calibrate() -> Result<Self> {
        let mut cores = Self { best: 0.0 };
        // Short spells, of which the best one counts.
        for _ in 0..100 {
            cores.best = cores.best.max(rate(Duration::from_millis(1)));
        }
        pin::core(Role::UnderTest)?;
        Ok(cores)
    }

    /// The share of the best rate that the busier core gives now.
    pub fn probe(&mut self) -> f64 {
        let rates = std::thread::scope(|scope| {
            [Role::Generator, Role::UnderTest]
                .map(|role| {
                    scope.spawn(move || {
                        // Unpinned it measures whichever core it is given.
                        let _ = pin::this_thread(role);
                        rate(PROBE)
                    })
                })
                .map(|probe| probe.join().unwrap_or(0.0))
        });
        self.best = rates.iter().copied().fold(self.best, f64::max);
        rates.into_iter().fold(f64::INFINITY, f64::min) / self.best
    }
}

/// Additions a nanosecond over `time`.
fn rate(time: Duration) -> f64 {
    let (start, mut made) = (Instant::now(), 0);
    while start.elapsed() < time {
        made += tsc::independent_adds(ADDS);
    }
    made as f64 / start.elapsed().as_nanos() as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_probe_is_a_share_and_less_beside_a_busy_thread_of_each_core() {
        let mut cores = Cores::calibrate().expect("cores");
        let alone = (0..5).map(|_| cores.probe()).fold(0.0, f64::max);
        assert!(alone > 0.0 && alone <= 1.0, "{alone}");
        let stop = std::sync::atomic::AtomicBool::new(false);
        let busy = std::thread::scope(|scope| {
            for role in [Role::Generator, Role::UnderTest, Role::Generator, Role::UnderTest] {
                let stop = &stop;
                scope.spawn(move || {
                    let _ = pin::this_thread(role);
                    while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                        tsc::independent_adds(ADDS);
                    }
                });
            }
            let busy = (0..5).map(|_| cores.probe()).fold(1.0, f64::min);
            stop.store(true, std::sync::atomic::Ordering::Relaxed);
            busy
        });
        assert!(busy < 0.8, "{busy} of the cores are left beside two busy threads each");
    }
}

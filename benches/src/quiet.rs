//! Measuring on a machine with neighbours: samples count only if the core was quiet before and after them.
//!
//! A virtual CPU is mostly one hyperthread of a core whose other one belongs to somebody else. When that one
//! works, everything here takes up to twice as long, for milliseconds or minutes. A probe of two microseconds
//! sees it; see [`tsc::independent_adds`].

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use crate::tsc;

/// Additions of one probe: about 2 microseconds on a core of 4 GHz that issues 5 a cycle.
const PROBE_ADDS: u64 = 40_000;
/// A probe that reaches this share of the best one seen says that the core is quiet.
const QUIET_SHARE: f64 = 0.9;
/// How long one sample lasts, about: longer than a probe by far, shorter than most disturbances.
const SAMPLE: Duration = Duration::from_micros(1500);
/// Histograms hold hundredths of a TSC cycle.
const HUNDREDTHS: f64 = 100.0;

/// The clock and the probe of one run.
#[derive(Debug)]
pub struct Meter {
    hertz: f64,
    /// Best probe seen, in additions a TSC cycle. It only rises, and samples are judged at the end: a run that
    /// starts while the neighbour works does not take his noise for silence.
    best: f64,
}

impl Meter {
    /// Measures the rate of the time-stamp counter and the best probe of 100 ms.
    pub fn calibrate() -> Self {
        let mut meter = Self { hertz: tsc::hertz(), best: 0.0 };
        let start = Instant::now();
        while start.elapsed() < Duration::from_millis(100) {
            meter.probe();
        }
        meter
    }

    /// Rate of the time-stamp counter, in Hz.
    pub fn hertz(&self) -> f64 {
        self.hertz
    }

    /// Converts TSC cycles to nanoseconds.
    pub fn nanoseconds(&self, cycles: f64) -> f64 {
        cycles * 1e9 / self.hertz
    }

    /// The best probe so far, in additions a nanosecond.
    pub fn best_adds_per_ns(&self) -> f64 {
        self.best * self.hertz / 1e9
    }

    /// One probe, in additions a TSC cycle.
    fn probe(&mut self) -> f64 {
        let start = tsc::now();
        let made = tsc::independent_adds(PROBE_ADDS);
        let rate = made as f64 / (tsc::now() - start) as f64;
        self.best = self.best.max(rate);
        rate
    }

    fn is_quiet(&self, sample: &Sample) -> bool {
        sample.probe >= QUIET_SHARE * self.best
    }
}

/// Something that is measured: handles a fixed number of packets a call, and says how many TSC cycles it took.
///
/// It takes its own time so that what has to happen in between (putting back a ciphertext that was opened in
/// place, say) is left out.
pub struct Contender<'a> {
    /// Name in the results.
    pub name: String,
    /// Packets of one call.
    pub packets: u64,
    /// Handles them and returns the TSC cycles.
    pub call: Box<dyn FnMut() -> u64 + 'a>,
}

#[derive(Clone, Copy, Debug)]
struct Sample {
    /// The worse of the probes before and after, in additions a TSC cycle.
    probe: f64,
    /// TSC cycles a packet.
    cycles: f64,
}

/// When to stop measuring.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    /// Enough quiet samples of each contender.
    pub quiet_samples: usize,
    /// At the latest after this time.
    pub budget: Duration,
}

/// What was measured of one contender.
#[derive(Debug)]
pub struct Distribution {
    /// Name of the contender.
    pub name: String,
    /// Quiet samples, in hundredths of a TSC cycle a packet.
    quiet: Histogram<u64>,
    /// Samples taken, quiet or not.
    pub samples: usize,
}

impl Distribution {
    /// TSC cycles a packet at `quantile` (0 to 1) of the quiet samples; none if no sample was quiet.
    pub fn cycles(&self, quantile: f64) -> Option<f64> {
        (!self.quiet.is_empty()).then(|| self.quiet.value_at_quantile(quantile) as f64 / HUNDREDTHS)
    }

    /// Median TSC cycles a packet of the quiet samples.
    pub fn median(&self) -> Option<f64> {
        self.cycles(0.5)
    }

    /// How many samples were quiet.
    pub fn quiet_samples(&self) -> u64 {
        self.quiet.len()
    }
}

/// Measures the contenders in turn, one sample each, until every one has enough quiet samples or the time is up.
///
/// In turn, because the machine changes from minute to minute: what one meets, the others meet as well.
pub fn round_robin(meter: &mut Meter, contenders: &mut [Contender<'_>], effort: Effort) -> Vec<Distribution> {
    let calls: Vec<u64> = contenders.iter_mut().map(|contender| calls_per_sample(meter, contender)).collect();
    let mut samples: Vec<Vec<Sample>> = vec![Vec::new(); contenders.len()];
    let start = Instant::now();
    while start.elapsed() < effort.budget {
        let quiet = |taken: &Vec<Sample>| taken.iter().filter(|sample| meter.is_quiet(sample)).count();
        if samples.iter().map(quiet).min().unwrap_or(0) >= effort.quiet_samples {
            break;
        }
        for ((contender, &calls), taken) in contenders.iter_mut().zip(&calls).zip(&mut samples) {
            let before = meter.probe();
            let cycles: u64 = (0..calls).map(|_| (contender.call)()).sum();
            let after = meter.probe();
            taken.push(Sample {
                probe: before.min(after),
                cycles: cycles as f64 / (calls * contender.packets) as f64,
            });
        }
    }
    contenders
        .iter()
        .zip(samples)
        .map(|(contender, samples)| distribution(meter, contender.name.clone(), &samples))
        .collect()
}

/// Warms a contender up and finds how many calls make a sample.
fn calls_per_sample(meter: &Meter, contender: &mut Contender<'_>) -> u64 {
    (contender.call)();
    let start = Instant::now();
    (contender.call)();
    let call = start.elapsed().as_secs_f64().max(1.0 / meter.hertz);
    ((SAMPLE.as_secs_f64() / call) as u64).max(1)
}

fn distribution(meter: &Meter, name: String, samples: &[Sample]) -> Distribution {
    // Up to 10^8 cycles a packet, three digits.
    let mut quiet = Histogram::new_with_max(10_000_000_000, 3).expect("bounds that the crate allows");
    for sample in samples.iter().filter(|sample| meter.is_quiet(sample)) {
        quiet.saturating_record((sample.cycles * HUNDREDTHS).round() as u64);
    }
    Distribution { name, quiet, samples: samples.len() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meter(best: f64) -> Meter {
        Meter { hertz: 2e9, best }
    }

    #[test]
    fn samples_of_a_busy_core_are_left_out() {
        let samples = [(6.0, 100.0), (5.5, 102.0), (3.0, 190.0), (5.3, 170.0)]
            .map(|(probe, cycles)| Sample { probe, cycles });
        let result = distribution(&meter(6.0), String::from("x"), &samples);
        assert_eq!((result.samples, result.quiet_samples()), (4, 2));
        let close =
            |seen: Option<f64>, wanted: f64| seen.is_some_and(|seen| (seen / wanted - 1.0).abs() < 0.002);
        assert!(close(result.median(), 100.0), "{:?}", result.median());
        assert!(close(result.cycles(1.0), 102.0), "{:?}", result.cycles(1.0));
    }

    #[test]
    fn a_better_probe_later_makes_earlier_samples_noise() {
        let samples = [Sample { probe: 3.0, cycles: 190.0 }];
        assert_eq!(distribution(&meter(3.0), String::new(), &samples).quiet_samples(), 1);
        assert_eq!(distribution(&meter(6.0), String::new(), &samples).median(), None);
    }

    #[test]
    fn every_contender_is_sampled_as_often_as_the_others() {
        let mut meter = Meter::calibrate();
        let contender = |name: &str, adds: u64| Contender {
            name: name.to_owned(),
            packets: 10,
            call: Box::new(move || {
                let start = tsc::now();
                tsc::independent_adds(adds);
                tsc::now() - start
            }),
        };
        let mut contenders = [contender("short", 10_000), contender("long", 40_000)];
        let effort = Effort { quiet_samples: 3, budget: Duration::from_secs(2) };
        let results = round_robin(&mut meter, &mut contenders, effort);
        assert_eq!(results[0].samples, results[1].samples);
        assert!(results[0].samples >= 3);
        if let (Some(short), Some(long)) = (results[0].cycles(0.0), results[1].cycles(0.0)) {
            let times = long / short;
            assert!((2.0..8.0).contains(&times), "four times the work took {times} times as long");
        }
    }
}

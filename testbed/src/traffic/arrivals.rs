//! When things arrived, and for how long nothing did.

use std::time::{Duration, Instant};

/// Moments of arrival.
#[derive(Clone, Debug, Default)]
pub struct Arrivals {
    at: Vec<Instant>,
}

impl Arrivals {
    /// From moments in any order.
    #[must_use]
    pub fn new(mut at: Vec<Instant>) -> Self {
        at.sort_unstable();
        Self { at }
    }

    /// How many.
    #[must_use]
    pub fn count(&self) -> usize {
        self.at.len()
    }

    /// How many from `from` on and before `to`.
    #[must_use]
    pub fn between(&self, from: Instant, to: Instant) -> usize {
        self.at.iter().filter(|&&at| at >= from && at < to).count()
    }

    /// The longest time in milliseconds without an arrival of which a part lies between these moments.
    /// Infinite where nothing arrived before, or nothing ever again.
    #[must_use]
    pub fn longest_gap_ms(&self, from: Instant, to: Instant) -> f64 {
        let after = self.at.partition_point(|&at| at <= from);
        let ends = self.at.partition_point(|&at| at < to);
        if after == 0 || ends == self.at.len() {
            return f64::INFINITY;
        }
        self.at[after - 1..=ends]
            .windows(2)
            .map(|pair| pair[1].duration_since(pair[0]))
            .max()
            .unwrap_or(Duration::ZERO)
            .as_secs_f64()
            * 1e3
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gap_around_a_moment_is_found_and_silence_for_good_is_infinite() {
        let start = Instant::now();
        let ms = |ms| start + Duration::from_millis(ms);
        let arrivals = Arrivals::new([900, 0, 1, 2, 40, 41, 42].map(ms).to_vec());
        assert_eq!(arrivals.count(), 7);
        assert_eq!(arrivals.between(ms(1), ms(42)), 4);
        // The gap from 2 to 40 covers all of what is asked for, or begins in it, or ends in it.
        for (from, to) in [(10, 20), (1, 20), (20, 42)] {
            assert!((arrivals.longest_gap_ms(ms(from), ms(to)) - 38.0).abs() < 1e-6, "{from} {to}");
        }
        assert!((arrivals.longest_gap_ms(ms(41), ms(43)) - 858.0).abs() < 1e-6);
        assert!(arrivals.longest_gap_ms(ms(10), ms(901)).is_infinite());
        assert!(Arrivals::default().longest_gap_ms(ms(0), ms(1)).is_infinite());
    }
}

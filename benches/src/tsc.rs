//! The time-stamp counter, and a run of independent additions to probe the core with.
//!
//! The only module of the measuring code with `unsafe`: both things need instructions that Rust has no safe
//! function for.
#![allow(unsafe_code)]

use std::arch::{
    asm,
    x86_64::{_mm_lfence, _rdtsc},
};
use std::time::{Duration, Instant};

/// The time-stamp counter now, in TSC cycles. Instructions before the call have finished when it is read.
#[inline(always)]
pub fn now() -> u64 {
    // SAFETY: LFENCE is part of SSE2, which every x86-64 CPU has, and touches neither memory nor registers.
    unsafe { _mm_lfence() };
    // SAFETY: RDTSC is allowed at user level unless CR4.TSD is set; Linux sets it only on request of the
    // process itself (prctl PR_SET_TSC), which nothing here makes. It changes EDX and EAX alone.
    unsafe { _rdtsc() }
}

/// Additions that [`independent_adds`] makes in one turn of its loop.
const ADDS_PER_TURN: u64 = 20;

/// Executes at least `count` scalar additions in five independent chains, and returns how many it made.
///
/// Only the issue width of the core bounds them, therefore they slow down as soon as the other hyperthread of
/// the core runs anything, where a probe of one execution port would notice nothing.
#[inline(never)]
pub fn independent_adds(count: u64) -> u64 {
    let (mut a, mut b, mut c, mut d, mut e) = (1u64, 2u64, 3u64, 4u64, 5u64);
    let turns = count.div_ceil(ADDS_PER_TURN);
    for _ in 0..turns {
        // SAFETY: adds constants to the five registers that are named as in- and outputs; the flags are
        // clobbered, which asm! assumes by default; no memory and no stack is touched.
        unsafe {
            asm!(
                "add {0}, 1", "add {1}, 1", "add {2}, 1", "add {3}, 1", "add {4}, 1",
                "add {0}, 1", "add {1}, 1", "add {2}, 1", "add {3}, 1", "add {4}, 1",
                "add {0}, 1", "add {1}, 1", "add {2}, 1", "add {3}, 1", "add {4}, 1",
                "add {0}, 1", "add {1}, 1", "add {2}, 1", "add {3}, 1", "add {4}, 1",
                inout(reg) a, inout(reg) b, inout(reg) c, inout(reg) d, inout(reg) e,
                options(nomem, nostack),
            );
        }
    }
    std::hint::black_box((a, b, c, d, e));
    turns * ADDS_PER_TURN
}

/// Measures the rate of the time-stamp counter against the monotonic clock, in Hz.
pub fn hertz() -> f64 {
    let (start, first) = stamp();
    std::thread::sleep(Duration::from_millis(100));
    let (end, last) = stamp();
    (last - first) as f64 / (end - start).as_secs_f64()
}

/// A reading of both clocks at the same moment: of several, the one between whose two counter readings least
/// time has passed, so that a preemption in between does not count.
fn stamp() -> (Instant, u64) {
    (0..32)
        .map(|_| {
            let before = now();
            let clock = Instant::now();
            let after = now();
            (after - before, clock, before + (after - before) / 2)
        })
        .min_by_key(|&(width, ..)| width)
        .map(|(_, clock, cycles)| (clock, cycles))
        .expect("the range is not empty")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_counter_advances_at_the_rate_that_was_measured() {
        let hertz = hertz();
        let (clock, cycles) = stamp();
        std::thread::sleep(Duration::from_millis(50));
        let (later, more) = stamp();
        let seconds = (more - cycles) as f64 / hertz;
        let passed = (later - clock).as_secs_f64();
        assert!(
            (seconds / passed - 1.0).abs() < 0.001,
            "{seconds} s by the counter, {passed} s by the clock"
        );
    }

    #[test]
    fn no_fewer_additions_are_made_than_asked_for() {
        assert_eq!(independent_adds(1), ADDS_PER_TURN);
        assert_eq!(independent_adds(40_000), 40_000);
    }
}

//! The clock of the pair: it also runs while the machine is suspended.

use rustix::time::{ClockId, Timespec, clock_gettime};
use std::time::{SystemTime, UNIX_EPOCH};
use tandem_takeover::Nanos;

/// Now, on `CLOCK_BOOTTIME`.
#[must_use]
pub fn now() -> Nanos {
    let Timespec { tv_sec, tv_nsec } = clock_gettime(ClockId::Boottime);
    // Neither is negative: the clock starts with the machine.
    (tv_sec as u64).saturating_mul(1_000_000_000).saturating_add(tv_nsec as u64)
}

/// Microseconds since the Unix epoch, for people alone: this clock may be set.
#[must_use]
pub fn unix_us() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    since.as_micros() as u64
}

/// A span as the kernel takes it.
#[must_use]
pub fn timespec(span: Nanos) -> Timespec {
    Timespec { tv_sec: (span / 1_000_000_000) as i64, tv_nsec: (span % 1_000_000_000) as i64 }
}

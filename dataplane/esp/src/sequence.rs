//! Outbound sequence numbers (RFC 4303 section 3.3.3), taken by several cores from one SA.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

use tandem_shm::HotOut;

/// The last number of an SA without extended sequence numbers.
pub const LAST: u64 = u32::MAX as u64;

/// No number can be taken now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Exhausted {
    /// All numbers are used up. It stays so: the SA needs a new key.
    #[error("all sequence numbers of the SA are used up")]
    Numbers,
    /// All numbers of the lease are used up; more may come when the partner has acknowledged a later end (F14).
    #[error("all sequence numbers of the lease are used up")]
    Lease,
}

/// Takes the next `count` numbers of an SA, or as many as there are: the range may be shorter, and is empty only
/// for a `count` of 0. Numbers begin at 1, never repeat, and pass neither [`LAST`] nor the lease's end.
///
/// One atomic add for a run of packets. Cores that meet at the end may move `next` past it, by at most `count`
/// each, and a number that nobody got is then a gap; [`taken`] says what was given out.
///
/// # Errors
/// There is no number at all.
#[inline]
pub fn take(hot: &HotOut, count: u32) -> Result<Range<u64>, Exhausted> {
    take_from(&hot.next, hot.lease_end.load(Ordering::Acquire), count)
}

/// The highest number that was given out; 0 before the first.
#[inline]
pub fn taken(hot: &HotOut) -> u64 {
    hot.next.load(Ordering::Acquire).min(LAST)
}

/// `next` is the last number given out.
#[inline]
fn take_from(next: &AtomicU64, lease_end: u64, count: u32) -> Result<Range<u64>, Exhausted> {
    let end = LAST.min(lease_end);
    let exhausted = if lease_end < LAST { Exhausted::Lease } else { Exhausted::Numbers };
    // Without this look, a core that waits for its lease would run through the numbers while it waits.
    let room = end.saturating_sub(next.load(Ordering::Relaxed));
    if room == 0 {
        return Err(exhausted);
    }
    let wanted = u64::from(count).min(room);
    let last = next.fetch_add(wanted, Ordering::AcqRel);
    // Others may have been here since the look.
    let given = wanted.min(end.saturating_sub(last));
    if given == 0 && wanted != 0 {
        return Err(exhausted);
    }
    Ok(last + 1..last + 1 + given)
}

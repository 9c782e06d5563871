//! Outbound sequence numbers (RFC 4303 section 3.3.3), taken by several cores from one SA.

use std::ops::Range;

use tandem_shm::HotOut;

use crate::AtomicWord;

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
    /// All numbers that are reserved on disk are used up; more may come when more are reserved (F40).
    #[error("all sequence numbers that are reserved on disk are used up")]
    Limit,
    /// The SA is held: no number of it may be used until its state is known (F19, F24, F40).
    #[error("the SA is held")]
    Held,
}

/// Takes the next `count` numbers of an SA, or as many as there are: the range may be shorter, and is empty only
/// for a `count` of 0. Numbers begin at 1, never repeat, and pass neither [`LAST`] nor what is reserved on disk
/// ([`HotOut::limit`]) nor, where handling is `strict`, the lease's end ([`HotOut::lease_end`]).
///
/// One atomic add for a run of packets. Cores that meet at the end may move `next` past it, by at most `count`
/// each, and a number that nobody got is then a gap; [`taken`] says what was given out.
///
/// # Errors
/// There is no number at all.
#[inline]
pub fn take(hot: &HotOut, count: u32, strict: bool) -> Result<Range<u64>, Exhausted> {
    let lease_end = if strict { hot.lease_end.load_acquire() } else { u64::MAX };
    take_from(&hot.next, lease_end, hot.limit.load_acquire(), count)
}

/// Why [`take`] gave fewer numbers than were wanted.
#[cold]
#[must_use]
pub fn why(hot: &HotOut, strict: bool) -> Exhausted {
    let lease_end = if strict { hot.lease_end.load_acquire() } else { u64::MAX };
    exhausted(lease_end, hot.limit.load_acquire())
}

/// The highest number that may have been given out; 0 before the first.
#[inline]
pub fn taken(hot: &HotOut) -> u64 {
    hot.next.load_acquire().min(LAST)
}

/// What ends the numbers at the lowest of the three ends.
#[inline]
fn exhausted(lease_end: u64, limit: u64) -> Exhausted {
    if limit == 0 {
        Exhausted::Held
    } else if lease_end.min(limit) >= LAST {
        Exhausted::Numbers
    } else if lease_end < limit {
        Exhausted::Lease
    } else {
        Exhausted::Limit
    }
}

/// `next` is the last number given out.
#[inline]
fn take_from(
    next: &impl AtomicWord,
    lease_end: u64,
    limit: u64,
    count: u32,
) -> Result<Range<u64>, Exhausted> {
    let end = LAST.min(lease_end).min(limit);
    // Without this look, a core that waits for its lease would run through the numbers while it waits.
    let room = end.saturating_sub(next.load_acquire());
    if room == 0 {
        return Err(exhausted(lease_end, limit));
    }
    let wanted = u64::from(count).min(room);
    let last = next.add(wanted);
    // Others may have been here since the look.
    let given = wanted.min(end.saturating_sub(last));
    if given == 0 && wanted != 0 {
        return Err(exhausted(lease_end, limit));
    }
    Ok(last + 1..last + 1 + given)
}

#[cfg(test)]
mod tests {
    use super::*;
    use loom::sync::Arc;
    use loom::sync::atomic::AtomicU64;
    use loom::thread;

    /// Every interleaving of two cores that take these counts from numbers that end 3 further on.
    fn take_on_two_cores(counts: [u32; 2]) {
        loom::model(move || {
            let next = Arc::new(AtomicU64::new(LAST - 3));
            let run = |next: Arc<AtomicU64>, count: u32| {
                move || -> Vec<u64> {
                    (0..2)
                        .flat_map(|_| take_from(&*next, u64::MAX, u64::MAX, count).unwrap_or(0..0))
                        .collect()
                }
            };
            let other = thread::spawn(run(Arc::clone(&next), counts[1]));
            let mut numbers = run(Arc::clone(&next), counts[0])();
            numbers.extend(other.join().expect("the core finishes"));
            numbers.sort_unstable();
            assert_eq!(numbers, [LAST - 2, LAST - 1, LAST]);
            assert_eq!(take_from(&*next, u64::MAX, u64::MAX, 1), Err(Exhausted::Numbers));
        });
    }

    #[test]
    fn two_cores_share_the_last_numbers_in_every_interleaving() {
        take_on_two_cores([2, 2]);
        take_on_two_cores([1, 3]);
        take_on_two_cores([64, 64]);
    }
}

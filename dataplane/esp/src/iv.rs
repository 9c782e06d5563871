//! The explicit IV of RFC 4106 section 3.1: unique under every key, whatever the nodes of the pair believe
//! (rules F3 and F4 of `docs/failover.md`).
//!
//! ```text
//! term difference (16) | counter of the node (48)        big endian
//! ```
//!
//! The term difference tells the reigns of both nodes apart, counted from the base term of the key. The counter
//! belongs to the node and not to the SA: it lies in the header of the hot state, every source of the node takes
//! blocks of it by an atomic add, and it only ever grows. So one key in two slots, after a reload or under a
//! restarted process, never sees an IV again. Whoever makes a new hot state (its memory was lost, or the counter
//! is used up) takes a new term before anything is sealed.

use tandem_shm::HotHeader;

use crate::AtomicWord;

/// Counter values of one block.
pub const BLOCK: u64 = 1 << 16;
/// The counter ends here.
pub const COUNTER_END: u64 = 1 << COUNTER_BITS;
/// From this term difference on, the key should be replaced.
pub const SOFT_TERMS: u64 = 1 << 15;
/// From this term difference on, the key is dead.
pub const DEAD_TERMS: u64 = 1 << 16;

const COUNTER_BITS: u32 = 48;

/// There is no IV for a key in this term.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TermError {
    /// The node's term is below the key's base term: such a node never seals with it.
    #[error("the term lies below the base term of the key")]
    BelowBase,
    /// The key is [`DEAD_TERMS`] or more terms old.
    #[error("the key has seen too many terms")]
    Dead,
    /// The counter of this term is used up: the node needs a new term.
    #[error("the IV counter of the term is used up")]
    CounterUsedUp,
}

/// One IV, to be used once: it can be neither copied nor made by hand.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct Iv([u8; 8]);

impl Iv {
    /// Whether the key is past [`SOFT_TERMS`] and should be replaced.
    #[inline]
    pub fn replace_key(&self) -> bool {
        self.0[0] & 0x80 != 0
    }

    #[inline]
    pub(crate) fn into_octets(self) -> [u8; 8] {
        self.0
    }
}

/// Term difference of a key.
///
/// # Errors
/// The key cannot be used in this term, [`TermError::BelowBase`] or [`TermError::Dead`].
#[inline]
pub fn term_difference(term: u64, base_term: u64) -> Result<u16, TermError> {
    let difference = term.checked_sub(base_term).ok_or(TermError::BelowBase)?;
    u16::try_from(difference).map_err(|_| TermError::Dead)
}

/// A worker's source of IVs, for all SAs of one hot state.
///
/// What is left of its block is lost with it: a gap, never a reuse.
#[derive(Debug, Default)]
pub struct IvSource {
    next: u64,
    end: u64,
}

impl IvSource {
    /// A source without a block; it takes one with the first IV.
    pub const fn new() -> Self {
        IvSource { next: 0, end: 0 }
    }

    /// The next IV for a key of this base term, in the present term of the node. `header` is always that of the
    /// same hot state.
    ///
    /// # Errors
    /// See [`TermError`]; no counter value was used.
    #[inline]
    pub fn next(&mut self, header: &HotHeader, base_term: u64) -> Result<Iv, TermError> {
        self.next_of(&header.term, &header.node_counter, base_term)
    }

    #[inline]
    fn next_of<W: AtomicWord>(&mut self, term: &W, counter: &W, base_term: u64) -> Result<Iv, TermError> {
        // A term that changes meanwhile does no harm: every term of the node has the one counter.
        let difference = term_difference(term.load_acquire(), base_term)?;
        if self.next == self.end {
            self.refill(counter)?;
        }
        let value = self.next;
        self.next += 1;
        Ok(Iv((u64::from(difference) << COUNTER_BITS | value).to_be_bytes()))
    }

    #[cold]
    fn refill(&mut self, counter: &impl AtomicWord) -> Result<(), TermError> {
        // Looked at before the add, so that failing over and over never wraps it.
        if counter.load_acquire() >= COUNTER_END {
            return Err(TermError::CounterUsedUp);
        }
        let start = counter.add(BLOCK);
        let end = start.saturating_add(BLOCK).min(COUNTER_END);
        if start >= end {
            return Err(TermError::CounterUsedUp);
        }
        (self.next, self.end) = (start, end);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use loom::sync::Arc;
    use loom::sync::atomic::AtomicU64;
    use loom::thread;

    /// Two cores begin two blocks each, from a counter with room for this many.
    fn refill_on_two_cores(blocks: u64) {
        loom::model(move || {
            let words = Arc::new((AtomicU64::new(5), AtomicU64::new(COUNTER_END - blocks * BLOCK)));
            let run = |words: Arc<(AtomicU64, AtomicU64)>| {
                move || -> Vec<Iv> {
                    (0..2).filter_map(|_| IvSource::new().next_of(&words.0, &words.1, 0).ok()).collect()
                }
            };
            let other = thread::spawn(run(Arc::clone(&words)));
            let mut ivs = run(Arc::clone(&words))();
            ivs.extend(other.join().expect("the core finishes"));
            let count = ivs.len();
            assert_eq!(count as u64, blocks.min(4));
            let distinct: std::collections::HashSet<_> = ivs.into_iter().collect();
            assert_eq!(distinct.len(), count, "some IV came twice");
            assert!(distinct.iter().all(|iv| iv.0[..2] == [0, 5]), "the counter never reaches the term");
        });
    }

    #[test]
    fn two_cores_never_share_a_block_in_any_interleaving() {
        refill_on_two_cores(1000);
    }

    #[test]
    fn two_cores_share_the_last_blocks_in_every_interleaving() {
        refill_on_two_cores(1);
        refill_on_two_cores(3);
    }
}

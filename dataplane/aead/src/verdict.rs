//! What a burst of opened packets turned out to be.

use crate::BURST;

/// Bit `i` is set where job `i` of the burst is authentic.
#[must_use = "the text of a packet that is not authentic must not be used"]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Verdicts(u64);

const _: () = assert!(BURST <= u64::BITS as usize);

impl Verdicts {
    /// Whether job `index` is authentic; false for every index past the burst.
    #[inline]
    pub fn is_authentic(self, index: usize) -> bool {
        index < BURST && self.0 >> index & 1 == 1
    }

    /// The number of authentic jobs.
    #[inline]
    pub fn count(self) -> u32 {
        self.0.count_ones()
    }

    /// The bits themselves, job 0 lowest.
    #[inline]
    pub fn bits(self) -> u64 {
        self.0
    }

    /// Marks job `index` (below [`BURST`]) as authentic.
    #[inline]
    pub(crate) fn set(&mut self, index: usize) {
        self.0 |= 1 << index;
    }
}

//! Which SAs have changed: one bit for each slot, set by workers and drained by one thread.
//!
//! A worker sets the mark of a slot after it has changed its hot state; whoever drains a mark and reads that state
//! afterwards sees the change. A mark that is set while its slot is being drained is seen now or by the next drain,
//! and never lost.

use crate::sync::{AtomicU64, Ordering};

/// Marks of one direction.
#[derive(Debug)]
pub struct Marks {
    words: Box<[AtomicU64]>,
    /// One bit for each word that may hold a mark.
    summary: Box<[AtomicU64]>,
}

impl Marks {
    /// No slot of `slots` is marked.
    #[must_use]
    pub fn new(slots: u32) -> Self {
        let zeros = |bits: usize| (0..bits.div_ceil(64)).map(|_| AtomicU64::new(0)).collect::<Box<[_]>>();
        let words = zeros(slots as usize);
        let summary = zeros(words.len());
        Self { words, summary }
    }

    /// Marks a slot. Costs two loads where it is marked already. A slot beyond the last one has no mark.
    #[inline]
    pub fn set(&self, slot: u32) {
        let (word, bit) = (slot as usize / 64, 1u64 << (slot % 64));
        let (Some(marks), Some(summary)) = (self.words.get(word), self.summary.get(word / 64)) else {
            return;
        };
        let up = 1u64 << (word % 64);
        // The word before the summary: a drain that has taken the summary and not the word leaves both.
        if marks.load(Ordering::Relaxed) & bit == 0 {
            marks.fetch_or(bit, Ordering::AcqRel);
        }
        if summary.load(Ordering::Relaxed) & up == 0 {
            summary.fetch_or(up, Ordering::AcqRel);
        }
    }

    /// Is any slot marked?
    #[must_use]
    pub fn any(&self) -> bool {
        self.summary.iter().any(|word| word.load(Ordering::Acquire) != 0)
    }

    /// Takes all marks off and names their slots, in order.
    pub fn drain(&self, mut visit: impl FnMut(u32)) {
        for (index, summary) in self.summary.iter().enumerate() {
            if summary.load(Ordering::Relaxed) == 0 {
                continue;
            }
            let mut up = summary.swap(0, Ordering::AcqRel);
            while up != 0 {
                let word = index * 64 + up.trailing_zeros() as usize;
                up &= up - 1;
                let Some(marks) = self.words.get(word) else { continue };
                let mut bits = marks.swap(0, Ordering::AcqRel);
                while bits != 0 {
                    visit(word as u32 * 64 + bits.trailing_zeros());
                    bits &= bits - 1;
                }
            }
        }
    }
}

//! Which SAs have changed: one bit for each slot, set by workers and drained by one thread.
//!
//! A worker sets the mark of a slot after it has changed its hot state; whoever drains a mark and reads that state
//! afterwards sees the change. A mark that is set while its slot is being drained is seen now or by the next drain,
//! and never lost. That a mark is set already is found by plain loads, which may be older than a drain; the fence
//! of [`settle`](crate::settle) before them and that of [`Marks::drain`] see to it that this drain then reads the
//! change.

use crate::stamp::Settled;
use crate::sync::{AtomicU64, Ordering, fence};

/// Marks of one direction.
#[derive(Debug)]
pub struct Marks {
    slots: u32,
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
        Self { slots, words, summary }
    }

    /// Marks a slot whose changes are settled; `true` if that made work for whoever drains, who is to be woken then.
    /// Costs two loads where it is marked already. A slot beyond the last one has no mark.
    #[inline]
    pub fn set(&self, slot: u32, _changes: &Settled) -> bool {
        let (word, bit) = (slot as usize / 64, 1u64 << (slot % 64));
        let (Some(marks), Some(summary)) = (self.words.get(word), self.summary.get(word / 64)) else {
            return false;
        };
        if slot >= self.slots {
            return false;
        }
        let up = 1u64 << (word % 64);
        let mut new = false;
        // The word before the summary: a drain that has taken the summary and not the word leaves both.
        if marks.load(Ordering::Relaxed) & bit == 0 {
            marks.fetch_or(bit, Ordering::AcqRel);
            new = true;
        }
        // Also where another worker has set the mark: it may not have come to the summary yet.
        if summary.load(Ordering::Relaxed) & up == 0 {
            summary.fetch_or(up, Ordering::AcqRel);
            new = true;
        }
        new
    }

    /// Is any slot marked?
    #[must_use]
    pub fn any(&self) -> bool {
        self.summary.iter().any(|word| word.load(Ordering::Acquire) != 0)
    }

    /// Takes all marks off and names their slots, in order. `visit` reads the state of the slot, or somebody does
    /// later.
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
                // A worker that still found a mark here has changed its slot before this.
                fence(Ordering::SeqCst);
                while bits != 0 {
                    visit(word as u32 * 64 + bits.trailing_zeros());
                    bits &= bits - 1;
                }
            }
        }
    }
}

//! Changes of workers against versions of records: who has seen what (failover rules F9, F18).
//!
//! A worker changes hot state and then looks at a word of the replicating thread (the version opened last, a mark);
//! that thread changes this word and then reads the hot state. Each must not miss the other: either the worker
//! sees the new word, or the record holds the change. Ordinary atomics promise that to neither (the looks may pass
//! the changes, on x86 too), so each side has one sequentially consistent fence between its change and its look.
//! A worker needs one for a whole batch: [`settle`] is that fence, and its token is asked for wherever the order
//! matters.

use crate::sync::{AtomicU64, Ordering, fence};
use core::marker::PhantomData;

/// Proof that this thread has fenced: what it changed before is ordered before its looks at words of the
/// replicating thread. Changes made after it need a new one.
#[derive(Debug)]
pub struct Settled(PhantomData<*const ()>);

/// Ends a batch of changes of hot state. Costs one fence (some 20 ns on x86), however many changes there were.
#[inline]
#[must_use]
pub fn settle() -> Settled {
    fence(Ordering::SeqCst);
    Settled(PhantomData)
}

impl Settled {
    /// The stamp of the changes that were settled: every record of a version above it, opened on `version` by
    /// [`open_version`], holds them. To be taken before the slots are marked: the marks must lead to such a record.
    #[inline]
    #[must_use]
    pub fn stamp(&self, version: &AtomicU64) -> u64 {
        // Whoever sees a version sees too that the marks before it were drained, and sets its own anew.
        version.load(Ordering::Acquire)
    }
}

/// Opens the next version of a record; only then is the hot state of the record read. One thread opens versions.
#[inline]
#[must_use]
pub fn open_version(version: &AtomicU64) -> u64 {
    let opened = version.fetch_add(1, Ordering::AcqRel) + 1;
    fence(Ordering::SeqCst);
    opened
}

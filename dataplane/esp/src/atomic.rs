//! The words that cores share, so that the same code runs over `std`'s atomics and those of a model checker.

use std::sync::atomic::{AtomicU64, Ordering};

/// A 64-bit word that several cores change.
pub trait AtomicWord {
    /// Reads; what was written before a value that it sees is visible.
    fn load_acquire(&self) -> u64;
    /// Replaces `current` by `new`, both ordered; otherwise answers what is there. May fail without cause.
    fn exchange(&self, current: u64, new: u64) -> Result<u64, u64>;
    /// Raises to `value` if that is higher, ordered after everything before it.
    fn raise(&self, value: u64);
    /// Adds `value`, ordered, and answers what was there.
    fn add(&self, value: u64) -> u64;
}

impl AtomicWord for AtomicU64 {
    #[inline]
    fn load_acquire(&self) -> u64 {
        self.load(Ordering::Acquire)
    }

    #[inline]
    fn exchange(&self, current: u64, new: u64) -> Result<u64, u64> {
        self.compare_exchange_weak(current, new, Ordering::AcqRel, Ordering::Acquire)
    }

    #[inline]
    fn raise(&self, value: u64) {
        self.fetch_max(value, Ordering::Release);
    }

    #[inline]
    fn add(&self, value: u64) -> u64 {
        self.fetch_add(value, Ordering::AcqRel)
    }
}

#[cfg(test)]
impl AtomicWord for loom::sync::atomic::AtomicU64 {
    fn load_acquire(&self) -> u64 {
        self.load(Ordering::Acquire)
    }

    fn exchange(&self, current: u64, new: u64) -> Result<u64, u64> {
        self.compare_exchange_weak(current, new, Ordering::AcqRel, Ordering::Acquire)
    }

    fn raise(&self, value: u64) {
        self.fetch_max(value, Ordering::Release);
    }

    fn add(&self, value: u64) -> u64 {
        self.fetch_add(value, Ordering::AcqRel)
    }
}

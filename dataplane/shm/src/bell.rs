//! Waking a thread only where it sleeps, and never too late.

use crate::sync::{AtomicBool, Ordering, fence};

/// Between one thread that sleeps for want of work and those that make work for it. How it is woken (an event
/// descriptor, say) is the affair of the callers; a wake-up must keep until the sleeper blocks.
#[derive(Debug)]
pub struct Bell {
    asleep: AtomicBool,
}

impl Default for Bell {
    fn default() -> Self {
        Self::new()
    }
}

impl Bell {
    /// The thread is awake.
    #[must_use]
    pub fn new() -> Self {
        Self { asleep: AtomicBool::new(false) }
    }

    /// To be called after work was made: wakes the thread by `wake` where it sleeps or is about to. Costs a fence and
    /// a load where it does not. One of several callers wakes.
    #[inline]
    pub fn ring(&self, wake: impl FnOnce()) {
        // Either this look finds the sleeper, or its last look finds the work.
        fence(Ordering::SeqCst);
        if self.asleep.load(Ordering::Relaxed) && self.asleep.swap(false, Ordering::AcqRel) {
            wake();
        }
    }

    /// The thread is about to sleep: it looks once more for work after this, and blocks only without any. Whoever
    /// makes work from now on rings.
    pub fn doze(&self) {
        // All changes of this word are read-modify-writes: a late ring takes a new sleep for the old one and wakes,
        // which is one wake-up too many, and never wipes one out.
        self.asleep.swap(true, Ordering::AcqRel);
        fence(Ordering::SeqCst);
    }

    /// The thread is awake, rung or not.
    pub fn wake(&self) {
        self.asleep.swap(false, Ordering::AcqRel);
    }

    /// Sleeps by `block` unless there is work, which `idle` says after [`Bell::doze`]. `block` may end without a
    /// ring.
    pub fn sleep(&self, idle: impl FnOnce() -> bool, block: impl FnOnce()) {
        self.doze();
        if idle() {
            block();
        }
        self.wake();
    }
}

//! The primitives that publish-and-retire, marks, stamps and bells are built on. The loom tests compile their sources
//! over a module of this name of their own, so that the tested source is the shipped source.

pub(crate) use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, Ordering, fence};

/// Lets others run while the publisher waits for readers.
pub(crate) fn pause() {
    std::thread::sleep(std::time::Duration::from_micros(50));
}

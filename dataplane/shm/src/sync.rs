//! The primitives that publish-and-retire is built on. The loom tests compile `publish.rs` over their own
//! module of this name, so that the tested source is the shipped source.

pub(crate) use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, Ordering, fence};

/// Lets others run while the publisher waits for readers.
pub(crate) fn pause() {
    std::thread::sleep(std::time::Duration::from_micros(50));
}

//! The atomics that the rings are built on. The loom tests compile `ring.rs` over their own module of
//! this name, so that the tested source is the shipped source.

pub(crate) use std::sync::atomic::{AtomicU32, Ordering};

//! Typed shared memory: hot SA state, statistics, publish-and-retire.
//!
//! - [`HotState`]: what the traffic changes in an SA (sequence numbers, windows, counters), in a memfd that
//!   outlives the process, with the node's own counters (failover rules F4, F8, F31).
//! - [`StatsRegion`]: counters of the workers, read by others without asking.
//! - [`Marks`], [`settle`], [`open_version`], [`Bell`]: which SAs have changed, and since which record; nothing that
//!   workers change is missed by the thread that replicates it (F9, F18).
//! - [`Domain`], [`Reader`], [`Published`], [`Publisher`]: how immutable configuration reaches the
//!   workers: one load for a look-up, and memory is freed by the publisher alone.
//!
//! All shared memory is reached through atomics only, since another process may have it mapped.

// This crate is one of the homes of unsafe code: it maps shared memory and frees what readers have left.
#![allow(unsafe_code)]

mod bell;
mod hot;
mod marks;
mod publish;
mod segment;
mod stamp;
mod stats;
mod sync;

pub use bell::Bell;
pub use hot::{
    Handling, HotError, HotHeader, HotIn, HotOut, HotState, LAYOUT_VERSION, MAX_SLOTS, ROLE_ACTIVE,
    ROLE_STANDBY, WINDOW_WORDS,
};
pub use marks::Marks;
pub use publish::{Domain, Mark, Published, Publisher, Reader, ReaderError};
pub use segment::{Segment, SegmentError};
pub use stamp::{Settled, open_version, settle};
pub use stats::{STATS_VERSION, StatsError, StatsRegion, WorkerCounters};

//! Who of the two nodes is active, and what the other one knows (`docs/failover.md` F17 to F29), without I/O.
//!
//! [`Node`] is one state machine: what happens goes in by [`Node::handle`], [`Node::handle_message`] and
//! [`Node::handle_timeout`]; what is to be done comes out of [`Node::poll_action`], what is to be sent out of
//! [`Node::poll_transmit`]. The data plane runs it on a thread of its own, the simulation under a seeded clock.
//!
//! Everything runs on one thread, so that merging, reading the role and sealing an answer cannot interleave (F18 step 4).

mod active;
mod input;
mod node;
mod partner;
mod reserve;
mod standby;
mod status;

pub use input::*;
pub use node::{Counts, Malformed, Node, PathSet};
pub use status::{Heard, Status};
pub use tandem_lease::message::MESSAGE_MAX;

//! Who of the two nodes is active, and what the other one knows (`docs/failover.md` F17 to F29), without I/O.
//!
//! [`Node`] is one state machine: what happens goes in by [`Node::handle`], [`Node::handle_message`] and
//! [`Node::handle_timeout`]; what is to be done comes out of [`Node::poll_action`], what is to be sent out of
//! [`Node::poll_transmit`]. The data plane runs it on a thread of its own, the simulation under a seeded clock.

mod input;

pub use input::*;

mod node;

pub use node::{Malformed, Node, PathSet, Status};

pub use tandem_lease::message::MESSAGE_MAX;

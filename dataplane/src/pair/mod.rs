//! The pair thread: the machine `tandem_takeover` with its sockets, its clock and its neighbours.
//!
//! One thread of real-time priority ([`spawn`]) owns the role of this node. It takes orders ([`Command`]) from the
//! thread that serves the control process, and hands out events ([`Outward`]); with the workers it shares hot state,
//! marks and a [`Bell`]. It takes no lock, writes no log and waits for no disk.

mod announce;
mod bell;
pub mod clock;
mod command;
mod member;
mod outbox;
pub mod paths;
pub mod seal;
mod segments;
mod status;
mod thread;
mod witness;
mod workers;

pub use bell::Bell;
pub use command::{Command, Numbers, Orders, Verdict};
pub use outbox::{Inbox, Outbox, Outward};
pub use segments::{Attached, Facts};
pub use thread::{Setup, spawn};

/// Said to whoever wants something of the pair before there is one.
pub const NOT_SET: &str = "the settings of the pair come first (SetPair); run daemons of one version";

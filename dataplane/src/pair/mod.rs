//! The pair thread: the machine `tandem_takeover` with its sockets, its clock and its neighbours.

mod bell;
pub mod clock;
pub mod seal;

pub use bell::Bell;

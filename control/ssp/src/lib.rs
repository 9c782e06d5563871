//! SSP, the state synchronization protocol between the two control processes, without I/O.
//!
//! One [`Session`] is one connection: octets go in by [`Session::receive`], frames come out of
//! [`Session::poll_transmit`], what the owner must know out of [`Session::poll_event`]. What outlives a connection
//! is in [`Local`]: what this node says of itself, its configuration's digest, the epoch keys, the SAs to be sent. A session
//! looks at it each time that it is asked what to send, so a change there needs no call of its own.
//!
//! ```text
//! dialling node                         listening node
//!   preamble, KK message 1  --------->
//!                           <---------   preamble, KK message 2      (authenticated, `secure`)
//!   Hello                   <-------->   Hello                       (terms, digest)
//!   [Digests                <-------->   Digests, Refuse]            (only if the configurations differ)
//!   Reserved                <-------->   Reserved                    (terms are on disk above the partner's, F1, F2)
//!   Epoch, EpochUse         ---------    EpochReady, EpochUsed       (keys of the paths, F6; made by node 0)
//!   BulkStart, Sa ..., EndOfBulk, Sa/Delete ...   <- Applied         (from the active node, F40)
//! ```

pub mod digest;
pub mod epoch;
pub mod frame;
pub mod message;
pub mod replica;
pub mod secure;
mod session;
pub mod store;
pub mod stream;

pub use digest::Digest;
pub use epoch::Epochs;
pub use replica::Replica;
pub use session::{
    Counters, End, Event, Keys, Local, MessageCount, Nanos, Session, Stage, Status, StreamState,
};
pub use store::{SaId, Store};

/// Version of the protocol: in the clear preamble, in the handshake's prologue and in Hello.
pub const VERSION: u16 = 1;
/// TCP port, and UDP port of the paths, where the configuration names none.
pub const PORT: u16 = 3249;

//! Terms and the term file, without I/O.
//!
//! A term is the number of a reign (`failover.md` F1, F2): a node that starts with new hot state, or that
//! takes over, takes a term that was never used before by either node of its pair, because the nonce of
//! every AEAD packet carries it. So terms are written down before they are used. [`TermFile`] is what is
//! on disk; the caller writes it (to a temporary file, fsync, rename, fsync of the directory) and only
//! then uses the term that came with it.

mod file;
mod merge;
pub mod message;
pub mod mutant;
pub mod numbers;
mod sa;
mod sender;
mod term;

pub use file::{DecodeError, FILE_MAX, Pool, PublicKey, TermFile, Terms};
pub use merge::merge;
pub use sa::{SaKey, Way};
pub use sender::{Answered, JUMP_MAX, LEASE_MIN, Memory, Sender, SenderCounts};
pub use term::{NodeNumber, TermError};

//! ESP (RFC 4303) in tunnel mode over IPv4 with AES-GCM (RFC 4106): the layout of an SA at run time, the
//! sealing and opening of packets around an AEAD provider, sequence numbers, IVs, and the anti-replay window.
//!
//! An SA is configuration apart from hot state. [`SaOut`] and [`SaIn`] are read only and shared by workers;
//! what changes with each packet lies in shared memory (`tandem_shm::HotState`), outlives the process, and is bound
//! to the key (rule F8 of `docs/failover.md`): this crate never zeroes it.
//!
//! A packet goes out in this order, so that a crash between two steps leaves a gap and never a reuse:
//! [`sequence::take`], [`IvSource::next`], [`SaOut::prepare`], `Provider::seal`. It comes in in this order:
//! [`SaIn::prepare`], [`window::check`], `Provider::open`, [`window::accept`], [`SaIn::finish`],
//! [`ecn::decapsulate`], [`SaIn::permits`]. Only an authentic packet moves the window (F12).
//!
//! No input or output, no clocks, no allocation after an SA is made, no `unsafe`.

mod atomic;
pub mod ecn;
pub mod iv;
mod open;
mod sa;
mod seal;
pub mod sequence;
pub mod spi;
pub mod window;

pub use atomic::AtomicWord;
pub use iv::{Iv, IvSource, TermError};
pub use open::{FinishError, Truncated};
pub use sa::{SaIn, SaInConfig, SaOut, SaOutConfig, SelectorRange};
pub use seal::PrepareError;
pub use spi::Spi;

//! Burst AEAD providers behind one trait.
//!
//! A [`Provider`] seals or opens a burst of packets, of one or of several SAs, in place. There is one module
//! for each provider:
//!
//! - `aws_lc`: aws-lc-rs, packet by packet; for every machine.
//! - `rust_crypto`: the `aes-gcm` crate, packet by packet; the portable reference, and the oracle that the
//!   others are compared with.
//! - The project's own multi-packet provider (VAES and AVX-512 intrinsics, packets interleaved in registers)
//!   becomes a module `vaes` beside them: a variant of the private enum in `key`, a name in [`PROVIDERS`], and
//!   the first choice of `auto` where the CPU has what it needs. `unsafe` stays denied in this crate until
//!   that module, and then only it, allows it.
//!
//! Every name in [`PROVIDERS`] passes one conformance suite (`tests/conformance.rs`).
//!
//! Sealing and opening never panic and never allocate; key schedules are made by [`Provider::key`] and wiped
//! when the [`Key`] is dropped.

mod aws_lc;
mod gather;
mod job;
mod key;
mod rust_crypto;
mod verdict;

pub use job::{Aad, MAX_AAD, MAX_GATHERED, MAX_SEGMENTS, NONCE_LEN, OpenJob, SealJob, Segments, TAG_LEN};
pub use key::{Algorithm, Key, KeyError};
pub use verdict::Verdicts;

/// The most packets of one burst.
pub const BURST: usize = 64;

/// The names that [`provider`] knows, besides `auto`.
pub const PROVIDERS: &[&str] = &[aws_lc::NAME, rust_crypto::NAME];

/// Seals and opens bursts of packets.
///
/// One worker owns one provider (it holds scratch memory); keys are shared between workers. A provider takes
/// the keys of every other provider too: a [`Key`] knows how it was made, and where a provider cannot batch
/// it, it is used packet by packet.
pub trait Provider: Send {
    /// The name under which [`provider`] finds it.
    fn name(&self) -> &'static str;

    /// Makes the key schedule for `bytes`. May allocate; not for the packet path.
    ///
    /// # Errors
    /// The length of `bytes` is not that of the algorithm.
    fn key(&self, algorithm: Algorithm, bytes: &[u8]) -> Result<Key, KeyError>;

    /// Seals every job of `burst` (at most [`BURST`]) in place and writes the tags.
    ///
    /// It cannot fail: the types of a job hold only lengths that can be sealed. Should the library below refuse
    /// nevertheless, text and tag are overwritten with zeros, so that nothing leaves in the clear.
    fn seal(&mut self, burst: &mut [SealJob<'_>]);

    /// Opens every job of `burst` (at most [`BURST`]) in place; bit `i` of the answer is job `i`.
    ///
    /// The text of a job that is not authentic is unspecified and must never be used. Jobs past [`BURST`] are
    /// not opened, so they are not authentic.
    fn open(&mut self, burst: &mut [OpenJob<'_>]) -> Verdicts;
}

/// There is no provider of this name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no AEAD provider is named {name:?}; there are: auto, {}", PROVIDERS.join(", "))]
pub struct UnknownProvider {
    /// What was asked for.
    pub name: String,
}

/// The provider of this name; `auto` is the fastest that this machine can run.
///
/// # Errors
/// The name is neither `auto` nor in [`PROVIDERS`].
pub fn provider(name: &str) -> Result<Box<dyn Provider>, UnknownProvider> {
    match name {
        "auto" | aws_lc::NAME => Ok(Box::new(aws_lc::AwsLc::new())),
        rust_crypto::NAME => Ok(Box::new(rust_crypto::RustCrypto::new())),
        other => Err(UnknownProvider { name: other.to_owned() }),
    }
}

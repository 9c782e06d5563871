//! Burst AEAD providers behind one trait.
//!
//! A [`Provider`] seals or opens a burst of packets, of one or of several SAs, in place. There is one module
//! for each provider:
//!
//! - `aws_lc`: aws-lc-rs, packet by packet; for every machine.
//! - `rust_crypto`: the `aes-gcm` crate, packet by packet; the portable reference, and the oracle that the
//!   others are compared with.
//! - `vaes`: the project's own, several packets interleaved in registers, for x86-64 CPUs with AVX-512, VAES
//!   and VPCLMULQDQ; the first choice of `auto` there. The only module with `unsafe` in it.
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
#[cfg(target_arch = "x86_64")]
mod vaes;
mod verdict;

pub use job::{Aad, MAX_AAD, MAX_GATHERED, MAX_SEGMENTS, NONCE_LEN, OpenJob, SealJob, Segments, TAG_LEN};
pub use key::{Algorithm, Key, KeyError};
pub use verdict::Verdicts;

/// The most packets of one burst.
pub const BURST: usize = 64;

/// The names that [`provider`] knows, besides `auto`. Which of them this CPU can run, [`available`] tells.
pub const PROVIDERS: &[&str] = &[
    aws_lc::NAME,
    rust_crypto::NAME,
    #[cfg(target_arch = "x86_64")]
    vaes::NAME,
];

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

/// A provider cannot be had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProviderError {
    /// There is none of this name.
    #[error("no AEAD provider is named {name:?}; there are: auto, {}", PROVIDERS.join(", "))]
    Unknown {
        /// What was asked for.
        name: String,
    },
    /// This CPU lacks instructions that it needs.
    #[error("the AEAD provider {name:?} needs a CPU with AVX-512 (F, BW, DQ, VL), VAES and VPCLMULQDQ")]
    Unsupported {
        /// What was asked for.
        name: &'static str,
    },
}

/// The provider of this name; `auto` is the fastest that this machine can run.
///
/// # Errors
/// The name is neither `auto` nor in [`PROVIDERS`], or this CPU cannot run what it names.
pub fn provider(name: &str) -> Result<Box<dyn Provider>, ProviderError> {
    match name {
        #[cfg(target_arch = "x86_64")]
        "auto" if let Some(cpu) = vaes::Cpu::detect() => Ok(Box::new(vaes::Vaes::new(cpu))),
        #[cfg(target_arch = "x86_64")]
        vaes::NAME => match vaes::Cpu::detect() {
            Some(cpu) => Ok(Box::new(vaes::Vaes::new(cpu))),
            None => Err(ProviderError::Unsupported { name: vaes::NAME }),
        },
        "auto" | aws_lc::NAME => Ok(Box::new(aws_lc::AwsLc::new())),
        rust_crypto::NAME => Ok(Box::new(rust_crypto::RustCrypto::new())),
        other => Err(ProviderError::Unknown { name: other.to_owned() }),
    }
}

/// The names in [`PROVIDERS`] that this CPU can run.
pub fn available() -> impl Iterator<Item = &'static str> {
    PROVIDERS.iter().copied().filter(|name| provider(name).is_ok())
}

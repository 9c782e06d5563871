//! Algorithms and key schedules.

use std::fmt;

use crate::job::{Aad, NONCE_LEN, TAG_LEN};
#[cfg(target_arch = "x86_64")]
use crate::vaes;
use crate::{aws_lc, rust_crypto};

/// What a key is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Algorithm {
    /// AES-128 in Galois/Counter mode, 16-octet tag.
    Aes128Gcm,
    /// AES-256 in Galois/Counter mode, 16-octet tag.
    Aes256Gcm,
}

impl Algorithm {
    /// Octets of the key, without the salt.
    pub const fn key_len(self) -> usize {
        match self {
            Algorithm::Aes128Gcm => 16,
            Algorithm::Aes256Gcm => 32,
        }
    }
}

/// A key could not be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The key is too short or too long.
    #[error("a key of {algorithm:?} has {} octets, not {found}", algorithm.key_len())]
    Length {
        /// The algorithm that was asked for.
        algorithm: Algorithm,
        /// Octets that were given.
        found: usize,
    },
    /// The library below took the length, but not the key.
    #[error("the library refused the key")]
    Refused,
}

impl KeyError {
    /// Checks the length of `bytes`.
    pub(crate) fn check(algorithm: Algorithm, bytes: &[u8]) -> Result<(), KeyError> {
        match bytes.len() == algorithm.key_len() {
            true => Ok(()),
            false => Err(KeyError::Length { algorithm, found: bytes.len() }),
        }
    }
}

/// An expanded key. Shared by workers, wiped when it is dropped, never shown.
pub struct Key {
    algorithm: Algorithm,
    schedule: Schedule,
}

/// One variant for each way in which a schedule is laid out.
pub(crate) enum Schedule {
    AwsLc(aws_lc::Schedule),
    RustCrypto(rust_crypto::Schedule),
    #[cfg(target_arch = "x86_64")]
    Vaes(vaes::Schedule),
}

impl Key {
    pub(crate) fn new(algorithm: Algorithm, schedule: Schedule) -> Self {
        Key { algorithm, schedule }
    }

    /// What the key is for.
    #[inline]
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The schedule, where `vaes` made it.
    #[cfg(target_arch = "x86_64")]
    #[inline]
    pub(crate) fn vaes(&self) -> Option<&vaes::Schedule> {
        match &self.schedule {
            Schedule::Vaes(schedule) => Some(schedule),
            _ => None,
        }
    }

    /// Seals one packet in one piece.
    #[inline]
    pub(crate) fn seal(&self, nonce: &[u8; NONCE_LEN], aad: &Aad, text: &mut [u8], tag: &mut [u8; TAG_LEN]) {
        let sealed = match &self.schedule {
            Schedule::AwsLc(schedule) => schedule.seal(nonce, aad.as_bytes(), text, tag),
            Schedule::RustCrypto(schedule) => schedule.seal(nonce, aad.as_bytes(), text, tag),
            #[cfg(target_arch = "x86_64")]
            Schedule::Vaes(schedule) => schedule.seal(nonce, aad, text, tag),
        };
        if !sealed {
            text.fill(0);
            tag.fill(0);
        }
    }

    /// Opens one packet in one piece; true where it is authentic.
    #[inline]
    pub(crate) fn open(
        &self,
        nonce: &[u8; NONCE_LEN],
        aad: &Aad,
        text: &mut [u8],
        tag: &[u8; TAG_LEN],
    ) -> bool {
        match &self.schedule {
            Schedule::AwsLc(schedule) => schedule.open(nonce, aad.as_bytes(), text, tag),
            Schedule::RustCrypto(schedule) => schedule.open(nonce, aad.as_bytes(), text, tag),
            #[cfg(target_arch = "x86_64")]
            Schedule::Vaes(schedule) => schedule.open(nonce, aad, text, tag),
        }
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Key").field("algorithm", &self.algorithm).finish_non_exhaustive()
    }
}

//! The `aes-gcm` crate, packet by packet: the portable reference and the oracle.
//!
//! The schedules lie in boxes and wipe themselves (feature `zeroize`).

use aes_gcm::aead::{AeadInOut, KeyInit};
use aes_gcm::{Aes128Gcm, Aes256Gcm};

use crate::gather::Scratch;
use crate::job::{NONCE_LEN, OpenJob, SealJob, TAG_LEN};
use crate::key::{self, Algorithm, Key, KeyError};
use crate::{Provider, Verdicts};

pub(crate) const NAME: &str = "aes-gcm";

pub(crate) struct RustCrypto {
    scratch: Scratch,
}

impl RustCrypto {
    pub(crate) fn new() -> Self {
        RustCrypto { scratch: Scratch::new() }
    }
}

impl Provider for RustCrypto {
    fn name(&self) -> &'static str {
        NAME
    }

    fn key(&self, algorithm: Algorithm, bytes: &[u8]) -> Result<Key, KeyError> {
        KeyError::check(algorithm, bytes)?;
        let schedule = match algorithm {
            Algorithm::Aes128Gcm => {
                Aes128Gcm::new_from_slice(bytes).map(|key| Schedule::Aes128(Box::new(key)))
            }
            Algorithm::Aes256Gcm => {
                Aes256Gcm::new_from_slice(bytes).map(|key| Schedule::Aes256(Box::new(key)))
            }
        };
        let schedule = schedule.map_err(|_| KeyError::Refused)?;
        Ok(Key::new(algorithm, key::Schedule::RustCrypto(schedule)))
    }

    fn seal(&mut self, burst: &mut [SealJob<'_>]) {
        self.scratch.seal_each(burst);
    }

    fn open(&mut self, burst: &mut [OpenJob<'_>]) -> Verdicts {
        self.scratch.open_each(burst)
    }
}

pub(crate) enum Schedule {
    Aes128(Box<Aes128Gcm>),
    Aes256(Box<Aes256Gcm>),
}

impl Schedule {
    /// Seals in place; false where the library refused.
    #[inline]
    pub(crate) fn seal(
        &self,
        nonce: &[u8; NONCE_LEN],
        aad: &[u8],
        text: &mut [u8],
        tag: &mut [u8; TAG_LEN],
    ) -> bool {
        let sealed = match self {
            Schedule::Aes128(key) => key.encrypt_inout_detached(nonce.into(), aad, text.into()),
            Schedule::Aes256(key) => key.encrypt_inout_detached(nonce.into(), aad, text.into()),
        };
        match sealed {
            Ok(made) => {
                *tag = made.into();
                true
            }
            Err(_) => false,
        }
    }

    /// Opens in place; true where authentic.
    #[inline]
    pub(crate) fn open(
        &self,
        nonce: &[u8; NONCE_LEN],
        aad: &[u8],
        text: &mut [u8],
        tag: &[u8; TAG_LEN],
    ) -> bool {
        let opened = match self {
            Schedule::Aes128(key) => key.decrypt_inout_detached(nonce.into(), aad, text.into(), tag.into()),
            Schedule::Aes256(key) => key.decrypt_inout_detached(nonce.into(), aad, text.into(), tag.into()),
        };
        opened.is_ok()
    }
}

//! aws-lc-rs, packet by packet.
//!
//! The schedule is one allocation of AWS-LC's own allocator, which wipes every block that it frees.

use aws_lc_rs::aead::{AES_128_GCM, AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};

use crate::gather::Scratch;
use crate::job::{NONCE_LEN, OpenJob, SealJob, TAG_LEN};
use crate::key::{self, Algorithm, Key, KeyError};
use crate::{Provider, Verdicts};

pub(crate) const NAME: &str = "aws-lc-rs";

pub(crate) struct AwsLc {
    scratch: Scratch,
}

impl AwsLc {
    pub(crate) fn new() -> Self {
        AwsLc { scratch: Scratch::new() }
    }
}

impl Provider for AwsLc {
    fn name(&self) -> &'static str {
        NAME
    }

    fn key(&self, algorithm: Algorithm, bytes: &[u8]) -> Result<Key, KeyError> {
        KeyError::check(algorithm, bytes)?;
        let of = match algorithm {
            Algorithm::Aes128Gcm => &AES_128_GCM,
            Algorithm::Aes256Gcm => &AES_256_GCM,
        };
        let key = UnboundKey::new(of, bytes).map_err(|_| KeyError::Refused)?;
        Ok(Key::new(algorithm, key::Schedule::AwsLc(Schedule(LessSafeKey::new(key)))))
    }

    fn seal(&mut self, burst: &mut [SealJob<'_>]) {
        self.scratch.seal_each(burst);
    }

    fn open(&mut self, burst: &mut [OpenJob<'_>]) -> Verdicts {
        self.scratch.open_each(burst)
    }
}

pub(crate) struct Schedule(LessSafeKey);

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
        let nonce = Nonce::assume_unique_for_key(*nonce);
        self.0.seal_in_place_scatter(nonce, Aad::from(aad), text, &[], tag).is_ok()
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
        let nonce = Nonce::assume_unique_for_key(*nonce);
        self.0.open_in_place_separate_tag(nonce, Aad::from(aad), tag, text).is_ok()
    }
}

//! The numbers file of static SAs, without I/O (`failover.md` F40).
//!
//! A static SA has no IKE to give it new keys, so a node writes down how far its numbers may have been used:
//! outbound the end that is reserved, inbound the top. [`Numbers`] is what a node knows; the file is an image
//! of it ([`Numbers::image`]) and batches that were appended later ([`encode_batch`]). The caller syncs each
//! batch before it appends the next one; [`read`] relies on that.
//!
//! Where the file is gone, or cannot be trusted, nobody knows which keys were used how far. Then the SAs that
//! are configured at that moment are noted as lost, and stay so until the partner tells their numbers. A key that
//! appears later was made later: it was never used.

use crate::sa::SaKey;
use std::collections::HashMap;

mod codec;

pub use codec::{ENTRY, HEADER, OtherVersion, Read, content, encode_batch, read};

/// What a node knows of the numbers of an SA.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Known {
    /// No node has ever used the key: the file would know it.
    Never,
    /// Last number that may have been used (outbound) or delivered (inbound).
    UpTo(u64),
    /// It may have been used, and nobody knows how far.
    Lost,
}

/// Why the numbers of this node are lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Loss {
    /// There is no file, although the node has used terms.
    #[error("there is no numbers file, although this node has carried traffic")]
    Missing,
    /// The file belongs to another term file.
    #[error("the numbers file belongs to another term file")]
    Other,
    /// The header, or something that was on disk for good, is damaged.
    #[error("the numbers file is damaged")]
    Damaged,
    /// The numbers were lost earlier, and the data plane ended before it had heard of its SAs.
    #[error("the numbers were lost earlier, and the SAs of that time are not noted yet")]
    Unsettled,
}

/// The numbers of the static SAs of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Numbers {
    file_id: [u8; 16],
    sas: HashMap<SaKey, Entry>,
    /// Every SA that is not in `sas` may have been used.
    lost: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Entry {
    Lost,
    UpTo(u64),
}

impl Numbers {
    /// Of a node that never carried traffic.
    #[must_use]
    pub fn new(file_id: [u8; 16]) -> Self {
        Self { file_id, sas: HashMap::new(), lost: false }
    }

    /// Of a node that has lost them; to be settled with [`Numbers::settle`].
    #[must_use]
    pub fn lost(file_id: [u8; 16]) -> Self {
        Self { lost: true, ..Self::new(file_id) }
    }

    /// What is known of an SA.
    #[must_use]
    pub fn lookup(&self, sa: &SaKey) -> Known {
        match self.sas.get(sa) {
            Some(Entry::UpTo(value)) => Known::UpTo(*value),
            Some(Entry::Lost) => Known::Lost,
            None if self.lost => Known::Lost,
            None => Known::Never,
        }
    }

    /// The numbers of an SA up to this one may have been used. A lost SA is known from now on: only the partner
    /// can have told the number.
    pub fn record(&mut self, sa: SaKey, value: u64) {
        let entry = self.sas.entry(sa).or_insert(Entry::Lost);
        *entry = match *entry {
            Entry::Lost => Entry::UpTo(value),
            Entry::UpTo(known) => Entry::UpTo(known.max(value)),
        };
    }

    /// Were the numbers lost, and the SAs of that time not named yet?
    #[must_use]
    pub fn is_lost(&self) -> bool {
        self.lost
    }

    /// Names the SAs that are configured, all of them: those without a number are lost, and a key that comes
    /// later was never used. Changes nothing where the numbers are not lost, or were settled before.
    pub fn settle(&mut self, configured: impl IntoIterator<Item = SaKey>) {
        if std::mem::take(&mut self.lost) {
            for sa in configured {
                self.sas.entry(sa).or_insert(Entry::Lost);
            }
        }
    }

    /// SAs that are known by name.
    #[must_use]
    pub fn len(&self) -> usize {
        self.sas.len()
    }

    /// Is no SA known by name?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.sas.is_empty()
    }

    /// Octets of [`Numbers::image`].
    #[must_use]
    pub fn image_len(&self) -> usize {
        HEADER + ENTRY * self.sas.len()
    }

    /// The SAs that a file names which cannot be trusted: their keys were used, nobody knows how far.
    fn doubted(file_id: [u8; 16], named: impl IntoIterator<Item = SaKey>) -> Self {
        let mut numbers = Self::lost(file_id);
        numbers.sas = named.into_iter().map(|sa| (sa, Entry::Lost)).collect();
        numbers
    }
}

#[cfg(test)]
mod tests;

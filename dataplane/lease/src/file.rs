//! The term file: what is on disk, and how terms are taken from it (`failover.md` F2).

use crate::term::{NodeNumber, TermError};
use sha2::{Digest, Sha256};
use std::fmt::Write;

/// Longest term file in octets.
pub const FILE_MAX: usize = 1024;
/// Terms reserved ahead of need.
const AHEAD: u64 = 16;
/// Fewer terms left are an alarm.
const ALARM: u64 = 4;
const FORMAT: &str = "tandem-terms 1";

/// May reserved terms have been taken without a note in the file?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pool {
    /// No: every term taken is in the file. So for a gateway without partner, which takes terms at its
    /// start only.
    Closed,
    /// Yes: a takeover takes a reserved term and notes it after. After a crash all reserved terms count as
    /// used.
    Open,
}

/// What a node knows of its terms on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TermFile {
    /// Random, made with the file: tells a new file from an old one.
    pub file_id: [u8; 16],
    /// Whose terms these are.
    pub node: NodeNumber,
    taken: u64,
    reserved: u64,
    pool: Pool,
}

/// Terms that can be taken without a write, from a [`TermFile`] that is on disk with [`Pool::Open`].
#[derive(Debug)]
pub struct Terms {
    node: NodeNumber,
    taken: u64,
    reserved: u64,
}

impl TermFile {
    /// The first file of a node. No term was taken, 16 are reserved.
    #[must_use]
    pub fn new(file_id: [u8; 16], node: NodeNumber) -> Self {
        Self { file_id, node, taken: 0, reserved: 2 * AHEAD, pool: Pool::Closed }
    }

    /// Highest term that is known to be taken; 0 for none.
    #[must_use]
    pub fn taken(&self) -> u64 {
        self.taken
    }

    /// Highest term that may be taken without a write.
    #[must_use]
    pub fn reserved(&self) -> u64 {
        self.reserved
    }

    /// Terms reserved and not known to be taken.
    #[must_use]
    pub fn left(&self) -> u64 {
        left(self.node, self.taken, self.reserved)
    }

    /// Are fewer terms left than should be (F2)?
    #[must_use]
    pub fn alarm(&self) -> bool {
        self.left() < ALARM
    }

    /// At a start with new hot state: a term that was never used, and the file that must be on disk before
    /// it is used.
    ///
    /// # Errors
    /// [`TermError::Exhausted`] at the end of 64 bits.
    pub fn take_at_start(&self) -> Result<(u64, TermFile), TermError> {
        let used = match self.pool {
            Pool::Closed => self.taken,
            Pool::Open => self.reserved,
        };
        let term = self.node.next_above(used)?;
        let next = TermFile { taken: term, pool: Pool::Closed, ..self.clone() }.refilled()?;
        Ok((term, next))
    }

    /// After a term was heard of that this file does not know (an old copy of the file was restored, or
    /// the partner is ahead): the file above it, with terms reserved. Gives `None` where the file knows it.
    ///
    /// # Errors
    /// [`TermError::Exhausted`] at the end of 64 bits.
    pub fn reserve_above(&self, heard: u64) -> Result<Option<TermFile>, TermError> {
        if heard <= self.taken {
            return Ok(None);
        }
        TermFile { taken: heard, ..self.clone() }.refilled().map(Some)
    }

    /// Ready for takeovers: the file that must be on disk before [`Terms::take`], and the terms.
    ///
    /// # Errors
    /// [`TermError::Exhausted`] at the end of 64 bits.
    pub fn open(&self) -> Result<(TermFile, Terms), TermError> {
        let used = match self.pool {
            Pool::Closed => self.taken,
            Pool::Open => self.reserved,
        };
        let file = TermFile { taken: used, pool: Pool::Open, ..self.clone() }.refilled()?;
        let terms = Terms { node: file.node, taken: file.taken, reserved: file.reserved };
        Ok((file, terms))
    }

    /// With [`AHEAD`] terms above the one taken.
    fn refilled(mut self) -> Result<Self, TermError> {
        let ahead = self.taken.checked_add(2 * AHEAD).ok_or(TermError::Exhausted)?;
        self.reserved = self.reserved.max(ahead);
        Ok(self)
    }

    /// As text, to be written whole.
    #[must_use]
    pub fn encode(&self) -> String {
        let mut text = String::with_capacity(256);
        let pool = match self.pool {
            Pool::Closed => "closed",
            Pool::Open => "open",
        };
        // Writing to a String never fails.
        let _ = writeln!(text, "{FORMAT}\nfile-id {:032x}", u128::from_be_bytes(self.file_id));
        let _ = writeln!(text, "node {}\ntaken {}", self.node.number(), self.taken);
        let _ = writeln!(text, "reserved {}\npool {pool}", self.reserved);
        let sum = checksum(&text);
        let _ = writeln!(text, "check {sum:016x}");
        text
    }

    /// Reads what [`TermFile::encode`] wrote, octet for octet.
    ///
    /// # Errors
    /// For everything else, a file cut short or a flipped bit included.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        if bytes.len() > FILE_MAX {
            return Err(DecodeError::TooLong);
        }
        let text = std::str::from_utf8(bytes).map_err(|_| DecodeError::Damaged)?;
        let mut lines = text.lines();
        match lines.next() {
            Some(FORMAT) => {}
            Some(first) if first.starts_with("tandem-terms ") => return Err(DecodeError::OtherVersion),
            _ => return Err(DecodeError::Damaged),
        }
        let mut value = |key: &str| {
            let line = lines.next()?;
            line.strip_prefix(key)?.strip_prefix(' ')
        };
        let mut read = || {
            let file_id = u128::from_str_radix(value("file-id")?, 16).ok()?.to_be_bytes();
            let node = NodeNumber::from_number(value("node")?.parse().ok()?)?;
            let taken = value("taken")?.parse().ok()?;
            let reserved = value("reserved")?.parse().ok()?;
            let pool = match value("pool")? {
                "closed" => Pool::Closed,
                "open" => Pool::Open,
                _ => return None,
            };
            Some(TermFile { file_id, node, taken, reserved, pool })
        };
        let file = read().ok_or(DecodeError::Damaged)?;
        // One spelling only; this also checks the sum and that nothing follows.
        if file.encode() != text || file.reserved < file.taken {
            return Err(DecodeError::Damaged);
        }
        Ok(file)
    }
}

impl Terms {
    /// The next term above every one in `heard`, without a write (F1: a takeover). To be noted on disk
    /// soon after with [`TermFile::reserve_above`].
    ///
    /// # Errors
    /// [`TermError::NotReserved`] where it would lie above those reserved: not eligible.
    pub fn take(&mut self, heard: u64) -> Result<u64, TermError> {
        let term = self.node.next_above(self.taken.max(heard))?;
        if term > self.reserved {
            return Err(TermError::NotReserved);
        }
        self.taken = term;
        Ok(term)
    }

    /// Terms left.
    #[must_use]
    pub fn left(&self) -> u64 {
        left(self.node, self.taken, self.reserved)
    }

    /// Are fewer terms left than should be (F2)?
    #[must_use]
    pub fn alarm(&self) -> bool {
        self.left() < ALARM
    }
}

fn left(node: NodeNumber, taken: u64, reserved: u64) -> u64 {
    match node.next_above(taken) {
        Ok(first) if first <= reserved => (reserved - first) / 2 + 1,
        _ => 0,
    }
}

/// The first 8 octets of SHA-256, big endian: against damage, not against forgery.
fn checksum(text: &str) -> u64 {
    let digest = Sha256::digest(text.as_bytes());
    digest.iter().take(8).fold(0, |sum, octet| sum << 8 | u64::from(*octet))
}

/// Why octets are no term file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Longer than [`FILE_MAX`].
    #[error("longer than {FILE_MAX} octets")]
    TooLong,
    /// Written by another version of Tandem.
    #[error("a term file of another format version")]
    OtherVersion,
    /// Cut short, changed, or no term file at all.
    #[error("damaged, or no term file")]
    Damaged,
}

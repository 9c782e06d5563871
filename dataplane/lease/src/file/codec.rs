//! The term file as text. A line for each value, in one spelling only, with a checksum at the end.

use super::{FILE_MAX, Pool, TermFile};
use crate::term::NodeNumber;
use sha2::{Digest, Sha256};
use std::fmt::Write;

const FORMAT_1: &str = "tandem-terms 1";
const FORMAT_2: &str = "tandem-terms 2";

/// Format of a term file.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Version {
    /// Of gateways without a partner: ends with the pool.
    One,
    /// With incarnation, reign and partner.
    Two,
}

impl TermFile {
    /// As text, to be written whole.
    #[must_use]
    pub fn encode(&self) -> String {
        self.text(Version::Two)
    }

    fn text(&self, version: Version) -> String {
        let mut text = String::with_capacity(512);
        let pool = match self.pool {
            Pool::Closed => "closed",
            Pool::Open => "open",
        };
        let format = match version {
            Version::One => FORMAT_1,
            Version::Two => FORMAT_2,
        };
        // Writing to a String never fails.
        let _ = writeln!(text, "{format}\nfile-id {:032x}", u128::from_be_bytes(self.file_id));
        let _ = writeln!(text, "node {}\ntaken {}", self.node.number(), self.taken);
        let _ = writeln!(text, "reserved {}\npool {pool}", self.reserved);
        if version == Version::Two {
            let _ = writeln!(text, "incarnation {}\nreign {}", self.incarnation, self.reign);
            text.push_str("partner ");
            match &self.partner {
                None => text.push_str("none"),
                Some(key) => key.iter().for_each(|octet| {
                    let _ = write!(text, "{octet:02x}");
                }),
            }
            text.push('\n');
        }
        let sum = checksum(&text);
        let _ = writeln!(text, "check {sum:016x}");
        text
    }

    /// Reads what [`TermFile::encode`] wrote, octet for octet; also what version 1 of the format wrote.
    ///
    /// # Errors
    /// For everything else, a file cut short or a flipped bit included.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        if bytes.len() > FILE_MAX {
            return Err(DecodeError::TooLong);
        }
        let text = std::str::from_utf8(bytes).map_err(|_| DecodeError::Damaged)?;
        let mut lines = text.lines();
        let version = match lines.next() {
            Some(FORMAT_1) => Version::One,
            Some(FORMAT_2) => Version::Two,
            Some(first) if first.starts_with("tandem-terms ") => return Err(DecodeError::OtherVersion),
            _ => return Err(DecodeError::Damaged),
        };
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
            // A file of version 1 knows of no reign: a term that was taken was not always one (F27).
            let (incarnation, reign, partner) = match version {
                Version::One => (0, 0, None),
                Version::Two => (
                    value("incarnation")?.parse().ok()?,
                    value("reign")?.parse().ok()?,
                    match value("partner")? {
                        "none" => None,
                        digits => Some(key(digits)?),
                    },
                ),
            };
            Some(TermFile { file_id, node, taken, reserved, pool, incarnation, reign, partner })
        };
        let file = read().ok_or(DecodeError::Damaged)?;
        // One spelling only; this also checks the sum and that nothing follows.
        if file.text(version) != text || file.reserved < file.taken || file.taken < file.reign {
            return Err(DecodeError::Damaged);
        }
        Ok(file)
    }
}

/// 64 hexadecimal digits.
fn key(digits: &str) -> Option<[u8; 32]> {
    if digits.len() != 64 || !digits.is_ascii() {
        return None;
    }
    let high = u128::from_str_radix(&digits[..32], 16).ok()?;
    let low = u128::from_str_radix(&digits[32..], 16).ok()?;
    let mut key = [0; 32];
    key[..16].copy_from_slice(&high.to_be_bytes());
    key[16..].copy_from_slice(&low.to_be_bytes());
    Some(key)
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

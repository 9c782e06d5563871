//! The numbers file as octets, big endian.
//!
//! ```text
//! header   magic 8 | version u32 | flags u32 (1: lost, not settled) | file id 16 | SAs in the image u32 | 0 u32 | check 8
//! entry    way u8 | kind u8 (0: number, 1: lost) | 0 u16 | SPI u32 | fingerprint u64 | number u64 | batch u32 | 0 u32 | check 8
//! ```
//! `batch` is the position of the entry that its batch begins with: all before it was on disk for good. So damage
//! to something that was on disk can be told from a batch that a crash has torn, except in the last batch.

use super::{Entry, Loss, Numbers};
use crate::sa::{SaKey, Way};
use sha2::{Digest, Sha256};

/// Octets of the header.
pub const HEADER: usize = 48;
/// Octets of an entry.
pub const ENTRY: usize = 40;
const MAGIC: [u8; 8] = *b"TANDEMNU";
const VERSION: u32 = 1;
const FLAG_LOST: u32 = 1;
const CHECK: usize = 8;

/// The file was written by another version of Tandem: it must not be overwritten.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a numbers file of another format version")]
pub struct OtherVersion;

/// What a file says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Read {
    /// What is known of the SAs.
    pub numbers: Numbers,
    /// Why they are lost, if they are.
    pub loss: Option<Loss>,
    /// Octets at the end that a crash has torn; none of them was reported as written.
    pub torn: usize,
}

/// A batch that is appended at octet `at` of the file, after everything before was synced.
#[must_use]
pub fn encode_batch(file_id: &[u8; 16], at: u64, entries: &[(SaKey, u64)]) -> Vec<u8> {
    let batch = at.saturating_sub(HEADER as u64) / ENTRY as u64;
    // A file of 2^32 entries is compacted long before.
    let batch = u32::try_from(batch).unwrap_or(u32::MAX);
    let mut bytes = Vec::with_capacity(entries.len() * ENTRY);
    for (sa, value) in entries {
        push_entry(&mut bytes, file_id, *sa, Entry::UpTo(*value), batch);
    }
    bytes
}

impl Numbers {
    /// A whole file: to be written beside the old one, synced, renamed over it, and the directory synced.
    #[must_use]
    pub fn image(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.image_len());
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&VERSION.to_be_bytes());
        bytes.extend_from_slice(&(if self.lost { FLAG_LOST } else { 0 }).to_be_bytes());
        bytes.extend_from_slice(&self.file_id);
        // SAs are at most 2^21: 2^20 slots of each direction.
        bytes.extend_from_slice(&u32::try_from(self.sas.len()).unwrap_or(u32::MAX).to_be_bytes());
        bytes.extend_from_slice(&[0; 4]);
        let check = checksum(&[&bytes]);
        bytes.extend_from_slice(&check);
        for (sa, entry) in &self.sas {
            push_entry(&mut bytes, &self.file_id, *sa, *entry, 0);
        }
        bytes
    }
}

/// Reads a file that belongs to the term file with this id. `None`: there is no file; `used`: has the node used
/// terms? Then it must have had one.
///
/// # Errors
/// If another version of Tandem has written it.
pub fn read(bytes: Option<&[u8]>, file_id: [u8; 16], used: bool) -> Result<Read, OtherVersion> {
    let lost = |loss, named: Vec<SaKey>| {
        Ok(Read { numbers: Numbers::doubted(file_id, named), loss: Some(loss), torn: 0 })
    };
    let Some(bytes) = bytes else {
        return match used {
            true => lost(Loss::Missing, Vec::new()),
            false => Ok(Read { numbers: Numbers::new(file_id), loss: None, torn: 0 }),
        };
    };
    let bytes = content(bytes);
    let Some(header) = Header::read(bytes)? else { return lost(Loss::Damaged, Vec::new()) };
    let log = Log::read(&bytes[HEADER..], &header);
    if log.damaged {
        return lost(Loss::Damaged, log.named());
    }
    if header.file_id != file_id {
        return lost(Loss::Other, log.named());
    }
    let mut numbers = Numbers { lost: header.lost, ..Numbers::new(file_id) };
    for (sa, entry) in &log.entries[..log.good] {
        match entry {
            Entry::UpTo(value) => numbers.record(*sa, *value),
            Entry::Lost => {
                numbers.sas.entry(*sa).or_insert(Entry::Lost);
            }
        }
    }
    let torn = bytes.len() - HEADER - log.good * ENTRY;
    Ok(Read { numbers, loss: header.lost.then_some(Loss::Unsettled), torn })
}

/// The octets of a file without the zeros behind its last entry: room for entries to come may be there already, so
/// that a write changes nothing but its own octets on the disk. No entry is all zeros, because of its checksum.
#[must_use]
pub fn content(bytes: &[u8]) -> &[u8] {
    let end = bytes.iter().rposition(|octet| *octet != 0).map_or(0, |last| last + 1);
    let entries = end.saturating_sub(HEADER).div_ceil(ENTRY);
    let end = if end <= HEADER { HEADER } else { HEADER + entries * ENTRY };
    &bytes[..end.min(bytes.len())]
}

struct Header {
    lost: bool,
    file_id: [u8; 16],
    image: usize,
}

impl Header {
    fn read(bytes: &[u8]) -> Result<Option<Self>, OtherVersion> {
        let Some((header, _)) = bytes.split_at_checked(HEADER) else { return Ok(None) };
        let (body, check) = header.split_at(HEADER - CHECK);
        if checksum(&[body]) != check || body[..8] != MAGIC {
            return Ok(None);
        }
        if word(&body[8..12]) != u64::from(VERSION) {
            return Err(OtherVersion);
        }
        let mut file_id = [0; 16];
        file_id.copy_from_slice(&body[16..32]);
        let flags = word(&body[12..16]);
        Ok(Some(Self {
            lost: flags & u64::from(FLAG_LOST) != 0,
            file_id,
            image: word(&body[32..36]) as usize,
        }))
    }
}

/// The entries of a file.
struct Log {
    /// Those that are whole, also behind one that is not.
    entries: Vec<(SaKey, Entry)>,
    /// How many of them come before the first that is not.
    good: usize,
    /// Is one broken that was on disk for good?
    damaged: bool,
}

impl Log {
    fn read(bytes: &[u8], header: &Header) -> Self {
        let mut log = Log { entries: Vec::new(), good: 0, damaged: false };
        let mut broken = None;
        for (position, octets) in bytes.chunks(ENTRY).enumerate() {
            match read_entry(octets, &header.file_id) {
                None => broken = broken.or(Some(position)),
                Some((sa, entry, batch)) => {
                    match broken {
                        None => log.good = position + 1,
                        // All before a batch was synced before the batch was written.
                        Some(broken) => log.damaged |= broken < batch,
                    }
                    log.entries.push((sa, entry));
                }
            }
        }
        // An image gets its name only after it was synced: it is never torn.
        log.damaged |= log.good < header.image;
        log
    }

    fn named(&self) -> Vec<SaKey> {
        self.entries.iter().map(|(sa, _)| *sa).collect()
    }
}

fn push_entry(bytes: &mut Vec<u8>, file_id: &[u8; 16], sa: SaKey, entry: Entry, batch: u32) {
    let start = bytes.len();
    let (kind, value) = match entry {
        Entry::UpTo(value) => (0, value),
        Entry::Lost => (1, 0),
    };
    bytes.extend_from_slice(&[sa.way as u8, kind, 0, 0]);
    bytes.extend_from_slice(&sa.spi.to_be_bytes());
    bytes.extend_from_slice(&sa.fingerprint.to_be_bytes());
    bytes.extend_from_slice(&value.to_be_bytes());
    bytes.extend_from_slice(&batch.to_be_bytes());
    bytes.extend_from_slice(&[0; 4]);
    let check = checksum(&[file_id, &bytes[start..]]);
    bytes.extend_from_slice(&check);
}

/// SA, what is known, and where its batch begins.
fn read_entry(octets: &[u8], file_id: &[u8; 16]) -> Option<(SaKey, Entry, usize)> {
    if octets.len() != ENTRY {
        return None;
    }
    let (body, check) = octets.split_at(ENTRY - CHECK);
    if checksum(&[file_id, body]) != check {
        return None;
    }
    let way = match body[0] {
        0 => Way::In,
        1 => Way::Out,
        _ => return None,
    };
    let entry = match body[1] {
        0 => Entry::UpTo(word(&body[16..24])),
        1 => Entry::Lost,
        _ => return None,
    };
    let spi = word(&body[4..8]) as u32;
    let fingerprint = word(&body[8..16]);
    Some((SaKey { way, spi, fingerprint }, entry, word(&body[24..28]) as usize))
}

/// Big-endian number of at most 8 octets.
fn word(octets: &[u8]) -> u64 {
    octets.iter().fold(0, |word, octet| word << 8 | u64::from(*octet))
}

/// The first octets of SHA-256: against damage, not against forgery.
fn checksum(parts: &[&[u8]]) -> [u8; CHECK] {
    let mut hash = Sha256::new();
    parts.iter().for_each(|part| hash.update(part));
    let digest = hash.finalize();
    let mut check = [0; CHECK];
    check.iter_mut().zip(digest.iter()).for_each(|(to, from)| *to = *from);
    check
}

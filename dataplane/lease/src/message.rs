//! Messages between the data planes of a pair: one datagram, a header that is a heartbeat, and sections.
//!
//! ```text
//! header (88 octets) | sections: kind (1) 0 (1) count (2) | entries
//!   records          version (8) final (1) 0 (7), then each: record (40), words x (index (1) word (8))
//!   acknowledgements final (1) 0 (7), then each (24)
//!   seal request     version (8) incarnation (8) position (8)
//!   sealed           version (8)
//! ```
//! All numbers are big endian. Messages are authentic when they get here (`failover.md` F17), and still nothing in them
//! is trusted to be well formed.

use crate::sa::{SaKey, Way};
use zerocopy::byteorder::big_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Longest message in octets: sealed it fits into a UDP datagram of 1500 octets.
pub const MESSAGE_MAX: usize = 1400;
/// Version of this format.
const FORMAT: u8 = 1;
/// Words of a window.
const WORDS: usize = tandem_shm::WINDOW_WORDS;

const RECORDS: u8 = 1;
const ACKNOWLEDGEMENTS: u8 = 2;
const SEAL: u8 = 3;
const SEALED: u8 = 4;

/// What a message says of its sender, as bits of [`Header::flags`].
pub mod flag {
    /// It is active.
    pub const ACTIVE: u16 = 1;
    /// It does not forward (F26).
    pub const NOT_FORWARDING: u16 = 1 << 1;
    /// The incarnation that the header names has ended (F20).
    pub const GOODBYE: u16 = 1 << 2;
    /// The active node asks the standby for its goodbye (F20).
    pub const LEAVE: u16 = 1 << 3;
    /// It lost against a later term, and its final state is not merged yet (F28).
    pub const UNMERGED: u16 = 1 << 4;
    /// Its SSP session is up.
    pub const SESSION: u16 = 1 << 5;
    /// It held its memory when it started.
    pub const WARM: u16 = 1 << 6;
    /// The active node asks the standby to take over.
    pub const HANDOVER: u16 = 1 << 7;
    /// It may become active.
    pub const ELIGIBLE: u16 = 1 << 8;
    /// The standby is synchronized and fresh.
    pub const FRESH: u16 = 1 << 9;
    /// All is handled for the partner's incarnation that `strict_incarnation` names: strict since `strict_version` (F18).
    pub const STRICT: u16 = 1 << 10;
}

/// The header of each message.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned,
)]
#[repr(C)]
pub struct Header {
    format: u8,
    /// Priority (F22).
    pub priority: u8,
    /// See [`flag`].
    pub flags: U16,
    /// Segments that the sender sees alive (F25).
    pub segments_alive: u8,
    /// State of the sender in its own words, for operators: a number of the takeover machine's.
    pub state: u8,
    reserved: [u8; 2],
    /// Number of the message: one counter of the sender over all paths.
    pub number: U64,
    /// Incarnation of the sender's memory; with [`flag::GOODBYE`] the one that ended.
    pub incarnation: U64,
    /// Newest reign that the sender knows, of either node (F27).
    pub reign: U64,
    /// Term of the sender where it is active, else 0.
    pub term: U64,
    /// Incarnation that the confirmed message names.
    pub confirmed_incarnation: U64,
    /// Newest message of the receiver that the sender has (F21).
    pub confirmed_number: U64,
    /// The sender's D_a in microseconds (F21).
    pub alone_us: U32,
    reserved_too: [u8; 4],
    /// v, with [`flag::STRICT`].
    pub strict_version: U64,
    /// Incarnation of the receiver for which v holds.
    pub strict_incarnation: U64,
    reserved_at_last: [u8; 8],
}

const _: () = assert!(size_of::<Header>() == 88);

impl Header {
    /// A header of this format with nothing in it.
    #[must_use]
    pub fn new() -> Self {
        Self { format: FORMAT, ..Self::default() }
    }

    /// Is this flag set?
    #[must_use]
    pub fn is(&self, flag: u16) -> bool {
        self.flags.get() & flag != 0
    }
}

#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct SectionHead {
    kind: u8,
    reserved: u8,
    count: U16,
}

#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RecordsHead {
    version: U64,
    last: u8,
    reserved: [u8; 7],
}

#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RecordHead {
    way: u8,
    words: u8,
    reserved: [u8; 2],
    spi: U32,
    fingerprint: U64,
    number: U64,
    packets: U64,
    bytes: U64,
}

#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Word {
    index: u8,
    word: U64,
}

#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct AcknowledgementsHead {
    last: u8,
    reserved: [u8; 7],
}

#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct AcknowledgementBody {
    way: u8,
    verdict: u8,
    reserved: [u8; 2],
    spi: U32,
    fingerprint: U64,
    version: U64,
}

#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct SealBody {
    version: U64,
    incarnation: U64,
    position: U64,
}

const SECTION: usize = size_of::<SectionHead>();
const RECORD: usize = size_of::<RecordHead>();
const WORD: usize = size_of::<Word>();
const ACKNOWLEDGEMENT: usize = size_of::<AcknowledgementBody>();

/// One SA at one version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Which SA.
    pub key: SaKey,
    /// Outbound: end of the lease asked for. Inbound: top of the window.
    pub number: u64,
    /// Packets so far.
    pub packets: u64,
    /// Octets so far.
    pub bytes: u64,
    /// Inbound: words of the window (index, word) that the receiver may lack.
    pub words: arrayvec::ArrayVec<(u8, u64), WORDS>,
}

/// What became of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It was merged.
    Merged,
    /// There is no such SA.
    Unknown,
    /// It cannot be taken.
    Refused,
}

/// The answer to one record, by name and version (F19).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Acknowledgement {
    /// Which SA.
    pub key: SaKey,
    /// Version of the record.
    pub version: u64,
    /// What became of it.
    pub verdict: Verdict,
}

/// A request to seal v (F18), or records, or answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Section {
    /// Records of one version.
    Records {
        /// Version: no record of it was read before it was taken.
        version: u64,
        /// Final state of a node that lost (F28).
        last: bool,
        /// Records.
        records: Vec<Record>,
    },
    /// Answers to records.
    Acknowledgements {
        /// To final state.
        last: bool,
        /// Answers.
        list: Vec<Acknowledgement>,
    },
    /// Everything below v is acknowledged: the standby is to seal it.
    Seal {
        /// v.
        version: u64,
        /// Incarnation of the standby for which it holds.
        incarnation: u64,
        /// Position of the SSP stream that it must have applied.
        position: u64,
    },
    /// v is sealed, by the incarnation in the header.
    Sealed {
        /// v.
        version: u64,
    },
}

/// Octets that are no message of this version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed message between the data planes")]
pub struct Malformed;

/// A message that is being written. Sections that would not fit are refused, and nothing is written of them.
#[derive(Debug)]
pub struct Writer<'b> {
    buffer: &'b mut Vec<u8>,
    /// Where the head of the section that is open lies, and its count.
    open: Option<(usize, u16, u8)>,
}

impl<'b> Writer<'b> {
    /// Begins a message in `buffer`, which is emptied.
    pub fn new(buffer: &'b mut Vec<u8>, header: &Header) -> Self {
        buffer.clear();
        buffer.extend_from_slice(header.as_bytes());
        Self { buffer, open: None }
    }

    /// Octets that are left.
    fn room(&self) -> usize {
        MESSAGE_MAX - self.buffer.len()
    }

    fn section(&mut self, kind: u8, head: &[u8], entry: usize) -> bool {
        self.close();
        if self.room() < SECTION + head.len() + entry {
            return false;
        }
        let at = self.buffer.len();
        let section = SectionHead { kind, reserved: 0, count: U16::new(0) };
        self.buffer.extend_from_slice(section.as_bytes());
        self.buffer.extend_from_slice(head);
        self.open = Some((at, 0, kind));
        true
    }

    fn close(&mut self) {
        if let Some((at, count, _)) = self.open.take()
            && let Some(place) = self.buffer.get_mut(at + 2..at + 4)
        {
            place.copy_from_slice(&count.to_be_bytes());
        }
    }

    fn counted(&mut self) {
        if let Some((_, count, _)) = &mut self.open {
            *count += 1;
        }
    }

    /// Opens a section of records; false where no record of `words` words would fit.
    pub fn records(&mut self, version: u64, last: bool, words: usize) -> bool {
        let head = RecordsHead { version: U64::new(version), last: u8::from(last), reserved: [0; 7] };
        self.section(RECORDS, head.as_bytes(), RECORD + words * WORD)
    }

    /// Does a record of so many words fit into the open section?
    #[must_use]
    pub fn fits(&self, words: usize) -> bool {
        self.room() >= RECORD + words * WORD
    }

    /// Adds a record to the open section of records.
    pub fn record(&mut self, record: &Record) {
        let head = RecordHead {
            way: record.key.way as u8,
            words: record.words.len() as u8,
            reserved: [0; 2],
            spi: U32::new(record.key.spi),
            fingerprint: U64::new(record.key.fingerprint),
            number: U64::new(record.number),
            packets: U64::new(record.packets),
            bytes: U64::new(record.bytes),
        };
        self.buffer.extend_from_slice(head.as_bytes());
        for &(index, word) in &record.words {
            self.buffer.extend_from_slice(Word { index, word: U64::new(word) }.as_bytes());
        }
        self.counted();
    }

    /// Adds an answer, in a section of its kind; false where it does not fit.
    pub fn acknowledge(&mut self, answer: &Acknowledgement, last: bool) -> bool {
        let open = self.open.is_some_and(|(_, _, kind)| kind == ACKNOWLEDGEMENTS);
        if !open {
            let head = AcknowledgementsHead { last: u8::from(last), reserved: [0; 7] };
            if !self.section(ACKNOWLEDGEMENTS, head.as_bytes(), ACKNOWLEDGEMENT) {
                return false;
            }
        }
        if self.room() < ACKNOWLEDGEMENT {
            return false;
        }
        let body = AcknowledgementBody {
            way: answer.key.way as u8,
            verdict: answer.verdict as u8,
            reserved: [0; 2],
            spi: U32::new(answer.key.spi),
            fingerprint: U64::new(answer.key.fingerprint),
            version: U64::new(answer.version),
        };
        self.buffer.extend_from_slice(body.as_bytes());
        self.counted();
        true
    }

    /// Ends the open section: what follows is another one.
    pub fn end_section(&mut self) {
        self.close();
    }

    /// Adds a request to seal.
    pub fn seal(&mut self, version: u64, incarnation: u64, position: u64) -> bool {
        let body = SealBody {
            version: U64::new(version),
            incarnation: U64::new(incarnation),
            position: U64::new(position),
        };
        self.section(SEAL, body.as_bytes(), 0)
    }

    /// Adds that v is sealed.
    pub fn sealed(&mut self, version: u64) -> bool {
        self.section(SEALED, U64::new(version).as_bytes(), 0)
    }

    /// Ends the message.
    pub fn finish(mut self) {
        self.close();
    }
}

/// Reads a message: header and sections.
///
/// # Errors
/// If it is not exactly one message of this version.
pub fn read(octets: &[u8]) -> Result<(Header, Vec<Section>), Malformed> {
    if octets.len() > MESSAGE_MAX {
        return Err(Malformed);
    }
    let (header, mut rest) = Header::read_from_prefix(octets).map_err(|_| Malformed)?;
    if header.format != FORMAT {
        return Err(Malformed);
    }
    let mut sections = Vec::new();
    while !rest.is_empty() {
        sections.push(section(&mut rest)?);
    }
    Ok((header, sections))
}

fn take<T: FromBytes + KnownLayout + Immutable + Unaligned>(rest: &mut &[u8]) -> Result<T, Malformed> {
    let (value, after) = T::read_from_prefix(rest).map_err(|_| Malformed)?;
    *rest = after;
    Ok(value)
}

fn section(rest: &mut &[u8]) -> Result<Section, Malformed> {
    let SectionHead { kind, count, .. } = take(rest)?;
    let count = usize::from(count.get());
    match kind {
        RECORDS => {
            let head: RecordsHead = take(rest)?;
            // What is left bounds how many there can be, whatever the count says.
            let mut records = Vec::with_capacity(count.min(rest.len() / RECORD));
            for _ in 0..count {
                records.push(record(rest)?);
            }
            Ok(Section::Records { version: head.version.get(), last: head.last != 0, records })
        }
        ACKNOWLEDGEMENTS => {
            let head: AcknowledgementsHead = take(rest)?;
            let mut list = Vec::with_capacity(count.min(rest.len() / ACKNOWLEDGEMENT));
            for _ in 0..count {
                let body: AcknowledgementBody = take(rest)?;
                let key = key(body.way, body.spi, body.fingerprint)?;
                let verdict = match body.verdict {
                    0 => Verdict::Merged,
                    1 => Verdict::Unknown,
                    2 => Verdict::Refused,
                    _ => return Err(Malformed),
                };
                list.push(Acknowledgement { key, version: body.version.get(), verdict });
            }
            Ok(Section::Acknowledgements { last: head.last != 0, list })
        }
        SEAL => {
            let SealBody { version, incarnation, position } = take(rest)?;
            Ok(Section::Seal {
                version: version.get(),
                incarnation: incarnation.get(),
                position: position.get(),
            })
        }
        SEALED => Ok(Section::Sealed { version: take::<U64>(rest)?.get() }),
        _ => Err(Malformed),
    }
}

fn record(rest: &mut &[u8]) -> Result<Record, Malformed> {
    let head: RecordHead = take(rest)?;
    let mut words = arrayvec::ArrayVec::new();
    for _ in 0..head.words {
        let Word { index, word } = take(rest)?;
        if usize::from(index) >= WORDS || words.try_push((index, word.get())).is_err() {
            return Err(Malformed);
        }
    }
    Ok(Record {
        key: key(head.way, head.spi, head.fingerprint)?,
        number: head.number.get(),
        packets: head.packets.get(),
        bytes: head.bytes.get(),
        words,
    })
}

fn key(way: u8, spi: U32, fingerprint: U64) -> Result<SaKey, Malformed> {
    let way = match way {
        0 => Way::In,
        1 => Way::Out,
        _ => return Err(Malformed),
    };
    Ok(SaKey { way, spi: spi.get(), fingerprint: fingerprint.get() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sa(way: Way, spi: u32) -> SaKey {
        SaKey { way, spi, fingerprint: u64::from(spi) << 20 | 7 }
    }

    #[test]
    fn what_is_written_is_read_again() {
        let mut header = Header::new();
        header.number.set(9);
        header.flags.set(flag::ACTIVE | flag::STRICT);
        let mut buffer = Vec::new();
        let mut writer = Writer::new(&mut buffer, &header);
        assert!(writer.seal(5, 6, 7) && writer.sealed(8));
        let answer = Acknowledgement { key: sa(Way::Out, 300), version: 11, verdict: Verdict::Unknown };
        assert!(writer.acknowledge(&answer, false) && writer.acknowledge(&answer, false));
        let record = Record {
            key: sa(Way::In, 400),
            number: 77,
            packets: 3,
            bytes: 4,
            words: [(0, 1 << 40), (63, 9)].into_iter().collect(),
        };
        assert!(writer.records(12, true, 2));
        writer.record(&record);
        writer.finish();
        let (read_header, sections) = read(&buffer).unwrap();
        assert_eq!(read_header, header);
        assert_eq!(
            sections,
            [
                Section::Seal { version: 5, incarnation: 6, position: 7 },
                Section::Sealed { version: 8 },
                Section::Acknowledgements { last: false, list: vec![answer, answer] },
                Section::Records { version: 12, last: true, records: vec![record] },
            ]
        );
        for end in 0..buffer.len() {
            // Cut anywhere but between sections it is none.
            if let Ok((_, sections)) = read(&buffer[..end]) {
                assert!(sections.len() < 4);
            }
        }
    }

    #[test]
    fn a_message_never_grows_past_its_limit() {
        let mut buffer = Vec::new();
        let mut writer = Writer::new(&mut buffer, &Header::new());
        let answer = Acknowledgement { key: sa(Way::In, 300), version: 1, verdict: Verdict::Merged };
        let mut count = 0;
        while writer.acknowledge(&answer, false) {
            count += 1;
        }
        assert!(!writer.records(1, false, 0) || writer.room() < MESSAGE_MAX);
        writer.finish();
        assert!(buffer.len() <= MESSAGE_MAX && count > 50);
        assert!(read(&buffer).is_ok());
    }

    proptest! {
        #[test]
        fn hostile_octets_never_panic(octets in proptest::collection::vec(any::<u8>(), 0..1500)) {
            let mut octets = octets;
            if let Some(first) = octets.first_mut() {
                *first = FORMAT;
            }
            let _ = read(&octets);
        }
    }
}

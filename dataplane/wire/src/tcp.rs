//! TCP (RFC 9293): headers, options, and the clamp of the maximum segment size.

use crate::checksum;
use crate::ipv4::{self, PROTOCOL_TCP};
use crate::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Octets of a header without options.
pub const HEADER_LEN: usize = 20;

/// Flag FIN.
pub const FLAG_FIN: u8 = 0x01;
/// Flag SYN.
pub const FLAG_SYN: u8 = 0x02;
/// Flag RST.
pub const FLAG_RST: u8 = 0x04;
/// Flag ACK.
pub const FLAG_ACK: u8 = 0x10;

const OPTION_END: u8 = 0;
const OPTION_NOP: u8 = 1;
const OPTION_MSS: u8 = 2;
const OPTION_MSS_LEN: u8 = 4;

/// The fixed 20 octets of a header (RFC 9293 section 3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Header {
    /// Source port.
    pub source_port: U16,
    /// Destination port.
    pub destination_port: U16,
    /// Sequence number.
    pub sequence: U32,
    /// Acknowledgement number.
    pub acknowledgement: U32,
    /// Data offset in units of 4 octets (4 bits), reserved (4 bits).
    pub data_offset: u8,
    /// CWR, ECE, URG, ACK, PSH, RST, SYN, FIN.
    pub flags: u8,
    /// Window.
    pub window: U16,
    /// Checksum over pseudo-header and segment.
    pub checksum: U16,
    /// Urgent pointer.
    pub urgent: U16,
}

impl Header {
    /// Octets of the header with its options, 0 to 60.
    #[inline]
    #[must_use]
    pub fn header_len(&self) -> usize {
        usize::from(self.data_offset >> 4) * 4
    }

    /// SYN, whatever the other flags.
    #[inline]
    #[must_use]
    pub fn is_syn(&self) -> bool {
        self.flags & FLAG_SYN != 0
    }
}

/// A segment whose lengths hold.
#[derive(Clone, Copy, Debug)]
pub struct Segment<'a> {
    /// The fixed part of the header.
    pub header: &'a Header,
    /// Options, 0 to 40 octets.
    pub options: &'a [u8],
    /// Data.
    pub data: &'a [u8],
}

impl Segment<'_> {
    /// Is the checksum right? Addresses in host byte order.
    #[must_use]
    pub fn checksum_ok(&self, source: u32, destination: u32) -> bool {
        let len = HEADER_LEN + self.options.len() + self.data.len();
        u16::try_from(len).is_ok_and(|len| {
            checksum::pseudo_header(source, destination, PROTOCOL_TCP, len)
                .bytes(self.header.as_bytes())
                .bytes(self.options)
                .bytes(self.data)
                .is_right()
        })
    }

    /// The value of the maximum segment size option (RFC 9293 section 3.7.1), in octets.
    #[must_use]
    pub fn mss(&self) -> Option<u16> {
        let at = MssOptions { options: self.options, at: 0 }.next()?;
        Some(u16::from_be_bytes(*self.options.get(at..)?.first_chunk()?))
    }
}

/// Why a payload holds no TCP segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// Shorter than the header.
    #[error("payload is shorter than the TCP header")]
    Truncated,
    /// Data offset is below 20 octets.
    #[error("TCP data offset is below 20 octets")]
    DataOffset,
}

/// The segment in the payload of an IPv4 packet that is not a fragment.
///
/// # Errors
/// [`ParseError`] if the header does not fit.
pub fn parse(payload: &[u8]) -> Result<Segment<'_>, ParseError> {
    let (header, _) = Header::ref_from_prefix(payload).map_err(|_| ParseError::Truncated)?;
    let header_len = header.header_len();
    if header_len < HEADER_LEN {
        return Err(ParseError::DataOffset);
    }
    let (header, data) = payload.split_at_checked(header_len).ok_or(ParseError::Truncated)?;
    let (header, options) = Header::ref_from_prefix(header).map_err(|_| ParseError::Truncated)?;
    Ok(Segment { header, options, data })
}

/// Finds the values of the maximum segment size options: where they begin within `options`, two octets
/// each. Ends at the end of the list and at the first option that does not hold together.
struct MssOptions<'a> {
    options: &'a [u8],
    at: usize,
}

impl Iterator for MssOptions<'_> {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        loop {
            match *self.options.get(self.at..)? {
                [OPTION_NOP, ..] => self.at += 1,
                [OPTION_END, ..] | [] | [_] => return None,
                [kind, len, ref rest @ ..] => {
                    let value = self.at + 2;
                    if len < 2 || usize::from(len) - 2 > rest.len() {
                        return None;
                    }
                    self.at += usize::from(len);
                    if kind == OPTION_MSS && len == OPTION_MSS_LEN {
                        return Some(value);
                    }
                }
            }
        }
    }
}

/// Lowers the maximum segment size of the SYN in `ip_packet`, an IPv4 packet, to `mss` octets, so that
/// segments of the peer fit a tunnel. The checksum is updated incrementally, so that a wrong one stays
/// wrong. True if the packet was changed; what is not a SYN with a larger MSS, and every fragment, is
/// left alone.
#[inline]
pub fn clamp_mss(ip_packet: &mut [u8], mss: u16) -> bool {
    let Ok(packet) = ipv4::parse_mut(ip_packet) else { return false };
    if packet.header.protocol != PROTOCOL_TCP || packet.header.is_fragment() {
        return false;
    }
    clamp_segment(packet.payload, mss)
}

fn clamp_segment(segment: &mut [u8], mss: u16) -> bool {
    let Ok((header, rest)) = Header::mut_from_prefix(segment) else { return false };
    if !header.is_syn() {
        return false;
    }
    let Some(options_len) = header.header_len().checked_sub(HEADER_LEN) else { return false };
    let Some(options) = rest.get_mut(..options_len) else { return false };

    let mut changed = false;
    let mut at = 0;
    loop {
        let mut walk = MssOptions { options, at };
        let Some(value) = walk.next() else { return changed };
        at = walk.at;
        let Some(field) = options.get_mut(value..).and_then(|rest| rest.first_chunk_mut::<2>()) else {
            return changed;
        };
        let old = u16::from_be_bytes(*field);
        if old <= mss {
            continue;
        }
        *field = mss.to_be_bytes();
        // At an odd place the two octets belong to two words, which adds up to one word with its octets
        // swapped (RFC 1071 section 2 B). The options begin at an even place.
        let (old, new) = if value % 2 == 0 { (old, mss) } else { (old.swap_bytes(), mss.swap_bytes()) };
        header.checksum.set(checksum::update(header.checksum.get(), old, new));
        changed = true;
    }
}

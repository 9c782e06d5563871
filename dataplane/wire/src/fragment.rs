//! Fragmentation of IPv4 packets (RFC 791 section 2.3 and 3.2).
//!
//! [`plan`] cuts a packet into pieces for an MTU, [`write()`] writes one of them into another buffer, and
//! [`keep_first`] makes the packet itself the first of them, so that only the later pieces are copied.

use crate::ipv4::{self, HEADER_LEN, Header, MAX_HEADER_LEN, Packet};
use zerocopy::IntoBytes;

const OPTION_END: u8 = 0;
const OPTION_NOP: u8 = 1;
const OPTION_COPIED: u8 = 0x80;

/// One piece of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fragment {
    /// Where it begins within the payload of the packet, in octets; a multiple of 8.
    pub offset: usize,
    /// Octets of payload; a multiple of 8 in all but the last.
    pub len: usize,
    /// MF.
    pub more: bool,
    /// Octets of its header, options included.
    pub header_len: usize,
}

impl Fragment {
    /// Octets of header and payload.
    #[must_use]
    pub fn total_len(&self) -> usize {
        self.header_len + self.len
    }
}

/// Why a packet cannot be cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// It is longer than the MTU and has DF set.
    #[error("packet is longer than the MTU and must not be fragmented")]
    DontFragment,
    /// Not even eight octets of payload fit beside the header.
    #[error("MTU is too small for the header and 8 octets")]
    Mtu,
    /// Its options do not hold together, so that those to be copied cannot be told.
    #[error("IPv4 options are malformed")]
    Options,
    /// It is itself a fragment, and ends beyond the longest packet there can be.
    #[error("fragment ends beyond 65535 octets")]
    TooLong,
}

/// The pieces of a packet, in order. Holds no reference to it.
#[derive(Clone, Debug)]
pub struct Plan {
    offset: usize,
    left: usize,
    // MF of the packet itself, which the last piece carries on.
    more: bool,
    first_header_len: usize,
    later_header_len: usize,
    mtu: usize,
}

/// Cuts `packet` into pieces of at most `mtu` octets each. A packet that fits is one piece.
///
/// # Errors
/// [`PlanError`] says why not.
pub fn plan(packet: &Packet<'_>, mtu: usize) -> Result<Plan, PlanError> {
    let header_len = HEADER_LEN + packet.options.len();
    let len = packet.payload.len();
    let mut later_header_len = header_len;
    if header_len + len > mtu {
        if packet.header.dont_fragment() {
            return Err(PlanError::DontFragment);
        }
        if header_len + 8 > mtu {
            return Err(PlanError::Mtu);
        }
        if packet.header.fragment_offset() + len > ipv4::MAX_LEN {
            return Err(PlanError::TooLong);
        }
        later_header_len = HEADER_LEN + copied_options(packet.options)?.len;
    }
    Ok(Plan {
        offset: 0,
        left: len,
        more: packet.header.more_fragments(),
        first_header_len: header_len,
        later_header_len,
        mtu,
    })
}

impl Iterator for Plan {
    type Item = Fragment;

    fn next(&mut self) -> Option<Fragment> {
        let first = self.offset == 0;
        if self.left == 0 && !first {
            return None;
        }
        let header_len = if first { self.first_header_len } else { self.later_header_len };
        let room = self.mtu.saturating_sub(header_len);
        let len = if self.left <= room { self.left } else { room & !7 };
        let fragment = Fragment { offset: self.offset, len, more: self.more || len < self.left, header_len };
        // A packet without payload is one piece, too.
        self.offset += len.max(1);
        self.left -= len;
        Some(fragment)
    }
}

/// Writes `fragment`, from the [`plan`] of `packet`, into `out`: header, options, payload. Returns its
/// total length in octets; `None`, and nothing of use written, if `out` is shorter than that or the
/// fragment is none of this packet.
#[must_use]
pub fn write(packet: &Packet<'_>, fragment: &Fragment, out: &mut [u8]) -> Option<usize> {
    let payload = packet.payload.get(fragment.offset..)?.get(..fragment.len)?;
    let copied;
    let options = if fragment.offset == 0 {
        packet.options
    } else {
        copied = copied_options(packet.options).ok()?;
        copied.as_slice()?
    };
    if fragment.header_len != HEADER_LEN + options.len() {
        return None;
    }
    let out = out.get_mut(..fragment.total_len())?;
    let (header_out, payload_out) = out.split_at_mut_checked(fragment.header_len)?;
    let mut header = header_of(packet.header, fragment)?;
    header.version_ihl = 0x40 | u8::try_from(fragment.header_len / 4).ok()?;
    let options_out = header_out.get_mut(HEADER_LEN..)?;
    options_out.copy_from_slice(options);
    header.write_to_prefix(header_out).ok()?;
    ipv4::fill_checksum(header_out);
    payload_out.copy_from_slice(payload);
    Some(fragment.total_len())
}

/// Makes the packet at the front of `ip_packet` into `first`, the first fragment of its [`plan`]: length,
/// MF and checksum change, what lies behind is no longer part of it. Returns its total length in octets.
#[must_use]
pub fn keep_first(ip_packet: &mut [u8], first: &Fragment) -> Option<usize> {
    let packet = ipv4::parse_mut(ip_packet).ok()?;
    if first.offset != 0 || first.len > packet.payload.len() || first.header_len != packet.header.header_len()
    {
        return None;
    }
    *packet.header = header_of(packet.header, first)?;
    ipv4::fill_checksum(ip_packet);
    Some(first.total_len())
}

/// The header of the packet with length, offset and MF of the fragment.
fn header_of(header: &Header, fragment: &Fragment) -> Option<Header> {
    let mut header = *header;
    header.set_total_len(u16::try_from(fragment.total_len()).ok()?);
    header.set_fragment_offset(header.fragment_offset() + fragment.offset);
    header.set_more_fragments(fragment.more);
    Some(header)
}

struct CopiedOptions {
    bytes: [u8; MAX_HEADER_LEN - HEADER_LEN],
    len: usize,
}

impl CopiedOptions {
    fn as_slice(&self) -> Option<&[u8]> {
        self.bytes.get(..self.len)
    }
}

/// The options that every fragment carries (copied flag set), padded with zeros to a multiple of 4.
fn copied_options(options: &[u8]) -> Result<CopiedOptions, PlanError> {
    let mut copied = CopiedOptions { bytes: [0; MAX_HEADER_LEN - HEADER_LEN], len: 0 };
    let mut rest = options;
    loop {
        let len = match *rest {
            [] | [OPTION_END, ..] => break,
            [OPTION_NOP, ..] => 1,
            [_, len, ..] if len >= 2 => usize::from(len),
            _ => return Err(PlanError::Options),
        };
        let (option, after) = rest.split_at_checked(len).ok_or(PlanError::Options)?;
        if option.first().is_some_and(|kind| kind & OPTION_COPIED != 0) {
            let room = copied.bytes.get_mut(copied.len..copied.len + len).ok_or(PlanError::Options)?;
            room.copy_from_slice(option);
            copied.len += len;
        }
        rest = after;
    }
    copied.len = copied.len.next_multiple_of(4);
    Ok(copied)
}

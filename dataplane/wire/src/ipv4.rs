//! IPv4 (RFC 791).

use crate::checksum::{self, Checksum};
use crate::{U16, U32};
use core::net::Ipv4Addr;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Octets of a header without options.
pub const HEADER_LEN: usize = 20;
/// Octets of the longest header.
pub const MAX_HEADER_LEN: usize = 60;
/// Longest packet, in octets.
pub const MAX_LEN: usize = 65_535;

/// Protocol number of ICMP (RFC 792).
pub const PROTOCOL_ICMP: u8 = 1;
/// Protocol number of IPv4 in IPv4 (RFC 2003); the next header of ESP in tunnel mode.
pub const PROTOCOL_IPV4: u8 = 4;
/// Protocol number of TCP (RFC 9293).
pub const PROTOCOL_TCP: u8 = 6;
/// Protocol number of UDP (RFC 768).
pub const PROTOCOL_UDP: u8 = 17;
/// Protocol number of ESP (RFC 4303).
pub const PROTOCOL_ESP: u8 = 50;
/// Protocol number of AH (RFC 4302).
pub const PROTOCOL_AH: u8 = 51;
/// "No next header" (RFC 8200 section 4.7); marks a dummy packet in ESP (RFC 4303 section 2.6).
pub const PROTOCOL_NONE: u8 = 59;

const DONT_FRAGMENT: u16 = 0x4000;
const MORE_FRAGMENTS: u16 = 0x2000;
const OFFSET_MASK: u16 = 0x1fff;

/// The fixed 20 octets of a header (RFC 791 section 3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Header {
    /// Version (4 bits) and header length in units of 4 octets (4 bits).
    pub version_ihl: u8,
    /// Type of service: DSCP (6 bits, RFC 2474) and ECN (2 bits, RFC 3168).
    pub tos: u8,
    /// Octets of header and payload.
    pub total_length: U16,
    /// Identification, for reassembly.
    pub identification: U16,
    /// Reserved, DF, MF (1 bit each) and fragment offset in units of 8 octets (13 bits).
    pub flags_offset: U16,
    /// Time to live, in hops.
    pub ttl: u8,
    /// What the payload is.
    pub protocol: u8,
    /// Checksum of the header with its options.
    pub checksum: U16,
    /// Source address.
    pub source: U32,
    /// Destination address.
    pub destination: U32,
}

/// What a caller says of a header that Tandem writes. No options, not a fragment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fields {
    /// DSCP and ECN.
    pub tos: u8,
    /// Octets of header and payload.
    pub total_length: u16,
    /// Identification; 0 will do where DF is set (RFC 6864 section 4.1).
    pub identification: u16,
    /// DF.
    pub dont_fragment: bool,
    /// Time to live, in hops.
    pub ttl: u8,
    /// What the payload is.
    pub protocol: u8,
    /// Source address.
    pub source: Ipv4Addr,
    /// Destination address.
    pub destination: Ipv4Addr,
}

impl Header {
    /// A header without options, its checksum filled in.
    #[must_use]
    pub fn new(fields: &Fields) -> Self {
        let mut header = Self {
            version_ihl: 0x45,
            tos: fields.tos,
            total_length: U16::new(fields.total_length),
            identification: U16::new(fields.identification),
            flags_offset: U16::new(if fields.dont_fragment { DONT_FRAGMENT } else { 0 }),
            ttl: fields.ttl,
            protocol: fields.protocol,
            checksum: U16::ZERO,
            source: U32::new(fields.source.to_bits()),
            destination: U32::new(fields.destination.to_bits()),
        };
        header.fill_checksum();
        header
    }

    /// Version, 4 in every header that [`parse`] returned.
    #[inline]
    #[must_use]
    pub fn version(&self) -> u8 {
        self.version_ihl >> 4
    }

    /// Octets of the header with its options, 0 to 60.
    #[inline]
    #[must_use]
    pub fn header_len(&self) -> usize {
        usize::from(self.version_ihl & 0x0f) * 4
    }

    /// Octets of header and payload.
    #[inline]
    #[must_use]
    pub fn total_len(&self) -> usize {
        usize::from(self.total_length.get())
    }

    /// DF.
    #[inline]
    #[must_use]
    pub fn dont_fragment(&self) -> bool {
        self.flags_offset.get() & DONT_FRAGMENT != 0
    }

    /// MF.
    #[inline]
    #[must_use]
    pub fn more_fragments(&self) -> bool {
        self.flags_offset.get() & MORE_FRAGMENTS != 0
    }

    /// Where the payload lies in that of the whole packet, in octets.
    #[inline]
    #[must_use]
    pub fn fragment_offset(&self) -> usize {
        usize::from(self.flags_offset.get() & OFFSET_MASK) * 8
    }

    /// Is this a fragment, the first one included?
    #[inline]
    #[must_use]
    pub fn is_fragment(&self) -> bool {
        self.flags_offset.get() & (MORE_FRAGMENTS | OFFSET_MASK) != 0
    }

    /// Source address in host byte order.
    #[inline]
    #[must_use]
    pub fn src(&self) -> u32 {
        self.source.get()
    }

    /// Destination address in host byte order.
    #[inline]
    #[must_use]
    pub fn dst(&self) -> u32 {
        self.destination.get()
    }

    /// Source address.
    #[inline]
    #[must_use]
    pub fn source_addr(&self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.src())
    }

    /// Destination address.
    #[inline]
    #[must_use]
    pub fn destination_addr(&self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.dst())
    }

    /// Sets the total length, in octets. Like all setters, leaves the checksum to the caller.
    #[inline]
    pub fn set_total_len(&mut self, octets: u16) {
        self.total_length.set(octets);
    }

    /// Sets or clears DF.
    #[inline]
    pub fn set_dont_fragment(&mut self, on: bool) {
        self.set_flag(DONT_FRAGMENT, on);
    }

    /// Sets or clears MF.
    #[inline]
    pub fn set_more_fragments(&mut self, on: bool) {
        self.set_flag(MORE_FRAGMENTS, on);
    }

    /// Sets the fragment offset. `octets` is rounded down to a multiple of 8 and taken modulo 65,536.
    #[inline]
    pub fn set_fragment_offset(&mut self, octets: usize) {
        let units = (octets / 8) as u16 & OFFSET_MASK;
        self.flags_offset.set(self.flags_offset.get() & !OFFSET_MASK | units);
    }

    /// Sets the source address, given in host byte order.
    #[inline]
    pub fn set_src(&mut self, address: u32) {
        self.source.set(address);
    }

    /// Sets the destination address, given in host byte order.
    #[inline]
    pub fn set_dst(&mut self, address: u32) {
        self.destination.set(address);
    }

    #[inline]
    fn set_flag(&mut self, flag: u16, on: bool) {
        let rest = self.flags_offset.get() & !flag;
        self.flags_offset.set(if on { rest | flag } else { rest });
    }

    /// Fills in the checksum of a header without options. With options, use [`fill_checksum`].
    #[inline]
    pub fn fill_checksum(&mut self) {
        self.checksum = U16::ZERO;
        self.checksum.set(!checksum::sum_20(self.octets()));
    }

    /// The fixed 20 octets.
    #[inline]
    #[must_use]
    pub fn octets(&self) -> &[u8; HEADER_LEN] {
        zerocopy::transmute_ref!(self)
    }
}

/// A packet whose lengths hold.
#[derive(Clone, Copy, Debug)]
pub struct Packet<'a> {
    /// The fixed part of the header.
    pub header: &'a Header,
    /// Options, 0 to 40 octets.
    pub options: &'a [u8],
    /// What the total length covers after the header; padding of the frame is cut off.
    pub payload: &'a [u8],
}

impl Packet<'_> {
    /// Is this a fragment, the first one included?
    #[inline]
    #[must_use]
    pub fn is_fragment(&self) -> bool {
        self.header.is_fragment()
    }

    /// Octets of header and payload.
    #[inline]
    #[must_use]
    pub fn total_len(&self) -> usize {
        self.header.total_len()
    }

    /// Is the checksum of the header right?
    #[inline]
    #[must_use]
    pub fn header_checksum_ok(&self) -> bool {
        let fixed = Checksum::new().bytes(self.header.octets());
        if self.options.is_empty() { fixed.is_right() } else { fixed.bytes(self.options).is_right() }
    }
}

/// A packet whose lengths hold, to be changed. Changing the length fields unties them from the slices.
#[derive(Debug)]
pub struct PacketMut<'a> {
    /// The fixed part of the header.
    pub header: &'a mut Header,
    /// Options, 0 to 40 octets.
    pub options: &'a mut [u8],
    /// What the total length covers after the header.
    pub payload: &'a mut [u8],
}

/// Why a buffer holds no IPv4 packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// Shorter than the header.
    #[error("buffer is shorter than the IPv4 header")]
    Truncated,
    /// Version is not 4.
    #[error("IP version is not 4")]
    Version,
    /// Header length is below 20 octets.
    #[error("IPv4 header length is below 20 octets")]
    HeaderLength,
    /// Total length is below the header length or above the buffer's.
    #[error("IPv4 total length is below the header length or above that of the buffer")]
    TotalLength,
}

/// Header length and total length of the packet in `bytes`, both checked against the buffer.
#[inline]
fn lengths(bytes: &[u8]) -> Result<(usize, usize), ParseError> {
    let (header, _) = Header::ref_from_prefix(bytes).map_err(|_| ParseError::Truncated)?;
    if header.version() != 4 {
        return Err(ParseError::Version);
    }
    let (header_len, total_len) = (header.header_len(), header.total_len());
    if header_len < HEADER_LEN {
        return Err(ParseError::HeaderLength);
    }
    if header_len > bytes.len() {
        return Err(ParseError::Truncated);
    }
    if total_len < header_len || total_len > bytes.len() {
        return Err(ParseError::TotalLength);
    }
    Ok((header_len, total_len))
}

/// Checks version, header length and total length against the buffer. The checksum is not looked at.
///
/// # Errors
/// The first [`ParseError`] that applies.
#[inline]
pub fn parse(bytes: &[u8]) -> Result<Packet<'_>, ParseError> {
    let (header_len, total_len) = lengths(bytes)?;
    let packet = bytes.get(..total_len).ok_or(ParseError::TotalLength)?;
    let (header, payload) = packet.split_at_checked(header_len).ok_or(ParseError::HeaderLength)?;
    let (header, options) = Header::ref_from_prefix(header).map_err(|_| ParseError::Truncated)?;
    Ok(Packet { header, options, payload })
}

/// As [`parse`], to be changed.
///
/// # Errors
/// The first [`ParseError`] that applies.
#[inline]
pub fn parse_mut(bytes: &mut [u8]) -> Result<PacketMut<'_>, ParseError> {
    let (header_len, total_len) = lengths(bytes)?;
    let packet = bytes.get_mut(..total_len).ok_or(ParseError::TotalLength)?;
    let (header, payload) = packet.split_at_mut_checked(header_len).ok_or(ParseError::HeaderLength)?;
    let (header, options) = Header::mut_from_prefix(header).map_err(|_| ParseError::Truncated)?;
    Ok(PacketMut { header, options, payload })
}

/// The header with its options at the front of `bytes`, if it is all there.
#[inline]
fn header_len_at(bytes: &[u8]) -> Option<usize> {
    let len = usize::from(*bytes.first()? & 0x0f) * 4;
    (HEADER_LEN..=bytes.len()).contains(&len).then_some(len)
}

/// Is the checksum of the header at the front of `bytes` right? No for one that is not all there.
#[inline]
#[must_use]
pub fn header_checksum_ok(bytes: &[u8]) -> bool {
    // Nearly all packets have no options.
    if let (Some(0x45), Some(fixed)) = (bytes.first(), bytes.first_chunk::<HEADER_LEN>()) {
        return checksum::sum_20(fixed) == 0xffff;
    }
    header_len_at(bytes)
        .and_then(|len| bytes.get(..len))
        .is_some_and(|header| checksum::sum(header) == 0xffff)
}

/// Fills in the checksum of the header, options included, at the front of `bytes`. Does nothing where it
/// is not all there.
#[inline]
pub fn fill_checksum(bytes: &mut [u8]) {
    let Some(len) = header_len_at(bytes) else { return };
    let Some(header) = bytes.get_mut(..len) else { return };
    if let Some(field) = header.get_mut(10..12) {
        field.fill(0);
    }
    let checksum = !checksum::sum(header);
    if let Some(field) = header.get_mut(10..12) {
        field.copy_from_slice(&checksum.to_be_bytes());
    }
}

/// Writes a header without options, its checksum filled in, at the front of `out`. `None`, and nothing
/// written, if there is no room.
#[inline]
#[must_use]
pub fn write_header(out: &mut [u8], fields: &Fields) -> Option<usize> {
    Header::new(fields).write_to_prefix(out).ok()?;
    Some(HEADER_LEN)
}

/// Lowers the TTL by one and updates the checksum incrementally (RFC 1624), so that a wrong one stays
/// wrong. A TTL of 0 stays 0; whoever forwards drops packets whose TTL is 0 or 1 before this.
#[inline]
pub fn decrement_ttl(header: &mut Header) {
    let old = u16::from_be_bytes([header.ttl, header.protocol]);
    header.ttl = header.ttl.saturating_sub(1);
    let new = u16::from_be_bytes([header.ttl, header.protocol]);
    if old != new {
        header.checksum.set(checksum::update(header.checksum.get(), old, new));
    }
}

/// May a packet have this source address (RFC 1812 section 5.3.7)? Not "this network" (0.0.0.0/8),
/// loopback (127.0.0.0/8), multicast (224.0.0.0/4), nor class E with the limited broadcast
/// (240.0.0.0/4). Host byte order.
#[inline]
#[must_use]
pub const fn source_is_valid(address: u32) -> bool {
    let first = address >> 24;
    first != 0 && first != 127 && first < 224
}

/// Is the address a multicast group (224.0.0.0/4)? Host byte order.
#[inline]
#[must_use]
pub const fn is_multicast(address: u32) -> bool {
    address >> 28 == 0xe
}

/// Is the address a multicast group or the limited broadcast (255.255.255.255)? Broadcast addresses of
/// networks cannot be told without their prefix. Host byte order.
#[inline]
#[must_use]
pub const fn is_multicast_or_broadcast(address: u32) -> bool {
    is_multicast(address) || address == u32::MAX
}

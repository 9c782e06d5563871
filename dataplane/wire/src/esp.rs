//! ESP (RFC 4303) with AES-GCM (RFC 4106), and ESP in UDP (RFC 3948).

use crate::{Truncated, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Octets of SPI and sequence number.
pub const HEADER_LEN: usize = 8;
/// Octets of the IV that AES-GCM carries in each packet (RFC 4106 section 3.1).
pub const IV_LEN: usize = 8;
/// Octets of pad length and next header.
pub const TRAILER_LEN: usize = 2;
/// Octets of the integrity check value (RFC 4106 section 6).
pub const ICV_LEN: usize = 16;
/// Lowest SPI that a packet may have; 0 is for local use, 1 to 255 are reserved (RFC 4303 section 2.1).
pub const SPI_MIN: u32 = 256;

/// What comes before the IV.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Header {
    /// Security parameters index.
    pub spi: U32,
    /// Sequence number, or the low half of an extended one.
    pub sequence: U32,
}

impl Header {
    /// A header.
    #[inline]
    #[must_use]
    pub fn new(spi: u32, sequence: u32) -> Self {
        Self { spi: U32::new(spi), sequence: U32::new(sequence) }
    }
}

/// Header and the rest, of which only this is known: it is there.
///
/// # Errors
/// [`Truncated`] if the header is not all there.
#[inline]
pub fn parse(payload: &[u8]) -> Result<(&Header, &[u8]), Truncated> {
    Header::ref_from_prefix(payload).map_err(|_| Truncated)
}

/// Writes a header at the front of `out`. `None`, and nothing written, if there is no room.
#[inline]
#[must_use]
pub fn write_header(out: &mut [u8], header: &Header) -> Option<usize> {
    header.write_to_prefix(out).ok()?;
    Some(HEADER_LEN)
}

/// What the data of a UDP datagram on port 4500 is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InUdp<'a> {
    /// An ESP packet (RFC 3948 section 2.1), the header all there.
    Esp(&'a [u8]),
    /// An IKE message, its non-ESP marker cut off (section 2.2).
    Ike(&'a [u8]),
    /// One octet `0xff` (section 2.3).
    Keepalive,
}

/// Tells what the data of a UDP datagram on port 4500 is.
///
/// # Errors
/// [`Truncated`] for what is none of the three.
#[inline]
pub fn parse_in_udp(data: &[u8]) -> Result<InUdp<'_>, Truncated> {
    match data {
        [0xff] => Ok(InUdp::Keepalive),
        [0, 0, 0, 0, message @ ..] => Ok(InUdp::Ike(message)),
        _ if data.len() >= HEADER_LEN => Ok(InUdp::Esp(data)),
        _ => Err(Truncated),
    }
}

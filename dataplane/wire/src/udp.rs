//! UDP (RFC 768).

use crate::checksum;
use crate::ipv4::PROTOCOL_UDP;
use crate::{Truncated, U16};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Octets of the header.
pub const HEADER_LEN: usize = 8;
/// Port of IKE (RFC 7296 section 2).
pub const PORT_IKE: u16 = 500;
/// Port of IKE and ESP behind address translation (RFC 3948 section 2).
pub const PORT_NAT_T: u16 = 4500;

/// The header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Header {
    /// Source port.
    pub source_port: U16,
    /// Destination port.
    pub destination_port: U16,
    /// Octets of header and data.
    pub length: U16,
    /// Checksum over pseudo-header, header and data; 0 if the sender made none.
    pub checksum: U16,
}

/// A datagram whose lengths hold.
#[derive(Clone, Copy, Debug)]
pub struct Datagram<'a> {
    /// The header.
    pub header: &'a Header,
    /// What the length covers after the header.
    pub data: &'a [u8],
}

impl Datagram<'_> {
    /// Is the checksum right, or was none made? Addresses in host byte order.
    #[must_use]
    pub fn checksum_ok(&self, source: u32, destination: u32) -> bool {
        self.header.checksum.get() == 0
            || checksum::pseudo_header(source, destination, PROTOCOL_UDP, self.header.length.get())
                .bytes(self.header.as_bytes())
                .bytes(self.data)
                .is_right()
    }
}

/// The datagram in the payload of an IPv4 packet that is not a fragment.
///
/// # Errors
/// [`Truncated`] if the header is not all there, or the length field is below 8 or above the payload's.
#[inline]
pub fn parse(payload: &[u8]) -> Result<Datagram<'_>, Truncated> {
    let (header, rest) = Header::ref_from_prefix(payload).map_err(|_| Truncated)?;
    let data = usize::from(header.length.get()).checked_sub(HEADER_LEN).ok_or(Truncated)?;
    Ok(Datagram { header, data: rest.get(..data).ok_or(Truncated)? })
}

/// Source and destination port of the payload of an IPv4 packet that is not a later fragment; nothing
/// else is checked.
#[inline]
#[must_use]
pub fn ports(payload: &[u8]) -> Option<(u16, u16)> {
    let (header, _) = Header::ref_from_prefix(payload).ok()?;
    Some((header.source_port.get(), header.destination_port.get()))
}

/// Writes the header in front of the data that lies in `datagram` from [`HEADER_LEN`] on to its end, with
/// the checksum. Addresses in host byte order. `None`, and nothing written, if `datagram` is shorter than
/// the header or longer than 65,535 octets.
#[must_use]
pub fn write_header(
    datagram: &mut [u8],
    source: u32,
    destination: u32,
    source_port: u16,
    destination_port: u16,
) -> Option<()> {
    let length = u16::try_from(datagram.len()).ok()?;
    let (header, data) = Header::mut_from_prefix(datagram).ok()?;
    *header = Header {
        source_port: U16::new(source_port),
        destination_port: U16::new(destination_port),
        length: U16::new(length),
        checksum: U16::ZERO,
    };
    let checksum = checksum::pseudo_header(source, destination, PROTOCOL_UDP, length)
        .bytes(header.as_bytes())
        .bytes(data)
        .finish();
    // 0 means that there is none; the same sum has a second form (RFC 768).
    header.checksum.set(if checksum == 0 { 0xffff } else { checksum });
    Some(())
}

//! ICMP (RFC 792): echo replies and the errors of a router (RFC 1812 section 4.3).

use crate::checksum::{self, Checksum};
use crate::ipv4::{self, PROTOCOL_ICMP};
use crate::{Truncated, U16};
use core::net::Ipv4Addr;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Octets of the header.
pub const HEADER_LEN: usize = 8;

/// Type: echo reply.
pub const ECHO_REPLY: u8 = 0;
/// Type: destination unreachable.
pub const DESTINATION_UNREACHABLE: u8 = 3;
/// Type: echo request.
pub const ECHO_REQUEST: u8 = 8;
/// Type: time exceeded.
pub const TIME_EXCEEDED: u8 = 11;
/// Code of destination unreachable: fragmentation needed and DF set (RFC 1191 section 4).
pub const CODE_FRAGMENTATION_NEEDED: u8 = 4;

/// Longest error message, IPv4 header included (RFC 1812 section 4.3.2.3).
pub const MAX_ERROR_LEN: usize = 576;

const TTL: u8 = 64;
// Precedence 6, internetwork control (RFC 1812 section 4.3.2.5).
const ERROR_TOS: u8 = 0xc0;

/// The header that all messages begin with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Header {
    /// Type.
    pub kind: u8,
    /// Code, of the type's own meaning.
    pub code: u8,
    /// Checksum of the whole message.
    pub checksum: U16,
    /// Of the type's own meaning.
    pub rest: [u8; 4],
}

/// The header of an echo request or reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Echo {
    /// [`ECHO_REQUEST`] or [`ECHO_REPLY`].
    pub kind: u8,
    /// 0.
    pub code: u8,
    /// Checksum of the whole message.
    pub checksum: U16,
    /// Tells the programs that ask apart.
    pub identifier: U16,
    /// Tells the requests of one program apart.
    pub sequence: U16,
}

/// Header and body of a message. The checksum is not looked at.
///
/// # Errors
/// [`Truncated`] if the header is not all there.
pub fn parse(payload: &[u8]) -> Result<(&Header, &[u8]), Truncated> {
    Header::ref_from_prefix(payload).map_err(|_| Truncated)
}

/// Header and data of an echo request or reply; `None` for other messages. The checksum is not looked at.
#[must_use]
pub fn parse_echo(payload: &[u8]) -> Option<(&Echo, &[u8])> {
    let (echo, data) = Echo::ref_from_prefix(payload).ok()?;
    (matches!(echo.kind, ECHO_REQUEST | ECHO_REPLY) && echo.code == 0).then_some((echo, data))
}

/// Why a packet was not turned into an echo reply. It is unchanged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoReply {
    /// Not an IPv4 packet.
    #[error("not an IPv4 packet: {0}")]
    Ipv4(#[from] ipv4::ParseError),
    /// The checksum of its IPv4 header is wrong.
    #[error("IPv4 header checksum is wrong")]
    HeaderChecksum,
    /// A fragment; it would have to be reassembled first.
    #[error("a fragment of a packet")]
    Fragment,
    /// It has IPv4 options. A reply would have to carry source routes in reverse and to fill in routes
    /// and time stamps (RFC 1122 section 3.2.2.6), which opens doors that nobody uses (RFC 7126).
    #[error("packet has IPv4 options")]
    Options,
    /// Its source is not a single host, or it went to a group.
    #[error("source or destination is not a single host")]
    Address,
    /// Not an ICMP echo request, or one that is too short.
    #[error("not an ICMP echo request")]
    NotEchoRequest,
    /// The ICMP checksum is wrong.
    #[error("ICMP checksum is wrong")]
    Checksum,
}

/// Turns the echo request in `ip_packet` into its reply (RFC 1122 section 3.2.2.6): addresses swapped,
/// type changed, TTL 64, both checksums updated; identification, DF, type of service and data stay.
/// Returns the total length in octets; what lies behind it is padding.
///
/// # Errors
/// [`NoReply`] says why not; the packet is unchanged then.
pub fn echo_reply_in_place(ip_packet: &mut [u8]) -> Result<usize, NoReply> {
    let request = ipv4::parse(ip_packet)?;
    let total_len = request.total_len();
    if !request.header_checksum_ok() {
        return Err(NoReply::HeaderChecksum);
    }
    if request.header.protocol != PROTOCOL_ICMP {
        return Err(NoReply::NotEchoRequest);
    }
    if request.is_fragment() {
        return Err(NoReply::Fragment);
    }
    if !request.options.is_empty() {
        return Err(NoReply::Options);
    }
    if !ipv4::source_is_valid(request.header.src()) || !ipv4::source_is_valid(request.header.dst()) {
        return Err(NoReply::Address);
    }
    let (echo, _) = parse_echo(request.payload).ok_or(NoReply::NotEchoRequest)?;
    if echo.kind != ECHO_REQUEST {
        return Err(NoReply::NotEchoRequest);
    }
    if checksum::sum(request.payload) != 0xffff {
        return Err(NoReply::Checksum);
    }

    let reply = ipv4::parse_mut(ip_packet)?;
    let (echo, _) = Echo::mut_from_prefix(reply.payload).map_err(|_| NoReply::NotEchoRequest)?;
    let old = u16::from_be_bytes([echo.kind, echo.code]);
    echo.kind = ECHO_REPLY;
    let new = u16::from_be_bytes([echo.kind, echo.code]);
    let updated = checksum::update(echo.checksum.get(), old, new);
    // A reply of zeros alone would come out as 0, and a sum over nothing but zeros is not right; 0xffff,
    // the other form of the same sum, is right for it and for all others.
    echo.checksum.set(if updated == 0 { 0xffff } else { updated });

    let header = reply.header;
    core::mem::swap(&mut header.source, &mut header.destination);
    header.ttl = TTL;
    header.fill_checksum();
    Ok(total_len)
}

/// The errors that Tandem sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// The TTL ran out on the way (type 11, code 0).
    TimeExceeded,
    /// The packet has DF set and does not fit (type 3, code 4, RFC 1191).
    FragmentationNeeded {
        /// The longest packet that would fit, in octets.
        mtu: u16,
    },
}

impl ErrorKind {
    fn header(self) -> Header {
        let (kind, code, rest) = match self {
            Self::TimeExceeded => (TIME_EXCEEDED, 0, [0; 4]),
            Self::FragmentationNeeded { mtu } => {
                let [high, low] = mtu.to_be_bytes();
                (DESTINATION_UNREACHABLE, CODE_FRAGMENTATION_NEEDED, [0, 0, high, low])
            }
        };
        Header { kind, code, checksum: U16::ZERO, rest }
    }
}

/// May an ICMP error be sent about this packet (RFC 1812 section 4.3.2.7)? Not about ICMP errors, nor
/// anything that might be one; packets whose header is wrong; packets to multicast or broadcast
/// addresses; fragments other than the first; sources that are not a single host. Whether the frame
/// itself came by link-layer broadcast, and which addresses are broadcasts of a network, is for the
/// caller to check.
#[must_use]
pub fn error_is_allowed(offending: &ipv4::Packet<'_>) -> bool {
    let header = offending.header;
    header.fragment_offset() == 0
        && offending.header_checksum_ok()
        && ipv4::source_is_valid(header.src())
        && !ipv4::is_multicast_or_broadcast(header.dst())
        && (header.protocol != PROTOCOL_ICMP || offending.payload.first().is_some_and(|kind| is_query(*kind)))
}

/// Types that are known not to be errors (RFC 792, 950, 1256, 8335).
fn is_query(kind: u8) -> bool {
    matches!(kind, ECHO_REPLY | ECHO_REQUEST | 9 | 10 | 13..=18 | 42 | 43)
}

/// Writes the IPv4 packet that tells the source of `offending`, an IPv4 packet, of an error. `source` is
/// the address that it comes from. It quotes as much of the offending packet as keeps it within
/// [`MAX_ERROR_LEN`] (RFC 1812 section 4.3.2.3). Returns its length in octets.
///
/// `None`, and `out` unchanged, if no error may be sent about the packet ([`error_is_allowed`]) or `out`
/// is too short; [`MAX_ERROR_LEN`] octets always suffice.
#[must_use]
pub fn build_error(kind: ErrorKind, source: Ipv4Addr, offending: &[u8], out: &mut [u8]) -> Option<usize> {
    let packet = ipv4::parse(offending).ok()?;
    if !error_is_allowed(&packet) {
        return None;
    }
    const HEADERS: usize = ipv4::HEADER_LEN + HEADER_LEN;
    let quote = offending.get(..packet.total_len().min(MAX_ERROR_LEN - HEADERS))?;
    let total_len = HEADERS + quote.len();
    let (ip, message) = out.get_mut(..total_len)?.split_at_mut_checked(ipv4::HEADER_LEN)?;

    let fields = ipv4::Fields {
        tos: ERROR_TOS,
        total_length: u16::try_from(total_len).ok()?,
        identification: 0,
        dont_fragment: false,
        ttl: TTL,
        protocol: PROTOCOL_ICMP,
        source,
        destination: packet.header.source_addr(),
    };
    let _header_len = ipv4::write_header(ip, &fields)?;

    let (header, body) = Header::mut_from_prefix(message).ok()?;
    *header = kind.header();
    body.copy_from_slice(quote);
    header.checksum.set(Checksum::new().bytes(header.as_bytes()).bytes(body).finish());
    Some(total_len)
}

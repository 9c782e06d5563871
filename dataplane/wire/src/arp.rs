//! ARP for IPv4 over Ethernet (RFC 826), announcements (RFC 5227).

use crate::ethernet::{self, ETHERTYPE_ARP, ETHERTYPE_IPV4, MacAddr};
use crate::ipv4::source_is_valid;
use crate::{Truncated, U16, U32};
use core::net::Ipv4Addr;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Octets of an ARP packet without its Ethernet header.
pub const LEN: usize = 28;
/// Octets of a frame that [`write_reply`] and [`write_gratuitous`] write, without the padding to 60
/// octets that the interface adds.
pub const FRAME_LEN: usize = ethernet::HEADER_LEN + LEN;

/// Hardware type Ethernet.
pub const HARDWARE_ETHERNET: u16 = 1;
/// Operation request.
pub const OPERATION_REQUEST: u16 = 1;
/// Operation reply.
pub const OPERATION_REPLY: u16 = 2;

/// An ARP packet for IPv4 over Ethernet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Packet {
    /// [`HARDWARE_ETHERNET`].
    pub hardware_type: U16,
    /// EtherType of IPv4.
    pub protocol_type: U16,
    /// Octets of a MAC address, 6.
    pub hardware_len: u8,
    /// Octets of an IPv4 address, 4.
    pub protocol_len: u8,
    /// [`OPERATION_REQUEST`] or [`OPERATION_REPLY`].
    pub operation: U16,
    /// MAC address of the sender.
    pub sender_mac: MacAddr,
    /// IPv4 address of the sender; 0.0.0.0 in a probe (RFC 5227 section 1.1).
    pub sender_ip: U32,
    /// MAC address of the target; of no meaning in a request.
    pub target_mac: MacAddr,
    /// IPv4 address of the target.
    pub target_ip: U32,
}

impl Packet {
    fn new(operation: u16, sender: (MacAddr, Ipv4Addr), target: (MacAddr, Ipv4Addr)) -> Self {
        Self {
            hardware_type: U16::new(HARDWARE_ETHERNET),
            protocol_type: U16::new(ETHERTYPE_IPV4),
            hardware_len: 6,
            protocol_len: 4,
            operation: U16::new(operation),
            sender_mac: sender.0,
            sender_ip: U32::new(sender.1.to_bits()),
            target_mac: target.0,
            target_ip: U32::new(target.1.to_bits()),
        }
    }
}

/// Why a payload is no ARP packet for IPv4 over Ethernet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// Shorter than 28 octets.
    #[error("ARP packet is shorter than 28 octets")]
    Truncated,
    /// Hardware or protocol type, or one of their lengths, is another one.
    #[error("ARP packet is not for IPv4 over Ethernet")]
    Kind,
}

impl From<Truncated> for ParseError {
    fn from(_: Truncated) -> Self {
        Self::Truncated
    }
}

/// The ARP packet in the payload of a frame, whatever its operation.
///
/// # Errors
/// [`ParseError`] if it is none for IPv4 over Ethernet.
pub fn parse(payload: &[u8]) -> Result<&Packet, ParseError> {
    let (packet, _padding) = Packet::ref_from_prefix(payload).map_err(|_| ParseError::Truncated)?;
    if packet.hardware_type.get() != HARDWARE_ETHERNET
        || packet.protocol_type.get() != ETHERTYPE_IPV4
        || packet.hardware_len != 6
        || packet.protocol_len != 4
    {
        return Err(ParseError::Kind);
    }
    Ok(packet)
}

/// A request that may be answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// MAC address of who asks, a unicast address.
    pub sender_mac: MacAddr,
    /// IPv4 address of who asks; 0.0.0.0 in a probe (RFC 5227 section 1.1).
    pub sender_ip: Ipv4Addr,
    /// IPv4 address asked for.
    pub target_ip: Ipv4Addr,
}

/// The request in the payload of a frame. `None` for everything else, and for a request whose sender
/// could not be a single station: an answer to a group address would reach all of them.
#[must_use]
pub fn parse_request(payload: &[u8]) -> Option<Request> {
    let packet = parse(payload).ok()?;
    let sender_ip = packet.sender_ip.get();
    let answerable = packet.operation.get() == OPERATION_REQUEST
        && packet.sender_mac.is_unicast()
        && (sender_ip == 0 || source_is_valid(sender_ip));
    answerable.then(|| Request {
        sender_mac: packet.sender_mac,
        sender_ip: Ipv4Addr::from_bits(sender_ip),
        target_ip: Ipv4Addr::from_bits(packet.target_ip.get()),
    })
}

/// Writes the frame, Ethernet header included, that answers `request` with `mac`. Returns
/// [`FRAME_LEN`]; `None`, and nothing written, if `frame` is too short.
#[must_use]
pub fn write_reply(frame: &mut [u8], request: &Request, mac: MacAddr) -> Option<usize> {
    let packet =
        Packet::new(OPERATION_REPLY, (mac, request.target_ip), (request.sender_mac, request.sender_ip));
    write_frame(frame, request.sender_mac, &packet)
}

/// Writes the frame, Ethernet header included, that announces to all stations that `ip` is at `mac`
/// (RFC 5227 section 2.3: a request for the own address). Returns [`FRAME_LEN`]; `None`, and nothing
/// written, if `frame` is too short.
#[must_use]
pub fn write_gratuitous(frame: &mut [u8], mac: MacAddr, ip: Ipv4Addr) -> Option<usize> {
    let packet = Packet::new(OPERATION_REQUEST, (mac, ip), (MacAddr::ZERO, ip));
    write_frame(frame, MacAddr::BROADCAST, &packet)
}

/// Writes the frame that announces as [`write_gratuitous`] does, in the form of a reply, for those stations that learn
/// from replies alone (RFC 5227 section 3). Returns [`FRAME_LEN`]; `None`, and nothing written, if `frame` is too short.
#[must_use]
pub fn write_gratuitous_reply(frame: &mut [u8], mac: MacAddr, ip: Ipv4Addr) -> Option<usize> {
    let packet = Packet::new(OPERATION_REPLY, (mac, ip), (MacAddr::BROADCAST, ip));
    write_frame(frame, MacAddr::BROADCAST, &packet)
}

/// Writes the frame by which `sender` asks all stations who has `target`; a sender of 0.0.0.0 makes it a probe (RFC 5227
/// section 1.1). Returns [`FRAME_LEN`]; `None`, and nothing written, if `frame` is too short.
#[must_use]
pub fn write_request(frame: &mut [u8], sender: (MacAddr, Ipv4Addr), target: Ipv4Addr) -> Option<usize> {
    let packet = Packet::new(OPERATION_REQUEST, sender, (MacAddr::ZERO, target));
    write_frame(frame, MacAddr::BROADCAST, &packet)
}

fn write_frame(frame: &mut [u8], destination: MacAddr, packet: &Packet) -> Option<usize> {
    let frame = frame.get_mut(..FRAME_LEN)?;
    let header = ethernet::Header::new(destination, packet.sender_mac, ETHERTYPE_ARP);
    let header_len = ethernet::write_header(frame, &header)?;
    packet.write_to(frame.get_mut(header_len..)?).ok()?;
    Some(FRAME_LEN)
}

//! Ethernet II frames (IEEE 802.3 clause 3) and the 802.1Q tag.

use crate::{Truncated, U16};
use core::fmt;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Octets of the header.
pub const HEADER_LEN: usize = 14;
/// Octets that an 802.1Q tag adds.
pub const VLAN_TAG_LEN: usize = 4;

/// EtherType of IPv4 (RFC 894).
pub const ETHERTYPE_IPV4: u16 = 0x0800;
/// EtherType of ARP (RFC 826).
pub const ETHERTYPE_ARP: u16 = 0x0806;
/// EtherType of IPv6 (RFC 2464).
pub const ETHERTYPE_IPV6: u16 = 0x86dd;
/// EtherType of a customer VLAN tag (IEEE 802.1Q).
pub const ETHERTYPE_VLAN: u16 = 0x8100;
/// EtherType of a service VLAN tag (IEEE 802.1ad).
pub const ETHERTYPE_SERVICE_VLAN: u16 = 0x88a8;

/// A MAC address.
#[derive(
    Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned,
)]
#[repr(transparent)]
pub struct MacAddr(pub [u8; 6]);

impl MacAddr {
    /// All ones.
    pub const BROADCAST: Self = Self([0xff; 6]);
    /// All zeros, the unknown address of an ARP request.
    pub const ZERO: Self = Self([0; 6]);

    /// Group address (multicast or broadcast): the lowest bit of the first octet is set.
    #[inline]
    #[must_use]
    pub const fn is_group(self) -> bool {
        self.0[0] & 1 == 1
    }

    /// The address of a single station: neither a group nor all zeros.
    #[inline]
    #[must_use]
    pub fn is_unicast(self) -> bool {
        !self.is_group() && self != Self::ZERO
    }
}

impl fmt::Display for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The header of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Header {
    /// Whom it is for.
    pub destination: MacAddr,
    /// Who sent it.
    pub source: MacAddr,
    /// What the payload is.
    pub ethertype: U16,
}

impl Header {
    /// A header.
    #[inline]
    #[must_use]
    pub fn new(destination: MacAddr, source: MacAddr, ethertype: u16) -> Self {
        Self { destination, source, ethertype: U16::new(ethertype) }
    }
}

/// An 802.1Q tag, as it follows a header whose EtherType is [`ETHERTYPE_VLAN`] or
/// [`ETHERTYPE_SERVICE_VLAN`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct VlanTag {
    /// Priority (3 bits), drop eligible (1 bit), VLAN identifier (12 bits).
    pub control: U16,
    /// What follows the tag.
    pub ethertype: U16,
}

impl VlanTag {
    /// VLAN identifier, 0 to 4095.
    #[inline]
    #[must_use]
    pub fn id(&self) -> u16 {
        self.control.get() & 0x0fff
    }
}

/// Header and payload of a frame.
///
/// # Errors
/// [`Truncated`] if there is no whole header.
#[inline]
pub fn parse(frame: &[u8]) -> Result<(&Header, &[u8]), Truncated> {
    Header::ref_from_prefix(frame).map_err(|_| Truncated)
}

/// Header and payload of a frame, to be changed.
///
/// # Errors
/// [`Truncated`] if there is no whole header.
#[inline]
pub fn parse_mut(frame: &mut [u8]) -> Result<(&mut Header, &mut [u8]), Truncated> {
    Header::mut_from_prefix(frame).map_err(|_| Truncated)
}

/// Tag and what follows it, from the payload of a frame with a VLAN EtherType.
///
/// # Errors
/// [`Truncated`] if there is no whole tag.
#[inline]
pub fn parse_vlan(payload: &[u8]) -> Result<(&VlanTag, &[u8]), Truncated> {
    VlanTag::ref_from_prefix(payload).map_err(|_| Truncated)
}

/// Writes a header at the front of `frame`. `None`, and nothing written, if there is no room.
#[inline]
#[must_use]
pub fn write_header(frame: &mut [u8], header: &Header) -> Option<usize> {
    header.write_to_prefix(frame).ok()?;
    Some(HEADER_LEN)
}

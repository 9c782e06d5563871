//! The read-only half of an SA, laid out for the packet path.

use std::net::Ipv4Addr;

use tandem_aead::Key;
use tandem_wire::{checksum, ipv4};

/// TTL of the outer header (RFC 4301 section 5.1.2.1: constructed, not copied). The value that RFC 1700
/// recommends.
const OUTER_TTL: u8 = 64;

/// What an outbound SA is made of.
#[derive(Debug)]
pub struct SaOutConfig {
    /// The SPI that the peer gave, host byte order.
    pub spi: u32,
    /// The slot of the SA's hot state.
    pub slot: u32,
    /// The policy that the SA belongs to, an index of the caller's.
    pub policy: u32,
    /// Source of the outer header: this gateway.
    pub local: Ipv4Addr,
    /// Destination of the outer header: the peer.
    pub peer: Ipv4Addr,
    /// The first four octets of each nonce (RFC 4106 section 4).
    pub salt: [u8; 4],
    /// The term that the IV's term difference counts from (F3).
    pub base_term: u64,
    /// The expanded key.
    pub key: Key,
}

/// An outbound SA. Tunnel mode, IPv4 outside.
///
/// All that a worker reads for a packet, but the key schedule itself, lies in two cache lines; the
/// first holds what decides (SPI, slot, terms) and the outer header.
#[derive(Debug)]
#[repr(C, align(64))]
pub struct SaOut {
    pub(crate) spi: u32,
    slot: u32,
    pub(crate) base_term: u64,
    pub(crate) salt: [u8; 4],
    policy: u32,
    /// The outer header without type of service, total length, identification, DF and checksum.
    pub(crate) outer: ipv4::Header,
    /// Ones-complement sum of `outer`.
    pub(crate) outer_sum: u16,
    pub(crate) key: Key,
}

const _: () = assert!(size_of::<SaOut>() == 128 && align_of::<SaOut>() == 64);
const _: () = assert!(std::mem::offset_of!(SaOut, outer_sum) + 2 <= 64);

impl SaOut {
    /// Lays the SA out. May allocate; not for the packet path.
    pub fn new(config: SaOutConfig) -> Self {
        let mut outer = ipv4::Header::new(&ipv4::Fields {
            tos: 0,
            total_length: 0,
            identification: 0,
            dont_fragment: false,
            ttl: OUTER_TTL,
            protocol: ipv4::PROTOCOL_ESP,
            source: config.local,
            destination: config.peer,
        });
        outer.checksum.set(0);
        SaOut {
            spi: config.spi,
            slot: config.slot,
            base_term: config.base_term,
            salt: config.salt,
            policy: config.policy,
            outer_sum: checksum::sum_20(outer.octets()),
            outer,
            key: config.key,
        }
    }

    /// The SPI, host byte order.
    #[inline]
    pub fn spi(&self) -> u32 {
        self.spi
    }

    /// The slot of the SA's hot state.
    #[inline]
    pub fn slot(&self) -> u32 {
        self.slot
    }

    /// The policy that the SA belongs to.
    #[inline]
    pub fn policy(&self) -> u32 {
        self.policy
    }

    /// The term that IVs count from (F3); for [`crate::IvSource::next`].
    #[inline]
    pub fn base_term(&self) -> u64 {
        self.base_term
    }

    /// Source of the outer header.
    pub fn local(&self) -> Ipv4Addr {
        self.outer.source_addr()
    }

    /// Destination of the outer header.
    pub fn peer(&self) -> Ipv4Addr {
        self.outer.destination_addr()
    }
}

/// Inner addresses that an inbound SA may carry (RFC 4301 section 5.2 step 4). Host byte order, both ends
/// included. The source is the remote side, as packets come out of the tunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct SelectorRange {
    /// Lowest inner source address.
    pub source_first: u32,
    /// Highest inner source address.
    pub source_last: u32,
    /// Lowest inner destination address.
    pub destination_first: u32,
    /// Highest inner destination address.
    pub destination_last: u32,
}

impl SelectorRange {
    /// Holds no address.
    const NOTHING: SelectorRange =
        SelectorRange { source_first: 1, source_last: 0, destination_first: 1, destination_last: 0 };

    /// Whether both addresses lie in the range.
    #[inline]
    pub fn contains(&self, source: u32, destination: u32) -> bool {
        (self.source_first..=self.source_last).contains(&source)
            && (self.destination_first..=self.destination_last).contains(&destination)
    }
}

/// What an inbound SA is made of.
#[derive(Debug)]
pub struct SaInConfig {
    /// The SPI that this gateway gave, host byte order.
    pub spi: u32,
    /// The slot of the SA's hot state.
    pub slot: u32,
    /// The policy that the SA belongs to, an index of the caller's.
    pub policy: u32,
    /// Destination of the outer header: this gateway.
    pub local: Ipv4Addr,
    /// Source of the outer header: the peer.
    pub peer: Ipv4Addr,
    /// The first four octets of each nonce (RFC 4106 section 4).
    pub salt: [u8; 4],
    /// The expanded key.
    pub key: Key,
    /// What the inner packets may be. Without one the SA carries nothing.
    pub selectors: Vec<SelectorRange>,
}

/// An inbound SA. Tunnel mode, IPv4 outside.
///
/// The first cache line is what opening needs; the second holds the first selector, so that an SA of one
/// selector touches no other memory.
#[derive(Debug)]
#[repr(C, align(64))]
pub struct SaIn {
    pub(crate) spi: u32,
    slot: u32,
    policy: u32,
    pub(crate) salt: [u8; 4],
    local: Ipv4Addr,
    peer: Ipv4Addr,
    pub(crate) key: Key,
    first: SelectorRange,
    others: Box<[SelectorRange]>,
}

const _: () = assert!(size_of::<SaIn>() == 128 && align_of::<SaIn>() == 64);
const _: () = assert!(std::mem::offset_of!(SaIn, first) <= 64);

impl SaIn {
    /// Lays the SA out. May allocate; not for the packet path.
    pub fn new(config: SaInConfig) -> Self {
        let (first, others) = match config.selectors.split_first() {
            Some((first, others)) => (*first, others.into()),
            None => (SelectorRange::NOTHING, Box::default()),
        };
        SaIn {
            spi: config.spi,
            slot: config.slot,
            policy: config.policy,
            salt: config.salt,
            local: config.local,
            peer: config.peer,
            key: config.key,
            first,
            others,
        }
    }

    /// Whether the SA may carry an inner packet between these addresses, host byte order (RFC 4301
    /// section 5.2 step 4). `source` is the inner source, on the remote side.
    #[inline]
    pub fn permits(&self, source: u32, destination: u32) -> bool {
        self.first.contains(source, destination)
            || self.others.iter().any(|range| range.contains(source, destination))
    }

    /// The SPI, host byte order.
    #[inline]
    pub fn spi(&self) -> u32 {
        self.spi
    }

    /// The slot of the SA's hot state.
    #[inline]
    pub fn slot(&self) -> u32 {
        self.slot
    }

    /// The policy that the SA belongs to.
    #[inline]
    pub fn policy(&self) -> u32 {
        self.policy
    }

    /// Destination of the outer header.
    #[inline]
    pub fn local(&self) -> Ipv4Addr {
        self.local
    }

    /// Source of the outer header.
    #[inline]
    pub fn peer(&self) -> Ipv4Addr {
        self.peer
    }
}

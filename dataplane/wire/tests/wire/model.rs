//! Plain models and generators, written without a look at the crate.

use proptest::prelude::*;

/// RFC 1071 section 4.1, word by word.
pub fn checksum(octets: &[u8]) -> u16 {
    let mut sum = 0u32;
    for pair in octets.chunks(2) {
        sum += u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
        if sum > 0xffff {
            sum -= 0xffff;
        }
    }
    !(sum as u16)
}

/// Pseudo-header of UDP and TCP, as octets.
pub fn pseudo_header(source: u32, destination: u32, protocol: u8, len: usize) -> Vec<u8> {
    [&source.to_be_bytes()[..], &destination.to_be_bytes(), &[0, protocol], &(len as u16).to_be_bytes()]
        .concat()
}

/// A single host's address.
pub fn host() -> impl Strategy<Value = u32> {
    (1u32..224, any::<u32>()).prop_filter_map("loopback", |(first, rest)| {
        (first != 127).then_some(first << 24 | rest & 0x00ff_ffff)
    })
}

/// Well-formed IPv4 options, 0 to 40 octets, padded to a multiple of 4, and what they are one by one.
pub fn options() -> impl Strategy<Value = (Vec<u8>, Vec<Vec<u8>>)> {
    let nop = Just(vec![1u8]);
    let valued = (2u8..=255, prop::collection::vec(any::<u8>(), 0..12)).prop_map(|(kind, value)| {
        let mut option = vec![kind, value.len() as u8 + 2];
        option.extend(value);
        option
    });
    prop::collection::vec(prop_oneof![nop, valued], 0..6).prop_map(|mut list| {
        let mut bytes = Vec::new();
        list.retain(|option| {
            let fits = bytes.len() + option.len() <= 40;
            if fits {
                bytes.extend_from_slice(option);
            }
            fits
        });
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        (bytes, list)
    })
}

/// An IPv4 packet, octet by octet, its checksum right.
#[derive(Clone, Debug)]
pub struct Ipv4 {
    pub tos: u8,
    pub id: u16,
    pub flags: u16,
    pub offset: usize,
    pub ttl: u8,
    pub protocol: u8,
    pub source: u32,
    pub destination: u32,
    pub options: Vec<u8>,
    pub payload: Vec<u8>,
}

impl Ipv4 {
    pub fn octets(&self) -> Vec<u8> {
        let header_len = 20 + self.options.len();
        let mut packet = vec![0x40 | (header_len / 4) as u8, self.tos];
        packet.extend(((header_len + self.payload.len()) as u16).to_be_bytes());
        packet.extend(self.id.to_be_bytes());
        packet.extend((self.flags << 13 | (self.offset / 8) as u16).to_be_bytes());
        packet.extend([self.ttl, self.protocol, 0, 0]);
        packet.extend(self.source.to_be_bytes());
        packet.extend(self.destination.to_be_bytes());
        packet.extend(&self.options);
        let sum = checksum(&packet);
        packet[10..12].copy_from_slice(&sum.to_be_bytes());
        packet.extend(&self.payload);
        packet
    }
}

/// Packets of any protocol with a payload of `payload` octets, not fragments, DF clear.
pub fn ipv4(payload: std::ops::Range<usize>) -> impl Strategy<Value = Ipv4> {
    (
        (any::<u8>(), any::<u16>(), any::<u8>(), any::<u8>()),
        (host(), host(), options()),
        prop::collection::vec(any::<u8>(), payload),
    )
        .prop_map(|((tos, id, ttl, protocol), (source, destination, (options, _)), payload)| Ipv4 {
            tos,
            id,
            flags: 0,
            offset: 0,
            ttl,
            protocol,
            source,
            destination,
            options,
            payload,
        })
}

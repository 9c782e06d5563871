//! Crafted frames.

use std::net::Ipv4Addr;

pub const OWN_MAC: [u8; 6] = [2, 0, 0, 0, 0, 0x11];
pub const VIRTUAL_MAC: [u8; 6] = [0, 0, 0x0c, 7, 0xac, 1];
pub const OTHER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 0x99];
pub const SENDER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 0x55];
pub const BROADCAST: [u8; 6] = [0xff; 6];
pub const MULTICAST: [u8; 6] = [1, 0, 0x5e, 0, 0, 2];

/// Ours, in the kernel.
pub const OWN: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
/// Ours, in the data plane.
pub const VIRTUAL: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 10);
/// In the protected prefix 10.20.0.0/16.
pub const REMOTE: Ipv4Addr = Ipv4Addr::new(10, 20, 3, 4);
/// In no protected prefix.
pub const ANYBODY: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 7);

pub const ESP: u8 = 50;
pub const UDP: u8 = 17;
pub const TCP: u8 = 6;
pub const ICMP: u8 = 1;

pub fn ethernet(destination: [u8; 6], ethertype: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = [destination, SENDER_MAC].concat();
    frame.extend(ethertype.to_be_bytes());
    frame.extend(payload);
    frame
}

/// Puts a tag between the addresses and the EtherType.
pub fn tagged(frame: &[u8], tag_type: u16, control: u16) -> Vec<u8> {
    let mut out = frame[..12].to_vec();
    out.extend(tag_type.to_be_bytes());
    out.extend(control.to_be_bytes());
    out.extend(&frame[12..]);
    out
}

pub fn arp(operation: u16, target: Ipv4Addr) -> Vec<u8> {
    let mut packet = vec![0, 1, 8, 0, 6, 4];
    packet.extend(operation.to_be_bytes());
    packet.extend(SENDER_MAC);
    packet.extend(ANYBODY.octets());
    packet.extend([0; 6]);
    packet.extend(target.octets());
    packet
}

/// An IPv4 packet to be.
#[derive(Clone, Debug)]
pub struct Ipv4 {
    pub version: u8,
    pub ihl: Option<u8>,
    pub total_length: Option<u16>,
    pub flags_and_offset: u16,
    pub protocol: u8,
    pub source: Ipv4Addr,
    pub destination: Ipv4Addr,
    pub options: Vec<u8>,
    pub payload: Vec<u8>,
}

pub const MORE_FRAGMENTS: u16 = 0x2000;
pub const DONT_FRAGMENT: u16 = 0x4000;

pub fn ipv4(protocol: u8, source: Ipv4Addr, destination: Ipv4Addr, payload: &[u8]) -> Ipv4 {
    Ipv4 {
        version: 4,
        ihl: None,
        total_length: None,
        flags_and_offset: 0,
        protocol,
        source,
        destination,
        options: Vec::new(),
        payload: payload.to_vec(),
    }
}

impl Ipv4 {
    pub fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }

    /// With a checksum of 0: XDP does not look at it.
    pub fn octets(&self) -> Vec<u8> {
        assert!(self.options.len().is_multiple_of(4));
        let header = 20 + self.options.len();
        let ihl = self.ihl.unwrap_or((header / 4) as u8);
        let total = self.total_length.unwrap_or((header + self.payload.len()) as u16);
        let mut packet = vec![self.version << 4 | ihl, 0];
        packet.extend(total.to_be_bytes());
        packet.extend([0, 0]);
        packet.extend(self.flags_and_offset.to_be_bytes());
        packet.extend([64, self.protocol, 0, 0]);
        packet.extend(self.source.octets());
        packet.extend(self.destination.octets());
        packet.extend(&self.options);
        packet.extend(&self.payload);
        packet
    }

    pub fn to(&self, mac: [u8; 6]) -> Vec<u8> {
        ethernet(mac, 0x0800, &self.octets())
    }
}

pub fn udp(destination_port: u16) -> Vec<u8> {
    let mut datagram = 40000_u16.to_be_bytes().to_vec();
    datagram.extend(destination_port.to_be_bytes());
    datagram.extend([0, 16, 0, 0]);
    datagram.extend([0xaa; 8]);
    datagram
}

pub fn esp() -> Vec<u8> {
    let mut packet = vec![0x80, 0, 0x10, 1, 0, 0, 0, 1];
    packet.extend([0x5a; 40]);
    packet
}

/// 24 octets of no-operation options.
pub fn options() -> Vec<u8> {
    vec![1; 24]
}

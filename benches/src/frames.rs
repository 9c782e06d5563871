//! The traffic of the benchmarks, and files of it.
//!
//! Sizes are those of the inner Ethernet frame, without its check sequence: a frame of 64 octets holds an IPv4
//! packet of 50. Tandem and its peers get the same frames.

use std::io::Write;
use std::net::Ipv4Addr;
use std::path::Path;

use anyhow::{Context, Result};

/// Octets of an Ethernet header.
pub const ETHERNET: usize = 14;
/// Octets of an IPv4 header without options and of a UDP header.
const HEADERS: usize = 20 + 8;

/// Who sends to whom.
#[derive(Clone, Copy, Debug)]
pub struct Flow {
    /// Destination MAC address.
    pub to_mac: [u8; 6],
    /// Source MAC address.
    pub from_mac: [u8; 6],
    /// Source address.
    pub from: Ipv4Addr,
    /// Destination address.
    pub to: Ipv4Addr,
}

/// A frame of `size` octets with a UDP datagram, number `id` (the IPv4 identification); no fragment, TTL 64.
/// `size` is at least 42.
pub fn udp(flow: Flow, size: usize, id: u16) -> Vec<u8> {
    let packet = (size - ETHERNET) as u16;
    let mut frame = Vec::with_capacity(size);
    frame.extend(flow.to_mac);
    frame.extend(flow.from_mac);
    frame.extend([0x08, 0x00]);
    frame.extend([0x45, 0]);
    frame.extend(packet.to_be_bytes());
    frame.extend(id.to_be_bytes());
    frame.extend([0x40, 0, 64, 17, 0, 0]);
    frame.extend(flow.from.octets());
    frame.extend(flow.to.octets());
    let sum = checksum(&frame[ETHERNET..]);
    frame[ETHERNET + 10..ETHERNET + 12].copy_from_slice(&sum.to_be_bytes());
    frame.extend(4000u16.to_be_bytes());
    frame.extend(5000u16.to_be_bytes());
    frame.extend((packet - 20).to_be_bytes());
    // UDP over IPv4 may go without a checksum (RFC 768).
    frame.extend([0, 0]);
    frame.extend((0..size - ETHERNET - HEADERS).map(|octet| octet as u8));
    frame
}

/// The Internet checksum (RFC 1071) of a header whose checksum field is zero.
fn checksum(header: &[u8]) -> u16 {
    let sum: u32 = header.chunks_exact(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    !((folded & 0xffff) + (folded >> 16)) as u16
}

/// Writes frames as a capture file (pcap 2.4, Ethernet, in the byte order of this machine).
pub fn write_pcap(path: &Path, frames: &[Vec<u8>]) -> Result<()> {
    let mut file = Vec::new();
    file.write_all(&0xa1b2_c3d4_u32.to_ne_bytes())?;
    file.write_all(&2u16.to_ne_bytes())?;
    file.write_all(&4u16.to_ne_bytes())?;
    // Time zone, accuracy, snapshot length, link type Ethernet.
    for word in [0u32, 0, 65535, 1] {
        file.write_all(&word.to_ne_bytes())?;
    }
    for frame in frames {
        // Seconds, microseconds, octets captured, octets on the wire.
        for word in [0, 0, frame.len() as u32, frame.len() as u32] {
            file.write_all(&word.to_ne_bytes())?;
        }
        file.write_all(frame)?;
    }
    std::fs::write(path, file).with_context(|| format!("writing {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FLOW: Flow = Flow {
        to_mac: [2, 0, 0, 0, 0, 1],
        from_mac: [2, 0, 0, 0, 0, 2],
        from: Ipv4Addr::new(192, 0, 2, 1),
        to: Ipv4Addr::new(198, 51, 100, 1),
    };

    #[test]
    fn frames_have_the_size_asked_for_and_are_valid_for_tandems_own_parser() {
        for size in [64, 512, 1420] {
            let frame = udp(FLOW, size, 7);
            assert_eq!(frame.len(), size);
            let packet = tandem_wire::ipv4::parse(&frame[ETHERNET..]).expect("a valid packet");
            assert_eq!(packet.header.total_len(), size - ETHERNET);
            assert!(tandem_wire::ipv4::header_checksum_ok(&frame[ETHERNET..]));
        }
    }

    #[test]
    fn a_capture_file_is_as_long_as_its_headers_and_frames() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("x.pcap");
        write_pcap(&path, &[udp(FLOW, 64, 1), udp(FLOW, 512, 2)]).expect("it can be written");
        let octets = std::fs::read(&path).expect("it can be read");
        assert_eq!(octets.len(), 24 + 2 * 16 + 64 + 512);
        assert_eq!(octets[24 + 16 + 12..24 + 16 + 14], [0x08, 0x00]);
    }
}

//! The packets that scapy made are read, and made again octet for octet.

use crate::scapy_packets::*;
use core::net::Ipv4Addr;
use tandem_wire::ethernet::{ETHERTYPE_IPV4, ETHERTYPE_VLAN, MacAddr};
use tandem_wire::icmp::{ErrorKind, NoReply};
use tandem_wire::{arp, esp, ethernet, fragment, icmp, ipv4, tcp, udp};

const A: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const B: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 7);
const ROUTER: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);
const MAC_A: MacAddr = MacAddr([2, 0, 0, 0, 0, 0xa]);
const MAC_B: MacAddr = MacAddr([2, 0, 0, 0, 0, 0xb]);

#[test]
fn arp_replies_and_announcements_are_scapys() {
    let (_, payload) = ethernet::parse(ARP_REQUEST).unwrap();
    let request = arp::parse_request(payload).unwrap();
    assert_eq!((request.sender_mac, request.sender_ip, request.target_ip), (MAC_A, A, B));

    let mut frame = [0; arp::FRAME_LEN];
    arp::write_reply(&mut frame, &request, MAC_B).unwrap();
    assert_eq!(frame, ARP_REPLY);
    arp::write_gratuitous(&mut frame, MAC_B, B).unwrap();
    assert_eq!(frame, ARP_ANNOUNCEMENT);
}

#[test]
fn udp_in_a_vlan_is_read() {
    let (header, payload) = ethernet::parse(VLAN_UDP).unwrap();
    assert_eq!(*header, ethernet::Header::new(MAC_B, MAC_A, ETHERTYPE_VLAN));
    let (tag, payload) = ethernet::parse_vlan(payload).unwrap();
    assert_eq!((tag.control.get() >> 13, tag.id(), tag.ethertype.get()), (5, 42, ETHERTYPE_IPV4));
    let packet = ipv4::parse(payload).unwrap();
    assert!(packet.header_checksum_ok());
    assert_eq!((packet.header.source_addr(), packet.header.destination_addr()), (A, B));
    assert_eq!((packet.header.identification.get(), packet.header.ttl, packet.header.tos), (0x1234, 1, 0x28));
    let datagram = udp::parse(packet.payload).unwrap();
    assert_eq!(udp::ports(packet.payload), Some((33434, 33435)));
    assert_eq!(datagram.data, (0..37).collect::<Vec<u8>>());
    assert!(datagram.checksum_ok(A.to_bits(), B.to_bits()));
}

#[test]
fn headers_of_udp_and_ip_are_scapys() {
    let data = ipv4::HEADER_LEN + udp::HEADER_LEN;
    let mut packet = vec![0; data];
    packet.extend(&UDP_IKE[data..]);
    let total_length = packet.len() as u16;
    udp::write_header(&mut packet[20..], A.to_bits(), B.to_bits(), udp::PORT_IKE, udp::PORT_IKE).unwrap();
    let fields = ipv4::Fields {
        tos: 0,
        total_length,
        identification: 1,
        dont_fragment: false,
        ttl: 64,
        protocol: ipv4::PROTOCOL_UDP,
        source: A,
        destination: B,
    };
    ipv4::write_header(&mut packet, &fields).unwrap();
    assert_eq!(packet, UDP_IKE);
}

#[test]
fn esp_is_read_and_written() {
    let packet = ipv4::parse(ESP_PACKET).unwrap();
    assert_eq!(packet.header.protocol, ipv4::PROTOCOL_ESP);
    let (header, rest) = esp::parse(packet.payload).unwrap();
    assert_eq!((header.spi.get(), header.sequence.get()), (0x8010_0005, 77));
    assert_eq!(rest, (0..40).collect::<Vec<u8>>());
    let mut out = [0; 9];
    assert_eq!(esp::write_header(&mut out, &esp::Header::new(0x8010_0005, 77)), Some(8));
    assert_eq!(out[..8], packet.payload[..8]);
    assert_eq!(esp::write_header(&mut out[..7], header), None);
}

#[test]
fn echo_replies_are_scapys() {
    let mut packet = ECHO_REQUEST.to_vec();
    let (echo, data) = icmp::parse_echo(&ECHO_REQUEST[20..]).unwrap();
    assert_eq!((echo.identifier.get(), echo.sequence.get(), data.len()), (0x2a, 3, 57));
    assert_eq!(icmp::echo_reply_in_place(&mut packet), Ok(ECHO_REPLY.len()));
    assert_eq!(packet, ECHO_REPLY);
    assert_eq!(icmp::echo_reply_in_place(&mut packet), Err(NoReply::NotEchoRequest));
    assert_eq!(icmp::echo_reply_in_place(&mut ECHO_WITH_OPTIONS.to_vec()), Err(NoReply::Options));
}

#[test]
fn icmp_errors_are_scapys() {
    let mut out = [0; icmp::MAX_ERROR_LEN];
    let len = icmp::build_error(ErrorKind::TimeExceeded, ROUTER, TTL_ONE, &mut out).unwrap();
    assert_eq!(out[..len], *TIME_EXCEEDED);
    let kind = ErrorKind::FragmentationNeeded { mtu: 1390 };
    let len = icmp::build_error(kind, ROUTER, TOO_LONG, &mut out).unwrap();
    assert_eq!(len, icmp::MAX_ERROR_LEN);
    assert_eq!(out[..len], *FRAGMENTATION_NEEDED);
}

#[test]
fn clamped_syns_are_scapys() {
    for (before, mss, after) in [(SYN_1460, 1460, SYN_1310), (SYN_ACK_9000, 9000, SYN_ACK_1310)] {
        let mut packet = before.to_vec();
        let segment = tcp::parse(ipv4::parse(before).unwrap().payload).unwrap();
        assert_eq!(segment.mss(), Some(mss));
        assert!(segment.header.is_syn() && segment.checksum_ok(A.to_bits(), B.to_bits()));
        assert!(tcp::clamp_mss(&mut packet, 1310));
        assert_eq!(packet, after);
    }
}

#[test]
fn fragments_are_scapys() {
    let packet = ipv4::parse(TO_CUT).unwrap();
    let pieces: Vec<Vec<u8>> = fragment::plan(&packet, 100)
        .unwrap()
        .map(|piece| {
            let mut out = [0; 100];
            let len = fragment::write(&packet, &piece, &mut out).unwrap();
            out[..len].to_vec()
        })
        .collect();
    assert_eq!(pieces, CUT);
}

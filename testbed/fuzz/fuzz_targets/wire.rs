//! Every parser and every builder of packets, on octets of any kind and on packets of any kind whose
//! checksums were made right, so that what lies behind the checks is reached.
//!
//! Input: two octets of a number (MTU and MSS), then the packet.

#![no_main]

use libfuzzer_sys::fuzz_target;
use std::net::Ipv4Addr;
use tandem_wire::checksum::{self, Checksum};
use tandem_wire::ethernet::MacAddr;
use tandem_wire::icmp::{ErrorKind, NoReply};
use tandem_wire::{arp, esp, ethernet, fragment, icmp, ipv4, tcp, udp};

const ROUTER: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);
const OURS: MacAddr = MacAddr([2, 0, 0, 0, 0, 9]);

fuzz_target!(|input: &[u8]| {
    let Some((number, octets)) = input.split_first_chunk() else { return };
    let number = u16::from_be_bytes(*number);
    link_layer(octets);
    transport(octets);
    packet(octets, number);

    let mut repaired = octets.to_vec();
    repair(&mut repaired);
    packet(&repaired, number);
});

/// Makes the checksums of an IPv4 packet and the ICMP message or TCP segment in it right.
fn repair(octets: &mut [u8]) {
    ipv4::fill_checksum(octets);
    let Ok(packet) = ipv4::parse_mut(octets) else { return };
    let (at, start) = match packet.header.protocol {
        ipv4::PROTOCOL_ICMP => (2, Checksum::new()),
        ipv4::PROTOCOL_TCP => (16, pseudo_header(packet.header, packet.payload.len())),
        _ => return,
    };
    let Some(field) = packet.payload.get_mut(at..at + 2) else { return };
    field.fill(0);
    let sum = start.bytes(packet.payload).finish();
    packet.payload[at..at + 2].copy_from_slice(&sum.to_be_bytes());
}

fn pseudo_header(header: &ipv4::Header, len: usize) -> Checksum {
    checksum::pseudo_header(header.src(), header.dst(), header.protocol, len as u16)
}

fn link_layer(octets: &[u8]) {
    assert_eq!(ethernet::parse(octets).is_ok(), octets.len() >= ethernet::HEADER_LEN);
    assert_eq!(ethernet::parse_vlan(octets).is_ok(), octets.len() >= ethernet::VLAN_TAG_LEN);
    if let Some(request) = arp::parse_request(octets) {
        let mut frame = [0; arp::FRAME_LEN];
        assert_eq!(arp::write_reply(&mut frame, &request, OURS), Some(arp::FRAME_LEN));
        let (header, payload) = ethernet::parse(&frame).unwrap();
        let reply = arp::parse(payload).unwrap();
        assert_eq!(header.destination, request.sender_mac);
        assert!(header.destination.is_unicast());
        assert_eq!((reply.sender_mac, reply.sender_ip.get()), (OURS, request.target_ip.to_bits()));
        assert_eq!(arp::parse_request(payload), None, "a reply to a reply");
    }
}

fn transport(octets: &[u8]) {
    let _ = esp::parse(octets);
    let _ = icmp::parse(octets);
    if let Ok(esp::InUdp::Esp(packet)) = esp::parse_in_udp(octets) {
        assert_ne!(esp::parse(packet).unwrap().0.spi.get(), 0);
    }
    if let Ok(datagram) = udp::parse(octets) {
        assert!(datagram.data.len() + udp::HEADER_LEN <= octets.len());
    }
    if let Ok(segment) = tcp::parse(octets) {
        assert_eq!(tcp::HEADER_LEN + segment.options.len() + segment.data.len(), octets.len());
        let _ = (segment.mss(), segment.checksum_ok(1, 2));
    }
    let mut datagram = octets.to_vec();
    if udp::write_header(&mut datagram, 1, 2, 3, 4).is_some() {
        let read = udp::parse(&datagram).unwrap();
        assert_ne!(read.header.checksum.get(), 0);
        assert!(read.checksum_ok(1, 2));
    }
}

/// Everything that works on a whole IPv4 packet.
fn packet(octets: &[u8], number: u16) {
    let read = ipv4::parse(octets);
    assert_eq!(read.map(|_| ()).err(), ipv4::parse_mut(&mut octets.to_vec()).map(|_| ()).err());
    let Ok(packet) = read else {
        // What is no packet is left alone by everything that changes packets.
        let mut copy = octets.to_vec();
        assert!(!tcp::clamp_mss(&mut copy, number));
        assert!(matches!(icmp::echo_reply_in_place(&mut copy), Err(NoReply::Ipv4(_))));
        assert_eq!(icmp::build_error(ErrorKind::TimeExceeded, ROUTER, octets, &mut [0; 576]), None);
        assert_eq!(copy, octets);
        return;
    };
    assert_eq!(ipv4::HEADER_LEN + packet.options.len() + packet.payload.len(), packet.total_len());
    assert_eq!(packet.header_checksum_ok(), ipv4::header_checksum_ok(octets));

    lower_ttl(octets);
    clamp_mss(octets, number);
    echo_reply(octets);
    for kind in [ErrorKind::TimeExceeded, ErrorKind::FragmentationNeeded { mtu: number }] {
        error(octets, &packet, kind);
    }
    fragments(octets, &packet, usize::from(number));
}

fn lower_ttl(octets: &[u8]) {
    let mut copy = octets.to_vec();
    ipv4::decrement_ttl(ipv4::parse_mut(&mut copy).unwrap().header);
    assert_eq!(ipv4::header_checksum_ok(&copy), ipv4::header_checksum_ok(octets));
    ipv4::fill_checksum(&mut copy);
    assert!(ipv4::header_checksum_ok(&copy));
}

fn clamp_mss(octets: &[u8], mss: u16) {
    let segment_ok = |octets: &[u8]| {
        let packet = ipv4::parse(octets).unwrap();
        let sum = pseudo_header(packet.header, packet.payload.len()).bytes(packet.payload);
        sum.is_right()
    };
    let mut copy = octets.to_vec();
    if !tcp::clamp_mss(&mut copy, mss) {
        assert_eq!(copy, octets);
        return;
    }
    assert_eq!(segment_ok(&copy), segment_ok(octets));
    let packet = ipv4::parse(&copy).unwrap();
    assert!(!packet.is_fragment());
    let segment = tcp::parse(packet.payload).unwrap();
    assert!(segment.header.is_syn());
    assert!(segment.mss().unwrap() <= mss);
    let once = copy.clone();
    assert!(!tcp::clamp_mss(&mut copy, mss), "clamped twice");
    assert_eq!(copy, once);
}

fn echo_reply(octets: &[u8]) {
    let mut copy = octets.to_vec();
    let Ok(len) = icmp::echo_reply_in_place(&mut copy) else {
        assert_eq!(copy, octets);
        return;
    };
    let request = ipv4::parse(octets).unwrap();
    let reply = ipv4::parse(&copy).unwrap();
    assert_eq!(len, request.total_len());
    assert_eq!(copy[len..], octets[len..]);
    assert!(reply.header_checksum_ok());
    assert_eq!(checksum::sum(reply.payload), 0xffff);
    assert_eq!((reply.header.src(), reply.header.dst()), (request.header.dst(), request.header.src()));
    assert_eq!(reply.header.ttl, 64);
    assert_eq!(reply.payload[0], icmp::ECHO_REPLY);
    assert_eq!(reply.payload[4..], request.payload[4..]);
    assert_eq!(icmp::echo_reply_in_place(&mut copy), Err(NoReply::NotEchoRequest), "a reply to a reply");
}

fn error(octets: &[u8], about: &ipv4::Packet<'_>, kind: ErrorKind) {
    let mut out = [0; icmp::MAX_ERROR_LEN];
    let Some(len) = icmp::build_error(kind, ROUTER, octets, &mut out) else { return };
    let error = ipv4::parse(&out).unwrap();
    assert_eq!(len, error.total_len());
    assert!(error.header_checksum_ok());
    assert_eq!(checksum::sum(error.payload), 0xffff);
    assert_eq!(error.header.dst(), about.header.src());
    assert!(ipv4::source_is_valid(error.header.dst()));
    let quote = &error.payload[icmp::HEADER_LEN..];
    assert_eq!(quote.len(), about.total_len().min(548));
    assert_eq!(quote, &octets[..quote.len()]);
    assert_eq!(icmp::build_error(kind, ROUTER, &out[..len], &mut [0; 576]), None, "an error about an error");
}

fn fragments(octets: &[u8], packet: &ipv4::Packet<'_>, mtu: usize) {
    let Ok(plan) = fragment::plan(packet, mtu) else { return };
    let mut payload = Vec::with_capacity(packet.payload.len());
    let mut out = vec![0; mtu.max(packet.total_len())];
    let mut more = true;
    for piece in plan {
        assert!(more || packet.header.more_fragments(), "a piece after the last");
        let len = fragment::write(packet, &piece, &mut out).unwrap();
        assert!(len <= mtu);
        let written = ipv4::parse(&out[..len]).unwrap();
        assert!(written.header_checksum_ok());
        assert_eq!(written.header.fragment_offset(), packet.header.fragment_offset() + payload.len());
        more = written.header.more_fragments();
        if piece.offset == 0 {
            let mut kept = octets.to_vec();
            assert_eq!(fragment::keep_first(&mut kept, &piece), Some(len));
            assert_eq!(kept[..len], out[..len]);
        }
        payload.extend_from_slice(written.payload);
    }
    assert_eq!(payload, packet.payload);
    assert_eq!(more, packet.header.more_fragments());
}

//! No octets make anything panic, and parsers never return what lies outside of the buffer.

use crate::scapy_packets::*;
use core::net::Ipv4Addr;
use proptest::prelude::*;
use tandem_wire::icmp::ErrorKind;
use tandem_wire::{arp, esp, ethernet, fragment, icmp, ipv4, tcp, udp};

/// Runs everything that reads or changes a packet on `octets`.
fn run_everything(octets: &[u8], number: u16) {
    let mut out = [0; 2_000];
    let _ = ethernet::parse(octets);
    let _ = ethernet::parse_mut(&mut octets.to_vec());
    let _ = ethernet::parse_vlan(octets);
    let _ = arp::parse(octets);
    if let Some(request) = arp::parse_request(octets) {
        assert!(arp::write_reply(&mut out, &request, request.sender_mac).is_some());
    }
    let _ = esp::parse(octets);
    let _ = esp::parse_in_udp(octets);
    let _ = udp::ports(octets);
    if let Ok(datagram) = udp::parse(octets) {
        let _ = datagram.checksum_ok(1, 2);
    }
    let _ = udp::write_header(&mut octets.to_vec(), 1, 2, 3, 4);
    if let Ok(segment) = tcp::parse(octets) {
        assert_eq!(tcp::HEADER_LEN + segment.options.len() + segment.data.len(), octets.len());
        let _ = (segment.mss(), segment.checksum_ok(1, 2));
    }
    let _ = icmp::parse(octets);
    let _ = icmp::parse_echo(octets);
    let _ = icmp::echo_reply_in_place(&mut octets.to_vec());
    let _ = tcp::clamp_mss(&mut octets.to_vec(), number);
    let _ = ipv4::header_checksum_ok(octets);
    let mut copy = octets.to_vec();
    ipv4::fill_checksum(&mut copy);
    if let Ok(packet) = ipv4::parse_mut(&mut copy) {
        ipv4::decrement_ttl(packet.header);
    }
    for kind in [ErrorKind::TimeExceeded, ErrorKind::FragmentationNeeded { mtu: number }] {
        if let Some(len) = icmp::build_error(kind, Ipv4Addr::new(10, 0, 0, 1), octets, &mut out) {
            assert!(len <= icmp::MAX_ERROR_LEN);
        }
    }
    if let Ok(packet) = ipv4::parse(octets) {
        assert_eq!(20 + packet.options.len() + packet.payload.len(), packet.total_len());
        assert!(packet.total_len() <= octets.len());
        if let Ok(plan) = fragment::plan(&packet, usize::from(number)) {
            let mut octets_planned = 0;
            for piece in plan {
                assert!(piece.total_len() <= usize::from(number));
                octets_planned += piece.len;
                if piece.total_len() <= out.len() {
                    assert_eq!(fragment::write(&packet, &piece, &mut out), Some(piece.total_len()));
                }
                let _ = fragment::keep_first(&mut octets.to_vec(), &piece);
            }
            assert_eq!(octets_planned, packet.payload.len());
        }
    }
}

fn real_packets() -> impl Strategy<Value = Vec<u8>> {
    prop::sample::select(vec![
        &ARP_REQUEST[14..],
        &VLAN_UDP[18..],
        UDP_IKE,
        ESP_PACKET,
        ECHO_REQUEST,
        ECHO_WITH_OPTIONS,
        TIME_EXCEEDED,
        FRAGMENTATION_NEEDED,
        SYN_1460,
        SYN_ACK_9000,
        CUT[0],
        CUT[2],
    ])
    .prop_map(<[u8]>::to_vec)
}

proptest! {
    #[test]
    fn arbitrary_octets_make_nothing_panic(octets in prop::collection::vec(any::<u8>(), 0..200), number: u16) {
        run_everything(&octets, number);
    }

    #[test]
    fn octets_that_look_like_ipv4_make_nothing_panic(
        mut octets in prop::collection::vec(any::<u8>(), 20..200),
        ihl in 0x45u8..0x50,
        protocol in prop::sample::select(vec![1u8, 4, 6, 17, 50]),
        number in 0u16..300,
    ) {
        octets[0] = ihl;
        octets[2] = 0;
        octets[9] = protocol;
        ipv4::fill_checksum(&mut octets);
        run_everything(&octets, number);
    }

    #[test]
    fn damaged_packets_make_nothing_panic(
        mut octets in real_packets(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        cut: prop::sample::Index,
        number in 0u16..1_600,
    ) {
        for (at, octet) in damage {
            let at = at.index(octets.len());
            octets[at] = octet;
        }
        run_everything(&octets, number);
        octets.truncate(cut.index(octets.len()));
        run_everything(&octets, number);
    }
}

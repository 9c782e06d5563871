use crate::model;
use proptest::prelude::*;
use tandem_wire::{ipv4, tcp};

/// A SYN with these options (padded), in a packet with IPv4 options.
fn syn(flags: u8, options: &[u8], data: &[u8]) -> Vec<u8> {
    let (source, destination) = (0x0a01_0203, 0x0a04_0506);
    let mut segment = vec![0x9c, 0x40, 0, 80, 1, 2, 3, 4, 5, 6, 7, 8, 0, flags, 0xfa, 0xf0, 0, 0, 0, 0];
    segment.extend(options);
    segment.resize(segment.len().next_multiple_of(4), 0);
    segment[12] = (segment.len() * 4) as u8;
    segment.extend(data);
    let sum = model::checksum(
        &[model::pseudo_header(source, destination, 6, segment.len()), segment.clone()].concat(),
    );
    segment[16..18].copy_from_slice(&sum.to_be_bytes());
    model::Ipv4 {
        tos: 0,
        id: 5,
        flags: 0,
        offset: 0,
        ttl: 64,
        protocol: 6,
        source,
        destination,
        options: vec![1, 1, 1, 1],
        payload: segment,
    }
    .octets()
}

fn mss(packet: &[u8]) -> Option<u16> {
    tcp::parse(ipv4::parse(packet).unwrap().payload).unwrap().mss()
}

fn checksum_ok(packet: &[u8]) -> bool {
    let packet = ipv4::parse(packet).unwrap();
    tcp::parse(packet.payload).unwrap().checksum_ok(packet.header.src(), packet.header.dst())
}

#[test]
fn what_is_not_a_whole_syn_with_a_larger_mss_is_left_alone() {
    let option = [2, 4, 5, 0xb4];
    let unchanged = |what: &str, packet: Vec<u8>, clamp: u16| {
        let mut copy = packet.clone();
        assert!(!tcp::clamp_mss(&mut copy, clamp), "{what}");
        assert_eq!(copy, packet, "{what}");
    };
    unchanged("no SYN", syn(tcp::FLAG_ACK, &option, b"x"), 500);
    unchanged("MSS is as wanted", syn(tcp::FLAG_SYN, &option, b""), 1460);
    unchanged("no MSS", syn(tcp::FLAG_SYN, &[1, 1, 3, 3, 7], b""), 500);
    unchanged("MSS after the end of the list", syn(tcp::FLAG_SYN, &[0, 0, 0, 0, 2, 4, 5, 0xb4], b""), 500);
    unchanged("MSS of another length", syn(tcp::FLAG_SYN, &[2, 3, 5, 0xb4], b""), 500);
    unchanged("MSS behind an option of length 0", syn(tcp::FLAG_SYN, &[9, 0, 2, 4, 5, 0xb4], b""), 500);
    unchanged("MSS in the data", syn(tcp::FLAG_SYN, &[], &option), 500);

    let mut fragment = syn(tcp::FLAG_SYN, &option, b"");
    fragment[6] = 0x20;
    unchanged("first fragment", fragment, 500);
    let mut udp = syn(tcp::FLAG_SYN, &option, b"");
    udp[9] = 17;
    unchanged("not TCP", udp, 500);
    let mut short = syn(tcp::FLAG_SYN, &option, b"");
    short[24 + 12] = 0xf0;
    unchanged("data offset beyond the packet", short, 500);
}

#[test]
fn every_mss_of_a_syn_with_two_is_lowered() {
    let mut packet = syn(tcp::FLAG_SYN, &[2, 4, 5, 0xb4, 1, 2, 4, 0x23, 0x28], b"");
    assert!(tcp::clamp_mss(&mut packet, 1300));
    assert_eq!(packet, syn(tcp::FLAG_SYN, &[2, 4, 5, 0x14, 1, 2, 4, 5, 0x14], b""));
}

proptest! {
    #[test]
    fn a_clamped_syn_has_the_lower_mss_and_the_right_checksum(
        before in prop::collection::vec(prop_oneof![Just(vec![1u8]), Just(vec![3, 3, 7]), Just(vec![4, 2])], 0..6),
        value: u16,
        clamp: u16,
        ack in prop_oneof![Just(0u8), Just(tcp::FLAG_ACK)],
        data in prop::collection::vec(any::<u8>(), 0..9),
    ) {
        let options = |mss: u16| {
            let [high, low] = mss.to_be_bytes();
            [before.concat(), vec![2, 4, high, low, 1]].concat()
        };
        let mut packet = syn(tcp::FLAG_SYN | ack, &options(value), &data);
        prop_assert_eq!(mss(&packet), Some(value));
        prop_assert_eq!(tcp::clamp_mss(&mut packet, clamp), value > clamp);
        prop_assert_eq!(mss(&packet), Some(value.min(clamp)));
        prop_assert!(checksum_ok(&packet));
        prop_assert_eq!(packet, syn(tcp::FLAG_SYN | ack, &options(value.min(clamp)), &data));
    }

    #[test]
    fn a_clamped_syn_with_a_wrong_checksum_stays_wrong(error in 1u16..0xffff, odd: bool) {
        let options: &[u8] = if odd { &[1, 2, 4, 5, 0xb4] } else { &[2, 4, 5, 0xb4] };
        let mut packet = syn(tcp::FLAG_SYN, options, b"");
        let [high, low] = error.to_be_bytes();
        packet[24 + 16] ^= high;
        packet[24 + 17] ^= low;
        prop_assume!(!checksum_ok(&packet));
        prop_assert!(tcp::clamp_mss(&mut packet, 1000));
        prop_assert!(!checksum_ok(&packet));
    }
}

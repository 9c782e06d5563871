use crate::model;
use core::net::Ipv4Addr;
use proptest::prelude::*;
use tandem_wire::icmp::{self, ErrorKind, NoReply};
use tandem_wire::ipv4;

const ROUTER: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);

fn message(kind: u8, code: u8, rest: &[u8]) -> Vec<u8> {
    let mut message = [&[kind, code, 0, 0][..], rest].concat();
    let sum = model::checksum(&message);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    message
}

fn packet(protocol: u8, payload: Vec<u8>) -> model::Ipv4 {
    model::Ipv4 {
        tos: 0x2e,
        id: 77,
        flags: 0,
        offset: 0,
        ttl: 9,
        protocol,
        source: 0x0a00_0001,
        destination: 0x0a00_0002,
        options: vec![],
        payload,
    }
}

fn echo_request() -> model::Ipv4 {
    packet(1, message(8, 0, &[0, 1, 0, 2, 0xaa, 0xbb, 0xcc]))
}

#[test]
fn each_packet_without_an_echo_reply_is_refused_by_its_name_and_unchanged() {
    let refused = |octets: Vec<u8>| {
        let mut copy = octets.clone();
        let why = icmp::echo_reply_in_place(&mut copy).unwrap_err();
        assert_eq!(copy, octets, "{why}");
        why
    };
    let changed = |change: fn(&mut model::Ipv4)| {
        let mut packet = echo_request();
        change(&mut packet);
        refused(packet.octets())
    };
    assert_eq!(refused(vec![0x45; 19]), NoReply::Ipv4(ipv4::ParseError::Truncated));
    let mut wrong_header = echo_request().octets();
    wrong_header[8] += 1;
    assert_eq!(refused(wrong_header), NoReply::HeaderChecksum);
    assert_eq!(changed(|p| p.protocol = 17), NoReply::NotEchoRequest);
    assert_eq!(changed(|p| p.flags = 1), NoReply::Fragment);
    assert_eq!(changed(|p| p.offset = 8), NoReply::Fragment);
    assert_eq!(changed(|p| p.options = vec![1; 4]), NoReply::Options);
    assert_eq!(changed(|p| p.source = 0xe000_0001), NoReply::Address);
    assert_eq!(changed(|p| p.source = 0), NoReply::Address);
    assert_eq!(changed(|p| p.destination = u32::MAX), NoReply::Address);
    assert_eq!(changed(|p| p.payload.truncate(7)), NoReply::NotEchoRequest);
    assert_eq!(changed(|p| p.payload = message(0, 0, &[0; 4])), NoReply::NotEchoRequest);
    assert_eq!(changed(|p| p.payload = message(8, 1, &[0; 4])), NoReply::NotEchoRequest);
    assert_eq!(changed(|p| p.payload[8] ^= 1), NoReply::Checksum);
}

#[test]
fn the_reply_to_a_request_of_zeros_has_a_right_checksum() {
    let mut octets = packet(1, message(8, 0, &[0; 20])).octets();
    assert_eq!(icmp::echo_reply_in_place(&mut octets), Ok(octets.len()));
    assert_eq!(octets[20..24], [0, 0, 0xff, 0xff]);
    assert_eq!(model::checksum(&octets[20..]), 0);
}

#[test]
fn no_error_is_built_about_what_rfc_1812_excludes() {
    let built = |change: fn(&mut model::Ipv4)| {
        let mut packet = packet(17, vec![0; 20]);
        change(&mut packet);
        let mut out = [0xee; icmp::MAX_ERROR_LEN];
        let len = icmp::build_error(ErrorKind::TimeExceeded, ROUTER, &packet.octets(), &mut out);
        assert!(len.is_some() || out == [0xee; icmp::MAX_ERROR_LEN]);
        len.is_some()
    };
    assert!(built(|_| ()));
    assert!(built(|p| p.flags = 1), "first fragment");
    assert!(!built(|p| p.offset = 8), "later fragment");
    assert!(!built(|p| p.destination = 0xe000_0005), "to multicast");
    assert!(!built(|p| p.destination = u32::MAX), "to broadcast");
    for source in [0u32, 0x7f00_0001, 0xe000_0001, 0xf000_0001, u32::MAX] {
        let mut packet = packet(17, vec![0; 20]);
        packet.source = source;
        let mut out = [0; icmp::MAX_ERROR_LEN];
        let len = icmp::build_error(ErrorKind::TimeExceeded, ROUTER, &packet.octets(), &mut out);
        assert_eq!(len, None, "source {source:#x}");
    }
    let mut wrong = packet(17, vec![0; 20]).octets();
    wrong[8] -= 1;
    assert_eq!(
        icmp::build_error(ErrorKind::TimeExceeded, ROUTER, &wrong, &mut [0; 576]),
        None,
        "wrong checksum"
    );
}

#[test]
fn errors_are_built_about_icmp_queries_only() {
    let about = |payload: Vec<u8>| {
        icmp::build_error(ErrorKind::TimeExceeded, ROUTER, &packet(1, payload).octets(), &mut [0; 576])
            .is_some()
    };
    let allowed: Vec<u8> = (0..=255).filter(|kind| about(message(*kind, 0, &[0; 4]))).collect();
    assert_eq!(allowed, [0, 8, 9, 10, 13, 14, 15, 16, 17, 18, 42, 43]);
    assert!(!about(vec![]), "a message without a type");
}

proptest! {
    #[test]
    fn an_echo_request_becomes_its_reply(
        request in model::ipv4(0..1),
        rest: [u8; 4],
        data in prop::collection::vec(any::<u8>(), 0..300),
        dont_fragment: bool,
        padding in 0usize..20,
    ) {
        let body = [&rest[..], &data].concat();
        let request = model::Ipv4 {
            protocol: 1,
            options: vec![],
            flags: u16::from(dont_fragment) << 1,
            payload: message(8, 0, &body),
            ..request
        };
        let reply = model::Ipv4 {
            ttl: 64,
            source: request.destination,
            destination: request.source,
            payload: message(0, 0, &body),
            ..request.clone()
        };
        let mut octets = request.octets();
        let len = octets.len();
        octets.resize(len + padding, 0xee);
        prop_assert_eq!(icmp::echo_reply_in_place(&mut octets), Ok(len));
        prop_assert_eq!(model::checksum(&octets[20..len]), 0);
        // The sum 0 has a second form, 0xffff.
        let mut expected = reply.octets();
        if expected[22..24] == [0, 0] {
            expected[22..24].fill(0xff);
        }
        prop_assert_eq!(&octets[..len], &expected[..]);
        prop_assert!(octets[len..].iter().all(|octet| *octet == 0xee));
    }

    #[test]
    fn an_error_goes_to_the_source_and_quotes_up_to_576_octets(
        offending in model::ipv4(8..1_200),
        mtu in prop::option::of(any::<u16>()),
        padding in 0usize..20,
    ) {
        let offending = model::Ipv4 { protocol: 17, ..offending };
        let whole = offending.octets();
        let padded = [&whole[..], &vec![0xdd; padding]].concat();
        let quote = &whole[..whole.len().min(548)];
        let (kind, header) = match mtu {
            None => (ErrorKind::TimeExceeded, vec![11, 0, 0, 0, 0, 0, 0, 0]),
            Some(mtu) => {
                let [high, low] = mtu.to_be_bytes();
                (ErrorKind::FragmentationNeeded { mtu }, vec![3, 4, 0, 0, 0, 0, high, low])
            }
        };
        let expected = model::Ipv4 {
            tos: 0xc0,
            id: 0,
            flags: 0,
            offset: 0,
            ttl: 64,
            protocol: 1,
            source: ROUTER.to_bits(),
            destination: offending.source,
            options: vec![],
            payload: message(header[0], header[1], &[&header[4..], quote].concat()),
        }
        .octets();

        let mut out = vec![0xee; 600];
        let len = icmp::build_error(kind, ROUTER, &padded, &mut out).unwrap();
        prop_assert!(len <= icmp::MAX_ERROR_LEN);
        prop_assert_eq!(&out[..len], &expected[..]);
        prop_assert!(out[len..].iter().all(|octet| *octet == 0xee));
        prop_assert_eq!(icmp::build_error(kind, ROUTER, &padded, &mut out[..len - 1]), None);
        prop_assert_eq!(icmp::build_error(kind, ROUTER, &out[..len], &mut [0; 576]), None, "about an error");
    }
}

use crate::model;
use core::net::Ipv4Addr;
use proptest::prelude::*;
use tandem_wire::arp::{self, ParseError, Request};
use tandem_wire::ethernet::{self, ETHERTYPE_ARP, MacAddr};

const STATION: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);
const OURS: MacAddr = MacAddr([0, 0, 0x5e, 0, 1, 7]);

fn request() -> Vec<u8> {
    vec![
        0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, 1, 10, 0, 0, 1, 0, 0, 0, 0, 0, 0, 10, 0, 0,
        9, // then padding
        0, 0, 0,
    ]
}

#[test]
fn a_request_is_read() {
    let expected = Request {
        sender_mac: STATION,
        sender_ip: Ipv4Addr::new(10, 0, 0, 1),
        target_ip: Ipv4Addr::new(10, 0, 0, 9),
    };
    assert_eq!(arp::parse_request(&request()), Some(expected));
}

#[test]
fn a_probe_from_nobody_is_a_request() {
    let mut probe = request();
    probe[14..18].fill(0);
    assert_eq!(arp::parse_request(&probe).map(|r| r.sender_ip), Some(Ipv4Addr::UNSPECIFIED));
}

#[test]
fn what_cannot_be_answered_is_no_request() {
    let refused = |what: &str, change: fn(&mut Vec<u8>)| {
        let mut payload = request();
        change(&mut payload);
        assert_eq!(arp::parse_request(&payload), None, "{what}");
    };
    refused("truncated", |p| p.truncate(27));
    refused("hardware type", |p| p[1] = 6);
    refused("protocol type", |p| p[2] = 0x86);
    refused("hardware length", |p| p[4] = 8);
    refused("protocol length", |p| p[5] = 16);
    refused("reply", |p| p[7] = 2);
    refused("operation 0x0101", |p| p[6] = 1);
    refused("sender is a group", |p| p[8] = 3);
    refused("sender is all zero", |p| p[8..14].fill(0));
    refused("sender address is multicast", |p| p[14] = 224);
    refused("sender address is loopback", |p| p[14] = 127);
}

#[test]
fn what_is_not_arp_for_ipv4_is_refused_by_its_name() {
    assert_eq!(arp::parse(&request()[..27]), Err(ParseError::Truncated));
    let mut other = request();
    other[4] = 8;
    assert_eq!(arp::parse(&other), Err(ParseError::Kind));
}

#[test]
fn a_frame_that_is_too_short_is_left_alone() {
    let mut frame = [0xee; arp::FRAME_LEN - 1];
    let request = arp::parse_request(&request()).unwrap();
    assert_eq!(arp::write_reply(&mut frame, &request, OURS), None);
    assert_eq!(arp::write_gratuitous(&mut frame, OURS, Ipv4Addr::new(10, 0, 0, 9)), None);
    assert_eq!(frame, [0xee; arp::FRAME_LEN - 1]);
}

proptest! {
    #[test]
    fn a_reply_answers_who_asked(mac: [u8; 6], sender in model::host(), target: u32, spare in 0usize..20) {
        let mac = [mac[0] & 0xfe | 2, mac[1], mac[2], mac[3], mac[4], mac[5]];
        let request = Request {
            sender_mac: MacAddr(mac),
            sender_ip: Ipv4Addr::from_bits(sender),
            target_ip: Ipv4Addr::from_bits(target),
        };
        let mut frame = vec![0xee; arp::FRAME_LEN + spare];
        prop_assert_eq!(arp::write_reply(&mut frame, &request, OURS), Some(42));
        prop_assert!(frame[42..].iter().all(|octet| *octet == 0xee));

        let (header, payload) = ethernet::parse(&frame).unwrap();
        prop_assert_eq!(*header, ethernet::Header::new(MacAddr(mac), OURS, ETHERTYPE_ARP));
        let reply = arp::parse(payload).unwrap();
        prop_assert_eq!(reply.operation.get(), arp::OPERATION_REPLY);
        prop_assert_eq!((reply.sender_mac, reply.sender_ip.get()), (OURS, target));
        prop_assert_eq!((reply.target_mac, reply.target_ip.get()), (MacAddr(mac), sender));
    }

    #[test]
    fn an_announcement_is_a_request_for_the_own_address_to_all(ip in model::host()) {
        let mut frame = [0; arp::FRAME_LEN];
        prop_assert_eq!(arp::write_gratuitous(&mut frame, OURS, Ipv4Addr::from_bits(ip)), Some(42));
        let (header, payload) = ethernet::parse(&frame).unwrap();
        prop_assert_eq!(*header, ethernet::Header::new(MacAddr::BROADCAST, OURS, ETHERTYPE_ARP));
        let request = arp::parse_request(payload).unwrap();
        prop_assert_eq!((request.sender_mac, request.sender_ip.to_bits()), (OURS, ip));
        prop_assert_eq!(request.target_ip.to_bits(), ip);
    }

    #[test]
    fn an_announcement_in_reply_form_names_the_same_station_to_all(ip in model::host()) {
        let mut frame = [0; arp::FRAME_LEN];
        prop_assert_eq!(arp::write_gratuitous_reply(&mut frame, OURS, Ipv4Addr::from_bits(ip)), Some(42));
        let (header, payload) = ethernet::parse(&frame).unwrap();
        prop_assert_eq!(*header, ethernet::Header::new(MacAddr::BROADCAST, OURS, ETHERTYPE_ARP));
        let reply = arp::parse(payload).unwrap();
        prop_assert_eq!(reply.operation.get(), arp::OPERATION_REPLY);
        prop_assert_eq!((reply.sender_mac, reply.sender_ip.get()), (OURS, ip));
        prop_assert_eq!(reply.target_ip.get(), ip);
    }

    #[test]
    fn a_question_is_one_that_can_be_answered(sender in model::host(), target in model::host()) {
        let mut frame = [0; arp::FRAME_LEN];
        let asked = (OURS, Ipv4Addr::from_bits(sender));
        prop_assert_eq!(arp::write_request(&mut frame, asked, Ipv4Addr::from_bits(target)), Some(42));
        let (header, payload) = ethernet::parse(&frame).unwrap();
        prop_assert_eq!(*header, ethernet::Header::new(MacAddr::BROADCAST, OURS, ETHERTYPE_ARP));
        let request = arp::parse_request(payload).unwrap();
        prop_assert_eq!((request.sender_mac, request.sender_ip.to_bits()), (OURS, sender));
        prop_assert_eq!(request.target_ip.to_bits(), target);
    }
}

#[test]
fn a_mac_address_is_printed_as_usual_and_its_kind_is_known() {
    assert_eq!(OURS.to_string(), "00:00:5e:00:01:07");
    assert!(OURS.is_unicast() && !OURS.is_group());
    assert!(MacAddr::BROADCAST.is_group() && !MacAddr::BROADCAST.is_unicast());
    assert!(!MacAddr::ZERO.is_unicast() && !MacAddr::ZERO.is_group());
}

#[test]
fn a_vlan_tag_is_read() {
    let (tag, rest) = ethernet::parse_vlan(&[0xaf, 0xfe, 8, 6, 1]).unwrap();
    assert_eq!((tag.id(), tag.ethertype.get(), rest), (0xffe, ETHERTYPE_ARP, &[1][..]));
    assert!(ethernet::parse_vlan(&[0, 1, 8]).is_err());
}

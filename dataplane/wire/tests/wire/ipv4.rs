use crate::model;
use core::net::Ipv4Addr;
use proptest::prelude::*;
use tandem_wire::ipv4::{self, Fields, Header, ParseError};

fn packet() -> Vec<u8> {
    model::Ipv4 {
        tos: 0,
        id: 1,
        flags: 0,
        offset: 0,
        ttl: 64,
        protocol: 17,
        source: 0x0a00_0001,
        destination: 0x0a00_0002,
        options: vec![1, 1, 1, 0],
        payload: vec![7; 30],
    }
    .octets()
}

#[test]
fn each_wrong_length_is_refused_by_its_name() {
    let good = packet();
    assert!(ipv4::parse(&good).is_ok());

    let changed = |change: fn(&mut Vec<u8>)| {
        let mut bad = good.clone();
        change(&mut bad);
        let read = ipv4::parse(&bad).map(|_| ()).unwrap_err();
        assert_eq!(ipv4::parse_mut(&mut bad).map(|_| ()).unwrap_err(), read);
        read
    };
    assert_eq!(changed(|p| p.truncate(19)), ParseError::Truncated);
    assert_eq!(changed(|p| p.truncate(23)), ParseError::Truncated);
    assert_eq!(changed(|p| p.truncate(53)), ParseError::TotalLength);
    assert_eq!(changed(|p| p[0] = 0x66), ParseError::Version);
    assert_eq!(changed(|p| p[0] = 0x44), ParseError::HeaderLength);
    assert_eq!(changed(|p| p[3] = 23), ParseError::TotalLength);
    assert_eq!(changed(|p| p[3] = 55), ParseError::TotalLength);
}

#[test]
fn source_validity_changes_exactly_at_the_edges_of_the_ranges() {
    let valid = |text: &str| ipv4::source_is_valid(text.parse::<Ipv4Addr>().unwrap().to_bits());
    for bad in [
        "0.0.0.0",
        "0.255.255.255",
        "127.0.0.0",
        "127.255.255.255",
        "224.0.0.0",
        "239.1.1.1",
        "240.0.0.0",
        "255.255.255.255",
    ] {
        assert!(!valid(bad), "{bad}");
    }
    for good in ["1.0.0.0", "126.255.255.255", "128.0.0.0", "223.255.255.255", "10.0.0.1"] {
        assert!(valid(good), "{good}");
    }
}

#[test]
fn groups_are_told_from_hosts() {
    let bits = |text: &str| text.parse::<Ipv4Addr>().unwrap().to_bits();
    assert!(ipv4::is_multicast(bits("224.0.0.0")) && ipv4::is_multicast(bits("239.255.255.255")));
    assert!(!ipv4::is_multicast(bits("223.255.255.255")) && !ipv4::is_multicast(bits("240.0.0.0")));
    assert!(ipv4::is_multicast_or_broadcast(u32::MAX) && ipv4::is_multicast_or_broadcast(bits("224.0.0.1")));
    assert!(!ipv4::is_multicast_or_broadcast(bits("255.255.255.254")));
}

#[test]
fn an_offset_beyond_the_field_leaves_the_flags_alone() {
    let mut octets = packet();
    let header = ipv4::parse_mut(&mut octets).unwrap().header;
    header.set_dont_fragment(true);
    header.set_fragment_offset(65_536 + 23);
    assert_eq!(
        (header.fragment_offset(), header.dont_fragment(), header.more_fragments()),
        (16, true, false)
    );
}

#[test]
fn a_ttl_of_zero_stays_zero() {
    let mut header = Header::new(&Fields {
        tos: 0,
        total_length: 20,
        identification: 0,
        dont_fragment: false,
        ttl: 0,
        protocol: 1,
        source: Ipv4Addr::LOCALHOST,
        destination: Ipv4Addr::LOCALHOST,
    });
    let before = header;
    ipv4::decrement_ttl(&mut header);
    assert_eq!(header, before);
}

proptest! {
    #[test]
    fn what_the_model_writes_is_read_back(
        model in model::ipv4(0..100),
        padding in 0usize..20,
        flags in 0u16..8,
        units in 0usize..0x2000,
    ) {
        let model = model::Ipv4 { flags, offset: units * 8, ..model };
        let mut octets = model.octets();
        let len = octets.len();
        octets.resize(len + padding, 0xee);

        let packet = ipv4::parse(&octets).unwrap();
        prop_assert!(packet.header_checksum_ok());
        prop_assert!(ipv4::header_checksum_ok(&octets));
        prop_assert_eq!(packet.header.tos, model.tos);
        prop_assert_eq!(packet.header.identification.get(), model.id);
        prop_assert_eq!(packet.header.dont_fragment(), flags & 2 != 0);
        prop_assert_eq!(packet.header.more_fragments(), flags & 1 != 0);
        prop_assert_eq!(packet.header.fragment_offset(), units * 8);
        prop_assert_eq!(packet.is_fragment(), flags & 1 != 0 || units != 0);
        prop_assert_eq!(packet.header.ttl, model.ttl);
        prop_assert_eq!(packet.header.protocol, model.protocol);
        prop_assert_eq!(packet.header.src(), model.source);
        prop_assert_eq!(packet.header.destination_addr().to_bits(), model.destination);
        prop_assert_eq!(packet.header.header_len(), 20 + model.options.len());
        prop_assert_eq!(packet.total_len(), len);
        prop_assert_eq!(packet.options, &model.options[..]);
        prop_assert_eq!(packet.payload, &model.payload[..]);

        let packet = ipv4::parse_mut(&mut octets).unwrap();
        prop_assert_eq!(&*packet.options, &model.options[..]);
        prop_assert_eq!(&*packet.payload, &model.payload[..]);
    }

    #[test]
    fn one_wrong_bit_in_the_header_is_noticed(model in model::ipv4(0..10), at: prop::sample::Index, bit in 0u8..8) {
        let mut octets = model.octets();
        // The length nibble decides how much is summed.
        let at = at.index(20 + model.options.len() - 1) + 1;
        octets[at] ^= 1 << bit;
        prop_assert!(!ipv4::header_checksum_ok(&octets));
        if let Ok(packet) = ipv4::parse(&octets) {
            prop_assert!(!packet.header_checksum_ok());
        }
    }

    #[test]
    fn a_written_header_is_the_models(model in model::ipv4(0..10), dont_fragment: bool, spare in 0usize..4) {
        let model = model::Ipv4 { options: vec![], flags: u16::from(dont_fragment) << 1, ..model };
        let fields = Fields {
            tos: model.tos,
            total_length: 20 + model.payload.len() as u16,
            identification: model.id,
            dont_fragment,
            ttl: model.ttl,
            protocol: model.protocol,
            source: Ipv4Addr::from_bits(model.source),
            destination: Ipv4Addr::from_bits(model.destination),
        };
        let mut out = vec![0xee; 20 + spare];
        prop_assert_eq!(ipv4::write_header(&mut out, &fields), Some(20));
        prop_assert_eq!(&out[..20], &model.octets()[..20]);
        prop_assert!(out[20..].iter().all(|octet| *octet == 0xee));
        prop_assert_eq!(ipv4::write_header(&mut out[..19], &fields), None);
    }

    #[test]
    fn setters_and_the_filled_checksum_give_the_models_header(
        before in model::ipv4(0..10),
        after in model::ipv4(0..10),
        flags in 0u16..4,
        units in 0usize..0x2000,
    ) {
        // Only what setters reach differs.
        let before = model::Ipv4 { payload: after.payload.clone(), options: after.options.clone(), ..before };
        let after = model::Ipv4 { flags, offset: units * 8, ..after };
        let mut octets = before.octets();
        let header = ipv4::parse_mut(&mut octets).unwrap().header;
        header.tos = after.tos;
        header.identification.set(after.id);
        header.set_dont_fragment(flags & 2 != 0);
        header.set_more_fragments(flags & 1 != 0);
        header.set_fragment_offset(after.offset);
        header.ttl = after.ttl;
        header.protocol = after.protocol;
        header.set_src(after.source);
        header.set_dst(after.destination);
        header.set_total_len(header.total_length.get());
        if after.options.is_empty() {
            header.fill_checksum();
            prop_assert_eq!(&octets, &after.octets());
        }
        ipv4::fill_checksum(&mut octets);
        prop_assert_eq!(octets, after.octets());
    }

    #[test]
    fn a_lower_ttl_keeps_the_checksum_right(model in model::ipv4(0..10)) {
        let mut octets = model.octets();
        ipv4::decrement_ttl(ipv4::parse_mut(&mut octets).unwrap().header);
        prop_assert_eq!(octets, model::Ipv4 { ttl: model.ttl.saturating_sub(1), ..model }.octets());
    }

    #[test]
    fn a_lower_ttl_keeps_a_wrong_checksum_wrong(model in model::ipv4(0..10), error in 1u16..0xffff) {
        let mut octets = model.octets();
        let header = ipv4::parse_mut(&mut octets).unwrap().header;
        let wrong = header.checksum.get() ^ error;
        header.checksum.set(wrong);
        prop_assume!(!ipv4::header_checksum_ok(&octets));
        ipv4::decrement_ttl(ipv4::parse_mut(&mut octets).unwrap().header);
        prop_assert!(!ipv4::header_checksum_ok(&octets));
    }
}

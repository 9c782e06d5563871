use crate::model;
use proptest::prelude::*;
use tandem_wire::fragment::{self, PlanError};
use tandem_wire::ipv4;

/// Cuts `packet` with the crate.
fn cut(packet: &[u8], mtu: usize) -> Result<Vec<Vec<u8>>, PlanError> {
    let packet = ipv4::parse(packet).unwrap();
    let pieces = fragment::plan(&packet, mtu)?;
    Ok(pieces
        .map(|piece| {
            let mut out = vec![0xee; piece.total_len() + 3];
            assert_eq!(fragment::write(&packet, &piece, &mut out[..piece.total_len() - 1]), None);
            assert_eq!(fragment::write(&packet, &piece, &mut out), Some(piece.total_len()));
            assert_eq!(out.split_off(piece.total_len()), [0xee; 3]);
            out
        })
        .collect())
}

/// Puts fragments together in any order (RFC 791 section 3.2): what the destination would see. Header
/// fields are those of the first fragment. Gaps, overlaps and a missing last piece fail.
fn reassemble(pieces: &[Vec<u8>]) -> Vec<u8> {
    let mut pieces: Vec<_> = pieces.iter().map(|piece| ipv4::parse(piece).unwrap()).collect();
    pieces.sort_by_key(|piece| piece.header.fragment_offset());
    let mut payload = Vec::new();
    for (index, piece) in pieces.iter().enumerate() {
        assert!(piece.header_checksum_ok());
        assert_eq!(piece.header.fragment_offset(), payload.len(), "gap or overlap");
        assert_eq!(piece.header.more_fragments(), index + 1 < pieces.len());
        payload.extend(piece.payload);
    }
    let first = pieces[0];
    model::Ipv4 {
        tos: first.header.tos,
        id: first.header.identification.get(),
        flags: 0,
        offset: 0,
        ttl: first.header.ttl,
        protocol: first.header.protocol,
        source: first.header.src(),
        destination: first.header.dst(),
        options: first.options.to_vec(),
        payload,
    }
    .octets()
}

/// The options of `list` that later fragments have to carry.
fn copied(list: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = list.iter().filter(|option| option[0] & 0x80 != 0).flatten().copied().collect::<Vec<_>>();
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

fn packet(options: Vec<u8>, payload: usize) -> model::Ipv4 {
    model::Ipv4 {
        tos: 0,
        id: 4,
        flags: 0,
        offset: 0,
        ttl: 64,
        protocol: 17,
        source: 0x0a00_0001,
        destination: 0x0a00_0002,
        options,
        payload: (0..payload).map(|octet| octet as u8).collect(),
    }
}

#[test]
fn a_packet_that_fits_is_one_unchanged_piece() {
    for payload in [0, 1, 80] {
        let octets = packet(vec![], payload).octets();
        assert_eq!(cut(&octets, 100), Ok(vec![octets.clone()]), "{payload} octets");
        assert_eq!(cut(&octets, octets.len()), Ok(vec![octets.clone()]), "{payload} octets");
    }
    // DF and options that do not hold together do not matter then.
    let odd = model::Ipv4 { flags: 2, ..packet(vec![7, 1, 0, 0], 10) }.octets();
    assert_eq!(cut(&odd, 100), Ok(vec![odd.clone()]));
}

#[test]
fn what_cannot_be_cut_is_refused_by_its_name() {
    let refused = |packet: model::Ipv4, mtu| cut(&packet.octets(), mtu).unwrap_err();
    assert_eq!(refused(model::Ipv4 { flags: 2, ..packet(vec![], 100) }, 100), PlanError::DontFragment);
    assert_eq!(refused(packet(vec![], 100), 27), PlanError::Mtu);
    assert_eq!(refused(packet(vec![1; 40], 100), 67), PlanError::Mtu);
    assert_eq!(refused(packet(vec![7, 1, 0, 0], 100), 100), PlanError::Options);
    assert_eq!(refused(packet(vec![7, 5, 0, 0], 100), 100), PlanError::Options);
    assert_eq!(refused(packet(vec![1, 1, 1, 7], 100), 100), PlanError::Options);
    assert_eq!(refused(model::Ipv4 { offset: 65_440, ..packet(vec![], 96) }, 100), PlanError::TooLong);
    assert!(cut(&model::Ipv4 { offset: 65_440, ..packet(vec![], 95) }.octets(), 100).is_ok());
}

#[test]
fn the_smallest_mtu_carries_the_longest_header_eight_octets_at_a_time() {
    let octets = packet(vec![1; 40], 100).octets();
    let pieces = cut(&octets, 68).unwrap();
    assert_eq!(pieces[0].len(), 68);
    assert_eq!(pieces[1].len(), 68, "without options there is room for 48 octets");
    assert_eq!(reassemble(&pieces), octets);
}

#[test]
fn a_piece_of_another_packet_is_not_written() {
    let long = packet(vec![], 200).octets();
    let pieces: Vec<_> = fragment::plan(&ipv4::parse(&long).unwrap(), 100).unwrap().collect();
    let short = packet(vec![], 100).octets();
    let with_options = packet(vec![0x94, 4, 0, 0], 200).octets();
    for other in [short, with_options] {
        let other = ipv4::parse(&other).unwrap();
        assert_eq!(fragment::write(&other, pieces.last().unwrap(), &mut [0; 300]), None);
    }
}

#[test]
fn only_the_first_piece_of_a_packet_can_be_kept() {
    let mut octets = packet(vec![], 200).octets();
    let before = octets.clone();
    let pieces: Vec<_> = fragment::plan(&ipv4::parse(&octets).unwrap(), 100).unwrap().collect();
    assert_eq!(fragment::keep_first(&mut octets, &pieces[1]), None);
    assert_eq!(fragment::keep_first(&mut octets[..60], &pieces[0]), None);
    assert_eq!(octets, before);
}

proptest! {
    #[test]
    fn fragments_reassemble_to_the_packet(
        model in model::ipv4(0..1),
        (options, list) in model::options(),
        payload in prop::collection::vec(any::<u8>(), 0..9_000),
        mtu in 68usize..=1_500,
    ) {
        let model = model::Ipv4 { options, payload, ..model };
        let octets = model.octets();
        let pieces = cut(&octets, mtu).unwrap();
        for (index, piece) in pieces.iter().enumerate() {
            prop_assert!(piece.len() <= mtu);
            let piece = ipv4::parse(piece).unwrap();
            let options = if index == 0 { model.options.clone() } else { copied(&list) };
            prop_assert_eq!(piece.options, &options[..]);
            if index + 1 < pieces.len() {
                prop_assert_eq!(piece.payload.len() % 8, 0);
                // Not more pieces than needed.
                prop_assert!(piece.total_len() + 8 > mtu);
            }
        }
        prop_assert_eq!(reassemble(&pieces), octets);
    }

    #[test]
    fn fragments_of_fragments_reassemble_to_the_packet(
        model in model::ipv4(0..5_000),
        mtu in 500usize..=1_500,
        smaller in prop::collection::vec(68usize..=1_500, 1..4),
    ) {
        let octets = model.octets();
        let mut pieces = cut(&octets, mtu).unwrap();
        for mtu in smaller {
            pieces = pieces.iter().flat_map(|piece| cut(piece, mtu).unwrap()).collect();
        }
        pieces.reverse();
        prop_assert_eq!(reassemble(&pieces), octets);
    }

    #[test]
    fn the_first_piece_kept_in_place_is_the_one_written(
        model in model::ipv4(1..3_000),
        mtu in 68usize..=1_500,
        units in 0usize..100,
        more in 0u16..2,
    ) {
        let model = model::Ipv4 { offset: units * 8, flags: more, ..model };
        let mut octets = model.octets();
        let written = cut(&octets, mtu).unwrap();
        let first = fragment::plan(&ipv4::parse(&octets).unwrap(), mtu).unwrap().next().unwrap();
        let len = fragment::keep_first(&mut octets, &first).unwrap();
        prop_assert_eq!(&octets[..len], &written[0][..]);
    }
}

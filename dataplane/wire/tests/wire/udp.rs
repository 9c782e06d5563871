use crate::model;
use proptest::prelude::*;
use tandem_wire::esp::{self, InUdp};
use tandem_wire::{Truncated, udp};

#[test]
fn a_length_field_outside_of_the_payload_is_refused() {
    let datagram = [0, 1, 0, 2, 0, 10, 0, 0, 0xaa, 0xbb, 0xcc];
    assert_eq!(udp::parse(&datagram).unwrap().data, [0xaa, 0xbb]);
    for length in [0, 7, 12] {
        let mut bad = datagram;
        bad[5] = length;
        assert_eq!(udp::parse(&bad).map(|_| ()), Err(Truncated), "length {length}");
    }
    assert_eq!(udp::parse(&datagram[..7]).map(|_| ()), Err(Truncated));
}

#[test]
fn a_datagram_without_a_checksum_is_accepted_and_one_with_a_wrong_one_is_not() {
    let none = [0, 1, 0, 2, 0, 9, 0, 0, 0xaa];
    assert!(udp::parse(&none).unwrap().checksum_ok(1, 2));
    let wrong = [0, 1, 0, 2, 0, 9, 0, 1, 0xaa];
    assert!(!udp::parse(&wrong).unwrap().checksum_ok(1, 2));
}

#[test]
fn a_sum_of_zero_is_sent_as_all_ones() {
    // Data chosen so that everything adds up to 0xffff: then the complement is 0.
    let mut datagram = [0; 10];
    udp::write_header(&mut datagram, 0, 0, 0, 0).unwrap();
    let missing = u16::from_be_bytes([datagram[6], datagram[7]]);
    datagram[8..].copy_from_slice(&missing.to_be_bytes());
    udp::write_header(&mut datagram, 0, 0, 0, 0).unwrap();
    assert_eq!(datagram[6..8], [0xff, 0xff]);
    assert!(udp::parse(&datagram).unwrap().checksum_ok(0, 0));
}

#[test]
fn data_on_port_4500_is_told_apart() {
    assert_eq!(esp::parse_in_udp(&[0xff]), Ok(InUdp::Keepalive));
    assert_eq!(esp::parse_in_udp(&[0, 0, 0, 0, 9, 8]), Ok(InUdp::Ike(&[9, 8])));
    let packet = [0, 0, 1, 0, 0, 0, 0, 1];
    assert_eq!(esp::parse_in_udp(&packet), Ok(InUdp::Esp(&packet)));
    for bad in [&packet[..7], &[], &[0xfe], &[0, 0, 0]] {
        assert_eq!(esp::parse_in_udp(bad), Err(Truncated), "{bad:?}");
    }
}

proptest! {
    #[test]
    fn what_is_written_is_read_back_with_the_models_checksum(
        ports: (u16, u16),
        addresses: (u32, u32),
        data in prop::collection::vec(any::<u8>(), 0..200),
        padding in 0usize..10,
    ) {
        let mut datagram = [&[0; 8][..], &data].concat();
        udp::write_header(&mut datagram, addresses.0, addresses.1, ports.0, ports.1).unwrap();

        let mut summed = model::pseudo_header(addresses.0, addresses.1, 17, datagram.len());
        summed.extend(&datagram);
        prop_assert_eq!(model::checksum(&summed), 0);

        datagram.resize(datagram.len() + padding, 0xee);
        prop_assert_eq!(udp::ports(&datagram), Some(ports));
        let read = udp::parse(&datagram).unwrap();
        prop_assert_eq!(read.data, &data[..]);
        prop_assert!(read.checksum_ok(addresses.0, addresses.1));
        prop_assert!(!read.checksum_ok(addresses.0 ^ 1, addresses.1));
    }
}

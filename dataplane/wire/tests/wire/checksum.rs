use crate::model;
use proptest::prelude::*;
use tandem_wire::checksum::{Checksum, pseudo_header, sum, sum_20, update};

#[test]
fn the_example_of_rfc_1071_sums_to_ddf2() {
    assert_eq!(sum(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]), 0xddf2);
}

#[test]
fn the_example_of_rfc_1624_keeps_the_zero_that_rfc_1141_loses() {
    assert_eq!(update(0xdd2f, 0x5555, 0x3285), 0x0000);
}

#[test]
fn the_longest_packet_of_ones_does_not_lose_a_carry() {
    assert_eq!(Checksum::new().bytes(&[0xff; 65_535]).finish(), model::checksum(&[0xff; 65_535]));
}

#[test]
fn an_incremental_update_carries_at_every_edge() {
    const EDGES: [u16; 8] = [0, 1, 2, 0x7fff, 0x8000, 0xfffd, 0xfffe, 0xffff];
    for rest in EDGES.iter().filter(|rest| **rest != 0) {
        for old in EDGES {
            for new in EDGES {
                let octets = |word: u16| [word.to_be_bytes(), rest.to_be_bytes()].concat();
                let before = model::checksum(&octets(old));
                assert_eq!(
                    update(before, old, new),
                    model::checksum(&octets(new)),
                    "{rest:#x} {old:#x} {new:#x}"
                );
            }
        }
    }
}

proptest! {
    #[test]
    fn every_length_agrees_with_the_plain_model(octets in prop::collection::vec(any::<u8>(), 0..2_000)) {
        prop_assert_eq!(Checksum::new().bytes(&octets).finish(), model::checksum(&octets));
    }

    #[test]
    fn twenty_octets_agree_with_the_plain_model(octets: [u8; 20]) {
        prop_assert_eq!(!sum_20(&octets), model::checksum(&octets));
    }

    #[test]
    fn pieces_add_up_to_the_whole(octets in prop::collection::vec(any::<u8>(), 0..200), cut in 0usize..100) {
        let (a, b) = octets.split_at((cut * 2).min(octets.len() & !1));
        prop_assert_eq!(Checksum::new().bytes(a).bytes(b).finish(), model::checksum(&octets));
    }

    #[test]
    fn words_add_up_like_their_octets(a: u16, b: u32) {
        let octets = [&a.to_be_bytes()[..], &b.to_be_bytes()].concat();
        prop_assert_eq!(Checksum::new().word(a).double_word(b).finish(), model::checksum(&octets));
    }

    #[test]
    fn the_pseudo_header_adds_up_like_its_octets(source: u32, destination: u32, protocol: u8, len: u16) {
        let octets = model::pseudo_header(source, destination, protocol, usize::from(len));
        prop_assert_eq!(pseudo_header(source, destination, protocol, len).finish(), model::checksum(&octets));
    }

    #[test]
    fn an_incremental_update_equals_a_new_sum(
        mut octets in prop::collection::vec(any::<u8>(), 2..100),
        word: prop::sample::Index,
        new: u16,
    ) {
        // A header is never all zero, which is the only sum with two forms.
        octets.push(1);
        let at = word.index(octets.len() / 2) * 2;
        let before = model::checksum(&octets);
        let old = u16::from_be_bytes([octets[at], octets[at + 1]]);
        octets[at..at + 2].copy_from_slice(&new.to_be_bytes());
        prop_assert_eq!(update(before, old, new), model::checksum(&octets));
    }
}

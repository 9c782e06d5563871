use super::*;
use crate::sa::Way;
use proptest::prelude::*;

const ID: [u8; 16] = [7; 16];

fn sa(number: u8) -> SaKey {
    let way = if number.is_multiple_of(2) { Way::In } else { Way::Out };
    SaKey { way, spi: 256 + u32::from(number), fingerprint: u64::from(number) << 56 | 5 }
}

fn loaded(bytes: &[u8]) -> Read {
    read(Some(bytes), ID, true).unwrap()
}

/// A file as the keeper writes it: an image, then batches. Gives it with the length after each batch.
fn file(image: &Numbers, batches: &[Vec<(u8, u64)>]) -> (Vec<u8>, Vec<usize>) {
    let mut bytes = image.image();
    let mut lengths = vec![bytes.len()];
    for batch in batches {
        let entries: Vec<_> = batch.iter().map(|(number, value)| (sa(*number), *value)).collect();
        bytes.extend(encode_batch(&ID, bytes.len() as u64, &entries));
        lengths.push(bytes.len());
    }
    (bytes, lengths)
}

fn after(image: &Numbers, batches: &[Vec<(u8, u64)>]) -> Numbers {
    let mut numbers = image.clone();
    for (number, value) in batches.iter().flatten() {
        numbers.record(sa(*number), *value);
    }
    numbers
}

/// Is nothing said to be lower, or less used, than `reported`?
fn holds(read: &Read, reported: &Numbers) -> bool {
    (0..16).all(|number| match (reported.lookup(&sa(number)), read.numbers.lookup(&sa(number))) {
        (_, Known::Lost) | (Known::Never, _) => true,
        (Known::UpTo(reported), Known::UpTo(read)) => read >= reported,
        _ => false,
    })
}

fn batches() -> impl Strategy<Value = Vec<Vec<(u8, u64)>>> {
    prop::collection::vec(prop::collection::vec((0u8..8, any::<u64>()), 1..4), 1..6)
}

fn images() -> impl Strategy<Value = Numbers> {
    (prop::collection::vec((0u8..8, any::<u64>()), 0..4), prop::collection::vec(8u8..12, 0..3)).prop_map(
        |(values, lost)| {
            let mut numbers = Numbers::lost(ID);
            values.into_iter().for_each(|(number, value)| numbers.record(sa(number), value));
            numbers.settle(lost.into_iter().map(sa));
            numbers
        },
    )
}

proptest! {
    #[test]
    fn a_file_says_the_highest_number_of_each_sa_in_any_order(image in images(), batches in batches()) {
        let (bytes, _) = file(&image, &batches);
        let read = loaded(&bytes);
        prop_assert_eq!((read.loss, read.torn), (None, 0));
        prop_assert_eq!(&read.numbers, &after(&image, &batches));
        let backwards: Vec<_> = batches.iter().rev().cloned().collect();
        prop_assert_eq!(&loaded(&file(&image, &backwards).0).numbers, &read.numbers);
        prop_assert_eq!(loaded(&read.numbers.image()).numbers, read.numbers);
    }

    #[test]
    fn a_tail_torn_at_any_octet_loses_nothing_that_was_synced(
        image in images(), batches in batches(), junk in prop::collection::vec(any::<u8>(), 0..90),
    ) {
        let (bytes, lengths) = file(&image, &batches);
        for cut in lengths[0]..=bytes.len() {
            // Batches that are whole below the cut were synced; the cut one was not.
            let synced = lengths.iter().filter(|length| **length <= cut).count() - 1;
            let reported = after(&image, &batches[..synced]);
            let mut torn = bytes[..cut].to_vec();
            let read = loaded(&torn);
            prop_assert!(holds(&read, &reported), "cut at {}: {:?}", cut, read);
            prop_assert_eq!(read.loss, None);
            // Blocks of which only the size arrived read as zeros, or as anything.
            torn.extend_from_slice(&junk);
            let read = loaded(&torn);
            prop_assert!(holds(&read, &reported) && read.loss.is_none(), "cut at {}: {:?}", cut, read);
        }
    }

    #[test]
    fn entries_of_the_last_batch_may_arrive_in_any_order(image in images(), batches in batches(), hole in any::<usize>()) {
        let (mut bytes, lengths) = file(&image, &batches);
        let start = lengths[lengths.len() - 2];
        let hole = start + (hole % ((bytes.len() - start) / ENTRY)) * ENTRY;
        bytes[hole..hole + ENTRY].fill(0);
        let read = loaded(&bytes);
        prop_assert_eq!(read.loss, None);
        // Zeros at the end are room for entries to come.
        prop_assert_eq!(read.torn, content(&bytes).len().saturating_sub(hole));
        prop_assert!(holds(&read, &after(&image, &batches[..batches.len() - 1])));
    }

    #[test]
    fn a_flipped_bit_never_lowers_a_number_of_a_batch_that_another_one_followed(
        image in images(), batches in batches(), at in any::<usize>(), bit in 0u8..8,
    ) {
        let (mut bytes, lengths) = file(&image, &batches);
        let at = at % bytes.len();
        bytes[at] ^= 1 << bit;
        // A checksum of 64 bits does not pass by chance; a header of another version has a right one.
        let read = loaded(&bytes);
        prop_assert!(holds(&read, &after(&image, &batches[..batches.len() - 1])), "{:?}", read);
        // The last batch alone looks like one that was torn.
        prop_assert_eq!(read.loss.is_some(), at < lengths[lengths.len() - 2]);
        if read.loss.is_some() {
            prop_assert_eq!(read.numbers.lookup(&sa(200)), Known::Lost);
            prop_assert!((0..12).all(|number| !matches!(read.numbers.lookup(&sa(number)), Known::UpTo(_))));
        }
    }

    #[test]
    fn any_octets_can_be_read(junk in prop::collection::vec(any::<u8>(), 0..300)) {
        let read = loaded(&junk);
        prop_assert_eq!(read.loss, Some(Loss::Damaged));
    }
}

#[test]
fn a_file_that_is_missing_is_lost_only_on_a_node_that_has_carried_traffic() {
    let fresh = read(None, ID, false).unwrap();
    assert_eq!((fresh.numbers.lookup(&sa(1)), fresh.loss), (Known::Never, None));
    let gone = read(None, ID, true).unwrap();
    assert_eq!((gone.numbers.lookup(&sa(1)), gone.loss), (Known::Lost, Some(Loss::Missing)));
}

#[test]
fn a_file_of_another_term_file_is_lost_and_the_keys_it_names_stay_so() {
    let mut numbers = Numbers::new([1; 16]);
    numbers.record(sa(1), 5);
    let mut read = loaded(&numbers.image());
    assert_eq!(read.loss, Some(Loss::Other));
    read.numbers.settle([sa(2)]);
    let read = loaded(&read.numbers.image());
    let known = [1, 2, 3].map(|number| read.numbers.lookup(&sa(number)));
    assert_eq!((known, read.loss), ([Known::Lost, Known::Lost, Known::Never], None));
}

#[test]
fn what_is_lost_stays_down_until_its_number_is_told_and_later_keys_are_free() {
    let mut numbers = Numbers::lost(ID);
    // Ended before it had heard of its SAs: still lost.
    let read = loaded(&numbers.image());
    assert_eq!((read.loss, read.numbers.is_lost()), (Some(Loss::Unsettled), true));
    numbers.record(sa(3), 9);
    numbers.settle([sa(1), sa(2), sa(3)]);
    numbers.settle([sa(4)]);
    let mut bytes = numbers.image();
    let read = loaded(&bytes);
    let known = [1, 2, 3, 4].map(|number| read.numbers.lookup(&sa(number)));
    assert_eq!(known, [Known::Lost, Known::Lost, Known::UpTo(9), Known::Never]);
    bytes.extend(encode_batch(&ID, bytes.len() as u64, &[(sa(2), 70)]));
    let read = loaded(&bytes);
    assert_eq!(read.numbers.lookup(&sa(1)), Known::Lost);
    assert_eq!(read.numbers.lookup(&sa(2)), Known::UpTo(70));
}

#[test]
fn a_file_of_another_version_is_not_taken_for_a_lost_one() {
    use sha2::{Digest, Sha256};
    let mut bytes = Numbers::new(ID).image();
    bytes[11] = 2;
    let check = Sha256::digest(&bytes[..HEADER - 8]);
    bytes[HEADER - 8..HEADER].copy_from_slice(&check[..8]);
    assert_eq!(read(Some(&bytes), ID, true), Err(OtherVersion));
}

//! No sequence of crashes makes a term come twice.

use proptest::prelude::*;
use std::collections::HashSet;
use tandem_lease::{DecodeError, NodeNumber, TermError, TermFile, Terms};

/// What a start can meet. A write goes to a temporary file first, is synced, then renamed; a crash on the
/// way leaves the old file. Torn files are tried as well, for file systems that lie.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// Takes a term at start; the file is written; the term is used.
    Start,
    /// As `Start`, with a crash before the file is written: the term is never used.
    CrashBeforeWrite,
    /// As `Start`, with a crash after the file is written and before the term is used.
    CrashAfterWrite,
    /// Opens the pool for takeovers (the file is written).
    Open,
    /// Takeover: takes a reserved term at once, above what was heard, and uses it. Nothing is written.
    TakeOver(u8),
    /// Notes the last term taken (after a takeover).
    Note,
    /// A reign of either node, so far above what was heard of, is noted.
    Reign(u8),
    /// The memory is gone: the next one gets a new incarnation, which is written first.
    Incarnation,
    /// Only part of a write arrives, the process dies.
    Torn(u8),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        Just(Step::Start),
        Just(Step::CrashBeforeWrite),
        Just(Step::CrashAfterWrite),
        Just(Step::Open),
        any::<u8>().prop_map(Step::TakeOver),
        Just(Step::Note),
        any::<u8>().prop_map(Step::Reign),
        Just(Step::Incarnation),
        any::<u8>().prop_map(Step::Torn),
    ]
}

/// The terms that sealed packets.
struct Used {
    node: NodeNumber,
    seen: HashSet<u64>,
    highest: u64,
}

impl Used {
    fn take(&mut self, term: u64) -> Result<(), TestCaseError> {
        prop_assert!(self.node.owns(term), "{term} is not of {:?}", self.node);
        prop_assert!(self.seen.insert(term), "{term} came twice");
        prop_assert!(term > self.highest, "{term} after {}", self.highest);
        self.highest = term;
        Ok(())
    }
}

proptest! {
    #[test]
    fn a_term_never_comes_twice_and_only_grows(node in 0u8..2, steps in prop::collection::vec(step(), 0..200)) {
        let node = NodeNumber::from_number(node).unwrap();
        let mut disk = TermFile::new([7; 16], node).encode().into_bytes();
        let mut memory: Option<Terms> = None;
        let mut used = Used { node, seen: HashSet::new(), highest: 0 };
        let mut incarnation = 0;
        for step in steps {
            let file = TermFile::decode(&disk).expect("the file on disk is whole");
            match step {
                Step::Start => {
                    memory = None;
                    let (term, next) = file.take_at_start().unwrap();
                    disk = next.encode().into_bytes();
                    used.take(term)?;
                }
                Step::CrashBeforeWrite => {
                    file.take_at_start().unwrap();
                    memory = None;
                }
                Step::CrashAfterWrite => {
                    disk = file.take_at_start().unwrap().1.encode().into_bytes();
                    memory = None;
                }
                Step::Open => {
                    let (next, terms) = file.open().unwrap();
                    disk = next.encode().into_bytes();
                    memory = Some(terms);
                }
                Step::TakeOver(ahead) => {
                    let heard = file.taken() + u64::from(ahead) / 8;
                    if let Some(terms) = &mut memory {
                        match terms.take(heard) {
                            Ok(term) => used.take(term)?,
                            Err(error) => prop_assert_eq!(error, TermError::NotReserved),
                        }
                    }
                }
                Step::Note => {
                    // Through a decode of its own, as a restarted process would.
                    if let Some(next) = file.reserve_above(used.highest).unwrap() {
                        disk = next.encode().into_bytes();
                    }
                }
                Step::Reign(ahead) => {
                    let term = file.reign() + u64::from(ahead) / 32;
                    if let Some(next) = file.note_reign(term).unwrap() {
                        prop_assert!(next.reign() == term && next.taken() >= term && next.left() >= 16);
                        disk = next.encode().into_bytes();
                    }
                }
                Step::Incarnation => {
                    memory = None;
                    let (new, next) = file.next_incarnation(0).unwrap();
                    prop_assert!(new > incarnation);
                    incarnation = new;
                    disk = next.encode().into_bytes();
                }
                Step::Torn(part) => {
                    memory = None;
                    let next = file.take_at_start().unwrap().1.encode().into_bytes();
                    let cut = usize::from(part) % next.len();
                    // Cut short, or the head of the new file on the tail of the old one.
                    prop_assert!(TermFile::decode(&next[..cut]).is_err());
                    let mut mixed = next[..cut].to_vec();
                    mixed.extend_from_slice(disk.get(cut..).unwrap_or_default());
                    if let Ok(seen) = TermFile::decode(&mixed) {
                        prop_assert!(mixed == disk || mixed == next, "{seen:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn hostile_octets_never_panic_and_a_changed_one_is_always_seen(
        junk in prop::collection::vec(any::<u8>(), 0..300), at in any::<usize>(), change in 1u8..=255,
    ) {
        let _ = TermFile::decode(&junk);
        let mut bytes = TermFile::new([9; 16], NodeNumber::Zero).encode().into_bytes();
        let at = at % bytes.len();
        bytes[at] ^= change;
        prop_assert!(TermFile::decode(&bytes).is_err());
    }
}

#[test]
fn a_lone_gateway_uses_one_term_a_start_and_keeps_sixteen_ahead() {
    let mut file = TermFile::new([1; 16], NodeNumber::Zero);
    assert_eq!((file.taken(), file.left(), file.alarm()), (0, 16, false));
    for start in 1..=40 {
        let (term, next) = file.take_at_start().unwrap();
        assert_eq!(term, 2 * start);
        assert_eq!(next.left(), 16);
        file = next;
    }
}

#[test]
fn a_crash_with_an_open_pool_skips_all_that_was_reserved() {
    let (file, mut terms) = TermFile::new([1; 16], NodeNumber::One).open().unwrap();
    assert_eq!(terms.take(0), Ok(1));
    assert_eq!(terms.take(8), Ok(9));
    let (term, _) = file.take_at_start().unwrap();
    assert!(term > file.reserved(), "{term}");
    while terms.left() >= 4 {
        assert!(!terms.alarm());
        terms.take(0).unwrap();
    }
    assert!(terms.alarm());
    while terms.left() > 0 {
        terms.take(0).unwrap();
    }
    assert_eq!(terms.take(0), Err(TermError::NotReserved));
}

#[test]
fn an_old_copy_of_the_file_is_lifted_above_the_term_that_the_hot_state_holds() {
    let old = TermFile::new([1; 16], NodeNumber::Zero);
    let lifted = old.reserve_above(100).unwrap().expect("the file does not know it");
    assert_eq!(lifted.take_at_start().unwrap().0, 102);
    assert_eq!(lifted.reserve_above(100), Ok(None));
    assert_eq!(lifted.reserve_above(u64::MAX), Err(TermError::Exhausted));
}

#[test]
fn other_versions_and_long_files_are_told_apart() {
    assert_eq!(TermFile::decode(b"tandem-terms 3\n"), Err(DecodeError::OtherVersion));
    assert_eq!(TermFile::decode(&[b'x'; 2000]), Err(DecodeError::TooLong));
    assert_eq!(TermFile::decode(b""), Err(DecodeError::Damaged));
}

//! Terms of two nodes: whatever happens to files, keys and machines, no term is used by two memories.

use proptest::prelude::*;
use std::collections::HashSet;
use tandem_lease::{DecodeError, NodeNumber, Pool, PublicKey, TermError, TermFile, Terms};

const A: PublicKey = [1; 32];
const B: PublicKey = [2; 32];

fn reread(file: &TermFile) -> TermFile {
    TermFile::decode(file.encode().as_bytes()).unwrap()
}

/// Both tell each other what they know, and pair.
fn session(left: &mut Machine, right: &mut Machine) {
    let (of_left, of_right) = (left.file.highest(&right.key), right.file.highest(&left.key));
    left.pair(right.key, of_right);
    right.pair(left.key, of_left);
}

/// A node: key, file on disk, and the terms that its memory holds.
struct Machine {
    key: PublicKey,
    file: TermFile,
    terms: Option<(NodeNumber, Terms)>,
}

impl Machine {
    fn new(key: PublicKey) -> Self {
        Self { key, file: TermFile::new([key[0]; 16], NodeNumber::Zero), terms: None }
    }

    fn pair(&mut self, partner: PublicKey, highest: [u64; 2]) {
        let node = NodeNumber::of_keys(&self.key, &partner).unwrap();
        // A memory that runs keeps its terms, also those of the other parity.
        if let Some(next) = self.file.pair(&partner, node, highest).unwrap() {
            self.file = reread(&next);
        }
        assert!(self.file.eligible(Some(&partner), node));
        assert_eq!(self.file.pair(&partner, node, highest), Ok(None), "paired already");
    }

    /// Starts the memory anew, if the node may be active beside this partner.
    fn start(&mut self, partner: PublicKey) {
        let node = NodeNumber::of_keys(&self.key, &partner).unwrap();
        self.terms = None;
        if self.file.eligible(Some(&partner), node) {
            let (file, terms) = self.file.open().unwrap();
            self.file = reread(&file);
            self.terms = Some((node, terms));
        }
    }

    /// Takes over, knowing of no term but its own.
    fn take(&mut self) -> Option<u64> {
        match self.terms.as_mut()?.1.take(0) {
            Ok(term) => Some(term),
            Err(error) => {
                assert_eq!(error, TermError::NotReserved);
                None
            }
        }
    }

    /// Notes a reign, and grants its memory what is reserved then, if the node is eligible, and its memory has
    /// the parity of the file.
    fn note(&mut self, reign: u64, partner: PublicKey) {
        if let Some(next) = self.file.note_reign(reign).unwrap() {
            self.file = reread(&next);
            if let Some((node, terms)) = &mut self.terms
                && *node == self.file.node
                && NodeNumber::of_keys(&self.key, &partner)
                    .is_some_and(|node| self.file.eligible(Some(&partner), node))
            {
                *terms = self.file.terms();
            }
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum Step {
    /// The memory of a node starts anew.
    Start(bool),
    /// A node takes a term.
    Take(bool),
    /// It notes the highest reign.
    Note(bool),
    /// The control processes speak to each other.
    Session,
    /// The same, but the session ends before the other one has heard of this one.
    HalfSession(bool),
    /// The first node's machine is replaced: another key (lower or higher than the other's), new file.
    Replace(u8),
    /// A copy of a node's file is made.
    Copy(bool),
    /// The old copy is restored; the memory is gone, and SSP speaks before the node takes over.
    Restore(bool),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        2 => any::<bool>().prop_map(Step::Start),
        6 => any::<bool>().prop_map(Step::Take),
        3 => any::<bool>().prop_map(Step::Note),
        2 => Just(Step::Session),
        2 => any::<bool>().prop_map(Step::HalfSession),
        1 => any::<u8>().prop_map(Step::Replace),
        1 => any::<bool>().prop_map(Step::Copy),
        1 => any::<bool>().prop_map(Step::Restore),
    ]
}

proptest! {
    #[test]
    fn no_two_memories_use_the_same_term(steps in prop::collection::vec(step(), 0..120)) {
        let mut nodes = [Machine::new(A), Machine::new(B)];
        let mut copies: [Option<TermFile>; 2] = [None, None];
        let mut used = HashSet::new();
        let mut highest = 0;
        for step in steps {
            match step {
                Step::Start(node) => {
                    let partner = nodes[usize::from(!node)].key;
                    nodes[usize::from(node)].start(partner);
                }
                Step::Take(node) => {
                    if let Some(term) = nodes[usize::from(node)].take() {
                        prop_assert!(used.insert(term), "{term} came twice");
                        highest = highest.max(term);
                    }
                }
                Step::Note(node) => {
                    let partner = nodes[usize::from(!node)].key;
                    nodes[usize::from(node)].note(highest, partner);
                }
                Step::Session => {
                    let [left, right] = &mut nodes;
                    session(left, right);
                }
                Step::HalfSession(node) => {
                    let (key, told) = {
                        let other = &nodes[usize::from(!node)];
                        (other.key, other.file.highest(&nodes[usize::from(node)].key))
                    };
                    nodes[usize::from(node)].pair(key, told);
                }
                Step::Replace(key) => {
                    // What the old machine used must have been heard of: a reign that nobody heard of takes new
                    // keys of the operator (F2). The new key lies on either side of the partner's.
                    let old = nodes[0].key;
                    nodes[1].note(highest, old);
                    nodes[0] = Machine::new([if key % 2 == 0 { 1 } else { 3 }; 32]);
                    nodes[0].key[31] = key;
                    copies[0] = None;
                }
                Step::Copy(node) => copies[usize::from(node)] = Some(nodes[usize::from(node)].file.clone()),
                Step::Restore(node) => {
                    let at = usize::from(node);
                    if let Some(copy) = &copies[at] {
                        let key = nodes[at].key;
                        nodes[1 - at].note(highest, key);
                        nodes[at].file = copy.clone();
                        nodes[at].terms = None;
                        let [left, right] = &mut nodes;
                        session(left, right);
                    }
                }
            }
        }
    }
}

#[test]
fn a_new_node_is_not_eligible_until_it_has_learnt_its_partners_terms() {
    let file = TermFile::new([1; 16], NodeNumber::Zero);
    assert!(file.eligible(None, NodeNumber::Zero));
    assert!(!file.eligible(Some(&B), NodeNumber::Zero));
    let file = reread(&file.pair(&B, NodeNumber::Zero, [40, 17]).unwrap().unwrap());
    assert!(file.eligible(Some(&B), NodeNumber::Zero));
    // It may be the successor of a node whose disk was lost, which had taken terms that nobody heard of.
    assert_eq!((file.taken(), file.left(), file.partner()), (40 + 2048, 16, Some(&B)));
    // In a pair that has never used a term there is nothing to fear.
    let first = TermFile::new([1; 16], NodeNumber::Zero).pair(&B, NodeNumber::Zero, [0, 0]).unwrap().unwrap();
    assert_eq!(first.taken(), 0);
}

#[test]
fn another_key_or_another_parity_ends_eligibility_until_both_parities_are_lifted_above() {
    let file = TermFile::new([1; 16], NodeNumber::Zero).pair(&B, NodeNumber::Zero, [0, 0]).unwrap().unwrap();
    let (file, mut terms) = file.open().unwrap();
    assert!(!file.eligible(Some(&A), NodeNumber::Zero) && !file.eligible(Some(&B), NodeNumber::One));
    terms.take(20).unwrap();
    // The even terms that are reserved may have been taken, and count for whoever gets that parity now.
    assert_eq!(file.highest(&A)[0], file.reserved());
    let other = file.pair(&A, NodeNumber::One, [0, 5]).unwrap().unwrap();
    assert!(other.taken() >= file.reserved() && other.eligible(Some(&A), NodeNumber::One));
    assert_eq!(other.open().unwrap().1.take(0).unwrap() % 2, 1);
}

#[test]
fn sessions_without_a_reign_between_them_do_not_use_up_terms() {
    let (mut left, mut right) = (Machine::new(A), Machine::new(B));
    for _ in 0..3 {
        session(&mut left, &mut right);
        left.start(B);
        right.start(A);
    }
    session(&mut left, &mut right);
    session(&mut left, &mut right);
    let before = (left.file.clone(), right.file.clone());
    for _ in 0..100 {
        session(&mut left, &mut right);
    }
    assert_eq!((left.file, right.file), before);
}

#[test]
fn an_old_copy_is_lifted_above_what_the_partner_has_seen() {
    let file = TermFile::new([1; 16], NodeNumber::Zero).pair(&B, NodeNumber::Zero, [0, 0]).unwrap().unwrap();
    let lifted = file.pair(&B, NodeNumber::Zero, [300, 201]).unwrap().expect("the file does not know 300");
    assert_eq!(lifted.open().unwrap().1.take(0), Ok(302));
    assert_eq!(file.pair(&B, NodeNumber::Zero, [u64::MAX, 0]), Err(TermError::Exhausted));
}

#[test]
fn incarnations_only_grow_also_over_an_old_copy() {
    let file = TermFile::new([1; 16], NodeNumber::One);
    let (first, next) = file.next_incarnation(0).unwrap();
    let (second, next) = reread(&next).next_incarnation(0).unwrap();
    assert_eq!((first, second, next.incarnation()), (1, 2, 2));
    assert_eq!(file.next_incarnation(7).unwrap().0, 8);
    assert_eq!(file.next_incarnation(u64::MAX).unwrap_err(), TermError::Exhausted);
}

#[test]
fn a_reign_is_noted_once_with_terms_reserved_above_it() {
    let file = TermFile::new([1; 16], NodeNumber::One);
    let noted = reread(&file.note_reign(100).unwrap().unwrap());
    assert_eq!((noted.reign(), noted.taken(), noted.left()), (100, 100, 16));
    assert_eq!(noted.note_reign(100), Ok(None));
    assert_eq!(noted.note_reign(99), Ok(None));
}

/// Written by version 1 of the format, for [`Pool::Open`] of node 1.
const OLD: &str = "tandem-terms 1\nfile-id 01010101010101010101010101010101\nnode 1\ntaken 9\nreserved 41\n\
                   pool open\ncheck ";

#[test]
fn a_file_of_version_1_is_read_and_goes_on_as_version_2() {
    use sha2::{Digest, Sha256};
    let body = OLD.strip_suffix("check ").unwrap();
    let sum: String = Sha256::digest(body)[..8].iter().map(|octet| format!("{octet:02x}")).collect();
    let text = format!("{OLD}{sum}\n");
    let file = TermFile::decode(text.as_bytes()).unwrap();
    assert_eq!((file.node, file.taken(), file.reserved()), (NodeNumber::One, 9, 41));
    assert_eq!((file.incarnation(), file.reign(), file.partner()), (0, 0, None));
    assert!(file.take_at_start().unwrap().0 > 41, "{:?}", Pool::Open);
    assert!(file.encode().starts_with("tandem-terms 2\n"));
    assert_eq!(reread(&file), file);
    for at in 0..text.len() {
        let mut bytes = text.clone().into_bytes();
        assert!(TermFile::decode(&bytes[..at]).is_err());
        bytes[at] ^= 1;
        assert!(TermFile::decode(&bytes).is_err(), "octet {at}");
    }
}

#[test]
fn a_reign_that_was_never_taken_or_a_half_key_is_damage() {
    let file = TermFile::new([1; 16], NodeNumber::Zero).pair(&B, NodeNumber::Zero, [0, 0]).unwrap().unwrap();
    let text = file.encode();
    assert_eq!(TermFile::decode(text.replace("0202", "02").as_bytes()), Err(DecodeError::Damaged));
    assert_eq!(TermFile::decode(text.replace("reign 0", "reign 9").as_bytes()), Err(DecodeError::Damaged));
    for at in 0..text.len() {
        let mut bytes = text.clone().into_bytes();
        bytes[at] ^= 4;
        assert!(TermFile::decode(&bytes).is_err(), "octet {at}");
    }
}

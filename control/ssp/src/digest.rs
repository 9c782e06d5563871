//! The digest of a configuration, and the name of the first key in which two configurations differ.

use crate::message::DigestKey;
use sha2::{Digest as _, Sha256};
use std::sync::Arc;

/// Keys sent in one message, at most; with paths of usual length far below a frame.
const CHUNK_KEYS: usize = 256;
/// Octets of paths in one message, at most.
const CHUNK_OCTETS: usize = 32 * 1024;
/// Longest path in octets.
pub const PATH_MAX: usize = 512;

/// Paths and hashes of everything that must be equal on both nodes, in the order of the paths.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Digest {
    keys: Arc<[DigestKey]>,
    sum: [u8; 32],
}

impl Digest {
    /// Of a configuration's keys, in any order. Paths beyond [`PATH_MAX`] octets are cut for people only: their whole
    /// counts in the sum.
    #[must_use]
    pub fn new(keys: impl IntoIterator<Item = (String, [u8; 8])>) -> Self {
        let mut keys: Vec<DigestKey> =
            keys.into_iter().map(|(path, hash)| DigestKey { path, hash }).collect();
        keys.sort();
        let mut sum = Sha256::new();
        sum.update(b"tandem configuration digest 1\0");
        for key in &mut keys {
            sum.update((key.path.len() as u64).to_be_bytes());
            sum.update(key.path.as_bytes());
            sum.update(key.hash);
            while key.path.len() > PATH_MAX {
                key.path.pop();
            }
        }
        Self { keys: keys.into(), sum: sum.finalize().into() }
    }

    /// One hash over all.
    #[must_use]
    pub fn sum(&self) -> [u8; 32] {
        self.sum
    }

    /// Number of keys.
    #[must_use]
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// No keys at all?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Keys from `from` on, as many as fit into one message.
    #[must_use]
    pub fn chunk(&self, from: usize) -> &[DigestKey] {
        let rest = self.keys.get(from..).unwrap_or_default();
        let mut octets = 0;
        let fits = rest.iter().take(CHUNK_KEYS).take_while(|key| {
            octets += key.path.len() + 16;
            octets <= CHUNK_OCTETS
        });
        &rest[..fits.count()]
    }

    /// Compares the partner's keys, which start at position `from`; `last`: there are no more. Gives the first difference.
    #[must_use]
    pub fn difference(&self, from: usize, theirs: &[DigestKey], last: bool) -> Option<Difference> {
        for (at, their) in theirs.iter().enumerate() {
            match self.keys.get(from + at) {
                None => return Some(Difference::new(from + at, &their.path, Whose::Partner)),
                Some(own) if own == their => {}
                Some(own) if own.path == their.path => {
                    return Some(Difference::new(from + at, &own.path, Whose::Both));
                }
                Some(own) if own.path < their.path => {
                    return Some(Difference::new(from + at, &own.path, Whose::Own));
                }
                Some(_) => return Some(Difference::new(from + at, &their.path, Whose::Partner)),
            }
        }
        let end = from + theirs.len();
        let more = self.keys.get(end).filter(|_| last)?;
        Some(Difference::new(end, &more.path, Whose::Own))
    }
}

/// Who has the key in which configurations differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whose {
    /// Both, with different values.
    Both,
    /// This node alone.
    Own,
    /// The partner alone.
    Partner,
}

/// The first key in which two configurations differ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Position in the order of paths.
    pub at: usize,
    /// Path of the key, such as `crypto-map.site-b.static.inbound.key`.
    pub path: String,
    /// Who has it.
    pub whose: Whose,
}

impl Difference {
    fn new(at: usize, path: &str, whose: Whose) -> Self {
        // What the partner calls a path is only text: nothing of it may reach a terminal as it is.
        let path = path.chars().map(|c| if c.is_control() { '?' } else { c }).collect();
        Self { at, path, whose }
    }

    /// The same, as the partner sees it.
    #[must_use]
    pub fn seen_by_partner(&self) -> Self {
        let whose = match self.whose {
            Whose::Both => Whose::Both,
            Whose::Own => Whose::Partner,
            Whose::Partner => Whose::Own,
        };
        Self { whose, ..self.clone() }
    }
}

impl std::fmt::Display for Difference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let path = &self.path;
        match self.whose {
            Whose::Both => write!(f, "`{path}` is not the same on both nodes")?,
            Whose::Own => write!(f, "`{path}` is only in this node's configuration")?,
            Whose::Partner => write!(f, "`{path}` is only in the partner's configuration")?,
        }
        f.write_str("; make it equal on both, then `tandemctl config reload`")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn digest(keys: &[(&str, u8)]) -> Digest {
        Digest::new(keys.iter().map(|(path, hash)| ((*path).to_owned(), [*hash; 8])))
    }

    fn compare(own: &Digest, theirs: &Digest) -> Option<Difference> {
        let mut from = 0;
        loop {
            let chunk = theirs.chunk(from);
            let last = from + chunk.len() == theirs.len();
            let found = own.difference(from, chunk, last);
            from += chunk.len();
            if found.is_some() || last {
                return found;
            }
        }
    }

    #[test]
    fn the_first_difference_is_named_from_the_view_of_each_node() {
        let a = digest(&[("crypto-map.b.peer", 1), ("crypto-map.a.peer", 1), ("redundancy.alone-ms", 1)]);
        let b = digest(&[("crypto-map.a.peer", 1), ("crypto-map.b.peer", 2), ("redundancy.alone-ms", 3)]);
        let found = compare(&a, &b).unwrap();
        assert_eq!((found.path.as_str(), found.whose), ("crypto-map.b.peer", Whose::Both));
        let c = digest(&[("crypto-map.a.peer", 1), ("redundancy.alone-ms", 1)]);
        assert_eq!(compare(&a, &c).unwrap().whose, Whose::Own);
        assert_eq!(compare(&c, &a).unwrap().whose, Whose::Partner);
        let d = digest(&[("crypto-map.a.peer", 1)]);
        assert_eq!(compare(&d, &c).unwrap().path, "redundancy.alone-ms");
        assert_eq!(compare(&c, &d).unwrap().path, "redundancy.alone-ms");
        assert_eq!(compare(&a, &a.clone()), None);
    }

    proptest! {
        #[test]
        fn two_digests_are_equal_or_both_sides_name_the_same_key(
            a in prop::collection::btree_map("[a-c]{1,3}", 0u8..3, 0..12),
            b in prop::collection::btree_map("[a-c]{1,3}", 0u8..3, 0..12),
        ) {
            let make = |keys: &std::collections::BTreeMap<String, u8>| {
                Digest::new(keys.iter().map(|(path, hash)| (path.clone(), [*hash; 8])))
            };
            let (one, two) = (make(&a), make(&b));
            prop_assert_eq!(a == b, one.sum() == two.sum());
            let (seen_by_one, seen_by_two) = (compare(&one, &two), compare(&two, &one));
            prop_assert_eq!(a == b, seen_by_one.is_none());
            prop_assert_eq!(seen_by_one.map(|found| found.path), seen_by_two.map(|found| found.path));
        }
    }

    #[test]
    fn chunks_cover_all_keys_and_stay_small() {
        let digest = Digest::new((0..3000).map(|i| (format!("crypto-map.{i:0400}.peer"), [0; 8])));
        let mut from = 0;
        while from < digest.len() {
            let chunk = digest.chunk(from);
            assert!(
                !chunk.is_empty() && chunk.iter().map(|key| key.path.len()).sum::<usize>() <= CHUNK_OCTETS
            );
            from += chunk.len();
        }
        assert_eq!(from, 3000);
    }
}

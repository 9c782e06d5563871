//! Which selectors of one priority overlap, without comparing each with each.
//!
//! Two prefixes overlap exactly where one contains the other. So for each selector it is enough to look
//! at the remote prefixes that contain its own (at most 33), and there at the local prefixes that contain
//! its own (at most 33) or lie within it (neighbours in a sorted map).

use ipnet::Ipv4Net;
use std::collections::{BTreeMap, HashMap, HashSet};
use tandem_api::types::Selector;

/// Pairs enough to show; beyond, the search ends.
const PAIRS_MAX: usize = 1000;

/// Pairs of positions (`earlier`, `later`) in `selectors` that overlap; each selector that overlaps
/// another one is named, up to some [`PAIRS_MAX`] pairs.
pub(crate) fn find(selectors: &[Selector]) -> Vec<(usize, usize)> {
    let mut by_remote: HashMap<Ipv4Net, BTreeMap<(u32, u8), usize>> = HashMap::new();
    let mut pairs = HashSet::new();
    let note = |pairs: &mut HashSet<(usize, usize)>, a: usize, b: usize| {
        pairs.insert((a.min(b), a.max(b)));
    };
    for (at, selector) in selectors.iter().enumerate() {
        let locals = by_remote.entry(selector.remote.trunc()).or_default();
        match locals.entry(key(selector.local)) {
            std::collections::btree_map::Entry::Vacant(entry) => {
                entry.insert(at);
            }
            std::collections::btree_map::Entry::Occupied(entry) => note(&mut pairs, *entry.get(), at),
        }
    }
    let remote_lengths: HashSet<u8> = selectors.iter().map(|s| s.remote.prefix_len()).collect();
    let local_lengths: HashSet<u8> = selectors.iter().map(|s| s.local.prefix_len()).collect();
    for (at, selector) in selectors.iter().enumerate() {
        if pairs.len() >= PAIRS_MAX {
            break;
        }
        for remote in wider(selector.remote, &remote_lengths) {
            let Some(locals) = by_remote.get(&remote) else { continue };
            for local in wider(selector.local, &local_lengths) {
                if let Some(other) = locals.get(&key(local)).filter(|other| **other != at) {
                    note(&mut pairs, *other, at);
                }
            }
            let (first, length) = key(selector.local);
            if length < 32 {
                let last = u32::from(selector.local.broadcast());
                for (_, other) in locals.range((first, length + 1)..=(last, 32)).take(PAIRS_MAX) {
                    note(&mut pairs, *other, at);
                }
            }
        }
    }
    let mut pairs: Vec<(usize, usize)> = pairs.into_iter().collect();
    pairs.sort_unstable();
    pairs
}

fn key(prefix: Ipv4Net) -> (u32, u8) {
    (u32::from(prefix.network()), prefix.prefix_len())
}

/// The prefix itself and all that contain it, of the lengths that occur.
fn wider(prefix: Ipv4Net, lengths: &HashSet<u8>) -> impl Iterator<Item = Ipv4Net> {
    (0..=prefix.prefix_len())
        .filter(|length| lengths.contains(length))
        .filter_map(move |length| Ipv4Net::new(prefix.addr(), length).ok())
        .map(|wide| wide.trunc())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn selector(local: (u32, u8), remote: (u32, u8)) -> Selector {
        let prefix = |(addr, len): (u32, u8)| Ipv4Net::new(addr.into(), len).unwrap().trunc();
        Selector { local: prefix(local), remote: prefix(remote) }
    }

    fn overlap(a: Ipv4Net, b: Ipv4Net) -> bool {
        a.contains(&b) || b.contains(&a)
    }

    proptest! {
        /// Against comparing each with each. Addresses of few bits, so that overlaps are common.
        #[test]
        fn each_selector_that_overlaps_is_named_and_no_other(
            list in prop::collection::vec(((0u32..16, 26u8..=32), (0u32..16, 26u8..=32)), 0..24)
        ) {
            let list: Vec<Selector> = list
                .into_iter()
                .map(|((l, ll), (r, rl))| selector((l << 2, ll), (r << 2, rl)))
                .collect();
            let pairs = find(&list);
            for (a, b) in &pairs {
                prop_assert!(a < b);
                prop_assert!(overlap(list[*a].local, list[*b].local));
                prop_assert!(overlap(list[*a].remote, list[*b].remote));
            }
            for (at, one) in list.iter().enumerate() {
                let overlaps = list.iter().enumerate().any(|(other, two)| {
                    other != at && overlap(one.local, two.local) && overlap(one.remote, two.remote)
                });
                let named = pairs.iter().any(|(a, b)| *a == at || *b == at);
                prop_assert_eq!(named, overlaps, "selector {} of {:?}", at, &list);
            }
        }
    }

    #[test]
    fn one_overlap_among_ten_thousand_is_found() {
        // All with one remote prefix, then all with one local prefix: the worst for a single index.
        for swap in [false, true] {
            let mut list: Vec<Selector> = (0..10_000u32)
                .map(|i| {
                    let (own, all) = ((0x0a00_0000 + (i << 8), 24), (0, 0));
                    if swap { selector(all, own) } else { selector(own, all) }
                })
                .collect();
            assert_eq!(find(&list), []);
            let inner = (0x0a00_0000 + (77 << 8) + 128, 25);
            list.push(if swap { selector((5, 32), inner) } else { selector(inner, (5, 32)) });
            assert_eq!(find(&list), [(77, 10_000)]);
        }
    }
}

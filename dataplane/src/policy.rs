//! The security policy database (RFC 4301 section 4.4.1): protect, bypass or discard by prefixes.
//!
//! A policy is written from this gateway's point of view (local, remote) and holds for both directions.
//! Of the policies that cover a packet the one with the lowest priority number decides. The table is an
//! immutable snapshot: remote addresses lead through a trie to the short list of policies that can
//! matter there, in order of priority.

use crate::prefix_table::{Prefix, PrefixTable};
use std::collections::HashMap;
use tandem_api::dataplane::{Policy, PolicyAction};

/// What a policy says of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Only through the SA of this policy.
    Protect {
        /// Policy number.
        policy: u32,
    },
    /// In clear.
    Bypass,
    /// Not at all.
    Discard,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    local: Prefix,
    /// Not implied by the trie: a list holds shorter remote prefixes too, and they all cover its leaf.
    priority: u32,
    action: Action,
}

/// An immutable set of policies.
#[derive(Clone, Debug, Default)]
pub struct PolicyTable {
    by_remote: PrefixTable,
    lists: Vec<Box<[Entry]>>,
    /// Is there any [`Action::Discard`]? Most gateways have none.
    discards: bool,
}

impl PolicyTable {
    /// Compiles `policies`.
    #[must_use]
    pub fn build(policies: &[Policy]) -> Self {
        let mut by_prefix: HashMap<Prefix, Vec<Entry>> = HashMap::new();
        for policy in policies {
            let action = match policy.action {
                PolicyAction::Protect { policy } => Action::Protect { policy },
                PolicyAction::Bypass => Action::Bypass,
                PolicyAction::Discard => Action::Discard,
            };
            let entry = Entry { local: policy.selector.local.into(), priority: policy.priority, action };
            by_prefix.entry(policy.selector.remote.into()).or_default().push(entry);
        }
        let mut lists = Vec::with_capacity(by_prefix.len());
        let mut leaves = Vec::with_capacity(by_prefix.len());
        for &prefix in by_prefix.keys() {
            // All policies whose remote prefix covers this one can decide here.
            let mut list: Vec<Entry> = (0..=prefix.len)
                .filter_map(|len| by_prefix.get(&Prefix::new(prefix.addr, len)))
                .flatten()
                .copied()
                .collect();
            list.sort_by_key(|entry| entry.priority);
            leaves.push((prefix, lists.len() as u32));
            lists.push(list.into_boxed_slice());
        }
        let discards = policies.iter().any(|policy| policy.action == PolicyAction::Discard);
        Self { by_remote: PrefixTable::build(leaves), lists, discards }
    }

    /// Does a discard policy decide between `local` and `remote` (host byte order)?
    #[inline]
    #[must_use]
    pub fn discards(&self, local: u32, remote: u32) -> bool {
        self.discards && self.lookup(local, remote) == Some(Action::Discard)
    }

    /// Does the policy that protects `local` from `remote` name the network of `local` (and not 0.0.0.0/0)? Then what
    /// comes out of a tunnel for it belongs inside.
    #[must_use]
    pub fn protects_network(&self, local: u32, remote: u32) -> bool {
        self.entry(local, remote)
            .is_some_and(|entry| entry.local.len > 0 && matches!(entry.action, Action::Protect { .. }))
    }

    /// What to do with traffic between `local` and `remote` (host byte order); `None`: no policy covers it.
    #[inline]
    #[must_use]
    pub fn lookup(&self, local: u32, remote: u32) -> Option<Action> {
        self.entry(local, remote).map(|entry| entry.action)
    }

    #[inline]
    fn entry(&self, local: u32, remote: u32) -> Option<&Entry> {
        let list = &self.lists[self.by_remote.lookup(remote)? as usize];
        list.iter().find(|entry| entry.local.contains(local))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use tandem_api::types::Selector;

    fn policy(local: &str, remote: &str, priority: u32, action: PolicyAction) -> Policy {
        Policy {
            name: format!("p{priority}"),
            priority,
            selector: Selector { local: local.parse().unwrap(), remote: remote.parse().unwrap() },
            action,
        }
    }

    fn addr(text: &str) -> u32 {
        text.parse::<std::net::Ipv4Addr>().unwrap().into()
    }

    #[test]
    fn the_lowest_priority_number_decides_even_against_a_longer_prefix() {
        let table = PolicyTable::build(&[
            policy("10.1.0.0/24", "10.2.0.0/24", 100, PolicyAction::Protect { policy: 1 }),
            policy("10.1.0.0/28", "10.0.0.0/8", 50, PolicyAction::Bypass),
            policy("10.1.0.0/16", "10.2.0.7/32", 200, PolicyAction::Discard),
        ]);
        assert_eq!(table.lookup(addr("10.1.0.3"), addr("10.2.0.7")), Some(Action::Bypass));
        assert_eq!(table.lookup(addr("10.1.0.33"), addr("10.2.0.7")), Some(Action::Protect { policy: 1 }));
        assert_eq!(table.lookup(addr("10.1.9.33"), addr("10.2.0.7")), Some(Action::Discard));
        assert_eq!(table.lookup(addr("10.1.9.33"), addr("10.2.0.8")), None);
    }

    proptest! {
        #[test]
        fn a_look_up_agrees_with_a_linear_search(
            raw in proptest::collection::vec((any::<u32>(), 0u8..=32, any::<u32>(), 0u8..=32), 0..40),
            probes in proptest::collection::vec((any::<u32>(), any::<u32>()), 1..40),
        ) {
            let squeeze = |a: u32| a & 0x8101_0101;
            let policies: Vec<Policy> = raw.iter().enumerate().map(|(i, &(l, ll, r, rl))| Policy {
                name: i.to_string(),
                // Unique priorities in an order that is not that of the list.
                priority: (i as u32).wrapping_mul(0x9e37_79b1),
                selector: Selector {
                    local: ipnet::Ipv4Net::new(squeeze(l).into(), ll).unwrap().trunc(),
                    remote: ipnet::Ipv4Net::new(squeeze(r).into(), rl).unwrap().trunc(),
                },
                action: PolicyAction::Protect { policy: i as u32 },
            }).collect();
            let table = PolicyTable::build(&policies);
            for &(local, remote) in &probes {
                let (local, remote) = (squeeze(local), squeeze(remote));
                let model = policies.iter()
                    .filter(|p| p.selector.covers(local.into(), remote.into()))
                    .min_by_key(|p| p.priority)
                    .map(|p| match p.action {
                        PolicyAction::Protect { policy } => Action::Protect { policy },
                        PolicyAction::Bypass => Action::Bypass,
                        PolicyAction::Discard => Action::Discard,
                    });
                prop_assert_eq!(table.lookup(local, remote), model);
            }
        }
    }
}

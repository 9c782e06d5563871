//! What must be equal on both nodes of a pair, as hashes by key path.
//!
//! The nodes compare one hash at each session; where it differs they exchange the list, so that an operator is told the
//! first key that differs and not only that something does. Keys of SAs enter by their fingerprint.

use crate::settings::Settings;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fmt;
use tandem_api::dataplane::{PolicyAction, StaleAction};
use tandem_api::types::{Selector, Side};

/// A key path as an operator writes it, such as `crypto-map.site-b.static.inbound.key`, and the hash of its value.
pub type DigestEntry = (String, [u8; 8]);

/// Where two configurations differ first, in the order of key paths.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Difference {
    /// Both have the key, with different values.
    Value(String),
    /// Only this node has it.
    OnlyHere(String),
    /// Only the partner has it.
    OnlyThere(String),
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Difference::Value(key) => write!(f, "{key} differs"),
            Difference::OnlyHere(key) => write!(f, "{key} is missing on the partner"),
            Difference::OnlyThere(key) => write!(f, "{key} is missing here, the partner has it"),
        }
    }
}

/// SHA-256 over a list of [`Settings::digest`]: equal where the lists are.
#[must_use]
pub fn digest_sum(list: &[DigestEntry]) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(b"tandem digest 1\0");
    for (path, value) in list {
        hash.update((path.len() as u64).to_be_bytes());
        hash.update(path.as_bytes());
        hash.update(value);
    }
    hash.finalize().into()
}

/// The first key, in the order of key paths, that is not equal in both lists. The partner's may be in any order.
#[must_use]
pub fn first_difference(own: &[DigestEntry], partner: &[DigestEntry]) -> Option<Difference> {
    let map = |list: &[DigestEntry]| list.iter().cloned().collect::<BTreeMap<String, [u8; 8]>>();
    let (own, partner) = (map(own), map(partner));
    let here = own.iter().find(|(path, value)| partner.get(*path) != Some(value)).map(|(path, _)| path);
    let there = partner.keys().find(|path| !own.contains_key(*path));
    match (here, there) {
        (Some(here), Some(there)) if there < here => Some(Difference::OnlyThere(there.clone())),
        (None, Some(there)) => Some(Difference::OnlyThere(there.clone())),
        (Some(here), _) if partner.contains_key(here) => Some(Difference::Value(here.clone())),
        (Some(here), _) => Some(Difference::OnlyHere(here.clone())),
        (None, None) => None,
    }
}

/// Collects entries below one prefix after the other.
struct Collector(Vec<DigestEntry>);

impl Collector {
    fn add(&mut self, prefix: &str, key: &str, value: impl fmt::Display) {
        let path = format!("{prefix}.{key}");
        let mut hash = Sha256::new();
        hash.update(b"tandem value 1\0");
        hash.update(path.as_bytes());
        hash.update([0]);
        hash.update(value.to_string().as_bytes());
        let mut first = [0; 8];
        first.copy_from_slice(&hash.finalize()[..8]);
        self.0.push((path, first));
    }
}

/// A name as a part of a key path: quoted where it has a dot, as TOML wants it.
fn part(name: &str) -> String {
    if name.contains('.') { format!("\"{name}\"") } else { name.to_owned() }
}

fn list<T: fmt::Display>(items: impl IntoIterator<Item = T>) -> String {
    let words: Vec<String> = items.into_iter().map(|item| item.to_string()).collect();
    words.join(", ")
}

impl Settings {
    /// What must be equal on both nodes of a pair, sorted by key path: interfaces by side and position among those of
    /// that side, policies, crypto maps with their SAs, timings. What is each node's own (names of node and interfaces,
    /// paths, witnesses, priority, sockets, workers) is not in it.
    #[must_use]
    pub fn digest(&self) -> Vec<DigestEntry> {
        let mut all = Collector(Vec::new());
        for side in [Side::Inside, Side::Outside] {
            let of_side = self.data_plane.interfaces.iter().filter(|interface| interface.side == side);
            for (position, interface) in of_side.enumerate() {
                let prefix = format!("interface.{side}.{}", position + 1);
                all.add(&prefix, "virtual-addresses", list(&interface.virtual_addresses));
                all.add(&prefix, "virtual-mac", interface.virtual_mac);
                all.add(&prefix, "mss-clamp", interface.mss_clamp);
            }
        }
        for policy in &self.data_plane.policies {
            let action = match policy.action {
                // By its crypto map.
                PolicyAction::Protect { .. } => continue,
                PolicyAction::Bypass => "bypass",
                PolicyAction::Discard => "discard",
            };
            let prefix = format!("policy.{}", part(&policy.name));
            all.add(&prefix, "priority", policy.priority);
            all.add(&prefix, "action", action);
            all.add(&prefix, "local", policy.selector.local);
            all.add(&prefix, "remote", policy.selector.remote);
        }
        for map in &self.maps {
            let prefix = format!("crypto-map.{}", part(&map.name));
            all.add(&prefix, "priority", map.priority);
            all.add(&prefix, "local", map.local);
            all.add(&prefix, "peer", map.peer);
            all.add(&prefix, "protect", list::<&Selector>(&map.selectors));
            all.add(
                &prefix,
                "stale-takeover",
                match map.stale {
                    StaleAction::Jump => "jump",
                    StaleAction::Hold => "hold",
                },
            );
        }
        for sa in &self.sas {
            let prefix = format!("crypto-map.{}.static.{}", part(&sa.map), sa.direction);
            all.add(&prefix, "spi", sa.spi);
            all.add(&prefix, "transform", sa.transform);
            all.add(&prefix, "key", sa.fingerprint);
            all.add(&prefix, "base-term", sa.base_term);
        }
        if let Some(redundancy) = &self.redundancy {
            let timings = redundancy.timings;
            all.add("redundancy", "heartbeat-ms", timings.heartbeat_us);
            all.add("redundancy", "takeover-ms", timings.takeover_us);
            all.add("redundancy", "alone-ms", timings.alone_us);
            all.add("redundancy", "cold-wait-s", timings.cold_wait_ms);
        }
        all.0.sort();
        all.0
    }
}

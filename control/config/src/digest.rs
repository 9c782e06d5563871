//! What must be equal on both nodes of a pair, as hashes by key path.
//!
//! The nodes compare one hash at each session; where it differs they exchange the list, so that an operator is told the
//! first key that differs and not only that something does. Keys of SAs enter by their fingerprint.

use crate::settings::Settings;
use sha2::{Digest, Sha256};
use std::fmt;
use tandem_api::dataplane::{PolicyAction, StaleAction};
use tandem_api::types::{Selector, Side};

/// A key path as an operator writes it, such as `crypto-map.site-b.static.inbound.key`, and the hash of its value.
pub type DigestEntry = (String, [u8; 8]);

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

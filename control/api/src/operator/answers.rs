//! What operators get: the results of every method.

use crate::counters::{Counter, DropReason, SlowCounter};
use crate::dataplane::{
    CounterValues, HotStateOrigin, InterfaceStatus, PolicyAction, SaStatus, WorkerStatus,
};
use crate::types::{Mac, Role, Selector, Side};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::Ipv4Addr;

/// Result of `show.crypto.ipsec.sa`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct IpsecSas {
    /// Role of this node.
    pub role: Role,
    /// Term of this node.
    pub term: u64,
    /// By crypto map, in order of priority.
    pub maps: Vec<MapSas>,
}

/// The SAs of one crypto map.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct MapSas {
    /// Name of the crypto map.
    pub map: String,
    /// Its priority; none where the data plane holds SAs of a map that the configuration does not know.
    pub priority: Option<u32>,
    /// Outside interface that has the local address.
    pub interface: Option<String>,
    /// Outer address of ours.
    pub local: Ipv4Addr,
    /// Outer address of the peer's.
    pub peer: Ipv4Addr,
    /// Selectors.
    pub selectors: Vec<Selector>,
    /// Inbound SAs.
    pub inbound: Vec<Sa>,
    /// Outbound SAs.
    pub outbound: Vec<Sa>,
}

/// One SA.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Sa {
    /// As the data plane reports it.
    #[serde(flatten)]
    pub status: SaStatus,
    /// What the key has left of its terms.
    pub terms: KeyTerms,
}

/// Terms that have gone by since the base term of a key, after which a key must be replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct KeyTerms {
    /// What they mean.
    pub state: KeyState,
    /// Terms from the base term to the present one.
    pub used: u64,
    /// Terms until the key should be replaced (2^15 at first).
    pub left_soft: u64,
    /// Terms until the key never seals again (2^16 at first).
    pub left_hard: u64,
}

impl KeyTerms {
    /// Differences from here on call for a new key (`failover.md` F3).
    pub const SOFT: u64 = 1 << 15;
    /// A difference that no longer fits into the IV (F3).
    pub const HARD: u64 = 1 << 16;

    /// At the term of this node.
    #[must_use]
    pub const fn at(term: u64, base_term: u64) -> Self {
        let used = term.saturating_sub(base_term);
        let state = if term < base_term {
            KeyState::BelowBase
        } else if used >= Self::HARD {
            KeyState::Dead
        } else if used >= Self::SOFT {
            KeyState::Replace
        } else {
            KeyState::Good
        };
        Self {
            state,
            used,
            left_soft: Self::SOFT.saturating_sub(used),
            left_hard: Self::HARD.saturating_sub(used),
        }
    }
}

/// What the terms of a key say of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum KeyState {
    /// Nothing to do.
    Good,
    /// Past the soft limit: configure a new key, or the same peers a new base term with a new key.
    Replace,
    /// Past the hard limit: never seals again.
    Dead,
    /// The term of this node is below the base term of the key: never seals.
    BelowBase,
}

/// Result of `show.interfaces`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Interfaces {
    /// Interfaces.
    pub interfaces: Vec<InterfaceReport>,
    /// Workers.
    pub workers: Vec<WorkerStatus>,
}

/// One interface.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct InterfaceReport {
    /// Kernel name.
    pub name: String,
    /// Kernel index.
    pub index: u32,
    /// Side.
    pub side: Side,
    /// Carrier and administrative state both up.
    pub up: bool,
    /// Driver, as ethtool names it.
    pub driver: String,
    /// MTU in octets.
    pub mtu: u32,
    /// Own MAC.
    pub mac: Mac,
    /// Virtual MAC.
    pub virtual_mac: Mac,
    /// Virtual addresses with their prefix length.
    pub virtual_addresses: Vec<String>,
    /// `native` or `generic`.
    pub xdp_mode: String,
    /// Are all sockets zero-copy?
    pub zero_copy: bool,
    /// Queues taken.
    pub queues: u16,
    /// Frames received.
    pub rx_frames: u64,
    /// Octets received.
    pub rx_bytes: u64,
    /// Frames sent.
    pub tx_frames: u64,
    /// Octets sent.
    pub tx_bytes: u64,
    /// Rates, where the asker took two samples.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rates: Option<Rates>,
    /// The XDP program's decisions: name to count.
    pub steering: BTreeMap<String, u64>,
    /// The kernel's socket statistics: name to count.
    pub socket: BTreeMap<String, u64>,
}

impl From<InterfaceStatus> for InterfaceReport {
    fn from(status: InterfaceStatus) -> Self {
        Self {
            name: status.name,
            index: status.index,
            side: status.side,
            up: status.up,
            driver: status.driver,
            mtu: status.mtu,
            mac: status.mac,
            virtual_mac: status.virtual_mac,
            virtual_addresses: status.virtual_addresses.iter().map(ToString::to_string).collect(),
            xdp_mode: status.xdp_mode,
            zero_copy: status.zero_copy,
            queues: status.queues,
            rx_frames: status.rx_frames,
            rx_bytes: status.rx_bytes,
            tx_frames: status.tx_frames,
            tx_bytes: status.tx_bytes,
            rates: None,
            steering: status.steering.into_iter().collect(),
            socket: status.socket.into_iter().collect(),
        }
    }
}

/// Rates between two samples.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Rates {
    /// Seconds between the samples.
    pub interval_s: f64,
    /// Frames received a second.
    pub rx_frames_per_s: f64,
    /// Bits received a second (of Ethernet frames, without preamble, gap and checksum).
    pub rx_bits_per_s: f64,
    /// Frames sent a second.
    pub tx_frames_per_s: f64,
    /// Bits sent a second.
    pub tx_bits_per_s: f64,
}

impl Rates {
    /// From two samples of one interface, `interval_s` seconds apart.
    #[must_use]
    pub fn between(earlier: &InterfaceReport, later: &InterfaceReport, interval_s: f64) -> Self {
        let rate = |from: u64, to: u64| to.saturating_sub(from) as f64 / interval_s.max(1e-9);
        Self {
            interval_s,
            rx_frames_per_s: rate(earlier.rx_frames, later.rx_frames),
            rx_bits_per_s: 8.0 * rate(earlier.rx_bytes, later.rx_bytes),
            tx_frames_per_s: rate(earlier.tx_frames, later.tx_frames),
            tx_bits_per_s: 8.0 * rate(earlier.tx_bytes, later.tx_bytes),
        }
    }
}

/// Result of `show.counters`: everything by name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Counters {
    /// What the workers count, by [`Counter::name`].
    pub counters: BTreeMap<String, u64>,
    /// Drops of workers and slow path together, by [`DropReason::name`].
    pub drops: BTreeMap<String, u64>,
    /// The slow path's part of `drops`.
    pub slow_drops: BTreeMap<String, u64>,
    /// What the slow path counts, by [`SlowCounter::name`].
    pub slow: BTreeMap<String, u64>,
    /// Where every frame ended.
    pub accounting: Accounting,
}

impl From<&CounterValues> for Counters {
    fn from(values: &CounterValues) -> Self {
        let slow_drop = |reason: DropReason| values.slow_drops.get(reason as usize).copied().unwrap_or(0);
        Self {
            counters: Counter::ALL.iter().map(|c| (c.name().to_owned(), values.counter(*c))).collect(),
            drops: DropReason::ALL.iter().map(|r| (r.name().to_owned(), values.dropped(*r))).collect(),
            slow_drops: DropReason::ALL.iter().map(|r| (r.name().to_owned(), slow_drop(*r))).collect(),
            slow: SlowCounter::ALL.iter().map(|c| (c.name().to_owned(), values.slow(*c))).collect(),
            accounting: Accounting::from(values),
        }
    }
}

/// Where every frame ended. For the workers `received + returned + created = forwarded + punted +
/// dropped + parked`, for the slow path `punted = answered + resumed + held + dropped`; a difference is a frame in
/// hand between two counters while traffic runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Accounting {
    /// Frames received by the workers.
    pub received: u64,
    /// Frames handed back by the slow path.
    pub returned: u64,
    /// Frames made by fragmentation.
    pub created: u64,
    /// Frames handed to an interface.
    pub forwarded: u64,
    /// Frames handed to the slow path.
    pub punted: u64,
    /// Frames dropped by the workers.
    pub dropped: u64,
    /// Frames that wait for the partner's acknowledgement now.
    pub parked: u64,
    /// Frames of the workers that are in none of them; 0 when no traffic runs.
    pub difference: i64,
    /// Punted frames turned into an answer.
    pub slow_answered: u64,
    /// Punted frames that waited for a neighbour and went on.
    pub slow_resumed: u64,
    /// Punted frames that wait for a neighbour now.
    pub slow_held: u64,
    /// Frames dropped by the slow path.
    pub slow_dropped: u64,
    /// Punted frames that are in none of them; 0 when no traffic runs.
    pub slow_difference: i64,
}

impl From<&CounterValues> for Accounting {
    fn from(values: &CounterValues) -> Self {
        let slow_dropped: u64 = values.slow_drops.iter().sum();
        let dropped = values.dropped_total().saturating_sub(slow_dropped);
        let difference = |from: [u64; 3], to: [u64; 4]| {
            let sum = |parts: &[u64]| parts.iter().fold(0u64, |sum, part| sum.wrapping_add(*part));
            sum(&from).wrapping_sub(sum(&to)).cast_signed()
        };
        let received = values.counter(Counter::Received);
        let returned = values.counter(Counter::Returned);
        let created = values.counter(Counter::Created);
        let forwarded = values.counter(Counter::Forwarded);
        let punted = values.counter(Counter::Punted);
        let parked = values.counter(Counter::Parked);
        let slow_answered = values.slow(SlowCounter::Answered);
        let slow_resumed = values.slow(SlowCounter::Resumed);
        let slow_held = values.slow(SlowCounter::Held);
        Self {
            received,
            returned,
            created,
            forwarded,
            punted,
            dropped,
            parked,
            difference: difference([received, returned, created], [forwarded, punted, dropped, parked]),
            slow_answered,
            slow_resumed,
            slow_held,
            slow_dropped,
            slow_difference: difference(
                [punted, 0, 0],
                [slow_answered, slow_resumed, slow_held, slow_dropped],
            ),
        }
    }
}

/// Result of `show.policy`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Policies {
    /// Does the data plane hold exactly these?
    pub in_force: bool,
    /// Policies, the one that decides first on top.
    pub policies: Vec<PolicyReport>,
}

/// One policy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PolicyReport {
    /// Lowest wins.
    pub priority: u32,
    /// Name of the policy or crypto map.
    pub name: String,
    /// Traffic covered.
    pub selector: Selector,
    /// What happens to it.
    pub action: PolicyAction,
    /// Peer, of `protect`.
    pub peer: Option<Ipv4Addr>,
}

/// Result of `show.status`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct NodeStatus {
    /// Name of the node.
    pub node: String,
    /// Version of the control process.
    pub software: String,
    /// Process id of the control process.
    pub pid: u32,
    /// Seconds since the control process started.
    pub uptime_s: u64,
    /// Public key of the node, hexadecimal.
    pub node_key: String,
    /// Configuration file.
    pub config_file: String,
    /// Seconds since the configuration was read.
    pub config_age_s: u64,
    /// The last attempt to read it again, by `config reload` or a signal; absent before the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_reload: Option<LastReload>,
    /// Role, as the data plane last said.
    pub role: Option<Role>,
    /// Term, as the data plane last said.
    pub term: Option<u64>,
    /// Connection to the data plane.
    pub data_plane: DataPlaneStatus,
    /// Terms on disk.
    pub terms: TermStatus,
    /// Blackhole routes that keep protected traffic off the wire while no data plane runs.
    pub fence: FenceStatus,
}

/// An attempt to read the configuration again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LastReload {
    /// Seconds ago.
    pub ago_s: u64,
    /// Was it taken? Otherwise nothing has changed.
    pub ok: bool,
    /// Why not.
    pub error: Option<String>,
}

/// Connection to the data plane.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DataPlaneStatus {
    /// State of the connection.
    pub state: ConnectionState,
    /// Seconds in this state.
    pub since_s: u64,
    /// Why it is not connected.
    pub reason: Option<String>,
    /// Socket.
    pub socket: String,
    /// Process id.
    pub pid: Option<u32>,
    /// Version.
    pub software: Option<String>,
    /// Where its hot state came from.
    pub hot_state: Option<HotStateOrigin>,
    /// Generation of the last reconciliation.
    pub generation: Option<u64>,
    /// Connections made since the control process started.
    pub connections: u64,
}

/// State of the connection to the data plane.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ConnectionState {
    /// Connected, and the configuration is in force.
    Connected,
    /// Not connected; tried again by itself.
    Unreachable,
    /// Detached by an operator; not tried again until `config reload` or a restart.
    Detached,
}

/// Terms on disk (`failover.md` F2).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TermStatus {
    /// Random id of the term file, hexadecimal.
    pub file_id: String,
    /// Number of the node in its pair (0 or 1).
    pub node: u8,
    /// Highest term that the file knows as taken; 0 for none.
    pub taken: u64,
    /// Highest term reserved.
    pub reserved: u64,
    /// Terms reserved and not taken.
    pub left: u64,
    /// Fewer are left than should be.
    pub alarm: bool,
}

/// Blackhole routes (`failover.md` F33).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FenceStatus {
    /// Routes that should be there.
    pub wanted: u32,
    /// Are they known to be there?
    pub in_place: bool,
    /// Why not.
    pub reason: Option<String>,
}

/// Result of `config.reload`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Reloaded {
    /// In force in the data plane now; otherwise it will be when the data plane can be reached.
    pub in_force: bool,
    /// Interfaces configured.
    pub interfaces: u32,
    /// Policies configured.
    pub policies: u32,
    /// SAs configured, both directions.
    pub sas: u32,
    /// SAs made new.
    pub sas_new: u32,
    /// SAs made new on hot state that was there already for the key.
    pub sas_resumed: u32,
    /// SAs that were left alone.
    pub sas_unchanged: u32,
    /// SAs removed.
    pub sas_removed: u32,
}

/// Result of `detach`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Detached {
    /// Blackhole routes removed.
    pub routes_removed: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_replaced_at_half_of_its_terms_and_dead_at_all_of_them() {
        assert_eq!(KeyTerms::at(2, 0).left_soft, (1 << 15) - 2);
        assert_eq!(KeyTerms::at((1 << 15) - 1, 0).state, KeyState::Good);
        assert_eq!(KeyTerms::at(1 << 15, 0).state, KeyState::Replace);
        assert_eq!(KeyTerms::at((1 << 16) - 1, 0).state, KeyState::Replace);
        assert_eq!(KeyTerms::at(1 << 16, 0).state, KeyState::Dead);
        assert_eq!(KeyTerms::at(9, 10).state, KeyState::BelowBase);
        assert_eq!(KeyTerms::at(u64::MAX, 0).left_hard, 0);
    }

    #[test]
    fn the_accounting_shows_a_frame_that_went_nowhere() {
        let mut values = CounterValues {
            counters: vec![0; Counter::COUNT],
            drops: vec![0; DropReason::COUNT],
            slow_drops: vec![0; DropReason::COUNT],
            slow: vec![0; SlowCounter::COUNT],
        };
        values.counters[Counter::Received as usize] = 10;
        values.counters[Counter::Returned as usize] = 1;
        values.counters[Counter::Forwarded as usize] = 6;
        values.counters[Counter::Punted as usize] = 3;
        values.drops[DropReason::EspNoSa as usize] = 2;
        values.drops[DropReason::ArpInvalid as usize] = 1;
        values.slow_drops[DropReason::ArpInvalid as usize] = 1;
        values.slow[SlowCounter::Answered as usize] = 1;
        let accounting = Accounting::from(&values);
        assert_eq!((accounting.dropped, accounting.slow_dropped), (2, 1));
        assert_eq!((accounting.difference, accounting.slow_difference), (0, 1));
        values.counters[Counter::Forwarded as usize] = 7;
        assert_eq!(Accounting::from(&values).difference, -1);
        values.counters[Counter::Received as usize] = 12;
        assert_eq!(Accounting::from(&values).difference, 1);
        values.counters[Counter::Parked as usize] = 1;
        assert_eq!(Accounting::from(&values).difference, 0, "a frame that waits is in hand");
    }

    #[test]
    fn counters_are_read_by_name() {
        let values = CounterValues { drops: vec![5], ..CounterValues::default() };
        let counters = Counters::from(&values);
        assert_eq!(counters.drops.get(DropReason::ALL[0].name()), Some(&5));
        assert_eq!(counters.drops.len(), DropReason::COUNT);
        assert_eq!(counters.counters.len(), Counter::COUNT);
        assert_eq!(counters.slow.len(), SlowCounter::COUNT);
    }
}

//! What operators get of the pair: `show redundancy`, `show ssp`, `redundancy switch-over`.

use super::answers::TermStatus;
use crate::pair::{HistoryEntry, PairStatus, PairTimings, ReplicationStatus};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Result of `show.redundancy`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Redundancy {
    /// Name of this node.
    pub name: String,
    /// Number of this node in its pair, 0 or 1 (`failover.md` F1).
    pub node: u8,
    /// Public key of this node, hexadecimal.
    pub node_key: String,
    /// The partner as it is configured; none for a gateway that stands alone.
    pub partner: Option<PartnerReport>,
    /// Terms on disk.
    pub terms: TermStatus,
    /// What the disk knows of the pair.
    pub record: PairRecord,
    /// The pair as the data plane sees it; absent while the data plane is not connected.
    pub pair: Option<PairStatus>,
}

/// The partner, and the session between the two control processes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PartnerReport {
    /// Its public key, hexadecimal.
    pub key: String,
    /// Priority of this node between two cold ones (F22).
    pub priority: u8,
    /// Timings in force.
    pub timings: PairTimings,
    /// The session.
    pub session: SessionReport,
}

/// The session between the two control processes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SessionReport {
    /// State.
    pub state: SessionState,
    /// Seconds in this state.
    pub since_s: u64,
    /// Why it is not up; ends with what to do.
    pub reason: Option<String>,
    /// Version of the partner's software, as last said.
    pub partner_software: Option<String>,
    /// Address and port of the partner that the session goes to.
    pub peer: Option<String>,
    /// Name of the path that it goes over.
    pub path: Option<String>,
    /// Are both configurations equal? Absent where they were not compared.
    pub configuration_equal: Option<bool>,
    /// The first key that differs, such as `crypto-map.site-b.static.inbound.key differs`.
    pub first_difference: Option<String>,
}

/// State of the session between the two control processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SessionState {
    /// Up, and all that must be equal is equal.
    Up,
    /// Not connected; tried again by itself.
    Down,
    /// Connected, and the nodes do not work together: another key, version or configuration.
    Refused,
}

/// What the term file says of the pair (`failover.md` F1, F2).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PairRecord {
    /// Newest reign known, of either node.
    pub reign: u64,
    /// Incarnation given last.
    pub incarnation: u64,
    /// Key of the partner whose highest terms were learnt, hexadecimal.
    pub paired_with: Option<String>,
}

/// Result of `show.redundancy.history`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RedundancyHistory {
    /// Steps since the control process started, the earliest first; of very many the last ones.
    pub entries: Vec<HistoryEntry>,
}

/// Result of `show.ssp`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Ssp {
    /// Version of the protocol.
    pub protocol: u16,
    /// What is synchronized.
    pub clients: Vec<SspClient>,
    /// Messages between the two control processes, since the start of this one.
    pub packets: SspPackets,
    /// Ways to the partner; none for a gateway that stands alone.
    pub peers: Vec<SspPeer>,
    /// Replication between the data planes; absent while the data plane is not connected.
    pub redundancy: Option<SspRedundancy>,
}

/// A kind of state that is synchronized.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SspClient {
    /// Number on the wire.
    pub id: u16,
    /// Name, such as `static-sa`.
    pub name: String,
    /// Entries that this node holds.
    pub entries: u64,
}

/// Messages between the two control processes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SspPackets {
    /// Messages sent.
    pub sent: u64,
    /// Messages received.
    pub received: u64,
    /// Octets sent, encryption included.
    pub sent_bytes: u64,
    /// Octets received, encryption included.
    pub received_bytes: u64,
    /// Messages and handshakes that were not authentic, or malformed.
    pub bad: u64,
    /// Sessions that came up.
    pub sessions: u64,
    /// By kind of message.
    pub kinds: Vec<SspKind>,
}

/// Messages of one kind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SspKind {
    /// Name of the kind.
    pub kind: String,
    /// Sent.
    pub sent: u64,
    /// Received.
    pub received: u64,
}

/// A way to the partner's control process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SspPeer {
    /// Name of the path.
    pub path: String,
    /// Own address and port.
    pub local: String,
    /// The partner's.
    pub remote: String,
    /// Does the session go over it?
    pub in_use: bool,
    /// State of the session over this path.
    pub state: SessionState,
    /// Seconds in this state.
    pub since_s: u64,
    /// Why it is not up.
    pub reason: Option<String>,
}

/// Replication between the data planes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SspRedundancy {
    /// `active` or `standby`.
    pub role: String,
    /// Own term if active, else the newest reign heard of.
    pub term: u64,
    /// As [`PairStatus::state`].
    pub state: String,
    /// What is not promised at this moment, and why; empty where everything is.
    pub not_promised: Vec<String>,
    /// Records, lag, packets that wait.
    pub replication: ReplicationStatus,
}

impl From<&PairStatus> for SspRedundancy {
    fn from(pair: &PairStatus) -> Self {
        Self {
            role: pair.role.clone(),
            term: pair.term,
            state: pair.state.clone(),
            not_promised: pair.not_promised.clone(),
            replication: pair.replication.clone(),
        }
    }
}

/// Result of `redundancy.switch-over`. Where it was not done there is a failure with the reason instead.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SwitchedOver {
    /// Role of this node before: `active` or `standby`.
    pub role_before: String,
    /// Role now.
    pub role: String,
    /// Term of the reign that has begun.
    pub term: u64,
    /// Milliseconds from the order to the new role.
    pub took_ms: u64,
}

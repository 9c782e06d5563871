//! The pair, as control process and data plane speak of it.
//!
//! The data plane runs the machine that decides roles (`tandem-takeover`), because it must demote itself and
//! take over without the control process. Control gives it what lies on disk (terms, incarnations), the keys of the
//! paths, and news of the SSP session; it hears of reigns, of what it must write down, and of the history.

use crate::types::{Direction, KeyMaterial};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::net::{Ipv4Addr, SocketAddrV4};

/// Most paths to the partner.
pub const PATHS_MAX: usize = 4;

/// What the data plane must know of its node and partner. Sent after each [`crate::dataplane::Body::Hello`]; while
/// the data plane lives only `priority` may change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PairSettings {
    /// Number of the node in its pair, 0 or 1: the parity of its terms (F1). 0 without a partner.
    pub node: u8,
    /// File of the numbers of static SAs (F40), beside the term file.
    pub numbers_file: String,
    /// Id of the term file: a numbers file of another one counts as lost.
    pub file_id: [u8; 16],
    /// May this node have carried traffic before (has it ever taken a term)? Then a numbers file that is missing is
    /// lost. Counts when the data plane starts.
    pub used: bool,
    /// The partner, if there is one.
    pub partner: Option<PartnerSettings>,
}

/// The partner and how it is watched.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartnerSettings {
    /// Ways to it, the preferred one first; at most [`PATHS_MAX`].
    pub paths: Vec<PairPath>,
    /// Timings; equal on both nodes.
    pub timings: PairTimings,
    /// Decides between two cold nodes (F22): the higher one is active.
    pub priority: u8,
}

/// A way to the partner. Its position is its number on the wire.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PairPath {
    /// Name, for people.
    pub name: String,
    /// An address of this node's kernel.
    pub local: SocketAddrV4,
    /// The partner's.
    pub remote: SocketAddrV4,
}

/// How the partner is watched (F20, F22). Microseconds and milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PairTimings {
    /// Between two heartbeats, in microseconds.
    pub heartbeat_us: u32,
    /// The standby takes over after so much silence (D_b), in microseconds.
    pub takeover_us: u32,
    /// The active node goes alone after so much silence (D_a), in microseconds.
    pub alone_us: u32,
    /// A cold node that hears nothing waits so long, in milliseconds.
    pub cold_wait_ms: u32,
}

impl Default for PairTimings {
    fn default() -> Self {
        Self { heartbeat_us: 2_000, takeover_us: 10_000, alone_us: 30_000, cold_wait_ms: 3_000 }
    }
}

/// What a node may use of its term file (F1, F2): sent at each connect, after [`Event::NeedGrant`], and whenever the
/// file has changed. Everything in it is on disk already.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// Highest term that may have been used; takeovers take terms above it.
    pub taken: u64,
    /// Highest term reserved.
    pub reserved: u64,
    /// Newest reign that the file knows, of either node.
    pub reign: u64,
    /// Incarnation of this node's memory; a number that was never given before, whenever one was needed.
    pub incarnation: u64,
    /// May this node become active? False for a node that has not yet learnt its partner's highest terms (F1, F2).
    pub eligible: bool,
}

/// Keys of the paths for one SSP epoch (F6).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EpochKey {
    /// Number of the epoch; grows.
    pub number: u32,
    /// 32 octets, from which the key of each direction and path is derived.
    pub secret: KeyMaterial,
    /// Seal with it from now on; otherwise only open.
    pub send: bool,
}

/// News of the SSP session between the two control processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SessionNews {
    /// It is up, and both configurations are equal.
    Up {
        /// The partner's incarnation, as its control says.
        partner_incarnation: u64,
    },
    /// It is down, or the configurations differ.
    Down,
    /// Answer to [`Event::Joining`]: control has passed a quiet point, with its stream at this position.
    Quiet {
        /// Incarnation that was named in the event.
        incarnation: u64,
        /// Messages of the stream so far.
        position: u64,
    },
    /// This (standby) node has applied the partner's stream up to here.
    Applied {
        /// Own incarnation at that time.
        incarnation: u64,
        /// Messages of the stream applied.
        position: u64,
        /// End-of-bulk lies before that position.
        end_of_bulk: bool,
    },
}

/// What the data plane tells control without being asked. A message of its own beside the answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Event {
    /// A grant with a new incarnation is needed (after a goodbye or a demotion), or one with more terms.
    NeedGrant {
        /// A new incarnation is needed.
        incarnation: bool,
    },
    /// A reign has begun, this node's or the partner's: to be noted on disk.
    Reign {
        /// Its term.
        term: u64,
        /// Is it this node's?
        own: bool,
    },
    /// All is handled strictly: control must pass a quiet point and answer [`SessionNews::Quiet`].
    Joining {
        /// Incarnation of the partner that joins.
        incarnation: u64,
    },
    /// The partner does not know an SA: send it again over SSP.
    Resend {
        /// Direction.
        direction: Direction,
        /// SPI.
        spi: u32,
    },
    /// Something for `show redundancy history`.
    History(HistoryEntry),
}

/// One step, for `show redundancy history`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct HistoryEntry {
    /// Microseconds since the Unix epoch.
    pub unix_us: u64,
    /// What it was, in one word of a fixed list (`takeover`, `demotion`, `strict`, `alone`, `goodbye`, ...).
    pub step: String,
    /// For people.
    pub text: String,
}

/// State of the pair, as the data plane sees it; for `show redundancy` and `show ssp`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PairStatus {
    /// Is there a partner in the configuration?
    pub partner: bool,
    /// `active` or `standby`.
    pub role: String,
    /// Own term if active, else newest reign heard of.
    pub term: u64,
    /// Active: `alone`, `bulk`, `joining`, `strict`, `halted`. Standby: `cold`, `unsynchronized`, `sealed`, `synchronized`.
    pub state: String,
    /// Own incarnation; 0 where none is given.
    pub incarnation: u64,
    /// May this node become active?
    pub eligible: bool,
    /// Terms left without a write.
    pub terms_left: u64,
    /// Microseconds until a takeover would be stale; 0 where it would be.
    pub fresh_for_us: u64,
    /// What is not promised at this moment, and why; empty where everything is.
    pub not_promised: Vec<String>,
    /// The partner, as last heard.
    pub heard: Option<PartnerHeard>,
    /// Paths.
    pub paths: Vec<PathStatus>,
    /// Segments (interfaces).
    pub segments: Vec<SegmentStatus>,
    /// Replication.
    pub replication: ReplicationStatus,
    /// SAs that are held, and why; the first few.
    pub held: Vec<String>,
}

/// What was last heard of the partner.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PartnerHeard {
    /// Microseconds ago.
    pub ago_us: u64,
    /// `active` or `standby`.
    pub role: String,
    /// Its state in its own words.
    pub state: String,
    /// Newest reign that it knows.
    pub reign: u64,
    /// Its incarnation.
    pub incarnation: u64,
    /// Does it say that it is forwarding?
    pub forwarding: bool,
}

/// One path.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PathStatus {
    /// Name.
    pub name: String,
    /// Own address and port.
    pub local: String,
    /// The partner's.
    pub remote: String,
    /// Heard within the last 100 ms.
    pub alive: bool,
    /// Microseconds since something authentic was heard; none yet: absent.
    pub heard_us_ago: Option<u64>,
    /// Datagrams sent.
    pub sent: u64,
    /// Datagrams that could not be sent.
    pub send_errors: u64,
    /// Authentic datagrams received.
    pub received: u64,
    /// Datagrams that were not authentic, malformed, of an unknown epoch or from elsewhere.
    pub bad: u64,
    /// Datagrams that came twice.
    pub replayed: u64,
}

/// One interface as a segment that both nodes share (F25).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SegmentStatus {
    /// Interface.
    pub interface: String,
    /// Carrier and administrative state.
    pub up: bool,
    /// The neighbour that shows that the segment lives; none known: only the carrier is judged.
    #[schemars(with = "Option<String>")]
    pub witness: Option<Ipv4Addr>,
    /// Milliseconds since it answered.
    pub witness_ms_ago: Option<u64>,
    /// Does the segment count as alive?
    pub alive: bool,
}

/// Replication as this node sees it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ReplicationStatus {
    /// Records sent, resent ones included.
    pub records_sent: u64,
    /// Records sent again.
    pub records_resent: u64,
    /// Records acknowledged by the partner.
    pub records_acknowledged: u64,
    /// Records of the partner merged.
    pub records_merged: u64,
    /// Records of the partner for SAs that are not here.
    pub records_unknown: u64,
    /// SAs with something that is not acknowledged.
    pub unacknowledged: u64,
    /// From the opening of a record to its acknowledgement, in microseconds.
    pub lag: LagHistogram,
    /// Packets that wait for an acknowledgement now.
    pub parked: u64,
    /// Most packets that ever waited at once.
    pub parked_max: u64,
    /// Packets that waited and went on.
    pub parked_released: u64,
    /// The acknowledgement's 99th percentile exceeds its bound (F12).
    pub slow_standby: bool,
}

/// A distribution in microseconds, since the start of the data plane.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LagHistogram {
    /// Samples.
    pub count: u64,
    /// Median.
    pub p50_us: u64,
    /// 90th percentile.
    pub p90_us: u64,
    /// 99th percentile.
    pub p99_us: u64,
    /// 99.9th percentile.
    pub p999_us: u64,
    /// Largest.
    pub max_us: u64,
}

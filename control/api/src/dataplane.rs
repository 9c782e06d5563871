//! Control process to data plane: desired state, idempotent, with generation numbers.
//!
//! One message is one datagram of a Unix `SOCK_SEQPACKET` socket, at most [`MESSAGE_MAX`] octets,
//! encoded with postcard. Each [`Request`] is answered by exactly one [`Answer`] with the same id, in
//! order. Nothing is applied in half: a refused request changes nothing.
//!
//! After a connect the control process says [`Body::Hello`] (with the hot-state descriptor attached if
//! it keeps one), reads back what the data plane holds, and then pushes what it wants:
//! [`Body::Configure`], [`Body::InstallSas`] for every SA with a new generation, and
//! [`Body::SweepSas`], which removes the SAs that no install of that generation named. An SA that is
//! there already with the same key is left alone, so that reconciling never touches a working SA.

use crate::counters::{Counter, DropReason, SlowCounter};
use crate::pair::{EpochKey, Event, Grant, PairSettings, PairStatus, SessionNews};
use crate::types::{Direction, KeyFingerprint, KeyMaterial, Mac, Role, Selector, Side, Transform};
use ipnet::Ipv4Net;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::net::Ipv4Addr;

/// Version of this protocol; another one is refused at [`Body::Hello`].
pub const VERSION: u16 = 2;
/// Longest message in octets (below the default socket buffer).
pub const MESSAGE_MAX: usize = 64 * 1024;
/// Descriptors in each ring of an AF_XDP socket. A worker's frames must be enough for the fill and transmit
/// rings of all its sockets.
pub const RING_SIZE: u32 = 2048;
/// Most SAs in one [`Body::InstallSas`] or [`Reply::Sas`].
pub const SAS_PER_MESSAGE: usize = 128;

/// A question or an order.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Request {
    /// Chosen by the control process, repeated in the answer.
    pub id: u64,
    /// What is wanted.
    pub body: Body,
}

/// What a [`Request`] wants.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Body {
    /// First message of a connection. A hot-state memfd may be attached (`SCM_RIGHTS`), which a data
    /// plane that has none yet adopts.
    Hello {
        /// [`VERSION`] of the sender.
        version: u16,
        /// Settings that hold for the life of a data plane process.
        start: StartSettings,
    },
    /// The whole of the small configuration: interfaces, policies, options. Replaces what was there.
    Configure(Box<Config>),
    /// What holds of node and partner; before [`Body::Configure`] and the first SA. Without a partner control gives the role by
    /// [`Body::SetRole`], with one the data plane finds it by itself.
    SetPair(Box<PairSettings>),
    /// What may be used of the term file.
    Grant(Grant),
    /// Keys of the paths to the partner.
    Epoch(EpochKey),
    /// News of the SSP session.
    Session(SessionNews),
    /// Give the role to the partner, or take it (a planned change of roles). Refused with the reason where it
    /// cannot be fresh.
    SwitchOver,
    /// State of the pair.
    PairStatus,
    /// Role and term of a node without partner (`failover.md` F1). A term lower than the present one is refused
    /// (F27); so is this request where there is a partner.
    SetRole {
        /// Active or standby.
        role: Role,
        /// The term of the reign.
        term: u64,
    },
    /// Install, or confirm under a newer generation. At most [`SAS_PER_MESSAGE`].
    InstallSas {
        /// Generation of this reconciliation.
        generation: u64,
        /// SAs wanted.
        sas: Vec<SaSpec>,
    },
    /// Remove every SA whose last install has another generation than this one.
    SweepSas {
        /// Generation of this reconciliation.
        generation: u64,
    },
    /// SAs, at most [`SAS_PER_MESSAGE`], from this position on.
    ListSas {
        /// 0, or [`Reply::Sas`]'s `next`.
        from: u32,
    },
    /// Counters, interfaces, workers.
    Status,
    /// Take program and sockets off the interfaces and end (`tandemctl detach`).
    Detach,
}

/// Settings that hold for the life of a data plane process. A running data plane that was started with
/// others refuses [`Body::Hello`] and names the setting.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StartSettings {
    /// Worker threads; worker `i` takes queue `i` of each interface (modulo).
    pub workers: u16,
    /// SA slots of each direction.
    pub max_sas: u32,
    /// UMEM frames of each worker, a power of two.
    pub frames: u32,
    /// AEAD provider: `auto`, `vaes`, `aws-lc-rs` or `aes-gcm`.
    pub aead: String,
    /// What a worker does without work.
    pub idle: Idle,
}

/// What a worker does without work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Idle {
    /// Spin a few hundred rounds, then sleep in `poll`.
    Adaptive,
    /// Never sleep.
    Spin,
}

/// The small configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Config {
    /// Interfaces that Tandem takes packets from.
    pub interfaces: Vec<Interface>,
    /// Policies; for a packet the one with the lowest `priority` number that covers it decides.
    pub policies: Vec<Policy>,
}

/// One interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interface {
    /// Kernel name.
    pub name: String,
    /// Which side it faces.
    pub side: Side,
    /// Virtual addresses with their prefix length; the data plane answers ARP and ping for them.
    pub virtual_addresses: Vec<Ipv4Net>,
    /// Virtual MAC of the addresses.
    pub virtual_mac: Mac,
    /// Queues to take, from 0 on.
    pub queues: u16,
    /// How the XDP program is attached.
    pub mode: XdpMode,
    /// Lower the MSS option of TCP SYNs that cross a tunnel so that segments fit.
    pub mss_clamp: bool,
    /// A neighbour that shows that this segment lives (F25); `None`: the next hop of a route over it, if any.
    pub witness: Option<Ipv4Addr>,
}

/// How the XDP program is attached, and sockets are bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum XdpMode {
    /// Native, zero-copy where the driver has it, otherwise copy; refused where there is no native mode.
    Native,
    /// As `native`, but zero-copy or refuse.
    Zerocopy,
    /// As `native`, but copy.
    Copy,
    /// Generic XDP: any driver, slow.
    Generic,
}

/// One policy (RFC 4301 SPD entry), seen from this gateway; it holds for both directions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    /// Name for operators: the crypto map's, or the policy's own.
    pub name: String,
    /// Lowest wins; two policies of the same priority whose selectors overlap are a configuration error.
    pub priority: u32,
    /// Traffic covered.
    pub selector: Selector,
    /// What happens to it.
    pub action: PolicyAction,
}

/// What a policy does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum PolicyAction {
    /// Through the SA that serves this policy (same `policy` number as in [`SaSpec`]), never in clear.
    Protect {
        /// Number that ties SAs to the policy; unique in a [`Config`].
        policy: u32,
    },
    /// Forward in clear.
    Bypass,
    /// Drop and count.
    Discard,
}

/// One SA.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SaSpec {
    /// Direction.
    pub direction: Direction,
    /// SPI, at least 256 (RFC 4303 section 2.1).
    pub spi: u32,
    /// Policy that it serves.
    pub policy: u32,
    /// What may travel in it.
    pub selectors: Vec<Selector>,
    /// Outer address of ours.
    pub local: Ipv4Addr,
    /// Outer address of the peer's.
    pub peer: Ipv4Addr,
    /// Transform.
    pub transform: Transform,
    /// Key and salt.
    pub key: KeyMaterial,
    /// Fingerprint of `transform` and `key`.
    pub fingerprint: KeyFingerprint,
    /// Base term of the key (`failover.md` F3).
    pub base_term: u64,
    /// What a stale takeover does with it (F24).
    pub stale: StaleAction,
    /// Name of the crypto map, for operators.
    pub map: String,
}

/// What a stale takeover does with a static SA (F24).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum StaleAction {
    /// Go on past all numbers that rate and time can have used; G2 and G3 are not promised then.
    #[default]
    Jump,
    /// No traffic until an operator acts.
    Hold,
}

/// What the data plane says: an answer, or an event that nobody asked for.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Said {
    /// To a request.
    Answer(Answer),
    /// Unasked; in the order in which things happened.
    Event(Event),
}

/// The answer to a [`Request`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Answer {
    /// Id of the request.
    pub id: u64,
    /// Reply, or why it was refused (then nothing has changed).
    pub result: Result<Reply, Refusal>,
}

/// Why a request was refused. Nothing has changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{reason}")]
pub struct Refusal {
    /// What was wrong, where, and what to do.
    pub reason: String,
}

/// What a request brought.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Reply {
    /// To [`Body::Hello`]. The hot-state memfd of the data plane is attached, to be kept.
    Hello(Hello),
    /// Done.
    Done,
    /// To [`Body::InstallSas`].
    Installed {
        /// Made new.
        new: u32,
        /// Made new on hot state that was there already for this key (F8).
        resumed: u32,
        /// Were there already.
        unchanged: u32,
    },
    /// To [`Body::SweepSas`]: how many were removed.
    Swept(u32),
    /// To [`Body::ListSas`].
    Sas {
        /// SAs.
        sas: Vec<SaStatus>,
        /// Where to go on, if there are more.
        next: Option<u32>,
    },
    /// To [`Body::Status`].
    Status(Box<Status>),
    /// To [`Body::PairStatus`].
    Pair(Box<PairStatus>),
}

/// What the data plane says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Hello {
    /// Its [`VERSION`].
    pub version: u16,
    /// Package version.
    pub software: String,
    /// Process id.
    pub pid: u32,
    /// Was the hot state there before this process (adopted or kept), or was it made new? Made new means
    /// that a new term is due (`failover.md` F2).
    pub hot_state: HotStateOrigin,
    /// Role now.
    pub role: Role,
    /// Term that the hot state holds; 0 where none was set yet.
    pub term: u64,
    /// Highest generation that any SA has.
    pub generation: u64,
}

/// Where the hot state of a data plane comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum HotStateOrigin {
    /// Made new: sequence numbers start anew.
    Fresh,
    /// Taken over from an earlier process.
    Adopted,
}

/// One SA as it runs. Counter names after Cisco's `show crypto ipsec sa`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SaStatus {
    /// Direction.
    pub direction: Direction,
    /// SPI.
    pub spi: u32,
    /// Slot in the SA table.
    pub slot: u32,
    /// Policy that it serves.
    pub policy: u32,
    /// Crypto map.
    pub map: String,
    /// Selectors.
    pub selectors: Vec<Selector>,
    /// Outer address of ours.
    pub local: Ipv4Addr,
    /// Outer address of the peer's.
    pub peer: Ipv4Addr,
    /// Transform.
    pub transform: Transform,
    /// Fingerprint of the key.
    pub fingerprint: KeyFingerprint,
    /// Base term of the key.
    pub base_term: u64,
    /// Generation of the last install.
    pub generation: u64,
    /// Packets sealed (outbound), or opened and accepted (inbound).
    pub packets: u64,
    /// Octets of inner packets.
    pub bytes: u64,
    /// Outbound: last sequence number given out. Inbound: highest one accepted.
    pub sequence: u64,
    /// Inbound: packets whose number was seen before.
    pub replayed: u64,
    /// Inbound: packets left of the window.
    pub too_old: u64,
    /// Inbound: packets whose ICV was wrong.
    pub auth_failed: u64,
    /// Inbound: packets that were authentic and wrong inside (padding, protocol, selectors).
    pub inner_wrong: u64,
    /// Outbound: packets that could not be sealed (numbers or terms used up).
    pub send_errors: u64,
    /// Numbers the window covers (inbound), 0 (outbound).
    pub window: u32,
    /// Outbound: last number that the partner has acknowledged as used (F14).
    pub lease_end: u64,
    /// Last number reserved on disk (F40); 0 for an SA that is held.
    pub limit: u64,
}

/// Counters and interfaces.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Status {
    /// Role.
    pub role: Role,
    /// Term.
    pub term: u64,
    /// AEAD provider in use.
    pub aead: String,
    /// Sums over the workers, and of the slow path, in the order of the lists.
    pub counters: CounterValues,
    /// Interfaces.
    pub interfaces: Vec<InterfaceStatus>,
    /// Workers.
    pub workers: Vec<WorkerStatus>,
    /// SAs installed, inbound and outbound.
    pub sas: (u32, u32),
}

/// The values of every counter of [`crate::counters`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CounterValues {
    /// By [`Counter`].
    pub counters: Vec<u64>,
    /// By [`DropReason`], workers and slow path together.
    pub drops: Vec<u64>,
    /// By [`DropReason`], the slow path's part of `drops`.
    pub slow_drops: Vec<u64>,
    /// By [`SlowCounter`].
    pub slow: Vec<u64>,
}

impl CounterValues {
    /// One counter.
    #[must_use]
    pub fn counter(&self, counter: Counter) -> u64 {
        self.counters.get(counter as usize).copied().unwrap_or(0)
    }

    /// One drop reason.
    #[must_use]
    pub fn dropped(&self, reason: DropReason) -> u64 {
        self.drops.get(reason as usize).copied().unwrap_or(0)
    }

    /// One counter of the slow path.
    #[must_use]
    pub fn slow(&self, counter: SlowCounter) -> u64 {
        self.slow.get(counter as usize).copied().unwrap_or(0)
    }

    /// All drops.
    #[must_use]
    pub fn dropped_total(&self) -> u64 {
        self.drops.iter().sum()
    }
}

/// One interface as it runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct InterfaceStatus {
    /// Name.
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
    /// Virtual addresses.
    #[schemars(with = "Vec<String>")]
    pub virtual_addresses: Vec<Ipv4Net>,
    /// `native` or `generic`.
    pub xdp_mode: String,
    /// Are all sockets zero-copy?
    pub zero_copy: bool,
    /// Queues taken.
    pub queues: u16,
    /// Frames received by the workers.
    pub rx_frames: u64,
    /// Octets received.
    pub rx_bytes: u64,
    /// Frames handed to the interface.
    pub tx_frames: u64,
    /// Octets handed to the interface.
    pub tx_bytes: u64,
    /// The XDP program's decisions, name to count, summed over CPUs.
    pub steering: Vec<(String, u64)>,
    /// The kernel's socket statistics (`XDP_STATISTICS`), name to count, summed over queues.
    pub socket: Vec<(String, u64)>,
}

/// One worker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct WorkerStatus {
    /// Number.
    pub worker: u16,
    /// Core that it is pinned to, if any.
    pub core: Option<u32>,
    /// Rounds of its loop.
    pub rounds: u64,
    /// Frames that it has free now.
    pub free_frames: u32,
}

/// Encodes a message.
///
/// # Errors
/// If it does not fit into [`MESSAGE_MAX`].
pub fn encode<T: Serialize>(message: &T) -> Result<Vec<u8>, CodecError> {
    let bytes = postcard::to_stdvec(message)?;
    if bytes.len() > MESSAGE_MAX {
        return Err(CodecError::TooLong(bytes.len()));
    }
    Ok(bytes)
}

/// Decodes a message.
///
/// # Errors
/// If `bytes` is not exactly one message.
pub fn decode<'de, T: Deserialize<'de>>(bytes: &'de [u8]) -> Result<T, CodecError> {
    match postcard::take_from_bytes(bytes)? {
        (message, []) => Ok(message),
        (_, rest) => Err(CodecError::Trailing(rest.len())),
    }
}

/// Why a message could not be encoded or decoded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// Not a message of this version.
    #[error("not a message of this protocol version: {0}")]
    Postcard(#[from] postcard::Error),
    /// Longer than [`MESSAGE_MAX`].
    #[error("message of {0} octets is longer than {MESSAGE_MAX}")]
    TooLong(usize),
    /// Octets after the message.
    #[error("{0} octets after the message")]
    Trailing(usize),
}

//! What operators are shown of sessions.

use super::Nanos;
use crate::message::{Hello, KINDS};

/// Why a session ended.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum End {
    /// The other side closed the connection, or it broke.
    #[error("the connection ended: {0}")]
    Closed(String),
    /// The other side cannot be reached any more.
    #[error("{0}")]
    Unreachable(String),
    /// Nothing was heard for too long.
    #[error("nothing was heard for 3 s")]
    Silent,
    /// Another version of the protocol.
    #[error("the partner speaks version {0} of SSP, this node version {own}: run one version on both nodes", own = crate::VERSION)]
    Version(u16),
    /// Something else is there.
    #[error("what answers there does not speak SSP: look at redundancy.path, address and port")]
    NotSsp,
    /// It does not hold the partner's key, or octets were changed on the way.
    #[error(
        "not the configured partner ({0}): compare redundancy.partner-key with `tandemctl node show` on the other node, both ways"
    )]
    NotPartner(String),
    /// It does not keep to the protocol.
    #[error("the partner does not keep to the protocol: {0}")]
    Malformed(String),
    /// The configurations differ in this key.
    #[error("the configurations differ: {0}")]
    Mismatch(String),
    /// This node has refused.
    #[error("{0}")]
    Refused(String),
    /// The partner has refused.
    #[error("the partner refused: {0}")]
    RefusedByPartner(String),
    /// Another session took its place.
    #[error("another session took its place")]
    Replaced,
    /// Something failed on this node.
    #[error("{0}")]
    Internal(String),
}

impl End {
    /// Is it the same again until somebody changes something? Then it is tried more slowly.
    #[must_use]
    pub fn is_refusal(&self) -> bool {
        !matches!(self, End::Closed(_) | End::Unreachable(_) | End::Silent | End::Replaced)
    }
}

/// How often a kind of message went each way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MessageCount {
    /// Sent.
    pub sent: u64,
    /// Received.
    pub received: u64,
}

/// Counters over all sessions of a process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// By [`KINDS`].
    pub messages: [MessageCount; KINDS.len()],
    /// Octets sent, lengths included.
    pub octets_sent: u64,
    /// Octets received.
    pub octets_received: u64,
    /// Sessions that came up.
    pub sessions_up: u64,
    /// Ended because of different configurations.
    pub mismatches: u64,
    /// Refused by either node for another reason.
    pub refused: u64,
    /// Not the partner, not SSP, or changed on the way.
    pub not_partner: u64,
    /// Another version.
    pub versions: u64,
    /// Malformed.
    pub malformed: u64,
    /// Nothing heard for too long.
    pub silent: u64,
}

impl Counters {
    pub(super) fn count(&mut self, end: &End) {
        match end {
            End::Mismatch(_) => self.mismatches += 1,
            End::Refused(_) | End::RefusedByPartner(_) => self.refused += 1,
            End::NotPartner(_) | End::NotSsp => self.not_partner += 1,
            End::Version(_) => self.versions += 1,
            End::Malformed(_) => self.malformed += 1,
            End::Silent => self.silent += 1,
            End::Closed(_) | End::Unreachable(_) | End::Replaced | End::Internal(_) => {}
        }
    }
}

/// How far a session is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Preamble and handshake.
    Handshake,
    /// Waits for Hello.
    Greeting,
    /// Looks for the key in which the configurations differ.
    Comparing,
    /// Terms are being reserved.
    Reserving,
    /// Up.
    Up,
    /// Over.
    Ended,
}

impl Stage {
    /// One word.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Stage::Handshake => "handshake",
            Stage::Greeting => "greeting",
            Stage::Comparing => "comparing",
            Stage::Reserving => "reserving",
            Stage::Up => "up",
            Stage::Ended => "ended",
        }
    }
}

/// A stream in one direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamState {
    /// Term of the source's reign.
    pub reign: u64,
    /// Position of the last message sent or received.
    pub position: u64,
    /// Position up to which the receiver has applied it.
    pub applied: u64,
    /// Sending: was the bulk sent?
    pub complete: bool,
}

/// A session, for operators.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// How far it is.
    pub stage: Stage,
    /// Was it dialled by this node?
    pub dialled: bool,
    /// When it was begun.
    pub since: Nanos,
    /// When something was last heard.
    pub heard: Nanos,
    /// Round trip of the last question, in nanoseconds.
    pub round_trip: Option<Nanos>,
    /// What the partner said of itself.
    pub partner: Option<Hello>,
    /// The own stream.
    pub sending: Option<StreamState>,
    /// The partner's stream.
    pub receiving: Option<StreamState>,
}

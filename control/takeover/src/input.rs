//! What goes into a node and what comes out of it.

use tandem_lease::NodeNumber;
pub use tandem_lease::{Memory, SaKey, Way};

/// A moment or a span in nanoseconds, on a clock that also runs while the machine is suspended (`CLOCK_BOOTTIME`).
pub type Nanos = u64;

/// One millisecond.
pub const MS: Nanos = 1_000_000;

/// What a node is and how it watches its partner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Number in the pair.
    pub node: NodeNumber,
    /// Is there a partner? Without one the node is alone for ever and takes its role by [`Input::Role`].
    pub partner: bool,
    /// Decides between two cold nodes: the higher one is active (F22).
    pub priority: u8,
    /// Number of paths to the partner, the preferred one first.
    pub paths: u8,
    /// Between two heartbeats.
    pub heartbeat: Nanos,
    /// D_b: the standby takes over after so much silence.
    pub takeover: Nanos,
    /// D_a: the active node goes alone after so much silence.
    pub alone: Nanos,
    /// A cold node that hears nothing waits so long.
    pub cold_wait: Nanos,
    /// The standby says goodbye when its control or the SSP session has been gone so long.
    pub grace: Nanos,
    /// How much slower the partner's clock may run, over D_a.
    pub drift: Nanos,
    /// Records that were not acknowledged are sent again after so long.
    pub resend: Nanos,
    /// First pause after a join that failed; doubles up to `rejoin_max`.
    pub rejoin: Nanos,
    /// Longest pause after a join that failed.
    pub rejoin_max: Nanos,
}

impl Config {
    /// The defaults of `docs/failover.md`, with a partner over `paths` paths.
    #[must_use]
    pub fn new(node: NodeNumber, paths: u8) -> Self {
        Self {
            node,
            partner: true,
            priority: 100,
            paths,
            heartbeat: 2 * MS,
            takeover: 10 * MS,
            alone: 30 * MS,
            cold_wait: 3000 * MS,
            grace: 3000 * MS,
            drift: MS,
            resend: 2 * MS,
            rejoin: 1000 * MS,
            rejoin_max: 30_000 * MS,
        }
    }
}

/// What a stale takeover does with an SA (F24).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stale {
    /// Goes on past all that rate and time can have used.
    Jump,
    /// Is held.
    Hold,
}

/// An SA that was installed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sa {
    /// Its name.
    pub key: SaKey,
    /// Slot of its hot state on this node.
    pub slot: u32,
    /// What a stale takeover does with it.
    pub stale: Stale,
    /// What is known of its numbers on this node.
    pub known: Known,
}

/// What a node knows of the numbers of an SA that it installs (F40).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Known {
    /// Its hot state was in memory already.
    Memory,
    /// No node has ever used the key: it was made after the numbers file.
    Never,
    /// Last number that may have been used (outbound), or delivered (inbound), as the numbers file says.
    UpTo(u64),
    /// It may have been used, and the file does not say how far: held until the partner says.
    Lost,
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// What the node may use of its term file; all of it is on disk.
    Grant {
        /// Highest term that may have been used.
        taken: u64,
        /// Highest term reserved.
        reserved: u64,
        /// Newest reign that the file knows.
        reign: u64,
        /// Incarnation; a new one whenever [`Action::NeedGrant`] asked for it.
        incarnation: u64,
        /// May the node become active?
        eligible: bool,
    },
    /// Role and term of a node without partner.
    Role {
        /// Active?
        active: bool,
        /// Term.
        term: u64,
    },
    /// The SSP session is up with this incarnation of the partner, and the configurations are equal.
    SessionUp {
        /// The partner's incarnation.
        partner_incarnation: u64,
    },
    /// It is down, or the own control process is gone.
    SessionDown,
    /// Control has passed a quiet point after [`Action::Joining`].
    Quiet {
        /// Incarnation that was named.
        incarnation: u64,
        /// Position of the SSP stream.
        position: u64,
    },
    /// The partner's SSP stream was applied here, as standby.
    Applied {
        /// Own incarnation then.
        incarnation: u64,
        /// Position.
        position: u64,
        /// With end-of-bulk.
        end_of_bulk: bool,
    },
    /// Something came from the partner's address that cannot be opened, because the keys of the paths are not there yet:
    /// it may live, so that a cold node does not take over before it can hear.
    Overheard,
    /// An operator wants the roles changed.
    SwitchOver,
    /// Every worker has worked by this handling word, or a later one.
    WorkersPassed {
        /// The word.
        word: u64,
    },
    /// Reservations are on disk.
    Persisted {
        /// Of [`Action::Persist`].
        id: u64,
    },
    /// An SA was installed; its slot's hot state is bound.
    Install(Sa),
    /// An SA was removed.
    Remove(SaKey),
    /// What this node sees of itself and its segments; given at least every heartbeat.
    Sight(Sight),
}

/// What a node sees of itself and of the segments that it shares with its partner (F25, F26).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sight {
    /// Every worker moves, or sleeps with empty rings.
    pub forwarding: bool,
    /// Inside and outside, each interface.
    pub segments: Vec<Segment>,
}

/// One segment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Segment {
    /// Carrier and administrative state.
    pub up: bool,
    /// Is a witness known?
    pub has_witness: bool,
    /// When it last answered.
    pub witness_seen: Option<Nanos>,
}

/// Something that must be done. The machine has changed the memory already where that is its part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// The role word has changed: tell the XDP programs, wake the workers.
    Role {
        /// Active?
        active: bool,
    },
    /// The handling word has changed: wake the workers, and say [`Input::WorkersPassed`] once all have echoed it.
    Handling {
        /// The word.
        word: u64,
    },
    /// Announce the virtual addresses, now and for some seconds (F29).
    Announce,
    /// Ask all witnesses now: the partner is silent (F25).
    Probe,
    /// Write these to disk, then say [`Input::Persisted`] (F40).
    Persist {
        /// To be repeated.
        id: u64,
        /// SAs and the number up to which each is reserved.
        entries: Vec<(SaKey, u64)>,
    },
    /// A grant is needed.
    NeedGrant {
        /// With a new incarnation.
        incarnation: bool,
    },
    /// A reign has begun; to be noted on disk.
    Reign {
        /// Its term.
        term: u64,
        /// Of this node?
        own: bool,
    },
    /// Control must pass a quiet point.
    Joining {
        /// Of this incarnation of the partner.
        incarnation: u64,
    },
    /// The partner does not know an SA: control sends it again.
    Resend(SaKey),
    /// For the operator.
    History {
        /// One word: `takeover`, `demotion`, `strict`, `alone`, ...
        step: &'static str,
        /// For people.
        text: String,
    },
}

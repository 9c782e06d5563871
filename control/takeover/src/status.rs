//! What is to be shown of a node.

use crate::active::Standing;
use crate::input::{MS, Memory, Nanos};
use crate::node::{Counts, Node, Role};
use tandem_lease::message::{Header, flag};

/// States in the sender's own words, by number on the wire.
const STATES: [&str; 11] = [
    "cold",
    "unsynchronized",
    "sealed",
    "synchronized",
    "unmerged",
    "alone",
    "bulk",
    "joining",
    "strict",
    "halted",
    "unknown",
];

/// The bound of the acknowledgement's time beyond which the standby is slow (F12).
const SLOW: Nanos = 5 * MS;

/// What is to be shown of a node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// Is it active?
    pub active: bool,
    /// Own term if active, else the newest reign heard of.
    pub term: u64,
    /// Its state in one word.
    pub state: &'static str,
    /// Incarnation of its memory; 0 for none.
    pub incarnation: u64,
    /// Could it become active?
    pub eligible: bool,
    /// Terms left without a write.
    pub terms_left: u64,
    /// Active, and strict.
    pub strict: bool,
    /// Standby, and synchronized.
    pub synchronized: bool,
    /// Was the last takeover of this node fresh? `None` without one.
    pub took_over_fresh: Option<bool>,
    /// A takeover would be fresh for so long.
    pub fresh_for: Nanos,
    /// What is not promised now, and why.
    pub not_promised: Vec<String>,
    /// The partner as last heard.
    pub heard: Option<Heard>,
    /// SAs with something that is not acknowledged.
    pub unacknowledged: usize,
    /// Acknowledgements take longer than their bound.
    pub slow_standby: bool,
    /// What has happened.
    pub counts: Counts,
}

/// The partner as last heard.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Heard {
    /// So long ago.
    pub ago: Nanos,
    /// Was it active?
    pub active: bool,
    /// Its state in its own words.
    pub state: &'static str,
    /// Newest reign that it knows.
    pub reign: u64,
    /// Its incarnation.
    pub incarnation: u64,
    /// Does it forward?
    pub forwarding: bool,
}

impl Node {
    /// Its state in one word, as [`Status::state`].
    #[must_use]
    pub fn state(&self) -> &'static str {
        match &self.role {
            Role::Active(active) if active.is_halted() => "halted",
            Role::Active(active) => match active.standing {
                Standing::Alone => "alone",
                Standing::Bulk { .. } => "bulk",
                Standing::Quiet { .. } | Standing::Version { .. } => "joining",
                Standing::Strict { .. } => "strict",
            },
            Role::Standby(standby) => standby.state(),
        }
    }

    pub(crate) fn state_number(&self) -> u8 {
        let state = self.state();
        STATES.iter().position(|known| *known == state).unwrap_or(STATES.len() - 1) as u8
    }

    /// What is to be shown.
    #[must_use]
    pub fn status(&self, _memory: Memory<'_>, now: Nanos) -> Status {
        let terms_left = self.terms.map_or(0, |terms| {
            let first = self.config.node.next_above(terms.taken.max(self.reign)).unwrap_or(u64::MAX);
            if first <= terms.reserved { (terms.reserved - first) / 2 + 1 } else { 0 }
        });
        let header = &self.partner.header;
        let heard = self.partner.heard.then(|| Heard {
            ago: now.saturating_sub(self.partner.heard_at),
            active: header.is(flag::ACTIVE),
            state: STATES.get(usize::from(header.state)).copied().unwrap_or("unknown"),
            reign: header.reign.get(),
            incarnation: header.incarnation.get(),
            forwarding: !header.is(flag::NOT_FORWARDING),
        });
        let (active, term, fresh_for) = match &self.role {
            Role::Active(active) => (true, active.term, 0),
            Role::Standby(standby) if standby.is_fresh(now) => (false, self.reign, standby.fresh_until - now),
            Role::Standby(_) => (false, self.reign, 0),
        };
        Status {
            active,
            term,
            state: self.state(),
            incarnation: self.incarnation,
            eligible: self.is_eligible(),
            terms_left,
            strict: self.state() == "strict",
            synchronized: self.state() == "synchronized",
            took_over_fresh: self.took_over_fresh,
            fresh_for,
            not_promised: self.not_promised(header, now),
            heard,
            unacknowledged: self.sender.unclean(),
            slow_standby: self.recent_lag > SLOW,
            counts: Counts { sender: self.sender.counts(), ..self.counts },
        }
    }

    fn not_promised(&self, partner: &Header, now: Nanos) -> Vec<String> {
        let mut list = Vec::new();
        if !self.config.partner {
            return list;
        }
        let mut add = |text: &str| list.push(text.to_owned());
        let silent = !self.partner.heard || self.partner.silence >= self.config.alone;
        match &self.role {
            Role::Active(active) if matches!(active.standing, Standing::Strict { .. }) => {}
            Role::Active(active) if active.is_halted() => {
                add("no traffic: two nodes were active, and their states are not merged yet");
            }
            Role::Active(_) if silent => add("no failover: the partner is not heard"),
            Role::Active(_) if self.session.is_none() => {
                add("a failover would be stale: there is no SSP session, or the configurations differ");
            }
            Role::Active(_) if partner.is(flag::ACTIVE) => add("both nodes are active"),
            Role::Active(_) => add("a failover would be stale: the standby is not synchronized yet"),
            Role::Standby(standby) if standby.is_fresh(now) => {}
            Role::Standby(standby) if standby.unmerged => {
                add("this node's final state is not merged by the active node yet");
            }
            Role::Standby(_) if silent => add("the partner is not heard; this node is not active"),
            Role::Standby(_) => add("a takeover would be stale: this node is not synchronized"),
        }
        if !self.is_eligible() {
            add("this node cannot become active: it has not learnt its partner's terms, or has none left");
        }
        if !self.sight.forwarding {
            add("this node does not forward");
        }
        if !self.sees_all(now) {
            add("a segment is down, or its witness does not answer");
        }
        list
    }
}

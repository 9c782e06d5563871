//! What a standby does: it merges, seals, knows for how long it is fresh, and takes over (F18, F20 to F25).

use crate::active::Active;
use crate::input::{Action, Memory, Nanos, Stale};
use crate::node::{Node, Role};
use std::sync::atomic::Ordering;
use tandem_lease::message::{Header, flag};
use tandem_lease::mutant::{self, Mutant};
use tandem_shm::{Handling, ROLE_ACTIVE, ROLE_STANDBY};

/// A standby.
#[derive(Debug)]
pub(crate) struct Standby {
    /// The partner's SSP stream as applied here: own incarnation then, position, with end-of-bulk.
    pub applied: (u64, u64, bool),
    /// v that the partner wants sealed, and the position of the stream that belongs to it.
    pub seal_wanted: Option<(u64, u64)>,
    sealed: Option<u64>,
    synchronized: bool,
    /// Until then a takeover is fresh (F21).
    pub fresh_until: Nanos,
    /// It acted alone, lost against a later term, and its final state is not merged (F28).
    pub unmerged: bool,
    /// It has not heard an active partner since it started.
    cold: bool,
    better_since: Option<Nanos>,
    /// A takeover is due and a witness is missing: said once.
    waits_for_witness: bool,
}

impl Standby {
    pub fn new(cold: bool) -> Self {
        Self {
            applied: (0, 0, false),
            seal_wanted: None,
            sealed: None,
            synchronized: false,
            fresh_until: 0,
            unmerged: false,
            cold,
            better_since: None,
            waits_for_witness: false,
        }
    }

    pub fn forget_synchronization(&mut self) {
        (self.sealed, self.synchronized, self.seal_wanted, self.fresh_until) = (None, false, None, 0);
    }

    pub fn is_fresh(&self, now: Nanos) -> bool {
        self.synchronized && now < self.fresh_until
    }

    pub fn state(&self) -> &'static str {
        match (self.synchronized, self.sealed, self.cold) {
            _ if self.unmerged => "unmerged",
            (true, _, _) => "synchronized",
            (false, Some(_), _) => "sealed",
            (false, None, true) => "cold",
            (false, None, false) => "unsynchronized",
        }
    }
}

/// What decides between two nodes of which none is active; the higher one takes over: first what F25 asks, then F22.
type Rank = (bool, usize, bool, u8, bool, bool);

impl Node {
    pub(crate) fn standby_mut(&mut self) -> Option<&mut Standby> {
        match &mut self.role {
            Role::Standby(standby) => Some(standby),
            Role::Active(_) => None,
        }
    }

    /// The newest message of the partner, at a standby.
    pub(crate) fn follow_as_standby(&mut self, header: &Header, memory: Memory<'_>) {
        let active = header.is(flag::ACTIVE);
        if active && self.lone_state && header.term.get() > self.own_reign {
            self.lose(memory);
        }
        if header.is(flag::LEAVE) && active {
            self.goodbye("the active node asked for it");
        }
        let incarnation = self.incarnation;
        let sent_at = self.partner.sent_at(header.confirmed_number.get());
        let drift = self.config.drift;
        let Some(standby) = self.standby_mut() else { return };
        standby.cold &= !active;
        let of_us = header.strict_incarnation.get() == incarnation
            && incarnation != 0
            && standby.sealed == Some(header.strict_version.get());
        if active && header.is(flag::STRICT) && (of_us || mutant::is(Mutant::StrictWithoutIncarnation)) {
            let first = !std::mem::replace(&mut standby.synchronized, true);
            if header.confirmed_incarnation.get() == incarnation
                && let Some(sent_at) = sent_at
            {
                let alone = Nanos::from(header.alone_us.get()) * 1000;
                let until = sent_at.saturating_add(alone).saturating_sub(drift);
                standby.fresh_until = standby.fresh_until.max(until);
            }
            if first {
                let version = header.strict_version.get();
                self.history(
                    "synchronized",
                    format!("strict since version {version}: a takeover loses nothing"),
                );
            }
        } else if active && standby.synchronized {
            standby.forget_synchronization();
            self.history("unsynchronized", "the active node is alone");
        }
    }

    /// Another node reigns, and does not know what this one did alone: it is told until it has merged it (F28).
    fn lose(&mut self, memory: Memory<'_>) {
        let Some(standby) = self.standby_mut() else { return };
        if std::mem::replace(&mut standby.unmerged, true) {
            return;
        }
        standby.forget_synchronization();
        self.answers.clear();
        self.sas.owe_nothing();
        self.sender.restart(true, memory);
        self.history("unmerged", "this node acted alone, and another one reigns: its final state is sent");
    }

    /// Seals v, if everything that belongs to it is here (F18 step 4).
    pub(crate) fn seal(&mut self) {
        let incarnation = self.incarnation;
        let Role::Standby(standby) = &mut self.role else { return };
        let Some((version, position)) = standby.seal_wanted else { return };
        let (of, applied, end_of_bulk) = standby.applied;
        let complete = of == incarnation && applied >= position && end_of_bulk;
        if standby.unmerged || !complete && !mutant::is(Mutant::ControlNotInVersion) {
            return;
        }
        standby.seal_wanted = None;
        if standby.sealed != Some(version) {
            standby.forget_synchronization();
            standby.sealed = Some(version);
        }
        if mutant::is(Mutant::SkipStrictSince) {
            standby.synchronized = true;
            let until = self.partner.newest_sent().saturating_add(self.config.alone);
            standby.fresh_until = standby.fresh_until.max(until);
        }
        self.sealed_due = Some(version);
    }

    /// Ends this incarnation (F20).
    fn goodbye(&mut self, why: &str) {
        if self.incarnation == 0 {
            return;
        }
        (self.ended, self.incarnation) = (self.incarnation, 0);
        if let Some(standby) = self.standby_mut() {
            standby.forget_synchronization();
        }
        self.answers.clear();
        self.sealed_due = None;
        self.sas.owe_nothing();
        self.heartbeat_due = 0;
        self.history("goodbye", why.to_owned());
        if self.session.is_some() {
            self.ask_for_incarnation();
        }
    }

    /// Time has passed for a standby.
    pub(crate) fn standby_timeout(&mut self, memory: Memory<'_>, now: Nanos) {
        if !self.config.partner {
            return;
        }
        if self.session.is_none() && self.session_gone >= self.config.grace && self.joined() {
            self.goodbye("the SSP session has been gone for too long");
        }
        if mutant::is(Mutant::FreshFromSent) {
            let until = self.partner.newest_sent().saturating_add(self.config.alone);
            if let Some(standby) = self.standby_mut() {
                standby.fresh_until = until;
            }
        }
        self.seal();
        self.finish_losing(memory);
        if self.partner.active_silence >= self.config.takeover / 2 && self.partner.heard {
            self.probe(now);
        }
        self.contend(memory, now);
    }

    /// Has the partner reason to count on this incarnation?
    fn joined(&self) -> bool {
        matches!(&self.role, Role::Standby(standby) if standby.sealed.is_some() || standby.seal_wanted.is_some())
    }

    fn finish_losing(&mut self, memory: Memory<'_>) {
        let done =
            self.sender.unclean() == 0 || mutant::is(Mutant::FinalOnce) && !self.sender.has_something();
        let left = self.leaving.is_none();
        let Some(standby) = self.standby_mut() else { return };
        if standby.unmerged && done && left {
            standby.unmerged = false;
            self.set_lone(false, memory);
            self.heartbeat_due = 0;
            self.history("merged", "the active node has this node's final state");
        }
    }

    fn own_rank(&self, now: Nanos) -> Rank {
        let fresh = matches!(&self.role, Role::Standby(standby) if standby.is_fresh(now));
        let node = self.config.node;
        (
            fresh,
            self.segments_alive(now),
            self.warm,
            self.config.priority,
            node.owns(self.reign),
            node.number() == 0,
        )
    }

    fn partner_rank(&self) -> Rank {
        let header = &self.partner.header;
        let node = self.config.node;
        let owns = self.reign != 0 && !node.owns(self.reign);
        (
            header.is(flag::FRESH),
            usize::from(header.segments_alive),
            header.is(flag::WARM),
            header.priority,
            owns,
            node.number() != 0,
        )
    }

    /// Should this standby be active?
    fn contend(&mut self, memory: Memory<'_>, now: Nanos) {
        let Role::Standby(standby) = &self.role else { return };
        // Who could merge this node's final state is active, or nobody is and it is the better one.
        let waits_to_be_merged = standby.unmerged && self.partner.is_active();
        if !self.is_eligible() || !self.sight.forwarding || waits_to_be_merged || self.leaving.is_some() {
            return;
        }
        let (fresh, cold, better_since) = (standby.is_fresh(now), standby.cold, standby.better_since);
        let takeover = self.config.takeover;
        let no_active = self.partner.active_silence >= takeover;
        let waited = now.saturating_sub(self.started) >= self.config.cold_wait;
        if !self.partner.heard {
            let quiet =
                self.partner.overheard_at.is_none_or(|at| now.saturating_sub(at) >= self.config.cold_wait);
            if waited && quiet && self.witnessed(now) {
                self.promote("the partner was never heard", memory, now);
            }
            return;
        }
        if self.partner.silence >= takeover {
            let patient = !cold || waited;
            if patient && no_active && self.witnessed(now) {
                self.promote("the partner is silent on all paths", memory, now);
            }
            return;
        }
        if !self.partner.is_active() {
            let first = self.own_rank(now) > self.partner_rank();
            let it_cannot = !self.partner.header.is(flag::ELIGIBLE);
            if no_active && (first || it_cannot && (waited || !cold)) {
                self.promote("no node is active", memory, now);
            }
            return;
        }
        let asked = self.switch_over || self.partner.header.is(flag::HANDOVER);
        if asked && fresh {
            return self.promote("an operator changed the roles", memory, now);
        }
        if self.switch_over {
            self.switch_over = false;
            self.history("refused", "roles are not changed: this node is not synchronized and fresh");
        }
        let stalled = self.partner.header.is(flag::NOT_FORWARDING) && no_active;
        if stalled && (fresh || self.partner.active_silence >= self.config.grace) {
            return self.promote("the partner does not forward", memory, now);
        }
        let better = self.segments_alive(now) > usize::from(self.partner.header.segments_alive);
        let since = better.then(|| better_since.unwrap_or(now));
        if let Some(standby) = self.standby_mut() {
            standby.better_since = since;
        }
        if since.is_some_and(|since| now.saturating_sub(since) >= takeover) && fresh {
            self.promote("the partner sees fewer segments", memory, now);
        }
    }

    /// Does every segment show carrier and witness (F25)? Otherwise they are asked.
    fn witnessed(&mut self, now: Nanos) -> bool {
        let sees = self.sees_all_since_silence(now);
        let Some(standby) = self.standby_mut() else { return false };
        let waits = std::mem::replace(&mut standby.waits_for_witness, !sees);
        if !sees {
            self.probe(now);
            if !waits {
                self.history("isolated", "no takeover: not every segment shows carrier and witness");
            }
        }
        sees
    }

    /// Becomes active.
    fn promote(&mut self, why: &str, memory: Memory<'_>, now: Nanos) {
        let Some(term) = self.next_term() else { return };
        let Role::Standby(standby) = &self.role else { return };
        let (fresh, cold) = (standby.is_fresh(now), standby.cold);
        let silent_us = self.partner.active_silence / 1000;
        if let Some(terms) = &mut self.terms {
            terms.taken = term;
        }
        // Nothing more is answered: what was merged and not acknowledged is no loss.
        self.answers.clear();
        self.sealed_due = None;
        self.sas.owe_nothing();
        let last_reign_was_partners = self.reign != 0 && !self.config.node.owns(self.reign);
        self.reign = term;
        self.own_reign = term;
        self.role = Role::Active(Active::new(term, now, 0));
        self.took_over_fresh = Some(fresh);
        self.set_lone(true, memory);
        self.warm = true;
        self.switch_over = false;
        let header = memory.hot.header();
        if fresh {
            self.hold_unrecorded(memory);
        } else {
            self.make_stale(last_reign_was_partners, memory, now);
        }
        // What this node uses from now on, it can also go on from.
        self.sas.entries_mut().for_each(|entry| {
            entry.basis |= !entry.held;
            entry.end_assumption(fresh, memory.hot);
        });
        header.term.store(term, Ordering::Release);
        self.set_handling(Handling::Alone, memory);
        header.role.store(ROLE_ACTIVE, Ordering::Release);
        self.actions.push_back(Action::Role { active: true });
        self.actions.push_back(Action::Announce);
        self.actions.push_back(Action::Reign { term, own: true });
        self.heartbeat_due = 0;
        let kind = if fresh {
            "fresh"
        } else if cold {
            "cold"
        } else {
            "stale"
        };
        let silent =
            if self.partner.heard { format!(", no active node for {silent_us} us") } else { String::new() };
        self.history("takeover", format!("active in term {term} ({kind}): {why}{silent}"));
    }

    /// Even in a fresh takeover: the partner had an SA and never sent a record of it to this incarnation, because it
    /// held it after a stale takeover of its own (F24). What it knew of it is not known here.
    fn hold_unrecorded(&mut self, memory: Memory<'_>) {
        let mut held = 0;
        let Self { sas, sender, .. } = self;
        let recorded = std::mem::take(&mut sas.recorded);
        for entry in sas.entries_mut() {
            if !recorded.contains(&entry.sa.key) && (entry.basis || entry.stale() == Stale::Hold) {
                entry.hold(memory.hot);
                sender.remove(entry.sa.key);
                held += 1;
            }
        }
        if held > 0 {
            self.history(
                "held",
                format!("{held} SAs carry nothing: the partner held them, or never had them"),
            );
        }
    }

    /// What a stale takeover does with static SAs (F24).
    fn make_stale(&mut self, partner_reigned_last: bool, memory: Memory<'_>, now: Nanos) {
        let mut held = 0;
        let Self { sas, sender, .. } = self;
        for entry in sas.entries_mut() {
            let nothing_to_jump_from = !entry.basis && partner_reigned_last;
            // A key that no node ever used has nothing that could be stale.
            let may_be_stale = entry.stale() == Stale::Hold && entry.basis;
            if entry.held || may_be_stale || nothing_to_jump_from {
                entry.hold(memory.hot);
                sender.remove(entry.sa.key);
                held += 1;
            }
        }
        self.jump_all(memory, now);
        if held > 0 {
            self.history(
                "held",
                format!("{held} SAs carry nothing until the partner or an operator says more"),
            );
        }
    }

    /// Stops being active. What is parked is dropped by the workers, because their role word changes first (F27).
    pub(crate) fn demote(&mut self, why: &str, memory: Memory<'_>) {
        let Role::Active(active) = &self.role else { return };
        let term = active.term;
        memory.hot.header().role.store(ROLE_STANDBY, Ordering::Release);
        self.role = Role::Standby(Standby::new(false));
        // A worker may be in the middle of a round that began before: what it does then belongs to the old reign.
        self.leaving = Some(self.set_handling(Handling::Alone, memory));
        self.actions.push_back(Action::Role { active: false });
        self.sender.void_version();
        (self.seal_due, self.sealed_due) = (None, None);
        (self.leave, self.switch_over) = (false, false);
        (self.incarnation, self.ended) = (0, 0);
        self.answers.clear();
        self.last_answers.clear();
        self.heartbeat_due = 0;
        self.partner.active_silence = 0;
        self.history("demotion", format!("standby, was active in term {term}: {why}"));
    }
}

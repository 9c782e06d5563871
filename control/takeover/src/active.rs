//! What an active node does: alone, letting the partner join, strict (F18, F20), and two active nodes (F28).

use crate::input::{Action, MS, Memory, Nanos, SaKey};
use crate::node::{Node, Role, alive};
use std::sync::atomic::Ordering;
use tandem_lease::message::{Acknowledgement, Header, Record, Verdict, flag};
use tandem_lease::mutant::{self, Mutant};
use tandem_shm::Handling;

/// An active node that is isolated so long fences itself.
const ISOLATED: Nanos = 200 * MS;
/// Longest wait for workers and control to pass a quiet point.
const QUIET: Nanos = 1000 * MS;

/// An active node.
#[derive(Debug)]
pub(crate) struct Active {
    pub term: u64,
    pub standing: Standing,
    retry_at: Nanos,
    pause: Nanos,
    /// While two states are not merged: until when this node stands still at most.
    halted_until: Option<Nanos>,
    /// It has stood still for this episode already.
    has_waited: bool,
    isolated_since: Option<Nanos>,
}

/// How an active node stands to its partner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// On its own.
    Alone,
    /// Sends everything to this incarnation.
    Bulk { incarnation: u64, since: Nanos },
    /// Handles strictly, waits until workers (their word) and control have passed a quiet point.
    Quiet { incarnation: u64, word: u64, workers: bool, control: Option<u64>, since: Nanos },
    /// Has taken v.
    Version { incarnation: u64, version: u64, position: u64, since: Nanos, asked: Nanos },
    /// Strict since v.
    Strict { incarnation: u64, version: u64 },
}

impl Standing {
    fn incarnation(&self) -> Option<u64> {
        match *self {
            Standing::Alone => None,
            Standing::Bulk { incarnation, .. }
            | Standing::Quiet { incarnation, .. }
            | Standing::Version { incarnation, .. }
            | Standing::Strict { incarnation, .. } => Some(incarnation),
        }
    }
}

impl Active {
    pub fn new(term: u64, now: Nanos, first_pause: Nanos) -> Self {
        Self {
            term,
            standing: Standing::Alone,
            retry_at: now,
            pause: first_pause,
            halted_until: None,
            has_waited: false,
            isolated_since: None,
        }
    }

    /// v and the incarnation for which this node is strict.
    pub fn strict_since(&self) -> Option<(u64, u64)> {
        match self.standing {
            Standing::Strict { incarnation, version } => Some((version, incarnation)),
            Standing::Version { incarnation, version, .. } if mutant::is(Mutant::StrictBeforeSealed) => {
                Some((version, incarnation))
            }
            _ => None,
        }
    }

    pub fn is_halted(&self) -> bool {
        self.halted_until.is_some()
    }
}

impl Node {
    pub(crate) fn active_mut(&mut self) -> Option<&mut Active> {
        match &mut self.role {
            Role::Active(active) => Some(active),
            Role::Standby(_) => None,
        }
    }

    fn standing(&self) -> Standing {
        match &self.role {
            Role::Active(active) => active.standing,
            Role::Standby(_) => Standing::Alone,
        }
    }

    fn stand(&mut self, standing: Standing) {
        if let Some(active) = self.active_mut() {
            active.standing = standing;
        }
    }

    /// The newest message of the partner, at an active node.
    pub(crate) fn follow_as_active(&mut self, header: &Header, memory: Memory<'_>, now: Nanos) {
        let Role::Active(active) = &self.role else { return };
        let (term, halted, has_waited) = (active.term, active.is_halted(), active.has_waited);
        let strict_with_us = header.is(flag::STRICT) && header.strict_incarnation.get() == self.incarnation;
        let rival = header.is(flag::ACTIVE) && header.term.get() < term;
        if rival {
            self.actions.push_back(Action::Announce);
        }
        let unmerged = header.is(flag::UNMERGED) || rival && !strict_with_us;
        if unmerged && !halted && !has_waited && !mutant::is(Mutant::LoserNotMerged) {
            self.halt(memory, now);
        } else if !unmerged && !rival && (halted || has_waited) {
            self.resume(memory, "the other node's final state is merged");
        }
        let ours = self.standing().incarnation();
        if let Some(incarnation) = ours {
            let theirs = header.incarnation.get();
            if header.is(flag::GOODBYE) && theirs == incarnation {
                self.go_alone("the standby said goodbye", memory, now);
            } else if theirs > incarnation && !mutant::is(Mutant::StrictWithoutIncarnation) {
                self.go_alone("the standby is in a new incarnation", memory, now);
            }
        }
    }

    /// Two nodes were active: nothing moves until their states are one, or D_a has passed (F28).
    fn halt(&mut self, memory: Memory<'_>, now: Nanos) {
        let until = now.saturating_add(self.config.alone);
        if self.standing() != Standing::Alone {
            self.go_alone("two nodes were active", memory, now);
        }
        if let Some(active) = self.active_mut() {
            (active.halted_until, active.has_waited) = (Some(until), true);
        }
        self.set_handling(Handling::Halted, memory);
        self.history(
            "both-active",
            "two nodes were active: this one has the later term and waits for the other's final state",
        );
    }

    fn resume(&mut self, memory: Memory<'_>, why: &str) {
        let Some(active) = self.active_mut() else { return };
        active.has_waited = false;
        if active.halted_until.take().is_some() {
            self.set_handling(Handling::Alone, memory);
            self.history("merged", why.to_owned());
        }
    }

    /// Final state of a node that lost (F28).
    pub(crate) fn final_record(&mut self, version: u64, record: &Record, memory: Memory<'_>, now: Nanos) {
        if !matches!(self.role, Role::Active(_)) || mutant::is(Mutant::LoserNotMerged) {
            return;
        }
        let key = record.key;
        let known = self.sas.get(&key).map(|entry| (entry.sa.slot, entry.held));
        let merged = known.and_then(|(slot, _)| tandem_lease::merge(record, slot, memory.hot));
        if let Some((slot, true)) = known {
            // What it was held for is known now.
            self.sender.install(key, slot);
        }
        self.sas.merged(key, version, record.number, memory.hot, now);
        // An SA that this node does not have carries nothing here: there is nothing to join.
        self.counts.merged += u64::from(merged.is_some());
        self.last_answers.push_back(Acknowledgement { key, version, verdict: Verdict::Merged });
    }

    /// Do answers with this header count for what this node sends?
    pub(crate) fn answers_count(&self, header: &Header, last: bool) -> bool {
        match &self.role {
            Role::Active(active) => {
                let ours = active.standing.incarnation();
                !last && ours == Some(header.incarnation.get()) && !header.is(flag::GOODBYE)
            }
            Role::Standby(standby) => last && standby.unmerged,
        }
    }

    pub(crate) fn refused(&mut self, key: SaKey) {
        if !self.leave {
            self.leave = true;
            self.history("refused", format!("the standby cannot take SA {:#010x}", key.spi));
        }
    }

    /// Time has passed for an active node.
    pub(crate) fn active_timeout(&mut self, memory: Memory<'_>, now: Nanos) {
        if !self.config.partner {
            return;
        }
        let Role::Active(active) = &self.role else { return };
        if active.halted_until.is_some_and(|until| now >= until) {
            self.jump_all(memory, now);
            if let Some(active) = self.active_mut() {
                active.halted_until = None;
            }
            self.set_handling(Handling::Alone, memory);
            self.history(
                "unmerged",
                "the other node's final state did not come: its numbers were jumped over",
            );
        }
        if self.partner.silence >= self.limit() {
            if self.standing() != Standing::Alone {
                if self.sees_all_since_silence(now) {
                    self.go_alone("the standby was silent", memory, now);
                } else {
                    self.probe(now);
                }
            }
            if self.fence_if_isolated(memory, now) {
                return;
            }
        } else if let Some(active) = self.active_mut() {
            active.isolated_since = None;
        }
        if self.partner.silence >= self.config.takeover / 2 {
            self.probe(now);
        }
        self.ask_to_leave(now);
        self.join(memory, now);
    }

    /// A commit that stays unanswered while the standby is heard: it is asked for its goodbye (F20).
    fn ask_to_leave(&mut self, now: Nanos) {
        if self.standing() == Standing::Alone || self.sender.unclean() == 0 {
            self.answered_at = now;
        }
        // One SA that is never answered is enough: its packets hold up those of all others. While the bulk is sent, the
        // standby may still have to hear of it.
        let since = match self.standing() {
            Standing::Alone => now,
            Standing::Bulk { .. } => self.answered_at,
            _ => self.sender.longest_wait().map_or(self.answered_at, |since| since.min(self.answered_at)),
        };
        if now.saturating_sub(since) >= self.config.grace
            && self.partner.silence < self.config.takeover
            && !std::mem::replace(&mut self.leave, true)
        {
            self.history(
                "leave",
                "the standby is heard and acknowledges nothing: it is asked for its goodbye",
            );
        }
    }

    /// D_a.
    fn limit(&self) -> Nanos {
        if mutant::is(Mutant::AloneShorterThanTakeover) {
            self.config.takeover / 2
        } else {
            self.config.alone
        }
    }

    /// An active node that hears its partner on no path stays active only while every segment lives (F25).
    fn fence_if_isolated(&mut self, memory: Memory<'_>, now: Nanos) -> bool {
        let sees = if self.standing() == Standing::Alone {
            self.sees_all(now)
        } else {
            self.sees_all_since_silence(now)
        };
        let dead = self.sight.segments.iter().any(|segment| !segment.up);
        let Some(active) = self.active_mut() else { return false };
        if sees {
            active.isolated_since = None;
            return false;
        }
        let since = *active.isolated_since.get_or_insert(now);
        if !dead && now.saturating_sub(since) < ISOLATED {
            return false;
        }
        self.demote(
            "it hears its partner on no path, and not every segment shows carrier and witness",
            memory,
        );
        true
    }

    /// The way from alone to strict (F18).
    fn join(&mut self, memory: Memory<'_>, now: Nanos) {
        match self.standing() {
            Standing::Alone => {
                let Role::Active(active) = &self.role else { return };
                let may = now >= active.retry_at && !active.is_halted() && !active.has_waited;
                if let Some(incarnation) = self.joinable()
                    && may
                {
                    self.sender.restart(false, memory);
                    self.leave = false;
                    // What was measured before says nothing of this partner, and nothing may be left to measure.
                    self.recent_lag = 0;
                    self.stand(Standing::Bulk { incarnation, since: now });
                }
            }
            Standing::Bulk { incarnation, since } => {
                if self.joinable() != Some(incarnation)
                    && self.session.is_some_and(|session| session != incarnation)
                {
                    self.fail_join("the standby's SSP session is another one", memory, now);
                } else if self.sender.unproven() == 0 && self.recent_lag < self.config.takeover {
                    self.begin_quiet(incarnation, memory, now);
                } else if now.saturating_sub(since) > 10 * self.config.grace {
                    self.fail_join("the standby did not take the bulk in time", memory, now);
                }
            }
            Standing::Quiet { incarnation, workers, control, since, .. } => {
                let passed = workers || mutant::is(Mutant::VersionBeforeStrict);
                if let Some(position) = control
                    && passed
                {
                    let version = self.sender.take_version(memory);
                    self.stand(Standing::Version { incarnation, version, position, since: now, asked: 0 });
                } else if now.saturating_sub(since) > QUIET {
                    self.fail_join("workers or control did not pass a quiet point in time", memory, now);
                }
            }
            Standing::Version { incarnation, version, position, since, asked } => {
                if now.saturating_sub(since) >= self.config.alone {
                    self.fail_join("v was not sealed in time", memory, now);
                } else if self.sender.version_is_complete() && now.saturating_sub(asked) >= self.config.resend
                {
                    self.seal_due = Some((version, incarnation, position));
                    self.stand(Standing::Version { incarnation, version, position, since, asked: now });
                }
            }
            Standing::Strict { .. } => {}
        }
    }

    /// Incarnation of a partner that can join now.
    fn joinable(&self) -> Option<u64> {
        let theirs = self.partner.incarnation()?;
        let header = &self.partner.header;
        let ready = !header.is(flag::ACTIVE)
            && !header.is(flag::UNMERGED)
            && header.is(flag::SESSION)
            && self.partner.silence < self.config.takeover
            && self.session == Some(theirs);
        ready.then_some(theirs)
    }

    fn begin_quiet(&mut self, incarnation: u64, memory: Memory<'_>, now: Nanos) {
        let word = self.set_handling(Handling::Strict, memory);
        self.stand(Standing::Quiet { incarnation, word, workers: false, control: None, since: now });
        self.actions.push_back(Action::Joining { incarnation });
    }

    pub(crate) fn workers_passed(&mut self, passed: u64) {
        if self.leaving.is_some_and(|word| passed >= word) {
            self.leaving = None;
            self.actions.push_back(Action::NeedGrant { incarnation: true });
        }
        if let Some(Active { standing: Standing::Quiet { word, workers, .. }, .. }) = self.active_mut()
            && passed == *word
        {
            *workers = true;
        }
    }

    pub(crate) fn control_passed(&mut self, of: u64, position: u64) {
        if let Some(Active { standing: Standing::Quiet { incarnation, control, .. }, .. }) = self.active_mut()
            && of == *incarnation
        {
            *control = Some(position);
        }
    }

    /// The partner says that it has sealed v.
    pub(crate) fn sealed(&mut self, by: u64, sealed: u64, memory: Memory<'_>) {
        let late = mutant::is(Mutant::LateSeal)
            && matches!(self.standing(), Standing::Bulk { .. } | Standing::Quiet { .. });
        let Some((incarnation, version)) = (match self.standing() {
            Standing::Version { incarnation, version, .. } => Some((incarnation, version)),
            other if late => other.incarnation().map(|incarnation| (incarnation, sealed)),
            _ => None,
        }) else {
            return;
        };
        if sealed != version || by != incarnation {
            return;
        }
        if late {
            self.set_handling(Handling::Strict, memory);
        }
        self.sender.void_version();
        self.stand(Standing::Strict { incarnation, version });
        self.set_lone(false, memory);
        self.heartbeat_due = 0;
        // The other node may have been active for a moment that this one never heard of (F29).
        self.actions.push_back(Action::Announce);
        if let Some(active) = self.active_mut() {
            // A join that succeeded lets the next one begin at once.
            active.pause = 0;
        }
        self.history(
            "strict",
            format!("strict since version {version}: the standby knows everything before it has an effect"),
        );
    }

    fn fail_join(&mut self, why: &str, memory: Memory<'_>, now: Nanos) {
        self.counts.failed_joins += 1;
        self.go_alone(why, memory, now);
        let (first, most) = (self.config.rejoin, self.config.rejoin_max);
        if let Some(active) = self.active_mut() {
            active.pause = active.pause.max(first);
            active.retry_at = now.saturating_add(active.pause);
            active.pause = (active.pause * 2).min(most);
        }
    }

    /// First v is void, then the node is alone, then it handles so (F18 step 5).
    pub(crate) fn go_alone(&mut self, why: &str, memory: Memory<'_>, now: Nanos) {
        let before = self.standing();
        if before == Standing::Alone {
            return;
        }
        self.sender.void_version();
        self.seal_due = None;
        self.leave = false;
        self.switch_over = false;
        self.stand(Standing::Alone);
        self.set_lone(true, memory);
        self.actions.push_back(Action::Announce);
        if matches!(before, Standing::Strict { .. }) {
            self.counts.went_alone += 1;
        }
        if !matches!(before, Standing::Bulk { .. }) {
            self.set_handling(Handling::Alone, memory);
        }
        if let Some(active) = self.active_mut() {
            active.retry_at = now;
        }
        self.history("alone", why.to_owned());
    }

    /// Numbers of every SA go past all that rate and time can have used (F15, F24).
    pub(crate) fn jump_all(&mut self, memory: Memory<'_>, now: Nanos) {
        let heard = self.partner.heard_at;
        let span = now.saturating_sub(heard).max(self.config.alone);
        let Self { sas, sender, .. } = self;
        for entry in sas.entries_mut() {
            if !entry.basis {
                // Never used: there is nothing to jump over.
                continue;
            }
            let rate = sender.rate(entry.sa.slot);
            let used = u128::from(rate) * 2 * u128::from(span) / 1_000_000_000;
            let used = used.max(entry.used_untold(now));
            let by = (used.min(u128::from(tandem_lease::JUMP_MAX)) as u64)
                .saturating_add(JUMP_LEAST)
                .min(tandem_lease::JUMP_MAX);
            entry.jump(by, memory.hot);
        }
        let keys: Vec<SaKey> = self.sas.entries().map(|entry| entry.sa.key).collect();
        for key in keys {
            self.sas.check(key, memory.hot, now);
        }
    }

    /// A node without partner does as control says.
    pub(crate) fn ordered(&mut self, active: bool, term: u64, memory: Memory<'_>, now: Nanos) {
        if self.config.partner {
            return;
        }
        let header = memory.hot.header();
        header.term.fetch_max(term, Ordering::AcqRel);
        self.reign = self.reign.max(term);
        if active {
            let standing = Active::new(term, now, self.config.rejoin);
            self.role = Role::Active(standing);
            self.set_handling(Handling::Alone, memory);
            header.role.store(tandem_shm::ROLE_ACTIVE, Ordering::Release);
        } else {
            self.role = Role::Standby(crate::standby::Standby::new(false));
            header.role.store(tandem_shm::ROLE_STANDBY, Ordering::Release);
        }
        self.actions.push_back(Action::Role { active });
    }

    /// Segments that live now.
    pub(crate) fn segments_alive(&self, now: Nanos) -> usize {
        self.sight.segments.iter().filter(|segment| alive(segment, now)).count()
    }
}

/// Least jump of a stale takeover.
const JUMP_LEAST: u64 = 1 << 20;

//! The SAs of a node, and how far their numbers are reserved on disk (F40).
//!
//! No number is used (outbound) or delivered (inbound) that lies past what the numbers file holds, and a standby
//! acknowledges none either. So a node that lost its memory goes on past everything that it can have used. Reservations
//! are made ahead of need: outbound coarsely, since skipped numbers cost nothing; inbound as finely as the rate allows,
//! since after a loss of memory the peer's packets up to the reservation are refused.

use crate::input::{Action, Known, MS, Nanos, Sa, SaKey, Stale, Way};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::atomic::Ordering;
use tandem_esp::window;
use tandem_lease::message::{Acknowledgement, Verdict};
use tandem_lease::mutant::{self, Mutant};
use tandem_shm::HotState;

/// Outbound numbers reserved ahead.
const AHEAD_OUT: u64 = 1 << 18;
/// Least and most inbound numbers reserved ahead.
const AHEAD_IN: (u64, u64) = (64, 1 << 20);
/// Reservations of an SA that follow each other faster are too small, slower ones too large.
const TOO_FAST: Nanos = 250 * MS;
const TOO_SLOW: Nanos = 4000 * MS;
/// The partner's rate is measured over at least so long.
const PACE_OVER: Nanos = 50 * MS;

/// An SA as the machine keeps it.
#[derive(Debug)]
pub(crate) struct Entry {
    pub sa: Sa,
    /// No traffic until an operator or the partner says more.
    pub held: bool,
    /// There is something to jump from (F24): its numbers in memory or on disk, or a record.
    pub basis: bool,
    /// Reserved on disk.
    limit: u64,
    /// Asked for, and being written.
    wanted: u64,
    ahead: u64,
    /// The number when it was reserved for last.
    reserved_from: u64,
    /// Number up to which the numbers file says that it may have been delivered, where this node has lost its memory: more
    /// than any node has delivered. It gives way to the partner's window, for a takeover that is fresh.
    assumed: Option<u64>,
    /// The partner's window has taken its place.
    told: bool,
    reserved_at: Nanos,
    /// Newest record that was merged and is not acknowledged, because its number is not on disk yet.
    owed: Option<(u64, u64)>,
    pace: Pace,
}

/// How fast the partner uses an outbound SA, as far as its records tell.
#[derive(Clone, Copy, Debug, Default)]
struct Pace {
    /// Packets, and when they were so many.
    from: Option<(u64, Nanos)>,
    per_s: u64,
    /// When the newest record came.
    told: Option<Nanos>,
}

impl Pace {
    fn follow(&mut self, packets: u64, now: Nanos) {
        self.told = Some(now);
        let (before, at) = *self.from.get_or_insert((packets, now));
        let passed = now.saturating_sub(at);
        if passed >= PACE_OVER {
            let used = u128::from(packets.saturating_sub(before)) * 1_000_000_000;
            self.per_s = u64::try_from(used / u128::from(passed)).unwrap_or(u64::MAX);
            self.from = Some((packets, now));
        }
    }
}

/// All SAs of a node.
#[derive(Debug, Default)]
pub(crate) struct Sas {
    entries: BTreeMap<SaKey, Entry>,
    by_slot: [BTreeMap<u32, SaKey>; 2],
    /// SAs of which this incarnation has merged a record; they may be removed and installed again meanwhile.
    pub recorded: BTreeSet<SaKey>,
    /// SAs that were removed, their slots and limits: records of them are still taken (F19), and a key that comes back
    /// goes on.
    removed: BTreeMap<SaKey, (u32, u64)>,
    /// SAs that want a reservation.
    queue: VecDeque<SaKey>,
    writing: Option<(u64, Vec<(SaKey, u64)>)>,
    next_id: u64,
}

impl Sas {
    pub fn get(&self, key: &SaKey) -> Option<&Entry> {
        self.entries.get(key)
    }

    pub fn entries_mut(&mut self) -> impl Iterator<Item = &mut Entry> {
        self.entries.values_mut()
    }

    pub fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.entries.values()
    }

    /// An SA was installed. Its hot state is made ready for what is known of its numbers.
    pub fn install(&mut self, sa: Sa, hot: &HotState, now: Nanos) {
        let pace = self.forget(&sa.key).map(|before| before.pace).unwrap_or_default();
        let slot = sa.slot;
        let mut limit = read_limit(&sa, hot);
        if let Some((_, before)) = self.removed.remove(&sa.key).filter(|(before, _)| *before == slot) {
            limit = before;
        }
        // Known, and no number of it may be used: it was held before.
        let was_held = sa.known == Known::Memory && limit == 0;
        match sa.known {
            Known::Memory => {}
            Known::Never | Known::Lost => limit = 0,
            Known::UpTo(last) => {
                limit = last;
                if !mutant::is(Mutant::InstallOverKnownKey) {
                    skip(&sa, last, hot);
                }
            }
        }
        if sa.known == Known::Memory && limit == u64::MAX {
            // Hot state of a time without reservations: what was used is in it.
            limit = 0;
        }
        if mutant::is(Mutant::InstallOverKnownKey) && sa.known == Known::Memory {
            forget(&sa, hot);
        }
        let entry = Entry {
            sa,
            held: sa.known == Known::Lost || was_held,
            basis: matches!(sa.known, Known::Memory | Known::UpTo(_)),
            limit,
            wanted: 0,
            ahead: AHEAD_IN.0,
            reserved_from: 0,
            assumed: match sa.known {
                Known::UpTo(last) if sa.key.way == Way::In => Some(last),
                _ => None,
            },
            told: false,
            reserved_at: now,
            owed: None,
            pace,
        };
        unprove(&sa, hot);
        write_limit(&entry, hot);
        self.by_slot[sa.key.way as usize].insert(slot, sa.key);
        self.entries.insert(sa.key, entry);
        self.check(sa.key, hot, now);
    }

    /// An SA was removed. Frames of it that are parked would wait for ever, and all others behind them: with no number
    /// left to deliver, the workers drop them.
    pub fn remove(&mut self, key: &SaKey, hot: &HotState) {
        if let Some(mut entry) = self.forget(key) {
            let limit = if entry.held { 0 } else { entry.limit };
            self.removed.insert(*key, (entry.sa.slot, limit));
            entry.hold(hot);
        }
    }

    fn forget(&mut self, key: &SaKey) -> Option<Entry> {
        let entry = self.entries.remove(key)?;
        self.by_slot[key.way as usize].remove(&entry.sa.slot);
        Some(entry)
    }

    /// Slot of an SA that was removed here, and that the partner may not have removed yet.
    pub fn tombstone(&self, key: &SaKey) -> Option<u32> {
        self.removed.get(key).map(|(slot, _)| *slot)
    }

    /// The SA of a slot has moved.
    pub fn moved(&mut self, way: Way, slot: u32, hot: &HotState, now: Nanos) {
        if let Some(key) = self.by_slot[way as usize].get(&slot).copied() {
            self.check(key, hot, now);
        }
    }

    /// Asks for a reservation where too little is left.
    pub fn check(&mut self, key: SaKey, hot: &HotState, now: Nanos) {
        let Some(entry) = self.entries.get_mut(&key) else { return };
        let Some(number) = number(&entry.sa, hot) else { return };
        if entry.held {
            return;
        }
        let ahead = match key.way {
            Way::Out => AHEAD_OUT,
            Way::In => entry.ahead,
        };
        if number.saturating_add(ahead / 2) < entry.limit.max(entry.wanted) {
            return;
        }
        if key.way == Way::In {
            let passed = now.saturating_sub(entry.reserved_at);
            if passed < TOO_FAST {
                // As much as lasts twice that time, by the rate that used the last reservation up.
                let used = number.saturating_sub(entry.reserved_from);
                let by_rate = u128::from(used) * u128::from(2 * TOO_FAST) / u128::from(passed.max(MS));
                // A jump (the peer's takeover, the first record) is no rate: no more than four times at once.
                let wanted =
                    u64::try_from(by_rate).unwrap_or(u64::MAX).clamp(entry.ahead * 2, entry.ahead * 4);
                entry.ahead = wanted.min(AHEAD_IN.1);
            } else if passed > TOO_SLOW {
                entry.ahead = (entry.ahead / 2).max(AHEAD_IN.0);
            }
        }
        (entry.reserved_at, entry.reserved_from) = (now, number);
        let first = entry.wanted <= entry.limit;
        entry.wanted = number.saturating_add(if key.way == Way::In { entry.ahead } else { ahead });
        if first {
            self.queue.push_back(key);
        }
    }

    /// The next batch for the disk, if none is being written.
    pub fn next_batch(&mut self) -> Option<Action> {
        if self.writing.is_some() || self.queue.is_empty() {
            return None;
        }
        let entries: Vec<(SaKey, u64)> =
            self.queue.drain(..).filter_map(|key| Some((key, self.entries.get(&key)?.wanted))).collect();
        self.next_id += 1;
        let id = self.next_id;
        self.writing = Some((id, entries.clone()));
        Some(Action::Persist { id, entries })
    }

    /// A batch is on disk: its numbers may be used, and records that waited for it are acknowledged.
    pub fn persisted(
        &mut self,
        id: u64,
        hot: &HotState,
        now: Nanos,
        answers: &mut VecDeque<Acknowledgement>,
    ) {
        if self.writing.as_ref().is_none_or(|(writing, _)| *writing != id) {
            return;
        }
        let Some((_, entries)) = self.writing.take() else { return };
        for (key, value) in entries {
            let Some(entry) = self.entries.get_mut(&key) else { continue };
            entry.limit = entry.limit.max(value);
            if entry.wanted > entry.limit {
                self.queue.push_back(key);
            }
            write_limit(entry, hot);
            if let Some((version, needs)) = entry.owed
                && needs <= entry.limit
            {
                entry.owed = None;
                answers.push_back(Acknowledgement { key, version, verdict: Verdict::Merged });
            }
            self.check(key, hot, now);
        }
    }

    /// The partner tells the window of an SA: what this node only assumed of it, because it lost its memory, counts no
    /// more. Otherwise packets that nobody has delivered would be refused after a takeover.
    pub fn forget_assumed(&mut self, key: &SaKey, hot: &HotState) {
        let Some(entry) = self.entries.get_mut(key) else { return };
        if entry.assumed.is_some()
            && !std::mem::replace(&mut entry.told, true)
            && !self.recorded.contains(key)
        {
            forget(&entry.sa, hot);
        }
    }

    /// A record was merged that needs `number` on disk. Gives the answer if it can be given now.
    pub fn merged(
        &mut self,
        key: SaKey,
        version: u64,
        number: u64,
        hot: &HotState,
        now: Nanos,
    ) -> Option<Acknowledgement> {
        let entry = self.entries.get_mut(&key)?;
        (entry.held, entry.basis) = (false, true);
        self.recorded.insert(key);
        let limit = entry.limit;
        write_limit(entry, hot);
        if number <= limit {
            entry.owed = None;
        } else {
            entry.owed = Some((version, number));
        }
        self.check(key, hot, now);
        (number <= limit).then_some(Acknowledgement { key, version, verdict: Verdict::Merged })
    }

    /// A record told how many packets the partner has sent by an outbound SA.
    pub fn follow(&mut self, key: &SaKey, packets: u64, now: Nanos) {
        if let Some(entry) = self.entries.get_mut(key).filter(|_| key.way == Way::Out) {
            entry.pace.follow(packets, now);
        }
    }

    /// Nothing is owed to the partner any more: this node is active, or its incarnation has ended.
    pub fn owe_nothing(&mut self) {
        self.entries.values_mut().for_each(|entry| entry.owed = None);
    }
}

impl Entry {
    /// No traffic from now on.
    pub fn hold(&mut self, hot: &HotState) {
        self.held = true;
        write_limit(self, hot);
    }

    /// A stale takeover goes on past all that rate and time can have used (F24, F15).
    pub fn jump(&self, by: u64, hot: &HotState) {
        if self.sa.key.way == Way::Out
            && let Some(out) = hot.outbound(self.sa.slot)
        {
            let next = out.next.load(Ordering::Acquire);
            out.next.store(next.saturating_add(by), Ordering::Release);
        }
    }

    /// Numbers that the partner can have used since its newest record, twice over (F24). Not since it was heard: it may
    /// have been alone for long, and was heard all the time.
    pub fn used_untold(&self, now: Nanos) -> u128 {
        let span = self.pace.told.map_or(0, |told| now.saturating_sub(told));
        u128::from(self.pace.per_s) * 2 * u128::from(span) / 1_000_000_000
    }

    /// This node becomes active. Where that is not fresh, the partner may not have told everything: what this node has
    /// assumed from its file counts again.
    pub fn end_assumption(&mut self, fresh: bool, hot: &HotState) {
        if let Some(last) = self.assumed.take()
            && !fresh
        {
            skip(&self.sa, last, hot);
        }
    }

    /// What a stale takeover does with it.
    pub fn stale(&self) -> Stale {
        self.sa.stale
    }
}

/// The number that moves: used last, or the top of the window.
fn number(sa: &Sa, hot: &HotState) -> Option<u64> {
    match sa.key.way {
        Way::In => Some(hot.inbound(sa.slot)?.top.load(Ordering::Acquire)),
        Way::Out => Some(tandem_esp::sequence::taken(hot.outbound(sa.slot)?)),
    }
}

fn read_limit(sa: &Sa, hot: &HotState) -> u64 {
    match sa.key.way {
        Way::In => hot.inbound(sa.slot).map_or(0, |hot| hot.limit.load(Ordering::Acquire)),
        Way::Out => hot.outbound(sa.slot).map_or(0, |hot| hot.limit.load(Ordering::Acquire)),
    }
}

fn write_limit(entry: &Entry, hot: &HotState) {
    let limit = if entry.held { 0 } else { entry.limit };
    match entry.sa.key.way {
        Way::In => hot.inbound(entry.sa.slot).map(|hot| hot.limit.store(limit, Ordering::Release)),
        Way::Out => hot.outbound(entry.sa.slot).map(|hot| hot.limit.store(limit, Ordering::Release)),
    };
}

/// What the partner has acknowledged of an SA that was here before may have been an earlier incarnation's (F19).
fn unprove(sa: &Sa, hot: &HotState) {
    match sa.key.way {
        Way::In => hot.inbound(sa.slot).map(|hot| hot.acknowledged.store(0, Ordering::Release)),
        Way::Out => hot.outbound(sa.slot).map(|hot| hot.lease_end.store(0, Ordering::Release)),
    };
}

/// Everything up to `last` counts as used, or seen.
fn skip(sa: &Sa, last: u64, hot: &HotState) {
    match sa.key.way {
        Way::In => hot.inbound(sa.slot).map(|hot| window::see_all_up_to(&hot.top, &hot.window, last)),
        Way::Out => hot.outbound(sa.slot).map(|hot| {
            hot.next.fetch_max(last, Ordering::AcqRel);
        }),
    };
}

/// The numbers of an SA start anew.
fn forget(sa: &Sa, hot: &HotState) {
    match sa.key.way {
        Way::In => hot.inbound(sa.slot).map(|hot| {
            hot.top.store(0, Ordering::Release);
            hot.window.iter().for_each(|word| word.store(0, Ordering::Release));
        }),
        Way::Out => hot.outbound(sa.slot).map(|hot| hot.next.store(0, Ordering::Release)),
    };
}

//! What the active node tells the standby of its SAs, and what the standby has answered (F9, F14, F18, F19).
//!
//! Workers mark the slots that they change. A *round* takes a version, then reads the hot state of what is marked: a
//! record is one SA at that version. An SA is *clean* when nothing of it is unacknowledged; only an acknowledgement makes it
//! so, never sending. A record of an inbound SA holds every word of its window that changed since the words that the
//! partner has acknowledged, so that loss, repetition and order do not matter, and the newest record covers all older.

use crate::message::{Acknowledgement, Record, Verdict, Writer};
use crate::mutant::{self, Mutant};
use crate::sa::{SaKey, Way};
use std::collections::{HashMap, VecDeque};
use std::sync::atomic::Ordering;
use tandem_shm::{HotState, Marks, WINDOW_WORDS, open_version};

/// Shortest lease of an outbound SA in numbers (F14).
pub const LEASE_MIN: u64 = 1 << 16;
/// Longest lease and jump (F15).
pub const JUMP_MAX: u64 = 1 << 30;
/// Outbound records that only count packets go out this often, in nanoseconds.
const COUNT_EVERY: u64 = 5_000_000;
/// A lease lasts at least so long at the present rate, in nanoseconds (F14).
const LEASE_TIME: u64 = 100_000_000;
/// Records of the bulk that may be unanswered at one time.
const BULK_WINDOW: usize = 256;

/// Memory of a node that the pair's thread and the workers share.
#[derive(Clone, Copy, Debug)]
pub struct Memory<'m> {
    /// Hot state.
    pub hot: &'m HotState,
    /// Slots whose inbound state has changed.
    pub inbound: &'m Marks,
    /// Slots whose outbound state has changed.
    pub outbound: &'m Marks,
}

/// What both directions have.
#[derive(Debug)]
struct Track {
    key: SaKey,
    slot: u32,
    /// Waits in a queue.
    queued: bool,
    /// Changed since it was read for a record.
    dirty: bool,
    /// Version of the record read last; 0 for none.
    opened: u64,
    /// Highest version acknowledged.
    acknowledged: u64,
    /// The present incarnation of the partner has acknowledged a record of it.
    proven: bool,
    /// Belongs to v, and has no acknowledgement of v or later yet.
    in_barrier: bool,
    sent_at: u64,
    /// Since when something of it is unanswered without any progress.
    waits_since: u64,
}

impl Track {
    fn new(key: SaKey, slot: u32) -> Self {
        Self {
            key,
            slot,
            queued: false,
            dirty: true,
            opened: 0,
            acknowledged: 0,
            proven: false,
            in_barrier: false,
            sent_at: 0,
            waits_since: 0,
        }
    }

    fn is_clean(&self) -> bool {
        self.proven && !self.dirty && self.acknowledged >= self.opened
    }

    /// Since when the partner, which took it before, takes nothing new of it.
    fn stuck_since(&self) -> Option<u64> {
        (self.proven && self.acknowledged < self.opened).then_some(self.waits_since)
    }
}

/// An inbound SA.
#[derive(Debug)]
struct Inbound {
    track: Track,
    /// Word of the window as it was sent last, and the version in which that value was sent first; [`u64::MAX`] for a
    /// word that the partner was never sent.
    words: [(u64, u64); WINDOW_WORDS],
}

/// An outbound SA.
#[derive(Debug)]
struct Outbound {
    track: Track,
    /// Ends asked for, the newer one first, with the version that asked first.
    asked: [(u64, u64); 2],
    /// For the rate: a number and when it was the last one.
    seen: (u64, u64),
    rate_per_s: u64,
}

/// A record that was sent.
#[derive(Clone, Copy, Debug)]
struct Sent {
    way: Way,
    slot: u32,
    version: u64,
    at: u64,
}

/// What has happened, in numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SenderCounts {
    /// Records sent, those sent again included.
    pub sent: u64,
    /// Records sent again.
    pub resent: u64,
    /// Records acknowledged.
    pub acknowledged: u64,
}

/// What an answer means for the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answered {
    /// It was taken, this long after its record was read (nanoseconds); 0 where that is not known.
    Taken(u64),
    /// It counts for nothing: an unknown SA, or a version that was never sent to this incarnation.
    Nothing,
    /// The partner does not know the SA.
    Unknown,
    /// The partner cannot take it.
    Refused,
}

/// The sender of one node.
#[derive(Debug, Default)]
pub struct Sender {
    inbound: Vec<Option<Box<Inbound>>>,
    outbound: Vec<Option<Box<Outbound>>>,
    slots: HashMap<SaKey, u32>,
    queue: VecDeque<(Way, u32)>,
    bulk: VecDeque<(Way, u32)>,
    /// Outbound slots whose counters alone have changed.
    later: Vec<u32>,
    later_due: u64,
    sent: VecDeque<Sent>,
    /// Version of the round that is open.
    round: Option<u64>,
    /// Acknowledgements of this version and below belong to an earlier incarnation.
    floor: u64,
    unclean: usize,
    unproven: usize,
    /// v, and how many SAs of it are not acknowledged yet.
    barrier: Option<(u64, usize)>,
    /// Final state is sent (F28).
    last: bool,
    /// Something of the next message was sent before: it goes over all paths.
    again: bool,
    /// The SA that has waited longest for an answer, of those that were looked at.
    longest: Option<(Way, u32)>,
    counts: SenderCounts,
}

impl Sender {
    /// Knows no SA.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn track_mut(&mut self, way: Way, slot: u32) -> Option<&mut Track> {
        match way {
            Way::In => Some(&mut self.inbound.get_mut(slot as usize)?.as_mut()?.track),
            Way::Out => Some(&mut self.outbound.get_mut(slot as usize)?.as_mut()?.track),
        }
    }

    fn track(&self, way: Way, slot: u32) -> Option<&Track> {
        match way {
            Way::In => Some(&self.inbound.get(slot as usize)?.as_ref()?.track),
            Way::Out => Some(&self.outbound.get(slot as usize)?.as_ref()?.track),
        }
    }

    /// Changes a track and keeps the sums right.
    fn change<R>(&mut self, way: Way, slot: u32, change: impl FnOnce(&mut Track) -> R) -> Option<R> {
        let track = self.track_mut(way, slot)?;
        let (clean, proven) = (track.is_clean(), track.proven);
        let result = change(track);
        let (clean_now, proven_now) = (track.is_clean(), track.proven);
        self.unclean = self.unclean + usize::from(clean && !clean_now) - usize::from(!clean && clean_now);
        self.unproven =
            self.unproven + usize::from(proven && !proven_now) - usize::from(!proven && proven_now);
        Some(result)
    }

    fn enqueue(&mut self, way: Way, slot: u32) {
        if self.track_mut(way, slot).is_some_and(|track| !std::mem::replace(&mut track.queued, true)) {
            self.queue.push_back((way, slot));
        }
    }

    /// An SA was installed: it is marked from birth (F19).
    pub fn install(&mut self, key: SaKey, slot: u32) {
        self.remove(key);
        // A record of it may be under way with the version of this round: an answer to that one must not count for
        // what is read from now on.
        self.round = None;
        let index = slot as usize;
        let track = Track::new(key, slot);
        match key.way {
            Way::In => {
                if self.inbound.len() <= index {
                    self.inbound.resize_with(index + 1, || None);
                }
                let words = [(0, u64::MAX); WINDOW_WORDS];
                self.inbound[index] = Some(Box::new(Inbound { track, words }));
            }
            Way::Out => {
                if self.outbound.len() <= index {
                    self.outbound.resize_with(index + 1, || None);
                }
                let outbound = Outbound { track, asked: [(0, u64::MAX); 2], seen: (0, 0), rate_per_s: 0 };
                self.outbound[index] = Some(Box::new(outbound));
            }
        }
        self.slots.insert(key, slot);
        self.unclean += 1;
        self.unproven += 1;
        self.enqueue(key.way, slot);
    }

    /// An SA was removed.
    pub fn remove(&mut self, key: SaKey) {
        let Some(slot) = self.slots.remove(&key) else { return };
        let Some(track) = self.track_mut(key.way, slot) else { return };
        let (clean, proven, in_barrier) = (track.is_clean(), track.proven, track.in_barrier);
        self.unclean -= usize::from(!clean);
        self.unproven -= usize::from(!proven);
        if let Some((_, left)) = &mut self.barrier {
            *left -= usize::from(in_barrier);
        }
        match key.way {
            Way::In => self.inbound[slot as usize] = None,
            Way::Out => self.outbound[slot as usize] = None,
        }
    }

    /// SAs with something that is not acknowledged.
    #[must_use]
    pub fn unclean(&self) -> usize {
        self.unclean
    }

    /// SAs of which the partner's present incarnation has acknowledged nothing.
    #[must_use]
    pub fn unproven(&self) -> usize {
        self.unproven
    }

    /// What has happened.
    #[must_use]
    pub fn counts(&self) -> SenderCounts {
        self.counts
    }

    /// A new incarnation of the partner, or of this node's reign: nothing that was acknowledged counts any more, and
    /// everything is sent anew (F18 step 1). `last`: as final state of a node that lost (F28).
    pub fn restart(&mut self, last: bool, memory: Memory<'_>) {
        self.floor = memory.hot.header().version.load(Ordering::Acquire);
        self.last = last;
        self.queue.clear();
        self.later.clear();
        self.bulk.clear();
        self.sent.clear();
        self.barrier = None;
        self.round = None;
        self.longest = None;
        (self.unclean, self.unproven) = (0, 0);
        let tracks = self.inbound.iter_mut().flatten().map(|sa| {
            sa.words = [(0, u64::MAX); WINDOW_WORDS];
            &mut sa.track
        });
        let outbound = self.outbound.iter_mut().flatten().map(|sa| {
            sa.asked = [(0, u64::MAX); 2];
            if let Some(hot) = memory.hot.outbound(sa.track.slot) {
                hot.lease_end.store(0, Ordering::Release);
            }
            &mut sa.track
        });
        for track in tracks.chain(outbound) {
            (track.proven, track.dirty, track.queued, track.in_barrier) = (false, true, true, false);
            (track.opened, track.acknowledged) = (0, 0);
            self.bulk.push_back((track.key.way, track.slot));
            self.unclean += 1;
            self.unproven += 1;
        }
    }

    /// Takes v (F18 step 3): everything that is not acknowledged now belongs to it.
    pub fn take_version(&mut self, memory: Memory<'_>) -> u64 {
        self.collect(memory);
        let version = open_version(&memory.hot.header().version);
        self.round = None;
        let mut members = Vec::new();
        let tracks = self.inbound.iter().flatten().map(|sa| &sa.track);
        for track in tracks.chain(self.outbound.iter().flatten().map(|sa| &sa.track)) {
            if !track.is_clean() {
                members.push((track.key.way, track.slot));
            }
        }
        self.barrier = Some((version, members.len()));
        for (way, slot) in members {
            self.change(way, slot, |track| (track.in_barrier, track.dirty) = (true, true));
            self.enqueue(way, slot);
        }
        version
    }

    /// Gives v up.
    pub fn void_version(&mut self) {
        self.barrier = None;
        let tracks = self.inbound.iter_mut().flatten().map(|sa| &mut sa.track);
        for track in tracks.chain(self.outbound.iter_mut().flatten().map(|sa| &mut sa.track)) {
            track.in_barrier = false;
        }
    }

    /// Is everything that belongs to v acknowledged?
    #[must_use]
    pub fn version_is_complete(&self) -> bool {
        self.barrier.is_some_and(|(_, left)| left == 0)
    }

    /// Takes the marks off. What they name goes out with the next round.
    pub fn collect(&mut self, memory: Memory<'_>) {
        self.collect_each(memory, |_, _| {});
    }

    /// As [`Sender::collect`], and names each slot that was marked.
    pub fn collect_each(&mut self, memory: Memory<'_>, mut visit: impl FnMut(Way, u32)) {
        self.round = None;
        for (way, marks) in [(Way::In, memory.inbound), (Way::Out, memory.outbound)] {
            marks.drain(|slot| {
                visit(way, slot);
                if self.change(way, slot, |track| track.dirty = true).is_some() {
                    self.enqueue(way, slot);
                }
            });
        }
    }

    /// Time has passed: what was not acknowledged for `after` goes out again.
    pub fn tick(&mut self, now: u64, after: u64) {
        while let Some(sent) = self.sent.front().copied() {
            if sent.at.saturating_add(after) > now {
                break;
            }
            self.sent.pop_front();
            self.note_wait(sent.way, sent.slot);
            let Some(track) = self.track_mut(sent.way, sent.slot) else { continue };
            if track.opened != sent.version || track.acknowledged >= sent.version {
                continue;
            }
            self.again = true;
            self.counts.resent += 1;
            self.enqueue(sent.way, sent.slot);
        }
        if now >= self.later_due {
            for slot in std::mem::take(&mut self.later) {
                self.enqueue(Way::Out, slot);
            }
        }
    }

    fn note_wait(&mut self, way: Way, slot: u32) {
        let Some(since) = self.track(way, slot).and_then(Track::stuck_since) else { return };
        if self.longest_wait().is_none_or(|longest| since < longest) {
            self.longest = Some((way, slot));
        }
    }

    /// Since when the partner, which took other records of the same SA before, has answered none of it (F20). Of new
    /// SAs nothing is said: they may have to reach it first (F19).
    #[must_use]
    pub fn longest_wait(&self) -> Option<u64> {
        let (way, slot) = self.longest?;
        self.track(way, slot)?.stuck_since()
    }

    /// When [`Sender::tick`] has something to do; `None`: not before something happens.
    #[must_use]
    pub fn due(&self, after: u64) -> Option<u64> {
        if self.has_something() {
            return Some(0);
        }
        let resend = self.sent.front().map(|sent| sent.at.saturating_add(after));
        let later = (!self.later.is_empty()).then_some(self.later_due);
        [resend, later].into_iter().flatten().min()
    }

    /// Waits a record to be sent?
    #[must_use]
    pub fn has_something(&self) -> bool {
        !self.queue.is_empty() || (!self.bulk.is_empty() && self.sent.len() < BULK_WINDOW)
    }

    /// Ends the round: the next record is of a later version.
    pub fn end_round(&mut self) {
        self.round = None;
    }

    /// Must the message that was just written go over all paths?
    pub fn take_again(&mut self) -> bool {
        std::mem::take(&mut self.again)
    }

    /// Writes records into a message, as many as fit. Returns whether it wrote any.
    pub fn write(&mut self, writer: &mut Writer<'_>, memory: Memory<'_>, now: u64) -> bool {
        let mut opened = false;
        loop {
            let from_bulk = self.queue.is_empty();
            let next = if !from_bulk {
                self.queue.pop_front()
            } else if self.sent.len() < BULK_WINDOW {
                self.bulk.pop_front()
            } else {
                None
            };
            let Some((way, slot)) = next else { return opened };
            let Some(track) = self.track_mut(way, slot) else { continue };
            track.queued = false;
            if track.is_clean() {
                continue;
            }
            let version = *self.round.get_or_insert_with(|| open_version(&memory.hot.header().version));
            if way == Way::Out && self.is_early(slot, memory, now) {
                self.later.push(slot);
                if self.later.len() == 1 {
                    self.later_due = now + COUNT_EVERY;
                }
                continue;
            }
            let Some(record) = self.read(way, slot, version, memory, now) else { continue };
            let words = record.words.len();
            let fits = if opened { writer.fits(words) } else { writer.records(version, self.last, words) };
            if !fits {
                // Read again later, by the same version: what is read may only be newer.
                if let Some(track) = self.track_mut(way, slot) {
                    track.queued = true;
                }
                if from_bulk { &mut self.bulk } else { &mut self.queue }.push_front((way, slot));
                return opened;
            }
            opened = true;
            writer.record(&record);
            self.note_sent(way, slot, version, now, memory);
        }
    }

    fn note_sent(&mut self, way: Way, slot: u32, version: u64, now: u64, memory: Memory<'_>) {
        self.counts.sent += 1;
        self.sent.push_back(Sent { way, slot, version, at: now });
        let forget = mutant::is(Mutant::ClearBySending);
        self.change(way, slot, |track| {
            if track.acknowledged >= track.opened {
                track.waits_since = now;
            }
            (track.dirty, track.opened, track.sent_at) = (false, version, now);
            if forget {
                (track.proven, track.acknowledged) = (true, version);
            }
        });
        if forget {
            self.leave_barrier(way, slot, u64::MAX);
            if way == Way::In
                && let Some(Some(sa)) = self.inbound.get_mut(slot as usize)
            {
                sa.words.iter_mut().filter(|word| word.1 == version).for_each(|word| word.1 = 0);
            }
        }
        if mutant::is(Mutant::DeliverBeforeCommit)
            && way == Way::In
            && let Some(hot) = memory.hot.inbound(slot)
        {
            hot.acknowledged.store(u64::MAX, Ordering::Release);
        }
    }

    /// Has only the count of packets changed, and too little time passed to tell it?
    fn is_early(&self, slot: u32, memory: Memory<'_>, now: u64) -> bool {
        let Some(Some(sa)) = self.outbound.get(slot as usize) else { return false };
        let track = &sa.track;
        if self.last || track.in_barrier || !track.proven || track.acknowledged < track.opened {
            return false;
        }
        let Some(hot) = memory.hot.outbound(slot) else { return false };
        let left = sa.asked[0].0.saturating_sub(hot.next.load(Ordering::Acquire));
        left > lease(sa.rate_per_s) / 2 && now < track.sent_at.saturating_add(COUNT_EVERY)
    }

    /// Reads an SA for a record of `version`, which was taken before.
    fn read(&mut self, way: Way, slot: u32, version: u64, memory: Memory<'_>, now: u64) -> Option<Record> {
        match way {
            Way::In => {
                let sa = self.inbound.get_mut(slot as usize)?.as_mut()?;
                let hot = memory.hot.inbound(slot)?;
                let mut words = arrayvec::ArrayVec::new();
                let acknowledged = sa.track.acknowledged;
                for (index, (known, word)) in sa.words.iter_mut().zip(&hot.window).enumerate() {
                    let value = word.load(Ordering::Acquire);
                    if value != known.0 || (known.1 == u64::MAX && value != 0) {
                        *known = (value, version);
                    }
                    if known.1 != u64::MAX && known.1 > acknowledged {
                        words.push((index as u8, value));
                    }
                }
                Some(Record {
                    key: sa.track.key,
                    number: hot.top.load(Ordering::Acquire),
                    packets: hot.packets.load(Ordering::Relaxed),
                    bytes: hot.bytes.load(Ordering::Relaxed),
                    words,
                })
            }
            Way::Out => {
                let sa = self.outbound.get_mut(slot as usize)?.as_mut()?;
                let hot = memory.hot.outbound(slot)?;
                let next = hot.next.load(Ordering::Acquire);
                let number = if self.last { next } else { sa.ask(next, version, now) };
                Some(Record {
                    key: sa.track.key,
                    number,
                    packets: hot.packets.load(Ordering::Relaxed),
                    bytes: hot.bytes.load(Ordering::Relaxed),
                    words: arrayvec::ArrayVec::new(),
                })
            }
        }
    }

    /// An answer of the partner's present incarnation.
    pub fn acknowledge(&mut self, answer: &Acknowledgement, memory: Memory<'_>, now: u64) -> Answered {
        let Acknowledgement { key, mut version, verdict } = *answer;
        let Some(&slot) = self.slots.get(&key) else { return Answered::Nothing };
        let Some(track) = self.track_mut(key.way, slot) else { return Answered::Nothing };
        if mutant::is(Mutant::AcknowledgeWithoutVersion) {
            version = track.opened;
        }
        let (opened, sent_at) = (track.opened, track.sent_at);
        if version <= self.floor || version > opened {
            return Answered::Nothing;
        }
        match verdict {
            Verdict::Merged => {}
            Verdict::Unknown => return Answered::Unknown,
            Verdict::Refused => return Answered::Refused,
        }
        self.change(key.way, slot, |track| {
            track.acknowledged = track.acknowledged.max(version);
            track.proven = true;
            track.waits_since = now;
        });
        self.leave_barrier(key.way, slot, version);
        match key.way {
            Way::In => {
                if let Some(hot) = memory.hot.inbound(slot) {
                    hot.acknowledged.fetch_max(version, Ordering::AcqRel);
                }
            }
            Way::Out => {
                let asked = self.outbound.get(slot as usize).and_then(Option::as_ref).map(|sa| sa.asked);
                let end = asked.and_then(|asked| asked.into_iter().find(|(_, since)| *since <= version));
                if let (Some(hot), Some((end, _))) = (memory.hot.outbound(slot), end) {
                    hot.lease_end.fetch_max(end, Ordering::AcqRel);
                }
            }
        }
        self.counts.acknowledged += 1;
        Answered::Taken(if version == opened { now.saturating_sub(sent_at).max(1) } else { 0 })
    }

    fn leave_barrier(&mut self, way: Way, slot: u32, version: u64) {
        let Some((v, _)) = self.barrier.filter(|(v, _)| version >= *v) else { return };
        let left = self.track_mut(way, slot).is_some_and(|track| std::mem::take(&mut track.in_barrier));
        if left && let Some((barrier, count)) = &mut self.barrier {
            debug_assert_eq!(*barrier, v);
            *count -= 1;
        }
    }

    /// Present rate of an outbound SA in packets a second, as far as it was seen.
    #[must_use]
    pub fn rate(&self, slot: u32) -> u64 {
        self.outbound.get(slot as usize).and_then(Option::as_ref).map_or(0, |sa| sa.rate_per_s)
    }
}

impl Outbound {
    /// The end of the lease to ask for, where `next` is the number used last.
    fn ask(&mut self, next: u64, version: u64, now: u64) -> u64 {
        let (seen, at) = self.seen;
        if now.saturating_sub(at) >= LEASE_TIME / 2 {
            let passed = now.saturating_sub(at).max(1);
            if at != 0 {
                let used = next.saturating_sub(seen);
                self.rate_per_s = (u128::from(used) * 1_000_000_000 / u128::from(passed)) as u64;
            }
            self.seen = (next, now);
        }
        let lease = lease(self.rate_per_s);
        let (end, _) = self.asked[0];
        if end.saturating_sub(next) < lease / 2 || end == 0 {
            let newest = self.asked[0];
            if newest.1 != version {
                self.asked[1] = newest;
            }
            self.asked[0] = (next.saturating_add(lease), version);
        }
        self.asked[0].0
    }
}

/// Length of a lease at a rate.
fn lease(rate_per_s: u64) -> u64 {
    (rate_per_s / (1_000_000_000 / LEASE_TIME)).saturating_mul(2).clamp(LEASE_MIN, JUMP_MAX)
}

//! A model of the data plane's worker, around the real window, sequence numbers and IVs.
//!
//! A round has three steps, between which anything may happen: it reads role and handling; it sets the window's bits
//! and takes numbers; it reads the stamp, delivers or parks, releases what is acknowledged, marks and sends. Parked
//! frames live in its own memory.

use super::queue::Time;
use std::collections::VecDeque;
use std::ops::Range;
use std::sync::atomic::Ordering;
use tandem_esp::window::{self, Verdict};
use tandem_esp::{Iv, IvSource, sequence};
use tandem_lease::mutant::{self, Mutant};
use tandem_shm::{Handling, HotState, Marks, ROLE_ACTIVE, settle};

/// Frames that may be parked.
const PARKED_MAX: usize = 24;
/// Frames of a batch.
const BATCH: usize = 8;

/// An ESP packet to the pair. The peer sends each number of an SPI once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Esp {
    /// SPI.
    pub spi: u32,
    /// Sequence number.
    pub sequence: u64,
}

/// Work of a worker.
#[derive(Clone, Copy, Debug)]
pub enum Item {
    /// A packet from the peer for the inbound SA in a slot.
    Inbound {
        /// Packet.
        packet: Esp,
        /// Slot.
        slot: u32,
    },
    /// A run of packets from the inside for the outbound SA in a slot.
    Outbound {
        /// SPI.
        spi: u32,
        /// Slot.
        slot: u32,
        /// Packets.
        count: u32,
        /// Base term of the key.
        base_term: u64,
    },
}

#[derive(Clone, Copy, Debug)]
struct Parked {
    packet: Esp,
    slot: u32,
    stamp: u64,
    since: Time,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Step {
    #[default]
    Begin,
    Touch,
    Finish,
}

/// What a step did.
#[derive(Debug)]
pub enum Effect {
    /// An inner packet went to the inside.
    Delivered(Esp),
    /// ESP packets left, with the IVs of some of them.
    Sent {
        /// SPI.
        spi: u32,
        /// Slot.
        slot: u32,
        /// Their numbers.
        numbers: Range<u64>,
        /// IVs.
        ivs: Vec<Iv>,
        /// Term of the IVs.
        term: u64,
    },
    /// Something was dropped, and why.
    Dropped(&'static str),
}

/// One worker.
#[derive(Debug, Default)]
pub struct Worker {
    /// What waits in its ring.
    pub ring: VecDeque<Item>,
    /// Handling word that it has worked by.
    pub seen: u64,
    /// When its present round began.
    pub began: Time,
    /// Its next step is due then; stops where nothing is to be done.
    pub due: Option<Time>,
    step: Step,
    active: bool,
    word: u64,
    batch: Vec<Item>,
    parked: VecDeque<Parked>,
    fresh: Vec<(Esp, u32)>,
    sealed: Vec<Effect>,
    /// Where its IVs come from.
    pub ivs: IvSource,
}

impl Worker {
    /// Is there anything to do but to wait?
    #[must_use]
    pub fn has_work(&self, hot: &HotState) -> bool {
        let header = hot.header();
        self.step != Step::Begin
            || !self.ring.is_empty()
            || self.seen != header.handling.load(Ordering::Acquire)
            || self.parked.front().is_some_and(|head| {
                header.role.load(Ordering::Acquire) != ROLE_ACTIVE
                    || is_held(hot, head)
                    || releasable(hot, head, Handling::of_word(header.handling.load(Ordering::Acquire)))
            })
    }

    /// Since when its oldest parked frame waits.
    #[must_use]
    pub fn parked_since(&self) -> Option<Time> {
        self.parked.front().map(|parked| parked.since)
    }

    /// Is a round over, or not begun?
    #[must_use]
    pub fn between_rounds(&self) -> bool {
        self.step == Step::Begin
    }

    /// The next step of its round.
    pub fn step(
        &mut self,
        hot: &HotState,
        inbound: &Marks,
        outbound: &Marks,
        now: Time,
        out: &mut Vec<Effect>,
    ) {
        match self.step {
            Step::Begin => {
                self.began = now;
                self.active = hot.header().role.load(Ordering::Acquire) == ROLE_ACTIVE;
                self.word = hot.header().handling.load(Ordering::Acquire);
                let count = self.ring.len().min(BATCH);
                self.batch.extend(self.ring.drain(..count));
                self.step = Step::Touch;
            }
            Step::Touch => {
                self.touch(hot, out);
                self.step = Step::Finish;
            }
            Step::Finish => {
                self.finish(hot, inbound, outbound, out);
                self.seen = self.word;
                self.step = Step::Begin;
            }
        }
    }

    fn works(&self) -> bool {
        self.active && Handling::of_word(self.word) != Handling::Halted
    }

    /// Sets bits and takes numbers.
    fn touch(&mut self, hot: &HotState, out: &mut Vec<Effect>) {
        let works = self.works();
        let strict = Handling::of_word(self.word) == Handling::Strict;
        for item in std::mem::take(&mut self.batch) {
            if !works {
                out.push(Effect::Dropped("not-active"));
                continue;
            }
            match item {
                Item::Inbound { packet, slot } => {
                    let Some(state) = hot.inbound(slot) else { continue };
                    if state.limit.load(Ordering::Acquire) == 0 {
                        out.push(Effect::Dropped("sa-held"));
                        continue;
                    }
                    match window::accept(&state.top, &state.window, packet.sequence) {
                        Verdict::Fresh => self.fresh.push((packet, slot)),
                        Verdict::Replayed => out.push(Effect::Dropped("replayed")),
                        Verdict::TooOld => out.push(Effect::Dropped("too-old")),
                    }
                }
                Item::Outbound { spi, slot, count, base_term } => {
                    self.take(hot, spi, slot, count, base_term, strict, out);
                }
            }
        }
    }

    #[expect(clippy::too_many_arguments, reason = "an item's fields and the memory that it works on")]
    fn take(
        &mut self,
        hot: &HotState,
        spi: u32,
        slot: u32,
        count: u32,
        base_term: u64,
        strict: bool,
        out: &mut Vec<Effect>,
    ) {
        let Some(state) = hot.outbound(slot) else { return };
        let numbers = match sequence::take(state, count, strict) {
            Ok(numbers) => numbers,
            Err(sequence::Exhausted::Lease) => return out.push(Effect::Dropped("lease-exhausted")),
            Err(sequence::Exhausted::Held) => return out.push(Effect::Dropped("sa-held")),
            Err(sequence::Exhausted::Limit) => return out.push(Effect::Dropped("limit")),
            Err(sequence::Exhausted::Numbers) => return out.push(Effect::Dropped("numbers")),
        };
        let term = hot.header().term.load(Ordering::Acquire);
        let mut ivs = Vec::new();
        for _ in 0..(numbers.end - numbers.start).min(2) {
            match self.ivs.next(hot.header(), base_term) {
                Ok(iv) => ivs.push(iv),
                Err(_) => return out.push(Effect::Dropped("no-iv")),
            }
        }
        self.sealed.push(Effect::Sent { spi, slot, numbers, ivs, term });
    }

    fn finish(&mut self, hot: &HotState, inbound: &Marks, outbound: &Marks, out: &mut Vec<Effect>) {
        // The bits of the whole batch are set: a record of a later version holds them all.
        let settled = settle();
        let stamp = settled.stamp(&hot.header().version);
        let handling = Handling::of_word(self.word);
        for (packet, slot) in self.fresh.drain(..) {
            inbound.set(slot, &settled);
            let limit = hot.inbound(slot).map_or(0, |state| state.limit.load(Ordering::Acquire));
            let at_once = handling == Handling::Alone || mutant::is(Mutant::DeliverBeforeCommit);
            if at_once && packet.sequence <= limit {
                out.push(Effect::Delivered(packet));
            } else if self.parked.len() < PARKED_MAX {
                self.parked.push_back(Parked { packet, slot, stamp, since: self.began });
            } else {
                out.push(Effect::Dropped("parking-full"));
            }
        }
        for sent in self.sealed.drain(..) {
            if let Effect::Sent { slot, .. } = sent {
                outbound.set(slot, &settled);
            }
            out.push(sent);
        }
        if !self.works() && !mutant::is(Mutant::DeliverAfterDemotion) {
            for _ in self.parked.drain(..) {
                out.push(Effect::Dropped("parked-not-active"));
            }
        }
        let demoted = !self.active && mutant::is(Mutant::DeliverAfterDemotion);
        while let Some(head) = self.parked.front() {
            if is_held(hot, head) {
                out.push(Effect::Dropped("parked-sa-held"));
                self.parked.pop_front();
                continue;
            }
            if !demoted && !releasable(hot, head, handling) {
                break;
            }
            out.push(Effect::Delivered(head.packet));
            self.parked.pop_front();
        }
    }
}

/// No number of the SA may be delivered: what is parked of it would block all others.
fn is_held(hot: &HotState, head: &Parked) -> bool {
    hot.inbound(head.slot).is_none_or(|state| state.limit.load(Ordering::Acquire) == 0)
}

fn releasable(hot: &HotState, head: &Parked, handling: Handling) -> bool {
    let Some(state) = hot.inbound(head.slot) else { return false };
    (handling == Handling::Alone || state.acknowledged.load(Ordering::Acquire) > head.stamp)
        && head.packet.sequence <= state.limit.load(Ordering::Acquire)
}

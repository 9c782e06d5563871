//! Directed schedules: half of the seeds do not draw their faults at random, but play one of the moments at which a
//! rule of docs/failover.md decides. Uniform faults meet these moments once in ten thousands of seeds.
//!
//! Each schedule draws its times from the seed, and acts on what a wire-tapper or an operator could see: messages on the
//! wire, what a node says of itself, traffic.

use super::faults::{Death, Fault};
use super::net::Datagram;
use super::node::SaDefinition;
use super::queue::{MS, Time, US};
use super::world::{Event, World};
use tandem_lease::message::{self, Section};
use tandem_takeover::{SaKey, Stale, Way};

/// A node that parks a frame longer than this while the pair is strict waits for something that does not come.
const PARKED_LONGEST: Time = 14 * MS;
/// Datagrams of the attacker that fill a receive queue.
const FLOOD: usize = 80;

/// The moment that is played.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// The standby loses its memory, is back before the active node can have missed it, and the active node dies (F18,
    /// F20).
    MemoryLost,
    /// What the standby says of v is lost; then both hear nothing, about when the join is given up (F18 step 5).
    SealedLost,
    /// It is held back, and comes when the next join has begun (F18 step 5).
    SealedLate,
    /// A worker is in the middle of its round while the pair becomes strict (F18 step 2).
    SlowWorker,
    /// The SSP stream is behind while the pair becomes strict (F18 step 4).
    SlowStream,
    /// An SA is removed at the standby first (F19).
    RemovedFirst,
    /// The standby has taken over, and its message waits in a full queue when the old active node's D_a ends (F20).
    FullQueue,
}

impl Moment {
    /// All of them.
    pub const ALL: [Moment; 7] = [
        Moment::MemoryLost,
        Moment::SealedLost,
        Moment::SealedLate,
        Moment::SlowWorker,
        Moment::SlowStream,
        Moment::RemovedFirst,
        Moment::FullQueue,
    ];

    /// Does it happen while a standby joins?
    const fn is_of_a_join(self) -> bool {
        matches!(self, Moment::SealedLost | Moment::SealedLate | Moment::SlowWorker | Moment::SlowStream)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Nothing is played yet.
    Waits,
    /// The next join is the one.
    Armed,
    /// v was asked for.
    Version,
    /// It was given up.
    Abandoned,
    /// The held message was let go.
    Released,
    /// The pair says that it is strict again, to a standby that believes it.
    Strict,
    /// All is played.
    Done,
}

/// A schedule under way.
#[derive(Debug)]
pub struct Directed {
    moment: Moment,
    phase: Phase,
    /// The active node.
    active: usize,
    held: Option<Datagram>,
    /// The SA that is removed.
    sa: usize,
}

impl Directed {
    /// The moment, once all of it is played.
    #[must_use]
    pub fn played(&self) -> Option<Moment> {
        (self.phase == Phase::Done).then_some(self.moment)
    }

    /// Do workers make single, slow steps?
    #[must_use]
    pub fn slow_workers(&self) -> bool {
        self.moment == Moment::SlowWorker && matches!(self.phase, Phase::Armed | Phase::Strict)
    }

    /// Is the SSP stream slow?
    #[must_use]
    pub fn slow_stream(&self) -> bool {
        self.moment == Moment::SlowStream && matches!(self.phase, Phase::Armed | Phase::Strict)
    }
}

impl World {
    /// Draws a moment, and lets it begin.
    pub fn direct(&mut self, started_alone: bool) {
        let Some(moment) = self.rng.pick(&Moment::ALL).copied() else { return };
        let at_first_join = started_alone && moment.is_of_a_join();
        let phase = if at_first_join { Phase::Armed } else { Phase::Waits };
        self.story.tell(self.now, "world", || format!("plays {moment:?}"));
        self.directed = Some(Directed { moment, phase, active: 0, held: None, sa: usize::MAX });
        if !at_first_join {
            let at = self.rng.between(130, 170) * MS;
            self.queue.put(at, Event::Directed);
        }
    }

    /// The next step of the schedule that has a time of its own.
    pub fn directed_step(&mut self) {
        if !self.rough {
            return;
        }
        let Some(Directed { moment, phase, active, sa, .. }) = self.directed else { return };
        match (moment, phase) {
            (_, Phase::Waits) => self.directed_begin(moment),
            (Moment::MemoryLost, Phase::Armed) => {
                self.die(active, Death::Machine);
                self.directed_phase(Phase::Done);
            }
            (Moment::SealedLost, Phase::Version) => {
                self.fault(Fault::Partition(None, 45 * MS));
                self.directed_phase(Phase::Done);
            }
            (Moment::SealedLate, Phase::Released) => {
                self.die(active, Death::Machine);
                self.directed_phase(Phase::Done);
            }
            (Moment::SlowStream, Phase::Strict) => {
                self.die(active, Death::Machine);
                self.directed_phase(Phase::Done);
            }
            (Moment::RemovedFirst, Phase::Armed) => {
                self.queue.put(self.now, Event::Configure { node: 1 - active, sa, there: false });
                let later = self.rng.between(24, 32) * MS;
                self.queue.put(self.now + later, Event::Directed);
                self.directed_phase(Phase::Version);
            }
            (Moment::RemovedFirst, Phase::Version) => {
                self.check_parked(active);
                self.queue.put(self.now, Event::Configure { node: active, sa, there: false });
                self.directed_phase(Phase::Done);
            }
            _ => {}
        }
    }

    fn directed_phase(&mut self, phase: Phase) {
        if let Some(directed) = &mut self.directed {
            directed.phase = phase;
        }
    }

    fn directed_after(&mut self, low: Time, high: Time) {
        let at = self.now + self.rng.between(low, high);
        self.queue.put(at, Event::Directed);
    }

    /// The pair is in service: now the moment is made.
    fn directed_begin(&mut self, moment: Moment) {
        let Some(active) = self.healthy() else {
            self.queue.put(self.now + 4 * MS, Event::Directed);
            return;
        };
        if let Some(directed) = &mut self.directed {
            directed.active = active;
        }
        let standby = 1 - active;
        match moment {
            Moment::MemoryLost => {
                self.kill_data(standby, false);
                let back = self.rng.between(200 * US, 5 * MS);
                self.queue.put(self.now + back, Event::StartData { node: standby });
                self.directed_after(back + 500 * US, back + 9 * MS);
                self.directed_phase(Phase::Armed);
            }
            Moment::RemovedFirst => {
                let index = self.definitions.len();
                self.definitions.push(SaDefinition {
                    key: SaKey {
                        way: Way::In,
                        spi: 0x1000 + index as u32,
                        fingerprint: 0xf1f1_0000 + index as u64,
                    },
                    stale: Stale::Jump,
                    configured: [false; 2],
                    new: true,
                });
                if let Some(directed) = &mut self.directed {
                    directed.sa = index;
                }
                for node in 0..2 {
                    self.queue.put(self.now, Event::Configure { node, sa: index, there: true });
                }
                self.directed_after(25 * MS, 35 * MS);
                self.directed_phase(Phase::Armed);
            }
            Moment::FullQueue => {
                // Cut off until just before D_a; then the queue fills while its reader does not run.
                let silent = self.rng.between(25_500, 28_500) * US;
                let deaf = self.rng.between(2, 4) * MS;
                self.fault(Fault::Partition(None, silent));
                let early = self.now + silent - self.rng.between(100, 900) * US;
                self.queue.put(early, Event::Fault(Fault::Deaf(active, deaf)));
                for datagram in self.attacker.newest_to(active, FLOOD) {
                    let at = early + 20 * US + self.rng.below(60 * US);
                    self.queue.put(at, Event::Datagram { node: active, datagram });
                }
                self.directed_phase(Phase::Done);
            }
            _ => {
                // Another join of the same standby.
                let death = if self.rng.chance(500) { Death::Machine } else { Death::DataAndMemory };
                self.die(standby, death);
                self.directed_phase(Phase::Armed);
            }
        }
    }

    /// A frame that waits, in a strict pair whose standby is heard, waits for a record that the standby never takes.
    fn check_parked(&mut self, active: usize) {
        if !self.sight(active).strict || self.last_heard[active] + 6 * MS < self.now {
            return;
        }
        let Some(data) = &self.nodes[active].data else { return };
        let oldest = data.workers.iter().filter_map(super::worker::Worker::parked_since).min();
        if let Some(since) = oldest.filter(|since| since + PARKED_LONGEST < self.now) {
            let long = (self.now - since) as f64 / 1e6;
            self.check.fail(format!(
                "F19: frames wait for {long:.1} ms, behind one of an SA that the standby has removed"
            ));
        }
    }

    /// A datagram leaves a node. True: this one is lost.
    pub fn directed_loses(&mut self, datagram: &Datagram) -> bool {
        let Some(directed) = self.directed.as_mut().filter(|_| self.rough) else { return false };
        let (moment, phase) = (directed.moment, directed.phase);
        if !matches!(moment, Moment::SealedLost | Moment::SealedLate)
            || matches!(phase, Phase::Waits | Phase::Done)
        {
            return false;
        }
        let Ok((_, sections)) = message::read(&datagram.message) else { return false };
        let mut lost = false;
        for section in sections {
            match section {
                Section::Seal { .. } if phase == Phase::Armed => {
                    directed.active = datagram.from;
                    directed.phase = Phase::Version;
                    if moment == Moment::SealedLost {
                        // The join is given up D_a after v was taken, which was a little before.
                        let at = self.now + self.rng.between(19, 29) * MS;
                        self.queue.put(at, Event::Directed);
                    }
                }
                Section::Sealed { .. } if phase != Phase::Armed => {
                    lost = true;
                    if phase == Phase::Version {
                        directed.held = Some(datagram.clone());
                    }
                }
                Section::Records { .. }
                    if moment == Moment::SealedLate && datagram.from == directed.active =>
                {
                    match phase {
                        Phase::Abandoned => {
                            lost = true;
                            directed.phase = Phase::Released;
                            if let Some(datagram) = directed.held.take() {
                                let node = directed.active;
                                let at = self.now + self.rng.between(100 * US, 2 * MS);
                                self.queue.put(at, Event::Datagram { node, datagram });
                                let dies = at + self.rng.between(MS, 6 * MS);
                                self.queue.put(dies, Event::Directed);
                            }
                        }
                        Phase::Released => lost = true,
                        _ => {}
                    }
                }
                _ => {}
            }
        }
        lost
    }

    /// A node says what it has become.
    pub fn directed_history(&mut self, node: usize, step: &str) {
        let Some(directed) = self.directed.as_mut().filter(|_| self.rough) else { return };
        match (directed.moment, directed.phase, step) {
            (Moment::SealedLate, Phase::Version, "alone") if directed.active == node => {
                directed.phase = Phase::Abandoned;
            }
            (Moment::SlowWorker, Phase::Armed, "synchronized") => {
                (directed.active, directed.phase) = (1 - node, Phase::Strict);
            }
            (Moment::SlowStream, Phase::Armed, "synchronized") => {
                (directed.active, directed.phase) = (1 - node, Phase::Strict);
                self.directed_after(100 * US, 5 * MS);
            }
            _ => {}
        }
    }

    /// Do workers make single, slow steps?
    #[must_use]
    pub fn slow_workers(&self) -> bool {
        self.directed.as_ref().is_some_and(|directed| directed.slow_workers() && self.rough)
    }

    /// A node delivered something.
    pub fn directed_delivered(&mut self, node: usize) {
        let Some(directed) = self.directed.as_ref().filter(|_| self.rough) else { return };
        let now_or_never = directed.moment == Moment::SlowWorker
            && directed.phase == Phase::Strict
            && directed.active == node;
        if now_or_never && self.rng.chance(600) {
            self.dies_now(node, Death::Machine);
            self.directed_phase(Phase::Done);
        }
    }
}

//! The network between the nodes, and the envelope of their datagrams.
//!
//! The envelope is modelled: who cannot seal cannot forge, so a datagram carries its epoch, path, sender and counter
//! in clear, and the receiver looks at them as the real one does after it has opened the datagram (F6, F17).

use super::queue::{MS, Time, US};
use super::rng::Rng;
use std::rc::Rc;

/// Most paths in a run: sync link, inside, outside.
pub const PATHS: usize = 3;
/// Segment of the inside.
pub const INSIDE: usize = 0;
/// Segment of the outside.
pub const OUTSIDE: usize = 1;

/// A sealed datagram between the data planes.
#[derive(Clone, Debug)]
pub struct Datagram {
    /// Epoch of its key.
    pub epoch: u32,
    /// Path of its key.
    pub path: usize,
    /// Sender.
    pub from: usize,
    /// Counter of its nonce.
    pub counter: u64,
    /// When it was sealed; for the checkers only.
    pub sealed: Time,
    /// Message.
    pub message: Rc<[u8]>,
}

/// A path in one direction.
#[derive(Clone, Copy, Debug)]
struct Lane {
    /// Loses so many of 1000.
    loss: u64,
    /// Delivers so many of 1000 twice.
    repeat: u64,
    /// Shortest delay.
    delay: Time,
    /// Added at random: what comes later may arrive earlier.
    jitter: Time,
    /// Loses everything until then.
    cut_until: Time,
}

/// What joins both nodes.
#[derive(Debug)]
pub struct Net {
    /// By path, then by sender.
    lanes: [[Lane; 2]; PATHS],
    /// By segment, then by node: no carrier until then.
    link_down_until: [[Time; 2]; 2],
    /// By segment: the witness is silent until then.
    witness_down_until: [Time; 2],
    /// When each of them went.
    link_down_since: [[Time; 2]; 2],
    witness_down_since: [Time; 2],
    /// Paths in use.
    pub paths: usize,
}

impl Net {
    /// The network of a run.
    pub fn new(rng: &mut Rng) -> Self {
        let rough = rng.below(4);
        let mut lane = || Lane {
            loss: [0, 10, 50, 150][rough as usize],
            repeat: [0, 20, 50, 100][rough as usize],
            delay: rng.between(10 * US, 80 * US),
            jitter: if rng.chance(300) { rng.between(100 * US, 3 * MS) } else { 30 * US },
            cut_until: 0,
        };
        let lanes = std::array::from_fn(|_| std::array::from_fn(|_| lane()));
        let paths = rng.between(1, PATHS as u64) as usize;
        Self {
            lanes,
            link_down_until: [[0; 2]; 2],
            witness_down_until: [0; 2],
            link_down_since: [[0; 2]; 2],
            witness_down_since: [0; 2],
            paths,
        }
    }

    /// The segment that a path lies on; the sync link has its own wire.
    fn segment(path: usize) -> Option<usize> {
        path.checked_sub(1)
    }

    /// Can anything pass on this path from this node?
    #[must_use]
    pub fn open(&self, path: usize, from: usize, now: Time) -> bool {
        let carrier =
            Self::segment(path).is_none_or(|segment| (0..2).all(|node| self.link(segment, node, now)));
        carrier && self.lanes[path][from].cut_until <= now
    }

    /// Does any path work both ways?
    #[must_use]
    pub fn joined(&self, now: Time) -> bool {
        (0..self.paths).any(|path| self.open(path, 0, now) && self.open(path, 1, now))
    }

    /// When copies of what `from` sends now arrive.
    pub fn carry(&self, path: usize, from: usize, now: Time, rng: &mut Rng) -> [Option<Time>; 2] {
        let lane = self.lanes[path][from];
        if !self.open(path, from, now) || rng.chance(lane.loss) {
            return [None; 2];
        }
        let mut when = || now + lane.delay + rng.below(lane.jitter);
        let first = when();
        let second = when();
        [Some(first), rng.chance(lane.repeat).then_some(second)]
    }

    /// Cuts a path in the direction from a node.
    pub fn cut(&mut self, path: usize, from: usize, until: Time) {
        let lane = &mut self.lanes[path][from];
        lane.cut_until = lane.cut_until.max(until);
    }

    /// Has a node carrier on a segment?
    #[must_use]
    pub fn link(&self, segment: usize, node: usize, now: Time) -> bool {
        self.link_down_until[segment][node] <= now
    }

    /// Since when a node has seen no witness of a segment; `None`: it sees it.
    #[must_use]
    pub fn dark_since(&self, segment: usize, node: usize, now: Time) -> Option<Time> {
        let link = (!self.link(segment, node, now)).then_some(self.link_down_since[segment][node]);
        let witness = (self.witness_down_until[segment] > now).then_some(self.witness_down_since[segment]);
        link.into_iter().chain(witness).min()
    }

    /// Takes the carrier away.
    pub fn pull(&mut self, segment: usize, node: usize, now: Time, until: Time) {
        if self.link(segment, node, now) {
            self.link_down_since[segment][node] = now;
        }
        self.link_down_until[segment][node] = until;
    }

    /// Silences the witness of a segment.
    pub fn silence(&mut self, segment: usize, now: Time, until: Time) {
        if self.witness_down_until[segment] <= now {
            self.witness_down_since[segment] = now;
        }
        self.witness_down_until[segment] = until;
    }

    /// Does the witness of a segment answer a node?
    #[must_use]
    pub fn witness(&self, segment: usize, node: usize, now: Time) -> bool {
        self.link(segment, node, now) && self.witness_down_until[segment] <= now
    }

    /// Everything works from now on, with at most `loss` of 1000 datagrams lost.
    pub fn heal(&mut self, loss: u64) {
        for lane in self.lanes.iter_mut().flatten() {
            lane.cut_until = 0;
            lane.loss = lane.loss.min(loss);
            lane.jitter = lane.jitter.min(300 * US);
        }
        self.link_down_until = [[0; 2]; 2];
        self.witness_down_until = [0; 2];
    }
}

/// Keys of the paths that a data plane holds, and what it has seen under them.
#[derive(Debug, Default)]
pub struct Keys {
    /// Epoch that it seals with.
    pub send: Option<u32>,
    /// Current epoch and the one before: what was seen of each path.
    known: Vec<(u32, [Seen; PATHS])>,
}

/// Counters seen of a path: 1024 of them, as the real receiver's.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    top: u64,
    bits: [u64; 16],
    any: bool,
}

impl Seen {
    const SPAN: u64 = 1024;

    fn accept(&mut self, counter: u64) -> bool {
        let place = |counter: u64| (((counter % Self::SPAN) / 64) as usize, 1u64 << (counter % 64));
        if self.any && counter + Self::SPAN <= self.top {
            return false;
        }
        if !self.any || counter > self.top {
            let from = if self.any { self.top + 1 } else { counter.saturating_sub(Self::SPAN) };
            for skipped in from.max(counter.saturating_sub(Self::SPAN - 1))..=counter {
                let (word, bit) = place(skipped);
                self.bits[word] &= !bit;
            }
            (self.top, self.any) = (counter, true);
        }
        let (word, bit) = place(counter);
        let fresh = self.bits[word] & bit == 0;
        self.bits[word] |= bit;
        fresh
    }
}

impl Keys {
    /// A key for an epoch: to open, and with `send` to seal from now on.
    pub fn install(&mut self, epoch: u32, send: bool) {
        if !self.known.iter().any(|(known, _)| *known == epoch) {
            self.known.push((epoch, Default::default()));
            self.known.sort_by_key(|(known, _)| *known);
            if self.known.len() > 2 {
                self.known.remove(0);
            }
        }
        if send && self.send.is_none_or(|current| current <= epoch) {
            self.send = Some(epoch);
        }
    }

    /// Would it be opened now?
    pub fn would_open(&self, datagram: &Datagram) -> bool {
        let known = self.known.iter().find(|(epoch, _)| *epoch == datagram.epoch);
        known.is_some_and(|(_, seen)| { *seen }[datagram.path].accept(datagram.counter))
    }

    /// Is it authentic, and seen for the first time?
    pub fn open(&mut self, datagram: &Datagram) -> bool {
        self.known
            .iter_mut()
            .find(|(epoch, _)| *epoch == datagram.epoch)
            .is_some_and(|(_, seen)| seen[datagram.path].accept(datagram.counter))
    }
}

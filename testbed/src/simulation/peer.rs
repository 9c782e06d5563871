//! The remote gateway, the hosts inside, and the switches between.

use super::net::{INSIDE, OUTSIDE};
use super::queue::{MS, Time, US};
use super::rng::Rng;
use super::worker::{Esp, Item};
use super::world::{Event, World};
use tandem_takeover::Way;

/// The remote gateway: it sends each number of each SPI once, and mostly in order.
#[derive(Debug)]
pub struct Peer {
    next: Vec<u64>,
    /// Between two packets, in each direction.
    pace: Time,
    /// No traffic at all.
    pub silent: bool,
}

impl Peer {
    /// A peer that has sent nothing.
    #[must_use]
    pub fn new(rng: &mut Rng) -> Self {
        Self { next: Vec::new(), pace: rng.between(250, 900) * US, silent: false }
    }
}

impl World {
    /// The peer sends a packet to the pair.
    pub fn peer_sends(&mut self) {
        let after = self.rng.between(self.peer.pace / 2, self.peer.pace * 3 / 2);
        self.queue.put(self.now + after, Event::Peer);
        if self.peer.silent {
            return;
        }
        let Some(index) = self.some_sa(Way::In) else { return };
        self.peer.next.resize(self.definitions.len(), 0);
        let next = &mut self.peer.next[index];
        // Sometimes much was lost on the way: then the window moves far.
        let skip = if self.rng.chance(5) { self.rng.between(100, 5000) } else { 0 };
        *next += 1 + skip;
        let packet = Esp { spi: self.definitions[index].key.spi, sequence: *next };
        self.attacker.saw_packet(packet);
        if self.rng.chance(10) {
            return;
        }
        let late = if self.rng.chance(50) { 2 * MS } else { 100 * US };
        let after = 50 * US + self.rng.below(late);
        self.queue.put(self.now + after, Event::Esp { node: None, packet });
    }

    /// Inside hosts send a run of packets.
    pub fn inside_sends(&mut self) {
        let after = self.rng.between(self.peer.pace / 2, self.peer.pace * 3 / 2);
        self.queue.put(self.now + after, Event::Inside);
        if self.peer.silent {
            return;
        }
        let Some(index) = self.some_sa(Way::Out) else { return };
        let Some(node) = self.virtual_at else { return };
        if !self.net.link(INSIDE, node, self.now) {
            return;
        }
        // A run that takes much of a lease stands for the time in which it would be used up.
        let count =
            if self.rng.chance(40) { self.rng.between(1000, 40_000) } else { self.rng.between(1, 32) };
        let spi = self.definitions[index].key.spi;
        let slot = self.nodes[node].data.as_ref().and_then(|data| data.slot(Way::Out, spi));
        if let Some((slot, base_term)) = slot {
            self.give(node, Item::Outbound { spi, slot, count: count as u32, base_term });
        }
    }

    /// The peer goes on so much further, as if it had sent all that.
    pub fn peer_skips(&mut self, numbers: u64) {
        for next in &mut self.peer.next {
            *next += numbers;
        }
    }

    fn some_sa(&mut self, way: Way) -> Option<usize> {
        let those: Vec<usize> = (0..self.definitions.len())
            .filter(|index| {
                let definition = &self.definitions[*index];
                definition.key.way == way && definition.configured != [false; 2]
            })
            .collect();
        self.rng.pick(&those).copied()
    }

    /// An ESP packet arrives at a node.
    pub fn esp_arrives(&mut self, node: Option<usize>, packet: Esp) {
        let Some(node) = node.or(self.virtual_at) else { return };
        if !self.net.link(OUTSIDE, node, self.now) {
            return;
        }
        let slot = self.nodes[node].data.as_ref().and_then(|data| data.slot(Way::In, packet.spi));
        if let Some((slot, _)) = slot {
            self.give(node, Item::Inbound { packet, slot });
        }
    }

    /// Work for one of a node's workers: a card spreads by flow, so one SA mostly meets one worker, but not always.
    fn give(&mut self, node: usize, item: Item) {
        let Some(data) = &mut self.nodes[node].data else { return };
        let workers = data.workers.len();
        let slot = match item {
            Item::Inbound { slot, .. } | Item::Outbound { slot, .. } => slot as usize,
        };
        let worker =
            if self.rng.chance(800) { slot % workers } else { self.rng.below(workers as u64) as usize };
        if data.workers[worker].ring.len() < 256 {
            data.workers[worker].ring.push_back(item);
        }
        let after = self.rng.between(2 * US, 40 * US);
        self.wake_worker(node, worker, self.now + after);
    }
}

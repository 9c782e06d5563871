//! Who sees everything on the wires, and sends it again: to either node, whenever it likes.

use super::net::Datagram;
use super::queue::{MS, US};
use super::worker::Esp;
use super::world::{Event, World};

/// Packets and datagrams that it keeps.
const KEEPS: usize = 4096;
/// Most recent packets that it sends again when a node takes over.
const BURST: usize = 90;

/// What the attacker saw.
#[derive(Debug, Default)]
pub struct Attacker {
    packets: Vec<Esp>,
    datagrams: Vec<Datagram>,
    burst: usize,
}

impl Attacker {
    /// A packet to the pair.
    pub fn saw_packet(&mut self, packet: Esp) {
        if self.packets.len() < KEEPS {
            self.packets.push(packet);
        }
    }

    /// The newest datagrams to a node that it has, so many, some of them more than once.
    pub fn newest_to(&self, node: usize, number: usize) -> Vec<Datagram> {
        let newest: Vec<&Datagram> =
            self.datagrams.iter().rev().filter(|datagram| datagram.from != node).take(number / 2).collect();
        newest.into_iter().cycle().take(number).cloned().collect()
    }

    /// A datagram between the nodes.
    pub fn saw_datagram(&mut self, datagram: &Datagram) {
        if self.datagrams.len() < KEEPS {
            self.datagrams.push(datagram.clone());
        }
    }
}

impl World {
    /// A node has taken over: now its window is tried.
    pub fn attack_soon(&mut self) {
        self.attacker.burst = BURST;
        let after = self.rng.between(20 * US, 2 * MS);
        self.queue.put(self.now + after, Event::Attack);
    }

    /// Sends something again.
    pub fn attack(&mut self) {
        let burst = std::mem::take(&mut self.attacker.burst);
        let newest = self.attacker.packets.len();
        for back in 1..=burst.min(newest) {
            let packet = self.attacker.packets[newest - back];
            let after = self.rng.below(3 * MS);
            self.queue.put(self.now + after, Event::Esp { node: None, packet });
        }
        if burst > 0 {
            self.story.tell(self.now, "attacker", || format!("sends its newest {burst} packets again"));
            return;
        }
        let after = self.rng.between(MS, 6 * MS);
        self.queue.put(self.now + after, Event::Attack);
        // A recent packet, mostly: an old one is refused anyway.
        for _ in 0..2 {
            let back = if self.rng.chance(700) { self.rng.below(30) } else { self.rng.below(newest as u64) };
            if let Some(packet) = self.attacker.packets.get(newest.wrapping_sub(1 + back as usize)).copied() {
                let node = self.rng.below(4) as usize;
                let node = (node < 2).then_some(node);
                self.queue.put(self.now, Event::Esp { node, packet });
            }
        }
        let count = self.attacker.datagrams.len();
        for _ in 0..2 {
            let back = if self.rng.chance(500) { self.rng.below(200) } else { self.rng.below(count as u64) };
            if let Some(datagram) =
                self.attacker.datagrams.get(count.wrapping_sub(1 + back as usize)).cloned()
            {
                let node = if self.rng.chance(900) { 1 - datagram.from } else { datagram.from };
                self.queue.put(self.now, Event::Datagram { node, datagram });
            }
        }
    }

    /// Sends every packet of the run again.
    pub fn attack_with_all(&mut self) {
        self.story.tell(self.now, "attacker", || "sends every packet of the run again".to_owned());
        let packets: Vec<Esp> = self.attacker.packets.iter().rev().take(1500).copied().collect();
        for packet in packets {
            let after = self.rng.below(8 * MS);
            self.queue.put(self.now + after, Event::Esp { node: None, packet });
        }
    }
}

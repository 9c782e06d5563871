//! The interfaces as the pair thread uses them: their programs' roles, their witnesses, and announcements.

use super::announce::{self, Frame, Schedule};
use super::witness::Witness;
use std::io::ErrorKind;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use tandem_api::pair::SegmentStatus;
use tandem_ebpf::RoleSwitch;
use tandem_takeover::{Nanos, Segment, Sight};
use tandem_wire::ethernet::MacAddr;
use tandem_xsk::PacketSocket;

/// Frames that are read from one interface in one turn, at most: a flood of ARP must hold up nothing.
const READ_MAX: usize = 64;
/// Frames that are announced in one turn, at most, for the same reason.
const ANNOUNCE_MAX: usize = 64;
/// A witness that showed itself within this time shows that its segment lives; for the status alone.
const ALIVE: Nanos = 3500 * tandem_takeover::MS;
/// Longest ARP frame that is looked at; the rest is padding.
const FRAME_MAX: usize = 64;

/// An interface, as it is given to the pair thread.
#[derive(Debug)]
pub struct Attached {
    /// What it is.
    pub facts: Facts,
    /// Switches the role of its XDP program.
    pub switch: RoleSwitch,
    /// For ARP.
    pub socket: Arc<PacketSocket>,
}

/// What is to be known of an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Name.
    pub name: String,
    /// Kernel index.
    pub ifindex: u32,
    /// Own MAC.
    pub own_mac: MacAddr,
    /// Virtual MAC.
    pub virtual_mac: MacAddr,
    /// Virtual addresses.
    pub virtual_addresses: Vec<Ipv4Addr>,
    /// Administratively up and carrier.
    pub up: bool,
    /// The witness, and the own address to ask from (0.0.0.0: none).
    pub witness: Option<(Ipv4Addr, Ipv4Addr)>,
}

#[derive(Debug)]
struct Port {
    attached: Attached,
    witness: Option<Witness>,
    /// Its socket fails for good.
    broken: bool,
}

/// All interfaces.
#[derive(Debug, Default)]
pub struct Segments {
    ports: Vec<Port>,
    schedule: Schedule,
    /// What is still to be sent of the announcement that was due last: interface and frame.
    waiting: Vec<(usize, Frame)>,
    warnings: Vec<String>,
}

impl Segments {
    /// Takes the list of interfaces and tells all programs the role. Gives back what was there before, to be dropped
    /// where time does not matter: closing packet sockets waits for the kernel.
    pub fn replace(&mut self, list: Vec<Attached>, active: bool, now: Nanos) -> Vec<Attached> {
        let old = std::mem::take(&mut self.ports);
        let mut news = false;
        for attached in list {
            let facts = &attached.facts;
            let before = old.iter().find(|port| port.attached.facts.ifindex == facts.ifindex);
            news |= before.is_none_or(|port| {
                let was = &port.attached.facts;
                (was.virtual_mac, &was.virtual_addresses) != (facts.virtual_mac, &facts.virtual_addresses)
                    || !was.up && facts.up
            });
            let witness = facts.witness.map(|(address, own)| {
                let asker = (facts.own_mac, own);
                let known = before.and_then(|port| port.witness.as_ref());
                match known.filter(|known| known.address == address && known.asker == asker) {
                    Some(known) => known.clone(),
                    None => Witness::new(address, asker, now),
                }
            });
            self.ports.push(Port { attached, witness, broken: false });
        }
        self.waiting.clear();
        self.switch(active);
        if active && news {
            self.schedule.start(now);
        }
        old.into_iter().map(|port| port.attached).collect()
    }

    /// Tells every program the role.
    pub fn switch(&mut self, active: bool) {
        for port in &mut self.ports {
            if let Err(error) = port.attached.switch.set(active) {
                let name = &port.attached.facts.name;
                self.warnings.push(format!("{name}: the XDP program was not told the role: {error}"));
            }
        }
        if !active {
            self.schedule.stop();
            self.waiting.clear();
        }
    }

    /// Announces all virtual addresses, now and for some seconds.
    pub fn announce(&mut self, now: Nanos) {
        self.schedule.start(now);
    }

    /// Asks all witnesses now, and often for a while.
    pub fn probe(&mut self, now: Nanos) {
        self.ports.iter_mut().filter_map(|port| port.witness.as_mut()).for_each(|witness| witness.hurry(now));
    }

    /// Reads what came in. Says whether that was all, and whether a witness showed itself.
    pub fn receive(&mut self, now: Nanos) -> (bool, bool) {
        let (mut drained, mut witnessed) = (true, false);
        let mut frame = [0; FRAME_MAX];
        for Port { attached, witness, broken } in self.ports.iter_mut().filter(|port| !port.broken) {
            let mut reads = 0;
            loop {
                match attached.socket.receive(&mut frame) {
                    Ok(length) => {
                        if let (Some(witness), Some(frame)) = (witness.as_mut(), frame.get(..length)) {
                            witnessed |= witness.hear(frame, now);
                        }
                    }
                    Err(error) => {
                        // That it went down is said once. A socket that goes on failing is not waited for any more; a
                        // new list of interfaces brings a new one, if the interface is there again.
                        let passing = [ErrorKind::WouldBlock, ErrorKind::Interrupted, ErrorKind::NetworkDown];
                        *broken = !passing.contains(&error.kind());
                        break;
                    }
                }
                reads += 1;
                if reads == READ_MAX {
                    drained = false;
                    break;
                }
            }
        }
        (drained, witnessed)
    }

    /// Sends questions and announcements that are due.
    pub fn send(&mut self, now: Nanos) {
        for Port { attached, witness, .. } in &mut self.ports {
            if let Some(question) = witness.as_mut().and_then(|witness| witness.ask(now)) {
                // Where it does not leave, no answer comes, and that is what counts.
                let _ = attached.socket.send(&question);
            }
        }
        if self.schedule.is_due(now) {
            self.waiting = self.all_frames();
        }
        let count = self.waiting.len().min(ANNOUNCE_MAX);
        for (port, frame) in self.waiting.drain(..count) {
            if let Some(port) = self.ports.get(port) {
                // What does not leave now is said again soon.
                let _ = port.attached.socket.send(&frame);
            }
        }
    }

    /// What an operator should know; each is given once.
    pub fn warnings(&mut self) -> std::vec::Drain<'_, String> {
        self.warnings.drain(..)
    }

    fn all_frames(&self) -> Vec<(usize, Frame)> {
        let of_port = |(index, port): (usize, &Port)| {
            let facts = &port.attached.facts;
            let mac = facts.virtual_mac;
            let frames =
                facts.virtual_addresses.iter().flat_map(move |&address| announce::frames(mac, address));
            frames.map(move |frame| (index, frame)).collect::<Vec<_>>()
        };
        self.ports.iter().enumerate().filter(|(_, port)| port.attached.facts.up).flat_map(of_port).collect()
    }

    /// When something is due next.
    #[must_use]
    pub fn next(&self) -> Option<Nanos> {
        if !self.waiting.is_empty() {
            return Some(0);
        }
        let witnesses = self.ports.iter().filter_map(|port| port.witness.as_ref()).map(Witness::next);
        witnesses.chain(self.schedule.next()).min()
    }

    /// What this node sees of its segments.
    #[must_use]
    pub fn sight(&self, forwarding: bool) -> Sight {
        let segment = |port: &Port| Segment {
            up: port.attached.facts.up,
            has_witness: port.witness.is_some(),
            witness_seen: port.witness.as_ref().and_then(|witness| witness.seen),
        };
        Sight { forwarding, segments: self.ports.iter().map(segment).collect() }
    }

    /// To be shown.
    #[must_use]
    pub fn status(&self, now: Nanos) -> Vec<SegmentStatus> {
        let status = |port: &Port| {
            let facts = &port.attached.facts;
            let ago = port.witness.as_ref().and_then(|w| w.seen).map(|seen| now.saturating_sub(seen));
            SegmentStatus {
                interface: facts.name.clone(),
                up: facts.up,
                witness: port.witness.as_ref().map(|witness| witness.address),
                witness_ms_ago: ago.map(|ago| ago / tandem_takeover::MS),
                alive: facts.up && (port.witness.is_none() || ago.is_some_and(|ago| ago < ALIVE)),
            }
        };
        self.ports.iter().map(status).collect()
    }

    /// What becomes readable when an ARP packet comes in.
    pub fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.ports.iter().filter(|port| !port.broken).map(|port| port.attached.socket.as_fd())
    }
}

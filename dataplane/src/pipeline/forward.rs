//! Forwarding in clear: to the inside what came out of a tunnel, past the tunnels what policy lets by.

use super::Round;
use super::classify::{Addresses, packet};
use crate::fib::{PortIndex, Target};
use crate::policy::Action;
use crate::slow_path::PuntKind;
use arrayvec::ArrayVec;
use tandem_api::counters::{Counter, DropReason};
use tandem_api::types::Side;
use tandem_esp::SaOut;
use tandem_wire::{fragment, ipv4, tcp};
use tandem_xsk::Frame;

/// Most fragments of one packet.
const FRAGMENTS_MAX: usize = 16;

/// Where a packet comes from that is to be forwarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// From inside, through policy.
    Inside,
    /// Out of a tunnel.
    Tunnel,
    /// In clear, because policy says bypass.
    Bypass,
    /// Made by the gateway itself.
    Gateway,
}

/// What became of a packet that was too long.
pub(super) enum Fragments {
    /// Its fragments, in order.
    Made(ArrayVec<Frame, FRAGMENTS_MAX>),
    /// It must not be fragmented.
    TooBig(Frame),
    /// Dropped and counted.
    Dropped,
}

impl Target {
    /// Interface, if the packet can leave by one.
    pub(super) fn port(&self) -> Option<PortIndex> {
        match self {
            Target::Adjacency(adjacency) => Some(adjacency.port),
            Target::Unresolved { port, .. } => Some(*port),
            _ => None,
        }
    }

    /// MTU of the interface, or why no packet can leave by this target.
    pub(super) fn mtu(&self) -> Result<u16, DropReason> {
        match self {
            Target::Adjacency(adjacency) => Ok(adjacency.mtu),
            Target::Unresolved { mtu, .. } => Ok(*mtu),
            Target::Own => Err(DropReason::LocalUnhandled),
            Target::Blackhole => Err(DropReason::RouteBlackhole),
            Target::Foreign => Err(DropReason::NoAdjacency),
            Target::Down => Err(DropReason::PortUnknown),
        }
    }
}

impl Round<'_> {
    /// Sends an IP packet where the kernel's routes say.
    pub(super) fn forward(&mut self, mut frame: Frame, addresses: Addresses, origin: Origin) {
        let destination = addresses.destination;
        if origin == Origin::Tunnel {
            if self.tables.is_virtual(destination) {
                return self.local(frame);
            }
            if ipv4::is_multicast_or_broadcast(destination) {
                return self.io.drop(frame, DropReason::Ipv4Multicast);
            }
        }
        let target = self.fib.lookup(destination);
        // Out of one tunnel and not to the inside: policy decides anew, so that it goes into another
        // tunnel (which takes no route to what is behind that), and never out in clear by accident.
        let egress = target.and_then(Target::port).and_then(|port| self.tables.side(port));
        if origin == Origin::Tunnel && egress != Some(Side::Inside) {
            let policies = &self.tables.policies;
            match policies.lookup(addresses.source, destination) {
                // Its network has no route inside any more: a bypass for all the rest is not meant for it.
                Some(Action::Bypass) if policies.protects_network(destination, addresses.source) => {
                    return self.io.drop(frame, DropReason::NoRoute);
                }
                Some(_) => return self.outbound(frame, addresses),
                None => {}
            }
            // Where no policy speaks, the route is what is wrong, if it is.
            let reason = target.map_or(Err(DropReason::NoRoute), Target::mtu).err();
            return self.io.drop(frame, reason.unwrap_or(DropReason::PolicyNone));
        }
        let Some(target) = target else { return self.io.drop(frame, DropReason::NoRoute) };
        let mtu = match target.mtu() {
            Ok(mtu) => mtu,
            Err(reason) => return self.io.drop(frame, reason),
        };
        if let Err((reason, kind)) = self.leave_hop(&mut frame, origin) {
            return self.io.drop_with_icmp(frame, self.ingress, reason, kind);
        }
        if origin == Origin::Tunnel {
            self.clamp_from_tunnel(&mut frame, target);
        }
        if frame.len() <= usize::from(mtu) {
            return self.send(frame, target, destination);
        }
        match self.fragment(frame, usize::from(mtu)) {
            Fragments::Made(fragments) => {
                fragments.into_iter().for_each(|fragment| self.send(fragment, target, destination));
            }
            Fragments::TooBig(frame) => {
                let kind = PuntKind::FragmentationNeeded { mtu };
                self.io.drop_with_icmp(frame, self.ingress, DropReason::FragmentationNeeded, kind);
            }
            Fragments::Dropped => {}
        }
    }

    /// A packet out of a tunnel for one of our virtual addresses.
    fn local(&mut self, frame: Frame) {
        let icmp = ipv4::parse(self.io.umem.data(&frame))
            .is_ok_and(|packet| packet.header.protocol == ipv4::PROTOCOL_ICMP && !packet.is_fragment());
        if icmp {
            self.io.punt(frame, self.ingress, PuntKind::Local);
        } else {
            self.io.drop(frame, DropReason::LocalUnhandled);
        }
    }

    fn send(&mut self, frame: Frame, target: &Target, destination: u32) {
        match target {
            Target::Adjacency(adjacency) => self.io.deliver(frame, adjacency),
            _ => self.wait_for_neighbour(frame, target, destination),
        }
    }

    /// Hands a finished IP packet to the slow path until its next hop is resolved.
    pub(super) fn wait_for_neighbour(&mut self, frame: Frame, target: &Target, destination: u32) {
        match *target {
            Target::Unresolved { port, next_hop, .. } => {
                let kind = PuntKind::Unresolved { port, next_hop: next_hop.unwrap_or(destination) };
                self.io.punt(frame, self.ingress, kind);
            }
            _ => self.io.drop(frame, DropReason::NeighbourUnresolved),
        }
    }

    /// A finished IP packet that waited for its next hop on `port`. Where its route leads to another interface by
    /// now it ends here: what came out of a tunnel for the inside must not go outside.
    pub(super) fn resume_held(&mut self, frame: Frame, port: PortIndex) {
        let destination = ipv4::parse(self.io.umem.data(&frame)).map(|packet| packet.header.dst());
        match destination.ok().and_then(|destination| self.fib.lookup(destination)) {
            Some(Target::Adjacency(adjacency)) if adjacency.port == port => {
                self.io.deliver(frame, adjacency);
            }
            _ => self.io.drop(frame, DropReason::NeighbourUnresolved),
        }
    }

    /// This hop's part of the TTL (RFC 1812 section 5.3.1). What the gateway made itself has crossed none.
    pub(super) fn leave_hop(
        &mut self,
        frame: &mut Frame,
        origin: Origin,
    ) -> Result<(), (DropReason, PuntKind)> {
        if origin == Origin::Gateway {
            return Ok(());
        }
        let data = self.io.umem.data_mut(frame);
        match ipv4::parse_mut(data) {
            Ok(packet) if packet.header.ttl > 1 => {
                ipv4::decrement_ttl(packet.header);
                Ok(())
            }
            _ => Err((DropReason::TtlExpired, PuntKind::TimeExceeded)),
        }
    }

    /// The SYN of the far side: what it announces limits the segments that our side sends into the tunnel.
    fn clamp_from_tunnel(&mut self, frame: &mut Frame, target: &Target) {
        let port = |port| self.tables.port(port);
        let (Some(ingress), Some(egress)) = (port(self.ingress), target.port().and_then(port)) else {
            return;
        };
        if ingress.mss_clamp || egress.mss_clamp {
            let mss = SaOut::max_inner(usize::from(ingress.mtu)).saturating_sub(40) as u16;
            if tcp::clamp_mss(self.io.umem.data_mut(frame), mss) {
                self.io.counts.add(Counter::MssClamped, 1);
            }
        }
    }

    /// Cuts an IP packet into fragments of at most `mtu` octets. The first stays in its frame.
    pub(super) fn fragment(&mut self, mut frame: Frame, mtu: usize) -> Fragments {
        let umem = self.io.umem;
        let mut made: ArrayVec<Frame, FRAGMENTS_MAX> = ArrayVec::new();
        let plan = match ipv4::parse(umem.data(&frame)).map(|packet| fragment::plan(&packet, mtu)) {
            Ok(Ok(plan)) => plan,
            Ok(Err(fragment::PlanError::DontFragment | fragment::PlanError::Mtu)) => {
                return Fragments::TooBig(frame);
            }
            _ => {
                self.io.drop(frame, DropReason::Ipv4HeaderInvalid);
                return Fragments::Dropped;
            }
        };
        let mut pieces = plan.clone();
        let first = pieces.next();
        for piece in pieces {
            let written = (!made.is_full()).then(|| self.io.free.pop()).flatten().map(|mut copy| {
                let room = copy.push_back(piece.total_len()).is_ok();
                let written = room
                    && ipv4::parse(umem.data(&frame)).is_ok_and(|packet| {
                        fragment::write(&packet, &piece, umem.data_mut(&mut copy)).is_some()
                    });
                made.push(copy);
                written
            });
            if written != Some(true) {
                return self.fragment_failed(frame, made);
            }
        }
        let Some(len) = first.and_then(|first| fragment::keep_first(umem.data_mut(&mut frame), &first))
        else {
            return self.fragment_failed(frame, made);
        };
        if made.is_full() {
            return self.fragment_failed(frame, made);
        }
        self.io.counts.add(Counter::Fragmented, 1);
        self.io.counts.add(Counter::Created, made.len() as u64);
        made.insert(0, packet(frame, 0..len));
        Fragments::Made(made)
    }

    fn fragment_failed(&mut self, frame: Frame, made: ArrayVec<Frame, FRAGMENTS_MAX>) -> Fragments {
        made.into_iter().for_each(|copy| self.io.free.push(copy));
        self.io.drop(frame, DropReason::NoFreeFrame);
        Fragments::Dropped
    }
}

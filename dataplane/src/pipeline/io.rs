//! Frames in and out: the only ways by which a frame leaves a worker's hands.

use crate::any_port::AnyPort;
use crate::counters::Counts;
use crate::fib::{Adjacency, PortIndex};
use crate::slow_path::{Punt, PuntKind};
use crossbeam::queue::ArrayQueue;
use tandem_api::counters::{Counter, DropReason};
use tandem_wire::ethernet::{self, ETHERTYPE_IPV4};
use tandem_xsk::{Batch, Frame, FreeList, Port, Umem};

/// Octets of an Ethernet header.
pub const ETHERNET: usize = ethernet::HEADER_LEN;

/// An interface of a worker, with the frames that wait to be handed to it.
pub struct PortSlot {
    /// The interface.
    pub port: AnyPort,
    /// Frames with their Ethernet header, in order.
    pub queue: Batch,
}

impl PortSlot {
    /// Nothing waits yet.
    #[must_use]
    pub fn new(port: AnyPort) -> Self {
        Self { port, queue: Batch::new() }
    }

    /// Hands the queued frames to the interface, as many as it takes, and counts them.
    pub fn flush(&mut self, port: PortIndex, counts: &mut Counts) {
        let octets = |queue: &Batch| queue.iter().map(|frame| frame.len() as u64).sum::<u64>();
        let before = octets(&self.queue);
        let taken = self.port.transmit(&mut self.queue);
        if taken > 0 {
            counts.forwarded(port, taken as u64, before - octets(&self.queue));
        }
    }
}

/// What a worker moves frames with.
pub struct Io<'r> {
    /// Memory of the frames.
    pub umem: &'r Umem,
    /// Frames without a packet.
    pub free: &'r mut FreeList,
    /// Interfaces; `None` where this worker has no queue.
    pub ports: &'r mut [Option<PortSlot>],
    /// What is counted.
    pub counts: &'r mut Counts,
    /// To the slow path.
    pub punts: &'r ArrayQueue<Punt>,
}

impl Io<'_> {
    /// Ends a frame, by name.
    pub fn drop(&mut self, frame: Frame, reason: DropReason) {
        self.counts.drop(reason, 1);
        self.free.push(frame);
    }

    /// Hands a frame to the slow path.
    pub fn punt(&mut self, frame: Frame, ingress: PortIndex, kind: PuntKind) {
        match self.punts.push(Punt { frame, ingress, kind }) {
            Ok(()) => self.counts.add(Counter::Punted, 1),
            Err(Punt { frame, .. }) => self.drop(frame, DropReason::SlowPathFull),
        }
    }

    /// Ends a packet for a reason that its sender is told of by an ICMP error, which the slow path makes.
    pub fn drop_with_icmp(&mut self, frame: Frame, ingress: PortIndex, reason: DropReason, kind: PuntKind) {
        self.counts.drop(reason, 1);
        if let Err(Punt { frame, .. }) = self.punts.push(Punt { frame, ingress, kind }) {
            self.counts.add(Counter::IcmpNotAsked, 1);
            self.free.push(frame);
        }
    }

    /// Sends an IP packet to a resolved next hop.
    pub fn deliver(&mut self, mut frame: Frame, adjacency: &Adjacency) {
        let header = ethernet::Header::new(adjacency.destination, adjacency.source, ETHERTYPE_IPV4);
        let room = frame.push_front(ETHERNET).is_ok();
        if room && ethernet::write_header(self.umem.data_mut(&mut frame), &header).is_some() {
            self.transmit(frame, adjacency.port);
        } else {
            self.drop(frame, DropReason::NoHeadroom);
        }
    }

    /// Queues a frame, Ethernet header and all, for an interface.
    pub fn transmit(&mut self, frame: Frame, port: PortIndex) {
        let Some(Some(slot)) = self.ports.get_mut(usize::from(port)) else {
            return self.drop(frame, DropReason::PortUnknown);
        };
        if slot.queue.is_full() {
            slot.flush(port, self.counts);
            if slot.queue.is_full() {
                // Completions make room.
                slot.port.wake_transmit();
                slot.port.reclaim(self.free);
                slot.flush(port, self.counts);
            }
        }
        if let Err(full) = slot.queue.try_push(frame) {
            self.drop(full.element(), DropReason::TxRingFull);
        }
    }
}

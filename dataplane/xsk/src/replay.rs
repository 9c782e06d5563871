//! A port in memory for measuring: an endless source of prepared packets, and a sink that counts.
//!
//! It costs what a network card cannot avoid, one copy of the packet into the frame, and nothing else: no
//! lock, no allocation, no system call.

use crate::port::{Batch, Port, PortStatistics};
use crate::{Frame, FreeList, HEADROOM, Umem};
use std::os::fd::BorrowedFd;
use std::sync::Arc;

/// How often the packets of a [`ReplayPort`] are received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Repeat {
    /// From the first one again after the last one, without end.
    Endless,
    /// Each of them this many times, in order; then nothing is received any more.
    Times(u64),
}

/// What a [`ReplayPort`] receives and keeps.
#[derive(Debug)]
pub struct ReplayConfig {
    /// Ethernet frames, in order. None of them: a port that only sends.
    pub packets: Vec<Vec<u8>>,
    /// How often they are received.
    pub repeat: Repeat,
    /// Frames in the fill ring and in the completion list.
    pub ring_size: u32,
    /// Where the octets that are sent are kept; `None` to count only.
    pub capture: Option<Capture>,
}

/// Storage for transmitted packets, made before the measurement. What finds no room is counted, not kept.
#[derive(Debug, Default)]
pub struct Capture {
    octets: Vec<u8>,
    /// End of each packet in `octets`.
    ends: Vec<usize>,
    missed: u64,
}

impl Capture {
    /// Room for `packets` packets of together `octets` octets.
    pub fn with_capacity(packets: usize, octets: usize) -> Capture {
        Capture { octets: Vec::with_capacity(octets), ends: Vec::with_capacity(packets), missed: 0 }
    }

    /// The kept packets, in order of transmission.
    pub fn packets(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        (0..self.ends.len()).map(|i| {
            let start = if i == 0 { 0 } else { self.ends[i - 1] };
            &self.octets[start..self.ends[i]]
        })
    }

    /// Packets that found no room.
    pub fn missed(&self) -> u64 {
        self.missed
    }

    /// Forgets the kept packets and keeps the room.
    pub fn clear(&mut self) {
        self.octets.clear();
        self.ends.clear();
        self.missed = 0;
    }

    #[inline]
    fn keep(&mut self, packet: &[u8]) {
        let room = self.octets.capacity() - self.octets.len();
        if packet.len() <= room && self.ends.len() < self.ends.capacity() {
            self.octets.extend_from_slice(packet);
            self.ends.push(self.octets.len());
        } else {
            self.missed += 1;
        }
    }
}

/// What a [`ReplayPort`] has sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Transmitted {
    /// Frames.
    pub packets: u64,
    /// Octets of these, Ethernet headers included.
    pub octets: u64,
}

/// A port that receives prepared packets and counts what it sends.
///
/// As every port it receives only into frames from `refill`; transmission completes at once, and the
/// frames come back by `reclaim`.
#[derive(Debug)]
pub struct ReplayPort {
    umem: Arc<Umem>,
    /// All packets, one after the other, and their ranges.
    octets: Vec<u8>,
    ranges: Vec<(usize, usize)>,
    next: usize,
    /// Packets left to be received.
    left: u64,
    ring_size: usize,
    fill: Vec<Frame>,
    done: Vec<Frame>,
    transmitted: Transmitted,
    capture: Option<Capture>,
    statistics: PortStatistics,
}

impl ReplayPort {
    /// Makes a port over the frames of `umem`. Packets longer than a frame has room for after its headroom are left
    /// out and counted in [`PortStatistics::rx_dropped`].
    pub fn new(umem: &Arc<Umem>, config: ReplayConfig) -> ReplayPort {
        let ring_size = config.ring_size as usize;
        let mut port = ReplayPort {
            umem: umem.clone(),
            octets: Vec::new(),
            ranges: Vec::new(),
            next: 0,
            left: 0,
            ring_size,
            fill: Vec::with_capacity(ring_size),
            done: Vec::with_capacity(ring_size),
            transmitted: Transmitted::default(),
            capture: config.capture,
            statistics: PortStatistics::default(),
        };
        port.replace(&config.packets, config.repeat);
        port
    }

    /// Receives other packets from now on.
    pub fn replace(&mut self, packets: &[Vec<u8>], repeat: Repeat) {
        self.octets.clear();
        self.ranges.clear();
        self.next = 0;
        for packet in packets {
            if packet.len() > crate::FRAME_SIZE - HEADROOM {
                self.statistics.rx_dropped += 1;
                continue;
            }
            let start = self.octets.len();
            self.octets.extend_from_slice(packet);
            self.ranges.push((start, self.octets.len()));
        }
        self.left = match repeat {
            _ if self.ranges.is_empty() => 0,
            Repeat::Endless => u64::MAX,
            Repeat::Times(times) => times.saturating_mul(self.ranges.len() as u64),
        };
    }

    /// Frames and octets sent so far.
    pub fn transmitted(&self) -> Transmitted {
        self.transmitted
    }

    /// What was kept of the transmitted packets.
    pub fn capture(&self) -> Option<&Capture> {
        self.capture.as_ref()
    }

    /// Replaces the storage for transmitted packets; returns the one in use until now.
    pub fn set_capture(&mut self, capture: Option<Capture>) -> Option<Capture> {
        std::mem::replace(&mut self.capture, capture)
    }

    /// Ends the port; the frames that it holds go to `free`.
    pub fn drain(self, free: &mut FreeList) {
        for frame in self.fill.into_iter().chain(self.done) {
            free.push(frame);
        }
    }
}

impl Port for ReplayPort {
    #[inline]
    fn receive(&mut self, batch: &mut Batch) -> usize {
        let before = batch.len();
        while !batch.is_full() && self.left > 0 {
            let Some(mut frame) = self.fill.pop() else {
                self.statistics.rx_fill_ring_empty += 1;
                break;
            };
            let (start, end) = self.ranges[self.next];
            frame.reset(HEADROOM);
            // All packets fit: `replace` has seen to it.
            let _fits = frame.push_back(end - start);
            self.umem.data_mut(&mut frame).copy_from_slice(&self.octets[start..end]);
            batch.push(frame);
            self.next += 1;
            if self.next == self.ranges.len() {
                self.next = 0;
            }
            if self.left != u64::MAX {
                self.left -= 1;
            }
        }
        batch.len() - before
    }

    #[inline]
    fn transmit(&mut self, batch: &mut Batch) -> usize {
        let count = batch.len().min(self.ring_size - self.done.len());
        for frame in batch.drain(..count) {
            if frame.umem() != self.umem.id() {
                self.statistics.refused += 1;
                continue;
            }
            self.transmitted.packets += 1;
            self.transmitted.octets += frame.len() as u64;
            if let Some(capture) = &mut self.capture {
                capture.keep(self.umem.data(&frame));
            }
            self.done.push(frame);
        }
        count
    }

    #[inline]
    fn reclaim(&mut self, free: &mut FreeList) -> usize {
        if free.umem() != self.umem.id() {
            debug_assert!(false, "the free list belongs to another UMEM");
            return 0;
        }
        let count = self.done.len();
        for frame in self.done.drain(..) {
            free.push(frame);
        }
        count
    }

    #[inline]
    fn refill(&mut self, free: &mut FreeList) -> usize {
        if free.umem() != self.umem.id() {
            debug_assert!(false, "the free list belongs to another UMEM");
            return 0;
        }
        let before = self.fill.len();
        while self.fill.len() < self.ring_size {
            let Some(frame) = free.pop() else { break };
            self.fill.push(frame);
        }
        self.fill.len() - before
    }

    #[inline]
    fn wake_transmit(&mut self) -> bool {
        false
    }

    #[inline]
    fn wake_receive(&mut self) -> bool {
        false
    }

    #[inline]
    fn transmit_pending(&self) -> usize {
        0
    }

    fn pollable(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    fn statistics(&self) -> PortStatistics {
        self.statistics
    }
}

//! A port in memory under the rules of AF_XDP: for tests of the data path without privileges.
//!
//! Packets are received only into frames that were offered by `refill`. Frames that are transmitted sit in a ring of a
//! fixed size until `wake_transmit` is called, and come back by `reclaim` only. So whoever forgets a step, or loses a frame,
//! sees here what he would see on a network card: nothing is received or sent any more.

use crate::port::{Batch, Port, PortStatistics};
use crate::{Frame, FreeList, HEADROOM, Umem};
use std::collections::VecDeque;
use std::os::fd::BorrowedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Shortest frame that can be sent: an Ethernet header.
const SHORTEST: usize = 14;

/// Size of a [`MemPort`].
#[derive(Clone, Debug)]
pub struct MemConfig {
    /// Frames in each of its rings (fill, transmit, completion).
    pub ring_size: u32,
}

impl Default for MemConfig {
    fn default() -> MemConfig {
        MemConfig { ring_size: 512 }
    }
}

/// Makes a port over the frames of `umem`, and the handle to the far end of its wire.
pub fn port(umem: &Arc<Umem>, config: &MemConfig) -> (MemPort, MemHandle) {
    let wire = Arc::new(Mutex::new(Wire::default()));
    let ring_size = config.ring_size as usize;
    let ring = || VecDeque::with_capacity(ring_size);
    let port = MemPort {
        umem: umem.clone(),
        wire: wire.clone(),
        ring_size,
        fill: ring(),
        tx: ring(),
        completion: ring(),
        statistics: PortStatistics::default(),
    };
    (port, MemHandle { wire })
}

/// The far end of the wire of a [`MemPort`].
#[derive(Clone, Debug)]
pub struct MemHandle {
    wire: Arc<Mutex<Wire>>,
}

/// Packets on the way, in octets.
#[derive(Debug, Default)]
struct Wire {
    to_port: VecDeque<Vec<u8>>,
    from_port: Vec<Vec<u8>>,
}

impl MemHandle {
    /// Queues an Ethernet frame to be received. It waits on the wire until the port has a frame for it.
    pub fn inject(&self, octets: &[u8]) {
        lock(&self.wire).to_port.push_back(octets.to_vec());
    }

    /// Takes what the port has sent since the last call, in order.
    pub fn take(&self) -> Vec<Vec<u8>> {
        std::mem::take(&mut lock(&self.wire).from_port)
    }

    /// Packets that were injected and not received yet.
    pub fn waiting(&self) -> usize {
        lock(&self.wire).to_port.len()
    }
}

/// A port in memory. Made by [`port`].
#[derive(Debug)]
pub struct MemPort {
    umem: Arc<Umem>,
    wire: Arc<Mutex<Wire>>,
    ring_size: usize,
    fill: VecDeque<Frame>,
    tx: VecDeque<Frame>,
    completion: VecDeque<Frame>,
    statistics: PortStatistics,
}

impl MemPort {
    /// Ends the port; the frames in its rings go to `free`. What was not sent is not sent.
    pub fn drain(self, free: &mut FreeList) {
        for frame in self.fill.into_iter().chain(self.tx).chain(self.completion) {
            free.push(frame);
        }
    }
}

impl Port for MemPort {
    fn receive(&mut self, batch: &mut Batch) -> usize {
        let before = batch.len();
        let mut wire = lock(&self.wire);
        while !batch.is_full() {
            let Some(packet) = wire.to_port.front() else { break };
            let Some(mut frame) = self.fill.pop_front() else {
                self.statistics.rx_fill_ring_empty += 1;
                break;
            };
            frame.reset(HEADROOM);
            if frame.push_back(packet.len()).is_ok() {
                self.umem.data_mut(&mut frame).copy_from_slice(packet);
                batch.push(frame);
            } else {
                self.statistics.rx_dropped += 1;
                self.fill.push_front(frame);
            }
            wire.to_port.pop_front();
        }
        batch.len() - before
    }

    fn transmit(&mut self, batch: &mut Batch) -> usize {
        let count = batch.len().min(self.ring_size - self.tx.len());
        for frame in batch.drain(..count) {
            if frame.umem() == self.umem.id() {
                self.tx.push_back(frame);
            } else {
                self.statistics.refused += 1;
            }
        }
        count
    }

    fn reclaim(&mut self, free: &mut FreeList) -> usize {
        if free.umem() != self.umem.id() {
            debug_assert!(false, "the free list belongs to another UMEM");
            return 0;
        }
        let count = self.completion.len();
        for frame in self.completion.drain(..) {
            free.push(frame);
        }
        count
    }

    fn refill(&mut self, free: &mut FreeList) -> usize {
        if free.umem() != self.umem.id() {
            debug_assert!(false, "the free list belongs to another UMEM");
            return 0;
        }
        let before = self.fill.len();
        while self.fill.len() < self.ring_size {
            let Some(frame) = free.pop() else { break };
            self.fill.push_back(frame);
        }
        self.fill.len() - before
    }

    fn wake_transmit(&mut self) -> bool {
        if self.tx.is_empty() {
            return false;
        }
        let mut wire = lock(&self.wire);
        while self.completion.len() < self.ring_size {
            let Some(frame) = self.tx.pop_front() else { break };
            if frame.len() < SHORTEST {
                self.statistics.refused += 1;
            } else {
                wire.from_port.push(self.umem.data(&frame).to_vec());
            }
            self.completion.push_back(frame);
        }
        true
    }

    fn wake_receive(&mut self) -> bool {
        false
    }

    fn transmit_pending(&self) -> usize {
        self.tx.len()
    }

    fn pollable(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    fn statistics(&self) -> PortStatistics {
        self.statistics
    }
}

fn lock(wire: &Mutex<Wire>) -> MutexGuard<'_, Wire> {
    // A panic elsewhere while the lock was held leaves the queues whole: each change is one call.
    wire.lock().unwrap_or_else(PoisonError::into_inner)
}

//! An interface as a worker sees it.

use crate::{Frame, FreeList};
use std::os::fd::BorrowedFd;

/// Packets that a stage of the data path takes at once.
pub const BURST: usize = 64;

/// A burst of frames in order of arrival.
pub type Batch = arrayvec::ArrayVec<Frame, BURST>;

/// One queue of one interface.
///
/// A round of a worker is: [`reclaim`](Port::reclaim), [`receive`](Port::receive), work,
/// [`transmit`](Port::transmit), [`refill`](Port::refill), then
/// [`wake_transmit`](Port::wake_transmit) and [`wake_receive`](Port::wake_receive). A port receives only into
/// frames that were offered by `refill`, and frames that were transmitted come back by `reclaim` only.
pub trait Port: Send {
    /// Appends received packets to `batch` up to its capacity; returns how many.
    fn receive(&mut self, batch: &mut Batch) -> usize;

    /// Takes frames from the front of `batch` for transmission; those that found no room in the ring
    /// stay in it, in order. Returns how many were taken. Frames that can never be sent (shorter than an Ethernet
    /// header, or of another UMEM) are taken too and counted in [`PortStatistics::refused`].
    fn transmit(&mut self, batch: &mut Batch) -> usize;

    /// Returns frames whose transmission is complete to `free`; returns how many.
    fn reclaim(&mut self, free: &mut FreeList) -> usize;

    /// Offers free frames to the receive side until it has no room or `free` is empty; returns how many.
    fn refill(&mut self, free: &mut FreeList) -> usize;

    /// Makes the other side look at the transmit ring if it asks for that and descriptors are
    /// pending. True if a system call was made.
    fn wake_transmit(&mut self) -> bool;

    /// Makes the other side look at the fill ring if it asks for that. True if a system call was made.
    fn wake_receive(&mut self) -> bool;

    /// Packets handed over by [`transmit`](Port::transmit) that the other side has not taken yet: a worker
    /// does not sleep while this is not zero.
    fn transmit_pending(&self) -> usize;

    /// What to sleep on until packets arrive; `None` for memory.
    fn pollable(&self) -> Option<BorrowedFd<'_>>;

    /// Counters since the port was opened.
    fn statistics(&self) -> PortStatistics;
}

/// Counters of a port. The first six are those of `XDP_STATISTICS`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PortStatistics {
    /// Packets dropped before the receive ring for another reason than a full ring (too long, for one).
    pub rx_dropped: u64,
    /// Fill descriptors that the kernel found invalid.
    pub rx_invalid_descriptors: u64,
    /// Transmit descriptors that the kernel found invalid.
    pub tx_invalid_descriptors: u64,
    /// Packets dropped because the receive ring was full.
    pub rx_ring_full: u64,
    /// Times the kernel found no frame in the fill ring.
    pub rx_fill_ring_empty: u64,
    /// Times the kernel found no descriptor in the transmit ring.
    pub tx_ring_empty: u64,
    /// Frames that this port refused: to be sent but of another UMEM or shorter than an Ethernet
    /// header, or a descriptor from the kernel that names no frame lent to this port.
    pub refused: u64,
    /// Wake-ups that failed with something else than "try again" (the interface is down, for one).
    pub wake_errors: u64,
}

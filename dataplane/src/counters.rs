//! The counters of one worker, by name, over its part of the statistics segment.
//!
//! One writer, no lock prefix: an increment is a load, an add and a store. Readers add up the workers.

use crate::fib::PortIndex;
use crate::tables::PORTS_MAX;
use tandem_api::counters::{Counter, DropReason};
use tandem_shm::{StatsRegion, WorkerCounters};

/// Of one interface, in order of their place.
const PORT_FIELDS: u32 = 4;
const DROPS: u32 = Counter::COUNT as u32;
const PORTS: u32 = DROPS + DropReason::COUNT as u32;
/// Counters of one worker.
pub const COUNTERS: u32 = PORTS + PORTS_MAX as u32 * PORT_FIELDS;

/// Frames and octets of one interface.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PortCounts {
    /// Frames received.
    pub rx_frames: u64,
    /// Octets received.
    pub rx_bytes: u64,
    /// Frames handed to the interface.
    pub tx_frames: u64,
    /// Octets handed to the interface.
    pub tx_bytes: u64,
}

/// What one worker counts.
#[derive(Debug)]
pub struct Counts(WorkerCounters);

impl Counts {
    /// Over `counters`, which must be [`COUNTERS`] long.
    #[must_use]
    pub fn new(counters: WorkerCounters) -> Self {
        Self(counters)
    }

    /// Adds to a counter.
    #[inline]
    pub fn add(&mut self, counter: Counter, n: u64) {
        self.0.add(counter as u32, n);
    }

    /// Sets a counter that is a level.
    #[inline]
    pub fn level(&mut self, counter: Counter, value: u64) {
        self.0.set(counter as u32, value);
    }

    /// Counts dropped frames.
    #[inline]
    pub fn drop(&mut self, reason: DropReason, n: u64) {
        self.0.add(DROPS + reason as u32, n);
    }

    /// Counts frames received from an interface.
    #[inline]
    pub fn received(&mut self, port: PortIndex, frames: u64, bytes: u64) {
        self.add(Counter::Received, frames);
        self.0.add(PORTS + u32::from(port) * PORT_FIELDS, frames);
        self.0.add(PORTS + u32::from(port) * PORT_FIELDS + 1, bytes);
    }

    /// Counts frames handed to an interface.
    #[inline]
    pub fn forwarded(&mut self, port: PortIndex, frames: u64, bytes: u64) {
        self.add(Counter::Forwarded, frames);
        self.0.add(PORTS + u32::from(port) * PORT_FIELDS + 2, frames);
        self.0.add(PORTS + u32::from(port) * PORT_FIELDS + 3, bytes);
    }
}

/// Sums over the workers.
#[derive(Debug)]
pub struct Sums<'a>(pub &'a StatsRegion);

impl Sums<'_> {
    /// One counter.
    #[must_use]
    pub fn counter(&self, counter: Counter) -> u64 {
        self.0.sum(counter as u32)
    }

    /// One drop reason.
    #[must_use]
    pub fn dropped(&self, reason: DropReason) -> u64 {
        self.0.sum(DROPS + reason as u32)
    }

    /// One interface.
    #[must_use]
    pub fn port(&self, port: PortIndex) -> PortCounts {
        let field = |field| self.0.sum(PORTS + u32::from(port) * PORT_FIELDS + field);
        PortCounts { rx_frames: field(0), rx_bytes: field(1), tx_frames: field(2), tx_bytes: field(3) }
    }
}

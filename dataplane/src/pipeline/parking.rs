//! Inbound packets that wait (F9): opened and checked, their numbers set in the window, and not delivered before the
//! partner has acknowledged a record that holds the number, and before the number lies within what is reserved on
//! disk (F40).
//!
//! They wait in the order in which they came, and leave so; the first holds up the others of its worker.

use super::classify::Addresses;
use super::duty::Duty;
use super::forward::Origin;
use super::{Io, Pipeline, Round, Shared, ready};
use crate::fib::PortIndex;
use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use tandem_api::counters::{Counter, DropReason};
use tandem_shm::{HotState, Reader};
use tandem_xsk::{BURST, Frame, FreeList};

/// The part of a worker's frames that may wait: one of so many. The others keep receiving.
const SHARE: u32 = 4;

/// A packet that waits: the frame holds the inner one.
#[derive(Debug)]
pub(super) struct Parked {
    pub frame: Frame,
    pub addresses: Addresses,
    /// Interface that it came in by.
    pub ingress: PortIndex,
    pub spi: u32,
    pub slot: u32,
    pub sequence: u64,
    /// Every record of a version above this holds the number.
    pub stamp: u64,
}

/// What becomes of the first that waits.
enum Verdict {
    Leaves,
    Waits,
    Ends(DropReason),
}

/// The packets of one worker that wait.
#[derive(Debug)]
pub struct Parking {
    queue: VecDeque<Parked>,
    bound: usize,
}

impl Parking {
    /// For a worker with so many frames. Takes all memory that it will ever need.
    #[must_use]
    pub fn new(frames: u32) -> Self {
        let bound = (frames / SHARE) as usize;
        Self { queue: VecDeque::with_capacity(bound), bound }
    }

    /// How many wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.queue.len()
    }

    /// Does none wait?
    #[inline]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Is there one that could leave, or end, now? A worker without other work sleeps only where there is none.
    #[must_use]
    pub fn has_work(&self, hot: &HotState) -> bool {
        let duty = Duty::read(hot.header());
        let moves = |head| !duty.carries() || !matches!(verdict(head, duty, hot), Verdict::Waits);
        self.queue.front().is_some_and(moves)
    }

    /// Gives all frames back and says how many they were.
    pub fn clear(&mut self, free: &mut FreeList) -> u64 {
        let count = self.queue.len() as u64;
        self.queue.drain(..).for_each(|parked| free.push(parked.frame));
        count
    }

    /// Lets one wait, or hands its frame back where too many do.
    pub(super) fn park(&mut self, parked: Parked) -> Result<(), Frame> {
        if self.queue.len() >= self.bound {
            return Err(parked.frame);
        }
        self.queue.push_back(parked);
        Ok(())
    }
}

fn verdict(head: &Parked, duty: Duty, hot: &HotState) -> Verdict {
    let Some(hot) = hot.inbound(head.slot) else { return Verdict::Ends(DropReason::EspNoSa) };
    let limit = hot.limit.load(Ordering::Acquire);
    if limit == 0 {
        Verdict::Ends(DropReason::SaHeld)
    } else if head.sequence <= limit
        && (!duty.is_strict() || hot.acknowledged.load(Ordering::Acquire) > head.stamp)
    {
        Verdict::Leaves
    } else {
        Verdict::Waits
    }
}

/// Sends those on that need not wait any more, a burst at most; where no traffic is carried they all end here (F27).
/// Answers how many left or ended.
pub fn release(shared: &Shared, reader: &Reader, pipeline: &mut Pipeline, io: Io<'_>, duty: Duty) -> usize {
    if pipeline.parking.is_empty() {
        return 0;
    }
    if !duty.carries() {
        let count = pipeline.parking.clear(io.free);
        io.counts.drop(DropReason::ParkedDemoted, count);
        return count as usize;
    }
    let Some(snapshots) = ready(shared, reader, duty) else { return 0 };
    let mut round = Round::new(shared, reader, pipeline, io, snapshots, PortIndex::MAX, duty);
    let moved = round.release();
    round.finish();
    moved
}

impl Round<'_> {
    fn release(&mut self) -> usize {
        let (mut moved, mut released) = (0, 0);
        while moved < BURST {
            let Some(head) = self.parking.queue.front() else { break };
            let verdict = match verdict(head, self.duty, &self.shared.hot) {
                // Nobody acknowledges an SA that is gone: it must not hold up the others for ever.
                Verdict::Waits if !self.is_installed(head) => Verdict::Ends(DropReason::EspNoSa),
                verdict => verdict,
            };
            if matches!(verdict, Verdict::Waits) {
                break;
            }
            let Some(Parked { frame, addresses, ingress, .. }) = self.parking.queue.pop_front() else {
                break;
            };
            moved += 1;
            if let Verdict::Ends(reason) = verdict {
                self.io.drop(frame, reason);
                continue;
            }
            released += 1;
            self.ingress = ingress;
            self.forward(frame, addresses, Origin::Tunnel);
        }
        if released > 0 {
            self.io.counts.add(Counter::ParkedReleased, released);
        }
        moved
    }

    fn is_installed(&self, parked: &Parked) -> bool {
        let sa = self.shared.sas.inbound(parked.spi, self.reader);
        sa.is_some_and(|sa| sa.slot() == parked.slot)
    }
}

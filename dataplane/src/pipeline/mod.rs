//! The way of a packet through a worker, in batches.
//!
//! ```text
//!            +-- ESP for a virtual address --> inbound: look up, window, open, selectors --+
//!            |                                 (waits for the partner: parking)            |
//!  receive --+-- inside, protected ----------> outbound: policy, fragment, seal -----+     |
//!            +-- for a virtual address ------> slow path                             |     |
//!            +-- clear from outside ---------> policy in reverse                     v     v
//!                                                              transmit <-- forward: route, TTL, MTU
//! ```
//!
//! [`Round`] is what a batch needs on its way: snapshots that stay the same for all of it, the frames of
//! the worker, and two queues of packets that wait for the AEAD. Every frame that comes in leaves by
//! [`Io::transmit`], [`Io::punt`] or [`Io::drop`]; there is no other way out. In between it may wait in [`Parking`].
//!
//! What a batch has changed in hot state is marked for the thread that replicates it, after one fence for the batch.

mod classify;
mod duty;
mod forward;
mod inbound;
mod io;
mod outbound;
mod parking;

pub use duty::Duty;
pub use io::{Io, PortSlot};
pub use parking::{Parking, release};

use crate::fib::{Fib, PortIndex, Target};
use crate::pair::Bell;
use crate::sa_table::SaTable;
use crate::slow_path::{Return, ReturnKind};
use crate::tables::Tables;
use arrayvec::ArrayVec;
use crossbeam::queue::ArrayQueue;
use std::sync::Arc;
use tandem_aead::Provider;
use tandem_api::counters::{Counter, DropReason};
use tandem_esp::IvSource;
use tandem_esp::{SaIn, SaOut};
use tandem_shm::{Domain, HotIn, HotOut, HotState, Marks, Published, Reader, Settled};
use tandem_xsk::{BURST, Batch, Frame};

/// What all workers read.
#[derive(Debug)]
pub struct Shared {
    /// Hot SA state.
    pub hot: HotState,
    /// SAs.
    pub sas: SaTable,
    /// Interfaces and policies.
    pub tables: Published<Tables>,
    /// Routes and neighbours.
    pub fib: Published<Fib>,
    /// Slots whose inbound hot state has changed and is to be replicated; with a partner or without (F40).
    pub inbound_marks: Marks,
    /// Slots whose outbound hot state has changed.
    pub outbound_marks: Marks,
    /// Wakes the pair thread, where a slot was marked.
    pub bell: Arc<Bell>,
}

impl Shared {
    /// Nothing configured yet, over `hot`. Workers ring `bell` where they have marked an SA.
    #[must_use]
    pub fn new(hot: HotState, domain: &Domain, bell: Arc<Bell>) -> Self {
        let slots = hot.slots();
        Self {
            hot,
            sas: SaTable::new(slots, domain),
            tables: Published::empty(domain),
            fib: Published::empty(domain),
            inbound_marks: Marks::new(slots),
            outbound_marks: Marks::new(slots),
            bell,
        }
    }

    /// Marks the SAs of these slots, whose changes are settled, and wakes the pair thread where that is news.
    fn mark(&self, marks: &Marks, slots: &[u32], settled: &Settled) {
        let mut news = false;
        for slot in slots {
            news |= marks.set(*slot, settled);
        }
        if news {
            self.bell.ring_if_asleep();
        }
    }
}

/// What one worker seals and opens with, and what waits at it.
pub struct Pipeline {
    /// AEAD provider.
    pub provider: Box<dyn Provider>,
    /// Blocks of the node's nonce counter.
    pub ivs: IvSource,
    /// Packets that wait for the partner.
    pub parking: Parking,
}

impl Pipeline {
    /// Of a worker with so many frames.
    #[must_use]
    pub fn new(provider: Box<dyn Provider>, frames: u32) -> Self {
        Self { provider, ivs: IvSource::new(), parking: Parking::new(frames) }
    }
}

/// The snapshots of one batch.
#[derive(Clone, Copy)]
struct Snapshots<'r> {
    tables: &'r Tables,
    fib: &'r Fib,
}

/// A packet that waits to be sealed: room for the outer packet is made, the inner one lies at
/// [`SaOut::FRONT`].
struct Sealing<'r> {
    frame: Frame,
    inner_len: usize,
    sa: &'r SaOut,
    hot: &'r HotOut,
    target: &'r Target,
}

/// A packet that waits to be opened: the frame holds ESP header to ICV.
struct Opening<'r> {
    frame: Frame,
    sequence: u32,
    outer_tos: u8,
    sa: &'r SaIn,
    hot: &'r HotIn,
}

/// One batch on its way.
pub struct Round<'r> {
    io: Io<'r>,
    provider: &'r mut dyn Provider,
    ivs: &'r mut IvSource,
    parking: &'r mut Parking,
    duty: Duty,
    shared: &'r Shared,
    reader: &'r Reader,
    tables: &'r Tables,
    fib: &'r Fib,
    ingress: PortIndex,
    sealing: ArrayVec<Sealing<'r>, BURST>,
    opening: ArrayVec<Opening<'r>, BURST>,
}

/// Sends a batch that came in on `ingress` on its way. `batch` is empty afterwards.
pub fn process(
    shared: &Shared,
    reader: &Reader,
    pipeline: &mut Pipeline,
    mut io: Io<'_>,
    batch: &mut Batch,
    ingress: PortIndex,
    duty: Duty,
) {
    let bytes: usize = batch.iter().map(Frame::len).sum();
    io.counts.received(ingress, batch.len() as u64, bytes as u64);
    io.counts.add(Counter::Batches, 1);
    let Some(snapshots) = ready(shared, reader, duty) else {
        batch.drain(..).for_each(|frame| io.drop(frame, DropReason::NotActive));
        return;
    };
    let mut round = Round::new(shared, reader, pipeline, io, snapshots, ingress, duty);
    round.classify(batch);
    round.finish();
}

/// Sends what the slow path handed back on its way; at most a burst, so that the slow path cannot hold
/// up a worker.
pub fn resume(
    shared: &Shared,
    reader: &Reader,
    pipeline: &mut Pipeline,
    mut io: Io<'_>,
    returns: &ArrayQueue<Return>,
    duty: Duty,
) {
    let returns = (0..BURST).map_while(|_| returns.pop());
    let Some(snapshots) = ready(shared, reader, duty) else {
        for Return { frame, kind } in returns {
            if kind == ReturnKind::Free {
                io.free.push(frame);
            } else {
                io.counts.add(Counter::Returned, 1);
                io.drop(frame, DropReason::NotActive);
            }
        }
        return;
    };
    let mut round = Round::new(shared, reader, pipeline, io, snapshots, PortIndex::MAX, duty);
    for Return { frame, kind } in returns {
        round.returned(frame, kind);
    }
    round.finish();
}

/// The snapshots, if there are any and this node carries traffic.
fn ready<'r>(shared: &'r Shared, reader: &'r Reader, duty: Duty) -> Option<Snapshots<'r>> {
    if !duty.carries() {
        return None;
    }
    Some(Snapshots { tables: shared.tables.load(reader)?, fib: shared.fib.load(reader)? })
}

impl<'r> Round<'r> {
    fn new(
        shared: &'r Shared,
        reader: &'r Reader,
        pipeline: &'r mut Pipeline,
        io: Io<'r>,
        Snapshots { tables, fib }: Snapshots<'r>,
        ingress: PortIndex,
        duty: Duty,
    ) -> Self {
        let Pipeline { provider, ivs, parking } = pipeline;
        Self {
            io,
            provider: provider.as_mut(),
            ivs,
            parking,
            duty,
            shared,
            reader,
            tables,
            fib,
            ingress,
            sealing: ArrayVec::new(),
            opening: ArrayVec::new(),
        }
    }

    /// Opens and seals what waits. Opening comes first: it may bring packets that are sealed again.
    fn finish(&mut self) {
        self.open();
        self.seal();
    }

    fn returned(&mut self, frame: Frame, kind: ReturnKind) {
        if kind != ReturnKind::Free {
            self.io.counts.add(Counter::Returned, 1);
        }
        match kind {
            ReturnKind::Free => self.io.free.push(frame),
            ReturnKind::Frame { port } => self.io.transmit(frame, port),
            ReturnKind::Originate => self.originate(frame),
            ReturnKind::Resume { port } => self.resume_held(frame, port),
        }
    }
}

//! A worker: one thread on one core, run to completion.
//!
//! A round begins with a look at role and handling, which hold for all of it. Then, for each interface: take back
//! what was sent, offer free frames, send on what has waited for the partner long enough, receive a batch and send it
//! on its way; then what the slow path handed back; then hand out what is queued; then say what handling the round
//! went by, and announce a quiet point, at which the worker holds no reference into any snapshot. A worker without
//! work spins a few hundred rounds and then sleeps in `poll`.

use crate::any_port::AnyPort;
use crate::counters::Counts;
use crate::fib::PortIndex;
use crate::pipeline::{self, Duty, Io, Pipeline, PortSlot, Shared};
use crate::slow_path::{Punt, Return, ReturnKind};
use crate::tables::PORTS_MAX;
use arrayvec::ArrayVec;
use crossbeam::channel::{Receiver, Sender};
use crossbeam::queue::ArrayQueue;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::EventFd;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::thread::Thread;
use tandem_api::counters::{Counter, DropReason};
use tandem_api::dataplane::Idle;
use tandem_shm::{Bell, Reader};
use tandem_xsk::{Batch, FreeList, Port, PortStatistics, SocketConfig, Umem, XskPort};

/// Rounds without work before a worker sleeps.
const SPIN_ROUNDS: u32 = 300;
/// Longest sleep, so that a worker shows that it lives.
const SLEEP_MS: u16 = 100;
/// Longest sleep while frames wait to be sent, or for the partner's acknowledgement (whose thread wakes the worker
/// sooner).
const BACKLOG_MS: u16 = 1;
/// Punts that may wait for the slow path.
pub const PUNTS: usize = 512;

/// An order to a worker.
pub enum Command {
    /// Open an AF_XDP socket for an interface.
    Open {
        /// Number of the interface.
        port: PortIndex,
        /// What to open.
        config: SocketConfig,
        /// The socket's descriptor and whether it is zero-copy, or why not.
        reply: Sender<anyhow::Result<(OwnedFd, bool)>>,
    },
    /// Close the socket of an interface.
    Close {
        /// Number of the interface.
        port: PortIndex,
        /// Said when done.
        reply: Sender<()>,
    },
    /// Read the kernel's statistics of every socket.
    Statistics {
        /// By interface.
        reply: Sender<Vec<(PortIndex, PortStatistics)>>,
    },
    /// Close everything and end.
    Stop,
}

/// What others see of a worker.
#[derive(Debug)]
pub struct Link {
    /// Rounds of its loop.
    pub rounds: AtomicU64,
    /// Free frames at its last sleep or look.
    pub free_frames: AtomicU32,
    /// The handling word that its last full round went by (F18); of generation 0 before the first one. Nothing is in
    /// its hands that was handled by an older one, but for what is parked.
    pub handling_seen: AtomicU64,
    /// Frames that wait for the partner now.
    pub parked: AtomicU32,
    /// Most frames that ever waited at once.
    pub parked_max: AtomicU32,
    /// Whoever has written acknowledgements or limits rings it: it wakes the worker where it sleeps while frames wait
    /// for them.
    pub waiting: Bell,
    /// Is there a command?
    pub commanded: AtomicBool,
    /// Wakes it from sleep.
    pub wake: EventFd,
    /// To the slow path.
    pub punts: ArrayQueue<Punt>,
    /// From the slow path; has room for every frame there is.
    pub returns: ArrayQueue<Return>,
    /// Memory of its frames.
    pub umem: Arc<Umem>,
}

impl Link {
    /// For a worker with the frames of `umem`.
    ///
    /// # Errors
    /// If the kernel gives no event descriptor.
    pub fn new(umem: Arc<Umem>) -> nix::Result<Self> {
        Ok(Self {
            rounds: AtomicU64::new(0),
            free_frames: AtomicU32::new(0),
            handling_seen: AtomicU64::new(0),
            parked: AtomicU32::new(0),
            parked_max: AtomicU32::new(0),
            waiting: Bell::new(),
            commanded: AtomicBool::new(false),
            wake: EventFd::from_value_and_flags(0, nix::sys::eventfd::EfdFlags::EFD_NONBLOCK)?,
            punts: ArrayQueue::new(PUNTS),
            returns: ArrayQueue::new(umem.frames() as usize),
            umem,
        })
    }

    /// Shows how many frames wait.
    fn show_parked(&self, now: u32, counts: &mut Counts) {
        if self.parked.load(Ordering::Relaxed) != now {
            self.parked.store(now, Ordering::Relaxed);
            counts.level(Counter::Parked, u64::from(now));
            if self.parked_max.load(Ordering::Relaxed) < now {
                self.parked_max.store(now, Ordering::Relaxed);
            }
        }
    }

    /// Wakes the worker if it sleeps while frames wait, after acknowledgements or limits were written. Costs a fence and
    /// a load otherwise.
    pub fn wake_waiting(&self) {
        self.waiting.ring(|| self.wake());
    }

    /// Wakes the worker, whatever it waits for.
    pub fn wake(&self) {
        // Full means that it has been woken already.
        let _ = self.wake.write(1);
    }
}

/// A worker. Everything that it touches for each packet is its own or read-only.
pub struct Worker {
    /// SAs, policies, routes.
    pub shared: Arc<Shared>,
    /// Its place among the readers of the snapshots.
    pub reader: Reader,
    /// What it seals and opens with.
    pub pipeline: Pipeline,
    /// What it counts.
    pub counts: Counts,
    /// What others see of it.
    pub link: Arc<Link>,
    /// Free frames.
    pub free: FreeList,
    /// Interfaces by number.
    pub ports: Vec<Option<PortSlot>>,
    /// Orders.
    pub commands: Receiver<Command>,
    /// The slow path's thread, to be woken when there is something for it.
    pub slow_path: Option<Thread>,
    /// What to do without work.
    pub idle: Idle,
}

impl Worker {
    /// Works until it is told to stop.
    pub fn run(mut self) {
        let mut empty_rounds = 0;
        loop {
            if self.link.commanded.swap(false, Ordering::Acquire) && self.obey() {
                break;
            }
            let frames = self.round();
            if frames > 0 {
                empty_rounds = 0;
            } else {
                empty_rounds += 1;
                if self.idle == Idle::Adaptive && empty_rounds > SPIN_ROUNDS {
                    self.sleep();
                    empty_rounds = 0;
                } else {
                    core::hint::spin_loop();
                }
            }
        }
        self.stop();
    }

    /// One round; returns how many frames it moved.
    pub fn round(&mut self) -> usize {
        let Self { shared, reader, pipeline, counts, link, free, ports, .. } = self;
        let duty = Duty::read(shared.hot.header());
        let mut moved = 0;
        for port in 0..ports.len() {
            let Some(slot) = &mut ports[port] else { continue };
            let mut batch = Batch::new();
            moved += slot.port.reclaim(free);
            slot.port.refill(free);
            if !pipeline.parking.is_empty() {
                let io = Io { umem: &link.umem, free, ports, counts, punts: &link.punts };
                moved += pipeline::release(shared, reader, pipeline, io, duty);
            }
            let Some(slot) = &mut ports[port] else { continue };
            if slot.port.receive(&mut batch) == 0 {
                continue;
            }
            moved += batch.len();
            let io = Io { umem: &link.umem, free, ports, counts, punts: &link.punts };
            pipeline::process(shared, reader, pipeline, io, &mut batch, port as PortIndex, duty);
        }
        if !link.returns.is_empty() {
            moved += 1;
            let io = Io { umem: &link.umem, free, ports, counts, punts: &link.punts };
            pipeline::resume(shared, reader, pipeline, io, &link.returns, duty);
        }
        if !pipeline.parking.is_empty() {
            let io = Io { umem: &link.umem, free, ports, counts, punts: &link.punts };
            moved += pipeline::release(shared, reader, pipeline, io, duty);
        }
        for (port, slot) in ports.iter_mut().enumerate() {
            let Some(slot) = slot else { continue };
            if !slot.queue.is_empty() {
                slot.flush(port as PortIndex, counts);
            }
            let pending = slot.port.transmit_pending();
            if pending > 0 {
                counts.add(Counter::TxWakeups, u64::from(slot.port.wake_transmit()));
                // An interface that is down takes nothing: that is no work.
                moved += usize::from(slot.port.transmit_pending() < pending);
            }
            counts.add(Counter::RxWakeups, u64::from(slot.port.wake_receive()));
        }
        if !link.punts.is_empty()
            && let Some(slow_path) = &self.slow_path
        {
            slow_path.unpark();
        }
        link.show_parked(pipeline.parking.len() as u32, counts);
        if link.handling_seen.load(Ordering::Relaxed) != duty.word() {
            link.handling_seen.store(duty.word(), Ordering::Release);
        }
        link.rounds.fetch_add(1, Ordering::Relaxed);
        reader.quiescent();
        moved
    }

    /// Sleeps until a packet, a returned frame or an order comes.
    fn sleep(&mut self) {
        let Self { shared, reader, pipeline, counts, link, free, ports, .. } = self;
        counts.add(Counter::Sleeps, 1);
        link.free_frames.store(free.len() as u32, Ordering::Relaxed);
        let mut descriptors: ArrayVec<PollFd<'_>, { PORTS_MAX + 1 }> = ArrayVec::new();
        descriptors.push(PollFd::new(link.wake.as_fd(), PollFlags::POLLIN));
        let pollable = ports.iter().flatten().filter_map(|slot| slot.port.pollable());
        descriptors.extend(pollable.take(PORTS_MAX).map(|fd| PollFd::new(fd, PollFlags::POLLIN)));
        // What found no room in a transmit ring, or was not taken out of it, is tried again soon.
        let stuck = |slot: &PortSlot| !slot.queue.is_empty() || slot.port.transmit_pending() > 0;
        let backlog = ports.iter().flatten().any(stuck);
        let parking = &pipeline.parking;
        let timeout = if backlog || !parking.is_empty() { BACKLOG_MS } else { SLEEP_MS };
        // Whoever has something for this worker writes to the event counter after that, so nothing is
        // missed. An interrupted or failed poll is a short sleep.
        let mut sleep = || {
            let _ = reader.offline(|| poll(&mut descriptors, PollTimeout::from(timeout)));
        };
        if parking.is_empty() {
            sleep();
        } else {
            link.waiting.sleep(|| !parking.has_work(&shared.hot), sleep);
        }
        // Empties the event counter; nothing in it is fine.
        let _ = link.wake.read();
    }

    /// Carries out what was ordered; `true` if the worker is to end.
    fn obey(&mut self) -> bool {
        self.link.free_frames.store(self.free.len() as u32, Ordering::Relaxed);
        while let Ok(command) = self.commands.try_recv() {
            if self.carry_out(command) {
                return true;
            }
        }
        false
    }

    fn carry_out(&mut self, command: Command) -> bool {
        // Whoever asked may have given up waiting: then nobody needs the answer.
        match command {
            Command::Open { port, config, reply } => {
                self.close(port);
                // This may take long (a queue that is still being taken down): hold up no publisher.
                let (umem, free) = (&self.link.umem, &mut self.free);
                let opened = self.reader.offline(|| XskPort::open(umem, free, &config));
                let answer = opened.map_err(anyhow::Error::from).and_then(|opened| {
                    let descriptor = opened.fd().try_clone_to_owned()?;
                    let zero_copy = opened.is_zero_copy();
                    let index = usize::from(port);
                    while self.ports.len() <= index {
                        self.ports.push(None);
                    }
                    self.ports[index] = Some(PortSlot::new(AnyPort::Xsk(opened)));
                    Ok((descriptor, zero_copy))
                });
                let _ = reply.send(answer);
            }
            Command::Close { port, reply } => {
                self.close(port);
                let _ = reply.send(());
            }
            Command::Statistics { reply } => {
                let statistics = self
                    .ports
                    .iter()
                    .enumerate()
                    .filter_map(|(port, slot)| Some((port as PortIndex, slot.as_ref()?.port.statistics())))
                    .collect();
                let _ = reply.send(statistics);
            }
            Command::Stop => return true,
        }
        false
    }

    fn close(&mut self, port: PortIndex) {
        if let Some(mut slot) = self.ports.get_mut(usize::from(port)).and_then(Option::take) {
            for frame in slot.queue.drain(..) {
                self.counts.drop(DropReason::Shutdown, 1);
                self.free.push(frame);
            }
            slot.port.drain(&mut self.free);
        }
    }

    fn stop(mut self) {
        let parked = self.pipeline.parking.clear(&mut self.free);
        self.counts.drop(DropReason::Shutdown, parked);
        self.link.show_parked(0, &mut self.counts);
        for port in 0..self.ports.len() {
            self.close(port as PortIndex);
        }
        while let Some(Return { frame, kind }) = self.link.returns.pop() {
            if kind != ReturnKind::Free {
                self.counts.add(Counter::Returned, 1);
                self.counts.drop(DropReason::Shutdown, 1);
            }
            self.free.push(frame);
        }
    }
}

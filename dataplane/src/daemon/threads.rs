//! The threads of a data plane: workers, the slow path, and the one that follows the kernel.

use super::core::Core;
use super::resolution::Resolution;
use crate::counters::{COUNTERS, Counts};
use crate::fib::Kernel;
use crate::netlink::{Asker, Change, Follower};
use crate::pipeline::{Pipeline, Shared};
use crate::slow_path::{Return, SlowPath, Step};
use crate::worker::{Command, Link, PUNTS, Worker};
use anyhow::Context;
use core_affinity::CoreId;
use crossbeam::channel::{Receiver, Sender, unbounded};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle, Thread};
use std::time::{Duration, Instant};
use tandem_api::dataplane::StartSettings;
use tandem_shm::{Domain, StatsRegion};
use tandem_xsk::Umem;

/// How often the slow path looks whether a next hop is resolved, while something waits.
const HELD_PAUSE: Duration = Duration::from_millis(2);
/// How long the slow path sleeps at most.
const IDLE_PAUSE: Duration = Duration::from_millis(200);
/// Pause of a slow path that has more to do than it can: whoever waits for its lock gets it now.
const BUSY_PAUSE: Duration = Duration::from_micros(50);
/// Longest wait for a worker's answer; opening a queue that is still being taken down takes up to a second.
const ANSWER: Duration = Duration::from_secs(5);

/// A lock whose holder panicked is taken over: what it guards is replaced whole, never half changed.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A running worker.
pub struct WorkerHandle {
    /// What others see of it.
    pub link: Arc<Link>,
    /// Core that it is pinned to.
    pub core: Option<u32>,
    commands: Sender<Command>,
    thread: Option<JoinHandle<()>>,
}

impl WorkerHandle {
    /// Gives an order and waits for the answer.
    ///
    /// # Errors
    /// If the worker does not answer in time.
    pub fn ask<T>(&self, command: impl FnOnce(Sender<T>) -> Command) -> anyhow::Result<T> {
        let (reply, answer) = crossbeam::channel::bounded(1);
        self.order(command(reply));
        answer.recv_timeout(ANSWER).context("a worker did not answer within 5 s")
    }

    fn order(&self, command: Command) {
        // A worker that has ended takes no orders; whoever asked finds out by the missing answer.
        let _ = self.commands.send(command);
        self.link.commanded.store(true, Ordering::Release);
        self.link.wake();
    }

    /// Stops it and waits until it has.
    pub fn stop(&mut self) {
        self.order(Command::Stop);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Starts the workers, each on a core of its own as long as there are enough: the first core that the process
/// may use is left to the control process, unless it is the only one.
///
/// # Errors
/// If memory, a thread or a counter segment cannot be had.
pub fn start_workers(
    settings: &StartSettings,
    shared: &Arc<Shared>,
    domain: &Arc<Domain>,
    stats: &StatsRegion,
    slow_path: &Thread,
    links: Vec<Arc<Link>>,
    free: Vec<tandem_xsk::FreeList>,
) -> anyhow::Result<Vec<WorkerHandle>> {
    let cores = core_affinity::get_core_ids().unwrap_or_default();
    let mut workers = Vec::new();
    for (index, (link, free)) in links.into_iter().zip(free).enumerate() {
        let (commands, receiver): (_, Receiver<Command>) = unbounded();
        let core = (!cores.is_empty()).then(|| cores[(index + 1) % cores.len()]);
        let worker = Worker {
            shared: Arc::clone(shared),
            reader: domain.reader(index)?,
            pipeline: Pipeline::new(tandem_aead::provider(&settings.aead)?, settings.frames),
            counts: Counts::new(stats.worker(index as u32)?),
            link: Arc::clone(&link),
            free,
            ports: Vec::new(),
            commands: receiver,
            slow_path: Some(slow_path.clone()),
            idle: settings.idle,
        };
        let thread = thread::Builder::new().name(format!("worker-{index}")).spawn(move || {
            if let Some(core) = core {
                core_affinity::set_for_current(core);
            }
            worker.run();
        })?;
        let core = core.map(|core| core.id as u32);
        workers.push(WorkerHandle { link, core, commands, thread: Some(thread) });
    }
    Ok(workers)
}

/// The first core that the process may use and that no worker has, if there is one.
#[must_use]
pub fn core_without_worker(settings: &StartSettings) -> Option<CoreId> {
    let cores = core_affinity::get_core_ids().unwrap_or_default();
    let taken: Vec<usize> = (0..usize::from(settings.workers))
        .filter_map(|worker| (worker + 1).checked_rem(cores.len()))
        .collect();
    cores.iter().enumerate().find(|(index, _)| !taken.contains(index)).map(|(_, core)| *core)
}

/// Memory and mailboxes of the workers.
///
/// # Errors
/// If the memory cannot be had.
pub fn make_links(settings: &StartSettings) -> anyhow::Result<(Vec<Arc<Link>>, Vec<tandem_xsk::FreeList>)> {
    let mut links = Vec::new();
    let mut lists = Vec::new();
    for _ in 0..settings.workers {
        let (umem, free) = Umem::new(settings.frames)
            .with_context(|| format!("cannot map {} frames for a worker", settings.frames))?;
        links.push(Arc::new(Link::new(umem)?));
        lists.push(free);
    }
    Ok((links, lists))
}

/// The counter segment for so many workers.
///
/// # Errors
/// If the memory cannot be had.
pub fn make_stats(settings: &StartSettings) -> anyhow::Result<StatsRegion> {
    Ok(StatsRegion::create(u32::from(settings.workers), COUNTERS)?)
}

/// Starts the slow path; it lives as long as the process.
///
/// # Errors
/// If the thread or its netlink socket cannot be had.
pub fn start_slow_path(
    links: Vec<Arc<Link>>,
    slow_path: Arc<Mutex<SlowPath>>,
    resolution: Arc<Mutex<Resolution>>,
) -> anyhow::Result<Thread> {
    let asker = Asker::open().context("cannot open a netlink socket for neighbours")?;
    let thread = thread::Builder::new().name("slow-path".into()).spawn(move || {
        let start = Instant::now();
        loop {
            let next = serve(&links, &mut lock(&slow_path), &resolution, &asker, start.elapsed());
            match next {
                Serve::Busy => thread::sleep(BUSY_PAUSE),
                Serve::Waiting => thread::park_timeout(HELD_PAUSE),
                Serve::Idle => thread::park_timeout(IDLE_PAUSE),
            }
        }
    })?;
    Ok(thread.thread().clone())
}

/// What is left for the slow path to do.
enum Serve {
    /// A queue is not empty, as far as is known.
    Busy,
    /// Frames wait for a neighbour.
    Waiting,
    /// Nothing.
    Idle,
}

/// Serves the punts of every worker, a queue's length of each: a flood to one of them must hold up neither the
/// others nor those who wait for the lock.
fn serve(
    links: &[Arc<Link>],
    slow_path: &mut SlowPath,
    resolution: &Mutex<Resolution>,
    asker: &Asker,
    now: Duration,
) -> Serve {
    let mut busy = false;
    let give = |worker: usize, frame: Return| {
        // The queue has room for every frame of the worker.
        let _ = links[worker].returns.push(frame);
        links[worker].wake();
    };
    for (worker, link) in links.iter().enumerate() {
        for punt in (0..PUNTS).map_while(|_| link.punts.pop()) {
            match slow_path.handle(worker, punt, &link.umem, now) {
                Step::Return(frame) => give(worker, frame),
                Step::Ask { port, next_hop } => {
                    let ifindex = lock(resolution).ifindex(port);
                    if let Some(error) = ifindex.and_then(|index| asker.manage(index, next_hop).err()) {
                        let address = std::net::Ipv4Addr::from_bits(next_hop);
                        tracing::debug!("the kernel does not resolve {address}: {error}");
                    }
                }
                Step::Held => {}
            }
        }
        busy |= !link.punts.is_empty();
    }
    if slow_path.is_waiting() {
        let resolution = lock(resolution);
        slow_path.release(
            now,
            |port, next_hop| resolution.is_resolved(port, next_hop),
            give,
            |port, next_hop| {
                if let Some(ifindex) = resolution.ifindex(port) {
                    // Gone already is just as well.
                    let _ = asker.forget(ifindex, next_hop);
                }
            },
        );
    }
    match (busy, slow_path.is_waiting()) {
        (true, _) => Serve::Busy,
        (false, true) => Serve::Waiting,
        (false, false) => Serve::Idle,
    }
}

/// Starts the thread that follows the kernel; it lives as long as the process.
///
/// # Errors
/// If the kernel cannot be followed.
pub fn start_follower(follower: Follower, core: Arc<Mutex<Core>>) -> anyhow::Result<()> {
    thread::Builder::new().name("netlink".into()).spawn(move || {
        let mut kernel = lock(&core).kernel().clone();
        loop {
            let change = follower.wait(&mut kernel).unwrap_or_else(|error| {
                tracing::error!("netlink: {error}; everything is read again");
                thread::sleep(Duration::from_secs(1));
                Change::Resync
            });
            if change == Change::Resync {
                kernel = read_again(&follower);
            }
            if change != Change::None {
                lock(&core).follow(kernel.clone());
            }
        }
    })?;
    Ok(())
}

/// Reads everything from the kernel, however often that takes: what is known is out of date.
fn read_again(follower: &Follower) -> Kernel {
    loop {
        match follower.read_all() {
            Ok(kernel) => return kernel,
            Err(error) => {
                tracing::error!("netlink: {error}; it is tried again");
                thread::sleep(Duration::from_secs(1));
            }
        }
    }
}

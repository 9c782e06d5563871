//! A whole gateway over memory: the worker, pipeline and slow path of the daemon, without threads, sockets,
//! privileges or a clock. Tests, fuzzers and benchmarks drive it.

use crate::any_port::AnyPort;
use crate::counters::{COUNTERS, Counts, Sums};
use crate::fib::{Kernel, PortIndex};
use crate::pair::Bell;
use crate::pipeline::{Pipeline, PortSlot, Shared};
use crate::policy::PolicyTable;
use crate::sa_table::{InstallError, Outcome, SaAdmin, Swept};
use crate::slow_path::{SlowCounts, SlowPath, Step};
use crate::tables::{PortTable, Tables};
use crate::worker::{Link, Worker};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tandem_api::counters::{Counter, DropReason};
use tandem_api::dataplane::{Idle, Policy, SaSpec, SaStatus};
use tandem_shm::{Domain, HotState, Publisher, ROLE_ACTIVE, StatsRegion};
use tandem_xsk::{FreeList, Umem};

/// A gateway over memory.
pub struct Gateway {
    worker: Worker,
    publisher: Publisher,
    admin: SaAdmin,
    provider: Box<dyn tandem_aead::Provider>,
    stats: StatsRegion,
    slow_path: SlowPath,
    kernel: Kernel,
    links: HashMap<u32, PortIndex>,
    umem: Arc<Umem>,
    asked: Vec<(PortIndex, u32)>,
    now: Duration,
}

impl Gateway {
    /// A gateway with `frames` frames and `slots` SAs in each direction; active, in term 2.
    ///
    /// # Errors
    /// If memory or the provider cannot be had.
    pub fn new(frames: u32, slots: u32, provider: &str) -> anyhow::Result<Self> {
        let domain = Domain::new(1);
        let publisher = domain.publisher().ok_or_else(|| anyhow::anyhow!("a new domain has no publisher"))?;
        let hot = HotState::create(slots)?;
        hot.header().term.store(2, Ordering::Release);
        hot.header().role.store(ROLE_ACTIVE, Ordering::Release);
        let admin = SaAdmin::new(&hot);
        let shared = Arc::new(Shared::new(hot, &domain, Arc::new(Bell::new()?)));
        let stats = StatsRegion::create(1, COUNTERS)?;
        let (umem, free) = Umem::new(frames)?;
        let worker = Worker {
            shared,
            reader: domain.reader(0)?,
            pipeline: Pipeline::new(tandem_aead::provider(provider)?, frames),
            counts: Counts::new(stats.worker(0)?),
            link: Arc::new(Link::new(Arc::clone(&umem))?),
            free,
            ports: Vec::new(),
            commands: crossbeam::channel::never(),
            slow_path: None,
            idle: Idle::Spin,
        };
        Ok(Self {
            worker,
            publisher,
            admin,
            provider: tandem_aead::provider(provider)?,
            stats,
            slow_path: SlowPath::new(),
            kernel: Kernel::default(),
            links: HashMap::new(),
            umem,
            asked: Vec::new(),
            now: Duration::ZERO,
        })
    }

    /// Memory of its frames, to make ports from.
    #[must_use]
    pub fn umem(&self) -> &Arc<Umem> {
        &self.umem
    }

    /// Frames that are free now.
    #[must_use]
    pub fn free_frames(&self) -> &FreeList {
        &self.worker.free
    }

    /// Configures interfaces (with the kernel index of each, numbered in this order) and policies.
    pub fn configure(&mut self, ports: Vec<(u32, PortTable, AnyPort)>, policies: &[Policy]) {
        self.links = ports.iter().enumerate().map(|(i, (ifindex, ..))| (*ifindex, i as PortIndex)).collect();
        let mut tables = Vec::new();
        self.worker.ports.clear();
        for (_, table, port) in ports {
            tables.push(Some(table));
            self.worker.ports.push(Some(PortSlot::new(port)));
        }
        let tables = Tables::new(tables, PolicyTable::build(policies));
        self.slow_path.configure(tables.clone());
        self.publisher.publish(&self.worker.shared.tables, Some(Box::new(tables)));
    }

    /// Says what the kernel's routes and neighbours are.
    pub fn set_kernel(&mut self, kernel: Kernel) {
        let fib = kernel.compile(&self.links);
        self.publisher.publish(&self.worker.shared.fib, Some(Box::new(fib)));
        self.kernel = kernel;
    }

    /// What the kernel's routes and neighbours are.
    #[must_use]
    pub fn kernel(&self) -> &Kernel {
        &self.kernel
    }

    /// Installs SAs.
    ///
    /// # Errors
    /// The first SA that cannot be installed.
    pub fn install(&mut self, generation: u64, sas: &[SaSpec]) -> Result<Outcome, InstallError> {
        let shared = &self.worker.shared;
        let (provider, publisher) = (self.provider.as_ref(), &mut self.publisher);
        self.admin.install(generation, sas, provider, &shared.sas, &shared.hot, publisher)
    }

    /// Removes the SAs of other generations.
    pub fn sweep(&mut self, generation: u64) -> Swept {
        self.admin.sweep(generation, &self.worker.shared.sas, &mut self.publisher)
    }

    /// SAs, all of them.
    #[must_use]
    pub fn sas(&self) -> Vec<SaStatus> {
        self.admin.list(0, usize::MAX, &self.worker.shared.hot).0
    }

    /// Packets that wait for the partner now.
    #[must_use]
    pub fn parked(&self) -> usize {
        self.worker.pipeline.parking.len()
    }

    /// What others see of the worker.
    #[must_use]
    pub fn link(&self) -> &Arc<Link> {
        &self.worker.link
    }

    /// Has new SAs begin held ([`SaAdmin::set_limits`]).
    pub fn set_limits(&mut self, limits: bool) {
        self.admin.set_limits(limits);
    }

    /// What all share.
    #[must_use]
    pub fn shared(&self) -> &Shared {
        &self.worker.shared
    }

    /// What all share, for another thread that does the pair thread's part.
    #[must_use]
    pub fn share(&self) -> Arc<Shared> {
        Arc::clone(&self.worker.shared)
    }

    /// An interface.
    pub fn port(&mut self, port: PortIndex) -> Option<&mut AnyPort> {
        Some(&mut self.worker.ports.get_mut(usize::from(port))?.as_mut()?.port)
    }

    /// One round of the worker alone; how many frames moved.
    pub fn round(&mut self) -> usize {
        self.worker.round()
    }

    /// One round of the slow path.
    pub fn slow_round(&mut self) {
        let link = Arc::clone(&self.worker.link);
        while let Some(punt) = link.punts.pop() {
            match self.slow_path.handle(0, punt, &self.umem, self.now) {
                // The queue has room for every frame there is.
                Step::Return(frame) => drop(link.returns.push(frame)),
                Step::Ask { port, next_hop } => self.asked.push((port, next_hop)),
                Step::Held => {}
            }
        }
        let (kernel, links) = (&self.kernel, &self.links);
        let resolved = |port, next_hop| {
            let link = links.iter().find(|(_, p)| **p == port).map(|(&ifindex, _)| ifindex);
            link.is_some_and(|ifindex| kernel.neighbours.contains_key(&(ifindex, next_hop)))
        };
        self.slow_path.release(self.now, resolved, |_, frame| drop(link.returns.push(frame)), |_, _| {});
    }

    /// Worker and slow path until neither moves a frame, `limit` rounds at most.
    pub fn settle(&mut self, limit: usize) {
        for _ in 0..limit {
            let moved = self.round();
            self.slow_round();
            if moved == 0 && self.worker.link.returns.is_empty() {
                return;
            }
        }
    }

    /// Lets time pass for the slow path.
    pub fn advance(&mut self, by: Duration) {
        self.now += by;
    }

    /// Next hops that the kernel was asked for since the last call.
    pub fn asked(&mut self) -> Vec<(PortIndex, u32)> {
        core::mem::take(&mut self.asked)
    }

    /// One counter of the worker.
    #[must_use]
    pub fn counter(&self, counter: Counter) -> u64 {
        Sums(&self.stats).counter(counter)
    }

    /// Frames dropped for a reason, by worker and slow path.
    #[must_use]
    pub fn dropped(&self, reason: DropReason) -> u64 {
        Sums(&self.stats).dropped(reason) + self.slow_path.counts().drops[reason as usize]
    }

    /// What the slow path counted.
    #[must_use]
    pub fn slow_counts(&self) -> SlowCounts {
        self.slow_path.counts()
    }

    /// Checks, once it has settled, that every frame is accounted for; says what does not add up.
    ///
    /// # Errors
    /// The equation that does not hold.
    pub fn account(&self) -> Result<(), String> {
        use tandem_api::counters::SlowCounter as S;
        let counter = |c| Sums(&self.stats).counter(c);
        let slow = self.slow_path.counts();
        let slow_counter = |c: S| slow.counters[c as usize];
        let worker_drops: u64 = DropReason::ALL.iter().map(|&r| Sums(&self.stats).dropped(r)).sum();
        let slow_drops: u64 = slow.drops.iter().sum();
        let queued: u64 = self.worker.ports.iter().flatten().map(|slot| slot.queue.len() as u64).sum();
        let came = counter(Counter::Received) + counter(Counter::Returned) + counter(Counter::Created);
        let went = counter(Counter::Forwarded)
            + counter(Counter::Punted)
            + worker_drops
            + queued
            + self.parked() as u64;
        if came != went {
            return Err(format!("worker: {came} frames came, {went} went"));
        }
        let (parked_total, gauge) = (counter(Counter::ParkedTotal), counter(Counter::Parked));
        if gauge != self.parked() as u64 || gauge + counter(Counter::ParkedReleased) > parked_total {
            return Err(format!(
                "parking: {parked_total} came, {gauge} are said to wait, {} do",
                self.parked()
            ));
        }
        let punted = counter(Counter::Punted);
        let ended = slow_counter(S::Answered) + slow_counter(S::Resumed) + slow_counter(S::Held) + slow_drops;
        if punted != ended {
            return Err(format!("slow path: {punted} frames came, {ended} went"));
        }
        Ok(())
    }
}

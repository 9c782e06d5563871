//! The daemon: starts the threads, serves the control process.
//!
//! Everything that is configured comes from the control process, one at a time over one socket. When it
//! goes away nothing happens to traffic; when it is back it reads what there is and reconciles.

mod core;
mod interface;
mod pair;
mod resolution;
mod socket;
mod status;
mod threads;

use self::core::Core;
use self::socket::{Connection, Listener};
use self::threads::lock;
use crate::fib::Kernel;
use crate::netlink::{Asker, Follower};
use crate::pair::{Command, Inbox, Orders, Setup};
use crate::pipeline::Shared;
use crate::sa_table::SaAdmin;
use crate::slow_path::SlowPath;
use anyhow::{Context, bail, ensure};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::collections::{BTreeSet, HashSet};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use tandem_api::dataplane::{
    Answer, Body, Config, Hello, HotStateOrigin, Refusal, Reply, Request, Said, StartSettings, VERSION,
    decode, encode,
};
use tandem_api::pair::SessionNews;
use tandem_shm::{Domain, HotState, StatsRegion};
use zeroize::Zeroizing;

/// Most workers of a data plane.
const WORKERS_MAX: u16 = 64;

/// Where the daemon finds its places.
#[derive(Clone, Debug)]
pub struct Places {
    /// Socket for the control process.
    pub socket: PathBuf,
    /// Folder of an own bpffs, for the pinned links.
    pub bpffs: PathBuf,
}

/// Runs the daemon until it is told to detach.
///
/// # Errors
/// If it cannot start.
pub fn run(places: &Places) -> anyhow::Result<()> {
    protect_memory();
    tandem_ebpf::mount_bpffs(&places.bpffs)
        .with_context(|| format!("cannot mount a BPF file system at {}", places.bpffs.display()))?;
    let listener = Listener::bind(&places.socket)
        .with_context(|| format!("cannot listen at {}", places.socket.display()))?;
    // Before real-time priority is given up for the rest of the process. Without the others nothing works, and the
    // thread finds that out by itself.
    let (orders, mut inbox) =
        crate::pair::spawn(|| drop_capabilities().unwrap_or_else(|error| tracing::error!("{error:#}")))?;
    drop_capabilities()?;
    tracing::info!("waiting for the control process at {}", places.socket.display());
    let mut server = Server { places: places.clone(), core: None, greeted: false, orders };
    let mut connection: Option<Connection> = None;
    loop {
        let (new, message) = wait(&listener, connection.as_ref(), &inbox, server.greeted)?;
        inbox.collect();
        // The present one first: if it has gone, its successor takes its place.
        if message && let Some(current) = &connection {
            match server.serve(current) {
                Ok(Next::Go) => {}
                Ok(Next::Closed) => {
                    tracing::info!("the control process has gone; traffic goes on");
                    connection = server.close();
                }
                Ok(Next::Detached) => return Ok(()),
                Err(error) => {
                    tracing::warn!("control connection: {error:#}");
                    connection = server.close();
                }
            }
        } else if new {
            let newcomer = listener.accept()?;
            if connection.is_some() {
                tracing::warn!("another control process wants to connect while one is there; it is refused");
            } else {
                server.greeted = false;
                connection = Some(newcomer);
            }
        }
        if let Some(current) = connection.as_ref().filter(|_| server.greeted)
            && let Err(error) = tell(current, &mut inbox)
        {
            tracing::warn!("control connection: {error:#}");
            connection = server.close();
        }
    }
}

/// Tells control what has happened, as much as it takes without waiting.
fn tell(connection: &Connection, inbox: &mut Inbox) -> anyhow::Result<()> {
    while let Some(event) = inbox.first() {
        if !connection.try_send(&encode(&Said::Event(event.clone()))?)? {
            break;
        }
        inbox.told();
    }
    Ok(())
}

/// Waits for a new control process, a message of the present one, room for what it is to be told, or something of the
/// pair thread. Says which of the first two it is.
fn wait(
    listener: &Listener,
    connection: Option<&Connection>,
    inbox: &Inbox,
    greeted: bool,
) -> anyhow::Result<(bool, bool)> {
    let of_control = if greeted && inbox.first().is_some() {
        PollFlags::POLLIN | PollFlags::POLLOUT
    } else {
        PollFlags::POLLIN
    };
    let mut descriptors =
        vec![PollFd::new(listener.as_fd(), PollFlags::POLLIN), PollFd::new(inbox.as_fd(), PollFlags::POLLIN)];
    descriptors.extend(connection.map(|c| PollFd::new(c.as_fd(), of_control)));
    match poll(&mut descriptors, PollTimeout::NONE) {
        Ok(_) | Err(nix::errno::Errno::EINTR) => {}
        Err(error) => return Err(error.into()),
    }
    let ready = |index: usize| {
        let events = descriptors.get(index).and_then(PollFd::revents).unwrap_or(PollFlags::empty());
        events.intersects(!PollFlags::POLLOUT)
    };
    Ok((ready(0), ready(2)))
}

/// What follows a message.
enum Next {
    Go,
    Closed,
    Detached,
}

/// Serves one control process after the other.
struct Server {
    places: Places,
    core: Option<Arc<Mutex<Core>>>,
    /// Has the present control process said that it speaks this protocol version?
    greeted: bool,
    /// To the pair thread.
    orders: Orders,
}

impl Server {
    /// The control process has gone.
    fn close(&mut self) -> Option<Connection> {
        self.greeted = false;
        // With it the session to the partner's, as far as this node knows.
        self.orders.give(Command::Session(SessionNews::Down));
        None
    }

    fn serve(&mut self, connection: &Connection) -> anyhow::Result<Next> {
        let (message, mut descriptors) = connection.receive()?;
        // It may hold keys.
        let message = Zeroizing::new(message);
        if message.is_empty() {
            return Ok(Next::Closed);
        }
        let Request { id, body } = decode(&message)?;
        let detach = matches!(body, Body::Detach);
        let result = self.handle(body, descriptors.pop()).map_err(|error| {
            tracing::warn!("refused: {error:#}");
            Refusal { reason: format!("{error:#}") }
        });
        let refused = result.is_err();
        let hot = match (&result, &self.core) {
            (Ok(Reply::Hello(_)), Some(core)) => Some(lock(core).shared.hot.fd().try_clone_to_owned()?),
            _ => None,
        };
        let answer = encode(&Said::Answer(Answer { id, result }))?;
        let attached: Vec<_> = hot.iter().map(AsFd::as_fd).collect();
        connection.send(&answer, &attached)?;
        Ok(if detach && !refused { Next::Detached } else { Next::Go })
    }

    fn handle(&mut self, body: Body, descriptor: Option<OwnedFd>) -> anyhow::Result<Reply> {
        if let Body::Hello { version, start } = body {
            return self.hello(version, start, descriptor);
        }
        if matches!(body, Body::Detach) && self.core.is_none() {
            // Nothing runs here, but an earlier process may have left its programs behind.
            detach_pins(&self.places.bpffs)?;
            return Ok(Reply::Done);
        }
        let core = self
            .core
            .as_ref()
            .filter(|_| self.greeted)
            .context("the first message of a control process must be Hello")?;
        let mut core = lock(core);
        match body {
            Body::Hello { .. } => Ok(Reply::Done),
            Body::Configure(config) => core.configure(*config),
            Body::SetPair(settings) => core.set_pair(*settings).map(|()| Reply::Done),
            Body::Grant(grant) => core.tell_pair(Command::Grant(grant)),
            Body::Epoch(key) => core.ask_pair(|reply| Command::Epoch(key, reply)),
            Body::Session(news) => core.tell_pair(Command::Session(news)),
            Body::SwitchOver => core.switch_over(),
            Body::PairStatus => core.pair_status(),
            Body::SetRole { role, term } => core.set_role(role, term),
            Body::InstallSas { generation, sas } => core.install(generation, &sas),
            Body::SweepSas { generation } => Ok(core.sweep(generation)),
            Body::ListSas { from } => Ok(core.list(from)),
            Body::Status => Ok(Reply::Status(Box::new(core.status()))),
            Body::Detach => {
                core.detach();
                detach_pins(&self.places.bpffs)?;
                Ok(Reply::Done)
            }
        }
    }

    fn hello(
        &mut self,
        version: u16,
        start: StartSettings,
        descriptor: Option<OwnedFd>,
    ) -> anyhow::Result<Reply> {
        ensure!(
            version == VERSION,
            "the control process speaks protocol version {version}, this data plane {VERSION}: run the same release"
        );
        match &self.core {
            Some(core) => {
                let core = lock(core);
                ensure!(
                    core.settings == start,
                    "the data plane runs with other start settings ({}); restart it to change them",
                    difference(&core.settings, &start)
                );
            }
            None => self.core = Some(start_core(&self.places, start, descriptor, &self.orders)?),
        }
        self.greeted = true;
        let core = lock(self.core.as_ref().context("no data plane")?);
        Ok(Reply::Hello(Hello {
            version: VERSION,
            software: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            hot_state: core.origin,
            role: core.role(),
            term: core.term(),
            generation: core.admin.generation(),
        }))
    }
}

/// Names the settings that differ.
fn difference(now: &StartSettings, wanted: &StartSettings) -> String {
    let pairs = [
        ("workers", now.workers.to_string(), wanted.workers.to_string()),
        ("max-sas", now.max_sas.to_string(), wanted.max_sas.to_string()),
        ("frames", now.frames.to_string(), wanted.frames.to_string()),
        ("aead", now.aead.clone(), wanted.aead.clone()),
        ("idle", format!("{:?}", now.idle).to_lowercase(), format!("{:?}", wanted.idle).to_lowercase()),
    ];
    let differing: Vec<String> = pairs
        .iter()
        .filter(|(_, now, wanted)| now != wanted)
        .map(|(name, now, wanted)| format!("{name} is {now}, wanted {wanted}"))
        .collect();
    differing.join("; ")
}

/// Starts all threads. The hot state is that of `descriptor`, if there is one and it fits, else new.
fn start_core(
    places: &Places,
    settings: StartSettings,
    descriptor: Option<OwnedFd>,
    orders: &Orders,
) -> anyhow::Result<Arc<Mutex<Core>>> {
    ensure!(
        (1..=WORKERS_MAX).contains(&settings.workers),
        "{} workers; 1 to {WORKERS_MAX} are possible",
        settings.workers
    );
    let (hot, origin) = match descriptor {
        Some(descriptor) => {
            let hot = HotState::adopt(descriptor, settings.max_sas).context(
                "the hot SA state that the control process kept does not fit; restart the control process, and a new \
                 state (and term) is made",
            )?;
            (hot, HotStateOrigin::Adopted)
        }
        None => (HotState::create(settings.max_sas)?, HotStateOrigin::Fresh),
    };
    // Threads do not end when something fails after them, and control tries again and again: they come last.
    let provider = tandem_aead::provider(&settings.aead)?;
    let asker = Asker::open().context("cannot open a netlink socket for neighbours")?;
    let follower = Follower::open().context("cannot follow the kernel by netlink")?;
    let kernel: Kernel = follower.read_all().context("cannot read links and routes by netlink")?;
    let domain = Domain::new(usize::from(settings.workers));
    let publisher = domain.publisher().context("a new domain has no publisher")?;
    let mut admin = SaAdmin::new(&hot);
    // The pair thread raises the limits, with a partner or without (F40).
    admin.set_limits(true);
    let shared = Arc::new(Shared::new(hot, &domain, Arc::clone(orders.bell())));
    let stats: StatsRegion = threads::make_stats(&settings)?;
    let (links, free) = threads::make_links(&settings)?;
    let slow_path = Arc::new(Mutex::new(SlowPath::new()));
    let resolution = Arc::default();
    let slow_thread =
        threads::start_slow_path(links.clone(), Arc::clone(&slow_path), Arc::clone(&resolution))?;
    let setup = Setup {
        shared: Arc::clone(&shared),
        links: links.clone(),
        core: threads::core_without_worker(&settings),
        warm: origin == HotStateOrigin::Adopted,
    };
    let workers = threads::start_workers(&settings, &shared, &domain, &stats, &slow_thread, links, free)?;
    orders.give(Command::Start(Box::new(setup)));
    tracing::info!(
        "started: {} workers, {} SA slots, {} hot state",
        settings.workers,
        settings.max_sas,
        if origin == HotStateOrigin::Fresh { "new" } else { "adopted" }
    );
    let core = Arc::new(Mutex::new(Core {
        provider,
        settings,
        origin,
        shared,
        publisher,
        admin,
        stats,
        workers,
        slow_path,
        resolution,
        asker,
        managed: BTreeSet::new(),
        bpffs: places.bpffs.clone(),
        kernel,
        config: Config { interfaces: Vec::new(), policies: Vec::new() },
        interfaces: Vec::new(),
        orders: orders.clone(),
        pair: None,
        opened: None,
        told: Vec::new(),
    }));
    threads::start_follower(follower, Arc::clone(&core))?;
    Ok(core)
}

/// Removes every pinned link: the programs go with them. What is none of ours is left alone.
fn detach_pins(bpffs: &Path) -> anyhow::Result<()> {
    for entry in std::fs::read_dir(bpffs)? {
        let path = entry?.path();
        if let Err(error) = tandem_ebpf::detach(&path) {
            tracing::warn!("{} stays: {error}", path.display());
        }
    }
    Ok(())
}

/// Keys must not reach a core dump or the swap. Pages are locked as they are touched, so that the sparse
/// tables cost no more than they hold.
fn protect_memory() {
    use nix::sys::mman::{MlockAllFlags, mlockall};
    if let Err(error) = nix::sys::prctl::set_dumpable(false) {
        tracing::warn!("cannot forbid core dumps: {error}");
    }
    let on_fault = MlockAllFlags::from_bits_retain(libc::MCL_ONFAULT);
    if let Err(error) = mlockall(MlockAllFlags::MCL_CURRENT | MlockAllFlags::MCL_FUTURE | on_fault) {
        tracing::warn!("cannot lock memory, keys may reach the swap: {error}");
    }
}

/// Gives up every capability that is not needed from here on. Threads inherit it.
fn drop_capabilities() -> anyhow::Result<()> {
    use caps::{CapSet, Capability};
    let needed: HashSet<Capability> = [
        Capability::CAP_NET_ADMIN,
        Capability::CAP_NET_RAW,
        Capability::CAP_BPF,
        Capability::CAP_PERFMON,
        Capability::CAP_IPC_LOCK,
    ]
    .into();
    let have = caps::read(None, CapSet::Permitted).context("cannot read capabilities")?;
    let kept: HashSet<Capability> = needed.intersection(&have).copied().collect();
    if !kept.contains(&Capability::CAP_NET_ADMIN) {
        bail!("CAP_NET_ADMIN is missing: run the data plane as root, or by its service");
    }
    caps::set(None, CapSet::Effective, &kept).context("cannot drop capabilities")?;
    caps::set(None, CapSet::Permitted, &kept).context("cannot drop capabilities")?;
    caps::clear(None, CapSet::Inheritable).context("cannot drop capabilities")?;
    Ok(())
}

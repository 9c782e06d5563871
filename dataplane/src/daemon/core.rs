//! All that a running data plane holds, behind one lock that no worker ever takes.

use super::interface::{self, Interface, Surroundings};
use super::pair::{Opened, Pair, Told};
use super::resolution::Resolution;
use super::threads::{WorkerHandle, lock};
use crate::fib::{Kernel, PortIndex};
use crate::netlink::Asker;
use crate::pair::{NOT_SET, Orders};
use crate::pipeline::Shared;
use crate::policy::PolicyTable;
use crate::sa_table::SaAdmin;
use crate::slow_path::SlowPath;
use crate::tables::{PORTS_MAX, PortTable, Tables};
use anyhow::{Context, bail, ensure};
use std::collections::{BTreeSet, HashMap, HashSet};
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use tandem_aead::Provider;
use tandem_api::dataplane::{
    Config, HotStateOrigin, PolicyAction, Reply, SAS_PER_MESSAGE, SaSpec, StartSettings,
};
use tandem_api::types::Role;
use tandem_ebpf::Prefix;
use tandem_shm::{Publisher, ROLE_ACTIVE, StatsRegion};
use tandem_takeover::Sa;

/// Neighbours that the kernel is told to keep resolved, at most: each costs a probe every few seconds.
const MANAGED_MAX: usize = 4096;

/// All that a running data plane holds.
pub struct Core {
    /// What it was started with.
    pub settings: StartSettings,
    /// Where the hot state comes from.
    pub origin: HotStateOrigin,
    /// What workers read.
    pub shared: Arc<Shared>,
    /// Publishes to them.
    pub publisher: Publisher,
    /// Installs SAs.
    pub admin: SaAdmin,
    /// Makes key schedules.
    pub provider: Box<dyn Provider>,
    /// Counters of the workers.
    pub stats: StatsRegion,
    /// Workers.
    pub workers: Vec<WorkerHandle>,
    /// The slow path's state machine.
    pub slow_path: Arc<Mutex<SlowPath>>,
    /// What the slow path knows of the kernel.
    pub resolution: Arc<Mutex<Resolution>>,
    /// Has neighbours kept resolved.
    pub asker: Asker,
    /// Neighbours (link, address) that the kernel was told to keep resolved.
    pub managed: BTreeSet<(u32, u32)>,
    /// Where links are pinned.
    pub bpffs: PathBuf,
    /// What is known of the kernel.
    pub kernel: Kernel,
    /// What control wants.
    pub config: Config,
    /// By [`PortIndex`]; `None` where an interface was removed or is gone.
    pub interfaces: Vec<Option<Interface>>,
    /// To the pair thread, which alone decides the role.
    pub orders: Orders,
    /// What holds of node and partner, once control has said it.
    pub pair: Option<Pair>,
    /// The numbers file, once it was opened.
    pub opened: Option<Opened>,
    /// What the pair thread knows of the interfaces.
    pub told: Vec<Told>,
}

impl Core {
    /// What is known of the kernel.
    #[must_use]
    pub fn kernel(&self) -> &Kernel {
        &self.kernel
    }

    /// Role now.
    #[must_use]
    pub fn role(&self) -> Role {
        match self.shared.hot.header().role.load(Ordering::Acquire) {
            ROLE_ACTIVE => Role::Active,
            _ => Role::Standby,
        }
    }

    /// Term of the hot state; 0 where none was set yet.
    #[must_use]
    pub fn term(&self) -> u64 {
        self.shared.hot.header().term.load(Ordering::Acquire)
    }

    /// Takes role and term; without a partner alone.
    ///
    /// # Errors
    /// A term below the present one (F27), or none; a partner.
    pub fn set_role(&mut self, role: Role, term: u64) -> anyhow::Result<Reply> {
        ensure!(
            term > 0,
            "term 0 is no term: a node takes its terms from the file that `tandemctl node init` makes"
        );
        let now = self.term();
        ensure!(term >= now, "term {term} lies below the present one, {now}");
        ensure!(self.pair.is_some(), NOT_SET);
        ensure!(
            !self.has_partner(),
            "this node has a partner: the two find their roles by themselves; change them by a switch-over"
        );
        self.order_role(role == Role::Active, term)?;
        tracing::info!("{role} in term {term}");
        Ok(Reply::Done)
    }

    /// Applies a configuration, whole or not at all.
    ///
    /// # Errors
    /// What was wrong, and what to do; nothing has changed.
    pub fn configure(&mut self, config: Config) -> anyhow::Result<Reply> {
        // Until then the role may be that of the process before this one, and the partner may have taken over.
        ensure!(self.pair.is_some(), NOT_SET);
        if config == self.config && self.is_complete() {
            return Ok(Reply::Done);
        }
        check(&config, &self.kernel)?;
        let old = std::mem::replace(&mut self.config, config);
        // New interfaces are the only part that can fail late: open them first, while the old ones run.
        let opened = match self.open_missing() {
            Ok(opened) => opened,
            Err(error) => {
                self.config = old;
                self.reopen();
                return Err(error);
            }
        };
        self.take_in(opened);
        let wanted: HashSet<String> = self.config.interfaces.iter().map(|i| i.name.clone()).collect();
        for slot in &mut self.interfaces {
            if let Some(gone) = slot.take_if(|interface| !wanted.contains(&interface.wanted.name)) {
                gone.close(&self.workers);
            }
        }
        self.refresh_programs();
        self.publish();
        self.tell_interfaces();
        tracing::info!(
            "configured: {} interfaces, {} policies",
            self.config.interfaces.len(),
            self.config.policies.len()
        );
        Ok(Reply::Done)
    }

    fn is_complete(&self) -> bool {
        self.config.interfaces.iter().all(|wanted| self.find(&wanted.name).is_some())
    }

    fn find(&self, name: &str) -> Option<&Interface> {
        self.interfaces.iter().flatten().find(|interface| interface.wanted.name == name)
    }

    /// Opens every wanted interface that there is and that is not in use as wanted. On failure those that
    /// were opened are closed again.
    fn open_missing(&mut self) -> anyhow::Result<Vec<Interface>> {
        let mut opened: Vec<Interface> = Vec::new();
        let mut successors = HashSet::new();
        for wanted in self.config.interfaces.clone() {
            let Some((&ifindex, link)) = self.kernel.links.iter().find(|(_, l)| l.name == wanted.name) else {
                continue;
            };
            if self.find(&wanted.name).is_some_and(|interface| interface.is_same_wire(&wanted, ifindex)) {
                continue;
            }
            // Queues of another shape: the old sockets hold them, so they must go first.
            let link = link.clone();
            if let Some(slot) = self
                .interfaces
                .iter_mut()
                .find(|slot| slot.as_ref().is_some_and(|interface| interface.wanted.name == wanted.name))
                && let Some(old) = slot.take()
            {
                old.make_way(&wanted, ifindex, &self.workers);
                successors.insert(wanted.name.clone());
            }
            let result = self.free_port(&opened).and_then(|port| {
                let (protected, own) = (protected(&self.config), own_addresses(&self.kernel));
                let around = self.surroundings(&protected, &own);
                Interface::open(&wanted, port, (ifindex, &link), &around, &self.workers)
            });
            match result {
                Ok(interface) => opened.push(interface),
                Err(error) => {
                    for interface in opened {
                        let (wanted, ifindex) = (interface.wanted.clone(), interface.ifindex);
                        if successors.contains(&wanted.name) {
                            interface.make_way(&wanted, ifindex, &self.workers);
                        } else {
                            interface.close(&self.workers);
                        }
                    }
                    return Err(error);
                }
            }
        }
        Ok(opened)
    }

    /// Opens again what is configured and missing.
    fn reopen(&mut self) {
        match self.open_missing() {
            Ok(opened) => {
                opened
                    .iter()
                    .for_each(|interface| tracing::info!("{} is in use again", interface.wanted.name));
                self.take_in(opened);
            }
            Err(error) => tracing::error!("{error:#}"),
        }
    }

    fn take_in(&mut self, opened: Vec<Interface>) {
        for interface in opened {
            let port = usize::from(interface.port);
            if self.interfaces.len() <= port {
                self.interfaces.resize_with(port + 1, || None);
            }
            self.interfaces[port] = Some(interface);
        }
    }

    fn free_port(&self, opened: &[Interface]) -> anyhow::Result<PortIndex> {
        (0..PORTS_MAX as PortIndex)
            .find(|&port| {
                self.interfaces.get(usize::from(port)).is_none_or(Option::is_none)
                    && opened.iter().all(|interface| interface.port != port)
            })
            .context("no more interfaces can be opened")
    }

    fn surroundings<'a>(&'a self, protected: &'a [Prefix], own: &'a [Ipv4Addr]) -> Surroundings<'a> {
        Surroundings { bpffs: &self.bpffs, active: self.role() == Role::Active, protected, own }
    }

    /// Tells the programs of all interfaces what they must know.
    fn refresh_programs(&mut self) {
        let (protected, own) = (protected(&self.config), own_addresses(&self.kernel));
        let mut interfaces = std::mem::take(&mut self.interfaces);
        for interface in interfaces.iter_mut().flatten() {
            let wanted = self.config.interfaces.iter().find(|wanted| wanted.name == interface.wanted.name);
            let (Some(wanted), Some(link)) = (wanted, self.kernel.links.get(&interface.ifindex)) else {
                continue;
            };
            let around = self.surroundings(&protected, &own);
            if let Err(error) = interface.update(wanted, link, &around) {
                tracing::error!("{}: {error:#}", interface.wanted.name);
            }
        }
        self.interfaces = interfaces;
    }

    /// Publishes interfaces, policies, routes and neighbours to workers and slow path.
    fn publish(&mut self) {
        let ports: Vec<Option<PortTable>> = self
            .interfaces
            .iter()
            .map(|slot| {
                let interface = slot.as_ref()?;
                let mtu = self.kernel.links.get(&interface.ifindex)?.mtu;
                Some(interface::port_table(&interface.wanted, mtu))
            })
            .collect();
        let tables = Tables::new(ports, PolicyTable::build(&self.config.policies));
        lock(&self.slow_path).configure(tables.clone());
        self.publisher.publish(&self.shared.tables, Some(Box::new(tables)));
        self.publish_fib();
    }

    fn publish_fib(&mut self) {
        let ports: HashMap<u32, PortIndex> =
            self.interfaces.iter().flatten().map(|interface| (interface.ifindex, interface.port)).collect();
        let fib = self.kernel.compile(&ports);
        self.publisher.publish(&self.shared.fib, Some(Box::new(fib)));
        self.publisher.reclaim();
        *lock(&self.resolution) = Resolution::new(&self.kernel, &ports);
        self.manage_neighbours(&ports);
    }

    /// Has gateways resolved, and every neighbour kept resolved: the kernel does not see the traffic that
    /// would tell it that one has gone or moved.
    fn manage_neighbours(&mut self, ports: &HashMap<u32, PortIndex>) {
        let Kernel { neighbours, fixed, .. } = &self.kernel;
        let managed = &mut self.managed;
        managed.retain(|key| neighbours.contains_key(key));
        let known = neighbours.keys().filter(|(ifindex, _)| ports.contains_key(ifindex)).copied();
        let wanted: BTreeSet<_> = known.chain(self.kernel.gateways(ports)).collect();
        // A permanent neighbour that is made a managed one loses its MAC, and is permanent no more.
        let wanted = wanted.into_iter().filter(|key| !fixed.contains(key));
        for key in wanted.take(MANAGED_MAX) {
            if managed.insert(key)
                && let Err(error) = self.asker.manage(key.0, key.1)
            {
                tracing::debug!("neighbour {}: {error}", Ipv4Addr::from_bits(key.1));
            }
        }
    }

    /// Takes over what the kernel has changed.
    pub fn follow(&mut self, kernel: Kernel) {
        let old = std::mem::replace(&mut self.kernel, kernel);
        if old.links == self.kernel.links && own_addresses(&old) == own_addresses(&self.kernel) {
            self.publish_fib();
        } else {
            // First: that a link is down is what the pair thread must know soonest.
            self.tell_interfaces();
            self.drop_lost();
            self.reopen();
            self.refresh_programs();
            self.publish();
        }
        self.tell_interfaces();
    }

    /// Closes interfaces that the kernel has no more.
    fn drop_lost(&mut self) {
        for slot in &mut self.interfaces {
            if let Some(lost) = slot.take_if(|interface| !self.kernel.links.contains_key(&interface.ifindex))
            {
                tracing::warn!("{} is gone", lost.wanted.name);
                lost.close(&self.workers);
            }
        }
    }

    /// Installs SAs, all of them or none.
    ///
    /// # Errors
    /// The first that cannot be installed.
    pub fn install(&mut self, generation: u64, sas: &[SaSpec]) -> anyhow::Result<Reply> {
        ensure!(sas.len() <= SAS_PER_MESSAGE, "{} SAs in one message; {SAS_PER_MESSAGE} at most", sas.len());
        ensure!(self.pair.is_some(), NOT_SET);
        let Self { admin, shared, publisher, provider, .. } = self;
        let outcome =
            admin.install(generation, sas, provider.as_ref(), &shared.sas, &shared.hot, publisher)?;
        let sas = outcome.installed.iter().map(|sa| self.sa(sa)).collect::<anyhow::Result<Vec<Sa>>>()?;
        self.tell_sas(outcome.removed.iter().map(super::pair::key).collect(), sas);
        Ok(Reply::Installed { new: outcome.new, resumed: outcome.resumed, unchanged: outcome.unchanged })
    }

    /// Removes the SAs of other generations.
    pub fn sweep(&mut self, generation: u64) -> Reply {
        let swept = self.admin.sweep(generation, &self.shared.sas, &mut self.publisher);
        self.tell_sas(swept.removed.iter().map(super::pair::key).collect(), Vec::new());
        self.settle_numbers();
        Reply::Swept(swept.count)
    }

    /// A page of SAs.
    #[must_use]
    pub fn list(&self, from: u32) -> Reply {
        let (sas, next) = self.admin.page(from, &self.shared.hot);
        Reply::Sas { sas, next }
    }

    /// Takes everything off the interfaces.
    pub fn detach(&mut self) {
        for interface in self.interfaces.drain(..).flatten() {
            interface.close(&self.workers);
        }
        self.tell_interfaces();
        self.workers.iter_mut().for_each(WorkerHandle::stop);
        tracing::info!("detached from all interfaces");
    }
}

/// Everything that can be refused without touching the kernel.
fn check(config: &Config, kernel: &Kernel) -> anyhow::Result<()> {
    ensure!(config.interfaces.len() <= PORTS_MAX, "at most {PORTS_MAX} interfaces are possible");
    let mut names = HashSet::new();
    for interface in &config.interfaces {
        let name = &interface.name;
        ensure!(names.insert(name), "interface {name} is named twice");
        if !kernel.links.values().any(|link| link.name == *name) {
            let there: Vec<&str> = kernel.links.values().map(|link| link.name.as_str()).collect();
            bail!("there is no interface {name} in this network namespace; there are: {}", there.join(", "));
        }
    }
    for interface in &config.interfaces {
        for net in &interface.virtual_addresses {
            let address = net.addr();
            if let Some((ifindex, _)) = kernel.addresses.keys().find(|(_, a)| *a == address.to_bits()) {
                let owner = kernel.links.get(ifindex).map_or("another interface", |link| link.name.as_str());
                bail!(
                    "{address} is to be a virtual address on {}, and the kernel has it on {owner}: virtual addresses live \
                     in the data plane alone; take it from the kernel (`ip addr del {net} dev {owner}`) or choose another",
                    interface.name
                );
            }
        }
    }
    // A worker sends what it received by its own queue of the other interface.
    if let Some((first, other)) = config
        .interfaces
        .first()
        .and_then(|first| Some((first, config.interfaces.iter().find(|i| i.queues != first.queues)?)))
    {
        bail!(
            "{} has {} queues and {} has {}: a worker without a queue of an interface can send nothing there; give \
             all interfaces the same number (key `queues`, and `ethtool -L`)",
            first.name,
            first.queues,
            other.name,
            other.queues
        );
    }
    Ok(())
}

/// Remote prefixes whose traffic the programs steer: protected or discarded. Where only a bypass policy speaks,
/// the kernel forwards by itself.
fn protected(config: &Config) -> Vec<Prefix> {
    let mut prefixes: Vec<_> = config
        .policies
        .iter()
        .filter(|policy| policy.action != PolicyAction::Bypass)
        .map(|policy| (policy.selector.remote.network(), policy.selector.remote.prefix_len()))
        .collect();
    prefixes.sort_unstable();
    prefixes.dedup();
    // A length that came out of a prefix is one.
    prefixes.into_iter().filter_map(|(address, length)| Prefix::new(address, length).ok()).collect()
}

fn own_addresses(kernel: &Kernel) -> Vec<Ipv4Addr> {
    let mut addresses: Vec<Ipv4Addr> =
        kernel.addresses.keys().map(|&(_, address)| Ipv4Addr::from_bits(address)).collect();
    addresses.sort_unstable();
    addresses.dedup();
    addresses
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fib::Link;
    use tandem_api::dataplane::Interface as Wanted;
    use tandem_api::dataplane::XdpMode;
    use tandem_api::types::{Mac, Side};
    use tandem_wire::ethernet::MacAddr;

    #[test]
    fn interfaces_of_different_numbers_of_queues_are_refused() {
        let mut kernel = Kernel::default();
        let interface = |name: &str, queues| Wanted {
            name: name.to_owned(),
            side: Side::Inside,
            virtual_addresses: Vec::new(),
            virtual_mac: Mac([2; 6]),
            queues,
            mode: XdpMode::Native,
            mss_clamp: false,
            witness: None,
        };
        for (index, name) in [(1, "in0"), (2, "out0")] {
            let link = Link { name: name.to_owned(), kind: None, mac: MacAddr([2; 6]), mtu: 1500, up: true };
            kernel.links.insert(index, link);
        }
        let config = |queues| Config {
            interfaces: vec![interface("in0", 2), interface("out0", queues)],
            policies: Vec::new(),
        };
        assert!(check(&config(2), &kernel).is_ok());
        let error = check(&config(1), &kernel).unwrap_err().to_string();
        assert!(error.contains("in0 has 2 queues and out0 has 1"), "{error}");
    }
}

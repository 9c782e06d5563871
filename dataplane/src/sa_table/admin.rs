//! The bookkeeping of the one thread that installs and removes SAs.

use super::foreign::ForeignIndex;
use super::slots::{Slots, start_inbound, start_outbound};
use super::{InstallError, Outbound, SLOT_MASK, SaTable, policy_numbers, range_of};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::Ipv4Addr;
use std::sync::atomic::Ordering;
use tandem_aead::{Algorithm, Provider};
use tandem_api::dataplane::{MESSAGE_MAX, SAS_PER_MESSAGE, SaSpec, SaStatus, StaleAction, encode};
use tandem_api::types::{Direction, KeyFingerprint, Transform};
use tandem_esp::{SaIn, SaInConfig, SaOut, SaOutConfig, window};
use tandem_shm::{HotIn, HotOut, HotState, Publisher};

/// What the installing thread knows of an SA.
#[derive(Debug)]
pub(super) struct Installed {
    pub(super) slot: u32,
    pub(super) generation: u64,
    pub(super) spec: SaSpec,
}

/// Identity of an SA (RFC 4301 section 4.1): inbound SPIs are ours, outbound ones the peer's, so that two
/// peers may have chosen the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum SaId {
    Inbound { spi: u32 },
    Outbound { spi: u32, peer: Ipv4Addr },
}

impl SaId {
    pub(super) fn of(spec: &SaSpec) -> Self {
        match spec.direction {
            Direction::Inbound => SaId::Inbound { spi: spec.spi },
            Direction::Outbound => SaId::Outbound { spi: spec.spi, peer: spec.peer },
        }
    }
}

/// An SA that was put into its slot, for the thread that replicates and limits it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InstalledSa {
    /// Which SA, and where.
    pub place: SaPlace,
    /// What a stale takeover does with it (F24).
    pub stale: StaleAction,
    /// Was hot state of its key there before (F8)? With its limit, then.
    pub resumed: bool,
}

/// An SA and its slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SaPlace {
    /// Direction.
    pub direction: Direction,
    /// Slot of its hot state; it stays bound to the key as long as the hot state lives.
    pub slot: u32,
    /// SPI, host byte order.
    pub spi: u32,
    /// Fingerprint of the key.
    pub fingerprint: KeyFingerprint,
}

impl SaPlace {
    fn of(installed: &Installed) -> Self {
        let Installed { slot, spec, .. } = installed;
        Self { direction: spec.direction, slot: *slot, spi: spec.spi, fingerprint: spec.fingerprint }
    }
}

/// What a sweep has removed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// How many SAs.
    pub count: u32,
    /// Those whose slot no other SA uses.
    pub removed: Vec<SaPlace>,
}

/// What a request did: how many SAs it touched, and which were put into a slot or taken out of one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Made new.
    pub new: u32,
    /// Made new on hot state that was there for this key.
    pub resumed: u32,
    /// Were there already.
    pub unchanged: u32,
    /// The new and resumed ones, in order.
    pub installed: Vec<InstalledSa>,
    /// SAs whose place another key took under the same SPI.
    pub removed: Vec<SaPlace>,
}

/// Installs and removes SAs; there is one of it, on the thread that serves the control process.
#[derive(Debug)]
pub struct SaAdmin {
    installed: BTreeMap<SaId, Installed>,
    inbound: Slots,
    outbound: Slots,
    foreign: HashMap<u32, u32>,
    generation: u64,
    /// Do new SAs begin held?
    limits: bool,
}

impl SaAdmin {
    /// Reads which slots of `hot` are bound.
    #[must_use]
    pub fn new(hot: &HotState) -> Self {
        let slots = 0..hot.slots();
        let inbound = slots
            .clone()
            .filter_map(|slot| hot.inbound(slot))
            .map(|hot| (hot.spi.load(Ordering::Acquire), hot.binding.load(Ordering::Acquire)));
        let outbound = slots
            .filter_map(|slot| hot.outbound(slot))
            .map(|hot| (hot.spi.load(Ordering::Acquire), hot.binding.load(Ordering::Acquire)));
        Self {
            installed: BTreeMap::new(),
            inbound: Slots::new(inbound),
            outbound: Slots::new(outbound),
            foreign: HashMap::new(),
            generation: 0,
            limits: false,
        }
    }

    /// With `limits`, hot state that is made new begins held (limit 0): the thread that keeps the limits (F40) raises
    /// them. Without, it has none.
    pub fn set_limits(&mut self, limits: bool) {
        self.limits = limits;
    }

    /// Highest generation seen.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// SAs installed: (inbound, outbound).
    #[must_use]
    pub fn count(&self) -> (u32, u32) {
        let inbound = self.installed.keys().filter(|id| matches!(id, SaId::Inbound { .. })).count();
        (inbound as u32, (self.installed.len() - inbound) as u32)
    }

    /// Installs all of `sas`, or none.
    ///
    /// # Errors
    /// The first SA that cannot be installed.
    pub fn install(
        &mut self,
        generation: u64,
        sas: &[SaSpec],
        provider: &dyn Provider,
        table: &SaTable,
        hot: &HotState,
        publisher: &mut Publisher,
    ) -> Result<Outcome, InstallError> {
        self.check(sas, hot.slots())?;
        self.generation = self.generation.max(generation);
        let mut outcome = Outcome::default();
        let mut foreign_changed = false;
        for spec in sas {
            let id = SaId::of(spec);
            if let Some(installed) = self.installed.get_mut(&id)
                && installed.spec == *spec
            {
                installed.generation = generation;
                outcome.unchanged += 1;
                // Another SA may have served the policy meanwhile, in a change that was not carried through.
                table.serve_policy(installed);
                continue;
            }
            let (slot, known) = self.bind(spec, hot)?;
            if known {
                outcome.resumed += 1;
            } else {
                outcome.new += 1;
            }
            foreign_changed |= self.place(spec, slot, provider, table, publisher)?;
            let installed = Installed { slot, generation, spec: spec.clone() };
            let place = SaPlace::of(&installed);
            outcome.installed.push(InstalledSa { place, stale: spec.stale, resumed: known });
            // The same SPI with another key sits in another slot: take the old one out of sight.
            if let Some(old) = self.installed.insert(id, installed) {
                if old.spec.policy != spec.policy {
                    table.leave_policy(&old);
                }
                if old.slot != slot {
                    outcome.removed.extend(self.unpublish(id, &old, table, publisher));
                }
            }
            // A key that came from another peer: that SA is no more.
            let users = &mut self.slots_mut(spec.direction).users;
            if let Some(before) = users.insert(slot, id).filter(|before| *before != id)
                && let Some(old) = self.installed.remove(&before)
                && old.spec.policy != spec.policy
            {
                table.leave_policy(&old);
            }
        }
        if foreign_changed {
            publisher.publish(&table.foreign, Some(Box::new(ForeignIndex::build(&self.foreign))));
        }
        publisher.reclaim();
        Ok(outcome)
    }

    /// Everything that can be refused is refused here, before anything changes.
    fn check(&self, sas: &[SaSpec], slots: u32) -> Result<(), InstallError> {
        let (mut seen, mut keys) = (HashSet::new(), HashSet::new());
        let mut wanted = HashMap::from([(Direction::Inbound, 0usize), (Direction::Outbound, 0)]);
        for spec in sas {
            let SaSpec { spi, transform, direction, .. } = *spec;
            let key = (spi, spec.fingerprint.0);
            // Two peers may choose one SPI, but not with one key: its numbers would be taken for both.
            if !seen.insert(SaId::of(spec)) || !keys.insert((direction, key)) {
                return Err(InstallError::Twice { spi, direction });
            }
            if spi < 256 {
                return Err(InstallError::SpiReserved(spi));
            }
            if spec.policy >= policy_numbers(slots) {
                return Err(InstallError::PolicyNumber { spi, policy: spec.policy, slots });
            }
            let (got, want) = (spec.key.expose().len(), transform.key_len() + 4);
            if got != want {
                return Err(InstallError::KeyLength { spi, transform, got, want });
            }
            if spec.fingerprint.0 == 0 {
                return Err(InstallError::Fingerprint(spi));
            }
            let side = self.slots(direction);
            if let Some(slot) = side.bound.get(&key) {
                let user = side.users.get(slot).and_then(|id| self.installed.get(id));
                if let Some(now) = user.map(|user| user.spec.base_term).filter(|now| *now < spec.base_term) {
                    return Err(InstallError::BaseTerm { spi, now, wanted: spec.base_term });
                }
            } else {
                let count = wanted.entry(direction).or_default();
                *count += 1;
                if *count > side.free {
                    return Err(InstallError::Full { spi, direction, slots });
                }
            }
        }
        Ok(())
    }

    fn slots_mut(&mut self, direction: Direction) -> &mut Slots {
        match direction {
            Direction::Inbound => &mut self.inbound,
            Direction::Outbound => &mut self.outbound,
        }
    }

    fn slots(&self, direction: Direction) -> &Slots {
        match direction {
            Direction::Inbound => &self.inbound,
            Direction::Outbound => &self.outbound,
        }
    }

    /// The slot of this SPI and key, with its hot state ready; `true` if the state was there before.
    fn bind(&mut self, spec: &SaSpec, hot: &HotState) -> Result<(u32, bool), InstallError> {
        let key = (spec.spi, spec.fingerprint.0);
        let limit = if self.limits { 0 } else { u64::MAX };
        let slots = self.slots_mut(spec.direction);
        if let Some(&slot) = slots.bound.get(&key) {
            return Ok((slot, true));
        }
        let full = InstallError::Full { spi: spec.spi, direction: spec.direction, slots: hot.slots() };
        let slot = slots.find(spec.spi & SLOT_MASK).ok_or(full)?;
        match spec.direction {
            Direction::Inbound => hot.inbound(slot).map(|hot| start_inbound(hot, key, limit)),
            Direction::Outbound => hot.outbound(slot).map(|hot| start_outbound(hot, key, limit)),
        };
        slots.taken[slot as usize] = true;
        slots.free -= 1;
        slots.bound.insert(key, slot);
        Ok((slot, false))
    }

    /// Publishes the SA in its slot; `true` if the foreign index is out of date.
    fn place(
        &mut self,
        spec: &SaSpec,
        slot: u32,
        provider: &dyn Provider,
        table: &SaTable,
        publisher: &mut Publisher,
    ) -> Result<bool, InstallError> {
        let material = spec.key.expose();
        let (key, salt) = material.split_at(material.len() - 4);
        let algorithm = match spec.transform {
            Transform::Aes128gcm16 => Algorithm::Aes128Gcm,
            Transform::Aes256gcm16 => Algorithm::Aes256Gcm,
        };
        let key = provider.key(algorithm, key).map_err(|_| InstallError::KeyLength {
            spi: spec.spi,
            transform: spec.transform,
            got: material.len(),
            want: spec.transform.key_len() + 4,
        })?;
        let salt = [salt[0], salt[1], salt[2], salt[3]];
        let (local, peer) = (spec.local, spec.peer);
        match spec.direction {
            Direction::Outbound => {
                let config = SaOutConfig {
                    spi: spec.spi,
                    slot,
                    policy: spec.policy,
                    local,
                    peer,
                    salt,
                    base_term: spec.base_term,
                    key,
                };
                let outbound = Outbound::new(SaOut::new(config), &spec.selectors);
                publisher.publish(&table.outbound[slot as usize], Some(Box::new(outbound)));
                table.by_policy[spec.policy as usize].store(slot, Ordering::Release);
                Ok(false)
            }
            Direction::Inbound => {
                let selectors =
                    spec.selectors.iter().map(|selector| range_of(selector.remote, selector.local)).collect();
                let config = SaInConfig {
                    spi: spec.spi,
                    slot,
                    policy: spec.policy,
                    local,
                    peer,
                    salt,
                    key,
                    selectors,
                };
                publisher.publish(&table.inbound[slot as usize], Some(Box::new(SaIn::new(config))));
                let foreign = spec.spi & SLOT_MASK != slot;
                let before = if foreign {
                    self.foreign.insert(spec.spi, slot)
                } else {
                    self.foreign.remove(&spec.spi)
                };
                Ok(before != foreign.then_some(slot))
            }
        }
    }

    /// Empties the slot of `old`, unless another SA has it by now.
    fn unpublish(
        &mut self,
        id: SaId,
        old: &Installed,
        table: &SaTable,
        publisher: &mut Publisher,
    ) -> Option<SaPlace> {
        let users = &mut self.slots_mut(old.spec.direction).users;
        if users.get(&old.slot) != Some(&id) {
            return None;
        }
        users.remove(&old.slot);
        match old.spec.direction {
            Direction::Inbound => publisher.publish(&table.inbound[old.slot as usize], None),
            Direction::Outbound => publisher.publish(&table.outbound[old.slot as usize], None),
        }
        Some(SaPlace::of(old))
    }

    /// Every SA that is installed.
    pub fn places(&self) -> impl Iterator<Item = SaPlace> {
        self.installed.values().map(SaPlace::of)
    }

    /// Removes every SA of another generation; their hot state stays bound.
    pub fn sweep(&mut self, generation: u64, table: &SaTable, publisher: &mut Publisher) -> Swept {
        let stale: Vec<SaId> = self
            .installed
            .iter()
            .filter(|(_, installed)| installed.generation != generation)
            .map(|(&id, _)| id)
            .collect();
        let mut swept = Swept { count: stale.len() as u32, removed: Vec::new() };
        for id in &stale {
            let Some(installed) = self.installed.remove(id) else { continue };
            match installed.spec.direction {
                Direction::Inbound => {
                    self.foreign.remove(&installed.spec.spi);
                }
                Direction::Outbound => table.leave_policy(&installed),
            }
            swept.removed.extend(self.unpublish(*id, &installed, table, publisher));
        }
        if !stale.is_empty() {
            publisher.publish(&table.foreign, Some(Box::new(ForeignIndex::build(&self.foreign))));
        }
        publisher.reclaim();
        swept
    }

    /// SAs in order of direction and SPI, from position `from` on, as many as surely fit into one message with their
    /// selectors and names; and where to go on.
    #[must_use]
    pub fn page(&self, from: u32, hot: &HotState) -> (Vec<SaStatus>, Option<u32>) {
        let mut count = SAS_PER_MESSAGE / 2;
        loop {
            let page = self.list(from, count, hot);
            // Half a message is left for what wraps them. One SA alone always fits: it came in a message.
            if count == 1 || encode(&page.0).is_ok_and(|octets| octets.len() <= MESSAGE_MAX / 2) {
                return page;
            }
            count /= 2;
        }
    }

    /// SAs in order of direction and SPI, from position `from` on, at most `count`; and where to go on.
    #[must_use]
    pub fn list(&self, from: u32, count: usize, hot: &HotState) -> (Vec<SaStatus>, Option<u32>) {
        let page: Vec<SaStatus> = self
            .installed
            .values()
            .skip(from as usize)
            .take(count)
            .filter_map(|installed| status(installed, hot))
            .collect();
        let end = from as usize + page.len();
        let next = (end < self.installed.len()).then_some(end as u32);
        (page, next)
    }
}

fn status(installed: &Installed, hot: &HotState) -> Option<SaStatus> {
    let Installed { slot, generation, spec } = installed;
    let mut status = SaStatus {
        direction: spec.direction,
        spi: spec.spi,
        slot: *slot,
        policy: spec.policy,
        map: spec.map.clone(),
        selectors: spec.selectors.clone(),
        local: spec.local,
        peer: spec.peer,
        transform: spec.transform,
        fingerprint: spec.fingerprint,
        base_term: spec.base_term,
        lease_end: 0,
        limit: 0,
        generation: *generation,
        packets: 0,
        bytes: 0,
        sequence: 0,
        replayed: 0,
        too_old: 0,
        auth_failed: 0,
        inner_wrong: 0,
        send_errors: 0,
        window: 0,
    };
    let read = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
    match spec.direction {
        Direction::Outbound => {
            let hot: &HotOut = hot.outbound(*slot)?;
            status.packets = read(&hot.packets);
            status.bytes = read(&hot.bytes);
            status.sequence = tandem_esp::sequence::taken(hot);
            status.send_errors = read(&hot.send_errors);
            status.lease_end = read(&hot.lease_end);
            status.limit = read(&hot.limit);
        }
        Direction::Inbound => {
            let hot: &HotIn = hot.inbound(*slot)?;
            status.packets = read(&hot.packets);
            status.bytes = read(&hot.bytes);
            status.sequence = read(&hot.top);
            status.replayed = read(&hot.replayed);
            status.too_old = read(&hot.too_old);
            status.auth_failed = read(&hot.auth_failed);
            status.inner_wrong = read(&hot.inner_wrong);
            status.window = window::WINDOW;
            status.limit = read(&hot.limit);
        }
    }
    Some(status)
}

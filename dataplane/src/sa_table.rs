//! The SA table: slots that workers read without a lock, and the bookkeeping of the one thread that
//! installs and removes.
//!
//! Inbound look-up: an SPI of our own scheme names its slot, so it is an index and a compare; other SPIs
//! (static ones, chosen by an operator) that do not happen to fit go through a small immutable index.
//! Outbound look-up: a policy number leads to the slot of the SA that serves it.
//!
//! Hot state (`failover.md` F8) stays bound to SPI and key fingerprint when an SA is removed, so that
//! the same key installed again finds its window and sequence numbers; it is never zeroed. A slot with
//! such state is not given to another SA.

use ipnet::Ipv4Net;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicU32, Ordering};
use tandem_aead::{Algorithm, Provider};
use tandem_api::dataplane::{MESSAGE_MAX, SAS_PER_MESSAGE, SaSpec, SaStatus, encode};
use tandem_api::types::{Direction, Selector, Transform};
use tandem_esp::window;
use tandem_esp::{SaIn, SaInConfig, SaOut, SaOutConfig, SelectorRange};
use tandem_shm::{Domain, HotIn, HotOut, HotState, Published, Publisher, Reader};

/// No slot.
const NO_SLOT: u32 = u32::MAX;
/// Bits of an SPI that name a slot (see `tandem_esp::spi`).
const SLOT_MASK: u32 = tandem_esp::spi::SLOTS - 1;

/// Policy numbers that a table of `slots` SAs takes: more than SAs, since a reload that replaces them all has
/// old and new ones for a moment.
const fn policy_numbers(slots: u32) -> u32 {
    slots.saturating_mul(2)
}

/// Immutable index of inbound SPIs that do not name their slot: open addressing, linear probing.
#[derive(Debug)]
struct ForeignIndex {
    /// (SPI, slot); SPI 0 is empty.
    entries: Box<[(u32, u32)]>,
}

impl ForeignIndex {
    fn build(pairs: &HashMap<u32, u32>) -> Self {
        let size = (pairs.len() * 2 + 1).next_power_of_two();
        let mut entries = vec![(0, NO_SLOT); size].into_boxed_slice();
        for (&spi, &slot) in pairs {
            let mut at = Self::start(spi, size);
            while entries[at].0 != 0 {
                at = (at + 1) & (size - 1);
            }
            entries[at] = (spi, slot);
        }
        Self { entries }
    }

    /// Multiplicative spread: neighbouring SPIs land apart.
    fn start(spi: u32, size: usize) -> usize {
        (spi.wrapping_mul(0x9e37_79b1) >> 7) as usize & (size - 1)
    }

    fn lookup(&self, spi: u32) -> Option<u32> {
        let size = self.entries.len();
        let mut at = Self::start(spi, size);
        // The table is at most half full, so the walk ends.
        loop {
            match self.entries[at] {
                (0, _) => return None,
                (found, slot) if found == spi => return Some(slot),
                _ => at = (at + 1) & (size - 1),
            }
        }
    }
}

/// An outbound SA and what it may carry (RFC 4301 section 5.1). Policies and SAs change one after the
/// other, so for a moment a policy number may lead to the SA of another tunnel: nothing is sealed into
/// an SA whose selectors do not cover it.
#[derive(Debug)]
struct Outbound {
    sa: SaOut,
    first: Option<SelectorRange>,
    others: Box<[SelectorRange]>,
}

impl Outbound {
    fn new(sa: SaOut, selectors: &[Selector]) -> Self {
        let mut ranges = selectors.iter().map(|selector| range_of(selector.local, selector.remote));
        Self { sa, first: ranges.next(), others: ranges.collect() }
    }

    #[inline]
    fn carries(&self, local: u32, remote: u32) -> bool {
        self.first.is_some_and(|range| range.contains(local, remote))
            || self.others.iter().any(|range| range.contains(local, remote))
    }
}

/// What workers read.
#[derive(Debug)]
pub struct SaTable {
    inbound: Box<[Published<SaIn>]>,
    outbound: Box<[Published<Outbound>]>,
    foreign: Published<ForeignIndex>,
    /// Slot of the outbound SA by policy number.
    by_policy: Box<[AtomicU32]>,
}

impl SaTable {
    /// An empty table of `slots` SAs in each direction.
    #[must_use]
    pub fn new(slots: u32, domain: &Domain) -> Self {
        Self {
            inbound: (0..slots).map(|_| Published::empty(domain)).collect(),
            outbound: (0..slots).map(|_| Published::empty(domain)).collect(),
            foreign: Published::empty(domain),
            by_policy: (0..policy_numbers(slots)).map(|_| AtomicU32::new(NO_SLOT)).collect(),
        }
    }

    /// The inbound SA of `spi`.
    #[inline]
    pub fn inbound<'r>(&'r self, spi: u32, reader: &'r Reader) -> Option<&'r SaIn> {
        if let Some(sa) = self.inbound.get((spi & SLOT_MASK) as usize).and_then(|slot| slot.load(reader))
            && sa.spi() == spi
        {
            return Some(sa);
        }
        let slot = self.foreign.load(reader)?.lookup(spi)?;
        self.inbound.get(slot as usize)?.load(reader).filter(|sa| sa.spi() == spi)
    }

    /// The outbound SA that serves `policy` and may carry a packet between these addresses (host byte
    /// order).
    #[inline]
    pub fn outbound<'r>(
        &'r self,
        policy: u32,
        local: u32,
        remote: u32,
        reader: &'r Reader,
    ) -> Option<&'r SaOut> {
        let slot = self.by_policy.get(policy as usize)?.load(Ordering::Acquire);
        let outbound = self.outbound.get(slot as usize)?.load(reader)?;
        outbound.carries(local, remote).then_some(&outbound.sa)
    }
}

impl SaTable {
    /// Ties an outbound SA to its policy.
    fn serve_policy(&self, installed: &Installed) {
        if installed.spec.direction == Direction::Outbound
            && let Some(slot) = self.by_policy.get(installed.spec.policy as usize)
        {
            slot.store(installed.slot, Ordering::Release);
        }
    }

    /// Unties an outbound SA from its policy, if it is still this one that serves it.
    fn leave_policy(&self, old: &Installed) {
        if old.spec.direction == Direction::Outbound
            && let Some(slot) = self.by_policy.get(old.spec.policy as usize)
        {
            // Another SA has taken over: then there is nothing to untie.
            let _ = slot.compare_exchange(old.slot, NO_SLOT, Ordering::AcqRel, Ordering::Relaxed);
        }
    }
}

/// What the installing thread knows of an SA.
#[derive(Debug)]
struct Installed {
    slot: u32,
    generation: u64,
    spec: SaSpec,
}

/// Identity of an SA (RFC 4301 section 4.1): inbound SPIs are ours, outbound ones the peer's, so that two
/// peers may have chosen the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum SaId {
    Inbound { spi: u32 },
    Outbound { spi: u32, peer: Ipv4Addr },
}

impl SaId {
    fn of(spec: &SaSpec) -> Self {
        match spec.direction {
            Direction::Inbound => SaId::Inbound { spi: spec.spi },
            Direction::Outbound => SaId::Outbound { spi: spec.spi, peer: spec.peer },
        }
    }
}

/// Slots of one direction.
#[derive(Debug)]
struct Slots {
    /// Slots by (SPI, fingerprint) of the hot state bound to them.
    bound: HashMap<(u32, u64), u32>,
    /// Which SA is published in a slot. A key that moves to another peer keeps its slot, so two identities
    /// may lead to one slot until the older of them is swept.
    users: HashMap<u32, SaId>,
    /// Is there hot state in the slot?
    taken: Box<[bool]>,
    /// How many have none.
    free: usize,
    /// No slot below this one is free.
    first_free: usize,
}

impl Slots {
    fn new(bindings: impl Iterator<Item = (u32, u64)>) -> Self {
        let mut bound = HashMap::new();
        let mut taken = Vec::new();
        for (slot, (spi, fingerprint)) in bindings.enumerate() {
            taken.push(fingerprint != 0);
            if fingerprint != 0 {
                bound.insert((spi, fingerprint), slot as u32);
            }
        }
        let free = taken.iter().filter(|taken| !**taken).count();
        Self { bound, users: HashMap::new(), taken: taken.into_boxed_slice(), free, first_free: 0 }
    }

    /// A free slot, `wanted` if that is free.
    fn find(&mut self, wanted: u32) -> Option<u32> {
        if self.taken.get(wanted as usize) == Some(&false) {
            return Some(wanted);
        }
        self.first_free += self.taken[self.first_free..].iter().position(|taken| !taken)?;
        Some(self.first_free as u32)
    }
}

/// Why an SA cannot be installed. Nothing has changed.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum InstallError {
    /// Key of the wrong length.
    #[error("SA {spi:#010x}: the key has {got} octets, {transform} takes {want} (key and 4 octets of salt)")]
    KeyLength {
        /// SPI.
        spi: u32,
        /// Transform.
        transform: Transform,
        /// Octets given.
        got: usize,
        /// Octets needed.
        want: usize,
    },
    /// No slot left.
    #[error(
        "SA {spi:#010x}: all {slots} {direction} slots are taken (removed SAs keep theirs for as long as the data \
         plane lives, so that their numbers cannot repeat); raise dataplane.max-sas and restart the data plane"
    )]
    Full {
        /// SPI.
        spi: u32,
        /// Direction.
        direction: Direction,
        /// Slots there are.
        slots: u32,
    },
    /// An SPI below 256.
    #[error("SA {0:#010x}: SPIs below 256 are reserved (RFC 4303 section 2.1)")]
    SpiReserved(u32),
    /// Policy number too high.
    #[error(
        "SA {spi:#010x}: policy number {policy} is not below twice max-sas ({slots}); raise dataplane.max-sas"
    )]
    PolicyNumber {
        /// SPI.
        spi: u32,
        /// Policy number.
        policy: u32,
        /// Limit.
        slots: u32,
    },
    /// No fingerprint: 0 marks a slot that is free.
    #[error("SA {0:#010x}: a key fingerprint of 0 is none")]
    Fingerprint(u32),
    /// A higher base term for a key in use: the term differences of its IVs would come again (F3).
    #[error(
        "SA {spi:#010x}: the base term of a key in use cannot rise (from {now} to {wanted}), because its nonces would \
         come again; give the SA a new key, or set base-term back"
    )]
    BaseTerm {
        /// SPI.
        spi: u32,
        /// Base term now.
        now: u64,
        /// Base term asked for.
        wanted: u64,
    },
    /// The same SPI twice in one request.
    #[error("SA {spi:#010x}: {direction} twice in one request")]
    Twice {
        /// SPI.
        spi: u32,
        /// Direction.
        direction: Direction,
    },
}

/// How many SAs a request touched, and how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Made new.
    pub new: u32,
    /// Made new on hot state that was there for this key.
    pub resumed: u32,
    /// Were there already.
    pub unchanged: u32,
}

/// Installs and removes SAs; there is one of it, on the thread that serves the control process.
#[derive(Debug)]
pub struct SaAdmin {
    installed: BTreeMap<SaId, Installed>,
    inbound: Slots,
    outbound: Slots,
    foreign: HashMap<u32, u32>,
    generation: u64,
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
        }
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
            // The same SPI with another key sits in another slot: take the old one out of sight.
            if let Some(old) = self.installed.insert(id, Installed { slot, generation, spec: spec.clone() }) {
                if old.spec.policy != spec.policy {
                    table.leave_policy(&old);
                }
                if old.slot != slot {
                    self.unpublish(id, &old, table, publisher);
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
        let slots = self.slots_mut(spec.direction);
        if let Some(&slot) = slots.bound.get(&key) {
            return Ok((slot, true));
        }
        let full = InstallError::Full { spi: spec.spi, direction: spec.direction, slots: hot.slots() };
        let slot = slots.find(spec.spi & SLOT_MASK).ok_or(full)?;
        match spec.direction {
            Direction::Inbound => hot.inbound(slot).map(|hot| start_inbound(hot, key)),
            Direction::Outbound => hot.outbound(slot).map(|hot| start_outbound(hot, key)),
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
    fn unpublish(&mut self, id: SaId, old: &Installed, table: &SaTable, publisher: &mut Publisher) {
        let users = &mut self.slots_mut(old.spec.direction).users;
        if users.get(&old.slot) != Some(&id) {
            return;
        }
        users.remove(&old.slot);
        match old.spec.direction {
            Direction::Inbound => publisher.publish(&table.inbound[old.slot as usize], None),
            Direction::Outbound => publisher.publish(&table.outbound[old.slot as usize], None),
        }
    }

    /// Removes every SA of another generation; their hot state stays bound.
    pub fn sweep(&mut self, generation: u64, table: &SaTable, publisher: &mut Publisher) -> u32 {
        let stale: Vec<SaId> = self
            .installed
            .iter()
            .filter(|(_, installed)| installed.generation != generation)
            .map(|(&id, _)| id)
            .collect();
        for id in &stale {
            let Some(installed) = self.installed.remove(id) else { continue };
            match installed.spec.direction {
                Direction::Inbound => {
                    self.foreign.remove(&installed.spec.spi);
                }
                Direction::Outbound => table.leave_policy(&installed),
            }
            self.unpublish(*id, &installed, table, publisher);
        }
        if !stale.is_empty() {
            publisher.publish(&table.foreign, Some(Box::new(ForeignIndex::build(&self.foreign))));
        }
        publisher.reclaim();
        stale.len() as u32
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

/// Readies free hot state for an SA. The binding comes last: until then the slot counts as free.
fn start_inbound(hot: &HotIn, (spi, fingerprint): (u32, u64)) {
    hot.spi.store(spi, Ordering::Relaxed);
    hot.lease_end.store(u64::MAX, Ordering::Relaxed);
    let counters =
        [&hot.top, &hot.packets, &hot.bytes, &hot.replayed, &hot.too_old, &hot.auth_failed, &hot.inner_wrong];
    counters.into_iter().chain(&hot.window).for_each(|word| word.store(0, Ordering::Relaxed));
    hot.binding.store(fingerprint, Ordering::Release);
}

/// As [`start_inbound`].
fn start_outbound(hot: &HotOut, (spi, fingerprint): (u32, u64)) {
    hot.spi.store(spi, Ordering::Relaxed);
    hot.lease_end.store(u64::MAX, Ordering::Relaxed);
    [&hot.next, &hot.packets, &hot.bytes, &hot.send_errors]
        .into_iter()
        .for_each(|word| word.store(0, Ordering::Relaxed));
    hot.binding.store(fingerprint, Ordering::Release);
}

/// Addresses of packets from one prefix to another.
fn range_of(source: Ipv4Net, destination: Ipv4Net) -> SelectorRange {
    SelectorRange {
        source_first: source.network().into(),
        source_last: source.broadcast().into(),
        destination_first: destination.network().into(),
        destination_last: destination.broadcast().into(),
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
        }
    }
    Some(status)
}

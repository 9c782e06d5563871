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

mod admin;
mod foreign;
mod install_error;
mod slots;

pub use admin::{InstalledSa, Outcome, SaAdmin, SaPlace, Swept};
pub use install_error::InstallError;

use admin::Installed;
use foreign::ForeignIndex;
use ipnet::Ipv4Net;
use std::sync::atomic::{AtomicU32, Ordering};
use tandem_api::types::{Direction, Selector};
use tandem_esp::{SaIn, SaOut, SelectorRange};
use tandem_shm::{Domain, Published, Reader};

/// No slot.
const NO_SLOT: u32 = u32::MAX;
/// Bits of an SPI that name a slot (see `tandem_esp::spi`).
const SLOT_MASK: u32 = tandem_esp::spi::SLOTS - 1;

/// Policy numbers that a table of `slots` SAs takes: more than SAs, since a reload that replaces them all has
/// old and new ones for a moment.
const fn policy_numbers(slots: u32) -> u32 {
    slots.saturating_mul(2)
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

/// Addresses of packets from one prefix to another.
fn range_of(source: Ipv4Net, destination: Ipv4Net) -> SelectorRange {
    SelectorRange {
        source_first: source.network().into(),
        source_last: source.broadcast().into(),
        destination_first: destination.network().into(),
        destination_last: destination.broadcast().into(),
    }
}

//! What the server does for the pair thread: settings, interfaces, SAs, the file of numbers.

use super::core::Core;
use super::interface::Interface;
use crate::counters::Sums;
use crate::keeper::{self, Keeper};
use crate::pair::{Command, Facts, NOT_SET, Numbers, Verdict};
use crate::sa_table::{InstalledSa, SaPlace};
use anyhow::{Context, ensure};
use crossbeam::channel::Sender;
use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use tandem_api::counters::Counter;
use tandem_api::dataplane::{Reply, StaleAction};
use tandem_api::pair::{PATHS_MAX, PairSettings};
use tandem_api::types::{Direction, Role};
use tandem_lease::numbers;
use tandem_takeover::{Known, Sa, SaKey, Stale, Way};
use tandem_xsk::PacketSocket;

/// The numbers file of this process. It is opened once: two threads that write one file would each believe in its own.
pub struct Opened {
    numbers: Numbers,
    known: numbers::Numbers,
}

/// What the server knows of the pair.
pub struct Pair {
    /// Addresses of the partner, none where there is none: they are no witnesses.
    pub partner: Vec<Ipv4Addr>,
    /// Writes the file of numbers.
    keeper: Arc<Keeper>,
    /// What was in it when this process started.
    numbers: numbers::Numbers,
}

/// What the pair thread knows of an interface, and its socket, by which one that was opened anew is told apart.
pub type Told = (Facts, Arc<PacketSocket>);

impl Core {
    /// Takes the settings of node and partner. The first ones hold for the life of the process.
    ///
    /// # Errors
    /// If they make no sense, differ from the first ones, or the file of numbers cannot be used.
    pub fn set_pair(&mut self, settings: PairSettings) -> anyhow::Result<()> {
        if let Some(partner) = &settings.partner {
            let paths = partner.paths.len();
            ensure!(
                (1..=PATHS_MAX).contains(&paths),
                "{paths} paths to the partner; 1 to {PATHS_MAX} are possible"
            );
        }
        if self.pair.is_some() {
            let settings = Box::new(settings);
            return self.orders.demand(|reply| Command::SetPair { settings, numbers: None, reply });
        }
        let partner = settings.partner.as_ref();
        let partner: Vec<Ipv4Addr> =
            partner.iter().flat_map(|partner| &partner.paths).map(|path| *path.remote.ip()).collect();
        let bell = Arc::clone(self.orders.bell());
        let file = Path::new(&settings.numbers_file);
        if self.opened.is_none() {
            let started =
                keeper::start(file, settings.file_id, settings.used, Box::new(move || bell.ring()))?;
            let numbers = Numbers { keeper: Arc::new(started.keeper), persisted: started.persisted };
            self.opened = Some(Opened { numbers, known: started.numbers });
        }
        let opened = self.opened.as_ref().context("no numbers file was opened")?;
        let (numbers, known) = (opened.numbers.clone(), opened.known.clone());
        let keeper = Arc::clone(&numbers.keeper);
        let settings = Box::new(settings);
        self.orders.demand(|reply| Command::SetPair { settings, numbers: Some(numbers), reply })?;
        self.pair = Some(Pair { partner, keeper, numbers: known });
        self.tell_interfaces();
        // Without a partner nobody else has taken over: the reign that the process before this one ended in goes on.
        let term = self.term();
        if self.role() == Role::Active && !self.has_partner() && term > 0 {
            self.order_role(true, term)?;
            tracing::info!("active in term {term}, as the data plane before");
        }
        Ok(())
    }

    /// Gives the pair thread an order that has no answer.
    ///
    /// # Errors
    /// If the settings of the pair are not there yet.
    pub(super) fn tell_pair(&self, command: Command) -> anyhow::Result<Reply> {
        ensure!(self.pair.is_some(), NOT_SET);
        self.orders.give(command);
        Ok(Reply::Done)
    }

    /// Gives the pair thread an order that may be refused.
    ///
    /// # Errors
    /// The refusal; or the settings of the pair are not there yet.
    pub(super) fn ask_pair(&self, command: impl FnOnce(Sender<Verdict>) -> Command) -> anyhow::Result<Reply> {
        ensure!(self.pair.is_some(), NOT_SET);
        self.orders.demand(command)?;
        Ok(Reply::Done)
    }

    /// Has the roles changed.
    ///
    /// # Errors
    /// Why that cannot be.
    pub(super) fn switch_over(&self) -> anyhow::Result<Reply> {
        ensure!(self.pair.is_none() || self.has_partner(), "this node has no partner to change roles with");
        self.ask_pair(Command::SwitchOver)
    }

    /// Is there a partner?
    #[must_use]
    pub fn has_partner(&self) -> bool {
        self.pair.as_ref().is_some_and(|pair| !pair.partner.is_empty())
    }

    /// Has the pair thread take a role, without a partner; it is in force afterwards.
    pub(super) fn order_role(&self, active: bool, term: u64) -> anyhow::Result<()> {
        self.orders.demand(|reply| Command::Role { active, term, reply })
    }

    /// Tells the pair thread of the interfaces, if anything about them has changed.
    pub(super) fn tell_interfaces(&mut self) {
        let partner = self.pair.as_ref().map_or(&[][..], |pair| &pair.partner);
        let facts = |interface: &Interface| interface.facts(&self.kernel, partner);
        let list: Vec<_> = self
            .interfaces
            .iter()
            .flatten()
            .filter_map(|interface| Some((interface, facts(interface)?)))
            .collect();
        let now: Vec<Told> =
            list.iter().map(|(interface, facts)| (facts.clone(), Arc::clone(interface.arp()))).collect();
        // One that was opened anew has another socket, and another program.
        let same = |(now, told): (&Told, &Told)| now.0 == told.0 && Arc::ptr_eq(&now.1, &told.1);
        if now.len() == self.told.len() && now.iter().zip(&self.told).all(same) {
            return;
        }
        let attached: anyhow::Result<Vec<_>> =
            list.into_iter().map(|(interface, facts)| interface.attached(facts)).collect();
        match attached {
            Ok(attached) => {
                self.orders.give(Command::Interfaces(attached));
                self.told = now;
            }
            Err(error) => tracing::error!("the pair thread was not told of the interfaces: {error:#}"),
        }
    }

    /// Tells the pair thread which SAs were removed and which were installed.
    pub(super) fn tell_sas(&self, removed: Vec<SaKey>, installed: Vec<Sa>) {
        if !removed.is_empty() {
            self.orders.give(Command::Remove(removed));
        }
        if !installed.is_empty() {
            self.orders.give(Command::Install(installed));
        }
    }

    /// Did a machine ever manage the numbers in this slot?
    fn is_touched(&self, key: &SaKey, slot: u32) -> bool {
        let hot = &self.shared.hot;
        let words = match key.way {
            Way::In => hot.inbound(slot).map(|sa| [&sa.limit, &sa.top]),
            Way::Out => hot.outbound(slot).map(|sa| [&sa.limit, &sa.next]),
        };
        words.is_some_and(|words| words.iter().any(|word| word.load(Ordering::Acquire) != 0))
    }

    /// An SA that was installed, as the machine takes it.
    ///
    /// # Errors
    /// If control has not said where its numbers are kept.
    pub(super) fn sa(&self, installed: &InstalledSa) -> anyhow::Result<Sa> {
        let pair = self.pair.as_ref().context(NOT_SET)?;
        let key = key(&installed.place);
        // A process may have died after it bound the slot and before the numbers of the file were put into it.
        let known = if installed.resumed && self.is_touched(&key, installed.place.slot) {
            Known::Memory
        } else {
            match pair.numbers.lookup(&key) {
                numbers::Known::Never => Known::Never,
                numbers::Known::UpTo(number) => Known::UpTo(number),
                numbers::Known::Lost => Known::Lost,
            }
        };
        let stale = match installed.stale {
            StaleAction::Jump => Stale::Jump,
            StaleAction::Hold => Stale::Hold,
        };
        Ok(Sa { key, slot: installed.place.slot, stale, known })
    }

    /// All SAs that are configured are installed: where their numbers are lost they stay so, and keys that come later
    /// are new.
    pub(super) fn settle_numbers(&mut self) {
        if let Some(pair) = self.pair.as_mut().filter(|pair| pair.numbers.is_lost()) {
            let configured: Vec<SaKey> = self.admin.places().map(|place| key(&place)).collect();
            pair.keeper.settle(configured.clone());
            pair.numbers.settle(configured);
        }
    }

    /// State of the pair.
    ///
    /// # Errors
    /// If the pair thread does not say it.
    pub(super) fn pair_status(&self) -> anyhow::Result<Reply> {
        let mut status = self.orders.ask(Command::Status)?;
        status.replication.parked_released = Sums(&self.stats).counter(Counter::ParkedReleased);
        Ok(Reply::Pair(status))
    }
}

/// Name of an SA for the partner.
#[must_use]
pub fn key(place: &SaPlace) -> SaKey {
    let way = match place.direction {
        Direction::Inbound => Way::In,
        Direction::Outbound => Way::Out,
    };
    SaKey { way, spi: place.spi, fingerprint: place.fingerprint.0 }
}

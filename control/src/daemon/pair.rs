//! The part of the control process in the pair: between the data plane, which decides roles, the term file, and the
//! partner's control process.

use super::Daemon;
use crate::fence::Fence;
use crate::partner::{Command, News, Partner, SessionId, Terms};
use crate::session::{Session, SessionError};
use crate::state::{Memory, NodeState, StateError};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tandem_api::dataplane::{HotStateOrigin, SaSpec};
use tandem_api::pair::{EpochKey, Event, Grant, PairSettings, PartnerSettings, SessionNews};
use tandem_api::types::{KeyFingerprint, Role};
use tandem_config::{Redundancy, Settings};
use tandem_ssp::message::{Hello, StreamBody};
use tandem_ssp::replica::Change;
use tandem_ssp::store::id;
use tandem_ssp::{Counters, Digest, Epochs, Keys, Local, Replica, SaId, Store};

/// Steps kept for `show redundancy history`.
pub const HISTORY: usize = 500;
/// Between two attempts to write the term file.
pub const GRANT_AGAIN: Duration = Duration::from_secs(1);

/// What is kept of the partner.
pub struct Pair {
    /// The driver of the session.
    pub partner: Partner,
    /// The partner's public key.
    pub key: [u8; 32],
    /// Incarnation given last.
    incarnation: u64,
    /// The partner's incarnation, while the session is up.
    up: Option<u64>,
    /// The partner's stream.
    replica: Replica,
    /// Position up to which it was applied, in this session.
    applied: Option<u64>,
    /// SAs of the own configuration.
    own: HashMap<SaId, KeyFingerprint>,
    /// SAs of the stream that are not of the own configuration.
    more: BTreeMap<SaId, SaSpec>,
    /// Keys of the paths, the older one first.
    keys: Vec<EpochKey>,
    /// So often were the keys given up without an answer of the driver yet: keys that it told before are not taken.
    renewing: u32,
    /// What only a data plane can take, while there is none. Bounded by the window of the stream.
    waiting: VecDeque<News>,
    /// The term file could not be written: no grant until it can.
    grant_due: bool,
}

impl Pair {
    /// Starts looking for the partner.
    ///
    /// # Errors
    /// If it cannot be the partner of this node.
    pub fn start(node: &NodeState, settings: &Settings, redundancy: &Redundancy) -> Result<Self, StateError> {
        let key = redundancy.partner_key;
        let number = node.node_number(Some(&key))?.number();
        let record = node.pair_record();
        // Numbers of epochs must be above those of an earlier process, of which nothing is kept.
        let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |passed| passed.as_secs());
        let mut store = Store::default();
        store.replace(settings.sas.clone());
        let local = Local {
            node: number,
            software: env!("CARGO_PKG_VERSION").to_owned(),
            file_id: node.file_id(),
            highest: node.highest(&key),
            reserved: node.status().reserved,
            reign: record.reign,
            incarnation: record.incarnation,
            incarnation_seen: 0,
            digest: Digest::new(settings.digest()),
            epochs: Epochs::new(number, u32::try_from(seconds).unwrap_or(u32::MAX / 2)),
            store,
            source: None,
            position: 0,
            counters: Counters::default(),
        };
        let keys = Keys { own: *node.secret_key(), partner: key };
        Ok(Self {
            partner: Partner::start(keys, redundancy.paths.clone(), local),
            key,
            incarnation: record.incarnation,
            up: None,
            replica: Replica::default(),
            applied: None,
            own: own_sas(settings),
            more: BTreeMap::new(),
            keys: Vec::new(),
            renewing: 0,
            waiting: VecDeque::new(),
            grant_due: false,
        })
    }

    /// Did the last grant fail?
    pub fn grant_due(&self) -> bool {
        self.grant_due
    }

    /// SAs that are not of the configuration.
    pub fn more(&self) -> Vec<SaSpec> {
        self.more.values().cloned().collect()
    }

    fn keep(&mut self, key: EpochKey) {
        self.keys.retain(|old| old.number != key.number);
        if key.send {
            // Sealed with is one of them.
            self.keys.iter_mut().for_each(|old| old.send = false);
        }
        self.keys.push(key);
        if self.keys.len() > 2 {
            self.keys.remove(0);
        }
    }

    /// The stream that was heard is over: of the next one nothing is applied.
    fn stream_is_over(&mut self) {
        self.replica.interrupted();
        self.applied = None;
    }

    /// How far the partner's stream was applied, under the present incarnation: what it brought is in the data plane
    /// whichever it is.
    fn news_of_stream(&self) -> Option<SessionNews> {
        let (incarnation, end_of_bulk) = (self.incarnation, self.replica.is_complete());
        self.applied.map(|position| SessionNews::Applied { incarnation, position, end_of_bulk })
    }

    fn tell_sas(&self, settings: &Settings) {
        let all = settings.sas.iter().chain(self.more.values()).cloned();
        self.partner.tell(Command::Sas(all.collect()));
    }
}

/// The partner's next news, where there is a partner.
pub async fn news(pair: &mut Option<Pair>) -> News {
    match pair {
        Some(pair) => pair.partner.news().await,
        None => std::future::pending().await,
    }
}

/// Is what a living data plane cannot be told anew the same?
pub fn same_but_priority(one: Option<&Redundancy>, other: Option<&Redundancy>) -> bool {
    let but_priority = |redundancy: &Redundancy| Redundancy { priority: 0, ..redundancy.clone() };
    one.map(but_priority) == other.map(but_priority)
}

impl<F: Fence> Daemon<F> {
    /// Looks for the partner of the configuration, if there is one.
    pub(super) fn start_pair(&mut self) {
        self.pair = None;
        let Some(redundancy) = &self.settings.redundancy else { return };
        match Pair::start(&self.node, &self.settings, redundancy) {
            Ok(pair) => self.pair = Some(pair),
            Err(error) => tracing::error!("no partner is looked for: {error}"),
        }
    }

    /// What the data plane must know of node and partner.
    fn pair_settings(&self) -> Result<PairSettings, StateError> {
        let partner = self.settings.redundancy.as_ref();
        let node = self.node.node_number(partner.map(|redundancy| &redundancy.partner_key))?;
        Ok(PairSettings {
            node: node.number(),
            numbers_file: self.node.numbers_file().display().to_string(),
            file_id: self.node.file_id(),
            used: self.node.ever_used(),
            partner: partner.map(|redundancy| PartnerSettings {
                paths: redundancy.paths.clone(),
                timings: redundancy.timings,
                priority: redundancy.priority,
            }),
        })
    }

    /// Node, partner, terms and role for a data plane that has greeted; before the first SA.
    pub(super) async fn give_pair(&mut self, session: &mut Session) -> Result<(), SessionError> {
        let settings = self.pair_settings()?;
        if self.settings.redundancy.is_none() {
            session.set_pair(settings).await?;
            session.activate(&mut self.node).await?;
            return Ok(());
        }
        // Of a data plane that was here before: which incarnation it goes on with.
        let incarnation = session.pair_status().await?.incarnation;
        session.set_pair(settings).await?;
        match self.enter_memory(session, incarnation) {
            Ok(()) => self.grant_alone(session).await,
            Err(error) => self.no_grant(session, &error).await,
        }
    }

    /// Which memory the data plane has: the one that the terms were granted to, or another.
    fn enter_memory(&mut self, session: &Session, incarnation: u64) -> Result<(), StateError> {
        self.node.heard_term(session.hello.term)?;
        if self.node.resumes(incarnation) {
            return Ok(());
        }
        // A new process has forgotten what it sealed and which datagrams it has seen, even where it goes on with the
        // memory that was kept here: a new incarnation, and keys under which nothing can be repeated to it.
        let adopted = session.hello.hot_state == HotStateOrigin::Adopted;
        if let Some(pair) = &mut self.pair {
            pair.keys.clear();
            // Neither a key that waits, nor one that is on its way: the process before may have used it (F6).
            pair.waiting.retain(|news| !matches!(news, News::Epoch(_)));
            pair.renewing += 1;
            pair.partner.tell(Command::EpochsLost);
        }
        self.node.new_incarnation(if adopted { Memory::Kept } else { Memory::Lost })?;
        Ok(())
    }

    /// The role as it is, the keys of the paths and the state of the session, once the data plane has its SAs.
    pub(super) async fn give_session(&mut self, session: &mut Session) -> Result<(), SessionError> {
        let Some(pair) = &mut self.pair else { return Ok(()) };
        let status = session.pair_status().await?;
        let active = status.role == Role::Active.to_string();
        session.hello.role = if active { Role::Active } else { Role::Standby };
        session.hello.term = status.term;
        pair.partner.tell(Command::Source(active.then_some(status.term)));
        // What an earlier control process was told, the data plane may still have heard.
        if let Some(heard) = &status.heard {
            pair.partner.tell(Command::Heard(heard.incarnation));
        }
        for key in pair.keys.clone() {
            session.epoch(key).await?;
        }
        if let Some(partner_incarnation) = pair.up {
            session.news(SessionNews::Up { partner_incarnation }).await?;
        }
        if let Some(news) = pair.news_of_stream() {
            session.news(news).await?;
        }
        for news in std::mem::take(&mut pair.waiting) {
            self.with_data_plane(session, news).await?;
        }
        Ok(())
    }

    /// Gives the data plane what the term file says now, and tells the partner.
    pub(super) async fn grant(&mut self, session: &mut Session) -> Result<(), SessionError> {
        let before = self.pair.as_ref().map(|pair| pair.incarnation);
        self.grant_alone(session).await?;
        match &self.pair {
            Some(pair) if before != Some(pair.incarnation) => match pair.news_of_stream() {
                Some(news) => session.news(news).await,
                None => Ok(()),
            },
            _ => Ok(()),
        }
    }

    /// As [`Self::grant`], before the data plane has its SAs. Where the file cannot be written, the right to become
    /// active is taken away until it can.
    async fn grant_alone(&mut self, session: &mut Session) -> Result<(), SessionError> {
        let Some(redundancy) = &self.settings.redundancy else { return Ok(()) };
        match self.node.grant(&redundancy.partner_key) {
            Ok(grant) => {
                self.tell_terms(&grant);
                session.grant(grant).await
            }
            Err(error) => self.no_grant(session, &error).await,
        }
    }

    async fn no_grant(&mut self, session: &mut Session, error: &StateError) -> Result<(), SessionError> {
        if let Some(pair) = &mut self.pair
            && !std::mem::replace(&mut pair.grant_due, true)
        {
            tracing::error!("this node cannot become active: {error}");
        }
        session.grant(self.node.nothing_granted()).await
    }

    fn tell_terms(&mut self, grant: &Grant) {
        let Some(pair) = &mut self.pair else { return };
        pair.grant_due = false;
        pair.incarnation = grant.incarnation;
        let highest = self.node.highest(&pair.key);
        let Grant { reserved, reign, incarnation, .. } = *grant;
        pair.partner.tell(Command::Terms(Terms { highest, reserved, reign, incarnation }));
    }

    /// Something that the data plane says unasked.
    pub(super) async fn data_plane_event(
        &mut self,
        session: &mut Session,
        event: Event,
    ) -> Result<(), SessionError> {
        match event {
            Event::NeedGrant { incarnation } => {
                if incarnation
                    && self.pair.is_some()
                    && let Err(error) = self.node.new_incarnation(Memory::Kept)
                {
                    return self.no_grant(session, &error).await;
                }
                self.grant(session).await
            }
            Event::Reign { term, own } => {
                let role = if own { Role::Active } else { Role::Standby };
                (session.hello.role, session.hello.term) = (role, term);
                self.connection.hello = Some(session.hello.clone());
                let Some(pair) = &mut self.pair else { return Ok(()) };
                pair.partner.tell(Command::Source(own.then_some(term)));
                if own {
                    // What the partner has brought goes on from here.
                    pair.stream_is_over();
                    pair.tell_sas(&self.settings);
                }
                if let Err(error) = self.node.note_reign(term) {
                    return self.no_grant(session, &error).await;
                }
                self.grant(session).await
            }
            Event::Joining { incarnation } => {
                // There is nothing between the stream and the data plane that is not sent in order; so the quiet point
                // is when all has gone out.
                if let Some(pair) = &self.pair {
                    pair.partner.tell(Command::Quiet { incarnation });
                }
                Ok(())
            }
            Event::Resend { direction, spi } => {
                if let Some(pair) = &self.pair {
                    pair.partner.tell(Command::Resend((direction, spi)));
                }
                Ok(())
            }
            Event::History(entry) => {
                tracing::info!("{}: {}", entry.step, entry.text);
                if self.history.len() >= HISTORY {
                    self.history.pop_front();
                }
                self.history.push_back(entry);
                Ok(())
            }
        }
    }

    /// News of the partner while there is no data plane.
    pub(super) fn partner_news_alone(&mut self, news: News) {
        match news {
            News::Paired(id, hello) => {
                // The error is in the log, and the partner has it.
                let _ = self.paired(id, &hello);
            }
            News::Up { .. } | News::Incarnation(_) | News::Down(_) | News::EpochsRenewed => {
                self.note_session(&news);
            }
            News::Epoch(_) | News::Stream(..) | News::Quiet { .. } => {
                if let Some(pair) = &mut self.pair {
                    pair.waiting.push_back(news);
                }
            }
        }
    }

    /// News of the partner.
    pub(super) async fn partner_news(
        &mut self,
        session: &mut Session,
        news: News,
    ) -> Result<(), SessionError> {
        match news {
            News::Paired(id, hello) => match self.paired(id, &hello) {
                Ok(()) => self.grant(session).await,
                // What the partner knows must not be met with lower terms; the next session tries again.
                Err(error) => self.no_grant(session, &error).await,
            },
            News::Up { partner_incarnation } | News::Incarnation(partner_incarnation) => {
                self.note_session(&news);
                session.news(SessionNews::Up { partner_incarnation }).await
            }
            News::Down(_) => {
                self.note_session(&news);
                session.news(SessionNews::Down).await
            }
            News::EpochsRenewed => {
                self.note_session(&news);
                Ok(())
            }
            news => self.with_data_plane(session, news).await,
        }
    }

    /// The partner has said its terms: above them on disk, before anything else is made of it (F1, F2).
    fn paired(&mut self, id: SessionId, hello: &Hello) -> Result<(), StateError> {
        let Some(pair) = &self.pair else { return Ok(()) };
        self.node.partner_has_seen(hello.incarnation_seen);
        let reserved = self
            .node
            .pair(&pair.key, hello.highest)
            .and_then(|()| if hello.reign > 0 { self.node.note_reign(hello.reign) } else { Ok(()) });
        match &reserved {
            Ok(()) => pair.partner.tell(Command::Reserved(id)),
            Err(error) => {
                tracing::error!("terms could not be reserved above the partner's: {error}");
                pair.partner.tell(Command::Refuse(id, format!("terms could not be reserved: {error}")));
            }
        }
        reserved
    }

    fn note_session(&mut self, news: &News) {
        let Some(pair) = &mut self.pair else { return };
        match news {
            News::Up { partner_incarnation } | News::Incarnation(partner_incarnation) => {
                pair.up = Some(*partner_incarnation);
            }
            News::Down(_) => {
                pair.up = None;
                pair.stream_is_over();
                // Keys stay of use; the rest was of that session.
                pair.waiting.retain(|news| matches!(news, News::Epoch(_)));
            }
            News::EpochsRenewed => pair.renewing = pair.renewing.saturating_sub(1),
            _ => {}
        }
    }

    /// News that need a data plane.
    async fn with_data_plane(&mut self, session: &mut Session, news: News) -> Result<(), SessionError> {
        match news {
            News::Epoch(key) => self.epoch(session, key).await,
            News::Stream(id, position, body) => self.stream(session, id, position, body).await,
            News::Quiet { incarnation, position } => {
                session.news(SessionNews::Quiet { incarnation, position }).await
            }
            News::Paired(..)
            | News::Up { .. }
            | News::Incarnation(_)
            | News::Down(_)
            | News::EpochsRenewed => Ok(()),
        }
    }

    async fn epoch(&mut self, session: &mut Session, key: EpochKey) -> Result<(), SessionError> {
        let Some(pair) = self.pair.as_mut().filter(|pair| pair.renewing == 0) else { return Ok(()) };
        let (number, send) = (key.number, key.send);
        match session.epoch(key.clone()).await {
            Ok(()) => {
                pair.keep(key);
                pair.partner.tell(Command::EpochInstalled { number, send });
                Ok(())
            }
            Err(error) if error.is_refusal() => {
                tracing::warn!("the data plane does not take epoch {number}: {error}; another one is made");
                pair.keys.clear();
                pair.partner.tell(Command::EpochRefused);
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// Applies a message of the partner's stream. An SA of the own configuration is there already, and confirmed by that.
    async fn stream(
        &mut self,
        session: &mut Session,
        id: SessionId,
        position: u64,
        body: StreamBody,
    ) -> Result<(), SessionError> {
        let Some(pair) = &mut self.pair else { return Ok(()) };
        let during_bulk = matches!(body, StreamBody::Sa { .. }) && !pair.replica.is_complete();
        let change = pair.replica.apply(body);
        let applied = match change {
            Change::Nothing => Ok(()),
            Change::Put(key) => match pair.replica.get(key) {
                Some(spec) if pair.own.get(&key) == Some(&spec.fingerprint) => Ok(()),
                Some(spec) => install(session, &self.settings, &mut pair.more, spec.clone()).await,
                None => Ok(()),
            },
            Change::Gone(keys) => {
                let before = pair.more.len();
                pair.more.retain(|key, _| !keys.contains(key));
                if pair.more.len() == before {
                    Ok(())
                } else {
                    let more = pair.more();
                    session.reconcile(&self.settings, &more).await.map(|_| ())
                }
            }
        };
        match applied {
            Ok(()) => {}
            Err(error) if error.is_refusal() => {
                // Not acknowledged, so nothing is promised of it; the next session brings it again.
                tracing::error!("an SA of the partner cannot be installed: {error}");
                let reason = format!("an SA of the partner's cannot be installed: {error}");
                pair.partner.tell(Command::Refuse(id, reason));
                return Ok(());
            }
            Err(error) => return Err(error),
        }
        pair.partner.tell(Command::Applied(id, position));
        pair.applied = Some(position);
        match pair.news_of_stream() {
            // The data plane needs no news of each of them.
            Some(news) if !during_bulk => session.news(news).await,
            _ => Ok(()),
        }
    }

    /// The configuration in force is another one: the partner hears of its digest, and gets its SAs.
    pub(super) fn tell_settings(&mut self) {
        let Some(pair) = &mut self.pair else { return };
        // What is configured now is no longer the partner's alone.
        pair.own = own_sas(&self.settings);
        pair.more.retain(|key, _| !pair.own.contains_key(key));
        pair.partner.tell(Command::Digest(Digest::new(self.settings.digest())));
        pair.tell_sas(&self.settings);
    }

    /// A priority that has changed is the one thing of the pair that a living data plane takes.
    pub(super) async fn give_priority(&mut self, session: &mut Session) -> Result<(), SessionError> {
        let settings = self.pair_settings()?;
        session.set_pair(settings).await
    }

    /// SAs that are not of the configuration.
    pub(super) fn more_sas(&self) -> Vec<SaSpec> {
        self.pair.as_ref().map(Pair::more).unwrap_or_default()
    }
}

fn own_sas(settings: &Settings) -> HashMap<SaId, KeyFingerprint> {
    settings.sas.iter().map(|spec| (id(spec), spec.fingerprint)).collect()
}

/// Installs an SA of the stream that the configuration does not have.
async fn install(
    session: &mut Session,
    settings: &Settings,
    more: &mut BTreeMap<SaId, SaSpec>,
    mut spec: SaSpec,
) -> Result<(), SessionError> {
    // Numbers of policies are each node's own; names are the same on both.
    if let Some(map) = settings.maps.iter().find(|map| map.name == spec.map) {
        spec.policy = map.policy;
    }
    session.install(spec.clone()).await?;
    more.insert(id(&spec), spec);
    Ok(())
}

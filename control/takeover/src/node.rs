//! The machine: what goes in, what comes out, and what belongs to both roles.

use crate::active::{Active, Standing};
use crate::input::{Action, Config, Input, Known, Memory, Nanos, SaKey, Segment, Sight};
use crate::partner::Partner;
use crate::reserve::Sas;
use crate::standby::Standby;
use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use tandem_lease::message::{self, Acknowledgement, Header, Record, Section, Verdict, Writer, flag};
use tandem_lease::mutant::{self, Mutant};
use tandem_lease::{Answered, Sender, SenderCounts};
use tandem_shm::{Handling, ROLE_ACTIVE, ROLE_STANDBY};

pub use tandem_lease::message::Malformed;

/// Paths by number, as bits.
pub type PathSet = u8;

/// A witness that answered so long ago is no witness any more.
const WITNESS_AGE: Nanos = 3_500 * crate::input::MS;

/// A node without partner has nothing to do for so long, if no worker rings.
const LONE_PAUSE: Nanos = 100 * crate::input::MS;

/// What the node may use of its term file.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Terms {
    pub taken: u64,
    pub reserved: u64,
    pub eligible: bool,
}

#[derive(Debug)]
pub(crate) enum Role {
    Standby(Standby),
    Active(Active),
}

/// What was merged, and lag samples, for `show`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Of the sender.
    pub sender: SenderCounts,
    /// Records of the partner merged.
    pub merged: u64,
    /// Records of the partner for SAs that are not here.
    pub unknown: u64,
    /// Times that this node went from strict to alone.
    pub went_alone: u64,
    /// Joins that failed.
    pub failed_joins: u64,
}

/// One node of the pair.
#[derive(Debug)]
pub struct Node {
    pub(crate) config: Config,
    pub(crate) started: Nanos,
    pub(crate) warm: bool,
    /// Term that an earlier process left in the hot state: the next one lies above.
    least_term: u64,
    pub(crate) terms: Option<Terms>,
    /// Incarnation of this node's memory; 0: none, one is needed.
    pub(crate) incarnation: u64,
    /// Newest incarnation that was ever granted.
    pub(crate) past: u64,
    /// Incarnation that ended by a goodbye, for as long as it is said.
    pub(crate) ended: u64,
    /// Newest reign that this node knows, of either node.
    pub(crate) reign: u64,
    /// Newest reign of its own that it knows of.
    pub(crate) own_reign: u64,
    pub(crate) role: Role,
    /// This node acted alone, and the partner does not know what it did (F28).
    pub(crate) lone_state: bool,
    pub(crate) partner: Partner,
    /// After a demotion: the word that all workers must have passed before this node is a standby like any other.
    pub(crate) leaving: Option<u64>,
    /// The partner's incarnation as its control says, while the session is up.
    pub(crate) session: Option<u64>,
    /// Running time without a session.
    pub(crate) session_gone: Nanos,
    pub(crate) sender: Sender,
    pub(crate) sas: Sas,
    pub(crate) sight: Sight,
    pub(crate) actions: VecDeque<Action>,
    pub(crate) answers: VecDeque<Acknowledgement>,
    pub(crate) last_answers: VecDeque<Acknowledgement>,
    pub(crate) seal_due: Option<(u64, u64, u64)>,
    pub(crate) sealed_due: Option<u64>,
    pub(crate) heartbeat_due: Nanos,
    pub(crate) probe_due: Nanos,
    pub(crate) switch_over: bool,
    pub(crate) leave: bool,
    pub(crate) generation: u64,
    pub(crate) lag: VecDeque<Nanos>,
    pub(crate) recent_lag: Nanos,
    /// When the partner last acknowledged something, or had nothing to acknowledge.
    pub(crate) answered_at: Nanos,
    pub(crate) counts: Counts,
    pub(crate) took_over_fresh: Option<bool>,
}

impl Node {
    /// A node that has just started, as standby; `warm`: its hot state was in memory already.
    #[must_use]
    pub fn new(config: Config, warm: bool, now: Nanos) -> Self {
        Self {
            config,
            started: now,
            warm,
            least_term: 0,
            terms: None,
            incarnation: 0,
            past: 0,
            ended: 0,
            reign: 0,
            own_reign: 0,
            role: Role::Standby(Standby::new(true)),
            lone_state: false,
            leaving: None,
            partner: Partner::new(now),
            session: None,
            session_gone: 0,
            sender: Sender::new(),
            sas: Sas::default(),
            sight: Sight::default(),
            actions: VecDeque::new(),
            answers: VecDeque::new(),
            last_answers: VecDeque::new(),
            seal_due: None,
            sealed_due: None,
            heartbeat_due: now,
            probe_due: now,
            switch_over: false,
            leave: false,
            generation: 0,
            lag: VecDeque::new(),
            recent_lag: 0,
            answered_at: now,
            counts: Counts::default(),
            took_over_fresh: None,
        }
    }

    /// Takes over what an earlier process left in the hot state: the node starts as standby, whatever it was, and
    /// what it did alone is known to nobody else.
    pub fn adopt(&mut self, memory: Memory<'_>) {
        let header = memory.hot.header();
        let word = header.handling.load(Ordering::Acquire);
        self.generation = Handling::generation(word);
        self.least_term = header.term.load(Ordering::Acquire);
        self.lone_state = header.lone.load(Ordering::Acquire) != 0;
        if self.lone_state {
            self.own_reign = header.term.load(Ordering::Acquire);
        }
        if header.role.load(Ordering::Acquire) == ROLE_ACTIVE {
            self.own_reign = header.term.load(Ordering::Acquire);
            self.reign = self.own_reign;
            if self.config.partner {
                header.role.store(ROLE_STANDBY, Ordering::Release);
            }
        }
    }

    /// The setting that decides between two cold nodes has changed (F22).
    pub fn set_priority(&mut self, priority: u8) {
        self.config.priority = priority;
    }

    /// Something happened.
    pub fn handle(&mut self, input: Input, memory: Memory<'_>, now: Nanos) {
        match input {
            Input::Grant { taken, reserved, reign, incarnation, eligible } => {
                self.terms = Some(Terms { taken, reserved, eligible });
                self.reign = self.reign.max(reign);
                if self.config.node.owns(reign) {
                    self.own_reign = self.own_reign.max(reign);
                }
                self.granted(incarnation, memory);
            }
            Input::Role { active, term } => self.ordered(active, term, memory, now),
            Input::SessionUp { partner_incarnation } => {
                self.session = Some(partner_incarnation);
                self.session_gone = 0;
                self.ask_for_incarnation();
            }
            Input::SessionDown => self.session = None,
            Input::Quiet { incarnation, position } => self.control_passed(incarnation, position),
            Input::Applied { incarnation, position, end_of_bulk } => {
                if let Role::Standby(standby) = &mut self.role {
                    standby.applied = (incarnation, position, end_of_bulk);
                }
            }
            Input::Overheard => self.partner.overheard_at = Some(now),
            Input::SwitchOver => self.switch_over = true,
            Input::WorkersPassed { word } => self.workers_passed(word),
            Input::Persisted { id } => {
                let answers = if self.may_answer() { &mut self.answers } else { &mut VecDeque::new() };
                self.sas.persisted(id, memory.hot, now, answers);
            }
            Input::Install(sa) => {
                self.sas.install(sa, memory.hot, now);
                // Of an SA that is held there is nothing to tell: its numbers are not known here.
                if sa.known == Known::Lost {
                    self.sender.remove(sa.key);
                } else {
                    self.sender.install(sa.key, sa.slot);
                }
            }
            Input::Remove(key) => {
                self.sas.remove(&key, memory.hot);
                self.sender.remove(key);
            }
            Input::Sight(sight) => self.sight = sight,
        }
    }

    /// A grant has come; it may bring a new incarnation.
    fn granted(&mut self, incarnation: u64, memory: Memory<'_>) {
        let standby = matches!(self.role, Role::Standby(_)) && self.leaving.is_none();
        // A grant for another reason still names the incarnation that has ended.
        if incarnation <= self.past || !standby {
            return;
        }
        (self.incarnation, self.past) = (incarnation, incarnation);
        self.sas.recorded.clear();
        self.ended = 0;
        // Messages are in order over all lives of this node.
        memory.hot.header().message.fetch_max(incarnation << 40, Ordering::AcqRel);
        if let Role::Standby(standby) = &mut self.role {
            standby.forget_synchronization();
        }
    }

    pub(crate) fn ask_for_incarnation(&mut self) {
        if self.incarnation == 0 && self.leaving.is_none() && matches!(self.role, Role::Standby(_)) {
            self.actions.push_back(Action::NeedGrant { incarnation: true });
        }
    }

    /// An authentic message came over a path.
    ///
    /// # Errors
    /// If it is malformed; then nothing has changed.
    pub fn handle_message(
        &mut self,
        path: u8,
        message: &[u8],
        memory: Memory<'_>,
        now: Nanos,
    ) -> Result<(), Malformed> {
        let (header, sections) = message::read(message)?;
        self.run(now, true);
        let newest = self.partner.hear(&header, path, now);
        let reign = header.reign.get();
        if reign > self.reign {
            self.reign = reign;
            self.actions.push_back(Action::Reign { term: reign, own: false });
        }
        if let Role::Active(active) = &self.role
            && reign > active.term
        {
            self.demote("the partner names a later reign", memory);
        }
        if newest {
            match &self.role {
                Role::Active(_) => self.follow_as_active(&header, memory, now),
                Role::Standby(_) => self.follow_as_standby(&header, memory),
            }
        }
        // Versions mean something within one term only: what was said in an earlier reign, and comes late or again, is
        // neither merged nor sealed, nor an answer to anything of this one.
        let present = reign == self.reign;
        for section in sections.into_iter().filter(|_| present) {
            // A late request to seal is of a join that was given up: sealing it would void what is sealed now.
            if newest || !matches!(section, Section::Seal { .. }) {
                self.section(&header, section, memory, now);
            }
        }
        Ok(())
    }

    fn section(&mut self, header: &Header, section: Section, memory: Memory<'_>, now: Nanos) {
        match section {
            Section::Records { version, last, records } => {
                for record in records {
                    self.record(version, last, record, memory, now);
                }
            }
            Section::Acknowledgements { last, list } => {
                if self.answers_count(header, last) {
                    list.iter().for_each(|answer| self.answer(answer, memory, now));
                }
            }
            Section::Seal { version, incarnation, position } => {
                let wanted = incarnation == self.incarnation && incarnation != 0;
                if let Role::Standby(standby) = &mut self.role
                    && wanted
                {
                    standby.seal_wanted = Some((version, position));
                    self.seal();
                }
            }
            Section::Sealed { version } => self.sealed(header.incarnation.get(), version, memory),
        }
    }

    /// May this node acknowledge records now? Only as standby, in an incarnation, with nothing unmerged (F18, F28).
    fn may_answer(&self) -> bool {
        match &self.role {
            Role::Standby(standby) => self.incarnation != 0 && !standby.unmerged,
            Role::Active(_) => false,
        }
    }

    fn record(&mut self, version: u64, last: bool, record: Record, memory: Memory<'_>, now: Nanos) {
        if last {
            return self.final_record(version, &record, memory, now);
        }
        // A record that arrives at an active node is of an earlier reign: nothing of it is news.
        let standby = matches!(self.role, Role::Standby(_)) && self.leaving.is_none();
        if standby {
            self.merge(version, &record, memory, now);
        }
    }

    fn merge(&mut self, version: u64, record: &Record, memory: Memory<'_>, now: Nanos) {
        let known = self.sas.get(&record.key).map(|entry| (entry.sa.slot, entry.held));
        if matches!(self.role, Role::Standby(_)) {
            self.sas.forget_assumed(&record.key, memory.hot);
        }
        let number = known.and_then(|(slot, _)| tandem_lease::merge(record, slot, memory.hot));
        let may_answer = self.may_answer();
        let Some(number) = number else {
            // One that was removed here carries nothing here any more, and its numbers stay with its key (F19).
            let tombstone =
                self.sas.tombstone(&record.key).filter(|_| !mutant::is(Mutant::TombstoneForgotten));
            let verdict = match tombstone.and_then(|slot| tandem_lease::merge(record, slot, memory.hot)) {
                Some(_) => Verdict::Merged,
                None => Verdict::Unknown,
            };
            self.counts.unknown += u64::from(verdict == Verdict::Unknown);
            if may_answer {
                self.answers.push_back(Acknowledgement { key: record.key, version, verdict });
            }
            return;
        };
        self.counts.merged += 1;
        self.sas.follow(&record.key, record.packets, now);
        if let Some((slot, true)) = known {
            self.sender.install(record.key, slot);
        }
        let answer = self.sas.merged(record.key, version, number, memory.hot, now);
        if may_answer {
            self.answers.extend(answer);
        }
    }

    fn answer(&mut self, answer: &Acknowledgement, memory: Memory<'_>, now: Nanos) {
        let answered = self.sender.acknowledge(answer, memory, now);
        if matches!(answered, Answered::Taken(_)) {
            self.answered_at = now;
        }
        match answered {
            Answered::Taken(0) | Answered::Nothing => {}
            Answered::Taken(lag) => {
                self.recent_lag = lag;
                if self.lag.len() < 4096 {
                    self.lag.push_back(lag);
                }
            }
            Answered::Unknown => self.actions.push_back(Action::Resend(answer.key)),
            Answered::Refused => self.refused(answer.key),
        }
    }

    /// Time has passed. `drained`: every message that had arrived was handed in before (F20); only then does silence
    /// count. To be called at [`Node::poll_timeout`] at the latest, and whenever marks may have been set.
    pub fn handle_timeout(&mut self, drained: bool, memory: Memory<'_>, now: Nanos) {
        let drained = drained || mutant::is(Mutant::AloneBeforeDraining);
        self.run(now, drained);
        let Self { sender, sas, .. } = self;
        sender.collect_each(memory, |way, slot| sas.moved(way, slot, memory.hot, now));
        sender.tick(now, self.config.resend);
        if drained {
            match &self.role {
                Role::Active(_) => self.active_timeout(memory, now),
                Role::Standby(_) => self.standby_timeout(memory, now),
            }
        }
        self.actions.extend(self.sas.next_batch());
    }

    fn run(&mut self, now: Nanos, counts: bool) {
        let before = self.partner.silence;
        self.partner.run(now, 2 * self.config.heartbeat, counts);
        if self.session.is_none() {
            self.session_gone = self.session_gone.saturating_add(self.partner.silence - before);
        }
    }

    /// When [`Node::handle_timeout`] is due.
    #[must_use]
    pub fn poll_timeout(&self) -> Nanos {
        let mut due = self.heartbeat_due;
        if let Some(sender) = self.sender.due(self.config.resend)
            && self.replicates()
        {
            due = due.min(sender);
        }
        if self.config.partner && self.partner.heard {
            let limit =
                if matches!(self.role, Role::Active(_)) { self.config.alone } else { self.config.takeover };
            let silent_for = self.partner.silence.min(self.partner.active_silence);
            if silent_for < limit {
                due = due.min(self.partner.heard_at.saturating_add(limit));
            }
        }
        due
    }

    /// Does this node send records now?
    #[must_use]
    pub fn replicates(&self) -> bool {
        match &self.role {
            Role::Active(active) => !matches!(active.standing, Standing::Alone),
            Role::Standby(standby) => standby.unmerged,
        }
    }

    /// Writes the next message into `buffer` and says over which paths it goes.
    pub fn poll_transmit(&mut self, buffer: &mut Vec<u8>, memory: Memory<'_>, now: Nanos) -> Option<PathSet> {
        if !self.config.partner || self.terms.is_none() {
            // Without a grant it is not known which numbers messages may have.
            let pause = if self.config.partner { self.config.heartbeat } else { LONE_PAUSE };
            self.heartbeat_due = now.saturating_add(pause);
            return None;
        }
        let heartbeat = now >= self.heartbeat_due;
        let records = self.replicates() && self.sender.has_something();
        let news = self.seal_due.is_some() || self.sealed_due.is_some();
        if !heartbeat && !records && !news && self.answers.is_empty() && self.last_answers.is_empty() {
            return None;
        }
        let number = memory.hot.header().message.fetch_add(1, Ordering::AcqRel) + 1;
        self.partner.note_sent(number, now);
        let header = self.header(number, now);
        let mut writer = Writer::new(buffer, &header);
        let mut everywhere = heartbeat || news;
        if let Some((version, incarnation, position)) = self.seal_due.take() {
            writer.seal(version, incarnation, position);
        }
        if let Some(version) = self.sealed_due.take() {
            writer.sealed(version);
        }
        for (answers, last) in [(&mut self.answers, false), (&mut self.last_answers, true)] {
            while answers.front().is_some_and(|answer| writer.acknowledge(answer, last)) {
                answers.pop_front();
            }
            writer.end_section();
        }
        if records {
            self.sender.write(&mut writer, memory, now);
            everywhere |= self.sender.take_again();
        }
        writer.finish();
        if heartbeat {
            self.heartbeat_due = now.saturating_add(self.config.heartbeat);
        }
        Some(if everywhere { self.all_paths() } else { self.preferred_path(now) })
    }

    fn all_paths(&self) -> PathSet {
        ((1u16 << self.config.paths) - 1) as PathSet
    }

    /// The first path that lives, or all of them.
    fn preferred_path(&self, now: Nanos) -> PathSet {
        let lives = |path: &u8| {
            let heard = self.partner.path_heard.get(usize::from(*path)).copied().flatten();
            heard.is_some_and(|at| now.saturating_sub(at) < 3 * self.config.heartbeat)
        };
        (0..self.config.paths).find(lives).map_or(self.all_paths(), |path| 1 << path)
    }

    fn header(&self, number: u64, now: Nanos) -> Header {
        let mut header = Header::new();
        let mut flags = 0;
        let mut set = |flag: u16, on: bool| flags |= if on { flag } else { 0 };
        set(flag::NOT_FORWARDING, !self.sight.forwarding);
        set(flag::SESSION, self.session.is_some());
        set(flag::WARM, self.warm);
        set(flag::ELIGIBLE, self.is_eligible());
        match &self.role {
            Role::Active(active) => {
                set(flag::ACTIVE, true);
                set(flag::LEAVE, self.leave);
                set(flag::HANDOVER, self.switch_over);
                header.term.set(active.term);
                if let Some((version, incarnation)) = active.strict_since() {
                    set(flag::STRICT, true);
                    header.strict_version.set(version);
                    header.strict_incarnation.set(incarnation);
                }
            }
            Role::Standby(standby) => {
                // Also while this node has not heard yet that another one reigns: that one may hear it first.
                set(flag::UNMERGED, standby.unmerged || self.lone_state);
                set(flag::GOODBYE, self.ended != 0);
                set(flag::FRESH, standby.is_fresh(now));
            }
        }
        header.priority = self.config.priority;
        header.flags.set(flags);
        header.segments_alive = self.sight.segments.iter().filter(|s| alive(s, now)).count().min(255) as u8;
        header.state = self.state_number();
        header.number.set(number);
        header.incarnation.set(if self.ended != 0 { self.ended } else { self.incarnation });
        header.reign.set(self.reign);
        header.confirmed_incarnation.set(self.partner.header.incarnation.get());
        header.confirmed_number.set(self.partner.header.number.get());
        header.alone_us.set((self.config.alone / 1000).min(u64::from(u32::MAX)) as u32);
        header
    }

    /// The next thing to be done.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// The next sample of the time from the reading of a record to its acknowledgement.
    pub fn poll_lag(&mut self) -> Option<Nanos> {
        self.lag.pop_front()
    }

    /// Could this node take a term now?
    pub(crate) fn is_eligible(&self) -> bool {
        self.next_term().is_some()
    }

    pub(crate) fn next_term(&self) -> Option<u64> {
        let terms = self.terms.filter(|terms| terms.eligible)?;
        let term = self.config.node.next_above(terms.taken.max(self.reign).max(self.least_term)).ok()?;
        (term <= terms.reserved).then_some(term)
    }

    /// Sets the word by which workers handle traffic, in a generation of its own.
    pub(crate) fn set_handling(&mut self, handling: Handling, memory: Memory<'_>) -> u64 {
        self.generation += 1;
        let word = handling.word(self.generation);
        memory.hot.header().handling.store(word, Ordering::Release);
        self.actions.push_back(Action::Handling { word });
        word
    }

    pub(crate) fn history(&mut self, step: &'static str, text: impl Into<String>) {
        self.actions.push_back(Action::History { step, text: text.into() });
    }

    /// Does every segment show carrier and witness now?
    pub(crate) fn sees_all(&self, now: Nanos) -> bool {
        mutant::is(Mutant::NoWitness) || self.sight.segments.iter().all(|segment| alive(segment, now))
    }

    /// Does every segment show carrier, and a witness that answered since the partner was last heard (F25)?
    pub(crate) fn sees_all_since_silence(&self, now: Nanos) -> bool {
        let since = self.partner.heard_at;
        let shows = |segment: &Segment| {
            let answered = if self.partner.heard {
                // What came in together with its last message, or before, says nothing of the time after.
                segment.witness_seen.is_some_and(|seen| seen > since)
            } else {
                alive(segment, now)
            };
            segment.up && (!segment.has_witness || answered)
        };
        mutant::is(Mutant::NoWitness) || self.sight.segments.iter().all(shows)
    }

    /// What this node does from now on, the partner knows, or does not (F28). It outlives the process.
    pub(crate) fn set_lone(&mut self, lone: bool, memory: Memory<'_>) {
        self.lone_state = lone;
        memory.hot.header().lone.store(u64::from(lone), Ordering::Release);
    }

    /// Has all witnesses asked, once in a while.
    pub(crate) fn probe(&mut self, now: Nanos) {
        if now >= self.probe_due {
            self.probe_due = now.saturating_add(20 * crate::input::MS);
            self.actions.push_back(Action::Probe);
        }
    }

    /// Keys of SAs that are held.
    pub fn held(&self) -> impl Iterator<Item = SaKey> {
        self.sas.entries().filter(|entry| entry.held).map(|entry| entry.sa.key)
    }
}

/// Does a segment live?
pub(crate) fn alive(segment: &Segment, now: Nanos) -> bool {
    let witnessed = segment.witness_seen.is_some_and(|seen| now.saturating_sub(seen) <= WITNESS_AGE);
    segment.up && (!segment.has_witness || witnessed)
}

//! This node as a member of its pair: the machine, its paths, and what waits to be done for it.

use super::clock;
use super::command::Numbers;
use super::command::Verdict;
use super::outbox::{Outbox, Outward};
use super::paths::Paths;
use super::segments::Segments;
use super::workers::Workers;
use hdrhistogram::Histogram;
use tandem_api::pair::{EpochKey, Event, Grant, HistoryEntry, LagHistogram, PairSettings, SessionNews};
use tandem_api::types::Direction;
use tandem_lease::NodeNumber;
use tandem_shm::HotHeader;
use tandem_takeover::{Action, Config, Input, MESSAGE_MAX, MS, Memory, Nanos, Node, Way};

/// Between two rounds of replication while SAs change.
pub const ROUND: Nanos = 50_000;
/// The same for a node that nobody listens to: only reservations on disk depend on it (F40).
const LONE_ROUND: Nanos = MS;
/// Longest rest after a long round: heartbeats must not wait for it.
const REST_MAX: Nanos = MS;
/// Between two looks whether the workers have followed a handling word.
const FOLLOW: Nanos = 50_000;
/// Messages that are sent in one turn, at most; the machine makes them as fast as they are taken.
const SEND_MAX: usize = 256;
/// Longest lag that is told apart from longer ones, in microseconds.
const LAG_MAX: u64 = 60_000_000;
/// How often a node without partner looks at what it sees.
const CALM: Nanos = 100 * MS;

/// The machine and what belongs to it.
pub struct Member {
    /// What holds of node and partner.
    pub settings: PairSettings,
    /// The machine.
    pub node: Node,
    /// Ways to the partner; none where there is no partner.
    pub paths: Paths,
    outbox: Outbox,
    numbers: Numbers,
    message: Vec<u8>,
    /// Handling word that the workers are to follow.
    following: Option<u64>,
    /// When it was last looked whether they have.
    followed: Nanos,
    /// Between two reports of what this node sees.
    sight_every: Nanos,
    next_sight: Nanos,
    /// The machine takes the marks not before this time.
    next_round: Nanos,
    /// It took them in this turn.
    rounded: bool,
    /// Messages wait that found no room in the last turn.
    sending: bool,
    lag: Histogram<u64>,
}

/// Settings as the machine takes them.
///
/// # Errors
/// If no node has that number.
pub fn config(settings: &PairSettings) -> Result<Config, String> {
    let number = settings.node;
    let node = NodeNumber::from_number(number).ok_or(format!("node {number}: a pair has nodes 0 and 1"))?;
    let Some(partner) = &settings.partner else {
        return Ok(Config { partner: false, heartbeat: CALM, ..Config::new(node, 0) });
    };
    let micros = |us: u32| Nanos::from(us) * 1000;
    Ok(Config {
        priority: partner.priority,
        heartbeat: micros(partner.timings.heartbeat_us),
        takeover: micros(partner.timings.takeover_us),
        alone: micros(partner.timings.alone_us),
        cold_wait: Nanos::from(partner.timings.cold_wait_ms) * MS,
        ..Config::new(node, partner.paths.len() as u8)
    })
}

impl Member {
    /// A member that has just started; `warm`: its hot state was in memory before.
    ///
    /// # Errors
    /// If the settings make no sense.
    pub fn new(
        settings: PairSettings,
        numbers: Numbers,
        outbox: Outbox,
        warm: bool,
        memory: Memory<'_>,
        now: Nanos,
    ) -> Result<Self, String> {
        let config = config(&settings)?;
        let paths = settings.partner.as_ref().map_or(&[][..], |partner| &partner.paths);
        // The machine wants to hear at least every heartbeat.
        let sight_every = if config.partner { config.heartbeat / 2 } else { CALM };
        let mut node = Node::new(config, warm, now);
        if warm {
            node.adopt(memory);
        }
        Ok(Self {
            paths: Paths::new(settings.node, paths, now),
            node,
            settings,
            outbox,
            numbers,
            message: Vec::with_capacity(MESSAGE_MAX),
            following: None,
            followed: 0,
            sight_every,
            next_sight: now,
            next_round: 0,
            rounded: false,
            sending: false,
            lag: Histogram::new_with_bounds(1, LAG_MAX, 3).map_err(|error| error.to_string())?,
        })
    }

    /// Takes settings that came again: all but the priority must be as before.
    ///
    /// # Errors
    /// What differs.
    pub fn renew(&mut self, settings: PairSettings) -> Verdict {
        let mut as_before = PairSettings { used: self.settings.used, ..settings.clone() };
        let before = self.settings.partner.as_ref();
        if let (Some(new), Some(before)) = (&mut as_before.partner, before) {
            new.priority = before.priority;
        }
        if as_before != self.settings {
            return Err(format!(
                "the data plane runs with other settings of the pair ({}); restart it to change them",
                difference(&self.settings, &as_before)
            ));
        }
        if let Some(partner) = &settings.partner {
            self.node.set_priority(partner.priority);
        }
        self.settings = settings;
        Ok(())
    }

    /// Is there a partner?
    #[must_use]
    pub fn has_partner(&self) -> bool {
        self.settings.partner.is_some()
    }

    /// Takes a grant.
    pub fn grant(&mut self, grant: Grant, memory: Memory<'_>, now: Nanos) {
        let Grant { taken, reserved, reign, incarnation, eligible } = grant;
        self.node.handle(Input::Grant { taken, reserved, reign, incarnation, eligible }, memory, now);
    }

    /// Takes the key of an epoch.
    ///
    /// # Errors
    /// Why not.
    pub fn epoch(&mut self, epoch: &EpochKey) -> Verdict {
        let taken = self.paths.take_epoch(epoch.number, epoch.secret.expose(), epoch.send);
        taken.map_err(|error| error.to_string())
    }

    /// Takes news of the session.
    pub fn session(&mut self, news: SessionNews, memory: Memory<'_>, now: Nanos) {
        let input = match news {
            SessionNews::Up { partner_incarnation } => Input::SessionUp { partner_incarnation },
            SessionNews::Down => Input::SessionDown,
            SessionNews::Quiet { incarnation, position } => Input::Quiet { incarnation, position },
            SessionNews::Applied { incarnation, position, end_of_bulk } => {
                Input::Applied { incarnation, position, end_of_bulk }
            }
        };
        self.node.handle(input, memory, now);
    }

    /// Feeds what arrived; `true` if that was everything, and whether anything came.
    pub fn receive(&mut self, memory: Memory<'_>, now: Nanos) -> (bool, bool) {
        let Self { paths, node, .. } = self;
        let mut any = false;
        let received = paths.receive(now, |path, message| {
            any = true;
            // When it was read, not when the turn began: silence counts from there (F20).
            node.handle_message(path, message, memory, clock::now())
        });
        if received.overheard {
            node.handle(Input::Overheard, memory, now);
        }
        (received.drained, any)
    }

    /// Says what the numbers file holds now; was that anything new?
    pub fn persisted(&mut self, memory: Memory<'_>, now: Nanos) -> bool {
        let Self { numbers, node, .. } = self;
        let written = numbers.persisted.try_iter();
        written.map(|id| node.handle(Input::Persisted { id }, memory, now)).count() > 0
    }

    /// Is there something that nobody has looked at yet?
    #[must_use]
    pub fn is_persisted(&self) -> bool {
        !self.numbers.persisted.is_empty()
    }

    /// Lets the machine look at the time, the workers and the marks. `drained`: all that had arrived was fed before.
    pub fn look(
        &mut self,
        drained: bool,
        segments: &Segments,
        workers: &mut Workers,
        memory: Memory<'_>,
        now: Nanos,
    ) {
        if now >= self.next_sight {
            let sight = segments.sight(workers.are_forwarding(now));
            self.node.handle(Input::Sight(sight), memory, now);
            self.next_sight = now + self.sight_every;
        }
        self.followed = now;
        if let Some(word) = self.following.filter(|word| workers.have_passed(*word)) {
            self.following = None;
            self.node.handle(Input::WorkersPassed { word }, memory, now);
        }
        let marked = memory.inbound.any() || memory.outbound.any();
        let due = marked || now >= self.node.poll_timeout();
        if due && now >= self.next_round {
            self.node.handle_timeout(drained, memory, now);
            self.next_round = now + self.round();
            self.rounded = true;
        }
    }

    /// A turn is over that began at `began`. A round costs the core no more than a third of its time: the kernel stops
    /// real-time threads that take it all for longer (`sched_rt_runtime_us`) than a standby waits.
    pub fn rest(&mut self, began: Nanos, now: Nanos) {
        if std::mem::take(&mut self.rounded) {
            let rest = 2 * now.saturating_sub(began);
            self.next_round = self.next_round.max(now + rest.min(REST_MAX));
        }
    }

    /// What the machine sees has changed: it is told at the next look.
    pub fn look_again(&mut self) {
        self.next_sight = 0;
    }

    /// Sends what the machine has to say.
    pub fn transmit(&mut self, header: &HotHeader, memory: Memory<'_>, now: Nanos) {
        let mut sent = 0;
        self.message.clear();
        while sent < SEND_MAX
            && let Some(set) = self.node.poll_transmit(&mut self.message, memory, now)
        {
            self.paths.send(set, &self.message, header);
            self.message.clear();
            sent += 1;
        }
        self.sending = sent == SEND_MAX;
        while let Some(lag) = self.node.poll_lag() {
            self.lag.saturating_record(lag.div_ceil(1000));
        }
        for text in self.paths.warnings() {
            self.outbox.put(Outward::Warning(text));
        }
    }

    /// Does what the machine wants done.
    pub fn act(&mut self, segments: &mut Segments, workers: &Workers, now: Nanos) {
        while let Some(action) = self.node.poll_action() {
            match action {
                Action::Role { active } => {
                    segments.switch(active);
                    if active {
                        segments.announce(now);
                    }
                    workers.wake();
                }
                Action::Handling { word } => {
                    self.following = Some(word);
                    workers.wake();
                }
                Action::Announce => segments.announce(now),
                Action::Probe => segments.probe(now),
                Action::Persist { id, entries } => self.numbers.keeper.persist(id, entries),
                Action::NeedGrant { incarnation } => self.tell(Event::NeedGrant { incarnation }),
                Action::Reign { term, own } => self.tell(Event::Reign { term, own }),
                Action::Joining { incarnation } => self.tell(Event::Joining { incarnation }),
                Action::Resend(key) => {
                    let direction = match key.way {
                        Way::In => Direction::Inbound,
                        Way::Out => Direction::Outbound,
                    };
                    self.tell(Event::Resend { direction, spi: key.spi });
                }
                Action::History { step, text } => {
                    let entry = HistoryEntry { unix_us: clock::unix_us(), step: step.to_owned(), text };
                    self.tell(Event::History(entry));
                }
            }
        }
    }

    fn tell(&self, event: Event) {
        self.outbox.put(Outward::Event(event));
    }

    /// When something is due next; `marks`: marks count as work.
    #[must_use]
    pub fn next(&self, marked: bool) -> Nanos {
        if self.sending {
            return 0;
        }
        let mut next = self.node.poll_timeout();
        if marked {
            next = 0;
        }
        // However much is due: the machine is not asked more often than that, unless something arrives.
        next = next.max(self.next_round).min(self.next_sight);
        if self.following.is_some() {
            next = next.min(self.followed + FOLLOW);
        }
        next.min(self.paths.next().unwrap_or(Nanos::MAX))
    }

    /// Least time between two looks at the marks: short where packets wait for a record.
    fn round(&self) -> Nanos {
        if self.node.replicates() { ROUND } else { LONE_ROUND }
    }

    /// Has the roles changed, if the change would be fresh now (F30). That it has happened is seen in the history.
    ///
    /// # Errors
    /// Why it would not be.
    pub fn switch_over(&mut self, memory: Memory<'_>, now: Nanos) -> Verdict {
        let status = self.node.status(memory, now);
        let ready = if status.active { status.state == "strict" } else { status.fresh_for > 0 };
        if !ready {
            return Err(format!(
                "roles are not changed, because a takeover would not be fresh now: this node is {} ({}); {}",
                if status.active { "active" } else { "standby" },
                status.state,
                status.not_promised.join("; ")
            ));
        }
        self.node.handle(Input::SwitchOver, memory, now);
        Ok(())
    }

    /// The distribution of the time from the opening of a record to its acknowledgement, in microseconds.
    #[must_use]
    pub fn lag(&self) -> LagHistogram {
        let at = |quantile| self.lag.value_at_quantile(quantile);
        LagHistogram {
            count: self.lag.len(),
            p50_us: at(0.5),
            p90_us: at(0.9),
            p99_us: at(0.99),
            p999_us: at(0.999),
            max_us: self.lag.max(),
        }
    }
}

/// Names what differs.
fn difference(now: &PairSettings, wanted: &PairSettings) -> String {
    let mut names = Vec::new();
    let mut compare = |name: &'static str, equal: bool| {
        if !equal {
            names.push(name);
        }
    };
    compare("the node's number", now.node == wanted.node);
    compare("the numbers file", now.numbers_file == wanted.numbers_file);
    compare("the id of the term file", now.file_id == wanted.file_id);
    match (&now.partner, &wanted.partner) {
        (Some(now), Some(wanted)) => {
            compare("paths", now.paths == wanted.paths);
            compare("timings", now.timings == wanted.timings);
        }
        (None, None) => {}
        _ => compare("whether there is a partner", false),
    }
    names.join(", ")
}

//! The world of a run: everything in it, and the loop that lets things happen.

use super::attacker::Attacker;
use super::check::{Checker, Sight};
use super::control::Session;
use super::directed::Directed;
use super::disk::Disk;
use super::faults::{Crash, Death, Fault};
use super::net::{Datagram, Net};
use super::node::{Clock, Host, SaDefinition};
use super::peer::Peer;
use super::queue::{MS, Queue, Time, US};
use super::rng::Rng;
use super::story::Story;
use super::worker::Esp;
use tandem_lease::NodeNumber;
use tandem_lease::mutant::{self, Mutant};
use tandem_takeover::{Config, Input, SaKey, Stale, Way};

/// Names of the nodes in a story.
pub const NAMES: [&str; 2] = ["node-0", "node-1"];

/// Something that happens.
#[derive(Debug)]
pub enum Event {
    /// A pair thread runs.
    Pair { node: usize, life: u32 },
    /// The next step of a worker.
    Worker { node: usize, life: u32, worker: usize },
    /// A datagram of the partner arrives, or one that the attacker sent again.
    Datagram { node: usize, datagram: Datagram },
    /// An ESP packet arrives; `None`: wherever the virtual address is.
    Esp { node: Option<usize>, packet: Esp },
    /// The peer sends.
    Peer,
    /// Inside hosts send.
    Inside,
    /// The attacker acts.
    Attack,
    /// A write of the term file ends.
    TermsWritten { node: usize, life: u32 },
    /// A write of the numbers file ends.
    NumbersWritten { node: usize, life: u32 },
    /// Control hears its data plane.
    ToControl { node: usize, life: u32, action: tandem_takeover::Action },
    /// A message of the session arrives.
    Stream { to: usize, session: u64 },
    /// The session is looked after.
    Session,
    /// A node learns that its session is gone.
    SessionLost { node: usize, id: u64 },
    /// State of control changes, where it is active.
    Content,
    /// Something goes wrong.
    Fault(Fault),
    /// The next step of a directed schedule.
    Directed,
    /// A process comes back.
    StartControl { node: usize },
    /// A process comes back.
    StartData { node: usize },
    /// The operator puts an SA into a node's configuration, or takes it out.
    Configure { node: usize, sa: usize, there: bool },
}

/// Everything in a run.
#[derive(Debug)]
pub struct World {
    /// Now.
    pub now: Time,
    /// All chance comes from here.
    pub rng: Rng,
    /// What is to come.
    pub queue: Queue<Event>,
    /// The pair.
    pub nodes: [Host; 2],
    /// What joins it.
    pub net: Net,
    /// The remote gateway and the hosts inside.
    pub peer: Peer,
    /// Who replays all that it saw.
    pub attacker: Attacker,
    /// Who judges.
    pub check: Checker,
    /// Who tells.
    pub story: Story,
    /// The SSP session, if there is one.
    pub session: Option<Session>,
    /// Sessions so far.
    pub sessions: u64,
    /// Epochs so far.
    pub epochs: u32,
    /// Static SAs.
    pub definitions: Vec<SaDefinition>,
    /// A crash after so many steps of a node.
    pub crash: Option<Crash>,
    /// One that waits for the next join.
    pub crash_at_join: Option<(u32, Death)>,
    /// The moment that is played, where the faults are not drawn.
    pub directed: Option<Directed>,
    /// When each node last took in a message of the other.
    pub last_heard: [Time; 2],
    /// Node that announced the virtual address last.
    pub virtual_at: Option<usize>,
    /// What each node said of its last takeover.
    pub claims: [bool; 2],
    /// Faults may still happen.
    pub rough: bool,
    /// Writes of numbers are serial.
    pub numbers_written: [Time; 2],
}

impl World {
    /// The world of a seed, before anything runs.
    #[must_use]
    pub fn new(seed: u64, told: bool) -> Self {
        let mut rng = Rng::new(seed);
        let net = Net::new(&mut rng);
        let numbers = [NodeNumber::Zero, NodeNumber::One];
        // Almost all pairs are in service; in a few, both nodes are new.
        let in_service = !rng.chance(100);
        let nodes = std::array::from_fn(|node| Host {
            clock: Clock {
                offset: rng.between(1, 1000) * MS * 1000,
                fast: rng.between(0, 20_000) as i64 - 10_000,
            },
            disk: used_disk(&mut rng, numbers[node], in_service),
            hot: None,
            data: None,
            control: None,
            data_life: 0,
            control_life: 0,
            paused_until: 0,
            deaf_until: 0,
            content: 0,
            content_at_strict: 0,
        });
        let definitions = (0..4)
            .map(|index| SaDefinition {
                key: SaKey {
                    way: if index % 2 == 0 { Way::In } else { Way::Out },
                    spi: 0x1000 + index,
                    fingerprint: 0xf1f1_0000 + u64::from(index),
                },
                stale: if rng.chance(850) { Stale::Jump } else { Stale::Hold },
                configured: [true; 2],
                new: !in_service,
            })
            .collect();
        let peer = Peer::new(&mut rng);
        Self {
            now: 0,
            rng,
            queue: Queue::new(),
            nodes,
            net,
            peer,
            attacker: Attacker::default(),
            check: Checker::new(40 * MS),
            story: Story::new(told),
            session: None,
            sessions: 0,
            epochs: 0,
            definitions,
            crash: None,
            crash_at_join: None,
            directed: None,
            last_heard: [0; 2],
            virtual_at: None,
            claims: [false; 2],
            rough: true,
            numbers_written: [0; 2],
        }
    }

    /// How a node is configured; times are shorter than the defaults where only waiting would be simulated.
    #[must_use]
    pub fn config(&self, node: usize) -> Config {
        let number = if node == 0 { NodeNumber::Zero } else { NodeNumber::One };
        let mut config = Config::new(number, self.net.paths as u8);
        config.priority = if node == 0 { 100 } else { 110 };
        config.cold_wait = 60 * MS;
        config.grace = 40 * MS;
        config.rejoin = 8 * MS;
        config.rejoin_max = 40 * MS;
        if mutant::is(Mutant::AloneShorterThanTakeover) {
            config.alone = 6 * MS;
        }
        config
    }

    /// Lets everything happen that is due before `end`, or until a rule is broken.
    pub fn run_until(&mut self, end: Time) {
        while self.check.broken.is_none() {
            let Some((at, event)) = self.queue.take(end) else {
                self.now = end;
                return;
            };
            self.now = at;
            self.check.now = at;
            self.happen(event);
        }
    }

    /// The node whose own processes an event needs.
    fn needs(event: &Event) -> Option<usize> {
        match event {
            Event::Pair { node, .. }
            | Event::Worker { node, .. }
            | Event::TermsWritten { node, .. }
            | Event::NumbersWritten { node, .. }
            | Event::ToControl { node, .. }
            | Event::SessionLost { node, .. }
            | Event::StartControl { node }
            | Event::StartData { node }
            | Event::Configure { node, .. } => Some(*node),
            Event::Stream { to, .. } => Some(*to),
            _ => None,
        }
    }

    /// A node that stands still does it later.
    fn defer(&mut self, until: Time, event: Event) {
        if let Some(data) = Self::needs(&event).and_then(|node| self.nodes[node].data.as_mut()) {
            match event {
                Event::Pair { .. } if data.due == Some(self.now) => data.due = Some(until),
                Event::Worker { worker, .. } if data.workers[worker].due == Some(self.now) => {
                    data.workers[worker].due = Some(until);
                }
                Event::Pair { .. } | Event::Worker { .. } => return,
                _ => {}
            }
        }
        self.queue.put(until, event);
    }

    fn happen(&mut self, event: Event) {
        if let Some(node) = Self::needs(&event) {
            let until = self.nodes[node].paused_until;
            if until > self.now {
                return self.defer(until, event);
            }
        }
        match event {
            Event::Pair { node, life } => {
                if self.nodes[node].data_life == life
                    && self.nodes[node].data.as_ref().is_some_and(|data| data.due == Some(self.now))
                {
                    self.pair_thread(node);
                }
            }
            Event::Worker { node, life, worker } => {
                if self.nodes[node].data_life == life {
                    self.worker(node, worker);
                }
            }
            Event::Datagram { node, datagram } => self.datagram_arrives(node, datagram),
            Event::Esp { node, packet } => self.esp_arrives(node, packet),
            Event::Peer => self.peer_sends(),
            Event::Inside => self.inside_sends(),
            Event::Attack => self.attack(),
            Event::TermsWritten { node, life } => {
                if self.nodes[node].control_life == life && self.nodes[node].control.is_some() {
                    self.terms_written(node);
                    self.step(node);
                }
            }
            Event::NumbersWritten { node, life } => {
                if self.nodes[node].data_life == life
                    && self.nodes[node].data.is_some()
                    && let Some(id) = self.nodes[node].disk.numbers_done()
                {
                    self.input(node, Input::Persisted { id });
                }
            }
            Event::ToControl { node, life, action } => {
                if self.nodes[node].control_life == life && self.nodes[node].control.is_some() {
                    self.control_hears(node, action);
                }
            }
            Event::Stream { to, session } => self.stream(to, session),
            Event::Session => self.look_at_session(),
            Event::SessionLost { node, id } => self.session_lost(node, id),
            Event::Content => self.content_changes(),
            Event::Fault(fault) => {
                if self.rough {
                    self.fault(fault);
                }
            }
            Event::Directed => self.directed_step(),
            Event::StartControl { node } => self.start_control(node),
            Event::StartData { node } => self.start_data(node),
            Event::Configure { node, sa, there } => self.configure(node, sa, there),
        }
    }

    fn content_changes(&mut self) {
        let after = self.rng.between(5 * MS, 40 * MS);
        self.queue.put(self.now + after, Event::Content);
        for node in 0..2 {
            if self.active(node) && self.nodes[node].control.is_some() {
                self.nodes[node].content += 1;
                self.content(node, false);
            }
        }
    }

    /// Something for the pair thread, which wakes up for it.
    pub fn input(&mut self, node: usize, input: Input) {
        if let Some(data) = &mut self.nodes[node].data {
            data.inputs.push_back(input);
            let after = self.rng.between(5 * US, 60 * US);
            self.wake_pair(node, self.now + after);
        }
    }

    /// The pair thread runs then, or earlier if it would anyway.
    pub fn wake_pair(&mut self, node: usize, at: Time) {
        let host = &mut self.nodes[node];
        let at = at.max(host.deaf_until).max(self.now);
        let life = host.data_life;
        let Some(data) = &mut host.data else { return };
        if data.due.is_none_or(|due| due > at) {
            data.due = Some(at);
            self.queue.put(at, Event::Pair { node, life });
        }
    }

    /// A worker makes its next step then, or earlier if it would anyway.
    pub fn wake_worker(&mut self, node: usize, worker: usize, at: Time) {
        let slow = self.slow_workers();
        let host = &mut self.nodes[node];
        let life = host.data_life;
        let Some(worker_of) = host.data.as_mut().and_then(|data| data.workers.get_mut(worker)) else {
            return;
        };
        // In the middle of a round, a slow one stays slow, whatever else comes.
        let stays = slow && worker_of.due.is_some() && !worker_of.between_rounds();
        if !stays && worker_of.due.is_none_or(|due| due > at) {
            worker_of.due = Some(at);
            self.queue.put(at, Event::Worker { node, life, worker });
        }
    }

    /// The checkers see both nodes.
    pub fn observe(&mut self) {
        let sight = std::array::from_fn(|node| self.sight(node));
        let before = self.check.counts;
        let were = self.check.active();
        self.check.see(self.now, sight, self.claims);
        let after = self.check.counts;
        if after.fresh + after.stale > before.fresh + before.stale {
            self.attack_soon();
        }
        if after.fresh + after.stale > before.fresh + before.stale {
            self.check_witness(were);
        }
        if after.fresh > before.fresh {
            self.check_content();
        }
        if after.splits > before.splits {
            self.story.tell(self.now, "check", || {
                "both are active without a path: each answers for itself".to_owned()
            });
        }
    }

    /// A node that hears its partner on no path takes over only where each segment has shown its witness since (F25).
    fn check_witness(&mut self, were: [bool; 2]) {
        for (node, was) in were.into_iter().enumerate() {
            if was || !self.active(node) {
                continue;
            }
            let heard = self.last_heard[node];
            // D_b by its own clock.
            let clock = &self.nodes[node].clock;
            let silent = heard != 0 && clock.read(self.now) >= clock.read(heard) + 10 * MS;
            let dark = |segment: usize| {
                self.net.dark_since(segment, node, self.now).is_some_and(|since| since < heard)
            };
            if let Some(segment) = (0..2).find(|segment| silent && dark(*segment)) {
                let name = ["inside", "outside"][segment];
                self.check.fail(format!(
                    "F25: node {node} took over, heard nobody, and saw no witness on the {name}"
                ));
            }
        }
    }

    /// What control of a synchronized standby must have applied (F18).
    fn check_content(&mut self) {
        for node in 0..2 {
            let (own, partner) = (self.nodes[node].content, self.nodes[1 - node].content_at_strict);
            if self.claims[node] && self.active(node) && own < partner {
                self.check.fail(format!(
                    "F18: node {node} took over as fresh with state {own} of control, its partner was strict with {partner}"
                ));
            }
        }
    }

    /// What anybody can see of a node.
    #[must_use]
    pub fn sight(&self, node: usize) -> Sight {
        super::pair::sight(&self.nodes[node])
    }

    /// Are both nodes as they should be: one active, the other synchronized? The active one.
    #[must_use]
    pub fn healthy(&self) -> Option<usize> {
        let active = (0..2).find(|node| self.active(*node))?;
        let other = 1 - active;
        (!self.active(other)
            && super::pair::synchronized(&self.nodes[other], self.now)
            && self.sight(active).strict)
            .then_some(active)
    }
}

/// A disk that has seen some use: both nodes know each other, and terms were taken.
fn used_disk(rng: &mut Rng, number: NodeNumber, in_service: bool) -> Disk {
    let mut disk = Disk::new(rng, number);
    if in_service {
        let partner = [1 - number.number(); 32];
        if let Ok(Some(file)) = disk.terms.pair(&partner, number, [0, 0]) {
            disk.terms = file;
        }
    }
    disk
}

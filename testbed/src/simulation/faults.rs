//! What goes wrong in a run: drawn from the seed, at chosen moments and after chosen steps.

use super::net::PATHS;
use super::node::SaDefinition;
use super::queue::{MS, Time, US};
use super::rng::Rng;
use super::world::{Event, NAMES, World};
use tandem_takeover::{Input, SaKey, Stale, Way};

/// Most SAs of a run.
const SAS_MAX: usize = 8;

/// How a node dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Death {
    /// The data plane; control keeps its memory.
    Data,
    /// The data plane, and its memory with it.
    DataAndMemory,
    /// Control alone.
    Control,
    /// The machine.
    Machine,
    /// The machine, and its disk with it.
    MachineAndDisk,
}

/// Something that goes wrong, or is wanted by an operator.
#[derive(Clone, Copy, Debug)]
pub enum Fault {
    /// A death, now.
    Die(usize, Death),
    /// A death after so many steps of the node.
    DieAfter(usize, u32, Death),
    /// A death so many steps after the active node begins to handle strictly for a joining standby.
    DieAtJoin(u32, Death),
    /// The partner's messages stop arriving at a node; later, just about when it goes alone, its own ones too.
    Fade(usize, Time),
    /// A node stands still: suspended, or starved.
    Pause(usize, Time),
    /// Its pair thread alone.
    Deaf(usize, Time),
    /// A path is cut in the direction from a node.
    Cut(usize, usize, Time),
    /// All paths are cut, in one direction or both.
    Partition(Option<usize>, Time),
    /// A carrier is gone.
    Link(usize, usize, Time),
    /// A witness is silent.
    Witness(usize, Time),
    /// An operator wants the roles changed.
    SwitchOver(usize),
    /// An SA is removed and installed again, as by a reload.
    Reload(usize, u64),
    /// An operator adds an SA to both configurations, one after the other.
    Add(Time),
    /// An operator removes one.
    Remove(u64, Time),
    /// The session breaks.
    Session,
}

/// A death that waits for a step.
#[derive(Clone, Copy, Debug)]
pub struct Crash {
    node: usize,
    steps: u32,
    death: Death,
}

/// What goes wrong in a run, in order of time.
pub fn plan(rng: &mut Rng, from: Time, to: Time) -> Vec<(Time, Fault)> {
    let count = rng.below(7);
    // One disk at most: with both gone, an operator must act.
    let mut disk = rng.chance(100);
    let mut list = Vec::new();
    for _ in 0..count {
        let node = rng.below(2) as usize;
        let long = |rng: &mut Rng| rng.between(3, 90) * MS;
        let death = |rng: &mut Rng, disk: &mut bool| match rng.below(10) {
            0..=2 => Death::Data,
            3..=5 => Death::DataAndMemory,
            6 => Death::Control,
            _ if std::mem::take(disk) => Death::MachineAndDisk,
            _ => Death::Machine,
        };
        let fault = match rng.below(100) {
            0..=14 => Fault::Die(node, death(rng, &mut disk)),
            15..=24 => Fault::DieAtJoin(rng.below(40) as u32, death(rng, &mut disk)),
            25..=39 => Fault::DieAfter(node, rng.below(60) as u32, death(rng, &mut disk)),
            40..=47 => Fault::Pause(node, long(rng)),
            48..=50 => Fault::Deaf(node, long(rng)),
            51..=53 => Fault::Fade(node, rng.between(20, 45) * MS),
            54..=58 => Fault::Cut(rng.below(PATHS as u64) as usize, node, long(rng)),
            59..=73 => Fault::Partition(rng.chance(300).then_some(node), long(rng)),
            74..=80 => Fault::Link(rng.below(2) as usize, node, long(rng)),
            81..=83 => Fault::Witness(rng.below(2) as usize, long(rng)),
            84..=87 => Fault::SwitchOver(node),
            88..=91 => Fault::Reload(node, rng.next()),
            92..=94 => Fault::Add(rng.between(1, 20) * MS),
            95..=96 => Fault::Remove(rng.next(), rng.between(1, 20) * MS),
            _ => Fault::Session,
        };
        list.push((rng.between(from, to), fault));
    }
    list
}

impl World {
    /// The active node handles strictly for a joining standby.
    pub fn joins(&mut self, node: usize) {
        if let Some((steps, death)) = self.crash_at_join.take() {
            self.crash = Some(Crash { node, steps, death });
        }
    }

    /// A node dies after the step that it makes now.
    pub fn dies_now(&mut self, node: usize, death: Death) {
        self.crash = Some(Crash { node, steps: 0, death });
    }

    /// A node has made a step, after which it may die. False if its data plane is gone.
    pub fn step(&mut self, node: usize) -> bool {
        if let Some(crash) = &mut self.crash
            && crash.node == node
        {
            if crash.steps > 0 {
                crash.steps -= 1;
            } else {
                let death = crash.death;
                self.crash = None;
                self.die(node, death);
            }
        }
        self.nodes[node].data.is_some()
    }

    /// A node, or a part of it, dies; what died starts again after a while.
    pub fn die(&mut self, node: usize, death: Death) {
        let now = self.now;
        self.story.tell(now, "fault", || format!("{}: {death:?}", NAMES[node]));
        let soon = now + self.rng.between(2, 70) * MS;
        match death {
            Death::Data => self.kill_data(node, true),
            Death::DataAndMemory => self.kill_data(node, false),
            Death::Control => self.kill_control(node),
            Death::Machine | Death::MachineAndDisk => {
                self.kill_data(node, false);
                self.kill_control(node);
                self.lose_memory(node);
                self.nodes[node].content = 0;
                if death == Death::MachineAndDisk {
                    self.nodes[node].disk.lose(&mut self.rng);
                    self.check.lost_disk(node);
                }
            }
        }
        match death {
            Death::Data | Death::DataAndMemory => self.queue.put(soon, Event::StartData { node }),
            _ => self.queue.put(soon, Event::StartControl { node }),
        }
    }

    /// A node dies and stays down.
    pub fn die_for_good(&mut self, node: usize, death: Death) {
        self.story.tell(self.now, "fault", || format!("{}: {death:?}, for good", NAMES[node]));
        self.kill_data(node, false);
        if death == Death::Machine {
            self.kill_control(node);
            self.nodes[node].content = 0;
        }
    }

    /// Something goes wrong.
    pub fn fault(&mut self, fault: Fault) {
        let now = self.now;
        if !matches!(fault, Fault::Die(..)) {
            self.story.tell(now, "fault", || format!("{fault:?}"));
        }
        match fault {
            Fault::Die(node, death) => self.die(node, death),
            Fault::DieAfter(node, steps, death) => self.crash = Some(Crash { node, steps, death }),
            Fault::DieAtJoin(steps, death) => self.crash_at_join = Some((steps, death)),
            Fault::Fade(node, after) => {
                for path in 0..PATHS {
                    self.net.cut(path, 1 - node, now + after + 40 * MS);
                }
                self.queue.put(now + after, Event::Fault(Fault::Partition(None, 40 * MS)));
            }
            Fault::Pause(node, long) => self.nodes[node].paused_until = now + long,
            Fault::Deaf(node, long) => self.nodes[node].deaf_until = now + long,
            Fault::Cut(path, from, long) => self.net.cut(path, from, now + long),
            Fault::Partition(from, long) => {
                for path in 0..PATHS {
                    for node in (0..2).filter(|node| from.is_none_or(|from| from == *node)) {
                        self.net.cut(path, node, now + long);
                    }
                }
            }
            Fault::Link(segment, node, long) => self.net.pull(segment, node, now, now + long),
            Fault::Witness(segment, long) => self.net.silence(segment, now, now + long),
            Fault::SwitchOver(node) => self.input(node, Input::SwitchOver),
            Fault::Reload(node, which) => {
                let those: Vec<usize> = (0..self.definitions.len())
                    .filter(|index| self.definitions[*index].configured[node])
                    .collect();
                if let Some(index) = those.get(which as usize % those.len().max(1)).copied() {
                    self.remove(node, self.definitions[index].key);
                    self.install(node, index);
                }
            }
            Fault::Add(later) => {
                let index = self.definitions.len();
                if index >= SAS_MAX {
                    return;
                }
                self.definitions.push(SaDefinition {
                    key: SaKey {
                        way: if index.is_multiple_of(2) { Way::In } else { Way::Out },
                        spi: 0x1000 + index as u32,
                        fingerprint: 0xf1f1_0000 + index as u64,
                    },
                    stale: Stale::Jump,
                    configured: [false; 2],
                    new: true,
                });
                let first = self.rng.below(2) as usize;
                self.queue.put(now, Event::Configure { node: first, sa: index, there: true });
                self.queue.put(now + later, Event::Configure { node: 1 - first, sa: index, there: true });
            }
            Fault::Remove(which, later) => {
                // The first four stay: they carry the traffic that is looked for in the end.
                let index = 4 + which as usize % (SAS_MAX - 4);
                if self.definitions.get(index).is_some_and(|definition| definition.configured == [true; 2]) {
                    let first = self.rng.below(2) as usize;
                    self.queue.put(now, Event::Configure { node: first, sa: index, there: false });
                    self.queue
                        .put(now + later, Event::Configure { node: 1 - first, sa: index, there: false });
                }
            }
            Fault::Session => self.break_session(),
        }
    }

    /// An operator changes the configuration of a node; two that differ have no session.
    pub fn configure(&mut self, node: usize, sa: usize, there: bool) {
        self.definitions[sa].configured[node] = there;
        let [one, two] = self.definitions[sa].configured;
        if there {
            self.install(node, sa);
        } else {
            self.remove(node, self.definitions[sa].key);
        }
        if one != two {
            self.break_session();
        }
    }

    /// Nothing goes wrong any more, and everything that is down starts.
    pub fn heal(&mut self) {
        let loss = if self.rng.chance(500) { 0 } else { self.rng.below(20) };
        self.story
            .tell(self.now, "world", || format!("heals; {loss} of 1000 datagrams are lost from now on"));
        self.rough = false;
        (self.crash, self.crash_at_join, self.directed) = (None, None, None);
        self.net.heal(loss);
        for node in 0..2 {
            self.nodes[node].paused_until = self.nodes[node].paused_until.min(self.now);
            self.nodes[node].deaf_until = self.nodes[node].deaf_until.min(self.now);
            self.start_again(node);
        }
    }

    /// What is down of a node starts soon.
    pub fn start_again(&mut self, node: usize) {
        let soon = self.now + self.rng.between(200, 5000) * US;
        self.queue.put(soon, Event::StartControl { node });
        self.queue.put(soon + 100 * US, Event::StartData { node });
    }
}

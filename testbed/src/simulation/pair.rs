//! The pair thread of a data plane: what it feeds to the machine, and what it does for it.

use super::check::Sight;
use super::disk::Write;
use super::net::{Datagram, INSIDE, OUTSIDE};
use super::node::{Data, Host, RECEIVE_MAX, SLOTS, WORKERS, bind, counter_from_zero, touched};
use super::queue::{MS, Time, US};
use super::worker::{Effect, Worker};
use super::world::{Event, NAMES, World};
use std::rc::Rc;
use std::sync::atomic::Ordering;
use tandem_lease::message::{self, flag};
use tandem_lease::mutant::{self, Mutant};
use tandem_shm::{Handling, HotState, Marks, ROLE_ACTIVE};
use tandem_takeover::{Action, Input, Known, Memory, Node, Sa, SaKey, Segment, Status, Way};

/// Datagrams read before the machine is asked what time means for it.
const RECEIVE_AT_ONCE: usize = 24;
/// Between two questions to a witness.
const WITNESS_PACE: Time = 5 * MS;

impl World {
    /// A data plane starts, with the memory that control has kept or with new one.
    pub fn start_data(&mut self, node: usize) {
        let now = self.now;
        if self.nodes[node].data.is_some() || self.nodes[node].control.is_none() {
            return;
        }
        let warm = self.nodes[node].hot.is_some();
        if !warm {
            match HotState::create(SLOTS) {
                Ok(hot) => self.nodes[node].hot = Some(hot),
                Err(error) => return self.check.fail(format!("no hot state: {error}")),
            }
        }
        let config = self.config(node);
        let host = &mut self.nodes[node];
        let local = host.clock.read(now);
        host.data_life += 1;
        host.data = Some(Data {
            machine: Node::new(config, warm, local),
            inbound: Marks::new(SLOTS),
            outbound: Marks::new(SLOTS),
            workers: (0..WORKERS).map(|_| Worker::default()).collect(),
            receive: Default::default(),
            inputs: Default::default(),
            keys: Default::default(),
            slots: Vec::new(),
            due: None,
            wanted: None,
            witness: [None; 2],
            witness_due: 0,
            looked: 0,
            need_grant: None,
            reign: None,
            joining: None,
        });
        self.story.tell(now, NAMES[node], || {
            format!("data plane starts, {}", if warm { "with its memory" } else { "without memory" })
        });
        if !warm && !mutant::is(Mutant::ReuseTerm) {
            // Whatever was reserved may have been used by the memory that is gone (F2).
            let file = self.nodes[node].disk.newest().clone();
            let opened = file.open().and_then(|(file, _)| file.next_incarnation(0));
            self.write_terms(node, opened.ok().map(|(_, file)| file));
        } else if !warm {
            let file = self.nodes[node].disk.newest().next_incarnation(0);
            self.write_terms(node, file.ok().map(|(_, file)| file));
        } else {
            if let (Some(hot), Some(data)) = (&self.nodes[node].hot, &mut self.nodes[node].data) {
                let memory = Memory { hot, inbound: &data.inbound, outbound: &data.outbound };
                data.machine.adopt(memory);
            }
            // What the machine knew is gone with the process: another life of it (F18).
            self.need_grant(node, true);
        }
        for index in 0..self.definitions.len() {
            if self.definitions[index].configured[node] {
                self.install(node, index);
            }
        }
        if self.nodes[node].control.as_ref().is_some_and(|control| control.session.is_some()) {
            self.want_epoch(node);
            if self.nodes[node].control.as_ref().is_some_and(|control| control.up)
                && let Some(partner_incarnation) =
                    self.nodes[node].control.as_ref().and_then(|control| control.partner)
            {
                self.input(node, Input::SessionUp { partner_incarnation });
            }
        }
        if let Some(control) = &mut self.nodes[node].control {
            (control.bulk_for, control.end_of_bulk) = (None, false);
        }
        let after = self.rng.between(20 * US, MS);
        self.wake_pair(node, now + after);
    }

    /// Installs an SA of the configuration in the data plane.
    pub fn install(&mut self, node: usize, index: usize) {
        let definition = self.definitions[index];
        let start = self.rng.below(u64::from(SLOTS)) as u32;
        let host = &mut self.nodes[node];
        let (Some(hot), Some(data)) = (&host.hot, &mut host.data) else { return };
        let key = definition.key;
        let Some((slot, known)) = bind(hot, &key, start) else {
            return self.check.fail("the hot state is too small for the simulation".to_owned());
        };
        // A slot that was bound and then never got a number says nothing: its process may have died in between.
        let known = if known && touched(hot, &key, slot) {
            Known::Memory
        } else {
            host.disk.known(&key, definition.new)
        };
        if mutant::is(Mutant::CounterFromZero) {
            counter_from_zero(hot, &mut data.workers);
        }
        let term = hot.header().term.load(Ordering::Acquire);
        let base = if mutant::is(Mutant::BaseTermOfInstallation) { term } else { 0 };
        data.slots.retain(|(other, ..)| *other != key);
        data.slots.push((key, slot, base));
        self.story
            .tell(self.now, NAMES[node], || format!("installs {} in slot {slot}, {known:?}", name(&key)));
        self.input(node, Input::Install(Sa { key, slot, stale: definition.stale, known }));
    }

    /// Takes an SA out of the data plane.
    pub fn remove(&mut self, node: usize, key: SaKey) {
        if let Some(data) = &mut self.nodes[node].data {
            data.slots.retain(|(other, ..)| *other != key);
            self.story.tell(self.now, NAMES[node], || format!("removes {}", name(&key)));
            self.input(node, Input::Remove(key));
        }
    }

    /// The data plane is killed.
    pub fn kill_data(&mut self, node: usize, keep_memory: bool) {
        let host = &mut self.nodes[node];
        if host.data.take().is_none() {
            return;
        }
        host.disk.data_gone(&mut self.rng);
        let kept = keep_memory && host.control.is_some();
        self.story.tell(self.now, NAMES[node], || {
            format!("data plane is killed, its memory is {}", if kept { "kept" } else { "lost" })
        });
        if !kept {
            self.lose_memory(node);
        }
        self.observe();
    }

    /// The hot state is gone.
    pub fn lose_memory(&mut self, node: usize) {
        if self.nodes[node].hot.take().is_some() {
            self.check.lost_memory(node);
        }
    }

    /// A datagram comes out of the wire.
    pub fn datagram_arrives(&mut self, node: usize, datagram: Datagram) {
        let now = self.now;
        if datagram.from == node {
            return;
        }
        let Some(data) = &mut self.nodes[node].data else { return };
        if data.receive.len() >= RECEIVE_MAX {
            return;
        }
        data.receive.push_back(datagram);
        let after = self.rng.between(5 * US, 30 * US);
        self.wake_pair(node, now + after);
    }

    /// The pair thread runs once.
    pub fn pair_thread(&mut self, node: usize) {
        let until = self.nodes[node].deaf_until;
        let life = self.nodes[node].data_life;
        if until > self.now {
            if let Some(data) = &mut self.nodes[node].data {
                data.due = Some(until);
            }
            return self.queue.put(until, Event::Pair { node, life });
        }
        if let Some(data) = &mut self.nodes[node].data {
            data.due = None;
        }
        let (now, local) = (self.now, self.nodes[node].clock.read(self.now));
        self.look(node, local);
        let mut news = 0;
        while let Some(input) = self.next_input(node) {
            news += 1;
            if !matches!(input, Input::Sight(_)) {
                self.story.tell(now, NAMES[node], || format!("<- {}", input_text(&input)));
            }
            self.with_machine(node, |machine, memory| machine.handle(input, memory, local));
            if !self.after(node) {
                return;
            }
            if news > 200 {
                break;
            }
        }
        for _ in 0..RECEIVE_AT_ONCE {
            let Some(datagram) = self.nodes[node].data.as_mut().and_then(|data| data.receive.pop_front())
            else {
                break;
            };
            if !self.receive_datagram(node, &datagram, local) || !self.after(node) {
                return;
            }
        }
        let drained = self.nodes[node].data.as_ref().is_none_or(|data| data.receive.is_empty());
        let strictly = self.handles_strictly(node);
        self.with_machine(node, |machine, memory| machine.handle_timeout(drained, memory, local));
        if strictly && !drained {
            self.check_queue(node);
        }
        if !self.after(node) || !self.transmit(node, local) {
            return;
        }
        self.next_run(node);
    }

    fn handles_strictly(&self, node: usize) -> bool {
        let sight = self.sight(node);
        sight.active && !sight.alone
    }

    /// Time has made a node go on alone: nothing of a later reign may wait in its queue (F20).
    fn check_queue(&mut self, node: usize) {
        let sight = self.sight(node);
        let Some(data) = self.nodes[node].data.as_ref().filter(|_| sight.active && sight.alone) else {
            return;
        };
        let later = data.receive.iter().any(|datagram| {
            data.keys.would_open(datagram)
                && message::read(&datagram.message).is_ok_and(|(header, _)| header.reign.get() > sight.term)
        });
        if later {
            self.check.fail(format!("F20: node {node} goes on alone, and a later reign waits in its queue"));
        }
    }

    /// Hands a datagram to the machine; false if the node is gone.
    fn receive_datagram(&mut self, node: usize, datagram: &Datagram, local: Time) -> bool {
        let Some(data) = &mut self.nodes[node].data else { return false };
        if !data.keys.open(datagram) {
            return true;
        }
        self.last_heard[node] = self.now;
        let path = datagram.path as u8;
        let mut malformed = false;
        self.with_machine(node, |machine, memory| {
            malformed = machine.handle_message(path, &datagram.message, memory, local).is_err();
        });
        if malformed {
            self.check.fail(format!("node {node} could not read what its partner wrote"));
        }
        if self.check.listening() {
            let unmerged =
                message::read(&datagram.message).is_ok_and(|(header, _)| header.is(flag::UNMERGED));
            self.observe();
            self.check.heard(node, datagram.sealed, unmerged, self.now);
        }
        true
    }

    /// What came in for the machine, echoes of the workers first.
    fn next_input(&mut self, node: usize) -> Option<Input> {
        let data = self.nodes[node].data.as_mut()?;
        if let Some(word) = data.wanted
            && data.passed(word)
        {
            data.wanted = None;
            return Some(Input::WorkersPassed { word });
        }
        data.inputs.pop_front()
    }

    fn with_machine(&mut self, node: usize, act: impl FnOnce(&mut Node, Memory<'_>)) {
        let host = &mut self.nodes[node];
        if let (Some(hot), Some(data)) = (&host.hot, &mut host.data) {
            let (machine, memory) = data.split(hot);
            act(machine, memory);
        }
    }

    /// After each step of the machine: what it wants done is done. False if the node is gone.
    fn after(&mut self, node: usize) -> bool {
        while let Some(action) = self.nodes[node].data.as_mut().and_then(|data| data.machine.poll_action()) {
            self.act(node, action);
            if !self.step(node) {
                return false;
            }
        }
        self.observe();
        self.step(node)
    }

    fn act(&mut self, node: usize, action: Action) {
        let now = self.now;
        self.story.tell(now, NAMES[node], || action_text(&action));
        let life = self.nodes[node].control_life;
        match action {
            Action::Role { active } => {
                if active {
                    self.claims[node] = claims_fresh(&self.nodes[node], now);
                }
                self.wake_workers(node);
            }
            Action::Handling { word } => {
                if let Some(data) = &mut self.nodes[node].data {
                    data.wanted = Some(word);
                }
                if Handling::of_word(word) == Handling::Strict {
                    self.joins(node);
                }
                self.wake_workers(node);
            }
            Action::Announce => {
                if (0..2).any(|segment| self.net.link(segment, node, now)) {
                    self.virtual_at = Some(node);
                }
            }
            Action::Probe => {
                if let Some(data) = &mut self.nodes[node].data {
                    data.witness_due = 0;
                }
            }
            Action::Persist { id, entries } => {
                let after = self.rng.between(80 * US, MS);
                let written = self.numbers_written[node].max(now) + after;
                self.numbers_written[node] = written;
                self.nodes[node].disk.begin(Write::Numbers(id, entries));
                let life = self.nodes[node].data_life;
                self.queue.put(written, Event::NumbersWritten { node, life });
            }
            Action::NeedGrant { .. } | Action::Reign { .. } | Action::Joining { .. } | Action::Resend(_) => {
                if let Some(data) = &mut self.nodes[node].data {
                    match action {
                        Action::NeedGrant { incarnation } => {
                            data.need_grant = Some(incarnation || data.need_grant == Some(true));
                        }
                        Action::Reign { term, own } => data.reign = Some((term, own)),
                        Action::Joining { incarnation } => data.joining = Some(incarnation),
                        _ => {}
                    }
                }
                let after = self.rng.between(20 * US, 300 * US);
                self.queue.put(now + after, Event::ToControl { node, life, action });
            }
            // The winner goes on without the loser's state, and says so (F28).
            Action::History { step: "unmerged", .. } if self.active(node) => self.check.gave_up(),
            Action::History { step, .. } => self.directed_history(node, step),
        }
    }

    /// Control hears what its data plane wants.
    pub fn control_hears(&mut self, node: usize, action: Action) {
        match action {
            Action::NeedGrant { incarnation }
                if self.nodes[node].data.as_ref().is_some_and(|data| data.need_grant.is_some()) =>
            {
                self.need_grant(node, incarnation);
            }
            Action::Reign { term, own } => {
                self.note_reign(node, term, own);
                self.bulk(node);
            }
            Action::Joining { incarnation } => {
                self.bulk(node);
                if self.nodes[node].data.as_ref().is_some_and(|data| data.joining == Some(incarnation)) {
                    self.quiet(node, incarnation);
                }
            }
            _ => {}
        }
    }

    /// What the node sees of itself and its segments.
    fn look(&mut self, node: usize, local: Time) {
        let now = self.now;
        let forwarding = self.nodes[node].paused_until <= now;
        let Some(data) = &mut self.nodes[node].data else { return };
        let ask = local >= data.witness_due;
        if !ask && local < data.looked + MS {
            return;
        }
        for segment in [INSIDE, OUTSIDE] {
            if ask && self.net.witness(segment, node, now) {
                data.witness[segment] = Some(local);
            }
        }
        if ask {
            data.witness_due = local + WITNESS_PACE;
        }
        data.looked = local;
        let segments = [INSIDE, OUTSIDE]
            .map(|segment| Segment {
                up: self.net.link(segment, node, now),
                has_witness: true,
                witness_seen: data.witness[segment],
            })
            .to_vec();
        data.inputs.push_back(Input::Sight(tandem_takeover::Sight { forwarding, segments }));
    }

    /// Sends what the machine has to say. False if the node is gone.
    fn transmit(&mut self, node: usize, local: Time) -> bool {
        let mut buffer = Vec::new();
        for _ in 0..64 {
            let mut paths = None;
            self.with_machine(node, |machine, memory| {
                paths = machine.poll_transmit(&mut buffer, memory, local);
            });
            let Some(paths) = paths else { break };
            let message: Rc<[u8]> = Rc::from(buffer.as_slice());
            for path in 0..self.net.paths {
                if paths & (1 << path) != 0 {
                    self.seal(node, path, &message);
                }
            }
            if !self.step(node) {
                return false;
            }
        }
        true
    }

    fn seal(&mut self, node: usize, path: usize, message: &Rc<[u8]>) {
        let host = &self.nodes[node];
        let (Some(data), Some(hot)) = (&host.data, &host.hot) else { return };
        // No key: silent until control has agreed on one (F6).
        let Some(epoch) = data.keys.send else { return };
        let counter = hot.header().path_counters[path].fetch_add(1, Ordering::AcqRel);
        self.check.envelope(node, epoch, path, counter);
        let datagram =
            Datagram { epoch, path, from: node, counter, sealed: self.now, message: Rc::clone(message) };
        self.attacker.saw_datagram(&datagram);
        if self.directed_loses(&datagram) {
            return;
        }
        for at in self.net.carry(path, node, self.now, &mut self.rng).into_iter().flatten() {
            self.queue.put(at, Event::Datagram { node: 1 - node, datagram: datagram.clone() });
        }
    }

    fn next_run(&mut self, node: usize) {
        let host = &self.nodes[node];
        let Some(data) = &host.data else { return };
        let mut at = host.clock.when(data.machine.poll_timeout()).max(self.now + 20 * US);
        if !data.receive.is_empty() || !data.inputs.is_empty() {
            at = self.now + 10 * US;
        }
        // The thread looks at its segments in any case.
        at = at.min(self.now + 2 * MS);
        self.wake_pair(node, at);
        // What the machine has stored may let workers go on.
        self.wake_workers(node);
    }

    /// Wakes the workers that have something to do.
    pub fn wake_workers(&mut self, node: usize) {
        for worker in 0..WORKERS {
            let host = &self.nodes[node];
            let (Some(data), Some(hot)) = (&host.data, &host.hot) else { return };
            if data.workers[worker].due.is_none() && data.workers[worker].has_work(hot) {
                let after = self.rng.between(2 * US, 30 * US);
                self.wake_worker(node, worker, self.now + after);
            }
        }
    }

    /// A worker makes one step, or a whole round.
    pub fn worker(&mut self, node: usize, number: usize) {
        let now = self.now;
        let mut effects = Vec::new();
        let slow = self.slow_workers();
        let whole = !slow && self.rng.chance(700);
        let host = &mut self.nodes[node];
        let (Some(hot), Some(data)) = (&host.hot, &mut host.data) else { return };
        let Some(worker) = data.workers.get_mut(number) else { return };
        if worker.due != Some(now) {
            return;
        }
        worker.due = None;
        loop {
            worker.step(hot, &data.inbound, &data.outbound, now, &mut effects);
            if worker.between_rounds() || !whole {
                break;
            }
        }
        let (began, more, finished) = (worker.began, worker.has_work(hot), worker.between_rounds());
        let (pair_due, waits) =
            (finished && !effects.is_empty(), data.wanted.is_some_and(|word| data.passed(word)));
        for effect in effects {
            self.effect(node, began, effect);
        }
        if !self.step(node) {
            return;
        }
        if more {
            let long = if slow || self.rng.chance(30) { 5 * MS } else { 30 * US };
            let after = US + self.rng.below(long);
            self.wake_worker(node, number, now + after);
        }
        if pair_due || waits {
            let after = self.rng.between(3 * US, 20 * US);
            self.wake_pair(node, now + after);
        }
    }

    fn effect(&mut self, node: usize, began: Time, effect: Effect) {
        match effect {
            Effect::Delivered(packet) => {
                self.story.tell(self.now, NAMES[node], || {
                    format!("delivers {:#x}/{}", packet.spi, packet.sequence)
                });
                self.check.deliver(node, packet, began);
                self.directed_delivered(node);
            }
            Effect::Sent { spi, numbers, ivs, term, .. } => {
                self.story.tell(self.now, NAMES[node], || {
                    format!("sends {spi:#x}/{}..={} in term {term}", numbers.start, numbers.end - 1)
                });
                self.check.send(node, spi, &numbers, term, began);
                for iv in ivs {
                    self.check.nonce(node, spi, iv);
                }
            }
            Effect::Dropped(why) => self.story.tell(self.now, NAMES[node], || format!("drops: {why}")),
        }
    }
}

/// An SA in a story.
fn name(key: &SaKey) -> String {
    format!("{} {:#x}", if key.way == Way::In { "inbound" } else { "outbound" }, key.spi)
}

fn input_text(input: &Input) -> String {
    match input {
        Input::Install(sa) => format!("install {}", name(&sa.key)),
        Input::Remove(key) => format!("remove {}", name(key)),
        other => format!("{other:?}"),
    }
}

fn action_text(action: &Action) -> String {
    match action {
        Action::History { step, text } => format!("** {step}: {text}"),
        Action::Role { active } => format!("-> role {}", if *active { "ACTIVE" } else { "standby" }),
        Action::Handling { word } => format!("-> handles {:?} ({word})", Handling::of_word(*word)),
        Action::Persist { id, entries } => {
            let list: Vec<String> =
                entries.iter().map(|(key, value)| format!("{} to {value}", name(key))).collect();
            format!("-> persist {id}: {}", list.join(", "))
        }
        other => format!("-> {other:?}"),
    }
}

/// What anybody can see of a node.
#[must_use]
pub fn sight(host: &Host) -> Sight {
    let (Some(data), Some(hot)) = (&host.data, &host.hot) else { return Sight::default() };
    let header = hot.header();
    Sight {
        running: true,
        active: header.role.load(Ordering::Acquire) == ROLE_ACTIVE,
        alone: Handling::of_word(header.handling.load(Ordering::Acquire)) == Handling::Alone,
        strict: data.machine.state() == "strict",
        term: header.term.load(Ordering::Acquire),
    }
}

/// What the machine says of itself.
#[must_use]
pub fn status(host: &Host, now: Time) -> Option<Status> {
    let (Some(data), Some(hot)) = (&host.data, &host.hot) else { return None };
    let memory = Memory { hot, inbound: &data.inbound, outbound: &data.outbound };
    Some(data.machine.status(memory, host.clock.read(now)))
}

/// Is it a synchronized standby, that would take over fresh?
#[must_use]
pub fn synchronized(host: &Host, now: Time) -> bool {
    status(host, now).is_some_and(|status| status.synchronized && status.fresh_for > 0)
}

/// Does it say that its takeover was fresh?
fn claims_fresh(host: &Host, now: Time) -> bool {
    status(host, now).is_some_and(|status| status.took_over_fresh == Some(true))
}

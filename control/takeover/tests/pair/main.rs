//! Two nodes over a network without faults: they find their roles, the standby is synchronized, each takeover is fresh.

use std::sync::atomic::Ordering;
use tandem_lease::NodeNumber;
use tandem_shm::{Handling, HotState, Marks, ROLE_ACTIVE};
use tandem_takeover::{
    Action, Config, Input, Known, MESSAGE_MAX, MS, Memory, Nanos, Node, Sa, SaKey, Segment, Sight, Stale, Way,
};

const SPI: u32 = 0x1001;

struct Machine {
    hot: HotState,
    inbound: Marks,
    outbound: Marks,
    node: Node,
    incarnation: u64,
    number: NodeNumber,
    alive: bool,
    history: Vec<String>,
    control: Vec<Action>,
}

impl Machine {
    fn new(number: NodeNumber, now: Nanos) -> Self {
        let mut config = Config::new(number, 2);
        config.cold_wait = 300 * MS;
        let mut machine = Self {
            hot: HotState::create(4).unwrap(),
            inbound: Marks::new(4),
            outbound: Marks::new(4),
            node: Node::new(config, false, now),
            incarnation: 0,
            number,
            alive: true,
            history: Vec::new(),
            control: Vec::new(),
        };
        machine.grant(now);
        for (way, known) in [(Way::In, Known::Never), (Way::Out, Known::Never)] {
            let key = SaKey { way, spi: SPI, fingerprint: 9 };
            machine.input(Input::Install(Sa { key, slot: 1, stale: Stale::Jump, known }), now);
        }
        machine
    }

    fn grant(&mut self, now: Nanos) {
        self.incarnation += 1;
        let term = self.node_number().next_above(0).unwrap();
        let grant = Input::Grant {
            taken: 0,
            reserved: term + 1000,
            reign: 0,
            incarnation: self.incarnation,
            eligible: true,
        };
        self.input(grant, now);
    }

    fn node_number(&self) -> NodeNumber {
        self.number
    }

    fn memory(&self) -> Memory<'_> {
        Memory { hot: &self.hot, inbound: &self.inbound, outbound: &self.outbound }
    }

    fn input(&mut self, input: Input, now: Nanos) {
        let memory = Memory { hot: &self.hot, inbound: &self.inbound, outbound: &self.outbound };
        self.node.handle(input, memory, now);
    }

    fn is_active(&self) -> bool {
        self.alive && self.hot.header().role.load(Ordering::Acquire) == ROLE_ACTIVE
    }

    fn state(&self, now: Nanos) -> &'static str {
        self.node.status(self.memory(), now).state
    }

    fn seal_a_packet(&self) -> u64 {
        let strict =
            Handling::of_word(self.hot.header().handling.load(Ordering::Acquire)) == Handling::Strict;
        let sa = self.hot.outbound(1).unwrap();
        let number =
            tandem_esp::sequence::take(sa, 1, strict).map(|mut range| range.next().unwrap()).unwrap_or(0);
        self.outbound.set(1, &tandem_shm::settle());
        number
    }

    fn accept(&self, number: u64) {
        let sa = self.hot.inbound(1).unwrap();
        let _ = tandem_esp::window::accept(&sa.top, &sa.window, number);
        self.inbound.set(1, &tandem_shm::settle());
    }
}

struct World {
    now: Nanos,
    nodes: [Machine; 2],
}

impl World {
    fn new() -> Self {
        let now = 1000 * MS;
        Self { now, nodes: [Machine::new(NodeNumber::Zero, now), Machine::new(NodeNumber::One, now)] }
    }

    fn run(&mut self, span: Nanos) {
        let end = self.now + span;
        while self.now < end {
            self.now += MS / 4;
            self.turn();
        }
    }

    fn turn(&mut self) {
        let now = self.now;
        let mut messages: Vec<(usize, u8, Vec<u8>)> = Vec::new();
        let incarnations = [self.nodes[0].incarnation, self.nodes[1].incarnation];
        for index in 0..2 {
            let other_alive = self.nodes[1 - index].alive;
            let machine = &mut self.nodes[index];
            if !machine.alive {
                continue;
            }
            let segment = Segment { up: true, has_witness: true, witness_seen: Some(now) };
            machine.input(Input::Sight(Sight { forwarding: true, segments: vec![segment; 2] }), now);
            if other_alive {
                machine.input(Input::SessionUp { partner_incarnation: incarnations[1 - index] }, now);
                let incarnation = machine.incarnation;
                machine.input(Input::Applied { incarnation, position: 5, end_of_bulk: true }, now);
            } else {
                machine.input(Input::SessionDown, now);
            }
            let memory = Memory { hot: &machine.hot, inbound: &machine.inbound, outbound: &machine.outbound };
            machine.node.handle_timeout(true, memory, now);
            let mut buffer = Vec::new();
            while let Some(paths) = machine.node.poll_transmit(&mut buffer, memory, now) {
                assert!(buffer.len() <= MESSAGE_MAX);
                for path in 0..2 {
                    if paths & (1 << path) != 0 {
                        messages.push((1 - index, path, buffer.clone()));
                    }
                }
            }
            while let Some(action) = machine.node.poll_action() {
                match action {
                    Action::Handling { word } => machine.input(Input::WorkersPassed { word }, now),
                    Action::Persist { id, .. } => machine.input(Input::Persisted { id }, now),
                    Action::Joining { incarnation } => {
                        machine.input(Input::Quiet { incarnation, position: 5 }, now)
                    }
                    Action::NeedGrant { .. } => machine.grant(now),
                    Action::History { step, text } => {
                        machine.history.push(format!("{} {step}: {text}", now / MS))
                    }
                    other => machine.control.push(other),
                }
            }
        }
        for (to, path, message) in messages {
            let machine = &mut self.nodes[to];
            if machine.alive {
                let memory =
                    Memory { hot: &machine.hot, inbound: &machine.inbound, outbound: &machine.outbound };
                machine.node.handle_message(path, &message, memory, now).unwrap();
            }
        }
    }

    fn settle(&mut self) -> (usize, usize) {
        self.run(3000 * MS);
        let active = self.nodes.iter().position(Machine::is_active).expect("one node is active");
        let standby = 1 - active;
        assert!(!self.nodes[standby].is_active());
        let states = (self.nodes[active].state(self.now), self.nodes[standby].state(self.now));
        assert_eq!(states, ("strict", "synchronized"), "{:#?}", self.story());
        (active, standby)
    }

    fn story(&self) -> Vec<&String> {
        self.nodes.iter().flat_map(|node| &node.history).collect()
    }
}

#[test]
fn two_cold_nodes_become_one_active_and_one_synchronized() {
    let mut world = World::new();
    assert_eq!(world.settle(), (0, 1), "node 0 is active where nothing else decides");
}

#[test]
fn the_standby_takes_over_fresh_and_goes_on_past_every_number() {
    let mut world = World::new();
    let (active, standby) = world.settle();
    let mut last = 0;
    for number in 1..200 {
        last = last.max(world.nodes[active].seal_a_packet());
        world.nodes[active].accept(number);
        world.run(MS / 4);
    }
    assert!(last > 0);
    world.run(2 * MS);
    world.nodes[active].alive = false;
    world.run(20 * MS);
    assert!(world.nodes[standby].is_active(), "{:#?}", world.story());
    let takeover = world.nodes[standby].history.iter().rfind(|text| text.contains("takeover")).unwrap();
    assert!(takeover.contains("(fresh)"), "{takeover}");
    let first = world.nodes[standby].seal_a_packet();
    assert!(first > last, "{first} after {last}");
    let sa = world.nodes[standby].hot.inbound(1).unwrap();
    for number in 1..200 {
        assert_ne!(
            tandem_esp::window::check(&sa.top, &sa.window, number),
            tandem_esp::window::Verdict::Fresh,
            "{number} could be delivered twice"
        );
    }
}

#[test]
fn a_node_that_returns_is_synchronized_and_takes_over_in_its_turn() {
    let mut world = World::new();
    for round in 0..4 {
        let (active, standby) = world.settle();
        world.nodes[active].alive = false;
        world.run(50 * MS);
        assert!(world.nodes[standby].is_active(), "round {round}: {:#?}", world.story());
        // It returns with its incarnation file and an empty memory.
        let now = world.now;
        let incarnation = world.nodes[active].incarnation;
        let mut machine = Machine::new(world.nodes[active].number, now);
        machine.incarnation = incarnation;
        machine.grant(now);
        world.nodes[active] = machine;
    }
}

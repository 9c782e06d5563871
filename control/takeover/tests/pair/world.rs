//! Two nodes, their memory, disk and control processes, and a network that can be cut.

use std::sync::atomic::Ordering;
use tandem_lease::NodeNumber;
use tandem_shm::{Handling, HotState, Marks, ROLE_ACTIVE};
use tandem_takeover::{
    Action, Config, Input, Known, MESSAGE_MAX, MS, Memory, Nanos, Node, Sa, SaKey, Segment, Sight, Stale, Way,
};

const SPI: u32 = 0x1001;

pub struct Machine {
    pub hot: HotState,
    inbound: Marks,
    outbound: Marks,
    pub node: Node,
    pub incarnation: u64,
    pub number: NodeNumber,
    pub alive: bool,
    /// Numbers can be written to disk.
    pub disk: bool,
    /// SIGSTOP.
    pub stopped: bool,
    /// Its SSP session is up, as far as it depends on this node.
    pub session: bool,
    /// Segments show carrier and witness.
    pub sees: bool,
    /// Messages that came while it was stopped.
    pub inbox: Vec<(u8, Vec<u8>)>,
    pub history: Vec<String>,
    pub control: Vec<Action>,
}

impl Machine {
    pub fn new(number: NodeNumber, now: Nanos, known: Known, stale: Stale) -> Self {
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
            disk: true,
            stopped: false,
            session: true,
            sees: true,
            inbox: Vec::new(),
            history: Vec::new(),
            control: Vec::new(),
        };
        machine.grant(now);
        for way in [Way::In, Way::Out] {
            let key = SaKey { way, spi: SPI, fingerprint: 9 };
            machine.input(Input::Install(Sa { key, slot: 1, stale, known }), now);
        }
        machine
    }

    pub fn grant(&mut self, now: Nanos) {
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

    pub fn node_number(&self) -> NodeNumber {
        self.number
    }

    pub fn memory(&self) -> Memory<'_> {
        Memory { hot: &self.hot, inbound: &self.inbound, outbound: &self.outbound }
    }

    pub fn input(&mut self, input: Input, now: Nanos) {
        let memory = Memory { hot: &self.hot, inbound: &self.inbound, outbound: &self.outbound };
        self.node.handle(input, memory, now);
    }

    pub fn is_active(&self) -> bool {
        self.alive && self.hot.header().role.load(Ordering::Acquire) == ROLE_ACTIVE
    }

    pub fn state(&self, now: Nanos) -> &'static str {
        self.node.status(self.memory(), now).state
    }

    pub fn seal_a_packet(&self) -> u64 {
        let strict =
            Handling::of_word(self.hot.header().handling.load(Ordering::Acquire)) == Handling::Strict;
        let sa = self.hot.outbound(1).unwrap();
        let number =
            tandem_esp::sequence::take(sa, 1, strict).map(|mut range| range.next().unwrap()).unwrap_or(0);
        self.outbound.set(1, &tandem_shm::settle());
        number
    }

    pub fn accept(&self, number: u64) {
        let sa = self.hot.inbound(1).unwrap();
        let _ = tandem_esp::window::accept(&sa.top, &sa.window, number);
        self.inbound.set(1, &tandem_shm::settle());
    }
}

pub struct World {
    pub now: Nanos,
    pub nodes: [Machine; 2],
    /// Does the network carry messages between the nodes?
    pub connected: bool,
}

impl World {
    pub fn new() -> Self {
        Self::with(Known::Never, Stale::Jump)
    }

    pub fn with(known: Known, stale: Stale) -> Self {
        let now = 1000 * MS;
        let machine = |number| Machine::new(number, now, known, stale);
        Self { now, nodes: [machine(NodeNumber::Zero), machine(NodeNumber::One)], connected: true }
    }

    pub fn run(&mut self, span: Nanos) {
        let end = self.now + span;
        while self.now < end {
            self.now += MS / 4;
            self.turn();
        }
    }

    pub fn turn(&mut self) {
        let now = self.now;
        let mut messages: Vec<(usize, u8, Vec<u8>)> = Vec::new();
        let incarnations = [self.nodes[0].incarnation, self.nodes[1].incarnation];
        for index in 0..2 {
            let session = self.nodes.iter().all(|node| node.alive && node.session);
            let machine = &mut self.nodes[index];
            if !machine.alive || machine.stopped {
                continue;
            }
            for (path, message) in std::mem::take(&mut machine.inbox) {
                let memory =
                    Memory { hot: &machine.hot, inbound: &machine.inbound, outbound: &machine.outbound };
                machine.node.handle_message(path, &message, memory, now).unwrap();
            }
            let witness_seen = machine.sees.then_some(now);
            let segment = Segment { up: machine.sees, has_witness: true, witness_seen };
            machine.input(Input::Sight(Sight { forwarding: true, segments: vec![segment; 2] }), now);
            if session {
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
                    Action::Persist { id, .. } if machine.disk => {
                        machine.input(Input::Persisted { id }, now);
                    }
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
            if machine.alive && self.connected {
                machine.inbox.push((path, message));
            }
        }
    }

    pub fn settle(&mut self) -> (usize, usize) {
        self.run(3000 * MS);
        let active = self.nodes.iter().position(Machine::is_active).expect("one node is active");
        let standby = 1 - active;
        assert!(!self.nodes[standby].is_active());
        let states = (self.nodes[active].state(self.now), self.nodes[standby].state(self.now));
        assert_eq!(states, ("strict", "synchronized"), "{:#?}", self.story());
        (active, standby)
    }

    pub fn story(&self) -> Vec<&String> {
        self.nodes.iter().flat_map(|node| &node.history).collect()
    }
}

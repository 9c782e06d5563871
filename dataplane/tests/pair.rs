//! Two real data planes as a pair, in network namespaces, with the control processes played by the test: it gives both
//! what they have on disk, and carries between them what SSP would. Needs root.

mod control;

use control::{Control, run};
use nix::sched::{CloneFlags, setns};
use std::collections::HashSet;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::{Child, Command};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};
use tandem_api::dataplane::*;
use tandem_api::pair::*;
use tandem_api::types::{Direction, KeyFingerprint, KeyMaterial, Mac, Role, Selector, Side, Transform};
use tandem_wire::{arp, ethernet};
use tandem_xsk::PacketSocket;

const VIRTUAL_MAC: [u8; 6] = [0, 0, 0x0c, 0x9f, 0xf0, 1];
const VIRTUAL: &str = "10.1.0.1";
/// Generous, because other tests may share the machine's few cores.
const TIMINGS: PairTimings =
    PairTimings { heartbeat_us: 5_000, takeover_us: 100_000, alone_us: 300_000, cold_wait_ms: 3_000 };

/// Two gateways and a host on one segment (a bridge, which is the witness), and a link between the gateways.
struct Lab {
    name: String,
    folder: tempfile::TempDir,
}

impl Lab {
    fn new(name: &str) -> Self {
        let name = format!("tp{}{name}", std::process::id());
        let lab = Self { folder: tempfile::tempdir().unwrap(), name };
        let n = &lab.name;
        let mut commands = vec![
            format!("ip netns add {n}h"),
            format!("ip -n {n}h link add br0 type bridge"),
            format!("ip -n {n}h addr add 10.1.0.10/24 dev br0"),
            format!("ip -n {n}h link set br0 up"),
        ];
        for (node, letter) in ["a", "b"].into_iter().enumerate() {
            let bpf = lab.bpffs(node);
            commands.extend([
                format!("ip netns add {n}{letter}"),
                format!("ip link add in0 netns {n}{letter} type veth peer name to-{letter} netns {n}h"),
                format!("ip -n {n}h link set to-{letter} master br0 up"),
                format!("ip netns exec {n}h ethtool -K to-{letter} tx off"),
                format!("ip -n {n}{letter} addr add 10.1.0.{}/24 dev in0", node + 2),
                format!("ip -n {n}{letter} link set lo up"),
                format!("ip -n {n}{letter} link set in0 up"),
                format!("mkdir {bpf} && mount -t bpf bpf {bpf}", bpf = bpf.display()),
            ]);
        }
        commands.extend([
            format!("ip link add sync0 netns {n}a type veth peer name sync0 netns {n}b"),
            format!("ip -n {n}a addr add 10.255.0.1/24 dev sync0"),
            format!("ip -n {n}b addr add 10.255.0.2/24 dev sync0"),
            format!("ip -n {n}a link set sync0 up"),
            format!("ip -n {n}b link set sync0 up"),
        ]);
        for command in commands {
            assert!(run(&command), "{command} (these tests need root, iproute2 and ethtool)");
        }
        lab
    }

    fn namespace(&self, node: usize) -> String {
        format!("{}{}", self.name, ["a", "b"][node])
    }

    fn bpffs(&self, node: usize) -> PathBuf {
        self.folder.path().join(format!("bpf{node}"))
    }

    fn ping(&self, address: &str) -> bool {
        run(&format!("ip -n {}h neigh flush dev br0", self.name));
        run(&format!("ip netns exec {}h ping -c 3 -i 0.1 -W 2 {address}", self.name))
    }

    /// Every announcement of the virtual address that reaches the host from now on: when, and which operation.
    fn announcements(&self) -> Receiver<(Instant, u16)> {
        let namespace = format!("/run/netns/{}h", self.name);
        let (sender, receiver) = channel();
        let (ready, is_ready) = channel();
        std::thread::spawn(move || {
            setns(File::open(namespace).unwrap(), CloneFlags::CLONE_NEWNET).unwrap();
            let index = nix::net::if_::if_nametoindex("br0").unwrap();
            let socket = PacketSocket::open(index, ethernet::ETHERTYPE_ARP).unwrap();
            ready.send(()).unwrap();
            let mut frame = [0; 64];
            loop {
                let Ok(length) = socket.receive(&mut frame) else {
                    std::thread::sleep(Duration::from_millis(1));
                    continue;
                };
                let (header, payload) = ethernet::parse(&frame[..length]).unwrap();
                let Ok(packet) = arp::parse(payload) else { continue };
                let announces = packet.sender_ip == packet.target_ip
                    && std::net::Ipv4Addr::from(packet.sender_ip.get()).to_string() == VIRTUAL
                    && header.source.0 == VIRTUAL_MAC
                    && packet.sender_mac.0 == VIRTUAL_MAC;
                if announces && sender.send((Instant::now(), packet.operation.get())).is_err() {
                    return;
                }
            }
        });
        is_ready.recv().unwrap();
        receiver
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for side in ["a", "b", "h"] {
            run(&format!("ip netns del {}{side}", self.name));
        }
        for node in 0..2 {
            run(&format!("umount {}", self.bpffs(node).display()));
        }
    }
}

/// A running data plane.
struct Daemon(Child);

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A data plane and what its control process knows.
struct Gateway {
    node: usize,
    daemon: Daemon,
    control: Control,
    hot: OwnedFd,
    incarnation: u64,
    reign: u64,
    history: Vec<HistoryEntry>,
}

impl Gateway {
    /// Greets, but nothing more.
    fn connect(lab: &Lab, node: usize, hot: Option<&OwnedFd>) -> (Control, OwnedFd) {
        let mut control = Control::connect(&lab.folder.path().join(format!("socket{node}")));
        let start = StartSettings {
            workers: 1,
            max_sas: 64,
            frames: 4096,
            aead: "auto".into(),
            idle: Idle::Adaptive,
        };
        let (_, hot) = control.hello_with(start, hot);
        (control, hot)
    }

    fn start(lab: &Lab, node: usize, incarnation: u64, before: Option<&Gateway>) -> Self {
        let socket = lab.folder.path().join(format!("socket{node}"));
        let daemon = Command::new("ip")
            .args(["netns", "exec", &lab.namespace(node), env!("CARGO_BIN_EXE_tandem-dataplane")])
            .arg("--socket")
            .arg(&socket)
            .arg("--bpffs")
            .arg(lab.bpffs(node))
            .spawn()
            .unwrap();
        let (mut control, hot) = Self::connect(lab, node, before.map(|before| &before.hot));
        control.set_pair(settings(lab, node, before.is_some()));
        let reign = before.map_or(0, |before| before.reign);
        let mut gateway =
            Self { node, daemon: Daemon(daemon), control, hot, incarnation, reign, history: Vec::new() };
        gateway.grant();
        gateway.control.done(Body::Configure(Box::new(configuration())));
        let known = if before.is_some() { (0, 2, 0) } else { (2, 0, 0) };
        assert_eq!(gateway.control.install(1, sas()), known);
        let swept = gateway.control.ask(Body::SweepSas { generation: 1 }, None).0;
        assert!(matches!(swept, Ok(Reply::Swept(0))), "{swept:?}");
        gateway
    }

    fn grant(&mut self) {
        let (taken, incarnation) = (self.reign.max(self.node as u64), self.incarnation);
        let grant = Grant { taken, reserved: taken + 32, reign: self.reign, incarnation, eligible: true };
        self.control.done(Body::Grant(grant));
    }

    fn session(&mut self, news: SessionNews) {
        self.control.done(Body::Session(news));
    }

    fn status(&mut self) -> PairStatus {
        self.control.pair()
    }

    fn kill(&mut self) {
        self.daemon.0.kill().unwrap();
        self.daemon.0.wait().unwrap();
    }

    /// The data plane goes on, its control process does not.
    fn without_control(self) -> Daemon {
        self.daemon
    }

    fn has_step(&self, step: &str) -> bool {
        self.history.iter().any(|entry| entry.step == step)
    }
}

fn settings(lab: &Lab, node: usize, used: bool) -> PairSettings {
    let path = |name: &str, net: &str, first: usize| {
        let address = |node: usize| format!("{net}.{}:3249", first + node).parse().unwrap();
        PairPath { name: name.into(), local: address(node), remote: address(1 - node) }
    };
    PairSettings {
        node: node as u8,
        numbers_file: lab.folder.path().join(format!("numbers{node}")).to_str().unwrap().to_owned(),
        file_id: [node as u8; 16],
        used,
        partner: Some(PartnerSettings {
            paths: vec![path("sync", "10.255.0", 1), path("inside", "10.1.0", 2)],
            timings: TIMINGS,
            priority: 100 - node as u8,
        }),
    }
}

fn configuration() -> Config {
    Config {
        interfaces: vec![Interface {
            name: "in0".into(),
            side: Side::Inside,
            virtual_addresses: vec![format!("{VIRTUAL}/24").parse().unwrap()],
            virtual_mac: Mac(VIRTUAL_MAC),
            queues: 1,
            mode: XdpMode::Native,
            mss_clamp: false,
            witness: Some("10.1.0.10".parse().unwrap()),
        }],
        policies: vec![Policy {
            name: "b".into(),
            priority: 1,
            selector: selector(),
            action: PolicyAction::Protect { policy: 0 },
        }],
    }
}

fn selector() -> Selector {
    Selector { local: "10.1.0.0/24".parse().unwrap(), remote: "10.2.0.0/24".parse().unwrap() }
}

fn sas() -> Vec<SaSpec> {
    let sa = |direction, spi, key| SaSpec {
        direction,
        spi,
        policy: 0,
        selectors: vec![selector()],
        local: "192.0.2.1".parse().unwrap(),
        peer: "192.0.2.2".parse().unwrap(),
        transform: Transform::Aes128gcm16,
        key: KeyMaterial::new(vec![key; 20]),
        fingerprint: KeyFingerprint(u64::from(key)),
        base_term: 0,
        stale: StaleAction::Jump,
        map: "b".into(),
    };
    vec![sa(Direction::Outbound, 0x2001, 7), sa(Direction::Inbound, 0x1001, 8)]
}

/// Both gateways, and what their control processes do for each other.
struct Pair {
    gateways: [Gateway; 2],
    epoch: u32,
    position: u64,
    /// Incarnations that were ever given.
    next_incarnation: u64,
}

impl Pair {
    fn new(gateways: [Gateway; 2]) -> Self {
        let next_incarnation = 100;
        let mut pair = Self { gateways, epoch: 0, position: 0, next_incarnation };
        pair.connect();
        pair
    }

    /// A new SSP session: a new epoch, and each learns the other's incarnation.
    fn connect(&mut self) {
        self.epoch += 1;
        let incarnations = [0, 1].map(|node: usize| self.gateways[node].incarnation);
        for (node, gateway) in self.gateways.iter_mut().enumerate() {
            let secret = KeyMaterial::new(vec![self.epoch as u8; 32]);
            gateway.control.done(Body::Epoch(EpochKey { number: self.epoch, secret, send: true }));
            gateway.session(SessionNews::Up { partner_incarnation: incarnations[1 - node] });
        }
    }

    /// Does what the control processes would do about the events that came.
    fn serve(&mut self) {
        for node in 0..2 {
            self.gateways[node].control.listen();
            while let Some(event) = self.gateways[node].control.events.pop_front() {
                self.answer(node, event);
            }
        }
    }

    fn answer(&mut self, node: usize, event: Event) {
        let gateway = &mut self.gateways[node];
        match event {
            Event::History(entry) => gateway.history.push(entry),
            Event::Reign { term, .. } => {
                gateway.reign = gateway.reign.max(term);
                gateway.grant();
            }
            Event::NeedGrant { incarnation } => {
                if incarnation {
                    self.next_incarnation += 1;
                    gateway.incarnation = self.next_incarnation;
                }
                gateway.grant();
                let partner_incarnation = gateway.incarnation;
                self.gateways[1 - node].session(SessionNews::Up { partner_incarnation });
            }
            Event::Joining { incarnation } => {
                self.position += 1;
                let position = self.position;
                gateway.session(SessionNews::Quiet { incarnation, position });
                let of = self.gateways[1 - node].incarnation;
                let applied = SessionNews::Applied { incarnation: of, position, end_of_bulk: true };
                self.gateways[1 - node].session(applied);
            }
            Event::Resend { direction, spi } => panic!("both have every SA: {direction} {spi:#x}"),
        }
    }

    /// Waits until one is active and the other synchronized; which one is active? Either may be: it depends on who is
    /// up first, and on how long the other one has to wait for a core of this machine meanwhile.
    fn settle(&mut self) -> usize {
        let until = Instant::now() + Duration::from_secs(20);
        loop {
            self.serve();
            let states = [0, 1].map(|node| self.gateways[node].status().state);
            for (active, [state, other]) in [(0, [&states[0], &states[1]]), (1, [&states[1], &states[0]])] {
                if (&**state, &**other) == ("strict", "synchronized") {
                    return active;
                }
            }
            assert!(Instant::now() < until, "{states:?}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Waits until both are in these states.
    fn wait(&mut self, active: usize, [state, other]: [&str; 2]) {
        let until = Instant::now() + Duration::from_secs(20);
        loop {
            self.serve();
            let [now, standby] = [active, 1 - active].map(|node| self.gateways[node].status());
            if (now.role == "active", &*now.state, &*standby.state) == (true, state, other) {
                return;
            }
            assert!(Instant::now() < until, "{now:#?}\n{standby:#?}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

#[test]
fn two_data_planes_find_their_roles_and_the_standby_takes_over_fresh_when_the_active_one_dies() {
    let lab = Lab::new("t");
    let mut pair = Pair::new([Gateway::start(&lab, 0, 1, None), Gateway::start(&lab, 1, 2, None)]);
    let active = pair.settle();
    assert!(lab.ping(VIRTUAL), "the active node answers for the virtual address");
    let status = pair.gateways[active].status();
    assert!(status.not_promised.is_empty(), "{status:#?}");
    assert!(status.segments[0].alive && status.segments[0].witness_ms_ago.is_some(), "{status:#?}");
    assert!(status.paths[0].alive && status.paths[0].received > 0, "{status:#?}");
    assert_eq!((status.paths[0].bad, status.paths[0].replayed), (0, 0));
    assert!(status.replication.lag.count > 0 && status.replication.records_acknowledged > 0, "{status:#?}");
    let standby = pair.gateways[1 - active].status();
    assert!(standby.fresh_for_us > 0 && standby.not_promised.is_empty(), "{standby:#?}");

    let announcements = lab.announcements();
    let killed = Instant::now();
    pair.gateways[active].kill();
    let (first, _) =
        announcements.recv_timeout(Duration::from_secs(5)).expect("the virtual address is announced");
    let gap = first.duration_since(killed);
    assert!(gap < Duration::from_secs(1), "the silence that decides is 100 ms, and it took {gap:?}");
    assert!(lab.ping(VIRTUAL), "the other one answers");
    let survivor = &mut pair.gateways[1 - active];
    assert_eq!(survivor.control.status().role, Role::Active);
    let status = survivor.status();
    assert_eq!((&*status.role, &*status.state), ("active", "alone"), "{status:#?}");
    assert!(status.term > 0 && status.term % 2 == 1 - active as u64, "a term of its own: {status:#?}");
    survivor.control.listen();
    let fresh = survivor.control.events.iter().any(|event| {
        matches!(event, Event::History(entry) if entry.step == "takeover" && entry.text.contains("fresh"))
    });
    assert!(fresh, "{:#?}", survivor.control.events);
    std::thread::sleep(Duration::from_millis(300));
    let heard: Vec<(Instant, u16)> = announcements.try_iter().collect();
    let operations: HashSet<u16> = heard.iter().map(|(_, operation)| *operation).collect();
    assert_eq!(operations, HashSet::from([1, 2]), "both forms");
    assert!(heard.len() >= 5, "again and again: {heard:?}");
}

#[test]
fn a_data_plane_that_comes_back_is_standby_and_a_switch_over_gives_it_the_role_again() {
    let lab = Lab::new("s");
    let mut pair = Pair::new([Gateway::start(&lab, 0, 1, None), Gateway::start(&lab, 1, 2, None)]);
    let first = pair.settle();
    let other = 1 - first;
    pair.gateways[first].kill();
    let until = Instant::now() + Duration::from_secs(5);
    while pair.gateways[other].status().role != "active" {
        assert!(Instant::now() < until, "no takeover");
        std::thread::sleep(Duration::from_millis(5));
    }
    let refused = pair.gateways[other].control.ask(Body::SwitchOver, None).0.unwrap_err();
    assert!(refused.reason.contains("not be fresh"), "{refused}");
    pair.gateways[other].control.listen();
    // With its memory, which says "active": what it was counts for nothing.
    let back = Gateway::start(&lab, first, 900, Some(&pair.gateways[first]));
    pair.gateways[first] = back;
    pair.connect();
    pair.wait(other, ["strict", "synchronized"]);
    pair.gateways[first].control.done(Body::SwitchOver);
    pair.wait(first, ["strict", "synchronized"]);
    assert!(lab.ping(VIRTUAL));
    assert!(pair.gateways[first].has_step("takeover") && pair.gateways[other].has_step("demotion"));
    let role = Body::SetRole { role: Role::Active, term: 99 };
    let refused = pair.gateways[other].control.ask(role, None).0.unwrap_err();
    assert!(refused.reason.contains("partner"), "{refused}");
}

#[test]
fn a_takeover_needs_no_control_process_and_the_next_one_hears_of_it() {
    let lab = Lab::new("c");
    let mut pair = Pair::new([Gateway::start(&lab, 0, 1, None), Gateway::start(&lab, 1, 2, None)]);
    let first = pair.settle();
    pair.serve();
    let Pair { gateways: [zero, one], .. } = pair;
    let (mut active, standby) = if first == 0 { (zero, one) } else { (one, zero) };
    let node = standby.node;
    let before = standby.control.events.len();
    assert_eq!(before, 0, "{:?}", standby.control.events);
    // The control process of the standby dies, then the active node.
    let standby = standby.without_control();
    active.kill();
    std::thread::sleep(Duration::from_millis(600));
    let (mut control, _) = Gateway::connect(&lab, node, None);
    let status = control.pair();
    assert_eq!((&*status.role, status.term % 2), ("active", node as u64), "a term of its own: {status:#?}");
    control.listen();
    let told = |wanted: &dyn Fn(&Event) -> bool| control.events.iter().any(wanted);
    assert!(told(&|event| *event == Event::Reign { term: status.term, own: true }), "{:?}", control.events);
    assert!(told(&|event| matches!(event, Event::History(entry) if entry.text.contains("fresh"))));

    // The settings come again with each control process; the priority alone may be another one.
    let same = settings(&lab, node, true);
    control.set_pair(same.clone());
    let partner = same.partner.clone().unwrap();
    let higher =
        PairSettings { partner: Some(PartnerSettings { priority: 200, ..partner.clone() }), ..same.clone() };
    control.set_pair(higher.clone());
    let timings = PairTimings { alone_us: 1, ..TIMINGS };
    let other = PairSettings { partner: Some(PartnerSettings { timings, ..partner }), ..same.clone() };
    let refused = control.ask(Body::SetPair(Box::new(other)), None).0.unwrap_err();
    assert!(refused.reason.contains("(timings)"), "{refused}");
    let alone = PairSettings { partner: None, ..same };
    let refused = control.ask(Body::SetPair(Box::new(alone)), None).0.unwrap_err();
    assert!(refused.reason.contains("whether there is a partner"), "{refused}");
    drop(standby);
}

#[test]
fn while_one_path_lives_the_pair_stays_as_it_is_and_a_path_that_returns_is_used_again() {
    let lab = Lab::new("p");
    let mut pair = Pair::new([Gateway::start(&lab, 0, 1, None), Gateway::start(&lab, 1, 2, None)]);
    let active = pair.settle();
    let sync = |state| run(&format!("ip -n {} link set sync0 {state}", lab.namespace(0)));
    assert!(sync("down"));
    std::thread::sleep(Duration::from_millis(500));
    for (node, role) in [(active, "active"), (1 - active, "standby")] {
        let status = pair.gateways[node].status();
        assert_eq!(status.role, role);
        assert!(status.not_promised.is_empty(), "{status:#?}");
        assert_eq!(
            status.paths.iter().map(|path| path.alive).collect::<Vec<_>>(),
            [false, true],
            "{status:#?}"
        );
    }
    assert!(sync("up"));
    let until = Instant::now() + Duration::from_secs(10);
    while !pair.gateways.iter_mut().all(|gateway| gateway.status().paths[0].alive) {
        assert!(Instant::now() < until, "{:#?}", pair.gateways[0].status());
        std::thread::sleep(Duration::from_millis(20));
    }
    let status = pair.gateways[1 - active].status();
    assert_eq!((&*status.role, &*status.state), ("standby", "synchronized"), "{status:#?}");
}

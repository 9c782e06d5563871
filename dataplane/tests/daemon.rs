//! The real daemon in a network namespace, spoken to as the control process does. Needs root.

mod control;

use control::{Control, run};
use rustix::net::RecvFlags;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::{Child, Command};
use std::time::Duration;
use tandem_api::counters::{DropReason, SlowCounter};
use tandem_api::dataplane::*;
use tandem_api::pair::PairSettings;
use tandem_api::types::{Direction, KeyFingerprint, KeyMaterial, Mac, Role, Selector, Side, Transform};

/// A gateway namespace with one veth to a host namespace. Removed on drop.
struct Lab {
    name: String,
    folder: tempfile::TempDir,
}

impl Lab {
    fn new(name: &str) -> Self {
        Self::with_queues(name, 1)
    }

    /// With so many queues on the veth. By which one a frame comes is up to a hash of the kernel's that differs from boot
    /// to boot, so that a data plane must take all of them to get every frame.
    fn with_queues(name: &str, queues: u16) -> Self {
        let name = format!("td{}{name}", std::process::id());
        let lab = Self { folder: tempfile::tempdir().unwrap(), name };
        let n = &lab.name;
        for command in [
            format!("ip netns add {n}g"),
            format!("ip netns add {n}h"),
            format!(
                "ip link add in0 netns {n}g numrxqueues {queues} numtxqueues {queues} type veth \
                 peer name h0 netns {n}h numrxqueues {queues} numtxqueues {queues}"
            ),
            format!("ip -n {n}g link set lo up"),
            format!("ip -n {n}g addr add 10.1.0.2/24 dev in0"),
            format!("ip -n {n}g link set in0 up"),
            format!("ip -n {n}h addr add 10.1.0.10/24 dev h0"),
            format!("ip -n {n}h link set h0 up"),
            format!("ip netns exec {n}h ethtool -K h0 tx off"),
            // `ip netns exec` gives each process a mount namespace of its own: a BPF file system that is
            // to outlive the daemon must be there before.
            format!("mkdir {bpf} && mount -t bpf bpf {bpf}", bpf = lab.bpffs().display()),
        ] {
            assert!(run(&command), "{command} (these tests need root, iproute2 and ethtool)");
        }
        lab
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("dataplane.sock")
    }

    fn bpffs(&self) -> PathBuf {
        self.folder.path().join("bpf")
    }

    fn has_program(&self) -> bool {
        run(&format!("ip -n {}g link show in0 | grep -q prog/xdp", self.name))
    }

    /// A node without partner.
    fn lone(&self) -> PairSettings {
        let numbers = self.folder.path().join("numbers");
        PairSettings {
            node: 0,
            numbers_file: numbers.to_str().unwrap().to_owned(),
            file_id: [7; 16],
            used: false,
            partner: None,
        }
    }

    /// Greets as control does; the hot state comes back.
    fn hello(&self, control: &mut Control, hot: Option<&OwnedFd>) -> (Hello, OwnedFd) {
        self.hello_with(control, start_settings(), hot)
    }

    fn hello_with(
        &self,
        control: &mut Control,
        start: StartSettings,
        hot: Option<&OwnedFd>,
    ) -> (Hello, OwnedFd) {
        let greeted = control.hello_with(start, hot);
        control.set_pair(self.lone());
        greeted
    }

    fn start(&self) -> Daemon {
        let child = Command::new("ip")
            .args(["netns", "exec", &format!("{}g", self.name), env!("CARGO_BIN_EXE_tandem-dataplane")])
            .arg("--socket")
            .arg(self.socket())
            .arg("--bpffs")
            .arg(self.bpffs())
            .spawn()
            .unwrap();
        Daemon(child)
    }

    fn ping(&self, address: &str) -> bool {
        // What an earlier ping could not resolve must not spoil this one.
        run(&format!("ip -n {}h neigh flush dev h0", self.name));
        run(&format!("ip netns exec {}h ping -c 3 -i 0.1 -W 2 {address}", self.name))
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for side in ["g", "h"] {
            run(&format!("ip netns del {}{side}", self.name));
        }
        run(&format!("umount {}", self.bpffs().display()));
    }
}

struct Daemon(Child);

impl Daemon {
    fn kill(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start_settings() -> StartSettings {
    StartSettings { workers: 1, max_sas: 64, frames: 4096, aead: "auto".into(), idle: Idle::Adaptive }
}

fn selector() -> Selector {
    Selector { local: "10.1.0.0/24".parse().unwrap(), remote: "10.2.0.0/24".parse().unwrap() }
}

fn config(interface: &str) -> Body {
    config_with(interface, 1)
}

fn config_with(interface: &str, queues: u16) -> Body {
    Body::Configure(Box::new(Config {
        interfaces: vec![Interface {
            name: interface.into(),
            side: Side::Inside,
            virtual_addresses: vec!["10.1.0.1/24".parse().unwrap()],
            virtual_mac: Mac([0, 0, 0x0c, 0x9f, 0xf0, 1]),
            queues,
            mode: XdpMode::Native,
            mss_clamp: false,
            witness: None,
        }],
        policies: vec![Policy {
            name: "b".into(),
            priority: 1,
            selector: selector(),
            action: PolicyAction::Protect { policy: 0 },
        }],
    }))
}

fn sa() -> SaSpec {
    SaSpec {
        direction: Direction::Outbound,
        spi: 0x2001,
        policy: 0,
        selectors: vec![selector()],
        local: "192.0.2.1".parse().unwrap(),
        peer: "192.0.2.2".parse().unwrap(),
        transform: Transform::Aes128gcm16,
        key: KeyMaterial::new(vec![7; 20]),
        fingerprint: KeyFingerprint(99),
        base_term: 0,
        stale: tandem_api::dataplane::StaleAction::Jump,
        map: "b".into(),
    }
}

#[test]
fn the_virtual_address_answers_arp_and_ping_and_what_is_protected_is_counted_as_such() {
    let lab = Lab::new("a");
    let _daemon = lab.start();
    let mut control = Control::connect(&lab.socket());
    let (hello, _hot) = lab.hello(&mut control, None);
    assert_eq!((hello.hot_state, hello.term, hello.role), (HotStateOrigin::Fresh, 0, Role::Standby));
    control.done(config("in0"));
    assert!(!lab.ping("10.1.0.1"), "a standby is silent");
    control.done(Body::SetRole { role: Role::Active, term: 2 });
    assert!(lab.ping("10.1.0.1"));
    assert!(lab.ping("10.1.0.2"), "the kernel's own address is left to the kernel");
    run(&format!("ip -n {}h route add 10.2.0.0/24 via 10.1.0.1", lab.name));
    assert!(!lab.ping("10.2.0.9"));
    let status = control.status();
    assert_eq!(status.counters.dropped(DropReason::NoSa), 3);
    // The host may have kept the questions to the standby, and sends them when it hears the announcement.
    let replies = status.counters.slow(SlowCounter::EchoReplies);
    assert!(replies == 3 || replies == 6, "{replies} replies");
    assert!(status.counters.slow(SlowCounter::ArpReplies) >= 1);
    assert_eq!(status.interfaces[0].driver, "veth");
    let pair = control.pair();
    assert_eq!((pair.partner, &*pair.role, pair.term, &*pair.state), (false, "active", 2, "alone"));
    assert!(
        pair.segments[0].alive && pair.segments[0].witness.is_none() && pair.paths.is_empty(),
        "{pair:#?}"
    );
    control.listen();
    assert!(control.events.is_empty(), "nobody is needed by a lone node: {:?}", control.events);
}

#[test]
fn what_is_refused_changes_nothing() {
    let lab = Lab::new("b");
    let _daemon = lab.start();
    let mut control = Control::connect(&lab.socket());
    lab.hello(&mut control, None);
    control.done(config("in0"));
    control.done(Body::SetRole { role: Role::Active, term: 4 });
    let refused = control.ask(config("eth7"), None).0.unwrap_err();
    assert!(refused.reason.contains("eth7") && refused.reason.contains("in0"), "{refused}");
    let refused = control.ask(Body::SetRole { role: Role::Active, term: 2 }, None).0.unwrap_err();
    assert!(refused.reason.contains("below the present one"), "{refused}");
    let mut wrong = sa();
    wrong.key = KeyMaterial::new(vec![7; 36]);
    let refused = control.ask(Body::InstallSas { generation: 1, sas: vec![wrong] }, None).0.unwrap_err();
    assert!(refused.reason.contains("36 octets"), "{refused}");
    let other = StartSettings { workers: 2, ..start_settings() };
    let refused = control.ask(Body::Hello { version: VERSION, start: other }, None).0.unwrap_err();
    assert!(refused.reason.contains("workers is 1, wanted 2"), "{refused}");
    assert!(lab.ping("10.1.0.1"));
}

#[test]
fn a_control_process_that_dies_and_returns_finds_its_sas_untouched() {
    let lab = Lab::new("c");
    let _daemon = lab.start();
    let mut control = Control::connect(&lab.socket());
    lab.hello(&mut control, None);
    control.done(config("in0"));
    control.done(Body::SetRole { role: Role::Active, term: 2 });
    assert_eq!(control.install(1, vec![sa()]), (1, 0, 0));
    drop(control);
    assert!(lab.ping("10.1.0.1"), "traffic goes on without a control process");
    let mut control = Control::connect(&lab.socket());
    let (hello, _hot) = lab.hello(&mut control, None);
    assert_eq!((hello.generation, hello.term, hello.role), (1, 2, Role::Active));
    control.done(config("in0"));
    assert_eq!(control.install(2, vec![sa()]), (0, 0, 1));
    let swept = control.ask(Body::SweepSas { generation: 2 }, None).0;
    assert!(matches!(swept, Ok(Reply::Swept(0))), "{swept:?}");
    assert!(lab.ping("10.1.0.1"));
}

#[test]
fn a_killed_data_plane_fails_closed_and_its_successor_goes_on_with_the_same_numbers() {
    let lab = Lab::new("d");
    let mut daemon = lab.start();
    let mut control = Control::connect(&lab.socket());
    let (_, hot) = lab.hello(&mut control, None);
    control.done(config("in0"));
    control.done(Body::SetRole { role: Role::Active, term: 2 });
    assert_eq!(control.install(1, vec![sa()]), (1, 0, 0));
    daemon.kill();
    assert!(lab.has_program(), "the pinned program outlives the process");
    assert!(!lab.ping("10.1.0.1"), "nobody answers for the virtual address");
    assert!(lab.ping("10.1.0.2"), "all else passes");
    let _successor = lab.start();
    let mut control = Control::connect(&lab.socket());
    let (hello, _hot) = lab.hello(&mut control, Some(&hot));
    assert_eq!((hello.hot_state, hello.term), (HotStateOrigin::Adopted, 2));
    control.done(config("in0"));
    assert_eq!(control.install(2, vec![sa()]), (0, 1, 0), "known key, known numbers");
    assert!(lab.ping("10.1.0.1"));
    control.done(Body::Detach);
    assert!(!lab.has_program());
    assert!(!lab.ping("10.1.0.1"));
    assert!(lab.ping("10.1.0.2"));
}

#[test]
fn two_workers_share_an_interface_of_two_queues() {
    let lab = Lab::with_queues("e", 2);
    let _daemon = lab.start();
    let mut control = Control::connect(&lab.socket());
    lab.hello_with(&mut control, StartSettings { workers: 2, ..start_settings() }, None);
    control.done(config_with("in0", 2));
    control.done(Body::SetRole { role: Role::Active, term: 2 });
    run(&format!("ip -n {}h route add 10.2.0.0/24 via 10.1.0.1", lab.name));
    assert!(lab.ping("10.1.0.1"));
    // Many flows, so that both queues get some.
    for host in 1..=24 {
        run(&format!("ip netns exec {}h ping -c 1 -W 0.05 10.2.0.{host}", lab.name));
    }
    let status = control.status();
    assert_eq!(status.counters.dropped(DropReason::NoSa), 24);
    assert_eq!(status.workers.len(), 2);
    assert!(status.workers.iter().all(|worker| worker.rounds > 0));
    let link = || tandem_ebpf::attachment(&lab.bpffs().join("in0")).unwrap().unwrap().link_id;
    let before = link();
    let refused = control.ask(config_with("in0", 3), None).0.unwrap_err();
    assert!(refused.reason.contains("3 queues") && refused.reason.contains("2 workers"), "{refused}");
    assert!(lab.ping("10.1.0.1"), "a refused change of queues leaves the old ones in use");
    control.done(config_with("in0", 1));
    assert_eq!(link(), before, "no change of queues ever takes the program off the interface");
}

#[test]
fn a_virtual_address_that_the_kernel_has_too_is_refused_with_the_cure() {
    let lab = Lab::new("g");
    let _daemon = lab.start();
    let mut control = Control::connect(&lab.socket());
    lab.hello(&mut control, None);
    run(&format!("ip -n {}g addr add 10.1.0.1/24 dev in0", lab.name));
    std::thread::sleep(Duration::from_millis(200));
    let refused = control.ask(config("in0"), None).0.unwrap_err();
    assert!(refused.reason.contains("ip addr del 10.1.0.1/24 dev in0"), "{refused}");
    assert!(!lab.has_program());
}

#[test]
fn a_second_control_process_is_refused_and_nothing_is_done_before_hello() {
    let lab = Lab::new("h");
    let _daemon = lab.start();
    let mut first = Control::connect(&lab.socket());
    let early = first.ask(Body::Status, None).0.unwrap_err();
    assert!(early.reason.contains("Hello"), "{early}");
    lab.hello(&mut first, None);
    let second = Control::connect(&lab.socket());
    let mut octet = [0];
    assert_eq!(rustix::net::recv(&second.socket, &mut octet, RecvFlags::empty()).unwrap().0, 0, "closed");
    first.done(config("in0"));
    drop(first);
    let mut third = Control::connect(&lab.socket());
    let early = third.ask(Body::Status, None).0.unwrap_err();
    assert!(early.reason.contains("Hello"), "each connection says Hello: {early}");
    lab.hello(&mut third, None);
    third.status();
}

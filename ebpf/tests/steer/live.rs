//! Traffic over a veth pair, through the attached program, to the kernel and to an AF_XDP socket.

use crate::lab::{BEHIND, GATEWAY_ADDRESS, Lab, PEER_ADDRESS, in_lab, ip, udp};
use crate::setup::{prefix, socket};
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};
use tandem_ebpf::{Mode, Settings, Side, SteerCounter, SteerProgram};
use tandem_xsk::{Batch, FreeList, Port, XskPort};

const PORT: u16 = 4242;
const VIRTUAL_MAC: [u8; 6] = [0, 0, 0x0c, 7, 0xac, 9];

/// The gateway's program: 10.92.0.0/16 is protected, the gateway's address its own.
pub fn configured(lab: &Lab, active: bool) -> SteerProgram {
    let mut program = SteerProgram::load().expect("the program loads (root is needed)");
    configure(&mut program, lab.own_mac, active);
    program
}

pub fn configure(program: &mut SteerProgram, own_mac: [u8; 6], active: bool) {
    let settings = Settings { side: Side::Inside, own_mac, virtual_mac: Some(VIRTUAL_MAC) };
    program.set_settings(&settings).expect("settings");
    program.set_active(active).expect("the role");
    program.set_own_addresses(&[GATEWAY_ADDRESS]).expect("own addresses");
    program.set_protected(&[prefix("10.92.0.0", 16)]).expect("prefixes");
}

/// The kernel's ends of both kinds of traffic, and threads that count what arrives.
pub struct Kernel {
    counts: Arc<[AtomicUsize; 2]>,
}

impl Kernel {
    pub fn listen() -> Self {
        let counts = Arc::new([AtomicUsize::new(0), AtomicUsize::new(0)]);
        for (index, address) in [BEHIND, GATEWAY_ADDRESS].into_iter().enumerate() {
            let socket = udp(address, PORT);
            let counts = Arc::downgrade(&counts);
            std::thread::spawn(move || {
                let mut buffer = [0; 64];
                loop {
                    let received = socket.recv(&mut buffer).is_ok();
                    let Some(counts) = counts.upgrade() else { return };
                    counts[index].fetch_add(usize::from(received), Ordering::Relaxed);
                }
            });
        }
        Self { counts }
    }

    /// Exactly so many datagrams have arrived since the last time. What is to arrive has 10 s for it, and what is not to
    /// arrive has the time until nothing more comes.
    pub fn assert_arrived(&self, protected: usize, other: usize, situation: &str) {
        let counts = || [0, 1].map(|index| self.counts[index].load(Ordering::Relaxed));
        let until = Instant::now() + Duration::from_secs(10);
        let mut seen = counts();
        loop {
            std::thread::sleep(Duration::from_millis(100));
            let now = counts();
            let complete = now[0] >= protected && now[1] >= other;
            if now == seen && (complete || Instant::now() > until) {
                break;
            }
            seen = now;
        }
        let arrived = [0, 1].map(|index| self.counts[index].swap(0, Ordering::Relaxed));
        assert_eq!(arrived, [protected, other], "protected and other datagrams, {situation}");
    }
}

/// The peer sends so many datagrams of each kind.
pub fn send(lab: &Lab, count: usize) {
    lab.peer.run(move || {
        let socket = udp(PEER_ADDRESS, 0);
        for _ in 0..count {
            socket.send_to(b"protected", (BEHIND, PORT)).expect("sent");
            socket.send_to(b"other", (GATEWAY_ADDRESS, PORT)).expect("sent");
        }
    });
}

/// Datagrams of both kinds from the peer, until it is stopped.
pub struct Stream {
    on: Arc<AtomicBool>,
    sent: Receiver<usize>,
}

impl Stream {
    pub fn start(lab: &Lab) -> Self {
        let on = Arc::new(AtomicBool::new(true));
        let (told, sent) = channel();
        let go_on = on.clone();
        lab.peer.run(move || {
            // A socket keeps its namespace, whichever thread uses it.
            let socket = udp(PEER_ADDRESS, 0);
            std::thread::spawn(move || {
                let mut count = 0;
                while go_on.load(Ordering::Relaxed) {
                    socket.send_to(b"protected", (BEHIND, PORT)).expect("sent");
                    socket.send_to(b"other", (GATEWAY_ADDRESS, PORT)).expect("sent");
                    count += 1;
                    std::thread::sleep(Duration::from_micros(200));
                }
                told.send(count).expect("the test waits");
            });
        });
        Self { on, sent }
    }

    /// How many of each kind were sent.
    pub fn stop(self) -> usize {
        self.on.store(false, Ordering::Relaxed);
        self.sent.recv().expect("a count")
    }
}

/// UDP payloads that arrive in an AF_XDP socket until `count` are there, or for 2 s.
fn receive(port: &mut XskPort, free: &mut FreeList, umem: &tandem_xsk::Umem, count: usize) -> Vec<Vec<u8>> {
    let until = Instant::now() + Duration::from_secs(2);
    let mut payloads = Vec::new();
    let mut batch = Batch::new();
    while payloads.len() < count && Instant::now() < until {
        port.wake_receive();
        port.receive(&mut batch);
        for frame in batch.drain(..) {
            payloads.push(umem.data(&frame).get(42..).unwrap_or_default().to_vec());
            free.push(frame);
        }
        port.refill(free);
    }
    payloads
}

fn steers_live(mode: Mode) {
    in_lab(move |lab| {
        let kernel = Kernel::listen();
        send(lab, 10);
        kernel.assert_arrived(10, 10, "without a program");

        let mut program = configured(lab, true);
        program.attach(lab.ifindex, mode, &lab.pin("gw")).expect("attached");
        let (umem, mut port, mut free) = socket(lab.ifindex, 0);
        // veth spreads the flows over both queues.
        let (other_umem, mut other_port, mut other_free) = socket(lab.ifindex, 1);
        program.set_socket(0, port.fd()).expect("a socket");
        program.set_socket(1, other_port.fd()).expect("a socket");
        send(lab, 10);
        let mut payloads = receive(&mut port, &mut free, &umem, 10);
        if payloads.is_empty() {
            payloads = receive(&mut other_port, &mut other_free, &other_umem, 10);
        }
        assert_eq!(payloads, vec![b"protected".to_vec(); 10]);
        kernel.assert_arrived(0, 10, "with a data plane");

        program.clear_socket(0).expect("cleared");
        program.clear_socket(1).expect("cleared");
        send(lab, 10);
        kernel.assert_arrived(0, 10, "without a socket");
        let counters = program.counters().expect("counters");
        let counted =
            |wanted| counters.iter().find(|(counter, _)| *counter == wanted).map(|(_, value)| *value);
        assert_eq!(counted(SteerCounter::SteeredToProtected), Some(10));
        assert_eq!(counted(SteerCounter::FailClosed), Some(10));
    });
}

#[test]
fn protected_traffic_reaches_the_socket_and_other_traffic_the_kernel_in_native_mode() {
    steers_live(Mode::Native);
}

#[test]
fn protected_traffic_reaches_the_socket_and_other_traffic_the_kernel_in_generic_mode() {
    steers_live(Mode::Generic);
}

/// In generic mode, as on a network card. A veth in native mode keeps what it said about the receiver before the
/// program ran, so that the kernel drops the frame in spite of its new address.
#[test]
fn the_kernel_takes_what_came_for_the_virtual_mac_on_the_active_node_only() {
    in_lab(|lab| {
        let kernel = Kernel::listen();
        let text = VIRTUAL_MAC.map(|octet| format!("{octet:02x}")).join(":");
        lab.peer.run(move || {
            ip(&format!("neigh replace {GATEWAY_ADDRESS} lladdr {text} dev peer nud permanent"));
        });
        send(lab, 10);
        kernel.assert_arrived(0, 0, "sent to another MAC address");
        for (active, expected) in [(true, 10), (false, 0), (true, 10)] {
            let mut program = configured(lab, active);
            program.attach(lab.ifindex, Mode::Generic, &lab.pin("gw")).expect("attached");
            send(lab, 10);
            kernel.assert_arrived(0, expected, if active { "active" } else { "standby" });
        }
    });
}

/// While the set of prefixes is given anew again and again, an address that every version covers never passes.
#[test]
fn an_address_in_the_old_and_the_new_set_is_covered_at_all_times() {
    in_lab(|lab| {
        let sets = [
            vec![prefix("10.92.0.0", 16), prefix("10.94.0.0", 16)],
            vec![prefix("10.92.0.0", 17), prefix("10.95.0.0", 16), prefix("10.96.0.0", 16)],
            vec![prefix("0.0.0.0", 0)],
        ];
        let kernel = Kernel::listen();
        let mut program = configured(lab, true);
        program.attach(lab.ifindex, Mode::Native, &lab.pin("gw")).expect("attached");
        let stream = Stream::start(lab);
        let until = Instant::now() + Duration::from_secs(1);
        let mut changes = 0;
        while Instant::now() < until {
            program.set_protected(&sets[changes % sets.len()]).expect("set");
            changes += 1;
        }
        let sent = stream.stop();
        assert!(sent > 100 && changes > 100, "{sent} frames and {changes} changes prove nothing");
        kernel.assert_arrived(0, sent, "while the set changed");
    });
}

#[test]
fn a_frame_for_a_virtual_address_of_the_wrong_kind_never_reaches_the_kernel() {
    in_lab(|lab| {
        let kernel = Kernel::listen();
        let mut program = configured(lab, true);
        program.set_protected(&[]).expect("nothing protected");
        program.set_virtual_addresses(&[BEHIND]).expect("virtual");
        program.attach(lab.ifindex, Mode::Native, &lab.pin("gw")).expect("attached");
        send(lab, 10);
        kernel.assert_arrived(0, 10, "to a virtual address");
        program.set_virtual_addresses(&[Ipv4Addr::new(10, 92, 0, 2)]).expect("virtual");
        send(lab, 10);
        kernel.assert_arrived(10, 10, "to an address that is no longer virtual");
    });
}

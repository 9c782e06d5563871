//! Two network namespaces with a veth pair between them, and a BPF file system. None of them has a name, so that they
//! are gone with the threads in them, however the test ends.

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::gettid;
use std::net::{Ipv4Addr, UdpSocket};
use std::path::PathBuf;
use std::process::Command;
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

pub const GATEWAY_ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 91, 0, 1);
pub const PEER_ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 91, 0, 2);
/// Routed to the gateway by the peer, and answered there by the kernel unless XDP sees to it.
pub const BEHIND: Ipv4Addr = Ipv4Addr::new(10, 92, 0, 1);

/// The gateway's namespaces, which are those of the thread that the test body runs on.
pub struct Lab {
    pub ifindex: u32,
    pub own_mac: [u8; 6],
    pub peer_mac: [u8; 6],
    pub peer: Peer,
    folder: tempfile::TempDir,
}

impl Lab {
    /// A pin on the lab's own BPF file system.
    pub fn pin(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A folder on no BPF file system.
    pub fn elsewhere(&self) -> tempfile::TempDir {
        tempfile::tempdir().expect("a folder")
    }

    /// Makes the pair anew, with other interface indices.
    pub fn replace_interfaces(&mut self) {
        ip("link del gw");
        self.ifindex = connect(&self.peer);
        self.own_mac = mac("gw");
        self.peer_mac = self.peer.run(|| mac("peer"));
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        // Before the folder goes, and also when the test has failed; the namespace's end does the rest.
        nix::mount::umount2(self.folder.path(), nix::mount::MntFlags::MNT_DETACH).ok();
    }
}

/// The other end: a thread in a network namespace of its own that does what it is given.
pub struct Peer {
    tid: i32,
    jobs: Sender<Box<dyn FnOnce() + Send>>,
    _thread: JoinHandle<()>,
}

impl Peer {
    fn start() -> Self {
        let (jobs, queue) = channel::<Box<dyn FnOnce() + Send>>();
        let (told, tid) = channel();
        let thread = std::thread::spawn(move || {
            unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace (root is needed)");
            told.send(gettid().as_raw()).expect("the test waits");
            for job in queue {
                job();
            }
        });
        let tid = tid.recv().expect("the peer's thread");
        Self { tid, jobs, _thread: thread }
    }

    pub fn run<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> T {
        let (told, answer) = channel();
        self.jobs.send(Box::new(move || drop(told.send(job())))).expect("the peer runs");
        answer.recv().expect("the job did not panic")
    }
}

/// Runs a test body in a lab.
pub fn in_lab(body: impl FnOnce(&mut Lab) + Send + 'static) {
    let run = std::thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS).expect("namespaces (root is needed)");
        mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)
            .expect("mounts of our own");
        let folder = tempfile::Builder::new().prefix("tandem-ebpf-").tempdir().expect("a folder");
        assert!(tandem_ebpf::mount_bpffs(folder.path()).expect("bpffs"), "mounted now");
        let peer = Peer::start();
        let ifindex = connect(&peer);
        let (own_mac, peer_mac) = (mac("gw"), peer.run(|| mac("peer")));
        let mut lab = Lab { ifindex, own_mac, peer_mac, peer, folder };
        body(&mut lab);
    });
    if let Err(panic) = run.join() {
        std::panic::resume_unwind(panic);
    }
}

/// The veth pair "gw" - "peer" with two queues each; answers the index of "gw".
fn connect(peer: &Peer) -> u32 {
    ip("link set lo up");
    ip(&format!(
        "link add gw numrxqueues 2 numtxqueues 2 type veth peer name peer numrxqueues 2 numtxqueues 2 netns {}",
        peer.tid
    ));
    ip(&format!("addr add {GATEWAY_ADDRESS}/24 dev gw"));
    ip(&format!("addr replace {BEHIND}/32 dev lo"));
    ip("link set gw up");
    let gateway_mac = mac_text("gw");
    peer.run(move || {
        ip("link set lo up");
        ip(&format!("addr add {PEER_ADDRESS}/24 dev peer"));
        ip("link set peer up");
        ip(&format!("route add 10.92.0.0/16 via {GATEWAY_ADDRESS}"));
        ip(&format!("neigh replace {GATEWAY_ADDRESS} lladdr {gateway_mac} dev peer nud permanent"));
    });
    index("gw")
}

pub fn ip(arguments: &str) {
    let output = Command::new("ip").args(arguments.split(' ')).output().expect("ip starts");
    assert!(output.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&output.stderr));
}

fn link(name: &str) -> String {
    let output = Command::new("ip").args(["-o", "link", "show", "dev", name]).output().expect("ip starts");
    assert!(output.status.success(), "no {name}");
    String::from_utf8(output.stdout).expect("text")
}

pub fn index(name: &str) -> u32 {
    link(name).split(':').next().and_then(|index| index.trim().parse().ok()).expect("an index")
}

fn mac_text(name: &str) -> String {
    let line = link(name);
    let mut words = line.split_whitespace();
    words.find(|word| *word == "link/ether").expect("an Ethernet interface");
    words.next().expect("an address").to_owned()
}

pub fn mac(name: &str) -> [u8; 6] {
    let mut octets = [0; 6];
    for (octet, text) in octets.iter_mut().zip(mac_text(name).split(':')) {
        *octet = u8::from_str_radix(text, 16).expect("hexadecimal");
    }
    octets
}

/// A UDP socket of the calling thread's namespace that does not wait for long.
pub fn udp(address: Ipv4Addr, port: u16) -> UdpSocket {
    let socket = UdpSocket::bind((address, port)).expect("a socket");
    socket.set_read_timeout(Some(Duration::from_millis(200))).expect("a timeout");
    socket
}

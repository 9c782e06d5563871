//! The paths to the partner: a UDP socket for each (`failover.md` F17).

use super::seal::{Bad, EpochError, Seals};
use nix::sys::socket::{setsockopt, sockopt};
use std::io::{self, ErrorKind};
use std::net::{SocketAddr, SocketAddrV4, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};
use tandem_api::pair::{PairPath, PathStatus};
use tandem_shm::HotHeader;
use tandem_takeover::{MESSAGE_MAX, MS, Malformed, Nanos, PathSet};

/// Datagrams that are read from one path in one turn, at most.
const READ_MAX: usize = 256;
/// Errors in a row after which a socket is closed, and opened again later.
const ERRORS_MAX: usize = 8;
/// Octets of datagrams that may wait while the thread does not run.
const RECEIVE_BUFFER: usize = 4 << 20;
/// A path over which something came within this time is alive; for the status alone.
const ALIVE: Nanos = 100 * MS;
/// Between two attempts to open a socket.
const RETRY: Nanos = 1000 * MS;
/// Network control (RFC 4594 section 3.1), so that heartbeats do not wait behind traffic.
const TOS: i32 = 48 << 2;
/// Octets that are read of a datagram; a longer one is none of the partner's, and no tag fits it.
const DATAGRAM_MAX: usize = super::seal::HEADER + MESSAGE_MAX + super::seal::TAG + 64;

#[derive(Debug)]
struct Path {
    name: String,
    local: SocketAddrV4,
    remote: SocketAddrV4,
    socket: Option<UdpSocket>,
    retry: Nanos,
    heard: Option<Nanos>,
    status: PathStatus,
}

impl Path {
    /// Gives what an operator should know, once.
    fn open(&mut self, now: Nanos) -> Option<String> {
        match connected(self.local, self.remote) {
            Ok(socket) => {
                self.socket = Some(socket);
                None
            }
            Err(error) => {
                let first = self.retry == 0;
                self.retry = now + RETRY;
                first.then(|| {
                    format!(
                        "path {}: cannot use {} to {} ({error}); it is tried again every second: `ip addr` shows which \
                         addresses this node has, `ip route` how the partner is reached",
                        self.name, self.local, self.remote
                    )
                })
            }
        }
    }
}

/// How receiving went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Received {
    /// Everything that had arrived was read.
    pub drained: bool,
    /// Something came from the partner's address in an epoch that is not known here.
    pub overheard: bool,
}

/// All paths, and what they are sealed with.
#[derive(Debug)]
pub struct Paths {
    paths: Vec<Path>,
    seals: Seals,
    datagram: Vec<u8>,
    buffer: Box<[u8]>,
    warnings: Vec<String>,
}

impl Paths {
    /// Of node `node`. Sockets that cannot be opened now are tried again later.
    #[must_use]
    pub fn new(node: u8, paths: &[PairPath], now: Nanos) -> Self {
        let mut warnings = Vec::new();
        let path = |path: &PairPath| {
            let mut path = Path {
                name: path.name.clone(),
                local: path.local,
                remote: path.remote,
                socket: None,
                retry: 0,
                heard: None,
                status: PathStatus {
                    name: path.name.clone(),
                    local: path.local.to_string(),
                    remote: path.remote.to_string(),
                    ..PathStatus::default()
                },
            };
            warnings.extend(path.open(now));
            path
        };
        Self {
            paths: paths.iter().map(path).collect(),
            seals: Seals::new(node, paths.len() as u8),
            datagram: Vec::with_capacity(DATAGRAM_MAX),
            buffer: vec![0; DATAGRAM_MAX].into_boxed_slice(),
            warnings,
        }
    }

    /// As [`Seals::take_epoch`].
    ///
    /// # Errors
    /// As there.
    pub fn take_epoch(&mut self, number: u32, secret: &[u8], send: bool) -> Result<(), EpochError> {
        self.seals.take_epoch(number, secret, send)
    }

    /// Hands every authentic message to `hear`, which says if it could be read.
    pub fn receive(
        &mut self,
        now: Nanos,
        mut hear: impl FnMut(u8, &[u8]) -> Result<(), Malformed>,
    ) -> Received {
        let (mut drained, mut overheard) = (true, false);
        for (index, path) in self.paths.iter_mut().enumerate() {
            let (Some(socket), index) = (&path.socket, index as u8) else { continue };
            let (mut reads, mut errors, mut failed) = (0, 0, false);
            loop {
                match socket.recv_from(&mut self.buffer) {
                    Ok((length, from)) => {
                        let known = from == SocketAddr::V4(path.remote);
                        let datagram = self.buffer.get_mut(..length).filter(|_| known);
                        match datagram.map(|datagram| self.seals.open(index, datagram)) {
                            Some(Ok(message)) => {
                                path.heard = Some(now);
                                path.status.received += 1;
                                path.status.bad += u64::from(hear(index, message).is_err());
                            }
                            Some(Err(Bad::Replayed)) => path.status.replayed += 1,
                            Some(Err(bad)) => {
                                overheard |= bad == Bad::Epoch;
                                path.status.bad += 1;
                            }
                            None => path.status.bad += 1,
                        }
                    }
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                    // What an ICMP error or a signal leaves behind; a datagram may follow.
                    Err(_) if errors < ERRORS_MAX => errors += 1,
                    Err(_) => {
                        failed = true;
                        break;
                    }
                }
                reads += 1;
                if reads == READ_MAX {
                    drained = false;
                    break;
                }
            }
            if failed {
                path.socket = None;
                path.retry = now + RETRY;
            }
        }
        Received { drained, overheard }
    }

    /// Seals `message` for each path of the set and sends it; never waits.
    pub fn send(&mut self, set: PathSet, message: &[u8], header: &HotHeader) {
        for (index, path) in self.paths.iter_mut().enumerate() {
            let Some(counter) = header.path_counters.get(index) else { continue };
            if set & 1 << index == 0 || !self.seals.can_send() {
                continue;
            }
            let sent = match &path.socket {
                None => false,
                Some(socket) => {
                    self.seals.seal(index as u8, counter, message, &mut self.datagram).is_ok()
                        && socket.send(&self.datagram).is_ok()
                }
            };
            if sent {
                path.status.sent += 1;
            } else {
                path.status.send_errors += 1;
            }
        }
    }

    /// Opens sockets that are missing, if it is time to.
    pub fn reopen(&mut self, now: Nanos) {
        for path in self.paths.iter_mut().filter(|path| path.socket.is_none() && path.retry <= now) {
            self.warnings.extend(path.open(now));
        }
    }

    /// What an operator should know; each is given once.
    pub fn warnings(&mut self) -> std::vec::Drain<'_, String> {
        self.warnings.drain(..)
    }

    /// When a socket is to be opened again.
    #[must_use]
    pub fn next(&self) -> Option<Nanos> {
        self.paths.iter().filter(|path| path.socket.is_none()).map(|path| path.retry).min()
    }

    /// To be shown.
    #[must_use]
    pub fn status(&self, now: Nanos) -> Vec<PathStatus> {
        let status = |path: &Path| {
            let ago = path.heard.map(|heard| now.saturating_sub(heard));
            PathStatus {
                alive: ago.is_some_and(|ago| ago <= ALIVE),
                heard_us_ago: ago.map(|ago| ago / 1000),
                ..path.status.clone()
            }
        };
        self.paths.iter().map(status).collect()
    }

    /// What becomes readable when a datagram comes in.
    pub fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.paths.iter().filter_map(|path| path.socket.as_ref()).map(AsFd::as_fd)
    }
}

/// Connected, so that the kernel keeps what others than the partner send away from the thread.
fn connected(local: SocketAddrV4, remote: SocketAddrV4) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind(local)?;
    socket.connect(remote)?;
    socket.set_nonblocking(true)?;
    if setsockopt(&socket, sockopt::RcvBufForce, &RECEIVE_BUFFER).is_err() {
        // Up to net.core.rmem_max it takes no privilege.
        setsockopt(&socket, sockopt::RcvBuf, &RECEIVE_BUFFER)?;
    }
    setsockopt(&socket, sockopt::Ipv4Tos, &TOS)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;
    use std::sync::atomic::Ordering;
    use tandem_shm::HotState;

    /// Two nodes with a path over loopback, and a hot state for their counters.
    fn pair() -> (Paths, Paths, HotState) {
        let free = || {
            let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
            match socket.local_addr().unwrap() {
                SocketAddr::V4(address) => address,
                SocketAddr::V6(_) => unreachable!(),
            }
        };
        let (a, b) = (free(), free());
        let path = |local, remote| PairPath { name: "lo".into(), local, remote };
        let mut nodes = (Paths::new(0, &[path(a, b)], 0), Paths::new(1, &[path(b, a)], 0));
        nodes.0.take_epoch(1, &[3; 32], true).unwrap();
        nodes.1.take_epoch(1, &[3; 32], true).unwrap();
        (nodes.0, nodes.1, HotState::create(1).unwrap())
    }

    fn hear(paths: &mut Paths) -> Vec<Vec<u8>> {
        let mut heard = Vec::new();
        std::thread::sleep(std::time::Duration::from_millis(20));
        let received = paths.receive(5, |path, message| {
            assert_eq!(path, 0);
            heard.push(message.to_vec());
            Ok(())
        });
        assert_eq!(received, Received { drained: true, overheard: false });
        heard
    }

    #[test]
    fn a_message_arrives_once_and_strangers_are_not_heard() {
        let (mut a, mut b, hot) = pair();
        a.send(1, b"hello", hot.header());
        a.send(0b10, b"over a path that there is not", hot.header());
        assert_eq!(hear(&mut b), [b"hello"]);
        assert_eq!(hot.header().path_counters[0].load(Ordering::Relaxed), 1);
        let target = b.paths[0].local;
        // The partner's own octets again, from its own socket, and from another one; and noise.
        let again = a.datagram.clone();
        a.paths[0].socket.as_ref().unwrap().send_to(&again, target).unwrap();
        a.paths[0].socket.as_ref().unwrap().send_to(b"noise", target).unwrap();
        let stranger = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        stranger.send_to(&again, target).unwrap();
        assert!(hear(&mut b).is_empty());
        let status = &b.status(5 + ALIVE)[0];
        assert_eq!(
            (status.received, status.replayed, status.bad),
            (1, 1, 1),
            "the kernel keeps strangers away"
        );
        assert!(status.alive && !b.status(6 + ALIVE)[0].alive);
        assert_eq!(a.status(0)[0].sent, 1);
    }

    #[test]
    fn an_address_that_comes_later_is_bound_later_and_what_could_not_be_sent_is_counted() {
        // 198.51.100.0/24 is for documentation: no machine has it.
        let local: SocketAddrV4 = "198.51.100.7:3249".parse().unwrap();
        let path = PairPath { name: "sync".into(), local, remote: local };
        let mut paths = Paths::new(0, &[path], 1);
        paths.take_epoch(1, &[3; 32], true).unwrap();
        let hot = HotState::create(1).unwrap();
        paths.send(1, b"x", hot.header());
        assert_eq!(paths.status(0)[0].send_errors, 1);
        assert_eq!(paths.next(), Some(1 + RETRY));
        paths.paths[0].local = "127.0.0.1:0".parse().unwrap();
        paths.paths[0].remote = "127.0.0.1:3249".parse().unwrap();
        paths.reopen(RETRY);
        assert!(paths.paths[0].socket.is_none(), "not before its time");
        paths.reopen(1 + RETRY);
        assert!(paths.paths[0].socket.is_some() && paths.next().is_none());
    }

    #[test]
    fn a_partner_whose_key_is_not_known_is_overheard_and_nobody_else() {
        let (mut a, b, hot) = pair();
        let mut deaf = Paths { seals: Seals::new(1, 1), ..b };
        a.send(1, b"hello", hot.header());
        let stranger = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let listen = |deaf: &mut Paths| {
            std::thread::sleep(std::time::Duration::from_millis(20));
            deaf.receive(5, |_, _| panic!("nothing can be opened")).overheard
        };
        assert!(listen(&mut deaf));
        stranger.send_to(&a.datagram, deaf.paths[0].local).unwrap();
        assert!(!listen(&mut deaf));
    }

    #[test]
    fn without_a_key_nothing_leaves() {
        let (a, mut b, hot) = pair();
        let mut silent = Paths { seals: Seals::new(0, 1), ..a };
        silent.send(1, b"x", hot.header());
        assert!(hear(&mut b).is_empty());
        assert_eq!(hot.header().path_counters[0].load(Ordering::Relaxed), 0);
    }
}

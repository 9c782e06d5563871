//! Traffic over many SAs at once: a numbered flow each way, whose datagrams take the SAs in turn, and round trips.

use std::io::{IoSlice, IoSliceMut};
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::sys::socket::{
    ControlMessage, MsgFlags, SockaddrIn, recvmsg, sendmsg, setsockopt, sockopt::RcvBufForce,
};
use tandem_testbed::lab::Namespace;
use tandem_testbed::network::{HOST_A, Network};

/// UDP port of the flows, on both hosts.
const PORT: u16 = 7100;
/// Octets of each payload: number, then a pattern.
const PAYLOAD: usize = 200;
/// A sender that is later than this does not make up for it: it would send a burst that nobody asked for.
const LATE_MAX: Duration = Duration::from_millis(3);
/// How long the last datagrams may take.
const REST: Duration = Duration::from_millis(300);
/// A round trip that takes longer is lost.
const LOST_AFTER: Duration = Duration::from_millis(200);

/// What became of the flow of one way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Way {
    /// Datagrams that the sender's kernel took.
    pub sent: u64,
    /// Different ones that arrived.
    pub received: u64,
    /// Those of them that arrived before the sender had ended.
    pub in_time: u64,
    /// Arrived again.
    pub repeated: u64,
    /// Arrived with another content, or from another address.
    pub damaged: u64,
}

/// What became of the flows of both ways.
#[derive(Clone, Copy, Debug, Default)]
pub struct Passed {
    /// From site A to site B: outbound for the pair.
    pub there: Way,
    /// From site B to site A: inbound for the pair.
    pub back: Way,
    /// How long was sent, in seconds.
    pub seconds: f64,
}

impl Passed {
    /// Datagrams sent in a second, both ways.
    pub fn offered(&self) -> f64 {
        (self.there.sent + self.back.sent) as f64 / self.seconds
    }

    /// Datagrams that arrived in a second of sending, both ways.
    pub fn delivered(&self) -> f64 {
        (self.there.in_time + self.back.in_time) as f64 / self.seconds
    }

    /// The part that was lost, 0 to 1.
    pub fn loss(&self) -> f64 {
        let sent = self.there.sent + self.back.sent;
        1.0 - (self.there.received + self.back.received) as f64 / sent.max(1) as f64
    }

    /// Nothing arrived twice or damaged, and something each way.
    pub fn is_sound(&self) -> bool {
        [self.there, self.back].iter().all(|way| way.received > 0 && way.repeated == 0 && way.damaged == 0)
    }
}

/// Sends `per_second` datagrams a second, half of them each way, over the SAs of `remotes` in turn. Host B holds
/// these addresses.
///
/// # Errors
/// Where a socket cannot be made.
pub fn run(net: &Network, remotes: &[Ipv4Addr], per_second: f64, duration: Duration) -> Result<Passed> {
    let open = |host: &Namespace| {
        host.enter(|| {
            let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, PORT)).context("binding a flow")?;
            setsockopt(&socket, RcvBufForce, &(16 << 20))?;
            socket.set_read_timeout(Some(Duration::from_millis(20)))?;
            Ok(socket)
        })
    };
    let (a, b) = (open(&net.host_a)?, open(&net.host_b)?);
    let remote = |number: u64| remotes[number as usize % remotes.len()];
    let outbound = |number: u64| (HOST_A, remote(number));
    let inbound = |number: u64| (remote(number), HOST_A);
    let stop = AtomicBool::new(false);
    let counts = [AtomicU64::new(0), AtomicU64::new(0)];
    let pace = Pace { per_second: per_second / 2.0, duration };
    let start = Instant::now();
    std::thread::scope(|scope| {
        let receivers = [
            scope.spawn(|| receive(&b, outbound, pace, &stop, &counts[0])),
            scope.spawn(|| receive(&a, inbound, pace, &stop, &counts[1])),
        ];
        let senders =
            [scope.spawn(|| send(&a, outbound, pace, start)), scope.spawn(|| send(&b, inbound, pace, start))];
        let sent = senders.map(|sender| sender.join().expect("senders do not panic"));
        let seconds = start.elapsed().as_secs_f64();
        let in_time = [0, 1].map(|way: usize| counts[way].load(Ordering::Relaxed));
        rest(&counts, &sent);
        stop.store(true, Ordering::Relaxed);
        let mut ways = receivers.map(|receiver| receiver.join().expect("receivers do not panic"));
        for (index, way) in ways.iter_mut().enumerate() {
            (way.sent, way.in_time) = (sent[index], in_time[index]);
        }
        let [there, back] = ways;
        Ok(Passed { there, back, seconds })
    })
}

/// Waits until all has arrived, or nothing more does.
fn rest(counts: &[AtomicU64; 2], sent: &[u64; 2]) {
    let (mut seen, mut since) = (0, Instant::now());
    while since.elapsed() < REST {
        let now: u64 = counts.iter().map(|count| count.load(Ordering::Relaxed)).sum();
        if now >= sent.iter().sum() {
            return;
        }
        if now != seen {
            (seen, since) = (now, Instant::now());
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[derive(Clone, Copy)]
struct Pace {
    per_second: f64,
    duration: Duration,
}

fn pattern(number: u64) -> [u8; PAYLOAD] {
    let mut payload = [0; PAYLOAD];
    for (index, octet) in payload.iter_mut().enumerate() {
        *octet = (number as usize).wrapping_mul(31).wrapping_add(index) as u8;
    }
    payload[..8].copy_from_slice(&number.to_be_bytes());
    payload
}

/// Sends the numbers from 0 on, each from and to the addresses that `of` names; says how many the kernel took.
fn send(socket: &UdpSocket, of: impl Fn(u64) -> (Ipv4Addr, Ipv4Addr), pace: Pace, start: Instant) -> u64 {
    let (mut number, mut sent, mut skipped) = (0, 0, Duration::ZERO);
    loop {
        let now = start.elapsed();
        if now >= pace.duration {
            return sent;
        }
        let due = skipped + Duration::from_secs_f64(number as f64 / pace.per_second);
        if due > now {
            std::thread::sleep(due - now);
        } else if now - due > LATE_MAX {
            skipped += now - due;
        }
        let (from, to) = of(number);
        let info = libc::in_pktinfo {
            ipi_ifindex: 0,
            ipi_spec_dst: libc::in_addr { s_addr: u32::from_ne_bytes(from.octets()) },
            ipi_addr: libc::in_addr { s_addr: 0 },
        };
        let taken = sendmsg(
            socket.as_raw_fd(),
            &[IoSlice::new(&pattern(number))],
            &[ControlMessage::Ipv4PacketInfo(&info)],
            MsgFlags::empty(),
            Some(&SockaddrIn::from(SocketAddrV4::new(to, PORT))),
        );
        sent += u64::from(taken.is_ok());
        number += 1;
    }
}

/// Receives until told to stop. `count` follows what has arrived.
fn receive(
    socket: &UdpSocket,
    of: impl Fn(u64) -> (Ipv4Addr, Ipv4Addr),
    pace: Pace,
    stop: &AtomicBool,
    count: &AtomicU64,
) -> Way {
    let mut way = Way::default();
    // A number beyond what the rate allows is damage, not a reason to allocate.
    let mut seen = vec![false; (pace.per_second * pace.duration.as_secs_f64() * 1.1) as usize + 1000];
    let mut buffer = [0; 2048];
    while !stop.load(Ordering::Relaxed) {
        let mut parts = [IoSliceMut::new(&mut buffer)];
        let Ok(message) = recvmsg::<SockaddrIn>(socket.as_raw_fd(), &mut parts, None, MsgFlags::empty())
        else {
            continue;
        };
        let (length, source) = (message.bytes, message.address);
        let number = buffer.first_chunk().map_or(u64::MAX, |head| u64::from_be_bytes(*head));
        let Some(seen) = seen.get_mut(usize::try_from(number).unwrap_or(usize::MAX)) else {
            way.damaged += 1;
            continue;
        };
        if source.is_none_or(|source| source.ip() != of(number).0) || buffer[..length] != pattern(number) {
            way.damaged += 1;
        } else if std::mem::replace(seen, true) {
            way.repeated += 1;
        } else {
            way.received += 1;
            count.store(way.received, Ordering::Relaxed);
        }
    }
    way
}

/// Round trips from host A to `remotes` in turn and back, one after the other with a pause of a millisecond, to an
/// [`tandem_testbed::traffic::echo::Echo`]: microseconds of each, and how many were lost.
///
/// # Errors
/// Where the socket cannot be made or nothing can be sent.
pub fn round_trips(
    net: &Network,
    remotes: &[Ipv4Addr],
    port: u16,
    duration: Duration,
) -> Result<(Vec<f64>, u64)> {
    let socket = net.host_a.enter(|| {
        let socket = UdpSocket::bind((HOST_A, 0)).context("binding the asker")?;
        socket.set_read_timeout(Some(LOST_AFTER))?;
        Ok(socket)
    })?;
    let (mut micros, mut lost) = (Vec::new(), 0);
    let start = Instant::now();
    let mut buffer = [0; 2048];
    for (number, remote) in remotes.iter().cycle().enumerate() {
        if start.elapsed() >= duration {
            break;
        }
        let payload = pattern(number as u64);
        let asked = Instant::now();
        socket.send_to(&payload, (*remote, port)).with_context(|| format!("asking {remote}"))?;
        let took = loop {
            match socket.recv_from(&mut buffer) {
                Ok((length, _)) if buffer[..length] == payload => break Some(asked.elapsed()),
                // A late answer to an earlier one.
                Ok(_) if asked.elapsed() < LOST_AFTER => {}
                _ => break None,
            }
        };
        match took {
            Some(took) => micros.push(took.as_secs_f64() * 1e6),
            None => lost += 1,
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok((micros, lost))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loss_and_rates_come_from_both_ways() {
        let way = |sent, received, in_time| Way { sent, received, in_time, repeated: 0, damaged: 0 };
        let mut passed = Passed { there: way(100, 100, 90), back: way(100, 50, 50), seconds: 2.0 };
        assert_eq!((passed.offered(), passed.delivered(), passed.loss()), (100.0, 70.0, 0.25));
        assert!(passed.is_sound());
        passed.back.repeated = 1;
        assert!(!passed.is_sound());
        assert!(!Passed { there: way(1, 0, 0), ..passed }.is_sound());
    }

    #[test]
    fn a_payload_tells_its_number() {
        assert_ne!(pattern(1), pattern(2));
        assert_ne!(pattern(1)[8..], pattern(2)[8..]);
    }
}

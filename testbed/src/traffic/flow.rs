//! A numbered one-way UDP flow: every datagram carries its number, the time it was sent and a pattern,
//! so that loss, repetition, reordering, damage, gaps and delay are all seen.

use super::arrivals::Arrivals;
use crate::lab::Namespace;
use anyhow::{Context, Result};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, SockaddrIn, recvmsg, setsockopt, sockopt};
use std::io::IoSliceMut;
use std::net::{Ipv4Addr, UdpSocket};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

/// Number and time of sending, before the pattern.
const HEAD: usize = 16;

/// What to send.
#[derive(Clone, Copy, Debug)]
pub struct FlowSettings {
    /// Address of the sender; it must be an address of the sending namespace.
    pub from: Ipv4Addr,
    /// Address of the receiver.
    pub to: Ipv4Addr,
    /// UDP port of both.
    pub port: u16,
    /// Datagrams a second.
    pub per_second: u32,
    /// Octets of each UDP payload, at least 16.
    pub payload: usize,
}

/// A flow that runs.
#[derive(Debug)]
pub struct Flow {
    stop: Arc<AtomicBool>,
    received_so_far: Arc<AtomicU64>,
    epoch: Instant,
    sender: JoinHandle<Sender>,
    receiver: JoinHandle<Receiver>,
    stop_receiver: Arc<AtomicBool>,
    per_second: u32,
}

#[derive(Debug, Default)]
struct Sender {
    sent: u64,
    refused: u64,
}

#[derive(Debug, Default)]
struct Receiver {
    /// Time of arrival (nanoseconds since the start of the flow) by number; 0 for what has not come.
    arrivals: Vec<u64>,
    delays_us: Vec<f64>,
    received: u64,
    repeated: u64,
    reordered: u64,
    damaged: u64,
    highest: Option<u64>,
    last_arrival: Option<u64>,
    longest_gap: u64,
}

/// What became of a flow.
#[derive(Clone, Debug)]
pub struct FlowResult {
    /// Datagrams that the sender's kernel took.
    pub sent: u64,
    /// Datagrams that the sender's kernel refused (no route, link down).
    pub refused: u64,
    /// Different datagrams that arrived.
    pub received: u64,
    /// Datagrams that arrived again.
    pub repeated: u64,
    /// Datagrams that arrived after a later one.
    pub reordered: u64,
    /// Datagrams that arrived with another content or length.
    pub damaged: u64,
    /// Longest time between two arrivals in milliseconds.
    pub longest_gap_ms: f64,
    /// Median delay in microseconds.
    pub delay_us_p50: f64,
    /// 99th percentile of the delay in microseconds.
    pub delay_us_p99: f64,
    /// Numbers that never arrived.
    pub missing: Vec<u64>,
    /// Datagrams a second that were wanted.
    pub per_second: u32,
    /// When the different datagrams arrived, the earliest first.
    pub arrivals: Arrivals,
}

impl FlowResult {
    /// Datagrams that were sent and never arrived.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.missing.len() as u64
    }

    /// The missing numbers in one line, as runs.
    #[must_use]
    pub fn missing_text(&self) -> String {
        let mut runs: Vec<(u64, u64)> = Vec::new();
        for &number in &self.missing {
            match runs.last_mut() {
                Some((_, last)) if *last + 1 == number => *last = number,
                _ => runs.push((number, number)),
            }
        }
        let shown: Vec<String> =
            runs.iter().take(8).map(|(first, last)| format!("{first}..={last}")).collect();
        format!("{}{}", shown.join(" "), if runs.len() > 8 { " ..." } else { "" })
    }

    /// One line for a reader.
    #[must_use]
    pub fn summary(&self) -> String {
        format!(
            "sent {} received {} lost {} repeated {} reordered {} damaged {} refused {}, longest gap {:.1} ms, delay p50 {:.0} us p99 {:.0} us{}",
            self.sent,
            self.received,
            self.lost(),
            self.repeated,
            self.reordered,
            self.damaged,
            self.refused,
            self.longest_gap_ms,
            self.delay_us_p50,
            self.delay_us_p99,
            if self.missing.is_empty() {
                String::new()
            } else {
                format!(", missing {}", self.missing_text())
            }
        )
    }

    /// Nothing lost, repeated or damaged, and something sent.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.sent > 0
            && self.missing.is_empty()
            && self.repeated == 0
            && self.damaged == 0
            && self.refused == 0
    }
}

impl Flow {
    /// Starts sending and receiving.
    ///
    /// # Errors
    /// Where a socket cannot be made.
    pub fn start(sender: &Namespace, receiver: &Namespace, settings: FlowSettings) -> Result<Self> {
        let into = receiver.enter(|| {
            let socket = UdpSocket::bind((settings.to, settings.port)).context("binding the receiver")?;
            setsockopt(&socket, sockopt::RcvBufForce, &(8 << 20))?;
            setsockopt(&socket, sockopt::ReceiveTimestampns, &true)?;
            socket.set_read_timeout(Some(Duration::from_millis(50)))?;
            Ok(socket)
        })?;
        // A socket made under this setting sends without DF for good.
        sender.sysctl("net/ipv4/ip_no_pmtu_disc", "1")?;
        let from =
            sender.enter(|| UdpSocket::bind((settings.from, settings.port)).context("binding the sender"));
        sender.sysctl("net/ipv4/ip_no_pmtu_disc", "0")?;
        let from = from?;
        let stop = Arc::new(AtomicBool::new(false));
        let stop_receiver = Arc::new(AtomicBool::new(false));
        let received_so_far = Arc::new(AtomicU64::new(0));
        let epoch = Instant::now();
        Ok(Self {
            sender: std::thread::spawn({
                let stop = Arc::clone(&stop);
                move || sending(&from, settings, &stop, epoch)
            }),
            receiver: std::thread::spawn({
                let stop = Arc::clone(&stop_receiver);
                let received = Arc::clone(&received_so_far);
                move || receiving(&into, settings, &stop, epoch, &received)
            }),
            stop,
            stop_receiver,
            received_so_far,
            epoch,
            per_second: settings.per_second,
        })
    }

    /// Datagrams that have arrived so far.
    #[must_use]
    pub fn received(&self) -> u64 {
        self.received_so_far.load(Ordering::Relaxed)
    }

    /// Time since the start.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.epoch.elapsed()
    }

    /// Waits until another `count` datagrams have arrived.
    ///
    /// # Errors
    /// Where they have not within `limit`.
    pub fn wait_for_arrivals(&self, count: u64, limit: Duration) -> Result<Duration> {
        let start = Instant::now();
        let goal = self.received() + count;
        while self.received() < goal {
            anyhow::ensure!(start.elapsed() < limit, "no {count} datagrams arrived within {limit:?}");
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(start.elapsed())
    }

    /// Ends the flow: sending at once, receiving half a second later.
    ///
    /// # Errors
    /// Where a thread panicked.
    pub fn stop(self) -> Result<FlowResult> {
        self.stop.store(true, Ordering::Relaxed);
        let sender = self.sender.join().map_err(|_| anyhow::anyhow!("the sender panicked"))?;
        std::thread::sleep(Duration::from_millis(500));
        self.stop_receiver.store(true, Ordering::Relaxed);
        let receiver = self.receiver.join().map_err(|_| anyhow::anyhow!("the receiver panicked"))?;
        Ok(result(&sender, receiver, self.per_second, self.epoch))
    }
}

fn nanoseconds(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_nanos()).unwrap_or(u64::MAX)
}

/// The octets after number and time: they depend on the number, so that a mix-up is seen.
fn pattern(number: u64, octets: &mut [u8]) {
    for (octet, index) in octets.iter_mut().zip(0_u64..) {
        *octet = (number.wrapping_mul(31).wrapping_add(index) & 0xff) as u8;
    }
}

fn sending(socket: &UdpSocket, settings: FlowSettings, stop: &AtomicBool, epoch: Instant) -> Sender {
    hurry();
    let mut result = Sender::default();
    let mut payload = vec![0; settings.payload.max(HEAD)];
    let mut number = 0_u64;
    while !stop.load(Ordering::Relaxed) {
        let due = Duration::from_secs_f64(crate::report::count(number) / f64::from(settings.per_second));
        std::thread::sleep(due.saturating_sub(epoch.elapsed()));
        payload[..8].copy_from_slice(&number.to_be_bytes());
        pattern(number, &mut payload[HEAD..]);
        payload[8..HEAD].copy_from_slice(&nanoseconds(epoch).to_be_bytes());
        match socket.send_to(&payload, (settings.to, settings.port)) {
            Ok(_) => result.sent += 1,
            Err(_) => result.refused += 1,
        }
        number += 1;
    }
    result
}

/// The next datagram: its length, its source, and the kernel's time of its arrival (since the Unix epoch).
fn receive(socket: &UdpSocket, buffer: &mut [u8]) -> Option<(usize, Ipv4Addr, Option<Duration>)> {
    let mut control = nix::cmsg_space!(libc::timespec);
    let mut parts = [IoSliceMut::new(buffer)];
    let message =
        recvmsg::<SockaddrIn>(socket.as_raw_fd(), &mut parts, Some(&mut control), MsgFlags::empty()).ok()?;
    let at = message.cmsgs().ok()?.find_map(|control| match control {
        ControlMessageOwned::ScmTimestampns(time) => Some(Duration::from(time)),
        _ => None,
    });
    Some((message.bytes, message.address?.ip(), at))
}

/// Probes leave on time also where other work wants the CPU; else the prober's own pauses would look like outages.
/// Where the kernel refuses the priority, they are sent as everything else is.
fn hurry() {
    let thread = nix::unistd::gettid().to_string();
    let _ = std::process::Command::new("chrt").args(["--fifo", "--pid", "2", &thread]).output();
}

fn receiving(
    socket: &UdpSocket,
    settings: FlowSettings,
    stop: &AtomicBool,
    epoch: Instant,
    received: &AtomicU64,
) -> Receiver {
    let mut result = Receiver::default();
    let mut buffer = vec![0; 65536];
    let mut expected = vec![0; settings.payload.max(HEAD) - HEAD];
    // The flow's start on the clock of the kernel's timestamps.
    let start = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default()
        .saturating_sub(epoch.elapsed());
    while !stop.load(Ordering::Relaxed) {
        let Some((length, source, at)) = receive(socket, &mut buffer) else { continue };
        // When the host had it, not when this thread came to read it: outages are the gateways' alone.
        let now = at
            .and_then(|at| u64::try_from(at.saturating_sub(start).as_nanos()).ok())
            .unwrap_or_else(|| nanoseconds(epoch));
        let datagram = &buffer[..length];
        let Some((number, rest)) = datagram.split_first_chunk::<8>() else {
            result.damaged += 1;
            continue;
        };
        let Some((sent, body)) = rest.split_first_chunk::<8>() else {
            result.damaged += 1;
            continue;
        };
        let (number, sent) = (u64::from_be_bytes(*number), u64::from_be_bytes(*sent));
        pattern(number, &mut expected);
        // A number far beyond what the rate allows is damage, not a reason to allocate.
        let possible = (epoch.elapsed().as_secs() + 2) * u64::from(settings.per_second);
        if body != expected || number > possible || source != settings.from {
            result.damaged += 1;
            continue;
        }
        let index = usize::try_from(number).unwrap_or(0);
        if result.arrivals.len() <= index {
            result.arrivals.resize(index + 1, 0);
        }
        if result.arrivals[index] != 0 {
            result.repeated += 1;
            continue;
        }
        result.arrivals[index] = now.max(1);
        result.delays_us.push(crate::report::count(now.saturating_sub(sent)) / 1e3);
        result.received += 1;
        received.store(result.received, Ordering::Relaxed);
        if result.highest.is_some_and(|highest| number < highest) {
            result.reordered += 1;
        }
        result.highest = result.highest.max(Some(number));
        if let Some(last) = result.last_arrival {
            result.longest_gap = result.longest_gap.max(now - last);
        }
        result.last_arrival = Some(now);
    }
    result
}

fn result(sender: &Sender, mut receiver: Receiver, per_second: u32, epoch: Instant) -> FlowResult {
    receiver.delays_us.sort_by(f64::total_cmp);
    let at =
        |share: usize| receiver.delays_us.get(receiver.delays_us.len() * share / 100).copied().unwrap_or(0.0);
    let numbers = sender.sent + sender.refused;
    let missing = (0..numbers)
        .filter(|&number| {
            usize::try_from(number)
                .ok()
                .and_then(|index| receiver.arrivals.get(index))
                .is_none_or(|&at| at == 0)
        })
        .collect::<Vec<_>>();
    FlowResult {
        sent: sender.sent,
        refused: sender.refused,
        received: receiver.received,
        repeated: receiver.repeated,
        reordered: receiver.reordered,
        damaged: receiver.damaged,
        longest_gap_ms: crate::report::count(receiver.longest_gap) / 1e6,
        delay_us_p50: at(50),
        delay_us_p99: at(99),
        missing,
        per_second,
        arrivals: Arrivals::new(
            receiver
                .arrivals
                .iter()
                .filter(|&&at| at > 0)
                .map(|&at| epoch + Duration::from_nanos(at))
                .collect(),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn on_loopback(port: u16) -> (UdpSocket, UdpSocket) {
        let sender = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a socket");
        let receiver = UdpSocket::bind((Ipv4Addr::LOCALHOST, port)).expect("a socket");
        receiver.set_read_timeout(Some(Duration::from_millis(20))).expect("a time");
        (sender, receiver)
    }

    fn datagram(number: u64, payload: usize) -> Vec<u8> {
        let mut datagram = vec![0; payload];
        datagram[..8].copy_from_slice(&number.to_be_bytes());
        pattern(number, &mut datagram[HEAD..]);
        datagram
    }

    #[test]
    fn loss_repetition_reordering_and_damage_are_each_seen() {
        let (sender, receiver) = on_loopback(0);
        let to = receiver.local_addr().expect("bound");
        let stop = Arc::new(AtomicBool::new(false));
        let settings = FlowSettings {
            from: Ipv4Addr::LOCALHOST,
            to: Ipv4Addr::LOCALHOST,
            port: to.port(),
            per_second: 1000,
            payload: 100,
        };
        let thread = std::thread::spawn({
            let stop = Arc::clone(&stop);
            move || receiving(&receiver, settings, &stop, Instant::now(), &AtomicU64::new(0))
        });
        // 2 is lost, 4 comes before 3, 5 comes twice, 6 is damaged, 7 is short.
        for number in [0, 1, 4, 3, 5, 5] {
            sender.send_to(&datagram(number, 100), to).expect("sent");
        }
        let mut damaged = datagram(6, 100);
        damaged[50] ^= 1;
        sender.send_to(&damaged, to).expect("sent");
        sender.send_to(&datagram(7, 100)[..99], to).expect("sent");
        std::thread::sleep(Duration::from_millis(200));
        stop.store(true, Ordering::Relaxed);
        let seen =
            result(&Sender { sent: 8, refused: 0 }, thread.join().expect("no panic"), 1000, Instant::now());
        assert_eq!((seen.received, seen.repeated, seen.reordered, seen.damaged), (5, 1, 1, 2));
        assert_eq!(seen.missing, [2, 6, 7]);
        assert_eq!(seen.missing_text(), "2..=2 6..=7");
        assert!(!seen.is_whole());
    }
}

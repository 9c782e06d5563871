//! What the fast path cannot finish, as a state machine without I/O: ARP and ping for the virtual
//! addresses, ICMP errors, packets that wait for a neighbour.
//!
//! Workers hand frames over as [`Punt`]s and get every one of them back as a [`Return`]; a frame never
//! changes its worker. Everything is bounded: what waits for each next hop and in all, ICMP errors
//! by a token bucket.

use crate::fib::PortIndex;
use crate::policy::Action;
use crate::tables::Tables;
use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::time::Duration;
use tandem_api::counters::{DropReason, SlowCounter};
use tandem_api::types::Side;
use tandem_wire::{arp, ethernet, icmp, ipv4};
use tandem_xsk::{Frame, HEADROOM, Umem};

/// Frames that may wait for one next hop.
const HELD_PER_NEXT_HOP: usize = 32;
/// Frames that may wait in all, as a share of a worker's UMEM: one in this many.
const HELD_SHARE: u32 = 8;
/// How long a frame waits for its next hop.
const HOLD: Duration = Duration::from_millis(1500);
/// ICMP errors a second, and in a burst.
const ICMP_PER_SECOND: u32 = 1000;
const ICMP_BURST: u32 = 200;

/// A frame for the slow path.
#[derive(Debug)]
pub struct Punt {
    /// The frame: for [`PuntKind::Arp`] with its Ethernet header, otherwise an IP packet.
    pub frame: Frame,
    /// Interface it came in by.
    pub ingress: PortIndex,
    /// What is to be done.
    pub kind: PuntKind,
}

/// What the slow path is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PuntKind {
    /// Answer, if it asks for a virtual address.
    Arp,
    /// ICMP for a virtual address.
    Local,
    /// Tell the source that the TTL ran out. The packet is counted as dropped already.
    TimeExceeded,
    /// Tell the source that the packet is too long. It is counted as dropped already.
    FragmentationNeeded {
        /// Longest packet that fits, in octets.
        mtu: u16,
    },
    /// Keep the finished IP packet until the next hop is resolved.
    Unresolved {
        /// Interface.
        port: PortIndex,
        /// Next hop, host byte order.
        next_hop: u32,
    },
}

/// A frame on its way back to its worker.
#[derive(Debug)]
pub struct Return {
    /// The frame.
    pub frame: Frame,
    /// What is to be done.
    pub kind: ReturnKind,
}

/// What a worker is to do with a frame that it gets back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReturnKind {
    /// Put it among the free ones.
    Free,
    /// Send it as it is, with its Ethernet header.
    Frame {
        /// Interface.
        port: PortIndex,
    },
    /// An IP packet that the gateway made: policy, then routes.
    Originate,
    /// A finished IP packet whose next hop should be resolved by now.
    Resume {
        /// Interface that it waited for, and that alone it may leave by: the routes may have changed since.
        port: PortIndex,
    },
}

/// Counters of the slow path; the daemon owns them.
#[derive(Clone, Debug)]
pub struct SlowCounts {
    /// By [`SlowCounter`].
    pub counters: [u64; SlowCounter::COUNT],
    /// By [`DropReason`].
    pub drops: [u64; DropReason::COUNT],
}

impl Default for SlowCounts {
    fn default() -> Self {
        Self { counters: [0; SlowCounter::COUNT], drops: [0; DropReason::COUNT] }
    }
}

impl SlowCounts {
    fn add(&mut self, counter: SlowCounter) {
        self.counters[counter as usize] += 1;
    }

    fn drop(&mut self, reason: DropReason) {
        self.drops[reason as usize] += 1;
    }
}

/// What the slow path wants done.
#[derive(Debug)]
pub enum Step {
    /// Give the frame back to the worker it came from.
    Return(Return),
    /// The frame waits; ask the kernel for this next hop.
    Ask {
        /// Interface.
        port: PortIndex,
        /// Next hop, host byte order.
        next_hop: u32,
    },
    /// The frame waits; the kernel has been asked already.
    Held,
}

/// A frame that waits.
#[derive(Debug)]
struct Held {
    worker: usize,
    frame: Frame,
    until: Duration,
}

/// The state machine. Time is what has passed since some fixed moment.
#[derive(Debug)]
pub struct SlowPath {
    tables: Tables,
    held: HashMap<(PortIndex, u32), Vec<Held>>,
    held_count: usize,
    icmp: TokenBucket,
    counts: SlowCounts,
}

impl Default for SlowPath {
    fn default() -> Self {
        Self::new()
    }
}

impl SlowPath {
    /// Nothing configured, nothing waits.
    #[must_use]
    pub fn new() -> Self {
        Self {
            tables: Tables::default(),
            held: HashMap::new(),
            held_count: 0,
            icmp: TokenBucket::new(ICMP_PER_SECOND, ICMP_BURST),
            counts: SlowCounts::default(),
        }
    }

    /// Takes over a new configuration.
    pub fn configure(&mut self, tables: Tables) {
        self.tables = tables;
    }

    /// What was counted.
    #[must_use]
    pub fn counts(&self) -> SlowCounts {
        let mut counts = self.counts.clone();
        counts.counters[SlowCounter::Held as usize] = self.held_count as u64;
        counts
    }

    /// A frame from `worker`, whose memory is `umem`.
    pub fn handle(&mut self, worker: usize, punt: Punt, umem: &Umem, now: Duration) -> Step {
        let Punt { mut frame, ingress, kind } = punt;
        let done = match kind {
            PuntKind::Unresolved { port, next_hop } => {
                return self.hold(worker, frame, port, next_hop, umem, now);
            }
            PuntKind::Arp => self.arp(&mut frame, ingress, umem),
            PuntKind::Local => self.local(&mut frame, umem),
            PuntKind::TimeExceeded => {
                return self.icmp_error(frame, ingress, icmp::ErrorKind::TimeExceeded, umem, now);
            }
            PuntKind::FragmentationNeeded { mtu } => {
                let kind = icmp::ErrorKind::FragmentationNeeded { mtu };
                return self.icmp_error(frame, ingress, kind, umem, now);
            }
        };
        let kind = match done {
            Ok(kind) => {
                self.counts.add(SlowCounter::Answered);
                kind
            }
            Err(reason) => {
                self.counts.drop(reason);
                ReturnKind::Free
            }
        };
        Step::Return(Return { frame, kind })
    }

    fn arp(&mut self, frame: &mut Frame, ingress: PortIndex, umem: &Umem) -> Result<ReturnKind, DropReason> {
        let invalid = DropReason::ArpInvalid;
        let port = self.tables.port(ingress).ok_or(invalid)?;
        let data = umem.data_mut(frame);
        let (_, payload) = ethernet::parse(data).map_err(|_| invalid)?;
        let request = arp::parse_request(payload).ok_or(invalid)?;
        if !port.virtual_addresses.contains(&request.target_ip.to_bits()) {
            return Err(invalid);
        }
        let len = arp::write_reply(data, &request, port.virtual_mac).ok_or(invalid)?;
        frame.truncate(len);
        self.counts.add(SlowCounter::ArpReplies);
        Ok(ReturnKind::Frame { port: ingress })
    }

    fn local(&mut self, frame: &mut Frame, umem: &Umem) -> Result<ReturnKind, DropReason> {
        let data = umem.data_mut(frame);
        let len = icmp::echo_reply_in_place(data).map_err(|error| match error {
            // A whole message of another type is not invalid, only none that is answered.
            icmp::NoReply::NotEchoRequest if is_whole(data) => DropReason::LocalUnhandled,
            _ => DropReason::IcmpInvalid,
        })?;
        frame.truncate(len);
        self.counts.add(SlowCounter::EchoReplies);
        Ok(ReturnKind::Originate)
    }

    /// Turns the frame into an ICMP error about the packet that it holds, or frees it.
    fn icmp_error(
        &mut self,
        mut frame: Frame,
        ingress: PortIndex,
        kind: icmp::ErrorKind,
        umem: &Umem,
        now: Duration,
    ) -> Step {
        let mut error = [0; icmp::MAX_ERROR_LEN];
        let written = self.error_source(umem.data(&frame), ingress).and_then(|source| {
            let len = icmp::build_error(kind, source, umem.data(&frame), &mut error)?;
            self.icmp.take(now).then_some(len)
        });
        let kind = match written {
            Some(len) => {
                frame.reset(HEADROOM);
                if frame.push_back(len).is_ok() {
                    umem.data_mut(&mut frame).copy_from_slice(&error[..len]);
                }
                self.counts.add(match kind {
                    icmp::ErrorKind::TimeExceeded => SlowCounter::TimeExceeded,
                    icmp::ErrorKind::FragmentationNeeded { .. } => SlowCounter::FragmentationNeeded,
                });
                ReturnKind::Originate
            }
            None => {
                self.counts.add(SlowCounter::IcmpSuppressed);
                ReturnKind::Free
            }
        };
        Step::Return(Return { frame, kind })
    }

    /// Which of our addresses speaks to the source of `packet`: of those that a tunnel to it covers the
    /// first, else one of the interface that the packet came in by.
    fn error_source(&self, packet: &[u8], ingress: PortIndex) -> Option<Ipv4Addr> {
        let source = ipv4::parse(packet).ok()?.header.src();
        let tunnelled = self
            .tables
            .ports()
            .filter(|port| port.side == Side::Inside)
            .flat_map(|port| port.virtual_addresses.iter().copied())
            .find(|&address| {
                matches!(self.tables.policies.lookup(address, source), Some(Action::Protect { .. }))
            });
        tunnelled
            .or_else(|| self.tables.port(ingress)?.virtual_addresses.first().copied())
            .map(Ipv4Addr::from_bits)
    }

    fn hold(
        &mut self,
        worker: usize,
        frame: Frame,
        port: PortIndex,
        next_hop: u32,
        umem: &Umem,
        now: Duration,
    ) -> Step {
        let most = (umem.frames() / HELD_SHARE) as usize;
        let waiting = self.held.get(&(port, next_hop)).map_or(0, Vec::len);
        if waiting >= HELD_PER_NEXT_HOP || self.held_count >= most {
            self.counts.drop(DropReason::NeighbourUnresolved);
            return Step::Return(Return { frame, kind: ReturnKind::Free });
        }
        let waiting = self.held.entry((port, next_hop)).or_default();
        let first = waiting.is_empty();
        waiting.push(Held { worker, frame, until: now + HOLD });
        self.held_count += 1;
        if first {
            self.counts.add(SlowCounter::NeighboursRequested);
            Step::Ask { port, next_hop }
        } else {
            Step::Held
        }
    }

    /// Gives back what waited for a next hop that `is_resolved` now, and what has waited too long, to
    /// (worker, frame); next hops that nothing waits for any more are abandoned.
    pub fn release(
        &mut self,
        now: Duration,
        is_resolved: impl Fn(PortIndex, u32) -> bool,
        mut give: impl FnMut(usize, Return),
        mut abandon: impl FnMut(PortIndex, u32),
    ) {
        let (counts, held_count) = (&mut self.counts, &mut self.held_count);
        self.held.retain(|&(port, next_hop), waiting| {
            if is_resolved(port, next_hop) {
                for Held { worker, frame, .. } in waiting.drain(..) {
                    *held_count -= 1;
                    counts.add(SlowCounter::Resumed);
                    give(worker, Return { frame, kind: ReturnKind::Resume { port } });
                }
                return false;
            }
            // In order of arrival, so the ones that have waited too long come first.
            while waiting.first().is_some_and(|held| held.until <= now) {
                let Held { worker, frame, .. } = waiting.remove(0);
                *held_count -= 1;
                counts.drop(DropReason::NeighbourUnresolved);
                give(worker, Return { frame, kind: ReturnKind::Free });
            }
            if waiting.is_empty() {
                abandon(port, next_hop);
            }
            !waiting.is_empty()
        });
    }

    /// Does any frame wait?
    #[must_use]
    pub fn is_waiting(&self) -> bool {
        self.held_count > 0
    }
}

/// Does the IP packet hold at least an ICMP header?
fn is_whole(ip_packet: &[u8]) -> bool {
    ipv4::parse(ip_packet).is_ok_and(|packet| icmp::parse(packet.payload).is_ok())
}

/// Lets through so many a second, and so many at once.
#[derive(Debug)]
struct TokenBucket {
    per_second: u32,
    burst: u32,
    tokens: f64,
    last: Duration,
}

impl TokenBucket {
    fn new(per_second: u32, burst: u32) -> Self {
        Self { per_second, burst, tokens: f64::from(burst), last: Duration::ZERO }
    }

    fn take(&mut self, now: Duration) -> bool {
        let gained = now.saturating_sub(self.last).as_secs_f64() * f64::from(self.per_second);
        self.tokens = (self.tokens + gained).min(f64::from(self.burst));
        self.last = now;
        let granted = self.tokens >= 1.0;
        if granted {
            self.tokens -= 1.0;
        }
        granted
    }
}

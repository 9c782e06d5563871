//! To the peer: policy, MTU, seal.
//!
//! A packet never leaves in clear where policy says protect: no SA means a drop by name. Sequence
//! numbers and nonces are taken before sealing, so a crash leaves a gap and never a repetition.

use super::classify::Addresses;
use super::forward::{Fragments, Origin};
use super::{Round, Sealing};
use crate::fib::Target;
use crate::policy::Action;
use crate::slow_path::PuntKind;
use arrayvec::ArrayVec;
use std::sync::atomic::Ordering;
use tandem_aead::SealJob;
use tandem_api::counters::{Counter, DropReason};
use tandem_api::types::Side;
use tandem_esp::sequence::{self, Exhausted};
use tandem_esp::{IvSource, SaOut};
use tandem_shm::{HotHeader, HotOut, settle};
use tandem_wire::{icmp, ipv4, tcp};
use tandem_xsk::{BURST, Frame};

/// Octets of an IPv4 and a TCP header without options, which an MSS does not count (RFC 6691).
const IP_AND_TCP: usize = 40;

impl<'r> Round<'r> {
    /// An IP packet from inside, or one to be forwarded to the outside.
    pub(super) fn outbound(&mut self, frame: Frame, addresses: Addresses) {
        match self.tables.policies.lookup(addresses.source, addresses.destination) {
            Some(Action::Protect { policy }) => self.protect(frame, policy, addresses, Origin::Inside),
            Some(Action::Bypass) => {
                self.io.counts.add(Counter::Bypassed, 1);
                self.forward(frame, addresses, Origin::Bypass);
            }
            Some(Action::Discard) => self.io.drop(frame, DropReason::PolicyDiscard),
            None => self.io.drop(frame, DropReason::PolicyNone),
        }
    }

    /// A packet that the gateway itself made (an answer, an ICMP error).
    pub(super) fn originate(&mut self, frame: Frame) {
        let Ok(addresses) = ipv4::parse(self.io.umem.data(&frame)).map(|packet| Addresses::of(packet.header))
        else {
            return self.io.drop(frame, DropReason::Ipv4HeaderInvalid);
        };
        match self.tables.policies.lookup(addresses.source, addresses.destination) {
            Some(Action::Protect { policy }) => self.protect(frame, policy, addresses, Origin::Gateway),
            Some(Action::Discard) => self.io.drop(frame, DropReason::PolicyDiscard),
            Some(Action::Bypass) | None if self.tells_outside(&frame, addresses.destination) => {
                self.io.drop(frame, DropReason::PolicyNone);
            }
            Some(Action::Bypass) | None => self.forward(frame, addresses, Origin::Gateway),
        }
    }

    /// Is this an ICMP error on its way outside that quotes a packet which policy protects? In clear it would tell
    /// everybody what came out of the tunnel.
    fn tells_outside(&self, frame: &Frame, destination: u32) -> bool {
        let target = self.fib.lookup(destination);
        if target.and_then(Target::port).and_then(|port| self.tables.side(port)) == Some(Side::Inside) {
            return false;
        }
        let Some((source, destination)) = quoted_by_error(self.io.umem.data(frame)) else { return false };
        let protects = |local, remote| {
            matches!(self.tables.policies.lookup(local, remote), Some(Action::Protect { .. }))
        };
        protects(source, destination) || protects(destination, source)
    }

    /// A clear packet from outside that the XDP program took because it claims to come from a
    /// protected network: the same policies, read in reverse.
    pub(super) fn clear_from_outside(&mut self, frame: Frame, addresses: Addresses) {
        match self.tables.policies.lookup(addresses.destination, addresses.source) {
            Some(Action::Protect { .. }) => self.io.drop(frame, DropReason::PolicyClearInbound),
            Some(Action::Bypass) => {
                self.io.counts.add(Counter::Bypassed, 1);
                self.forward(frame, addresses, Origin::Bypass);
            }
            Some(Action::Discard) => self.io.drop(frame, DropReason::PolicyDiscard),
            None => self.io.drop(frame, DropReason::PolicyNone),
        }
    }

    fn protect(&mut self, mut frame: Frame, policy: u32, addresses: Addresses, origin: Origin) {
        let (sa, hot, target, mtu) = match self.tunnel(policy, addresses) {
            Ok(tunnel) => tunnel,
            Err(reason) => return self.io.drop(frame, reason),
        };
        if let Err((reason, kind)) = self.leave_hop(&mut frame, origin) {
            return self.io.drop_with_icmp(frame, self.ingress, reason, kind);
        }
        let inner_max = SaOut::max_inner(usize::from(mtu));
        if self.clamps(target) {
            let mss = inner_max.saturating_sub(IP_AND_TCP).min(usize::from(u16::MAX)) as u16;
            if tcp::clamp_mss(self.io.umem.data_mut(&mut frame), mss) {
                self.io.counts.add(Counter::MssClamped, 1);
            }
        }
        if frame.len() <= inner_max {
            return self.enqueue(frame, sa, hot, target);
        }
        match self.fragment(frame, inner_max) {
            Fragments::Made(fragments) => {
                fragments.into_iter().for_each(|fragment| self.enqueue(fragment, sa, hot, target));
            }
            Fragments::TooBig(frame) => {
                let kind = PuntKind::FragmentationNeeded { mtu: inner_max as u16 };
                self.io.drop_with_icmp(frame, self.ingress, DropReason::FragmentationNeeded, kind);
            }
            Fragments::Dropped => {}
        }
    }

    /// The SA that serves a policy, and where its outer packets go.
    fn tunnel(
        &self,
        policy: u32,
        Addresses { source, destination }: Addresses,
    ) -> Result<(&'r SaOut, &'r HotOut, &'r Target, u16), DropReason> {
        let sas = &self.shared.sas;
        let sa = sas.outbound(policy, source, destination, self.reader).ok_or(DropReason::NoSa)?;
        let hot = self.shared.hot.outbound(sa.slot()).ok_or(DropReason::NoSa)?;
        let target = self.fib.lookup(sa.peer().into()).ok_or(DropReason::NoRoute)?;
        Ok((sa, hot, target, target.mtu()?))
    }

    /// Is the MSS clamped between the interface that the packet came in by and that of its tunnel?
    fn clamps(&self, target: &Target) -> bool {
        let clamp = |port| self.tables.port(port).is_some_and(|port| port.mss_clamp);
        clamp(self.ingress) || target.port().is_some_and(clamp)
    }

    /// Makes room around an inner packet and lets it wait for the others of the batch.
    fn enqueue(&mut self, mut frame: Frame, sa: &'r SaOut, hot: &'r HotOut, target: &'r Target) {
        let inner_len = frame.len();
        if frame.push_front(SaOut::FRONT).is_err() || frame.push_back(SaOut::back(inner_len)).is_err() {
            return self.io.drop(frame, DropReason::NoHeadroom);
        }
        if self.sealing.is_full() {
            self.seal();
        }
        self.sealing.push(Sealing { frame, inner_len, sa, hot, target });
    }

    /// Seals what waits and sends it.
    pub(super) fn seal(&mut self) {
        if self.sealing.is_empty() {
            return;
        }
        let mut waiting = core::mem::take(&mut self.sealing);
        // Which packets got no number or nonce, and why.
        let mut failed: [Option<DropReason>; BURST] = [None; BURST];
        let umem = self.io.umem;
        let header = self.shared.hot.header();
        let strict = self.duty.is_strict();
        let mut moved: ArrayVec<u32, BURST> = ArrayVec::new();
        let mut jobs: ArrayVec<SealJob<'_>, BURST> = ArrayVec::new();
        let mut index = 0;
        for run in waiting.chunk_by_mut(|a, b| core::ptr::eq(a.sa, b.sa)) {
            let Some(Sealing { sa, hot, .. }) = run.first() else { continue };
            let (sa, hot) = (*sa, *hot);
            let count = run.len() as u64;
            // May be fewer numbers than packets: then those at the end get none.
            let (mut numbers, exhausted) = match sequence::take(hot, count as u32, strict) {
                Ok(numbers) => (numbers, None),
                Err(exhausted) => (0..0, Some(exhausted)),
            };
            if !numbers.is_empty() {
                moved.push(sa.slot());
            }
            let (mut packets, mut bytes) = (0, 0);
            for sealing in run.iter_mut() {
                let inner_len = sealing.inner_len;
                let number = numbers
                    .next()
                    .ok_or_else(|| missing(exhausted.unwrap_or_else(|| sequence::why(hot, strict))));
                let buffer = umem.data_mut(&mut sealing.frame);
                match number.and_then(|number| prepare(sa, buffer, number, self.ivs, header)) {
                    Ok(job) => {
                        packets += 1;
                        bytes += inner_len as u64;
                        jobs.push(job);
                    }
                    Err(reason) => failed[index] = Some(reason),
                }
                index += 1;
            }
            hot.packets.fetch_add(packets, Ordering::Relaxed);
            hot.bytes.fetch_add(bytes, Ordering::Relaxed);
            if packets != count {
                hot.send_errors.fetch_add(count - packets, Ordering::Relaxed);
            }
        }
        if !moved.is_empty() {
            self.shared.mark(&self.shared.outbound_marks, &moved, &settle());
        }
        self.provider.seal(&mut jobs);
        self.io.counts.add(Counter::Encapsulated, jobs.len() as u64);
        drop(jobs);
        for (Sealing { frame, target, sa, .. }, failed) in waiting.drain(..).zip(failed) {
            match (failed, target) {
                (Some(reason), _) => self.io.drop(frame, reason),
                (None, Target::Adjacency(adjacency)) => self.io.deliver(frame, adjacency),
                (None, _) => self.wait_for_neighbour(frame, target, sa.peer().into()),
            }
        }
    }
}

/// Source and destination, host byte order, of the packet that an ICMP error of ours quotes.
fn quoted_by_error(packet: &[u8]) -> Option<(u32, u32)> {
    let packet = ipv4::parse(packet).ok().filter(|packet| packet.header.protocol == ipv4::PROTOCOL_ICMP)?;
    let (header, quoted) = icmp::parse(packet.payload).ok()?;
    if !matches!(header.kind, icmp::TIME_EXCEEDED | icmp::DESTINATION_UNREACHABLE) {
        return None;
    }
    let address = |at: usize| quoted.get(at..)?.first_chunk().map(|octets| u32::from_be_bytes(*octets));
    Some((address(12)?, address(16)?))
}

/// The name under which a packet without a number ends.
#[cold]
fn missing(exhausted: Exhausted) -> DropReason {
    match exhausted {
        Exhausted::Numbers => DropReason::SequenceExhausted,
        Exhausted::Lease => DropReason::LeaseExhausted,
        Exhausted::Limit => DropReason::LimitReached,
        Exhausted::Held => DropReason::SaHeld,
    }
}

/// The job that seals the packet in `buffer`, with its number and a fresh IV.
#[inline]
fn prepare<'a>(
    sa: &'a SaOut,
    buffer: &'a mut [u8],
    number: u64,
    ivs: &mut IvSource,
    header: &HotHeader,
) -> Result<SealJob<'a>, DropReason> {
    let iv = ivs.next(header, sa.base_term()).map_err(|_| DropReason::TermExhausted)?;
    sa.prepare(buffer, number, iv).map_err(|_| DropReason::NoHeadroom)
}

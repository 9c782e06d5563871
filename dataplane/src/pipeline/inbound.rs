//! From the peer: look up, check the window, open, set the window, check what came out.
//!
//! Order (RFC 4303 section 3.4, `failover.md` F7, F12): a number is looked at before the packet is
//! opened, which is cheap, and set after, when the packet is known to be authentic. The bit is set
//! before the packet has any effect, so a crash loses a packet and never repeats one. Where the partner must know the
//! number first (F9), the packet waits.

use super::classify::{Addresses, Outer, packet};
use super::forward::Origin;
use super::parking::Parked;
use super::{Opening, Round};
use crate::policy::PolicyTable;
use arrayvec::ArrayVec;
use std::sync::atomic::{AtomicU64, Ordering};
use tandem_aead::OpenJob;
use tandem_api::counters::{Counter, DropReason};
use tandem_esp::FinishError;
use tandem_esp::SaIn;
use tandem_esp::ecn;
use tandem_esp::window::{self, Verdict};
use tandem_shm::{HotIn, settle};
use tandem_wire::{esp, ipv4};
use tandem_xsk::{BURST, Frame};

impl<'r> Round<'r> {
    /// An ESP packet for a virtual address.
    pub(super) fn inbound(&mut self, frame: Frame, outer: &Outer) {
        match self.admit(&frame, outer) {
            Ok((sequence, sa, hot)) => {
                if self.opening.is_full() {
                    self.open();
                }
                let frame = packet(frame, outer.esp.clone());
                self.opening.push(Opening { frame, sequence, outer_tos: outer.tos, sa, hot });
            }
            Err(reason) => self.io.drop(frame, reason),
        }
    }

    /// Everything that can be said before the packet is opened.
    fn admit(&self, frame: &Frame, outer: &Outer) -> Result<(u32, &'r SaIn, &'r HotIn), DropReason> {
        let text = self.io.umem.data(frame).get(outer.esp.clone()).ok_or(DropReason::EspTruncated)?;
        let (header, _) = esp::parse(text).map_err(|_| DropReason::EspTruncated)?;
        let sa = self.shared.sas.inbound(header.spi.get(), self.reader).ok_or(DropReason::EspNoSa)?;
        let Addresses { source, destination } = outer.addresses;
        if source != sa.peer().to_bits() || destination != sa.local().to_bits() {
            return Err(DropReason::EspWrongPeer);
        }
        // The text is padded to a multiple of 4 (RFC 4303 section 2.4); so are all fields around it.
        if text.len() < SaIn::SHORTEST || !text.len().is_multiple_of(4) {
            return Err(DropReason::EspTruncated);
        }
        let hot = self.shared.hot.inbound(sa.slot()).ok_or(DropReason::EspNoSa)?;
        // Nothing of it may be used: not its window either (F24).
        // An SA that the standby was never told of waits for nobody: its packets would hold up those of all others (F19).
        let untold = self.duty.is_strict() && hot.acknowledged.load(Ordering::Acquire) == 0;
        if untold || hot.limit.load(Ordering::Acquire) == 0 {
            return Err(DropReason::SaHeld);
        }
        let sequence = header.sequence.get();
        if sequence == 0 {
            return Err(DropReason::EspSequenceZero);
        }
        refuse(window::check(&hot.top, &hot.window, u64::from(sequence)), hot)?;
        Ok((sequence, sa, hot))
    }

    /// Opens what waits and sends it on.
    pub(super) fn open(&mut self) {
        if self.opening.is_empty() {
            return;
        }
        let mut waiting = core::mem::take(&mut self.opening);
        let count = waiting.len();
        let umem = self.io.umem;
        let mut jobs: ArrayVec<OpenJob<'_>, BURST> = ArrayVec::new();
        // Lengths were checked on admission, so that every packet has its job and positions agree.
        for opening in &mut waiting {
            if let Ok(job) = opening.sa.prepare(umem.data_mut(&mut opening.frame)) {
                jobs.push(job);
            }
        }
        let complete = jobs.len() == count;
        let verdicts = self.provider.open(&mut jobs);
        drop(jobs);
        let mut accepted = Accepted::default();
        let mut moved = Moved { slots: ArrayVec::new(), waits: ArrayVec::new() };
        for (index, opening) in waiting.drain(..).enumerate() {
            if !(complete && verdicts.is_authentic(index)) {
                add(&opening.hot.auth_failed, 1);
                self.io.drop(opening.frame, DropReason::EspAuthFailed);
                continue;
            }
            self.opened(opening, &mut accepted, &mut moved);
        }
        accepted.settle();
        self.settle(moved);
        self.io.counts.add(Counter::Decapsulated, accepted.total);
    }

    /// Marks what has moved, and parks what must wait, with the stamp of the whole batch.
    fn settle(&mut self, Moved { slots, waits }: Moved) {
        if slots.is_empty() {
            return;
        }
        let settled = settle();
        // Before the marks: a record that they lead to is of a later version then. Taken after them it could be the
        // version of that very record, and nothing would lead to another one.
        let stamp = settled.stamp(&self.shared.hot.header().version);
        self.shared.mark(&self.shared.inbound_marks, &slots, &settled);
        if waits.is_empty() {
            return;
        }
        self.io.counts.add(Counter::ParkedTotal, waits.len() as u64);
        for parked in waits {
            if let Err(frame) = self.parking.park(Parked { stamp, ..parked }) {
                self.io.drop(frame, DropReason::ParkingFull);
            }
        }
    }

    /// An authentic packet: set its number, then check what is inside.
    fn opened(&mut self, opening: Opening<'r>, accepted: &mut Accepted<'r>, moved: &mut Moved) {
        let Opening { frame, sequence, outer_tos, sa, hot } = opening;
        if let Err(reason) = refuse(window::accept(&hot.top, &hot.window, u64::from(sequence)), hot) {
            return self.io.drop(frame, reason);
        }
        moved.note(sa.slot());
        match self.unwrap(frame, outer_tos, sa) {
            Ok((frame, addresses)) => {
                accepted.add(hot, frame.len());
                let (sequence, limit) = (u64::from(sequence), hot.limit.load(Ordering::Acquire));
                if !self.duty.is_strict() && sequence <= limit {
                    return self.forward(frame, addresses, Origin::Tunnel);
                }
                if limit == 0 {
                    return self.io.drop(frame, DropReason::SaHeld);
                }
                let (ingress, spi, slot) = (self.ingress, sa.spi(), sa.slot());
                moved.waits.push(Parked { frame, addresses, ingress, spi, slot, sequence, stamp: u64::MAX });
            }
            Err((frame, reason)) => {
                if reason != DropReason::EspDummy {
                    add(&hot.inner_wrong, 1);
                }
                self.io.drop(frame, reason);
            }
        }
    }

    /// The inner packet of an authentic one, or why there is none.
    fn unwrap(
        &mut self,
        mut frame: Frame,
        outer_tos: u8,
        sa: &SaIn,
    ) -> Result<(Frame, Addresses), (Frame, DropReason)> {
        let data = self.io.umem.data_mut(&mut frame);
        let inner = match SaIn::finish(data) {
            Ok(inner) => inner,
            Err(error) => {
                let reason = match error {
                    FinishError::BadPadding => DropReason::EspBadPadding,
                    FinishError::Dummy => DropReason::EspDummy,
                    _ => DropReason::EspNextHeader,
                };
                return Err((frame, reason));
            }
        };
        match check_inner(&mut data[inner.clone()], outer_tos, sa, &self.tables.policies) {
            Ok((len, addresses)) => Ok((packet(frame, inner.start..inner.start + len), addresses)),
            Err(reason) => Err((frame, reason)),
        }
    }
}

/// Checks the inner packet against the SA's selectors (RFC 4301 section 5.2) and against discard policies, which
/// may stand before that of the SA, joins the ECN fields
/// (RFC 6040 section 4.2), and returns its length without traffic-flow-confidentiality padding.
fn check_inner(
    inner: &mut [u8],
    outer_tos: u8,
    sa: &SaIn,
    policies: &PolicyTable,
) -> Result<(usize, Addresses), DropReason> {
    let packet = ipv4::parse(inner).map_err(|_| DropReason::InnerInvalid)?;
    if !packet.header_checksum_ok() || !ipv4::source_is_valid(packet.header.src()) {
        return Err(DropReason::InnerInvalid);
    }
    if !sa.permits(packet.header.src(), packet.header.dst()) {
        return Err(DropReason::InnerSelectorMismatch);
    }
    if policies.discards(packet.header.dst(), packet.header.src()) {
        return Err(DropReason::PolicyDiscard);
    }
    let checked = (packet.total_len(), Addresses::of(packet.header));
    ecn::decapsulate(outer_tos, inner).map_err(|_| DropReason::InnerCongestion)?;
    Ok(checked)
}

fn refuse(verdict: Verdict, hot: &HotIn) -> Result<(), DropReason> {
    match verdict {
        Verdict::Fresh => Ok(()),
        Verdict::Replayed => {
            add(&hot.replayed, 1);
            Err(DropReason::EspReplayed)
        }
        Verdict::TooOld => {
            add(&hot.too_old, 1);
            Err(DropReason::EspTooOld)
        }
    }
}

fn add(counter: &AtomicU64, n: u64) {
    counter.fetch_add(n, Ordering::Relaxed);
}

/// What a burst has changed.
struct Moved {
    /// Slots whose window has moved, each once for a run of packets.
    slots: ArrayVec<u32, BURST>,
    /// Packets that must wait; they get their stamp when all bits are set.
    waits: ArrayVec<Parked, BURST>,
}

impl Moved {
    fn note(&mut self, slot: u32) {
        // There are no more runs than packets in a burst.
        if self.slots.last() != Some(&slot) && !self.slots.is_full() {
            self.slots.push(slot);
        }
    }
}

/// Packets and octets of a run of one SA, added to its counters once a run.
#[derive(Default)]
struct Accepted<'r> {
    hot: Option<&'r HotIn>,
    packets: u64,
    bytes: u64,
    total: u64,
}

impl<'r> Accepted<'r> {
    fn add(&mut self, hot: &'r HotIn, len: usize) {
        if !self.hot.is_some_and(|current| core::ptr::eq(current, hot)) {
            self.settle();
            self.hot = Some(hot);
        }
        self.packets += 1;
        self.bytes += len as u64;
        self.total += 1;
    }

    fn settle(&mut self) {
        if let Some(hot) = self.hot.take() {
            add(&hot.packets, core::mem::take(&mut self.packets));
            add(&hot.bytes, core::mem::take(&mut self.bytes));
        }
    }
}

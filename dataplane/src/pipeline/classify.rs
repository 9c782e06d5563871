//! What a received frame is, and which way it goes. The XDP program has judged it already; nothing
//! here relies on that.

use super::Round;
use super::io::ETHERNET;
use crate::policy::Action;
use crate::slow_path::PuntKind;
use core::ops::Range;
use tandem_api::counters::DropReason;
use tandem_api::types::Side;
use tandem_wire::ethernet::{self, ETHERTYPE_ARP, ETHERTYPE_IPV4, ETHERTYPE_SERVICE_VLAN, ETHERTYPE_VLAN};
use tandem_wire::ipv4::{self, PROTOCOL_ESP, PROTOCOL_ICMP, PROTOCOL_UDP, ParseError};
use tandem_wire::{esp, udp};
use tandem_xsk::{Batch, Frame, Umem};

/// What the headers of a frame say.
enum Kind {
    Arp,
    /// ESP for a virtual address.
    Esp(Outer),
    /// For a virtual address and for the slow path; the IP packet ends here.
    Local {
        end: usize,
        addresses: Addresses,
    },
    /// To be forwarded; the IP packet ends here.
    Transit {
        end: usize,
        addresses: Addresses,
    },
}

/// Source and destination of an IP packet, host byte order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Addresses {
    pub source: u32,
    pub destination: u32,
}

impl Addresses {
    pub(super) fn of(header: &ipv4::Header) -> Self {
        Self { source: header.src(), destination: header.dst() }
    }
}

/// An outer packet that holds ESP.
pub(super) struct Outer {
    /// ESP header to ICV, in the frame.
    pub esp: Range<usize>,
    pub addresses: Addresses,
    pub tos: u8,
}

impl Round<'_> {
    /// Sends each frame of the batch on its way; ESP and packets to be sealed wait for
    /// [`Round::finish`] at the latest.
    pub(super) fn classify(&mut self, batch: &mut Batch) {
        for frame in batch.iter() {
            self.io.umem.prefetch(frame);
        }
        let side = self.tables.side(self.ingress);
        for mut frame in batch.drain(..) {
            let mut kind = self.kind(&frame);
            if matches!(kind, Err(DropReason::NotIpv4)) && take_off_priority_tag(self.io.umem, &mut frame) {
                kind = self.kind(&frame);
            }
            match kind {
                Err(reason) => self.io.drop(frame, reason),
                Ok(Kind::Arp) => self.io.punt(frame, self.ingress, PuntKind::Arp),
                Ok(Kind::Esp(outer)) => self.inbound(frame, &outer),
                Ok(Kind::Local { end, addresses }) => match self.refuses_clear(side, addresses) {
                    Some(reason) => self.io.drop(frame, reason),
                    None => {
                        let frame = packet(frame, ETHERNET..end);
                        self.io.punt(frame, self.ingress, PuntKind::Local);
                    }
                },
                Ok(Kind::Transit { end, addresses }) => {
                    let frame = packet(frame, ETHERNET..end);
                    match side {
                        Some(Side::Inside) => self.outbound(frame, addresses),
                        Some(Side::Outside) => self.clear_from_outside(frame, addresses),
                        None => self.io.drop(frame, DropReason::PortUnknown),
                    }
                }
            }
        }
    }

    /// Why a packet in clear for a virtual address is not answered: from outside, policy holds as for any other. The
    /// answer would go into the tunnel, with whatever somebody put into a packet with a forged source.
    fn refuses_clear(&self, side: Option<Side>, addresses: Addresses) -> Option<DropReason> {
        if side == Some(Side::Inside) {
            return None;
        }
        match self.tables.policies.lookup(addresses.destination, addresses.source)? {
            Action::Protect { .. } => Some(DropReason::PolicyClearInbound),
            Action::Discard => Some(DropReason::PolicyDiscard),
            Action::Bypass => None,
        }
    }

    fn kind(&self, frame: &Frame) -> Result<Kind, DropReason> {
        let data = self.io.umem.data(frame);
        let (header, payload) = ethernet::parse(data).map_err(|_| DropReason::FrameTruncated)?;
        match header.ethertype.get() {
            ETHERTYPE_IPV4 => {}
            ETHERTYPE_ARP => return Ok(Kind::Arp),
            _ => return Err(DropReason::NotIpv4),
        }
        let packet = ipv4::parse(payload).map_err(|error| match error {
            ParseError::Truncated => DropReason::FrameTruncated,
            _ => DropReason::Ipv4HeaderInvalid,
        })?;
        if !packet.header_checksum_ok() {
            return Err(DropReason::Ipv4ChecksumWrong);
        }
        if !ipv4::source_is_valid(packet.header.src()) {
            return Err(DropReason::Ipv4SourceInvalid);
        }
        let end = ETHERNET + packet.total_len();
        let destination = packet.header.dst();
        if self.tables.is_virtual(destination) {
            return self.local_kind(&packet, end);
        }
        if ipv4::is_multicast_or_broadcast(destination) {
            return Err(DropReason::Ipv4Multicast);
        }
        Ok(Kind::Transit { end, addresses: Addresses::of(packet.header) })
    }

    fn local_kind(&self, packet: &ipv4::Packet<'_>, end: usize) -> Result<Kind, DropReason> {
        match packet.header.protocol {
            PROTOCOL_ESP if packet.is_fragment() => Err(DropReason::EspFragment),
            PROTOCOL_ESP => Ok(Kind::Esp(Outer {
                esp: ETHERNET + packet.header.header_len()..end,
                addresses: Addresses::of(packet.header),
                tos: packet.header.tos,
            })),
            PROTOCOL_ICMP if !packet.is_fragment() => {
                Ok(Kind::Local { end, addresses: Addresses::of(packet.header) })
            }
            PROTOCOL_UDP if !packet.is_fragment() => Err(ike_reason(packet.payload)),
            _ => Err(DropReason::LocalUnhandled),
        }
    }
}

/// Takes the tag off a frame of VLAN 0, which carries a priority only (IEEE 802.1Q) and is steered here like a frame
/// without a tag. False where there is no such tag.
fn take_off_priority_tag(umem: &Umem, frame: &mut Frame) -> bool {
    let data = umem.data_mut(frame);
    let tagged = ethernet::parse(data).is_ok_and(|(header, payload)| {
        matches!(header.ethertype.get(), ETHERTYPE_VLAN | ETHERTYPE_SERVICE_VLAN)
            && ethernet::parse_vlan(payload).is_ok_and(|(tag, _)| tag.id() == 0)
    });
    if tagged {
        // Both MAC addresses move up to the inner EtherType.
        data.copy_within(..ETHERNET - 2, ethernet::VLAN_TAG_LEN);
    }
    tagged && frame.pull_front(ethernet::VLAN_TAG_LEN).is_ok()
}

/// Why a UDP datagram for a virtual address ends here: no IKE daemon yet.
fn ike_reason(payload: &[u8]) -> DropReason {
    let Ok(datagram) = udp::parse(payload) else { return DropReason::FrameTruncated };
    match datagram.header.destination_port.get() {
        udp::PORT_IKE => DropReason::IkeNoDaemon,
        udp::PORT_NAT_T => match esp::parse_in_udp(datagram.data) {
            Ok(esp::InUdp::Ike(_)) => DropReason::IkeNoDaemon,
            _ => DropReason::UdpEncapUnknown,
        },
        _ => DropReason::LocalUnhandled,
    }
}

/// The frame cut down to `range`, which must lie within it.
pub(super) fn packet(mut frame: Frame, range: Range<usize>) -> Frame {
    frame.truncate(range.end);
    // Cannot fail: the caller has parsed headers up to `start`.
    let _ = frame.pull_front(range.start);
    frame
}

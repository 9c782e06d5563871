//! Every drop has a name, a counter and a text, from one list: this one.
//!
//! A worker cannot drop a frame without naming a [`DropReason`]; `show counters` prints the
//! whole list with these texts. The names are stable: scripts rely on them.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

macro_rules! counters {
    (
        $(#[$meta:meta])*
        $name:ident { $( $variant:ident = $string:literal, $text:literal; )+ }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
        #[serde(rename_all = "snake_case")]
        #[repr(usize)]
        #[non_exhaustive]
        pub enum $name { $( #[doc = $text] $variant, )+ }

        impl $name {
            /// Every value, in the order of the list.
            pub const ALL: &'static [$name] = &[ $( $name::$variant, )+ ];
            /// How many there are (the length of a counter array).
            pub const COUNT: usize = Self::ALL.len();

            /// The stable name, as `show counters` and its JSON print it.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $( $name::$variant => $string, )+ }
            }

            /// One sentence for an operator.
            #[must_use]
            pub const fn text(self) -> &'static str {
                match self { $( $name::$variant => $text, )+ }
            }
        }

        impl core::fmt::Display for $name {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                f.write_str(self.name())
            }
        }
    };
}

counters! {
    /// Why a frame ended in the data plane without being forwarded.
    DropReason {
        // What the frame is.
        FrameTruncated = "frame_truncated", "frame shorter than the headers it announces";
        NotIpv4 = "not_ipv4", "neither IPv4 nor ARP";
        Ipv4HeaderInvalid = "ipv4_header_invalid", "IPv4 version, header length or total length wrong";
        Ipv4ChecksumWrong = "ipv4_checksum_wrong", "IPv4 header checksum wrong";
        Ipv4SourceInvalid = "ipv4_source_invalid", "IPv4 source is multicast, loopback or unspecified";
        Ipv4Multicast = "ipv4_multicast", "IPv4 destination is multicast or broadcast, which is not forwarded";
        // ESP, inbound.
        EspTruncated = "esp_truncated", "ESP packet too short for header, IV, trailer and ICV, or payload not a multiple of 4";
        EspFragment = "esp_fragment", "fragment of an outer packet (outer packets are not reassembled)";
        EspNoSa = "esp_no_sa", "no SA with this SPI";
        EspWrongPeer = "esp_wrong_peer", "outer addresses are not those of the SA";
        EspSequenceZero = "esp_sequence_zero", "ESP sequence number 0";
        EspReplayed = "esp_replayed", "sequence number seen before";
        EspTooOld = "esp_too_old", "sequence number left of the anti-replay window";
        EspAuthFailed = "esp_auth_failed", "integrity check failed (wrong ICV)";
        EspBadPadding = "esp_bad_padding", "authentic packet with wrong padding";
        EspNextHeader = "esp_next_header", "authentic packet whose inner protocol is not IPv4";
        EspDummy = "esp_dummy", "traffic-flow-confidentiality dummy packet (next header 59)";
        InnerInvalid = "inner_invalid", "authentic packet whose inner IPv4 header is wrong";
        InnerCongestion = "inner_congestion", "congestion marked outside, and a transport inside that cannot be told (RFC 6040)";
        ParkingFull = "parking_full", "inbound packet that had to wait for the partner's acknowledgement, and too many waited already";
        ParkedDemoted = "parked_demoted", "inbound packet that waited when this node stopped being active";
        InnerSelectorMismatch = "inner_selector_mismatch", "inner packet outside of the selectors of its SA";
        // Outbound.
        PolicyDiscard = "policy_discard", "a policy says discard";
        PolicyNone = "policy_none", "no policy covers the packet";
        PolicyClearInbound = "policy_clear_inbound", "arrived in clear from outside where policy says protect";
        NoSa = "no_sa", "policy says protect and there is no SA";
        SequenceExhausted = "sequence_exhausted", "outbound sequence numbers of the SA used up";
        LeaseExhausted = "lease_exhausted", "the partner has not acknowledged further outbound sequence numbers of the SA yet";
        LimitReached = "limit_reached", "outbound sequence numbers of the SA that are reserved on disk used up, and more not reserved yet";
        SaHeld = "sa_held", "the SA is held, in or out: its numbers are not known well enough to carry traffic";
        TermExhausted = "term_exhausted", "no term left for the key of the SA, or no term given to this node";
        NoHeadroom = "no_headroom", "no room in the frame for outer header or trailer";
        NotActive = "not_active", "this node is not active";
        // Forwarding.
        TtlExpired = "ttl_expired", "TTL expired (an ICMP time exceeded is due)";
        FragmentationNeeded = "fragmentation_needed", "larger than the MTU with DF set (an ICMP fragmentation needed is due)";
        NoRoute = "no_route", "no route to the destination";
        RouteBlackhole = "route_blackhole", "the route is a blackhole, unreachable or prohibit";
        NoAdjacency = "no_adjacency", "the route leads to an interface that Tandem does not own";
        NeighbourUnresolved = "neighbour_unresolved", "next hop not resolved in time, or too many packets wait for it";
        NoFreeFrame = "no_free_frame", "no free frame left for a fragment";
        TxRingFull = "tx_ring_full", "transmit ring full";
        PortUnknown = "port_unknown", "the outgoing interface is down or gone";
        // The gateway itself.
        SlowPathFull = "slow_path_full", "slow-path queue full";
        LocalUnhandled = "local_unhandled", "for a virtual address, and no service of ours (only ICMP echo is answered)";
        IkeNoDaemon = "ike_no_daemon", "IKE packet, and no IKE daemon listens";
        UdpEncapUnknown = "udp_encap_unknown", "UDP port 4500 that is neither IKE nor ESP of a known SA";
        ArpInvalid = "arp_invalid", "ARP packet malformed, or not a request for a virtual address";
        IcmpInvalid = "icmp_invalid", "ICMP for a virtual address malformed or with wrong checksum";
        Shutdown = "shutdown", "still in hand when the data plane stopped or an interface was removed";
    }
}

counters! {
    /// What workers count besides drops. Frames, if nothing else is said. Each frame that a worker had in
    /// hand ended somewhere or waits: `received + returned + created = forwarded + punted + drops of the workers +
    /// parked`. Of those that waited: `parked_total = parked_released + parked + drops after waiting`.
    Counter {
        Received = "received", "frames received by the workers";
        Forwarded = "forwarded", "frames handed to an interface";
        Punted = "punted", "frames handed to the slow path";
        Returned = "returned", "frames that the slow path handed back to be sent (answers, ICMP errors, packets that waited for a neighbour)";
        Created = "created", "frames made by fragmentation, beyond the original";
        Parked = "parked", "inbound packets that wait now until the partner has acknowledged their number, or it is reserved on disk (a gauge)";
        ParkedTotal = "parked_total", "inbound packets that had to wait so";
        ParkedReleased = "parked_released", "inbound packets that waited and went on";
        Encapsulated = "encapsulated", "packets sealed into ESP";
        Decapsulated = "decapsulated", "packets opened from ESP";
        Bypassed = "bypassed", "packets forwarded in clear because a policy says bypass";
        Fragmented = "fragmented", "packets fragmented";
        MssClamped = "mss_clamped", "TCP SYN whose MSS option was lowered";
        Batches = "batches", "batches that held at least one frame";
        RxWakeups = "rx_wakeups", "system calls to wake the kernel's receive side";
        TxWakeups = "tx_wakeups", "system calls to wake the kernel's transmit side";
        IcmpNotAsked = "icmp_not_asked", "ICMP errors that were due and not made, because the slow path was busy";
        Sleeps = "sleeps", "times a worker slept for want of work";
    }
}

counters! {
    /// What the slow path counts. Frames, if nothing else is said. Every punted frame ends in one of them:
    /// `punted = slow_answered + slow_resumed + slow_held + drops of the slow path`. What it hands back:
    /// `returned = slow_answered + slow_resumed + icmp_time_exceeded + icmp_fragmentation_needed`
    /// (a packet that calls for an ICMP error was counted as dropped by the worker).
    SlowCounter {
        Answered = "slow_answered", "frames turned into an answer (ARP reply, echo reply)";
        Resumed = "slow_resumed", "frames that waited for a neighbour and went on";
        Held = "slow_held", "frames that wait for a neighbour now (a gauge)";
        ArpReplies = "arp_replies", "ARP replies for virtual addresses";
        EchoReplies = "echo_replies", "ICMP echo replies for virtual addresses";
        TimeExceeded = "icmp_time_exceeded", "ICMP time exceeded sent";
        FragmentationNeeded = "icmp_fragmentation_needed", "ICMP fragmentation needed sent";
        IcmpSuppressed = "icmp_suppressed", "ICMP errors not sent: rate limit, or about an ICMP error, a later fragment or a bad source";
        NeighboursRequested = "neighbours_requested", "next hops that the kernel was asked to resolve";
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_counter_name_is_unique_and_snake_case() {
        let names: Vec<&str> = DropReason::ALL
            .iter()
            .map(|r| r.name())
            .chain(Counter::ALL.iter().map(|c| c.name()))
            .chain(SlowCounter::ALL.iter().map(|c| c.name()))
            .collect();
        assert_eq!(names.iter().collect::<HashSet<_>>().len(), names.len());
        for name in names {
            assert!(
                name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_'),
                "{name}"
            );
        }
    }

    #[test]
    fn the_position_in_the_list_is_the_index_of_the_counter() {
        for (index, reason) in DropReason::ALL.iter().enumerate() {
            assert_eq!(*reason as usize, index);
        }
    }
}

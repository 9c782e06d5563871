//! What the program counts: one list, with a name and a text for each decision.

/// What became of the frames under a counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// On to the kernel.
    Passed,
    /// To the AF_XDP socket of the receiving queue.
    Steered,
    /// Dropped.
    Dropped,
    /// Counted beside the decision, not instead of it.
    Noted,
}

macro_rules! counters {
    ( $( $variant:ident = $name:literal, $outcome:ident, $text:literal; )+ ) => {
        /// The decisions of the program. Each frame is counted under exactly one whose [`outcome`](Self::outcome) is not
        /// [`Outcome::Noted`]. The names are stable: scripts rely on them. The order is that of `src/bpf/counters.h`.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u32)]
        #[non_exhaustive]
        pub enum SteerCounter { $( #[doc = $text] $variant, )+ }

        impl SteerCounter {
            /// Every value, in the order of the list.
            pub const ALL: &'static [SteerCounter] = &[ $( SteerCounter::$variant, )+ ];
            /// How many there are.
            pub const COUNT: usize = Self::ALL.len();

            /// The stable name.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $( SteerCounter::$variant => $name, )+ }
            }

            /// One sentence for an operator.
            #[must_use]
            pub const fn text(self) -> &'static str {
                match self { $( SteerCounter::$variant => $text, )+ }
            }

            /// What became of the frames.
            #[must_use]
            pub const fn outcome(self) -> Outcome {
                match self { $( SteerCounter::$variant => Outcome::$outcome, )+ }
            }
        }
    };
}

counters! {
    FrameTooShort = "frame_too_short", Passed, "shorter than an Ethernet header";
    OtherHost = "other_host", Passed, "for the MAC address of another host";
    Vlan = "vlan", Passed, "with a VLAN tag (of a VLAN other than 0)";
    ArpTruncated = "arp_truncated", Passed, "ARP packet cut short";
    ArpOther = "arp_other", Passed, "ARP, but no request for a virtual address";
    NotIpv4 = "not_ipv4", Passed, "neither IPv4 nor ARP";
    Ipv4Truncated = "ipv4_truncated", Passed, "IPv4 header cut short, so that its addresses cannot be read";
    ExemptOwnAddress = "exempt_own_address", Passed, "for an address of the kernel itself";
    ExemptLinkLocal = "exempt_link_local", Passed, "for a link-local address (169.254.0.0/16)";
    ExemptMulticast = "exempt_multicast", Passed, "for an IPv4 multicast address";
    ExemptBroadcast = "exempt_broadcast", Passed, "for the limited broadcast address";
    Unprotected = "unprotected", Passed, "IPv4 that no protected prefix covers";
    SteeredArp = "steered_arp", Steered, "ARP request for a virtual address";
    SteeredEsp = "steered_esp", Steered, "ESP for a virtual address";
    SteeredIke = "steered_ike", Steered, "UDP port 500 of a virtual address";
    SteeredUdpEncap = "steered_udp_encap", Steered, "UDP port 4500 of a virtual address";
    SteeredIcmp = "steered_icmp", Steered, "ICMP for a virtual address";
    SteeredFragment = "steered_fragment", Steered, "fragment of ESP, UDP or ICMP for a virtual address";
    SteeredMalformed = "steered_malformed", Steered, "UDP for a virtual address whose port cannot be read";
    SteeredToProtected = "steered_to_protected", Steered, "from inside to a protected prefix";
    SteeredFromProtected = "steered_from_protected", Steered, "from outside in clear, with a source in a protected prefix";
    FailClosed = "fail_closed", Dropped, "to be steered, but no data plane takes the frames of this queue";
    NotConfigured = "not_configured", Dropped, "arrived before the program was told its settings";
    VlanNested = "vlan_nested", Dropped, "two tags of VLAN 0 in a row";
    LinkBroadcast = "link_broadcast", Dropped, "for a virtual address or a protected prefix, sent to a multicast or broadcast MAC address";
    VirtualUnhandled = "virtual_unhandled", Dropped, "for a virtual address, and none of ESP, UDP 500, UDP 4500, ICMP";
    StandbyArp = "standby_arp", Dropped, "ARP request for a virtual address, and this node is standby";
    StandbyVirtualAddress = "standby_virtual_address", Dropped, "for a virtual address, and this node is standby";
    StandbyProtected = "standby_protected", Dropped, "to or from a protected prefix, and this node is standby";
    StandbyVirtualMac = "standby_virtual_mac", Dropped, "other traffic for the virtual MAC address, and this node is standby";
    OwnMacGiven = "own_mac_given", Noted, "passed frames for the virtual MAC address that were given the interface's own";
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Names of the enumerators of `enum steer_counter`, in order.
    fn in_c() -> Vec<String> {
        let header = include_str!("bpf/counters.h");
        let (_, rest) = header.split_once("enum steer_counter {").expect("the enum");
        let (body, _) = rest.split_once('}').expect("the end of the enum");
        body.lines()
            .map(str::trim)
            .filter(|line| line.starts_with("STEER_"))
            .map(|line| line.trim_start_matches("STEER_").trim_end_matches(',').to_lowercase())
            .collect()
    }

    #[test]
    fn the_list_is_that_of_the_program() {
        let mut ours: Vec<String> =
            SteerCounter::ALL.iter().map(|counter| counter.name().to_owned()).collect();
        ours.push("counters".to_owned());
        assert_eq!(ours, in_c());
        assert_eq!(SteerCounter::ALL.last().map(|last| *last as usize + 1), Some(SteerCounter::COUNT));
    }

    #[test]
    fn outcomes_lie_in_the_ranges_that_the_program_decides_by() {
        for pair in SteerCounter::ALL.windows(2) {
            assert!(rank(pair[0]) <= rank(pair[1]), "{} stands before {}", pair[0].name(), pair[1].name());
        }
        let header = include_str!("bpf/counters.h");
        for (constant, outcome) in [("FIRST_STEERED", Outcome::Steered), ("FIRST_DROPPED", Outcome::Dropped)]
        {
            let first = SteerCounter::ALL.iter().find(|counter| counter.outcome() == outcome).expect("one");
            let line = format!("#define STEER_{constant} STEER_{}", first.name().to_uppercase());
            assert!(header.lines().any(|present| present == line), "{line}");
        }
    }

    fn rank(counter: SteerCounter) -> u8 {
        match counter.outcome() {
            Outcome::Passed => 0,
            Outcome::Steered => 1,
            Outcome::Dropped => 2,
            Outcome::Noted => 3,
        }
    }
}

//! Every decision, as a fixture: a frame, and what becomes of it.

use crate::frames::*;
use crate::lab::in_lab;
use crate::setup::{Bench, INSIDE, OUTSIDE, Told};
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};
use tandem_ebpf::{Action, Outcome, RxQueue, SteerCounter};

struct Fixture {
    description: &'static str,
    told: Told,
    frame: Vec<u8>,
    counter: SteerCounter,
    /// The frame comes out with the interface's own MAC address instead of the virtual one.
    given_own_mac: bool,
}

fn fixture(description: &'static str, told: Told, frame: Vec<u8>, counter: SteerCounter) -> Fixture {
    Fixture { description, told, frame, counter, given_own_mac: false }
}

fn given_own_mac(description: &'static str, told: Told, frame: Vec<u8>, counter: SteerCounter) -> Fixture {
    Fixture { given_own_mac: true, ..fixture(description, told, frame, counter) }
}

impl Fixture {
    fn action(&self) -> Action {
        match self.counter.outcome() {
            Outcome::Passed => Action::Pass,
            Outcome::Steered => Action::Redirect,
            Outcome::Dropped | Outcome::Noted => Action::Drop,
        }
    }

    fn run(&self, bench: &mut Bench) {
        bench.tell(self.told);
        let result = bench.program.test_run(&self.frame, None).expect("a test run");
        let mut counted = BTreeMap::from([(self.counter, 1)]);
        let mut frame = self.frame.clone();
        if self.given_own_mac {
            counted.insert(SteerCounter::OwnMacGiven, 1);
            frame[..6].copy_from_slice(&OWN_MAC);
        }
        assert_eq!(bench.newly_counted(), counted, "{}", self.description);
        assert_eq!(result.action, self.action(), "{}", self.description);
        assert_eq!(result.frame, frame, "{}: the frame afterwards", self.description);
    }
}

fn whose_frame_and_what() -> Vec<Fixture> {
    use SteerCounter::*;
    let web = ipv4(TCP, REMOTE, ANYBODY, &udp(80));
    let protected = ipv4(TCP, ANYBODY, REMOTE, &udp(80));
    let tag = |id: u16| tagged(&protected.to(OWN_MAC), 0x8100, id);
    vec![
        fixture("another host's frame", INSIDE, protected.to(OTHER_MAC), OtherHost),
        fixture("another host's frame, standby", INSIDE.standby(), protected.to(OTHER_MAC), OtherHost),
        fixture(
            "the virtual MAC, where there is none",
            INSIDE.without_virtual_mac(),
            protected.to(VIRTUAL_MAC),
            OtherHost,
        ),
        fixture(
            "an all-zero MAC, where there is no virtual one",
            INSIDE.without_virtual_mac(),
            web.to([0; 6]),
            OtherHost,
        ),
        fixture("IPv6", INSIDE, ethernet(OWN_MAC, 0x86dd, &[0x60; 40]), NotIpv4),
        fixture("802.3 length instead of an EtherType", INSIDE, ethernet(OWN_MAC, 46, &[0x42; 46]), NotIpv4),
        fixture("nothing behind the Ethernet header", INSIDE, ethernet(OWN_MAC, 0x0800, &[]), Ipv4Truncated),
        fixture("neither prefix nor address of ours", INSIDE, web.to(OWN_MAC), Unprotected),
        fixture("customer VLAN", INSIDE, tag(100), Vlan),
        fixture("customer VLAN with priority", INSIDE, tag(0xe000 | 7), Vlan),
        fixture("service VLAN", INSIDE, tagged(&protected.to(OWN_MAC), 0x88a8, 5), Vlan),
        fixture("VLAN in a service VLAN", INSIDE, tagged(&tag(9), 0x88a8, 5), Vlan),
        fixture("VLAN behind a priority tag", INSIDE, tagged(&tag(9), 0x8100, 0xa000), Vlan),
        fixture("VLAN tag cut short", INSIDE, ethernet(OWN_MAC, 0x8100, &[0, 0, 8]), Vlan),
        fixture("priority tag, protected", INSIDE, tag(0xe000), SteeredToProtected),
        fixture("priority tag, not protected", INSIDE, tagged(&web.to(OWN_MAC), 0x8100, 0), Unprotected),
        fixture("two priority tags", INSIDE, tagged(&tag(0), 0x8100, 0), VlanNested),
        fixture("VLAN, standby", INSIDE.standby(), tag(100), Vlan),
    ]
}

fn arp_packets() -> Vec<Fixture> {
    use SteerCounter::*;
    let request = |target| ethernet(BROADCAST, 0x0806, &arp(1, target));
    let changed = |at: usize, value: u8| {
        let mut packet = arp(1, VIRTUAL);
        packet[at] = value;
        ethernet(BROADCAST, 0x0806, &packet)
    };
    vec![
        fixture("ARP request for a virtual address", INSIDE, request(VIRTUAL), SteeredArp),
        fixture(
            "ARP request with the padding of a short frame",
            INSIDE,
            [request(VIRTUAL), vec![0; 18]].concat(),
            SteeredArp,
        ),
        fixture(
            "ARP request for a virtual address to our own MAC",
            INSIDE,
            ethernet(OWN_MAC, 0x0806, &arp(1, VIRTUAL)),
            SteeredArp,
        ),
        fixture(
            "ARP request for a virtual address to the virtual MAC",
            INSIDE,
            ethernet(VIRTUAL_MAC, 0x0806, &arp(1, VIRTUAL)),
            SteeredArp,
        ),
        fixture("ARP request for a virtual address, outside", OUTSIDE, request(VIRTUAL), SteeredArp),
        fixture("ARP request for a virtual address, standby", INSIDE.standby(), request(VIRTUAL), StandbyArp),
        fixture(
            "ARP request for a virtual address, nobody there",
            INSIDE.without_data_plane(),
            request(VIRTUAL),
            FailClosed,
        ),
        fixture("ARP request for our own address", INSIDE, request(OWN), ArpOther),
        fixture("ARP request for a protected address", INSIDE, request(REMOTE), ArpOther),
        fixture("ARP under a policy for everything", INSIDE.all_protected(), request(ANYBODY), ArpOther),
        fixture("ARP reply", INSIDE, ethernet(OWN_MAC, 0x0806, &arp(2, VIRTUAL)), ArpOther),
        given_own_mac(
            "ARP reply to the virtual MAC",
            INSIDE,
            ethernet(VIRTUAL_MAC, 0x0806, &arp(2, VIRTUAL)),
            ArpOther,
        ),
        fixture("ARP for other hardware", INSIDE, changed(1, 6), ArpOther),
        fixture("ARP for another protocol", INSIDE, changed(2, 0x86), ArpOther),
        fixture("ARP with another hardware length", INSIDE, changed(4, 8), ArpOther),
        fixture("ARP with another protocol length", INSIDE, changed(5, 16), ArpOther),
        fixture("ARP cut short", INSIDE, ethernet(BROADCAST, 0x0806, &arp(1, VIRTUAL)[..27]), ArpTruncated),
    ]
}

fn exemptions() -> Vec<Fixture> {
    use SteerCounter::*;
    let to = |destination: [u8; 4]| ipv4(UDP, REMOTE, Ipv4Addr::from(destination), &udp(4500));
    let mut fixtures = Vec::new();
    for told in [INSIDE, OUTSIDE] {
        for told in [
            told,
            told.all_protected(),
            told.all_protected().standby(),
            told.all_protected().without_data_plane(),
        ] {
            fixtures.extend([
                fixture("to our own address", told, to(OWN.octets()).to(OWN_MAC), ExemptOwnAddress),
                fixture("to a link-local address", told, to([169, 254, 1, 1]).to(OWN_MAC), ExemptLinkLocal),
                fixture("to HSRP's group", told, to([224, 0, 0, 2]).to(MULTICAST), ExemptMulticast),
                fixture("to the last group", told, to([239, 255, 255, 255]).to(MULTICAST), ExemptMulticast),
                fixture("DHCP", told, to([255; 4]).to(BROADCAST), ExemptBroadcast),
            ]);
        }
    }
    let everything = INSIDE.all_protected();
    for (description, destination) in [
        ("below link-local", [169, 253, 255, 255]),
        ("above link-local", [169, 255, 0, 0]),
        ("below multicast", [223, 255, 255, 255]),
        ("above multicast", [240, 0, 0, 0]),
        ("below broadcast", [255, 255, 255, 254]),
    ] {
        fixtures.push(fixture(description, everything, to(destination).to(OWN_MAC), SteeredToProtected));
    }
    fixtures.extend([
        given_own_mac(
            "own address by the virtual MAC",
            INSIDE,
            to(OWN.octets()).to(VIRTUAL_MAC),
            ExemptOwnAddress,
        ),
        given_own_mac(
            "own address by the virtual MAC, everything protected, nobody there",
            everything.without_data_plane(),
            to(OWN.octets()).to(VIRTUAL_MAC),
            ExemptOwnAddress,
        ),
        fixture(
            "own address by the virtual MAC, standby",
            INSIDE.standby(),
            to(OWN.octets()).to(VIRTUAL_MAC),
            StandbyVirtualMac,
        ),
    ]);
    fixtures
}

fn virtual_address() -> Vec<Fixture> {
    use SteerCounter::*;
    let packet = |protocol, payload: &[u8]| ipv4(protocol, ANYBODY, VIRTUAL, payload);
    let fragment = |protocol, bits| {
        packet(protocol, &udp(4500)).with(|packet| packet.flags_and_offset = bits).to(OWN_MAC)
    };
    let with_options = |protocol, payload: &[u8]| {
        packet(protocol, payload).with(|packet| packet.options = options()).to(OWN_MAC)
    };
    let echo = [8, 0, 0, 0, 0, 1, 0, 1];
    let (ike, encap) = (packet(UDP, &udp(500)), packet(UDP, &udp(4500)));
    // Octets where a reader that forgets the options looks for the ports.
    let decoy = [vec![0x9c, 0x40, 0x11, 0x94], vec![1; 20]].concat();
    let mut fixtures = vec![
        fixture("ESP", OUTSIDE, packet(ESP, &esp()).to(OWN_MAC), SteeredEsp),
        fixture("ESP to the virtual MAC", OUTSIDE, packet(ESP, &esp()).to(VIRTUAL_MAC), SteeredEsp),
        fixture("ESP on the inside", INSIDE, packet(ESP, &esp()).to(OWN_MAC), SteeredEsp),
        fixture(
            "ESP with DF",
            OUTSIDE,
            packet(ESP, &esp()).with(|packet| packet.flags_and_offset = DONT_FRAGMENT).to(OWN_MAC),
            SteeredEsp,
        ),
        fixture("ESP with options", OUTSIDE, with_options(ESP, &esp()), SteeredEsp),
        fixture("ESP without a payload", OUTSIDE, packet(ESP, &[]).to(OWN_MAC), SteeredEsp),
        fixture("IKE", OUTSIDE, ike.to(OWN_MAC), SteeredIke),
        fixture("IKE with options", OUTSIDE, with_options(UDP, &udp(500)), SteeredIke),
        fixture("IKE behind a priority tag", OUTSIDE, tagged(&ike.to(OWN_MAC), 0x8100, 0xc000), SteeredIke),
        fixture("ESP in UDP", OUTSIDE, encap.to(OWN_MAC), SteeredUdpEncap),
        fixture("ESP in UDP with options", OUTSIDE, with_options(UDP, &udp(4500)), SteeredUdpEncap),
        fixture("echo request", OUTSIDE, packet(ICMP, &echo).to(OWN_MAC), SteeredIcmp),
        fixture("echo request with options", OUTSIDE, with_options(ICMP, &echo), SteeredIcmp),
        fixture("another UDP port", OUTSIDE, packet(UDP, &udp(53)).to(OWN_MAC), VirtualUnhandled),
        fixture(
            "port 500 as the source only",
            OUTSIDE,
            {
                let mut datagram = udp(53);
                datagram[..2].copy_from_slice(&500_u16.to_be_bytes());
                packet(UDP, &datagram).to(OWN_MAC)
            },
            VirtualUnhandled,
        ),
        fixture(
            "another UDP port, the options look like 4500",
            OUTSIDE,
            packet(UDP, &udp(53)).with(|packet| packet.options = decoy).to(OWN_MAC),
            VirtualUnhandled,
        ),
        fixture(
            "another UDP port, everything protected",
            OUTSIDE.all_protected(),
            packet(UDP, &udp(53)).to(OWN_MAC),
            VirtualUnhandled,
        ),
        fixture("TCP", OUTSIDE, packet(TCP, &udp(4500)).to(OWN_MAC), VirtualUnhandled),
        fixture("AH", OUTSIDE, packet(51, &esp()).to(OWN_MAC), VirtualUnhandled),
        fixture("fragment of TCP", OUTSIDE, fragment(TCP, MORE_FRAGMENTS), VirtualUnhandled),
        fixture(
            "anything else by the virtual MAC",
            OUTSIDE,
            packet(TCP, &udp(22)).to(VIRTUAL_MAC),
            VirtualUnhandled,
        ),
        fixture(
            "to the virtual address, sent to everybody",
            OUTSIDE,
            packet(ESP, &esp()).to(BROADCAST),
            LinkBroadcast,
        ),
        fixture(
            "to the virtual address, sent to a group",
            OUTSIDE,
            packet(ICMP, &echo).to(MULTICAST),
            LinkBroadcast,
        ),
        fixture(
            "UDP cut before its ports",
            OUTSIDE,
            packet(UDP, &udp(500)[..3]).to(OWN_MAC),
            SteeredMalformed,
        ),
        fixture(
            "UDP with ports in the padding only",
            OUTSIDE,
            packet(UDP, &udp(53)).with(|packet| packet.total_length = Some(20)).to(OWN_MAC),
            SteeredMalformed,
        ),
        fixture(
            "UDP with a header length below 20",
            OUTSIDE,
            packet(UDP, &udp(53)).with(|packet| packet.ihl = Some(4)).to(OWN_MAC),
            SteeredMalformed,
        ),
        fixture(
            "UDP with a header longer than the frame",
            OUTSIDE,
            packet(UDP, &udp(53)).with(|packet| packet.ihl = Some(15)).to(OWN_MAC),
            SteeredMalformed,
        ),
        fixture(
            "UDP with another version",
            OUTSIDE,
            packet(UDP, &udp(53)).with(|packet| packet.version = 6).to(OWN_MAC),
            SteeredMalformed,
        ),
        fixture(
            "nobody there: ESP",
            OUTSIDE.without_data_plane(),
            packet(ESP, &esp()).to(OWN_MAC),
            FailClosed,
        ),
        fixture("nobody there: IKE", OUTSIDE.without_data_plane(), ike.to(VIRTUAL_MAC), FailClosed),
        fixture(
            "nobody there: echo",
            OUTSIDE.without_data_plane(),
            packet(ICMP, &echo).to(OWN_MAC),
            FailClosed,
        ),
        fixture(
            "nobody there: TCP",
            OUTSIDE.without_data_plane(),
            packet(TCP, &udp(22)).to(OWN_MAC),
            VirtualUnhandled,
        ),
    ];
    for protocol in [ESP, UDP, ICMP] {
        fixtures.extend([
            fixture("first fragment", OUTSIDE, fragment(protocol, MORE_FRAGMENTS), SteeredFragment),
            fixture("middle fragment", OUTSIDE, fragment(protocol, MORE_FRAGMENTS | 185), SteeredFragment),
            fixture("last fragment", OUTSIDE, fragment(protocol, 370), SteeredFragment),
            fixture(
                "nobody there: fragment",
                OUTSIDE.without_data_plane(),
                fragment(protocol, 370),
                FailClosed,
            ),
        ]);
    }
    for protocol in [ESP, UDP, ICMP, TCP] {
        for mac in [OWN_MAC, VIRTUAL_MAC] {
            let frame = packet(protocol, &udp(500)).to(mac);
            fixtures.push(fixture("standby", OUTSIDE.standby(), frame, StandbyVirtualAddress));
        }
    }
    fixtures
}

fn protected_prefixes() -> Vec<Fixture> {
    use SteerCounter::*;
    let to = |protocol| ipv4(protocol, ANYBODY, REMOTE, &udp(4500));
    let from = |protocol| ipv4(protocol, REMOTE, ANYBODY, &udp(4500));
    let last_fragment = |packet: Ipv4| packet.with(|packet| packet.flags_and_offset = 370).to(OWN_MAC);
    let neighbour = ipv4(TCP, ANYBODY, Ipv4Addr::new(10, 21, 0, 1), &udp(80));
    let mut fixtures = vec![
        fixture("the prefix beside a protected one", INSIDE, neighbour.to(OWN_MAC), Unprotected),
        fixture("outside to a protected prefix", OUTSIDE, to(TCP).to(OWN_MAC), Unprotected),
        fixture("inside from a protected prefix", INSIDE, from(TCP).to(OWN_MAC), Unprotected),
        given_own_mac("unprotected by the virtual MAC", INSIDE, from(TCP).to(VIRTUAL_MAC), Unprotected),
        given_own_mac(
            "unprotected by the virtual MAC, nobody there",
            INSIDE.without_data_plane(),
            from(TCP).to(VIRTUAL_MAC),
            Unprotected,
        ),
        fixture(
            "unprotected by the virtual MAC, standby",
            INSIDE.standby(),
            from(TCP).to(VIRTUAL_MAC),
            StandbyVirtualMac,
        ),
        fixture("unprotected, standby", INSIDE.standby(), from(TCP).to(OWN_MAC), Unprotected),
        given_own_mac("IPv6 by the virtual MAC", INSIDE, ethernet(VIRTUAL_MAC, 0x86dd, &[0x60; 40]), NotIpv4),
        given_own_mac("VLAN by the virtual MAC", INSIDE, tagged(&to(TCP).to(VIRTUAL_MAC), 0x8100, 3), Vlan),
        fixture(
            "VLAN by the virtual MAC, standby",
            INSIDE.standby(),
            tagged(&to(TCP).to(VIRTUAL_MAC), 0x8100, 3),
            StandbyVirtualMac,
        ),
        fixture("protected, sent to everybody", INSIDE, to(UDP).to(BROADCAST), LinkBroadcast),
        fixture("header cut, addresses not there", INSIDE, to(TCP).to(OWN_MAC)[..33].to_vec(), Ipv4Truncated),
        fixture(
            "header whole, nothing behind",
            INSIDE,
            to(TCP).to(OWN_MAC)[..34].to_vec(),
            SteeredToProtected,
        ),
        fixture(
            "wrong version",
            INSIDE,
            to(TCP).with(|packet| packet.version = 5).to(OWN_MAC),
            SteeredToProtected,
        ),
        fixture(
            "header length 0",
            INSIDE,
            to(TCP).with(|packet| packet.ihl = Some(0)).to(OWN_MAC),
            SteeredToProtected,
        ),
        fixture(
            "total length 0",
            INSIDE,
            to(TCP).with(|packet| packet.total_length = Some(0)).to(OWN_MAC),
            SteeredToProtected,
        ),
        fixture(
            "options",
            INSIDE,
            to(TCP).with(|packet| packet.options = options()).to(OWN_MAC),
            SteeredToProtected,
        ),
        fixture("later fragment, inside", INSIDE, last_fragment(to(UDP)), SteeredToProtected),
        fixture("later fragment, outside", OUTSIDE, last_fragment(from(UDP)), SteeredFromProtected),
        fixture(
            "everything protected, inside",
            INSIDE.all_protected(),
            from(TCP).to(OWN_MAC),
            SteeredToProtected,
        ),
        fixture(
            "everything protected, outside",
            OUTSIDE.all_protected(),
            to(TCP).to(OWN_MAC),
            SteeredFromProtected,
        ),
    ];
    for protocol in [TCP, UDP, ICMP, ESP, 47, 255] {
        for (told, frame, counter) in [
            (INSIDE, to(protocol).to(OWN_MAC), SteeredToProtected),
            (INSIDE, to(protocol).to(VIRTUAL_MAC), SteeredToProtected),
            (INSIDE.without_data_plane(), to(protocol).to(OWN_MAC), FailClosed),
            (INSIDE.standby(), to(protocol).to(OWN_MAC), StandbyProtected),
            (INSIDE.standby(), to(protocol).to(VIRTUAL_MAC), StandbyProtected),
            (OUTSIDE, from(protocol).to(OWN_MAC), SteeredFromProtected),
            (OUTSIDE.without_data_plane(), from(protocol).to(VIRTUAL_MAC), FailClosed),
            (OUTSIDE.standby(), from(protocol).to(OWN_MAC), StandbyProtected),
        ] {
            fixtures.push(fixture("any protocol of a protected prefix", told, frame, counter));
        }
    }
    fixtures
}

fn run_all(fixtures: fn() -> Vec<Fixture>) {
    in_lab(move |lab| {
        let mut bench = Bench::new(lab);
        for fixture in fixtures() {
            fixture.run(&mut bench);
        }
    });
}

#[test]
fn frames_of_others_of_vlans_and_of_other_protocols_pass() {
    run_all(whose_frame_and_what);
}

#[test]
fn arp_requests_for_virtual_addresses_are_steered_and_all_other_arp_passes() {
    run_all(arp_packets);
}

#[test]
fn own_link_local_and_group_addresses_are_exempt_under_every_policy() {
    run_all(exemptions);
}

#[test]
fn virtual_addresses_take_esp_ike_and_icmp_and_nothing_else() {
    run_all(virtual_address);
}

#[test]
fn protected_prefixes_are_steered_or_dropped_and_never_pass() {
    run_all(protected_prefixes);
}

/// The kernel refuses test runs of frames shorter than an Ethernet header, and the loader refuses to attach without settings.
#[test]
fn every_counter_but_that_of_impossible_frames_has_a_fixture() {
    let fixtures: [fn() -> Vec<Fixture>; 5] =
        [whose_frame_and_what, arp_packets, exemptions, virtual_address, protected_prefixes];
    let mut seen: BTreeSet<SteerCounter> =
        fixtures.iter().flat_map(|fixtures| fixtures()).map(|fixture| fixture.counter).collect();
    seen.extend([SteerCounter::OwnMacGiven, SteerCounter::NotConfigured, SteerCounter::FrameTooShort]);
    let all: BTreeSet<SteerCounter> = SteerCounter::ALL.iter().copied().collect();
    assert_eq!(seen, all);
}

#[test]
fn without_settings_every_frame_is_dropped() {
    in_lab(|lab| {
        let mut bench = Bench::new(lab);
        let frame = ipv4(TCP, ANYBODY, OWN, &udp(22)).to(OWN_MAC);
        let result = bench.program.test_run(&frame, None).expect("a test run");
        assert_eq!(result.action, Action::Drop);
        assert_eq!(bench.newly_counted(), BTreeMap::from([(SteerCounter::NotConfigured, 1)]));
    });
}

#[test]
fn a_frame_goes_to_the_socket_of_its_own_queue_only() {
    in_lab(|lab| {
        let mut bench = Bench::new(lab);
        bench.tell(OUTSIDE);
        let frame = ipv4(ESP, ANYBODY, VIRTUAL, &esp()).to(OWN_MAC);
        let mut run = |queue| {
            let from = RxQueue { ifindex: lab.ifindex, queue };
            let action = bench.program.test_run(&frame, Some(from)).expect("a test run").action;
            (action, bench.newly_counted())
        };
        assert_eq!(run(0), (Action::Redirect, BTreeMap::from([(SteerCounter::SteeredEsp, 1)])));
        assert_eq!(run(1), (Action::Drop, BTreeMap::from([(SteerCounter::FailClosed, 1)])));
    });
}

#[test]
fn a_closed_socket_leaves_the_program_failing_closed() {
    in_lab(|lab| {
        let mut bench = Bench::new(lab);
        bench.tell(INSIDE);
        let frame = ipv4(TCP, ANYBODY, REMOTE, &udp(80)).to(OWN_MAC);
        assert_eq!(bench.program.test_run(&frame, None).expect("a test run").action, Action::Redirect);
        let Bench { mut program, socket, .. } = bench;
        drop(socket);
        // A process that another test starts right now has a copy of the descriptor until it runs its program.
        let until = Instant::now() + Duration::from_secs(10);
        let mut action = || program.test_run(&frame, None).expect("a test run").action;
        while action() == Action::Redirect && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(5));
        }
        assert_eq!(action(), Action::Drop);
    });
}

//! Frames that are cut at every length, and frames that are changed at random, against the model.

use crate::frames::*;
use crate::lab::in_lab;
use crate::model::{Answer, answer};
use crate::setup::{Bench, INSIDE, Told};
use std::net::Ipv4Addr;
use tandem_ebpf::{Error, SteerCounter};

/// Shortest frame that the kernel takes for a test run: an Ethernet header.
const SHORTEST: usize = 14;

/// One frame of each kind.
fn kinds() -> Vec<Vec<u8>> {
    let later = |packet: Ipv4| packet.with(|packet| packet.flags_and_offset = 185);
    let first = |packet: Ipv4| packet.with(|packet| packet.flags_and_offset = MORE_FRAGMENTS);
    let with_options = |packet: Ipv4| packet.with(|packet| packet.options = options());
    let virtual_packets = [
        ipv4(ESP, ANYBODY, VIRTUAL, &esp()),
        ipv4(UDP, ANYBODY, VIRTUAL, &udp(500)),
        ipv4(UDP, ANYBODY, VIRTUAL, &udp(4500)),
        ipv4(UDP, ANYBODY, VIRTUAL, &udp(53)),
        ipv4(ICMP, ANYBODY, VIRTUAL, &[8, 0, 0, 0, 0, 1, 0, 1]),
        ipv4(TCP, ANYBODY, VIRTUAL, &udp(80)),
    ];
    let others = [
        ipv4(TCP, ANYBODY, REMOTE, &udp(80)),
        ipv4(UDP, REMOTE, ANYBODY, &udp(80)),
        ipv4(TCP, REMOTE, OWN, &udp(22)),
        ipv4(UDP, REMOTE, Ipv4Addr::new(224, 0, 0, 2), &udp(1985)),
        ipv4(UDP, REMOTE, Ipv4Addr::new(169, 254, 3, 3), &udp(4500)),
        ipv4(UDP, REMOTE, Ipv4Addr::BROADCAST, &udp(67)),
    ];
    let mut kinds = Vec::new();
    for packet in virtual_packets.into_iter().chain(others) {
        kinds.push(packet.to(VIRTUAL_MAC));
        kinds.push(with_options(packet.clone()).to(OWN_MAC));
        kinds.push(first(packet.clone()).to(OWN_MAC));
        kinds.push(later(packet.clone()).to(BROADCAST));
        kinds.push(tagged(&packet.to(OWN_MAC), 0x8100, 0));
        kinds.push(tagged(&tagged(&packet.to(OWN_MAC), 0x8100, 0), 0x88a8, 0));
        kinds.push(tagged(&packet.to(VIRTUAL_MAC), 0x88a8, 12));
    }
    for target in [VIRTUAL, OWN] {
        kinds.push(ethernet(BROADCAST, 0x0806, &arp(1, target)));
        kinds.push(ethernet(VIRTUAL_MAC, 0x0806, &arp(2, target)));
    }
    kinds.push(ethernet(OWN_MAC, 0x86dd, &[0x60; 60]));
    kinds
}

fn check(bench: &mut Bench, told: Told, frame: &[u8]) -> SteerCounter {
    let expected = answer(told, frame);
    let result = bench.program.test_run(frame, None).expect("a test run");
    let mut counted = bench.newly_counted();
    let given_own_mac = counted.remove(&SteerCounter::OwnMacGiven).is_some();
    assert_eq!(counted.values().sum::<u64>(), 1, "counted once: {counted:?}, {told:?}, {frame:02x?}");
    let counter = *counted.keys().next().expect("one");
    let seen = Answer { action: result.action, counter, given_own_mac };
    assert_eq!(seen, expected, "{told:?}, {frame:02x?}");
    let mut after = frame.to_vec();
    if given_own_mac {
        after[..6].copy_from_slice(&OWN_MAC);
    }
    assert_eq!(result.frame, after, "{told:?}, {frame:02x?}");
    counter
}

#[test]
fn a_frame_cut_at_any_length_is_judged_by_what_is_left() {
    in_lab(|lab| {
        let mut bench = Bench::new(lab);
        let kinds = kinds();
        for told in Told::all() {
            bench.tell(told);
            for frame in &kinds {
                for length in SHORTEST..=frame.len() {
                    check(&mut bench, told, &frame[..length]);
                }
            }
        }
        for length in 0..SHORTEST {
            let result = bench.program.test_run(&kinds[0][..length], None);
            assert!(matches!(result, Err(Error::TestRun(_))), "the kernel takes a frame of {length} octets");
        }
    });
}

/// Small, and the same on every run.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % bound as u64) as usize
    }
}

#[test]
fn frames_changed_at_random_are_judged_as_the_model_says() {
    in_lab(|lab| {
        let mut bench = Bench::new(lab);
        let kinds = kinds();
        let everything = Told::all();
        let mut random = Random(0x7a4d_e001);
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..1000 {
            let told = everything[random.below(everything.len())];
            bench.tell(told);
            for _ in 0..20 {
                let mut frame = kinds[random.below(kinds.len())].clone();
                for _ in 0..random.below(4) {
                    // The headers, mostly: the rest is not looked at.
                    let at = random.below(frame.len().min(64));
                    frame[at] = if random.below(2) == 0 {
                        random.below(256) as u8
                    } else {
                        frame[at] ^ 1 << random.below(8)
                    };
                }
                if random.below(4) == 0 {
                    frame.truncate(SHORTEST + random.below(frame.len() - SHORTEST));
                }
                seen.insert(check(&mut bench, told, &frame));
            }
        }
        // All but the two that no test run can reach, and the one that is counted beside others.
        assert_eq!(seen.len(), SteerCounter::COUNT - 3, "{seen:?}");
    });
}

#[test]
fn the_longest_frame_of_a_test_run_is_judged() {
    in_lab(|lab| {
        let mut bench = Bench::new(lab);
        bench.tell(INSIDE);
        let frame = ipv4(UDP, ANYBODY, REMOTE, &[0; 3400]).to(OWN_MAC);
        assert_eq!(check(&mut bench, INSIDE, &frame), SteerCounter::SteeredToProtected);
    });
}

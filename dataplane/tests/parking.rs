//! Strict handling over memory (F9, F14, F18, F27, F40): packets wait for the acknowledgement of their number, numbers
//! for leases and limits, and nothing else has an effect. Every test ends by accounting for every frame.

mod sites;

use proptest::prelude::*;
use sites::{HOST_A, HOST_B, Sites, udp};
use std::collections::VecDeque;
use std::os::fd::AsFd;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use tandem_api::counters::{Counter, DropReason};
use tandem_api::dataplane::StaleAction;
use tandem_api::types::{Direction, KeyFingerprint};
use tandem_dataplane::harness::Gateway;
use tandem_shm::{Handling, HotIn, HotOut, ROLE_ACTIVE, ROLE_STANDBY, open_version};

fn handle(gateway: &Gateway, handling: Handling, generation: u64) {
    gateway.shared().hot.header().handling.store(handling.word(generation), SeqCst);
}

fn slot(gateway: &Gateway, inbound: bool) -> u32 {
    gateway.sas().into_iter().find(|sa| (sa.window > 0) == inbound).unwrap().slot
}

fn inbound(gateway: &Gateway) -> &HotIn {
    gateway.shared().hot.inbound(slot(gateway, true)).unwrap()
}

fn outbound(gateway: &Gateway) -> &HotOut {
    gateway.shared().hot.outbound(slot(gateway, false)).unwrap()
}

/// Opens a version of a record on the gateway, as its replicating thread does.
fn open(gateway: &Gateway) -> u64 {
    open_version(&gateway.shared().hot.header().version)
}

fn acknowledge(gateway: &Gateway, version: u64) {
    inbound(gateway).acknowledged.store(version, SeqCst);
}

/// Two gateways of which the second one's partner knows the SA since its birth (F19).
fn told_sites() -> Sites {
    let sites = Sites::new("aws-lc-rs");
    let version = open(&sites.b);
    acknowledge(&sites.b, version);
    sites
}

fn packet(id: u32) -> Vec<u8> {
    udp(HOST_A, HOST_B, 64, &id.to_be_bytes(), false)
}

/// The numbers of the packets that have arrived at host B, in order.
fn arrived(sites: &Sites) -> Vec<u32> {
    let id = |packet: &Vec<u8>| u32::from_be_bytes(packet[28..32].try_into().unwrap());
    sites.at_host_b().iter().map(id).collect()
}

fn send(sites: &mut Sites, ids: impl IntoIterator<Item = u32>) {
    ids.into_iter().for_each(|id| sites.inject_a(&packet(id)));
    sites.settle();
}

#[test]
fn an_sa_that_the_standby_was_never_told_of_carries_nothing_while_strict_and_holds_up_nobody() {
    let mut sites = Sites::new("aws-lc-rs");
    handle(&sites.b, Handling::Strict, 1);
    send(&mut sites, [1, 2]);
    assert_eq!((arrived(&sites), sites.b.parked()), (vec![], 0));
    assert_eq!(sites.b.dropped(DropReason::SaHeld), 2);
    handle(&sites.b, Handling::Alone, 2);
    send(&mut sites, [3]);
    assert_eq!(arrived(&sites), [3], "alone it carries at once");
    sites.account();
}

#[test]
fn strict_packet_leaves_when_a_record_opened_after_its_number_is_acknowledged_and_not_before() {
    let mut sites = told_sites();
    handle(&sites.b, Handling::Strict, 1);
    send(&mut sites, [1]);
    assert_eq!((arrived(&sites), sites.b.parked()), (vec![], 1));
    // This record holds the first packet and not the second.
    let first = open(&sites.b);
    send(&mut sites, [2]);
    assert_eq!((arrived(&sites), sites.b.parked()), (vec![], 2), "opened is not acknowledged");
    sites.account();
    acknowledge(&sites.b, first);
    sites.settle();
    assert_eq!(
        (arrived(&sites), sites.b.parked()),
        (vec![1], 1),
        "an acknowledgement covers its record only"
    );
    sites.account();
    let second = open(&sites.b);
    acknowledge(&sites.b, second);
    send(&mut sites, [3]);
    assert_eq!(arrived(&sites), [2], "the third is not in the second record");
    let third = open(&sites.b);
    acknowledge(&sites.b, third);
    sites.settle();
    assert_eq!(arrived(&sites), [3]);
    assert_eq!(sites.b.counter(Counter::ParkedTotal), 3);
    assert_eq!(sites.b.counter(Counter::ParkedReleased), 3);
    assert_eq!(sites.b.link().parked_max.load(Relaxed), 2);
    assert_eq!(sites.b.link().parked.load(Relaxed), 0);
    assert_eq!(inbound(&sites.b).packets.load(Relaxed), 3);
    sites.account();
}

#[test]
fn alone_nothing_waits_and_what_moved_is_marked() {
    let mut sites = told_sites();
    handle(&sites.b, Handling::Alone, 1);
    send(&mut sites, 0..10);
    assert_eq!(arrived(&sites), (0..10).collect::<Vec<_>>());
    assert_eq!(sites.b.counter(Counter::ParkedTotal), 0);
    let marked = |marks: &tandem_shm::Marks| {
        let mut slots = Vec::new();
        marks.drain(|slot| slots.push(slot));
        slots
    };
    let (a, b) = (sites.a.shared(), sites.b.shared());
    assert_eq!(marked(&a.outbound_marks), [slot(&sites.a, false)]);
    assert_eq!(marked(&b.inbound_marks), [slot(&sites.b, true)]);
    assert_eq!((marked(&a.inbound_marks), marked(&b.outbound_marks)), (vec![], vec![]));
    send(&mut sites, [10]);
    assert_eq!(marked(&sites.b.shared().inbound_marks), [slot(&sites.b, true)], "once more after a drain");
    sites.account();
}

#[test]
fn authentic_packet_with_a_wrong_inside_is_marked_too() {
    let mut sites = told_sites();
    // B's SA does not cover the source.
    sites.host_a_sends(&udp([10, 1, 9, 9], HOST_B, 64, b"foreign", false));
    assert_eq!(sites.b.dropped(DropReason::InnerSelectorMismatch), 1);
    let mut slots = Vec::new();
    sites.b.shared().inbound_marks.drain(|slot| slots.push(slot));
    assert_eq!(slots, [slot(&sites.b, true)], "its number is used up");
    sites.account();
}

#[test]
fn sleeping_pair_thread_is_rung_for_the_first_mark_only() {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    let mut sites = told_sites();
    let rings = |gateway: &Gateway| {
        let mut bell = [PollFd::new(gateway.shared().bell.as_fd(), PollFlags::POLLIN)];
        poll(&mut bell, PollTimeout::ZERO).unwrap() == 1
    };
    send(&mut sites, [1]);
    assert!(!rings(&sites.b), "nobody sleeps");
    let bell = std::sync::Arc::clone(&sites.b.shared().bell);
    bell.doze();
    send(&mut sites, [2]);
    assert!(!rings(&sites.b), "the mark was there before it slept: it has looked after that");
    sites.b.shared().inbound_marks.drain(|_| ());
    send(&mut sites, [3]);
    assert!(rings(&sites.b));
    bell.wake(true);
    sites.account();
}

#[test]
fn going_alone_releases_what_waits_in_order() {
    let mut sites = told_sites();
    handle(&sites.b, Handling::Strict, 1);
    send(&mut sites, 0..100);
    assert_eq!((arrived(&sites), sites.b.parked()), (vec![], 100));
    handle(&sites.b, Handling::Alone, 2);
    sites.settle();
    assert_eq!(arrived(&sites), (0..100).collect::<Vec<_>>());
    sites.account();
}

#[test]
fn demoted_or_halted_gateway_drops_what_waits_and_its_numbers_stay_used() {
    for halted in [false, true] {
        let mut sites = told_sites();
        handle(&sites.b, Handling::Strict, 1);
        send(&mut sites, 0..5);
        if halted {
            handle(&sites.b, Handling::Halted, 2);
        } else {
            sites.b.shared().hot.header().role.store(ROLE_STANDBY, SeqCst);
        }
        // An acknowledgement that comes with it changes nothing.
        let version = open(&sites.b);
        acknowledge(&sites.b, version);
        sites.settle();
        assert_eq!((arrived(&sites), sites.b.parked()), (vec![], 0));
        assert_eq!(sites.b.dropped(DropReason::ParkedDemoted), 5);
        assert_eq!(sites.b.counter(Counter::ParkedReleased), 0);
        let frames = sites.outer();
        send(&mut sites, [5]);
        assert_eq!(sites.b.dropped(DropReason::NotActive), 1);
        sites.b.shared().hot.header().role.store(ROLE_ACTIVE, SeqCst);
        handle(&sites.b, Handling::Alone, 3);
        frames.iter().for_each(|frame| sites.inject_outside_b(frame));
        sites.settle();
        assert_eq!(arrived(&sites), [0; 0]);
        assert_eq!(sites.b.dropped(DropReason::EspReplayed), 5);
        sites.account();
    }
}

#[test]
fn limit_parks_what_lies_beyond_it_and_releases_it_when_raised() {
    let mut sites = told_sites();
    inbound(&sites.b).limit.store(2, SeqCst);
    send(&mut sites, 1..=4);
    assert_eq!((arrived(&sites), sites.b.parked()), (vec![1, 2], 2));
    sites.account();
    inbound(&sites.b).limit.store(3, SeqCst);
    sites.settle();
    assert_eq!((arrived(&sites), sites.b.parked()), (vec![3], 1));
    // Strictly, both must hold.
    handle(&sites.b, Handling::Strict, 1);
    inbound(&sites.b).limit.store(10, SeqCst);
    sites.settle();
    assert_eq!(arrived(&sites), [0; 0]);
    let version = open(&sites.b);
    acknowledge(&sites.b, version);
    sites.settle();
    assert_eq!(arrived(&sites), [4]);
    sites.account();
}

#[test]
fn held_sa_takes_nothing_in_and_gives_nothing_out() {
    let mut sites = told_sites();
    inbound(&sites.b).limit.store(0, SeqCst);
    send(&mut sites, 1..=3);
    assert_eq!(arrived(&sites), [0; 0]);
    assert_eq!(sites.b.dropped(DropReason::SaHeld), 3);
    assert_eq!(inbound(&sites.b).top.load(Relaxed), 0, "the window has not moved");
    outbound(&sites.a).limit.store(0, SeqCst);
    sites.outer();
    send(&mut sites, [4]);
    assert!(sites.outer().is_empty());
    assert_eq!(sites.a.dropped(DropReason::SaHeld), 1);
    assert_eq!(outbound(&sites.a).next.load(Relaxed), 3);
    // What waits when its SA is held ends, and holds up nobody.
    outbound(&sites.a).limit.store(u64::MAX, SeqCst);
    inbound(&sites.b).limit.store(u64::MAX, SeqCst);
    handle(&sites.b, Handling::Strict, 1);
    send(&mut sites, [5]);
    assert_eq!(sites.b.parked(), 1);
    inbound(&sites.b).limit.store(0, SeqCst);
    sites.settle();
    assert_eq!((sites.b.parked(), sites.b.dropped(DropReason::SaHeld)), (0, 4));
    sites.account();
}

#[test]
fn outbound_numbers_end_at_lease_and_limit_by_name() {
    let mut sites = told_sites();
    outbound(&sites.a).lease_end.store(3, SeqCst);
    send(&mut sites, 0..5);
    assert_eq!(arrived(&sites), [0, 1, 2, 3, 4], "alone needs no lease");
    handle(&sites.a, Handling::Strict, 1);
    outbound(&sites.a).lease_end.store(7, SeqCst);
    send(&mut sites, 5..10);
    assert_eq!(arrived(&sites), [5, 6]);
    assert_eq!(sites.a.dropped(DropReason::LeaseExhausted), 3);
    outbound(&sites.a).lease_end.store(100, SeqCst);
    outbound(&sites.a).limit.store(9, SeqCst);
    send(&mut sites, 10..15);
    assert_eq!(arrived(&sites), [10, 11]);
    assert_eq!(sites.a.dropped(DropReason::LimitReached), 3);
    assert_eq!(sites.a.dropped(DropReason::SequenceExhausted), 0);
    assert_eq!(outbound(&sites.a).send_errors.load(Relaxed), 6);
    outbound(&sites.a).limit.store(u64::MAX, SeqCst);
    send(&mut sites, [15]);
    assert_eq!(arrived(&sites), [15]);
    sites.account();
}

#[test]
fn a_quarter_of_the_frames_may_wait_and_the_others_go_on_working() {
    let mut sites = told_sites();
    handle(&sites.b, Handling::Strict, 1);
    for run in 0..3 {
        send(&mut sites, run * 100..(run + 1) * 100);
    }
    assert_eq!(sites.b.parked(), 256, "of 1024 frames");
    assert_eq!(sites.b.dropped(DropReason::ParkingFull), 44);
    sites.account();
    // The other direction needs frames too.
    outbound(&sites.b).lease_end.store(100, SeqCst);
    sites.host_b_sends(&udp(HOST_B, HOST_A, 64, b"outbound", false));
    assert_eq!(sites.at_host_a().len(), 1);
    let version = open(&sites.b);
    acknowledge(&sites.b, version);
    sites.settle();
    assert_eq!(arrived(&sites), (0..256).collect::<Vec<_>>());
    assert_eq!(sites.b.link().parked_max.load(Relaxed), 256);
    sites.account();
}

#[test]
fn round_echoes_the_handling_that_it_went_by() {
    let mut sites = told_sites();
    for (generation, handling) in [(1, Handling::Strict), (2, Handling::Alone), (9, Handling::Halted)] {
        handle(&sites.b, handling, generation);
        assert_ne!(sites.b.link().handling_seen.load(SeqCst), handling.word(generation));
        sites.b.round();
        assert_eq!(sites.b.link().handling_seen.load(SeqCst), handling.word(generation));
    }
}

#[test]
fn sa_that_is_removed_while_its_packets_wait_holds_up_nobody() {
    let mut sites = told_sites();
    handle(&sites.b, Handling::Strict, 1);
    send(&mut sites, 0..3);
    sites.b.install(7, &[]).unwrap();
    let swept = sites.b.sweep(7);
    assert_eq!((swept.count, swept.removed.len()), (2, 2));
    sites.settle();
    assert_eq!((arrived(&sites), sites.b.parked()), (vec![], 0));
    assert_eq!(sites.b.dropped(DropReason::EspNoSa), 3);
    sites.account();
}

#[test]
fn installing_says_where_each_sa_lies_and_begins_held_where_limits_are_kept() {
    let mut sites = told_sites();
    sites.a.set_limits(true);
    let mut fresh = Sites::sas_a();
    for (sa, key) in fresh.iter_mut().zip([40, 41]) {
        sa.fingerprint = KeyFingerprint(key);
        sa.stale = StaleAction::Hold;
    }
    let before: Vec<u32> = sites.a.sas().iter().map(|sa| sa.slot).collect();
    let outcome = sites.a.install(2, &fresh).unwrap();
    assert_eq!((outcome.new, outcome.installed.len(), outcome.removed.len()), (2, 2, 2));
    for (sa, spec) in outcome.installed.iter().zip(&fresh) {
        assert_eq!((sa.place.direction, sa.place.spi), (spec.direction, spec.spi));
        assert_eq!(
            (sa.place.fingerprint, sa.stale, sa.resumed),
            (spec.fingerprint, StaleAction::Hold, false)
        );
        assert!(!before.is_empty());
    }
    for (sa, key) in outcome.removed.iter().zip(Sites::sas_a()) {
        assert_eq!(
            sa.fingerprint, key.fingerprint,
            "the same SPI with another key takes the place of the old one"
        );
    }
    send(&mut sites, [1]);
    assert_eq!(sites.a.dropped(DropReason::SaHeld), 1, "new and held");
    outbound(&sites.a).limit.store(1, SeqCst);
    send(&mut sites, [2]);
    assert_eq!(outbound(&sites.a).next.load(Relaxed), 1);
    // The old keys again: their state is there, limit and all.
    let resumed = sites.a.install(3, &Sites::sas_a()).unwrap();
    assert_eq!(resumed.resumed, 2);
    assert!(resumed.installed.iter().all(|sa| sa.resumed && sa.stale == StaleAction::Jump));
    let directions: Vec<_> = resumed.installed.iter().map(|sa| sa.place.direction).collect();
    assert_eq!(directions, [Direction::Outbound, Direction::Inbound]);
    assert_eq!(outbound(&sites.a).limit.load(Relaxed), u64::MAX);
    assert_eq!(sites.a.install(4, &Sites::sas_a()).unwrap().installed, []);
    sites.account();
}

/// What happens to a strict gateway.
#[derive(Clone, Copy, Debug)]
enum Step {
    Packets(u32),
    Open,
    /// Acknowledges an opened version, counted from the last.
    Acknowledge(u64),
    Limit(u64),
    Alone,
    Strict,
    Demote,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (1..40u32).prop_map(Step::Packets),
        4 => Just(Step::Open),
        4 => (0..3u64).prop_map(Step::Acknowledge),
        1 => (0..60u64).prop_map(Step::Limit),
        1 => Just(Step::Alone),
        2 => Just(Step::Strict),
        1 => Just(Step::Demote),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    /// Against a queue of numbers and stamps: exactly what is acknowledged and within the limit leaves, in order.
    #[test]
    fn what_leaves_is_what_was_acknowledged(steps in proptest::collection::vec(step(), 1..60)) {
        let mut sites = told_sites();
        let (mut id, mut opened, mut acknowledged, mut limit, mut strict, mut generation) = (0, 1, 1, 5, true, 1);
        let mut waiting: VecDeque<(u32, u64)> = VecDeque::new();
        handle(&sites.b, Handling::Strict, generation);
        inbound(&sites.b).limit.store(limit, SeqCst);
        for step in steps {
            let mut expected = Vec::new();
            let mut came = 0;
            match step {
                Step::Packets(count) => came = count,
                Step::Open => opened = open(&sites.b),
                Step::Acknowledge(back) => acknowledged = acknowledged.max(opened.saturating_sub(back)),
                Step::Limit(by) => limit += by,
                Step::Alone => strict = false,
                Step::Strict => strict = true,
                Step::Demote => {
                    sites.b.shared().hot.header().role.store(ROLE_STANDBY, SeqCst);
                    sites.settle();
                    sites.b.shared().hot.header().role.store(ROLE_ACTIVE, SeqCst);
                    waiting.clear();
                }
            }
            generation += 1;
            handle(&sites.b, if strict { Handling::Strict } else { Handling::Alone }, generation);
            acknowledge(&sites.b, acknowledged);
            inbound(&sites.b).limit.store(limit, SeqCst);
            let full = 256 - waiting.len();
            for turn in 0..came {
                // Numbers of the SA begin at 1. What is dropped at the bound has used its number too.
                let at_once = !strict && u64::from(id) < limit;
                if at_once {
                    expected.push(id);
                } else if (turn as usize) < full {
                    waiting.push_back((id, opened));
                }
                id += 1;
            }
            let mut released = Vec::new();
            while let Some((id, stamp)) = waiting.front() {
                if u64::from(*id) >= limit || (strict && acknowledged <= *stamp) {
                    break;
                }
                released.push(*id);
                waiting.pop_front();
            }
            released.extend(expected);
            send(&mut sites, id - came..id);
            prop_assert_eq!(arrived(&sites), released);
            prop_assert_eq!(sites.b.parked(), waiting.len());
            prop_assert_eq!(sites.b.account(), Ok(()));
        }
    }
}

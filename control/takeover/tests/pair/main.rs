//! Two nodes of a pair, rule by rule. The simulation of the testbed tries what these tests do not think of.

mod world;

use std::sync::atomic::Ordering;
use tandem_esp::window::{self, Verdict};
use tandem_lease::message::{Header, Writer};
use tandem_shm::Handling;
use tandem_takeover::{Action, Input, Known, MS, Sa, SaKey, Stale, Way};
use world::{Machine, World};

#[test]
fn two_cold_nodes_become_one_active_and_one_synchronized() {
    let mut world = World::new();
    assert_eq!(world.settle(), (0, 1), "node 0 is active where nothing else decides");
}

#[test]
fn the_standby_takes_over_fresh_and_goes_on_past_every_number() {
    let mut world = World::new();
    let (active, standby) = world.settle();
    let mut last = 0;
    for number in 1..200 {
        last = last.max(world.nodes[active].seal_a_packet());
        world.nodes[active].accept(number);
        world.run(MS / 4);
    }
    assert!(last > 0);
    world.run(2 * MS);
    world.nodes[active].alive = false;
    world.run(20 * MS);
    assert!(world.nodes[standby].is_active(), "{:#?}", world.story());
    let takeover = world.nodes[standby].history.iter().rfind(|text| text.contains("takeover")).unwrap();
    assert!(takeover.contains("(fresh)"), "{takeover}");
    let first = world.nodes[standby].seal_a_packet();
    assert!(first > last, "{first} after {last}");
    let sa = world.nodes[standby].hot.inbound(1).unwrap();
    for number in 1..200 {
        assert_ne!(
            window::check(&sa.top, &sa.window, number),
            Verdict::Fresh,
            "{number} could be delivered twice"
        );
    }
}

#[test]
fn a_node_that_returns_is_synchronized_and_takes_over_in_its_turn() {
    let mut world = World::new();
    for round in 0..4 {
        let (active, standby) = world.settle();
        world.nodes[active].alive = false;
        world.run(50 * MS);
        assert!(world.nodes[standby].is_active(), "round {round}: {:#?}", world.story());
        // It returns with its incarnation file and an empty memory.
        let now = world.now;
        let incarnation = world.nodes[active].incarnation;
        let mut machine = Machine::new(world.nodes[active].number, now, Known::UpTo(1 << 20), Stale::Jump);
        machine.incarnation = incarnation;
        machine.grant(now);
        world.nodes[active] = machine;
    }
}

#[test]
fn a_node_that_returns_refuses_only_what_was_delivered_not_what_its_file_had_reserved() {
    let mut world = World::new();
    let (active, standby) = world.settle();
    for number in 1..100 {
        world.nodes[active].accept(number);
    }
    world.run(5 * MS);
    // The standby comes back without memory, with a file that reserves far ahead.
    let now = world.now;
    let incarnation = world.nodes[standby].incarnation;
    let mut machine = Machine::new(world.nodes[standby].number, now, Known::UpTo(5000), Stale::Jump);
    machine.incarnation = incarnation;
    machine.grant(now);
    world.nodes[standby] = machine;
    let sa = world.nodes[standby].hot.inbound(1).unwrap();
    assert_ne!(
        window::check(&sa.top, &sa.window, 4000),
        Verdict::Fresh,
        "before it hears more, the file counts"
    );
    assert_eq!(world.settle(), (active, standby));
    world.nodes[active].alive = false;
    world.run(20 * MS);
    assert!(world.nodes[standby].is_active());
    let sa = world.nodes[standby].hot.inbound(1).unwrap();
    for number in 1..100 {
        assert_ne!(window::check(&sa.top, &sa.window, number), Verdict::Fresh, "{number} was delivered");
    }
    for number in 100..200 {
        assert_eq!(
            window::check(&sa.top, &sa.window, number),
            Verdict::Fresh,
            "{number} was delivered by nobody"
        );
    }
}

#[test]
fn a_late_request_to_seal_changes_nothing() {
    let mut world = World::new();
    let (active, standby) = world.settle();
    let (now, incarnation) = (world.now, world.nodes[standby].incarnation);
    let (mut header, mut late) = (Header::new(), Vec::new());
    header.number.set(1);
    let mut writer = Writer::new(&mut late, &header);
    assert!(writer.seal(1, incarnation, 1));
    writer.finish();
    let machine = &mut world.nodes[standby];
    machine.inbox.push((0, late));
    world.run(5 * MS);
    assert!(world.now > now && world.nodes[active].state(world.now) == "strict");
    assert_eq!(world.nodes[standby].state(world.now), "synchronized");
}

#[test]
fn a_request_to_seal_of_an_earlier_reign_changes_nothing() {
    let mut world = World::new();
    let (active, standby) = world.settle();
    let incarnation = world.nodes[standby].incarnation;
    // The newest number, but no reign: as from a node whose memory was lost since, and sent again.
    let newest = world.nodes[active].hot.header().message.load(Ordering::Acquire) + 1;
    let (mut header, mut early) = (Header::new(), Vec::new());
    header.number.set(newest);
    let mut writer = Writer::new(&mut early, &header);
    assert!(writer.seal(1, incarnation, 1));
    writer.finish();
    world.nodes[standby].inbox.push((0, early));
    world.run(8 * MS);
    assert_eq!(world.nodes[active].state(world.now), "strict");
    assert_eq!(world.nodes[standby].state(world.now), "synchronized");
}

fn handling(machine: &Machine) -> Handling {
    Handling::of_word(machine.hot.header().handling.load(Ordering::Acquire))
}

fn said(machine: &Machine, step: &str) -> usize {
    machine.history.iter().filter(|line| line.split(' ').nth(1) == Some(&format!("{step}:"))).count()
}

#[test]
fn the_active_node_goes_alone_after_the_silence_of_the_standby_and_not_before() {
    let mut world = World::new();
    let (active, standby) = world.settle();
    world.nodes[standby].alive = false;
    world.run(27 * MS);
    assert_eq!(world.nodes[active].state(world.now), "strict");
    world.run(8 * MS);
    assert_eq!(world.nodes[active].state(world.now), "alone");
    assert_eq!(handling(&world.nodes[active]), Handling::Alone);
}

#[test]
fn a_goodbye_ends_strictness_at_once_and_a_new_incarnation_joins_again() {
    let mut world = World::new();
    let (active, standby) = world.settle();
    let before = world.nodes[standby].incarnation;
    world.nodes[standby].session = false;
    world.run(2900 * MS);
    assert_eq!(world.nodes[active].state(world.now), "strict", "a short pause of control changes nothing");
    world.run(200 * MS);
    assert_eq!(world.nodes[active].state(world.now), "alone");
    world.nodes[standby].session = true;
    let (again, _) = world.settle();
    assert_eq!(again, active);
    assert!(world.nodes[standby].incarnation > before);
}

#[test]
fn a_node_that_was_stopped_neither_goes_alone_nor_takes_over_by_its_own_pause() {
    let mut world = World::new();
    let (active, standby) = world.settle();
    world.nodes[standby].stopped = true;
    world.run(10 * MS);
    world.nodes[standby].stopped = false;
    world.run(20 * MS);
    assert!(!world.nodes[standby].is_active(), "its own pause is no silence of the partner");
    world.nodes[active].stopped = true;
    world.run(2000 * MS);
    assert!(world.nodes[standby].is_active());
    world.nodes[active].stopped = false;
    world.run(MS);
    assert!(!world.nodes[active].is_active(), "{:#?}", world.story());
    assert_eq!(said(&world.nodes[active], "alone"), 0, "it was strict to its end");
    let (now_active, _) = world.settle();
    assert_eq!(now_active, standby);
}

#[test]
fn an_isolated_active_node_fences_itself_and_the_other_takes_over() {
    let mut world = World::new();
    let (active, standby) = world.settle();
    world.connected = false;
    world.nodes[active].sees = false;
    world.run(60 * MS);
    assert!(!world.nodes[active].is_active() && world.nodes[standby].is_active(), "{:#?}", world.story());
}

#[test]
fn an_isolated_standby_does_not_take_over() {
    let mut world = World::new();
    let (active, standby) = world.settle();
    world.connected = false;
    world.nodes[standby].sees = false;
    world.run(500 * MS);
    assert!(world.nodes[active].is_active() && !world.nodes[standby].is_active());
    assert_eq!(world.nodes[active].state(world.now), "alone");
}

#[test]
fn the_node_that_sees_more_segments_becomes_active_while_it_is_fresh() {
    let mut world = World::new();
    let (active, standby) = world.settle();
    world.nodes[active].sees = false;
    world.run(40 * MS);
    assert!(world.nodes[standby].is_active() && !world.nodes[active].is_active(), "{:#?}", world.story());
    world.nodes[active].sees = true;
    let (still, _) = world.settle();
    assert_eq!(still, standby, "equal sight changes nothing");
}

#[test]
fn an_operator_changes_the_roles_of_a_synchronized_pair() {
    for at in [0, 1] {
        let mut world = World::new();
        let (active, standby) = world.settle();
        let now = world.now;
        world.nodes[if at == 0 { active } else { standby }].input(Input::SwitchOver, now);
        world.run(20 * MS);
        assert!(world.nodes[standby].is_active() && !world.nodes[active].is_active(), "{:#?}", world.story());
        assert_eq!(world.settle(), (standby, active));
    }
}

#[test]
fn a_stale_takeover_jumps_or_holds_as_the_map_says() {
    for (stale, carries) in [(Stale::Jump, true), (Stale::Hold, false)] {
        let mut world = World::with(Known::Never, stale);
        let (active, standby) = world.settle();
        world.nodes[standby].session = false;
        world.run(3200 * MS);
        assert_eq!(world.nodes[active].state(world.now), "alone");
        let mut last = 0;
        for _ in 0..5000 {
            last = last.max(world.nodes[active].seal_a_packet());
        }
        world.nodes[active].alive = false;
        world.run(100 * MS);
        assert!(world.nodes[standby].is_active());
        let next = world.nodes[standby].seal_a_packet();
        assert_eq!(next > last, carries, "{stale:?}: {next} after {last}");
        assert_eq!(next == 0, !carries);
    }
}

#[test]
fn two_active_nodes_become_one_that_knows_what_both_did() {
    let mut world = World::new();
    let (active, standby) = world.settle();
    world.connected = false;
    world.run(100 * MS);
    assert!(world.nodes[0].is_active() && world.nodes[1].is_active(), "live segments and no path");
    for number in 1000..1100 {
        world.nodes[active].accept(number);
    }
    let used = (0..100).map(|_| world.nodes[active].seal_a_packet()).max().unwrap();
    world.run(5 * MS);
    world.connected = true;
    let (winner, loser) = world.settle();
    assert_eq!((winner, loser), (standby, active), "the later term wins");
    let sa = world.nodes[winner].hot.inbound(1).unwrap();
    for number in 1000..1100 {
        assert_ne!(
            window::check(&sa.top, &sa.window, number),
            Verdict::Fresh,
            "{number} would be delivered twice"
        );
    }
    assert!(world.nodes[winner].seal_a_packet() > used);
    assert_eq!(said(&world.nodes[winner], "both-active"), 1, "{:#?}", world.story());
}

#[test]
fn an_sa_whose_numbers_are_lost_carries_nothing_until_the_partner_tells_them() {
    let mut world = World::with(Known::Lost, Stale::Jump);
    let (active, _) = world.settle();
    assert_eq!(world.nodes[active].seal_a_packet(), 0);
    assert!(
        world.nodes.iter().all(|machine| machine.node.held().count() == 2),
        "no node learns it from the other"
    );
}

#[test]
fn a_cold_node_that_overhears_its_partner_waits() {
    let mut world = World::new();
    world.connected = false;
    world.nodes[1].alive = false;
    for _ in 0..100 {
        let now = world.now;
        world.nodes[0].input(Input::Overheard, now);
        world.run(10 * MS);
    }
    assert!(!world.nodes[0].is_active());
    world.run(400 * MS);
    assert!(world.nodes[0].is_active(), "what is silent at last is gone");
}

#[test]
fn every_takeover_is_announced_and_noted() {
    let mut world = World::new();
    let (active, _) = world.settle();
    let control = &world.nodes[active].control;
    assert!(control.contains(&Action::Announce));
    assert!(control.iter().any(|action| matches!(action, Action::Reign { own: true, .. })));
}

#[test]
fn a_standby_that_cannot_take_records_of_one_sa_does_not_hold_it_up_for_ever() {
    let mut world = World::new();
    let (active, standby) = world.settle();
    world.nodes[standby].disk = false;
    // The outbound SA is answered all the time: its end does not move. The inbound one soon passes what the standby
    // has on disk.
    for number in 1..=16_000 {
        world.nodes[active].seal_a_packet();
        world.nodes[active].accept(number);
        world.run(MS / 4);
    }
    assert!(said(&world.nodes[active], "leave") >= 1, "{:#?}", world.story());
    assert_eq!(handling(&world.nodes[active]), Handling::Alone, "{:#?}", world.story());
}

#[test]
fn a_key_that_comes_back_under_strict_waits_for_the_present_incarnation() {
    let mut world = World::new();
    let (active, _) = world.settle();
    assert!(world.nodes[active].seal_a_packet() > 0);
    let key = SaKey { way: Way::Out, spi: 0x1001, fingerprint: 9 };
    let now = world.now;
    world.nodes[active].input(Input::Remove(key), now);
    world.run(5 * MS);
    let now = world.now;
    world.nodes[active]
        .input(Input::Install(Sa { key, slot: 1, stale: Stale::Jump, known: Known::Memory }), now);
    assert_eq!(handling(&world.nodes[active]), Handling::Strict);
    assert_eq!(world.nodes[active].seal_a_packet(), 0, "what was acknowledged before it was removed is void");
    world.run(5 * MS);
    assert!(world.nodes[active].seal_a_packet() > 0);
}

#[test]
fn a_stale_takeover_goes_past_all_that_the_partner_can_have_used_alone() {
    let mut world = World::new();
    let (active, standby) = world.settle();
    let mut last = 0;
    let mut traffic = |world: &mut World, turns: u32| {
        for _ in 0..turns {
            for _ in 0..400 {
                last = last.max(world.nodes[active].seal_a_packet());
            }
            let packets = &world.nodes[active].hot.outbound(1).unwrap().packets;
            packets.store(last, Ordering::Relaxed);
            world.run(MS / 4);
        }
        last
    };
    traffic(&mut world, 1000);
    // The standby is heard all the time, and told nothing.
    world.nodes[standby].session = false;
    let alone_from = traffic(&mut world, 12_400);
    assert_eq!(world.nodes[active].state(world.now), "alone");
    let last = traffic(&mut world, 12_000);
    assert!(last > alone_from + 4_000_000, "{last}");
    world.nodes[active].alive = false;
    world.run(50 * MS);
    assert!(world.nodes[standby].is_active(), "{:#?}", world.story());
    world.run(5 * MS);
    let first = world.nodes[standby].seal_a_packet();
    assert!(first > last, "{first} after {last}");
    assert!(first < last + (1 << 26), "{first} after {last}: a key has four jumps of 2^30");
}

//! The sets that the program asks: reconciled, live, bounded.

use crate::frames::*;
use crate::lab::in_lab;
use crate::setup::{Bench, INSIDE, OUTSIDE, Told, prefix};
use std::net::Ipv4Addr;
use tandem_ebpf::{
    Action, Error, MAX_OWN_ADDRESSES, MAX_PROTECTED, MAX_QUEUES, MAX_VIRTUAL_ADDRESSES, Prefix, Settings,
    Side, SteerProgram,
};

fn action(bench: &mut Bench, frame: &[u8]) -> Action {
    bench.program.test_run(frame, None).expect("a test run").action
}

fn inside_to(destination: [u8; 4]) -> Vec<u8> {
    ipv4(TCP, ANYBODY, Ipv4Addr::from(destination), &udp(80)).to(OWN_MAC)
}

#[test]
fn the_set_of_prefixes_is_exactly_the_last_one_given() {
    in_lab(|lab| {
        let mut bench = Bench::new(lab);
        bench.tell(INSIDE);
        bench.program.set_protected(&[prefix("10.1.0.0", 16), prefix("10.2.0.0", 16)]).expect("set");
        bench
            .program
            .set_protected(&[
                prefix("10.2.0.0", 16),
                prefix("10.3.9.9", 24),
                prefix("10.3.9.0", 24),
                prefix("10.4.4.4", 32),
            ])
            .expect("set");
        for (destination, expected) in [
            ([10, 1, 1, 1], Action::Pass),
            ([10, 2, 0, 0], Action::Redirect),
            ([10, 2, 255, 255], Action::Redirect),
            ([10, 3, 8, 255], Action::Pass),
            ([10, 3, 9, 0], Action::Redirect),
            ([10, 3, 10, 0], Action::Pass),
            ([10, 4, 4, 4], Action::Redirect),
            ([10, 4, 4, 5], Action::Pass),
        ] {
            assert_eq!(action(&mut bench, &inside_to(destination)), expected, "{destination:?}");
        }
        bench.program.set_protected(&[]).expect("set");
        assert_eq!(action(&mut bench, &inside_to([10, 2, 0, 1])), Action::Pass);
    });
}

#[test]
fn a_prefix_that_becomes_wider_or_narrower_covers_what_it_says() {
    in_lab(|lab| {
        let mut bench = Bench::new(lab);
        bench.tell(INSIDE);
        for (length, second_half) in [(17, Action::Pass), (16, Action::Redirect), (18, Action::Pass)] {
            bench.program.set_protected(&[prefix("10.1.0.0", length)]).expect("set");
            assert_eq!(action(&mut bench, &inside_to([10, 1, 1, 1])), Action::Redirect);
            assert_eq!(action(&mut bench, &inside_to([10, 1, 128, 1])), second_half, "/{length}");
        }
    });
}

#[test]
fn addresses_come_and_go() {
    in_lab(|lab| {
        let mut bench = Bench::new(lab);
        bench.tell(OUTSIDE);
        let to = |address: Ipv4Addr| ipv4(ESP, ANYBODY, address, &esp()).to(OWN_MAC);
        let (first, second) = (Ipv4Addr::new(203, 0, 113, 1), Ipv4Addr::new(203, 0, 113, 2));
        for (addresses, expected) in [
            (vec![first], [Action::Redirect, Action::Pass]),
            (vec![second, second], [Action::Pass, Action::Redirect]),
            (vec![first, second], [Action::Redirect, Action::Redirect]),
            (vec![], [Action::Pass, Action::Pass]),
        ] {
            bench.program.set_virtual_addresses(&addresses).expect("set");
            assert_eq!([action(&mut bench, &to(first)), action(&mut bench, &to(second))], expected);
        }
        bench.tell(OUTSIDE.all_protected());
        for (addresses, expected) in [(vec![first], Action::Pass), (vec![], Action::Redirect)] {
            bench.program.set_own_addresses(&addresses).expect("set");
            assert_eq!(action(&mut bench, &to(first)), expected);
        }
    });
}

#[test]
fn an_address_that_is_own_and_virtual_is_own() {
    in_lab(|lab| {
        let mut bench = Bench::new(lab);
        bench.tell(OUTSIDE);
        let frame = ipv4(ESP, ANYBODY, VIRTUAL, &esp()).to(OWN_MAC);
        bench.program.set_own_addresses(&[VIRTUAL]).expect("set");
        assert_eq!(action(&mut bench, &frame), Action::Pass);
        bench.program.set_virtual_addresses(&[VIRTUAL]).expect("set");
        assert_eq!(action(&mut bench, &frame), Action::Pass);
        bench.program.set_own_addresses(&[]).expect("set");
        assert_eq!(action(&mut bench, &frame), Action::Redirect, "virtual again");
    });
}

#[test]
fn the_role_changes_live() {
    in_lab(|lab| {
        let mut bench = Bench::new(lab);
        for (told, expected) in
            [(INSIDE, Action::Redirect), (INSIDE.standby(), Action::Drop), (INSIDE, Action::Redirect)]
        {
            bench.tell(Told { ..told });
            assert_eq!(action(&mut bench, &inside_to(REMOTE.octets())), expected);
        }
    });
}

#[test]
fn the_maps_hold_what_they_promise_twice_over_and_refuse_more() {
    let mut program = SteerProgram::load().expect("the program loads (root is needed)");
    let prefixes = |first: u32, count: usize| -> Vec<Prefix> {
        (0..count as u32)
            .map(|n| Prefix::new(Ipv4Addr::from(first + (n << 8)), 24).expect("a prefix"))
            .collect()
    };
    let addresses = |first: u32, count: usize| -> Vec<Ipv4Addr> {
        (0..count as u32).map(|n| Ipv4Addr::from(first + n)).collect()
    };
    // The second set has nothing of the first, so that both are there for a moment.
    for first in [0x0a00_0000, 0x1400_0000] {
        program.set_protected(&prefixes(first, MAX_PROTECTED)).expect("full");
        program.set_virtual_addresses(&addresses(first, MAX_VIRTUAL_ADDRESSES)).expect("full");
        program.set_own_addresses(&addresses(first, MAX_OWN_ADDRESSES)).expect("full");
    }
    let too_many = |result: Result<(), Error>, expected: &str| match result {
        Err(Error::TooMany { what, count, limit }) => assert_eq!((what, count), (expected, limit + 1)),
        other => panic!("{other:?}"),
    };
    too_many(program.set_protected(&prefixes(0, MAX_PROTECTED + 1)), "protected prefixes");
    too_many(program.set_virtual_addresses(&addresses(0, MAX_VIRTUAL_ADDRESSES + 1)), "virtual addresses");
    too_many(program.set_own_addresses(&addresses(0, MAX_OWN_ADDRESSES + 1)), "own addresses");
}

#[test]
fn queues_beyond_the_map_are_refused() {
    in_lab(|lab| {
        let mut bench = Bench::new(lab);
        let Bench { program, socket, .. } = &mut bench;
        program.set_socket(MAX_QUEUES - 1, socket.fd()).expect("the last queue");
        assert!(matches!(program.set_socket(MAX_QUEUES, socket.fd()), Err(Error::Queue(MAX_QUEUES))));
        assert!(matches!(program.clear_socket(MAX_QUEUES), Err(Error::Queue(MAX_QUEUES))));
        program.clear_socket(3).expect("an empty place may be cleared");
    });
}

#[test]
fn a_role_switch_decides_until_the_next_one_whatever_the_settings_say_meanwhile() {
    in_lab(|lab| {
        let mut bench = Bench::new(lab);
        bench.tell(INSIDE.standby());
        bench.program.set_protected(&[prefix("10.1.0.0", 16)]).expect("set");
        let mut switch = bench.program.role_switch().expect("a switch");
        let frame = inside_to([10, 1, 1, 1]);
        for (active, expected) in [(true, Action::Redirect), (false, Action::Drop), (true, Action::Redirect)]
        {
            switch.set(active).expect("switched");
            assert_eq!(action(&mut bench, &frame), expected);
            let settings = Settings { side: Side::Inside, own_mac: OWN_MAC, virtual_mac: Some(VIRTUAL_MAC) };
            bench.program.set_settings(&settings).expect("settings");
            assert_eq!(action(&mut bench, &frame), expected, "settings say nothing of the role");
        }
    });
}

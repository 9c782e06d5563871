//! Two sessions against each other, in memory.

use super::*;
use crate::epoch::Epochs;
use crate::replica::Replica;
use proptest::prelude::*;
use tandem_api::dataplane::{SaSpec, StaleAction};
use tandem_api::types::{Direction, KeyFingerprint, KeyMaterial, Transform};
use x25519_dalek::{PublicKey, StaticSecret};

const MS: Nanos = 1_000_000;

fn keys(own: u8, partner: u8) -> Keys {
    let public = PublicKey::from(&StaticSecret::from([partner; 32])).to_bytes();
    Keys { own: [own; 32], partner: public }
}

fn spec(spi: u32, mark: u64) -> SaSpec {
    SaSpec {
        direction: Direction::Outbound,
        spi,
        policy: 1,
        selectors: Vec::new(),
        local: [192, 0, 2, 1].into(),
        peer: [198, 51, 100, 2].into(),
        transform: Transform::Aes256gcm16,
        key: KeyMaterial::new(vec![mark as u8; 36]),
        fingerprint: KeyFingerprint(mark),
        base_term: 0,
        stale: StaleAction::Jump,
        map: "site-b".to_owned(),
    }
}

fn configuration(key: u8) -> Digest {
    let many = (0..600).map(|i| (format!("crypto-map.site-{i:03}.static.inbound.key"), [1; 8]));
    let one = ("crypto-map.site-300.static.outbound.key".to_owned(), [key; 8]);
    Digest::new(many.chain([one, ("redundancy.heartbeat-ms".to_owned(), [2; 8])]))
}

/// A control process: what outlives sessions, its data plane's keys, and what the stream brought.
struct Control {
    local: Local,
    replica: Replica,
    installed: Vec<EpochKey>,
    reserved_above: Vec<u64>,
    session: Session,
    seen: Vec<Event>,
    ends: Vec<End>,
}

fn local(node: u8) -> Local {
    Local {
        node,
        software: "0.1.0".to_owned(),
        file_id: [node; 16],
        highest: [2, 1],
        reserved: 32 + u64::from(node),
        reign: 2,
        incarnation: 7 + u64::from(node),
        incarnation_seen: 0,
        digest: configuration(1),
        epochs: Epochs::new(node, 1000),
        store: Store::default(),
        source: None,
        position: 0,
        counters: Counters::default(),
    }
}

impl Control {
    fn new(node: u8, dialled: bool) -> Self {
        let session = Session::new(dialled, &keys(node + 1, 2 - node), 0).unwrap();
        Self {
            local: local(node),
            replica: Replica::default(),
            installed: Vec::new(),
            reserved_above: Vec::new(),
            session,
            seen: Vec::new(),
            ends: Vec::new(),
        }
    }

    fn redial(&mut self, dialled: bool, now: Nanos) {
        let node = self.local.node;
        self.session.close(End::Closed("test".to_owned()), &mut self.local);
        self.own(now);
        self.session = Session::new(dialled, &keys(node + 1, 2 - node), now).unwrap();
    }

    /// What an owner does. Gives whether there was anything.
    fn own(&mut self, _now: Nanos) -> bool {
        let mut moved = false;
        while let Some(event) = self.session.poll_event() {
            moved = true;
            match event {
                Event::Paired(hello) => {
                    self.reserved_above.push(hello.reserved);
                    self.session.reserved();
                }
                Event::Epoch(key) => {
                    self.local.epochs.installed(key.number, key.send);
                    self.installed.retain(|old| old.number != key.number);
                    self.installed.push(key);
                }
                Event::Stream { position, body } => {
                    self.replica.apply(body);
                    self.session.applied(position);
                }
                Event::Ended(end) => {
                    self.replica.interrupted();
                    self.ends.push(end);
                }
                other => self.seen.push(other),
            }
        }
        moved
    }

    fn seals_with(&self) -> Option<u32> {
        self.installed.iter().filter(|key| key.send).map(|key| key.number).max()
    }

    fn opens(&self, number: u32) -> bool {
        self.installed.iter().any(|key| key.number == number)
    }
}

/// Two controls and a wire on which at most `frames` more frames arrive.
struct Wire {
    a: Control,
    b: Control,
    now: Nanos,
    frames: usize,
    carried: usize,
    sizes: Vec<usize>,
}

impl Wire {
    fn new() -> Self {
        let (a, b) = (Control::new(0, true), Control::new(1, false));
        Self { a, b, now: 0, frames: usize::MAX, carried: 0, sizes: Vec::new() }
    }

    /// Carries frames until both are silent, or the wire is cut.
    fn run(&mut self) {
        loop {
            let mut moved = false;
            for flip in [false, true] {
                let (from, to) = if flip { (&mut self.b, &mut self.a) } else { (&mut self.a, &mut self.b) };
                from.own(self.now);
                while let Some(frame) = from.session.poll_transmit(&mut from.local, self.now) {
                    from.own(self.now);
                    if self.frames == 0 {
                        return;
                    }
                    self.frames -= 1;
                    self.carried += 1;
                    self.sizes.push(frame.len());
                    moved = true;
                    if !to.session.is_ended() {
                        to.session.receive(&frame, &mut to.local, self.now);
                        to.own(self.now);
                    }
                }
                moved |= from.own(self.now);
            }
            // Whoever seals, the other one can open it.
            for (one, other) in [(&self.a, &self.b), (&self.b, &self.a)] {
                if let Some(number) = one.seals_with() {
                    assert!(other.opens(number), "epoch {number}");
                }
            }
            if !moved {
                return;
            }
        }
    }

    fn redial(&mut self) {
        self.now += MS;
        let by_a = !self.a.session.dialled();
        self.a.redial(by_a, self.now);
        self.b.redial(!by_a, self.now);
        self.frames = usize::MAX;
    }

    fn assert_in_step(&self) {
        assert!(self.a.session.is_up() && self.b.session.is_up(), "{:?} {:?}", self.a.ends, self.b.ends);
        let epoch = self.a.local.epochs.used();
        assert!(epoch > 1000);
        assert_eq!(epoch, self.b.local.epochs.used());
        assert_eq!((self.a.local.epochs.pending(), self.b.local.epochs.pending()), (None, None));
        assert_eq!((self.a.seals_with(), self.b.seals_with()), (Some(epoch), Some(epoch)));
        assert!(self.b.replica.is_complete());
        let held: Vec<u32> = self.b.replica.specs().map(|spec| spec.spi).collect();
        assert_eq!(held.len(), self.a.local.store.len(), "{held:?}");
        assert_eq!(self.a.session.quiet(&self.a.local), Some(self.a.local.position));
    }
}

fn filled() -> Wire {
    let mut wire = Wire::new();
    wire.a.local.source = Some(2);
    for spi in 300..310 {
        wire.a.local.store.put(spec(spi, u64::from(spi)));
    }
    wire
}

#[test]
fn two_nodes_agree_exchange_an_epoch_and_the_sas() {
    let mut wire = filled();
    wire.run();
    wire.assert_in_step();
    assert_eq!((&wire.a.reserved_above[..], &wire.b.reserved_above[..]), (&[33][..], &[32][..]));
    assert!(wire.a.seen.contains(&Event::Up { partner_incarnation: 8 }));
    assert!(wire.b.seen.contains(&Event::Up { partner_incarnation: 7 }));
    // Live changes, and a deletion.
    wire.a.local.store.put(spec(999, 1));
    wire.a.local.store.delete((Direction::Outbound, 305));
    assert_eq!(wire.a.session.quiet(&wire.a.local), None);
    wire.run();
    wire.assert_in_step();
    assert!(wire.b.replica.get((Direction::Outbound, 305)).is_none());
    // A new incarnation while the session is up.
    wire.b.local.incarnation = 20;
    wire.run();
    assert_eq!(wire.a.seen.last(), Some(&Event::Incarnation(20)));
    assert_eq!((wire.a.local.incarnation_seen, wire.b.local.incarnation_seen), (20, 7));
}

#[test]
fn a_connection_lost_at_any_message_leaves_two_nodes_that_agree_on_the_next_one() {
    let mut whole = filled();
    whole.run();
    assert!(whole.carried > 20);
    for cut in 0..whole.carried {
        let mut wire = filled();
        wire.frames = cut;
        wire.run();
        wire.redial();
        // And once more, in the middle of the second one.
        wire.frames = cut / 2 + 3;
        wire.run();
        wire.redial();
        wire.run();
        wire.assert_in_step();
        for control in [&wire.a, &wire.b] {
            assert!(
                control.ends.iter().all(|end| matches!(end, End::Closed(_))),
                "{cut}: {:?}",
                control.ends
            );
        }
    }
}

#[test]
fn an_epoch_in_use_outlives_sessions_and_a_lost_memory_makes_a_new_one() {
    let mut wire = filled();
    wire.run();
    let first = wire.a.local.epochs.used();
    wire.redial();
    wire.run();
    wire.assert_in_step();
    assert_eq!(wire.a.local.epochs.used(), first);
    for round in 1..=4 {
        let control = if round % 2 == 0 { &mut wire.a } else { &mut wire.b };
        control.local.epochs.renew();
        control.installed.clear();
        // What the other one still seals with cannot be opened here, until the new one is in force.
        let (a, b) = (std::mem::take(&mut wire.a.installed), std::mem::take(&mut wire.b.installed));
        drop((a, b));
        wire.run();
        wire.assert_in_step();
        assert_eq!(wire.a.local.epochs.used(), first + round);
    }
    // A data plane that knows a higher number refuses one: numbers go far beyond it.
    wire.b.local.epochs.refused();
    wire.a.installed.clear();
    wire.b.installed.clear();
    wire.run();
    wire.assert_in_step();
    let first = wire.a.local.epochs.used() - 4;
    assert!(first > 1 << 20);
    // A restarted control process of node 0 knows no number: the partner's counts.
    wire.a.local.epochs = Epochs::new(0, 5);
    wire.redial();
    wire.run();
    wire.assert_in_step();
    assert_eq!(wire.a.local.epochs.used(), first + 5);
}

#[test]
fn a_change_of_roles_starts_a_new_stream_from_the_new_active_node() {
    let mut wire = filled();
    wire.run();
    wire.b.local.source = Some(3);
    wire.b.local.store.put(spec(300, 300));
    wire.run();
    // Both active for a moment: the later reign is heard, the older one is not.
    assert!(wire.a.replica.is_complete());
    wire.a.local.store.put(spec(777, 7));
    wire.run();
    assert!(wire.b.replica.get((Direction::Outbound, 777)).is_none());
    wire.a.local.source = None;
    wire.b.local.store.put(spec(301, 301));
    wire.run();
    let held: Vec<u32> = wire.a.replica.specs().map(|spec| spec.spi).collect();
    assert_eq!(held, [300, 301]);
    assert!(wire.b.session.quiet(&wire.b.local).is_some());
    assert_eq!(wire.a.session.quiet(&wire.a.local), None);
    assert!(wire.a.session.is_up() && wire.b.session.is_up());
}

#[test]
fn both_nodes_name_the_first_key_in_which_their_configurations_differ() {
    let key = "crypto-map.site-300.static.outbound.key";
    let mut wire = Wire::new();
    wire.b.local.digest = configuration(9);
    wire.run();
    for control in [&wire.a, &wire.b] {
        let [End::Mismatch(text)] = &control.ends[..] else { panic!("{:?}", control.ends) };
        assert!(text.contains(key) && text.contains("not the same on both"), "{text}");
        assert!(control.reserved_above.is_empty() && control.seen == [Event::Established]);
    }
    // A key that only one of them has.
    wire.b.local.digest = Digest::new([("zone".to_owned(), [0; 8])]);
    wire.redial();
    wire.run();
    let End::Mismatch(text) = wire.a.ends.last().unwrap() else { panic!() };
    assert!(text.contains("site-000") && text.contains("only in this node's"), "{text}");
    let End::Mismatch(text) = wire.b.ends.last().unwrap() else { panic!() };
    assert!(text.contains("site-000") && text.contains("only in the partner's"), "{text}");
    // Mended.
    wire.b.local.digest = configuration(1);
    wire.redial();
    wire.a.local.source = Some(2);
    wire.run();
    wire.assert_in_step();
}

#[test]
fn a_configuration_that_changes_while_the_session_is_up_is_compared_again() {
    let mut wire = filled();
    wire.run();
    // Equal again before the partner noticed more than the new digest.
    wire.a.local.digest = configuration(5);
    wire.b.local.digest = configuration(5);
    wire.run();
    wire.assert_in_step();
    wire.a.local.digest = configuration(6);
    wire.run();
    for control in [&wire.a, &wire.b] {
        let Some(End::Mismatch(text)) = control.ends.last() else { panic!("{:?}", control.ends) };
        assert!(text.contains("site-300"), "{text}");
    }
}

#[test]
fn wrong_keys_are_not_let_in_on_either_side() {
    let mut wire = Wire::new();
    wire.a.session = Session::new(true, &keys(5, 2), 0).unwrap();
    wire.run();
    assert!(matches!(wire.b.ends[..], [End::NotPartner(_)]), "{:?}", wire.b.ends);
    assert!(wire.a.seen.is_empty() && wire.b.seen.is_empty());
    let mut wire = Wire::new();
    wire.a.session = Session::new(true, &keys(1, 9), 0).unwrap();
    wire.run();
    assert!(matches!(wire.b.ends[..], [End::NotPartner(_)]), "{:?}", wire.b.ends);
}

#[test]
fn a_recorded_session_opens_nothing_when_it_is_played_again() {
    let mut wire = filled();
    let mut recorded = Vec::new();
    for _ in 0..50 {
        wire.a.own(0);
        while let Some(frame) = wire.a.session.poll_transmit(&mut wire.a.local, 0) {
            wire.a.own(0);
            wire.b.session.receive(&frame, &mut wire.b.local, 0);
            recorded.push(frame);
        }
        wire.b.own(0);
        while let Some(frame) = wire.b.session.poll_transmit(&mut wire.b.local, 0) {
            wire.b.own(0);
            wire.a.session.receive(&frame, &mut wire.a.local, 0);
        }
    }
    wire.assert_in_step();
    let mut victim = Control::new(1, false);
    for frame in recorded {
        victim.session.receive(&frame, &mut victim.local, 0);
        victim.own(0);
        while victim.session.poll_transmit(&mut victim.local, 0).is_some() {}
    }
    assert!(matches!(victim.ends[..], [End::NotPartner(_)]), "{:?}", victim.ends);
    assert!(victim.seen.is_empty() && victim.reserved_above.is_empty());
}

#[test]
fn another_version_is_named_and_something_else_is_not_ssp() {
    for (said, end) in [
        (b"\x00\x0ctandem-ssp\x00\x63".to_vec(), End::Version(99)),
        (b"\x00\x03GET".to_vec(), End::NotSsp),
        (b"\x00\x00".to_vec(), End::Malformed("an empty frame".to_owned())),
    ] {
        let mut control = Control::new(1, false);
        control.session.receive(&said, &mut control.local, 0);
        control.own(0);
        assert_eq!(control.ends, [end]);
        // The own version still goes out.
        let frame = control.session.poll_transmit(&mut control.local, 0).unwrap();
        assert_eq!(frame, b"\x00\x0ctandem-ssp\x00\x01");
        assert_eq!(control.session.poll_transmit(&mut control.local, 0), None);
    }
}

#[test]
fn a_copied_term_file_and_a_pair_of_equal_numbers_are_refused_with_a_cure() {
    let mut wire = Wire::new();
    wire.b.local.file_id = [0; 16];
    wire.run();
    for control in [&wire.a, &wire.b] {
        let text = control.ends[0].to_string();
        assert!(text.contains("node init"), "{text}");
    }
    let mut wire = Wire::new();
    wire.b.local.node = 0;
    wire.run();
    assert!(wire.a.ends[0].to_string().contains("node init") && wire.b.ends.len() == 1);
}

#[test]
fn a_silent_partner_is_dead_after_3_seconds_and_a_talking_one_is_not() {
    let mut wire = filled();
    wire.run();
    for _ in 0..10 {
        wire.now += SECOND;
        for control in [&mut wire.a, &mut wire.b] {
            control.session.handle_timeout(&mut control.local, wire.now);
        }
        wire.run();
    }
    wire.assert_in_step();
    assert_eq!(wire.a.session.status().round_trip, Some(0));
    wire.frames = 0;
    let heard = wire.now;
    while wire.a.session.poll_timeout().is_some() {
        wire.now = wire.a.session.poll_timeout().unwrap();
        wire.a.session.handle_timeout(&mut wire.a.local, wire.now);
        wire.run();
    }
    wire.a.own(wire.now);
    assert_eq!((wire.now - heard, wire.a.ends.last()), (SILENCE, Some(&End::Silent)));
    // Somebody who only connects is gone as fast.
    let mut control = Control::new(1, false);
    control.session.handle_timeout(&mut control.local, SILENCE);
    control.own(0);
    assert_eq!(control.ends, [End::Silent]);
}

#[test]
fn an_authenticated_partner_that_breaks_the_protocol_loses_its_session() {
    type Wrong = fn(&mut Wire) -> Message;
    let cases: [Wrong; 6] = [
        |_| Message::Applied { position: 1_000_000 },
        |_| Message::Stream { position: 5, body: StreamBody::EndOfBulk },
        |_| Message::Epoch { number: 5000, secret: KeyMaterial::new(vec![1; 31]) },
        |_| Message::Epoch { number: 1, secret: KeyMaterial::new(vec![1; 32]) },
        |wire| Message::Hello(wire.a.session.status().partner.unwrap()),
        |wire| Message::Stream { position: wire.a.local.position + 2, body: StreamBody::EndOfBulk },
    ];
    for (at, wrong) in cases.iter().enumerate() {
        let mut wire = filled();
        wire.run();
        if at == 0 {
            wire.b.local.source = Some(3);
            wire.run();
        }
        let message = wrong(&mut wire).encode().unwrap();
        let frame = frame::encode(&wire.a.session.secure.seal(&message).unwrap()).unwrap();
        wire.b.session.receive(&frame, &mut wire.b.local, 0);
        wire.b.own(0);
        assert!(matches!(wire.b.ends[..], [End::Malformed(_)]), "{at}: {:?}", wire.b.ends);
    }
}

proptest! {
    #[test]
    fn hostile_octets_end_a_session_at_most(
        octets in prop::collection::vec(any::<u8>(), 0..400),
        preamble in any::<bool>(),
        dialled in any::<bool>(),
    ) {
        let mut control = Control::new(1, dialled);
        if preamble {
            control.session.receive(b"\x00\x0ctandem-ssp\x00\x01", &mut control.local, 0);
        }
        control.session.receive(&octets, &mut control.local, 0);
        control.own(0);
        prop_assert!(control.seen.is_empty() && control.reserved_above.is_empty());
        for _ in 0..4 {
            control.session.poll_transmit(&mut control.local, 0);
        }
    }

    #[test]
    fn octets_changed_on_the_way_end_the_session_and_bring_nothing_wrong(
        at in 0usize..30,
        place in any::<prop::sample::Index>(),
        bit in 0u8..8,
    ) {
        let mut wire = filled();
        wire.frames = at;
        wire.run();
        wire.frames = 1;
        let (from, to) = (&mut wire.a, &mut wire.b);
        if let Some(mut frame) = from.session.poll_transmit(&mut from.local, 0) {
            let place = 2 + place.index(frame.len() - 2);
            frame[place] ^= 1 << bit;
            to.session.receive(&frame, &mut to.local, 0);
            to.own(0);
            prop_assert_eq!(to.ends.len(), 1);
        }
    }
}

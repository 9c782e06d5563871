//! What the data planes of a pair say to each other is authentic, and still nothing in it is trusted: whatever a
//! node is doing, no message makes it panic, loop, or write a message that is none.
//!
//! The first octet chooses what the node is doing; then messages, each with its length (2 octets) before it.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tandem_lease::{NodeNumber, message};
use tandem_shm::{HotState, Marks, settle as settle_changes};
use tandem_takeover::{
    Action, Config, Input, Known, MESSAGE_MAX, MS, Memory, Nanos, Node, Sa, SaKey, Sight, Stale, Way,
};

/// More messages at once than any node has to say.
const ENOUGH: usize = 1000;

fuzz_target!(|octets: &[u8]| {
    let Some((state, mut rest)) = octets.split_first() else { return };
    let hot = HotState::create(4).expect("a memfd");
    let (inbound, outbound) = (Marks::new(4), Marks::new(4));
    let memory = Memory { hot: &hot, inbound: &inbound, outbound: &outbound };
    let mut now = 1000 * MS;
    let mut node = Node::new(Config::new(NodeNumber::Zero, 2), state & 1 != 0, now);
    prepare(&mut node, *state, memory, &mut now);
    while let Some((length, after)) = rest.split_first_chunk::<2>() {
        let (message, after) = after.split_at(usize::from(u16::from_be_bytes(*length)).min(after.len()));
        rest = after;
        let known = message::read(message).is_ok();
        let taken = node.handle_message(length[1] & 3, message, memory, now).is_ok();
        assert_eq!(known, taken, "a message is refused exactly where it is malformed");
        inbound.set(u32::from(length[1]) & 3, &settle_changes());
        now += MS;
        settle(&mut node, memory, now);
    }
});

/// Brings the node to where it is to meet the messages.
fn prepare(node: &mut Node, state: u8, memory: Memory<'_>, now: &mut Nanos) {
    if state & 2 != 0 {
        for (slot, way) in [(0, Way::In), (1, Way::Out)] {
            let key = SaKey { way, spi: 0x100 + slot, fingerprint: 7 };
            let sa = Sa { key, slot, stale: Stale::Jump, known: Known::Never };
            node.handle(Input::Install(sa), memory, *now);
        }
    }
    if state & 4 != 0 {
        let grant = Input::Grant { taken: 0, reserved: 32, reign: 0, incarnation: 1, eligible: true };
        node.handle(grant, memory, *now);
    }
    if state & 8 != 0 {
        // Nobody is heard for longer than a cold node waits: it becomes active.
        *now += 4000 * MS;
        node.handle(Input::Sight(Sight { forwarding: true, segments: Vec::new() }), memory, *now);
        settle(node, memory, *now);
    }
    if state & 16 != 0 {
        node.handle(Input::SessionUp { partner_incarnation: 1 }, memory, *now);
    }
    if state & 32 != 0 {
        let applied = Input::Applied { incarnation: 1, position: u64::MAX, end_of_bulk: true };
        node.handle(applied, memory, *now);
    }
}

/// Lets the node do what it wants, at once.
fn settle(node: &mut Node, memory: Memory<'_>, now: Nanos) {
    node.handle_timeout(true, memory, now);
    let mut buffer = Vec::new();
    for _ in 0..ENOUGH {
        while let Some(action) = node.poll_action() {
            match action {
                Action::Handling { word } => node.handle(Input::WorkersPassed { word }, memory, now),
                Action::Persist { id, .. } => node.handle(Input::Persisted { id }, memory, now),
                Action::Joining { incarnation } => {
                    node.handle(Input::Quiet { incarnation, position: 1 }, memory, now);
                }
                _ => {}
            }
        }
        if node.poll_transmit(&mut buffer, memory, now).is_none() {
            return;
        }
        assert!(buffer.len() <= MESSAGE_MAX && message::read(&buffer).is_ok());
    }
    panic!("the node never stops talking");
}

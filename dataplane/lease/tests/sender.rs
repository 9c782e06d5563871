//! What a sender takes an answer for.

use std::sync::atomic::Ordering;
use tandem_esp::window::{self, Verdict as Window};
use tandem_lease::message::{Acknowledgement, Header, Record, Section, Verdict, Writer, read};
use tandem_lease::{Memory, SaKey, Sender, Way, merge};
use tandem_shm::{HotState, Marks, settle};

const KEY: SaKey = SaKey { way: Way::In, spi: 0x1001, fingerprint: 9 };
const SLOT: u32 = 1;

fn accept(hot: &HotState, marks: &Marks, number: u64) -> u64 {
    let sa = hot.inbound(SLOT).unwrap();
    assert_eq!(window::accept(&sa.top, &sa.window, number), Window::Fresh);
    let settled = settle();
    let stamp = settled.stamp(&hot.header().version);
    marks.set(SLOT, &settled);
    stamp
}

fn send(sender: &mut Sender, memory: Memory<'_>) -> (u64, Record) {
    let mut buffer = Vec::new();
    let mut writer = Writer::new(&mut buffer, &Header::new());
    assert!(sender.write(&mut writer, memory, 1));
    writer.finish();
    let (_, mut sections) = read(&buffer).unwrap();
    let Some(Section::Records { version, mut records, .. }) = sections.pop() else { panic!("no records") };
    (version, records.pop().unwrap())
}

#[test]
fn an_answer_to_a_record_from_before_a_new_installation_says_nothing_of_what_came_after() {
    let (own, partner) = (HotState::create(4).unwrap(), HotState::create(4).unwrap());
    let (inbound, outbound) = (Marks::new(4), Marks::new(4));
    let memory = Memory { hot: &own, inbound: &inbound, outbound: &outbound };
    let mut sender = Sender::new();
    sender.install(KEY, SLOT);
    accept(&own, &inbound, 1);
    sender.collect(memory);
    let (first, record) = send(&mut sender, memory);
    merge(&record, SLOT, &partner);
    // A worker goes on; then a reload installs the same key again, in the same round. That record is lost.
    let stamp = accept(&own, &inbound, 2);
    sender.install(KEY, SLOT);
    let (_, _lost) = send(&mut sender, memory);
    let answer = |version| Acknowledgement { key: KEY, version, verdict: Verdict::Merged };
    sender.acknowledge(&answer(first), memory, 2);
    sender.collect(memory);
    let (last, record) = send(&mut sender, memory);
    merge(&record, SLOT, &partner);
    sender.acknowledge(&answer(last), memory, 3);
    assert!(own.inbound(SLOT).unwrap().acknowledged.load(Ordering::Acquire) > stamp, "number 2 is delivered");
    let sa = partner.inbound(SLOT).unwrap();
    assert_eq!(window::check(&sa.top, &sa.window, 2), Window::Replayed, "and the partner does not know it");
}

//! The pair thread's part of replication on a core of its own, with a partner that answers at once.
//!
//! The sender is the product's own: it drains the marks, opens versions, reads windows, writes messages and applies the
//! answers to them. Only network, seal and the partner's merge are missing, which cost a worker nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Instant;

use anyhow::Result;
use tandem_api::types::Direction;
use tandem_dataplane::harness::Gateway;
use tandem_dataplane::pipeline::Shared;
use tandem_lease::message::{self, Acknowledgement, Header, Section, Verdict, Writer};
use tandem_lease::{Answered, Memory, SaKey, Sender, Way};

use crate::pin::{self, Role};

/// What was not answered for so long goes out again, in nanoseconds. Nothing is lost here.
const RESEND: u64 = 1_000_000_000;
/// Number of the turn that ends the thread.
const END: u64 = u64::MAX;
/// Looks at the other side before the core is left to others: some 50 microseconds.
const SPINS: u32 = 2_000;

/// What the thread does in its turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// Nothing: nobody drains the marks.
    Idle,
    /// It has all that is marked acknowledged, and stays awake.
    Awake,
    /// As [`Manner::Awake`], and sleeps until a worker wakes it: each round that changes something rings.
    Asleep,
}

/// The thread. It works only within [`Acknowledger::turn`].
#[derive(Debug)]
pub struct Acknowledger {
    turns: Arc<Turns>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Turns {
    asked: AtomicU64,
    done: AtomicU64,
}

impl Acknowledger {
    /// Starts the thread for a gateway on the core that is not under test.
    ///
    /// # Errors
    /// Where no core can be had.
    pub fn start(gateway: &Gateway, manner: Manner) -> Result<Self> {
        let turns = Arc::new(Turns::default());
        let mut work = Work::new(gateway);
        let thread = std::thread::spawn({
            let turns = Arc::clone(&turns);
            move || {
                // On one core alone it works as well, only slower.
                let _ = pin::this_thread(Role::Generator);
                let mut seen = 0;
                while let Some(turn) = turns.next(seen) {
                    if manner != Manner::Idle {
                        work.round(manner);
                    }
                    seen = turn;
                    turns.done.store(turn, Ordering::Release);
                }
            }
        });
        Ok(Self { turns, thread: Some(thread) })
    }

    /// Has the thread do its part once, and waits until it has.
    pub fn turn(&self) {
        let turn = self.turns.asked.load(Ordering::Relaxed) + 1;
        self.ask(turn);
        wait(|| self.turns.done.load(Ordering::Acquire) == turn || self.has_ended(), std::thread::yield_now);
        assert!(!self.has_ended(), "the acknowledging thread has panicked");
    }

    fn ask(&self, turn: u64) {
        self.turns.asked.store(turn, Ordering::Release);
        if let Some(thread) = &self.thread {
            thread.thread().unpark();
        }
    }

    fn has_ended(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }
}

impl Drop for Acknowledger {
    fn drop(&mut self) {
        self.ask(END);
        if let Some(thread) = self.thread.take() {
            // Its panic has been told where it happened.
            let _ = thread.join();
        }
    }
}

impl Turns {
    /// The turn after `seen`, once it is asked for.
    fn next(&self, seen: u64) -> Option<u64> {
        let mut turn = seen;
        let is_next = || {
            turn = self.asked.load(Ordering::Acquire);
            turn != seen
        };
        // Other contenders are measured for long: their threads need the core.
        wait(is_next, std::thread::park);
        (turn != END).then_some(turn)
    }
}

fn wait(mut until: impl FnMut() -> bool, leave: impl Fn()) {
    let mut spins = 0;
    while !until() {
        spins += 1;
        if spins < SPINS {
            std::hint::spin_loop();
        } else {
            leave();
        }
    }
}

struct Work {
    shared: Arc<Shared>,
    sender: Sender,
    buffer: Vec<u8>,
    start: Instant,
}

impl Work {
    fn new(gateway: &Gateway) -> Self {
        let mut sender = Sender::new();
        for sa in gateway.sas() {
            let way = match sa.direction {
                Direction::Inbound => Way::In,
                Direction::Outbound => Way::Out,
            };
            sender.install(SaKey { way, spi: sa.spi, fingerprint: sa.fingerprint.0 }, sa.slot);
        }
        Self { shared: gateway.share(), sender, buffer: Vec::new(), start: Instant::now() }
    }

    fn round(&mut self, manner: Manner) {
        if manner == Manner::Asleep {
            self.shared.bell.wake(true);
        }
        let memory = Memory {
            hot: &self.shared.hot,
            inbound: &self.shared.inbound_marks,
            outbound: &self.shared.outbound_marks,
        };
        let now = self.start.elapsed().as_nanos() as u64;
        self.sender.tick(now, RESEND);
        self.sender.collect(memory);
        while self.sender.has_something() {
            let mut writer = Writer::new(&mut self.buffer, &Header::new());
            let wrote = self.sender.write(&mut writer, memory, now);
            writer.finish();
            if !wrote {
                break;
            }
            answer(&self.buffer, &mut self.sender, memory, now);
        }
        if manner == Manner::Asleep {
            self.shared.bell.doze();
        }
    }
}

/// The partner has merged what the message holds.
fn answer(octets: &[u8], sender: &mut Sender, memory: Memory<'_>, now: u64) {
    let (_, sections) = message::read(octets).expect("a message that was just written");
    for section in sections {
        let Section::Records { version, records, .. } = section else { continue };
        for record in records {
            let answer = Acknowledgement { key: record.key, version, verdict: Verdict::Merged };
            let answered = sender.acknowledge(&answer, memory, now);
            assert!(matches!(answered, Answered::Taken(_)), "{answered:?} for {:?}", answer.key);
        }
    }
}

//! Every interleaving, and every reordering that the memory model allows, of a producer and a consumer.
//!
//! The source under test is the shipped one, compiled over loom's atomics; loom's cells fail the test where
//! both sides touch a slot without order between them.

// The slots of the test's memory are reached as those of a mapped ring.
#![allow(unsafe_code)]

#[allow(dead_code)]
#[path = "../src/ring.rs"]
mod ring;
mod sync {
    pub(crate) use loom::sync::atomic::{AtomicU32, Ordering};
}

use loom::cell::UnsafeCell;
use loom::sync::Arc;
use ring::{Consumer, Producer, RingMemory};
use sync::AtomicU32;

struct Memory {
    producer: AtomicU32,
    consumer: AtomicU32,
    slots: Vec<UnsafeCell<u32>>,
}

// SAFETY: loom checks each access of a slot.
unsafe impl Sync for Memory {}
// SAFETY: as above.
unsafe impl Send for Memory {}

#[derive(Clone)]
struct Shared(Arc<Memory>);

// SAFETY: the number of slots is a power of two, and slots are masked.
unsafe impl RingMemory for Shared {
    type Entry = u32;

    fn capacity(&self) -> u32 {
        self.0.slots.len() as u32
    }
    fn producer(&self) -> &AtomicU32 {
        &self.0.producer
    }
    fn consumer(&self) -> &AtomicU32 {
        &self.0.consumer
    }
    unsafe fn read(&self, index: u32) -> u32 {
        // SAFETY: the caller owns the slot.
        self.0.slots[(index & (self.capacity() - 1)) as usize].with(|slot| unsafe { *slot })
    }
    unsafe fn write(&self, index: u32, entry: u32) {
        // SAFETY: the caller owns the slot.
        self.0.slots[(index & (self.capacity() - 1)) as usize].with_mut(|slot| unsafe { *slot = entry })
    }
}

fn ring(start: u32) -> (Producer<Shared>, Consumer<Shared>) {
    let memory = Shared(Arc::new(Memory {
        producer: AtomicU32::new(start),
        consumer: AtomicU32::new(start),
        slots: (0..2).map(|_| UnsafeCell::new(u32::MAX)).collect(),
    }));
    // SAFETY: one of each.
    unsafe { (Producer::new(memory.clone()), Consumer::new(memory)) }
}

/// Four entries through two slots, so that each is used again; the indices wrap on the way.
#[test]
fn entries_arrive_once_in_order_and_slots_are_never_shared() {
    loom::model(|| {
        let (mut producer, mut consumer) = ring(u32::MAX - 1);
        let sender = loom::thread::spawn(move || {
            let mut next = 0;
            while next < 4 {
                if producer.room(1) == 0 {
                    loom::thread::yield_now();
                    continue;
                }
                while next < 4 && producer.push(next) {
                    next += 1;
                }
                producer.publish();
            }
        });
        let mut expected = 0;
        while expected < 4 {
            if consumer.available(1) == 0 {
                loom::thread::yield_now();
                continue;
            }
            while let Some(entry) = consumer.pop() {
                assert_eq!(entry, expected);
                expected += 1;
            }
            consumer.release();
        }
        sender.join().unwrap();
        assert_eq!(consumer.available(1), 0);
    });
}

/// The consumer gives back less than it took: what it still holds is not overwritten.
#[test]
fn unreleased_slots_are_not_overwritten() {
    loom::model(|| {
        let (mut producer, mut consumer) = ring(u32::MAX);
        producer.room(2);
        assert!(producer.push(0) && producer.push(1));
        producer.publish();
        let sender = loom::thread::spawn(move || {
            let mut pushed = 0;
            for n in 2..4 {
                if producer.room(1) > 0 && producer.push(n) {
                    pushed += 1;
                }
            }
            producer.publish();
            pushed
        });
        assert_eq!(consumer.available(2), 2);
        assert_eq!(consumer.pop(), Some(0));
        consumer.release();
        assert_eq!(consumer.pop(), Some(1));
        let pushed = sender.join().unwrap();
        assert!(pushed <= 1);
        assert_eq!(consumer.available(1), pushed);
    });
}

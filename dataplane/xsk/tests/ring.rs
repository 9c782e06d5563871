//! Cursor arithmetic of the rings in ordinary memory, against a plain queue.

// The slots of the test's memory are reached as those of a mapped ring.
#![allow(unsafe_code)]

#[allow(dead_code)]
#[path = "../src/ring.rs"]
mod ring;
#[path = "../src/sync.rs"]
mod sync;

use proptest::prelude::*;
use ring::{Consumer, Producer, RingMemory};
use std::cell::UnsafeCell;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

struct Memory {
    producer: AtomicU32,
    consumer: AtomicU32,
    slots: Box<[UnsafeCell<u64>]>,
}

// SAFETY: slots are accessed under the rules of the ring only, which is what is tested.
unsafe impl Sync for Memory {}

#[derive(Clone)]
struct Shared(Arc<Memory>);

// SAFETY: the number of slots is a power of two, and slots are masked.
unsafe impl RingMemory for Shared {
    type Entry = u64;

    fn capacity(&self) -> u32 {
        self.0.slots.len() as u32
    }
    fn producer(&self) -> &AtomicU32 {
        &self.0.producer
    }
    fn consumer(&self) -> &AtomicU32 {
        &self.0.consumer
    }
    unsafe fn read(&self, index: u32) -> u64 {
        // SAFETY: the caller owns the slot.
        unsafe { *self.0.slots[(index & (self.capacity() - 1)) as usize].get() }
    }
    unsafe fn write(&self, index: u32, entry: u64) {
        // SAFETY: the caller owns the slot.
        unsafe { *self.0.slots[(index & (self.capacity() - 1)) as usize].get() = entry }
    }
}

/// An empty ring whose indices stand at `start`.
fn ring(capacity: usize, start: u32) -> (Shared, Producer<Shared>, Consumer<Shared>) {
    let memory = Shared(Arc::new(Memory {
        producer: AtomicU32::new(start),
        consumer: AtomicU32::new(start),
        slots: (0..capacity).map(|_| UnsafeCell::new(u64::MAX)).collect(),
    }));
    // SAFETY: one of each.
    let (producer, consumer) = unsafe { (Producer::new(memory.clone()), Consumer::new(memory.clone())) };
    (memory, producer, consumer)
}

#[test]
fn nothing_is_seen_before_it_is_published_and_no_slot_reused_before_its_release() {
    let (_, mut producer, mut consumer) = ring(4, 0);
    assert_eq!(producer.room(4), 4);
    for n in 0..4 {
        assert!(producer.push(n));
    }
    assert!(!producer.push(4), "full");
    assert_eq!(consumer.available(4), 0);
    assert_eq!(consumer.pop(), None);
    producer.publish();
    assert_eq!(consumer.available(4), 4);
    assert_eq!(consumer.pop(), Some(0));
    assert_eq!(producer.room(4), 0);
    consumer.release();
    assert_eq!(producer.room(4), 1);
    assert!(producer.push(4));
    assert!(!producer.push(5));
    assert_eq!(producer.pending(), 4);
}

#[test]
fn indices_wrap_at_two_to_the_thirty_two() {
    for start in [u32::MAX, u32::MAX - 1, u32::MAX - 6, u32::MAX - 7] {
        let (memory, mut producer, mut consumer) = ring(8, start);
        for round in 0..8u64 {
            assert_eq!(producer.room(5), 8);
            for n in 0..5 {
                assert!(producer.push(round * 5 + n));
            }
            producer.publish();
            assert_eq!(producer.pending(), 5);
            assert_eq!(consumer.available(5), 5);
            for n in 0..5 {
                assert_eq!(consumer.pop(), Some(round * 5 + n));
            }
            assert_eq!(consumer.pop(), None);
            consumer.release();
        }
        assert_eq!(memory.0.producer.load(Ordering::Relaxed), start.wrapping_add(40));
        assert_eq!(memory.0.consumer.load(Ordering::Relaxed), start.wrapping_add(40));
    }
}

#[test]
fn entries_that_the_consumer_has_not_passed_are_listed_in_order() {
    let (_, mut producer, mut consumer) = ring(4, u32::MAX - 1);
    producer.room(3);
    (10..13).for_each(|n| assert!(producer.push(n)));
    producer.publish();
    consumer.available(1);
    consumer.pop();
    consumer.release();
    let mut pending = Vec::new();
    // SAFETY: the consumer does not move.
    unsafe { producer.for_each_pending(|entry| pending.push(entry)) };
    assert_eq!(pending, [11, 12]);
}

#[test]
fn a_side_that_starts_later_goes_on_where_the_indices_stand() {
    let (memory, mut producer, consumer) = ring(4, u32::MAX);
    producer.room(3);
    (0..3).for_each(|n| assert!(producer.push(n)));
    producer.publish();
    drop((producer, consumer));
    // SAFETY: the former ones are gone.
    let (mut producer, mut consumer) = unsafe { (Producer::new(memory.clone()), Consumer::new(memory)) };
    assert_eq!(producer.room(4), 1);
    assert!(producer.push(3));
    producer.publish();
    assert_eq!(consumer.available(4), 4);
    assert_eq!(std::iter::from_fn(|| consumer.pop()).collect::<Vec<_>>(), [0, 1, 2, 3]);
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Push(u32),
    Publish,
    Pop(u32),
    Release,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0..20u32).prop_map(Step::Push),
        Just(Step::Publish),
        (0..20u32).prop_map(Step::Pop),
        Just(Step::Release),
    ]
}

proptest! {
    #[test]
    fn ring_is_a_bounded_queue(
        start in prop_oneof![any::<u32>(), u32::MAX - 40..=u32::MAX],
        log in 0..5u32,
        steps in proptest::collection::vec(step(), 0..200),
    ) {
        let capacity = 1usize << log;
        let (_, mut producer, mut consumer) = ring(capacity, start);
        let (mut filled, mut published, mut held) = (VecDeque::new(), VecDeque::new(), 0);
        let mut number = 0;
        for step in steps {
            match step {
                Step::Push(n) => {
                    let used = filled.len() + published.len() + held;
                    let room = producer.room(n);
                    prop_assert!(room as usize <= capacity - used);
                    prop_assert!(room >= n || room as usize == capacity - used);
                    for _ in 0..n.min(room) {
                        prop_assert!(producer.push(number));
                        filled.push_back(number);
                        number += 1;
                    }
                }
                Step::Publish => {
                    producer.publish();
                    published.append(&mut filled);
                }
                Step::Pop(n) => {
                    let available = consumer.available(n);
                    prop_assert!(available as usize <= published.len());
                    prop_assert!(available >= n || available as usize == published.len());
                    for _ in 0..n.min(available) {
                        prop_assert_eq!(consumer.pop(), published.pop_front());
                        held += 1;
                    }
                }
                Step::Release => {
                    consumer.release();
                    held = 0;
                }
            }
        }
    }

    /// The other side's index may hold anything: no more than the capacity is read or written, and
    /// nothing panics.
    #[test]
    fn hostile_index_stays_within_the_ring(start: u32, foreign: u32, pushed in 0..8u32) {
        let (memory, mut producer, mut consumer) = ring(8, start);
        producer.room(8);
        (0..pushed).for_each(|n| assert!(producer.push(n.into())));
        producer.publish();
        memory.0.consumer.store(foreign, Ordering::Relaxed);
        memory.0.producer.store(foreign, Ordering::Relaxed);
        prop_assert!(producer.room(u32::MAX) <= 8);
        prop_assert!(producer.pending() <= 8);
        prop_assert!(consumer.available(u32::MAX) <= 8);
        let mut seen = 0;
        while consumer.pop().is_some() {
            seen += 1;
        }
        prop_assert!(seen <= 8);
        // SAFETY: nobody consumes.
        unsafe { producer.for_each_pending(|_| seen += 1) };
        prop_assert!(seen <= 16);
    }
}

#[test]
fn two_threads_pass_a_million_entries_in_order() {
    let (_, mut producer, mut consumer) = ring(64, u32::MAX - 1000);
    let total = 1_000_000u64;
    let sender = std::thread::spawn(move || {
        let mut next = 0;
        while next < total {
            let room = producer.room(16).min(16);
            for _ in 0..room {
                if next < total {
                    assert!(producer.push(next));
                    next += 1;
                }
            }
            producer.publish();
            if room == 0 {
                std::thread::yield_now();
            }
        }
    });
    let mut expected = 0;
    while expected < total {
        if consumer.available(16) == 0 {
            std::thread::yield_now();
        }
        while let Some(entry) = consumer.pop() {
            assert_eq!(entry, expected);
            expected += 1;
        }
        consumer.release();
    }
    sender.join().unwrap();
}

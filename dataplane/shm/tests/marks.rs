//! Marks as one thread sees them, against a plain set; and with real threads.

use proptest::prelude::*;
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use tandem_shm::{Bell, Marks, open_version, settle};

fn drained(marks: &Marks) -> Vec<u32> {
    let mut slots = Vec::new();
    marks.drain(|slot| slots.push(slot));
    slots
}

#[test]
fn mark_is_new_once_until_it_is_drained() {
    let marks = Marks::new(100);
    assert!(!marks.any());
    assert!(marks.set(7, &settle()));
    assert!(!marks.set(7, &settle()), "no more work than before");
    assert!(marks.set(99, &settle()));
    assert!(marks.any());
    assert_eq!(drained(&marks), [7, 99]);
    assert!(!marks.any());
    assert_eq!(drained(&marks), [0; 0]);
    assert!(marks.set(7, &settle()));
    assert_eq!(drained(&marks), [7]);
}

#[test]
fn slot_beyond_the_last_one_has_no_mark() {
    for slots in [1, 63, 64, 65, 4096, 4097, 100_000] {
        let marks = Marks::new(slots);
        assert!(marks.set(slots - 1, &settle()));
        for beyond in [slots, slots + 1, slots + 64, u32::MAX] {
            assert!(!marks.set(beyond, &settle()), "{beyond} of {slots}");
        }
        assert_eq!(drained(&marks), [slots - 1]);
    }
}

#[test]
fn versions_rise_by_one_and_a_stamp_is_the_last_of_them() {
    let version = AtomicU64::new(0);
    assert_eq!(settle().stamp(&version), 0);
    assert_eq!((open_version(&version), open_version(&version)), (1, 2));
    assert_eq!(settle().stamp(&version), 2);
}

#[test]
fn bell_wakes_only_a_sleeper_and_only_once() {
    let bell = Bell::new();
    bell.ring(|| panic!("nobody sleeps"));
    let mut woken = 0;
    bell.sleep(
        || true,
        || {
            bell.ring(|| woken += 1);
            bell.ring(|| panic!("it has been woken already"));
        },
    );
    assert_eq!(woken, 1);
    bell.ring(|| panic!("it is awake again"));
    bell.sleep(|| false, || panic!("there is work"));
}

proptest! {
    #[test]
    fn marks_are_a_set(steps in proptest::collection::vec(prop_oneof![
        8 => (0..9000u32).prop_map(Some),
        1 => Just(None),
    ], 0..300)) {
        let marks = Marks::new(8192);
        let mut model = BTreeSet::new();
        for step in steps {
            match step {
                Some(slot) => {
                    let new = slot < 8192 && model.insert(slot);
                    prop_assert_eq!(marks.set(slot, &settle()), new);
                }
                None => {
                    prop_assert_eq!(drained(&marks), model.iter().copied().collect::<Vec<_>>());
                    model.clear();
                }
            }
            prop_assert_eq!(marks.any(), !model.is_empty());
        }
    }
}

/// Workers count in slots and mark; the drainer sleeps in between. Once all have ended it has seen every last count.
#[test]
fn sleeping_drainer_sees_the_last_change_of_every_worker() {
    const ROUNDS: u64 = 20_000;
    const SLOTS: u64 = 130;
    let (marks, bell, done) = (Marks::new(SLOTS as u32), Bell::new(), AtomicBool::new(false));
    let counts: Vec<AtomicU64> = (0..SLOTS).map(|_| AtomicU64::new(0)).collect();
    let mut seen = vec![0; SLOTS as usize];
    let sleeper = std::thread::current();
    let wake = || sleeper.unpark();
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..2u64)
            .map(|worker| {
                let (marks, bell, counts, wake) = (&marks, &bell, &counts, &wake);
                scope.spawn(move || {
                    for round in 0..ROUNDS {
                        let slot = (round * 7 + worker) % SLOTS;
                        counts[slot as usize].fetch_add(1, Ordering::Relaxed);
                        if marks.set(slot as u32, &settle()) {
                            bell.ring(wake);
                        }
                    }
                })
            })
            .collect();
        let (done, wake) = (&done, &wake);
        scope.spawn(move || {
            workers.into_iter().for_each(|worker| worker.join().expect("the worker finishes"));
            done.store(true, Ordering::SeqCst);
            wake();
        });
        while !done.load(Ordering::SeqCst) || marks.any() {
            marks.drain(|slot| seen[slot as usize] = counts[slot as usize].load(Ordering::Relaxed));
            bell.sleep(|| !marks.any() && !done.load(Ordering::SeqCst), std::thread::park);
        }
    });
    let last: Vec<u64> = counts.iter().map(|count| count.load(Ordering::Relaxed)).collect();
    assert_eq!(seen, last);
    assert_eq!(last.iter().sum::<u64>(), 2 * ROUNDS);
}

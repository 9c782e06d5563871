//! Every interleaving, and every reordering that the memory model allows, of workers that change hot state and the
//! thread that replicates it: no change is missed by marks, by stamps, or by a thread that goes to sleep.
//!
//! The sources under test are the shipped ones, compiled over loom's atomics. Hot state is changed and read relaxed:
//! all order comes from what is tested. The mutants settle before the change and not after it, and are found.

#[allow(dead_code)]
#[path = "../src/bell.rs"]
mod bell;
#[allow(dead_code)]
#[path = "../src/marks.rs"]
mod marks;
#[allow(dead_code)]
#[path = "../src/stamp.rs"]
mod stamp;
mod sync {
    pub(crate) use loom::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};
}

use bell::Bell;
use loom::sync::atomic::{AtomicU64, Ordering};
use loom::sync::{Arc, Notify};
use loom::thread;
use marks::Marks;
use stamp::{open_version, settle};

fn model(test: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(test);
}

struct Node {
    marks: Marks,
    counts: [AtomicU64; 2],
}

impl Node {
    fn new() -> Arc<Self> {
        Arc::new(Self { marks: Marks::new(2), counts: [AtomicU64::new(0), AtomicU64::new(0)] })
    }

    fn change(&self, slot: u32, settled_before: bool) -> bool {
        let count = || self.counts[slot as usize].fetch_add(1, Ordering::Relaxed);
        if settled_before {
            let settled = settle();
            count();
            self.marks.set(slot, &settled)
        } else {
            count();
            self.marks.set(slot, &settle())
        }
    }

    fn drain(&self, seen: &mut [u64; 2]) {
        self.marks.drain(|slot| {
            seen[slot as usize] = self.counts[slot as usize].load(Ordering::Relaxed);
        });
    }
}

/// Two drains run against the workers, one after them. The first worker is the main thread: loom explores from
/// there, and finds the mutant only so.
fn last_changes_are_seen(workers: &'static [&'static [u32]], settled_before: bool) {
    model(move || {
        let node = Node::new();
        let drainer = {
            let node = Arc::clone(&node);
            thread::spawn(move || {
                let mut seen = [0; 2];
                node.drain(&mut seen);
                node.drain(&mut seen);
                seen
            })
        };
        let work = |node: Arc<Node>, slots: &'static [u32]| {
            move || {
                for slot in slots {
                    node.change(*slot, settled_before);
                }
            }
        };
        let others: Vec<_> =
            workers[1..].iter().map(|slots| thread::spawn(work(Arc::clone(&node), slots))).collect();
        work(Arc::clone(&node), workers[0])();
        others.into_iter().for_each(|other| other.join().expect("the worker finishes"));
        let mut seen = drainer.join().expect("the drainer finishes");
        node.drain(&mut seen);
        let last = [0, 1].map(|slot: usize| node.counts[slot].load(Ordering::Relaxed));
        assert_eq!(seen, last, "a change was lost");
    });
}

#[test]
fn drained_marks_lose_no_change_of_a_worker() {
    last_changes_are_seen(&[&[0, 0]], false);
    last_changes_are_seen(&[&[0, 1, 0]], false);
}

#[test]
fn drained_marks_lose_no_change_of_two_workers() {
    last_changes_are_seen(&[&[0], &[0]], false);
    last_changes_are_seen(&[&[0], &[1]], false);
}

#[test]
#[should_panic(expected = "a change was lost")]
fn mutant_that_settles_before_its_change_is_found() {
    last_changes_are_seen(&[&[0, 0]], true);
}

/// The drainer sleeps where it finds nothing to do, and must have seen all changes in the end. loom reports a
/// sleeper that nobody wakes as a deadlock.
#[test]
fn sleeper_is_woken_for_every_change() {
    for workers in [&[&[0u32, 0] as &[u32]] as &[&[u32]], &[&[0], &[1]]] {
        let workers: Vec<Vec<u32>> = workers.iter().map(|slots| slots.to_vec()).collect();
        model(move || {
            let (node, bell, event) = (Node::new(), Arc::new(Bell::new()), Arc::new(Notify::new()));
            let total: u64 = workers.iter().map(|slots| slots.len() as u64).sum();
            let handles: Vec<_> = workers
                .iter()
                .map(|slots| {
                    let (node, bell, event) = (Arc::clone(&node), Arc::clone(&bell), Arc::clone(&event));
                    let slots = slots.clone();
                    thread::spawn(move || {
                        for slot in slots {
                            if node.change(slot, false) {
                                bell.ring(|| event.notify());
                            }
                        }
                    })
                })
                .collect();
            let mut seen = [0; 2];
            while seen.iter().sum::<u64>() < total {
                bell.sleep(|| !node.marks.any(), || event.wait());
                node.drain(&mut seen);
            }
            handles.into_iter().for_each(|handle| handle.join().expect("the worker finishes"));
        });
    }
}

/// A worker sets two bits, each with a stamp; the replicator opens two records meanwhile. Every record of a version
/// above a stamp holds the bit.
fn records_hold_what_was_stamped_below_them(settled_before: bool) {
    model(move || {
        let state = Arc::new((AtomicU64::new(0), AtomicU64::new(0)));
        let worker = {
            let state = Arc::clone(&state);
            thread::spawn(move || {
                let (bits, version) = &*state;
                [1u64, 2].map(|bit| {
                    if settled_before {
                        let settled = settle();
                        bits.fetch_or(bit, Ordering::Relaxed);
                        (bit, settled.stamp(version))
                    } else {
                        bits.fetch_or(bit, Ordering::Relaxed);
                        (bit, settle().stamp(version))
                    }
                })
            })
        };
        let (bits, version) = &*state;
        let records = [(); 2].map(|()| (open_version(version), bits.load(Ordering::Relaxed)));
        for (bit, stamp) in worker.join().expect("the worker finishes") {
            for (version, bits) in records {
                assert!(
                    version <= stamp || bits & bit != 0,
                    "record {version} lacks what was stamped {stamp}"
                );
            }
        }
    });
}

#[test]
fn record_above_a_stamp_holds_the_number() {
    records_hold_what_was_stamped_below_them(false);
}

#[test]
#[should_panic(expected = "lacks what was stamped")]
fn mutant_that_stamps_without_a_fence_after_its_bit_is_found() {
    records_hold_what_was_stamped_below_them(true);
}

/// A worker changes, stamps and marks; the replicator opens a version wherever it finds marks. In the end one above the
/// stamp was opened, or a packet would wait for ever.
fn marks_lead_to_versions_above_stamps(marked_before: bool) {
    model(move || {
        let state = Arc::new((Marks::new(1), AtomicU64::new(0)));
        let worker = {
            let state = Arc::clone(&state);
            thread::spawn(move || {
                let (marks, version) = &*state;
                let settled = settle();
                if marked_before {
                    marks.set(0, &settled);
                    settled.stamp(version)
                } else {
                    let stamp = settled.stamp(version);
                    marks.set(0, &settled);
                    stamp
                }
            })
        };
        let (marks, version) = &*state;
        let round = || {
            let mut found = false;
            marks.drain(|_| found = true);
            if found {
                let _ = open_version(version);
            }
        };
        // Without this loom does not try the worker first: a drain begins with a load.
        thread::yield_now();
        round();
        let stamp = worker.join().expect("the worker finishes");
        round();
        let opened = version.load(Ordering::Acquire);
        assert!(stamp < opened, "stamp {stamp}, and nothing opened after {opened}");
    });
}

#[test]
fn every_stamp_is_followed_by_a_record() {
    marks_lead_to_versions_above_stamps(false);
}

#[test]
#[should_panic(expected = "nothing opened after")]
fn mutant_that_stamps_after_its_mark_is_found() {
    marks_lead_to_versions_above_stamps(true);
}

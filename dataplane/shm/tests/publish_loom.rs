//! Every interleaving, and every reordering that the memory model allows, of readers and the publisher.
//!
//! The source under test is the shipped one, compiled over loom's atomics. A published value holds a loom
//! cell that readers read and its destructor writes: loom fails the test wherever a use is not ordered before
//! the free. Values count themselves, so that leaks are seen too.

// publish.rs has the unsafe code that is tested here.
#![allow(unsafe_code)]

#[allow(dead_code)]
#[path = "../src/publish.rs"]
mod publish;
mod sync {
    pub(crate) use loom::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, Ordering, fence};

    pub(crate) fn pause() {
        loom::thread::yield_now();
    }
}

use loom::cell::UnsafeCell;
use loom::thread;
use publish::{Domain, Published, Publisher, Reader};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

struct Value {
    number: UnsafeCell<usize>,
    freed: Arc<AtomicUsize>,
}

// SAFETY: loom checks each access of the cell.
unsafe impl Sync for Value {}

impl Value {
    fn boxed(number: usize, freed: &Arc<AtomicUsize>) -> Box<Value> {
        Box::new(Value { number: UnsafeCell::new(number), freed: freed.clone() })
    }

    fn number(&self) -> usize {
        // SAFETY: loom checks that nobody writes.
        self.number.with(|number| unsafe { *number })
    }
}

impl Drop for Value {
    fn drop(&mut self) {
        // SAFETY: loom checks that nobody reads or writes.
        self.number.with_mut(|number| unsafe { *number = usize::MAX });
        self.freed.fetch_add(1, SeqCst);
    }
}

struct Setup {
    domain: Arc<Domain>,
    place: Arc<Published<Value>>,
    publisher: Publisher,
    freed: Arc<AtomicUsize>,
}

/// A place that holds value 0.
fn setup(readers: usize) -> (Setup, Vec<Reader>) {
    let freed = Arc::new(AtomicUsize::new(0));
    let domain = Domain::new(readers);
    let place = Arc::new(Published::new(&domain, Value::boxed(0, &freed)));
    let publisher = domain.publisher().unwrap();
    let readers = (0..readers).map(|index| domain.reader(index).unwrap()).collect();
    (Setup { domain, place, publisher, freed }, readers)
}

impl Setup {
    /// Drops everything; all `made` values must be gone then.
    fn finish(self, made: usize) {
        let Setup { domain, place, publisher, freed } = self;
        drop((publisher, place, domain));
        assert_eq!(freed.load(SeqCst), made, "a value leaked");
    }
}

fn model(test: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(test);
}

#[test]
fn reader_with_quiet_points_never_meets_a_freed_value() {
    model(|| {
        let (mut setup, readers) = setup(1);
        let place = setup.place.clone();
        let worker = thread::spawn(move || {
            let mut newest = 0;
            for mut reader in readers {
                for _ in 0..2 {
                    let number = place.load(&reader).unwrap().number();
                    assert!(number >= newest);
                    newest = number;
                    reader.quiescent();
                }
                newest = place.load(&reader).unwrap().number().max(newest);
            }
        });
        for number in 1..3 {
            setup.publisher.publish(&setup.place, Some(Value::boxed(number, &setup.freed)));
            setup.publisher.reclaim();
        }
        worker.join().unwrap();
        setup.publisher.reclaim();
        assert_eq!(setup.freed.load(SeqCst), 2, "no reader is left, so both old values are free");
        setup.finish(3);
    });
}

#[test]
fn reader_that_comes_back_never_meets_a_freed_value() {
    model(|| {
        let (mut setup, readers) = setup(1);
        let place = setup.place.clone();
        let worker = thread::spawn(move || {
            for mut reader in readers {
                place.load(&reader).unwrap().number();
                reader.offline(|| ());
                place.load(&reader).unwrap().number();
            }
        });
        setup.publisher.publish(&setup.place, Some(Value::boxed(1, &setup.freed)));
        setup.publisher.reclaim();
        worker.join().unwrap();
        setup.finish(2);
    });
}

#[test]
fn reader_that_registers_late_never_meets_a_freed_value() {
    model(|| {
        let (mut setup, _) = setup(1);
        let (place, domain) = (setup.place.clone(), setup.domain.clone());
        let worker = thread::spawn(move || {
            let reader = domain.reader(0).unwrap();
            place.load(&reader).unwrap().number();
        });
        setup.publisher.publish(&setup.place, Some(Value::boxed(1, &setup.freed)));
        setup.publisher.reclaim();
        worker.join().unwrap();
        setup.finish(2);
    });
}

#[test]
fn slowest_of_two_readers_is_waited_for() {
    model(|| {
        let (mut setup, readers) = setup(2);
        let mut workers = Vec::new();
        for (n, mut reader) in readers.into_iter().enumerate() {
            let place = setup.place.clone();
            workers.push(thread::spawn(move || {
                if n == 0 {
                    reader.quiescent();
                }
                place.load(&reader).unwrap().number();
            }));
        }
        setup.publisher.publish(&setup.place, Some(Value::boxed(1, &setup.freed)));
        setup.publisher.reclaim();
        for worker in workers {
            worker.join().unwrap();
        }
        setup.finish(2);
    });
}

/// What was stored before a mark is seen by a reader that has passed it; and waiting frees.
#[test]
fn wait_returns_after_the_reader_has_seen_what_was_before() {
    model(|| {
        let (mut setup, readers) = setup(1);
        let place = setup.place.clone();
        let worker = thread::spawn(move || {
            for mut reader in readers {
                place.load(&reader).unwrap().number();
                reader.quiescent();
                reader.offline(|| ());
                place.load(&reader).unwrap().number();
            }
        });
        setup.publisher.publish(&setup.place, Some(Value::boxed(1, &setup.freed)));
        setup.publisher.wait_quiescent();
        assert_eq!(setup.freed.load(SeqCst), 1);
        worker.join().unwrap();
        setup.finish(2);
    });
}

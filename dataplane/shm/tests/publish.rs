//! Publish-and-retire as its users see it: when values are freed, by whom, and never too early.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::ThreadId;
use tandem_shm::{Domain, Published, ReaderError};

/// A value that tells when, and on which thread, it is freed.
#[derive(Debug)]
struct Tracked {
    value: u64,
    copy: u64,
    freed: Arc<Freed>,
}

#[derive(Debug, Default)]
struct Freed {
    count: AtomicUsize,
    elsewhere: AtomicBool,
    by: std::sync::OnceLock<ThreadId>,
}

impl Freed {
    fn count(&self) -> usize {
        self.count.load(Ordering::SeqCst)
    }
}

impl Drop for Tracked {
    fn drop(&mut self) {
        assert_eq!(self.value, self.copy);
        self.copy = !self.value;
        self.freed.count.fetch_add(1, Ordering::SeqCst);
        if self.freed.by.get().is_some_and(|by| *by != std::thread::current().id()) {
            self.freed.elsewhere.store(true, Ordering::SeqCst);
        }
    }
}

fn tracked(value: u64, freed: &Arc<Freed>) -> Box<Tracked> {
    Box::new(Tracked { value, copy: value, freed: freed.clone() })
}

#[test]
fn value_is_freed_only_after_every_reader_was_quiescent() {
    let freed = Arc::new(Freed::default());
    let domain = Domain::new(2);
    let mut publisher = domain.publisher().unwrap();
    let (mut one, mut two) = (domain.reader(0).unwrap(), domain.reader(1).unwrap());
    let place = Published::empty(&domain);
    assert!(place.load(&one).is_none());
    publisher.publish(&place, Some(tracked(1, &freed)));
    assert_eq!(place.load(&one).unwrap().value, 1);
    publisher.publish(&place, Some(tracked(2, &freed)));
    assert_eq!(place.load(&two).unwrap().value, 2);
    assert_eq!((publisher.reclaim(), publisher.retired()), (0, 1));
    one.quiescent();
    assert_eq!((publisher.reclaim(), freed.count()), (0, 0));
    two.quiescent();
    assert_eq!((publisher.reclaim(), freed.count()), (1, 1));
    publisher.publish(&place, None);
    assert!(place.load(&one).is_none());
    one.quiescent();
    two.quiescent();
    publisher.publish(&place, Some(tracked(3, &freed)));
    assert_eq!((publisher.reclaim(), freed.count()), (1, 2));
}

#[test]
fn offline_reader_is_not_waited_for_and_sees_the_newest_value_afterwards() {
    let freed = Arc::new(Freed::default());
    let domain = Domain::new(1);
    let mut publisher = domain.publisher().unwrap();
    let mut reader = domain.reader(0).unwrap();
    let place = Published::new(&domain, tracked(1, &freed));
    let slept = reader.offline(|| {
        publisher.publish(&place, Some(tracked(2, &freed)));
        publisher.wait_quiescent();
        freed.count()
    });
    assert_eq!(slept, 1);
    assert_eq!(place.load(&reader).unwrap().value, 2);
    publisher.publish(&place, None);
    assert_eq!(publisher.reclaim(), 0, "online again");
}

#[test]
fn reader_is_online_again_after_a_panic_in_its_sleep() {
    let domain = Domain::new(1);
    let mut publisher = domain.publisher().unwrap();
    let mut reader = domain.reader(0).unwrap();
    let place = Published::new(&domain, Box::new(1));
    let sleep = std::panic::AssertUnwindSafe(|| reader.offline(|| panic!("in the test")));
    std::panic::catch_unwind(sleep).unwrap_err();
    publisher.publish(&place, Some(Box::new(2)));
    assert_eq!(publisher.reclaim(), 0);
}

#[test]
fn mark_is_passed_when_all_online_readers_were_quiescent() {
    let domain = Domain::new(3);
    let mut publisher = domain.publisher().unwrap();
    let mut one = domain.reader(0).unwrap();
    let before = publisher.mark();
    let mut two = domain.reader(1).unwrap();
    assert!(!publisher.has_passed(before));
    one.quiescent();
    assert!(publisher.has_passed(before), "the other came later");
    let mark = publisher.mark();
    one.quiescent();
    assert!(!publisher.has_passed(mark));
    two.quiescent();
    assert!(publisher.has_passed(mark));
    let mark = publisher.mark();
    drop(one);
    assert!(!publisher.has_passed(mark));
    drop(two);
    assert!(publisher.has_passed(mark), "nobody is left");
}

#[test]
fn reader_numbers_are_given_once_at_a_time_and_there_is_one_publisher() {
    let domain = Domain::new(2);
    let first = domain.reader(1).unwrap();
    assert_eq!(domain.reader(1).unwrap_err(), ReaderError::Taken(1));
    assert_eq!(domain.reader(2).unwrap_err(), ReaderError::NoSuch { index: 2, readers: 2 });
    assert_eq!(first.index(), 1);
    drop(first);
    assert!(domain.reader(1).is_ok());
    let publisher = domain.publisher().unwrap();
    assert!(domain.publisher().is_none());
    drop(publisher);
    assert!(domain.publisher().is_some());
}

#[test]
fn nothing_leaks_and_nothing_is_freed_twice_whatever_goes_first() {
    for order in 0..6 {
        let freed = Arc::new(Freed::default());
        let domain = Domain::new(1);
        let reader = domain.reader(0).unwrap();
        let mut publisher = domain.publisher().unwrap();
        let place = Published::new(&domain, tracked(1, &freed));
        publisher.publish(&place, Some(tracked(2, &freed)));
        publisher.publish(&place, Some(tracked(3, &freed)));
        let mut parts: Vec<Option<Box<dyn std::any::Any>>> =
            vec![Some(Box::new(reader)), Some(Box::new(publisher)), Some(Box::new(place))];
        let orders = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];
        drop(domain);
        for part in orders[order] {
            parts[part].take();
        }
        assert_eq!(freed.count(), 3, "order {order}");
    }
}

#[test]
fn next_publisher_frees_what_the_last_one_could_not() {
    let freed = Arc::new(Freed::default());
    let domain = Domain::new(1);
    let mut reader = domain.reader(0).unwrap();
    let place = Published::new(&domain, tracked(1, &freed));
    let mut publisher = domain.publisher().unwrap();
    publisher.publish(&place, None);
    drop(publisher);
    assert_eq!(freed.count(), 0, "the reader might hold it");
    let mut publisher = domain.publisher().unwrap();
    assert_eq!(publisher.reclaim(), 0);
    reader.quiescent();
    assert_eq!((publisher.reclaim(), freed.count()), (1, 1));
}

/// In release builds a reader of another domain finds nothing; debug builds stop at the bug.
#[test]
fn reader_of_another_domain_gets_no_reference() {
    let (domain, other) = (Domain::new(1), Domain::new(1));
    let place = Published::new(&domain, Box::new(1));
    let reader = other.reader(0).unwrap();
    let load = std::panic::AssertUnwindSafe(|| place.load(&reader).is_none());
    let found_nothing = std::panic::catch_unwind(load).ok();
    assert_eq!(found_nothing, if cfg!(debug_assertions) { None } else { Some(true) });
}

#[test]
#[should_panic(expected = "another domain")]
fn publisher_of_another_domain_publishes_nothing() {
    let (domain, other) = (Domain::new(1), Domain::new(1));
    let place = Published::new(&domain, Box::new(1));
    other.publisher().unwrap().publish(&place, None);
}

/// Places within published values: what they hold goes with them, and not before their readers.
#[test]
fn values_may_hold_places_of_the_same_domain() {
    let freed = Arc::new(Freed::default());
    let domain = Domain::new(1);
    let mut publisher = domain.publisher().unwrap();
    let mut reader = domain.reader(0).unwrap();
    let outer = Published::new(&domain, Box::new(Published::new(&domain, tracked(1, &freed))));
    publisher.publish(outer.load(&reader).unwrap(), Some(tracked(2, &freed)));
    let inner = outer.load(&reader).unwrap().load(&reader).unwrap();
    publisher.publish(&outer, None);
    assert_eq!(publisher.reclaim(), 0);
    assert_eq!((inner.value, freed.count()), (2, 0));
    reader.quiescent();
    assert_eq!((publisher.reclaim(), freed.count()), (2, 2));
}

#[test]
fn busy_readers_never_see_a_freed_value_and_never_free_one() {
    const PLACES: usize = 8;
    const ROUNDS: u64 = 20_000;
    let freed = Arc::new(Freed::default());
    freed.by.set(std::thread::current().id()).unwrap();
    let domain = Domain::new(2);
    let mut publisher = domain.publisher().unwrap();
    let places: Vec<Published<Tracked>> = (0..PLACES).map(|_| Published::empty(&domain)).collect();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for index in 0..2 {
            let (places, stop) = (&places, &stop);
            let mut reader = domain.reader(index).unwrap();
            scope.spawn(move || {
                let mut newest = [0; PLACES];
                let mut round = 0u64;
                while !stop.load(Ordering::Relaxed) {
                    for (place, newest) in places.iter().zip(&mut newest) {
                        let Some(found) = place.load(&reader) else { continue };
                        assert_eq!(found.value, found.copy, "a freed value was seen");
                        assert!(found.value >= *newest, "an older value came back");
                        *newest = found.value;
                    }
                    round += 1;
                    match round % 64 {
                        0 => reader.offline(std::thread::yield_now),
                        _ => reader.quiescent(),
                    }
                }
            });
        }
        for n in 1..=ROUNDS {
            publisher.publish(&places[n as usize % PLACES], Some(tracked(n, &freed)));
            if n % 16 == 0 {
                publisher.reclaim();
            }
        }
        publisher.wait_quiescent();
        assert_eq!(freed.count() as u64, ROUNDS - PLACES as u64);
        stop.store(true, Ordering::Relaxed);
    });
    assert!(!freed.elsewhere.load(Ordering::SeqCst), "a reader freed memory");
    drop(places);
    assert_eq!(freed.count() as u64, ROUNDS);
}

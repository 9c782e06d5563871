//! What is to happen, in order of time; what falls on the same moment, in the order in which it was put in.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Nanoseconds of the simulated world since its beginning.
pub type Time = u64;
/// One microsecond.
pub const US: Time = 1_000;
/// One millisecond.
pub const MS: Time = 1_000_000;

#[derive(Debug)]
struct Entry<E> {
    at: Time,
    number: u64,
    event: E,
}

impl<E> PartialEq for Entry<E> {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.number) == (other.at, other.number)
    }
}

impl<E> Eq for Entry<E> {}

impl<E> PartialOrd for Entry<E> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<E> Ord for Entry<E> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}

/// Events to come.
#[derive(Debug)]
pub struct Queue<E> {
    heap: BinaryHeap<Reverse<Entry<E>>>,
    number: u64,
}

impl<E> Queue<E> {
    /// Nothing is to come.
    #[must_use]
    pub fn new() -> Self {
        Self { heap: BinaryHeap::with_capacity(256), number: 0 }
    }

    /// `event` happens at `at`.
    pub fn put(&mut self, at: Time, event: E) {
        self.number += 1;
        self.heap.push(Reverse(Entry { at, number: self.number, event }));
    }

    /// The next event, if it happens before `end`.
    pub fn take(&mut self, end: Time) -> Option<(Time, E)> {
        if self.heap.peek().is_none_or(|entry| entry.0.at >= end) {
            return None;
        }
        self.heap.pop().map(|entry| (entry.0.at, entry.0.event))
    }
}

impl<E> Default for Queue<E> {
    fn default() -> Self {
        Self::new()
    }
}

//! What is to happen, in order of time; what falls on the same moment, in the order in which it was put in.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Nanoseconds of the simulated world since its beginning.
pub type Time = u64;
/// One microsecond.
pub const US: Time = 1_000;
/// One millisecond.
pub const MS: Time = 1_000_000;

/// Events to come. The heap moves small entries about; the events lie still.
#[derive(Debug)]
pub struct Queue<E> {
    heap: BinaryHeap<Reverse<(Time, u64, u32)>>,
    events: Vec<Option<E>>,
    free: Vec<u32>,
    number: u64,
}

impl<E> Queue<E> {
    /// Nothing is to come.
    #[must_use]
    pub fn new() -> Self {
        Self {
            heap: BinaryHeap::with_capacity(256),
            events: Vec::with_capacity(256),
            free: Vec::with_capacity(256),
            number: 0,
        }
    }

    /// `event` happens at `at`.
    pub fn put(&mut self, at: Time, event: E) {
        self.number += 1;
        let place = self.free.pop().unwrap_or(self.events.len() as u32);
        match self.events.get_mut(place as usize) {
            Some(free) => *free = Some(event),
            None => self.events.push(Some(event)),
        }
        self.heap.push(Reverse((at, self.number, place)));
    }

    /// The next event, if it happens before `end`.
    pub fn take(&mut self, end: Time) -> Option<(Time, E)> {
        let Reverse((at, ..)) = *self.heap.peek()?;
        if at >= end {
            return None;
        }
        let Reverse((at, _, place)) = self.heap.pop()?;
        self.free.push(place);
        let event = self.events.get_mut(place as usize)?.take()?;
        Some((at, event))
    }
}

impl<E> Default for Queue<E> {
    fn default() -> Self {
        Self::new()
    }
}

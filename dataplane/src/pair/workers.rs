//! The workers as the pair thread sees them: do they move, what have they worked by, who waits.

use crate::worker::Link;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use tandem_shm::Handling;
use tandem_takeover::Nanos;

/// A worker that is awake and makes no round in this time is stuck (F26). One that sleeps wakes far more often.
const STUCK: Nanos = 1000 * tandem_takeover::MS;

/// All workers.
#[derive(Debug)]
pub struct Workers {
    links: Vec<Arc<Link>>,
    /// Rounds of each when they last moved, and when that was.
    moved: Vec<(u64, Nanos)>,
}

impl Workers {
    /// Of these.
    #[must_use]
    pub fn new(links: Vec<Arc<Link>>, now: Nanos) -> Self {
        let moved = links.iter().map(|_| (0, now)).collect();
        Self { links, moved }
    }

    /// Does every worker move, or sleep?
    pub fn are_forwarding(&mut self, now: Nanos) -> bool {
        let mut forwarding = true;
        for (link, (rounds, since)) in self.links.iter().zip(&mut self.moved) {
            let made = link.rounds.load(Ordering::Relaxed);
            if made != *rounds {
                (*rounds, *since) = (made, now);
            }
            forwarding &= now.saturating_sub(*since) < STUCK;
        }
        forwarding
    }

    /// Has every worker finished a round by this handling word, or by a later one?
    #[must_use]
    pub fn have_passed(&self, word: u64) -> bool {
        let generation = Handling::generation(word);
        let seen = |link: &Arc<Link>| Handling::generation(link.handling_seen.load(Ordering::Acquire));
        self.links.iter().all(|link| seen(link) >= generation)
    }

    /// Packets that wait now, and the most that ever waited at once at each worker, added up.
    #[must_use]
    pub fn parked(&self) -> (u64, u64) {
        let sum = |of: fn(&Link) -> &AtomicU32| {
            self.links.iter().map(|link| u64::from(of(link).load(Ordering::Relaxed))).sum()
        };
        (sum(|link| &link.parked), sum(|link| &link.parked_max))
    }

    /// Wakes all of them.
    pub fn wake(&self) {
        self.links.iter().for_each(|link| link.wake());
    }

    /// Wakes those that wait for an acknowledgement. What was acknowledged is seen by them now or before they sleep.
    pub fn wake_waiting(&self) {
        self.links.iter().for_each(|link| link.wake_waiting());
    }
}

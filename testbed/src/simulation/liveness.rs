//! A run from beginning to end: what goes wrong, then what must be well again.
//!
//! Safety is looked at all the time. Liveness: after everything is healed, within [`SETTLE`] exactly one node is
//! active and the other synchronized, traffic flows both ways, and killing the active node of that healthy pair gives
//! a *fresh* takeover after which traffic flows again; in part of the runs twice.

use super::check::Counts;
use super::directed::{Directed, Moment};
use super::faults::{Death, plan};
use super::node::SaDefinition;
use super::queue::{MS, Time};
use super::world::{Event, World};
use tandem_takeover::{SaKey, Stale};

/// After healing, the pair is healthy within this time.
pub const SETTLE: Time = 700 * MS;
/// The partner of a node that was killed is active within this time: D_b, two heartbeats, and a fifth.
const TAKEOVER: Time = 16 * MS;
/// A dangerous moment is played within this time.
const PLAY: Time = 360 * MS;
/// So long after a death messages of the dead node may still come.
const HELD_BACK: Time = 30 * MS;
/// Every SA moves within this time.
const FLOW: Time = 60 * MS;

/// What came out of a seed.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The seed.
    pub seed: u64,
    /// The first thing that was wrong.
    pub broken: Option<String>,
    /// What was counted.
    pub counts: Counts,
    /// One node started alone.
    pub started_alone: bool,
    /// A dangerous moment was played, instead of faults at random.
    pub directed: bool,
    /// The moment that was played to its end.
    pub played: Option<Moment>,
    /// G2 and G3 held for the pair from the first reign to the end of the rough time.
    pub pair_scope: bool,
    /// From healing to a healthy pair.
    pub settled_after: Time,
    /// From the kill of the active node to the partner's takeover.
    pub took_over_after: Time,
    /// The story, if it was told.
    pub story: Vec<String>,
}

/// Runs a seed.
#[must_use]
pub fn run(seed: u64, told: bool) -> Outcome {
    let mut world = World::new(seed, told);
    let started_alone = seed.is_multiple_of(2);
    let mut outcome = Outcome {
        seed,
        broken: None,
        counts: Counts::default(),
        started_alone,
        directed: false,
        played: None,
        pair_scope: false,
        settled_after: 0,
        took_over_after: 0,
        story: Vec::new(),
    };
    world.begin(started_alone);
    outcome.directed = seed % 4 >= 2;
    world.live(&mut outcome);
    outcome.broken = world.check.broken.take();
    outcome.counts = world.check.counts;
    if let Some(broken) = &outcome.broken {
        world.story.tell(world.now, "check", || broken.clone());
    }
    outcome.story = world.story.lines().to_vec();
    outcome
}

impl World {
    fn begin(&mut self, alone: bool) {
        let first = self.rng.below(2) as usize;
        let later = if alone { self.rng.between(90, 180) * MS } else { self.rng.below(30 * MS) };
        self.queue.put(0, Event::StartControl { node: first });
        self.queue.put(later, Event::StartControl { node: 1 - first });
        self.queue.put(MS, Event::Session);
        self.queue.put(2 * MS, Event::Peer);
        self.queue.put(2 * MS, Event::Inside);
        self.queue.put(3 * MS, Event::Attack);
        self.queue.put(4 * MS, Event::Content);
    }

    fn live(&mut self, outcome: &mut Outcome) {
        // Half of the runs become healthy first, so that faults meet a pair in service.
        if outcome.directed {
            outcome.played = self.play(outcome.started_alone);
        } else {
            let (from, to) = if self.rng.chance(600) { (180 * MS, 420 * MS) } else { (20 * MS, 300 * MS) };
            for (at, fault) in plan(&mut self.rng, from, to) {
                self.queue.put(at, Event::Fault(fault));
            }
            self.run_until(to + 20 * MS);
        }
        outcome.pair_scope = self.check.scope() == "pair";
        self.heal();
        let healed = self.now;
        let Some(mut active) = self.settle("after healing") else { return };
        outcome.settled_after = self.now - healed;
        if !self.flows("after healing") {
            return;
        }
        // The attacker may have held back a message of a reign that nobody else has heard of: that demotes the active
        // node once (F27).
        if self.healthy() != Some(active) {
            match self.settle("after a second change") {
                Some(other) if self.flows("after a second change") => active = other,
                _ => return,
            }
        }
        let Some(next) = self.kill_active(active, &mut outcome.took_over_after) else { return };
        if self.rng.chance(250) {
            self.start_again(active);
            let Some(active) = self.settle("after the restart of the killed node") else { return };
            if active != next {
                return self.check.fail(format!("L: node {active} took the role back by itself"));
            }
            let mut after = 0;
            if self.kill_active(active, &mut after).is_none() {
                return;
            }
        }
        self.attack_with_all();
        self.run_until(self.now + 12 * MS);
    }

    /// Plays a dangerous moment to its end.
    fn play(&mut self, started_alone: bool) -> Option<Moment> {
        self.direct(started_alone);
        let played = |world: &World| world.directed.as_ref().and_then(Directed::played);
        while played(self).is_none() && self.now < PLAY && self.check.broken.is_none() {
            self.run_until(self.now + 5 * MS);
        }
        // A takeover, and the attacker's answer to it.
        self.run_until(self.now + 35 * MS);
        played(self)
    }

    /// Waits for a healthy pair; its active node.
    fn settle(&mut self, when: &str) -> Option<usize> {
        let end = self.now + SETTLE;
        while self.now < end && self.check.broken.is_none() {
            self.run_until(self.now + 2 * MS);
            if let Some(active) = self.healthy() {
                self.story.tell(self.now, "check", || format!("healthy: node {active} is active"));
                return Some(active);
            }
        }
        let states = [0, 1].map(|node| {
            super::pair::status(&self.nodes[node], self.now).map_or("down".to_owned(), |status| {
                format!("{} ({})", status.state, status.not_promised.join("; "))
            })
        });
        let state = states.join(", ");
        self.check.fail(format!(
            "L: not one active and the other synchronized within {} ms {when}: {state}",
            SETTLE / MS
        ));
        None
    }

    /// Every SA that no stale takeover holds moves.
    fn flows(&mut self, when: &str) -> bool {
        // What was reserved on disk and lost with the memory is skipped, each time (F40): the peer gets past it.
        self.peer_skips(1 << 24);
        let start = self.now;
        let mut still = self.still_since(start);
        while still.is_some() && self.now < start + FLOW && self.check.broken.is_none() {
            self.run_until(self.now + 5 * MS);
            still = self.still_since(start);
        }
        if let Some(key) = still {
            let text = format!("L: nothing moved through {key:?} {when}");
            self.check.fail(text);
        }
        self.check.broken.is_none()
    }

    /// An SA that should move and has not moved since.
    fn still_since(&self, start: Time) -> Option<SaKey> {
        let still = self.definitions.iter().find(|definition| {
            definition.configured == [true; 2]
                && self.check.moved(definition.key.spi) <= start
                && !self.may_be_held(definition)
        });
        still.map(|definition| definition.key)
    }

    /// Does the active node hold an SA until an operator acts, and may it (F24, F40)? Only after a stale takeover that
    /// was not the first one of the run, a lost disk, or where the operator has chosen so.
    fn may_be_held(&self, definition: &SaDefinition) -> bool {
        let held = (0..2).filter(|node| self.active(*node)).any(|node| {
            let machine = self.nodes[node].data.as_ref().map(|data| &data.machine);
            machine.is_some_and(|machine| machine.held().any(|key| key == definition.key))
        });
        let lost = self.nodes.iter().any(|host| host.disk.life > 0);
        held && (definition.stale == Stale::Hold || self.check.counts.stale > 1 || lost)
    }

    /// Kills the active node of a healthy pair; the node that is active then.
    fn kill_active(&mut self, active: usize, after: &mut Time) -> Option<usize> {
        if self.check.broken.is_none() && self.healthy() != Some(active) {
            self.check.fail("L: the pair did not stay healthy".to_owned());
        }
        if self.check.broken.is_some() {
            return None;
        }
        let fresh = self.check.counts.fresh;
        let start = self.now;
        let death = if self.rng.chance(500) { Death::Machine } else { Death::DataAndMemory };
        self.die_for_good(active, death);
        // What the attacker held back of the dead node, and sends now, is heard as from a living one.
        let end = |world: &World| world.last_heard[1 - active].clamp(start, start + HELD_BACK) + TAKEOVER;
        while self.now < end(self) && !self.active(1 - active) && self.check.broken.is_none() {
            self.run_until(self.now + MS / 4);
        }
        *after = self.now - start;
        if self.check.broken.is_none() && !self.active(1 - active) {
            let status = super::pair::status(&self.nodes[1 - active], self.now);
            self.check.fail(format!(
                "L: nobody was active {} ms after the active node died, or was heard last: {status:?}",
                TAKEOVER / MS
            ));
        }
        if self.check.broken.is_none() && self.check.counts.fresh == fresh {
            self.check.fail("L: killing the active node of a healthy pair gave a stale takeover".to_owned());
        }
        self.flows("after the takeover").then_some(1 - active)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_replays_exactly() {
        for seed in 0..20 {
            let (first, second) = (run(seed, true), run(seed, true));
            assert!(first.story.len() > 100, "seed {seed} tells too little");
            assert_eq!(first.story, second.story, "seed {seed}");
        }
    }

    #[test]
    fn every_dangerous_moment_is_played_to_its_end() {
        let played: Vec<Moment> = (0..200).filter_map(|seed| run(seed, false).played).collect();
        for moment in Moment::ALL {
            assert!(played.contains(&moment), "{moment:?}");
        }
    }

    #[test]
    fn half_of_the_seeds_start_with_one_node() {
        assert_eq!((0..10).filter(|seed| run(*seed, false).started_alone).count(), 5);
    }
}

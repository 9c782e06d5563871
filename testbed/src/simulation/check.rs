//! The checkers. They see what leaves the nodes and who is active, and use nothing of the code under test.
//!
//! G1 holds always. G2 and G3 hold for the pair while every takeover was fresh and both nodes were never active
//! without a path; otherwise for each node by itself. The checkers keep that apart by *eras*: within one era the pair
//! promises, a takeover that is not fresh begins a new one, and while both nodes are active without a path (*split*)
//! each node answers for itself until the winner has heard the loser, whose final state it must have merged by then
//! for each SA that moves (F28).

use super::queue::Time;
use super::worker::Esp;
use std::collections::{HashMap, HashSet};
use std::ops::Range;
use tandem_esp::Iv;

/// What anybody can see of a node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sight {
    /// Its data plane runs.
    pub running: bool,
    /// It is active.
    pub active: bool,
    /// It handles traffic alone.
    pub alone: bool,
    /// It says that the pair is strict.
    pub strict: bool,
    /// Its term.
    pub term: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scope {
    Pair,
    /// Both active without a path.
    Split,
    /// The winner has heard the loser.
    Reunited {
        winner: usize,
        at: Time,
    },
}

#[derive(Clone, Copy, Debug)]
struct Origin {
    node: usize,
    disk: u32,
    trust: u32,
    era: u32,
}

#[derive(Clone, Debug)]
struct Run {
    origin: Origin,
    numbers: Range<u64>,
    term: u64,
}

/// What was counted in a run.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    /// Fresh takeovers.
    pub fresh: u64,
    /// Takeovers that were not fresh, the first one of a run included.
    pub stale: u64,
    /// Fresh takeovers in a reign that went from alone to strict.
    pub after_join: u64,
    /// Fresh takeovers after another fresh one.
    pub second: u64,
    /// Inner packets delivered.
    pub delivered: u64,
    /// Runs of ESP packets sent.
    pub sent: u64,
    /// Times in which both were active without a path.
    pub splits: u64,
    /// Splits that ended with a merge.
    pub merges: u64,
    /// Steps from alone to strict.
    pub joins: u64,
}

/// All checkers of a run.
#[derive(Debug)]
pub struct Checker {
    nonces: HashSet<(u32, Iv)>,
    envelopes: HashMap<(u32, usize, usize), u64>,
    delivered: HashMap<(u32, u64), Vec<Origin>>,
    sent: HashMap<u32, Vec<Run>>,
    era: u32,
    scope: Scope,
    sight: [Sight; 2],
    demoted: [Time; 2],
    joined: [bool; 2],
    disk: [u32; 2],
    /// Its memory was lost, and then the other one was active: what it has of windows it may have from there.
    forgot: [bool; 2],
    met: [bool; 2],
    trust: [u32; 2],
    lost_strict: bool,
    lost: [bool; 2],
    patience: Time,
    reunited: Time,
    newest: u64,
    moved: HashMap<u32, Time>,
    /// Now.
    pub now: Time,
    /// What was counted.
    pub counts: Counts,
    /// The first rule that was broken.
    pub broken: Option<String>,
}

impl Checker {
    /// Nothing has happened. `patience`: how long a winner waits for the loser's state (F28).
    #[must_use]
    pub fn new(patience: Time) -> Self {
        Self {
            nonces: HashSet::new(),
            envelopes: HashMap::new(),
            delivered: HashMap::new(),
            sent: HashMap::new(),
            era: 0,
            scope: Scope::Pair,
            sight: [Sight::default(); 2],
            demoted: [0; 2],
            joined: [false; 2],
            disk: [0; 2],
            forgot: [false; 2],
            met: [false; 2],
            trust: [0; 2],
            lost_strict: false,
            lost: [false; 2],
            patience,
            reunited: 0,
            newest: 0,
            moved: HashMap::new(),
            now: 0,
            counts: Counts::default(),
            broken: None,
        }
    }

    /// What is promised at this moment: for the pair, or for each node by itself.
    #[must_use]
    pub fn scope(&self) -> &'static str {
        match self.scope {
            Scope::Pair if self.era <= 1 => "pair",
            Scope::Pair => "pair since the last stale takeover",
            Scope::Split | Scope::Reunited { .. } => "each node",
        }
    }

    /// When something last moved through an SA.
    #[must_use]
    pub fn moved(&self, spi: u32) -> Time {
        self.moved.get(&spi).copied().unwrap_or(0)
    }

    /// Who was active when last seen.
    #[must_use]
    pub fn active(&self) -> [bool; 2] {
        self.sight.map(|sight| sight.active)
    }

    /// A rule is broken.
    pub fn fail(&mut self, text: String) {
        self.broken.get_or_insert(text);
    }

    fn origin(&self, node: usize) -> Origin {
        Origin { node, disk: self.disk[node], trust: self.trust[node], era: self.era }
    }

    /// Does an earlier deed bind the node that does the same now, in a round that began then?
    fn binds(&self, earlier: Origin, node: usize, began: Time) -> bool {
        if earlier.node == node {
            return earlier.disk == self.disk[node];
        }
        let pair = match self.scope {
            // A round that began before the winner had heard the loser still belongs to the split.
            Scope::Pair => began > self.reunited,
            Scope::Split => false,
            Scope::Reunited { winner, at } => node == winner && began > at,
        };
        pair && earlier.era == self.era
    }

    /// A nonce was used under the key of an SPI (G1).
    pub fn nonce(&mut self, node: usize, spi: u32, iv: Iv) {
        let nonce = (spi, iv);
        if self.nonces.contains(&nonce) {
            self.fail(format!("G1: node {node} used a nonce again under the key of {spi:#x}: {:?}", nonce.1));
        } else {
            self.nonces.insert(nonce);
        }
    }

    /// A datagram to the partner was sealed (F6).
    pub fn envelope(&mut self, node: usize, epoch: u32, path: usize, counter: u64) {
        if self.envelopes.insert((epoch, node, path), counter).is_some_and(|last| counter <= last) {
            self.fail(format!("F6: node {node} used counter {counter} again, epoch {epoch}, path {path}"));
        }
    }

    /// An inner packet went to the inside, in a round that began then (G2, F27).
    pub fn deliver(&mut self, node: usize, packet: Esp, began: Time) {
        self.counts.delivered += 1;
        self.moved.insert(packet.spi, self.now);
        if !self.sight[node].active && began > self.demoted[node] {
            self.fail(format!(
                "F27: node {node} delivered {:#x}/{} after its demotion",
                packet.spi, packet.sequence
            ));
        }
        let earlier = self.delivered.get(&(packet.spi, packet.sequence));
        // A node that lost its memory takes the window of the one that was active meanwhile instead of what its file
        // assumes: then its own deeds of before bind it as that one's do (after a stale takeover: not).
        let binds = |earlier: &&Origin| {
            let as_partner = earlier.node == node && earlier.trust != self.trust[node];
            let earlier = if as_partner { Origin { node: 1 - node, ..**earlier } } else { **earlier };
            self.binds(earlier, node, began)
        };
        let twice = earlier.into_iter().flatten().find(binds).copied();
        if let Some(earlier) = twice {
            let scope = self.scope();
            self.fail(format!(
                "G2: node {node} delivered {:#x}/{} that node {} had delivered (promised for: {scope})",
                packet.spi, packet.sequence, earlier.node
            ));
        }
        let origin = self.origin(node);
        self.delivered.entry((packet.spi, packet.sequence)).or_default().push(origin);
    }

    /// ESP packets left (G3).
    pub fn send(&mut self, node: usize, spi: u32, numbers: &Range<u64>, term: u64, began: Time) {
        self.counts.sent += 1;
        self.moved.insert(spi, self.now);
        let origin = self.origin(node);
        let mut broken = None;
        for run in self.sent.get(&spi).into_iter().flatten() {
            if !self.binds(run.origin, node, began) {
                continue;
            }
            let twice = run.numbers.start < numbers.end && numbers.start < run.numbers.end;
            let above = |low: &Range<u64>, high: &Range<u64>| high.start >= low.end;
            let disorder = (run.term < term && !above(&run.numbers, numbers))
                || (run.term > term && !above(numbers, &run.numbers));
            if twice || disorder {
                let what = if twice { "again" } else { "not above an earlier term's" };
                broken = Some(format!(
                    "G3: node {node} sent {spi:#x}/{numbers:?} in term {term} {what}: node {} had sent {:?} in term {}",
                    run.origin.node, run.numbers, run.term
                ));
                break;
            }
        }
        if let Some(text) = broken {
            self.fail(format!("{text} (promised for: {})", self.scope()));
        }
        let runs = self.sent.entry(spi).or_default();
        let known = runs.iter_mut().rev().take(4).find(|run| {
            run.numbers.end == numbers.start
                && run.term == term
                && (run.origin.node, run.origin.disk, run.origin.era)
                    == (origin.node, origin.disk, origin.era)
        });
        match known {
            Some(run) => run.numbers.end = numbers.end,
            None => runs.push(Run { origin, numbers: numbers.clone(), term }),
        }
    }

    /// A node handled a message of the other one that was sealed then; `unmerged`: that one says that its final state
    /// is not merged.
    pub fn heard(&mut self, by: usize, sealed: Time, unmerged: bool, now: Time) {
        let loser = 1 - by;
        match self.scope {
            Scope::Split
                if self.sight[by].active && !self.sight[loser].active && sealed > self.demoted[loser] =>
            {
                (self.scope, self.reunited) = (Scope::Reunited { winner: by, at: now }, now);
                if !unmerged {
                    self.merged();
                }
            }
            Scope::Reunited { winner, .. } if winner == by && !unmerged => self.merged(),
            _ => {}
        }
    }

    fn merged(&mut self) {
        self.scope = Scope::Pair;
        self.counts.merges += 1;
    }

    /// Is the scope one in which messages must be looked into?
    #[must_use]
    pub fn listening(&self) -> bool {
        self.scope != Scope::Pair
    }

    fn new_era(&mut self) {
        self.era += 1;
        self.scope = Scope::Pair;
    }

    /// A winner said that it goes on without the loser's state.
    pub fn gave_up(&mut self) {
        self.new_era();
    }

    /// A node lost its memory.
    pub fn lost_memory(&mut self, node: usize) {
        if self.scope != Scope::Pair {
            // What one of them did by itself is known to nobody any more.
            self.new_era();
        }
        if self.sight[node].active {
            self.lost_strict = self.sight[node].strict;
            if !self.lost_strict {
                self.new_era();
            }
            self.lost = [false; 2];
        }
        self.lost[node] = true;
        (self.forgot[node], self.met[node]) = (true, false);
    }

    /// A node lost its disk.
    pub fn lost_disk(&mut self, node: usize) {
        self.disk[node] += 1;
        self.lost_strict = false;
    }

    /// What both nodes look like now. `fresh`: what the one that has just become active says of its takeover.
    pub fn see(&mut self, now: Time, sight: [Sight; 2], fresh: [bool; 2]) {
        let before = self.sight;
        self.sight = sight;
        for node in 0..2 {
            let (was, is) = (before[node], sight[node]);
            self.met[node] |= self.forgot[node] && sight[1 - node].active;
            if !is.active && was.active {
                self.demoted[node] = now;
            }
            if is.active && !was.active {
                self.joined[node] = false;
            }
            if is.active && is.strict && was.active && !was.strict {
                self.joined[node] = true;
                self.counts.joins += 1;
            }
            if is.active && !was.active {
                self.promoted(node, before[1 - node], fresh[node]);
            }
        }
        // Alone, and without having heard of a later reign: what was done in that one it cannot know.
        let newest = sight.iter().chain(&before).map(|sight| sight.term).max().unwrap_or(0);
        self.newest = self.newest.max(newest);
        let behind = |sight: &Sight| sight.active && sight.alone && sight.term < self.newest;
        if self.scope == Scope::Pair && sight.iter().any(behind) {
            self.split();
        }
        if let Scope::Reunited { at, .. } = self.scope
            && now > at + self.patience
        {
            // The winner goes on as after a stale takeover (F28).
            self.new_era();
        }
    }

    fn split(&mut self) {
        self.scope = Scope::Split;
        self.counts.splits += 1;
    }

    fn promoted(&mut self, node: usize, partner: Sight, fresh: bool) {
        if std::mem::take(&mut self.forgot[node]) && self.met[node] {
            self.trust[node] += 1;
        }
        if fresh {
            self.counts.second += u64::from(self.counts.fresh > 0);
            self.counts.fresh += 1;
            self.counts.after_join += u64::from(self.joined[1 - node]);
            if partner.active && partner.alone && !partner.strict {
                self.fail(format!("F21: node {node} took over as fresh while its partner was alone"));
            }
        } else {
            self.counts.stale += 1;
            if partner.running && partner.active {
                if self.scope != Scope::Split {
                    self.split();
                }
            } else if !(self.lost_strict && self.lost == [true; 2]) {
                self.new_era();
            }
        }
        self.lost_strict = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PACKET: Esp = Esp { spi: 0x1000, sequence: 7 };

    fn active(term: u64, alone: bool) -> Sight {
        Sight { running: true, active: true, alone, strict: !alone, term }
    }

    fn standby() -> Sight {
        Sight { running: true, ..Sight::default() }
    }

    /// Node 0 is active and strict, node 1 its standby.
    fn pair() -> Checker {
        let mut check = Checker::new(100);
        check.see(1, [active(2, true), standby()], [false; 2]);
        check.see(2, [active(2, false), standby()], [false; 2]);
        check
    }

    #[test]
    fn a_packet_delivered_by_both_nodes_across_a_fresh_takeover_breaks_g2() {
        let mut check = pair();
        check.deliver(0, PACKET, 3);
        check.see(4, [Sight::default(), active(3, true)], [false, true]);
        check.deliver(1, PACKET, 5);
        assert!(check.broken.is_some_and(|broken| broken.starts_with("G2")));
    }

    #[test]
    fn a_stale_takeover_ends_what_the_pair_promises_but_not_what_a_node_does() {
        let mut check = pair();
        check.deliver(0, PACKET, 3);
        check.see(4, [Sight::default(), active(3, true)], [false, false]);
        check.deliver(1, PACKET, 5);
        assert_eq!(check.broken, None);
        check.deliver(1, PACKET, 6);
        assert!(check.broken.is_some_and(|broken| broken.starts_with("G2")));
    }

    #[test]
    fn a_node_without_memory_answers_for_its_own_deeds_unless_it_could_take_the_others_window() {
        for (met, holds) in [(false, false), (true, true)] {
            let mut check = Checker::new(100);
            check.see(1, [active(2, true), standby()], [false; 2]);
            check.deliver(0, PACKET, 2);
            check.lost_memory(0);
            check.see(3, [Sight::default(), standby()], [false; 2]);
            if met {
                check.see(4, [standby(), active(3, true)], [false; 2]);
                check.see(5, [standby(), standby()], [false; 2]);
            }
            check.see(6, [active(4, true), standby()], [false; 2]);
            check.deliver(0, PACKET, 7);
            assert_eq!(check.broken.is_none(), holds, "{met}");
        }
    }

    #[test]
    fn after_a_split_the_winner_answers_for_both_once_it_has_heard_the_loser() {
        let mut check = pair();
        check.see(3, [active(2, true), active(3, true)], [false, false]);
        check.deliver(0, PACKET, 4);
        check.deliver(1, PACKET, 4);
        assert_eq!((check.scope(), check.broken.as_deref()), ("each node", None));
        let other = Esp { sequence: 8, ..PACKET };
        check.deliver(0, other, 5);
        check.see(6, [standby(), active(3, true)], [false, false]);
        check.heard(1, 7, true, 8);
        check.deliver(1, other, 9);
        assert!(check.broken.is_some_and(|broken| broken.starts_with("G2")));
    }

    #[test]
    fn numbers_of_a_later_term_below_those_of_an_earlier_one_break_g3() {
        for (numbers, holds) in [(11..12, true), (5..6, false), (10..12, false)] {
            let mut check = pair();
            check.send(0, 0x1001, &(6..11), 2, 3);
            check.see(4, [Sight::default(), active(3, true)], [false, true]);
            check.send(1, 0x1001, &numbers, 3, 5);
            assert_eq!(check.broken.is_none(), holds, "{numbers:?}");
        }
    }

    #[test]
    fn a_delivery_in_a_round_that_began_after_the_demotion_breaks_f27() {
        let mut check = pair();
        check.see(5, [standby(), active(3, true)], [false, true]);
        check.deliver(0, PACKET, 4);
        assert_eq!(check.broken, None);
        check.deliver(0, Esp { sequence: 9, ..PACKET }, 6);
        assert!(check.broken.is_some_and(|broken| broken.starts_with("F27")));
    }

    #[test]
    fn a_fresh_takeover_from_a_node_that_is_alone_breaks_f21() {
        let mut check = pair();
        check.see(3, [active(2, true), standby()], [false; 2]);
        check.see(4, [active(2, true), active(3, true)], [false, true]);
        assert!(check.broken.is_some_and(|broken| broken.starts_with("F21")));
    }

    #[test]
    fn a_sealing_counter_that_does_not_grow_breaks_f6() {
        let mut check = pair();
        check.envelope(0, 1, 0, 5);
        check.envelope(1, 1, 0, 5);
        check.envelope(0, 2, 0, 0);
        assert_eq!(check.broken, None);
        check.envelope(0, 1, 0, 5);
        assert!(check.broken.is_some_and(|broken| broken.starts_with("F6")));
    }
}

//! Many seeds, on all cores, and what they came to.

use super::liveness::{Outcome, run};
use crate::report::{Report, count};
use crate::run::line;
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Which seeds.
#[derive(Clone, Copy, Debug)]
pub struct Seeds {
    /// The first one.
    pub from: u64,
    /// How many.
    pub number: u64,
    /// Stop at the first one that fails.
    pub stop: bool,
}

/// Sums over many runs.
#[derive(Clone, Debug, Default)]
pub struct Sums {
    /// Runs.
    pub runs: u64,
    /// Runs that began with one node.
    pub started_alone: u64,
    /// Runs that played a dangerous moment.
    pub directed: u64,
    /// Of them, those that played it to its end.
    pub played: u64,
    /// Runs in which the rough time left the promise to the pair.
    pub pair_scope: u64,
    /// Fresh takeovers.
    pub fresh: u64,
    /// Of them, in a reign that went from alone to strict.
    pub after_join: u64,
    /// Of them, after another fresh one.
    pub second: u64,
    /// Takeovers that were not fresh.
    pub stale: u64,
    /// Times in which both were active without a path.
    pub splits: u64,
    /// Of them, ended by a merge.
    pub merges: u64,
    /// Steps from alone to strict.
    pub joins: u64,
    /// Inner packets.
    pub delivered: u64,
    /// Runs of ESP packets.
    pub sent: u64,
    /// Longest time from healing to a healthy pair, in nanoseconds.
    pub settled_worst: u64,
    /// Longest time from a kill to a takeover, in nanoseconds.
    pub takeover_worst: u64,
    /// Real time.
    pub took: Duration,
    /// Seeds that failed, the lowest ones first.
    pub failed: Vec<(u64, String)>,
}

impl Sums {
    fn add(&mut self, outcome: &Outcome) {
        let counts = outcome.counts;
        self.runs += 1;
        self.started_alone += u64::from(outcome.started_alone);
        self.directed += u64::from(outcome.directed);
        self.played += u64::from(outcome.played.is_some());
        self.pair_scope += u64::from(outcome.pair_scope);
        self.fresh += counts.fresh;
        self.after_join += counts.after_join;
        self.second += counts.second;
        self.stale += counts.stale;
        self.splits += counts.splits;
        self.merges += counts.merges;
        self.joins += counts.joins;
        self.delivered += counts.delivered;
        self.sent += counts.sent;
        self.settled_worst = self.settled_worst.max(outcome.settled_after);
        self.takeover_worst = self.takeover_worst.max(outcome.took_over_after);
        if let Some(broken) = &outcome.broken {
            self.failed.push((outcome.seed, broken.clone()));
        }
    }

    /// Runs in a minute.
    #[must_use]
    pub fn per_minute(&self) -> f64 {
        count(self.runs) / self.took.as_secs_f64().max(1e-9) * 60.0
    }
}

/// Runs them all, on every core.
#[must_use]
pub fn run_all(seeds: Seeds) -> Sums {
    let next = AtomicU64::new(0);
    let stop = AtomicBool::new(false);
    let sums = Mutex::new(Sums::default());
    let start = Instant::now();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let work = || {
        while !stop.load(Ordering::Relaxed) {
            let index = next.fetch_add(1, Ordering::Relaxed);
            if index >= seeds.number {
                return;
            }
            let outcome = run(seeds.from.wrapping_add(index), false);
            if outcome.broken.is_some() && seeds.stop {
                stop.store(true, Ordering::Relaxed);
            }
            if let Ok(mut sums) = sums.lock() {
                sums.add(&outcome);
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..cores {
            scope.spawn(work);
        }
    });
    let mut sums = sums.into_inner().unwrap_or_default();
    sums.took = start.elapsed();
    sums.failed.sort();
    sums
}

/// Runs seeds, tells what came of them, and judges.
pub fn simulate(seeds: Seeds, report: &mut Report) {
    let sums = run_all(seeds);
    line(format_args!(
        "  {} seeds from {}, {} of them started with one node, {} played a dangerous moment to its end; {:.0} a minute",
        sums.runs,
        seeds.from,
        sums.started_alone,
        sums.played,
        sums.per_minute()
    ));
    line(format_args!(
        "  takeovers: {} fresh, {} stale or first ones; {} fresh ones followed alone -> strict, {} were second ones",
        sums.fresh, sums.stale, sums.after_join, sums.second
    ));
    line(format_args!(
        "  G1 for the pair in every run; G2 and G3 for the pair in {} runs, in the others since their last stale takeover \
         and for each node alone while both were active without a path ({} times, {} ended by a merge)",
        sums.pair_scope, sums.splits, sums.merges
    ));
    line(format_args!(
        "  {} packets delivered, {} runs of packets sent; healthy {:.0} ms after healing at worst, takeover {:.2} ms \
         after a kill at worst (virtual time)",
        sums.delivered,
        sums.sent,
        sums.settled_worst as f64 / 1e6,
        sums.takeover_worst as f64 / 1e6
    ));
    tell_failures(&sums);
    figures(&sums, report);
    let failed = sums.failed.first().map_or("none failed".to_owned(), |(seed, broken)| {
        format!("{} failed, the first is seed {seed}: {broken}", sums.failed.len())
    });
    report.check(
        "every seed holds the rules and becomes healthy",
        sums.failed.is_empty() && sums.runs > 0,
        failed,
    );
    report.check(
        "half of the seeds start with one node",
        sums.started_alone * 2 + 1 >= sums.runs && sums.started_alone * 2 <= sums.runs + 1,
        format!("{} of {}", sums.started_alone, sums.runs),
    );
    report.check(
        "dangerous moments were played to their end",
        sums.played * 4 >= sums.directed * 3,
        format!("{} of {}", sums.played, sums.directed),
    );
    report.check("fresh takeovers followed alone -> strict", sums.after_join > 0, sums.after_join);
    report.check("some fresh takeovers were second ones", sums.second > 0, sums.second);
}

/// A few failed seeds of each kind.
fn tell_failures(sums: &Sums) {
    let mut kinds: BTreeMap<String, Vec<&(u64, String)>> = BTreeMap::new();
    for failed in &sums.failed {
        // What follows the first words are numbers of packets and nodes.
        kinds
            .entry(failed.1.chars().filter(|c| !c.is_ascii_digit()).take(30).collect())
            .or_default()
            .push(failed);
    }
    for list in kinds.values() {
        line(format_args!("  {} seeds:", list.len()));
        for (seed, broken) in list.iter().take(4) {
            line(format_args!("    seed {seed}: {broken}"));
        }
        if let Some((seed, _)) = list.first() {
            line(format_args!("    to read its story: tandem-testbed simulate --seed {seed}"));
        }
    }
}

/// Runs one seed and tells its story.
pub fn replay(seed: u64, report: &mut Report) {
    let outcome = run(seed, true);
    for text in &outcome.story {
        line(text);
    }
    let seen = outcome.broken.clone().unwrap_or_else(|| "all rules held".to_owned());
    report.check("the seed holds the rules and becomes healthy", outcome.broken.is_none(), &seen);
    line(format_args!("seed {seed}: {seen}"));
}

fn figures(sums: &Sums, report: &mut Report) {
    for (name, value) in [
        ("seeds", sums.runs),
        ("seeds_directed", sums.directed),
        ("seeds_played", sums.played),
        ("takeovers_fresh", sums.fresh),
        ("takeovers_stale", sums.stale),
        ("takeovers_after_join", sums.after_join),
        ("takeovers_second", sums.second),
        ("runs_with_pair_scope", sums.pair_scope),
        ("splits", sums.splits),
        ("merges", sums.merges),
        ("joins", sums.joins),
        ("packets_delivered", sums.delivered),
        ("seeds_failed", sums.failed.len() as u64),
    ] {
        report.figure(name, count(value));
    }
    report.figure("seeds_per_minute", sums.per_minute());
    report.figure("settled_worst_ms", sums.settled_worst as f64 / 1e6);
    report.figure("takeover_worst_ms", sums.takeover_worst as f64 / 1e6);
}

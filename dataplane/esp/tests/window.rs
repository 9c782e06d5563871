//! The anti-replay window against a plain model: a set of the accepted numbers and the top.

use std::collections::{HashMap, HashSet};
use std::sync::Barrier;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use proptest::prelude::*;
use tandem_esp::window::{BLOCK, Verdict, WINDOW, accept, check, covered};
use tandem_shm::WINDOW_WORDS;

struct Window<const N: usize> {
    top: AtomicU64,
    words: [AtomicU64; N],
}

impl<const N: usize> Window<N> {
    fn new() -> Self {
        Window { top: AtomicU64::new(0), words: std::array::from_fn(|_| AtomicU64::new(0)) }
    }

    fn state(&self) -> (u64, Vec<u64>) {
        let words = self.words.iter().map(|word| word.load(Ordering::Relaxed)).collect();
        (self.top.load(Ordering::Relaxed), words)
    }

    /// What the window says, which must be the same before and after opening.
    fn accept(&self, sequence: u64) -> Verdict {
        let before = self.state();
        let checked = check(&self.top, &self.words, sequence);
        assert_eq!(self.state(), before, "a check changes nothing");
        let accepted = accept(&self.top, &self.words, sequence);
        assert_eq!(checked, accepted, "{sequence}");
        if accepted != Verdict::Fresh {
            assert_eq!(self.state(), before, "a refused number changes nothing");
        }
        accepted
    }
}

/// The window as its documentation says it is.
struct Model {
    covered: u64,
    top: u64,
    seen: HashSet<u64>,
}

impl Model {
    fn accept(&mut self, sequence: u64) -> Verdict {
        if sequence == 0 || self.top >= sequence && self.top - sequence >= self.covered {
            return Verdict::TooOld;
        }
        if !self.seen.insert(sequence) {
            return Verdict::Replayed;
        }
        self.top = self.top.max(sequence);
        Verdict::Fresh
    }
}

/// How the next number lies to the top.
#[derive(Debug, Clone, Copy)]
enum Step {
    Ahead(u64),
    Behind(u64),
    /// Around the lower edge of the window.
    Edge(i64),
    Jump(u64),
    /// A number that came before, counted from the last.
    Again(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (1..4u64).prop_map(Step::Ahead),
        2 => (1..100u64).prop_map(Step::Ahead),
        4 => (0..80u64).prop_map(Step::Behind),
        2 => (0..4000u64).prop_map(Step::Behind),
        3 => (-40..40i64).prop_map(Step::Edge),
        1 => (1..200_000u64).prop_map(Step::Jump),
        3 => (0..300usize).prop_map(Step::Again),
    ]
}

/// Walks window and model together from `start`, past which all words have been used.
fn walk<const N: usize>(start: u64, steps: &[Step]) {
    let window = Window::<N>::new();
    let mut model = Model { covered: covered(N), top: 0, seen: HashSet::new() };
    let mut history = Vec::new();
    let mut visit = |sequence: u64| -> u64 {
        assert_eq!(window.accept(sequence), model.accept(sequence), "{sequence}, top {}", model.top);
        assert_eq!(window.top.load(Ordering::Relaxed), model.top);
        history.push(sequence);
        model.top
    };
    // A block number compares right with those less than 2^31 blocks away, which a jump of F15 never leaves.
    let mut stone = 1 << 33;
    while stone < start {
        for block in 0..N as u64 {
            visit(stone + block * BLOCK);
        }
        stone += 1 << 34;
    }
    let mut top = visit(start.max(1));
    let mut came = vec![start.max(1)];
    for step in steps {
        let sequence = match *step {
            Step::Ahead(by) | Step::Jump(by) => top + by,
            Step::Behind(by) => top.saturating_sub(by),
            Step::Edge(by) => top.saturating_sub(covered(N)).saturating_add_signed(by),
            Step::Again(back) => came[came.len().saturating_sub(1 + back)],
        };
        came.push(sequence);
        top = visit(sequence);
    }
    // Everything that was ever accepted is refused now.
    for sequence in history {
        assert_ne!(window.accept(sequence), Verdict::Fresh, "{sequence}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn window_is_the_model_from_the_first_number(
        start in 0..100u64,
        steps in proptest::collection::vec(step(), 0..500),
    ) {
        walk::<WINDOW_WORDS>(start, &steps);
        walk::<2>(start, &steps);
    }

    #[test]
    fn window_is_the_model_around_the_last_number_of_32_bits(
        below in 0..6000u64,
        steps in proptest::collection::vec(step(), 0..500),
    ) {
        walk::<WINDOW_WORDS>((1 << 32) - below, &steps);
    }

    #[test]
    fn window_is_the_model_where_block_numbers_wrap(
        below in 0..6000u64,
        steps in proptest::collection::vec(step(), 0..500),
    ) {
        walk::<WINDOW_WORDS>((1 << 37) - below, &steps);
        walk::<4>((1 << 37) - below, &steps);
    }
}

#[test]
fn window_covers_what_it_says_and_nothing_below() {
    assert_eq!(u64::from(WINDOW), (WINDOW_WORDS as u64 - 1) * 32);
    // Wherever in its block the top lies.
    for top in 10_000..10_000 + 2 * BLOCK {
        let window = Window::<WINDOW_WORDS>::new();
        assert_eq!(window.accept(top), Verdict::Fresh);
        let lowest = top + 1 - u64::from(WINDOW);
        assert_eq!(window.accept(lowest - 1), Verdict::TooOld);
        for sequence in lowest..top {
            assert_eq!(window.accept(sequence), Verdict::Fresh, "{sequence} below {top}");
        }
        for sequence in lowest..=top {
            assert_eq!(window.accept(sequence), Verdict::Replayed, "{sequence} below {top}");
        }
    }
}

#[test]
fn number_zero_is_never_accepted() {
    let window = Window::<WINDOW_WORDS>::new();
    assert_eq!(window.accept(0), Verdict::TooOld);
    assert_eq!(window.accept(1), Verdict::Fresh);
    assert_eq!(window.accept(0), Verdict::TooOld);
}

#[test]
fn word_of_a_newer_block_refuses_also_before_the_top_has_moved() {
    // Another core has accepted 2048 + 40 and not yet raised the top.
    let window = Window::<WINDOW_WORDS>::new();
    assert_eq!(window.accept(40), Verdict::Fresh);
    window.words[1].store(65 << 32 | 1 << 8, Ordering::Relaxed);
    assert_eq!(window.accept(41), Verdict::TooOld);
    assert_eq!(window.accept(2048 + 40), Verdict::Replayed);
    assert_eq!(window.accept(2048 + 41), Verdict::Fresh);
}

#[test]
fn cores_never_accept_a_number_twice() {
    const CORES: u64 = 4;
    const LAST: u64 = 60_000;
    let window = Window::<8>::new();
    let start = Barrier::new(CORES as usize);
    let accepted: Vec<Vec<u64>> = thread::scope(|scope| {
        let cores: Vec<_> = (0..CORES)
            .map(|core| {
                let (window, start) = (&window, &start);
                scope.spawn(move || {
                    start.wait();
                    let mut fresh = Vec::new();
                    // Each core sees most numbers, in an order of its own.
                    for run in (1..LAST).step_by(16) {
                        for i in 0..16 {
                            let sequence = run + (i * 5 + core * 3) % 16;
                            if accept(&window.top, &window.words, sequence) == Verdict::Fresh {
                                fresh.push(sequence);
                            }
                        }
                    }
                    fresh
                })
            })
            .collect();
        cores.into_iter().map(|core| core.join().expect("no core panics")).collect()
    });
    let mut times = HashMap::<u64, u32>::new();
    accepted.iter().flatten().for_each(|sequence| *times.entry(*sequence).or_default() += 1);
    assert!(times.values().all(|count| *count == 1), "some number was accepted twice");
    let highest = times.keys().max().copied().expect("some were accepted");
    assert_eq!(window.top.load(Ordering::Relaxed), highest);
    assert!(highest >= LAST - 16);
}

//! The anti-replay window against a plain model: a set of the accepted numbers and the top.

use std::collections::{HashMap, HashSet};
use std::sync::Barrier;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use proptest::prelude::*;
use tandem_esp::window::{self, BLOCK, Verdict, WINDOW, accept, check, covered};
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

impl<const N: usize> Window<N> {
    /// Merges the whole of another window, as a standby does with a record.
    fn join(&self, other: &Window<N>) {
        let theirs = window::snapshot(&other.top, &other.words);
        for (index, word) in theirs.words.into_iter().enumerate() {
            window::merge(&self.words, index, word);
        }
        window::raise_top(&self.top, theirs.top);
    }
}

/// Numbers of two nodes: near each other, far apart, around the wrap of block numbers.
fn numbers() -> impl Strategy<Value = (Vec<u64>, Vec<u64>)> {
    let near = |base: u64| proptest::collection::vec((0..600u64).prop_map(move |by| base + by), 0..150);
    (prop_oneof![Just(1), 2..5000u64, Just((1 << 37) - 300), Just((1 << 32) - 300)], 0..3u64, 0..1500u64)
        .prop_flat_map(move |(base, which, apart)| {
            let (ours, theirs) = if which == 0 { (base, base + apart) } else { (base + apart, base) };
            (near(ours), near(theirs))
        })
}

/// Accepts `numbers` and answers those that were fresh.
fn feed<const N: usize>(window: &Window<N>, numbers: &[u64]) -> HashSet<u64> {
    numbers.iter().copied().filter(|number| window.accept(*number) == Verdict::Fresh).collect()
}

/// A window that is at `base` as one that has worked all the way up to it.
fn at<const N: usize>(base: u64) -> Window<N> {
    let window = Window::<N>::new();
    let mut stone = 0;
    while stone + (1 << 34) < base {
        stone += 1 << 34;
        window::see_all_up_to(&window.top, &window.words, stone);
    }
    window
}

fn union_is_the_model<const N: usize>(base: u64, ours: &[u64], theirs: &[u64]) {
    let (window, other) = (at::<N>(base), at::<N>(base));
    let mut seen = feed(&window, ours);
    seen.extend(feed(&other, theirs));
    let top = window.top.load(Ordering::Relaxed).max(other.top.load(Ordering::Relaxed));
    window.join(&other);
    assert_eq!(window.top.load(Ordering::Relaxed), top);
    let after = window.state();
    window.join(&other);
    assert_eq!(window.state(), after, "once more changes nothing");
    // Everything that either has seen is refused; of the rest exactly what lies below the window.
    let low = seen.iter().min().map_or(1, |low| low.saturating_sub(100).max(1));
    for number in low..low + 3000 {
        let verdict = check(&window.top, &window.words, number);
        if seen.contains(&number) {
            assert_ne!(verdict, Verdict::Fresh, "{number} was seen, top {top}");
        } else if number + covered(N) > top && !(base > 1 << 34 && number <= base - (1 << 30)) {
            assert_eq!(verdict, Verdict::Fresh, "{number} was seen by nobody, top {top}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    /// Also for words in an order of their own and come twice: the union does not depend on it.
    #[test]
    fn merged_window_refuses_the_union_and_nothing_else((ours, theirs) in numbers()) {
        let base = ours.iter().chain(&theirs).copied().min().unwrap_or(1);
        union_is_the_model::<WINDOW_WORDS>(base, &ours, &theirs);
        union_is_the_model::<4>(base, &ours, &theirs);
    }

    #[test]
    fn merge_knows_no_order((ours, theirs) in numbers()) {
        let base = ours.iter().chain(&theirs).copied().min().unwrap_or(1);
        let pair = || {
            let (a, b) = (at::<8>(base), at::<8>(base));
            feed(&a, &ours);
            feed(&b, &theirs);
            (a, b)
        };
        let ((a, b), (c, d)) = (pair(), pair());
        a.join(&b);
        d.join(&c);
        prop_assert_eq!(a.state(), d.state());
    }

    /// No word that a partner could send lets a number in that was seen before.
    #[test]
    fn no_word_of_a_partner_forgets_what_was_seen(
        ours in proptest::collection::vec(1..2000u64, 1..100),
        words in proptest::collection::vec((0..80usize, any::<u64>()), 0..50),
        small in proptest::collection::vec((0..80usize, 0..200u64, any::<u32>()), 0..50),
    ) {
        let window = Window::<WINDOW_WORDS>::new();
        let seen = feed(&window, &ours);
        let small = small.into_iter().map(|(index, block, bits)| (index, block << BLOCK | u64::from(bits)));
        for (index, word) in words.into_iter().chain(small) {
            // A block more than 2^31 ahead reads as older (RFC 1982); no number of an SA comes that far (F15).
            window::merge(&window.words, index, word & !(1 << 63));
            for number in &seen {
                prop_assert_ne!(check(&window.top, &window.words, *number), Verdict::Fresh);
            }
        }
    }

    #[test]
    fn every_number_up_to_a_seen_end_is_refused_and_those_beyond_are_not(
        before in proptest::collection::vec(1..6000u64, 0..200),
        last in 0..6000u64,
    ) {
        let window = Window::<WINDOW_WORDS>::new();
        let seen = feed(&window, &before);
        let top = window.top.load(Ordering::Relaxed).max(last);
        window::see_all_up_to(&window.top, &window.words, last);
        prop_assert_eq!(window.top.load(Ordering::Relaxed), top);
        for number in 0..9000u64 {
            let verdict = check(&window.top, &window.words, number);
            if number <= last || seen.contains(&number) {
                prop_assert_ne!(verdict, Verdict::Fresh, "{} of {}", number, last);
            } else if number + u64::from(WINDOW) > top {
                prop_assert_eq!(verdict, Verdict::Fresh, "{} beyond {}, top {}", number, last, top);
            }
        }
    }
}

#[test]
fn merge_ignores_what_is_no_word_of_that_place() {
    let window = Window::<4>::new();
    assert_eq!(window.accept(5 * BLOCK), Verdict::Fresh);
    let before = window.state();
    window::merge(&window.words, 4, 4 << BLOCK | 1);
    window::merge(&window.words, usize::MAX, 4 << BLOCK | 1);
    window::merge(&window.words, 1, 6 << BLOCK | 1);
    window::merge(&window.words, 1, 9 << BLOCK);
    window::merge(&window.words, 1, 1 << BLOCK | 0xff);
    assert_eq!(window.state(), before);
    window::merge(&window.words, 1, 5 << BLOCK | 2);
    assert_eq!(window.state().1[1], 5 << BLOCK | 3);
    window::merge(&window.words, 1, 9 << BLOCK | 4);
    assert_eq!(window.state().1[1], 9 << BLOCK | 4);
    assert_eq!(window.accept(5 * BLOCK), Verdict::TooOld);
}

#[test]
fn seen_end_holds_at_the_edges_of_blocks_and_at_the_last_numbers() {
    for last in [0, 1, 31, 32, 33, 2047, 2048, 2049, u64::from(u32::MAX) - 1, u64::from(u32::MAX)] {
        let window = Window::<WINDOW_WORDS>::new();
        window::see_all_up_to(&window.top, &window.words, last);
        for number in last.saturating_sub(5000)..=last {
            assert_ne!(check(&window.top, &window.words, number), Verdict::Fresh, "{number} of {last}");
        }
        assert_eq!(window.accept(last + 1), Verdict::Fresh, "{last}");
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

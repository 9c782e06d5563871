//! Every interleaving of cores that share an anti-replay window (F7), and the two mutants that rule names: a
//! window with clearing, before or after the top. The model checker passes the window and finds the mutants.

use loom::sync::Arc;
use loom::sync::atomic::{AtomicU64, Ordering};
use loom::thread;
use tandem_esp::AtomicWord;
use tandem_esp::window::{self, BLOCK, Verdict};

/// Two words: every second block displaces the one before last.
const WORDS: usize = 2;

struct Word(AtomicU64);

impl AtomicWord for Word {
    fn load_acquire(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }

    fn exchange(&self, current: u64, new: u64) -> Result<u64, u64> {
        self.0.compare_exchange_weak(current, new, Ordering::AcqRel, Ordering::Acquire)
    }

    fn raise(&self, value: u64) {
        self.0.fetch_max(value, Ordering::Release);
    }

    fn add(&self, value: u64) -> u64 {
        self.0.fetch_add(value, Ordering::AcqRel)
    }
}

/// A window as the tests use it.
trait AntiReplay: Send + Sync + 'static {
    fn new() -> Self;
    fn accept(&self, sequence: u64) -> Verdict;
}

struct Window {
    top: Word,
    words: [Word; WORDS],
}

impl AntiReplay for Window {
    fn new() -> Self {
        Window { top: Word(AtomicU64::new(0)), words: [Word(AtomicU64::new(0)), Word(AtomicU64::new(0))] }
    }

    fn accept(&self, sequence: u64) -> Verdict {
        let checked = window::check(&self.top, &self.words, sequence);
        let accepted = window::accept(&self.top, &self.words, sequence);
        if checked != Verdict::Fresh {
            assert_ne!(accepted, Verdict::Fresh, "what was refused stays refused");
        }
        accepted
    }
}

/// The window that F7 replaces: plain bits, and words cleared when the top enters their block.
struct Clearing<const BEFORE_THE_TOP: bool> {
    top: AtomicU64,
    words: [AtomicU64; WORDS],
}

impl<const BEFORE_THE_TOP: bool> AntiReplay for Clearing<BEFORE_THE_TOP> {
    fn new() -> Self {
        Clearing { top: AtomicU64::new(0), words: [AtomicU64::new(0), AtomicU64::new(0)] }
    }

    fn accept(&self, sequence: u64) -> Verdict {
        let word = &self.words[(sequence / BLOCK) as usize % WORDS];
        let top = self.top.load(Ordering::SeqCst);
        if sequence + window::covered(WORDS) <= top {
            return Verdict::TooOld;
        }
        let enters = sequence / BLOCK > top / BLOCK;
        if enters && BEFORE_THE_TOP {
            word.store(0, Ordering::SeqCst);
        }
        self.top.fetch_max(sequence, Ordering::SeqCst);
        if enters && !BEFORE_THE_TOP {
            word.store(0, Ordering::SeqCst);
        }
        match word.fetch_or(1 << (sequence % BLOCK), Ordering::SeqCst) >> (sequence % BLOCK) & 1 {
            0 => Verdict::Fresh,
            _ => Verdict::Replayed,
        }
    }
}

/// Two cores accept these numbers, after `before` were accepted; then all of them come once more. In every
/// interleaving, each number is accepted at most once, and the top is the highest that was.
fn explore<W: AntiReplay>(before: &'static [u64], cores: [&'static [u64]; 2]) {
    loom::model(move || {
        let window = Arc::new(W::new());
        let mut accepted = Vec::new();
        for sequence in before {
            if window.accept(*sequence) == Verdict::Fresh {
                accepted.push(*sequence);
            }
        }
        let run = |window: Arc<W>, numbers: &'static [u64]| {
            move || -> Vec<u64> {
                numbers.iter().copied().filter(|number| window.accept(*number) == Verdict::Fresh).collect()
            }
        };
        let other = thread::spawn(run(Arc::clone(&window), cores[1]));
        accepted.extend(run(Arc::clone(&window), cores[0])());
        accepted.extend(other.join().expect("the core finishes"));
        for sequence in before.iter().chain(cores.iter().flat_map(|numbers| numbers.iter())) {
            if window.accept(*sequence) == Verdict::Fresh {
                accepted.push(*sequence);
            }
        }
        accepted.sort_unstable();
        assert!(accepted.windows(2).all(|pair| pair[0] != pair[1]), "accepted twice");
    });
}

/// Two cores accept these numbers at once; exactly those of `fresh` are accepted in every interleaving.
fn exactly(before: &'static [u64], cores: [&'static [u64]; 2], fresh: &'static [u64]) {
    loom::model(move || {
        let window = Arc::new(Window::new());
        before.iter().for_each(|sequence| assert_eq!(window.accept(*sequence), Verdict::Fresh));
        let run = |window: Arc<Window>, numbers: &'static [u64]| {
            move || -> Vec<u64> {
                numbers.iter().copied().filter(|number| window.accept(*number) == Verdict::Fresh).collect()
            }
        };
        let other = thread::spawn(run(Arc::clone(&window), cores[1]));
        let mut accepted = run(Arc::clone(&window), cores[0])();
        accepted.extend(other.join().expect("the core finishes"));
        accepted.sort_unstable();
        assert_eq!(accepted, fresh);
        let top = window.top.load_acquire();
        assert_eq!(Some(&top), fresh.last(), "the top is the highest");
    });
}

/// A word of block `block` with `bits`, as a partner sends it.
fn word(block: u64, bits: u64) -> u64 {
    block << BLOCK | bits
}

/// A core accepts `number` while another merges `theirs` into word `index`, and looks again after that. Answers of the
/// racing core are free unless it saw that the merge was over; nobody accepts the number after it.
fn merge_against_accept(
    merge: fn(&[Word; WORDS], usize, u64),
    before: &'static [u64],
    number: u64,
    index: usize,
    theirs: u64,
) {
    loom::model(move || {
        let window = Arc::new(Window::new());
        before.iter().for_each(|sequence| assert_eq!(window.accept(*sequence), Verdict::Fresh));
        let merged = Arc::new(loom::sync::atomic::AtomicBool::new(false));
        let core = {
            let (window, merged) = (Arc::clone(&window), Arc::clone(&merged));
            thread::spawn(move || {
                let over = merged.load(Ordering::Acquire);
                (over, window.accept(number))
            })
        };
        merge(&window.words, index, theirs);
        merged.store(true, Ordering::Release);
        assert_ne!(window.accept(number), Verdict::Fresh, "the merged word holds it");
        let (over, verdict) = core.join().expect("the core finishes");
        assert!(!over || verdict != Verdict::Fresh, "accepted after the merge");
        assert_ne!(window.accept(number), Verdict::Fresh);
        for sequence in before {
            assert_ne!(window.accept(*sequence), Verdict::Fresh, "what was seen stays seen");
        }
    });
}

#[test]
fn number_of_a_merged_word_is_accepted_only_before_the_merge() {
    merge_against_accept(window::merge, &[], 5, 0, word(0, 1 << 5));
    merge_against_accept(window::merge, &[1], 2 * BLOCK + 5, 0, word(2, 1 << 5 | 1 << 6));
    merge_against_accept(window::merge, &[2 * BLOCK], 2 * BLOCK + 5, 0, word(2, 1 << 5));
    merge_against_accept(window::merge, &[BLOCK], 3 * BLOCK, 1, word(3, 1));
}

/// Reads, joins and writes in three steps: a number that is accepted in between is forgotten.
fn joined_in_steps(words: &[Word; WORDS], index: usize, theirs: u64) {
    let word = &words[index].0;
    let joined = word.load(Ordering::Acquire) | theirs;
    word.store(joined, Ordering::Release);
}

#[test]
#[should_panic(expected = "accepted twice")]
fn mutant_that_merges_in_steps_is_found() {
    loom::model(|| {
        let window = Arc::new(Window::new());
        let core = {
            let window = Arc::clone(&window);
            thread::spawn(move || window.accept(5))
        };
        joined_in_steps(&window.words, 0, word(0, 1 << 3));
        let first = core.join().expect("the core finishes");
        let again = window.accept(5);
        assert!(first != Verdict::Fresh || again != Verdict::Fresh, "accepted twice");
    });
}

#[test]
#[should_panic(expected = "what was seen stays seen")]
fn mutant_that_merges_by_the_last_writer_is_found() {
    let overwrite =
        |words: &[Word; WORDS], index: usize, theirs| words[index].0.store(theirs, Ordering::Release);
    merge_against_accept(overwrite, &[2 * BLOCK], 2 * BLOCK + 5, 0, word(2, 1 << 5));
}

/// A merge and accepted numbers of the same word: both are kept, whichever block is the newer one.
#[test]
fn merge_and_accepted_numbers_lose_nothing_of_each_other() {
    for (theirs, held) in [(word(0, 1 << 3), 3), (word(2, 1 << 3), 2 * BLOCK + 3), (word(4, 1), 4 * BLOCK)] {
        loom::model(move || {
            let window = Arc::new(Window::new());
            let core = {
                let window = Arc::clone(&window);
                thread::spawn(move || {
                    [5, 2 * BLOCK + 5]
                        .into_iter()
                        .filter(|n| window.accept(*n) == Verdict::Fresh)
                        .collect::<Vec<_>>()
                })
            };
            window::merge(&window.words, 0, theirs);
            let accepted = core.join().expect("the core finishes");
            for sequence in accepted.into_iter().chain([held]) {
                assert_ne!(window.accept(sequence), Verdict::Fresh, "{sequence}");
            }
        });
    }
}

/// Numbers of a beginning that counts as seen, against a core that accepts some of them and some beyond.
#[test]
fn nothing_up_to_a_seen_end_is_accepted_after_it() {
    for last in [BLOCK - 1, BLOCK + 3, 3 * BLOCK] {
        loom::model(move || {
            let window = Arc::new(Window::new());
            let core = {
                let window = Arc::clone(&window);
                thread::spawn(move || [last, last + 1].map(|number| window.accept(number)))
            };
            window::see_all_up_to(&window.top, &window.words, last);
            assert_ne!(window.accept(last), Verdict::Fresh);
            let [_, beyond] = core.join().expect("the core finishes");
            assert_eq!(beyond, Verdict::Fresh, "what lies beyond is not refused");
            assert_eq!(window.accept(last + 1), Verdict::Replayed);
            for sequence in 0..=last {
                assert_ne!(window.accept(sequence), Verdict::Fresh, "{sequence}");
            }
        });
    }
}

/// A snapshot that is taken after a number was accepted holds it, and its words hold its top.
#[test]
fn snapshot_holds_its_top_and_what_came_before_it() {
    loom::model(|| {
        let window = Arc::new(Window::new());
        assert_eq!(window.accept(7), Verdict::Fresh);
        let core = {
            let window = Arc::clone(&window);
            thread::spawn(move || [2 * BLOCK, BLOCK].map(|number| window.accept(number)))
        };
        let snapshot = window::snapshot(&window.top, &window.words);
        let copy = Window::new();
        for (index, theirs) in snapshot.words.into_iter().enumerate() {
            window::merge(&copy.words, index, theirs);
        }
        window::raise_top(&copy.top, snapshot.top);
        assert_ne!(copy.accept(7), Verdict::Fresh);
        assert_ne!(copy.accept(snapshot.top), Verdict::Fresh, "the words hold the top");
        let _ = core.join().expect("the core finishes");
    });
}

#[test]
fn one_number_on_two_cores_is_fresh_exactly_once() {
    exactly(&[], [&[5], &[5]], &[5]);
    exactly(&[3], [&[5], &[5]], &[5]);
    exactly(&[3], [&[5, 6], &[6, 5]], &[5, 6]);
}

#[test]
fn two_numbers_that_enter_a_block_together_are_both_kept() {
    exactly(&[1], [&[2 * BLOCK], &[2 * BLOCK + 1]], &[2 * BLOCK, 2 * BLOCK + 1]);
    exactly(&[1], [&[BLOCK, BLOCK], &[BLOCK + 1]], &[BLOCK, BLOCK + 1]);
}

/// A block displaces an old one on one core, while the other core sees numbers of both again.
const TURNOVER: (&[u64], [&[u64]; 2]) = (&[1], [&[2 * BLOCK], &[1, 2 * BLOCK + 1]]);
/// Two blocks of the same word are entered at once.
const OVERTAKING: (&[u64], [&[u64]; 2]) = (&[1], [&[2 * BLOCK, 1], &[4 * BLOCK, 2 * BLOCK]]);

#[test]
fn turnover_of_a_block_accepts_nothing_twice() {
    explore::<Window>(TURNOVER.0, TURNOVER.1);
}

#[test]
fn overtaken_block_accepts_nothing_twice() {
    explore::<Window>(OVERTAKING.0, OVERTAKING.1);
}

#[test]
#[should_panic(expected = "accepted twice")]
fn mutant_cleared_before_the_top_is_found() {
    explore::<Clearing<true>>(TURNOVER.0, TURNOVER.1);
}

#[test]
#[should_panic(expected = "accepted twice")]
fn mutant_cleared_after_the_top_is_found() {
    explore::<Clearing<false>>(TURNOVER.0, TURNOVER.1);
}

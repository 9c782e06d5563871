//! Criterion micro-benchmarks of the anti-replay window, as one core meets it: check, open, accept.
#![allow(missing_docs, reason = "criterion's macros make undocumented functions")]

use std::hint::black_box;
use std::sync::atomic::AtomicU64;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use tandem_esp::window::{Verdict, WINDOW, accept, check};

/// Numbers of one iteration.
const NUMBERS: u64 = 1024;

struct Window {
    top: AtomicU64,
    words: [AtomicU64; tandem_shm::WINDOW_WORDS],
}

impl Window {
    fn new() -> Self {
        Self { top: AtomicU64::new(0), words: [const { AtomicU64::new(0) }; tandem_shm::WINDOW_WORDS] }
    }

    /// How many of the numbers were fresh.
    fn take(&self, numbers: impl Iterator<Item = u64>) -> u64 {
        numbers
            .filter(|&number| {
                let number = black_box(number);
                check(&self.top, &self.words, number) == Verdict::Fresh
                    && accept(&self.top, &self.words, number) == Verdict::Fresh
            })
            .count() as u64
    }
}

fn window(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("window");
    group.throughput(Throughput::Elements(NUMBERS));

    let in_order = Window::new();
    let mut next = 1;
    group.bench_function("in order", |bencher| {
        bencher.iter(|| {
            next += NUMBERS;
            in_order.take(next - NUMBERS..next)
        });
    });

    // Neighbours change places at a distance of 16, as two links of different delay would have it.
    let reordered = Window::new();
    let mut next = 1;
    group.bench_function("reordered", |bencher| {
        bencher.iter(|| {
            next += NUMBERS;
            reordered.take((next - NUMBERS..next).map(|number| number ^ 16))
        });
    });

    let replayed = || {
        let window = Window::new();
        window.take(1..=NUMBERS);
        window
    };
    assert!(NUMBERS < u64::from(WINDOW), "what is replayed must still be in the window");
    group.bench_function("replayed", |bencher| {
        bencher.iter_batched_ref(replayed, |window| window.take(1..=NUMBERS), BatchSize::SmallInput);
    });
    group.finish();
}

criterion_group!(benches, window);
criterion_main!(benches);

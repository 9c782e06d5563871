//! Criterion micro-benchmarks of the AEAD providers: for work on one of them, before and after a change.
//!
//! They know nothing of noise on the machine; what counts is `benches/run aead`.
#![allow(missing_docs, reason = "criterion's macros make undocumented functions")]

use arrayvec::ArrayVec;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use tandem_aead::{Aad, Algorithm, SealJob, Segments, available};

const BURST: usize = 32;

fn seal(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("seal/aes128gcm/burst of 32");
    for size in [64, 512, 1420] {
        group.throughput(Throughput::Elements(BURST as u64));
        for name in available() {
            let mut provider = tandem_aead::provider(name).expect("a listed provider");
            let key = provider.key(Algorithm::Aes128Gcm, &[7; 16]).expect("a key of 16 octets");
            let mut texts = vec![vec![0u8; size]; BURST];
            let mut tags = [[0u8; 16]; BURST];
            let mut number = 0u32;
            group.bench_function(BenchmarkId::new(name, size), |bencher| {
                bencher.iter(|| {
                    let mut jobs: ArrayVec<SealJob<'_>, BURST> = ArrayVec::new();
                    for (text, tag) in texts.iter_mut().zip(&mut tags) {
                        number = number.wrapping_add(1);
                        let mut nonce = [0; 12];
                        nonce[8..].copy_from_slice(&number.to_be_bytes());
                        let (aad, text) = (Aad::esp(0x100, number), Segments::one(text));
                        jobs.push(SealJob { key: &key, nonce, aad, text, tag });
                    }
                    provider.seal(&mut jobs);
                });
            });
        }
    }
    group.finish();
}

criterion_group!(benches, seal);
criterion_main!(benches);

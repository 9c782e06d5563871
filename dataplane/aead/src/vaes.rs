//! The project's own multi-packet AES-GCM for CPUs with AVX-512, VAES and VPCLMULQDQ.
//!
//! A library that takes one packet at a time waits for the latency of AES and of GHASH in every short packet.
//! Here a burst is sorted by length, and up to eight packets of similar length go through the rounds in
//! lockstep (`kernel`), so that one packet's latency is filled with the others' work; what is per packet and
//! small (tag masks, AAD and length blocks, reductions) is done for four packets in one register.
//!
//! - `key`: AES round keys and powers of the hash key.
//! - `ghash`: products and their reduction; the bit order that they are in.
//! - `kernel`: N packets in lockstep.
//!
//! No branch and no index depends on keys or texts, only on lengths and on which packets share a key. Packets
//! in several segments, and packets with another provider's key, go one by one.
#![allow(unsafe_code)] // Loads and stores of registers, and calls of functions for CPU features found at run time.

mod ghash;
mod kernel;
mod key;

use std::slice;

use arrayvec::ArrayVec;

use crate::gather::Scratch;
use crate::job::{Aad, NONCE_LEN, OpenJob, SealJob, Segments, TAG_LEN};
use crate::key::{self as any_key, Algorithm, Key, KeyError};
use crate::{BURST, Provider, Verdicts};
use kernel::Packet;
pub(crate) use key::Schedule;

pub(crate) const NAME: &str = "vaes";

/// NIST SP 800-38D section 5.2.1.1: the most octets of text, 2^36 - 32.
const MAX_TEXT: u64 = (1 << 36) - 32;

/// Packets in one register-interleaved group.
const LANES: usize = 8;

/// Proof that this CPU has every instruction that this module uses.
#[derive(Clone, Copy)]
pub(crate) struct Cpu(());

impl Cpu {
    /// `None` where an instruction is missing.
    pub(crate) fn detect() -> Option<Self> {
        let found = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("vaes")
            && is_x86_feature_detected!("vpclmulqdq");
        found.then_some(Cpu(()))
    }
}

pub(crate) struct Vaes {
    cpu: Cpu,
    scratch: Scratch,
}

impl Vaes {
    pub(crate) fn new(cpu: Cpu) -> Self {
        Vaes { cpu, scratch: Scratch::new() }
    }
}

impl Provider for Vaes {
    fn name(&self) -> &'static str {
        NAME
    }

    fn key(&self, algorithm: Algorithm, bytes: &[u8]) -> Result<Key, KeyError> {
        KeyError::check(algorithm, bytes)?;
        Ok(Key::new(algorithm, any_key::Schedule::Vaes(Schedule::new(self.cpu, bytes))))
    }

    fn seal(&mut self, burst: &mut [SealJob<'_>]) {
        for burst in burst.chunks_mut(BURST) {
            let mut batch = Batch::new();
            for job in burst {
                if !suits(job.key, &mut job.text) {
                    self.scratch.seal_each(slice::from_mut(job));
                } else if let (Some(key), Some(text)) = (job.key.vaes(), job.text.contiguous()) {
                    batch.push(Packet { key, nonce: &job.nonce, aad: &job.aad, text }, &mut *job.tag);
                }
            }
            batch.run::<false>(|_, made, tag| **tag = *made);
        }
    }

    fn open(&mut self, burst: &mut [OpenJob<'_>]) -> Verdicts {
        let mut verdicts = Verdicts::default();
        let mut batch = Batch::new();
        for (index, job) in burst.iter_mut().take(BURST).enumerate() {
            if !suits(job.key, &mut job.text) {
                if self.scratch.open_each(slice::from_mut(job)).is_authentic(0) {
                    verdicts.set(index);
                }
            } else if let (Some(key), Some(text)) = (job.key.vaes(), job.text.contiguous()) {
                batch.push(Packet { key, nonce: &job.nonce, aad: &job.aad, text }, (index, job.tag));
            }
        }
        batch.run::<true>(|text, made, (index, tag)| {
            if same(made, tag) {
                verdicts.set(*index);
            } else {
                text.fill(0);
            }
        });
        verdicts
    }
}

/// Whether a packet can be batched.
#[inline]
fn suits(key: &Key, text: &mut Segments<'_>) -> bool {
    key.vaes().is_some() && text.contiguous().is_some_and(|text| text.len() as u64 <= MAX_TEXT)
}

/// Compares tags in a time that does not depend on where they differ.
#[inline]
fn same(a: &[u8; TAG_LEN], b: &[u8; TAG_LEN]) -> bool {
    std::hint::black_box(u128::from_ne_bytes(*a) ^ u128::from_ne_bytes(*b)) == 0
}

/// Packets that go through the kernel in groups of similar length, each with what `T` says of its tag.
struct Batch<'a, T> {
    packets: ArrayVec<(Packet<'a>, T), BURST>,
    /// One number for each packet, to be sorted: see [`Batch::push`].
    order: ArrayVec<u64, BURST>,
}

/// Bits of a number in `order` that are the index of the packet.
const INDEX_BITS: u32 = 8;
const _: () = assert!(BURST <= 1 << INDEX_BITS);

impl<'a, T> Batch<'a, T> {
    fn new() -> Self {
        Batch { packets: ArrayVec::new(), order: ArrayVec::new() }
    }

    /// Adds a packet. There is room for [`BURST`].
    #[inline]
    fn push(&mut self, packet: Packet<'a>, tag: T) {
        // Number of rounds first, then 64-octet chunks, then index: neighbours after sorting can share a group.
        let long_key = u64::from(packet.key.rounds() == key::ROUNDS_256);
        let chunks = packet.text.len().div_ceil(kernel::CHUNK) as u64;
        let index = self.packets.len() as u64;
        if self.packets.try_push((packet, tag)).is_ok() {
            self.order.push(long_key << 63 | chunks << INDEX_BITS | index);
        }
    }

    /// Seals or opens everything; `done` gets each packet's text, the tag that was computed, and its `T`.
    fn run<const OPEN: bool>(mut self, mut done: impl FnMut(&mut [u8], &[u8; TAG_LEN], &mut T)) {
        self.order.sort_unstable();
        let mut rest = &self.order[..];
        while let Some(&first) = rest.first() {
            // Lockstep lasts as long as the longest of a group. A little waste is cheaper than a group of one.
            let shortest = first >> INDEX_BITS;
            let longest = shortest + 1 + (shortest & 0xffff_ffff) / 4;
            let similar =
                rest.iter().take(LANES).take_while(|number| **number >> INDEX_BITS <= longest).count();
            let lanes = match similar {
                LANES.. => LANES,
                4.. => 4,
                _ => 1,
            };
            let (group, later) = rest.split_at(lanes);
            rest = later;
            match lanes {
                LANES => run_group::<T, LANES, OPEN>(&mut self.packets, group, &mut done),
                4 => run_group::<T, 4, OPEN>(&mut self.packets, group, &mut done),
                _ => run_group::<T, 1, OPEN>(&mut self.packets, group, &mut done),
            }
        }
    }
}

/// Runs the N packets that `group` names in lockstep.
#[inline]
fn run_group<T, const N: usize, const OPEN: bool>(
    packets: &mut [(Packet<'_>, T)],
    group: &[u64],
    done: &mut impl FnMut(&mut [u8], &[u8; TAG_LEN], &mut T),
) {
    let mut indices = [0; N];
    for (index, number) in indices.iter_mut().zip(group) {
        *index = (number & ((1 << INDEX_BITS) - 1)) as usize;
    }
    let Ok(mut group) = packets.get_disjoint_mut(indices) else { return };
    let tags = lockstep::<N, OPEN>(group.each_mut().map(|(packet, _)| packet));
    for ((packet, tag), made) in group.into_iter().zip(&tags) {
        done(packet.text, made, tag);
    }
}

/// Picks the kernel for N packets of one number of rounds.
#[inline]
fn lockstep<const N: usize, const OPEN: bool>(packets: [&mut Packet<'_>; N]) -> [[u8; TAG_LEN]; N] {
    let first = packets[0].key;
    let one_key = packets.iter().all(|packet| std::ptr::eq(packet.key, first));
    // SAFETY: a `Schedule` is made only with a `Cpu`, so this CPU has the features that the kernels are
    // compiled for. They ask for nothing else.
    unsafe {
        match (first.rounds(), one_key) {
            (key::ROUNDS_128, true) => kernel::crypt::<{ key::ROUNDS_128 }, N, true, OPEN>(packets),
            (key::ROUNDS_128, false) => kernel::crypt::<{ key::ROUNDS_128 }, N, false, OPEN>(packets),
            (_, true) => kernel::crypt::<{ key::ROUNDS_256 }, N, true, OPEN>(packets),
            (_, false) => kernel::crypt::<{ key::ROUNDS_256 }, N, false, OPEN>(packets),
        }
    }
}

impl Schedule {
    /// Seals one packet in place; false where the text is longer than GCM allows.
    pub(crate) fn seal(
        &self,
        nonce: &[u8; NONCE_LEN],
        aad: &Aad,
        text: &mut [u8],
        tag: &mut [u8; TAG_LEN],
    ) -> bool {
        if text.len() as u64 > MAX_TEXT {
            return false;
        }
        [*tag] = lockstep::<1, false>([&mut Packet { key: self, nonce, aad, text }]);
        true
    }

    /// Opens one packet in place; true where authentic.
    pub(crate) fn open(
        &self,
        nonce: &[u8; NONCE_LEN],
        aad: &Aad,
        text: &mut [u8],
        tag: &[u8; TAG_LEN],
    ) -> bool {
        if text.len() as u64 > MAX_TEXT {
            return false;
        }
        let [made] = lockstep::<1, true>([&mut Packet { key: self, nonce, aad, text }]);
        same(&made, tag)
    }
}

//! N packets in lockstep.
//!
//! A register holds 64 octets of one packet, a chunk: four blocks. All packets go through chunk 0, then through
//! chunk 1, and so on; what is computed past a packet's end is not used.
//!
//! GHASH sums products of blocks and descending powers of the hash key. The powers that a key keeps suffice for
//! a stride of 32 blocks, so the sum is reduced after each: the result counts as a block in front of the next
//! stride's first, with the same power, just as the AAD counts as a block with the next higher power.
//!
//! ```text
//! one stride:  AAD*G^(n+2) + C1*G^(n+1) + .. + Cn*G^2 + lengths*G        (n blocks of text)
//! others:      (Y + C1)*G^32 + C2*G^31 + .. + C32*G, then reduced: Y
//! ```
#![allow(clippy::needless_range_loop)] // One index goes through many arrays at once, which is what lockstep is.

use std::arch::x86_64::*;

use super::LANES;
use super::ghash::{Product, reverse};
use super::key::{HIGHEST, Schedule, load, store};
use crate::job::{Aad, NONCE_LEN, TAG_LEN};

/// Octets of one register.
pub(super) const CHUNK: usize = 64;
/// Chunks of text between two reductions.
const STRIDE: usize = 8;
/// Blocks of text between two reductions.
pub(super) const STRIDE_BLOCKS: usize = STRIDE * CHUNK / 16;

/// Packets of which each has one lane of a register.
const QUAD: usize = 4;
const QUADS: usize = LANES / QUAD;

/// One packet in one piece, of at most 2^36 - 32 octets.
pub(super) struct Packet<'a> {
    pub(super) key: &'a Schedule,
    pub(super) nonce: &'a [u8; NONCE_LEN],
    pub(super) aad: &'a Aad,
    pub(super) text: &'a mut [u8],
}

/// Encrypts (or decrypts, where `OPEN`) the texts in place, and gives the tags. Every key must have `ROUNDS`
/// rounds; where `ONE_KEY`, it is the same for all packets.
#[target_feature(enable = "avx512bw,avx512dq,avx512vl,vaes,vpclmulqdq")]
pub(super) fn crypt<const ROUNDS: usize, const N: usize, const ONE_KEY: bool, const OPEN: bool>(
    packets: [&mut Packet<'_>; N],
) -> [[u8; TAG_LEN]; N] {
    const { assert!(N <= LANES) };
    let keys: [&Schedule; N] = std::array::from_fn(|i| packets[if ONE_KEY { 0 } else { i }].key);
    let mut nonces = [_mm512_setzero_si512(); N];
    for i in 0..N {
        nonces[i] = _mm512_broadcast_i32x4(load_nonce(packets[i].nonce));
    }
    let masks = tag_masks::<ROUNDS, N, ONE_KEY>(&keys, &nonces);
    let aads = packets.each_ref().map(|packet| packet.aad);
    let texts = packets.map(|packet| &mut *packet.text);
    let lengths = texts.each_ref().map(|text| text.len());
    let (mut shortest, mut longest) = (lengths[0], 0);

    // What counts as a block in front of a stride: the AAD, for the first.
    let mut seeds = [_mm_setzero_si128(); LANES];
    for i in 0..N {
        shortest = shortest.min(lengths[i]);
        longest = longest.max(lengths[i]);
        seeds[i] = load(aads[i].block());
    }
    let mut seeds = join_quads(&seeds);
    for quad in 0..QUADS {
        seeds[quad] = reverse(seeds[quad]);
    }
    let mut hashes = [_mm512_setzero_si512(); QUADS];
    // The counter block of chunk 0 has the counters 2 to 5: GCM's first one, 1, is the tag's.
    let mut counters = _mm512_set_epi32(5, 0, 0, 0, 4, 0, 0, 0, 3, 0, 0, 0, 2, 0, 0, 0);

    let strides = longest.div_ceil(STRIDE * CHUNK).max(1);
    for stride in 0..strides {
        let begin = stride * STRIDE * CHUNK;
        let chunks = (longest - begin).div_ceil(CHUNK).min(STRIDE);

        // Seeds and length blocks of four packets at once, with the powers that each needs.
        let mut at = [0; N];
        let mut seed_powers = [_mm_setzero_si128(); LANES];
        let mut first_powers = [_mm_setzero_si128(); LANES];
        let mut ends = [_mm_setzero_si128(); LANES];
        let mut going_on = [0; QUADS];
        for i in 0..N {
            let left = lengths[i].div_ceil(16).saturating_sub(stride * STRIDE_BLOCKS);
            let power = if left > STRIDE_BLOCKS {
                going_on[i / QUAD] |= 0b11 << (2 * (i % QUAD));
                STRIDE_BLOCKS
            } else {
                if left > 0 || stride == 0 {
                    let bits = |octets: usize| (octets as u64 * 8) as i64;
                    ends[i] = _mm_set_epi64x(bits(aads[i].as_bytes().len()), bits(lengths[i]));
                }
                left + 1
            };
            at[i] = HIGHEST - power;
            seed_powers[i] = keys[i].power(power + usize::from(stride == 0));
            first_powers[i] = keys[i].power(1);
        }
        let (seed_powers, first_powers) = (join_quads(&seed_powers), join_quads(&first_powers));
        let ends = join_quads(&ends);

        let mut products = [Product::zero(); LANES];
        for chunk in 0..chunks {
            let big_endian = counter_octets(counters);
            counters = _mm512_add_epi32(counters, _mm512_broadcast_i32x4(_mm_set_epi32(4, 0, 0, 0)));
            let mut stream = [big_endian; N];
            for i in 0..N {
                stream[i] = _mm512_or_si512(nonces[i], big_endian);
            }
            encrypt::<ROUNDS, N, ONE_KEY>(&keys, &mut stream);
            let offset = begin + chunk * CHUNK;
            if offset + CHUNK <= shortest {
                for i in 0..N {
                    // SAFETY: every text has `shortest` octets, so it has those from `offset` to
                    // `offset + CHUNK`; arrays of octets need no alignment.
                    let text = unsafe { &mut *texts[i].as_mut_ptr().add(offset).cast() };
                    let cipher = apply::<OPEN>(text, stream[i]);
                    products[i].add(reverse(cipher), keys[i].four_powers(at[i] + chunk * QUAD));
                }
            } else {
                for i in 0..N {
                    let Some(text) = texts[i].get_mut(offset..) else { continue };
                    let cipher = apply_to_rest::<OPEN>(text, stream[i]);
                    products[i].add(reverse(cipher), keys[i].four_powers(at[i] + chunk * QUAD));
                }
            }
        }

        let (quads, _) = products.as_chunks::<QUAD>();
        for quad in 0..N.div_ceil(QUAD) {
            let mut sum = Product::zero();
            sum.add(seeds[quad], seed_powers[quad]);
            sum.add(ends[quad], first_powers[quad]);
            sum.add_lanes_of(&quads[quad]);
            let reduced = sum.reduce();
            seeds[quad] = _mm512_maskz_mov_epi64(going_on[quad], reduced);
            // A packet that has ended before has had nothing but zeros added since.
            hashes[quad] = _mm512_xor_si512(hashes[quad], _mm512_maskz_mov_epi64(!going_on[quad], reduced));
        }
    }

    let mut tags = [[[0; TAG_LEN]; QUAD]; QUADS];
    for quad in 0..N.div_ceil(QUAD) {
        tags[quad] = split(_mm512_xor_si512(reverse(hashes[quad]), masks[quad]));
    }
    std::array::from_fn(|i| tags[i / QUAD][i % QUAD])
}

/// AES on four blocks of each packet.
#[inline]
#[target_feature(enable = "avx512bw,avx512dq,avx512vl,vaes,vpclmulqdq")]
fn encrypt<const ROUNDS: usize, const N: usize, const ONE_KEY: bool>(
    keys: &[&Schedule; N],
    blocks: &mut [__m512i; N],
) {
    let key = |i: usize| keys[if ONE_KEY { 0 } else { i }];
    for i in 0..N {
        blocks[i] = _mm512_xor_si512(blocks[i], _mm512_broadcast_i32x4(key(i).round_key(0)));
    }
    for round in 1..ROUNDS {
        for i in 0..N {
            let round_key = _mm512_broadcast_i32x4(key(i).round_key(round));
            blocks[i] = _mm512_aesenc_epi128(blocks[i], round_key);
        }
    }
    for i in 0..N {
        blocks[i] = _mm512_aesenclast_epi128(blocks[i], _mm512_broadcast_i32x4(key(i).round_key(ROUNDS)));
    }
}

/// E(K, J0) of NIST SP 800-38D section 7.1, which hides the hash: nonce and counter 1, a lane for each packet.
#[inline]
#[target_feature(enable = "avx512bw,avx512dq,avx512vl,vaes,vpclmulqdq")]
fn tag_masks<const ROUNDS: usize, const N: usize, const ONE_KEY: bool>(
    keys: &[&Schedule; N],
    nonces: &[__m512i; N],
) -> [__m512i; QUADS] {
    let one = _mm_set_epi32(0x0100_0000, 0, 0, 0);
    let mut lanes = [_mm_setzero_si128(); LANES];
    for i in 0..N {
        lanes[i] = _mm_or_si128(_mm512_castsi512_si128(nonces[i]), one);
    }
    if ONE_KEY {
        // Blocks of four packets fit in one register, since every lane takes the same round key.
        let mut joined = join_quads(&lanes);
        if N > QUAD {
            encrypt::<ROUNDS, QUADS, true>(&[keys[0]; QUADS], &mut joined);
        } else {
            let mut first = [joined[0]];
            encrypt::<ROUNDS, 1, true>(&[keys[0]], &mut first);
            [joined[0]] = first;
        }
        return joined;
    }
    for i in 0..N {
        lanes[i] = _mm_xor_si128(lanes[i], keys[i].round_key(0));
    }
    for round in 1..ROUNDS {
        for i in 0..N {
            lanes[i] = _mm_aesenc_si128(lanes[i], keys[i].round_key(round));
        }
    }
    for i in 0..N {
        lanes[i] = _mm_aesenclast_si128(lanes[i], keys[i].round_key(ROUNDS));
    }
    join_quads(&lanes)
}

/// Adds the key stream to 64 octets of text, and gives the ciphertext.
#[inline]
#[target_feature(enable = "avx512bw,avx512dq,avx512vl,vaes,vpclmulqdq")]
fn apply<const OPEN: bool>(text: &mut [u8; CHUNK], stream: __m512i) -> __m512i {
    // SAFETY: the reference is to 64 octets; loads need no alignment.
    let before = unsafe { _mm512_loadu_si512(text.as_ptr().cast()) };
    let after = _mm512_xor_si512(before, stream);
    // SAFETY: the reference is to 64 octets; stores need no alignment.
    unsafe { _mm512_storeu_si512(text.as_mut_ptr().cast(), after) };
    if OPEN { before } else { after }
}

/// Adds the key stream to the first 64 octets of `text`, or to all where there are fewer, and gives the
/// ciphertext, with zeros behind its end.
#[inline]
#[target_feature(enable = "avx512bw,avx512dq,avx512vl,vaes,vpclmulqdq")]
fn apply_to_rest<const OPEN: bool>(text: &mut [u8], stream: __m512i) -> __m512i {
    if let Some(whole) = text.first_chunk_mut() {
        return apply::<OPEN>(whole, stream);
    }
    // Fewer than 64, so the shift is in range.
    let mask = (1 << text.len()) - 1;
    // SAFETY: octets that are not in the mask are not read, and those in it are the octets of `text`.
    let before = unsafe { _mm512_maskz_loadu_epi8(mask, text.as_ptr().cast()) };
    let after = _mm512_maskz_mov_epi8(mask, _mm512_xor_si512(before, stream));
    // SAFETY: octets that are not in the mask are not written, and those in it are the octets of `text`.
    unsafe { _mm512_mask_storeu_epi8(text.as_mut_ptr().cast(), mask, after) };
    if OPEN { before } else { after }
}

/// The upper 32 bits of each lane, which count, as octets in big-endian order (NIST SP 800-38D section 6.2).
#[inline]
#[target_feature(enable = "avx512bw,avx512dq,avx512vl,vaes,vpclmulqdq")]
fn counter_octets(counters: __m512i) -> __m512i {
    let order = _mm_set_epi8(12, 13, 14, 15, 8, 9, 10, 11, 4, 5, 6, 7, 0, 1, 2, 3);
    _mm512_shuffle_epi8(counters, _mm512_broadcast_i32x4(order))
}

/// The nonce, with zeros in the place of the counter.
#[inline]
#[target_feature(enable = "avx512bw,avx512dq,avx512vl,vaes,vpclmulqdq")]
fn load_nonce(nonce: &[u8; NONCE_LEN]) -> __m128i {
    // SAFETY: octets that are not in the mask are not read, and those in it are the 12 of the nonce.
    unsafe { _mm_maskz_loadu_epi8((1 << NONCE_LEN) - 1, nonce.as_ptr().cast()) }
}

/// One block of each packet, one lane for each.
#[inline]
#[target_feature(enable = "avx512bw,avx512dq,avx512vl,vaes,vpclmulqdq")]
fn join_quads(blocks: &[__m128i; LANES]) -> [__m512i; QUADS] {
    let [a, b, c, d, e, f, g, h] = *blocks;
    [join(a, b, c, d), join(e, f, g, h)]
}

#[inline]
#[target_feature(enable = "avx512bw,avx512dq,avx512vl,vaes,vpclmulqdq")]
fn join(a: __m128i, b: __m128i, c: __m128i, d: __m128i) -> __m512i {
    let low = _mm256_inserti128_si256::<1>(_mm256_castsi128_si256(a), b);
    let high = _mm256_inserti128_si256::<1>(_mm256_castsi128_si256(c), d);
    _mm512_inserti64x4::<1>(_mm512_castsi256_si512(low), high)
}

#[inline]
#[target_feature(enable = "avx512bw,avx512dq,avx512vl,vaes,vpclmulqdq")]
fn split(lanes: __m512i) -> [[u8; 16]; QUAD] {
    [
        store(_mm512_castsi512_si128(lanes)),
        store(_mm512_extracti32x4_epi32::<1>(lanes)),
        store(_mm512_extracti32x4_epi32::<2>(lanes)),
        store(_mm512_extracti32x4_epi32::<3>(lanes)),
    ]
}

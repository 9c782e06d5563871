//! AES round keys, and powers of the hash key.

use std::arch::x86_64::*;

use zeroize::Zeroize;

use super::Cpu;
use super::ghash;

/// Rounds of AES-128, FIPS 197 section 5.
pub(super) const ROUNDS_128: usize = 10;
/// Rounds of AES-256, FIPS 197 section 5.
pub(super) const ROUNDS_256: usize = 14;

/// The highest power of the hash key: blocks of one stride (see `kernel`), a length block and an AAD block.
pub(super) const HIGHEST: usize = super::kernel::STRIDE_BLOCKS + 2;
/// The powers, and behind the first power what a load of four may read too: zeros.
const TABLE: usize = HIGHEST + 4;

/// What is computed from one key, in a block of its own that is wiped when it is freed.
pub(crate) struct Schedule(Box<Tables>);

#[repr(C, align(64))]
struct Tables {
    /// `powers[HIGHEST - k]` is the k-th power of the POLYVAL key, so four descending powers are one load.
    powers: [[u8; 16]; TABLE],
    /// FIPS 197 section 5.2: four words, octets in their order in memory, for each of `rounds + 1` rounds.
    round_keys: [[u32; 4]; ROUNDS_256 + 1],
    rounds: usize,
}

impl Drop for Tables {
    fn drop(&mut self) {
        self.powers.zeroize();
        self.round_keys.zeroize();
    }
}

impl Schedule {
    /// The schedule for a key of 16 octets (AES-128) or 32 (AES-256).
    pub(super) fn new(_cpu: Cpu, key: &[u8]) -> Self {
        let rounds = if key.len() == 16 { ROUNDS_128 } else { ROUNDS_256 };
        let mut tables =
            Box::new(Tables { powers: [[0; 16]; TABLE], round_keys: [[0; 4]; ROUNDS_256 + 1], rounds });
        // SAFETY: `_cpu` proves that this CPU has the features that the function is compiled for.
        unsafe { tables.fill(key) };
        Schedule(tables)
    }

    #[inline]
    pub(super) fn rounds(&self) -> usize {
        self.0.rounds
    }

    /// The key of round `round` (0 to `rounds`).
    #[inline]
    #[target_feature(enable = "avx512bw,avx512dq,avx512vl,vaes,vpclmulqdq")]
    pub(super) fn round_key(&self, round: usize) -> __m128i {
        load_words(&self.0.round_keys[round])
    }

    /// The power `power` (1 to [`HIGHEST`]) of the POLYVAL key; the nearest of those for another `power`.
    #[inline]
    #[target_feature(enable = "avx512bw,avx512dq,avx512vl,vaes,vpclmulqdq")]
    pub(super) fn power(&self, power: usize) -> __m128i {
        load(&self.0.powers[HIGHEST - power.clamp(1, HIGHEST)])
    }

    /// The powers `highest`, `highest - 1`, and so on, in lanes 0 to 3, where `highest` is `HIGHEST - at`; zero
    /// for those below the first.
    #[inline]
    #[target_feature(enable = "avx512bw,avx512dq,avx512vl,vaes,vpclmulqdq")]
    pub(super) fn four_powers(&self, at: usize) -> __m512i {
        let at = at.min(TABLE - 4);
        // SAFETY: entries `at` to `at + 3` are in the table, which lives as long as `self`; loads need no
        // alignment.
        unsafe { _mm512_loadu_si512(self.0.powers.as_ptr().add(at).cast()) }
    }
}

impl Tables {
    #[target_feature(enable = "avx512bw,avx512dq,avx512vl,vaes,vpclmulqdq")]
    fn fill(&mut self, key: &[u8]) {
        self.expand(key);
        // H is the zero block, encrypted.
        let mut h = load_words(&self.round_keys[0]);
        for round in &self.round_keys[1..self.rounds] {
            h = _mm_aesenc_si128(h, load_words(round));
        }
        h = _mm_aesenclast_si128(h, load_words(&self.round_keys[self.rounds]));
        let first = load(&ghash::polyval_key(store(h)));
        let mut power = first;
        for entry in self.powers[..HIGHEST].iter_mut().rev() {
            *entry = store(power);
            power = ghash::dot(power, first);
        }
    }

    /// FIPS 197 section 5.2. Words are little endian here, so a rotation to the left is one to the right.
    #[target_feature(enable = "avx512bw,avx512dq,avx512vl,vaes,vpclmulqdq")]
    fn expand(&mut self, key: &[u8]) {
        let words = self.round_keys.as_flattened_mut();
        let in_key = key.len() / 4;
        for (word, octets) in words.iter_mut().zip(key.as_chunks().0) {
            *word = u32::from_le_bytes(*octets);
        }
        let mut round_constant = 1u32;
        for i in in_key..4 * (self.rounds + 1) {
            let mut word = words[i - 1];
            if i % in_key == 0 {
                word = substitute(word).rotate_right(8) ^ round_constant;
                // Public: 1, 2, 4 .. 0x80, 0x1b, 0x36.
                round_constant = if round_constant == 0x80 { 0x1b } else { round_constant << 1 };
            } else if in_key == 8 && i % in_key == 4 {
                word = substitute(word);
            }
            words[i] = words[i - in_key] ^ word;
        }
    }
}

/// The S-box on each octet, by the instruction instead of a table, whose lines would tell what was looked up.
#[inline]
#[target_feature(enable = "avx512bw,avx512dq,avx512vl,vaes,vpclmulqdq")]
fn substitute(word: u32) -> u32 {
    _mm_cvtsi128_si32(_mm_aeskeygenassist_si128::<0>(_mm_set1_epi32(word as i32))) as u32
}

#[inline]
#[target_feature(enable = "avx512bw,avx512dq,avx512vl,vaes,vpclmulqdq")]
pub(super) fn load(block: &[u8; 16]) -> __m128i {
    // SAFETY: the reference is to 16 octets; loads need no alignment.
    unsafe { _mm_loadu_si128(block.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx512bw,avx512dq,avx512vl,vaes,vpclmulqdq")]
fn load_words(words: &[u32; 4]) -> __m128i {
    // SAFETY: the reference is to 16 octets; loads need no alignment.
    unsafe { _mm_loadu_si128(words.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx512bw,avx512dq,avx512vl,vaes,vpclmulqdq")]
pub(super) fn store(block: __m128i) -> [u8; 16] {
    let mut octets = [0; 16];
    // SAFETY: the reference is to 16 octets; stores need no alignment.
    unsafe { _mm_storeu_si128(octets.as_mut_ptr().cast(), block) };
    octets
}

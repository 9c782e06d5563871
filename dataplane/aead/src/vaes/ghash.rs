//! GHASH as carry-less products of 128-bit lanes.
//!
//! GHASH numbers the bits of a block backwards. With the octets of every block reversed it becomes POLYVAL
//! (RFC 8452 appendix A), whose bit order is that of the CPU:
//!
//! ```text
//! GHASH(H, X1..Xn) = rev(POLYVAL(x * rev(H), rev(X1)..rev(Xn)))
//! POLYVAL(G, X1..Xn) = X1*G^n + X2*G^(n-1) + .. + Xn*G
//! ```
//!
//! where `a * b` stands for `a b x^-128` modulo x^128 + x^127 + x^126 + x^121 + 1, which is what [`dot`] and
//! [`Product::reduce`] compute (a Montgomery reduction: the factor x^-128 makes it two products, without
//! shifts). Everything up to the reduction is linear, so products of many blocks are added first and reduced
//! once.

use std::arch::x86_64::*;

/// The upper half of the reduction polynomial without x^128: x^127 + x^126 + x^121.
const POLYNOMIAL: i64 = 0xc200_0000_0000_0000_u64 as i64;

/// In each of the four lanes a 256-bit sum of unreduced products: `low + middle x^64 + high x^128`.
#[derive(Clone, Copy)]
pub(super) struct Product {
    low: __m512i,
    middle: __m512i,
    high: __m512i,
}

impl Product {
    #[inline]
    #[target_feature(enable = "avx512bw,avx512dq,avx512vl,vaes,vpclmulqdq")]
    pub(super) fn zero() -> Self {
        let zero = _mm512_setzero_si512();
        Product { low: zero, middle: zero, high: zero }
    }

    /// Adds `a` times `b`, lane by lane.
    #[inline]
    #[target_feature(enable = "avx512bw,avx512dq,avx512vl,vaes,vpclmulqdq")]
    pub(super) fn add(&mut self, a: __m512i, b: __m512i) {
        self.low = _mm512_xor_si512(self.low, _mm512_clmulepi64_epi128::<0x00>(a, b));
        self.high = _mm512_xor_si512(self.high, _mm512_clmulepi64_epi128::<0x11>(a, b));
        self.middle =
            xor3(self.middle, _mm512_clmulepi64_epi128::<0x01>(a, b), _mm512_clmulepi64_epi128::<0x10>(a, b));
    }

    /// Adds to lane `i` the sum of the four lanes of `packets[i]`.
    #[inline]
    #[target_feature(enable = "avx512bw,avx512dq,avx512vl,vaes,vpclmulqdq")]
    pub(super) fn add_lanes_of(&mut self, packets: &[Product; 4]) {
        let [a, b, c, d] = packets;
        self.low = _mm512_xor_si512(self.low, lane_sums(a.low, b.low, c.low, d.low));
        self.middle = _mm512_xor_si512(self.middle, lane_sums(a.middle, b.middle, c.middle, d.middle));
        self.high = _mm512_xor_si512(self.high, lane_sums(a.high, b.high, c.high, d.high));
    }

    /// Each lane times x^-128, modulo the polynomial.
    #[inline]
    #[target_feature(enable = "avx512bw,avx512dq,avx512vl,vaes,vpclmulqdq")]
    pub(super) fn reduce(self) -> __m512i {
        let polynomial = _mm512_broadcast_i32x4(_mm_set_epi64x(POLYNOMIAL, 1));
        let low = _mm512_xor_si512(self.low, _mm512_bslli_epi128::<8>(self.middle));
        let high = _mm512_xor_si512(self.high, _mm512_bsrli_epi128::<8>(self.middle));
        // Twice: the lowest 64 bits times the polynomial cancel themselves, and what remains moves down by 64.
        let folded = _mm512_clmulepi64_epi128::<0x10>(low, polynomial);
        let low = _mm512_xor_si512(folded, _mm512_shuffle_epi32::<0b01_00_11_10>(low));
        let folded = _mm512_clmulepi64_epi128::<0x10>(low, polynomial);
        xor3(high, folded, _mm512_shuffle_epi32::<0b01_00_11_10>(low))
    }
}

/// One product, reduced.
#[inline]
#[target_feature(enable = "avx512bw,avx512dq,avx512vl,vaes,vpclmulqdq")]
pub(super) fn dot(a: __m128i, b: __m128i) -> __m128i {
    let mut product = Product::zero();
    product.add(_mm512_castsi128_si512(a), _mm512_castsi128_si512(b));
    _mm512_castsi512_si128(product.reduce())
}

/// The key of POLYVAL for the key `h` of GHASH: x * rev(h).
pub(super) fn polyval_key(h: [u8; 16]) -> [u8; 16] {
    let h = u128::from_be_bytes(h);
    let carry = (h >> 127).wrapping_neg();
    ((h << 1) ^ (((POLYNOMIAL as u64 as u128) << 64 | 1) & carry)).to_le_bytes()
}

/// Reverses the octets of each lane.
#[inline]
#[target_feature(enable = "avx512bw,avx512dq,avx512vl,vaes,vpclmulqdq")]
pub(super) fn reverse(blocks: __m512i) -> __m512i {
    let order = _mm_set_epi8(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    _mm512_shuffle_epi8(blocks, _mm512_broadcast_i32x4(order))
}

/// The sum of three.
#[inline]
#[target_feature(enable = "avx512bw,avx512dq,avx512vl,vaes,vpclmulqdq")]
fn xor3(a: __m512i, b: __m512i, c: __m512i) -> __m512i {
    _mm512_ternarylogic_epi64::<0x96>(a, b, c)
}

/// Lane 0 is the sum of the lanes of `a`, lane 1 of `b`, lane 2 of `c`, lane 3 of `d`.
#[inline]
#[target_feature(enable = "avx512bw,avx512dq,avx512vl,vaes,vpclmulqdq")]
fn lane_sums(a: __m512i, b: __m512i, c: __m512i, d: __m512i) -> __m512i {
    const LOW_HALVES: i32 = 0b01_00_01_00;
    const HIGH_HALVES: i32 = 0b11_10_11_10;
    const EVEN: i32 = 0b10_00_10_00;
    const ODD: i32 = 0b11_01_11_01;
    let ab =
        _mm512_xor_si512(_mm512_shuffle_i64x2::<LOW_HALVES>(a, b), _mm512_shuffle_i64x2::<HIGH_HALVES>(a, b));
    let cd =
        _mm512_xor_si512(_mm512_shuffle_i64x2::<LOW_HALVES>(c, d), _mm512_shuffle_i64x2::<HIGH_HALVES>(c, d));
    _mm512_xor_si512(_mm512_shuffle_i64x2::<EVEN>(ab, cd), _mm512_shuffle_i64x2::<ODD>(ab, cd))
}

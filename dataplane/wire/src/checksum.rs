//! The Internet checksum (RFC 1071) and its incremental update (RFC 1624).
//!
//! Sums are kept in the byte order of the machine, which the ones-complement sum permits (RFC 1071
//! section 2 B), in 64 bits, so that carries are folded once at the end.

/// Accumulator of a ones-complement sum over several pieces.
///
/// Every piece but the last must have an even number of octets.
#[derive(Clone, Copy, Debug, Default)]
#[must_use]
pub struct Checksum {
    // Sum of 32-bit words as they lie in memory. It takes 2^32 words, 16 GiB, to overflow.
    sum: u64,
}

impl Checksum {
    /// The empty sum.
    pub const fn new() -> Self {
        Self { sum: 0 }
    }

    /// Adds octets; an odd one at the end counts as if a zero octet followed it.
    #[inline]
    pub fn bytes(mut self, bytes: &[u8]) -> Self {
        let (words, rest) = bytes.as_chunks::<4>();
        for word in words {
            self.sum += u64::from(u32::from_ne_bytes(*word));
        }
        let (halves, odd) = rest.as_chunks::<2>();
        for half in halves {
            self.sum += u64::from(u16::from_ne_bytes(*half));
        }
        if let [last] = odd {
            self.sum += u64::from(u16::from_ne_bytes([*last, 0]));
        }
        self
    }

    /// Adds one 16-bit word, given in host byte order.
    #[inline]
    pub fn word(mut self, word: u16) -> Self {
        self.sum += u64::from(word.to_be());
        self
    }

    /// Adds one 32-bit word, such as an address, given in host byte order.
    #[inline]
    pub fn double_word(mut self, word: u32) -> Self {
        self.sum += u64::from(word.to_be());
        self
    }

    /// The folded sum, not complemented, in host byte order.
    #[inline]
    #[must_use]
    pub fn folded(self) -> u16 {
        let mut sum = self.sum;
        sum = (sum & 0xffff_ffff) + (sum >> 32);
        sum = (sum & 0xffff_ffff) + (sum >> 32);
        sum = (sum & 0xffff) + (sum >> 16);
        sum = (sum & 0xffff) + (sum >> 16);
        sum = (sum & 0xffff) + (sum >> 16);
        u16::from_be(sum as u16)
    }

    /// The checksum: the complement of the sum, in host byte order. For UDP, 0 is to be sent as `0xffff`
    /// (RFC 768).
    #[inline]
    #[must_use]
    pub fn finish(self) -> u16 {
        !self.folded()
    }

    /// Did what was summed contain its own, right checksum?
    #[inline]
    #[must_use]
    pub fn is_right(self) -> bool {
        self.folded() == 0xffff
    }
}

/// The ones-complement sum of `bytes`, folded, not complemented, in host byte order.
#[inline]
#[must_use]
pub fn sum(bytes: &[u8]) -> u16 {
    Checksum::new().bytes(bytes).folded()
}

/// Folded sum of an IPv4 header without options: five additions, no loop.
#[inline]
#[must_use]
pub fn sum_20(header: &[u8; 20]) -> u16 {
    Checksum::new().bytes(header).folded()
}

/// The sum over the pseudo-header of UDP and TCP (RFC 768, RFC 9293 section 3.1). Addresses in host byte
/// order, `length` of the transport header and data in octets.
#[inline]
pub fn pseudo_header(source: u32, destination: u32, protocol: u8, length: u16) -> Checksum {
    Checksum::new().double_word(source).double_word(destination).word(u16::from(protocol)).word(length)
}

/// `checksum` after one 16-bit word that it covers went from `old` to `new` (RFC 1624 section 3,
/// equation 3). All in host byte order. Right for whatever is never all zeros, such as IPv4 and TCP headers;
/// for zeros alone it gives 0 instead of `0xffff`.
#[inline]
#[must_use]
pub const fn update(checksum: u16, old: u16, new: u16) -> u16 {
    let mut sum = (!checksum) as u32 + (!old) as u32 + new as u32;
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    !(sum as u16)
}

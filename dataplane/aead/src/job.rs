//! The work that a burst is made of.

use crate::Key;

/// Octets of the nonce of every algorithm here: salt (4) and explicit IV (8) of RFC 4106 section 4.
pub const NONCE_LEN: usize = 12;
/// Octets of the tag (the ICV of RFC 4106 section 6, in full length).
pub const TAG_LEN: usize = 16;
/// The most octets of additional authenticated data: one block of GHASH.
pub const MAX_AAD: usize = 16;
/// The most segments of one packet.
pub const MAX_SEGMENTS: usize = 4;
/// The most octets of text of a packet in several segments.
pub const MAX_GATHERED: usize = MAX_SEGMENTS * 4096;

/// The text of one packet: 1 to [`MAX_SEGMENTS`] pieces of memory, in order (a jumbo frame arrives in three).
pub struct Segments<'a>(Pieces<'a>);

enum Pieces<'a> {
    One(&'a mut [u8]),
    Several([&'a mut [u8]; MAX_SEGMENTS], u8),
}

impl<'a> Segments<'a> {
    /// A text in one piece, of any length; the fast path.
    #[inline]
    pub fn one(text: &'a mut [u8]) -> Self {
        Segments(Pieces::One(text))
    }

    /// A text in several pieces, empty ones allowed. `None` without a piece, with more than [`MAX_SEGMENTS`],
    /// and where several hold more than [`MAX_GATHERED`] octets together.
    pub fn from_slices(pieces: impl IntoIterator<Item = &'a mut [u8]>) -> Option<Self> {
        let mut slices: [&'a mut [u8]; MAX_SEGMENTS] = Default::default();
        let mut count = 0;
        for piece in pieces {
            *slices.get_mut(count)? = piece;
            count += 1;
        }
        match count {
            0 => None,
            1 => Some(Segments::one(std::mem::take(&mut slices[0]))),
            _ => {
                let segments = Segments(Pieces::Several(slices, count as u8));
                (segments.len() <= MAX_GATHERED).then_some(segments)
            }
        }
    }

    /// Octets of all segments together.
    #[inline]
    pub fn len(&self) -> usize {
        self.iter().map(<[u8]>::len).sum()
    }

    /// Whether there is no octet of text.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The segments in order.
    #[inline]
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        let slices = match &self.0 {
            Pieces::One(text) => std::slice::from_ref(text),
            Pieces::Several(slices, count) => &slices[..usize::from(*count)],
        };
        slices.iter().map(|slice| &**slice)
    }

    /// The segments in order, to be written.
    #[inline]
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut [u8]> {
        let slices = match &mut self.0 {
            Pieces::One(text) => std::slice::from_mut(text),
            Pieces::Several(slices, count) => &mut slices[..usize::from(*count)],
        };
        slices.iter_mut().map(|slice| &mut **slice)
    }

    /// The text where it is in one piece.
    #[inline]
    pub(crate) fn contiguous(&mut self) -> Option<&mut [u8]> {
        match &mut self.0 {
            Pieces::One(text) => Some(text),
            Pieces::Several(..) => None,
        }
    }
}

/// Additional authenticated data, held by value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Aad {
    bytes: [u8; MAX_AAD],
    len: u8,
}

impl Aad {
    /// RFC 4106 section 5, 32-bit sequence numbers: SPI and sequence number, 8 octets, big endian.
    #[inline]
    pub fn esp(spi: u32, sequence: u32) -> Self {
        let mut bytes = [0; MAX_AAD];
        bytes[..4].copy_from_slice(&spi.to_be_bytes());
        bytes[4..8].copy_from_slice(&sequence.to_be_bytes());
        Aad { bytes, len: 8 }
    }

    /// RFC 4106 section 5, extended sequence numbers: SPI, high and low half, 12 octets, big endian.
    #[inline]
    pub fn esn(spi: u32, high: u32, low: u32) -> Self {
        let mut bytes = [0; MAX_AAD];
        bytes[..4].copy_from_slice(&spi.to_be_bytes());
        bytes[4..8].copy_from_slice(&high.to_be_bytes());
        bytes[8..12].copy_from_slice(&low.to_be_bytes());
        Aad { bytes, len: 12 }
    }

    /// Any data of at most [`MAX_AAD`] octets.
    pub fn new(data: &[u8]) -> Option<Self> {
        let mut bytes = [0; MAX_AAD];
        bytes.get_mut(..data.len())?.copy_from_slice(data);
        Some(Aad { bytes, len: data.len() as u8 })
    }

    /// The data.
    #[inline]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }

    /// The data, padded with zeros as GHASH pads it.
    #[cfg(target_arch = "x86_64")]
    #[inline]
    pub(crate) fn block(&self) -> &[u8; MAX_AAD] {
        &self.bytes
    }
}

/// One packet to be sealed in place.
pub struct SealJob<'a> {
    /// The key, of any provider.
    pub key: &'a Key,
    /// Never twice with one key.
    pub nonce: [u8; NONCE_LEN],
    /// What is authenticated and not encrypted.
    pub aad: Aad,
    /// Plaintext before, ciphertext after.
    pub text: Segments<'a>,
    /// Where the tag is written.
    pub tag: &'a mut [u8; TAG_LEN],
}

/// One packet to be opened in place.
pub struct OpenJob<'a> {
    /// The key, of any provider.
    pub key: &'a Key,
    /// The nonce that it was sealed with.
    pub nonce: [u8; NONCE_LEN],
    /// What is authenticated and not encrypted.
    pub aad: Aad,
    /// Ciphertext before; after, plaintext where the verdict is authentic and unspecified where it is not.
    pub text: Segments<'a>,
    /// The tag that came with the packet.
    pub tag: &'a [u8; TAG_LEN],
}

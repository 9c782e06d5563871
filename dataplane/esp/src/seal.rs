//! From an inner packet to an ESP packet, up to the AEAD.
//!
//! ```text
//! outer IPv4 (20) | SPI, sequence (8) | IV (8) | inner packet | 1, 2, 3 .. | pad length | 4 | ICV (16)
//!                                                `------------- sealed ----------------'
//! ```

use tandem_aead::{Aad, NONCE_LEN, SealJob, Segments};
use tandem_wire::checksum::Checksum;
use tandem_wire::esp::{HEADER_LEN, ICV_LEN, IV_LEN, TRAILER_LEN};
use tandem_wire::ipv4;

use crate::iv::Iv;
use crate::sa::SaOut;

/// The pad length and next header fields end at a multiple of this many octets (RFC 4303 section 2.4).
const ALIGNMENT: usize = 4;
/// The don't-fragment flag in the field of flags and fragment offset.
const DONT_FRAGMENT: u16 = 0x4000;

/// A packet cannot be sealed as it is. Nothing was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PrepareError {
    /// What lies at [`SaOut::FRONT`] is no IPv4 packet.
    #[error("the inner packet is not IPv4: {0}")]
    Inner(#[from] ipv4::ParseError),
    /// The buffer is not of the length that its inner packet asks for, or past 65,535 octets.
    #[error("a buffer of {found} octets for an outer packet of {needed}")]
    Length {
        /// Octets that [`SaOut::outer_len`] gives.
        needed: usize,
        /// Octets of the buffer.
        found: usize,
    },
    /// The sequence number is 0, or needs more than 32 bits (no ESN).
    #[error("{0} is no sequence number of 32 bits")]
    Sequence(u64),
}

impl SaOut {
    /// Octets before the inner packet: outer IPv4 header, ESP header, IV.
    pub const FRONT: usize = ipv4::HEADER_LEN + HEADER_LEN + IV_LEN;

    /// Octets after an inner packet of `inner_len`: padding, pad length, next header, ICV.
    #[inline]
    pub const fn back(inner_len: usize) -> usize {
        padding(inner_len) + TRAILER_LEN + ICV_LEN
    }

    /// Octets of the whole outer packet around an inner packet of `inner_len`.
    #[inline]
    pub const fn outer_len(inner_len: usize) -> usize {
        Self::FRONT + inner_len + Self::back(inner_len)
    }

    /// The longest inner packet whose outer packet fits in `mtu` octets; 0 where none does.
    pub const fn max_inner(mtu: usize) -> usize {
        let mtu = if mtu > ipv4::MAX_LEN { ipv4::MAX_LEN } else { mtu };
        let sealed = mtu.saturating_sub(Self::FRONT + ICV_LEN) / ALIGNMENT * ALIGNMENT;
        sealed.saturating_sub(TRAILER_LEN)
    }

    /// Makes an outer packet of `buf`, up to the sealing, which the returned job asks a provider for.
    ///
    /// `buf` is exactly [`SaOut::outer_len`] octets, with the inner IPv4 packet at [`SaOut::FRONT`]; what lies
    /// around it is written here. `sequence` comes from [`crate::sequence::take`]. The `iv` is used up, also by
    /// an error.
    ///
    /// The outer header is that of RFC 4301 section 5.1.2.1: DSCP copied, ECN copied (RFC 6040 section 4.1,
    /// normal mode), DF copied. The identification is the low half of the sequence number where DF is clear,
    /// and 0 where it is set and the packet therefore atomic (RFC 6864 section 4.1).
    ///
    /// # Errors
    /// See [`PrepareError`].
    #[inline]
    pub fn prepare<'a>(
        &'a self,
        buf: &'a mut [u8],
        sequence: u64,
        iv: Iv,
    ) -> Result<SealJob<'a>, PrepareError> {
        let sequence = match u32::try_from(sequence) {
            Ok(number) if number != 0 => number,
            _ => return Err(PrepareError::Sequence(sequence)),
        };
        let found = buf.len();
        let Some((front, sealed)) = buf.split_first_chunk_mut::<{ SaOut::FRONT }>() else {
            return Err(PrepareError::Inner(ipv4::ParseError::Truncated));
        };
        let inner = ipv4::parse(sealed)?.header;
        let (tos, dont_fragment, inner_len) = (inner.tos, inner.dont_fragment(), inner.total_len());
        let needed = Self::outer_len(inner_len);
        let wrong_length = PrepareError::Length { needed, found };
        if needed != found {
            return Err(wrong_length);
        }
        let outer_len = u16::try_from(found).map_err(|_| wrong_length)?;
        let Some((text, tag)) = sealed.split_last_chunk_mut::<ICV_LEN>() else { return Err(wrong_length) };

        let (flags, identification) = if dont_fragment { (DONT_FRAGMENT, 0) } else { (0, sequence as u16) };
        let mut outer = self.outer;
        outer.tos = tos;
        outer.total_length.set(outer_len);
        outer.identification.set(identification);
        outer.flags_offset.set(flags);
        // The template's sum already holds every other word of the header.
        let sum = Checksum::new()
            .word(self.outer_sum)
            .word(u16::from(tos))
            .word(outer_len)
            .word(identification)
            .word(flags);
        outer.checksum.set(sum.finish());

        let iv = iv.into_octets();
        front[..20].copy_from_slice(outer.octets());
        front[20..24].copy_from_slice(&self.spi.to_be_bytes());
        front[24..28].copy_from_slice(&sequence.to_be_bytes());
        front[28..].copy_from_slice(&iv);
        write_trailer(text, inner_len);

        let mut nonce = [0; NONCE_LEN];
        nonce[..4].copy_from_slice(&self.salt);
        nonce[4..].copy_from_slice(&iv);
        let aad = Aad::esp(self.spi, sequence);
        Ok(SealJob { key: &self.key, nonce, aad, text: Segments::one(text), tag })
    }
}

/// Octets of padding after an inner packet of `inner_len` (RFC 4303 section 2.4).
const fn padding(inner_len: usize) -> usize {
    (inner_len + TRAILER_LEN).wrapping_neg() % ALIGNMENT
}

/// Writes padding 1, 2, 3 (RFC 4303 section 2.4), its length, and next header "IPv4" (section 2.6).
#[inline]
fn write_trailer(text: &mut [u8], inner_len: usize) {
    const NEXT: u8 = ipv4::PROTOCOL_IPV4;
    let trailer = &mut text[inner_len..];
    match trailer.len() {
        2 => trailer.copy_from_slice(&[0, NEXT]),
        3 => trailer.copy_from_slice(&[1, 1, NEXT]),
        4 => trailer.copy_from_slice(&[1, 2, 2, NEXT]),
        _ => trailer.copy_from_slice(&[1, 2, 3, 3, NEXT]),
    }
}

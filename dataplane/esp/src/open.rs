//! From an ESP packet to the inner packet, around the AEAD.

use std::ops::Range;

use tandem_aead::{Aad, NONCE_LEN, OpenJob, Segments};
use tandem_wire::esp::{HEADER_LEN, ICV_LEN, IV_LEN, TRAILER_LEN};
use tandem_wire::ipv4::{PROTOCOL_IPV4, PROTOCOL_NONE};

use crate::sa::SaIn;

/// Octets before the sealed text.
const FRONT: usize = HEADER_LEN + IV_LEN;

/// Too short for header, IV, pad length, next header and ICV.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an ESP packet of {found} octets; the shortest has {}", SaIn::SHORTEST)]
pub struct Truncated {
    /// Octets of the packet.
    pub found: usize,
}

/// An authentic ESP packet holds no inner packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FinishError {
    /// The padding is longer than the packet, or is not 1, 2, 3, .. (RFC 4303 section 2.4).
    #[error("the padding is not that of RFC 4303")]
    BadPadding,
    /// The next header is something other than IPv4.
    #[error("the next header is {0}, not IPv4")]
    NextHeader(u8),
    /// A dummy packet, made to hide traffic (RFC 4303 section 2.6): to be dropped, and no error of the peer's.
    #[error("a dummy packet")]
    Dummy,
}

impl SaIn {
    /// Octets of the shortest packet that is worth opening.
    pub const SHORTEST: usize = FRONT + TRAILER_LEN + ICV_LEN;

    /// The sequence number of an ESP packet, unauthenticated; for [`crate::window::check`].
    #[inline]
    pub fn sequence(esp: &[u8]) -> Option<u32> {
        esp.get(4..8)?.first_chunk().map(|octets| u32::from_be_bytes(*octets))
    }

    /// The job that opens `esp`: ESP header to ICV, the outer headers removed. The SPI is the SA's, whatever the
    /// packet says: a packet of another SA is not authentic.
    ///
    /// # Errors
    /// The packet is too short.
    #[inline]
    pub fn prepare<'a>(&'a self, esp: &'a mut [u8]) -> Result<OpenJob<'a>, Truncated> {
        let truncated = Truncated { found: esp.len() };
        if esp.len() < Self::SHORTEST {
            return Err(truncated);
        }
        let (front, sealed) = esp.split_first_chunk_mut::<FRONT>().ok_or(truncated)?;
        let (text, tag) = sealed.split_last_chunk_mut::<ICV_LEN>().ok_or(truncated)?;
        let sequence = u32::from_be_bytes([front[4], front[5], front[6], front[7]]);
        let mut nonce = [0; NONCE_LEN];
        nonce[..4].copy_from_slice(&self.salt);
        nonce[4..].copy_from_slice(&front[HEADER_LEN..]);
        let aad = Aad::esp(self.spi, sequence);
        Ok(OpenJob { key: &self.key, nonce, aad, text: Segments::one(text), tag })
    }

    /// Where the inner packet lies in `esp`, the same octets after an authentic open.
    ///
    /// Traffic flow confidentiality padding (RFC 4303 section 2.7) is part of the range; the total length of the
    /// inner header cuts it off.
    ///
    /// # Errors
    /// See [`FinishError`].
    #[inline]
    pub fn finish(esp: &[u8]) -> Result<Range<usize>, FinishError> {
        let end = esp.len().checked_sub(ICV_LEN).ok_or(FinishError::BadPadding)?;
        let Some((text, &[pad_len, next_header])) =
            esp.get(FRONT..end).and_then(|text| text.split_last_chunk::<TRAILER_LEN>())
        else {
            return Err(FinishError::BadPadding);
        };
        let inner_len = text.len().checked_sub(usize::from(pad_len)).ok_or(FinishError::BadPadding)?;
        let padding = &text[inner_len..];
        if padding.iter().zip(1..=u8::MAX).any(|(octet, expected)| *octet != expected) {
            return Err(FinishError::BadPadding);
        }
        match next_header {
            PROTOCOL_IPV4 => Ok(FRONT..FRONT + inner_len),
            PROTOCOL_NONE => Err(FinishError::Dummy),
            other => Err(FinishError::NextHeader(other)),
        }
    }
}

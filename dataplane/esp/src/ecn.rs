//! Explicit congestion notification through a tunnel (RFC 6040, normal mode).
//!
//! On the way in, the field is copied with the rest of the type of service (section 4.1; `SaOut::prepare` does
//! it). On the way out, both headers are combined (section 4.2).

use tandem_wire::{checksum, ipv4};

/// The two lowest bits of the type of service (RFC 3168 section 5).
const MASK: u8 = 0b11;
const NOT_ECT: u8 = 0b00;
const ECT_1: u8 = 0b01;
const ECT_0: u8 = 0b10;
const CE: u8 = 0b11;

/// Why an inner packet cannot go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DecapsulateError {
    /// The outer header says that congestion was experienced, and the inner one that its transport cannot be
    /// told: to be dropped (RFC 6040 section 4.2).
    #[error("congestion experienced outside, a transport without ECN inside")]
    CongestionExperienced,
    /// What came out of the tunnel is shorter than an IPv4 header.
    #[error("the inner packet is shorter than an IPv4 header")]
    Truncated,
}

/// Combines the ECN field of the outer header into the inner packet (RFC 6040 section 4.2, figure 4), and
/// updates the inner checksum by the difference (RFC 1624), so that a wrong one stays wrong.
///
/// `outer_tos` is the whole type of service octet; `inner` begins with the inner IPv4 header.
///
/// # Errors
/// See [`DecapsulateError`]; `inner` is then unchanged.
#[inline]
pub fn decapsulate(outer_tos: u8, inner: &mut [u8]) -> Result<(), DecapsulateError> {
    let header = inner.first_chunk_mut::<{ ipv4::HEADER_LEN }>().ok_or(DecapsulateError::Truncated)?;
    let field = combine(outer_tos & MASK, header[1] & MASK).ok_or(DecapsulateError::CongestionExperienced)?;
    if field != header[1] & MASK {
        let old = u16::from_be_bytes([header[0], header[1]]);
        header[1] = header[1] & !MASK | field;
        let new = u16::from_be_bytes([header[0], header[1]]);
        let sum = checksum::update(u16::from_be_bytes([header[10], header[11]]), old, new);
        header[10..12].copy_from_slice(&sum.to_be_bytes());
    }
    Ok(())
}

/// The field that goes on; `None` where the packet is to be dropped.
#[inline]
const fn combine(outer: u8, inner: u8) -> Option<u8> {
    match (outer, inner) {
        (CE, NOT_ECT) => None,
        (CE, _) => Some(CE),
        (ECT_1, ECT_0) => Some(ECT_1),
        (_, inner) => Some(inner),
    }
}

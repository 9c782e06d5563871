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

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(tos: u8) -> [u8; 20] {
        let fields = ipv4::Fields {
            tos,
            total_length: 20,
            identification: 0xfeed,
            dont_fragment: false,
            ttl: 9,
            protocol: 17,
            source: [10, 1, 0, 2].into(),
            destination: [10, 2, 0, 2].into(),
        };
        *ipv4::Header::new(&fields).octets()
    }

    #[test]
    fn fields_combine_as_in_figure_4_of_rfc_6040() {
        // Rows: inner; columns: outer Not-ECT, ECT(0), ECT(1), CE.
        let figure = [
            (NOT_ECT, [Some(NOT_ECT), Some(NOT_ECT), Some(NOT_ECT), None]),
            (ECT_0, [Some(ECT_0), Some(ECT_0), Some(ECT_1), Some(CE)]),
            (ECT_1, [Some(ECT_1), Some(ECT_1), Some(ECT_1), Some(CE)]),
            (CE, [Some(CE), Some(CE), Some(CE), Some(CE)]),
        ];
        for (inner, row) in figure {
            for (outer, expected) in [NOT_ECT, ECT_0, ECT_1, CE].into_iter().zip(row) {
                // The DSCP of neither header matters, and the inner one stays.
                for (outer_dscp, inner_dscp) in [(0, 0), (0xb8, 0x28), (0xfc, 0xfc)] {
                    let before = packet(inner_dscp | inner);
                    let mut after = before;
                    let result = decapsulate(outer_dscp | outer, &mut after);
                    match expected {
                        Some(field) => {
                            assert_eq!(result, Ok(()));
                            assert_eq!(after, packet(inner_dscp | field), "{inner:02b} in {outer:02b}");
                        }
                        None => {
                            assert_eq!(result, Err(DecapsulateError::CongestionExperienced));
                            assert_eq!(after, before);
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn a_wrong_checksum_stays_wrong() {
        let mut inner = packet(ECT_0);
        inner[10] ^= 0x40;
        assert_eq!(decapsulate(CE, &mut inner), Ok(()));
        assert!(!ipv4::header_checksum_ok(&inner));
    }

    #[test]
    fn what_is_shorter_than_a_header_is_refused() {
        for len in 0..20 {
            assert_eq!(decapsulate(CE, &mut vec![0xff; len]), Err(DecapsulateError::Truncated));
        }
    }
}

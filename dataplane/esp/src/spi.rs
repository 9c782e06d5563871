//! The SPIs that this pair gives to its peers: node (1 bit), generation (11), slot (20).
//!
//! The slot makes the inbound look-up an index and a compare. The generation tells the users of one slot apart,
//! and the node bit keeps the two nodes from giving the same SPI (F38).

use std::fmt;

/// One SA slot has SPIs of this many generations before they come again: generation 0 is never given, which
/// keeps every SPI above the reserved ones (1 to 255, RFC 4303 section 2.1).
pub const GENERATIONS: u16 = (1 << GENERATION_BITS) - 1;
/// The number of slots that an SPI can name.
pub const SLOTS: u32 = 1 << SLOT_BITS;

const GENERATION_BITS: u32 = 11;
const SLOT_BITS: u32 = 20;

/// An SPI of the scheme.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Spi(u32);

impl Spi {
    /// The SPI of a slot (below [`SLOTS`]) in a generation (1 to [`GENERATIONS`]), given by node 0 or 1.
    pub const fn new(node: u8, generation: u16, slot: u32) -> Option<Spi> {
        if node > 1 || generation == 0 || generation > GENERATIONS || slot >= SLOTS {
            return None;
        }
        Some(Spi((node as u32) << 31 | (generation as u32) << SLOT_BITS | slot))
    }

    /// Reads an SPI, host byte order. `None` where no node gives it: generation 0.
    #[inline]
    pub const fn from_u32(spi: u32) -> Option<Spi> {
        let spi = Spi(spi);
        if spi.generation() == 0 { None } else { Some(spi) }
    }

    /// Host byte order.
    #[inline]
    pub const fn get(self) -> u32 {
        self.0
    }

    /// The node that gave it: 0 or 1.
    #[inline]
    pub const fn node(self) -> u8 {
        (self.0 >> 31) as u8
    }

    /// The generation, 1 to [`GENERATIONS`].
    #[inline]
    pub const fn generation(self) -> u16 {
        (self.0 >> SLOT_BITS) as u16 & GENERATIONS
    }

    /// The slot of the hot state.
    #[inline]
    pub const fn slot(self) -> u32 {
        self.0 & (SLOTS - 1)
    }

    /// The same slot for its next user; after the last generation comes the first.
    #[must_use]
    pub const fn next(self) -> Spi {
        let generation = self.generation() % GENERATIONS + 1;
        Spi(self.0 & !((GENERATIONS as u32) << SLOT_BITS) | (generation as u32) << SLOT_BITS)
    }
}

impl fmt::Debug for Spi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Spi({:#010x})", self.0)
    }
}

impl fmt::Display for Spi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#010x}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn parts_lie_where_the_scheme_says() {
        let spi = Spi::new(1, 3, 5).expect("within the scheme");
        assert_eq!(spi.get(), 0x8030_0005);
        assert_eq!((spi.node(), spi.generation(), spi.slot()), (1, 3, 5));
        assert_eq!((spi.to_string(), format!("{spi:?}")), ("0x80300005".into(), "Spi(0x80300005)".into()));
    }

    #[test]
    fn what_the_scheme_cannot_hold_is_refused() {
        for (node, generation, slot) in
            [(2, 1, 0), (0, 0, 0), (1, 0, 0), (0, GENERATIONS + 1, 0), (0, 1, SLOTS)]
        {
            assert_eq!(Spi::new(node, generation, slot), None);
        }
        for foreign in [0, 1, 255, 0x1001, 0x000f_ffff, 0x8000_0000, 0x800f_ffff] {
            assert_eq!(Spi::from_u32(foreign), None, "{foreign:#x}");
        }
    }

    proptest! {
        #[test]
        fn every_spi_is_read_as_it_was_made(node in 0..=1u8, generation in 1..=GENERATIONS, slot in 0..SLOTS) {
            let spi = Spi::new(node, generation, slot).expect("within the scheme");
            prop_assert_eq!((spi.node(), spi.generation(), spi.slot()), (node, generation, slot));
            prop_assert!(spi.get() >= 256);
            prop_assert_eq!(Spi::from_u32(spi.get()), Some(spi));
        }
    }

    #[test]
    fn a_slot_has_all_generations_before_one_comes_again() {
        let first = Spi::new(1, 2000, 77).expect("within the scheme");
        let mut spi = first;
        let mut seen = std::collections::HashSet::new();
        while seen.insert(spi) {
            assert_eq!((spi.node(), spi.slot()), (1, 77));
            spi = spi.next();
        }
        assert_eq!(spi, first);
        assert_eq!(seen.len(), usize::from(GENERATIONS));
    }
}

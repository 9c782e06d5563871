//! Inbound SPIs that do not name their slot.

use super::NO_SLOT;
use std::collections::HashMap;

/// Immutable index of inbound SPIs that do not name their slot: open addressing, linear probing.
#[derive(Debug)]
pub(super) struct ForeignIndex {
    /// (SPI, slot); SPI 0 is empty.
    entries: Box<[(u32, u32)]>,
}

impl ForeignIndex {
    pub(super) fn build(pairs: &HashMap<u32, u32>) -> Self {
        let size = (pairs.len() * 2 + 1).next_power_of_two();
        let mut entries = vec![(0, NO_SLOT); size].into_boxed_slice();
        for (&spi, &slot) in pairs {
            let mut at = Self::start(spi, size);
            while entries[at].0 != 0 {
                at = (at + 1) & (size - 1);
            }
            entries[at] = (spi, slot);
        }
        Self { entries }
    }

    /// Multiplicative spread: neighbouring SPIs land apart.
    fn start(spi: u32, size: usize) -> usize {
        (spi.wrapping_mul(0x9e37_79b1) >> 7) as usize & (size - 1)
    }

    pub(super) fn lookup(&self, spi: u32) -> Option<u32> {
        let size = self.entries.len();
        let mut at = Self::start(spi, size);
        // The table is at most half full, so the walk ends.
        loop {
            match self.entries[at] {
                (0, _) => return None,
                (found, slot) if found == spi => return Some(slot),
                _ => at = (at + 1) & (size - 1),
            }
        }
    }
}

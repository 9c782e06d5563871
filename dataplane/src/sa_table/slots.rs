//! Which slot holds the hot state of which SPI and key.

use super::admin::SaId;
use std::collections::HashMap;
use std::sync::atomic::Ordering;
use tandem_shm::{HotIn, HotOut};

/// Slots of one direction.
#[derive(Debug)]
pub(super) struct Slots {
    /// Slots by (SPI, fingerprint) of the hot state bound to them.
    pub(super) bound: HashMap<(u32, u64), u32>,
    /// Which SA is published in a slot. A key that moves to another peer keeps its slot, so two identities
    /// may lead to one slot until the older of them is swept.
    pub(super) users: HashMap<u32, SaId>,
    /// Is there hot state in the slot?
    pub(super) taken: Box<[bool]>,
    /// How many have none.
    pub(super) free: usize,
    /// No slot below this one is free.
    pub(super) first_free: usize,
}

impl Slots {
    pub(super) fn new(bindings: impl Iterator<Item = (u32, u64)>) -> Self {
        let mut bound = HashMap::new();
        let mut taken = Vec::new();
        for (slot, (spi, fingerprint)) in bindings.enumerate() {
            taken.push(fingerprint != 0);
            if fingerprint != 0 {
                bound.insert((spi, fingerprint), slot as u32);
            }
        }
        let free = taken.iter().filter(|taken| !**taken).count();
        Self { bound, users: HashMap::new(), taken: taken.into_boxed_slice(), free, first_free: 0 }
    }

    /// A free slot, `wanted` if that is free.
    pub(super) fn find(&mut self, wanted: u32) -> Option<u32> {
        if self.taken.get(wanted as usize) == Some(&false) {
            return Some(wanted);
        }
        self.first_free += self.taken[self.first_free..].iter().position(|taken| !taken)?;
        Some(self.first_free as u32)
    }
}

/// Readies free hot state for an SA, whose numbers may be used up to `limit`. The binding comes last: until then the
/// slot counts as free.
pub(super) fn start_inbound(hot: &HotIn, (spi, fingerprint): (u32, u64), limit: u64) {
    hot.spi.store(spi, Ordering::Relaxed);
    hot.lease_end.store(0, Ordering::Relaxed);
    hot.limit.store(limit, Ordering::Relaxed);
    hot.acknowledged.store(0, Ordering::Relaxed);
    let counters =
        [&hot.top, &hot.packets, &hot.bytes, &hot.replayed, &hot.too_old, &hot.auth_failed, &hot.inner_wrong];
    counters.into_iter().chain(&hot.window).for_each(|word| word.store(0, Ordering::Relaxed));
    hot.binding.store(fingerprint, Ordering::Release);
}

/// As [`start_inbound`].
pub(super) fn start_outbound(hot: &HotOut, (spi, fingerprint): (u32, u64), limit: u64) {
    hot.spi.store(spi, Ordering::Relaxed);
    hot.lease_end.store(0, Ordering::Relaxed);
    hot.limit.store(limit, Ordering::Relaxed);
    [&hot.next, &hot.packets, &hot.bytes, &hot.send_errors]
        .into_iter()
        .for_each(|word| word.store(0, Ordering::Relaxed));
    hot.binding.store(fingerprint, Ordering::Release);
}

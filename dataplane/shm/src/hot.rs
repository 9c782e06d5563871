//! Hot state: what the traffic changes in an SA, and the counters of the node.
//!
//! It lives in a memfd that outlives the process (failover rule F31), so its layout is part of an interface:
//! any change of it takes a new [`LAYOUT_VERSION`]. Keys are not in it; each slot is bound to its SA by SPI and
//! a fingerprint of the key (F8).
//!
//! ```text
//! 0                    HotHeader (192 octets, then zeros to 4096)
//! 4096                 HotOut x slots (64 octets each)
//! 4096 + 64 x slots    HotIn x slots (640 octets each)
//! ```
//! Outbound and inbound state of a slot are two SAs that have nothing in common but the number. Pages that
//! were never touched cost no memory.

use crate::segment::{Segment, SegmentError, Shared};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// Version of the layout of this module.
pub const LAYOUT_VERSION: u32 = 2;
/// Words of an anti-replay window.
pub const WINDOW_WORDS: usize = 64;
/// Largest number of slots: the slot is 20 bits of an SPI.
pub const MAX_SLOTS: u32 = 1 << 20;
/// Value of [`HotHeader::role`] on the standby node.
pub const ROLE_STANDBY: u64 = 0;
/// Value of [`HotHeader::role`] on the active node.
pub const ROLE_ACTIVE: u64 = 1;

/// "TANDEMHS" in ASCII, read as a big-endian number.
const MAGIC: u64 = 0x5441_4e44_454d_4853;
/// Reads differently on a machine of the other byte order.
const BYTE_ORDER: u32 = 0x0102_0304;

const OUTBOUND_AT: usize = 4096;

/// Identity of the region, and the counters and state of the node.
#[repr(C, align(64))]
#[derive(Debug)]
pub struct HotHeader {
    magic: AtomicU64,
    layout_version: AtomicU32,
    byte_order: AtomicU32,
    slots: AtomicU32,
    window_words: AtomicU32,
    /// Term in which this node works (F1); 0 before the first one.
    pub term: AtomicU64,
    /// [`ROLE_STANDBY`] or [`ROLE_ACTIVE`].
    pub role: AtomicU64,
    /// How the active node handles traffic (F18): a [`Handling`], with a generation that tells one order from
    /// the next. Workers read it once a round and echo what they have worked by.
    pub handling: AtomicU64,
    /// Not 0: this node acted alone, and its partner does not know all that it did (F28).
    pub lone: AtomicU64,
    reserved: AtomicU64,
    /// First number of the next unused block of IV counters of this node (F4). Workers and control take blocks by
    /// an atomic add. On its own line: it is the one word here that workers write.
    pub node_counter: AtomicU64,
    reserved_for_counters: [AtomicU64; 7],
    /// Version of the replication records opened last (F9, F31): raised before the hot state of a record is
    /// read. A packet whose number was set in its window before this was read as `v` is in every record of a
    /// version above `v`. Workers read it; on a line of its own with what else the pair's thread writes.
    pub version: AtomicU64,
    /// Number of the message to the partner sent last (F17, F31).
    pub message: AtomicU64,
    /// Sealing counters of the paths to the partner (F6); taken before sealing.
    pub path_counters: [AtomicU64; 4],
    reserved_for_pair: [AtomicU64; 2],
}

/// How an active node handles traffic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Handling {
    /// Alone: inbound packets are delivered at once, outbound numbers need no lease.
    Alone,
    /// Strictly (strict and joining): inbound packets wait for the acknowledgement of their number, outbound
    /// numbers lie within acknowledged leases.
    Strict,
    /// Not at all: two nodes were active, and their states are not merged yet (F28).
    Halted,
}

impl Handling {
    const BITS: u32 = 2;

    /// The word of this handling in a generation.
    #[must_use]
    pub const fn word(self, generation: u64) -> u64 {
        let code = match self {
            Handling::Alone => 0,
            Handling::Strict => 1,
            Handling::Halted => 2,
        };
        generation << Self::BITS | code
    }

    /// The handling that a word asks for; what this program does not know is not handled.
    #[inline]
    #[must_use]
    pub const fn of_word(word: u64) -> Handling {
        match word & ((1 << Self::BITS) - 1) {
            0 => Handling::Alone,
            1 => Handling::Strict,
            _ => Handling::Halted,
        }
    }

    /// The generation of a word.
    #[must_use]
    pub const fn generation(word: u64) -> u64 {
        word >> Self::BITS
    }
}

/// Hot state of an outbound SA. One cache line.
#[repr(C, align(64))]
#[derive(Debug, Default)]
pub struct HotOut {
    /// Fingerprint of the key that the slot is bound to; 0 where it is free (F8).
    pub binding: AtomicU64,
    /// SPI, host byte order.
    pub spi: AtomicU32,
    reserved_word: AtomicU32,
    /// Sequence number given out last; 0 before the first one.
    pub next: AtomicU64,
    /// Last sequence number that the partner has acknowledged as used (F14); looked at while handling is strict.
    pub lease_end: AtomicU64,
    /// Packets sealed.
    pub packets: AtomicU64,
    /// Octets of the inner packets sealed.
    pub bytes: AtomicU64,
    /// Packets that could not be sealed or sent.
    pub send_errors: AtomicU64,
    /// Last sequence number that may be used at all: what is reserved on disk for a static SA (F40), 0 for an SA
    /// that is held, `u64::MAX` where neither holds.
    pub limit: AtomicU64,
}

/// Hot state of an inbound SA: one line of state, one of error counters, then the anti-replay window.
#[repr(C, align(64))]
#[derive(Debug)]
pub struct HotIn {
    /// Fingerprint of the key that the slot is bound to; 0 where it is free (F8).
    pub binding: AtomicU64,
    /// SPI, host byte order.
    pub spi: AtomicU32,
    reserved_word: AtomicU32,
    /// Highest sequence number accepted; 0 before the first one.
    pub top: AtomicU64,
    /// Last sequence number that may be delivered at once in the mode `leased` (F10); not used yet.
    pub lease_end: AtomicU64,
    /// Packets opened and accepted.
    pub packets: AtomicU64,
    /// Octets of the inner packets accepted.
    pub bytes: AtomicU64,
    /// Last sequence number that may be delivered: what is reserved on disk for a static SA (F40), 0 for an SA
    /// that is held, `u64::MAX` where neither holds. An authentic packet beyond it waits.
    pub limit: AtomicU64,
    /// Highest version of a record of this SA that the partner has acknowledged (F9).
    pub acknowledged: AtomicU64,

    /// Packets whose sequence number was seen before.
    pub replayed: AtomicU64,
    /// Packets whose sequence number lies before the window.
    pub too_old: AtomicU64,
    /// Packets that are not authentic.
    pub auth_failed: AtomicU64,
    /// Packets that are too short or of an impossible length.
    pub malformed: AtomicU64,
    /// Authentic packets with wrong padding.
    pub bad_padding: AtomicU64,
    /// Authentic packets with a next header other than the expected one.
    pub bad_next_header: AtomicU64,
    /// Authentic packets whose inner addresses are outside of the selectors (RFC 4301 section 5.2).
    pub inner_wrong: AtomicU64,
    /// Dummy packets (RFC 4303 section 2.6).
    pub dummy: AtomicU64,

    /// Anti-replay window: words of block number (upper 32 bits) and bits (lower 32 bits), F7.
    pub window: [AtomicU64; WINDOW_WORDS],
}

const _: () = {
    use std::mem::offset_of;
    assert!(size_of::<HotHeader>() == 192 && size_of::<HotHeader>() <= OUTBOUND_AT);
    assert!(offset_of!(HotHeader, term) == 24 && offset_of!(HotHeader, node_counter) == 64);
    assert!(offset_of!(HotHeader, version) == 128);
    assert!(size_of::<HotOut>() == 64 && align_of::<HotOut>() == 64);
    assert!(offset_of!(HotOut, next) == 16 && offset_of!(HotOut, send_errors) == 48);
    assert!(size_of::<HotIn>() == 128 + 8 * WINDOW_WORDS && align_of::<HotIn>() == 64);
    assert!(offset_of!(HotIn, replayed) == 64 && offset_of!(HotIn, window) == 128);
};

// SAFETY: made of atomics only; the sizes asserted above are the sums of the fields, so there is no padding.
unsafe impl Shared for HotHeader {}
// SAFETY: as for HotHeader.
unsafe impl Shared for HotOut {}
// SAFETY: as for HotHeader.
unsafe impl Shared for HotIn {}

impl Default for HotIn {
    fn default() -> HotIn {
        HotIn {
            binding: AtomicU64::default(),
            spi: AtomicU32::default(),
            reserved_word: AtomicU32::default(),
            top: AtomicU64::default(),
            lease_end: AtomicU64::default(),
            packets: AtomicU64::default(),
            bytes: AtomicU64::default(),
            limit: AtomicU64::default(),
            acknowledged: AtomicU64::default(),
            replayed: AtomicU64::default(),
            too_old: AtomicU64::default(),
            auth_failed: AtomicU64::default(),
            malformed: AtomicU64::default(),
            bad_padding: AtomicU64::default(),
            bad_next_header: AtomicU64::default(),
            inner_wrong: AtomicU64::default(),
            dummy: AtomicU64::default(),
            window: std::array::from_fn(|_| AtomicU64::new(0)),
        }
    }
}

/// Why hot state could not be made or adopted. A region of other content is never changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HotError {
    /// The number of slots is 0 or above [`MAX_SLOTS`].
    #[error("hot state of {0} slots is not possible: it takes 1 to {MAX_SLOTS}")]
    Slots(u32),
    /// The memory could not be made or is no proper segment.
    #[error(transparent)]
    Segment(#[from] SegmentError),
    /// The region is none of hot state.
    #[error("the region begins with {found:#018x}, hot state with {MAGIC:#018x}")]
    Magic {
        /// What is in the place of the magic number.
        found: u64,
    },
    /// The region was made by a version of another layout.
    #[error("the region has layout version {found}, this program has {LAYOUT_VERSION}")]
    LayoutVersion {
        /// Layout version of the region.
        found: u32,
    },
    /// The region was made on a machine of other byte order.
    #[error("the region has another byte order")]
    ByteOrder,
    /// The region has another number of slots.
    #[error("the region has {found} slots, the configuration {expected}")]
    SlotCount {
        /// Slots of the region.
        found: u32,
        /// Slots asked for.
        expected: u32,
    },
    /// The region has windows of another size.
    #[error("the region has windows of {found} words, this program has {WINDOW_WORDS}")]
    WindowWords {
        /// Words of a window of the region.
        found: u32,
    },
    /// The region is not as large as its slots need.
    #[error("the region has {found} octets, its slots need {expected}")]
    Size {
        /// Size of the region in octets.
        found: usize,
        /// Size that the slots need, in octets.
        expected: usize,
    },
}

/// The hot state of all SAs of a node.
#[derive(Debug)]
pub struct HotState {
    segment: Segment,
    slots: u32,
}

impl HotState {
    /// Makes the state of `slots` slots, all free, with term 0 and the role of a standby.
    pub fn create(slots: u32) -> Result<HotState, HotError> {
        check_slots(slots)?;
        let segment = Segment::create("tandem-hot-state", region_size(slots))?;
        let state = HotState { segment, slots };
        let header = state.header();
        header.layout_version.store(LAYOUT_VERSION, Ordering::Relaxed);
        header.byte_order.store(BYTE_ORDER, Ordering::Relaxed);
        header.slots.store(slots, Ordering::Relaxed);
        header.window_words.store(WINDOW_WORDS as u32, Ordering::Relaxed);
        // Last, so that a region of a process that died here is refused.
        header.magic.store(MAGIC, Ordering::Release);
        Ok(state)
    }

    /// Goes on with the state that another process has left. Refused where anything about the region is not as this
    /// program would have made it for `slots` slots.
    pub fn adopt(fd: OwnedFd, slots: u32) -> Result<HotState, HotError> {
        check_slots(slots)?;
        let segment = Segment::adopt(fd)?;
        let found = segment.len();
        let too_small = HotError::Size { found, expected: region_size(slots) };
        let Some(header) = segment.at::<HotHeader>(0) else { return Err(too_small) };
        let magic = header.magic.load(Ordering::Acquire);
        if magic != MAGIC {
            let swapped = magic == MAGIC.swap_bytes();
            return Err(if swapped { HotError::ByteOrder } else { HotError::Magic { found: magic } });
        }
        if header.byte_order.load(Ordering::Relaxed) != BYTE_ORDER {
            return Err(HotError::ByteOrder);
        }
        let version = header.layout_version.load(Ordering::Relaxed);
        if version != LAYOUT_VERSION {
            return Err(HotError::LayoutVersion { found: version });
        }
        let words = header.window_words.load(Ordering::Relaxed);
        if words != WINDOW_WORDS as u32 {
            return Err(HotError::WindowWords { found: words });
        }
        let count = header.slots.load(Ordering::Relaxed);
        if count != slots {
            return Err(HotError::SlotCount { found: count, expected: slots });
        }
        if found != region_size(slots) {
            return Err(too_small);
        }
        Ok(HotState { segment, slots })
    }

    /// The memfd, to be kept by another process across a restart.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.segment.fd()
    }

    /// The node's part.
    #[inline]
    pub fn header(&self) -> &HotHeader {
        // The region holds it: `create` sized it so, `adopt` has checked it.
        self.segment.at(0).expect("a region of hot state holds its header")
    }

    /// Outbound state of a slot; `None` beyond the last one.
    #[inline]
    pub fn outbound(&self, slot: u32) -> Option<&HotOut> {
        if slot >= self.slots {
            return None;
        }
        self.segment.at(OUTBOUND_AT + slot as usize * size_of::<HotOut>())
    }

    /// Inbound state of a slot; `None` beyond the last one.
    #[inline]
    pub fn inbound(&self, slot: u32) -> Option<&HotIn> {
        if slot >= self.slots {
            return None;
        }
        self.segment.at(inbound_at(self.slots) + slot as usize * size_of::<HotIn>())
    }

    /// Number of slots.
    pub fn slots(&self) -> u32 {
        self.slots
    }
}

fn check_slots(slots: u32) -> Result<(), HotError> {
    if (1..=MAX_SLOTS).contains(&slots) { Ok(()) } else { Err(HotError::Slots(slots)) }
}

fn inbound_at(slots: u32) -> usize {
    OUTBOUND_AT + slots as usize * size_of::<HotOut>()
}

fn region_size(slots: u32) -> usize {
    inbound_at(slots) + slots as usize * size_of::<HotIn>()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::fs::File;
    use std::os::unix::fs::FileExt;

    fn adopt(state: &HotState, slots: u32) -> Result<HotState, HotError> {
        HotState::adopt(state.fd().try_clone_to_owned().unwrap(), slots)
    }

    fn file(state: &HotState) -> File {
        File::from(state.fd().try_clone_to_owned().unwrap())
    }

    #[test]
    fn successor_finds_every_counter_again() {
        let state = HotState::create(100).unwrap();
        state.header().term.store(7, Ordering::Relaxed);
        state.header().node_counter.store(1 << 16, Ordering::Relaxed);
        state.outbound(99).unwrap().next.store(123, Ordering::Relaxed);
        state.inbound(99).unwrap().window[63].store(u64::MAX, Ordering::Relaxed);
        let fd = state.fd().try_clone_to_owned().unwrap();
        drop(state);
        let state = HotState::adopt(fd, 100).unwrap();
        assert_eq!(state.header().term.load(Ordering::Relaxed), 7);
        assert_eq!(state.header().node_counter.load(Ordering::Relaxed), 1 << 16);
        assert_eq!(state.outbound(99).unwrap().next.load(Ordering::Relaxed), 123);
        assert_eq!(state.inbound(99).unwrap().window[63].load(Ordering::Relaxed), u64::MAX);
    }

    #[test]
    fn no_two_parts_overlap_and_none_lies_beyond_the_end() {
        let state = HotState::create(3).unwrap();
        let mut ranges = vec![(&raw const *state.header() as usize, size_of::<HotHeader>())];
        for slot in 0..3 {
            ranges.push((&raw const *state.outbound(slot).unwrap() as usize, size_of::<HotOut>()));
            ranges.push((&raw const *state.inbound(slot).unwrap() as usize, size_of::<HotIn>()));
        }
        ranges.sort_unstable();
        for pair in ranges.windows(2) {
            assert!(pair[0].0 + pair[0].1 <= pair[1].0);
        }
        let base = ranges[0].0;
        let (last, size) = ranges[ranges.len() - 1];
        assert!(last + size - base <= state.segment.len());
        assert!(state.outbound(3).is_none() && state.inbound(3).is_none());
        assert!(state.outbound(u32::MAX).is_none() && state.inbound(u32::MAX).is_none());
    }

    #[test]
    fn impossible_slot_counts_are_refused() {
        assert!(matches!(HotState::create(0), Err(HotError::Slots(0))));
        assert!(matches!(HotState::create(MAX_SLOTS + 1), Err(HotError::Slots(_))));
        assert!(HotState::create(MAX_SLOTS).is_ok());
    }

    #[test]
    fn refusal_says_what_differs() {
        let state = HotState::create(10).unwrap();
        assert!(matches!(adopt(&state, 11), Err(HotError::SlotCount { found: 10, expected: 11 })));
        let swap = |at: u64, octets: &[u8]| {
            let mut before = vec![0; octets.len()];
            file(&state).read_exact_at(&mut before, at).unwrap();
            file(&state).write_all_at(octets, at).unwrap();
            let result = adopt(&state, 10);
            file(&state).write_all_at(&before, at).unwrap();
            result.map(|_| ())
        };
        assert!(matches!(swap(0, b"somebody"), Err(HotError::Magic { .. })));
        assert!(matches!(swap(0, &MAGIC.swap_bytes().to_ne_bytes()), Err(HotError::ByteOrder)));
        let other = LAYOUT_VERSION + 1;
        assert!(
            matches!(swap(8, &other.to_ne_bytes()), Err(HotError::LayoutVersion { found }) if found == other)
        );
        assert!(matches!(swap(12, &BYTE_ORDER.swap_bytes().to_ne_bytes()), Err(HotError::ByteOrder)));
        assert!(matches!(swap(20, &32u32.to_ne_bytes()), Err(HotError::WindowWords { found: 32 })));
        assert!(adopt(&state, 10).is_ok(), "all was put back");
    }

    #[test]
    fn region_of_another_size_is_refused() {
        for (len, slots) in [(64, 1), (4096, 1), (region_size(10) + 4096, 10)] {
            let segment = Segment::create("tandem-test", len).unwrap();
            let donor = HotState::create(slots).unwrap();
            let mut header = [0; 24];
            file(&donor).read_exact_at(&mut header, 0).unwrap();
            let fd = segment.fd().try_clone_to_owned().unwrap();
            File::from(fd.try_clone().unwrap()).write_all_at(&header, 0).unwrap();
            let result = HotState::adopt(fd, slots);
            assert!(matches!(result, Err(HotError::Size { found, .. }) if found == len), "{len}: {result:?}");
        }
    }

    proptest! {
        /// A region of any content is adopted only where its identity is exactly what `create` writes, and
        /// whatever follows is then within bounds.
        #[test]
        fn hostile_regions_are_refused(
            header in proptest::collection::vec(any::<u8>(), 24),
            keep in proptest::collection::vec(any::<bool>(), 24),
        ) {
            let state = HotState::create(5).unwrap();
            let mut genuine = [0; 24];
            file(&state).read_exact_at(&mut genuine, 0).unwrap();
            let forged: Vec<u8> = (0..24).map(|i| if keep[i] { genuine[i] } else { header[i] }).collect();
            file(&state).write_all_at(&forged, 0).unwrap();
            prop_assert_eq!(adopt(&state, 5).is_ok(), forged == genuine);
        }
    }
}

//! Single-producer single-consumer rings as AF_XDP lays them out: cursor arithmetic over any memory.
//!
//! Both indices run freely through all 32-bit values and wrap; the slot is the index masked with the
//! capacity. The producer owns the slots from its index up to the consumer's plus the capacity, the
//! consumer those from its index up to the producer's. An index is published with Release after the
//! slots were written (or read) and read with Acquire before they are touched, so ownership of slots moves with it.
//!
//! Each side keeps the other's index as it last saw it and reads the shared word again only when that
//! does not suffice: one cache miss for a burst, not one for a descriptor.
//!
//! The other side may be the kernel. Its index is never trusted: whatever it holds, accesses stay in the ring.

use crate::sync::{AtomicU32, Ordering};

/// Memory that holds the two indices and the slots of one ring.
///
/// # Safety
/// `capacity` is a power of two and never changes; `producer` and `consumer` always return the same two
/// words; `read` and `write` access slot `index & (capacity - 1)` and nothing else.
pub(crate) unsafe trait RingMemory {
    /// What a slot holds.
    type Entry: Copy;

    /// Number of slots.
    fn capacity(&self) -> u32;
    /// Index of the next slot that the producer fills.
    fn producer(&self) -> &AtomicU32;
    /// Index of the next slot that the consumer reads.
    fn consumer(&self) -> &AtomicU32;
    /// Reads a slot.
    ///
    /// # Safety
    /// The caller owns the slot of `index`: nobody writes it now.
    unsafe fn read(&self, index: u32) -> Self::Entry;
    /// Writes a slot.
    ///
    /// # Safety
    /// The caller owns the slot of `index`: nobody reads or writes it now.
    unsafe fn write(&self, index: u32, entry: Self::Entry);
}

/// The writing side of a ring.
#[derive(Debug)]
pub(crate) struct Producer<M> {
    memory: M,
    /// Index of the next slot to fill; what lies before may not be published yet.
    next: u32,
    /// The consumer's index as last seen.
    consumed: u32,
}

impl<M: RingMemory> Producer<M> {
    /// Goes on at the index that the memory holds.
    ///
    /// # Safety
    /// This is the only producer of the ring as long as it lives.
    pub(crate) unsafe fn new(memory: M) -> Producer<M> {
        let next = memory.producer().load(Ordering::Relaxed);
        let consumed = memory.consumer().load(Ordering::Acquire);
        Producer { memory, next, consumed }
    }

    /// Slots that can be filled now; looks again at the consumer's index only where fewer than `want` are known to be
    /// free.
    #[inline]
    pub(crate) fn room(&mut self, want: u32) -> u32 {
        if self.known_room() < want {
            self.consumed = self.memory.consumer().load(Ordering::Acquire);
        }
        self.known_room()
    }

    /// Fills the next slot; false where no slot is known to be free (see [`room`](Producer::room)).
    #[inline]
    pub(crate) fn push(&mut self, entry: M::Entry) -> bool {
        if self.known_room() == 0 {
            return false;
        }
        // SAFETY: the consumer has passed the entry that was in this slot, which was read with Acquire,
        // and does not touch it before it is published.
        unsafe { self.memory.write(self.next, entry) };
        self.next = self.next.wrapping_add(1);
        true
    }

    /// Hands all filled slots to the consumer.
    #[inline]
    pub(crate) fn publish(&mut self) {
        self.memory.producer().store(self.next, Ordering::Release);
    }

    /// Entries that the consumer has not passed yet.
    #[inline]
    pub(crate) fn pending(&self) -> u32 {
        let consumed = self.memory.consumer().load(Ordering::Acquire);
        self.next.wrapping_sub(consumed).min(self.memory.capacity())
    }

    /// Calls `each` with the entries that the consumer has not passed, oldest first.
    ///
    /// # Safety
    /// The consumer does not move any more, or what it does with the entries does not matter.
    pub(crate) unsafe fn for_each_pending(&self, mut each: impl FnMut(M::Entry)) {
        let pending = self.pending();
        for back in (1..=pending).rev() {
            // SAFETY: only the producer writes slots, and that is this value; it is not writing now.
            each(unsafe { self.memory.read(self.next.wrapping_sub(back)) });
        }
    }

    pub(crate) fn memory(&self) -> &M {
        &self.memory
    }

    #[inline]
    fn known_room(&self) -> u32 {
        // An index that the consumer cannot have gives no room rather than too much.
        self.memory.capacity().saturating_sub(self.next.wrapping_sub(self.consumed))
    }
}

/// The reading side of a ring.
#[derive(Debug)]
pub(crate) struct Consumer<M> {
    memory: M,
    /// Index of the next slot to read; the slots before may not be released yet.
    next: u32,
    /// The producer's index as last seen.
    produced: u32,
}

impl<M: RingMemory> Consumer<M> {
    /// Goes on at the index that the memory holds.
    ///
    /// # Safety
    /// This is the only consumer of the ring as long as it lives.
    pub(crate) unsafe fn new(memory: M) -> Consumer<M> {
        let next = memory.consumer().load(Ordering::Relaxed);
        Consumer { memory, next, produced: next }
    }

    /// Entries that can be read now; looks again at the producer's index only where fewer than `want` are
    /// known.
    #[inline]
    pub(crate) fn available(&mut self, want: u32) -> u32 {
        if self.known() < want {
            self.produced = self.memory.producer().load(Ordering::Acquire);
        }
        self.known()
    }

    /// Reads the next entry; `None` where none is known (see [`available`](Consumer::available)).
    #[inline]
    pub(crate) fn pop(&mut self) -> Option<M::Entry> {
        if self.known() == 0 {
            return None;
        }
        // SAFETY: the producer has published this slot, which was read with Acquire, and does not touch
        // it before it is released.
        let entry = unsafe { self.memory.read(self.next) };
        self.next = self.next.wrapping_add(1);
        Some(entry)
    }

    /// Gives all read slots back to the producer.
    #[inline]
    pub(crate) fn release(&mut self) {
        self.memory.consumer().store(self.next, Ordering::Release);
    }

    #[inline]
    fn known(&self) -> u32 {
        let known = self.produced.wrapping_sub(self.next);
        // An index that the producer cannot have counts as an empty ring.
        if known > self.memory.capacity() { 0 } else { known }
    }
}

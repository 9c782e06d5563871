//! The token of a UMEM frame.
//!
//! # Soundness
//! A [`Frame`] is the exclusive right to the octets of one frame. It is neither `Clone` nor `Copy`, has no
//! public constructor, and knows the UMEM that it belongs to. Tokens are made in two places only:
//! - when a [`Umem`](crate::Umem) is made, one for each of its frames, all into the one free list that it
//!   returns with;
//! - in `lending`, in exchange for the record that this very frame was lent to the port that asks for it
//!   back. Lending consumes the token, and taking back removes the record.
//!
//! So for each frame there is at every moment either one token or one record. The octets are reached
//! with a borrow of the token only, hence two `&mut [u8]` never overlap, and while a frame is lent to the
//! kernel no slice of it exists. A token that is dropped leaks its frame (nobody can reach the frame any
//! more), which wastes memory and endangers nothing.

/// Octets of one frame of a UMEM.
pub const FRAME_SIZE: usize = 4096;

/// Octets that the kernel leaves free before a received packet (`XDP_PACKET_HEADROOM`).
pub const HEADROOM: usize = 256;

/// The frame has not as many octets as an operation asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the frame has no room for this change")]
pub struct NoRoom;

/// Exclusive ownership of one UMEM frame and of the packet in it.
///
/// The packet is a range of the frame. The octets are reached through [`Umem::data`](crate::Umem::data)
/// and [`Umem::data_mut`](crate::Umem::data_mut). There is no destructor: a dropped token leaks its frame
/// until the UMEM goes, so give every frame to a [`FreeList`](crate::FreeList) or a
/// [`Port`](crate::Port).
#[derive(Debug)]
#[must_use = "a dropped frame is lost to its UMEM; push it to a free list"]
pub struct Frame {
    umem: u32,
    index: u32,
    /// First octet of the packet in the frame; `start + len <= FRAME_SIZE` always holds.
    start: u16,
    len: u16,
}

const _: () = assert!(size_of::<Frame>() <= 16);

impl Frame {
    /// Makes the token of a frame with an empty packet.
    ///
    /// # Safety
    /// `index` must be a frame of the UMEM `umem`, and no other token of it may exist now, nor a record
    /// that it is lent out (see the module's documentation).
    pub(crate) unsafe fn mint(umem: u32, index: u32) -> Frame {
        Frame { umem, index, start: HEADROOM as u16, len: 0 }
    }

    /// Octets of the packet.
    #[inline]
    pub fn len(&self) -> usize {
        usize::from(self.len)
    }

    /// True where the packet has no octets.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Octets of the frame before the packet.
    #[inline]
    pub fn headroom(&self) -> usize {
        usize::from(self.start)
    }

    /// Octets of the frame after the packet.
    #[inline]
    pub fn tailroom(&self) -> usize {
        FRAME_SIZE - self.headroom() - self.len()
    }

    /// Grows the packet by `n` octets at its front. The new octets hold whatever was there before.
    #[inline]
    pub fn push_front(&mut self, n: usize) -> Result<(), NoRoom> {
        if n > self.headroom() {
            return Err(NoRoom);
        }
        self.start -= n as u16;
        self.len += n as u16;
        Ok(())
    }

    /// Drops `n` octets from the front of the packet.
    #[inline]
    pub fn pull_front(&mut self, n: usize) -> Result<(), NoRoom> {
        if n > self.len() {
            return Err(NoRoom);
        }
        self.start += n as u16;
        self.len -= n as u16;
        Ok(())
    }

    /// Grows the packet by `n` octets at its end. The new octets hold whatever was there before.
    #[inline]
    pub fn push_back(&mut self, n: usize) -> Result<(), NoRoom> {
        if n > self.tailroom() {
            return Err(NoRoom);
        }
        self.len += n as u16;
        Ok(())
    }

    /// Cuts the packet to `len` octets; a shorter one stays as it is.
    #[inline]
    pub fn truncate(&mut self, len: usize) {
        if len < self.len() {
            self.len = len as u16;
        }
    }

    /// Empties the packet and places it `headroom` octets into the frame (at its end, where that lies
    /// beyond).
    #[inline]
    pub fn reset(&mut self, headroom: usize) {
        self.start = headroom.min(FRAME_SIZE) as u16;
        self.len = 0;
    }

    /// Places the packet; false, and nothing changes, where it would leave the frame.
    #[inline]
    pub(crate) fn place(&mut self, start: usize, len: usize) -> bool {
        let fits = start <= FRAME_SIZE && len <= FRAME_SIZE - start;
        if fits {
            self.start = start as u16;
            self.len = len as u16;
        }
        fits
    }

    /// Identifier of the UMEM that the frame belongs to.
    #[inline]
    pub(crate) fn umem(&self) -> u32 {
        self.umem
    }

    /// Number of the frame in its UMEM.
    #[inline]
    pub(crate) fn index(&self) -> u32 {
        self.index
    }

    /// Offset of the packet's first octet in the UMEM.
    #[inline]
    pub(crate) fn address(&self) -> u64 {
        u64::from(self.index) * FRAME_SIZE as u64 + u64::from(self.start)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Umem;
    use proptest::prelude::*;

    #[derive(Clone, Debug)]
    enum Change {
        PushFront(usize),
        PullFront(usize),
        PushBack(usize),
        Truncate(usize),
        Reset(usize),
    }

    fn change() -> impl Strategy<Value = Change> {
        let amount = prop_oneof![0..80usize, 0..5000usize, Just(usize::MAX), Just(FRAME_SIZE)];
        (0..5u8, amount).prop_map(|(kind, n)| match kind {
            0 => Change::PushFront(n),
            1 => Change::PullFront(n),
            2 => Change::PushBack(n),
            3 => Change::Truncate(n),
            _ => Change::Reset(n),
        })
    }

    proptest! {
        /// The model is a range of 0..FRAME_SIZE in wide integers; whatever is asked for, the packet stays
        /// in its own frame and a refused change changes nothing.
        #[test]
        fn packet_never_leaves_its_frame(changes in proptest::collection::vec(change(), 0..60)) {
            let (umem, mut free) = Umem::new(2).unwrap();
            let mut frame = free.pop().unwrap();
            let home = frame.index();
            let (mut start, mut end) = (HEADROOM as i128, HEADROOM as i128);
            for change in changes {
                let (asked, result) = match change {
                    Change::PushFront(n) => ((start - n as i128, end), frame.push_front(n)),
                    Change::PullFront(n) => ((start + n as i128, end), frame.pull_front(n)),
                    Change::PushBack(n) => ((start, end + n as i128), frame.push_back(n)),
                    Change::Truncate(n) => {
                        frame.truncate(n);
                        ((start, end.min(start + n as i128)), Ok(()))
                    }
                    Change::Reset(n) => {
                        frame.reset(n);
                        let at = (n as i128).min(FRAME_SIZE as i128);
                        ((at, at), Ok(()))
                    }
                };
                let legal = 0 <= asked.0 && asked.0 <= asked.1 && asked.1 <= FRAME_SIZE as i128;
                prop_assert_eq!(result.is_ok(), legal);
                if legal {
                    (start, end) = asked;
                }
                prop_assert_eq!(frame.headroom() as i128, start);
                prop_assert_eq!(frame.len() as i128, end - start);
                prop_assert_eq!(frame.tailroom() as i128, FRAME_SIZE as i128 - end);
                prop_assert_eq!(frame.index(), home);
                prop_assert_eq!(umem.data(&frame).len(), frame.len());
            }
        }
    }

    #[test]
    fn empty_packet_at_the_very_end_stays_in_its_frame() {
        let (umem, mut free) = Umem::new(2).unwrap();
        let mut frame = free.pop().unwrap();
        frame.reset(FRAME_SIZE);
        assert_eq!((frame.headroom(), frame.len(), frame.tailroom()), (FRAME_SIZE, 0, 0));
        frame.push_front(FRAME_SIZE).unwrap();
        assert_eq!(umem.data(&frame).len(), FRAME_SIZE);
    }
}

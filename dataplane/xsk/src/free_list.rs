//! The free frames of one worker.

use crate::frame::{Frame, HEADROOM};

/// LIFO stack of free frames of one UMEM: the frame used last is the one that is still in the cache.
///
/// One worker owns it; there is no lock. It has room for all frames of its UMEM from the start, so that
/// neither `push` nor `pop` allocates.
#[derive(Debug)]
pub struct FreeList {
    umem: u32,
    capacity: usize,
    frames: Vec<Frame>,
}

impl FreeList {
    pub(crate) fn new(umem: u32, capacity: usize) -> FreeList {
        FreeList { umem, capacity, frames: Vec::with_capacity(capacity) }
    }

    /// Takes a free frame: an empty packet at [`HEADROOM`].
    #[inline]
    pub fn pop(&mut self) -> Option<Frame> {
        let mut frame = self.frames.pop()?;
        frame.reset(HEADROOM);
        Some(frame)
    }

    /// Gives a frame back. A frame of another UMEM is a bug of the caller; it is leaked.
    #[inline]
    pub fn push(&mut self, frame: Frame) {
        let own = frame.umem() == self.umem;
        debug_assert!(own, "a frame of another UMEM was pushed to a free list");
        // The second condition always holds, since tokens are unique; it tells the compiler that the
        // vector does not grow.
        if own && self.frames.len() < self.capacity {
            self.frames.push(frame);
        }
    }

    /// Number of free frames.
    #[inline]
    pub fn len(&self) -> usize {
        self.frames.len()
    }

    /// True where no frame is free.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    pub(crate) fn umem(&self) -> u32 {
        self.umem
    }
}

//! The memory of the frames: one memfd, mapped shared.

use crate::frame::{FRAME_SIZE, Frame};
use crate::lending::Lending;
use crate::socket::Sockets;
use crate::{Error, FreeList};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

/// Frames of the largest UMEM (4 GiB).
const MAX_FRAMES: u32 = 1 << 20;

/// Identifiers of UMEMs. Never used twice: the token of a frame may outlive its UMEM.
static NEXT_ID: AtomicU32 = AtomicU32::new(1);

/// An area of frames in a memfd, mapped shared and given to AF_XDP sockets as their UMEM.
///
/// It can be used from several threads: whoever holds the token of a frame reaches the octets of that
/// frame and no others (see the `frame` module). Its pages are locked in memory, are not part of a core dump and are
/// unmapped when the last reference goes.
#[derive(Debug)]
pub struct Umem {
    id: u32,
    frames: u32,
    area: NonNull<u8>,
    fd: OwnedFd,
    pub(crate) lending: Lending,
    pub(crate) sockets: Mutex<Sockets>,
}

// SAFETY: `area` is the only field that is not `Send` by itself. It points to a mapping that this value owns,
// which is not tied to a thread.
unsafe impl Send for Umem {}
// SAFETY: through `&Umem` the area is reached by `data` and `data_mut` only, and these demand a borrow
// of the unique token of the frame, so that threads never have overlapping slices of which one is mutable.
unsafe impl Sync for Umem {}

impl Umem {
    /// Makes an area of `frames` frames (a power of two from 2 to 2^20). All of them are in the free list.
    pub fn new(frames: u32) -> Result<(Arc<Umem>, FreeList), Error> {
        if !frames.is_power_of_two() || !(2..=MAX_FRAMES).contains(&frames) {
            return Err(Error::FrameCount(frames));
        }
        let id = NEXT_ID
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |id| id.checked_add(1))
            .map_err(|_| Error::Identifiers("UMEMs"))?;
        let octets = frames as usize * FRAME_SIZE;
        let fd = memfd(octets)?;
        let area = map(&fd, octets)?;
        let umem = Arc::new(Umem {
            id,
            frames,
            area,
            fd,
            lending: Lending::new(id, frames),
            sockets: Mutex::new(Sockets::default()),
        });
        let mut free = umem.free_list();
        for index in (0..frames).rev() {
            // SAFETY: the UMEM is new and has an identifier that no other one has or had; each of its
            // frames gets its token here, once, and nothing is lent.
            free.push(unsafe { Frame::mint(id, index) });
        }
        Ok((umem, free))
    }

    /// An empty free list for frames of this UMEM, for another thread that takes part in the work.
    pub fn free_list(&self) -> FreeList {
        FreeList::new(self.id, self.frames as usize)
    }

    /// The packet of a frame. Empty for a frame of another UMEM, which is a bug of the caller.
    #[inline]
    pub fn data<'a>(&'a self, frame: &'a Frame) -> &'a [u8] {
        let Some(first) = self.first_octet(frame) else { return &[] };
        // SAFETY: the range lies in the frame (an invariant of `Frame`) and so in the mapping, which
        // lives as long as `self`. The token is unique and borrowed: no `&mut` to the frame exists, and the kernel has it not.
        unsafe { std::slice::from_raw_parts(first.as_ptr(), frame.len()) }
    }

    /// The packet of a frame, to be changed. Empty for a frame of another UMEM, which is a bug of the
    /// caller.
    #[inline]
    #[allow(clippy::mut_from_ref)] // the exclusive borrow is that of the token
    pub fn data_mut<'a>(&'a self, frame: &'a mut Frame) -> &'a mut [u8] {
        let Some(first) = self.first_octet(frame) else { return &mut [] };
        // SAFETY: as in `data`; and the token is borrowed exclusively for as long as the slice lives, so this is the
        // only slice of the frame.
        unsafe { std::slice::from_raw_parts_mut(first.as_ptr(), frame.len()) }
    }

    /// Brings the first line of the packet into the cache.
    #[inline]
    pub fn prefetch(&self, frame: &Frame) {
        #[cfg(target_arch = "x86_64")]
        if let Some(first) = self.first_octet(frame) {
            use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
            // SAFETY: a prefetch reads nothing architecturally and never faults; SSE is part of x86_64.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(first.as_ptr().cast()) };
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = frame;
    }

    /// Number of frames.
    pub fn frames(&self) -> u32 {
        self.frames
    }

    /// Size of the area in octets.
    pub fn octets(&self) -> usize {
        self.frames as usize * FRAME_SIZE
    }

    /// The memfd, to be kept by another process across a restart. Whoever writes to it writes
    /// into packets that this process may be reading.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    pub(crate) fn id(&self) -> u32 {
        self.id
    }

    pub(crate) fn area(&self) -> NonNull<u8> {
        self.area
    }

    /// Where the packet begins; `None` for a frame of another UMEM.
    #[inline]
    fn first_octet(&self, frame: &Frame) -> Option<NonNull<u8>> {
        let own = frame.umem() == self.id;
        debug_assert!(own, "a frame was used with another UMEM than its own");
        // SAFETY: the index of a token of this UMEM is below `frames`, and the packet starts at most
        // FRAME_SIZE octets into the frame, so that the result is in the mapping or one past its end.
        own.then(|| unsafe { self.area.add(frame.address() as usize) })
    }
}

impl Drop for Umem {
    fn drop(&mut self) {
        // SAFETY: the range is the one that `map` returned. Slices of it borrow `self`, so none exists.
        // A socket that still has the UMEM holds the pages themselves, not this mapping.
        unsafe { libc::munmap(self.area.as_ptr().cast(), self.octets()) };
    }
}

/// A memfd of `octets` octets whose size is sealed, so that no holder can make an access beyond its end.
fn memfd(octets: usize) -> Result<OwnedFd, Error> {
    // SAFETY: the name is a C string that lives for the call.
    let raw =
        unsafe { libc::memfd_create(c"tandem-umem".as_ptr(), libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING) };
    if raw < 0 {
        return Err(Error::memory("memfd_create", octets));
    }
    // SAFETY: the descriptor was just made and belongs to nobody else.
    let fd = unsafe { OwnedFd::from_raw_fd(raw) };
    // SAFETY: no memory is passed.
    if unsafe { libc::ftruncate(fd.as_raw_fd(), octets as libc::off_t) } != 0 {
        return Err(Error::memory("ftruncate", octets));
    }
    let seals = libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_SEAL;
    // SAFETY: no memory is passed.
    if unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_ADD_SEALS, seals) } != 0 {
        return Err(Error::memory("fcntl(F_ADD_SEALS)", octets));
    }
    Ok(fd)
}

/// Maps the whole memfd with its pages present, so that the data path takes no page faults.
fn map(fd: &OwnedFd, octets: usize) -> Result<NonNull<u8>, Error> {
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_SHARED | libc::MAP_POPULATE;
    // SAFETY: a new mapping at an address of the kernel's choice touches no existing memory.
    let area = unsafe { libc::mmap(std::ptr::null_mut(), octets, protection, flags, fd.as_raw_fd(), 0) };
    if area == libc::MAP_FAILED {
        return Err(Error::memory("mmap", octets));
    }
    // Packets in clear do not belong into a core dump.
    // SAFETY: the range is the mapping that was just made.
    if unsafe { libc::madvise(area, octets, libc::MADV_DONTDUMP) } != 0 {
        let error = Error::memory("madvise(MADV_DONTDUMP)", octets);
        // SAFETY: as above, and nobody has seen the mapping yet.
        unsafe { libc::munmap(area, octets) };
        return Err(error);
    }
    NonNull::new(area.cast()).ok_or_else(|| Error::memory("mmap", octets))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::HEADROOM;
    use proptest::prelude::*;
    use std::collections::VecDeque;

    #[test]
    fn only_powers_of_two_make_a_umem() {
        for frames in [0, 1, 3, 1000, (1 << 20) + 1, 1 << 21, u32::MAX] {
            assert!(matches!(Umem::new(frames), Err(Error::FrameCount(n)) if n == frames), "{frames}");
        }
        let (umem, free) = Umem::new(8).unwrap();
        assert_eq!((umem.frames(), free.len(), umem.octets()), (8, 8, 8 * FRAME_SIZE));
    }

    #[test]
    fn size_of_the_memfd_is_sealed() {
        let (umem, _free) = Umem::new(2).unwrap();
        let file = std::fs::File::from(umem.fd().try_clone_to_owned().unwrap());
        assert_eq!(file.metadata().unwrap().len(), 2 * FRAME_SIZE as u64);
        assert!(file.set_len(0).is_err());
        assert!(file.set_len(1 << 20).is_err());
    }

    #[test]
    fn memfd_and_frames_are_the_same_memory() {
        use std::os::unix::fs::FileExt;
        let (umem, mut free) = Umem::new(2).unwrap();
        let mut frame = free.pop().unwrap();
        frame.push_back(5).unwrap();
        umem.data_mut(&mut frame).copy_from_slice(b"hello");
        let file = std::fs::File::from(umem.fd().try_clone_to_owned().unwrap());
        let mut seen = [0; 5];
        file.read_exact_at(&mut seen, frame.address()).unwrap();
        assert_eq!(&seen, b"hello");
    }

    /// In release builds a foreign frame gives no access; debug builds stop at the bug.
    #[test]
    fn frame_of_another_umem_gives_no_access() {
        let (_one, mut free) = Umem::new(2).unwrap();
        let (other, _) = Umem::new(2).unwrap();
        let mut frame = free.pop().unwrap();
        frame.push_back(10).unwrap();
        let seen = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| other.data(&frame).len()));
        match cfg!(debug_assertions) {
            true => assert!(seen.is_err()),
            false => assert_eq!(seen.unwrap(), 0),
        }
    }

    #[test]
    fn frames_move_between_threads_with_their_octets() {
        let (umem, mut free) = Umem::new(64).unwrap();
        let (send, receive) = std::sync::mpsc::channel::<Frame>();
        let reader = {
            let umem = umem.clone();
            std::thread::spawn(move || {
                let mut free = umem.free_list();
                for frame in receive {
                    let n = frame.len();
                    assert!(umem.data(&frame).iter().all(|&octet| octet == n as u8));
                    free.push(frame);
                }
                free.len()
            })
        };
        for n in 1..=64 {
            let mut frame = free.pop().unwrap();
            frame.push_back(n).unwrap();
            umem.data_mut(&mut frame).fill(n as u8);
            send.send(frame).unwrap();
        }
        drop(send);
        assert_eq!(reader.join().unwrap(), 64);
    }

    proptest! {
        /// Whatever order frames are taken and given back in, live tokens are of distinct frames: what
        /// is written through one is never changed through another.
        #[test]
        fn live_tokens_never_overlap(steps in proptest::collection::vec((any::<bool>(), 1..3840usize), 1..80)) {
            let (umem, mut free) = Umem::new(16).unwrap();
            let mut live: VecDeque<(u8, Frame)> = VecDeque::new();
            for (number, (take, len)) in steps.into_iter().enumerate() {
                if take && let Some(mut frame) = free.pop() {
                    prop_assert_eq!((frame.headroom(), frame.len()), (HEADROOM, 0));
                    frame.push_back(len).unwrap();
                    frame.push_front(HEADROOM).unwrap();
                    umem.data_mut(&mut frame).fill(number as u8);
                    live.push_back((number as u8, frame));
                } else if let Some((_, frame)) = live.pop_front() {
                    free.push(frame);
                }
                prop_assert_eq!(live.len() + free.len(), 16);
                for (mark, frame) in &live {
                    prop_assert!(umem.data(frame).iter().all(|octet| octet == mark));
                }
            }
        }
    }
}

//! A memfd of fixed size, mapped shared.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, AtomicU64};

/// Seals that a segment must carry: its size never changes, so that no holder of the descriptor can make
/// an access fault. (`F_SEAL_SEAL`: nobody adds one later, such as one against writing.)
const SEALS: libc::c_int = libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_SEAL;

/// Why a segment could not be made or adopted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SegmentError {
    /// The name holds a zero octet.
    #[error("the name of a segment must not hold a zero octet")]
    Name,
    /// A segment has at least one octet and at most `isize::MAX`.
    #[error("a segment of {0} octets is not possible")]
    Length(usize),
    /// A system call failed.
    #[error("{operation} failed: {source}")]
    System {
        /// The system call.
        operation: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// The descriptor is no memfd.
    #[error("the descriptor is no memfd")]
    NotAMemfd,
    /// The size of the memfd is not sealed.
    #[error("the memfd carries the seals {found:#x}, but needs {needed:#x}: its size could change under us")]
    NotSealed {
        /// `F_SEAL_` bits that it carries.
        found: i32,
        /// `F_SEAL_` bits that it needs.
        needed: i32,
    },
    /// Writing is sealed off.
    #[error("the memfd cannot be written to: it carries the seals {found:#x}")]
    ReadOnly {
        /// `F_SEAL_` bits that it carries.
        found: i32,
    },
}

impl SegmentError {
    fn last(operation: &'static str) -> SegmentError {
        SegmentError::System { operation, source: io::Error::last_os_error() }
    }
}

/// A type that may lie in shared memory.
///
/// # Safety
/// Every bit pattern is a value, all octets lie in atomics (so that concurrent changes by other processes
/// are no data races), there is no padding, and nothing needs to be dropped.
pub(crate) unsafe trait Shared: Sync {}

// SAFETY: an atomic integer.
unsafe impl Shared for AtomicU64 {}
// SAFETY: an atomic integer.
unsafe impl Shared for AtomicU32 {}

/// A memfd whose size is sealed, mapped shared, left out of core dumps. Only touched pages cost memory.
#[derive(Debug)]
pub struct Segment {
    base: NonNull<u8>,
    len: usize,
    fd: OwnedFd,
}

// SAFETY: the mapping belongs to this value and is not tied to a thread.
unsafe impl Send for Segment {}
// SAFETY: the memory is given out as atomics only (see `Shared`).
unsafe impl Sync for Segment {}

impl Segment {
    /// Makes a segment of `len` octets, all zero. The name appears in `/proc/<pid>/maps` only.
    pub fn create(name: &str, len: usize) -> Result<Segment, SegmentError> {
        let name = CString::new(name).map_err(|_| SegmentError::Name)?;
        let size = libc::off_t::try_from(len).map_err(|_| SegmentError::Length(len))?;
        if size == 0 {
            return Err(SegmentError::Length(len));
        }
        // SAFETY: the name is a C string that lives for the call.
        let raw = unsafe { libc::memfd_create(name.as_ptr(), libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING) };
        if raw < 0 {
            return Err(SegmentError::last("memfd_create"));
        }
        // SAFETY: the descriptor was just made and belongs to nobody else.
        let fd = unsafe { OwnedFd::from_raw_fd(raw) };
        // SAFETY: no memory is passed.
        if unsafe { libc::ftruncate(raw, size) } != 0 {
            return Err(SegmentError::last("ftruncate"));
        }
        // SAFETY: no memory is passed.
        if unsafe { libc::fcntl(raw, libc::F_ADD_SEALS, SEALS) } != 0 {
            return Err(SegmentError::last("fcntl(F_ADD_SEALS)"));
        }
        Segment::map(fd, len)
    }

    /// Maps a segment that this or another process has made. Its size and seals are checked; what it
    /// holds is for the caller to check.
    pub fn adopt(fd: OwnedFd) -> Result<Segment, SegmentError> {
        // SAFETY: no memory is passed.
        let found = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GET_SEALS) };
        if found < 0 {
            return Err(SegmentError::NotAMemfd);
        }
        if found & SEALS != SEALS {
            return Err(SegmentError::NotSealed { found, needed: SEALS });
        }
        if found & (libc::F_SEAL_WRITE | libc::F_SEAL_FUTURE_WRITE) != 0 {
            return Err(SegmentError::ReadOnly { found });
        }
        // SAFETY: the structure consists of integers, for which zero is a value.
        let mut status: libc::stat = unsafe { std::mem::zeroed() };
        // SAFETY: the structure lives for the call.
        if unsafe { libc::fstat(fd.as_raw_fd(), &raw mut status) } != 0 {
            return Err(SegmentError::last("fstat"));
        }
        // The size is final: the seals were checked before.
        let len = usize::try_from(status.st_size).unwrap_or(0);
        if len == 0 {
            return Err(SegmentError::Length(len));
        }
        Segment::map(fd, len)
    }

    fn map(fd: OwnedFd, len: usize) -> Result<Segment, SegmentError> {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice touches no existing memory.
        let area =
            unsafe { libc::mmap(std::ptr::null_mut(), len, protection, libc::MAP_SHARED, fd.as_raw_fd(), 0) };
        if area == libc::MAP_FAILED {
            return Err(SegmentError::last("mmap"));
        }
        let base = NonNull::new(area.cast()).ok_or(SegmentError::Length(len))?;
        let segment = Segment { base, len, fd };
        // SAFETY: the range is the mapping that was just made.
        if unsafe { libc::madvise(area, len, libc::MADV_DONTDUMP) } != 0 {
            return Err(SegmentError::last("madvise(MADV_DONTDUMP)"));
        }
        Ok(segment)
    }

    /// The memfd, to be kept by another process across a restart.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Size in octets.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Never true: a segment has at least one octet.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The `T` at `offset` octets; `None` where it does not lie inside or is not aligned.
    #[inline]
    pub(crate) fn at<T: Shared>(&self, offset: usize) -> Option<&T> {
        self.slice(offset, 1)?.first()
    }

    /// `count` values of `T` from `offset` octets on; `None` where they do not lie inside or are not aligned.
    #[inline]
    pub(crate) fn slice<T: Shared>(&self, offset: usize, count: usize) -> Option<&[T]> {
        let octets = size_of::<T>().checked_mul(count)?;
        // A mapping begins at a page, so that the offset alone decides on the alignment.
        let aligned = offset.is_multiple_of(align_of::<T>()) && align_of::<T>() <= 4096;
        if !aligned || offset.checked_add(octets)? > self.len {
            return None;
        }
        // SAFETY: the range lies in the mapping, which lives as long as `self` and whose size cannot change,
        // and is aligned. Any octets are a `T`, and concurrent changes meet atomics only (`Shared`).
        Some(unsafe { std::slice::from_raw_parts(self.base.add(offset).cast::<T>().as_ptr(), count) })
    }
}

impl Drop for Segment {
    fn drop(&mut self) {
        // SAFETY: the range is the one that was mapped; borrows of it borrow `self`.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.len) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::sync::atomic::Ordering;

    fn memfd(seals: libc::c_int, len: u64) -> OwnedFd {
        // SAFETY: the name is a C string; the descriptor is new.
        let fd = unsafe {
            let raw = libc::memfd_create(c"test".as_ptr(), libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING);
            assert!(raw >= 0);
            OwnedFd::from_raw_fd(raw)
        };
        File::from(fd.try_clone().unwrap()).set_len(len).unwrap();
        // SAFETY: no memory is passed.
        assert_eq!(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_ADD_SEALS, seals) }, 0);
        fd
    }

    #[test]
    fn both_mappings_see_the_same_memory() {
        let one = Segment::create("tandem-test", 8192).unwrap();
        let two = Segment::adopt(one.fd().try_clone_to_owned().unwrap()).unwrap();
        assert_eq!(two.len(), 8192);
        one.at::<AtomicU64>(4096).unwrap().store(42, Ordering::Relaxed);
        assert_eq!(two.at::<AtomicU64>(4096).unwrap().load(Ordering::Relaxed), 42);
        drop(one);
        assert_eq!(two.at::<AtomicU64>(4096).unwrap().load(Ordering::Relaxed), 42);
    }

    #[test]
    fn accesses_beyond_the_end_or_unaligned_are_refused() {
        let segment = Segment::create("tandem-test", 100).unwrap();
        assert!(segment.at::<AtomicU64>(88).is_some());
        assert!(segment.at::<AtomicU64>(96).is_none());
        assert!(segment.at::<AtomicU64>(4).is_none());
        assert!(segment.at::<AtomicU64>(usize::MAX - 7).is_none());
        assert_eq!(segment.slice::<AtomicU32>(0, 25).unwrap().len(), 25);
        assert!(segment.slice::<AtomicU32>(0, 26).is_none());
        assert!(segment.slice::<AtomicU64>(0, usize::MAX).is_none());
    }

    #[test]
    fn size_cannot_change_any_more() {
        let segment = Segment::create("tandem-test", 4096).unwrap();
        let file = File::from(segment.fd().try_clone_to_owned().unwrap());
        assert!(file.set_len(0).is_err());
        assert!(file.set_len(8192).is_err());
    }

    #[test]
    fn memfd_with_missing_or_wrong_seals_is_refused() {
        let shrink = libc::F_SEAL_SHRINK;
        assert!(matches!(
            Segment::adopt(memfd(shrink, 4096)),
            Err(SegmentError::NotSealed { found, needed: SEALS }) if found == shrink
        ));
        assert!(matches!(Segment::adopt(memfd(0, 4096)), Err(SegmentError::NotSealed { found: 0, .. })));
        let read_only = SEALS | libc::F_SEAL_WRITE;
        assert!(matches!(Segment::adopt(memfd(read_only, 4096)), Err(SegmentError::ReadOnly { .. })));
        assert!(matches!(Segment::adopt(memfd(SEALS, 0)), Err(SegmentError::Length(0))));
        assert!(Segment::adopt(memfd(SEALS, 4096)).is_ok());
    }

    #[test]
    fn other_descriptors_are_refused() {
        let null = OwnedFd::from(File::open("/dev/null").unwrap());
        assert!(matches!(Segment::adopt(null), Err(SegmentError::NotAMemfd)));
    }

    #[test]
    fn impossible_lengths_and_names_are_refused() {
        assert!(matches!(Segment::create("a\0b", 4096), Err(SegmentError::Name)));
        assert!(matches!(Segment::create("a", 0), Err(SegmentError::Length(0))));
        assert!(matches!(Segment::create("a", usize::MAX), Err(SegmentError::Length(usize::MAX))));
    }

    /// Pages in use by this process of the mapping, from /proc/self/smaps.
    fn resident_kilobytes(segment: &Segment) -> u64 {
        let start = format!("{:x}-", segment.base.as_ptr() as usize);
        let smaps = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let entry = smaps.lines().skip_while(|line| !line.starts_with(&start));
        let rss = entry.skip(1).find(|line| line.starts_with("Rss:")).unwrap();
        rss.split_whitespace().nth(1).unwrap().parse().unwrap()
    }

    #[test]
    fn only_touched_pages_cost_memory_and_none_is_dumped() {
        let segment = Segment::create("tandem-test", 1 << 30).unwrap();
        segment.at::<AtomicU64>(1 << 29).unwrap().store(1, Ordering::Relaxed);
        let kilobytes = resident_kilobytes(&segment);
        assert!((4..=2048).contains(&kilobytes), "{kilobytes} kB");
        let start = format!("{:x}-", segment.base.as_ptr() as usize);
        let smaps = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let flags = smaps.lines().skip_while(|line| !line.starts_with(&start));
        let flags = flags.skip(1).find(|line| line.starts_with("VmFlags:")).unwrap();
        assert!(flags.split_whitespace().any(|flag| flag == "dd"), "{flags}");
    }
}

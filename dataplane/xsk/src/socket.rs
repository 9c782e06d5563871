//! The AF_XDP socket: options, ring mappings, bind. Every system call of the crate on a socket is here.

use crate::Error;
use crate::ring::RingMemory;
use crate::sync::AtomicU32;
use crate::umem::Umem;
use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::{Arc, Weak};
use std::time::Duration;

/// A queue refuses a new socket for some 10 to 25 ms after the last one was closed, because the kernel
/// takes that down later. A second is ample.
const BIND_TRIES: u32 = 200;
const BIND_PAUSE: Duration = Duration::from_millis(5);

/// How long a closed socket may be held by a child on its way to another program.
const CLOSE_TRIES: u32 = 100;
const CLOSE_PAUSE: Duration = Duration::from_millis(1);

/// The sockets that share one UMEM. A later one joins any that is alive.
#[derive(Debug, Default)]
pub(crate) struct Sockets {
    members: Vec<Weak<Socket>>,
}

impl Sockets {
    pub(crate) fn any(&mut self) -> Option<Arc<Socket>> {
        self.members.retain(|member| member.strong_count() > 0);
        self.members.iter().find_map(Weak::upgrade)
    }

    pub(crate) fn add(&mut self, socket: &Arc<Socket>) {
        self.members.push(Arc::downgrade(socket));
    }
}

/// An AF_XDP socket.
#[derive(Debug)]
pub(crate) struct Socket {
    fd: OwnedFd,
}

impl Socket {
    pub(crate) fn new() -> Result<Socket, Error> {
        // SAFETY: no memory is passed.
        let raw = unsafe { libc::socket(libc::AF_XDP, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
        if raw < 0 {
            return Err(Error::socket("socket(AF_XDP)"));
        }
        // SAFETY: the descriptor was just made and belongs to nobody else.
        Ok(Socket { fd: unsafe { OwnedFd::from_raw_fd(raw) } })
    }

    /// Registers the area as the UMEM of this socket (`XDP_UMEM_REG`).
    pub(crate) fn register_umem(&self, umem: &Umem) -> Result<(), Error> {
        let registration = libc::xdp_umem_reg {
            addr: umem.area().as_ptr() as u64,
            len: umem.octets() as u64,
            chunk_size: crate::FRAME_SIZE as u32,
            headroom: 0,
            flags: 0,
            tx_metadata_len: 0,
        };
        self.set(libc::XDP_UMEM_REG, &registration, "setsockopt(XDP_UMEM_REG)")
    }

    /// Makes a ring of `size` entries (`XDP_RX_RING` and its siblings).
    pub(crate) fn make_ring(
        &self,
        option: libc::c_int,
        size: u32,
        operation: &'static str,
    ) -> Result<(), Error> {
        self.set(option, &size, operation)
    }

    /// Where the indices, flags and entries lie in the mappings.
    pub(crate) fn offsets(&self) -> Result<libc::xdp_mmap_offsets, Error> {
        self.get(libc::XDP_MMAP_OFFSETS, "getsockopt(XDP_MMAP_OFFSETS)")
    }

    pub(crate) fn statistics(&self) -> Result<libc::xdp_statistics, Error> {
        self.get(libc::XDP_STATISTICS, "getsockopt(XDP_STATISTICS)")
    }

    pub(crate) fn is_zero_copy(&self) -> Result<bool, Error> {
        let options: libc::xdp_options = self.get(libc::XDP_OPTIONS, "getsockopt(XDP_OPTIONS)")?;
        Ok(options.flags & libc::XDP_OPTIONS_ZEROCOPY != 0)
    }

    /// Binds to a queue, patiently where its last socket is still being taken down. With `shared`, the
    /// UMEM of that socket is used, and `flags` must be empty: the mode is that of the first socket.
    pub(crate) fn bind(
        &self,
        ifindex: u32,
        queue: u32,
        flags: u16,
        shared: Option<&Socket>,
    ) -> Result<(), Error> {
        let address = libc::sockaddr_xdp {
            sxdp_family: libc::AF_XDP as u16,
            sxdp_flags: if shared.is_some() { libc::XDP_SHARED_UMEM } else { flags },
            sxdp_ifindex: ifindex,
            sxdp_queue_id: queue,
            sxdp_shared_umem_fd: shared.map_or(0, |socket| socket.fd.as_raw_fd() as u32),
        };
        let mut tries = BIND_TRIES;
        loop {
            // SAFETY: the address lives for the call and its true size is passed.
            let result = unsafe {
                libc::bind(
                    self.fd.as_raw_fd(),
                    (&raw const address).cast(),
                    size_of::<libc::sockaddr_xdp>() as libc::socklen_t,
                )
            };
            if result == 0 {
                return Ok(());
            }
            let source = io::Error::last_os_error();
            tries -= 1;
            if source.raw_os_error() != Some(libc::EBUSY) || tries == 0 {
                return Err(Error::Bind { ifindex, queue, source });
            }
            std::thread::sleep(BIND_PAUSE);
        }
    }

    /// Maps one ring of this socket.
    pub(crate) fn map_ring<T: Copy>(
        &self,
        page_offset: libc::off_t,
        offsets: &libc::xdp_ring_offset,
        capacity: u32,
    ) -> Result<MappedRing<T>, Error> {
        let octets = offsets.desc as usize + capacity as usize * size_of::<T>();
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice touches no existing memory.
        let area = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                octets,
                protection,
                libc::MAP_SHARED | libc::MAP_POPULATE,
                self.fd.as_raw_fd(),
                page_offset,
            )
        };
        if area == libc::MAP_FAILED {
            return Err(Error::socket("mmap of a ring"));
        }
        let base = NonNull::new(area.cast::<u8>()).ok_or(Error::socket("mmap of a ring"))?;
        // SAFETY: the kernel promises that these offsets, from XDP_MMAP_OFFSETS, lie in the mapping of
        // a ring of this size and are aligned for what is there.
        unsafe {
            Ok(MappedRing {
                base,
                octets,
                producer: base.add(offsets.producer as usize).cast(),
                consumer: base.add(offsets.consumer as usize).cast(),
                flags: base.add(offsets.flags as usize).cast(),
                entries: base.add(offsets.desc as usize).cast(),
                capacity,
                entry: PhantomData,
            })
        }
    }

    /// Makes the kernel send what is in the transmit ring: in copy mode some 32 packets a call.
    pub(crate) fn kick_transmit(&self) -> io::Result<()> {
        // SAFETY: a message without octets and without address; no memory is passed.
        let result = unsafe {
            libc::sendto(self.fd.as_raw_fd(), std::ptr::null(), 0, libc::MSG_DONTWAIT, std::ptr::null(), 0)
        };
        if result >= 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    /// Makes the kernel look at the fill ring.
    pub(crate) fn kick_receive(&self) -> io::Result<()> {
        // SAFETY: an empty buffer and no address; no memory is passed.
        let result = unsafe {
            libc::recvfrom(
                self.fd.as_raw_fd(),
                std::ptr::null_mut(),
                0,
                libc::MSG_DONTWAIT,
                std::ptr::null_mut(),
                std::ptr::null_mut(),
            )
        };
        if result >= 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    fn set<T>(&self, option: libc::c_int, value: &T, operation: &'static str) -> Result<(), Error> {
        // SAFETY: the value lives for the call and its true size is passed.
        let result = unsafe {
            libc::setsockopt(
                self.fd.as_raw_fd(),
                libc::SOL_XDP,
                option,
                (&raw const *value).cast(),
                size_of::<T>() as libc::socklen_t,
            )
        };
        if result == 0 { Ok(()) } else { Err(Error::socket(operation)) }
    }

    fn get<T: Answer>(&self, option: libc::c_int, operation: &'static str) -> Result<T, Error> {
        // SAFETY: zero is a value of an `Answer`.
        let mut value: T = unsafe { std::mem::zeroed() };
        let mut len = size_of::<T>() as libc::socklen_t;
        // SAFETY: the kernel writes at most `len` octets to the value, and any octets are an `Answer`.
        let result = unsafe {
            libc::getsockopt(
                self.fd.as_raw_fd(),
                libc::SOL_XDP,
                option,
                (&raw mut value).cast(),
                &raw mut len,
            )
        };
        if result != 0 {
            return Err(Error::socket(operation));
        }
        if len as usize != size_of::<T>() {
            // A kernel older than the structure; its rings would be misread.
            let source = io::Error::from_raw_os_error(libc::ENOPROTOOPT);
            return Err(Error::Socket { operation, source });
        }
        Ok(value)
    }

    /// Closes the socket. True where it is known to be gone; false where somebody else (a duplicate of
    /// the descriptor, another process) keeps it alive.
    ///
    /// An epoll instance lists a file as long as the file is open anywhere, so it is asked after the close. A child
    /// that another thread has just forked holds the file until it executes its program, hence the patience.
    pub(crate) fn close(self) -> bool {
        // SAFETY: no memory is passed.
        let raw = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
        if raw < 0 {
            return false;
        }
        // SAFETY: the descriptor was just made and belongs to nobody else.
        let epoll = unsafe { OwnedFd::from_raw_fd(raw) };
        let mut event = libc::epoll_event { events: 0, u64: 0 };
        // SAFETY: the event lives for the call.
        let added = unsafe {
            libc::epoll_ctl(epoll.as_raw_fd(), libc::EPOLL_CTL_ADD, self.fd.as_raw_fd(), &raw mut event)
        };
        if added != 0 {
            return false;
        }
        drop(self);
        let list = format!("/proc/self/fdinfo/{}", epoll.as_raw_fd());
        for _ in 0..CLOSE_TRIES {
            let Ok(watched) = std::fs::read_to_string(&list) else { return false };
            if !watched.lines().any(|line| line.starts_with("tfd:")) {
                return true;
            }
            std::thread::sleep(CLOSE_PAUSE);
        }
        false
    }
}

/// What the kernel answers to getsockopt.
///
/// # Safety
/// The type consists of integers only: any octets are a value.
unsafe trait Answer {}
// SAFETY: integers only.
unsafe impl Answer for libc::xdp_mmap_offsets {}
// SAFETY: integers only.
unsafe impl Answer for libc::xdp_statistics {}
// SAFETY: an integer only.
unsafe impl Answer for libc::xdp_options {}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// One ring of a socket, mapped. The mapping keeps the kernel's ring alive, whatever becomes of the socket.
#[derive(Debug)]
pub(crate) struct MappedRing<T> {
    base: NonNull<u8>,
    octets: usize,
    producer: NonNull<AtomicU32>,
    consumer: NonNull<AtomicU32>,
    flags: NonNull<AtomicU32>,
    entries: NonNull<T>,
    capacity: u32,
    entry: PhantomData<T>,
}

// SAFETY: the pointers lead into a mapping that this value owns, which is not tied to a thread; entries
// are plain integers.
unsafe impl<T: Copy + Send> Send for MappedRing<T> {}

impl<T> MappedRing<T> {
    /// True where the kernel wants a system call before it looks at this ring again.
    #[inline]
    pub(crate) fn needs_wakeup(&self) -> bool {
        // SAFETY: the word lies in the mapping, which lives as long as `self`.
        let flags = unsafe { self.flags.as_ref() };
        flags.load(std::sync::atomic::Ordering::Relaxed) & libc::XDP_RING_NEED_WAKEUP != 0
    }
}

// SAFETY: the kernel makes rings of power-of-two sizes only (others are refused before); the pointers are
// set once; slots are masked.
unsafe impl<T: Copy> RingMemory for MappedRing<T> {
    type Entry = T;

    #[inline]
    fn capacity(&self) -> u32 {
        self.capacity
    }

    #[inline]
    fn producer(&self) -> &AtomicU32 {
        // SAFETY: the word lies in the mapping, which lives as long as `self`; it is accessed as an atomic only.
        unsafe { self.producer.as_ref() }
    }

    #[inline]
    fn consumer(&self) -> &AtomicU32 {
        // SAFETY: as for `producer`.
        unsafe { self.consumer.as_ref() }
    }

    #[inline]
    unsafe fn read(&self, index: u32) -> T {
        // SAFETY: the masked index is below the capacity, so the slot lies in the mapping. Volatile, because the
        // other side is not part of this program.
        unsafe { self.entries.add((index & (self.capacity - 1)) as usize).read_volatile() }
    }

    #[inline]
    unsafe fn write(&self, index: u32, entry: T) {
        // SAFETY: as for `read`.
        unsafe { self.entries.add((index & (self.capacity - 1)) as usize).write_volatile(entry) }
    }
}

impl<T> Drop for MappedRing<T> {
    fn drop(&mut self) {
        // SAFETY: the range is the one that `map_ring` mapped; borrows of it borrow `self`.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.octets) };
    }
}

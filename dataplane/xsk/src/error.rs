//! What can go wrong while memory is set up and sockets are opened. Nothing here occurs per packet.

use std::io;

/// Why a UMEM could not be made or a socket could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The number of frames is no power of two, or outside of 2 to 2^20 frames.
    #[error("a UMEM of {0} frames is not possible: it takes a power of two from 2 to 1048576")]
    FrameCount(u32),
    /// The ring size is no power of two, or outside of 32 to 2^15 descriptors.
    #[error("a ring of {0} descriptors is not possible: it takes a power of two from 32 to 32768")]
    RingSize(u32),
    /// The free list belongs to another UMEM.
    #[error("the free list belongs to another UMEM")]
    ForeignFreeList,
    /// There is no free frame to fill the receive side with.
    #[error("the free list is empty, so that the fill ring cannot be filled")]
    NoFrames,
    /// The identifiers of UMEMs or of ports are used up; they are never used twice.
    #[error("the identifiers for {0} are used up in this process")]
    Identifiers(&'static str),
    /// Memory could not be made, sized or mapped.
    #[error("{operation} failed for {octets} octets: {source}")]
    Memory {
        /// The system call.
        operation: &'static str,
        /// Size asked for, in octets.
        octets: usize,
        /// What the kernel said.
        source: io::Error,
    },
    /// A system call on the socket failed.
    #[error("{operation} on the AF_XDP socket failed: {source}")]
    Socket {
        /// The system call, with the option it set or asked for.
        operation: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// The socket could not be bound to the queue of the interface.
    #[error("cannot bind an AF_XDP socket to queue {queue} of interface {ifindex}: {source}{}", hint(.source))]
    Bind {
        /// Index of the interface.
        ifindex: u32,
        /// Receive and transmit queue.
        queue: u32,
        /// What the kernel said.
        source: io::Error,
    },
    /// Zero-copy was required, but the socket came up in copy mode.
    #[error("queue {queue} of interface {ifindex} works in copy mode only, and zero-copy was required")]
    NoZeroCopy {
        /// Index of the interface.
        ifindex: u32,
        /// Receive and transmit queue.
        queue: u32,
    },
}

/// What an operator can do about a refused bind.
fn hint(source: &io::Error) -> &'static str {
    match source.raw_os_error() {
        Some(libc::EBUSY) => " (another AF_XDP socket holds the queue)",
        Some(libc::EINVAL) => " (does the interface have this queue? a veth needs its queues at creation)",
        Some(libc::EOPNOTSUPP) => " (the driver has no zero-copy mode)",
        Some(libc::EPERM) => " (CAP_NET_RAW is needed)",
        Some(libc::ENODEV) => " (there is no such interface in this network namespace)",
        Some(libc::ENETDOWN) => " (the interface is down)",
        _ => "",
    }
}

impl Error {
    pub(crate) fn memory(operation: &'static str, octets: usize) -> Error {
        Error::Memory { operation, octets, source: io::Error::last_os_error() }
    }

    pub(crate) fn socket(operation: &'static str) -> Error {
        Error::Socket { operation, source: io::Error::last_os_error() }
    }
}

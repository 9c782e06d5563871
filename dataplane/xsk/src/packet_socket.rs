//! Frames of one EtherType by way of the kernel, for what is too rare for rings.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// An `AF_PACKET` socket on one interface: sends whole frames, receives those of one EtherType that the interface
/// takes anyway (it is not made promiscuous). It never blocks.
#[derive(Debug)]
pub struct PacketSocket(File);

impl PacketSocket {
    /// Opens it on interface `ifindex`, in the network namespace of the calling thread.
    ///
    /// # Errors
    /// What the kernel says (there is no such interface; CAP_NET_RAW is missing).
    pub fn open(ifindex: u32, ethertype: u16) -> io::Result<Self> {
        let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
        // Protocol 0: nothing is received before the socket is bound to its interface.
        // SAFETY: no memory is passed; the result is checked before it is used as a descriptor.
        let socket = unsafe { libc::socket(libc::AF_PACKET, kind, 0) };
        if socket < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor was opened just now and nobody else owns it.
        let socket = unsafe { OwnedFd::from_raw_fd(socket) };
        let address = libc::sockaddr_ll {
            sll_family: libc::AF_PACKET as u16,
            sll_protocol: ethertype.to_be(),
            sll_ifindex: i32::try_from(ifindex).map_err(|_| io::ErrorKind::InvalidInput)?,
            sll_hatype: 0,
            sll_pkttype: 0,
            sll_halen: 0,
            sll_addr: [0; 8],
        };
        // SAFETY: `address` is a valid sockaddr_ll that outlives the call, and its size is given.
        let status = unsafe {
            libc::bind(
                socket.as_raw_fd(),
                std::ptr::from_ref(&address).cast(),
                size_of::<libc::sockaddr_ll>() as libc::socklen_t,
            )
        };
        if status != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(Self(File::from(socket)))
    }

    /// Sends a frame, Ethernet header included.
    ///
    /// # Errors
    /// What the kernel says; `WouldBlock` where its queue is full.
    pub fn send(&self, frame: &[u8]) -> io::Result<()> {
        (&self.0).write(frame).map(drop)
    }

    /// The next frame, Ethernet header included, cut off where `buffer` ends; its length.
    ///
    /// # Errors
    /// `WouldBlock` where there is none; that the interface went down, once.
    pub fn receive(&self, buffer: &mut [u8]) -> io::Result<usize> {
        (&self.0).read(buffer)
    }
}

impl AsFd for PacketSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

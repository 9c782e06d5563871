//! A further unicast MAC address for an interface.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// Octets of an Ethernet address.
const MAC_LEN: u16 = 6;

/// Makes an interface receive frames for a MAC address that is not its own, for as long as this value
/// lives: the address joins the card's unicast filter; where the driver has none, the kernel makes the
/// interface promiscuous.
#[derive(Debug)]
pub struct UnicastMembership {
    _socket: OwnedFd,
}

impl UnicastMembership {
    /// Adds `mac` to interface `ifindex`, in the network namespace of the calling thread.
    ///
    /// # Errors
    /// What the kernel says (there is no such interface; CAP_NET_RAW is missing).
    pub fn join(ifindex: u32, mac: [u8; 6]) -> io::Result<Self> {
        // Protocol 0: the socket itself receives nothing.
        // SAFETY: no memory is passed; the result is checked before it is used as a descriptor.
        let socket = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
        if socket < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor was opened just now and nobody else owns it.
        let socket = unsafe { OwnedFd::from_raw_fd(socket) };
        let mut request = libc::packet_mreq {
            mr_ifindex: i32::try_from(ifindex).map_err(|_| io::ErrorKind::InvalidInput)?,
            mr_type: libc::PACKET_MR_UNICAST as u16,
            mr_alen: MAC_LEN,
            mr_address: [0; 8],
        };
        request.mr_address[..mac.len()].copy_from_slice(&mac);
        // SAFETY: `request` is a valid packet_mreq that outlives the call, and its size is given.
        let status = unsafe {
            libc::setsockopt(
                socket.as_raw_fd(),
                libc::SOL_PACKET,
                libc::PACKET_ADD_MEMBERSHIP,
                std::ptr::from_ref(&request).cast(),
                size_of::<libc::packet_mreq>() as libc::socklen_t,
            )
        };
        if status != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(Self { _socket: socket })
    }
}

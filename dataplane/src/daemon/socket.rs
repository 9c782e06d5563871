//! The socket to the control process: `SOCK_SEQPACKET`, one message a datagram, descriptors beside it.

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType, accept_with, bind, listen,
    recvmsg, sendmsg, socket_with,
};
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use tandem_api::dataplane::MESSAGE_MAX;

/// Most descriptors with one message.
const DESCRIPTORS: usize = 4;

/// Waits for control processes.
pub struct Listener(OwnedFd);

impl Listener {
    /// Binds `path`; what an earlier process left there is removed. Only the owner may connect.
    ///
    /// # Errors
    /// If the folder does not exist, or another process listens there.
    pub fn bind(path: &Path) -> io::Result<Self> {
        let address = SocketAddrUnix::new(path)?;
        let socket = new_socket()?;
        match std::fs::symlink_metadata(path) {
            Ok(_) if rustix::net::connect(new_socket()?, &address).is_ok() => {
                return Err(io::Error::new(io::ErrorKind::AddrInUse, "another process listens there"));
            }
            Ok(_) => std::fs::remove_file(path)?,
            Err(_) => {}
        }
        bind(&socket, &address)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
        listen(&socket, 4)?;
        Ok(Self(socket))
    }

    /// The next control process.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn accept(&self) -> io::Result<Connection> {
        Ok(Connection(accept_with(&self.0, SocketFlags::CLOEXEC)?))
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

fn new_socket() -> io::Result<OwnedFd> {
    Ok(socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?)
}

/// A connected control process.
pub struct Connection(OwnedFd);

impl Connection {
    /// The next message and the descriptors that came with it; an empty message is the end.
    ///
    /// # Errors
    /// If the connection broke.
    pub fn receive(&self) -> io::Result<(Vec<u8>, Vec<OwnedFd>)> {
        let mut buffer = vec![0; MESSAGE_MAX];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let received =
            recvmsg(&self.0, &mut [IoSliceMut::new(&mut buffer)], &mut ancillary, RecvFlags::CMSG_CLOEXEC)?;
        let mut descriptors = Vec::new();
        for message in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(fds) = message {
                descriptors.extend(fds);
            }
        }
        buffer.truncate(received.bytes);
        Ok((buffer, descriptors))
    }

    /// Sends a message with descriptors.
    ///
    /// # Errors
    /// If the connection broke.
    pub fn send(&self, message: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        if !descriptors.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(descriptors)) {
            return Err(io::Error::other("too many descriptors for one message"));
        }
        sendmsg(&self.0, &[IoSlice::new(message)], &mut ancillary, SendFlags::NOSIGNAL)?;
        Ok(())
    }
}

impl Connection {
    /// Sends a message, unless that would wait; was it sent?
    ///
    /// # Errors
    /// If the connection broke.
    pub fn try_send(&self, message: &[u8]) -> io::Result<bool> {
        let mut none = SendAncillaryBuffer::default();
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        match sendmsg(&self.0, &[IoSlice::new(message)], &mut none, flags) {
            Ok(_) => Ok(true),
            Err(rustix::io::Errno::AGAIN) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

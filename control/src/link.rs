//! The connection to the data plane: questions and answers over a `SOCK_SEQPACKET` socket, with a time
//! limit for each.

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType, connect, recvmsg, sendmsg,
    socket_with,
};
use std::collections::VecDeque;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::Duration;
use tandem_api::dataplane::{
    Answer, Body, CodecError, MESSAGE_MAX, Refusal, Reply, Request, Said, decode, encode,
};
use tandem_api::pair::Event;
use tokio::io::Interest;
use tokio::net::UnixStream;
use zeroize::Zeroizing;

/// How long an answer may take: short where an operator waits for it, long where the data plane starts
/// workers or opens queues, each of which may take it a second.
fn answer_time(body: &Body) -> Duration {
    match body {
        Body::Hello { .. } | Body::Configure(_) | Body::Detach => Duration::from_secs(15),
        _ => Duration::from_secs(2),
    }
}

/// Why the data plane gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// It answered, and refused; nothing has changed and the connection goes on.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The connection failed.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// The data plane closed the connection.
    #[error("the data plane closed the connection")]
    Closed,
    /// No answer in time.
    #[error("the data plane did not answer within {} s", .0.as_secs())]
    Timeout(Duration),
    /// It speaks otherwise.
    #[error("the data plane speaks another protocol: {0}; run daemons of one version")]
    Codec(#[from] CodecError),
    /// An answer to something else.
    #[error("the data plane answered out of step")]
    OutOfStep,
}

/// A connected data plane. After any error but [`LinkError::Refused`] it is of no use any more.
#[derive(Debug)]
pub struct Link {
    /// Only watched as a stream would be; messages keep their limits, and go through `sendmsg` and
    /// `recvmsg`, which take descriptors.
    socket: UnixStream,
    next_id: u64,
    /// Events that came before an answer.
    events: VecDeque<Event>,
}

impl Link {
    /// Connects.
    ///
    /// # Errors
    /// If nobody listens at `path`.
    pub fn connect(path: &Path) -> io::Result<Self> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
        connect(&socket, &SocketAddrUnix::new(path)?)?;
        Self::from_socket(socket)
    }

    /// Takes a connected, non-blocking socket.
    ///
    /// # Errors
    /// If the runtime cannot watch it.
    pub fn from_socket(socket: OwnedFd) -> io::Result<Self> {
        Ok(Self { socket: UnixStream::from_std(socket.into())?, next_id: 1, events: VecDeque::new() })
    }

    /// Asks, and waits for the answer.
    ///
    /// # Errors
    /// A refusal, or what is wrong with the connection.
    pub async fn ask(&mut self, body: Body) -> Result<Reply, LinkError> {
        Ok(self.ask_with(body, None).await?.0)
    }

    /// As [`Link::ask`], with a descriptor attached, and a descriptor that came back.
    ///
    /// # Errors
    /// As [`Link::ask`].
    pub async fn ask_with(
        &mut self,
        body: Body,
        attach: Option<BorrowedFd<'_>>,
    ) -> Result<(Reply, Option<OwnedFd>), LinkError> {
        let id = self.next_id;
        self.next_id += 1;
        let patience = answer_time(&body);
        let message = Zeroizing::new(encode(&Request { id, body })?);
        let exchange = async {
            self.send(&message, attach).await?;
            self.answer().await
        };
        let (answer, descriptor) =
            tokio::time::timeout(patience, exchange).await.map_err(|_| LinkError::Timeout(patience))??;
        if answer.id != id {
            return Err(LinkError::OutOfStep);
        }
        Ok((answer.result?, descriptor))
    }

    /// The next event that nobody asked for. May be given up at any time: none is lost.
    ///
    /// # Errors
    /// What is wrong with the connection; also its end.
    pub async fn next_event(&mut self) -> Result<Event, LinkError> {
        if let Some(event) = self.events.pop_front() {
            return Ok(event);
        }
        let (octets, _) = self.receive().await?;
        match decode(&octets)? {
            Said::Event(event) => Ok(event),
            Said::Answer(_) => Err(LinkError::OutOfStep),
        }
    }

    /// The next answer; events before it are kept.
    async fn answer(&mut self) -> Result<(Answer, Option<OwnedFd>), LinkError> {
        loop {
            let (octets, descriptor) = self.receive().await?;
            match decode(&octets)? {
                Said::Answer(answer) => return Ok((answer, descriptor)),
                Said::Event(event) => self.events.push_back(event),
            }
        }
    }

    async fn send(&self, message: &[u8], attach: Option<BorrowedFd<'_>>) -> Result<(), LinkError> {
        let send = || {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
            let mut ancillary = SendAncillaryBuffer::new(&mut space);
            let descriptors = attach.as_slice();
            if !descriptors.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(descriptors)) {
                return Err(io::Error::other("no room for the descriptor"));
            }
            Ok(sendmsg(self.socket.as_fd(), &[IoSlice::new(message)], &mut ancillary, SendFlags::NOSIGNAL)?)
        };
        match self.socket.async_io(Interest::WRITABLE, send).await {
            Ok(sent) if sent == message.len() => Ok(()),
            Ok(_) => Err(LinkError::OutOfStep),
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(LinkError::Closed),
            Err(error) => Err(error.into()),
        }
    }

    async fn receive(&self) -> Result<(Vec<u8>, Option<OwnedFd>), LinkError> {
        let receive = || {
            let mut buffer = vec![0; MESSAGE_MAX];
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
            let mut ancillary = RecvAncillaryBuffer::new(&mut space);
            let received = recvmsg(
                self.socket.as_fd(),
                &mut [IoSliceMut::new(&mut buffer)],
                &mut ancillary,
                RecvFlags::CMSG_CLOEXEC,
            )?;
            let mut descriptor = None;
            for message in ancillary.drain() {
                if let RecvAncillaryMessage::ScmRights(descriptors) = message {
                    // More than one is none of this protocol: the others are closed.
                    descriptor = descriptor.or(descriptors.into_iter().next());
                }
            }
            if received.flags.contains(ReturnFlags::TRUNC) {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "message too long"));
            }
            buffer.truncate(received.bytes);
            Ok((buffer, descriptor))
        };
        match self.socket.async_io(Interest::READABLE, receive).await {
            Ok((bytes, _)) if bytes.is_empty() => Err(LinkError::Closed),
            Ok(received) => Ok(received),
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Err(LinkError::Closed),
            Err(error) => Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::net::{recv, send, socketpair};
    use tandem_api::pair::SessionNews;

    fn event(term: u64) -> Event {
        Event::Reign { term, own: true }
    }

    fn say(socket: &OwnedFd, said: &Said) {
        send(socket, &encode(said).unwrap(), SendFlags::empty()).unwrap();
    }

    #[tokio::test]
    async fn events_between_answers_are_kept_in_order() {
        let flags = SocketFlags::NONBLOCK;
        let (own, other) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).unwrap();
        let mut link = Link::from_socket(own).unwrap();
        // One that was given up loses nothing.
        let given_up = tokio::time::timeout(Duration::from_millis(10), link.next_event()).await;
        assert!(given_up.is_err());
        say(&other, &Said::Event(event(2)));
        say(&other, &Said::Event(event(4)));
        say(&other, &Said::Answer(Answer { id: 1, result: Ok(Reply::Done) }));
        say(&other, &Said::Event(event(6)));
        assert!(matches!(link.ask(Body::Session(SessionNews::Down)).await, Ok(Reply::Done)));
        let mut buffer = vec![0; MESSAGE_MAX];
        let (asked, _) = recv(&other, &mut buffer[..], RecvFlags::empty()).unwrap();
        assert!(asked > 0);
        for term in [2, 4, 6] {
            assert_eq!(link.next_event().await.unwrap(), event(term));
        }
        drop(other);
        assert!(matches!(link.next_event().await, Err(LinkError::Closed)));
    }
}

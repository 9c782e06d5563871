//! Speaks to a daemon as the control process does.

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType, connect, recvmsg, sendmsg,
    socket_with,
};
use std::collections::VecDeque;
use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use tandem_api::dataplane::*;
use tandem_api::pair::{Event, PairSettings, PairStatus};

/// Runs a shell command; did it succeed?
pub fn run(command: &str) -> bool {
    let status = Command::new("sh").args(["-c", command]).stdout(Stdio::null()).status();
    status.is_ok_and(|status| status.success())
}

/// A connection, and the events that came over it.
pub struct Control {
    pub socket: OwnedFd,
    pub events: VecDeque<Event>,
    next: u64,
}

impl Control {
    pub fn connect(path: &Path) -> Self {
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            let socket =
                socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
            if connect(&socket, &SocketAddrUnix::new(path).unwrap()).is_ok() {
                return Self { socket, events: VecDeque::new(), next: 1 };
            }
            assert!(Instant::now() < deadline, "the daemon does not listen");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// What the daemon says next, and a descriptor that came with it; `None` where it says nothing now.
    fn hear(&mut self, flags: RecvFlags) -> Option<(Said, Option<OwnedFd>)> {
        let mut buffer = vec![0; MESSAGE_MAX];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let received = match recvmsg(&self.socket, &mut [IoSliceMut::new(&mut buffer)], &mut ancillary, flags)
        {
            Err(rustix::io::Errno::AGAIN) => return None,
            received => received.unwrap(),
        };
        let mut attached = None;
        for message in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(mut descriptors) = message {
                attached = descriptors.next();
            }
        }
        Some((decode(&buffer[..received.bytes]).unwrap(), attached))
    }

    /// Takes in the events that have come.
    pub fn listen(&mut self) {
        while let Some((said, _)) = self.hear(RecvFlags::DONTWAIT) {
            let Said::Event(event) = said else { panic!("an answer to nothing: {said:?}") };
            self.events.push_back(event);
        }
    }

    pub fn ask(&mut self, body: Body, attach: Option<&OwnedFd>) -> (Result<Reply, Refusal>, Option<OwnedFd>) {
        let id = self.next;
        self.next += 1;
        let message = encode(&Request { id, body }).unwrap();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        let descriptors: Vec<_> = attach.iter().map(|fd| fd.as_fd()).collect();
        if !descriptors.is_empty() {
            assert!(ancillary.push(SendAncillaryMessage::ScmRights(&descriptors)));
        }
        sendmsg(&self.socket, &[IoSlice::new(&message)], &mut ancillary, SendFlags::NOSIGNAL).unwrap();
        loop {
            match self.hear(RecvFlags::empty()).unwrap() {
                (Said::Event(event), _) => self.events.push_back(event),
                (Said::Answer(answer), attached) => {
                    assert_eq!(answer.id, id);
                    return (answer.result, attached);
                }
            }
        }
    }

    pub fn hello_with(&mut self, start: StartSettings, hot: Option<&OwnedFd>) -> (Hello, OwnedFd) {
        let body = Body::Hello { version: VERSION, start };
        match self.ask(body, hot) {
            (Ok(Reply::Hello(hello)), Some(hot)) => (hello, hot),
            other => panic!("{other:?}"),
        }
    }

    pub fn done(&mut self, body: Body) {
        let (answer, _) = self.ask(body, None);
        assert!(matches!(answer, Ok(Reply::Done)), "{answer:?}");
    }

    pub fn set_pair(&mut self, settings: PairSettings) {
        self.done(Body::SetPair(Box::new(settings)));
    }

    pub fn pair(&mut self) -> PairStatus {
        match self.ask(Body::PairStatus, None).0 {
            Ok(Reply::Pair(status)) => *status,
            other => panic!("{other:?}"),
        }
    }

    pub fn status(&mut self) -> Status {
        match self.ask(Body::Status, None).0 {
            Ok(Reply::Status(status)) => *status,
            other => panic!("{other:?}"),
        }
    }

    pub fn install(&mut self, generation: u64, sas: Vec<SaSpec>) -> (u32, u32, u32) {
        match self.ask(Body::InstallSas { generation, sas }, None).0 {
            Ok(Reply::Installed { new, resumed, unchanged }) => (new, resumed, unchanged),
            other => panic!("{other:?}"),
        }
    }
}

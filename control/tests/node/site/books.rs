//! A data plane that keeps books of what it is told, over a real `SOCK_SEQPACKET` socket. For tests only.

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, Shutdown, SocketAddrUnix, SocketFlags, SocketType, accept_with, bind,
    listen, recvmsg, sendmsg, shutdown, socket_with,
};
use std::collections::BTreeMap;
use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use tandem_api::counters::{Counter, DropReason, SlowCounter};
use tandem_api::dataplane::{
    Answer, Body, Config, CounterValues, Hello, HotStateOrigin, InterfaceStatus, MESSAGE_MAX, Refusal, Reply,
    Request, SAS_PER_MESSAGE, SaSpec, SaStatus, Said, Status, VERSION, decode, encode,
};
use tandem_api::pair::{EpochKey, Event, Grant, PairSettings, PairStatus, SessionNews};
use tandem_api::types::{Direction, Mac, Role};

/// What the data plane knows.
pub struct Books {
    pub config: Option<Config>,
    pub sas: BTreeMap<(Direction, u32), (u64, SaSpec)>,
    pub role: Role,
    pub term: u64,
    pub origin: HotStateOrigin,
    pub hot_state: Option<OwnedFd>,
    /// Kinds of all requests, in order.
    pub said: Vec<&'static str>,
    /// SAs that were made new since the start.
    pub made: u32,
    /// Was a hot state attached to the last greeting?
    pub was_handed: bool,
    /// Blackhole routes at the time of the last `Configure`.
    pub fence_at_configure: Vec<String>,
    /// Refuses configurations with more policies.
    pub most_policies: usize,
    /// Refuses to install this SPI.
    pub refused_spi: Option<u32>,
    /// Answers nothing.
    pub silent: bool,
    pub pair: Option<PairSettings>,
    /// All grants, the newest one last.
    pub grants: Vec<Grant>,
    /// Incarnation of this process; 0: none given.
    pub incarnation: u64,
    /// Keys of the paths, in the order in which they came.
    pub epochs: Vec<EpochKey>,
    /// News of the session, in the order in which they came.
    pub news: Vec<SessionNews>,
    connection: Option<Arc<OwnedFd>>,
}

/// A running one.
pub struct DataPlane {
    path: PathBuf,
    books: Arc<Mutex<Books>>,
}

fn seqpacket() -> OwnedFd {
    socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap()
}

impl DataPlane {
    pub fn start(path: &Path) -> Self {
        let books = Books {
            config: None,
            sas: BTreeMap::new(),
            role: Role::Standby,
            term: 0,
            origin: HotStateOrigin::Fresh,
            hot_state: None,
            said: Vec::new(),
            made: 0,
            was_handed: false,
            fence_at_configure: Vec::new(),
            most_policies: usize::MAX,
            refused_spi: None,
            silent: false,
            pair: None,
            grants: Vec::new(),
            incarnation: 0,
            epochs: Vec::new(),
            news: Vec::new(),
            connection: None,
        };
        let data_plane = Self { path: path.to_owned(), books: Arc::new(Mutex::new(books)) };
        let listener = seqpacket();
        bind(&listener, &SocketAddrUnix::new(path).unwrap()).unwrap();
        listen(&listener, 4).unwrap();
        let books = data_plane.books.clone();
        // Ends with the process.
        std::thread::spawn(move || {
            while let Ok(connection) = accept_with(&listener, SocketFlags::CLOEXEC) {
                let connection = Arc::new(connection);
                books.lock().unwrap().connection = Some(connection.clone());
                serve(&connection, &books);
            }
        });
        data_plane
    }

    pub fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap()
    }

    /// Says something unasked.
    pub fn say(&self, event: Event) {
        let connection = self.books().connection.clone().expect("control is connected");
        send(&connection, &Said::Event(event), None);
    }

    /// A reign of its own begins.
    pub fn take_over(&self, term: u64) {
        let mut books = self.books();
        (books.role, books.term) = (Role::Active, term);
        write_term(books.hot_state.as_ref().unwrap(), term);
        drop(books);
        self.say(Event::Reign { term, own: true });
    }

    /// As if the socket broke: everything else stays.
    pub fn hang_up(&self) {
        let connection = self.books().connection.take();
        if let Some(connection) = connection {
            let _ = shutdown(&*connection, Shutdown::Both);
        }
    }

    /// As if the process died and another one came: without anything but what control hands over.
    pub fn restart(&self) {
        let mut books = self.books();
        books.config = None;
        books.sas.clear();
        books.role = Role::Standby;
        books.term = 0;
        books.origin = HotStateOrigin::Fresh;
        books.hot_state = None;
        books.pair = None;
        books.incarnation = 0;
        books.epochs.clear();
        books.news.clear();
        drop(books);
        self.hang_up();
    }

    /// Nobody listens any more.
    pub fn vanish(&self) {
        std::fs::remove_file(&self.path).unwrap();
        self.hang_up();
    }
}

fn serve(connection: &OwnedFd, books: &Mutex<Books>) {
    loop {
        let mut buffer = vec![0; MESSAGE_MAX];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let Ok(received) =
            recvmsg(connection, &mut [IoSliceMut::new(&mut buffer)], &mut ancillary, RecvFlags::CMSG_CLOEXEC)
        else {
            return;
        };
        if received.bytes == 0 {
            return;
        }
        let mut handed = None;
        for message in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(descriptors) = message {
                handed = descriptors.last();
            }
        }
        let request: Request = decode(&buffer[..received.bytes]).unwrap();
        let mut books = books.lock().unwrap();
        let greeting = matches!(request.body, Body::Hello { .. });
        let result = books.take(request.body, handed);
        if books.silent {
            continue;
        }
        let attached = books.hot_state.as_ref().filter(|_| greeting).map(AsFd::as_fd);
        send(connection, &Said::Answer(Answer { id: request.id, result }), attached);
    }
}

fn send(connection: &OwnedFd, said: &Said, attached: Option<BorrowedFd<'_>>) {
    let message = encode(said).unwrap();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if let Some(descriptor) = &attached {
        assert!(ancillary.push(SendAncillaryMessage::ScmRights(std::slice::from_ref(descriptor))));
    }
    let _ = sendmsg(connection, &[IoSlice::new(&message)], &mut ancillary, SendFlags::NOSIGNAL);
}

impl Books {
    fn take(&mut self, body: Body, handed: Option<OwnedFd>) -> Result<Reply, Refusal> {
        let refuse = |reason: &str| Err(Refusal { reason: reason.to_owned() });
        match body {
            Body::Hello { version, .. } => {
                self.said.push("Hello");
                assert_eq!(version, VERSION);
                self.was_handed = handed.is_some();
                if self.hot_state.is_none() {
                    if let Some(handed) = handed {
                        // The term lives in the hot state; here it is written there as text.
                        self.term = read_term(&handed);
                        self.origin = HotStateOrigin::Adopted;
                        self.hot_state = Some(handed);
                    } else {
                        self.hot_state = Some(memory_file());
                    }
                }
                Ok(Reply::Hello(Hello {
                    version: VERSION,
                    software: "0.0.0".to_owned(),
                    pid: 4711,
                    hot_state: self.origin,
                    role: self.role,
                    term: self.term,
                    generation: self.sas.values().map(|(generation, _)| *generation).max().unwrap_or(0),
                }))
            }
            Body::Configure(config) => {
                self.said.push("Configure");
                assert!(self.pair.is_some(), "interfaces before what holds of the pair");
                self.fence_at_configure = crate::site::fence();
                if config.policies.len() > self.most_policies {
                    return refuse("too many policies for these books");
                }
                self.config = Some(*config);
                Ok(Reply::Done)
            }
            Body::SetPair(settings) => {
                self.said.push("SetPair");
                self.pair = Some(*settings);
                Ok(Reply::Done)
            }
            Body::Grant(grant) => {
                self.said.push("Grant");
                assert!(self.has_partner(), "a grant without a partner");
                self.incarnation = grant.incarnation;
                self.grants.push(grant);
                Ok(Reply::Done)
            }
            Body::Epoch(key) => {
                self.said.push("Epoch");
                assert!(self.has_partner(), "an epoch without a partner");
                self.epochs.push(key);
                Ok(Reply::Done)
            }
            Body::Session(news) => {
                self.said.push("Session");
                self.news.push(news);
                Ok(Reply::Done)
            }
            Body::SwitchOver => {
                self.said.push("SwitchOver");
                if self.role == Role::Active {
                    return refuse("the pair is not strict");
                }
                (self.role, self.term) = (Role::Active, self.term + 2);
                Ok(Reply::Done)
            }
            Body::PairStatus => {
                self.said.push("PairStatus");
                let state = if self.role == Role::Active { "alone" } else { "cold" };
                Ok(Reply::Pair(Box::new(PairStatus {
                    partner: self.has_partner(),
                    role: self.role.to_string(),
                    term: self.term,
                    state: state.to_owned(),
                    incarnation: self.incarnation,
                    ..PairStatus::default()
                })))
            }
            Body::SetRole { role, term } => {
                self.said.push("SetRole");
                if self.has_partner() {
                    return refuse("there is a partner: the role is found without control");
                }
                if term < self.term {
                    return refuse("an old term");
                }
                (self.role, self.term) = (role, term);
                write_term(self.hot_state.as_ref().unwrap(), term);
                Ok(Reply::Done)
            }
            Body::InstallSas { generation, sas } => {
                self.said.push("InstallSas");
                assert!(sas.len() <= SAS_PER_MESSAGE);
                if sas.iter().any(|sa| Some(sa.spi) == self.refused_spi) {
                    return refuse("this SPI is refused");
                }
                let (mut new, mut unchanged) = (0, 0);
                for sa in sas {
                    let key = (sa.direction, sa.spi);
                    match self.sas.insert(key, (generation, sa.clone())) {
                        Some((_, old)) if old.fingerprint == sa.fingerprint => unchanged += 1,
                        _ => new += 1,
                    }
                }
                self.made += new;
                Ok(Reply::Installed { new, resumed: 0, unchanged })
            }
            Body::SweepSas { generation } => {
                self.said.push("SweepSas");
                let before = self.sas.len();
                self.sas.retain(|_, (of, _)| *of == generation);
                Ok(Reply::Swept((before - self.sas.len()) as u32))
            }
            Body::ListSas { from } => {
                self.said.push("ListSas");
                let page = 100;
                let all = self.sas.values().skip(from as usize);
                let sas: Vec<SaStatus> =
                    all.take(page).map(|(generation, sa)| report(*generation, sa)).collect();
                let end = from + sas.len() as u32;
                let next = (usize::try_from(end).unwrap() < self.sas.len()).then_some(end);
                Ok(Reply::Sas { sas, next })
            }
            Body::Status => {
                self.said.push("Status");
                Ok(Reply::Status(Box::new(self.status())))
            }
            Body::Detach => {
                self.said.push("Detach");
                Ok(Reply::Done)
            }
        }
    }

    fn has_partner(&self) -> bool {
        self.pair.as_ref().is_some_and(|pair| pair.partner.is_some())
    }

    fn status(&self) -> Status {
        let mut counters = CounterValues {
            counters: vec![0; Counter::COUNT],
            drops: vec![0; DropReason::COUNT],
            slow_drops: vec![0; DropReason::COUNT],
            slow: vec![0; SlowCounter::COUNT],
        };
        counters.counters[Counter::Received as usize] = 7;
        counters.drops[DropReason::EspNoSa as usize] = 7;
        let config = self.config.as_ref();
        let interfaces =
            config.iter().flat_map(|config| &config.interfaces).map(|interface| InterfaceStatus {
                name: interface.name.clone(),
                index: 2,
                side: interface.side,
                up: true,
                driver: "veth".to_owned(),
                mtu: 1500,
                mac: Mac([2, 0, 0, 0, 0, 1]),
                virtual_mac: interface.virtual_mac,
                virtual_addresses: interface.virtual_addresses.clone(),
                xdp_mode: "native".to_owned(),
                zero_copy: false,
                queues: interface.queues,
                rx_frames: 7,
                rx_bytes: 700,
                tx_frames: 0,
                tx_bytes: 0,
                steering: vec![("esp".to_owned(), 7)],
                socket: Vec::new(),
            });
        Status {
            role: self.role,
            term: self.term,
            aead: "books".to_owned(),
            counters,
            interfaces: interfaces.collect(),
            workers: Vec::new(),
            sas: (0, 0),
        }
    }
}

fn report(generation: u64, sa: &SaSpec) -> SaStatus {
    SaStatus {
        direction: sa.direction,
        spi: sa.spi,
        slot: 0,
        policy: sa.policy,
        map: sa.map.clone(),
        selectors: sa.selectors.clone(),
        local: sa.local,
        peer: sa.peer,
        transform: sa.transform,
        fingerprint: sa.fingerprint,
        base_term: sa.base_term,
        lease_end: 0,
        limit: u64::MAX,
        generation,
        packets: 3,
        bytes: 300,
        sequence: 3,
        replayed: 0,
        too_old: 0,
        auth_failed: 0,
        inner_wrong: 0,
        send_errors: 0,
        window: 64,
    }
}

fn memory_file() -> OwnedFd {
    let flags = nix::sys::memfd::MFdFlags::MFD_CLOEXEC;
    nix::sys::memfd::memfd_create(c"books", flags).unwrap()
}

fn write_term(file: &OwnedFd, term: u64) {
    nix::sys::uio::pwrite(file, &term.to_ne_bytes(), 0).unwrap();
}

fn read_term(file: &OwnedFd) -> u64 {
    let mut bytes = [0; 8];
    nix::sys::uio::pread(file, &mut bytes, 0).unwrap();
    u64::from_ne_bytes(bytes)
}

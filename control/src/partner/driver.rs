//! The task that keeps the session with the partner.

use super::connection::{Connection, Heard};
use super::paths::{self, PathState, Turn};
use super::{Command, News, Report, SessionId, Terms};
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tandem_api::operator::{SessionReport, SessionState, SspKind, SspPackets};
use tandem_api::pair::PairPath;
use tandem_ssp::message::KINDS;
use tandem_ssp::{End, Event, Keys, Local, Nanos, Session};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};

/// Connections that are not known to be the partner's yet, at most.
const STRANGERS: usize = 4;
/// Node 1 lets node 0 go first, so that two sessions at once stay rare.
const LEAD: Duration = Duration::from_millis(150);

/// One connection with its session.
struct Member {
    id: SessionId,
    path: usize,
    session: Session,
    connection: Connection,
    is_partner: bool,
}

/// The driver.
pub struct Driver {
    keys: Arc<Keys>,
    paths: Vec<PairPath>,
    states: Vec<PathState>,
    local: Local,
    news: mpsc::UnboundedSender<News>,
    members: Vec<Member>,
    /// The session with the partner, once it has shown its key.
    current: Option<SessionId>,
    is_up: bool,
    up_since: Instant,
    next_id: SessionId,
    dialling: Option<(usize, JoinHandle<io::Result<TcpStream>>)>,
    turn: Turn,
    quiet: Option<u64>,
    last_end: Option<End>,
    /// Attempts in a row that did not reach the partner.
    unreached: usize,
    /// The refusal that is in the log: it is the partner's, not the path's, and is said once.
    said: Option<String>,
    partner_software: Option<String>,
    started: Instant,
}

impl Driver {
    pub fn new(
        keys: Arc<Keys>,
        paths: Vec<PairPath>,
        local: Local,
        news: mpsc::UnboundedSender<News>,
    ) -> Self {
        let now = Instant::now();
        let lead = lead(&local);
        Self {
            keys,
            states: paths.iter().map(|_| PathState::new()).collect(),
            turn: Turn::new(paths.len(), lead),
            paths,
            local,
            news,
            members: Vec::new(),
            current: None,
            is_up: false,
            up_since: now,
            next_id: 1,
            dialling: None,
            quiet: None,
            last_end: None,
            unreached: 0,
            said: None,
            partner_software: None,
            started: now,
        }
    }

    /// Runs until nobody gives commands any more.
    pub async fn run(mut self, mut commands: mpsc::UnboundedReceiver<Command>) {
        let (accepted, mut connections) = mpsc::channel(STRANGERS);
        let (sender, mut heard) = mpsc::channel(64);
        let mut listeners = tokio::task::JoinSet::new();
        for (path, way) in self.paths.iter().enumerate() {
            listeners.spawn(paths::listen(path, way.clone(), accepted.clone()));
        }
        loop {
            self.pump();
            let due = self.due();
            let dialling = async {
                match &mut self.dialling {
                    Some((path, attempt)) => (*path, attempt.await),
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                command = commands.recv() => match command {
                    Some(command) => self.command(command),
                    None => break,
                },
                Some((id, what)) = heard.recv() => self.heard(id, what),
                Some((path, stream)) = connections.recv() => self.accepted(path, stream, &sender),
                (path, done) = dialling => {
                    self.dialling = None;
                    match done.unwrap_or_else(|_| Err(io::Error::other("given up"))) {
                        Ok(stream) => self.begin(path, stream, true, &sender),
                        Err(error) => self.not_reached(path, &error),
                    }
                }
                () = sleep_until(due) => self.time(),
            }
        }
        for member in self.members {
            member.connection.abort();
        }
    }

    fn now(&self) -> Nanos {
        self.started.elapsed().as_nanos() as Nanos
    }

    /// When something is to be done without anything happening.
    fn due(&self) -> Instant {
        let timeouts = self.members.iter().filter_map(|member| member.session.poll_timeout());
        let next = timeouts.min().map(|at| self.started + Duration::from_nanos(at));
        let dial = self.wants_to_dial().then(|| self.turn.due());
        let far = Instant::now() + Duration::from_secs(3600);
        next.into_iter().chain(dial).min().unwrap_or(far)
    }

    fn wants_to_dial(&self) -> bool {
        let dialled = |member: &Member| member.session.dialled() && !member.session.is_ended();
        self.current.is_none() && self.dialling.is_none() && !self.members.iter().any(dialled)
    }

    fn time(&mut self) {
        let now = self.now();
        for member in &mut self.members {
            if member.session.poll_timeout().is_some_and(|at| at <= now) {
                member.session.handle_timeout(&mut self.local, now);
            }
        }
        if self.wants_to_dial() && self.turn.due() <= Instant::now() {
            let path = self.turn.path();
            let way = self.paths[path].clone();
            self.dialling = Some((path, tokio::spawn(paths::dial(way))));
        }
    }

    fn not_reached(&mut self, path: usize, error: &io::Error) {
        let way = &self.paths[path];
        let reason = format!("no partner at {}: {error}", way.remote);
        // Where the other node has dialled meanwhile, the path is not to be called dead.
        if self.current.is_none() && self.states[path].enter(SessionState::Down, Some(reason.clone())) {
            tracing::info!("path {}: {reason}", way.name);
        }
        // What the partner has said last stands until it is reached over no path at all.
        self.unreached += 1;
        if self.unreached >= self.paths.len() && self.last_end.is_some() {
            self.last_end = Some(End::Unreachable(reason));
        }
        self.turn.failed();
    }

    fn accepted(&mut self, path: usize, stream: TcpStream, heard: &mpsc::Sender<(u64, Heard)>) {
        if self.members.iter().filter(|member| !member.is_partner).count() >= STRANGERS {
            tracing::debug!("path {}: too many connections at once", self.paths[path].name);
            return;
        }
        self.begin(path, stream, false, heard);
    }

    fn begin(&mut self, path: usize, stream: TcpStream, dialled: bool, heard: &mpsc::Sender<(u64, Heard)>) {
        match Session::new(dialled, &self.keys, self.now()) {
            Ok(session) => {
                let id = self.next_id;
                self.next_id += 1;
                let connection = Connection::start(id, stream, heard.clone());
                self.members.push(Member { id, path, session, connection, is_partner: false });
            }
            Err(error) => {
                tracing::error!("redundancy.partner-key cannot be used: {error}");
                self.turn.refused();
            }
        }
    }

    fn heard(&mut self, id: SessionId, what: Heard) {
        let now = self.now();
        let Some(member) = self.members.iter_mut().find(|member| member.id == id) else { return };
        match what {
            Heard::Octets(octets) => member.session.receive(&octets, &mut self.local, now),
            Heard::Room => {}
            Heard::Closed(reason) => member.session.close(End::Closed(reason), &mut self.local),
        }
    }

    /// Lets sessions say what they have to say, and hears what they report, until all is quiet.
    fn pump(&mut self) {
        let now = self.now();
        loop {
            let mut events = Vec::new();
            for member in &mut self.members {
                while let Some(event) = member.session.poll_event() {
                    events.push((member.id, event));
                }
            }
            let mut moved = !events.is_empty();
            for (id, event) in events {
                self.event(id, event);
            }
            for member in &mut self.members {
                if let Some(room) = member.connection.room()
                    && let Some(frame) = member.session.poll_transmit(&mut self.local, now)
                {
                    room.send(frame);
                    moved = true;
                }
            }
            // What a session had to say may have been for this node alone, and it said nothing else.
            moved |= self.members.iter().any(|member| member.session.has_event());
            if !moved {
                break;
            }
        }
        // Those that are over and have said why; their connections end by themselves.
        self.members.retain(|member| {
            let waits = !member.connection.is_closed() && member.connection.room().is_none();
            !member.session.is_ended() || waits
        });
        self.answer_quiet();
    }

    fn answer_quiet(&mut self) {
        let Some(incarnation) = self.quiet else { return };
        let current = self.members.iter().find(|member| Some(member.id) == self.current);
        if let Some(position) = current.and_then(|member| member.session.quiet(&self.local)) {
            self.quiet = None;
            self.tell(News::Quiet { incarnation, position });
        }
    }

    fn event(&mut self, id: SessionId, event: Event) {
        let Some(at) = self.members.iter().position(|member| member.id == id) else { return };
        if let Event::Ended(end) = event {
            return self.ended(at, end);
        }
        if matches!(event, Event::Established) {
            self.members[at].is_partner = true;
            self.unreached = 0;
            return self.established(at);
        }
        if self.current != Some(id) {
            return;
        }
        match event {
            Event::Established | Event::Ended(_) => {}
            Event::Paired(hello) => {
                self.partner_software = Some(hello.software.clone());
                self.tell(News::Paired(id, Box::new(hello)));
            }
            Event::Up { partner_incarnation } => {
                let way = &self.paths[self.members[at].path];
                tracing::info!("the session with the partner is up over path {}", way.name);
                (self.is_up, self.up_since, self.last_end) = (true, Instant::now(), None);
                self.said = None;
                self.states[self.members[at].path].enter(SessionState::Up, None);
                let lead = lead(&self.local);
                self.turn.start_again(lead);
                self.tell(News::Up { partner_incarnation });
            }
            Event::Incarnation(incarnation) => self.tell(News::Incarnation(incarnation)),
            Event::Epoch(key) => self.tell(News::Epoch(key)),
            Event::Stream { position, body } => self.tell(News::Stream(id, position, body)),
        }
    }

    /// The other side has shown the partner's key. Of two such sessions one stays.
    fn established(&mut self, at: usize) {
        let by_node_0 = |member: &Member| member.session.dialled() == (self.local.node == 0);
        let newer = &self.members[at];
        let older = self.members.iter().position(|member| Some(member.id) == self.current);
        let stays = match older {
            Some(older) => by_node_0(newer) || !by_node_0(&self.members[older]),
            None => true,
        };
        if !stays {
            return self.members[at].session.close(End::Replaced, &mut self.local);
        }
        let (id, by_node_0) = (newer.id, by_node_0(newer));
        if let Some(older) = older {
            self.members[older].session.close(End::Replaced, &mut self.local);
            // Its end is reported before anything of the new one.
            while let Some(event) = self.members[older].session.poll_event() {
                if let Event::Ended(end) = event {
                    self.ended(older, end);
                }
            }
        }
        self.current = Some(id);
        // Node 0 sees its own attempt through: the other side may have taken it already.
        if by_node_0 && let Some((_, attempt)) = self.dialling.take() {
            attempt.abort();
        }
    }

    fn ended(&mut self, at: usize, end: End) {
        let member = &self.members[at];
        let (id, path, dialled) = (member.id, member.path, member.session.dialled());
        let was_current = self.current == Some(id);
        let mut was_up = false;
        if was_current {
            self.current = None;
            was_up = std::mem::take(&mut self.is_up);
            if was_up {
                self.up_since = Instant::now();
                self.tell(News::Down(end.to_string()));
            }
        }
        if end == End::Replaced {
            return;
        }
        let state = if end.is_refusal() { SessionState::Refused } else { SessionState::Down };
        // A refusal stands until the partner cannot be reached or is in order: that of two connections at once the
        // other one was closed says nothing.
        let hides = |last: &End| last.is_refusal() && !end.is_refusal() && !was_up;
        let shown = (was_current || self.current.is_none()) && !self.last_end.as_ref().is_some_and(hides);
        let text = end.to_string();
        if shown && self.states[path].enter(state, Some(text.clone())) {
            let name = &self.paths[path].name;
            if state == SessionState::Down {
                tracing::warn!("the session with the partner over path {name} has ended: {text}");
            } else if self.said.as_ref() != Some(&text) {
                tracing::error!("no session with the partner (over path {name}): {text}");
                self.said = Some(text);
            }
        }
        if end.is_refusal() {
            // Over which path does not matter, nor who has dialled.
            self.turn.refused();
        } else if was_up {
            self.turn.start_again(lead(&self.local));
        } else if was_current || dialled {
            self.turn.failed();
        }
        if shown {
            self.last_end = Some(end);
        }
    }

    fn tell(&self, news: News) {
        // Without an owner there is nobody to tell; the commands end then, too.
        let _ = self.news.send(news);
    }

    fn session(&mut self, id: SessionId) -> Option<&mut Session> {
        let member = self.members.iter_mut().find(|member| member.id == id);
        member.map(|member| &mut member.session)
    }

    fn command(&mut self, command: Command) {
        let local = &mut self.local;
        match command {
            Command::Terms(Terms { highest, reserved, reign, incarnation }) => {
                (local.highest, local.reserved, local.reign) = (highest, reserved, reign);
                local.incarnation = incarnation;
            }
            Command::Reserved(id) => {
                if let Some(session) = self.session(id) {
                    session.reserved();
                }
            }
            Command::Digest(digest) => {
                local.digest = digest;
                if self.current.is_none() {
                    // What was refused may be in order now.
                    self.turn.start_again(lead(&self.local));
                }
            }
            Command::Heard(incarnation) => {
                local.incarnation_seen = local.incarnation_seen.max(incarnation);
            }
            Command::Source(source) => {
                local.source = source;
                if source.is_none() {
                    self.quiet = None;
                }
            }
            Command::Sas(sas) => local.store.replace(sas),
            Command::Resend(sa) => {
                if !local.store.touch(sa) {
                    tracing::warn!("the partner asks for {} SA {:#010x}, which is not here", sa.0, sa.1);
                }
            }
            Command::Quiet { incarnation } => self.quiet = Some(incarnation),
            Command::Applied(id, position) => {
                if let Some(session) = self.session(id) {
                    session.applied(position);
                }
            }
            Command::EpochInstalled { number, send } => local.epochs.installed(number, send),
            Command::EpochRefused => local.epochs.refused(),
            Command::EpochsLost => {
                local.epochs.renew();
                self.tell(News::EpochsRenewed);
            }
            Command::Refuse(id, reason) => {
                if let Some(member) = self.members.iter_mut().find(|member| member.id == id) {
                    member.session.refuse(reason, &mut self.local);
                }
            }
            Command::Report(reply) => {
                // An operator that went away does not want it.
                let _ = reply.send(self.report());
            }
        }
    }

    fn report(&self) -> Report {
        let current = self.members.iter().find(|member| Some(member.id) == self.current);
        let mismatch = self.last_end.as_ref().and_then(|end| match end {
            End::Mismatch(text) => Some(text.clone()),
            _ => None,
        });
        let state = match &self.last_end {
            _ if self.is_up => SessionState::Up,
            Some(end) if end.is_refusal() => SessionState::Refused,
            _ => SessionState::Down,
        };
        let reason = (!self.is_up).then(|| match (&self.last_end, current) {
            (_, Some(member)) => format!("connected, {}", member.session.status().stage.name()),
            (Some(end), None) => end.to_string(),
            (None, None) => {
                "no partner was reached yet: is tandem-control running there, and reachable over a path?"
                    .to_owned()
            }
        });
        let way = current.map(|member| &self.paths[member.path]);
        let session = SessionReport {
            state,
            since_s: self.up_since.elapsed().as_secs(),
            reason,
            partner_software: self.partner_software.clone(),
            peer: way.map(|way| way.remote.to_string()),
            path: way.map(|way| way.name.clone()),
            configuration_equal: if self.is_up { Some(true) } else { mismatch.as_ref().map(|_| false) },
            first_difference: mismatch.filter(|_| !self.is_up),
        };
        let counters = &self.local.counters;
        let kinds = KINDS.iter().zip(&counters.messages);
        let packets = SspPackets {
            sent: counters.messages.iter().map(|count| count.sent).sum(),
            received: counters.messages.iter().map(|count| count.received).sum(),
            sent_bytes: counters.octets_sent,
            received_bytes: counters.octets_received,
            bad: counters.not_partner + counters.malformed + counters.versions,
            sessions: counters.sessions_up,
            kinds: kinds
                .map(|(kind, count)| SspKind {
                    kind: (*kind).to_owned(),
                    sent: count.sent,
                    received: count.received,
                })
                .collect(),
        };
        let in_use = current.filter(|_| self.is_up).map(|member| member.path);
        let peers = self.paths.iter().zip(&self.states).enumerate();
        let peers = peers.map(|(at, (way, state))| state.report(way, in_use == Some(at))).collect();
        Report { session, packets, peers, sas: self.local.store.len() as u64 }
    }
}

fn lead(local: &Local) -> Duration {
    if local.node == 0 { Duration::ZERO } else { LEAD }
}

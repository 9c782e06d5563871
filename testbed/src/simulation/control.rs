//! Control of a node: what it does with the term file, and the SSP session to the partner's control.
//!
//! The session is a small model of the contract of `tandem-ssp`, not that crate: reliable and ordered, it breaks and
//! comes back, and carries Hello, incarnations, epochs of the path keys and the one ordered stream. Keys and frames
//! of the real one are tested in its own crate; what matters here is when the machine hears of what.

use super::disk::Write;
use super::node::Control;
use super::queue::{MS, Time, US};
use super::world::{Event, NAMES, World};
use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use tandem_lease::TermFile;
use tandem_lease::mutant::{self, Mutant};
use tandem_shm::ROLE_ACTIVE;
use tandem_takeover::Input;

/// Between two looks at the session.
const LOOK: Time = 3 * MS;
/// A session breaks when nothing passed for so long.
const BREAK: Time = 15 * MS;

/// A message of the session.
#[derive(Clone, Debug)]
pub enum Message {
    /// The first one of each side.
    Hello {
        /// Highest even and odd terms known.
        highest: [u64; 2],
        /// Newest reign known.
        reign: u64,
        /// Incarnation.
        incarnation: u64,
        /// Newest incarnation of the receiver that the sender knows of.
        seen: u64,
    },
    /// The sender has a new incarnation.
    Incarnation(u64),
    /// Node 0: a new epoch.
    Epoch(u32),
    /// Node 1 can open with it.
    EpochReady(u32),
    /// Node 0 seals with it.
    EpochUse(u32),
    /// Node 1 has lost its keys.
    EpochWanted,
    /// State of the active node's control, at a position of the stream.
    Content {
        /// Position.
        position: u64,
        /// Version of the state.
        version: u64,
        /// Everything was named.
        end_of_bulk: bool,
    },
}

/// The session between both controls.
#[derive(Debug)]
pub struct Session {
    /// Number.
    pub id: u64,
    /// What is on its way to each node.
    queues: [VecDeque<Message>; 2],
    /// Nothing has passed since.
    silent_since: Option<Time>,
}

impl World {
    /// A control process starts.
    pub fn start_control(&mut self, node: usize) {
        let host = &mut self.nodes[node];
        if host.control.is_some() {
            return;
        }
        host.control_life += 1;
        host.control = Some(Control::default());
        self.story.tell(self.now, NAMES[node], || "control starts".to_owned());
        if self.nodes[node].data.is_some() {
            self.connected(node);
        } else {
            self.start_data(node);
        }
    }

    /// It dies.
    pub fn kill_control(&mut self, node: usize) {
        let host = &mut self.nodes[node];
        if host.control.take().is_none() {
            return;
        }
        host.disk.control_gone(&mut self.rng);
        self.story.tell(self.now, NAMES[node], || "control is killed".to_owned());
        self.input(node, Input::SessionDown);
        if self.nodes[node].data.is_none() {
            // Nobody keeps the memory any more (F31).
            self.lose_memory(node);
        }
    }

    /// Control and data plane see each other, after a start of either.
    pub fn connected(&mut self, node: usize) {
        let Some(data) = &mut self.nodes[node].data else { return };
        let (need, reign, joining) = (data.need_grant.take(), data.reign, data.joining);
        if let Some((term, own)) = reign {
            self.note_reign(node, term, own);
        }
        match need {
            Some(incarnation) => self.need_grant(node, incarnation),
            None => self.write_terms(node, None),
        }
        if let Some(incarnation) = joining {
            self.quiet(node, incarnation);
        }
    }

    /// Writes the term file if there is a new one; in any case the data plane gets what is on disk then.
    pub fn write_terms(&mut self, node: usize, file: Option<TermFile>) {
        let delay = self.rng.between(80 * US, 600 * US);
        let now = self.now;
        let host = &mut self.nodes[node];
        let Some(control) = &mut host.control else { return };
        let file = file.unwrap_or_else(|| host.disk.newest().clone());
        host.disk.begin(Write::Terms(Box::new(file)));
        control.written = control.written.max(now) + delay;
        let life = host.control_life;
        self.queue.put(control.written, Event::TermsWritten { node, life });
    }

    /// A write of the term file is done.
    pub fn terms_written(&mut self, node: usize) {
        let host = &mut self.nodes[node];
        if !host.disk.terms_done() {
            return;
        }
        let file = &host.disk.terms;
        let reused = if mutant::is(Mutant::ReuseTerm) { 2 } else { 0 };
        let grant = Input::Grant {
            taken: file.taken().saturating_sub(reused),
            reserved: file.reserved(),
            reign: file.reign().saturating_sub(reused),
            incarnation: file.incarnation(),
            eligible: file.eligible(Some(&[1 - node as u8; 32]), file.node),
        };
        self.story.tell(self.now, NAMES[node], || format!("disk holds {grant:?}"));
        let incarnation = file.incarnation();
        self.input(node, grant);
        let Some(control) = &mut self.nodes[node].control else { return };
        let up = std::mem::take(&mut control.up_after_write);
        let news =
            control.session.is_some() && std::mem::replace(&mut control.told, incarnation) != incarnation;
        if up {
            self.session_up(node);
        }
        if news {
            self.send(node, Message::Incarnation(incarnation));
        }
    }

    /// The data plane wants terms or a new incarnation.
    pub fn need_grant(&mut self, node: usize, incarnation: bool) {
        if let Some(data) = &mut self.nodes[node].data {
            data.need_grant = None;
        }
        let file = self.nodes[node].disk.newest().clone();
        let file = if incarnation { file.next_incarnation(0).map(|(_, file)| file) } else { Ok(file) };
        if let Some(control) = &mut self.nodes[node].control {
            control.end_of_bulk &= !incarnation;
        }
        self.write_terms(node, file.ok());
    }

    /// A reign has begun.
    pub fn note_reign(&mut self, node: usize, term: u64, _own: bool) {
        if let Ok(Some(file)) = self.nodes[node].disk.newest().note_reign(term) {
            self.write_terms(node, Some(file));
        }
    }

    /// Control passes a quiet point.
    pub fn quiet(&mut self, node: usize, incarnation: u64) {
        let Some(control) = &self.nodes[node].control else { return };
        // A bulk that this incarnation never got would not be in v.
        if control.bulk_for != Some(incarnation) {
            return;
        }
        let position = control.position;
        if let Some(data) = &mut self.nodes[node].data {
            data.joining = None;
        }
        let content = self.nodes[node].content;
        self.story
            .tell(self.now, NAMES[node], || format!("control is quiet at {position} (state {content})"));
        self.nodes[node].content_at_strict = content;
        self.input(node, Input::Quiet { incarnation, position });
    }

    /// Looks after the session: it comes up where it can, and breaks where nothing passes.
    pub fn look_at_session(&mut self) {
        self.queue.put(self.now + LOOK, Event::Session);
        let joined = self.net.joined(self.now);
        let now = self.now;
        if let Some(session) = &mut self.session {
            let alive = (0..2).all(|node| {
                self.nodes[node].control.as_ref().is_some_and(|control| control.session == Some(session.id))
            });
            session.silent_since = if joined { None } else { Some(session.silent_since.unwrap_or(now)) };
            let silent = session.silent_since.is_some_and(|since| now > since + BREAK);
            if !alive || silent {
                self.break_session();
            }
            return;
        }
        let free = |world: &World, node: usize| {
            let host = &world.nodes[node];
            host.paused_until <= now && host.control.as_ref().is_some_and(|control| control.session.is_none())
        };
        if joined && free(self, 0) && free(self, 1) && self.same_configuration() {
            self.sessions += 1;
            let id = self.sessions;
            self.session = Some(Session { id, queues: Default::default(), silent_since: None });
            self.story.tell(now, "ssp", || format!("session {id}"));
            for node in 0..2 {
                if let Some(control) = &mut self.nodes[node].control {
                    *control = Control {
                        session: Some(id),
                        written: control.written,
                        seen: control.seen,
                        told: control.told,
                        ..Control::default()
                    };
                }
                let file = &self.nodes[node].disk.terms;
                let highest = file.highest(&[1 - node as u8; 32]);
                let (reign, incarnation) = (file.reign(), file.incarnation());
                // The data plane remembers what a control process that died had seen.
                let heard = super::pair::status(&self.nodes[node], now).and_then(|status| status.heard);
                let mut seen = heard.map_or(0, |heard| heard.incarnation);
                if let Some(control) = &mut self.nodes[node].control {
                    control.told_before = std::mem::replace(&mut control.told, incarnation);
                    seen = seen.max(control.seen);
                }
                self.send(node, Message::Hello { highest, reign, incarnation, seen });
            }
            self.new_epoch();
        }
    }

    /// Both sides learn sooner or later that it is gone.
    pub fn break_session(&mut self) {
        let Some(session) = self.session.take() else { return };
        self.story.tell(self.now, "ssp", || format!("session {} breaks", session.id));
        for node in 0..2 {
            let after = self.rng.between(50 * US, 5 * MS);
            self.queue.put(self.now + after, Event::SessionLost { node, id: session.id });
        }
    }

    /// A node learns it.
    pub fn session_lost(&mut self, node: usize, id: u64) {
        let Some(control) = &mut self.nodes[node].control else { return };
        if control.session == Some(id) {
            *control = Control {
                written: control.written,
                seen: control.seen,
                told: control.told,
                ..Control::default()
            };
            self.input(node, Input::SessionDown);
        }
    }

    fn same_configuration(&self) -> bool {
        self.definitions.iter().all(|definition| definition.configured[0] == definition.configured[1])
    }

    /// Says something to the partner's control.
    fn send(&mut self, node: usize, message: Message) {
        let Some(session) = &mut self.session else { return };
        if self.nodes[node].control.as_ref().is_none_or(|control| control.session != Some(session.id)) {
            return;
        }
        session.queues[1 - node].push_back(message);
        if session.queues[1 - node].len() == 1 {
            let after = self.rng.between(40 * US, 400 * US);
            self.queue.put(self.now + after, Event::Stream { to: 1 - node, session: session.id });
        }
    }

    /// The next message of the session arrives, if anything passes.
    pub fn stream(&mut self, to: usize, id: u64) {
        let joined = self.net.joined(self.now);
        let Some(session) = &mut self.session else { return };
        if session.id != id {
            return;
        }
        let mut after = 2 * MS;
        let mut message = None;
        let slow = self.directed.as_ref().is_some_and(super::directed::Directed::slow_stream)
            && matches!(session.queues[to].front(), Some(Message::Content { .. }))
            && !self.rng.chance(100);
        if joined && !slow {
            message = session.queues[to].pop_front();
            after = self.rng.between(20 * US, 200 * US);
        }
        if !session.queues[to].is_empty() {
            self.queue.put(self.now + after, Event::Stream { to, session: id });
        }
        if let Some(message) = message
            && self.nodes[to].control.as_ref().is_some_and(|control| control.session == Some(id))
        {
            self.receive(to, message);
        }
    }

    fn receive(&mut self, node: usize, message: Message) {
        self.story.tell(self.now, NAMES[node], || format!("ssp: {message:?}"));
        match message {
            Message::Hello { highest, reign, incarnation, seen } => {
                let Some(control) = &mut self.nodes[node].control else { return };
                control.partner = Some(incarnation);
                control.seen = control.seen.max(incarnation);
                let disk = &self.nodes[node].disk;
                let paired =
                    disk.newest().pair(&[1 - node as u8; 32], disk.terms.node, highest).ok().flatten();
                let file = paired.as_ref().unwrap_or(disk.newest());
                let noted = file.note_reign(reign).ok().flatten().or_else(|| paired.clone());
                let file = noted.as_ref().unwrap_or(file);
                // A file that was lost, or an old copy, must not give an incarnation again: what the partner has seen
                // before this node has ever named it was another memory's.
                let before = self.nodes[node].control.as_ref().map_or(0, |control| control.told_before);
                let own = file.incarnation();
                let again = seen > own || seen == own && seen != before;
                let lifted = again.then(|| file.next_incarnation(seen).ok()).flatten();
                match lifted.map(|(_, file)| file).or(noted) {
                    Some(file) => {
                        if let Some(control) = &mut self.nodes[node].control {
                            control.up_after_write = true;
                        }
                        self.write_terms(node, Some(file));
                    }
                    None => self.session_up(node),
                }
            }
            Message::Incarnation(incarnation) => {
                let Some(control) = &mut self.nodes[node].control else { return };
                if control.partner != Some(incarnation) {
                    control.partner = Some(incarnation);
                    control.seen = control.seen.max(incarnation);
                    if control.up {
                        self.session_up(node);
                    }
                }
            }
            Message::Epoch(epoch) => {
                self.keys(node, epoch, false);
                self.send(node, Message::EpochReady(epoch));
            }
            Message::EpochReady(epoch) => {
                self.keys(node, epoch, true);
                self.send(node, Message::EpochUse(epoch));
            }
            Message::EpochUse(epoch) => self.keys(node, epoch, true),
            Message::EpochWanted => self.new_epoch(),
            Message::Content { position, version, end_of_bulk } => {
                let own = self.nodes[node].disk.terms.incarnation();
                self.nodes[node].content = version;
                let Some(control) = &mut self.nodes[node].control else { return };
                control.applied = position;
                control.end_of_bulk |= end_of_bulk;
                let end_of_bulk = control.end_of_bulk;
                self.input(node, Input::Applied { incarnation: own, position, end_of_bulk });
            }
        }
    }

    fn session_up(&mut self, node: usize) {
        let Some(control) = &mut self.nodes[node].control else { return };
        let Some(partner_incarnation) = control.partner else { return };
        control.up = true;
        self.input(node, Input::SessionUp { partner_incarnation });
        self.bulk(node);
    }

    /// The active node's control names everything, once to each incarnation of the partner.
    pub fn bulk(&mut self, node: usize) {
        let active = self.active(node);
        let Some(control) = &mut self.nodes[node].control else { return };
        if active && control.up && control.bulk_for != control.partner {
            control.bulk_for = control.partner;
            self.content(node, true);
            if let Some(incarnation) = self.nodes[node].data.as_ref().and_then(|data| data.joining) {
                self.quiet(node, incarnation);
            }
        }
    }

    /// State of control goes into the stream.
    pub fn content(&mut self, node: usize, end_of_bulk: bool) {
        let version = self.nodes[node].content;
        let Some(control) = &mut self.nodes[node].control else { return };
        if control.bulk_for.is_none() {
            return;
        }
        control.position += 1;
        let position = control.position;
        self.send(node, Message::Content { position, version, end_of_bulk });
    }

    /// Node 0 makes a new epoch, or is asked for one.
    pub fn new_epoch(&mut self) {
        self.epochs += 1;
        let epoch = self.epochs;
        self.keys(0, epoch, false);
        self.send(0, Message::Epoch(epoch));
    }

    /// A data plane has started: its keys are gone.
    pub fn want_epoch(&mut self, node: usize) {
        if node == 0 {
            self.new_epoch();
        } else {
            self.send(node, Message::EpochWanted);
        }
    }

    fn keys(&mut self, node: usize, epoch: u32, send: bool) {
        if let Some(data) = &mut self.nodes[node].data {
            data.keys.install(epoch, send);
        }
    }

    /// Is the node active, as its memory says?
    #[must_use]
    pub fn active(&self, node: usize) -> bool {
        let host = &self.nodes[node];
        host.data.is_some()
            && host.hot.as_ref().is_some_and(|hot| hot.header().role.load(Ordering::Acquire) == ROLE_ACTIVE)
    }
}

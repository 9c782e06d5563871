//! One connection to the partner's control process.

mod incoming;
mod pairing;
mod report;
#[cfg(test)]
mod tests;

pub use report::{Counters, End, MessageCount, Stage, Status, StreamState};

use crate::VERSION;
use crate::digest::Digest;
use crate::epoch::{Epochs, Say};
use crate::frame::{self, Reader};
use crate::message::{Hello, Message, StreamBody};
use crate::secure::Secure;
use crate::store::Store;
use crate::stream::Source;
use pairing::Pairing;
use std::collections::VecDeque;
use tandem_api::pair::EpochKey;
use zeroize::ZeroizeOnDrop;

/// A moment in nanoseconds, on any clock that does not go back.
pub type Nanos = u64;

const SECOND: Nanos = 1_000_000_000;
/// A session in which nothing was heard for so long is dead.
pub const SILENCE: Nanos = 3 * SECOND;
/// Between two questions whether the partner is there.
const PING_EVERY: Nanos = SECOND;
/// What both say in clear before anything else; then two octets of version.
const PREAMBLE: &[u8; 10] = b"tandem-ssp";

/// The static keys of both nodes.
#[derive(ZeroizeOnDrop)]
pub struct Keys {
    /// Own secret key (X25519).
    pub own: [u8; 32],
    /// The partner's public key.
    #[zeroize(skip)]
    pub partner: [u8; 32],
}

/// What this node says of itself, and what outlives a session. A session looks at it whenever it is asked what to send.
#[derive(Debug)]
pub struct Local {
    /// Own number in the pair.
    pub node: u8,
    /// Package version.
    pub software: String,
    /// Id of the term file.
    pub file_id: [u8; 16],
    /// Highest even and odd term that may have been used, as far as the term file knows.
    pub highest: [u64; 2],
    /// Highest own term reserved.
    pub reserved: u64,
    /// Newest reign heard of.
    pub reign: u64,
    /// Incarnation of the own memory.
    pub incarnation: u64,
    /// Newest incarnation of the partner's memory heard of.
    pub incarnation_seen: u64,
    /// Own configuration.
    pub digest: Digest,
    /// Keys of the paths.
    pub epochs: Epochs,
    /// SAs of this node.
    pub store: Store,
    /// Term of the own reign, while this node is active: then it is the source of the stream.
    pub source: Option<u64>,
    /// Position in the stream, over all sessions.
    pub position: u64,
    /// Counters over all sessions.
    pub counters: Counters,
}

/// What the owner must know, or do.
#[derive(Debug, PartialEq, Eq)]
pub enum Event {
    /// The other side is the partner.
    Established,
    /// Both configurations are equal: reserve above the partner's terms on disk, then call [`Session::reserved`].
    Paired(Hello),
    /// Both sides have reserved.
    Up {
        /// The partner's incarnation.
        partner_incarnation: u64,
    },
    /// The partner's memory has a new incarnation.
    Incarnation(u64),
    /// To be given to the data plane, then [`Epochs::installed`].
    Epoch(EpochKey),
    /// A message of the partner's stream: to be applied, then [`Session::applied`].
    Stream {
        /// Its position.
        position: u64,
        /// Content.
        body: StreamBody,
    },
    /// It is over. What [`Session::poll_transmit`] still has is to be sent before the connection is closed.
    Ended(End),
}

#[derive(Debug)]
enum Phase {
    /// Waits for the other side's preamble.
    Preamble,
    /// Waits for its handshake message.
    Handshake,
    /// Secured; the flag: something of the other side has opened.
    Open(bool),
}

/// The receiving side of a stream.
#[derive(Debug)]
struct Sink {
    reign: u64,
    delivered: u64,
    applied: u64,
}

/// One connection.
#[derive(Debug)]
pub struct Session {
    dialled: bool,
    secure: Secure,
    reader: Reader,
    phase: Phase,
    clear: VecDeque<Vec<u8>>,
    events: VecDeque<Event>,
    end: Option<End>,
    refuse: Option<String>,
    pairing: Pairing,
    source: Option<Source>,
    sink: Option<Sink>,
    applied: Option<u64>,
    epoch_lost_said: bool,
    pong: Option<u64>,
    ping_due: bool,
    asked: Option<Nanos>,
    round_trip: Option<Nanos>,
    started: Nanos,
    heard: Nanos,
    next_ping: Nanos,
}

impl Session {
    /// A connection that was just made; `dialled`: by this node.
    ///
    /// # Errors
    /// If a key cannot be used.
    pub fn new(dialled: bool, keys: &Keys, now: Nanos) -> Result<Self, crate::secure::SecureError> {
        let mut secure = Secure::new(dialled, &keys.own, &keys.partner)?;
        let mut preamble = PREAMBLE.to_vec();
        preamble.extend_from_slice(&VERSION.to_be_bytes());
        let mut clear = VecDeque::from([preamble]);
        clear.extend(if dialled { secure.write_handshake()? } else { None });
        Ok(Self {
            dialled,
            secure,
            reader: Reader::default(),
            phase: Phase::Preamble,
            clear,
            events: VecDeque::new(),
            end: None,
            refuse: None,
            pairing: Pairing::default(),
            source: None,
            sink: None,
            applied: None,
            epoch_lost_said: false,
            pong: None,
            ping_due: false,
            asked: None,
            round_trip: None,
            started: now,
            heard: now,
            next_ping: now + PING_EVERY,
        })
    }

    /// Did this node dial?
    #[must_use]
    pub fn dialled(&self) -> bool {
        self.dialled
    }

    /// Is it over?
    #[must_use]
    pub fn is_ended(&self) -> bool {
        self.end.is_some()
    }

    /// Is it up: authenticated, equal configurations, terms reserved on both sides?
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.end.is_none() && self.pairing.is_up()
    }

    /// Octets that have arrived.
    pub fn receive(&mut self, octets: &[u8], local: &mut Local, now: Nanos) {
        local.counters.octets_received += octets.len() as u64;
        let mut reader = std::mem::take(&mut self.reader);
        reader.push(octets);
        while self.end.is_none() {
            match reader.next_frame() {
                Ok(Some(frame)) => self.frame(frame, local, now),
                Ok(None) => break,
                Err(error) => self.finish(End::Malformed(error.to_string()), local),
            }
        }
        self.reader = reader;
    }

    fn frame(&mut self, frame: &[u8], local: &mut Local, now: Nanos) {
        match self.phase {
            Phase::Preamble => match frame.strip_prefix(PREAMBLE) {
                Some(&[high, low]) if u16::from_be_bytes([high, low]) == VERSION => {
                    self.phase = Phase::Handshake;
                }
                Some(&[high, low]) => self.finish(End::Version(u16::from_be_bytes([high, low])), local),
                _ => self.finish(End::NotSsp, local),
            },
            Phase::Handshake => {
                let done = self.secure.read_handshake(frame).and_then(|()| self.secure.write_handshake());
                match done {
                    Ok(answer) => {
                        self.clear.extend(answer);
                        self.phase = Phase::Open(false);
                        if self.dialled {
                            self.established(now);
                        }
                    }
                    Err(error) => self.finish(End::NotPartner(error.to_string()), local),
                }
            }
            Phase::Open(established) => {
                let content = match self.secure.open(frame) {
                    Ok(content) => content,
                    Err(error) => return self.finish(End::NotPartner(error.to_string()), local),
                };
                if !established {
                    self.established(now);
                }
                self.heard = now;
                match Message::decode(&content) {
                    Ok(message) => {
                        local.counters.messages[message.kind()].received += 1;
                        self.message(message, local, now);
                    }
                    Err(error) => self.finish(End::Malformed(error.to_string()), local),
                }
            }
        }
    }

    fn established(&mut self, now: Nanos) {
        self.phase = Phase::Open(true);
        self.heard = now;
        self.events.push_back(Event::Established);
    }

    /// The owner has reserved above the partner's terms, on disk.
    pub fn reserved(&mut self) {
        self.pairing.own_reserved();
    }

    /// The owner has applied the partner's stream up to `position`.
    pub fn applied(&mut self, position: u64) {
        if let Some(sink) = &mut self.sink
            && position > sink.applied
            && position <= sink.delivered
        {
            sink.applied = position;
            self.applied = Some(position);
        }
    }

    /// Ends it, and says why to the partner.
    pub fn refuse(&mut self, reason: String, local: &mut Local) {
        if self.end.is_none() {
            self.refuse = Some(reason.clone());
            self.finish(End::Refused(reason), local);
        }
    }

    /// The connection is gone, or given up.
    pub fn close(&mut self, end: End, local: &mut Local) {
        if self.end.is_none() {
            self.finish(end, local);
        }
    }

    fn finish(&mut self, end: End, local: &mut Local) {
        if self.source.take().is_some() {
            local.store.end_stream();
        }
        self.sink = None;
        local.counters.count(&end);
        self.events.push_back(Event::Ended(end.clone()));
        self.end = Some(end);
    }

    /// What has happened.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Has something happened that was not asked for yet?
    #[must_use]
    pub fn has_event(&self) -> bool {
        !self.events.is_empty()
    }

    /// When [`Session::handle_timeout`] is due.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Nanos> {
        self.end.is_none().then(|| self.deadline().min(self.next_ping))
    }

    fn deadline(&self) -> Nanos {
        // Whoever is not known yet gets no time by sending something.
        let since = if self.pairing.partner().is_some() { self.heard } else { self.started };
        since + SILENCE
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, local: &mut Local, now: Nanos) {
        if self.end.is_some() {
            return;
        }
        if now >= self.deadline() {
            let end = self.pairing.found().unwrap_or(End::Silent);
            return self.finish(end, local);
        }
        if now >= self.next_ping {
            self.next_ping = now + PING_EVERY;
            self.ping_due = true;
        }
    }

    /// The next frame to send, with its length. To be called after anything has happened, or [`Local`] has changed, until it
    /// gives nothing; only when the frame before is on its way, which paces the stream.
    pub fn poll_transmit(&mut self, local: &mut Local, now: Nanos) -> Option<Vec<u8>> {
        let sealed = match self.clear.pop_front() {
            Some(clear) => clear,
            None => {
                let message = self.next_message(local, now)?;
                local.counters.messages[message.kind()].sent += 1;
                let sealed = message.encode().map_err(|error| error.to_string());
                match sealed.and_then(|octets| self.secure.seal(&octets).map_err(|error| error.to_string())) {
                    Ok(sealed) => sealed,
                    Err(error) => {
                        self.close(End::Internal(error), local);
                        return None;
                    }
                }
            }
        };
        let frame = frame::encode(&sealed).ok()?;
        local.counters.octets_sent += frame.len() as u64;
        Some(frame)
    }

    fn next_message(&mut self, local: &mut Local, now: Nanos) -> Option<Message> {
        if !matches!(self.phase, Phase::Open(_)) {
            return None;
        }
        if self.end.is_some() {
            return self.refuse.take().map(|reason| Message::Refuse { reason: clipped(reason) });
        }
        if let Some(message) = self.pairing_message(local) {
            return Some(message);
        }
        if self.end.is_some() {
            return self.refuse.take().map(|reason| Message::Refuse { reason: clipped(reason) });
        }
        if let Some(stamp) = self.pong.take() {
            return Some(Message::Pong { stamp });
        }
        if std::mem::take(&mut self.ping_due) {
            self.asked = Some(now);
            return Some(Message::Ping { stamp: now });
        }
        if !self.is_up() || self.pairing.differs() {
            return None;
        }
        if let Some(message) = self.epoch_message(local) {
            return Some(message);
        }
        if let Some(position) = self.applied.take() {
            return Some(Message::Applied { position });
        }
        self.stream_message(local)
    }

    fn epoch_message(&mut self, local: &mut Local) -> Option<Message> {
        if local.epochs.is_missing() {
            if local.node != 0 {
                let above = local.epochs.highest();
                let said = std::mem::replace(&mut self.epoch_lost_said, true);
                return (!said).then_some(Message::EpochWanted { above });
            }
            if let Err(error) = local.epochs.begin_above(0) {
                self.finish(End::Internal(error.to_string()), local);
                return None;
            }
        }
        if let Some(key) = local.epochs.to_install() {
            self.events.push_back(Event::Epoch(key));
        }
        Some(match local.epochs.say()? {
            Say::Offer(number, secret) => Message::Epoch { number, secret },
            Say::Ready(number) => Message::EpochReady { number },
            Say::Use(number) => Message::EpochUse { number },
            Say::Used(number) => Message::EpochUsed { number },
        })
    }

    fn stream_message(&mut self, local: &mut Local) -> Option<Message> {
        if self.source.as_ref().map(Source::reign) != local.source {
            if self.source.is_some() {
                local.store.end_stream();
            }
            self.source = local.source.map(|reign| Source::new(reign, local.position));
        }
        if let (Some(own), Some(sink)) = (local.source, &self.sink)
            && own >= sink.reign
        {
            self.sink = None;
        }
        let (position, body) = self.source.as_mut()?.next(&mut local.store)?;
        local.position = position;
        Some(Message::Stream { position, body })
    }

    /// Position of the stream, if everything that is in the store now was sent by this session: a quiet point.
    #[must_use]
    pub fn quiet(&self, local: &Local) -> Option<u64> {
        let source = self.source.as_ref().filter(|_| self.is_up())?;
        (local.source == Some(source.reign()) && source.is_at_rest(&local.store)).then_some(source.position())
    }

    /// For operators.
    #[must_use]
    pub fn status(&self) -> Status {
        let stage = match (&self.phase, self.pairing.partner()) {
            _ if self.end.is_some() => Stage::Ended,
            (Phase::Preamble | Phase::Handshake, _) => Stage::Handshake,
            (Phase::Open(_), None) => Stage::Greeting,
            (Phase::Open(_), Some(_)) if self.pairing.differs() => Stage::Comparing,
            (Phase::Open(_), Some(_)) if self.pairing.is_up() => Stage::Up,
            (Phase::Open(_), Some(_)) => Stage::Reserving,
        };
        Status {
            stage,
            dialled: self.dialled,
            since: self.started,
            heard: self.heard,
            round_trip: self.round_trip,
            partner: self.pairing.partner().cloned(),
            sending: self.source.as_ref().map(|source| StreamState {
                reign: source.reign(),
                position: source.position(),
                applied: source.acknowledged(),
                complete: source.is_live(),
            }),
            receiving: self.sink.as_ref().map(|sink| StreamState {
                reign: sink.reign,
                position: sink.delivered,
                applied: sink.applied,
                complete: false,
            }),
        }
    }
}

/// At most so long as a reason may be.
fn clipped(mut reason: String) -> String {
    while reason.len() > crate::message::REASON_MAX {
        reason.pop();
    }
    reason
}

//! The one ordered stream of the active node (F40): a bulk of all SAs, read at the moment of sending and paced by
//! the partner's acknowledgements, with changes and deletions in between and after it.

use crate::message::StreamBody;
use crate::store::{Read, SaId, Store, id};

/// Stream messages that may be under way without an acknowledgement.
pub const WINDOW: u64 = 64;

/// The sending side of a stream, within one session.
#[derive(Debug)]
pub struct Source {
    reign: u64,
    stage: Stage,
    /// Changes up to this version are sent.
    changes_sent: u64,
    position: u64,
    acknowledged: u64,
    started_at: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Start,
    Bulk(Option<SaId>),
    Live,
}

impl Source {
    /// A stream of the reign `reign`; positions go on from `position`, so that one of an earlier stream never counts
    /// for this one.
    #[must_use]
    pub fn new(reign: u64, position: u64) -> Self {
        Self {
            reign,
            stage: Stage::Start,
            changes_sent: 0,
            position,
            acknowledged: position,
            started_at: position,
        }
    }

    /// Term of the reign.
    #[must_use]
    pub fn reign(&self) -> u64 {
        self.reign
    }

    /// Position of the last message sent.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Position up to which the partner has applied it.
    #[must_use]
    pub fn acknowledged(&self) -> u64 {
        self.acknowledged
    }

    /// Was the bulk sent?
    #[must_use]
    pub fn is_live(&self) -> bool {
        self.stage == Stage::Live
    }

    /// Was everything sent that is in `store`? A quiet point.
    #[must_use]
    pub fn is_at_rest(&self, store: &Store) -> bool {
        self.is_live() && store.change_after(self.changes_sent).is_none()
    }

    /// The partner has applied it up to `position`. False: that was never sent.
    pub fn applied(&mut self, position: u64) -> bool {
        if position > self.position {
            return false;
        }
        // One of an earlier stream of this process names a position from before this one.
        if position > self.started_at {
            self.acknowledged = self.acknowledged.max(position);
        }
        true
    }

    /// The next message, if the window is open and there is something to say.
    pub fn next(&mut self, store: &mut Store) -> Option<(u64, StreamBody)> {
        if self.position - self.acknowledged >= WINDOW {
            return None;
        }
        let body = self.next_body(store)?;
        self.position += 1;
        Some((self.position, body))
    }

    fn next_body(&mut self, store: &mut Store) -> Option<StreamBody> {
        if self.stage == Stage::Start {
            self.changes_sent = store.start_stream();
            self.stage = Stage::Bulk(None);
            return Some(StreamBody::BulkStart { reign: self.reign });
        }
        // Changes go before what is left of the bulk: above all deletions.
        if let Some(read) = store.change_after(self.changes_sent) {
            let (version, body) = match read {
                Read::Sa(version, spec) => {
                    (version, StreamBody::Sa { version, spec: Box::new(spec.clone()) })
                }
                Read::Gone(version, (direction, spi), peer, fingerprint) => {
                    (version, StreamBody::Delete { version, direction, spi, peer, fingerprint })
                }
            };
            self.changes_sent = version;
            store.sent(version);
            return Some(body);
        }
        let Stage::Bulk(cursor) = self.stage else { return None };
        match store.after(cursor) {
            Some((version, spec)) => {
                self.stage = Stage::Bulk(Some(id(spec)));
                Some(StreamBody::Sa { version, spec: Box::new(spec.clone()) })
            }
            None => {
                self.stage = Stage::Live;
                Some(StreamBody::EndOfBulk)
            }
        }
    }
}

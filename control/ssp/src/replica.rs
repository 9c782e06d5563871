//! The SAs of the partner's stream, as the standby holds them (F40).

use crate::message::StreamBody;
use crate::store::{SaId, id};
use std::collections::BTreeMap;
use tandem_api::dataplane::SaSpec;

/// What a stream has brought. Outlives a session: what an earlier stream named stays until the end of the next bulk shows that
/// it is gone.
#[derive(Debug, Default)]
pub struct Replica {
    held: BTreeMap<SaId, Held>,
    /// Deletions since the start of the bulk, and their versions.
    tombstones: BTreeMap<SaId, u64>,
    in_bulk: bool,
    complete: bool,
}

#[derive(Debug)]
struct Held {
    version: u64,
    /// Did the present stream name it?
    covered: bool,
    spec: SaSpec,
}

/// What a message of the stream has changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Nothing.
    Nothing,
    /// This SA is new or another one.
    Put(SaId),
    /// These are gone.
    Gone(Vec<SaId>),
}

impl Replica {
    /// Applies one message.
    pub fn apply(&mut self, body: StreamBody) -> Change {
        match body {
            StreamBody::BulkStart { .. } => {
                // Versions are those of the sender's process: another stream, other versions.
                self.tombstones.clear();
                (self.in_bulk, self.complete) = (true, false);
                for held in self.held.values_mut() {
                    (held.version, held.covered) = (0, false);
                }
                Change::Nothing
            }
            StreamBody::Sa { version, spec } => {
                let key = id(&spec);
                let newest = self.held.get(&key).map_or(0, |held| held.version);
                let deleted = self.tombstones.get(&key).copied().unwrap_or(0);
                if version < newest || version <= deleted {
                    return Change::Nothing;
                }
                let same = self.held.get(&key).is_some_and(|held| held.spec == *spec);
                self.held.insert(key, Held { version, covered: true, spec: *spec });
                if same { Change::Nothing } else { Change::Put(key) }
            }
            StreamBody::Delete { version, direction, spi, fingerprint, .. } => {
                let key = (direction, spi);
                if self.in_bulk {
                    self.tombstones.insert(key, version);
                }
                let newer = |held: &Held| {
                    // Held from before this stream: it goes, if it is the same one.
                    if held.covered { held.version <= version } else { held.spec.fingerprint == fingerprint }
                };
                if self.held.get(&key).is_some_and(newer) {
                    self.held.remove(&key);
                    return Change::Gone(vec![key]);
                }
                Change::Nothing
            }
            StreamBody::EndOfBulk => {
                self.tombstones.clear();
                (self.in_bulk, self.complete) = (false, true);
                let gone: Vec<SaId> =
                    self.held.iter().filter(|(_, held)| !held.covered).map(|(key, _)| *key).collect();
                self.held.retain(|_, held| held.covered);
                if gone.is_empty() { Change::Nothing } else { Change::Gone(gone) }
            }
        }
    }

    /// Was the end of the bulk applied?
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.complete
    }

    /// The session is gone: what is held stays, but nothing says any more that it is all.
    pub fn interrupted(&mut self) {
        (self.in_bulk, self.complete) = (false, false);
    }

    /// One SA.
    #[must_use]
    pub fn get(&self, key: SaId) -> Option<&SaSpec> {
        self.held.get(&key).map(|held| &held.spec)
    }

    /// All SAs.
    pub fn specs(&self) -> impl Iterator<Item = &SaSpec> {
        self.held.values().map(|held| &held.spec)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Store;
    use crate::stream::Source;
    use proptest::prelude::*;
    use tandem_api::dataplane::StaleAction;
    use tandem_api::types::{Direction, KeyFingerprint, KeyMaterial, Transform};

    fn spec(spi: u32, mark: u64) -> SaSpec {
        SaSpec {
            direction: Direction::Inbound,
            spi,
            policy: 1,
            selectors: Vec::new(),
            local: [192, 0, 2, 1].into(),
            peer: [198, 51, 100, 2].into(),
            transform: Transform::Aes128gcm16,
            key: KeyMaterial::new(vec![mark as u8; 20]),
            fingerprint: KeyFingerprint(mark),
            base_term: 0,
            stale: StaleAction::Jump,
            map: "m".to_owned(),
        }
    }

    fn holds(replica: &Replica) -> Vec<(u32, u64)> {
        replica.specs().map(|spec| (spec.spi, spec.fingerprint.0)).collect()
    }

    #[derive(Clone, Debug)]
    enum Step {
        Put(u32, u64),
        Delete(u32),
        Touch(u32),
        Send(u8),
        /// The session breaks; the next one starts a stream of its own.
        Break,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (1u32..12, 1u64..4).prop_map(|(spi, mark)| Step::Put(spi, mark)),
            3 => (1u32..12).prop_map(Step::Delete),
            1 => (1u32..12).prop_map(Step::Touch),
            6 => any::<u8>().prop_map(|count| Step::Send(count % 5)),
            1 => Just(Step::Break),
        ]
    }

    proptest! {
        #[test]
        fn the_standby_holds_what_the_active_node_has_whatever_changes_during_the_bulk(
            steps in prop::collection::vec(step(), 0..80),
        ) {
            let (mut store, mut replica) = (Store::default(), Replica::default());
            let mut source = Source::new(2, 0);
            let mut seen = 0;
            let mut send = |source: &mut Source, store: &mut Store, replica: &mut Replica, count: u8| {
                for _ in 0..count {
                    let Some((position, body)) = source.next(store) else { break };
                    assert_eq!(position, seen + 1);
                    seen = position;
                    replica.apply(body);
                    assert!(source.applied(position));
                }
            };
            for step in steps {
                match step {
                    Step::Put(spi, mark) => store.put(spec(spi, mark)),
                    Step::Delete(spi) => store.delete((Direction::Inbound, spi)),
                    Step::Touch(spi) => {
                        store.touch((Direction::Inbound, spi));
                    }
                    Step::Send(count) => send(&mut source, &mut store, &mut replica, count),
                    Step::Break => {
                        replica.interrupted();
                        store.end_stream();
                        source = Source::new(2, source.position());
                    }
                }
            }
            send(&mut source, &mut store, &mut replica, u8::MAX);
            prop_assert!(source.is_at_rest(&store) && replica.is_complete());
            let mut all = Vec::new();
            let mut cursor = None;
            while let Some((_, spec)) = store.after(cursor) {
                all.push((spec.spi, spec.fingerprint.0));
                cursor = Some(id(spec));
            }
            prop_assert_eq!(holds(&replica), all);
        }
    }

    #[test]
    fn what_was_deleted_during_the_bulk_does_not_come_back_by_an_older_message() {
        let mut replica = Replica::default();
        replica.apply(StreamBody::BulkStart { reign: 2 });
        let delete = StreamBody::Delete {
            version: 5,
            direction: Direction::Inbound,
            spi: 1,
            peer: [198, 51, 100, 2].into(),
            fingerprint: KeyFingerprint(1),
        };
        replica.apply(delete);
        assert_eq!(replica.apply(StreamBody::Sa { version: 4, spec: Box::new(spec(1, 1)) }), Change::Nothing);
        assert_eq!(
            replica.apply(StreamBody::Sa { version: 6, spec: Box::new(spec(1, 2)) }),
            Change::Put((Direction::Inbound, 1))
        );
    }

    #[test]
    fn at_most_a_window_of_messages_is_under_way() {
        let mut store = Store::default();
        for spi in 0..500 {
            store.put(spec(spi, 1));
        }
        let mut source = Source::new(2, 10);
        let mut sent = Vec::new();
        while let Some((position, _)) = source.next(&mut store) {
            sent.push(position);
        }
        assert_eq!(sent, (11..11 + crate::stream::WINDOW).collect::<Vec<_>>());
        assert!(!source.applied(sent.len() as u64 + 11), "never sent");
        assert!(source.applied(3), "of an earlier stream");
        assert!(source.next(&mut store).is_none());
        assert!(source.applied(12));
        assert!(source.next(&mut store).is_some() && source.next(&mut store).is_some());
        assert!(source.next(&mut store).is_none());
    }

    #[test]
    fn an_sa_is_read_when_it_is_sent() {
        let mut store = Store::default();
        store.put(spec(1, 1));
        store.put(spec(2, 1));
        let mut source = Source::new(2, 0);
        source.next(&mut store).unwrap();
        store.put(spec(2, 7));
        let mut marks = Vec::new();
        while let Some((_, body)) = source.next(&mut store) {
            if let StreamBody::Sa { spec, .. } = body {
                marks.push((spec.spi, spec.fingerprint.0));
            }
        }
        assert!(marks.contains(&(2, 7)) && !marks.contains(&(2, 1)), "{marks:?}");
    }
}

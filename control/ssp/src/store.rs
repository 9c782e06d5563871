//! The SAs that the active node sends: read at the moment of sending, each under a version (F40).

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use tandem_api::dataplane::SaSpec;
use tandem_api::types::{Direction, KeyFingerprint};

/// What an SA is known by on both nodes.
pub type SaId = (Direction, u32);

/// The identity of `spec`.
#[must_use]
pub fn id(spec: &SaSpec) -> SaId {
    (spec.direction, spec.spi)
}

/// The SAs of this node, and what has changed lately.
#[derive(Debug, Default)]
pub struct Store {
    version: u64,
    entries: BTreeMap<SaId, Entry>,
    /// The newest change of each SA, by version. Deletions stay only while a stream may not have sent them.
    changes: BTreeMap<u64, Change>,
    streaming: bool,
}

#[derive(Debug)]
struct Entry {
    version: u64,
    spec: SaSpec,
}

#[derive(Clone, Copy, Debug)]
enum Change {
    Put(SaId),
    Gone(SaId, Ipv4Addr, KeyFingerprint),
}

/// An SA, or what is left of it, as read at the moment of sending.
#[derive(Debug)]
pub enum Read<'s> {
    /// It is there.
    Sa(u64, &'s SaSpec),
    /// It was deleted.
    Gone(u64, SaId, Ipv4Addr, KeyFingerprint),
}

impl Store {
    /// Adds or changes an SA. An equal one is left alone.
    pub fn put(&mut self, spec: SaSpec) {
        let key = id(&spec);
        if self.entries.get(&key).is_some_and(|entry| entry.spec == spec) {
            return;
        }
        self.forget(key);
        self.version += 1;
        self.changes.insert(self.version, Change::Put(key));
        self.entries.insert(key, Entry { version: self.version, spec });
    }

    /// Removes an SA.
    pub fn delete(&mut self, key: SaId) {
        let Some(entry) = self.entries.remove(&key) else { return };
        self.changes.remove(&entry.version);
        self.version += 1;
        if self.streaming {
            let gone = Change::Gone(key, entry.spec.peer, entry.spec.fingerprint);
            self.changes.insert(self.version, gone);
        }
    }

    /// Makes it exactly these.
    pub fn replace(&mut self, specs: Vec<SaSpec>) {
        let wanted: std::collections::BTreeSet<SaId> = specs.iter().map(id).collect();
        let gone: Vec<SaId> = self.entries.keys().filter(|key| !wanted.contains(*key)).copied().collect();
        for key in gone {
            self.delete(key);
        }
        for spec in specs {
            self.put(spec);
        }
    }

    /// Makes it go out again in the running stream. False: it is not there.
    pub fn touch(&mut self, key: SaId) -> bool {
        let Some(entry) = self.entries.get_mut(&key) else { return false };
        self.changes.remove(&entry.version);
        self.version += 1;
        entry.version = self.version;
        self.changes.insert(self.version, Change::Put(key));
        true
    }

    /// SAs in it.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// No SA?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// A deletion that no stream needs is forgotten with the change that it followed.
    fn forget(&mut self, key: SaId) {
        if let Some(entry) = self.entries.get(&key) {
            self.changes.remove(&entry.version);
        }
    }

    /// A stream starts: all deletions before it are of no interest to it.
    pub(crate) fn start_stream(&mut self) -> u64 {
        self.streaming = true;
        self.changes.retain(|_, change| matches!(change, Change::Put(_)));
        self.version
    }

    /// No stream runs any more.
    pub(crate) fn end_stream(&mut self) {
        self.streaming = false;
        self.changes.retain(|_, change| matches!(change, Change::Put(_)));
    }

    /// The first change above `version`.
    pub(crate) fn change_after(&self, version: u64) -> Option<Read<'_>> {
        let (version, change) = self.changes.range(version + 1..).next()?;
        match *change {
            Change::Gone(key, peer, fingerprint) => Some(Read::Gone(*version, key, peer, fingerprint)),
            Change::Put(key) => self.entries.get(&key).map(|entry| Read::Sa(*version, &entry.spec)),
        }
    }

    /// Deletions up to `version` are sent.
    pub(crate) fn sent(&mut self, version: u64) {
        if matches!(self.changes.get(&version), Some(Change::Gone(..))) {
            self.changes.remove(&version);
        }
    }

    /// The first SA behind `key`, in the order of a bulk.
    pub(crate) fn after(&self, key: Option<SaId>) -> Option<(u64, &SaSpec)> {
        use std::ops::Bound::{Excluded, Unbounded};
        let from = key.map_or(Unbounded, Excluded);
        self.entries.range((from, Unbounded)).next().map(|(_, entry)| (entry.version, &entry.spec))
    }
}

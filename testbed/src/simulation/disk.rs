//! The disk of a node: its term file (the real type, F1, F2) and the numbers of its static SAs (F40).
//!
//! A write takes time. When the process that asked for it dies, what was under way is there or not; when the disk
//! itself is lost, a new file has a new id and nobody's partner.

use super::rng::Rng;
use std::collections::{BTreeMap, VecDeque};
use tandem_lease::{NodeNumber, SaKey, TermFile};
use tandem_takeover::Known;

/// A write that is under way.
#[derive(Clone, Debug)]
pub enum Write {
    /// The term file, whole.
    Terms(Box<TermFile>),
    /// Reservations of the numbers file, and the id that the machine gave them.
    Numbers(u64, Vec<(SaKey, u64)>),
}

/// A disk.
#[derive(Debug)]
pub struct Disk {
    /// What the term file says.
    pub terms: TermFile,
    /// What the numbers file says; `None`: the file is not this term file's.
    pub numbers: Option<BTreeMap<SaKey, u64>>,
    /// Counts lost disks; for the checkers.
    pub life: u32,
    terms_under_way: VecDeque<TermFile>,
    numbers_under_way: VecDeque<(u64, Vec<(SaKey, u64)>)>,
}

impl Disk {
    /// As `tandemctl node init` leaves it.
    #[must_use]
    pub fn new(rng: &mut Rng, node: NodeNumber) -> Self {
        Self {
            terms: TermFile::new(file_id(rng), node),
            numbers: Some(BTreeMap::new()),
            life: 0,
            terms_under_way: VecDeque::new(),
            numbers_under_way: VecDeque::new(),
        }
    }

    /// Lost, and made anew: the operator keeps the keys of the static SAs, so none of their numbers is known.
    pub fn lose(&mut self, rng: &mut Rng) {
        self.terms = TermFile::new(file_id(rng), self.terms.node);
        self.numbers = None;
        self.life += 1;
        self.terms_under_way.clear();
        self.numbers_under_way.clear();
    }

    /// Newest term file, written or under way.
    #[must_use]
    pub fn newest(&self) -> &TermFile {
        self.terms_under_way.back().unwrap_or(&self.terms)
    }

    /// Begins a write.
    pub fn begin(&mut self, write: Write) {
        match write {
            Write::Terms(file) => self.terms_under_way.push_back(*file),
            Write::Numbers(id, entries) => self.numbers_under_way.push_back((id, entries)),
        }
    }

    /// The oldest write of terms is done. True where none is left under way.
    pub fn terms_done(&mut self) -> bool {
        if let Some(file) = self.terms_under_way.pop_front() {
            self.terms = file;
        }
        self.terms_under_way.is_empty()
    }

    /// The oldest write of numbers is done: its id.
    pub fn numbers_done(&mut self) -> Option<u64> {
        let (id, entries) = self.numbers_under_way.pop_front()?;
        self.append(entries);
        Some(id)
    }

    fn append(&mut self, entries: Vec<(SaKey, u64)>) {
        let numbers = self.numbers.get_or_insert_default();
        for (key, value) in entries {
            let known = numbers.entry(key).or_default();
            *known = (*known).max(value);
        }
    }

    /// The control process is gone: of what it was writing, the first ones are there.
    pub fn control_gone(&mut self, rng: &mut Rng) {
        while !self.terms_under_way.is_empty() && rng.chance(500) {
            self.terms_done();
        }
        self.terms_under_way.clear();
    }

    /// The data plane is gone, in the same way.
    pub fn data_gone(&mut self, rng: &mut Rng) {
        while !self.numbers_under_way.is_empty() && rng.chance(500) {
            self.numbers_done();
        }
        self.numbers_under_way.clear();
    }

    /// What the numbers file says of an SA whose hot state is new.
    #[must_use]
    pub fn known(&self, key: &SaKey, born_here: bool) -> Known {
        match self.numbers.as_ref().map(|numbers| numbers.get(key)) {
            Some(Some(value)) => Known::UpTo(*value),
            // An intact file names every key that was ever used here.
            Some(None) => Known::Never,
            None if born_here => Known::Never,
            None => Known::Lost,
        }
    }
}

fn file_id(rng: &mut Rng) -> [u8; 16] {
    std::array::from_fn(|_| rng.next() as u8)
}

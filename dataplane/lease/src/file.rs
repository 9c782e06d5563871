//! The term file: what is on disk, and how terms and incarnations are taken from it (`failover.md` F1, F2).

use crate::term::{NodeNumber, TermError};

mod codec;

pub use codec::DecodeError;

/// Public node key of a partner (X25519).
pub type PublicKey = [u8; 32];

/// Longest term file in octets.
pub const FILE_MAX: usize = 1024;
/// Terms reserved ahead of need.
const AHEAD: u64 = 16;
/// A file that is new to a partner which knows terms of this pair: so far above them lie its own. Its former file may
/// have taken terms that the partner never heard of, one for each start without memory and each takeover. No bound of
/// that is known; only new keys of the static SAs make it certain.
const UNHEARD: u64 = 1 << 11;
/// Fewer terms left are an alarm.
const ALARM: u64 = 4;

/// May reserved terms have been taken without a note in the file?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pool {
    /// No: every term taken is in the file. So for a gateway without partner, which takes terms at its
    /// start only.
    Closed,
    /// Yes: a takeover takes a reserved term and notes it after. After a crash all reserved terms count as
    /// used.
    Open,
}

/// What a node knows of its terms on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TermFile {
    /// Random, made with the file: tells a new file from an old one.
    pub file_id: [u8; 16],
    /// Whose terms these are.
    pub node: NodeNumber,
    taken: u64,
    reserved: u64,
    pool: Pool,
    incarnation: u64,
    reign: u64,
    partner: Option<PublicKey>,
}

/// Terms that can be taken without a write, from a [`TermFile`] that is on disk with [`Pool::Open`].
#[derive(Debug)]
pub struct Terms {
    node: NodeNumber,
    taken: u64,
    reserved: u64,
}

impl TermFile {
    /// The first file of a node. No term was taken, 16 are reserved.
    #[must_use]
    pub fn new(file_id: [u8; 16], node: NodeNumber) -> Self {
        Self {
            file_id,
            node,
            taken: 0,
            reserved: 2 * AHEAD,
            pool: Pool::Closed,
            incarnation: 0,
            reign: 0,
            partner: None,
        }
    }

    /// May terms of this file have been used? An open pool counts: a data plane may have taken from it.
    #[must_use]
    pub fn ever_used(&self) -> bool {
        self.taken > 0 || self.pool == Pool::Open
    }

    /// Highest term that is known to be taken; 0 for none.
    #[must_use]
    pub fn taken(&self) -> u64 {
        self.taken
    }

    /// Highest term that may be taken without a write.
    #[must_use]
    pub fn reserved(&self) -> u64 {
        self.reserved
    }

    /// May reserved terms have been taken without a note in the file?
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.pool == Pool::Open
    }

    /// Newest incarnation of this node's memory that was given out; 0 for none.
    #[must_use]
    pub fn incarnation(&self) -> u64 {
        self.incarnation
    }

    /// Newest reign known, of either node; 0 for none.
    #[must_use]
    pub fn reign(&self) -> u64 {
        self.reign
    }

    /// The partner whose highest terms were learnt, if any.
    #[must_use]
    pub fn partner(&self) -> Option<&PublicKey> {
        self.partner.as_ref()
    }

    /// Terms reserved and not known to be taken.
    #[must_use]
    pub fn left(&self) -> u64 {
        left(self.node, self.taken, self.reserved)
    }

    /// Are fewer terms left than should be (F2)?
    #[must_use]
    pub fn alarm(&self) -> bool {
        self.left() < ALARM
    }

    /// At a start with new hot state: a term that was never used, and the file that must be on disk before
    /// it is used.
    ///
    /// # Errors
    /// [`TermError::Exhausted`] at the end of 64 bits.
    pub fn take_at_start(&self) -> Result<(u64, TermFile), TermError> {
        let term = self.node.next_above(self.used())?;
        let next = TermFile { taken: term, pool: Pool::Closed, ..self.clone() }.refilled()?;
        Ok((term, next))
    }

    /// After a term was heard of that this file does not know (an old copy of the file was restored, or
    /// the partner is ahead): the file above it, with terms reserved. Gives `None` where the file knows it.
    ///
    /// # Errors
    /// [`TermError::Exhausted`] at the end of 64 bits.
    pub fn reserve_above(&self, heard: u64) -> Result<Option<TermFile>, TermError> {
        if heard <= self.taken {
            return Ok(None);
        }
        TermFile { taken: heard, ..self.clone() }.refilled().map(Some)
    }

    /// Ready for takeovers: the file that must be on disk before [`Terms::take`], and the terms.
    ///
    /// # Errors
    /// [`TermError::Exhausted`] at the end of 64 bits.
    pub fn open(&self) -> Result<(TermFile, Terms), TermError> {
        let file = TermFile { taken: self.used(), pool: Pool::Open, ..self.clone() }.refilled()?;
        let terms = file.terms();
        Ok((file, terms))
    }

    /// The terms that may be taken while this very file is on disk. Only for the memory that it was opened
    /// for: another one may have taken some of them, and starts with [`TermFile::open`].
    #[must_use]
    pub fn terms(&self) -> Terms {
        let reserved = match self.pool {
            Pool::Closed => self.taken,
            Pool::Open => self.reserved,
        };
        Terms::granted(self.node, self.taken, reserved)
    }

    /// The next incarnation of this node's memory, above `seen` (one that somebody has seen of this node, for
    /// the case that an old copy of the file was restored), and the file that must be on disk before the
    /// incarnation is used. Terms stay as they are: where the memory itself is new, [`TermFile::open`] as well.
    ///
    /// # Errors
    /// [`TermError::Exhausted`] at the end of 64 bits.
    pub fn next_incarnation(&self, seen: u64) -> Result<(u64, TermFile), TermError> {
        let incarnation = self.incarnation.max(seen).checked_add(1).ok_or(TermError::Exhausted)?;
        Ok((incarnation, TermFile { incarnation, ..self.clone() }))
    }

    /// After a reign of either node has begun (F27): the file that knows it, with terms reserved above. Gives
    /// `None` where the file knows it.
    ///
    /// # Errors
    /// [`TermError::Exhausted`] at the end of 64 bits.
    pub fn note_reign(&self, term: u64) -> Result<Option<TermFile>, TermError> {
        if term <= self.reign {
            return Ok(None);
        }
        let taken = self.taken.max(term);
        TermFile { reign: term, taken, ..self.clone() }.refilled().map(Some)
    }

    /// After the partner has told the highest terms that it knows, the even and the odd ones ([`TermFile::highest`]
    /// of its file): the file that is paired with it, of this node number and above both (F1, F2). Gives `None`
    /// where the file is so already. For every session: it also lifts an old copy of the file that was restored.
    ///
    /// # Errors
    /// [`TermError::Exhausted`] at the end of 64 bits.
    pub fn pair(
        &self,
        partner: &PublicKey,
        node: NodeNumber,
        highest: [u64; 2],
    ) -> Result<Option<TermFile>, TermError> {
        let highest = highest[0].max(highest[1]);
        if self.eligible(Some(partner), node) {
            return self.reserve_above(highest);
        }
        // The partner may be another machine, or the parity another one: nothing that is reserved now is
        // taken under the new pairing.
        let lost = if self.partner.is_none() && highest > 0 { UNHEARD } else { 0 };
        let taken = self.used().max(highest.saturating_add(lost));
        let file = TermFile { node, taken, partner: Some(*partner), ..self.clone() };
        file.refilled().map(Some)
    }

    /// May this node become active beside this partner (`None`: none is configured), with this node number?
    /// Not before the highest terms of the partner are in the file (F1, F2).
    #[must_use]
    pub fn eligible(&self, partner: Option<&PublicKey>, node: NodeNumber) -> bool {
        self.node == node && (partner.is_none() || self.partner.as_ref() == partner)
    }

    /// The highest even and the highest odd term that may have been used as far as this file knows; what this
    /// partner is to be told for its [`TermFile::pair`].
    #[must_use]
    pub fn highest(&self, partner: &PublicKey) -> [u64; 2] {
        if self.partner.is_none() && self.taken == 0 {
            // Terms are reserved here and none could be taken: such a node is not eligible.
            return [0, 0];
        }
        // A partner that is paired keeps to its own parity, so terms that are only reserved here do not concern
        // it. If they were told each time, either node would lift the other for ever.
        let own = if self.partner.as_ref() == Some(partner) { self.taken } else { self.used() };
        let of = |node: NodeNumber| {
            let top = if node == self.node { own } else { self.taken };
            if top == 0 || node.owns(top) { top } else { top - 1 }
        };
        [of(NodeNumber::Zero), of(NodeNumber::One)]
    }

    /// Highest term that may have been used by a memory that is gone.
    fn used(&self) -> u64 {
        match self.pool {
            Pool::Closed => self.taken,
            Pool::Open => self.reserved,
        }
    }

    /// With [`AHEAD`] terms above the one taken.
    fn refilled(mut self) -> Result<Self, TermError> {
        let ahead = self.taken.checked_add(2 * AHEAD).ok_or(TermError::Exhausted)?;
        self.reserved = self.reserved.max(ahead);
        Ok(self)
    }
}

impl Terms {
    /// Terms above `taken` up to `reserved`, which a file on disk has reserved for whoever holds this.
    #[must_use]
    pub const fn granted(node: NodeNumber, taken: u64, reserved: u64) -> Self {
        Self { node, taken, reserved }
    }

    /// The next term above every one in `heard`, without a write (F1: a takeover). To be noted on disk
    /// soon after with [`TermFile::reserve_above`].
    ///
    /// # Errors
    /// [`TermError::NotReserved`] where it would lie above those reserved: not eligible.
    pub fn take(&mut self, heard: u64) -> Result<u64, TermError> {
        let term = self.node.next_above(self.taken.max(heard))?;
        if term > self.reserved {
            return Err(TermError::NotReserved);
        }
        self.taken = term;
        Ok(term)
    }

    /// Terms left.
    #[must_use]
    pub fn left(&self) -> u64 {
        left(self.node, self.taken, self.reserved)
    }

    /// Are fewer terms left than should be (F2)?
    #[must_use]
    pub fn alarm(&self) -> bool {
        self.left() < ALARM
    }
}

fn left(node: NodeNumber, taken: u64, reserved: u64) -> u64 {
    match node.next_above(taken) {
        Ok(first) if first <= reserved => (reserved - first) / 2 + 1,
        _ => 0,
    }
}

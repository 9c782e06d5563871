//! The state directory: node key, term file and numbers file, made together by `tandemctl node init`.
//!
//! All live in the folder `node`, which appears with all in it or not at all. A process that uses them
//! holds a lock, so that two never take the same term. The numbers file is written by the data plane.

use nix::unistd::geteuid;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use tandem_api::operator::{PairRecord, TermStatus};
use tandem_api::pair::Grant;
use tandem_lease::numbers::Numbers;
use tandem_lease::{DecodeError, FILE_MAX, NodeNumber, TermError, TermFile};
use x25519_dalek::{PublicKey, StaticSecret};
use zeroize::{Zeroize, Zeroizing};

const KEY_FORMAT: &str = "tandem-node-key 1";
/// Longest key file in octets.
const KEY_FILE_MAX: u64 = 256;

/// Key and terms of this node, locked for this process.
pub struct NodeState {
    folder: PathBuf,
    _lock: File,
    secret: StaticSecret,
    public_key: PublicKey,
    terms: TermFile,
    /// Written as taken, and not given to a data plane.
    unused: Option<u64>,
    /// The reserved terms are those of the data plane's memory.
    opened: bool,
    /// Highest term that was heard of and could not be written yet: above the file.
    unwritten: u64,
    /// Newest reign that could not be written yet.
    unnoted: u64,
    /// Highest incarnation that somebody has seen of this node.
    seen_incarnation: u64,
    /// The partner was told the present incarnation.
    told: bool,
    /// The incarnation of the file is not the data plane's: it has ended, or was never this memory's.
    incarnation_over: bool,
}

/// The memory of the data plane that an incarnation is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Memory {
    /// New: what the earlier one has taken of the reserved terms, nobody knows. They all count as used (F2).
    Lost,
    /// The one that the terms were granted to: after a goodbye or a demotion.
    Kept,
}

impl std::fmt::Debug for NodeState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut state = f.debug_struct("NodeState");
        state.field("folder", &self.folder).field("terms", &self.terms).finish_non_exhaustive()
    }
}

/// Why the state directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// `node init` was not run.
    #[error(
        "{0} has no node key and term file: run `tandemctl node init --state-directory {0}` once on this node"
    )]
    Missing(PathBuf),
    /// `node init` was run already.
    #[error(
        "{0} exists already: a node keeps its key and terms for life. Only for a node that shall become a new \
         one, with new keys in every static SA: stop tandem-control, remove {0} and run this again"
    )]
    Exists(PathBuf),
    /// Another process has it.
    #[error("{0} is in use by another tandem-control: stop that one, or use another state directory")]
    Locked(PathBuf),
    /// The term file is damaged.
    #[error(
        "term file {0}: {1}. Restore it from this very disk, never from an older copy; otherwise make a new \
         node: remove its folder, run `tandemctl node init`, give every static SA new keys"
    )]
    Terms(PathBuf, DecodeError),
    /// The key file is damaged or open to others.
    #[error("node key {0}: {1}")]
    Key(PathBuf, String),
    /// The partner's key is the own one.
    #[error(
        "the partner's key is the key of this node: give `partner-key` what `tandemctl node show` prints on the \
         partner, and where the state directory was copied, make a new node of the copy"
    )]
    SameKey,
    /// No term is left.
    #[error(transparent)]
    Exhausted(#[from] TermError),
    /// A file cannot be read or written.
    #[error("{0}: {1}; check that the directory exists and is writable for this user")]
    Io(PathBuf, io::Error),
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> StateError + '_ {
    move |error| StateError::Io(path.to_owned(), error)
}

/// Makes node key and term file. Gives the node's public key.
///
/// # Errors
/// If they are there already, or cannot be written.
pub fn init(state_directory: &Path) -> Result<[u8; 32], StateError> {
    let folder = state_directory.join("node");
    fs::DirBuilder::new().recursive(true).mode(0o700).create(state_directory).map_err(at(state_directory))?;
    let _lock = lock(state_directory)?;
    if fs::symlink_metadata(&folder).is_ok() {
        return Err(StateError::Exists(folder));
    }
    let draft = state_directory.join("node.new");
    match fs::remove_dir_all(&draft) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(StateError::Io(draft, error)),
        _ => {}
    }
    fs::DirBuilder::new().mode(0o700).create(&draft).map_err(at(&draft))?;

    let mut random = Zeroizing::new([0; 32]);
    let mut file_id = [0; 16];
    let no_random = |error: getrandom::Error| StateError::Io(draft.clone(), io::Error::other(error));
    getrandom::fill(&mut *random).map_err(no_random)?;
    getrandom::fill(&mut file_id).map_err(no_random)?;
    let secret = StaticSecret::from(*random);
    let digits = Zeroizing::new(hex::encode(secret.as_bytes()));
    let text = Zeroizing::new(format!("{KEY_FORMAT}\n{}\n", *digits));
    write_synced(&draft.join("key"), text.as_bytes())?;
    let terms = TermFile::new(file_id, NodeNumber::Zero);
    write_synced(&draft.join("terms"), terms.encode().as_bytes())?;
    write_synced(&draft.join("numbers"), &Numbers::new(file_id).image())?;
    sync_directory(&draft)?;
    fs::rename(&draft, &folder).map_err(at(&folder))?;
    sync_directory(state_directory)?;
    Ok(PublicKey::from(&secret).to_bytes())
}

/// The public key of the node in this state directory, also while tandem-control runs.
///
/// # Errors
/// If there is none, or it is damaged or open to others.
pub fn public_key(state_directory: &Path) -> Result<[u8; 32], StateError> {
    let path = state_directory.join("node").join("key");
    match fs::symlink_metadata(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Err(StateError::Missing(state_directory.to_owned()))
        }
        _ => Ok(PublicKey::from(&read_key(&path, Reader::OwnerOrRoot)?).to_bytes()),
    }
}

impl NodeState {
    /// Opens and locks what `tandemctl node init` made.
    ///
    /// # Errors
    /// If it is not there, damaged, or in use.
    pub fn open(state_directory: &Path) -> Result<Self, StateError> {
        let folder = state_directory.join("node");
        if fs::symlink_metadata(&folder).is_err() {
            return Err(StateError::Missing(state_directory.to_owned()));
        }
        let lock = lock(state_directory)?;
        let secret = read_key(&folder.join("key"), Reader::Owner)?;
        let path = folder.join("terms");
        let mut bytes = Vec::new();
        let file = File::open(&path).map_err(at(&path))?;
        file.take(FILE_MAX as u64 + 1).read_to_end(&mut bytes).map_err(at(&path))?;
        let terms = TermFile::decode(&bytes).map_err(|error| StateError::Terms(path, error))?;
        let numbers = folder.join("numbers");
        // A node of an earlier version that never carried traffic; otherwise its numbers are lost (F40).
        if !terms.ever_used() && fs::symlink_metadata(&numbers).is_err() {
            write_synced(&numbers, &Numbers::new(terms.file_id).image())?;
            sync_directory(&folder)?;
        }
        Ok(Self {
            folder,
            _lock: lock,
            public_key: PublicKey::from(&secret),
            secret,
            terms,
            unused: None,
            opened: false,
            unwritten: 0,
            unnoted: 0,
            seen_incarnation: 0,
            told: false,
            incarnation_over: false,
        })
    }

    /// Secret key of this node, for the session with its partner.
    #[must_use]
    pub fn secret_key(&self) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(*self.secret.as_bytes())
    }

    /// Public key.
    #[must_use]
    pub fn public_key_bytes(&self) -> [u8; 32] {
        self.public_key.to_bytes()
    }

    /// Id of the term file.
    #[must_use]
    pub fn file_id(&self) -> [u8; 16] {
        self.terms.file_id
    }

    /// The numbers file of static SAs, which the data plane writes (F40).
    #[must_use]
    pub fn numbers_file(&self) -> PathBuf {
        self.folder.join("numbers")
    }

    /// Number of this node beside this partner: by the order of the keys (F1). Without one it keeps the number
    /// that the file has (0 from `node init`), whose terms it alone may take.
    ///
    /// # Errors
    /// If it has the partner's key.
    pub fn node_number(&self, partner: Option<&[u8; 32]>) -> Result<NodeNumber, StateError> {
        match partner {
            None => Ok(self.terms.node),
            Some(partner) => {
                NodeNumber::of_keys(self.public_key.as_bytes(), partner).ok_or(StateError::SameKey)
            }
        }
    }

    /// Highest even and odd term that this node knows of; what the partner is told in each session.
    #[must_use]
    pub fn highest(&self, partner: &[u8; 32]) -> [u64; 2] {
        self.terms.highest(partner)
    }

    /// The partner has told the highest even and odd term that it knows ([`NodeState::highest`] there): the
    /// file is paired with it, and above both (F1, F2). At each session, before anything else is made of it;
    /// [`NodeState::grant`] after it. Where the node number changes by it, the data plane must start anew.
    ///
    /// # Errors
    /// If it cannot be written: then the node is not eligible. If both have one key, or no term is left.
    pub fn pair(&mut self, partner: &[u8; 32], highest: [u64; 2]) -> Result<(), StateError> {
        let node = self.node_number(Some(partner))?;
        self.heard_of(highest[0].max(highest[1]));
        if let Some(next) = self.terms.pair(partner, node, highest)? {
            let (old, new) = (self.terms.node.number(), next.node.number());
            tracing::info!(old, new, taken = next.taken(), "the term file follows the partner's");
            self.write(next)?;
        }
        Ok(())
    }

    /// What the data plane may use beside this partner; all of it is on disk when this returns. The first one
    /// of a process counts all that was reserved before as used, unless [`NodeState::resumes`]. Not for a
    /// gateway without partner, which takes its term by [`NodeState::take_term`].
    ///
    /// # Errors
    /// If it cannot be written, or none is left.
    pub fn grant(&mut self, partner: &[u8; 32]) -> Result<Grant, StateError> {
        let node = self.node_number(Some(partner))?;
        self.catch_up()?;
        if self.incarnation_over || self.terms.incarnation() == 0 {
            self.new_incarnation(Memory::Kept)?;
        }
        if !self.opened {
            let (next, _) = self.terms.open()?;
            self.write(next)?;
            self.opened = true;
            self.unused = None;
        }
        let eligible = self.terms.eligible(Some(partner), node);
        let terms = &self.terms;
        Ok(Grant {
            taken: terms.taken(),
            // Reserved terms may be of the other parity, or not above the partner's.
            reserved: if eligible { terms.reserved() } else { terms.taken() },
            reign: terms.reign(),
            incarnation: terms.incarnation(),
            eligible,
        })
    }

    /// What takes the right to become active from the data plane, where [`NodeState::pair`] or
    /// [`NodeState::grant`] has failed: a partner that knows more than the file must not be met with its terms (F2).
    #[must_use]
    pub fn nothing_granted(&self) -> Grant {
        let (taken, incarnation) = (self.terms.taken(), self.terms.incarnation());
        Grant { taken, reserved: taken, reign: self.terms.reign(), incarnation, eligible: false }
    }

    /// A data plane says that it has this incarnation (0: none). Gives whether it is the file's: then its memory
    /// is the one that the reserved terms were granted to, by an earlier control process too, and it goes on with
    /// them. Otherwise [`NodeState::new_incarnation`] with [`Memory::Lost`] is due. Before the first
    /// [`NodeState::grant`] after a connect, after [`NodeState::heard_term`].
    pub fn resumes(&mut self, incarnation: u64) -> bool {
        self.seen_incarnation(incarnation);
        // A new incarnation for lost memory and the end of the terms reserved before are one write: whoever has
        // this incarnation took no term of another memory.
        let resumes = incarnation != 0 && incarnation == self.terms.incarnation();
        self.told |= resumes;
        self.opened |= resumes && self.terms.is_open();
        resumes
    }

    /// Somebody (the partner) has seen this incarnation of this node. Where the file does not know it (an old
    /// copy was restored), the next grant brings a new one above it.
    pub fn seen_incarnation(&mut self, incarnation: u64) {
        self.seen_incarnation = self.seen_incarnation.max(incarnation);
        self.incarnation_over |= incarnation > self.terms.incarnation();
    }

    /// The partner says at the start of a session that it has seen this incarnation of this node. One that was never
    /// told to it is of another memory, too, if it has seen it already.
    pub fn partner_has_seen(&mut self, incarnation: u64) {
        self.incarnation_over |= incarnation == self.terms.incarnation() && !self.told;
        self.seen_incarnation(incarnation);
        self.told = !self.incarnation_over;
    }

    /// A new incarnation of this node's memory; on disk when this returns. At each start of a data plane without
    /// memory ([`Memory::Lost`]), after a goodbye and after a demotion ([`Memory::Kept`]); then
    /// [`NodeState::grant`].
    ///
    /// # Errors
    /// If it cannot be written; then the next grant tries again.
    pub fn new_incarnation(&mut self, memory: Memory) -> Result<u64, StateError> {
        self.incarnation_over = true;
        if memory == Memory::Lost {
            self.opened = false;
        }
        let (incarnation, mut next) = self.terms.next_incarnation(self.seen_incarnation)?;
        if !self.opened {
            (next, _) = next.open()?;
        }
        self.write(next)?;
        self.incarnation_over = false;
        // Within a session the partner is told at once; a session that begins asks first.
        self.told = memory == Memory::Kept && self.told;
        self.opened = true;
        self.unused = None;
        Ok(incarnation)
    }

    /// A reign has begun, of either node (F27); [`NodeState::grant`] after it has terms above it.
    ///
    /// # Errors
    /// If it cannot be written, or none is left; then the next grant tries again.
    pub fn note_reign(&mut self, term: u64) -> Result<(), StateError> {
        self.unnoted = self.unnoted.max(term);
        self.catch_up()
    }

    /// Writes what was heard of and could not be written.
    fn catch_up(&mut self) -> Result<(), StateError> {
        if let Some(next) = self.terms.note_reign(self.unnoted)? {
            self.write(next)?;
            self.unused = None;
        }
        if let Some(next) = self.terms.reserve_above(self.unwritten)? {
            tracing::warn!(
                term = self.unwritten,
                "the term file did not know this term: it was lifted above it"
            );
            self.write(next)?;
            self.unused = None;
        }
        Ok(())
    }

    fn heard_of(&mut self, term: u64) {
        self.unwritten = self.unwritten.max(term);
    }

    /// Public key, hexadecimal.
    #[must_use]
    pub fn public_key(&self) -> String {
        hex::encode(self.public_key.as_bytes())
    }

    /// A term that no data plane ever had; on disk as taken when this returns (`failover.md` F2).
    ///
    /// # Errors
    /// If it cannot be written, or none is left.
    pub fn take_term(&mut self) -> Result<u64, StateError> {
        if let Some(term) = self.unused {
            return Ok(term);
        }
        self.catch_up()?;
        let (term, next) = self.terms.take_at_start()?;
        self.write(next)?;
        self.opened = false;
        self.unused = Some(term);
        Ok(term)
    }

    /// The term goes out to a data plane now: it is not given out again, whatever comes of it.
    pub fn term_is_used(&mut self) {
        self.unused = None;
    }

    /// A data plane runs with this term: where the file does not know it (an old copy was restored), it is
    /// lifted above.
    ///
    /// # Errors
    /// If it cannot be written, or none is left.
    pub fn heard_term(&mut self, term: u64) -> Result<(), StateError> {
        self.heard_of(term);
        self.catch_up()
    }

    /// For `show status`.
    #[must_use]
    pub fn status(&self) -> TermStatus {
        TermStatus {
            file_id: hex::encode(self.terms.file_id),
            node: self.terms.node.number(),
            taken: self.terms.taken(),
            reserved: self.terms.reserved(),
            left: self.terms.left(),
            alarm: self.terms.alarm(),
        }
    }

    /// May a data plane have used terms of this file?
    #[must_use]
    pub fn ever_used(&self) -> bool {
        self.terms.ever_used()
    }

    /// What the file says of the pair, for `show redundancy`.
    #[must_use]
    pub fn pair_record(&self) -> PairRecord {
        PairRecord {
            reign: self.terms.reign(),
            incarnation: self.terms.incarnation(),
            paired_with: self.terms.partner().map(hex::encode),
        }
    }

    /// The old file stays whole until the new one is on disk.
    fn write(&mut self, next: TermFile) -> Result<(), StateError> {
        let (path, draft) = (self.folder.join("terms"), self.folder.join("terms.new"));
        match fs::remove_file(&draft) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(StateError::Io(draft, error));
            }
            _ => {}
        }
        write_synced(&draft, next.encode().as_bytes())?;
        fs::rename(&draft, &path).map_err(at(&path))?;
        sync_directory(&self.folder)?;
        self.terms = next;
        Ok(())
    }
}

/// Who may read the key.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Reader {
    /// The daemon: a key of another user is a mistake of whoever made it.
    Owner,
    /// The operator, who looks at it as root.
    OwnerOrRoot,
}

fn read_key(path: &Path, reader: Reader) -> Result<StaticSecret, StateError> {
    let wrong = |what: &str| StateError::Key(path.to_owned(), what.to_owned());
    let file = File::open(path).map_err(at(path))?;
    let metadata = file.metadata().map_err(at(path))?;
    let user = geteuid();
    let allowed = metadata.uid() == user.as_raw() || (reader == Reader::OwnerOrRoot && user.is_root());
    if metadata.mode() & 0o077 != 0 || !allowed {
        return Err(wrong("others may read it: `chown` it to the user of tandem-control and `chmod 600` it"));
    }
    let mut text = Zeroizing::new(String::with_capacity(KEY_FILE_MAX as usize + 1));
    file.take(KEY_FILE_MAX).read_to_string(&mut text).map_err(at(path))?;
    let digits = text.strip_prefix(KEY_FORMAT).map(str::trim);
    let mut octets = [0; 32];
    let decoded = digits.map(|digits| hex::decode_to_slice(digits, &mut octets));
    if !matches!(decoded, Some(Ok(()))) {
        return Err(wrong("damaged: restore it, or make a new node with `tandemctl node init`"));
    }
    let secret = StaticSecret::from(octets);
    octets.zeroize();
    Ok(secret)
}

fn lock(state_directory: &Path) -> Result<File, StateError> {
    let path = state_directory.join("lock");
    let open = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path);
    let file = open.map_err(at(&path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(fs::TryLockError::WouldBlock) => Err(StateError::Locked(state_directory.to_owned())),
        Err(fs::TryLockError::Error(error)) => Err(StateError::Io(path, error)),
    }
}

fn write_synced(path: &Path, bytes: &[u8]) -> Result<(), StateError> {
    let write = || {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        file.write_all(bytes)?;
        file.sync_all()
    };
    write().map_err(at(path))
}

fn sync_directory(path: &Path) -> Result<(), StateError> {
    File::open(path).and_then(|directory| directory.sync_all()).map_err(at(path))
}

#[cfg(test)]
mod tests;

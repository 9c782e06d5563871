//! The state directory: node key and term file, made together by `tandemctl node init`.
//!
//! Both live in the folder `node`, which appears with both in it or not at all. A process that uses them
//! holds a lock, so that two never take the same term.

use nix::unistd::geteuid;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use tandem_api::operator::TermStatus;
use tandem_lease::{DecodeError, FILE_MAX, NodeNumber, TermError, TermFile};
use x25519_dalek::{PublicKey, StaticSecret};
use zeroize::{Zeroize, Zeroizing};

const KEY_FORMAT: &str = "tandem-node-key 1";
/// Longest key file in octets.
const KEY_FILE_MAX: u64 = 256;

/// Key and terms of this node, locked for this process.
#[derive(Debug)]
pub struct NodeState {
    folder: PathBuf,
    _lock: File,
    public_key: PublicKey,
    terms: TermFile,
    /// Written as taken, and not given to a data plane.
    unused: Option<u64>,
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
    sync_directory(&draft)?;
    fs::rename(&draft, &folder).map_err(at(&folder))?;
    sync_directory(state_directory)?;
    Ok(PublicKey::from(&secret).to_bytes())
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
        let public_key = PublicKey::from(&read_key(&folder.join("key"))?);
        let path = folder.join("terms");
        let mut bytes = Vec::new();
        let file = File::open(&path).map_err(at(&path))?;
        file.take(FILE_MAX as u64 + 1).read_to_end(&mut bytes).map_err(at(&path))?;
        let terms = TermFile::decode(&bytes).map_err(|error| StateError::Terms(path, error))?;
        Ok(Self { folder, _lock: lock, public_key, terms, unused: None })
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
        let (term, next) = self.terms.take_at_start()?;
        self.write(next)?;
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
        if let Some(next) = self.terms.reserve_above(term)? {
            tracing::warn!(term, "the term file did not know this term: it was lifted above it");
            self.write(next)?;
            self.unused = None;
        }
        Ok(())
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

fn read_key(path: &Path) -> Result<StaticSecret, StateError> {
    let wrong = |what: &str| StateError::Key(path.to_owned(), what.to_owned());
    let file = File::open(path).map_err(at(path))?;
    let metadata = file.metadata().map_err(at(path))?;
    if metadata.mode() & 0o077 != 0 || metadata.uid() != geteuid().as_raw() {
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
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn init_makes_key_and_terms_once_and_for_the_owner_only() {
        let directory = tempfile::tempdir().unwrap();
        let public = init(directory.path()).unwrap();
        for name in ["node/key", "node/terms"] {
            let metadata = fs::metadata(directory.path().join(name)).unwrap();
            assert_eq!(metadata.permissions().mode() & 0o777, 0o600, "{name}");
        }
        let before = fs::read(directory.path().join("node/key")).unwrap();
        assert!(matches!(init(directory.path()), Err(StateError::Exists(_))));
        assert_eq!(fs::read(directory.path().join("node/key")).unwrap(), before);
        assert_eq!(NodeState::open(directory.path()).unwrap().public_key(), hex::encode(public));
    }

    #[test]
    fn what_a_killed_init_left_is_no_node_and_does_not_stop_the_next() {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("node.new")).unwrap();
        fs::write(directory.path().join("node.new/key"), "half").unwrap();
        assert!(matches!(NodeState::open(directory.path()), Err(StateError::Missing(_))));
        init(directory.path()).unwrap();
        NodeState::open(directory.path()).unwrap();
    }

    #[test]
    fn two_processes_cannot_have_the_same_node() {
        let directory = tempfile::tempdir().unwrap();
        init(directory.path()).unwrap();
        let first = NodeState::open(directory.path()).unwrap();
        assert!(matches!(NodeState::open(directory.path()), Err(StateError::Locked(_))));
        drop(first);
        NodeState::open(directory.path()).unwrap();
    }

    #[test]
    fn each_start_takes_another_term_and_one_that_went_nowhere_is_used_later() {
        let directory = tempfile::tempdir().unwrap();
        init(directory.path()).unwrap();
        let mut state = NodeState::open(directory.path()).unwrap();
        assert_eq!(state.take_term().unwrap(), 2);
        assert_eq!(state.take_term().unwrap(), 2);
        state.term_is_used();
        assert_eq!(state.take_term().unwrap(), 4);
        drop(state);
        // What a process took and did not use may have been used for all that the next one knows.
        assert_eq!(NodeState::open(directory.path()).unwrap().take_term().unwrap(), 6);
    }

    #[test]
    fn a_term_heard_of_is_never_given_out() {
        let directory = tempfile::tempdir().unwrap();
        init(directory.path()).unwrap();
        let mut state = NodeState::open(directory.path()).unwrap();
        state.take_term().unwrap();
        state.heard_term(1000).unwrap();
        assert_eq!(state.take_term().unwrap(), 1002);
        drop(state);
        assert!(NodeState::open(directory.path()).unwrap().take_term().unwrap() > 1002);
    }

    #[test]
    fn a_damaged_term_file_or_an_open_key_is_refused_with_a_cure() {
        let directory = tempfile::tempdir().unwrap();
        init(directory.path()).unwrap();
        let terms = directory.path().join("node/terms");
        let good = fs::read(&terms).unwrap();
        fs::write(&terms, &good[..good.len() - 3]).unwrap();
        let error = NodeState::open(directory.path()).unwrap_err();
        assert!(error.to_string().contains("node init"), "{error}");
        fs::write(&terms, good).unwrap();
        let key = directory.path().join("node/key");
        fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
        let error = NodeState::open(directory.path()).unwrap_err();
        assert!(error.to_string().contains("chmod 600"), "{error}");
    }
}

//! Keeps the numbers of static SAs on disk (`failover.md` F40): a thread that writes, syncs, and says so.
//!
//! What is in the file, and when it counts as lost, is [`tandem_lease::numbers`]. After an error nothing is
//! appended: what the kernel has dropped of a failed write cannot be known, so the whole file is written anew.

use crossbeam::channel::{Receiver, RecvTimeoutError, Sender, unbounded};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use tandem_lease::SaKey;
use tandem_lease::numbers::{self, ENTRY, Loss, Numbers, OtherVersion};

/// A file longer than this, in octets, is written anew, if that makes it shorter by half.
const COMPACT: u64 = 4 << 20;
/// Longest file that is read: more than 2^21 SAs can make of it.
const FILE_MAX: u64 = 1 << 30;
/// Octets that are made ahead of need, as zeros: a write into them changes no length and no block of the file, so that its
/// sync waits for nothing but those octets. (Growing, it would wait for the file system's journal, which other writers fill.)
const ROOM: u64 = 256 << 10;
/// Between two attempts while the disk fails.
const RETRY: Duration = Duration::from_secs(1);
/// Orders that one write takes together.
const TOGETHER: usize = 1024;

/// Called after numbers were reported as written: wakes whoever waits for them.
pub type Wake = Box<dyn Fn() + Send>;

/// Why the numbers file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeeperError {
    /// It is there, and cannot be read.
    #[error("numbers file {0} cannot be read: {1}; check its owner and the disk")]
    Read(PathBuf, io::Error),
    /// It cannot be written.
    #[error(
        "numbers file {0} cannot be written: {1}; check that the directory exists, belongs to the user of \
         tandem-dataplane and has room"
    )]
    Write(PathBuf, io::Error),
    /// It must not be overwritten.
    #[error("{0} is {1}: run the version of Tandem that wrote it")]
    Version(PathBuf, OtherVersion),
    /// No thread.
    #[error("no thread for the numbers file: {0}")]
    Thread(io::Error),
}

/// What [`start`] gives.
#[derive(Debug)]
pub struct Started {
    /// Takes what is to be written.
    pub keeper: Keeper,
    /// What was in the file. It is not kept up to date here: for SAs that are installed without hot state in
    /// memory, and those were not used by this process.
    pub numbers: Numbers,
    /// Ids of [`Keeper::persist`] whose numbers are on disk, in the order in which they were given.
    pub persisted: Receiver<u64>,
    /// Why the numbers are lost, if they are: [`Keeper::settle`] is due once all SAs are installed.
    pub loss: Option<Loss>,
}

/// Handle of the thread. When it is dropped, what was given is written, and the thread ends.
#[derive(Debug)]
pub struct Keeper {
    orders: Option<Sender<Order>>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
enum Order {
    Persist { id: u64, entries: Vec<(SaKey, u64)> },
    Settle(Vec<SaKey>),
}

/// Reads the file, writes it anew (so that it is whole, and can be written), and starts the thread. `file_id`:
/// of the term file; `used`: may this node have carried traffic before? The thread inherits the scheduling of
/// the one that calls this: it must not be a realtime one.
///
/// # Errors
/// If the file cannot be read or written, or another version has written it.
pub fn start(path: &Path, file_id: [u8; 16], used: bool, wake: Wake) -> Result<Started, KeeperError> {
    start_on(DiskFile::new(path), file_id, used, wake)
}

fn start_on<S: Store>(
    mut store: S,
    file_id: [u8; 16],
    used: bool,
    wake: Wake,
) -> Result<Started, KeeperError> {
    let path = store.path().to_owned();
    let bytes = store.load().map_err(|error| KeeperError::Read(path.clone(), error))?;
    let read = numbers::read(bytes.as_deref(), file_id, used);
    let read = read.map_err(|error| KeeperError::Version(path.clone(), error))?;
    if let Some(loss) = read.loss {
        tracing::error!(
            file = %path.display(),
            "{loss}: static SAs that have no state in memory stay down until the partner tells their numbers, or \
             they are given new keys"
        );
    }
    if read.torn > 0 {
        tracing::info!(file = %path.display(), octets = read.torn, "an unfinished write was at the end of the numbers file");
    }
    let image = read.numbers.image();
    store.replace(&image).map_err(|error| KeeperError::Write(path, error))?;
    let (orders, incoming) = unbounded();
    let (reports, persisted) = unbounded();
    let writer = Writer {
        store,
        file_id,
        length: image.len() as u64,
        numbers: read.numbers.clone(),
        batch: Vec::new(),
        ids: Vec::new(),
        whole: false,
        failing: None,
        reports,
        wake,
    };
    let spawned = thread::Builder::new().name("numbers".to_owned()).spawn(move || writer.run(&incoming));
    let thread = Some(spawned.map_err(KeeperError::Thread)?);
    let keeper = Keeper { orders: Some(orders), thread };
    Ok(Started { keeper, numbers: read.numbers, persisted, loss: read.loss })
}

impl Keeper {
    /// Writes numbers. The id comes back once they are on disk; while the disk fails, it does not.
    pub fn persist(&self, id: u64, entries: Vec<(SaKey, u64)>) {
        self.order(Order::Persist { id, entries });
    }

    /// All static SAs that are configured, once they are installed: if the numbers are lost, those that are not
    /// known stay so, and keys that come later count as new. To be said of one's own [`Numbers`] too.
    pub fn settle(&self, configured: Vec<SaKey>) {
        self.order(Order::Settle(configured));
    }

    fn order(&self, order: Order) {
        // A thread that has ended (it cannot, but for a panic) reports nothing, so nothing is used that is not
        // on disk.
        if let Some(orders) = &self.orders {
            let _ = orders.send(order);
        }
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.orders = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The thread.
struct Writer<S> {
    store: S,
    file_id: [u8; 16],
    length: u64,
    /// All that was given, on disk or not.
    numbers: Numbers,
    /// Given, and not on disk.
    batch: Vec<(SaKey, u64)>,
    /// To be reported once the batch is on disk.
    ids: Vec<u64>,
    /// The next write must be of the whole file.
    whole: bool,
    /// When to try again.
    failing: Option<Instant>,
    reports: Sender<u64>,
    wake: Wake,
}

impl<S: Store> Writer<S> {
    fn run(mut self, orders: &Receiver<Order>) {
        loop {
            let order = match self.failing {
                None => orders.recv().map_err(|_| RecvTimeoutError::Disconnected),
                Some(retry) => orders.recv_deadline(retry),
            };
            match order {
                Ok(order) => self.take(order),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => {
                    if self.failing.is_some() {
                        self.write();
                    }
                    return;
                }
            }
            for order in orders.try_iter().take(TOGETHER) {
                self.take(order);
            }
            if self.failing.is_none_or(|retry| Instant::now() >= retry) {
                self.write();
            }
        }
    }

    fn take(&mut self, order: Order) {
        match order {
            Order::Persist { id, entries } => {
                for (sa, value) in &entries {
                    self.numbers.record(*sa, *value);
                }
                self.batch.extend(entries);
                self.ids.push(id);
            }
            Order::Settle(configured) => {
                self.whole |= self.numbers.is_lost();
                self.numbers.settle(configured);
            }
        }
    }

    fn write(&mut self) {
        let appended = self.length + (self.batch.len() * ENTRY) as u64;
        let most = COMPACT.max(2 * self.numbers.image_len() as u64);
        let written = if self.whole || appended > most {
            let image = self.numbers.image();
            self.store.replace(&image).map(|()| image.len() as u64)
        } else if self.batch.is_empty() {
            Ok(self.length)
        } else {
            let bytes = numbers::encode_batch(&self.file_id, self.length, &self.batch);
            self.store.append(self.length, &bytes).map(|()| appended)
        };
        // Where the write failed, all of the batch is in the image that is written next.
        self.batch.clear();
        match written {
            Ok(length) => {
                self.length = length;
                self.whole = false;
                if self.failing.take().is_some() {
                    tracing::info!(file = %self.store.path().display(), "the numbers file can be written again");
                }
                self.report();
            }
            Err(error) => {
                self.whole = true;
                if self.failing.is_none() {
                    tracing::error!(
                        file = %self.store.path().display(),
                        "numbers of static SAs cannot be written: {error}; they are tried again each second, and \
                         the SAs stop at the end of what is reserved: check the disk"
                    );
                }
                self.failing = Some(Instant::now() + RETRY);
            }
        }
    }

    fn report(&mut self) {
        if self.ids.is_empty() {
            return;
        }
        for id in self.ids.drain(..) {
            // Nobody may listen any more.
            let _ = self.reports.send(id);
        }
        (self.wake)();
    }
}

/// Where the octets go; tests have one that fails.
trait Store: Send + 'static {
    fn path(&self) -> &Path;
    /// All octets, or `None` where there is no file.
    fn load(&mut self) -> io::Result<Option<Vec<u8>>>;
    /// Puts a whole file in place of the old one; on disk when it returns.
    fn replace(&mut self, image: &[u8]) -> io::Result<()>;
    /// Writes at this octet, the end; on disk when it returns.
    fn append(&mut self, at: u64, bytes: &[u8]) -> io::Result<()>;
}

struct DiskFile {
    path: PathBuf,
    file: Option<File>,
    /// Octets that the file has on disk, room included.
    made: u64,
}

impl DiskFile {
    fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), file: None, made: 0 }
    }

    /// Makes the file as long as `end`, and room behind.
    fn make_room(&mut self, end: u64) -> io::Result<()> {
        let file = self.file.as_ref().ok_or_else(|| io::Error::other("not open"))?;
        let zeros = vec![0; usize::try_from(end + ROOM - self.made).map_err(io::Error::other)?];
        file.write_all_at(&zeros, self.made)?;
        file.sync_all()?;
        self.made = end + ROOM;
        Ok(())
    }

    fn draft(&self) -> PathBuf {
        let mut name = self.path.as_os_str().to_owned();
        name.push(".new");
        PathBuf::from(name)
    }
}

impl Store for DiskFile {
    fn path(&self) -> &Path {
        &self.path
    }

    fn load(&mut self) -> io::Result<Option<Vec<u8>>> {
        let file = match File::open(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            file => file?,
        };
        let mut bytes = Vec::new();
        file.take(FILE_MAX + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > FILE_MAX {
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, "longer than any numbers file"));
        }
        Ok(Some(bytes))
    }

    fn replace(&mut self, image: &[u8]) -> io::Result<()> {
        let draft = self.draft();
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&draft)?;
        file.write_all(image)?;
        file.write_all(&[0; ROOM as usize])?;
        file.sync_all()?;
        fs::rename(&draft, &self.path)?;
        // From here on appending to the old file would reach nobody.
        self.file = Some(file);
        self.made = image.len() as u64 + ROOM;
        let directory = match self.path.parent() {
            Some(directory) if !directory.as_os_str().is_empty() => directory,
            _ => Path::new("."),
        };
        File::open(directory)?.sync_all()
    }

    fn append(&mut self, at: u64, bytes: &[u8]) -> io::Result<()> {
        let end = at + bytes.len() as u64;
        if end > self.made {
            self.make_room(end)?;
        }
        let file = self.file.as_ref().ok_or_else(|| io::Error::other("not open"))?;
        file.write_all_at(bytes, at)?;
        file.sync_data()
    }
}

#[cfg(test)]
mod tests;

use super::*;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use tandem_lease::Way;
use tandem_lease::numbers::{HEADER, Known};

const ID: [u8; 16] = [9; 16];
const SOON: Duration = Duration::from_secs(20);
/// Where the child of the kill test keeps its file.
const CHILD_FILE: &str = "TANDEM_KEEPER_TEST_FILE";

fn sa(spi: u32) -> SaKey {
    SaKey { way: Way::Out, spi, fingerprint: 77 }
}

fn open(path: &Path, used: bool) -> Started {
    start(path, ID, used, Box::new(|| {})).unwrap()
}

fn known(path: &Path, spi: u32) -> Known {
    open(path, true).numbers.lookup(&sa(spi))
}

#[test]
fn numbers_are_there_after_a_restart_and_each_batch_is_reported_once() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("numbers");
    let woken = Arc::new(AtomicUsize::new(0));
    let count = woken.clone();
    let wake = Box::new(move || {
        count.fetch_add(1, Ordering::SeqCst);
    });
    let started = start(&path, ID, false, wake).unwrap();
    assert_eq!((started.numbers.lookup(&sa(1)), started.loss), (Known::Never, None));
    started.keeper.persist(5, vec![(sa(1), 100), (sa(2), 7)]);
    assert_eq!(started.persisted.recv_timeout(SOON), Ok(5));
    // On disk when it is reported, without an orderly end.
    assert_eq!(numbers::read(Some(&fs::read(&path).unwrap()), ID, true).unwrap().numbers.len(), 2);
    started.keeper.persist(6, vec![(sa(1), 50)]);
    started.keeper.persist(8, vec![]);
    let Started { keeper, persisted, .. } = started;
    drop(keeper);
    assert_eq!(persisted.iter().collect::<Vec<_>>(), [6, 8]);
    assert!((2..=3).contains(&woken.load(Ordering::SeqCst)));
    assert_eq!((known(&path, 1), known(&path, 2)), (Known::UpTo(100), Known::UpTo(7)));
    assert_eq!(known(&path, 3), Known::Never);
}

#[test]
fn a_file_cut_at_any_octet_keeps_what_was_reported_before() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("numbers");
    let Started { keeper, persisted, .. } = open(&path, false);
    let mut lengths = vec![HEADER];
    for batch in 1..=3u64 {
        keeper.persist(batch, vec![(sa(1), batch * 1000), (sa(2), batch)]);
        assert_eq!(persisted.recv_timeout(SOON), Ok(batch));
        lengths.push(numbers::content(&fs::read(&path).unwrap()).len());
    }
    drop(keeper);
    let whole = numbers::content(&fs::read(&path).unwrap()).to_vec();
    assert_eq!(whole.len(), *lengths.last().unwrap());
    for cut in HEADER..=whole.len() {
        fs::write(&path, &whole[..cut]).unwrap();
        let started = open(&path, true);
        assert_eq!(started.loss, None);
        let batch = lengths.iter().filter(|length| **length <= cut).count() as u64 - 1;
        match started.numbers.lookup(&sa(1)) {
            Known::Never => assert_eq!(batch, 0),
            Known::UpTo(value) => assert!(value >= batch * 1000, "cut at {cut}: {value}"),
            Known::Lost => panic!("cut at {cut}"),
        }
        // What is written after such a start is found by the next one.
        started.keeper.persist(9, vec![(sa(3), 33)]);
        drop(started.keeper);
        assert_eq!(known(&path, 3), Known::UpTo(33));
    }
}

/// What the process does that is to be killed: it writes, and says what was reported.
fn write_until_killed(path: &Path) {
    let started = open(path, true);
    for id in 1.. {
        started.keeper.persist(id, vec![(sa(1), id), (sa(2), 2 * id)]);
        let id = started.persisted.recv_timeout(SOON).unwrap();
        writeln!(io::stdout(), "reported {id}").unwrap();
    }
}

#[test]
fn a_killed_process_has_written_what_it_reported() {
    // This very test, started again below, is the process that is killed.
    if let Some(path) = std::env::var_os(CHILD_FILE) {
        return write_until_killed(Path::new(&path));
    }
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("numbers");
    drop(open(&path, false));
    let mut highest = 0;
    for round in 0..5 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "--nocapture", "keeper::tests::a_killed_process_has_written_what_it_reported"])
            .env(CHILD_FILE, &path)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut reports = lines
            .map_while(Result::ok)
            .filter_map(|line| line.rsplit_once("reported ").and_then(|(_, id)| id.parse::<u64>().ok()));
        let last = reports.by_ref().nth(20 + round).expect("the child reports");
        child.kill().unwrap();
        let last = reports.last().unwrap_or(last);
        child.wait().unwrap();
        highest = highest.max(last);
        let started = open(&path, true);
        assert_eq!(started.loss, None);
        let [Known::UpTo(first), Known::UpTo(second)] = [1, 2].map(|spi| started.numbers.lookup(&sa(spi)))
        else {
            panic!("round {round}: {:?}", started.numbers);
        };
        assert!(first >= highest && second >= 2 * highest, "round {round}: {highest} {first} {second}");
    }
}

#[test]
fn a_long_file_is_written_anew_and_says_the_same() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("numbers");
    let Started { keeper, persisted, .. } = open(&path, false);
    let batch = |id: u64| (0..1000).map(|spi| (sa(spi), id + u64::from(spi))).collect::<Vec<_>>();
    let (mut id, mut longest) = (0, 0);
    loop {
        id += 1;
        keeper.persist(id, batch(id));
        assert_eq!(persisted.recv_timeout(SOON), Ok(id));
        let length = numbers::content(&fs::read(&path).unwrap()).len() as u64;
        if length < longest {
            break;
        }
        longest = length;
        assert!(longest <= COMPACT, "{longest}");
    }
    assert!(longest > COMPACT - (1000 * ENTRY) as u64);
    keeper.persist(id + 1, vec![(sa(5), 1 << 40)]);
    drop(keeper);
    assert_eq!((known(&path, 0), known(&path, 5)), (Known::UpTo(id), Known::UpTo(1 << 40)));
    assert_eq!(known(&path, 999), Known::UpTo(id + 999));
}

#[test]
fn lost_numbers_are_noted_for_the_sas_of_that_time_only() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("numbers");
    let mut started = open(&path, true);
    assert_eq!(started.loss, Some(Loss::Missing));
    drop(started.keeper);
    // It ended before it knew its SAs.
    started = open(&path, true);
    assert_eq!(started.loss, Some(Loss::Unsettled));
    started.keeper.settle(vec![sa(1), sa(2)]);
    started.numbers.settle([sa(1), sa(2)]);
    assert_eq!(started.numbers.lookup(&sa(3)), Known::Never);
    started.keeper.persist(1, vec![(sa(2), 40)]);
    drop(started.keeper);
    let started = open(&path, true);
    assert_eq!(started.loss, None);
    let known = [1, 2, 3].map(|spi| started.numbers.lookup(&sa(spi)));
    assert_eq!(known, [Known::Lost, Known::UpTo(40), Known::Never]);
}

#[test]
fn a_file_that_cannot_be_used_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("numbers");
    let error = start(&path.join("below"), ID, false, Box::new(|| {})).unwrap_err();
    assert!(matches!(error, KeeperError::Write(..)) && error.to_string().contains("below"), "{error}");
    fs::create_dir(&path).unwrap();
    assert!(matches!(start(&path, ID, false, Box::new(|| {})), Err(KeeperError::Read(..))));
}

/// A disk that fails on demand, half of the octets written.
struct Failing {
    disk: DiskFile,
    broken: Arc<AtomicBool>,
    tried: Arc<AtomicUsize>,
}

impl Failing {
    fn check(&self) -> io::Result<()> {
        self.tried.fetch_add(1, Ordering::SeqCst);
        if self.broken.load(Ordering::SeqCst) { Err(io::Error::other("broken")) } else { Ok(()) }
    }
}

impl Store for Failing {
    fn path(&self) -> &Path {
        self.disk.path()
    }

    fn load(&mut self) -> io::Result<Option<Vec<u8>>> {
        self.disk.load()
    }

    fn replace(&mut self, image: &[u8]) -> io::Result<()> {
        self.check().and_then(|()| self.disk.replace(image))
    }

    fn append(&mut self, at: u64, bytes: &[u8]) -> io::Result<()> {
        self.check().or_else(|error| {
            self.disk.append(at, &bytes[..bytes.len() / 2])?;
            Err(error)
        })?;
        self.disk.append(at, bytes)
    }
}

#[test]
fn nothing_is_reported_while_the_disk_fails_and_all_of_it_after() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("numbers");
    let (broken, tried) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let disk = Failing { disk: DiskFile::new(&path), broken: broken.clone(), tried: tried.clone() };
    let Started { keeper, persisted, .. } = start_on(disk, ID, false, Box::new(|| {})).unwrap();
    keeper.persist(1, vec![(sa(1), 10)]);
    assert_eq!(persisted.recv_timeout(SOON), Ok(1));
    broken.store(true, Ordering::SeqCst);
    let before = tried.load(Ordering::SeqCst);
    keeper.persist(2, vec![(sa(1), 20), (sa(2), 2)]);
    while tried.load(Ordering::SeqCst) < before + 1 {
        thread::sleep(Duration::from_millis(1));
    }
    let begin = Instant::now();
    keeper.persist(3, vec![(sa(3), 30)]);
    while tried.load(Ordering::SeqCst) < before + 3 {
        thread::sleep(Duration::from_millis(1));
    }
    assert!(begin.elapsed() > RETRY, "tried again at once, {:?}", begin.elapsed());
    assert!(persisted.is_empty());
    // A crash now loses nothing that was reported.
    let read = numbers::read(Some(&fs::read(&path).unwrap()), ID, true).unwrap();
    // The first half of what failed, one entry, did arrive.
    assert_eq!((read.loss, read.numbers.lookup(&sa(1))), (None, Known::UpTo(20)));
    assert_eq!(read.numbers.lookup(&sa(2)), Known::Never);
    broken.store(false, Ordering::SeqCst);
    assert_eq!(persisted.recv_timeout(SOON), Ok(2));
    assert_eq!(persisted.recv_timeout(SOON), Ok(3));
    drop(keeper);
    let known = [1, 2, 3].map(|spi| known(&path, spi));
    assert_eq!(known, [20, 2, 30].map(Known::UpTo));
}

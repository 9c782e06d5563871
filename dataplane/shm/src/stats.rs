//! Counters of the workers in shared memory: each has one writer, readers add up.
//!
//! ```text
//! 0       magic u64, version u32, workers u32, counters u32, reserved u32, epoch u64, zeros to 64
//! 64      counters of worker 0 (u64 each, native byte order), filled up to whole cache lines
//! ...     counters of worker 1, and so on
//! ```
//! What the counter of an index means is told by the program that makes the region.

use crate::segment::{Segment, SegmentError, Shared};
use std::cell::Cell;
use std::marker::PhantomData;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

/// Version of the layout of this module.
pub const STATS_VERSION: u32 = 1;

/// "TANDEMST" in ASCII, read as a big-endian number.
const MAGIC: u64 = 0x5441_4e44_454d_5354;
const LINE: usize = 64;
const MAX_WORKERS: u32 = 1024;
const MAX_COUNTERS: u32 = 1 << 16;

#[repr(C, align(64))]
#[derive(Debug)]
struct Header {
    magic: AtomicU64,
    version: AtomicU32,
    workers: AtomicU32,
    counters: AtomicU32,
    reserved_word: AtomicU32,
    epoch: AtomicU64,
    reserved: [AtomicU64; 4],
}

const _: () = assert!(size_of::<Header>() == LINE);

// SAFETY: made of atomics only, and the size asserted above is the sum of the fields.
unsafe impl Shared for Header {}

/// Why statistics could not be made or adopted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StatsError {
    /// No workers or counters, or too many of them.
    #[error("statistics of {counters} counters for {workers} workers are not possible")]
    Dimensions {
        /// Number of workers.
        workers: u32,
        /// Counters of each.
        counters: u32,
    },
    /// The memory could not be made or is no proper segment.
    #[error(transparent)]
    Segment(#[from] SegmentError),
    /// The region is none of statistics.
    #[error("the region begins with {found:#018x}, statistics with {MAGIC:#018x}")]
    Magic {
        /// What is in the place of the magic number.
        found: u64,
    },
    /// The region was made by a version of another layout.
    #[error("the region has version {found}, this program has {STATS_VERSION}")]
    Version {
        /// Version of the region.
        found: u32,
    },
    /// The region is not as large as its counters need.
    #[error("the region has {found} octets, its counters need {expected}")]
    Size {
        /// Size of the region in octets.
        found: usize,
        /// Size that the counters need, in octets.
        expected: usize,
    },
    /// There is no worker of this number.
    #[error("there is no worker {worker}: the region has {workers}")]
    NoWorker {
        /// Number asked for.
        worker: u32,
        /// Number of workers.
        workers: u32,
    },
    /// The counters of this worker are in use; two writers would lose counts.
    #[error("the counters of worker {0} already have a writer")]
    Taken(u32),
}

/// The statistics segment. Clones are the same memory.
#[derive(Clone, Debug)]
pub struct StatsRegion {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    segment: Segment,
    workers: u32,
    counters: u32,
    /// Which workers have their writer, in this process.
    taken: Box<[AtomicBool]>,
}

impl StatsRegion {
    /// Makes a region of `counters` counters for each of `workers` workers, all zero, in epoch 1.
    pub fn create(workers: u32, counters: u32) -> Result<StatsRegion, StatsError> {
        check(workers, counters)?;
        let segment = Segment::create("tandem-stats", region_size(workers, counters))?;
        let region = StatsRegion::over(segment, workers, counters);
        let header = region.header();
        header.version.store(STATS_VERSION, Ordering::Relaxed);
        header.workers.store(workers, Ordering::Relaxed);
        header.counters.store(counters, Ordering::Relaxed);
        header.epoch.store(1, Ordering::Relaxed);
        header.magic.store(MAGIC, Ordering::Release);
        Ok(region)
    }

    /// Maps the region of another process, or of this program's predecessor.
    pub fn adopt(fd: OwnedFd) -> Result<StatsRegion, StatsError> {
        let segment = Segment::adopt(fd)?;
        let found = segment.len();
        let Some(header) = segment.at::<Header>(0) else {
            return Err(StatsError::Size { found, expected: region_size(1, 1) });
        };
        let magic = header.magic.load(Ordering::Acquire);
        if magic != MAGIC {
            return Err(StatsError::Magic { found: magic });
        }
        let version = header.version.load(Ordering::Relaxed);
        if version != STATS_VERSION {
            return Err(StatsError::Version { found: version });
        }
        // Read once: another process could change them.
        let workers = header.workers.load(Ordering::Relaxed);
        let counters = header.counters.load(Ordering::Relaxed);
        check(workers, counters)?;
        let expected = region_size(workers, counters);
        if found != expected {
            return Err(StatsError::Size { found, expected });
        }
        Ok(StatsRegion::over(segment, workers, counters))
    }

    fn over(segment: Segment, workers: u32, counters: u32) -> StatsRegion {
        let taken = (0..workers).map(|_| AtomicBool::new(false)).collect();
        StatsRegion { inner: Arc::new(Inner { segment, workers, counters, taken }) }
    }

    /// The memfd, for readers in other processes.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.inner.segment.fd()
    }

    /// Number of workers.
    pub fn workers(&self) -> u32 {
        self.inner.workers
    }

    /// Counters of each worker.
    pub fn counters(&self) -> u32 {
        self.inner.counters
    }

    /// Number of the present meaning of the counters. A reader that computes differences starts anew
    /// where it has changed.
    pub fn epoch(&self) -> u64 {
        self.header().epoch.load(Ordering::Acquire)
    }

    /// Begins a new epoch: after counters were set back, or their meaning has changed.
    pub fn next_epoch(&self) {
        self.header().epoch.fetch_add(1, Ordering::AcqRel);
    }

    /// The counters of one worker, to be written by it alone. Free again once they are dropped.
    pub fn worker(&self, worker: u32) -> Result<WorkerCounters, StatsError> {
        let workers = self.inner.workers;
        let taken = self.inner.taken.get(worker as usize).ok_or(StatsError::NoWorker { worker, workers })?;
        if taken.swap(true, Ordering::AcqRel) {
            return Err(StatsError::Taken(worker));
        }
        Ok(WorkerCounters { inner: self.inner.clone(), worker, one_thread: PhantomData })
    }

    /// Counter `index` of one worker; 0 for what does not exist.
    pub fn get(&self, worker: u32, index: u32) -> u64 {
        let counter = self.inner.counters_of(worker).get(index as usize);
        counter.map_or(0, |counter| counter.load(Ordering::Relaxed))
    }

    /// Counter `index` added up over all workers; 0 for one that does not exist.
    pub fn sum(&self, index: u32) -> u64 {
        (0..self.inner.workers).fold(0, |sum, worker| sum.wrapping_add(self.get(worker, index)))
    }

    fn header(&self) -> &Header {
        // The region holds it: `create` sized it so, `adopt` has checked it.
        self.inner.segment.at(0).expect("a statistics region holds its header")
    }
}

impl Inner {
    #[inline]
    fn counters_of(&self, worker: u32) -> &[AtomicU64] {
        if worker >= self.workers {
            return &[];
        }
        let at = LINE + worker as usize * stride(self.counters);
        self.segment.slice(at, self.counters as usize).unwrap_or(&[])
    }
}

/// The counters of one worker, on cache lines of their own.
#[derive(Debug)]
pub struct WorkerCounters {
    inner: Arc<Inner>,
    worker: u32,
    /// Can be sent to a thread, but not shared by several: they would lose counts.
    one_thread: PhantomData<Cell<()>>,
}

impl WorkerCounters {
    /// Adds `n` to counter `index`, without an atomic read-modify-write: this is its only writer. A
    /// counter that does not exist is a bug of the caller; it counts nothing.
    #[inline]
    pub fn add(&self, index: u32, n: u64) {
        let counters = self.inner.counters_of(self.worker);
        debug_assert!((index as usize) < counters.len(), "counter {index} does not exist");
        if let Some(counter) = counters.get(index as usize) {
            counter.store(counter.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
        }
    }

    /// Sets counter `index`, for what is a level rather than a count.
    #[inline]
    pub fn set(&self, index: u32, value: u64) {
        let counters = self.inner.counters_of(self.worker);
        debug_assert!((index as usize) < counters.len(), "counter {index} does not exist");
        if let Some(counter) = counters.get(index as usize) {
            counter.store(value, Ordering::Relaxed);
        }
    }

    /// Counter `index`.
    #[inline]
    pub fn get(&self, index: u32) -> u64 {
        let counter = self.inner.counters_of(self.worker).get(index as usize);
        counter.map_or(0, |counter| counter.load(Ordering::Relaxed))
    }
}

impl Drop for WorkerCounters {
    fn drop(&mut self) {
        self.inner.taken[self.worker as usize].store(false, Ordering::Release);
    }
}

fn check(workers: u32, counters: u32) -> Result<(), StatsError> {
    if (1..=MAX_WORKERS).contains(&workers) && (1..=MAX_COUNTERS).contains(&counters) {
        Ok(())
    } else {
        Err(StatsError::Dimensions { workers, counters })
    }
}

fn stride(counters: u32) -> usize {
    (counters as usize * size_of::<AtomicU64>()).next_multiple_of(LINE)
}

fn region_size(workers: u32, counters: u32) -> usize {
    LINE + workers as usize * stride(counters)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::os::unix::fs::FileExt;

    fn adopt(region: &StatsRegion) -> Result<StatsRegion, StatsError> {
        StatsRegion::adopt(region.fd().try_clone_to_owned().unwrap())
    }

    #[test]
    fn reader_adds_up_what_the_workers_count() {
        let region = StatsRegion::create(3, 5).unwrap();
        let reader = adopt(&region).unwrap();
        std::thread::scope(|scope| {
            for worker in 0..3 {
                let counters = region.worker(worker).unwrap();
                scope.spawn(move || {
                    for _ in 0..1000 {
                        counters.add(4, u64::from(worker) + 1);
                    }
                });
            }
        });
        assert_eq!(reader.sum(4), 6000);
        assert_eq!((reader.get(0, 4), reader.get(1, 4), reader.get(2, 4)), (1000, 2000, 3000));
        assert_eq!((reader.sum(0), reader.sum(5), reader.get(3, 4)), (0, 0, 0));
    }

    #[test]
    fn counters_have_one_writer_at_a_time() {
        let region = StatsRegion::create(2, 1).unwrap();
        let first = region.worker(1).unwrap();
        assert!(matches!(region.worker(1), Err(StatsError::Taken(1))));
        assert!(region.worker(0).is_ok());
        drop(first);
        assert!(region.worker(1).is_ok());
        assert!(matches!(region.worker(2), Err(StatsError::NoWorker { worker: 2, workers: 2 })));
    }

    #[test]
    fn workers_share_no_cache_line() {
        let region = StatsRegion::create(4, 9).unwrap();
        let starts: Vec<usize> = (0..4).map(|i| region.inner.counters_of(i).as_ptr() as usize).collect();
        for pair in starts.windows(2) {
            assert!(pair[1] - pair[0] >= 9 * 8);
        }
        assert!(starts.iter().all(|start| start % LINE == 0));
    }

    #[test]
    fn new_epoch_is_seen_by_readers() {
        let region = StatsRegion::create(1, 1).unwrap();
        let reader = adopt(&region).unwrap();
        assert_eq!(reader.epoch(), 1);
        region.next_epoch();
        assert_eq!(reader.epoch(), 2);
    }

    #[test]
    fn regions_of_other_content_are_refused() {
        let region = StatsRegion::create(2, 8).unwrap();
        let file = File::from(region.fd().try_clone_to_owned().unwrap());
        let forge = |at: u64, octets: &[u8]| {
            let mut before = vec![0; octets.len()];
            file.read_exact_at(&mut before, at).unwrap();
            file.write_all_at(octets, at).unwrap();
            let result = adopt(&region).map(|_| ());
            file.write_all_at(&before, at).unwrap();
            result
        };
        assert!(matches!(forge(0, b"somebody"), Err(StatsError::Magic { .. })));
        assert!(matches!(forge(8, &9u32.to_ne_bytes()), Err(StatsError::Version { found: 9 })));
        assert!(matches!(forge(12, &3u32.to_ne_bytes()), Err(StatsError::Size { .. })));
        assert!(matches!(forge(12, &u32::MAX.to_ne_bytes()), Err(StatsError::Dimensions { .. })));
        assert!(matches!(forge(16, &0u32.to_ne_bytes()), Err(StatsError::Dimensions { .. })));
        assert!(adopt(&region).is_ok(), "all was put back");
        let tiny = Segment::create("tandem-test", 8).unwrap();
        let tiny = StatsRegion::adopt(tiny.fd().try_clone_to_owned().unwrap());
        assert!(matches!(tiny, Err(StatsError::Size { found: 8, .. })));
    }
}

//! Publish and retire: how immutable values reach the workers, and when the replaced ones are freed.
//!
//! A look-up costs a reader one load with Acquire. In return each reader announces, once a round, a
//! moment at which it holds no reference ([`Reader::quiescent`]); the publisher frees a replaced
//! value when every reader has passed such a moment after the replacement (quiescent-state based
//! reclamation).
//!
//! # Memory is never freed on a reader
//! Replaced values are in the hands of the [`Publisher`] alone, and only its own calls free them. A
//! reader neither counts references nor collects: freeing walks the allocator and runs destructors of any
//! length (key material is wiped), which has no place between two packets. What is left when the
//! publisher goes is freed by the next publisher, or with the [`Domain`]; so a program that ends lets the
//! publisher go last.
//!
//! # Soundness
//! A reference from [`Published::load`] borrows the [`Reader`]; [`Reader::quiescent`] and
//! [`Reader::offline`] take it by `&mut`, so the borrow checker ends every reference before them.
//! - *Replacement*: the publisher swaps the pointer, then counts the domain's epoch up to `e`; the old value is
//!   due at `e`.
//! - *Quiet point*: the reader reads the epoch (Acquire) and announces it (Release). Having announced `e` or
//!   more it has seen the swap, so it cannot load the old value again; and its former uses of the old value happened
//!   before the announcement, hence before the publisher that reads it (Acquire) frees.
//! - *Offline*: the announcement is "later than all". Coming back, the reader announces the epoch, then
//!   executes a sequentially consistent fence, then loads; the publisher swaps, then executes such a
//!   fence, then reads the announcements. So it sees the reader's announcement, or the reader sees the swap.
//!
//! A reader of another domain would be waited for by nobody: each [`Published`] and [`Reader`] carries the
//! number of its domain, numbers are never used twice, and `load` compares them (a word in the line that it reads
//! anyway).

use crate::sync::{AtomicBool, AtomicPtr, AtomicU64, Ordering, fence, pause};
use std::collections::VecDeque;
use std::marker::PhantomData;
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, PoisonError};

/// Numbers of domains, never used twice.
static NEXT_DOMAIN: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(1);

/// Announcement of a reader that holds nothing and loads nothing: later than every epoch.
const OFFLINE: u64 = u64::MAX;

/// Why a reader could not be registered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReaderError {
    /// The domain has no reader of this number.
    #[error("there is no reader {index}: the domain has {readers}")]
    NoSuch {
        /// Number asked for.
        index: usize,
        /// Readers of the domain.
        readers: usize,
    },
    /// The reader of this number exists already.
    #[error("reader {0} is registered already")]
    Taken(usize),
}

/// Readers that a publisher waits for, together.
#[derive(Debug)]
pub struct Domain {
    id: u64,
    /// Counted up with each replacement.
    epoch: AtomicU64,
    readers: Box<[Announcement]>,
    has_publisher: AtomicBool,
    /// What the last publisher could not free.
    left_over: Mutex<VecDeque<Retired>>,
}

/// What a reader tells the publisher, on a cache line of its own.
#[repr(align(64))]
#[derive(Debug)]
struct Announcement {
    /// The reader holds nothing from before this epoch.
    passed: AtomicU64,
    taken: AtomicBool,
}

impl Domain {
    /// Makes a domain of `readers` readers, none of them registered.
    pub fn new(readers: usize) -> Arc<Domain> {
        let announcement =
            |_| Announcement { passed: AtomicU64::new(OFFLINE), taken: AtomicBool::new(false) };
        Arc::new(Domain {
            id: NEXT_DOMAIN.fetch_add(1, std::sync::atomic::Ordering::Relaxed),
            epoch: AtomicU64::new(1),
            readers: (0..readers).map(announcement).collect(),
            has_publisher: AtomicBool::new(false),
            left_over: Mutex::default(),
        })
    }

    /// Registers reader `index`, online. There is one of each number at a time.
    pub fn reader(self: &Arc<Self>, index: usize) -> Result<Reader, ReaderError> {
        let readers = self.readers.len();
        let announcement = self.readers.get(index).ok_or(ReaderError::NoSuch { index, readers })?;
        if announcement.taken.swap(true, Ordering::AcqRel) {
            return Err(ReaderError::Taken(index));
        }
        let mut reader = Reader { id: self.id, index, announced: OFFLINE, domain: self.clone() };
        reader.come_online();
        Ok(reader)
    }

    /// The publisher of the domain; `None` while there is one.
    pub fn publisher(self: &Arc<Self>) -> Option<Publisher> {
        if self.has_publisher.swap(true, Ordering::AcqRel) {
            return None;
        }
        let retired = std::mem::take(&mut *self.left_over());
        Some(Publisher { domain: self.clone(), retired })
    }

    /// Number of readers, registered or not.
    pub fn readers(&self) -> usize {
        self.readers.len()
    }

    /// The epoch that every reader has passed.
    fn passed_by_all(&self) -> u64 {
        // Pairs with the fence of a reader that comes online: see the module's documentation.
        fence(Ordering::SeqCst);
        let passed = self.readers.iter().map(|reader| reader.passed.load(Ordering::Acquire));
        passed.min().unwrap_or(OFFLINE)
    }

    fn left_over(&self) -> std::sync::MutexGuard<'_, VecDeque<Retired>> {
        // A panic while the lock is held leaves the queue whole: each change is one call.
        self.left_over.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One reader of a [`Domain`]: a worker. It is online, except during [`offline`](Reader::offline).
#[derive(Debug)]
pub struct Reader {
    id: u64,
    index: usize,
    /// What was announced last.
    announced: u64,
    domain: Arc<Domain>,
}

impl Reader {
    /// Announces a moment without references. Costs a load, and a store where something was published.
    #[inline]
    pub fn quiescent(&mut self) {
        let epoch = self.domain.epoch.load(Ordering::Acquire);
        if epoch != self.announced {
            self.announced = epoch;
            self.announcement().passed.store(epoch, Ordering::Release);
        }
    }

    /// Runs `sleep` while nobody waits for this reader: for calls that block. The reader cannot be used
    /// in `sleep`, and is online again afterwards, also where `sleep` panics.
    pub fn offline<R>(&mut self, sleep: impl FnOnce() -> R) -> R {
        struct Absence<'a>(&'a mut Reader);
        impl Drop for Absence<'_> {
            fn drop(&mut self) {
                self.0.come_online();
            }
        }
        self.go_offline();
        let _absence = Absence(self);
        sleep()
    }

    /// Number of this reader in its domain.
    pub fn index(&self) -> usize {
        self.index
    }

    fn come_online(&mut self) {
        self.announced = self.domain.epoch.load(Ordering::Acquire);
        // Release, since this may be the first announcement that the publisher sees after uses that came
        // before the absence.
        self.announcement().passed.store(self.announced, Ordering::Release);
        // Pairs with the fence of the publisher: see the module's documentation.
        fence(Ordering::SeqCst);
    }

    fn go_offline(&mut self) {
        self.announced = OFFLINE;
        self.announcement().passed.store(OFFLINE, Ordering::Release);
    }

    #[inline]
    fn announcement(&self) -> &Announcement {
        &self.domain.readers[self.index]
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.go_offline();
        self.announcement().taken.store(false, Ordering::Release);
    }
}

/// A place for one value that readers look up and the publisher replaces.
///
/// Dropping it frees the value that it holds, on the thread that drops it; nobody can have a reference then. What it held
/// before is freed as always.
#[derive(Debug)]
pub struct Published<T> {
    domain: u64,
    /// From `Box::into_raw`, or null.
    value: AtomicPtr<T>,
    owns: PhantomData<Box<T>>,
}

impl<T: Send + Sync + 'static> Published<T> {
    /// An empty place for readers of `domain`.
    pub fn empty(domain: &Domain) -> Published<T> {
        Published { domain: domain.id, value: AtomicPtr::new(std::ptr::null_mut()), owns: PhantomData }
    }

    /// A place that holds `value`, for readers of `domain`.
    pub fn new(domain: &Domain, value: Box<T>) -> Published<T> {
        Published { domain: domain.id, value: AtomicPtr::new(Box::into_raw(value)), owns: PhantomData }
    }

    /// The value, until the reader's next quiet point. `None` where the place is empty, and for a reader
    /// of another domain, which is a bug of the caller.
    #[inline]
    pub fn load<'r>(&'r self, reader: &'r Reader) -> Option<&'r T> {
        let own = self.domain == reader.id;
        debug_assert!(own, "a reader was used with a place of another domain");
        if !own {
            return None;
        }
        let value = self.value.load(Ordering::Acquire);
        // SAFETY: null, or a box that was published (Release), which is freed by: the publisher, after every
        // online reader of this domain has passed a quiet point after the replacement, which this reader
        // cannot while it is borrowed for 'r; or with this place, which is borrowed for 'r as well.
        unsafe { value.as_ref() }
    }
}

impl<T> Drop for Published<T> {
    fn drop(&mut self) {
        let value = self.value.load(Ordering::Acquire);
        if !value.is_null() {
            // SAFETY: it came from `Box::into_raw` and is in this place, hence not retired. `&mut self`
            // shows that no reference from `load` is alive.
            drop(unsafe { Box::from_raw(value) });
        }
    }
}

/// A moment after which the publisher can ask whether all readers have had a quiet point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark(u64);

/// The one who replaces the values of a [`Domain`]'s places, and frees what was replaced.
#[derive(Debug)]
pub struct Publisher {
    domain: Arc<Domain>,
    /// In order of their epochs.
    retired: VecDeque<Retired>,
}

impl Publisher {
    /// Replaces the value of a place. The old one is freed by a later [`reclaim`](Publisher::reclaim).
    ///
    /// # Panics
    /// Where the place belongs to another domain.
    pub fn publish<T: Send + Sync + 'static>(&mut self, place: &Published<T>, value: Option<Box<T>>) {
        assert_eq!(place.domain, self.domain.id, "the place belongs to another domain");
        let new = value.map_or(std::ptr::null_mut(), Box::into_raw);
        let old = place.value.swap(new, Ordering::AcqRel);
        let due = self.next_epoch();
        if let Some(old) = NonNull::new(old) {
            self.retired.push_back(Retired { due, value: old });
        }
    }

    /// Frees what no reader can hold any more; returns how many values.
    pub fn reclaim(&mut self) -> usize {
        if self.retired.is_empty() {
            return 0;
        }
        self.free_due(self.domain.passed_by_all())
    }

    /// Values that wait to be freed.
    pub fn retired(&self) -> usize {
        self.retired.len()
    }

    /// Marks the present moment: all that was published before, and all that this thread has stored
    /// before, is seen by a reader that has passed it.
    pub fn mark(&mut self) -> Mark {
        Mark(self.next_epoch())
    }

    /// True when every reader has had a quiet point after the mark, or is offline.
    pub fn has_passed(&self, mark: Mark) -> bool {
        mark.0 <= self.domain.passed_by_all()
    }

    /// Blocks until every online reader has had a quiet point, and frees what was replaced before. Never
    /// returns where the calling thread itself holds an online reader.
    pub fn wait_quiescent(&mut self) {
        let mark = self.mark();
        while !self.has_passed(mark) {
            pause();
        }
        self.free_due(mark.0);
    }

    /// Frees what was due when every reader had announced `passed`, or was offline.
    fn free_due(&mut self, passed: u64) -> usize {
        let mut freed = 0;
        while self.retired.front().is_some_and(|retired| retired.due <= passed) {
            let Some(retired) = self.retired.pop_front() else { break };
            freed += 1;
            // SAFETY: every reader has announced the epoch in which this was due, or was offline after it,
            // in which case it cannot load it any more.
            unsafe { retired.free() };
        }
        freed
    }

    fn next_epoch(&mut self) -> u64 {
        self.domain.epoch.fetch_add(1, Ordering::AcqRel) + 1
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        self.reclaim();
        self.domain.left_over().append(&mut self.retired);
        self.domain.has_publisher.store(false, Ordering::Release);
    }
}

impl Drop for Domain {
    fn drop(&mut self) {
        for retired in std::mem::take(&mut *self.left_over()) {
            // SAFETY: each reader keeps the domain alive, so there is none, and no reference from `load`.
            unsafe { retired.free() };
        }
    }
}

/// A replaced value. Kept as a pointer, since a box would claim that nobody else looks at it.
struct Retired {
    /// Epoch that every reader has to announce before.
    due: u64,
    value: NonNull<dyn Value>,
}

/// Anything that can be published.
trait Value: Send + Sync {}
impl<T: Send + Sync> Value for T {}

// SAFETY: the value is `Send` and `Sync`, and this is the only owner.
unsafe impl Send for Retired {}

impl Retired {
    /// Frees the value.
    ///
    /// # Safety
    /// No reference to it is alive.
    unsafe fn free(self) {
        // SAFETY: it came from `Box::into_raw`, was taken out of its place once, and is consumed here.
        drop(unsafe { Box::from_raw(self.value.as_ptr()) });
    }
}

impl std::fmt::Debug for Retired {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Retired").field("due", &self.due).finish_non_exhaustive()
    }
}

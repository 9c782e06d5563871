//! A node: its disk, its memory, and the two processes that come and go.

use super::disk::Disk;
use super::net::{Datagram, Keys};
use super::queue::Time;
use super::worker::Worker;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use tandem_esp::IvSource;
use tandem_shm::{HotState, Marks};
use tandem_takeover::{Input, Memory, Node, SaKey, Stale, Way};

/// Slots of the hot state.
pub const SLOTS: u32 = 12;
/// Workers of a node.
pub const WORKERS: usize = 2;
/// Datagrams that the kernel keeps for a process that does not read.
pub const RECEIVE_MAX: usize = 600;

/// A static SA of the configuration.
#[derive(Clone, Copy, Debug)]
pub struct SaDefinition {
    /// Name.
    pub key: SaKey,
    /// What a stale takeover does with it.
    pub stale: Stale,
    /// In the configuration of each node.
    pub configured: [bool; 2],
    /// Made in this run: then no file could have known it.
    pub new: bool,
}

/// A clock that starts anywhere and runs a little wrong.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    /// At the beginning of the world.
    pub offset: Time,
    /// Too fast, in millionths.
    pub fast: i64,
}

impl Clock {
    /// What it shows.
    #[must_use]
    pub fn read(&self, now: Time) -> Time {
        let drift = (i128::from(now) * i128::from(self.fast) / 1_000_000) as i64;
        (self.offset + now).wrapping_add_signed(drift)
    }

    /// When it shows `local`, rounded up.
    #[must_use]
    pub fn when(&self, local: Time) -> Time {
        let since = i128::from(local.saturating_sub(self.offset));
        let time = since * 1_000_000 / i128::from(1_000_000 + self.fast) + 1;
        u64::try_from(time).unwrap_or(0)
    }
}

/// A data plane process.
#[derive(Debug)]
pub struct Data {
    /// The machine under test.
    pub machine: Node,
    /// Marks of inbound SAs.
    pub inbound: Marks,
    /// Marks of outbound SAs.
    pub outbound: Marks,
    /// Workers.
    pub workers: Vec<Worker>,
    /// Datagrams that were not read yet.
    pub receive: VecDeque<Datagram>,
    /// What control has said and the pair thread not read yet.
    pub inputs: VecDeque<Input>,
    /// Keys of the paths.
    pub keys: Keys,
    /// SAs, their slots and base terms.
    pub slots: Vec<(SaKey, u32, u64)>,
    /// When the pair thread runs next.
    pub due: Option<Time>,
    /// Handling word that the workers must echo.
    pub wanted: Option<u64>,
    /// When the workers last answered, in local time, by segment.
    pub witness: [Option<Time>; 2],
    /// Witnesses are asked again then.
    pub witness_due: Time,
    /// When the machine was last told what the node sees.
    pub looked: Time,
    /// Asked of control and not answered.
    pub need_grant: Option<bool>,
    /// Told to control, which may have been away.
    pub reign: Option<(u64, bool)>,
    /// The quiet point that control is to pass.
    pub joining: Option<u64>,
}

/// A control process.
#[derive(Debug, Default)]
pub struct Control {
    /// Its SSP session.
    pub session: Option<u64>,
    /// The partner's incarnation, from its Hello.
    pub partner: Option<u64>,
    /// The own incarnation that the partner was told of.
    pub told: u64,
    /// The one that it was told of before this session.
    pub told_before: u64,
    /// Newest incarnation of the partner that it knows of.
    pub seen: u64,
    /// The session is up for the data plane.
    pub up: bool,
    /// It will be, when the term file is written.
    pub up_after_write: bool,
    /// Messages of the stream that it has sent in this session.
    pub position: u64,
    /// Incarnation of the partner that got a bulk in this session.
    pub bulk_for: Option<u64>,
    /// Position that it has applied.
    pub applied: u64,
    /// With end-of-bulk, for this own incarnation.
    pub end_of_bulk: bool,
    /// A write of the term file ends then.
    pub written: Time,
}

/// A node.
#[derive(Debug)]
pub struct Host {
    /// Its clock.
    pub clock: Clock,
    /// Its disk.
    pub disk: Disk,
    /// Its hot state, which control keeps.
    pub hot: Option<HotState>,
    /// Data plane, if it runs.
    pub data: Option<Data>,
    /// Control, if it runs.
    pub control: Option<Control>,
    /// Counts data planes.
    pub data_life: u32,
    /// Counts control processes.
    pub control_life: u32,
    /// Nothing of it runs until then.
    pub paused_until: Time,
    /// Its pair thread does not run until then.
    pub deaf_until: Time,
    /// State of control that the stream carries, as a version.
    pub content: u64,
    /// It was so when this node became strict.
    pub content_at_strict: u64,
}

impl Data {
    /// What the machine works on.
    pub fn split<'d>(&'d mut self, hot: &'d HotState) -> (&'d mut Node, Memory<'d>) {
        (&mut self.machine, Memory { hot, inbound: &self.inbound, outbound: &self.outbound })
    }

    /// Slot and base term of an SA.
    #[must_use]
    pub fn slot(&self, way: Way, spi: u32) -> Option<(u32, u64)> {
        let found = self.slots.iter().find(|(key, ..)| key.way == way && key.spi == spi);
        found.map(|(_, slot, base)| (*slot, *base))
    }

    /// Have all workers worked by this word, or a later one?
    #[must_use]
    pub fn passed(&self, word: u64) -> bool {
        self.workers.iter().all(|worker| worker.seen >= word)
    }
}

/// Binds an SA to a slot of the hot state: its own one, or the first that never had one (F8). True where it was
/// known.
pub fn bind(hot: &HotState, key: &SaKey, start: u32) -> Option<(u32, bool)> {
    let slots = (0..SLOTS).map(|slot| (slot + start) % SLOTS);
    let bound = |slot: u32| match key.way {
        Way::In => hot
            .inbound(slot)
            .map(|state| (state.binding.load(Ordering::Acquire), state.spi.load(Ordering::Acquire))),
        Way::Out => hot
            .outbound(slot)
            .map(|state| (state.binding.load(Ordering::Acquire), state.spi.load(Ordering::Acquire))),
    };
    if let Some(slot) = slots.clone().find(|slot| bound(*slot) == Some((key.fingerprint, key.spi))) {
        return Some((slot, true));
    }
    let free = slots.into_iter().find(|slot| bound(*slot).is_some_and(|(binding, _)| binding == 0))?;
    match key.way {
        Way::In => {
            let state = hot.inbound(free)?;
            state.spi.store(key.spi, Ordering::Relaxed);
            state.binding.store(key.fingerprint, Ordering::Release);
        }
        Way::Out => {
            let state = hot.outbound(free)?;
            state.spi.store(key.spi, Ordering::Relaxed);
            state.binding.store(key.fingerprint, Ordering::Release);
        }
    }
    Some((free, false))
}

/// Does a slot hold a number, or a limit for one?
#[must_use]
pub fn touched(hot: &HotState, key: &SaKey, slot: u32) -> bool {
    let any =
        |one: &AtomicU64, two: &AtomicU64| one.load(Ordering::Acquire) | two.load(Ordering::Acquire) != 0;
    match key.way {
        Way::In => hot.inbound(slot).is_some_and(|state| any(&state.top, &state.limit)),
        Way::Out => hot.outbound(slot).is_some_and(|state| any(&state.next, &state.limit)),
    }
}

/// What F4 forbids: the counter begins anew, in the memory and at each worker.
pub fn counter_from_zero(hot: &HotState, workers: &mut [Worker]) {
    hot.header().node_counter.store(0, Ordering::Release);
    for worker in workers {
        worker.ivs = IvSource::new();
    }
}

//! Who has a frame while no token of it exists.
//!
//! # Soundness
//! A port that gives frames to the kernel registers as a [`Borrower`]. Lending consumes the token and
//! records the borrower's number for the frame; taking back demands that this very number is recorded, removes the
//! record and makes the token anew. A number has one [`Borrower`], which is not `Clone`, both operations take it by
//! `&mut`, and only lending (which needs the token) writes a number where there was none. So:
//! - a descriptor from the kernel that names a frame twice, a frame never lent, a frame of another port, or
//!   memory outside of the area finds no record and yields no token;
//! - a borrower that reads its own number reads what it has written itself, and nobody else can be about to
//!   take the same frame: no read-modify-write and no ordering is needed beyond what moved the token
//!   between threads.
//!
//! The cost is two octets for each frame, read and written where the descriptor is handled anyway.

use crate::Error;
use crate::frame::{FRAME_SIZE, Frame};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU16, Ordering};

/// The frame has its token: nobody has borrowed it.
const NOBODY: u16 = 0;
/// Largest number of a borrower; a record is twice the number plus one for transmission.
const MAX_BORROWER: u16 = u16::MAX >> 1;

/// What a frame was lent for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    Receive,
    Transmit,
}

/// The right to borrow frames under one number, of which there is one only.
#[derive(Debug)]
pub(crate) struct Borrower(u16);

impl Borrower {
    fn record(&self, purpose: Purpose) -> u16 {
        self.0 << 1 | u16::from(purpose == Purpose::Transmit)
    }
}

/// No frame at this address is lent to the borrower for this purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NotLent;

/// The records of a UMEM.
#[derive(Debug)]
pub(crate) struct Lending {
    umem: u32,
    records: Box<[AtomicU16]>,
    numbers: Mutex<Numbers>,
}

/// Numbers of borrowers: those above `last` were never used, those in `returned` have nothing on record.
#[derive(Debug, Default)]
struct Numbers {
    last: u16,
    returned: Vec<u16>,
}

impl Lending {
    pub(crate) fn new(umem: u32, frames: u32) -> Lending {
        let records = (0..frames).map(|_| AtomicU16::new(NOBODY)).collect();
        Lending { umem, records, numbers: Mutex::default() }
    }

    /// A new borrower, with nothing on record.
    pub(crate) fn register(&self) -> Result<Borrower, Error> {
        let mut numbers = self.numbers();
        if let Some(number) = numbers.returned.pop() {
            return Ok(Borrower(number));
        }
        if numbers.last == MAX_BORROWER {
            return Err(Error::Identifiers("ports"));
        }
        numbers.last += 1;
        Ok(Borrower(numbers.last))
    }

    /// Ends a borrower. Its number is used again only where nothing is on record for it; a borrower
    /// that is dropped instead keeps its number, and its frames stay lent.
    pub(crate) fn retire(&self, borrower: Borrower) {
        let lent = [borrower.record(Purpose::Receive), borrower.record(Purpose::Transmit)];
        if !self.records.iter().any(|record| lent.contains(&record.load(Ordering::Relaxed))) {
            self.numbers().returned.push(borrower.0);
        }
    }

    /// Lends a frame; returns the address of its packet in the UMEM. A frame of another UMEM comes back.
    #[inline]
    pub(crate) fn lend(&self, borrower: &mut Borrower, purpose: Purpose, frame: Frame) -> Result<u64, Frame> {
        if frame.umem() != self.umem {
            return Err(frame);
        }
        let Some(record) = self.records.get(frame.index() as usize) else { return Err(frame) };
        record.store(borrower.record(purpose), Ordering::Relaxed);
        Ok(frame.address())
    }

    /// Takes the frame back in which `address` lies, as an empty packet.
    #[inline]
    pub(crate) fn take_back(
        &self,
        borrower: &mut Borrower,
        purpose: Purpose,
        address: u64,
    ) -> Result<Frame, NotLent> {
        let index = address / FRAME_SIZE as u64;
        let record = self.records.get(usize::try_from(index).map_err(|_| NotLent)?).ok_or(NotLent)?;
        if record.load(Ordering::Relaxed) != borrower.record(purpose) {
            return Err(NotLent);
        }
        record.store(NOBODY, Ordering::Relaxed);
        // SAFETY: the index is below the number of frames. The record shows that the token was consumed by
        // this borrower and not made again since; it has just been removed, by the only one who could.
        Ok(unsafe { Frame::mint(self.umem, index as u32) })
    }

    /// Takes all frames back that are lent to the borrower for this purpose.
    pub(crate) fn take_back_all(
        &self,
        borrower: &mut Borrower,
        purpose: Purpose,
        mut each: impl FnMut(Frame),
    ) {
        for index in 0..self.records.len() as u64 {
            if let Ok(frame) = self.take_back(borrower, purpose, index * FRAME_SIZE as u64) {
                each(frame);
            }
        }
    }

    /// Frames that are lent to the borrower.
    pub(crate) fn lent(&self, borrower: &Borrower, purpose: Purpose) -> usize {
        let lent = borrower.record(purpose);
        self.records.iter().filter(|record| record.load(Ordering::Relaxed) == lent).count()
    }

    fn numbers(&self) -> std::sync::MutexGuard<'_, Numbers> {
        // A panic while the lock is held leaves the numbers whole: each change is one assignment or one call.
        self.numbers.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Umem;
    use proptest::prelude::*;

    #[test]
    fn frame_comes_back_once_and_only_to_its_borrower() {
        let (umem, mut free) = Umem::new(4).unwrap();
        let (mut one, mut two) = (umem.lending.register().unwrap(), umem.lending.register().unwrap());
        let address = umem.lending.lend(&mut one, Purpose::Receive, free.pop().unwrap()).unwrap();
        let lending = &umem.lending;
        assert_eq!(lending.take_back(&mut two, Purpose::Receive, address).unwrap_err(), NotLent);
        assert_eq!(lending.take_back(&mut one, Purpose::Transmit, address).unwrap_err(), NotLent);
        assert!(lending.take_back(&mut one, Purpose::Receive, address).is_ok());
        assert_eq!(lending.take_back(&mut one, Purpose::Receive, address).unwrap_err(), NotLent);
    }

    #[test]
    fn number_with_frames_on_record_is_not_used_again() {
        let (umem, mut free) = Umem::new(4).unwrap();
        let mut one = umem.lending.register().unwrap();
        let number = one.0;
        umem.lending.lend(&mut one, Purpose::Transmit, free.pop().unwrap()).unwrap();
        umem.lending.retire(one);
        let two = umem.lending.register().unwrap();
        assert_ne!(two.0, number);
        let number = two.0;
        umem.lending.retire(two);
        assert_eq!(umem.lending.register().unwrap().0, number);
    }

    #[test]
    fn frame_of_another_umem_is_not_lent() {
        let (_one, mut free) = Umem::new(4).unwrap();
        let (other, _) = Umem::new(4).unwrap();
        let mut borrower = other.lending.register().unwrap();
        assert!(other.lending.lend(&mut borrower, Purpose::Receive, free.pop().unwrap()).is_err());
        assert_eq!(other.lending.lent(&borrower, Purpose::Receive), 0);
    }

    proptest! {
        /// A kernel gone mad names any address at any time: tokens and records never exceed the frames,
        /// and no two tokens are of one frame.
        #[test]
        fn hostile_addresses_never_duplicate_a_token(
            steps in proptest::collection::vec((any::<bool>(), prop_oneof![0..9 * 4096u64, any::<u64>()]), 1..200)
        ) {
            let (umem, mut free) = Umem::new(8).unwrap();
            let mut kernel = umem.lending.register().unwrap();
            let mut live: Vec<Frame> = Vec::new();
            for (lend, address) in steps {
                if lend && let Some(frame) = live.pop().or_else(|| free.pop()) {
                    umem.lending.lend(&mut kernel, Purpose::Receive, frame).unwrap();
                } else if let Ok(frame) = umem.lending.take_back(&mut kernel, Purpose::Receive, address) {
                    live.push(frame);
                }
                let lent = umem.lending.lent(&kernel, Purpose::Receive);
                prop_assert_eq!(lent + live.len() + free.len(), 8);
                let mut indices: Vec<u32> = live.iter().map(Frame::index).collect();
                indices.sort_unstable();
                indices.dedup();
                prop_assert_eq!(indices.len(), live.len());
            }
        }
    }
}

//! What providers do to memory: nothing is allocated while packets are sealed and opened, and nothing of a key
//! is left in memory that is given back.
//!
//! The Rust allocator of this program counts, and looks into the block of a key schedule when it is freed.
//! AWS-LC frees through `sdallocx` where a program has one, so this program has one that looks as well.
#![allow(unsafe_code)] // An allocator cannot be written without.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::ffi::{c_int, c_void};

use tandem_aead::{Aad, Algorithm, BURST, OpenJob, SealJob, Segments, available, provider};

/// The first round key of AES is the key itself, so this is what lies in a schedule.
const KEY: [u8; 32] = *b"a key that must not stay behind.";

/// Smaller blocks hold no key schedule: AES-128 has 11 round keys.
const SCHEDULE: usize = 11 * 16;

thread_local! {
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
    /// The last block of at least [`SCHEDULE`] octets.
    static LARGE: Cell<(*mut u8, usize)> = const { Cell::new((std::ptr::null_mut(), 0)) };
    static FREED: Cell<Freed> = const { Cell::new(Freed { clean: 0, soiled: 0 }) };
}

/// Blocks as large as a key schedule that were given back, without and with a key in them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Freed {
    clean: usize,
    soiled: usize,
}

fn note_freed(soiled: bool) {
    let Freed { clean, soiled: before } = FREED.get();
    FREED.set(Freed { clean: clean + usize::from(!soiled), soiled: before + usize::from(soiled) });
}

/// Whether a key lies somewhere in a block.
///
/// # Safety
/// `block` is a live allocation of `len` octets that were all written once.
unsafe fn holds_key(block: *const u8, len: usize) -> bool {
    let octet = |at: usize| {
        // SAFETY: `at` is below `len`, and the caller says that those octets are there and were written.
        unsafe { block.add(at).read_volatile() }
    };
    (0..=len - 16).any(|from| (0..16).all(|i| octet(from + i) == KEY[i]))
}

struct Watching;

// SAFETY: every call goes to the system's allocator with the same layout; looking into a block changes nothing.
unsafe impl GlobalAlloc for Watching {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller keeps the contract of `alloc`, which is also that of `alloc_zeroed`.
        let block = unsafe { System.alloc_zeroed(layout) };
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        if layout.size() >= SCHEDULE {
            LARGE.set((block, layout.size()));
        }
        block
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        if LARGE.get().0 == block {
            // SAFETY: the block is live until the next call, and `alloc` wrote zeros to all of it.
            note_freed(unsafe { holds_key(block, layout.size()) });
            LARGE.set((std::ptr::null_mut(), 0));
        }
        // SAFETY: the block came from `System` with this layout.
        unsafe { System.dealloc(block, layout) };
    }
}

#[global_allocator]
static ALLOCATOR: Watching = Watching;

unsafe extern "C" {
    fn free(block: *mut c_void);
}

/// What AWS-LC calls instead of `free`.
///
/// # Safety
/// `block` came from `malloc`, has at least `size` octets, and is not used afterwards.
#[unsafe(no_mangle)]
unsafe extern "C" fn sdallocx(block: *mut c_void, size: usize, _flags: c_int) {
    if size >= SCHEDULE {
        // SAFETY: AWS-LC gives the size that it asked `malloc` for, and has just overwritten all of it.
        note_freed(unsafe { (0..size).any(|at| block.cast::<u8>().add(at).read_volatile() != 0) });
    }
    // SAFETY: the block came from `malloc`.
    unsafe { free(block) };
}

#[test]
fn a_dropped_key_leaves_nothing_behind() {
    for name in available() {
        let provider = provider(name).expect("available");
        for algorithm in [Algorithm::Aes128Gcm, Algorithm::Aes256Gcm] {
            LARGE.set((std::ptr::null_mut(), 0));
            let key = provider.key(algorithm, &KEY[..algorithm.key_len()]).expect("the right length");
            if name != "aws-lc-rs" {
                // Otherwise nothing found afterwards would mean nothing.
                let (block, len) = LARGE.get();
                assert!(!block.is_null(), "{name}: the schedule lies in a block");
                // SAFETY: the block is part of `key`, which lives; `alloc` wrote zeros to all of it.
                assert!(unsafe { holds_key(block, len) }, "{name}: the key is seen while it lives");
            }
            FREED.set(Freed { clean: 0, soiled: 0 });
            drop(key);
            assert_eq!(FREED.get(), Freed { clean: 1, soiled: 0 }, "{name} {algorithm:?}");
        }
    }
}

#[test]
fn sealing_and_opening_allocate_nothing() {
    for name in available() {
        let mut provider = provider(name).expect("available");
        let key = provider.key(Algorithm::Aes256Gcm, &KEY).expect("32 octets");
        let mut texts = vec![vec![0; 1500]; BURST];
        let mut tags = vec![[0; 16]; BURST];
        let aad = Aad::esp(1, 1);
        let mut jobs: Vec<_> = texts
            .iter_mut()
            .zip(&mut tags)
            .enumerate()
            .map(|(i, (text, tag))| {
                let text = if i % 2 == 0 {
                    Segments::one(text)
                } else {
                    let (head, tail) = text.split_at_mut(700);
                    Segments::from_slices([head, tail]).expect("two")
                };
                SealJob { key: &key, nonce: [0; 12], aad, text, tag }
            })
            .collect();
        let before = ALLOCATIONS.get();
        provider.seal(&mut jobs);
        assert_eq!(ALLOCATIONS.get(), before, "{name} sealed");
        drop(jobs);
        let mut jobs: Vec<_> = texts
            .iter_mut()
            .zip(&tags)
            .map(|(text, tag)| OpenJob { key: &key, nonce: [0; 12], aad, text: Segments::one(text), tag })
            .collect();
        let before = ALLOCATIONS.get();
        let verdicts = provider.open(&mut jobs);
        assert_eq!(ALLOCATIONS.get(), before, "{name} opened");
        assert_eq!(verdicts.bits(), u64::MAX);
    }
}

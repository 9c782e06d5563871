//! The anti-replay window (RFC 4303 section 3.4.3), safe for several cores and without clearing: rule F7 of
//! `docs/failover.md`.
//!
//! The numbers are cut into blocks of [`BLOCK`]. Block `b` lives in word `b % N` of the window: the block number
//! modulo 2^32 in the high half, one bit for each number in the low half. A word that holds an older block counts
//! as empty, one that holds a newer block says that the number is too old; older and newer are those of RFC 1982,
//! so that extended numbers may pass 2^37. Accepting a number is one compare-exchange of its word: a block is
//! entered and its first bit set in one step, so no reader can find a word that was cleared and not yet claimed,
//! or claimed and cleared afterwards. The top is raised after it, and only ever up.
//!
//! What is refused, exactly, for a window of `N` words that one core uses:
//!
//! - a number at least [`covered`]`(N)` below the top is [`Verdict::TooOld`], whether it was seen or not;
//! - of the others, a number that was accepted before is [`Verdict::Replayed`];
//! - number 0 is never sent (RFC 4303 section 2.2) and is [`Verdict::TooOld`];
//! - every other number is [`Verdict::Fresh`].
//!
//! With several cores, a number can also be too old because a higher one was accepted whose top is not yet
//! visible. No number is ever accepted twice.
//!
//! The words are never reset while a key lives (F8). What a partner has accepted is added to them: [`merge`] takes
//! the union with one of its words, [`see_all_up_to`] counts a whole beginning as seen (F40). Both only ever refuse
//! more, and both may run while other cores accept.

use tandem_shm::{HotIn, WINDOW_WORDS};

use crate::AtomicWord;

/// Sequence numbers of one word.
pub const BLOCK: u64 = 32;

/// The numbers that a window of the hot state surely covers: the top, and those below it.
pub const WINDOW: u32 = covered(WINDOW_WORDS) as u32;

/// The numbers, from the top downwards, that a window of `words` words surely covers. The top's own block may
/// have just begun, so one word does not count.
pub const fn covered(words: usize) -> u64 {
    (words as u64 - 1) * BLOCK
}

/// What the window says of a number.
#[must_use]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// Not accepted before.
    Fresh,
    /// Accepted before.
    Replayed,
    /// Below what the window covers.
    TooOld,
}

/// Where a number lives: the word, its block number, and its bit.
#[inline]
fn place<W, const N: usize>(words: &[W; N], sequence: u64) -> (&W, u32, u64) {
    const { assert!(N >= 2 && N.is_power_of_two(), "block numbers wrap at 2^32") };
    let block = sequence / BLOCK;
    (&words[(block % N as u64) as usize], block as u32, 1 << (sequence % BLOCK))
}

/// What a word says of a number: refused, or the bits of its block as they are now.
#[inline]
fn bits_of(word: u64, block: u32, bit: u64) -> Result<u64, Verdict> {
    let (held, bits) = ((word >> BLOCK) as u32, word & u64::from(u32::MAX));
    if held == block {
        if bits & bit == 0 { Ok(bits) } else { Err(Verdict::Replayed) }
    } else if block.wrapping_sub(held) < 1 << 31 {
        Ok(0)
    } else {
        Err(Verdict::TooOld)
    }
}

#[inline]
fn below<W: AtomicWord, const N: usize>(top: &W, sequence: u64) -> bool {
    sequence == 0 || sequence.saturating_add(covered(N)) <= top.load_acquire()
}

/// What the window says of a number that is not authenticated yet. Changes nothing, and promises nothing: after
/// opening, [`accept`] decides.
#[inline]
pub fn check<W: AtomicWord, const N: usize>(top: &W, words: &[W; N], sequence: u64) -> Verdict {
    if below::<W, N>(top, sequence) {
        return Verdict::TooOld;
    }
    let (word, block, bit) = place(words, sequence);
    match bits_of(word.load_acquire(), block, bit) {
        Ok(_) => Verdict::Fresh,
        Err(refused) => refused,
    }
}

/// Accepts the number of an authentic packet: [`Verdict::Fresh`] exactly once for each number, on whatever core.
#[inline]
pub fn accept<W: AtomicWord, const N: usize>(top: &W, words: &[W; N], sequence: u64) -> Verdict {
    if below::<W, N>(top, sequence) {
        return Verdict::TooOld;
    }
    let (word, block, bit) = place(words, sequence);
    let mut seen = word.load_acquire();
    loop {
        let bits = match bits_of(seen, block, bit) {
            Ok(bits) => bits,
            Err(refused) => return refused,
        };
        match word.exchange(seen, u64::from(block) << BLOCK | bits | bit) {
            Ok(_) => break,
            Err(now) => seen = now,
        }
    }
    // Most packets of several cores lie below the top: the read spares them a locked operation.
    if top.load_acquire() < sequence {
        top.raise(sequence);
    }
    Verdict::Fresh
}

/// A window as it was: `words` hold `top` and every number that was accepted before the call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot<const N: usize> {
    /// Highest number accepted; a word may hold a higher one, whose core had not raised the top yet.
    pub top: u64,
    /// The words, as [`merge`] takes them.
    pub words: [u64; N],
}

/// Reads a window that other cores go on using.
#[must_use]
pub fn snapshot<W: AtomicWord, const N: usize>(top: &W, words: &[W; N]) -> Snapshot<N> {
    // The top first: a core raises it after it has set its bit, so that the words read below hold it.
    let top = top.load_acquire();
    Snapshot { top, words: core::array::from_fn(|index| words[index].load_acquire()) }
}

/// The window of an SA's hot state, as it is now.
#[must_use]
pub fn snapshot_of(hot: &HotIn) -> Snapshot<WINDOW_WORDS> {
    snapshot(&hot.top, &hot.window)
}

/// Adds what a partner's word `theirs` at `index` holds: numbers of the same block are joined, a newer block (RFC
/// 1982) takes the place of an older one, an older one adds nothing. For the union of two windows merge every word
/// and [`raise_top`] to the partner's.
///
/// Once it has returned, no core accepts a number that `theirs` holds. A word in which nothing was ever accepted, one
/// whose block does not belong to `index`, and an `index` beyond the window change nothing.
pub fn merge<W: AtomicWord, const N: usize>(words: &[W; N], index: usize, theirs: u64) {
    const { assert!(N >= 2 && N.is_power_of_two(), "block numbers wrap at 2^32") };
    let Some(word) = words.get(index) else { return };
    let (block, bits) = ((theirs >> BLOCK) as u32, theirs & u64::from(u32::MAX));
    if bits == 0 || block as usize % N != index {
        return;
    }
    let mut seen = word.load_acquire();
    loop {
        // An older block is refused by its newer one already.
        let Ok(ours) = bits_of(seen, block, 0) else { return };
        if ours | bits == ours {
            return;
        }
        match word.exchange(seen, u64::from(block) << BLOCK | ours | bits) {
            Ok(_) => return,
            Err(now) => seen = now,
        }
    }
}

/// Raises the top to `value`; a lower one changes nothing.
pub fn raise_top<W: AtomicWord>(top: &W, value: u64) {
    if top.load_acquire() < value {
        top.raise(value);
    }
}

/// Counts every number up to `last` as accepted (F40: what lay on disk covers them; F24: a jump). Once it has
/// returned, [`check`] and [`accept`] refuse each of them; what the window says of higher numbers stays as it was,
/// except that they make room as after an accepted number `last`.
pub fn see_all_up_to<W: AtomicWord, const N: usize>(top: &W, words: &[W; N], last: u64) {
    if last == 0 {
        return;
    }
    let newest = last / BLOCK;
    // Everything up to and including `last`, of its own block.
    let begun = u64::from(u32::MAX) >> (BLOCK - 1 - last % BLOCK);
    for back in 0..N as u64 {
        let Some(block) = newest.checked_sub(back) else { break };
        let bits = if back == 0 { begun } else { u64::from(u32::MAX) };
        merge(words, (block % N as u64) as usize, u64::from(block as u32) << BLOCK | bits);
    }
    raise_top(top, last);
}

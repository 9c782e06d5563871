//! What a worker goes by in one round.

use std::sync::atomic::Ordering;
use tandem_shm::{Handling, HotHeader, ROLE_ACTIVE};

/// Role and handling (F18), read once for a whole round: a packet is handled by one of them from beginning to end,
/// and the pair's thread knows by the echo of the word when nobody works by an older one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Duty {
    active: bool,
    handling: Handling,
    word: u64,
}

impl Duty {
    /// As the pair's thread has said by now.
    #[inline]
    #[must_use]
    pub fn read(header: &HotHeader) -> Self {
        // The role after the handling: who has worked by a word also has the role that was stored before it.
        let word = header.handling.load(Ordering::Acquire);
        let active = header.role.load(Ordering::Acquire) == ROLE_ACTIVE;
        Self { active, handling: Handling::of_word(word), word }
    }

    /// Is traffic carried at all?
    #[inline]
    #[must_use]
    pub fn carries(self) -> bool {
        self.active && self.handling != Handling::Halted
    }

    /// Do numbers wait for the partner, inbound to be acknowledged (F9), outbound for the lease (F14)?
    #[inline]
    #[must_use]
    pub fn is_strict(self) -> bool {
        // What is not known to be alone is not handled as alone.
        self.handling != Handling::Alone
    }

    /// The handling word that it comes from.
    #[must_use]
    pub fn word(self) -> u64 {
        self.word
    }
}

//! Wakes the pair thread.

use nix::sys::eventfd::{EfdFlags, EventFd};
use std::os::fd::{AsFd, BorrowedFd};
use tandem_shm::Bell as Sleeper;

/// Wakes the pair thread out of its sleep. Whoever has something for it makes that visible first (marks a slot, queues
/// a command) and rings then.
#[derive(Debug)]
pub struct Bell {
    sleeper: Sleeper,
    event: EventFd,
}

impl Bell {
    /// A bell that nobody listens to yet.
    ///
    /// # Errors
    /// If the kernel gives no event descriptor.
    pub fn new() -> nix::Result<Self> {
        let event = EventFd::from_value_and_flags(0, EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC)?;
        Ok(Self { sleeper: Sleeper::new(), event })
    }

    /// Wakes the thread if it sleeps, or is about to: cheap otherwise, for workers. What was stored before is seen by
    /// the thread now or before it sleeps.
    #[inline]
    pub fn ring_if_asleep(&self) {
        self.sleeper.ring(|| self.ring());
    }

    /// Wakes the thread, or keeps it from its next sleep.
    pub fn ring(&self) {
        // Full means that it is rung already.
        let _ = self.event.write(1);
    }

    /// The thread is about to sleep: it looks once more for work after this, and sleeps only without any.
    pub fn doze(&self) {
        self.sleeper.doze();
    }

    /// The thread is awake again; what rang until now is forgotten, as it looks at everything next.
    pub fn wake(&self, rang: bool) {
        self.sleeper.wake();
        if rang {
            // Nothing in it is fine.
            let _ = self.event.read();
        }
    }
}

impl AsFd for Bell {
    /// Readable once it has rung.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

    fn is_ringing(bell: &Bell) -> bool {
        poll(&mut [PollFd::new(bell.as_fd(), PollFlags::POLLIN)], PollTimeout::ZERO).unwrap() == 1
    }

    #[test]
    fn workers_ring_only_while_the_thread_sleeps_and_others_always() {
        let bell = Bell::new().unwrap();
        bell.ring_if_asleep();
        assert!(!is_ringing(&bell));
        bell.doze();
        bell.ring_if_asleep();
        assert!(is_ringing(&bell));
        bell.wake(true);
        assert!(!is_ringing(&bell));
        bell.ring();
        assert!(is_ringing(&bell));
    }
}

//! The interfaces that a worker can have, behind one type: AF_XDP, or memory.

use std::os::fd::BorrowedFd;
use tandem_xsk::{Batch, FreeList, MemPort, Port, PortStatistics, ReplayPort, XskPort};

/// One queue of one interface.
#[derive(Debug)]
pub enum AnyPort {
    /// An AF_XDP socket.
    Xsk(XskPort),
    /// A wire in memory.
    Memory(MemPort),
    /// A source of recorded packets and a sink.
    Replay(ReplayPort),
}

macro_rules! each {
    ($self:expr, $port:ident => $call:expr) => {
        match $self {
            AnyPort::Xsk($port) => $call,
            AnyPort::Memory($port) => $call,
            AnyPort::Replay($port) => $call,
        }
    };
}

impl AnyPort {
    /// Closes it; its frames go back to `free` where that is certain to be safe.
    pub fn drain(self, free: &mut FreeList) {
        match self {
            AnyPort::Xsk(port) => {
                port.drain(free);
            }
            AnyPort::Memory(port) => port.drain(free),
            AnyPort::Replay(port) => port.drain(free),
        }
    }
}

impl Port for AnyPort {
    #[inline]
    fn receive(&mut self, batch: &mut Batch) -> usize {
        each!(self, port => port.receive(batch))
    }

    #[inline]
    fn transmit(&mut self, batch: &mut Batch) -> usize {
        each!(self, port => port.transmit(batch))
    }

    #[inline]
    fn reclaim(&mut self, free: &mut FreeList) -> usize {
        each!(self, port => port.reclaim(free))
    }

    #[inline]
    fn refill(&mut self, free: &mut FreeList) -> usize {
        each!(self, port => port.refill(free))
    }

    #[inline]
    fn wake_transmit(&mut self) -> bool {
        each!(self, port => port.wake_transmit())
    }

    #[inline]
    fn wake_receive(&mut self) -> bool {
        each!(self, port => port.wake_receive())
    }

    #[inline]
    fn transmit_pending(&self) -> usize {
        each!(self, port => port.transmit_pending())
    }

    fn pollable(&self) -> Option<BorrowedFd<'_>> {
        each!(self, port => port.pollable())
    }

    fn statistics(&self) -> PortStatistics {
        each!(self, port => port.statistics())
    }
}

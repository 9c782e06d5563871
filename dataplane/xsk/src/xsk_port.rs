//! A queue of a network interface through an AF_XDP socket.

use crate::frame::Frame;
use crate::lending::{Borrower, Purpose};
use crate::port::{Batch, Port, PortStatistics};
use crate::ring::{Consumer, Producer};
use crate::socket::{MappedRing, Socket};
use crate::{Error, FreeList, Umem};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::time::Duration;

/// Shortest frame that can be sent: an Ethernet header. The kernel never completes an empty descriptor.
const SHORTEST: usize = 14;

/// System calls that one wake-up makes at most. In copy mode a call sends some 32 packets, so this is
/// four bursts; what is left waits for the worker's next round.
const KICKS: u32 = 8;

/// How long `drain` waits for transmissions to complete.
const DRAIN_TRIES: u32 = 100;
const DRAIN_PAUSE: Duration = Duration::from_millis(1);

/// Whether the driver may work on the frames directly.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ZeroCopy {
    /// Where the driver can. The first socket of a UMEM decides for all of them.
    #[default]
    Auto,
    /// Or not at all: opening fails where the driver cannot.
    Require,
    /// Never: the kernel copies every packet.
    Never,
}

/// What an AF_XDP socket is opened on.
#[derive(Clone, Debug)]
pub struct SocketConfig {
    /// Index of the interface, in the network namespace of the calling thread.
    pub ifindex: u32,
    /// Receive and transmit queue.
    pub queue: u32,
    /// Descriptors in each of the four rings: a power of two from 32 to 32768, not below the ring size of
    /// the network card. A socket holds up to four times as many frames.
    pub ring_size: u32,
    /// Zero-copy or copy mode.
    pub zero_copy: ZeroCopy,
    /// The XDP program runs in generic mode, for drivers without native XDP: implies copy mode.
    pub generic: bool,
}

/// What became of the frames of a closed port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Drained {
    /// Frames that are back in the free list.
    pub returned: usize,
    /// Frames that the kernel, the driver or another holder of the socket may still use; they are never used
    /// again.
    pub withheld: usize,
}

/// One queue of one interface through AF_XDP.
///
/// Dropping it closes the socket and loses the frames in its rings to the UMEM;
/// [`drain`](XskPort::drain) gets them back.
#[derive(Debug)]
pub struct XskPort {
    // The rings come before the socket: their mappings keep it open.
    fill: Producer<MappedRing<u64>>,
    completion: Consumer<MappedRing<u64>>,
    rx: Consumer<MappedRing<libc::xdp_desc>>,
    tx: Producer<MappedRing<libc::xdp_desc>>,
    socket: Arc<Socket>,
    umem: Arc<Umem>,
    borrower: Borrower,
    /// Frames that were not sent for what they are; `reclaim` returns them.
    unsent: Vec<Frame>,
    refused: u64,
    wake_errors: u64,
    zero_copy: bool,
    ifindex: u32,
    queue: u32,
}

impl XskPort {
    /// Opens a socket on a queue and fills its fill ring from `free` before it binds.
    ///
    /// The first socket of a UMEM registers it and decides on zero-copy; later ones, on the same or other
    /// devices and queues, share it, each with its own fill and completion ring. A queue that is still being
    /// taken down (EBUSY) is waited for, up to a second. On failure the frames are back in `free`.
    pub fn open(umem: &Arc<Umem>, free: &mut FreeList, config: &SocketConfig) -> Result<XskPort, Error> {
        if !config.ring_size.is_power_of_two() || !(32..=32768).contains(&config.ring_size) {
            return Err(Error::RingSize(config.ring_size));
        }
        if free.umem() != umem.id() {
            return Err(Error::ForeignFreeList);
        }
        if free.is_empty() {
            return Err(Error::NoFrames);
        }
        raise_memlock_limit();
        let mut sockets = lock(umem);
        let shared = sockets.any();
        let mut port = XskPort::prepare(umem, config, shared.is_none())?;
        port.refill(free);
        let bound = port
            .socket
            .bind(config.ifindex, config.queue, bind_flags(config), shared.as_deref())
            .and_then(|()| {
                port.zero_copy = port.socket.is_zero_copy()?;
                match config.zero_copy {
                    ZeroCopy::Require if !port.zero_copy => {
                        Err(Error::NoZeroCopy { ifindex: config.ifindex, queue: config.queue })
                    }
                    _ => Ok(()),
                }
            });
        match bound {
            Ok(()) => {
                sockets.add(&port.socket);
                drop(sockets);
                Ok(port)
            }
            Err(error) => {
                drop(sockets);
                port.drain(free);
                Err(error)
            }
        }
    }

    /// Makes the socket with its rings, not bound yet.
    fn prepare(umem: &Arc<Umem>, config: &SocketConfig, register: bool) -> Result<XskPort, Error> {
        let socket = Socket::new()?;
        if register {
            socket.register_umem(umem)?;
        }
        let size = config.ring_size;
        socket.make_ring(libc::XDP_UMEM_FILL_RING, size, "setsockopt(XDP_UMEM_FILL_RING)")?;
        socket.make_ring(libc::XDP_UMEM_COMPLETION_RING, size, "setsockopt(XDP_UMEM_COMPLETION_RING)")?;
        socket.make_ring(libc::XDP_RX_RING, size, "setsockopt(XDP_RX_RING)")?;
        socket.make_ring(libc::XDP_TX_RING, size, "setsockopt(XDP_TX_RING)")?;
        let offsets = socket.offsets()?;
        let fill = socket.map_ring(libc::XDP_UMEM_PGOFF_FILL_RING as libc::off_t, &offsets.fr, size)?;
        let completion =
            socket.map_ring(libc::XDP_UMEM_PGOFF_COMPLETION_RING as libc::off_t, &offsets.cr, size)?;
        let rx = socket.map_ring(libc::XDP_PGOFF_RX_RING, &offsets.rx, size)?;
        let tx = socket.map_ring(libc::XDP_PGOFF_TX_RING, &offsets.tx, size)?;
        // SAFETY: the socket was made here, so that nobody else works on its rings. The kernel consumes
        // fill and transmit ring, and produces into the other two.
        let (fill, completion, rx, tx) =
            unsafe { (Producer::new(fill), Consumer::new(completion), Consumer::new(rx), Producer::new(tx)) };
        Ok(XskPort {
            fill,
            completion,
            rx,
            tx,
            socket: Arc::new(socket),
            umem: umem.clone(),
            borrower: umem.lending.register()?,
            unsent: Vec::with_capacity(crate::BURST),
            refused: 0,
            wake_errors: 0,
            zero_copy: false,
            ifindex: config.ifindex,
            queue: config.queue,
        })
    }

    /// The socket, to be put into an XSKMAP. Whoever duplicates it and keeps the duplicate keeps the socket alive
    /// beyond [`drain`](XskPort::drain), which then withholds the frames.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// True where the driver works on the frames directly.
    pub fn is_zero_copy(&self) -> bool {
        self.zero_copy
    }

    /// Index of the interface.
    pub fn ifindex(&self) -> u32 {
        self.ifindex
    }

    /// Receive and transmit queue.
    pub fn queue(&self) -> u32 {
        self.queue
    }

    /// Closes the socket and returns the frames in its rings that nobody else can use any more.
    ///
    /// Waits up to 100 ms for transmissions to complete. Frames are withheld where that is not certain: a
    /// packet that the kernel took but did not complete; everything, where the socket is kept alive by a
    /// duplicate of its descriptor, or works in zero-copy mode (the card gives its frames up
    /// some time after the close, and nothing tells when).
    pub fn drain(mut self, free: &mut FreeList) -> Drained {
        let before = free.len();
        if free.umem() != self.umem.id() {
            return Drained::default();
        }
        for _ in 0..DRAIN_TRIES {
            self.reclaim(free);
            let in_flight = self.umem.lending.lent(&self.borrower, Purpose::Transmit) as u32;
            if in_flight <= self.tx.pending() {
                break;
            }
            std::thread::sleep(DRAIN_PAUSE);
        }
        let XskPort { fill, completion, rx, tx, socket, umem, mut borrower, zero_copy, .. } = self;
        let mut never_sent = Vec::new();
        // SAFETY: in copy mode the kernel takes transmit descriptors in system calls on the socket only.
        // Nobody makes one unless a duplicate exists, and then the addresses are not used below.
        unsafe { tx.for_each_pending(|descriptor| never_sent.push(descriptor.addr)) };
        drop((fill, completion, rx, tx));
        // With the lock held, `open` has no temporary reference to the socket.
        let guard = lock(&umem);
        let closed = Arc::try_unwrap(socket).is_ok_and(Socket::close);
        drop(guard);
        if closed && !zero_copy {
            umem.lending.take_back_all(&mut borrower, Purpose::Receive, |frame| free.push(frame));
            for address in never_sent {
                if let Ok(frame) = umem.lending.take_back(&mut borrower, Purpose::Transmit, address) {
                    free.push(frame);
                }
            }
        }
        let withheld =
            umem.lending.lent(&borrower, Purpose::Receive) + umem.lending.lent(&borrower, Purpose::Transmit);
        umem.lending.retire(borrower);
        Drained { returned: free.len() - before, withheld }
    }
}

impl Port for XskPort {
    #[inline]
    fn receive(&mut self, batch: &mut Batch) -> usize {
        let before = batch.len();
        let room = batch.remaining_capacity() as u32;
        let available = self.rx.available(room).min(room);
        for _ in 0..available {
            let Some(descriptor) = self.rx.pop() else { break };
            let taken = self.umem.lending.take_back(&mut self.borrower, Purpose::Receive, descriptor.addr);
            let Ok(mut frame) = taken else {
                self.refused += 1;
                continue;
            };
            let start = (descriptor.addr % crate::FRAME_SIZE as u64) as usize;
            let whole = descriptor.options & libc::XDP_PKT_CONTD == 0;
            if whole && frame.place(start, descriptor.len as usize) {
                batch.push(frame);
            } else {
                self.refused += 1;
                self.unsent.push(frame);
            }
        }
        if available > 0 {
            self.rx.release();
        }
        batch.len() - before
    }

    #[inline]
    fn transmit(&mut self, batch: &mut Batch) -> usize {
        let count = self.tx.room(batch.len() as u32).min(batch.len() as u32) as usize;
        for frame in batch.drain(..count) {
            let len = frame.len();
            if len < SHORTEST {
                self.refused += 1;
                self.unsent.push(frame);
                continue;
            }
            match self.umem.lending.lend(&mut self.borrower, Purpose::Transmit, frame) {
                Ok(addr) => {
                    // There is room: `count` was bounded by it.
                    self.tx.push(libc::xdp_desc { addr, len: len as u32, options: 0 });
                }
                // Of another UMEM: it cannot be returned to this one's free list.
                Err(_foreign) => self.refused += 1,
            }
        }
        if count > 0 {
            self.tx.publish();
        }
        count
    }

    #[inline]
    fn reclaim(&mut self, free: &mut FreeList) -> usize {
        if free.umem() != self.umem.id() {
            debug_assert!(false, "the free list belongs to another UMEM");
            return 0;
        }
        let before = free.len();
        for frame in self.unsent.drain(..) {
            free.push(frame);
        }
        let done = self.completion.available(u32::MAX);
        for _ in 0..done {
            let Some(address) = self.completion.pop() else { break };
            match self.umem.lending.take_back(&mut self.borrower, Purpose::Transmit, address) {
                Ok(frame) => free.push(frame),
                Err(_) => self.refused += 1,
            }
        }
        if done > 0 {
            self.completion.release();
        }
        free.len() - before
    }

    #[inline]
    fn refill(&mut self, free: &mut FreeList) -> usize {
        let want = u32::try_from(free.len()).unwrap_or(u32::MAX);
        let room = self.fill.room(want).min(want);
        let mut offered = 0;
        for _ in 0..room {
            let Some(mut frame) = free.pop() else { break };
            frame.reset(0);
            match self.umem.lending.lend(&mut self.borrower, Purpose::Receive, frame) {
                Ok(address) => {
                    self.fill.push(address);
                    offered += 1;
                }
                Err(_foreign) => self.refused += 1,
            }
        }
        if offered > 0 {
            self.fill.publish();
        }
        offered
    }

    #[inline]
    fn wake_transmit(&mut self) -> bool {
        let mut pending = self.tx.pending();
        if pending == 0 || !self.tx.memory().needs_wakeup() {
            return false;
        }
        for _ in 0..KICKS {
            let result = self.socket.kick_transmit();
            if result.is_err_and(|error| !is_transient(&error)) {
                self.wake_errors += 1;
                break;
            }
            let left = self.tx.pending();
            // Without progress the completion ring or the device is full: the worker comes back.
            if left == 0 || left == pending {
                break;
            }
            pending = left;
        }
        true
    }

    #[inline]
    fn wake_receive(&mut self) -> bool {
        if !self.fill.memory().needs_wakeup() {
            return false;
        }
        if self.socket.kick_receive().is_err_and(|error| !is_transient(&error)) {
            self.wake_errors += 1;
        }
        true
    }

    #[inline]
    fn transmit_pending(&self) -> usize {
        self.tx.pending() as usize
    }

    fn pollable(&self) -> Option<BorrowedFd<'_>> {
        Some(self.fd())
    }

    fn statistics(&self) -> PortStatistics {
        let own = PortStatistics {
            refused: self.refused,
            wake_errors: self.wake_errors,
            ..PortStatistics::default()
        };
        match self.socket.statistics() {
            Ok(kernel) => PortStatistics {
                rx_dropped: kernel.rx_dropped,
                rx_invalid_descriptors: kernel.rx_invalid_descs,
                tx_invalid_descriptors: kernel.tx_invalid_descs,
                rx_ring_full: kernel.rx_ring_full,
                rx_fill_ring_empty: kernel.rx_fill_ring_empty_descs,
                tx_ring_empty: kernel.tx_ring_empty_descs,
                ..own
            },
            Err(_) => own,
        }
    }
}

/// Errors that a wake-up meets in ordinary operation: more than one call's worth was pending, the
/// device's queue is full, memory for a packet is short, or a signal came.
fn is_transient(error: &std::io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::EBUSY | libc::ENOBUFS | libc::EINTR))
}

fn bind_flags(config: &SocketConfig) -> u16 {
    let mode = match config.zero_copy {
        ZeroCopy::Never => libc::XDP_COPY,
        _ if config.generic => libc::XDP_COPY,
        ZeroCopy::Auto => 0,
        ZeroCopy::Require => libc::XDP_ZEROCOPY,
    };
    mode | libc::XDP_USE_NEED_WAKEUP
}

fn lock(umem: &Umem) -> MutexGuard<'_, crate::socket::Sockets> {
    // A panic while the lock is held leaves the list whole: each change is one call.
    umem.sockets.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Kernels before 5.11 count UMEMs against RLIMIT_MEMLOCK. Where the limit may not be raised, a process
/// with CAP_IPC_LOCK does not need it, and otherwise the registration itself says what is wrong.
fn raise_memlock_limit() {
    let unlimited = libc::rlimit { rlim_cur: libc::RLIM_INFINITY, rlim_max: libc::RLIM_INFINITY };
    // SAFETY: the structure lives for the call.
    unsafe { libc::setrlimit(libc::RLIMIT_MEMLOCK, &raw const unlimited) };
}

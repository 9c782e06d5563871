//! The plain forwarder on xsk-rs, an AF_XDP implementation that shares nothing with Tandem's.
//!
//! A descriptor of xsk-rs is a number that anybody may copy, so that its functions are unsafe: here every
//! descriptor is in one place at a time, in one of the rings of one UMEM or in one vector of one thread.
#![allow(unsafe_code)]

use std::num::NonZeroU32;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result, ensure};
use xsk_rs::config::{BindFlags, Interface, LibxdpFlags, SocketConfig, UmemConfig};
use xsk_rs::{CompQueue, FillQueue, FrameDesc, RxQueue, Socket, TxQueue, Umem};

/// Frames in circulation.
const FRAMES: u32 = 2048;
/// Entries of each ring: more than there are frames, because the kernel tells late what it has taken.
const RING: u32 = 4096;
/// Frames handled at once.
const BATCH: usize = 64;
/// The kernel takes 32 descriptors of a copying socket in one call: calls until a batch is out, with one to
/// spare.
const CALLS: usize = BATCH / 32 + 1;

/// One socket with its four rings.
struct Rings {
    tx: TxQueue,
    rx: RxQueue,
    fill: FillQueue,
    completion: CompQueue,
}

fn umem() -> Result<(Umem, Vec<FrameDesc>)> {
    let ring = RING.try_into()?;
    let config = UmemConfig::builder().fill_queue_size(ring).comp_queue_size(ring).build()?;
    let frames = NonZeroU32::new(FRAMES).context("no frames")?;
    Umem::new(config, frames, false).context("making a UMEM")
}

/// Opens queue 0 of a device of the caller's namespace.
fn open(umem: &Umem, device: &str) -> Result<Rings> {
    let ring = RING.try_into()?;
    let config = SocketConfig::builder()
        .rx_queue_size(ring)
        .tx_queue_size(ring)
        .libxdp_flags(LibxdpFlags::XSK_LIBXDP_FLAGS_INHIBIT_PROG_LOAD)
        .bind_flags(BindFlags::XDP_USE_NEED_WAKEUP | BindFlags::XDP_COPY)
        .build();
    let interface: Interface = device.parse()?;
    // SAFETY: no XDP program is loaded by the socket (XSK_LIBXDP_FLAGS_INHIBIT_PROG_LOAD), which is what the
    // function asks of those that share a UMEM.
    let (tx, rx, rings) = unsafe { Socket::new(config, umem, &interface, 0) }
        .with_context(|| format!("AF_XDP socket on {device}"))?;
    let (fill, completion) = rings.context("the device's queue is taken already")?;
    Ok(Rings { tx, rx, fill, completion })
}

impl Rings {
    /// Has the kernel send what is in the transmit ring, as far as a batch goes.
    fn flush(&mut self) -> Result<()> {
        for _ in 0..CALLS {
            if !self.tx.needs_wakeup() || self.tx.nb_free_exact() == RING {
                break;
            }
            self.tx.wakeup().context("sendto on an AF_XDP socket")?;
        }
        Ok(())
    }
}

/// Passes every frame from one device to another, unread: what AF_XDP alone costs.
pub struct Forwarder {
    inside: Rings,
    outside: Rings,
    /// Owns the memory of both.
    _umem: Umem,
}

impl Forwarder {
    /// Opens two devices of the caller's namespace over one UMEM.
    pub fn open(from: &str, to: &str) -> Result<Self> {
        let (umem, frames) = umem()?;
        let mut inside = open(&umem, from)?;
        let outside = open(&umem, to)?;
        // SAFETY: the frames are of this UMEM and nowhere else.
        let filled = unsafe { inside.fill.produce(&frames) };
        ensure!(filled == frames.len(), "the fill ring took {filled} frames");
        Ok(Self { inside, outside, _umem: umem })
    }

    /// The socket that frames are to be put into.
    pub fn socket(&self) -> BorrowedFd<'_> {
        // SAFETY: the queue keeps the socket open as long as `self` is borrowed.
        unsafe { BorrowedFd::borrow_raw(self.inside.rx.fd().as_raw_fd()) }
    }

    /// Forwards until `ended`.
    pub fn run(&mut self, ended: &AtomicBool) -> Result<()> {
        let mut batch = [FrameDesc::default(); BATCH];
        while !ended.load(Ordering::Relaxed) {
            // SAFETY: the ring is of this UMEM.
            let received = unsafe { self.inside.rx.consume(&mut batch) };
            if received > 0 {
                // SAFETY: the frames were received just now and are in no other ring.
                let sent = unsafe { self.outside.tx.produce(&batch[..received]) };
                ensure!(sent == received, "the transmit ring took {sent} of {received} frames");
            }
            self.outside.flush()?;
            // SAFETY: the ring is of this UMEM.
            let complete = unsafe { self.outside.completion.consume(&mut batch) };
            // SAFETY: the kernel has given these frames back and they are in no other ring.
            let filled = unsafe { self.inside.fill.produce(&batch[..complete]) };
            ensure!(filled == complete, "the fill ring took {filled} of {complete} frames");
            if self.inside.fill.needs_wakeup() {
                let socket = self.inside.rx.fd_mut();
                self.inside.fill.wakeup(socket, 0).context("waking the fill ring")?;
            }
        }
        Ok(())
    }
}

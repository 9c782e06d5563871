//! Sending crafted frames through a packet socket, many in one system call.

use crate::lab::Namespace;
use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, LinkAddr, MsgFlags, MultiHeaders, SockFlag, SockType, bind, sendmmsg, socket,
};
use std::io::IoSlice;
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

/// Frames in one system call.
const BURST: usize = 32;

/// The link-layer address of a device of the calling thread's namespace. Its protocol is 0, so that a
/// socket bound to it sends and receives nothing.
///
/// # Errors
/// Where there is no such device.
pub fn link_address(device: &str) -> Result<LinkAddr> {
    nix::ifaddrs::getifaddrs()?
        .filter(|interface| interface.interface_name == device)
        .find_map(|interface| interface.address?.as_link_addr().copied())
        .with_context(|| format!("no device {device}"))
}

/// What [`send`] did.
#[derive(Clone, Copy, Debug)]
pub struct Sent {
    /// Frames that the kernel took.
    pub frames: u64,
    /// Time it took.
    pub elapsed: Duration,
}

impl Sent {
    /// Frames a second.
    #[must_use]
    pub fn rate(&self) -> f64 {
        crate::report::count(self.frames) / self.elapsed.as_secs_f64().max(1e-9)
    }
}

/// Sends every frame once, in order, at most `per_second` a second (0: as fast as it goes). A full device
/// queue is waited for, so that every frame is sent.
///
/// # Errors
/// Where the socket cannot be made or sending fails for another reason than a full queue.
pub fn send(namespace: &Namespace, device: &str, frames: &[Vec<u8>], per_second: u32) -> Result<Sent> {
    namespace.enter(|| {
        let socket = socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, None)?;
        bind(socket.as_raw_fd(), &link_address(device)?).context("binding the packet socket")?;
        let start = Instant::now();
        let mut sent = 0;
        while sent < frames.len() {
            if per_second > 0 {
                let due = Duration::from_secs_f64(crate::report::count(sent) / f64::from(per_second));
                std::thread::sleep(due.saturating_sub(start.elapsed()));
            }
            let burst = &frames[sent..(sent + BURST).min(frames.len())];
            match send_burst(socket.as_raw_fd(), burst) {
                Ok(0) | Err(Errno::ENOBUFS | Errno::EAGAIN | Errno::EINTR) => {
                    std::thread::sleep(Duration::from_micros(200));
                }
                Ok(count) => sent += count,
                Err(error) => {
                    return Err(error).with_context(|| format!("sending frame {sent} of {}", frames.len()));
                }
            }
        }
        Ok(Sent { frames: sent as u64, elapsed: start.elapsed() })
    })
}

fn send_burst(socket: std::os::fd::RawFd, frames: &[Vec<u8>]) -> nix::Result<usize> {
    let slices: Vec<[IoSlice<'_>; 1]> = frames.iter().map(|frame| [IoSlice::new(frame)]).collect();
    let addresses: Vec<Option<LinkAddr>> = vec![None; frames.len()];
    let mut headers = MultiHeaders::<LinkAddr>::preallocate(frames.len(), None);
    let results = sendmmsg(socket, &mut headers, &slices, addresses, [], MsgFlags::empty())?;
    Ok(results.count())
}

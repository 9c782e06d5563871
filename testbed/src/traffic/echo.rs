//! One UDP datagram to each of many addresses, each answered from the address that it went to.

use crate::lab::Namespace;
use anyhow::{Context, Result};
use nix::cmsg_space;
use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, SockaddrIn, recvmsg, sendmsg, setsockopt, sockopt,
};
use std::collections::HashMap;
use std::io::{IoSlice, IoSliceMut};
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// A host that answers datagrams to any address that it holds.
#[derive(Debug)]
pub struct Echo {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<()>>>,
}

impl Echo {
    /// Starts answering on a port.
    ///
    /// # Errors
    /// Where the socket cannot be made.
    pub fn start(namespace: &Namespace, port: u16) -> Result<Self> {
        let socket = namespace.enter(|| {
            let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port)).context("binding the echo")?;
            setsockopt(&socket, sockopt::Ipv4PacketInfo, &true)?;
            setsockopt(&socket, sockopt::RcvBufForce, &(8 << 20))?;
            socket.set_read_timeout(Some(Duration::from_millis(50)))?;
            Ok(socket)
        })?;
        let stop = Arc::new(AtomicBool::new(false));
        let thread = std::thread::spawn({
            let stop = Arc::clone(&stop);
            move || answer(&socket, &stop)
        });
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn answer(socket: &UdpSocket, stop: &AtomicBool) -> Result<()> {
    let mut buffer = [0; 2048];
    let mut control = cmsg_space!(libc::in_pktinfo);
    while !stop.load(Ordering::Relaxed) {
        let mut parts = [IoSliceMut::new(&mut buffer)];
        let Ok(message) =
            recvmsg::<SockaddrIn>(socket.as_raw_fd(), &mut parts, Some(&mut control), MsgFlags::empty())
        else {
            continue;
        };
        let (length, from) = (message.bytes, message.address);
        let to = message.cmsgs()?.find_map(|control| match control {
            ControlMessageOwned::Ipv4PacketInfo(info) => Some(info),
            _ => None,
        });
        let (Some(from), Some(mut to)) = (from, to) else { continue };
        // Answer from the address that was asked, by whatever interface routing says.
        to.ipi_spec_dst = to.ipi_addr;
        to.ipi_ifindex = 0;
        // A full queue loses the answer, as on any host; the asker asks again.
        let _ = sendmsg(
            socket.as_raw_fd(),
            &[IoSlice::new(&buffer[..length])],
            &[ControlMessage::Ipv4PacketInfo(&to)],
            MsgFlags::empty(),
            Some(&from),
        );
    }
    Ok(())
}

/// Sends `rounds` datagrams to each address from one socket, `per_second` a second, and counts the answers of each.
///
/// # Errors
/// Where the socket cannot be made.
pub fn ask(
    namespace: &Namespace,
    from: Ipv4Addr,
    port: u16,
    addresses: &[Ipv4Addr],
    rounds: u32,
    per_second: u32,
) -> Result<HashMap<Ipv4Addr, u32>> {
    let socket = namespace.enter(|| {
        let socket = UdpSocket::bind((from, 0)).context("binding the asker")?;
        setsockopt(&socket, sockopt::RcvBufForce, &(8 << 20))?;
        socket.set_read_timeout(Some(Duration::from_millis(50)))?;
        Ok(socket)
    })?;
    let receiver = socket.try_clone()?;
    let done = Arc::new(AtomicBool::new(false));
    let answers = std::thread::spawn({
        let done = Arc::clone(&done);
        move || {
            let mut answers: HashMap<Ipv4Addr, u32> = HashMap::new();
            let mut buffer = [0; 2048];
            while !done.load(Ordering::Relaxed) {
                if let Ok((length, SocketAddr::V4(source))) = receiver.recv_from(&mut buffer)
                    && buffer[..length].starts_with(&source.ip().octets())
                {
                    *answers.entry(*source.ip()).or_default() += 1;
                }
            }
            answers
        }
    });
    let start = Instant::now();
    let mut sent = 0_u32;
    for round in 0..rounds {
        for address in addresses {
            let due = Duration::from_secs_f64(f64::from(sent) / f64::from(per_second));
            std::thread::sleep(due.saturating_sub(start.elapsed()));
            let mut payload = address.octets().to_vec();
            payload.extend(round.to_be_bytes());
            payload.resize(64, 0x55);
            socket.send_to(&payload, (*address, port)).with_context(|| format!("sending to {address}"))?;
            sent += 1;
        }
    }
    std::thread::sleep(Duration::from_secs(1));
    done.store(true, Ordering::Relaxed);
    answers.join().map_err(|_| anyhow::anyhow!("the receiver panicked"))
}

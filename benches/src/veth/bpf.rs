//! The XDP programs around the device under test.

use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result};
use aya::maps::{Array, PerCpuArray, XskMap};
use aya::programs::{Xdp, xdp::XdpMode};
use aya::{TestRun, TestRunAttrs, TestRunOptions};

static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/veth.bpf.o"));

/// A program on an interface; dropping it takes it off.
pub struct Attached(aya::Ebpf);

/// Frames that arrived at the sink, by what they are. The order is that of the program's map.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Arrived {
    /// IPv4 with UDP.
    pub udp: u64,
    /// IPv4 with ESP.
    pub esp: u64,
    /// Everything else, ARP for instance.
    pub other: u64,
}

impl std::ops::Sub for Arrived {
    type Output = Self;

    fn sub(self, before: Self) -> Self {
        Self { udp: self.udp - before.udp, esp: self.esp - before.esp, other: self.other - before.other }
    }
}

/// What an object's programs counted so far.
fn counts(object: &aya::Ebpf) -> Result<Arrived> {
    let counts: PerCpuArray<_, u64> = object.map("COUNTS").context("no counter map")?.try_into()?;
    let count = |class: u32| -> Result<u64> { Ok(counts.get(&class, 0)?.iter().sum()) };
    Ok(Arrived { udp: count(0)?, esp: count(1)?, other: count(2)? })
}

/// Loads a program.
fn load<'a>(object: &'a mut aya::Ebpf, name: &str) -> Result<&'a mut Xdp> {
    let program: &mut Xdp = object.program_mut(name).context("no such XDP program")?.try_into()?;
    program.load().with_context(|| format!("loading {name}"))?;
    Ok(program)
}

impl Attached {
    fn attach(program: &str, device: &str) -> Result<Self> {
        let mut object = aya::Ebpf::load(OBJECT).context("loading the XDP programs")?;
        load(&mut object, program)?
            .attach(device, XdpMode::Driver)
            .with_context(|| format!("attaching {program} to {device}"))?;
        Ok(Self(object))
    }

    /// Puts the IPv4 packets that `device` (of the caller's namespace) receives into an AF_XDP socket.
    pub fn to_socket(device: &str, socket: BorrowedFd<'_>) -> Result<Self> {
        let mut attached = Self::attach("to_socket", device)?;
        let mut sockets: XskMap<_> = attached.0.map_mut("SOCKETS").context("no socket map")?.try_into()?;
        sockets.set(0, socket.as_raw_fd(), 0).context("entering the socket")?;
        Ok(attached)
    }

    /// Counts and drops what `device` (of the caller's namespace) receives.
    pub fn count_and_drop(device: &str) -> Result<Self> {
        Self::attach("count_and_drop", device)
    }

    /// What was counted so far.
    pub fn arrived(&self) -> Result<Arrived> {
        counts(&self.0)
    }
}

const TRANSMIT: &str = "count_and_transmit";

/// The kernel's own packet generator: it runs a program on copies of a frame and sends them.
///
/// It makes no socket buffers, so that one core offers several times what a copying AF_XDP socket takes from a
/// sender, and the device under test is the limit.
pub struct Generator {
    object: aya::Ebpf,
    /// `struct xdp_md`.
    context: [u8; 24],
    /// The kernel knows receive queues only of a veth that has a program itself.
    _receiver: Attached,
}

/// Frames of one call, which costs the kernel some 25 ms to set up and takes a tenth of a second, and of one
/// batch in it.
const CALL: u32 = 131_072;
const BATCH: u32 = 64;

impl Generator {
    /// Sends by `device` of the caller's namespace.
    pub fn new(device: &str) -> Result<Self> {
        let mut object = aya::Ebpf::load(OBJECT).context("loading the XDP programs")?;
        load(&mut object, TRANSMIT)?;
        let receiver = Attached::count_and_drop(device)?;
        let mut context = [0; 24];
        context[12..16].copy_from_slice(&nix::net::if_::if_nametoindex(device)?.to_ne_bytes());
        Ok(Self { object, context, _receiver: receiver })
    }

    /// Sends `rate` frames a second from now on, or as many as it can.
    pub fn set_rate(&mut self, rate: Option<f64>) -> Result<()> {
        let mut pace: Array<_, [u64; 2]> = self.object.map_mut("PACE").context("no pace map")?.try_into()?;
        let gap = rate.map_or(0.0, |rate| 1e9 / rate) as u64;
        pace.set(0, [gap, 0], 0).context("setting the pace")
    }

    /// Frames sent so far.
    pub fn offered(&self) -> Result<u64> {
        Ok(counts(&self.object)?.udp)
    }

    /// Sends copies of `frame` until `ended`. To be called in the namespace of the device.
    pub fn run(&self, frame: &[u8], ended: &AtomicBool) -> Result<()> {
        let mut context = self.context;
        context[4..8].copy_from_slice(&u32::try_from(frame.len())?.to_ne_bytes());
        let program: &Xdp = self.object.program(TRANSMIT).context("no such XDP program")?.try_into()?;
        while !ended.load(Ordering::Relaxed) {
            let options = TestRunOptions {
                data_in: Some(frame),
                ctx_in: Some(&context),
                repeat: CALL,
                attrs: TestRunAttrs::new().xdp_live_frames(BATCH),
                ..TestRunOptions::new()
            };
            program.test_run(options).context("sending frames by BPF_PROG_TEST_RUN")?;
        }
        Ok(())
    }
}

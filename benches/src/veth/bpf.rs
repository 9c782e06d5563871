//! The XDP programs around the device under test.

use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result};
use aya::maps::{Array, MapData, PerCpuArray, XskMap};
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
/// Frames of one call. Between two the kernel needs some 25 ms, so that a measurement should be within one.
const CALL: u32 = 1 << 22;
/// Frames that go together.
const BATCH: u32 = 32;

/// `struct pace` of the program: gap in nanoseconds, time at which the next frame is due, has it ended?
type Pace = [u64; 3];

/// The kernel's own packet generator: it runs a program on copies of a frame and sends them.
///
/// It makes no socket buffers, so that one core offers several times what a copying AF_XDP socket takes from a
/// sender, and the device under test is the limit.
pub struct Generator {
    object: aya::Ebpf,
    pace: Mutex<Array<MapData, Pace>>,
    /// `struct xdp_md`.
    context: [u8; 24],
    /// The kernel knows receive queues only of a veth that has a program itself.
    _receiver: Attached,
}

impl Generator {
    /// Sends by `device` of the caller's namespace.
    pub fn new(device: &str) -> Result<Self> {
        let mut object = aya::Ebpf::load(OBJECT).context("loading the XDP programs")?;
        load(&mut object, TRANSMIT)?;
        let pace = Mutex::new(object.take_map("PACE").context("no pace map")?.try_into()?);
        let receiver = Attached::count_and_drop(device)?;
        let mut context = [0; 24];
        context[12..16].copy_from_slice(&nix::net::if_::if_nametoindex(device)?.to_ne_bytes());
        Ok(Self { object, pace, context, _receiver: receiver })
    }

    /// From now on `rate` frames a second are sent, or as many as can be.
    pub fn set_rate(&self, rate: Option<f64>) -> Result<()> {
        self.set_pace([rate.map_or(0.0, |rate| 1e9 / rate) as u64, 0, 0])
    }

    /// Ends [`Generator::run`] on another thread.
    pub fn end(&self) -> Result<()> {
        self.set_pace([0, 0, 1])
    }

    fn set_pace(&self, pace: Pace) -> Result<()> {
        self.pace.lock().unwrap_or_else(PoisonError::into_inner).set(0, pace, 0).context("setting the pace")
    }

    fn has_ended(&self) -> Result<bool> {
        let [_, _, ended] = self.pace.lock().unwrap_or_else(PoisonError::into_inner).get(&0, 0)?;
        Ok(ended != 0)
    }

    /// Frames sent so far.
    pub fn offered(&self) -> Result<u64> {
        Ok(counts(&self.object)?.udp)
    }

    /// Sends copies of `frame` until [`Generator::end`]. To be called in the namespace of the device.
    pub fn run(&self, frame: &[u8]) -> Result<()> {
        let mut context = self.context;
        context[4..8].copy_from_slice(&u32::try_from(frame.len())?.to_ne_bytes());
        let program: &Xdp = self.object.program(TRANSMIT).context("no such XDP program")?.try_into()?;
        while !self.has_ended()? {
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

//! The loaded program of one interface, and its maps.

use crate::layout::{MAX_QUEUES, RawSettings, SIDE_INSIDE, SIDE_OUTSIDE};
use crate::link::{self, Attachment, Mode};
use crate::sets::{Addresses, Protected, gone, map_error, take};
use crate::{Error, Prefix, SteerCounter};
use aya::maps::{Array, IterableMap as _, Map, MapData, MapError, PerCpuArray, XskMap};
use aya::programs::{ProgramError, TestRun as _, TestRunOptions, Xdp};
use aya::{Ebpf, include_bytes_aligned};
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::path::Path;

/// The compiled object (ELF), for other loaders: libbpf, libxdp, bpftool.
pub const OBJECT: &[u8] = include_bytes_aligned!(concat!(env!("OUT_DIR"), "/steer.bpf.o"));

const PROGRAM: &str = "steer";

/// Octets that a test run may add to a frame. The program adds none.
const TEST_RUN_ROOM: usize = 256;

/// Which side of the gateway an interface is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    /// Packets with a destination in a protected prefix are steered, to be sealed.
    Inside,
    /// Packets in clear with a source in a protected prefix are steered, to be judged.
    Outside,
}

/// What the program of an interface has to know. May be set again at any time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Settings {
    /// The side.
    pub side: Side,
    /// MAC address of the interface. Frames for another one pass, so it has to follow the interface's.
    pub own_mac: [u8; 6],
    /// The virtual MAC address that the two nodes share.
    pub virtual_mac: Option<[u8; 6]>,
}

impl From<&Settings> for RawSettings {
    fn from(settings: &Settings) -> Self {
        Self {
            side: match settings.side {
                Side::Inside => SIDE_INSIDE,
                Side::Outside => SIDE_OUTSIDE,
            },
            has_virtual_mac: u8::from(settings.virtual_mac.is_some()),
            reserved: [0; 2],
            own_mac: settings.own_mac,
            virtual_mac: settings.virtual_mac.unwrap_or_default(),
        }
    }
}

/// Switches the role of one program. It has a descriptor of its own and outlives [`SteerProgram`]; then it switches nothing
/// that anybody sees.
pub struct RoleSwitch(Array<MapData, u32>);

impl RoleSwitch {
    const MAP: &str = "role";

    /// Active or standby, by one system call; the next frame is judged by it.
    ///
    /// # Errors
    /// [`Error::Map`].
    pub fn set(&mut self, active: bool) -> Result<(), Error> {
        self.0.set(0, u32::from(active), 0).map_err(map_error(Self::MAP, "written"))
    }

    fn duplicate(&self) -> Result<Self, Error> {
        let failed = map_error(Self::MAP, "opened again");
        let descriptor = self.0.map().fd().as_fd().try_clone_to_owned();
        let descriptor = descriptor.map_err(|error| failed(MapError::IoError(error)))?;
        let map = MapData::from_fd(descriptor).map_err(&failed)?;
        Array::try_from(Map::Array(map)).map(Self).map_err(&failed)
    }
}

impl std::fmt::Debug for RoleSwitch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RoleSwitch")
    }
}

/// What the program answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// `XDP_ABORTED`, or an answer that XDP does not know. The program never says so.
    Aborted,
    /// `XDP_DROP`.
    Drop,
    /// `XDP_PASS`: on to the kernel.
    Pass,
    /// `XDP_TX`: back out of the interface. The program never says so.
    Tx,
    /// `XDP_REDIRECT`: to an AF_XDP socket.
    Redirect,
}

impl From<u32> for Action {
    fn from(answer: u32) -> Self {
        match answer {
            1 => Action::Drop,
            2 => Action::Pass,
            3 => Action::Tx,
            4 => Action::Redirect,
            _ => Action::Aborted,
        }
    }
}

/// Where a frame of a test run seems to come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RxQueue {
    /// Index of an interface of this network namespace.
    pub ifindex: u32,
    /// One of its receive queues.
    pub queue: u32,
}

/// Outcome of a test run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TestRun {
    /// The answer.
    pub action: Action,
    /// The frame afterwards.
    pub frame: Vec<u8>,
}

/// The program of one interface with its own maps: loaded, and attached or not.
///
/// Dropping it leaves an attached program where it is, with its maps; its sockets leave the map when they are closed.
pub struct SteerProgram {
    ebpf: Ebpf,
    xsks: XskMap<MapData>,
    settings: Array<MapData, RawSettings>,
    role: RoleSwitch,
    protected: Protected,
    addresses: Addresses,
    counters: PerCpuArray<MapData, u64>,
    own_mac: Option<[u8; 6]>,
}

impl SteerProgram {
    /// Loads program and maps. Nothing is attached, and the maps are empty.
    ///
    /// # Errors
    /// [`Error::Load`] and [`Error::Program`], if the kernel refuses; it takes CAP_BPF and CAP_NET_ADMIN.
    pub fn load() -> Result<Self, Error> {
        let mut ebpf = Ebpf::load(OBJECT).map_err(|error| Error::Load(Box::new(error)))?;
        xdp(&mut ebpf)?.load().map_err(program_error("loading"))?;
        Ok(Self {
            xsks: take(&mut ebpf, "xsks")?,
            settings: take(&mut ebpf, "settings")?,
            role: RoleSwitch(take(&mut ebpf, RoleSwitch::MAP)?),
            protected: Protected::new(&mut ebpf)?,
            addresses: Addresses::new(&mut ebpf)?,
            counters: take(&mut ebpf, "counters")?,
            own_mac: None,
            ebpf,
        })
    }

    /// Tells the program its settings; live if it is attached. A change of the MAC address is not atomic: a frame or two
    /// may see half of it.
    ///
    /// # Errors
    /// [`Error::Map`].
    pub fn set_settings(&mut self, settings: &Settings) -> Result<(), Error> {
        self.settings.set(0, RawSettings::from(settings), 0).map_err(map_error("settings", "written"))?;
        self.own_mac = Some(settings.own_mac);
        Ok(())
    }

    /// Makes this node active or standby; live if it is attached. A program begins as standby, where nothing is steered.
    ///
    /// # Errors
    /// [`Error::Map`].
    pub fn set_active(&mut self, active: bool) -> Result<(), Error> {
        self.role.set(active)
    }

    /// What switches the role from another thread.
    ///
    /// # Errors
    /// [`Error::Map`], if the process has no descriptor left.
    pub fn role_switch(&self) -> Result<RoleSwitch, Error> {
        self.role.duplicate()
    }

    /// Gives the frames of a receive queue to an AF_XDP socket, which has to be bound to this queue of this interface:
    /// the kernel drops what it steers to another.
    ///
    /// # Errors
    /// [`Error::Queue`], [`Error::Map`].
    pub fn set_socket(&mut self, queue: u32, socket: BorrowedFd<'_>) -> Result<(), Error> {
        check_queue(queue)?;
        self.xsks.set(queue, socket.as_raw_fd(), 0).map_err(map_error("xsks", "written"))
    }

    /// Takes the socket of a queue away; its protected frames are dropped from now on. The kernel does this by itself when
    /// the socket is closed.
    ///
    /// # Errors
    /// [`Error::Queue`], [`Error::Map`].
    pub fn clear_socket(&mut self, queue: u32) -> Result<(), Error> {
        check_queue(queue)?;
        gone(self.xsks.unset(queue)).map_err(map_error("xsks", "written"))
    }

    /// Makes the protected prefixes these. New ones are added before old ones go, so that an address that both sets
    /// cover is covered at all times; when it fails half-way, everything old is still there.
    ///
    /// # Errors
    /// [`Error::TooMany`] beyond [`MAX_PROTECTED`](crate::MAX_PROTECTED), [`Error::Map`].
    pub fn set_protected(&mut self, prefixes: &[Prefix]) -> Result<(), Error> {
        self.protected.set(prefixes)
    }

    /// Makes the virtual addresses these: the data plane answers for them. New ones are added before old ones go.
    ///
    /// # Errors
    /// [`Error::TooMany`] beyond [`MAX_VIRTUAL_ADDRESSES`](crate::MAX_VIRTUAL_ADDRESSES), [`Error::Map`].
    pub fn set_virtual_addresses(&mut self, addresses: &[Ipv4Addr]) -> Result<(), Error> {
        self.addresses.set_virtual(addresses)
    }

    /// Makes these the kernel's own addresses, those of every interface: what is for them passes, whatever the policy says.
    /// An address that is virtual too counts as own.
    ///
    /// # Errors
    /// [`Error::TooMany`] beyond [`MAX_OWN_ADDRESSES`](crate::MAX_OWN_ADDRESSES), [`Error::Map`].
    pub fn set_own_addresses(&mut self, addresses: &[Ipv4Addr]) -> Result<(), Error> {
        self.addresses.set_own(addresses)
    }

    /// Every counter, in frames since the program was loaded, summed over the CPUs.
    ///
    /// # Errors
    /// [`Error::Map`].
    pub fn counters(&self) -> Result<Vec<(SteerCounter, u64)>, Error> {
        SteerCounter::ALL
            .iter()
            .map(|counter| {
                let values =
                    self.counters.get(&(*counter as u32), 0).map_err(map_error("counters", "read"))?;
                Ok((*counter, values.iter().sum()))
            })
            .collect()
    }

    /// Attaches the program to an interface of this network namespace and pins the link at `pin`, on a BPF file system
    /// (see [`mount_bpffs`](crate::mount_bpffs)); one pin for each interface. It stays, and fails closed, when the
    /// process ends. Where the pin is there already, the program behind it is replaced in one step, with no
    /// frame in between; so settings, addresses and sockets have to be set before.
    ///
    /// # Errors
    /// Each names what is in the way and what to do: [`Error::NotConfigured`], [`Error::Interface`], [`Error::WrongMac`],
    /// [`Error::Occupied`], [`Error::ModeDiffers`], [`Error::PinOfOther`], [`Error::NotALink`], [`Error::Attach`], [`Error::Pin`].
    pub fn attach(&mut self, ifindex: u32, mode: Mode, pin: &Path) -> Result<Attachment, Error> {
        let own_mac = self.own_mac.ok_or(Error::NotConfigured)?;
        link::attach(xdp(&mut self.ebpf)?, ifindex, mode, pin, own_mac)
    }

    /// Asks the program about a frame, without any traffic (`BPF_PROG_TEST_RUN`). It is counted. Without a queue it
    /// comes from queue 0 of the loopback interface.
    ///
    /// # Errors
    /// [`Error::TestRun`].
    pub fn test_run(&mut self, frame: &[u8], from: Option<RxQueue>) -> Result<TestRun, Error> {
        let context = from.map(|from| context(frame.len(), from));
        let mut out = vec![0; frame.len() + TEST_RUN_ROOM];
        let options = TestRunOptions {
            data_in: Some(frame),
            data_out: Some(&mut out),
            ctx_in: context.as_ref().map(|context| context.as_slice()),
            ..TestRunOptions::default()
        };
        let result =
            xdp(&mut self.ebpf)?.test_run(options).map_err(|error| Error::TestRun(Box::new(error)))?;
        out.truncate(result.data_size_out as usize);
        Ok(TestRun { action: Action::from(result.return_value), frame: out })
    }
}

/// `struct xdp_md`: data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex.
fn context(length: usize, from: RxQueue) -> [u8; 24] {
    let mut context = [0; 24];
    let fields = [0, length as u32, 0, from.ifindex, from.queue, 0];
    for (place, field) in context.chunks_exact_mut(4).zip(fields) {
        place.copy_from_slice(&field.to_ne_bytes());
    }
    context
}

fn xdp(ebpf: &mut Ebpf) -> Result<&mut Xdp, Error> {
    let program = ebpf.program_mut(PROGRAM).ok_or(Error::Missing("program steer"))?;
    program.try_into().map_err(program_error("recognizing"))
}

fn check_queue(queue: u32) -> Result<(), Error> {
    if queue < MAX_QUEUES { Ok(()) } else { Err(Error::Queue(queue)) }
}

fn program_error(operation: &'static str) -> impl Fn(ProgramError) -> Error {
    move |source| Error::Program { operation, source: Box::new(source) }
}

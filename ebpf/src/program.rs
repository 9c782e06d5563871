//! The loaded program of one interface, and its maps.

use crate::layout::{
    MAX_OWN_ADDRESSES, MAX_PROTECTED, MAX_QUEUES, MAX_VIRTUAL_ADDRESSES, RawSettings, SIDE_INSIDE,
    SIDE_OUTSIDE,
};
use crate::link::{self, Attachment, Mode};
use crate::{Error, Prefix, SteerCounter};
use aya::maps::lpm_trie::Key;
use aya::maps::{Array, HashMap, LpmTrie, MapData, MapError, PerCpuArray, XskMap};
use aya::programs::{ProgramError, TestRun as _, TestRunOptions, Xdp};
use aya::{Ebpf, include_bytes_aligned};
use std::collections::HashSet;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::path::Path;

/// The compiled object (ELF), for other loaders: libbpf, libxdp, bpftool.
pub const OBJECT: &[u8] = include_bytes_aligned!(concat!(env!("OUT_DIR"), "/steer.bpf.o"));

const PROGRAM: &str = "steer";

/// Value of an entry in a map that is a set.
const PRESENT: u8 = 1;

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
    /// True: this node is active. False: standby; nothing is steered.
    pub active: bool,
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
            active: u8::from(settings.active),
            has_virtual_mac: u8::from(settings.virtual_mac.is_some()),
            reserved: 0,
            own_mac: settings.own_mac,
            virtual_mac: settings.virtual_mac.unwrap_or_default(),
        }
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
    protected: LpmTrie<MapData, [u8; 4], u8>,
    virtual_addresses: HashMap<MapData, [u8; 4], u8>,
    own_addresses: HashMap<MapData, [u8; 4], u8>,
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
            protected: take(&mut ebpf, "protected")?,
            virtual_addresses: take(&mut ebpf, "virtual_addresses")?,
            own_addresses: take(&mut ebpf, "own_addresses")?,
            counters: take(&mut ebpf, "counters")?,
            own_mac: None,
            ebpf,
        })
    }

    /// Tells the program its settings; live if it is attached. A change of the MAC address is not atomic: a frame or two
    /// may see half of it. A change of the role is.
    ///
    /// # Errors
    /// [`Error::Map`].
    pub fn set_settings(&mut self, settings: &Settings) -> Result<(), Error> {
        self.settings.set(0, RawSettings::from(settings), 0).map_err(map_error("settings", "written"))?;
        self.own_mac = Some(settings.own_mac);
        Ok(())
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
    /// [`Error::TooMany`] beyond [`MAX_PROTECTED`], [`Error::Map`].
    pub fn set_protected(&mut self, prefixes: &[Prefix]) -> Result<(), Error> {
        const MAP: &str = "protected";
        let wanted: HashSet<Prefix> = prefixes.iter().copied().collect();
        check_room(MAP, wanted.len(), MAX_PROTECTED)?;
        let present: Vec<Key<[u8; 4]>> =
            self.protected.keys().collect::<Result<_, _>>().map_err(map_error(MAP, "read"))?;
        let covered: HashSet<(u32, [u8; 4])> =
            present.iter().map(|key| (key.prefix_len(), key.data())).collect();
        let wanted: HashSet<(u32, [u8; 4])> =
            wanted.iter().map(|prefix| (u32::from(prefix.length()), prefix.address().octets())).collect();
        for (length, address) in wanted.difference(&covered) {
            self.protected
                .insert(&Key::new(*length, *address), PRESENT, 0)
                .map_err(map_error(MAP, "written"))?;
        }
        for (length, address) in covered.difference(&wanted) {
            gone(self.protected.remove(&Key::new(*length, *address))).map_err(map_error(MAP, "written"))?;
        }
        Ok(())
    }

    /// Makes the virtual addresses these: the data plane answers for them. New ones are added before old ones go.
    ///
    /// # Errors
    /// [`Error::TooMany`] beyond [`MAX_VIRTUAL_ADDRESSES`], [`Error::Map`].
    pub fn set_virtual_addresses(&mut self, addresses: &[Ipv4Addr]) -> Result<(), Error> {
        reconcile(&mut self.virtual_addresses, "virtual_addresses", addresses, MAX_VIRTUAL_ADDRESSES)
    }

    /// Makes these the kernel's own addresses, those of every interface: what is for them passes, whatever the policy says.
    /// An address that is virtual too counts as own.
    ///
    /// # Errors
    /// [`Error::TooMany`] beyond [`MAX_OWN_ADDRESSES`], [`Error::Map`].
    pub fn set_own_addresses(&mut self, addresses: &[Ipv4Addr]) -> Result<(), Error> {
        reconcile(&mut self.own_addresses, "own_addresses", addresses, MAX_OWN_ADDRESSES)
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

fn take<M: TryFrom<aya::maps::Map, Error = MapError>>(
    ebpf: &mut Ebpf,
    name: &'static str,
) -> Result<M, Error> {
    let map = ebpf.take_map(name).ok_or(Error::Missing(name))?;
    M::try_from(map).map_err(map_error(name, "recognized"))
}

fn reconcile(
    map: &mut HashMap<MapData, [u8; 4], u8>,
    name: &'static str,
    addresses: &[Ipv4Addr],
    limit: usize,
) -> Result<(), Error> {
    let wanted: HashSet<[u8; 4]> = addresses.iter().map(|address| address.octets()).collect();
    check_room(name, wanted.len(), limit)?;
    let present: HashSet<[u8; 4]> = map.keys().collect::<Result<_, _>>().map_err(map_error(name, "read"))?;
    for address in wanted.difference(&present) {
        map.insert(address, PRESENT, 0).map_err(map_error(name, "written"))?;
    }
    for address in present.difference(&wanted) {
        gone(map.remove(address)).map_err(map_error(name, "written"))?;
    }
    Ok(())
}

fn check_room(map: &'static str, count: usize, limit: usize) -> Result<(), Error> {
    if count > limit { Err(Error::TooMany { map, count, limit }) } else { Ok(()) }
}

fn check_queue(queue: u32) -> Result<(), Error> {
    if queue < MAX_QUEUES { Ok(()) } else { Err(Error::Queue(queue)) }
}

/// What is not there need not be removed.
fn gone(removed: Result<(), MapError>) -> Result<(), MapError> {
    match removed {
        Err(MapError::KeyNotFound) => Ok(()),
        Err(MapError::SyscallError(call)) if call.io_error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
        other => other,
    }
}

fn map_error(map: &'static str, operation: &'static str) -> impl Fn(MapError) -> Error {
    move |source| Error::Map { map, operation, source: Box::new(source) }
}

fn program_error(operation: &'static str) -> impl Fn(ProgramError) -> Error {
    move |source| Error::Program { operation, source: Box::new(source) }
}

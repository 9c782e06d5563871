//! A network namespace with veth pairs, and the smallest XDP program that fills an AF_XDP socket.

use std::fs;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::process::Command;

/// Ethertype for local experiments (IEEE 802): what else the kernel sends is told apart by it.
const EXPERIMENTAL: [u8; 2] = [0x88, 0xb5];

/// Runs a test in a network namespace of its own, which exists as long as the test's thread and sockets:
/// it needs no name, collides with nothing, and is gone afterwards whatever happens. Needs root.
pub fn in_own_namespace(test: impl FnOnce() + Send + 'static) {
    let thread = std::thread::spawn(|| {
        // SAFETY: no memory is passed; the call concerns this thread alone.
        let result = unsafe { libc::unshare(libc::CLONE_NEWNET) };
        assert_eq!(result, 0, "a network namespace needs root: {}", io::Error::last_os_error());
        // Neighbour discovery would mix with the test's frames. A kernel without IPv6 has no such file.
        // (What lies below /proc/sys/net is that of the thread's namespace.)
        for scope in ["all", "default"] {
            let setting = format!("/proc/sys/net/ipv6/conf/{scope}/disable_ipv6");
            if fs::exists(&setting).expect("/proc is mounted") {
                fs::write(&setting, "1").expect("IPv6 is switched off in the namespace");
            }
        }
        test();
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

/// Runs `ip` in the namespace of the calling thread.
pub fn ip(arguments: &str) {
    let output = Command::new("ip").args(arguments.split_whitespace()).output().expect("iproute2 is needed");
    assert!(output.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Makes a veth pair with `queues` queues at both ends, up; returns the indices.
pub fn veth(one: &str, two: &str, queues: u32) -> (u32, u32) {
    let size = format!("numrxqueues {queues} numtxqueues {queues}");
    ip(&format!("link add {one} {size} type veth peer name {two} {size}"));
    ip(&format!("link set {one} up"));
    ip(&format!("link set {two} up"));
    (index(one), index(two))
}

fn index(name: &str) -> u32 {
    let name = std::ffi::CString::new(name).unwrap();
    // SAFETY: the name is a C string that lives for the call.
    let index = unsafe { libc::if_nametoindex(name.as_ptr()) };
    assert_ne!(index, 0, "{name:?}: {}", io::Error::last_os_error());
    index
}

/// An Ethernet frame with a number and a pattern that depends on it.
pub fn frame(number: u32, len: usize) -> Vec<u8> {
    let mut octets = Vec::with_capacity(len);
    octets.extend([0x02, 0, 0, 0, 0, 2, 0x02, 0, 0, 0, 0, 1]);
    octets.extend(EXPERIMENTAL);
    octets.extend(number.to_be_bytes());
    octets.extend((octets.len()..len).map(|i| (i as u32).wrapping_mul(number) as u8));
    octets
}

/// The number of a frame; `None` for one that the tests have not sent. Panics where its pattern is damaged.
pub fn number_of(octets: &[u8]) -> Option<u32> {
    if octets.get(12..14)? != EXPERIMENTAL {
        return None;
    }
    let number = u32::from_be_bytes(octets.get(14..18)?.try_into().ok()?);
    assert_eq!(octets, frame(number, octets.len()), "frame {number} is damaged");
    Some(number)
}

/// An XDP program on an interface, in native mode, that redirects everything to the AF_XDP socket of the
/// receiving queue and passes what has none. Detached when dropped.
pub struct Redirect {
    map: OwnedFd,
    _program: OwnedFd,
    _link: OwnedFd,
}

const BPF_MAP_CREATE: libc::c_int = 0;
const BPF_MAP_UPDATE_ELEM: libc::c_int = 2;
const BPF_PROG_LOAD: libc::c_int = 5;
const BPF_LINK_CREATE: libc::c_int = 28;
const BPF_MAP_TYPE_XSKMAP: u32 = 17;
const BPF_PROG_TYPE_XDP: u32 = 6;
const BPF_XDP: u32 = 37;
const XDP_FLAGS_DRV_MODE: u32 = 1 << 2;

/// bpf(2) with an attribute that makes a descriptor.
fn bpf<T>(command: libc::c_int, attribute: &T) -> io::Result<i32> {
    // SAFETY: the attribute lives for the call and its true size is passed; what it points to is kept by the callers.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, &raw const *attribute, size_of::<T>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result as i32) }
}

fn bpf_fd<T>(command: libc::c_int, attribute: &T) -> OwnedFd {
    let raw = bpf(command, attribute).unwrap_or_else(|error| panic!("bpf({command}): {error}"));
    // SAFETY: the descriptor was just made and belongs to nobody else.
    unsafe { OwnedFd::from_raw_fd(raw) }
}

/// One BPF instruction: opcode, registers (source << 4 | destination), offset, immediate.
fn instruction(opcode: u8, registers: u8, offset: i16, immediate: i32) -> u64 {
    u64::from(opcode)
        | u64::from(registers) << 8
        | u64::from(offset as u16) << 16
        | u64::from(immediate as u32) << 32
}

impl Redirect {
    pub fn attach(ifindex: u32) -> Redirect {
        #[repr(C)]
        struct MapCreate {
            map_type: u32,
            key_size: u32,
            value_size: u32,
            max_entries: u32,
        }
        let create = MapCreate { map_type: BPF_MAP_TYPE_XSKMAP, key_size: 4, value_size: 4, max_entries: 64 };
        let map = bpf_fd(BPF_MAP_CREATE, &create);
        let program = [
            instruction(0x61, 0x12, 16, 0),              // r2 = ctx->rx_queue_index
            instruction(0x18, 0x11, 0, map.as_raw_fd()), // r1 = the map, in two parts
            instruction(0, 0, 0, 0),
            instruction(0xb7, 0x03, 0, 2), // r3 = XDP_PASS
            instruction(0x85, 0, 0, 51),   // call bpf_redirect_map
            instruction(0x95, 0, 0, 0),    // exit
        ];
        #[repr(C)]
        struct ProgramLoad {
            program_type: u32,
            instruction_count: u32,
            instructions: u64,
            license: u64,
            log_level: u32,
            log_size: u32,
            log: u64,
            kernel_version: u32,
            flags: u32,
        }
        let load = ProgramLoad {
            program_type: BPF_PROG_TYPE_XDP,
            instruction_count: program.len() as u32,
            instructions: program.as_ptr() as u64,
            license: c"Dual MIT/GPL".as_ptr() as u64,
            log_level: 0,
            log_size: 0,
            log: 0,
            kernel_version: 0,
            flags: 0,
        };
        let program = bpf_fd(BPF_PROG_LOAD, &load);
        #[repr(C)]
        struct LinkCreate {
            program: u32,
            ifindex: u32,
            attach_type: u32,
            flags: u32,
        }
        let link = LinkCreate {
            program: program.as_raw_fd() as u32,
            ifindex,
            attach_type: BPF_XDP,
            flags: XDP_FLAGS_DRV_MODE,
        };
        let link = bpf_fd(BPF_LINK_CREATE, &link);
        Redirect { map, _program: program, _link: link }
    }

    /// Frames of `queue` go to this socket from now on.
    pub fn steer(&self, queue: u32, socket: BorrowedFd<'_>) {
        #[repr(C)]
        struct MapUpdate {
            map: u32,
            padding: u32,
            key: u64,
            value: u64,
            flags: u64,
        }
        let value = socket.as_raw_fd() as u32;
        let update = MapUpdate {
            map: self.map.as_raw_fd() as u32,
            padding: 0,
            key: &raw const queue as u64,
            value: &raw const value as u64,
            flags: 0,
        };
        bpf(BPF_MAP_UPDATE_ELEM, &update).expect("the socket goes into the map");
    }
}

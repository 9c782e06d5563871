//! The three calls of bpf(2) that aya does not offer: what a pinned link is attached to, its end, and the mark that
//! lets aya write [`RawSettings`] into a map. The unsafe code of the crate is here.

// aya neither tells the interface of a link nor detaches one.
#![allow(unsafe_code)]

use crate::layout::RawSettings;
use std::ffi::CString;
use std::io;
use std::mem::{offset_of, size_of};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

// SAFETY: `Pod` asks for a plain value whose octets may be copied to and from the kernel. RawSettings is `repr(C)`, made
// of octets only, so that it has no padding (its size is asserted) and every bit pattern is a valid value.
unsafe impl aya::Pod for RawSettings {}

const BPF_OBJ_GET: libc::c_long = 7;
const BPF_OBJ_GET_INFO_BY_FD: libc::c_long = 15;
const BPF_LINK_DETACH: libc::c_long = 34;

/// `bpf_link_info` up to the member `xdp.ifindex`.
#[derive(Clone, Copy, Default)]
#[repr(C)]
struct RawLinkInfo {
    kind: u32,
    id: u32,
    program_id: u32,
    _padding: u32,
    ifindex: u32,
    _union: [u32; 27],
}

#[repr(C)]
struct ObjGet {
    path: u64,
    fd: u32,
    flags: u32,
}

#[repr(C)]
struct InfoByFd {
    fd: u32,
    length: u32,
    info: u64,
}

#[repr(C)]
struct LinkDetach {
    fd: u32,
}

const _: () = {
    assert!(offset_of!(RawLinkInfo, ifindex) == 16);
    assert!(size_of::<RawLinkInfo>() == 128);
    assert!(size_of::<ObjGet>() == 16);
    assert!(size_of::<InfoByFd>() == 16);
};

/// What a link is attached to. `ifindex` is 0 once the interface is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LinkInfo {
    pub id: u32,
    pub program_id: u32,
    pub ifindex: u32,
}

/// Opens what is pinned at `path`; `None` where there is nothing.
pub(crate) fn open_pin(path: &Path) -> io::Result<Option<OwnedFd>> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut attributes = ObjGet { path: path.as_ptr() as u64, fd: 0, flags: 0 };
    // SAFETY: the attributes are those of BPF_OBJ_GET; the path is a C string that outlives the call, which only reads it.
    match unsafe { bpf(BPF_OBJ_GET, &mut attributes) } {
        // SAFETY: BPF_OBJ_GET answers a new descriptor, which nobody else owns.
        Ok(fd) => Ok(Some(unsafe { OwnedFd::from_raw_fd(fd) })),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// What the link `fd` is attached to. Means nothing for another object than an XDP link.
pub(crate) fn link_info(fd: BorrowedFd<'_>) -> io::Result<LinkInfo> {
    let mut info = RawLinkInfo::default();
    let mut attributes = InfoByFd {
        fd: fd.as_raw_fd() as u32,
        length: size_of::<RawLinkInfo>() as u32,
        info: (&raw mut info) as u64,
    };
    // SAFETY: the attributes are those of BPF_OBJ_GET_INFO_BY_FD. The kernel writes at most `length` octets to `info`,
    // which is that long, is plain integers, and outlives the call.
    unsafe { bpf(BPF_OBJ_GET_INFO_BY_FD, &mut attributes) }?;
    Ok(LinkInfo { id: info.id, program_id: info.program_id, ifindex: info.ifindex })
}

/// Takes the link off its interface, whoever else holds it.
pub(crate) fn detach_link(fd: BorrowedFd<'_>) -> io::Result<()> {
    let mut attributes = LinkDetach { fd: fd.as_raw_fd() as u32 };
    // SAFETY: the attributes are those of BPF_LINK_DETACH, which has no pointers.
    unsafe { bpf(BPF_LINK_DETACH, &mut attributes) }.map(drop)
}

/// # Safety
/// `A` is the part of `union bpf_attr` that belongs to `command`, and its pointers are good for what the command does.
unsafe fn bpf<A>(command: libc::c_long, attributes: &mut A) -> io::Result<RawFd> {
    // SAFETY: the kernel takes `size` octets of attributes, which are there, and treats those beyond as zero. The caller
    // answers for the rest.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, attributes as *mut A, size_of::<A>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result as RawFd) }
}

//! What the process gives up, and keeps from others, once it has started.

use caps::{CapSet, Capability, CapsHashSet};
use nix::sys::mman::{MlockAllFlags, mlockall};
use nix::sys::prctl::set_dumpable;
use nix::sys::resource::{RLIM_INFINITY, Resource, setrlimit};

/// No core dump, no `ptrace` by others, memory not swapped (best effort), and no capability but
/// `CAP_NET_ADMIN`, which routes need. Call it before threads are made: capabilities belong to threads.
pub fn harden() {
    if let Err(error) = set_dumpable(false) {
        tracing::warn!("memory can be dumped: {error}");
    }
    // With a limit and without the capability, a later allocation would fail for want of locked memory.
    let locked = setrlimit(Resource::RLIMIT_MEMLOCK, RLIM_INFINITY, RLIM_INFINITY)
        .and_then(|()| mlockall(MlockAllFlags::MCL_CURRENT | MlockAllFlags::MCL_FUTURE));
    if let Err(error) = locked {
        tracing::warn!("memory can be swapped out: {error}");
    }
    if let Err(error) = drop_capabilities() {
        tracing::warn!("capabilities could not be dropped: {error}");
    }
}

fn drop_capabilities() -> Result<(), caps::errors::CapsError> {
    let held = caps::read(None, CapSet::Permitted)?;
    let keep: CapsHashSet = held.into_iter().filter(|cap| *cap == Capability::CAP_NET_ADMIN).collect();
    if caps::has_cap(None, CapSet::Effective, Capability::CAP_SETPCAP)? {
        // Also what a program that is started from here could gain.
        for capability in caps::read(None, CapSet::Bounding)? {
            if !keep.contains(&capability) {
                caps::drop(None, CapSet::Bounding, capability)?;
            }
        }
    }
    caps::clear(None, CapSet::Ambient)?;
    caps::set(None, CapSet::Effective, &keep)?;
    caps::set(None, CapSet::Permitted, &keep)?;
    caps::clear(None, CapSet::Inheritable)
}

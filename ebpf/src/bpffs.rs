//! A BPF file system of our own.

use crate::Error;
use nix::mount::{MsFlags, mount};
use nix::sys::statfs::{BPF_FS_MAGIC, statfs};
use std::io;
use std::path::Path;

/// Mounts a BPF file system at `folder`, which is made if it is not there. Answers false where one is mounted already.
///
/// `/sys/fs/bpf` will not do: `ip netns exec` hides it behind a fresh sysfs. The folder and the mount are for root alone.
/// The pins live as long as the mount. One that is made inside of `ip netns exec`, or of a service with mounts of its
/// own, ends with the last process there, and the program with it: make it before, outside, where it is seen from within.
///
/// # Errors
/// [`Error::Mount`].
pub fn mount_bpffs(folder: &Path) -> Result<bool, Error> {
    let failed = |source: io::Error| Error::Mount { folder: folder.to_owned(), source };
    std::fs::create_dir_all(folder).map_err(failed)?;
    let present = statfs(folder).map_err(|errno| failed(errno.into()))?;
    if present.filesystem_type() == BPF_FS_MAGIC {
        return Ok(false);
    }
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("bpf"), folder, Some("bpf"), flags, Some("mode=0700"))
        .map_err(|errno| failed(errno.into()))?;
    Ok(true)
}

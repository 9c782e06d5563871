//! What this process has made in the kernel and must remove, whatever ends it.

use nix::mount::{MntFlags, umount2};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};

#[derive(Debug)]
struct Registry {
    processes: BTreeSet<u32>,
    mounts: BTreeSet<PathBuf>,
    namespaces: BTreeSet<String>,
}

static REGISTRY: Mutex<Registry> =
    Mutex::new(Registry { processes: BTreeSet::new(), mounts: BTreeSet::new(), namespaces: BTreeSet::new() });

fn registry() -> MutexGuard<'static, Registry> {
    REGISTRY.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(super) fn add_process(id: u32) {
    registry().processes.insert(id);
}

pub(super) fn remove_process(id: u32) {
    registry().processes.remove(&id);
}

pub(super) fn add_namespace(name: &str) {
    registry().namespaces.insert(name.to_owned());
}

/// Removes a namespace, with everything in it.
pub(super) fn remove_namespace(name: &str) {
    registry().namespaces.remove(name);
    delete_namespace(name);
}

/// A folder that a daemon may mount a file system on.
pub fn add_mount(folder: &Path) {
    registry().mounts.insert(folder.to_owned());
}

/// Takes what is mounted on the folder off again.
pub fn remove_mount(folder: &Path) {
    registry().mounts.remove(folder);
    unmount(folder);
}

/// Removes everything at once; for the handler of Ctrl-C and SIGTERM.
pub fn remove_all() {
    let mut registry = registry();
    for id in std::mem::take(&mut registry.processes) {
        if let Ok(id) = i32::try_from(id) {
            let _ = kill(Pid::from_raw(id), Signal::SIGKILL);
        }
    }
    for folder in std::mem::take(&mut registry.mounts) {
        unmount(&folder);
    }
    for name in std::mem::take(&mut registry.namespaces) {
        delete_namespace(&name);
    }
}

/// Removes what runners left that were killed outright: namespaces and BPF file systems that carry the
/// process id of a process that is no more. (Their processes ended with them.)
pub fn sweep() {
    let namespaces = std::fs::read_dir("/run/netns").into_iter().flatten().flatten();
    for name in namespaces.filter_map(|entry| entry.file_name().into_string().ok()) {
        if owner(&name, NAMESPACE_PREFIX).is_some_and(is_gone) {
            delete_namespace(&name);
        }
    }
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    for folder in mounts.lines().filter_map(|line| line.split(' ').nth(1)) {
        let of_runner = Path::new(folder)
            .components()
            .filter_map(|part| owner(part.as_os_str().to_str()?, FOLDER_PREFIX))
            .any(is_gone);
        if of_runner {
            unmount(Path::new(folder));
        }
    }
}

/// First letters of the names of namespaces; the process id of their runner follows, then a hyphen.
pub const NAMESPACE_PREFIX: &str = "tdm";
/// First letters of the names of runners' folders; the process id follows, then a hyphen.
pub const FOLDER_PREFIX: &str = "tandem-testbed-";

fn owner(name: &str, prefix: &str) -> Option<u32> {
    let (id, _) = name.strip_prefix(prefix)?.split_once('-')?;
    id.parse().ok()
}

fn is_gone(id: u32) -> bool {
    !Path::new("/proc").join(id.to_string()).exists()
}

fn unmount(folder: &Path) {
    // Until nothing is mounted there any more: a restarted daemon may have mounted over the first.
    while umount2(folder, MntFlags::MNT_DETACH).is_ok() {}
}

fn delete_namespace(name: &str) {
    let _ = Command::new("ip").args(["netns", "del", name]).output();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_runners_that_are_gone_are_swept() {
        let alive = std::process::id();
        assert_eq!(owner(&format!("tdm{alive}-0-ha"), NAMESPACE_PREFIX), Some(alive));
        assert!(!is_gone(alive));
        // Above any process id that Linux gives.
        assert!(is_gone(5_000_000));
        for other in ["tdm-0", "tdmx-0", "other-1-2", "tdm12"] {
            assert_eq!(owner(other, NAMESPACE_PREFIX), None, "{other}");
        }
    }
}

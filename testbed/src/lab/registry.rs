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

fn unmount(folder: &Path) {
    // Until nothing is mounted there any more: a restarted daemon may have mounted over the first.
    while umount2(folder, MntFlags::MNT_DETACH).is_ok() {}
}

fn delete_namespace(name: &str) {
    let _ = Command::new("ip").args(["netns", "del", name]).output();
}

//! Network namespaces, links and processes that are surely gone afterwards.
//!
//! Everything that a lab makes is entered into one [`registry`] before it is used, and leaves it when it
//! is removed: by drop (also of a panic), or by the handler of Ctrl-C and SIGTERM. Processes are ended by
//! their process id, never by name; they also get the parent-death signal, so that they end with a runner
//! that was killed outright.

mod batch;
mod namespace;
mod process;
pub mod registry;

pub use batch::IpBatch;
pub use namespace::Namespace;
pub use process::Process;

use anyhow::{Context, Result, ensure};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

/// A set of namespaces with one prefix and one folder for logs, captures and sockets.
#[derive(Debug)]
pub struct Lab {
    prefix: String,
    folder: PathBuf,
    namespaces: Vec<Namespace>,
}

static LABS: AtomicU32 = AtomicU32::new(0);

impl Lab {
    /// An empty lab; its files go to a new folder within `parent` and outlive it.
    ///
    /// # Errors
    /// Without root, or where the folder cannot be made.
    pub fn new(parent: &Path) -> Result<Self> {
        ensure!(nix::unistd::geteuid().is_root(), "network namespaces need root: run this as root (sudo)");
        let number = LABS.fetch_add(1, Ordering::Relaxed);
        let prefix = format!("{}{}-{number}", registry::NAMESPACE_PREFIX, std::process::id());
        let folder = parent.join(format!("lab{number}"));
        std::fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
        Ok(Self { prefix, folder, namespaces: Vec::new() })
    }

    /// Folder of this lab's files.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Adds a namespace: loopback up, IPv4 forwarding on, no reverse-path filter, no IPv6 (its
    /// neighbour discovery would be noise in captures).
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn namespace(&mut self, name: &str) -> Result<Namespace> {
        let namespace = Namespace::create(format!("{}-{name}", self.prefix), &self.folder)?;
        self.namespaces.push(namespace.clone());
        Ok(namespace)
    }

    /// A veth pair between two namespaces, both ends up. `queues` holds for the first end's receive side
    /// and the second's transmit side: XDP on a veth wants no more of these than of those.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn link(&self, a: (&Namespace, &str), b: (&Namespace, &str), queues: u16) -> Result<()> {
        run(Command::new("ip").args([
            "link",
            "add",
            a.1,
            "netns",
            a.0.name(),
            "numrxqueues",
            &queues.to_string(),
            "numtxqueues",
            &queues.to_string(),
            "type",
            "veth",
            "peer",
            "name",
            b.1,
            "netns",
            b.0.name(),
            "numrxqueues",
            &queues.to_string(),
            "numtxqueues",
            &queues.to_string(),
        ]))?;
        for (namespace, device) in [a, b] {
            // The kernel leaves inner checksums unfinished for a card to complete; a data plane that
            // takes the frame from the ring has no such card.
            namespace.run(&format!("ethtool -K {device} tx off"))?;
            namespace.run(&format!("ip link set {device} up"))?;
        }
        Ok(())
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for namespace in &self.namespaces {
            namespace.remove();
        }
    }
}

/// Runs a command to its end and gives its standard output.
///
/// # Errors
/// With the command and its standard error where it fails.
pub fn run(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("starting {command:?}"))?;
    ensure!(
        output.status.success(),
        "{command:?} ended with {}: {}",
        output.status,
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

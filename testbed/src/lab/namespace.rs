//! One network namespace.

use super::{Process, registry, run};
use anyhow::{Context, Result};
use nix::sched::{CloneFlags, setns};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A handle to a named network namespace. The [`super::Lab`] removes the namespace.
#[derive(Clone, Debug)]
pub struct Namespace {
    name: String,
    logs: PathBuf,
}

impl Namespace {
    pub(super) fn create(name: String, logs: &Path) -> Result<Self> {
        registry::add_namespace(&name);
        run(Command::new("ip").args(["netns", "add", &name]))?;
        let namespace = Self { name, logs: logs.to_owned() };
        for (key, value) in [
            ("net/ipv6/conf/all/disable_ipv6", "1"),
            ("net/ipv6/conf/default/disable_ipv6", "1"),
            ("net/ipv4/ip_forward", "1"),
            ("net/ipv4/conf/all/rp_filter", "0"),
            ("net/ipv4/conf/default/rp_filter", "0"),
            ("net/ipv4/conf/all/send_redirects", "0"),
            ("net/ipv4/conf/default/send_redirects", "0"),
            ("net/ipv4/conf/all/arp_notify", "1"),
            ("net/ipv4/conf/default/arp_notify", "1"),
        ] {
            namespace.sysctl(key, value)?;
        }
        namespace.run("ip link set lo up")?;
        Ok(namespace)
    }

    pub(super) fn remove(&self) {
        registry::remove_namespace(&self.name);
    }

    /// Name as `ip netns` lists it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A command that will run in the namespace. Only the network namespace is entered: what the process
    /// mounts (a bpffs) stays visible and outlives it, as on a real machine.
    #[must_use]
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command
            .arg(format!("--net=/run/netns/{}", self.name))
            .args(["setpriv", "--pdeathsig", "KILL", "--", program])
            .stdin(std::process::Stdio::null());
        command
    }

    /// Runs a command line (split at white space) to its end.
    ///
    /// # Errors
    /// With the command and its standard error where it fails.
    pub fn run(&self, line: &str) -> Result<String> {
        let mut words = line.split_whitespace();
        let program = words.next().context("empty command line")?;
        run(self.command(program).args(words))
    }

    /// Starts a process that stays; its output goes to `NAME.log` in the lab's folder.
    ///
    /// # Errors
    /// Where it cannot be started.
    pub fn start(&self, name: &str, program: &str, arguments: &[&str]) -> Result<Process> {
        let mut command = self.command(program);
        command.args(arguments);
        Process::start(name, command, &self.logs.join(format!("{name}.log")))
    }

    /// Runs `work` on a thread of its own inside the namespace. Sockets opened there stay there.
    ///
    /// # Errors
    /// Where the namespace cannot be entered, or of `work`.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        std::thread::scope(|scope| {
            scope
                .spawn(|| {
                    let file = File::open(format!("/run/netns/{}", self.name))
                        .with_context(|| format!("opening namespace {}", self.name))?;
                    setns(file, CloneFlags::CLONE_NEWNET).context("entering the namespace")?;
                    work()
                })
                .join()
                .unwrap_or_else(|_| Err(anyhow::anyhow!("panic inside of namespace {}", self.name)))
        })
    }

    /// Writes a setting below `/proc/sys`.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn sysctl(&self, key: &str, value: &str) -> Result<()> {
        let path = format!("/proc/sys/{key}");
        match self
            .enter(|| std::fs::write(&path, value).with_context(|| format!("writing {value} to {path}")))
        {
            // A kernel without IPv6 has no IPv6 noise either.
            Err(_) if key.starts_with("net/ipv6/") && !Path::new("/proc/sys/net/ipv6").exists() => Ok(()),
            result => result,
        }
    }

    /// Octets received and sent by a device, as `/proc/net/dev` counts them.
    ///
    /// # Errors
    /// Where there is no such device.
    pub fn octets(&self, device: &str) -> Result<(u64, u64)> {
        let text = self.enter(|| Ok(std::fs::read_to_string("/proc/thread-self/net/dev")?))?;
        let line = text
            .lines()
            .find_map(|line| line.trim_start().strip_prefix(device)?.strip_prefix(':'))
            .with_context(|| format!("no device {device} in {}", self.name))?;
        let field =
            |index| line.split_whitespace().nth(index).and_then(|number| number.parse().ok()).unwrap_or(0);
        Ok((field(0), field(8)))
    }

    /// MAC address of a device.
    ///
    /// # Errors
    /// Where there is no such device.
    pub fn mac(&self, device: &str) -> Result<[u8; 6]> {
        self.enter(|| crate::traffic::raw::link_address(device)?.addr().context("device without MAC"))
    }
}

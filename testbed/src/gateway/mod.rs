//! One Tandem gateway: its configuration, its two daemons and its operator's command line.

mod counters;
mod settings;

pub use counters::Counters;
pub use settings::{CryptoMap, Interface, PartnerPath, Redundancy, Settings, StaticSa, mac_text};

use crate::lab::{Namespace, Process, registry, run};
use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::Signal;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// A gateway with its daemons.
#[derive(Debug)]
pub struct Gateway {
    /// Where it runs.
    pub namespace: Namespace,
    /// Its configuration.
    pub settings: Settings,
    folder: PathBuf,
    label: String,
    dataplane: Option<Process>,
    control: Option<Process>,
    dataplane_starts: u32,
}

/// Path of a built program of the project: beside this one, or in `TANDEM_BIN`.
///
/// # Errors
/// Where it is not there.
pub fn program(name: &str) -> Result<PathBuf> {
    let folder = match std::env::var_os("TANDEM_BIN") {
        Some(folder) => PathBuf::from(folder),
        None => std::env::current_exe()?.parent().context("a program without a folder")?.to_owned(),
    };
    let path = folder.join(name);
    ensure!(path.is_file(), "{} is not built: cargo build --release", path.display());
    Ok(path)
}

/// How long a daemon may take to be ready.
const READY: Duration = Duration::from_secs(20);

impl Gateway {
    /// Makes folder, state and configuration file; starts nothing.
    ///
    /// # Errors
    /// Where a file cannot be written or `tandemctl node init` fails.
    pub fn prepare(namespace: &Namespace, parent: &Path, label: &str, settings: Settings) -> Result<Self> {
        let folder = parent.join(label);
        std::fs::create_dir_all(folder.join("bpf"))?;
        registry::add_mount(&folder.join("bpf"));
        let gateway = Self {
            namespace: namespace.clone(),
            settings,
            folder,
            label: label.to_owned(),
            dataplane: None,
            control: None,
            dataplane_starts: 0,
        };
        gateway.write_configuration()?;
        let state = gateway.folder.join("state");
        run(namespace
            .command(&text(&program("tandemctl")?)?)
            .args(["node", "init", "--state-directory"])
            .arg(state))?;
        Ok(gateway)
    }

    /// Writes the configuration file (again).
    ///
    /// # Errors
    /// Where it cannot be written.
    pub fn write_configuration(&self) -> Result<()> {
        Ok(std::fs::write(self.folder.join("tandem.toml"), self.settings.toml(&self.folder))?)
    }

    /// Starts both daemons and waits until all SAs are installed and all interfaces are up.
    ///
    /// # Errors
    /// Where that does not happen in time.
    pub fn start(&mut self) -> Result<()> {
        self.start_dataplane()?;
        self.start_control()?;
        self.wait_ready()?;
        Ok(())
    }

    /// Starts the data plane.
    ///
    /// # Errors
    /// Where it cannot be started.
    pub fn start_dataplane(&mut self) -> Result<()> {
        self.dataplane_starts += 1;
        self.dataplane = Some(self.namespace.start(
            &format!("dataplane-{}", self.label),
            &text(&program("tandem-dataplane")?)?,
            &[
                "--socket",
                &self.path("dataplane.sock")?,
                "--bpffs",
                &self.path("bpf")?,
                "--log",
                "info,tandem_dataplane=debug",
            ],
        )?);
        Ok(())
    }

    /// Starts the control process.
    ///
    /// # Errors
    /// Where it cannot be started.
    pub fn start_control(&mut self) -> Result<()> {
        self.control = Some(self.namespace.start(
            &format!("control-{}", self.label),
            &text(&program("tandem-control")?)?,
            &["--config", &self.path("tandem.toml")?],
        )?);
        Ok(())
    }

    /// `kill -9` of the control process.
    pub fn kill_control(&mut self) {
        if let Some(mut control) = self.control.take() {
            control.kill();
        }
    }

    /// `kill -9` of the data plane.
    pub fn kill_dataplane(&mut self) {
        if let Some(mut dataplane) = self.dataplane.take() {
            dataplane.kill();
        }
    }

    /// Sends a signal to both daemons, one right after the other.
    pub fn signal(&mut self, signal: Signal) {
        for daemon in [&mut self.dataplane, &mut self.control].into_iter().flatten() {
            daemon.signal(signal);
        }
    }

    /// `kill -9` of both daemons at once.
    pub fn kill(&mut self) {
        self.signal(Signal::SIGKILL);
        self.kill_dataplane();
        self.kill_control();
    }

    /// Ends both daemons by SIGTERM, as a service manager does: control first, then the data plane.
    pub fn terminate(&mut self) {
        self.control = None;
        self.dataplane = None;
    }

    /// The public key of this node in hexadecimal, as `tandemctl node show` prints it.
    ///
    /// # Errors
    /// Where it prints none.
    pub fn node_key(&self) -> Result<String> {
        let output = run(self.namespace.command(&text(&program("tandemctl")?)?).args([
            "node",
            "show",
            "--state-directory",
            &self.path("state")?,
        ]))?;
        output
            .split(|c: char| !c.is_ascii_hexdigit())
            .find(|word| word.len() == 64)
            .map(str::to_owned)
            .with_context(|| format!("tandemctl node show printed no key: {output}"))
    }

    /// Has the data plane been started more than once? Its sockets' statistics begin anew then.
    #[must_use]
    pub fn was_restarted(&self) -> bool {
        self.dataplane_starts > 1
    }

    /// Do both daemons live?
    pub fn is_alive(&mut self) -> bool {
        [&mut self.dataplane, &mut self.control]
            .into_iter()
            .all(|daemon| daemon.as_mut().is_some_and(Process::is_alive))
    }

    /// Waits until all SAs of the configuration are installed and all interfaces are up.
    ///
    /// # Errors
    /// Where that does not happen in time, or a daemon ended.
    pub fn wait_ready(&mut self) -> Result<Duration> {
        let start = Instant::now();
        let wanted = 2 * self.settings.maps.len();
        loop {
            for daemon in [&mut self.dataplane, &mut self.control] {
                let daemon = daemon.as_mut().context("a daemon was not started")?;
                if !daemon.is_alive() {
                    bail!(
                        "{}: a daemon ended: {}",
                        self.label,
                        daemon.log().lines().last().unwrap_or_default()
                    );
                }
            }
            let state = match (self.sas(), self.interfaces()) {
                (Ok(sas), Ok(interfaces)) => {
                    let up = interfaces.iter().filter(|interface| interface["up"] == true).count();
                    let held = self.held(&sas)?;
                    if sas.len() == wanted && up == self.settings.interfaces.len() && held == 0 {
                        return Ok(start.elapsed());
                    }
                    format!(
                        "{} of {wanted} SAs, {held} of them held, {up} of {} interfaces",
                        sas.len(),
                        self.settings.interfaces.len()
                    )
                }
                (Err(error), _) | (_, Err(error)) => format!("{error:#}"),
            };
            ensure!(start.elapsed() < READY, "{} is not ready after {READY:?}: {state}", self.label);
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// How many of these SAs carry nothing yet, because numbers of theirs are not reserved on disk (F40). (Those of a
    /// pair may wait for the partner; whoever needs them waits until the pair is redundant.)
    fn held(&self, sas: &[Value]) -> Result<usize> {
        if self.settings.redundancy.is_some() {
            return Ok(0);
        }
        let mut held = 0;
        for sa in sas {
            let limit = sa["limit"].as_u64().with_context(|| format!("an SA without limit: {sa}"))?;
            held += usize::from(limit == 0);
        }
        Ok(held)
    }

    /// Runs `tandemctl --json ...` and gives its object.
    ///
    /// # Errors
    /// Where it fails or prints no JSON.
    pub fn ctl(&self, arguments: &[&str]) -> Result<Value> {
        let output = run(self
            .namespace
            .command(&text(&program("tandemctl")?)?)
            .args(["--socket", &self.path("control.sock")?, "--json"])
            .args(arguments))?;
        serde_json::from_str(&output)
            .with_context(|| format!("tandemctl {arguments:?} printed no JSON: {output}"))
    }

    /// Runs `tandemctl ...` for a human reader.
    ///
    /// # Errors
    /// Where it fails.
    pub fn ctl_text(&self, arguments: &[&str]) -> Result<String> {
        run(self
            .namespace
            .command(&text(&program("tandemctl")?)?)
            .args(["--socket", &self.path("control.sock")?])
            .args(arguments))
    }

    /// Every SA of every crypto map (`show crypto ipsec sa detail`).
    ///
    /// # Errors
    /// As [`Self::ctl`].
    pub fn sas(&self) -> Result<Vec<Value>> {
        let json = self.ctl(&["show", "crypto", "ipsec", "sa", "detail"])?;
        let maps = json["maps"].as_array().with_context(|| format!("no list of crypto maps: {json}"))?;
        let mut sas = Vec::new();
        for map in maps {
            for direction in ["inbound", "outbound"] {
                sas.extend(
                    map[direction].as_array().with_context(|| format!("no {direction} SAs: {map}"))?.clone(),
                );
            }
        }
        Ok(sas)
    }

    /// Every interface (`show interfaces`).
    ///
    /// # Errors
    /// As [`Self::ctl`].
    pub fn interfaces(&self) -> Result<Vec<Value>> {
        let json = self.ctl(&["show", "interfaces", "--interval", "0"])?;
        Ok(json
            .as_array()
            .or_else(|| json["interfaces"].as_array())
            .context("no list of interfaces")?
            .clone())
    }

    /// Every counter (`show counters`, and the program's and sockets' of `show interfaces`).
    ///
    /// # Errors
    /// As [`Self::ctl`].
    pub fn counters(&self) -> Result<Counters> {
        // The interfaces first: a frame that comes in between is in no sum of theirs without being in the workers'.
        let interfaces = self.interfaces()?;
        let mut counters = Counters::from_json(&self.ctl(&["show", "counters"])?)?;
        for interface in interfaces {
            let name = interface["name"].as_str().context("an interface without name")?;
            for (kind, all) in [("steering", &mut counters.steering), ("socket", &mut counters.socket)] {
                let list = counters::names(&interface[kind])
                    .with_context(|| format!("{name} has no list `{kind}`"))?;
                all.extend(list.into_iter().map(|(counter, value)| (format!("{name}.{counter}"), value)));
            }
        }
        Ok(counters)
    }

    /// Does the XDP program stand on every interface?
    ///
    /// # Errors
    /// Where `ip` fails.
    pub fn program_is_attached(&self) -> Result<bool> {
        for interface in &self.settings.interfaces {
            if !self.namespace.run(&format!("ip -d link show {}", interface.name))?.contains("xdp") {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn path(&self, name: &str) -> Result<String> {
        text(&self.folder.join(name))
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.control = None;
        self.dataplane = None;
        registry::remove_mount(&self.folder.join("bpf"));
    }
}

fn text(path: &Path) -> Result<String> {
    Ok(path.to_str().context("a path that is no UTF-8")?.to_owned())
}

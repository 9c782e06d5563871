//! One Tandem gateway: its configuration, its two daemons and its operator's command line.

use crate::lab::{Namespace, Process, registry, run};
use anyhow::{Context, Result, bail, ensure};
use ipnet::Ipv4Net;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Read as _;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// One direction of a static SA.
#[derive(Clone, Debug)]
pub struct StaticSa {
    /// SPI.
    pub spi: u32,
    /// `aes128gcm16` or `aes256gcm16`.
    pub transform: &'static str,
    /// Key, then salt.
    pub key: Vec<u8>,
}

impl StaticSa {
    /// An SA with a random key.
    ///
    /// # Errors
    /// Where the kernel gives no random octets.
    pub fn random(spi: u32, transform: &'static str) -> Result<Self> {
        let mut key = vec![0; if transform == "aes256gcm16" { 36 } else { 20 }];
        std::fs::File::open("/dev/urandom")?.read_exact(&mut key)?;
        Ok(Self { spi, transform, key })
    }

    /// Key and salt in hexadecimal.
    #[must_use]
    pub fn key_hex(&self) -> String {
        self.key.iter().fold(String::new(), |mut text, octet| {
            let _ = write!(text, "{octet:02x}");
            text
        })
    }
}

/// A static crypto map.
#[derive(Clone, Debug)]
pub struct CryptoMap {
    /// Name.
    pub name: String,
    /// Priority, the lowest wins.
    pub priority: u32,
    /// Outer address of ours.
    pub local: Ipv4Addr,
    /// Outer address of the peer's.
    pub peer: Ipv4Addr,
    /// Prefixes here and there.
    pub protect: Vec<(Ipv4Net, Ipv4Net)>,
    /// From the peer.
    pub inbound: StaticSa,
    /// To the peer.
    pub outbound: StaticSa,
}

impl CryptoMap {
    /// The same tunnel as the peer's gateway sees it.
    #[must_use]
    pub fn mirrored(&self, name: &str) -> Self {
        Self {
            name: name.to_owned(),
            priority: self.priority,
            local: self.peer,
            peer: self.local,
            protect: self.protect.iter().map(|&(local, remote)| (remote, local)).collect(),
            inbound: self.outbound.clone(),
            outbound: self.inbound.clone(),
        }
    }
}

/// An interface that Tandem takes packets from.
#[derive(Clone, Debug)]
pub struct Interface {
    /// Kernel name.
    pub name: &'static str,
    /// `inside` or `outside`.
    pub side: &'static str,
    /// Virtual address with its prefix length.
    pub virtual_address: Ipv4Net,
    /// Virtual MAC.
    pub virtual_mac: [u8; 6],
    /// Lower the MSS of TCP SYNs.
    pub mss_clamp: bool,
}

/// Configuration of a gateway.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Name of the node.
    pub name: String,
    /// Worker threads, one queue of each interface for each.
    pub workers: u16,
    /// SA slots of each direction.
    pub max_sas: u32,
    /// Interfaces.
    pub interfaces: Vec<Interface>,
    /// Crypto maps.
    pub maps: Vec<CryptoMap>,
}

/// Text form of a MAC address.
#[must_use]
pub fn mac_text(mac: [u8; 6]) -> String {
    let [a, b, c, d, e, f] = mac;
    format!("{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}")
}

impl Settings {
    /// The configuration file, with state and sockets in `folder`.
    #[must_use]
    pub fn toml(&self, folder: &Path) -> String {
        let folder = folder.display();
        let mut text = format!(
            "[node]\nname = \"{}\"\nstate-directory = \"{folder}/state\"\ncontrol-socket = \"{folder}/control.sock\"\n\n\
             [dataplane]\nsocket = \"{folder}/dataplane.sock\"\nworkers = {}\nmax-sas = {}\n",
            self.name, self.workers, self.max_sas
        );
        for interface in &self.interfaces {
            let _ = write!(
                text,
                "\n[[interface]]\nname = \"{}\"\nside = \"{}\"\nvirtual-addresses = [\"{}\"]\nvirtual-mac = \"{}\"\nmss-clamp = {}\n",
                interface.name,
                interface.side,
                interface.virtual_address,
                mac_text(interface.virtual_mac),
                interface.mss_clamp
            );
        }
        for map in &self.maps {
            let protect: Vec<String> = map
                .protect
                .iter()
                .map(|(local, remote)| format!("{{ local = \"{local}\", remote = \"{remote}\" }}"))
                .collect();
            let _ = write!(
                text,
                "\n[[crypto-map]]\nname = \"{}\"\npriority = {}\nlocal = \"{}\"\npeer = \"{}\"\nprotect = [{}]\n",
                map.name,
                map.priority,
                map.local,
                map.peer,
                protect.join(", ")
            );
            for (direction, sa) in [("inbound", &map.inbound), ("outbound", &map.outbound)] {
                let _ = write!(
                    text,
                    "[crypto-map.static.{direction}]\nspi = {:#x}\ntransform = \"{}\"\nkey = \"{}\"\n",
                    sa.spi,
                    sa.transform,
                    sa.key_hex()
                );
            }
        }
        text
    }
}

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
                    if sas.len() == wanted && up == self.settings.interfaces.len() {
                        return Ok(start.elapsed());
                    }
                    format!(
                        "{} of {wanted} SAs, {up} of {} interfaces",
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
                let list = names(&interface[kind]).with_context(|| format!("{name} has no list `{kind}`"))?;
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

/// The values of `show counters` at one moment.
#[derive(Clone, Debug, Default)]
pub struct Counters {
    /// By [`Counter`] and [`SlowCounter`] name.
    pub counters: BTreeMap<String, u64>,
    /// By drop reason, workers and slow path together.
    pub drops: BTreeMap<String, u64>,
    /// By drop reason, the slow path's part.
    pub slow_drops: BTreeMap<String, u64>,
    /// The XDP program's decisions, as `INTERFACE.NAME`.
    pub steering: BTreeMap<String, u64>,
    /// The kernel's statistics of the AF_XDP sockets, as `INTERFACE.NAME`.
    pub socket: BTreeMap<String, u64>,
}

impl Counters {
    /// Reads the object of `tandemctl --json show counters`.
    ///
    /// # Errors
    /// Where a list is missing.
    pub fn from_json(json: &Value) -> Result<Self> {
        let list = |name: &str| -> Result<BTreeMap<String, u64>> {
            names(&json[name]).with_context(|| format!("show counters has no list `{name}`: {json}"))
        };
        let mut counters = list("counters")?;
        counters.extend(list("slow")?);
        Ok(Self {
            counters,
            drops: list("drops")?,
            slow_drops: list("slow_drops")?,
            steering: BTreeMap::new(),
            socket: BTreeMap::new(),
        })
    }

    /// One counter that is no drop; 0 where there is none of that name.
    #[must_use]
    pub fn counter(&self, name: &str) -> u64 {
        self.counters.get(name).copied().unwrap_or(0)
    }

    /// One drop reason.
    #[must_use]
    pub fn dropped(&self, name: &str) -> u64 {
        self.drops.get(name).copied().unwrap_or(0)
    }

    /// The counter, drop reason or decision (`INTERFACE.NAME`) of that name.
    #[must_use]
    pub fn any(&self, name: &str) -> u64 {
        self.counter(name) + self.dropped(name) + self.steering.get(name).copied().unwrap_or(0)
    }

    /// (Frames that the XDP program steered, frames that the workers received or the kernel's sockets
    /// had to drop). Equal once traffic has come to rest, as long as the data plane has not been restarted.
    #[must_use]
    pub fn steered(&self) -> (u64, u64) {
        let sum = |list: &BTreeMap<String, u64>, wanted: fn(&str) -> bool| -> u64 {
            list.iter().filter(|(name, _)| wanted(name)).map(|(_, value)| value).sum()
        };
        (
            sum(&self.steering, |name| name.contains(".steered_")),
            self.counter("received")
                + sum(&self.socket, |name| name.ends_with(".rx_dropped") || name.ends_with(".rx_ring_full")),
        )
    }

    /// What was counted since `before`.
    #[must_use]
    pub fn since(&self, before: &Self) -> Self {
        let minus = |now: &BTreeMap<String, u64>, then: &BTreeMap<String, u64>| {
            now.iter()
                .map(|(name, value)| {
                    (name.clone(), value.saturating_sub(then.get(name).copied().unwrap_or(0)))
                })
                .collect()
        };
        Self {
            counters: minus(&self.counters, &before.counters),
            drops: minus(&self.drops, &before.drops),
            slow_drops: minus(&self.slow_drops, &before.slow_drops),
            steering: minus(&self.steering, &before.steering),
            socket: minus(&self.socket, &before.socket),
        }
    }

    /// The drop reasons that are not 0, for a reader.
    #[must_use]
    pub fn drops_text(&self) -> String {
        let shown: Vec<String> = self
            .drops
            .iter()
            .filter(|(_, value)| **value > 0)
            .map(|(name, value)| format!("{name} {value}"))
            .collect();
        if shown.is_empty() { "no drops".to_owned() } else { shown.join(", ") }
    }

    /// The two balances of the data plane: (what came in, what became of it) for the workers and for the
    /// slow path. Each pair must be equal once the traffic has come to rest.
    #[must_use]
    pub fn balances(&self) -> [(u64, u64); 2] {
        let drops: u64 = self.drops.values().sum();
        let slow_drops: u64 = self.slow_drops.values().sum();
        [
            (
                self.counter("received") + self.counter("created") + self.counter("returned"),
                self.counter("forwarded") + self.counter("punted") + drops.saturating_sub(slow_drops),
            ),
            (
                self.counter("punted"),
                self.counter("slow_answered")
                    + self.counter("slow_resumed")
                    + self.counter("slow_held")
                    + slow_drops,
            ),
        ]
    }
}

/// An object of names and numbers.
fn names(json: &Value) -> Option<BTreeMap<String, u64>> {
    json.as_object()?.iter().map(|(name, value)| Some((name.clone(), value.as_u64()?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn counters(received: u64, forwarded: u64, drop: u64) -> Counters {
        Counters::from_json(&json!({
            "counters": {"received": received, "forwarded": forwarded},
            "slow": {},
            "drops": {"no_sa": drop},
            "slow_drops": {},
        }))
        .expect("all lists are there")
    }

    #[test]
    fn the_balance_holds_only_when_every_frame_is_accounted_for() {
        let [(came, went), _] = counters(10, 7, 3).balances();
        assert_eq!(came, went);
        let [(came, went), _] = counters(10, 7, 2).balances();
        assert_ne!(came, went);
    }

    #[test]
    fn a_missing_list_is_an_error_and_not_zero() {
        assert!(Counters::from_json(&json!({"counters": {}, "slow": {}, "drops": {}})).is_err());
    }

    #[test]
    fn differences_are_taken_name_by_name() {
        let since = counters(10, 7, 3).since(&counters(4, 4, 0));
        assert_eq!((since.counter("received"), since.dropped("no_sa")), (6, 3));
        assert_eq!(since.drops_text(), "no_sa 3");
    }

    #[test]
    fn a_mirrored_map_swaps_everything_that_has_a_side() {
        let sa = |spi| StaticSa { spi, transform: "aes128gcm16", key: vec![1; 20] };
        let map = CryptoMap {
            name: "b".to_owned(),
            priority: 1,
            local: Ipv4Addr::new(192, 0, 2, 1),
            peer: Ipv4Addr::new(198, 51, 100, 1),
            protect: vec![("10.1.0.0/24".parse().expect("a net"), "10.2.0.0/24".parse().expect("a net"))],
            inbound: sa(1),
            outbound: sa(2),
        };
        let mirrored = map.mirrored("a");
        assert_eq!((mirrored.local, mirrored.peer), (map.peer, map.local));
        assert_eq!((mirrored.inbound.spi, mirrored.outbound.spi), (2, 1));
        assert_eq!(mirrored.protect[0], (map.protect[0].1, map.protect[0].0));
    }
}

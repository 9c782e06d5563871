//! The two sites that all scenarios use.
//!
//! ```text
//!  host-a -- [in-a] -- gw-a -- [out-a] -- router -- [out-b] -- gw-b -- [in-b] -- host-b
//!                                 |  \___ router2 ___/ |
//!                               guest-a             guest-b
//! ```
//!
//! The segments in brackets are bridges in a namespace of their own, where captures are taken. Each
//! gateway has a kernel address (`.2`) beside the virtual one (`.1`), which lives in the data plane
//! alone. The routers know nothing of the inside prefixes of the sites but the way to site A's gateway
//! for traffic that no policy protects, so that a protected packet in clear has nowhere to hide.

use crate::capture::{Capture, Recorded};
use crate::gateway::{CryptoMap, Gateway, Interface, Settings, StaticSa};
use crate::judge::{self, Expectation};
use crate::lab::{Lab, Namespace};
use crate::run::Run;
use anyhow::Result;
use ipnet::Ipv4Net;
use serde_json::json;
use std::net::Ipv4Addr;
use std::path::Path;

/// Host of site A.
pub const HOST_A: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 10);
/// Host of site B.
pub const HOST_B: Ipv4Addr = Ipv4Addr::new(10, 2, 0, 10);
/// Inside virtual address of gateway A.
pub const INSIDE_A: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 1);
/// Inside virtual address of gateway B.
pub const INSIDE_B: Ipv4Addr = Ipv4Addr::new(10, 2, 0, 1);
/// Outside virtual address of gateway A.
pub const OUTSIDE_A: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
/// Outside virtual address of gateway B.
pub const OUTSIDE_B: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
/// A host that is neither site's, on the router.
pub const ELSEWHERE: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);
/// Virtual MAC of gateway A's outside.
pub const OUTSIDE_A_MAC: [u8; 6] = [0x00, 0x00, 0x0c, 0x9f, 0xf0, 0x02];
/// A guest of the outside segment of site A: attacker.
pub const GUEST_A: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 66);
/// A guest of the outside segment of site B: another IPsec peer.
pub const GUEST_B: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 77);
/// SPI of the SA from A to B.
pub const SPI_A_TO_B: u32 = 0x2001;
/// SPI of the SA from B to A.
pub const SPI_B_TO_A: u32 = 0x1001;

/// What a scenario wants otherwise.
#[derive(Clone, Debug)]
pub struct Options {
    /// MSS clamp on all interfaces.
    pub mss_clamp: bool,
    /// Transform of the site-to-site SAs.
    pub transform: &'static str,
    /// More crypto maps of gateway A.
    pub more_a: Vec<CryptoMap>,
    /// More crypto maps of gateway B.
    pub more_b: Vec<CryptoMap>,
    /// Capture site B's outside segment too.
    pub capture_b: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            mss_clamp: true,
            transform: "aes128gcm16",
            more_a: Vec::new(),
            more_b: Vec::new(),
            capture_b: false,
        }
    }
}

/// The sites, running.
#[derive(Debug)]
pub struct Sites {
    captures: Vec<Capture>,
    /// Gateway of site A.
    pub a: Gateway,
    /// Gateway of site B.
    pub b: Gateway,
    /// Host of site A.
    pub host_a: Namespace,
    /// Host of site B.
    pub host_b: Namespace,
    /// The bridges: `in-a`, `out-a`, `out-b`, `in-b`; their ports are named for the owner (`p-gw-a-out`).
    pub switch: Namespace,
    /// The router; `eth0` faces site A, `eth1` site B.
    pub router: Namespace,
    /// The second router.
    pub router2: Namespace,
    /// A guest on the outside segment of site A.
    pub guest_a: Namespace,
    /// A guest on the outside segment of site B.
    pub guest_b: Namespace,
    // Last: the namespaces go after what runs in them.
    lab: Lab,
}

/// The protected prefixes of the two sites.
#[must_use]
pub fn protected() -> (Ipv4Net, Ipv4Net) {
    (net(10, 1, 0, 24), net(10, 2, 0, 24))
}

fn net(a: u8, b: u8, c: u8, length: u8) -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, 0), length)
}

/// The crypto map of gateway A for site B, with fresh random keys.
///
/// # Errors
/// Where the kernel gives no random octets.
pub fn site_map(transform: &'static str) -> Result<CryptoMap> {
    Ok(CryptoMap {
        name: "site-b".to_owned(),
        priority: 100,
        local: OUTSIDE_A,
        peer: OUTSIDE_B,
        protect: vec![protected()],
        inbound: StaticSa::random(SPI_B_TO_A, transform)?,
        outbound: StaticSa::random(SPI_A_TO_B, transform)?,
    })
}

impl Sites {
    /// Lays everything out, starts captures and gateways and waits until they are ready.
    ///
    /// # Errors
    /// Where a part cannot be made or a daemon does not become ready.
    pub fn up(run: &mut Run, options: Options) -> Result<Self> {
        run.say("laying out two sites, two gateways and the network between them");
        let mut lab = Lab::new(run.folder())?;
        let switch = lab.namespace("sw")?;
        let [host_a, gw_a, router, router2, gw_b, host_b, guest_a, guest_b] =
            ["ha", "ga", "r1", "r2", "gb", "hb", "xa", "xb"].map(|name| lab.namespace(name));
        let (host_a, gw_a, router, router2) = (host_a?, gw_a?, router?, router2?);
        let (gw_b, host_b, guest_a, guest_b) = (gw_b?, host_b?, guest_a?, guest_b?);
        for hook in ["arptables", "iptables", "ip6tables"] {
            // Where the kernel has it, its packet filter would look into bridged frames and drop malformed ones.
            let key = format!("net/bridge/bridge-nf-call-{hook}");
            if switch.enter(|| Ok(Path::new("/proc/sys").join(&key).exists()))? {
                switch.sysctl(&key, "0")?;
            }
        }
        for bridge in ["in-a", "out-a", "out-b", "in-b"] {
            switch.run(&format!("ip link add {bridge} type bridge forward_delay 0 mcast_snooping 0"))?;
            switch.run(&format!("ip link set {bridge} up"))?;
        }
        for (namespace, device, bridge, port, address) in [
            (&host_a, "eth0", "in-a", "p-host-a", "10.1.0.10/24"),
            (&gw_a, "in0", "in-a", "p-gw-a-in", "10.1.0.2/24"),
            (&gw_a, "out0", "out-a", "p-gw-a-out", "192.0.2.2/24"),
            (&router, "eth0", "out-a", "p-router-a", "192.0.2.254/24"),
            (&router, "eth1", "out-b", "p-router-b", "198.51.100.254/24"),
            (&router2, "eth0", "out-a", "p-router2-a", "192.0.2.253/24"),
            (&router2, "eth1", "out-b", "p-router2-b", "198.51.100.253/24"),
            (&gw_b, "out0", "out-b", "p-gw-b-out", "198.51.100.2/24"),
            (&gw_b, "in0", "in-b", "p-gw-b-in", "10.2.0.2/24"),
            (&host_b, "eth0", "in-b", "p-host-b", "10.2.0.10/24"),
            (&guest_a, "eth0", "out-a", "p-guest-a", "192.0.2.66/24"),
            (&guest_b, "eth0", "out-b", "p-guest-b", "198.51.100.77/24"),
        ] {
            lab.link((namespace, device), (&switch, port), 1)?;
            // With a queue the kernel holds a sender back when the receiving veth's ring (256 frames) is
            // full, where it would drop otherwise; a card's link does the same by its speed.
            switch.run(&format!("tc qdisc replace dev {port} root pfifo limit 10000"))?;
            switch.run(&format!("ip link set {port} master {bridge}"))?;
            namespace.run(&format!("ip addr add {address} dev {device}"))?;
        }
        for (namespace, route) in [
            (&host_a, format!("default via {INSIDE_A}")),
            (&host_b, format!("default via {INSIDE_B}")),
            (&gw_a, "default via 192.0.2.254".to_owned()),
            (&gw_b, "default via 198.51.100.254".to_owned()),
            (&guest_a, "default via 192.0.2.254".to_owned()),
            (&guest_b, "default via 198.51.100.254".to_owned()),
            (&router, "10.1.0.0/24 via 192.0.2.2".to_owned()),
        ] {
            namespace.run(&format!("ip route add {route}"))?;
        }
        router.run(&format!("ip addr add {ELSEWHERE}/32 dev lo"))?;
        for gateway in [&gw_a, &gw_b] {
            look_again_at_macs(gateway, &["in0", "out0"])?;
        }

        let captures = {
            let mut captures = vec![Capture::start(&switch, lab.folder(), "out-a", "out-a", "")?];
            if options.capture_b {
                captures.push(Capture::start(&switch, lab.folder(), "out-b", "out-b", "")?);
            }
            captures
        };
        let map = site_map(options.transform)?;
        let mut maps_a = vec![map.clone()];
        maps_a.extend(options.more_a);
        let mut maps_b = vec![map.mirrored("site-a")];
        maps_b.extend(options.more_b);
        let settings =
            |name: &str, inside: Ipv4Addr, outside: Ipv4Addr, last: u8, maps: Vec<CryptoMap>| Settings {
                name: name.to_owned(),
                workers: 1,
                max_sas: 4096,
                interfaces: [("in0", "inside", inside, last), ("out0", "outside", outside, last + 1)]
                    .map(|(name, side, address, last)| Interface {
                        name,
                        side,
                        virtual_address: Ipv4Net::new_assert(address, 24),
                        virtual_mac: [0x00, 0x00, 0x0c, 0x9f, 0xf0, last],
                        mss_clamp: options.mss_clamp,
                    })
                    .to_vec(),
                maps,
            };
        let mut a =
            Gateway::prepare(&gw_a, lab.folder(), "gw-a", settings("gw-a", INSIDE_A, OUTSIDE_A, 1, maps_a))?;
        let mut b =
            Gateway::prepare(&gw_b, lab.folder(), "gw-b", settings("gw-b", INSIDE_B, OUTSIDE_B, 3, maps_b))?;
        run.say("starting both gateways");
        a.start()?;
        b.start()?;
        Ok(Self { captures, a, b, host_a, host_b, switch, router, router2, guest_a, guest_b, lab })
    }

    /// Folder of logs and captures.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.lab.folder()
    }

    /// Checks that belong at the end of every scenario: both gateways live and account for every frame,
    /// the captures lost nothing, and the judges find nothing wrong in them.
    ///
    /// # Errors
    /// Where a judge cannot be run.
    pub fn finish(mut self, run: &mut Run, expectation: &Expectation) -> Result<()> {
        let mut captures = Vec::new();
        for capture in std::mem::take(&mut self.captures) {
            captures.push(capture.stop()?);
        }
        for gateway in [&mut self.a, &mut self.b] {
            let name = gateway.settings.name.clone();
            let alive = gateway.is_alive();
            run.check(&format!("{name}: both daemons live at the end"), alive, alive);
            check_balances(run, gateway)?;
        }
        self.judge(run, &captures, expectation)
    }

    fn judge(&self, run: &mut Run, captures: &[Recorded], expectation: &Expectation) -> Result<()> {
        let keys = self.folder().join("keys.json");
        std::fs::write(&keys, serde_json::to_string(&self.keys())?)?;
        for capture in captures {
            judge::check_capture(run, capture, &keys, expectation)?;
        }
        Ok(())
    }

    /// Every SA of both gateways, for the judges.
    fn keys(&self) -> serde_json::Value {
        let mut keys = Vec::new();
        for gateway in [&self.a, &self.b] {
            for map in &gateway.settings.maps {
                for (sa, source, destination) in
                    [(&map.outbound, map.local, map.peer), (&map.inbound, map.peer, map.local)]
                {
                    keys.push(json!({
                        "spi": sa.spi, "source": source, "destination": destination,
                        "transform": sa.transform, "key": sa.key_hex(),
                    }));
                }
            }
        }
        json!(keys)
    }

    /// Writes the judges' key file and gives its path.
    ///
    /// # Errors
    /// Where it cannot be written.
    pub fn write_keys(&self) -> Result<std::path::PathBuf> {
        let path = self.folder().join("keys.json");
        std::fs::write(&path, serde_json::to_string(&self.keys())?)?;
        Ok(path)
    }

    /// Ends the captures early and gives what was recorded; [`Self::finish`] then judges none.
    ///
    /// # Errors
    /// Where tcpdump gives no account.
    pub fn stop_captures(&mut self) -> Result<Vec<Recorded>> {
        std::mem::take(&mut self.captures).into_iter().map(Capture::stop).collect()
    }

    /// Another flow of site A to site B, or back.
    #[must_use]
    pub fn flow(
        &self,
        a_to_b: bool,
        port: u16,
        per_second: u32,
        payload: usize,
    ) -> crate::traffic::flow::FlowSettings {
        let (from, to) = if a_to_b { (HOST_A, HOST_B) } else { (HOST_B, HOST_A) };
        crate::traffic::flow::FlowSettings { from, to, port, per_second, payload }
    }

    /// Starts a numbered flow from site A to site B, or back.
    ///
    /// # Errors
    /// Where a socket cannot be made.
    pub fn start_flow(
        &self,
        a_to_b: bool,
        port: u16,
        per_second: u32,
        payload: usize,
    ) -> Result<crate::traffic::flow::Flow> {
        let (sender, receiver) =
            if a_to_b { (&self.host_a, &self.host_b) } else { (&self.host_b, &self.host_a) };
        crate::traffic::flow::Flow::start(sender, receiver, self.flow(a_to_b, port, per_second, payload))
    }
}

/// A card's driver decides after the XDP program whether a frame is for this host; a veth decides before
/// it and does not look again, so that the kernel would drop what came for the virtual MAC though the
/// program has given it the interface's own. This looks again, as a card would.
fn look_again_at_macs(gateway: &Namespace, devices: &[&str]) -> Result<()> {
    gateway.run("nft add table netdev lab")?;
    for device in devices {
        let mac = crate::gateway::mac_text(gateway.mac(device)?);
        gateway.run(&format!(
            "nft add chain netdev lab {device} {{ type filter hook ingress device {device} priority 0 ; }}"
        ))?;
        gateway.run(&format!("nft add rule netdev lab {device} ether daddr {mac} meta pkttype set host"))?;
    }
    Ok(())
}

/// Every frame that a gateway received is accounted for, once traffic has come to rest.
///
/// # Errors
/// Where the counters cannot be read.
pub fn check_balances(run: &mut Run, gateway: &Gateway) -> Result<()> {
    let all = balances(gateway)?;
    let name = &gateway.settings.name;
    for (what, came, went) in all {
        run.check(&format!("{name}: {what}"), came == went, format!("{came} = {went}"));
    }
    Ok(())
}

/// The balances that must hold, once traffic has come to rest: what, and its two sides.
///
/// # Errors
/// Where the counters cannot be read.
pub fn balances(gateway: &Gateway) -> Result<Vec<(&'static str, u64, u64)>> {
    let read = || -> Result<Vec<(&'static str, u64, u64)>> {
        let counters = gateway.counters()?;
        let [workers, slow] = counters.balances();
        let mut all = vec![
            ("received + created + returned = forwarded + punted + each drop", workers.0, workers.1),
            ("punted = answered + resumed + held + each drop of the slow path", slow.0, slow.1),
        ];
        if !gateway.was_restarted() {
            let (steered, taken) = counters.steered();
            all.push(("steered by XDP = received + dropped by the kernel's sockets", steered, taken));
        }
        Ok(all)
    };
    // A frame may be in hand at the very moment of one reading, never for long.
    let mut all = read()?;
    for _ in 0..20 {
        if all.iter().all(|(_, came, went)| came == went) {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(100));
        all = read()?;
    }
    Ok(all)
}

//! The two sites without their gateways: hosts, bridges, routers and guests.
//!
//! ```text
//!  host-a -- [in-a] --   (gateways)   -- [out-a] -- router -- [out-b] --   (gateways)   -- [in-b] -- host-b
//!                                           |  \___ router2 ___/ |
//!                                         guest-a             guest-b
//! ```
//!
//! The segments in brackets are bridges in a namespace of their own, where captures are taken; their ports
//! are named for the owner.

use crate::lab::{Lab, Namespace};
use crate::traffic::flow::{Flow, FlowSettings};
use anyhow::Result;
use ipnet::Ipv4Net;
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

/// The protected prefixes of the two sites.
#[must_use]
pub fn protected() -> (Ipv4Net, Ipv4Net) {
    (net(10, 1, 0, 24), net(10, 2, 0, 24))
}

fn net(a: u8, b: u8, c: u8, length: u8) -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, 0), length)
}

/// The sites without gateways.
#[derive(Debug)]
pub struct Network {
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

impl Network {
    /// Lays everything out but the gateways.
    ///
    /// # Errors
    /// Where a part cannot be made.
    pub fn lay(folder: &Path) -> Result<Self> {
        let mut lab = Lab::new(folder)?;
        let switch = lab.namespace("sw")?;
        let [host_a, router, router2, host_b, guest_a, guest_b] =
            ["ha", "r1", "r2", "hb", "xa", "xb"].map(|name| lab.namespace(name));
        let network = Self {
            host_a: host_a?,
            host_b: host_b?,
            switch,
            router: router?,
            router2: router2?,
            guest_a: guest_a?,
            guest_b: guest_b?,
            lab,
        };
        let switch = &network.switch;
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
            (&network.host_a, "eth0", "in-a", "p-host-a", "10.1.0.10/24"),
            (&network.router, "eth0", "out-a", "p-router-a", "192.0.2.254/24"),
            (&network.router, "eth1", "out-b", "p-router-b", "198.51.100.254/24"),
            (&network.router2, "eth0", "out-a", "p-router2-a", "192.0.2.253/24"),
            (&network.router2, "eth1", "out-b", "p-router2-b", "198.51.100.253/24"),
            (&network.host_b, "eth0", "in-b", "p-host-b", "10.2.0.10/24"),
            (&network.guest_a, "eth0", "out-a", "p-guest-a", "192.0.2.66/24"),
            (&network.guest_b, "eth0", "out-b", "p-guest-b", "198.51.100.77/24"),
        ] {
            network.plug(namespace, device, (bridge, port), address)?;
        }
        for (namespace, route) in [
            (&network.host_a, format!("default via {INSIDE_A}")),
            (&network.host_b, format!("default via {INSIDE_B}")),
            (&network.guest_a, "default via 192.0.2.254".to_owned()),
            (&network.guest_b, "default via 198.51.100.254".to_owned()),
            (&network.router, "10.1.0.0/24 via 192.0.2.2".to_owned()),
        ] {
            namespace.run(&format!("ip route add {route}"))?;
        }
        network.router.run(&format!("ip addr add {ELSEWHERE}/32 dev lo"))?;
        Ok(network)
    }

    /// Adds the namespace of a gateway: `in0` and `out0`, each with its bridge and kernel address, and the
    /// default route. The ports of the bridges are `p-NAME-in` and `p-NAME-out`.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn gateway(
        &mut self,
        name: &str,
        inside: (&str, &str),
        outside: (&str, &str),
        next_hop: &str,
    ) -> Result<Namespace> {
        let gateway = self.lab.namespace(name)?;
        for (device, side, (bridge, address)) in [("in0", "in", inside), ("out0", "out", outside)] {
            self.plug(&gateway, device, (bridge, &format!("p-{name}-{side}")), address)?;
        }
        gateway.run(&format!("ip route add default via {next_hop}"))?;
        look_again_at_macs(&gateway, &["in0", "out0"])?;
        Ok(gateway)
    }

    fn plug(
        &self,
        namespace: &Namespace,
        device: &str,
        (bridge, port): (&str, &str),
        address: &str,
    ) -> Result<()> {
        self.lab.link((namespace, device), (&self.switch, port), 1)?;
        // With a queue the kernel holds a sender back when the receiving veth's ring (256 frames) is
        // full, where it would drop otherwise; a card's link does the same by its speed.
        self.switch.run(&format!("tc qdisc replace dev {port} root pfifo limit 10000"))?;
        self.switch.run(&format!("ip link set {port} master {bridge}"))?;
        namespace.run(&format!("ip addr add {address} dev {device}"))?;
        Ok(())
    }

    /// A veth pair straight between two namespaces.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn cable(&self, a: (&Namespace, &str, &str), b: (&Namespace, &str, &str)) -> Result<()> {
        self.lab.link((a.0, a.1), (b.0, b.1), 1)?;
        for (namespace, device, address) in [a, b] {
            namespace.run(&format!("ip addr add {address} dev {device}"))?;
        }
        Ok(())
    }

    /// Folder of logs and captures.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.lab.folder()
    }

    /// Another flow of site A to site B, or back.
    #[must_use]
    pub fn flow(&self, a_to_b: bool, port: u16, per_second: u32, payload: usize) -> FlowSettings {
        let (from, to) = if a_to_b { (HOST_A, HOST_B) } else { (HOST_B, HOST_A) };
        FlowSettings { from, to, port, per_second, payload }
    }

    /// Starts a numbered flow from site A to site B, or back.
    ///
    /// # Errors
    /// Where a socket cannot be made.
    pub fn start_flow(&self, a_to_b: bool, port: u16, per_second: u32, payload: usize) -> Result<Flow> {
        let (sender, receiver) =
            if a_to_b { (&self.host_a, &self.host_b) } else { (&self.host_b, &self.host_a) };
        Flow::start(sender, receiver, self.flow(a_to_b, port, per_second, payload))
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

//! Site A with a pair of gateways, site B with a lone one.
//!
//! ```text
//!                        +-- gw-a1 --+
//!  host-a -- [in-a] -----|     |     |----- [out-a] -- router -- [out-b] -- gw-b -- [in-b] -- host-b
//!                        |   sync    |         |
//!                        |     |     |      guest-a
//!                        +-- gw-a2 --+
//! ```
//!
//! Both nodes have the same virtual addresses (10.1.0.1, 192.0.2.1) and kernel addresses of their own (.2, .3).
//! They hear each other over `sync0`, a veth straight between them, and over both segments. Witnesses are host A
//! and the router.

mod faults;
mod probes;
mod replay;
mod takeover;
mod view;

pub use faults::Link;
pub use probes::{ProbeResults, Probes};
pub use replay::Attack;
pub use takeover::{Blow, Takeover, outage_figures, strike};
pub use view::{Pairing, View};

use crate::capture::Capture;
use crate::gateway::{CryptoMap, Gateway, PartnerPath, Redundancy, Settings, mac_text};
use crate::judge::{self, Expectation};
use crate::network::{HOST_A, Network, protected};
use crate::run::Run;
use crate::sites::{
    INSIDE_A, INSIDE_B, OUTSIDE_A, OUTSIDE_B, check_balances, place_of_b, settings, site_map,
};
use anyhow::Result;
use std::net::Ipv4Addr;
use std::time::Duration;

/// Milliseconds after which the active node goes on alone (D_a, F20), as the product does by default.
pub const ALONE_MS: f64 = 30.0;
/// Names of the nodes.
pub const NAMES: [&str; 2] = ["gw-a1", "gw-a2"];
/// How long the pair may take until it is redundant (again).
pub const REDUNDANT: Duration = Duration::from_secs(20);

const ROUTER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 254);

/// The sites with the pair, running.
#[derive(Debug)]
pub struct PairSites {
    captures: Option<Captures>,
    /// The nodes of site A's gateway.
    pub nodes: [Gateway; 2],
    /// Gateway of site B.
    pub b: Gateway,
    /// Everything else; last, since the namespaces go after what runs in them.
    pub net: Network,
}

#[derive(Debug)]
struct Captures {
    outside: Capture,
    inside_a: Capture,
    inside_b: Capture,
}

impl PairSites {
    /// Lays everything out, starts captures (where they are wanted) and gateways and waits until the pair is
    /// redundant.
    ///
    /// # Errors
    /// Where a part cannot be made, or the pair does not become redundant.
    pub fn up(run: &mut Run, capture: bool) -> Result<Self> {
        Self::up_with(run, capture, &[])
    }

    /// As [`Self::up`], with more crypto maps of both nodes (mirrored on site B's gateway).
    ///
    /// # Errors
    /// As [`Self::up`].
    pub fn up_with(run: &mut Run, capture: bool, more: &[CryptoMap]) -> Result<Self> {
        run.say("laying out two sites, a pair of gateways, a lone one and the network between them");
        let mut net = Network::lay(run.folder())?;
        let places = [
            net.gateway("gw-a1", ("in-a", "10.1.0.2/24"), ("out-a", "192.0.2.2/24"), "192.0.2.254")?,
            net.gateway("gw-a2", ("in-a", "10.1.0.3/24"), ("out-a", "192.0.2.3/24"), "192.0.2.254")?,
        ];
        net.cable((&places[0], "sync0", "10.255.0.1/24"), (&places[1], "sync0", "10.255.0.2/24"))?;
        net.router.run(&format!("ip route replace 10.1.0.0/24 via {OUTSIDE_A}"))?;
        let place_b = place_of_b(&mut net)?;
        let captures = if capture {
            let start = |device: &str| Capture::start(&net.switch, net.folder(), device, device, "");
            Some(Captures { outside: start("out-a")?, inside_a: start("in-a")?, inside_b: start("in-b")? })
        } else {
            None
        };
        let mut maps = vec![site_map("aes128gcm16")?];
        maps.extend_from_slice(more);
        let prepare = |node: usize| {
            let mut settings: Settings = settings(NAMES[node], (INSIDE_A, OUTSIDE_A), 1, true, maps.clone());
            for interface in &mut settings.interfaces {
                interface.witness = Some(if interface.side == "inside" { HOST_A } else { ROUTER });
            }
            Gateway::prepare(&places[node], net.folder(), NAMES[node], settings)
        };
        let mut nodes = [prepare(0)?, prepare(1)?];
        let keys = [nodes[0].node_key()?, nodes[1].node_key()?];
        for (index, node) in nodes.iter_mut().enumerate() {
            node.settings.redundancy =
                Some(Redundancy { partner_key: keys[1 - index].clone(), priority: 100, paths: paths(index) });
            node.write_configuration()?;
        }
        let mirrored = maps
            .iter()
            .map(|map| map.mirrored(if map.name == "site-b" { "site-a" } else { &map.name }))
            .collect();
        let settings_b = settings("gw-b", (INSIDE_B, OUTSIDE_B), 3, true, mirrored);
        let b = Gateway::prepare(&place_b, net.folder(), "gw-b", settings_b)?;
        let mut sites = Self { captures, nodes, b, net };
        run.say("starting the three gateways");
        for node in &mut sites.nodes {
            node.start_dataplane()?;
            node.start_control()?;
        }
        sites.b.start()?;
        for node in &mut sites.nodes {
            node.wait_ready()?;
        }
        let pairing = sites.wait_redundant(REDUNDANT)?;
        run.say(format_args!(
            "{} is active in term {}, {} is its synchronized standby",
            NAMES[pairing.active], pairing.term, NAMES[pairing.standby]
        ));
        Ok(sites)
    }

    /// What the captures of a pair must and may hold: after so many takeovers.
    ///
    /// # Errors
    /// Where a device is gone.
    pub fn expectation(&self, run: &Run, at_least_esp: u64, takeovers: usize) -> Result<Expectation> {
        let mut expectation = Expectation::of_sites(run, at_least_esp);
        for node in &self.nodes {
            expectation.nodes.push(mac_text(node.namespace.mac("out0")?));
        }
        expectation.ignore.push(mac_text(self.net.guest_a.mac("eth0")?));
        expectation.at_least_reigns = takeovers + 1;
        Ok(expectation)
    }

    /// Checks that belong at the end of every scenario of a pair: all gateways live and account for every frame,
    /// the captures lost nothing, and the judges find nothing wrong in them, outside and inside.
    ///
    /// # Errors
    /// Where a judge cannot be run.
    pub fn finish(mut self, run: &mut Run, expectation: &Expectation) -> Result<()> {
        let captures = match self.captures.take() {
            Some(captures) => {
                Capture::stop_all(vec![captures.outside, captures.inside_a, captures.inside_b])?
            }
            None => Vec::new(),
        };
        for gateway in self.nodes.iter_mut().chain([&mut self.b]) {
            let name = gateway.settings.name.clone();
            let alive = gateway.is_alive();
            run.check(&format!("{name}: both daemons live at the end"), alive, alive);
            check_balances(run, gateway)?;
        }
        let keys = judge::write_keys(self.net.folder(), &[&self.nodes[0], &self.b])?;
        let (a, b) = (protected().0.to_string(), protected().1.to_string());
        if let [outside, inside_a, inside_b] = captures.as_slice() {
            judge::check_capture(run, outside, &keys, expectation)?;
            judge::check_inside(run, inside_a, (&b, &a), expectation.at_least_esp / 4)?;
            judge::check_inside(run, inside_b, (&a, &b), expectation.at_least_esp / 4)?;
        }
        Ok(())
    }
}

/// Ways from a node to its partner: the sync link, then both segments.
fn paths(node: usize) -> Vec<PartnerPath> {
    let path = |name, network: [u8; 3], hosts: [u8; 2]| {
        let address = |host| Ipv4Addr::new(network[0], network[1], network[2], host);
        PartnerPath { name, local: address(hosts[node]), remote: address(hosts[1 - node]) }
    };
    vec![
        path("sync", [10, 255, 0], [1, 2]),
        path("inside", [10, 1, 0], [2, 3]),
        path("outside", [192, 0, 2], [2, 3]),
    ]
}

#[cfg(test)]
mod tests {
    use super::paths;

    #[test]
    fn the_paths_of_one_node_are_those_of_the_other_seen_from_there() {
        for (one, other) in paths(0).iter().zip(paths(1)) {
            assert_eq!((one.name, one.local, one.remote), (other.name, other.remote, other.local));
        }
    }
}

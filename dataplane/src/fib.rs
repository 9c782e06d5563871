//! Where packets go: an immutable snapshot of the kernel's routes and neighbours.
//!
//! [`Kernel`] is what netlink told us, [`Fib`] is what workers read. Each neighbour of a connected
//! network becomes a host entry of the trie, so that a worker finds port and MAC with one look-up.

use crate::prefix_table::{Prefix, PrefixTable};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::Ipv4Addr;
use tandem_wire::ethernet::MacAddr;

/// Number of an interface within the data plane (position in its configuration).
pub type PortIndex = u16;

/// A resolved next hop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Adjacency {
    /// Interface.
    pub port: PortIndex,
    /// MTU of the interface in octets (IP packet).
    pub mtu: u16,
    /// Frames go to this MAC ...
    pub destination: MacAddr,
    /// ... from this one, the interface's own (`failover.md` F29).
    pub source: MacAddr,
}

/// Where a destination leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// To a resolved next hop.
    Adjacency(Adjacency),
    /// To a next hop whose MAC is not known (yet).
    Unresolved {
        /// Interface.
        port: PortIndex,
        /// MTU of the interface in octets.
        mtu: u16,
        /// Next hop (host byte order); `None`: the destination itself, on a connected network.
        next_hop: Option<u32>,
    },
    /// To this host's own kernel.
    Own,
    /// Nowhere: a blackhole, unreachable or prohibit route.
    Blackhole,
    /// Out of an interface that Tandem does not own.
    Foreign,
    /// Out of an interface that is down.
    Down,
}

/// Immutable forwarding snapshot.
#[derive(Debug, Default)]
pub struct Fib {
    table: PrefixTable,
    targets: Vec<Target>,
}

impl Fib {
    /// Where `destination` (host byte order) leads; `None`: no route.
    #[inline]
    #[must_use]
    pub fn lookup(&self, destination: u32) -> Option<&Target> {
        self.targets.get(self.table.lookup(destination)? as usize)
    }
}

/// What is known of a kernel link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Name.
    pub name: String,
    /// Kind of a virtual link (`veth`, `bridge`, ...).
    pub kind: Option<String>,
    /// Own MAC.
    pub mac: MacAddr,
    /// MTU in octets.
    pub mtu: u32,
    /// Administratively up and carrier.
    pub up: bool,
}

/// Key of a route: the kernel keeps several of one prefix, told apart by metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RouteKey {
    /// Destination.
    pub prefix: Prefix,
    /// Priority: lowest wins.
    pub metric: u32,
    /// Disambiguates routes of one prefix and metric (by TOS or gateway).
    pub tag: u64,
}

/// What a route says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// Out of an interface, by a gateway (host byte order) or directly.
    Via {
        /// Kernel index of the interface.
        ifindex: u32,
        /// Gateway, or `None` on a connected network.
        gateway: Option<u32>,
    },
    /// Blackhole, unreachable, prohibit.
    Blackhole,
}

/// The part of the kernel's state that forwarding follows.
#[derive(Clone, Debug, Default)]
pub struct Kernel {
    /// Links by kernel index.
    pub links: BTreeMap<u32, Link>,
    /// The host's own addresses (host byte order), with the link's index.
    pub addresses: BTreeMap<(u32, u32), u8>,
    /// Routes of the main table.
    pub routes: BTreeMap<RouteKey, Route>,
    /// Resolved neighbours by (link, address in host byte order).
    pub neighbours: BTreeMap<(u32, u32), MacAddr>,
    /// Those of them that the kernel does not resolve itself (permanent, no ARP): to be left as they are.
    pub fixed: BTreeSet<(u32, u32)>,
}

impl Kernel {
    /// Compiles a snapshot for `ports`: kernel index to number within the data plane.
    #[must_use]
    pub fn compile(&self, ports: &HashMap<u32, PortIndex>) -> Fib {
        let mut targets = Vec::new();
        let mut entries: Vec<(Prefix, u32)> = Vec::new();
        let mut add = |entries: &mut Vec<(Prefix, u32)>, prefix, target| {
            entries.push((prefix, targets.len() as u32));
            targets.push(target);
        };
        // Connected networks first collect which neighbours may become host entries.
        let best = self.best_routes();
        for (&prefix, route) in &best {
            let target = match *route {
                Route::Blackhole => Target::Blackhole,
                Route::Via { ifindex, gateway } => self.target(ports, ifindex, gateway),
            };
            add(&mut entries, prefix, target);
        }
        let covering =
            PrefixTable::build(best.keys().enumerate().map(|(index, &prefix)| (prefix, index as u32)));
        let ordered: Vec<&Route> = best.values().collect();
        for &(ifindex, address) in self.neighbours.keys() {
            // Only where the connected network of that very interface decides; a host route that leads
            // elsewhere keeps its word.
            let on_link = covering.lookup(address).is_some_and(|index| {
                matches!(ordered[index as usize], Route::Via { ifindex: i, gateway: None } if *i == ifindex)
            });
            if on_link {
                add(&mut entries, Prefix::new(address, 32), self.target(ports, ifindex, Some(address)));
            }
        }
        for &(_, address) in self.addresses.keys() {
            add(&mut entries, Prefix::new(address, 32), Target::Own);
        }
        Fib { table: PrefixTable::build(entries), targets }
    }

    /// The first next hop of a route over a link that `is_wanted`.
    #[must_use]
    pub fn next_hop(&self, ifindex: u32, is_wanted: impl Fn(&Ipv4Addr) -> bool) -> Option<Ipv4Addr> {
        let gateway = |route: &Route| match *route {
            Route::Via { ifindex: over, gateway: Some(gateway) } if over == ifindex => {
                Some(Ipv4Addr::from_bits(gateway)).filter(&is_wanted)
            }
            _ => None,
        };
        self.routes.values().find_map(gateway)
    }

    /// The host's own address on a link from which `destination` is asked: one whose network holds it, else any.
    #[must_use]
    pub fn address_towards(&self, ifindex: u32, destination: Ipv4Addr) -> Option<Ipv4Addr> {
        let own = || self.addresses.iter().filter(|((link, _), _)| *link == ifindex);
        let holds = |address: u32, length: u8| {
            let mask = u32::MAX.checked_shl(32 - u32::from(length.min(32))).unwrap_or(0);
            (address ^ destination.to_bits()) & mask == 0
        };
        let near = own().find(|((_, address), length)| holds(*address, **length));
        near.or_else(|| own().next()).map(|((_, address), _)| Ipv4Addr::from_bits(*address))
    }

    fn best_routes(&self) -> BTreeMap<Prefix, Route> {
        let mut best = BTreeMap::new();
        // Keys are in order of prefix, then metric: the first of a prefix is the one that counts.
        for (key, route) in &self.routes {
            best.entry(key.prefix).or_insert(*route);
        }
        best
    }

    fn target(&self, ports: &HashMap<u32, PortIndex>, ifindex: u32, next_hop: Option<u32>) -> Target {
        let (Some(&port), Some(link)) = (ports.get(&ifindex), self.links.get(&ifindex)) else {
            return Target::Foreign;
        };
        if !link.up {
            return Target::Down;
        }
        let mtu = link.mtu.min(u32::from(u16::MAX)) as u16;
        match next_hop.and_then(|hop| self.neighbours.get(&(ifindex, hop))) {
            Some(&destination) => Target::Adjacency(Adjacency { port, mtu, destination, source: link.mac }),
            None => Target::Unresolved { port, mtu, next_hop },
        }
    }

    /// Gateways that routes over `ports` name and that should be kept resolved: (link, address).
    #[must_use]
    pub fn gateways(&self, ports: &HashMap<u32, PortIndex>) -> Vec<(u32, u32)> {
        let mut gateways: Vec<_> = self
            .routes
            .values()
            .filter_map(|route| match *route {
                Route::Via { ifindex, gateway: Some(gateway) } if ports.contains_key(&ifindex) => {
                    Some((ifindex, gateway))
                }
                _ => None,
            })
            .collect();
        gateways.sort_unstable();
        gateways.dedup();
        gateways
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC_A: MacAddr = MacAddr([2, 0, 0, 0, 0, 0xa]);
    const MAC_B: MacAddr = MacAddr([2, 0, 0, 0, 0, 0xb]);
    const OWN: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);

    fn addr(text: &str) -> u32 {
        text.parse::<std::net::Ipv4Addr>().unwrap().into()
    }

    fn prefix(text: &str) -> Prefix {
        text.parse::<ipnet::Ipv4Net>().unwrap().into()
    }

    fn route(kernel: &mut Kernel, text: &str, metric: u32, route: Route) {
        kernel.routes.insert(RouteKey { prefix: prefix(text), metric, tag: 0 }, route);
    }

    fn kernel() -> (Kernel, HashMap<u32, PortIndex>) {
        let mut kernel = Kernel::default();
        for index in [5, 6, 7] {
            let link = Link { name: format!("if{index}"), kind: None, mac: OWN, mtu: 1500, up: true };
            kernel.links.insert(index, link);
        }
        route(&mut kernel, "10.1.0.0/24", 0, Route::Via { ifindex: 5, gateway: None });
        route(&mut kernel, "192.0.2.0/24", 0, Route::Via { ifindex: 6, gateway: None });
        route(&mut kernel, "0.0.0.0/0", 100, Route::Via { ifindex: 6, gateway: Some(addr("192.0.2.254")) });
        kernel.addresses.insert((5, addr("10.1.0.2")), 24);
        (kernel, HashMap::from([(5, 0), (6, 1)]))
    }

    #[test]
    fn a_connected_neighbour_is_an_adjacency_and_an_unknown_one_is_asked_for() {
        let (mut kernel, ports) = kernel();
        kernel.neighbours.insert((5, addr("10.1.0.9")), MAC_A);
        let fib = kernel.compile(&ports);
        let adjacency = Adjacency { port: 0, mtu: 1500, destination: MAC_A, source: OWN };
        assert_eq!(fib.lookup(addr("10.1.0.9")), Some(&Target::Adjacency(adjacency)));
        let unresolved = Target::Unresolved { port: 0, mtu: 1500, next_hop: None };
        assert_eq!(fib.lookup(addr("10.1.0.10")), Some(&unresolved));
        assert_eq!(fib.lookup(addr("10.1.0.2")), Some(&Target::Own));
    }

    #[test]
    fn a_gateway_is_resolved_for_every_route_through_it() {
        let (mut kernel, ports) = kernel();
        let gateway = addr("192.0.2.254");
        assert_eq!(kernel.gateways(&ports), [(6, gateway)]);
        let unresolved = Target::Unresolved { port: 1, mtu: 1500, next_hop: Some(gateway) };
        assert_eq!(kernel.compile(&ports).lookup(addr("8.8.8.8")), Some(&unresolved));
        kernel.neighbours.insert((6, gateway), MAC_B);
        let adjacency = Adjacency { port: 1, mtu: 1500, destination: MAC_B, source: OWN };
        assert_eq!(kernel.compile(&ports).lookup(addr("8.8.8.8")), Some(&Target::Adjacency(adjacency)));
    }

    #[test]
    fn of_two_routes_of_one_prefix_the_lower_metric_wins() {
        let (mut kernel, ports) = kernel();
        route(&mut kernel, "10.2.0.0/24", 50, Route::Blackhole);
        route(&mut kernel, "10.2.0.0/24", 10, Route::Via { ifindex: 7, gateway: None });
        assert_eq!(kernel.compile(&ports).lookup(addr("10.2.0.1")), Some(&Target::Foreign));
    }

    #[test]
    fn a_host_route_that_leads_elsewhere_beats_a_stale_neighbour() {
        let (mut kernel, ports) = kernel();
        kernel.neighbours.insert((5, addr("10.1.0.9")), MAC_A);
        kernel.neighbours.insert((6, addr("192.0.2.7")), MAC_B);
        route(&mut kernel, "10.1.0.9/32", 0, Route::Via { ifindex: 6, gateway: Some(addr("192.0.2.7")) });
        let adjacency = Adjacency { port: 1, mtu: 1500, destination: MAC_B, source: OWN };
        assert_eq!(kernel.compile(&ports).lookup(addr("10.1.0.9")), Some(&Target::Adjacency(adjacency)));
    }

    #[test]
    fn a_witness_is_the_next_hop_over_its_link_and_is_asked_from_the_address_beside_it() {
        let (mut kernel, _) = kernel();
        let gateway = "192.0.2.254".parse().unwrap();
        assert_eq!(kernel.next_hop(6, |_| true), Some(gateway));
        assert_eq!(kernel.next_hop(6, |address| *address != gateway), None);
        assert_eq!(kernel.next_hop(5, |_| true), None);
        assert_eq!(kernel.address_towards(6, gateway), None);
        kernel.addresses.insert((6, addr("10.9.0.2")), 24);
        assert_eq!(kernel.address_towards(6, gateway), Some("10.9.0.2".parse().unwrap()));
        kernel.addresses.insert((6, addr("192.0.2.2")), 24);
        assert_eq!(kernel.address_towards(6, gateway), Some("192.0.2.2".parse().unwrap()));
    }

    #[test]
    fn an_interface_that_is_down_carries_nothing() {
        let (mut kernel, ports) = kernel();
        kernel.links.get_mut(&6).unwrap().up = false;
        assert_eq!(kernel.compile(&ports).lookup(addr("192.0.2.9")), Some(&Target::Down));
    }
}

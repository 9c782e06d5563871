//! What the slow path needs to know of the kernel: which next hops are resolved.

use crate::fib::{Kernel, PortIndex};
use std::collections::{HashMap, HashSet};

/// Interfaces by number, and resolved neighbours.
#[derive(Debug, Default)]
pub struct Resolution {
    links: HashMap<PortIndex, u32>,
    neighbours: HashSet<(u32, u32)>,
}

impl Resolution {
    /// Of what is known of the kernel.
    #[must_use]
    pub fn new(kernel: &Kernel, ports: &HashMap<u32, PortIndex>) -> Self {
        Self {
            links: ports.iter().map(|(&ifindex, &port)| (port, ifindex)).collect(),
            neighbours: kernel.neighbours.keys().copied().collect(),
        }
    }

    /// Kernel index of an interface.
    #[must_use]
    pub fn ifindex(&self, port: PortIndex) -> Option<u32> {
        self.links.get(&port).copied()
    }

    /// Is the MAC of `next_hop` (host byte order) known?
    #[must_use]
    pub fn is_resolved(&self, port: PortIndex, next_hop: u32) -> bool {
        self.ifindex(port).is_some_and(|ifindex| self.neighbours.contains(&(ifindex, next_hop)))
    }
}

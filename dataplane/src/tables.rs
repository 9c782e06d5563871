//! The configuration as workers read it: an immutable snapshot of interfaces and policies.

use crate::fib::PortIndex;
use crate::policy::PolicyTable;
use tandem_api::types::Side;
use tandem_wire::ethernet::MacAddr;

/// Most interfaces of a data plane.
pub const PORTS_MAX: usize = 16;

/// One interface.
#[derive(Clone, Debug)]
pub struct PortTable {
    /// Side that it faces.
    pub side: Side,
    /// Virtual MAC.
    pub virtual_mac: MacAddr,
    /// Virtual addresses, host byte order.
    pub virtual_addresses: Vec<u32>,
    /// MTU in octets.
    pub mtu: u16,
    /// Clamp the MSS of TCP SYNs that enter or leave here through a tunnel.
    pub mss_clamp: bool,
}

/// Interfaces and policies.
#[derive(Clone, Debug, Default)]
pub struct Tables {
    /// By [`PortIndex`]; `None` where an interface was removed.
    ports: Vec<Option<PortTable>>,
    /// Policies.
    pub policies: PolicyTable,
    /// Every virtual address of every interface, host byte order.
    virtual_addresses: Vec<u32>,
}

impl Tables {
    /// Puts a snapshot together.
    #[must_use]
    pub fn new(ports: Vec<Option<PortTable>>, policies: PolicyTable) -> Self {
        let virtual_addresses =
            ports.iter().flatten().flat_map(|port| port.virtual_addresses.iter().copied()).collect();
        Self { ports, policies, virtual_addresses }
    }

    /// Is `address` (host byte order) a virtual address of this gateway? There are a handful: a scan of
    /// one cache line.
    #[inline]
    #[must_use]
    pub fn is_virtual(&self, address: u32) -> bool {
        self.virtual_addresses.contains(&address)
    }

    /// An interface.
    #[inline]
    #[must_use]
    pub fn port(&self, port: PortIndex) -> Option<&PortTable> {
        self.ports.get(usize::from(port))?.as_ref()
    }

    /// Every interface.
    pub fn ports(&self) -> impl Iterator<Item = &PortTable> {
        self.ports.iter().flatten()
    }

    /// Side of an interface.
    #[inline]
    #[must_use]
    pub fn side(&self, port: PortIndex) -> Option<Side> {
        self.port(port).map(|port| port.side)
    }
}

//! A loaded program with known settings.

use crate::frames::{OWN, OWN_MAC, VIRTUAL, VIRTUAL_MAC};
use crate::lab::Lab;
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Arc;
use tandem_ebpf::{Prefix, Settings, Side, SteerCounter, SteerProgram};
use tandem_xsk::{FreeList, SocketConfig, Umem, XskPort, ZeroCopy};

/// What the program is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Told {
    pub side: Side,
    pub active: bool,
    pub virtual_mac: bool,
    /// The policy covers everything, not 10.20.0.0/16 only.
    pub all_protected: bool,
    /// An AF_XDP socket stands behind queue 0.
    pub data_plane: bool,
}

pub const INSIDE: Told =
    Told { side: Side::Inside, active: true, virtual_mac: true, all_protected: false, data_plane: true };
pub const OUTSIDE: Told = Told { side: Side::Outside, ..INSIDE };

impl Told {
    pub const fn standby(self) -> Self {
        Self { active: false, ..self }
    }
    pub const fn all_protected(self) -> Self {
        Self { all_protected: true, ..self }
    }
    pub const fn without_data_plane(self) -> Self {
        Self { data_plane: false, ..self }
    }
    pub const fn without_virtual_mac(self) -> Self {
        Self { virtual_mac: false, ..self }
    }

    pub fn prefix(self) -> Prefix {
        if self.all_protected { prefix("0.0.0.0", 0) } else { prefix("10.20.0.0", 16) }
    }

    /// Every combination.
    pub fn all() -> Vec<Self> {
        let mut all = Vec::new();
        for side in [Side::Inside, Side::Outside] {
            for bits in 0..16 {
                let bit = |n: u8| bits & (1 << n) != 0;
                all.push(Told {
                    side,
                    active: bit(0),
                    virtual_mac: bit(1),
                    all_protected: bit(2),
                    data_plane: bit(3),
                });
            }
        }
        all
    }
}

pub fn prefix(address: &str, length: u8) -> Prefix {
    Prefix::new(address.parse().expect("an address"), length).expect("a prefix")
}

/// A program for test runs, with a bound AF_XDP socket at hand.
pub struct Bench {
    pub program: SteerProgram,
    pub socket: XskPort,
    counted: BTreeMap<SteerCounter, u64>,
}

impl Bench {
    pub fn new(lab: &Lab) -> Self {
        let (_, socket, _) = socket(lab.ifindex, 0);
        Self { program: load(), socket, counted: BTreeMap::new() }
    }

    pub fn tell(&mut self, told: Told) {
        let settings = Settings {
            side: told.side,
            own_mac: OWN_MAC,
            virtual_mac: told.virtual_mac.then_some(VIRTUAL_MAC),
        };
        self.program.set_settings(&settings).expect("settings");
        self.program.set_active(told.active).expect("the role");
        self.program.set_protected(&[told.prefix()]).expect("prefixes");
        if told.data_plane {
            self.program.set_socket(0, self.socket.fd()).expect("a socket");
        } else {
            self.program.clear_socket(0).expect("no socket");
        }
    }

    /// What was counted since the last time, zeros left out.
    pub fn newly_counted(&mut self) -> BTreeMap<SteerCounter, u64> {
        let now: BTreeMap<SteerCounter, u64> =
            self.program.counters().expect("counters").into_iter().collect();
        let new = now
            .iter()
            .map(|(counter, value)| (*counter, value - self.counted.get(counter).unwrap_or(&0)))
            .filter(|(_, value)| *value != 0)
            .collect();
        self.counted = now;
        new
    }
}

/// Loaded, with the addresses that the tests use.
pub fn load() -> SteerProgram {
    let mut program = SteerProgram::load().expect("the program loads (root is needed)");
    program.set_own_addresses(&[OWN]).expect("own addresses");
    program.set_virtual_addresses(&[VIRTUAL, Ipv4Addr::new(192, 0, 2, 11)]).expect("virtual addresses");
    program
}

/// An AF_XDP socket, in copy mode.
pub fn socket(ifindex: u32, queue: u32) -> (Arc<Umem>, XskPort, FreeList) {
    let (umem, mut free) = Umem::new(128).expect("a UMEM");
    let config = SocketConfig { ifindex, queue, ring_size: 32, zero_copy: ZeroCopy::Never, generic: false };
    let port = XskPort::open(&umem, &mut free, &config).expect("an AF_XDP socket");
    (umem, port, free)
}

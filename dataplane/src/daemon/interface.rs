//! One interface of the running data plane: its program, sockets and virtual MAC.

use super::threads::WorkerHandle;
use crate::fib::{Kernel, Link, PortIndex};
use crate::pair::{Attached, Facts};
use crate::tables::PortTable;
use crate::worker::Command;
use anyhow::{Context, bail, ensure};
use std::net::Ipv4Addr;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tandem_api::dataplane::{Interface as Wanted, RING_SIZE, XdpMode};
use tandem_api::types::{Mac, Side};
use tandem_ebpf::{Mode, Prefix, Settings, SteerCounter, SteerProgram};
use tandem_wire::ethernet::{ETHERTYPE_ARP, MacAddr};
use tandem_xsk::{PacketSocket, SocketConfig, UnicastMembership, ZeroCopy};

/// Longest IP packet that, with its Ethernet header, fits into a page beside what XDP needs.
const MTU_MAX: u32 = 3498;
/// What every IPv4 host must be able to take (RFC 791); with less a tunnel has no room worth having.
const MTU_MIN: u32 = 576;

/// An interface in use.
pub struct Interface {
    /// What was asked for.
    pub wanted: Wanted,
    /// Kernel index.
    pub ifindex: u32,
    /// Number within the data plane.
    pub port: PortIndex,
    /// Are all its sockets zero-copy?
    pub zero_copy: bool,
    program: SteerProgram,
    arp: Arc<PacketSocket>,
    membership: UnicastMembership,
    pin: PathBuf,
}

/// What every program must know besides its own interface.
pub struct Surroundings<'a> {
    /// Where links are pinned.
    pub bpffs: &'a Path,
    /// Is this node active?
    pub active: bool,
    /// Remote prefixes that are protected or discarded.
    pub protected: &'a [Prefix],
    /// The kernel's own addresses.
    pub own: &'a [Ipv4Addr],
}

impl Interface {
    /// Takes an interface into use: sockets first, then the program with all it must know, last the
    /// attachment, so that no packet is steered to nowhere. On failure everything is as before.
    ///
    /// # Errors
    /// What was wrong, and what to do.
    pub fn open(
        wanted: &Wanted,
        port: PortIndex,
        (ifindex, link): (u32, &Link),
        around: &Surroundings<'_>,
        workers: &[WorkerHandle],
    ) -> anyhow::Result<Self> {
        check_mtu(&wanted.name, link.mtu)?;
        let mut program = SteerProgram::load().context("cannot load the XDP program")?;
        let pin = around.bpffs.join(&wanted.name);
        program.set_settings(&settings(wanted, link))?;
        // The pair thread gives the role again as soon as it knows of the interface.
        program.set_active(around.active)?;
        program.set_protected(around.protected)?;
        program.set_virtual_addresses(&addresses(wanted))?;
        program.set_own_addresses(around.own)?;
        let opened = open_sockets(wanted, port, ifindex, workers, &mut program);
        let attached = opened.and_then(|zero_copy| {
            let membership = UnicastMembership::join(ifindex, wanted.virtual_mac.0).with_context(|| {
                format!("cannot add {} to the addresses that {} listens to", wanted.virtual_mac, wanted.name)
            })?;
            let arp = PacketSocket::open(ifindex, ETHERTYPE_ARP)
                .with_context(|| format!("cannot open a packet socket on {}", wanted.name))?;
            let mode = if wanted.mode == XdpMode::Generic { Mode::Generic } else { Mode::Native };
            program
                .attach(ifindex, mode, &pin)
                .with_context(|| format!("cannot attach the XDP program to {}", wanted.name))?;
            Ok((zero_copy, membership, Arc::new(arp)))
        });
        match attached {
            Ok((zero_copy, membership, arp)) => {
                Ok(Self { wanted: wanted.clone(), ifindex, port, zero_copy, program, arp, membership, pin })
            }
            Err(error) => {
                close_sockets(port, workers);
                Err(error)
            }
        }
    }

    /// Can `wanted` be had by telling the program alone, without new sockets?
    #[must_use]
    pub fn is_same_wire(&self, wanted: &Wanted, ifindex: u32) -> bool {
        let now = &self.wanted;
        (&now.name, now.queues, now.mode, self.ifindex) == (&wanted.name, wanted.queues, wanted.mode, ifindex)
    }

    /// Tells the program what has changed around it.
    ///
    /// # Errors
    /// If a map cannot be written.
    pub fn update(&mut self, wanted: &Wanted, link: &Link, around: &Surroundings<'_>) -> anyhow::Result<()> {
        if wanted.virtual_mac != self.wanted.virtual_mac {
            self.membership = UnicastMembership::join(self.ifindex, wanted.virtual_mac.0)?;
        }
        self.program.set_settings(&settings(wanted, link))?;
        self.program.set_protected(around.protected)?;
        self.program.set_virtual_addresses(&addresses(wanted))?;
        self.program.set_own_addresses(around.own)?;
        self.wanted = wanted.clone();
        // Last: an MTU that was changed meanwhile must not keep the program from what it must know.
        check_mtu(&wanted.name, link.mtu)
    }

    /// Makes way for a successor: the sockets go, and the program stays, which drops what it would steer, until it
    /// is replaced in place. Only where that cannot be, the program goes as well.
    pub fn make_way(self, for_wanted: &Wanted, ifindex: u32, workers: &[WorkerHandle]) {
        let is_generic = |wanted: &Wanted| wanted.mode == XdpMode::Generic;
        if self.ifindex == ifindex && is_generic(&self.wanted) == is_generic(for_wanted) {
            close_sockets(self.port, workers);
        } else {
            self.close(workers);
        }
    }

    /// Gives the interface back: the program goes, then the sockets.
    pub fn close(self, workers: &[WorkerHandle]) {
        let Self { wanted, program, pin, port, .. } = self;
        if let Err(error) = tandem_ebpf::detach(&pin) {
            tracing::warn!("{}: the XDP program stays attached: {error}", wanted.name);
        }
        drop(program);
        close_sockets(port, workers);
    }

    /// The interface for the pair thread: what is to be known of it, its program's role, its socket for ARP.
    ///
    /// # Errors
    /// If the process has no descriptor left.
    pub fn attached(&self, facts: Facts) -> anyhow::Result<Attached> {
        Ok(Attached { facts, switch: self.program.role_switch()?, socket: Arc::clone(&self.arp) })
    }

    /// Its socket for ARP.
    #[must_use]
    pub fn arp(&self) -> &Arc<PacketSocket> {
        &self.arp
    }

    /// What the pair thread must know of it.
    #[must_use]
    pub fn facts(&self, kernel: &Kernel, partner: &[Ipv4Addr]) -> Option<Facts> {
        let link = kernel.links.get(&self.ifindex)?;
        let virtual_addresses = addresses(&self.wanted);
        let witness = self.wanted.witness.or_else(|| {
            let is_other =
                |address: &Ipv4Addr| !partner.contains(address) && !virtual_addresses.contains(address);
            kernel.next_hop(self.ifindex, is_other)
        });
        Some(Facts {
            name: self.wanted.name.clone(),
            ifindex: self.ifindex,
            own_mac: link.mac,
            virtual_mac: MacAddr(self.wanted.virtual_mac.0),
            virtual_addresses,
            up: link.up,
            // Without an address of its own it asks as a probe does.
            witness: witness.map(|address| {
                (address, kernel.address_towards(self.ifindex, address).unwrap_or(Ipv4Addr::UNSPECIFIED))
            }),
        })
    }

    /// Decisions of the program, summed over CPUs.
    pub fn steering(&self) -> Vec<(SteerCounter, u64)> {
        self.program.counters().unwrap_or_else(|error| {
            tracing::warn!("{}: cannot read the XDP counters: {error}", self.wanted.name);
            Vec::new()
        })
    }
}

/// The interface as workers see it.
#[must_use]
pub fn port_table(wanted: &Wanted, mtu: u32) -> PortTable {
    PortTable {
        side: wanted.side,
        virtual_mac: MacAddr(wanted.virtual_mac.0),
        virtual_addresses: wanted.virtual_addresses.iter().map(|net| net.addr().to_bits()).collect(),
        mtu: mtu.min(u32::from(u16::MAX)) as u16,
        mss_clamp: wanted.mss_clamp,
    }
}

fn check_mtu(name: &str, mtu: u32) -> anyhow::Result<()> {
    ensure!(
        (MTU_MIN..=MTU_MAX).contains(&mtu),
        "{name} has an MTU of {mtu}; it must be {MTU_MIN} to {MTU_MAX}, so that a frame fits into one buffer (`ip link set \
         {name} mtu 1500`)"
    );
    Ok(())
}

fn addresses(wanted: &Wanted) -> Vec<Ipv4Addr> {
    wanted.virtual_addresses.iter().map(ipnet::Ipv4Net::addr).collect()
}

fn settings(wanted: &Wanted, link: &Link) -> Settings {
    Settings {
        side: match wanted.side {
            Side::Inside => tandem_ebpf::Side::Inside,
            Side::Outside => tandem_ebpf::Side::Outside,
        },
        own_mac: link.mac.0,
        virtual_mac: Some(wanted.virtual_mac.0),
    }
}

/// Opens a socket on each queue, at the worker that takes it; are all of them zero-copy?
fn open_sockets(
    wanted: &Wanted,
    port: PortIndex,
    ifindex: u32,
    workers: &[WorkerHandle],
    program: &mut SteerProgram,
) -> anyhow::Result<bool> {
    if usize::from(wanted.queues) > workers.len() {
        bail!(
            "{} is to use {} queues, and there are {} workers: a worker takes one queue of an interface; raise \
             dataplane.workers or lower the queues (`ethtool -L {} combined {}`)",
            wanted.name,
            wanted.queues,
            workers.len(),
            wanted.name,
            workers.len()
        );
    }
    let mut zero_copy = true;
    for (queue, worker) in (0..u32::from(wanted.queues)).zip(workers) {
        let config = SocketConfig {
            ifindex,
            queue,
            ring_size: RING_SIZE,
            zero_copy: match wanted.mode {
                XdpMode::Native => ZeroCopy::Auto,
                XdpMode::Zerocopy => ZeroCopy::Require,
                XdpMode::Copy | XdpMode::Generic => ZeroCopy::Never,
            },
            generic: wanted.mode == XdpMode::Generic,
        };
        let (socket, is_zero_copy) = worker
            .ask(|reply| Command::Open { port, config, reply })?
            .with_context(|| format!("cannot open an AF_XDP socket on {}, queue {queue}", wanted.name))?;
        zero_copy &= is_zero_copy;
        program.set_socket(queue, socket.as_fd())?;
    }
    Ok(zero_copy)
}

fn close_sockets(port: PortIndex, workers: &[WorkerHandle]) {
    for worker in workers {
        if let Err(error) = worker.ask(|reply| Command::Close { port, reply }) {
            tracing::error!("closing sockets: {error}");
        }
    }
}

/// Text form of a MAC for operators.
#[must_use]
pub fn mac(mac: MacAddr) -> Mac {
    Mac(mac.0)
}

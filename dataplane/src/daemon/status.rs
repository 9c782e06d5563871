//! What operators are told of the running data plane.

use super::core::Core;
use super::interface;
use super::threads::{WorkerHandle, lock};
use crate::counters::Sums;
use crate::fib::{Link, PortIndex};
use crate::worker::Command;
use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use tandem_api::counters::{Counter, DropReason};
use tandem_api::dataplane::{CounterValues, Interface as Wanted, InterfaceStatus, Status, WorkerStatus};
use tandem_xsk::PortStatistics;

impl Core {
    /// Counters, interfaces, workers.
    #[must_use]
    pub fn status(&self) -> Status {
        Status {
            role: self.role(),
            term: self.term(),
            aead: self.provider.name().to_owned(),
            counters: self.counters(),
            interfaces: self.interface_status(),
            workers: self.worker_status(),
            sas: self.admin.count(),
        }
    }

    fn counters(&self) -> CounterValues {
        let slow = lock(&self.slow_path).counts();
        let sums = Sums(&self.stats);
        let drops = DropReason::ALL.iter().map(|&r| sums.dropped(r) + slow.drops[r as usize]).collect();
        CounterValues {
            counters: Counter::ALL.iter().map(|&counter| sums.counter(counter)).collect(),
            drops,
            slow_drops: slow.drops.to_vec(),
            slow: slow.counters.to_vec(),
        }
    }

    fn worker_status(&self) -> Vec<WorkerStatus> {
        let status = |(index, worker): (usize, &WorkerHandle)| WorkerStatus {
            worker: index as u16,
            core: worker.core,
            rounds: worker.link.rounds.load(Ordering::Relaxed),
            free_frames: worker.link.free_frames.load(Ordering::Relaxed),
        };
        self.workers.iter().enumerate().map(status).collect()
    }

    fn interface_status(&self) -> Vec<InterfaceStatus> {
        let mut sockets: BTreeMap<PortIndex, Vec<PortStatistics>> = BTreeMap::new();
        for worker in &self.workers {
            match worker.ask(|reply| Command::Statistics { reply }) {
                Ok(statistics) => statistics
                    .into_iter()
                    .for_each(|(port, statistics)| sockets.entry(port).or_default().push(statistics)),
                Err(error) => tracing::error!("socket statistics: {error}"),
            }
        }
        let none = Vec::new();
        self.interfaces
            .iter()
            .flatten()
            .filter_map(|interface| {
                let link = self.kernel.links.get(&interface.ifindex)?;
                let wanted: &Wanted = &interface.wanted;
                let counts = Sums(&self.stats).port(interface.port);
                Some(InterfaceStatus {
                    name: wanted.name.clone(),
                    index: interface.ifindex,
                    side: wanted.side,
                    up: link.up,
                    driver: driver(link),
                    mtu: link.mtu,
                    mac: interface::mac(link.mac),
                    virtual_mac: wanted.virtual_mac,
                    virtual_addresses: wanted.virtual_addresses.clone(),
                    xdp_mode: match wanted.mode {
                        tandem_api::dataplane::XdpMode::Generic => "generic".into(),
                        _ => "native".into(),
                    },
                    zero_copy: interface.zero_copy,
                    queues: wanted.queues,
                    rx_frames: counts.rx_frames,
                    rx_bytes: counts.rx_bytes,
                    tx_frames: counts.tx_frames,
                    tx_bytes: counts.tx_bytes,
                    steering: interface
                        .steering()
                        .into_iter()
                        .map(|(counter, n)| (counter.name().to_owned(), n))
                        .collect(),
                    socket: socket_counters(sockets.get(&interface.port).unwrap_or(&none)),
                })
            })
            .collect()
    }
}

/// What drives a link: the kind that the kernel names, or the driver of the device behind it.
fn driver(link: &Link) -> String {
    let of_device = || {
        let device = std::fs::read_link(format!("/sys/class/net/{}/device/driver", link.name)).ok()?;
        Some(device.file_name()?.to_string_lossy().into_owned())
    };
    link.kind.clone().or_else(of_device).unwrap_or_else(|| "unknown".to_owned())
}

/// The kernel's statistics, summed over queues, by name.
fn socket_counters(sockets: &[PortStatistics]) -> Vec<(String, u64)> {
    let mut sum = PortStatistics::default();
    for socket in sockets {
        sum.rx_dropped += socket.rx_dropped;
        sum.rx_invalid_descriptors += socket.rx_invalid_descriptors;
        sum.tx_invalid_descriptors += socket.tx_invalid_descriptors;
        sum.rx_ring_full += socket.rx_ring_full;
        sum.rx_fill_ring_empty += socket.rx_fill_ring_empty;
        sum.tx_ring_empty += socket.tx_ring_empty;
        sum.refused += socket.refused;
        sum.wake_errors += socket.wake_errors;
    }
    [
        ("rx_dropped", sum.rx_dropped),
        ("rx_invalid_descriptors", sum.rx_invalid_descriptors),
        ("tx_invalid_descriptors", sum.tx_invalid_descriptors),
        ("rx_ring_full", sum.rx_ring_full),
        ("rx_fill_ring_empty", sum.rx_fill_ring_empty),
        ("tx_ring_empty", sum.tx_ring_empty),
        ("refused", sum.refused),
        ("wake_errors", sum.wake_errors),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .to_vec()
}

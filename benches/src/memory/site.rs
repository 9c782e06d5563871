//! Two gateways over memory: one that encrypts and one that decrypts what the first has sealed.

use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, Result, ensure};
use tandem_api::dataplane::{Policy, PolicyAction, SaSpec};
use tandem_api::types::{Direction, KeyFingerprint, KeyMaterial, Selector, Side, Transform};
use tandem_dataplane::any_port::AnyPort;
use tandem_dataplane::fib::{Kernel, Link, Route, RouteKey};
use tandem_dataplane::harness::Gateway;
use tandem_dataplane::tables::PortTable;
use tandem_esp::Spi;
use tandem_wire::ethernet::MacAddr;
use tandem_xsk::{BURST, Capture, Repeat, ReplayConfig, ReplayPort, Transmitted};

use crate::frames::{self, Flow};
use crate::tsc;

/// Frames of the gateway's memory. It takes the last one used first, so that only a few stay in the cache.
const UMEM_FRAMES: u32 = 1024;
const RING: u32 = 256;
const INSIDE: u32 = 5;
const OUTSIDE: u32 = 6;
/// No frame is longer: Ethernet and the MTU.
const LONGEST: usize = frames::ETHERNET + 1500;
const HOST: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 10);
const NEAR: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const FAR: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
/// The protected host of SA `i` is this address plus `i`.
const REMOTE: Ipv4Addr = Ipv4Addr::new(20, 0, 0, 0);
const REMOTES: &str = "20.0.0.0/8";
const VIRTUAL_MAC: MacAddr = MacAddr([0, 0, 0x0c, 0x9f, 0xf0, 1]);
const OWN_MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);
const HOST_MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 9]);

/// One gateway that is fed with recorded frames.
pub struct Site {
    gateway: Gateway,
    /// Index of the port that sends.
    exit: u16,
    /// Packets of one call, and of one replay of all recorded frames.
    packets: u64,
    recorded: u64,
    /// Packets since the windows were last reset.
    since_reset: u64,
    sas: u32,
}

/// Plain frames of `size` octets for `sas` SAs in turn, `count` of them.
pub fn plain(sas: u32, size: usize, count: usize) -> Vec<Vec<u8>> {
    (0..count as u32)
        .map(|number| {
            let to = Ipv4Addr::from(u32::from(REMOTE) + number % sas);
            let flow = Flow { to_mac: VIRTUAL_MAC.0, from_mac: HOST_MAC.0, from: HOST, to };
            frames::udp(flow, size, number as u16)
        })
        .collect()
}

impl Site {
    /// A gateway that seals `frames` (made by [`plain`]), `packets` of them in a call. Both numbers are multiples of
    /// a worker's batch.
    pub fn encrypting(sas: u32, frames: &[Vec<u8>], packets: usize) -> Result<Self> {
        Self::new(Direction::Outbound, sas, frames, packets)
    }

    /// A gateway that opens `frames` (made by [`Site::sealed`]).
    pub fn decrypting(sas: u32, frames: &[Vec<u8>], packets: usize) -> Result<Self> {
        Self::new(Direction::Inbound, sas, frames, packets)
    }

    fn new(direction: Direction, sas: u32, recorded: &[Vec<u8>], packets: usize) -> Result<Self> {
        ensure!(packets.is_multiple_of(BURST) && recorded.len().is_multiple_of(packets), "no whole batches");
        let mut gateway = Gateway::new(UMEM_FRAMES, sas.next_power_of_two().max(64), "auto")?;
        let port = |packets| {
            let config = ReplayConfig { packets, repeat: Repeat::Endless, ring_size: RING, capture: None };
            AnyPort::Replay(ReplayPort::new(gateway.umem(), config))
        };
        let (near, inside, outside, exit) = match direction {
            Direction::Outbound => (NEAR, port(recorded.to_vec()), port(Vec::new()), 1),
            Direction::Inbound => (FAR, port(Vec::new()), port(recorded.to_vec()), 0),
        };
        let table = |side, address: Ipv4Addr| PortTable {
            side,
            virtual_mac: VIRTUAL_MAC,
            virtual_addresses: vec![address.into()],
            mtu: 1500,
            mss_clamp: false,
        };
        let ports = vec![
            (INSIDE, table(Side::Inside, Ipv4Addr::new(10, 9, 0, 1)), inside),
            (OUTSIDE, table(Side::Outside, near), outside),
        ];
        let policies = (0..sas).map(|number| policy(direction, number)).collect::<Result<Vec<_>>>()?;
        gateway.configure(ports, &policies);
        gateway.set_kernel(kernel(direction)?);
        let specs = (0..sas).map(|number| sa(direction, number)).collect::<Result<Vec<_>>>()?;
        gateway.install(1, &specs)?;
        let (packets, recorded) = (packets as u64, recorded.len() as u64);
        Ok(Self { gateway, exit, packets, recorded, since_reset: 0, sas })
    }

    /// Handles one call's packets and returns the TSC cycles that it took: receiving (a copy into a frame), all the
    /// work, and sending (a count).
    pub fn call(&mut self) -> u64 {
        self.renew_windows();
        let before = self.transmitted().packets;
        let start = tsc::now();
        for _ in 0..self.packets / BURST as u64 {
            self.gateway.round();
        }
        let cycles = tsc::now() - start;
        let sent = self.transmitted().packets - before;
        assert_eq!(sent, self.packets, "a packet was lost: {:?}", self.gateway.account());
        cycles
    }

    /// As [`Site::call`], and runs `between` after each round, which is not measured. Packets that wait for an
    /// acknowledgement at the end leave in the next call.
    pub fn call_in_rounds(&mut self, mut between: impl FnMut()) -> u64 {
        self.renew_windows();
        let before = self.transmitted().packets + self.gateway.parked() as u64;
        let mut cycles = 0;
        for _ in 0..self.packets / BURST as u64 {
            let start = tsc::now();
            self.gateway.round();
            cycles += tsc::now() - start;
            between();
        }
        let done = self.transmitted().packets + self.gateway.parked() as u64 - before;
        assert_eq!(done, self.packets, "a packet was lost: {:?}", self.gateway.account());
        cycles
    }

    /// The gateway, to look at.
    pub fn gateway(&self) -> &Gateway {
        &self.gateway
    }

    /// What was received once may not be received again: new windows where it is time for them.
    fn renew_windows(&mut self) {
        if self.since_reset == self.recorded {
            self.reset_windows();
            self.since_reset = 0;
        }
        self.since_reset += self.packets;
    }

    /// All recorded frames as the gateway sends them, once.
    pub fn sealed(&mut self) -> Result<Vec<Vec<u8>>> {
        let recorded = self.recorded as usize;
        let capture = Capture::with_capacity(recorded, recorded * LONGEST);
        self.sink().set_capture(Some(capture));
        for _ in 0..self.recorded / self.packets {
            self.call();
        }
        let capture = self.sink().set_capture(None).context("nothing was captured")?;
        ensure!(capture.missed() == 0, "{} packets found no room", capture.missed());
        Ok(capture.packets().map(<[u8]>::to_vec).collect())
    }

    fn sink(&mut self) -> &mut ReplayPort {
        match self.gateway.port(self.exit) {
            Some(AnyPort::Replay(port)) => port,
            _ => unreachable!("both ports are replays"),
        }
    }

    fn transmitted(&mut self) -> Transmitted {
        self.sink().transmitted()
    }

    /// Forgets which numbers were seen.
    fn reset_windows(&self) {
        let hot = &self.gateway.shared().hot;
        for slot in 0..self.sas {
            if let Some(hot) = hot.inbound(slot) {
                let zero = |word: &AtomicU64| word.store(0, Ordering::Relaxed);
                zero(&hot.top);
                // As many words as one replay can have touched, and one more.
                let numbers = self.recorded / u64::from(self.sas) + 1;
                hot.window.iter().take(numbers as usize / 32 + 2).for_each(zero);
            }
        }
    }
}

fn selector(direction: Direction, number: u32) -> Result<Selector> {
    let host = "10.1.0.0/16".parse()?;
    let remote = format!("{}/32", Ipv4Addr::from(u32::from(REMOTE) + number)).parse()?;
    Ok(match direction {
        Direction::Outbound => Selector { local: host, remote },
        Direction::Inbound => Selector { local: remote, remote: host },
    })
}

fn policy(direction: Direction, number: u32) -> Result<Policy> {
    Ok(Policy {
        name: format!("tunnel{number}"),
        priority: 100,
        selector: selector(direction, number)?,
        action: PolicyAction::Protect { policy: number },
    })
}

fn sa(direction: Direction, number: u32) -> Result<SaSpec> {
    let spi = Spi::new(0, 1, number).context("more SAs than slots")?;
    let mut key = vec![0x5a; 20];
    key[..4].copy_from_slice(&number.to_be_bytes());
    let (local, peer) = match direction {
        Direction::Outbound => (NEAR, FAR),
        Direction::Inbound => (FAR, NEAR),
    };
    Ok(SaSpec {
        direction,
        spi: spi.get(),
        policy: number,
        selectors: vec![selector(direction, number)?],
        local,
        peer,
        transform: Transform::Aes128gcm16,
        key: KeyMaterial::new(key),
        fingerprint: KeyFingerprint(u64::from(number) + 1),
        base_term: 0,
        stale: tandem_api::dataplane::StaleAction::Jump,
        map: String::from("bench"),
    })
}

/// Routes and neighbours: the tunnel's far end outside, the protected network behind a router inside.
fn kernel(direction: Direction) -> Result<Kernel> {
    let mut kernel = Kernel::default();
    for ifindex in [INSIDE, OUTSIDE] {
        let link = Link { name: format!("port{ifindex}"), kind: None, mac: OWN_MAC, mtu: 1500, up: true };
        kernel.links.insert(ifindex, link);
    }
    let far = match direction {
        Direction::Outbound => FAR,
        Direction::Inbound => NEAR,
    };
    let router = Ipv4Addr::new(10, 9, 0, 2);
    for (prefix, ifindex, gateway) in
        [("192.0.2.0/24", OUTSIDE, None), (REMOTES, INSIDE, Some(router.into()))]
    {
        let prefix = prefix.parse::<ipnet::Ipv4Net>()?.into();
        kernel.routes.insert(RouteKey { prefix, metric: 0, tag: 0 }, Route::Via { ifindex, gateway });
    }
    kernel.neighbours.insert((OUTSIDE, far.into()), HOST_MAC);
    kernel.neighbours.insert((INSIDE, router.into()), HOST_MAC);
    Ok(kernel)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_one_gateway_seals_the_other_opens_again_and_again() {
        for (sas, frames) in [(1, 128), (100, 256)] {
            let plain = plain(sas, 512, frames);
            let sealed =
                Site::encrypting(sas, &plain, 64).and_then(|mut site| site.sealed()).expect("sealed frames");
            assert_eq!(sealed.len(), plain.len());
            assert!(sealed.iter().all(|frame| frame.len() > 512 && frame[23] == 50), "not ESP");
            let mut opening = Site::decrypting(sas, &sealed, 64).expect("a gateway");
            for _ in 0..3 {
                let opened = opening.sealed().expect("opened frames");
                for (plain, opened) in plain.iter().zip(&opened) {
                    // All but MAC addresses, TTL and checksum come back.
                    assert_eq!(plain[26..], opened[26..]);
                }
                assert_eq!(opened.len(), plain.len());
            }
        }
    }

    #[test]
    fn a_replay_without_new_windows_is_noticed() {
        let plain = plain(1, 64, 64);
        let sealed =
            Site::encrypting(1, &plain, 64).and_then(|mut site| site.sealed()).expect("sealed frames");
        let mut opening = Site::decrypting(1, &sealed, 64).expect("a gateway");
        opening.call();
        opening.since_reset = 0;
        let replayed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| opening.call()));
        assert!(replayed.is_err(), "replayed packets were forwarded");
    }
}

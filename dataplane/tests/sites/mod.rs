//! Two gateways over memory and a wire between them.
#![allow(dead_code)] // each test uses its part

use std::net::Ipv4Addr;
use tandem_api::dataplane::{Policy, PolicyAction, SaSpec};
use tandem_api::types::{Direction, KeyFingerprint, KeyMaterial, Selector, Side, Transform};
use tandem_dataplane::any_port::AnyPort;
use tandem_dataplane::fib::{Kernel, Link, Route, RouteKey};
use tandem_dataplane::harness::Gateway;
use tandem_dataplane::tables::PortTable;
use tandem_wire::ethernet::MacAddr;
use tandem_wire::{checksum, ipv4};
use tandem_xsk::mem::{MemConfig, MemHandle, port};

pub const HOST_A: [u8; 4] = [10, 1, 0, 10];
pub const HOST_B: [u8; 4] = [10, 2, 0, 10];
pub const VIRTUAL_A_INSIDE: [u8; 4] = [10, 1, 0, 1];
pub const VIRTUAL_B_INSIDE: [u8; 4] = [10, 2, 0, 1];
pub const OUTSIDE_A: [u8; 4] = [192, 0, 2, 1];
const OUTSIDE_B: [u8; 4] = [192, 0, 2, 2];
pub const VIRTUAL_MAC: MacAddr = MacAddr([0, 0, 0x0c, 0x9f, 0xf0, 1]);
const OWN_MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);
pub const FAR_MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 9]);
pub const INSIDE: u32 = 5;
pub const OUTSIDE: u32 = 6;

/// Two sites, `a` and `b`.
pub struct Sites {
    pub a: Gateway,
    pub b: Gateway,
    inside_a: MemHandle,
    outside_a: MemHandle,
    inside_b: MemHandle,
    outside_b: MemHandle,
    /// What crossed the wire, either way.
    crossed: Vec<Vec<u8>>,
}

struct Site {
    inside: [u8; 4],
    outside: [u8; 4],
    peer: [u8; 4],
    host: [u8; 4],
    local: &'static str,
    remote: &'static str,
}

const SITE_A: Site = Site {
    inside: VIRTUAL_A_INSIDE,
    outside: OUTSIDE_A,
    peer: OUTSIDE_B,
    host: HOST_A,
    // Wider than B's selectors, so that a test can send what B must refuse.
    local: "10.1.0.0/16",
    remote: "10.2.0.0/24",
};
const SITE_B: Site = Site {
    inside: VIRTUAL_B_INSIDE,
    outside: OUTSIDE_B,
    peer: OUTSIDE_A,
    host: HOST_B,
    local: "10.2.0.0/24",
    remote: "10.1.0.0/24",
};

impl Sites {
    pub fn new(provider: &str) -> Self {
        Self::with_providers(provider, provider)
    }

    pub fn with_providers(a: &str, b: &str) -> Self {
        Self::build((a, &SITE_A), (b, &SITE_B), &[])
    }

    /// With `remote` behind B for A, `local` behind B for B itself, and more policies at B.
    pub fn with_b(remote: &'static str, local: &'static str, policies: &[Policy]) -> Self {
        let (a, b) = (Site { remote, ..SITE_A }, Site { local, ..SITE_B });
        Self::build(("aws-lc-rs", &a), ("aws-lc-rs", &b), policies)
    }

    fn build((provider_a, a): (&str, &Site), (provider_b, b): (&str, &Site), at_b: &[Policy]) -> Self {
        let (a, inside_a, outside_a) = gateway(provider_a, a, &sas(a, 0x2001, 0x1001), &[]);
        let (b, inside_b, outside_b) = gateway(provider_b, b, &sas(b, 0x1001, 0x2001), at_b);
        Self { a, b, inside_a, outside_a, inside_b, outside_b, crossed: Vec::new() }
    }

    pub fn sas_a() -> Vec<SaSpec> {
        sas(&SITE_A, 0x2001, 0x1001)
    }

    pub fn inject_a(&self, packet: &[u8]) {
        self.inside_a.inject(&ethernet(packet));
    }

    pub fn inject_frame_a(&self, frame: &[u8]) {
        self.inside_a.inject(frame);
    }

    pub fn inject_outside_b(&self, frame: &[u8]) {
        self.outside_b.inject(frame);
    }

    pub fn host_a_sends(&mut self, packet: &[u8]) {
        self.inject_a(packet);
        self.settle();
    }

    pub fn host_b_sends(&mut self, packet: &[u8]) {
        self.inside_b.inject(&ethernet(packet));
        self.settle();
    }

    /// Runs both until nothing moves; carries frames over the wire between them.
    pub fn settle(&mut self) {
        for _ in 0..64 {
            self.a.settle(64);
            self.b.settle(64);
            let (from_a, from_b) = (self.outside_a.take(), self.outside_b.take());
            if from_a.is_empty() && from_b.is_empty() {
                break;
            }
            from_a.iter().for_each(|frame| self.outside_b.inject(frame));
            from_b.iter().for_each(|frame| self.outside_a.inject(frame));
            self.crossed.extend(from_a.into_iter().chain(from_b));
        }
    }

    /// Outer frames since the last call.
    pub fn outer(&mut self) -> Vec<Vec<u8>> {
        std::mem::take(&mut self.crossed)
    }

    pub fn frames_at_host_a(&self) -> Vec<Vec<u8>> {
        self.inside_a.take()
    }

    pub fn at_host_a(&self) -> Vec<Vec<u8>> {
        self.inside_a.take().into_iter().map(|frame| frame[14..].to_vec()).collect()
    }

    pub fn at_host_b(&self) -> Vec<Vec<u8>> {
        self.inside_b.take().into_iter().map(|frame| frame[14..].to_vec()).collect()
    }

    pub fn add_neighbour_b(&mut self, address: [u8; 4]) {
        self.change_kernel_b(|kernel| {
            kernel.neighbours.insert((INSIDE, u32::from_be_bytes(address)), FAR_MAC);
        });
    }

    pub fn change_kernel_b(&mut self, change: impl FnOnce(&mut Kernel)) {
        let mut kernel = self.b.kernel().clone();
        change(&mut kernel);
        self.b.set_kernel(kernel);
    }

    pub fn account(&self) {
        self.a.account().unwrap();
        self.b.account().unwrap();
    }
}

fn gateway(provider: &str, site: &Site, sas: &[SaSpec], more: &[Policy]) -> (Gateway, MemHandle, MemHandle) {
    let mut gateway = Gateway::new(1024, 64, provider).unwrap();
    let config = MemConfig { ring_size: 256 };
    let (inside, inside_handle) = port(gateway.umem(), &config);
    let (outside, outside_handle) = port(gateway.umem(), &config);
    let table = |side, address| PortTable {
        side,
        virtual_mac: VIRTUAL_MAC,
        virtual_addresses: vec![u32::from_be_bytes(address)],
        mtu: 1500,
        mss_clamp: true,
    };
    let ports = vec![
        (INSIDE, table(Side::Inside, site.inside), AnyPort::Memory(inside)),
        (OUTSIDE, table(Side::Outside, site.outside), AnyPort::Memory(outside)),
    ];
    let policy = Policy {
        name: "tunnel".into(),
        priority: 100,
        selector: selector(site),
        action: PolicyAction::Protect { policy: 3 },
    };
    gateway.configure(ports, &[&[policy], more].concat());
    gateway.set_kernel(kernel(site));
    gateway.install(1, sas).unwrap();
    (gateway, inside_handle, outside_handle)
}

fn selector(site: &Site) -> Selector {
    Selector { local: site.local.parse().unwrap(), remote: site.remote.parse().unwrap() }
}

fn kernel(site: &Site) -> Kernel {
    let mut kernel = Kernel::default();
    for ifindex in [INSIDE, OUTSIDE] {
        let link = Link { name: format!("if{ifindex}"), kind: None, mac: OWN_MAC, mtu: 1500, up: true };
        kernel.links.insert(ifindex, link);
    }
    let mut connect = |prefix: String, ifindex| {
        let prefix = prefix.parse::<ipnet::Ipv4Net>().unwrap().into();
        kernel.routes.insert(RouteKey { prefix, metric: 0, tag: 0 }, Route::Via { ifindex, gateway: None });
    };
    connect(format!("{}/24", Ipv4Addr::from(site.inside)).replace(".1/24", ".0/24"), INSIDE);
    connect("192.0.2.0/24".into(), OUTSIDE);
    kernel.neighbours.insert((INSIDE, u32::from_be_bytes(site.host)), FAR_MAC);
    kernel.neighbours.insert((OUTSIDE, u32::from_be_bytes(site.peer)), FAR_MAC);
    kernel
}

/// Towards B the key is of ones, towards A of twos.
fn sas(site: &Site, outbound: u32, inbound: u32) -> Vec<SaSpec> {
    let key = |spi| if spi == 0x2001 { 1 } else { 2 };
    vec![
        sa(site, Direction::Outbound, outbound, key(outbound)),
        sa(site, Direction::Inbound, inbound, key(inbound)),
    ]
}

fn sa(site: &Site, direction: Direction, spi: u32, key: u8) -> SaSpec {
    SaSpec {
        direction,
        spi,
        policy: 3,
        selectors: vec![selector(site)],
        local: site.outside.into(),
        peer: site.peer.into(),
        transform: Transform::Aes128gcm16,
        key: KeyMaterial::new(vec![key; 20]),
        fingerprint: KeyFingerprint(u64::from(key)),
        base_term: 0,
        stale: tandem_api::dataplane::StaleAction::Jump,
        map: "tunnel".into(),
    }
}

pub fn ethernet(packet: &[u8]) -> Vec<u8> {
    let mut frame = VIRTUAL_MAC.0.to_vec();
    frame.extend(FAR_MAC.0);
    frame.extend([0x08, 0x00]);
    frame.extend(packet);
    frame
}

pub fn arp_request(from: [u8; 4], target: [u8; 4]) -> Vec<u8> {
    let mut frame = vec![0xff; 6];
    frame.extend(FAR_MAC.0);
    frame.extend([0x08, 0x06, 0, 1, 8, 0, 6, 4, 0, 1]);
    frame.extend(FAR_MAC.0);
    frame.extend(from);
    frame.extend([0; 6]);
    frame.extend(target);
    frame.resize(60, 0);
    frame
}

fn ip(source: [u8; 4], destination: [u8; 4], protocol: u8, ttl: u8, df: bool, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0; 20];
    let fields = ipv4::Fields {
        tos: 0,
        total_length: (20 + payload.len()) as u16,
        identification: 77,
        dont_fragment: df,
        ttl,
        protocol,
        source: source.into(),
        destination: destination.into(),
    };
    ipv4::write_header(&mut packet, &fields).unwrap();
    packet.extend(payload);
    packet
}

pub fn udp(source: [u8; 4], destination: [u8; 4], ttl: u8, data: &[u8], df: bool) -> Vec<u8> {
    let mut payload = vec![0x10, 0, 0x20, 0];
    payload.extend(((8 + data.len()) as u16).to_be_bytes());
    payload.extend([0, 0]);
    payload.extend(data);
    ip(source, destination, 17, ttl, df, &payload)
}

pub fn icmp_echo(source: [u8; 4], destination: [u8; 4]) -> Vec<u8> {
    let mut payload = vec![8, 0, 0, 0, 0, 1, 0, 1];
    payload.extend(b"are you there");
    let sum = !checksum::sum(&payload);
    payload[2..4].copy_from_slice(&sum.to_be_bytes());
    ip(source, destination, 1, 64, false, &payload)
}

pub fn tcp_syn(source: [u8; 4], destination: [u8; 4], mss: u16) -> Vec<u8> {
    let mut payload =
        vec![0x10, 0, 0x20, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0x60, 0x02, 0xff, 0xff, 0, 0, 0, 0, 2, 4];
    payload.extend(mss.to_be_bytes());
    let mut pseudo = source.to_vec();
    pseudo.extend(destination);
    pseudo.extend([0, 6]);
    pseudo.extend((payload.len() as u16).to_be_bytes());
    pseudo.extend(&payload);
    let sum = !checksum::sum(&pseudo);
    payload[16..18].copy_from_slice(&sum.to_be_bytes());
    ip(source, destination, 6, 64, true, &payload)
}

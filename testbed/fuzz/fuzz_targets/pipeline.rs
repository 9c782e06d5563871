//! A whole gateway over memory: hostile frames on both sides, and a peer whose authentic packets are
//! hostile inside. Whatever comes, every frame is accounted for, nothing protected leaves in clear,
//! nothing that was not authentic comes in, no number or IV is used twice, and the gateway still works.
//!
//! Input: records of one octet of kind ([`Kind::of`]), one of length, and as many octets; see
//! [`Kind`].

#![no_main]

use libfuzzer_sys::fuzz_target;
use std::collections::HashSet;
use std::time::Duration;
use tandem_aead::{Aad, Algorithm, Key, OpenJob, Provider, SealJob, Segments, provider};
use tandem_api::dataplane::{Policy, PolicyAction, SaSpec};
use tandem_api::types::{Direction, KeyFingerprint, KeyMaterial, Selector, Side, Transform};
use tandem_dataplane::any_port::AnyPort;
use tandem_dataplane::fib::{Kernel, Link, Route, RouteKey};
use tandem_dataplane::harness::Gateway;
use tandem_dataplane::tables::PortTable;
use tandem_wire::ethernet::{ETHERTYPE_IPV4, MacAddr};
use tandem_wire::{esp, ethernet, ipv4};
use tandem_xsk::mem::{MemConfig, MemHandle, port};

const FRAMES: u32 = 128;
const RING: u32 = 16;
const INSIDE: u32 = 5;
const OUTSIDE: u32 = 6;
const VIRTUAL_MAC: MacAddr = MacAddr([0, 0, 0x0c, 0x9f, 0xf0, 1]);
const OWN_MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);
const FAR_MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 9]);
const VIRTUAL_INSIDE: [u8; 4] = [10, 1, 0, 1];
const VIRTUAL_OUTSIDE: [u8; 4] = [192, 0, 2, 1];
const HOST: [u8; 4] = [10, 1, 0, 10];
const PEER: [u8; 4] = [192, 0, 2, 2];
const REMOTE_HOST: [u8; 4] = [10, 2, 0, 10];
const SPI_IN: u32 = 0x1001;
const SPI_OUT: u32 = 0x2001;
const KEY_IN: u8 = 1;
const KEY_OUT: u8 = 2;
const MTU: u16 = 1500;

/// What the octets of a record are.
enum Kind {
    /// A frame at the inside interface.
    FrameInside,
    /// A frame at the outside interface.
    FrameOutside,
    /// An IPv4 packet at the inside interface, the header checksum to be made right.
    PacketInside,
    /// The same at the outside interface.
    PacketOutside,
    /// Four octets of sequence number, one of the outer type of service, then what the peer seals:
    /// inner packet, padding, pad length, next header.
    Sealed,
    /// Two octets of a place, one of a change: a good packet of the peer's, altered after it was sealed.
    Altered,
    /// Time passes: so many milliseconds as the record is long.
    Time,
    /// The remaining octets of the record, made longer than an MTU: an IPv4 packet inside.
    Long,
}

impl Kind {
    fn of(octet: u8) -> Self {
        match octet % 8 {
            0 => Self::FrameInside,
            1 => Self::FrameOutside,
            2 => Self::PacketInside,
            3 => Self::PacketOutside,
            4 => Self::Sealed,
            5 => Self::Altered,
            6 => Self::Time,
            _ => Self::Long,
        }
    }
}

fuzz_target!(|input: &[u8]| {
    let mut world = World::new();
    let mut rest = input;
    while let [kind, len, after @ ..] = rest {
        let (record, after) = after.split_at(usize::from(*len).min(after.len()));
        world.run(&Kind::of(*kind), record);
        rest = after;
    }
    world.settle();
    world.still_works();
});

struct World {
    gateway: Gateway,
    inside: MemHandle,
    outside: MemHandle,
    peer: Box<dyn Provider>,
    key_in: Key,
    key_out: Key,
    /// Has the peer sent anything that the gateway must believe?
    authentic: bool,
    numbers: HashSet<u32>,
    ivs: HashSet<[u8; 8]>,
    opened: Vec<Vec<u8>>,
}

impl World {
    fn new() -> Self {
        let mut gateway = Gateway::new(FRAMES, 4, "aws-lc-rs").expect("a gateway");
        let config = MemConfig { ring_size: RING };
        let (inside_port, inside) = port(gateway.umem(), &config);
        let (outside_port, outside) = port(gateway.umem(), &config);
        let ports = vec![
            (INSIDE, table(Side::Inside, VIRTUAL_INSIDE), AnyPort::Memory(inside_port)),
            (OUTSIDE, table(Side::Outside, VIRTUAL_OUTSIDE), AnyPort::Memory(outside_port)),
        ];
        gateway.configure(ports, &policies());
        gateway.set_kernel(kernel());
        gateway
            .install(1, &[sa(Direction::Inbound, SPI_IN, KEY_IN), sa(Direction::Outbound, SPI_OUT, KEY_OUT)])
            .expect("SAs");
        let peer = provider("aws-lc-rs").expect("a provider");
        let key = |octet| peer.key(Algorithm::Aes128Gcm, &[octet; 16]).expect("a key");
        let (key_in, key_out) = (key(KEY_IN), key(KEY_OUT));
        Self {
            gateway,
            inside,
            outside,
            peer,
            key_in,
            key_out,
            authentic: false,
            numbers: HashSet::new(),
            ivs: HashSet::new(),
            opened: Vec::new(),
        }
    }

    fn run(&mut self, kind: &Kind, record: &[u8]) {
        match kind {
            Kind::FrameInside => self.inside.inject(record),
            Kind::FrameOutside => self.outside.inject(record),
            Kind::PacketInside => self.inside.inject(&frame(&right(record))),
            Kind::PacketOutside => self.outside.inject(&frame(&right(record))),
            Kind::Long => {
                let mut packet = record.to_vec();
                packet.resize(usize::from(record.last().copied().unwrap_or(0)) * 15, 0x5a);
                if let Some(length) = packet.get_mut(2..4) {
                    let len = record.last().map_or(0, |last| u16::from(*last) * 15);
                    length.copy_from_slice(&len.to_be_bytes());
                }
                self.inside.inject(&frame(&right(&packet)));
            }
            Kind::Sealed => {
                let [a, b, c, d, tos, text @ ..] = record else { return };
                let packet = self.seal(u32::from_be_bytes([*a, *b, *c, *d]), *tos, text);
                self.outside.inject(&frame(&packet));
                self.authentic = true;
            }
            Kind::Altered => {
                let [high, low, change, ..] = *record else { return };
                let mut text = udp(REMOTE_HOST, HOST, b"from the peer");
                text.extend([1, 1, ipv4::PROTOCOL_IPV4]);
                let mut packet = self.seal(1, 0, &text);
                let at = 20 + usize::from(u16::from_be_bytes([high, low])) % (packet.len() - 20);
                packet[at] ^= change;
                self.authentic |= change == 0;
                self.outside.inject(&frame(&packet));
            }
            Kind::Time => {
                self.settle();
                self.gateway.advance(Duration::from_millis(10 * record.len() as u64));
            }
        }
    }

    /// The peer's packet of this number with this text.
    fn seal(&mut self, sequence: u32, tos: u8, text: &[u8]) -> Vec<u8> {
        let iv = u64::from(sequence).to_be_bytes();
        let mut text = text.to_vec();
        let mut tag = [0; 16];
        let job = SealJob {
            key: &self.key_in,
            nonce: nonce(KEY_IN, iv),
            aad: Aad::esp(SPI_IN, sequence),
            text: Segments::one(&mut text),
            tag: &mut tag,
        };
        self.peer.seal(&mut [job]);
        let payload = [&SPI_IN.to_be_bytes()[..], &sequence.to_be_bytes(), &iv, &text, &tag].concat();
        packet(PEER, VIRTUAL_OUTSIDE, ipv4::PROTOCOL_ESP, tos, &payload)
    }

    /// Lets the gateway work off what was sent, and judges what it sends.
    fn settle(&mut self) {
        for _ in 0..1_000 {
            self.gateway.settle(64);
            self.judge_outside();
            self.judge_inside();
            if self.inside.waiting() == 0 && self.outside.waiting() == 0 {
                break;
            }
        }
        assert_eq!((self.inside.waiting(), self.outside.waiting()), (0, 0), "frames are stuck");
        self.gateway.account().expect("every frame is accounted for");
    }

    fn judge_outside(&mut self) {
        for sent in self.outside.take() {
            let (header, payload) = ethernet::parse(&sent).expect("a frame");
            if header.ethertype.get() != ETHERTYPE_IPV4 {
                continue;
            }
            let packet = sound(payload);
            if packet.header.protocol == ipv4::PROTOCOL_ESP && packet.header.dst() == u32::from_be_bytes(PEER)
            {
                assert_eq!(packet.header.src(), u32::from_be_bytes(VIRTUAL_OUTSIDE));
                self.open(packet.payload);
            } else {
                let (local, remote) = (packet.header.src() >> 16, packet.header.dst() >> 16);
                assert!((local, remote) != (0x0a01, 0x0a02), "a protected packet in clear");
            }
        }
    }

    /// What the gateway sealed: numbers and IVs never twice, and inside what the SA is for.
    fn open(&mut self, payload: &[u8]) {
        let (header, rest) = esp::parse(payload).expect("an ESP header");
        let (iv, rest) = rest.split_first_chunk::<8>().expect("an IV");
        let (text, tag) = rest.split_last_chunk::<16>().expect("an ICV");
        assert_eq!(header.spi.get(), SPI_OUT);
        let sequence = header.sequence.get();
        assert!(sequence != 0 && self.numbers.insert(sequence), "number {sequence} twice");
        assert!(self.ivs.insert(*iv), "an IV twice");
        let mut text = text.to_vec();
        let job = OpenJob {
            key: &self.key_out,
            nonce: nonce(KEY_OUT, *iv),
            aad: Aad::esp(SPI_OUT, sequence),
            text: Segments::one(&mut text),
            tag,
        };
        assert!(self.peer.open(&mut [job]).is_authentic(0), "the peer cannot open it");
        let [.., pad, next] = text[..] else { panic!("no trailer") };
        assert_eq!(next, ipv4::PROTOCOL_IPV4);
        text.truncate(text.len() - 2 - usize::from(pad));
        let inner = sound(&text);
        assert_eq!((inner.header.src() >> 16, inner.header.dst() >> 16), (0x0a01, 0x0a02));
        self.opened.push(text);
    }

    fn judge_inside(&mut self) {
        for sent in self.inside.take() {
            let (header, payload) = ethernet::parse(&sent).expect("a frame");
            if header.ethertype.get() != ETHERTYPE_IPV4 {
                continue;
            }
            let packet = sound(payload);
            if packet.header.src() >> 16 == 0x0a02 {
                assert!(self.authentic, "a packet of the remote side that was never authentic");
            }
        }
    }

    fn still_works(&mut self) {
        // Whatever waits for a neighbour gives its frame back.
        self.gateway.advance(Duration::from_secs(10));
        self.settle();
        let sent = udp(HOST, REMOTE_HOST, b"are you still there?");
        self.opened.clear();
        self.inside.inject(&frame(&sent));
        self.settle();
        let [got] = &self.opened[..] else { panic!("{} packets instead of one", self.opened.len()) };
        assert_eq!(ipv4::parse(got).unwrap().payload, ipv4::parse(&sent).unwrap().payload);
    }
}

/// A packet that may be sent: lengths and checksum right.
fn sound(octets: &[u8]) -> ipv4::Packet<'_> {
    let packet = ipv4::parse(octets).expect("an IPv4 packet");
    assert!(packet.header_checksum_ok());
    assert!(packet.total_len() <= usize::from(MTU));
    packet
}

fn nonce(salt: u8, iv: [u8; 8]) -> [u8; 12] {
    let mut nonce = [salt; 12];
    nonce[4..].copy_from_slice(&iv);
    nonce
}

/// The octets with a right header checksum, if they can have one.
fn right(octets: &[u8]) -> Vec<u8> {
    let mut packet = octets.to_vec();
    ipv4::fill_checksum(&mut packet);
    packet
}

fn frame(packet: &[u8]) -> Vec<u8> {
    [&VIRTUAL_MAC.0[..], &FAR_MAC.0, &ETHERTYPE_IPV4.to_be_bytes(), packet].concat()
}

fn packet(source: [u8; 4], destination: [u8; 4], protocol: u8, tos: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0; ipv4::HEADER_LEN];
    packet.extend(payload);
    let fields = ipv4::Fields {
        tos,
        total_length: packet.len() as u16,
        identification: 7,
        dont_fragment: false,
        ttl: 64,
        protocol,
        source: source.into(),
        destination: destination.into(),
    };
    let _header_len = ipv4::write_header(&mut packet, &fields);
    packet
}

fn udp(source: [u8; 4], destination: [u8; 4], data: &[u8]) -> Vec<u8> {
    let mut datagram = vec![0x10, 0, 0x20, 0, 0, 8 + data.len() as u8, 0, 0];
    datagram.extend(data);
    packet(source, destination, ipv4::PROTOCOL_UDP, 0, &datagram)
}

fn table(side: Side, address: [u8; 4]) -> PortTable {
    PortTable {
        side,
        virtual_mac: VIRTUAL_MAC,
        virtual_addresses: vec![u32::from_be_bytes(address)],
        mtu: MTU,
        mss_clamp: true,
    }
}

fn selector(local: &str, remote: &str) -> Selector {
    Selector { local: local.parse().expect("a prefix"), remote: remote.parse().expect("a prefix") }
}

fn policies() -> Vec<Policy> {
    let policy =
        |name: &str, priority, selector, action| Policy { name: name.into(), priority, selector, action };
    vec![
        policy("tunnel", 100, selector("10.1.0.0/16", "10.2.0.0/16"), PolicyAction::Protect { policy: 1 }),
        policy("clear", 200, selector("10.1.0.0/24", "192.0.2.0/24"), PolicyAction::Bypass),
        policy("none", 300, selector("10.1.0.0/24", "198.51.100.0/24"), PolicyAction::Discard),
        policy("no-sa", 400, selector("10.1.0.0/16", "10.3.0.0/16"), PolicyAction::Protect { policy: 2 }),
    ]
}

fn sa(direction: Direction, spi: u32, key: u8) -> SaSpec {
    SaSpec {
        direction,
        spi,
        policy: 1,
        selectors: vec![selector("10.1.0.0/16", "10.2.0.0/16")],
        local: VIRTUAL_OUTSIDE.into(),
        peer: PEER.into(),
        transform: Transform::Aes128gcm16,
        key: KeyMaterial::new(vec![key; 20]),
        fingerprint: KeyFingerprint(u64::from(key)),
        base_term: 0,
        map: "tunnel".into(),
        stale: Default::default(),
    }
}

fn kernel() -> Kernel {
    let mut kernel = Kernel::default();
    for ifindex in [INSIDE, OUTSIDE] {
        let link = Link { name: format!("if{ifindex}"), kind: None, mac: OWN_MAC, mtu: MTU.into(), up: true };
        kernel.links.insert(ifindex, link);
    }
    for (prefix, ifindex) in [("10.1.0.0/24", INSIDE), ("192.0.2.0/24", OUTSIDE)] {
        let prefix = prefix.parse::<ipnet::Ipv4Net>().expect("a prefix").into();
        kernel.routes.insert(RouteKey { prefix, metric: 0, tag: 0 }, Route::Via { ifindex, gateway: None });
    }
    kernel.neighbours.insert((INSIDE, u32::from_be_bytes(HOST)), FAR_MAC);
    kernel.neighbours.insert((OUTSIDE, u32::from_be_bytes(PEER)), FAR_MAC);
    kernel
}

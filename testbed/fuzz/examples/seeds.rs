//! Writes the seed corpora: `cargo run --manifest-path testbed/fuzz/Cargo.toml --example seeds`.
//!
//! A seed is a well-formed input, from which the fuzzer finds its way. The files are committed; run this
//! again after a change of the formats.

use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::path::Path;
use tandem_api::dataplane::{
    Answer, Body, Config, CounterValues, Hello, HotStateOrigin, Idle, Interface, InterfaceStatus, Policy,
    PolicyAction, Refusal, Reply, Request, SaSpec, SaStatus, StartSettings, Status, VERSION, WorkerStatus,
    XdpMode, encode,
};
use tandem_api::types::{Direction, KeyFingerprint, KeyMaterial, Mac, Role, Selector, Side, Transform};
use tandem_lease::message::{Acknowledgement, Header, Record, Verdict, Writer, flag};
use tandem_lease::{SaKey, Way};
use tandem_ssp::frame;
use tandem_ssp::message::{Hello as SspHello, Message, StreamBody};

#[allow(missing_docs, dead_code)]
#[path = "../../../dataplane/wire/tests/wire/scapy_packets.rs"]
mod scapy_packets;

fn main() -> io::Result<()> {
    write("wire", packets())?;
    write("api_message", messages())?;
    write("config", configurations())?;
    write("pipeline", traffic())?;
    write("operator_line", questions())?;
    write("ssp_message", sessions())?;
    write("pair_message", datagrams())
}

/// Lines of operators.
fn questions() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        ("status", br#"{"id":1,"method":"show.status","params":{}}"#.to_vec()),
        ("unknown", br#"{"id":2,"method":"show.nothing"}"#.to_vec()),
        ("parameter", br#"{"id":3,"method":"detach","params":{"force":true}}"#.to_vec()),
        ("no-question", br#"{"id":4}"#.to_vec()),
    ]
}

/// Frames between control processes.
fn sessions() -> Vec<(&'static str, Vec<u8>)> {
    let hello = Message::Hello(SspHello {
        version: tandem_ssp::VERSION,
        software: "0.1.0".to_owned(),
        file_id: [7; 16],
        node: 1,
        highest: [2, 3],
        reserved: 35,
        reign: 2,
        incarnation: 4,
        incarnation_seen: 5,
        epoch_highest: 6,
        epoch_used: 6,
        digest: [9; 32],
    });
    let messages = [
        ("hello", vec![hello]),
        ("refuse", vec![Message::Refuse { reason: "another configuration".to_owned() }]),
        (
            "epoch",
            vec![
                Message::EpochWanted { above: 2 },
                Message::EpochReady { number: 3 },
                Message::EpochUse { number: 3 },
            ],
        ),
        ("incarnation", vec![Message::Incarnation { incarnation: 9 }, Message::Ping { stamp: 1 }]),
        ("end-of-bulk", vec![Message::Stream { position: 2, body: StreamBody::EndOfBulk }]),
    ];
    let framed = |message: &Message| {
        let octets = message.encode().expect("a small message");
        frame::encode(&octets).expect("fits into a frame")
    };
    messages.into_iter().map(|(name, list)| (name, list.iter().flat_map(framed).collect())).collect()
}

/// What a node is doing, then datagrams of its partner.
fn datagrams() -> Vec<(&'static str, Vec<u8>)> {
    let mut header = Header::new();
    header.number.set(1 << 40 | 1);
    header.incarnation.set(1);
    header.flags.set(flag::SESSION | flag::ELIGIBLE);
    let mut active = header;
    active.number.set(1 << 40 | 2);
    active.flags.set(flag::ACTIVE | flag::STRICT | flag::SESSION);
    (active.term, active.reign) = (1.into(), 1.into());
    (active.strict_version, active.strict_incarnation) = (5.into(), 1.into());
    let key = SaKey { way: Way::In, spi: 0x100, fingerprint: 7 };
    let words = [(0, 3), (1, 1 << 32 | 1)].into_iter().collect();
    let record = Record { key, number: 33, packets: 3, bytes: 99, words };
    let answer = Acknowledgement { key, version: 1, verdict: Verdict::Merged };
    let with = |state: u8, header: &Header, fill: &dyn Fn(&mut Writer<'_>)| {
        let mut buffer = Vec::new();
        let mut writer = Writer::new(&mut buffer, header);
        fill(&mut writer);
        writer.finish();
        [&[state][..], &(buffer.len() as u16).to_be_bytes(), &buffer].concat()
    };
    vec![
        ("heartbeat", with(0, &header, &|_| ())),
        ("heartbeat-to-active", with(0b1_1110, &header, &|_| ())),
        ("strict", with(0b11_0110, &active, &|_| ())),
        ("seal", with(0b11_0110, &active, &|writer| assert!(writer.seal(5, 1, 0)))),
        ("sealed", with(0b1_1110, &header, &|writer| assert!(writer.sealed(1)))),
        ("answer", with(0b1_1110, &header, &|writer| assert!(writer.acknowledge(&answer, false)))),
        (
            "records",
            with(0b110, &active, &|writer| {
                assert!(writer.records(5, false, 2));
                writer.record(&record);
            }),
        ),
        (
            "final-records",
            with(0b1_1110, &header, &|writer| {
                assert!(writer.records(5, true, 2));
                writer.record(&record);
            }),
        ),
    ]
}

/// Replaces the committed corpus of `target`.
fn write(target: &str, seeds: Vec<(&str, Vec<u8>)>) -> io::Result<()> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
    if folder.exists() {
        fs::remove_dir_all(&folder)?;
    }
    fs::create_dir_all(&folder)?;
    for (name, octets) in seeds {
        fs::write(folder.join(name), octets)?;
    }
    Ok(())
}

/// The number in front is MTU and MSS at once.
fn packets() -> Vec<(&'static str, Vec<u8>)> {
    use scapy_packets::*;
    let with = |number: u16, packet: &[u8]| [&number.to_be_bytes(), packet].concat();
    vec![
        ("arp-request", with(1500, &ARP_REQUEST[14..])),
        ("arp-reply", with(1500, &ARP_REPLY[14..])),
        ("udp", with(48, &VLAN_UDP[18..])),
        ("udp-datagram", with(48, &UDP_IKE[20..])),
        ("esp", with(68, ESP_PACKET)),
        ("echo-request", with(1500, ECHO_REQUEST)),
        ("echo-with-options", with(32, ECHO_WITH_OPTIONS)),
        ("time-exceeded", with(68, TIME_EXCEEDED)),
        ("too-long", with(1390, TOO_LONG)),
        ("syn", with(1310, SYN_1460)),
        ("syn-ack", with(1310, SYN_ACK_9000)),
        ("syn-segment", with(1310, &SYN_1460[20..])),
        ("to-cut", with(100, TO_CUT)),
        ("first-fragment", with(60, CUT[0])),
        ("last-fragment", with(60, CUT[2])),
    ]
}

fn messages() -> Vec<(&'static str, Vec<u8>)> {
    let request = |body: Body| encode(&Request { id: 7, body });
    let answer = |result: Result<Reply, Refusal>| encode(&Answer { id: 300, result });
    let encoded = [
        ("request-hello", request(Body::Hello { version: VERSION, start: start_settings() })),
        ("request-configure", request(Body::Configure(Box::new(config())))),
        ("request-set-role", request(Body::SetRole { role: Role::Active, term: 5 })),
        ("request-install", request(Body::InstallSas { generation: 2, sas: vec![sa_spec(); 2] })),
        ("request-sweep", request(Body::SweepSas { generation: 2 })),
        ("request-list", request(Body::ListSas { from: 128 })),
        ("request-status", request(Body::Status)),
        ("request-detach", request(Body::Detach)),
        ("answer-hello", answer(Ok(Reply::Hello(hello())))),
        ("answer-done", answer(Ok(Reply::Done))),
        ("answer-refused", answer(Err(Refusal { reason: "term 4 is below term 5".into() }))),
        ("answer-installed", answer(Ok(Reply::Installed { new: 1, resumed: 2, unchanged: 3 }))),
        ("answer-swept", answer(Ok(Reply::Swept(4)))),
        ("answer-sas", answer(Ok(Reply::Sas { sas: vec![sa_status()], next: Some(128) }))),
        ("answer-status", answer(Ok(Reply::Status(Box::new(status()))))),
    ];
    encoded.into_iter().map(|(name, octets)| (name, octets.expect("seeds are short"))).collect()
}

fn start_settings() -> StartSettings {
    StartSettings { workers: 2, max_sas: 1024, frames: 8192, aead: "auto".into(), idle: Idle::Adaptive }
}

fn selector() -> Selector {
    Selector {
        local: "10.1.0.0/16".parse().expect("a prefix"),
        remote: "10.2.0.0/16".parse().expect("a prefix"),
    }
}

fn config() -> Config {
    Config {
        interfaces: vec![Interface {
            name: "eth0".into(),
            side: Side::Inside,
            virtual_addresses: vec!["10.1.0.1/24".parse().expect("a prefix")],
            virtual_mac: Mac([2, 0, 0x5e, 0, 0x53, 1]),
            queues: 2,
            mode: XdpMode::Native,
            mss_clamp: true,
            witness: None,
        }],
        policies: vec![
            Policy {
                name: "branch".into(),
                priority: 10,
                selector: selector(),
                action: PolicyAction::Protect { policy: 1 },
            },
            Policy { name: "rest".into(), priority: 20, selector: selector(), action: PolicyAction::Discard },
        ],
    }
}

fn sa_spec() -> SaSpec {
    SaSpec {
        direction: Direction::Outbound,
        spi: 0x1234_5678,
        policy: 1,
        selectors: vec![selector()],
        local: Ipv4Addr::new(192, 0, 2, 1),
        peer: Ipv4Addr::new(198, 51, 100, 1),
        transform: Transform::Aes128gcm16,
        key: KeyMaterial::new(vec![9; 20]),
        fingerprint: KeyFingerprint(0xfeed),
        base_term: 5,
        stale: tandem_api::dataplane::StaleAction::Jump,
        map: "branch".into(),
    }
}

fn hello() -> Hello {
    Hello {
        version: VERSION,
        software: "0.1.0".into(),
        pid: 4711,
        hot_state: HotStateOrigin::Adopted,
        role: Role::Standby,
        term: 5,
        generation: 2,
    }
}

fn sa_status() -> SaStatus {
    SaStatus {
        direction: Direction::Inbound,
        spi: 0x8010_0005,
        slot: 5,
        policy: 1,
        map: "branch".into(),
        selectors: vec![selector()],
        local: Ipv4Addr::new(192, 0, 2, 1),
        peer: Ipv4Addr::new(198, 51, 100, 1),
        transform: Transform::Aes256gcm16,
        fingerprint: KeyFingerprint(0xfeed),
        lease_end: 6,
        limit: u64::MAX,
        base_term: 5,
        generation: 2,
        packets: 1_000,
        bytes: 1_000_000,
        sequence: 1_003,
        replayed: 1,
        too_old: 2,
        auth_failed: 3,
        inner_wrong: 4,
        send_errors: 0,
        window: 4_032,
    }
}

fn status() -> Status {
    Status {
        role: Role::Active,
        term: 5,
        aead: "aws-lc-rs".into(),
        counters: CounterValues {
            counters: vec![1, 2, 3],
            drops: vec![4, 5],
            slow_drops: vec![6],
            slow: vec![7, 8],
        },
        interfaces: vec![InterfaceStatus {
            name: "eth0".into(),
            index: 2,
            side: Side::Outside,
            up: true,
            driver: "veth".into(),
            mtu: 1500,
            mac: Mac([2, 0, 0, 0, 0, 1]),
            virtual_mac: Mac([2, 0, 0x5e, 0, 0x53, 1]),
            virtual_addresses: vec!["192.0.2.1/24".parse().expect("a prefix")],
            xdp_mode: "native".into(),
            zero_copy: false,
            queues: 1,
            rx_frames: 10,
            rx_bytes: 1_000,
            tx_frames: 20,
            tx_bytes: 2_000,
            steering: vec![("esp".into(), 5)],
            socket: vec![("rx_dropped".into(), 0)],
        }],
        workers: vec![WorkerStatus { worker: 0, core: Some(1), rounds: 99, free_frames: 4_000 }],
        sas: (1, 1),
    }
}

const CONFIGURATION: &str = r#"
[node]
name = "gw-a"
state-directory = "/var/lib/tandem"
control-socket = "/run/tandem/control.sock"
control-group = "netadmin"

[dataplane]
socket = "/run/tandem/dataplane.sock"
workers = 2
max-sas = 4096
frames = 16384
aead = "auto"
idle = "adaptive"

[[interface]]
name = "eth0"
side = "inside"
virtual-addresses = ["10.1.0.1/24"]
virtual-mac = "02:00:5e:00:53:01"
xdp-mode = "native"
queues = 2
mss-clamp = true

[[interface]]
name = "eth1"
side = "outside"
virtual-addresses = ["192.0.2.1/24"]

[[crypto-map]]
name = "branch"
priority = 100
local = "192.0.2.1"
peer = "198.51.100.2"
protect = [{ local = "10.1.0.0/16", remote = "10.2.0.0/16" }, { local = "10.1.0.0/16", remote = "10.3.0.0/16" }]
[crypto-map.static.inbound]
spi = 0x1001
transform = "aes128gcm16"
key = "000102030405060708090a0b0c0d0e0f10111213"
[crypto-map.static.outbound]
spi = 0x2001
transform = "aes256gcm16"
key-file = "/etc/tandem/branch.key"
base-term = 5

[[policy]]
name = "internet"
priority = 200
local = "10.1.0.0/16"
remote = "203.0.113.0/24"
action = "bypass"

[[policy]]
name = "rest"
priority = 300
local = "10.1.0.0/16"
remote = "0.0.0.0/0"
action = "discard"
"#;
const KEY_FILE: &str = "202122232425262728292a2b2c2d2e2f303132333435363738393a3b3c3d3e3f40414243\n";

fn configurations() -> Vec<(&'static str, Vec<u8>)> {
    let with = |from: &str, to: &str| {
        assert!(CONFIGURATION.contains(from), "{from}");
        format!("{}\0{KEY_FILE}", CONFIGURATION.replace(from, to)).into_bytes()
    };
    vec![
        ("good", with("", "")),
        ("short-key-file", format!("{CONFIGURATION}\0{}", &KEY_FILE[..40]).into_bytes()),
        ("not-toml", with("[[policy]]", "[[policy")),
        ("same-priority", with("priority = 300", "priority = 200")),
        ("unknown-key", with("idle =", "idel =")),
        ("unreadable-key-file", with("/etc/tandem/branch.key", "unreadable")),
        ("same-address", with("192.0.2.1/24", "10.1.0.1/24")),
        ("wrong-types", with("workers = 2", "workers = \"2\"")),
        ("few-frames", with("frames = 16384", "frames = 64")),
        ("empty", vec![]),
    ]
}

/// Records of the target: kind, length, octets.
fn traffic() -> Vec<(&'static str, Vec<u8>)> {
    use scapy_packets::*;
    let record = |kind: u8, octets: &[u8]| {
        let len = u8::try_from(octets.len()).expect("a record has 255 octets at most");
        [&[kind, len], octets].concat()
    };
    // An IPv4 packet whose checksum the target makes right.
    let packet = |protocol: u8, source: [u8; 4], destination: [u8; 4], payload: &[u8]| {
        let len = 20 + u8::try_from(payload.len()).expect("a short payload");
        let header = [&[0x45, 0, 0, len, 0, 1, 0, 0, 64, protocol, 0, 0], &source[..], &destination].concat();
        [&header[..], payload].concat()
    };
    let (host, remote) = ([10, 1, 0, 10], [10, 2, 0, 10]);
    let (ours_inside, ours_outside, peer) = ([10, 1, 0, 1], [192, 0, 2, 1], [192, 0, 2, 2]);
    let udp = [0x10, 0, 0x20, 0, 0, 12, 0, 0, 1, 2, 3, 4];
    let syn = &SYN_1460[20..];
    // No checksum but this one is right.
    let echo = [8, 0, 0xf7, 0xfd, 0, 1, 0, 1];
    let sealed = |sequence: u32, inner: &[u8], trailer: &[u8]| {
        record(4, &[&sequence.to_be_bytes(), &[0][..], inner, trailer].concat())
    };
    // With checksums, for nobody repairs what is sealed.
    let inner = |ttl: u8| {
        let mut inner = packet(17, remote, host, &udp);
        inner[8] = ttl;
        let sum = inner[..20]
            .chunks(2)
            .fold(0u32, |sum, pair| sum + (u32::from(pair[0]) << 8) + u32::from(pair[1]));
        let sum = !(((sum & 0xffff) + (sum >> 16)) as u16);
        inner[10..12].copy_from_slice(&sum.to_be_bytes());
        inner
    };
    let good_trailer = [1, 2, 2, 4];
    let arp = |target: [u8; 4]| [&ARP_REQUEST[..38], &target, &ARP_REQUEST[42..]].concat();
    vec![
        ("arp-inside", record(0, &arp(ours_inside))),
        ("arp-outside", record(1, &arp(ours_outside))),
        ("arp-other", record(1, ARP_REQUEST)),
        ("udp-out", record(2, &packet(17, host, remote, &udp))),
        ("syn-out", record(2, &packet(6, host, remote, syn))),
        ("fragment-out", record(7, &[&packet(17, host, remote, &udp)[..], &[200]].concat())),
        ("bypass-out", record(2, &packet(17, host, peer, &udp))),
        ("discarded", record(2, &packet(17, host, [198, 51, 100, 1], &udp))),
        ("no-sa", record(2, &packet(17, host, [10, 3, 0, 1], &udp))),
        ("ping-inside", record(2, &packet(1, host, ours_inside, &echo))),
        ("ping-outside", record(3, &packet(1, peer, ours_outside, &echo))),
        ("ike", record(3, &packet(17, peer, ours_outside, &[1, 0xf4, 1, 0xf4, 0, 8, 0, 0]))),
        ("clear-from-outside", record(3, &packet(17, remote, host, &udp))),
        ("sealed", sealed(1, &inner(64), &good_trailer)),
        ("replayed", [sealed(5, &inner(64), &good_trailer), sealed(5, &inner(64), &good_trailer)].concat()),
        (
            "too-old",
            [sealed(9_999, &inner(64), &good_trailer), sealed(1, &inner(64), &good_trailer)].concat(),
        ),
        ("ttl-ends", sealed(2, &inner(1), &good_trailer)),
        ("bad-padding", sealed(3, &inner(64), &[1, 3, 2, 4])),
        ("dummy", sealed(4, &inner(64), &[1, 2, 2, 59])),
        ("altered", record(5, &[0, 30, 1])),
        ("unaltered", record(5, &[0, 30, 0])),
        ("unresolved", [record(3, &packet(17, peer, [10, 1, 0, 77], &udp)), record(6, &[0; 200])].concat()),
    ]
}

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

#[allow(missing_docs, dead_code)]
#[path = "../../../dataplane/wire/tests/wire/scapy_packets.rs"]
mod scapy_packets;

fn main() -> io::Result<()> {
    write("wire", packets())?;
    write("api_message", messages())
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

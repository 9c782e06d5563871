//! What a good configuration comes to.

use std::collections::HashMap;
use std::fmt::Write;
use tandem_api::dataplane::{Idle, PolicyAction, XdpMode};
use tandem_api::types::{Direction, Side, Transform};
use tandem_config::{Settings, Source, fingerprint, load};
use zeroize::Zeroizing;

const EXAMPLE: &str = r#"
[node]
name = "gw-a"

[[interface]]
name = "in0"
side = "inside"
virtual-addresses = ["10.1.0.1/24"]
mss-clamp = true

[[interface]]
name = "out0"
side = "outside"
virtual-addresses = ["192.0.2.1/24"]
virtual-mac = "02:00:5e:00:53:01"
xdp-mode = "generic"

[[crypto-map]]
name = "site-b"
priority = 100
local = "192.0.2.1"
peer = "198.51.100.2"
protect = [{ local = "10.1.0.0/24", remote = "10.2.0.0/24" }, { local = "10.1.0.0/24", remote = "10.3.0.0/24" }]
[crypto-map.static.inbound]
spi = 0x1001
transform = "aes128gcm16"
key = "000102030405060708090a0b0c0d0e0fa0a1a2a3"
[crypto-map.static.outbound]
spi = 0x2001
transform = "aes256gcm16"
key-file = "site-b.out"
base-term = 4

[[policy]]
name = "printers"
priority = 50
action = "bypass"
local = "10.1.0.0/28"
remote = "10.2.0.0/24"
"#;

fn parse(text: &str) -> Settings {
    let key = "404142434445464748494a4b4c4d4e4f505152535455565758595a5b5c5d5e5fb0b1b2b3\n";
    let mut files = |name: &str| match name {
        "site-b.out" => Ok(Zeroizing::new(key.to_owned())),
        _ => Err("no such file".to_owned()),
    };
    match load(&Source::new("tandem.toml", text.to_owned()), &mut files) {
        Ok(settings) => settings,
        Err(findings) => panic!("{findings}"),
    }
}

#[test]
fn the_example_gives_interfaces_policies_sas_and_fence_with_the_documented_defaults() {
    let settings = parse(EXAMPLE);
    assert_eq!(settings.node.state_directory.to_str(), Some("/var/lib/tandem"));
    assert_eq!(settings.node.control_socket.to_str(), Some("/run/tandem/control.sock"));
    assert_eq!(settings.data_plane_socket.to_str(), Some("/run/tandem/dataplane.sock"));
    let start = &settings.start;
    assert_eq!((start.workers, start.max_sas, start.frames), (1, 4096, 8192));
    assert_eq!((start.aead.as_str(), start.idle), ("auto", Idle::Adaptive));

    let [inside, outside] = &settings.data_plane.interfaces[..] else { panic!("two interfaces") };
    assert_eq!((inside.side, inside.mode, inside.queues), (Side::Inside, XdpMode::Native, 1));
    assert_eq!(inside.virtual_mac.to_string(), "00:00:0c:9f:f0:01");
    assert!(inside.mss_clamp && !outside.mss_clamp);
    assert_eq!(outside.mode, XdpMode::Generic);

    let actions: Vec<_> = settings.data_plane.policies.iter().map(|p| (p.priority, p.action)).collect();
    let protect = PolicyAction::Protect { policy: 0 };
    assert_eq!(actions, [(100, protect), (100, protect), (50, PolicyAction::Bypass)]);

    let [inbound, outbound] = &settings.sas[..] else { panic!("two SAs") };
    assert_eq!((inbound.direction, inbound.spi, inbound.base_term), (Direction::Inbound, 0x1001, 0));
    assert_eq!((outbound.direction, outbound.spi, outbound.base_term), (Direction::Outbound, 0x2001, 4));
    assert_eq!(outbound.transform, Transform::Aes256gcm16);
    assert_eq!(outbound.key.expose().len(), 36);
    assert_eq!(inbound.fingerprint, fingerprint(inbound.transform, &inbound.key));
    assert_eq!(inbound.selectors.len(), 2);
    assert_eq!(settings.maps[0].interface, "out0");
    let fence: Vec<String> = settings.fence.iter().map(ToString::to_string).collect();
    assert_eq!(fence, ["10.2.0.0/24", "10.3.0.0/24"]);
}

#[test]
fn the_published_example_loads_and_names_the_defaults_that_hold() {
    let text = include_str!("../../../docs/tandem.toml");
    let settings = parse(text);
    assert_eq!(settings.maps.len(), 1);
    // With every comment that holds a setting taken in, nothing changes but what has no default.
    let settings_of =
        |line: &str| line.strip_prefix("# ").filter(|rest| rest.contains(" = ")).map(str::to_owned);
    let mut all = String::new();
    for line in text.lines() {
        let line = settings_of(line).filter(|line| !line.starts_with("key-file")).unwrap_or(line.to_owned());
        all += &(line + "\n");
    }
    let mut spelled = parse(&all);
    assert_eq!(spelled.node.control_group.take().as_deref(), Some("tandem"));
    assert_eq!(spelled, settings);
}

#[test]
fn the_example_of_the_readme_loads_as_it_stands() {
    let readme = include_str!("../../../README.md");
    let example = readme.split("```toml\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    let mut files = |name: &str| match name {
        "/etc/tandem/site-b.in.key" => Ok(Zeroizing::new("11".repeat(20))),
        "/etc/tandem/site-b.out.key" => Ok(Zeroizing::new("22".repeat(20))),
        _ => Err("no such file".to_owned()),
    };
    let source = Source::new("README.md", example.to_owned());
    let settings = load(&source, &mut files).unwrap_or_else(|findings| panic!("{findings}"));
    assert_eq!((settings.maps.len(), settings.sas.len()), (1, 2));
}

#[test]
fn neither_source_nor_settings_show_a_key_when_they_are_debugged() {
    let source = Source::new("tandem.toml", EXAMPLE.to_owned());
    let shown = format!("{source:?} {:?}", parse(EXAMPLE));
    assert!(!shown.contains("000102030405"), "{shown}");
    assert!(!shown.contains("0, 1, 2, 3, 4"), "{shown}");
}

fn many(maps: usize) -> String {
    let head = EXAMPLE.split("[[crypto-map]]").next().unwrap();
    let mut text = head.to_owned();
    for i in 0..maps {
        let (high, low) = (i >> 8, i & 255);
        write!(
            text,
            "[[crypto-map]]\nname = \"m{i}\"\npriority = 7\nlocal = \"192.0.2.1\"\npeer = \"198.51.100.2\"\n\
             protect = [{{ local = \"10.1.0.0/24\", remote = \"10.{}.{low}.0/24\" }}]\n\
             [crypto-map.static.inbound]\nspi = {}\ntransform = \"aes128gcm16\"\nkey = \"{i:040x}\"\n\
             [crypto-map.static.outbound]\nspi = {}\ntransform = \"aes128gcm16\"\nkey = \"ff{i:038x}\"\n",
            high + 16,
            i + 4096,
            i + 4096,
        )
        .unwrap();
    }
    text
}

#[test]
fn a_thousand_crypto_maps_load_and_the_work_grows_with_their_number_only() {
    let settings = parse(&many(1000));
    assert_eq!(settings.maps.len(), 1000);
    assert_eq!(settings.sas.len(), 2000);
    assert_eq!(settings.fence.len(), 1000);
    // The best of three of each, so that a busy machine does not decide. Ten times the maps take 10 times
    // the time where the work is linear and 100 times where each is compared with each.
    let time = |text: &str| {
        let once = || {
            let start = std::time::Instant::now();
            parse(text);
            start.elapsed()
        };
        (0..3).map(|_| once()).min().unwrap()
    };
    let ratio = time(&many(1000)).as_secs_f64() / time(&many(100)).as_secs_f64();
    assert!(ratio < 40.0, "ten times the crypto maps took {ratio:.1} times the time");
}

#[test]
fn policy_numbers_stay_with_their_crypto_map_when_others_come_and_go() {
    let mut settings = parse(&many(3));
    settings.renumber(&HashMap::from([("m1".to_owned(), 0), ("m2".to_owned(), 9), ("gone".to_owned(), 1)]));
    assert_eq!(
        settings.numbers(),
        HashMap::from([("m0".to_owned(), 2), ("m1".to_owned(), 0), ("m2".to_owned(), 9)])
    );
    for sa in &settings.sas {
        assert_eq!(Some(&sa.policy), settings.numbers().get(&sa.map), "SA of {}", sa.map);
    }
    for policy in &settings.data_plane.policies {
        let number = settings.numbers()[&policy.name];
        assert_eq!(policy.action, PolicyAction::Protect { policy: number });
    }
}

#[test]
fn two_crypto_maps_never_get_the_same_policy_number() {
    let mut settings = parse(&many(2));
    settings.renumber(&HashMap::from([("m0".to_owned(), 1), ("m1".to_owned(), 1)]));
    let numbers = settings.numbers();
    assert_ne!(numbers["m0"], numbers["m1"]);
}

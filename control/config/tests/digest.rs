//! What must be equal on both nodes of a pair.

use tandem_config::{DigestEntry, Settings, Source, load};
use zeroize::Zeroizing;

const PAIR: &str = include_str!("../../../docs/tandem-pair.toml");
const KEY: &str = "1111111111111111111111111111111111111111";
const POLICY: &str = "\n[[policy]]\nname = \"printers\"\npriority = 50\naction = \"bypass\"\n\
                      local = \"10.1.0.0/28\"\nremote = \"10.2.0.0/24\"\n";

fn text() -> String {
    let text = PAIR.replace("key-file = \"site-b.in.key\"", &format!("key = \"{KEY}\"\nbase-term = 0"));
    text.replace("side = \"inside\"", "side = \"inside\"\nmss-clamp = false") + POLICY
}

fn parse(text: &str) -> Settings {
    let mut files = |name: &str| match name {
        "site-b.out.key" => Ok(Zeroizing::new("22".repeat(20))),
        _ => Err("no such file".to_owned()),
    };
    load(&Source::new("t", text.to_owned()), &mut files).unwrap_or_else(|findings| panic!("{findings}"))
}

fn changed(from: &str, to: &str) -> Vec<DigestEntry> {
    let text = text();
    assert!(text.contains(from), "{from}");
    parse(&text.replacen(from, to, 1)).digest()
}

fn differing(a: &[DigestEntry], b: &[DigestEntry]) -> Vec<String> {
    let only = |a: &[DigestEntry], b: &[DigestEntry]| -> Vec<String> {
        a.iter().filter(|entry| !b.contains(entry)).map(|(path, _)| path.clone()).collect()
    };
    let mut all = only(a, b);
    all.extend(only(b, a));
    all.sort();
    all.dedup();
    all
}

#[test]
fn a_change_of_one_covered_key_changes_its_entry_and_no_other() {
    let own = parse(&text()).digest();
    let cases = [
        (
            "virtual-addresses = [\"10.1.0.1/24\"]",
            "virtual-addresses = [\"10.1.0.4/24\"]",
            "interface.inside.1.virtual-addresses",
        ),
        (
            "virtual-addresses = [\"192.0.2.1/24\"]",
            "virtual-addresses = [\"192.0.2.1/25\"]",
            "interface.outside.1.virtual-addresses",
        ),
        (
            "side = \"outside\"",
            "side = \"outside\"\nvirtual-mac = \"02:00:5e:00:53:01\"",
            "interface.outside.1.virtual-mac",
        ),
        ("mss-clamp = false", "mss-clamp = true", "interface.inside.1.mss-clamp"),
        ("# heartbeat-ms = 2", "heartbeat-ms = 3", "redundancy.heartbeat-ms"),
        ("# takeover-ms = 10", "takeover-ms = 11", "redundancy.takeover-ms"),
        ("# alone-ms = 30", "alone-ms = 31", "redundancy.alone-ms"),
        ("# cold-wait-s = 3", "cold-wait-s = 4", "redundancy.cold-wait-s"),
        ("priority = 100\nlocal", "priority = 101\nlocal", "crypto-map.site-b.priority"),
        ("peer = \"198.51.100.2\"", "peer = \"198.51.100.3\"", "crypto-map.site-b.peer"),
        (
            "protect = [{ local = \"10.1.0.0/24\"",
            "protect = [{ local = \"10.1.0.0/25\"",
            "crypto-map.site-b.protect",
        ),
        ("# stale-takeover = \"jump\"", "stale-takeover = \"hold\"", "crypto-map.site-b.stale-takeover"),
        ("spi = 0x1001", "spi = 0x1002", "crypto-map.site-b.static.inbound.spi"),
        (KEY, "1111111111111111111111111111111111111112", "crypto-map.site-b.static.inbound.key"),
        ("base-term = 0", "base-term = 1", "crypto-map.site-b.static.inbound.base-term"),
        ("priority = 50", "priority = 51", "policy.printers.priority"),
        ("action = \"bypass\"", "action = \"discard\"", "policy.printers.action"),
        ("local = \"10.1.0.0/28\"", "local = \"10.1.0.0/29\"", "policy.printers.local"),
        ("remote = \"10.2.0.0/24\"\n", "remote = \"10.2.0.0/25\"\n", "policy.printers.remote"),
    ];
    for (from, to, path) in cases {
        let other = changed(from, to);
        assert_eq!(differing(&own, &other), [path], "{from} -> {to}");
    }
    // A map's local address must be one of an interface, and a transform has a key of its length: two change.
    let local = text().replace("192.0.2.1", "192.0.2.7");
    assert_eq!(
        differing(&own, &parse(&local).digest()),
        ["crypto-map.site-b.local", "interface.outside.1.virtual-addresses"]
    );
    let transform = text().replacen("aes128gcm16", "aes256gcm16", 1).replace(KEY, &"11".repeat(36));
    assert_eq!(
        differing(&own, &parse(&transform).digest()),
        ["crypto-map.site-b.static.inbound.key", "crypto-map.site-b.static.inbound.transform"]
    );
    // Every entry has been changed by one of these, or has its like of the other direction or side.
    let covered: Vec<&str> = cases.iter().map(|(_, _, path)| *path).collect();
    let like = |path: &str| path.replace("outbound", "inbound").replace("outside", "inside");
    for (path, _) in &own {
        let known = covered.iter().any(|covered| like(covered) == like(path));
        assert!(known || path.ends_with("-b.local") || path.ends_with("transform"), "{path} is not tried");
    }
}

#[test]
fn what_is_each_nodes_own_changes_nothing() {
    let own = parse(&text()).digest();
    let changes = [
        ("name = \"gw-a1\"", "name = \"gw-a2\"\nstate-directory = \"/srv/t\"\ncontrol-socket = \"/run/x\""),
        ("# workers = 1", "workers = 2\nframes = 16384\nmax-sas = 64\nsocket = \"/run/y\""),
        ("name = \"in0\"", "name = \"eth7\"\nxdp-mode = \"generic\""),
        ("witness = \"10.1.0.10\"", "witness = \"10.1.0.11\""),
        ("witness = \"10.1.0.10\"", ""),
        ("partner-key = \"3b", "partner-key = \"3c"),
        ("# priority = 100", "priority = 7"),
        ("name = \"sync\"", "name = \"cable\""),
        (
            "local = \"10.255.0.1\"\nremote = \"10.255.0.2\"",
            "local = \"10.255.0.2\"\nremote = \"10.255.0.1\"",
        ),
        ("# port = 3249", "port = 4000"),
    ];
    for (from, to) in changes {
        assert_eq!(changed(from, to), own, "{from} -> {to}");
    }
    let mut renumbered = parse(&text());
    renumbered.renumber(&[("site-b".to_owned(), 9)].into());
    assert_eq!(renumbered.digest(), own, "numbers of policies are the node's own");
}

#[test]
fn the_list_is_sorted_and_names_each_key_once() {
    let own = parse(&text()).digest();
    assert!(own.windows(2).all(|pair| pair[0].0 < pair[1].0), "{own:?}");
    // Sorted means that the order of sections does not matter.
    let (head, policy) = (text().replace(POLICY, ""), POLICY);
    let first = head.replacen("[[crypto-map]]", &format!("{policy}[[crypto-map]]"), 1);
    assert_eq!(parse(&first).digest(), own);
}

#[test]
fn a_name_with_a_dot_is_quoted_in_the_key_path() {
    let dotted = changed("name = \"site-b\"", "name = \"site.b\"");
    assert!(dotted.iter().any(|(path, _)| path == "crypto-map.\"site.b\".static.inbound.key"), "{dotted:?}");
}

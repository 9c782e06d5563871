//! The pair in the configuration: what is taken, and what an operator reads where it is wrong.

use std::net::SocketAddrV4;
use tandem_api::dataplane::StaleAction;
use tandem_api::pair::PairTimings;
use tandem_config::{Settings, Source, load};
use zeroize::Zeroizing;

const PAIR: &str = include_str!("../../../docs/tandem-pair.toml");

fn try_load(text: &str) -> Result<Settings, tandem_config::Findings> {
    let mut files = |name: &str| match name {
        "site-b.in.key" => Ok(Zeroizing::new("11".repeat(20))),
        "site-b.out.key" => Ok(Zeroizing::new("22".repeat(20))),
        _ => Err("no such file".to_owned()),
    };
    load(&Source::new("tandem.toml", text.to_owned()), &mut files)
}

fn parse(text: &str) -> Settings {
    try_load(text).unwrap_or_else(|findings| panic!("{findings}"))
}

/// The example with one change.
fn changed(from: &str, to: &str) -> String {
    assert!(PAIR.contains(from), "{from}");
    PAIR.replacen(from, to, 1)
}

/// Where the only error is, what it says, and its cure.
fn one(from: &str, to: &str) -> (String, String, String) {
    let findings = match try_load(&changed(from, to)) {
        Ok(_) => panic!("was taken: {from} -> {to}"),
        Err(findings) => findings,
    };
    let mut list = findings.iter();
    let first = list.next().unwrap().clone();
    assert_eq!(list.next(), None, "{findings}");
    (first.path, first.message, first.cure)
}

#[test]
fn the_published_pair_example_gives_partner_paths_witnesses_and_stale_takeover() {
    let settings = parse(PAIR);
    let redundancy = settings.redundancy.as_ref().unwrap();
    assert_eq!(redundancy.partner_key[..3], [0x3b, 0x6a, 0x27]);
    assert_eq!(redundancy.priority, 100);
    assert_eq!(redundancy.timings, PairTimings::default());
    let paths: Vec<(&str, SocketAddrV4, SocketAddrV4)> =
        redundancy.paths.iter().map(|path| (path.name.as_str(), path.local, path.remote)).collect();
    let at = |text: &str| text.parse::<SocketAddrV4>().unwrap();
    assert_eq!(
        paths,
        [
            ("sync", at("10.255.0.1:3249"), at("10.255.0.2:3249")),
            ("inside", at("10.1.0.2:3249"), at("10.1.0.3:3249")),
        ]
    );
    let witnesses: Vec<_> = settings.data_plane.interfaces.iter().map(|i| i.witness).collect();
    assert_eq!(witnesses, [Some([10, 1, 0, 10].into()), None]);
    assert_eq!(settings.maps[0].stale, StaleAction::Jump);
    assert!(settings.sas.iter().all(|sa| sa.stale == StaleAction::Jump));
    let hold = parse(&changed("# stale-takeover = \"jump\"", "stale-takeover = \"hold\""));
    assert!(hold.sas.iter().all(|sa| sa.stale == StaleAction::Hold));
}

#[test]
fn every_default_that_the_pair_example_names_is_the_one_that_holds() {
    // With every comment that holds a setting taken in, nothing changes.
    let take = |line: &str| line.strip_prefix("# ").filter(|rest| rest.contains(" = ")).map(str::to_owned);
    let all: String = PAIR.lines().map(|line| take(line).unwrap_or(line.to_owned()) + "\n").collect();
    assert_ne!(all, PAIR);
    assert_eq!(parse(&all), parse(PAIR));
}

#[test]
fn a_gateway_without_the_section_has_no_partner() {
    let alone: String = PAIR.split("[redundancy]").next().unwrap().to_owned();
    let rest = PAIR.split("# Crypto maps").nth(1).unwrap();
    assert_eq!(parse(&format!("{alone}#{rest}")).redundancy, None);
}

#[test]
fn errors_of_the_pair_name_place_and_cure() {
    let key = "3b6a27bcceb6a42d62a3a8d02a6f0d73653215771de243a63ac048a18b59da29";
    let digits = "write the 64 hexadecimal digits that `tandemctl node show` prints on the partner";
    let own = "give each path addresses of its own, or another port";
    let virtual_one =
        "write an address that only one of the nodes has, in its kernel: the virtual ones move at a takeover";
    let (first, second) = ("redundancy.path[0]", "redundancy.path[1]");
    let cases: &[(&str, &str, String, &str, &str)] = &[
        (
            key,
            &key[2..],
            "redundancy.partner-key".into(),
            "a node key has 64 hexadecimal digits, this one has 62",
            digits,
        ),
        (key, "gw-b", "redundancy.partner-key".into(), "the node key is not hexadecimal", digits),
        (key, &"0".repeat(64), "redundancy.partner-key".into(), "no node has this key", digits),
        (
            "local = \"10.255.0.1\"",
            "local = \"224.0.0.1\"",
            format!("{first}.local"),
            "224.0.0.1 is no unicast address",
            "write the address of one host",
        ),
        (
            "local = \"10.255.0.1\"",
            "local = \"10.255.0.2\"",
            format!("{first}.remote"),
            "local and remote are both 10.255.0.2",
            "write the address of the partner's kernel on this path",
        ),
        (
            "local = \"10.255.0.1\"",
            "local = \"192.0.2.1\"",
            format!("{first}.local"),
            "192.0.2.1 is a virtual address of out0",
            virtual_one,
        ),
        (
            "remote = \"10.255.0.2\"",
            "remote = \"10.1.0.1\"",
            format!("{first}.remote"),
            "10.1.0.1 is a virtual address of in0",
            virtual_one,
        ),
        (
            "remote = \"10.1.0.3\"",
            "remote = \"10.1.0.10\"",
            format!("{second}.remote"),
            "10.1.0.10 is the witness of in0",
            "choose a witness that is neither this node nor its partner: it must answer when one of them is dead",
        ),
        (
            "local = \"10.1.0.2\"",
            "local = \"10.255.0.1\"",
            format!("{second}.local"),
            "10.255.0.1:3249 is taken by the path of line 44",
            own,
        ),
        (
            "remote = \"10.1.0.3\"",
            "remote = \"10.255.0.1\"",
            format!("{second}.remote"),
            "10.255.0.1:3249 is taken by the path of line 44",
            own,
        ),
        (
            "name = \"inside\"",
            "name = \"sync\"",
            format!("{second}.name"),
            "path `sync` is there already, in line 43",
            "choose another name",
        ),
        (
            "# port = 3249",
            "port = 65536",
            format!("{first}.port"),
            "65536 is out of range",
            "choose a number from 1 to 65535",
        ),
        (
            "# priority = 100",
            "priority = 256",
            "redundancy.priority".into(),
            "256 is out of range",
            "choose a number from 0 to 255",
        ),
        (
            "# heartbeat-ms = 2",
            "heartbeat-ms = 1001",
            "redundancy.heartbeat-ms".into(),
            "1001 is out of range",
            "choose a number from 1 to 1000",
        ),
        (
            "# heartbeat-ms = 2",
            "heartbeat-ms = 4",
            "redundancy.heartbeat-ms".into(),
            "takeover-ms = 10 is less than 3 heartbeats of 4 ms",
            "write at least `takeover-ms = 12`, or a shorter heartbeat-ms: one or two lost heartbeats must not cause a takeover",
        ),
        (
            "# takeover-ms = 10",
            "takeover-ms = 5",
            "redundancy.takeover-ms".into(),
            "takeover-ms = 5 is less than 3 heartbeats of 2 ms",
            "write at least `takeover-ms = 6`, or a shorter heartbeat-ms: one or two lost heartbeats must not cause a takeover",
        ),
        (
            "# alone-ms = 30",
            "alone-ms = 19",
            "redundancy.alone-ms".into(),
            "alone-ms = 19 is not more than 19 = takeover-ms 10 + 2 heartbeats of 2 ms + 5 ms for round trip and drift",
            "write at least `alone-ms = 20`, or a shorter takeover-ms: an active node that went alone before the standby takes over would make that takeover stale (failover.md F20)",
        ),
        (
            "witness = \"10.1.0.10\"",
            "witness = \"10.1.0.1\"",
            "interface[0].witness".into(),
            "10.1.0.1 is a virtual address of this pair (line 19)",
            "write a neighbour that is neither this node nor its partner",
        ),
        (
            "witness = \"10.1.0.10\"",
            "witness = \"10.9.0.10\"",
            "interface[0].witness".into(),
            "10.9.0.10 is no neighbour here: no network of this interface has it",
            "write a host or router on this segment, or leave it out",
        ),
        (
            "# stale-takeover = \"jump\"",
            "stale-takeover = \"skip\"",
            "crypto-map[0].stale-takeover".into(),
            "`skip` is not known here",
            "one of jump, hold",
        ),
    ];
    for (from, to, path, message, cure) in cases {
        let expected = (path.clone(), (*message).to_owned(), (*cure).to_owned());
        assert_eq!(one(from, to), expected, "{from} -> {to}");
    }
}

#[test]
fn a_misspelt_partner_key_is_missing_and_the_right_word_is_named() {
    let findings = try_load(&changed("\npartner-key", "\npartner-kex")).unwrap_err();
    let all: Vec<_> = findings.iter().map(|f| (f.message.as_str(), f.cure.as_str())).collect();
    let missing = ("`partner-key` is missing", "add `partner-key = \"...\"`");
    assert_eq!(all, [missing, ("unknown key `partner-kex`", "did you mean `partner-key`?")]);
}

#[test]
fn the_shortest_alone_time_that_the_formula_allows_is_taken() {
    let settings = parse(&changed("# alone-ms = 30", "alone-ms = 20"));
    assert_eq!(settings.redundancy.unwrap().timings.alone_us, 20_000);
    let settings = parse(&changed("# takeover-ms = 10", "takeover-ms = 6"));
    assert_eq!(settings.redundancy.unwrap().timings.takeover_us, 6_000);
}

#[test]
fn there_are_one_to_four_paths_and_no_two_over_the_same_way() {
    let head = PAIR.split("[[redundancy.path]]").next().unwrap();
    let tail = PAIR.split("# Crypto maps").nth(1).unwrap();
    let build = |paths: &[(u8, u8, u16)]| {
        let mut text = head.to_owned();
        for (at, (local, remote, port)) in paths.iter().enumerate() {
            text += &format!(
                "[[redundancy.path]]\nname = \"p{at}\"\nlocal = \"10.255.0.{local}\"\nremote = \"10.255.0.{remote}\"\nport = {port}\n"
            );
        }
        format!("{text}#{tail}")
    };
    let message =
        |paths: &[(u8, u8, u16)]| try_load(&build(paths)).unwrap_err().iter().next().unwrap().message.clone();
    let four: Vec<_> = (1..=4).map(|n| (n, n + 100, 3249)).collect();
    assert_eq!(parse(&build(&four)).redundancy.unwrap().paths.len(), 4);
    let five: Vec<_> = (1..=5).map(|n| (n, n + 100, 3249)).collect();
    assert_eq!(message(&five), "5 paths; there are 1 to 4");
    assert_eq!(message(&[]), "`path` is missing");
    let again = message(&[(1, 2, 3249), (1, 2, 3250)]);
    assert!(again.starts_with("10.255.0.1 to 10.255.0.2 is the path of line "), "{again}");
    assert!(
        parse(&build(&[(1, 2, 3249), (1, 3, 3250)])).redundancy.is_some(),
        "another port is another socket"
    );
}

#[test]
fn a_policy_may_cover_the_addresses_of_paths_because_own_addresses_are_exempt() {
    let wide = changed("local = \"10.1.0.0/24\", remote", "local = \"10.0.0.0/8\", remote");
    assert!(parse(&wide).redundancy.is_some());
}

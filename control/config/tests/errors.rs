//! What an operator reads when a configuration is wrong.

use proptest::prelude::*;
use tandem_config::{Findings, Source, load};

const HEAD: &str = r#"[node]
name = "gw-a"
[[interface]]
name = "in0"
side = "inside"
virtual-addresses = ["10.1.0.1/24"]
[[interface]]
name = "out0"
side = "outside"
virtual-addresses = ["192.0.2.1/24"]
"#;

const MAP: &str = r#"[[crypto-map]]
name = "b"
priority = 100
local = "192.0.2.1"
peer = "198.51.100.2"
protect = [{ local = "10.1.0.0/24", remote = "10.2.0.0/24" }]
[crypto-map.static.inbound]
spi = 0x1001
transform = "aes128gcm16"
key = "000102030405060708090a0b0c0d0e0fa0a1a2a3"
[crypto-map.static.outbound]
spi = 0x2001
transform = "aes128gcm16"
key = "101112131415161718191a1b1c1d1e1fa0a1a2a3"
"#;

fn errors(text: &str) -> Findings {
    let source = Source::new("tandem.toml", text.to_owned());
    match load(&source, &mut |_| Err("No such file or directory".to_owned())) {
        Ok(_) => panic!("was taken:\n{text}"),
        Err(findings) => findings,
    }
}

/// Messages and cures for `MAP` with one change.
fn one(from: &str, to: &str) -> (String, String, String) {
    let text = format!("{HEAD}{MAP}");
    assert!(text.contains(from), "{from}");
    let findings = errors(&text.replacen(from, to, 1));
    let mut list = findings.iter();
    let first = list.next().unwrap().clone();
    assert_eq!(list.next(), None, "{findings}");
    (first.path, first.message, first.cure)
}

#[test]
fn an_error_reads_like_a_compilers_with_place_and_cure() {
    let text = format!("{HEAD}{MAP}").replace("spi = 0x1001", "spi = 0x10").replace("priority", "prority");
    let expected = r#"error: `priority` is missing
  --> tandem.toml:11:1, crypto-map[0]
   |
11 | [[crypto-map]]
   | ^^^^^^^^^^^^^^
   = cure: add `priority = 100`

error: unknown key `prority`
  --> tandem.toml:13:1, crypto-map[0].prority
   |
13 | prority = 100
   | ^^^^^^^
   = cure: did you mean `priority`?

error: 0x10 is out of range
  --> tandem.toml:18:7, crypto-map[0].static.inbound.spi
   |
18 | spi = 0x10
   |       ^^^^
   = cure: choose a number from 256 to 4294967295

tandem.toml: 3 errors, nothing was applied"#;
    assert_eq!(errors(&text).to_string(), expected);
}

#[test]
fn text_that_is_no_toml_is_shown_where_it_breaks() {
    let expected = r#"error: not TOML: extra `=`, expected nothing
 --> tandem.toml:2:8
  |
2 | name = = "gw-a"
  |        ^
  = cure: see https://toml.io for the notation

tandem.toml: 1 error, nothing was applied"#;
    assert_eq!(errors("[node]\nname = = \"gw-a\"\n").to_string(), expected);
}

#[test]
fn each_mistake_has_its_own_message_and_cure() {
    let cases: &[(&str, &str, &str, &str, &str)] = &[
        (
            "10.2.0.0/24",
            "10.2.0.1/24",
            "crypto-map[0].protect[0].remote",
            "10.2.0.1/24 has bits set after its prefix length",
            "write 10.2.0.0/24 for the network, or 10.2.0.1/32 for the one host",
        ),
        (
            "local = \"192.0.2.1\"",
            "local = \"192.0.2.9\"",
            "crypto-map[0].local",
            "192.0.2.9 is no virtual address of an outside interface",
            "write one of 192.0.2.1, or add it to the virtual-addresses of one",
        ),
        (
            "peer = \"198.51.100.2\"",
            "peer = \"192.0.2.1\"",
            "crypto-map[0].peer",
            "192.0.2.1 is an address of this gateway",
            "write the outside address of the peer",
        ),
        (
            "peer = \"198.51.100.2\"",
            "peer = \"224.0.0.1\"",
            "crypto-map[0].peer",
            "224.0.0.1 is no unicast address",
            "write the address of one host",
        ),
        (
            "transform = \"aes128gcm16\"",
            "transform = \"aes192gcm16\"",
            "crypto-map[0].static.inbound.transform",
            "`aes192gcm16` is not known here",
            "one of aes128gcm16, aes256gcm16",
        ),
        (
            "transform = \"aes128gcm16\"",
            "transform = \"aes256gcm16\"",
            "crypto-map[0].static.inbound.key",
            "aes256gcm16 takes a key of 36 octets, this one has 20",
            "write 72 hexadecimal digits: 32 octets of key, then 4 of salt (new ones: openssl rand -hex 36)",
        ),
        (
            "10111213",
            "1011121x",
            "crypto-map[0].static.outbound.key",
            "the key is not hexadecimal",
            "write the digits 0 to 9 and a to f only, two for each octet",
        ),
        (
            "101112131415161718191a1b1c1d1e1fa0a1a2a3",
            "000102030405060708090A0B0C0D0E0FA0A1A2A3",
            "crypto-map[0].static.outbound.key",
            "the same key and salt as in crypto-map[0].static.inbound.key (line 20)",
            "give each SA and direction a key of its own (openssl rand -hex 20)",
        ),
        (
            "key = \"0001",
            "key-file = \"/etc/tandem/k\" # \"0001",
            "crypto-map[0].static.inbound.key-file",
            "key file cannot be read: No such file or directory",
            "make the file readable for the user that runs Tandem, with the key in hexadecimal",
        ),
        (
            "name = \"in0\"",
            "name = \"an-interface-with-a-name\"",
            "interface[0].name",
            "`an-interface-with-a-name` is no name of an interface",
            "write it as `ip link` shows it: 1 to 15 octets, no blank, no /, no :",
        ),
        (
            "name = \"in0\"",
            "name = \"out0\"",
            "interface[1].name",
            "interface `out0` is there already, in line 4",
            "keep one of the two sections",
        ),
        (
            "side = \"inside\"",
            "side = \"outside\"",
            "interface",
            "no inside interface",
            "add an [[interface]] section with `side = \"inside\"`",
        ),
        (
            "10.1.0.1/24",
            "10.1.0.255/24",
            "interface[0].virtual-addresses[0]",
            "10.1.0.255/24 is no address of one host in its network",
            "write host address and prefix length, such as 192.0.2.1/24",
        ),
        (
            "10.1.0.1/24",
            "192.0.2.1/24",
            "interface[1].virtual-addresses[0]",
            "virtual address 192.0.2.1 is there already, in line 6",
            "each virtual address belongs to one interface",
        ),
        (
            "side = \"inside\"",
            "side = \"inside\"\nvirtual-mac = \"01:00:5e:00:00:01\"",
            "interface[0].virtual-mac",
            "01:00:5e:00:00:01 is no unicast MAC address",
            "choose one whose first octet is even, such as 02:00:5e:00:53:01, or leave it out",
        ),
        (
            "side = \"inside\"",
            "side = \"inside\"\nqueues = 4",
            "dataplane.frames",
            "8192 frames are too few for the 5 sockets of a worker",
            "write `frames = 32768` in [dataplane], or take fewer queues",
        ),
        (
            "name = \"gw-a\"",
            "name = \"gw-a\"\n[dataplane]\nframes = 10000",
            "dataplane.frames",
            "10000 is no power of two",
            "write 8192 or 16384",
        ),
        (
            "name = \"gw-a\"",
            "name = \"gw-a\"\n[dataplane]\nworkers = 65",
            "dataplane.workers",
            "65 is out of range",
            "choose a number from 1 to 64",
        ),
        (
            "name = \"gw-a\"",
            "name = \"gw-a\"\n[dataplane]\nmax-sas = 0",
            "dataplane.max-sas",
            "0 is out of range",
            "choose a number from 1 to 1048576",
        ),
        (
            "name = \"gw-a\"",
            "name = 7",
            "node.name",
            "expected a string, found integer",
            "write it between double quotes",
        ),
        ("[node]\nname = \"gw-a\"", "", "", "`node` is missing", "add `[node]` with `name = \"gw-a\"`"),
        (
            "[[crypto-map]]",
            "[[policy]]\nname = \"p\"\npriority = 100\naction = \"bypass\"\nlocal = \"10.1.0.0/28\"\nremote = \"10.0.0.0/8\"\n[[crypto-map]]",
            "policy[0]",
            "10.1.0.0/28 <-> 10.0.0.0/8 overlaps 10.1.0.0/24 <-> 10.2.0.0/24 of `b` (line 22), and both have priority 100",
            "give the one that shall decide a lower priority number",
        ),
    ];
    for (from, to, path, message, cure) in cases {
        let expected = ((*path).to_owned(), (*message).to_owned(), (*cure).to_owned());
        assert_eq!(one(from, to), expected, "{from} -> {to}");
    }
}

#[test]
fn a_crypto_map_without_static_sas_says_that_there_is_no_ike() {
    let map = MAP.split("[crypto-map.static.inbound]").next().unwrap();
    let findings = errors(&format!("{HEAD}{map}"));
    let first = findings.iter().next().unwrap();
    assert_eq!(first.message, "this version has no IKE: a crypto map needs static SAs");
    assert!(first.cure.contains("[crypto-map.static.inbound]"), "{}", first.cure);
}

#[test]
fn spis_that_are_taken_are_refused_inbound_and_to_the_same_peer() {
    let second = MAP
        .replace("\"b\"", "\"c\"")
        .replace("10.2.0.0", "10.3.0.0")
        .replace("key = \"0001", "key = \"2001")
        .replace("key = \"1011", "key = \"3011");
    let findings = errors(&format!("{HEAD}{MAP}{second}"));
    let messages: Vec<&str> = findings.iter().map(|finding| finding.message.as_str()).collect();
    assert_eq!(
        messages,
        [
            "SPI 0x1001 is taken by crypto-map[0].static.inbound.spi (line 18)",
            "SPI 0x2001 is taken by crypto-map[0].static.outbound.spi (line 22)",
        ]
    );
    let other_peer = second.replace("198.51.100.2", "198.51.100.3").replace("0x1001", "0x1002");
    let source = Source::new("tandem.toml", format!("{HEAD}{MAP}{other_peer}"));
    assert!(load(&source, &mut |_| Err(String::new())).is_ok(), "another peer may use the same outbound SPI");
}

#[test]
fn no_error_shows_a_key() {
    let secret = "101112131415161718191a1b1c1d1e1fa0a1a2a3";
    let inline = format!(
        "{HEAD}[[crypto-map]]\nname=\"b\"\npriority=1\nlocal=\"192.0.2.1\"\npeer=\"198.51.100.2\"\n\
         protect=[{{local=\"10.1.0.0/24\",remote=\"10.2.0.0/24\"}}]\n\
         static={{inbound={{spi=1,transform=\"aes128gcm16\",key=\"{secret}\"}},outbound={{spi=2,key=\"hunter2\",x=1}}}}\n"
    );
    let broken = format!("{HEAD}{MAP}").replace("1a2a3\"\n[", "1a2a3\n[");
    let short = format!("{HEAD}{MAP}").replace(secret, "hunter2");
    let escaped = format!("{HEAD}{MAP}").replace("key = \"10111213", "key = \"\\u003110111213");
    for text in [inline, broken, short, escaped] {
        let shown = errors(&text).to_string();
        assert!(shown.contains("***"), "{shown}");
        for part in ["hunter2", "10111213", "1c1d1e1f"] {
            assert!(!shown.contains(part), "{shown}");
        }
    }
}

#[test]
fn a_configuration_that_does_not_fit_into_one_message_is_refused_here_and_not_by_the_data_plane() {
    let mut text = format!("{HEAD}{MAP}");
    for i in 0..4000 {
        let (high, low) = (i >> 8, i & 255);
        text += &format!(
            "[[policy]]\nname = \"policy-{i}\"\npriority = {}\naction = \"discard\"\nlocal = \"10.1.0.0/24\"\nremote = \"10.{}.{low}.0/24\"\n",
            i + 1,
            100 + high
        );
    }
    let findings = errors(&text);
    let first = findings.iter().next().unwrap();
    assert!(first.message.starts_with("4001 policies are too many: message of "), "{}", first.message);
}

proptest! {
    #[test]
    fn no_text_makes_the_parser_panic(text in "\\PC{0,200}") {
        let _ = load(&Source::new("t", text), &mut |_| Err(String::new()));
    }

    #[test]
    fn no_change_of_a_few_octets_makes_it_panic(
        changes in prop::collection::vec((0usize..1000, any::<u8>()), 1..6)
    ) {
        let mut bytes = format!("{HEAD}{MAP}").into_bytes();
        for (at, byte) in changes {
            let at = at % bytes.len();
            bytes[at] = byte;
        }
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if let Err(findings) = load(&Source::new("t", text), &mut |_| Err(String::new())) {
            prop_assert!(findings.iter().next().is_some());
            prop_assert!(!findings.to_string().is_empty());
        }
    }
}

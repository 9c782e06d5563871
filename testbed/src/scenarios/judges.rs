//! Independent implementations: scapy as the peer of a tunnel, tshark as the reader of a capture.

use crate::gateway::{CryptoMap, StaticSa};
use crate::judge::{Expectation, PYTHON, script};
use crate::lab::run as run_command;
use crate::report::count;
use crate::run::Run;
use crate::sites::{GUEST_B, HOST_A, HOST_B, OUTSIDE_A, Options, Sites, protected};
use crate::traffic::ping;
use anyhow::{Context, Result};
use ipnet::Ipv4Net;
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// A host that only scapy plays.
const BEHIND_SCAPY: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 9);

pub(super) fn act(run: &mut Run) -> Result<()> {
    let selftest = run_command(Command::new(PYTHON).arg(script("esp_oracle.py")).arg("selftest"))?;
    run.check(
        "scapy's ESP opens what it seals and nothing damaged",
        selftest.trim() == "ok",
        selftest.trim(),
    );
    let prefix = Ipv4Net::new_assert(Ipv4Addr::new(10, 77, 0, 0), 24);
    for transform in ["aes128gcm16", "aes256gcm16"] {
        let scapy = CryptoMap {
            name: "scapy".to_owned(),
            priority: 200,
            local: OUTSIDE_A,
            peer: GUEST_B,
            protect: vec![(protected().0, prefix)],
            inbound: StaticSa::random(0x7001, transform)?,
            outbound: StaticSa::random(0x7002, transform)?,
            stale_takeover: None,
        };
        run.say(format_args!("{transform}"));
        let mut sites = Sites::up(run, Options { transform, more_a: vec![scapy], ..Options::default() })?;
        let keys = sites.write_keys()?;
        let keys = keys.to_str().context("a path that is no UTF-8")?;
        let oracle = script("esp_oracle.py");
        let oracle = oracle.to_str().context("a path that is no UTF-8")?;
        let mut peer = sites.net.guest_b.start(
            "scapy-peer",
            PYTHON,
            &[oracle, "respond", "--address", &GUEST_B.to_string(), "--keys", keys],
        )?;
        peer.wait_for_log("listening", Duration::from_secs(20))?;
        for (size, count) in [("0", 5), ("56", 20), ("57", 5), ("58", 5), ("59", 5), ("1390", 10)] {
            let result = ping::ping(&sites.net.host_a, BEHIND_SCAPY, count, &["-s", size, "-i", "0.1"])?;
            run.check(
                &format!("{transform}: scapy answers an echo of {size} octets through its tunnel"),
                result.is_whole(),
                result.summary(),
            );
        }
        let sealed = peer.log().matches("opened: ").count();
        run.check(
            &format!("{transform}: scapy could open every packet"),
            !peer.log().contains("not opened"),
            format!("{sealed} opened"),
        );
        drop(peer);
        let result = ping::ping(&sites.net.host_a, HOST_B, 50, &[])?;
        run.check(&format!("{transform}: ping between the sites"), result.is_whole(), result.summary());
        let captures = sites.stop_captures()?;
        let capture = captures.first().context("no capture")?;
        let seen = tshark(&capture.file, &sites)?;
        let inside =
            |address: Ipv4Addr| seen.iter().filter(|line| line.contains(&address.to_string())).count();
        run.check(
            &format!("{transform}: tshark decodes the capture with the keys"),
            seen.len() >= 200 && inside(HOST_B) >= 100 && inside(BEHIND_SCAPY) >= 100,
            format!(
                "{} inner echoes, {} with {HOST_B}, {} with {BEHIND_SCAPY}",
                seen.len(),
                inside(HOST_B),
                inside(BEHIND_SCAPY)
            ),
        );
        run.report.figure(&format!("{transform}_tshark_packets"), count(seen.len()));
        run.check(
            &format!("{transform}: the capture holds host A's packets inside of ESP alone"),
            seen.iter().all(|line| line.contains(&HOST_A.to_string())),
            "",
        );
        let mut expectation = Expectation::of_sites(run, 200);
        expectation.protected.push((protected().0.to_string(), prefix.to_string()));
        expectation.sample = 2000;
        crate::judge::check_capture(run, capture, Path::new(keys), &expectation)?;
        sites.finish(run, &expectation)?;
    }
    Ok(())
}

/// The inner ICMP packets that tshark sees: one line of addresses for each.
fn tshark(capture: &Path, sites: &Sites) -> Result<Vec<String>> {
    // Wireshark 4.2 and later have two more columns in this table, for extended sequence numbers.
    let mut decoded = Vec::new();
    for columns in ["", ",\"32-bit\",\"0\""] {
        let mut command = Command::new("tshark");
        command.arg("-r").arg(capture).args(["-n", "-o", "esp.enable_encryption_decode:TRUE"]);
        for map in &sites.a.settings.maps {
            for (sa, source, destination) in
                [(&map.outbound, map.local, map.peer), (&map.inbound, map.peer, map.local)]
            {
                command.arg("-o").arg(format!(
                    "uat:esp_sa:\"IPv4\",\"{source}\",\"{destination}\",\"{:#010x}\",\"AES-GCM with 16 octet ICV [RFC4106]\",\"0x{}\",\"NULL\",\"\"{columns}",
                    sa.spi, sa.key_hex()
                ));
            }
        }
        let output =
            command.args(["-Y", "esp && icmp", "-T", "fields", "-e", "ip.src", "-e", "ip.dst"]).output()?;
        decoded = String::from_utf8_lossy(&output.stdout)
            .lines()
            .map(str::to_owned)
            .filter(|line| !line.is_empty())
            .collect();
        if !decoded.is_empty() {
            break;
        }
    }
    Ok(decoded)
}

//! A thousand tunnels at once.

use crate::gateway::{CryptoMap, StaticSa};
use crate::judge::Expectation;
use crate::report::count;
use crate::run::Run;
use crate::sites::{HOST_A, OUTSIDE_A, OUTSIDE_B, Options, Sites, protected};
use crate::traffic::echo::{Echo, ask};
use anyhow::Result;
use ipnet::Ipv4Net;
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::Instant;

const TUNNELS: u16 = 1000;
const PORT: u16 = 7000;

/// The remote prefix of a tunnel: 172.16.0.0/24, 172.16.1.0/24, ...
fn remote(tunnel: u16) -> Ipv4Net {
    let [high, low] = tunnel.to_be_bytes();
    Ipv4Net::new_assert(Ipv4Addr::new(172, 16 + high, low, 0), 24)
}

/// A host in it.
fn host(tunnel: u16) -> Ipv4Addr {
    let [high, low] = tunnel.to_be_bytes();
    Ipv4Addr::new(172, 16 + high, low, 9)
}

pub(super) fn act(run: &mut Run) -> Result<()> {
    let mut maps = Vec::new();
    for tunnel in 0..TUNNELS {
        maps.push(CryptoMap {
            name: format!("tunnel-{tunnel}"),
            priority: 1000 + u32::from(tunnel),
            local: OUTSIDE_A,
            peer: OUTSIDE_B,
            protect: vec![(protected().0, remote(tunnel))],
            inbound: StaticSa::random(0x10_0000 + u32::from(tunnel), "aes128gcm16")?,
            outbound: StaticSa::random(0x20_0000 + u32::from(tunnel), "aes128gcm16")?,
            stale_takeover: None,
        });
    }
    let mirrored = maps.iter().map(|map| map.mirrored(&map.name)).collect();
    let start = Instant::now();
    let sites = Sites::up(run, Options { more_a: maps, more_b: mirrored, ..Options::default() })?;
    run.figure("ready_s", start.elapsed().as_secs_f64());
    // The far host holds every address of all remote prefixes.
    sites.net.host_b.run("ip route add local 172.16.0.0/12 dev lo")?;
    sites.b.namespace.run("ip route add 172.16.0.0/12 via 10.2.0.10")?;
    let _echo = Echo::start(&sites.net.host_b, PORT)?;
    let addresses: Vec<Ipv4Addr> = (0..TUNNELS).map(host).collect();
    let rounds = if run.full { 100 } else { 5 };
    let per_second = 5000;
    let answers = ask(&sites.net.host_a, HOST_A, PORT, &addresses, rounds, per_second)?;
    let whole = addresses.iter().filter(|address| answers.get(address) == Some(&rounds)).count();
    let first_wrong = addresses
        .iter()
        .find(|address| answers.get(address) != Some(&rounds))
        .map_or(String::new(), |address| {
            format!(", {address} only {}", answers.get(address).copied().unwrap_or(0))
        });
    run.check(
        &format!("a host behind each of {TUNNELS} tunnels answers all of {rounds} datagrams"),
        whole == addresses.len(),
        format!("{whole} of {}{first_wrong}", addresses.len()),
    );
    run.figure("tunnels", count(u64::from(TUNNELS)));

    for (gateway, outbound, inbound) in [(&sites.a, 0x20_0000, 0x10_0000), (&sites.b, 0x10_0000, 0x20_0000)] {
        let packets: BTreeMap<(String, u64), u64> = gateway
            .sas()?
            .iter()
            .filter_map(|sa| {
                Some(((sa["direction"].as_str()?.to_owned(), sa["spi"].as_u64()?), sa["packets"].as_u64()?))
            })
            .collect();
        for (direction, base) in [("outbound", outbound), ("inbound", inbound)] {
            let right = (0..u64::from(TUNNELS))
                .filter(|tunnel| {
                    packets.get(&(direction.to_owned(), base + tunnel)) == Some(&u64::from(rounds))
                })
                .count();
            run.check(
                &format!("{}: every {direction} SA counted its own {rounds} packets", gateway.settings.name),
                right == usize::from(TUNNELS),
                format!("{right} of {TUNNELS}"),
            );
        }
    }
    let mut expectation = Expectation::of_sites(run, 2 * u64::from(rounds) * u64::from(TUNNELS));
    expectation.protected.push((protected().0.to_string(), "172.16.0.0/12".to_owned()));
    sites.finish(run, &expectation)
}

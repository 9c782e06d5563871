//! What an attacker on the outside segment can send, at speed.

use crate::capture::Capture;
use crate::gateway::{CryptoMap, StaticSa, mac_text};
use crate::judge::{self, Expectation};
use crate::pcap;
use crate::report::count;
use crate::run::Run;
use crate::sites::{
    GUEST_A, HOST_A, HOST_B, OUTSIDE_A, OUTSIDE_A_MAC, Options, Sites, balances, check_balances, protected,
};
use crate::traffic::{ping, raw};
use anyhow::{Context, Result};
use ipnet::Ipv4Net;
use serde_json::Value;
use std::net::{Ipv4Addr, UdpSocket};
use std::time::Duration;

/// SPI that the attacker knows the key of.
const SPI: u32 = 0x6001;
/// A host behind the attacker's own, legitimate tunnel.
const BEHIND: Ipv4Addr = Ipv4Addr::new(10, 66, 0, 5);

pub(super) fn act(run: &mut Run) -> Result<()> {
    let prefix = Ipv4Net::new_assert(Ipv4Addr::new(10, 66, 0, 0), 24);
    let guest = CryptoMap {
        name: "guest".to_owned(),
        priority: 300,
        local: OUTSIDE_A,
        peer: GUEST_A,
        protect: vec![(protected().0, prefix)],
        inbound: StaticSa::random(SPI, "aes128gcm16")?,
        outbound: StaticSa::random(0x6002, "aes128gcm16")?,
        stale_takeover: None,
    };
    let mut sites = Sites::up(run, Options { more_a: vec![guest], ..Options::default() })?;
    let from_mac = mac_text(sites.net.guest_a.mac("eth0")?);
    let keys = sites.write_keys()?;
    let of_each: u32 = if run.full { 20_000 } else { 2_000 };
    run.say(format_args!("making {of_each} frames of each kind"));
    let kinds = judge::ask(
        "hostile_frames.py",
        &[
            "--folder",
            sites.net.folder().to_str().context("a path that is no UTF-8")?,
            "--keys",
            keys.to_str().context("a path that is no UTF-8")?,
            "--spi",
            &SPI.to_string(),
            "--to-mac",
            &mac_text(OUTSIDE_A_MAC),
            "--from-mac",
            &from_mac,
            "--remote-host",
            &BEHIND.to_string(),
            "--local-host",
            &HOST_A.to_string(),
            "--other-remote",
            &HOST_B.to_string(),
            "--count",
            &of_each.to_string(),
        ],
    )?;
    let kinds = kinds.as_array().context("no list of kinds")?;
    // The host takes what is authentic; otherwise it would answer with errors that quote it.
    let _sink = sites.net.host_a.enter(|| Ok(UdpSocket::bind((HOST_A, 6667))?))?;
    let inside = Capture::start(&sites.net.switch, sites.net.folder(), "in-a", "in-a", "")?;
    let before = ping::ping(&sites.net.host_a, HOST_B, 5, &[])?;
    run.check("ping between the sites before", before.is_whole(), before.summary());

    let mut all = Vec::new();
    for kind in kinds {
        let frames = pcap::frames(kind["file"].as_str().context("a kind without file")?.as_ref())?;
        one_kind(run, &sites, kind, &frames)?;
        if kind["kind"] != "valid" {
            all.extend(frames);
        }
    }
    flood(run, &mut sites, &all)?;

    let inside = inside.stop()?;
    run.check("the inside capture lost nothing", inside.dropped == 0, inside.dropped);
    let frames = pcap::frames(&inside.file)?;
    let holding = |mark: &[u8]| {
        frames.iter().filter(|frame| frame.windows(mark.len()).any(|part| part == mark)).count()
    };
    let (hostile, welcome) = (holding(b"HOSTILE!"), holding(b"WELCOME!"));
    run.check("nothing hostile arrives inside", hostile == 0, format!("{hostile} frames"));
    run.check(
        "what is authentic arrives inside exactly once",
        welcome == of_each as usize,
        format!("{welcome} of {of_each}"),
    );
    let after = ping::ping(&sites.net.host_a, HOST_B, 10, &[])?;
    run.check("ping between the sites afterwards", after.is_whole(), after.summary());
    let mut expectation = Expectation::of_sites(run, 20);
    expectation.protected.push((protected().0.to_string(), prefix.to_string()));
    expectation.ignore.push(from_mac);
    sites.finish(run, &expectation)
}

/// Sends every frame of a kind once, at a rate that loses none on the way, and finds them all under
/// their name.
fn one_kind(run: &mut Run, sites: &Sites, kind: &Value, frames: &[Vec<u8>]) -> Result<()> {
    let name = kind["kind"].as_str().context("a kind without name")?;
    let counters: Vec<&str> =
        kind["counters"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let wanted = frames.len() as u64;
    // Answers of honest neighbours are counted there too.
    let shared = kind["shared"] == true;
    let before = sites.a.counters()?;
    let sent = raw::send(&sites.net.guest_a, "eth0", frames, 20_000)?;
    let mut now = sites.a.counters()?.since(&before);
    for _ in 0..40 {
        if counters.iter().map(|name| now.any(name)).sum::<u64>() >= wanted {
            break;
        }
        std::thread::sleep(Duration::from_millis(50));
        now = sites.a.counters()?.since(&before);
    }
    let total: u64 = counters.iter().map(|name| now.any(name)).sum();
    let seen: Vec<String> = counters.iter().map(|name| format!("{name} {}", now.any(name))).collect();
    match counters.as_slice() {
        [] => {
            run.say(format_args!("{name}: {wanted} frames: {}", now.drops_text()));
        }
        [first, ..] => {
            run.check(
                &format!("{name}: {wanted} frames are counted as {}", counters.join(" or ")),
                (total == wanted || shared && (wanted..wanted + 20).contains(&total))
                    && sent.frames == wanted
                    && now.any(first) > 0,
                format!("{}; all drops: {}", seen.join(", "), now.drops_text()),
            );
        }
    }
    for (what, came, went) in balances(&sites.a)? {
        if came != went {
            run.check(&format!("{name}: {what}"), false, format!("{came} = {went}"));
        }
    }
    Ok(())
}

/// All kinds mixed, as fast as the segment takes them.
fn flood(run: &mut Run, sites: &mut Sites, all: &[Vec<u8>]) -> Result<()> {
    // A fixed stride that shares no factor with the number of frames mixes the kinds.
    let mut stride = all.len() / 3 + 1;
    while gcd(stride, all.len()) != 1 {
        stride += 1;
    }
    let mixed: Vec<Vec<u8>> = (0..all.len()).map(|index| all[index * stride % all.len()].clone()).collect();
    let rounds = if run.full { 10 } else { 4 };
    let before = sites.a.counters()?;
    let (mut frames, mut seconds) = (0, 0.0);
    for _ in 0..rounds {
        let sent = raw::send(&sites.net.guest_a, "eth0", &mixed, 0)?;
        frames += sent.frames;
        seconds += sent.elapsed.as_secs_f64();
    }
    std::thread::sleep(Duration::from_secs(1));
    let now = sites.a.counters()?.since(&before);
    run.figure("flood_frames", count(frames));
    run.figure("flood_kpps", count(frames) / seconds / 1e3);
    run.figure("flood_received_frames", count(now.counter("received")));
    run.check(
        "the data plane took the flood and opened none of it",
        now.counter("received") > frames / 10 && now.counter("decapsulated") == 0,
        format!(
            "{} of {frames} sent were received, {} opened; {}",
            now.counter("received"),
            now.counter("decapsulated"),
            now.drops_text()
        ),
    );
    check_balances(run, &sites.a)?;
    let alive = sites.a.is_alive();
    run.check("both daemons live after the flood", alive, alive);
    Ok(())
}

fn gcd(a: usize, b: usize) -> usize {
    if b == 0 { a } else { gcd(b, a % b) }
}

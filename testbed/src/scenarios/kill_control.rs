//! `kill -9` of the control process under traffic.

use crate::judge::Expectation;
use crate::pair::{PairSites, Probes, REDUNDANT};
use crate::report::count;
use crate::run::Run;
use crate::sites::{HOST_B, Options, Sites};
use crate::traffic::iperf::Iperf;
use anyhow::{Context, Result};
use serde_json::Value;
use std::collections::BTreeMap;
use std::time::Duration;

pub(super) fn act(run: &mut Run) -> Result<()> {
    lone(run)?;
    pair(run)
}

/// On a pair: neither the active node's nor the standby's death of control moves a role or loses a packet.
fn pair(run: &mut Run) -> Result<()> {
    let mut sites = PairSites::up(run, true)?;
    let before = sites.pairing()?;
    let kills = if run.full { 10 } else { 1 };
    for kill in 1..=kills {
        for (node, role) in [(before.active, "active"), (before.standby, "standby")] {
            let when = format!("pair, kill {kill}, {role}");
            let probes = Probes::start(&sites.net, 6010)?;
            run.say(format_args!("kill -9 of the control process of the {role} node"));
            sites.nodes[node].kill_control();
            // Less than the three seconds after which the standby says goodbye for lack of a session.
            std::thread::sleep(Duration::from_millis(1500));
            sites.nodes[node].start_control()?;
            sites.nodes[node].wait_ready()?;
            let after = sites.wait_redundant(REDUNDANT);
            let probes = probes.stop()?;
            let after = after?;
            run.check(&format!("{when}: no takeover"), after == before, format!("{after:?}"));
            probes.check_whole(run, &when);
        }
    }
    let expectation = sites.expectation(run, 5000, 0)?;
    sites.finish(run, &expectation)
}

fn lone(run: &mut Run) -> Result<()> {
    let mut sites = Sites::up(run, Options::default())?;
    let kills = if run.full { 20 } else { 3 };
    let there = sites.net.start_flow(true, 6001, 1000, 200)?;
    let back = sites.net.start_flow(false, 6002, 1000, 200)?;
    // The rate leaves the veth rings room: what the flows lose is not TCP's doing.
    let tcp =
        Iperf::start(&sites.net.host_a, (&sites.net.host_b, HOST_B), 5201, 4 * kills + 2, &["-b", "50M"])?;
    std::thread::sleep(Duration::from_secs(1));
    let first = states(&sites)?;
    let mut ready_ms: f64 = 0.0;
    for _ in 0..kills {
        run.say("kill -9 of gateway A's control process");
        let before = states(&sites)?;
        sites.a.kill_control();
        std::thread::sleep(Duration::from_millis(1500));
        let deaf = sites.a.ctl(&["show", "counters"]).is_err();
        if !deaf {
            run.check("a dead control process answers nothing", deaf, "tandemctl got an answer");
        }
        sites.a.start_control()?;
        let took = sites.a.wait_ready()?;
        ready_ms = ready_ms.max(took.as_secs_f64() * 1e3);
        std::thread::sleep(Duration::from_millis(500));
        compare(run, "across one kill", &before, &states(&sites)?);
    }
    compare(run, "from start to end", &first, &states(&sites)?);
    run.figure("control_restart_ms_max", ready_ms);
    let tcp = tcp.finish()?;
    let stalled = tcp.intervals.iter().filter(|(_, mbit)| *mbit <= 0.0).count();
    run.check(
        "TCP does not notice",
        stalled == 0 && tcp.mbit > 0.0,
        format!("{:.0} Mbit/s, {stalled} intervals without data", tcp.mbit),
    );
    run.report.figure("tcp_retransmits", count(tcp.retransmits));
    for (name, flow) in [("a_to_b", there), ("b_to_a", back)] {
        let result = flow.stop()?;
        run.figure(&format!("{name}_longest_gap_ms"), result.longest_gap_ms);
        run.figure(&format!("{name}_lost"), count(result.lost()));
        run.check(
            &format!("{name}: not one numbered datagram lost or repeated"),
            result.is_whole(),
            result.summary(),
        );
    }
    let expectation = Expectation::of_sites(run, 5000);
    sites.finish(run, &expectation)
}

/// The SAs of gateway A by direction and SPI.
fn states(sites: &Sites) -> Result<BTreeMap<(String, u64), Value>> {
    sites
        .a
        .sas()?
        .into_iter()
        .map(|sa| {
            let direction = sa["direction"].as_str().context("an SA without direction")?.to_owned();
            Ok(((direction, sa["spi"].as_u64().context("an SA without SPI")?), sa))
        })
        .collect()
}

/// Slot and key are the same, and packets, octets and sequence go on.
fn compare(
    run: &mut Run,
    when: &str,
    before: &BTreeMap<(String, u64), Value>,
    after: &BTreeMap<(String, u64), Value>,
) {
    let same_set = before.keys().eq(after.keys()) && !before.is_empty();
    run.check(
        &format!("the SAs are the same {when}"),
        same_set,
        format!("{} and {}", before.len(), after.len()),
    );
    for (key, old) in before {
        let Some(new) = after.get(key) else { continue };
        let same = ["slot", "fingerprint", "base_term"]
            .iter()
            .all(|field| old[field] == new[field] && !old[field].is_null());
        let moves = ["packets", "bytes", "sequence"].iter().all(
            |field| matches!((old[field].as_u64(), new[field].as_u64()), (Some(old), Some(new)) if new > old),
        );
        run.check(
            &format!("{} SA {:#x} is untouched and its counters go on {when}", key.0, key.1),
            same && moves,
            format!(
                "slot {} to {}, packets {} to {}, sequence {} to {}",
                old["slot"], new["slot"], old["packets"], new["packets"], old["sequence"], new["sequence"]
            ),
        );
    }
}

//! A node loses every link while both its processes live.

use crate::pair::{Link, NAMES, PairSites, Probes, REDUNDANT};
use crate::run::Run;
use anyhow::Result;
use std::time::Duration;

pub(super) fn act(run: &mut Run) -> Result<()> {
    let mut sites = PairSites::up(run, true)?;
    let rounds = if run.full { 5 } else { 1 };
    for round in 1..=rounds {
        active(run, &sites, &format!("round {round}, active node"))?;
        standby(run, &sites, &format!("round {round}, standby"))?;
    }
    sites.replay(run, "at the end", true)?;
    let expectation = sites.expectation(run, 3000 * rounds as u64, rounds)?;
    sites.finish(run, &expectation)
}

/// Two nodes that do not hear each other: the one that sees its segments goes on, the other one fences itself.
fn active(run: &mut Run, sites: &PairSites, when: &str) -> Result<()> {
    let before = sites.wait_redundant(REDUNDANT)?;
    let (old, new) = (before.active, before.standby);
    let probes = Probes::start(&sites.net, 6740)?;
    run.say("all cables of the active node are pulled");
    let at = sites.pull(old, &Link::ALL)?;
    let after = sites.wait_active(new, Duration::from_secs(3));
    std::thread::sleep(Duration::from_millis(1200));
    let isolated = sites.view(old)?;
    run.check(
        &format!("{when}: the isolated node is not active any more"),
        !isolated.is_active() || isolated.state == "halted",
        &isolated,
    );
    sites.plug(old, &Link::ALL)?;
    let pairing = sites.wait_redundant(REDUNDANT);
    let probes = probes.stop()?;
    let (after, pairing) = (after?, pairing?);
    let (there, back) = probes.gaps_ms(at);
    run.figure("isolation_outage_ms", there.max(back));
    run.check(
        &format!("{when}: the other node goes on within a second"),
        there.max(back) < 1000.0 && after.term > before.term,
        format!("after {there:.1} ms outbound, {back:.1} ms inbound, in term {}", after.term),
    );
    run.check(
        &format!("{when}: with its cables back it is the standby"),
        pairing.active == new && pairing.term == after.term,
        format!("{} is active in term {}", NAMES[pairing.active], pairing.term),
    );
    probes.check_once(run, when);
    Ok(())
}

/// The active node sees both its segments: it stays active.
fn standby(run: &mut Run, sites: &PairSites, when: &str) -> Result<()> {
    let before = sites.wait_redundant(REDUNDANT)?;
    let probes = Probes::start(&sites.net, 6742)?;
    run.say("all cables of the standby are pulled");
    sites.pull(before.standby, &Link::ALL)?;
    std::thread::sleep(Duration::from_millis(1200));
    let (leader, isolated) = (sites.view(before.active)?, sites.view(before.standby)?);
    run.check(
        &format!("{when}: the active node stays active and the isolated one does not take over"),
        leader.is_active() && leader.term == before.term && !isolated.is_active(),
        format!("{leader}; isolated: {isolated}"),
    );
    sites.plug(before.standby, &Link::ALL)?;
    let pairing = sites.wait_redundant(REDUNDANT);
    let probes = probes.stop()?;
    let pairing = pairing?;
    run.check(
        &format!("{when}: with its cables back it is the standby again"),
        pairing == before,
        format!("{} is active in term {}", NAMES[pairing.active], pairing.term),
    );
    probes.check_whole(run, when);
    Ok(())
}

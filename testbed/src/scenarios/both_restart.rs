//! Both nodes lose their power: static SAs go on above every number that was used (F40).

use crate::pair::{NAMES, PairSites, Probes, REDUNDANT};
use crate::run::Run;
use anyhow::Result;
use std::time::{Duration, Instant};

pub(super) fn act(run: &mut Run) -> Result<()> {
    let mut sites = PairSites::up(run, true)?;
    let rounds = if run.full { 5 } else { 1 };
    for round in 1..=rounds {
        for together in [true, false] {
            let when = format!(
                "round {round}, {}",
                if together { "both come back" } else { "one comes back first" }
            );
            blackout(run, &mut sites, together, &when)?;
        }
    }
    let expectation = sites.expectation(run, 3000 * rounds as u64, 2 * rounds)?;
    sites.finish(run, &expectation)
}

fn blackout(run: &mut Run, sites: &mut PairSites, together: bool, when: &str) -> Result<()> {
    let before = sites.wait_redundant(REDUNDANT)?;
    let probes = Probes::start(&sites.net, 6800)?;
    std::thread::sleep(Duration::from_millis(500));
    run.say("SIGKILL of all four processes, and all links of both nodes go down");
    let at = sites.kill_nodes(&[before.active, before.standby])?;
    std::thread::sleep(Duration::from_millis(500));
    // The one that was the standby has less to go by, so that it comes first.
    let start = Instant::now();
    sites.return_node(before.standby)?;
    if together {
        sites.return_node(before.active)?;
        sites.wait_redundant(REDUNDANT)?;
    } else {
        let alone = sites.wait_active(before.standby, Duration::from_secs(10))?;
        run.check(
            &format!("{when}: a node that hears nobody goes on by itself after its wait"),
            alone.term > before.term && start.elapsed() > Duration::from_secs(2),
            format!("{alone}, {:.1} s after its return", start.elapsed().as_secs_f64()),
        );
        probes.wait(300, Duration::from_secs(5))?;
        sites.return_node(before.active)?;
    }
    let resumed = probes.wait(300, Duration::from_secs(10));
    let pairing = sites.wait_redundant(REDUNDANT);
    let probes = probes.stop()?;
    let (there, back) = probes.gaps_ms(at);
    run.check(
        &format!("{when}: traffic goes on with the same keys, both ways"),
        resumed.is_ok() && there.is_finite() && back.is_finite(),
        format!("{there:.0} ms outbound and {back:.0} ms inbound after the blow"),
    );
    run.report.figure(if together { "blackout_ms" } else { "blackout_one_node_ms" }, there.max(back));
    probes.check_once(run, when);
    let pairing = pairing?;
    run.check(
        &format!("{when}: the pair is redundant again, in a later term"),
        pairing.term > before.term,
        format!("{} is active in term {} after {}", NAMES[pairing.active], pairing.term, before.term),
    );
    sites.replay(run, when, true)?;
    Ok(())
}

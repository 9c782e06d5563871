//! The standby is restarted, in peace and by force, and is as good a standby as before.

use crate::pair::{Blow, NAMES, PairSites, Probes, REDUNDANT, outage_figures, strike};
use crate::run::Run;
use anyhow::Result;
use std::time::Duration;

pub(super) fn act(run: &mut Run) -> Result<()> {
    let mut sites = PairSites::up(run, true)?;
    let before = sites.pairing()?;
    let rounds = if run.full { 5 } else { 1 };
    for round in 1..=rounds {
        for by_force in [false, true] {
            let when = format!("round {round}, {}", if by_force { "killed" } else { "terminated" });
            let incarnation = sites.view(before.standby)?.incarnation;
            let probes = Probes::start(&sites.net, 6780)?;
            run.say(format_args!("both processes of the standby are {when}"));
            let standby = &mut sites.nodes[before.standby];
            if by_force {
                standby.kill()
            } else {
                standby.terminate()
            }
            std::thread::sleep(Duration::from_millis(300));
            standby.start_dataplane()?;
            standby.start_control()?;
            standby.wait_ready()?;
            let pairing = sites.wait_redundant(REDUNDANT);
            let probes = probes.stop()?;
            let pairing = pairing?;
            let now = sites.view(before.standby)?.incarnation;
            run.check(
                &format!("{when}: it is the synchronized standby again, in a new incarnation"),
                pairing == before && now > incarnation,
                format!(
                    "{} is active in term {}, incarnation {incarnation}, then {now}",
                    NAMES[pairing.active], pairing.term
                ),
            );
            probes.check_whole(run, &when);
        }
    }
    run.say("the active node is killed: only a standby that knows everything takes over freshly");
    let takeover = strike(run, &mut sites, Blow::Node, "after the restarts")?;
    sites.replay(run, "after the restarts", true)?;
    sites.return_node(takeover.old)?;
    sites.wait_redundant(REDUNDANT)?;
    outage_figures(run, &[takeover]);
    let expectation = sites.expectation(run, 3000, 1)?;
    sites.finish(run, &expectation)
}

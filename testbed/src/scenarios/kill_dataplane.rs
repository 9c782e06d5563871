//! `kill -9` of the active node's data plane alone: the other node takes over, and it returns as the standby.

use crate::pair::{Blow, NAMES, PairSites, REDUNDANT, outage_figures, strike};
use crate::run::Run;
use anyhow::Result;

pub(super) fn act(run: &mut Run) -> Result<()> {
    let mut sites = PairSites::up(run, true)?;
    let kills = if run.full { 10 } else { 2 };
    let mut takeovers = Vec::new();
    for kill in 1..=kills {
        let when = format!("kill {kill}");
        run.say("kill -9 of the active node's data plane; its links and its control process stay");
        let takeover = strike(run, &mut sites, Blow::Dataplane, &when)?;
        let attached = sites.nodes[takeover.old].program_is_attached()?;
        run.check(&format!("{when}: the XDP program of the dead data plane stands"), attached, attached);
        let old = &mut sites.nodes[takeover.old];
        old.start_dataplane()?;
        old.wait_ready()?;
        let pairing = sites.wait_redundant(REDUNDANT)?;
        run.check(
            &format!("{when}: the node returns as the standby"),
            pairing.standby == takeover.old && pairing.term == takeover.term,
            format!("{} is active in term {}", NAMES[pairing.active], pairing.term),
        );
        takeovers.push(takeover);
    }
    sites.replay(run, "at the end", true)?;
    outage_figures(run, &takeovers);
    let expectation = sites.expectation(run, 3000 * kills as u64, kills)?;
    sites.finish(run, &expectation)
}

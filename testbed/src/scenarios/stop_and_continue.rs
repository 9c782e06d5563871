//! The active node stands still for two seconds and goes on as if nothing had happened: the zombie.

use crate::pair::{Blow, NAMES, PairSites, REDUNDANT, outage_figures, strike};
use crate::run::Run;
use anyhow::Result;

pub(super) fn act(run: &mut Run) -> Result<()> {
    let mut sites = PairSites::up(run, true)?;
    let rounds = if run.full { 10 } else { 2 };
    let mut takeovers = Vec::new();
    for round in 1..=rounds {
        let when = format!("stop {round}");
        run.say("SIGSTOP of both processes of the active node, SIGCONT two seconds later");
        let takeover = strike(run, &mut sites, Blow::Stop, &when)?;
        let zombie = sites.view(takeover.old)?;
        run.check(
            &format!("{when}: the node that stood still has given up its role"),
            !zombie.is_active(),
            &zombie,
        );
        let pairing = sites.wait_redundant(REDUNDANT)?;
        run.check(
            &format!("{when}: it is the standby of the new reign"),
            pairing.standby == takeover.old && pairing.term == takeover.term,
            format!("{} is active in term {}", NAMES[pairing.active], pairing.term),
        );
        sites.replay(run, &when, true)?;
        takeovers.push(takeover);
    }
    outage_figures(run, &takeovers);
    let expectation = sites.expectation(run, 5000 * rounds as u64, rounds)?;
    sites.finish(run, &expectation)
}

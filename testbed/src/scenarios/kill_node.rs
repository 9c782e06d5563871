//! The active node loses its power: both processes and all links at once.

use crate::pair::{Blow, NAMES, PairSites, REDUNDANT, Takeover, outage_figures, strike};
use crate::run::Run;
use anyhow::Result;

pub(super) fn act(run: &mut Run) -> Result<()> {
    let mut sites = PairSites::up(run, true)?;
    let kills = if run.full { 20 } else { 3 };
    let takeovers = kills_of(run, &mut sites, kills, true)?;
    outage_figures(run, &takeovers);
    let expectation = sites.expectation(run, 3000 * kills as u64, kills)?;
    sites.finish(run, &expectation)
}

/// Kills the active node so many times; each time it comes back as the standby. With `replay` an attacker sends
/// all that was recorded after each kill.
///
/// # Errors
/// Where the pair does not become redundant again.
pub fn kills_of(run: &mut Run, sites: &mut PairSites, kills: usize, replay: bool) -> Result<Vec<Takeover>> {
    let mut takeovers = Vec::new();
    for kill in 1..=kills {
        let when = format!("kill {kill}");
        run.say(format_args!("SIGKILL of both processes of the active node, and all its links go down"));
        let takeover = strike(run, sites, Blow::Node, &when)?;
        if replay {
            sites.replay(run, &when, true)?;
        }
        sites.return_node(takeover.old)?;
        let pairing = sites.wait_redundant(REDUNDANT)?;
        run.check(
            &format!("{when}: the killed node comes back as the standby"),
            pairing.standby == takeover.old && pairing.term == takeover.term,
            format!("{} is active in term {}", NAMES[pairing.active], pairing.term),
        );
        takeovers.push(takeover);
    }
    Ok(takeovers)
}

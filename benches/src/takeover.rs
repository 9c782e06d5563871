//! `takeover`: how long the sites notice that the active node of a pair has lost its power.
//!
//! The scenario `kill-node` under probes of one a millisecond, both ways; an outage is the longest time without
//! a probe around a kill, the worse of both ways.

use anyhow::Result;
use tandem_testbed::lab::registry;
use tandem_testbed::pair::{PairSites, outage_figures};
use tandem_testbed::report::Report;
use tandem_testbed::run::Run;
use tandem_testbed::scenarios::kills_of;

/// Kills the active node 20 times (5 times in the short form) and measures each outage.
///
/// # Errors
/// Where the pair cannot be built, or does not become redundant again after a kill.
pub fn run(full: bool) -> Result<Report> {
    registry::sweep();
    let prefix = format!("{}{}-", registry::FOLDER_PREFIX, std::process::id());
    let folder = tempfile::Builder::new().prefix(&prefix).tempdir()?;
    let mut run = Run::new("takeover", folder.path(), full);
    // Nothing is recorded: the captures have their scenario, and would take CPU from what is measured.
    let mut sites = PairSites::up(&mut run, false)?;
    let takeovers = kills_of(&mut run, &mut sites, if full { 20 } else { 5 }, false)?;
    outage_figures(&mut run, &takeovers);
    Ok(run.report)
}

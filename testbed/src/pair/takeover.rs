//! A blow to the active node, and how long the sites notice it.

use super::{NAMES, PairSites, Probes, REDUNDANT};
use crate::report::count;
use crate::run::Run;
use anyhow::Result;
use nix::sys::signal::Signal;
use std::time::{Duration, Instant};

/// UDP port of the probes.
const PORT: u16 = 6700;

/// What happens to the active node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blow {
    /// It loses its power: both daemons killed, all links down.
    Node,
    /// `kill -9` of its data plane alone.
    Dataplane,
    /// SIGSTOP of both daemons; SIGCONT two seconds later.
    Stop,
}

/// What was seen of it.
#[derive(Clone, Debug)]
pub struct Takeover {
    /// When it was hit.
    pub at: Instant,
    /// Node that was hit.
    pub old: usize,
    /// Node that went on.
    pub new: usize,
    /// Term of the new reign.
    pub term: u64,
    /// Longest time without a probe, the worse of both ways, in milliseconds.
    pub outage_ms: f64,
    /// Outbound.
    pub there_ms: f64,
    /// Inbound.
    pub back_ms: f64,
    /// Probes lost, both ways.
    pub lost: u64,
}

/// Hits the active node of a redundant pair under probes, and looks at how the other one goes on. The node that was
/// hit is left as it is (one that was stopped goes on by then).
///
/// # Errors
/// Where the pair is not redundant before, or no takeover is seen.
pub fn strike(run: &mut Run, sites: &mut PairSites, blow: Blow, when: &str) -> Result<Takeover> {
    let before = sites.wait_redundant(REDUNDANT)?;
    let (old, new) = (before.active, before.standby);
    let probes = Probes::start(&sites.net, PORT)?;
    std::thread::sleep(Duration::from_millis(300));
    let at = match blow {
        Blow::Node => sites.kill_node(old)?,
        Blow::Dataplane => {
            let at = Instant::now();
            sites.nodes[old].kill_dataplane();
            at
        }
        Blow::Stop => {
            let at = Instant::now();
            sites.nodes[old].signal(Signal::SIGSTOP);
            at
        }
    };
    let after = sites.wait_active(new, Duration::from_secs(3));
    std::thread::sleep(Duration::from_millis(800));
    if blow == Blow::Stop {
        std::thread::sleep(Duration::from_secs(2).saturating_sub(at.elapsed()));
        sites.nodes[old].signal(Signal::SIGCONT);
        std::thread::sleep(Duration::from_millis(700));
    }
    let probes = probes.stop()?;
    let after = after?;
    let (there_ms, back_ms) = probes.gaps_ms(at);
    let takeover = Takeover {
        at,
        old,
        new,
        term: after.term,
        outage_ms: there_ms.max(back_ms),
        there_ms,
        back_ms,
        lost: probes.lost(),
    };
    run.check(
        &format!("{when}: {} takes over from {} with a later term", NAMES[new], NAMES[old]),
        after.term > before.term,
        format!("term {} after {}", after.term, before.term),
    );
    run.check(
        &format!("{when}: traffic goes on within a second, both ways"),
        takeover.outage_ms < 1000.0,
        format!("after {there_ms:.1} ms outbound, {back_ms:.1} ms inbound, {} probes lost", takeover.lost),
    );
    probes.check_once(run, when);
    let last = sites.history(new)?.into_iter().rev().find(|(step, _)| step == "takeover");
    let (_, text) = last.unwrap_or_default();
    run.check(&format!("{when}: the takeover is fresh"), !text.is_empty() && !text.contains("stale"), text);
    Ok(takeover)
}

/// Median and maximum of the outages, with what is expected of them.
pub fn outage_figures(run: &mut Run, takeovers: &[Takeover]) {
    let mut outages: Vec<f64> = takeovers.iter().map(|takeover| takeover.outage_ms).collect();
    outages.sort_by(f64::total_cmp);
    let Some((&max, &median)) = outages.last().zip(outages.get(outages.len() / 2)) else {
        run.check("takeovers were measured", false, "none");
        return;
    };
    run.figure("takeovers", count(outages.len()));
    run.figure("outage_ms_p50", median);
    run.figure("outage_ms_max", max);
    run.figure("probes_lost_max", count(takeovers.iter().map(|takeover| takeover.lost).max().unwrap_or(0)));
    run.expect("the median outage is below 25 ms", median < 25.0, format!("{median:.1} ms"));
    run.expect("the longest outage is below 40 ms", max < 40.0, format!("{max:.1} ms"));
}

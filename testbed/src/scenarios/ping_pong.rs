//! One takeover after the other, under load.

use crate::network::{HOST_A, HOST_B};
use crate::pair::{Blow, NAMES, PairSites, REDUNDANT, outage_figures, strike};
use crate::run::Run;
use crate::traffic::dialogue::Dialogue;
use anyhow::Result;
use std::time::{Duration, Instant};

pub(super) fn act(run: &mut Run) -> Result<()> {
    let mut sites = PairSites::up(run, true)?;
    let rounds = if run.full { 20 } else { 6 };
    // Some 40 Mbit/s each way, in TCP connections that live through all of it.
    let start = Instant::now();
    let there = Dialogue::start(&sites.net.host_a, (&sites.net.host_b, HOST_B), 5501, 16_384, 300)?;
    let back = Dialogue::start(&sites.net.host_b, (&sites.net.host_a, HOST_A), 5502, 16_384, 300)?;
    while there.answers().min(back.answers()) < 10 {
        anyhow::ensure!(start.elapsed() < Duration::from_secs(10), "the TCP connections do not run");
        std::thread::sleep(Duration::from_millis(10));
    }
    let start = Instant::now();
    let mut takeovers = Vec::new();
    for round in 1..=rounds {
        let when = format!("takeover {round}");
        let blow = [Blow::Dataplane, Blow::Node][round % 2];
        run.say(format_args!("{when}: {blow:?} of the active node is killed"));
        let takeover = strike(run, &mut sites, blow, &when)?;
        if blow == Blow::Node {
            sites.return_node(takeover.old)?;
        } else {
            sites.nodes[takeover.old].start_dataplane()?;
            sites.nodes[takeover.old].wait_ready()?;
        }
        let pairing = sites.wait_redundant(REDUNDANT)?;
        if pairing.active != takeover.new {
            run.check(
                &format!("{when}: who has taken over stays active"),
                false,
                format!("{} is active in term {}", NAMES[pairing.active], pairing.term),
            );
        }
        takeovers.push(takeover);
    }
    let end = Instant::now();
    std::thread::sleep(Duration::from_millis(500));
    for (way, dialogue) in [("a to b", there), ("b to a", back)] {
        let result = dialogue.stop()?;
        let gap = result.answers.longest_gap_ms(start, end);
        run.check(
            &format!("a TCP connection {way} lives through all takeovers"),
            result.trouble.is_none() && gap < 3000.0,
            format!("{}, at most {gap:.0} ms without one", result.summary()),
        );
    }
    outage_figures(run, &takeovers);
    sites.replay(run, "after all takeovers", true)?;
    let expectation = sites.expectation(run, 5000 * rounds as u64, rounds)?;
    sites.finish(run, &expectation)
}

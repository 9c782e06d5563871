//! One closed-loop TCP flow alone on its SA: nothing else uses up numbers, and it goes on within a second.

use crate::network::{HOST_A, HOST_B};
use crate::pair::{PairSites, REDUNDANT};
use crate::run::Run;
use crate::traffic::dialogue::Dialogue;
use anyhow::{Context, Result};
use std::time::{Duration, Instant};

pub(super) fn act(run: &mut Run) -> Result<()> {
    let mut sites = PairSites::up(run, true)?;
    let kills = if run.full { 10 } else { 2 };
    let mut worst = 0.0_f64;
    for kill in 1..=kills {
        let a_to_b = kill % 2 == 1;
        let when = format!("kill {kill}, {}", if a_to_b { "a to b" } else { "b to a" });
        let before = sites.wait_redundant(REDUNDANT)?;
        let net = &sites.net;
        let (from, to) =
            if a_to_b { (&net.host_a, (&net.host_b, HOST_B)) } else { (&net.host_b, (&net.host_a, HOST_A)) };
        let flow = Dialogue::start(from, to, 5510, 16_384, 0)?;
        std::thread::sleep(Duration::from_secs(1));
        let answered = flow.answers();
        run.say(format_args!("SIGKILL of the active node under one TCP flow, {when}"));
        let at = sites.kill_node(before.active)?;
        let after = sites.wait_active(before.standby, Duration::from_secs(3));
        std::thread::sleep(Duration::from_millis(2500));
        let flow = flow.stop()?;
        let after = after.context("no takeover")?;
        let gap = flow.answers.longest_gap_ms(at, at + Duration::from_secs(2));
        let later = flow.answers.between(at + Duration::from_millis(1000), Instant::now());
        run.check(
            &format!("{when}: the flow ran before the kill"),
            answered > 100,
            format!("{answered} messages of 16 KiB in a second"),
        );
        run.check(
            &format!("{when}: it goes on within a second"),
            gap < 1000.0 && later > 100 && flow.trouble.is_none(),
            format!(
                "after {gap:.0} ms, in term {}; {}, {later} of them later than that",
                after.term,
                flow.summary()
            ),
        );
        worst = worst.max(gap);
        sites.return_node(before.active)?;
    }
    run.figure("tcp_outage_ms_max", worst);
    sites.wait_redundant(REDUNDANT)?;
    let expectation = sites.expectation(run, 2000 * kills, usize::try_from(kills)?)?;
    sites.finish(run, &expectation)
}

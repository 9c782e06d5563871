//! The standby dies: the active node waits for it no longer than D_a, and loses nothing that waits.

use crate::pair::{ALONE_MS, NAMES, PairSites, Probes, REDUNDANT};
use crate::run::Run;
use anyhow::Result;
use std::time::Duration;

/// What probes and the scheduler add to D_a: the distance of two probes, and a wake-up at each end.
const SLACK_MS: f64 = 5.0;

pub(super) fn act(run: &mut Run) -> Result<()> {
    let mut sites = PairSites::up(run, true)?;
    let kills = if run.full { 20 } else { 2 };
    let (mut pauses, mut delays) = (Vec::new(), Vec::new());
    for kill in 1..=kills {
        let when = format!("kill {kill}");
        let before = sites.wait_redundant(REDUNDANT)?;
        let probes = Probes::start(&sites.net, 6720)?;
        run.say("SIGKILL of both processes of the standby, and all its links go down");
        let at = sites.kill_node(before.standby)?;
        let alone = sites.wait_view(before.active, "alone", Duration::from_secs(3), |view| {
            view.is_active() && view.state == "alone"
        })?;
        probes.wait(500, Duration::from_secs(5))?;
        let probes = probes.stop()?;
        let (there, back) = probes.gaps_ms(at);
        pauses.push(back);
        delays.push(there);
        run.check(
            &format!("{when}: the active node goes on alone in its term and says what is not promised now"),
            alone.term == before.term && !alone.not_promised.is_empty(),
            &alone,
        );
        // On a busy machine the pause may be longer than D_a, which runs while the node itself runs (F20).
        run.check(
            &format!("{when}: the pause ends"),
            back < 10.0 * ALONE_MS && there < 10.0 * ALONE_MS,
            format!("{back:.1} ms inbound, {there:.1} ms outbound"),
        );
        probes.check_whole(run, &when);
        sites.return_node(before.standby)?;
        let pairing = sites.wait_redundant(REDUNDANT)?;
        run.check(
            &format!("{when}: the pair is redundant again without a takeover"),
            pairing == before,
            format!("{} is active in term {}", NAMES[pairing.active], pairing.term),
        );
    }
    let max = |values: &[f64]| values.iter().copied().fold(0.0, f64::max);
    run.figure("inbound_pause_ms_max", max(&pauses));
    run.figure("outbound_pause_ms_max", max(&delays));
    run.expect(
        "the standby's death delays inbound packets by D_a at most",
        max(&pauses) <= ALONE_MS + SLACK_MS,
        format!("{:.1} ms, D_a is {ALONE_MS} ms", max(&pauses)),
    );
    let expectation = sites.expectation(run, 1500 * kills as u64, 0)?;
    sites.finish(run, &expectation)
}

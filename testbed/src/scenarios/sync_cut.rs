//! The sync link dies, with and without its carrier: the nodes hear each other over the segments.

use crate::pair::{Link, NAMES, PairSites, Probes};
use crate::run::Run;
use anyhow::Result;
use std::time::Duration;

pub(super) fn act(run: &mut Run) -> Result<()> {
    let sites = PairSites::up(run, true)?;
    // Longer than the three seconds after which a standby whose session is gone says goodbye.
    let cut = Duration::from_secs(if run.full { 30 } else { 5 });
    let before = sites.pairing()?;
    for silent in [false, true] {
        let when = if silent { "silent loss" } else { "lost carrier" };
        let probes = Probes::start(&sites.net, 6760)?;
        run.say(format_args!("the sync link dies: {when}"));
        if silent {
            sites.mute_sync()?;
        } else {
            sites.pull(before.active, &[Link::Sync])?;
        }
        std::thread::sleep(cut);
        for (node, name) in NAMES.iter().enumerate() {
            let view = sites.view(node)?;
            run.check(
                &format!("{when}: {name} hears its partner over both segments and not over the sync link"),
                !view.hears_by("sync") && view.hears_by("inside") && view.hears_by("outside"),
                format!("{:?}", view.paths),
            );
        }
        let during = sites.pairing();
        if silent {
            sites.unmute_sync()?;
        } else {
            sites.plug(before.active, &[Link::Sync])?;
        }
        run.check(
            &format!("{when}: the pair stays redundant, and there is no takeover"),
            during.as_ref().is_ok_and(|during| *during == before),
            during.map_or_else(|error| format!("{error:#}"), |pairing| format!("{pairing:?}")),
        );
        for (node, name) in NAMES.iter().enumerate() {
            let heard = sites.wait_view(node, "heard over the sync link", Duration::from_secs(10), |view| {
                view.hears_by("sync")
            });
            run.check(
                &format!("{when}: {name} hears its partner over the sync link again"),
                heard.is_ok(),
                heard.map_or_else(|error| format!("{error:#}"), |view| view.to_string()),
            );
        }
        probes.stop()?.check_whole(run, when);
        let after = sites.pairing()?;
        run.check(&format!("{when}: nothing has changed afterwards"), after == before, format!("{after:?}"));
    }
    let expectation = sites.expectation(run, 10_000, 0)?;
    sites.finish(run, &expectation)
}

//! The route to the peer moves under traffic.

use super::neighbour_moves::wait_for_resumption;
use crate::judge::Expectation;
use crate::report::count;
use crate::run::Run;
use crate::sites::{Options, Sites};
use anyhow::Result;
use std::time::Duration;

pub(super) fn act(run: &mut Run) -> Result<()> {
    let sites = Sites::up(run, Options { capture_b: true, ..Options::default() })?;
    let gateway = sites.a.namespace.clone();
    let times = if run.full { 10 } else { 2 };
    let flow = sites.net.start_flow(true, 6300, 1000, 200)?;
    flow.wait_for_arrivals(500, Duration::from_secs(5))?;
    for time in 0..times {
        for (route, router, name) in [
            (
                "198.51.100.0/24 via 192.0.2.253",
                &sites.net.router2,
                "a more specific route by the second router",
            ),
            ("198.51.100.0/24 via 192.0.2.254", &sites.net.router, "the same route by the first router"),
        ] {
            let (before, _) = router.octets("eth0")?;
            gateway.run(&format!("ip route replace {route}"))?;
            let resumed = wait_for_resumption(&flow, Duration::from_secs(10));
            let (after, _) = router.octets("eth0")?;
            if time == 0 || !resumed {
                run.check(
                    &format!("traffic takes {name}"),
                    resumed && after > before + 250 * 200,
                    format!("{} octets through it", after - before),
                );
            }
        }
        gateway.run("ip route del 198.51.100.0/24")?;
        run.report.check(
            "traffic falls back to the default route",
            wait_for_resumption(&flow, Duration::from_secs(10)),
            time,
        );
    }
    let moved = flow.stop()?;
    run.figure("move_longest_gap_ms", moved.longest_gap_ms);
    run.figure("move_lost", count(moved.lost()));
    run.check(
        "no datagram is lost, repeated or damaged while routes move",
        moved.is_whole() && moved.longest_gap_ms < 500.0,
        moved.summary(),
    );

    run.say("the route becomes a blackhole, then there is none");
    for (add, delete, reason) in [
        (
            "ip route add blackhole 198.51.100.1/32",
            "ip route del blackhole 198.51.100.1/32",
            "route_blackhole",
        ),
        ("ip route del default", "ip route add default via 192.0.2.254", "no_route"),
    ] {
        let before = sites.a.counters()?;
        gateway.run(add)?;
        std::thread::sleep(Duration::from_millis(300));
        let flow = sites.net.start_flow(true, 6301, 500, 100)?;
        std::thread::sleep(Duration::from_secs(1));
        let arrived = flow.received();
        let dropped = sites.a.counters()?.since(&before).dropped(reason);
        run.check(
            &format!("{reason}: nothing passes and the drops have this name"),
            arrived == 0 && dropped >= 400,
            format!("{arrived} arrived, {dropped} counted"),
        );
        gateway.run(delete)?;
        let resumed = wait_for_resumption(&flow, Duration::from_secs(10));
        let result = flow.stop()?;
        run.check(&format!("{reason}: traffic resumes when the route is back"), resumed, result.summary());
    }
    let expectation = Expectation::of_sites(run, 2000);
    sites.finish(run, &expectation)
}

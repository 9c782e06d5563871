//! Links go down and come back.

use super::neighbour_moves::wait_for_resumption;
use crate::judge::Expectation;
use crate::lab::Namespace;
use crate::run::Run;
use crate::sites::{Options, Sites};
use anyhow::Result;
use std::time::Duration;

pub(super) fn act(run: &mut Run) -> Result<()> {
    let mut sites = Sites::up(run, Options::default())?;
    let (switch, gateway) = (sites.net.switch.clone(), sites.a.namespace.clone());
    let times = if run.full { 5 } else { 1 };
    // A cable that is pulled is the far end going down; a port that is shut is the near end, and takes
    // its static routes with it, which whoever shut it puts back.
    let flaps: [(&str, &Namespace, &str, Option<&str>); 4] = [
        ("outside_cable", &switch, "p-gw-a-out", None),
        ("inside_cable", &switch, "p-gw-a-in", None),
        ("outside_port", &gateway, "out0", Some("ip route replace default via 192.0.2.254")),
        ("inside_port", &gateway, "in0", None),
    ];
    for _ in 0..times {
        for (name, namespace, device, afterwards) in flaps {
            run.say(format_args!("{name} goes down and comes back"));
            let flow = sites.net.start_flow(true, 6400, 500, 100)?;
            let back = sites.net.start_flow(false, 6401, 500, 100)?;
            flow.wait_for_arrivals(250, Duration::from_secs(10))?;
            namespace.run(&format!("ip link set {device} down"))?;
            std::thread::sleep(Duration::from_secs(1));
            let during = flow.received();
            std::thread::sleep(Duration::from_millis(500));
            run.check(
                &format!("{name}: nothing passes a link that is down"),
                flow.received() == during,
                format!("{} arrived", flow.received() - during),
            );
            namespace.run(&format!("ip link set {device} up"))?;
            if let Some(command) = afterwards {
                namespace.run(command)?;
            }
            let resumed = wait_for_resumption(&flow, Duration::from_secs(15))
                && wait_for_resumption(&back, Duration::from_secs(15));
            let (result, back) = (flow.stop()?, back.stop()?);
            // The link itself was down for 1.5 s of the gap.
            let gap = result.longest_gap_ms.max(back.longest_gap_ms);
            run.figure(&format!("{name}_resumed_ms"), gap - 1500.0);
            run.check(
                &format!("{name}: traffic resumes both ways"),
                resumed,
                format!("{}; back: {}", result.summary(), back.summary()),
            );
            run.check(
                &format!("{name}: nothing is repeated or damaged"),
                [&result, &back].iter().all(|flow| flow.repeated == 0 && flow.damaged == 0),
                format!("{} and {} repeated", result.repeated, back.repeated),
            );
            let alive = sites.a.is_alive();
            run.check(&format!("{name}: the daemons live"), alive, alive);
        }
    }
    let expectation = Expectation::of_sites(run, 1000);
    sites.finish(run, &expectation)
}

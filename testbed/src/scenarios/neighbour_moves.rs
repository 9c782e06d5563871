//! MAC addresses change under traffic.

use crate::judge::Expectation;
use crate::lab::Namespace;
use crate::report::count;
use crate::run::Run;
use crate::sites::{HOST_A, HOST_B, Options, Sites};
use crate::traffic::flow::Flow;
use crate::traffic::ping;
use anyhow::Result;
use std::time::Duration;

pub(super) fn act(run: &mut Run) -> Result<()> {
    let sites = Sites::up(run, Options::default())?;
    // The kernel that keeps the neighbours for the data plane checks them again this often.
    for gateway in [&sites.a, &sites.b] {
        for device in ["in0", "out0"] {
            gateway.namespace.sysctl(&format!("net/ipv4/neigh/{device}/base_reachable_time_ms"), "2000")?;
        }
    }
    let moves: [(&str, &Namespace, &str, &str); 3] = [
        ("host_b", &sites.net.host_b, "eth0", "02:00:00:00:bb:01"),
        ("next_hop_of_a", &sites.net.router, "eth0", "02:00:00:00:cc:01"),
        ("next_hop_of_b", &sites.net.router, "eth1", "02:00:00:00:cc:02"),
    ];
    for (name, namespace, device, mac) in moves {
        run.say(format_args!("{name} changes its MAC and announces it"));
        change(run, &sites, name, namespace, device, mac, true)?;
    }
    for (name, namespace, device, mac) in [
        ("host_b_silently", &sites.net.host_b, "eth0", "02:00:00:00:bb:02"),
        ("next_hop_of_a_silently", &sites.net.router, "eth0", "02:00:00:00:cc:03"),
    ] {
        run.say(format_args!("{name}: without an announcement"));
        change(run, &sites, name, namespace, device, mac, false)?;
    }
    let expectation = Expectation::of_sites(run, 1000);
    sites.finish(run, &expectation)
}

fn change(
    run: &mut Run,
    sites: &Sites,
    name: &str,
    namespace: &Namespace,
    device: &str,
    mac: &str,
    announced: bool,
) -> Result<()> {
    namespace.sysctl("net/ipv4/conf/all/arp_notify", if announced { "1" } else { "0" })?;
    namespace.sysctl(&format!("net/ipv4/conf/{device}/arp_notify"), if announced { "1" } else { "0" })?;
    let flow = sites.net.start_flow(true, 6200, 500, 100)?;
    flow.wait_for_arrivals(250, Duration::from_secs(5))?;
    // Past the second in which a kernel believes no second change of the same neighbour.
    std::thread::sleep(Duration::from_millis(1200));
    namespace.run(&format!("ip link set {device} address {mac}"))?;
    let resumed = wait_for_resumption(&flow, Duration::from_secs(20));
    std::thread::sleep(Duration::from_millis(500));
    let result = flow.stop()?;
    let limit_ms = if announced { 1500.0 } else { 15_000.0 };
    run.figure(&format!("{name}_outage_ms"), result.longest_gap_ms);
    run.report.figure(&format!("{name}_lost"), count(result.lost()));
    run.check(
        &format!("{name}: traffic goes on"),
        resumed && result.longest_gap_ms < limit_ms && result.repeated == 0 && result.damaged == 0,
        result.summary(),
    );
    for (from, to) in [(&sites.net.host_a, HOST_B), (&sites.net.host_b, HOST_A)] {
        let ping = ping::ping(from, to, 5, &[])?;
        run.check(&format!("{name}: ping to {to} afterwards"), ping.received >= 4, ping.summary());
    }
    Ok(())
}

/// Half a second of datagrams after the change.
pub(super) fn wait_for_resumption(flow: &Flow, limit: Duration) -> bool {
    std::thread::sleep(Duration::from_millis(100));
    flow.wait_for_arrivals(250, limit).is_ok()
}

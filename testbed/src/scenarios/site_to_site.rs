//! Real traffic of real hosts between two sites, both directions.

use crate::judge::Expectation;
use crate::report::count;
use crate::run::Run;
use crate::sites::{ELSEWHERE, HOST_A, HOST_B, INSIDE_A, INSIDE_B, OUTSIDE_A, OUTSIDE_B, Options, Sites};
use crate::traffic::{http, iperf, ping};
use anyhow::Result;

pub(super) fn act(run: &mut Run) -> Result<()> {
    let sites = Sites::up(run, Options::default())?;
    let seconds = if run.full { 10 } else { 3 };
    let ends = [
        ("a_to_b", &sites.net.host_a, HOST_A, &sites.net.host_b, HOST_B, 5201),
        ("b_to_a", &sites.net.host_b, HOST_B, &sites.net.host_a, HOST_A, 5211),
    ];
    for (way, from, _, _, to_address, _) in ends {
        let result = ping::ping(from, to_address, 20, &[])?;
        run.check(&format!("{way}: ping"), result.is_whole(), result.summary());
        run.figure(&format!("{way}_ping_ms"), result.round_trip_ms.unwrap_or(f64::NAN));
    }
    for (namespace, address, what) in [
        (&sites.net.host_a, INSIDE_A, "gateway A's inside virtual address answers its host"),
        (&sites.net.host_b, INSIDE_B, "gateway B's inside virtual address answers its host"),
        (&sites.net.router, OUTSIDE_A, "gateway A's outside virtual address answers the router"),
        (&sites.net.router, OUTSIDE_B, "gateway B's outside virtual address answers the router"),
    ] {
        let result = ping::ping(namespace, address, 5, &[])?;
        run.check(what, result.is_whole(), result.summary());
    }
    let elsewhere = ping::ping(&sites.net.host_a, ELSEWHERE, 5, &[])?;
    run.check(
        "traffic that no policy protects goes its way in clear",
        elsewhere.is_whole(),
        elsewhere.summary(),
    );
    for (from, to, near, far, icmp) in [
        (&sites.net.host_a, HOST_B, INSIDE_A, [INSIDE_B, OUTSIDE_B], false),
        (&sites.net.host_b, HOST_A, INSIDE_B, [INSIDE_A, OUTSIDE_A], true),
    ] {
        let hops = ping::traceroute(from, to, icmp)?;
        let as_expected = hops.len() == 3
            && hops[0] == Some(near)
            && hops[1].is_some_and(|hop| far.contains(&hop))
            && hops[2] == Some(to);
        run.check(&format!("traceroute to {to} shows both gateways"), as_expected, format!("{hops:?}"));
    }
    for (way, from, _, to, to_address, port) in ends {
        let tcp = iperf::run(from, (to, to_address), port, seconds, &[])?;
        run.figure(&format!("{way}_tcp_mbit"), tcp.mbit);
        run.report.figure(&format!("{way}_tcp_retransmits"), count(tcp.retransmits));
        let stalled = tcp.intervals.iter().filter(|(_, mbit)| *mbit <= 0.0).count();
        run.check(
            &format!("{way}: TCP never stalls"),
            stalled == 0 && tcp.mbit > 0.0,
            format!("{:.0} Mbit/s", tcp.mbit),
        );
        // Paced far below what the path carries, so that loss would be the gateways' doing.
        let udp = iperf::run(from, (to, to_address), port + 1, seconds, &["-u", "-b", "20M", "-l", "1200"])?;
        run.figure(&format!("{way}_udp_mbit"), udp.mbit);
        run.check(
            &format!("{way}: UDP at 20 Mbit/s arrives"),
            udp.lost == 0 && udp.datagrams > 0,
            format!("{} of {} datagrams lost", udp.lost, udp.datagrams),
        );
        let octets = if run.full { 100_000_000 } else { 20_000_000 };
        let download = http::download(
            (from, if way == "a_to_b" { HOST_A } else { HOST_B }),
            to,
            sites.net.folder(),
            port + 2,
            octets,
        )?;
        run.figure(&format!("{way}_http_mbit"), download.mbit);
        run.check(
            &format!("{way}: a download arrives as it was"),
            download.arrived == download.served,
            format!("sha256 {}", &download.arrived[..16.min(download.arrived.len())]),
        );
    }
    let mut expectation = Expectation::of_sites(run, 10_000);
    expectation.sample = 2000;
    sites.finish(run, &expectation)
}

//! The demonstration: a readable account of two gateways at work, and of what happens when their
//! processes are killed.

use crate::html::{self, Mark, Series};
use crate::judge::Expectation;
use crate::report::{Report, count};
use crate::run::{Run, line};
use crate::sites::{HOST_A, HOST_B, INSIDE_A, Options, Sites};
use crate::traffic::iperf::{self, Iperf};
use crate::traffic::rate::Rate;
use crate::traffic::{http, ping};
use anyhow::Result;
use std::path::Path;
use std::time::{Duration, Instant};

const PICTURE: &str = "
      site A                        outside                          site B
  host-a 10.1.0.10                                              host-b 10.2.0.10
        |                                                             |
  [ gw-a: 10.1.0.1 ]                                          [ gw-b: 10.2.0.1 ]
  [    192.0.2.1   ] ------ router (knows no inside) ------ [   198.51.100.1  ]
                       ESP, AES-128-GCM, tunnel mode
";

/// Throughput over time and what happened meanwhile.
#[derive(Debug, Default)]
struct Story {
    series: Vec<Series>,
    marks: Vec<Mark>,
}

/// Runs the demonstration with its files in `folder`; writes the HTML report where one is wanted.
///
/// # Errors
/// Where the report cannot be written. What goes wrong in the demonstration itself is a failed check.
pub fn demo(folder: &Path, html: Option<&Path>) -> Result<Report> {
    line("Tandem: two IPsec gateways in network namespaces of this machine");
    line(PICTURE);
    let mut run = Run::new("demo", folder, false);
    let mut story = Story::default();
    if let Err(error) = act(&mut run, &mut story) {
        run.check("the demonstration ran to its end", false, format!("{error:#}"));
    }
    if !run.report.passed() {
        run.print_logs();
    }
    summary(&run.report);
    if let Some(path) = html {
        std::fs::write(
            path,
            html::page("Tandem: two gateways between two sites", &run.report, &story.series, &story.marks),
        )?;
        line(format_args!("report: {}", path.display()));
    }
    Ok(run.report)
}

fn act(run: &mut Run, story: &mut Story) -> Result<()> {
    let mut sites = Sites::up(run, Options { capture_b: true, ..Options::default() })?;
    first_contact(run, &sites)?;
    throughput(run, &sites)?;
    let [a, b] = [("host A", &sites.net.host_a), ("host B", &sites.net.host_b)]
        .map(|(name, host)| (name, Rate::start(host, "eth0")));
    let result = deaths(run, &mut sites, &a.1, story);
    for (name, rate) in [a, b] {
        story.series.push(Series { name: format!("received by {name}"), points: rate.stop()? });
    }
    result?;
    run.say("what the gateway says of its SAs:");
    for text in sites.a.ctl_text(&["show", "crypto", "ipsec", "sa"])?.lines().take(30) {
        line(format_args!("      {text}"));
    }
    run.say("judging the captures of both outside segments");
    let mut expectation = Expectation::of_sites(run, 10_000);
    expectation.sample = 1000;
    sites.finish(run, &expectation)
}

fn first_contact(run: &mut Run, sites: &Sites) -> Result<()> {
    run.say("host A pings host B through the tunnel");
    let ping = ping::ping(&sites.net.host_a, HOST_B, 20, &[])?;
    run.check("ping from site to site", ping.is_whole(), ping.summary());
    run.figure("ping_ms", ping.round_trip_ms.unwrap_or(f64::NAN));
    let hops = ping::traceroute(&sites.net.host_a, HOST_B, false)?;
    run.check(
        "traceroute shows the gateways and nothing of the outside",
        hops.len() == 3 && hops[0] == Some(INSIDE_A) && hops[2] == Some(HOST_B),
        format!("{:?}", hops.into_iter().flatten().collect::<Vec<_>>()),
    );
    Ok(())
}

fn throughput(run: &mut Run, sites: &Sites) -> Result<()> {
    for (way, from, to, address, port) in [
        ("a_to_b", &sites.net.host_a, &sites.net.host_b, HOST_B, 5201),
        ("b_to_a", &sites.net.host_b, &sites.net.host_a, HOST_A, 5202),
    ] {
        run.say(format_args!("TCP {way} for three seconds"));
        let tcp = iperf::run(from, (to, address), port, 3, &[])?;
        run.figure(&format!("tcp_{way}_mbit"), tcp.mbit);
        run.check(&format!("TCP {way}"), tcp.mbit > 1.0, format!("{:.0} Mbit/s", tcp.mbit));
    }
    let file =
        http::download((&sites.net.host_b, HOST_B), &sites.net.host_a, sites.net.folder(), 8080, 20_000_000)?;
    run.check(
        "a download arrives as it was",
        file.served == file.arrived,
        format!("20 MB at {:.0} Mbit/s", file.mbit),
    );
    Ok(())
}

fn deaths(run: &mut Run, sites: &mut Sites, clock: &Rate, story: &mut Story) -> Result<()> {
    run.say("TCP at 50 Mbit/s and 1,000 numbered datagrams a second, both ways");
    let seconds = 18;
    let there = Iperf::start(&sites.net.host_a, (&sites.net.host_b, HOST_B), 5203, seconds, &["-b", "50M"])?;
    let back = Iperf::start(&sites.net.host_b, (&sites.net.host_a, HOST_A), 5204, seconds, &["-b", "50M"])?;
    let mut mark =
        |clock: &Rate, text: &str| story.marks.push(Mark { second: clock.now(), text: text.to_owned() });
    let flows = [sites.net.start_flow(true, 6001, 1000, 200)?, sites.net.start_flow(false, 6002, 1000, 200)?];
    std::thread::sleep(Duration::from_secs(2));
    run.say("kill -9 of gateway A's control process");
    mark(clock, "control killed");
    sites.a.kill_control();
    std::thread::sleep(Duration::from_secs(2));
    run.say("starting it again");
    sites.a.start_control()?;
    let ready = sites.a.wait_ready()?;
    mark(clock, "control back");
    run.figure("control_restart_ms", ready.as_secs_f64() * 1e3);
    std::thread::sleep(Duration::from_secs(1));
    for (way, flow) in ["a_to_b", "b_to_a"].into_iter().zip(flows) {
        let result = flow.stop()?;
        run.figure(&format!("kill_control_{way}_lost"), count(result.lost()));
        run.check(
            &format!("the death of the control process costs no packet ({way})"),
            result.is_whole(),
            result.summary(),
        );
    }
    let flow = sites.net.start_flow(true, 6003, 1000, 200)?;
    flow.wait_for_arrivals(500, Duration::from_secs(10))?;
    run.say("kill -9 of gateway A's data plane; the XDP program stays and fails closed");
    mark(clock, "data plane killed");
    sites.a.kill_dataplane();
    std::thread::sleep(Duration::from_millis(300));
    let before = flow.received();
    std::thread::sleep(Duration::from_millis(1200));
    let passed = flow.received() - before;
    run.check("nothing protected passes without the data plane", passed == 0, format!("{passed} datagrams"));
    run.say("starting it again");
    let start = Instant::now();
    sites.a.start_dataplane()?;
    let resumed = flow.wait_for_arrivals(100, Duration::from_secs(20)).is_ok();
    mark(clock, "traffic resumed");
    run.figure("dataplane_restart_to_traffic_ms", start.elapsed().as_secs_f64() * 1e3);
    sites.a.wait_ready()?;
    std::thread::sleep(Duration::from_secs(1));
    let result = flow.stop()?;
    run.figure("kill_dataplane_outage_ms", result.longest_gap_ms);
    run.check("traffic resumes with the data plane", resumed && result.repeated == 0, result.summary());
    for (way, tcp) in [("a_to_b", there), ("b_to_a", back)] {
        let result = tcp.finish()?;
        run.check(
            &format!("the TCP connection {way} lives through all of it"),
            result.intervals.last().is_some_and(|(_, mbit)| *mbit > 1.0),
            format!("{:.0} Mbit/s on average, {} retransmissions", result.mbit, result.retransmits),
        );
    }
    Ok(())
}

fn summary(report: &Report) {
    line("");
    line("  figures");
    for (name, value) in report.figures() {
        line(format_args!("    {name:<42} {value:>14.2}"));
    }
    line("");
    line("  checks");
    for check in report.checks() {
        line(format_args!(
            "    {} {:<72} {}",
            if check.passed { "ok    " } else { "FAILED" },
            check.name,
            check.seen
        ));
    }
    let failed = report.checks().iter().filter(|check| !check.passed).count();
    line("");
    line(format_args!("  {} of {} checks passed", report.checks().len() - failed, report.checks().len()));
}

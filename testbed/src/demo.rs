//! The demonstration: a pair of gateways whose active node dies twice under traffic, and comes back twice.

use crate::html::{self, Mark, Page, Series, Table};
use crate::network::{HOST_B, INSIDE_A};
use crate::pair::{Blow, NAMES, PairSites, REDUNDANT, Takeover, strike};
use crate::report::{Report, count};
use crate::run::{Run, line};
use crate::traffic::http::Fetch;
use crate::traffic::iperf::Iperf;
use crate::traffic::ping;
use crate::traffic::rate::Rate;
use anyhow::Result;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

const PICTURE: &str = "
      site A                        outside                          site B
                  10.1.0.2, 192.0.2.2
                  +-- [ gw-a1 ] --+
  host-a          |       |       |                                        host-b
  10.1.0.10 ------+     sync      +------ router ------ [ gw-b ] ------ 10.2.0.10
                  |       |       |   (knows no inside)   198.51.100.1
                  +-- [ gw-a2 ] --+
                  10.1.0.3, 192.0.2.3
     both nodes together: 10.1.0.1 inside, 192.0.2.1 outside
     ESP, AES-128-GCM, tunnel mode; one pair of SAs for all of it
";

/// Octets of the download, and octets a second: it lasts longer than both kills and returns.
const DOWNLOAD: u64 = 150_000_000;
const DOWNLOAD_RATE: &str = "3M";
/// Seconds of the TCP flow.
const FLOW_SECONDS: u32 = 50;
/// What is to be seen of a takeover.
const OUTAGE_MAX_MS: f64 = 40.0;

/// Runs the demonstration with its files in `folder`; writes the HTML report where one is wanted.
///
/// # Errors
/// Where the report cannot be written. What goes wrong in the demonstration itself is a failed check.
pub fn demo(folder: &Path, html: Option<&Path>) -> Result<Report> {
    line("Tandem: a pair of IPsec gateways in network namespaces of this machine");
    line(PICTURE);
    let mut run = Run::new("demo", folder, false);
    let mut story = Page {
        title: "Tandem: a pair of gateways, two kills and two returns".to_owned(),
        when: crate::lab::run(Command::new("date").args(["-u", "+%Y-%m-%d %H:%M UTC"]))?.trim().to_owned(),
        picture: PICTURE.to_owned(),
        ..Page::default()
    };
    if let Err(error) = act(&mut run, &mut story) {
        run.check("the demonstration ran to its end", false, format!("{error:#}"));
    }
    if !run.report.passed() {
        run.print_logs();
    }
    summary(&run.report);
    if let Some(path) = html {
        std::fs::write(path, html::page(&story, &run.report))?;
        line(format_args!("report: {}", path.display()));
    }
    Ok(run.report)
}

fn act(run: &mut Run, story: &mut Page) -> Result<()> {
    let mut sites = PairSites::up(run, true)?;
    first_contact(run, &sites)?;
    let [a, b] = [("host A", &sites.net.host_a), ("host B", &sites.net.host_b)]
        .map(|(name, host)| (name, Rate::start(host, "eth0")));
    let result = deaths(run, &mut sites, &a.1, story);
    for (name, rate) in [a, b] {
        story.series.push(Series { name: format!("received by {name}"), points: rate.stop()? });
    }
    let takeovers = result?;
    run.say("what the active node says of the pair:");
    let active = sites.active()?;
    for words in [&["show", "redundancy"][..], &["show", "redundancy", "history"]] {
        for text in sites.nodes[active].ctl_text(words)?.lines().take(40) {
            line(format_args!("      {text}"));
        }
    }
    run.say("judging the captures of the outside segment and of both insides");
    let mut expectation = sites.expectation(run, 20_000, takeovers)?;
    expectation.sample = 1000;
    sites.finish(run, &expectation)
}

fn first_contact(run: &mut Run, sites: &PairSites) -> Result<()> {
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

/// Two kills and two returns under a download, a TCP flow and probes. Gives the number of takeovers.
fn deaths(run: &mut Run, sites: &mut PairSites, clock: &Rate, story: &mut Page) -> Result<usize> {
    run.say("a download, a TCP flow at 30 Mbit/s, and 1,000 numbered datagrams a second both ways");
    let net = &sites.net;
    let limit = ["--limit-rate", DOWNLOAD_RATE, "--max-time", "110"];
    let mut download =
        Fetch::start((&net.host_b, HOST_B), &net.host_a, net.folder(), 8080, DOWNLOAD, &limit)?;
    let mut flow = Iperf::start(&net.host_a, (&net.host_b, HOST_B), 5203, FLOW_SECONDS, &["-b", "30M"])?;
    std::thread::sleep(Duration::from_secs(2));
    let mut takeovers = Vec::new();
    for kill in 1..=2 {
        let when = format!("kill {kill}");
        run.say("SIGKILL of both processes of the active node, and all its links go down");
        let takeover = strike(run, sites, Blow::Node, &when)?;
        let (old, new) = (NAMES[takeover.old], NAMES[takeover.new]);
        let text = format!("{old} killed: {:.0} ms", takeover.outage_ms);
        story.marks.push(Mark { second: clock.second_of(takeover.at), text });
        run.figure(&format!("kill_{kill}_outage_ms"), takeover.outage_ms);
        run.expect(
            &format!("{when}: {new} goes on within {OUTAGE_MAX_MS} ms"),
            takeover.outage_ms < OUTAGE_MAX_MS,
            format!("{:.1} ms", takeover.outage_ms),
        );
        run.say("an attacker sends the whole capture again; what comes out twice inside is found at the end");
        let attack = sites.replay(run, &when, false)?;
        run.figure(&format!("kill_{kill}_replayed_frames"), count(attack.frames));
        run.say(format_args!("{old} comes back"));
        let back = Instant::now();
        sites.return_node(takeover.old)?;
        let pairing = sites.wait_redundant(REDUNDANT)?;
        let redundant_ms = back.elapsed().as_secs_f64() * 1e3;
        run.figure(&format!("kill_{kill}_redundant_again_ms"), redundant_ms);
        story.marks.push(Mark { second: clock.now(), text: format!("{old} is standby") });
        run.check(
            &format!("{when}: {old} is the synchronized standby of {new}"),
            pairing.standby == takeover.old,
            format!("{redundant_ms:.0} ms after its return"),
        );
        takeovers.push((takeover, redundant_ms));
        std::thread::sleep(Duration::from_secs(2));
    }
    let running = (download.is_running(), flow.is_running());
    run.check(
        "download and TCP flow ran through both kills and both returns",
        running == (true, true),
        format!("download runs: {}, flow runs: {}", running.0, running.1),
    );
    story.tables.push(table(&takeovers));
    run.say("waiting for the download and the TCP flow to end");
    let flow = flow.finish()?;
    run.figure("tcp_mbit", flow.mbit);
    run.check(
        "the TCP flow lived through all of it",
        flow.intervals.last().is_some_and(|(_, mbit)| *mbit > 1.0),
        format!("{:.0} Mbit/s on average, {} retransmissions", flow.mbit, flow.retransmits),
    );
    let file = download.finish()?;
    run.check(
        "the download arrives as it was",
        file.served == file.arrived,
        format!("{} MB at {:.0} Mbit/s, sha256 {}", DOWNLOAD / 1_000_000, file.mbit, &file.arrived),
    );
    Ok(takeovers.len())
}

fn table(takeovers: &[(Takeover, f64)]) -> Table {
    let head =
        ["killed", "goes on", "term", "outage outbound", "outage inbound", "probes lost", "redundant again"];
    Table {
        title: "Takeovers".to_owned(),
        head: head.map(str::to_owned).to_vec(),
        rows: takeovers
            .iter()
            .map(|(takeover, redundant_ms)| {
                vec![
                    NAMES[takeover.old].to_owned(),
                    NAMES[takeover.new].to_owned(),
                    takeover.term.to_string(),
                    format!("{:.1} ms", takeover.there_ms),
                    format!("{:.1} ms", takeover.back_ms),
                    takeover.lost.to_string(),
                    format!("{:.1} s after its return", redundant_ms / 1e3),
                ]
            })
            .collect(),
    }
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

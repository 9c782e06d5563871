//! `kill -9` of the data plane under traffic, on a gateway whose kernel would gladly forward.

use crate::judge::Expectation;
use crate::report::count;
use crate::run::Run;
use crate::sites::{ELSEWHERE, HOST_A, Options, Sites};
use crate::traffic::flow::{Flow, FlowSettings};
use anyhow::Result;
use std::time::{Duration, Instant};

pub(super) fn act(run: &mut Run) -> Result<()> {
    killed(run)?;
    memory_lost(run)
}

/// The data plane dies and comes back; control keeps the hot state.
fn killed(run: &mut Run) -> Result<()> {
    let mut sites = Sites::up(run, Options { capture_b: true, ..Options::default() })?;
    let kills = if run.full { 10 } else { 2 };
    // Better than the blackhole route that control keeps there: without the XDP program this leaks.
    let gateway = sites.a.namespace.clone();
    gateway.run("ip route add 10.2.0.0/24 via 192.0.2.254")?;
    let forwarding = gateway.enter(|| Ok(std::fs::read_to_string("/proc/sys/net/ipv4/ip_forward")?))?;
    let route = gateway.run("ip route get 10.2.0.10")?;
    run.check(
        "gateway A's kernel forwards and has a route to the protected prefix",
        forwarding.trim() == "1" && route.contains("via 192.0.2.254"),
        route.lines().next().unwrap_or_default(),
    );
    let settings = |port| FlowSettings { from: HOST_A, to: ELSEWHERE, port, per_second: 200, payload: 100 };
    let mut outages = Vec::new();
    for kill in 0..kills {
        let there = sites.net.start_flow(true, 6500, 1000, 200)?;
        let back = sites.net.start_flow(false, 6501, 1000, 200)?;
        let elsewhere = Flow::start(&sites.net.host_a, &sites.net.router, settings(6502))?;
        there.wait_for_arrivals(500, Duration::from_secs(10))?;
        back.wait_for_arrivals(100, Duration::from_secs(10))?;
        let passes = elsewhere.wait_for_arrivals(50, Duration::from_secs(3));
        run.check(
            "traffic that no policy protects passes a gateway at work",
            passes.is_ok(),
            outcome(&passes),
        );

        run.say("kill -9 of gateway A's data plane");
        let start = Instant::now();
        sites.a.kill_dataplane();
        std::thread::sleep(Duration::from_millis(500));
        let (before, other_before) = (there.received(), elsewhere.received());
        std::thread::sleep(Duration::from_millis(1500));
        let (stuck, passed) = (there.received() - before, elsewhere.received() - other_before);
        run.check("nothing protected passes a dead data plane", stuck == 0, format!("{stuck} arrived"));
        run.check(
            "traffic that no policy protects passes",
            passed >= 200,
            format!("{passed} of 300 in that time"),
        );
        let attached = sites.a.program_is_attached()?;
        run.check("the XDP program stands without the data plane", attached, attached);

        run.say("starting it again");
        sites.a.start_dataplane()?;
        let restart = Instant::now();
        let resumed = there.wait_for_arrivals(500, Duration::from_secs(20)).is_ok()
            && back.wait_for_arrivals(500, Duration::from_secs(20)).is_ok();
        let ready = sites.a.wait_ready();
        run.check("control finds it again and all SAs are there", ready.is_ok(), outcome(&ready));
        outages.push(restart.elapsed().as_secs_f64() * 1e3);
        let (there, back, elsewhere) = (there.stop()?, back.stop()?, elsewhere.stop()?);
        run.check(
            "traffic resumes both ways after the restart",
            resumed,
            format!("{}; back: {}", there.summary(), back.summary()),
        );
        run.check(
            "nothing is delivered twice",
            [&there, &back].iter().all(|flow| flow.repeated == 0 && flow.damaged == 0),
            format!("{} and {}", there.repeated, back.repeated),
        );
        run.report.figure("unprotected_lost", count(elsewhere.lost()));
        run.report.figure(&format!("outage_ms_kill_{kill}"), there.longest_gap_ms);
        run.say(format_args!(
            "out for {:.0} ms, {:.0} ms of them dead on purpose",
            there.longest_gap_ms,
            (restart - start).as_secs_f64() * 1e3
        ));
    }
    run.figure("restart_to_500_datagrams_ms_max", outages.iter().copied().fold(0.0, f64::max));
    let mut expectation = Expectation::of_sites(run, 5000);
    expectation.sample = 2000;
    sites.finish(run, &expectation)
}

/// Both processes die, and with them every number that was given out: the same keys must go on under a
/// new term, so that no IV comes again.
fn memory_lost(run: &mut Run) -> Result<()> {
    let mut sites = Sites::up(run, Options::default())?;
    let times = if run.full { 10 } else { 2 };
    for _ in 0..times {
        let flow = sites.net.start_flow(true, 6510, 1000, 200)?;
        std::thread::sleep(Duration::from_secs(1));
        run.say("kill -9 of both processes of gateway A");
        sites.a.kill_control();
        sites.a.kill_dataplane();
        std::thread::sleep(Duration::from_millis(200));
        sites.a.start()?;
        std::thread::sleep(Duration::from_secs(1));
        let sealed = sites.a.counters()?.counter("encapsulated");
        run.check("after both died the gateway seals again", sealed > 300, format!("{sealed} packets"));
        flow.stop()?;
    }
    let mut expectation = Expectation::of_sites(run, 3000);
    // Numbers begin anew with lost memory (the peer's window refuses them); IVs never.
    expectation.sequence_may_repeat = true;
    sites.finish(run, &expectation)
}

fn outcome(result: &Result<Duration>) -> String {
    match result {
        Ok(time) => format!("after {} ms", time.as_millis()),
        Err(error) => format!("{error:#}"),
    }
}

//! `replication`: how far the standby lags behind, and what it costs that it knows everything before it has an effect.
//!
//! In the lab, where two nodes, their peer, both hosts and the network between them share the cores: the lag (from the
//! opening of a record to its acknowledgement) under numbered flows over all SAs both ways, at the full rate that the
//! chain carries and at half of it; and round trips and throughput with a synchronized standby (`replay exact`) beside
//! those of the same node alone, in turn. Over memory, on a core of its own: the cycles that it costs a worker.
//!
//! The lag counts from the beginning of a data plane: before each measurement the standby takes over, and has measured
//! nothing before. What it measured while the other node joined is among it, a few samples an SA.

mod acknowledger;
mod cores;
mod load;
mod site;
mod worker;

use std::time::Duration;

use anyhow::Result;
use tandem_testbed::lab::registry;
use tandem_testbed::report::Report;
use tandem_testbed::run::Run;

use crate::pin::{self, Role};
use crate::quiet::Meter;
use crate::replication::cores::Cores;
use crate::replication::load::Passed;
use crate::replication::site::{Site, Window};

/// Numbers of SAs each way.
const SAS: [u16; 2] = [10, 1000];
/// The loads of which the lag is measured: name and share of the full rate.
const LOADS: [(&str, f64); 2] = [("half", 0.5), ("full", 1.0)];
/// The search for the full rate begins here, in datagrams a second both ways, and goes up by this factor.
const FIRST: f64 = 4_000.0;
const STEP: f64 = 1.4;
/// A rate of which more than this is lost is not carried, and neither is one that cannot be sent.
const LOSS_MAX: f64 = 0.01;
const OFFERED_MIN: f64 = 0.9;
/// At half rate no more than this may be lost.
const HALF_LOSS_MAX: f64 = 0.001;
/// The load for the throughput, in parts of the full rate: more than hosts can send, who share the cores.
const OVERLOAD: f64 = 2.0;
/// The cores are quiet where others leave this share of them.
const QUIET: f64 = 0.8;
/// Expected of the 99th percentile of the lag at half rate, in microseconds.
const LAG_US: f64 = 1000.0;

/// How much is measured.
#[derive(Clone, Copy, Debug)]
struct Effort {
    /// Cycles of a worker, in all.
    memory: Duration,
    /// One step of the search.
    step: Duration,
    /// One measurement of lag.
    lag: Duration,
    /// Measurements of lag at each rate.
    lags: usize,
    /// One measurement of round trips, or of throughput.
    turn: Duration,
    /// Turns with the standby, each beside one without it.
    turns: usize,
}

/// Runs the benchmark.
///
/// # Errors
/// Where the pair cannot be built, or does not become redundant.
pub fn run(full: bool) -> Result<Report> {
    let effort = match full {
        true => Effort {
            memory: Duration::from_secs(60),
            step: Duration::from_millis(1000),
            lag: Duration::from_secs(10),
            lags: 3,
            turn: Duration::from_secs(4),
            turns: 6,
        },
        false => Effort {
            memory: Duration::from_secs(10),
            step: Duration::from_millis(300),
            lag: Duration::from_secs(3),
            lags: 1,
            turn: Duration::from_millis(1000),
            turns: 2,
        },
    };
    registry::sweep();
    let prefix = format!("{}{}-", registry::FOLDER_PREFIX, std::process::id());
    let folder = tempfile::Builder::new().prefix(&prefix).tempdir()?;
    let mut run = Run::new("replication", folder.path(), full);

    run.say("cycles of a worker, over memory");
    // On a thread of its own: what is pinned here stays with it, and the daemons do not inherit it.
    std::thread::scope(|scope| {
        let report = &mut run.report;
        let work = move || -> Result<()> {
            pin::this_thread(Role::UnderTest)?;
            let mut meter = Meter::calibrate();
            report.figure("tsc_hz", meter.hertz());
            worker::measure(report, &mut meter, &SAS.map(u32::from), effort.memory)
        };
        scope.spawn(work).join().unwrap_or_else(|_| Err(anyhow::anyhow!("a packet over memory was lost")))
    })?;

    let mut watch = Watch { cores: Cores::calibrate()?, quiet_share: 1.0 };
    for sas in SAS {
        let mut site = Site::up(&mut run, sas)?;
        let full_rate = lags(&mut run, &mut site, &mut watch, sas, effort)?;
        if sas == SAS[0] {
            compare(&mut run, &mut site, &mut watch, full_rate, effort)?;
        }
    }
    run.figure("quiet_share_min", watch.quiet_share);
    run.report.expect(
        "others left both cores to the lab while lag was measured",
        watch.quiet_share >= QUIET,
        format!("{:.2} of them at least", watch.quiet_share),
    );
    Ok(run.report)
}

/// Both cores, and the least that others have left of them.
struct Watch {
    cores: Cores,
    quiet_share: f64,
}

impl Watch {
    fn look(&mut self, share: f64) {
        self.quiet_share = self.quiet_share.min(share);
    }
}

/// The highest rate that the chain carries strictly: what was delivered of it, in datagrams a second both ways.
fn full_rate(run: &Run, site: &Site, watch: &mut Watch, step: Duration) -> Result<f64> {
    let (mut rate, mut best, mut misses) = (FIRST, 0.0_f64, 0);
    // What a machine that was busy for a moment did not carry, it may carry the next time.
    while misses < 2 {
        let Window { passed, broken, .. } = site.strict(&mut watch.cores, rate, step)?;
        let carried = broken.is_none() && passed.loss() <= LOSS_MAX && passed.offered() >= OFFERED_MIN * rate;
        run.say(format_args!(
            "       {rate:.0}/s: {}{}",
            text(&passed),
            broken.map_or(String::new(), |broken| format!("; {broken}"))
        ));
        if carried {
            best = best.max(passed.delivered());
            (rate, misses) = (rate * STEP, 0);
        } else {
            misses += 1;
        }
    }
    anyhow::ensure!(best > 0.0, "not even {FIRST:.0} datagrams a second were carried");
    Ok(best)
}

fn text(passed: &Passed) -> String {
    format!(
        "{:.0} of {:.0} a second arrived in time, {:.3} % lost",
        passed.delivered(),
        passed.offered(),
        passed.loss() * 100.0
    )
}

/// Finds the full rate with so many SAs and measures the lag at it and at half of it. Gives the full rate.
fn lags(run: &mut Run, site: &mut Site, watch: &mut Watch, sas: u16, effort: Effort) -> Result<f64> {
    run.say(format_args!("the full rate that the chain carries with {sas} SAs"));
    let full_rate = full_rate(run, site, watch, effort.step)?;
    run.figure(&format!("full_pps_{sas}"), full_rate);
    for (name, share) in LOADS {
        let (mut lags, mut parked, mut windows, mut fresh) = (Vec::new(), 0, Vec::new(), true);
        for _ in 0..effort.lags {
            let takeover = site.renew()?;
            run.say(format_args!("       {takeover}"));
            fresh &= !takeover.contains("stale");
            let window = site.strict(&mut watch.cores, share * full_rate, effort.lag)?;
            let (lag, waited) = site.lag()?;
            watch.look(window.quiet_share);
            run.say(format_args!(
                "       {}, {:.2} of the cores free; {lag:?}; dropped {:?}",
                text(&window.passed),
                window.quiet_share,
                window.dropped
            ));
            lags.push(lag);
            parked = parked.max(waited);
            windows.push(window);
        }
        let of = |value: fn(&tandem_api::pair::LagHistogram) -> u64| {
            median(lags.iter().map(|lag| value(lag) as f64).collect())
        };
        let figures = [
            ("p50", of(|lag| lag.p50_us)),
            ("p99", of(|lag| lag.p99_us)),
            ("p999", of(|lag| lag.p999_us)),
            ("max", lags.iter().map(|lag| lag.max_us).max().unwrap_or(0) as f64),
        ];
        for (quantile, value) in figures {
            run.figure(&format!("lag_us_{quantile}_{name}_{sas}"), value);
        }
        let samples = of(|lag| lag.count);
        run.figure(&format!("lag_samples_{name}_{sas}"), samples);
        run.figure(&format!("parked_max_{name}_{sas}"), parked as f64);
        let loss = median(windows.iter().map(|window| window.passed.loss()).collect());
        run.figure(&format!("loss_share_{name}_{sas}"), loss);
        run.figure(
            &format!("delivered_pps_{name}_{sas}"),
            median(windows.iter().map(|window| window.passed.delivered()).collect()),
        );

        let when = format!("at {name} rate with {sas} SAs");
        let unsound = windows.iter().find(|window| !window.passed.is_sound());
        run.check(
            &format!("packets arrive both ways, once and whole, {when}"),
            unsound.is_none(),
            unsound.map_or(String::from("in each measurement"), |window| format!("{:?}", window.passed)),
        );
        let broken: Vec<&str> = windows.iter().filter_map(|window| window.broken.as_deref()).collect();
        run.check(
            &format!("the pair is strict all the time {when}"),
            broken.is_empty(),
            if broken.is_empty() { String::from("in each measurement") } else { broken.join("; ") },
        );
        run.check(
            &format!("the takeovers before the measurements are fresh, {when}"),
            fresh,
            format!("{} takeovers", windows.len()),
        );
        // A record holds many packets of an SA, and each SA was sent at least one.
        run.check(
            &format!("lag is measured {when}"),
            samples >= f64::from(sas),
            format!("{samples:.0} samples"),
        );
        if name == "half" {
            run.report.expect(
                &format!("no more than {HALF_LOSS_MAX} is lost {when}"),
                loss <= HALF_LOSS_MAX,
                format!(
                    "{loss:.5}, dropped {:?}",
                    windows.iter().map(|window| &window.dropped).collect::<Vec<_>>()
                ),
            );
            let p99 = figures[1].1;
            run.report.expect(
                &format!("the 99th percentile of the lag is below a millisecond {when}"),
                p99 < LAG_US,
                format!("{p99:.0} us"),
            );
        }
    }
    Ok(full_rate)
}

/// What is compared with and without the standby.
#[derive(Clone, Copy, Debug)]
struct Turn {
    trip_us_p50: f64,
    trip_us_p99: f64,
    trips: usize,
    lost: u64,
    passed: Passed,
    /// The pair was with and without its standby as it had to be.
    as_wanted: bool,
    /// The share of both cores that was free before and after, the worst one.
    quiet_share: f64,
}

/// Round trips and throughput with a synchronized standby beside those of the active node alone, in turn.
fn compare(run: &mut Run, site: &mut Site, watch: &mut Watch, full_rate: f64, effort: Effort) -> Result<()> {
    run.say("round trips and throughput, with the standby and without it in turn");
    let turn = |site: &Site, cores: &mut Cores, strict: bool| -> Result<Turn> {
        let before = cores.probe();
        let (mut trips, lost) = site.round_trips(effort.turn)?;
        trips.sort_by(f64::total_cmp);
        let at = |share: f64| trips.get((trips.len() as f64 * share) as usize).copied().unwrap_or(f64::NAN);
        let (trip_us_p50, trip_us_p99) = (at(0.5), at(0.99));
        let rate = OVERLOAD * full_rate;
        let (passed, as_wanted) = if strict {
            let window = site.strict(cores, rate, effort.turn)?;
            (window.passed, window.broken.is_none())
        } else {
            let passed = site.load(rate, effort.turn)?;
            (passed, site.is_alone()?)
        };
        let (trips, quiet_share) = (trips.len(), before.min(cores.probe()));
        Ok(Turn { trip_us_p50, trip_us_p99, trips, lost, passed, as_wanted, quiet_share })
    };
    let mut pairs: Vec<[Turn; 2]> = Vec::new();
    for _ in 0..effort.turns {
        let strict = turn(site, &mut watch.cores, true)?;
        let standby = site.part()?;
        let alone = turn(site, &mut watch.cores, false)?;
        site.join(standby)?;
        for (name, turn) in [("strict", strict), ("alone", alone)] {
            run.say(format_args!(
                "       {name}: {:.0} us median, {:.0} us p99 of {} round trips; {}",
                turn.trip_us_p50,
                turn.trip_us_p99,
                turn.trips,
                text(&turn.passed)
            ));
        }
        pairs.push([strict, alone]);
    }
    let quiet: Vec<[Turn; 2]> =
        pairs.iter().filter(|pair| pair.iter().all(|turn| turn.quiet_share >= QUIET)).copied().collect();
    run.figure("undisturbed_turns", quiet.len() as f64);
    run.report.expect(
        "others left both cores to some turn with the standby and the one without it",
        !quiet.is_empty(),
        format!("{} of {}", quiet.len(), pairs.len()),
    );
    // Where there is none, all are better than nothing.
    let counted = if quiet.is_empty() { &pairs } else { &quiet };
    let of = |value: fn(&[Turn; 2]) -> f64| median(counted.iter().map(value).collect());
    for (name, value) in [
        ("strict_trip_us_p50", of(|[strict, _]| strict.trip_us_p50)),
        ("alone_trip_us_p50", of(|[_, alone]| alone.trip_us_p50)),
        ("strict_trip_us_p99", of(|[strict, _]| strict.trip_us_p99)),
        ("alone_trip_us_p99", of(|[_, alone]| alone.trip_us_p99)),
        ("strict_added_us_p50", of(|[strict, alone]| strict.trip_us_p50 - alone.trip_us_p50)),
        ("strict_added_us_p99", of(|[strict, alone]| strict.trip_us_p99 - alone.trip_us_p99)),
        ("strict_throughput_pps", of(|[strict, _]| strict.passed.delivered())),
        ("alone_throughput_pps", of(|[_, alone]| alone.passed.delivered())),
        (
            "strict_throughput_ratio",
            of(|[strict, alone]| strict.passed.delivered() / alone.passed.delivered()),
        ),
    ] {
        run.figure(name, value);
    }
    let turns = || pairs.iter().flatten();
    let (trips, lost) =
        (turns().map(|turn| turn.trips).sum::<usize>(), turns().map(|turn| turn.lost).sum::<u64>());
    run.check(
        "round trips come back, with the standby and without it",
        turns().all(|turn| turn.trips > 0 && turn.lost * 100 <= turn.trips as u64),
        format!("{trips} came back, {lost} did not"),
    );
    run.check(
        "the pair is strict in turns with the standby, and alone in turns without it",
        turns().all(|turn| turn.as_wanted),
        format!(
            "{} turns, {} not as wanted",
            turns().count(),
            turns().filter(|turn| !turn.as_wanted).count()
        ),
    );
    run.check(
        "under overload packets arrive both ways, once and whole",
        turns().all(|turn| turn.passed.is_sound()),
        format!("{} measurements", 2 * pairs.len()),
    );
    Ok(())
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

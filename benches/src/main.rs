//! `tandem-bench`: the command behind `benches/run`.
#![allow(clippy::print_stdout, reason = "the results are the output of this program")]

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Parser;
use tandem_benches::{aead, memory, replication, secgw, takeover, veth};
use tandem_testbed::lab::registry;
use tandem_testbed::report::Report;

/// Measures Tandem beside its peers.
#[derive(Parser)]
#[command(name = "benches/run")]
struct Arguments {
    /// Name of the benchmark.
    #[arg(required_unless_present = "list")]
    name: Option<String>,
    /// Shows the names of all benchmarks.
    #[arg(long)]
    list: bool,
    /// Measures longer; the figures are the same.
    #[arg(long)]
    full: bool,
    /// Writes the results to this file.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// One benchmark.
struct Benchmark {
    name: &'static str,
    about: &'static str,
    run: fn(full: bool) -> Result<Report>,
}

const BENCHMARKS: &[Benchmark] = &[
    Benchmark {
        name: "aead",
        about: "cycles a packet of each AEAD provider, beside libipsec-mb",
        run: aead::run,
    },
    Benchmark {
        name: "esp-memory",
        about: "cycles a packet of the whole path, beside ipsec-secgw",
        run: memory::run,
    },
    Benchmark {
        name: "veth-forward",
        about: "rate over veth beside a plain AF_XDP forwarder",
        run: veth::run,
    },
    Benchmark {
        name: "takeover",
        about: "outage of the sites when the active node of a pair loses its power",
        run: takeover::run,
    },
    Benchmark {
        name: "replication",
        about: "lag of the standby, and what it costs that it knows everything first",
        run: replication::run,
    },
];

fn main() -> ExitCode {
    match run(Arguments::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("tandem-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments) -> Result<bool> {
    if arguments.list {
        for benchmark in BENCHMARKS {
            println!("{:<14} {}", benchmark.name, benchmark.about);
        }
        return Ok(true);
    }
    let name = arguments.name.context("no benchmark was named")?;
    let benchmark = BENCHMARKS
        .iter()
        .find(|benchmark| benchmark.name == name)
        .with_context(|| format!("there is no benchmark {name}; see benches/run --list"))?;
    ctrlc::set_handler(|| {
        registry::remove_all();
        secgw::release_memory();
        std::process::exit(130);
    })?;

    let report = (benchmark.run)(arguments.full).with_context(|| format!("benchmark {name}"))?;
    print(&report);
    if let Some(file) = arguments.json {
        report.write(&file).with_context(|| format!("writing {}", file.display()))?;
    }
    Ok(report.passed())
}

fn print(report: &Report) {
    let machine = report.machine();
    println!("{} on {}, kernel {}, {} cores", report.name(), machine.cpu, machine.kernel, machine.cores);
    for (name, value) in report.figures() {
        println!("  {name:<44} {value:>14.3}");
    }
    for check in report.checks() {
        println!("  {} {}: {}", if check.passed { "passed" } else { "FAILED" }, check.name, check.seen);
    }
}

//! `tandem-testbed`: what `testbed/demo`, `testbed/scenario` and `testbed/test` run.

use anyhow::{Context, Result, bail, ensure};
use clap::{Parser, Subcommand};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use tandem_testbed::lab::registry;
use tandem_testbed::report::Report;
use tandem_testbed::run::line;
use tandem_testbed::scenarios::{self, Scenario};
use tandem_testbed::simulation::{self, Seeds};
use tandem_testbed::{demo, suite};

#[derive(Debug, Parser)]
#[command(about = "Scenarios, demonstration and tests of Tandem", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// A readable account of two gateways at work.
    Demo {
        /// Write the account as one HTML file.
        #[arg(long, value_name = "FILE.html")]
        report: Option<PathBuf>,
        /// Write the result as JSON.
        #[arg(long, value_name = "FILE")]
        json: Option<PathBuf>,
    },
    /// One end-to-end scenario.
    Scenario {
        /// Name of the scenario.
        #[arg(required_unless_present = "list")]
        name: Option<String>,
        /// List the names.
        #[arg(long)]
        list: bool,
        /// The counts that the proofs name.
        #[arg(long)]
        full: bool,
        /// Run it so many times.
        #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
        repeat: u32,
        /// Write the result as JSON.
        #[arg(long, value_name = "FILE")]
        json: Option<PathBuf>,
        /// Keep logs and captures also when it passed.
        #[arg(long)]
        keep: bool,
    },
    /// The deterministic simulation of a pair.
    Simulate {
        /// So many seeds.
        #[arg(long, default_value_t = 20_000)]
        seeds: u64,
        /// The first one.
        #[arg(long, default_value_t = 0)]
        from: u64,
        /// This one only, with its story.
        #[arg(long, conflicts_with_all = ["seeds", "from"])]
        seed: Option<u64>,
        /// With this rule broken (only in a build with the feature `mutants`).
        #[arg(long, value_name = "NAME")]
        mutant: Option<String>,
        /// Write the result as JSON.
        #[arg(long, value_name = "FILE")]
        json: Option<PathBuf>,
    },
    /// Breaks each rule once and looks whether the simulation notices; only in a build with the feature `mutants`.
    SimulateMutants {
        /// Write the result as JSON.
        #[arg(long, value_name = "FILE")]
        json: Option<PathBuf>,
    },
    /// Every test of the project.
    Test {
        /// The counts that the proofs name.
        #[arg(long)]
        full: bool,
        /// Steps (or, where no step matches, tests) whose name contains it.
        filter: Option<String>,
        /// Root folder of the workspace.
        #[arg(long, default_value = ".")]
        root: PathBuf,
    },
}

fn main() -> ExitCode {
    match run(Arguments::parse().command) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            line(format_args!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<bool> {
    if let Command::Scenario { list: true, .. } = command {
        for scenario in scenarios::ALL {
            line(format_args!("{:<18} {}", scenario.name, scenario.about));
        }
        return Ok(true);
    }
    if let Command::Simulate { seeds, from, seed, mutant, json } = command {
        if let Some(name) = mutant {
            simulation::mutants::choose(&name)?;
        }
        let mut report = Report::new("simulate");
        match seed {
            Some(seed) => simulation::replay(seed, &mut report),
            None => simulation::simulate(Seeds { from, number: seeds, stop: false }, &mut report),
        }
        return write(&report, json.as_deref());
    }
    if let Command::SimulateMutants { json } = command {
        let mut report = Report::new("simulate-mutants");
        simulation::mutants::hunt(&mut report)?;
        return write(&report, json.as_deref());
    }
    ensure!(
        nix::unistd::geteuid().is_root(),
        "network namespaces and XDP need root: run this as root (for instance with sudo)"
    );
    registry::sweep();
    let prefix = format!("{}{}-", registry::FOLDER_PREFIX, std::process::id());
    let folder = tempfile::Builder::new().prefix(&prefix).tempdir()?;
    let path = folder.path().to_owned();
    ctrlc::set_handler(move || {
        line("interrupted: removing namespaces and processes");
        registry::remove_all();
        let _ = std::fs::remove_dir_all(&path);
        std::process::exit(130);
    })
    .context("setting the handler of Ctrl-C")?;
    let (passed, keep) = match command {
        Command::Demo { report, json } => {
            let result = demo::demo(folder.path(), report.as_deref())?;
            (write(&result, json.as_deref())?, false)
        }
        Command::Scenario { name, full, repeat, json, keep, .. } => {
            let name = name.unwrap_or_default();
            let Some(scenario) = Scenario::find(&name) else {
                bail!("no scenario `{name}`; --list shows all");
            };
            let report = repeated(scenario, folder.path(), full, repeat)?;
            (write(&report, json.as_deref())?, keep)
        }
        Command::Test { full, filter, root } => {
            let root = root.canonicalize().with_context(|| format!("no folder {}", root.display()))?;
            let count =
                suite::run(&suite::Settings { root, folder: folder.path().to_owned(), full, filter })?;
            return Ok(count.failed == 0);
        }
        Command::Simulate { .. } | Command::SimulateMutants { .. } => bail!("nothing was simulated"),
    };
    if keep || !passed {
        line(format_args!("logs and captures: {}", folder.keep().display()));
    }
    Ok(passed)
}

fn repeated(scenario: &Scenario, folder: &Path, full: bool, repeat: u32) -> Result<Report> {
    let mut reports = Vec::new();
    for number in 0..repeat {
        let folder = folder.join(format!("run{number}"));
        std::fs::create_dir_all(&folder)?;
        let report = scenario.run(&folder, full);
        if report.passed() && repeat > 1 {
            std::fs::remove_dir_all(&folder)?;
        }
        reports.push(report);
    }
    match reports.pop() {
        Some(only) if repeat == 1 => Ok(only),
        Some(last) => {
            reports.push(last);
            Ok(Report::joined(scenario.name, &reports))
        }
        None => bail!("nothing was run"),
    }
}

fn write(report: &Report, json: Option<&Path>) -> Result<bool> {
    if let Some(path) = json {
        report.write(path).with_context(|| format!("writing {}", path.display()))?;
    }
    let failed = report.checks().iter().filter(|check| !check.passed).count();
    line(format_args!(
        "{}: {} ({} checks, {failed} failed)",
        report.name(),
        if report.passed() { "passed" } else { "FAILED" },
        report.checks().len()
    ));
    Ok(report.passed())
}

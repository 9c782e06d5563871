//! The deterministic simulation, as a scenario: in this process, and with broken rules in a build of its own.

use crate::run::Run;
use crate::simulation::{self, Seeds};
use anyhow::{Context, Result, bail};
use serde_json::Value;
use std::path::Path;
use std::process::Command;

/// Seeds of the short and of the long form.
const SEEDS: [u64; 2] = [20_000, 100_000];
/// The simulation is to run at least so many seeds a minute on two cores.
const PER_MINUTE: f64 = 20_000.0;

pub(super) fn seeds(run: &mut Run) -> Result<()> {
    let number = SEEDS[usize::from(run.full)];
    simulation::simulate(Seeds { from: 0, number, stop: false }, &mut run.report);
    let rate = run.report.figures().get("seeds_per_minute").copied().unwrap_or(0.0);
    run.expect("20,000 seeds a minute", rate >= PER_MINUTE, format!("{rate:.0}"));
    Ok(())
}

/// The switches exist only in a build with a feature of its own, so that no other build can hold one.
pub(super) fn mutants(run: &mut Run) -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let target = root.join("../target/mutants");
    let result = run.folder().join("mutants.json");
    let status = Command::new("cargo")
        .args(["run", "--profile", "mutants", "--quiet", "--features", "mutants", "--bin", "tandem-testbed"])
        .args(["--", "simulate-mutants", "--json"])
        .arg(&result)
        .current_dir(root)
        .env("CARGO_TARGET_DIR", target)
        .status()
        .context("starting cargo")?;
    let text = std::fs::read(&result)
        .with_context(|| format!("no result: the build or the run failed ({status})"))?;
    let report: Value = serde_json::from_slice(&text)?;
    let Some(checks) = report["checks"].as_array() else { bail!("the result has no checks") };
    for check in checks {
        let (name, seen) = (check["name"].as_str().unwrap_or("?"), check["seen"].as_str().unwrap_or("?"));
        run.report.check(name, check["passed"].as_bool().unwrap_or(false), seen);
    }
    Ok(())
}

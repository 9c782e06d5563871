//! What a scenario, the demo or a benchmark found: one JSON object.
//!
//! `name`, `passed`, `figures` (a flat map from name to number, the unit in the name), `checks` (name,
//! passed, what was seen) and `machine`. The exit status of every command is 0 exactly when `passed`.

use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

/// One thing that had to be so.
#[derive(Clone, Debug, Serialize)]
pub struct Check {
    /// What had to be so.
    pub name: String,
    /// Was it so?
    pub passed: bool,
    /// What was seen.
    pub seen: String,
}

/// How the name of a check begins that was noted by [`Report::expect`].
pub const EXPECTED: &str = "expected: ";

/// The machine that the figures come from.
#[derive(Clone, Debug, Serialize)]
pub struct Machine {
    /// CPU model as the kernel names it.
    pub cpu: String,
    /// Kernel release.
    pub kernel: String,
    /// Cores that this process may use.
    pub cores: usize,
}

impl Machine {
    /// Reads `/proc`.
    #[must_use]
    pub fn this() -> Self {
        let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let field = |key: &str| {
            cpuinfo
                .lines()
                .find_map(|line| {
                    line.strip_prefix(key)?.split_once(':').map(|(_, value)| value.trim().to_owned())
                })
                .unwrap_or_else(|| "unknown".to_owned())
        };
        // Virtual machines often hide the marketing name; family and model tell CPUs apart then.
        let cpu =
            format!("{} (family {}, model {})", field("model name"), field("cpu family"), field("model\t"));
        let kernel =
            std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned();
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self { cpu, kernel, cores }
    }
}

/// Figures and checks under one name.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    name: String,
    passed: bool,
    figures: BTreeMap<String, f64>,
    checks: Vec<Check>,
    machine: Machine,
}

impl Report {
    /// A report without checks, which has not passed.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            passed: false,
            figures: BTreeMap::new(),
            checks: Vec::new(),
            machine: Machine::this(),
        }
    }

    /// Name of the scenario or benchmark.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// True exactly when there is a check and every check passed.
    #[must_use]
    pub fn passed(&self) -> bool {
        self.passed
    }

    /// Notes a number; the unit belongs into the name (`outage_ms_p99`). A number that is not finite
    /// cannot be written as JSON and becomes a failed check instead.
    pub fn figure(&mut self, name: &str, value: f64) {
        if value.is_finite() {
            self.figures.insert(name.to_owned(), value);
        } else {
            self.check(&format!("figure {name} is a number"), false, value);
        }
    }

    /// Notes a check and what was seen; gives `passed` back.
    pub fn check(&mut self, name: &str, passed: bool, seen: impl fmt::Display) -> bool {
        self.checks.push(Check { name: name.to_owned(), passed, seen: seen.to_string() });
        self.passed = self.checks.iter().all(|check| check.passed);
        passed
    }

    /// Notes a check of how fast something was, or of how well that could be measured. It counts as every
    /// check does; but where other work shares the machine it may fail with nothing wrong, so the test suite,
    /// which runs beside other work, shows it and does not fail by it.
    pub fn expect(&mut self, name: &str, passed: bool, seen: impl fmt::Display) -> bool {
        self.check(&format!("{EXPECTED}{name}"), passed, seen)
    }

    /// All figures.
    #[must_use]
    pub fn figures(&self) -> &BTreeMap<String, f64> {
        &self.figures
    }

    /// All checks, in the order in which they were made.
    #[must_use]
    pub fn checks(&self) -> &[Check] {
        &self.checks
    }

    /// The machine.
    #[must_use]
    pub fn machine(&self) -> &Machine {
        &self.machine
    }

    /// Joins repeated runs: figures become their median (and `_worst`, the maximum), a check has
    /// passed when it passed in every run and shows what was seen where it failed.
    #[must_use]
    pub fn joined(name: &str, runs: &[Report]) -> Self {
        let mut joined = Self::new(name);
        let mut values: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
        for run in runs {
            for (figure, value) in &run.figures {
                values.entry(figure).or_default().push(*value);
            }
        }
        for (figure, mut of_runs) in values {
            of_runs.sort_by(f64::total_cmp);
            joined.figure(figure, of_runs[of_runs.len() / 2]);
            joined.figure(&format!("{figure}_worst"), of_runs[of_runs.len() - 1]);
        }
        joined.figure("runs", count(runs.len()));
        joined.figure("runs_passed", count(runs.iter().filter(|run| run.passed).count()));
        for (index, run) in runs.iter().enumerate() {
            for check in &run.checks {
                match joined.checks.iter_mut().find(|known| known.name == check.name) {
                    None => joined.checks.push(check.clone()),
                    Some(known) if known.passed && !check.passed => {
                        known.passed = false;
                        known.seen = format!("run {}: {}", index + 1, check.seen);
                    }
                    Some(_) => {}
                }
            }
        }
        joined.check("every run passed", runs.iter().all(|run| run.passed), format!("{} runs", runs.len()));
        joined
    }

    /// Writes the JSON object.
    ///
    /// # Errors
    /// Where the file cannot be written.
    pub fn write(&self, path: &Path) -> std::io::Result<()> {
        let mut text = serde_json::to_string_pretty(self)?;
        text.push('\n');
        std::fs::write(path, text)
    }
}

/// A count as a figure; counts here stay far below 2^53.
#[must_use]
#[allow(clippy::cast_precision_loss)]
pub fn count<T: TryInto<u64>>(value: T) -> f64 {
    value.try_into().unwrap_or(u64::MAX) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_without_checks_has_not_passed() {
        assert!(!Report::new("empty").passed());
    }

    #[test]
    fn one_failed_check_fails_the_report() {
        let mut report = Report::new("r");
        report.check("a", true, 1);
        assert!(report.passed());
        report.check("b", false, 2);
        report.check("c", true, 3);
        assert!(!report.passed());
    }

    #[test]
    fn a_figure_that_is_no_number_fails_the_report() {
        let mut report = Report::new("r");
        report.check("a", true, 1);
        report.figure("ratio", f64::NAN);
        assert!(!report.passed());
    }

    #[test]
    fn repeated_runs_are_joined_without_hiding_the_one_that_failed() {
        let runs: Vec<Report> = [(1.0, true), (9.0, false), (2.0, true)]
            .into_iter()
            .map(|(value, passed)| {
                let mut run = Report::new("r");
                run.figure("outage_ms", value);
                run.check("traffic resumes", passed, value);
                run
            })
            .collect();
        let joined = Report::joined("r", &runs);
        assert!(!joined.passed());
        assert_eq!(joined.figures()["outage_ms"], 2.0);
        assert_eq!(joined.figures()["outage_ms_worst"], 9.0);
        assert_eq!(joined.figures()["runs_passed"], 2.0);
        assert_eq!(joined.checks()[0].seen, "run 2: 9");
    }

    #[test]
    fn the_json_object_has_the_promised_members() {
        let mut report = Report::new("r");
        report.figure("a_ms", 1.5);
        report.check("c", true, "seen");
        let json: serde_json::Value = serde_json::to_value(&report).expect("serializable");
        assert_eq!(json["name"], "r");
        assert_eq!(json["passed"], true);
        assert_eq!(json["figures"]["a_ms"], 1.5);
        assert_eq!(json["checks"][0]["seen"], "seen");
        assert!(json["machine"]["cores"].as_u64().is_some_and(|cores| cores > 0));
    }
}

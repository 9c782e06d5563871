//! Every test of the project, one step after another, with one count at the end.

use crate::report::EXPECTED;
use crate::run::line;
use crate::scenarios::{self, Scenario};
use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

/// What to run.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Root folder of the workspace.
    pub root: PathBuf,
    /// Folder of logs and captures.
    pub folder: PathBuf,
    /// The counts that the proofs name.
    pub full: bool,
    /// Steps whose name contains it; where no step does, the tests whose name contains it.
    pub filter: Option<String>,
}

/// One step.
#[derive(Clone, Debug)]
struct Step {
    name: String,
    work: Work,
}

#[derive(Clone, Debug)]
enum Work {
    /// A command that passes or fails.
    Command(Vec<String>),
    /// `cargo test` with arguments; every test counts.
    Tests(Vec<String>),
    /// A scenario; it counts as one. As with benchmarks, how fast something was is shown and fails nothing.
    Scenario(&'static Scenario),
    /// Every benchmark that a script lists, in its short form. It must run and report; how fast it was is shown
    /// and fails nothing, since other work may share the machine.
    Benches(PathBuf),
}

/// Passed and failed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// Passed.
    pub passed: u64,
    /// Failed.
    pub failed: u64,
}

impl Count {
    fn of(passed: bool) -> Self {
        Self { passed: u64::from(passed), failed: u64::from(!passed) }
    }

    fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
    }
}

/// Runs the steps and prints `N passed, N failed` as the last line.
///
/// # Errors
/// Where no step and no test could match the filter.
pub fn run(settings: &Settings) -> Result<Count> {
    let chosen = choose(steps(settings), settings.filter.as_deref());
    let mut total = Count::default();
    let mut table = Vec::new();
    let number = chosen.len();
    for (index, step) in chosen.into_iter().enumerate() {
        line(format_args!("[{}/{number}] {}", index + 1, step.name));
        let start = Instant::now();
        let count = match perform(&step, settings) {
            Ok(count) if count == Count::default() => {
                line("      ran nothing");
                // With a filter a step may hold no test of that name; without one that is a mistake.
                Count { passed: 0, failed: u64::from(settings.filter.is_none()) }
            }
            Ok(count) => count,
            Err(error) => {
                line(format_args!("      {error:#}"));
                Count::of(false)
            }
        };
        let seconds = start.elapsed().as_secs_f64();
        line(format_args!(
            "      {}: {} passed, {} failed, {seconds:.1} s",
            step.name, count.passed, count.failed
        ));
        total.add(count);
        table.push((step.name, count, seconds));
    }
    line("");
    for (name, count, seconds) in &table {
        let verdict = if count.failed == 0 { "ok" } else { "FAILED" };
        line(format_args!(
            "  {name:<28} {verdict:<7} {:>5} passed {:>3} failed {seconds:>8.1} s",
            count.passed, count.failed
        ));
    }
    if total == Count::default() {
        bail!("nothing matches the filter {:?}", settings.filter.as_deref().unwrap_or_default());
    }
    line(format_args!("{} passed, {} failed", total.passed, total.failed));
    Ok(total)
}

fn steps(settings: &Settings) -> Vec<Step> {
    let command = |name: &str, words: &[&str]| Step {
        name: name.to_owned(),
        work: Work::Command(words.iter().map(|&word| word.to_owned()).collect()),
    };
    let fuzz = settings.root.join("testbed/fuzz/run");
    let mut steps = vec![
        command("fmt", &["cargo", "fmt", "--all", "--check"]),
        command("clippy", &["cargo", "clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]),
        command("deny", &["cargo", "deny", "check", "licenses", "bans", "sources"]),
        Step { name: "tests".to_owned(), work: Work::Tests(vec!["--workspace".to_owned()]) },
        command("fuzz", &[&fuzz.to_string_lossy(), if settings.full { "60" } else { "5" }]),
    ];
    for scenario in scenarios::ALL {
        steps.push(Step { name: format!("scenario {}", scenario.name), work: Work::Scenario(scenario) });
    }
    steps.push(Step { name: "benches".to_owned(), work: Work::Benches(settings.root.join("benches/run")) });
    steps
}

fn choose(steps: Vec<Step>, filter: Option<&str>) -> Vec<Step> {
    let Some(filter) = filter else { return steps };
    let (matching, others): (Vec<Step>, Vec<Step>) =
        steps.into_iter().partition(|step| step.name.contains(filter));
    if !matching.is_empty() {
        return matching;
    }
    others
        .into_iter()
        .filter_map(|step| match step.work {
            Work::Tests(mut arguments) => {
                arguments.extend(["--".to_owned(), filter.to_owned()]);
                Some(Step { name: step.name, work: Work::Tests(arguments) })
            }
            _ => None,
        })
        .collect()
}

fn perform(step: &Step, settings: &Settings) -> Result<Count> {
    match &step.work {
        Work::Command(words) => {
            let (passed, output) = shell(words, settings, &step.name)?;
            if !passed {
                tail(&output, 60);
            }
            Ok(Count::of(passed))
        }
        Work::Tests(arguments) => {
            let mut words: Vec<String> = ["cargo", "test", "--no-fail-fast"].map(str::to_owned).to_vec();
            words.extend(arguments.iter().cloned());
            let (passed, output) = shell(&words, settings, &step.name)?;
            let mut count = count_tests(&output);
            if !passed && count.failed == 0 {
                // It did not even build, or a test program died without a count.
                count.failed = 1;
            }
            if count.failed > 0 {
                failures(&output);
            }
            Ok(count)
        }
        Work::Scenario(scenario) => {
            let folder = settings.folder.join(scenario.name);
            std::fs::create_dir_all(&folder)?;
            let report = scenario.run(&folder, settings.full);
            report.write(&settings.folder.join(format!("{}.json", scenario.name)))?;
            let failed: Vec<_> = report.checks().iter().filter(|check| !check.passed).collect();
            for check in &failed {
                line(format_args!("      | not met: {}: {}", check.name, check.seen));
            }
            let passed =
                !report.checks().is_empty() && failed.iter().all(|check| check.name.starts_with(EXPECTED));
            if passed {
                // Captures of a passed scenario are of no more use and take much room.
                std::fs::remove_dir_all(&folder)?;
            }
            Ok(Count::of(passed))
        }
        Work::Benches(script) => benches(script, settings),
    }
}

fn benches(script: &Path, settings: &Settings) -> Result<Count> {
    let list = Command::new(script)
        .arg("--list")
        .output()
        .with_context(|| format!("starting {}", script.display()))?;
    let mut count = Count::default();
    for name in
        String::from_utf8_lossy(&list.stdout).lines().filter_map(|line| line.split_whitespace().next())
    {
        let mut words = vec![script.to_string_lossy().into_owned(), name.to_owned()];
        if settings.full {
            words.push("--full".to_owned());
        }
        let json = settings.folder.join(format!("bench-{name}.json"));
        words.extend(["--json".to_owned(), json.to_string_lossy().into_owned()]);
        let start = Instant::now();
        let (_, output) = shell(&words, settings, &format!("bench-{name}"))?;
        let failed = failed_checks(&json);
        let passed =
            failed.as_ref().is_ok_and(|checks| checks.iter().all(|check| check.starts_with(EXPECTED)));
        line(format_args!(
            "      {name}: {} {:.1} s",
            if passed { "ok" } else { "FAILED" },
            start.elapsed().as_secs_f64()
        ));
        match failed {
            Ok(checks) => checks.iter().for_each(|check| line(format_args!("      | not met: {check}"))),
            Err(error) => line(format_args!("      | no report: {error:#}")),
        }
        if !passed {
            tail(&output, 60);
        }
        count.add(Count::of(passed));
    }
    Ok(count)
}

/// The checks of a report that failed, each with what was seen. A report without figures is none.
fn failed_checks(json: &Path) -> Result<Vec<String>> {
    let text = std::fs::read_to_string(json).with_context(|| format!("reading {}", json.display()))?;
    let report: serde_json::Value = serde_json::from_str(&text)?;
    let figures = report["figures"].as_object().map_or(0, serde_json::Map::len);
    let checks = report["checks"].as_array().context("a report without checks")?;
    anyhow::ensure!(figures > 0, "a report without figures");
    let failed = checks.iter().filter(|check| check["passed"] != true);
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    Ok(failed.map(|check| format!("{}: {}", text(&check["name"]), text(&check["seen"]))).collect())
}

/// Runs a command; gives whether it passed and all that it printed, which is also kept in `NAME.log`.
fn shell(words: &[String], settings: &Settings, name: &str) -> Result<(bool, String)> {
    let (program, arguments) = words.split_first().context("empty command")?;
    let output = Command::new(program)
        .args(arguments)
        .current_dir(&settings.root)
        .env("CARGO_TERM_COLOR", "never")
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("starting {program}"))?;
    let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.push_str(&String::from_utf8_lossy(&output.stderr));
    std::fs::write(settings.folder.join(format!("{name}.log")), &text)?;
    Ok((output.status.success(), text))
}

/// What failed tests said: everything between `failures:` and the result of each test program. Where
/// there is nothing of that kind, a program did not build or died: the end of the output.
fn failures(output: &str) {
    let mut within = false;
    let mut shown = 0;
    for text in output.lines() {
        within = (within || text.trim() == "failures:") && !text.trim().starts_with("test result: ");
        if within {
            line(format_args!("      | {text}"));
            shown += 1;
        }
    }
    if shown == 0 {
        tail(output, 60);
    }
}

fn tail(output: &str, lines: usize) {
    let all: Vec<&str> = output.lines().collect();
    for text in &all[all.len().saturating_sub(lines)..] {
        line(format_args!("      | {text}"));
    }
}

/// Adds up the results that test programs print. An ignored test is one that does not hold anything: it
/// counts as failed.
fn count_tests(output: &str) -> Count {
    let mut count = Count::default();
    for result in output.lines().filter_map(|line| line.trim().strip_prefix("test result: ")) {
        let number = |word: &str| -> u64 {
            result
                .split(['.', ';'])
                .find_map(|part| part.trim().strip_suffix(word)?.trim().parse().ok())
                .unwrap_or(0)
        };
        count.passed += number("passed");
        count.failed += number("failed") + number("ignored");
    }
    count
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(filter: Option<&str>) -> Settings {
        Settings {
            root: PathBuf::from("/nowhere"),
            folder: PathBuf::from("/nowhere"),
            full: false,
            filter: filter.map(str::to_owned),
        }
    }

    #[test]
    fn results_of_all_test_programs_are_added_up_and_ignored_tests_fail() {
        let output = "test result: ok. 12 passed; 0 failed; 1 ignored; 0 measured; 3 filtered out; finished in 0.10s\n\
                      test a ... ok\n\
                      test result: FAILED. 3 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out\n";
        assert_eq!(count_tests(output), Count { passed: 15, failed: 3 });
        assert_eq!(count_tests("error: could not compile"), Count::default());
    }

    #[test]
    fn a_filter_chooses_steps_by_name_and_otherwise_tests() {
        let names = |filter| -> Vec<String> {
            choose(steps(&settings(filter)), filter).into_iter().map(|step| step.name).collect()
        };
        assert_eq!(names(Some("scenario mtu")), ["scenario mtu"]);
        assert_eq!(names(Some("window_wraps")), ["tests"]);
        assert_eq!(names(None).len(), steps(&settings(None)).len());
    }

    #[test]
    fn every_scenario_is_a_step() {
        let steps = steps(&settings(None));
        for scenario in scenarios::ALL {
            assert!(steps.iter().any(|step| step.name == format!("scenario {}", scenario.name)));
        }
    }

    #[test]
    fn a_command_that_is_not_there_is_a_failure_and_not_skipped() {
        let step = Step { name: "x".to_owned(), work: Work::Command(vec!["/nowhere/at/all".to_owned()]) };
        let folder = tempfile::tempdir().expect("a folder");
        let settings =
            Settings { root: folder.path().to_owned(), folder: folder.path().to_owned(), ..settings(None) };
        assert!(perform(&step, &settings).is_err());
    }
}

//! One run of a scenario: its report, its folder, and what it tells a reader.

use crate::report::Report;
use std::fmt::Display;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// One run.
#[derive(Debug)]
pub struct Run {
    /// Long form, with the counts that the proofs name.
    pub full: bool,
    /// What was found so far.
    pub report: Report,
    folder: PathBuf,
    start: Instant,
}

/// Writes a line to standard output at once.
pub fn line(text: impl Display) {
    let mut out = std::io::stdout().lock();
    // A reader who closed the pipe wants no more lines.
    let _ = writeln!(out, "{text}");
    let _ = out.flush();
}

impl Run {
    /// A run of the scenario `name` with its files in `folder`.
    #[must_use]
    pub fn new(name: &str, folder: &Path, full: bool) -> Self {
        Self { full, report: Report::new(name), folder: folder.to_owned(), start: Instant::now() }
    }

    /// Folder of this run's files.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Tells the reader what is going on.
    pub fn say(&self, text: impl Display) {
        line(format_args!("  {:6.1} s  {text}", self.start.elapsed().as_secs_f64()));
    }

    /// Notes a check and tells it.
    pub fn check(&mut self, name: &str, passed: bool, seen: impl Display) -> bool {
        let seen = seen.to_string();
        self.say(format_args!("{} {name}: {seen}", if passed { "  ok  " } else { "FAILED" }));
        self.report.check(name, passed, seen)
    }

    /// Notes a check of how fast something was ([`Report::expect`]) and tells it.
    pub fn expect(&mut self, name: &str, passed: bool, seen: impl Display) -> bool {
        let seen = seen.to_string();
        self.say(format_args!("{} expected: {name}: {seen}", if passed { "  ok  " } else { "FAILED" }));
        self.report.expect(name, passed, seen)
    }

    /// Notes a figure and tells it.
    pub fn figure(&mut self, name: &str, value: f64) {
        self.say(format_args!("       {name} = {value:.3}"));
        self.report.figure(name, value);
    }

    /// Prints the end of every log, to be read after a failure.
    pub fn print_logs(&self) {
        let mut logs = Vec::new();
        collect(&self.folder, &mut logs);
        logs.sort();
        for log in logs {
            let text = String::from_utf8_lossy(&std::fs::read(&log).unwrap_or_default()).into_owned();
            let lines: Vec<&str> = text.lines().collect();
            let name = log.file_name().unwrap_or_default().to_string_lossy();
            if lines.is_empty() || name.starts_with("iperf3") || name.starts_with("http") {
                continue;
            }
            let keep = if name.starts_with("dataplane") || name.starts_with("control") { 40 } else { 4 };
            line(format_args!("  --- {} ({} lines)", log.display(), lines.len()));
            for text in &lines[lines.len().saturating_sub(keep)..] {
                line(format_args!("      {}", text.chars().take(300).collect::<String>()));
            }
        }
    }
}

fn collect(folder: &Path, logs: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            collect(&path, logs);
        } else if path.extension().is_some_and(|extension| extension == "log") {
            logs.push(path);
        }
    }
}

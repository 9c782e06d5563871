//! The judges: scripts that share no code with the project.

use crate::capture::Recorded;
use crate::gateway::Gateway;
use crate::lab::run as run_command;
use crate::report::count;
use crate::run::Run;
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Debian's interpreter: its packages (python3-scapy) are what the judges import.
pub const PYTHON: &str = "/usr/bin/python3";

/// What a capture must and may hold.
#[derive(Clone, Debug)]
pub struct Expectation {
    /// Pairs of prefixes between which nothing may pass in clear.
    pub protected: Vec<(String, String)>,
    /// MAC addresses of attackers, whose frames say nothing of Tandem.
    pub ignore: Vec<String>,
    /// ESP packets at least.
    pub at_least_esp: u64,
    /// ESP packets that scapy opens, at random.
    pub sample: u64,
    /// MAC addresses of the two nodes of a pair on that segment; none where gateways stand alone.
    pub nodes: Vec<String>,
    /// Reigns that must be seen, where there are nodes: one more than takeovers.
    pub at_least_reigns: usize,
    /// Has a gateway lost its memory meanwhile, so that sequence numbers (never IVs) begin anew?
    pub sequence_may_repeat: bool,
}

impl Expectation {
    /// Between the two sites.
    #[must_use]
    pub fn of_sites(run: &Run, at_least_esp: u64) -> Self {
        let (a, b) = crate::sites::protected();
        Self {
            protected: vec![(a.to_string(), b.to_string())],
            ignore: Vec::new(),
            nodes: Vec::new(),
            at_least_reigns: 1,
            at_least_esp,
            sample: if run.full { 2000 } else { 300 },
            sequence_may_repeat: false,
        }
    }
}

/// Where the scripts are: beside the sources, or in `TANDEM_JUDGES`.
#[must_use]
pub fn script(name: &str) -> PathBuf {
    let folder = std::env::var_os("TANDEM_JUDGES")
        .map_or_else(|| PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/judges")), PathBuf::from);
    folder.join(name)
}

/// Runs a script and reads the JSON object that it prints.
///
/// # Errors
/// Where it fails or prints no JSON.
pub fn ask(name: &str, arguments: &[&str]) -> Result<Value> {
    let output = run_command(Command::new(PYTHON).arg(script(name)).args(arguments))?;
    serde_json::from_str(&output).with_context(|| format!("{name} printed no JSON: {output}"))
}

/// Writes every SA of these gateways to a file in the folder, for the judges, and gives its path.
///
/// # Errors
/// Where it cannot be written.
pub fn write_keys(folder: &Path, gateways: &[&Gateway]) -> Result<PathBuf> {
    let mut keys = Vec::new();
    for map in gateways.iter().flat_map(|gateway| &gateway.settings.maps) {
        for (sa, source, destination) in
            [(&map.outbound, map.local, map.peer), (&map.inbound, map.peer, map.local)]
        {
            keys.push(json!({
                "spi": sa.spi, "source": source, "destination": destination,
                "transform": sa.transform, "key": sa.key_hex(),
            }));
        }
    }
    let path = folder.join("keys.json");
    std::fs::write(&path, serde_json::to_string(&keys)?)?;
    Ok(path)
}

/// Has a capture of an outside segment judged: no (SPI, IV) twice, no (SPI, sequence) twice, nothing
/// protected in clear, no frame lost by the capture itself, and scapy opens what it is given.
///
/// # Errors
/// Where the judge cannot be run.
pub fn check_capture(
    run: &mut Run,
    capture: &Recorded,
    keys: &Path,
    expectation: &Expectation,
) -> Result<()> {
    let name = capture.file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let sample = expectation.sample.to_string();
    let protected: Vec<String> = expectation.protected.iter().map(|(a, b)| format!("{a},{b}")).collect();
    let file = capture.file.to_str().context("a path that is no UTF-8")?;
    let keys = keys.to_str().context("a path that is no UTF-8")?;
    let mut arguments = vec![file, "--keys", keys, "--sample", &sample];
    for pair in &protected {
        arguments.extend(["--protected", pair]);
    }
    for mac in &expectation.ignore {
        arguments.extend(["--ignore-mac", mac]);
    }
    for mac in &expectation.nodes {
        arguments.extend(["--node", mac]);
    }
    let verdict = ask("capture_check.py", &arguments)?;
    let number = |key: &str| {
        verdict[key].as_u64().with_context(|| format!("the judge says nothing of {key}: {verdict}"))
    };
    run.check(
        &format!("{name}: the capture lost nothing"),
        capture.dropped == 0,
        format!("{} dropped", capture.dropped),
    );
    let esp = number("esp")?;
    run.check(
        &format!("{name}: the capture holds the traffic"),
        esp >= expectation.at_least_esp && number("cut")? == 0,
        format!("{esp} ESP packets of {} frames, {} cut", number("frames")?, number("cut")?),
    );
    run.report.figure(&format!("{}_esp_packets", name.replace('-', "_")), count(esp));
    for (key, what) in [
        ("repeated_iv", "no (SPI, IV) twice"),
        ("repeated_sequence", "no (SPI, sequence) twice"),
        ("clear", "nothing protected in clear"),
        ("unknown_spi", "no ESP of an unknown SA"),
    ] {
        let found = number(key)?;
        if key == "repeated_sequence" && expectation.sequence_may_repeat {
            continue;
        }
        let example = verdict["examples"][key].as_str().unwrap_or_default();
        run.check(&format!("{name}: {what}"), found == 0, format!("{found} found {example}"));
    }
    if !expectation.nodes.is_empty() {
        check_reigns(run, &name, &verdict, expectation)?;
    }
    let (opened, asked) = (number("opened")?, number("asked")?);
    ensure!(asked <= expectation.sample, "the judge opened more than it was asked to");
    run.check(
        &format!("{name}: scapy opens a random sample"),
        opened == asked && (asked > 0 || expectation.at_least_esp == 0),
        format!("{opened} of {asked}"),
    );
    Ok(())
}

/// What two nodes sent, term by term.
fn check_reigns(run: &mut Run, name: &str, verdict: &Value, expectation: &Expectation) -> Result<()> {
    let reigns = verdict["reigns"].as_array().context("the judge lists no reigns")?;
    let terms: BTreeSet<u64> = reigns.iter().filter_map(|reign| reign["term"].as_u64()).collect();
    let lines: Vec<String> = reigns
        .iter()
        .map(|reign| {
            let number = |key: &str| reign[key].as_u64().unwrap_or(0);
            format!("term {}: {} to {}", number("term"), number("lowest"), number("highest"))
        })
        .collect();
    let shown = if lines.len() > 6 {
        format!("{} ... {}", lines[..3].join(", "), lines[lines.len() - 3..].join(", "))
    } else {
        lines.join(", ")
    };
    run.check(
        &format!("{name}: every reign is seen"),
        terms.len() >= expectation.at_least_reigns,
        format!("{} of at least {}; {shown}", terms.len(), expectation.at_least_reigns),
    );
    for (key, what) in [
        ("shared_term", "no term of both nodes"),
        ("not_above", "every number of a later reign lies above every number of an earlier one"),
    ] {
        let found = verdict[key].as_u64().with_context(|| format!("the judge says nothing of {key}"))?;
        let example = verdict["examples"][key].as_str().unwrap_or_default();
        run.check(&format!("{name}: {what}"), found == 0, format!("{found} found {example}"));
    }
    Ok(())
}

/// Has a capture of an inside segment judged: no packet between these prefixes was delivered twice.
///
/// # Errors
/// Where the judge cannot be run.
pub fn check_inside(
    run: &mut Run,
    capture: &Recorded,
    (from, to): (&str, &str),
    at_least: u64,
) -> Result<()> {
    let name = capture.file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let file = capture.file.to_str().context("a path that is no UTF-8")?;
    let verdict = ask("inside_check.py", &[file, "--from", from, "--to", to])?;
    let number = |key: &str| {
        verdict[key].as_u64().with_context(|| format!("the judge says nothing of {key}: {verdict}"))
    };
    let (packets, repeated) = (number("packets")?, number("repeated")?);
    run.check(
        &format!("{name}: the capture lost nothing and holds the traffic"),
        capture.dropped == 0 && number("cut")? == 0 && packets >= at_least,
        format!("{packets} packets from {from}, {} dropped", capture.dropped),
    );
    run.check(
        &format!("{name}: no packet was delivered twice"),
        repeated == 0,
        format!("{repeated} of {packets} {}", verdict["example"].as_str().unwrap_or_default()),
    );
    Ok(())
}

//! Rules that are broken on purpose, to see that the simulation notices.

use super::runner::{Seeds, run_all};
use crate::report::Report;
use crate::run::line;
use anyhow::{Result, bail};
use tandem_lease::mutant::Mutant;

/// Within so many seeds each must be found.
pub const WITHIN: u64 = 20_000;
/// Seeds run between two looks at what was found, at first.
const PART: u64 = 100;

/// Breaks one rule, by its name.
///
/// # Errors
/// No rule of that name, or a build in which no rule can be broken.
pub fn choose(name: &str) -> Result<()> {
    let Some(mutant) = Mutant::ALL.iter().find(|mutant| mutant.name() == name) else {
        let names: Vec<&str> = Mutant::ALL.iter().map(|mutant| mutant.name()).collect();
        bail!("no mutant `{name}`; there are: {}", names.join(", "));
    };
    set(Some(*mutant))
}

#[cfg(feature = "mutants")]
fn set(mutant: Option<Mutant>) -> Result<()> {
    tandem_lease::mutant::set(mutant);
    Ok(())
}

#[cfg(not(feature = "mutants"))]
fn set(_: Option<Mutant>) -> Result<()> {
    bail!("this build breaks no rule: build with `--features mutants`, into a target directory of its own")
}

/// Hunts each mutant until a seed finds it.
///
/// # Errors
/// A build in which no rule can be broken.
pub fn hunt(report: &mut Report) -> Result<()> {
    for mutant in Mutant::ALL {
        set(Some(*mutant))?;
        let mut found = None;
        let mut from = 0;
        while found.is_none() && from < WITHIN {
            let sums = run_all(Seeds { from, number: PART.min(WITHIN - from), stop: true });
            found = sums.failed.into_iter().next();
            from += PART;
        }
        set(None)?;
        let seen = match &found {
            Some((seed, why)) => format!("seed {seed}: {why}"),
            None => format!("not found within {WITHIN} seeds"),
        };
        line(format_args!("  {:<28} {seen}", mutant.name()));
        report.check(&format!("found: {} ({})", mutant.name(), mutant.text()), found.is_some(), seen);
    }
    Ok(())
}

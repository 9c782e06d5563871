//! The end-to-end scenarios, by name.

mod fail_closed;
mod hostile;
mod judges;
mod kill_control;
mod link_flap;
mod many_sas;
mod mtu;
mod neighbour_moves;
mod route_moves;
mod site_to_site;

use crate::report::Report;
use crate::run::{Run, line};
use anyhow::Result;
use std::path::Path;

/// A scenario.
#[derive(Clone, Copy, Debug)]
pub struct Scenario {
    /// Name on the command line.
    pub name: &'static str,
    /// What it shows, in one line.
    pub about: &'static str,
    act: fn(&mut Run) -> Result<()>,
}

/// Every scenario.
pub const ALL: &[Scenario] = &[
    Scenario {
        name: "site-to-site",
        about: "ping, TCP, UDP, a download and traceroute between two sites, both directions",
        act: site_to_site::act,
    },
    Scenario {
        name: "kill-control",
        about: "kill -9 of the control process costs no packet; it comes back and touches no SA",
        act: kill_control::act,
    },
    Scenario {
        name: "mtu",
        about: "1500 inside and outside: fragments, fragmentation-needed with the right MTU, MSS clamp",
        act: mtu::act,
    },
    Scenario {
        name: "neighbour-moves",
        about: "a host's and the next hop's MAC change under traffic",
        act: neighbour_moves::act,
    },
    Scenario {
        name: "route-moves",
        about: "the route to the peer moves to another router and back, goes away and comes back",
        act: route_moves::act,
    },
    Scenario {
        name: "link-flap",
        about: "each link of a gateway loses its carrier or is shut and comes back",
        act: link_flap::act,
    },
    Scenario {
        name: "hostile",
        about: "wrong, replayed, malformed and forged packets at speed, each counted under its own name",
        act: hostile::act,
    },
    Scenario { name: "many-sas", about: "1,000 tunnels, traffic through all of them", act: many_sas::act },
    Scenario {
        name: "judges",
        about: "scapy opens and seals, tshark decodes: Tandem's ESP is everybody's ESP",
        act: judges::act,
    },
    Scenario {
        name: "fail-closed",
        about: "kill -9 of the data plane under traffic: nothing in clear, no nonce twice, traffic resumes",
        act: fail_closed::act,
    },
];

impl Scenario {
    /// The scenario of a name.
    #[must_use]
    pub fn find(name: &str) -> Option<&'static Self> {
        ALL.iter().find(|scenario| scenario.name == name)
    }

    /// Runs it once, with its files in `folder`. An error within is a failed check; then the ends of all
    /// logs are printed.
    #[must_use]
    pub fn run(&self, folder: &Path, full: bool) -> Report {
        line(format_args!("{}: {}", self.name, self.about));
        let mut run = Run::new(self.name, folder, full);
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| (self.act)(&mut run)));
        match outcome {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                run.check("the scenario ran to its end", false, format!("{error:#}"));
            }
            Err(_) => {
                run.check("the scenario ran to its end", false, "panic");
            }
        }
        if !run.report.passed() {
            run.print_logs();
        }
        run.report
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_scenario_is_found_by_its_own_name() {
        let names: HashSet<&str> = ALL.iter().map(|scenario| scenario.name).collect();
        assert_eq!(names.len(), ALL.len());
        for scenario in ALL {
            assert_eq!(Scenario::find(scenario.name).map(|found| found.about), Some(scenario.about));
        }
    }

    #[test]
    fn a_scenario_that_ends_with_an_error_has_not_passed() {
        let folder = tempfile::tempdir().expect("a folder");
        for act in [
            |_: &mut Run| anyhow::bail!("broken"),
            |run: &mut Run| {
                run.check("all is well", true, "so far");
                panic!("broken")
            },
        ] as [fn(&mut Run) -> Result<()>; 2]
        {
            assert!(!Scenario { name: "x", about: "x", act }.run(folder.path(), false).passed());
        }
    }
}

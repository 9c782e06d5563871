//! The end-to-end scenarios, by name.

mod both_restart;
mod fail_closed;
mod hostile;
mod isolate_node;
mod judges;
mod kill_control;
mod kill_dataplane;
mod kill_node;
mod kill_standby;
mod link_flap;
mod many_sas;
mod mtu;
mod neighbour_moves;
mod one_flow;
mod overload;
mod ping_pong;
mod route_moves;
mod simulate;
mod site_to_site;
mod standby_restart;
mod stop_and_continue;
mod sync_cut;

pub use kill_node::kills_of;

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
        about: "kill -9 of the control process, alone and in a pair: no packet lost, no takeover, no SA touched",
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
    Scenario {
        name: "kill-node",
        about: "the active node loses its power; the standby goes on with the same SAs",
        act: kill_node::act,
    },
    Scenario {
        name: "kill-dataplane",
        about: "kill -9 of the active data plane: a takeover, and the node returns as standby",
        act: kill_dataplane::act,
    },
    Scenario {
        name: "kill-standby",
        about: "the standby loses its power: a pause of D_a at most, nothing lost, no takeover",
        act: kill_standby::act,
    },
    Scenario {
        name: "isolate-node",
        about: "all cables of a node are pulled: only the one that sees its segments is active",
        act: isolate_node::act,
    },
    Scenario {
        name: "sync-cut",
        about: "the sync link dies: no takeover, nothing lost, still redundant",
        act: sync_cut::act,
    },
    Scenario { name: "ping-pong", about: "one takeover after the other under load", act: ping_pong::act },
    Scenario {
        name: "standby-restart",
        about: "the standby is restarted and takes over freshly afterwards",
        act: standby_restart::act,
    },
    Scenario {
        name: "both-restart",
        about: "both nodes lose their power: static SAs go on above every number used",
        act: both_restart::act,
    },
    Scenario {
        name: "stop-and-continue",
        about: "the active node stands still for two seconds and wakes up as a zombie",
        act: stop_and_continue::act,
    },
    Scenario {
        name: "overload",
        about: "a flood of small packets and busy CPUs on both nodes: 0 takeovers",
        act: overload::act,
    },
    Scenario {
        name: "one-flow",
        about: "one closed-loop TCP flow alone on its SA goes on within a second of a kill",
        act: one_flow::act,
    },
    Scenario {
        name: "simulate",
        about: "two simulated nodes, every fault from a seed: the guarantees hold, the pair heals and takes over",
        act: simulate::seeds,
    },
    Scenario {
        name: "simulate-mutants",
        about: "each rule broken on purpose: the simulation finds every one",
        act: simulate::mutants,
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

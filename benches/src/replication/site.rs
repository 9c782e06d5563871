//! A pair with many SAs, and whether it stays redundant while it is measured.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ipnet::Ipv4Net;
use tandem_api::pair::LagHistogram;
use tandem_testbed::gateway::{CryptoMap, StaticSa};
use tandem_testbed::network::{HOST_A, HOST_B, OUTSIDE_A, OUTSIDE_B, protected};
use tandem_testbed::pair::{PairSites, Pairing, REDUNDANT};
use tandem_testbed::run::Run;
use tandem_testbed::traffic::echo::{Echo, ask};

use crate::replication::cores::Cores;
use crate::replication::load::{self, Passed};

/// UDP port of the echo on host B.
const ECHO: u16 = 7000;
/// Times that a host is asked for an answer, at most.
const ASKED_MAX: usize = 3;
/// How long a node may take to go alone.
const ALONE: Duration = Duration::from_secs(5);

/// The sites with a pair and so many SAs each way.
pub struct Site {
    sites: PairSites,
    /// A host behind each SA.
    remotes: Vec<Ipv4Addr>,
    _echo: Echo,
}

/// Traffic, and how the pair was meanwhile.
#[derive(Clone, Debug)]
pub struct Window {
    /// What passed.
    pub passed: Passed,
    /// What was not as it has to be: the pair was redundant before and after, and never alone between.
    pub broken: Option<String>,
    /// The share of both cores that was free before and after, the worst one.
    pub quiet_share: f64,
    /// Frames that the three gateways dropped meanwhile: where, why, how many.
    pub dropped: Vec<(String, u64)>,
}

impl Site {
    /// Lays everything out with `sas` SAs each way, and waits until the pair is redundant and each SA has carried
    /// packets both ways.
    ///
    /// # Errors
    /// Where that does not happen.
    pub fn up(run: &mut Run, sas: u16) -> Result<Self> {
        // The map of the sites themselves is the first one.
        let maps = (1..sas).map(tunnel).collect::<Result<Vec<_>>>()?;
        let sites = PairSites::up_with(run, false, &maps)?;
        let remotes: Vec<Ipv4Addr> =
            std::iter::once(HOST_B).chain((1..sas).map(|map| host(map, 9))).collect();
        sites.net.host_b.run("ip route add local 172.16.0.0/12 dev lo")?;
        sites.b.namespace.run("ip route add 172.16.0.0/12 via 10.2.0.10")?;
        let echo = Echo::start(&sites.net.host_b, ECHO)?;
        // The first packets may be lost while neighbours are resolved.
        let mut silent = remotes.clone();
        for _ in 0..ASKED_MAX {
            let answers = ask(&sites.net.host_a, HOST_A, ECHO, &silent, 1, 2000)?;
            silent.retain(|remote| !answers.contains_key(remote));
            if silent.is_empty() {
                break;
            }
        }
        run.check(
            &format!("each of {sas} SAs carries packets both ways"),
            silent.is_empty(),
            format!("{} of {sas} hosts behind them do not answer", silent.len()),
        );
        Ok(Self { sites, remotes, _echo: echo })
    }

    /// Sends over all SAs both ways while the pair is redundant.
    ///
    /// # Errors
    /// Where it is not redundant at the beginning.
    pub fn strict(&self, cores: &mut Cores, per_second: f64, time: Duration) -> Result<Window> {
        let before = self.sites.wait_redundant(REDUNDANT)?;
        let alone = self.times_alone(before)?;
        let quiet = cores.probe();
        let dropped = self.dropped()?;
        let passed = load::run(&self.sites.net, &self.remotes, per_second, time)?;
        let after = self.sites.pairing();
        let broken = match after {
            Ok(after) if after != before => Some(format!("{before:?} became {after:?}")),
            Ok(_) if self.times_alone(before)? != alone => Some(String::from("it was alone between")),
            Ok(_) => None,
            Err(error) => Some(format!("{error:#}")),
        };
        let mut meanwhile = self.dropped()?;
        for (what, count) in &mut meanwhile {
            *count -= dropped.get(what).copied().unwrap_or(0).min(*count);
        }
        let dropped = meanwhile.into_iter().filter(|&(_, count)| count > 0).collect();
        Ok(Window { passed, broken, quiet_share: quiet.min(cores.probe()), dropped })
    }

    /// Frames that each gateway's workers, program and sockets have dropped so far.
    fn dropped(&self) -> Result<BTreeMap<String, u64>> {
        let mut all = BTreeMap::new();
        for gateway in self.sites.nodes.iter().chain([&self.sites.b]) {
            let counters = gateway.counters()?;
            for (reason, count) in counters.drops.iter().chain(&counters.socket) {
                all.insert(format!("{} {reason}", gateway.settings.name), *count);
            }
        }
        Ok(all)
    }

    /// Sends over all SAs both ways, however the pair is.
    ///
    /// # Errors
    /// Where a socket cannot be made.
    pub fn load(&self, per_second: f64, time: Duration) -> Result<Passed> {
        load::run(&self.sites.net, &self.remotes, per_second, time)
    }

    /// Round trips between the hosts: microseconds of each, and how many were lost.
    ///
    /// # Errors
    /// Where a socket cannot be made.
    pub fn round_trips(&self, time: Duration) -> Result<(Vec<f64>, u64)> {
        load::round_trips(&self.sites.net, &self.remotes, ECHO, time)
    }

    fn times_alone(&self, pairing: Pairing) -> Result<usize> {
        let history = self.sites.history(pairing.active)?;
        Ok(history.iter().filter(|(step, _)| step == "alone").count())
    }

    /// The lag that the active node has measured since it began, and the most packets that it had waiting.
    ///
    /// # Errors
    /// Where it does not say.
    pub fn lag(&self) -> Result<(LagHistogram, u64)> {
        let active = self.sites.pairing()?.active;
        let shown = self.sites.nodes[active].ctl(&["show", "redundancy"])?;
        let replication = &shown["pair"]["replication"];
        let lag = serde_json::from_value(replication["lag"].clone())
            .with_context(|| format!("show redundancy gives no lag: {replication}"))?;
        Ok((lag, replication["parked_max"].as_u64().context("show redundancy counts no parked packets")?))
    }

    /// Has the standby take over, and the active node, started anew, be its standby. The lag counts from the
    /// beginning of a data plane, and the new active node has been nothing but a standby since then. Gives what that
    /// one says of its takeover.
    ///
    /// # Errors
    /// Where the pair does not become redundant again, or the other node has measured lag before.
    pub fn renew(&mut self) -> Result<String> {
        let before = self.sites.wait_redundant(REDUNDANT)?;
        self.stop(before.active);
        self.sites.wait_active(before.standby, ALONE)?;
        self.start(before.active)?;
        let now = self.sites.wait_redundant(REDUNDANT)?;
        ensure!(now.active == before.standby, "the node that was started anew is active again: {now:?}");
        let history = self.sites.history(now.active)?;
        let takeover = history.into_iter().rev().find(|(step, _)| step == "takeover");
        Ok(takeover.context("the new active node notes no takeover")?.1)
    }

    /// Stops the standby and waits until the active node is alone. Gives the standby, to be started again.
    ///
    /// # Errors
    /// Where it does not go alone.
    pub fn part(&mut self) -> Result<usize> {
        let Pairing { active, standby, .. } = self.sites.wait_redundant(REDUNDANT)?;
        self.stop(standby);
        self.sites.wait_view(active, "alone", ALONE, |view| view.is_active() && view.state == "alone")?;
        Ok(standby)
    }

    /// Is one node active and alone?
    ///
    /// # Errors
    /// Where neither node answers.
    pub fn is_alone(&self) -> Result<bool> {
        let views: Vec<_> = [0, 1].into_iter().filter_map(|node| self.sites.view(node).ok()).collect();
        ensure!(!views.is_empty(), "neither node says how it is");
        Ok(views.iter().any(|view| view.is_active() && view.state == "alone"))
    }

    /// Starts a node that [`Site::part`] has stopped, and waits until the pair is redundant.
    ///
    /// # Errors
    /// Where it does not become so.
    pub fn join(&mut self, standby: usize) -> Result<()> {
        self.start(standby)?;
        self.sites.wait_redundant(REDUNDANT)?;
        Ok(())
    }

    fn stop(&mut self, node: usize) {
        self.sites.nodes[node].terminate();
    }

    fn start(&mut self, node: usize) -> Result<()> {
        let node = &mut self.sites.nodes[node];
        node.start_dataplane()?;
        node.start_control()?;
        node.wait_ready()?;
        Ok(())
    }
}

/// An address of the remote prefix of a map: 172.16.1.0/24, 172.16.2.0/24, ...
fn host(map: u16, last: u8) -> Ipv4Addr {
    let [high, low] = map.to_be_bytes();
    Ipv4Addr::new(172, 16 + high, low, last)
}

fn tunnel(map: u16) -> Result<CryptoMap> {
    Ok(CryptoMap {
        name: format!("tunnel-{map}"),
        priority: 1000 + u32::from(map),
        local: OUTSIDE_A,
        peer: OUTSIDE_B,
        protect: vec![(protected().0, Ipv4Net::new(host(map, 0), 24)?)],
        inbound: StaticSa::random(0x10_0000 + u32::from(map), "aes128gcm16")?,
        outbound: StaticSa::random(0x20_0000 + u32::from(map), "aes128gcm16")?,
        stale_takeover: None,
    })
}

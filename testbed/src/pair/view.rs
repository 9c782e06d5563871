//! What the nodes say of themselves, and waiting for it.

use super::{NAMES, PairSites};
use crate::gateway::Gateway;
use anyhow::{Context, Result, bail};
use serde_json::Value;
use std::fmt;
use std::time::{Duration, Instant};

/// Between two looks at the nodes.
const LOOK: Duration = Duration::from_millis(25);

/// `show redundancy` of one node, the part that scenarios look at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct View {
    /// `active` or `standby`.
    pub role: String,
    /// Active: `alone`, `bulk`, `joining`, `strict`, `halted`; standby: `cold`, `unsynchronized`, `sealed`,
    /// `synchronized`.
    pub state: String,
    /// Own term if active, else the newest reign heard of.
    pub term: u64,
    /// Incarnation.
    pub incarnation: u64,
    /// What is not promised at this moment.
    pub not_promised: Vec<String>,
    /// Paths, and whether each is alive.
    pub paths: Vec<(String, bool)>,
    /// State of the session between the control processes.
    pub session: String,
    /// Most packets that ever waited for an acknowledgement at once.
    pub parked_max: u64,
}

/// A pair that is redundant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pairing {
    /// Number of the active node.
    pub active: usize,
    /// Number of the synchronized standby.
    pub standby: usize,
    /// Term of the reign.
    pub term: u64,
}

impl View {
    /// Reads the object of `tandemctl --json show redundancy`.
    ///
    /// # Errors
    /// Where a part is missing.
    pub fn from_json(json: &Value) -> Result<Self> {
        let pair = &json["pair"];
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let number = |key: &str| {
            pair[key].as_u64().with_context(|| format!("show redundancy says nothing of pair.{key}: {json}"))
        };
        Ok(Self {
            role: text(&pair["role"]).with_context(|| format!("show redundancy gives no role: {json}"))?,
            state: text(&pair["state"]).with_context(|| format!("show redundancy gives no state: {json}"))?,
            term: number("term")?,
            incarnation: number("incarnation")?,
            not_promised: pair["not_promised"].as_array().into_iter().flatten().filter_map(text).collect(),
            paths: pair["paths"]
                .as_array()
                .context("show redundancy lists no paths")?
                .iter()
                .map(|path| (text(&path["name"]).unwrap_or_default(), path["alive"] == true))
                .collect(),
            session: text(&json["partner"]["session"]["state"]).unwrap_or_default(),
            parked_max: pair["replication"]["parked_max"]
                .as_u64()
                .context("show redundancy counts no parked packets")?,
        })
    }

    /// Is this node active?
    #[must_use]
    pub fn is_active(&self) -> bool {
        self.role == "active"
    }

    /// Is the path of that name alive?
    #[must_use]
    pub fn hears_by(&self, name: &str) -> bool {
        self.paths.iter().any(|(path, alive)| path == name && *alive)
    }
}

impl fmt::Display for View {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}) term {}, session {}", self.role, self.state, self.term, self.session)?;
        if !self.not_promised.is_empty() {
            write!(f, ", not promised: {}", self.not_promised.join("; "))?;
        }
        Ok(())
    }
}

/// `show redundancy` of a node.
///
/// # Errors
/// Where it does not answer.
pub fn view(node: &Gateway) -> Result<View> {
    View::from_json(&node.ctl(&["show", "redundancy"])?)
}

impl PairSites {
    /// What a node says of itself.
    ///
    /// # Errors
    /// Where it does not answer.
    pub fn view(&self, node: usize) -> Result<View> {
        view(&self.nodes[node])
    }

    /// `show redundancy history` of a node: step and text, the earliest first.
    ///
    /// # Errors
    /// Where it does not answer.
    pub fn history(&self, node: usize) -> Result<Vec<(String, String)>> {
        let json = self.nodes[node].ctl(&["show", "redundancy", "history"])?;
        Ok(json["entries"]
            .as_array()
            .with_context(|| format!("no history: {json}"))?
            .iter()
            .map(|entry| {
                let text = |key: &str| entry[key].as_str().unwrap_or_default().to_owned();
                (text("step"), text("text"))
            })
            .collect())
    }

    /// The pair as it is, if it is redundant: one node active and strict, the other synchronized, and nothing
    /// that is not promised.
    ///
    /// # Errors
    /// With what both say where it is not.
    pub fn pairing(&self) -> Result<Pairing> {
        let views = [self.view(0), self.view(1)];
        if let [Ok(one), Ok(other)] = &views {
            for (active, [leader, follower]) in [[one, other], [other, one]].into_iter().enumerate() {
                let redundant = leader.is_active()
                    && leader.state == "strict"
                    && !follower.is_active()
                    && follower.state == "synchronized"
                    && leader.session == "up";
                if redundant {
                    return Ok(Pairing { active, standby: 1 - active, term: leader.term });
                }
            }
        }
        let say = |view: &Result<View>| match view {
            Ok(view) => view.to_string(),
            Err(error) => format!("{error:#}"),
        };
        bail!("{}: {}; {}: {}", NAMES[0], say(&views[0]), NAMES[1], say(&views[1]))
    }

    /// Waits until the pair is redundant.
    ///
    /// # Errors
    /// With what both nodes say where it is not within `limit`.
    pub fn wait_redundant(&self, limit: Duration) -> Result<Pairing> {
        let end = Instant::now() + limit;
        loop {
            match self.pairing() {
                Ok(pairing) => return Ok(pairing),
                Err(error) if Instant::now() >= end => {
                    return Err(error.context(format!("the pair is not redundant after {limit:?}")));
                }
                Err(_) => std::thread::sleep(LOOK),
            }
        }
    }

    /// Waits until what a node says is as wanted.
    ///
    /// # Errors
    /// With what it says where that is not so within `limit`.
    pub fn wait_view(
        &self,
        node: usize,
        what: &str,
        limit: Duration,
        wanted: impl Fn(&View) -> bool,
    ) -> Result<View> {
        let end = Instant::now() + limit;
        loop {
            let seen = self.view(node);
            match &seen {
                Ok(view) if wanted(view) => return seen,
                _ if Instant::now() < end => std::thread::sleep(LOOK),
                Ok(view) => bail!("{} is not {what} after {limit:?}: {view}", NAMES[node]),
                Err(error) => bail!("{} is not {what} after {limit:?}: {error:#}", NAMES[node]),
            }
        }
    }

    /// Waits until a node is active.
    ///
    /// # Errors
    /// As [`Self::wait_view`].
    pub fn wait_active(&self, node: usize, limit: Duration) -> Result<View> {
        self.wait_view(node, "active", limit, View::is_active)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_parts_that_scenarios_look_at_are_read_and_a_missing_one_is_an_error() {
        let json = json!({
            "partner": {"session": {"state": "up"}},
            "pair": {
                "role": "active", "state": "strict", "term": 7, "incarnation": 3, "not_promised": ["x"],
                "paths": [{"name": "sync", "alive": true}, {"name": "inside", "alive": false}],
                "replication": {"parked_max": 9},
            },
        });
        let view = View::from_json(&json).expect("all is there");
        assert!(view.is_active() && view.hears_by("sync") && !view.hears_by("inside"));
        assert_eq!((view.term, view.incarnation, view.parked_max), (7, 3, 9));
        assert_eq!(view.to_string(), "active (strict) term 7, session up, not promised: x");
        assert!(View::from_json(&json!({"pair": null})).is_err());
    }
}

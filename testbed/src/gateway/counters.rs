//! What `tandemctl --json show counters` and `show interfaces` count.

use anyhow::{Context, Result};
use serde_json::Value;
use std::collections::BTreeMap;

/// The values of `show counters` at one moment.
#[derive(Clone, Debug, Default)]
pub struct Counters {
    /// By [`Counter`] and [`SlowCounter`] name.
    pub counters: BTreeMap<String, u64>,
    /// By drop reason, workers and slow path together.
    pub drops: BTreeMap<String, u64>,
    /// By drop reason, the slow path's part.
    pub slow_drops: BTreeMap<String, u64>,
    /// The XDP program's decisions, as `INTERFACE.NAME`.
    pub steering: BTreeMap<String, u64>,
    /// The kernel's statistics of the AF_XDP sockets, as `INTERFACE.NAME`.
    pub socket: BTreeMap<String, u64>,
}

impl Counters {
    /// Reads the object of `tandemctl --json show counters`.
    ///
    /// # Errors
    /// Where a list is missing.
    pub fn from_json(json: &Value) -> Result<Self> {
        let list = |name: &str| -> Result<BTreeMap<String, u64>> {
            names(&json[name]).with_context(|| format!("show counters has no list `{name}`: {json}"))
        };
        let mut counters = list("counters")?;
        counters.extend(list("slow")?);
        Ok(Self {
            counters,
            drops: list("drops")?,
            slow_drops: list("slow_drops")?,
            steering: BTreeMap::new(),
            socket: BTreeMap::new(),
        })
    }

    /// One counter that is no drop; 0 where there is none of that name.
    #[must_use]
    pub fn counter(&self, name: &str) -> u64 {
        self.counters.get(name).copied().unwrap_or(0)
    }

    /// One drop reason.
    #[must_use]
    pub fn dropped(&self, name: &str) -> u64 {
        self.drops.get(name).copied().unwrap_or(0)
    }

    /// The counter, drop reason or decision (`INTERFACE.NAME`) of that name.
    #[must_use]
    pub fn any(&self, name: &str) -> u64 {
        self.counter(name) + self.dropped(name) + self.steering.get(name).copied().unwrap_or(0)
    }

    /// (Frames that the XDP program steered, frames that the workers received or the kernel's sockets
    /// had to drop). Equal once traffic has come to rest, as long as the data plane has not been restarted.
    #[must_use]
    pub fn steered(&self) -> (u64, u64) {
        let sum = |list: &BTreeMap<String, u64>, wanted: fn(&str) -> bool| -> u64 {
            list.iter().filter(|(name, _)| wanted(name)).map(|(_, value)| value).sum()
        };
        (
            sum(&self.steering, |name| name.contains(".steered_")),
            self.counter("received")
                + sum(&self.socket, |name| name.ends_with(".rx_dropped") || name.ends_with(".rx_ring_full")),
        )
    }

    /// What was counted since `before`.
    #[must_use]
    pub fn since(&self, before: &Self) -> Self {
        let minus = |now: &BTreeMap<String, u64>, then: &BTreeMap<String, u64>| {
            now.iter()
                .map(|(name, value)| {
                    (name.clone(), value.saturating_sub(then.get(name).copied().unwrap_or(0)))
                })
                .collect()
        };
        Self {
            counters: minus(&self.counters, &before.counters),
            drops: minus(&self.drops, &before.drops),
            slow_drops: minus(&self.slow_drops, &before.slow_drops),
            steering: minus(&self.steering, &before.steering),
            socket: minus(&self.socket, &before.socket),
        }
    }

    /// The drop reasons that are not 0, for a reader.
    #[must_use]
    pub fn drops_text(&self) -> String {
        let shown: Vec<String> = self
            .drops
            .iter()
            .filter(|(_, value)| **value > 0)
            .map(|(name, value)| format!("{name} {value}"))
            .collect();
        if shown.is_empty() { "no drops".to_owned() } else { shown.join(", ") }
    }

    /// The two balances of the data plane: (what came in, what became of it) for the workers and for the
    /// slow path. Each pair must be equal once the traffic has come to rest.
    #[must_use]
    pub fn balances(&self) -> [(u64, u64); 2] {
        let drops: u64 = self.drops.values().sum();
        let slow_drops: u64 = self.slow_drops.values().sum();
        [
            (
                self.counter("received") + self.counter("created") + self.counter("returned"),
                self.counter("forwarded")
                    + self.counter("punted")
                    + drops.saturating_sub(slow_drops)
                    + self.counter("parked"),
            ),
            (
                self.counter("punted"),
                self.counter("slow_answered")
                    + self.counter("slow_resumed")
                    + self.counter("slow_held")
                    + slow_drops,
            ),
        ]
    }
}

/// An object of names and numbers.
pub(super) fn names(json: &Value) -> Option<BTreeMap<String, u64>> {
    json.as_object()?.iter().map(|(name, value)| Some((name.clone(), value.as_u64()?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn counters(received: u64, forwarded: u64, drop: u64) -> Counters {
        Counters::from_json(&json!({
            "counters": {"received": received, "forwarded": forwarded},
            "slow": {},
            "drops": {"no_sa": drop},
            "slow_drops": {},
        }))
        .expect("all lists are there")
    }

    #[test]
    fn the_balance_holds_only_when_every_frame_is_accounted_for() {
        let [(came, went), _] = counters(10, 7, 3).balances();
        assert_eq!(came, went);
        let [(came, went), _] = counters(10, 7, 2).balances();
        assert_ne!(came, went);
    }

    #[test]
    fn a_missing_list_is_an_error_and_not_zero() {
        assert!(Counters::from_json(&json!({"counters": {}, "slow": {}, "drops": {}})).is_err());
    }

    #[test]
    fn differences_are_taken_name_by_name() {
        let since = counters(10, 7, 3).since(&counters(4, 4, 0));
        assert_eq!((since.counter("received"), since.dropped("no_sa")), (6, 3));
        assert_eq!(since.drops_text(), "no_sa 3");
    }
}

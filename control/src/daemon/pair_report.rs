//! What operators are told of the pair, and the planned change of roles.

use super::Daemon;
use super::trouble::Trouble;
use crate::fence::Fence;
use crate::partner::Report;
use crate::session::Session;
use std::time::{Duration, Instant};
use tandem_api::operator::{
    Failure, FailureCode, PartnerReport, Redundancy, RedundancyHistory, SessionReport, SessionState, Ssp,
    SspClient, SspPackets, SwitchedOver,
};
use tandem_api::pair::PairStatus;

/// How long a planned change of roles may take until it counts as not done.
const SWITCH: Duration = Duration::from_secs(2);
const LOOK_EVERY: Duration = Duration::from_millis(2);

impl<F: Fence> Daemon<F> {
    async fn partner_report(&self) -> Option<Report> {
        match &self.pair {
            Some(pair) => pair.partner.report().await,
            None => None,
        }
    }

    /// `show redundancy`.
    pub(super) async fn redundancy(&self, pair: Option<PairStatus>) -> Redundancy {
        let report = self.partner_report().await;
        let configured = self.settings.redundancy.as_ref();
        let key = configured.map(|redundancy| &redundancy.partner_key);
        let terms = self.node.status();
        Redundancy {
            name: self.settings.node.name.clone(),
            node: self.node.node_number(key).map_or(terms.node, |node| node.number()),
            node_key: self.node.public_key(),
            partner: configured.map(|redundancy| PartnerReport {
                key: hex::encode(redundancy.partner_key),
                priority: redundancy.priority,
                timings: redundancy.timings,
                session: report.map_or_else(not_looked_for, |report| report.session),
            }),
            terms,
            record: self.node.pair_record(),
            pair,
        }
    }

    /// `show redundancy history`.
    pub(super) fn redundancy_history(&self) -> RedundancyHistory {
        RedundancyHistory { entries: self.history.iter().cloned().collect() }
    }

    /// `show ssp`.
    pub(super) async fn ssp(&self, pair: Option<PairStatus>) -> Ssp {
        let report = self.partner_report().await;
        let (packets, peers, entries) = match report {
            Some(report) => (report.packets, report.peers, report.sas),
            None => (SspPackets::default(), Vec::new(), self.settings.sas.len() as u64),
        };
        Ssp {
            protocol: tandem_ssp::VERSION,
            clients: vec![SspClient { id: 1, name: "static-sa".to_owned(), entries }],
            packets,
            peers,
            redundancy: pair.as_ref().map(Into::into),
        }
    }

    /// `redundancy switch-over`.
    pub(super) async fn switch_over(&mut self, session: &mut Session) -> Result<SwitchedOver, Trouble> {
        let role_before = session.pair_status().await?.role;
        let start = Instant::now();
        session.switch_over().await?;
        loop {
            let PairStatus { role, term, .. } = session.pair_status().await?;
            if role != role_before {
                let took_ms = start.elapsed().as_millis() as u64;
                tracing::info!("roles changed by an operator: {role} in term {term} after {took_ms} ms");
                return Ok(SwitchedOver { role_before, role, term, took_ms });
            }
            if start.elapsed() > SWITCH {
                let message = format!(
                    "ordered, and this node is still {role} after {} s; see `tandemctl show redundancy history`",
                    SWITCH.as_secs()
                );
                return Err(Failure::new(FailureCode::Refused, message).into());
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}

fn not_looked_for() -> SessionReport {
    SessionReport {
        state: SessionState::Down,
        since_s: 0,
        reason: Some("the partner is not looked for: see the log of tandem-control".to_owned()),
        partner_software: None,
        peer: None,
        path: None,
        configuration_equal: None,
        first_difference: None,
    }
}

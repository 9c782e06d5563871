//! The configuration read again, and applied whole or not at all.

use super::trouble::Trouble;
use super::{Daemon, pair};
use crate::fence::Fence;
use crate::session::{Outcome, Session};
use crate::settings_file::{self, ReadError};
use std::time::Instant;
use tandem_api::operator::{ConnectionState, Failure, FailureCode, Reloaded};
use tandem_config::Settings;

impl<F: Fence> Daemon<F> {
    pub(super) fn reload_alone(&mut self) -> Result<Reloaded, Trouble> {
        let result = self.read_alone();
        self.note_reload(result.as_ref().err());
        result
    }

    /// Reads the configuration again and applies it, whole or not at all.
    pub(super) async fn reload(&mut self, session: &mut Session) -> Result<Reloaded, Trouble> {
        let result = self.read_and_apply(session).await;
        self.note_reload(result.as_ref().err());
        result
    }

    /// For `show status`: who sent a signal instead of asking is not told otherwise than by the log.
    fn note_reload(&mut self, trouble: Option<&Trouble>) {
        let message = trouble.map(|trouble| trouble.failure(&self.settings.data_plane_socket).message);
        // Of many lines the last one sums up.
        let error = message.map(|text| text.lines().last().unwrap_or_default().to_owned());
        self.last_reload = Some((Instant::now(), error));
    }

    fn read_alone(&mut self) -> Result<Reloaded, Trouble> {
        let new = self.read_again()?;
        if new.start.max_sas != self.settings.start.max_sas && self.kept.take().is_some() {
            tracing::warn!(
                "dataplane.max-sas has changed: the next data plane starts with new hot state and a new term"
            );
        }
        let same_pair = new.redundancy == self.settings.redundancy;
        self.settings = new;
        self.read_at = Instant::now();
        if same_pair {
            self.tell_settings();
        } else {
            self.start_pair();
        }
        if self.raise_fence()
            && let Err(error) = self.fence.retain(&self.settings.fence)
        {
            tracing::warn!("{error}");
        }
        if self.connection.state == ConnectionState::Detached {
            self.enter(ConnectionState::Unreachable, Some("attaching again".to_owned()));
        }
        tracing::info!("configuration read; in force when the data plane can be reached");
        Ok(self.reloaded(false, Outcome::default()))
    }

    async fn read_and_apply(&mut self, session: &mut Session) -> Result<Reloaded, Trouble> {
        let mut new = self.read_again()?;
        new.renumber(&self.settings.numbers());
        if let Err(error) = self.fence.add(&new.fence) {
            tracing::error!("configuration not applied: {error}");
            return Err(Trouble::Failure(Failure::new(
                FailureCode::Refused,
                format!("{error}; nothing has changed"),
            )));
        }
        let more = self.more_sas();
        match session.reconcile(&new, &more).await {
            Ok(outcome) => {
                let same_pair = new.redundancy == self.settings.redundancy;
                self.settings = new;
                self.read_at = Instant::now();
                self.connection.generation = Some(session.generation);
                self.raise_fence();
                self.tell_settings();
                if !same_pair {
                    self.give_priority(session).await?;
                }
                if let Err(error) = self.fence.retain(&self.settings.fence) {
                    tracing::warn!("{error}");
                }
                let Outcome { new, resumed, unchanged, removed } = outcome;
                tracing::info!(
                    "configuration applied: {new} SAs new, {resumed} resumed, {unchanged} left alone, {removed} removed"
                );
                Ok(self.reloaded(true, outcome))
            }
            Err(error) => {
                tracing::error!("configuration not applied: {error}");
                // The old state again, on this connection if it still works, otherwise on the next.
                if error.is_refusal() {
                    session.reconcile(&self.settings, &more).await.map_err(Trouble::Session)?;
                    self.connection.generation = Some(session.generation);
                }
                if let Err(error) = self.fence.retain(&self.settings.fence) {
                    tracing::warn!("{error}");
                }
                Err(Trouble::Session(error))
            }
        }
    }

    /// The configuration from its file, if it can be applied without a restart.
    fn read_again(&self) -> Result<Settings, Trouble> {
        let new = settings_file::read(&self.config_file).inspect_err(|error| {
            let count = match error {
                ReadError::Findings(findings) => format!("{} errors", findings.iter().count()),
                ReadError::Io(..) => error.to_string(),
            };
            let file = self.config_file.display();
            tracing::error!("configuration not applied: {count}; see `tandemctl config check {file}`");
        })?;
        let (now, old) = (&new, &self.settings);
        let of_node = [
            ("node.state-directory", now.node.state_directory == old.node.state_directory),
            ("node.control-socket", now.node.control_socket == old.node.control_socket),
            ("node.control-group", now.node.control_group == old.node.control_group),
        ];
        let of_data_plane = [
            ("dataplane.socket", now.data_plane_socket == old.data_plane_socket),
            ("dataplane.workers", now.start.workers == old.start.workers),
            ("dataplane.max-sas", now.start.max_sas == old.start.max_sas),
            ("dataplane.frames", now.start.frames == old.start.frames),
            ("dataplane.aead", now.start.aead == old.start.aead),
            ("dataplane.idle", now.start.idle == old.start.idle),
            (
                "[redundancy] (all but priority)",
                pair::same_but_priority(now.redundancy.as_ref(), old.redundancy.as_ref()),
            ),
        ];
        let connected = self.connection.state == ConnectionState::Connected;
        for (fixed, list, cure) in [
            (true, &of_node[..], "restart tandem-control for this"),
            (
                connected,
                &of_data_plane[..],
                "for this `tandemctl detach`, then `tandemctl config reload`, then start tandem-dataplane again",
            ),
        ] {
            let changed: Vec<&str> = list.iter().filter(|(_, same)| !same).map(|(name, _)| *name).collect();
            if fixed && !changed.is_empty() {
                let names = changed.join(", ");
                let message = format!(
                    "{names} cannot change while it is in use; nothing has changed: set it back, or {cure}"
                );
                tracing::error!("configuration not applied: {message}");
                return Err(Trouble::Failure(Failure::new(FailureCode::ConfigInvalid, message)));
            }
        }
        Ok(new)
    }

    fn reloaded(&self, in_force: bool, outcome: Outcome) -> Reloaded {
        Reloaded {
            in_force,
            interfaces: self.settings.data_plane.interfaces.len() as u32,
            policies: self.settings.data_plane.policies.len() as u32,
            sas: self.settings.sas.len() as u32,
            sas_new: outcome.new,
            sas_resumed: outcome.resumed,
            sas_unchanged: outcome.unchanged,
            sas_removed: outcome.removed,
        }
    }
}

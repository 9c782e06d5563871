//! What is said to a data plane: greet it, read back what it holds, give it role and term, bring it to the
//! wanted state. A working SA is never touched by this.

use crate::link::{Link, LinkError};
use crate::state::{NodeState, StateError};
use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use tandem_api::dataplane::{
    Body, Hello, MESSAGE_MAX, Reply, SAS_PER_MESSAGE, SaSpec, SaStatus, StartSettings, Status, VERSION,
    encode,
};
use tandem_api::pair::{EpochKey, Event, Grant, PairSettings, PairStatus, SessionNews};
use tandem_api::types::Role;
use tandem_config::Settings;
use zeroize::Zeroizing;

/// Octets of a message that are left for what wraps the SAs.
const WRAPPING: usize = 64;

/// Why a data plane could not be brought to the wanted state.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// No answer, or a refusal.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// The terms of this node.
    #[error(transparent)]
    State(#[from] StateError),
    /// An answer that does not belong to the question.
    #[error("the data plane gave an answer that does not belong to {0}; run daemons of one version")]
    WrongAnswer(&'static str),
    /// No hot-state descriptor came with the greeting: numbers could not outlive the data plane.
    #[error("the data plane handed over no hot state; run daemons of one version")]
    NoHotState,
}

impl SessionError {
    /// Did the data plane refuse, with nothing changed?
    #[must_use]
    pub fn is_refusal(&self) -> bool {
        matches!(self, SessionError::Link(LinkError::Refused(_)))
    }
}

/// A data plane that has greeted.
#[derive(Debug)]
pub struct Session {
    link: Link,
    /// What it said of itself.
    pub hello: Hello,
    /// Highest generation in use.
    pub generation: u64,
}

/// What a reconciliation did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// SAs made new.
    pub new: u32,
    /// SAs made new on hot state that was there for the key.
    pub resumed: u32,
    /// SAs left alone.
    pub unchanged: u32,
    /// SAs removed.
    pub removed: u32,
}

impl Session {
    /// Connects and greets. Hands over the hot state kept from an earlier data plane, and gives back that
    /// of this one.
    ///
    /// # Errors
    /// If it does not answer, or refuses.
    pub async fn open(
        socket: PathBuf,
        start: StartSettings,
        kept: Option<OwnedFd>,
    ) -> Result<(Self, OwnedFd), SessionError> {
        let mut link = Link::connect(&socket).map_err(LinkError::Io)?;
        let body = Body::Hello { version: VERSION, start };
        let (reply, descriptor) = link.ask_with(body, kept.as_ref().map(AsFd::as_fd)).await?;
        let Reply::Hello(hello) = reply else { return Err(SessionError::WrongAnswer("Hello")) };
        let generation = hello.generation;
        Ok((Self { link, hello, generation }, descriptor.ok_or(SessionError::NoHotState)?))
    }

    /// Makes the data plane active, in the term that its hot state holds, or in a new one where it holds
    /// none (`failover.md` F2, F27). Gives the term.
    ///
    /// # Errors
    /// If no term can be had, or the data plane refuses.
    pub async fn activate(&mut self, node: &mut NodeState) -> Result<u64, SessionError> {
        let mut term = self.hello.term;
        if term == 0 {
            term = node.take_term()?;
            node.term_is_used();
        } else {
            node.heard_term(term)?;
            if self.hello.role == Role::Active {
                return Ok(term);
            }
        }
        self.done(Body::SetRole { role: Role::Active, term }, "SetRole").await?;
        self.hello.term = term;
        self.hello.role = Role::Active;
        Ok(term)
    }

    /// Tells what holds of node and partner; before the first SA.
    ///
    /// # Errors
    /// If it does not answer, or refuses.
    pub async fn set_pair(&mut self, settings: PairSettings) -> Result<(), SessionError> {
        self.done(Body::SetPair(Box::new(settings)), "SetPair").await
    }

    /// Tells what may be used of the term file; all of it is on disk.
    ///
    /// # Errors
    /// If it does not answer, or refuses.
    pub async fn grant(&mut self, grant: Grant) -> Result<(), SessionError> {
        self.done(Body::Grant(grant), "Grant").await
    }

    /// Gives a key of the paths.
    ///
    /// # Errors
    /// If it does not answer, or refuses.
    pub async fn epoch(&mut self, key: EpochKey) -> Result<(), SessionError> {
        self.done(Body::Epoch(key), "Epoch").await
    }

    /// Tells news of the session with the partner.
    ///
    /// # Errors
    /// If it does not answer, or refuses.
    pub async fn news(&mut self, news: SessionNews) -> Result<(), SessionError> {
        self.done(Body::Session(news), "Session").await
    }

    /// Wants the roles changed.
    ///
    /// # Errors
    /// If it does not answer, or refuses, with the reason.
    pub async fn switch_over(&mut self) -> Result<(), SessionError> {
        self.done(Body::SwitchOver, "SwitchOver").await
    }

    /// State of the pair.
    ///
    /// # Errors
    /// If it does not answer, or refuses.
    pub async fn pair_status(&mut self) -> Result<PairStatus, SessionError> {
        match self.link.ask(Body::PairStatus).await? {
            Reply::Pair(status) => Ok(*status),
            _ => Err(SessionError::WrongAnswer("PairStatus")),
        }
    }

    /// Installs one SA beside those that are there.
    ///
    /// # Errors
    /// If the data plane does not answer, or refuses.
    pub async fn install(&mut self, sa: SaSpec) -> Result<(), SessionError> {
        let body = Body::InstallSas { generation: self.generation, sas: vec![sa] };
        match self.link.ask(body).await? {
            Reply::Installed { .. } => Ok(()),
            _ => Err(SessionError::WrongAnswer("InstallSas")),
        }
    }

    /// The next event of the data plane. May be given up at any time.
    ///
    /// # Errors
    /// If it is gone.
    pub async fn next_event(&mut self) -> Result<Event, SessionError> {
        Ok(self.link.next_event().await?)
    }

    /// Brings the data plane to the wanted state; `more` SAs are those that are not of the configuration.
    ///
    /// # Errors
    /// If it does not answer, or refuses; then SAs of the wanted state may be there in part, and none was
    /// removed.
    pub async fn reconcile(&mut self, settings: &Settings, more: &[SaSpec]) -> Result<Outcome, SessionError> {
        self.done(Body::Configure(Box::new(settings.data_plane.clone())), "Configure").await?;
        self.generation += 1;
        let generation = self.generation;
        let mut outcome = Outcome::default();
        for sas in chunks(&settings.sas).into_iter().chain(chunks(more)) {
            match self.link.ask(Body::InstallSas { generation, sas: sas.to_vec() }).await? {
                Reply::Installed { new, resumed, unchanged } => {
                    outcome.new += new;
                    outcome.resumed += resumed;
                    outcome.unchanged += unchanged;
                }
                _ => return Err(SessionError::WrongAnswer("InstallSas")),
            }
        }
        match self.link.ask(Body::SweepSas { generation }).await? {
            Reply::Swept(removed) => outcome.removed = removed,
            _ => return Err(SessionError::WrongAnswer("SweepSas")),
        }
        Ok(outcome)
    }

    /// Every SA that the data plane holds.
    ///
    /// # Errors
    /// If it does not answer.
    pub async fn sas(&mut self) -> Result<Vec<SaStatus>, SessionError> {
        let mut all = Vec::new();
        let mut from = 0;
        loop {
            let Reply::Sas { sas, next } = self.link.ask(Body::ListSas { from }).await? else {
                return Err(SessionError::WrongAnswer("ListSas"));
            };
            all.extend(sas);
            match next {
                None => return Ok(all),
                // A list that does not move on would never end.
                Some(next) if next <= from => return Err(SessionError::WrongAnswer("ListSas")),
                Some(next) => from = next,
            }
        }
    }

    /// Policy numbers in use, by name of crypto map.
    ///
    /// # Errors
    /// If the data plane does not answer.
    pub async fn held_policies(&mut self) -> Result<HashMap<String, u32>, SessionError> {
        Ok(self.sas().await?.into_iter().map(|sa| (sa.map, sa.policy)).collect())
    }

    /// Counters, interfaces, workers.
    ///
    /// # Errors
    /// If the data plane does not answer.
    pub async fn status(&mut self) -> Result<Status, SessionError> {
        match self.link.ask(Body::Status).await? {
            Reply::Status(status) => Ok(*status),
            _ => Err(SessionError::WrongAnswer("Status")),
        }
    }

    /// Makes the data plane leave its interfaces and end.
    ///
    /// # Errors
    /// If it does not answer.
    pub async fn detach(&mut self) -> Result<(), SessionError> {
        self.done(Body::Detach, "Detach").await
    }

    async fn done(&mut self, body: Body, name: &'static str) -> Result<(), SessionError> {
        match self.link.ask(body).await? {
            Reply::Done => Ok(()),
            _ => Err(SessionError::WrongAnswer(name)),
        }
    }
}

/// As many SAs in each chunk as one message holds.
fn chunks(sas: &[SaSpec]) -> Vec<&[SaSpec]> {
    let mut chunks = Vec::new();
    let (mut start, mut octets) = (0, 0);
    for (at, sa) in sas.iter().enumerate() {
        // One that alone is too long is refused when it is sent.
        let length = encode(sa).map_or(MESSAGE_MAX, |bytes| Zeroizing::new(bytes).len());
        if at > start && (at - start == SAS_PER_MESSAGE || octets + length > MESSAGE_MAX - WRAPPING) {
            chunks.push(&sas[start..at]);
            (start, octets) = (at, 0);
        }
        octets += length;
    }
    if start < sas.len() {
        chunks.push(&sas[start..]);
    }
    chunks
}

#[cfg(test)]
mod tests {
    use super::*;
    use ipnet::Ipv4Net;
    use tandem_api::types::{Direction, KeyFingerprint, KeyMaterial, Selector, Transform};

    fn sa(spi: u32, selectors: usize) -> SaSpec {
        let any = Ipv4Net::default();
        SaSpec {
            direction: Direction::Inbound,
            spi,
            policy: spi,
            selectors: vec![Selector { local: any, remote: any }; selectors],
            local: [192, 0, 2, 1].into(),
            peer: [198, 51, 100, 2].into(),
            transform: Transform::Aes256gcm16,
            key: KeyMaterial::new(vec![0xff; 36]),
            fingerprint: KeyFingerprint(u64::MAX),
            base_term: u64::MAX,
            stale: tandem_api::dataplane::StaleAction::Jump,
            map: "m".repeat(63),
        }
    }

    #[test]
    fn every_sa_goes_out_once_in_messages_that_fit() {
        for (count, selectors) in [(0, 1), (1, 256), (128, 1), (129, 1), (300, 256), (1000, 1)] {
            let sas: Vec<SaSpec> = (0..count).map(|spi| sa(u32::MAX - spi, selectors)).collect();
            let parts = chunks(&sas);
            assert_eq!(parts.concat(), sas);
            for part in parts {
                assert!(!part.is_empty() && part.len() <= SAS_PER_MESSAGE);
                let body = Body::InstallSas { generation: u64::MAX, sas: part.to_vec() };
                let request = tandem_api::dataplane::Request { id: u64::MAX, body };
                assert!(encode(&request).is_ok(), "{count} SAs of {selectors} selectors");
            }
        }
    }
}

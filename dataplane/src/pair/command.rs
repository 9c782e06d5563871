//! Orders to the pair thread, and how they get there.

use super::bell::Bell;
use super::segments::Attached;
use crate::keeper::Keeper;
use crossbeam::channel::{Receiver, Sender, unbounded};
use std::sync::Arc;
use std::time::Duration;
use tandem_api::pair::{EpochKey, Grant, PairSettings, PairStatus, SessionNews};
use tandem_takeover::{Sa, SaKey};

/// Longest wait for an answer: shorter than the control process waits for ours.
const ANSWER: Duration = Duration::from_millis(1500);

/// An answer: done, or why not.
pub type Verdict = Result<(), String>;

/// The numbers file, as the pair thread uses it (F40).
#[derive(Clone, Debug)]
pub struct Numbers {
    /// Takes what is to be written.
    pub keeper: Arc<Keeper>,
    /// What is on disk.
    pub persisted: Receiver<u64>,
}

/// An order.
#[derive(Debug)]
pub enum Command {
    /// What the thread works on; the first order.
    Start(Box<super::Setup>),
    /// What holds of node and partner. Later ones may change the priority alone.
    SetPair {
        /// Settings.
        settings: Box<PairSettings>,
        /// The numbers file, the first time.
        numbers: Option<Numbers>,
        /// Done, or why not.
        reply: Sender<Verdict>,
    },
    /// What may be used of the term file.
    Grant(Grant),
    /// Keys of the paths.
    Epoch(EpochKey, Sender<Verdict>),
    /// News of the session.
    Session(SessionNews),
    /// Change the roles.
    SwitchOver(Sender<Verdict>),
    /// Role and term of a node without partner; answered once the role is in force.
    Role {
        /// Active?
        active: bool,
        /// Term.
        term: u64,
        /// Said then.
        reply: Sender<Verdict>,
    },
    /// SAs that were installed.
    Install(Vec<Sa>),
    /// SAs that were removed.
    Remove(Vec<SaKey>),
    /// All interfaces in use.
    Interfaces(Vec<Attached>),
    /// State of the pair.
    Status(Sender<Box<PairStatus>>),
}

/// Gives orders to the pair thread.
#[derive(Clone, Debug)]
pub struct Orders {
    sender: Sender<Command>,
    bell: Arc<Bell>,
}

/// Orders, and where they arrive.
#[must_use]
pub fn orders(bell: Arc<Bell>) -> (Orders, Receiver<Command>) {
    let (sender, receiver) = unbounded();
    (Orders { sender, bell }, receiver)
}

impl Orders {
    /// Gives an order.
    pub fn give(&self, command: Command) {
        // A thread that has ended takes no orders; whoever asked finds out by the missing answer.
        let _ = self.sender.send(command);
        self.bell.ring();
    }

    /// Gives an order and waits for the answer.
    ///
    /// # Errors
    /// If none comes in time.
    pub fn ask<T>(&self, command: impl FnOnce(Sender<T>) -> Command) -> anyhow::Result<T> {
        let (reply, answer) = crossbeam::channel::bounded(1);
        self.give(command(reply));
        answer.recv_timeout(ANSWER).map_err(|_| {
            anyhow::anyhow!(
                "the pair thread did not answer within {} ms; restart the data plane",
                ANSWER.as_millis()
            )
        })
    }

    /// As [`Orders::ask`], where the answer may be a refusal.
    ///
    /// # Errors
    /// The refusal, or that none came in time.
    pub fn demand(&self, command: impl FnOnce(Sender<Verdict>) -> Command) -> anyhow::Result<()> {
        self.ask(command)?.map_err(anyhow::Error::msg)
    }

    /// What wakes the pair thread.
    #[must_use]
    pub fn bell(&self) -> &Arc<Bell> {
        &self.bell
    }
}

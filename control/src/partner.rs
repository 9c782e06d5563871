//! The partner's control process: finds it over the configured paths, keeps one SSP session with it, and finds it again.
//!
//! Both nodes listen on the local address of every path, and dial over the paths in their order. Where two sessions come up at once, the
//! one that node 0 dialled stays (of two that the same node dialled the later one: it gave the other up). A task of its
//! own, because a session must go on while the data plane takes its time for an answer.

mod connection;
mod driver;
mod paths;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use tandem_api::dataplane::SaSpec;
use tandem_api::operator::{SessionReport, SspPackets, SspPeer};
use tandem_api::pair::{EpochKey, PairPath};
use tandem_ssp::message::{Hello, StreamBody};
use tandem_ssp::{Digest, Keys, Local, SaId};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

/// Which session of this process; a later one has a higher number.
pub type SessionId = u64;

/// What the owner is told.
#[derive(Debug)]
pub enum News {
    /// Equal configurations: reserve above the partner's terms on disk, then [`Command::Reserved`].
    Paired(SessionId, Box<Hello>),
    /// The session is up.
    Up {
        /// The partner's incarnation.
        partner_incarnation: u64,
    },
    /// It was up, and is not any more.
    Down(String),
    /// The partner's memory has a new incarnation.
    Incarnation(u64),
    /// A key for the data plane, then [`Command::EpochInstalled`].
    Epoch(EpochKey),
    /// The answer to [`Command::EpochsLost`]: keys that were told before are of no use any more.
    EpochsRenewed,
    /// A message of the partner's stream, to be applied, then [`Command::Applied`].
    Stream(SessionId, u64, StreamBody),
    /// Everything has gone out up to this position, for [`Command::Quiet`].
    Quiet {
        /// As asked.
        incarnation: u64,
        /// Position of the stream.
        position: u64,
    },
}

/// What the owner says.
#[derive(Debug)]
pub enum Command {
    /// The term file has changed.
    Terms(Terms),
    /// Reserved above the partner's terms, on disk.
    Reserved(SessionId),
    /// The configuration has changed.
    Digest(Digest),
    /// The data plane has heard this incarnation of the partner.
    Heard(u64),
    /// This node is active in this reign, or not.
    Source(Option<u64>),
    /// All SAs that the stream is to bring.
    Sas(Vec<SaSpec>),
    /// Send this one again.
    Resend(SaId),
    /// Say [`News::Quiet`] once all SAs have gone out.
    Quiet {
        /// Repeated.
        incarnation: u64,
    },
    /// The partner's stream was applied up to here.
    Applied(SessionId, u64),
    /// The data plane has the key of that epoch.
    EpochInstalled {
        /// Number.
        number: u32,
        /// It seals with it.
        send: bool,
    },
    /// The data plane does not take it.
    EpochRefused,
    /// The data plane's memory is new: the keys may not be used again (F6).
    EpochsLost,
    /// The partner's stream cannot be applied: end the session.
    Refuse(SessionId, String),
    /// For operators.
    Report(oneshot::Sender<Report>),
}

/// What the term file says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// Highest even and odd term that may have been used.
    pub highest: [u64; 2],
    /// Highest own term reserved.
    pub reserved: u64,
    /// Newest reign.
    pub reign: u64,
    /// Incarnation.
    pub incarnation: u64,
}

/// For `show ssp` and `show redundancy`.
#[derive(Clone, Debug)]
pub struct Report {
    /// The session.
    pub session: SessionReport,
    /// Messages.
    pub packets: SspPackets,
    /// Paths.
    pub peers: Vec<SspPeer>,
    /// SAs that the stream brings.
    pub sas: u64,
}

/// The running driver. Ends when it is dropped.
#[derive(Debug)]
pub struct Partner {
    commands: mpsc::UnboundedSender<Command>,
    /// What is in it is bounded: by the window of the stream, and by what the partner, once authenticated, can be asked to
    /// keep to.
    news: mpsc::UnboundedReceiver<News>,
    task: JoinHandle<()>,
}

impl Partner {
    /// Starts looking for the partner.
    #[must_use]
    pub fn start(keys: Keys, paths: Vec<PairPath>, local: Local) -> Self {
        let (commands, orders) = mpsc::unbounded_channel();
        let (sender, news) = mpsc::unbounded_channel();
        let driver = driver::Driver::new(Arc::new(keys), paths, local, sender);
        Self { commands, news, task: tokio::spawn(driver.run(orders)) }
    }

    /// The next news. May be given up at any time.
    pub async fn news(&mut self) -> News {
        match self.news.recv().await {
            Some(news) => news,
            // Only if the task is gone, which it is not while this is there.
            None => std::future::pending().await,
        }
    }

    /// Says something to it.
    pub fn tell(&self, command: Command) {
        // The task lives as long as this does.
        let _ = self.commands.send(command);
    }

    /// For operators.
    pub async fn report(&self) -> Option<Report> {
        let (reply, report) = oneshot::channel();
        self.tell(Command::Report(reply));
        report.await.ok()
    }
}

impl Drop for Partner {
    fn drop(&mut self) {
        self.task.abort();
    }
}

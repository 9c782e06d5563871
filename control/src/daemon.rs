//! `tandem-control`: keeps the data plane in the configured state, for ever.

mod events;
mod pair;
mod pair_report;
mod reload;
mod trouble;

use crate::fence::Fence;
use crate::operator::Order;
use crate::report;
use crate::session::{Outcome, Session, SessionError};
use crate::state::NodeState;
use events::{Event, Signals};
use pair::Pair;
use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use tandem_api::dataplane::Hello;
use tandem_api::operator::{
    ConnectionState, Counters, DataPlaneStatus, Detached, Failure, FailureCode, FenceStatus, LastReload,
    Method, NodeStatus,
};
use tandem_api::pair::HistoryEntry;
use tandem_config::Settings;
use tokio::sync::mpsc;
use trouble::Trouble;

const RETRY_FIRST: Duration = Duration::from_millis(50);
const RETRY_MAX: Duration = Duration::from_secs(1);
/// For so long after a loss it is tried at the first pace: a successor of the data plane comes soon, and
/// carries no traffic until it has its hot state from here.
const EAGER: Duration = Duration::from_secs(10);

/// The control process.
pub struct Daemon<F> {
    config_file: PathBuf,
    settings: Settings,
    read_at: Instant,
    /// When `config reload` was tried last, and why it was not done.
    last_reload: Option<(Instant, Option<String>)>,
    started: Instant,
    node: NodeState,
    fence: F,
    fence_error: Option<String>,
    /// Hot state of the last data plane, for the next one.
    kept: Option<OwnedFd>,
    connection: Connection,
    /// The partner, if one is configured.
    pair: Option<Pair>,
    history: VecDeque<HistoryEntry>,
}

/// What is known of the data plane.
struct Connection {
    state: ConnectionState,
    since: Instant,
    reason: Option<String>,
    hello: Option<Hello>,
    generation: Option<u64>,
    count: u64,
}

/// Why a connected phase ended.
enum Ended {
    Lost(String),
    Detached,
    Stop,
}

impl<F: Fence> Daemon<F> {
    /// A control process for a configuration that was read, and a node that was opened.
    pub fn new(config_file: PathBuf, settings: Settings, node: NodeState, fence: F) -> Self {
        let now = Instant::now();
        let connection = Connection {
            state: ConnectionState::Unreachable,
            since: now,
            reason: Some("not tried yet".to_owned()),
            hello: None,
            generation: None,
            count: 0,
        };
        let (fence_error, kept, last_reload) = (None, None, None);
        Self {
            config_file,
            settings,
            read_at: now,
            last_reload,
            started: now,
            node,
            fence,
            fence_error,
            kept,
            connection,
            pair: None,
            history: VecDeque::new(),
        }
    }

    /// Runs until a signal ends it, or nobody is left to give orders. The data plane and the fence stay as
    /// they are.
    ///
    /// # Errors
    /// If signals cannot be followed.
    pub async fn run(mut self, mut orders: mpsc::Receiver<Order>) -> std::io::Result<()> {
        let mut signals = Signals::new()?;
        self.start_pair();
        if self.raise_fence()
            && let Err(error) = self.fence.retain(&self.settings.fence)
        {
            tracing::warn!("{error}");
        }
        loop {
            let Some(session) = self.find_data_plane(&mut orders, &mut signals).await else { break };
            match self.serve_connected(session, &mut orders, &mut signals).await {
                Ended::Lost(reason) => self.lost(reason),
                Ended::Detached => {}
                Ended::Stop => break,
            }
        }
        tracing::info!("stopped; the data plane goes on");
        Ok(())
    }

    /// Tries to connect until it is done; answers operators meanwhile. `None`: stop.
    async fn find_data_plane(
        &mut self,
        orders: &mut mpsc::Receiver<Order>,
        signals: &mut Signals,
    ) -> Option<Session> {
        let mut wait = RETRY_FIRST;
        loop {
            while self.connection.state == ConnectionState::Detached {
                tokio::select! {
                    event = signals.next(orders) => self.serve_alone(event).await?,
                    news = pair::news(&mut self.pair) => self.partner_news_alone(news),
                }
            }
            let socket = self.settings.data_plane_socket.clone();
            // A copy goes along: the attempt may be given up.
            let kept = self.kept.as_ref().map(OwnedFd::try_clone).transpose();
            let (start, kept) = (self.settings.start.clone(), kept.ok().flatten());
            let mut attempt = Box::pin(Session::open(socket, start, kept));
            let opened = loop {
                tokio::select! {
                    opened = &mut attempt => break opened,
                    event = signals.next(orders) => self.serve_alone(event).await?,
                    news = pair::news(&mut self.pair) => self.partner_news_alone(news),
                }
            };
            let failed = match opened {
                Ok((session, hot_state)) => {
                    self.kept = Some(hot_state);
                    match self.bring_up(session).await {
                        Ok(session) => return Some(session),
                        Err(reason) => reason,
                    }
                }
                Err(error) => error.to_string(),
            };
            self.lost(failed);
            let pause = tokio::time::sleep(wait);
            tokio::pin!(pause);
            loop {
                tokio::select! {
                    () = &mut pause => break,
                    event = signals.next(orders) => self.serve_alone(event).await?,
                    news = pair::news(&mut self.pair) => self.partner_news_alone(news),
                }
            }
            if self.connection.since.elapsed() > EAGER {
                wait = (wait * 2).min(RETRY_MAX);
            }
        }
    }

    /// Role, term and wanted state for a data plane that has greeted.
    async fn bring_up(&mut self, mut session: Session) -> Result<Session, String> {
        self.connection.hello = Some(session.hello.clone());
        // Before the data plane is told anything: what it does not take must not leave in clear.
        if !self.raise_fence() {
            return Err(self.fence_error.clone().unwrap_or_default());
        }
        let done = async {
            let held = session.held_policies().await?;
            self.settings.renumber(&held);
            self.give_pair(&mut session).await?;
            let more = self.more_sas();
            let outcome = session.reconcile(&self.settings, &more).await?;
            self.give_session(&mut session).await?;
            Ok(outcome)
        };
        let outcome = done.await.map_err(|error: SessionError| error.to_string())?;
        let Outcome { new, resumed, unchanged, removed } = outcome;
        let Hello { pid, role, term, .. } = session.hello;
        tracing::info!(
            "data plane {pid} is {role} in term {term}: {new} SAs new, {resumed} resumed, {unchanged} left alone, \
             {removed} removed"
        );
        self.connection.hello = Some(session.hello.clone());
        self.connection.generation = Some(session.generation);
        self.connection.count += 1;
        self.connection.reason = None;
        self.enter(ConnectionState::Connected, None);
        if let Err(error) = self.fence.retain(&self.settings.fence) {
            tracing::warn!("{error}");
        }
        Ok(session)
    }

    async fn serve_connected(
        &mut self,
        mut session: Session,
        orders: &mut mpsc::Receiver<Order>,
        signals: &mut Signals,
    ) -> Ended {
        loop {
            let grant_due = self.pair.as_ref().is_some_and(Pair::grant_due);
            let event = tokio::select! {
                event = session.next_event() => {
                    let done = match event {
                        Ok(event) => self.data_plane_event(&mut session, event).await,
                        Err(error) => Err(error),
                    };
                    match done {
                        Ok(()) => continue,
                        Err(error) => return Ended::Lost(error.to_string()),
                    }
                }
                news = pair::news(&mut self.pair) => match self.partner_news(&mut session, news).await {
                    Ok(()) => continue,
                    Err(error) => return Ended::Lost(error.to_string()),
                },
                () = tokio::time::sleep(pair::GRANT_AGAIN), if grant_due => match self.grant(&mut session).await {
                    Ok(()) => continue,
                    Err(error) => return Ended::Lost(error.to_string()),
                },
                event = signals.next(orders) => event,
            };
            let lost = match event {
                Event::Stop => return Ended::Stop,
                Event::Reload => match self.reload(&mut session).await {
                    Ok(_) => None,
                    Err(error) => error.lost(),
                },
                Event::Order(Order { method, reply }) => {
                    let result = self.answer(method, &mut session).await;
                    let (result, lost) = match result {
                        Ok(value) => (Ok(value), None),
                        Err(error) => (Err(error.failure(&self.settings.data_plane_socket)), error.lost()),
                    };
                    // An operator that went away does not want the answer.
                    let _ = reply.send(result);
                    lost
                }
            };
            if self.connection.state == ConnectionState::Detached {
                return Ended::Detached;
            }
            if let Some(reason) = lost {
                return Ended::Lost(reason);
            }
        }
    }

    /// Answers without a data plane. `None`: stop.
    async fn serve_alone(&mut self, event: Event) -> Option<()> {
        match event {
            Event::Stop => None,
            Event::Reload => {
                // The error is in the log.
                let _ = self.reload_alone();
                Some(())
            }
            Event::Order(Order { method, reply }) => {
                let result = match method {
                    Method::ShowStatus => json(&self.status()),
                    Method::ShowPolicy => json(&report::policies(&self.settings, false)),
                    Method::ConfigReload => self
                        .reload_alone()
                        .map_err(|error| error.failure(&self.settings.data_plane_socket))
                        .and_then(|reloaded| json(&reloaded)),
                    Method::ShowCryptoIpsecSa
                    | Method::ShowInterfaces
                    | Method::ShowCounters
                    | Method::Detach => Err(self.unreachable()),
                    Method::ShowRedundancy => json(&self.redundancy(None).await),
                    Method::ShowRedundancyHistory => json(&self.redundancy_history()),
                    Method::ShowSsp => json(&self.ssp(None).await),
                    Method::SwitchOver => Err(self.unreachable()),
                };
                let _ = reply.send(result);
                Some(())
            }
        }
    }

    async fn answer(&mut self, method: Method, session: &mut Session) -> Result<serde_json::Value, Trouble> {
        match method {
            Method::ShowStatus => {
                let status = session.status().await?;
                if let Some(hello) = &mut self.connection.hello {
                    hello.role = status.role;
                    hello.term = status.term;
                }
                Ok(json(&self.status())?)
            }
            Method::ShowPolicy => Ok(json(&report::policies(&self.settings, true))?),
            Method::ShowInterfaces => Ok(json(&report::interfaces(session.status().await?))?),
            Method::ShowCounters => Ok(json(&Counters::from(&session.status().await?.counters))?),
            Method::ShowCryptoIpsecSa => {
                let status = session.status().await?;
                let sas = session.sas().await?;
                Ok(json(&report::ipsec_sas(&self.settings, &status, sas))?)
            }
            Method::ShowRedundancy => {
                let pair = session.pair_status().await?;
                Ok(json(&self.redundancy(Some(pair)).await)?)
            }
            Method::ShowRedundancyHistory => Ok(json(&self.redundancy_history())?),
            Method::ShowSsp => {
                let pair = session.pair_status().await?;
                Ok(json(&self.ssp(Some(pair)).await)?)
            }
            Method::SwitchOver => Ok(json(&self.switch_over(session).await?)?),
            Method::ConfigReload => Ok(json(&self.reload(session).await?)?),
            Method::Detach => Ok(json(&self.detach(session).await?)?),
        }
    }

    async fn detach(&mut self, session: &mut Session) -> Result<Detached, Trouble> {
        session.detach().await?;
        // The hot state is kept: when it is attached again, the numbers of static SAs go on.
        self.enter(ConnectionState::Detached, None);
        let removed = self.fence.retain(&[]).map_err(|error| {
            let message = format!("the data plane has left its interfaces, but routes remain: {error}");
            Failure::new(FailureCode::Refused, message)
        })?;
        tracing::info!("detached by an operator: {removed} blackhole routes removed");
        Ok(Detached { routes_removed: removed })
    }

    /// Adds missing blackhole routes. Gives whether all are there.
    fn raise_fence(&mut self) -> bool {
        let error = self.fence.add(&self.settings.fence).err().map(|error| error.to_string());
        if error.is_some() && error != self.fence_error {
            tracing::error!("{}", error.as_deref().unwrap_or_default());
        }
        self.fence_error = error;
        self.fence_error.is_none()
    }

    /// Notes that there is no data plane; one line for each new reason.
    fn lost(&mut self, reason: String) {
        self.enter(ConnectionState::Unreachable, Some(reason));
    }

    fn enter(&mut self, state: ConnectionState, reason: Option<String>) {
        if state == ConnectionState::Unreachable
            && (self.connection.state != state || self.connection.reason != reason)
        {
            let socket = self.settings.data_plane_socket.display();
            tracing::warn!("data plane not reachable at {socket}: {}", reason.as_deref().unwrap_or_default());
        }
        if self.connection.state != state {
            self.connection.since = Instant::now();
        }
        self.connection.state = state;
        self.connection.reason = reason;
    }

    fn unreachable(&self) -> Failure {
        let message = match self.connection.state {
            ConnectionState::Detached => {
                "detached: `tandemctl config reload` attaches again, once tandem-dataplane runs".to_owned()
            }
            _ => {
                let seconds = self.connection.since.elapsed().as_secs();
                let reason = self.connection.reason.as_deref().unwrap_or_default();
                let socket = self.settings.data_plane_socket.display();
                format!(
                    "data plane not reachable since {seconds} s at {socket} ({reason}); start tandem-dataplane, or look into its log"
                )
            }
        };
        Failure::new(FailureCode::DataPlaneUnreachable, message)
    }

    fn status(&self) -> NodeStatus {
        let Connection { state, since, reason, hello, generation, count } = &self.connection;
        let connected = *state == ConnectionState::Connected;
        let hello = hello.as_ref().filter(|_| connected);
        NodeStatus {
            node: self.settings.node.name.clone(),
            software: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            uptime_s: self.started.elapsed().as_secs(),
            node_key: self.node.public_key(),
            config_file: self.config_file.display().to_string(),
            config_age_s: self.read_at.elapsed().as_secs(),
            last_reload: self.last_reload.as_ref().map(|(at, error)| LastReload {
                ago_s: at.elapsed().as_secs(),
                ok: error.is_none(),
                error: error.clone(),
            }),
            role: hello.map(|hello| hello.role),
            term: hello.map(|hello| hello.term),
            data_plane: DataPlaneStatus {
                state: *state,
                since_s: since.elapsed().as_secs(),
                reason: reason.clone(),
                socket: self.settings.data_plane_socket.display().to_string(),
                pid: hello.map(|hello| hello.pid),
                software: hello.map(|hello| hello.software.clone()),
                hot_state: hello.map(|hello| hello.hot_state),
                generation: generation.filter(|_| connected),
                connections: *count,
            },
            terms: self.node.status(),
            fence: FenceStatus {
                wanted: self.settings.fence.len() as u32,
                in_place: self.fence_error.is_none() && *state != ConnectionState::Detached,
                reason: self.fence_error.clone(),
            },
        }
    }
}

fn json<T: serde::Serialize>(value: &T) -> Result<serde_json::Value, Failure> {
    serde_json::to_value(value).map_err(|error| Failure::new(FailureCode::Busy, error.to_string()))
}

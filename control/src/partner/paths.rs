//! Ways to the partner: listening on each, dialling over one after the other.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;
use tandem_api::operator::{SessionState, SspPeer};
use tandem_api::pair::PairPath;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};

/// Time for a TCP connection: a path that takes longer is tried again after the others.
const CONNECT: Duration = Duration::from_millis(500);
const RETRY_FIRST: Duration = Duration::from_millis(50);
const RETRY_MAX: Duration = Duration::from_secs(1);

/// Binds and listens, for ever; connections go to `accepted`.
pub async fn listen(path: usize, way: PairPath, accepted: mpsc::Sender<(usize, TcpStream)>) {
    let mut said = None;
    loop {
        match bind(&way) {
            Ok(listener) => {
                said = None;
                if accept(path, &way, &listener, &accepted).await.is_none() {
                    return;
                }
            }
            Err(error) => {
                // The address may come later.
                let text = error.to_string();
                if said.as_ref() != Some(&text) {
                    tracing::warn!("path {}: cannot listen on {}: {text}", way.name, way.local);
                    said = Some(text);
                }
            }
        }
        sleep(RETRY_MAX).await;
    }
}

fn bind(way: &PairPath) -> io::Result<TcpListener> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind(way.local.into())?;
    socket.listen(16)
}

/// `None`: nobody takes connections any more.
async fn accept(
    path: usize,
    way: &PairPath,
    listener: &TcpListener,
    accepted: &mpsc::Sender<(usize, TcpStream)>,
) -> Option<()> {
    loop {
        match listener.accept().await {
            // Only who could be the partner gets as far as a handshake.
            Ok((stream, from)) if from.ip() == *way.remote.ip() => {
                accepted.send((path, stream)).await.ok()?
            }
            Ok((_, from)) => tracing::debug!("path {}: {from} is not the partner's address", way.name),
            Err(error) => {
                tracing::warn!("path {}: {error}", way.name);
                return Some(());
            }
        }
    }
}

/// Connects to the partner over `way`.
///
/// # Errors
/// If it does not answer there.
pub async fn dial(way: PairPath) -> io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(SocketAddr::new((*way.local.ip()).into(), 0))?;
    let late = |_| io::Error::new(io::ErrorKind::TimedOut, "no answer within 500 ms");
    timeout(CONNECT, socket.connect(way.remote.into())).await.map_err(late)?
}

/// The order in which paths are tried, and the pauses.
#[derive(Debug)]
pub struct Turn {
    paths: usize,
    next: usize,
    pause: Duration,
    due: Instant,
}

impl Turn {
    /// Starts with the first path, `lead` from now.
    pub fn new(paths: usize, lead: Duration) -> Self {
        Self { paths, next: 0, pause: RETRY_FIRST, due: Instant::now() + lead }
    }

    /// When the next attempt is due.
    pub fn due(&self) -> Instant {
        self.due
    }

    /// The path of the next attempt.
    pub fn path(&self) -> usize {
        self.next
    }

    /// An attempt over the path has failed. At once the next path; after the last one a pause that grows.
    pub fn failed(&mut self) {
        self.next += 1;
        self.due = Instant::now() + RETRY_FIRST;
        if self.next >= self.paths {
            self.next = 0;
            self.due = Instant::now() + self.pause;
            self.pause = (self.pause * 2).min(RETRY_MAX);
        }
    }

    /// The partner was there and the two do not work together: again after a second.
    pub fn refused(&mut self) {
        self.due = Instant::now() + RETRY_MAX;
    }

    /// A session that worked is gone: from the first path on, `lead` from now.
    pub fn start_again(&mut self, lead: Duration) {
        (self.next, self.pause, self.due) = (0, RETRY_FIRST, Instant::now() + lead);
    }
}

/// What is known of a path, for operators.
#[derive(Debug)]
pub struct PathState {
    state: SessionState,
    since: Instant,
    reason: Option<String>,
}

impl PathState {
    /// Not tried yet.
    pub fn new() -> Self {
        Self { state: SessionState::Down, since: Instant::now(), reason: None }
    }

    /// Notes what it is now. Gives whether that is news.
    pub fn enter(&mut self, state: SessionState, reason: Option<String>) -> bool {
        let news = self.state != state || self.reason != reason;
        if self.state != state {
            self.since = Instant::now();
        }
        (self.state, self.reason) = (state, reason);
        news
    }

    /// For operators.
    pub fn report(&self, way: &PairPath, in_use: bool) -> SspPeer {
        SspPeer {
            path: way.name.clone(),
            local: way.local.to_string(),
            remote: way.remote.to_string(),
            in_use,
            state: self.state,
            since_s: self.since.elapsed().as_secs(),
            reason: self.reason.clone(),
        }
    }
}

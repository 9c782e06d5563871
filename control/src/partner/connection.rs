//! The octets of one TCP connection, both ways, in a task of its own.

use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// Frames that wait for the socket: few, so that the stream is read late and the partner's window paces it.
const FRAMES: usize = 4;
/// How long what was said last may take to reach a partner that reads no more.
const LINGER: Duration = Duration::from_secs(1);
const CHUNK: usize = 16 * 1024;

/// What was heard of a connection.
#[derive(Debug)]
pub enum Heard {
    /// Octets.
    Octets(Vec<u8>),
    /// A frame is out: there is room for another.
    Room,
    /// It is over.
    Closed(String),
}

/// The way to a connection. Dropped: what was given still goes out, then it is closed.
#[derive(Debug)]
pub struct Connection {
    frames: mpsc::Sender<Vec<u8>>,
    task: JoinHandle<()>,
}

impl Connection {
    /// Carries `stream`'s octets; what comes is said to `heard` under `id`.
    pub fn start(id: u64, stream: TcpStream, heard: mpsc::Sender<(u64, Heard)>) -> Self {
        // Small messages that wait for others would only cost time. Without it they are late, not wrong.
        let _ = stream.set_nodelay(true);
        let (frames, waiting) = mpsc::channel(FRAMES);
        let task = tokio::spawn(carry(id, stream, waiting, heard));
        Self { frames, task }
    }

    /// Room for a frame.
    pub fn room(&self) -> Option<mpsc::Permit<'_, Vec<u8>>> {
        self.frames.try_reserve().ok()
    }

    /// Does nothing go out any more?
    pub fn is_closed(&self) -> bool {
        self.frames.is_closed()
    }

    /// Closes it at once.
    pub fn abort(&self) {
        self.task.abort();
    }
}

async fn carry(
    id: u64,
    stream: TcpStream,
    frames: mpsc::Receiver<Vec<u8>>,
    heard: mpsc::Sender<(u64, Heard)>,
) {
    let (mut read, write) = stream.into_split();
    let reason = tokio::select! {
        reason = listen(id, &mut read, &heard) => reason,
        written = speak(id, write, frames, &heard) => match written {
            Ok(()) => {
                // Said all. What still comes is taken off the socket: closing it before would reset the connection, and
                // with it what was said last.
                let mut rest = [0; 1024];
                let drain = async { while matches!(read.read(&mut rest).await, Ok(1..)) {} };
                let _ = timeout(LINGER, drain).await;
                return;
            }
            Err(error) => error.to_string(),
        },
    };
    let _ = heard.send((id, Heard::Closed(reason))).await;
}

async fn listen(id: u64, read: &mut OwnedReadHalf, heard: &mpsc::Sender<(u64, Heard)>) -> String {
    loop {
        let mut octets = Vec::with_capacity(CHUNK);
        match read.read_buf(&mut octets).await {
            Ok(0) => return "closed by the partner".to_owned(),
            Ok(_) if heard.send((id, Heard::Octets(octets))).await.is_ok() => {}
            Ok(_) => return "ended".to_owned(),
            Err(error) => return error.to_string(),
        }
    }
}

async fn speak(
    id: u64,
    mut write: OwnedWriteHalf,
    mut frames: mpsc::Receiver<Vec<u8>>,
    heard: &mpsc::Sender<(u64, Heard)>,
) -> std::io::Result<()> {
    while let Some(frame) = frames.recv().await {
        write.write_all(&frame).await?;
        // Without anybody who listens there is nobody who waits for room.
        let _ = heard.send((id, Heard::Room)).await;
    }
    write.shutdown().await
}

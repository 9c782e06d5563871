//! The operator's socket: one JSON object a line. Hostile input costs its own connection at most.

use nix::unistd::{Group, chown};
use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tandem_api::operator::{Answer, Failure, FailureCode, Method, QUESTION_MAX, Question};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::timeout;

/// Operators at one time; others wait.
const CONNECTIONS: usize = 64;
/// How long an operator may be silent, and take to read an answer.
const IDLE: Duration = Duration::from_secs(120);
/// How long the control process may take for an answer.
const ANSWER: Duration = Duration::from_secs(20);

/// A question on its way to the control process.
#[derive(Debug)]
pub struct Order {
    /// What is asked.
    pub method: Method,
    /// Where the answer goes.
    pub reply: oneshot::Sender<Result<serde_json::Value, Failure>>,
}

/// Binds the socket: mode 0660, of `group` if one is named. What an earlier process left is replaced.
///
/// # Errors
/// If another process listens there, or the path or group cannot be used.
pub fn bind(path: &Path, group: Option<&str>) -> io::Result<UnixListener> {
    let explain = |error: io::Error| {
        io::Error::new(error.kind(), format!("operator's socket {}: {error}", path.display()))
    };
    let group = match group {
        None => None,
        Some(name) => {
            let found = Group::from_name(name).map_err(io::Error::from).map_err(explain)?;
            let missing = || {
                let message =
                    format!("there is no group {name}: `groupadd --system {name}`, or change control-group");
                explain(io::Error::new(io::ErrorKind::NotFound, message))
            };
            Some(found.ok_or_else(missing)?.gid)
        }
    };
    if let Some(folder) = path.parent() {
        fs::DirBuilder::new().recursive(true).mode(0o755).create(folder).map_err(explain)?;
    }
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(explain(error)),
        Ok(metadata) if !metadata.file_type().is_socket() => {
            let message = "something that is no socket is there: remove it, or change control-socket";
            return Err(explain(io::Error::new(io::ErrorKind::AlreadyExists, message)));
        }
        Ok(_) => match std::os::unix::net::UnixStream::connect(path) {
            Ok(_) => {
                let message = "another tandem-control answers there: stop it first";
                return Err(explain(io::Error::new(io::ErrorKind::AddrInUse, message)));
            }
            Err(_) => fs::remove_file(path).map_err(explain)?,
        },
    }
    // Nobody but the owner can connect until group and mode are right.
    let before = nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o177));
    let listener = UnixListener::bind(path);
    nix::sys::stat::umask(before);
    let listener = listener.map_err(explain)?;
    if let Some(gid) = group {
        chown(path, None, Some(gid)).map_err(io::Error::from).map_err(explain)?;
    }
    fs::set_permissions(path, fs::Permissions::from_mode(0o660)).map_err(explain)?;
    Ok(listener)
}

/// Serves operators for ever.
pub async fn serve(listener: UnixListener, orders: mpsc::Sender<Order>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        // The semaphore is never closed.
        let Ok(place) = places.clone().acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let orders = orders.clone();
                tokio::spawn(async move {
                    // An operator that goes away is no error.
                    let _ = converse(stream, &orders).await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!("operator's socket: {error}");
                // Most likely no descriptor is left: some will be.
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn converse(stream: UnixStream, orders: &mpsc::Sender<Order>) -> io::Result<()> {
    let (read, mut write) = stream.into_split();
    let mut read = BufReader::new(read);
    loop {
        let Some(line) = timeout(IDLE, next_line(&mut read)).await?? else { return Ok(()) };
        if line.len() > QUESTION_MAX {
            let message =
                format!("a question is a line of at most {QUESTION_MAX} octets; the connection ends");
            let failure = Failure::new(FailureCode::TooLong, message);
            return send(&mut write, 0, Err(failure)).await;
        }
        if line.trim_ascii().is_empty() {
            continue;
        }
        let (id, result) = match Question::parse(&line) {
            Ok((id, method)) => (id, ask(method, orders).await),
            Err((id, failure)) => (id, Err(failure)),
        };
        send(&mut write, id, result).await?;
    }
}

/// A line without its end, or `None` at the end of the stream. Of a line that is too long just enough to
/// see that it is.
async fn next_line(read: &mut BufReader<OwnedReadHalf>) -> io::Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    let count = read.take(QUESTION_MAX as u64 + 2).read_until(b'\n', &mut line).await?;
    if count == 0 {
        return Ok(None);
    }
    if line.last() == Some(&b'\n') {
        line.pop();
    }
    Ok(Some(line))
}

async fn ask(method: Method, orders: &mpsc::Sender<Order>) -> Result<serde_json::Value, Failure> {
    let busy = || {
        let message = format!("tandem-control did not answer within {} s; try again", ANSWER.as_secs());
        Failure::new(FailureCode::Busy, message)
    };
    let (reply, answer) = oneshot::channel();
    let exchange = async {
        orders.send(Order { method, reply }).await.map_err(|_| busy())?;
        answer.await.map_err(|_| busy())?
    };
    timeout(ANSWER, exchange).await.unwrap_or_else(|_| Err(busy()))
}

async fn send(
    write: &mut OwnedWriteHalf,
    id: u64,
    result: Result<serde_json::Value, Failure>,
) -> io::Result<()> {
    let (result, error) = match result {
        Ok(value) => (Some(value), None),
        Err(failure) => (None, Some(failure)),
    };
    let mut line = serde_json::to_vec(&Answer { id, result, error })?;
    line.push(b'\n');
    timeout(IDLE, write.write_all(&line)).await?
}

//! The asking end of the operator's socket.

use serde::de::DeserializeOwned;
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tandem_api::operator::{Answer, Failure, Method, Question};

/// Longer than the control process takes for any answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// A connection to the control process.
#[derive(Debug)]
pub struct Client {
    socket: PathBuf,
    stream: BufReader<UnixStream>,
    next_id: u64,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody answers.
    #[error("tandem-control not reachable at {socket}: {error}; {cure}")]
    Unreachable {
        /// Where it was looked for.
        socket: PathBuf,
        /// What the kernel said.
        error: io::Error,
        /// What to do.
        cure: &'static str,
    },
    /// The control process refused.
    #[error(transparent)]
    Refused(#[from] Failure),
    /// An answer that cannot be understood.
    #[error("tandem-control gave an answer that tandemctl does not know: {0}; use programs of one version")]
    Protocol(String),
}

impl Client {
    /// Connects to `socket`.
    pub fn connect(socket: &Path) -> Result<Self, ClientError> {
        let connect = || {
            let stream = UnixStream::connect(socket)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            stream.set_write_timeout(Some(PATIENCE))?;
            Ok(stream)
        };
        let stream = connect().map_err(|error| unreachable(socket, error))?;
        Ok(Self { socket: socket.to_owned(), stream: BufReader::new(stream), next_id: 1 })
    }

    /// Asks and waits for the answer.
    pub fn ask<T: DeserializeOwned>(&mut self, method: Method) -> Result<T, ClientError> {
        let id = self.next_id;
        self.next_id += 1;
        let protocol = |error: serde_json::Error| ClientError::Protocol(error.to_string());
        let mut line = serde_json::to_vec(&Question::new(id, method)).map_err(protocol)?;
        line.push(b'\n');
        let mut answer = String::new();
        let mut exchange = |stream: &mut BufReader<UnixStream>| {
            stream.get_mut().write_all(&line)?;
            stream.read_line(&mut answer)
        };
        let count = exchange(&mut self.stream).map_err(|error| unreachable(&self.socket, error))?;
        if count == 0 {
            let error = io::Error::new(io::ErrorKind::UnexpectedEof, "it closed the connection");
            return Err(unreachable(&self.socket, error));
        }
        let answer: Answer = serde_json::from_str(&answer).map_err(protocol)?;
        match answer {
            Answer { error: Some(failure), .. } => Err(failure.into()),
            Answer { id: got, .. } if got != id => {
                Err(ClientError::Protocol(format!("answer {got} to question {id}")))
            }
            Answer { result: Some(value), .. } => serde_json::from_value(value).map_err(protocol),
            Answer { .. } => Err(ClientError::Protocol("neither result nor error".to_owned())),
        }
    }
}

fn unreachable(socket: &Path, error: io::Error) -> ClientError {
    let cure = match error.kind() {
        io::ErrorKind::PermissionDenied => "join the group of the socket, or use sudo",
        _ => "start tandem-control, or name its socket with --socket",
    };
    ClientError::Unreachable { socket: socket.to_owned(), error, cure }
}

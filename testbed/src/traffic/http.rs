//! A download by HTTP with a checksum.

use crate::lab::{Namespace, Process, run};
use anyhow::{Context, Result, ensure};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// What a download brought.
#[derive(Clone, Debug)]
pub struct Download {
    /// SHA-256 of the file that was served.
    pub served: String,
    /// SHA-256 of the file that arrived.
    pub arrived: String,
    /// Mbit/s.
    pub mbit: f64,
}

/// A download that runs.
#[derive(Debug)]
pub struct Fetch {
    curl: Process,
    source: PathBuf,
    target: PathBuf,
    octets: u64,
    start: Instant,
}

/// Serves a file of `octets` random octets in one namespace and fetches it in the other (curl).
///
/// # Errors
/// Where the server cannot listen or curl fails.
pub fn download(
    server: (&Namespace, Ipv4Addr),
    client: &Namespace,
    folder: &Path,
    port: u16,
    octets: u64,
) -> Result<Download> {
    Fetch::start(server, client, folder, port, octets, &["--max-time", "60"])?.finish()
}

impl Fetch {
    /// Starts serving and fetching; `more` are arguments of curl.
    ///
    /// # Errors
    /// Where the server cannot listen or curl cannot be started.
    pub fn start(
        (server, address): (&Namespace, Ipv4Addr),
        client: &Namespace,
        folder: &Path,
        port: u16,
        octets: u64,
        more: &[&str],
    ) -> Result<Self> {
        let (source, target) =
            (folder.join(format!("http-{port}-served")), folder.join(format!("http-{port}-arrived")));
        let mut file = Vec::new();
        std::fs::File::open("/dev/urandom")?.take(octets).read_to_end(&mut file)?;
        std::fs::write(&source, &file)?;
        let listener =
            server.enter(|| TcpListener::bind((address, port)).context("binding the HTTP server"))?;
        // One request is answered; where none comes, curl's end is what counts and the thread ends with the process.
        std::thread::spawn(move || listener.accept().map(|(connection, _)| serve(connection, &file)));
        let start = Instant::now();
        let url = format!("http://{address}:{port}/file");
        let to = target.to_str().context("a path that is no UTF-8")?;
        let mut arguments = vec!["-sS", "--fail", "--noproxy", "*", "--connect-timeout", "5", "-o", to];
        arguments.extend_from_slice(more);
        arguments.push(&url);
        let curl = client.start(&format!("http-{port}-curl"), "curl", &arguments)?;
        Ok(Self { curl, source, target, octets, start })
    }

    /// Does it still run?
    pub fn is_running(&mut self) -> bool {
        self.curl.is_alive()
    }

    /// Waits for its end and compares what was served with what arrived.
    ///
    /// # Errors
    /// With curl's own words where it failed.
    pub fn finish(mut self) -> Result<Download> {
        let status = self.curl.wait(Duration::from_secs(120))?;
        let seconds = self.start.elapsed().as_secs_f64();
        ensure!(status.success(), "curl ended with {status}: {}", self.curl.log().trim());
        let result = Download {
            served: sha256(&self.source)?,
            arrived: sha256(&self.target)?,
            mbit: crate::report::count(self.octets) * 8.0 / seconds / 1e6,
        };
        std::fs::remove_file(&self.source)?;
        std::fs::remove_file(&self.target)?;
        Ok(result)
    }
}

/// Answers one request, whatever it asks for, with the file. (Python's http.server asks the name service
/// for its own name first, which a namespace does not have.)
fn serve(connection: TcpStream, file: &[u8]) -> std::io::Result<()> {
    let mut request = BufReader::new(connection);
    let mut line = String::new();
    while request.read_line(&mut line)? > 2 {
        line.clear();
    }
    let mut connection = request.into_inner();
    write!(
        connection,
        "HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        file.len()
    )?;
    connection.write_all(file)
}

fn sha256(file: &Path) -> Result<String> {
    let output = run(Command::new("sha256sum").arg(file))?;
    Ok(output.split_whitespace().next().context("sha256sum said nothing")?.to_owned())
}

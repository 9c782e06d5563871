//! A download by HTTP with a checksum.

use crate::lab::{Namespace, run};
use anyhow::{Context, Result, ensure};
use std::net::{Ipv4Addr, TcpStream};
use std::path::Path;
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

/// Serves a file of `octets` random octets in one namespace (Python's http.server) and fetches it in
/// the other (curl).
///
/// # Errors
/// Where the server does not start or curl fails.
pub fn download(
    (server, address): (&Namespace, Ipv4Addr),
    client: &Namespace,
    folder: &Path,
    port: u16,
    octets: u64,
) -> Result<Download> {
    let site = folder.join(format!("http-{port}"));
    std::fs::create_dir_all(&site)?;
    let (source, target) = (site.join("file"), folder.join(format!("http-{port}-arrived")));
    let mut random = std::io::Read::take(std::fs::File::open("/dev/urandom")?, octets);
    std::io::copy(&mut random, &mut std::fs::File::create(&source)?)?;
    let directory = site.to_str().context("a path that is no UTF-8")?;
    let _server = server.start(
        &format!("http-{port}"),
        "/usr/bin/python3",
        &["-m", "http.server", &port.to_string(), "--bind", &address.to_string(), "--directory", directory],
    )?;
    let end = Instant::now() + Duration::from_secs(10);
    while server.enter(|| Ok(TcpStream::connect((address, port))?)).is_err() {
        ensure!(Instant::now() < end, "the HTTP server does not listen");
        std::thread::sleep(Duration::from_millis(50));
    }
    let start = Instant::now();
    run(client
        .command("curl")
        .args(["-sS", "--fail", "--noproxy", "*", "--connect-timeout", "5", "--max-time", "60", "-o"])
        .arg(&target)
        .arg(format!("http://{address}:{port}/file")))?;
    let seconds = start.elapsed().as_secs_f64();
    let result = Download {
        served: sha256(&source)?,
        arrived: sha256(&target)?,
        mbit: crate::report::count(octets) * 8.0 / seconds / 1e6,
    };
    std::fs::remove_dir_all(&site)?;
    std::fs::remove_file(&target)?;
    Ok(result)
}

fn sha256(file: &Path) -> Result<String> {
    let output = run(Command::new("sha256sum").arg(file))?;
    Ok(output.split_whitespace().next().context("sha256sum said nothing")?.to_owned())
}

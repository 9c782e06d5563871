//! Recording a device with tcpdump. A capture that lost frames proves nothing, so its own drops are read.

use crate::lab::{Namespace, Process};
use anyhow::{Context, Result};
use nix::sys::signal::Signal;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Kernel buffer of a capture in KiB: some seconds of full load while the disk is slow.
const BUFFER_KIB: &str = "262144";

/// A capture that runs.
#[derive(Debug)]
pub struct Capture {
    process: Process,
    file: PathBuf,
}

/// A capture that has ended.
#[derive(Clone, Debug)]
pub struct Recorded {
    /// The pcap file.
    pub file: PathBuf,
    /// Frames that tcpdump wrote.
    pub frames: u64,
    /// Frames that the kernel dropped because tcpdump was slow.
    pub dropped: u64,
}

impl Capture {
    /// Starts recording `device`; `filter` is tcpdump's, empty for everything.
    ///
    /// # Errors
    /// Where tcpdump does not start.
    pub fn start(
        namespace: &Namespace,
        folder: &Path,
        name: &str,
        device: &str,
        filter: &str,
    ) -> Result<Self> {
        let file = folder.join(format!("{name}.pcap"));
        let path = file.to_str().context("a path that is no UTF-8")?;
        let mut arguments = vec![
            "-i",
            device,
            "-w",
            path,
            "-B",
            BUFFER_KIB,
            "-s",
            "0",
            "-n",
            "-Z",
            "root",
            "--time-stamp-precision=nano",
        ];
        if !filter.is_empty() {
            arguments.push(filter);
        }
        let mut process = namespace.start(&format!("tcpdump-{name}"), "tcpdump", &arguments)?;
        process.wait_for_log("listening on", Duration::from_secs(10))?;
        Ok(Self { process, file })
    }

    /// Ends the capture and reads tcpdump's own account.
    ///
    /// # Errors
    /// Where tcpdump does not end or gives no account.
    pub fn stop(self) -> Result<Recorded> {
        settle();
        self.end()
    }

    /// Ends several captures.
    ///
    /// # Errors
    /// As [`Self::stop`].
    pub fn stop_all(captures: Vec<Self>) -> Result<Vec<Recorded>> {
        settle();
        captures.into_iter().map(Self::end).collect()
    }

    /// Waits until what has passed so far is in the file, and gives the file. The capture goes on.
    ///
    /// # Errors
    /// Where tcpdump has ended.
    pub fn so_far(&mut self) -> Result<&Path> {
        settle();
        anyhow::ensure!(self.process.is_alive(), "tcpdump ended: {}", self.process.log().trim());
        // It writes its buffer out on this signal; the last record may still be cut, and is left out then.
        self.process.signal(Signal::SIGUSR2);
        std::thread::sleep(Duration::from_millis(200));
        Ok(&self.file)
    }

    fn end(mut self) -> Result<Recorded> {
        self.process.signal(Signal::SIGINT);
        self.process.wait(Duration::from_secs(30))?;
        let log = self.process.log();
        Ok(Recorded {
            frames: account(&log, "packets captured")
                .with_context(|| format!("tcpdump gave no account: {log}"))?,
            dropped: account(&log, "dropped by kernel")
                .with_context(|| format!("tcpdump gave no account: {log}"))?,
            file: self.file,
        })
    }
}

/// tcpdump gets a block of frames when it is full or a second old, and reads none after the signal.
fn settle() {
    std::thread::sleep(Duration::from_millis(1300));
}

fn account(log: &str, what: &str) -> Option<u64> {
    let line = log
        .lines()
        .rev()
        .find(|line| line.contains(what) || line.contains(&what.replace("packets", "packet")))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::account;

    #[test]
    fn the_account_of_tcpdump_is_read() {
        let log =
            "listening on x\n1 packet captured\n12 packets received by filter\n3 packets dropped by kernel\n";
        assert_eq!(account(log, "packets captured"), Some(1));
        assert_eq!(account(log, "dropped by kernel"), Some(3));
        assert_eq!(account("listening on x", "dropped by kernel"), None);
    }
}

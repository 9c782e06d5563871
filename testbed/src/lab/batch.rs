//! An `ip -batch` that waits for its lines, so that links change without the start of a process.

use super::{Namespace, registry};
use anyhow::{Context, Result, ensure};
use std::io::Write as _;
use std::process::{Child, ChildStdin, Stdio};
use std::time::{Duration, Instant};

/// A running `ip -batch -`.
#[derive(Debug)]
pub struct IpBatch {
    child: Child,
    lines: Option<ChildStdin>,
}

impl IpBatch {
    /// Starts it and waits until it is ready for lines.
    ///
    /// # Errors
    /// Where it cannot be started.
    pub fn start(namespace: &Namespace) -> Result<Self> {
        let mut command = namespace.command("ip");
        command.args(["-batch", "-"]).stdin(Stdio::piped()).stdout(Stdio::null());
        let mut child = command.spawn().with_context(|| format!("starting {command:?}"))?;
        registry::add_process(child.id());
        let lines = child.stdin.take();
        let batch = Self { child, lines };
        // Its helpers replace themselves by it; a line that came earlier would wait in the pipe.
        let end = Instant::now() + Duration::from_secs(2);
        let name = format!("/proc/{}/comm", batch.child.id());
        while std::fs::read_to_string(&name).context("ip -batch ended at once")?.trim() != "ip" {
            ensure!(Instant::now() < end, "ip -batch did not start within two seconds");
            std::thread::sleep(Duration::from_millis(1));
        }
        std::thread::sleep(Duration::from_millis(5));
        Ok(batch)
    }

    /// Gives it a line, such as `link set eth0 down`.
    ///
    /// # Errors
    /// Where it has ended.
    pub fn line(&mut self, line: &str) -> Result<()> {
        let lines = self.lines.as_mut().context("ip -batch has ended")?;
        writeln!(lines, "{line}").context("ip -batch has ended")
    }

    /// Waits until every line is done.
    ///
    /// # Errors
    /// Where one failed.
    pub fn finish(mut self) -> Result<()> {
        self.lines = None;
        let status = self.child.wait()?;
        ensure!(status.success(), "ip -batch ended with {status}");
        Ok(())
    }
}

impl Drop for IpBatch {
    fn drop(&mut self) {
        self.lines = None;
        let _ = self.child.wait();
        registry::remove_process(self.child.id());
    }
}

//! A process that is remembered by its process id and ended with its handle.

use super::registry;
use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, Instant};

/// A running process; dropping it ends it (SIGTERM, then SIGKILL after two seconds).
#[derive(Debug)]
pub struct Process {
    child: Child,
    name: String,
    log: PathBuf,
    ended: Option<ExitStatus>,
}

impl Process {
    /// Starts `command` in a process group of its own (a Ctrl-C goes to the runner alone), with both outputs appended to `log`.
    ///
    /// # Errors
    /// Where it cannot be started.
    pub fn start(name: &str, mut command: Command, log: &Path) -> Result<Self> {
        let file = File::options()
            .create(true)
            .append(true)
            .open(log)
            .with_context(|| format!("opening {}", log.display()))?;
        command.stdout(file.try_clone()?).stderr(file).process_group(0);
        let child = command.spawn().with_context(|| format!("starting {name}: {command:?}"))?;
        registry::add_process(child.id());
        Ok(Self { child, name: name.to_owned(), log: log.to_owned(), ended: None })
    }

    /// Process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Its log so far.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read(&self.log)
            .map(|octets| String::from_utf8_lossy(&octets).into_owned())
            .unwrap_or_default()
    }

    /// Has it not ended yet?
    pub fn is_alive(&mut self) -> bool {
        self.poll().is_none()
    }

    /// Sends a signal. A process that has ended already is not signalled.
    pub fn signal(&mut self, signal: Signal) {
        if self.poll().is_none()
            && let Ok(id) = i32::try_from(self.child.id())
        {
            // The child is not reaped yet, so that the id cannot belong to another process.
            let _ = kill(Pid::from_raw(id), signal);
        }
    }

    /// `kill -9`, and waits until it is gone.
    pub fn kill(&mut self) {
        self.signal(Signal::SIGKILL);
        let _ = self.wait(Duration::from_secs(5));
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// Where it has not ended after `limit`.
    pub fn wait(&mut self, limit: Duration) -> Result<ExitStatus> {
        let end = Instant::now() + limit;
        loop {
            if let Some(status) = self.poll() {
                return Ok(status);
            }
            if Instant::now() >= end {
                bail!("{} has not ended after {limit:?}", self.name);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Waits until its log holds `text`.
    ///
    /// # Errors
    /// Where it ends before, or does not say so within `limit`.
    pub fn wait_for_log(&mut self, text: &str, limit: Duration) -> Result<()> {
        let end = Instant::now() + limit;
        while !self.log().contains(text) {
            if let Some(status) = self.poll() {
                bail!("{} ended with {status}: {}", self.name, self.log().trim());
            }
            if Instant::now() >= end {
                bail!("{} did not say `{text}` within {limit:?}: {}", self.name, self.log().trim());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    fn poll(&mut self) -> Option<ExitStatus> {
        if self.ended.is_none()
            && let Ok(Some(status)) = self.child.try_wait()
        {
            registry::remove_process(self.child.id());
            self.ended = Some(status);
        }
        self.ended
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.signal(Signal::SIGTERM);
        if self.wait(Duration::from_secs(2)).is_err() {
            self.kill();
        }
    }
}

//! How long threads have had a core: whether a measurement had its core to itself.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};

/// Threads whose CPU time is read.
#[derive(Clone, Debug)]
pub struct Threads(Vec<PathBuf>);

impl Threads {
    /// The calling thread.
    pub fn this() -> Self {
        Self(vec![PathBuf::from(format!("/proc/self/task/{}/schedstat", nix::unistd::gettid()))])
    }

    /// Every thread of some processes.
    pub fn of_processes(ids: impl IntoIterator<Item = u32>) -> Result<Self> {
        let mut threads = Vec::new();
        for id in ids {
            for thread in
                std::fs::read_dir(format!("/proc/{id}/task")).with_context(|| format!("process {id}"))?
            {
                threads.push(thread?.path().join("schedstat"));
            }
        }
        Ok(Self(threads))
    }

    /// The kernel's thread for soft interrupts of a core: a part of what a device there costs.
    pub fn soft_interrupts(core: usize) -> Result<Self> {
        let name = format!("ksoftirqd/{core}");
        let is_it = |folder: &Path| {
            std::fs::read_to_string(folder.join("comm")).is_ok_and(|comm| comm.trim() == name)
        };
        let threads = std::fs::read_dir("/proc")?
            .filter_map(Result::ok)
            .map(|entry| entry.path())
            .find(|folder| is_it(folder))
            .map(|folder| folder.join("schedstat"));
        Ok(Self(threads.into_iter().collect()))
    }

    /// These and those.
    pub fn and(mut self, others: &Threads) -> Self {
        self.0.extend_from_slice(&others.0);
        self
    }

    /// How long they have run, together. One that has ended counts no more.
    pub fn time(&self) -> Duration {
        self.0.iter().filter_map(|schedstat| time(schedstat)).sum()
    }
}

/// The first number of a `schedstat` file: nanoseconds on a core.
pub fn time(schedstat: &Path) -> Option<Duration> {
    let text = std::fs::read_to_string(schedstat).ok()?;
    Some(Duration::from_nanos(text.split_whitespace().next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    #[test]
    fn a_thread_that_sleeps_has_run_less_than_one_that_works() {
        let threads = Threads::this();
        let start = threads.time();
        std::thread::sleep(Duration::from_millis(30));
        let slept = threads.time() - start;
        let work = Instant::now();
        while work.elapsed() < Duration::from_millis(30) {
            std::hint::spin_loop();
        }
        let worked = threads.time() - start - slept;
        assert!(worked > slept, "{slept:?} asleep, {worked:?} at work");
    }

    #[test]
    fn the_threads_of_this_process_and_those_for_soft_interrupts_are_found() {
        assert!(!Threads::of_processes([std::process::id()]).expect("this process").0.is_empty());
        assert_eq!(Threads::soft_interrupts(0).expect("/proc").0.len(), 1);
    }
}

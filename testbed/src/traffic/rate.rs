//! Throughput of a device over time.

use crate::lab::Namespace;
use anyhow::Result;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Samples what a device receives.
#[derive(Debug)]
pub struct Rate {
    stop: Arc<AtomicBool>,
    start: Instant,
    thread: JoinHandle<Vec<(f64, f64)>>,
}

impl Rate {
    /// Starts sampling every 100 ms.
    #[must_use]
    pub fn start(namespace: &Namespace, device: &str) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let start = Instant::now();
        let thread = std::thread::spawn({
            let (stop, namespace, device) = (Arc::clone(&stop), namespace.clone(), device.to_owned());
            move || sample(&namespace, &device, &stop, start)
        });
        Self { stop, start, thread }
    }

    /// Seconds since the start, for marks in a figure.
    #[must_use]
    pub fn now(&self) -> f64 {
        self.start.elapsed().as_secs_f64()
    }

    /// A moment in seconds since the start.
    #[must_use]
    pub fn second_of(&self, at: Instant) -> f64 {
        at.saturating_duration_since(self.start).as_secs_f64()
    }

    /// Ends sampling: (seconds since the start, Mbit/s received).
    ///
    /// # Errors
    /// Where the thread panicked.
    pub fn stop(self) -> Result<Vec<(f64, f64)>> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().map_err(|_| anyhow::anyhow!("the sampler panicked"))
    }
}

fn sample(namespace: &Namespace, device: &str, stop: &AtomicBool, start: Instant) -> Vec<(f64, f64)> {
    let mut samples = Vec::new();
    let mut last = None;
    while !stop.load(Ordering::Relaxed) {
        if let Ok((octets, _)) = namespace.octets(device) {
            let now = start.elapsed().as_secs_f64();
            if let Some((then, before)) = last {
                samples.push((
                    now,
                    crate::report::count(octets.saturating_sub(before)) * 8.0 / (now - then) / 1e6,
                ));
            }
            last = Some((now, octets));
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    samples
}

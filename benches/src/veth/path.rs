//! Generator, device under test and sink, in three network namespaces joined by two veth pairs.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use tandem_testbed::lab::{Lab, Namespace};

use crate::pin::{self, Role};
use crate::veth::bpf::{Arrived, Attached, Generator};
use crate::veth::xsk::Forwarder;

/// The device's interfaces.
pub const INSIDE: &str = "in0";
/// Towards the sink.
pub const OUTSIDE: &str = "out0";
/// The sink's interface.
pub const SINK: &str = "sink0";
const SOURCE: &str = "gen0";
/// Traffic that goes before the time is taken: rings and neighbours are filled by then.
const WARM_UP: Duration = Duration::from_millis(200);

/// One generator, one device, one sink.
pub struct Path {
    source: Namespace,
    /// Where the device under test is.
    pub gateway: Namespace,
    /// Where frames end.
    pub sink: Namespace,
    generator: Generator,
    counter: Attached,
}

/// What went through in a measurement.
#[derive(Clone, Copy, Debug)]
pub struct Passed {
    /// Frames a second that the generator sent.
    pub offered: f64,
    /// Frames a second that arrived at the sink, whatever they were.
    pub arrived: f64,
    /// Frames at the sink by what they were.
    pub frames: Arrived,
}

impl Path {
    /// Makes namespaces (their names start with `name`), links, generator and sink.
    pub fn build(lab: &mut Lab, name: &str) -> Result<Self> {
        let source = lab.namespace(&format!("{name}-gen"))?;
        let gateway = lab.namespace(&format!("{name}-gw"))?;
        let sink = lab.namespace(&format!("{name}-sink"))?;
        lab.link((&source, SOURCE), (&gateway, INSIDE), 1)?;
        lab.link((&gateway, OUTSIDE), (&sink, SINK), 1)?;
        let generator = source.enter(|| Generator::new(SOURCE))?;
        let counter = sink.enter(|| Attached::count_and_drop(SINK))?;
        Ok(Self { source, gateway, sink, generator, counter })
    }

    /// Frames a second that the generator reaches when the device drops all of them in XDP.
    pub fn generator_alone(&self, frame: &[u8], duration: Duration) -> Result<f64> {
        let device = self.gateway.enter(|| Attached::count_and_drop(INSIDE))?;
        let start = Instant::now();
        self.measure(frame, None, duration)?;
        // What did arrive, and not what was offered: the ring of a veth overflows silently.
        Ok(device.arrived()?.udp as f64 / start.elapsed().as_secs_f64())
    }

    /// Sends for `duration` (after a warm-up) and counts what arrives. A `forwarder` runs on the core under test
    /// meanwhile; without one, something else forwards.
    pub fn measure(
        &self,
        frame: &[u8],
        forwarder: Option<&mut Forwarder>,
        duration: Duration,
    ) -> Result<Passed> {
        let ended = AtomicBool::new(false);
        let (source, generator, counter) = (&self.source, &self.generator, &self.counter);
        std::thread::scope(|scope| {
            let mut threads = vec![scope.spawn(|| {
                source.enter(|| {
                    pin::this_thread(Role::Generator)?;
                    generator.run(frame, &ended)
                })
            })];
            if let Some(forwarder) = forwarder {
                threads.push(scope.spawn(|| {
                    pin::this_thread(Role::UnderTest)?;
                    forwarder.run(&ended)
                }));
            }
            std::thread::sleep(WARM_UP);
            let take = || anyhow::Ok((Instant::now(), generator.offered()?, counter.arrived()?));
            let before = take();
            std::thread::sleep(duration);
            let after = take();
            ended.store(true, Ordering::Relaxed);
            for thread in threads {
                thread.join().ok().context("a thread of the measurement panicked")??;
            }
            let ((start, offered_before, arrived_before), (end, offered_after, arrived_after)) =
                (before?, after?);
            let seconds = (end - start).as_secs_f64();
            let frames = arrived_after - arrived_before;
            Ok(Passed {
                offered: (offered_after - offered_before) as f64 / seconds,
                arrived: (frames.udp + frames.esp + frames.other) as f64 / seconds,
                frames,
            })
        })
    }
}

//! Generator, device under test and sink, in three network namespaces joined by two veth pairs.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use tandem_testbed::lab::{Lab, Namespace};

use crate::cpu::Threads;
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
    soft_interrupts: Threads,
}

/// What forwards.
pub enum Device<'a> {
    /// The plain forwarder, on a thread that is started for it.
    Plain(&'a mut Forwarder),
    /// Something that runs already, in these threads.
    Running(&'a Threads),
}

/// Frames to be sent in a measurement.
#[derive(Clone, Copy, Debug)]
pub struct Load<'a> {
    /// What each of them is.
    pub frame: &'a [u8],
    /// How many a second; as many as can be where there is no number.
    pub rate: Option<f64>,
    /// For how long.
    pub duration: Duration,
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
    /// Share of the time for which the device (and the kernel's soft interrupts for it) had its core.
    pub core_share: f64,
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
        let soft_interrupts = Threads::soft_interrupts(pin::core(Role::UnderTest)?)?;
        Ok(Self { source, gateway, sink, generator, counter, soft_interrupts })
    }

    /// Frames a second that the generator reaches when the device drops all of them in XDP.
    pub fn generator_alone(&self, frame: &[u8], duration: Duration) -> Result<f64> {
        let device = self.gateway.enter(|| Attached::count_and_drop(INSIDE))?;
        let start = Instant::now();
        let load = Load { frame, rate: None, duration };
        self.measure(load, Device::Running(&Threads::this()))?;
        // What did arrive, and not what was offered: the ring of a veth overflows silently.
        Ok(device.arrived()?.udp as f64 / start.elapsed().as_secs_f64())
    }

    /// Sends a load (after a warm-up) and counts what arrives.
    pub fn measure(&self, load: Load<'_>, device: Device<'_>) -> Result<Passed> {
        self.generator.set_rate(load.rate)?;
        let ended = AtomicBool::new(false);
        let Self { source, generator, counter, soft_interrupts, .. } = self;
        std::thread::scope(|scope| {
            let mut workers = vec![scope.spawn(|| {
                source.enter(|| {
                    pin::this_thread(Role::Generator)?;
                    generator.run(load.frame)
                })
            })];
            let threads = match device {
                Device::Running(threads) => threads.clone(),
                Device::Plain(forwarder) => {
                    let (sender, receiver) = mpsc::channel();
                    let ended = &ended;
                    workers.push(scope.spawn(move || {
                        pin::this_thread(Role::UnderTest)?;
                        sender.send(Threads::this())?;
                        forwarder.run(ended)
                    }));
                    receiver.recv().context("the forwarder did not start")?
                }
            };
            let threads = threads.and(soft_interrupts);
            std::thread::sleep(WARM_UP);
            let take =
                || anyhow::Ok((Instant::now(), generator.offered()?, counter.arrived()?, threads.time()));
            let before = take();
            std::thread::sleep(load.duration);
            let after = take();
            ended.store(true, Ordering::Relaxed);
            generator.end()?;
            for worker in workers {
                worker.join().ok().context("a thread of the measurement panicked")??;
            }
            let (before, after) = (before?, after?);
            let seconds = (after.0 - before.0).as_secs_f64();
            let frames = after.2 - before.2;
            Ok(Passed {
                offered: (after.1 - before.1) as f64 / seconds,
                arrived: (frames.udp + frames.esp + frames.other) as f64 / seconds,
                frames,
                core_share: after.3.saturating_sub(before.3).as_secs_f64() / seconds,
            })
        })
    }
}

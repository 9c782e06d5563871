//! The pair thread: one loop of real-time priority that never waits for anybody.

use super::bell::Bell;
use super::command::{Command, Numbers, Orders, Verdict, orders};
use super::member::Member;
use super::outbox::{Inbox, Outbox, Outward, channel};
use super::segments::Segments;
use super::workers::Workers;
use super::{clock, status};
use crate::pipeline::Shared;
use crate::tables::PORTS_MAX;
use crate::worker::Link;
use anyhow::Context;
use arrayvec::ArrayVec;
use core_affinity::CoreId;
use crossbeam::channel::Receiver;
use rustix::event::{PollFd, PollFlags, poll};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use tandem_api::pair::{PATHS_MAX, PairSettings};
use tandem_shm::ROLE_ACTIVE;
use tandem_takeover::{Input, Memory, Nanos};
use thread_priority::{
    RealtimeThreadSchedulePolicy, ThreadPriority, ThreadPriorityValue, ThreadSchedulePolicy,
    set_thread_priority_and_policy, thread_native_id,
};

/// Real-time priority: above everything that is not real-time, below the kernel's own threads of interrupts (50).
const PRIORITY: u8 = 49;
/// Orders that are carried out in one turn, at most.
const ORDERS_MAX: usize = 64;
/// Longest sleep, so that a missed bell costs no more.
const SLEEP_MAX: Nanos = 100 * tandem_takeover::MS;

/// What the pair thread works on.
#[derive(Debug)]
pub struct Setup {
    /// Hot state and marks.
    pub shared: Arc<Shared>,
    /// Workers.
    pub links: Vec<Arc<Link>>,
    /// Core that no worker has, if there is one.
    pub core: Option<CoreId>,
    /// Was the hot state in memory before this process?
    pub warm: bool,
}

/// Starts the thread, which waits for [`Command::Start`]. To be called while the process may still ask for real-time
/// priority (CAP_SYS_NICE); `settle` is called on the thread after that, and gives up what is not needed any more.
///
/// # Errors
/// If the thread or a descriptor cannot be had.
pub fn spawn(settle: impl FnOnce() + Send + 'static) -> anyhow::Result<(Orders, Inbox)> {
    let bell = Arc::new(Bell::new().context("no event descriptor for the pair thread")?);
    let (outbox, inbox) = channel().context("no event descriptor for events of the pair")?;
    let (orders, receiver) = orders(Arc::clone(&bell));
    thread::Builder::new().name("pair".into()).spawn(move || {
        let _dies_together = DiesTogether;
        become_real_time();
        settle();
        let Ok(Command::Start(setup)) = receiver.recv() else { return };
        // Its bell has rung for every order until now; the first turn looks for them.
        PairThread::new(*setup, bell, receiver, outbox).run();
    })?;
    Ok((orders, inbox))
}

fn become_real_time() {
    let wanted =
        ThreadPriorityValue::try_from(PRIORITY).map_or(ThreadPriority::Min, ThreadPriority::Crossplatform);
    let policy = ThreadSchedulePolicy::Realtime(RealtimeThreadSchedulePolicy::Fifo);
    if let Err(error) = set_thread_priority_and_policy(thread_native_id(), wanted, policy) {
        tracing::warn!(
            "the pair thread has no real-time priority ({error}): under load heartbeats may be late and a takeover may come \
             for no reason; give the data plane CAP_SYS_NICE, or its service LimitRTPRIO={PRIORITY}"
        );
    }
}

/// A data plane without its pair thread would stay active beside its partner for ever: it ends at once, and its
/// successor goes on.
struct DiesTogether;

impl Drop for DiesTogether {
    fn drop(&mut self) {
        if thread::panicking() {
            std::process::abort();
        }
    }
}

struct PairThread {
    setup: Setup,
    bell: Arc<Bell>,
    orders: Receiver<Command>,
    outbox: Outbox,
    segments: Segments,
    workers: Workers,
    member: Option<Member>,
}

/// What follows a turn.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Next {
    /// There is more to do already.
    Busy,
    /// Sleep.
    Sleep,
    /// The data plane ends.
    End,
}

impl PairThread {
    fn new(setup: Setup, bell: Arc<Bell>, orders: Receiver<Command>, outbox: Outbox) -> Self {
        if let Some(core) = setup.core {
            core_affinity::set_for_current(core);
        }
        let workers = Workers::new(setup.links.clone(), clock::now());
        Self { setup, bell, orders, outbox, segments: Segments::default(), workers, member: None }
    }

    fn run(mut self) {
        loop {
            match self.turn(clock::now()) {
                Next::Busy => {}
                Next::Sleep => self.sleep(),
                Next::End => return,
            }
        }
    }

    /// Everything that is to be done now.
    fn turn(&mut self, began: Nanos) -> Next {
        let now = began;
        let (heard_all, witnessed) = self.segments.receive(now);
        let mut next = if heard_all { Next::Sleep } else { Next::Busy };
        let (mut drained, mut any) = (true, false);
        if let Some((member, memory)) = Self::at_work(&mut self.member, &self.setup.shared) {
            (drained, any) = member.receive(memory, now);
            if witnessed {
                member.look_again();
            }
        }
        match self.obey(now) {
            Next::Sleep => {}
            other => next = other,
        }
        // Read anew: whether a takeover is fresh must not be judged by a time before a pause (F21).
        let now = clock::now();
        if let Some((member, memory)) = Self::at_work(&mut self.member, &self.setup.shared) {
            member.paths.reopen(now);
            any |= member.persisted(memory, now);
            member.look(drained, &self.segments, &mut self.workers, memory, now);
            member.transmit(self.setup.shared.hot.header(), memory, now);
            member.act(&mut self.segments, &self.workers, now);
            if any {
                self.workers.wake_waiting();
            }
            member.rest(began, clock::now());
        }
        self.segments.send(now);
        for text in self.segments.warnings() {
            self.outbox.put(Outward::Warning(text));
        }
        if drained || next == Next::End { next } else { Next::Busy }
    }

    fn at_work<'s>(
        member: &'s mut Option<Member>,
        shared: &'s Shared,
    ) -> Option<(&'s mut Member, Memory<'s>)> {
        member.as_mut().map(|member| (member, memory(shared)))
    }

    /// Carries out orders; says whether there may be more.
    fn obey(&mut self, now: Nanos) -> Next {
        for _ in 0..ORDERS_MAX {
            match self.orders.try_recv() {
                Ok(command) => self.carry_out(command, now),
                Err(crossbeam::channel::TryRecvError::Empty) => return Next::Sleep,
                Err(crossbeam::channel::TryRecvError::Disconnected) => return Next::End,
            }
        }
        Next::Busy
    }

    fn is_active(&self) -> bool {
        self.setup.shared.hot.header().role.load(Ordering::Acquire) == ROLE_ACTIVE
    }

    fn carry_out(&mut self, command: Command, now: Nanos) {
        let active = self.is_active();
        let memory = memory(&self.setup.shared);
        // Whoever asked may have given up waiting: then nobody needs the answer.
        match (command, &mut self.member) {
            (Command::Start(_), _) => {}
            (Command::Interfaces(list), member) => {
                let old = self.segments.replace(list, active, now);
                self.outbox.put(Outward::Retired(old));
                if let Some(member) = member {
                    member.look_again();
                }
            }
            (Command::SetPair { settings, numbers: _, reply }, Some(member)) => {
                let _ = reply.send(member.renew(*settings));
            }
            (Command::SetPair { settings, numbers, reply }, None) => {
                let _ = reply.send(self.begin(*settings, numbers, now));
            }
            (Command::Status(reply), member) => {
                let header = self.setup.shared.hot.header();
                let _ = reply.send(Box::new(status::pair(
                    member.as_ref(),
                    &self.segments,
                    &self.workers,
                    header,
                    memory,
                    now,
                )));
            }
            (Command::Epoch(key, reply), Some(member)) => {
                let _ = reply.send(member.epoch(&key));
            }
            (Command::SwitchOver(reply), Some(member)) => {
                let _ = reply.send(member.switch_over(memory, now));
            }
            (Command::Role { active, term, reply }, Some(member)) => {
                member.node.handle(Input::Role { active, term }, memory, now);
                member.act(&mut self.segments, &self.workers, now);
                let _ = reply.send(if self.is_active() == active {
                    Ok(())
                } else {
                    Err(format!("the node did not take its role in term {term}"))
                });
            }
            (Command::Grant(grant), Some(member)) => member.grant(grant, memory, now),
            (Command::Session(news), Some(member)) => member.session(news, memory, now),
            (Command::Install(sas), Some(member)) => {
                sas.into_iter().for_each(|sa| member.node.handle(Input::Install(sa), memory, now));
            }
            (Command::Remove(keys), Some(member)) => {
                keys.into_iter().for_each(|key| member.node.handle(Input::Remove(key), memory, now));
            }
            (Command::Epoch(_, reply) | Command::SwitchOver(reply) | Command::Role { reply, .. }, None) => {
                let _ = reply.send(Err(super::NOT_SET.to_owned()));
            }
            // The server gives none of them before it has set the pair.
            (Command::Grant(_) | Command::Session(_) | Command::Install(_) | Command::Remove(_), None) => {}
        }
    }

    fn begin(&mut self, settings: PairSettings, numbers: Option<Numbers>, now: Nanos) -> Verdict {
        let warm = self.setup.warm;
        let numbers = numbers.ok_or("no numbers file was opened")?;
        self.member =
            Some(Member::new(settings, numbers, self.outbox.clone(), warm, memory(&self.setup.shared), now)?);
        // What the machine made of a role that was left behind.
        self.segments.switch(self.is_active());
        Ok(())
    }

    /// Sleeps until something comes in, something is due, or a bell rings.
    fn sleep(&mut self) {
        let marks = memory(&self.setup.shared);
        let marked = || marks.inbound.any() || marks.outbound.any();
        // Where marks are there already, the thread waits only for the time of the next round: nobody needs to ring.
        let dozes = self.member.is_some() && !marked();
        if dozes {
            self.bell.doze();
        }
        let now = clock::now();
        let mut next = self.segments.next().unwrap_or(Nanos::MAX);
        if let Some(member) = &self.member {
            next = next.min(member.next(marked()));
        }
        let span = next.saturating_sub(now).min(SLEEP_MAX);
        let mut rang = false;
        let written = self.member.as_ref().is_some_and(Member::is_persisted);
        if span > 0 && self.orders.is_empty() && !written {
            let mut descriptors: ArrayVec<PollFd<'_>, { 1 + PATHS_MAX + PORTS_MAX }> = ArrayVec::new();
            let paths = self.member.iter().flat_map(|member| member.paths.descriptors());
            let sources = std::iter::once(self.bell.as_fd()).chain(paths).chain(self.segments.descriptors());
            descriptors.extend(
                sources
                    .take(1 + PATHS_MAX + PORTS_MAX)
                    .map(|source| PollFd::from_borrowed_fd(source, PollFlags::IN)),
            );
            // An interrupted or failed poll is a short sleep.
            let _ = poll(&mut descriptors, Some(&clock::timespec(span)));
            rang = descriptors.first().is_some_and(|bell| !bell.revents().is_empty());
        }
        self.bell.wake(rang);
    }
}

fn memory(shared: &Shared) -> Memory<'_> {
    Memory { hot: &shared.hot, inbound: &shared.inbound_marks, outbound: &shared.outbound_marks }
}

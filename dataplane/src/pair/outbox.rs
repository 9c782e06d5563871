//! From the pair thread to the thread that serves the control process.

use super::segments::Attached;
use crossbeam::channel::{Receiver, Sender, unbounded};
use nix::sys::eventfd::{EfdFlags, EventFd};
use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use tandem_api::pair::Event;

/// Events that are kept for a control process that is not there.
const KEPT_MAX: usize = 1000;

/// What the pair thread hands out. It neither logs nor closes sockets itself: both may take long.
#[derive(Debug)]
pub enum Outward {
    /// For control.
    Event(Event),
    /// For the log: something an operator should look at.
    Warning(String),
    /// To be dropped.
    Retired(Vec<Attached>),
}

/// The pair thread's end.
#[derive(Clone, Debug)]
pub struct Outbox {
    sender: Sender<Outward>,
    event: Arc<EventFd>,
}

impl Outbox {
    /// Hands something out.
    pub fn put(&self, outward: Outward) {
        // Nobody takes it any more when the process ends.
        let _ = self.sender.send(outward);
        // Full means that it is rung already.
        let _ = self.event.write(1);
    }
}

/// The server's end: keeps events until a control process takes them.
#[derive(Debug)]
pub struct Inbox {
    receiver: Receiver<Outward>,
    event: Arc<EventFd>,
    events: VecDeque<Event>,
}

/// A new pair of ends.
///
/// # Errors
/// If the kernel gives no event descriptor.
pub fn channel() -> nix::Result<(Outbox, Inbox)> {
    let event = Arc::new(EventFd::from_value_and_flags(0, EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC)?);
    let (sender, receiver) = unbounded();
    Ok((Outbox { sender, event: Arc::clone(&event) }, Inbox { receiver, event, events: VecDeque::new() }))
}

impl Inbox {
    /// Takes in what was handed out: logs it, drops it, keeps it.
    pub fn collect(&mut self) {
        // Nothing in it is fine.
        let _ = self.event.read();
        while let Ok(outward) = self.receiver.try_recv() {
            match outward {
                Outward::Event(event) => self.keep(event),
                Outward::Warning(text) => tracing::warn!("{text}"),
                Outward::Retired(list) => drop(list),
            }
        }
    }

    fn keep(&mut self, event: Event) {
        if let Event::History(entry) = &event {
            tracing::info!("{}: {}", entry.step, entry.text);
        }
        if matches!(event, Event::Resend { .. } | Event::NeedGrant { .. }) && self.events.contains(&event) {
            // Asked for already: while control is away the partner may ask for it again and again.
            return;
        }
        if self.events.len() >= KEPT_MAX {
            // What control must act on outlives what people read; of each kind the oldest goes first.
            let history = self.events.iter().position(|event| matches!(event, Event::History(_)));
            self.events.remove(history.unwrap_or(0));
        }
        self.events.push_back(event);
    }

    /// The oldest event.
    #[must_use]
    pub fn first(&self) -> Option<&Event> {
        self.events.front()
    }

    /// The oldest event was told.
    pub fn told(&mut self) {
        self.events.pop_front();
    }
}

impl AsFd for Inbox {
    /// Readable once something was handed out.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tandem_api::pair::HistoryEntry;

    #[test]
    fn what_control_must_act_on_outlives_a_long_history() {
        let (outbox, mut inbox) = channel().unwrap();
        outbox.put(Outward::Event(Event::Reign { term: 8, own: true }));
        for step in 0..3000 {
            let entry = HistoryEntry { unix_us: step, step: "alone".into(), text: String::new() };
            outbox.put(Outward::Event(Event::History(entry)));
        }
        outbox.put(Outward::Event(Event::NeedGrant { incarnation: true }));
        inbox.collect();
        let mut all = Vec::new();
        while let Some(event) = inbox.first() {
            all.push(event.clone());
            inbox.told();
        }
        assert_eq!(all.len(), KEPT_MAX);
        assert_eq!(all[0], Event::Reign { term: 8, own: true });
        assert_eq!(all[KEPT_MAX - 1], Event::NeedGrant { incarnation: true });
        assert!(
            matches!(&all[KEPT_MAX - 2], Event::History(entry) if entry.unix_us == 2999),
            "the newest are kept"
        );
    }
}

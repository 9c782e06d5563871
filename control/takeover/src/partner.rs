//! What is known of the partner, and for how long it has been silent.

use crate::input::Nanos;
use tandem_lease::message::{Header, flag};

/// Messages of this node whose time of sending is remembered (F21).
const REMEMBERED: usize = 1024;
/// Most paths.
const PATHS: usize = 4;

/// What is known of the partner.
#[derive(Debug)]
pub(crate) struct Partner {
    /// Header of its newest message.
    pub header: Header,
    /// Was it ever heard?
    pub heard: bool,
    /// When something of it came that could not be opened.
    pub overheard_at: Option<Nanos>,
    /// When its newest message came.
    pub heard_at: Nanos,
    /// Time in which this node was running and heard nothing new of it.
    pub silence: Nanos,
    /// The same, for messages of a partner that is active and forwards.
    pub active_silence: Nanos,
    /// When something was last heard on each path.
    pub path_heard: [Option<Nanos>; PATHS],
    /// When this node sent which message.
    sent: Box<[(u64, Nanos)]>,
    last_run: Nanos,
}

impl Partner {
    pub fn new(now: Nanos) -> Self {
        Self {
            header: Header::new(),
            heard: false,
            overheard_at: None,
            heard_at: now,
            silence: 0,
            active_silence: 0,
            path_heard: [None; PATHS],
            sent: vec![(0, 0); REMEMBERED].into_boxed_slice(),
            last_run: now,
        }
    }

    /// Time has passed in which this node may have been running: of a longer gap only `cap` counts (F20).
    pub fn run(&mut self, now: Nanos, cap: Nanos, counts: bool) {
        let passed = now.saturating_sub(self.last_run).min(cap);
        self.last_run = now;
        if counts {
            self.silence = self.silence.saturating_add(passed);
            self.active_silence = self.active_silence.saturating_add(passed);
        }
    }

    /// Takes in a header. True if it is the newest so far; older ones say nothing of the present.
    pub fn hear(&mut self, header: &Header, path: u8, now: Nanos) -> bool {
        if let Some(path) = self.path_heard.get_mut(usize::from(path)) {
            *path = Some(now);
        }
        if self.heard && header.number.get() <= self.header.number.get() {
            return false;
        }
        (self.header, self.heard, self.heard_at, self.silence) = (*header, true, now, 0);
        if header.is(flag::ACTIVE) && !header.is(flag::NOT_FORWARDING) {
            self.active_silence = 0;
        }
        true
    }

    /// Its incarnation as it says; `None` where it has none or said goodbye.
    pub fn incarnation(&self) -> Option<u64> {
        let incarnation = self.header.incarnation.get();
        (self.heard && incarnation != 0 && !self.header.is(flag::GOODBYE)).then_some(incarnation)
    }

    /// Is it active, in its own words?
    pub fn is_active(&self) -> bool {
        self.heard && self.header.is(flag::ACTIVE)
    }

    /// This node sends a message now.
    pub fn note_sent(&mut self, number: u64, now: Nanos) {
        self.sent[number as usize % REMEMBERED] = (number, now);
    }

    /// When this node sent a message, if it is remembered.
    pub fn sent_at(&self, number: u64) -> Option<Nanos> {
        let (known, at) = self.sent[number as usize % REMEMBERED];
        (known == number && number != 0).then_some(at)
    }

    /// The newest message sent, and when.
    pub fn newest_sent(&self) -> Nanos {
        self.sent.iter().map(|(_, at)| *at).max().unwrap_or(0)
    }
}

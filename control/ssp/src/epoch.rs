//! Keys of the paths, by epoch (F6): made by node 0, in force on both nodes in an order in which nothing is ever sealed
//! that the other side cannot open.
//!
//! - Node 0 sends the secret.
//! - Node 1 opens with it, then says so.
//! - Node 0 opens and seals with it, then says so.
//! - Node 1 seals with it, then says so.
//!
//! A session that ends in between leaves the epoch pending; the next session offers the same one again, so that the key that is
//! still in use on one side is never pushed out by a third one.

use tandem_api::pair::EpochKey;
use tandem_api::types::KeyMaterial;

/// Octets of an epoch's secret.
pub const SECRET_LEN: usize = 32;

/// What the control process knows of the keys. Outlives a session.
#[derive(Debug)]
pub struct Epochs {
    node: u8,
    highest: u32,
    used: Option<Key>,
    pending: Option<Pending>,
}

#[derive(Debug)]
struct Key {
    number: u32,
    secret: KeyMaterial,
}

#[derive(Debug)]
struct Pending {
    key: Key,
    stage: Stage,
    /// Was the owner asked to install it at this stage?
    asked: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Node 0: to be sent, or sent.
    Offered { sent: bool },
    /// Node 0: the partner opens with it; the own data plane must open and seal with it.
    Install,
    /// Node 0: installed; to be said, or said.
    Use { sent: bool },
    /// Node 1: the own data plane must open with it.
    Open,
    /// Node 1: it opens with it; to be said, or said.
    Opened { sent: bool },
    /// Node 1: the partner seals with it; the own data plane must seal with it.
    Seal,
    /// Node 1: done; to be said.
    Sealed,
}

/// What is to be said of epochs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Say {
    /// [`crate::message::Message::Epoch`].
    Offer(u32, KeyMaterial),
    /// [`crate::message::Message::EpochReady`].
    Ready(u32),
    /// [`crate::message::Message::EpochUse`].
    Use(u32),
    /// [`crate::message::Message::EpochUsed`].
    Used(u32),
}

impl Epochs {
    /// Without keys. `first`: numbers below it may have been used before this process, by either node.
    #[must_use]
    pub fn new(node: u8, first: u32) -> Self {
        Self { node, highest: first, used: None, pending: None }
    }

    /// Highest number known.
    #[must_use]
    pub fn highest(&self) -> u32 {
        self.highest
    }

    /// Number of the epoch that is sealed with; 0: none.
    #[must_use]
    pub fn used(&self) -> u32 {
        self.used.as_ref().map_or(0, |key| key.number)
    }

    /// Number of the epoch that is being set up.
    #[must_use]
    pub fn pending(&self) -> Option<u32> {
        self.pending.as_ref().map(|pending| pending.key.number)
    }

    /// The data plane's memory is lost, and with it the counters of the keys (F6): none may be used again.
    pub fn renew(&mut self) {
        self.used = None;
        self.pending = None;
    }

    /// A session is up; the partner says what it has. Node 0 offers an epoch where one is needed.
    ///
    /// # Errors
    /// If no randomness is to be had.
    pub fn session_up(&mut self, partner_highest: u32, partner_used: u32) -> Result<(), getrandom::Error> {
        self.highest = self.highest.max(partner_highest);
        if self.node != 0 {
            // Node 0 offers it again.
            return Ok(());
        }
        if let Some(pending) = &mut self.pending {
            (pending.stage, pending.asked) = (Stage::Offered { sent: false }, false);
            return Ok(());
        }
        if self.used() != 0 && self.used() == partner_used {
            return Ok(());
        }
        self.begin_above(0)
    }

    /// The data plane knows a higher number from an earlier control process, whose clock was ahead: far above it.
    pub fn refused(&mut self) {
        self.renew();
        self.highest = self.highest.saturating_add(1 << 20);
    }

    /// Node 0 has lost its keys, or the partner says that it has, and that numbers up to `above` may be in use.
    ///
    /// # Errors
    /// If no randomness is to be had.
    pub fn begin_above(&mut self, above: u32) -> Result<(), getrandom::Error> {
        // Numbers start at the time of day and grow by one for each loss of memory: they do not end.
        let Some(number) = self.highest.max(above).checked_add(1) else { return Ok(()) };
        let mut secret = zeroize::Zeroizing::new([0; SECRET_LEN]);
        getrandom::fill(&mut *secret)?;
        self.highest = number;
        let key = Key { number, secret: KeyMaterial::new(secret.to_vec()) };
        self.pending = Some(Pending { key, stage: Stage::Offered { sent: false }, asked: false });
        Ok(())
    }

    /// Does node 0 need an epoch that it has not begun?
    #[must_use]
    pub fn is_missing(&self) -> bool {
        self.used.is_none() && self.pending.is_none()
    }

    /// Node 1: an epoch is offered. False: not in this protocol.
    pub fn offered(&mut self, number: u32, secret: KeyMaterial) -> bool {
        if self.node == 0 || secret.expose().len() != SECRET_LEN {
            return false;
        }
        let same = |key: &Key| key.number == number && key.secret == secret;
        if self.used.as_ref().is_some_and(same) {
            // The end of an earlier session hid the last word.
            let key = Key { number, secret };
            self.pending = Some(Pending { key, stage: Stage::Opened { sent: false }, asked: true });
            return true;
        }
        if let Some(pending) = &mut self.pending
            && same(&pending.key)
        {
            if pending.stage != Stage::Open {
                (pending.stage, pending.asked) = (Stage::Opened { sent: false }, true);
            }
            return true;
        }
        if number <= self.used() {
            return false;
        }
        self.highest = self.highest.max(number);
        self.pending = Some(Pending { key: Key { number, secret }, stage: Stage::Open, asked: false });
        true
    }

    /// Node 0: the partner opens with it.
    pub fn ready(&mut self, number: u32) {
        self.step(number, |stage| matches!(stage, Stage::Offered { sent: true }), Stage::Install);
    }

    /// Node 1: the partner seals with it.
    pub fn use_it(&mut self, number: u32) {
        self.step(number, |stage| matches!(stage, Stage::Opened { sent: true }), Stage::Seal);
    }

    /// Node 0: the partner seals with it, too.
    pub fn partner_uses(&mut self, number: u32) {
        let done = |pending: &Pending| {
            pending.key.number == number && matches!(pending.stage, Stage::Use { sent: true })
        };
        if self.pending.as_ref().is_some_and(done) {
            self.pending = None;
        }
    }

    fn step(&mut self, number: u32, from: impl Fn(Stage) -> bool, to: Stage) {
        if let Some(pending) = &mut self.pending
            && pending.key.number == number
            && from(pending.stage)
        {
            (pending.stage, pending.asked) = (to, false);
        }
    }

    /// What the data plane must be given now; once. [`Epochs::installed`] answers.
    pub fn to_install(&mut self) -> Option<EpochKey> {
        let pending = self.pending.as_mut().filter(|pending| !pending.asked)?;
        let send = match pending.stage {
            Stage::Open => false,
            Stage::Install | Stage::Seal => true,
            _ => return None,
        };
        pending.asked = true;
        Some(EpochKey { number: pending.key.number, secret: pending.key.secret.clone(), send })
    }

    /// The data plane has it.
    pub fn installed(&mut self, number: u32, send: bool) {
        let Some(pending) = self.pending.as_mut().filter(|pending| pending.key.number == number) else {
            return;
        };
        let next = match (pending.stage, send) {
            (Stage::Open, false) => Stage::Opened { sent: false },
            (Stage::Install, true) => Stage::Use { sent: false },
            (Stage::Seal, true) => Stage::Sealed,
            _ => return,
        };
        pending.stage = next;
        if send {
            let Key { number, secret } = &pending.key;
            self.used = Some(Key { number: *number, secret: secret.clone() });
        }
    }

    /// What is to be said now; once in each session.
    pub fn say(&mut self) -> Option<Say> {
        let pending = self.pending.as_mut()?;
        let number = pending.key.number;
        let (next, say) = match pending.stage {
            Stage::Offered { sent: false } => {
                (Stage::Offered { sent: true }, Say::Offer(number, pending.key.secret.clone()))
            }
            Stage::Opened { sent: false } => (Stage::Opened { sent: true }, Say::Ready(number)),
            Stage::Use { sent: false } => (Stage::Use { sent: true }, Say::Use(number)),
            Stage::Sealed => {
                self.pending = None;
                return Some(Say::Used(number));
            }
            _ => return None,
        };
        pending.stage = next;
        Some(say)
    }
}

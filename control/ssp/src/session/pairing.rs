//! From Hello to a session that is up: equal configurations first, then terms on disk above the partner's.

use super::{End, Event, Local, Session};
use crate::VERSION;
use crate::digest::{Difference, Digest};
use crate::message::{DigestKey, Hello, Message};

/// What was said so far.
#[derive(Debug, Default)]
pub(super) struct Pairing {
    partner: Option<Hello>,
    /// Own digest as the partner knows it.
    digest_said: Option<[u8; 32]>,
    incarnation_said: u64,
    mismatch: Option<Mismatch>,
    /// Was the owner asked to reserve?
    asked: bool,
    own_reserved: bool,
    reserved_said: bool,
    partner_reserved: bool,
    up: bool,
}

/// A comparison of two configurations that are not equal.
#[derive(Debug, Default)]
struct Mismatch {
    sent: usize,
    all_sent: bool,
    received: usize,
    found: Option<Found>,
}

#[derive(Clone, Debug)]
enum Found {
    Key(Difference),
    /// The sums differ and no key does: not the same software.
    Nothing,
}

impl Pairing {
    pub(super) fn partner(&self) -> Option<&Hello> {
        self.partner.as_ref()
    }

    pub(super) fn is_up(&self) -> bool {
        self.up
    }

    pub(super) fn differs(&self) -> bool {
        self.mismatch.is_some()
    }

    pub(super) fn own_reserved(&mut self) {
        self.own_reserved = self.asked;
    }

    pub(super) fn partner_reserved(&mut self) {
        self.partner_reserved = true;
    }

    /// The difference that was found, as the end of the session.
    pub(super) fn found(&self) -> Option<End> {
        let found = self.mismatch.as_ref()?.found.as_ref()?;
        Some(End::Mismatch(match found {
            Found::Key(difference) => difference.to_string(),
            Found::Nothing => {
                "the configurations differ and no key does: run daemons of one version on both nodes"
                    .to_owned()
            }
        }))
    }

    /// The partner says that its configuration is another one now.
    pub(super) fn partner_changed(&mut self, digest: [u8; 32]) {
        if let Some(partner) = &mut self.partner {
            partner.digest = digest;
        }
        // Compared anew, from the start, where it still differs.
        self.mismatch = None;
    }

    /// A part of the partner's keys.
    pub(super) fn compare(&mut self, own: &Digest, from: usize, keys: &[DigestKey], last: bool) {
        if let Some(partner) = &self.partner
            && partner.digest == own.sum()
        {
            // Its list is of a configuration that is no more.
            return;
        }
        let mismatch = self.mismatch.get_or_insert_default();
        if from == 0 {
            mismatch.received = 0;
        }
        if from != mismatch.received || mismatch.found.is_some() {
            return;
        }
        mismatch.received += keys.len();
        mismatch.found = match own.difference(from, keys, last) {
            Some(difference) => Some(Found::Key(difference)),
            None => last.then_some(Found::Nothing),
        };
    }
}

impl Session {
    pub(super) fn hello(&mut self, hello: Hello, local: &mut Local) {
        if self.pairing.partner.is_some() {
            return self.finish(End::Malformed("a second Hello".to_owned()), local);
        }
        if hello.version != VERSION {
            return self.finish(End::Version(hello.version), local);
        }
        if hello.node != 1 - local.node.min(1) {
            let reason = format!(
                "both nodes take themselves for node {}: give each its own key by `tandemctl node init`, and the \
                 other's in redundancy.partner-key",
                local.node
            );
            return self.refuse(reason, local);
        }
        if hello.file_id == local.file_id {
            let reason = "both nodes have the same term file: one was copied from the other. Make a new node of one \
                          of them: remove its folder `node`, run `tandemctl node init`";
            return self.refuse(reason.to_owned(), local);
        }
        local.incarnation_seen = local.incarnation_seen.max(hello.incarnation);
        self.pairing.partner = Some(hello);
    }

    /// Is all reserved, and said?
    pub(super) fn rise(&mut self, local: &mut Local) {
        let pairing = &mut self.pairing;
        let Some(partner) = &pairing.partner else { return };
        if pairing.up || !pairing.partner_reserved || !pairing.reserved_said {
            return;
        }
        pairing.up = true;
        local.counters.sessions_up += 1;
        self.events.push_back(Event::Up { partner_incarnation: partner.incarnation });
        if let Err(error) = local.epochs.session_up(partner.epoch_highest, partner.epoch_used) {
            self.finish(End::Internal(error.to_string()), local);
        }
    }

    pub(super) fn pairing_message(&mut self, local: &mut Local) -> Option<Message> {
        let digest = local.digest.sum();
        match self.pairing.digest_said {
            None => {
                self.pairing.digest_said = Some(digest);
                self.pairing.incarnation_said = local.incarnation;
                self.epoch_lost_said = local.epochs.used() == 0;
                return Some(Message::Hello(Hello {
                    version: VERSION,
                    software: local.software.clone(),
                    file_id: local.file_id,
                    node: local.node,
                    highest: local.highest,
                    reserved: local.reserved,
                    reign: local.reign,
                    incarnation: local.incarnation,
                    incarnation_seen: local.incarnation_seen,
                    epoch_highest: local.epochs.highest(),
                    epoch_used: local.epochs.used(),
                    digest,
                }));
            }
            Some(said) if said != digest => {
                self.pairing.digest_said = Some(digest);
                self.pairing.mismatch = None;
                return Some(Message::DigestChanged { digest });
            }
            Some(_) => {}
        }
        let partner = self.pairing.partner.as_ref()?;
        if partner.digest != digest {
            return self.mismatch_message(local);
        }
        self.pairing.mismatch = None;
        if !self.pairing.asked {
            self.pairing.asked = true;
            self.events.push_back(Event::Paired(partner.clone()));
        }
        if self.pairing.own_reserved && !self.pairing.reserved_said {
            self.pairing.reserved_said = true;
            self.rise(local);
            return Some(Message::Reserved);
        }
        if self.pairing.up && self.pairing.incarnation_said != local.incarnation {
            self.pairing.incarnation_said = local.incarnation;
            return Some(Message::Incarnation { incarnation: local.incarnation });
        }
        None
    }

    /// The next part of the own keys; once the partner can name the difference, too, the refusal.
    fn mismatch_message(&mut self, local: &mut Local) -> Option<Message> {
        let mismatch = self.pairing.mismatch.get_or_insert_default();
        let partner_knows = match &mismatch.found {
            Some(Found::Key(difference)) => mismatch.all_sent || mismatch.sent > difference.at,
            Some(Found::Nothing) => mismatch.all_sent,
            None => false,
        };
        if partner_knows {
            let reason = match &mismatch.found {
                Some(Found::Key(difference)) => difference.seen_by_partner().to_string(),
                _ => "the configurations differ".to_owned(),
            };
            if let Some(end) = self.pairing.found() {
                self.refuse = Some(reason);
                self.finish(end, local);
            }
            return None;
        }
        if mismatch.all_sent {
            return None;
        }
        let keys = local.digest.chunk(mismatch.sent);
        let from = mismatch.sent;
        mismatch.sent += keys.len();
        mismatch.all_sent = mismatch.sent >= local.digest.len() || keys.is_empty();
        Some(Message::Digests { from: from as u32, keys: keys.to_vec(), last: mismatch.all_sent })
    }
}

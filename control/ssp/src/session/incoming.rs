//! What the partner says.

use super::{End, Event, Local, Nanos, Session, Sink};
use crate::message::{Message, StreamBody};
use crate::stream::WINDOW;

impl Session {
    pub(super) fn message(&mut self, message: Message, local: &mut Local, now: Nanos) {
        match message {
            Message::Hello(hello) => self.hello(hello, local),
            _ if self.pairing.partner().is_none() && !matches!(message, Message::Refuse { .. }) => {
                self.finish(End::Malformed("a message before Hello".to_owned()), local);
            }
            Message::Refuse { reason } => {
                let reason = reason.chars().map(|c| if c.is_control() { '?' } else { c }).collect();
                let end = self.pairing.found().unwrap_or(End::RefusedByPartner(reason));
                self.finish(end, local);
            }
            Message::DigestChanged { digest } => self.pairing.partner_changed(digest),
            Message::Digests { from, keys, last } => {
                self.pairing.compare(&local.digest, from as usize, &keys, last);
            }
            Message::Reserved => {
                self.pairing.partner_reserved();
                self.rise(local);
            }
            Message::Ping { stamp } => self.pong = Some(stamp),
            Message::Pong { stamp } => {
                if self.asked == Some(stamp) {
                    self.round_trip = Some(now.saturating_sub(stamp));
                    self.asked = None;
                }
            }
            _ if !self.pairing.is_up() => {
                self.finish(End::Malformed("a message before the session was up".to_owned()), local);
            }
            Message::Incarnation { incarnation } => {
                local.incarnation_seen = local.incarnation_seen.max(incarnation);
                self.events.push_back(Event::Incarnation(incarnation));
            }
            Message::Epoch { number, secret } => {
                self.epoch_lost_said = false;
                if !local.epochs.offered(number, secret) {
                    self.finish(End::Malformed(format!("epoch {number} out of turn")), local);
                }
            }
            Message::EpochReady { number } => local.epochs.ready(number),
            Message::EpochUse { number } => local.epochs.use_it(number),
            Message::EpochUsed { number } => local.epochs.partner_uses(number),
            Message::EpochWanted { above } => {
                if local.node == 0
                    && let Err(error) = local.epochs.begin_above(above)
                {
                    self.finish(End::Internal(error.to_string()), local);
                }
            }
            Message::Stream { position, body } => self.stream(position, body, local),
            Message::Applied { position } => {
                // One that was under way when this node ceased to be the source has nobody to tell.
                if let Some(source) = &mut self.source
                    && !source.applied(position)
                {
                    self.finish(End::Malformed(format!("position {position} was never sent")), local);
                }
            }
        }
    }

    fn stream(&mut self, position: u64, body: StreamBody, local: &mut Local) {
        if let StreamBody::BulkStart { reign } = body {
            // Two active nodes: the older reign has nothing to say to the newer one.
            let wanted = local.source.is_none_or(|own| own < reign);
            let applied = position.saturating_sub(1);
            self.sink = wanted.then_some(Sink { reign, delivered: applied, applied });
        }
        let Some(sink) = &mut self.sink else { return };
        if sink.delivered.checked_add(1) != Some(position) {
            return self.finish(End::Malformed(format!("stream message {position} out of order")), local);
        }
        sink.delivered = position;
        if sink.delivered - sink.applied > 2 * WINDOW {
            return self.finish(End::Malformed("more than a window of stream messages".to_owned()), local);
        }
        self.events.push_back(Event::Stream { position, body });
    }
}

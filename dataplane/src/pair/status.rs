//! The state of the pair, to be shown.

use super::member::Member;
use super::segments::Segments;
use super::workers::Workers;
use std::sync::atomic::Ordering;
use tandem_api::pair::{PairStatus, PartnerHeard, ReplicationStatus};
use tandem_shm::{HotHeader, ROLE_ACTIVE};
use tandem_takeover::{Heard, Memory, Nanos, Way};

/// SAs that are named as held, at most.
const HELD_MAX: usize = 16;

/// All that is known at this moment, but [`ReplicationStatus::parked_released`].
#[must_use]
pub fn pair(
    member: Option<&Member>,
    segments: &Segments,
    workers: &Workers,
    header: &HotHeader,
    memory: Memory<'_>,
    now: Nanos,
) -> PairStatus {
    let active = header.role.load(Ordering::Acquire) == ROLE_ACTIVE;
    let shown = PairStatus {
        role: role(active),
        term: header.term.load(Ordering::Acquire),
        segments: segments.status(now),
        ..PairStatus::default()
    };
    let Some(member) = member else { return shown };
    let machine = member.node.status(memory, now);
    let counts = machine.counts;
    let (parked, parked_max) = workers.parked();
    PairStatus {
        partner: member.has_partner(),
        role: role(machine.active),
        term: machine.term,
        state: machine.state.to_owned(),
        incarnation: machine.incarnation,
        eligible: machine.eligible,
        terms_left: machine.terms_left,
        fresh_for_us: machine.fresh_for / 1000,
        not_promised: machine.not_promised,
        heard: machine.heard.map(heard),
        paths: member.paths.status(now),
        replication: ReplicationStatus {
            records_sent: counts.sender.sent,
            records_resent: counts.sender.resent,
            records_acknowledged: counts.sender.acknowledged,
            records_merged: counts.merged,
            records_unknown: counts.unknown,
            unacknowledged: machine.unacknowledged as u64,
            lag: member.lag(),
            slow_standby: machine.slow_standby,
            parked,
            parked_max,
            // Counted in the workers' segment: the server adds it.
            parked_released: 0,
        },
        held: held(member),
        ..shown
    }
}

fn role(active: bool) -> String {
    if active { "active" } else { "standby" }.to_owned()
}

fn heard(heard: Heard) -> PartnerHeard {
    PartnerHeard {
        ago_us: heard.ago / 1000,
        role: role(heard.active),
        state: heard.state.to_owned(),
        reign: heard.reign,
        incarnation: heard.incarnation,
        forwarding: heard.forwarding,
    }
}

/// The first few SAs that are held, in order.
fn held(member: &Member) -> Vec<String> {
    let mut keys: Vec<_> = member.node.held().collect();
    keys.sort_unstable();
    let name = |key: &tandem_takeover::SaKey| {
        let way = if key.way == Way::In { "inbound" } else { "outbound" };
        format!(
            "{way} {:#010x}: held, because its numbers are not known well enough; the partner or a new key ends that",
            key.spi
        )
    };
    keys.iter().take(HELD_MAX).map(name).collect()
}

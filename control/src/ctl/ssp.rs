//! `show ssp`: clients, packets, peers, redundancy.

use super::numbers::{duration, span};
use super::tables::{pairs, table_of};
use tandem_api::operator::{SessionState, Ssp};

/// All of it.
pub fn all(ssp: &Ssp) -> String {
    [client(ssp), packet(ssp), peers(ssp), redundancy(ssp)].join("\n")
}

/// `show ssp client`.
pub fn client(ssp: &Ssp) -> String {
    let rows = ssp
        .clients
        .iter()
        .map(|client| vec![client.id.to_string(), client.name.clone(), client.entries.to_string()]);
    let table = table_of(&["client", "name", "entries"], &[0, 2], rows.collect());
    format!("SSP protocol version {}\n{table}", ssp.protocol)
}

/// `show ssp packet`.
pub fn packet(ssp: &Ssp) -> String {
    let packets = &ssp.packets;
    let rows = [
        ("sent", format!("{} messages, {} octets", packets.sent, packets.sent_bytes)),
        ("received", format!("{} messages, {} octets", packets.received, packets.received_bytes)),
        ("bad", packets.bad.to_string()),
        ("sessions", packets.sessions.to_string()),
    ];
    let mut text = pairs(&rows);
    if !packets.kinds.is_empty() {
        let kinds = packets.kinds.iter();
        let rows =
            kinds.map(|kind| vec![kind.kind.clone(), kind.sent.to_string(), kind.received.to_string()]);
        text += &table_of(&["kind", "sent", "received"], &[1, 2], rows.collect());
    }
    text
}

/// `show ssp peers`.
pub fn peers(ssp: &Ssp) -> String {
    if ssp.peers.is_empty() {
        return "no peer: the configuration has no [redundancy]\n".to_owned();
    }
    let rows = ssp.peers.iter().map(|peer| {
        let state = match peer.state {
            SessionState::Up => "up",
            SessionState::Down => "DOWN",
            SessionState::Refused => "REFUSED",
        };
        vec![
            peer.path.clone(),
            peer.local.clone(),
            peer.remote.clone(),
            state.to_owned(),
            duration(peer.since_s),
            if peer.in_use { "in use" } else { "" }.to_owned(),
            peer.reason.clone().unwrap_or_default(),
        ]
    });
    table_of(&["path", "local", "remote", "session", "since", "", ""], &[4], rows.collect())
}

/// `show ssp redundancy`.
pub fn redundancy(ssp: &Ssp) -> String {
    let Some(redundancy) = &ssp.redundancy else {
        return "replication unknown while the data plane is not connected, see `tandemctl show status`\n"
            .to_owned();
    };
    let replication = &redundancy.replication;
    let slow = if replication.slow_standby { "; SLOW STANDBY: acknowledgements take too long" } else { "" };
    let mut rows = vec![
        ("role", format!("{}, term {}, {}{slow}", redundancy.role, redundancy.term, redundancy.state)),
        (
            "records",
            format!(
                "{} sent, {} of them again, {} acknowledged; {} merged, {} unknown here",
                replication.records_sent,
                replication.records_resent,
                replication.records_acknowledged,
                replication.records_merged,
                replication.records_unknown
            ),
        ),
        ("unacknowledged", format!("{} SAs", replication.unacknowledged)),
        (
            "packets waiting",
            format!(
                "{} now, {} at most, {} went on",
                replication.parked, replication.parked_max, replication.parked_released
            ),
        ),
    ];
    rows.extend(redundancy.not_promised.iter().map(|reason| ("NOT promised", reason.clone())));
    let lag = &replication.lag;
    let cells = if lag.count == 0 {
        vec!["0".to_owned()]
    } else {
        let spans = [lag.p50_us, lag.p90_us, lag.p99_us, lag.p999_us, lag.max_us].map(span);
        std::iter::once(lag.count.to_string()).chain(spans).collect()
    };
    let head = ["lag: samples", "50 %", "90 %", "99 %", "99.9 %", "largest"];
    pairs(&rows) + &table_of(&head, &[0, 1, 2, 3, 4, 5], vec![cells])
}

#[cfg(test)]
mod tests {
    use super::*;
    use tandem_api::operator::{SspClient, SspKind, SspPackets, SspPeer, SspRedundancy};
    use tandem_api::pair::{LagHistogram, ReplicationStatus};

    fn sample() -> Ssp {
        let lag = LagHistogram {
            count: 5000,
            p50_us: 90,
            p90_us: 180,
            p99_us: 1_500,
            p999_us: 2_000,
            max_us: 40_000,
        };
        let replication = ReplicationStatus {
            records_sent: 5010,
            records_resent: 10,
            records_acknowledged: 5000,
            unacknowledged: 1,
            parked: 3,
            parked_max: 64,
            parked_released: 9000,
            lag,
            ..ReplicationStatus::default()
        };
        let peer = |path: &str, in_use: bool| SspPeer {
            path: path.to_owned(),
            local: "10.255.0.1:3249".to_owned(),
            remote: "10.255.0.2:3249".to_owned(),
            in_use,
            state: if in_use { SessionState::Up } else { SessionState::Down },
            since_s: 61,
            reason: (!in_use).then(|| "not tried: another path is in use".to_owned()),
        };
        Ssp {
            protocol: 1,
            clients: vec![SspClient { id: 1, name: "static-sa".to_owned(), entries: 200 }],
            packets: SspPackets {
                sent: 12,
                received: 11,
                sent_bytes: 3400,
                received_bytes: 3300,
                bad: 0,
                sessions: 1,
                kinds: vec![SspKind { kind: "hello".to_owned(), sent: 1, received: 1 }],
            },
            peers: vec![peer("sync", true), peer("inside", false)],
            redundancy: Some(SspRedundancy {
                role: "active".to_owned(),
                term: 2,
                state: "strict".to_owned(),
                not_promised: Vec::new(),
                replication,
            }),
        }
    }

    #[test]
    fn show_ssp_has_clients_packets_peers_and_the_lag_of_replication() {
        let expected = "\
SSP protocol version 1
client  name       entries
     1  static-sa      200

sent      12 messages, 3400 octets
received  11 messages, 3300 octets
bad       0
sessions  1
kind   sent  received
hello     1         1

path    local            remote           session  since
sync    10.255.0.1:3249  10.255.0.2:3249  up       1m 1s  in use
inside  10.255.0.1:3249  10.255.0.2:3249  DOWN     1m 1s          not tried: another path is in use

role             active, term 2, strict
records          5010 sent, 10 of them again, 5000 acknowledged; 0 merged, 0 unknown here
unacknowledged   1 SAs
packets waiting  3 now, 64 at most, 9000 went on
lag: samples   50 %    90 %      99 %  99.9 %  largest
        5000  90 us  180 us  1.500 ms    2 ms    40 ms
";
        assert_eq!(all(&sample()), expected);
    }

    #[test]
    fn no_partner_no_data_plane_and_a_slow_standby_are_said() {
        let mut ssp = sample();
        if let Some(redundancy) = &mut ssp.redundancy {
            redundancy.replication.slow_standby = true;
            redundancy.replication.lag = LagHistogram::default();
            redundancy.not_promised = vec!["G2: slow".to_owned()];
        }
        let text = redundancy(&ssp);
        assert!(text.contains("strict; SLOW STANDBY"), "{text}");
        assert!(text.contains("NOT promised     G2: slow\n"), "{text}");
        assert!(text.ends_with("\n           0\n"), "no samples, no times: {text}");
        ssp.redundancy = None;
        ssp.peers.clear();
        assert!(redundancy(&ssp).contains("the data plane is not connected"));
        assert_eq!(peers(&ssp), "no peer: the configuration has no [redundancy]\n");
    }
}

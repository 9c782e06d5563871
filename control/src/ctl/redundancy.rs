//! `show redundancy`, its history, and `redundancy switch-over`.

use super::numbers::{duration, span, timestamp};
use super::tables::{pairs, table_of};
use tandem_api::operator::{PartnerReport, Redundancy, RedundancyHistory, SessionState, SwitchedOver};
use tandem_api::pair::{PairStatus, PathStatus, SegmentStatus};

/// `show redundancy`: at one look what this node is, whether its partner is there, and what would not hold if one of
/// them died now.
pub fn overview(answer: &Redundancy) -> String {
    let Redundancy { name, node, node_key, partner, terms, record, pair } = answer;
    let mut rows = vec![("node", format!("{name}, node {node} of the pair"))];
    match pair {
        None => rows.push((
            "role",
            "unknown while the data plane is not connected, see `tandemctl show status`".to_owned(),
        )),
        Some(pair) => state_rows(&mut rows, pair),
    }
    match partner {
        None => rows
            .push(("partner", "none: the configuration has no [redundancy], nobody takes over".to_owned())),
        Some(partner) => partner_rows(&mut rows, partner),
    }
    let alarm = if terms.alarm { "; ALARM: the term file cannot be extended, is the disk full?" } else { "" };
    let left = match pair {
        Some(pair) => format!("{} left without a write, {} on disk", pair.terms_left, terms.left),
        None => format!("{} left on disk", terms.left),
    };
    rows.push(("terms", format!("{left}, {} taken last{alarm}", terms.taken)));
    rows.push(("disk", format!("newest reign {}, incarnation {}", record.reign, record.incarnation)));
    rows.push(("key", node_key.clone()));
    if let Some(partner) = partner {
        rows.push(("partner key", partner.key.clone()));
        if record.paired_with.as_ref() != Some(&partner.key) {
            let text =
                "its highest terms were not learnt yet: this node is not eligible before the first session";
            rows.push(("", text.to_owned()));
        }
    }
    let mut text = pairs(&rows);
    if let Some(pair) = pair {
        if !pair.paths.is_empty() {
            text += "\n";
            text += &paths(&pair.paths);
        }
        if !pair.segments.is_empty() {
            text += "\n";
            text += &segments(&pair.segments);
        }
        for held in &pair.held {
            text += &format!("held: {held}\n");
        }
    }
    text
}

fn state_rows(rows: &mut Vec<(&'static str, String)>, pair: &PairStatus) {
    let PairStatus { role, term, state, incarnation, .. } = pair;
    let eligible = if pair.eligible { "" } else { "; NOT eligible to become active" };
    rows.push(("role", format!("{role}, term {term}, {state}, incarnation {incarnation}{eligible}")));
    if pair.partner {
        let takeover = match (role.as_str(), pair.fresh_for_us) {
            ("active", _) if state == "strict" => {
                "strict: nothing takes effect before the partner knows it".to_owned()
            }
            ("active", _) => "the partner could take over only STALE".to_owned(),
            (_, 0) => "would be STALE".to_owned(),
            (_, left) => format!("would be fresh, for {} if nothing more is heard", span(left)),
        };
        rows.push(("takeover", takeover));
    }
    match &pair.not_promised[..] {
        [] => rows.push(("promised", "everything".to_owned())),
        list => {
            for (at, reason) in list.iter().enumerate() {
                rows.push((if at == 0 { "NOT promised" } else { "" }, reason.clone()));
            }
        }
    }
    if pair.partner {
        let heard = match &pair.heard {
            None => "not heard yet".to_owned(),
            Some(heard) => {
                let forwarding = if heard.forwarding { "forwarding" } else { "NOT forwarding" };
                format!(
                    "{}, {}, {forwarding}, reign {}, incarnation {}; heard {} ago",
                    heard.role,
                    heard.state,
                    heard.reign,
                    heard.incarnation,
                    span(heard.ago_us)
                )
            }
        };
        rows.push(("partner", heard));
    }
}

fn partner_rows(rows: &mut Vec<(&'static str, String)>, partner: &PartnerReport) {
    let session = &partner.session;
    let since = duration(session.since_s);
    let reason = session.reason.as_deref().map(|reason| format!(": {reason}")).unwrap_or_default();
    let mut text = match session.state {
        SessionState::Up => format!("up since {since}"),
        SessionState::Down => format!("DOWN since {since}{reason}"),
        SessionState::Refused => format!("REFUSED since {since}{reason}"),
    };
    if let Some(peer) = &session.peer {
        text += &format!(", with {peer}");
    }
    if let Some(path) = &session.path {
        text += &format!(" over {path}");
    }
    if let Some(software) = &session.partner_software {
        text += &format!(", partner's version {software}");
    }
    rows.push(("session", text));
    let configuration = match (session.configuration_equal, &session.first_difference) {
        (Some(true), _) => "equal on both nodes".to_owned(),
        (Some(false), Some(first)) => {
            format!("NOT equal: {first}; make it equal and `tandemctl config reload`")
        }
        (Some(false), None) => "NOT equal".to_owned(),
        (None, _) => "not compared yet".to_owned(),
    };
    rows.push(("configuration", configuration));
    let (timings, ms) = (&partner.timings, |us: u32| span(u64::from(us)));
    rows.push((
        "timings",
        format!(
            "heartbeat {}, takeover after {}, alone after {}, cold wait {}; priority {}",
            ms(timings.heartbeat_us),
            ms(timings.takeover_us),
            ms(timings.alone_us),
            span(u64::from(timings.cold_wait_ms) * 1000),
            partner.priority
        ),
    ));
}

fn paths(paths: &[PathStatus]) -> String {
    let rows = paths.iter().map(|path| {
        let state = if path.alive { "alive" } else { "DEAD" };
        let heard = path.heard_us_ago.map_or("never".to_owned(), |ago| format!("{} ago", span(ago)));
        let counts = [path.sent, path.send_errors, path.received, path.bad, path.replayed];
        let words = [path.name.clone(), path.local.clone(), path.remote.clone(), state.to_owned(), heard];
        words.into_iter().chain(counts.map(|count| count.to_string())).collect()
    });
    let head = ["path", "local", "remote", "state", "heard", "sent", "errors", "received", "bad", "replayed"];
    table_of(&head, &[4, 5, 6, 7, 8, 9], rows.collect())
}

fn segments(segments: &[SegmentStatus]) -> String {
    let rows = segments.iter().map(|segment| {
        let answered = match (segment.witness, segment.witness_ms_ago) {
            (None, _) => "only the carrier is judged".to_owned(),
            (Some(_), None) => "never answered".to_owned(),
            (Some(_), Some(ms)) => format!("answered {} ago", span(ms.saturating_mul(1000))),
        };
        vec![
            segment.interface.clone(),
            if segment.alive { "alive" } else { "DEAD" }.to_owned(),
            if segment.up { "up" } else { "DOWN" }.to_owned(),
            segment.witness.map_or("none".to_owned(), |witness| witness.to_string()),
            answered,
        ]
    });
    table_of(&["segment", "state", "link", "witness", ""], &[], rows.collect())
}

/// `show redundancy history`: each step with its distance to the one before.
pub fn history(answer: &RedundancyHistory) -> String {
    if answer.entries.is_empty() {
        return "nothing has happened since tandem-control was started\n".to_owned();
    }
    let mut before: Option<u64> = None;
    let rows = answer.entries.iter().map(|entry| {
        let offset = match before {
            None => String::new(),
            Some(before) if before <= entry.unix_us => format!("+{}", span(entry.unix_us - before)),
            // The clock was set back, or two sources of steps lie close together.
            Some(before) => format!("-{}", span(before - entry.unix_us)),
        };
        before = Some(entry.unix_us);
        vec![timestamp(entry.unix_us), offset, entry.step.clone(), entry.text.clone()]
    });
    let rows = rows.collect();
    table_of(&["time (UTC)", "offset", "step", ""], &[1], rows)
}

/// `redundancy switch-over`.
pub fn switched_over(done: &SwitchedOver) -> String {
    let SwitchedOver { role_before, role, term, took_ms } = done;
    format!("this node was {role_before} and is {role} now, term {term}, after {took_ms} ms\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use tandem_api::operator::{PairRecord, SessionReport, TermStatus};
    use tandem_api::pair::{HistoryEntry, PairTimings, PartnerHeard};

    fn sample() -> Redundancy {
        let session = SessionReport {
            state: SessionState::Up,
            since_s: 62,
            reason: None,
            partner_software: Some("0.1.0".to_owned()),
            peer: Some("10.255.0.2:3249".to_owned()),
            path: Some("sync".to_owned()),
            configuration_equal: Some(true),
            first_difference: None,
        };
        let path = |name: &str, alive: bool| PathStatus {
            name: name.to_owned(),
            local: "10.255.0.1:3249".to_owned(),
            remote: "10.255.0.2:3249".to_owned(),
            alive,
            heard_us_ago: alive.then_some(812),
            sent: 1000,
            received: 990,
            bad: 1,
            replayed: 2,
            send_errors: 3,
        };
        let segment = |interface: &str, witness: Option<[u8; 4]>| SegmentStatus {
            interface: interface.to_owned(),
            up: true,
            witness: witness.map(Into::into),
            witness_ms_ago: witness.map(|_| 40),
            alive: true,
        };
        let pair = PairStatus {
            partner: true,
            role: "standby".to_owned(),
            term: 4,
            state: "synchronized".to_owned(),
            incarnation: 7,
            eligible: true,
            terms_left: 14,
            fresh_for_us: 27_130,
            heard: Some(PartnerHeard {
                ago_us: 1_250,
                role: "active".to_owned(),
                state: "strict".to_owned(),
                reign: 4,
                incarnation: 6,
                forwarding: true,
            }),
            paths: vec![path("sync", true), path("inside", false)],
            segments: vec![segment("in0", Some([10, 1, 0, 10])), segment("out0", None)],
            ..PairStatus::default()
        };
        Redundancy {
            name: "gw-a2".to_owned(),
            node: 1,
            node_key: "aa".repeat(32),
            partner: Some(PartnerReport {
                key: "bb".repeat(32),
                priority: 100,
                timings: PairTimings::default(),
                session,
            }),
            terms: TermStatus {
                file_id: "00".repeat(16),
                node: 1,
                taken: 3,
                reserved: 33,
                left: 15,
                alarm: false,
            },
            record: PairRecord { reign: 4, incarnation: 7, paired_with: Some("bb".repeat(32)) },
            pair: Some(pair),
        }
    }

    #[test]
    fn the_overview_of_a_healthy_standby_says_all_at_one_look() {
        let (own, partner) = ("aa".repeat(32), "bb".repeat(32));
        let expected = format!(
            "\
node           gw-a2, node 1 of the pair
role           standby, term 4, synchronized, incarnation 7
takeover       would be fresh, for 27.130 ms if nothing more is heard
promised       everything
partner        active, strict, forwarding, reign 4, incarnation 6; heard 1.250 ms ago
session        up since 1m 2s, with 10.255.0.2:3249 over sync, partner's version 0.1.0
configuration  equal on both nodes
timings        heartbeat 2 ms, takeover after 10 ms, alone after 30 ms, cold wait 3 s; priority 100
terms          14 left without a write, 15 on disk, 3 taken last
disk           newest reign 4, incarnation 7
key            {own}
partner key    {partner}

path    local            remote           state       heard  sent  errors  received  bad  replayed
sync    10.255.0.1:3249  10.255.0.2:3249  alive  812 us ago  1000       3       990    1         2
inside  10.255.0.1:3249  10.255.0.2:3249  DEAD        never  1000       3       990    1         2

segment  state  link  witness
in0      alive  up    10.1.0.10  answered 40 ms ago
out0     alive  up    none       only the carrier is judged
"
        );
        assert_eq!(overview(&sample()), expected);
    }

    /// The lines of an overview whose name is `name`, with those that go on after it.
    fn lines_of(text: &str, name: &str) -> Vec<String> {
        let mut lines = text.lines().skip_while(|line| !line.starts_with(&format!("{name}  ")));
        let first = lines.next().map(|line| line[name.len()..].trim().to_owned());
        let rest = lines.take_while(|line| line.starts_with("  ")).map(|line| line.trim().to_owned());
        first.into_iter().chain(rest).collect()
    }

    #[test]
    fn what_is_not_promised_is_named_with_its_reason() {
        let mut answer = sample();
        let pair = answer.pair.as_mut().unwrap();
        pair.role = "active".to_owned();
        pair.state = "alone".to_owned();
        pair.eligible = false;
        pair.heard = None;
        pair.not_promised = vec!["G2: the partner is silent".to_owned(), "G3: so it is".to_owned()];
        pair.held = vec!["outbound 0x00002001 of site-b: no record of it".to_owned()];
        let text = overview(&answer);
        let role = "active, term 4, alone, incarnation 7; NOT eligible to become active";
        assert_eq!(lines_of(&text, "role"), [role]);
        assert_eq!(lines_of(&text, "takeover"), ["the partner could take over only STALE"]);
        assert_eq!(lines_of(&text, "NOT promised"), ["G2: the partner is silent", "G3: so it is"]);
        assert_eq!(lines_of(&text, "partner"), ["not heard yet"]);
        assert!(text.ends_with("held: outbound 0x00002001 of site-b: no record of it\n"), "{text}");

        let pair = answer.pair.as_mut().unwrap();
        pair.state = "strict".to_owned();
        let takeover = "strict: nothing takes effect before the partner knows it";
        assert_eq!(lines_of(&overview(&answer), "takeover"), [takeover]);
        let pair = answer.pair.as_mut().unwrap();
        pair.role = "standby".to_owned();
        pair.fresh_for_us = 0;
        assert_eq!(lines_of(&overview(&answer), "takeover"), ["would be STALE"]);
    }

    #[test]
    fn a_session_that_is_not_up_says_why_and_which_key_differs() {
        let mut answer = sample();
        answer.record.paired_with = None;
        let session = &mut answer.partner.as_mut().unwrap().session;
        session.state = SessionState::Refused;
        session.reason = Some("the configurations differ".to_owned());
        session.peer = None;
        session.path = None;
        session.configuration_equal = Some(false);
        session.first_difference = Some("crypto-map.site-b.peer differs".to_owned());
        let text = overview(&answer);
        let session = "REFUSED since 1m 2s: the configurations differ, partner's version 0.1.0";
        assert_eq!(lines_of(&text, "session"), [session]);
        assert_eq!(
            lines_of(&text, "configuration"),
            ["NOT equal: crypto-map.site-b.peer differs; make it equal and `tandemctl config reload`"]
        );
        assert_eq!(lines_of(&text, "partner key").len(), 2, "{text}");
    }

    #[test]
    fn a_gateway_without_partner_or_data_plane_says_so() {
        let mut answer = sample();
        answer.partner = None;
        answer.pair = None;
        let text = overview(&answer);
        assert!(
            lines_of(&text, "role")[0].starts_with("unknown while the data plane is not connected"),
            "{text}"
        );
        let none = "none: the configuration has no [redundancy], nobody takes over";
        assert_eq!(lines_of(&text, "partner"), [none]);
        assert_eq!(lines_of(&text, "terms"), ["15 left on disk, 3 taken last"]);
    }

    #[test]
    fn the_history_has_wall_clock_times_and_the_offset_of_each_step() {
        let entry = |unix_us: u64, step: &str, text: &str| HistoryEntry {
            unix_us,
            step: step.to_owned(),
            text: text.to_owned(),
        };
        let start = 1_764_127_091_000_250;
        let entries = vec![
            entry(start, "silence", "nothing heard for 10 ms"),
            entry(start + 420, "takeover", "fresh, term 5"),
            entry(start + 31_020, "alone", "no standby"),
            entry(start + 31_000, "announce", "clock set back"),
        ];
        let expected = "\
time (UTC)                      offset  step
2025-11-26 03:18:11.000250              silence   nothing heard for 10 ms
2025-11-26 03:18:11.000670     +420 us  takeover  fresh, term 5
2025-11-26 03:18:11.031270  +30.600 ms  alone     no standby
2025-11-26 03:18:11.031250      -20 us  announce  clock set back
";
        assert_eq!(history(&RedundancyHistory { entries }), expected);
        let none = history(&RedundancyHistory { entries: Vec::new() });
        assert_eq!(none, "nothing has happened since tandem-control was started\n");
    }
}

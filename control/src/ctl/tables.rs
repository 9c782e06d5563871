//! Tables for people, from the same answers that `--json` prints.

use super::numbers::{duration, rate};
use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use std::fmt::Write;
use tandem_api::counters::{Counter, DropReason, SlowCounter};
use tandem_api::dataplane::PolicyAction;
use tandem_api::operator::{
    ConnectionState, Counters, InterfaceReport, Interfaces, NodeStatus, Policies, Reloaded,
};

/// Columns two blanks apart, without lines; `right` names those that are aligned to the right.
pub fn table_of(head: &[&str], right: &[usize], rows: Vec<Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(head);
    table.add_rows(rows);
    for (at, column) in table.column_iter_mut().enumerate() {
        column.set_padding((0, 2));
        if right.contains(&at) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table.lines().map(|line| line.trim_end().to_owned() + "\n").collect()
}

/// Lines of a name and what it says; a line without a name goes on with the one before.
pub fn pairs(rows: &[(&str, String)]) -> String {
    let width = rows.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    rows.iter().map(|(name, value)| format!("{name:width$}  {value}\n")).collect()
}

/// `show status`.
pub fn status(status: &NodeStatus) -> String {
    let plane = &status.data_plane;
    let since = duration(plane.since_s);
    let connection = match plane.state {
        ConnectionState::Connected => format!("connected since {since}"),
        ConnectionState::Unreachable => {
            let reason = plane.reason.as_deref().unwrap_or("unknown");
            format!("not reachable since {since}: {reason}; start tandem-dataplane, or look into its log")
        }
        ConnectionState::Detached => {
            format!(
                "detached since {since}; `tandemctl config reload` attaches again, once tandem-dataplane runs"
            )
        }
    };
    let role = match (status.role, status.term) {
        (Some(role), Some(term)) => format!("{role}, term {term}"),
        _ => "unknown while the data plane is not connected".to_owned(),
    };
    let mut rows = vec![
        ("node", status.node.clone()),
        ("node key", status.node_key.clone()),
        ("role", role),
        ("data plane", connection),
    ];
    if let (Some(pid), Some(software)) = (plane.pid, &plane.software) {
        let origin = match plane.hot_state {
            Some(tandem_api::dataplane::HotStateOrigin::Adopted) => {
                "hot state taken over from an earlier process"
            }
            _ => "hot state of its own",
        };
        let generation = plane.generation.unwrap_or(0);
        rows.push(("", format!("version {software}, pid {pid}, {origin}, generation {generation}")));
    }
    rows.push(("", format!("{}, {} connections so far", plane.socket, plane.connections)));
    let uptime = duration(status.uptime_s);
    rows.push(("control", format!("version {}, pid {}, up {uptime}", status.software, status.pid)));
    rows.push((
        "configuration",
        format!("{}, read {} ago", status.config_file, duration(status.config_age_s)),
    ));
    if let Some(reload) = &status.last_reload {
        let ago = duration(reload.ago_s);
        rows.push(match &reload.error {
            None => ("", format!("last reload {ago} ago: done")),
            Some(error) => ("", format!("last reload {ago} ago: FAILED, nothing has changed: {error}")),
        });
    }
    let terms = &status.terms;
    let alarm = if terms.alarm { "; ALARM: the term file cannot be extended, is the disk full?" } else { "" };
    rows.push((
        "terms",
        format!("{} taken last, {} left up to {}{alarm}", terms.taken, terms.left, terms.reserved),
    ));
    let fence = match (&status.fence.reason, status.fence.in_place) {
        (Some(reason), _) => format!("NOT in place: {reason}"),
        (None, true) => format!("{} blackhole routes in place", status.fence.wanted),
        (None, false) => "removed".to_owned(),
    };
    rows.push(("fence", fence));
    pairs(&rows)
}

/// `show policy`.
pub fn policy(policies: &Policies) -> String {
    let rows = policies.policies.iter().map(|policy| {
        let action = match policy.action {
            PolicyAction::Protect { .. } => "protect",
            PolicyAction::Bypass => "bypass",
            PolicyAction::Discard => "discard",
        };
        vec![
            policy.priority.to_string(),
            policy.name.clone(),
            policy.selector.local.to_string(),
            policy.selector.remote.to_string(),
            action.to_owned(),
            policy.peer.map(|peer| peer.to_string()).unwrap_or_default(),
        ]
    });
    let mut text = String::new();
    if !policies.in_force {
        text += "not in force: the data plane is not connected, see `tandemctl show status`\n";
    }
    text + &table_of(&["priority", "name", "local", "remote", "action", "peer"], &[0], rows.collect())
}

/// `show interfaces`.
pub fn interfaces(answer: &Interfaces) -> String {
    let mut text = String::new();
    for interface in &answer.interfaces {
        one_interface(&mut text, interface);
    }
    let rows = answer.workers.iter().map(|worker| {
        let core = worker.core.map_or("not pinned".to_owned(), |core| core.to_string());
        vec![worker.worker.to_string(), core, worker.rounds.to_string(), worker.free_frames.to_string()]
    });
    text + &table_of(&["worker", "core", "rounds", "free frames"], &[0, 1, 2, 3], rows.collect())
}

fn one_interface(text: &mut String, interface: &InterfaceReport) {
    let up = if interface.up { "up" } else { "DOWN" };
    let copy = if interface.zero_copy { "zero-copy" } else { "copy" };
    // Writing to a String never fails.
    let _ = writeln!(text, "{} is {up}, {} (index {})", interface.name, interface.side, interface.index);
    let _ = writeln!(
        text,
        "  driver {}, XDP {}, {copy}, {} queues, MTU {}",
        interface.driver, interface.xdp_mode, interface.queues, interface.mtu
    );
    let _ = writeln!(
        text,
        "  MAC {}, virtual MAC {}, virtual addresses {}",
        interface.mac,
        interface.virtual_mac,
        interface.virtual_addresses.join(", ")
    );
    let _ = writeln!(text, "  received {} frames, {} octets", interface.rx_frames, interface.rx_bytes);
    let _ = writeln!(text, "  sent     {} frames, {} octets", interface.tx_frames, interface.tx_bytes);
    if let Some(rates) = &interface.rates {
        let _ = writeln!(
            text,
            "  rates over {:.1} s: received {}frames/s, {}bit/s; sent {}frames/s, {}bit/s",
            rates.interval_s,
            rate(rates.rx_frames_per_s),
            rate(rates.rx_bits_per_s),
            rate(rates.tx_frames_per_s),
            rate(rates.tx_bits_per_s)
        );
    }
    for (title, counters) in [("steering", &interface.steering), ("socket", &interface.socket)] {
        let shown: Vec<String> = counters
            .iter()
            .filter(|(_, count)| **count > 0)
            .map(|(name, count)| format!("{name} {count}"))
            .collect();
        let list = if shown.is_empty() { "all counters 0".to_owned() } else { shown.join(", ") };
        let _ = writeln!(text, "  {title}: {list}");
    }
    text.push('\n');
}

/// `show counters`.
pub fn counters(counters: &Counters, all: bool) -> String {
    let value =
        |map: &std::collections::BTreeMap<String, u64>, name: &str| map.get(name).copied().unwrap_or(0);
    let mut rows = Vec::new();
    let mut section = |title: &str, list: Vec<(&str, &str, u64)>| {
        let list: Vec<_> = list.into_iter().filter(|(_, _, count)| all || *count > 0).collect();
        if !list.is_empty() {
            rows.push(vec![title.to_owned()]);
        }
        for (name, text, count) in list {
            rows.push(vec![format!("  {name}"), count.to_string(), text.to_owned()]);
        }
    };
    section(
        "workers",
        Counter::ALL.iter().map(|c| (c.name(), c.text(), value(&counters.counters, c.name()))).collect(),
    );
    section(
        "slow path",
        SlowCounter::ALL.iter().map(|c| (c.name(), c.text(), value(&counters.slow, c.name()))).collect(),
    );
    section(
        "drops",
        DropReason::ALL.iter().map(|r| (r.name(), r.text(), value(&counters.drops, r.name()))).collect(),
    );
    let mut text = table_of(&["counter", "count", "meaning"], &[1], rows);
    let a = &counters.accounting;
    let in_hand = |difference: i64| match difference {
        0 => String::new(),
        difference => format!(" (in hand: {difference})"),
    };
    let _ = writeln!(
        text,
        "\naccounting: received {} + returned {} + created {} = forwarded {} + slow path {} + dropped {} + waiting {}{}",
        a.received,
        a.returned,
        a.created,
        a.forwarded,
        a.punted,
        a.dropped,
        a.parked,
        in_hand(a.difference)
    );
    let _ = writeln!(
        text,
        "slow path:  {} = answered {} + resumed {} + held {} + dropped {}{}",
        a.punted,
        a.slow_answered,
        a.slow_resumed,
        a.slow_held,
        a.slow_dropped,
        in_hand(a.slow_difference)
    );
    text
}

/// `config reload`.
pub fn reloaded(reloaded: &Reloaded) -> String {
    let Reloaded { interfaces, policies, sas, .. } = reloaded;
    let what = format!("{interfaces} interfaces, {policies} policies, {sas} SAs");
    if !reloaded.in_force {
        return format!(
            "read: {what}; in force when the data plane can be reached, see `tandemctl show status`\n"
        );
    }
    format!(
        "applied: {what} ({} new, {} resumed, {} left alone, {} removed)\n",
        reloaded.sas_new, reloaded.sas_resumed, reloaded.sas_unchanged, reloaded.sas_removed
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use tandem_api::dataplane::CounterValues;

    fn sample() -> Counters {
        let mut values = CounterValues {
            counters: vec![0; Counter::COUNT],
            drops: vec![0; DropReason::COUNT],
            slow_drops: vec![0; DropReason::COUNT],
            slow: vec![0; SlowCounter::COUNT],
        };
        values.counters[Counter::Received as usize] = 12;
        values.counters[Counter::Forwarded as usize] = 9;
        values.drops[DropReason::EspReplayed as usize] = 2;
        Counters::from(&values)
    }

    #[test]
    fn counters_show_name_text_and_where_every_frame_ended() {
        let expected = "\
counter         count  meaning
workers
  received         12  frames received by the workers
  forwarded         9  frames handed to an interface
drops
  esp_replayed      2  sequence number seen before

accounting: received 12 + returned 0 + created 0 = forwarded 9 + slow path 0 + dropped 2 + waiting 0 (in hand: 1)
slow path:  0 = answered 0 + resumed 0 + held 0 + dropped 0
";
        assert_eq!(counters(&sample(), false), expected);
    }

    #[test]
    fn all_shows_every_drop_reason() {
        let text = counters(&sample(), true);
        for reason in DropReason::ALL {
            assert!(text.contains(&format!("  {} ", reason.name())), "{reason}");
            assert!(text.contains(reason.text()), "{reason}");
        }
    }
}

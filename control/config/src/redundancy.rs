//! `[redundancy]` and `[[redundancy.path]]`.

use crate::finding::Report;
use crate::policy::Names;
use crate::reader::{Field, Section, shorten};
use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddrV4};
use tandem_api::dataplane::Interface;
use tandem_api::pair::{PATHS_MAX, PairPath, PairTimings};

/// UDP port of a path, and TCP port of the session on the same addresses.
const PORT: u16 = 3249;
/// What `alone-ms` must leave for the worst round trip and for clocks that drift apart (F20), in milliseconds.
const ROUND_TRIP_AND_DRIFT_MS: u64 = 5;
/// Heartbeats that may be lost before the partner counts as silent.
const HEARTBEATS_MIN: u64 = 3;
/// Longest of the times, in milliseconds.
const TIME_MAX_MS: u64 = 120_000;

/// `[redundancy]`: the partner, and how it is watched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redundancy {
    /// The partner's public node key.
    pub partner_key: [u8; 32],
    /// Decides between two cold nodes (`failover.md` F22): the higher one is active.
    pub priority: u8,
    /// Timings (F20, F22); equal on both nodes.
    pub timings: PairTimings,
    /// Ways to the partner, the preferred one first; 1 to [`PATHS_MAX`].
    pub paths: Vec<PairPath>,
}

/// Reads the section, if it is there. `interfaces` are those without errors.
pub(crate) fn read(
    root: &mut Section<'_, '_>,
    interfaces: &[Interface],
    report: &mut Report<'_>,
) -> Option<Redundancy> {
    let mut section = root.find("redundancy")?.section(report)?;
    let partner_key = section.need("partner-key", "partner-key = \"...\"", report);
    let partner_key = partner_key.and_then(|field| node_key(&field, report));
    let priority = match section.find("priority") {
        None => Some(100),
        Some(field) => field.integer(0..=255, report).map(|number| number as u8),
    };
    let timings = timings(&mut section, report);
    let example = "[[redundancy.path]]` with name, local and remote, below `[redundancy]";
    let paths = section.need("path", example, report);
    let paths = paths.and_then(|field| paths_of(&field, interfaces, report));
    section.finish(report);
    Some(Redundancy { partner_key: partner_key?, priority: priority?, timings: timings?, paths: paths? })
}

fn node_key(field: &Field<'_, '_>, report: &mut Report<'_>) -> Option<[u8; 32]> {
    let cure = "write the 64 hexadecimal digits that `tandemctl node show` prints on the partner";
    let text = field.string(report)?;
    let mut key = [0; 32];
    if hex::decode_to_slice(text, &mut key).is_err() {
        let digits = text.chars().all(|c| c.is_ascii_hexdigit());
        let message = match digits {
            true => format!("a node key has 64 hexadecimal digits, this one has {}", text.len()),
            false => "the node key is not hexadecimal".to_owned(),
        };
        field.error(report, message, cure);
        return None;
    }
    if key == [0; 32] {
        field.error(report, "no node has this key", cure);
        return None;
    }
    Some(key)
}

/// A time in milliseconds or seconds, with its place if it was written.
fn time<'a, 's>(
    section: &mut Section<'a, 's>,
    key: &'static str,
    default: u64,
    max: u64,
    report: &mut Report<'_>,
) -> Option<(u64, Option<Field<'a, 's>>)> {
    match section.find(key) {
        None => Some((default, None)),
        Some(field) => field.integer(1..=max, report).map(|value| (value, Some(field))),
    }
}

fn timings(section: &mut Section<'_, '_>, report: &mut Report<'_>) -> Option<PairTimings> {
    let default = PairTimings::default();
    let of = |us: u32| u64::from(us / 1000);
    let heartbeat = time(section, "heartbeat-ms", of(default.heartbeat_us), 1000, report);
    let takeover = time(section, "takeover-ms", of(default.takeover_us), TIME_MAX_MS, report);
    let alone = time(section, "alone-ms", of(default.alone_us), TIME_MAX_MS, report);
    let cold = time(section, "cold-wait-s", u64::from(default.cold_wait_ms / 1000), 600, report);
    let (Some((heartbeat, beat_at)), Some((takeover, takeover_at)), Some((alone, alone_at)), Some((cold, _))) =
        (heartbeat, takeover, alone, cold)
    else {
        return None;
    };
    // At the time that is too short; where that is a default, at the one that was written beside it.
    let error =
        |report: &mut Report<'_>, places: [&Option<Field<'_, '_>>; 3], message: String, cure: String| {
            if let Some(field) = places.into_iter().flatten().next() {
                field.error(report, message, cure);
            }
        };
    let least = HEARTBEATS_MIN * heartbeat;
    if takeover < least {
        let message =
            format!("takeover-ms = {takeover} is less than {HEARTBEATS_MIN} heartbeats of {heartbeat} ms");
        let cure = format!(
            "write at least `takeover-ms = {least}`, or a shorter heartbeat-ms: one or two lost heartbeats must \
             not cause a takeover"
        );
        error(report, [&takeover_at, &beat_at, &alone_at], message, cure);
        return None;
    }
    let least = takeover + 2 * heartbeat + ROUND_TRIP_AND_DRIFT_MS;
    if alone <= least {
        let message = format!(
            "alone-ms = {alone} is not more than {least} = takeover-ms {takeover} + 2 heartbeats of {heartbeat} ms \
             + {ROUND_TRIP_AND_DRIFT_MS} ms for round trip and drift"
        );
        let cure = format!(
            "write at least `alone-ms = {}`, or a shorter takeover-ms: an active node that went alone before the \
             standby takes over would make that takeover stale (failover.md F20)",
            least + 1
        );
        error(report, [&alone_at, &takeover_at, &beat_at], message, cure);
        return None;
    }
    let us = |ms: u64| (ms * 1000) as u32;
    Some(PairTimings {
        heartbeat_us: us(heartbeat),
        takeover_us: us(takeover),
        alone_us: us(alone),
        cold_wait_ms: us(cold),
    })
}

/// Where the addresses of earlier paths are.
#[derive(Default)]
struct Taken {
    ways: HashMap<(Ipv4Addr, Ipv4Addr), usize>,
    /// Sockets of this node, and of the partner.
    local: HashMap<SocketAddrV4, usize>,
    remote: HashMap<SocketAddrV4, usize>,
}

fn paths_of(
    field: &Field<'_, '_>,
    interfaces: &[Interface],
    report: &mut Report<'_>,
) -> Option<Vec<PairPath>> {
    let sections = field.sections(report);
    let count = sections.len();
    if count == 0 || count > PATHS_MAX {
        let message = format!("{count} paths; there are 1 to {PATHS_MAX}");
        field.error(report, message, "keep those that share no cable and no switch with each other");
        return None;
    }
    let mut names = Names::new("path");
    let mut taken = Taken::default();
    let mut paths = Vec::with_capacity(count);
    for mut section in sections {
        let name = names.read(&mut section, report);
        let port = match section.find("port") {
            None => Some(PORT),
            Some(field) => field.integer(1..=u64::from(u16::MAX), report).map(|port| port as u16),
        };
        let local = section.need("local", "local = \"10.255.0.1\"", report);
        let local = local.and_then(|field| Some((kernel_address(&field, interfaces, report)?, field)));
        let remote = section.need("remote", "remote = \"10.255.0.2\"", report);
        let remote = remote.and_then(|field| Some((kernel_address(&field, interfaces, report)?, field)));
        let known_witness =
            local.as_ref().is_none_or(|(address, field)| no_witness(*address, field, interfaces, report));
        let known_witness = known_witness
            & remote.as_ref().is_none_or(|(address, field)| no_witness(*address, field, interfaces, report));
        section.finish(report);
        let (Some((local, local_at)), Some((remote, remote_at)), Some(port)) = (local, remote, port) else {
            continue;
        };
        let (local, remote) = (SocketAddrV4::new(local, port), SocketAddrV4::new(remote, port));
        let fits = known_witness && unique(&mut taken, (local, &local_at), (remote, &remote_at), report);
        if let (Some(name), true) = (name, fits) {
            paths.push(PairPath { name, local, remote });
        }
    }
    (paths.len() == count).then_some(paths)
}

/// An address of a kernel: paths must work on the standby too, and without the data plane.
fn kernel_address(
    field: &Field<'_, '_>,
    interfaces: &[Interface],
    report: &mut Report<'_>,
) -> Option<Ipv4Addr> {
    let address = field.address(report)?;
    let owner = |interface: &&Interface| interface.virtual_addresses.iter().any(|net| net.addr() == address);
    if let Some(interface) = interfaces.iter().find(owner) {
        let message = format!("{address} is a virtual address of {}", shorten(&interface.name));
        let cure = "write an address that only one of the nodes has, in its kernel: the virtual ones move at a takeover";
        field.error(report, message, cure);
        return None;
    }
    Some(address)
}

/// The witness of a segment is another than this node and its partner (F25).
fn no_witness(
    address: Ipv4Addr,
    field: &Field<'_, '_>,
    interfaces: &[Interface],
    report: &mut Report<'_>,
) -> bool {
    let Some(interface) = interfaces.iter().find(|interface| interface.witness == Some(address)) else {
        return true;
    };
    let message = format!("{address} is the witness of {}", shorten(&interface.name));
    let cure =
        "choose a witness that is neither this node nor its partner: it must answer when one of them is dead";
    field.error(report, message, cure);
    false
}

fn unique(
    taken: &mut Taken,
    (local, local_at): (SocketAddrV4, &Field<'_, '_>),
    (remote, remote_at): (SocketAddrV4, &Field<'_, '_>),
    report: &mut Report<'_>,
) -> bool {
    let line = report.line_of(local_at.span.start);
    if local == remote {
        let message = format!("local and remote are both {}", local.ip());
        remote_at.error(report, message, "write the address of the partner's kernel on this path");
        return false;
    }
    if let Some(earlier) = taken.ways.insert((*local.ip(), *remote.ip()), line) {
        let message = format!("{} to {} is the path of line {earlier} again", local.ip(), remote.ip());
        local_at.error(
            report,
            message,
            "leave it out: only a way of its own helps when the other one breaks",
        );
        return false;
    }
    let earlier = taken.local.insert(local, line).or(taken.remote.get(&local).copied());
    if let Some(earlier) = earlier {
        let message = format!("{local} is taken by the path of line {earlier}");
        local_at.error(report, message, "give each path addresses of its own, or another port");
        return false;
    }
    let earlier = taken.remote.insert(remote, line).or(taken.local.get(&remote).copied());
    if let Some(earlier) = earlier {
        let message = format!("{remote} is taken by the path of line {earlier}");
        remote_at.error(report, message, "give each path addresses of its own, or another port");
        return false;
    }
    true
}

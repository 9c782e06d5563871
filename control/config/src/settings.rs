//! What a configuration comes to.

use crate::finding::{Findings, Report, Source};
use crate::policy::{self, Placed};
use crate::reader::Section;
use crate::redundancy::{self, Redundancy};
use crate::{crypto_map, interface, node};
use ipnet::Ipv4Net;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::net::Ipv4Addr;
use std::path::PathBuf;
use tandem_api::dataplane::{
    Config, Interface, MESSAGE_MAX, PolicyAction, RING_SIZE, SaSpec, StaleAction, StartSettings, encode,
};
use tandem_api::types::Selector;
use toml::de::DeTable;
use zeroize::Zeroizing;

/// Reads the text of a key file, or says why it cannot.
pub type KeyFileReader<'f> = &'f mut dyn FnMut(&str) -> Result<Zeroizing<String>, String>;

/// A configuration without errors.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// This node.
    pub node: Node,
    /// Socket of the data plane.
    pub data_plane_socket: PathBuf,
    /// What holds for the life of a data plane process.
    pub start: StartSettings,
    /// Interfaces and policies.
    pub data_plane: Config,
    /// Crypto maps, in order of priority.
    pub maps: Vec<CryptoMap>,
    /// Static SAs, both directions.
    pub sas: Vec<SaSpec>,
    /// The partner; none for a gateway that stands alone.
    pub redundancy: Option<Redundancy>,
    /// Protected remote prefixes, each once: where blackhole routes belong (`failover.md` F33).
    pub fence: Vec<Ipv4Net>,
}

/// `[node]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Name, for people.
    pub name: String,
    /// Holds the files of `tandemctl node init`.
    pub state_directory: PathBuf,
    /// The operator's socket.
    pub control_socket: PathBuf,
    /// Its group.
    pub control_group: Option<String>,
}

/// A crypto map, for reports; its SAs and policies have the same policy number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CryptoMap {
    /// Name.
    pub name: String,
    /// Lowest wins.
    pub priority: u32,
    /// Number that ties its SAs to its policies.
    pub policy: u32,
    /// Outside interface that has `local`.
    pub interface: String,
    /// Outer address of ours.
    pub local: Ipv4Addr,
    /// Outer address of the peer's.
    pub peer: Ipv4Addr,
    /// Selectors.
    pub selectors: Vec<Selector>,
    /// What a stale takeover does with its static SAs (`failover.md` F24).
    pub stale: StaleAction,
}

/// Reads a configuration.
///
/// # Errors
/// Every error that could be found, not only the first.
pub fn load(source: &Source, read_file: KeyFileReader<'_>) -> Result<Settings, Findings> {
    let mut report = Report::new(source);
    let (table, errors) = DeTable::parse_recoverable(source.text());
    let mut last_line = 0;
    for error in &errors {
        let span = error.span().unwrap_or(0..0);
        let line = report.line_of(span.start);
        // What follows in the same line is mostly a consequence.
        if line != last_line {
            let message = format!("not TOML: {}", error.message());
            report.error(span, "", message, "see https://toml.io for the notation");
        }
        last_line = line;
    }
    if !errors.is_empty() {
        return Err(report.finish());
    }
    let mut root = Section::root(table.get_ref());
    let node = node::node(&mut root, &mut report);
    let plane = node::data_plane(&mut root, &mut report);
    let interfaces = interface::read(&mut root, plane.start.workers, &mut report);
    let crypto = crypto_map::read(&mut root, &interfaces, read_file, &mut report);
    let redundancy = redundancy::read(&mut root, &interfaces, &mut report);
    let mut placed = crypto.policies;
    placed.extend(policy::read(&mut root, &mut report));
    root.finish(&mut report);
    policy::check_overlaps(&placed, &mut report);
    check_frames(&plane, &interfaces, &mut report);
    check_max_sas(&plane, crypto.maps.len(), &mut report);

    let data_plane = Config { interfaces, policies: placed.iter().map(|p| p.policy.clone()).collect() };
    check_size(&data_plane, &placed, &mut report);
    if !report.is_clean() {
        return Err(report.finish());
    }
    let fence: BTreeSet<Ipv4Net> = crypto.maps.iter().flat_map(|m| &m.selectors).map(|s| s.remote).collect();
    let mut maps = crypto.maps;
    maps.sort_by_key(|map| (map.priority, map.policy));
    Ok(Settings {
        node,
        data_plane_socket: plane.socket,
        start: plane.start,
        data_plane,
        maps,
        sas: crypto.sas,
        redundancy,
        fence: fence.into_iter().collect(),
    })
}

/// Each socket of a worker keeps a full fill ring and may have a full transmit ring.
fn check_frames(plane: &node::DataPlane<'_, '_>, interfaces: &[Interface], report: &mut Report<'_>) {
    let workers = plane.start.workers;
    let sockets: u32 = interfaces.iter().map(|i| u32::from(i.queues.div_ceil(workers))).sum();
    let need = (sockets * 2 * RING_SIZE).next_power_of_two();
    if plane.start.frames >= need {
        return;
    }
    let frames = plane.start.frames;
    let message = format!("{frames} frames are too few for the {sockets} sockets of a worker");
    let cure = format!("write `frames = {need}` in [dataplane], or take fewer queues");
    match &plane.frames {
        Some(field) => field.error(report, message, cure),
        None => report.error(0..0, "dataplane.frames", message, cure),
    }
}

fn check_max_sas(plane: &node::DataPlane<'_, '_>, maps: usize, report: &mut Report<'_>) {
    let max = plane.start.max_sas;
    if maps as u64 <= u64::from(max) {
        return;
    }
    let message = format!("{maps} SAs in each direction, and room for {max}");
    let cure = format!("write `max-sas = {}` in [dataplane]", maps.next_power_of_two());
    match &plane.max_sas {
        Some(field) => field.error(report, message, cure),
        None => report.error(0..0, "dataplane.max-sas", message, cure),
    }
}

/// The data plane takes its configuration in one message.
fn check_size(config: &Config, placed: &[Placed], report: &mut Report<'_>) {
    // Room for what wraps the configuration in a request.
    let Err(error) = encode(config).map(|bytes| bytes.len() + 64).and_then(|length| {
        if length <= MESSAGE_MAX { Ok(()) } else { Err(tandem_api::dataplane::CodecError::TooLong(length)) }
    }) else {
        return;
    };
    let (span, path) =
        placed.last().map_or((0..0, String::new()), |last| (last.span.clone(), last.path.clone()));
    let message = format!("{} policies are too many: {error}", placed.len());
    report.error(span, path, message, "join prefixes, or shorten names");
}

impl Settings {
    /// Gives crypto maps that the data plane knows already (by name) the policy numbers that it knows
    /// them by, and the others numbers that are free, so that SAs in use stay tied to their policy
    /// whatever was added or removed before them in the file.
    pub fn renumber(&mut self, held: &HashMap<String, u32>) {
        let wanted = |map: &CryptoMap| held.get(&map.name).copied();
        let mut taken: HashSet<u32> = HashSet::new();
        let mut numbers: HashMap<u32, u32> = HashMap::new();
        for map in &self.maps {
            if let Some(number) = wanted(map)
                && taken.insert(number)
            {
                numbers.insert(map.policy, number);
            }
        }
        // Numbers of maps that are going stay out of use until they are gone.
        taken.extend(held.values());
        let mut free = (0..).filter(|number| !taken.contains(number));
        let mut others: Vec<u32> = self.maps.iter().map(|map| map.policy).collect();
        others.sort_unstable();
        for old in others {
            if !numbers.contains_key(&old)
                && let Some(number) = free.next()
            {
                numbers.insert(old, number);
            }
        }
        let new = |old: u32| numbers.get(&old).copied().unwrap_or(old);
        for map in &mut self.maps {
            map.policy = new(map.policy);
        }
        for sa in &mut self.sas {
            sa.policy = new(sa.policy);
        }
        for entry in &mut self.data_plane.policies {
            if let PolicyAction::Protect { policy } = &mut entry.action {
                *policy = new(*policy);
            }
        }
    }

    /// The policy numbers by name of crypto map.
    #[must_use]
    pub fn numbers(&self) -> HashMap<String, u32> {
        self.maps.iter().map(|map| (map.name.clone(), map.policy)).collect()
    }
}

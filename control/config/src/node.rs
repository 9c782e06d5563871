//! `[node]` and `[dataplane]`.

use crate::finding::Report;
use crate::reader::{Field, Section, shorten};
use crate::settings::Node;
use std::path::PathBuf;
use tandem_api::dataplane::{Idle, StartSettings};

/// Octets of a Unix socket's path, without the terminating zero.
const SOCKET_PATH_MAX: usize = 107;
/// Slots that an SPI of ours can name (20 bits).
const MAX_SAS: u64 = 1 << 20;

pub(crate) fn node(root: &mut Section<'_, '_>, report: &mut Report<'_>) -> Node {
    let mut node = Node {
        name: String::new(),
        state_directory: PathBuf::from("/var/lib/tandem"),
        control_socket: PathBuf::from("/run/tandem/control.sock"),
        control_group: None,
    };
    let field = root.need("node", "[node]` with `name = \"gw-a\"", report);
    let Some(mut section) = field.and_then(|field| field.section(report)) else { return node };
    if let Some(text) = section.need("name", "name = \"gw-a\"", report).and_then(|field| name(&field, report))
    {
        node.name = text;
    }
    if let Some(path) = section.find("state-directory").and_then(|field| path(&field, report)) {
        node.state_directory = path;
    }
    if let Some(path) = section.find("control-socket").and_then(|field| socket(&field, report)) {
        node.control_socket = path;
    }
    node.control_group = section.find("control-group").and_then(|field| name(&field, report));
    section.finish(report);
    node
}

/// Gives the path of the data plane's socket and its settings, with the place of `frames` and `max-sas`
/// for checks that need the rest.
pub(crate) struct DataPlane<'a, 's> {
    pub socket: PathBuf,
    pub start: StartSettings,
    pub frames: Option<Field<'a, 's>>,
    pub max_sas: Option<Field<'a, 's>>,
}

pub(crate) fn data_plane<'a, 's>(root: &mut Section<'a, 's>, report: &mut Report<'_>) -> DataPlane<'a, 's> {
    let start = StartSettings {
        workers: 1,
        max_sas: 4096,
        frames: 8192,
        aead: "auto".to_owned(),
        idle: Idle::Adaptive,
    };
    let path = PathBuf::from("/run/tandem/dataplane.sock");
    let mut result = DataPlane { socket: path, start, frames: None, max_sas: None };
    let field = root.find("dataplane");
    let Some(mut section) = field.and_then(|field| field.section(report)) else { return result };

    if let Some(path) = section.find("socket").and_then(|field| socket(&field, report)) {
        result.socket = path;
    }
    if let Some(count) = section.find("workers").and_then(|field| field.integer(1..=64, report)) {
        result.start.workers = count as u16;
    }
    result.max_sas = section.find("max-sas");
    if let Some(count) = result.max_sas.as_ref().and_then(|field| field.integer(1..=MAX_SAS, report)) {
        result.start.max_sas = count as u32;
    }
    result.frames = section.find("frames");
    if let Some(field) = &result.frames
        && let Some(count) = field.integer(64..=1 << 24, report)
    {
        if count.is_power_of_two() {
            result.start.frames = count as u32;
        } else {
            let cure = format!("write {} or {}", count.next_power_of_two() / 2, count.next_power_of_two());
            field.error(report, format!("{count} is no power of two"), cure);
            result.frames = None;
        }
    }
    let providers = ["auto", "vaes", "aws-lc-rs", "aes-gcm"].map(|provider| (provider, provider));
    if let Some(provider) = section.find("aead").and_then(|field| field.choice(&providers, report)) {
        result.start.aead = provider.to_owned();
    }
    let words = [("adaptive", Idle::Adaptive), ("spin", Idle::Spin)];
    if let Some(idle) = section.find("idle").and_then(|field| field.choice(&words, report)) {
        result.start.idle = idle;
    }
    section.finish(report);
    result
}

/// A name of a node, group, crypto map or policy.
pub(crate) fn name(field: &Field<'_, '_>, report: &mut Report<'_>) -> Option<String> {
    let text = field.string(report)?;
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if text.is_empty() || text.len() > 63 || !text.chars().all(fits) {
        let message = format!("`{}` is no name", shorten(text));
        field.error(report, message, "use 1 to 63 of the characters A-Z a-z 0-9 - _ .");
        return None;
    }
    Some(text.to_owned())
}

fn path(field: &Field<'_, '_>, report: &mut Report<'_>) -> Option<PathBuf> {
    let text = field.string(report)?;
    if !text.starts_with('/') || text.contains('\0') {
        field.error(report, format!("`{}` is no absolute path", shorten(text)), "start it with /");
        return None;
    }
    Some(PathBuf::from(text))
}

fn socket(field: &Field<'_, '_>, report: &mut Report<'_>) -> Option<PathBuf> {
    let path = path(field, report)?;
    if path.as_os_str().len() > SOCKET_PATH_MAX {
        let message = format!("a socket's path has at most {SOCKET_PATH_MAX} octets");
        field.error(report, message, "choose a shorter path, such as one below /run");
        return None;
    }
    Some(path)
}

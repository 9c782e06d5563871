//! `[[crypto-map]]`.

use crate::finding::Report;
use crate::key;
use crate::policy::{Names, Placed, priority, selector};
use crate::reader::Section;
use crate::settings::{CryptoMap, KeyFileReader};
use std::collections::HashMap;
use std::net::Ipv4Addr;
use tandem_api::dataplane::{Interface, Policy, PolicyAction, SaSpec, StaleAction};
use tandem_api::types::{Direction, KeyFingerprint, Selector, Side, Transform};

/// Selectors of one map, so that its SA fits into one message to the data plane.
const SELECTORS_MAX: usize = 256;
/// SPIs below are reserved (RFC 4303 section 2.1).
const SPI_MIN: u64 = 256;

/// What all crypto maps come to.
#[derive(Default)]
pub(crate) struct CryptoMaps {
    pub maps: Vec<CryptoMap>,
    pub policies: Vec<Placed>,
    pub sas: Vec<SaSpec>,
}

/// Where something was seen first: path and line.
type Seen<K> = HashMap<K, (String, usize)>;

struct Uniques {
    names: Names,
    inbound: Seen<u32>,
    outbound: Seen<(Ipv4Addr, u32)>,
    keys: Seen<KeyFingerprint>,
}

/// Reads all crypto maps; one that has an error may be left out.
pub(crate) fn read(
    root: &mut Section<'_, '_>,
    interfaces: &[Interface],
    read_file: KeyFileReader<'_>,
    report: &mut Report<'_>,
) -> CryptoMaps {
    let sections = root.find("crypto-map").map(|field| field.sections(report)).unwrap_or_default();
    let locals: HashMap<Ipv4Addr, &Interface> = interfaces
        .iter()
        .flat_map(|interface| interface.virtual_addresses.iter().map(move |net| (net.addr(), interface)))
        .collect();
    let mut uniques = Uniques {
        names: Names::new("crypto-map"),
        inbound: HashMap::new(),
        outbound: HashMap::new(),
        keys: HashMap::new(),
    };
    let mut result = CryptoMaps::default();
    for (number, mut section) in sections.into_iter().enumerate() {
        read_map(&mut section, number as u32, &locals, &mut uniques, read_file, &mut result, report);
        section.finish(report);
    }
    result
}

fn read_map(
    section: &mut Section<'_, '_>,
    number: u32,
    locals: &HashMap<Ipv4Addr, &Interface>,
    uniques: &mut Uniques,
    read_file: KeyFileReader<'_>,
    result: &mut CryptoMaps,
    report: &mut Report<'_>,
) {
    let name = uniques.names.read(section, report);
    let priority = priority(section, report);
    let local = local_address(section, locals, report);
    let peer = peer_address(section, locals, report);
    let protect = protect(section, report);
    let words = [("jump", StaleAction::Jump), ("hold", StaleAction::Hold)];
    let stale = match section.find("stale-takeover") {
        None => Some(StaleAction::default()),
        Some(field) => field.choice(&words, report),
    };
    let ends = match section.find("static") {
        None => {
            let cure = format!(
                "add [{0}.static.inbound] and [{0}.static.outbound] with spi, transform and key",
                "crypto-map"
            );
            let message = "this version has no IKE: a crypto map needs static SAs";
            report.error(section.span.clone(), section.path.clone(), message, cure);
            None
        }
        Some(field) => field.section(report).and_then(|mut statics| {
            let inbound = end(&mut statics, Direction::Inbound, peer, uniques, read_file, report);
            let outbound = end(&mut statics, Direction::Outbound, peer, uniques, read_file, report);
            statics.finish(report);
            Some([inbound?, outbound?])
        }),
    };

    let (Some(name), Some(priority), Some(protect)) = (name, priority, protect) else { return };
    let selectors: Vec<Selector> = protect.iter().map(|placed| placed.0).collect();
    for (selector, span, path) in protect {
        let action = PolicyAction::Protect { policy: number };
        let policy = Policy { name: name.clone(), priority, selector, action };
        result.policies.push(Placed { policy, span, path });
    }
    let (Some((local, interface)), Some(peer), Some(ends), Some(stale)) = (local, peer, ends, stale) else {
        return;
    };
    for end in ends {
        result.sas.push(SaSpec {
            direction: end.direction,
            spi: end.spi,
            policy: number,
            selectors: selectors.clone(),
            local,
            peer,
            transform: end.transform,
            fingerprint: end.fingerprint,
            key: end.key,
            base_term: end.base_term,
            stale,
            map: name.clone(),
        });
    }
    result.maps.push(CryptoMap { name, priority, policy: number, interface, local, peer, selectors, stale });
}

fn local_address(
    section: &mut Section<'_, '_>,
    locals: &HashMap<Ipv4Addr, &Interface>,
    report: &mut Report<'_>,
) -> Option<(Ipv4Addr, String)> {
    let field = section.need("local", "local = \"192.0.2.1\"", report)?;
    let address = field.address(report)?;
    match locals.get(&address) {
        Some(interface) if interface.side == Side::Outside => Some((address, interface.name.clone())),
        _ => {
            let outside = locals.iter().filter(|(_, interface)| interface.side == Side::Outside);
            let mut known: Vec<Ipv4Addr> = outside.map(|(address, _)| *address).collect();
            known.sort_unstable();
            let known: Vec<String> = known.iter().take(8).map(ToString::to_string).collect();
            let cure = if known.is_empty() {
                "add it to the virtual-addresses of an outside interface".to_owned()
            } else {
                format!("write one of {}, or add it to the virtual-addresses of one", known.join(", "))
            };
            let message = format!("{address} is no virtual address of an outside interface");
            field.error(report, message, cure);
            None
        }
    }
}

fn peer_address(
    section: &mut Section<'_, '_>,
    locals: &HashMap<Ipv4Addr, &Interface>,
    report: &mut Report<'_>,
) -> Option<Ipv4Addr> {
    let field = section.need("peer", "peer = \"198.51.100.2\"", report)?;
    let address = field.address(report)?;
    if locals.contains_key(&address) {
        let message = format!("{address} is an address of this gateway");
        field.error(report, message, "write the outside address of the peer");
        return None;
    }
    Some(address)
}

type PlacedSelector = (Selector, std::ops::Range<usize>, String);

fn protect(section: &mut Section<'_, '_>, report: &mut Report<'_>) -> Option<Vec<PlacedSelector>> {
    let example = "protect = [{ local = \"10.1.0.0/24\", remote = \"10.2.0.0/24\" }]";
    let field = section.need("protect", example, report)?;
    let fields = field.list(report)?;
    if fields.is_empty() || fields.len() > SELECTORS_MAX {
        let message = format!("{} selectors; a crypto map has 1 to {SELECTORS_MAX}", fields.len());
        field.error(report, message, format!("write `{example}`, or split the map"));
        return None;
    }
    let mut list = Vec::with_capacity(fields.len());
    for field in fields {
        let Some(mut section) = field.section(report) else { continue };
        let selector = selector(&mut section, report);
        let (span, path) = (section.span.clone(), section.path.clone());
        section.finish(report);
        list.push(selector.map(|selector| (selector, span, path)));
    }
    list.into_iter().collect()
}

struct End {
    direction: Direction,
    spi: u32,
    transform: Transform,
    key: tandem_api::types::KeyMaterial,
    fingerprint: KeyFingerprint,
    base_term: u64,
}

fn end(
    statics: &mut Section<'_, '_>,
    direction: Direction,
    peer: Option<Ipv4Addr>,
    uniques: &mut Uniques,
    read_file: KeyFileReader<'_>,
    report: &mut Report<'_>,
) -> Option<End> {
    let (word, example) = match direction {
        Direction::Inbound => ("inbound", "inbound = { spi = ..., transform = ..., key = ... }"),
        Direction::Outbound => ("outbound", "outbound = { spi = ..., transform = ..., key = ... }"),
    };
    let mut section = statics.need(word, example, report)?.section(report)?;
    let spi = spi(&mut section, direction, peer, uniques, report);
    let words =
        [Transform::Aes128gcm16, Transform::Aes256gcm16].map(|transform| (transform.to_string(), transform));
    let words: Vec<(&str, Transform)> = words.iter().map(|(word, t)| (word.as_str(), *t)).collect();
    let transform = section.need("transform", "transform = \"aes128gcm16\"", report);
    let transform = transform.and_then(|field| field.choice(&words, report));
    let key = key::read(&mut section, transform, read_file, report);
    let base_term = match section.find("base-term") {
        None => Some(0),
        Some(field) => field.integer(0..=u64::MAX, report),
    };
    section.finish(report);

    let (key, span, path) = key?;
    let transform = transform?;
    let fingerprint = key::fingerprint(transform, &key);
    let line = report.line_of(span.start);
    if let Some((other, earlier)) = uniques.keys.get(&fingerprint) {
        // failover.md F5: two SAs would use the same nonces with one key.
        let message = format!("the same key and salt as in {other} (line {earlier})");
        let cure = format!(
            "give each SA and direction a key of its own (openssl rand -hex {})",
            transform.key_len() + 4
        );
        report.error(span, path, message, cure);
        return None;
    }
    uniques.keys.insert(fingerprint, (path, line));
    Some(End { direction, spi: spi?, transform, key, fingerprint, base_term: base_term? })
}

fn spi(
    section: &mut Section<'_, '_>,
    direction: Direction,
    peer: Option<Ipv4Addr>,
    uniques: &mut Uniques,
    report: &mut Report<'_>,
) -> Option<u32> {
    let field = section.need("spi", "spi = 0x1001", report)?;
    let spi = field.integer(SPI_MIN..=u64::from(u32::MAX), report)? as u32;
    let here = (field.path.clone(), report.line_of(field.span.start));
    let earlier = match (direction, peer) {
        (Direction::Inbound, _) => uniques.inbound.insert(spi, here),
        (Direction::Outbound, Some(peer)) => uniques.outbound.insert((peer, spi), here),
        (Direction::Outbound, None) => None,
    };
    if let Some((other, line)) = earlier {
        let whose = match direction {
            Direction::Inbound => "an inbound SPI names one SA of this gateway",
            Direction::Outbound => "an outbound SPI names one SA of its peer",
        };
        let message = format!("SPI {spi:#x} is taken by {other} (line {line})");
        field.error(report, message, format!("choose another one: {whose}"));
        return None;
    }
    Some(spi)
}

//! `[[interface]]`.

use crate::finding::Report;
use crate::reader::{Field, Section, is_unicast, shorten};
use ipnet::Ipv4Net;
use std::collections::HashMap;
use std::net::Ipv4Addr;
use tandem_api::dataplane::{Interface, XdpMode};
use tandem_api::types::{Mac, Side};

/// Longest name of an interface (`IFNAMSIZ` less the terminating zero).
const NAME_MAX: usize = 15;
/// Ports of a data plane.
const INTERFACES_MAX: usize = 16;

/// Reads all interfaces; one that has an error is left out.
pub(crate) fn read(root: &mut Section<'_, '_>, workers: u16, report: &mut Report<'_>) -> Vec<Interface> {
    let sections = root.find("interface").map(|field| field.sections(report)).unwrap_or_default();
    if let Some(first) = sections.get(INTERFACES_MAX) {
        let message = format!("{} interfaces; there can be {INTERFACES_MAX}", sections.len());
        report.error(first.span.clone(), first.path.clone(), message, "remove some");
        return Vec::new();
    }
    let mut names: HashMap<String, usize> = HashMap::new();
    let mut addresses: HashMap<Ipv4Addr, usize> = HashMap::new();
    let mut interfaces = Vec::new();
    let mut sides = Vec::new();
    let mut witnesses = Vec::new();
    for (position, mut section) in sections.into_iter().enumerate() {
        let name = section.need("name", "name = \"eth0\"", report);
        let name = name.and_then(|field| {
            let text = interface_name(&field, report)?;
            let line = report.line_of(field.span.start);
            if let Some(earlier) = names.insert(text.clone(), line) {
                let message = format!("interface `{text}` is there already, in line {earlier}");
                field.error(report, message, "keep one of the two sections");
            }
            Some(text)
        });
        let words = [("inside", Side::Inside), ("outside", Side::Outside)];
        let side = section.need("side", "side = \"inside\"` or `side = \"outside\"", report);
        let side = side.and_then(|field| field.choice(&words, report));
        sides.push(side);
        let list = section.need("virtual-addresses", "virtual-addresses = [\"192.0.2.1/24\"]", report);
        let virtual_addresses = list.and_then(|field| virtual_addresses(&field, &mut addresses, report));

        let mut virtual_mac = Mac([0x00, 0x00, 0x0c, 0x9f, 0xf0, position as u8 + 1]);
        if let Some(mac) = section.find("virtual-mac").and_then(|field| unicast_mac(&field, report)) {
            virtual_mac = mac;
        }
        let words = [
            ("native", XdpMode::Native),
            ("zerocopy", XdpMode::Zerocopy),
            ("copy", XdpMode::Copy),
            ("generic", XdpMode::Generic),
        ];
        let mode = section.find("xdp-mode").and_then(|field| field.choice(&words, report));
        let queues = section.find("queues").and_then(|field| field.integer(1..=256, report));
        let mss_clamp = section.find("mss-clamp").and_then(|field| field.boolean(report));
        let witness = section.find("witness").and_then(|field| {
            let address = witness(&field, virtual_addresses.as_deref(), report)?;
            witnesses.push((address, field));
            Some(address)
        });
        section.finish(report);

        if let (Some(name), Some(side), Some(virtual_addresses)) = (name, side, virtual_addresses) {
            interfaces.push(Interface {
                name,
                side,
                virtual_addresses,
                virtual_mac,
                queues: queues.map_or(workers, |count| count as u16),
                mode: mode.unwrap_or(XdpMode::Native),
                mss_clamp: mss_clamp.unwrap_or(false),
                witness,
            });
        }
    }
    for (address, field) in witnesses {
        if let Some(line) = addresses.get(&address) {
            let message = format!("{address} is a virtual address of this pair (line {line})");
            field.error(report, message, "write a neighbour that is neither this node nor its partner");
        }
    }
    for side in [Side::Inside, Side::Outside] {
        if !sides.contains(&None) && !sides.contains(&Some(side)) {
            let cure = format!("add an [[interface]] section with `side = \"{side}\"`");
            report.error(0..0, "interface", format!("no {side} interface"), cure);
        }
    }
    interfaces
}

fn interface_name(field: &Field<'_, '_>, report: &mut Report<'_>) -> Option<String> {
    let text = field.string(report)?;
    let odd = |c: char| c == '/' || c == ':' || c.is_whitespace() || c.is_control();
    if text.is_empty() || text.len() > NAME_MAX || text == "." || text == ".." || text.contains(odd) {
        let message = format!("`{}` is no name of an interface", shorten(text));
        let cure = format!("write it as `ip link` shows it: 1 to {NAME_MAX} octets, no blank, no /, no :");
        field.error(report, message, cure);
        return None;
    }
    Some(text.to_owned())
}

fn virtual_addresses(
    field: &Field<'_, '_>,
    seen: &mut HashMap<Ipv4Addr, usize>,
    report: &mut Report<'_>,
) -> Option<Vec<Ipv4Net>> {
    let elements = field.list(report)?;
    if elements.is_empty() {
        field.error(report, "no virtual address", "write at least one, such as [\"192.0.2.1/24\"]");
        return None;
    }
    let mut list = Vec::with_capacity(elements.len());
    for element in &elements {
        let Some(network) = element.network(report) else { continue };
        let address = network.addr();
        let edge =
            network.prefix_len() < 31 && (address == network.network() || address == network.broadcast());
        if !is_unicast(address) || edge || network.prefix_len() == 0 {
            let message = format!("{network} is no address of one host in its network");
            element.error(report, message, "write host address and prefix length, such as 192.0.2.1/24");
            continue;
        }
        let line = report.line_of(element.span.start);
        if let Some(earlier) = seen.insert(address, line) {
            let message = format!("virtual address {address} is there already, in line {earlier}");
            element.error(report, message, "each virtual address belongs to one interface");
        }
        list.push(network);
    }
    // Also with errors, so that crypto maps are checked against those that are good.
    Some(list)
}

/// A neighbour on the segment (`failover.md` F25): it is asked by ARP, so it must be on the link.
fn witness(
    field: &Field<'_, '_>,
    virtual_addresses: Option<&[Ipv4Net]>,
    report: &mut Report<'_>,
) -> Option<Ipv4Addr> {
    let address = field.address(report)?;
    let networks = virtual_addresses.unwrap_or_default();
    // Where all are single addresses, the file does not say what is on the link.
    let mut known = networks.iter().filter(|network| network.prefix_len() < 31).peekable();
    if known.peek().is_some() && !known.any(|network| network.contains(&address)) {
        let message = format!("{address} is no neighbour here: no network of this interface has it");
        field.error(report, message, "write a host or router on this segment, or leave it out");
        return None;
    }
    Some(address)
}

fn unicast_mac(field: &Field<'_, '_>, report: &mut Report<'_>) -> Option<Mac> {
    let text = field.string(report)?;
    match text.parse::<Mac>() {
        Ok(mac) if mac.0[0] & 1 == 0 && mac.0 != [0; 6] => Some(mac),
        Ok(mac) => {
            let cure = "choose one whose first octet is even, such as 02:00:5e:00:53:01, or leave it out";
            field.error(report, format!("{mac} is no unicast MAC address"), cure);
            None
        }
        Err(_) => {
            let message = format!("`{}` is no MAC address", shorten(text));
            field.error(report, message, "write six hexadecimal octets, such as 02:00:5e:00:53:01");
            None
        }
    }
}

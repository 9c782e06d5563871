//! The fence (`failover.md` F33): a blackhole route of worst metric for every protected remote prefix.
//!
//! With no data plane behind its XDP program, and for traffic of the gateway itself, the kernel would
//! route a protected packet by its default route, in clear. The fence takes it instead. The routes carry a
//! protocol number of their own ([`PROTOCOL`], `ip route show proto 201`), stay when the control process
//! ends or is killed, and are removed by `tandemctl detach`. A bypass policy for part of a protected
//! prefix needs a route of its own to lead anywhere.

use ipnet::Ipv4Net;
use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage,
    NetlinkPayload,
};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use std::collections::HashSet;
use std::io;
use std::net::Ipv4Addr;

/// Route protocol number of the fence.
pub const PROTOCOL: u8 = 201;
/// Worst metric: any other route to the prefix wins.
const METRIC: u32 = u32::MAX;
/// The main routing table.
const TABLE: u8 = 254;

/// Where protected prefixes are fenced off.
pub trait Fence {
    /// Adds what is missing of `wanted`.
    ///
    /// # Errors
    /// If a route cannot be added.
    fn add(&mut self, wanted: &[Ipv4Net]) -> io::Result<()>;

    /// Removes what is not in `wanted`. Gives how many were removed.
    ///
    /// # Errors
    /// If a route cannot be removed.
    fn retain(&mut self, wanted: &[Ipv4Net]) -> io::Result<u32>;
}

/// The fence in the kernel of this network namespace.
#[derive(Debug, Default)]
pub struct KernelFence;

impl Fence for KernelFence {
    fn add(&mut self, wanted: &[Ipv4Net]) -> io::Result<()> {
        let there = ours()?;
        let mut socket = open()?;
        for prefix in wanted.iter().filter(|prefix| !there.contains(*prefix)) {
            let flags = NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL;
            change(&mut socket, RouteNetlinkMessage::NewRoute(route(*prefix)), flags)
                .map_err(|error| explain(error, "blackhole route to", *prefix))?;
        }
        Ok(())
    }

    fn retain(&mut self, wanted: &[Ipv4Net]) -> io::Result<u32> {
        let wanted: HashSet<&Ipv4Net> = wanted.iter().collect();
        let mut socket = open()?;
        let mut removed = 0;
        for prefix in ours()?.iter().filter(|prefix| !wanted.contains(prefix)) {
            let flags = NLM_F_REQUEST | NLM_F_ACK;
            change(&mut socket, RouteNetlinkMessage::DelRoute(route(*prefix)), flags)
                .map_err(|error| explain(error, "removing the blackhole route to", *prefix))?;
            removed += 1;
        }
        Ok(removed)
    }
}

fn explain(error: io::Error, what: &str, prefix: Ipv4Net) -> io::Error {
    let cure = match error.kind() {
        io::ErrorKind::PermissionDenied => "run tandem-control with CAP_NET_ADMIN",
        io::ErrorKind::AlreadyExists => "another route of metric 4294967295 is there: remove it",
        _ => "see `ip route show proto 201`",
    };
    io::Error::new(error.kind(), format!("{what} {prefix}: {error}; {cure}"))
}

fn route(prefix: Ipv4Net) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = AddressFamily::Inet;
    message.header.destination_prefix_length = prefix.prefix_len();
    message.header.table = TABLE;
    message.header.protocol = RouteProtocol::from(PROTOCOL);
    message.header.scope = RouteScope::Universe;
    message.header.kind = RouteType::BlackHole;
    message.attributes.push(RouteAttribute::Destination(RouteAddress::Inet(prefix.network())));
    message.attributes.push(RouteAttribute::Priority(METRIC));
    message
}

/// The prefixes that are fenced off now.
fn ours() -> io::Result<HashSet<Ipv4Net>> {
    let mut socket = open()?;
    let mut request = RouteMessage::default();
    request.header.address_family = AddressFamily::Inet;
    send(&mut socket, RouteNetlinkMessage::GetRoute(request), NLM_F_REQUEST | NLM_F_DUMP)?;
    let mut prefixes = HashSet::new();
    loop {
        let (bytes, _) = socket.recv_from_full()?;
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let message =
                NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest).map_err(io::Error::other)?;
            match message.payload {
                NetlinkPayload::Done(_) => return Ok(prefixes),
                NetlinkPayload::Error(error) => return Err(error.to_io()),
                NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewRoute(route)) => {
                    prefixes.extend(prefix_of_fence(&route));
                }
                _ => {}
            }
            let length = (message.header.length as usize).next_multiple_of(4).max(16);
            rest = rest.get(length..).unwrap_or_default();
        }
    }
}

fn prefix_of_fence(route: &RouteMessage) -> Option<Ipv4Net> {
    let header = &route.header;
    let ours = header.protocol == RouteProtocol::from(PROTOCOL)
        && header.kind == RouteType::BlackHole
        && header.table == TABLE;
    let has_metric = route.attributes.contains(&RouteAttribute::Priority(METRIC));
    let destination = route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Destination(RouteAddress::Inet(address)) => Some(*address),
        _ => None,
    });
    // The default route has no destination.
    let address = destination.unwrap_or(Ipv4Addr::UNSPECIFIED);
    (ours && has_metric).then(|| Ipv4Net::new(address, header.destination_prefix_length).ok())?
}

fn open() -> io::Result<Socket> {
    let mut socket = Socket::new(NETLINK_ROUTE)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    Ok(socket)
}

fn send(socket: &mut Socket, message: RouteNetlinkMessage, flags: u16) -> io::Result<()> {
    let mut header = NetlinkHeader::default();
    header.flags = flags;
    let mut packet = NetlinkMessage::new(header, NetlinkPayload::from(message));
    packet.finalize();
    let mut buffer = vec![0; packet.buffer_len()];
    packet.serialize(&mut buffer);
    socket.send(&buffer, 0).map(drop)
}

/// Sends a change; the kernel acknowledges it before the call returns.
fn change(socket: &mut Socket, message: RouteNetlinkMessage, flags: u16) -> io::Result<()> {
    send(socket, message, flags)?;
    let (bytes, _) = socket.recv_from_full()?;
    let answer = NetlinkMessage::<RouteNetlinkMessage>::deserialize(&bytes).map_err(io::Error::other)?;
    match answer.payload {
        NetlinkPayload::Error(error) if error.code.is_some() => Err(error.to_io()),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sched::{CloneFlags, unshare};
    use std::process::Command;

    /// Runs `test` in a network namespace that ends with its thread.
    fn in_namespace(test: impl FnOnce() + Send + 'static) {
        let run = move || {
            unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace needs root");
            test();
        };
        std::thread::spawn(run).join().unwrap();
    }

    fn ip(arguments: &str) -> String {
        let output = Command::new("ip").args(arguments.split(' ')).output().unwrap();
        assert!(output.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    fn fenced() -> Vec<String> {
        let shown = ip("route show proto 201");
        shown.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
    }

    fn prefixes(list: &[&str]) -> Vec<Ipv4Net> {
        list.iter().map(|prefix| prefix.parse().unwrap()).collect()
    }

    #[test]
    fn the_fence_is_added_once_changed_and_removed() {
        in_namespace(|| {
            let mut fence = KernelFence;
            fence.add(&prefixes(&["10.2.0.0/24", "0.0.0.0/0"])).unwrap();
            fence.add(&prefixes(&["10.2.0.0/24", "10.3.0.0/16"])).unwrap();
            assert_eq!(
                fenced(),
                [
                    "blackhole default metric 4294967295",
                    "blackhole 10.2.0.0/24 metric 4294967295",
                    "blackhole 10.3.0.0/16 metric 4294967295",
                ]
            );
            assert_eq!(fence.retain(&prefixes(&["10.3.0.0/16"])).unwrap(), 2);
            assert_eq!(fenced(), ["blackhole 10.3.0.0/16 metric 4294967295"]);
            assert_eq!(fence.retain(&[]).unwrap(), 1);
            assert_eq!(fenced(), Vec::<String>::new());
        });
    }

    #[test]
    fn routes_of_others_are_left_alone_and_win() {
        in_namespace(|| {
            ip("link set lo up");
            ip("route add 10.2.0.0/24 dev lo metric 100");
            ip("route add blackhole 10.9.0.0/24 metric 4294967295");
            let mut fence = KernelFence;
            fence.add(&prefixes(&["10.2.0.0/24"])).unwrap();
            assert!(ip("route get 10.2.0.7").contains("dev lo"));
            let error = fence.add(&prefixes(&["10.9.0.0/24"])).unwrap_err();
            assert!(error.to_string().contains("another route of metric"), "{error}");
            assert_eq!(fence.retain(&[]).unwrap(), 1);
            assert_eq!(ip("route show").lines().count(), 2);
        });
    }

    #[test]
    fn a_thousand_prefixes_are_fenced_off() {
        in_namespace(|| {
            let wanted: Vec<Ipv4Net> =
                (0..1000u32).map(|i| Ipv4Net::new((0x0a00_0000 + (i << 8)).into(), 24).unwrap()).collect();
            let mut fence = KernelFence;
            fence.add(&wanted).unwrap();
            assert_eq!(ours().unwrap(), wanted.into_iter().collect());
            assert_eq!(fence.retain(&[]).unwrap(), 1000);
        });
    }
}

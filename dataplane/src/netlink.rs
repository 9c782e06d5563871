//! The kernel's links, addresses, routes and neighbours, followed live, and neighbours asked for.
//!
//! [`Follower`] reads everything once and then every change; where the kernel could not keep up
//! (`ENOBUFS`) or says nothing of what it removed (routes of a link that went down), it reads everything
//! again. [`Asker`] creates managed neighbours (`NTF_EXT_MANAGED`), which the kernel keeps resolved
//! although it never sees the traffic.

use crate::fib::{Kernel, Link, Route, RouteKey};
use crate::prefix_table::Prefix;
use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_REPLACE, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage,
    NetlinkPayload,
};
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkInfo, LinkMessage};
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourExtFlags, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use tandem_wire::ethernet::MacAddr;

/// Multicast groups: links, neighbours, IPv4 addresses, IPv4 routes.
const GROUPS: [u32; 4] = [1, 3, 5, 7];
/// Route protocol number of Tandem's fence routes: they guard the kernel, they lead nowhere for us.
pub const FENCE_PROTOCOL: u8 = 201;
const RECEIVE_BUFFER: usize = 4 << 20;

/// What a change asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Change {
    /// Nothing that matters.
    None,
    /// Publish what is known.
    Applied,
    /// Read everything again.
    Resync,
}

/// Follows the kernel.
pub struct Follower {
    events: Socket,
}

impl Follower {
    /// Subscribes; changes from here on are not missed.
    ///
    /// # Errors
    /// If the kernel refuses the socket.
    pub fn open() -> io::Result<Self> {
        let mut events = Socket::new(NETLINK_ROUTE)?;
        events.bind_auto()?;
        // More buffer means fewer rereads under a burst of changes; less is only slower.
        let _ = events.set_rx_buf_sz(RECEIVE_BUFFER as libc::c_int);
        for group in GROUPS {
            events.add_membership(group)?;
        }
        Ok(Self { events })
    }

    /// Reads everything.
    ///
    /// # Errors
    /// If the kernel does not answer.
    pub fn read_all(&self) -> io::Result<Kernel> {
        let mut kernel = Kernel::default();
        let mut neighbours = NeighbourMessage::default();
        neighbours.header.family = AddressFamily::Inet;
        let mut routes = RouteMessage::default();
        routes.header.address_family = AddressFamily::Inet;
        let mut addresses = AddressMessage::default();
        addresses.header.family = AddressFamily::Inet;
        let requests = [
            RouteNetlinkMessage::GetLink(LinkMessage::default()),
            RouteNetlinkMessage::GetAddress(addresses),
            RouteNetlinkMessage::GetRoute(routes),
            RouteNetlinkMessage::GetNeighbour(neighbours),
        ];
        for request in requests {
            dump(request, |message| {
                apply(&mut kernel, message, false);
            })?;
        }
        Ok(kernel)
    }

    /// Waits for changes and applies them all. Returns what they ask for.
    ///
    /// # Errors
    /// If the socket fails.
    pub fn wait(&self, kernel: &mut Kernel) -> io::Result<Change> {
        let mut change = Change::None;
        let mut flags = 0;
        loop {
            let mut buffer = Vec::with_capacity(64 << 10);
            match self.events.recv(&mut buffer, flags) {
                Ok(_) => {
                    each(&buffer, |header, message| {
                        let replaced = header.flags & NLM_F_REPLACE != 0;
                        change = change.max(apply(kernel, message, replaced));
                    })?;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(change),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => change = Change::Resync,
                Err(error) => return Err(error),
            }
            // What has come meanwhile is taken in the same go.
            flags = libc::MSG_DONTWAIT;
        }
    }
}

/// Sends a dump request over a socket of its own and hands over what comes.
fn dump(request: RouteNetlinkMessage, mut take: impl FnMut(RouteNetlinkMessage)) -> io::Result<()> {
    let mut socket = Socket::new(NETLINK_ROUTE)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    send(&socket, request, NLM_F_REQUEST | NLM_F_DUMP)?;
    loop {
        let mut buffer = Vec::with_capacity(64 << 10);
        socket.recv(&mut buffer, 0)?;
        if !each(&buffer, |_, message| take(message))? {
            return Ok(());
        }
    }
}

fn send(socket: &Socket, message: RouteNetlinkMessage, flags: u16) -> io::Result<()> {
    let mut header = NetlinkHeader::default();
    header.flags = flags;
    let mut packet = NetlinkMessage::new(header, NetlinkPayload::from(message));
    packet.finalize();
    let mut buffer = vec![0; packet.buffer_len()];
    packet.serialize(&mut buffer);
    socket.send(&buffer, 0).map(drop)
}

/// Hands over each message of a datagram; `false` once the kernel says that it is done.
///
/// # Errors
/// If the kernel says that it failed: what was handed over is not all there is.
fn each(buffer: &[u8], mut take: impl FnMut(NetlinkHeader, RouteNetlinkMessage)) -> io::Result<bool> {
    let mut rest = buffer;
    while rest.len() >= 16 {
        let Ok(message) = NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest) else {
            // One that this library does not know: step over it.
            let len = u32::from_ne_bytes([rest[0], rest[1], rest[2], rest[3]]) as usize;
            rest = rest.get(len.next_multiple_of(4).max(16)..).unwrap_or_default();
            continue;
        };
        let len = message.header.length as usize;
        match message.payload {
            NetlinkPayload::Done(_) => return Ok(false),
            NetlinkPayload::Error(error) if error.code.is_some() => return Err(error.to_io()),
            NetlinkPayload::Error(_) => return Ok(false),
            NetlinkPayload::InnerMessage(inner) => take(message.header, inner),
            _ => {}
        }
        rest = rest.get(len.next_multiple_of(4).max(16)..).unwrap_or_default();
    }
    Ok(true)
}

/// Applies one message to what is known of the kernel.
pub fn apply(kernel: &mut Kernel, message: RouteNetlinkMessage, replaced: bool) -> Change {
    match message {
        RouteNetlinkMessage::NewLink(link) => new_link(kernel, &link),
        RouteNetlinkMessage::DelLink(link) => {
            kernel.links.remove(&link.header.index).map_or(Change::None, |_| Change::Resync)
        }
        RouteNetlinkMessage::NewAddress(address) => match address_of(&address) {
            Some((key, len)) => applied(kernel.addresses.insert(key, len) != Some(len)),
            None => Change::None,
        },
        // The kernel removes the routes of an address without a word.
        RouteNetlinkMessage::DelAddress(_) => Change::Resync,
        RouteNetlinkMessage::NewRoute(route) => match route_of(&route) {
            Some((key, value)) => {
                if replaced {
                    kernel.routes.retain(|k, _| (k.prefix, k.metric) != (key.prefix, key.metric));
                }
                applied(kernel.routes.insert(key, value) != Some(value))
            }
            None => Change::None,
        },
        RouteNetlinkMessage::DelRoute(route) => match route_of(&route) {
            Some((key, _)) => applied(kernel.routes.remove(&key).is_some()),
            None => Change::None,
        },
        RouteNetlinkMessage::NewNeighbour(neighbour) => match neighbour_of(&neighbour) {
            Some((key, mac)) => {
                let fixed =
                    matches!(neighbour.header.state, NeighbourState::Permanent | NeighbourState::Noarp);
                let _ = if fixed { kernel.fixed.insert(key) } else { kernel.fixed.remove(&key) };
                match mac {
                    Some(mac) => applied(kernel.neighbours.insert(key, mac) != Some(mac)),
                    None => applied(kernel.neighbours.remove(&key).is_some()),
                }
            }
            None => Change::None,
        },
        RouteNetlinkMessage::DelNeighbour(neighbour) => match neighbour_of(&neighbour) {
            Some((key, _)) => {
                kernel.fixed.remove(&key);
                applied(kernel.neighbours.remove(&key).is_some())
            }
            None => Change::None,
        },
        _ => Change::None,
    }
}

fn applied(changed: bool) -> Change {
    if changed { Change::Applied } else { Change::None }
}

fn new_link(kernel: &mut Kernel, message: &LinkMessage) -> Change {
    // Messages about a bridge port carry another family and no name.
    if message.header.interface_family != AddressFamily::Unspec {
        return Change::None;
    }
    let flags = message.header.flags;
    let mut link = Link {
        name: String::new(),
        kind: None,
        mac: MacAddr([0; 6]),
        mtu: 0,
        up: flags.contains(LinkFlags::Up) && flags.contains(LinkFlags::LowerUp),
    };
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name.clone_from(name),
            LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
            LinkAttribute::LinkInfo(infos) => {
                link.kind = infos.iter().find_map(|info| match info {
                    LinkInfo::Kind(kind) => Some(kind.to_string()),
                    _ => None,
                });
            }
            LinkAttribute::Address(mac) => {
                if let Ok(mac) = <[u8; 6]>::try_from(mac.as_slice()) {
                    link.mac = MacAddr(mac);
                }
            }
            _ => {}
        }
    }
    let up = link.up;
    match kernel.links.insert(message.header.index, link.clone()) {
        Some(old) if old == link => Change::None,
        // Routes come and go with the link, without messages of their own.
        Some(old) if old.up != up => Change::Resync,
        _ => Change::Applied,
    }
}

fn address_of(message: &AddressMessage) -> Option<((u32, u32), u8)> {
    let address = message.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Local(IpAddr::V4(address)) => Some(*address),
        _ => None,
    })?;
    Some(((message.header.index, address.into()), message.header.prefix_len))
}

fn route_of(message: &RouteMessage) -> Option<(RouteKey, Route)> {
    if message.header.address_family != AddressFamily::Inet || message.header.tos != 0 {
        return None;
    }
    let mut table = u32::from(message.header.table);
    let (mut destination, mut gateway, mut ifindex, mut metric) = (Ipv4Addr::UNSPECIFIED, None, None, 0);
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Table(t) => table = *t,
            RouteAttribute::Destination(RouteAddress::Inet(address)) => destination = *address,
            RouteAttribute::Gateway(RouteAddress::Inet(address)) => gateway = Some(u32::from(*address)),
            RouteAttribute::Oif(index) => ifindex = Some(*index),
            RouteAttribute::Priority(priority) => metric = *priority,
            // Of several next hops the first: all packets of an SA take one way.
            RouteAttribute::MultiPath(hops) => {
                if let Some(hop) = hops.first() {
                    ifindex = Some(hop.interface_index);
                    gateway = hop.attributes.iter().find_map(|attribute| match attribute {
                        RouteAttribute::Gateway(RouteAddress::Inet(address)) => Some(u32::from(*address)),
                        _ => None,
                    });
                }
            }
            _ => {}
        }
    }
    if table != u32::from(RouteHeader::RT_TABLE_MAIN)
        || message.header.protocol == RouteProtocol::from(FENCE_PROTOCOL)
    {
        return None;
    }
    let route = match message.header.kind {
        RouteType::Unicast => Route::Via { ifindex: ifindex?, gateway },
        RouteType::BlackHole | RouteType::Unreachable | RouteType::Prohibit => Route::Blackhole,
        _ => return None,
    };
    let prefix = Prefix::new(destination.into(), message.header.destination_prefix_length);
    let tag = u64::from(ifindex.unwrap_or(0)) << 32 | u64::from(gateway.unwrap_or(0));
    Some((RouteKey { prefix, metric, tag }, route))
}

/// (link, address) and the MAC, if it may be used now.
fn neighbour_of(message: &NeighbourMessage) -> Option<((u32, u32), Option<MacAddr>)> {
    if message.header.family != AddressFamily::Inet {
        return None;
    }
    let (mut address, mut mac) = (None, None);
    for attribute in &message.attributes {
        match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(a)) => address = Some(u32::from(*a)),
            NeighbourAttribute::LinkLayerAddress(bytes) => {
                mac = <[u8; 6]>::try_from(bytes.as_slice()).ok().map(MacAddr);
            }
            _ => {}
        }
    }
    let usable = matches!(
        message.header.state,
        NeighbourState::Reachable
            | NeighbourState::Stale
            | NeighbourState::Delay
            | NeighbourState::Probe
            | NeighbourState::Permanent
            | NeighbourState::Noarp
    );
    // The MAC of a group is that of a broadcast address of a network: not forwarded to (RFC 2644).
    let mac = mac.filter(|mac| usable && !mac.is_group());
    Some(((message.header.ifindex, address?), mac))
}

/// Asks the kernel to resolve neighbours and to keep them resolved.
pub struct Asker {
    socket: Socket,
}

impl Asker {
    /// Opens its socket.
    ///
    /// # Errors
    /// If the kernel refuses it.
    pub fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        Ok(Self { socket })
    }

    /// Makes `address` (host byte order) on link `ifindex` a managed neighbour.
    ///
    /// # Errors
    /// What the kernel answers.
    pub fn manage(&self, ifindex: u32, address: u32) -> io::Result<()> {
        let mut message = neighbour(ifindex, address);
        message.header.state = NeighbourState::None;
        message.attributes.push(NeighbourAttribute::ExtFlags(NeighbourExtFlags::Managed));
        self.request(RouteNetlinkMessage::NewNeighbour(message), NLM_F_CREATE | NLM_F_REPLACE)
    }

    /// Lets the kernel forget a neighbour that never answered.
    ///
    /// # Errors
    /// What the kernel answers.
    pub fn forget(&self, ifindex: u32, address: u32) -> io::Result<()> {
        self.request(RouteNetlinkMessage::DelNeighbour(neighbour(ifindex, address)), 0)
    }

    fn request(&self, message: RouteNetlinkMessage, flags: u16) -> io::Result<()> {
        send(&self.socket, message, NLM_F_REQUEST | NLM_F_ACK | flags)?;
        let mut buffer = Vec::with_capacity(4096);
        self.socket.recv(&mut buffer, 0)?;
        let answer = NetlinkMessage::<RouteNetlinkMessage>::deserialize(&buffer).map_err(io::Error::other)?;
        match answer.payload {
            NetlinkPayload::Error(error) if error.code.is_some() => Err(error.to_io()),
            _ => Ok(()),
        }
    }
}

fn neighbour(ifindex: u32, address: u32) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = AddressFamily::Inet;
    message.header.ifindex = ifindex;
    message
        .attributes
        .push(NeighbourAttribute::Destination(NeighbourAddress::Inet(Ipv4Addr::from_bits(address))));
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(kernel: &mut Kernel, state: NeighbourState, address: [u8; 4], mac: [u8; 6]) -> Change {
        let mut message = neighbour(5, u32::from_be_bytes(address));
        message.header.state = state;
        message.attributes.push(NeighbourAttribute::LinkLayerAddress(mac.to_vec()));
        apply(kernel, RouteNetlinkMessage::NewNeighbour(message), false)
    }

    #[test]
    fn the_broadcast_address_of_a_network_is_no_neighbour_to_forward_to() {
        let mut kernel = Kernel::default();
        let change = told(&mut kernel, NeighbourState::Noarp, [10, 1, 0, 255], [0xff; 6]);
        assert_eq!(change, Change::None);
        assert!(kernel.neighbours.is_empty());
    }

    #[test]
    fn a_permanent_neighbour_is_known_as_such_until_it_is_an_ordinary_one() {
        let mut kernel = Kernel::default();
        let (host, key) = ([10, 1, 0, 9], (5, u32::from_be_bytes([10, 1, 0, 9])));
        assert_eq!(told(&mut kernel, NeighbourState::Permanent, host, [2; 6]), Change::Applied);
        assert!(kernel.neighbours.contains_key(&key) && kernel.fixed.contains(&key));
        assert_eq!(told(&mut kernel, NeighbourState::Reachable, host, [2; 6]), Change::None);
        assert!(kernel.neighbours.contains_key(&key) && !kernel.fixed.contains(&key));
    }
}

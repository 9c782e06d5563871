//! What the kernel says about an interface (rtnetlink).

use crate::Error;
use netlink_packet_core::{NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{LinkAttribute, LinkMessage, LinkXdp, XdpAttached};
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};

/// Where an XDP program runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum XdpPlace {
    Native,
    Generic,
    /// In the card, or in several places at once.
    Other,
}

/// An interface, as far as XDP matters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Interface {
    /// Hardware address; six octets on Ethernet.
    pub address: Vec<u8>,
    /// Identifier of the attached XDP program, and where it runs.
    pub xdp: Option<(u32, XdpPlace)>,
}

/// Asks the kernel about an interface of this network namespace.
pub(crate) fn query(ifindex: u32) -> Result<Interface, Error> {
    let failed = |reason: String| Error::Interface { ifindex, reason };
    let answer = ask(ifindex).map_err(|error| failed(error.to_string()))?;
    match answer.payload {
        NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewLink(link)) => Ok(describe(&link)),
        NetlinkPayload::Error(error) => Err(failed(error.to_io().to_string())),
        other => Err(failed(format!("unexpected answer {other:?}"))),
    }
}

fn ask(ifindex: u32) -> std::io::Result<NetlinkMessage<RouteNetlinkMessage>> {
    let mut link = LinkMessage::default();
    link.header.index = ifindex;
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST;
    header.sequence_number = 1;
    let mut request = NetlinkMessage::new(header, NetlinkPayload::from(RouteNetlinkMessage::GetLink(link)));
    request.finalize();
    let mut octets = vec![0; request.buffer_len()];
    request.serialize(&mut octets);

    let mut socket = Socket::new(NETLINK_ROUTE)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    socket.send(&octets, 0)?;
    let (answer, _) = socket.recv_from_full()?;
    NetlinkMessage::deserialize(&answer).map_err(std::io::Error::other)
}

fn describe(link: &LinkMessage) -> Interface {
    let mut found = Interface { address: Vec::new(), xdp: None };
    for attribute in &link.attributes {
        match attribute {
            LinkAttribute::Address(address) => found.address.clone_from(address),
            LinkAttribute::Xdp(attributes) => found.xdp = describe_xdp(attributes),
            _ => {}
        }
    }
    found
}

fn describe_xdp(attributes: &[LinkXdp]) -> Option<(u32, XdpPlace)> {
    let mut place = None;
    let mut id = None;
    for attribute in attributes {
        match attribute {
            LinkXdp::Attached(XdpAttached::None) => return None,
            LinkXdp::Attached(XdpAttached::Driver) => place = Some(XdpPlace::Native),
            LinkXdp::Attached(XdpAttached::SocketBuffer) => place = Some(XdpPlace::Generic),
            LinkXdp::Attached(_) => place = Some(XdpPlace::Other),
            LinkXdp::ProgId(program) => id = Some(*program),
            // With programs in several places there is no IFLA_XDP_PROG_ID.
            LinkXdp::DrvProgId(program) | LinkXdp::SkbProgId(program) | LinkXdp::HwProgId(program) => {
                id = id.or(Some(*program));
            }
            _ => {}
        }
    }
    Some((id?, place?))
}

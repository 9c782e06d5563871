//! The table of decisions once more, written for reading: what the program must answer for any frame.

use crate::frames::{OWN, OWN_MAC, VIRTUAL, VIRTUAL_MAC};
use crate::setup::Told;
use std::net::Ipv4Addr;
use tandem_ebpf::{Action, Outcome, Side, SteerCounter};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    pub action: Action,
    pub counter: SteerCounter,
    pub given_own_mac: bool,
}

/// `frame` has 14 octets at least.
pub fn answer(told: Told, frame: &[u8]) -> Answer {
    let for_virtual_mac = told.virtual_mac && frame[..6] == VIRTUAL_MAC;
    let counter = if frame[0] & 1 == 0 && frame[..6] != OWN_MAC && !for_virtual_mac {
        SteerCounter::OtherHost
    } else {
        judge(told, frame)
    };
    match counter.outcome() {
        Outcome::Steered if !told.data_plane => result(Action::Drop, SteerCounter::FailClosed),
        Outcome::Steered => result(Action::Redirect, counter),
        Outcome::Passed if for_virtual_mac && told.active => {
            Answer { action: Action::Pass, counter, given_own_mac: true }
        }
        Outcome::Passed if for_virtual_mac => result(Action::Drop, SteerCounter::StandbyVirtualMac),
        Outcome::Passed => result(Action::Pass, counter),
        _ => result(Action::Drop, counter),
    }
}

fn result(action: Action, counter: SteerCounter) -> Answer {
    Answer { action, counter, given_own_mac: false }
}

fn word(octets: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(octets.get(at..at + 2)?.try_into().ok()?))
}

fn address(octets: &[u8], at: usize) -> Option<Ipv4Addr> {
    Some(Ipv4Addr::from(<[u8; 4]>::try_from(octets.get(at..at + 4)?).ok()?))
}

fn is_virtual(address: Ipv4Addr) -> bool {
    address == VIRTUAL || address == Ipv4Addr::new(192, 0, 2, 11)
}

fn judge(told: Told, frame: &[u8]) -> SteerCounter {
    let mut at = 12;
    let mut tags = 0;
    loop {
        let ethertype = word(frame, at).expect("looked at before");
        at += 2;
        match ethertype {
            0x8100 | 0x88a8 => {
                let (Some(control), Some(_)) = (word(frame, at), word(frame, at + 2)) else {
                    return SteerCounter::Vlan;
                };
                if control & 0x0fff != 0 {
                    return SteerCounter::Vlan;
                }
                tags += 1;
                if tags == 2 {
                    return SteerCounter::VlanNested;
                }
                at += 2;
            }
            0x0806 => return judge_arp(told, &frame[at..]),
            0x0800 => return judge_ipv4(told, &frame[at..], frame[0] & 1 == 1),
            _ => return SteerCounter::NotIpv4,
        }
    }
}

fn judge_arp(told: Told, packet: &[u8]) -> SteerCounter {
    if packet.len() < 28 {
        return SteerCounter::ArpTruncated;
    }
    let request = packet[..8] == [0, 1, 8, 0, 6, 4, 0, 1];
    match (request && is_virtual(address(packet, 24).expect("28 octets")), told.active) {
        (false, _) => SteerCounter::ArpOther,
        (true, true) => SteerCounter::SteeredArp,
        (true, false) => SteerCounter::StandbyArp,
    }
}

fn judge_ipv4(told: Told, packet: &[u8], group: bool) -> SteerCounter {
    let (Some(source), Some(destination)) = (address(packet, 12), address(packet, 16)) else {
        return SteerCounter::Ipv4Truncated;
    };
    if destination == OWN {
        return SteerCounter::ExemptOwnAddress;
    } else if destination.is_link_local() {
        return SteerCounter::ExemptLinkLocal;
    } else if destination.is_multicast() {
        return SteerCounter::ExemptMulticast;
    } else if destination.is_broadcast() {
        return SteerCounter::ExemptBroadcast;
    }
    let judged = match told.side {
        Side::Inside => destination,
        Side::Outside => source,
    };
    let protected = told.all_protected || judged.octets()[..2] == [10, 20];
    match (is_virtual(destination), protected) {
        (false, false) => SteerCounter::Unprotected,
        _ if group => SteerCounter::LinkBroadcast,
        (true, _) if !told.active => SteerCounter::StandbyVirtualAddress,
        (true, _) => judge_virtual(packet),
        (false, true) if !told.active => SteerCounter::StandbyProtected,
        (false, true) => match told.side {
            Side::Inside => SteerCounter::SteeredToProtected,
            Side::Outside => SteerCounter::SteeredFromProtected,
        },
    }
}

fn judge_virtual(packet: &[u8]) -> SteerCounter {
    let fragment = word(packet, 6).expect("20 octets") & 0x3fff != 0;
    match packet[9] {
        50 | 1 | 17 if fragment => SteerCounter::SteeredFragment,
        50 => SteerCounter::SteeredEsp,
        1 => SteerCounter::SteeredIcmp,
        17 => match udp_port(packet) {
            None => SteerCounter::SteeredMalformed,
            Some(500) => SteerCounter::SteeredIke,
            Some(4500) => SteerCounter::SteeredUdpEncap,
            Some(_) => SteerCounter::VirtualUnhandled,
        },
        _ => SteerCounter::VirtualUnhandled,
    }
}

fn udp_port(packet: &[u8]) -> Option<u16> {
    let header = usize::from(packet[0] & 0x0f) * 4;
    let total = usize::from(word(packet, 2)?);
    if packet[0] >> 4 != 4 || header < 20 || total < header + 4 {
        return None;
    }
    word(packet, header + 2)
}

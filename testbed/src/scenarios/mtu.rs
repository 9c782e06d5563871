//! 1500 octets inside and outside: nothing fits as it is, and everything arrives.

use crate::capture::Capture;
use crate::judge::Expectation;
use crate::pcap;
use crate::run::Run;
use crate::sites::{HOST_A, HOST_B, Options, Sites};
use crate::traffic::{http, iperf, ping};
use anyhow::Result;
use std::path::Path;
use std::time::Duration;

/// The longest inner packet that fits an outer MTU: outer IPv4 (20), ESP header (8), IV (8), ICV (16),
/// and pad length and next header (2) within a multiple of 4 (RFC 4303 section 2.4).
const fn longest_inner(mtu: u32) -> u32 {
    (mtu - 20 - 8 - 8 - 16) / 4 * 4 - 2
}

const MTU: u32 = 1500;

pub(super) fn act(run: &mut Run) -> Result<()> {
    for mss_clamp in [true, false] {
        let switch = if mss_clamp { "clamp" } else { "no_clamp" };
        run.say(format_args!("MSS clamp {}", if mss_clamp { "on" } else { "off" }));
        let sites = Sites::up(run, Options { mss_clamp, ..Options::default() })?;
        if mss_clamp {
            pings(run, &sites)?;
            datagrams(run, &sites)?;
        }
        tcp(run, &sites, mss_clamp, switch)?;
        let expectation = Expectation::of_sites(run, 1000);
        sites.finish(run, &expectation)?;
    }
    Ok(())
}

fn pings(run: &mut Run, sites: &Sites) -> Result<()> {
    let fits = longest_inner(MTU);
    for (way, from, to) in [("a_to_b", &sites.net.host_a, HOST_B), ("b_to_a", &sites.net.host_b, HOST_A)] {
        let size = |packet: u32| (packet - 28).to_string();
        let exact = ping::ping(from, to, 3, &["-M", "do", "-s", &size(fits)])?;
        run.check(&format!("{way}: a DF packet of {fits} octets passes"), exact.is_whole(), exact.summary());
        let over = ping::ping(from, to, 1, &["-M", "do", "-s", &size(fits + 1)])?;
        run.check(
            &format!("{way}: one of {} gets fragmentation-needed with MTU {fits}", fits + 1),
            over.received == 0 && over.reported_mtu() == Some(fits),
            format!("{}, reported {:?}", over.summary(), over.reported_mtu()),
        );
        run.figure(&format!("{way}_reported_mtu_octets"), f64::from(over.reported_mtu().unwrap_or(0)));
        let cached = ping::ping(from, to, 1, &["-M", "do", "-s", "1472"])?;
        run.check(
            &format!("{way}: the host has learned it"),
            cached.reported_mtu() == Some(fits),
            format!("reported {:?}", cached.reported_mtu()),
        );
        for payload in [1472, 1473, 8972, 65000] {
            let result = ping::ping(from, to, 5, &["-M", "dont", "-s", &payload.to_string(), "-i", "0.1"])?;
            run.check(
                &format!("{way}: an echo of {payload} octets without DF"),
                result.is_whole(),
                result.summary(),
            );
        }
        from.run("ip route flush cache")?;
    }
    Ok(())
}

fn datagrams(run: &mut Run, sites: &Sites) -> Result<()> {
    let seconds = if run.full { 10 } else { 2 };
    for (a_to_b, way) in [(true, "a_to_b"), (false, "b_to_a")] {
        for (payload, per_second) in [(1472, 500), (1500, 500), (9000, 100)] {
            let flow = sites.net.start_flow(a_to_b, 6100, per_second, payload)?;
            std::thread::sleep(Duration::from_secs(seconds));
            let result = flow.stop()?;
            run.check(
                &format!("{way}: UDP datagrams of {payload} octets arrive as they were"),
                result.is_whole(),
                result.summary(),
            );
        }
    }
    Ok(())
}

fn tcp(run: &mut Run, sites: &Sites, mss_clamp: bool, switch: &str) -> Result<()> {
    let at = [
        ("a_to_b", &sites.net.host_a, &sites.net.host_b, HOST_B, "in-b", 5301),
        ("b_to_a", &sites.net.host_b, &sites.net.host_a, HOST_A, "in-a", 5311),
    ];
    for (way, from, to, address, bridge, port) in at {
        let capture = Capture::start(
            &sites.net.switch,
            sites.net.folder(),
            &format!("syn-{switch}-{way}"),
            bridge,
            "tcp[13] & 2 != 0",
        )?;
        let result = iperf::run(from, (to, address), port, if run.full { 10 } else { 2 }, &[])?;
        run.figure(&format!("{way}_tcp_{switch}_mbit"), result.mbit);
        let segments = mss_values(&capture.stop()?.file)?;
        let (wanted, text) =
            if mss_clamp { (longest_inner(MTU) - 40, "lowered") } else { (MTU - 40, "left alone") };
        // The SYN came through the tunnel; the answer to it has not gone in yet.
        let of_syn: Vec<u32> =
            segments.iter().filter(|syn| !syn.answer).map(|syn| u32::from(syn.mss)).collect();
        run.check(
            &format!("{way}, {switch}: the MSS of a SYN is {text} ({wanted})"),
            !of_syn.is_empty() && of_syn.iter().all(|mss| *mss == wanted),
            format!("{of_syn:?}"),
        );
        run.check(
            &format!("{way}, {switch}: TCP flows"),
            result.mbit > 1.0,
            format!("{:.0} Mbit/s, {} retransmits", result.mbit, result.retransmits),
        );
        let download = http::download((to, address), from, sites.net.folder(), port + 1, 5_000_000)?;
        run.check(
            &format!("{way}, {switch}: a download arrives as it was"),
            download.arrived == download.served,
            format!("{:.0} Mbit/s", download.mbit),
        );
    }
    Ok(())
}

struct Syn {
    mss: u16,
    answer: bool,
}

/// The MSS option of each TCP SYN in a capture.
fn mss_values(file: &Path) -> Result<Vec<Syn>> {
    Ok(pcap::frames(file)?.iter().filter_map(|frame| syn(frame)).collect())
}

fn syn(frame: &[u8]) -> Option<Syn> {
    let packet = frame.get(14..)?;
    let tcp = packet.get(usize::from(packet.first()? & 15) * 4..)?;
    let flags = tcp.get(13)?;
    if *packet.get(9)? != 6 || flags & 2 == 0 {
        return None;
    }
    let mut options = tcp.get(20..usize::from(tcp.get(12)? >> 4) * 4)?;
    loop {
        match options {
            [2, 4, high, low, ..] => {
                return Some(Syn { mss: u16::from_be_bytes([*high, *low]), answer: flags & 16 != 0 });
            }
            [1, rest @ ..] => options = rest,
            [_, length, ..] if *length >= 2 => options = options.get(usize::from(*length)..)?,
            _ => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_inner_packet_is_that_of_rfc_4303() {
        assert_eq!(longest_inner(1500), 1446);
        // One octet more would need the next multiple of 4.
        let outer = |inner: u32| 20 + 8 + 8 + (inner + 2).next_multiple_of(4) + 16;
        for mtu in 576..9000 {
            assert!(outer(longest_inner(mtu)) <= mtu, "{mtu}");
            assert!(outer(longest_inner(mtu) + 1) > mtu, "{mtu}");
        }
    }

    #[test]
    fn the_mss_option_is_found_behind_others() {
        let mut frame = vec![0; 14 + 20 + 28];
        frame[14] = 0x45;
        frame[14 + 9] = 6;
        frame[34 + 12] = 7 << 4;
        frame[34 + 13] = 2;
        frame[34 + 20..34 + 28].copy_from_slice(&[1, 3, 3, 7, 2, 4, 0x05, 0x7e]);
        let found = syn(&frame).expect("an MSS");
        assert_eq!((found.mss, found.answer), (1406, false));
    }
}

//! As many small packets as go, and busy CPUs on both nodes: no takeover.

use crate::lab::Namespace;
use crate::network::{HOST_A, HOST_B, OUTSIDE_A_MAC};
use crate::pair::{NAMES, PairSites, REDUNDANT};
use crate::report::count;
use crate::run::Run;
use crate::traffic::raw;
use anyhow::{Context, Result};
use std::net::{Ipv4Addr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// UDP port of the flood.
const PORT: u16 = 6900;

/// Inside virtual MAC of both gateways' sites.
const INSIDE_A_MAC: [u8; 6] = [0x00, 0x00, 0x0c, 0x9f, 0xf0, 0x01];
const INSIDE_B_MAC: [u8; 6] = [0x00, 0x00, 0x0c, 0x9f, 0xf0, 0x03];

pub(super) fn act(run: &mut Run) -> Result<()> {
    // Not recorded: writing captures would take the CPU that the flood is to have.
    let sites = PairSites::up(run, false)?;
    let time = Duration::from_secs(if run.full { 600 } else { 20 });
    let before = sites.pairing()?;
    let takeovers = |sites: &PairSites| -> Result<usize> {
        let mut count = 0;
        for node in 0..2 {
            count += sites.history(node)?.iter().filter(|(step, _)| step == "takeover").count();
        }
        Ok(count)
    };
    let (taken, counters) = (takeovers(&sites)?, sites.nodes[before.active].counters()?);
    // The hosts take what arrives and answer nothing.
    let sinks = [(&sites.net.host_a, HOST_A), (&sites.net.host_b, HOST_B)]
        .map(|(host, address)| host.enter(|| Ok(UdpSocket::bind((address, PORT))?)));
    let stop = Arc::new(AtomicBool::new(false));
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    run.say(format_args!("small packets from both hosts and the attacker, and {} busy threads", 2 * cores));
    let busy: Vec<JoinHandle<()>> = (0..2 * cores)
        .map(|_| {
            let stop = Arc::clone(&stop);
            std::thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            })
        })
        .collect();
    let floods = [
        flood(&sites.net.host_a, frames(&sites.net.host_a, INSIDE_A_MAC, HOST_A, HOST_B)?, &stop),
        flood(&sites.net.host_b, frames(&sites.net.host_b, INSIDE_B_MAC, HOST_B, HOST_A)?, &stop),
        flood(&sites.net.guest_a, frames(&sites.net.guest_a, OUTSIDE_A_MAC, HOST_B, HOST_A)?, &stop),
    ];
    let end = Instant::now() + time;
    let mut changes = Vec::new();
    let mut looks = 0_u32;
    while Instant::now() < end {
        std::thread::sleep(Duration::from_millis(500));
        for (node, name) in NAMES.iter().enumerate() {
            // A command that gets no answer under such load shows nothing.
            let Ok(view) = sites.view(node) else { continue };
            looks += 1;
            if view.term != before.term || view.is_active() != (node == before.active) {
                changes.push(format!("{name}: {view}"));
            }
        }
    }
    stop.store(true, Ordering::Relaxed);
    let mut sent = 0;
    for flood in floods {
        sent += flood.join().map_err(|_| anyhow::anyhow!("a flood panicked"))??;
    }
    for thread in busy {
        thread.join().map_err(|_| anyhow::anyhow!("a busy thread panicked"))?;
    }
    for sink in sinks {
        sink.context("binding a sink")?;
    }
    let now = sites.nodes[before.active].counters()?.since(&counters);
    let seconds = time.as_secs_f64();
    run.figure("sent_kpps", count(sent) / seconds / 1e3);
    run.figure("received_kpps", count(now.counter("received")) / seconds / 1e3);
    run.figure("forwarded_kpps", count(now.counter("forwarded")) / seconds / 1e3);
    let lost: u64 = now.socket.values().sum();
    run.check(
        "it was more than the active node takes",
        now.counter("received") > 100_000 && sent > now.counter("received"),
        format!(
            "{sent} frames sent, {} received by its workers, {} forwarded, {lost} lost at its sockets; {}",
            now.counter("received"),
            now.counter("forwarded"),
            now.drops_text()
        ),
    );
    run.check("the nodes answered meanwhile", looks > 10, format!("{looks} looks"));
    // Expected, and not sure where every gateway, host and hog of the lab shares two cores: there the kernel handles the
    // flood's packets within the system calls of the pair thread, whatever its priority.
    run.expect(
        "roles and term never changed",
        changes.is_empty(),
        changes.first().map_or("no change", String::as_str),
    );
    let after = sites.wait_redundant(REDUNDANT)?;
    let taken = takeovers(&sites)? - taken;
    run.expect(
        "0 takeovers",
        taken == 0 && after == before,
        format!("{taken} in the histories; {} is active in term {}", NAMES[after.active], after.term),
    );
    let expectation = sites.expectation(run, 0, 0)?;
    sites.finish(run, &expectation)
}

/// A burst of UDP datagrams of 18 octets, in the smallest Ethernet frames.
fn frames(sender: &Namespace, to_mac: [u8; 6], from: Ipv4Addr, to: Ipv4Addr) -> Result<Vec<Vec<u8>>> {
    let mut frame = to_mac.to_vec();
    frame.extend(sender.mac("eth0")?);
    frame.extend([8, 0, 0x45, 0]);
    frame.extend(46_u16.to_be_bytes());
    frame.extend([0, 0, 0x40, 0, 64, 17, 0, 0]);
    frame.extend(from.octets());
    frame.extend(to.octets());
    let checksum = tandem_wire::checksum::Checksum::new().bytes(&frame[14..34]).finish();
    frame[24..26].copy_from_slice(&checksum.to_be_bytes());
    for word in [PORT, PORT, 26, 0] {
        frame.extend(word.to_be_bytes());
    }
    frame.resize(60, 0x66);
    Ok(vec![frame; 4096])
}

/// Sends them again and again, as fast as it goes.
fn flood(sender: &Namespace, frames: Vec<Vec<u8>>, stop: &Arc<AtomicBool>) -> JoinHandle<Result<u64>> {
    let (sender, stop) = (sender.clone(), Arc::clone(stop));
    std::thread::spawn(move || {
        let mut sent = 0;
        while !stop.load(Ordering::Relaxed) {
            sent += raw::send(&sender, "eth0", &frames, 0)?.frames;
        }
        Ok(sent)
    })
}

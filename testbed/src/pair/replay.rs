//! An attacker on the outside segment who has recorded everything and sends all of it again.

use super::{NAMES, PairSites};
use crate::capture::Capture;
use crate::network::{OUTSIDE_A, OUTSIDE_B, protected};
use crate::pcap;
use crate::report::count;
use crate::run::Run;
use crate::traffic::raw;
use anyhow::{Context, Result};
use std::time::Duration;

/// Frames a second: fast, and none is lost on the way.
const RATE: u32 = 25_000;

/// Numbers that an anti-replay window of the product holds at most.
const WINDOW: u64 = 2048;

/// What an attack found.
#[derive(Clone, Copy, Debug)]
pub struct Attack {
    /// Frames sent again.
    pub frames: u64,
    /// Of them ESP for the pair.
    pub for_pair: u64,
    /// Packets that the pair and the remote gateway refused as seen before or too old.
    pub refused: u64,
}

impl PairSites {
    /// Sends every IPv4 frame of the whole outside capture again, from the attacker's port, towards where it went:
    /// ESP for the pair and for the remote gateway, and what the nodes said to each other. While nothing else
    /// flows (`quiet`), not one packet may come out inside, on either site; where traffic goes on meanwhile, the
    /// judges look for packets that came out twice at the end.
    ///
    /// What a dead node never delivered is late and no replay: every anti-replay window takes it once, as long as
    /// it is not left of the window. So traffic moves the windows past it first (`quiet`).
    ///
    /// # Errors
    /// Where the capture cannot be read or sent.
    pub fn replay(&mut self, run: &mut Run, when: &str, quiet: bool) -> Result<Attack> {
        if quiet {
            self.move_windows()?;
        }
        let own = self.net.guest_a.mac("eth0")?;
        let capture = &mut self.captures.as_mut().context("nothing was recorded")?.outside;
        let mut frames = pcap::frames(capture.so_far()?)?;
        // ARP is left out: to take over another host's addresses on the segment needs no recording, and
        // concerns no IPsec. The attacker's own port sends, or the bridges would learn wrong ways.
        frames.retain(|frame| frame.len() > 34 && frame[12..14] == [8, 0] && frame[6..12] != own);
        for frame in &mut frames {
            frame[6..12].copy_from_slice(&own);
        }
        let esp_for = |address: [u8; 4]| {
            frames.iter().filter(|frame| frame[23] == 50 && frame[30..34] == address).count() as u64
        };
        let (for_pair, for_b) = (esp_for(OUTSIDE_A.octets()), esp_for(OUTSIDE_B.octets()));
        let active = self.active()?;
        let listen = |device: &str, from: &str| {
            let name = format!("replay-{device}");
            Capture::start(&self.net.switch, self.net.folder(), &name, device, &format!("src net {from}"))
        };
        let (a, b) = (protected().0.to_string(), protected().1.to_string());
        let inside = if quiet { vec![listen("in-a", &b)?, listen("in-b", &a)?] } else { Vec::new() };
        let gateways = [&self.nodes[active], &self.b];
        let before = [gateways[0].counters()?, gateways[1].counters()?];
        let sent = raw::send(&self.net.guest_a, "eth0", &frames, RATE)?;
        std::thread::sleep(Duration::from_millis(300));
        let mut refused = [0; 2];
        let mut opened = 0;
        for ((gateway, before), refused) in gateways.into_iter().zip(&before).zip(&mut refused) {
            let now = gateway.counters()?.since(before);
            *refused = now.dropped("esp_replayed") + now.dropped("esp_too_old");
            opened += now.counter("decapsulated");
        }
        run.report.figure("replayed_frames", count(sent.frames));
        for (name, refused, wanted) in
            [(NAMES[active], refused[0], for_pair), (self.b.settings.name.as_str(), refused[1], for_b)]
        {
            // Nearly all: a socket's ring may overflow on a busy machine, and what is lost proves nothing.
            run.check(
                &format!("{when}: {name} meets the replay and refuses it"),
                wanted > 0 && refused >= wanted * 9 / 10,
                format!("{refused} of {wanted} refused as seen before or too old"),
            );
        }
        if quiet {
            let arrived: u64 = Capture::stop_all(inside)?.iter().map(|recorded| recorded.frames).sum();
            run.check(
                &format!("{when}: of the whole capture sent again not one packet comes out inside"),
                arrived == 0 && opened == 0,
                format!("{} frames sent again, {opened} opened, {arrived} packets inside", sent.frames),
            );
        }
        Ok(Attack { frames: sent.frames, for_pair, refused: refused[0] + refused[1] })
    }

    /// Sends more datagrams each way than an anti-replay window holds.
    fn move_windows(&self) -> Result<()> {
        let flows = [self.net.start_flow(true, 6690, 5000, 64)?, self.net.start_flow(false, 6691, 5000, 64)?];
        for flow in &flows {
            flow.wait_for_arrivals(WINDOW + 500, Duration::from_secs(10))?;
        }
        for flow in flows {
            flow.stop()?;
        }
        Ok(())
    }

    /// Number of the one node that says that it is active.
    ///
    /// # Errors
    /// Where none does, or both.
    pub fn active(&self) -> Result<usize> {
        let active: Vec<usize> =
            (0..2).filter(|&node| self.view(node).is_ok_and(|view| view.is_active())).collect();
        match active.as_slice() {
            [only] => Ok(*only),
            [] => anyhow::bail!("no node says that it is active"),
            _ => anyhow::bail!("both nodes say that they are active"),
        }
    }
}

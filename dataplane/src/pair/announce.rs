//! Announcing the virtual addresses, so that stations and switches learn where they are now (`failover.md` F29),
//! without I/O.

use std::net::Ipv4Addr;
use tandem_takeover::{MS, Nanos};
use tandem_wire::arp::{FRAME_LEN, write_gratuitous, write_gratuitous_reply};
use tandem_wire::ethernet::MacAddr;

/// When everything is announced, from the first time on: a frame may be lost, a switch may learn late.
const TIMES: [Nanos; 7] = [0, 10 * MS, 50 * MS, 200 * MS, 1000 * MS, 2000 * MS, 4000 * MS];
/// Whoever asks more often than that gets what is on its way.
const PAUSE: Nanos = TIMES[1];

/// An ARP frame.
pub type Frame = [u8; FRAME_LEN];

/// The two frames that announce an address, in the form of a request and of a reply. The virtual MAC is Ethernet
/// source too: switches learn from that.
#[must_use]
pub fn frames(mac: MacAddr, address: Ipv4Addr) -> [Frame; 2] {
    let (mut request, mut reply) = ([0; FRAME_LEN], [0; FRAME_LEN]);
    // Both have the length that is written.
    let _ = write_gratuitous(&mut request, mac, address);
    let _ = write_gratuitous_reply(&mut reply, mac, address);
    [request, reply]
}

/// When to announce.
#[derive(Debug, Default)]
pub struct Schedule {
    running: Option<Running>,
}

#[derive(Clone, Copy, Debug)]
struct Running {
    /// Time of the first announcement.
    from: Nanos,
    /// Announcements made.
    made: usize,
    /// Time of the last one.
    last: Nanos,
}

impl Schedule {
    /// Begins anew: at once, unless the last announcement was just now.
    pub fn start(&mut self, now: Nanos) {
        self.running = Some(match self.running {
            Some(Running { last, made, .. }) if made > 0 && now.saturating_sub(last) < PAUSE => {
                Running { from: last, made: 1, last }
            }
            _ => Running { from: now, made: 0, last: now },
        });
    }

    /// No more: another node has the addresses.
    pub fn stop(&mut self) {
        self.running = None;
    }

    /// Is an announcement due? It counts as made.
    pub fn is_due(&mut self, now: Nanos) -> bool {
        let Some(running) = &mut self.running else { return false };
        let Some(&after) = TIMES.get(running.made) else {
            if now.saturating_sub(running.last) >= PAUSE {
                self.running = None;
            }
            return false;
        };
        let due = now >= running.from + after;
        if due {
            running.made += 1;
            running.last = now;
        }
        due
    }

    /// When the next one is due.
    #[must_use]
    pub fn next(&self) -> Option<Nanos> {
        let running = self.running?;
        Some(running.from + TIMES.get(running.made)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tandem_wire::{arp, ethernet};

    fn times(schedule: &mut Schedule, mut now: Nanos) -> Vec<Nanos> {
        let mut times = Vec::new();
        while let Some(next) = schedule.next() {
            now = now.max(next);
            assert!(schedule.is_due(now) && !schedule.is_due(now));
            times.push(now);
        }
        times
    }

    #[test]
    fn addresses_are_announced_at_once_and_for_four_seconds() {
        let mut schedule = Schedule::default();
        assert!(!schedule.is_due(5));
        schedule.start(5);
        assert_eq!(times(&mut schedule, 5), TIMES.map(|time| 5 + time));
        assert!(!schedule.is_due(5 + 60_000 * MS));
    }

    #[test]
    fn who_asks_all_the_time_is_served_every_ten_milliseconds() {
        let mut schedule = Schedule::default();
        let mut made = 0;
        for now in (0..1000 * MS).step_by(2 * MS as usize) {
            schedule.start(now);
            made += usize::from(schedule.is_due(now));
        }
        assert!((99..=101).contains(&made), "{made}");
        assert_eq!(times(&mut schedule, 998 * MS).len(), TIMES.len() - 1);
    }

    #[test]
    fn a_standby_announces_nothing() {
        let mut schedule = Schedule::default();
        schedule.start(0);
        schedule.stop();
        assert!(!schedule.is_due(0) && schedule.next().is_none());
    }

    #[test]
    fn both_forms_come_from_the_virtual_mac_and_name_it() {
        let (mac, address) = (MacAddr([0, 0, 0x5e, 0, 1, 7]), Ipv4Addr::new(10, 1, 0, 1));
        for (frame, operation) in frames(mac, address).iter().zip([1, 2]) {
            let (header, payload) = ethernet::parse(frame).unwrap();
            assert_eq!((header.source, header.destination), (mac, MacAddr::BROADCAST));
            let packet = arp::parse(payload).unwrap();
            assert_eq!((packet.operation.get(), packet.sender_mac), (operation, mac));
            assert_eq!(
                (packet.sender_ip.get(), packet.target_ip.get()),
                (address.to_bits(), address.to_bits())
            );
        }
    }
}

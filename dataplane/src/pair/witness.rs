//! Does a segment live? A neighbour other than the partner is asked by ARP and shows it (`failover.md` F25), without I/O.

use std::net::Ipv4Addr;
use tandem_takeover::{MS, Nanos};
use tandem_wire::arp::{self, FRAME_LEN};
use tandem_wire::ethernet::{self, ETHERTYPE_ARP, MacAddr};

/// Between two questions in good times.
const CALM: Nanos = 1000 * MS;
/// Between two questions while the partner is silent ...
const HURRY: Nanos = MS;
/// ... for so long.
const HURRY_FOR: Nanos = 40 * MS;

/// A neighbour that is asked.
#[derive(Clone, Debug)]
pub struct Witness {
    /// Its address.
    pub address: Ipv4Addr,
    /// Own MAC and kernel address of the interface (0.0.0.0 where it has none): never virtual ones, which would move them.
    pub asker: (MacAddr, Ipv4Addr),
    /// When it last showed itself.
    pub seen: Option<Nanos>,
    next: Nanos,
    hurry_until: Nanos,
}

impl Witness {
    /// To be asked at once.
    #[must_use]
    pub fn new(address: Ipv4Addr, asker: (MacAddr, Ipv4Addr), now: Nanos) -> Self {
        Self { address, asker, seen: None, next: now, hurry_until: now }
    }

    /// The partner is silent: ask now, and often for a while.
    pub fn hurry(&mut self, now: Nanos) {
        self.hurry_until = now + HURRY_FOR;
        self.next = self.next.min(now);
    }

    /// When it is to be asked next.
    #[must_use]
    pub fn next(&self) -> Nanos {
        self.next
    }

    /// The question, if it is due.
    pub fn ask(&mut self, now: Nanos) -> Option<[u8; FRAME_LEN]> {
        if now < self.next {
            return None;
        }
        self.next = now + if now < self.hurry_until { HURRY } else { CALM };
        let mut frame = [0; FRAME_LEN];
        arp::write_request(&mut frame, self.asker, self.address)?;
        Some(frame)
    }

    /// Takes a frame that came in over the segment. Whatever ARP packet the witness sends shows that the segment lives,
    /// be it an answer to this node, or to another one, or a question of its own. Was it such a one?
    pub fn hear(&mut self, frame: &[u8], now: Nanos) -> bool {
        let Ok((header, payload)) = ethernet::parse(frame) else { return false };
        let Ok(packet) = arp::parse(payload) else { return false };
        let from = packet.sender_mac;
        let shows = header.ethertype.get() == ETHERTYPE_ARP
            && packet.sender_ip.get() == self.address.to_bits()
            && from.is_unicast()
            && from != self.asker.0;
        if shows {
            self.seen = Some(now);
        }
        shows
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 10);
    const OWN: (MacAddr, Ipv4Addr) = (MacAddr([2, 0, 0, 0, 0, 1]), Ipv4Addr::new(10, 1, 0, 2));
    const ITS: MacAddr = MacAddr([2, 0, 0, 0, 0, 9]);

    #[test]
    fn a_witness_is_asked_once_a_second_and_every_millisecond_while_the_partner_is_silent() {
        let mut witness = Witness::new(ADDRESS, OWN, 0);
        let mut asked = Vec::new();
        for now in (0..3000 * MS).step_by(MS as usize / 4) {
            if now == 1500 * MS {
                witness.hurry(now);
            }
            if witness.ask(now).is_some() {
                asked.push(now);
            }
        }
        assert_eq!(asked[..3], [0, 1000 * MS, 1500 * MS]);
        assert_eq!(asked.iter().filter(|time| (1500 * MS..1541 * MS).contains(time)).count(), 41);
        assert_eq!(asked[43..], [2540 * MS]);
    }

    #[test]
    fn the_question_carries_own_mac_and_address_and_the_answer_is_noted() {
        let mut witness = Witness::new(ADDRESS, OWN, 7);
        let frame = witness.ask(7).unwrap();
        let (header, payload) = ethernet::parse(&frame).unwrap();
        let request = arp::parse_request(payload).unwrap();
        assert_eq!((header.source, request.sender_mac, request.sender_ip), (OWN.0, OWN.0, OWN.1));
        assert!(!witness.hear(&frame, 8) && witness.seen.is_none(), "its own question is no answer");
        let mut answer = [0; FRAME_LEN];
        arp::write_reply(&mut answer, &request, ITS).unwrap();
        assert!(witness.hear(&answer, 9) && witness.seen == Some(9));
        let other = arp::Request { target_ip: Ipv4Addr::new(10, 1, 0, 11), ..request };
        arp::write_reply(&mut answer, &other, ITS).unwrap();
        assert!(!witness.hear(&answer, 10) && witness.seen == Some(9), "another neighbour is no witness");
    }

    proptest! {
        #[test]
        fn no_frame_makes_it_fail(frame in proptest::collection::vec(any::<u8>(), 0..80)) {
            Witness::new(ADDRESS, OWN, 0).hear(&frame, 1);
        }
    }
}

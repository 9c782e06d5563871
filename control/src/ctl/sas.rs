//! `show crypto ipsec sa`.

use super::tables::table_of;
use std::fmt::Write;
use tandem_api::operator::{IpsecSas, KeyState, KeyTerms, MapSas, Sa};
use tandem_api::types::{Direction, Selector};

/// One line for each SA.
pub fn table(sas: &IpsecSas) -> String {
    let mut rows = Vec::new();
    for map in &sas.maps {
        let list: Vec<&Sa> = map.inbound.iter().chain(&map.outbound).collect();
        if list.is_empty() {
            let peer = map.peer.to_string();
            rows.push(
                [map.map.clone(), peer, "no SA".to_owned()]
                    .into_iter()
                    .chain((0..6).map(|_| String::new()))
                    .collect(),
            );
        }
        for sa in list {
            let status = &sa.status;
            rows.push(vec![
                map.map.clone(),
                map.peer.to_string(),
                status.direction.to_string(),
                format!("{:#010x}", status.spi),
                status.transform.to_string(),
                status.packets.to_string(),
                status.bytes.to_string(),
                errors(sa).to_string(),
                terms_short(&sa.terms),
            ]);
        }
    }
    let head = ["crypto map", "peer", "direction", "spi", "transform", "packets", "bytes", "errors", "key"];
    let mut text = format!("{}, term {}\n", sas.role, sas.term);
    text += &table_of(&head, &[5, 6, 7], rows);
    text
}

/// The dormant SAs of a standby, with the numbers that it would start from.
pub fn standby(sas: &IpsecSas) -> String {
    let lists =
        sas.maps.iter().flat_map(|map| map.inbound.iter().chain(&map.outbound).map(move |sa| (map, sa)));
    let rows = lists.map(|(map, sa)| {
        let status = &sa.status;
        let numbers = match status.direction {
            Direction::Inbound => format!("seen up to {}", status.sequence),
            // Past all that the active node may have used (F14).
            Direction::Outbound => {
                format!("next {}", status.sequence.max(status.lease_end).saturating_add(1))
            }
        };
        let limit = match status.limit {
            0 => "HELD".to_owned(),
            u64::MAX => "none".to_owned(),
            limit => limit.to_string(),
        };
        vec![
            map.map.clone(),
            map.peer.to_string(),
            status.direction.to_string(),
            format!("{:#010x}", status.spi),
            status.transform.to_string(),
            numbers,
            limit,
            terms_short(&sa.terms),
        ]
    });
    let head = ["crypto map", "peer", "direction", "spi", "transform", "numbers", "on disk up to", "key"];
    let table = table_of(&head, &[6], rows.collect());
    format!("{}, term {}\n{table}", sas.role, sas.term)
}

/// All errors of an SA.
fn errors(sa: &Sa) -> u64 {
    let status = &sa.status;
    status.replayed + status.too_old + status.auth_failed + status.inner_wrong + status.send_errors
}

fn terms_short(terms: &KeyTerms) -> String {
    match terms.state {
        KeyState::Good => "good".to_owned(),
        KeyState::Replace => format!("replace: {} terms left", terms.left_hard),
        KeyState::Dead => "dead: configure a new key".to_owned(),
        KeyState::BelowBase => "term below base-term".to_owned(),
    }
}

/// By crypto map, as Cisco's routers show it.
pub fn detail(sas: &IpsecSas) -> String {
    let mut text = format!("role: {}, term {}\n", sas.role, sas.term);
    for map in &sas.maps {
        text.push('\n');
        one_map(&mut text, map);
    }
    text
}

fn one_map(text: &mut String, map: &MapSas) {
    let sum = |list: &[Sa], count: fn(&Sa) -> u64| list.iter().map(count).sum::<u64>();
    let (inbound, outbound) = (&map.inbound[..], &map.outbound[..]);
    let interface = map.interface.as_deref().unwrap_or("(not configured)");
    let priority =
        map.priority.map_or("not configured any more".to_owned(), |priority| format!("priority {priority}"));
    // Writing to a String never fails.
    let _ = writeln!(text, "interface: {interface}");
    let _ = writeln!(text, "    crypto map: {}, {priority}, local addr {}\n", map.map, map.local);
    for Selector { local, remote } in &map.selectors {
        let _ = writeln!(text, "   local  ident (addr/mask): ({}/{})", local.network(), local.netmask());
        let _ = writeln!(text, "   remote ident (addr/mask): ({}/{})", remote.network(), remote.netmask());
    }
    let _ = writeln!(text, "   current_peer {}", map.peer);
    let out = sum(outbound, |sa| sa.status.packets);
    let _ = writeln!(text, "    #pkts encaps: {out}, #pkts encrypt: {out}, #pkts digest: {out}");
    // Every packet that was opened was authentic; those that were wrong inside were not accepted.
    let accepted = sum(inbound, |sa| sa.status.packets);
    let verified = accepted + sum(inbound, |sa| sa.status.inner_wrong);
    let _ =
        writeln!(text, "    #pkts decaps: {accepted}, #pkts decrypt: {verified}, #pkts verify: {verified}");
    let (seen, old) = (sum(inbound, |sa| sa.status.replayed), sum(inbound, |sa| sa.status.too_old));
    let _ = writeln!(text, "    #pkts replay: {} (seen before {seen}, too old {old})", seen + old);
    let (failed, wrong) =
        (sum(inbound, |sa| sa.status.auth_failed), sum(inbound, |sa| sa.status.inner_wrong));
    let send_errors = sum(outbound, |sa| sa.status.send_errors);
    let _ = writeln!(
        text,
        "    #pkts verify failed: {failed}, #pkts inner wrong: {wrong}, #send errors: {send_errors}"
    );
    for (direction, list) in [(Direction::Inbound, inbound), (Direction::Outbound, outbound)] {
        let _ = writeln!(text, "\n     {direction} esp sas:");
        if list.is_empty() {
            let _ = writeln!(text, "      none");
        }
        for sa in list {
            one_sa(text, sa);
        }
    }
}

fn one_sa(text: &mut String, sa: &Sa) {
    let (status, terms) = (&sa.status, &sa.terms);
    let _ = writeln!(text, "      spi: {0:#010x} ({0})", status.spi);
    let _ = writeln!(text, "        transform: {}, in use settings: {{Tunnel, static}}", status.transform);
    let sequence = match status.direction {
        Direction::Inbound => {
            format!("highest sequence: {}, anti-replay window: {}", status.sequence, status.window)
        }
        Direction::Outbound => format!("last sequence: {}", status.sequence),
    };
    let _ = writeln!(text, "        slot: {}, {sequence}", status.slot);
    let _ = writeln!(text, "        packets: {}, bytes: {}", status.packets, status.bytes);
    let _ =
        writeln!(text, "        key fingerprint: {}, generation: {}", status.fingerprint, status.generation);
    let state = match terms.state {
        KeyState::Good => String::new(),
        KeyState::Replace => "; past its soft limit: configure a new key".to_owned(),
        KeyState::Dead => "; dead: configure a new key".to_owned(),
        KeyState::BelowBase => {
            "; the term of this node is below it: nothing is sealed, lower base-term".to_owned()
        }
    };
    let KeyTerms { used, left_soft, left_hard, .. } = terms;
    let _ = writeln!(
        text,
        "        base term: {}, terms used: {used}, left: {left_soft} (soft), {left_hard} (hard){state}",
        status.base_term
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use tandem_api::dataplane::SaStatus;
    use tandem_api::types::{KeyFingerprint, Role, Transform};

    fn sa(direction: Direction, spi: u32) -> Sa {
        let inbound = direction == Direction::Inbound;
        let status = SaStatus {
            direction,
            spi,
            slot: 7,
            policy: 0,
            map: "site-b".to_owned(),
            selectors: Vec::new(),
            local: [192, 0, 2, 1].into(),
            peer: [198, 51, 100, 2].into(),
            transform: Transform::Aes128gcm16,
            fingerprint: KeyFingerprint(0x1234),
            base_term: 0,
            lease_end: 0,
            limit: u64::MAX,
            generation: 3,
            packets: if inbound { 20 } else { 30 },
            bytes: 4000,
            sequence: 31,
            replayed: if inbound { 4 } else { 0 },
            too_old: u64::from(inbound),
            auth_failed: if inbound { 2 } else { 0 },
            inner_wrong: u64::from(inbound),
            send_errors: if inbound { 0 } else { 5 },
            window: if inbound { 1984 } else { 0 },
        };
        Sa { status, terms: KeyTerms::at(2, 0) }
    }

    fn sas() -> IpsecSas {
        let selector =
            Selector { local: "10.1.0.0/24".parse().unwrap(), remote: "10.2.0.0/16".parse().unwrap() };
        let map = MapSas {
            map: "site-b".to_owned(),
            priority: Some(100),
            interface: Some("out0".to_owned()),
            local: [192, 0, 2, 1].into(),
            peer: [198, 51, 100, 2].into(),
            selectors: vec![selector],
            inbound: vec![sa(Direction::Inbound, 0x1001)],
            outbound: vec![sa(Direction::Outbound, 0x2001)],
        };
        IpsecSas { role: Role::Active, term: 2, maps: vec![map] }
    }

    #[test]
    fn detail_has_ciscos_words_and_numbers() {
        let expected = "\
role: active, term 2

interface: out0
    crypto map: site-b, priority 100, local addr 192.0.2.1

   local  ident (addr/mask): (10.1.0.0/255.255.255.0)
   remote ident (addr/mask): (10.2.0.0/255.255.0.0)
   current_peer 198.51.100.2
    #pkts encaps: 30, #pkts encrypt: 30, #pkts digest: 30
    #pkts decaps: 20, #pkts decrypt: 21, #pkts verify: 21
    #pkts replay: 5 (seen before 4, too old 1)
    #pkts verify failed: 2, #pkts inner wrong: 1, #send errors: 5

     inbound esp sas:
      spi: 0x00001001 (4097)
        transform: aes128gcm16, in use settings: {Tunnel, static}
        slot: 7, highest sequence: 31, anti-replay window: 1984
        packets: 20, bytes: 4000
        key fingerprint: 0000000000001234, generation: 3
        base term: 0, terms used: 2, left: 32766 (soft), 65534 (hard)

     outbound esp sas:
      spi: 0x00002001 (8193)
        transform: aes128gcm16, in use settings: {Tunnel, static}
        slot: 7, last sequence: 31
        packets: 30, bytes: 4000
        key fingerprint: 0000000000001234, generation: 3
        base term: 0, terms used: 2, left: 32766 (soft), 65534 (hard)
";
        assert_eq!(detail(&sas()), expected);
    }

    #[test]
    fn the_standby_table_shows_the_numbers_that_it_would_start_from() {
        let mut sas = sas();
        sas.role = Role::Standby;
        sas.maps[0].inbound[0].status.limit = 0;
        sas.maps[0].outbound[0].status.lease_end = 65_567;
        sas.maps[0].outbound[0].status.limit = 131_072;
        let expected = "\
standby, term 2
crypto map  peer          direction  spi         transform    numbers        on disk up to  key
site-b      198.51.100.2  inbound    0x00001001  aes128gcm16  seen up to 31           HELD  good
site-b      198.51.100.2  outbound   0x00002001  aes128gcm16  next 65568            131072  good
";
        assert_eq!(standby(&sas), expected);
    }

    #[test]
    fn the_short_table_has_a_line_for_each_sa_and_for_a_map_without() {
        let mut sas = sas();
        let mut empty = sas.maps[0].clone();
        empty.map = "site-c".to_owned();
        empty.inbound.clear();
        empty.outbound.clear();
        sas.maps.push(empty);
        let expected = "\
active, term 2
crypto map  peer          direction  spi         transform    packets  bytes  errors  key
site-b      198.51.100.2  inbound    0x00001001  aes128gcm16       20   4000       8  good
site-b      198.51.100.2  outbound   0x00002001  aes128gcm16       30   4000       5  good
site-c      198.51.100.2  no SA
";
        assert_eq!(table(&sas), expected);
    }
}

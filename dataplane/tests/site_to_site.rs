//! Two gateways over memory, without privileges: what goes in at one inside interface comes out at the
//! other, and nothing else does. Every test ends by accounting for every frame.

mod sites;

use sites::{HOST_A, HOST_B, Sites, VIRTUAL_A_INSIDE, VIRTUAL_B_INSIDE, icmp_echo, tcp_syn, udp};
use tandem_api::counters::{Counter, DropReason, SlowCounter};
use tandem_wire::{icmp, ipv4};

#[test]
fn a_packet_crosses_both_gateways_with_its_ttl_lowered_twice() {
    let mut sites = Sites::new("aws-lc-rs");
    let packet = udp(HOST_A, HOST_B, 64, b"through the tunnel", false);
    sites.host_a_sends(&packet);
    let arrived = sites.at_host_b();
    assert_eq!(arrived.len(), 1);
    let got = ipv4::parse(&arrived[0]).unwrap();
    assert_eq!(got.header.ttl, 62);
    assert!(got.header_checksum_ok());
    assert_eq!(got.payload, ipv4::parse(&packet).unwrap().payload);
    sites.account();
}

#[test]
fn providers_understand_each_other_in_bursts_that_cross_batch_borders() {
    // `auto` is the fastest that this CPU has.
    for (a, b) in [("auto", "aes-gcm"), ("aes-gcm", "auto"), ("aws-lc-rs", "aes-gcm"), ("auto", "aws-lc-rs")]
    {
        let mut sites = Sites::with_providers(a, b);
        let packets: Vec<_> =
            (0..67).map(|i| udp(HOST_A, HOST_B, 64, &vec![i as u8; 20 * i as usize], false)).collect();
        packets.iter().for_each(|packet| sites.inject_a(packet));
        sites.settle();
        let arrived = sites.at_host_b();
        assert_eq!(arrived.len(), packets.len());
        for (sent, got) in packets.iter().zip(&arrived) {
            assert_eq!(
                ipv4::parse(sent).unwrap().payload,
                ipv4::parse(got).unwrap().payload,
                "order or content"
            );
        }
        sites.account();
    }
}

#[test]
fn outer_packets_carry_numbers_and_ivs_that_never_repeat() {
    let mut sites = Sites::new("aws-lc-rs");
    for i in 0..200u32 {
        sites.inject_a(&udp(HOST_A, HOST_B, 64, &i.to_be_bytes(), false));
    }
    sites.settle();
    let mut numbers = std::collections::HashSet::new();
    let mut ivs = std::collections::HashSet::new();
    let outer = sites.outer();
    assert_eq!(outer.len(), 200);
    for frame in outer {
        let esp = ipv4::parse(&frame[14..]).unwrap().payload;
        assert!(numbers.insert(esp[4..8].to_vec()));
        assert!(ivs.insert(esp[8..16].to_vec()));
        // Term 2, base term 0 (F3).
        assert_eq!(esp[8..10], [0, 2]);
    }
}

#[test]
fn a_replayed_packet_is_not_delivered_twice_and_an_altered_one_not_at_all() {
    let mut sites = Sites::new("aws-lc-rs");
    sites.host_a_sends(&udp(HOST_A, HOST_B, 64, b"once", false));
    assert_eq!(sites.at_host_b().len(), 1);
    let outer = sites.outer();
    sites.inject_outside_b(&outer[0]);
    let mut altered = outer[0].clone();
    *altered.last_mut().unwrap() ^= 1;
    altered[14 + 20 + 7] ^= 0x40; // another sequence number, so that the window does not refuse it first
    sites.inject_outside_b(&altered);
    sites.settle();
    assert!(sites.at_host_b().is_empty());
    assert_eq!(sites.b.dropped(DropReason::EspReplayed), 1);
    assert_eq!(sites.b.dropped(DropReason::EspAuthFailed), 1);
    let inbound = sites.b.sas().into_iter().find(|sa| sa.window > 0).unwrap();
    assert_eq!((inbound.packets, inbound.replayed, inbound.auth_failed), (1, 1, 1));
    sites.account();
}

#[test]
fn what_policy_protects_never_leaves_in_clear_without_an_sa() {
    let mut sites = Sites::new("aws-lc-rs");
    sites.a.install(7, &[]).unwrap();
    assert_eq!(sites.a.sweep(7).count, 2);
    sites.host_a_sends(&udp(HOST_A, HOST_B, 64, b"secret", false));
    assert!(sites.outer().is_empty());
    assert_eq!(sites.a.dropped(DropReason::NoSa), 1);
    sites.account();
}

#[test]
fn an_sa_that_is_installed_again_goes_on_with_its_numbers() {
    let mut sites = Sites::new("aws-lc-rs");
    sites.host_a_sends(&udp(HOST_A, HOST_B, 64, b"one", false));
    sites.a.install(7, &[]).unwrap();
    sites.a.sweep(7);
    let outcome = sites.a.install(8, &Sites::sas_a()).unwrap();
    assert_eq!((outcome.new, outcome.resumed), (0, 2));
    sites.host_a_sends(&udp(HOST_A, HOST_B, 64, b"two", false));
    assert_eq!(sites.at_host_b().len(), 2);
    let outer = sites.outer();
    assert_eq!(outer[1][14 + 20 + 4..14 + 20 + 8], 2u32.to_be_bytes());
    let again = sites.a.install(9, &Sites::sas_a()).unwrap();
    assert_eq!(again.unchanged, 2);
}

#[test]
fn a_policy_number_that_leads_to_the_sa_of_another_tunnel_seals_nothing_into_it() {
    let mut sites = Sites::new("aws-lc-rs");
    // As between the two steps of a reload that renumbers: same number, other networks.
    let mut other = Sites::sas_a();
    for sa in &mut other {
        sa.selectors = vec![tandem_api::types::Selector {
            local: "10.1.0.0/16".parse().unwrap(),
            remote: "10.77.0.0/24".parse().unwrap(),
        }];
    }
    sites.a.install(2, &other).unwrap();
    sites.host_a_sends(&udp(HOST_A, HOST_B, 64, b"for B alone", false));
    assert!(sites.outer().is_empty());
    assert_eq!(sites.a.dropped(DropReason::NoSa), 1);
    sites.account();
}

#[test]
fn the_last_sequence_numbers_are_used_and_then_nothing_leaves() {
    let mut sites = Sites::new("aws-lc-rs");
    let slot = sites.a.sas().into_iter().find(|sa| sa.window == 0).unwrap().slot;
    let hot = sites.a.shared().hot.outbound(slot).unwrap();
    hot.next.store(u64::from(u32::MAX) - 3, std::sync::atomic::Ordering::Relaxed);
    // One burst that has more packets than there are numbers.
    (0..10).for_each(|i| sites.inject_a(&udp(HOST_A, HOST_B, 64, &[i], false)));
    sites.settle();
    assert_eq!(sites.outer().len(), 3);
    assert_eq!(sites.at_host_b().len(), 3);
    assert_eq!(sites.a.dropped(DropReason::SequenceExhausted), 7);
    sites.host_a_sends(&udp(HOST_A, HOST_B, 64, b"one more", false));
    assert!(sites.outer().is_empty());
    let outbound = sites.a.sas().into_iter().find(|sa| sa.window == 0).unwrap();
    assert_eq!((outbound.sequence, outbound.packets, outbound.send_errors), (u64::from(u32::MAX), 3, 8));
    sites.account();
}

#[test]
fn a_key_below_whose_base_term_the_node_is_seals_nothing() {
    let mut sites = Sites::new("aws-lc-rs");
    let mut young = Sites::sas_a().remove(0);
    young.base_term = 3;
    // A key of its own: the base term of one that is known never rises.
    young.fingerprint = tandem_api::types::KeyFingerprint(50);
    sites.a.install(2, &[young]).unwrap();
    sites.host_a_sends(&udp(HOST_A, HOST_B, 64, b"term 2", false));
    assert!(sites.outer().is_empty());
    assert_eq!(sites.a.dropped(DropReason::TermExhausted), 1);
    sites.account();
}

#[test]
fn two_peers_may_have_chosen_the_same_spi() {
    let mut sites = Sites::new("aws-lc-rs");
    let mut other = Sites::sas_a().remove(0);
    other.peer = "192.0.2.77".parse().unwrap();
    other.policy = 9;
    other.fingerprint = tandem_api::types::KeyFingerprint(77);
    assert_eq!(sites.a.install(2, &[other]).unwrap().new, 1);
    sites.host_a_sends(&udp(HOST_A, HOST_B, 64, b"still to B", false));
    assert_eq!(sites.at_host_b().len(), 1);
    sites.account();
}

#[test]
fn an_sa_that_moves_to_another_policy_leaves_the_old_one_without_an_sa() {
    let mut sites = Sites::new("aws-lc-rs");
    let mut moved = Sites::sas_a();
    moved.iter_mut().for_each(|sa| sa.policy = 4);
    sites.a.install(2, &moved).unwrap();
    sites.host_a_sends(&udp(HOST_A, HOST_B, 64, b"policy 3", false));
    assert!(sites.outer().is_empty());
    assert_eq!(sites.a.dropped(DropReason::NoSa), 1);
}

#[test]
fn an_inner_packet_outside_of_the_selectors_is_dropped_after_opening() {
    let mut sites = Sites::new("aws-lc-rs");
    // A's policy lets it out; B's SA does not cover the source.
    sites.host_a_sends(&udp([10, 1, 9, 9], HOST_B, 64, b"foreign", false));
    assert!(sites.at_host_b().is_empty());
    assert_eq!(sites.b.dropped(DropReason::InnerSelectorMismatch), 1);
    sites.account();
}

#[test]
fn a_clear_packet_from_outside_that_claims_a_protected_source_is_dropped() {
    let mut sites = Sites::new("aws-lc-rs");
    let packet = udp(HOST_A, HOST_B, 64, b"forged", false);
    sites.inject_outside_b(&sites::ethernet(&packet));
    sites.settle();
    assert!(sites.at_host_b().is_empty());
    assert_eq!(sites.b.dropped(DropReason::PolicyClearInbound), 1);
    sites.account();
}

#[test]
fn a_long_packet_with_df_is_answered_with_the_mtu_that_then_fits() {
    let mut sites = Sites::new("aws-lc-rs");
    sites.host_a_sends(&udp(HOST_A, HOST_B, 64, &[7; 1472], true));
    assert!(sites.at_host_b().is_empty());
    assert_eq!(sites.a.dropped(DropReason::FragmentationNeeded), 1);
    let answers = sites.at_host_a();
    assert_eq!(answers.len(), 1);
    let answer = ipv4::parse(&answers[0]).unwrap();
    assert_eq!(answer.header.source_addr().octets(), VIRTUAL_A_INSIDE);
    let (header, _) = icmp::parse(answer.payload).unwrap();
    let mtu = u16::from_be_bytes([header.rest[2], header.rest[3]]);
    assert_eq!((header.kind, header.code), (3, 4));
    let fits = udp(HOST_A, HOST_B, 64, &vec![7; usize::from(mtu) - 28], true);
    sites.host_a_sends(&fits);
    assert_eq!(sites.at_host_b().len(), 1, "an inner packet of {mtu} octets fits");
    sites.host_a_sends(&udp(HOST_A, HOST_B, 64, &vec![7; usize::from(mtu) - 27], true));
    assert_eq!(sites.at_host_b().len(), 0, "one of {} does not", mtu + 1);
    assert!(sites.outer().iter().all(|frame| frame.len() <= 1514));
    sites.account();
}

#[test]
fn a_long_packet_without_df_is_fragmented_before_encryption() {
    let mut sites = Sites::new("aws-lc-rs");
    let packet = udp(HOST_A, HOST_B, 64, &(0..1472u32).map(|i| i as u8).collect::<Vec<_>>(), false);
    sites.host_a_sends(&packet);
    let fragments = sites.at_host_b();
    assert_eq!(fragments.len(), 2);
    let mut whole = vec![0; 1480];
    for fragment in &fragments {
        let fragment = ipv4::parse(fragment).unwrap();
        let at = fragment.header.fragment_offset();
        whole[at..at + fragment.payload.len()].copy_from_slice(fragment.payload);
    }
    assert_eq!(whole, ipv4::parse(&packet).unwrap().payload);
    assert_eq!(sites.a.counter(Counter::Fragmented), 1);
    assert_eq!(sites.a.counter(Counter::Created), 1);
    sites.account();
}

#[test]
fn traceroute_sees_both_gateways() {
    let mut sites = Sites::new("aws-lc-rs");
    sites.host_a_sends(&udp(HOST_A, HOST_B, 1, b"first hop", false));
    let first = sites.at_host_a();
    assert_eq!(ipv4::parse(&first[0]).unwrap().header.source_addr().octets(), VIRTUAL_A_INSIDE);
    sites.host_a_sends(&udp(HOST_A, HOST_B, 2, b"second hop", false));
    let second = sites.at_host_a();
    let second = ipv4::parse(&second[0]).unwrap();
    assert_eq!(second.header.source_addr().octets(), VIRTUAL_B_INSIDE);
    assert_eq!(icmp::parse(second.payload).unwrap().0.kind, 11);
    sites.account();
}

#[test]
fn the_far_virtual_address_answers_a_ping_through_the_tunnel() {
    let mut sites = Sites::new("aws-lc-rs");
    sites.host_a_sends(&icmp_echo(HOST_A, VIRTUAL_B_INSIDE));
    let answers = sites.at_host_a();
    assert_eq!(answers.len(), 1);
    let answer = ipv4::parse(&answers[0]).unwrap();
    assert_eq!(answer.header.source_addr().octets(), VIRTUAL_B_INSIDE);
    assert_eq!(icmp::parse(answer.payload).unwrap().0.kind, 0);
    assert_eq!(sites.b.slow_counts().counters[SlowCounter::EchoReplies as usize], 1);
    sites.account();
}

#[test]
fn arp_for_a_virtual_address_is_answered_with_the_virtual_mac_and_other_arp_is_not() {
    let mut sites = Sites::new("aws-lc-rs");
    sites.inject_frame_a(&sites::arp_request(HOST_A, VIRTUAL_A_INSIDE));
    sites.inject_frame_a(&sites::arp_request(HOST_A, [10, 1, 0, 77]));
    sites.settle();
    let frames = sites.frames_at_host_a();
    assert_eq!(frames.len(), 1);
    assert_eq!(frames[0][22..28], sites::VIRTUAL_MAC.0);
    assert_eq!(frames[0][28..32], VIRTUAL_A_INSIDE);
    assert_eq!(sites.a.dropped(DropReason::ArpInvalid), 1);
    sites.account();
}

#[test]
fn a_packet_waits_for_its_neighbour_and_is_dropped_by_name_when_none_answers() {
    let mut sites = Sites::new("aws-lc-rs");
    let unknown = [10, 2, 0, 88];
    sites.host_a_sends(&udp(HOST_A, unknown, 64, b"hello?", false));
    assert_eq!(sites.b.asked(), [(0, u32::from_be_bytes(unknown))]);
    assert_eq!(sites.b.slow_counts().counters[SlowCounter::Held as usize], 1);
    sites.add_neighbour_b(unknown);
    sites.settle();
    assert_eq!(sites.at_host_b().len(), 1);
    sites.host_a_sends(&udp(HOST_A, [10, 2, 0, 89], 64, b"nobody", false));
    sites.b.advance(std::time::Duration::from_secs(5));
    sites.settle();
    assert!(sites.at_host_b().is_empty());
    assert_eq!(sites.b.dropped(DropReason::NeighbourUnresolved), 1);
    sites.account();
}

#[test]
fn the_mss_of_a_syn_is_lowered_so_that_segments_fit_into_the_tunnel() {
    let mut sites = Sites::new("aws-lc-rs");
    sites.host_a_sends(&tcp_syn(HOST_A, HOST_B, 1460));
    let arrived = sites.at_host_b();
    let segment = tandem_wire::tcp::parse(ipv4::parse(&arrived[0]).unwrap().payload).unwrap();
    let mss = segment.mss().unwrap();
    assert_eq!(usize::from(mss) + 40, tandem_esp::SaOut::max_inner(1500));
    assert!(segment.checksum_ok(u32::from_be_bytes(HOST_A), u32::from_be_bytes(HOST_B)));
    sites.account();
}

#[test]
fn no_frame_is_lost_to_the_gateway_under_garbage() {
    let mut sites = Sites::new("aws-lc-rs");
    sites.host_a_sends(&udp(HOST_A, HOST_B, 64, b"first", false));
    let outer = sites.outer();
    let before = sites.b.free_frames().len();
    for len in 0..outer[0].len() {
        sites.inject_outside_b(&outer[0][..len]);
        sites.inject_frame_a(&outer[0][..len]);
        sites.settle();
    }
    assert_eq!(sites.at_host_b().len(), 1, "only the first");
    assert_eq!(sites.b.free_frames().len(), before);
    sites.account();
}

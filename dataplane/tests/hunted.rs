//! Sequences that once broke a gateway. Over memory, as in `site_to_site.rs`.

mod sites;

use sites::{
    FAR_MAC, HOST_A, HOST_B, INSIDE, OUTSIDE, OUTSIDE_A, Sites, VIRTUAL_A_INSIDE, VIRTUAL_B_INSIDE,
    icmp_echo, udp,
};
use tandem_api::counters::{Counter, DropReason};
use tandem_api::dataplane::{MESSAGE_MAX, Policy, PolicyAction, encode};
use tandem_api::types::{Direction, KeyFingerprint, KeyMaterial, Selector};
use tandem_dataplane::fib::{Kernel, Route, RouteKey};
use tandem_dataplane::sa_table::{InstallError, SaAdmin, SaTable};
use tandem_shm::{Domain, HotState};

/// A route at a gateway.
fn route(kernel: &mut Kernel, prefix: &str, ifindex: u32, gateway: [u8; 4]) {
    let prefix = prefix.parse::<ipnet::Ipv4Net>().unwrap().into();
    let gateway = Some(u32::from_be_bytes(gateway));
    kernel.routes.insert(RouteKey { prefix, metric: 0, tag: 0 }, Route::Via { ifindex, gateway });
}

fn policy(local: &str, remote: &str, priority: u32, action: PolicyAction) -> Policy {
    let selector = Selector { local: local.parse().unwrap(), remote: remote.parse().unwrap() };
    Policy { name: format!("p{priority}"), priority, selector, action }
}

/// Frames on the wire between the gateways that are not ESP.
fn clear(sites: &mut Sites) -> Vec<Vec<u8>> {
    sites.outer().into_iter().filter(|frame| frame[14 + 9] != 50).collect()
}

/// Does a packet of host A arrive at host B?
fn passes(sites: &mut Sites) -> bool {
    sites.host_a_sends(&udp(HOST_A, HOST_B, 64, b"still there?", false));
    sites.at_host_b().len() == 1
}

#[test]
fn a_peer_that_moves_to_another_address_and_back_keeps_its_sa_and_its_numbers() {
    let mut sites = Sites::new("aws-lc-rs");
    assert!(passes(&mut sites));
    let mut moved = Sites::sas_a();
    moved.iter_mut().for_each(|sa| sa.peer = [192, 0, 2, 77].into());
    sites.a.install(2, &moved).unwrap();
    sites.a.sweep(2);
    assert_eq!(sites.a.sas().len(), 2);
    sites.host_a_sends(&udp(HOST_A, HOST_B, 64, b"to where it is now", false));
    let outbound = sites.a.sas().into_iter().find(|sa| sa.direction == Direction::Outbound).unwrap();
    assert_eq!((outbound.sequence, outbound.packets), (2, 2), "the SA serves its policy");
    sites.a.install(3, &Sites::sas_a()).unwrap();
    sites.a.sweep(3);
    sites.outer();
    assert!(passes(&mut sites));
    assert_eq!(sites.outer()[0][14 + 20 + 4..14 + 20 + 8], 3u32.to_be_bytes());
}

#[test]
fn an_sa_serves_its_policy_again_when_its_successor_is_taken_back() {
    let mut sites = Sites::new("aws-lc-rs");
    let mut rekeyed = Sites::sas_a();
    rekeyed[0].spi = 0x3001;
    rekeyed[0].key = KeyMaterial::new(vec![9; 20]);
    rekeyed[0].fingerprint = KeyFingerprint(9);
    // A change whose second half never came (refused, or control was killed), then the old state again.
    sites.a.install(2, &rekeyed).unwrap();
    assert_eq!(sites.a.install(3, &Sites::sas_a()).unwrap().unchanged, 2);
    assert_eq!(sites.a.sweep(3).count, 1);
    assert!(passes(&mut sites));
}

#[test]
fn what_would_use_nonces_of_a_key_again_is_refused() {
    let mut sites = Sites::new("aws-lc-rs");
    let mut raised = Sites::sas_a();
    raised[0].base_term = 1;
    let error = sites.a.install(2, &raised).unwrap_err();
    assert_eq!(error, InstallError::BaseTerm { spi: raised[0].spi, now: 0, wanted: 1 });
    let mut nameless = Sites::sas_a();
    nameless[0].fingerprint = KeyFingerprint(0);
    assert_eq!(sites.a.install(2, &nameless).unwrap_err(), InstallError::Fingerprint(nameless[0].spi));
    let mut shared = Sites::sas_a();
    let mut other = shared[0].clone();
    other.peer = [192, 0, 2, 77].into();
    shared.push(other);
    assert!(matches!(sites.a.install(2, &shared), Err(InstallError::Twice { .. })));
    assert!(passes(&mut sites), "nothing has changed");
}

#[test]
fn an_icmp_error_takes_nothing_out_of_a_tunnel_in_clear() {
    // No address of B lies in the selectors, so no tunnel carries its ICMP errors.
    let mut sites = Sites::with_b("10.2.0.0/24", "10.2.0.8/29", &[]);
    sites.change_kernel_b(|kernel| route(kernel, "0.0.0.0/0", OUTSIDE, OUTSIDE_A));
    sites.host_a_sends(&udp(HOST_A, HOST_B, 2, b"expires at B, and is secret", false));
    assert_eq!(sites.b.dropped(DropReason::TtlExpired), 1);
    assert_eq!(clear(&mut sites), Vec::<Vec<u8>>::new());
    assert_eq!(sites.b.dropped(DropReason::PolicyNone), 1);
    sites.account();
}

#[test]
fn a_packet_that_waited_leaves_by_the_interface_that_it_waited_for() {
    let mut sites = Sites::new("aws-lc-rs");
    let router = [172, 16, 0, 1];
    sites.change_kernel_b(|kernel| {
        // The way to the router itself (`onlink`) is not in the table; the default route leads outside.
        route(kernel, "10.2.0.0/24", INSIDE, router);
        route(kernel, "0.0.0.0/0", OUTSIDE, OUTSIDE_A);
        kernel.neighbours.remove(&(INSIDE, u32::from_be_bytes(HOST_B)));
    });
    sites.host_a_sends(&udp(HOST_A, HOST_B, 64, b"secret", false));
    assert_eq!(sites.b.asked(), [(0, u32::from_be_bytes(router))]);
    sites.change_kernel_b(|kernel| {
        kernel.neighbours.insert((INSIDE, u32::from_be_bytes(router)), FAR_MAC);
    });
    sites.settle();
    assert_eq!(clear(&mut sites), Vec::<Vec<u8>>::new());
    assert_eq!(sites.at_host_b().len(), 1);
    sites.account();
}

#[test]
fn a_packet_that_waited_is_dropped_where_its_route_has_moved_outside() {
    let mut sites = Sites::new("aws-lc-rs");
    sites.change_kernel_b(|kernel| {
        kernel.neighbours.remove(&(INSIDE, u32::from_be_bytes(HOST_B)));
    });
    sites.host_a_sends(&udp(HOST_A, HOST_B, 64, b"secret", false));
    sites.change_kernel_b(|kernel| {
        kernel.neighbours.insert((INSIDE, u32::from_be_bytes(HOST_B)), FAR_MAC);
        kernel.routes.retain(|_, route| !matches!(route, Route::Via { ifindex: INSIDE, .. }));
        route(kernel, "0.0.0.0/0", OUTSIDE, OUTSIDE_A);
    });
    sites.settle();
    assert_eq!(clear(&mut sites), Vec::<Vec<u8>>::new());
    assert_eq!(sites.b.dropped(DropReason::NeighbourUnresolved), 1);
    sites.account();
}

#[test]
fn from_one_tunnel_into_another_takes_no_route_to_the_network_behind_it() {
    let spokes = policy("10.1.0.0/24", "10.3.0.0/24", 50, PolicyAction::Protect { policy: 4 });
    let mut sites = Sites::with_b("10.2.0.0/15", "10.2.0.0/15", std::slice::from_ref(&spokes));
    let mut to_c = Sites::sas_a().remove(0);
    (to_c.spi, to_c.policy, to_c.selectors) = (0x4001, 4, vec![spokes.selector]);
    (to_c.local, to_c.peer) = ([192, 0, 2, 2].into(), OUTSIDE_A.into());
    (to_c.key, to_c.fingerprint) = (KeyMaterial::new(vec![4; 20]), KeyFingerprint(4));
    sites.b.install(1, &[to_c]).unwrap();
    sites.host_a_sends(&udp(HOST_A, [10, 3, 0, 10], 64, b"to the other spoke", false));
    assert_eq!(sites.b.counter(Counter::Encapsulated), 1);
    sites.host_a_sends(&udp(HOST_A, [10, 2, 1, 1], 64, b"to nowhere", false));
    assert_eq!(sites.b.dropped(DropReason::NoRoute), 1);
    sites.account();
}

#[test]
fn a_discard_policy_holds_for_what_comes_out_of_a_tunnel_too() {
    let discard = policy("10.2.0.0/24", "10.1.0.10/32", 10, PolicyAction::Discard);
    let mut sites = Sites::with_b("10.2.0.0/24", "10.2.0.0/24", &[discard]);
    assert!(!passes(&mut sites));
    assert_eq!(sites.b.dropped(DropReason::PolicyDiscard), 1);
    sites.host_a_sends(&udp([10, 1, 0, 11], HOST_B, 64, b"another host", false));
    assert_eq!(sites.at_host_b().len(), 1);
    sites.account();
}

#[test]
fn sas_of_many_selectors_are_listed_in_pages_that_fit_into_a_message() {
    let domain = Domain::new(1);
    let (hot, mut publisher) = (HotState::create(64).unwrap(), domain.publisher().unwrap());
    let (mut admin, table) = (SaAdmin::new(&hot), SaTable::new(64, &domain));
    let provider = tandem_aead::provider("aws-lc-rs").unwrap();
    for number in 1..=60 {
        let mut sa = Sites::sas_a().remove(0);
        (sa.spi, sa.fingerprint, sa.map) = (0x1000 + number, KeyFingerprint(number.into()), "m".repeat(63));
        sa.selectors = vec![sa.selectors[0]; 256];
        admin.install(1, &[sa], provider.as_ref(), &table, &hot, &mut publisher).unwrap();
    }
    let (mut listed, mut from) = (0, Some(0));
    while let Some(at) = from {
        let (page, next) = admin.page(at, &hot);
        assert!(!page.is_empty() && encode(&page).unwrap().len() < MESSAGE_MAX - 64);
        listed += page.len();
        from = next;
    }
    assert_eq!(listed, 60);
}

#[test]
fn a_frame_with_a_priority_tag_is_one_without_a_tag_and_every_other_tag_is_dropped() {
    let mut sites = Sites::new("aws-lc-rs");
    let tagged = |frame: &[u8], tags: &[[u8; 4]]| [&frame[..12], &tags.concat(), &frame[12..]].concat();
    let priority = [0x81, 0, 0xe0, 0];
    let packet = sites::ethernet(&udp(HOST_A, HOST_B, 64, b"with priority", false));
    let arp = sites::arp_request(HOST_A, VIRTUAL_A_INSIDE);
    for frame in [&packet, &arp] {
        sites.inject_frame_a(&tagged(frame, &[priority]));
        for tags in [&[[0x81, 0, 0xe0, 7]][..], &[priority, priority]] {
            sites.inject_frame_a(&tagged(frame, tags));
        }
    }
    for len in 0..18 {
        sites.inject_frame_a(&tagged(&packet, &[priority])[..len]);
    }
    sites.settle();
    assert_eq!(sites.at_host_b().len(), 1);
    assert_eq!(sites.frames_at_host_a().len(), 1, "the answer to ARP");
    assert_eq!(sites.a.dropped(DropReason::NotIpv4), 4 + 4, "tags, and tags cut short");
    sites.account();
}

#[test]
fn a_forged_ping_in_clear_from_outside_puts_nothing_into_the_tunnel() {
    let mut sites = Sites::new("aws-lc-rs");
    sites.inject_outside_b(&sites::ethernet(&icmp_echo(HOST_A, VIRTUAL_B_INSIDE)));
    sites.settle();
    assert!(sites.outer().is_empty() && sites.at_host_a().is_empty());
    assert_eq!(sites.b.dropped(DropReason::PolicyClearInbound), 1);
    // From where no policy protects, the address outside answers.
    sites.inject_outside_b(&sites::ethernet(&icmp_echo(OUTSIDE_A, [192, 0, 2, 2])));
    sites.settle();
    assert_eq!(clear(&mut sites).len(), 1);
    sites.account();
}

#[test]
fn a_bypass_for_everything_lets_nothing_out_of_a_tunnel_that_is_for_a_network_of_ours() {
    let any = policy("0.0.0.0/0", "0.0.0.0/0", 900, PolicyAction::Bypass);
    let mut sites = Sites::with_b("10.2.0.0/24", "10.2.0.0/24", std::slice::from_ref(&any));
    let lose_inside = |kernel: &mut Kernel| {
        kernel.routes.retain(|_, route| !matches!(route, Route::Via { ifindex: INSIDE, .. }));
        kernel.neighbours.remove(&(INSIDE, u32::from_be_bytes(HOST_B)));
        route(kernel, "0.0.0.0/0", OUTSIDE, OUTSIDE_A);
    };
    sites.change_kernel_b(lose_inside);
    sites.host_a_sends(&udp(HOST_A, HOST_B, 64, b"secret", false));
    assert_eq!(clear(&mut sites).len(), 0);
    assert_eq!(sites.b.dropped(DropReason::NoRoute), 1);
    sites.account();
    // A hub through which the other site reaches everything is meant to let it out.
    let mut sites = Sites::with_b("10.2.0.0/15", "0.0.0.0/0", &[any]);
    sites.change_kernel_b(|kernel| route(kernel, "0.0.0.0/0", OUTSIDE, OUTSIDE_A));
    sites.host_a_sends(&udp(HOST_A, [10, 3, 0, 1], 64, b"to the world", false));
    assert_eq!(clear(&mut sites).len(), 1);
    sites.account();
}

//! Sequences that once broke a gateway. Over memory, as in `site_to_site.rs`.

#[allow(dead_code)] // shared with another test
mod sites;

use sites::{HOST_A, HOST_B, Sites, udp};
use tandem_api::types::{Direction, KeyFingerprint, KeyMaterial};
use tandem_dataplane::sa_table::InstallError;

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
    assert_eq!(sites.a.sweep(3), 1);
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

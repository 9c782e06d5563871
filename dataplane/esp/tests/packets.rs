//! Whole packets: sealed by one provider and opened by another, compared with an independent implementation, and
//! every way to be wrong.

use std::sync::atomic::Ordering::Relaxed;

use proptest::prelude::*;
use tandem_aead::{Algorithm, PROVIDERS, Provider, provider};
use tandem_esp::{
    FinishError, Iv, IvSource, PrepareError, SaIn, SaInConfig, SaOut, SaOutConfig, SelectorRange, Truncated,
};
use tandem_shm::HotState;
use tandem_wire::ipv4;

const SPI: u32 = 0x8030_0005;
const LOCAL: [u8; 4] = [192, 0, 2, 1];
const PEER: [u8; 4] = [192, 0, 2, 2];

/// Key and salt of 0, 1, 2, .. as RFC 4106 section 8.1 has them in one piece.
fn keymat(algorithm: Algorithm) -> (Vec<u8>, [u8; 4]) {
    let len = algorithm.key_len() as u8;
    ((0..len).collect(), [len, len + 1, len + 2, len + 3])
}

fn sa_out(provider: &dyn Provider, algorithm: Algorithm) -> SaOut {
    let (key, salt) = keymat(algorithm);
    let key = provider.key(algorithm, &key).expect("the right length");
    let (local, peer) = (LOCAL.into(), PEER.into());
    SaOut::new(SaOutConfig { spi: SPI, slot: 5, policy: 9, local, peer, salt, base_term: 0, key })
}

fn sa_in(provider: &dyn Provider, algorithm: Algorithm, selectors: Vec<SelectorRange>) -> SaIn {
    let (key, salt) = keymat(algorithm);
    let key = provider.key(algorithm, &key).expect("the right length");
    let (local, peer) = (PEER.into(), LOCAL.into());
    SaIn::new(SaInConfig { spi: SPI, slot: 5, policy: 9, local, peer, salt, key, selectors })
}

fn named(name: &str) -> Box<dyn Provider> {
    provider(name).expect("listed")
}

/// The node's counters, with this IV next.
struct Ivs(HotState);

impl Ivs {
    fn new() -> Self {
        Ivs(HotState::create(1).expect("a memfd"))
    }

    fn exactly(&self, iv: u64) -> Iv {
        self.0.header().term.store(iv >> 48, Relaxed);
        self.0.header().node_counter.store(iv & ((1 << 48) - 1), Relaxed);
        IvSource::new().next(self.0.header(), 0).expect("within the counter")
    }
}

/// An IPv4 packet of `len` octets.
fn inner(len: usize, tos: u8, dont_fragment: bool) -> Vec<u8> {
    let mut packet: Vec<u8> = (0..len).map(|at| (at * 31 + len) as u8).collect();
    let fields = ipv4::Fields {
        tos,
        total_length: len as u16,
        identification: 0x1234,
        dont_fragment,
        ttl: 63,
        protocol: 17,
        source: [10, 1, 0, 2].into(),
        destination: [10, 2, 0, 2].into(),
    };
    ipv4::write_header(&mut packet, &fields).expect("at least 20 octets");
    packet
}

/// A buffer as the data plane has it: stale octets around the inner packet.
fn around(inner: &[u8]) -> Vec<u8> {
    let mut buf = vec![0xee; SaOut::outer_len(inner.len())];
    buf[SaOut::FRONT..][..inner.len()].copy_from_slice(inner);
    buf
}

fn seal(provider: &mut dyn Provider, sa: &SaOut, inner: &[u8], sequence: u64, iv: Iv) -> Vec<u8> {
    let mut buf = around(inner);
    let job = sa.prepare(&mut buf, sequence, iv).expect("a packet");
    provider.seal(&mut [job]);
    buf
}

/// The inner packet, where all is right.
fn open(provider: &mut dyn Provider, sa: &SaIn, outer: &[u8]) -> Option<Result<Vec<u8>, FinishError>> {
    let mut esp = outer[ipv4::HEADER_LEN..].to_vec();
    let job = sa.prepare(&mut esp).ok()?;
    if !provider.open(&mut [job]).is_authentic(0) {
        return None;
    }
    Some(SaIn::finish(&esp).map(|range| esp[range].to_vec()))
}

#[test]
fn every_length_crosses_between_the_providers() {
    let ivs = Ivs::new();
    for (sealer, opener) in [(0, 1), (1, 0)] {
        let (mut sealer, mut opener) = (named(PROVIDERS[sealer]), named(PROVIDERS[opener]));
        for algorithm in [Algorithm::Aes128Gcm, Algorithm::Aes256Gcm] {
            let (out, into) = (sa_out(&*sealer, algorithm), sa_in(&*opener, algorithm, vec![]));
            for len in 20..=1500 {
                let (tos, dont_fragment, sequence) = (len as u8, len % 3 == 0, 0xffff_0000 + len as u64);
                let inner = inner(len, tos, dont_fragment);
                let iv = 0x7000_0000_0000 + len as u64;
                let outer = seal(&mut *sealer, &out, &inner, sequence, ivs.exactly(iv));
                let context = format!("{algorithm:?} {len}");

                let packet = ipv4::parse(&outer).expect(&context);
                assert!(packet.header_checksum_ok(), "{context}");
                assert_eq!(packet.total_len(), outer.len(), "{context}");
                assert_eq!(outer.len(), SaOut::outer_len(len), "{context}");
                let header = packet.header;
                assert_eq!(header.version_ihl, 0x45, "{context}");
                assert_eq!((header.source_addr(), header.destination_addr()), (LOCAL.into(), PEER.into()));
                assert_eq!((header.ttl, header.protocol, header.tos), (64, 50, tos), "{context}");
                assert_eq!(
                    (header.dont_fragment(), header.is_fragment()),
                    (dont_fragment, false),
                    "{context}"
                );
                let identification = if dont_fragment { 0 } else { sequence as u16 };
                assert_eq!(header.identification.get(), identification, "{context}");

                let esp = packet.payload;
                assert_eq!(esp[..4], SPI.to_be_bytes(), "{context}");
                assert_eq!(SaIn::sequence(esp), Some(sequence as u32), "{context}");
                assert_eq!(esp[8..16], iv.to_be_bytes(), "{context}");
                assert_eq!((esp.len() - 16 - 16) % 4, 0, "{context}: pad length and next header are aligned");
                assert_eq!(open(&mut *opener, &into, &outer), Some(Ok(inner)), "{context}");
            }
        }
    }
}

#[test]
fn padding_is_one_two_three() {
    let ivs = Ivs::new();
    let mut provider = named(PROVIDERS[0]);
    let out = sa_out(&*provider, Algorithm::Aes128Gcm);
    let into = sa_in(&*provider, Algorithm::Aes128Gcm, vec![]);
    for (len, trailer) in
        [(22, vec![0, 4]), (21, vec![1, 1, 4]), (20, vec![1, 2, 2, 4]), (23, vec![1, 2, 3, 3, 4])]
    {
        let outer = seal(&mut *provider, &out, &inner(len, 0, false), 1, ivs.exactly(1));
        let mut esp = outer[20..].to_vec();
        assert!(provider.open(&mut [into.prepare(&mut esp).expect("long enough")]).is_authentic(0));
        assert_eq!(esp[16 + len..esp.len() - 16], trailer, "{len}");
        assert_eq!(SaOut::back(len), trailer.len() + 16);
    }
}

/// What an independent implementation makes of the same: scapy 2.5.0, with key and salt of octets 0, 1, 2, ..
/// in one piece:
///
/// ```python
/// s = SecurityAssociation(ESP, spi=0x80300005, seq_num=seq, crypt_algo="AES-GCM", crypt_key=bytes(range(n)),
///                         tunnel_header=outer)
/// bytes(s.encrypt(inner, iv=bytes.fromhex(iv)))
/// ```
struct Vector {
    algorithm: Algorithm,
    sequence: u64,
    iv: u64,
    inner: &'static str,
    outer: &'static str,
}

const SCAPY: [Vector; 2] = [
    // n = 20, seq = 7, iv = "0002000000000103", outer = IP(src="192.0.2.1", dst="192.0.2.2", id=7), inner =
    // IP(src="10.1.0.2", dst="10.2.0.2", id=1) / UDP(sport=5, dport=6) / Raw(b"seven gateways")
    Vector {
        algorithm: Algorithm::Aes128Gcm,
        sequence: 7,
        iv: 0x0002_0000_0000_0103,
        inner: "4500002a00010000401166bc0a0100020a020002000500060016c729736576656e206761746577617973",
        outer: "45000060000700004032f661c0000201c000020280300005000000070002000000000103\
                34de899022349862f98c5240aa11a4fab9cc8a2c1ee39c6b561d771a1b22a30c29cdbc19e79c724dbcc8306c\
                8006a2dd639ded6951587838bc849b20",
    },
    // n = 36, seq = 0xfffffffe, iv = "8000ffffffffffff", outer = IP(src="192.0.2.1", dst="192.0.2.2", id=0,
    // tos=0xb9, flags="DF"), inner = IP(src="10.1.0.2", dst="10.2.0.2", id=2, tos=0xb9, flags="DF")
    // / UDP(sport=5, dport=6) / Raw(b"an odd payload.")
    Vector {
        algorithm: Algorithm::Aes256Gcm,
        sequence: 0xffff_fffe,
        iv: 0x8000_ffff_ffff_ffff,
        inner: "45b9002b00024000401126010a0100020a02000200050006001787af616e206f6464207061796c6f61642e",
        outer: "45b90064000040004032b5abc0000201c000020280300005fffffffe8000ffffffffffff\
                f35588faa0ee94da5a5e105bf9e55f02fd30f46605c56eb8a9b691642a350f69d1990d5504e865912631239a\
                3ee9c1916a3922328da5655da30fd226a80a8143",
    },
];

#[test]
fn packets_are_those_of_an_independent_implementation() {
    let ivs = Ivs::new();
    for name in tandem_aead::available() {
        let mut provider = named(name);
        for Vector { algorithm, sequence, iv, inner, outer } in SCAPY {
            let (inner, outer) = (hex::decode(inner).expect("hex"), hex::decode(outer).expect("hex"));
            let out = sa_out(&*provider, algorithm);
            let sealed = seal(&mut *provider, &out, &inner, sequence, ivs.exactly(iv));
            assert_eq!(hex::encode(sealed), hex::encode(&outer), "{name} {algorithm:?}");
            let into = sa_in(&*provider, algorithm, vec![]);
            assert_eq!(open(&mut *provider, &into, &outer), Some(Ok(inner)), "{name} {algorithm:?}");
        }
    }
}

#[test]
fn what_cannot_be_sealed_is_refused_untouched() {
    let ivs = Ivs::new();
    let sa = sa_out(&*named(PROVIDERS[0]), Algorithm::Aes128Gcm);
    let refused = |buf: &[u8], sequence: u64| {
        let mut after = buf.to_vec();
        let error = sa.prepare(&mut after, sequence, ivs.exactly(1)).err().expect("refused");
        assert_eq!(after, buf, "nothing was written");
        error
    };
    let right = around(&inner(100, 0, false));
    for sequence in [0, 1 << 32, u64::MAX] {
        assert_eq!(refused(&right, sequence), PrepareError::Sequence(sequence));
    }
    let needed = right.len();
    for found in [needed - 1, needed - 4] {
        assert_eq!(refused(&right[..found], 1), PrepareError::Length { needed, found });
    }
    let mut longer = right.clone();
    longer.extend([0; 4]);
    assert_eq!(refused(&longer, 1), PrepareError::Length { needed, found: needed + 4 });
    let mut version_6 = right.clone();
    version_6[SaOut::FRONT] = 0x60;
    assert_eq!(refused(&version_6, 1), PrepareError::Inner(ipv4::ParseError::Version));
    for found in 0..SaOut::FRONT + 20 {
        assert_eq!(refused(&right[..found], 1), PrepareError::Inner(ipv4::ParseError::Truncated), "{found}");
    }
    // The inner packet is within 16 bits, what goes around it is not.
    let huge = around(&inner(65_535, 0, false));
    assert!(matches!(refused(&huge, 1), PrepareError::Length { .. }));
}

#[test]
fn longest_packet_of_an_mtu_fits_and_the_next_does_not() {
    for mtu in (0..=9216).chain(65_000..=70_000) {
        let len = SaOut::max_inner(mtu);
        if len == 0 {
            assert!(SaOut::outer_len(1) > mtu, "{mtu}");
        } else {
            assert!(SaOut::outer_len(len) <= mtu.min(65_535), "{mtu}");
        }
        assert!(SaOut::outer_len(len + 1) > mtu.min(65_535), "{mtu}");
    }
    assert_eq!(SaOut::max_inner(1500), 1446);
}

#[test]
fn too_short_packets_are_not_opened() {
    let sa = sa_in(&*named(PROVIDERS[0]), Algorithm::Aes128Gcm, vec![]);
    for found in 0..SaIn::SHORTEST {
        assert_eq!(sa.prepare(&mut vec![0; found]).err(), Some(Truncated { found }));
    }
    assert!(sa.prepare(&mut [0; SaIn::SHORTEST]).is_ok());
    assert_eq!(SaIn::SHORTEST, 34);
    for found in 0..8 {
        assert_eq!(SaIn::sequence(&vec![0; found]), None);
    }
}

/// An ESP packet as it is after opening, with this text.
fn opened(text: &[u8]) -> Vec<u8> {
    [&[0xaa; 16][..], text, &[0xbb; 16]].concat()
}

#[test]
fn wrong_trailers_are_told_apart() {
    let finish = |text: &[u8]| SaIn::finish(&opened(text));
    assert_eq!(finish(&[9, 9, 0, 4]), Ok(16..18));
    assert_eq!(finish(&[9, 9, 1, 2, 2, 4]), Ok(16..18));
    assert_eq!(finish(&[0, 4]), Ok(16..16), "an empty packet is the parser's to refuse");
    assert_eq!(finish(&[9, 9, 1, 3, 2, 4]), Err(FinishError::BadPadding));
    assert_eq!(finish(&[9, 9, 0, 0, 2, 4]), Err(FinishError::BadPadding));
    assert_eq!(finish(&[9, 2, 4]), Err(FinishError::BadPadding), "padding longer than the packet");
    assert_eq!(finish(&[9, 9, 1, 2, 2, 41]), Err(FinishError::NextHeader(41)));
    assert_eq!(finish(&[9, 9, 1, 2, 2, 59]), Err(FinishError::Dummy));
    assert_eq!(finish(&[9, 9, 7, 2, 2, 59]), Err(FinishError::BadPadding), "also in a dummy");
    assert_eq!(finish(&[4]), Err(FinishError::BadPadding));
    let longest: Vec<u8> = (1..=255).chain([255, 4]).collect();
    assert_eq!(finish(&longest), Ok(16..16));
}

#[test]
fn packet_of_another_sa_is_not_authentic() {
    let ivs = Ivs::new();
    let mut provider = named(PROVIDERS[0]);
    let out = sa_out(&*provider, Algorithm::Aes128Gcm);
    let into = sa_in(&*provider, Algorithm::Aes128Gcm, vec![]);
    let packet = seal(&mut *provider, &out, &inner(64, 0, false), 5, ivs.exactly(1));
    assert!(open(&mut *provider, &into, &packet).is_some());
    // The sequence number and the IV are authenticated; the SPI is the SA's own, which found it by the packet's.
    for at in 24..packet.len() {
        let mut touched = packet.clone();
        touched[at] ^= 1;
        assert_eq!(open(&mut *provider, &into, &touched), None, "octet {at}");
    }
    let (key, mut salt) = keymat(Algorithm::Aes128Gcm);
    let with = |spi: u32, salt: [u8; 4]| {
        let key = named(PROVIDERS[0]).key(Algorithm::Aes128Gcm, &key).expect("16 octets");
        let (local, peer) = (PEER.into(), LOCAL.into());
        SaIn::new(SaInConfig { spi, slot: 5, policy: 9, local, peer, salt, key, selectors: vec![] })
    };
    assert!(open(&mut *provider, &with(SPI, salt), &packet).is_some());
    assert_eq!(open(&mut *provider, &with(SPI + 1, salt), &packet), None);
    salt[3] ^= 1;
    assert_eq!(open(&mut *provider, &with(SPI, salt), &packet), None);
}

#[test]
fn an_sa_says_what_it_was_made_of() {
    let provider = named(PROVIDERS[0]);
    let out = sa_out(&*provider, Algorithm::Aes256Gcm);
    assert_eq!((out.spi(), out.slot(), out.policy(), out.base_term()), (SPI, 5, 9, 0));
    assert_eq!((out.local(), out.peer()), (LOCAL.into(), PEER.into()));
    let into = sa_in(&*provider, Algorithm::Aes256Gcm, vec![]);
    assert_eq!((into.spi(), into.slot(), into.policy()), (SPI, 5, 9));
    assert_eq!((into.local(), into.peer()), (PEER.into(), LOCAL.into()));
}

#[test]
fn inner_addresses_are_held_to_the_selectors() {
    let provider = named(PROVIDERS[0]);
    let range = |source: u32, destination: u32| SelectorRange {
        source_first: source,
        source_last: source + 9,
        destination_first: destination,
        destination_last: destination + 4,
    };
    let none = sa_in(&*provider, Algorithm::Aes128Gcm, vec![]);
    let one = sa_in(&*provider, Algorithm::Aes128Gcm, vec![range(100, 200)]);
    let three =
        sa_in(&*provider, Algorithm::Aes128Gcm, vec![range(100, 200), range(300, 400), range(300, 500)]);
    for source in 90..320 {
        for destination in 190..520 {
            let within = |s: u32, d: u32| (s..s + 10).contains(&source) && (d..d + 5).contains(&destination);
            assert!(!none.permits(source, destination));
            assert_eq!(one.permits(source, destination), within(100, 200));
            let any = within(100, 200) || within(300, 400) || within(300, 500);
            assert_eq!(three.permits(source, destination), any);
        }
    }
    for address in [0, 1, u32::MAX] {
        assert!(!none.permits(address, address));
    }
    let all = SelectorRange {
        source_first: 0,
        source_last: u32::MAX,
        destination_first: 0,
        destination_last: u32::MAX,
    };
    let all = sa_in(&*provider, Algorithm::Aes128Gcm, vec![all]);
    assert!(all.permits(0, u32::MAX) && all.permits(u32::MAX, 0));
}

proptest! {
    /// Whatever arrives: nothing panics, nothing is authentic, and a range lies within the packet.
    #[test]
    fn hostile_octets_do_no_harm(mut esp in proptest::collection::vec(any::<u8>(), 0..200)) {
        if let Ok(range) = SaIn::finish(&esp) {
            prop_assert!(range.start == 16 && range.end + 18 <= esp.len());
        }
        let _ = SaIn::sequence(&esp);
        let mut provider = named(PROVIDERS[0]);
        let sa = sa_in(&*provider, Algorithm::Aes128Gcm, vec![]);
        if let Ok(job) = sa.prepare(&mut esp) {
            prop_assert!(!provider.open(&mut [job]).is_authentic(0));
        }
    }

    /// Any buffer with any header inside is refused or sealed whole.
    #[test]
    fn hostile_inner_packets_do_no_harm(
        mut buf in proptest::collection::vec(any::<u8>(), 0..200),
        total in 0..200u16,
        version in prop_oneof![Just(0x45), any::<u8>()],
        sequence in any::<u32>(),
    ) {
        if let Some(header) = buf.get_mut(SaOut::FRONT..SaOut::FRONT + 4) {
            header[0] = version;
            header[2..].copy_from_slice(&total.to_be_bytes());
        }
        let len = buf.len();
        let sa = sa_out(&*named("aes-gcm"), Algorithm::Aes128Gcm);
        if let Ok(job) = sa.prepare(&mut buf, sequence.into(), Ivs::new().exactly(1)) {
            prop_assert_eq!(job.text.len() + SaOut::FRONT + 16, len);
            prop_assert!(ipv4::parse(&buf).is_ok_and(|packet| packet.header_checksum_ok()));
        }
    }
}

//! One suite that every provider passes: Wycheproof and McGrew-Viega vectors, comparison with the reference at
//! every length, segments of every shape, bursts of every size, and refusal of everything that was touched.

use proptest::prelude::*;
use tandem_aead::{
    Aad, Algorithm, BURST, Key, KeyError, MAX_AAD, MAX_GATHERED, MAX_SEGMENTS, OpenJob, PROVIDERS, Provider,
    ProviderError, SealJob, Segments, Verdicts, available, provider,
};
use wycheproof::TestResult;
use wycheproof::aead::{TestName, TestSet};

/// The oracle that the others are compared with.
const REFERENCE: &str = "aes-gcm";

const ALGORITHMS: [Algorithm; 2] = [Algorithm::Aes128Gcm, Algorithm::Aes256Gcm];

fn each_provider(mut check: impl FnMut(&mut dyn Provider)) {
    assert!(available().count() >= 2, "a comparison needs two");
    for name in PROVIDERS {
        match provider(name) {
            Ok(mut provider) => {
                assert_eq!(provider.name(), *name);
                check(&mut *provider);
            }
            Err(ProviderError::Unsupported { .. }) => eprintln!("this CPU cannot run {name}: not tested"),
            Err(error) => panic!("{error}"),
        }
    }
}

/// Octets that differ from place to place and from seed to seed.
fn octets(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..len)
        .map(|_| {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (state >> 56) as u8
        })
        .collect()
}

fn nonce(seed: u64) -> [u8; 12] {
    octets(12, seed).try_into().expect("12 octets")
}

fn key(provider: &dyn Provider, algorithm: Algorithm, seed: u64) -> Key {
    provider.key(algorithm, &octets(algorithm.key_len(), seed)).expect("a key of the right length")
}

fn seal(
    provider: &mut dyn Provider,
    key: &Key,
    nonce: [u8; 12],
    aad: Aad,
    text: &[u8],
) -> (Vec<u8>, [u8; 16]) {
    let (mut text, mut tag) = (text.to_vec(), [0; 16]);
    let text_job = Segments::one(&mut text);
    provider.seal(&mut [SealJob { key, nonce, aad, text: text_job, tag: &mut tag }]);
    (text, tag)
}

/// The plaintext, where it is authentic.
fn open(
    provider: &mut dyn Provider,
    key: &Key,
    nonce: [u8; 12],
    aad: Aad,
    text: &[u8],
    tag: &[u8; 16],
) -> Option<Vec<u8>> {
    let mut text = text.to_vec();
    let verdicts = provider.open(&mut [OpenJob { key, nonce, aad, text: Segments::one(&mut text), tag }]);
    assert!(verdicts.bits() <= 1, "one job, one bit");
    verdicts.is_authentic(0).then_some(text)
}

#[test]
fn wycheproof_vectors_hold() {
    let set = TestSet::load(TestName::AesGcm).expect("the vectors are part of the crate");
    each_provider(|provider| {
        let (mut valid, mut invalid, mut long_aad, mut other) = (0, 0, 0, 0);
        for group in &set.test_groups {
            let algorithm = match (group.key_size, group.nonce_size, group.tag_size) {
                (128, 96, 128) => Algorithm::Aes128Gcm,
                (256, 96, 128) => Algorithm::Aes256Gcm,
                _ => {
                    other += group.tests.len();
                    continue;
                }
            };
            for test in &group.tests {
                let Some(aad) = Aad::new(&test.aad) else {
                    assert!(test.aad.len() > MAX_AAD);
                    long_aad += 1;
                    continue;
                };
                let context = format!("{} tcId {}: {}", provider.name(), test.tc_id, test.comment);
                let key = provider.key(algorithm, &test.key).expect("a key of the right length");
                let nonce = test.nonce[..].try_into().expect("96 bits");
                let tag: [u8; 16] = test.tag[..].try_into().expect("128 bits");
                let opened = open(provider, &key, nonce, aad, &test.ct, &tag);
                let sealed = seal(provider, &key, nonce, aad, &test.pt);
                match test.result {
                    TestResult::Valid => {
                        assert_eq!(opened.as_deref(), Some(&test.pt[..]), "{context}");
                        assert_eq!(sealed, (test.ct.to_vec(), tag), "{context}");
                        valid += 1;
                    }
                    TestResult::Invalid => {
                        assert_eq!(opened, None, "{context}");
                        assert_ne!(sealed, (test.ct.to_vec(), tag), "{context}");
                        invalid += 1;
                    }
                    TestResult::Acceptable => panic!("{context}: neither valid nor invalid"),
                }
            }
        }
        // Of 316: 133 have our key, nonce and tag sizes; 26 of them authenticate more than a packet of ESP can.
        assert_eq!((valid + invalid, long_aad, other), (107, 26, 183), "{}", provider.name());
        assert!(invalid >= 30, "{}: {invalid} forgeries", provider.name());
    });
}

/// McGrew and Viega, "The Galois/Counter Mode of Operation", appendix B: the cases of our sizes, of which no
/// other has additional data of at most 16 octets. Key, nonce, plaintext, ciphertext, tag.
const MCGREW_VIEGA: &[(&str, &str, &str, &str, &str)] = &[
    (
        "00000000000000000000000000000000",
        "000000000000000000000000",
        "",
        "",
        "58e2fccefa7e3061367f1d57a4e7455a",
    ),
    (
        "00000000000000000000000000000000",
        "000000000000000000000000",
        "00000000000000000000000000000000",
        "0388dace60b6a392f328c2b971b2fe78",
        "ab6e47d42cec13bdf53a67b21257bddf",
    ),
    (
        "feffe9928665731c6d6a8f9467308308",
        "cafebabefacedbaddecaf888",
        "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a72\
         1c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b391aafd255",
        "42831ec2217774244b7221b784d0d49ce3aa212f2c02a4e035c17e2329aca12e\
         21d514b25466931c7d8f6a5aac84aa051ba30b396a0aac973d58e091473f5985",
        "4d5c2af327cd64a62cf35abd2ba6fab4",
    ),
    (
        "0000000000000000000000000000000000000000000000000000000000000000",
        "000000000000000000000000",
        "",
        "",
        "530f8afbc74536b9a963b4f1c4cb738b",
    ),
    (
        "0000000000000000000000000000000000000000000000000000000000000000",
        "000000000000000000000000",
        "00000000000000000000000000000000",
        "cea7403d4d606b6e074ec5d3baf39d18",
        "d0d1c8a799996bf0265b98b5d48ab919",
    ),
    (
        "feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308",
        "cafebabefacedbaddecaf888",
        "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a72\
         1c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b391aafd255",
        "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa\
         8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0abcc9f662898015ad",
        "b094dac5d93471bdec1a502270e3cc6c",
    ),
];

#[test]
fn mcgrew_viega_vectors_hold() {
    let read = |text: &str| hex::decode(text).expect("hexadecimal");
    each_provider(|provider| {
        for (case, (key, nonce, plain, cipher, tag)) in MCGREW_VIEGA.iter().enumerate() {
            let bytes = read(key);
            let algorithm = if bytes.len() == 16 { Algorithm::Aes128Gcm } else { Algorithm::Aes256Gcm };
            let key = provider.key(algorithm, &bytes).expect("a key of the right length");
            let nonce = read(nonce).try_into().expect("12 octets");
            let tag: [u8; 16] = read(tag).try_into().expect("16 octets");
            let none = Aad::new(&[]).expect("empty");
            let (plain, cipher) = (read(plain), read(cipher));
            let context = format!("{} case {case}", provider.name());
            assert_eq!(seal(provider, &key, nonce, none, &plain), (cipher.clone(), tag), "{context}");
            assert_eq!(open(provider, &key, nonce, none, &cipher, &tag), Some(plain), "{context}");
        }
    });
}

#[test]
fn every_length_is_sealed_and_opened_as_the_reference_does() {
    let mut reference = provider(REFERENCE).expect("the reference is there");
    each_provider(|provider| {
        for algorithm in ALGORITHMS {
            let theirs = key(&*reference, algorithm, 1);
            let ours = key(provider, algorithm, 1);
            for len in 0..=2000 {
                let plain = octets(len, len as u64 + 7);
                let nonce = nonce(len as u64 + 1);
                let aad = match len % 2 {
                    0 => Aad::esp(0x1001, len as u32),
                    _ => Aad::esn(0x1001, 3, len as u32),
                };
                let context = format!("{} {algorithm:?} {len}", provider.name());
                let (cipher, tag) = seal(provider, &ours, nonce, aad, &plain);
                let expected = seal(&mut *reference, &theirs, nonce, aad, &plain);
                assert_eq!((&cipher, &tag), (&expected.0, &expected.1), "{context}");
                let opened = open(provider, &ours, nonce, aad, &cipher, &tag);
                assert_eq!(opened.as_ref(), Some(&plain), "{context}");
                let opened = open(&mut *reference, &theirs, nonce, aad, &cipher, &tag);
                assert_eq!(opened.as_ref(), Some(&plain), "{context}");
            }
        }
    });
}

/// Cuts at the given places, in order.
fn cut<'a>(mut text: &'a mut [u8], cuts: &[usize]) -> Vec<&'a mut [u8]> {
    let mut done = 0;
    let mut pieces = Vec::new();
    for &at in cuts {
        let (head, tail) = std::mem::take(&mut text).split_at_mut(at - done);
        pieces.push(head);
        (text, done) = (tail, at);
    }
    pieces.push(text);
    pieces
}

/// Seals and opens a text in pieces; both must do what they do with the whole.
fn pieces_are_as_the_whole(provider: &mut dyn Provider, key: &Key, plain: &[u8], cuts: &[usize]) {
    let (nonce, aad) = (nonce(99), Aad::esp(0x2002, 77));
    let (whole, whole_tag) = seal(provider, key, nonce, aad, plain);
    let (mut text, mut tag) = (plain.to_vec(), [0; 16]);
    let segments = Segments::from_slices(cut(&mut text, cuts)).expect("allowed");
    assert_eq!(segments.len(), plain.len());
    provider.seal(&mut [SealJob { key, nonce, aad, text: segments, tag: &mut tag }]);
    assert_eq!((&text, tag), (&whole, whole_tag), "{} sealed at {cuts:?}", provider.name());
    let segments = Segments::from_slices(cut(&mut text, cuts)).expect("allowed");
    let verdicts = provider.open(&mut [OpenJob { key, nonce, aad, text: segments, tag: &tag }]);
    assert!(verdicts.is_authentic(0), "{} opened at {cuts:?}", provider.name());
    assert_eq!(text, plain, "{} opened at {cuts:?}", provider.name());
}

#[test]
fn every_split_into_segments_gives_the_same_packet() {
    each_provider(|provider| {
        let key = key(provider, Algorithm::Aes128Gcm, 5);
        // All shapes of a short text, empty pieces included; they cross every position within a block.
        let plain = octets(35, 5);
        for first in 0..=plain.len() {
            pieces_are_as_the_whole(provider, &key, &plain, &[first]);
            for second in first..=plain.len() {
                pieces_are_as_the_whole(provider, &key, &plain, &[first, second]);
                for third in (second..=plain.len()).step_by(3) {
                    pieces_are_as_the_whole(provider, &key, &plain, &[first, second, third]);
                }
            }
        }
        // Jumbo frames: three pieces, the longest text, and the longest that is allowed.
        for (len, cuts) in
            [(9216, vec![3840, 7936]), (9001, vec![1, 9000]), (MAX_GATHERED, vec![4096, 8192, 12288])]
        {
            pieces_are_as_the_whole(provider, &key, &octets(len, 6), &cuts);
        }
    });
}

#[test]
fn segments_refuse_what_no_provider_could_hold() {
    let mut octets = vec![0; MAX_GATHERED + 1];
    assert!(Segments::from_slices([]).is_none(), "no segment");
    assert!(Segments::from_slices(cut(&mut octets[..9], &[1, 2, 3, 4])).is_none(), "{}", MAX_SEGMENTS + 1);
    assert!(Segments::from_slices(cut(&mut octets, &[5])).is_none(), "too long in two");
    assert_eq!(Segments::from_slices(cut(&mut octets, &[])).map(|one| one.len()), Some(MAX_GATHERED + 1));
    assert_eq!(Segments::one(&mut octets).len(), MAX_GATHERED + 1, "one piece has no such limit");
    assert!(Segments::one(&mut []).is_empty());
}

#[test]
fn aad_is_laid_out_as_rfc_4106_says() {
    assert_eq!(Aad::esp(0x0102_0304, 0x0506_0708).as_bytes(), [1, 2, 3, 4, 5, 6, 7, 8]);
    assert_eq!(
        Aad::esn(0x0102_0304, 0x0506_0708, 0x090a_0b0c).as_bytes(),
        [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]
    );
    assert_eq!(Aad::new(&[7; MAX_AAD]).map(|aad| aad.as_bytes().to_vec()), Some(vec![7; MAX_AAD]));
    assert_eq!(Aad::new(&[7; MAX_AAD + 1]), None);
}

#[test]
fn every_single_flipped_bit_is_refused() {
    each_provider(|provider| {
        for algorithm in ALGORITHMS {
            let key = key(provider, algorithm, 11);
            for len in [0, 1, 15, 16, 17, 64, 100] {
                let (iv, spi, sequence) = (nonce(12), 0x3003, 0x0000_0001);
                let aad = Aad::esp(spi, sequence);
                let (cipher, tag) = seal(provider, &key, iv, aad, &octets(len, 13));
                let context = format!("{} {algorithm:?} {len}", provider.name());
                assert!(open(provider, &key, iv, aad, &cipher, &tag).is_some(), "{context}");
                for bit in 0..cipher.len() * 8 {
                    let mut cipher = cipher.clone();
                    cipher[bit / 8] ^= 1 << (bit % 8);
                    assert_eq!(open(provider, &key, iv, aad, &cipher, &tag), None, "{context}: text {bit}");
                }
                for bit in 0..128 {
                    let mut tag = tag;
                    tag[bit / 8] ^= 1 << (bit % 8);
                    assert_eq!(open(provider, &key, iv, aad, &cipher, &tag), None, "{context}: tag {bit}");
                }
                for bit in 0..32 {
                    for aad in [Aad::esp(spi ^ 1 << bit, sequence), Aad::esp(spi, sequence ^ 1 << bit)] {
                        assert_eq!(
                            open(provider, &key, iv, aad, &cipher, &tag),
                            None,
                            "{context}: aad {bit}"
                        );
                    }
                }
                for bit in 0..96 {
                    let mut iv = iv;
                    iv[bit / 8] ^= 1 << (bit % 8);
                    assert_eq!(open(provider, &key, iv, aad, &cipher, &tag), None, "{context}: nonce {bit}");
                }
                let esn = Aad::esn(spi, 0, sequence);
                assert_eq!(open(provider, &key, iv, esn, &cipher, &tag), None, "{context}: ESN for none");
            }
        }
    });
}

#[test]
fn a_refused_packet_in_segments_keeps_its_ciphertext() {
    // More than is promised, but it shows that a refused packet in several segments never leaves the scratch.
    each_provider(|provider| {
        let key = key(provider, Algorithm::Aes256Gcm, 14);
        let (aad, plain) = (Aad::esp(1, 1), octets(300, 15));
        let (cipher, mut tag) = seal(provider, &key, nonce(16), aad, &plain);
        tag[15] ^= 0x80;
        let mut text = cipher.clone();
        let segments = Segments::from_slices(cut(&mut text, &[100, 200])).expect("allowed");
        let job = OpenJob { key: &key, nonce: nonce(16), aad, text: segments, tag: &tag };
        assert_eq!(provider.open(&mut [job]), Verdicts::default());
        assert_eq!(text, cipher);
    });
}

#[test]
fn keys_of_a_wrong_length_are_refused() {
    each_provider(|provider| {
        for algorithm in ALGORITHMS {
            for found in (0..=64).filter(|len| *len != algorithm.key_len()) {
                let refused = provider.key(algorithm, &vec![0; found]).err();
                assert_eq!(refused, Some(KeyError::Length { algorithm, found }), "{}", provider.name());
            }
        }
    });
}

#[test]
fn keys_show_nothing_of_themselves() {
    each_provider(|provider| {
        let key = provider.key(Algorithm::Aes128Gcm, &[0xab; 16]).expect("16 octets");
        assert_eq!(format!("{key:?}"), "Key { algorithm: Aes128Gcm, .. }");
    });
}

#[test]
fn providers_are_found_by_name() {
    for name in PROVIDERS {
        match provider(name) {
            Ok(found) => assert_eq!(found.name(), *name),
            Err(error) => assert_eq!(error, ProviderError::Unsupported { name }),
        }
    }
    let unknown = provider("rot13").err().expect("there is none");
    assert_eq!(
        unknown.to_string(),
        format!("no AEAD provider is named \"rot13\"; there are: auto, {}", PROVIDERS.join(", "))
    );
}

#[test]
fn auto_is_the_multi_packet_provider_where_the_cpu_has_what_it_needs() {
    #[cfg(target_arch = "x86_64")]
    let capable = is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx512vl")
        && is_x86_feature_detected!("vaes")
        && is_x86_feature_detected!("vpclmulqdq");
    #[cfg(not(target_arch = "x86_64"))]
    let capable = false;
    let auto = provider("auto").expect("there is always one");
    assert_eq!(auto.name(), if capable { "vaes" } else { "aws-lc-rs" });
    assert_eq!(available().any(|name| name == "vaes"), capable);
    assert_eq!(
        ProviderError::Unsupported { name: "vaes" }.to_string(),
        "the AEAD provider \"vaes\" needs a CPU with AVX-512 (F, BW, DQ, VL), VAES and VPCLMULQDQ"
    );
}

/// Keys of a burst: four of each provider.
const KEYS: usize = 4 * PROVIDERS.len();

/// One packet of a burst.
#[derive(Debug, Clone)]
struct Packet {
    key: usize,
    len: usize,
    cuts: Vec<usize>,
    forged: bool,
    esn: bool,
}

fn packet() -> impl Strategy<Value = Packet> {
    (0..KEYS, 0..=1600usize, proptest::collection::vec(0..=1600usize, 0..4), any::<bool>(), any::<bool>())
        .prop_map(|(key, len, mut cuts, forged, esn)| {
            cuts.iter_mut().for_each(|cut| *cut = (*cut).min(len));
            cuts.sort_unstable();
            Packet { key, len, cuts, forged, esn }
        })
}

/// Seals and opens one burst with keys of every provider and both algorithms, packet by packet against the
/// reference.
fn burst_is_right(provider: &mut dyn Provider, packets: &[Packet]) {
    let mut oracle = tandem_aead::provider(REFERENCE).expect("the reference is there");
    let makers: Vec<_> = available().map(|name| tandem_aead::provider(name).expect("available")).collect();
    let keys: Vec<(Key, Key)> = (0..4 * makers.len())
        .map(|i| {
            let (algorithm, seed) = (ALGORITHMS[i % 2], i as u64 / 2 % 2);
            (key(&*makers[i / 4], algorithm, seed), key(&*oracle, algorithm, seed))
        })
        .collect();
    let aad = |i: usize| match packets[i].esn {
        true => Aad::esn(i as u32, 1, 2),
        false => Aad::esp(i as u32, 1),
    };
    let plain: Vec<Vec<u8>> = packets.iter().enumerate().map(|(i, p)| octets(p.len, i as u64)).collect();
    let mut texts = plain.clone();
    let mut tags = vec![[0; 16]; packets.len()];
    let mut jobs: Vec<SealJob<'_>> = packets
        .iter()
        .zip(texts.iter_mut().zip(&mut tags))
        .enumerate()
        .map(|(i, (packet, (text, tag)))| SealJob {
            key: &keys[packet.key % keys.len()].0,
            nonce: nonce(i as u64),
            aad: aad(i),
            text: Segments::from_slices(cut(text, &packet.cuts)).expect("allowed"),
            tag,
        })
        .collect();
    provider.seal(&mut jobs);
    drop(jobs);
    for (i, packet) in packets.iter().enumerate() {
        let expected =
            seal(&mut *oracle, &keys[packet.key % keys.len()].1, nonce(i as u64), aad(i), &plain[i]);
        assert_eq!((&texts[i], &tags[i]), (&expected.0, &expected.1), "{} packet {i}", provider.name());
        if packet.forged {
            tags[i][i % 16] ^= 1 << (i % 8);
        }
    }
    let mut jobs: Vec<OpenJob<'_>> = packets
        .iter()
        .zip(texts.iter_mut().zip(&tags))
        .enumerate()
        .map(|(i, (packet, (text, tag)))| OpenJob {
            key: &keys[packet.key % keys.len()].0,
            nonce: nonce(i as u64),
            aad: aad(i),
            text: Segments::from_slices(cut(text, &packet.cuts)).expect("allowed"),
            tag,
        })
        .collect();
    let verdicts = provider.open(&mut jobs);
    drop(jobs);
    let expected = packets
        .iter()
        .enumerate()
        .filter(|(_, packet)| !packet.forged)
        .fold(0, |bits, (i, _)| bits | 1u64 << i);
    assert_eq!(verdicts.bits(), expected, "{}", provider.name());
    assert_eq!(verdicts.count(), expected.count_ones());
    for (i, packet) in packets.iter().enumerate() {
        assert_eq!(verdicts.is_authentic(i), !packet.forged);
        if !packet.forged {
            assert_eq!(texts[i], plain[i], "{} packet {i}", provider.name());
        }
    }
    assert!((packets.len()..200).all(|past| !verdicts.is_authentic(past)), "{}", provider.name());
}

#[test]
fn bursts_of_every_size_are_right() {
    each_provider(|provider| {
        for size in 0..=BURST {
            let packets: Vec<_> = (0..size)
                .map(|i| Packet {
                    key: (i * 5 + size) % KEYS,
                    len: (i * 37 + size * 11) % 1500,
                    cuts: Vec::new(),
                    forged: (i * 7 + size) % 3 == 0,
                    esn: i % 2 == 0,
                })
                .collect();
            burst_is_right(provider, &packets);
        }
    });
}

/// Bursts whose keys are all of the provider itself, so that all that it batches goes in batches.
fn own_burst_is_right(provider: &mut dyn Provider, keys: usize, lengths: &[usize]) {
    let name = provider.name();
    let own = available().position(|available| available == name).expect("it runs") * 4;
    let packets: Vec<_> = lengths
        .iter()
        .enumerate()
        .map(|(i, &len)| Packet {
            key: own + i % keys,
            len,
            cuts: Vec::new(),
            forged: i % 5 == 3,
            esn: i % 3 == 0,
        })
        .collect();
    burst_is_right(provider, &packets);
}

#[test]
fn bursts_of_equal_lengths_are_right() {
    each_provider(|provider| {
        for size in 1..=BURST {
            for (keys, len) in [(1, 64), (1, 90), (2, 510), (3, 1420), (4, (size * 53) % 1500)] {
                own_burst_is_right(provider, keys, &vec![len; size]);
            }
        }
    });
}

#[test]
fn bursts_of_ragged_lengths_are_right() {
    each_provider(|provider| {
        for size in 1..=BURST {
            for keys in [1, 4] {
                // Ascending and descending by less than a chunk, so that packets of one group end everywhere;
                // around the ends of the strides of 512 octets; anything; mostly empty.
                let shapes: [fn(usize, usize) -> usize; 5] = [
                    |i, size| size + i * 29,
                    |i, size| (BURST - i) * 31 + size,
                    |i, size| 512 * (1 + size % 4) - 20 + (i * 7) % 40,
                    |i, size| (i * 397 + size * 91) % 3000,
                    |i, size| if i % 7 == size % 7 { i } else { 0 },
                ];
                for shape in shapes {
                    let lengths: Vec<_> = (0..size).map(|i| shape(i, size)).collect();
                    own_burst_is_right(provider, keys, &lengths);
                }
            }
        }
    });
}

#[test]
fn additional_data_of_every_length_are_authenticated() {
    let mut reference = provider(REFERENCE).expect("the reference is there");
    each_provider(|provider| {
        for algorithm in ALGORITHMS {
            let (theirs, ours) = (key(&*reference, algorithm, 3), key(provider, algorithm, 3));
            for aad_len in 0..=MAX_AAD {
                let aad = Aad::new(&octets(aad_len, 4)).expect("not too long");
                for len in [0, 1, 16, 100, 496, 512, 513, 1100] {
                    let plain = octets(len, 5);
                    let made = seal(provider, &ours, nonce(6), aad, &plain);
                    let expected = seal(&mut *reference, &theirs, nonce(6), aad, &plain);
                    assert_eq!(made, expected, "{} {algorithm:?} {aad_len} {len}", provider.name());
                }
            }
        }
    });
}

#[test]
fn nothing_is_written_beside_the_text() {
    each_provider(|provider| {
        let key = key(provider, Algorithm::Aes128Gcm, 8);
        for len in 0..=200 {
            let mut memory = vec![0xa5; len + 256];
            let (mut tag, aad) = ([0; 16], Aad::esp(1, 1));
            let text = Segments::one(&mut memory[128..128 + len]);
            provider.seal(&mut [SealJob { key: &key, nonce: nonce(9), aad, text, tag: &mut tag }]);
            assert!(memory[..128].iter().all(|octet| *octet == 0xa5), "{} {len}", provider.name());
            assert!(memory[128 + len..].iter().all(|octet| *octet == 0xa5), "{} {len}", provider.name());
        }
    });
}

#[test]
fn each_forged_packet_of_a_burst_is_told_by_its_own_bit() {
    each_provider(|provider| {
        for forged in 0..BURST {
            let packets: Vec<_> = (0..BURST)
                .map(|i| Packet {
                    key: i % KEYS,
                    len: 40 + i,
                    cuts: Vec::new(),
                    forged: i == forged,
                    esn: false,
                })
                .collect();
            burst_is_right(provider, &packets);
        }
    });
}

#[test]
fn packets_past_the_longest_burst_are_not_authentic() {
    each_provider(|provider| {
        let key = key(provider, Algorithm::Aes128Gcm, 17);
        let (nonce, aad) = (nonce(18), Aad::esp(1, 1));
        let (cipher, tag) = seal(provider, &key, nonce, aad, &[1, 2, 3]);
        let mut texts = vec![cipher; BURST + 1];
        let mut jobs: Vec<_> = texts
            .iter_mut()
            .map(|text| OpenJob { key: &key, nonce, aad, text: Segments::one(text), tag: &tag })
            .collect();
        let verdicts = provider.open(&mut jobs);
        assert_eq!(verdicts.bits(), u64::MAX);
        assert!(!verdicts.is_authentic(BURST));
    });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn mixed_bursts_are_right(packets in proptest::collection::vec(packet(), 0..=BURST)) {
        each_provider(|provider| burst_is_right(provider, &packets));
    }
}

//! `aead`: what one packet costs each AEAD provider, and Debian's libipsec-mb beside them.
//!
//! Bursts of 32 packets, in place, at an unaligned offset as in a frame; 64, 512 and 1420 octets of ESP
//! plaintext; one SA, and 32 SAs in turn. Nonce and additional data of each packet are written in the time
//! that is measured, as a data plane must. Buffers stay in the L2 cache.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use arrayvec::ArrayVec;
use tandem_aead::{Aad, Algorithm, OpenJob, Provider, SealJob, Segments, available};
use tandem_testbed::report::Report;

use crate::quiet::{Contender, Effort, Meter, round_robin};
use crate::{ipsec_mb, pin, tsc};

/// Packets of a burst.
const BURST: usize = 32;
/// Distance of two packets in memory, in octets: that of frames in a UMEM of 2 KiB frames.
const STRIDE: usize = 2048;
/// Where the text starts in a frame: Ethernet, outer IPv4, ESP header and IV are 50 octets.
const FRONT: usize = 50;
/// ESP plaintext sizes, in octets.
const SIZES: [usize; 3] = [64, 512, 1420];
/// The provider that all others are compared with.
const REFERENCE: &str = "aws-lc-rs";
const SPI: u32 = 0x100;

/// Runs the benchmark.
pub fn run(full: bool) -> Result<Report> {
    let mut report = Report::new("aead");
    pin::this_thread(pin::Role::UnderTest)?;
    let mut meter = Meter::calibrate();
    let peer = ipsec_mb::Library::load();

    let mut contenders = Vec::new();
    for workload in workloads() {
        let expected = sealed(&mut ProviderBackend::new(REFERENCE)?, &workload)?;
        for name in available() {
            add(&mut contenders, || ProviderBackend::new(name), name, &workload, &expected)?;
        }
        if let Ok(library) = peer {
            add(&mut contenders, || Ok(MbBackend(library)), "ipsec-mb", &workload, &expected)?;
        }
    }

    let effort = match full {
        true => Effort { quiet_samples: 75, budget: Duration::from_secs(180) },
        false => Effort { quiet_samples: 15, budget: Duration::from_secs(30) },
    };
    let results = round_robin(&mut meter, &mut contenders, effort);

    report.figure("tsc_hz", meter.hertz());
    report.figure("quiet_adds_per_ns", meter.best_adds_per_ns());
    let median_of =
        |name: &str| results.iter().find(|result| result.name == name).and_then(|result| result.median());
    for result in &results {
        if let Some(cycles) = result.median() {
            let name = figure_name(&result.name);
            report.figure(&format!("{name}_cycles"), cycles);
            report.figure(&format!("{name}_ns"), meter.nanoseconds(cycles));
            let (provider, workload) = result.name.split_once(' ').context("a name has two parts")?;
            if provider != REFERENCE
                && let Some(reference) = median_of(&format!("{REFERENCE} {workload}"))
            {
                report.figure(&format!("{name}_ratio"), cycles / reference);
            }
        }
    }
    let fewest = results.iter().map(|result| result.quiet_samples()).min().unwrap_or(0);
    let taken = results.first().map_or(0, |result| result.samples);
    report.figure("quiet_samples_min", fewest as f64);
    report.expect(
        "the core was quiet often enough",
        fewest >= 3,
        format!("{fewest} quiet of {taken} samples at least"),
    );
    report.check("all implementations seal alike", true, "compared before the time was taken");
    match peer {
        Ok(library) => report.check("libipsec-mb as a peer", true, library.instructions),
        Err(absent) => {
            report.check("libipsec-mb as a peer", true, format!("absent, so are its figures: {absent}"))
        }
    };
    Ok(report)
}

/// `aws-lc-rs seal aes128 64 32sas` becomes `aws_lc_rs_seal_aes128_64_32sas`.
fn figure_name(contender: &str) -> String {
    contender.replace([' ', '-'], "_")
}

/// What is sealed or opened.
struct Workload {
    algorithm: Algorithm,
    size: usize,
    keys: Vec<Vec<u8>>,
}

impl Workload {
    fn name(&self, operation: &str) -> String {
        let algorithm = match self.algorithm {
            Algorithm::Aes128Gcm => "aes128",
            Algorithm::Aes256Gcm => "aes256",
        };
        let sas = if self.keys.len() > 1 { format!(" {}sas", self.keys.len()) } else { String::new() };
        format!("{operation} {algorithm} {}{sas}", self.size)
    }
}

fn workloads() -> Vec<Workload> {
    let mut workloads = Vec::new();
    for algorithm in [Algorithm::Aes128Gcm, Algorithm::Aes256Gcm] {
        for size in SIZES {
            for sas in [1, BURST] {
                let key =
                    |sa: usize| (0..algorithm.key_len()).map(|octet| (sa * 37 + octet * 11) as u8).collect();
                workloads.push(Workload { algorithm, size, keys: (0..sas).map(key).collect() });
            }
        }
    }
    workloads
}

/// The frames of one burst.
#[derive(Clone)]
struct Slots {
    memory: Vec<u8>,
    size: usize,
}

impl Slots {
    fn new(size: usize) -> Self {
        let memory = (0..BURST * STRIDE).map(|index| (index * 7 + index / STRIDE) as u8).collect();
        Self { memory, size }
    }

    /// Text and tag of each packet.
    fn iter_mut(&mut self) -> impl Iterator<Item = (&mut [u8], &mut [u8; 16])> {
        let size = self.size;
        self.memory.chunks_exact_mut(STRIDE).filter_map(move |frame| {
            let (text, rest) = frame.get_mut(FRONT..)?.split_at_mut_checked(size)?;
            Some((text, rest.first_chunk_mut()?))
        })
    }
}

fn nonce(number: u32) -> [u8; 12] {
    let mut nonce = *b"salt\0\0\0\0\0\0\0\0";
    nonce[8..].copy_from_slice(&number.to_be_bytes());
    nonce
}

/// One implementation. `first` is the number of the first packet of the burst.
trait Backend {
    type Key;
    fn key(&self, algorithm: Algorithm, bytes: &[u8]) -> Result<Self::Key>;
    fn seal(&mut self, keys: &[Self::Key], first: u32, slots: &mut Slots);
    /// True where every packet was authentic.
    fn open(&mut self, keys: &[Self::Key], first: u32, slots: &mut Slots) -> bool;

    fn keys(&self, workload: &Workload) -> Result<Vec<Self::Key>> {
        workload.keys.iter().map(|bytes| self.key(workload.algorithm, bytes)).collect()
    }
}

struct ProviderBackend(Box<dyn Provider>);

impl ProviderBackend {
    fn new(name: &str) -> Result<Self> {
        Ok(Self(tandem_aead::provider(name)?))
    }
}

impl Backend for ProviderBackend {
    type Key = tandem_aead::Key;

    fn key(&self, algorithm: Algorithm, bytes: &[u8]) -> Result<Self::Key> {
        Ok(self.0.key(algorithm, bytes)?)
    }

    fn seal(&mut self, keys: &[Self::Key], first: u32, slots: &mut Slots) {
        let mut jobs: ArrayVec<SealJob<'_>, BURST> = (first..)
            .zip(keys.iter().cycle())
            .zip(slots.iter_mut())
            .map(|((number, key), (text, tag))| SealJob {
                key,
                nonce: nonce(number),
                aad: Aad::esp(SPI, number),
                text: Segments::one(text),
                tag,
            })
            .collect();
        self.0.seal(&mut jobs);
    }

    fn open(&mut self, keys: &[Self::Key], first: u32, slots: &mut Slots) -> bool {
        let mut jobs: ArrayVec<OpenJob<'_>, BURST> = (first..)
            .zip(keys.iter().cycle())
            .zip(slots.iter_mut())
            .map(|((number, key), (text, tag))| OpenJob {
                key,
                nonce: nonce(number),
                aad: Aad::esp(SPI, number),
                text: Segments::one(text),
                tag,
            })
            .collect();
        self.0.open(&mut jobs).count() as usize == BURST
    }
}

struct MbBackend(ipsec_mb::Library);

impl Backend for MbBackend {
    type Key = ipsec_mb::Key;

    fn key(&self, algorithm: Algorithm, bytes: &[u8]) -> Result<Self::Key> {
        Ok(self.0.key(algorithm, bytes))
    }

    fn seal(&mut self, keys: &[Self::Key], first: u32, slots: &mut Slots) {
        for ((number, key), (text, tag)) in (first..).zip(keys.iter().cycle()).zip(slots.iter_mut()) {
            key.seal(&nonce(number), Aad::esp(SPI, number).as_bytes(), text, tag);
        }
    }

    fn open(&mut self, keys: &[Self::Key], first: u32, slots: &mut Slots) -> bool {
        (first..)
            .zip(keys.iter().cycle())
            .zip(slots.iter_mut())
            .map(|((number, key), (text, tag))| {
                key.open(&nonce(number), Aad::esp(SPI, number).as_bytes(), text, tag)
            })
            .fold(true, |all, authentic| all & authentic)
    }
}

/// The first burst of a workload, sealed.
fn sealed<B: Backend>(backend: &mut B, workload: &Workload) -> Result<Slots> {
    let keys = backend.keys(workload)?;
    let mut slots = Slots::new(workload.size);
    backend.seal(&keys, 0, &mut slots);
    Ok(slots)
}

/// Adds sealing and opening by one implementation, after a comparison of its output with what is expected.
fn add<B: Backend + 'static>(
    contenders: &mut Vec<Contender<'static>>,
    backend: impl Fn() -> Result<B>,
    name: &str,
    workload: &Workload,
    expected: &Slots,
) -> Result<()> {
    let mut sealer = backend()?;
    ensure!(
        sealed(&mut sealer, workload)?.memory == expected.memory,
        "{name} does not {} like {REFERENCE}",
        workload.name("seal")
    );
    let keys = sealer.keys(workload)?;
    let mut slots = expected.clone();
    let mut next = 0u32;
    contenders.push(Contender {
        name: format!("{name} {}", workload.name("seal")),
        packets: BURST as u64,
        call: Box::new(move || {
            let start = tsc::now();
            sealer.seal(&keys, next, &mut slots);
            next = next.wrapping_add(BURST as u32);
            tsc::now() - start
        }),
    });

    let mut opener = backend()?;
    let keys = opener.keys(workload)?;
    let image = expected.clone();
    let mut slots = expected.clone();
    contenders.push(Contender {
        name: format!("{name} {}", workload.name("open")),
        packets: BURST as u64,
        call: Box::new(move || {
            slots.memory.copy_from_slice(&image.memory);
            let start = tsc::now();
            let authentic = opener.open(&keys, 0, &mut slots);
            let cycles = tsc::now() - start;
            assert!(authentic, "what one implementation sealed another must open");
            cycles
        }),
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_implementation_opens_what_the_reference_sealed_and_notices_a_changed_octet() {
        fn holds<B: Backend>(mut backend: B, workload: &Workload, expected: &Slots) {
            let keys = backend.keys(workload).expect("keys of the right length");
            assert!(backend.open(&keys, 0, &mut expected.clone()));
            let mut changed = expected.clone();
            if let Some((text, _)) = changed.iter_mut().last() {
                text[0] ^= 1;
            }
            assert!(!backend.open(&keys, 0, &mut changed));
        }
        for workload in workloads() {
            let mut reference = ProviderBackend::new(REFERENCE).expect("the reference exists");
            let expected = sealed(&mut reference, &workload).expect("keys of the right length");
            for name in available() {
                holds(ProviderBackend::new(name).expect("a listed provider"), &workload, &expected);
            }
            if let Ok(library) = ipsec_mb::Library::load() {
                holds(MbBackend(library), &workload, &expected);
            }
        }
    }
}

//! Sealing of what travels over the paths (`failover.md` F6), without I/O.
//!
//! ```text
//! 0        4      5        6     8         16                16+n      16+n+16
//! | epoch | path | sender | zero | counter | message (sealed) | tag |
//! ```
//! All numbers are big-endian. AES-256-GCM; the first 16 octets are authenticated, the nonce is four zeros and the
//! counter. The key is that of (epoch, sender, path), derived from the secret of the epoch (HKDF, RFC 5869, with
//! SHA-256), so that no two senders of a counter share one. The counters live in the hot state and are taken before
//! sealing: no crash makes one repeat.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use hkdf::Hkdf;
use sha2::Sha256;
use std::sync::atomic::{AtomicU64, Ordering};
use tandem_api::pair::PATHS_MAX;
use zeroize::Zeroizing;

/// Octets before the sealed message.
pub const HEADER: usize = 16;
/// Octets of the tag.
pub const TAG: usize = 16;
/// Octets of an epoch's secret.
pub const SECRET: usize = 32;
/// Numbers that a replay window covers.
pub const WINDOW: u64 = 1024;

/// Epochs that are opened: the present one and the one before.
const EPOCHS: usize = 2;

/// Why a datagram was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Bad {
    /// Shorter than header and tag.
    #[error("too short")]
    Short,
    /// Not as a node of this version writes it, or not of the partner, or of another path.
    #[error("header of no datagram of the partner on this path")]
    Header,
    /// Of an epoch that is not known (any more, or yet).
    #[error("unknown epoch")]
    Epoch,
    /// Its number came before, or is too old to tell.
    #[error("replayed")]
    Replayed,
    /// Not authentic.
    #[error("not authentic")]
    Forged,
}

/// Why a message could not be sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unsealed {
    /// There is no epoch to seal with: the node is silent until control gives one (F6).
    #[error("no epoch key to seal with")]
    NoEpoch,
    /// There is no such path.
    #[error("no such path")]
    NoPath,
    /// The AEAD refused.
    #[error("the AEAD refused to seal")]
    Refused,
}

/// Why an epoch was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EpochError {
    /// The secret has another length.
    #[error("the secret of epoch {number} has {octets} octets; it must have {SECRET}")]
    Length {
        /// Its number.
        number: u32,
        /// Octets that it has.
        octets: usize,
    },
    /// Numbers of epochs only grow; one that has gone never comes back.
    #[error("epoch {number} is older than those in use (newest {newest}); a new session takes a new number")]
    Old {
        /// Its number.
        number: u32,
        /// The newest one known.
        newest: u32,
    },
    /// The number is known with another secret.
    #[error("epoch {0} is in use with another secret; a new secret takes a new number")]
    OtherSecret(u32),
}

/// Numbers that were received on one path in one epoch.
#[derive(Clone, Debug)]
struct Replay {
    top: u64,
    /// One bit for each number modulo [`WINDOW`]; those up to `top` and above `top - WINDOW` have a meaning.
    bits: [u64; WINDOW as usize / 64],
}

impl Replay {
    const fn new() -> Self {
        Self { top: 0, bits: [0; WINDOW as usize / 64] }
    }

    fn place(number: u64) -> (usize, u64) {
        let bit = number % WINDOW;
        ((bit / 64) as usize, 1 << (bit % 64))
    }

    /// Was the number not seen, and is it young enough to tell? Counters begin with 1.
    fn is_new(&self, number: u64) -> bool {
        if number == 0 || self.top.checked_sub(WINDOW).is_some_and(|oldest| number <= oldest) {
            return false;
        }
        let (word, bit) = Self::place(number);
        number > self.top || self.bits[word] & bit == 0
    }

    fn note(&mut self, number: u64) {
        if number > self.top {
            if number - self.top >= WINDOW {
                self.bits = [0; WINDOW as usize / 64];
            } else {
                for passed in self.top + 1..=number {
                    let (word, bit) = Self::place(passed);
                    self.bits[word] &= !bit;
                }
            }
            self.top = number;
        }
        let (word, bit) = Self::place(number);
        self.bits[word] |= bit;
    }
}

/// One path in one epoch.
struct PathKeys {
    sends: LessSafeKey,
    opens: LessSafeKey,
    received: Replay,
}

struct Epoch {
    number: u32,
    /// Tells whether the same secret comes again, without keeping it.
    check: Zeroizing<[u8; SECRET]>,
    send: bool,
    paths: Vec<PathKeys>,
}

/// Seals for the paths of one node and opens what its partner has sealed.
pub struct Seals {
    node: u8,
    paths: u8,
    /// The newest first.
    epochs: Vec<Epoch>,
}

impl std::fmt::Debug for Seals {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let epochs: Vec<u32> = self.epochs.iter().map(|epoch| epoch.number).collect();
        write!(f, "Seals {{ node: {}, paths: {}, epochs: {epochs:?} }}", self.node, self.paths)
    }
}

impl Seals {
    /// For node `node` (0 or 1) with so many paths; there is no key yet.
    #[must_use]
    pub fn new(node: u8, paths: u8) -> Self {
        Self { node: node & 1, paths: paths.min(PATHS_MAX as u8), epochs: Vec::new() }
    }

    /// Takes the secret of an epoch; `send`: it is sealed with from now on. The epoch before is still opened, older
    /// ones are forgotten. The same epoch again changes `send` alone: what was received in it stays received.
    ///
    /// # Errors
    /// [`EpochError`]; nothing has changed.
    pub fn take_epoch(&mut self, number: u32, secret: &[u8], send: bool) -> Result<(), EpochError> {
        if secret.len() != SECRET {
            return Err(EpochError::Length { number, octets: secret.len() });
        }
        let derivation = Hkdf::<Sha256>::new(Some(b"tandem pair paths"), secret);
        let check = derive(&derivation, b"check", number, 0, 0);
        if let Some(known) = self.epochs.iter_mut().find(|epoch| epoch.number == number) {
            if aws_lc_rs::constant_time::verify_slices_are_equal(&*known.check, &*check).is_err() {
                return Err(EpochError::OtherSecret(number));
            }
            known.send |= send;
            return Ok(());
        }
        if let Some(newest) = self.epochs.first().map(|epoch| epoch.number).filter(|newest| *newest > number)
        {
            return Err(EpochError::Old { number, newest });
        }
        let key = |sender: u8, path: u8| {
            let octets = derive(&derivation, b"path", number, sender, path);
            UnboundKey::new(&AES_256_GCM, &*octets).map(LessSafeKey::new)
        };
        let paths: Result<Vec<PathKeys>, _> = (0..self.paths)
            .map(|path| {
                let (sends, opens) = (key(self.node, path)?, key(1 - self.node, path)?);
                Ok(PathKeys { sends, opens, received: Replay::new() })
            })
            .collect();
        // 32 octets are a key of AES-256; nothing else can be refused.
        let paths = paths
            .map_err(|_: aws_lc_rs::error::Unspecified| EpochError::Length { number, octets: SECRET })?;
        self.epochs.insert(0, Epoch { number, check, send, paths });
        self.epochs.truncate(EPOCHS);
        Ok(())
    }

    /// Is there a key to seal with?
    #[must_use]
    pub fn can_send(&self) -> bool {
        self.epochs.iter().any(|epoch| epoch.send)
    }

    /// Seals `message` for `path` into `datagram`, which is emptied before. The number is taken out of `counter`
    /// first (F6): it is used up, whatever comes after.
    ///
    /// # Errors
    /// [`Unsealed`].
    pub fn seal(
        &self,
        path: u8,
        counter: &AtomicU64,
        message: &[u8],
        datagram: &mut Vec<u8>,
    ) -> Result<(), Unsealed> {
        let epoch = self.epochs.iter().find(|epoch| epoch.send).ok_or(Unsealed::NoEpoch)?;
        let keys = epoch.paths.get(usize::from(path)).ok_or(Unsealed::NoPath)?;
        let number = counter.fetch_add(1, Ordering::Relaxed).wrapping_add(1);
        datagram.clear();
        datagram.extend_from_slice(&epoch.number.to_be_bytes());
        datagram.extend_from_slice(&[path, self.node, 0, 0]);
        datagram.extend_from_slice(&number.to_be_bytes());
        datagram.extend_from_slice(message);
        let (header, sealed) = datagram.split_at_mut(HEADER);
        let tag = keys.sends.seal_in_place_separate_tag(nonce(number), Aad::from(&*header), sealed);
        let tag = tag.map_err(|_| Unsealed::Refused)?;
        datagram.extend_from_slice(tag.as_ref());
        Ok(())
    }

    /// The message in a datagram that came over `path`; it is opened in place. Only an authentic one moves the window.
    ///
    /// # Errors
    /// [`Bad`].
    pub fn open<'d>(&mut self, path: u8, datagram: &'d mut [u8]) -> Result<&'d [u8], Bad> {
        if datagram.len() < HEADER + TAG {
            return Err(Bad::Short);
        }
        let (header, sealed) = datagram.split_at_mut(HEADER);
        let mut fixed = [0; HEADER];
        fixed.copy_from_slice(header);
        let [e0, e1, e2, e3, on, sender, 0, 0, counter @ ..] = fixed else { return Err(Bad::Header) };
        if on != path || sender != 1 - self.node {
            return Err(Bad::Header);
        }
        let number = u32::from_be_bytes([e0, e1, e2, e3]);
        let counter = u64::from_be_bytes(counter);
        let epoch = self.epochs.iter_mut().find(|epoch| epoch.number == number).ok_or(Bad::Epoch)?;
        let keys = epoch.paths.get_mut(usize::from(path)).ok_or(Bad::Header)?;
        if !keys.received.is_new(counter) {
            return Err(Bad::Replayed);
        }
        let opened = keys.opens.open_in_place(nonce(counter), Aad::from(fixed), sealed);
        let message = opened.map_err(|_| Bad::Forged)?;
        keys.received.note(counter);
        Ok(message)
    }
}

fn nonce(counter: u64) -> Nonce {
    let mut nonce = [0; 12];
    nonce[4..].copy_from_slice(&counter.to_be_bytes());
    Nonce::assume_unique_for_key(nonce)
}

fn derive(
    derivation: &Hkdf<Sha256>,
    purpose: &[u8],
    epoch: u32,
    sender: u8,
    path: u8,
) -> Zeroizing<[u8; SECRET]> {
    let mut octets = Zeroizing::new([0; SECRET]);
    let context = [purpose, &epoch.to_be_bytes(), &[sender, path]];
    // Refused are lengths above 255 hashes alone (RFC 5869 section 2.3), and this is one.
    let expanded = derivation.expand_multi_info(&context, &mut *octets);
    debug_assert!(expanded.is_ok());
    octets
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const KEY: [u8; SECRET] = [7; SECRET];

    fn pair() -> (Seals, Seals) {
        let (mut a, mut b) = (Seals::new(0, 2), Seals::new(1, 2));
        a.take_epoch(1, &KEY, true).unwrap();
        b.take_epoch(1, &KEY, true).unwrap();
        (a, b)
    }

    fn sealed(from: &Seals, path: u8, counter: u64, message: &[u8]) -> Vec<u8> {
        let mut datagram = Vec::new();
        from.seal(path, &AtomicU64::new(counter - 1), message, &mut datagram).unwrap();
        datagram
    }

    #[test]
    fn what_one_node_seals_the_other_opens_and_nobody_twice() {
        let (a, mut b) = pair();
        let datagram = sealed(&a, 1, 1, b"heartbeat");
        assert_eq!(datagram.len(), HEADER + 9 + TAG);
        assert_eq!(b.open(1, &mut datagram.clone()), Ok(&b"heartbeat"[..]));
        assert_eq!(b.open(1, &mut datagram.clone()), Err(Bad::Replayed));
    }

    #[test]
    fn no_octet_can_be_changed() {
        let (a, mut b) = pair();
        let datagram = sealed(&a, 0, 1, b"record");
        for at in 0..datagram.len() {
            let mut forged = datagram.clone();
            forged[at] ^= 1;
            assert!(b.open(0, &mut forged).is_err(), "octet {at}");
        }
        for length in 0..datagram.len() {
            assert!(b.open(0, &mut datagram[..length].to_vec()).is_err(), "{length} octets");
        }
        assert!(b.open(0, &mut datagram.clone()).is_ok(), "what was forged has moved nothing");
    }

    #[test]
    fn a_datagram_counts_on_its_own_path_and_in_its_own_direction_alone() {
        let (mut a, mut b) = pair();
        let datagram = sealed(&a, 0, 1, b"x");
        assert_eq!(b.open(1, &mut datagram.clone()), Err(Bad::Header));
        assert_eq!(a.open(0, &mut datagram.clone()), Err(Bad::Header), "reflected");
        // With a header that fits, the key does not.
        let mut moved = datagram.clone();
        moved[4] = 1;
        assert_eq!(b.open(1, &mut moved), Err(Bad::Forged));
        let mut reflected = datagram.clone();
        reflected[5] = 1;
        assert_eq!(a.open(0, &mut reflected), Err(Bad::Forged));
        assert_eq!(b.open(7, &mut datagram.clone()), Err(Bad::Header));
    }

    #[test]
    fn two_epochs_are_opened_and_only_the_newest_that_may_be_is_sealed_with() {
        let (mut a, mut b) = pair();
        let first = sealed(&a, 0, 1, b"1");
        a.take_epoch(2, &[8; SECRET], false).unwrap();
        b.take_epoch(2, &[8; SECRET], false).unwrap();
        let still_first = sealed(&a, 0, 2, b"2");
        assert_eq!(&still_first[..4], &[0, 0, 0, 1], "opened only, until the partner has it too");
        a.take_epoch(2, &[8; SECRET], true).unwrap();
        let second = sealed(&a, 0, 3, b"3");
        assert_eq!(&second[..4], &[0, 0, 0, 2]);
        for datagram in [&second, &first, &still_first] {
            assert!(b.open(0, &mut datagram.clone()).is_ok());
        }
        b.take_epoch(3, &[9; SECRET], true).unwrap();
        assert_eq!(b.open(0, &mut first.clone()), Err(Bad::Epoch));
        assert_eq!(
            b.open(0, &mut second.clone()),
            Err(Bad::Replayed),
            "the second one is the one before now"
        );
        let error = b.take_epoch(1, &KEY, true).unwrap_err();
        assert_eq!(error, EpochError::Old { number: 1, newest: 3 });
    }

    #[test]
    fn an_epoch_that_is_given_again_forgets_nothing_and_takes_no_other_secret() {
        let (a, mut b) = pair();
        let datagram = sealed(&a, 0, 1, b"1");
        b.open(0, &mut datagram.clone()).unwrap();
        b.take_epoch(1, &KEY, true).unwrap();
        assert_eq!(b.open(0, &mut datagram.clone()), Err(Bad::Replayed));
        assert_eq!(b.take_epoch(1, &[1; SECRET], true), Err(EpochError::OtherSecret(1)));
        assert_eq!(b.take_epoch(2, &[1; 5], true), Err(EpochError::Length { number: 2, octets: 5 }));
    }

    #[test]
    fn without_a_key_a_node_is_silent_and_deaf() {
        let (a, _) = pair();
        let mut silent = Seals::new(1, 2);
        assert!(!silent.can_send());
        let mut datagram = Vec::new();
        let sealed_by_none = silent.seal(0, &AtomicU64::new(0), b"x", &mut datagram);
        assert_eq!(sealed_by_none, Err(Unsealed::NoEpoch));
        assert_eq!(silent.open(0, &mut sealed(&a, 0, 1, b"x")), Err(Bad::Epoch));
        silent.take_epoch(1, &KEY, false).unwrap();
        assert!(!silent.can_send());
        assert!(silent.open(0, &mut sealed(&a, 0, 1, b"x")).is_ok());
    }

    #[test]
    fn a_counter_is_used_up_before_anything_is_sealed_with_it() {
        let (a, _) = pair();
        let counter = AtomicU64::new(41);
        let mut datagram = Vec::new();
        a.seal(0, &counter, b"x", &mut datagram).unwrap();
        assert_eq!(counter.load(Ordering::Relaxed), 42);
        assert_eq!(&datagram[8..16], &42u64.to_be_bytes());
    }

    #[test]
    fn the_keys_are_those_of_the_derivation_that_is_written_down() {
        // An independent implementation of RFC 5869 and the context that the module's text names.
        use aws_lc_rs::hkdf::{HKDF_SHA256, KeyType, Salt};
        struct Octets;
        impl KeyType for Octets {
            fn len(&self) -> usize {
                SECRET
            }
        }
        let prk = Salt::new(HKDF_SHA256, b"tandem pair paths").extract(&KEY);
        let info: [&[u8]; 3] = [b"path", &[0, 0, 0, 1], &[0, 1]];
        let mut key = [0; SECRET];
        prk.expand(&info, Octets).unwrap().fill(&mut key).unwrap();
        let (a, _) = pair();
        let mut datagram = sealed(&a, 1, 5, b"known");
        let (header, body) = datagram.split_at_mut(HEADER);
        let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &key).unwrap());
        assert_eq!(key.open_in_place(nonce(5), Aad::from(&*header), body).unwrap(), b"known");
    }

    proptest! {
        /// The window agrees with a set of all numbers that were taken.
        #[test]
        fn a_number_is_new_once_within_the_window_and_never_below_it(
            steps in proptest::collection::vec((0u64..3000, any::<bool>()), 1..300),
        ) {
            let mut window = Replay::new();
            let mut taken = std::collections::HashSet::new();
            let mut top = 0;
            for (step, ahead) in steps {
                let number = if ahead { top + step / 2 } else { top.saturating_sub(step) };
                let expected = number > 0 && number + WINDOW > top && !taken.contains(&number);
                prop_assert_eq!(window.is_new(number), expected, "{} at top {}", number, top);
                if expected {
                    window.note(number);
                    taken.insert(number);
                    top = top.max(number);
                }
            }
        }

        #[test]
        fn no_octets_from_elsewhere_are_taken(mut octets in proptest::collection::vec(any::<u8>(), 0..200), path: u8) {
            let (_, mut b) = pair();
            prop_assert!(b.open(path, &mut octets).is_err());
        }
    }
}

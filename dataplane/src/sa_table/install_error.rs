//! Why an SA is not installed.

use tandem_api::types::{Direction, Transform};

/// Why an SA cannot be installed. Nothing has changed.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum InstallError {
    /// Key of the wrong length.
    #[error("SA {spi:#010x}: the key has {got} octets, {transform} takes {want} (key and 4 octets of salt)")]
    KeyLength {
        /// SPI.
        spi: u32,
        /// Transform.
        transform: Transform,
        /// Octets given.
        got: usize,
        /// Octets needed.
        want: usize,
    },
    /// No slot left.
    #[error(
        "SA {spi:#010x}: all {slots} {direction} slots are taken (removed SAs keep theirs for as long as the data \
         plane lives, so that their numbers cannot repeat); raise dataplane.max-sas and restart the data plane"
    )]
    Full {
        /// SPI.
        spi: u32,
        /// Direction.
        direction: Direction,
        /// Slots there are.
        slots: u32,
    },
    /// An SPI below 256.
    #[error("SA {0:#010x}: SPIs below 256 are reserved (RFC 4303 section 2.1)")]
    SpiReserved(u32),
    /// Policy number too high.
    #[error(
        "SA {spi:#010x}: policy number {policy} is not below twice max-sas ({slots}); raise dataplane.max-sas"
    )]
    PolicyNumber {
        /// SPI.
        spi: u32,
        /// Policy number.
        policy: u32,
        /// Limit.
        slots: u32,
    },
    /// No fingerprint: 0 marks a slot that is free.
    #[error("SA {0:#010x}: a key fingerprint of 0 is none")]
    Fingerprint(u32),
    /// A higher base term for a key in use: the term differences of its IVs would come again (F3).
    #[error(
        "SA {spi:#010x}: the base term of a key in use cannot rise (from {now} to {wanted}), because its nonces would \
         come again; give the SA a new key, or set base-term back"
    )]
    BaseTerm {
        /// SPI.
        spi: u32,
        /// Base term now.
        now: u64,
        /// Base term asked for.
        wanted: u64,
    },
    /// The same SPI twice in one request.
    #[error("SA {spi:#010x}: {direction} twice in one request")]
    Twice {
        /// SPI.
        spi: u32,
        /// Direction.
        direction: Direction,
    },
}

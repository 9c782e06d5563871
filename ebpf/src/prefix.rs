//! An IPv4 prefix.

use crate::Error;
use std::fmt;
use std::net::Ipv4Addr;

/// An IPv4 prefix. Host bits are zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Prefix {
    address: Ipv4Addr,
    length: u8,
}

impl Prefix {
    /// The prefix of `length` bits (0 to 32) that holds `address`; its host bits are cleared.
    ///
    /// # Errors
    /// [`Error::PrefixLength`].
    pub fn new(address: Ipv4Addr, length: u8) -> Result<Self, Error> {
        let host_bits = 32_u32.checked_sub(u32::from(length)).ok_or(Error::PrefixLength(length))?;
        // A shift by 32 is none at all in the type's terms: no bit of the address counts.
        let mask = u32::MAX.checked_shl(host_bits).unwrap_or(0);
        Ok(Self { address: Ipv4Addr::from(u32::from(address) & mask), length })
    }

    /// First address.
    #[must_use]
    pub fn address(self) -> Ipv4Addr {
        self.address
    }

    /// Length in bits.
    #[must_use]
    pub fn length(self) -> u8 {
        self.length
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_bits_are_cleared_and_lengths_beyond_32_refused() {
        let prefix = |text: &str, length| {
            Prefix::new(text.parse().expect("an address"), length).map(|prefix| prefix.to_string())
        };
        assert_eq!(prefix("10.1.2.3", 0).expect("valid"), "0.0.0.0/0");
        assert_eq!(prefix("10.1.2.3", 8).expect("valid"), "10.0.0.0/8");
        assert_eq!(prefix("10.1.2.3", 31).expect("valid"), "10.1.2.2/31");
        assert_eq!(prefix("10.1.2.3", 32).expect("valid"), "10.1.2.3/32");
        assert!(matches!(prefix("10.1.2.3", 33), Err(Error::PrefixLength(33))));
    }
}

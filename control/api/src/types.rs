//! Words that both sockets share.

use core::fmt;
use ipnet::Ipv4Net;
use schemars::JsonSchema;
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::net::Ipv4Addr;
use zeroize::{Zeroize, ZeroizeOnDrop};

/// Which side of the gateway an interface faces.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Side {
    /// The protected networks.
    Inside,
    /// The network that the peers are reached over.
    Outside,
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Side::Inside => "inside",
            Side::Outside => "outside",
        })
    }
}

/// Direction of an SA as this gateway sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// From the peer: opened here.
    Inbound,
    /// To the peer: sealed here.
    Outbound,
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Direction::Inbound => "inbound",
            Direction::Outbound => "outbound",
        })
    }
}

/// The ESP transforms of this version (RFC 4106, 16-byte ICV), in strongSwan's notation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Transform {
    /// AES-128-GCM with a 16-byte ICV.
    Aes128gcm16,
    /// AES-256-GCM with a 16-byte ICV.
    Aes256gcm16,
}

impl Transform {
    /// Octets of the AES key, without the 4-octet salt.
    #[must_use]
    pub const fn key_len(self) -> usize {
        match self {
            Transform::Aes128gcm16 => 16,
            Transform::Aes256gcm16 => 32,
        }
    }
}

impl fmt::Display for Transform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Transform::Aes128gcm16 => "aes128gcm16",
            Transform::Aes256gcm16 => "aes256gcm16",
        })
    }
}

/// Keying material of an SA: key, then 4 octets of salt (RFC 4106 section 8.1), as `ip xfrm` takes it.
/// Zeroized on drop; `Debug` never shows it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
pub struct KeyMaterial(Vec<u8>);

impl KeyMaterial {
    /// Takes over `bytes` (key, then salt).
    #[must_use]
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    /// Key and salt, one after the other.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for KeyMaterial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyMaterial({} octets)", self.0.len())
    }
}

/// A fingerprint of an SA's keying material, to recognize a key without holding it (`failover.md` F8):
/// the first 8 octets of SHA-256 over a domain string, transform, key and salt. In JSON the 16 hexadecimal
/// digits of its text form, because many readers of JSON keep only 53 bits of a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, JsonSchema)]
#[schemars(with = "String")]
pub struct KeyFingerprint(pub u64);

impl Serialize for KeyFingerprint {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.collect_str(self)
        } else {
            serializer.serialize_u64(self.0)
        }
    }
}

impl<'de> Deserialize<'de> for KeyFingerprint {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if !deserializer.is_human_readable() {
            return u64::deserialize(deserializer).map(Self);
        }
        let text = String::deserialize(deserializer)?;
        let digits = text.len() == 16 && text.bytes().all(|octet| octet.is_ascii_hexdigit());
        let number = u64::from_str_radix(&text, 16).ok().filter(|_| digits);
        number.map(Self).ok_or_else(|| Error::custom("a fingerprint has 16 hexadecimal digits"))
    }
}

impl fmt::Display for KeyFingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// What traffic an SA or a policy covers, from this gateway's point of view.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub struct Selector {
    /// Addresses on our side.
    #[schemars(with = "String")]
    pub local: Ipv4Net,
    /// Addresses on the peer's side.
    #[schemars(with = "String")]
    pub remote: Ipv4Net,
}

impl Selector {
    /// Does a packet from `local` to `remote` (or back) lie within?
    #[must_use]
    pub fn covers(&self, local: Ipv4Addr, remote: Ipv4Addr) -> bool {
        self.local.contains(&local) && self.remote.contains(&remote)
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} <-> {}", self.local, self.remote)
    }
}

/// What this node is in the pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Carries traffic.
    Active,
    /// Holds all state and carries none.
    Standby,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Role::Active => "active",
            Role::Standby => "standby",
        })
    }
}

/// A MAC address; text form `02:00:5e:00:53:01`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String")]
pub struct Mac(pub [u8; 6]);

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl From<Mac> for String {
    fn from(mac: Mac) -> Self {
        mac.to_string()
    }
}

/// Text that is no MAC address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no MAC address: write six hexadecimal octets, such as 02:00:5e:00:53:01")]
pub struct MacError(String);

impl TryFrom<String> for Mac {
    type Error = MacError;

    fn try_from(text: String) -> Result<Self, MacError> {
        text.parse()
    }
}

impl core::str::FromStr for Mac {
    type Err = MacError;

    fn from_str(text: &str) -> Result<Self, MacError> {
        let fail = || MacError(text.to_owned());
        let mut octets = [0; 6];
        let mut parts = text.split([':', '-']);
        for octet in &mut octets {
            // Digits alone: the number parser would take a sign.
            let is_octet = |part: &&str| part.len() == 2 && part.bytes().all(|b| b.is_ascii_hexdigit());
            let part = parts.next().filter(is_octet).ok_or_else(fail)?;
            *octet = u8::from_str_radix(part, 16).map_err(|_| fail())?;
        }
        if parts.next().is_some() { Err(fail()) } else { Ok(Self(octets)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fingerprint_is_16_digits_in_json_and_a_number_between_the_daemons() {
        let fingerprint = KeyFingerprint(0x0123_4567_89ab_cdef);
        let json = serde_json::to_string(&fingerprint).unwrap();
        assert_eq!(json, "\"0123456789abcdef\"");
        assert_eq!(serde_json::from_str::<KeyFingerprint>(&json).unwrap(), fingerprint);
        for wrong in ["\"123\"", "\"+123456789abcdef\"", "\"0123456789abcdeg\"", "5"] {
            assert!(serde_json::from_str::<KeyFingerprint>(wrong).is_err(), "{wrong}");
        }
        let bytes = postcard::to_stdvec(&fingerprint).unwrap();
        assert_eq!(bytes, postcard::to_stdvec(&fingerprint.0).unwrap());
        assert_eq!(postcard::from_bytes::<KeyFingerprint>(&bytes).unwrap(), fingerprint);
    }

    #[test]
    fn a_mac_is_six_octets_of_two_hexadecimal_digits() {
        assert_eq!("02:00:5e:00:53:Fe".parse(), Ok(Mac([2, 0, 0x5e, 0, 0x53, 0xfe])));
        for wrong in ["", "02:00:5e:00:53", "02:00:5e:00:53:01:02", "+2:00:5e:00:53:01", "2:00:5e:00:53:01"] {
            assert!(wrong.parse::<Mac>().is_err(), "{wrong}");
        }
    }
}

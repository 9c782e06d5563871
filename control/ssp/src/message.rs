//! What the two control processes say to each other, once the channel is secured. postcard inside one frame.

use crate::digest::PATH_MAX;
use crate::secure::CONTENT_MAX;
use serde::{Deserialize, Serialize};
use std::net::Ipv4Addr;
use tandem_api::dataplane::SaSpec;
use tandem_api::types::{Direction, KeyFingerprint, KeyMaterial};
use zeroize::Zeroizing;

/// Longest reason of a refusal, in octets.
pub const REASON_MAX: usize = 1024;
/// Longest software version, in octets.
const SOFTWARE_MAX: usize = 64;

/// One message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Message {
    /// The first one of each side.
    Hello(Hello),
    /// This session ends, and why; for the operator of the other node.
    Refuse {
        /// For people.
        reason: String,
    },
    /// The sender's configuration has changed.
    DigestChanged {
        /// Its new digest.
        digest: [u8; 32],
    },
    /// A part of the sender's keys, after different digests.
    Digests {
        /// Position of the first one.
        from: u32,
        /// Keys in the order of their paths.
        keys: Vec<DigestKey>,
        /// There are no more.
        last: bool,
    },
    /// The sender has reserved its terms above those of the partner's Hello, on disk (F1, F2).
    Reserved,
    /// Node 0: key of a new epoch.
    Epoch {
        /// Number.
        number: u32,
        /// 32 octets.
        secret: KeyMaterial,
    },
    /// Node 1 can open with it.
    EpochReady {
        /// Number.
        number: u32,
    },
    /// Node 0 opens and seals with it.
    EpochUse {
        /// Number.
        number: u32,
    },
    /// Node 1 seals with it.
    EpochUsed {
        /// Number.
        number: u32,
    },
    /// Node 1 has lost its keys or their counters (F6).
    EpochWanted {
        /// Numbers up to here may be in use.
        above: u32,
    },
    /// The sender's memory has a new incarnation.
    Incarnation {
        /// Number.
        incarnation: u64,
    },
    /// From the active node: the one ordered stream (F40).
    Stream {
        /// Count of stream messages up to and including this one.
        position: u64,
        /// Content.
        body: StreamBody,
    },
    /// The stream was applied up to here.
    Applied {
        /// Position.
        position: u64,
    },
    /// Are you there?
    Ping {
        /// Repeated in the answer.
        stamp: u64,
    },
    /// Yes.
    Pong {
        /// Of the question.
        stamp: u64,
    },
}

/// What a node says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// [`crate::VERSION`].
    pub version: u16,
    /// Package version, for people.
    pub software: String,
    /// Id of the term file.
    pub file_id: [u8; 16],
    /// 0 or 1.
    pub node: u8,
    /// Highest even and highest odd term that may have been used, as far as its term file knows (F1, F2).
    pub highest: [u64; 2],
    /// Highest own term reserved.
    pub reserved: u64,
    /// Newest reign heard of, of either node.
    pub reign: u64,
    /// Incarnation of its memory.
    pub incarnation: u64,
    /// Newest incarnation of the other node's memory that it has heard of; 0: none. A restored term file must not give it again.
    pub incarnation_seen: u64,
    /// Highest epoch number that it knows.
    pub epoch_highest: u32,
    /// Number of the epoch that it seals with; 0: none.
    pub epoch_used: u32,
    /// Digest of its configuration.
    pub digest: [u8; 32],
}

/// One key of a configuration.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct DigestKey {
    /// Where it stands, such as `crypto-map.site-b.static.inbound.key`.
    pub path: String,
    /// Hash of its value.
    pub hash: [u8; 8],
}

/// A message of the stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum StreamBody {
    /// All SAs follow, as they are at the moment of sending.
    BulkStart {
        /// Term of the sender's reign.
        reign: u64,
    },
    /// An SA, new or changed.
    Sa {
        /// Version; grows within a stream.
        version: u64,
        /// The SA with its key.
        spec: Box<SaSpec>,
    },
    /// An SA is gone.
    Delete {
        /// Version; grows within a stream.
        version: u64,
        /// Direction.
        direction: Direction,
        /// SPI.
        spi: u32,
        /// Peer.
        peer: Ipv4Addr,
        /// Of the key that it had.
        fingerprint: KeyFingerprint,
    },
    /// Every SA was named; what was not is gone.
    EndOfBulk,
}

/// Kinds of messages, for counters.
pub const KINDS: [&str; 18] = [
    "hello",
    "refuse",
    "digest-changed",
    "digests",
    "reserved",
    "epoch",
    "epoch-ready",
    "epoch-use",
    "epoch-used",
    "epoch-wanted",
    "incarnation",
    "bulk-start",
    "sa",
    "delete",
    "end-of-bulk",
    "applied",
    "ping",
    "pong",
];

/// Why octets are no message.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MessageError {
    /// Not a message of this version.
    #[error("no message of this version: {0}")]
    Codec(#[from] postcard::Error),
    /// Octets after the message.
    #[error("{0} octets after a message")]
    Trailing(usize),
    /// Something is longer than it may be.
    #[error("{0} is too long")]
    TooLong(&'static str),
}

impl Message {
    /// Position in [`KINDS`].
    #[must_use]
    pub fn kind(&self) -> usize {
        match self {
            Message::Hello(_) => 0,
            Message::Refuse { .. } => 1,
            Message::DigestChanged { .. } => 2,
            Message::Digests { .. } => 3,
            Message::Reserved => 4,
            Message::Epoch { .. } => 5,
            Message::EpochReady { .. } => 6,
            Message::EpochUse { .. } => 7,
            Message::EpochUsed { .. } => 8,
            Message::EpochWanted { .. } => 9,
            Message::Incarnation { .. } => 10,
            Message::Stream { body, .. } => match body {
                StreamBody::BulkStart { .. } => 11,
                StreamBody::Sa { .. } => 12,
                StreamBody::Delete { .. } => 13,
                StreamBody::EndOfBulk => 14,
            },
            Message::Applied { .. } => 15,
            Message::Ping { .. } => 16,
            Message::Pong { .. } => 17,
        }
    }

    /// Encodes it. The octets may hold keys.
    ///
    /// # Errors
    /// If it does not fit into one frame.
    pub fn encode(&self) -> Result<Zeroizing<Vec<u8>>, MessageError> {
        // In one piece of memory: a buffer that grows would leave copies of keys behind.
        let mut octets = Zeroizing::new(vec![0; CONTENT_MAX]);
        let length = postcard::to_slice(self, &mut octets)?.len();
        octets.truncate(length);
        Ok(octets)
    }

    /// Decodes exactly one message.
    ///
    /// # Errors
    /// If it is none.
    pub fn decode(octets: &[u8]) -> Result<Self, MessageError> {
        let (message, rest) = postcard::take_from_bytes::<Message>(octets)?;
        if !rest.is_empty() {
            return Err(MessageError::Trailing(rest.len()));
        }
        match &message {
            Message::Hello(hello) if hello.software.len() > SOFTWARE_MAX => {
                Err(MessageError::TooLong("the software version"))
            }
            Message::Refuse { reason } if reason.len() > REASON_MAX => {
                Err(MessageError::TooLong("the reason"))
            }
            Message::Digests { keys, .. } if keys.iter().any(|key| key.path.len() > PATH_MAX) => {
                Err(MessageError::TooLong("a path"))
            }
            _ => Ok(message),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use tandem_api::dataplane::StaleAction;
    use tandem_api::types::{Selector, Transform};

    fn spec() -> impl Strategy<Value = SaSpec> {
        let selector = (any::<u32>(), 0u8..=32, any::<u32>(), 0u8..=32).prop_map(|(local, l, remote, r)| {
            let net = |address: u32, length| ipnet::Ipv4Net::new(address.into(), length).unwrap();
            Selector { local: net(local, l), remote: net(remote, r) }
        });
        (
            any::<(bool, u32, u32, u32, u32, bool, u64, u64, bool)>(),
            prop::collection::vec(selector, 0..20),
            prop::collection::vec(any::<u8>(), 0..40),
            "[a-z]{0,63}",
        )
            .prop_map(
                |((inbound, spi, policy, local, peer, long, mark, base_term, hold), selectors, key, map)| {
                    SaSpec {
                        direction: if inbound { Direction::Inbound } else { Direction::Outbound },
                        spi,
                        policy,
                        selectors,
                        local: local.into(),
                        peer: peer.into(),
                        transform: if long { Transform::Aes256gcm16 } else { Transform::Aes128gcm16 },
                        key: KeyMaterial::new(key),
                        fingerprint: KeyFingerprint(mark),
                        base_term,
                        stale: if hold { StaleAction::Hold } else { StaleAction::Jump },
                        map,
                    }
                },
            )
    }

    fn message() -> impl Strategy<Value = Message> {
        let hello = (
            any::<(u16, [u8; 16], u8, [u64; 2], u64, u64, u64, u64, (u32, u32), [u8; 32])>(),
            "[0-9.]{0,64}",
        );
        let keys = prop::collection::vec(("[a-z.]{0,80}", any::<[u8; 8]>()), 0..40);
        prop_oneof![
            hello.prop_map(
                |(
                    (
                        version,
                        file_id,
                        node,
                        highest,
                        reserved,
                        reign,
                        incarnation,
                        seen,
                        (above, used),
                        digest,
                    ),
                    software,
                )| {
                    Message::Hello(Hello {
                        version,
                        software,
                        file_id,
                        node,
                        highest,
                        reserved,
                        reign,
                        incarnation,
                        incarnation_seen: seen,
                        epoch_highest: above,
                        epoch_used: used,
                        digest,
                    })
                }
            ),
            ".{0,200}".prop_map(|reason| Message::Refuse { reason }),
            any::<[u8; 32]>().prop_map(|digest| Message::DigestChanged { digest }),
            (any::<u32>(), keys, any::<bool>()).prop_map(|(from, keys, last)| Message::Digests {
                from,
                keys: keys.into_iter().map(|(path, hash)| DigestKey { path, hash }).collect(),
                last,
            }),
            Just(Message::Reserved),
            any::<(u32, [u8; 32])>().prop_map(|(number, secret)| Message::Epoch {
                number,
                secret: KeyMaterial::new(secret.to_vec()),
            }),
            any::<u32>().prop_map(|number| Message::EpochReady { number }),
            any::<u32>().prop_map(|number| Message::EpochUse { number }),
            any::<u32>().prop_map(|number| Message::EpochUsed { number }),
            any::<u32>().prop_map(|above| Message::EpochWanted { above }),
            any::<u64>().prop_map(|incarnation| Message::Incarnation { incarnation }),
            any::<(u64, u64)>().prop_map(|(position, reign)| Message::Stream {
                position,
                body: StreamBody::BulkStart { reign }
            }),
            (any::<(u64, u64)>(), spec()).prop_map(|((position, version), spec)| Message::Stream {
                position,
                body: StreamBody::Sa { version, spec: Box::new(spec) },
            }),
            any::<(u64, u64, u32, u32, u64)>().prop_map(|(position, version, spi, peer, mark)| {
                Message::Stream {
                    position,
                    body: StreamBody::Delete {
                        version,
                        direction: Direction::Outbound,
                        spi,
                        peer: peer.into(),
                        fingerprint: KeyFingerprint(mark),
                    },
                }
            }),
            any::<u64>().prop_map(|position| Message::Stream { position, body: StreamBody::EndOfBulk }),
            any::<u64>().prop_map(|position| Message::Applied { position }),
            any::<u64>().prop_map(|stamp| Message::Ping { stamp }),
            any::<u64>().prop_map(|stamp| Message::Pong { stamp }),
        ]
    }

    proptest! {
        #[test]
        fn every_message_is_read_as_it_was_written(message in message()) {
            let octets = message.encode().unwrap();
            prop_assert!(message.kind() < KINDS.len());
            prop_assert_eq!(Message::decode(&octets).unwrap(), message.clone());
            let mut longer = octets.to_vec();
            longer.push(0);
            prop_assert_eq!(Message::decode(&longer), Err(MessageError::Trailing(1)));
            for end in [0, octets.len() / 2, octets.len() - 1] {
                prop_assert!(Message::decode(&octets[..end]).is_err());
            }
        }

        #[test]
        fn hostile_octets_are_refused_without_panic(octets in prop::collection::vec(any::<u8>(), 0..600)) {
            if let Ok(message) = Message::decode(&octets) {
                prop_assert!(message.encode().is_ok());
            }
        }
    }

    #[test]
    fn what_is_too_long_is_refused() {
        let long = Message::Refuse { reason: "x".repeat(REASON_MAX + 1) };
        assert_eq!(Message::decode(&long.encode().unwrap()), Err(MessageError::TooLong("the reason")));
        let keys = vec![DigestKey { path: "x".repeat(PATH_MAX + 1), hash: [0; 8] }];
        let long = Message::Digests { from: 0, keys, last: true };
        assert_eq!(Message::decode(&long.encode().unwrap()), Err(MessageError::TooLong("a path")));
        assert!(Message::Refuse { reason: "x".repeat(CONTENT_MAX) }.encode().is_err());
    }
}

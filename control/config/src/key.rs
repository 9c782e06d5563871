//! Keying material of static SAs, and its fingerprint.

use crate::finding::Report;
use crate::reader::{Field, Section};
use crate::settings::KeyFileReader;
use sha2::{Digest, Sha256};
use std::ops::Range;
use tandem_api::types::{KeyFingerprint, KeyMaterial, Transform};

/// Salt of AES-GCM in ESP, after the key (RFC 4106 section 8.1), in octets.
const SALT_LEN: usize = 4;

/// The fingerprint of a key: SHA-256 over `tandem key 1`, a zero octet, the transform's name, a zero
/// octet, key and salt; its first 8 octets, big endian. Never 0, which means "no key" in the hot state.
#[must_use]
pub fn fingerprint(transform: Transform, key: &KeyMaterial) -> KeyFingerprint {
    let mut hash = Sha256::new();
    hash.update(b"tandem key 1\0");
    hash.update(transform.to_string().as_bytes());
    hash.update([0]);
    hash.update(key.expose());
    let digest = hash.finalize();
    let first = digest.iter().take(8).fold(0u64, |number, octet| number << 8 | u64::from(*octet));
    KeyFingerprint(first.max(1))
}

/// Reads `key` or `key-file` of an SA. Also gives the place to point at.
pub(crate) fn read(
    section: &mut Section<'_, '_>,
    transform: Option<Transform>,
    read_file: KeyFileReader<'_>,
    report: &mut Report<'_>,
) -> Option<(KeyMaterial, Range<usize>, String)> {
    let key = section.find("key");
    let file = section.find("key-file");
    if let Some(field) = &key {
        report.hide(field.span.clone());
    }
    let (field, bytes) = match (key, file) {
        (Some(key), None) => {
            let text = key.string(report)?;
            if key.is_escaped() {
                // The unescaped copy would not be zeroized.
                key.error(report, "a key is written without escapes", "write hexadecimal digits only");
                return None;
            }
            let bytes = decode(text, &key, report)?;
            (key, bytes)
        }
        (None, Some(file)) => {
            let name = file.string(report)?;
            let text = match read_file(name) {
                Ok(text) => text,
                Err(error) => {
                    let cure =
                        "make the file readable for the user that runs Tandem, with the key in hexadecimal";
                    file.error(report, format!("key file cannot be read: {error}"), cure);
                    return None;
                }
            };
            let bytes = decode(text.trim(), &file, report)?;
            (file, bytes)
        }
        (Some(key), Some(_)) => {
            key.error(report, "both `key` and `key-file` are there", "keep one of them");
            return None;
        }
        (None, None) => {
            let cure = "add `key = \"...\"` (key and salt in hexadecimal) or `key-file = \"...\"`";
            report.error(section.span.clone(), section.path.clone(), "`key` is missing", cure);
            return None;
        }
    };
    let transform = transform?;
    let (have, want) = (bytes.expose().len(), transform.key_len() + SALT_LEN);
    if have != want {
        let message = format!("{transform} takes a key of {want} octets, this one has {have}");
        let (key_len, digits) = (transform.key_len(), 2 * want);
        let cure = format!(
            "write {digits} hexadecimal digits: {key_len} octets of key, then {SALT_LEN} of salt \
             (new ones: openssl rand -hex {want})"
        );
        field.error(report, message, cure);
        return None;
    }
    Some((bytes, field.span, field.path))
}

fn decode(text: &str, field: &Field<'_, '_>, report: &mut Report<'_>) -> Option<KeyMaterial> {
    let digits = text.strip_prefix("0x").unwrap_or(text);
    match hex::decode(digits) {
        Ok(bytes) => Some(KeyMaterial::new(bytes)),
        Err(error) => {
            // The decoder's own message would quote a character of the key.
            let message = match error {
                hex::FromHexError::OddLength => "the key has an odd number of hexadecimal digits",
                _ => "the key is not hexadecimal",
            };
            field.error(report, message, "write the digits 0 to 9 and a to f only, two for each octet");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fingerprint_depends_on_transform_key_and_salt_and_never_changes() {
        let key = |last: u8| KeyMaterial::new((0..19).chain([last]).collect());
        let first = fingerprint(Transform::Aes128gcm16, &key(1));
        // A change would orphan the hot state of every SA across an upgrade (F8). Value computed with
        // Python's hashlib.
        assert_eq!(first.to_string(), "2d59e07177657134");
        assert_ne!(first, fingerprint(Transform::Aes128gcm16, &key(2)));
        assert_ne!(first, fingerprint(Transform::Aes256gcm16, &key(1)));
    }
}

//! Reading classic pcap files: what `tcpdump -w` and the judges' generators write.

use anyhow::{Context, Result, bail, ensure};
use std::path::Path;
use std::time::Duration;

/// A recorded frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Time since the epoch.
    pub time: Duration,
    /// The octets that were kept.
    pub frame: Vec<u8>,
    /// Octets that the frame had.
    pub length: u32,
}

/// Reads a whole file.
///
/// # Errors
/// Where the file cannot be read or is no Ethernet pcap.
pub fn read(path: &Path) -> Result<Vec<Record>> {
    parse(&std::fs::read(path).with_context(|| format!("reading {}", path.display()))?)
}

/// Reads the frames of a file, without their times.
///
/// # Errors
/// As [`read`].
pub fn frames(path: &Path) -> Result<Vec<Vec<u8>>> {
    Ok(read(path)?.into_iter().map(|record| record.frame).collect())
}

fn parse(file: &[u8]) -> Result<Vec<Record>> {
    let (header, mut rest) = file.split_first_chunk::<24>().context("shorter than a pcap header")?;
    let magic: [u8; 4] = [header[0], header[1], header[2], header[3]];
    let (big, nanoseconds) = match magic {
        [0xd4, 0xc3, 0xb2, 0xa1] => (false, false),
        [0x4d, 0x3c, 0xb2, 0xa1] => (false, true),
        [0xa1, 0xb2, 0xc3, 0xd4] => (true, false),
        [0xa1, 0xb2, 0x3c, 0x4d] => (true, true),
        _ => bail!("no pcap file"),
    };
    let word = |octets: &[u8]| {
        let octets: [u8; 4] = octets.try_into().unwrap_or_default();
        if big { u32::from_be_bytes(octets) } else { u32::from_le_bytes(octets) }
    };
    ensure!(word(&header[20..24]) == 1, "link type {} is not Ethernet", word(&header[20..24]));
    let mut records = Vec::new();
    while let Some((head, tail)) = rest.split_first_chunk::<16>() {
        let fraction = word(&head[4..8]);
        let kept = word(&head[8..12]) as usize;
        // A capture that was cut in the middle of a record ends with the last whole one.
        let Some((frame, next)) = tail.split_at_checked(kept) else { break };
        records.push(Record {
            time: Duration::from_secs(u64::from(word(&head[0..4])))
                + if nanoseconds {
                    Duration::from_nanos(u64::from(fraction))
                } else {
                    Duration::from_micros(u64::from(fraction))
                },
            frame: frame.to_vec(),
            length: word(&head[12..16]),
        });
        rest = next;
    }
    Ok(records)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(frames: &[&[u8]]) -> Vec<u8> {
        let mut file = Vec::new();
        for word in [0xa1b2_c3d4_u32, 0x0004_0002, 0, 0, 65535, 1] {
            file.extend(word.to_le_bytes());
        }
        for (second, frame) in (1_u32..).zip(frames) {
            let length = u32::try_from(frame.len()).expect("short");
            for word in [second, 5, length, length] {
                file.extend(word.to_le_bytes());
            }
            file.extend(*frame);
        }
        file
    }

    #[test]
    fn frames_and_times_come_back() {
        let records = parse(&file(&[b"one", b"three"])).expect("a pcap");
        assert_eq!(records.len(), 2);
        assert_eq!(records[1].frame, b"three");
        assert_eq!(records[1].time, Duration::new(2, 5_000));
    }

    #[test]
    fn a_file_cut_at_any_octet_gives_the_whole_records_or_an_error_and_never_panics() {
        let whole = file(&[b"one", b"three"]);
        for cut in 0..whole.len() {
            match parse(&whole[..cut]) {
                Ok(records) => assert!(cut >= 24 && records.len() < 2, "{cut}"),
                Err(_) => assert!(cut < 24, "{cut}"),
            }
        }
    }

    #[test]
    fn another_link_type_is_refused() {
        let mut other = file(&[]);
        other[20] = 113;
        assert!(parse(&other).is_err());
    }
}

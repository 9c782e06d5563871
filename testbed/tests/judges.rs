//! The judge of captures must find what it is there to find. No privileges, Python's own library only.

use serde_json::Value;
use std::path::Path;
use std::process::Command;

const A: [u8; 4] = [192, 0, 2, 1];
const B: [u8; 4] = [198, 51, 100, 1];

fn frame(protocol: u8, source: [u8; 4], destination: [u8; 4], payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 0x08, 0x00];
    let length = u16::try_from(20 + payload.len()).expect("short");
    frame.extend([0x45, 0]);
    frame.extend(length.to_be_bytes());
    frame.extend([0, 0, 0, 0, 64, protocol, 0, 0]);
    frame.extend(source);
    frame.extend(destination);
    frame.extend(payload);
    frame
}

fn esp(spi: u32, sequence: u32, iv: u64) -> Vec<u8> {
    let mut payload = spi.to_be_bytes().to_vec();
    payload.extend(sequence.to_be_bytes());
    payload.extend(iv.to_be_bytes());
    payload.extend([0xee; 40]);
    frame(50, A, B, &payload)
}

fn judge(frames: &[Vec<u8>], more: &[&str]) -> Value {
    let mut arguments = vec!["--protected", "10.1.0.0/24,10.2.0.0/24"];
    arguments.extend(more);
    ask("capture_check.py", frames, &arguments)
}

fn ask(judge: &str, frames: &[Vec<u8>], arguments: &[&str]) -> Value {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("capture.pcap");
    let mut file = Vec::new();
    for word in [0xa1b2_c3d4_u32, 0x0004_0002, 0, 0, 65535, 1] {
        file.extend(word.to_le_bytes());
    }
    for frame in frames {
        let length = u32::try_from(frame.len()).expect("short");
        for word in [0, 0, length, length] {
            file.extend(word.to_le_bytes());
        }
        file.extend(frame);
    }
    std::fs::write(&path, file).expect("written");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("judges").join(judge);
    let output = Command::new("/usr/bin/python3")
        .arg(script)
        .arg(&path)
        .args(arguments)
        .output()
        .expect("python3 runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("a JSON object")
}

#[test]
fn a_clean_capture_is_clean() {
    let frames: Vec<_> = (1..100).map(|number| esp(0x2001, number, u64::from(number) << 16)).collect();
    let verdict = judge(&frames, &[]);
    for key in ["repeated_iv", "repeated_sequence", "clear", "unknown_spi", "cut", "other"] {
        assert_eq!(verdict[key], 0, "{key}");
    }
    assert_eq!(verdict["esp"], 99);
}

#[test]
fn an_iv_used_twice_under_one_spi_is_found_and_under_two_is_not() {
    assert_eq!(judge(&[esp(1, 1, 7), esp(1, 2, 7)], &[])["repeated_iv"], 1);
    assert_eq!(judge(&[esp(1, 1, 7), esp(2, 2, 7)], &[])["repeated_iv"], 0);
}

#[test]
fn a_sequence_number_used_twice_is_found() {
    assert_eq!(judge(&[esp(1, 9, 1), esp(1, 10, 2), esp(1, 9, 3)], &[])["repeated_sequence"], 1);
}

#[test]
fn a_protected_packet_in_clear_is_found_in_both_directions_and_behind_a_vlan_tag() {
    let (a, b) = ([10, 1, 0, 10], [10, 2, 0, 10]);
    let mut tagged = frame(6, a, b, b"x");
    tagged.splice(12..12, [0x81, 0x00, 0x00, 0x05]);
    let frames = [frame(17, a, b, b"x"), frame(1, b, a, b"x"), tagged, frame(17, a, [203, 0, 113, 1], b"x")];
    let verdict = judge(&frames, &[]);
    assert_eq!(verdict["clear"], 3);
    assert_eq!(verdict["other_ipv4"], 4);
}

#[test]
fn only_frames_of_a_named_attacker_are_left_out() {
    let attacker = esp(1, 1, 7);
    let mut gateway = esp(1, 1, 7);
    gateway[11] = 9;
    let verdict = judge(&[attacker, gateway.clone(), gateway], &["--ignore-mac", "02:00:00:00:00:01"]);
    assert_eq!(verdict["ignored"], 1);
    assert_eq!(verdict["repeated_iv"], 1);
}

const ONE: &str = "02:00:00:00:00:01";
const OTHER: &str = "02:00:00:00:00:09";

/// What a node sent: sequence numbers under a term.
fn sent(other: bool, term: u64, numbers: impl Iterator<Item = u32>) -> Vec<Vec<u8>> {
    numbers
        .map(|number| {
            let mut frame = esp(0x2001, number, term << 48 | u64::from(number) << 1 | u64::from(other));
            frame[11] = if other { 9 } else { 1 };
            frame
        })
        .collect()
}

fn pair(parts: &[Vec<Vec<u8>>]) -> Value {
    judge(&parts.concat(), &["--node", ONE, "--node", OTHER])
}

#[test]
fn reigns_with_ascending_numbers_are_clean_and_listed() {
    let verdict = pair(&[sent(false, 2, 1..50), sent(true, 3, 1000..1050), sent(false, 4, 2000..2001)]);
    for key in ["shared_term", "not_above", "late", "repeated_iv", "repeated_sequence"] {
        assert_eq!(verdict[key], 0, "{key}");
    }
    let terms: Vec<u64> =
        verdict["reigns"].as_array().expect("a list").iter().filter_map(|r| r["term"].as_u64()).collect();
    assert_eq!(terms, [2, 3, 4]);
}

#[test]
fn a_number_of_a_new_reign_that_is_not_above_the_old_ones_is_found() {
    assert_eq!(pair(&[sent(false, 2, 1..50), sent(true, 3, 40..41)])["not_above"], 1);
    // Also below a number that the old node put on the wire only later, and two reigns on.
    let late = pair(&[sent(false, 2, 1..5), sent(true, 3, 10..20), sent(false, 2, 15..16)]);
    assert_eq!((&late["not_above"], &late["late"]), (&1.into(), &1.into()));
    let back = pair(&[sent(false, 2, 90..99), sent(true, 3, 100..110), sent(false, 4, 95..96)]);
    assert_eq!(back["not_above"], 2);
}

#[test]
fn frames_in_flight_of_the_old_node_are_allowed_and_a_term_of_both_is_not() {
    let late = pair(&[sent(false, 2, 1..5), sent(true, 3, 10..20), sent(false, 2, 6..7)]);
    assert_eq!((&late["not_above"], &late["late"]), (&0.into(), &1.into()));
    assert_eq!(pair(&[sent(false, 2, 1..5), sent(true, 2, 10..20)])["shared_term"], 1);
}

#[test]
fn a_packet_that_is_delivered_twice_is_found_whatever_the_way_did_to_its_ttl() {
    let (a, b) = ([10, 1, 0, 10], [10, 2, 0, 10]);
    let numbered = |number: u8, ttl: u8| {
        let mut frame = frame(17, b, a, b"numbered datagram");
        (frame[19], frame[22]) = (number, ttl);
        frame
    };
    let inside = |frames: &[Vec<u8>]| {
        ask("inside_check.py", frames, &["--from", "10.2.0.0/24", "--to", "10.1.0.0/24"])
    };
    let clean = inside(&[numbered(1, 62), numbered(2, 62), frame(17, a, b, b"x"), frame(17, a, b, b"x")]);
    assert_eq!((&clean["packets"], &clean["repeated"]), (&2.into(), &0.into()));
    let twice = inside(&[numbered(1, 62), numbered(2, 62), numbered(1, 61)]);
    assert_eq!((&twice["packets"], &twice["repeated"]), (&3.into(), &1.into()));
}

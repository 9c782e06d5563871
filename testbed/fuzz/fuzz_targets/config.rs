//! A configuration is whatever somebody wrote into a file: reading it never panics, what is accepted can
//! be sent to a data plane, and what is refused is explained without showing a key.
//!
//! Input: the configuration, and after a zero octet the text of the key file that it names, if any.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tandem_api::dataplane::{Body, Request, SAS_PER_MESSAGE, encode};
use tandem_config::{Findings, Settings, Source, load};
use zeroize::Zeroizing;

fuzz_target!(|octets: &[u8]| {
    let Ok(input) = std::str::from_utf8(octets) else { return };
    let (text, key_file) = input.split_once('\0').unwrap_or((input, ""));
    match read(text, key_file) {
        Ok(settings) => accepted(text, key_file, settings),
        Err(findings) => refused(text, key_file, &findings),
    }
});

fn read(text: &str, key_file: &str) -> Result<Settings, Findings> {
    let source = Source::new("fuzz.toml", text.to_owned());
    load(&source, &mut |name| match name {
        "unreadable" => Err("permission denied".to_owned()),
        _ => Ok(Zeroizing::new(key_file.to_owned())),
    })
}

fn accepted(text: &str, key_file: &str, mut settings: Settings) {
    assert_eq!(read(text, key_file).as_ref(), Ok(&settings));

    let configure = Request { id: u64::MAX, body: Body::Configure(Box::new(settings.data_plane.clone())) };
    encode(&configure).expect("what is accepted fits into a message");
    for sas in settings.sas.chunks(SAS_PER_MESSAGE) {
        for sa in sas {
            assert_eq!(sa.key.expose().len(), sa.transform.key_len() + 4);
            assert!(sa.spi >= 256);
            assert!(!sa.selectors.is_empty());
        }
    }
    assert!(settings.sas.len() <= 2 * settings.start.max_sas as usize);
    assert!(settings.start.frames.is_power_of_two());

    let before = settings.clone();
    settings.renumber(&before.numbers());
    assert_eq!(settings, before, "numbers that are known already stay");
}

fn refused(text: &str, key_file: &str, findings: &Findings) {
    let shown = findings.to_string();
    let lines = text.split('\n').count();
    assert!(findings.iter().next().is_some());
    for finding in findings.iter() {
        assert!((1..=lines).contains(&finding.line) && finding.column >= 1);
        assert!(!finding.message.is_empty() && !finding.cure.is_empty());
    }
    // Only what looks like a key and stands nowhere else can be told from the messages' own words.
    let key = key_file.trim();
    let is_key = key.len() >= 16 && key.bytes().all(|octet| octet.is_ascii_hexdigit());
    if is_key && !text.replace('_', "").contains(key) {
        assert!(!shown.contains(key), "the key file's text is shown: {shown}");
    }
}

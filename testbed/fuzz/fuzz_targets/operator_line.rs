//! Any user of the operators' group may write any line: it is a question, or a refusal that can be written back.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tandem_api::operator::Question;

fuzz_target!(|octets: &[u8]| {
    if let Err((_, failure)) = Question::parse(octets) {
        serde_json::to_vec(&failure).expect("a refusal is written back");
    }
});

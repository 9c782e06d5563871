//! What a data plane and a control process decode from each other is hostile until it is decoded: it
//! never panics, and a message that is decoded means the same when it is encoded again.

#![no_main]

use libfuzzer_sys::fuzz_target;
use serde::{Serialize, de::DeserializeOwned};
use tandem_api::dataplane::{Answer, MESSAGE_MAX, Request, decode, encode};

fuzz_target!(|octets: &[u8]| {
    round_trip::<Request>(octets);
    round_trip::<Answer>(octets);
});

fn round_trip<T: Serialize + DeserializeOwned + std::fmt::Debug>(octets: &[u8]) {
    let Ok(message) = decode::<T>(octets) else { return };
    let encoded = match encode(&message) {
        Ok(encoded) => encoded,
        Err(error) => {
            assert!(octets.len() > MESSAGE_MAX, "{error}: {message:?}");
            return;
        }
    };
    // Integers may have been encoded longer than need be, so that the octets themselves can differ.
    assert!(encoded.len() <= octets.len());
    let again: T = decode(&encoded).expect("an encoded message is decoded");
    assert_eq!(encode(&again).as_ref(), Ok(&encoded));
    assert_eq!(format!("{again:?}"), format!("{message:?}"));
}

//! What control processes say to each other comes out of an authenticated channel, in frames: neither the frames nor
//! what is in them makes the reader panic, and a message that is decoded means the same when it is encoded again.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tandem_ssp::frame::Reader;
use tandem_ssp::message::Message;

fuzz_target!(|octets: &[u8]| {
    let mut reader = Reader::default();
    reader.push(octets);
    while let Ok(Some(frame)) = reader.next_frame() {
        let Ok(message) = Message::decode(frame) else { continue };
        // What fitted into a frame fits again: integers may only have been encoded longer than need be.
        let encoded = message.encode().expect("a decoded message is encoded");
        assert!(encoded.len() <= frame.len());
        assert_eq!(Message::decode(&encoded).as_ref(), Ok(&message));
    }
});

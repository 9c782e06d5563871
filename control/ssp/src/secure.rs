//! The secured channel: Noise pattern KK (both static keys are known beforehand), X25519, ChaCha20-Poly1305, SHA-256.
//!
//! A replayed first message is answered, but what follows does not open: the answer holds a fresh ephemeral key. So the
//! answering side knows its partner only once a transport message has opened.

use crate::VERSION;
use crate::frame::FRAME_MAX;
use snow::{Builder, HandshakeState, TransportState};
use zeroize::Zeroizing;

const PATTERN: &str = "Noise_KK_25519_ChaChaPoly_SHA256";
/// Octets that sealing adds.
const TAG: usize = 16;
/// Longest content of a transport message, in octets.
pub const CONTENT_MAX: usize = FRAME_MAX - TAG;

/// Why the channel failed. It is of no use afterwards.
#[derive(Debug, thiserror::Error)]
pub enum SecureError {
    /// The other side does not hold the expected key, or octets were changed.
    #[error("{0}")]
    Noise(#[from] snow::Error),
    /// Something that this state of the channel does not have.
    #[error("the channel is not in that state")]
    OutOfStep,
}

enum State {
    Handshake(Box<HandshakeState>),
    Transport(Box<TransportState>),
}

/// One side of the channel.
pub struct Secure {
    state: Option<State>,
}

impl Secure {
    /// The side that dials writes the first message.
    ///
    /// # Errors
    /// If a key cannot be used.
    pub fn new(dialled: bool, own: &[u8; 32], partner: &[u8; 32]) -> Result<Self, SecureError> {
        let mut prologue = *b"tandem-ssp\0\0";
        prologue[10..].copy_from_slice(&VERSION.to_be_bytes());
        let pattern = PATTERN.parse()?;
        let builder =
            Builder::new(pattern).prologue(&prologue)?.local_private_key(own)?.remote_public_key(partner)?;
        let state = if dialled { builder.build_initiator()? } else { builder.build_responder()? };
        Ok(Self { state: Some(State::Handshake(Box::new(state))) })
    }

    /// Is the handshake over?
    #[must_use]
    pub fn is_open(&self) -> bool {
        matches!(self.state, Some(State::Transport(_)))
    }

    /// The next handshake message, if it is this side's turn.
    ///
    /// # Errors
    /// If it cannot be made.
    pub fn write_handshake(&mut self) -> Result<Option<Vec<u8>>, SecureError> {
        let Some(State::Handshake(state)) = &mut self.state else { return Ok(None) };
        if !state.is_my_turn() {
            return Ok(None);
        }
        let mut message = vec![0; 256];
        let length = state.write_message(&[], &mut message)?;
        message.truncate(length);
        self.finish()?;
        Ok(Some(message))
    }

    /// Takes the other side's handshake message.
    ///
    /// # Errors
    /// If it is not authentic, or not due.
    pub fn read_handshake(&mut self, message: &[u8]) -> Result<(), SecureError> {
        let Some(State::Handshake(state)) = &mut self.state else { return Err(SecureError::OutOfStep) };
        // The payload is empty: what is said in the first message could be replayed.
        state.read_message(message, &mut [0; 256])?;
        self.finish()
    }

    fn finish(&mut self) -> Result<(), SecureError> {
        self.state = match self.state.take() {
            Some(State::Handshake(state)) if state.is_handshake_finished() => {
                Some(State::Transport(Box::new(state.into_transport_mode()?)))
            }
            other => other,
        };
        Ok(())
    }

    /// Seals one message of at most [`CONTENT_MAX`] octets.
    ///
    /// # Errors
    /// If the handshake is not over, or the content too long.
    pub fn seal(&mut self, content: &[u8]) -> Result<Vec<u8>, SecureError> {
        let Some(State::Transport(state)) = &mut self.state else { return Err(SecureError::OutOfStep) };
        let mut message = vec![0; content.len() + TAG];
        let length = state.write_message(content, &mut message)?;
        message.truncate(length);
        Ok(message)
    }

    /// Opens one message.
    ///
    /// # Errors
    /// If it is not authentic, was seen before, or is out of order.
    pub fn open(&mut self, message: &[u8]) -> Result<Zeroizing<Vec<u8>>, SecureError> {
        let Some(State::Transport(state)) = &mut self.state else { return Err(SecureError::OutOfStep) };
        let mut content = Zeroizing::new(vec![0; message.len()]);
        let length = state.read_message(message, &mut content)?;
        content.truncate(length);
        Ok(content)
    }
}

impl std::fmt::Debug for Secure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Secure({})", if self.is_open() { "open" } else { "handshake" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use x25519_dalek::{PublicKey, StaticSecret};

    fn key(seed: u8) -> ([u8; 32], [u8; 32]) {
        let secret = StaticSecret::from([seed; 32]);
        (secret.to_bytes(), PublicKey::from(&secret).to_bytes())
    }

    /// Both sides; gives the error of the one that noticed.
    fn handshake(dialling: &mut Secure, listening: &mut Secure) -> Result<(), SecureError> {
        listening.read_handshake(&dialling.write_handshake()?.unwrap())?;
        dialling.read_handshake(&listening.write_handshake()?.unwrap())
    }

    fn pair() -> (Secure, Secure) {
        let ((a, a_public), (b, b_public)) = (key(1), key(2));
        let mut dialling = Secure::new(true, &a, &b_public).unwrap();
        let mut listening = Secure::new(false, &b, &a_public).unwrap();
        handshake(&mut dialling, &mut listening).unwrap();
        (dialling, listening)
    }

    #[test]
    fn what_one_seals_the_other_opens_in_both_directions() {
        let (mut a, mut b) = pair();
        assert!(a.is_open() && b.is_open());
        for length in [0, 1, 1000, CONTENT_MAX] {
            let sealed = a.seal(&vec![7; length]).unwrap();
            assert_eq!(*b.open(&sealed).unwrap(), vec![7; length]);
            let sealed = b.seal(&vec![8; length]).unwrap();
            assert_eq!(*a.open(&sealed).unwrap(), vec![8; length]);
        }
        assert!(a.seal(&vec![0; CONTENT_MAX + 1]).is_err());
    }

    #[test]
    fn a_changed_repeated_or_skipped_message_does_not_open() {
        let (mut a, mut b) = pair();
        let first = a.seal(b"first").unwrap();
        let mut changed = first.clone();
        changed[2] ^= 1;
        assert!(b.open(&changed).is_err());
        let (mut a, mut b) = pair();
        let first = a.seal(b"first").unwrap();
        let second = a.seal(b"second").unwrap();
        b.open(&first).unwrap();
        assert!(b.open(&first).is_err());
        let (mut a, mut b2) = pair();
        let _ = a.seal(b"first").unwrap();
        assert!(b2.open(&a.seal(b"second").unwrap()).is_err());
        assert!(b.open(&second).is_ok());
    }

    #[test]
    fn a_stranger_and_a_wrong_partner_are_not_let_in() {
        let ((a, a_public), (b, b_public), (c, _)) = (key(1), key(2), key(3));
        // A stranger who knows both public keys.
        let mut stranger = Secure::new(true, &c, &b_public).unwrap();
        let mut listening = Secure::new(false, &b, &a_public).unwrap();
        assert!(handshake(&mut stranger, &mut listening).is_err());
        // The right partner, dialled by one that expects another.
        let mut dialling = Secure::new(true, &a, &key(4).1).unwrap();
        let mut listening = Secure::new(false, &b, &a_public).unwrap();
        assert!(handshake(&mut dialling, &mut listening).is_err());
    }

    #[test]
    fn a_replayed_handshake_opens_nothing() {
        let ((a, a_public), (b, b_public)) = (key(1), key(2));
        let mut dialling = Secure::new(true, &a, &b_public).unwrap();
        let mut listening = Secure::new(false, &b, &a_public).unwrap();
        let hello = dialling.write_handshake().unwrap().unwrap();
        listening.read_handshake(&hello).unwrap();
        dialling.read_handshake(&listening.write_handshake().unwrap().unwrap()).unwrap();
        let said = dialling.seal(b"said").unwrap();
        assert_eq!(&**listening.open(&said).unwrap(), b"said");
        let mut again = Secure::new(false, &b, &a_public).unwrap();
        again.read_handshake(&hello).unwrap();
        again.write_handshake().unwrap().unwrap();
        assert!(again.open(&said).is_err());
    }
}

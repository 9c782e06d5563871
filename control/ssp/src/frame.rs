//! Frames in a stream of octets: two octets of length (big endian), then so many octets.
//!
//! The length field bounds a frame to [`FRAME_MAX`], which is also the longest Noise message. So what a hostile sender
//! can make a reader keep is one frame and what came with it.

/// Longest frame in octets, without its length field.
pub const FRAME_MAX: usize = u16::MAX as usize;

/// Why octets are no frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// A frame without content: no message of any version.
    #[error("an empty frame")]
    Empty,
    /// Content longer than [`FRAME_MAX`].
    #[error("a frame of {0} octets is longer than {FRAME_MAX}")]
    TooLong(usize),
}

/// Puts a length before `content`.
///
/// # Errors
/// If it is empty or too long.
pub fn encode(content: &[u8]) -> Result<Vec<u8>, FrameError> {
    let length = u16::try_from(content.len()).map_err(|_| FrameError::TooLong(content.len()))?;
    if length == 0 {
        return Err(FrameError::Empty);
    }
    let mut frame = Vec::with_capacity(2 + content.len());
    frame.extend_from_slice(&length.to_be_bytes());
    frame.extend_from_slice(content);
    Ok(frame)
}

/// Takes frames out of a stream of octets.
#[derive(Debug, Default)]
pub struct Reader {
    buffer: Vec<u8>,
    start: usize,
}

impl Reader {
    /// Takes over octets that have arrived. All frames are to be taken out before the next call.
    pub fn push(&mut self, octets: &[u8]) {
        self.buffer.drain(..self.start);
        self.start = 0;
        self.buffer.extend_from_slice(octets);
    }

    /// The next whole frame's content.
    ///
    /// # Errors
    /// If a frame is empty; the stream is of no use from there on.
    pub fn next_frame(&mut self) -> Result<Option<&[u8]>, FrameError> {
        let rest = &self.buffer[self.start..];
        let Some((length, rest)) = rest.split_first_chunk::<2>() else { return Ok(None) };
        let length = usize::from(u16::from_be_bytes(*length));
        if length == 0 {
            return Err(FrameError::Empty);
        }
        if rest.len() < length {
            return Ok(None);
        }
        let at = self.start + 2;
        self.start = at + length;
        Ok(Some(&self.buffer[at..at + length]))
    }

    /// Octets of a frame that is not whole yet.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.buffer.len() - self.start
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn frames_come_out_as_they_went_in_however_the_stream_was_cut(
            frames in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..300), 0..12),
            cuts in prop::collection::vec(1usize..50, 1..20),
        ) {
            let stream: Vec<u8> = frames.iter().flat_map(|frame| encode(frame).unwrap()).collect();
            let mut reader = Reader::default();
            let mut out = Vec::new();
            let (mut at, mut cuts) = (0, cuts.iter().cycle());
            while at < stream.len() {
                let end = (at + cuts.next().unwrap()).min(stream.len());
                reader.push(&stream[at..end]);
                while let Some(frame) = reader.next_frame().unwrap() {
                    out.push(frame.to_vec());
                }
                at = end;
            }
            prop_assert_eq!(out, frames);
            prop_assert_eq!(reader.pending(), 0);
        }

        #[test]
        fn any_octets_are_read_without_panic_and_keep_at_most_one_frame(
            octets in prop::collection::vec(any::<u8>(), 0..2000),
        ) {
            let mut reader = Reader::default();
            reader.push(&octets);
            while let Ok(Some(frame)) = reader.next_frame() {
                prop_assert!(!frame.is_empty());
            }
            prop_assert!(reader.pending() <= octets.len());
        }
    }

    #[test]
    fn a_frame_has_from_1_to_65535_octets() {
        assert_eq!(encode(&[]), Err(FrameError::Empty));
        assert_eq!(encode(&vec![0; FRAME_MAX + 1]), Err(FrameError::TooLong(FRAME_MAX + 1)));
        let mut reader = Reader::default();
        reader.push(&encode(&vec![7; FRAME_MAX]).unwrap());
        assert_eq!(reader.next_frame().unwrap().map(<[u8]>::len), Some(FRAME_MAX));
        reader.push(&[0, 0]);
        assert_eq!(reader.next_frame(), Err(FrameError::Empty));
    }
}

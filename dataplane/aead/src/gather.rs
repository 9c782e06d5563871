//! Bursts packet by packet, for libraries that take a text only in one piece.

use crate::job::{MAX_GATHERED, OpenJob, SealJob, Segments};
use crate::{BURST, Verdicts};

/// Memory in which the segments of one packet become one piece.
pub(crate) struct Scratch(Box<[u8]>);

impl Scratch {
    pub(crate) fn new() -> Self {
        Scratch(vec![0; MAX_GATHERED].into_boxed_slice())
    }

    /// Copies the segments together. `Segments` holds no more than fits.
    fn gather(&mut self, text: &Segments<'_>) -> &mut [u8] {
        let mut filled = 0;
        for segment in text.iter() {
            let Some(room) = self.0.get_mut(filled..filled + segment.len()) else { break };
            room.copy_from_slice(segment);
            filled += segment.len();
        }
        &mut self.0[..filled]
    }

    /// Seals each job with its key.
    pub(crate) fn seal_each(&mut self, burst: &mut [SealJob<'_>]) {
        for job in burst {
            if let Some(text) = job.text.contiguous() {
                job.key.seal(&job.nonce, &job.aad, text, job.tag);
            } else {
                let text = self.gather(&job.text);
                job.key.seal(&job.nonce, &job.aad, text, job.tag);
                scatter(text, &mut job.text);
            }
        }
    }

    /// Opens each job with its key.
    pub(crate) fn open_each(&mut self, burst: &mut [OpenJob<'_>]) -> Verdicts {
        let mut verdicts = Verdicts::default();
        for (index, job) in burst.iter_mut().take(BURST).enumerate() {
            let authentic = if let Some(text) = job.text.contiguous() {
                job.key.open(&job.nonce, &job.aad, text, job.tag)
            } else {
                let text = self.gather(&job.text);
                let authentic = job.key.open(&job.nonce, &job.aad, text, job.tag);
                if authentic {
                    scatter(text, &mut job.text);
                }
                authentic
            };
            if authentic {
                verdicts.set(index);
            }
        }
        verdicts
    }
}

/// The reverse of [`Scratch::gather`].
fn scatter(mut gathered: &[u8], text: &mut Segments<'_>) {
    for segment in text.iter_mut() {
        let Some((head, tail)) = gathered.split_at_checked(segment.len()) else { return };
        segment.copy_from_slice(head);
        gathered = tail;
    }
}

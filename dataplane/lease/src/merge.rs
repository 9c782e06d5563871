//! What a standby does with a record: it joins it to what it has. Loss, repetition and order do not matter, because
//! every part of the state only grows.

use crate::message::Record;
use crate::mutant::{self, Mutant};
use crate::sa::Way;
use std::sync::atomic::Ordering;
use tandem_esp::window;
use tandem_shm::HotState;

/// Joins a record to the hot state of its slot. Gives the number that must be reserved on disk before it is
/// acknowledged (F40): the end of the lease, or the top of the window. `None`: there is no such slot.
pub fn merge(record: &Record, slot: u32, hot: &HotState) -> Option<u64> {
    let overwrite = mutant::is(Mutant::LastWriterWins);
    match record.key.way {
        Way::In => {
            let sa = hot.inbound(slot)?;
            for &(index, word) in &record.words {
                if overwrite {
                    sa.window[usize::from(index)].store(word, Ordering::Release);
                } else {
                    window::merge(&sa.window, usize::from(index), word);
                }
            }
            if overwrite {
                sa.top.store(record.number, Ordering::Release);
            } else {
                window::raise_top(&sa.top, record.number);
            }
            sa.packets.fetch_max(record.packets, Ordering::Relaxed);
            sa.bytes.fetch_max(record.bytes, Ordering::Relaxed);
        }
        Way::Out => {
            let sa = hot.outbound(slot)?;
            // A standby begins past the end (F14).
            if overwrite {
                sa.next.store(record.number, Ordering::Release);
            } else {
                sa.next.fetch_max(record.number, Ordering::AcqRel);
            }
            sa.packets.fetch_max(record.packets, Ordering::Relaxed);
            sa.bytes.fetch_max(record.bytes, Ordering::Relaxed);
        }
    }
    Some(record.number)
}

//! The machine.

use crate::input::{Action, Config, Input, Memory, Nanos};

/// Paths by number, as bits.
pub type PathSet = u8;

/// A message that no node of this version sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed message")]
pub struct Malformed;

/// What is to be shown of a node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {}

/// One node of the pair.
#[derive(Debug)]
pub struct Node {
    _config: Config,
}

impl Node {
    /// A node that has just started; `warm`: its hot state was in memory already.
    #[must_use]
    pub fn new(config: Config, _warm: bool, _now: Nanos) -> Self {
        Self { _config: config }
    }

    /// Something happened.
    pub fn handle(&mut self, _input: Input, _memory: Memory<'_>, _now: Nanos) {}

    /// An authentic message came over a path.
    ///
    /// # Errors
    /// If it is malformed; then nothing has changed.
    pub fn handle_message(
        &mut self,
        _path: u8,
        _message: &[u8],
        _memory: Memory<'_>,
        _now: Nanos,
    ) -> Result<(), Malformed> {
        Ok(())
    }

    /// Time has passed. `drained`: every message that had arrived was handed in before (F20); only then does silence
    /// count. To be called at [`Node::poll_timeout`] at the latest, and whenever marks may have been set.
    pub fn handle_timeout(&mut self, _drained: bool, _memory: Memory<'_>, _now: Nanos) {}

    /// When [`Node::handle_timeout`] is due.
    #[must_use]
    pub fn poll_timeout(&self) -> Nanos {
        0
    }

    /// Writes the next message into `buffer` (at most [`crate::MESSAGE_MAX`] octets) and says over which paths it goes.
    pub fn poll_transmit(
        &mut self,
        _buffer: &mut Vec<u8>,
        _memory: Memory<'_>,
        _now: Nanos,
    ) -> Option<PathSet> {
        None
    }

    /// The next thing to be done.
    pub fn poll_action(&mut self) -> Option<Action> {
        None
    }

    /// What is to be shown.
    #[must_use]
    pub fn status(&self, _memory: Memory<'_>, _now: Nanos) -> Status {
        Status::default()
    }
}

//! What happened, one line an event, for a person who replays a seed.

use super::queue::Time;

/// Lines, if anybody listens.
#[derive(Debug, Default)]
pub struct Story {
    lines: Option<Vec<String>>,
}

impl Story {
    /// A story that is told; otherwise every line is thrown away unwritten.
    #[must_use]
    pub fn new(told: bool) -> Self {
        Self { lines: told.then(Vec::new) }
    }

    /// `who` did, or met, what `text` says.
    pub fn tell(&mut self, at: Time, who: &str, text: impl FnOnce() -> String) {
        if let Some(lines) = &mut self.lines {
            lines.push(format!("{:>9.3} ms  {who:<8} {}", at as f64 / 1e6, text()));
        }
    }

    /// All lines.
    #[must_use]
    pub fn lines(&self) -> &[String] {
        self.lines.as_deref().unwrap_or_default()
    }
}

//! What is wrong, where, and the cure, rendered as compilers do.

use std::fmt;
use std::ops::Range;
use zeroize::Zeroizing;

/// Widest part of a source line that an error shows, in characters.
const EXCERPT_MAX: usize = 100;
/// Errors rendered; the rest is counted.
const SHOWN_MAX: usize = 50;

/// A configuration text with the name to show for it. Zeroized on drop: it holds keys.
pub struct Source {
    name: String,
    text: Zeroizing<String>,
}

impl Source {
    /// `name` is what errors show as the file.
    #[must_use]
    pub fn new(name: impl Into<String>, text: String) -> Self {
        Self { name: name.into(), text: Zeroizing::new(text) }
    }

    pub(crate) fn text(&self) -> &str {
        &self.text
    }
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Source({}, {} octets)", self.name, self.text.len())
    }
}

/// One error. Holds no key: they are masked in the excerpt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Line, from 1 on.
    pub line: usize,
    /// Column in characters, from 1 on.
    pub column: usize,
    /// Where in the configuration, such as `crypto-map[0].static.inbound.spi`; empty for the whole.
    pub path: String,
    /// What is wrong.
    pub message: String,
    /// What to do.
    pub cure: String,
    excerpt: String,
    caret: usize,
    width: usize,
}

/// Every error of a configuration, in the order of the text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Findings {
    name: String,
    findings: Vec<Finding>,
}

impl Findings {
    /// The errors.
    pub fn iter(&self) -> impl Iterator<Item = &Finding> {
        self.findings.iter()
    }
}

impl std::error::Error for Findings {}

impl fmt::Display for Findings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for finding in self.findings.iter().take(SHOWN_MAX) {
            let Finding { line, column, path, message, cure, excerpt, caret, width } = finding;
            let margin = " ".repeat(line.to_string().len());
            let place = if path.is_empty() { String::new() } else { format!(", {path}") };
            writeln!(f, "error: {message}")?;
            writeln!(f, "{margin}--> {}:{line}:{column}{place}", self.name)?;
            writeln!(f, "{margin} |")?;
            writeln!(f, "{line} | {excerpt}")?;
            writeln!(f, "{margin} | {}{}", " ".repeat(*caret), "^".repeat(*width))?;
            writeln!(f, "{margin} = cure: {cure}\n")?;
        }
        match self.findings.len().saturating_sub(SHOWN_MAX) {
            0 => {}
            more => writeln!(f, "and {more} more\n")?,
        }
        match self.findings.len() {
            1 => write!(f, "{}: 1 error, nothing was applied", self.name),
            count => write!(f, "{}: {count} errors, nothing was applied", self.name),
        }
    }
}

/// Collects errors while a configuration is read.
pub(crate) struct Report<'s> {
    source: &'s Source,
    raw: Vec<RawFinding>,
    secrets: Vec<Range<usize>>,
    /// Where each line starts.
    lines: Vec<usize>,
}

struct RawFinding {
    span: Range<usize>,
    path: String,
    message: String,
    cure: String,
}

impl<'s> Report<'s> {
    pub fn new(source: &'s Source) -> Self {
        let ends = source.text().bytes().enumerate().filter(|(_, byte)| *byte == b'\n');
        let lines = std::iter::once(0).chain(ends.map(|(at, _)| at + 1)).collect();
        Self { source, raw: Vec::new(), secrets: Vec::new(), lines }
    }

    /// Notes an error at `span` of the text.
    pub fn error(
        &mut self,
        span: Range<usize>,
        path: impl Into<String>,
        message: impl Into<String>,
        cure: impl Into<String>,
    ) {
        self.raw.push(RawFinding { span, path: path.into(), message: message.into(), cure: cure.into() });
    }

    /// Keeps this part of the text out of every excerpt.
    pub fn hide(&mut self, span: Range<usize>) {
        self.secrets.push(span);
    }

    /// Line of a place in the text, from 1 on.
    pub fn line_of(&self, offset: usize) -> usize {
        line_number(&self.lines, offset)
    }

    pub fn is_clean(&self) -> bool {
        self.raw.is_empty()
    }

    pub fn finish(mut self) -> Findings {
        self.raw.sort_by_key(|raw| raw.span.start);
        let text = self.source.text();
        let (lines, secrets) = (&self.lines, &self.secrets);
        let findings = self.raw.into_iter().map(|raw| render(text, lines, secrets, raw)).collect();
        Findings { name: self.source.name.clone(), findings }
    }
}

fn line_number(lines: &[usize], offset: usize) -> usize {
    lines.partition_point(|start| *start <= offset)
}

fn render(text: &str, lines: &[usize], secrets: &[Range<usize>], raw: RawFinding) -> Finding {
    let start = floor_boundary(text, raw.span.start);
    let line_start = text[..start].rfind('\n').map_or(0, |at| at + 1);
    let line_end = text[start..].find('\n').map_or(text.len(), |at| start + at);
    let end = raw.span.end.clamp(start, line_end);

    let masked = masked_line(text, line_start..line_end, secrets);
    let before = text[line_start..start].chars().count();
    let marked = text.get(start..end).map_or(0, |part| part.chars().count());
    // Of a long line the part around the caret.
    let from = before.saturating_sub(EXCERPT_MAX / 2);
    let from = if masked.len() <= EXCERPT_MAX { 0 } else { from };
    let excerpt: String = masked.iter().skip(from).take(EXCERPT_MAX).collect();
    let caret = before - from;
    let room = excerpt.chars().count().saturating_sub(caret).max(1);
    Finding {
        line: line_number(lines, start),
        column: before + 1,
        path: raw.path,
        message: raw.message,
        cure: raw.cure,
        excerpt: excerpt.trim_end().to_owned(),
        caret,
        width: marked.clamp(1, room),
    }
}

fn floor_boundary(text: &str, offset: usize) -> usize {
    let mut offset = offset.min(text.len());
    while !text.is_char_boundary(offset) {
        offset -= 1;
    }
    offset
}

/// The characters of a line, with every known secret and everything that could be one (16 and more
/// hexadecimal digits on end, for texts that do not parse) replaced by `*`.
fn masked_line(text: &str, line: Range<usize>, secrets: &[Range<usize>]) -> Vec<char> {
    let mut chars: Vec<char> = Vec::new();
    let mut run = 0;
    for (at, char) in text[line.clone()].char_indices() {
        let at = line.start + at;
        let secret = secrets.iter().any(|span| span.contains(&at));
        let shown = match char {
            _ if secret && !matches!(char, '"' | '\'') => '*',
            char if char.is_control() => ' ',
            char => char,
        };
        chars.push(shown);
        if char.is_ascii_hexdigit() {
            run += 1;
            if run >= 16 {
                let from = chars.len() - run;
                chars[from..].fill('*');
            }
        } else {
            run = 0;
        }
    }
    chars
}

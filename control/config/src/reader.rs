//! A walk over the TOML tree that goes on after an error, so that all are found at once.

use crate::finding::Report;
use ipnet::Ipv4Net;
use std::net::Ipv4Addr;
use std::ops::{Range, RangeInclusive};
use toml::de::{DeTable, DeValue};

/// A table whose keys are asked for one by one; [`Section::finish`] refuses the others.
pub(crate) struct Section<'a, 's> {
    pub path: String,
    /// Header of the table, or the whole of an inline one.
    pub span: Range<usize>,
    table: &'a DeTable<'s>,
    asked: Vec<&'static str>,
}

/// A value with its place.
pub(crate) struct Field<'a, 's> {
    pub path: String,
    pub span: Range<usize>,
    value: &'a DeValue<'s>,
}

impl<'a, 's> Section<'a, 's> {
    pub fn root(table: &'a DeTable<'s>) -> Self {
        Self { path: String::new(), span: 0..0, table, asked: Vec::new() }
    }

    /// The value of `key`, if it is there.
    pub fn find(&mut self, key: &'static str) -> Option<Field<'a, 's>> {
        self.asked.push(key);
        let value = self.table.get(key)?;
        Some(Field { path: self.child(key), span: value.span(), value: value.get_ref() })
    }

    /// The value of `key`, which must be there; `example` is what to write.
    pub fn need(
        &mut self,
        key: &'static str,
        example: &str,
        report: &mut Report<'_>,
    ) -> Option<Field<'a, 's>> {
        let field = self.find(key);
        if field.is_none() {
            let message = format!("`{key}` is missing");
            report.error(self.span.clone(), self.path.clone(), message, format!("add `{example}`"));
        }
        field
    }

    /// Refuses every key that was not asked for.
    pub fn finish(self, report: &mut Report<'_>) {
        for key in self.table.keys() {
            let name: &str = key.get_ref();
            if self.asked.contains(&name) {
                continue;
            }
            let near = self.asked.iter().map(|known| (distance(name, known), known)).min();
            let cure = match near {
                Some((close, known)) if close <= 2 => format!("did you mean `{known}`?"),
                _ => format!("remove it; known here: {}", self.asked.join(", ")),
            };
            let shown: String = name.chars().take(40).collect();
            report.error(key.span(), self.child(&shown), format!("unknown key `{shown}`"), cure);
        }
    }

    fn child(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }
}

impl<'a, 's> Field<'a, 's> {
    pub fn error(&self, report: &mut Report<'_>, message: impl Into<String>, cure: impl Into<String>) {
        report.error(self.span.clone(), self.path.clone(), message, cure);
    }

    fn wrong_type(&self, report: &mut Report<'_>, wanted: &str, cure: &str) {
        self.error(report, format!("expected {wanted}, found {}", self.value.type_str()), cure);
    }

    pub fn string(&self, report: &mut Report<'_>) -> Option<&'a str> {
        match self.value {
            DeValue::String(text) => Some(text),
            _ => {
                self.wrong_type(report, "a string", "write it between double quotes");
                None
            }
        }
    }

    pub fn is_escaped(&self) -> bool {
        matches!(self.value, DeValue::String(std::borrow::Cow::Owned(_)))
    }

    pub fn integer(&self, range: RangeInclusive<u64>, report: &mut Report<'_>) -> Option<u64> {
        let DeValue::Integer(digits) = self.value else {
            self.wrong_type(report, "an integer", "write a number without quotes");
            return None;
        };
        match u64::from_str_radix(digits.as_str(), digits.radix()) {
            Ok(number) if range.contains(&number) => Some(number),
            _ => {
                let cure = format!("choose a number from {} to {}", range.start(), range.end());
                self.error(report, format!("{digits} is out of range"), cure);
                None
            }
        }
    }

    pub fn boolean(&self, report: &mut Report<'_>) -> Option<bool> {
        let value = self.value.as_bool();
        if value.is_none() {
            self.wrong_type(report, "true or false", "write true or false without quotes");
        }
        value
    }

    /// One of a list of words.
    pub fn choice<T: Copy>(&self, words: &[(&str, T)], report: &mut Report<'_>) -> Option<T> {
        let text = self.string(report)?;
        let found = words.iter().find(|(word, _)| *word == text).map(|(_, value)| *value);
        if found.is_none() {
            let known: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
            let shown: String = text.chars().take(40).collect();
            self.error(
                report,
                format!("`{shown}` is not known here"),
                format!("one of {}", known.join(", ")),
            );
        }
        found
    }

    pub fn list(&self, report: &mut Report<'_>) -> Option<Vec<Field<'a, 's>>> {
        let DeValue::Array(array) = self.value else {
            self.wrong_type(report, "a list", "write it between square brackets");
            return None;
        };
        let element = |(at, value): (usize, &'a toml::Spanned<DeValue<'s>>)| Field {
            path: format!("{}[{at}]", self.path),
            span: value.span(),
            value: value.get_ref(),
        };
        Some(array.iter().enumerate().map(element).collect())
    }

    pub fn section(&self, report: &mut Report<'_>) -> Option<Section<'a, 's>> {
        let DeValue::Table(table) = self.value else {
            self.wrong_type(report, "a table", "write a table with its keys");
            return None;
        };
        Some(Section { path: self.path.clone(), span: self.span.clone(), table, asked: Vec::new() })
    }

    /// A list of tables: `[[key]]` sections.
    pub fn sections(&self, report: &mut Report<'_>) -> Vec<Section<'a, 's>> {
        let DeValue::Array(_) = self.value else {
            let cure = format!("write [[{0}]] instead of [{0}]: there can be several", self.path);
            self.wrong_type(report, "a list of tables", &cure);
            return Vec::new();
        };
        let fields = self.list(report).unwrap_or_default();
        fields.iter().filter_map(|field| field.section(report)).collect()
    }

    pub fn address(&self, report: &mut Report<'_>) -> Option<Ipv4Addr> {
        let text = self.string(report)?;
        match text.parse::<Ipv4Addr>() {
            Ok(address) if is_unicast(address) => Some(address),
            Ok(address) => {
                self.error(
                    report,
                    format!("{address} is no unicast address"),
                    "write the address of one host",
                );
                None
            }
            Err(_) => {
                let message = format!("`{}` is no IPv4 address", shorten(text));
                self.error(report, message, "write four decimal octets, such as 192.0.2.1");
                None
            }
        }
    }

    /// An address with the length of its network, such as `192.0.2.1/24`.
    pub fn network(&self, report: &mut Report<'_>) -> Option<Ipv4Net> {
        let text = self.string(report)?;
        let network = text.parse::<Ipv4Net>();
        if network.is_err() {
            let message = format!("`{}` is no IPv4 address with a prefix length", shorten(text));
            self.error(report, message, "write address/length, such as 192.0.2.0/24");
        }
        network.ok()
    }

    /// A prefix: no bit set after its length.
    pub fn prefix(&self, report: &mut Report<'_>) -> Option<Ipv4Net> {
        let network = self.network(report)?;
        if network.addr() != network.network() {
            let message = format!("{network} has bits set after its prefix length");
            let (trunc, host) = (network.trunc(), network.addr());
            self.error(
                report,
                message,
                format!("write {trunc} for the network, or {host}/32 for the one host"),
            );
            return None;
        }
        Some(network)
    }
}

/// Can one host have this address?
pub(crate) fn is_unicast(address: Ipv4Addr) -> bool {
    !(address.is_unspecified()
        || address.is_loopback()
        || address.is_multicast()
        || address.is_broadcast()
        || address.octets()[0] == 0
        || address.octets()[0] >= 240)
}

/// The start of a text that may be long.
pub(crate) fn shorten(text: &str) -> String {
    text.chars().take(40).collect()
}

/// Edit distance (Levenshtein), for short words.
fn distance(a: &str, b: &str) -> usize {
    let a: Vec<char> = a.chars().take(40).collect();
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let replace = diagonal + usize::from(from != to);
            diagonal = row[j + 1];
            row[j + 1] = replace.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

//! `[[policy]]`, and the checks over all policies.

use crate::finding::Report;
use crate::node::name;
use crate::overlap;
use crate::reader::Section;
use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use tandem_api::dataplane::{Policy, PolicyAction};
use tandem_api::types::Selector;

/// A policy with its place in the text.
pub(crate) struct Placed {
    pub policy: Policy,
    pub span: Range<usize>,
    pub path: String,
}

/// Reads `bypass` and `discard` policies; one that has an error is left out.
pub(crate) fn read(root: &mut Section<'_, '_>, report: &mut Report<'_>) -> Vec<Placed> {
    let sections = root.find("policy").map(|field| field.sections(report)).unwrap_or_default();
    let mut names = Names::new("policy");
    let mut policies = Vec::with_capacity(sections.len());
    for mut section in sections {
        let name = names.read(&mut section, report);
        let priority = priority(&mut section, report);
        let words = [("bypass", PolicyAction::Bypass), ("discard", PolicyAction::Discard)];
        let action = section.need("action", "action = \"bypass\"` or `action = \"discard\"", report);
        let action = action.and_then(|field| field.choice(&words, report));
        let selector = selector(&mut section, report);
        let (span, path) = (section.span.clone(), section.path.clone());
        section.finish(report);
        if let (Some(name), Some(priority), Some(selector), Some(action)) = (name, priority, selector, action)
        {
            policies.push(Placed { policy: Policy { name, priority, selector, action }, span, path });
        }
    }
    policies
}

/// `local` and `remote` of a section.
pub(crate) fn selector(section: &mut Section<'_, '_>, report: &mut Report<'_>) -> Option<Selector> {
    let local = section.need("local", "local = \"10.1.0.0/24\"", report);
    let local = local.and_then(|field| field.prefix(report));
    let remote = section.need("remote", "remote = \"10.2.0.0/24\"", report);
    let remote = remote.and_then(|field| field.prefix(report));
    Some(Selector { local: local?, remote: remote? })
}

pub(crate) fn priority(section: &mut Section<'_, '_>, report: &mut Report<'_>) -> Option<u32> {
    let field = section.need("priority", "priority = 100", report)?;
    field.integer(0..=u64::from(u32::MAX), report).map(|number| number as u32)
}

/// Names of one kind of section: each once.
pub(crate) struct Names {
    kind: &'static str,
    lines: HashMap<String, usize>,
}

impl Names {
    pub fn new(kind: &'static str) -> Self {
        Self { kind, lines: HashMap::new() }
    }

    pub fn read(&mut self, section: &mut Section<'_, '_>, report: &mut Report<'_>) -> Option<String> {
        let field = section.need("name", "name = \"...\"", report)?;
        let text = name(&field, report)?;
        let line = report.line_of(field.span.start);
        if let Some(earlier) = self.lines.insert(text.clone(), line) {
            let message = format!("{} `{text}` is there already, in line {earlier}", self.kind);
            field.error(report, message, "choose another name");
        }
        Some(text)
    }
}

/// Refuses selectors of one priority that overlap: which of them decided would be chance.
pub(crate) fn check_overlaps(policies: &[Placed], report: &mut Report<'_>) {
    let mut by_priority: BTreeMap<u32, Vec<usize>> = BTreeMap::new();
    for (at, placed) in policies.iter().enumerate() {
        by_priority.entry(placed.policy.priority).or_default().push(at);
    }
    for (priority, members) in by_priority {
        let selectors: Vec<Selector> = members.iter().map(|at| policies[*at].policy.selector).collect();
        for (earlier, later) in overlap::find(&selectors) {
            let (earlier, later) = (&policies[members[earlier]], &policies[members[later]]);
            let line = report.line_of(earlier.span.start);
            let message = format!(
                "{} overlaps {} of `{}` (line {line}), and both have priority {priority}",
                later.policy.selector, earlier.policy.selector, earlier.policy.name,
            );
            let same = earlier.policy.name == later.policy.name;
            let cure = if same {
                "leave out the narrower one of the two"
            } else {
                "give the one that shall decide a lower priority number"
            };
            report.error(later.span.clone(), later.path.clone(), message, cure);
        }
    }
}

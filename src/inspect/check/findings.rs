//! Collects what is found, without drowning in it.
//!
//! Enters: the outcome of each check
//! Leaves: [`Report`]
//! Never:  more than [`MAX_FINDINGS_PER_RULE`] of one rule on one rendition; the others are counted
//! Spec:   docs/inspect.md

use std::collections::BTreeMap;
use std::fmt;

use super::rules::{Level, RULES, Rule};

/// Findings that are kept of one rule on one rendition: what is wrong with one segment is mostly wrong with
/// all, and a report is to be read.
pub const MAX_FINDINGS_PER_RULE: u64 = 5;

/// Where something was found.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
pub struct Place {
    /// The rendition, or nothing where it concerns the whole broadcast.
    pub rendition: String,
    /// The playlist, segment, part or line.
    pub object: String,
}

impl Place {
    /// `object` of `rendition`.
    #[must_use]
    pub fn new(rendition: &str, object: impl Into<String>) -> Self {
        Self {
            rendition: rendition.to_owned(),
            object: object.into(),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match (self.rendition.as_str(), self.object.as_str()) {
            ("", object) => object.to_owned(),
            (rendition, "") => rendition.to_owned(),
            (rendition, object) => format!("{rendition} {object}"),
        };
        f.pad(&text)
    }
}

/// A rule that is broken.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Finding {
    /// The rule's name.
    pub rule: &'static str,
    /// How much it binds.
    pub level: Level,
    /// The clause.
    pub spec: &'static str,
    /// Where.
    pub place: Place,
    /// What was found.
    pub found: String,
    /// What was expected.
    pub expected: String,
    /// How many more findings of this rule on this rendition were not kept.
    pub more: u64,
}

/// Collects findings and counts checks.
#[derive(Debug, Default)]
pub struct Findings {
    list: Vec<Finding>,
    counts: BTreeMap<(&'static str, String), u64>,
    checks: BTreeMap<&'static str, u64>,
}

impl Findings {
    /// Counts a check of `rule`; unless it holds, keeps what `words` say: found, expected.
    pub fn check(
        &mut self,
        rule: &'static Rule,
        holds: bool,
        place: &Place,
        words: impl FnOnce() -> (String, String),
    ) {
        *self.checks.entry(rule.id).or_default() += 1;
        if holds {
            return;
        }
        // A playlist says the same thing again each time it is loaded.
        if self
            .list
            .iter()
            .any(|known| known.rule == rule.id && known.place == *place)
        {
            return;
        }
        let key = (rule.id, place.rendition.clone());
        let count = self.counts.entry(key).or_default();
        *count += 1;
        if *count > MAX_FINDINGS_PER_RULE {
            return;
        }
        let (found, expected) = words();
        self.list.push(Finding {
            rule: rule.id,
            level: rule.level,
            spec: rule.spec,
            place: place.clone(),
            found,
            expected,
            more: 0,
        });
    }

    /// How many rules of `level` are broken so far, each counted as often as it was.
    #[must_use]
    pub fn broken(&self, level: Level) -> u64 {
        let of_level = |id: &str| {
            RULES
                .iter()
                .any(|rule| rule.id == id && rule.level == level)
        };
        let counts = self.counts.iter().filter(|((id, _), _)| of_level(id));
        counts.map(|(_, count)| count).sum()
    }

    /// Everything, the gravest first.
    #[must_use]
    pub fn into_report(mut self) -> Report {
        let must = self.broken(Level::Must);
        let should = self.broken(Level::Should);
        // The last kept finding of a rule and rendition says how many more there were.
        for ((id, rendition), count) in &self.counts {
            let same = |f: &&mut Finding| f.rule == *id && f.place.rendition == *rendition;
            if let Some(last) = self.list.iter_mut().rfind(same) {
                last.more = count.saturating_sub(MAX_FINDINGS_PER_RULE);
            }
        }
        let order = |id: &str| RULES.iter().position(|rule| rule.id == id);
        self.list
            .sort_by_key(|f| (f.level, order(f.rule), f.place.rendition.clone()));
        Report {
            findings: self.list,
            must,
            should,
            checks: self.checks,
        }
    }
}

/// The outcome.
#[derive(Debug, Default, serde::Serialize)]
pub struct Report {
    /// What is broken, MUST before SHOULD, in the order of the catalogue.
    pub findings: Vec<Finding>,
    /// How often a MUST was broken.
    pub must: u64,
    /// How often a SHOULD was broken.
    pub should: u64,
    /// How often each rule was checked; a rule that is absent had nothing to check.
    pub checks: BTreeMap<&'static str, u64>,
}

impl Report {
    /// This report and `other` as one.
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        self.findings.extend(other.findings);
        self.findings.sort_by_key(|finding| finding.level);
        self.must += other.must;
        self.should += other.should;
        for (rule, count) in other.checks {
            *self.checks.entry(rule).or_default() += count;
        }
        self
    }

    /// Whether no MUST is broken.
    #[must_use]
    pub const fn is_good(&self) -> bool {
        self.must == 0
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for level in [Level::Must, Level::Should] {
            let mut of_level = self.findings.iter().filter(|f| f.level == level).peekable();
            if of_level.peek().is_none() {
                continue;
            }
            writeln!(f, "{level}")?;
            for finding in of_level {
                writeln!(f, "  {:<26} {}", finding.rule, finding.place)?;
                writeln!(f, "  {:<26}   found    {}", "", finding.found)?;
                writeln!(
                    f,
                    "  {:<26}   expected {}  {}",
                    "", finding.expected, finding.spec
                )?;
                if finding.more > 0 {
                    writeln!(f, "  {:<26}   and {} more like this", "", finding.more)?;
                }
            }
            writeln!(f)?;
        }
        let checks: u64 = self.checks.values().sum();
        writeln!(
            f,
            "{} of {} rules checked, {checks} times: MUST broken {} times, SHOULD broken {} times",
            self.checks.len(),
            RULES.len(),
            self.must,
            self.should,
        )
    }
}

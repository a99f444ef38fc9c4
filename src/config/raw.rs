//! Reads what was written: the file, the environment and the flags, one laid over the other.
//!
//! Enters: TOML text, a look-up of environment variables, [`Options`] of the command line
//! Leaves: [`Raw`]: for each known key the value that counts, as written, and where it was written
//! Never:  meaning: defaults, units and ranges are `validate`'s
//! Spec:   docs/configuration.md

#![deny(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::float_arithmetic
)]

use std::collections::BTreeMap;
use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::config::keys::{self, KEYS};
use crate::config::problem::{Origin, Problem};

/// The settings that the command line can make, as typed; `None` where a flag was not given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// `--rtmp ADDR`.
    pub rtmp: Option<String>,
    /// `--http ADDR`.
    pub http: Option<String>,
    /// `--store URL|DIR`.
    pub store: Option<String>,
    /// `--ladder NAME|FILE`.
    pub ladder: Option<String>,
    /// `--log LEVEL`.
    pub log: Option<String>,
}

/// A value as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Scalar {
    /// Text.
    Text(String),
    /// A whole number.
    Count(i64),
    /// Yes or no.
    Switch(bool),
    /// What no key takes; the name of its kind.
    Other(&'static str),
}

/// A value and where it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    /// The value.
    pub(crate) value: Scalar,
    /// Its place.
    pub(crate) origin: Origin,
}

/// What was written, by key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Raw {
    entries: BTreeMap<&'static str, Entry>,
}

impl Raw {
    /// Reads a file's text. Everything that is no TOML or no known key is added to `problems`.
    pub(crate) fn from_toml(text: &str, problems: &mut Vec<Problem>) -> Self {
        let mut raw = Self::default();
        let (table, errors) = DeTable::parse_recoverable(text);
        problems.extend(errors.iter().map(|error| Problem {
            path: String::new(),
            origin: place(text, error.span().unwrap_or_default()),
            text: error.message().replace('\n', "; "),
        }));
        raw.read_table("", table.get_ref(), text, problems);
        raw
    }

    /// Lays the environment over what is there. An empty variable counts as not set, because that
    /// is what a container's `KEY=` leaves behind.
    pub(crate) fn overlay_environment(&mut self, look_up: &dyn Fn(&str) -> Option<String>) {
        for key in KEYS {
            if let Some(name) = key.env
                && let Some(text) = look_up(name)
                && !text.is_empty()
            {
                self.set(key.path, text, Origin::Environment(name));
            }
        }
    }

    /// Lays the flags over what is there.
    pub(crate) fn overlay_options(&mut self, options: &Options) {
        for (path, value) in [
            ("ingest.rtmp.listen", &options.rtmp),
            ("serve.listen", &options.http),
            ("store.url", &options.store),
            ("transcode.ladder", &options.ladder),
            ("log.level", &options.log),
        ] {
            if let Some(text) = value
                && let Some(flag) = keys::find(path).and_then(|key| key.flag)
            {
                self.set(path, text.clone(), Origin::Flag(flag));
            }
        }
    }

    /// The value that counts for `path`, if one was written.
    pub(crate) fn get(&self, path: &str) -> Option<&Entry> {
        self.entries.get(path)
    }

    fn set(&mut self, path: &'static str, text: String, origin: Origin) {
        let value = Scalar::Text(text);
        self.entries.insert(path, Entry { value, origin });
    }

    /// Reads one table. The TOML parser bounds how deep tables nest, and so how deep this calls itself.
    fn read_table(
        &mut self,
        prefix: &str,
        table: &DeTable<'_>,
        text: &str,
        problems: &mut Vec<Problem>,
    ) {
        for (name, value) in table {
            let path = match prefix {
                "" => name.get_ref().to_string(),
                prefix => format!("{prefix}.{}", name.get_ref()),
            };
            let origin = place(text, name.span());
            match (value.get_ref(), keys::find(&path)) {
                (DeValue::Table(inner), None) if keys::is_table(&path) => {
                    self.read_table(&path, inner, text, problems);
                }
                (_, Some(key)) => {
                    let value = scalar(value);
                    self.entries.insert(key.path, Entry { value, origin });
                }
                (_, None) => problems.push(unknown(path, origin)),
            }
        }
    }
}

fn unknown(path: String, origin: Origin) -> Problem {
    let text = if keys::is_table(&path) {
        format!("is a table; write [{path}] and its keys below it")
    } else {
        match keys::nearest(&path) {
            Some(nearest) => format!("there is no such key; did you mean {nearest}?"),
            None => "there is no such key; docs/configuration.md lists all".to_owned(),
        }
    };
    Problem { path, origin, text }
}

fn scalar(value: &Spanned<DeValue<'_>>) -> Scalar {
    match value.get_ref() {
        DeValue::String(text) => Scalar::Text(text.to_string()),
        DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix())
            .map_or(Scalar::Other("a number this large"), Scalar::Count),
        DeValue::Float(_) => Scalar::Other("a number with a point"),
        DeValue::Boolean(switch) => Scalar::Switch(*switch),
        DeValue::Datetime(_) => Scalar::Other("a date"),
        DeValue::Array(_) => Scalar::Other("a list"),
        DeValue::Table(_) => Scalar::Other("a table"),
    }
}

/// Line and column of the byte at which `span` starts.
fn place(text: &str, span: Range<usize>) -> Origin {
    let before = text.get(..span.start).unwrap_or(text);
    Origin::File {
        line: before.matches('\n').count() + 1,
        column: before.chars().rev().take_while(|c| *c != '\n').count() + 1,
    }
}

//! How much is logged, and in which form.
//!
//! Enters: the words of a configuration
//! Leaves: [`Log`], whose level is a filter that the log subscriber reads
//! Never:  the subscriber
//! Spec:   docs/configuration.md

#![deny(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::float_arithmetic
)]

use std::fmt;

/// Settings of the log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Log {
    /// What is logged.
    pub level: Level,
    /// The form of a line.
    pub format: Format,
}

/// What is logged: a level, or levels by module, as in `info,headwater::ingest=debug`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Level(String);

/// The form of a log line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Format {
    /// Text on a terminal, JSON elsewhere.
    #[default]
    Auto,
    /// Text for people.
    Text,
    /// One JSON object per line.
    Json,
}

const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

impl Level {
    /// Reads a level, or levels by module.
    ///
    /// # Errors
    /// What is wrong, and what to write instead.
    pub fn parse(text: &str) -> Result<Self, String> {
        let is_level = |word: &str| LEVELS.contains(&word);
        let is_target = |word: &str| {
            !word.is_empty()
                && word
                    .chars()
                    .all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | ':'))
        };
        let wrong = text
            .split(',')
            .find(|directive| !match directive.split_once('=') {
                Some((target, level)) => is_target(target) && is_level(level),
                None => is_level(directive),
            });
        match wrong {
            None => Ok(Self(text.to_owned())),
            Some(wrong) => {
                let wrong: String = wrong.chars().take(60).collect();
                Err(format!(
                    "{wrong:?} is no level; use {}, or levels by module as in \
                     \"info,headwater::ingest=debug\"",
                    LEVELS.join(", ")
                ))
            }
        }
    }

    /// The filter as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for Level {
    fn default() -> Self {
        Self("info".to_owned())
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Format {
    /// Reads `auto`, `text` or `json`.
    ///
    /// # Errors
    /// What is wrong, and what to write instead.
    pub fn parse(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => {
                let text: String = text.chars().take(60).collect();
                Err(format!("{text:?} is no log format; use auto, text or json"))
            }
        }
    }

    /// The word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Text => "text",
            Self::Json => "json",
        }
    }
}

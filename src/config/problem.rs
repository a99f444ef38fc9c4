//! What is wrong with a configuration, said so that the reader can mend it without looking further.
//!
//! Enters: a path, a place and a sentence from each check
//! Leaves: [`Problem`]s, printed one per line
//! Never:  the checks themselves
//! Spec:   docs/configuration.md

use std::fmt;

/// Where a value was written; ordered as a reader goes through them.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// In the file, at this line and column, both from 1; columns count characters.
    File {
        /// The line.
        line: usize,
        /// The column.
        column: usize,
    },
    /// In this environment variable.
    Environment(&'static str),
    /// In this command-line flag.
    Flag(&'static str),
    /// Nowhere: it is the default.
    Default,
}

/// One thing wrong with a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The key, `package.segment`, or the unknown one as written; empty if the text is no TOML.
    pub path: String,
    /// Where the value stands.
    pub origin: Origin,
    /// What is wrong, and what to write instead.
    pub text: String,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { line, column } => write!(f, "line {line}, column {column}"),
            Self::Environment(name) => write!(f, "from {name}"),
            Self::Flag(name) => write!(f, "from {name}"),
            Self::Default => f.write_str("by default"),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        write!(f, "{} ({})", self.text, self.origin)
    }
}

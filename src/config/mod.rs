//! Turns the configuration file, the environment and the flags into one checked tree of settings.
//!
//! Enters: TOML text, environment variables, [`Options`]: written by people, so wrong in every way
//! Leaves: a [`Config`] in which every value is within its range and fits the others
//! Never:  a half-checked value; a global; a stage's work
//! Spec:   docs/configuration.md

mod archive;
mod broadcast;
pub mod keys;
mod log;
mod place;
mod problem;
mod raw;
mod show;
#[cfg(test)]
mod tests;
pub mod units;
mod validate;

pub use broadcast::{BackupSuffix, Broadcast, Displace, Grace, Slate};
pub use log::{Format, Level, Log};
pub use problem::{Origin, Problem};
pub use raw::Options;

use std::fmt;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use crate::ingest::rtmp;
use crate::package;
use crate::serve;
use crate::store;
use crate::transcode;

/// The longest file that is read, in bytes: a hundred times a full one with its comments.
pub const MAX_FILE_BYTES: u64 = 1 << 20;

/// Every setting of the program. A subtree goes to its stage as a whole.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Config {
    /// The log.
    pub log: Log,
    /// The RTMP listener.
    pub rtmp: rtmp::Config,
    /// What a broadcast does without its publisher.
    pub broadcast: Broadcast,
    /// The transcoder.
    pub transcode: transcode::Config,
    /// The packager.
    pub package: package::Config,
    /// The store.
    pub store: store::Config,
    /// The origin.
    pub serve: serve::Config,
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The file could not be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file is longer than [`MAX_FILE_BYTES`].
    #[error("{} is longer than {MAX_FILE_BYTES} bytes, which no configuration is", path.display())]
    TooLong {
        /// The file.
        path: PathBuf,
    },
    /// Values are wrong; all of them are listed.
    #[error(transparent)]
    Invalid(#[from] Problems),
}

/// All that is wrong with a configuration, never empty; prints one line each.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Problems(Vec<Problem>);

impl Problems {
    /// The problems: the file's from top to bottom, then the environment's, then the flags'.
    #[must_use]
    pub fn as_slice(&self) -> &[Problem] {
        &self.0
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            fmt::Display::fmt(problem, f)?;
        }
        Ok(())
    }
}

impl Config {
    /// The effective configuration: `options` over what `environment` answers over `file` over the
    /// defaults. Pass `|name| std::env::var(name).ok()` for the process's own environment.
    ///
    /// # Errors
    /// [`Error::Read`] and [`Error::TooLong`] for the file, [`Error::Invalid`] with every problem.
    pub fn load(
        file: Option<&Path>,
        environment: &dyn Fn(&str) -> Option<String>,
        options: &Options,
    ) -> Result<Self, Error> {
        let text = file.map(read_bounded).transpose()?.unwrap_or_default();
        Ok(Self::from_layers(&text, environment, options)?)
    }

    /// As [`Config::load`], from the text of a file.
    ///
    /// # Errors
    /// Every problem there is.
    ///
    /// ```
    /// use headwater::config::{Config, Options};
    ///
    /// let text = "[package]\nsegment = \"500ms\"";
    /// let problems = Config::from_layers(text, &|_| None, &Options::default()).unwrap_err();
    /// assert_eq!(
    ///     problems.to_string(),
    ///     "package.segment: 500ms is below 1s; use 1s to 10s (line 2, column 1)"
    /// );
    /// ```
    pub fn from_layers(
        text: &str,
        environment: &dyn Fn(&str) -> Option<String>,
        options: &Options,
    ) -> Result<Self, Problems> {
        let mut problems = Vec::new();
        let mut raw = raw::Raw::from_toml(text, &mut problems);
        raw.overlay_environment(environment);
        raw.overlay_options(options);
        let config = validate::validate(&raw, &mut problems);
        if problems.is_empty() {
            Ok(config)
        } else {
            problems.sort_by(|a, b| a.origin.cmp(&b.origin));
            Err(Problems(problems))
        }
    }

    /// The whole as TOML that gives this configuration again, every key written out.
    #[must_use]
    pub fn to_toml(&self) -> String {
        show::render(self)
    }
}

fn read_bounded(path: &Path) -> Result<String, Error> {
    let read = || {
        let mut text = String::new();
        std::fs::File::open(path)?
            .take(MAX_FILE_BYTES + 1)
            .read_to_string(&mut text)?;
        Ok(text)
    };
    let text = read().map_err(|source| Error::Read {
        path: path.to_owned(),
        source,
    })?;
    if text.len() as u64 > MAX_FILE_BYTES {
        return Err(Error::TooLong {
            path: path.to_owned(),
        });
    }
    Ok(text)
}

//! What happens to a broadcast when its publisher falters, goes, or meets another.
//!
//! Enters: values of the configuration
//! Leaves: [`Broadcast`], for `app`
//! Never:  reads the slate: whether it is a picture is found when the server starts
//! Spec:   docs/resilience.md

#![deny(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::float_arithmetic
)]

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use crate::config::units::{parse_duration, print_duration};

/// The longest that an end is put off, short of for ever.
const MAX_GRACE: Duration = Duration::from_secs(24 * 3600);

/// How a broadcast bears the absence of its publisher.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broadcast {
    /// How long the last picture is held before the slate is shown.
    pub hold: Duration,
    /// What the slate is.
    pub slate: Slate,
    /// How long it goes on without a publisher.
    pub reconnect_grace: Grace,
    /// Who takes the place of whom.
    pub displace: Displace,
    /// What a stream key ends in that means the backup input.
    pub backup_suffix: BackupSuffix,
    /// How long the primary input must have been steady to be live again.
    pub return_after: Duration,
}

impl Default for Broadcast {
    fn default() -> Self {
        Self {
            hold: Duration::from_secs(2),
            slate: Slate::BuiltIn,
            reconnect_grace: Grace::For(Duration::from_secs(30)),
            displace: Displace::Stale,
            backup_suffix: BackupSuffix::default(),
            return_after: Duration::from_secs(10),
        }
    }
}

/// The picture that is shown while nothing comes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Slate {
    /// The one in the program.
    BuiltIn,
    /// A PNG or JPEG file.
    File(PathBuf),
}

impl Slate {
    const BUILT_IN: &str = "built-in";

    /// Reads it as it is written.
    ///
    /// # Errors
    /// What to write instead.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let lower = text.to_ascii_lowercase();
        let is_picture = [".png", ".jpg", ".jpeg"];
        if text == Self::BUILT_IN {
            Ok(Self::BuiltIn)
        } else if is_picture.iter().any(|end| lower.ends_with(end)) {
            Ok(Self::File(PathBuf::from(text)))
        } else {
            Err("use \"built-in\", or the path of a .png or .jpg file".to_owned())
        }
    }
}

impl fmt::Display for Slate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BuiltIn => f.write_str(Self::BUILT_IN),
            Self::File(path) => path.display().fmt(f),
        }
    }
}

/// How long a broadcast goes on without a publisher.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Grace {
    /// This long.
    For(Duration),
    /// It never ends: even a publisher that stops on purpose leaves the slate behind.
    Forever,
}

impl Grace {
    const FOREVER: &str = "forever";

    /// Reads it as it is written.
    ///
    /// # Errors
    /// What to write instead.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        if text == Self::FOREVER {
            return Ok(Self::Forever);
        }
        match parse_duration(text) {
            Ok(grace) if grace <= MAX_GRACE => Ok(Self::For(grace)),
            Ok(grace) => Err(format!(
                "{} is above {}; use 0s to {1}, or \"forever\"",
                print_duration(grace),
                print_duration(MAX_GRACE)
            )),
            Err(why) => Err(format!("{why}; or use \"forever\"")),
        }
    }
}

impl fmt::Display for Grace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::For(grace) => f.write_str(&print_duration(*grace)),
            Self::Forever => f.write_str(Self::FOREVER),
        }
    }
}

/// When a second publisher with the same stream key takes the place of the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Displace {
    /// When the first has fallen silent: its connection is dead and does not look it.
    Stale,
    /// Whenever it shows media.
    Always,
    /// Never while the first is connected.
    Never,
}

impl Displace {
    const ALL: [(&'static str, Self); 3] = [
        ("stale", Self::Stale),
        ("always", Self::Always),
        ("never", Self::Never),
    ];

    /// Reads it as it is written.
    ///
    /// # Errors
    /// What to write instead.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let found = Self::ALL.iter().find(|(name, _)| *name == text);
        found
            .map(|(_, displace)| *displace)
            .ok_or_else(|| "use \"stale\", \"always\" or \"never\"".to_owned())
    }
}

impl fmt::Display for Displace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let found = Self::ALL.iter().find(|(_, displace)| displace == self);
        f.write_str(found.map_or("", |(name, _)| name))
    }
}

/// What a stream key ends in that means the backup input of the stream named before it; empty where no key does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackupSuffix(String);

impl Default for BackupSuffix {
    fn default() -> Self {
        Self("_backup".to_owned())
    }
}

impl BackupSuffix {
    /// The longest, so that a name is left before it.
    const MAX_BYTES: usize = 32;

    /// Reads it as it is written.
    ///
    /// # Errors
    /// What to write instead.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let is_legal = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        if text.len() <= Self::MAX_BYTES && text.chars().all(is_legal) {
            Ok(Self(text.to_owned()))
        } else {
            let max = Self::MAX_BYTES;
            Err(format!(
                "use at most {max} of A-Z a-z 0-9 . _ -, or \"\" for no backup keys"
            ))
        }
    }

    /// Whether no key means a backup.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What stands before it in `key`; `None` where the key does not end in it, or nothing does.
    #[must_use]
    pub fn strip<'a>(&self, key: &'a str) -> Option<&'a str> {
        if self.is_empty() {
            return None;
        }
        key.strip_suffix(&self.0).filter(|name| !name.is_empty())
    }
}

impl fmt::Display for BackupSuffix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

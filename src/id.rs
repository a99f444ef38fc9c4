//! Identifiers as types: what is a name, a number or an index of one thing cannot stand for another.
//!
//! Enters: text and integers at the edge, checked once by `parse`
//! Leaves: values that are known to be valid and print as themselves
//! Never:  paths, secrets in logs
//! Spec:   docs/architecture.md

use std::fmt;
use std::num::NonZeroU32;
use std::str::FromStr;
use std::sync::Arc;

/// The longest allowed [`StreamName`], in bytes.
pub const MAX_STREAM_NAME_BYTES: usize = 64;

/// The public name of a stream: 1–64 of `A-Z a-z 0-9 . _ -`, not starting with a dot, so that it is
/// one safe path segment in every address and on every disk.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamName(Arc<str>);

/// Why a text is no [`StreamName`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StreamNameError {
    /// Nothing was given.
    #[error("a stream key must not be empty")]
    Empty,
    /// Longer than [`MAX_STREAM_NAME_BYTES`].
    #[error("a stream key has at most {MAX_STREAM_NAME_BYTES} characters, found {found}")]
    TooLong {
        /// Bytes found.
        found: usize,
    },
    /// Begins with a dot.
    #[error("a stream key must not begin with a dot")]
    LeadingDot,
    /// A character outside the allowed set.
    #[error("a stream key has only A-Z a-z 0-9 . _ -, found {found:?}")]
    Character {
        /// The first such character.
        found: char,
    },
}

impl StreamName {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for StreamName {
    type Err = StreamNameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.is_empty() {
            return Err(StreamNameError::Empty);
        }
        if text.len() > MAX_STREAM_NAME_BYTES {
            return Err(StreamNameError::TooLong { found: text.len() });
        }
        if text.starts_with('.') {
            return Err(StreamNameError::LeadingDot);
        }
        match text
            .chars()
            .find(|c| !(c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-')))
        {
            Some(found) => Err(StreamNameError::Character { found }),
            None => Ok(Self(text.into())),
        }
    }
}

impl fmt::Display for StreamName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for StreamName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

/// The name of a rendition, one path segment: lower-case letters and digits, `v720`, `v720p60`, `a128`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RenditionName(Arc<str>);

/// The text is no rendition name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a rendition's name is 1 to 32 of a-z 0-9 _ -, beginning with a letter; found {found:?}")]
pub struct RenditionNameError {
    /// What was given, cut to 64 characters.
    found: String,
}

impl RenditionName {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for RenditionName {
    type Err = RenditionNameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let legal =
            |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '_' | '-');
        let valid = text.len() <= 32
            && text.starts_with(|c: char| c.is_ascii_lowercase())
            && text.chars().all(legal);
        if valid {
            Ok(Self(text.into()))
        } else {
            Err(RenditionNameError {
                found: text.chars().take(64).collect(),
            })
        }
    }
}

impl fmt::Display for RenditionName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for RenditionName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

/// Declares a newtype over an integer that prints as it.
macro_rules! number {
    ($(#[$doc:meta])* $name:ident($int:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name($int);

        impl $name {
            /// The value `value`.
            #[must_use]
            pub const fn new(value: $int) -> Self {
                Self(value)
            }

            /// The raw value.
            #[must_use]
            pub const fn get(self) -> $int {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }
    };
}

number! {
    /// One accepted network connection; unique in the life of the process.
    ConnId(u64)
}
number! {
    /// One track of a source or of a rendition; the track ID of ISO BMFF, never zero.
    TrackId(NonZeroU32)
}
number! {
    /// The number of a segment: its start on the epoch timeline divided by the segment duration.
    SegmentNumber(u64)
}
number! {
    /// The place of a part within its segment, from zero.
    PartIndex(u32)
}
number! {
    /// One continuous stretch of a timeline with one set of init segments. It is the number of its
    /// first segment, so that two periods of one stream never share an init segment's address.
    PeriodId(u64)
}

impl SegmentNumber {
    /// The number after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl PartIndex {
    /// The index after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl TrackId {
    /// The track of a file that has one track, as every CMAF file does.
    pub const ONLY: Self = Self(NonZeroU32::MIN);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stream_name_is_one_safe_path_segment() {
        for good in ["demo", "a", "A.b_c-9", &"x".repeat(64)] {
            assert_eq!(
                good.parse::<StreamName>().map(|n| n.to_string()),
                Ok(good.to_owned())
            );
        }
        for (bad, why) in [
            ("", StreamNameError::Empty),
            (".hidden", StreamNameError::LeadingDot),
            ("..", StreamNameError::LeadingDot),
            ("a/b", StreamNameError::Character { found: '/' }),
            ("ä", StreamNameError::Character { found: 'ä' }),
            ("a?token=b", StreamNameError::Character { found: '?' }),
        ] {
            assert_eq!(bad.parse::<StreamName>(), Err(why));
        }
        assert_eq!(
            "x".repeat(65).parse::<StreamName>(),
            Err(StreamNameError::TooLong { found: 65 })
        );
    }

    #[test]
    fn rendition_name_is_lower_case() {
        assert!("v720p60".parse::<RenditionName>().is_ok());
        for bad in ["", "720", "V720", "v/1", "v.1"] {
            assert!(bad.parse::<RenditionName>().is_err(), "{bad}");
        }
    }
}

//! The inputs of one broadcast: a primary and a backup, of which one is live.
//!
//! ```text
//! Door ─▶ Lane (intake, Hold) ─┐            ┌─ Selector: which one is live
//!                              ├─▶ Relay ◀──┘
//! Door ─▶ Lane (intake, Hold) ─┘     └─▶ Transcoder
//! ```
//!
//! Enters: stream keys; lines of publishers
//! Leaves: the media of the live input, in the transcoder
//! Never:  a third input
//! Time:   the broadcast's clock
//! Spec:   docs/resilience.md

mod hold;
mod lane;
mod relay;
mod selector;

use crate::config::BackupSuffix;
use crate::id::{StreamName, StreamNameError};

pub(super) use self::hold::Item;
#[cfg(test)]
pub(super) use self::hold::tests as made_up;
pub(super) use self::relay::{Error, Relay};
pub(super) use self::selector::Why;

/// One of the two places that a broadcast takes media from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Input {
    /// The one to be live whenever it can.
    Primary,
    /// The one that takes its place.
    Backup,
}

impl Input {
    /// Both, the preferred one first.
    pub(super) const ALL: [Self; 2] = [Self::Primary, Self::Backup];

    /// The stream and the input that a publisher with this stream key and query means.
    ///
    /// # Errors
    /// The key is no name of a stream.
    pub(super) fn of(
        key: &str,
        query: Option<&str>,
        suffix: &BackupSuffix,
    ) -> Result<(StreamName, Self), StreamNameError> {
        let asks = query.is_some_and(|query| query.split('&').any(|pair| pair == "backup=1"));
        if asks {
            return Ok((key.parse()?, Self::Backup));
        }
        match suffix.strip(key) {
            Some(name) => Ok((name.parse()?, Self::Backup)),
            None => Ok((key.parse()?, Self::Primary)),
        }
    }

    /// The other one.
    pub(super) const fn other(self) -> Self {
        match self {
            Self::Primary => Self::Backup,
            Self::Backup => Self::Primary,
        }
    }

    /// Its name in the API, in metrics and in the log.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Primary => "primary",
            Self::Backup => "backup",
        }
    }
}

/// One value for each input.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Both<T> {
    pub(super) primary: T,
    pub(super) backup: T,
}

impl<T> Both<T> {
    /// That of `input`.
    pub(super) const fn get(&self, input: Input) -> &T {
        match input {
            Input::Primary => &self.primary,
            Input::Backup => &self.backup,
        }
    }

    /// That of `input`, to be changed.
    pub(super) const fn get_mut(&mut self, input: Input) -> &mut T {
        match input {
            Input::Primary => &mut self.primary,
            Input::Backup => &mut self.backup,
        }
    }

    /// Both, the primary's first.
    pub(super) fn iter(&self) -> impl Iterator<Item = &T> {
        [&self.primary, &self.backup].into_iter()
    }

    /// Both, to be changed.
    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut T> {
        [&mut self.primary, &mut self.backup].into_iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stream_key_says_which_input_is_meant() {
        let suffix = |text| BackupSuffix::parse(text).expect("legal");
        for (key, query, suffixed, expected) in [
            ("demo", None, "_backup", "demo primary"),
            ("demo_backup", None, "_backup", "demo backup"),
            ("demo", Some("backup=1"), "_backup", "demo backup"),
            ("demo", Some("token=a&backup=1"), "", "demo backup"),
            ("demo", Some("backup=0"), "_backup", "demo primary"),
            ("demo_backup", None, "", "demo_backup primary"),
            ("demo-b", None, "-b", "demo backup"),
            ("_backup", None, "_backup", "_backup primary"),
        ] {
            let (name, input) = Input::of(key, query, &suffix(suffixed)).expect("a name");
            assert_eq!(format!("{name} {}", input.as_str()), expected);
        }
        assert!(Input::of("a/b_backup", None, &suffix("_backup")).is_err());
    }
}

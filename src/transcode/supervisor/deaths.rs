//! Decides what follows when a worker dies.
//!
//! Enters: how long each worker worked before it died
//! Leaves: a [`Verdict`]
//! Never:  clocks
//! Time:   monotonic lengths
//! Spec:   docs/resilience.md
//!
//! The samples that a worker had when it died may be what killed it. So the first new worker is given them
//! again, because then nothing is lost; the second is not.

#![deny(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::float_arithmetic
)]

use std::time::Duration;

/// A worker that delivered for this long is not to blame on what it was given to begin with.
pub(super) const PROVEN_AFTER: Duration = Duration::from_secs(10);
/// How many workers in a row may die before they have proven themselves.
pub(super) const MAX_DEATHS: u32 = 3;

/// What to do about a death.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Start another one and give it what the dead one had.
    Replay,
    /// Start another one with the next key frame that comes.
    Skip,
    /// Close the broadcast.
    GiveUp,
}

/// Encoding was given up: no worker was worth another try. What needs none goes on alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GivenUp {
    /// Why, in words.
    pub cause: String,
    /// Whether it is tried again after a while.
    pub retries: bool,
}

/// The deaths in a row.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Deaths {
    in_a_row: u32,
}

impl Deaths {
    /// A worker has died that delivered for `worked`.
    pub(super) fn count(&mut self, worked: Duration) -> Verdict {
        if worked >= PROVEN_AFTER {
            self.in_a_row = 0;
        }
        self.in_a_row += 1;
        match self.in_a_row {
            1 => Verdict::Replay,
            2..MAX_DEATHS => Verdict::Skip,
            _ => Verdict::GiveUp,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replayed_once_then_skipped_then_given_up() {
        use Verdict::{GiveUp, Replay, Skip};
        for (worked_s, verdicts) in [
            (&[60, 0, 0][..], &[Replay, Skip, GiveUp][..]),
            (&[0, 9, 9], &[Replay, Skip, GiveUp]),
            (&[0, 10, 10, 10, 3], &[Replay, Replay, Replay, Replay, Skip]),
        ] {
            let mut deaths = Deaths::default();
            let found: Vec<_> = worked_s
                .iter()
                .map(|s| deaths.count(Duration::from_secs(*s)))
                .collect();
            assert_eq!(found, verdicts);
        }
    }
}

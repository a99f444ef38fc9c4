//! Decides what follows when a worker dies.
//!
//! Enters: how long each worker worked before it died, and when
//! Leaves: a [`Verdict`]
//! Never:  clocks
//! Time:   monotonic lengths
//! Spec:   docs/resilience.md
//!
//! The samples that a worker had when it died may be what killed it. So the first new worker is given them
//! again, because then nothing is lost; the second is not. Those that a worker dies of now and again are noticed by
//! how often that is.

#![deny(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::float_arithmetic
)]

use std::collections::VecDeque;
use std::time::Duration;

/// A worker that delivered for this long is not to blame on what it was given to begin with.
pub(super) const PROVEN_AFTER: Duration = Duration::from_secs(10);
/// How many workers in a row may die before they have proven themselves.
pub(super) const MAX_DEATHS: u32 = 3;
/// How long nothing is encoded once no worker was worth a try.
pub const RETRY_AFTER: Duration = Duration::from_secs(60);
/// How many may die within [`SPAN`], however long they delivered: one every twenty-five seconds.
const MAX_IN_SPAN: usize = 24;
const SPAN: Duration = Duration::from_secs(600);

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

/// The deaths in a row, and the latest ones.
#[derive(Clone, Debug, Default)]
pub(super) struct Deaths {
    in_a_row: u32,
    /// When those within [`SPAN`] were, oldest first.
    latest: VecDeque<Duration>,
}

impl Deaths {
    /// A worker has died at `now` that delivered for `worked`.
    pub(super) fn count(&mut self, worked: Duration, now: Duration) -> Verdict {
        self.latest
            .retain(|death| now.saturating_sub(*death) < SPAN);
        self.latest.push_back(now);
        if self.latest.len() > MAX_IN_SPAN {
            return Verdict::GiveUp;
        }
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
                .map(|s| deaths.count(Duration::from_secs(*s), Duration::ZERO))
                .collect();
            assert_eq!(found, verdicts);
        }
    }

    /// How many workers die that each live for `seconds`, until there is no other one, of at most a thousand.
    fn deaths_every(seconds: u64) -> usize {
        let mut deaths = Deaths::default();
        let verdicts = (1..=1_000).map(|n| {
            let worked = Duration::from_secs(seconds);
            deaths.count(worked, Duration::from_secs(n * seconds))
        });
        let lives = verdicts.take_while(|verdict| *verdict != Verdict::GiveUp);
        lives.count() + 1
    }

    #[test]
    fn those_that_die_again_and_again_are_given_up_however_long_they_worked() {
        assert_eq!(deaths_every(12), 25);
        assert_eq!(deaths_every(24), 25);
        assert_eq!(deaths_every(25), 1_001, "now and again is borne");
    }
}

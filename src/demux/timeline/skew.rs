//! How much later than its pictures sound comes, and what of it is a clock's doing.
//!
//! Enters: the skew of the tracks, twice a second: how much later sound arrives after its instant than pictures
//! Leaves: how far the tracks are from where they were together
//! Never:  takes an encoder that holds one track longer for a clock: that comes at once, a clock creeps
//! Time:   microseconds
//! Spec:   docs/time.md
//!
//! The skew has two parts that stamps do not tell apart: what encoders and interleaving take, which is right as
//! it is, and what two clocks have drifted apart, which is to be put right. The first is learnt when the tracks
//! begin and is kept; what jumps later, and stays, is added to it. All the rest is drift.

use std::collections::VecDeque;

/// The stretch from which the skew is learnt: that of forty half seconds.
const LEARNT_FROM: usize = 40;

/// Half seconds of it after which it is good enough to put one track back to the other.
const TRUSTED_FROM: usize = 10;

/// How far apart the skews are that are remembered.
const EVERY_US: i64 = 10_000_000;
/// What was seen longer ago says nothing of now.
const STALE_US: i64 = 3 * EVERY_US;

/// Skews of which the one in the middle is believed: one of them may be an accident.
const BELIEVED: usize = 3;

/// No clock drifts faster, in parts per million: two bad crystals.
const MAX_PPM: i64 = 300;

/// What the skew jumps by beyond that is an encoder's doing.
const JUMP_US: i64 = 20_000;

/// The skew of the sound of one source.
#[derive(Clone, Debug, Default)]
pub(super) struct Skew {
    /// What it is where the tracks are together.
    usual_us: Option<i64>,
    /// The half seconds that it was learnt from.
    learnt_from: usize,
    /// What it was of late, and when, the newest last: twice [`BELIEVED`].
    seen: VecDeque<(i64, i64)>,
}

impl Skew {
    /// Takes note of the skew at `now_us`, found in stretches that began `stretches` half seconds ago.
    pub(super) fn push(&mut self, now_us: i64, skew_us: i64, stretches: usize) {
        if !self.is_learnt() {
            self.learn(skew_us, stretches);
            return;
        }
        let newest = self.seen.back().map(|(at, _)| *at);
        if newest.is_some_and(|at| now_us.saturating_sub(at) < EVERY_US) {
            return;
        }
        if self.seen.len() >= 2 * BELIEVED {
            self.seen.pop_front();
        }
        self.seen.push_back((now_us, skew_us));
        self.accept_jump();
    }

    /// Takes `usual_us` for what is right, where nothing better is known.
    fn learn(&mut self, usual_us: i64, stretches: usize) {
        if self.usual_us.is_none() || stretches >= self.learnt_from {
            self.usual_us = Some(usual_us);
            self.learnt_from = stretches;
        }
    }

    /// Adds what the skew has jumped by to what is usual, if it stays there.
    fn accept_jump(&mut self) {
        let (before, after) = (self.middle(0), self.middle(BELIEVED));
        let (Some((then_us, before_us)), Some((now_us, after_us))) = (before, after) else {
            return;
        };
        let jump_us = after_us.saturating_sub(before_us);
        let drift_us = now_us.saturating_sub(then_us).saturating_mul(MAX_PPM) / 1_000_000;
        if jump_us.saturating_abs() > JUMP_US.saturating_add(drift_us) {
            self.usual_us = self
                .usual_us
                .map(|usual_us| usual_us.saturating_add(jump_us));
            self.seen.drain(..BELIEVED);
        }
    }

    /// When, and what, the middle one of three skews was, from the one numbered `from` on.
    fn middle(&self, from: usize) -> Option<(i64, i64)> {
        let mut three: Vec<_> = self
            .seen
            .iter()
            .skip(from)
            .take(BELIEVED)
            .copied()
            .collect();
        let at_us = three.get(BELIEVED / 2)?.0;
        if three.len() < BELIEVED {
            return None;
        }
        three.sort_unstable_by_key(|(_, skew_us)| *skew_us);
        Some((at_us, three[BELIEVED / 2].1))
    }

    /// The stamps of one track changed: a skew that jumps there is no encoder's doing.
    pub(super) fn interrupt(&mut self) {
        self.seen.clear();
    }

    /// What the skew is where the tracks are together.
    pub(super) const fn usual(&self) -> Option<i64> {
        self.usual_us
    }

    /// Whether that was seen for long enough to be exact.
    pub(super) const fn is_trusted(&self) -> bool {
        self.learnt_from >= TRUSTED_FROM
    }

    /// Whether it is learnt: what changes from now on is a drift, or an encoder's doing.
    pub(super) const fn is_learnt(&self) -> bool {
        self.learnt_from >= LEARNT_FROM
    }

    /// By how much later than together with its pictures sound comes; `None` while that is not certain, and where it
    /// was not seen of late.
    pub(super) fn off(&self, now_us: i64) -> Option<i64> {
        let newest = self.seen.len().checked_sub(BELIEVED)?;
        let (_, skew_us) = self.middle(newest)?;
        let (seen_us, _) = *self.seen.back()?;
        if now_us.saturating_sub(seen_us) > STALE_US {
            return None;
        }
        Some(skew_us.saturating_sub(self.usual_us?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 1_000_000;

    /// What the sound is off by after skews that `skew` says, in microseconds, by second.
    fn off(seconds: i64, skew: impl Fn(i64) -> i64) -> Option<i64> {
        let mut found = Skew::default();
        for second in 0..seconds {
            let stretches = usize::try_from(2 * second).expect("few").min(60);
            found.push(second * SECOND, skew(second), stretches);
        }
        found.off(seconds * SECOND)
    }

    #[test]
    fn what_a_track_comes_later_by_from_the_start_is_right() {
        assert_eq!(off(20, |_| 150_000), None, "not known yet");
        for lag in [-2 * SECOND, 0, 150_000, 3 * SECOND] {
            assert_eq!(off(100, |_| lag), Some(0));
        }
    }

    #[test]
    fn a_clock_creeps() {
        for ppm in [-200, -50, 50, 200] {
            let off = off(3_600, |second| second * ppm).expect("known");
            // From the end of learning to the middle of the newest three.
            let drifted = (3_600 - 20) * ppm;
            assert!((off - drifted).abs() <= 30 * ppm.abs(), "{ppm}: {off}");
        }
    }

    #[test]
    fn an_encoder_that_holds_a_track_longer_is_no_clock() {
        for jump in [-400_000, -40_000, 40_000, 400_000] {
            let jumps = |second| if second < 1_000 { 0 } else { jump };
            assert_eq!(off(1_100, jumps), Some(0), "{jump}");
            // Nor when it drifts as well.
            let off = off(1_100, |second| jumps(second) + second * 100).expect("known");
            assert!((90_000..125_000).contains(&off), "{jump}: {off}");
        }
    }

    #[test]
    fn one_accident_moves_nothing() {
        let accident = |second| {
            if (500..510).contains(&second) {
                300_000
            } else {
                0
            }
        };
        for until in 500..600 {
            assert_eq!(off(until, accident), Some(0), "{until}");
        }
    }
}

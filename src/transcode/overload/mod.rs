//! Decides which rungs are encoded when there is not enough machine for all of them.
//!
//! Enters: how late the encoders are against the clock, looked at again and again
//! Leaves: [`Decision`]s: the best rung is to rest, or the one that rested last is to come back
//! Never:  the last rung; a rung that comes back sooner than the machine was quiet for
//! Time:   microseconds of a monotonic clock
//! Spec:   docs/resilience.md
//!
//! Late is not yet overloaded: a worker that has just begun, or that stood still, has a backlog, and works it
//! off faster than the clock adds to it. Overloaded is one that is late and gains nothing.

#![deny(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::float_arithmetic
)]

mod gate;
#[cfg(test)]
mod simulation_tests;

pub use gate::{Gate, Pass};

/// Encoders later than this are late, in microseconds: half of what players of low latency keep in hand.
pub const LATE_US: i64 = 500_000;
/// Encoders less late than this are in time, in microseconds: a few frames wait at any busy moment.
const IN_TIME_US: i64 = 250_000;
/// How long they may be late without gaining before a rung rests, in microseconds.
const JUDGE_US: i64 = 1_000_000;
/// The same in the first [`YOUNG_US`], in microseconds, for what is late and stays as late: all encoders of a ladder
/// fill their look-ahead at once, on caches that are cold.
const YOUNG_JUDGE_US: i64 = 3_000_000;
const YOUNG_US: i64 = 10_000_000;
/// By how much lateness grows until the beginning is no excuse, in microseconds.
const GROWN_US: i64 = 250_000;
/// Which share of it they gain at least in that time if they are to be left alone: then they are in time
/// within half a minute.
const GAIN_SHARE: i64 = 16;
/// A frame that has waited for longer is not encoded, in microseconds: what players of low latency keep in
/// hand.
pub const MAX_WAIT_US: i64 = 1_000_000;
/// How long one frame of each part may be too much before a part need not have one, in microseconds; less if what
/// is late falls farther behind by [`LATE_US`].
const HOPELESS_US: i64 = 5_000_000;
/// A process that does nothing for this long, not even count the time, stood still itself, in microseconds.
pub const STOOD_STILL_US: i64 = 500_000;
/// How long the encoders must have been in time before a rung comes back, in microseconds: at first, and at
/// most, when rungs had to rest again and again.
const QUIET_US: i64 = 30_000_000;
const MAX_QUIET_US: i64 = 900_000_000;

/// Which frames are not encoded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Leaving {
    /// None is left out.
    #[default]
    Nothing,
    /// All but the first of each part: a part without one would be a hole.
    Most,
    /// All but the first of each segment.
    All,
}

impl Leaving {
    /// What it is for a frame that has waited for `waited_us`.
    #[must_use]
    pub const fn after(self, waited_us: i64) -> Self {
        if waited_us > MAX_WAIT_US {
            self
        } else {
            Self::Nothing
        }
    }
}

/// How encoding keeps up with the clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// How many rungs rest, from the best on.
    pub resting: u32,
    /// How late the slowest encoder is, in milliseconds.
    pub late_ms: u32,
    /// How many frames were not encoded because they had waited for too long, over all rungs, from the
    /// beginning.
    pub left_frames: u64,
}

/// What is to change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// The rung of this index is to rest from the next segment on.
    Rest(usize),
    /// The rung of this index is to be encoded again from the next segment on.
    Return(usize),
}

/// Watches over the rungs of one ladder, best first.
#[derive(Clone, Debug)]
pub struct Overload {
    rungs: usize,
    /// How many rest, from the best on.
    resting: usize,
    /// When it was first looked at.
    begun_us: Option<i64>,
    /// Since when it is late, and by how much it was then.
    late: Option<(i64, i64)>,
    quiet_since_us: Option<i64>,
    /// How long it must be quiet before a rung comes back.
    quiet_us: i64,
    returned_us: Option<i64>,
    /// Whether it was late without gaining, and has not been in time since: no backlog that is worked off.
    falls_behind: bool,
    /// Since when frames are left out, and how late it was then.
    left: Option<(i64, i64)>,
    /// Whether it gains nothing even with one frame of each part.
    is_hopeless: bool,
}

impl Overload {
    /// All of `rungs` are encoded.
    #[must_use]
    pub const fn new(rungs: usize) -> Self {
        Self {
            rungs,
            resting: 0,
            begun_us: None,
            late: None,
            quiet_since_us: None,
            quiet_us: QUIET_US,
            returned_us: None,
            falls_behind: false,
            left: None,
            is_hopeless: false,
        }
    }

    /// Takes note that everything stood still: what is late for that is a backlog. Being looked at seldom is not
    /// that: whoever looks may have had to wait for an encoder.
    pub fn stood_still(&mut self) {
        self.late = None;
        self.stop_leaving();
    }

    /// Takes note that at `now_us` the slowest encoder at work is `late_us` behind. While `is_changing`, one is
    /// about to rest or has just begun, and what that brings is yet to be seen. To be called several times a
    /// second.
    pub fn look(&mut self, now_us: i64, late_us: i64, is_changing: bool) -> Option<Decision> {
        let begun_us = *self.begun_us.get_or_insert(now_us);
        if late_us < IN_TIME_US {
            self.late = None;
            self.stop_leaving();
            return self.be_quiet(now_us);
        }
        self.quiet_since_us = None;
        self.judge_leaving(now_us, late_us);
        if late_us <= LATE_US && self.late.is_none() {
            return None;
        }
        if is_changing {
            self.late = None;
        }
        let (since_us, before_us) = *self.late.get_or_insert((now_us, late_us));
        let is_young = now_us.saturating_sub(begun_us) < YOUNG_US;
        let judge_us = if is_young && late_us.saturating_sub(before_us) < GROWN_US {
            YOUNG_JUDGE_US
        } else {
            JUDGE_US
        };
        if now_us.saturating_sub(since_us) < judge_us {
            return None;
        }
        self.late = Some((now_us, late_us));
        if before_us.saturating_sub(late_us) >= before_us / GAIN_SHARE {
            return None;
        }
        self.falls_behind = true;
        self.rest(now_us)
    }

    /// Which of the frames that waited for too long are to be left out, rather than encoded late: what catches up
    /// by itself, after a start or a busy moment, loses nothing.
    #[must_use]
    pub const fn leaving(&self) -> Leaving {
        match (self.falls_behind, self.is_hopeless) {
            (false, _) => Leaving::Nothing,
            (true, false) => Leaving::Most,
            (true, true) => Leaving::All,
        }
    }

    /// Looks whether one frame of each part is still too much.
    fn judge_leaving(&mut self, now_us: i64, late_us: i64) {
        if !self.falls_behind {
            return;
        }
        let (since_us, before_us) = *self.left.get_or_insert((now_us, late_us));
        if late_us.saturating_sub(before_us) > LATE_US {
            // Longer than a part, by which it comes and goes in any case.
            self.left = Some((now_us, late_us));
            self.is_hopeless = true;
        } else if now_us.saturating_sub(since_us) >= HOPELESS_US {
            self.left = Some((now_us, late_us));
            let gained_us = before_us.saturating_sub(late_us);
            self.is_hopeless = late_us > MAX_WAIT_US && gained_us < before_us / GAIN_SHARE;
        }
    }

    const fn stop_leaving(&mut self) {
        self.falls_behind = false;
        self.left = None;
        self.is_hopeless = false;
    }

    /// How many rungs rest, from the best on.
    #[must_use]
    pub const fn resting(&self) -> usize {
        self.resting
    }

    fn rest(&mut self, now_us: i64) -> Option<Decision> {
        if self.resting + 1 >= self.rungs {
            return None;
        }
        // A rung that could not stay for as long as it was waited for came back too soon.
        let was_soon = self
            .returned_us
            .take()
            .is_some_and(|at| now_us.saturating_sub(at) < self.quiet_us);
        self.quiet_us = if was_soon {
            self.quiet_us.saturating_mul(2).min(MAX_QUIET_US)
        } else {
            self.quiet_us
        };
        self.resting += 1;
        Some(Decision::Rest(self.resting - 1))
    }

    fn be_quiet(&mut self, now_us: i64) -> Option<Decision> {
        let since_us = *self.quiet_since_us.get_or_insert(now_us);
        let quiet_us = now_us.saturating_sub(since_us);
        let stayed = |at: i64| now_us.saturating_sub(at) >= self.quiet_us;
        if self.returned_us.is_some_and(stayed) {
            self.returned_us = None;
            self.quiet_us = QUIET_US;
        }
        if self.resting == 0 || quiet_us < self.quiet_us {
            return None;
        }
        self.quiet_since_us = Some(now_us);
        self.returned_us = Some(now_us);
        self.resting -= 1;
        Some(Decision::Return(self.resting))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 1_000_000;

    /// Of a worker that did not begin just now.
    fn seasoned(rungs: usize) -> Overload {
        Overload {
            begun_us: Some(-YOUNG_US),
            ..Overload::new(rungs)
        }
    }

    /// Looks every 10 ms from `from` to `to` seconds; what was decided, and when, in milliseconds.
    fn watch(
        overload: &mut Overload,
        (from, to): (i64, i64),
        late_us: impl Fn(i64) -> i64,
    ) -> Vec<(i64, Decision)> {
        let times = (from * 100..to * 100).map(|n| n * 10_000);
        let look = |now| Some((now / 1_000, overload.look(now, late_us(now), false)?));
        times.filter_map(look).collect()
    }

    #[test]
    fn best_rung_rests_a_second_after_it_is_late_and_the_last_never() {
        let mut overload = seasoned(3);
        let decided = watch(&mut overload, (0, 60), |now| now / 2);
        let rests: Vec<_> = decided.iter().map(|(_, decision)| *decision).collect();
        assert_eq!(rests, [Decision::Rest(0), Decision::Rest(1)]);
        assert!(
            (2_000..2_100).contains(&decided[0].0),
            "{decided:?}: late since 1 s"
        );
        assert_eq!(overload.resting(), 2);
    }

    #[test]
    fn ladder_that_has_just_begun_is_given_longer_unless_it_falls_back() {
        // As late for two seconds as encoders are that all begin at once, and in time after that.
        let late_us = |now: i64| if now < 2_500_000 { 900_000 } else { 0 };
        let mut young = Overload::new(3);
        assert_eq!(watch(&mut young, (0, 20), late_us), []);
        let mut old = Overload::new(3);
        watch(&mut old, (0, 10), |_| 0);
        let decided = watch(&mut old, (10, 20), |now| late_us(now - 10 * SECOND));
        assert_eq!(
            decided,
            [(11_000, Decision::Rest(0)), (12_000, Decision::Rest(1))]
        );
        let mut slow = Overload::new(3);
        let decided = watch(&mut slow, (0, 2), |now| 900_000 + now / 4);
        assert_eq!(decided, [(1_000, Decision::Rest(0))]);
    }

    #[test]
    fn backlog_that_is_worked_off_is_left_alone() {
        let mut overload = seasoned(3);
        let decided = watch(&mut overload, (0, 20), |now| (5 * SECOND - now / 2).max(0));
        assert_eq!(decided, []);
        assert_eq!(overload.leaving(), Leaving::Nothing);
    }

    #[test]
    fn frames_are_left_out_only_where_nothing_is_gained() {
        let mut overload = seasoned(1);
        watch(&mut overload, (0, 3), |now| 5 * SECOND - now);
        assert_eq!(overload.leaving(), Leaving::Nothing, "it gains");
        watch(&mut overload, (3, 6), |_| 2 * SECOND);
        assert_eq!(overload.leaving(), Leaving::Most, "it does not");
        watch(&mut overload, (6, 10), |_| 2 * SECOND);
        assert_eq!(overload.leaving(), Leaving::All, "nor with a frame a part");
        watch(&mut overload, (10, 13), |now| 12 * SECOND - now);
        assert_eq!(overload.leaving(), Leaving::Nothing, "it is in time");
        watch(&mut overload, (13, 16), |_| 2 * SECOND);
        assert_eq!(overload.leaving(), Leaving::Most, "it is late again");
        overload.look(18 * SECOND, 2 * SECOND, false);
        assert_eq!(
            overload.leaving(),
            Leaving::Most,
            "whoever looks had to wait"
        );
        // It stood still for two seconds, and has their slots before it.
        overload.stood_still();
        overload.look(20 * SECOND, 4 * SECOND, false);
        assert_eq!(overload.leaving(), Leaving::Nothing);
    }

    #[test]
    fn no_part_needs_a_frame_of_what_falls_farther_behind_with_that() {
        let mut overload = seasoned(1);
        watch(&mut overload, (0, 2), |_| 2 * SECOND);
        assert_eq!(overload.leaving(), Leaving::Most);
        overload.look(2 * SECOND, 5 * SECOND / 2, false);
        assert_eq!(overload.leaving(), Leaving::Most);
        overload.look(2 * SECOND + 10_000, 5 * SECOND / 2 + 10_000, false);
        assert_eq!(overload.leaving(), Leaving::All);
    }

    #[test]
    fn lateness_that_is_seldom_looked_at_is_seen() {
        let mut overload = seasoned(2);
        let decided: Vec<_> = (0..10)
            .filter_map(|n| overload.look(n * 700_000, n * 300_000, false))
            .collect();
        assert_eq!(decided, [Decision::Rest(0)]);
    }

    #[test]
    fn encoder_that_starts_slowly_is_judged_by_what_it_does_then() {
        let mut overload = seasoned(2);
        // It takes five seconds to start, and catches up in another ten.
        let late_us = |now: i64| now.min((5 * SECOND - (now - 5 * SECOND) / 2).max(0));
        for now_us in (0..20 * SECOND).step_by(10_000) {
            let is_starting = now_us < 5 * SECOND;
            assert_eq!(overload.look(now_us, late_us(now_us), is_starting), None);
        }
    }

    #[test]
    fn rung_comes_back_after_a_quiet_while_which_doubles_when_it_was_too_short() {
        let mut overload = seasoned(2);
        let (mut waits, mut now) = (Vec::new(), 0);
        for _ in 0..8 {
            assert_eq!(watch(&mut overload, (now, now + 2), |_| SECOND).len(), 1);
            now += 2;
            let mut quiet = now..;
            let back = quiet.find(|at| !watch(&mut overload, (*at, at + 1), |_| 0).is_empty());
            let back = back.expect("comes back");
            // It is late again within a second.
            waits.push(back - now);
            now = back + 1;
        }
        assert_eq!(waits, [30, 60, 120, 240, 480, 900, 900, 900]);
    }

    #[test]
    fn rung_that_stayed_is_not_waited_for_longer() {
        let mut overload = seasoned(2);
        for from in [0, 100, 200] {
            watch(&mut overload, (from, from + 3), |_| SECOND);
            let quiet = watch(&mut overload, (from + 3, from + 100), |_| 0);
            assert_eq!(quiet, [((from + 33) * 1_000, Decision::Return(0))]);
        }
    }
}

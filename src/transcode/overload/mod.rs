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
/// Which share of it they gain at least in that time if they are to be left alone: then they are in time
/// within half a minute.
const GAIN_SHARE: i64 = 16;
/// A frame that has waited for longer is not encoded, in microseconds: what players of low latency keep in
/// hand.
pub const MAX_WAIT_US: i64 = 1_000_000;
/// Who was not looked at for this long stood still itself, in microseconds.
const STOOD_STILL_US: i64 = 500_000;
/// How long the encoders must have been in time before a rung comes back, in microseconds: at first, and at
/// most, when rungs had to rest again and again.
const QUIET_US: i64 = 30_000_000;
const MAX_QUIET_US: i64 = 900_000_000;

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
    looked_us: Option<i64>,
    /// Since when it is late, and by how much it was then.
    late: Option<(i64, i64)>,
    quiet_since_us: Option<i64>,
    /// How long it must be quiet before a rung comes back.
    quiet_us: i64,
    returned_us: Option<i64>,
    /// Whether it was late without gaining, and has not been in time since: no backlog that is worked off.
    falls_behind: bool,
}

impl Overload {
    /// All of `rungs` are encoded.
    #[must_use]
    pub const fn new(rungs: usize) -> Self {
        Self {
            rungs,
            resting: 0,
            looked_us: None,
            late: None,
            quiet_since_us: None,
            quiet_us: QUIET_US,
            returned_us: None,
            falls_behind: false,
        }
    }

    /// Takes note that at `now_us` the slowest encoder at work is `late_us` behind. While `is_closing`, what a
    /// rest brings is yet to be seen. To be called several times a second.
    pub fn look(&mut self, now_us: i64, late_us: i64, is_closing: bool) -> Option<Decision> {
        let looked_us = self.looked_us.replace(now_us).unwrap_or(now_us);
        if now_us.saturating_sub(looked_us) > STOOD_STILL_US {
            self.falls_behind = false;
            self.late = None;
        }
        if late_us < IN_TIME_US {
            self.late = None;
            self.falls_behind = false;
            return self.be_quiet(now_us);
        }
        self.quiet_since_us = None;
        if late_us <= LATE_US && self.late.is_none() {
            return None;
        }
        if is_closing {
            self.late = None;
        }
        let (since_us, before_us) = *self.late.get_or_insert((now_us, late_us));
        if now_us.saturating_sub(since_us) < JUDGE_US {
            return None;
        }
        self.late = Some((now_us, late_us));
        if before_us.saturating_sub(late_us) >= before_us / GAIN_SHARE {
            return None;
        }
        self.falls_behind = true;
        self.rest(now_us)
    }

    /// Whether frames that waited for too long are to be left out, rather than encoded late: what catches up by
    /// itself, after a start or a busy moment, loses nothing.
    #[must_use]
    pub const fn may_leave(&self) -> bool {
        self.falls_behind
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
        let mut overload = Overload::new(3);
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
    fn backlog_that_is_worked_off_is_left_alone() {
        let mut overload = Overload::new(3);
        let decided = watch(&mut overload, (0, 20), |now| (5 * SECOND - now / 2).max(0));
        assert_eq!(decided, []);
        assert!(!overload.may_leave());
    }

    #[test]
    fn frames_are_left_out_only_where_nothing_is_gained() {
        let mut overload = Overload::new(1);
        watch(&mut overload, (0, 3), |now| 5 * SECOND - now);
        assert!(!overload.may_leave(), "it gains");
        watch(&mut overload, (3, 6), |_| 2 * SECOND);
        assert!(overload.may_leave(), "it does not");
        // It stood still for two seconds, and has their slots before it.
        overload.look(8 * SECOND, 2 * SECOND, false);
        assert!(!overload.may_leave());
    }

    #[test]
    fn rung_comes_back_after_a_quiet_while_which_doubles_when_it_was_too_short() {
        let mut overload = Overload::new(2);
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
        let mut overload = Overload::new(2);
        for from in [0, 100, 200] {
            watch(&mut overload, (from, from + 3), |_| SECOND);
            let quiet = watch(&mut overload, (from + 3, from + 100), |_| 0);
            assert_eq!(quiet, [((from + 33) * 1_000, Decision::Return(0))]);
        }
    }
}

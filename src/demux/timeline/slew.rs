//! Moves a timeline so slowly that nobody hears or sees it.
//!
//! Enters: a direction, now and then; positions on the source's own timeline
//! Leaves: how far each position is to be moved, the same for every track
//! Never:  steps: between two positions the move changes by at most [`PPM`] of their distance
//! Time:   microseconds
//! Spec:   none

/// The speed of a slew, in parts per million: half a sample of sound per access unit of 1024, a quarter of
/// what a musical ear tells apart (five cents are 2890 ppm), and 1.5 ticks of 90 kHz per frame at 30 a second.
pub const PPM: i64 = 500;

/// One stretch of constant direction.
#[derive(Clone, Copy, Debug, Default)]
struct Stretch {
    from_us: i64,
    moved_us: i64,
    direction: i64,
}

impl Stretch {
    fn at(&self, position_us: i64) -> i64 {
        let run = position_us.saturating_sub(self.from_us).max(0);
        let moved = i128::from(run) * i128::from(PPM * self.direction) / 1_000_000;
        self.moved_us
            .saturating_add(i64::try_from(moved).unwrap_or(0))
    }
}

/// How far the timeline is moved, as a function of the position on it. Continuous, piecewise linear.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Slew {
    /// For a track that lags behind the other across a change of direction.
    before: Stretch,
    now: Stretch,
}

impl Slew {
    /// How far what lies at `position_us` is to be moved.
    pub(super) fn at(&self, position_us: i64) -> i64 {
        if position_us < self.now.from_us {
            self.before.at(position_us)
        } else {
            self.now.at(position_us)
        }
    }

    /// 1 while the timeline is being moved later, −1 earlier, 0 not at all.
    pub(super) const fn direction(&self) -> i64 {
        self.now.direction
    }

    /// Goes on in `direction` from `position_us`, which is the farthest so far.
    pub(super) fn turn(&mut self, direction: i64, position_us: i64) {
        if direction == self.now.direction {
            return;
        }
        self.before = self.now;
        self.now = Stretch {
            from_us: position_us.max(self.before.from_us),
            moved_us: self.before.at(position_us),
            direction: direction.signum(),
        };
    }

    /// The positions themselves were all moved by `by_us`; how far they are slewed stays.
    pub(super) fn shift(&mut self, by_us: i64) {
        for stretch in [&mut self.before, &mut self.now] {
            stretch.from_us = stretch.from_us.saturating_add(by_us);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_slew_is_gentle_and_stays_where_it_stopped() {
        let mut slew = Slew::default();
        slew.turn(1, 1_000_000);
        assert_eq!(slew.at(999_999), 0);
        assert_eq!(slew.at(3_000_000), 1_000);
        slew.turn(0, 3_000_000);
        assert_eq!(slew.at(2_000_000), 500, "the track that lags");
        assert_eq!(slew.at(90_000_000), 1_000);
        slew.shift(5_000_000);
        assert_eq!(slew.at(7_000_000), 500);
    }

    proptest! {
        #[test]
        fn no_two_positions_are_moved_apart_by_more_than_the_limit(turns in proptest::collection::vec((-1_i64..=1, 0_i64..3_000_000, 0_i64..400_000), 1..40)) {
            let mut slew = Slew::default();
            let (mut front, mut last) = (0, (0, 0));
            for (direction, step, lag) in turns {
                front += step;
                slew.turn(direction, front);
                let at = (front - lag).max(last.0);
                let moved = slew.at(at);
                // What lags by more than one turn is off by what the turns between made.
                let slack = 400_000 * PPM / 1_000_000 + 2;
                prop_assert!((moved - last.1).abs() <= (at - last.0) * PPM / 1_000_000 + slack);
                last = (at, moved);
            }
        }
    }
}

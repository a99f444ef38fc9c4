//! Places sound by counting its samples, so that the rounding of stamps to milliseconds vanishes.
//!
//! Enters: the stamp of each access unit in ticks of the sample rate, off by a few milliseconds
//! Leaves: positions exactly one access unit apart while the stamps agree
//! Never:  bytes, other tracks
//! Time:   ticks of the sample rate, from the Unix epoch
//! Spec:   none

use super::cadence::Drift;

/// How far a stamp may lie from the count before it means something else than noise. OBS and ffmpeg round to
/// milliseconds, the first stamp is rounded as well, and some encoders add one more.
const NOISE_MS: u32 = 3;

/// Where one access unit lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counted {
    /// Position in ticks.
    pub at: i64,
    /// Access units missing before it.
    pub missing: u64,
    /// The stamp was not later than the one before.
    pub nudged: bool,
}

/// The count of one track.
#[derive(Clone, Debug)]
pub struct SampleCount {
    noise: i64,
    next: Option<i64>,
    last_stamp: Option<i64>,
    drift: Drift,
}

impl SampleCount {
    /// A count of sound at `sample_rate`.
    #[must_use]
    pub fn new(sample_rate: u32) -> Self {
        Self {
            noise: i64::from(sample_rate) * i64::from(NOISE_MS) / 1_000,
            next: None,
            last_stamp: None,
            drift: Drift::new(i64::from(sample_rate) / 1_000),
        }
    }

    /// Places the access unit stamped `stamp`, of `frame_samples` samples. `moved` starts the count anew there, be it before what was
    /// placed already, unless it goes on exactly there anyway.
    ///
    /// A stamp ahead by nearly one access unit or more is a gap and followed at once, in whole access units
    /// where it fits them. A stamp that stays ahead or behind by less is a clock of another speed and
    /// followed by one tick per access unit (about 0.1 %). A stamp behind by more is sound that was stamped
    /// in bursts: counting is right.
    pub fn push(&mut self, stamp: i64, frame_samples: u32, moved: bool) -> Counted {
        let nudged = !moved && self.last_stamp.is_some_and(|last| stamp <= last);
        self.last_stamp = Some(stamp);
        let (at, missing) = self.place(stamp, i64::from(frame_samples.max(1)), moved);
        Counted {
            at,
            missing,
            nudged,
        }
    }

    /// Where it lies, and how many are missing before it.
    fn place(&mut self, stamp: i64, frame: i64, moved: bool) -> (i64, u64) {
        let goes_on =
            |next: &i64| !moved || stamp.saturating_sub(*next).saturating_abs() <= self.noise;
        let Some(next) = self.next.filter(goes_on) else {
            self.drift.reset();
            return self.placed(stamp, frame, 0);
        };
        let ahead = stamp.saturating_sub(next);
        // An access unit may be shorter than the noise: a packet of Opus lasts 2.5 ms and more.
        if ahead < (frame - self.noise).max(self.noise + 1) {
            let slew = self.drift.push(ahead);
            return self.placed(next + slew, frame, 0);
        }
        let missing = (ahead + frame / 2) / frame;
        let whole = next + missing * frame;
        self.drift.reset();
        let at = if (stamp - whole).abs() <= self.noise {
            whole
        } else {
            stamp
        };
        self.placed(at, frame, u64::try_from(missing).unwrap_or(0))
    }

    const fn placed(&mut self, at: i64, frame: i64, missing: u64) -> (i64, u64) {
        self.next = Some(at.saturating_add(frame));
        (at, missing)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const RATE: i64 = 44_100;

    fn ticks_of_ms(ms: i64) -> i64 {
        (ms * RATE + 500) / 1_000
    }

    #[test]
    fn stamps_rounded_to_milliseconds_become_steps_of_exactly_1024() {
        let mut count = SampleCount::new(44_100);
        for n in 0..155_000_i64 {
            let counted = count.push(ticks_of_ms(n * 1_024 * 1_000 / RATE), 1_024, false);
            assert_eq!(
                counted,
                Counted {
                    at: n * 1_024,
                    missing: 0,
                    nudged: false
                }
            );
        }
    }

    #[test]
    fn a_lost_access_unit_leaves_a_hole_of_whole_ones() {
        for lost in [1_i64, 2, 40] {
            let mut count = SampleCount::new(44_100);
            for n in 0..100_i64 {
                let n = if n < 50 { n } else { n + lost };
                let counted = count.push(ticks_of_ms(n * 1_024 * 1_000 / RATE), 1_024, false);
                assert_eq!(counted.at, n * 1_024);
                let missing = if n == 50 + lost { lost } else { 0 };
                assert_eq!(i64::try_from(counted.missing), Ok(missing));
            }
        }
    }

    #[test]
    fn sound_stamped_in_bursts_is_spread_out() {
        let mut count = SampleCount::new(44_100);
        for n in 0..1_000_i64 {
            let stamp = ticks_of_ms((n - n % 4) * 1_024 * 1_000 / RATE);
            let counted = count.push(stamp, 1_024, false);
            assert_eq!((counted.at, counted.nudged), (n * 1_024, n % 4 > 0));
        }
    }

    #[test]
    fn a_slow_clock_is_followed_by_single_ticks() {
        for ppm in [-200_i64, 200] {
            let mut count = SampleCount::new(44_100);
            let mut last = -1_024;
            for n in 0..155_000_i64 {
                let exact_us = n * 1_024 * 1_000_000 / RATE;
                let stamp = ticks_of_ms((exact_us + exact_us * ppm / 1_000_000) / 1_000);
                let at = count.push(stamp, 1_024, false).at;
                assert!((1_023..=1_025).contains(&(at - last)));
                assert!((at - stamp).abs() < 4 * RATE / 1_000, "{n}: {}", at - stamp);
                last = at;
            }
        }
    }

    #[test]
    fn packets_of_any_length_lie_end_to_end() {
        for lengths in [
            &[120_u32][..],
            &[240],
            &[960],
            &[2_880],
            &[960, 480, 5_760, 120],
        ] {
            let mut count = SampleCount::new(48_000);
            let mut expected = 0;
            for (n, length) in lengths.iter().cycle().take(2_000).enumerate() {
                let rounding = [0, 1, -1][n % 3];
                let stamp = (expected / 48 + rounding) * 48;
                let counted = count.push(stamp, *length, false);
                let found = (counted.at, counted.missing);
                assert_eq!(found, (expected, 0), "{lengths:?} {n}");
                expected += i64::from(*length);
            }
            let after = count.push(expected + 48_000, 960, false);
            assert_eq!(
                (after.at, after.missing),
                (expected + 48_000, 50),
                "{lengths:?}"
            );
        }
    }

    proptest! {
        #[test]
        fn noise_of_a_millisecond_never_shows(noise in proptest::collection::vec(-1_i64..=1, 400)) {
            let mut count = SampleCount::new(48_000);
            let first = count.push((100 + noise[0]) * 48, 1_024, false).at;
            for (n, noise) in (1_i64..).zip(&noise[1..]) {
                let ms = 100 + n * 1_024 / 48 + noise;
                prop_assert_eq!(count.push(ms * 48, 1_024, false).at, first + n * 1_024);
            }
        }

        #[test]
        fn positions_increase_unless_the_track_moved(stamps in proptest::collection::vec((-1_i64 << 40..1 << 40, any::<bool>()), 1..60)) {
            let mut count = SampleCount::new(48_000);
            let mut last = i64::MIN;
            for (stamp, moved) in stamps {
                let at = count.push(stamp, 1_024, moved).at;
                prop_assert!(at > last || moved && (at - stamp).abs() <= 3 * 48);
                last = at;
            }
        }
    }
}

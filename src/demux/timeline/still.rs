//! Paces a track by its arrivals while its stamps stand still, as of a publisher that forgets to set them.
//!
//! Enters: the arrival of each sample, and whether its stamp went on
//! Leaves: where a sample lies whose stamp says nothing
//! Never:  believed before half a second and some samples have shown it: stamps may be coarse, or in disorder
//! Time:   microseconds
//! Spec:   none

/// For how long stamps stand still until it is believed.
const BELIEVED_US: i64 = 500_000;
/// The fewest samples in that time.
const MIN_SAMPLES: i64 = 8;
/// How far apart stamps and arrivals may be that say the same, when stamps go on: the jitter of both ends.
const RESUMED_US: u64 = 500_000;
/// The share of its distance from the wall clock that a sample makes good, so that the jitter of arrivals does not show.
const SMOOTHED: i64 = 16;

/// The last sample of a track whose stamp went on, and what came after it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Still {
    since: Option<Since>,
}

#[derive(Clone, Copy, Debug)]
struct Since {
    stamp_ms: u32,
    at_us: i64,
    arrived_us: i64,
    samples: i64,
    /// Whether it was told that stamps stand still: those of this publisher go on now and then.
    is_told: bool,
    /// Where the last sample was put that was paced.
    paced_us: Option<i64>,
}

/// Where a sample lies whose stamp stands still.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Paced {
    pub(super) at_us: i64,
    /// How long stamps have stood still, if it is believed from this sample on.
    pub(super) begins_after_us: Option<i64>,
}

impl Still {
    /// A sample whose stamp went on to `stamp_ms` lies at `at_us`.
    pub(super) fn go_on(&mut self, stamp_ms: u32, at_us: i64, arrived_us: i64) {
        let is_told = self.resume(stamp_ms, arrived_us).is_some();
        self.since = Some(Since {
            stamp_ms,
            at_us,
            arrived_us,
            samples: 0,
            is_told,
            paced_us: None,
        });
    }

    /// A sample came whose stamp did not; where it lies, once that is believed.
    pub(super) fn stand(&mut self, now_us: i64) -> Option<Paced> {
        let since = self.since.as_mut()?;
        since.samples = since.samples.saturating_add(1);
        let for_us = now_us.saturating_sub(since.arrived_us);
        let is_believed = for_us >= BELIEVED_US && since.samples >= MIN_SAMPLES;
        if !is_believed && since.paced_us.is_none() {
            return None;
        }
        let wall_us = since.at_us.saturating_add(for_us);
        let at_us = since.paced_us.map_or(wall_us, |last| {
            let next = last.saturating_add(for_us / since.samples);
            next.saturating_add(wall_us.saturating_sub(next) / SMOOTHED)
        });
        let begins = since.paced_us.replace(at_us).is_none();
        let begins_after_us = (begins && !since.is_told).then_some(for_us);
        Some(Paced {
            at_us,
            begins_after_us,
        })
    }

    /// Whether samples are placed by their arrival.
    pub(super) fn is_paced(&self) -> bool {
        self.since.is_some_and(|since| since.paced_us.is_some())
    }

    /// Where a sample lies whose stamp goes on to `stamp_ms` after samples were paced, if stamps stood still while the
    /// clock behind them went on: its step says of the same time what their arrivals said.
    pub(super) fn resume(&self, stamp_ms: u32, now_us: i64) -> Option<i64> {
        let since = self.since.filter(|since| since.paced_us.is_some())?;
        let step_ms = stamp_ms.wrapping_sub(since.stamp_ms).cast_signed();
        let by_stamp_us = i64::from(step_ms) * 1_000;
        let by_clock_us = now_us.saturating_sub(since.arrived_us);
        let is_same = by_stamp_us.abs_diff(by_clock_us) <= RESUMED_US;
        is_same.then(|| since.at_us.saturating_add(by_stamp_us))
    }

    /// The track was placed `by_us` later.
    pub(super) fn shift(&mut self, by_us: i64) {
        if let Some(since) = &mut self.since {
            since.at_us = since.at_us.saturating_add(by_us);
            since.paced_us = since.paced_us.map(|at| at.saturating_add(by_us));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Where samples lie that come every 40 ms, give or take `jitter_us`, with one stamp.
    fn paced(jitter_us: i64) -> Vec<Option<i64>> {
        let mut still = Still::default();
        still.go_on(0, 1_000_000, 7_000_000);
        let arrivals = (1..200).map(|n| 7_000_000 + n * 40_000 + n % 3 * jitter_us);
        let paced = arrivals.map(|now| still.stand(now).map(|paced| paced.at_us));
        paced.collect()
    }

    #[test]
    fn stamps_that_stand_still_are_believed_after_half_a_second_and_paced_evenly() {
        for jitter_us in [0, 3_000, 30_000] {
            let paced = paced(jitter_us);
            let first = paced.iter().position(Option::is_some).expect("believed");
            assert!((10..14).contains(&first), "{first}");
            let places: Vec<i64> = paced[first..].iter().map(|at| at.expect("all")).collect();
            for (n, pair) in (first..).zip(places.windows(2)) {
                let step = pair[1] - pair[0];
                assert!(
                    (step - 40_000).abs() <= jitter_us / 3 + 2_000,
                    "{n}: {step}"
                );
            }
            let end_us = 1_000_000 + 199 * 40_000;
            let off = places[places.len() - 1] - end_us;
            assert!((0..=2 * jitter_us).contains(&off), "{off}");
        }
    }

    #[test]
    fn a_few_samples_of_one_stamp_are_none_of_it() {
        let mut still = Still::default();
        still.go_on(0, 1_000_000, 7_000_000);
        for n in 1..8 {
            assert_eq!(still.stand(7_000_000 + n * 100_000), None);
        }
        let begins = still.stand(7_800_000).and_then(|at| at.begins_after_us);
        assert_eq!(begins, Some(800_000));
        still.go_on(800, 1_800_000, 7_900_000);
        assert_eq!(still.stand(7_950_000), None);
    }

    #[test]
    fn stamps_that_go_on_say_where_they_would_be_or_that_their_clock_stood() {
        let mut still = Still::default();
        still.go_on(500, 1_000_000, 7_000_000);
        for n in 1..100 {
            still.stand(7_000_000 + n * 40_000);
        }
        assert!(still.is_paced());
        let now_us = 7_000_000 + 100 * 40_000;
        assert_eq!(still.resume(4_500, now_us), Some(5_000_000));
        assert_eq!(still.resume(4_300, now_us), Some(4_800_000));
        assert_eq!(still.resume(540, now_us), None, "the clock stood as well");
        assert_eq!(still.resume(90_000, now_us), None, "it is another one");
    }
}

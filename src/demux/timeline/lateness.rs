//! How late the samples of one track arrive: the least of each half second, over half a minute.
//!
//! Enters: for each sample, when it arrived and how long after the instant that its stamp stands for
//! Leaves: floors: the least lateness of a stretch, which is what the way in takes without any jitter
//! Never:  averages: jitter only ever adds
//! Time:   microseconds
//! Spec:   none

/// The stretch whose least lateness is kept as one number.
pub(super) const BUCKET_US: i64 = 500_000;

/// Half a minute. Longer than the bursts and waits of any usual way in, short beside what drift gathers.
pub(super) const KEPT: usize = 60;

#[derive(Clone, Copy, Debug)]
struct Bucket {
    number: i64,
    least_us: i64,
}

/// The last half minute of one track.
#[derive(Clone, Debug, Default)]
pub(super) struct Lateness {
    /// Oldest first, at most [`KEPT`], their numbers increasing; stretches without samples have none.
    buckets: std::collections::VecDeque<Bucket>,
    /// The least of them.
    floor_us: Option<i64>,
    /// The floor of what was forgotten last.
    last_us: Option<i64>,
}

impl Lateness {
    /// Notes a sample that arrived at `now_us`, `late_us` after its instant.
    pub(super) fn push(&mut self, now_us: i64, late_us: i64) {
        let number = bucket_at(now_us);
        match self.buckets.back_mut() {
            Some(last) if last.number >= number => last.least_us = last.least_us.min(late_us),
            _ => {
                let too_old = number.saturating_sub(i64::try_from(KEPT).unwrap_or(i64::MAX));
                while self
                    .buckets
                    .front()
                    .is_some_and(|old| old.number <= too_old)
                {
                    self.last_us = self.floor_us;
                    self.forget_oldest();
                }
                let least_us = late_us;
                self.buckets.push_back(Bucket { number, least_us });
            }
        }
        self.floor_us = Some(self.floor_us.map_or(late_us, |floor| floor.min(late_us)));
    }

    /// Forgets the oldest stretch; few of them are the floor, after which it has to be looked for.
    fn forget_oldest(&mut self) {
        let forgotten = self.buckets.pop_front().map(|oldest| oldest.least_us);
        if forgotten == self.floor_us {
            self.floor_us = self.buckets.iter().map(|bucket| bucket.least_us).min();
        }
    }

    /// The track was placed `by_us` later than before.
    pub(super) fn shift(&mut self, by_us: i64) {
        for bucket in &mut self.buckets {
            bucket.least_us = bucket.least_us.saturating_sub(by_us);
        }
        for floor in [&mut self.floor_us, &mut self.last_us] {
            *floor = floor.map(|floor| floor.saturating_sub(by_us));
        }
    }

    /// Forgets all but the newest `count` stretches.
    pub(super) fn keep(&mut self, count: usize) {
        while self.buckets.len() > count {
            self.forget_oldest();
        }
        self.last_us = None;
    }

    /// Forgets the past but its floor.
    pub(super) fn restart(&mut self) {
        self.last_us = self.floor_us.take().or(self.last_us);
        self.buckets.clear();
    }

    /// The least of all that is kept.
    pub(super) const fn floor(&self) -> Option<i64> {
        self.floor_us
    }

    /// The least of what is kept, or of what was.
    pub(super) fn reference(&self) -> Option<i64> {
        self.floor_us.or(self.last_us)
    }

    /// The number of the oldest stretch that is kept.
    pub(super) fn since(&self) -> Option<i64> {
        self.buckets.front().map(|oldest| oldest.number)
    }

    /// The least from the stretch numbered `since` on, if `count` of those had samples.
    pub(super) fn floor_since(&self, since: i64, count: usize) -> Option<i64> {
        let recent = self.buckets.iter().rev();
        let recent = recent.take_while(|bucket| bucket.number >= since);
        let (found, least_us) = recent.fold((0, i64::MAX), |(found, least_us), bucket| {
            (found + 1, least_us.min(bucket.least_us))
        });
        (found >= count.max(1)).then_some(least_us)
    }

    /// How many stretches with samples are kept.
    pub(super) fn len(&self) -> usize {
        self.buckets.len()
    }

    /// The floors of the first and the last `half` of the newest `2 * half` complete stretches that had samples,
    /// none of them before the one numbered `since`. Slow pictures leave stretches empty, which says nothing.
    pub(super) fn halves(&self, half: usize, since: i64, now_us: i64) -> Option<(i64, i64)> {
        let current = bucket_at(now_us);
        let complete = self
            .buckets
            .iter()
            .rev()
            .skip_while(|bucket| bucket.number >= current)
            .take_while(|bucket| bucket.number >= since);
        let mut found = 0_usize;
        let (mut older, mut newer) = (i64::MAX, i64::MAX);
        for bucket in complete.take(2 * half) {
            let side = if found < half { &mut newer } else { &mut older };
            *side = (*side).min(bucket.least_us);
            found += 1;
        }
        (found == 2 * half && half > 0).then_some((older, newer))
    }

    /// Whether a sample came in the newest complete stretches before `now_us`, `count` of them.
    pub(super) fn is_flowing(&self, count: i64, now_us: i64) -> bool {
        let oldest = bucket_at(now_us).saturating_sub(count);
        self.buckets
            .back()
            .is_some_and(|newest| newest.number >= oldest)
    }
}

/// The number of the stretch that `now_us` lies in.
pub(super) const fn bucket_at(now_us: i64) -> i64 {
    now_us.div_euclid(BUCKET_US)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pushed(rows: &[(i64, i64)]) -> Lateness {
        let mut lateness = Lateness::default();
        for (now_ms, late_ms) in rows {
            lateness.push(now_ms * 1_000, late_ms * 1_000);
        }
        lateness
    }

    #[test]
    fn the_floor_is_what_no_jitter_touched() {
        let lateness = pushed(&[(100, 40), (200, 10), (700, 90), (1_300, 12)]);
        assert_eq!(lateness.floor(), Some(10_000));
        assert_eq!(lateness.len(), 3);
        assert_eq!(lateness.halves(1, 0, 1_500_000), Some((90_000, 12_000)));
        assert_eq!(lateness.halves(1, 0, 1_499_999), Some((10_000, 90_000)));
        assert_eq!(lateness.halves(2, 0, 1_500_000), None, "only three");
    }

    #[test]
    fn a_stretch_without_samples_is_no_evidence() {
        let lateness = pushed(&[(100, 40), (1_300, 12)]);
        assert_eq!(lateness.halves(1, 0, 1_500_000), Some((40_000, 12_000)));
        assert_eq!(lateness.halves(1, 1, 1_500_000), None, "only one since");
        assert!(lateness.is_flowing(1, 1_500_000) && !lateness.is_flowing(1, 2_000_000));
    }

    #[test]
    fn half_a_minute_is_kept_and_the_floor_before_it_remembered() {
        let mut lateness = pushed(&[(0, 5)]);
        for n in 1..200 {
            lateness.push(n * BUCKET_US, 20_000);
        }
        assert_eq!((lateness.len(), lateness.floor()), (KEPT, Some(20_000)));
        lateness.restart();
        assert_eq!(
            (lateness.floor(), lateness.reference()),
            (None, Some(20_000))
        );
        lateness.shift(5_000);
        assert_eq!(lateness.reference(), Some(15_000));
    }

    proptest! {
        #[test]
        fn the_floor_is_the_least_of_what_is_kept(
            steps in prop::collection::vec((0_i64..9, 0_i64..700_000, -90_000_i64..90_000), 1..400),
        ) {
            let (mut lateness, mut now_us) = (Lateness::default(), 0);
            for (what, pause_us, us) in steps {
                now_us += pause_us;
                match what {
                    0 => lateness.shift(us),
                    1 => lateness.keep(usize::try_from(us.abs() / 2_000).expect("small")),
                    2 if us > 80_000 => lateness.restart(),
                    _ => lateness.push(now_us, us),
                }
                let least = lateness.buckets.iter().map(|bucket| bucket.least_us).min();
                prop_assert_eq!(lateness.floor(), least);
            }
        }
    }
}

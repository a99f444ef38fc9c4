//! Decides how long the segments of a broadcast are whose stream is known, and with which number they begin.
//!
//! Enters: what is known of the numbers that earlier broadcasts used, and the time
//! Leaves: the length, and the first number
//! Never:  a number that was used; a place in the far future
//! Time:   the wall clock, as an argument
//! Spec:   docs/adr

use std::num::NonZeroU32;
use std::time::Duration;

use crate::app::clock::ahead;
use crate::id::SegmentNumber;
use crate::package::{MAX_SEGMENT_MS, MIN_SEGMENT_MS};
use crate::time::{Grid, Timescale, WallTime};

/// How far ahead of the clock the numbers of a stream may be without anybody asking why: a clock that was set back
/// by this much is common, and a length that is another by a millisecond makes fifty hours.
const MAX_AHEAD: Duration = Duration::from_secs(3_600);

/// Numbers that cannot be gone on from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "what is stored of this stream was numbered by another package.segment, and its playlists do not say which: if the \
     store did not answer (see the log), publish again; else publish under another name, or remove the stream's folder \
     from the store"
)]
pub(super) struct Unknown;

/// What is known of earlier broadcasts of a stream.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Used {
    /// The highest number that is stored, or in memory.
    pub(super) highest: Option<SegmentNumber>,
    /// When a segment of them was.
    pub(super) dated: Option<(SegmentNumber, WallTime)>,
}

impl Used {
    /// How long segments are of a broadcast that begins at `now`, where `wanted` is configured: that, unless numbers
    /// would go back. Then it is the length by which those were counted that are used.
    pub(super) fn segment_ms(
        self,
        wanted: NonZeroU32,
        now: WallTime,
    ) -> Result<NonZeroU32, Unknown> {
        let reaches = |highest| start_of(highest, wanted);
        let reaches = self.highest.map(reaches);
        if reaches.is_none_or(|reaches| ahead(reaches, now) <= MAX_AHEAD) {
            return Ok(wanted);
        }
        let counted = self.dated.and_then(|(number, at)| counted_by(number, at));
        // As configured: then it is the clock that was set back.
        counted.ok_or(Unknown)
    }

    /// The first segment of `segment_ms` that no earlier broadcast has used. One that broke off may have begun the
    /// segment after the last that is stored, for parts are not; what it published in all was before this process
    /// `started`.
    pub(super) fn first(
        self,
        segment_ms: NonZeroU32,
        broke_off: Option<WallTime>,
    ) -> SegmentNumber {
        let begun = broke_off.map(|started| {
            let before = started.to_ticks(Timescale::MILLIS).at(Timescale::MILLIS);
            let before = Grid::new(segment_ms).segment_at(before);
            self.highest.map_or(before, |last| last.next().max(before))
        });
        let highest = self.highest.into_iter().chain(begun).max();
        highest.map_or(SegmentNumber::new(0), SegmentNumber::next)
    }
}

/// Where segment `number` begins on a grid of `segment_ms`.
fn start_of(number: SegmentNumber, segment_ms: NonZeroU32) -> WallTime {
    let start = Grid::new(segment_ms).start_of(number, Timescale::MILLIS);
    start.at(Timescale::MILLIS).to_wall()
}

/// The length by which the segment that began `at` has its `number`.
fn counted_by(number: SegmentNumber, at: WallTime) -> Option<NonZeroU32> {
    let (number, millis) = (number.get(), u64::try_from(at.as_millis()).ok()?);
    let nearest = millis.checked_add(number / 2)?.checked_div(number)?;
    let nearest = u32::try_from(nearest).ok()?;
    let is_length = (MIN_SEGMENT_MS..=MAX_SEGMENT_MS).contains(&nearest);
    NonZeroU32::new(nearest).filter(|_| is_length)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn wall(seconds: u64) -> WallTime {
        WallTime::from_epoch(Duration::from_secs(seconds))
    }

    fn millis(millis: u32) -> NonZeroU32 {
        NonZeroU32::new(millis).expect("not zero")
    }

    /// What a broadcast leaves that ran at `at` with segments of `length`, counted `late` numbers behind the clock.
    fn used(at: WallTime, length: NonZeroU32, late: u64) -> Used {
        let place = at.to_ticks(Timescale::MILLIS).at(Timescale::MILLIS);
        let number = Grid::new(length).segment_at(place).get() - late;
        let last = SegmentNumber::new(number);
        Used {
            highest: Some(last),
            dated: Some((last, at)),
        }
    }

    const NOW: u64 = 1_795_180_623;

    proptest! {
        /// Whatever the length is changed to, a broadcast begins with the clock, with numbers that were not used.
        #[test]
        fn a_known_stream_goes_on_with_the_clock(
            before in 1_000_u32..=10_000, wanted in 1_000_u32..=10_000, pause in 0_u64..90_000_000, late in 0_u64..1_000,
        ) {
            let used = used(wall(NOW - pause), millis(before), late);
            let now = wall(NOW);
            let length = used.segment_ms(millis(wanted), now).expect("known");
            let first = used.first(length, None);
            prop_assert!(Some(first) > used.highest);
            prop_assert!(ahead(start_of(first, length), now) <= Duration::from_secs(3_600), "{length} after {before}");
            prop_assert!([before, wanted].contains(&length.get()), "{length} after {before}");
            prop_assert!(wanted > before || length.get() == wanted, "shorter ones are as configured");
        }
    }

    #[test]
    fn a_clock_that_was_set_back_is_no_other_length() {
        let used = used(wall(NOW), millis(2_000), 0);
        for back in [10, 3_000, 1_000_000] {
            let length = used.segment_ms(millis(2_000), wall(NOW - back));
            assert_eq!(length, Ok(millis(2_000)), "{back}");
        }
    }

    #[test]
    fn numbers_of_which_nothing_says_when_they_were_are_refused_if_they_are_far_ahead() {
        let used = Used {
            dated: None,
            ..used(wall(NOW), millis(2_000), 0)
        };
        assert_eq!(used.segment_ms(millis(4_000), wall(NOW)), Err(Unknown));
        assert_eq!(used.segment_ms(millis(2_000), wall(NOW)), Ok(millis(2_000)));
        let nothing = Used::default();
        assert_eq!(
            nothing.segment_ms(millis(4_000), wall(NOW)),
            Ok(millis(4_000))
        );
        assert_eq!(nothing.first(millis(4_000), None).get(), 0);
    }

    #[test]
    fn what_a_run_that_broke_off_may_have_begun_is_not_used_again() {
        let used = used(wall(100), millis(2_000), 0);
        assert_eq!(used.first(millis(2_000), None).get(), 51);
        assert_eq!(used.first(millis(2_000), Some(wall(90))).get(), 52);
        assert_eq!(used.first(millis(2_000), Some(wall(110))).get(), 56);
    }
}

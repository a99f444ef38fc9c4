//! Reads back which segments a media playlist of ours lists.
//!
//! Enters: the text of a stored playlist, which may have been cut short or be somebody else's
//! Leaves: a [`Listing`], or nothing if it is not one of ours
//! Never:  what of it is still true
//! Time:   microseconds; dates since the Unix epoch
//! Spec:   [HLS] §4.4

use std::collections::BTreeMap;

use crate::id::{PeriodId, SegmentNumber};
use crate::time::{Span, Timescale, WallTime};

/// The most lines that are read: the longest window with all its tags.
const MAX_LINES: usize = 100_000;

/// What a media playlist lists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listing {
    /// The first listed segment: EXT-X-MEDIA-SEQUENCE.
    pub first: SegmentNumber,
    /// The number after the last listed segment's.
    pub end: SegmentNumber,
    /// EXT-X-DISCONTINUITY-SEQUENCE.
    pub discontinuity_sequence: u64,
    /// Whether it says that nothing more will come.
    pub ended: bool,
    /// EXT-X-TARGETDURATION, in seconds.
    pub target_duration_s: Option<u32>,
    /// Where segments begin, and their lengths in microseconds, as far as it says both.
    times: BTreeMap<SegmentNumber, (WallTime, Span)>,
    /// Where a period begins, and whether an EXT-X-DISCONTINUITY precedes it; the first of them at or before
    /// the first listed segment.
    periods: BTreeMap<SegmentNumber, (PeriodId, bool)>,
}

impl Listing {
    /// The period of segment `number`, the last one for those beyond the list.
    #[must_use]
    pub fn period_of(&self, number: SegmentNumber) -> Option<PeriodId> {
        let period = self.periods.range(..=number).next_back();
        period.map(|(_, (period, _))| *period)
    }

    /// The last listed period.
    #[must_use]
    pub fn last_period(&self) -> Option<PeriodId> {
        let period = self.periods.last_key_value();
        period.map(|(_, (period, _))| *period)
    }

    /// Where segment `number` begins, and its length in [`Timescale::MICROS`].
    #[must_use]
    pub fn time_of(&self, number: SegmentNumber) -> Option<(WallTime, Span)> {
        self.times.get(&number).copied()
    }

    /// The last segment of which it says where it begins, and that.
    #[must_use]
    pub fn last_time(&self) -> Option<(SegmentNumber, WallTime)> {
        let (number, (begins, _)) = self.times.last_key_value()?;
        Some((*number, *begins))
    }

    /// Whether an EXT-X-DISCONTINUITY precedes segment `number`.
    #[must_use]
    pub fn is_discontinuity(&self, number: SegmentNumber) -> bool {
        let period = self.periods.get(&number);
        period.is_some_and(|(_, discontinuity)| *discontinuity)
    }

    /// The same list without what precedes `first`.
    #[must_use]
    pub fn from(mut self, first: SegmentNumber) -> Self {
        if first <= self.first {
            return self;
        }
        let later = self.periods.split_off(&first);
        let gone = self
            .periods
            .values()
            .filter(|(_, discontinuity)| *discontinuity);
        self.discontinuity_sequence += gone.count() as u64;
        let current = self.periods.pop_last();
        self.periods = later;
        if let Some((_, (period, _))) = current {
            self.periods.entry(first).or_insert((period, false));
        }
        self.first = first;
        self
    }
}

/// Reads `text`; `None` if it does not list consecutive segments of known periods.
#[must_use]
pub fn parse(text: &str) -> Option<Listing> {
    let mut lines = text.lines().take(MAX_LINES).map(str::trim);
    if lines.next() != Some("#EXTM3U") {
        return None;
    }
    let (mut first, mut next) = (None, None);
    let (mut sequence, mut ended) = (0, false);
    let mut periods = BTreeMap::new();
    let (mut map, mut discontinuity) = (None, false);
    let (mut target_duration_s, mut times) = (None, BTreeMap::new());
    let (mut date, mut length) = (None, None);
    for line in lines {
        if let Some(value) = line.strip_prefix("#EXT-X-MEDIA-SEQUENCE:") {
            first = Some(SegmentNumber::new(value.parse().ok()?));
            next = first;
        } else if let Some(value) = line.strip_prefix("#EXT-X-DISCONTINUITY-SEQUENCE:") {
            sequence = value.parse().ok()?;
        } else if let Some(value) = line.strip_prefix("#EXT-X-TARGETDURATION:") {
            target_duration_s = value.parse().ok();
        } else if let Some(value) = line.strip_prefix("#EXT-X-PROGRAM-DATE-TIME:") {
            date = value.parse().ok();
        } else if let Some(value) = line.strip_prefix("#EXTINF:") {
            length = micros(value);
        } else if line == "#EXT-X-DISCONTINUITY" {
            discontinuity = true;
        } else if let Some(value) = line.strip_prefix("#EXT-X-MAP:URI=\"init-") {
            let period = value.split(".mp4\"").next()?.parse().ok()?;
            map = Some(PeriodId::new(period));
        } else if line == "#EXT-X-ENDLIST" {
            ended = true;
        } else if let Some(number) = line.strip_suffix(".m4s").filter(|_| !line.starts_with('#')) {
            let number = SegmentNumber::new(number.parse().ok()?);
            if next != Some(number) {
                return None;
            }
            next = Some(number.next());
            if let Some(time) = date.take().zip(length.take()) {
                times.insert(number, time);
            }
            let known = periods.last_key_value().map(|(_, (period, _))| *period);
            let period = map?;
            if discontinuity || known != Some(period) {
                periods.insert(number, (period, discontinuity));
            }
            discontinuity = false;
        }
    }
    let (first, end) = first.zip(next).filter(|(first, end)| first != end)?;
    Some(Listing {
        first,
        end,
        discontinuity_sequence: sequence,
        ended,
        target_duration_s,
        times,
        periods,
    })
}

/// The length that EXTINF tells with six decimals, in [`Timescale::MICROS`].
pub(in crate::package) fn micros(extinf: &str) -> Option<Span> {
    let (seconds, fraction) = extinf.split(',').next()?.split_once('.')?;
    let whole: u64 = seconds.parse().ok()?;
    let micros: u64 = fraction.parse().ok().filter(|_| fraction.len() == 6)?;
    let per_second = u64::from(Timescale::MICROS.get());
    Some(Span::new(
        whole.checked_mul(per_second)?.checked_add(micros)?,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "#EXTM3U\n#EXT-X-VERSION:6\n#EXT-X-MEDIA-SEQUENCE:7\n\
        #EXT-X-DISCONTINUITY-SEQUENCE:3\n#EXT-X-MAP:URI=\"init-2.mp4\"\n#EXTINF:2.000000,\n7.m4s\n\
        #EXT-X-GAP\n#EXTINF:2.000000,\n8.m4s\n#EXT-X-DISCONTINUITY\n#EXT-X-MAP:URI=\"init-9.mp4\"\n\
        #EXTINF:2.000000,\n9.m4s\n#EXTINF:2.000000,\n10.m4s\n";

    fn number(number: u64) -> SegmentNumber {
        SegmentNumber::new(number)
    }

    #[test]
    fn a_playlist_of_two_periods_is_read_back() {
        let listing = parse(TEXT).expect("ours");
        assert_eq!(
            (listing.first, listing.end, listing.discontinuity_sequence),
            (number(7), number(11), 3)
        );
        assert!(!listing.ended);
        let periods = [7, 8, 9, 10].map(|n| listing.period_of(number(n)).map(PeriodId::get));
        assert_eq!(periods, [Some(2), Some(2), Some(9), Some(9)]);
        let marks = [7, 8, 9, 10].map(|n| listing.is_discontinuity(number(n)));
        assert_eq!(marks, [false, false, true, false]);
        let ended = parse(&format!("{TEXT}#EXT-X-ENDLIST\n"));
        assert!(ended.expect("ours").ended);
    }

    #[test]
    fn discontinuities_that_leave_the_list_are_counted() {
        let listing = parse(TEXT).expect("ours");
        for (first, sequence, period) in [(7, 3, 2), (8, 3, 2), (9, 3, 9), (10, 4, 9)] {
            let rest = listing.clone().from(number(first));
            assert_eq!(rest.discontinuity_sequence, sequence, "{first}");
            assert_eq!(
                rest.period_of(number(first)).map(PeriodId::get),
                Some(period)
            );
        }
        assert!(listing.from(number(9)).is_discontinuity(number(9)));
    }

    #[test]
    fn what_is_not_a_list_of_ours_is_nothing() {
        for text in [
            "",
            "7.m4s",
            "#EXTM3U\n#EXT-X-MEDIA-SEQUENCE:7\n",
            "#EXTM3U\n#EXT-X-MEDIA-SEQUENCE:7\n#EXTINF:2,\n7.m4s\n",
            "#EXTM3U\n#EXT-X-MEDIA-SEQUENCE:7\n#EXT-X-MAP:URI=\"init-7.mp4\"\n#EXTINF:2,\n9.m4s\n",
            "#EXTM3U\n#EXT-X-MEDIA-SEQUENCE:x\n",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}

//! Has the renditions of a broadcast end together.
//!
//! Enters: what is open of every rendition at the end
//! Leaves: the same, without what no player could reach the end of
//! Never:  what was published before
//! Time:   microseconds of the wall clock; samples in `Ticks` of their rendition's timescale
//! Spec:   none
//!
//! hls.js holds a broadcast with parts for over when the middle of each rendition's last part can be played, of
//! pictures and sound together. Of a last part that lies behind the end of the others to more than half, however short
//! it is, that never comes true, and viewers would look at a spinner for good.

use super::Packager;
use super::track::Track;
use crate::time::{Span, Ticks};

/// How far before the end of every rendition the middle of a last part lies at least, in microseconds: what players
/// compute from lengths that a playlist rounds.
const MARGIN_US: i64 = 10_000;

impl Packager {
    /// Leaves out the last samples of what is not published, where a rendition ends so far behind another.
    pub(super) fn end_together(&mut self) {
        if !self.is_low_latency() {
            return;
        }
        while let Some(end_us) = self.common_end_us() {
            let mut tracks = self.tracks.iter_mut();
            let Some(track) = tracks.find(|track| track.last_part_is_behind(end_us)) else {
                return;
            };
            track.drop_last();
        }
    }

    /// Where the first rendition ends. One that rests does not count, nor one that is farther behind than a part: what
    /// others could leave out is less than that.
    fn common_end_us(&self) -> Option<i64> {
        let part_us = self.window.presentation().part_target.as_micros();
        let tracks = || self.tracks.iter().enumerate();
        let with_media = || tracks().filter(|(rendition, _)| self.ends_with_media(*rendition));
        let ends = || with_media().filter_map(|(_, track)| track.end_us());
        let last = ends().max()?;
        let behind = |end: i64| u64::try_from(last.saturating_sub(end)).unwrap_or(0);
        ends().filter(|end| behind(*end) <= part_us).min()
    }

    /// Whether what a rendition has last is media, and not a gap.
    fn ends_with_media(&self, rendition: usize) -> bool {
        let is_open = |track: &Track| track.segment.is_some();
        let last = || {
            let number = self.window.last(rendition)?;
            self.window.segment(rendition, number.get())
        };
        self.tracks.get(rendition).is_some_and(is_open) || last().is_some_and(|last| !last.gap)
    }
}

impl Track {
    /// Where its media end.
    fn end_us(&self) -> Option<i64> {
        let end = match self.pending.first() {
            Some(first) => first.dts.checked_add(self.pending_length),
            None => self.next_dts,
        };
        end.map(|end| self.us(end))
    }

    fn us(&self, at: Ticks) -> i64 {
        at.at(self.scale).to_wall().as_micros()
    }

    /// Whether the middle of the part that is open lies behind what is just before `end_us`.
    fn last_part_is_behind(&self, end_us: i64) -> bool {
        let both = self.pending.first().zip(self.end_us());
        both.is_some_and(|(first, own_end_us)| {
            let middle_us = i64::midpoint(self.us(first.dts), own_end_us);
            middle_us > end_us.saturating_sub(MARGIN_US)
        })
    }

    /// Leaves the last sample out, and as many before it as were to be shown after it: what is left has no hole, but
    /// where a picture that is shown later was published already.
    fn drop_last(&mut self) {
        while let Some(dropped) = self.pending.pop() {
            let end = dropped.dts;
            self.next_dts = Some(end);
            let length = self.pending_length.get();
            self.pending_length = Span::new(length.saturating_sub(dropped.duration.get()));
            let bytes = dropped.data.len() as u64;
            self.pending_bytes = self.pending_bytes.saturating_sub(bytes);
            let ends_by = |shown: Option<Ticks>| shown.is_some_and(|shown| shown <= end);
            let mut left = self.pending.iter();
            if left.all(|sample| ends_by(sample.pts.checked_add(sample.duration))) {
                break;
            }
        }
        if !self.pending.is_empty() {
            return;
        }
        match &self.segment {
            Some(open) if !open.parts.is_empty() => self.next_dts = Some(open.end()),
            _ => self.segment = None,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::tests::{FIRST, aac_at, config, drive, feed, shown, video};
    use super::*;
    use crate::id::{PeriodId, SegmentNumber};
    use crate::media::Sample;
    use crate::package::{Output, Snapshot};
    use crate::time::Grid;

    const SEGMENT_MS: u32 = 2_000;

    /// Where the middle of the last part and the end of every rendition lie, in microseconds from the third segment.
    fn ends(last: &Snapshot) -> Vec<(i64, i64)> {
        let renditions = &last.period().renditions;
        let of = |rendition: usize| {
            let part = last.segments(rendition).last()?.parts.last()?.clone();
            let scale = renditions.get(rendition)?.timescale;
            let us = |at: Ticks| at.at(scale).to_wall().as_micros();
            let start = us(part.start);
            let end = us(part.start.checked_add(part.duration)?);
            Some((i64::midpoint(start, end), end))
        };
        (0..renditions.len()).filter_map(of).collect()
    }

    /// Which picture is decoded as number `slot` of a segment of sixty, with two B-frames between each two that others
    /// depend on; and the last of those that are decoded with it.
    fn reordered(slot: i64) -> (i64, i64) {
        match slot % 3 {
            _ if slot == 0 || slot > 57 => (slot, slot),
            1 => (slot + 2, slot + 2),
            2 => (slot - 1, slot + 1),
            _ => (slot - 1, slot),
        }
    }

    /// A broadcast whose pictures end `pictures_us` into a segment, and whose sound at `sound_us`.
    fn broadcast(pictures_us: i64, sound_us: i64, has_b_frames: bool) -> Vec<Output> {
        let config = config(SEGMENT_MS, true);
        let renditions = vec![
            video("v720", (30, 1)),
            video("v360", (30, 1)),
            aac_at("a96", 48_000),
        ];
        let grid = Grid::new(config.segment_ms);
        let scales: Vec<_> = renditions.iter().map(|r| r.timescale).collect();
        let packager = Packager::new(&config, PeriodId::new(FIRST), renditions).expect("valid");
        let run = drive(packager, FIRST..FIRST + 4, |rendition, sample| {
            let scale = scales[rendition];
            let begin = |number| grid.start_of(SegmentNumber::new(number), scale);
            let ends_us = if rendition == 2 {
                sound_us
            } else {
                pictures_us
            };
            let (mut pts, mut last) = (sample.dts, sample.dts);
            if rendition < 2 && has_b_frames {
                let number = grid.segment_at(sample.dts.at(scale)).get();
                let slot = (sample.dts.get() - begin(number).get()) / 3_000;
                let (shown, group) = reordered(slot);
                pts = Ticks::new(sample.dts.get() + 3_000 * (shown - slot));
                last = Ticks::new(sample.dts.get() + 3_000 * (group - slot));
            }
            let end = last.checked_add(sample.duration)?;
            let into = end.get() - begin(FIRST + 2).get();
            let is_in = into * 1_000_000 <= ends_us * i64::from(scale.get());
            is_in.then_some(Sample { pts, ..sample })
        });
        run.outputs
    }

    /// A rendition that rests is passed on to where it may begin again.
    #[test]
    fn one_that_rests_has_nothing_left_out() {
        let config = config(SEGMENT_MS, true);
        let renditions = [video("v720", (30, 1)), video("v360", (30, 1))];
        let packager = Packager::new(&config, PeriodId::new(FIRST), renditions.to_vec());
        let mut packager = packager.expect("valid");
        feed(&mut packager, FIRST..FIRST + 2, |_, sample| Some(sample));
        let until = SegmentNumber::new(FIRST + 3);
        packager.rest(0, until).expect("it may rest");
        let scale = renditions[1].timescale;
        let begin = Grid::new(config.segment_ms).start_of(until, scale);
        let end = begin.checked_add(Span::new(18_000)).expect("fits");
        let run = drive(packager, FIRST + 2..FIRST + 4, |rendition, sample| {
            (rendition == 1 && sample.dts < end).then_some(sample)
        });
        let segments = run.segments(1);
        let (number, start, length, _) = segments.last().expect("some");
        assert_eq!(*number, until.get());
        assert_eq!(start.checked_add(*length), Some(end));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]

        #[test]
        fn middle_of_every_last_part_can_be_played(
            pictures in 1_i64..60, apart_us in -60_000_i64..60_000, has_b_frames in any::<bool>(),
        ) {
            let whole_groups = if has_b_frames && pictures < 58 { (pictures - 1) / 3 * 3 + 1 } else { pictures };
            let pictures_us = (whole_groups * 100_000 + 2) / 3;
            let sound_us = (pictures_us + apart_us).max(0);
            let outputs = broadcast(pictures_us, sound_us, has_b_frames);
            let last = outputs.iter().rev().find_map(|output| match output {
                Output::WindowChanged(snapshot) => Some(snapshot),
                _ => None,
            });
            let ends = ends(last.expect("published"));
            let end = ends.iter().map(|(_, end)| *end).min().expect("some");
            for (middle, _) in &ends {
                prop_assert!(*middle <= end - MARGIN_US, "{ends:?}");
            }
            // What is left out is no more than that takes; of B-frames, as many as go with one.
            let grid = Grid::new(config(SEGMENT_MS, true).segment_ms);
            let begin = grid.start_of(SegmentNumber::new(FIRST + 2), crate::time::Timescale::VIDEO_90K);
            let begin_us = begin.at(crate::time::Timescale::VIDEO_90K).to_wall().as_micros();
            let lost_us = begin_us + pictures_us.min(sound_us) - end;
            prop_assert!(lost_us <= 120_000, "{lost_us} µs");
            for output in &outputs {
                let Output::Segment { rendition: 0 | 1, payload, .. } = output else { continue };
                let mut shown = shown(&payload.to_bytes());
                shown.sort_unstable();
                let steps = shown.windows(2).map(|two| two[1] - two[0]);
                prop_assert!(steps.clone().all(|step| step <= 9_000), "{shown:?}");
                prop_assert!(has_b_frames || steps.clone().all(|step| step == 3_000), "{shown:?}");
            }
        }
    }
}

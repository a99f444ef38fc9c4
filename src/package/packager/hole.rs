//! Passes over what an encoder left out.
//!
//! Enters: where a rendition ended, and where it goes on later than that
//! Leaves: the last sample shown for longer, as far as its part has room; the next picture decoded sooner;
//!         segments without media as gaps
//! Never:  a part longer than its target; a picture shown at another time
//! Time:   `Ticks` in the rendition's timescale
//! Spec:   [HLS] §4.4.4.7, §6.2.1

use std::time::Duration;

use super::{Packager, absent};
use crate::id::SegmentNumber;
use crate::media::{MediaKind, PartTarget, Payload, Sample};
use crate::package::error::Error;
use crate::package::hls::media::PARTS_TARGETS;
use crate::package::snapshot::{Part, Presentation, Segment};
use crate::time::{Span, Ticks};

impl Packager {
    /// Says that a rendition will rest, but not before segment `until`. The MPD leaves it out from now on:
    /// players of DASH ask for what they expect, and nothing else tells them not to.
    pub fn rest_soon(&mut self, rendition: usize, until: SegmentNumber) {
        self.window.rest(rendition, until);
        self.publish();
    }

    /// Says that a rendition has nothing more before segment `until`: what it has not yet of those is listed
    /// as gaps, so that the list goes on without it. Nothing changes if it has more already, or has not begun.
    ///
    /// # Errors
    ///
    /// [`Error::UnknownRendition`], [`Error::PartTooLarge`], [`Error::Stalled`] if `until` is far beyond what the others
    /// have.
    pub fn rest(&mut self, rendition: usize, until: SegmentNumber) -> Result<(), Error> {
        let track = self.tracks.get(rendition);
        let track = track.ok_or(Error::UnknownRendition { index: rendition })?;
        if track.next_dts.is_none() {
            return Ok(());
        }
        self.check_lead(track, until)?;
        let at = track.cutter.start_of(until);
        self.window.rest(rendition, until);
        self.pass_over(rendition, at, until)?;
        Ok(())
    }

    /// Prepares a rendition for a sample at `at` in segment `number`, which may lie after a hole: from where on
    /// that segment, which is open, still lacks something before it.
    pub(super) fn pass_over(
        &mut self,
        rendition: usize,
        at: Ticks,
        number: SegmentNumber,
    ) -> Result<Option<Ticks>, Error> {
        let Some(track) = self.tracks.get_mut(rendition) else {
            return Ok(None);
        };
        let ended = track.next_dts.filter(|ended| *ended < at);
        let Some(ended) = ended else {
            return Ok(None);
        };
        let open = track.segment.as_ref().map(|segment| segment.number);
        let open_end = open.map(|open| track.cutter.start_of(open.next()));
        let reached = track.fill((ended, open_end.map_or(at, |end| end.min(at))));
        track.next_dts = Some(at);
        let mut lacks = None;
        if open.is_none_or(|open| open == number) {
            if reached < at {
                lacks = open.map(|_| reached);
                self.end_part(rendition)?;
            }
        } else {
            self.close_part(rendition)?;
            self.close_segment(rendition, open_end);
        }
        self.add_gaps(rendition, number);
        Ok(lacks)
    }

    /// Adds a gap for every segment between the last whole one of a rendition and `number`, which is open or
    /// about to be.
    fn add_gaps(&mut self, rendition: usize, number: SegmentNumber) {
        let Some(last) = self.window.last(rendition) else {
            return;
        };
        let Some(cutter) = self.tracks.get(rendition).map(|track| track.cutter) else {
            return;
        };
        let missing = (last.get() + 1)..number.get();
        let mut is_news = self.is_low_latency() && !missing.is_empty();
        for missing in missing {
            let missing = SegmentNumber::new(missing);
            let period = self.window.period();
            let gap = Segment {
                discontinuity: period.breaks_at(missing),
                ..absent(&cutter, missing, period.id, true)
            };
            let parts = missing_parts(self.window.presentation().part_target, &gap);
            let gap = Segment { parts, ..gap };
            is_news |= self.window.add(rendition, gap);
        }
        if is_news {
            self.publish();
        }
    }
}

/// Gives those of `segments` that are gaps their parts, as far from the end as parts are listed.
pub(super) fn add_missing_parts(presentation: &Presentation, segments: &mut [Segment]) {
    if !presentation.config.low_latency.is_on() {
        return;
    }
    let reach_s = presentation.target_duration_s.saturating_mul(PARTS_TARGETS);
    let reach = Duration::from_secs(reach_s.into());
    let mut from_end = Duration::ZERO;
    for segment in segments.iter_mut().rev() {
        if from_end >= reach {
            break;
        }
        from_end += segment.duration.to_duration(segment.scale);
        if segment.gap {
            segment.parts = missing_parts(presentation.part_target, segment);
        }
    }
}

/// The parts of `gap`, none of which is there: players that go from part to part (hls.js) see no segment that
/// has none while parts of earlier ones are listed.
pub(super) fn missing_parts(target: PartTarget, gap: &Segment) -> Vec<Part> {
    let whole = target.in_ticks(gap.scale).get();
    let Some(step) = usize::try_from(whole).ok().filter(|step| *step > 0) else {
        return Vec::new();
    };
    let starts = (0..gap.duration.get()).step_by(step);
    let part = |from: u64| Part {
        start: gap.start.checked_add(Span::new(from)).unwrap_or(gap.start),
        duration: Span::new(whole.min(gap.duration.get() - from)),
        independent: false,
        payload: Payload::default(),
    };
    starts.map(part).collect()
}

impl super::Track {
    /// Shows the last pending sample for longer, up to the end of a hole, or else of the last frame for which
    /// its part has room: so parts end where they would without a hole. Where what there is ends then.
    fn fill(&mut self, (ended, until): (Ticks, Ticks)) -> Ticks {
        let room = self.cutter.room(self.pending_length);
        let most = ended.checked_add(room).unwrap_or(ended);
        let until = until.min(self.cutter.frame_at_or_before(most)).max(ended);
        let filled = self.prolong(until.since(ended).unwrap_or(Span::ZERO), true);
        ended.checked_add(filled).unwrap_or(ended)
    }

    /// `sample`, before which its segment lacks what lies from `lacks` on: a picture is decoded at that place,
    /// and shown at its own, if a part has room for both.
    pub(super) fn reach_back(&self, sample: Sample, lacks: Option<Ticks>) -> Sample {
        let hole = lacks.and_then(|from| Some((from, sample.dts.since(from)?)));
        let Some((from, hole)) = hole.filter(|_| self.kind == MediaKind::Video) else {
            return sample;
        };
        let duration = Span::new(hole.get().saturating_add(sample.duration.get()));
        if duration > self.cutter.room(Span::ZERO) {
            return sample;
        }
        Sample {
            dts: from,
            duration,
            ..sample
        }
    }

    /// Shows the last pending sample for up to `hole` longer, no longer than its part has room if that is
    /// `bounded`; by how much it does.
    pub(super) fn prolong(&mut self, hole: Span, bounded: bool) -> Span {
        let room = self.cutter.room(self.pending_length);
        let room = if bounded { room } else { hole };
        let Some(last) = self.pending.last_mut() else {
            return Span::ZERO;
        };
        let by = hole.get().min(room.get());
        last.duration = Span::new(last.duration.get() + by);
        self.pending_length = Span::new(self.pending_length.get() + by);
        Span::new(by)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{FIRST, config, feed};
    use super::*;
    use crate::id::PeriodId;
    use crate::package::window::tests::aac;

    #[test]
    fn rest_that_is_far_away_is_refused() {
        let renditions = vec![aac("a128", 128_000), aac("a64", 64_000)];
        let mut packager =
            Packager::new(&config(2_000, true), PeriodId::new(FIRST), renditions).expect("valid");
        feed(&mut packager, FIRST..FIRST + 2, |_, sample| Some(sample));
        let before = packager.snapshot().segments(0).count();
        let done = packager.rest(0, SegmentNumber::new(FIRST + 1_000_000));
        assert!(matches!(done, Err(Error::Stalled { .. })), "{done:?}");
        assert_eq!(packager.snapshot().segments(0).count(), before);
        let done = packager.rest(0, SegmentNumber::new(FIRST + 4));
        assert!(done.is_ok(), "{done:?}");
    }
}

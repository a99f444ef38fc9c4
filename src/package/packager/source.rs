//! Packages what its source cuts: where segments and periods begin is told, not computed.
//!
//! Enters: cuts and changes of each rendition, before the samples that they concern
//! Leaves: the same as on the grid; segments that a rendition left out as gaps
//! Never:  a segment's number that follows from its time
//! Time:   `Ticks` in the rendition's timescale in the current period
//! Spec:   [HLS] §4.4.4.3, §4.4.4.7, §6.2.1; docs/time.md

use super::hole::missing_parts;
use super::{Packager, Track};
use crate::id::SegmentNumber;
use crate::media::{Payload, Rendition, Sample};
use crate::package::error::Error;
use crate::package::period::Period;
use crate::package::snapshot::Segment;
use crate::time::{MediaTime, Span, Ticks, Timescale};

/// How many segments may be missing in a row, so that what one call adds to the window is bounded: twelve
/// hours of the default length.
pub const MAX_GAPS: u64 = 21_600;

/// How much is known of segments that are missing.
#[derive(Clone, Copy, Debug)]
enum Known {
    /// What other renditions have of them. They may have more of them yet.
    Others,
    /// That what follows them begins here.
    Until(MediaTime),
    /// Nothing more will be known of them.
    All,
}

impl Packager {
    /// Says that the next sample pushed to `rendition` begins segment `number`: what is open there ends. A
    /// number that is left out, or that no sample comes for until the next cut, is a gap.
    ///
    /// # Errors
    ///
    /// [`Error::NotSourceCut`], [`Error::UnknownRendition`], [`Error::NumberUsed`], [`Error::TooManyGaps`]:
    /// nothing has changed then. [`Error::PartTooLarge`].
    pub fn cut(&mut self, rendition: usize, number: SegmentNumber) -> Result<(), Error> {
        if self.is_on_grid() {
            return Err(Error::NotSourceCut);
        }
        let track = self.tracks.get(rendition);
        let track = track.ok_or(Error::UnknownRendition { index: rendition })?;
        if number < track.at || (track.is_cut && number == track.at) {
            return Err(track.number_used(number));
        }
        self.check_gaps(rendition, number)?;
        let (ended, mut moved) = self.end_as_cut(rendition)?;
        if let Some(track) = self.tracks.get_mut(rendition) {
            (track.at, track.is_cut) = (number, true);
        }
        moved |= self.fill_gaps(Known::Others);
        if moved || (ended && self.is_low_latency()) {
            self.publish();
        }
        Ok(())
    }

    /// Begins another period with segment `first` of every rendition: what is open ends. `renditions` have
    /// the names of before, in their order; all else of them may differ. Up to `first` what is missing is a
    /// gap. A [`Self::cut`] precedes each rendition's first sample, as ever; its time may be any later one.
    ///
    /// # Errors
    ///
    /// [`Error::NotSourceCut`], [`Error::OtherRenditions`], [`Error::NumberUsed`], [`Error::TooManyGaps`],
    /// [`Error::Unwritable`]: nothing has changed then. [`Error::PartTooLarge`].
    pub fn change(
        &mut self,
        renditions: Vec<Rendition>,
        first: SegmentNumber,
    ) -> Result<(), Error> {
        if self.is_on_grid() {
            return Err(Error::NotSourceCut);
        }
        self.check_same(&renditions)?;
        if let Some(ahead) = self.tracks.iter().find(|track| track.at >= first) {
            return Err(ahead.number_used(first));
        }
        for rendition in 0..self.tracks.len() {
            self.check_gaps(rendition, first)?;
        }
        let period = Period {
            discontinuity: true,
            ..Period::new(first, renditions)?
        };
        let (mut ended, mut moved) = (false, false);
        for rendition in 0..self.tracks.len() {
            let (one_ended, one_moved) = self.end_as_cut(rendition)?;
            (ended, moved) = (ended | one_ended, moved | one_moved);
        }
        self.tracks.iter_mut().for_each(|track| track.at = first);
        moved |= self.fill_gaps(Known::All);
        let presentation = self.window.presentation();
        let track = |rendition: &Rendition| Track::new(presentation, rendition, first);
        self.tracks = period.renditions.iter().map(track).collect();
        self.window.begin_period(period);
        self.put_init_segments();
        if moved || (ended && self.is_low_latency()) {
            self.publish();
        }
        Ok(())
    }

    /// Takes a sample into the segment that was told last.
    pub(super) fn push_as_cut(&mut self, rendition: usize, sample: Sample) -> Result<(), Error> {
        let number = self.admit_as_cut(rendition, &sample)?;
        self.begin_as_cut(rendition, sample.dts)?;
        let low_latency = self.is_low_latency();
        let period = self.window.period();
        let (period, breaks) = (period.id, period.breaks_at(number));
        let Some(track) = self.tracks.get_mut(rendition) else {
            return Err(Error::UnknownRendition { index: rendition });
        };
        let end = sample.dts.checked_add(sample.duration);
        let end = end.ok_or_else(|| track.bad_timing(sample.dts))?;
        // A part may not be longer than was announced: its last sample is shown for less, and then nothing.
        let most = track.cutter.room(Span::ZERO);
        let shown = if low_latency {
            sample.duration.min(most)
        } else {
            sample.duration
        };
        let is_full = track.cutter.closes_before(track.pending_length, shown);
        if is_full {
            self.close_part(rendition)?;
        }
        if let Some(track) = self.tracks.get_mut(rendition) {
            let sample = Sample {
                duration: shown,
                ..sample
            };
            track.take((number, period, breaks), sample, end);
        }
        // A part is published when it is known that another follows it in its segment: so what is hinted is
        // always what comes.
        if is_full {
            self.publish_part(rendition);
        }
        Ok(())
    }

    /// Ends what is open; then everything has the same last segment.
    pub(super) fn finish_as_cut(&mut self) -> Result<(), Error> {
        for rendition in 0..self.tracks.len() {
            self.end_as_cut(rendition)?;
        }
        let nexts = (0..self.tracks.len()).map(|rendition| self.window.next_number(rendition));
        let last = SegmentNumber::new(nexts.max().unwrap_or(0));
        self.tracks.iter_mut().for_each(|track| track.at = last);
        self.fill_gaps(Known::All);
        Ok(())
    }

    /// The segment that `sample` goes into, if it is acceptable.
    fn admit_as_cut(&self, rendition: usize, sample: &Sample) -> Result<SegmentNumber, Error> {
        let track = self.tracks.get(rendition);
        let track = track.ok_or(Error::UnknownRendition { index: rendition })?;
        let name = || track.name.clone();
        if !track.is_cut {
            return Err(Error::NotCut { name: name() });
        }
        track.check_timing(sample)?;
        let start = track.segment.as_ref().map_or(sample.dts, |open| open.start);
        let end = sample.dts.checked_add(sample.duration);
        let length = end.and_then(|end| end.since(start));
        let longest_ms = self.longest_ms();
        if length.is_none_or(|length| length > in_ticks(longest_ms, track.scale)) {
            return Err(Error::SegmentTooLong {
                name: name(),
                segment: track.at.get(),
                longest_ms,
            });
        }
        if track.pending_bytes.saturating_add(sample.data.len() as u64) > super::MAX_PART_BYTES {
            return Err(Error::PartTooLarge { name: name() });
        }
        self.check_lead(track, track.at)?;
        Ok(track.at)
    }

    /// Prepares a rendition for a sample at `at`, which may begin a segment or lie after a hole.
    fn begin_as_cut(&mut self, rendition: usize, at: Ticks) -> Result<(), Error> {
        let low_latency = self.is_low_latency();
        let Some(track) = self.tracks.get_mut(rendition) else {
            return Ok(());
        };
        if track.segment.is_none() {
            let begin = at.at(track.scale);
            if self.fill_gaps(Known::Until(begin)) {
                self.publish();
            }
            return Ok(());
        }
        let hole = track.next_dts.and_then(|ended| at.since(ended));
        let hole = hole.unwrap_or(Span::ZERO);
        if hole > Span::ZERO && track.prolong(hole, low_latency) < hole {
            self.close_part(rendition)?;
        }
        Ok(())
    }

    /// Ends the open segment of a rendition with its last sample: whether there was one, and whether the list
    /// moved.
    fn end_as_cut(&mut self, rendition: usize) -> Result<(bool, bool), Error> {
        self.close_part(rendition)?;
        let Some(track) = self.tracks.get(rendition) else {
            return Ok((false, false));
        };
        if track.segment.is_none() {
            return Ok((false, false));
        }
        let (end, mut moved) = (track.next_dts, false);
        while let Some(gap) = self.next_gap(rendition, Known::All) {
            moved |= self.window.add(rendition, gap);
        }
        moved |= self.end_segment(rendition, end).unwrap_or(false);
        Ok((true, moved))
    }

    /// Lists what is missing as gaps, as far as enough is known of it; whether the list moved.
    fn fill_gaps(&mut self, known: Known) -> bool {
        let mut moved = false;
        loop {
            let mut all = 0..self.tracks.len();
            let found = all.find_map(|index| Some((index, self.next_gap(index, known)?)));
            let Some((rendition, gap)) = found else {
                return moved;
            };
            moved |= self.window.add(rendition, gap);
        }
    }

    /// The first segment that `rendition` has passed without having it.
    fn next_gap(&self, rendition: usize, known: Known) -> Option<Segment> {
        let track = self.tracks.get(rendition)?;
        let number = self.window.next_number(rendition);
        if number >= track.at.get() {
            return None;
        }
        let others = || (0..self.tracks.len()).filter(|other| *other != rendition);
        let theirs = || others().filter_map(|other| self.window.segment(other, number));
        let real = theirs().find(|segment| !segment.gap);
        let awaited = || {
            let tracks = others().filter_map(|other| self.tracks.get(other));
            tracks.into_iter().any(|other| other.at.get() <= number)
        };
        if real.is_none() && !matches!(known, Known::All) && awaited() {
            return None;
        }
        let last = self.last_end(rendition, number)?;
        let end = match real.or_else(|| theirs().next()) {
            Some(other) => other.ends(),
            None => end_of_gap(self, track, (number, last), known)?,
        };
        let number = SegmentNumber::new(number);
        let period = self.window.period_of(number);
        let goes_on = number > period.first;
        let begin = real.filter(|_| !goes_on).map_or(last, Segment::begins);
        let scale = period.renditions.get(rendition)?.timescale;
        let start = begin.rescale_nearest(scale);
        let length = end.rescale_nearest(scale).since(start).unwrap_or_default();
        let longest = in_ticks(self.longest_ms(), scale);
        let gap = Segment {
            number,
            scale,
            start,
            duration: length.clamp(Span::new(1), longest),
            independent: true,
            parts: Vec::new(),
            payload: Payload::default(),
            period: period.id,
            discontinuity: period.breaks_at(number),
            gap: true,
        };
        let parts = missing_parts(self.window.presentation().part_target, &gap);
        Some(Segment { parts, ..gap })
    }

    /// Where the segment of a rendition before `number` ends; before there is one, where the grid would have
    /// it.
    fn last_end(&self, rendition: usize, number: u64) -> Option<MediaTime> {
        let track = self.tracks.get(rendition)?;
        let last = self.window.segment(rendition, number.checked_sub(1)?);
        let first = || track.cutter.start_of(SegmentNumber::new(number));
        Some(last.map_or_else(|| first().at(track.scale), Segment::ends))
    }

    pub(super) fn check_same(&self, renditions: &[Rendition]) -> Result<(), Error> {
        let names = |renditions: &[Rendition]| {
            let names = renditions.iter().map(|rendition| rendition.name.as_str());
            names.collect::<Vec<_>>().join(" ")
        };
        let before = &self.window.period().renditions;
        let kinds = before.iter().zip(renditions);
        let same_kinds = kinds
            .into_iter()
            .all(|(one, other)| one.codec.kind() == other.codec.kind());
        let (expected, found) = (names(before), names(renditions));
        if expected == found && same_kinds {
            return Ok(());
        }
        Err(Error::OtherRenditions { expected, found })
    }

    fn check_gaps(&self, rendition: usize, number: SegmentNumber) -> Result<(), Error> {
        let next = self.window.next_number(rendition);
        match self.tracks.get(rendition) {
            Some(track) if number.get() > next.saturating_add(MAX_GAPS) => {
                Err(Error::TooManyGaps {
                    name: track.name.clone(),
                    next,
                    found: number.get(),
                })
            }
            _ => Ok(()),
        }
    }

    /// The longest that a segment may last: what rounds to TARGETDURATION.
    fn longest_ms(&self) -> u32 {
        let target = self.window.presentation().target_duration_s;
        target.saturating_mul(1_000).saturating_add(499)
    }
}

/// Where segment `number` ends, which no rendition has and which begins at `last`: what is missing in a row
/// has equal lengths.
fn end_of_gap(
    packager: &Packager,
    track: &Track,
    (number, last): (u64, MediaTime),
    known: Known,
) -> Option<MediaTime> {
    let open = track
        .segment
        .as_ref()
        .map(|open| open.start.at(track.scale));
    let until = match known {
        Known::Until(begin) => open.or(Some(begin)),
        Known::Others | Known::All => open,
    };
    let scale = last.scale();
    let length = match until {
        Some(until) => {
            let count = track.at.get().saturating_sub(number).max(1);
            let whole = until.rescale_nearest(scale).since(last.ticks());
            whole.map_or(0, |whole| whole.get() / count)
        }
        None if matches!(known, Known::All) => {
            let segment_ms = packager.window.presentation().config.segment_ms;
            in_ticks(segment_ms.get(), scale).get()
        }
        None => return None,
    };
    let end = last.ticks().checked_add(Span::new(length))?;
    Some(end.at(scale))
}

impl Track {
    fn number_used(&self, found: SegmentNumber) -> Error {
        Error::NumberUsed {
            name: self.name.clone(),
            at: self.at.get(),
            found: found.get(),
        }
    }
}

fn in_ticks(millis: u32, scale: Timescale) -> Span {
    Span::new(u64::from(millis) * u64::from(scale.get()) / 1_000)
}

//! The one live window of a broadcast: what is published, listed and kept.
//!
//! Enters: finished segments and parts of every rendition, in order
//! Leaves: immutable [`Snapshot`]s, from which every manifest and every answer is made
//! Never:  text of manifests, cutting, clocks
//! Time:   positions in each rendition's timescale, from the Unix epoch
//! Spec:   [HLS] §6.2.1, §6.2.2; [DASH] §5.3.9.5

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use super::period::Period;
use super::rates::Meter;
use super::snapshot::{Presentation, Segment, Snapshot, TrackView};
use crate::id::{PeriodId, SegmentNumber};
use crate::media::Rendition;
use crate::time::{MediaTime, Timescale, WallTime};

/// How long a list lasts at least, in target durations ([HLS] §6.2.2).
const MIN_LIST_TARGETS: u32 = 3;
/// How many times as many segments as configured are listed at most, however short they are.
const MAX_LIST_FACTOR: u64 = 4;
/// The least by which what the MPD says of its last change moves on: as finely as it is printed.
pub(super) const PUBLISH_STEP_US: i64 = 1_000;
/// How many segments a rendition that rested must have again before the MPD names it: players of DASH are
/// that far behind the present, and ask for what they expect.
const RETURN_SEGMENTS: u64 = 4;
/// With how many segments behind it a hole is of no concern any more to players that stopped before it: by then they
/// have loaded the MPD several times.
const HOLE_SEGMENTS: u64 = 10;

/// The mutable record behind the snapshots.
#[derive(Debug)]
pub(super) struct Window {
    presentation: Arc<Presentation>,
    earlier: VecDeque<Arc<Period>>,
    current: Arc<Period>,
    tracks: Vec<Track>,
    /// The first segment of this run.
    first: u64,
    listed: Range<u64>,
    closing: bool,
    discontinuity_sequence: u64,
    ended: bool,
    /// The segment after the last listed one that no rendition has, while fewer than [`HOLE_SEGMENTS`] follow.
    after_hole: Option<u64>,
    /// When what the MPD says last changed; nothing before there is anything to say.
    mpd_changed_at: Option<WallTime>,
}

#[derive(Debug)]
struct Track {
    segments: VecDeque<Arc<Segment>>,
    /// The same, as snapshots hold it; nothing once it has changed.
    shared: Option<Arc<[Arc<Segment>]>>,
    open: Option<Arc<Segment>>,
    meter: Meter,
    /// Before which segment it has nothing, or soon will not have, while that matters to players.
    rests_until: Option<SegmentNumber>,
}

impl Track {
    fn new(rendition: &Rendition, segments: Vec<Segment>) -> Self {
        Self {
            segments: segments.into_iter().map(Arc::new).collect(),
            shared: None,
            open: None,
            meter: Meter::new(rendition.target_bps),
            rests_until: None,
        }
    }

    fn segment(&self, number: u64) -> Option<&Segment> {
        let first = self.segments.front()?.number.get();
        let index = usize::try_from(number.checked_sub(first)?).ok()?;
        self.segments.get(index).map(AsRef::as_ref)
    }

    fn view(&self) -> TrackView {
        let shared = self.shared.clone();
        TrackView {
            segments: shared.unwrap_or_else(|| self.segments.iter().cloned().collect()),
            open: self.open.clone(),
            rates: self.meter.announced(),
            rests_until: self.rests_until,
        }
    }
}

impl Window {
    /// A window that will begin with the first segment of `period`.
    pub(super) fn new(presentation: Presentation, period: Period) -> Self {
        let first = period.first.get();
        let track = |rendition: &Rendition| Track::new(rendition, Vec::new());
        Self {
            tracks: period.renditions.iter().map(track).collect(),
            presentation: Arc::new(presentation),
            earlier: VecDeque::new(),
            current: Arc::new(period),
            first,
            listed: first..first,
            closing: false,
            discontinuity_sequence: 0,
            ended: false,
            after_hole: None,
            mpd_changed_at: None,
        }
    }

    /// Lists what an earlier run left before anything of this one: per rendition the same consecutive
    /// numbers, up to the one before the first. What the MPD says from now on is later than all that it said then.
    pub(super) fn go_on_from(&mut self, segments: Vec<Vec<Segment>>, discontinuity_sequence: u64) {
        let ends = segments.iter().filter_map(|segments| segments.last());
        self.mpd_changed_at = ends.map(|last| last.ends().to_wall()).max();
        for (track, segments) in self.tracks.iter_mut().zip(segments) {
            let oldest = segments.first().map(|segment| segment.number.get());
            self.listed.start = oldest.unwrap_or(self.listed.start).min(self.listed.end);
            track.segments = segments.into_iter().map(Arc::new).collect();
            track.shared = None;
        }
        self.discontinuity_sequence = discontinuity_sequence;
        self.note_holes(self.listed.clone());
    }

    /// Notes which of the segments `numbers`, which are listed, no rendition has.
    fn note_holes(&mut self, numbers: Range<u64>) {
        let lacks = |track: &Track, number| track.segment(number).is_none_or(|found| found.gap);
        let is_hole = |number: &u64| self.tracks.iter().all(|track| lacks(track, *number));
        let last = numbers.rev().find(is_hole);
        self.after_hole = last.map(|hole| hole + 1).or(self.after_hole);
        let listed = &self.listed;
        let is_over =
            |first: u64| first <= listed.start || first.saturating_add(HOLE_SEGMENTS) <= listed.end;
        self.after_hole.take_if(|first| is_over(*first));
    }

    /// Begins another period. Every rendition has its segments up to the first of it.
    pub(super) fn begin_period(&mut self, period: Period) {
        let period = Arc::new(period);
        let before = std::mem::replace(&mut self.current, period);
        self.earlier.push_back(before);
    }

    /// Begins another period with further renditions, which have `added` in place of what the others have: per
    /// rendition the same numbers.
    pub(super) fn widen(
        &mut self,
        presentation: Presentation,
        period: Period,
        added: Vec<Vec<Segment>>,
    ) {
        let known = self.tracks.len();
        let new = period.renditions.iter().skip(known).zip(added);
        let new = new.map(|(rendition, segments)| Track::new(rendition, segments));
        self.tracks.extend(new);
        self.presentation = Arc::new(presentation);
        let start = self.presentation.grid();
        let start = start.start_of(period.first, Timescale::MILLIS);
        self.mpd_changes(start.at(Timescale::MILLIS).to_wall());
        self.begin_period(period);
    }

    /// Notes that the MPD says something else since `at`, on the media's timeline.
    fn mpd_changes(&mut self, at: WallTime) {
        let before = self.mpd_changed_at.map(WallTime::as_micros);
        let later = before.map(|before| WallTime::from_micros(before + PUBLISH_STEP_US));
        self.mpd_changed_at = later.into_iter().chain([at]).max();
    }

    pub(super) fn presentation(&self) -> &Presentation {
        &self.presentation
    }

    /// The current period.
    pub(super) fn period(&self) -> &Period {
        &self.current
    }

    /// The period of this run that segment `number` lies in.
    pub(super) fn period_of(&self, number: SegmentNumber) -> &Period {
        let mut earlier = self.earlier.iter().rev();
        if number >= self.current.first {
            return &self.current;
        }
        let found = earlier.find(|period| number >= period.first);
        found.unwrap_or(&self.current)
    }

    /// The number of the segment of a rendition that follows the last whole one.
    pub(super) fn next_number(&self, rendition: usize) -> u64 {
        let last = self.last(rendition);
        last.map_or(self.first, |last| last.get() + 1)
    }

    /// The segment `number` of a rendition, if it is whole and kept.
    pub(super) fn segment(&self, rendition: usize, number: u64) -> Option<&Segment> {
        self.tracks.get(rendition)?.segment(number)
    }

    /// All whole segments of a rendition that are kept.
    pub(super) fn kept(&self, rendition: usize) -> impl Iterator<Item = &Segment> {
        let track = self.tracks.get(rendition).into_iter();
        track.flat_map(|track| track.segments.iter().map(AsRef::as_ref))
    }

    /// The last whole segment of a rendition.
    pub(super) fn last(&self, rendition: usize) -> Option<SegmentNumber> {
        let last = self.tracks.get(rendition)?.segments.back()?;
        Some(last.number)
    }

    /// The end of the listed numbers: the first segment that some rendition does not have yet.
    pub(super) const fn listed_end(&self) -> u64 {
        self.listed.end
    }

    /// The first rendition that has no whole segment `number` yet.
    pub(super) fn lacking(&self, number: u64) -> Option<&Rendition> {
        let lacks = |track: &Track| {
            let last = track.segments.back();
            last.is_none_or(|segment| segment.number.get() < number)
        };
        let index = self.tracks.iter().position(lacks)?;
        self.current.renditions.get(index)
    }

    /// Publishes what there is of a segment in the making.
    pub(super) fn set_open(&mut self, rendition: usize, segment: Segment) {
        if let Some(track) = self.tracks.get_mut(rendition) {
            track.open = Some(Arc::new(segment));
        }
    }

    /// Adds a whole segment. Returns whether the list changed.
    pub(super) fn add(&mut self, rendition: usize, segment: Segment) -> bool {
        let Some(track) = self.tracks.get_mut(rendition) else {
            return false;
        };
        let (scale, end) = (segment.scale, segment.ends().to_wall());
        let bytes = segment.payload.len();
        let (number, is_gap) = (segment.number.get(), segment.gap);
        let peak_changed = !is_gap && track.meter.measure(bytes, segment.duration, scale);
        let rests_until = track.rests_until.map(SegmentNumber::get);
        let has_returned =
            !is_gap && rests_until.is_some_and(|until| number >= until + RETURN_SEGMENTS - 1);
        if has_returned {
            track.rests_until = None;
        }
        // What rests is not in the MPD.
        let peak_changed = peak_changed && track.rests_until.is_none();
        track.open = None;
        track.segments.push_back(Arc::new(segment));
        track.shared = None;
        let before = self.listed.start;
        let had_hole = self.after_hole.is_some();
        let moved = self.advance();
        let has_news = if self.presentation.cuts.are_on_grid() {
            let reaches_farther = moved && had_hole;
            self.mpd_changed_at.is_none() || self.loses_period_since(before) || reaches_farther
        } else {
            // Every segment is in the MPD, so that it says something new each time.
            moved
        };
        if peak_changed || has_returned || has_news {
            self.mpd_changes(end);
        }
        moved
    }

    /// Whether a period has left the list since that began with `before`.
    fn loses_period_since(&self, before: u64) -> bool {
        let left = before + 1..=self.listed.start;
        let nexts = self.earlier.iter().skip(1).chain([&self.current]);
        let mut begun = nexts.map(|next| next.first.get());
        !self.earlier.is_empty() && begun.any(|first| left.contains(&first))
    }

    /// Marks that a rendition has nothing before segment `until`, or soon will not have.
    pub(super) fn rest(&mut self, rendition: usize, until: SegmentNumber) {
        let Some(track) = self.tracks.get_mut(rendition) else {
            return;
        };
        let has_begun = track.rests_until.replace(until).is_none();
        let ends = self.tracks.iter().filter_map(|t| t.segments.back());
        let newest = ends.map(|last| last.ends().to_wall()).max();
        if let Some(newest) = newest.filter(|_| has_begun) {
            self.mpd_changes(newest);
        }
    }

    /// Marks that only what has begun will be completed.
    pub(super) fn close_soon(&mut self) {
        self.closing = true;
    }

    /// Marks the end.
    pub(super) fn end(&mut self) {
        self.ended = true;
        for track in &mut self.tracks {
            track.open = None;
        }
        let snapshot = self.snapshot();
        let ends = (0..self.tracks.len()).filter_map(|r| snapshot.listed_end(r));
        if let Some(end) = ends.map(MediaTime::to_wall).max() {
            self.mpd_changes(end);
        }
    }

    /// Moves the list on to what every rendition has; whether it moved.
    fn advance(&mut self) -> bool {
        let end_of = |track: &Track| {
            let last = track.segments.back();
            last.map_or(self.listed.start, |segment| segment.number.get() + 1)
        };
        let end = self.tracks.iter().map(end_of).min().unwrap_or(0);
        if end <= self.listed.end {
            return false;
        }
        let start = self.listed.start.max(self.start_of_list(end));
        let has_left =
            |segment: &&Arc<Segment>| (self.listed.start..start).contains(&segment.number.get());
        let left = self
            .tracks
            .first()
            .into_iter()
            .flat_map(|track| &track.segments);
        let left = left
            .filter(has_left)
            .filter(|segment| segment.discontinuity);
        self.discontinuity_sequence += left.count() as u64;
        let begun = self.listed.end..end;
        self.listed = start..end;
        self.locate_periods(begun.clone());
        self.note_holes(begun);
        true
    }

    /// Where a list that ends at `end` begins: as many segments as configured; where the source cuts, more if
    /// they would not last [`MIN_LIST_TARGETS`].
    fn start_of_list(&self, end: u64) -> u64 {
        let window = u64::from(self.presentation.config.window_segments);
        let start = end.saturating_sub(window);
        if self.presentation.cuts.are_on_grid() {
            return start;
        }
        let least = Duration::from_secs(self.presentation.target_duration_s.into());
        let least = least * MIN_LIST_TARGETS;
        let is_long = |start: u64| {
            self.tracks.iter().all(|track| {
                let listed = (start..end).filter_map(|number| track.segment(number));
                let lengths = listed.map(|segment| segment.duration.to_duration(segment.scale));
                lengths.sum::<Duration>() >= least
            })
        };
        let earliest = end.saturating_sub(window * MAX_LIST_FACTOR);
        let starts = (earliest..=start).rev();
        starts
            .into_iter()
            .find(|start| is_long(*start))
            .unwrap_or(earliest)
    }

    /// Notes where the periods begin of which the first segments, among `begun`, have just been listed.
    fn locate_periods(&mut self, begun: Range<u64>) {
        let tracks = &self.tracks;
        for period in self.earlier.iter_mut().chain([&mut self.current]) {
            let first = period.first.get();
            if begun.contains(&first) {
                let firsts = tracks.iter().filter_map(|track| track.segment(first));
                let earliest = firsts.min_by(|a, b| {
                    let order = a.begins().cmp_instant(b.begins());
                    a.gap.cmp(&b.gap).then(order)
                });
                Arc::make_mut(period).start = earliest.map(Segment::begins);
            }
        }
    }

    /// Takes out the oldest segment that is neither listed nor to be kept: which, of which rendition. A gap
    /// is taken out without a word.
    pub(super) fn evict(&mut self) -> Option<(usize, SegmentNumber)> {
        loop {
            let (rendition, evicted) = self.take_oldest()?;
            if !evicted.gap {
                return Some((rendition, evicted.number));
            }
        }
    }

    fn take_oldest(&mut self) -> Option<(usize, Arc<Segment>)> {
        let kept = u64::from(self.presentation.config.kept_segments);
        let keep_from = self.listed.start.saturating_sub(kept);
        let oldest = |track: &Track| track.segments.front().map(|s| s.number);
        let is_due = |track: &Track| oldest(track).is_some_and(|n| n.get() < keep_from);
        let index = self.tracks.iter().position(is_due)?;
        let track = self.tracks.get_mut(index)?;
        let evicted = track.segments.pop_front()?;
        track.shared = None;
        Some((index, evicted))
    }

    /// Drops the periods of which nothing is kept; which those are.
    pub(super) fn forget_periods(&mut self) -> impl Iterator<Item = PeriodId> {
        let fronts = self.tracks.iter().map(|track| track.segments.front());
        let oldest = fronts.map(|front| front.map_or(u64::MAX, |s| s.number.get()));
        let oldest = oldest.min().unwrap_or(0);
        let oldest = oldest.min(self.listed.start);
        let nexts = self.earlier.iter().skip(1).chain([&self.current]);
        let gone = nexts.take_while(|next| next.first.get() <= oldest).count();
        self.earlier
            .drain(..gone.min(self.earlier.len()))
            .map(|period| period.id)
    }

    /// What is published now. What did not change since the last time is shared with it.
    pub(super) fn share(&mut self) -> Snapshot {
        for track in &mut self.tracks {
            let segments = &track.segments;
            track
                .shared
                .get_or_insert_with(|| segments.iter().cloned().collect());
        }
        self.snapshot()
    }

    pub(super) fn snapshot(&self) -> Snapshot {
        Snapshot {
            presentation: Arc::clone(&self.presentation),
            earlier: self.earlier.iter().cloned().collect(),
            current: Arc::clone(&self.current),
            tracks: self.tracks.iter().map(Track::view).collect(),
            listed: self.listed.clone(),
            closing: self.closing,
            discontinuity_sequence: self.discontinuity_sequence,
            ended: self.ended,
            after_hole: self.after_hole,
            mpd_changed_at: self.mpd_changed_at.unwrap_or(WallTime::from_micros(0)),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use bytes::Bytes;

    use crate::codec::video::{Colour, Dimensions, PixelAspect};
    use crate::codec::{aac as aac_codec, h264 as h264_codec};
    use crate::media::{CodecConfig, Rendition};
    use crate::time::{FrameRate, Timescale};

    /// A rendition of H.264 at 30 frames per second.
    pub(crate) fn h264(name: &str, width: u32, height: u32) -> Rendition {
        Rendition {
            name: name.parse().expect("valid"),
            timescale: Timescale::VIDEO_90K,
            codec: CodecConfig::H264(h264_codec::Config {
                avcc: Bytes::from_static(&[
                    1, 0x64, 0, 0x1f, 0xff, 0xe1, 0, 4, 0x67, 0x64, 0, 0x1f, 1, 0, 4, 0x68, 0xee,
                    0x3c, 0x80, 0xfd, 0xf8, 0xf8, 0,
                ]),
                profile: 0x64,
                compatibility: 0,
                level: 0x1f,
                dimensions: Dimensions { width, height },
                pixel_aspect: PixelAspect::SQUARE,
                colour: Colour {
                    primaries: 1,
                    transfer: 1,
                    matrix: 1,
                    full_range: false,
                },
                declared_rate: None,
            }),
            frame_rate: FrameRate::new(30, 1),
            target_bps: u64::from(width) * 2_000,
        }
    }

    /// A rendition of stereo AAC-LC at 48 kHz.
    pub(crate) fn aac(name: &str, target_bps: u64) -> Rendition {
        Rendition {
            name: name.parse().expect("valid"),
            timescale: Timescale::new(48_000).expect("not zero"),
            codec: CodecConfig::Aac(aac_codec::Config {
                asc: Bytes::from_static(&[0x11, 0x90]),
                object_type: 2,
                sample_rate: 48_000,
                channels: 2,
                frame_samples: 1_024,
            }),
            frame_rate: None,
            target_bps,
        }
    }
}

//! Keeps the record of a show that goes on.
//!
//! Enters: snapshots of the broadcast, and word of which of its segments are stored
//! Leaves: the [`Show`] as far as it is stored
//! Never:  a segment on the word of a snapshot alone
//! Time:   the snapshot's
//! Spec:   docs/recordings.md

use std::collections::BTreeMap;

use super::record::{MAX_CHAPTERS, MAX_ODD, MAX_RANGES};
use super::{Chapter, Picture, Ranges, Show, Track};
use crate::id::{RenditionName, SegmentNumber};
use crate::media::{CodecConfig, CodecString, FrameLength, Rendition};
use crate::package::period::Period;
use crate::package::snapshot::{Segment, Snapshot};

/// How many segments a rendition may be behind before the others are offered without it.
const MAX_LAG_SEGMENTS: u64 = 30;

/// The record of a show while it goes on.
#[derive(Clone, Debug)]
pub struct Recorder {
    show: Show,
    /// Where what has been looked at of the snapshots ends, by rendition.
    seen: BTreeMap<RenditionName, u64>,
}

impl Recorder {
    /// A record of what is published from segment `first` on, nothing of which is stored yet.
    #[must_use]
    pub fn begin(snapshot: &Snapshot, first: SegmentNumber) -> Self {
        let presentation = snapshot.presentation();
        let number = first.get();
        let periods: Vec<_> = snapshot.periods().collect();
        let mut earlier = periods.iter().rev();
        let period = earlier.find(|period| period.first <= first);
        let period = period.copied().unwrap_or_else(|| snapshot.period());
        let mut recorder = Self {
            show: Show {
                first,
                segment_ms: presentation.config.segment_ms,
                target_duration_s: presentation.target_duration_s,
                independent: presentation.cuts.are_on_grid(),
                offered: number..number,
                swept: number,
                ended: false,
                reach_ms: u64::try_from(presentation.config.dvr.as_millis()).unwrap_or(u64::MAX),
                chapters: vec![chapter(period, number)],
            },
            seen: BTreeMap::new(),
        };
        recorder.look(snapshot);
        recorder
    }

    /// Puts what this has recorded behind `show`, which an earlier run recorded and broke off; `false`, and
    /// nothing is changed, if what is published now is not cut as that was, or has no room in its record.
    pub fn go_on_with(&mut self, mut show: Show, snapshot: &Snapshot) -> bool {
        let same = show.segment_ms == self.show.segment_ms
            && show.target_duration_s == self.show.target_duration_s
            && show.independent == self.show.independent
            && !show.ended
            && show.offered.end <= self.show.offered.start;
        if !same {
            return false;
        }
        show.offered.end = self.show.offered.end.max(show.offered.end);
        show.reach_ms = self.show.reach_ms;
        for chapter in self.show.chapters.clone() {
            match show.chapters.last_mut() {
                Some(last) if last.period == chapter.period => last.absorb(chapter),
                Some(last) if last.first >= chapter.first => {}
                _ => show.chapters.push(chapter),
            }
        }
        // One that is full goes on in another record.
        if !show.is_within_limits() {
            return false;
        }
        self.show = show;
        // What that run left in the list is stored.
        self.seen.clear();
        self.look(snapshot);
        self.take_over(snapshot);
        true
    }

    /// The record as it is.
    #[must_use]
    pub const fn show(&self) -> &Show {
        &self.show
    }

    /// The record, to be changed: what is offered may go.
    pub const fn show_mut(&mut self) -> &mut Show {
        &mut self.show
    }

    /// Whether it is as large as a record may become: another one is to go on after it.
    #[must_use]
    pub fn is_full(&self) -> bool {
        let mut tracks = self.show.chapters.iter().flat_map(|c| &c.tracks);
        self.show.chapters.len() >= MAX_CHAPTERS
            || tracks.any(|track| {
                track.odd.len() + 1 >= MAX_ODD || track.stored.as_slice().len() + 1 >= MAX_RANGES
            })
    }

    /// Takes note that segment `number` of `rendition` is stored. Where it lies has been seen while it was in
    /// memory, which may be long ago; if not, where the source cuts, it is left out.
    pub fn stored(&mut self, rendition: &RenditionName, number: SegmentNumber) {
        let (number, on_grid) = (number.get(), self.show.independent);
        if number < self.show.offered.start {
            return;
        }
        let mut chapters = self.show.chapters.iter_mut().rev();
        let chapter = chapters.find(|chapter| chapter.first <= number);
        let mut tracks = chapter.into_iter().flat_map(|chapter| &mut chapter.tracks);
        let track = tracks.find(|track| track.name == *rendition);
        if let Some(track) = track.filter(|track| on_grid || track.odd.contains_key(&number)) {
            track.stored.insert_within(number, MAX_RANGES);
        }
    }

    /// Takes over what is announced and where segments lie, and offers what every rendition has.
    pub fn advance(&mut self, snapshot: &Snapshot) {
        self.look(snapshot);
        let Some(last) = self.show.chapters.last_mut() else {
            return;
        };
        for track in &mut last.tracks {
            let index = snapshot.rendition(track.name.as_str());
            if let Some(rates) = index.and_then(|index| snapshot.rates(index)) {
                // What was measured before a restart counts as well.
                track.peak_bps = track.peak_bps.max(rates.peak_bps);
                track.average_bps = rates.average_bps;
            }
        }
        let ends = self.show.chapters.iter().map(|chapter| {
            let ends = chapter.tracks.iter();
            let ends = ends.map(|track| track.stored.end().unwrap_or(0));
            let all = ends.clone().min().unwrap_or(0);
            let some = ends.max().unwrap_or(0);
            all.max(some.saturating_sub(MAX_LAG_SEGMENTS))
        });
        let end = ends.max().unwrap_or(0);
        self.show.offered.end = self.show.offered.end.max(end);
    }

    /// Ends the record where all renditions have come to, and begins another one with what lies behind that:
    /// returns the one that has ended.
    pub fn turn_over(&mut self, snapshot: &Snapshot) -> Show {
        let at = self.show.offered.end;
        let mut next = Self::begin(snapshot, SegmentNumber::new(at));
        for chapter in &mut self.show.chapters {
            let mut later = next.show.chapters.iter_mut();
            let mut later = later.find(|later| later.period == chapter.period);
            for track in &mut chapter.tracks {
                let (stored, odd) = (track.stored.split_off(at), track.odd.split_off(&at));
                let later = later.iter_mut().flat_map(|chapter| &mut chapter.tracks);
                if let Some(later) = later.into_iter().find(|t| t.name == track.name) {
                    later.stored.extend(&stored);
                    later.odd.extend(odd);
                }
            }
        }
        let first = self.show.chapters.first().map(|chapter| chapter.first);
        let is_there = |chapter: &Chapter| chapter.first < at || Some(chapter.first) == first;
        self.show.chapters.retain(is_there);
        let mut ended = std::mem::replace(self, next).show;
        ended.end();
        ended
    }

    /// Takes note of the periods and of where segments lie, of what has not been looked at.
    fn look(&mut self, snapshot: &Snapshot) {
        for period in snapshot.periods() {
            let last = self.show.chapters.last();
            let is_new =
                |last: &Chapter| last.period != period.id && last.first < period.first.get();
            if last.is_none_or(is_new) && self.show.chapters.len() < MAX_CHAPTERS {
                let first = period.first.get();
                self.show.chapters.push(chapter(period, first));
            }
        }
        for (index, rendition) in snapshot.period().renditions.iter().enumerate() {
            let seen = self.seen.get(&rendition.name).copied().unwrap_or(0);
            let newer = snapshot.segments(index).rev();
            let newer = newer.take_while(|segment| segment.number.get() >= seen);
            let mut end = seen;
            for segment in newer {
                end = end.max(segment.number.get() + 1);
                self.place(&rendition.name, segment);
            }
            self.seen.insert(rendition.name.clone(), end);
        }
    }

    fn place(&mut self, rendition: &RenditionName, segment: &Segment) {
        let (number, on_grid) = (segment.number.get(), self.show.independent);
        let grid = self.show.grid();
        if number < self.show.offered.start {
            return;
        }
        let Some(track) = self.show.track_mut(rendition, segment) else {
            return;
        };
        let scale = track.timescale;
        let place = if segment.scale == scale {
            (segment.start, segment.duration)
        } else if track.odd.contains_key(&number) {
            // What an earlier run listed is known to the millisecond only.
            return;
        } else {
            let start = segment.begins().rescale_nearest(scale);
            let end = segment.ends().rescale_nearest(scale);
            (start, end.since(start).unwrap_or_default())
        };
        if track.odd.len() < MAX_ODD && (!on_grid || track.place(grid, number) != place) {
            track.odd.insert(number, place);
        }
    }

    /// Counts as stored what an earlier run left in the list.
    fn take_over(&mut self, snapshot: &Snapshot) {
        for (index, rendition) in snapshot.period().renditions.iter().enumerate() {
            let all = snapshot.segments(index);
            let left = all.take_while(|segment| segment.payload.is_empty());
            for segment in left.filter(|segment| !segment.gap) {
                if self.show.track_mut(&rendition.name, segment).is_some() {
                    self.stored(&rendition.name, segment.number);
                }
            }
        }
    }
}

impl Show {
    /// Whether its record can be read again.
    pub(super) fn is_within_limits(&self) -> bool {
        let mut tracks = self.chapters.iter().flat_map(|chapter| &chapter.tracks);
        self.chapters.len() <= MAX_CHAPTERS
            && tracks.all(|track| {
                track.odd.len() <= MAX_ODD && track.stored.as_slice().len() <= MAX_RANGES
            })
    }

    /// The rendition in the period of `segment`, as far as the record knows that.
    fn track_mut(&mut self, rendition: &RenditionName, segment: &Segment) -> Option<&mut Track> {
        let number = segment.number.get();
        let mut chapters = self.chapters.iter_mut().rev();
        let chapter = chapters.find(|chapter| chapter.first <= number)?;
        if chapter.period != segment.period {
            return None;
        }
        let mut tracks = chapter.tracks.iter_mut();
        tracks.find(|track| track.name == *rendition)
    }
}

impl Chapter {
    /// Adds what a later run has recorded of the same period.
    fn absorb(&mut self, later: Self) {
        for track in later.tracks {
            let known = self.tracks.iter_mut().find(|t| t.name == track.name);
            let Some(known) = known.filter(|known| known.timescale == track.timescale) else {
                continue;
            };
            known.stored.extend(&track.stored);
            known.odd.extend(track.odd);
            known.peak_bps = known.peak_bps.max(track.peak_bps);
            known.average_bps = track.average_bps;
        }
    }
}

fn chapter(period: &Period, first: u64) -> Chapter {
    Chapter {
        period: period.id,
        first,
        tracks: period.renditions.iter().map(track).collect(),
    }
}

fn track(rendition: &Rendition) -> Track {
    let sar = match &rendition.codec {
        CodecConfig::H264(c) => (c.pixel_aspect.width.get(), c.pixel_aspect.height.get()),
        _ => (1, 1),
    };
    Track {
        name: rendition.name.clone(),
        kind: rendition.codec.kind(),
        codecs: CodecString::of(&rendition.codec).to_string(),
        timescale: rendition.timescale,
        frame: FrameLength::of(rendition).fraction(),
        picture: rendition.codec.dimensions().map(|size| Picture {
            width: size.width,
            height: size.height,
            sar,
        }),
        frame_rate: rendition.frame_rate,
        sound: rendition.codec.audio(),
        peak_bps: rendition.target_bps,
        average_bps: rendition.target_bps,
        stored: Ranges::default(),
        odd: BTreeMap::new(),
    }
}

//! Keeps the record of a show that goes on.
//!
//! Enters: snapshots of the broadcast, and word of which of its segments are stored
//! Leaves: the [`Show`] as far as it is stored
//! Never:  a segment on the word of a snapshot alone
//! Time:   the snapshot's
//! Spec:   docs/recordings.md

use super::record::{MAX_CHAPTERS, MAX_ODD, MAX_RANGES};
use super::{Chapter, Picture, Ranges, Show, Track};
use crate::id::{RenditionName, SegmentNumber};
use crate::media::{CodecConfig, CodecString, Rendition};
use crate::package::cut::FrameLength;
use crate::package::period::Period;
use crate::package::snapshot::Snapshot;

/// How many segments a rendition may be behind before the others are offered without it.
const MAX_LAG_SEGMENTS: u64 = 30;

/// The record of a show while it goes on.
#[derive(Clone, Debug)]
pub struct Recorder {
    show: Show,
}

impl Recorder {
    /// A record of what is published from segment `first` on, nothing of which is stored yet.
    #[must_use]
    pub fn begin(snapshot: &Snapshot, first: SegmentNumber) -> Self {
        let presentation = snapshot.presentation();
        let number = first.get();
        Self {
            show: Show {
                first,
                segment_ms: presentation.config.segment_ms,
                target_duration_s: presentation.target_duration_s,
                independent: presentation.cuts.are_on_grid(),
                offered: number..number,
                swept: number,
                ended: false,
                chapters: vec![chapter(snapshot.period(), number)],
            },
        }
    }

    /// Goes on with `show`, which an earlier run recorded and broke off; `None` if what is published now is
    /// not cut as that was.
    #[must_use]
    pub fn resume(show: Show, snapshot: &Snapshot) -> Option<Self> {
        let presentation = snapshot.presentation();
        let same = show.segment_ms == presentation.config.segment_ms
            && show.target_duration_s == presentation.target_duration_s
            && show.independent == presentation.cuts.are_on_grid()
            && !show.ended;
        same.then_some(Self { show })
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

    /// Takes note that segment `number` of `rendition` is stored.
    pub fn stored(
        &mut self,
        snapshot: &Snapshot,
        rendition: &RenditionName,
        number: SegmentNumber,
    ) {
        let index = snapshot.rendition(rendition.as_str());
        let segment = index.and_then(|index| snapshot.segment(index, number));
        let grid = self.show.grid();
        if let Some(segment) = segment {
            let period = snapshot.periods().find(|p| p.id == segment.period);
            let last = self.show.chapters.last();
            if let Some(period) = period
                && last.is_some_and(|last| last.period != period.id && last.first < number.get())
            {
                let first = period.first.get().min(number.get());
                let first = first.max(last.map_or(0, |last| last.first + 1));
                self.show.chapters.push(chapter(period, first));
            }
        }
        let chapters = self.show.chapters.iter_mut().rev();
        let mut chapters = chapters.skip_while(|chapter| chapter.first > number.get());
        let Some(track) = chapters
            .next()
            .and_then(|chapter| chapter.tracks.iter_mut().find(|t| t.name == *rendition))
        else {
            return;
        };
        if let Some(segment) = segment.filter(|segment| segment.scale == track.timescale) {
            let place = (segment.start, segment.duration);
            if track.place(grid, number.get()) != place {
                track.odd.insert(number.get(), place);
            }
        }
        track.stored.insert(number.get());
    }

    /// Takes over what is announced, and offers what every rendition has.
    pub fn advance(&mut self, snapshot: &Snapshot) {
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
        let ends = last
            .tracks
            .iter()
            .map(|track| track.stored.end().unwrap_or(0));
        let all = ends.clone().min().unwrap_or(0);
        let some = ends.max().unwrap_or(0);
        let end = all.max(some.saturating_sub(MAX_LAG_SEGMENTS));
        self.show.offered.end = self.show.offered.end.max(end);
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
        odd: std::collections::BTreeMap::new(),
    }
}

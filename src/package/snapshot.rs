//! What is published of a broadcast at one instant: values that never change.
//!
//! Enters: what the window holds
//! Leaves: [`Snapshot`], from which every manifest and every answer is made
//! Never:  decides what is listed: that is the window's
//! Time:   positions in each rendition's timescale, from the Unix epoch
//! Spec:   [HLS] §6.2.1; [DASH] §5.3.9.5

use std::ops::Range;
use std::sync::Arc;

use super::config::Config;
use super::cut::Cuts;
use super::period::Period;
use super::rates::Rates;
use crate::id::{PartIndex, PeriodId, SegmentNumber};
use crate::media::{FrameLength, PartTarget, Payload, Rendition};
use crate::time::{Grid, MediaTime, Span, Ticks, Timescale, WallTime};

/// What never changes in the life of a window.
#[derive(Clone, Debug)]
pub struct Presentation {
    /// How it is cut and how much is listed. Low latency is off where no part length suits what the source
    /// decides, though the configuration asked for it.
    pub config: Config,
    /// What decides where segments begin.
    pub cuts: Cuts,
    /// PART-TARGET of all playlists.
    pub part_target: PartTarget,
    /// EXT-X-TARGETDURATION of all playlists, in seconds.
    pub target_duration_s: u32,
}

impl Presentation {
    /// `next`, which what is published has become, but for what must not change as long as it need not: what
    /// players were told of the length of parts and segments.
    pub(super) fn going_on_as(&self, next: Self, renditions: &[Rendition]) -> Self {
        let mut frames = renditions.iter().map(FrameLength::of);
        let suits = frames.all(|frame| self.part_target.suits(frame));
        Self {
            part_target: if suits {
                self.part_target
            } else {
                next.part_target
            },
            target_duration_s: self.target_duration_s.max(next.target_duration_s),
            ..next
        }
    }

    /// The grid that segments are cut on.
    #[must_use]
    pub const fn grid(&self) -> Grid {
        Grid::new(self.config.segment_ms)
    }
}

/// One addressable slice of a segment: a `moof` and its `mdat`.
#[derive(Clone, Debug)]
pub struct Part {
    /// Decode time of its first sample.
    pub start: Ticks,
    /// Length of its samples together.
    pub duration: Span,
    /// Whether it begins with a key frame: INDEPENDENT of EXT-X-PART.
    pub independent: bool,
    /// Its bytes.
    pub payload: Payload,
}

/// One segment of one rendition, whole or in the making.
#[derive(Clone, Debug)]
pub struct Segment {
    /// Its number.
    pub number: SegmentNumber,
    /// The timescale of its times: that of its rendition in its period.
    pub scale: Timescale,
    /// Decode time of its first sample; PROGRAM-DATE-TIME.
    pub start: Ticks,
    /// Length of its samples together; EXTINF.
    pub duration: Span,
    /// Whether decoding can begin with its first sample.
    pub independent: bool,
    /// Its parts, in order; of a gap at the live edge, those that it would have. What an earlier run published has none.
    pub parts: Vec<Part>,
    /// The parts end to end; of one in the making, what there is. Nothing for a gap, and for one that an
    /// earlier run published: that is in the store.
    pub payload: Payload,
    /// The period whose init segment it needs.
    pub period: PeriodId,
    /// Whether it is the first of its period, and not the first of all: EXT-X-DISCONTINUITY.
    pub discontinuity: bool,
    /// Whether there is nothing to be had at its address: EXT-X-GAP.
    pub gap: bool,
}

impl Segment {
    /// The instant at which it begins.
    #[must_use]
    pub const fn begins(&self) -> MediaTime {
        self.start.at(self.scale)
    }

    /// The instant at which it ends.
    #[must_use]
    pub fn ends(&self) -> MediaTime {
        let end = self.start.checked_add(self.duration);
        end.unwrap_or(self.start).at(self.scale)
    }
}

/// What the multivariant playlist and the MPD are made of: while it stays the same, so do they, whereas media
/// playlists change with every part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outline {
    listed: Range<u64>,
    period: PeriodId,
    ended: bool,
    mpd_changed_at: WallTime,
    tracks: Vec<(Rates, bool)>,
}

/// What is published of a broadcast at one moment. Clones share everything.
#[derive(Clone, Debug)]
pub struct Snapshot {
    pub(super) presentation: Arc<Presentation>,
    /// Periods of this run of which segments are kept, but the current one; oldest first.
    pub(super) earlier: Arc<[Arc<Period>]>,
    pub(super) current: Arc<Period>,
    pub(super) tracks: Vec<TrackView>,
    pub(super) listed: Range<u64>,
    pub(super) closing: bool,
    pub(super) discontinuity_sequence: u64,
    pub(super) ended: bool,
    /// The segment after the last listed one that no rendition has, while that matters to players.
    pub(super) after_hole: Option<u64>,
    pub(super) mpd_changed_at: WallTime,
}

/// One rendition's side of a [`Snapshot`].
#[derive(Clone, Debug)]
pub(super) struct TrackView {
    /// Whole segments, oldest first, numbers consecutive.
    pub(super) segments: Arc<[Arc<Segment>]>,
    /// The one in the making, if a part of it is there and parts are published at all.
    pub(super) open: Option<Arc<Segment>>,
    pub(super) rates: Rates,
    /// Before which segment it has nothing, or soon will not have, while that matters to players.
    pub(super) rests_until: Option<SegmentNumber>,
}

impl Snapshot {
    /// What never changes.
    #[must_use]
    pub fn presentation(&self) -> &Presentation {
        &self.presentation
    }

    /// The period that goes on: what is published now.
    #[must_use]
    pub fn period(&self) -> &Period {
        &self.current
    }

    /// Every period of which this run has published segments that are kept, oldest first; the last is
    /// [`Self::period`].
    pub fn periods(&self) -> impl Iterator<Item = &Period> {
        let earlier = self.earlier.iter();
        earlier.chain([&self.current]).map(AsRef::as_ref)
    }

    /// Whether the broadcast is over: nothing will be added.
    #[must_use]
    pub const fn is_ended(&self) -> bool {
        self.ended
    }

    /// The numbers of the segments that manifests list: whole on every rendition. After the end, a rendition may
    /// have more than that: see [`Self::listed_segments`].
    #[must_use]
    pub fn listed(&self) -> Range<u64> {
        self.listed.clone()
    }

    /// EXT-X-MEDIA-SEQUENCE of every playlist: the number of the first listed segment.
    #[must_use]
    pub const fn media_sequence(&self) -> SegmentNumber {
        SegmentNumber::new(self.listed.start)
    }

    /// EXT-X-DISCONTINUITY-SEQUENCE of every playlist: how many discontinuities have left the list.
    #[must_use]
    pub const fn discontinuity_sequence(&self) -> u64 {
        self.discontinuity_sequence
    }

    /// The index of the rendition called `name`.
    #[must_use]
    pub fn rendition(&self, name: &str) -> Option<usize> {
        let renditions = &self.current.renditions;
        renditions.iter().position(|r| r.name.as_str() == name)
    }

    /// The listed segments of a rendition, oldest first; none if there is no such rendition. After the end it is
    /// all that the rendition has, though one that ended a moment earlier has a segment less: players have played
    /// the parts, and what they have played must not vanish.
    pub fn listed_segments(&self, rendition: usize) -> impl Iterator<Item = &Arc<Segment>> {
        let Range { start, end } = self.listed;
        let end = if self.ended { u64::MAX } else { end };
        self.segments(rendition)
            .filter(move |segment| (start..end).contains(&segment.number.get()))
    }

    /// All whole segments of a rendition that are kept, listed or not, oldest first.
    pub fn segments(&self, rendition: usize) -> impl DoubleEndedIterator<Item = &Arc<Segment>> {
        let track = self.tracks.get(rendition);
        track.into_iter().flat_map(|track| track.segments.iter())
    }

    /// The segment in the making of a rendition, if a part of it is published.
    #[must_use]
    pub fn open_segment(&self, rendition: usize) -> Option<&Arc<Segment>> {
        self.tracks.get(rendition)?.open.as_ref()
    }

    /// Whether a rendition rests, soon will, or did just now, so that players of DASH would look for segments
    /// that it does not have.
    #[must_use]
    pub fn is_resting(&self, rendition: usize) -> bool {
        let track = self.tracks.get(rendition);
        track.is_some_and(|track| track.rests_until.is_some())
    }

    /// The announced bit rates of a rendition.
    #[must_use]
    pub fn rates(&self, rendition: usize) -> Option<Rates> {
        self.tracks.get(rendition).map(|track| track.rates)
    }

    /// What of it the multivariant playlist and the MPD depend on.
    #[must_use]
    pub fn outline(&self) -> Outline {
        let tracks = self.tracks.iter();
        Outline {
            listed: self.listed.clone(),
            period: self.current.id,
            ended: self.ended,
            mpd_changed_at: self.mpd_changed_at,
            tracks: tracks.map(|t| (t.rates, t.rests_until.is_some())).collect(),
        }
    }

    /// When what the MPD says last changed, on the media's timeline; `@publishTime`.
    #[must_use]
    pub const fn mpd_changed_at(&self) -> WallTime {
        self.mpd_changed_at
    }

    /// The init segment of a rendition in `period`.
    #[must_use]
    pub fn init_segment(&self, rendition: usize, period: PeriodId) -> Option<&Payload> {
        let period = self.periods().find(|found| found.id == period)?;
        period.init_segments.get(rendition)
    }

    /// A whole segment, listed or kept.
    #[must_use]
    pub fn segment(&self, rendition: usize, number: SegmentNumber) -> Option<&Arc<Segment>> {
        let segments = &self.tracks.get(rendition)?.segments;
        let first = segments.first()?.number.get();
        let index = usize::try_from(number.get().checked_sub(first)?).ok()?;
        segments.get(index)
    }

    /// A part of a segment, whole, kept, or in the making.
    #[must_use]
    pub fn part(
        &self,
        rendition: usize,
        number: SegmentNumber,
        part: PartIndex,
    ) -> Option<&Payload> {
        let open = self.open_segment(rendition).filter(|s| s.number == number);
        let segment = open.or_else(|| self.segment(rendition, number))?;
        let segment = Some(segment).filter(|segment| !segment.gap)?;
        let index = usize::try_from(part.get()).ok()?;
        segment.parts.get(index).map(|part| &part.payload)
    }

    /// The newest part of a rendition: LAST-MSN and LAST-PART.
    #[must_use]
    pub fn last_part(&self, rendition: usize) -> Option<(SegmentNumber, PartIndex)> {
        let whole = self.segments(rendition).next_back();
        let segment = self.open_segment(rendition).or(whole)?;
        let index = u32::try_from(segment.parts.len()).ok()?.checked_sub(1)?;
        Some((segment.number, PartIndex::new(index)))
    }

    /// Where the next part of a rendition will be; `None` after the end.
    #[must_use]
    pub fn next_part(&self, rendition: usize) -> Option<(SegmentNumber, PartIndex)> {
        if self.ended {
            return None;
        }
        if let Some(open) = self.open_segment(rendition) {
            let index = u32::try_from(open.parts.len()).ok()?;
            return Some((open.number, PartIndex::new(index)));
        }
        let last = self.segments(rendition).next_back()?;
        Some((last.number.next(), PartIndex::new(0)))
    }

    /// The part that players may ask for before it is there: the next one, unless it may never come, since a
    /// hint that leads nowhere is an error to some players (Shaka Player).
    #[must_use]
    pub fn hint(&self, rendition: usize) -> Option<(SegmentNumber, PartIndex)> {
        let next = self.next_part(rendition).filter(|_| !self.closing)?;
        let may_rest = || {
            let last = self.segments(rendition).next_back();
            let until = self.tracks.get(rendition).and_then(|t| t.rests_until);
            last.is_some_and(|last| last.gap) || until == Some(next.0)
        };
        (next.1.get() > 0 || !may_rest()).then_some(next)
    }

    /// How much is listed behind the last segment that is listed and no rendition has: how many segments, and how many
    /// milliseconds. `None` if each is there, nothing follows yet, or so much that it matters to no player any more.
    #[must_use]
    pub fn behind_hole(&self) -> Option<(u64, u64)> {
        let first = self.after_hole.filter(|first| *first < self.listed.end)?;
        let count = self.listed.end - first;
        if self.presentation.cuts.are_on_grid() {
            let step = u64::from(self.presentation.config.segment_ms.get());
            return Some((count, count.saturating_mul(step)));
        }
        let lengths = (0..self.tracks.len()).filter_map(|rendition| {
            let begins = self.segment(rendition, SegmentNumber::new(first))?.begins();
            let ends = self.listed_end(rendition)?;
            u64::try_from(ends.to_wall().as_micros() - begins.to_wall().as_micros()).ok()
        });
        Some((count, lengths.max()?.div_ceil(1_000)))
    }

    /// The instant at which the listed media of a rendition ends.
    pub(super) fn listed_end(&self, rendition: usize) -> Option<MediaTime> {
        let last = self.listed_segments(rendition).last()?;
        Some(last.ends())
    }
}

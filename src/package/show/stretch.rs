//! What there is between two instants, of one show or of several in a row.
//!
//! Enters: shows, and the stretch that somebody wants to see
//! Leaves: [`Stretch`]: runs of consecutive segments, the same for every rendition and manifest
//! Never:  a hole that all renditions have: what follows it is another section
//! Time:   UTC, to the segment: it begins at or before what was asked for and ends at or after it
//! Spec:   [HLS] §4.4.4.3, [DASH] §5.3.2

use std::borrow::Borrow;
use std::ops::Range;
use std::time::Duration;

use super::{Chapter, Ranges, Show, Track};
use crate::id::{PeriodId, RenditionName};
use crate::time::{MediaTime, Ticks, Timescale, WallTime};

/// The most segments of a stretch: two days of the default length. A playlist of them has 3 MB.
pub const MAX_STRETCH_SEGMENTS: u64 = 100_000;

/// The most that a manifest may have, in bytes, about: an MPD that names every segment of two days of ten renditions.
const MAX_MANIFEST_BYTES: u64 = 64_000_000;

/// What a section adds to an MPD, and each of its renditions, and each segment that is named one by one, in bytes,
/// about.
const SECTION_BYTES: u64 = 200;
const RENDITION_BYTES: u64 = 300;
const NAMED_BYTES: u64 = 32;

/// Why there is no such stretch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StretchError {
    /// It ends before it begins.
    #[error("end must be later than start")]
    Reversed,
    /// Nothing that is kept lies in it.
    #[error("nothing of that time is kept")]
    Nothing,
    /// A manifest of it would be too large: it has too many holes, or too many segments of which each is named.
    #[error("the manifest of that stretch would have more than {} MB; ask for less", MAX_MANIFEST_BYTES / 1_000_000)]
    TooMuch,
    /// It has more than [`MAX_STRETCH_SEGMENTS`].
    #[error("a stretch has at most {MAX_STRETCH_SEGMENTS} segments, this one has {found}")]
    TooLong {
        /// Segments found.
        found: u64,
    },
}

/// A stretch of what is kept.
#[derive(Clone, Debug)]
pub struct Stretch<'a> {
    pub(super) sections: Vec<Section<'a>>,
    pub(super) closed: bool,
    is_final: bool,
}

/// Consecutive segments of one period, each of which some rendition has.
#[derive(Clone, Debug)]
pub(super) struct Section<'a> {
    pub(super) show: &'a Show,
    pub(super) chapter: &'a Chapter,
    /// The renditions that it is about.
    pub(super) tracks: Vec<&'a Track>,
    pub(super) numbers: Range<u64>,
}

impl<'a> Stretch<'a> {
    /// All that is offered of `show`.
    ///
    /// # Errors
    ///
    /// [`StretchError::Nothing`], [`StretchError::TooLong`].
    pub fn whole(show: &'a Show) -> Result<Self, StretchError> {
        let mut sections = Vec::new();
        add(&mut sections, show, &show.offered())?;
        Self::checked(sections, (show.ended, show.ended))
    }

    /// What lies between `start` and `end`, or has been stored since `start`. `shows` ascend.
    ///
    /// # Errors
    ///
    /// [`StretchError`].
    pub fn between<S: Borrow<Show>>(
        shows: &'a [S],
        start: WallTime,
        end: Option<WallTime>,
    ) -> Result<Self, StretchError> {
        if end.is_some_and(|end| end <= start) {
            return Err(StretchError::Reversed);
        }
        let mut sections = Vec::new();
        for show in shows.iter().map(Borrow::borrow) {
            let mut first = show.number_from(start);
            // The one that has begun before and goes on until after it.
            if first > show.offered.start && show.time_of(first) != start {
                let before = first - 1;
                let reaches = |track: &Track| track.ends(show.grid(), before).to_wall() > start;
                if show.tracks_at(before).any(reaches) {
                    first = before;
                }
            }
            let end = end.map_or(show.offered.end, |end| show.number_from(end));
            add(&mut sections, show, &(first..end))?;
        }
        let newest = shows.last().map(Borrow::borrow);
        let reaches = |end: WallTime| newest.is_some_and(|show: &Show| show.ends() >= end);
        let is_final = end.is_some_and(reaches);
        let closed = newest.is_none_or(|show: &Show| show.ended) || is_final;
        Self::checked(sections, (closed, is_final))
    }

    fn checked(
        sections: Vec<Section<'a>>,
        (closed, is_final): (bool, bool),
    ) -> Result<Self, StretchError> {
        let counts = sections.iter().map(Section::count);
        let found = counts.fold(0, u64::saturating_add);
        match found {
            0 => Err(StretchError::Nothing),
            1..=MAX_STRETCH_SEGMENTS
                if sections.iter().map(Section::manifest_bytes).sum::<u64>()
                    > MAX_MANIFEST_BYTES =>
            {
                Err(StretchError::TooMuch)
            }
            1..=MAX_STRETCH_SEGMENTS => Ok(Self {
                sections,
                closed,
                is_final,
            }),
            _ => Err(StretchError::TooLong { found }),
        }
    }

    /// Whether nothing will be added to it, unless another broadcast comes.
    #[must_use]
    pub const fn is_closed(&self) -> bool {
        self.closed
    }

    /// Whether nothing will be added to it, whatever comes.
    #[must_use]
    pub const fn is_final(&self) -> bool {
        self.is_final
    }

    /// The renditions at its end, which manifests offer.
    #[must_use]
    pub fn renditions(&self) -> Vec<RenditionName> {
        let last = self.sections.last();
        let tracks = last.into_iter().flat_map(|section| &section.chapter.tracks);
        tracks.map(|track| track.name.clone()).collect()
    }

    /// How long it is.
    #[must_use]
    pub fn length(&self) -> Duration {
        Duration::from_millis(self.length_ms())
    }

    pub(super) fn length_ms(&self) -> u64 {
        let lengths = self.sections.iter().map(Section::length_ms);
        lengths.fold(0, u64::saturating_add)
    }

    /// Its runs of segments, in order.
    pub fn runs(&self) -> impl Iterator<Item = Run<'_>> {
        self.sections.iter().map(|section| {
            let begins = i64::try_from(section.begins_ms()).unwrap_or(i64::MAX);
            Run {
                period: section.chapter.period,
                numbers: section.numbers.clone(),
                begins: Ticks::new(begins).at(Timescale::MILLIS),
                chapter: section.chapter,
            }
        })
    }
}

/// Consecutive segments of one period, each of which some rendition has.
#[derive(Clone, Debug)]
pub struct Run<'a> {
    /// The period whose init segments they need.
    pub period: PeriodId,
    /// Their numbers.
    pub numbers: Range<u64>,
    /// Where they begin.
    pub begins: MediaTime,
    chapter: &'a Chapter,
}

impl Run<'_> {
    /// Whether `rendition` is in it at all.
    #[must_use]
    pub fn has(&self, rendition: &RenditionName) -> bool {
        self.chapter
            .tracks
            .iter()
            .any(|track| track.name == *rendition)
    }

    /// Whether segment `number` of `rendition` is stored.
    #[must_use]
    pub fn has_segment(&self, rendition: &RenditionName, number: u64) -> bool {
        let mut tracks = self.chapter.tracks.iter();
        tracks.any(|track| track.name == *rendition && track.stored.contains(number))
    }
}

impl<'a> Section<'a> {
    pub(super) const fn count(&self) -> u64 {
        self.numbers.end - self.numbers.start
    }

    /// What it adds to a manifest, about.
    fn manifest_bytes(&self) -> u64 {
        let named = match self.is_on_grid() {
            true => 0,
            false => self.count() * NAMED_BYTES,
        };
        SECTION_BYTES + self.chapter.tracks.len() as u64 * (RENDITION_BYTES + named)
    }

    pub(super) fn track(&self, name: &RenditionName) -> Option<&'a Track> {
        self.chapter.tracks.iter().find(|track| track.name == *name)
    }

    /// The last number.
    pub(super) const fn last(&self) -> u64 {
        self.numbers.end.saturating_sub(1)
    }

    /// Whether every segment but the last lies where the grid would have it.
    pub(super) fn is_on_grid(&self) -> bool {
        let but_last = self.numbers.start..self.last();
        let odd = |track: &Track| track.odd.range(but_last.clone()).next().is_some();
        !self.tracks.iter().copied().any(odd) && self.show.independent
    }

    /// Itself, taken apart where a rendition begins or ceases to be stored: each piece is about those that have all of
    /// its segments.
    pub(super) fn pieces(&self) -> Vec<Self> {
        let stored = self.tracks.iter().flat_map(|track| track.stored.as_slice());
        let bounds = stored.flat_map(|range| [range.start, range.end]);
        let within = |number: &u64| self.numbers.start < *number && *number < self.numbers.end;
        let mut bounds: Vec<_> = bounds.filter(within).collect();
        bounds.extend([self.numbers.start, self.numbers.end]);
        bounds.sort_unstable();
        bounds.dedup();
        let pairs = bounds.iter().zip(bounds.iter().skip(1));
        let pieces = pairs.map(|(start, end)| Self {
            tracks: self.having(*start),
            numbers: *start..*end,
            ..*self
        });
        pieces.collect()
    }

    /// The renditions that have segment `number`.
    fn having(&self, number: u64) -> Vec<&'a Track> {
        let all = self.tracks.iter().copied();
        all.filter(|track| track.stored.contains(number)).collect()
    }
}

/// Adds what `show` has of the numbers `asked`, as long as it is not far too much.
fn add<'a>(
    sections: &mut Vec<Section<'a>>,
    show: &'a Show,
    asked: &Range<u64>,
) -> Result<(), StretchError> {
    for (index, chapter) in show.chapters.iter().enumerate() {
        let numbers = show.numbers_of(index);
        let numbers = numbers.start.max(asked.start)..numbers.end.min(asked.end);
        let sets = chapter.tracks.iter().map(|track| &track.stored);
        for range in Ranges::union(sets, &numbers).as_slice() {
            if sections.len() as u64 >= MAX_STRETCH_SEGMENTS {
                let found = sections.iter().map(Section::count);
                let found = found.fold(1, u64::saturating_add);
                return Err(StretchError::TooLong { found });
            }
            sections.push(Section {
                show,
                chapter,
                tracks: chapter.tracks.iter().collect(),
                numbers: range.clone(),
            });
        }
    }
    Ok(())
}

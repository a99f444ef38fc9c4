//! What is kept of a broadcast: a small record from which every manifest of any stretch of it follows.
//!
//! Enters: what of a broadcast is stored, segment by segment; or the record of it as text
//! Leaves: [`Show`]; playlists and MPDs of a [`Stretch`] of it
//! Never:  a segment that is not stored; I/O, clocks
//! Time:   a segment's place follows from its number, the frame and the grid; what does not lie there is told
//! Spec:   [HLS] §4.4.3.5, [DASH] §5.3; docs/recordings.md
//!
//! Segments are cut on the grid, so a range of numbers says where thousands of them begin and end. A record of
//! a day has the size of one of a minute.

mod dash;
mod gone;
mod hls;
mod ranges;
mod record;
mod recorder;
mod stretch;

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::ops::Range;
use std::time::Duration;

pub use ranges::Ranges;
pub use record::{MAX_RECORD_BYTES, RecordError};
pub use recorder::Recorder;
pub use stretch::{MAX_STRETCH_SEGMENTS, Run, Stretch, StretchError};

use crate::id::{PeriodId, RenditionName, SegmentNumber};
use crate::media::MediaKind;
use crate::time::{FrameRate, Grid, MediaTime, Span, Ticks, Timescale, WallTime};

/// What is kept of one broadcast.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Show {
    first: SegmentNumber,
    segment_ms: NonZeroU32,
    target_duration_s: u32,
    /// Whether every segment begins with a key frame.
    independent: bool,
    /// What is offered: `from` moves on as the oldest segments go, `end` as new ones are stored.
    offered: Range<u64>,
    /// Every number below is deleted; those from here to what is offered are about to be.
    swept: u64,
    ended: bool,
    /// How far back viewers of the live stream can go, in milliseconds; nothing for no further than the list.
    reach_ms: u64,
    /// Those of which anything is left.
    chapters: Vec<Chapter>,
}

/// A stretch of a show in which nothing changes: a period.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Chapter {
    period: PeriodId,
    first: u64,
    tracks: Vec<Track>,
}

/// One rendition in one chapter.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Track {
    name: RenditionName,
    kind: MediaKind,
    codecs: String,
    timescale: Timescale,
    /// The length of a frame in seconds, as a fraction.
    frame: (NonZeroU32, NonZeroU32),
    /// Width and height, and the shape of a pixel.
    picture: Option<Picture>,
    frame_rate: Option<FrameRate>,
    /// Sample rate and channels.
    sound: Option<(u32, u8)>,
    peak_bps: u64,
    average_bps: u64,
    stored: Ranges,
    /// Segments that do not lie where the grid would have them: the last one, and what a source cuts.
    odd: BTreeMap<u64, (Ticks, Span)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Picture {
    width: u32,
    height: u32,
    sar: (u32, u32),
}

impl Show {
    /// The number of its first segment, which names it.
    #[must_use]
    pub const fn first(&self) -> SegmentNumber {
        self.first
    }

    /// Whether nothing will be added.
    #[must_use]
    pub const fn is_ended(&self) -> bool {
        self.ended
    }

    /// The numbers of the segments that manifests may name.
    #[must_use]
    pub fn offered(&self) -> Range<u64> {
        self.offered.clone()
    }

    /// The numbers that are offered no more, and may not be deleted yet.
    #[must_use]
    pub const fn unswept(&self) -> Range<u64> {
        self.swept..self.offered.start
    }

    /// How far back viewers of the live stream can go; `None` for no further than the list.
    #[must_use]
    pub fn reach(&self) -> Option<Duration> {
        (self.reach_ms > 0).then(|| Duration::from_millis(self.reach_ms))
    }

    /// The length of a segment on the grid, in milliseconds.
    #[must_use]
    pub const fn segment_ms(&self) -> u64 {
        self.segment_ms.get() as u64
    }

    /// EXT-X-TARGETDURATION of its playlists.
    #[must_use]
    pub const fn target_duration(&self) -> Duration {
        Duration::from_secs(self.target_duration_s as u64)
    }

    /// When what is offered begins.
    #[must_use]
    pub fn begins(&self) -> WallTime {
        self.time_of(self.offered.start)
    }

    /// When what is stored of it ends.
    #[must_use]
    pub fn ends(&self) -> WallTime {
        let last = self.offered.end.saturating_sub(1);
        let ends = self
            .tracks_at(last)
            .map(|track| track.ends(self.grid(), last));
        let latest = ends.max_by(|a, b| a.cmp_instant(*b));
        latest.map_or_else(|| self.time_of(self.offered.end), MediaTime::to_wall)
    }

    /// The first number that begins at or after `time`.
    #[must_use]
    pub fn number_from(&self, time: WallTime) -> u64 {
        let mut numbers = self.offered.clone();
        // Numbers rise with time, on the grid and off it.
        while numbers.start < numbers.end {
            let middle = numbers.start + (numbers.end - numbers.start) / 2;
            if self.time_of(middle) < time {
                numbers.start = middle + 1;
            } else {
                numbers.end = middle;
            }
        }
        numbers.start
    }

    /// The first number that begins no longer than `reach` before its end.
    #[must_use]
    pub fn number_within(&self, reach: Duration) -> u64 {
        self.number_from(self.ends().before(reach))
    }

    /// The renditions of any period, each once.
    #[must_use]
    pub fn renditions(&self) -> Vec<RenditionName> {
        let mut names = Vec::new();
        for track in self.chapters.iter().flat_map(|chapter| &chapter.tracks) {
            if !names.contains(&track.name) {
                names.push(track.name.clone());
            }
        }
        names
    }

    /// The renditions of the last period.
    pub fn last_renditions(&self) -> impl Iterator<Item = &RenditionName> {
        let last = self.chapters.last().into_iter();
        last.flat_map(|chapter| chapter.tracks.iter().map(|track| &track.name))
    }

    /// The init segments of all periods.
    pub fn init_segments(&self) -> impl Iterator<Item = (&RenditionName, PeriodId)> {
        self.chapters.iter().flat_map(|chapter| {
            let tracks = chapter.tracks.iter();
            tracks.map(|track| (&track.name, chapter.period))
        })
    }

    /// Whether a segment is stored, as far as it is known.
    #[must_use]
    pub fn has(&self, rendition: &RenditionName, number: u64) -> bool {
        let mut tracks = self.tracks_at(number);
        tracks.any(|track| track.name == *rendition && track.stored.contains(number))
    }

    /// The segments among `numbers` that are stored, and of which rendition.
    #[must_use]
    pub fn segments_in(&self, numbers: Range<u64>) -> Vec<(RenditionName, u64)> {
        let mut found = Vec::new();
        for number in numbers {
            let tracks = self.tracks_at(number);
            let there = tracks.filter(|track| track.stored.contains(number));
            found.extend(there.map(|track| (track.name.clone(), number)));
        }
        found
    }

    /// Offers nothing below `number` any more. Its periods stay, until nothing of them is left.
    pub fn withdraw_below(&mut self, number: u64) {
        let from = number.clamp(self.offered.start, self.offered.end);
        self.offered.start = from;
        for track in self.chapters.iter_mut().flat_map(|c| &mut c.tracks) {
            track.stored.remove_below(from);
            track.odd = track.odd.split_off(&from);
        }
    }

    /// The init segments that nothing from `number` on needs.
    #[must_use]
    pub fn inits_below(&self, number: u64) -> Vec<(RenditionName, PeriodId)> {
        let (gone, left) = self.chapters.split_at(self.count_below(number));
        let is_needed = |period| left.iter().any(|other| other.period == period);
        let gone = gone.iter().filter(|chapter| !is_needed(chapter.period));
        let tracks = gone.flat_map(|c| c.tracks.iter().map(|t| (t.name.clone(), c.period)));
        tracks.collect()
    }

    /// How many periods end at or before `number`.
    fn count_below(&self, number: u64) -> usize {
        let next = self.chapters.iter().skip(1);
        next.take_while(|next| next.first <= number).count()
    }

    /// Takes note that everything below `number` is deleted, the init segments too that only that needed.
    pub fn sweep_below(&mut self, number: u64) {
        self.skip_below(number);
        self.chapters.drain(..self.count_below(self.swept));
    }

    /// Takes note that no segment is left below `number`.
    pub fn skip_below(&mut self, number: u64) {
        self.swept = number.clamp(self.swept, self.offered.start);
    }

    /// Takes note that nothing will be added: all that is stored is offered.
    pub fn end(&mut self) {
        self.offer_all();
        self.ended = true;
    }

    /// Offers all that is stored, whether every rendition has it or not.
    pub fn offer_all(&mut self) {
        let lasts = self.chapters.iter().flat_map(|c| &c.tracks);
        let end = lasts.filter_map(|track| track.stored.end()).max();
        let end = end.unwrap_or(self.offered.end);
        self.offered.end = end.max(self.offered.start);
    }

    /// Takes note that a segment is stored beyond what the record knew: the record is written behind. `place` is
    /// where it lies and how long it is, by its own word. Where the source cuts, a segment without it is left out:
    /// the grid does not say. So is what a record has no room for, or could not say.
    pub fn adopt(
        &mut self,
        rendition: &RenditionName,
        number: SegmentNumber,
        place: Option<(Ticks, Span)>,
    ) {
        let (number, grid, on_grid) = (number.get(), self.grid(), self.independent);
        let is_sayable = number < record::number_limit(self.segment_ms);
        if number < self.offered.start || !is_sayable || (place.is_none() && !on_grid) {
            return;
        }
        let found = self.chapters.iter_mut().rev().find(|c| c.first <= number);
        let track = found.and_then(|c| c.tracks.iter_mut().find(|t| t.name == *rendition));
        let Some(track) = track else {
            return;
        };
        let odd = place.filter(|place| !on_grid || track.place(grid, number) != *place);
        if let Some(odd) = odd {
            let has_room = track.odd.len() < record::MAX_ODD || track.odd.contains_key(&number);
            if !record::is_place(odd, track.timescale) || !(has_room || on_grid) {
                return;
            }
            if track.stored.insert_within(number, record::MAX_RANGES) && has_room {
                track.odd.insert(number, odd);
            }
            return;
        }
        track.stored.insert_within(number, record::MAX_RANGES);
    }

    /// Whether segments begin where the grid says; if not, where the source does.
    #[must_use]
    pub const fn is_on_grid(&self) -> bool {
        self.independent
    }

    /// When the last segment of any rendition ends, offered or not.
    #[must_use]
    pub fn latest(&self) -> WallTime {
        let tracks = self.chapters.iter().flat_map(|chapter| &chapter.tracks);
        let ends = tracks.filter_map(|track| {
            let last = track.stored.end()?.checked_sub(1)?;
            Some(track.ends(self.grid(), last).to_wall())
        });
        ends.max()
            .map_or_else(|| self.ends(), |end| end.max(self.ends()))
    }

    /// The number of the segment with which what is offered last begins its period.
    #[must_use]
    pub fn last_period_first(&self) -> u64 {
        let last = self.chapters.last();
        last.map_or_else(|| self.first.get(), |chapter| chapter.first)
    }

    /// The first number from `number` on of which any rendition is stored.
    #[must_use]
    pub fn next_stored(&self, number: u64) -> Option<u64> {
        let tracks = self.chapters.iter().flat_map(|chapter| &chapter.tracks);
        let nexts = tracks.filter_map(|track| track.stored.next_from(number));
        nexts.min()
    }

    const fn grid(&self) -> Grid {
        Grid::new(self.segment_ms)
    }

    fn chapter_at(&self, number: u64) -> Option<&Chapter> {
        let earlier = self.chapters.iter().rev();
        earlier.into_iter().find(|chapter| chapter.first <= number)
    }

    fn tracks_at(&self, number: u64) -> impl Iterator<Item = &Track> {
        let chapter = self.chapter_at(number).into_iter();
        chapter.flat_map(|chapter| &chapter.tracks)
    }

    /// When segment `number` begins: by the first rendition's word, or the grid's.
    fn time_of(&self, number: u64) -> WallTime {
        let odd = self.tracks_at(number).find_map(|track| {
            let (start, _) = track.odd.get(&number)?;
            Some(start.at(track.timescale).to_wall())
        });
        odd.unwrap_or_else(|| {
            let micros = u64::from(self.segment_ms.get()).saturating_mul(1_000);
            let micros = number.saturating_mul(micros);
            WallTime::from_micros(i64::try_from(micros).unwrap_or(i64::MAX))
        })
    }

    /// The numbers of `chapter`.
    fn numbers_of(&self, index: usize) -> Range<u64> {
        let first = self.chapters.get(index).map_or(u64::MAX, |c| c.first);
        let next = self.chapters.get(index + 1).map_or(u64::MAX, |c| c.first);
        first.max(self.offered.start)..next.min(self.offered.end)
    }
}

impl Track {
    /// Where segment `number` begins, and how long it is.
    fn place(&self, grid: Grid, number: u64) -> (Ticks, Span) {
        if let Some(odd) = self.odd.get(&number) {
            return *odd;
        }
        let start = self.first_frame(grid, number);
        let end = self.first_frame(grid, number.saturating_add(1));
        (start, end.since(start).unwrap_or_default())
    }

    fn ends(&self, grid: Grid, number: u64) -> MediaTime {
        let (start, length) = self.place(grid, number);
        let end = start.checked_add(length).unwrap_or(start);
        end.at(self.timescale)
    }

    /// The first frame at or after the grid's line: frames are counted from the epoch.
    fn first_frame(&self, grid: Grid, number: u64) -> Ticks {
        let line = grid.start_of(SegmentNumber::new(number), self.timescale);
        let (num, den) = (
            i128::from(self.frame.0.get()),
            i128::from(self.frame.1.get()),
        );
        let length = num * i128::from(self.timescale.get());
        let count = (i128::from(line.get()) * den + length - 1).div_euclid(length);
        Ticks::new(i64::try_from((count * length).div_euclid(den)).unwrap_or(i64::MAX))
    }
}

#[cfg(test)]
mod tests;

//! The record of a show as text, and back.
//!
//! Enters: a [`Show`]; or bytes from a store that anyone may have written to
//! Leaves: JSON; or a [`Show`] that is consistent, or one sentence that says why there is none
//! Never:  a number, a name or a length that was not checked
//! Spec:   docs/recordings.md

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU32;
use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::{Chapter, Picture, Ranges, Show, Track};
use crate::id::{PeriodId, SegmentNumber};
use crate::media::MediaKind;
use crate::package::config::{MAX_SEGMENT_MS, MIN_SEGMENT_MS};
use crate::time::{FrameRate, Span, Ticks, Timescale};

/// What says that a text is a record of ours.
const FORMAT: &str = "headwater-show";

/// The version that is written, and the only one that is read.
const VERSION: u32 = 1;

/// The longest record that is read: [`MAX_ODD`] segments of ten renditions.
pub const MAX_RECORD_BYTES: usize = 16 * 1024 * 1024;

/// The most periods of a show.
pub(super) const MAX_CHAPTERS: usize = 256;

/// The most renditions of a period.
const MAX_TRACKS: usize = 64;

/// The most ranges of stored segments of a rendition in a period: each gap is one.
pub(super) const MAX_RANGES: usize = 4_096;

/// The most segments off the grid of a rendition in a period: half a day of what a source cuts.
pub(super) const MAX_ODD: usize = 20_000;

/// The longest codec string.
const MAX_CODECS_BYTES: usize = 64;

/// The largest segment number.
const MAX_NUMBER: u64 = 1 << 40;

/// The latest instant that a record may speak of, in seconds since 1970: the end of the year 9999.
const MAX_SECONDS: u64 = 253_402_300_799;

/// The finest timescale: tenths of microseconds. [`MAX_SECONDS`] of it are far from what 64 bits hold.
const MAX_TIMESCALE: u32 = 10_000_000;

/// The longest that a segment or a frame may be, in seconds.
const MAX_LENGTH_SECONDS: u32 = 3_600;

/// The furthest that viewers of a live stream can go back: two days.
const MAX_REACH_MS: u64 = 48 * 3_600 * 1_000;

/// The most numbers that are offered no more and may not be deleted yet: more than a store that was away for a
/// week leaves.
const MAX_UNSWEPT: u64 = 1 << 20;

/// Why a text is no record of a show.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RecordError {
    /// More than [`MAX_RECORD_BYTES`].
    #[error("it has {found} bytes, more than any record")]
    TooLong {
        /// Bytes found.
        found: usize,
    },
    /// Not JSON, or not with the fields of a record.
    #[error("it is no record of a show: {reason}")]
    Malformed {
        /// What the reader said.
        reason: String,
    },
    /// JSON of something else.
    #[error("it is the work of another program: its format is {found:?}")]
    Foreign {
        /// What it says of itself, cut to 64 characters.
        found: String,
    },
    /// A version of a later release.
    #[error("it has version {found}, of a later release; this one reads {VERSION}")]
    Version {
        /// Version found.
        found: u32,
    },
    /// A value that cannot be.
    #[error("its {field} cannot be")]
    Impossible {
        /// Which.
        field: &'static str,
    },
}

#[derive(Serialize, Deserialize)]
struct Head {
    format: String,
    version: u32,
}

#[derive(Serialize, Deserialize)]
struct RawShow {
    #[serde(flatten)]
    head: Head,
    first: u64,
    from: u64,
    end: u64,
    swept: u64,
    begins: String,
    ends: String,
    ended: bool,
    #[serde(skip_serializing_if = "is_zero", default)]
    dvr_ms: u64,
    segment_ms: NonZeroU32,
    target_duration: u32,
    independent: bool,
    periods: Vec<RawChapter>,
}

#[derive(Serialize, Deserialize)]
struct RawChapter {
    period: u64,
    first: u64,
    renditions: Vec<RawTrack>,
}

#[derive(Serialize, Deserialize)]
struct RawTrack {
    name: String,
    video: bool,
    codecs: String,
    timescale: u32,
    frame: (NonZeroU32, NonZeroU32),
    #[serde(skip_serializing_if = "Option::is_none", default)]
    size: Option<(u32, u32)>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    sar: Option<(u32, u32)>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    frame_rate: Option<(u32, u32)>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    sample_rate: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    channels: Option<u8>,
    peak_bps: u64,
    average_bps: u64,
    stored: Vec<(u64, u64)>,
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    odd: Vec<(u64, i64, u64)>,
}

impl Show {
    /// The record as text: JSON in one line.
    #[must_use]
    pub fn to_record(&self) -> String {
        let raw = RawShow {
            head: Head {
                format: FORMAT.to_owned(),
                version: VERSION,
            },
            first: self.first.get(),
            from: self.offered.start,
            end: self.offered.end,
            swept: self.swept,
            begins: self.begins().to_string(),
            ends: self.ends().to_string(),
            ended: self.ended,
            dvr_ms: self.reach_ms,
            segment_ms: self.segment_ms,
            target_duration: self.target_duration_s,
            independent: self.independent,
            periods: self.chapters.iter().map(Chapter::to_raw).collect(),
        };
        // There are no maps with keys that are not strings, which is all that can fail.
        let mut text = serde_json::to_string(&raw).unwrap_or_default();
        text.push('\n');
        text
    }

    /// Reads a record.
    ///
    /// # Errors
    ///
    /// [`RecordError`]: it is none, or none that can be.
    pub fn from_record(text: &[u8]) -> Result<Self, RecordError> {
        if text.len() > MAX_RECORD_BYTES {
            return Err(RecordError::TooLong { found: text.len() });
        }
        let malformed = |error: serde_json::Error| RecordError::Malformed {
            reason: error.to_string(),
        };
        let head: Head = serde_json::from_slice(text).map_err(malformed)?;
        if head.format != FORMAT {
            let found = head.format.chars().take(64).collect();
            return Err(RecordError::Foreign { found });
        }
        if head.version != VERSION {
            let found = head.version;
            return Err(RecordError::Version { found });
        }
        let raw: RawShow = serde_json::from_slice(text).map_err(malformed)?;
        raw.check()
    }
}

impl RawShow {
    fn check(self) -> Result<Show, RecordError> {
        require("segment_ms", {
            (MIN_SEGMENT_MS..=MAX_SEGMENT_MS).contains(&self.segment_ms.get())
        })?;
        let last = number_limit(self.segment_ms);
        require("end", self.end <= last)?;
        require("from", self.first <= self.from && self.from <= self.end)?;
        require("swept", {
            (self.first..=self.from).contains(&self.swept) && self.from - self.swept <= MAX_UNSWEPT
        })?;
        require(
            "target_duration",
            (1..=3_600).contains(&self.target_duration),
        )?;
        require("dvr_ms", self.dvr_ms <= MAX_REACH_MS)?;
        require("periods", (1..=MAX_CHAPTERS).contains(&self.periods.len()))?;
        let firsts = self.periods.iter().map(|period| period.first);
        let mut pairs = firsts.clone().zip(firsts.skip(1));
        require("periods", pairs.all(|(before, after)| before < after))?;
        let names = self.periods.iter().flat_map(|period| &period.renditions);
        let names: BTreeSet<_> = names.map(|rendition| rendition.name.as_str()).collect();
        require("renditions", names.len() <= MAX_TRACKS)?;
        let chapters = self.periods.into_iter().map(|period| period.check(last));
        Ok(Show {
            first: SegmentNumber::new(self.first),
            segment_ms: self.segment_ms,
            target_duration_s: self.target_duration,
            independent: self.independent,
            offered: self.from..self.end,
            swept: self.swept,
            ended: self.ended,
            reach_ms: self.dvr_ms,
            chapters: chapters.collect::<Result<_, _>>()?,
        })
    }
}

impl Chapter {
    fn to_raw(&self) -> RawChapter {
        RawChapter {
            period: self.period.get(),
            first: self.first,
            renditions: self.tracks.iter().map(Track::to_raw).collect(),
        }
    }
}

impl RawChapter {
    fn check(self, last: u64) -> Result<Chapter, RecordError> {
        require(
            "renditions",
            (1..=MAX_TRACKS).contains(&self.renditions.len()),
        )?;
        require("first", self.first <= last)?;
        let tracks = self.renditions.into_iter().map(|track| track.check(last));
        let tracks: Vec<_> = tracks.collect::<Result<_, _>>()?;
        let mut names: Vec<_> = tracks.iter().map(|track| &track.name).collect();
        names.sort();
        names.dedup();
        require("renditions", names.len() == tracks.len())?;
        Ok(Chapter {
            period: PeriodId::new(self.period),
            first: self.first,
            tracks,
        })
    }
}

impl Track {
    fn to_raw(&self) -> RawTrack {
        let odd = |(number, (start, length)): (&u64, &(Ticks, Span))| {
            (*number, start.get(), length.get())
        };
        RawTrack {
            name: self.name.to_string(),
            video: self.kind == MediaKind::Video,
            codecs: self.codecs.clone(),
            timescale: self.timescale.get(),
            frame: self.frame,
            size: self.picture.map(|picture| (picture.width, picture.height)),
            sar: self.picture.map(|picture| picture.sar),
            frame_rate: self.frame_rate.map(|rate| (rate.num(), rate.den())),
            sample_rate: self.sound.map(|(rate, _)| rate),
            channels: self.sound.map(|(_, channels)| channels),
            peak_bps: self.peak_bps,
            average_bps: self.average_bps,
            stored: {
                let ranges = self.stored.as_slice().iter();
                ranges.map(|range| (range.start, range.end)).collect()
            },
            odd: self.odd.iter().map(odd).collect(),
        }
    }
}

impl RawTrack {
    fn check(self, last: u64) -> Result<Track, RecordError> {
        let impossible = |field| RecordError::Impossible { field };
        let printable = |c: char| c.is_ascii_graphic() && !matches!(c, '"' | ',');
        require("codecs", {
            (1..=MAX_CODECS_BYTES).contains(&self.codecs.len())
                && self.codecs.chars().all(printable)
        })?;
        require("stored", self.stored.len() <= MAX_RANGES)?;
        require("odd", self.odd.len() <= MAX_ODD)?;
        let ranges: Vec<Range<u64>> = self.stored.iter().map(|range| range.0..range.1).collect();
        let stored = Ranges::new(ranges).filter(|ranges| ranges.end() <= Some(last));
        let frame_rate = match self.frame_rate {
            Some((num, den)) => {
                Some(FrameRate::new(num, den).ok_or_else(|| impossible("frame_rate"))?)
            }
            None => None,
        };
        require("timescale", (1..=MAX_TIMESCALE).contains(&self.timescale))?;
        require("frame", {
            self.frame.0.get() / self.frame.1.get() < MAX_LENGTH_SECONDS
        })?;
        let timescale = Timescale::new(self.timescale).ok_or_else(|| impossible("timescale"))?;
        require("odd", {
            let mut odd = self.odd.iter();
            odd.all(|(number, start, length)| {
                let place = (Ticks::new(*start), Span::new(*length));
                *number < last && is_place(place, timescale)
            })
        })?;
        let odd = self.odd.into_iter();
        let odd: BTreeMap<_, _> = odd
            .map(|(number, start, length)| (number, (Ticks::new(start), Span::new(length))))
            .collect();
        let sar = self.sar.unwrap_or((1, 1));
        Ok(Track {
            name: self.name.parse().map_err(|_| impossible("name"))?,
            kind: if self.video {
                MediaKind::Video
            } else {
                MediaKind::Audio
            },
            codecs: self.codecs,
            timescale,
            frame: self.frame,
            picture: self
                .size
                .map(|(width, height)| Picture { width, height, sar }),
            frame_rate,
            sound: self.sample_rate.zip(self.channels),
            peak_bps: self.peak_bps,
            average_bps: self.average_bps,
            stored: stored.ok_or_else(|| impossible("stored"))?,
            odd,
        })
    }
}

/// What every number of a record is below, where segments are this long.
pub(super) fn number_limit(segment_ms: NonZeroU32) -> u64 {
    let last = MAX_SECONDS * 1_000 / u64::from(segment_ms.get());
    MAX_NUMBER.min(last)
}

/// Whether a record may say of a segment that it lies there.
pub(super) fn is_place((start, length): (Ticks, Span), scale: Timescale) -> bool {
    let scale = u64::from(scale.get());
    let start = u64::try_from(start.get()).unwrap_or(u64::MAX);
    start <= MAX_SECONDS * scale && length.get() <= u64::from(MAX_LENGTH_SECONDS) * scale
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde gives a reference")]
const fn is_zero(value: &u64) -> bool {
    *value == 0
}

const fn require(field: &'static str, holds: bool) -> Result<(), RecordError> {
    if holds {
        Ok(())
    } else {
        Err(RecordError::Impossible { field })
    }
}

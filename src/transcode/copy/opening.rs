//! Watches the first GOP of a source until it is known what to promise of its segments.
//!
//! Enters: tracks and samples as they come
//! Leaves: which track leads, the longest segment, what the renditions are; all samples, in order
//! Never:  holds more than [`MAX_BYTES`] or [`MAX_SAMPLES`]
//! Time:   nanoseconds from the Unix epoch
//! Spec:   [HLS] §4.4.3.1

use super::{AUDIO_NAME, MS, Tracks, VIDEO_NAME};
use crate::media::{CodecConfig, MediaKind, Rendition, Sample, TrackInfo};
use crate::time::{FrameRate, Grid, Ticks, Timescale};
use crate::transcode::ladder::estimate;

/// How far below its target a segment may end: stamps are rounded to milliseconds and slewed a little.
pub(super) const TOLERANCE: i64 = 10 * MS;
/// How long the first segment is watched for its end. Who sends no key frame for longer gets the longest
/// segments there are, rather than a start that is later still.
const MAX_WATCH: i64 = 6_000 * MS;
/// How long announced pictures are waited for before sound is published alone: relays join between key
/// frames, which lie up to ten seconds apart.
const MAX_PICTURE_WAIT: i64 = 12_000 * MS;
/// How long another track is waited for.
const MAX_TRACK_WAIT: i64 = 1_000 * MS;
/// The most that is held: six seconds of 40 Mbit/s.
const MAX_BYTES: usize = 32 << 20;
/// The most samples that are held: six seconds of any usual pictures and sound, many times over.
const MAX_SAMPLES: usize = 8_192;
/// What EXT-X-TARGETDURATION may come to, in seconds.
const TARGET_SECONDS: (i64, i64) = (2, 12);
/// How far above a whole second a segment may end and still be rounded down to it, with room for one sample
/// of sound; and how much of that a first segment may need.
pub(super) const ROUNDED_DOWN: i64 = 450 * MS;
const USED_AT_FIRST: i64 = 350 * MS;
/// How far a picture may lie from an even pace, in 90 kHz ticks: stamps are whole milliseconds.
const UNEVEN_TICKS: u64 = 180;

/// What is fixed when a broadcast opens.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    /// The renditions, the one that leads first.
    pub(super) renditions: Vec<Rendition>,
    pub(super) tracks: Tracks,
    /// The longest segment, in milliseconds.
    pub(super) longest_ms: u32,
}

/// A broadcast that can begin.
pub(super) struct Opened {
    pub(super) plan: Plan,
    pub(super) samples: Vec<(MediaKind, Sample)>,
}

#[derive(Debug)]
pub(super) struct Opening {
    target: i64,
    samples: Vec<(MediaKind, Sample)>,
    bytes: usize,
    /// The first and the last of everything.
    first: Option<i64>,
    last: i64,
    /// Key frames of the pictures, from the first.
    keys: Vec<i64>,
    /// The last picture after the first key frame.
    shown: Option<i64>,
    has_sound: bool,
}

impl Opening {
    pub(super) fn new(grid: Grid) -> Self {
        Self {
            target: i64::from(grid.segment_ms()) * MS,
            samples: Vec::new(),
            bytes: 0,
            first: None,
            last: 0,
            keys: Vec::new(),
            shown: None,
            has_sound: false,
        }
    }

    pub(super) fn push(&mut self, kind: MediaKind, sample: Sample, at: i64) {
        match kind {
            MediaKind::Video => {
                if sample.keyframe {
                    self.keys.push(at);
                }
                if self.keys.is_empty() {
                    // Nothing can be made of it, and much of it may come.
                    return;
                }
                self.shown = Some(at);
            }
            MediaKind::Audio => self.has_sound = true,
        }
        self.first.get_or_insert(at);
        self.last = self.last.max(at);
        self.bytes = self.bytes.saturating_add(sample.data.len());
        self.samples.push((kind, sample));
    }

    pub(super) fn is_ready(&self, tracks: &Tracks) -> bool {
        if self.bytes >= MAX_BYTES || self.samples.len() >= MAX_SAMPLES {
            return true;
        }
        let watched = self
            .first
            .map_or(0, |first| self.last.saturating_sub(first));
        let (Some(key), Some(shown)) = (self.keys.first(), self.shown) else {
            let limit = if tracks.video.is_some() {
                MAX_PICTURE_WAIT
            } else {
                MAX_TRACK_WAIT
            };
            return watched >= limit;
        };
        let has_sound = self.has_sound || watched >= MAX_TRACK_WAIT;
        let is_known = self.first_end().is_some() || shown.saturating_sub(*key) >= MAX_WATCH;
        has_sound && is_known
    }

    /// What to begin with; `None` if nothing has come.
    pub(super) fn open(self, tracks: &Tracks) -> Option<Opened> {
        let has_pictures = !self.keys.is_empty();
        let video = tracks.video.clone().filter(|_| has_pictures);
        let audio = tracks.audio.clone().filter(|_| self.has_sound);
        let mut renditions = Vec::new();
        for info in video.iter().chain(&audio) {
            renditions.push(self.rendition(info)?);
        }
        let plan = Plan {
            longest_ms: longest_ms(self.longest_segment(has_pictures), self.target),
            renditions,
            tracks: Tracks { video, audio },
        };
        (!plan.renditions.is_empty()).then_some(Opened {
            plan,
            samples: self.samples,
        })
    }

    /// Where the first segment of pictures ends, once that is known.
    fn first_end(&self) -> Option<i64> {
        let first = *self.keys.first()?;
        let ends = |key: &&i64| key.saturating_sub(first) + TOLERANCE >= self.target;
        self.keys.iter().find(ends).copied()
    }

    /// The longest that a segment will be if key frames go on as they began.
    fn longest_segment(&self, has_pictures: bool) -> i64 {
        if !has_pictures {
            return self.target;
        }
        let (Some(first), Some(end)) = (self.keys.first(), self.first_end()) else {
            return i64::MAX;
        };
        let gops = self.keys.windows(2).map(|pair| pair[1] - pair[0]);
        let (least, most) = gops.fold((i64::MAX, 0), |(least, most), gop| {
            (least.min(gop), most.max(gop))
        });
        let length = end - first;
        // Irregular ones may just miss the target, and then take as long again.
        let is_regular = most - least <= 2 * TOLERANCE;
        if is_regular {
            length
        } else {
            length.max(self.target + most)
        }
    }

    fn rendition(&self, info: &TrackInfo) -> Option<Rendition> {
        let kind = info.codec.kind();
        let of_kind = || {
            let samples = self.samples.iter().filter(move |(of, _)| *of == kind);
            samples.map(|(_, sample)| sample)
        };
        let is_video = kind == MediaKind::Video;
        let name = if is_video { VIDEO_NAME } else { AUDIO_NAME };
        let rate = is_video.then(|| constant_rate(&info.codec, of_kind()));
        Some(Rendition {
            name: name.parse().ok()?,
            timescale: info.timescale,
            codec: info.codec.clone(),
            frame_rate: rate.flatten(),
            target_bps: bits_per_second(of_kind(), info.timescale),
        })
    }
}

/// EXT-X-TARGETDURATION in milliseconds for segments of `length`, which may exceed it a little: players are
/// told whole seconds, and compare lengths rounded to the nearest.
fn longest_ms(length: i64, target: i64) -> u32 {
    const SECOND: i64 = 1_000 * MS;
    let (least, most) = TARGET_SECONDS;
    let most = most.max(target.saturating_add(SECOND - 1) / SECOND);
    let seconds = length
        .saturating_sub(USED_AT_FIRST)
        .saturating_add(SECOND - 1)
        / SECOND;
    let longest = seconds.clamp(least, most) * SECOND;
    u32::try_from(longest / MS).unwrap_or(u32::MAX)
}

/// The frame rate of pictures that keep one; `None` of those that do not.
fn constant_rate<'a>(
    codec: &CodecConfig,
    samples: impl Iterator<Item = &'a Sample>,
) -> Option<FrameRate> {
    let (decoded, shown): (Vec<Ticks>, Vec<Ticks>) =
        samples.map(|sample| (sample.dts, sample.pts)).unzip();
    let rate = estimate(declared_rate(codec), &shown)?;
    let period = rate
        .slot_start(1, Timescale::VIDEO_90K)
        .get()
        .unsigned_abs();
    let spans = decoded.windows(2).filter_map(|pair| pair[1].since(pair[0]));
    let is_uneven = |span: &crate::time::Span| span.get().abs_diff(period) > UNEVEN_TICKS;
    let uneven = spans.filter(is_uneven).count();
    (uneven * 10 <= decoded.len()).then_some(rate)
}

/// The frame rate that the parameter sets declare.
pub(super) const fn declared_rate(codec: &CodecConfig) -> Option<FrameRate> {
    match codec {
        CodecConfig::H264(config) => config.declared_rate,
        CodecConfig::Hevc(config) => config.declared_rate,
        CodecConfig::Vp9(_) | CodecConfig::Av1(_) | CodecConfig::Aac(_) | CodecConfig::Opus(_) => {
            None
        }
    }
}

/// What `samples` came to, in whole kilobits per second, at least one.
fn bits_per_second<'a>(samples: impl Iterator<Item = &'a Sample>, scale: Timescale) -> u64 {
    let (bytes, ticks) = samples.fold((0_u64, 0_u64), |(bytes, ticks), sample| {
        let length = sample.data.len() as u64;
        (
            bytes.saturating_add(length),
            ticks.saturating_add(sample.duration.get()),
        )
    });
    let bits = u128::from(bytes) * 8 * u128::from(scale.get()) / u128::from(ticks.max(1));
    let kilobits = bits.div_ceil(1_000).max(1);
    u64::try_from(kilobits * 1_000).unwrap_or(u64::MAX)
}

//! Watches the first samples of a source until a ladder can be planned for it.
//!
//! Enters: tracks and samples as they come
//! Leaves: a [`Source`], the first segment, and everything that came, in order
//! Never:  waits for more than about a second of media
//! Time:   positions of the source
//! Spec:   none

#![deny(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::float_arithmetic
)]

use super::Input;
use crate::id::SegmentNumber;
use crate::media::{CodecConfig, MediaKind, TrackInfo};
use crate::time::{FrameRate, Grid, MediaTime, Ticks, Timescale};
use crate::transcode::ladder::{ESTIMATE_FRAMES, Source, VideoSource, estimate};

/// The most that is held back: a second of pictures and sound at any usual rate.
const MAX_GATHERED: usize = 256;
/// How long a source is watched at most, in milliseconds of its own time.
const MAX_WATCH_MS: i64 = 1_000;
/// The rate assumed of a source that shows only one picture.
const FALLBACK_RATE: Option<FrameRate> = FrameRate::new(30, 1);

#[derive(Debug, Default)]
pub(super) struct Gather {
    inputs: Vec<Input>,
    video: Option<TrackInfo>,
    audio: Option<TrackInfo>,
    /// Positions of the pictures, in 90 kHz ticks.
    shown: Vec<Ticks>,
    first_keyframe: Option<MediaTime>,
    first: Option<MediaTime>,
    ready: bool,
}

impl Gather {
    pub(super) fn push(&mut self, input: Input) {
        match &input {
            Input::Track(info) => match info.codec.kind() {
                MediaKind::Video => self.video = Some(info.clone()),
                MediaKind::Audio => self.audio = Some(info.clone()),
            },
            Input::Sample(track, sample) => {
                let of = |known: &Option<TrackInfo>| {
                    let known = known.as_ref().filter(|info| info.id == *track);
                    known.map(|info| info.timescale)
                };
                if let Some(scale) = of(&self.video) {
                    let at = sample.pts.at(scale);
                    self.shown.push(at.rescale_nearest(Timescale::VIDEO_90K));
                    if sample.keyframe && self.first_keyframe.is_none() {
                        self.first_keyframe = Some(at);
                    }
                    self.watch(at);
                } else if let Some(scale) = of(&self.audio) {
                    self.watch(sample.pts.at(scale));
                }
            }
        }
        self.inputs.push(input);
        let enough = self.shown.len() >= ESTIMATE_FRAMES && self.audio.is_some();
        self.ready |= enough || self.inputs.len() >= MAX_GATHERED;
    }

    fn watch(&mut self, at: MediaTime) {
        let since = at.rescale_floor(Timescale::MILLIS).get();
        let first = self.first.get_or_insert(at);
        let first = first.rescale_floor(Timescale::MILLIS).get();
        self.ready |= since.saturating_sub(first) >= MAX_WATCH_MS;
    }

    pub(super) const fn is_ready(&self) -> bool {
        self.ready
    }

    pub(super) fn source(&self) -> Source {
        let video = self.video.as_ref().filter(|_| !self.shown.is_empty());
        let video = video.and_then(|info| {
            let (declared, pixel_aspect) = match &info.codec {
                CodecConfig::H264(config) => (config.declared_rate, config.pixel_aspect),
                _ => (None, crate::codec::video::PixelAspect::SQUARE),
            };
            Some(VideoSource {
                dimensions: info.codec.dimensions()?,
                pixel_aspect,
                rate: estimate(declared, &self.shown).or(FALLBACK_RATE)?,
            })
        });
        let audio = self.audio.as_ref().and_then(|info| info.codec.audio());
        Source {
            video,
            audio_rate: audio.map(|(rate, _)| rate),
        }
    }

    /// The segment that the first key frame lies in, or the first sound of a source without pictures.
    pub(super) fn first_segment(&self, grid: Grid) -> SegmentNumber {
        let at = self.first_keyframe.or(self.first);
        at.map_or(SegmentNumber::new(0), |at| grid.segment_at(at))
    }

    pub(super) fn into_inputs(self) -> Vec<Input> {
        self.inputs
    }
}

//! Watches the first samples of a source until a ladder can be planned for it.
//!
//! Enters: tracks and samples as they come
//! Leaves: a [`Source`], the first segment, and everything that came, in order
//! Never:  waits for more than about a second of media or [`MAX_GATHERED_BYTES`] of it, or for announced pictures longer than
//!         [`MAX_PICTURE_WAIT_MS`]
//! Time:   positions of the source
//! Spec:   none

#![deny(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::float_arithmetic
)]

use super::Input;
use crate::id::SegmentNumber;
use crate::media::{MediaKind, TrackInfo};
use crate::time::{FrameRate, Grid, MediaTime, Ticks, Timescale};
use crate::transcode::ladder::{ESTIMATE_FRAMES, Source, VideoSource, estimate};

/// The most that is held back: a second of pictures and sound at any usual rate, or the sound that comes
/// while announced pictures are waited for.
const MAX_GATHERED: usize = 1_024;
/// The same in bytes: as much as is kept for a worker that has died.
const MAX_GATHERED_BYTES: usize = 32 << 20;
/// How long a source is watched at most, in milliseconds of its own time.
const MAX_WATCH_MS: i64 = 1_000;
/// The same for one that has announced pictures and not shown one: relays join between key frames, which
/// lie up to ten seconds apart. Pictures that come to a ladder without any begin another period.
const MAX_PICTURE_WAIT_MS: i64 = 12_000;
/// The rate assumed of a source that shows only one picture.
const FALLBACK_RATE: Option<FrameRate> = FrameRate::new(30, 1);

#[derive(Debug, Default)]
pub(super) struct Gather {
    inputs: Vec<Input>,
    bytes: usize,
    video: Option<TrackInfo>,
    audio: Option<TrackInfo>,
    /// Positions of the pictures, in 90 kHz ticks.
    shown: Vec<Ticks>,
    first_keyframe: Option<MediaTime>,
    first: Option<MediaTime>,
    ready: bool,
    /// The source that was watched has gone.
    is_over: bool,
}

impl Gather {
    pub(super) fn push(&mut self, input: Input) {
        match &input {
            // Of no use before there is anything to conduct.
            Input::Clock(_) => return,
            Input::Detach => {
                self.is_over = true;
                return;
            }
            // The ladder is made for the source that is there.
            Input::Track(_) if self.is_over => {
                *self = Self::default();
                return self.push(input);
            }
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
        self.bytes += input.bytes();
        self.inputs.push(input);
        let enough = self.shown.len() >= ESTIMATE_FRAMES && self.audio.is_some();
        let is_full = self.inputs.len() >= MAX_GATHERED || self.bytes >= MAX_GATHERED_BYTES;
        self.ready |= enough || is_full;
    }

    fn watch(&mut self, at: MediaTime) {
        let since = at.rescale_floor(Timescale::MILLIS).get();
        let first = self.first.get_or_insert(at);
        let first = first.rescale_floor(Timescale::MILLIS).get();
        let limit = if self.video.is_some() && self.shown.is_empty() {
            MAX_PICTURE_WAIT_MS
        } else {
            MAX_WATCH_MS
        };
        self.ready |= since.saturating_sub(first) >= limit;
    }

    pub(super) const fn is_ready(&self) -> bool {
        self.ready
    }

    pub(super) fn source(&self) -> Source {
        let video = self.video.as_ref().filter(|_| !self.shown.is_empty());
        let video = video.and_then(|info| {
            let declared = info.codec.declared_rate();
            Some(VideoSource {
                dimensions: info.codec.dimensions()?,
                pixel_aspect: info.codec.pixel_aspect(),
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

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use bytes::Bytes;

    use super::*;
    use crate::id::TrackId;
    use crate::media::{CodecConfig, Sample, made_up};
    use crate::time::Span;

    fn track(id: u32, scale: u32, codec: CodecConfig) -> Input {
        Input::Track(TrackInfo {
            id: TrackId::new(NonZeroU32::new(id).expect("not zero")),
            timescale: Timescale::new(scale).expect("not zero"),
            codec,
        })
    }

    fn pictures() -> Input {
        track(1, 90_000, made_up::h264(640, 360, FrameRate::new(30, 1)))
    }

    fn sound() -> Input {
        track(2, 1_000, made_up::aac(1_000))
    }

    /// A sample of track `id`, `at` ticks after the epoch.
    fn sample(id: u32, at: i64) -> Input {
        let sample = Sample {
            dts: Ticks::new(at),
            pts: Ticks::new(at),
            duration: Span::new(1),
            keyframe: true,
            data: Bytes::new(),
        };
        Input::Sample(TrackId::new(NonZeroU32::new(id).expect("not zero")), sample)
    }

    /// When `gather` was ready, of sound every 20 ms.
    fn ready_after_ms(gather: &mut Gather) -> i64 {
        let mut ms = 0;
        while !gather.is_ready() {
            gather.push(sample(2, ms));
            ms += 20;
        }
        ms
    }

    #[test]
    fn pictures_that_were_announced_are_waited_for_through_a_long_gop() {
        let mut gather = Gather::default();
        gather.push(pictures());
        gather.push(sound());
        for ms in (0..10_000).step_by(20) {
            gather.push(sample(2, ms));
            assert!(!gather.is_ready(), "{ms}");
        }
        gather.push(sample(1, 10_000 * 90));
        assert!(gather.is_ready());
        assert!(gather.source().video.is_some());
        let grid = Grid::new(NonZeroU32::new(2_000).expect("not zero"));
        assert_eq!(gather.first_segment(grid), SegmentNumber::new(5));
    }

    #[test]
    fn pictures_that_never_come_are_given_up() {
        let mut gather = Gather::default();
        gather.push(pictures());
        gather.push(sound());
        let ms = ready_after_ms(&mut gather);
        assert!((12_000..=12_020).contains(&ms), "{ms}");
        assert!(gather.source().video.is_none());
    }

    #[test]
    fn sound_alone_is_watched_for_a_second() {
        let mut gather = Gather::default();
        gather.push(sound());
        let ms = ready_after_ms(&mut gather);
        assert!((1_000..=1_020).contains(&ms), "{ms}");
    }

    #[test]
    fn what_is_gathered_is_bounded_in_bytes() {
        let mut gather = Gather::default();
        gather.push(pictures());
        let data = Bytes::from(vec![0; 8 << 20]);
        for n in 0..4 {
            assert!(!gather.is_ready(), "{n}");
            let Input::Sample(id, picture) = sample(1, n * 90) else {
                unreachable!("it is one");
            };
            let data = data.clone();
            gather.push(Input::Sample(id, Sample { data, ..picture }));
        }
        assert!(gather.is_ready());
    }
}

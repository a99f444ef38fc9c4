//! How long frames are, and how long the parts of segments: one length that suits all tracks.
//!
//! Enters: renditions, or what is known of them before they are; what was asked for
//! Leaves: the length of a frame as an exact fraction; the one PART-TARGET
//! Never:  samples
//! Time:   fractions of a second; microseconds; `Ticks` from the Unix epoch
//! Spec:   [HLS] §4.4.3.7, §4.4.4.9

use std::num::NonZeroU32;

use super::{CodecConfig, Rendition};
use crate::id::SegmentNumber;
use crate::time::{FrameRate, Grid, Span, Ticks, Timescale};

/// Samples in a packet of Opus as encoders make them: 20 ms.
const OPUS_PACKET: u64 = 960;
/// A part is at least this share of the target, in per cent ([HLS] §4.4.4.9).
const MIN_PART_PERCENT: u128 = 85;
/// How far the target may lie from what was asked for, in per cent.
const MAX_TARGET_DEVIATION_PERCENT: u64 = 50;
/// How much farther it may lie, in per cent, so that no segment ends in a stub: less than half a part. A
/// stub costs a request and brings next to nothing; players that fetch a part per update fall behind by
/// one in each segment (Shaka Player), or step over it as a hole in the sound (hls.js).
const STUB_PERCENT: u64 = 10;

/// The most frames of one length that are tried: more in a part are none of this world.
const MAX_FRAMES: u64 = 5_000;

/// The length of one frame as an exact fraction of a second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FrameLength {
    num: u64,
    den: u64,
    scale: Timescale,
}

impl FrameLength {
    /// The frame of `rendition`; pictures without a rate count as ten per second.
    pub(crate) fn of(rendition: &Rendition) -> Self {
        let (num, den) = match (&rendition.codec, rendition.frame_rate) {
            (CodecConfig::Aac(c), _) => (
                u64::from(c.frame_samples.max(1)),
                u64::from(c.sample_rate.max(1)),
            ),
            (CodecConfig::Opus(_), _) => (OPUS_PACKET, 48_000),
            (_, Some(rate)) => (u64::from(rate.den()), u64::from(rate.num())),
            (_, None) => (1, 10),
        };
        Self {
            num,
            den,
            scale: rendition.timescale,
        }
    }

    /// A picture of `rate`, in 90 kHz ticks.
    pub(crate) fn of_pictures(rate: FrameRate) -> Self {
        Self {
            num: u64::from(rate.den()),
            den: u64::from(rate.num()),
            scale: Timescale::VIDEO_90K,
        }
    }

    /// An access unit of `samples` of sound, `rate` of which make a second. `None` if it is nothing.
    pub(crate) fn of_sound(samples: u32, rate: u32) -> Option<Self> {
        Some(Self {
            num: u64::from(NonZeroU32::new(samples)?.get()),
            den: u64::from(rate),
            scale: Timescale::new(rate)?,
        })
    }

    /// The timescale that its ticks count in.
    pub(crate) const fn scale(self) -> Timescale {
        self.scale
    }

    /// Seconds of a frame, as a fraction.
    pub(crate) fn fraction(self) -> (NonZeroU32, NonZeroU32) {
        let one = NonZeroU32::MIN;
        let part = |value: u64| u32::try_from(value).ok().and_then(NonZeroU32::new);
        (part(self.num).unwrap_or(one), part(self.den).unwrap_or(one))
    }

    /// The longest `count` frames in a row, in ticks: positions are rounded, so one tick may come on top.
    const fn ticks_ceil(self, count: u64) -> u64 {
        let length = count.saturating_mul(self.num);
        length
            .saturating_mul(self.scale.get() as u64)
            .div_ceil(self.den)
    }

    /// Where the first frame of segment `number` begins: frames are counted from the epoch.
    pub(crate) fn first_of(self, grid: Grid, number: SegmentNumber) -> Ticks {
        let start = i128::from(grid.start_of(number, self.scale).get());
        let (num, den) = (i128::from(self.num), i128::from(self.den));
        let length = num * i128::from(self.scale.get());
        let count = (start * den + length - 1).div_euclid(length);
        Ticks::new(i64::try_from((count * length).div_euclid(den)).unwrap_or(i64::MAX))
    }

    /// The last place at or before `at` where a frame can begin.
    pub(crate) fn at_or_before(self, at: Ticks) -> Ticks {
        let (num, den) = (i128::from(self.num), i128::from(self.den));
        let length = num * i128::from(self.scale.get());
        let count = ((i128::from(at.get()) + 1) * den - 1).div_euclid(length);
        Ticks::new(i64::try_from((count * length).div_euclid(den)).unwrap_or(i64::MAX))
    }

    /// The shortest that one frame can be, in ticks.
    pub(crate) const fn ticks_floor(self) -> Span {
        Span::new(self.num * self.scale.get() as u64 / self.den)
    }

    /// The longest that one frame can be, in whole milliseconds.
    pub(crate) const fn millis_ceil(self) -> u64 {
        (self.num * 1_000).div_ceil(self.den)
    }

    /// The longest `count` frames in a row, in microseconds, rounded up.
    const fn micros_ceil(self, count: u64) -> u64 {
        let ticks = self.ticks_ceil(count);
        ticks
            .saturating_mul(1_000_000)
            .div_ceil(self.scale.get() as u64)
    }

    /// How many of them always fit into a part.
    #[cfg(feature = "gst")]
    pub(crate) const fn in_part(self, target: PartTarget) -> u64 {
        self.fitting(target.micros)
    }

    /// How many frames always fit into `micros`.
    const fn fitting(self, micros: u64) -> u64 {
        let mut count = micros * self.den / (self.num * 1_000_000) + 1;
        while count > 0 && self.micros_ceil(count) > micros {
            count -= 1;
        }
        count
    }

    /// Whether the parts that fit into `micros` are long enough for it.
    fn suits(self, micros: u64) -> bool {
        let count = u128::from(self.fitting(micros));
        let length = count * u128::from(self.num) * 1_000_000 * 100;
        count > 0 && length >= MIN_PART_PERCENT * u128::from(micros) * u128::from(self.den)
    }

    /// Whether some segment ends in less than half of the parts that fit into `micros`.
    fn leaves_stub(self, micros: u64, segment_ms: u32) -> bool {
        let part = self.fitting(micros).max(1);
        let least = u64::from(segment_ms) * self.den / (self.num * 1_000);
        // A segment has as many frames as begin in it, which may be one more.
        let most = (u64::from(segment_ms) * self.den).div_ceil(self.num * 1_000);
        [least, most]
            .iter()
            .filter(|frames| **frames > 0)
            .any(|frames| (frames - 1) % part + 1 < part.div_ceil(2))
    }
}

/// PART-TARGET: one value for all playlists of a broadcast, fixed for its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartTarget {
    micros: u64,
}

impl PartTarget {
    /// The target nearest to `part_ms` that is whole frames of one of `frames` long, with which parts of
    /// whole frames are within 85 to 100 % on each of them, and which divides segments evenly, if it can.
    pub(crate) fn choose(part_ms: u32, segment_ms: u32, frames: &[FrameLength]) -> Option<Self> {
        let asked = u64::from(part_ms) * 1_000;
        let reach = asked * MAX_TARGET_DEVIATION_PERCENT / 100;
        let lengths = |frame: &FrameLength| {
            let frame = *frame;
            let most = (asked + reach) * frame.den / (frame.num * 1_000_000) + 1;
            (1..=most.min(MAX_FRAMES)).map(move |count| frame.micros_ceil(count))
        };
        let cost = |micros: &u64| {
            let stub = |frame: &FrameLength| frame.leaves_stub(*micros, segment_ms);
            let stubs = u64::from(frames.iter().any(stub));
            micros.abs_diff(asked) + stubs * asked * STUB_PERCENT / 100
        };
        frames
            .iter()
            .flat_map(lengths)
            .filter(|micros| micros.abs_diff(asked) <= reach)
            .filter(|micros| frames.iter().all(|frame| frame.suits(*micros)))
            .min_by_key(cost)
            .map(|micros| Self { micros })
    }

    /// Whether parts of whole frames of this length are within 85 to 100 % of it.
    pub(crate) fn suits(self, frame: FrameLength) -> bool {
        frame.suits(self.micros)
    }

    /// What fragments last where nobody is told of parts, so that nothing is promised of them.
    pub(crate) const fn unannounced(part_ms: u32) -> Self {
        Self::from_micros(part_ms as u64 * 1_000)
    }

    /// The target that [`Self::as_micros`] told.
    #[must_use]
    pub const fn from_micros(micros: u64) -> Self {
        Self { micros }
    }

    /// The target in microseconds.
    #[must_use]
    pub const fn as_micros(self) -> u64 {
        self.micros
    }

    /// The longest length in `scale` that is not over the target.
    #[must_use]
    pub const fn in_ticks(self, scale: Timescale) -> Span {
        Span::new(self.micros * scale.get() as u64 / 1_000_000)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Rates of pictures in common use.
    pub(crate) const RATES: [(u32, u32); 8] = [
        (24_000, 1_001),
        (24, 1),
        (25, 1),
        (30_000, 1_001),
        (30, 1),
        (50, 1),
        (60_000, 1_001),
        (60, 1),
    ];

    /// A picture of `num` in `den` seconds.
    pub(crate) fn video(num: u32, den: u32) -> FrameLength {
        FrameLength::of_pictures(FrameRate::new(num, den).expect("valid"))
    }

    /// An access unit of AAC.
    pub(crate) fn aac(rate: u32) -> FrameLength {
        FrameLength::of_sound(1_024, rate).expect("valid")
    }

    #[test]
    fn target_is_whole_frames_near_what_was_asked() {
        for (rate, audio, micros) in [
            ((30, 1), 48_000, 341_334),
            ((25, 1), 48_000, 360_000),
            ((60, 1), 44_100, 348_300),
            ((24, 1), 44_100, 348_300),
        ] {
            let frames = [video(rate.0, rate.1), aac(audio)];
            let target = PartTarget::choose(333, 2_000, &frames).expect("exists");
            assert_eq!(target.as_micros(), micros);
        }
    }

    #[test]
    fn no_segment_of_the_default_ends_in_a_stub() {
        for rate in RATES {
            for audio in [44_100, 48_000] {
                let frames = [video(rate.0, rate.1), aac(audio)];
                let target = PartTarget::choose(333, 2_000, &frames).expect("exists");
                let stub = |frame: &FrameLength| frame.leaves_stub(target.as_micros(), 2_000);
                assert!(!frames.iter().any(stub), "{rate:?} {audio} {target:?}");
            }
        }
    }

    #[test]
    fn common_rates_share_a_target_in_all_combinations() {
        for part_ms in [200, 333, 500, 1_000] {
            for rate in RATES {
                for audio in [22_050, 32_000, 44_100, 48_000] {
                    let frames = [video(rate.0, rate.1), aac(audio)];
                    let target = PartTarget::choose(part_ms, 2_000, &frames);
                    assert!(target.is_some(), "{part_ms} {rate:?} {audio}");
                }
            }
        }
    }

    #[test]
    fn frames_of_no_length_have_no_target_and_that_is_found_at_once() {
        for frame in [
            video(u32::MAX / 100, 1),
            video(u32::MAX, u32::MAX - 1),
            aac(u32::MAX),
            FrameLength::of_sound(1, u32::MAX).expect("valid"),
            FrameLength::of_sound(u32::MAX, 1).expect("valid"),
        ] {
            let target = PartTarget::choose(333, 2_000, &[frame]);
            assert!(target.is_none(), "{frame:?} {target:?}");
        }
    }

    #[test]
    fn sound_alone_is_cut_too() {
        let target = PartTarget::choose(333, 2_000, &[aac(48_000)]).expect("exists");
        assert_eq!(target.as_micros(), 341_334);
    }

    #[test]
    fn segments_begin_with_the_first_frame_at_or_after_the_grid() {
        let grid = Grid::new(NonZeroU32::new(2_000).expect("valid"));
        let starts = |frame: FrameLength, number| {
            let start = frame.first_of(grid, SegmentNumber::new(number));
            start.get()
        };
        assert_eq!(starts(video(30, 1), 7), 14 * 90_000);
        // 419.58 frames of 3003 ticks.
        assert_eq!(starts(video(30_000, 1_001), 7), 420 * 3_003);
        // 656.25 access units of 1024 samples.
        assert_eq!(starts(aac(48_000), 7), 657 * 1_024);
    }
}

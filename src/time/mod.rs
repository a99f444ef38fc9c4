//! Media time as types: positions, lengths, scales, and the grid that everything is cut on.
//!
//! Enters: integers from the wire, always next to the scale that gives them meaning
//! Leaves: typed positions and lengths whose arithmetic cannot overflow or mix scales unnoticed
//! Never:  reads a clock, uses a float
//! Time:   every position on the product's timeline counts from the Unix epoch
//! Spec:   [ISOBMFF] §8.4.2, §8.8.12; [DASH] §5.3.9

mod wall;

use std::fmt;
use std::num::NonZeroU32;
use std::time::Duration;

pub use wall::{WallTime, WallTimeError};

use crate::id::SegmentNumber;

/// Ticks per second of one track. Never zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Timescale(NonZeroU32);

impl Timescale {
    /// The scale of every video track: divisible by all common frame rates but 23.976 and 59.94.
    pub const VIDEO_90K: Self = Self(NonZeroU32::new(90_000).expect("90000 is not zero"));
    /// Milliseconds, the scale of RTMP timestamps.
    pub const MILLIS: Self = Self(NonZeroU32::new(1_000).expect("1000 is not zero"));
    /// Microseconds, the scale of [`WallTime`] and of the lengths in a playlist.
    pub const MICROS: Self = Self(NonZeroU32::new(1_000_000).expect("10^6 is not zero"));
    /// Nanoseconds, the scale of GStreamer and of [`Duration`].
    pub const NANOS: Self = Self(NonZeroU32::new(1_000_000_000).expect("10^9 is not zero"));

    /// A scale of `ticks_per_second`, or `None` for zero.
    #[must_use]
    pub const fn new(ticks_per_second: u32) -> Option<Self> {
        match NonZeroU32::new(ticks_per_second) {
            Some(value) => Some(Self(value)),
            None => None,
        }
    }

    /// Ticks per second.
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0.get()
    }
}

impl fmt::Display for Timescale {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/s", self.0)
    }
}

/// A position on one track, in that track's timescale. Signed: offsets and pre-roll go below zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Ticks(i64);

impl Ticks {
    /// Position zero, the Unix epoch.
    pub const ZERO: Self = Self(0);

    /// The position `value` ticks after the epoch.
    #[must_use]
    pub const fn new(value: i64) -> Self {
        Self(value)
    }

    /// The raw number of ticks.
    #[must_use]
    pub const fn get(self) -> i64 {
        self.0
    }

    /// The position `span` later, or `None` past the end of the number line.
    #[must_use]
    pub fn checked_add(self, span: Span) -> Option<Self> {
        self.0.checked_add_unsigned(span.0).map(Self)
    }

    /// The position `span` earlier, or `None` past the end of the number line.
    #[must_use]
    pub fn checked_sub(self, span: Span) -> Option<Self> {
        self.0.checked_sub_unsigned(span.0).map(Self)
    }

    /// The position moved by `delta`, or `None` past the end of the number line.
    #[must_use]
    pub fn checked_offset(self, delta: TickDelta) -> Option<Self> {
        self.0.checked_add(delta.0).map(Self)
    }

    /// The length from `earlier` to here; `None` if `earlier` lies later.
    #[must_use]
    pub fn since(self, earlier: Self) -> Option<Span> {
        let delta = i128::from(self.0) - i128::from(earlier.0);
        u64::try_from(delta).ok().map(Span)
    }

    /// The signed difference `self - other`; saturates at the ends of the number line.
    #[must_use]
    pub const fn delta(self, other: Self) -> TickDelta {
        TickDelta(self.0.saturating_sub(other.0))
    }

    /// This position as a [`MediaTime`], which can be compared across tracks.
    #[must_use]
    pub const fn at(self, scale: Timescale) -> MediaTime {
        MediaTime { ticks: self, scale }
    }
}

/// A non-negative length, in the timescale of the track it was measured on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Span(u64);

impl Span {
    /// No length at all.
    pub const ZERO: Self = Self(0);

    /// A length of `value` ticks.
    #[must_use]
    pub const fn new(value: u64) -> Self {
        Self(value)
    }

    /// The raw number of ticks.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The sum of two lengths of the same scale, or `None` on overflow.
    #[must_use]
    pub fn checked_add(self, other: Self) -> Option<Self> {
        self.0.checked_add(other.0).map(Self)
    }

    /// This length in seconds, printed exactly to six decimals by integer arithmetic (rounded to the
    /// nearest microsecond).
    #[must_use]
    pub const fn seconds(self, scale: Timescale) -> Seconds {
        Seconds { span: self, scale }
    }

    /// This length on the clock of the machine, rounded down to the nanosecond.
    #[must_use]
    pub fn to_duration(self, scale: Timescale) -> Duration {
        let per_second = u64::from(scale.get());
        let whole = self.0 / per_second;
        let nanos = (self.0 % per_second) * 1_000_000_000 / per_second;
        Duration::new(whole, u32::try_from(nanos).unwrap_or(999_999_999))
    }
}

/// A signed difference of two positions on one track, such as a composition offset (pts − dts).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct TickDelta(i64);

impl TickDelta {
    /// A difference of `value` ticks.
    #[must_use]
    pub const fn new(value: i64) -> Self {
        Self(value)
    }

    /// The raw number of ticks.
    #[must_use]
    pub const fn get(self) -> i64 {
        self.0
    }
}

/// Prints a [`Span`] as decimal seconds: `2.000000`.
#[derive(Clone, Copy, Debug)]
pub struct Seconds {
    span: Span,
    scale: Timescale,
}

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scale = u128::from(self.scale.get());
        let micros = (u128::from(self.span.0) * 1_000_000 + scale / 2) / scale;
        write!(f, "{}.{:06}", micros / 1_000_000, micros % 1_000_000)
    }
}

/// A position together with its scale. Comparing two of them is a named method, because equality of
/// instants and equality of representations are different questions.
#[derive(Clone, Copy, Debug)]
pub struct MediaTime {
    ticks: Ticks,
    scale: Timescale,
}

impl MediaTime {
    /// The position `ticks` in `scale`.
    #[must_use]
    pub const fn new(ticks: Ticks, scale: Timescale) -> Self {
        Self { ticks, scale }
    }

    /// The ticks, in [`Self::scale`].
    #[must_use]
    pub const fn ticks(self) -> Ticks {
        self.ticks
    }

    /// The scale of [`Self::ticks`].
    #[must_use]
    pub const fn scale(self) -> Timescale {
        self.scale
    }

    /// Orders two instants of any scales exactly.
    #[must_use]
    pub fn cmp_instant(self, other: Self) -> std::cmp::Ordering {
        let left = i128::from(self.ticks.0) * i128::from(other.scale.get());
        let right = i128::from(other.ticks.0) * i128::from(self.scale.get());
        left.cmp(&right)
    }

    /// The last tick of `scale` at or before this instant.
    #[must_use]
    pub fn rescale_floor(self, scale: Timescale) -> Ticks {
        saturate(self.numerator(scale).div_euclid(self.denominator()))
    }

    /// The first tick of `scale` at or after this instant.
    #[must_use]
    pub fn rescale_ceil(self, scale: Timescale) -> Ticks {
        let (n, d) = (self.numerator(scale), self.denominator());
        saturate(n.div_euclid(d) + i128::from(n.rem_euclid(d) != 0))
    }

    /// The tick of `scale` nearest to this instant; halves round up.
    #[must_use]
    pub fn rescale_nearest(self, scale: Timescale) -> Ticks {
        let (n, d) = (self.numerator(scale), self.denominator());
        saturate((2 * n + d).div_euclid(2 * d))
    }

    /// The instant on the wall clock, rounded down to the microsecond.
    #[must_use]
    pub fn to_wall(self) -> WallTime {
        WallTime::from_micros(self.rescale_floor(Timescale::MICROS).0)
    }

    fn numerator(self, scale: Timescale) -> i128 {
        i128::from(self.ticks.0) * i128::from(scale.get())
    }

    fn denominator(self) -> i128 {
        i128::from(self.scale.get())
    }
}

fn saturate(value: i128) -> Ticks {
    let clamped = value.clamp(i128::from(i64::MIN), i128::from(i64::MAX));
    Ticks(i64::try_from(clamped).unwrap_or(i64::MAX))
}

/// Frames per second as an exact fraction, such as 30000/1001.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FrameRate {
    num: NonZeroU32,
    den: NonZeroU32,
}

impl FrameRate {
    /// `num / den` frames per second, or `None` if either is zero.
    #[must_use]
    pub const fn new(num: u32, den: u32) -> Option<Self> {
        match (NonZeroU32::new(num), NonZeroU32::new(den)) {
            (Some(num), Some(den)) => Some(Self { num, den }),
            _ => None,
        }
    }

    /// The numerator, in frames.
    #[must_use]
    pub const fn num(self) -> u32 {
        self.num.get()
    }

    /// The denominator, in seconds.
    #[must_use]
    pub const fn den(self) -> u32 {
        self.den.get()
    }

    /// The rate of every `divisor`-th frame; `None` if that is no rate.
    #[must_use]
    pub fn divided(self, divisor: u32) -> Option<Self> {
        Self::new(self.num(), self.den().checked_mul(divisor)?)
    }

    /// Frames per thousand seconds, rounded to nearest: 29970 for 30000/1001.
    #[must_use]
    pub fn millihertz(self) -> u64 {
        let den = u64::from(self.den());
        (u64::from(self.num()) * 1_000 + den / 2) / den
    }

    /// Where slot `slot` of this rate begins, slot 0 beginning at the epoch: the tick of `scale` at or
    /// before the exact instant, so that no slot crosses a whole-tick boundary by rounding.
    #[must_use]
    pub fn slot_start(self, slot: i64, scale: Timescale) -> Ticks {
        let n = i128::from(slot) * i128::from(self.den()) * i128::from(scale.get());
        saturate(n.div_euclid(i128::from(self.num())))
    }

    /// The slot whose beginning is nearest to `time`.
    #[must_use]
    pub fn nearest_slot(self, time: MediaTime) -> i64 {
        let n = i128::from(time.ticks.0) * i128::from(self.num());
        let d = i128::from(time.scale.get()) * i128::from(self.den());
        saturate((2 * n + d).div_euclid(2 * d)).0
    }

    /// The first slot that begins at or after `time`.
    #[must_use]
    pub fn slot_at_or_after(self, time: MediaTime) -> i64 {
        let n = i128::from(time.ticks.0) * i128::from(self.num());
        let d = i128::from(time.scale.get()) * i128::from(self.den());
        saturate(n.div_euclid(d) + i128::from(n.rem_euclid(d) != 0)).0
    }
}

impl fmt::Display for FrameRate {
    /// Three decimals, as HLS FRAME-RATE wants them: `29.970`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millihertz = self.millihertz();
        write!(f, "{}.{:03}", millihertz / 1_000, millihertz % 1_000)
    }
}

/// The grid of segments: segment `n` spans `n·D` to `(n + 1)·D` on the timeline of the Unix epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grid {
    segment_ms: NonZeroU32,
}

impl Grid {
    /// A grid of segments of `segment_ms` milliseconds.
    #[must_use]
    pub const fn new(segment_ms: NonZeroU32) -> Self {
        Self { segment_ms }
    }

    /// The target duration of a segment, in milliseconds.
    #[must_use]
    pub const fn segment_ms(self) -> u32 {
        self.segment_ms.get()
    }

    /// The number of the segment that `time` lies in. Instants before the epoch count as segment 0.
    #[must_use]
    pub fn segment_at(self, time: MediaTime) -> SegmentNumber {
        let n = i128::from(time.ticks.0) * 1_000;
        let d = i128::from(time.scale.get()) * i128::from(self.segment_ms());
        SegmentNumber::new(u64::try_from(n.div_euclid(d)).unwrap_or(0))
    }

    /// The first tick of `scale` at or after the beginning of segment `number`.
    #[must_use]
    pub fn start_of(self, number: SegmentNumber, scale: Timescale) -> Ticks {
        let n = i128::from(number.get()) * i128::from(self.segment_ms()) * i128::from(scale.get());
        saturate(n.div_euclid(1_000) + i128::from(n.rem_euclid(1_000) != 0))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn scale(value: u32) -> Timescale {
        Timescale::new(value).expect("not zero")
    }

    #[test]
    fn seconds_print_exactly() {
        assert_eq!(
            Span::new(180_180).seconds(Timescale::VIDEO_90K).to_string(),
            "2.002000"
        );
        assert_eq!(
            Span::new(1_024).seconds(scale(48_000)).to_string(),
            "0.021333"
        );
    }

    #[test]
    fn positions_are_rescaled_without_accumulating_error() {
        // An hour of 30 fps frames: durations lose 33 s an hour, positions less than a millisecond.
        let last = Ticks::new(30 * 3_600 * 3_000).at(Timescale::VIDEO_90K);
        assert_eq!(last.rescale_floor(Timescale::MILLIS), Ticks::new(3_600_000));
    }

    #[test]
    fn slot_of_a_broken_rate_never_crosses_a_segment_boundary_by_rounding() {
        let rate = FrameRate::new(24_000, 1_001).expect("valid");
        let grid = Grid::new(NonZeroU32::new(2_000).expect("valid"));
        for slot in 42_957_042_000..42_957_044_000_i64 {
            let ticks = rate.slot_start(slot, Timescale::VIDEO_90K);
            let exact = i128::from(slot) * 1_001 / (24_000 * 2);
            let number = grid.segment_at(ticks.at(Timescale::VIDEO_90K));
            assert_eq!(i128::from(number.get()), exact);
        }
    }

    proptest! {
        #[test]
        fn rescaling_brackets_the_instant(t in -1_i64 << 42..1 << 42, from in 1_u32..1 << 20, to in 1_u32..1 << 20) {
            let time = Ticks::new(t).at(scale(from));
            let (floor, ceil) = (time.rescale_floor(scale(to)), time.rescale_ceil(scale(to)));
            let nearest = time.rescale_nearest(scale(to));
            prop_assert!(floor <= nearest && nearest <= ceil);
            prop_assert!(ceil.delta(floor).get() <= 1);
            prop_assert!(floor.at(scale(to)).cmp_instant(time).is_le());
            prop_assert!(ceil.at(scale(to)).cmp_instant(time).is_ge());
        }

        #[test]
        fn a_segment_starts_where_its_number_says(n in 0_u64..1 << 33, ms in 100_u32..20_000, ts in 1_000_u32..200_000) {
            let grid = Grid::new(NonZeroU32::new(ms).expect("not zero"));
            let number = SegmentNumber::new(n);
            let start = grid.start_of(number, scale(ts));
            prop_assert_eq!(grid.segment_at(start.at(scale(ts))), number);
            if n > 0 {
                let before = start.checked_sub(Span::new(1)).expect("in range");
                prop_assert_eq!(grid.segment_at(before.at(scale(ts))).get(), n - 1);
            }
        }

        #[test]
        fn slots_and_positions_are_inverse(slot in 0_i64..1 << 40, num in 1_u32..120_000, den in 1_u32..1_002) {
            prop_assume!(num / den <= 300 && num >= den);
            let rate = FrameRate::new(num, den).expect("valid");
            let start = rate.slot_start(slot, Timescale::VIDEO_90K).at(Timescale::VIDEO_90K);
            prop_assert_eq!(rate.nearest_slot(start), slot);
        }
    }
}

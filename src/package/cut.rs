//! Decides where segments and parts end.
//!
//! Enters: samples of one rendition in decode order, each with the distance to the next
//! Leaves: whether a part or a segment ends before or after a sample
//! Never:  bytes, playlists, clocks
//! Time:   `Ticks` in the rendition's timescale; the grid's origin is the Unix epoch
//! Spec:   [HLS] §4.4.3.7, §4.4.4.9; [CMAF] §7.3.4 switching sets

use crate::id::SegmentNumber;
use crate::media::{FrameLength, PartTarget};
use crate::time::{Grid, MediaTime, Span, Ticks, Timescale};

/// What decides where the segments of a broadcast begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cuts {
    /// The grid: a segment's number is its time divided by its length.
    Grid,
    /// The key frames of the source, as [`Packager::cut`](super::Packager::cut) tells: segments are of
    /// unequal length, and their numbers count up by one.
    Source {
        /// The longest that a segment of this broadcast will ever be, in milliseconds: TARGETDURATION
        /// follows from it and cannot change.
        longest_ms: u32,
    },
}

impl Cuts {
    /// Whether segments begin where the grid says.
    #[must_use]
    pub const fn are_on_grid(self) -> bool {
        matches!(self, Self::Grid)
    }

    /// The longest that a segment is meant to be, of a grid of `segment_ms`, in milliseconds.
    #[must_use]
    pub const fn longest_ms(self, segment_ms: u32) -> u32 {
        match self {
            Self::Grid => segment_ms,
            Self::Source { longest_ms } => longest_ms,
        }
    }
}

/// Where the parts and segments of one rendition end.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cutter {
    grid: Grid,
    scale: Timescale,
    part_target: Span,
    frame: FrameLength,
}

impl Cutter {
    pub(super) const fn new(grid: Grid, target: PartTarget, frame: FrameLength) -> Self {
        Self {
            grid,
            scale: frame.scale(),
            part_target: target.in_ticks(frame.scale()),
            frame,
        }
    }

    /// The timescale of its rendition.
    pub(super) const fn scale(&self) -> Timescale {
        self.scale
    }

    /// The segment that a sample at `dts` belongs to.
    pub(super) fn segment_of(&self, dts: Ticks) -> SegmentNumber {
        self.grid.segment_at(MediaTime::new(dts, self.scale))
    }

    /// Where segment `number` begins.
    pub(super) fn start_of(&self, number: SegmentNumber) -> Ticks {
        self.frame.first_of(self.grid, number)
    }

    /// The last place at or before `at` where a frame can begin.
    pub(super) fn frame_at_or_before(&self, at: Ticks) -> Ticks {
        self.frame.at_or_before(at)
    }

    /// How much longer a part of `held` may become.
    pub(super) const fn room(&self, held: Span) -> Span {
        Span::new(self.part_target.get().saturating_sub(held.get()))
    }

    /// Whether a part of `held` has to close before a sample of `next` joins it.
    pub(super) fn closes_before(&self, held: Span, next: Span) -> bool {
        held.get() > 0 && held.get().saturating_add(next.get()) > self.part_target.get()
    }

    /// Whether a part of `held` has no room for another frame and so may close at once.
    pub(super) fn is_full(&self, held: Span) -> bool {
        held.get().saturating_add(self.frame.ticks_floor().get()) > self.part_target.get()
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use proptest::prelude::*;

    use super::*;
    use crate::media::part_tests::{RATES, aac, video};

    proptest! {
        #[test]
        fn parts_are_within_85_to_100_percent(
            rate in 0_usize..8, audio in 0_usize..2, first in 900_000_000_u64..901_000_000, part in 150_u32..900,
        ) {
            let frames = [video(RATES[rate].0, RATES[rate].1), aac([44_100, 48_000][audio])];
            let target = PartTarget::choose(part, 2_000, &frames).expect("exists");
            let grid = Grid::new(NonZeroU32::new(2_000).expect("valid"));
            for frame in frames {
                let cutter = Cutter::new(grid, target, frame);
                let (num, den) = frame.fraction();
                let scale = u64::from(frame.scale().get());
                let at = |slot: u64| {
                    let n = u128::from(slot) * u128::from(num.get()) * u128::from(scale);
                    u64::try_from(n / u128::from(den.get())).expect("fits")
                };
                let slot = first * u64::from(den.get()) / u64::from(num.get());
                let (mut held, mut parts) = (0_u64, Vec::new());
                for slot in slot..slot + 200 {
                    let next = at(slot + 1) - at(slot);
                    if cutter.closes_before(Span::new(held), Span::new(next)) {
                        parts.push(std::mem::take(&mut held));
                    }
                    held += next;
                    if cutter.is_full(Span::new(held)) {
                        parts.push(std::mem::take(&mut held));
                    }
                }
                for part in parts {
                    prop_assert!(part * 1_000_000 <= target.as_micros() * scale);
                    prop_assert!((part + 1) * 100_000_000 >= 85 * target.as_micros() * scale);
                }
            }
        }
    }
}

//! Measures bit rates and decides when the announced ones change.
//!
//! Enters: bytes and length of each finished segment of one rendition
//! Leaves: [`Rates`]: what manifests announce
//! Never:  a change of text without need: announced rates move in steps, so that manifests stay as they are
//! Time:   lengths in the rendition's timescale
//! Spec:   [HLS] §4.4.6.2 BANDWIDTH, AVERAGE-BANDWIDTH; [DASH] §5.3.5.2 @bandwidth

use crate::time::{Span, Timescale};

/// Segments measured before their mean replaces what the encoder aims at: one alone may be a fade from black.
const MIN_MEASURED_SEGMENTS: u32 = 3;
/// Head room on a measured peak, in per cent, so that the next slightly larger segment changes nothing.
const PEAK_HEADROOM_PERCENT: u64 = 5;
/// How far the mean may move before the announced one follows, in per cent.
const AVERAGE_TOLERANCE_PERCENT: u64 = 5;

/// What manifests announce of one rendition, in bits per second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rates {
    /// BANDWIDTH and `@bandwidth`: no segment so far needed more. At least what the encoder aims at: what
    /// begins with a black picture needs that sooner or later.
    pub peak_bps: u64,
    /// AVERAGE-BANDWIDTH: the mean, within 5 %. Until three segments are measured, what the encoder
    /// aims at.
    pub average_bps: u64,
}

/// The measurement behind [`Rates`].
#[derive(Clone, Copy, Debug)]
pub(super) struct Meter {
    announced: Rates,
    segments: u32,
    peak_bps: u64,
    bits: u128,
    ticks: u128,
}

impl Meter {
    pub(super) fn new(target_bps: u64) -> Self {
        let target = target_bps.max(1);
        Self {
            announced: Rates {
                peak_bps: target,
                average_bps: target,
            },
            segments: 0,
            peak_bps: 0,
            bits: 0,
            ticks: 0,
        }
    }

    pub(super) const fn announced(&self) -> Rates {
        self.announced
    }

    /// Takes a finished segment into account; whether the announced peak changed.
    pub(super) fn measure(&mut self, bytes: u64, length: Span, scale: Timescale) -> bool {
        let bits = u128::from(bytes) * 8;
        let ticks = u128::from(length.get().max(1));
        let per_second = u128::from(scale.get());
        self.segments = self.segments.saturating_add(1);
        self.bits += bits;
        self.ticks += ticks;
        let rate = |bits: u128, ticks: u128| {
            u64::try_from((bits * per_second).div_ceil(ticks)).unwrap_or(u64::MAX)
        };
        self.peak_bps = self.peak_bps.max(rate(bits, ticks));
        let before = self.announced.peak_bps;
        let head_room = self
            .peak_bps
            .saturating_add(self.peak_bps / 100 * PEAK_HEADROOM_PERCENT);
        if self.segments == MIN_MEASURED_SEGMENTS {
            self.announced.average_bps = rate(self.bits, self.ticks);
        }
        if self.peak_bps > before {
            self.announced.peak_bps = head_room;
        }
        if self.segments >= MIN_MEASURED_SEGMENTS {
            let mean = rate(self.bits, self.ticks);
            let tolerance = self.announced.average_bps / 100 * AVERAGE_TOLERANCE_PERCENT;
            if mean.abs_diff(self.announced.average_bps) > tolerance {
                self.announced.average_bps = mean;
            }
        }
        self.announced.average_bps = self.announced.average_bps.min(self.announced.peak_bps);
        self.announced.peak_bps != before
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TWO_SECONDS: Span = Span::new(180_000);

    #[test]
    fn the_mean_is_measured_after_three_segments_and_the_peak_not_below_the_target() {
        let mut meter = Meter::new(1_000_000);
        for average in [1_000_000, 1_000_000, 400_000, 400_000] {
            assert!(!meter.measure(100_000, TWO_SECONDS, Timescale::VIDEO_90K));
            assert_eq!(meter.announced().average_bps, average);
        }
        let expected = Rates {
            peak_bps: 1_000_000,
            average_bps: 400_000,
        };
        assert_eq!(meter.announced(), expected);
    }

    #[test]
    fn a_larger_segment_is_never_under_announced() {
        let mut meter = Meter::new(1_000_000);
        assert!(meter.measure(500_000, TWO_SECONDS, Timescale::VIDEO_90K));
        assert!(meter.announced().peak_bps >= 2_000_000);
    }
}

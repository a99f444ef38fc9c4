//! Frame rates: what a source runs at, and what the grid can carry.
//!
//! Enters: a declared rate (a hint) and positions of frames; the grid
//! Leaves: exact fractions
//! Never:  trusts a declared rate that the frames contradict
//! Time:   positions in 90 kHz ticks
//! Spec:   none

use crate::time::{FrameRate, Grid, Ticks};

/// How many frames a source should show before its rate is estimated: a third of a second at 30 fps.
pub const ESTIMATE_FRAMES: usize = 10;

/// The rates that cameras and encoders use, slowest first.
const STANDARD: &[(u32, u32)] = &[
    (10, 1),
    (12, 1),
    (25, 2),
    (15, 1),
    (20, 1),
    (24_000, 1_001),
    (24, 1),
    (25, 1),
    (30_000, 1_001),
    (30, 1),
    (48, 1),
    (50, 1),
    (60_000, 1_001),
    (60, 1),
];
/// How far a measured rate may lie from a standard one to be taken for it, in parts per million.
/// Ten frames stamped in whole milliseconds err by up to 3 parts per thousand.
const MEASURED_PPM: u64 = 4_000;
/// The same for a rate that is known exactly. 29.97 and 30 lie 1000 apart.
const EXACT_PPM: u64 = 400;
/// How far frames may contradict a declared rate before it is not believed, in parts per million.
const DECLARED_PPM: u64 = 20_000;

fn standard() -> impl DoubleEndedIterator<Item = FrameRate> {
    let rates = STANDARD.iter();
    rates.filter_map(|(num, den)| FrameRate::new(*num, *den))
}

/// How far `a` lies from `b`, in parts per million of `b`.
fn ppm(a: FrameRate, b: FrameRate) -> u64 {
    let left = u128::from(a.num()) * u128::from(b.den());
    let right = u128::from(b.num()) * u128::from(a.den());
    u64::try_from(left.abs_diff(right) * 1_000_000 / right.max(1)).unwrap_or(u64::MAX)
}

/// The rate of a source whose first frames are shown at `positions` (90 kHz, any order) and whose
/// parameter sets declare `declared`. `None` if neither says anything usable.
#[must_use]
pub fn estimate(declared: Option<FrameRate>, positions: &[Ticks]) -> Option<FrameRate> {
    let plausible = |rate: &FrameRate| (1_000..=300_000).contains(&rate.millihertz());
    let declared = declared.filter(plausible);
    let Some(measured) = measure(positions).filter(plausible) else {
        return declared;
    };
    if let Some(rate) = declared.filter(|rate| ppm(*rate, measured) <= DECLARED_PPM) {
        return Some(rate);
    }
    let nearest = standard().min_by_key(|rate| ppm(measured, *rate));
    let near = nearest.filter(|rate| ppm(measured, *rate) <= MEASURED_PPM);
    Some(near.unwrap_or(measured))
}

/// One over the median distance, so that one lost frame does not spoil it; over the mean where the
/// frames are regular, which is exacter.
fn measure(positions: &[Ticks]) -> Option<FrameRate> {
    let mut sorted: Vec<i64> = positions.iter().map(|ticks| ticks.get()).collect();
    sorted.sort_unstable();
    sorted.dedup();
    let mut gaps: Vec<i64> = sorted.windows(2).map(|pair| pair[1] - pair[0]).collect();
    gaps.sort_unstable();
    let median = *gaps.get(gaps.len() / 2)?;
    let regular = gaps
        .iter()
        .filter(|gap| **gap * 4 <= median * 5 && **gap * 4 >= median * 3);
    let (sum, count) = regular.fold((0_i64, 0_i64), |(sum, n), gap| (sum + gap, n + 1));
    let num = u32::try_from(count.checked_mul(90_000)?).ok()?;
    FrameRate::new(num, u32::try_from(sum).ok()?)
}

/// The constant rate at which a source of `rate` is encoded: its own if that is a standard one, else
/// the next standard one above; sources over 60 are halved until they are not.
#[must_use]
pub fn output_rate(rate: FrameRate) -> FrameRate {
    let mut rate = rate;
    while rate.millihertz() > 60_050 {
        let Some(half) = rate
            .den()
            .checked_mul(2)
            .and_then(|den| FrameRate::new(rate.num(), den))
        else {
            break;
        };
        rate = half;
    }
    let exact = standard().min_by_key(|known| ppm(rate, *known));
    if let Some(known) = exact.filter(|known| ppm(rate, *known) <= EXACT_PPM) {
        return known;
    }
    let above = standard().find(|known| known.millihertz() >= rate.millihertz());
    above.or_else(|| standard().next_back()).unwrap_or(rate)
}

/// Every how many-th slot of `rate` a rung takes that runs at `max_fps` at most. One percent of grace.
pub(super) fn divisor(rate: FrameRate, max_fps: u32) -> u32 {
    let limit = u64::from(max_fps.max(1)) * 1_010;
    u32::try_from(rate.millihertz().div_ceil(limit).max(1)).unwrap_or(1)
}

/// `rate / divisor` in whole frames per second, rounded to nearest.
pub(super) fn rounded(rate: FrameRate, divisor: u32) -> u64 {
    let den = u64::from(rate.den()) * u64::from(divisor);
    (u64::from(rate.num()) * 2 + den) / (2 * den)
}

/// Slots per segment of a rung, rounded up, at least 1.
pub(super) fn slots_per_segment(rate: FrameRate, divisor: u32, grid: Grid) -> u64 {
    let n = u64::from(rate.num()) * u64::from(grid.segment_ms());
    let d = u64::from(rate.den()) * u64::from(divisor) * 1_000;
    n.div_ceil(d).max(1)
}

/// `rate`, or the nearest one at which every segment begins at a slot that all of `divisors` take.
///
/// With one divisor the first slot at or after a segment's start will do, and any rate can stay as it
/// is. With several, or with an encoder that counts its key frames, a segment has to be a whole
/// number of slots: 59.94 becomes 60, which repeats one frame in a thousand.
pub(super) fn on_grid(rate: FrameRate, divisors: &[u32], counted: bool, grid: Grid) -> FrameRate {
    let multiple = divisors
        .iter()
        .fold(1_u64, |all, one| lcm(all, u64::from(*one)));
    if multiple == 1 && !counted {
        return rate;
    }
    let d = u128::from(rate.den()) * 1_000 * u128::from(multiple);
    let n = u128::from(rate.num()) * u128::from(grid.segment_ms());
    if n.is_multiple_of(d) {
        return rate;
    }
    let slots = ((2 * n + d) / (2 * d)).max(1) * u128::from(multiple);
    let slots = u32::try_from(slots * 1_000).ok();
    let exact = slots.and_then(|slots| FrameRate::new(slots, grid.segment_ms()));
    exact.map_or(rate, reduced)
}

fn reduced(rate: FrameRate) -> FrameRate {
    let common = gcd(u64::from(rate.num()), u64::from(rate.den()));
    let common = u32::try_from(common).unwrap_or(1).max(1);
    FrameRate::new(rate.num() / common, rate.den() / common).unwrap_or(rate)
}

fn lcm(a: u64, b: u64) -> u64 {
    a / gcd(a, b).max(1) * b
}

const fn gcd(a: u64, b: u64) -> u64 {
    let (mut a, mut b) = (a, b);
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

//! Sizes of rungs: the source's aspect in square pixels, even, never larger than the source.
//!
//! Enters: a source's size and the shape of its pixels; lines wanted
//! Leaves: even [`Dimensions`]
//! Never:  floats
//! Spec:   [H264] §6.2 (4:2:0 needs even sizes)

use super::{Error, MAX_SIDE, MIN_SIDE};
use crate::codec::video::{Dimensions, PixelAspect};

/// The size in square pixels, lines kept, rounded down to even.
pub(super) fn canvas(size: Dimensions, aspect: PixelAspect) -> Result<Dimensions, Error> {
    let square = u64::from(size.width) * u64::from(aspect.width.get());
    let width = square / u64::from(aspect.height.get()) / 2 * 2;
    let width = u32::try_from(width).unwrap_or(u32::MAX);
    let height = size.height / 2 * 2;
    let sane = |side: u32| (MIN_SIDE..=MAX_SIDE).contains(&side);
    if sane(width) && sane(height) {
        Ok(Dimensions { width, height })
    } else {
        Err(Error::Dimensions { width, height })
    }
}

/// `canvas` scaled so that its shorter side has `lines`. The longer side is a multiple of 8 where
/// that distorts by no more than half a percent, else even.
pub(super) fn scaled(canvas: Dimensions, lines: u32) -> Dimensions {
    let portrait = canvas.height > canvas.width;
    let (long, short) = if portrait {
        (canvas.height, canvas.width)
    } else {
        (canvas.width, canvas.height)
    };
    let lines = (lines / 2 * 2).clamp(MIN_SIDE, short);
    if lines == short {
        return canvas;
    }
    let (n, d) = (u64::from(long) * u64::from(lines), u64::from(short));
    let nearest = |step: u64| (2 * n + step * d) / (2 * step * d) * step;
    let by_eight = nearest(8);
    let close = (by_eight * d).abs_diff(n) * 200 <= n;
    let side = if close { by_eight } else { nearest(2) };
    let side = u32::try_from(side).unwrap_or(MAX_SIDE);
    let (width, height) = if portrait {
        (lines, side)
    } else {
        (side, lines)
    };
    Dimensions { width, height }
}

//! The head of the video usability information, which H.264 and HEVC write alike.
//!
//! Enters: the bits of a sequence parameter set, at the first bit of its VUI
//! Leaves: [`Head`]: the shape of a pixel and the colour; the bits behind them not read
//! Never:  timing, which the two codecs write differently
//! Spec:   [H264] annex E.1.1, [H265] annex E.2.1

use std::num::NonZeroU32;

use super::bits::{self, BitReader};
use super::video::{Colour, PixelAspect};
use crate::time::FrameRate;

/// Shapes of a pixel by `aspect_ratio_idc` 1 to 16.
const PIXEL_ASPECTS: [(u32, u32); 16] = [
    (1, 1),
    (12, 11),
    (10, 11),
    (16, 11),
    (40, 33),
    (24, 11),
    (20, 11),
    (32, 11),
    (80, 33),
    (18, 11),
    (15, 11),
    (64, 33),
    (160, 99),
    (4, 3),
    (3, 2),
    (2, 1),
];

/// `aspect_ratio_idc` of a shape that is written out.
const EXTENDED_SAR: u8 = 255;

/// What the head says; `None` where it does not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) pixel_aspect: Option<PixelAspect>,
    pub(super) colour: Option<Colour>,
}

impl Head {
    /// Reads up to and with the places of chroma samples.
    pub(super) fn parse(bits: &mut BitReader<'_>) -> Result<Self, bits::Error> {
        let pixel_aspect = if bits.flag()? {
            parse_pixel_aspect(bits)?
        } else {
            None
        };
        if bits.flag()? {
            bits.skip(1)?; // overscan_appropriate_flag
        }
        let colour = if bits.flag()? {
            Some(parse_colour(bits)?)
        } else {
            None
        };
        if bits.flag()? {
            bits.ue()?; // chroma_sample_loc_type_top_field
            bits.ue()?; // chroma_sample_loc_type_bottom_field
        }
        Ok(Self {
            pixel_aspect,
            colour,
        })
    }
}

fn parse_pixel_aspect(bits: &mut BitReader<'_>) -> Result<Option<PixelAspect>, bits::Error> {
    let (width, height) = match bits.bits8(8)? {
        EXTENDED_SAR => (bits.bits(16)?, bits.bits(16)?),
        index => match usize::from(index).checked_sub(1) {
            Some(at) => PIXEL_ASPECTS.get(at).copied().unwrap_or((0, 0)),
            None => (0, 0),
        },
    };
    let sides = (NonZeroU32::new(width), NonZeroU32::new(height));
    Ok(match sides {
        (Some(width), Some(height)) => Some(PixelAspect { width, height }),
        _ => None,
    })
}

fn parse_colour(bits: &mut BitReader<'_>) -> Result<Colour, bits::Error> {
    bits.skip(3)?; // video_format
    let full_range = bits.flag()?;
    let described = bits.flag()?;
    let mut code = || {
        if described {
            bits.bits8(8)
        } else {
            Ok(Colour::UNSPECIFIED.primaries)
        }
    };
    Ok(Colour {
        primaries: code()?,
        transfer: code()?,
        matrix: code()?,
        full_range,
    })
}

/// The rate of `scale` units of time per second when a picture takes `units`; `None` where either is zero or
/// the fraction too fine.
pub(super) fn rate(scale: u32, units: u64) -> Option<FrameRate> {
    let scale = u64::from(scale);
    let common = gcd(scale, units);
    if common == 0 {
        return None;
    }
    FrameRate::new(
        u32::try_from(scale / common).ok()?,
        u32::try_from(units / common).ok()?,
    )
}

const fn gcd(mut a: u64, mut b: u64) -> u64 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

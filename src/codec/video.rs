//! What every video codec says about its pictures: size, shape of a pixel, colour, kind.
//!
//! Enters: values read from parameter sets
//! Leaves: the same values under their common names
//! Never:  a guess: what the bitstream does not say stays `None` or "unspecified"
//! Spec:   [CICP] §8 (the numbers of [`Colour`])

use std::num::NonZeroU32;

/// Width and height of a picture in pixels, after cropping.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Dimensions {
    /// Pixels across.
    pub width: u32,
    /// Pixels down.
    pub height: u32,
}

/// Width of a pixel over its height; 1:1 for square ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PixelAspect {
    /// Relative width.
    pub width: NonZeroU32,
    /// Relative height.
    pub height: NonZeroU32,
}

impl PixelAspect {
    /// Square pixels.
    pub const SQUARE: Self = Self {
        width: NonZeroU32::MIN,
        height: NonZeroU32::MIN,
    };
}

/// How numbers become light: the code points of ISO/IEC 23091-2, where 2 means unspecified.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Colour {
    /// Colour primaries, 1 for BT.709.
    pub primaries: u8,
    /// Transfer characteristics, 1 for BT.709.
    pub transfer: u8,
    /// Matrix coefficients, 1 for BT.709.
    pub matrix: u8,
    /// Whether samples use the full range of the number instead of the studio range.
    pub full_range: bool,
}

impl Colour {
    /// Nothing is said about the colour.
    pub const UNSPECIFIED: Self = Self {
        primaries: 2,
        transfer: 2,
        matrix: 2,
        full_range: false,
    };
}

/// How the first slice of a picture is predicted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slice {
    /// From nothing (I, SI).
    Intra,
    /// From pictures decoded before (P, SP).
    Predicted,
    /// From two of them, either of which may be shown later (B).
    Bipredicted,
}

/// What an access unit of H.264 or HEVC says of its picture without being decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Picture {
    /// Whether it is an IDR picture.
    pub is_idr: bool,
    /// How its first slice is predicted.
    pub slice: Slice,
    /// Whether it announces a recovery point, as the first picture of an open GOP of H.264 does.
    pub recovers: bool,
    /// Whether a decoder that began with the key frame before it has to leave it out: an open GOP of HEVC.
    pub skips: bool,
}

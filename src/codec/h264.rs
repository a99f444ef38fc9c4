//! H.264: the decoder configuration record and the parameter sets in it.
//!
//! Enters: an `avcC` body, from a publisher or from an encoder
//! Leaves: [`Config`]
//! Never:  slices' contents
//! Spec:   [NALFF] §5.3.3.1, [H264] §7.3.2.1, annex E

use bytes::Bytes;

use super::video::{Colour, Dimensions, PixelAspect};
use crate::time::FrameRate;

/// One H.264 track's parameters: the record as it goes into `avcC`, and what its SPS says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The body of the `avcC` box.
    pub avcc: Bytes,
    /// `profile_idc`.
    pub profile: u8,
    /// The constraint flags byte after `profile_idc`.
    pub compatibility: u8,
    /// `level_idc`.
    pub level: u8,
    /// Size of the picture after cropping.
    pub dimensions: Dimensions,
    /// Shape of a pixel; square if the SPS does not say.
    pub pixel_aspect: PixelAspect,
    /// Colour; unspecified if the SPS does not say.
    pub colour: Colour,
    /// The rate the VUI declares. A hint only: timing is never derived from it.
    pub declared_rate: Option<FrameRate>,
}

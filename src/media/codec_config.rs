//! The codec setup of one track, whichever codec it is.
//!
//! Enters: configuration records parsed by [`crate::codec`]
//! Leaves: [`CodecConfig`]
//! Never:  bytes of samples
//! Spec:   docs/specs.md, by codec

use super::MediaKind;
use crate::codec::video::{Colour, Dimensions, PixelAspect};
use crate::codec::{aac, av1, h264, hevc, opus, vp9};
use crate::time::FrameRate;

/// What a decoder has to know before the first sample.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CodecConfig {
    /// H.264, samples in length-prefixed NAL units of 4-byte lengths.
    H264(h264::Config),
    /// HEVC, samples in length-prefixed NAL units of 4-byte lengths.
    Hevc(hevc::Config),
    /// VP9, samples as superframes.
    Vp9(vp9::Config),
    /// AV1, samples as temporal units without temporal delimiters.
    Av1(av1::Config),
    /// AAC, raw access units.
    Aac(aac::Config),
    /// Opus packets.
    Opus(opus::Config),
}

impl CodecConfig {
    /// Whether this is a codec of pictures or of sound.
    #[must_use]
    pub const fn kind(&self) -> MediaKind {
        match self {
            Self::H264(_) | Self::Hevc(_) | Self::Vp9(_) | Self::Av1(_) => MediaKind::Video,
            Self::Aac(_) | Self::Opus(_) => MediaKind::Audio,
        }
    }

    /// Size of the picture; `None` for sound.
    #[must_use]
    pub const fn dimensions(&self) -> Option<Dimensions> {
        match self {
            Self::H264(c) => Some(c.dimensions),
            Self::Hevc(c) => Some(c.dimensions),
            Self::Vp9(c) => Some(c.dimensions),
            Self::Av1(c) => Some(c.dimensions),
            Self::Aac(_) | Self::Opus(_) => None,
        }
    }

    /// Colour of the picture; `None` for sound.
    #[must_use]
    pub const fn colour(&self) -> Option<Colour> {
        match self {
            Self::H264(c) => Some(c.colour),
            Self::Hevc(c) => Some(c.colour),
            Self::Vp9(c) => Some(c.colour),
            Self::Av1(c) => Some(c.colour),
            Self::Aac(_) | Self::Opus(_) => None,
        }
    }

    /// Shape of a pixel; square where the codec says nothing of it.
    #[must_use]
    pub const fn pixel_aspect(&self) -> PixelAspect {
        match self {
            Self::H264(c) => c.pixel_aspect,
            Self::Hevc(c) => c.pixel_aspect,
            _ => PixelAspect::SQUARE,
        }
    }

    /// The frame rate that the pictures' own headers declare. A hint only: timing is never derived from it.
    #[must_use]
    pub const fn declared_rate(&self) -> Option<FrameRate> {
        match self {
            Self::H264(c) => c.declared_rate,
            Self::Hevc(c) => c.declared_rate,
            _ => None,
        }
    }

    /// Sample rate and number of channels of sound; `None` for pictures.
    #[must_use]
    pub const fn audio(&self) -> Option<(u32, u8)> {
        match self {
            Self::Aac(c) => Some((c.sample_rate, c.channels)),
            Self::Opus(c) => Some((48_000, c.channels)),
            Self::H264(_) | Self::Hevc(_) | Self::Vp9(_) | Self::Av1(_) => None,
        }
    }
}

/// What sources of tests are said to need: no decoder could begin with it.
#[cfg(test)]
pub(crate) mod made_up {
    use bytes::Bytes;

    use super::*;
    use crate::codec::video::Colour;

    /// Pictures of this size.
    pub(crate) fn h264(width: u32, height: u32, declared_rate: Option<FrameRate>) -> CodecConfig {
        CodecConfig::H264(h264::Config {
            avcc: Bytes::new(),
            profile: 100,
            compatibility: 0,
            level: 31,
            dimensions: Dimensions { width, height },
            pixel_aspect: PixelAspect::SQUARE,
            colour: Colour::UNSPECIFIED,
            declared_rate,
        })
    }

    /// Stereo sound of this rate.
    pub(crate) fn aac(sample_rate: u32) -> CodecConfig {
        CodecConfig::Aac(aac::Config {
            asc: Bytes::new(),
            object_type: 2,
            sample_rate,
            channels: 2,
            frame_samples: 1_024,
        })
    }
}

//! The text by which manifests name a codec.
//!
//! Enters: a [`CodecConfig`]
//! Leaves: the RFC 6381 string of it
//! Never:  a string that the configuration record does not prove
//! Spec:   [RFC6381] §3, [NALFF] annex E, [AV1ISOBMFF] §5, [VP9MP4]

use std::fmt;

use super::CodecConfig;
use crate::codec::hevc;

/// The value of CODECS and `@codecs` for one track: `avc1.64001F`, `mp4a.40.2`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct CodecString(String);

impl CodecString {
    /// The string that `config` proves.
    #[must_use]
    pub fn of(config: &CodecConfig) -> Self {
        Self(match config {
            CodecConfig::H264(c) => {
                format!(
                    "avc1.{:02X}{:02X}{:02X}",
                    c.profile, c.compatibility, c.level
                )
            }
            CodecConfig::Hevc(c) => hevc(c),
            CodecConfig::Vp9(c) => {
                format!("vp09.{:02}.{:02}.{:02}", c.profile, c.level, c.bit_depth)
            }
            CodecConfig::Av1(c) => {
                let tier = if c.high_tier { 'H' } else { 'M' };
                format!(
                    "av01.{}.{:02}{tier}.{:02}",
                    c.profile, c.level_idx, c.bit_depth
                )
            }
            CodecConfig::Aac(c) => format!("mp4a.40.{}", c.object_type),
            CodecConfig::Opus(_) => "opus".to_owned(),
        })
    }

    /// The string.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Profile with its space, compatibility flags the last one first, tier with level, and the bytes of
/// constraints up to the last that says anything ([NALFF] annex E.3).
fn hevc(config: &hevc::Config) -> String {
    let space = ["", "A", "B", "C"];
    let space = space.get(usize::from(config.profile_space)).copied();
    let tier = if config.high_tier { 'H' } else { 'L' };
    let mut text = format!(
        "hvc1.{}{}.{:X}.{tier}{}",
        space.unwrap_or_default(),
        config.profile,
        config.compatibility.reverse_bits(),
        config.level
    );
    let said = config.constraints.iter().rposition(|byte| *byte != 0);
    for byte in config.constraints.iter().take(said.map_or(0, |at| at + 1)) {
        text.push_str(&format!(".{byte:X}"));
    }
    text
}

impl fmt::Display for CodecString {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::codec::video::{Colour, Dimensions, PixelAspect};
    use crate::codec::{aac, av1, h264, opus, vp9};

    const SIZE: Dimensions = Dimensions {
        width: 1280,
        height: 720,
    };

    fn h264(profile: u8, compatibility: u8, level: u8) -> CodecConfig {
        CodecConfig::H264(h264::Config {
            avcc: Bytes::new(),
            profile,
            compatibility,
            level,
            dimensions: SIZE,
            pixel_aspect: PixelAspect::SQUARE,
            colour: Colour::UNSPECIFIED,
            declared_rate: None,
        })
    }

    fn hevc(
        profile: (u8, u8),
        compatibility: u32,
        tier: (bool, u8),
        flags: [u8; 6],
    ) -> CodecConfig {
        CodecConfig::Hevc(hevc::Config {
            hvcc: Bytes::new(),
            profile_space: profile.0,
            high_tier: tier.0,
            profile: profile.1,
            compatibility,
            constraints: flags,
            level: tier.1,
            bit_depth: 8,
            dimensions: SIZE,
            pixel_aspect: PixelAspect::SQUARE,
            colour: Colour::UNSPECIFIED,
            declared_rate: None,
        })
    }

    fn aac(asc: &'static [u8]) -> CodecConfig {
        CodecConfig::Aac(aac::Config::parse_asc(Bytes::from_static(asc)).expect("valid"))
    }

    fn vp9(level: u8) -> CodecConfig {
        CodecConfig::Vp9(vp9::Config {
            profile: 0,
            level,
            bit_depth: 8,
            chroma_subsampling: 1,
            dimensions: SIZE,
            colour: Colour::UNSPECIFIED,
        })
    }

    fn av1(level_idx: u8, high_tier: bool, bit_depth: u8) -> CodecConfig {
        CodecConfig::Av1(av1::Config {
            av1c: Bytes::new(),
            profile: 0,
            level_idx,
            high_tier,
            bit_depth,
            dimensions: SIZE,
            colour: Colour::UNSPECIFIED,
        })
    }

    #[test]
    fn known_configurations_have_their_known_strings() {
        let opus = CodecConfig::Opus(opus::Config {
            channels: 2,
            pre_skip: 312,
            input_sample_rate: 48_000,
        });
        for (config, expected) in [
            (h264(100, 0, 32), "avc1.640020"),
            (h264(66, 0xC0, 30), "avc1.42C01E"),
            (
                hevc((0, 1), 0x6000_0000, (false, 93), [0xB0, 0, 0, 0, 0, 0]),
                "hvc1.1.6.L93.B0",
            ),
            (
                hevc((1, 2), 0x2000_0000, (true, 153), [0x90, 0, 0x0A, 0, 0, 0]),
                "hvc1.A2.4.H153.90.0.A",
            ),
            (
                hevc((0, 4), 0x0800_0000, (false, 120), [0; 6]),
                "hvc1.4.10.L120",
            ),
            (aac(&[0x11, 0x90]), "mp4a.40.2"),
            (aac(&[0x2B, 0x11, 0x88, 0x00]), "mp4a.40.5"),
            (aac(&[0xEB, 0x09, 0x88, 0x00]), "mp4a.40.29"),
            (vp9(31), "vp09.00.31.08"),
            (av1(5, false, 8), "av01.0.05M.08"),
            (av1(13, true, 10), "av01.0.13H.10"),
            (opus, "opus"),
        ] {
            assert_eq!(CodecString::of(&config).as_str(), expected);
        }
    }
}

//! The text by which manifests name a codec.
//!
//! Enters: a [`CodecConfig`]
//! Leaves: the RFC 6381 string of it
//! Never:  a string that the configuration record does not prove
//! Spec:   [RFC6381] §3, [NALFF] annex E, [AV1ISOBMFF] §5, [VP9MP4]

use std::fmt;

use super::CodecConfig;

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

impl fmt::Display for CodecString {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

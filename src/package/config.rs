//! What an operator may choose about packaging.
//!
//! Enters: numbers from the configuration file
//! Leaves: [`Config`], and the first reason why one cannot be used
//! Never:  reads files
//! Time:   milliseconds
//! Spec:   [HLS] §4.4.3, [HLS-AUTHORING] 8.11

use std::num::NonZeroU32;
use std::time::Duration;

/// The fewest segments a live playlist may list ([HLS-AUTHORING] 8.11).
pub const MIN_WINDOW_SEGMENTS: u32 = 6;
/// The most segments a playlist lists: what a snapshot and every rendering of it cost grows with it.
pub const MAX_WINDOW_SEGMENTS: u32 = 10_800;
/// The shortest segment that the grid is used with; below it, a frame is a large part of a segment.
pub const MIN_SEGMENT_MS: u32 = 500;
/// The longest segment: beyond it no player's buffer is prepared for the size.
pub const MAX_SEGMENT_MS: u32 = 30_000;
/// The shortest part: three frames of 60 per second.
pub const MIN_PART_MS: u32 = 50;

/// How a broadcast is cut and how much of it is listed and kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The grid: target duration of a segment, in milliseconds.
    pub segment_ms: NonZeroU32,
    /// What a part should last, in milliseconds. The true target is near it and whole frames long.
    pub part_ms: NonZeroU32,
    /// How many segments manifests list, at least [`MIN_WINDOW_SEGMENTS`].
    pub window_segments: u32,
    /// How many segments stay addressable after they left the list. To hold what [HLS] §6.2.2 asks
    /// it is more than `window_segments`.
    pub kept_segments: u32,
    /// Whether parts appear in playlists as soon as they exist.
    pub low_latency: LowLatency,
    /// How far back viewers of a live stream can go; nothing for no further than the list.
    pub dvr: Duration,
}

/// How near to the present players are brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LowLatency {
    /// As ordinary HLS and DASH do: by whole segments.
    Off,
    /// By parts, with a margin for machines and networks that have their moods.
    On,
    /// By parts, with encoders that hold nothing back and next to no margin.
    Ultra,
}

impl LowLatency {
    /// Whether players are told of parts.
    #[must_use]
    pub const fn is_on(self) -> bool {
        !matches!(self, Self::Off)
    }

    /// What a picture is given from the server's door to the first part that holds it, beside the part's
    /// own length: decoding, encoding, the way to the player. In milliseconds.
    pub(super) const fn floor_ms(self) -> u64 {
        match self {
            Self::Off | Self::On => 450,
            Self::Ultra => 100,
        }
    }
}

impl From<bool> for LowLatency {
    fn from(on: bool) -> Self {
        if on { Self::On } else { Self::Off }
    }
}

impl Default for Config {
    fn default() -> Self {
        const SEGMENT_MS: NonZeroU32 = NonZeroU32::new(2_000).expect("not zero");
        const PART_MS: NonZeroU32 = NonZeroU32::new(333).expect("not zero");
        Self {
            segment_ms: SEGMENT_MS,
            part_ms: PART_MS,
            window_segments: 10,
            kept_segments: 12,
            low_latency: LowLatency::On,
            dvr: Duration::ZERO,
        }
    }
}

/// Why a [`Config`] cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// `segment_ms` is outside its range.
    #[error("segments last {MIN_SEGMENT_MS} to {MAX_SEGMENT_MS} ms, found {found}")]
    SegmentLength {
        /// Milliseconds found.
        found: u32,
    },
    /// `part_ms` is too short, or longer than half a segment.
    #[error("parts last {MIN_PART_MS} ms to half a segment, found {found}")]
    PartLength {
        /// Milliseconds found.
        found: u32,
    },
    /// `window_segments` is outside its range.
    #[error(
        "a window lists {MIN_WINDOW_SEGMENTS} to {MAX_WINDOW_SEGMENTS} segments, found {found}"
    )]
    WindowLength {
        /// Segments found.
        found: u32,
    },
    /// `kept_segments` is not more than `window_segments`.
    #[error("more segments are kept than the {window} that are listed, found {found}")]
    KeptLength {
        /// Segments found.
        found: u32,
        /// Segments listed.
        window: u32,
    },
}

impl Config {
    /// Every reason why this configuration cannot be used; empty if it can.
    #[must_use]
    pub fn problems(&self) -> Vec<ConfigError> {
        let mut found = Vec::new();
        let (segment_ms, part_ms) = (self.segment_ms.get(), self.part_ms.get());
        if !(MIN_SEGMENT_MS..=MAX_SEGMENT_MS).contains(&segment_ms) {
            found.push(ConfigError::SegmentLength { found: segment_ms });
        }
        if part_ms < MIN_PART_MS || part_ms > segment_ms / 2 {
            found.push(ConfigError::PartLength { found: part_ms });
        }
        if !(MIN_WINDOW_SEGMENTS..=MAX_WINDOW_SEGMENTS).contains(&self.window_segments) {
            found.push(ConfigError::WindowLength {
                found: self.window_segments,
            });
        }
        if self.kept_segments <= self.window_segments
            || self.kept_segments > 2 * MAX_WINDOW_SEGMENTS
        {
            found.push(ConfigError::KeptLength {
                found: self.kept_segments,
                window: self.window_segments,
            });
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn default_is_valid_and_mistakes_are_all_named() {
        assert_eq!(Config::default().problems(), []);
        let bad = Config {
            segment_ms: NonZeroU32::MIN,
            part_ms: NonZeroU32::MIN,
            window_segments: 5,
            kept_segments: 5,
            low_latency: LowLatency::Off,
            ..Config::default()
        };
        assert_eq!(bad.problems().len(), 4);
    }
}

//! What is known of a track before its first sample.
//!
//! Enters: a codec configuration and a timescale
//! Leaves: [`TrackInfo`] for sources, [`Rendition`] for what we publish
//! Never:  changes: a changed track is a new value
//! Time:   names the timescale in which the track's samples count
//! Spec:   docs/glossary.md

use super::CodecConfig;
use crate::id::{RenditionName, TrackId};
use crate::time::{FrameRate, Timescale};

/// Pictures or sound.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MediaKind {
    /// Pictures.
    Video,
    /// Sound.
    Audio,
}

/// One elementary stream of a source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrackInfo {
    /// Which track.
    pub id: TrackId,
    /// Ticks per second of its samples.
    pub timescale: Timescale,
    /// What its decoder needs.
    pub codec: CodecConfig,
}

/// One encoded, packaged track: what a manifest lists and a folder holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rendition {
    /// Its path segment: `v720`, `a128`.
    pub name: RenditionName,
    /// Ticks per second of its samples: 90000 for video, the sample rate for sound.
    pub timescale: Timescale,
    /// What its decoder needs.
    pub codec: CodecConfig,
    /// Constant frame rate; `None` for sound.
    pub frame_rate: Option<FrameRate>,
    /// The rate its encoder aims at, in bits per second. Announced until measurement replaces it.
    pub target_bps: u64,
}

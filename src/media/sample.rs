//! One coded unit with its place in time.
//!
//! Enters: an access unit and where it belongs
//! Leaves: [`Sample`]
//! Never:  raw frames (those never leave the worker)
//! Time:   the track's own timescale
//! Spec:   [ISOBMFF] §3.1.16, §8.6.1

use bytes::Bytes;

use crate::time::{Span, TickDelta, Ticks};

/// One access unit of one track, in decode order among its siblings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sample {
    /// When it is decoded. Never decreases along a track.
    pub dts: Ticks,
    /// When it is shown. May lie before `dts` where the track has no edit list ([CMAF] `cmf2`).
    pub pts: Ticks,
    /// Distance to the next sample's `dts`. A transcoder's samples hold it exactly, so that
    /// `dts + duration` is the next `dts`; a demuxed source's is the expected distance.
    pub duration: Span,
    /// Whether decoding can begin here (sync sample). Every sample of sound is one.
    pub keyframe: bool,
    /// The access unit in the form its [`CodecConfig`](super::CodecConfig) variant names.
    pub data: Bytes,
}

impl Sample {
    /// `pts − dts`; becomes `sample_composition_time_offset`.
    #[must_use]
    pub const fn composition_offset(&self) -> TickDelta {
        self.pts.delta(self.dts)
    }
}

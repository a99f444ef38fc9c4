//! What comes out of a packager.
//!
//! Enters: nothing
//! Leaves: [`Output`]
//! Never:  decisions
//! Time:   lengths in the timescale of the rendition in its period
//! Spec:   none

use std::sync::Arc;

use crate::id::{PartIndex, PeriodId, SegmentNumber};
use crate::media::Payload;
use crate::package::snapshot::Snapshot;
use crate::time::{MediaTime, Span};

/// What comes out of a [`Packager`](super::Packager).
#[derive(Clone, Debug)]
pub enum Output {
    /// An init segment, once per rendition and period, before anything else of it.
    InitSegment {
        /// Index of the rendition.
        rendition: usize,
        /// The period that it begins.
        period: PeriodId,
        /// Its bytes.
        payload: Payload,
    },
    /// A part is whole.
    Part {
        /// Index of the rendition.
        rendition: usize,
        /// The segment that it is a slice of.
        segment: SegmentNumber,
        /// Its place in the segment.
        part: PartIndex,
        /// Its bytes.
        payload: Payload,
        /// Its length, in the rendition's timescale.
        duration: Span,
        /// Whether it begins with a key frame.
        independent: bool,
    },
    /// A segment is whole. Its bytes are those of its parts.
    Segment {
        /// Index of the rendition.
        rendition: usize,
        /// Its number.
        segment: SegmentNumber,
        /// Its bytes.
        payload: Payload,
        /// Its length, in the rendition's timescale.
        duration: Span,
        /// Decode time of its first sample.
        start: MediaTime,
    },
    /// Manifests have changed. All that they name came before.
    WindowChanged(Arc<Snapshot>),
    /// No manifest has named the segment for long enough: it may be removed.
    Evicted {
        /// Index of the rendition.
        rendition: usize,
        /// Its number.
        segment: SegmentNumber,
    },
    /// All segments of a period were evicted: its init segments may be removed, of all renditions.
    PeriodEvicted {
        /// The period.
        period: PeriodId,
    },
}

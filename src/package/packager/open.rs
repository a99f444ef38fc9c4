//! A segment in the making.
//!
//! Enters: the parts of a segment as they are closed
//! Leaves: a [`Segment`]
//! Never:  media copied: the segment's bytes are those of its parts
//! Time:   `Ticks` in the rendition's timescale
//! Spec:   none

use crate::id::{PeriodId, SegmentNumber};
use crate::media::Payload;
use crate::package::snapshot::{Part, Segment};
use crate::time::{Ticks, Timescale};

/// A segment of one rendition in the making.
#[derive(Clone, Debug)]
pub(super) struct OpenSegment {
    pub(super) number: SegmentNumber,
    pub(super) scale: Timescale,
    pub(super) start: Ticks,
    pub(super) independent: bool,
    pub(super) parts: Vec<Part>,
    pub(super) period: PeriodId,
    pub(super) discontinuity: bool,
}

impl OpenSegment {
    /// Where the last of its parts ends.
    pub(super) fn end(&self) -> Ticks {
        let end = self
            .parts
            .last()
            .and_then(|part| part.start.checked_add(part.duration));
        end.unwrap_or(self.start)
    }

    /// The segment as far as it is there.
    pub(super) fn snapshot(&self) -> Segment {
        self.up_to(self.end())
    }

    /// The segment as one that lasts until `end`.
    pub(super) fn up_to(&self, end: Ticks) -> Segment {
        Segment {
            number: self.number,
            scale: self.scale,
            start: self.start,
            duration: end.since(self.start).unwrap_or_default(),
            period: self.period,
            discontinuity: self.discontinuity,
            gap: false,
            independent: self.independent,
            payload: Payload::concat(self.parts.iter().map(|part| &part.payload)),
            parts: self.parts.clone(),
        }
    }
}

//! What is open of one rendition.
//!
//! Enters: samples that were found acceptable
//! Leaves: pending samples, until they are a part
//! Never:  other renditions
//! Time:   `Ticks` in the rendition's timescale in the current period
//! Spec:   none

use super::open::OpenSegment;
use crate::id::{PeriodId, RenditionName, SegmentNumber};
use crate::media::{FrameLength, MediaKind, Rendition, Sample};
use crate::package::cut::Cutter;
use crate::package::error::Error;
use crate::package::snapshot::Presentation;
use crate::time::{Span, Ticks, Timescale};

/// What is open of one rendition.
#[derive(Debug)]
pub(super) struct Track {
    pub(super) name: RenditionName,
    pub(super) kind: MediaKind,
    pub(super) cutter: Cutter,
    longest_sample: Span,
    pub(super) scale: Timescale,
    pub(super) next_dts: Option<Ticks>,
    pub(super) segment: Option<OpenSegment>,
    pub(super) pending: Vec<Sample>,
    pub(super) pending_length: Span,
    pub(super) pending_bytes: u64,
    /// Of a broadcast that its source cuts: the segment that samples go into.
    pub(super) at: SegmentNumber,
    /// Whether [`Self::at`] was told by a cut, so that samples may come.
    pub(super) is_cut: bool,
}

impl Track {
    /// The track of `rendition`, which begins with segment `first`.
    pub(super) fn new(
        presentation: &Presentation,
        rendition: &Rendition,
        first: SegmentNumber,
    ) -> Self {
        let scale = rendition.timescale;
        let segment_ms = presentation.config.segment_ms.get();
        let longest_ms = presentation.cuts.longest_ms(segment_ms);
        let longest = u64::from(longest_ms) * u64::from(scale.get()) / 1_000;
        let frame = FrameLength::of(rendition);
        Self {
            name: rendition.name.clone(),
            kind: rendition.codec.kind(),
            cutter: Cutter::new(presentation.grid(), presentation.part_target, frame),
            longest_sample: Span::new(longest),
            scale,
            next_dts: None,
            segment: None,
            pending: Vec::new(),
            pending_length: Span::ZERO,
            pending_bytes: 0,
            at: first,
            is_cut: false,
        }
    }

    pub(super) fn take(
        &mut self,
        (number, period, discontinuity): (SegmentNumber, PeriodId, bool),
        sample: Sample,
        end: Ticks,
    ) {
        self.next_dts = Some(end);
        let scale = self.scale;
        self.segment.get_or_insert_with(|| OpenSegment {
            number,
            scale,
            start: sample.dts,
            independent: sample.keyframe,
            parts: Vec::new(),
            period,
            discontinuity,
        });
        let length = self.pending_length.get() + sample.duration.get();
        self.pending_length = Span::new(length);
        self.pending_bytes += sample.data.len() as u64;
        self.pending.push(sample);
    }

    pub(super) fn check_timing(&self, sample: &Sample) -> Result<(), Error> {
        let (dts, duration) = (sample.dts, sample.duration);
        let offset = i32::try_from(sample.composition_offset().get());
        if dts < Ticks::ZERO
            || duration == Span::ZERO
            || duration > self.longest_sample
            || offset.is_err()
        {
            return Err(self.bad_timing(dts));
        }
        match self.next_dts {
            Some(expected) if expected > dts => Err(Error::NotContiguous {
                name: self.name.clone(),
                expected,
                found: dts,
            }),
            _ => Ok(()),
        }
    }

    pub(super) fn bad_timing(&self, at: Ticks) -> Error {
        Error::Timing {
            name: self.name.clone(),
            at,
        }
    }
}

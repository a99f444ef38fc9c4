//! A stretch of a broadcast in which nothing changes: what it consists of and where it begins.
//!
//! Enters: renditions, and the number of the first segment
//! Leaves: [`Period`]
//! Never:  segments: those are the window's
//! Time:   a position of any rendition, from the Unix epoch
//! Spec:   [HLS] §4.4.4.3, §4.4.4.5; [DASH] §5.3.2; docs/adr

use super::cmaf;
use super::error::Error;
use crate::id::{PeriodId, SegmentNumber};
use crate::media::{Payload, Rendition};
use crate::time::MediaTime;

/// What is published from one segment on, until the next period begins.
#[derive(Clone, Debug)]
pub struct Period {
    /// Name of the init segments.
    pub id: PeriodId,
    /// The number of its first segment, the same on every rendition. That may be later than the number in
    /// its name: of a period that an earlier run began.
    pub first: SegmentNumber,
    /// What is published, in the order in which manifests list it. Names and order are those of every period.
    pub renditions: Vec<Rendition>,
    /// The init segment of each rendition.
    pub init_segments: Vec<Payload>,
    /// Whether another period was before it, listed or not: EXT-X-DISCONTINUITY precedes its first segment.
    pub discontinuity: bool,
    /// Where the earliest of its first segments begins; known once they are listed.
    pub start: Option<MediaTime>,
}

impl Period {
    /// A period of `renditions` that begins with segment `first`.
    ///
    /// # Errors
    ///
    /// [`Error::Unwritable`].
    pub(super) fn new(first: SegmentNumber, renditions: Vec<Rendition>) -> Result<Self, Error> {
        let init_segments = renditions
            .iter()
            .map(write_init)
            .collect::<Result<_, _>>()?;
        Ok(Self {
            id: PeriodId::new(first.get()),
            first,
            renditions,
            init_segments,
            discontinuity: false,
            start: None,
        })
    }

    /// Whether an EXT-X-DISCONTINUITY precedes its segment `number`.
    pub(super) fn breaks_at(&self, number: SegmentNumber) -> bool {
        self.discontinuity && number.get() == self.id.get()
    }
}

fn write_init(rendition: &Rendition) -> Result<Payload, Error> {
    let unwritable = |field| Error::Unwritable {
        name: rendition.name.clone(),
        field,
    };
    cmaf::check(rendition).map_err(unwritable)?;
    let bytes = cmaf::write_init(rendition).map_err(|_| unwritable("codec configuration"))?;
    Ok(bytes.into())
}

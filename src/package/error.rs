//! What can be wrong with what is given to the packager.
//!
//! Enters: nothing
//! Leaves: [`Error`], and whose [`Fault`] it is
//! Never:  text made before it is printed
//! Spec:   none

use super::config::ConfigError;
use crate::id::RenditionName;
use crate::time::Ticks;

/// Why a packager could not be made, or refused a sample. After a refused sample it is unchanged.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The configuration contradicts itself.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// There is nothing to package, or more than [`super::MAX_RENDITIONS`].
    #[error(
        "a broadcast has 1 to {} renditions, found {found}",
        super::MAX_RENDITIONS
    )]
    RenditionCount {
        /// Renditions found.
        found: usize,
    },
    /// Two renditions have one name.
    #[error("two renditions are named {name}")]
    DuplicateName {
        /// The name.
        name: RenditionName,
    },
    /// What a rendition says of itself does not fit into an init segment.
    #[error("rendition {name} cannot be described: {field} is out of range")]
    Unwritable {
        /// The rendition.
        name: RenditionName,
        /// Which of its properties.
        field: &'static str,
    },
    /// No part length suits the frame lengths of all renditions.
    #[error("no part length near {part_ms} ms is within 85 to 100 % on every rendition")]
    NoPartTarget {
        /// Milliseconds asked for.
        part_ms: u32,
    },
    /// There is no rendition of this index.
    #[error("no rendition {index}")]
    UnknownRendition {
        /// Index given.
        index: usize,
    },
    /// The first segment's number of a rendition is not that of the period.
    #[error("rendition {name} begins in segment {found}, the period in {expected}")]
    FirstSegment {
        /// The rendition.
        name: RenditionName,
        /// The number of the period.
        expected: u64,
        /// The segment that the sample lies in.
        found: u64,
    },
    /// A sample does not begin where the one before it ended.
    #[error("rendition {name} continues at {expected}, sample found at {found}", expected = expected.get(), found = found.get())]
    NotContiguous {
        /// The rendition.
        name: RenditionName,
        /// Where the next sample has to be.
        expected: Ticks,
        /// Where it is.
        found: Ticks,
    },
    /// The first picture of a segment is no key frame.
    #[error("rendition {name} has no key frame at the start of segment {segment}")]
    NoKeyframe {
        /// The rendition.
        name: RenditionName,
        /// The segment.
        segment: u64,
    },
    /// A sample without length, longer than a segment, or with an impossible composition offset.
    #[error("rendition {name} has a sample at {at} with impossible timing", at = at.get())]
    Timing {
        /// The rendition.
        name: RenditionName,
        /// The sample's decode time.
        at: Ticks,
    },
    /// A part would exceed [`super::MAX_PART_BYTES`].
    #[error("a part of rendition {name} exceeds {} bytes", super::MAX_PART_BYTES)]
    PartTooLarge {
        /// The rendition.
        name: RenditionName,
    },
    /// The broadcast is cut by the grid: nobody may say where.
    #[error(
        "segments are cut by the grid; only a broadcast made with Cuts::Source is told where to cut"
    )]
    NotSourceCut,
    /// The broadcast is cut by its source, and has the renditions that it began with.
    #[error(
        "segments are cut by the source; only a broadcast on the grid goes on with more renditions"
    )]
    SourceCut,
    /// A sample came before the first cut of its rendition in the period.
    #[error("rendition {name} got a sample before it was told which segment begins")]
    NotCut {
        /// The rendition.
        name: RenditionName,
    },
    /// A segment or period is to begin whose number is used up.
    #[error("rendition {name} is in segment {at}: what begins has a later number, found {found}")]
    NumberUsed {
        /// The rendition.
        name: RenditionName,
        /// The segment that it is in.
        at: u64,
        /// The number found.
        found: u64,
    },
    /// A segment or period is to begin so much later that more than [`super::MAX_GAPS`] are missing.
    #[error(
        "rendition {name} has segment {next} next: at most {} may be missing, found {found}",
        super::MAX_GAPS
    )]
    TooManyGaps {
        /// The rendition.
        name: RenditionName,
        /// The number after its last segment.
        next: u64,
        /// The number found.
        found: u64,
    },
    /// What begins another period does not have the names of before, in their order.
    #[error("a period has the renditions of the one before it ({expected}), found {found}")]
    OtherRenditions {
        /// The names of before.
        expected: String,
        /// The names found.
        found: String,
    },
    /// A segment would last longer than TARGETDURATION allows.
    #[error(
        "segment {segment} of rendition {name} would last longer than the {longest_ms} ms announced"
    )]
    SegmentTooLong {
        /// The rendition.
        name: RenditionName,
        /// The segment.
        segment: u64,
        /// The longest that a segment may last.
        longest_ms: u32,
    },
    /// One rendition runs more than [`super::MAX_LEAD_SEGMENTS`] ahead of another.
    #[error(
        "rendition {name} is {} segments ahead of {behind}",
        super::MAX_LEAD_SEGMENTS
    )]
    Stalled {
        /// The rendition that was pushed.
        name: RenditionName,
        /// The one that nothing arrives for.
        behind: RenditionName,
    },
}

/// Who can do something about an [`Error`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The configuration: refuse it.
    Configuration,
    /// The encoder broke its contract: drop the sample, restart the encoder.
    Encoder,
    /// A limit was reached: the broadcast cannot go on like this.
    Limit,
    /// The caller has a bug.
    Misuse,
}

impl Error {
    /// Who can do something about it.
    #[must_use]
    pub const fn fault(&self) -> Fault {
        match self {
            Self::Config(_) | Self::NoPartTarget { .. } | Self::Unwritable { .. } => {
                Fault::Configuration
            }
            Self::RenditionCount { .. }
            | Self::DuplicateName { .. }
            | Self::UnknownRendition { .. }
            | Self::NotSourceCut
            | Self::SourceCut
            | Self::NotCut { .. }
            | Self::NumberUsed { .. }
            | Self::TooManyGaps { .. }
            | Self::OtherRenditions { .. } => Fault::Misuse,
            Self::FirstSegment { .. }
            | Self::NotContiguous { .. }
            | Self::NoKeyframe { .. }
            | Self::SegmentTooLong { .. }
            | Self::Timing { .. } => Fault::Encoder,
            Self::PartTooLarge { .. } | Self::Stalled { .. } => Fault::Limit,
        }
    }
}

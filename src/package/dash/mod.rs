//! Renders DASH from a snapshot.
//!
//! Enters: a [`Snapshot`](super::Snapshot)
//! Leaves: the MPD as text; one snapshot gives the same bytes every time
//! Never:  state of its own
//! Time:   the grid: `$Number$` and `@duration`; where the source cuts, `$Number$` and a SegmentTimeline
//! Spec:   [DASH] §5

pub(super) mod laid;
pub mod mpd;
pub(super) mod text;
mod timeline;

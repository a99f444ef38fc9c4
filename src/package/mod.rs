//! Turns samples of every rendition into CMAF parts and segments, and describes them in HLS and DASH.
//!
//! Enters: [`Sample`](crate::media::Sample)s of every [`Rendition`](crate::media::Rendition), each
//! rendition in decode order, contiguous, with the grid's key frames already in place or told where to cut
//! Leaves: [`Output`]s to store, and a [`Snapshot`] from which every manifest is rendered
//! Never:  I/O, clocks, copies of media; one broadcast never sees another
//! Time:   [`Ticks`](crate::time::Ticks) in each rendition's timescale, from the Unix epoch
//! Spec:   [CMAF] §7, [HLS], [DASH]

#![deny(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::float_arithmetic
)]

mod cmaf;
mod config;
mod cut;
mod error;
mod packager;
mod past;
mod period;
mod rates;
mod snapshot;
mod window;

pub mod dash;
pub mod dvr;
pub mod hls;
pub mod movie;
pub mod show;

pub use config::{
    Config, ConfigError, LowLatency, MAX_SEGMENT_MS, MAX_WINDOW_SEGMENTS, MIN_PART_MS,
    MIN_SEGMENT_MS, MIN_WINDOW_SEGMENTS,
};
pub use cut::Cuts;
pub use error::{Error, Fault};
pub use packager::{MAX_GAPS, MAX_LEAD_SEGMENTS, MAX_PART_BYTES, MAX_RENDITIONS, Output, Packager};
pub use past::Past;
pub use period::Period;
pub use rates::Rates;
pub use snapshot::{Outline, Part, Presentation, Segment, Snapshot};
#[cfg(test)]
pub(crate) use window::tests as made_up;

//! The words that all stages share: tracks, samples, renditions and the bytes they travel in.
//!
//! Enters: nothing; this is vocabulary
//! Leaves: [`TrackInfo`], [`Sample`], [`Rendition`], [`Payload`]
//! Never:  I/O, clocks, protocol or manifest knowledge
//! Time:   [`Ticks`](crate::time::Ticks) in each track's own timescale, from the Unix epoch
//! Spec:   [ISOBMFF], [RFC6381]

#![deny(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::float_arithmetic
)]

mod codec_config;
mod codec_string;
mod key;
mod part;
mod payload;
mod sample;
mod track;

pub use codec_config::CodecConfig;
#[cfg(test)]
pub(crate) use codec_config::made_up;
pub use codec_string::CodecString;
pub use key::{Item, ObjectKey, ObjectKeyError};
pub(crate) use part::FrameLength;
pub use part::PartTarget;
#[cfg(test)]
pub(crate) use part::tests as part_tests;
pub use payload::Payload;
pub use sample::Sample;
pub use track::{MediaKind, Rendition, TrackInfo};

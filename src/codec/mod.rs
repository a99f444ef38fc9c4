//! What the codecs' own headers say: parameter sets and configuration records, parsed and written.
//!
//! Enters: bytes of configuration records and access units, from untrusted peers and from our encoders
//! Leaves: typed parameters, next to the record's bytes exactly as they go into a sample entry
//! Never:  containers, timing, I/O
//! Spec:   [H264] §7.3, [H265] §7.3, [NALFF] §5.3, §8.3, [AAC] §1.6, [AV1] §5.5, [VP9MP4], [OPUSMP4]

#![deny(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::float_arithmetic
)]

pub mod aac;
pub mod annexb;
pub mod av1;
pub mod bits;
pub mod h264;
pub mod hevc;
pub mod opus;
pub mod video;
pub mod vp9;
mod vui;

//! Puts whatever the source sends onto the grid: one frame per slot, every sample of sound in its
//! place.
//!
//! ```text
//! decoded frames ──▶ VideoConductor ──▶ one frame per slot, IDR marks
//!                         │ how far the pictures are
//!                         ▼
//! decoded sound ──▶ AudioConductor ──▶ blocks without gap or overlap
//! ```
//!
//! Enters: decoded frames and blocks of samples, with positions that jitter, jump and overlap
//! Leaves: consecutive slots and consecutive samples, beginning exactly at the first segment
//! Never:  pixels, GStreamer, clocks: what a wall clock decides arrives as an argument
//! Time:   the Unix epoch timeline; slots of the plan's rate, samples of the plan's sample rate
//! Spec:   docs/architecture.md

#![deny(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::float_arithmetic
)]

mod audio;
mod video;

pub use audio::{AudioConductor, MAX_ALLOWANCE_MS, PCM_FRAME_BYTES};
pub use video::{MAX_HOLD_SECONDS, Slot, VideoConductor};

/// Why the conductor cannot go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The source's time jumped further ahead than a picture is held or silence is made.
    #[error("the source's time jumped {ms} ms ahead")]
    Jump {
        /// How far, in milliseconds.
        ms: i64,
    },
}

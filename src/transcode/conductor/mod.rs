//! Puts whatever the source sends onto the grid: one frame per slot, every sample of sound in its
//! place.
//!
//! ```text
//!                 ┌─────────────── Conductor ───────────────┐
//! decoded frames ─┼▶ VideoConductor: passes, holds, slate  ─┼▶ one frame per slot, IDR marks
//! the time ───────┼▶ Lateness of each: what is overdue      │
//! decoded sound ──┼▶ AudioConductor: cuts, silence, fades  ─┼▶ blocks without gap or overlap
//!                 └─────────────────────────────────────────┘
//! ```
//!
//! Enters: decoded frames and blocks of samples, with positions that jitter, jump and overlap; the time
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
mod fade;
mod follow;
mod lateness;
mod pair;
mod video;

pub use audio::{AudioConductor, MAX_ALLOWANCE_MS};
pub use fade::PCM_FRAME_BYTES;
pub use follow::{Follow, Place};
pub use pair::{Conductor, Output};
pub use video::{MAX_HOLD_SECONDS, Shown, Slot, VideoConductor};

/// How conducting goes: what is shown, and counts from the beginning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conducted {
    /// What the last slot shows. Sound alone counts as the source's.
    pub shown: Shown,
    /// Slots that show a picture again.
    pub held_slots: u64,
    /// Slots that show the slate.
    pub slate_slots: u64,
    /// How long the slate was shown altogether, in milliseconds.
    pub slate_ms: u64,
    /// Frames that were not shown because their slot was taken or past.
    pub dropped_frames: u64,
    /// How often the source's media were moved to another place, because all of it came out of place.
    pub moves: u64,
}

impl Conducted {
    /// How it goes altogether when this conductor took over from one at `before`.
    #[must_use]
    pub const fn after(self, before: Self) -> Self {
        Self {
            shown: self.shown,
            held_slots: self.held_slots.saturating_add(before.held_slots),
            slate_slots: self.slate_slots.saturating_add(before.slate_slots),
            slate_ms: self.slate_ms.saturating_add(before.slate_ms),
            dropped_frames: self.dropped_frames.saturating_add(before.dropped_frames),
            moves: self.moves.saturating_add(before.moves),
        }
    }
}

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

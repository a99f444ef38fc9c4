//! Turns what a publisher sends into typed samples on the timeline of the Unix epoch.
//!
//! Enters: bodies of FLV messages with 32-bit millisecond stamps, from untrusted peers
//! Leaves: [`Output`]: tracks, a frame rate, samples in decode order, and what had to be repaired
//! Never:  sockets, chunks, clocks, a look into slices
//! Time:   90000 per second for pictures, the sample rate for sound; the first sample lies at its arrival
//! Spec:   [FLV] annex E, [ERTMP] v2

#![deny(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::float_arithmetic
)]

pub mod cadence;
pub mod flv;
pub mod health;
pub mod sample_count;
pub mod timeline;

use crate::id::TrackId;
use crate::media::{MediaKind, Sample, TrackInfo};
use crate::time::{FrameRate, Ticks, Timescale};

/// The furthest that a picture is shown from its decoding, either way. Sixteen reference frames at one frame
/// per second would need more; nothing live does, and a larger offset is damage.
pub const MAX_COMPOSITION_MS: i32 = 5_000;

/// Who has to act on an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The bytes are malformed: close the connection.
    PeerMisbehaved,
    /// The bytes are right, but not taken here: close, and tell the streamer what to set.
    PeerUnsupported,
}

/// What a demuxer says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// A track begins, or goes on with other parameters. Precedes the samples that need it.
    Track(TrackInfo),
    /// The frame rate of the pictures was decided. Said once; again only if time proves another one.
    FrameRate(FrameRate),
    /// One access unit.
    Sample {
        /// The track it belongs to.
        track: TrackId,
        /// The access unit, in the timescale of its track.
        sample: Sample,
    },
    /// Something in the input was wrong and is not so in the output. To be counted.
    Repair(Repair),
}

/// One thing that was put right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Repair {
    /// A sample was left out.
    Dropped {
        /// Of which kind.
        kind: MediaKind,
        /// Why.
        reason: DropReason,
    },
    /// The clock of a track jumped; it goes on where it was, or after a wait by the wall clock.
    ClockJump {
        /// The jump as the stamps have it, in milliseconds.
        by_ms: i64,
    },
    /// The clock of a track counts in 24 bits and began again at zero; nothing moved.
    Wrapped,
    /// The publisher stayed behind the wall clock, or what had held it back came after all: both tracks were
    /// placed anew.
    Reanchored {
        /// By how much, in milliseconds; negative: earlier. Of a return in several steps, the first.
        by_ms: i64,
    },
    /// The publisher's clock runs fast or slow; both tracks are being moved, too slowly to be noticed.
    Slewed {
        /// By how much, in milliseconds.
        by_ms: i64,
    },
    /// A track that had changed its clock alone was put back to its distance from the other.
    Realigned {
        /// Of which kind.
        kind: MediaKind,
        /// By how much, in milliseconds.
        by_ms: i64,
    },
    /// The clocks of the tracks have drifted apart; this one is being moved alone, too slowly to be noticed.
    TrackSlewed {
        /// Of which kind.
        kind: MediaKind,
        /// By how much, in milliseconds.
        by_ms: i64,
    },
    /// Samples are missing; what follows keeps its own place.
    Gap {
        /// Of which kind.
        kind: MediaKind,
        /// How many samples would have filled it.
        samples: u64,
    },
    /// A stamp was not later than the one before; the sample was moved behind its predecessor.
    Nudged {
        /// Of which kind.
        kind: MediaKind,
    },
    /// A composition offset beyond [`MAX_COMPOSITION_MS`] was cut to it.
    CompositionClamped {
        /// As sent, in milliseconds.
        found_ms: i32,
    },
    /// A body with start codes was rewritten with lengths.
    StartCodes,
}

impl Repair {
    /// The names of all kinds of repair, as metrics and the API use them.
    pub const NAMES: [&'static str; 11] = [
        "dropped",
        "clock_jump",
        "wrap_24",
        "reanchored",
        "slewed",
        "realigned",
        "gap",
        "nudged",
        "composition_offset",
        "start_codes",
        "track_slewed",
    ];

    /// Whether samples of `kind` may lie elsewhere from now on, farther from those before than they were sent.
    #[must_use]
    pub(crate) fn moves(&self, kind: MediaKind) -> bool {
        match self {
            Self::ClockJump { .. } | Self::Reanchored { .. } => true,
            Self::Realigned { kind: moved, .. } => *moved == kind,
            _ => false,
        }
    }

    /// The place of this kind in [`Self::NAMES`].
    #[must_use]
    pub const fn index(&self) -> usize {
        match self {
            Self::Dropped { .. } => 0,
            Self::ClockJump { .. } => 1,
            Self::Wrapped => 2,
            Self::Reanchored { .. } => 3,
            Self::Slewed { .. } => 4,
            Self::Realigned { .. } => 5,
            Self::Gap { .. } => 6,
            Self::Nudged { .. } => 7,
            Self::CompositionClamped { .. } => 8,
            Self::StartCodes => 9,
            Self::TrackSlewed { .. } => 10,
        }
    }
}

/// Why a sample was left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DropReason {
    /// No sequence header came before it.
    NoSequenceHeader,
    /// No key frame came before it.
    NoKeyFrame,
    /// It holds nothing.
    Empty,
    /// It belongs to a second track of its kind. Told once of each kind.
    OtherTrack,
}

/// A promise of [`Output`] that a row of outputs does not keep.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Violation {
    /// A sample before its track.
    #[error("output {at}: a sample of track {track} before the track")]
    UnknownTrack {
        /// Place in the row.
        at: usize,
        /// Its track.
        track: TrackId,
    },
    /// Decode time does not increase.
    #[error("output {at}: decode time of track {track} does not increase")]
    DecodeOrder {
        /// Place in the row.
        at: usize,
        /// Its track.
        track: TrackId,
    },
    /// A composition offset beyond the limit, or no duration.
    #[error("output {at}: composition offset or duration of track {track} is out of range")]
    Range {
        /// Place in the row.
        at: usize,
        /// Its track.
        track: TrackId,
    },
}

/// Checks a whole row of outputs of one demuxer: tracks precede their samples, decode times strictly increase
/// along a track, presentation stays near decoding, no duration is zero. For tests and fuzzing.
///
/// # Errors
/// The first [`Violation`].
pub fn check_invariants(outputs: &[Output]) -> Result<(), Violation> {
    let mut tracks: Vec<(TrackId, Timescale, Option<Ticks>)> = Vec::new();
    for (at, output) in outputs.iter().enumerate() {
        match output {
            Output::Track(info) => match tracks.iter_mut().find(|(id, ..)| *id == info.id) {
                Some((_, scale, last)) => {
                    *last = last.map(|last| last.at(*scale).rescale_floor(info.timescale));
                    *scale = info.timescale;
                }
                None => tracks.push((info.id, info.timescale, None)),
            },
            Output::Sample { track, sample } => {
                let track = *track;
                let Some((_, scale, last)) = tracks.iter_mut().find(|(id, ..)| *id == track) else {
                    return Err(Violation::UnknownTrack { at, track });
                };
                if last.is_some_and(|last| sample.dts <= last) {
                    return Err(Violation::DecodeOrder { at, track });
                }
                *last = Some(sample.dts);
                let limit = i64::from(scale.get()) * i64::from(MAX_COMPOSITION_MS + 1_000) / 1_000;
                let offset = sample.composition_offset().get();
                if !(-limit..=limit).contains(&offset) || sample.duration.get() == 0 {
                    return Err(Violation::Range { at, track });
                }
            }
            Output::FrameRate(_) | Output::Repair(_) => {}
        }
    }
    Ok(())
}

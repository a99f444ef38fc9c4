//! Hands a source's own samples on as renditions, cut at its key frames.
//!
//! ```text
//! samples ─▶ Opening ─▶ Timing (of each track) ─▶ Relay ─▶ outputs
//!           (first GOP)  durations, holes          cuts, periods
//! ```
//!
//! Enters: tracks and samples of one source after the other, each track's in decode order
//! Leaves: [`Output`]s: the renditions once, then samples with the same bytes and the exact distance to the
//!         next, each after the [`Output::Cut`] or [`Output::Period`] that it begins
//! Never:  clocks, a look into bytes; a moved or reordered sample
//! Time:   positions as they come; inside, nanoseconds from the Unix epoch
//! Spec:   docs/architecture.md
//!
//! Pictures lead: a segment ends at their first key frame a target duration or more after its start, and the
//! sound follows with its first access unit at or after that. So sound waits until it is known how far the
//! pictures are. Sound alone leads itself, along the grid.

#![deny(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::float_arithmetic
)]

mod follower;
mod merger;
mod opening;
mod relay;
mod timing;
mod waiting;

use std::collections::VecDeque;

pub use self::merger::Merger;
use self::opening::Opening;
use self::relay::Relay;
use crate::id::{SegmentNumber, TrackId};
use crate::media::{MediaKind, Rendition, Sample, TrackInfo};
use crate::time::{Grid, MediaTime, Timescale};

/// The name of the copied pictures. Their size may change within a broadcast; an address may not.
pub const VIDEO_NAME: &str = "vcopy";
/// The name of the copied sound.
pub const AUDIO_NAME: &str = "acopy";

const MS: i64 = 1_000_000;

/// What comes out of a [`Copier`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// What the renditions are, pictures first, and the number of their first segment. Once, before all else.
    Opened {
        /// The renditions.
        renditions: Vec<Rendition>,
        /// The number of the first segment of each.
        first: SegmentNumber,
        /// The longest that a segment of this broadcast is meant to be, in milliseconds: a whole number of
        /// seconds, above which none ends by more than is rounded off.
        longest_ms: u32,
    },
    /// The next sample of the rendition begins this segment: the first of a period, or one more than the
    /// segment before it, which has nothing if no sample came in between.
    Cut {
        /// Index into the renditions.
        rendition: usize,
        /// The segment's number.
        number: SegmentNumber,
    },
    /// One access unit.
    Sample {
        /// Index into the renditions.
        rendition: usize,
        /// The access unit, with its bytes and times as it came, lasting to the next one.
        sample: Sample,
    },
    /// The timeline breaks: what follows, of every rendition, is of another period.
    Period {
        /// The renditions, in the same order and with the same names.
        renditions: Vec<Rendition>,
        /// The number of the first segment of each in it.
        first: SegmentNumber,
    },
}

/// What a [`Copier`] could not do as it should.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Segments that begin without a key frame, because none came in time.
    pub keyless_cuts: u64,
    /// Samples that have no place: before the first key frame of a period, or after their segment was given up.
    pub left_out: u64,
    /// Periods after the first.
    pub periods: u64,
}

/// Copies one broadcast. Drain [`Self::poll_output`] to `None` after every other call.
#[derive(Debug)]
pub struct Copier {
    grid: Grid,
    first: SegmentNumber,
    tracks: Tracks,
    stage: Stage,
    outputs: VecDeque<Output>,
}

/// The tracks as announced last.
#[derive(Clone, Debug, Default)]
struct Tracks {
    video: Option<TrackInfo>,
    audio: Option<TrackInfo>,
}

#[derive(Debug)]
enum Stage {
    Opening(Opening),
    Running(Box<Relay>),
}

impl Copier {
    /// A copier whose segments last `grid`'s target or longer, and whose first is no earlier than `first`.
    #[must_use]
    pub fn new(grid: Grid, first: SegmentNumber) -> Self {
        Self {
            grid,
            first,
            tracks: Tracks::default(),
            stage: Stage::Opening(Opening::new(grid)),
            outputs: VecDeque::new(),
        }
    }

    /// Takes the announcement of a track, or of a change of one. Whether it is published: a track that was
    /// not there when the broadcast opened is not.
    pub fn track(&mut self, info: TrackInfo) -> bool {
        let kind = info.codec.kind();
        let known = self.tracks.of_mut(kind);
        if known.as_ref() == Some(&info) {
            return match &self.stage {
                Stage::Opening(_) => true,
                Stage::Running(relay) => relay.has(kind),
            };
        }
        let is_change = known.replace(info.clone()).is_some();
        match &mut self.stage {
            Stage::Opening(opening) => {
                if is_change {
                    // What was gathered is of another kind than what will be published.
                    *opening = Opening::new(self.grid);
                }
                true
            }
            Stage::Running(relay) => relay.change(info, &mut self.outputs),
        }
    }

    /// Takes the next access unit of a track; one of a track that is not known is left out.
    pub fn sample(&mut self, track: TrackId, sample: Sample) {
        let Some(info) = self.tracks.by_id(track) else {
            return;
        };
        let kind = info.codec.kind();
        match &mut self.stage {
            Stage::Running(relay) => relay.push(kind, sample, &mut self.outputs),
            Stage::Opening(opening) => {
                let at = nanos(sample.dts.at(info.timescale));
                opening.push(kind, sample, at);
                if opening.is_ready(&self.tracks) {
                    self.open();
                }
            }
        }
    }

    /// The source has gone; another one may come, which begins a period.
    pub fn detach(&mut self) {
        match &mut self.stage {
            // The renditions are those of the source that is there.
            Stage::Opening(opening) => {
                *opening = Opening::new(self.grid);
                self.tracks = Tracks::default();
            }
            Stage::Running(relay) => relay.detach(&mut self.outputs),
        }
    }

    /// No more will come. A broadcast that was too short to open does so now.
    pub fn finish(&mut self) {
        if matches!(self.stage, Stage::Opening(_)) {
            self.open();
        }
        if let Stage::Running(relay) = &mut self.stage {
            relay.detach(&mut self.outputs);
        }
    }

    /// The next output, in order.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// What could not be done as it should, so far.
    #[must_use]
    pub fn counts(&self) -> Counts {
        match &self.stage {
            Stage::Opening(_) => Counts::default(),
            Stage::Running(relay) => relay.counts(),
        }
    }

    /// Opens with what has been gathered, if that is anything.
    fn open(&mut self) {
        let Stage::Opening(opening) = &mut self.stage else {
            return;
        };
        let opening = std::mem::replace(opening, Opening::new(self.grid));
        let Some(opened) = opening.open(&self.tracks) else {
            return;
        };
        let mut relay = Relay::new(self.grid, self.first, opened.plan);
        for (kind, sample) in opened.samples {
            relay.push(kind, sample, &mut self.outputs);
        }
        self.stage = Stage::Running(Box::new(relay));
    }
}

impl Tracks {
    const fn of_mut(&mut self, kind: MediaKind) -> &mut Option<TrackInfo> {
        match kind {
            MediaKind::Video => &mut self.video,
            MediaKind::Audio => &mut self.audio,
        }
    }

    fn by_id(&self, id: TrackId) -> Option<&TrackInfo> {
        let mut all = self.video.iter().chain(&self.audio);
        all.find(|info| info.id == id)
    }
}

/// The instant in nanoseconds. Distinct ticks of common timescales stay distinct and in order: 90 kHz and
/// 44.1 kHz lie 75 ns apart at least.
fn nanos(at: MediaTime) -> i64 {
    at.rescale_floor(Timescale::NANOS).get()
}

#[cfg(test)]
mod merger_tests;
#[cfg(test)]
mod tests;

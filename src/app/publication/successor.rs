//! A transcoder that is about to take the place of the one that a broadcast began with.
//!
//! Enters: what comes out of it, and how far the one before has come
//! Leaves: the segment with which it takes over; what it has made of that until then; why it is of no use
//! Never:  holds more than [`MAX_HELD`]; makes the one before wait
//! Time:   the samples'
//! Spec:   docs/resilience.md

use std::time::Duration;

use tokio::time::Instant;

use crate::id::SegmentNumber;
use crate::media::{MediaKind, Rendition, Sample};
use crate::package;
use crate::time::{Grid, Timescale};
use crate::transcode::{self, Cuts, Output, Outputs};

/// The most samples that are held until the one before has come as far: some seconds of any ladder.
const MAX_HELD: usize = 8_192;

/// How long one may take to take over: a machine that is busy starts a worker in some seconds.
const PATIENCE: Duration = Duration::from_secs(30);

/// How far it may be behind the one before when it takes over, in microseconds: what plays waits for what lags. The
/// slowest encoders hold back more than a second.
const MAX_LAG_US: i64 = 3_000_000;

/// Why a successor is of no use.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(super) enum Unfit {
    /// It says so itself.
    #[error(transparent)]
    Failed(transcode::Error),
    /// It is too slow.
    #[error("it has not taken over within {} s", PATIENCE.as_secs())]
    Late,
    /// It has come to its end.
    #[error("it ended before it had taken over")]
    Ended,
    /// It makes something else than pictures on the grid.
    #[error("what it makes cannot go on where the other one ends")]
    Other,
    /// The one before does not come as far.
    #[error("it made more than {MAX_HELD} samples before it had taken over")]
    TooMuch,
    /// What it makes cannot be packaged.
    #[error("the packager refused its renditions: {0}")]
    Package(package::Error),
}

/// What becomes of a successor, for whoever feeds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::app) enum Told {
    /// It has taken over: the one before goes on in case that it fails soon.
    TookOver,
    /// It has proven itself: the one before is of no use any more.
    Proven,
    /// It has failed soon after it took over: the one before has taken its place.
    FellBack,
    /// It is of no use: the one before goes on.
    Failed,
}

/// A transcoder that has not taken over yet.
pub(super) struct Successor {
    outputs: Outputs,
    grid: Grid,
    renditions: Vec<Rendition>,
    /// The segment with which it takes over, once it is certain that it can.
    at: Option<SegmentNumber>,
    held: Vec<(usize, Sample)>,
    /// How far each rendition has come.
    come_us: Vec<i64>,
    /// What rests, and up to which segment.
    resting: Vec<(usize, SegmentNumber)>,
    deadline: Instant,
}

/// What a successor has made.
pub(super) struct Succession {
    /// What it makes further.
    pub(super) outputs: Outputs,
    /// Its renditions, in its order.
    pub(super) renditions: Vec<Rendition>,
    /// The first segment of it that counts.
    pub(super) at: SegmentNumber,
    /// What there is of that.
    pub(super) held: Vec<(usize, Sample)>,
    /// What has nothing of it before this segment.
    pub(super) resting: Vec<(usize, SegmentNumber)>,
}

impl Successor {
    /// One whose renditions are cut on `grid`.
    pub(super) fn new(outputs: Outputs, grid: Grid) -> Self {
        Self {
            outputs,
            grid,
            renditions: Vec::new(),
            at: None,
            held: Vec::new(),
            come_us: Vec::new(),
            resting: Vec::new(),
            deadline: Instant::now() + PATIENCE,
        }
    }

    /// What comes out of it next. Cancel safe.
    pub(super) async fn next(&mut self) -> Option<Output> {
        self.outputs.next().await
    }

    /// Until when it is waited for.
    pub(super) const fn deadline(&self) -> Instant {
        self.deadline
    }

    /// The segment with which it takes over, if that is certain.
    pub(super) const fn at(&self) -> Option<SegmentNumber> {
        self.at
    }

    /// Takes note of what it has made; `free` is the first segment of which nothing has been begun.
    ///
    /// # Errors
    /// It is of no use.
    pub(super) fn take(
        &mut self,
        output: Option<Output>,
        free: impl FnOnce() -> SegmentNumber,
    ) -> Result<(), Unfit> {
        match output {
            Some(Output::Opened { renditions, cuts }) => {
                self.come_us = vec![i64::MIN; renditions.len()];
                self.renditions = renditions;
                let mut kinds = self.renditions.iter().map(|r| r.codec.kind());
                let is_fit = cuts == Cuts::Grid && kinds.any(|kind| kind == MediaKind::Video);
                is_fit.then_some(()).ok_or(Unfit::Other)
            }
            Some(Output::Sample { rendition, sample }) => {
                let scale = self.renditions.get(rendition).map(|r| r.timescale);
                let at = sample.dts.at(scale.ok_or(Unfit::Other)?);
                self.come(rendition, at.to_wall().as_micros());
                let number = self.grid.segment_at(at);
                let at = *self.at.get_or_insert_with(|| number.max(free()));
                if number >= at {
                    self.held.push((rendition, sample));
                }
                let is_bounded = self.held.len() <= MAX_HELD;
                is_bounded.then_some(()).ok_or(Unfit::TooMuch)
            }
            Some(Output::Rest {
                rendition,
                until,
                soon: false,
            }) => {
                self.resting.retain(|(other, _)| *other != rendition);
                self.resting.push((rendition, until));
                self.come(rendition, self.start_us(until));
                Ok(())
            }
            // What it says of itself counts once it has taken over; it says it again.
            Some(
                Output::Conducted(_) | Output::Load(_) | Output::GivenUp(_) | Output::Rest { .. },
            ) => Ok(()),
            // What dies so soon may die for good once everything depends on it.
            Some(Output::Failed(error) | Output::Restarted { cause: error, .. }) => {
                Err(Unfit::Failed(error))
            }
            Some(Output::Cut { .. } | Output::Period { .. }) => Err(Unfit::Other),
            Some(Output::Finished) | None => Err(Unfit::Ended),
        }
    }

    fn come(&mut self, rendition: usize, at_us: i64) {
        if let Some(come_us) = self.come_us.get_mut(rendition) {
            *come_us = at_us.max(*come_us);
        }
    }

    fn start_us(&self, number: SegmentNumber) -> i64 {
        let start = self.grid.start_of(number, Timescale::MICROS);
        start.at(Timescale::MICROS).to_wall().as_micros()
    }

    /// The one before has come to segment `at`: the next one with which to take over, if this one lags so far that
    /// it would be waited for.
    pub(super) fn put_off(&mut self, at: SegmentNumber) -> Option<SegmentNumber> {
        let least_us = self.start_us(at).saturating_sub(MAX_LAG_US);
        let lags = self.come_us.iter().any(|come_us| *come_us < least_us);
        if !lags {
            return None;
        }
        let later = at.next();
        self.at = Some(later);
        let (grid, renditions) = (self.grid, &self.renditions);
        self.held.retain(|(rendition, sample)| {
            let scale = renditions.get(*rendition).map(|r| r.timescale);
            scale.is_some_and(|scale| grid.segment_at(sample.dts.at(scale)) >= later)
        });
        Some(later)
    }

    /// What it has made, if it can take over.
    pub(super) fn into_succession(self) -> Option<Succession> {
        let at = self.at?;
        let resting = self.resting.into_iter();
        Some(Succession {
            at,
            outputs: self.outputs,
            renditions: self.renditions,
            held: self.held,
            resting: resting.filter(|(_, until)| *until > at).collect(),
        })
    }
}

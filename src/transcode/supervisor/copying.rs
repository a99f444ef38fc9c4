//! Serves a ladder that only copies, in the server's own process.
//!
//! Enters: tracks and samples of one source
//! Leaves: [`Output`]s: its own samples, cut at its key frames
//! Never:  a worker; anything to show while the source sends nothing
//! Time:   the samples'
//! Spec:   [`crate::transcode::copy`]

use super::{Cuts, Input, Output, queue};
use crate::id::{SegmentNumber, StreamName};
use crate::time::Grid;
use crate::transcode::copy::{self, Copier, Counts};

/// How often what could not be done is said again, in segments without a key frame.
const REMINDER_CUTS: u64 = 100;

/// One broadcast that is copied.
#[derive(Debug)]
pub(super) struct Copying {
    stream: StreamName,
    inputs: queue::Receiver,
    copier: Copier,
    told: Counts,
    /// Whether the source has ended, and whether that was said.
    is_over: bool,
    has_finished: bool,
}

impl Copying {
    pub(super) fn new(
        stream: StreamName,
        (grid, first): (Grid, SegmentNumber),
        inputs: queue::Receiver,
    ) -> Self {
        Self {
            stream,
            inputs,
            copier: Copier::new(grid, first),
            told: Counts::default(),
            is_over: false,
            has_finished: false,
        }
    }

    /// The next output; `None` after the last. Cancel safe.
    pub(super) async fn next(&mut self) -> Option<Output> {
        loop {
            if let Some(output) = self.copier.poll_output() {
                return Some(hand_on(output));
            }
            tell(&self.stream, &mut self.told, self.copier.counts());
            if self.is_over {
                let is_first = !std::mem::replace(&mut self.has_finished, true);
                return is_first.then_some(Output::Finished);
            }
            let input = self.inputs.recv().await;
            self.is_over = input.is_none();
            take(&mut self.copier, input, &self.stream);
        }
    }
}

pub(super) fn take(copier: &mut Copier, input: Option<Input>, stream: &StreamName) {
    match input {
        Some(Input::Sample(track, sample)) => copier.sample(track, sample),
        Some(Input::Track(info)) => {
            let kind = info.codec.kind();
            if !copier.track(info) {
                tracing::warn!(%stream, ?kind, "a track that was not there when the broadcast \
                    began is left out: a broadcast that only copies keeps the tracks it began with");
            }
        }
        Some(Input::Detach) => copier.detach(),
        // Nothing can be made up for what does not come.
        Some(Input::Clock(_)) => {}
        None => copier.finish(),
    }
}

pub(super) fn hand_on(output: copy::Output) -> Output {
    match output {
        copy::Output::Opened {
            renditions,
            first,
            longest_ms,
        } => Output::Opened {
            renditions,
            cuts: Cuts::Source { first, longest_ms },
        },
        copy::Output::Cut { rendition, number } => Output::Cut { rendition, number },
        copy::Output::Sample { rendition, sample } => Output::Sample { rendition, sample },
        copy::Output::Period { renditions, first } => Output::Period { renditions, first },
    }
}

/// Says in the log what streamers can mend.
pub(super) fn tell(stream: &StreamName, told: &mut Counts, counts: Counts) {
    let due = counts.keyless_cuts.saturating_sub(told.keyless_cuts);
    if due > 0 && (told.keyless_cuts == 0 || due >= REMINDER_CUTS) {
        tracing::warn!(%stream, cuts = counts.keyless_cuts,
            "no key frame came in time, so that a segment begins without one and nobody can start there; \
             in OBS: Settings > Output > Streaming > Keyframe interval: set 2 s");
        told.keyless_cuts = counts.keyless_cuts;
    }
    if counts.periods > told.periods {
        tracing::info!(%stream, periods = counts.periods, left_out = counts.left_out,
            "the source's timeline breaks: a new period begins");
        told.periods = counts.periods;
    }
}

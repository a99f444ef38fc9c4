//! The transcoder of sound that another one, with pictures, has taken the place of, until that has proven itself.
//!
//! Enters: what comes out of it, and how far the one on air has come
//! Leaves: what it has made beyond that, if the one on air fails
//! Never:  holds more than [`MAX_HELD`]
//! Time:   the samples'; tokio's clock for how long the other one has delivered
//! Spec:   docs/resilience.md

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use crate::media::{Rendition, Sample};
use crate::time::Ticks;
use crate::transcode::{Output, Outputs};

/// How long a worker of a transcoder that took over has to deliver until that has proven itself: somewhat longer than
/// any worker has to, because no transcoder ends with one that has.
const PROBATION: Duration = Duration::from_secs(12);

/// The most samples that are held of each sound: more than come while three workers hang, one after the other.
const MAX_HELD: usize = 8_192;

pub(super) struct Former {
    outputs: Outputs,
    renditions: Vec<Rendition>,
    /// What it has made beyond what is on air, by rendition.
    held: Vec<VecDeque<Sample>>,
    /// How far what is on air has come, by rendition.
    ends: Vec<Option<Ticks>>,
    /// When the worker that is on air began to deliver.
    since: Option<Instant>,
    /// Whether its source has ended, and it has made all that it will.
    has_finished: bool,
}

impl Former {
    /// The one whose `renditions` come out of `outputs`, and that has made what is `beyond`.
    pub(super) fn new(
        outputs: Outputs,
        renditions: Vec<Rendition>,
        beyond: Vec<(usize, Sample)>,
    ) -> Self {
        let mut held = vec![VecDeque::new(); renditions.len()];
        for (rendition, sample) in beyond {
            if let Some(held) = held.get_mut(rendition) {
                held.push_back(sample);
            }
        }
        Self {
            outputs,
            held,
            ends: vec![None; renditions.len()],
            renditions,
            since: None,
            has_finished: false,
        }
    }

    /// What comes out of it next; nothing once it has finished. Cancel safe.
    pub(super) async fn next(&mut self) -> Option<Output> {
        if self.has_finished {
            std::future::pending().await
        }
        self.outputs.next().await
    }

    /// Whether nothing more comes out of it.
    pub(super) const fn has_finished(&self) -> bool {
        self.has_finished
    }

    /// Whether the worker that is on air has not delivered anything yet. If it comes to its end so, it has failed: one
    /// that was to begin with the next key frame ends in peace where there is none.
    pub(super) const fn is_needed(&self) -> bool {
        self.since.is_none()
    }

    /// A worker of the other one has died: it is to prove itself anew.
    pub(super) const fn wait_on(&mut self) {
        self.since = None;
    }

    /// Takes note of what it has made; itself, if it may still be of use.
    pub(super) fn take(mut self, output: Option<Output>) -> Option<Self> {
        let is_of_use = match output {
            Some(Output::Sample { rendition, sample }) => {
                let held = self.held.get_mut(rendition)?;
                let end = self.ends.get(rendition).copied().flatten();
                if end.is_none_or(|end| sample.dts >= end) {
                    held.push_back(sample);
                }
                held.len() <= MAX_HELD
            }
            // What it has made is of use until the other one has come to its end too.
            Some(Output::Finished) => {
                self.has_finished = true;
                true
            }
            Some(Output::Failed(_)) | None => false,
            // What it says of itself counts for nothing.
            Some(_) => true,
        };
        is_of_use.then_some(self)
    }

    /// Takes note that the other one has delivered `rendition` up to `end`; whether it has proven itself.
    pub(super) fn pass(&mut self, rendition: usize, end: Option<Ticks>) -> bool {
        if let Some((held, end)) = self.held.get_mut(rendition).zip(end) {
            if let Some(reached) = self.ends.get_mut(rendition) {
                *reached = Some(end);
            }
            while held.front().is_some_and(|sample| sample.dts < end) {
                held.pop_front();
            }
        }
        self.since.get_or_insert_with(Instant::now).elapsed() >= PROBATION
    }

    /// What comes out of it from now on, how far each of its renditions has come without it, and what it has made
    /// beyond that until now, in order of time.
    pub(super) fn into_parts(self) -> (Outputs, Vec<Option<Ticks>>, Vec<(usize, Sample)>) {
        let scales: Vec<_> = self.renditions.iter().map(|r| r.timescale).collect();
        let held = self.held.into_iter().zip(scales).enumerate();
        let mut all: Vec<_> = held
            .flat_map(|(index, (held, scale))| {
                let at = move |sample: &Sample| sample.dts.at(scale).to_wall();
                held.into_iter().map(move |s| (at(&s), index, s))
            })
            .collect();
        all.sort_by_key(|(at, ..)| *at);
        let held = all.into_iter().map(|(_, index, sample)| (index, sample));
        (self.outputs, self.ends, held.collect())
    }
}

//! What a copier said that was not passed on yet.
//!
//! Enters: outputs of the copier, each with its instant
//! Leaves: the same, in order
//! Never:  decides when
//! Time:   nanoseconds from the Unix epoch
//! Spec:   none

use std::collections::VecDeque;

use super::Output;

/// The most that waits: twice what is held before a broadcast opens.
const MAX_WAITING: usize = 16_384;
/// The same in bytes: what waits for the sound before a period, as much again.
const MAX_WAITING_BYTES: usize = 128 << 20;

#[derive(Debug, Default)]
pub(super) struct Waiting {
    queue: VecDeque<(Output, i64)>,
    bytes: usize,
}

impl Waiting {
    pub(super) fn push_back(&mut self, output: Output, at: i64) {
        self.bytes += bytes(&output);
        self.queue.push_back((output, at));
    }

    /// Puts back what was taken last.
    pub(super) fn push_front(&mut self, output: Output, at: i64) {
        self.bytes += bytes(&output);
        self.queue.push_front((output, at));
    }

    pub(super) fn pop_front(&mut self) -> Option<(Output, i64)> {
        let (output, at) = self.queue.pop_front()?;
        self.bytes -= bytes(&output);
        Some((output, at))
    }

    pub(super) fn front(&self) -> Option<&(Output, i64)> {
        self.queue.front()
    }

    /// Where the first sample lies, but for the first `count` of all.
    pub(super) fn begin(&self, count: usize) -> Option<i64> {
        let mut waiting = self.queue.iter().skip(count);
        let first = waiting.find(|(output, _)| matches!(output, Output::Sample { .. }));
        first.map(|(_, at)| *at)
    }

    /// Whether more waits than may.
    pub(super) fn is_full(&self) -> bool {
        self.queue.len() > MAX_WAITING || self.bytes > MAX_WAITING_BYTES
    }
}

fn bytes(output: &Output) -> usize {
    match output {
        Output::Sample { sample, .. } => sample.data.len(),
        Output::Opened { .. } | Output::Period { .. } | Output::Cut { .. } => 0,
    }
}

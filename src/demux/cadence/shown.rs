//! Remembers when the latest pictures are shown, to tell a wrong decode stamp from a wrong presentation.
//!
//! Enters: for each picture, when it is shown, and its composition offset as it was sent
//! Leaves: whether a picture is shown at an instant already; whether an offset is one that is usual
//! Never:  more than [`MAX_SHOWN`] pictures
//! Time:   90 kHz ticks from the Unix epoch
//! Spec:   none

use std::collections::VecDeque;

use super::MS;

/// Pictures that are remembered: more than any encoder holds back to reorder them.
const MAX_SHOWN: usize = 32;

/// Offsets within this are the same: both of their stamps are rounded to milliseconds.
const SAME_OFFSET: i64 = 2 * MS;

#[derive(Clone, Copy, Debug)]
struct Picture {
    at: i64,
    offset: i64,
    /// Its decode stamp was where it was expected.
    is_regular: bool,
}

/// The latest pictures.
#[derive(Clone, Debug, Default)]
pub(super) struct Shown(VecDeque<Picture>);

impl Shown {
    /// A picture is shown at `at`, and was sent with `offset`.
    pub(super) fn push(&mut self, at: i64, offset: i64, is_regular: bool) {
        if self.0.len() >= MAX_SHOWN {
            self.0.pop_front();
        }
        self.0.push_back(Picture {
            at,
            offset,
            is_regular,
        });
    }

    /// Whether one is shown nearer to `at` than half of `period`.
    pub(super) fn is_taken(&self, at: i64, period: i64) -> bool {
        let is_near = |other: &Picture| other.at.abs_diff(at) < (period / 2).unsigned_abs();
        self.0.iter().any(is_near)
    }

    /// Whether one whose decode stamp was right had this offset.
    pub(super) fn is_usual(&self, offset: i64) -> bool {
        let is_same = |other: &Picture| {
            other.is_regular && other.offset.abs_diff(offset) <= SAME_OFFSET.unsigned_abs()
        };
        self.0.iter().any(is_same)
    }
}

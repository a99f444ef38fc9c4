//! What waits until it is known where the pictures are cut: their sound, or pictures that are encoded anew.
//!
//! Enters: the follower's samples; cuts, as the pictures make them
//! Leaves: the samples in order, each cut before the first sample at or after it; cuts of segments that it
//!         has nothing for
//! Never:  decides where to cut
//! Time:   nanoseconds from the Unix epoch
//! Spec:   none

use std::collections::VecDeque;

use super::MS;
use super::timing::{Timed, Timing};
use crate::id::SegmentNumber;
use crate::media::Sample;
use crate::time::Timescale;

/// The longest that an access unit of sound is said to last to hide that some are missing.
const STRETCH: i64 = 250 * MS;
/// How much longer than that of the pictures a segment of sound may be, so that it is rounded as theirs.
const OVERHANG: i64 = 49 * MS;
/// The most that waits: patience, of the shortest access units that are usual.
const MAX_QUEUED: usize = 4_096;
/// The same in bytes: patience, of sound that nobody compresses.
const MAX_QUEUED_BYTES: usize = 32 << 20;

/// One piece of what the follower passes on.
pub(super) enum Piece {
    Cut(SegmentNumber),
    Sample(Sample),
}

#[derive(Debug)]
pub(super) struct Follower {
    pub(super) timing: Timing,
    /// How long after its cut a segment may begin; one that would begin later is left out.
    reach: i64,
    /// The run of what comes now.
    pub(super) run: u64,
    /// The newest that came of this source.
    pub(super) latest: Option<i64>,
    /// How far the leading track may be ahead before it goes on alone, and the longest segment.
    patience: i64,
    longest: i64,
    queue: VecDeque<Timed>,
    /// Segments that the pictures have begun, and where.
    cuts: VecDeque<(SegmentNumber, i64)>,
    /// What lies before is too late.
    floor: i64,
    /// Where the segment of now began.
    start: Option<i64>,
    /// It was away when its segment was given up, and comes back with the next.
    skips: bool,
    /// Where what was passed on ends, and where the last of it began.
    pub(super) end: i64,
    pub(super) last: i64,
    pub(super) left_out: u64,
}

impl Follower {
    pub(super) const fn new(scale: Timescale, limits: (i64, i64)) -> Self {
        Self::with(Timing::new(scale, STRETCH), limits, i64::MAX)
    }

    /// A follower of pictures that begin segments within `reach` of their cuts.
    pub(super) const fn with(timing: Timing, (patience, longest): (i64, i64), reach: i64) -> Self {
        Self {
            timing,
            reach,
            run: 0,
            latest: None,
            patience,
            longest,
            queue: VecDeque::new(),
            cuts: VecDeque::new(),
            floor: 0,
            start: None,
            skips: false,
            end: i64::MIN,
            last: i64::MIN,
            left_out: 0,
        }
    }

    pub(super) fn push(&mut self, sample: Sample) {
        self.latest = Some(super::nanos(sample.dts.at(self.timing.scale())));
        let timed = self.timing.push(sample, self.run);
        self.queue.extend(timed);
    }

    /// Gives up waiting for the length of the last sample.
    pub(super) fn flush(&mut self) {
        self.queue.extend(self.timing.flush());
    }

    /// The same of one that ends at `end`, if that lies after it, and no later than where the next segment begins.
    pub(super) fn flush_until(&mut self, end: i64) {
        let Some((held, expected)) = self.timing.held() else {
            return;
        };
        let end = if end > held { end } else { expected };
        let mut cuts = self.cuts.iter().map(|(_, cut)| *cut);
        let next = cuts.find(|cut| *cut > held).unwrap_or(end);
        self.queue.extend(self.timing.flush_until(end.min(next)));
    }

    pub(super) fn cut(&mut self, number: SegmentNumber, at: i64) {
        self.cuts.push_back((number, at));
    }

    /// The next sample of `run`; older ones are left out.
    pub(super) fn front(&mut self, run: u64) -> Option<&Timed> {
        while self.queue.front().is_some_and(|timed| timed.run < run) {
            self.leave_out();
        }
        self.queue.front().filter(|timed| timed.run == run)
    }

    /// The next sample, of whichever run.
    pub(super) fn newest_front(&self) -> Option<&Timed> {
        self.queue.front()
    }

    /// Whether more waits than may.
    pub(super) fn is_full(&self) -> bool {
        let bytes = self.queue.iter().map(|timed| timed.sample.data.len());
        self.queue.len() > MAX_QUEUED || bytes.sum::<usize>() > MAX_QUEUED_BYTES
    }

    /// Begins a period with segment `first` at `at` and what there is of `run`.
    pub(super) fn begin(&mut self, run: u64, (first, at): (SegmentNumber, i64)) {
        self.cuts.clear();
        self.cuts.push_back((first, at));
        self.floor = at.max(self.end);
        self.skips = false;
        let floor = self.floor;
        while self.front(run).is_some_and(|timed| timed.at < floor) {
            self.leave_out();
        }
    }

    /// Drops the sample at the front.
    pub(super) fn leave_out(&mut self) {
        self.left_out += u64::from(self.queue.pop_front().is_some());
    }

    /// Drops everything that waits.
    pub(super) fn clear(&mut self) {
        self.left_out += self.queue.len() as u64;
        self.queue.clear();
    }

    /// Passes on the cuts at or before `at`.
    pub(super) fn take_cut(&mut self, at: i64) -> Option<Piece> {
        let (number, from) = *self.cuts.front().filter(|(_, from)| at >= *from)?;
        self.cuts.pop_front();
        self.floor = self.floor.max(from);
        self.start = None;
        self.skips = false;
        Some(Piece::Cut(number))
    }

    /// Takes the sample at the front, unless it has no place any more.
    pub(super) fn take(&mut self) -> Option<Piece> {
        let timed = self.queue.pop_front()?;
        let start = self.start.unwrap_or(timed.at);
        let is_overlong = timed.end.saturating_sub(start) > self.longest.saturating_add(OVERHANG);
        self.skips |= self.start.is_none() && timed.at.saturating_sub(self.floor) > self.reach;
        if self.skips || timed.at < self.floor || is_overlong {
            self.left_out += 1;
            return None;
        }
        self.start = Some(start);
        (self.last, self.end) = (timed.at, timed.end);
        Some(Piece::Sample(timed.sample))
    }

    /// The cut of a segment that is given up, now that the pictures are at `lead`: sooner if nothing comes.
    pub(super) fn give_up(&mut self, lead: i64) -> Option<Piece> {
        let is_away = self.is_away(lead);
        let (number, from) = *self.cuts.front()?;
        let next = self.cuts.get(1);
        let is_late = next.is_some_and(|(_, next)| lead.saturating_sub(*next) > self.patience);
        if !is_away && !is_late {
            return None;
        }
        self.cuts.pop_front();
        self.floor = self.floor.max(from);
        self.start = None;
        self.skips |= is_away;
        Some(Piece::Cut(number))
    }

    /// Whether it has nothing at all to pass on for so long that its next segment is given up.
    pub(super) fn is_missing(&self, lead: i64) -> bool {
        self.is_away(lead) && !self.cuts.is_empty() && self.queue.is_empty()
    }

    /// Nothing more comes for a while: nothing is waited for.
    pub(super) const fn rest(&mut self) {
        self.latest = Some(i64::MIN);
    }

    /// Whether it was told so, and nothing has come since.
    pub(super) fn rests(&self) -> bool {
        self.latest == Some(i64::MIN)
    }

    /// Where the segment begins that begins within `reach` of `at`, if one does.
    pub(super) fn cut_near(&self, at: i64, reach: i64) -> Option<i64> {
        let mut cuts = self.cuts.iter().map(|(_, cut)| *cut);
        cuts.find(|cut| at.abs_diff(*cut) <= reach.unsigned_abs())
    }

    /// What lies before is too late.
    pub(super) const fn floor(&self) -> i64 {
        self.floor
    }

    /// What belongs to a period ends before `at`. How long the last of it was expected to last does not count:
    /// what begins there is a key frame, which all that follows needs.
    pub(super) fn end_period(&mut self, at: i64) {
        self.cuts.clear();
        self.floor = at;
        (self.start, self.skips) = (None, false);
        while self.queue.front().is_some_and(|timed| timed.at < at) {
            self.leave_out();
        }
    }

    /// Whether nothing has come for so long that nothing is waited for, seen from `lead`.
    pub(super) fn is_away(&self, lead: i64) -> bool {
        let known = self.latest.unwrap_or_else(|| self.end.max(self.floor));
        lead.saturating_sub(known) > self.patience
    }

    /// Segments were begun without the pictures, the last one at `at`.
    pub(super) const fn cut_alone(&mut self, at: i64) {
        self.floor = at;
        self.start = None;
        self.skips = false;
    }
}

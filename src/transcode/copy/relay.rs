//! Decides where segments and periods begin, and merges both tracks.
//!
//! Enters: samples of both tracks, in any interleaving; changes of a track; that the source has gone
//! Leaves: outputs in order: a period after all of the one before it
//! Never:  waits for a track that does not come, longer than [`MAX_PATIENCE`]
//! Time:   nanoseconds from the Unix epoch
//! Spec:   docs/architecture.md

use std::collections::VecDeque;

use super::follower::{Follower, Piece};
use super::opening::{Plan, ROUNDED_DOWN, TOLERANCE, declared_rate};
use super::timing::{Timed, Timing};
use super::{Counts, MS, Output, nanos};
use crate::id::SegmentNumber;
use crate::media::{MediaKind, Rendition, Sample, TrackInfo};
use crate::time::{Grid, Timescale};
use crate::transcode::ladder::estimate;

/// The longest that a picture is said to be shown to hide that some are missing, if a segment is as long.
/// A camera that sends nothing while nothing moves stays below.
pub(super) const STRETCH: i64 = 2_000 * MS;
/// How far one track may be behind the other before the other goes on alone. Encoders that send one seconds
/// after the other stay below.
const MAX_PATIENCE: i64 = 5_000 * MS;
/// The same in segments: half of what a packager lets one rendition lead.
const PATIENT_SEGMENTS: i64 = 4;
/// How long sound of a new source waits for its pictures before it begins a period alone.
const PICTURE_WAIT: i64 = 12_000 * MS;
/// The most that is held back while a period waits for the sound before it.
const MAX_EVENTS: usize = 4_096;
/// The same in bytes: patience, at 100 Mbit/s.
const MAX_EVENT_BYTES: usize = 64 << 20;

/// How far numbers may run ahead of the clock's: each period that begins before its time gains a part of one. Beyond
/// that what follows would begin in the future; so much is within what a broadcast may lead by.
const MAX_AHEAD: u64 = 2;

/// The rendition that leads, and the one that follows.
const LEAD: usize = 0;
const FOLLOWER: usize = 1;

/// What the leading track says, in order.
#[derive(Debug)]
enum Event {
    Period(Period),
    Cut(SegmentNumber, i64),
    Sample(Sample),
}

/// A period that is to begin.
#[derive(Clone, Debug)]
struct Period {
    at: i64,
    first: SegmentNumber,
    renditions: Vec<Rendition>,
    /// The follower's run that belongs to it.
    run: u64,
}

/// What the leading track needs before it can go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Awaits {
    Nothing,
    /// The other track has changed: the next key frame begins a period; until then it goes on as it was.
    Change,
    /// It does not continue what was: only a key frame, which begins a period, is of use.
    Keyframe,
}

/// The segment that is being made.
#[derive(Clone, Copy, Debug)]
struct Open {
    start: i64,
    number: SegmentNumber,
    /// The number that the grid has for its start.
    cell: SegmentNumber,
    keyed: bool,
}

#[derive(Debug)]
struct Lead {
    kind: MediaKind,
    timing: Timing,
    run: u64,
    /// The run of the newest period.
    period_run: u64,
    /// The newest that came of this source.
    latest: Option<i64>,
    end: i64,
    awaits: Awaits,
}

/// A broadcast that has opened, or is about to with its first key frame.
#[derive(Debug)]
pub(super) struct Relay {
    grid: Grid,
    target: i64,
    longest: i64,
    patience: i64,
    longest_ms: u32,
    first: SegmentNumber,
    renditions: Vec<Rendition>,
    lead: Lead,
    follower: Option<Follower>,
    events: VecDeque<Event>,
    segment: Option<Open>,
    /// The follower's run in the period that is being passed on; `None` before the first.
    run: Option<u64>,
    counts: Counts,
}

impl Relay {
    pub(super) fn new(grid: Grid, first: SegmentNumber, plan: Plan) -> Self {
        let target = i64::from(grid.segment_ms()) * MS;
        let mut tracks = plan.tracks.video.iter().chain(&plan.tracks.audio);
        let lead = tracks.next();
        let kind = lead.map_or(MediaKind::Video, |info| info.codec.kind());
        let scale = lead.map_or(Timescale::MILLIS, |info| info.timescale);
        let longest = i64::from(plan.longest_ms) * MS + ROUNDED_DOWN;
        let patience = MAX_PATIENCE.min(target.saturating_mul(PATIENT_SEGMENTS));
        let follower = tracks.next();
        let follower = follower.map(|info| Follower::new(info.timescale, (patience, longest)));
        Self {
            grid,
            target,
            longest,
            patience,
            longest_ms: plan.longest_ms,
            first,
            renditions: plan.renditions,
            lead: Lead {
                kind,
                timing: Timing::new(scale, STRETCH.min(target)),
                run: 0,
                period_run: 0,
                latest: None,
                end: i64::MIN,
                awaits: Awaits::Keyframe,
            },
            follower,
            events: VecDeque::new(),
            segment: None,
            run: None,
            counts: Counts::default(),
        }
    }

    pub(super) fn has(&self, kind: MediaKind) -> bool {
        let mut kinds = self.renditions.iter().map(|r| r.codec.kind());
        kinds.any(|of| of == kind)
    }

    pub(super) fn counts(&self) -> Counts {
        let follower = self.follower.as_ref();
        let left_out = follower.map_or(0, |follower| follower.left_out);
        Counts {
            left_out: self.counts.left_out + left_out,
            ..self.counts
        }
    }

    pub(super) fn push(&mut self, kind: MediaKind, sample: Sample, outputs: &mut VecDeque<Output>) {
        if kind == self.lead.kind {
            self.lead.latest = Some(nanos(sample.dts.at(self.lead.timing.scale())));
            let timed = self.lead.timing.push(sample, self.lead.run);
            if let Some(timed) = timed {
                self.take_lead(timed);
            }
        } else if let Some(follower) = &mut self.follower {
            follower.push(sample);
        }
        self.advance(false, outputs);
    }

    /// A track goes on as `info` says. Whether it is published.
    pub(super) fn change(&mut self, info: TrackInfo, outputs: &mut VecDeque<Output>) -> bool {
        let kind = info.codec.kind();
        let Some(rendition) = self.renditions.iter_mut().find(|r| r.codec.kind() == kind) else {
            return false;
        };
        rendition.frame_rate = estimate(declared_rate(&info.codec), &[]).or(rendition.frame_rate);
        rendition.timescale = info.timescale;
        rendition.codec = info.codec;
        if kind == self.lead.kind {
            if self.lead.timing.scale() != info.timescale {
                let timed = self.lead.timing.flush();
                timed.into_iter().for_each(|timed| self.take_lead(timed));
                self.lead.timing.set_scale(info.timescale);
            }
            self.lead.run += 1;
        } else if let Some(follower) = &mut self.follower {
            follower.flush();
            follower.timing.set_scale(info.timescale);
            follower.run += 1;
            if self.lead.awaits == Awaits::Nothing {
                self.lead.awaits = Awaits::Change;
            }
        }
        self.advance(false, outputs);
        true
    }

    /// The source has gone: everything is passed on, and what comes is another one's.
    pub(super) fn detach(&mut self, outputs: &mut VecDeque<Output>) {
        let timed = self.lead.timing.flush();
        timed.into_iter().for_each(|timed| self.take_lead(timed));
        if let Some(follower) = &mut self.follower {
            follower.flush();
        }
        self.advance(true, outputs);
        if let Some(follower) = &mut self.follower {
            follower.clear();
            follower.run += 1;
            follower.latest = None;
        }
        self.lead.run += 1;
        self.lead.latest = None;
        self.lead.awaits = Awaits::Keyframe;
    }

    /// Decides what the next sample of the leading track begins.
    fn take_lead(&mut self, timed: Timed) {
        if timed.after_hole || timed.run != self.lead.period_run {
            self.lead.awaits = Awaits::Keyframe;
        }
        let keyframe = timed.sample.keyframe;
        match (self.lead.awaits, self.segment) {
            (Awaits::Nothing, Some(open)) => self.cut(open, &timed),
            (Awaits::Change, Some(open)) if !keyframe || !self.may_begin_period(timed.at) => {
                self.cut(open, &timed);
            }
            _ if keyframe
                && timed.at >= self.lead.end
                && timed.at > self.followed()
                && self.may_begin_period(timed.at) =>
            {
                self.begin_period(timed.at);
                self.lead.period_run = timed.run;
            }
            _ => {
                self.counts.left_out += 1;
                return;
            }
        }
        self.lead.end = timed.end;
        self.events.push_back(Event::Sample(timed.sample));
    }

    /// Where the last sample begins that the follower has passed on.
    fn followed(&self) -> i64 {
        let follower = self.follower.as_ref();
        follower.map_or(i64::MIN, |follower| follower.last)
    }

    /// Begins another segment with `timed`, if it is time.
    fn cut(&mut self, open: Open, timed: &Timed) {
        let (elapsed, cell) = (timed.at.saturating_sub(open.start), self.cell(timed.at));
        let is_due = match self.lead.kind {
            // Along the grid.
            MediaKind::Audio => cell > open.cell,
            // A segment without a key frame is left for one with it as soon as the clock's own number allows:
            // else the count would run ahead of the clock.
            MediaKind::Video => {
                // So is a little less than the target: taken each time, it would add up.
                let allows = |at: i64| self.cell(at) > open.number;
                let may_end = !open.keyed && elapsed * 2 >= self.target && allows(timed.at);
                let is_near = elapsed + TOLERANCE >= self.target
                    && allows(timed.at.saturating_add(TOLERANCE));
                timed.sample.keyframe && (elapsed >= self.target || is_near || may_end)
            }
        };
        let is_overlong = timed.end.saturating_sub(open.start) > self.longest && elapsed > 0;
        if !is_due && !is_overlong {
            return;
        }
        let keyed = timed.sample.keyframe;
        self.counts.keyless_cuts += u64::from(!keyed);
        let number = open.number.next();
        self.open(number, timed.at, keyed);
        self.events.push_back(Event::Cut(number, timed.at));
    }

    /// Whether the clock allows a period at `at`. Of a source that changes all the time, what comes before that is
    /// left out: it cannot be in the period before.
    fn may_begin_period(&self, at: i64) -> bool {
        let most = self.cell(at).get().saturating_add(MAX_AHEAD);
        self.segment.is_none_or(|open| open.number.get() < most)
    }

    /// Has a period begin at `at`.
    fn begin_period(&mut self, at: i64) {
        let first = match self.segment {
            Some(open) => open.number.next(),
            None => self.cell(at).max(self.first),
        };
        self.open(first, at, true);
        self.lead.awaits = Awaits::Nothing;
        self.events.push_back(Event::Period(Period {
            at,
            first,
            renditions: self.renditions.clone(),
            run: self.follower.as_ref().map_or(0, |follower| follower.run),
        }));
    }

    fn open(&mut self, number: SegmentNumber, start: i64, keyed: bool) {
        self.segment = Some(Open {
            start,
            number,
            cell: self.cell(start),
            keyed,
        });
    }

    fn cell(&self, at: i64) -> SegmentNumber {
        let at = crate::time::Ticks::new(at);
        self.grid.segment_at(at.at(Timescale::NANOS))
    }

    /// Passes on what can be; all there is if `drain`.
    fn advance(&mut self, drain: bool, outputs: &mut VecDeque<Output>) {
        loop {
            self.pass_events(outputs);
            self.follow(drain, outputs);
            if self.lead_in_sound() {
                continue;
            }
            let Some(Event::Period(period)) = self.events.front() else {
                return;
            };
            if !drain && !self.has_followed(period) {
                return;
            }
            let period = period.clone();
            self.events.pop_front();
            self.begin(period, outputs);
        }
    }

    /// Passes on what the leading track says, up to a period.
    fn pass_events(&mut self, outputs: &mut VecDeque<Output>) {
        while let Some(event) = self.events.pop_front() {
            match event {
                Event::Period(_) => return self.events.push_front(event),
                Event::Cut(number, at) => {
                    if let Some(follower) = &mut self.follower {
                        follower.cut(number, at);
                    }
                    let rendition = LEAD;
                    outputs.push_back(Output::Cut { rendition, number });
                }
                Event::Sample(sample) => {
                    let rendition = LEAD;
                    outputs.push_back(Output::Sample { rendition, sample });
                }
            }
        }
    }

    /// Passes on what the follower has of the period that is being passed on.
    fn follow(&mut self, drain: bool, outputs: &mut VecDeque<Output>) {
        let Some(run) = self.run else {
            return;
        };
        loop {
            let barrier = self.barrier();
            let (lead, is_absent) = (self.lead.latest, self.is_lead_absent());
            let patience = self.patience;
            let due = self.segment.map(|open| self.due_alone(open));
            let Some(follower) = &mut self.follower else {
                return;
            };
            let Some(at) = follower.front(run).map(|timed| timed.at) else {
                break;
            };
            if barrier.is_some_and(|barrier| at >= barrier) {
                break;
            }
            let waited = follower
                .latest
                .map_or(0, |latest| latest.saturating_sub(at));
            let is_known = drain || barrier.is_some() || lead.is_some_and(|lead| lead > at);
            if !is_known && waited <= patience && !follower.is_full() {
                break;
            }
            while let Some(piece) = follower.take_cut(at) {
                outputs.push_back(output(piece));
            }
            let is_alone = is_absent && !drain && barrier.is_none();
            if is_alone && due.is_some_and(|due| at >= due) && self.cut_alone(at, outputs) {
                continue;
            }
            let piece = self.follower.as_mut().and_then(Follower::take);
            outputs.extend(piece.map(output));
        }
        let Some((follower, lead)) = self.follower.as_mut().zip(self.lead.latest) else {
            return;
        };
        while let Some(piece) = follower.give_up(lead) {
            outputs.push_back(output(piece));
        }
    }

    /// When the segment `open` of a sound whose pictures are absent is to end. As far ahead of the clock as numbers may
    /// be, it is longer: pictures that come back need one to begin a period with.
    fn due_alone(&self, open: Open) -> i64 {
        let least = open.number.get().saturating_sub(MAX_AHEAD - 2);
        let least = self
            .grid
            .start_of(SegmentNumber::new(least), Timescale::NANOS);
        let most = open.start.saturating_add(self.longest);
        let due = open.start.saturating_add(self.target);
        due.max(least.get()).min(most)
    }

    /// Begins a segment for a sound whose pictures are absent. Whether that has to be looked at again, because
    /// a last picture turned up.
    fn cut_alone(&mut self, at: i64, outputs: &mut VecDeque<Output>) -> bool {
        if self.lead.timing.holds_before(at)
            && let Some(timed) = self.lead.timing.flush()
        {
            self.take_lead(timed);
            self.pass_events(outputs);
            return true;
        }
        let Some(open) = self.segment else {
            return false;
        };
        self.lead.awaits = Awaits::Keyframe;
        let number = open.number.next();
        self.open(number, at, false);
        for rendition in [LEAD, FOLLOWER] {
            outputs.push_back(Output::Cut { rendition, number });
        }
        if let Some(follower) = &mut self.follower {
            follower.cut_alone(at);
        }
        false
    }

    /// Whether the follower need not wait for the leading track.
    fn is_lead_absent(&self) -> bool {
        let follower = self.follower.as_ref().and_then(|follower| follower.latest);
        let lead = self.lead.latest.unwrap_or(self.lead.end);
        let is_behind = follower.is_some_and(|latest| latest.saturating_sub(lead) > self.patience);
        self.lead.awaits == Awaits::Keyframe || is_behind
    }

    /// Where the period begins that has to wait, if one does.
    fn barrier(&self) -> Option<i64> {
        match self.events.front() {
            Some(Event::Period(period)) => Some(period.at),
            _ => None,
        }
    }

    /// Whether all that the follower has of the period before `period` was passed on.
    fn has_followed(&self, period: &Period) -> bool {
        let (Some(follower), Some(run)) = (&self.follower, self.run) else {
            return true;
        };
        let is_past = |lead: i64| lead.saturating_sub(period.at) > self.patience;
        follower.newest_front().is_some()
            || follower.run != run
            || follower.is_away(period.at)
            || self.lead.latest.is_some_and(is_past)
            || self.events.len() > MAX_EVENTS
            || self.waiting_bytes() > MAX_EVENT_BYTES
    }

    fn waiting_bytes(&self) -> usize {
        let bytes = |event: &Event| match event {
            Event::Sample(sample) => sample.data.len(),
            Event::Cut(..) | Event::Period(_) => 0,
        };
        self.events.iter().map(bytes).sum()
    }

    /// Has the sound of a new source begin a period, if its pictures do not come. Whether it does.
    fn lead_in_sound(&mut self) -> bool {
        let Some((follower, run)) = self.follower.as_mut().zip(self.run) else {
            return false;
        };
        let Some(front) = follower.newest_front().filter(|_| self.events.is_empty()) else {
            return false;
        };
        let (at, is_new) = (front.at, front.run > run);
        let waited = follower
            .latest
            .map_or(0, |latest| latest.saturating_sub(at));
        if !is_new || waited <= PICTURE_WAIT && !follower.is_full() {
            return false;
        }
        let is_late = at < follower.end.max(self.lead.end);
        if is_late || !self.may_begin_period(at) {
            if let Some(follower) = &mut self.follower {
                follower.leave_out();
            }
            return true;
        }
        self.begin_period(at);
        self.lead.awaits = Awaits::Keyframe;
        true
    }

    fn begin(&mut self, period: Period, outputs: &mut VecDeque<Output>) {
        let Period {
            at,
            first,
            renditions,
            run,
        } = period;
        let is_first = self.run.replace(run).is_none();
        if let Some(follower) = &mut self.follower {
            follower.begin(run, (first, at));
        }
        self.counts.periods += u64::from(!is_first);
        let (longest_ms, rendition) = (self.longest_ms, LEAD);
        outputs.push_back(if is_first {
            Output::Opened {
                renditions,
                first,
                longest_ms,
            }
        } else {
            Output::Period { renditions, first }
        });
        let number = first;
        outputs.push_back(Output::Cut { rendition, number });
    }
}

fn output(piece: Piece) -> Output {
    let rendition = FOLLOWER;
    match piece {
        Piece::Cut(number) => Output::Cut { rendition, number },
        Piece::Sample(sample) => Output::Sample { rendition, sample },
    }
}

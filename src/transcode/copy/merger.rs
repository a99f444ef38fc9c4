//! Puts renditions that are encoded beside those that are copied, cut where those are.
//!
//! ```text
//! Copier ─────────────▶ outputs ─▶ Merger ─▶ outputs of the whole ladder
//!    └▶ worker ─▶ encoded samples ──▲
//! ```
//!
//! Enters: what a [`Copier`](super::Copier) puts out; what was encoded of its pictures, each in the place of the
//! one that it was made of
//! Leaves: [`Output`]s of all renditions: copied pictures, encoded ones, the sound
//! Never:  holds back what is copied for what is encoded, but at the first beginning and where a period ends
//! Time:   nanoseconds from the Unix epoch
//! Spec:   docs/adr/0006-follow-what-is-copied.md

use std::collections::VecDeque;

use super::follower::{Follower, Piece};
use super::opening::ROUNDED_DOWN;
use super::relay::STRETCH;
use super::timing::Timing;
use super::waiting::Waiting;
use super::{MS, Output, nanos};
use crate::id::SegmentNumber;
use crate::media::{MediaKind, Rendition, Sample};
use crate::time::{Grid, Ticks, Timescale};

/// How far encoding may be behind what is copied before segments of it are given up.
const MAX_PATIENCE: i64 = 5_000 * MS;
/// The same in segments: half of what a packager lets one rendition lead.
const PATIENT_SEGMENTS: i64 = 4;
/// How far encoding may be behind before the source has to wait, until it has once caught up. An encoder that looks
/// ahead needs that much of a source of few pictures before it begins.
const MAX_FIRST_LEAD: i64 = 10_000 * MS;
/// The same of encoders that make nothing of that, before it is given up to wait for them.
const MAX_LAST_LEAD: i64 = 40_000 * MS;
/// How near it has come then: as much is in an encoder that looks ahead.
const CAUGHT_UP: i64 = 2_000 * MS;
/// For how long it must have been behind by no more than it may if it comes no nearer: of a source of few pictures
/// more time lies in an encoder.
const SETTLED: i64 = 10_000 * MS;
/// How long after its cut a segment may begin: a picture that cannot be decoded, or two.
const REACH: i64 = 150 * MS;
/// How near to a cut a picture begins exactly there. Where the source has no key frame, its times of decoding are
/// off an even pace by what stamps are rounded.
const SNAP: i64 = 4 * MS;
/// How many beginnings of periods are remembered: more than there can be in what encoders hold.
const MAX_BEGINS: usize = 16;
/// The run of all that is encoded: its periods are told apart by their time.
const RUN: u64 = 0;
/// The copier's rendition that leads.
const LEAD: usize = 0;

/// Merges one broadcast. Drain [`Self::poll_output`] to `None` after every other call.
#[derive(Debug)]
pub struct Merger {
    target: i64,
    copies_pictures: bool,
    /// The copier's renditions, as they were told last.
    copied: Vec<(MediaKind, Timescale)>,
    /// What the encoded renditions are, once that is known.
    encoded: Option<Vec<Rendition>>,
    /// What is encoded, in its order, once the broadcast is open.
    lanes: Vec<Follower>,
    is_open: bool,
    /// What the copier said that was not passed on yet, with the instant of each sample.
    waiting: Waiting,
    /// The newest instant of what was copied, and of the pictures in it.
    latest: i64,
    shown: i64,
    /// How far encoding may be behind before the source has to wait, and before its segments are given up.
    first_lead: i64,
    patience: i64,
    /// The first picture since which it has not been behind by more than `patience`.
    settled: Option<i64>,
    /// Where periods begin, the newest last; whether the next sample begins one.
    begins: VecDeque<Begin>,
    begins_period: bool,
    /// Where the copied pictures end.
    end: i64,
    newest: SegmentNumber,
    has_caught_up: bool,
    is_over: bool,
    outputs: VecDeque<Output>,
}

/// Where a period begins, and where the pictures before it end.
#[derive(Clone, Copy, Debug)]
struct Begin {
    at: i64,
    before: i64,
}

impl Merger {
    /// A merger of a broadcast whose segments last `grid`'s target or longer. `copies_pictures` says whether
    /// the source's own are published too, or only followed.
    #[must_use]
    pub fn new(grid: Grid, copies_pictures: bool) -> Self {
        let target = i64::from(grid.segment_ms()) * MS;
        let segments = |count: i64| target.saturating_mul(count);
        Self {
            target,
            copies_pictures,
            copied: Vec::new(),
            encoded: None,
            lanes: Vec::new(),
            is_open: false,
            waiting: Waiting::default(),
            latest: i64::MIN,
            shown: i64::MIN,
            first_lead: MAX_FIRST_LEAD.min(segments(PATIENT_SEGMENTS + 1)),
            patience: MAX_PATIENCE.min(segments(PATIENT_SEGMENTS)),
            settled: None,
            begins: VecDeque::new(),
            begins_period: false,
            end: i64::MIN,
            newest: SegmentNumber::new(0),
            has_caught_up: false,
            is_over: false,
            outputs: VecDeque::new(),
        }
    }

    /// Takes what the copier put out next.
    pub fn copied(&mut self, output: Output) {
        let at = match &output {
            Output::Opened { renditions, .. } | Output::Period { renditions, .. } => {
                let kinds = renditions.iter().map(|r| (r.codec.kind(), r.timescale));
                self.copied = kinds.collect();
                self.begins_period = true;
                self.latest
            }
            Output::Cut { .. } => self.latest,
            Output::Sample { rendition, sample } => self.note(*rendition, sample),
        };
        self.waiting.push_back(output, at);
        self.advance();
    }

    /// Takes note of a sample that was copied; where it lies.
    fn note(&mut self, rendition: usize, sample: &Sample) -> i64 {
        let Some((kind, scale)) = self.copied.get(rendition).copied() else {
            return self.latest;
        };
        let at = nanos(sample.dts.at(scale));
        self.latest = self.latest.max(at);
        if std::mem::take(&mut self.begins_period) {
            let before = self.end;
            self.begins.push_back(Begin { at, before });
            if self.begins.len() > MAX_BEGINS {
                self.begins.pop_front();
            }
        }
        if kind == MediaKind::Video {
            let end = sample.dts.checked_add(sample.duration);
            self.end = nanos(end.unwrap_or(sample.dts).at(scale));
            self.shown = at;
        }
        at
    }

    /// Takes what the encoded renditions are, best first; none if nothing is encoded.
    pub fn opened(&mut self, encoded: Vec<Rendition>) {
        self.encoded.get_or_insert(encoded);
        self.advance();
    }

    /// Takes the next sample of encoded rendition `index`. Before [`Self::opened`] there is none.
    pub fn encoded(&mut self, index: usize, mut sample: Sample) {
        let Some(lane) = self.lanes.get_mut(index) else {
            return;
        };
        // The last picture of a period is not shown until the next one.
        let scale = lane.timing.scale();
        let mut at = nanos(sample.dts.at(scale));
        if let Some(cut) = lane.cut_near(at, SNAP) {
            sample.dts = Ticks::new(cut).at(Timescale::NANOS).rescale_nearest(scale);
            at = cut;
        }
        if let Some((held, _)) = lane.timing.held()
            && next_begin(&self.begins, held).is_some_and(|begin| at >= begin.at)
        {
            lane.flush_until(end_of_held(lane, &self.begins).unwrap_or(i64::MIN));
        }
        lane.push(sample);
        self.advance();
    }

    /// Encoded rendition `index` has nothing for a while.
    pub fn rests(&mut self, index: usize) {
        if let Some(lane) = self.lanes.get_mut(index) {
            lane.flush_until(end_of_held(lane, &self.begins).unwrap_or(i64::MIN));
            self.pass_encoded(self.barrier());
        }
        if let Some(lane) = self.lanes.get_mut(index) {
            lane.rest();
            self.advance();
        }
    }

    /// Nothing more comes.
    pub fn finish(&mut self) {
        self.is_over = true;
        for lane in &mut self.lanes {
            lane.flush_until(end_of_held(lane, &self.begins).unwrap_or(self.end));
        }
        self.advance();
    }

    /// The next output, in order.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// Whether the source has to wait: what is encoded has not caught up with what is copied since the
    /// broadcast began. Later nothing waits for it.
    #[must_use]
    pub fn is_ahead(&self) -> bool {
        if self.has_caught_up {
            return false;
        }
        if self.is_open {
            return self.lead() > self.first_lead;
        }
        let begin = self.waiting.begin(0).unwrap_or(self.latest);
        self.latest.saturating_sub(begin) > self.first_lead || self.waiting.is_full()
    }

    /// The source had to wait for long, and nothing was encoded meanwhile: it need not, or not yet. Whether it is
    /// still of use to wait for what the encoded renditions are; if not, nothing is to be encoded.
    pub fn wait_no_longer(&mut self) -> bool {
        self.has_caught_up |= self.is_open;
        let awaits_more = self.first_lead < MAX_LAST_LEAD && !self.waiting.is_full();
        if awaits_more {
            // Encoders that look ahead begin with so many pictures, however few there are in a second.
            self.first_lead = self.first_lead.saturating_mul(2);
        }
        self.is_open || awaits_more
    }

    /// Whether the broadcast has begun.
    #[must_use]
    pub const fn is_open(&self) -> bool {
        self.is_open
    }

    /// Whether what is encoded has once caught up with what is copied.
    #[must_use]
    pub const fn has_caught_up(&self) -> bool {
        self.has_caught_up
    }

    /// The place of encoded rendition `index` among all.
    #[must_use]
    pub fn place_of(&self, index: usize) -> usize {
        index + usize::from(self.copies_pictures)
    }

    /// The newest segment that has begun.
    #[must_use]
    pub const fn newest(&self) -> SegmentNumber {
        self.newest
    }

    /// How far the pictures that were copied are ahead of the slowest of what is encoded.
    fn lead(&self) -> i64 {
        let awaited = self.lanes.iter().filter(|lane| !lane.rests());
        awaited.map(|lane| self.behind(lane)).max().unwrap_or(0)
    }

    /// How many pictures that were copied are not in `lane` yet, by their time: sound that goes on without any, and
    /// the time between two periods, say nothing of the encoders.
    fn behind(&self, lane: &Follower) -> i64 {
        let reached = lane.latest.unwrap_or_else(|| lane.floor());
        let after = self.begins.iter().filter(|begin| begin.at > reached);
        let away = after.map(|begin| begin.at.saturating_sub(begin.before.max(reached)));
        let away = away.fold(0_i64, i64::saturating_add);
        self.shown.saturating_sub(reached).saturating_sub(away)
    }

    /// Whether all that is encoded is as near to what is copied as it will come.
    fn are_near(&mut self) -> bool {
        let mut awaited = self.lanes.iter().filter(|lane| !lane.rests());
        let lead = self.lead();
        if awaited.any(|lane| lane.latest.is_none()) || lead > self.patience {
            self.settled = None;
            return false;
        }
        let since = *self.settled.get_or_insert(self.shown);
        lead <= CAUGHT_UP || self.shown.saturating_sub(since) >= SETTLED
    }

    /// Passes on what can be.
    fn advance(&mut self) {
        if self.is_open && !self.has_caught_up {
            self.has_caught_up = self.are_near();
        }
        while let Some((output, at)) = self.waiting.pop_front() {
            if let Err(output) = self.pass(output) {
                self.waiting.push_front(output, at);
                break;
            }
        }
        self.pass_encoded(self.barrier());
    }

    /// Passes on one thing that the copier said; gives it back if it is not time.
    fn pass(&mut self, output: Output) -> Result<(), Output> {
        match output {
            Output::Opened {
                renditions,
                first,
                longest_ms,
            } => {
                // The first sample says where the first segment begins.
                let begins = |encoded: &Vec<Rendition>| {
                    encoded.is_empty() || self.waiting.begin(0).is_some()
                };
                let Some(encoded) = self.encoded.clone().filter(begins) else {
                    return Err(Output::Opened {
                        renditions,
                        first,
                        longest_ms,
                    });
                };
                self.open(&encoded, longest_ms);
                self.outputs.push_back(Output::Opened {
                    renditions: self.all(renditions),
                    first,
                    longest_ms,
                });
                self.newest = first;
            }
            Output::Period { renditions, first } => {
                if !self.has_followed() {
                    return Err(Output::Period { renditions, first });
                }
                // All that was encoded before it has been passed on, or is given up.
                let begin = self.waiting.begin(0).unwrap_or(self.latest);
                self.lanes
                    .iter_mut()
                    .for_each(|lane| lane.end_period(begin));
                let renditions = self.all(renditions);
                self.outputs.push_back(Output::Period { renditions, first });
            }
            Output::Cut { rendition, number } => self.cut(rendition, number)?,
            Output::Sample { rendition, sample } => {
                let place = self.place_of_copied(rendition);
                let sample = place.map(|rendition| Output::Sample { rendition, sample });
                self.outputs.extend(sample);
            }
        }
        Ok(())
    }

    fn open(&mut self, encoded: &[Rendition], longest_ms: u32) {
        let longest = i64::from(longest_ms) * MS + ROUNDED_DOWN;
        let patience = self.patience;
        let stretch = STRETCH.min(self.target);
        let lane = |rendition: &Rendition| {
            let timing = Timing::new(rendition.timescale, stretch);
            Follower::with(timing, (patience, longest), REACH)
        };
        self.lanes = encoded.iter().map(lane).collect();
        let begin = self.waiting.begin(0).unwrap_or(self.latest);
        self.lanes
            .iter_mut()
            .for_each(|lane| lane.end_period(begin));
        self.is_open = true;
    }

    fn cut(&mut self, rendition: usize, number: SegmentNumber) -> Result<(), Output> {
        if rendition == LEAD && !self.lanes.is_empty() {
            let at = match self.waiting.front() {
                None => return Err(Output::Cut { rendition, number }),
                Some((
                    Output::Sample {
                        rendition: LEAD, ..
                    },
                    at,
                )) => *at,
                // A segment of sound alone, after the last of the pictures.
                Some(_) => self.latest.max(self.end),
            };
            self.lanes.iter_mut().for_each(|lane| lane.cut(number, at));
        }
        self.newest = self.newest.max(number);
        let place = self.place_of_copied(rendition);
        let cut = place.map(|rendition| Output::Cut { rendition, number });
        self.outputs.extend(cut);
        Ok(())
    }

    /// All renditions of which `copied` are the copier's.
    fn all(&self, copied: Vec<Rendition>) -> Vec<Rendition> {
        let is_video = |rendition: &Rendition| rendition.codec.kind() == MediaKind::Video;
        let (pictures, sound): (Vec<_>, Vec<_>) = copied.into_iter().partition(is_video);
        // Of pictures that keep no pace, what is made of them keeps none.
        let has_rate = pictures.iter().all(|p| p.frame_rate.is_some());
        let encoded = self.encoded.iter().flatten().map(|rendition| Rendition {
            frame_rate: rendition.frame_rate.filter(|_| has_rate),
            ..rendition.clone()
        });
        let pictures = pictures.into_iter().filter(|_| self.copies_pictures);
        pictures.chain(encoded).chain(sound).collect()
    }

    /// The place of the copier's rendition `index` among all; `None` if it is not published.
    fn place_of_copied(&self, index: usize) -> Option<usize> {
        let (kind, _) = self.copied.get(index)?;
        let leads = self.copied.first().map(|(kind, _)| *kind) == Some(MediaKind::Video);
        match kind {
            MediaKind::Video => self.copies_pictures.then_some(0),
            MediaKind::Audio => Some(self.lanes.len() + usize::from(leads && self.copies_pictures)),
        }
    }

    /// Where the period begins that waits, if one does.
    fn barrier(&self) -> Option<i64> {
        match self.waiting.front() {
            Some((Output::Period { .. }, _)) => self.waiting.begin(1).or(Some(self.latest)),
            _ => None,
        }
    }

    /// Whether all was passed on that was encoded before the period whose samples wait.
    fn has_followed(&mut self) -> bool {
        if self.lanes.is_empty() {
            return true;
        }
        let Some(begin) = self.waiting.begin(0) else {
            return self.is_over;
        };
        self.pass_encoded(Some(begin));
        // The time between the two says nothing of the encoders.
        let waited = self.latest.saturating_sub(begin);
        if self.is_over || waited > MAX_PATIENCE || self.waiting.is_full() {
            return true;
        }
        self.lanes.iter().all(|lane| {
            let has_passed = lane.latest.is_some_and(|at| at >= begin);
            has_passed || lane.rests()
        })
    }

    /// Passes on what is encoded, up to `barrier`.
    fn pass_encoded(&mut self, barrier: Option<i64>) {
        for index in 0..self.lanes.len() {
            self.pass_lane(index, barrier);
            let place = self.place_of(index);
            let lead = self.lanes.get(index).map(|lane| self.lead_over(lane));
            let lead = lead.unwrap_or(self.latest);
            let Some(lane) = self.lanes.get_mut(index) else {
                return;
            };
            // Until it has caught up it is waited for.
            if barrier.is_some() || !(self.has_caught_up || lane.rests()) {
                continue;
            }
            if lane.is_missing(lead) {
                lane.flush_until(self.end);
                self.pass_lane(index, barrier);
            }
            let Some(lane) = self.lanes.get_mut(index) else {
                return;
            };
            while let Some(cut) = lane.give_up(lead) {
                self.outputs.push_back(output(place, cut));
            }
        }
    }

    /// From where it is seen whether `lane` is too late. If the copied pictures have stopped and it has not all of
    /// them, it is given as much time again.
    fn lead_over(&self, lane: &Follower) -> i64 {
        let alone = self.latest.saturating_sub(self.shown).min(self.patience);
        let more = if self.behind(lane) > 0 { alone } else { 0 };
        self.latest.saturating_sub(more)
    }

    /// Passes on what encoded rendition `index` has, up to `barrier`.
    fn pass_lane(&mut self, index: usize, barrier: Option<i64>) {
        let place = self.place_of(index);
        let Some(lane) = self.lanes.get_mut(index) else {
            return;
        };
        while let Some(at) = lane.front(RUN).map(|timed| timed.at)
            && barrier.is_none_or(|barrier| at < barrier)
        {
            while let Some(cut) = lane.take_cut(at) {
                self.outputs.push_back(output(place, cut));
            }
            let piece = lane.take();
            self.outputs.extend(piece.map(|piece| output(place, piece)));
        }
    }
}

/// The first beginning of a period after `at`.
fn next_begin(begins: &VecDeque<Begin>, at: i64) -> Option<Begin> {
    begins.iter().find(|begin| begin.at > at).copied()
}

/// Where the picture ends that `lane` holds, if a period begins after it: with the last copied one, unless it is
/// later itself, because pictures that are shown before it are missing.
fn end_of_held(lane: &Follower, begins: &VecDeque<Begin>) -> Option<i64> {
    let (held, expected) = lane.timing.held()?;
    let begin = next_begin(begins, held)?;
    Some(if begin.before > held {
        begin.before
    } else {
        begin.at.min(expected)
    })
}

fn output(rendition: usize, piece: Piece) -> Output {
    match piece {
        Piece::Cut(number) => Output::Cut { rendition, number },
        Piece::Sample(sample) => Output::Sample { rendition, sample },
    }
}

//! Places the 32-bit millisecond stamps of a publisher on the timeline of the Unix epoch, and keeps them there.
//!
//! Enters: stamps of two interleaved tracks, and the wall clock at their arrival
//! Leaves: an instant for each, how far to slew it, and what had to be repaired; both tracks on one anchor, so
//!         that sound and picture keep their distance
//! Never:  reads a clock, looks at a frame rate
//! Time:   milliseconds modulo 2^32 in, microseconds since the epoch out
//! Spec:   [RTMP] §5.3.1.1 (serial arithmetic); docs/time.md

mod lateness;
mod skew;
mod slew;
mod steer;
mod still;

use std::collections::VecDeque;
use std::ops::RangeInclusive;

use crate::demux::Repair;
use crate::media::MediaKind;
use crate::time::WallTime;

use self::lateness::Lateness;
use self::skew::Skew;
pub use self::slew::PPM as SLEW_PPM;
use self::slew::Slew;
pub use self::steer::{ALIGNED_US, LATE_US, MAX_AHEAD_US};
use self::steer::{Steering, Watch};
use self::still::Still;

/// A step forward up to this is taken as it is while too little is known of how late the track comes.
pub const MAX_STEP_MS: i32 = 3_000;

/// A step forward up to this is always taken as it is: slow pictures, a few lost ones.
pub const MAX_PLAIN_STEP_MS: i32 = 500;

/// A step back within a track up to this is disorder, which is nudged straight; more is a new clock.
pub const MAX_STEP_BACK_MS: i32 = 200;

/// While too little is known of how late the track comes, a step beyond [`MAX_STEP_MS`] is a real gap if the
/// wall clock advanced as much or more, to within this.
pub const GAP_TOLERANCE_MS: i64 = 2_000;

/// A step forward that makes a sample come earlier than the earliest of late by more than this was not seen by
/// the wall clock: the clock of the source jumped.
const MAX_EARLY_US: i64 = 500_000;

/// A new clock whose first sample comes this soon after the last of the old one goes on where that ended;
/// after a longer wait, what was lost meanwhile is a gap.
const MAX_SEAM_US: i64 = 500_000;

/// How much later than its pictures sound of the same stamp may come, below zero earlier, for their stamps to be
/// of one clock. Later, the sound would not be waited for anyway.
const INTERLEAVED_US: RangeInclusive<i64> = -5_000_000..=3_500_000;

/// How far apart the stamps of two recorded tracks of one clock may lie when both have changed to it.
const MAX_SKEW_MS: i32 = 10_000;

/// The distance of two samples of which nothing is known.
const USUAL_STEP_US: i64 = 20_000;

/// Shifts of both tracks that one of them has not come to yet: as many as what an uplink held for seconds makes
/// when it is placed back step by step. More become one.
const MAX_DUE: usize = 64;

/// Half seconds of lateness that hold for a track after it was placed later: those that proved it late.
const SHIFTED_KEPT: usize = 2;

/// Some encoders send only the low 24 bits of their clock.
const WRAP_24: i32 = 1 << 24;

/// What to do about a step that is too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum JumpPolicy {
    /// Place what follows by when it arrives, and keep it near the wall clock: right for live publishers.
    #[default]
    Reanchor,
    /// Believe long steps forward, place anew only after steps back, and do without the wall clock: right for
    /// recorded stamps.
    Follow,
}

/// Where a stamp lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placed {
    /// The instant on the timeline, before it is slewed.
    pub at: WallTime,
    /// How far to move what lies at `at`, in microseconds. Between two samples it changes by at most
    /// [`SLEW_PPM`] of their distance.
    pub slew_us: i64,
    /// The track does not continue: what counts samples or frames must begin anew here.
    pub moved: bool,
    /// Where it moved because nothing was sent for long: by its own stamps, how long after the sample before, in
    /// microseconds.
    pub gap_us: Option<i64>,
}

/// A stamp that was placed. Later ones are placed by their distance from it, which is exact modulo 2^32.
#[derive(Clone, Copy, Debug)]
struct Point {
    stamp_ms: u32,
    at_us: i64,
    arrived_us: i64,
    generation: u64,
}

impl Point {
    /// Signed distance of `stamp_ms` in serial arithmetic: the nearer way round.
    const fn step_to(&self, stamp_ms: u32) -> i32 {
        stamp_ms.wrapping_sub(self.stamp_ms).cast_signed()
    }

    /// Whether `stamp_ms` does not go on from this one.
    const fn stands(&self, stamp_ms: u32) -> bool {
        let step = self.step_to(stamp_ms);
        step <= 0 && step >= -MAX_STEP_BACK_MS
    }

    fn after(&self, step_ms: i32) -> i64 {
        self.at_us.saturating_add(i64::from(step_ms) * 1_000)
    }
}

/// What is known of one track.
#[derive(Clone, Debug, Default)]
struct Track {
    last: Option<Point>,
    /// The newest distance of two of its samples that was neither zero nor a gap.
    step_us: Option<i64>,
    lateness: Lateness,
    /// How much slower its clock is taken to be than its stamps say, in parts per million, to stay with the other.
    slowed_ppm: i64,
    watch: Watch,
    /// It was shifted since its last sample.
    shifted: bool,
    /// How it is to be shifted from where on, in order.
    due: VecDeque<Due>,
    /// Whether its stamps stand still.
    still: Still,
    /// It changed to a new clock, and whether its distance to the other survived is not known yet.
    doubt: Option<Doubt>,
}

impl Track {
    /// Where what is `step_ms` after `last` lies.
    fn after(&self, last: &Point, step_ms: i32) -> i64 {
        let slowed_us = i64::from(step_ms) * self.slowed_ppm / 1_000;
        last.after(step_ms).saturating_add(slowed_us)
    }
}

/// Why a track may not be at its distance from the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Doubt {
    /// It changed its clock at `from_us`. The other may have changed as well, and come there later; until then
    /// its stamp of the same number lay `apart_us` later than this one's.
    Alone { from_us: i64, apart_us: i64 },
    /// Its stamps stepped forward at `from_us`, from the stretch `since` on, farther than the wall clock saw: what
    /// the network held is left out, or its clock jumped.
    Stepped { from_us: i64, since: i64 },
    /// It followed the other one to a new clock, by the distance of the stamps. `is_plain` where that means the
    /// same on both clocks: the tracks were not apart before.
    Followed { is_plain: bool },
    /// It began after the other one, with a clock of its own.
    Began,
}

/// A shift of both tracks that one of them has not come to yet.
#[derive(Clone, Copy, Debug)]
struct Due {
    from_us: i64,
    by_us: i64,
}

/// The place of one stamp.
struct Located {
    at_us: i64,
    generation: u64,
    repair: Option<Repair>,
    /// It was placed by its distance from the other track.
    joins: bool,
    doubt: Option<Doubt>,
}

impl Located {
    const fn new(at_us: i64, generation: u64) -> Self {
        Self {
            at_us,
            generation,
            repair: None,
            joins: false,
            doubt: None,
        }
    }
}

/// The clock of one broadcast. `now` must never go backwards. Drain [`Self::poll_repair`] after every
/// [`Self::place`].
///
/// A track that continues its own stamps keeps its anchor. Where the other one has just changed to a new clock
/// and this one follows, it joins that anchor, at the distance that the tracks had, so that it survives.
/// Otherwise the jump makes a new anchor, on which the track is alone. Either way arrivals have the last word:
/// two seconds later they are compared with what they were ([`Doubt`]).
///
/// Beside that, [`steer`] compares arrivals with positions: a source whose clock drifts is slewed, one that
/// stays behind, because its clock stood still, is placed anew, both tracks by the same amount.
#[derive(Clone, Debug, Default)]
pub struct Timeline {
    policy: JumpPolicy,
    video: Track,
    audio: Track,
    slew: Slew,
    skew: Skew,
    steering: Steering,
    repairs: VecDeque<Repair>,
}

impl Timeline {
    /// A timeline that places its first stamp at its arrival.
    #[must_use]
    pub fn new(policy: JumpPolicy) -> Self {
        Self {
            policy,
            ..Self::default()
        }
    }

    /// Places the stamp of the next sample of a track.
    pub fn place(&mut self, kind: MediaKind, stamp_ms: u32, now: WallTime) -> Placed {
        let now_us = now.as_micros();
        let is_live = self.policy == JumpPolicy::Reanchor;
        if is_live {
            self.notice(now_us);
        }
        let stood = self.track(kind).last.filter(|last| last.stands(stamp_ms));
        let paced = stood.filter(|_| is_live);
        let paced = paced.and_then(|last| self.pace(kind, last, now_us));
        let is_paced = paced.is_some();
        let resumed = || {
            self.resume(kind, stamp_ms, now_us)
                .filter(|_| stood.is_none())
        };
        let found = paced.or_else(resumed);
        let found = found.unwrap_or_else(|| self.locate(kind, stamp_ms, now_us));
        self.repairs.extend(found.repair);
        let mut point = Point {
            stamp_ms,
            at_us: found.at_us,
            arrived_us: now_us,
            generation: found.generation,
        };
        if found.joins {
            // Now what is due of the other track is due of this one, for they share an anchor.
            self.track_mut(kind).due = self.track(other(kind)).due.clone();
            self.track_mut(other(kind)).doubt = None;
        }
        let doubt = &mut self.track_mut(kind).doubt;
        *doubt = match found.doubt {
            Some(Doubt::Stepped { .. }) => doubt.or(found.doubt),
            _ => found.doubt.or(*doubt),
        };
        point.at_us = self.take_due(kind, point.at_us);
        if is_live {
            let back_us = self.return_credit(kind, &point);
            point.at_us = point.at_us.saturating_add(back_us);
        }
        if stood.is_none() {
            let still = &mut self.track_mut(kind).still;
            still.go_on(stamp_ms, point.at_us, now_us);
        }
        let (moved, gap_us) = self.settle(kind, point);
        Placed {
            at: WallTime::from_micros(point.at_us),
            slew_us: self.slew.at(point.at_us),
            moved,
            // How long it took to believe that stamps stand still is told as that.
            gap_us: gap_us.filter(|_| !is_paced),
        }
    }

    /// What was repaired by the last [`Self::place`].
    pub fn poll_repair(&mut self) -> Option<Repair> {
        self.repairs.pop_front()
    }

    /// How fast the source's clock runs beside the wall clock, in parts per million: above zero where it is
    /// slow and its samples come later and later. `None` until it was watched for two minutes without a break.
    #[must_use]
    pub fn drift_ppm(&self) -> Option<i64> {
        self.leader_ppm()
    }

    /// How far the farther of the tracks is.
    fn front_us(&self) -> Option<i64> {
        let video_us = self.video.last.map(|last| last.at_us);
        let audio_us = self.audio.last.map(|last| last.at_us);
        video_us.max(audio_us)
    }

    const fn track(&self, kind: MediaKind) -> &Track {
        match kind {
            MediaKind::Video => &self.video,
            MediaKind::Audio => &self.audio,
        }
    }

    const fn track_mut(&mut self, kind: MediaKind) -> &mut Track {
        match kind {
            MediaKind::Video => &mut self.video,
            MediaKind::Audio => &mut self.audio,
        }
    }

    /// Makes `point` the newest of its track; says whether the track moved, and over which gap.
    fn settle(&mut self, kind: MediaKind, point: Point) -> (bool, Option<i64>) {
        let track = self.track_mut(kind);
        let mut gap_us = None;
        let mut moved = std::mem::take(&mut track.shifted);
        if let Some(last) = track.last {
            let step_us = point.at_us.saturating_sub(last.at_us);
            let renewed = last.generation != point.generation;
            let is_long = step_us > i64::from(MAX_STEP_MS) * 1_000;
            gap_us = (is_long && !moved && !renewed).then_some(step_us);
            moved |= renewed || is_long;
            if renewed {
                track.lateness.restart();
            } else if (1..=i64::from(MAX_PLAIN_STEP_MS) * 1_000).contains(&step_us) {
                track.step_us = Some(step_us);
            }
        }
        track.last = Some(point);
        let late_us = point.arrived_us.saturating_sub(point.at_us);
        track.lateness.push(point.arrived_us, late_us);
        if moved {
            self.unsettle();
        }
        (moved, gap_us)
    }

    /// The place of a stamp: the instant, the generation of its anchor, and what is to be told.
    fn locate(&self, kind: MediaKind, stamp_ms: u32, now_us: i64) -> Located {
        let track = self.track(kind);
        let (own, beside) = (track.last, self.track(other(kind)).last);
        if let Some(own) = own {
            let step = own.step_to(stamp_ms);
            let around = step.saturating_add(WRAP_24);
            if step < -MAX_STEP_MS && (0..=MAX_STEP_MS).contains(&around) {
                let repair = Some(Repair::Wrapped);
                return Located {
                    repair,
                    ..Located::new(track.after(&own, around), own.generation)
                };
            }
            if (-MAX_STEP_BACK_MS..=MAX_PLAIN_STEP_MS).contains(&step)
                || step > 0 && self.is_believable(kind, &own, step, now_us)
            {
                let from_us = track.after(&own, step);
                let usual_us = track.step_us.unwrap_or(USUAL_STEP_US);
                let is_long = i64::from(step) * 1_000 >= 2 * usual_us;
                let is_unseen = unseen_us(&own, from_us, now_us) > steer::FOLLOWED_US;
                let is_odd = is_long && is_unseen && beside.is_some();
                let since = lateness::bucket_at(now_us).saturating_add(1);
                return Located {
                    doubt: is_odd.then_some(Doubt::Stepped { from_us, since }),
                    ..Located::new(from_us, own.generation)
                };
            }
        }
        let newest = own
            .map(|own| own.generation)
            .max(beside.map(|beside| beside.generation));
        let (Some(newest), Some(known)) = (newest, own.or(beside)) else {
            return Located::new(now_us, 0);
        };
        if let Some(beside) = beside
            && let Some(joined) = self.join(kind, &beside, stamp_ms, now_us)
        {
            return joined;
        }
        let at_us = self.seam(kind, now_us);
        let by_ms = i64::from(known.step_to(stamp_ms));
        let doubt = match (own, beside) {
            (Some(_), Some(_)) => Doubt::Alone {
                from_us: at_us,
                apart_us: self.apart_us(kind),
            },
            _ => Doubt::Began,
        };
        Located {
            repair: Some(Repair::ClockJump { by_ms }),
            doubt: beside.map(|_| doubt),
            ..Located::new(at_us, newest.saturating_add(1))
        }
    }

    /// The place of a stamp at its distance from `beside`, the newest sample of the other track: if the other
    /// track came, or changed its clock, first, and this stamp fits there.
    fn join(&self, kind: MediaKind, beside: &Point, stamp_ms: u32, now_us: i64) -> Option<Located> {
        let apart_us = match (self.track(kind).last, self.track(other(kind)).doubt) {
            (None, _) => 0,
            (Some(_), Some(Doubt::Alone { apart_us, .. })) => apart_us,
            _ => return None,
        };
        if self.track(other(kind)).still.is_paced() {
            return None;
        }
        let is_first = self.track(kind).last.is_none();
        let is_plain = apart_us == 0;
        let step_ms = beside.step_to(stamp_ms);
        let joined = |by_us: i64| Located {
            joins: true,
            doubt: (!is_first).then_some(Doubt::Followed { is_plain }),
            ..Located::new(
                beside.after(step_ms).saturating_add(by_us),
                beside.generation,
            )
        };
        if self.policy == JumpPolicy::Follow {
            return (step_ms.saturating_abs() <= MAX_SKEW_MS).then(|| joined(0));
        }
        // Both clocks jumped alike, and are apart as they were; or both are now one.
        let usual_us = self.usual_skew(kind).unwrap_or(0);
        let odd_us = |place: &Located| {
            let late_us = now_us.saturating_sub(place.at_us);
            let beside_us = beside.arrived_us.saturating_sub(beside.at_us);
            let skew_us = late_us.saturating_sub(beside_us);
            // What is sent at once to begin with, one track after the other, fits by itself.
            let fits = is_interleaved(kind, skew_us) || is_first && is_interleaved(kind, late_us);
            fits.then(|| skew_us.saturating_sub(usual_us).saturating_abs())
        };
        let places = [joined(apart_us), joined(0)].into_iter();
        let fitting = places.filter_map(|place| Some((odd_us(&place)?, place)));
        fitting
            .min_by_key(|(odd_us, _)| *odd_us)
            .map(|(_, place)| place)
    }

    /// How much later a stamp of the other track lies than one of the same number of this track.
    fn apart_us(&self, kind: MediaKind) -> i64 {
        let end = |kind| {
            let track: &Track = self.track(kind);
            let due_us = track.due.iter().map(|due| due.by_us).sum::<i64>();
            track
                .last
                .map(|last| (last, last.at_us.saturating_add(due_us)))
        };
        let (Some((own, own_us)), Some((beside, beside_us))) = (end(kind), end(other(kind))) else {
            return 0;
        };
        let step_us = i64::from(own.step_to(beside.stamp_ms)) * 1_000;
        beside_us.saturating_sub(own_us).saturating_sub(step_us)
    }

    /// Where a sample lies whose stamp stands still after `last`, once that is believed.
    fn pace(&mut self, kind: MediaKind, last: Point, now_us: i64) -> Option<Located> {
        let paced = self.track_mut(kind).still.stand(now_us)?;
        let jumped = |us: i64| Repair::ClockJump { by_ms: us / 1_000 };
        // The arrival that it is paced from may have been late.
        let is_beside = self.track(other(kind)).last.is_some();
        let doubt = Doubt::Followed { is_plain: false };
        Some(Located {
            repair: paced.begins_after_us.map(jumped),
            doubt: paced.begins_after_us.map(|_| doubt).filter(|_| is_beside),
            ..Located::new(paced.at_us.max(last.at_us), last.generation)
        })
    }

    /// Where a sample lies whose stamp goes on after others were paced, if their clock had gone on.
    fn resume(&self, kind: MediaKind, stamp_ms: u32, now_us: i64) -> Option<Located> {
        let track = self.track(kind);
        let (last, at_us) = (track.last?, track.still.resume(stamp_ms, now_us)?);
        Some(Located::new(at_us.max(last.at_us), last.generation))
    }

    /// Whether a step of more than [`MAX_PLAIN_STEP_MS`] is a gap: the wall clock saw it as well.
    fn is_believable(&self, kind: MediaKind, own: &Point, step_ms: i32, now_us: i64) -> bool {
        if self.policy == JumpPolicy::Follow {
            return true;
        }
        let at_us = own.after(step_ms);
        if let Some(earliest) = self.earliest(kind) {
            return now_us.saturating_sub(at_us) >= earliest - MAX_EARLY_US;
        }
        step_ms <= MAX_STEP_MS || unseen_us(own, at_us, now_us) <= GAP_TOLERANCE_MS * 1_000
    }

    /// Where a track goes on whose stamps say nothing: at its end, or after a wait by the wall clock.
    fn seam(&self, kind: MediaKind, now_us: i64) -> i64 {
        let track = self.track(kind);
        let usual = track.lateness.reference();
        let usual = usual.or_else(|| self.track(other(kind)).lateness.reference());
        let arrives = now_us.saturating_sub(usual.unwrap_or(0));
        let Some(own) = track.last else {
            return arrives;
        };
        let step = track.step_us.unwrap_or(USUAL_STEP_US);
        let goes_on = own.at_us.saturating_add(step);
        let waited = now_us.saturating_sub(own.arrived_us);
        if waited <= MAX_SEAM_US.saturating_add(step) {
            goes_on
        } else {
            arrives.max(goes_on)
        }
    }

    /// Moves both tracks by `by_us`, from `from_us` on, where the next sample of `here` lies: a track that lags
    /// goes on as it was until it has come as far, so that the two keep their distance all the time.
    fn shift(&mut self, by_us: i64, from_us: i64, here: Option<MediaKind>) {
        for kind in [MediaKind::Video, MediaKind::Audio] {
            let track = self.track_mut(kind);
            let step_us = track.step_us.unwrap_or(0);
            let lags = track
                .last
                .is_some_and(|last| last.at_us + step_us < from_us);
            if here != Some(kind) && (lags || !track.due.is_empty()) {
                let is_full = track.due.len() >= MAX_DUE;
                match track.due.back_mut() {
                    Some(last) if is_full => {
                        last.by_us = last.by_us.saturating_add(by_us);
                    }
                    _ => track.due.push_back(Due { from_us, by_us }),
                }
            } else {
                self.shift_track(kind, by_us);
            }
        }
        self.slew.shift(by_us);
    }

    /// Where a sample at `at_us` comes to lie if its track has come to where shifts begin.
    fn take_due(&mut self, kind: MediaKind, mut at_us: i64) -> i64 {
        while let Some(due) = self.track(kind).due.front().copied()
            && at_us >= due.from_us
        {
            self.track_mut(kind).due.pop_front();
            self.shift_track(kind, due.by_us);
            at_us = at_us.saturating_add(due.by_us);
        }
        at_us
    }

    fn shift_track(&mut self, kind: MediaKind, by_us: i64) {
        let track = self.track_mut(kind);
        if by_us > 0 {
            // Of a source that stays behind, earlier lateness says nothing any more.
            track.lateness.keep(SHIFTED_KEPT);
        }
        track.lateness.shift(by_us);
        track.still.shift(by_us);
        track.shifted = true;
        if let Some(last) = &mut track.last {
            last.at_us = last.at_us.saturating_add(by_us);
        }
    }
}

/// How much farther a track stepped from `own` to `at_us` than the wall clock saw until `now_us`.
const fn unseen_us(own: &Point, at_us: i64, now_us: i64) -> i64 {
    let waited_us = now_us.saturating_sub(own.arrived_us);
    at_us.saturating_sub(own.at_us).saturating_sub(waited_us)
}

/// Whether samples of one clock may be so interleaved that this track comes `skew_us` later than the other.
fn is_interleaved(kind: MediaKind, skew_us: i64) -> bool {
    let sound_us = match kind {
        MediaKind::Audio => skew_us,
        MediaKind::Video => skew_us.saturating_neg(),
    };
    INTERLEAVED_US.contains(&sound_us)
}

const fn other(kind: MediaKind) -> MediaKind {
    match kind {
        MediaKind::Video => MediaKind::Audio,
        MediaKind::Audio => MediaKind::Video,
    }
}

#[cfg(test)]
mod simulation_tests;
#[cfg(test)]
mod tests;

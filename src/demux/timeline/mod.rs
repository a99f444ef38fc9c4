//! Places the 32-bit millisecond stamps of a publisher on the timeline of the Unix epoch, and keeps them there.
//!
//! Enters: stamps of two interleaved tracks, and the wall clock at their arrival
//! Leaves: an instant for each, how far to slew it, and what had to be repaired; both tracks on one anchor, so
//!         that sound and picture keep their distance
//! Never:  reads a clock, looks at a frame rate
//! Time:   milliseconds modulo 2^32 in, microseconds since the epoch out
//! Spec:   [RTMP] §5.3.1.1 (serial arithmetic); docs/time.md

mod lateness;
mod slew;
mod steer;
mod still;

use std::collections::VecDeque;

use crate::demux::Repair;
use crate::media::MediaKind;
use crate::time::WallTime;

use self::lateness::Lateness;
pub use self::slew::PPM as SLEW_PPM;
use self::slew::Slew;
use self::steer::Steering;
pub use self::steer::{ALIGNED_US, LATE_US, MAX_AHEAD_US};
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

/// How far apart the stamps of two tracks of one clock may lie when both have changed to it.
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
    /// How late it comes when nothing is wrong: nothing for the track that leads, the depth of interleaving
    /// for the other. `None` until both were watched for a while.
    usual_us: Option<i64>,
    /// It was shifted since its last sample.
    shifted: bool,
    /// How it is to be shifted from where on, in order.
    due: VecDeque<Due>,
    /// Whether its stamps stand still.
    still: Still,
    /// It alone changed to a new clock, and whether its distance to the other survived is not known yet.
    doubtful: bool,
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
}

/// The clock of one broadcast. `now` must never go backwards. Drain [`Self::poll_repair`] after every
/// [`Self::place`].
///
/// A track that continues its own stamps keeps its anchor. One that does not is compared with the anchor in
/// force; if it fits there (the other track jumped first, and this one follows), it joins it. Otherwise the
/// jump makes a new anchor, so both tracks end on the same one and their distance survives.
///
/// Beside that, [`steer`] compares arrivals with positions: a source whose clock drifts is slewed, one that
/// stays behind, because its clock stood still, is placed anew, both tracks by the same amount.
#[derive(Clone, Debug, Default)]
pub struct Timeline {
    policy: JumpPolicy,
    video: Track,
    audio: Track,
    slew: Slew,
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
        let found = paced.unwrap_or_else(|| self.locate(kind, stamp_ms, now_us));
        self.repairs.extend(found.repair);
        let mut point = Point {
            stamp_ms,
            at_us: found.at_us,
            arrived_us: now_us,
            generation: found.generation,
        };
        if self.track(kind).last.map(|last| last.generation) != Some(point.generation) {
            // Now what is due of the other track is due of this one, for they share an anchor.
            self.track_mut(kind).due = self.track(other(kind)).due.clone();
        }
        point.at_us = self.take_due(kind, point.at_us);
        if is_live {
            let back_us = self.return_credit(kind, &point);
            point.at_us = point.at_us.saturating_add(back_us);
        }
        if stood.is_none() {
            self.track_mut(kind).still.go_on(point.at_us, now_us);
        }
        let moved = self.settle(kind, point);
        Placed {
            at: WallTime::from_micros(point.at_us),
            slew_us: self.slew.at(point.at_us),
            moved,
        }
    }

    /// What was repaired by the last [`Self::place`].
    pub fn poll_repair(&mut self) -> Option<Repair> {
        self.repairs.pop_front()
    }

    /// How fast the source's clock runs beside the wall clock, in parts per million: above zero where it is
    /// slow and its samples come later and later. `None` until it was watched for two minutes without a break.
    #[must_use]
    pub const fn drift_ppm(&self) -> Option<i64> {
        self.steering.drift_ppm()
    }

    /// The newest sample on the newest anchor.
    fn latest(&self) -> Option<Point> {
        let (Some(video), Some(audio)) = (self.video.last, self.audio.last) else {
            return self.video.last.or(self.audio.last);
        };
        let order = |point: &Point| (point.generation, point.at_us);
        Some(if order(&video) > order(&audio) {
            video
        } else {
            audio
        })
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

    /// Makes `point` the newest of its track; says whether the track moved.
    fn settle(&mut self, kind: MediaKind, point: Point) -> bool {
        let reference = self.track(other(kind)).last.map(|last| last.generation);
        let track = self.track_mut(kind);
        let mut moved = std::mem::take(&mut track.shifted);
        if let Some(last) = track.last {
            let step_us = point.at_us.saturating_sub(last.at_us);
            let renewed = last.generation != point.generation;
            moved |= renewed || step_us > i64::from(MAX_STEP_MS) * 1_000;
            if renewed {
                track.lateness.restart();
                track.doubtful = reference.is_some_and(|other| other != point.generation);
            } else if (1..=i64::from(MAX_PLAIN_STEP_MS) * 1_000).contains(&step_us) {
                track.step_us = Some(step_us);
            }
        }
        track.last = Some(point);
        let late_us = point.arrived_us.saturating_sub(point.at_us);
        track.lateness.push(point.arrived_us, late_us);
        if moved {
            self.steering.unsettle();
        }
        moved
    }

    /// The place of a stamp: the instant, the generation of its anchor, and what is to be told.
    fn locate(&self, kind: MediaKind, stamp_ms: u32, now_us: i64) -> Located {
        let found = |at_us, generation, repair| Located {
            at_us,
            generation,
            repair,
        };
        let Some(latest) = self.latest() else {
            return found(now_us, 0, None);
        };
        let own = self.track(kind).last;
        if let Some(own) = own {
            let step = own.step_to(stamp_ms);
            let around = step.saturating_add(WRAP_24);
            if step < -MAX_STEP_MS && (0..=MAX_STEP_MS).contains(&around) {
                return found(own.after(around), own.generation, Some(Repair::Wrapped));
            }
            if (-MAX_STEP_BACK_MS..=MAX_PLAIN_STEP_MS).contains(&step)
                || step > 0 && self.is_believable(kind, &own, step, now_us)
            {
                return found(own.after(step), own.generation, None);
            }
        }
        let step = latest.step_to(stamp_ms);
        // The other track came, or jumped, first.
        let joins = own.is_none_or(|own| own.generation != latest.generation);
        if joins && (-MAX_SKEW_MS..=MAX_SKEW_MS).contains(&step) {
            return found(latest.after(step), latest.generation, None);
        }
        let jumped = Repair::ClockJump {
            by_ms: i64::from(own.unwrap_or(latest).step_to(stamp_ms)),
        };
        let generation = latest.generation.saturating_add(1);
        found(self.seam(kind, now_us), generation, Some(jumped))
    }

    /// Where a sample lies whose stamp stands still after `last`, once that is believed.
    fn pace(&mut self, kind: MediaKind, last: Point, now_us: i64) -> Option<Located> {
        let paced = self.track_mut(kind).still.stand(now_us)?;
        let jumped = |us: i64| Repair::ClockJump { by_ms: us / 1_000 };
        Some(Located {
            at_us: paced.at_us.max(last.at_us),
            generation: last.generation,
            repair: paced.begins_after_us.map(jumped),
        })
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
        let waited_us = now_us.saturating_sub(own.arrived_us);
        let off_us = at_us.saturating_sub(own.at_us.saturating_add(waited_us));
        step_ms <= MAX_STEP_MS || off_us <= GAP_TOLERANCE_MS * 1_000
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

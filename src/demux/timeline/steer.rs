//! Keeps a timeline near the wall clock: slews what drifts, places anew what stays behind.
//!
//! Enters: the lateness of both tracks
//! Leaves: shifts of both tracks together, a direction for the slew, and what of it is to be told
//! Never:  follows jitter: only the earliest of many samples says where the source's clock stands
//! Time:   microseconds since the epoch
//! Spec:   docs/time.md
//!
//! Samples come early or late for four reasons, told apart by the floor of their lateness:
//!
//! | The floor | The reason | What is done |
//! |---|---|---|
//! | stays | jitter; also a stall whose samples then come all at once | nothing |
//! | creeps | two crystals; a way in that became longer | slewed |
//! | rises and stays up | the source's clock stood still, or its uplink is too narrow | placed anew |
//! | falls back after that | it was the network after all, which now delivers what it held | placed back |

use super::lateness::{KEPT, Lateness, bucket_at};
use super::{Doubt, Point, Timeline, Track, other};
use crate::demux::Repair;
use crate::media::MediaKind;

/// From here on a source that stays late is placed anew; below, it is slewed, for at most seventeen minutes.
pub const LATE_US: i64 = 500_000;

/// From here on the distance of the tracks is put right after one of them alone changed its clock.
pub const ALIGNED_US: i64 = 40_000;

/// From here on while that distance is known of a few seconds only.
const ROUGHLY_ALIGNED_US: i64 = 100_000;

/// From here on it is put right after both of them changed to one clock, whose stamps are else believed.
pub(super) const FOLLOWED_US: i64 = 250_000;

/// How far the other track has to come past the place where one changed its clock, to be known not to follow.
const FOLLOWS_US: i64 = 500_000;

/// Farther ahead, it is the server that holds the source back, and the distance says nothing of clocks.
pub const MAX_AHEAD_US: i64 = 8_000_000;

/// Farther ahead, stamps cannot be compared with arrivals any more: the source sends faster than its media.
const MAX_COMPARABLE_US: i64 = 1_000_000;

/// A slew begins when the timeline is off by this, and ends when it is right to within [`SLEWED_US`].
const SLEW_FROM_US: i64 = 30_000;
const SLEWED_US: i64 = 5_000;

/// One track is slewed alone once it is off its distance from the other by this: it has drifted by a few
/// milliseconds more when that is known, and is then not yet off by one frame.
const APART_FROM_US: i64 = 20_000;

/// The speed at which that is done: faster than clocks drift apart, and so slow that with the slew of both it is
/// less than one sample of sound per access unit.
const ALONE_PPM: i64 = 250;

/// Stretches with samples before a floor is trusted: five seconds.
const HISTORY: usize = 10;

/// Stretches with samples in which the distance of the tracks is looked for.
const SOME: usize = 2;
/// How long neither track was moved before a drift of one beside the other is looked for: fifteen seconds, which
/// an uplink that is too narrow does not leave.
const CALM: usize = 30;

/// Without a sample for this long, the source is taken to have stalled; one that sends slow pictures and nothing
/// else, for so many times its pace.
const STALL_US: i64 = 700_000;
const STALL_PACES: i64 = 2;

/// After a stall, the stretches whose floors are compared: one second decides whether what was held comes
/// now, faster than it plays, or the source goes on from where it stopped. Otherwise five seconds do.
const HALF_AFTER_STALL: usize = 1;
const HALF: usize = 5;
/// A floor that falls by more from half to half is catching up: a tenth, or a twenty-fifth, of real time.
const FALLING_AFTER_STALL_US: i64 = 50_000;
const FALLING_US: i64 = 100_000;

/// What may be taken back of steps forward: more was never the network's delay.
const MAX_CREDIT_US: i64 = 60_000_000;
/// While it is being taken back, samples earlier than this are placed back as well.
const RETURNING_US: i64 = 50_000;
/// How long after the last step back it counts as the same return.
const RETURN_US: i64 = 2_000_000;

/// How long a drift is measured before it is told, and after which time the measuring begins anew.
const DRIFT_FROM_US: i64 = 120_000_000;
const DRIFT_ANEW_US: i64 = 1_800_000_000;

/// What is remembered between two looks.
#[derive(Clone, Debug, Default)]
pub(super) struct Steering {
    /// The track whose lateness stands for the source, and how late that is when nothing is wrong.
    leader: Option<MediaKind>,
    usual_us: i64,
    arrived_us: Option<i64>,
    /// How long the sample before the newest one had been waited for.
    pace_us: i64,
    /// The stretch of the newest look.
    looked: Option<i64>,
    /// The stretch in which samples came again after a stall.
    resumed: Option<i64>,
    /// How much of the steps forward may have been the network's delay.
    credit_us: i64,
    /// When the newest step back was made.
    returned_us: Option<i64>,
    /// The timeline was right once since its anchor: what is off from now on is the source's doing.
    is_settled: bool,
}

/// How fast the clock of one track runs, as far as it was watched.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Watch {
    /// When the measuring of the drift began, and the floor then.
    since: Option<(i64, i64)>,
    ppm: Option<i64>,
}

impl Timeline {
    /// How slow the clock of the track is that stands for the source.
    pub(super) fn leader_ppm(&self) -> Option<i64> {
        self.track(self.steering.leader?).watch.ppm
    }

    /// The anchor is a new one.
    pub(super) const fn unsettle(&mut self) {
        self.steering.is_settled = false;
        self.video.watch.since = None;
        self.audio.watch.since = None;
    }

    /// Notices that something arrives at `now_us`, and twice a second looks at how late everything is.
    pub(super) fn notice(&mut self, now_us: i64) {
        let stretch = bucket_at(now_us);
        let before = self.steering.arrived_us.replace(now_us);
        let waited_us = now_us.saturating_sub(before.unwrap_or(now_us));
        let pace_us = std::mem::replace(&mut self.steering.pace_us, waited_us);
        if waited_us >= STALL_US.max(pace_us.saturating_mul(STALL_PACES)) {
            self.steering.resumed = Some(stretch);
        }
        if self.steering.looked.replace(stretch) == Some(stretch) {
            return;
        }
        let Some(leader) = self.lead(now_us) else {
            return;
        };
        self.measure(now_us);
        for kind in [MediaKind::Video, MediaKind::Audio] {
            self.realign(kind, now_us);
        }
        if let Some(late_us) = self.stays_behind(leader, now_us) {
            self.reanchor(late_us);
        }
        self.turn(leader, now_us);
        self.turn_alone(leader, now_us);
        for kind in [MediaKind::Video, MediaKind::Audio] {
            self.watch(kind, now_us);
        }
    }

    /// The lateness beyond which the earliest sample of a track never came, if that is known.
    pub(super) fn earliest(&self, kind: MediaKind) -> Option<i64> {
        let lateness = &self.track(kind).lateness;
        let floor = lateness.floor().filter(|_| lateness.len() >= HISTORY)?;
        (self.error(kind, floor) > -MAX_COMPARABLE_US).then_some(floor)
    }

    /// How far to move a sample back that comes too early because its delay was taken for lost time.
    pub(super) fn return_credit(&mut self, kind: MediaKind, point: &Point) -> i64 {
        if self.steering.credit_us == 0 || !self.track(kind).due.is_empty() {
            return 0;
        }
        // Only in front: what the other track has passed already is where that one was placed.
        if self
            .front_us()
            .is_none_or(|front_us| point.at_us <= front_us)
        {
            return 0;
        }
        let late_us = point.arrived_us.saturating_sub(point.at_us);
        let early_us = self.error(kind, late_us).saturating_neg();
        let returned = self.steering.returned_us;
        let is_returning =
            returned.is_some_and(|at| point.arrived_us.saturating_sub(at) <= RETURN_US);
        let limit = if is_returning { RETURNING_US } else { LATE_US };
        if early_us < limit {
            return 0;
        }
        let back_us = early_us.min(self.steering.credit_us);
        self.steering.credit_us -= back_us;
        self.steering.returned_us = Some(point.arrived_us);
        self.unsettle();
        self.shift(-back_us, point.at_us, Some(kind));
        if !is_returning {
            let by_ms = -back_us / 1_000;
            self.repairs.push_back(Repair::Reanchored { by_ms });
        }
        -back_us
    }

    /// How far a lateness of the track is from what it should be; above zero: it comes too late.
    fn error(&self, kind: MediaKind, late_us: i64) -> i64 {
        let front = self.front_us().unwrap_or(0);
        late_us
            .saturating_sub(self.slew.at(front))
            .saturating_sub(self.usual(kind).unwrap_or(0))
    }

    /// How late the track comes when nothing is wrong.
    fn usual(&self, kind: MediaKind) -> Option<i64> {
        let usual_us = self.steering.usual_us;
        if self.steering.leader == Some(kind) {
            return Some(usual_us);
        }
        Some(usual_us.saturating_add(self.usual_skew(kind)?))
    }

    /// How much later than the other track this one comes when nothing is wrong.
    pub(super) fn usual_skew(&self, kind: MediaKind) -> Option<i64> {
        let skew_us = self.skew.usual()?;
        Some(match kind {
            MediaKind::Audio => skew_us,
            MediaKind::Video => skew_us.saturating_neg(),
        })
    }

    /// The track that stands for the source: the first, until only the other one comes.
    fn lead(&mut self, now_us: i64) -> Option<MediaKind> {
        let flows = |kind| self.flows(kind, now_us);
        let (leader, usual_us) = match self.steering.leader {
            Some(leader) if !flows(leader) && flows(other(leader)) => {
                let next = other(leader);
                let floor = || Some(self.error(next, self.track(next).lateness.floor()?));
                (next, self.usual(next).or_else(floor)?)
            }
            Some(leader) => (leader, self.steering.usual_us),
            None => {
                let all = [MediaKind::Video, MediaKind::Audio];
                let mut all = all.into_iter();
                (all.find(|kind| self.track(*kind).last.is_some())?, 0)
            }
        };
        self.steering.leader = Some(leader);
        self.steering.usual_us = usual_us;
        Some(leader)
    }

    /// Whether a sample of the track came within the last five seconds.
    fn flows(&self, kind: MediaKind, now_us: i64) -> bool {
        let five_seconds = i64::try_from(HISTORY).unwrap_or(i64::MAX);
        self.track(kind).lateness.is_flowing(five_seconds, now_us)
    }

    /// Measures how much later sound comes than pictures, by the least of the same stretches of both.
    fn measure(&mut self, now_us: i64) {
        let (video, audio) = (&self.video, &self.audio);
        let is_calm = |track: &Track| track.doubt.is_none() && track.due.is_empty();
        let flow = self.flows(MediaKind::Video, now_us) && self.flows(MediaKind::Audio, now_us);
        let (Some(since), true) = (
            video.lateness.since().zip(audio.lateness.since()),
            is_calm(video) && is_calm(audio) && flow,
        ) else {
            return;
        };
        let since = since.0.max(since.1);
        let stretches = usize::try_from(bucket_at(now_us).saturating_sub(since)).unwrap_or(0);
        if self.skew.is_learnt() && stretches < CALM {
            return;
        }
        let floor = |track: &Track| track.lateness.floor_since(since, SOME);
        if let (Some(pictures), Some(sound)) = (floor(video), floor(audio)) {
            let skew_us = sound.saturating_sub(pictures);
            self.skew.push(now_us, skew_us, stretches);
        }
    }

    /// Decides the direction in which the track that does not lead is slewed alone.
    fn turn_alone(&mut self, leader: MediaKind, now_us: i64) {
        let follower = other(leader);
        let off_us = self
            .skew
            .off(now_us)
            .filter(|_| self.flows(follower, now_us) && self.track(follower).doubt.is_none())
            .map_or(0, |off_us| match follower {
                MediaKind::Audio => off_us,
                MediaKind::Video => off_us.saturating_neg(),
            });
        let direction = self.track(follower).slowed_ppm.signum();
        let is_off = match direction {
            0 => off_us.abs() >= APART_FROM_US,
            _ => off_us.abs() > SLEWED_US && off_us.signum() == direction,
        };
        let wanted = if is_off { off_us.signum() } else { 0 };
        // Of the leader the wall clock alone decides.
        self.track_mut(leader).slowed_ppm = 0;
        self.track_mut(follower).slowed_ppm = wanted * ALONE_PPM;
        if direction == 0 && wanted != 0 {
            let (kind, by_ms) = (follower, off_us / 1_000);
            self.repairs.push_back(Repair::TrackSlewed { kind, by_ms });
        }
    }

    /// From how much on a track in doubt is put back to the other.
    const fn tolerated(&self, doubt: Doubt) -> i64 {
        match doubt {
            Doubt::Followed { is_plain: true } | Doubt::Stepped { .. } => FOLLOWED_US,
            Doubt::Began => ALIGNED_US,
            _ if self.skew.is_trusted() => ALIGNED_US,
            _ => ROUGHLY_ALIGNED_US,
        }
    }

    /// Puts the distance of the tracks right after this one changed to a new clock: it arrives as much later
    /// than the other as it always did.
    fn realign(&mut self, kind: MediaKind, now_us: i64) {
        let (own, reference) = (self.track(kind), self.track(other(kind)));
        let (Some(doubt), true) = (own.doubt, own.due.is_empty() && reference.due.is_empty())
        else {
            return;
        };
        let may_follow = |from_us: i64| {
            let last = reference.last;
            last.is_none_or(|last| last.at_us < from_us.saturating_add(FOLLOWS_US))
        };
        let (usual, since) = match doubt {
            Doubt::Alone { from_us, .. } | Doubt::Stepped { from_us, .. }
                if may_follow(from_us) =>
            {
                return;
            }
            Doubt::Stepped { since, .. } => (self.usual_skew(kind), since),
            Doubt::Alone { .. } | Doubt::Followed { .. } => (self.usual_skew(kind), i64::MIN),
            Doubt::Began => (Some(0), i64::MIN),
        };
        let Some(usual) = usual else {
            self.track_mut(kind).doubt = None;
            return;
        };
        let least_us = self.tolerated(doubt);
        let (own, reference) = (&own.lateness, &reference.lateness);
        // Two seconds of both.
        let halves = |lateness: &Lateness| lateness.halves(2, since, now_us);
        let (Some(found), Some(expected)) = (halves(own), halves(reference)) else {
            return;
        };
        // While what was held comes faster than it plays, tracks of unlike rates seem to be apart.
        let falls =
            |(older, newer): (i64, i64)| newer < older.saturating_sub(FALLING_AFTER_STALL_US);
        if let Doubt::Stepped { from_us, .. } = doubt
            && (falls(found) || falls(expected))
        {
            let since = bucket_at(now_us).saturating_add(1);
            self.track_mut(kind).doubt = Some(Doubt::Stepped { from_us, since });
            return;
        }
        let older = found.0.saturating_sub(expected.0).saturating_sub(usual);
        let newer = found.1.saturating_sub(expected.1).saturating_sub(usual);
        // What both seconds agree on: on a way in that is getting longer or shorter, one of them misleads.
        let by_us = if older.signum() == newer.signum() {
            older.signum() * older.saturating_abs().min(newer.saturating_abs())
        } else {
            0
        };
        self.track_mut(kind).doubt = None;
        let is_off = by_us.saturating_abs() > least_us;
        if is_off || least_us < FOLLOWED_US {
            // What is left is no encoder's doing.
            self.skew.interrupt();
        }
        if is_off {
            self.shift_track(kind, by_us);
            let by_ms = by_us / 1_000;
            self.repairs.push_back(Repair::Realigned { kind, by_ms });
        }
    }

    /// By how much the source stays behind the wall clock, if it does.
    fn stays_behind(&self, leader: MediaKind, now_us: i64) -> Option<i64> {
        let now = bucket_at(now_us);
        // What was decided last has not reached both tracks yet. One that is gone is not waited for.
        let lags = |kind| !self.track(kind).due.is_empty() && self.flows(kind, now_us);
        if lags(MediaKind::Video) || lags(MediaKind::Audio) {
            return None;
        }
        let resumed = self.steering.resumed.unwrap_or(i64::MIN);
        let (half, falling_us) = match self.steering.resumed.map(|_| now - resumed) {
            Some(..=2) => return None,
            Some(3..=10) => (HALF_AFTER_STALL, FALLING_AFTER_STALL_US),
            _ => (HALF, FALLING_US),
        };
        // Where the leader sends slow pictures, the sound has it sooner.
        let (kind, (older, newer)) = [leader, other(leader)].into_iter().find_map(|kind| {
            let track = self.track(kind);
            self.usual(kind).filter(|_| self.flows(kind, now_us))?;
            Some((kind, track.lateness.halves(half, resumed, now_us)?))
        })?;
        if newer < older.saturating_sub(falling_us) {
            return None;
        }
        let late_us = self.error(kind, older.min(newer));
        (late_us >= LATE_US).then_some(late_us)
    }

    /// Places what follows `by_us` later, both tracks.
    fn reanchor(&mut self, by_us: i64) {
        // What is in front was placed already.
        let from_us = self.front_us().unwrap_or(0).saturating_add(1);
        self.shift(by_us, from_us, None);
        let credit = self.steering.credit_us.saturating_add(by_us);
        self.steering.credit_us = credit.min(MAX_CREDIT_US);
        self.steering.resumed = None;
        self.unsettle();
        let by_ms = by_us / 1_000;
        self.repairs.push_back(Repair::Reanchored { by_ms });
    }

    /// Decides the direction of the slew from now on.
    fn turn(&mut self, leader: MediaKind, now_us: i64) {
        let front_us = self.front_us().unwrap_or(0);
        let lateness = &self.track(leader).lateness;
        let known = lateness.len();
        // What comes after a pause is not slewed for all of it.
        let is_known = known >= HISTORY && self.flows(leader, now_us);
        let floor = lateness.floor().filter(|_| is_known);
        let direction = self.slew.direction();
        let Some(floor) = floor else {
            self.slew.turn(0, front_us);
            return;
        };
        let error = self.error(leader, floor);
        let is_off = match direction {
            0 => error.abs() >= SLEW_FROM_US,
            _ => error.abs() > SLEWED_US && error.signum() == direction,
        };
        // One early sample is proof; that all are late, half a minute has to show.
        let is_certain = error < 0 || known >= KEPT || direction != 0;
        let wanted = if is_off && is_certain && error > -MAX_AHEAD_US {
            error.signum()
        } else {
            0
        };
        self.slew.turn(wanted, front_us);
        if direction == 0 && wanted != 0 && self.steering.is_settled {
            let by_ms = error / 1_000;
            self.repairs.push_back(Repair::Slewed { by_ms });
        }
        self.steering.is_settled |= wanted == 0 && error.abs() < SLEW_FROM_US;
    }

    /// Measures how fast the clock of a track runs.
    fn watch(&mut self, kind: MediaKind, now_us: i64) {
        let is_known = self.track(kind).lateness.len() >= KEPT && self.flows(kind, now_us);
        let track = self.track_mut(kind);
        let Some(floor) = track.lateness.floor().filter(|_| is_known) else {
            return;
        };
        let (since, then) = *track.watch.since.get_or_insert((now_us, floor));
        let watched = now_us.saturating_sub(since);
        if watched >= DRIFT_FROM_US {
            let ppm = i128::from(floor.saturating_sub(then)) * 1_000_000 / i128::from(watched);
            track.watch.ppm = i64::try_from(ppm).ok();
        }
        if watched >= DRIFT_ANEW_US {
            track.watch.since = Some((now_us, floor));
        }
    }
}

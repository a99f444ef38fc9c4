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
use super::{Point, Timeline, Track, other};
use crate::demux::Repair;
use crate::media::MediaKind;

/// From here on a source that stays late is placed anew; below, it is slewed, for at most seventeen minutes.
pub const LATE_US: i64 = 500_000;

/// From here on the distance of the tracks is put right after one of them alone changed its clock.
pub const ALIGNED_US: i64 = 40_000;

/// Farther ahead, it is the server that holds the source back, and the distance says nothing of clocks.
pub const MAX_AHEAD_US: i64 = 8_000_000;

/// Farther ahead, stamps cannot be compared with arrivals any more: the source sends faster than its media.
const MAX_COMPARABLE_US: i64 = 1_000_000;

/// A slew begins when the timeline is off by this, and ends when it is right to within [`SLEWED_US`].
const SLEW_FROM_US: i64 = 30_000;
const SLEWED_US: i64 = 5_000;

/// Stretches with samples before a floor is trusted: five seconds.
const HISTORY: usize = 10;

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
    /// The track whose lateness stands for the source.
    leader: Option<MediaKind>,
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
    /// When the measuring of the drift began, and the floor then.
    watched: Option<(i64, i64)>,
    drift_ppm: Option<i64>,
}

impl Steering {
    pub(super) const fn drift_ppm(&self) -> Option<i64> {
        self.drift_ppm
    }

    /// The anchor is a new one.
    pub(super) const fn unsettle(&mut self) {
        self.is_settled = false;
        self.watched = None;
    }
}

impl Timeline {
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
        self.learn(leader, now_us);
        for kind in [MediaKind::Video, MediaKind::Audio] {
            self.realign(kind, now_us);
        }
        if let Some(late_us) = self.stays_behind(leader, now_us) {
            self.reanchor(late_us);
        }
        self.turn(leader);
        self.watch(leader, now_us);
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
        self.steering.unsettle();
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
        let usual = self.track(kind).usual_us.unwrap_or(0);
        late_us
            .saturating_sub(self.slew.at(front))
            .saturating_sub(usual)
    }

    /// The track that stands for the source: the first, until only the other one comes.
    fn lead(&mut self, now_us: i64) -> Option<MediaKind> {
        let flows = |kind| self.flows(kind, now_us);
        let leader = match self.steering.leader {
            Some(leader) if !flows(leader) && flows(other(leader)) => {
                let next = other(leader);
                if self.track(next).usual_us.is_none() {
                    let floor = self.track(next).lateness.floor()?;
                    self.track_mut(next).usual_us = Some(self.error(next, floor));
                }
                next
            }
            Some(leader) => leader,
            None => {
                let all = [MediaKind::Video, MediaKind::Audio];
                let first = all
                    .into_iter()
                    .find(|kind| self.track(*kind).last.is_some())?;
                self.track_mut(first).usual_us = Some(0);
                first
            }
        };
        self.steering.leader = Some(leader);
        Some(leader)
    }

    /// Whether a sample of the track came within the last five seconds.
    fn flows(&self, kind: MediaKind, now_us: i64) -> bool {
        let five_seconds = i64::try_from(HISTORY).unwrap_or(i64::MAX);
        self.track(kind).lateness.is_flowing(five_seconds, now_us)
    }

    /// Learns how much later than the leader the other track comes.
    fn learn(&mut self, leader: MediaKind, now_us: i64) {
        let follower = other(leader);
        let floor = |kind| {
            let track: &Track = self.track(kind);
            let known = track.lateness.len() >= HISTORY && track.lateness.is_flowing(1, now_us);
            let floor = track.lateness.floor();
            floor.filter(|_| known && !track.doubtful && track.due.is_empty())
        };
        if let (Some(leading), Some(following)) = (floor(leader), floor(follower)) {
            let usual = self.track(leader).usual_us.unwrap_or(0);
            let skew = following.saturating_sub(leading);
            self.track_mut(follower).usual_us = Some(usual.saturating_add(skew));
        }
    }

    /// Puts the distance of the tracks right after this one alone changed to a new clock: it arrives as much
    /// later than the other as it always did.
    fn realign(&mut self, kind: MediaKind, now_us: i64) {
        if !self.track(kind).doubtful {
            return;
        }
        let (own, reference) = (self.track(kind), self.track(other(kind)));
        let generation = |track: &Track| track.last.map(|last| last.generation);
        let has_joined = generation(own) == generation(reference);
        let (Some(usual), Some(reference_usual), false) =
            (own.usual_us, reference.usual_us, has_joined)
        else {
            self.track_mut(kind).doubtful = false;
            return;
        };
        let (own, reference) = (&own.lateness, &reference.lateness);
        // Two seconds of both.
        let halves = |lateness: &Lateness| lateness.halves(2, i64::MIN, now_us);
        let (Some(found), Some(expected)) = (halves(own), halves(reference)) else {
            return;
        };
        let usual = usual.saturating_sub(reference_usual);
        let older = found.0.saturating_sub(expected.0).saturating_sub(usual);
        let newer = found.1.saturating_sub(expected.1).saturating_sub(usual);
        // What both seconds agree on: on a way in that is getting longer or shorter, one of them misleads.
        let by_us = if older.signum() == newer.signum() {
            older.signum() * older.saturating_abs().min(newer.saturating_abs())
        } else {
            0
        };
        self.track_mut(kind).doubtful = false;
        if by_us.saturating_abs() > ALIGNED_US {
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
            track.usual_us.filter(|_| self.flows(kind, now_us))?;
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
        self.steering.unsettle();
        let by_ms = by_us / 1_000;
        self.repairs.push_back(Repair::Reanchored { by_ms });
    }

    /// Decides the direction of the slew from now on.
    fn turn(&mut self, leader: MediaKind) {
        let front_us = self.front_us().unwrap_or(0);
        let lateness = &self.track(leader).lateness;
        let known = lateness.len();
        let floor = lateness.floor().filter(|_| known >= HISTORY);
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

    /// Measures how fast the source's clock runs.
    fn watch(&mut self, leader: MediaKind, now_us: i64) {
        let lateness = &self.track(leader).lateness;
        let Some(floor) = lateness.floor().filter(|_| lateness.len() >= KEPT) else {
            return;
        };
        let (since, then) = *self.steering.watched.get_or_insert((now_us, floor));
        let watched = now_us.saturating_sub(since);
        if watched >= DRIFT_FROM_US {
            let ppm = i128::from(floor.saturating_sub(then)) * 1_000_000 / i128::from(watched);
            self.steering.drift_ppm = i64::try_from(ppm).ok();
        }
        if watched >= DRIFT_ANEW_US {
            self.steering.watched = Some((now_us, floor));
        }
    }
}

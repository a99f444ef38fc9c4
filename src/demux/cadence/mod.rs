//! Finds the frame rate in jittery stamps and places pictures on it evenly.
//!
//! Enters: decode stamps off by a millisecond or two, and the rate the publisher declares
//! Leaves: positions on an even cadence, phase-locked to the stamps; the rate, once known
//! Never:  trusts a declared rate that the stamps contradict
//! Time:   90 kHz ticks from the Unix epoch
//! Spec:   none

mod shown;

use self::shown::Shown;
use crate::time::{FrameRate, Timescale};

/// Ticks in a millisecond.
const MS: i64 = 90;

/// Widest spread of stamps around a true cadence: noise of ±1 ms and rounding to whole milliseconds.
const MAX_SPREAD: i64 = 3 * MS;

/// Farthest that a stamp lies from its slot before it is an outlier: the spread, the error of the phase, and
/// what drift may gather before it is followed.
const MAX_OFF_SLOT: i64 = 5 * MS;

/// Frames after which a declared rate that fits is believed.
const CONFIRM_FRAMES: i64 = 4;

/// Frames after which a rate is chosen without help.
const DECIDE_FRAMES: i64 = 16;

/// Stamps off their slots in a row after which the cadence is given up.
const MAX_OUTLIERS: u32 = 3;

/// Farthest that a decode stamp lies from its picture's place for the two to be compared: disorder is less.
const MAX_DISORDER: i64 = 500 * MS;

/// Frames that keep to another rate, and not to the one in force, after which the rate has changed: about a second.
/// Fewer may be those that are left of a cadence that misses some.
const CHANGE_FRAMES: i64 = 32;

/// Highest rate that is looked for: stamps in milliseconds cannot carry a cadence much faster.
const MAX_RATE: u32 = 120;

/// The rates of broadcast and film, of which an undecided measurement prefers one.
const STANDARD: [(u32, u32); 9] = [
    (30, 1),
    (60, 1),
    (25, 1),
    (50, 1),
    (24, 1),
    (48, 1),
    (30_000, 1_001),
    (60_000, 1_001),
    (24_000, 1_001),
];

/// The rate that a number of frames per thousand seconds stands for: 29970 is 30000/1001. `None` for zero.
#[must_use]
pub fn snap_millihertz(millihertz: u32) -> Option<FrameRate> {
    let near = |rate: &FrameRate| rate.millihertz().abs_diff(u64::from(millihertz)) <= 5;
    let mut standard = STANDARD.iter().filter_map(|(n, d)| FrameRate::new(*n, *d));
    standard.find(near).or_else(|| {
        if millihertz.is_multiple_of(1_000) {
            FrameRate::new(millihertz / 1_000, 1)
        } else {
            FrameRate::new(millihertz, 1_000)
        }
    })
}

fn slot_offset(rate: FrameRate, slot: i64) -> i64 {
    rate.slot_start(slot, Timescale::VIDEO_90K).get()
}

/// Notices that a clock runs at another speed, and says by how much to move, one tick at a time.
#[derive(Clone, Debug)]
pub(super) struct Drift {
    dead_band: i64,
    seen: u32,
    least: i64,
    most: i64,
    pending: i64,
}

impl Drift {
    /// Observations in one judgement: longer than any pattern of rounding, shorter than drift needs.
    const WINDOW: u32 = 256;

    /// A detector that leaves differences within `dead_band` alone.
    pub(super) const fn new(dead_band: i64) -> Self {
        Self {
            dead_band,
            seen: 0,
            least: i64::MAX,
            most: i64::MIN,
            pending: 0,
        }
    }

    pub(super) const fn reset(&mut self) {
        *self = Self::new(self.dead_band);
    }

    /// Takes the difference of a stamp from its expected place; gives −1, 0 or 1 ticks to move by.
    pub(super) fn push(&mut self, difference: i64) -> i64 {
        if self.pending != 0 {
            let step = self.pending.signum();
            self.pending -= step;
            return step;
        }
        self.seen += 1;
        self.least = self.least.min(difference);
        self.most = self.most.max(difference);
        if self.seen >= Self::WINDOW {
            // Only what all of the window agrees on is drift; the rest is noise around it.
            let agreed = if self.least > 0 {
                self.least
            } else {
                self.most.min(0)
            };
            self.reset();
            if agreed.abs() > self.dead_band {
                self.pending = agreed;
            }
        }
        0
    }
}

/// One rate that the stamps have not contradicted.
#[derive(Clone, Copy, Debug)]
struct Candidate {
    rate: FrameRate,
    /// Place in the order of preference.
    rank: usize,
    least: i64,
    most: i64,
}

impl Candidate {
    const fn spread(&self) -> i64 {
        self.most - self.least
    }
}

/// The rates that are still possible since a first stamp.
#[derive(Clone, Debug)]
struct Survivors {
    first: i64,
    frames: i64,
    candidates: Vec<Candidate>,
}

impl Survivors {
    fn new(first: i64) -> Self {
        let whole = (1..=MAX_RATE).map(|n| (n, 1));
        let mut candidates: Vec<Candidate> = Vec::new();
        for (num, den) in STANDARD.into_iter().chain(whole) {
            let Some(rate) = FrameRate::new(num, den) else {
                continue;
            };
            if candidates.iter().all(|other| other.rate != rate) {
                candidates.push(Candidate {
                    rate,
                    rank: candidates.len(),
                    least: 0,
                    most: 0,
                });
            }
        }
        Self {
            first,
            frames: 0,
            candidates,
        }
    }

    /// Takes the stamp of the frame `slots` after the one before.
    fn push(&mut self, stamp: i64, slots: i64) {
        self.frames = self.frames.saturating_add(slots);
        let (first, frames) = (self.first, self.frames);
        self.candidates.retain_mut(|candidate| {
            let ideal = slot_offset(candidate.rate, frames);
            let off = stamp.saturating_sub(first).saturating_sub(ideal);
            candidate.least = candidate.least.min(off);
            candidate.most = candidate.most.max(off);
            candidate.most.saturating_sub(candidate.least) <= MAX_SPREAD
        });
    }

    fn get(&self, rate: FrameRate) -> Option<&Candidate> {
        self.candidates.iter().find(|other| other.rate == rate)
    }

    /// A standard rate before any other, the tighter before the looser (by a third of a millisecond, which
    /// is what rounding alone explains), the more common before the rarer.
    fn best(&self) -> Option<&Candidate> {
        self.candidates.iter().min_by_key(|candidate| {
            let odd = candidate.rank >= STANDARD.len();
            (odd, candidate.spread() / (MS / 3), candidate.rank)
        })
    }
}

/// A cadence in force.
#[derive(Clone, Debug)]
struct Lock {
    rate: FrameRate,
    phase: i64,
    slot: i64,
    outliers: u32,
    /// What the latest stamps would say if nothing were known, and nothing missing.
    afresh: Survivors,
    drift: Drift,
}

enum Step {
    /// The stamp is this many slots after the last one.
    Slots(i64),
    Outlier,
}

impl Lock {
    fn new(rate: FrameRate, phase: i64, slot: i64) -> Self {
        Self {
            rate,
            phase,
            slot,
            outliers: 0,
            afresh: Survivors::new(phase.saturating_add(slot_offset(rate, slot))),
            drift: Drift::new(MS),
        }
    }

    fn at(&self, slot: i64) -> i64 {
        self.phase.saturating_add(slot_offset(self.rate, slot))
    }

    /// What the stamps have been keeping to instead, once they have for long enough. Of a cadence of twice their
    /// rate, every other picture would be missing for ever.
    fn changed(&mut self, stamp: i64) -> Option<(Survivors, Candidate)> {
        self.afresh.push(stamp, 1);
        if !self.afresh.candidates.is_empty() && self.afresh.frames < CHANGE_FRAMES {
            return None;
        }
        let found = std::mem::replace(&mut self.afresh, Survivors::new(stamp));
        let best = *found.best()?;
        let is_known = found.get(self.rate).is_some() || is_near(best.rate, self.rate);
        (!is_known).then_some((found, best))
    }

    fn period(&self) -> i64 {
        slot_offset(self.rate, 1).max(1)
    }

    /// How far from its slot a stamp may lie.
    fn tolerance(&self) -> i64 {
        MAX_OFF_SLOT.min(self.period() / 3)
    }

    /// The slot nearest to `at`.
    fn nearest(&self, at: i64) -> i64 {
        let period = self.period();
        let off = at.saturating_sub(self.at(self.slot));
        let slots = off.saturating_add(period / 2).div_euclid(period);
        self.slot.saturating_add(slots)
    }

    fn step(&mut self, stamp: i64) -> Step {
        let period = self.period();
        let off = stamp.saturating_sub(self.at(self.slot + 1));
        let missing = off.saturating_add(period / 2).div_euclid(period).max(0);
        let slots = 1 + missing;
        let off = stamp.saturating_sub(self.at(self.slot.saturating_add(slots)));
        if off.saturating_abs() > self.tolerance() {
            self.slot += 1;
            self.outliers += 1;
            return Step::Outlier;
        }
        self.slot += slots;
        self.outliers = 0;
        if missing > 0 {
            self.drift.reset();
        } else {
            self.phase += self.drift.push(off);
        }
        Step::Slots(slots)
    }
}

/// Where one picture lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Paced {
    /// Decode position in ticks; greater than the one before.
    pub at: i64,
    /// Expected distance to the next, in ticks; never zero.
    pub duration: u64,
    /// Pictures missing before it.
    pub missing: u64,
    /// The stamp was not later than the one before.
    pub nudged: bool,
    /// The rate, if it was decided or corrected just now.
    pub decided: Option<FrameRate>,
}

/// The cadence of one track of pictures.
///
/// With a declared rate, pictures are placed on it from the first one, and it is said after four that fit.
/// Without one, the stamps are taken as they are until sixteen of them leave a choice. Stamps that keep to no
/// rate (variable frame rate) are taken as they are for good, and looked at again all the time. 29.97 and 30
/// cannot be told apart in sixteen stamps; undeclared, the likelier is chosen and corrected as soon as the
/// stamps contradict it, two to three seconds later. A rate that changes is found anew: at once where another one
/// is declared, else once the stamps contradict the old one, or keep to another one for a second.
#[derive(Clone, Debug, Default)]
pub struct Cadence {
    declared: Option<FrameRate>,
    announced: Option<FrameRate>,
    /// What was announced holds no longer, and nothing else was found yet.
    is_in_doubt: bool,
    survivors: Option<Survivors>,
    lock: Option<Lock>,
    unlocked_frames: i64,
    last_stamp: Option<i64>,
    last_at: Option<i64>,
    last_duration: Option<u64>,
    shown: Shown,
}

impl Cadence {
    /// A cadence of which nothing is known.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Says which rate a publisher declares; rates outside 1 to 120 are ignored.
    pub fn declare(&mut self, rate: FrameRate) {
        if !(1_000..=u64::from(MAX_RATE) * 1_000).contains(&rate.millihertz()) {
            return;
        }
        let rate = snapped(rate);
        let is_news = self.declared.replace(rate) != Some(rate);
        if is_news && self.announced.is_some_and(|known| !is_near(known, rate)) {
            (self.lock, self.survivors) = (None, None);
            self.is_in_doubt = true;
        }
    }

    /// Places the picture stamped `stamp`. `moved` begins a new phase there.
    pub fn push(&mut self, stamp: i64, moved: bool) -> Paced {
        let nudged = !moved && self.last_stamp.is_some_and(|last| stamp <= last);
        self.last_stamp = Some(stamp);
        let (at, missing, decided) = if moved || self.survivors.is_none() {
            self.begin(stamp);
            (stamp, 0, None)
        } else if self.lock.is_some() {
            self.push_locked(stamp)
        } else {
            self.push_free(stamp)
        };
        let at = self
            .last_at
            .map_or(at, |last| at.max(last.saturating_add(1)));
        let duration = self.duration(at);
        self.last_at = Some(at);
        self.last_duration = Some(duration);
        Paced {
            at,
            duration,
            missing: u64::try_from(missing).unwrap_or(0),
            nudged,
            decided,
        }
    }

    /// The offset of presentation for the picture placed last, which was sent with `ticks`: in whole frames where
    /// a cadence is in force and `ticks` is near to one. A decode stamp that is not believed does not take the
    /// presentation with it: where the two stamps together say another instant, that is kept.
    pub fn composition_offset(&mut self, ticks: i64) -> i64 {
        let (Some(stamp), Some(at)) = (self.last_stamp, self.last_at) else {
            return ticks;
        };
        let follows = at.saturating_add(self.following(ticks, at));
        let off = stamp.saturating_sub(at).saturating_abs();
        let is_regular = off <= self.tolerance();
        let stamped = if is_regular || off > MAX_DISORDER {
            None
        } else {
            self.stamped(stamp.saturating_add(ticks))
        };
        let period = self.period();
        // Where pictures are sent in another order than shown, either may be wrong. An offset like that of others
        // speaks for a picture all of which was stamped wrong.
        let is_right = |stamped: &i64| {
            !self.shown.is_taken(*stamped, period)
                && (!self.shown.is_usual(ticks) || self.shown.is_taken(follows, period))
        };
        let shown = stamped.filter(is_right).unwrap_or(follows);
        self.shown.push(shown, ticks, is_regular);
        shown.saturating_sub(at)
    }

    /// The offset of a picture whose presentation follows its decoding.
    fn following(&self, ticks: i64, at: i64) -> i64 {
        let Some(lock) = &self.lock else {
            return ticks;
        };
        let period = lock.period();
        let there = lock.at(lock.nearest(lock.at(lock.slot).saturating_add(ticks)));
        let snapped = there.saturating_sub(lock.at(lock.slot));
        // A picture that was pushed off its slot keeps its presentation there.
        let pushed = at.saturating_sub(lock.at(lock.slot));
        if (snapped - ticks).abs() <= MAX_SPREAD.min(period / 3) {
            snapped - pushed.min(period)
        } else {
            ticks
        }
    }

    /// The slot at `at`, where a cadence is in force; `None` if there is none.
    fn stamped(&self, at: i64) -> Option<i64> {
        let Some(lock) = &self.lock else {
            return Some(at);
        };
        let there = lock.at(lock.nearest(at));
        (there.abs_diff(at) <= lock.tolerance().unsigned_abs()).then_some(there)
    }

    /// How far a stamp may lie from the place of its picture.
    fn tolerance(&self) -> i64 {
        self.lock.as_ref().map_or(0, Lock::tolerance)
    }

    /// The distance of two pictures.
    fn period(&self) -> i64 {
        let known = self.lock.as_ref().map(|lock| lock.rate);
        let known = known.or(self.announced).or(self.declared);
        known.map_or(90_000 / 30, |rate| slot_offset(rate, 1).max(1))
    }

    fn begin(&mut self, stamp: i64) {
        self.survivors = Some(Survivors::new(stamp));
        self.unlocked_frames = 0;
        let known = self.announced.or(self.declared);
        let known = known.filter(|_| !self.is_in_doubt);
        self.lock = known.map(|rate| Lock::new(rate, stamp, 0));
    }

    fn push_locked(&mut self, stamp: i64) -> (i64, i64, Option<FrameRate>) {
        let Some(lock) = &mut self.lock else {
            return (stamp, 0, None);
        };
        if let Some((survivors, best)) = lock.changed(stamp) {
            self.survivors = Some(survivors);
            self.lock_to(best);
            let decided = self.announce(Some(best.rate));
            let at = self.lock.as_ref().map_or(stamp, |lock| lock.at(lock.slot));
            return (at, 0, decided);
        }
        match lock.step(stamp) {
            // Twice the true rate would look like every other picture missing.
            Step::Slots(2..) if self.announced.is_none() => {
                self.lock = None;
                self.push_free(stamp)
            }
            Step::Slots(slots) => {
                if let Some(survivors) = &mut self.survivors {
                    survivors.push(stamp, slots);
                }
                let decided = self.review();
                let at = self.lock.as_ref().map_or(stamp, |lock| lock.at(lock.slot));
                (at, slots - 1, decided)
            }
            // A rate that was never confirmed, or a cadence that is gone.
            Step::Outlier if self.announced.is_none() || lock.outliers >= MAX_OUTLIERS => {
                self.lock = None;
                self.unlocked_frames = 0;
                if self.announced.is_none() {
                    // The stamps so far are still good for finding the true rate.
                    return self.push_free(stamp);
                }
                self.survivors = Some(Survivors::new(stamp));
                (stamp, 0, None)
            }
            Step::Outlier => (lock.at(lock.slot), 0, None),
        }
    }

    /// Confirms the rate in force, or replaces it by one that fits where it does not.
    fn review(&mut self) -> Option<FrameRate> {
        let (lock, survivors) = (self.lock.as_ref()?, self.survivors.as_ref()?);
        if survivors.get(lock.rate).is_some() || is_unusual(lock.rate) {
            let confirmed = self.announced.is_none() && survivors.frames >= CONFIRM_FRAMES;
            return confirmed.then(|| self.announce(self.lock.as_ref().map(|lock| lock.rate)))?;
        }
        // Contradicted: by another rate, or, if none fits either, by the drift of the publisher's clock.
        if survivors.frames < DECIDE_FRAMES {
            return None;
        }
        let best = *survivors.best()?;
        self.lock_to(best);
        self.announce(Some(best.rate))
    }

    fn push_free(&mut self, stamp: i64) -> (i64, i64, Option<FrameRate>) {
        self.unlocked_frames = self.unlocked_frames.saturating_add(1);
        let survivors = self.survivors.get_or_insert_with(|| Survivors::new(stamp));
        survivors.push(stamp, 1);
        let frames = survivors.frames;
        let declared = self.declared.and_then(|rate| survivors.get(rate)).copied();
        let found = match declared {
            Some(declared) if self.announced.is_none() && frames >= CONFIRM_FRAMES => {
                Some(declared)
            }
            declared if frames >= DECIDE_FRAMES => {
                let announced = self.announced.and_then(|rate| survivors.get(rate));
                declared.or_else(|| announced.or_else(|| survivors.best()).copied())
            }
            _ => None,
        };
        if let Some(found) = found {
            self.lock_to(found);
            let decided = self.announce(Some(found.rate));
            let at = self.lock.as_ref().map_or(stamp, |lock| lock.at(lock.slot));
            return (at, 0, decided);
        }
        let mut decided = None;
        if self.announced.is_none() && self.unlocked_frames >= DECIDE_FRAMES {
            let average = average_rate(stamp.saturating_sub(survivors.first), frames);
            decided = self.announce(self.declared.or(average));
        }
        if self
            .survivors
            .as_ref()
            .is_some_and(|survivors| survivors.candidates.is_empty())
        {
            self.survivors = Some(Survivors::new(stamp));
        }
        (stamp, 0, decided)
    }

    fn lock_to(&mut self, found: Candidate) {
        if let Some(survivors) = &self.survivors {
            let middle = found.least.saturating_add(found.most) / 2;
            let phase = survivors.first.saturating_add(middle);
            self.lock = Some(Lock::new(found.rate, phase, survivors.frames));
            self.is_in_doubt = false;
        }
    }

    fn announce(&mut self, rate: Option<FrameRate>) -> Option<FrameRate> {
        let news = rate.filter(|rate| self.announced != Some(*rate));
        self.announced = rate.or(self.announced);
        news
    }

    fn duration(&self, at: i64) -> u64 {
        let expected = match (&self.lock, self.last_at, self.last_duration) {
            (Some(lock), ..) => lock.at(lock.slot.saturating_add(1)).saturating_sub(at),
            (None, Some(last), _) if at - last < 90_000 => at - last,
            (None, ..) => self.period(),
        };
        u64::try_from(expected.max(1)).unwrap_or(1)
    }
}

/// A rate that the survivors do not hold, so that they cannot speak for or against it.
fn is_unusual(rate: FrameRate) -> bool {
    let standard = STANDARD.contains(&(rate.num(), rate.den()));
    !standard && (rate.den() != 1 || rate.num() > MAX_RATE)
}

/// Whether two rates are the same as far as a second of stamps tells: 29.97 is measured better than it is declared.
fn is_near(one: FrameRate, other: FrameRate) -> bool {
    let (one, other) = (one.millihertz(), other.millihertz());
    one.abs_diff(other) <= one / 100
}

fn snapped(rate: FrameRate) -> FrameRate {
    let millihertz = u32::try_from(rate.millihertz()).unwrap_or(u32::MAX);
    snap_millihertz(millihertz).unwrap_or(rate)
}

fn average_rate(ticks: i64, frames: i64) -> Option<FrameRate> {
    let ticks = i128::from(ticks.max(1));
    let rate = (i128::from(frames) * 90_000 + ticks / 2) / ticks;
    FrameRate::new(u32::try_from(rate.clamp(1, i128::from(MAX_RATE))).ok()?, 1)
}

#[cfg(test)]
mod shown_tests;
#[cfg(test)]
mod tests;

//! The pictures and the sound of one broadcast, held together by its clock.
//!
//! Enters: decoded frames and blocks with their positions; the broadcast's time; that the source has gone
//! Leaves: slots and blocks that keep up with the clock, whatever the source does
//! Never:  falls behind for a source that stalls; shows what comes after its time; moves one track alone
//! Time:   90 kHz and samples, from the Unix epoch; the clock in microseconds of the same
//! Spec:   docs/adr/0004-wait-by-the-clock.md
//!
//! Until it is first told the time, the tracks drive each other: what is recorded can be conducted as fast
//! as it can be read.

use std::time::Duration;

use bytes::Bytes;

use crate::time::{Ticks, Timescale, WallTime};
use crate::transcode::conductor::lateness::Lateness;
use crate::transcode::conductor::{
    AudioConductor, Conducted, Error, PCM_FRAME_BYTES, Shown, Slot, VideoConductor,
};

/// For how long all that comes must be out of place before it is taken to have a new place, in
/// microseconds. Longer than the demuxer takes, which knows the stamps and is to do it first.
const MISPLACED_US: i64 = 2_000_000;
/// Catching up is to come this much nearer to one's place in that time, in microseconds.
const CATCHING_UP_US: i64 = 250_000;
/// The same three of another source whose first media find their place filled: it is not there yet, so that there is
/// nothing to be wrong about but what it begins with, which comes faster than it plays.
const JOINING_US: i64 = 300_000;
const JOINING_COUNT: u32 = 8;
const JOINING_CATCHING_UP_US: i64 = 100_000;
/// What is later than this is looked at for as long as of any source, in microseconds: it begins with what is past.
const MAX_JOINING_LATE_US: i64 = 3_000_000;
/// Less than this nothing is moved by, in microseconds: nothing is late that comes so much later than usual.
const LEAST_MOVE_US: i64 = 100_000;
/// Once some of a move was taken back, the rest of it is from so much on, in microseconds.
const RETURNING_US: i64 = 30_000;
/// Media this far ahead of their place are misplaced, in microseconds: twice what the server lets a source
/// lead.
const MAX_LEAD_US: i64 = 20_000_000;
/// Sound that alone is late by more than this stays away, in microseconds: it would take the pictures along.
const MAX_SOUND_SHIFT_US: i64 = 3_000_000;
/// How late pictures are taken to be of which none came yet since the clock runs, in microseconds: those
/// before it were given to a new worker, for a source that has gone meanwhile.
const UNSEEN_US: i64 = 1_000_000;
/// How long sound that never came yet is waited for, in microseconds.
const FIRST_SOUND_US: i64 = 500_000;

/// How late the media come that are out of place: when that was first looked at, and what was seen since.
#[derive(Clone, Copy, Debug)]
struct Misplaced {
    since_us: i64,
    count: u32,
    first_us: i64,
    least_us: i64,
    most_us: i64,
}

impl Misplaced {
    const fn new(lag_us: i64, now_us: i64) -> Self {
        Self {
            since_us: now_us,
            count: 0,
            first_us: lag_us,
            least_us: lag_us,
            most_us: lag_us,
        }
    }

    fn see(&mut self, lag_us: i64) {
        self.count += 1;
        self.least_us = self.least_us.min(lag_us);
        self.most_us = self.most_us.max(lag_us);
    }

    /// Whether the media that come at `now_us` stay out of place, or come nearer to it; `None` if that is not known
    /// yet. `is_joining` are the first of a source.
    fn stays(&self, is_joining: bool, lag_us: i64, now_us: i64) -> Option<bool> {
        let since_us = now_us.saturating_sub(self.since_us);
        let is_over = since_us >= MISPLACED_US;
        if !is_joining {
            // What came before a stall says more than what comes in one piece after it.
            let nearer_us = self.first_us.saturating_sub(self.least_us);
            return is_over.then_some(nearer_us <= CATCHING_UP_US);
        }
        if self.first_us.saturating_sub(lag_us) > JOINING_CATCHING_UP_US {
            return Some(false);
        }
        // What comes in pieces comes nearer within each.
        let falls = self.most_us.saturating_sub(lag_us) > JOINING_CATCHING_UP_US;
        let is_known = since_us >= JOINING_US && self.count >= JOINING_COUNT;
        (is_over || is_known && !falls).then_some(true)
    }
}

/// One track against the clock.
#[derive(Debug)]
struct Arrivals {
    lateness: Lateness,
    misplaced: Option<Misplaced>,
    /// When the last of it came, and by how much later than its position that was.
    last_us: i64,
    lag_us: i64,
    /// By how much it was moved for the sake of the other track alone: it comes so much earlier than it did.
    along_us: i64,
    /// How late it usually was when both tracks were moved last: what comes earlier shows that they need not be
    /// any more. The newest lateness is no measure of that, which creeps along with whoever catches up.
    moved_at_us: Option<i64>,
    /// When some of the move was taken back for that reason.
    returned_us: i64,
    /// Whether another source has come, and nothing of it had a place yet.
    is_joining: bool,
}

impl Arrivals {
    const NONE: Self = Self {
        lateness: Lateness::new(),
        misplaced: None,
        last_us: i64::MIN,
        lag_us: 0,
        along_us: 0,
        moved_at_us: None,
        returned_us: i64::MIN,
        is_joining: false,
    };

    /// By how much media at `position_us` come earlier at `now_us` than when they were moved, if that is no
    /// jitter.
    fn early_us(&self, position_us: i64, now_us: i64) -> i64 {
        let lag_us = now_us.saturating_sub(position_us);
        let usual_us = self.moved_at_us.unwrap_or(lag_us);
        let early_us = usual_us.saturating_sub(lag_us);
        let is_returning = now_us.saturating_sub(self.returned_us) <= MISPLACED_US;
        let least_us = if is_returning {
            RETURNING_US
        } else {
            CATCHING_UP_US
        };
        if early_us > least_us { early_us } else { 0 }
    }

    /// Media at `position_us` came at `now_us`, `late_us` after their place was filled (ahead of it:
    /// negative). Answers by how much they are to be moved, once that is certain: to where they would have
    /// come as usual, so that their way through the server is as long as before.
    fn arrive(&mut self, position_us: i64, late_us: i64, now_us: i64) -> Option<i64> {
        self.last_us = now_us;
        self.lag_us = now_us.saturating_sub(position_us);
        let is_placed = (-MAX_LEAD_US..=0).contains(&late_us);
        // The first of a track says what is usual, even if it was no longer waited for.
        let is_first = self.lateness.least_us().is_none() && late_us <= MAX_SOUND_SHIFT_US;
        if is_placed || is_first {
            self.lateness.see(position_us, now_us);
            self.misplaced = None;
            self.is_joining = false;
            return None;
        }
        if late_us > 0 {
            self.lateness.see_late(position_us, now_us);
        }
        let lag_us = self.lag_us;
        let fresh = Misplaced::new(lag_us, now_us);
        let misplaced = self.misplaced.get_or_insert(fresh);
        misplaced.see(lag_us);
        let is_joining = self.is_joining && late_us <= MAX_JOINING_LATE_US;
        let least_us = misplaced.least_us;
        if !misplaced.stays(is_joining, lag_us, now_us)? {
            *misplaced = fresh;
            return None;
        }
        self.misplaced = None;
        let usual_us = self.lateness.least_us().unwrap_or(0);
        // What comes as usual is late because its place was filled in advance, before it was moved back.
        let by_us = least_us.saturating_sub(usual_us);
        (by_us.abs() > LEAST_MOVE_US).then_some(by_us)
    }

    /// All tracks are moved by `by_us`. One that came in time is moved along, and is not early for that.
    /// Answers whether it is.
    fn move_along(&mut self, by_us: i64, now_us: i64) -> bool {
        let is_there = now_us.saturating_sub(self.last_us) <= MISPLACED_US;
        let usual_us = self.lateness.least_us().unwrap_or(self.lag_us);
        let late_us = self.lag_us.saturating_sub(usual_us);
        // Jitter may make one look late that is not. Then it comes early, and this is decided once more.
        let is_along = is_there && late_us.abs() < late_us.saturating_sub(by_us).abs();
        if is_along {
            self.along_us = self.along_us.saturating_add(by_us);
            self.lateness.shift(by_us.saturating_neg());
        }
        is_along
    }

    /// Of what all tracks are moved by, `by_us` is taken back, because the other one is in time again.
    /// Answers whether this one was moved for its sake.
    fn move_back(&mut self, by_us: i64) -> bool {
        let back_us = by_us.min(self.along_us.max(0));
        self.along_us -= back_us;
        self.lateness.shift(back_us);
        self.moved_at_us = self.moved_at_us.map(|at_us| at_us.saturating_add(back_us));
        back_us > 0
    }

    /// `by_us` of the move is taken back because this track came early: that was no measure of what is usual.
    fn put_right(&mut self, by_us: i64, now_us: i64) {
        if let Some(usual_us) = self.moved_at_us.filter(|_| by_us > 0) {
            self.lateness.raise(usual_us);
            self.returned_us = now_us;
        }
    }

    /// The source has gone: what comes next is another one's, which was not moved, and is as late as it is.
    fn detach(&mut self) {
        self.move_back(self.along_us);
        (self.misplaced, self.moved_at_us) = (None, None);
        (self.last_us, self.is_joining) = (i64::MIN, true);
    }

    /// Both tracks were moved: forgets what was late.
    fn settle(&mut self) {
        self.lateness.forgive();
        (self.misplaced, self.is_joining) = (None, false);
        self.moved_at_us = self.lateness.least_us();
        self.returned_us = i64::MIN;
    }
}

/// What a [`Conductor`] gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output<F> {
    /// The next slot of the pictures.
    Slot(Slot<F>),
    /// The next block of exactly one access unit's samples.
    Block(Bytes),
}

/// Conducts one broadcast. Drain [`Self::poll_output`] to `None` after every other call.
#[derive(Debug)]
pub struct Conductor<F> {
    video: Option<VideoConductor<F>>,
    audio: AudioConductor,
    audio_scale: Timescale,
    has_sound: bool,
    /// The clock, once it was told.
    now_us: Option<i64>,
    /// By how much the source's positions are moved, both tracks alike.
    shift_us: i64,
    pictures: Arrivals,
    sound: Arrivals,
    moves: u64,
}

impl<F: Clone> Conductor<F> {
    /// A conductor of both; `video` is `None` for a ladder of sound alone. The sound is in `audio_scale`.
    #[must_use]
    pub const fn new(
        video: Option<VideoConductor<F>>,
        audio: AudioConductor,
        audio_scale: Timescale,
    ) -> Self {
        Self {
            video,
            audio,
            audio_scale,
            has_sound: false,
            now_us: None,
            shift_us: 0,
            pictures: Arrivals::NONE,
            sound: Arrivals::NONE,
            moves: 0,
        }
    }

    /// Shows `slate` wherever a picture would be held for more than `hold`.
    pub fn set_slate(&mut self, slate: F, hold: Duration) {
        if let Some(video) = &mut self.video {
            video.set_slate(slate, hold);
        }
    }

    /// Tells that sound is to be expected from now on.
    pub const fn expect_sound(&mut self) {
        self.has_sound = true;
        self.audio.expect_sound(true);
    }

    /// Tells that a track of sound begins, the first or another one: where it does not continue what was laid, that
    /// is its place and no drift.
    pub const fn begin_sound(&mut self) {
        self.expect_sound();
        self.audio.detach();
    }

    /// Tells that the source has gone. What comes next is another one's, placed anew.
    pub fn detach(&mut self) {
        // By the clock silence comes when it is due, and another source may have sound until then.
        self.has_sound &= self.now_us.is_some();
        self.audio.expect_sound(self.has_sound);
        self.audio.detach();
        self.shift_us = 0;
        self.pictures.detach();
        self.sound.detach();
        if let Some(video) = &mut self.video {
            video.detach();
        }
    }

    /// Gives the frame that the source shows at `position` (90 kHz).
    ///
    /// # Errors
    ///
    /// As for [`VideoConductor::push`], before the first [`Self::follow`]. Later a frame that far ahead is
    /// left out.
    pub fn picture(&mut self, position: Ticks, frame: F) -> Result<(), Error> {
        let shifted = self.shifted(position, Timescale::VIDEO_90K);
        let Some(video) = &mut self.video else {
            return Ok(());
        };
        let Some(now_us) = self.now_us else {
            return video.push(position, frame);
        };
        if video.is_before_start(shifted) {
            return video.push(shifted, frame);
        }
        let at_us = micros(shifted, Timescale::VIDEO_90K);
        let early_us = self.pictures.early_us(at_us, now_us);
        let back_us = self.unshift(early_us);
        self.pictures.put_right(back_us, now_us);
        if self.sound.move_back(back_us) {
            return self.hold_for_sound();
        }
        let shifted = self.shifted(position, Timescale::VIDEO_90K);
        let at_us = micros(shifted, Timescale::VIDEO_90K);
        let late_us = self
            .video
            .as_ref()
            .map_or(0, |video| video.late_us(shifted));
        if let Some(by_us) = self.pictures.arrive(at_us, late_us, now_us) {
            let are_apart = self.sound.move_along(by_us, now_us);
            self.shift(by_us);
            if are_apart {
                return self.hold_for_sound();
            }
        }
        let shifted = self.shifted(position, Timescale::VIDEO_90K);
        if let Some(video) = &mut self.video {
            // What is too far ahead is misplaced, and is moved if it stays so.
            let _ = video.push(shifted, frame);
        }
        Ok(())
    }

    /// Gives the block `pcm` whose first sample belongs at `position` (in samples).
    ///
    /// # Errors
    ///
    /// As for [`AudioConductor::push`], before the first [`Self::follow`]. Later a block that far ahead is
    /// left out.
    pub fn sound(&mut self, position: Ticks, pcm: Bytes) -> Result<(), Error> {
        self.expect_sound();
        let Some(now_us) = self.now_us else {
            return self.audio.push(position, pcm);
        };
        let shifted = self.shifted(position, self.audio_scale);
        let at_us = micros(shifted, self.audio_scale);
        let early_us = self.sound.early_us(at_us, now_us);
        let back_us = self.unshift(early_us);
        self.sound.put_right(back_us, now_us);
        if self.pictures.move_back(back_us) {
            return self.hush_for_pictures();
        }
        let shifted = self.shifted(position, self.audio_scale);
        let length = i64::try_from(pcm.len() / PCM_FRAME_BYTES).unwrap_or(0);
        let end = Ticks::new(shifted.get().saturating_add(length));
        let late_us = micros(self.audio.position(), self.audio_scale)
            .saturating_sub(micros(end, self.audio_scale));
        if late_us > 0 && !self.audio.has_begun() {
            // As for pictures: what a new worker is given first says nothing of the source.
            return self.audio.push(shifted, pcm);
        }
        let at_us = micros(shifted, self.audio_scale);
        if let Some(by_us) = self.sound.arrive(at_us, late_us, now_us)
            && self.may_lead(by_us, now_us)
        {
            let are_apart = self.pictures.move_along(by_us, now_us);
            self.shift(by_us);
            if are_apart {
                return self.hush_for_pictures();
            }
        }
        // As for pictures.
        let _ = self
            .audio
            .push(self.shifted(position, self.audio_scale), pcm);
        Ok(())
    }

    /// Tells the time. Slots and samples whose time has passed are filled.
    ///
    /// # Errors
    ///
    /// [`Error::Jump`] if there are too many of them.
    pub fn follow(&mut self, now: WallTime) -> Result<(), Error> {
        let now_us = now.as_micros().max(self.now_us.unwrap_or(i64::MIN));
        self.now_us = Some(now_us);
        let pictures_us = self.pictures.lateness.due_us(now_us);
        if let Some(video) = &mut self.video {
            let due_us = pictures_us.unwrap_or_else(|| now_us.saturating_sub(UNSEEN_US));
            video.fill(ticks(due_us, Timescale::VIDEO_90K))?;
        }
        if !self.has_sound && self.video.is_some() {
            return Ok(());
        }
        let waited_us = pictures_us.map(|due_us| due_us.saturating_sub(FIRST_SOUND_US));
        if let Some(due_us) = self.sound.lateness.due_us(now_us).or(waited_us) {
            self.audio.fill(ticks(due_us, self.audio_scale))?;
        }
        Ok(())
    }

    /// The next output, in order of time, or `None` until more is given: whoever waits for the pictures to be
    /// encoded must not have sound of the same time wait for all of them.
    ///
    /// # Errors
    ///
    /// [`Error::Jump`] if the tracks lie further apart than either is filled for.
    pub fn poll_output(&mut self) -> Result<Option<Output<F>>, Error> {
        if self.is_sound_behind()
            && let Some(block) = self.poll_sound()?
        {
            return Ok(Some(Output::Block(block)));
        }
        if let Some(slot) = self.video.as_mut().and_then(VideoConductor::poll_output) {
            return Ok(Some(Output::Slot(slot)));
        }
        if let Some(block) = self.poll_sound()? {
            return Ok(Some(Output::Block(block)));
        }
        if let Some(video) = &mut self.video
            && self.now_us.is_none()
        {
            let sound = self.audio.position().at(self.audio_scale);
            video.follow(sound.rescale_floor(Timescale::VIDEO_90K))?;
            return Ok(video.poll_output().map(Output::Slot));
        }
        Ok(None)
    }

    /// Whether sound is due before the next slot.
    fn is_sound_behind(&self) -> bool {
        self.video.as_ref().is_some_and(|video| {
            let pictures = video.position().at(Timescale::VIDEO_90K);
            self.audio.given() < pictures.rescale_floor(self.audio_scale)
        })
    }

    fn poll_sound(&mut self) -> Result<Option<Bytes>, Error> {
        if let Some(video) = &self.video
            && !(self.now_us.is_some() && self.has_sound)
        {
            let pictures = video.position().at(Timescale::VIDEO_90K);
            self.audio
                .follow(pictures.rescale_floor(self.audio_scale))?;
        }
        Ok(self.audio.poll_output())
    }

    /// The end of the broadcast: whichever of the two ends first is filled to the end of the other, so that every
    /// rendition ends at the same instant, but for less than a slot.
    ///
    /// # Errors
    ///
    /// As for [`VideoConductor::finish`] and [`AudioConductor::finish`].
    pub fn finish(&mut self) -> Result<(), Error> {
        let mut end = self.audio.position();
        if let Some(video) = &mut self.video {
            let sound = end.at(self.audio_scale);
            video.finish(sound.rescale_floor(Timescale::VIDEO_90K))?;
            let pictures = video.filled_to().at(Timescale::VIDEO_90K);
            end = end.max(pictures.rescale_ceil(self.audio_scale));
        }
        self.audio.finish(end)
    }

    /// How it goes.
    #[must_use]
    pub fn conducted(&self) -> Conducted {
        let video = self.video.as_ref();
        let count = |of: fn(&VideoConductor<F>) -> u64| video.map_or(0, of);
        Conducted {
            shown: video.map_or(Shown::Source, VideoConductor::shown),
            held_slots: count(VideoConductor::held_slots),
            slate_slots: count(VideoConductor::slate_slots),
            slate_ms: count(VideoConductor::slate_ms),
            dropped_frames: count(VideoConductor::dropped),
            moves: self.moves,
        }
    }

    /// How many samples of silence were made, and how many of sound thrown away.
    #[must_use]
    pub const fn silence(&self) -> (u64, u64) {
        (self.audio.filled(), self.audio.trimmed())
    }

    /// Whether sound that is misplaced by `by_us` may take the pictures along.
    fn may_lead(&self, by_us: i64, now_us: i64) -> bool {
        let are_gone = now_us.saturating_sub(self.pictures.last_us) > MISPLACED_US;
        let are_placed = self.pictures.misplaced.is_none();
        self.video.is_none() || are_gone || are_placed && by_us.abs() <= MAX_SOUND_SHIFT_US
    }

    fn shift(&mut self, by_us: i64) {
        self.shift_us = self.shift_us.saturating_add(by_us);
        self.moves += 1;
        self.pictures.settle();
        self.sound.settle();
    }

    /// Takes back of the shift what makes media come `early_us` too early: their source has been put right
    /// meanwhile. Answers how much that is.
    fn unshift(&mut self, early_us: i64) -> i64 {
        let back_us = early_us.clamp(0, self.shift_us.max(0));
        self.shift_us -= back_us;
        back_us
    }

    /// Both tracks are moved, for the sake of the pictures: none of those is shown beside sound of before. Takes
    /// the place of giving a frame.
    fn hold_for_sound(&mut self) -> Result<(), Error> {
        let sound = self.audio.position().at(self.audio_scale);
        let video = self.video.as_mut();
        video.map_or(Ok(()), |video| {
            video.fill(sound.rescale_floor(Timescale::VIDEO_90K))
        })
    }

    /// Both tracks are moved, for the sake of the sound: nothing of it is heard beside pictures of before. Takes
    /// the place of giving a block.
    fn hush_for_pictures(&mut self) -> Result<(), Error> {
        let Some(video) = &self.video else {
            return Ok(());
        };
        let pictures = video.position().at(Timescale::VIDEO_90K);
        self.audio.fill(pictures.rescale_floor(self.audio_scale))
    }

    fn shifted(&self, position: Ticks, scale: Timescale) -> Ticks {
        let shift = i128::from(self.shift_us) * i128::from(scale.get()) / 1_000_000;
        let shift = i64::try_from(shift).unwrap_or(0);
        Ticks::new(position.get().saturating_add(shift))
    }
}

fn micros(position: Ticks, scale: Timescale) -> i64 {
    position.at(scale).to_wall().as_micros()
}

fn ticks(us: i64, scale: Timescale) -> Ticks {
    WallTime::from_micros(us).to_ticks(scale)
}

#[cfg(test)]
mod tests;

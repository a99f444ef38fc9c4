//! Every sample of sound in its place: cuts, fills with silence, follows slow drift.
//!
//! Enters: blocks of interleaved stereo samples with positions; how far the pictures or the clock are
//! Leaves: blocks of whole access units that continue each other without gap or overlap; at the edges of
//!         silence the sound fades
//! Never:  waits for sound that does not come: the clock, or else the pictures, drive silence
//! Time:   samples of the plan's rate, from the Unix epoch
//! Spec:   docs/architecture.md

use bytes::{Bytes, BytesMut};

use super::fade::{Fade, PCM_FRAME_BYTES};
use super::{Error, MAX_HOLD_SECONDS};
use crate::time::{Ticks, Timescale};

/// How long sound may lag the pictures before silence takes its place, in milliseconds, at first.
const INITIAL_ALLOWANCE_MS: i64 = 500;
/// The most that the allowance grows to for a source whose sound always comes late, in milliseconds.
/// It is also what the renditions of sound may lag those of pictures.
pub const MAX_ALLOWANCE_MS: i64 = 3_000;
/// What is added to the lateness seen, so that the next block comes in time, in milliseconds.
const ALLOWANCE_MARGIN_MS: i64 = 200;
/// From here on a wrong position is a gap or an overlap, in milliseconds; below it is jitter or drift.
const RESYNC_MS: i64 = 40;
/// From here on drift is followed, one sample per block, in milliseconds.
const SLEW_MS: i64 = 4;
/// How long sound takes to fade out and in, in milliseconds: too short to be missed, too long to click.
const FADE_MS: i64 = 20;
/// Samples of silence made at a time: bounds what one call allocates.
const SILENCE_FRAMES: usize = 4_096;

/// Lays sound on the sample grid. Drain [`Self::poll_output`] to `None` after every other call.
#[derive(Debug)]
pub struct AudioConductor {
    scale: Timescale,
    /// Whole access units: the size of an output block, in samples.
    block: usize,
    begin: i64,
    /// The position of the next sample to be laid.
    next: i64,
    /// Sound laid but not yet taken.
    laid: BytesMut,
    /// Silence still to be laid before anything else.
    silence: i64,
    /// Sound to be laid after the silence.
    after: Bytes,
    /// Whether the source has a track of sound.
    has_track: bool,
    /// Whether the last thing laid was sound, so that a small error is jitter and not a place.
    anchored: bool,
    /// Whether silence has ever taken the place of sound that may still come.
    gave_up: bool,
    allowance_ms: i64,
    fade: Fade,
    filled: u64,
    trimmed: u64,
}

impl AudioConductor {
    /// A conductor whose first sample is the one at `begin`, in blocks of `frame_samples`.
    /// `has_track` says whether sound is to be expected at all.
    #[must_use]
    pub fn new(scale: Timescale, begin: Ticks, frame_samples: u32, has_track: bool) -> Self {
        let ramp = FADE_MS * i64::from(scale.get()) / 1_000;
        Self {
            scale,
            block: usize::try_from(frame_samples.max(1)).unwrap_or(1),
            begin: begin.get(),
            next: begin.get(),
            laid: BytesMut::new(),
            silence: 0,
            after: Bytes::new(),
            has_track,
            anchored: false,
            gave_up: false,
            allowance_ms: INITIAL_ALLOWANCE_MS,
            fade: Fade::new(usize::try_from(ramp).unwrap_or(0)),
            filled: 0,
            trimmed: 0,
        }
    }

    /// Tells that what comes next is another source's: where it does not continue what was laid, that is its
    /// place and no drift.
    pub const fn detach(&mut self) {
        self.anchored = false;
    }

    /// Tells that sound is to be expected from now on, or no more.
    pub const fn expect_sound(&mut self, has_track: bool) {
        self.has_track = has_track;
    }

    /// Gives the block `pcm` whose first sample belongs at `position` (in samples).
    ///
    /// # Errors
    ///
    /// [`Error::Jump`] if it lies more than [`MAX_HOLD_SECONDS`] ahead; the block is ignored and
    /// nothing else changes.
    pub fn push(&mut self, position: Ticks, pcm: Bytes) -> Result<(), Error> {
        self.has_track = true;
        let whole = pcm.len() / PCM_FRAME_BYTES * PCM_FRAME_BYTES;
        let pcm = pcm.slice(..whole);
        let error = position.get().saturating_sub(self.next);
        if error > self.samples(MAX_HOLD_SECONDS * 1_000) {
            let ms = self.millis(error);
            return Err(Error::Jump { ms });
        }
        let near = if self.anchored {
            self.samples(RESYNC_MS)
        } else {
            1
        };
        if error >= near {
            self.silence = error;
            self.after = pcm;
        } else if error <= -near {
            self.widen_allowance(-error);
            self.after = self.trim(pcm, -error);
            // The next block is shorter than the resync limit, and what overlaps less is no drift here.
            self.anchored = false;
        } else {
            self.after = self.slew(pcm, error);
        }
        self.anchored |= !self.after.is_empty();
        Ok(())
    }

    /// Tells that the pictures have come to `position`: sound that lags by more than the allowance is
    /// given up, silence takes its place.
    ///
    /// # Errors
    ///
    /// [`Error::Jump`] as for [`Self::push`].
    pub fn follow(&mut self, position: Ticks) -> Result<(), Error> {
        let allowed = if self.has_track { self.allowance_ms } else { 0 };
        self.fill_to(position.get().saturating_sub(self.samples(allowed)))
    }

    /// Tells that it is too late for sound before `position`, by the clock: silence takes its place.
    ///
    /// # Errors
    ///
    /// [`Error::Jump`] as for [`Self::push`].
    pub fn fill(&mut self, position: Ticks) -> Result<(), Error> {
        self.fill_to(position.get())
    }

    /// Fills with silence up to `position` and on to the end of its block: the end of the broadcast.
    ///
    /// # Errors
    ///
    /// [`Error::Jump`] as for [`Self::push`].
    pub fn finish(&mut self, position: Ticks) -> Result<(), Error> {
        self.fill_to(position.get())?;
        let held = self.laid.len() / PCM_FRAME_BYTES + self.silence_left();
        let short = (self.block - held % self.block) % self.block;
        self.silence += i64::try_from(short).unwrap_or(0);
        Ok(())
    }

    /// The next block of exactly one access unit's samples, or `None` until more is given.
    pub fn poll_output(&mut self) -> Option<Bytes> {
        let wanted = self.block * PCM_FRAME_BYTES;
        while self.laid.len() < wanted && self.silence > 0 {
            let frames = self.silence_left().min(SILENCE_FRAMES);
            self.fade.silence(frames, &mut self.laid);
            let laid = i64::try_from(frames).unwrap_or(0);
            self.silence -= laid;
            self.next += laid;
            self.filled += frames as u64;
        }
        if self.silence == 0 && !self.after.is_empty() {
            let pcm = std::mem::take(&mut self.after);
            self.fade.sound(&pcm, &mut self.laid);
            self.next += i64::try_from(pcm.len() / PCM_FRAME_BYTES).unwrap_or(0);
        }
        (self.laid.len() >= wanted).then(|| self.laid.split_to(wanted).freeze())
    }

    /// The position of the next sample to be laid: how far the sound is.
    #[must_use]
    pub const fn position(&self) -> Ticks {
        Ticks::new(self.next)
    }

    /// The position of the next sample to be given out, which may be laid already.
    #[must_use]
    pub fn given(&self) -> Ticks {
        let held = self.laid.len() / PCM_FRAME_BYTES;
        Ticks::new(self.next - i64::try_from(held).unwrap_or(0))
    }

    /// Whether anything was laid.
    #[must_use]
    pub const fn has_begun(&self) -> bool {
        self.next > self.begin
    }

    /// How many samples of silence were made.
    #[must_use]
    pub const fn filled(&self) -> u64 {
        self.filled
    }

    /// How many samples were thrown away because their place was taken.
    #[must_use]
    pub const fn trimmed(&self) -> u64 {
        self.trimmed
    }

    fn silence_left(&self) -> usize {
        usize::try_from(self.silence).unwrap_or(0)
    }

    fn fill_to(&mut self, position: i64) -> Result<(), Error> {
        let missing = position.saturating_sub(self.next);
        if missing > self.samples(MAX_HOLD_SECONDS * 1_000) {
            let ms = self.millis(missing);
            return Err(Error::Jump { ms });
        }
        if missing > 0 {
            self.silence = self.silence.max(missing);
            (self.anchored, self.gave_up) = (false, true);
        }
        Ok(())
    }

    /// `pcm` without its first `overlap` samples.
    fn trim(&mut self, pcm: Bytes, overlap: i64) -> Bytes {
        let overlap = usize::try_from(overlap).unwrap_or(usize::MAX);
        let cut = overlap.min(pcm.len() / PCM_FRAME_BYTES);
        self.trimmed += cut as u64;
        pcm.slice(cut * PCM_FRAME_BYTES..)
    }

    /// `pcm` one sample longer or shorter if the source's clock has drifted by `error`.
    fn slew(&self, pcm: Bytes, error: i64) -> Bytes {
        if pcm.len() < 2 * PCM_FRAME_BYTES || error.abs() < self.samples(SLEW_MS) {
            return pcm;
        }
        if error < 0 {
            return pcm.slice(PCM_FRAME_BYTES..);
        }
        let mut longer = BytesMut::with_capacity(pcm.len() + PCM_FRAME_BYTES);
        longer.extend_from_slice(&pcm[..PCM_FRAME_BYTES]);
        longer.extend_from_slice(&pcm);
        longer.freeze()
    }

    /// Sound that came too late teaches to wait longer, so that the next of it is heard.
    fn widen_allowance(&mut self, late: i64) {
        if !self.gave_up {
            return;
        }
        let wanted = self.allowance_ms + self.millis(late) + ALLOWANCE_MARGIN_MS;
        self.allowance_ms = wanted.min(MAX_ALLOWANCE_MS);
    }

    fn samples(&self, ms: i64) -> i64 {
        ms * i64::from(self.scale.get()) / 1_000
    }

    fn millis(&self, samples: i64) -> i64 {
        samples.saturating_mul(1_000) / i64::from(self.scale.get())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BEGIN: i64 = 86_112_000_000_000;
    const RATE: i64 = 48_000;

    fn conductor(has_track: bool) -> AudioConductor {
        let scale = Timescale::new(48_000).expect("not zero");
        AudioConductor::new(scale, Ticks::new(BEGIN), 1_024, has_track)
    }

    /// Samples that carry their own number, so that a test sees where each came to lie.
    fn numbered(from: i64, count: i64) -> Bytes {
        (from..from + count).flat_map(i64::to_le_bytes).collect()
    }

    /// How far from silence a sample may have been changed, in samples.
    const FADE: usize = 960;

    /// Of `out`, what no fade has touched: silence, and sound that lies further from it than a fade.
    /// Numbers that are not near `BEGIN` are samples that were faded.
    fn untouched(out: &[i64]) -> Vec<Option<i64>> {
        let mut kept: Vec<Option<i64>> = out.iter().copied().map(Some).collect();
        let near = |sample: i64| sample == 0 || (sample - BEGIN).abs() < 1_000_000_000;
        let mut silent = true;
        for at in 0..out.len() {
            if !near(out[at]) {
                kept[at] = None;
            }
            if silent != (out[at] == 0) {
                silent = out[at] == 0;
                for sample in &mut kept[at.saturating_sub(FADE)..(at + FADE).min(out.len())] {
                    *sample = None;
                }
            }
        }
        kept
    }

    fn drain(conductor: &mut AudioConductor, into: &mut Vec<i64>) {
        while let Some(block) = conductor.poll_output() {
            assert_eq!(block.len(), 1_024 * PCM_FRAME_BYTES);
            for sample in block.chunks_exact(PCM_FRAME_BYTES) {
                into.push(i64::from_le_bytes(sample.try_into().expect("eight bytes")));
            }
        }
    }

    #[test]
    fn sound_lies_at_its_place_with_silence_around() {
        let (mut conductor, mut out) = (conductor(true), Vec::new());
        for (from, count) in [
            (BEGIN - 500, 1_000),
            (BEGIN + 500, 2_000),
            (BEGIN + 5_000, 5_000),
        ] {
            conductor
                .push(Ticks::new(from), numbered(from, count))
                .expect("near");
            drain(&mut conductor, &mut out);
        }
        assert_eq!(out.len(), 9 * 1_024);
        for (n, sample) in (0..).zip(untouched(&out)) {
            let sound = !(2_500..5_000).contains(&n);
            let expected = if sound { BEGIN + n } else { 0 };
            assert!(sample.is_none_or(|sample| sample == expected), "{n}");
        }
        let faded = untouched(&out).iter().filter(|s| s.is_none()).count();
        assert!(faded <= 5 * FADE, "{faded}");
    }

    #[test]
    fn pictures_drive_silence_after_the_allowance() {
        for (has_track, expected) in [(false, RATE), (true, RATE / 2)] {
            let (mut conductor, mut out) = (conductor(has_track), Vec::new());
            conductor.follow(Ticks::new(BEGIN + RATE)).expect("near");
            drain(&mut conductor, &mut out);
            assert_eq!(conductor.position(), Ticks::new(BEGIN + expected));
            assert!(out.iter().all(|sample| *sample == 0));
        }
    }

    #[test]
    fn sound_that_always_comes_late_is_heard_in_the_end() {
        let (mut conductor, mut out) = (conductor(true), Vec::new());
        let late = RATE * 3 / 2;
        for n in 0..500 {
            let video = BEGIN + n * 1_024;
            conductor.follow(Ticks::new(video)).expect("near");
            drain(&mut conductor, &mut out);
            if video - late >= BEGIN {
                conductor
                    .push(Ticks::new(video - late), numbered(video - late, 1_024))
                    .expect("near");
                drain(&mut conductor, &mut out);
            }
        }
        let tail = &out[out.len() - 100_000..];
        assert!(tail.iter().all(|sample| *sample != 0));
        for (n, sample) in (0..).zip(untouched(&out)) {
            let right = sample.is_none_or(|sample| sample == 0 || sample == BEGIN + n);
            assert!(right, "{n}: {sample:?}");
        }
    }

    #[test]
    fn drift_is_followed_sample_by_sample() {
        let (mut conductor, mut out) = (conductor(true), Vec::new());
        for n in 0..4_000_i64 {
            // The source's clock runs 0.02 % slow: 1024 samples take the time of 1024.2.
            let at = BEGIN + n * 1_024 + n / 5;
            conductor
                .push(Ticks::new(at), numbered(at, 1_024))
                .expect("near");
            drain(&mut conductor, &mut out);
            let error = at + 1_024 - conductor.position().get();
            assert!(error.abs() <= RATE * SLEW_MS / 1_000 + 2, "{n}: {error}");
        }
        assert_eq!(conductor.filled() + conductor.trimmed(), 0);
    }

    #[test]
    fn sound_that_overlaps_by_more_than_a_block_lies_at_its_place_again() {
        for back_ms in [45, 60, 70, 100] {
            let (mut conductor, mut out) = (conductor(true), Vec::new());
            let back = RATE * back_ms / 1_000;
            for n in 0..40 {
                let at = BEGIN + n * 1_024 - if n < 20 { 0 } else { back };
                conductor
                    .push(Ticks::new(at), numbered(at, 1_024))
                    .expect("near");
                drain(&mut conductor, &mut out);
            }
            let error = BEGIN + 40 * 1_024 - back - conductor.position().get();
            assert_eq!(error, 0, "{back_ms} ms back");
            assert_eq!(conductor.trimmed(), u64::try_from(back).expect("positive"));
        }
    }

    #[test]
    fn the_end_is_a_whole_block() {
        let (mut conductor, mut out) = (conductor(true), Vec::new());
        conductor
            .push(Ticks::new(BEGIN), numbered(BEGIN, 100))
            .expect("near");
        drain(&mut conductor, &mut out);
        conductor.finish(Ticks::new(BEGIN + 1_500)).expect("near");
        drain(&mut conductor, &mut out);
        assert_eq!(out.len(), 2_048);
        assert_eq!(out[2_047], 0);
    }

    proptest! {
        /// Whatever comes, the output is gapless, and every sample heard is at most the resync limit
        /// from its place.
        #[test]
        fn output_is_continuous(blocks in prop::collection::vec((-30_000_i64..60_000, 1_i64..5_000, any::<bool>()), 1..60)) {
            let (mut conductor, mut out) = (conductor(true), Vec::new());
            let mut at = BEGIN;
            for (jump, count, follow) in blocks {
                at += jump;
                if follow {
                    conductor.follow(Ticks::new(at)).expect("near");
                } else {
                    conductor.push(Ticks::new(at), numbered(at, count)).expect("near");
                    at += count;
                }
                drain(&mut conductor, &mut out);
                let laid = i64::try_from(out.len()).expect("small");
                prop_assert!((0..1_024).contains(&(conductor.position().get() - BEGIN - laid)));
            }
            for (n, sample) in (0..).zip(untouched(&out)) {
                let Some(sample) = sample else { continue };
                let error = sample - (BEGIN + n);
                prop_assert!(sample == 0 || error.abs() <= RATE * RESYNC_MS / 1_000);
            }
        }
    }
}

//! One frame per slot: passes, repeats and drops frames, and shows a slate where none came for long.
//!
//! Enters: frames in presentation order with positions in 90 kHz ticks; how far the sound or the clock is
//! Leaves: [`Slot`]s without gap or repetition, from the first slot of the first segment on
//! Never:  waits for the next frame: a frame is placed the moment it arrives
//! Time:   slots counted from the Unix epoch at the plan's rate
//! Spec:   docs/architecture.md

use std::time::Duration;

use super::Error;
use crate::id::SegmentNumber;
use crate::time::{FrameRate, Grid, Ticks, Timescale};

/// The longest stretch that one picture is held for, in seconds. A source that is silent for longer
/// has ended its broadcast; encoding hours of a held picture at once would stall everything.
pub const MAX_HOLD_SECONDS: i64 = 60;

/// How far the pictures may lie behind the sound before the last of them is held, in milliseconds. As much
/// as a live source reorders and interleaves; what still comes for a slot that was held is not shown.
const MAX_LAG_MS: i64 = 3_000;

/// How far from its expected slot a frame may lie and still take it, in quarters of a slot: half a
/// slot is nearest, one more quarter is the hysteresis that keeps jitter from doubling and dropping.
const TOLERANCE_QUARTERS: i64 = 3;

/// What a slot shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shown {
    /// A frame that the source sent for it.
    Source,
    /// The last frame again.
    Held,
    /// The slate.
    Slate,
}

/// One slot of the output, filled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slot<F> {
    /// Its number: it begins at `rate.slot_start(index)`.
    pub index: i64,
    /// Whether it is the first of a segment and has to become an IDR.
    pub cut: bool,
    /// Its picture.
    pub frame: F,
    /// Where that came from.
    pub shown: Shown,
}

/// Places frames on slots. Drain [`Self::poll_output`] to `None` after every `push` and `follow`.
#[derive(Debug)]
pub struct VideoConductor<F> {
    rate: FrameRate,
    grid: Grid,
    /// The slot to be filled next.
    next: i64,
    /// The picture to repeat where there is no other: the last one placed, or seen before the start.
    held: Option<F>,
    /// The slot that the source last had a frame for; none before the first.
    sourced: Option<i64>,
    /// The slot of the newest frame, even if that came before the start.
    newest: Option<i64>,
    /// What is shown instead once `held` has been shown for `hold_slots`.
    slate: Option<F>,
    hold_slots: i64,
    /// Slots below this one are to be filled with `held`.
    hold_until: i64,
    /// A frame that belongs at `hold_until`, after the repetitions.
    placed: Option<F>,
    /// Another source has come, and no frame of it was shown yet: it may begin with what is long past.
    joining: bool,
    shown: Shown,
    held_slots: u64,
    slate_slots: u64,
    dropped: u64,
}

impl<F: Clone> VideoConductor<F> {
    /// A conductor whose first output is the first slot of segment `first`. It holds pictures for as long
    /// as it must; see [`Self::set_slate`].
    #[must_use]
    pub fn new(rate: FrameRate, grid: Grid, first: SegmentNumber) -> Self {
        let scale = Timescale::VIDEO_90K;
        let next = rate.slot_at_or_after(grid.start_of(first, scale).at(scale));
        Self::starting_at(rate, grid, next)
    }

    /// A conductor whose first output is slot `next`: one that goes on where another one ended.
    #[must_use]
    pub const fn starting_at(rate: FrameRate, grid: Grid, next: i64) -> Self {
        Self {
            rate,
            grid,
            next,
            held: None,
            sourced: None,
            newest: None,
            slate: None,
            hold_slots: i64::MAX,
            hold_until: next,
            placed: None,
            joining: false,
            shown: Shown::Source,
            held_slots: 0,
            slate_slots: 0,
            dropped: 0,
        }
    }

    /// Shows `slate` from now on wherever a picture would be held for more than `hold`.
    pub fn set_slate(&mut self, slate: F, hold: Duration) {
        let millis = u128::from(self.rate.num()) * hold.as_millis();
        let slots = millis / (u128::from(self.rate.den()) * 1_000);
        self.hold_slots = i64::try_from(slots).unwrap_or(i64::MAX);
        self.slate = Some(slate);
    }

    /// Tells that the source has gone: what comes next is another one's.
    pub const fn detach(&mut self) {
        self.joining = true;
    }

    /// Gives the frame shown at `position` (90 kHz).
    ///
    /// # Errors
    ///
    /// [`Error::Jump`] if it lies more than [`MAX_HOLD_SECONDS`] ahead; the frame is ignored and
    /// nothing else changes.
    pub fn push(&mut self, position: Ticks, frame: F) -> Result<(), Error> {
        let slot = self.slot_for(position);
        if slot < self.next {
            // What lies before the first slot was never to be shown, nor what another source did before it
            // took over.
            self.dropped += u64::from(self.sourced.is_some() && !self.joining);
            // Before the start, and of two frames for one slot, the newest is the one to hold. One that
            // comes when its time is long past is not shown: it would be out of step with the sound.
            if self.sourced.is_none() || slot == self.next - 1 {
                self.held = Some(frame);
                self.newest = Some(slot);
            }
            return Ok(());
        }
        self.check_jump(slot)?;
        if self.held.is_none() {
            self.held = Some(frame.clone());
        }
        self.hold_until = slot;
        self.placed = Some(frame);
        Ok(())
    }

    /// Tells that the sound has come to `position` (90 kHz): every slot that lies further behind it than
    /// the allowance is filled with the held picture. Does nothing before the first frame.
    ///
    /// # Errors
    ///
    /// [`Error::Jump`] as for [`Self::push`].
    pub fn follow(&mut self, position: Ticks) -> Result<(), Error> {
        if self.held.is_none() {
            return Ok(());
        }
        let scale = Timescale::VIDEO_90K;
        let allowed = MAX_LAG_MS * i64::from(scale.get()) / 1_000;
        let due = Ticks::new(position.get().saturating_sub(allowed));
        let slot = self.rate.slot_at_or_after(due.at(scale));
        self.hold_to(slot)
    }

    /// Tells that it is too late, by the clock, for frames before `position` (90 kHz): every slot before it
    /// is filled with the held picture. Does nothing before the first frame.
    ///
    /// # Errors
    ///
    /// [`Error::Jump`] as for [`Self::push`].
    pub fn fill(&mut self, position: Ticks) -> Result<(), Error> {
        if self.held.is_none() {
            return Ok(());
        }
        let slot = self
            .rate
            .slot_at_or_after(position.at(Timescale::VIDEO_90K));
        self.hold_to(slot)
    }

    /// Tells that the sound ends at `position` (90 kHz): every slot that ends by then is filled with the held
    /// picture. Does nothing before the first frame.
    ///
    /// # Errors
    ///
    /// [`Error::Jump`] as for [`Self::push`].
    pub fn finish(&mut self, position: Ticks) -> Result<(), Error> {
        if self.held.is_none() {
            return Ok(());
        }
        let after = Ticks::new(position.get().saturating_add(1));
        let after = self.rate.slot_at_or_after(after.at(Timescale::VIDEO_90K));
        self.hold_to(after.saturating_sub(1))
    }

    fn hold_to(&mut self, slot: i64) -> Result<(), Error> {
        self.check_jump(slot)?;
        self.hold_until = self.hold_until.max(slot);
        Ok(())
    }

    /// Whether a frame at `position` lies before the start, where none was shown yet: it only says what to
    /// hold. A new worker is given such frames, as old as they may be.
    #[must_use]
    pub fn is_before_start(&self, position: Ticks) -> bool {
        self.sourced.is_none() && self.slot_for(position) < self.next
    }

    /// By how many microseconds a frame at `position` would come too late to be shown; negative or zero
    /// if it would be. Nothing is late before the first frame was shown.
    #[must_use]
    pub fn late_us(&self, position: Ticks) -> i64 {
        let behind = self.position().delta(position).get();
        let behind_us = behind.saturating_mul(1_000_000) / i64::from(Timescale::VIDEO_90K.get());
        if self.sourced.is_none() || self.slot_for(position) >= self.next {
            behind_us.min(0)
        } else {
            behind_us
        }
    }

    /// The next filled slot, or `None` until more is given.
    pub fn poll_output(&mut self) -> Option<Slot<F>> {
        let index = self.next;
        let (frame, shown) = if index < self.hold_until {
            self.stand_in(index)?
        } else {
            let frame = self.placed.take()?;
            self.held = Some(frame.clone());
            (self.sourced, self.newest) = (Some(index), Some(index));
            self.joining = false;
            (frame, Shown::Source)
        };
        self.next += 1;
        self.shown = shown;
        match shown {
            Shown::Source => {}
            Shown::Held => self.held_slots += 1,
            Shown::Slate => self.slate_slots += 1,
        }
        Some(Slot {
            index,
            cut: self.is_cut(index),
            frame,
            shown,
        })
    }

    /// What slot `index` shows, for which the source has nothing.
    fn stand_in(&self, index: i64) -> Option<(F, Shown)> {
        let since = self.newest.map(|newest| index.saturating_sub(newest));
        match &self.slate {
            Some(slate) if since.is_some_and(|since| since > self.hold_slots) => {
                Some((slate.clone(), Shown::Slate))
            }
            _ => Some((self.held.clone()?, Shown::Held)),
        }
    }

    /// Where the next slot begins, in 90 kHz ticks: how far the pictures are.
    #[must_use]
    pub fn position(&self) -> Ticks {
        self.rate.slot_start(self.next, Timescale::VIDEO_90K)
    }

    /// Where what was given so far will end, once it is polled.
    pub(super) fn filled_to(&self) -> Ticks {
        let slots = self.hold_until.saturating_add(self.placed.is_some().into());
        self.rate
            .slot_start(slots.max(self.next), Timescale::VIDEO_90K)
    }

    /// What the last slot shows; the source before the first.
    #[must_use]
    pub const fn shown(&self) -> Shown {
        self.shown
    }

    /// How many slots were filled with a picture that had been shown already.
    #[must_use]
    pub const fn held_slots(&self) -> u64 {
        self.held_slots
    }

    /// How many slots were filled with the slate.
    #[must_use]
    pub const fn slate_slots(&self) -> u64 {
        self.slate_slots
    }

    /// How long the slate was shown, in milliseconds.
    #[must_use]
    pub fn slate_ms(&self) -> u64 {
        let ms = u128::from(self.slate_slots) * 1_000 * u128::from(self.rate.den());
        u64::try_from(ms / u128::from(self.rate.num())).unwrap_or(u64::MAX)
    }

    /// How many frames were not shown because their slot was taken or past.
    #[must_use]
    pub const fn dropped(&self) -> u64 {
        self.dropped
    }

    fn check_jump(&self, slot: i64) -> Result<(), Error> {
        let ahead = i128::from(slot) - i128::from(self.next);
        let ms = ahead * 1_000 * i128::from(self.rate.den()) / i128::from(self.rate.num());
        if ms > i128::from(MAX_HOLD_SECONDS) * 1_000 {
            let ms = i64::try_from(ms).unwrap_or(i64::MAX);
            return Err(Error::Jump { ms });
        }
        Ok(())
    }

    /// The slot that a frame at `position` takes: the expected one if it is near enough, so that a
    /// source whose phase lies between two slots keeps to one of them, else the nearest.
    fn slot_for(&self, position: Ticks) -> i64 {
        let scale = Timescale::VIDEO_90K;
        let nearest = self.rate.nearest_slot(position.at(scale));
        if self.held.is_none() {
            return nearest;
        }
        let expected = self.rate.slot_start(self.next, scale);
        let distance = i128::from(position.delta(expected).get()).abs();
        let quarters = distance * 4 * i128::from(self.rate.num());
        let slot = i128::from(self.rate.den()) * i128::from(scale.get());
        if quarters <= i128::from(TOLERANCE_QUARTERS) * slot {
            self.next
        } else {
            nearest
        }
    }

    fn is_cut(&self, slot: i64) -> bool {
        let segment = |slot: i64| {
            let scale = Timescale::VIDEO_90K;
            self.grid
                .segment_at(self.rate.slot_start(slot, scale).at(scale))
        };
        segment(slot) != segment(slot - 1)
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use proptest::prelude::*;

    use super::*;

    const FIRST: u64 = 897_000_000;

    fn grid() -> Grid {
        Grid::new(NonZeroU32::new(2_000).expect("not zero"))
    }

    fn fps(num: u32, den: u32) -> FrameRate {
        FrameRate::new(num, den).expect("valid")
    }

    fn conductor(rate: FrameRate) -> VideoConductor<i64> {
        VideoConductor::new(rate, grid(), SegmentNumber::new(FIRST))
    }

    fn start() -> i64 {
        grid()
            .start_of(SegmentNumber::new(FIRST), Timescale::VIDEO_90K)
            .get()
    }

    fn drain(conductor: &mut VideoConductor<i64>, into: &mut Vec<Slot<i64>>) {
        into.extend(std::iter::from_fn(|| conductor.poll_output()));
    }

    #[test]
    fn the_first_frame_is_held_from_the_start_of_the_segment() {
        let mut conductor = conductor(fps(30, 1));
        let mut out = Vec::new();
        conductor
            .push(Ticks::new(start() + 10 * 3_000), 7)
            .expect("near");
        drain(&mut conductor, &mut out);
        let first = start() / 3_000;
        assert_eq!(out.len(), 11);
        assert_eq!(
            out[0],
            Slot {
                index: first,
                cut: true,
                frame: 7,
                shown: Shown::Held,
            }
        );
        assert_eq!(
            out[10],
            Slot {
                index: first + 10,
                cut: false,
                frame: 7,
                shown: Shown::Source,
            }
        );
    }

    #[test]
    fn frames_before_the_start_are_dropped() {
        let mut conductor = conductor(fps(30, 1));
        let mut out = Vec::new();
        for n in -20..3_i64 {
            conductor
                .push(Ticks::new(start() + n * 3_000), n)
                .expect("near");
            drain(&mut conductor, &mut out);
        }
        let frames: Vec<i64> = out.iter().map(|slot| slot.frame).collect();
        assert_eq!(frames, [0, 1, 2]);
    }

    #[test]
    fn a_gap_repeats_and_a_surplus_drops() {
        let mut conductor = conductor(fps(30, 1));
        let mut out = Vec::new();
        for (at, frame) in [(0, 0), (1, 1), (5, 5), (5, 50), (4, 40), (6, 6)] {
            conductor
                .push(Ticks::new(start() + at * 3_000), frame)
                .expect("near");
            drain(&mut conductor, &mut out);
        }
        let frames: Vec<i64> = out.iter().map(|slot| slot.frame).collect();
        assert_eq!(frames, [0, 1, 1, 1, 1, 5, 6]);
        assert_eq!(conductor.dropped(), 2);
    }

    #[test]
    fn a_leap_is_refused_and_changes_nothing() {
        let mut conductor = conductor(fps(30, 1));
        conductor.push(Ticks::new(start()), 0).expect("near");
        let mut out = Vec::new();
        drain(&mut conductor, &mut out);
        let far = Ticks::new(start() + 3_600 * 90_000);
        assert!(matches!(conductor.push(far, 1), Err(Error::Jump { .. })));
        conductor
            .push(Ticks::new(start() + 3_000), 2)
            .expect("near");
        drain(&mut conductor, &mut out);
        assert_eq!(out.iter().map(|s| s.frame).collect::<Vec<_>>(), [0, 2]);
    }

    #[test]
    fn sound_that_goes_on_alone_holds_the_picture() {
        let mut conductor = conductor(fps(25, 1));
        let second = |n: i64| Ticks::new(start() + n * 90_000);
        conductor.follow(second(90)).expect("nothing to hold");
        assert_eq!(conductor.poll_output(), None);
        conductor.push(second(0), 1).expect("near");
        let mut out = Vec::new();
        drain(&mut conductor, &mut out);
        conductor.follow(second(3)).expect("near");
        drain(&mut conductor, &mut out);
        assert_eq!(out.len(), 1, "the allowance");
        for n in 4..=90 {
            conductor.follow(second(n)).expect("near");
            drain(&mut conductor, &mut out);
        }
        assert_eq!(conductor.position(), second(87));
        conductor.push(second(90), 2).expect("near");
        drain(&mut conductor, &mut out);
        assert_eq!(out.last().map(|slot| slot.frame), Some(2));
        assert_eq!(out.len(), 90 * 25 + 1);
    }

    proptest! {
        /// Ten minutes of any standard rate at any phase, stamped in jittery milliseconds.
        #[test]
        fn jitter_neither_doubles_nor_drops(
            (num, den) in prop::sample::select(vec![(30, 1), (25, 1), (30_000, 1_001), (60, 1), (24_000, 1_001)]),
            phase in 0_i64..3_000, seed in any::<u64>(),
        ) {
            let rate = fps(num, den);
            let mut conductor = conductor(rate);
            let (mut out, mut random) = (Vec::new(), seed | 1);
            for n in 0..600 * i64::from(num / den) {
                random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let jitter = i64::try_from(random >> 33).expect("31 bits") % 181 - 90;
                let exact = rate.slot_start(n, Timescale::VIDEO_90K).get() + start() + phase + 90;
                let millis = (exact + jitter) / 90 * 90;
                conductor.push(Ticks::new(millis), n).expect("near");
                drain(&mut conductor, &mut out);
            }
            // At the very start one frame may share the first slot, or one slot be held.
            prop_assert!(conductor.dropped() <= 1 && conductor.held_slots() <= 3, "{} dropped, {} repeated", conductor.dropped(), conductor.held_slots());
        }

        #[test]
        fn slots_are_consecutive_and_cuts_exact(
            steps in prop::collection::vec(-5_000_i64..20_000, 1..400), offset in -90_000_i64..90_000,
            (num, den) in prop::sample::select(vec![(30, 1), (30_000, 1_001), (25, 1), (15, 1), (60, 1)]),
        ) {
            let rate = fps(num, den);
            let mut conductor = conductor(rate);
            let (mut out, mut at) = (Vec::new(), start() + offset);
            for (n, step) in steps.iter().enumerate() {
                conductor.push(Ticks::new(at), i64::try_from(n).expect("small")).expect("near");
                drain(&mut conductor, &mut out);
                at += step;
            }
            let scale = Timescale::VIDEO_90K;
            let mut expected = rate.slot_at_or_after(Ticks::new(start()).at(scale));
            let mut last = -1;
            for slot in &out {
                prop_assert_eq!(slot.index, expected);
                prop_assert!(slot.frame >= last);
                let begins = rate.slot_start(slot.index, scale);
                let number = grid().segment_at(begins.at(scale));
                let first = rate.slot_at_or_after(grid().start_of(number, scale).at(scale));
                prop_assert_eq!(slot.cut, slot.index == first);
                (expected, last) = (expected + 1, slot.frame);
            }
        }
    }
}

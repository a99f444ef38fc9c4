//! The gate before one rung's encoder: which slots pass.
//!
//! Enters: slots in order, whether a segment begins with it, and whether it may be left out; what was decided
//! Leaves: a [`Pass`] for each slot
//! Never:  a segment that begins without its key frame; while it is of use, a part without a picture
//! Time:   slots of the rung's rate
//! Spec:   docs/resilience.md

use std::collections::VecDeque;

use super::Leaving;
use crate::transcode::template::KeyframePolicy;

/// The most slots that an encoder holds: the deepest look-ahead, with room.
const MAX_HELD_SLOTS: usize = 1_024;

/// What becomes of a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pass {
    /// It is encoded.
    Take,
    /// It is not.
    Leave,
    /// It is not, and nothing more comes for the encoder: what it holds is to come out.
    Close,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Open,
    /// Until a segment begins at this slot or later, just enough passes that every part has a picture.
    Closing(i64),
    /// The encoder is finishing.
    Draining,
    Shut,
    /// Shut until a segment begins.
    Opening,
}

/// The gate of one rung, and which slots its encoder holds.
#[derive(Debug)]
pub struct Gate {
    state: State,
    keyframes: KeyframePolicy,
    /// The first slot that is wanted.
    begin: i64,
    /// How many slots a part has, and where the parts of the segment under way are counted from.
    part: i64,
    base: i64,
    /// Slots in the encoder, in the order in which they went in.
    held: VecDeque<i64>,
    /// The last slot that was taken by this encoder.
    taken: Option<i64>,
    /// Whether anything has come out of this encoder.
    has_delivered: bool,
    /// Whether the segment under way is left out.
    is_leaving: bool,
    left: u64,
}

impl Gate {
    /// An open gate that lets nothing before slot `begin` pass, of a segment that has begun with slot `base` and
    /// has parts of `part` slots.
    #[must_use]
    pub fn new((begin, base): (i64, i64), part: i64, keyframes: KeyframePolicy) -> Self {
        Self {
            state: State::Open,
            keyframes,
            begin,
            part: part.max(1),
            base,
            held: VecDeque::new(),
            taken: None,
            has_delivered: false,
            is_leaving: false,
            left: 0,
        }
    }

    /// Lets nothing before slot `begin` pass.
    pub const fn begin_from(&mut self, begin: i64) {
        self.begin = begin;
    }

    /// What becomes of `slot`, which is among those that may be left out as `leaving` says.
    pub fn admit(&mut self, slot: i64, is_cut: bool, leaving: Leaving) -> Pass {
        if is_cut {
            self.base = slot;
        }
        // A part without a picture would be a hole that nothing can fill.
        let begins_part = is_cut || (slot - self.base).rem_euclid(self.part) == 0;
        if slot < self.begin {
            return Pass::Leave;
        }
        let is_counted = self.keyframes == KeyframePolicy::Counted;
        match self.state {
            State::Draining | State::Shut => Pass::Leave,
            State::Opening if !is_cut => Pass::Leave,
            State::Closing(from) if is_cut && slot >= from => {
                self.state = State::Draining;
                Pass::Close
            }
            // To leave any out would put the next key frame of an encoder that counts amiss.
            State::Closing(_) if is_counted => self.pass(slot, true),
            State::Closing(_) => self.pass(slot, begins_part),
            State::Opening => {
                self.state = State::Open;
                self.is_leaving = false;
                self.pass(slot, true)
            }
            State::Open => {
                let leaves = match (is_counted, leaving) {
                    // Nothing is known of an encoder that has not begun.
                    _ if self.taken.is_none() => false,
                    // Whole segments only, or the count to the next key frame would be wrong.
                    (true, _) if is_cut => leaving != Leaving::Nothing,
                    (true, _) => self.is_leaving,
                    (false, Leaving::Nothing) => false,
                    (false, Leaving::Most) => !begins_part,
                    (false, Leaving::All) => !is_cut,
                };
                self.is_leaving = leaves;
                self.left += u64::from(leaves);
                self.pass(slot, !leaves)
            }
        }
    }

    fn pass(&mut self, slot: i64, passes: bool) -> Pass {
        if !passes || self.held.len() >= MAX_HELD_SLOTS {
            return Pass::Leave;
        }
        self.held.push_back(slot);
        self.taken = Some(slot);
        Pass::Take
    }

    /// Whether a request for a key frame is to pass: not before an encoder's first frame, which is one anyway.
    #[must_use]
    pub const fn wants_key_frame(&self) -> bool {
        matches!(self.state, State::Open | State::Closing(_)) && self.taken.is_some()
    }

    /// Whether the end of the source is to pass.
    #[must_use]
    pub const fn wants_end(&self) -> bool {
        matches!(self.state, State::Open | State::Closing(_))
    }

    /// The slot of the encoder's next access unit, in decode order: that of the frame that went in first.
    pub fn come_out(&mut self) -> Option<i64> {
        self.has_delivered = true;
        self.held.pop_front()
    }

    /// Has the rung rest from the first segment on that begins at slot `from` or later.
    pub const fn close(&mut self, from: i64) {
        match self.state {
            State::Open => self.state = State::Closing(from),
            State::Opening => self.state = State::Shut,
            State::Closing(_) | State::Draining | State::Shut => {}
        }
    }

    /// Nothing comes for a while: what the encoder holds is to come out, if that is anything.
    pub const fn stop(&mut self) -> Pass {
        match self.state {
            State::Open | State::Closing(_) if self.taken.is_some() => {
                self.state = State::Draining;
                Pass::Close
            }
            _ => Pass::Leave,
        }
    }

    /// Nothing more comes: a gate that waits for a segment to begin waits no longer.
    pub const fn close_for_good(&mut self) {
        if matches!(self.state, State::Opening) {
            self.state = State::Shut;
        }
    }

    /// Everything has come out of the encoder; whether that is because the gate closed.
    pub fn drained(&mut self) -> bool {
        let was_draining = self.state == State::Draining;
        if was_draining {
            self.state = State::Shut;
            self.held.clear();
            self.taken = None;
            self.has_delivered = false;
        }
        was_draining
    }

    /// Has a new encoder go on from the first segment on that begins at slot `from` or later. `false` while the
    /// old one is finishing.
    pub const fn open(&mut self, from: i64) -> bool {
        match self.state {
            State::Shut => {
                self.begin = from;
                self.state = State::Opening;
            }
            State::Closing(_) | State::Draining => return false,
            State::Open | State::Opening => {}
        }
        true
    }

    /// Whether there is nothing for an encoder to do, so that it may be taken down.
    #[must_use]
    pub const fn is_shut(&self) -> bool {
        matches!(self.state, State::Shut)
    }

    /// Whether nothing more comes to its encoder, which has not been put up anew.
    #[must_use]
    pub const fn is_finishing(&self) -> bool {
        matches!(self.state, State::Draining | State::Shut)
    }

    /// Whether it is about to shut, so that its encoder still takes some of the machine.
    #[must_use]
    pub const fn is_closing(&self) -> bool {
        matches!(self.state, State::Closing(_) | State::Draining)
    }

    /// Whether its encoder is yet to show what it can: nothing has come out of it.
    #[must_use]
    pub const fn is_starting(&self) -> bool {
        matches!(self.state, State::Open) && !self.has_delivered
    }

    /// Whether it counts how long slots wait before it.
    #[must_use]
    pub const fn is_open(&self) -> bool {
        matches!(self.state, State::Open)
    }

    /// How many slots were left out because they had waited for too long.
    #[must_use]
    pub const fn left(&self) -> u64 {
        self.left
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEGMENT: i64 = 60;
    const NOTHING: Leaving = Leaving::Nothing;
    const LATE: Leaving = Leaving::All;

    fn gate(keyframes: KeyframePolicy) -> Gate {
        Gate::new((0, 0), 8, keyframes)
    }

    fn admit(gate: &mut Gate, slots: std::ops::Range<i64>, leaving: Leaving) -> Vec<i64> {
        let takes = |slot: &i64| gate.admit(*slot, slot % SEGMENT == 0, leaving) == Pass::Take;
        slots.filter(takes).collect()
    }

    #[test]
    fn late_slots_are_left_out_but_for_key_frames() {
        let mut gate = gate(KeyframePolicy::Forced);
        assert_eq!(admit(&mut gate, 0..2, LATE), [0], "the first one passes");
        assert_eq!(admit(&mut gate, 2..10, NOTHING).len(), 8);
        assert_eq!(admit(&mut gate, 10..130, LATE), [60, 120]);
        assert_eq!(gate.left(), 1 + 120 - 2);
        assert_eq!(
            admit(&mut gate, 130..140, NOTHING).len(),
            10,
            "none is left out unasked"
        );
    }

    #[test]
    fn every_part_has_its_first_slot_while_most_are_left_out() {
        let mut gate = gate(KeyframePolicy::Forced);
        admit(&mut gate, 0..20, NOTHING);
        let taken = admit(&mut gate, 20..90, Leaving::Most);
        assert_eq!(taken, [24, 32, 40, 48, 56, 60, 68, 76, 84]);
        // One that goes on in the middle of a segment knows where that began.
        let mut gate = Gate::new((25, 20), 10, KeyframePolicy::Forced);
        admit(&mut gate, 21..27, NOTHING);
        assert_eq!(admit(&mut gate, 27..51, Leaving::Most), [30, 40, 50]);
    }

    #[test]
    fn encoder_that_counts_leaves_out_whole_segments() {
        let mut gate = gate(KeyframePolicy::Counted);
        assert_eq!(admit(&mut gate, 0..90, NOTHING).len(), 90);
        assert_eq!(admit(&mut gate, 90..120, LATE).len(), 30);
        assert!(admit(&mut gate, 120..180, LATE).is_empty());
        assert_eq!(admit(&mut gate, 180..240, NOTHING).len(), 60);
    }

    #[test]
    fn closing_gate_shuts_where_a_segment_begins_and_opens_where_one_does() {
        let mut gate = gate(KeyframePolicy::Forced);
        admit(&mut gate, 0..20, NOTHING);
        gate.close(61);
        assert_eq!(admit(&mut gate, 20..50, NOTHING), [24, 32, 40, 48]);
        assert_eq!(admit(&mut gate, 50..110, NOTHING)[..3], [56, 60, 68]);
        assert_eq!(admit(&mut gate, 110..120, NOTHING), [116]);
        assert_eq!(gate.admit(120, true, NOTHING), Pass::Close);
        assert!(!gate.open(0), "its encoder is finishing");
        assert!(admit(&mut gate, 121..130, NOTHING).is_empty());
        while gate.come_out().is_some() {}
        assert!(gate.drained() && gate.is_shut() && !gate.is_starting());
        assert!(gate.open(130));
        assert!(
            !gate.wants_key_frame(),
            "a new encoder's first frame is one"
        );
        assert_eq!(admit(&mut gate, 130..200, NOTHING).first(), Some(&180));
        assert!(gate.wants_key_frame() && gate.is_starting());
        assert_eq!(gate.come_out(), Some(180));
        assert!(!gate.is_starting(), "something came out");
        assert!(!gate.drained(), "this is the end of the source");
    }

    #[test]
    fn stopped_gate_has_all_come_out_at_once_and_goes_on_with_a_key_frame() {
        let mut gate = gate(KeyframePolicy::Forced);
        assert_eq!(gate.stop(), Pass::Leave, "its encoder holds nothing");
        assert!(gate.is_open());
        admit(&mut gate, 0..20, NOTHING);
        assert_eq!(gate.stop(), Pass::Close);
        assert_eq!(gate.stop(), Pass::Leave, "it was told");
        assert!(gate.drained() && gate.is_shut());
        assert!(gate.open(20));
        assert_eq!(admit(&mut gate, 20..70, NOTHING).first(), Some(&60));
    }

    #[test]
    fn what_comes_out_are_the_slots_that_went_in() {
        let mut gate = gate(KeyframePolicy::Forced);
        admit(&mut gate, 0..3, NOTHING);
        admit(&mut gate, 3..5, LATE);
        admit(&mut gate, 5..6, NOTHING);
        let out: Vec<_> = std::iter::from_fn(|| gate.come_out()).collect();
        assert_eq!(out, [0, 1, 2, 5]);
    }
}

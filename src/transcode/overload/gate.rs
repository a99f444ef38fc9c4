//! The gate before one rung's encoder: which slots pass.
//!
//! Enters: slots in order, whether a segment begins with it, and how long it has waited; what was decided
//! Leaves: a [`Pass`] for each slot
//! Never:  a segment that begins without its key frame
//! Time:   slots of the rung's rate; microseconds of waiting
//! Spec:   docs/resilience.md

use std::collections::VecDeque;

use super::MAX_WAIT_US;
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
    /// Until a segment begins at this slot or later, just enough passes that parts have pictures.
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
    /// How far apart slots pass while it closes.
    spacing: i64,
    /// Slots in the encoder, in the order in which they went in.
    held: VecDeque<i64>,
    /// The last slot that was taken by this encoder.
    taken: Option<i64>,
    /// Whether the segment under way is left out.
    is_leaving: bool,
    left: u64,
}

impl Gate {
    /// An open gate that lets nothing before slot `begin` pass. While it closes, a slot of `spacing` passes.
    #[must_use]
    pub fn new(begin: i64, spacing: i64, keyframes: KeyframePolicy) -> Self {
        Self {
            state: State::Open,
            keyframes,
            begin,
            spacing: spacing.max(1),
            held: VecDeque::new(),
            taken: None,
            is_leaving: false,
            left: 0,
        }
    }

    /// What becomes of `slot`, which has waited for `waited_us`; `None` if it may not be left out for that.
    pub fn admit(&mut self, slot: i64, is_cut: bool, waited_us: Option<i64>) -> Pass {
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
            State::Closing(_) => {
                let since = self.taken.map_or(self.spacing, |taken| slot - taken);
                self.pass(slot, is_cut || since >= self.spacing)
            }
            State::Opening => {
                self.state = State::Open;
                self.is_leaving = false;
                self.pass(slot, true)
            }
            State::Open => {
                let is_late = waited_us.is_some_and(|waited| waited > MAX_WAIT_US);
                let leaves = match (is_counted, self.taken) {
                    // Nothing is known of an encoder that has not begun.
                    (_, None) => false,
                    (false, _) => is_late && !is_cut,
                    // Whole segments only, or the count to the next key frame would be wrong.
                    (true, _) if is_cut => is_late,
                    (true, _) => self.is_leaving,
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

    /// Whether it is about to shut, so that its encoder still takes some of the machine.
    #[must_use]
    pub const fn is_closing(&self) -> bool {
        matches!(self.state, State::Closing(_) | State::Draining)
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
    const LATE: Option<i64> = Some(MAX_WAIT_US + 1);

    fn gate(keyframes: KeyframePolicy) -> Gate {
        Gate::new(0, 8, keyframes)
    }

    fn admit(gate: &mut Gate, slots: std::ops::Range<i64>, waited_us: Option<i64>) -> Vec<i64> {
        let takes = |slot: &i64| gate.admit(*slot, slot % SEGMENT == 0, waited_us) == Pass::Take;
        slots.filter(takes).collect()
    }

    #[test]
    fn late_slots_are_left_out_but_for_key_frames() {
        let mut gate = gate(KeyframePolicy::Forced);
        assert_eq!(admit(&mut gate, 0..2, LATE), [0], "the first one passes");
        assert_eq!(admit(&mut gate, 2..10, Some(0)).len(), 8);
        assert_eq!(admit(&mut gate, 10..130, LATE), [60, 120]);
        assert_eq!(gate.left(), 1 + 120 - 2);
        assert_eq!(
            admit(&mut gate, 130..140, None).len(),
            10,
            "none is left out unasked"
        );
    }

    #[test]
    fn encoder_that_counts_leaves_out_whole_segments() {
        let mut gate = gate(KeyframePolicy::Counted);
        assert_eq!(admit(&mut gate, 0..90, Some(0)).len(), 90);
        assert_eq!(admit(&mut gate, 90..120, LATE).len(), 30);
        assert!(admit(&mut gate, 120..180, LATE).is_empty());
        assert_eq!(admit(&mut gate, 180..240, Some(0)).len(), 60);
    }

    #[test]
    fn closing_gate_shuts_where_a_segment_begins_and_opens_where_one_does() {
        let mut gate = gate(KeyframePolicy::Forced);
        admit(&mut gate, 0..20, Some(0));
        gate.close(61);
        assert_eq!(admit(&mut gate, 20..50, Some(0)), [27, 35, 43]);
        assert_eq!(admit(&mut gate, 50..110, Some(0))[..3], [51, 59, 60]);
        assert_eq!(admit(&mut gate, 110..120, Some(0)), [116]);
        assert_eq!(gate.admit(120, true, Some(0)), Pass::Close);
        assert!(!gate.open(0), "its encoder is finishing");
        assert!(admit(&mut gate, 121..130, Some(0)).is_empty());
        while gate.come_out().is_some() {}
        assert!(gate.drained() && gate.is_shut());
        assert!(gate.open(130));
        assert!(
            !gate.wants_key_frame(),
            "a new encoder's first frame is one"
        );
        assert_eq!(admit(&mut gate, 130..200, Some(0)).first(), Some(&180));
        assert!(gate.wants_key_frame());
        assert!(!gate.drained(), "this is the end of the source");
    }

    #[test]
    fn what_comes_out_are_the_slots_that_went_in() {
        let mut gate = gate(KeyframePolicy::Forced);
        admit(&mut gate, 0..3, Some(0));
        admit(&mut gate, 3..5, LATE);
        admit(&mut gate, 5..6, Some(0));
        let out: Vec<_> = std::iter::from_fn(|| gate.come_out()).collect();
        assert_eq!(out, [0, 1, 2, 5]);
    }
}

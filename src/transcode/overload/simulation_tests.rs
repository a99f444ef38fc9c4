//! Encoders on a machine whose speed varies: they end up in real time, and rungs do not come and go.

use proptest::prelude::*;

use super::*;
use crate::transcode::template::KeyframePolicy;

/// Thirty slots per second, two seconds per segment.
const SLOT_US: i64 = 33_333;
const SEGMENT: i64 = 60;
/// How long the worker takes to look again, at most.
const LOOK_US: i64 = 10_000;

/// One thread that encodes every rung in turn, each frame at its rung's cost.
struct Machine {
    overload: Overload,
    gates: Vec<Gate>,
    costs_us: Vec<i64>,
    /// The slot that is encoded next, and when the thread is free.
    next: i64,
    free_us: i64,
    decided: Vec<(i64, Decision)>,
    worst_us: i64,
}

impl Machine {
    fn new(costs_us: &[i64]) -> Self {
        let gate = |_| Gate::new(0, 8, KeyframePolicy::Forced);
        Self {
            overload: Overload::new(costs_us.len()),
            gates: costs_us.iter().map(gate).collect(),
            costs_us: costs_us.to_vec(),
            next: 0,
            free_us: 0,
            decided: Vec::new(),
            worst_us: 0,
        }
    }

    /// Runs from `from_us` to `to_us` on a machine that takes `percent` of the usual time.
    fn run(&mut self, (from_us, to_us): (i64, i64), percent: i64) {
        let mut now_us = from_us;
        while now_us < to_us {
            while self.free_us <= now_us && self.next * SLOT_US <= now_us {
                self.encode(now_us, percent);
            }
            let late_us = (now_us - self.next * SLOT_US).max(0);
            let is_closing = self.gates.iter().any(Gate::is_closing);
            self.worst_us = self.worst_us.max(late_us);
            if let Some(decision) = self.overload.look(now_us, late_us, is_closing) {
                self.decided.push((now_us, decision));
                match decision {
                    Decision::Rest(rung) => self.gates[rung].close(self.next + SEGMENT),
                    Decision::Return(rung) => assert!(self.gates[rung].open(self.next)),
                }
            }
            now_us += LOOK_US;
        }
    }

    fn encode(&mut self, now_us: i64, percent: i64) {
        let slot = self.next;
        let waited_us = now_us - slot * SLOT_US;
        let waited_us = self.overload.may_leave().then_some(waited_us);
        self.free_us = self.free_us.max(slot * SLOT_US);
        for (gate, cost_us) in self.gates.iter_mut().zip(&self.costs_us) {
            match gate.admit(slot, slot % SEGMENT == 0, waited_us) {
                Pass::Take => {
                    self.free_us += cost_us * percent / 100;
                    assert_eq!(gate.come_out(), Some(slot));
                }
                Pass::Leave => {}
                Pass::Close => assert!(gate.drained()),
            }
        }
        self.next += 1;
    }
}

#[test]
fn ladder_that_fits_is_left_alone() {
    let mut machine = Machine::new(&[15_000, 8_000, 4_000]);
    machine.run((0, 600_000_000), 100);
    assert_eq!(machine.decided, []);
    assert!(machine.gates.iter().all(|gate| gate.left() == 0));
}

#[test]
fn machine_that_recovers_has_all_rungs_again() {
    let mut machine = Machine::new(&[15_000, 8_000, 4_000]);
    machine.run((0, 10_000_000), 100);
    machine.run((10_000_000, 30_000_000), 250);
    assert_eq!(machine.overload.resting(), 1, "{:?}", machine.decided);
    machine.run((30_000_000, 120_000_000), 100);
    assert_eq!(machine.overload.resting(), 0, "{:?}", machine.decided);
    assert!(machine.worst_us < 1_500_000, "{}", machine.worst_us);
}

#[test]
fn machine_that_stays_slow_is_tried_ever_less_often() {
    let mut machine = Machine::new(&[15_000, 8_000, 4_000]);
    machine.run((0, 3_600_000_000), 180);
    let returns = machine
        .decided
        .iter()
        .filter(|(_, decision)| matches!(decision, Decision::Return(_)));
    let returns = returns.count();
    assert!((3..=9).contains(&returns), "{returns}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Whatever the rungs cost and however the machine's speed changes: the last rung never rests, none
    /// comes back before the machine was quiet for long, and nothing falls far behind the clock.
    #[test]
    fn encoding_ends_up_in_real_time(
        costs in prop::collection::vec(1_000_i64..30_000, 1..6),
        speeds in prop::collection::vec((1_i64..90, 20_i64..500), 1..8),
    ) {
        let mut machine = Machine::new(&costs);
        machine.run((0, 2_000_000), 1);
        let mut now_us = 2_000_000;
        for (seconds, percent) in speeds {
            let until_us = now_us + seconds * 1_000_000;
            machine.run((now_us, until_us), percent);
            now_us = until_us;
        }
        // One frame of every rung may be under way when the others begin to wait, and then come a
        // key frame and a picture of what closes.
        let slack_us = 3 * 5 * costs.iter().sum::<i64>();
        prop_assert!(machine.worst_us <= MAX_WAIT_US + slack_us + 2 * LOOK_US + SLOT_US, "{}", machine.worst_us);
        let last = costs.len() - 1;
        let mut since_us = vec![i64::MIN; costs.len()];
        for (at_us, decision) in &machine.decided {
            match decision {
                Decision::Rest(rung) => {
                    prop_assert!(*rung != last);
                    since_us[*rung] = *at_us;
                }
                Decision::Return(rung) => prop_assert!(at_us - since_us[*rung] >= QUIET_US),
            }
        }
    }
}

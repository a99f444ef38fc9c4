//! Encoders on a machine whose speed varies: they end up in real time, and rungs do not come and go.

use proptest::prelude::*;

use super::*;
use crate::transcode::template::KeyframePolicy;

/// Thirty slots per second, two seconds per segment.
const SLOT_US: i64 = 33_333;
const SEGMENT: i64 = 60;
/// Six parts of a third of a second.
const PART: i64 = 10;
/// How long the worker takes to look again, at most.
const LOOK_US: i64 = 10_000;

/// One thread that encodes every rung in turn, each frame at its rung's cost.
struct Machine {
    overload: Overload,
    gates: Vec<Gate>,
    costs_us: Vec<i64>,
    /// What an encoder takes to begin.
    start_us: i64,
    /// The rungs of which something comes out when the thread is free.
    encoded: Vec<usize>,
    /// The slot that is encoded next, and when the thread is free.
    next: i64,
    free_us: i64,
    decided: Vec<(i64, Decision)>,
    worst_us: i64,
    /// By rung: its parts that no slot was taken of, though it was open when they ended.
    empty: Vec<Vec<i64>>,
    /// By rung: how many slots of the part under way were taken.
    in_part: Vec<u32>,
}

impl Machine {
    fn new(costs_us: &[i64]) -> Self {
        let gate = |_| Gate::new((0, 0), PART, KeyframePolicy::Forced);
        Self {
            overload: Overload::new(costs_us.len()),
            gates: costs_us.iter().map(gate).collect(),
            costs_us: costs_us.to_vec(),
            start_us: 0,
            encoded: Vec::new(),
            next: 0,
            free_us: 0,
            decided: Vec::new(),
            worst_us: 0,
            empty: vec![Vec::new(); costs_us.len()],
            in_part: vec![0; costs_us.len()],
        }
    }

    /// Runs from `from_us` to `to_us` on a machine that takes `percent` of the usual time.
    fn run(&mut self, (from_us, to_us): (i64, i64), percent: i64) {
        let mut now_us = from_us;
        while now_us < to_us {
            while self.free_us <= now_us {
                self.deliver();
                if self.next * SLOT_US > now_us {
                    break;
                }
                self.encode(now_us, percent);
            }
            let late_us = (now_us - self.next * SLOT_US).max(0);
            let is_changing = |gate: &Gate| gate.is_closing() || gate.is_starting();
            let is_changing = self.gates.iter().any(is_changing);
            self.worst_us = self.worst_us.max(late_us);
            if let Some(decision) = self.overload.look(now_us, late_us, is_changing) {
                self.decided.push((now_us, decision));
                match decision {
                    Decision::Rest(rung) => self.gates[rung].close(self.next + SEGMENT),
                    Decision::Return(rung) => assert!(self.gates[rung].open(self.next)),
                }
            }
            now_us += LOOK_US;
        }
    }

    fn deliver(&mut self) {
        for rung in self.encoded.drain(..) {
            assert!(self.gates[rung].come_out().is_some());
        }
    }

    fn encode(&mut self, now_us: i64, percent: i64) {
        let slot = self.next;
        let waited_us = now_us - slot * SLOT_US;
        let leaving = self.overload.leaving().after(waited_us);
        self.free_us = self.free_us.max(slot * SLOT_US);
        if slot % PART == 0 && slot > 0 {
            for (rung, taken) in self.in_part.iter_mut().enumerate() {
                let is_at_work = self.gates[rung].is_open() || self.gates[rung].is_closing();
                if std::mem::take(taken) == 0 && is_at_work {
                    self.empty[rung].push(slot / PART - 1);
                }
            }
        }
        let gates = self.gates.iter_mut().zip(&self.costs_us);
        for (rung, ((gate, cost_us), in_part)) in gates.zip(&mut self.in_part).enumerate() {
            match gate.admit(slot, slot % SEGMENT == 0, leaving) {
                Pass::Take => {
                    self.free_us += cost_us * percent / 100;
                    self.free_us += if gate.is_starting() { self.start_us } else { 0 };
                    self.encoded.push(rung);
                    *in_part += 1;
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
fn last_rung_has_a_frame_in_every_part_of_a_machine_that_starts_late_and_is_too_slow() {
    let mut machine = Machine::new(&[15_000]);
    // It gets going after three seconds, and carries half of the frames.
    machine.run((3_000_000, 60_000_000), 450);
    assert!(machine.gates[0].left() > 600, "{}", machine.gates[0].left());
    assert_eq!(machine.empty[0], [0; 0]);
    assert!(machine.worst_us < 6_000_000, "{}", machine.worst_us);
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

#[test]
fn encoder_that_starts_slowly_stays() {
    let mut machine = Machine::new(&[12_000, 6_000, 3_000]);
    machine.start_us = 3_000_000;
    machine.run((0, 30_000_000), 100);
    assert_eq!(machine.decided, [], "the start of all");
    machine.run((30_000_000, 50_000_000), 250);
    assert_eq!(machine.overload.resting(), 1, "{:?}", machine.decided);
    machine.run((50_000_000, 180_000_000), 100);
    let decided: Vec<_> = machine.decided.iter().map(|(_, what)| *what).collect();
    assert_eq!(decided, [Decision::Rest(0), Decision::Return(0)]);
}

/// How slow a machine may be that carries one frame of each part of all rungs, in percent of the usual time.
fn most_percent(costs: &[i64]) -> i64 {
    PART * SLOT_US * 80 / costs.iter().sum::<i64>()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Whatever the rungs cost and however the machine's speed changes, as long as it carries that much: the last rung never rests, none
    /// comes back before the machine was quiet for long, and nothing falls far behind the clock.
    #[test]
    fn encoding_ends_up_in_real_time(
        costs in prop::collection::vec(1_000_i64..30_000, 1..6),
        speeds in prop::collection::vec((1_i64..90, 20_i64..500), 1..8),
    ) {
        let mut machine = Machine::new(&costs);
        machine.run((0, 2_000_000), 1);
        let mut now_us = 2_000_000;
        let most = most_percent(&costs);
        for (seconds, percent) in speeds {
            let until_us = now_us + seconds * 1_000_000;
            machine.run((now_us, until_us), percent.min(most));
            now_us = until_us;
        }
        // One frame of every rung may be under way when the others begin to wait, and then come a
        // key frame and a picture of what closes.
        let slack_us = 3 * 5 * costs.iter().sum::<i64>() + 2 * LOOK_US + SLOT_US;
        // Rungs are judged one after the other, and what one closes with is seen before the next.
        let rungs = i64::try_from(costs.len()).expect("small");
        let most_us = MAX_WAIT_US + 2 * (rungs + 1) * JUDGE_US + slack_us;
        prop_assert!(machine.worst_us <= most_us, "{} of {most_us}", machine.worst_us);
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

    /// A machine that carries one frame of each part of all rungs encodes that of every part, however late it is.
    #[test]
    fn no_part_is_without_a_frame_if_that_much_can_be_encoded(
        costs in prop::collection::vec(1_000_i64..30_000, 1..6),
        speeds in prop::collection::vec((1_i64..90, 20_i64..500), 1..8),
    ) {
        let mut machine = Machine::new(&costs);
        let most = most_percent(&costs);
        let mut now_us = 0;
        for (seconds, percent) in speeds {
            let until_us = now_us + seconds * 1_000_000;
            machine.run((now_us, until_us), percent.min(most));
            now_us = until_us;
        }
        prop_assert!(machine.empty.iter().all(Vec::is_empty), "{:?}", machine.empty);
    }
}

//! A simulator: a source with a bad way to the server, against the clock.

use std::collections::VecDeque;
use std::num::NonZeroU32;

use bytes::BytesMut;
use proptest::prelude::*;

use super::*;
use crate::id::SegmentNumber;
use crate::time::{FrameRate, Grid};

const SECOND: i64 = 1_000_000;
const HOLD: Duration = Duration::from_secs(2);
/// The number of a segment of two seconds in the present.
const FIRST: u64 = 897_000_000;
const START_US: i64 = 2 * 897_000_000 * SECOND;

/// A frame that carries where its source had it; `None` is the slate.
type Frame = Option<Ticks>;

/// What befalls the source, and for how many milliseconds.
#[derive(Clone, Copy, Debug)]
enum Fault {
    /// Nothing arrives; then all of it at once.
    Stall(i64),
    /// The source itself stands still, its clock as well.
    Pause(i64),
    /// The source goes, and another one comes.
    Gone(i64),
    /// It sends no sound.
    Mute(i64),
    /// It sends no pictures.
    Blind(i64),
}

/// A frame or a block on its way.
enum Media {
    Picture(Ticks),
    Sound(Ticks, Bytes),
}

struct Simulation {
    conductor: Conductor<Frame>,
    rate: FrameRate,
    scale: Timescale,
    /// One slot.
    period_us: i64,
    now_us: i64,
    /// The source's clock, and where its zero lies on the timeline.
    clock_us: i64,
    anchor_us: Option<i64>,
    /// How far ahead of the clock what it makes lies.
    lead_us: i64,
    wire: VecDeque<Media>,
    /// Sound on its way, and how many slots' time that takes longer than for pictures.
    slow_wire: VecDeque<Media>,
    sound_takes: usize,
    next_slot: i64,
    next_sample: i64,
    last_sourced: Option<i64>,
    /// By how much what is shown at a time was moved, of the last slots.
    moved_us: VecDeque<(i64, i64)>,
    /// Since when nothing befell the source.
    calm_since_us: i64,
    compared: u64,
}

impl Simulation {
    fn new(fps: u32, sample_rate: u32) -> Self {
        let rate = FrameRate::new(fps, 1).expect("valid");
        let scale = Timescale::new(sample_rate).expect("valid");
        let grid = Grid::new(NonZeroU32::new(2_000).expect("not zero"));
        let first = SegmentNumber::new(FIRST);
        let begin = grid.start_of(first, scale);
        let video = VideoConductor::new(rate, grid, first);
        let audio = AudioConductor::new(scale, begin, 16, false);
        let mut conductor = Conductor::new(Some(video), audio, scale);
        conductor.set_slate(None, HOLD);
        conductor.expect_sound();
        Self {
            conductor,
            rate,
            scale,
            period_us: SECOND / i64::from(fps),
            now_us: START_US + SECOND,
            clock_us: 0,
            anchor_us: None,
            lead_us: 0,
            wire: VecDeque::new(),
            slow_wire: VecDeque::new(),
            sound_takes: 0,
            next_slot: rate.slot_at_or_after(grid.start_of(first, scale).at(scale)),
            next_sample: begin.get(),
            last_sourced: None,
            moved_us: VecDeque::new(),
            calm_since_us: START_US + SECOND,
            compared: 0,
        }
    }

    /// Lets a slot's time pass; `fault` is what befalls the source in it.
    fn step(&mut self, fault: Option<Fault>) {
        self.now_us += self.period_us;
        if !matches!(fault, Some(Fault::Pause(_) | Fault::Gone(_))) {
            self.send(fault);
        }
        if !matches!(fault, Some(Fault::Stall(_) | Fault::Gone(_))) {
            while let Some(media) = self.wire.pop_front() {
                match media {
                    Media::Picture(at) => self.conductor.picture(at, Some(at)),
                    Media::Sound(at, pcm) => self.conductor.sound(at, pcm),
                }
                .expect("near");
                self.drain();
            }
        }
        self.follow_clock();
        if fault.is_some() {
            self.calm_since_us = self.now_us;
        }
        if self.now_us - self.calm_since_us > 5 * SECOND {
            self.assert_in_time();
        }
    }

    fn follow_clock(&mut self) {
        let now = WallTime::from_micros(self.now_us);
        self.conductor.follow(now).expect("near");
        self.drain();
    }

    /// Sends what the source makes in a slot's time.
    fn send(&mut self, fault: Option<Fault>) {
        let anchor_us = *self.anchor_us.get_or_insert(self.now_us - self.clock_us);
        let at_us = self.clock_us + anchor_us;
        self.clock_us += self.period_us;
        if !matches!(fault, Some(Fault::Blind(_))) {
            let at = ticks(at_us, Timescale::VIDEO_90K);
            self.wire.push_back(Media::Picture(at));
        }
        if !matches!(fault, Some(Fault::Mute(_))) {
            let begin = ticks(at_us, self.scale);
            let end = ticks(at_us + self.period_us, self.scale);
            let mut pcm = BytesMut::with_capacity(1_024);
            for sample in begin.get()..end.get() {
                pcm.extend_from_slice(&sample.to_le_bytes());
            }
            self.slow_wire.push_back(Media::Sound(begin, pcm.freeze()));
        }
        while self.slow_wire.len() > self.sound_takes {
            self.wire.extend(self.slow_wire.pop_front());
        }
    }

    fn drain(&mut self) {
        while let Some(output) = self.conductor.poll_output().expect("near") {
            match output {
                Output::Slot(slot) => self.assert_slot(&slot),
                Output::Block(block) => self.assert_block(&block),
            }
        }
    }

    fn assert_slot(&mut self, slot: &Slot<Frame>) {
        assert_eq!(slot.index, self.next_slot, "missing or doubled");
        self.next_slot += 1;
        let begin = self.rate.slot_start(slot.index, Timescale::VIDEO_90K);
        let begin_us = micros(begin, Timescale::VIDEO_90K);
        if slot.shown == Shown::Source {
            let at = slot.frame.expect("no slate");
            let moved_us = begin_us - micros(at, Timescale::VIDEO_90K);
            self.moved_us.push_back((begin_us, moved_us));
            if self.moved_us.len() > 256 {
                self.moved_us.pop_front();
            }
            self.last_sourced = Some(slot.index);
        }
        let since = self.last_sourced.map_or(0, |last| slot.index - last);
        let hold = i64::try_from(HOLD.as_micros()).expect("small") / self.period_us;
        // A frame that comes for the slot just filled is what is held from then on, though no slot of its own
        // shows it: the slate may wait that much longer.
        assert!(
            slot.shown != Shown::Slate || since > hold,
            "slate too early"
        );
        assert!(slot.shown == Shown::Slate || since <= 2 * hold, "no slate");
        assert_eq!(slot.frame.is_none(), slot.shown == Shown::Slate);
    }

    /// Sound lies where the pictures that belong to it lie.
    fn assert_block(&mut self, block: &Bytes) {
        assert_eq!(block.len(), 16 * PCM_FRAME_BYTES);
        let sample = |n: usize| {
            let frame = &block[n * PCM_FRAME_BYTES..(n + 1) * PCM_FRAME_BYTES];
            i64::from_le_bytes(frame.try_into().expect("eight bytes"))
        };
        let at = self.next_sample + 8;
        self.next_sample += 16;
        // The middle of a block whose samples count on is sound that no fade has touched.
        let (first, middle, last) = (sample(0), sample(8), sample(15));
        if middle.wrapping_sub(first) != 8 || last.wrapping_sub(middle) != 7 {
            return;
        }
        let at_us = micros(Ticks::new(at), self.scale);
        let moved_us = at_us - micros(Ticks::new(middle), self.scale);
        let slot = self.moved_us.iter().rev();
        let mut shown =
            slot.filter(|(begin_us, _)| (0..self.period_us).contains(&(at_us - begin_us)));
        if let Some((_, pictures_us)) = shown.next() {
            let apart_us = moved_us - pictures_us;
            assert!(
                apart_us.abs() <= self.period_us + 40_000,
                "{apart_us} apart"
            );
            self.compared += 1;
        }
    }

    /// What is made is as new as ever: the frame that came last is the last that was shown.
    fn assert_in_time(&self) {
        let video = self.conductor.video.as_ref().expect("pictures");
        let now_us = self.now_us + self.lead_us;
        let behind_us = now_us - micros(video.position(), Timescale::VIDEO_90K);
        let range = -2 * self.period_us..=self.period_us;
        assert!(range.contains(&behind_us), "{behind_us} behind");
        assert_eq!(video.shown(), Shown::Source);
        let sound = self.conductor.audio.position();
        let behind_us = now_us - micros(sound, self.scale);
        assert!(range.contains(&behind_us), "sound {behind_us} behind");
    }

    /// Lets `fault` befall the source, then `calm_ms` of peace.
    fn run(&mut self, fault: Fault, calm_ms: i64) {
        let (Fault::Stall(ms)
        | Fault::Pause(ms)
        | Fault::Gone(ms)
        | Fault::Mute(ms)
        | Fault::Blind(ms)) = fault;
        if matches!(fault, Fault::Gone(_)) {
            self.conductor.detach();
            self.wire.clear();
            self.slow_wire.clear();
        }
        for _ in 0..ms * 1_000 / self.period_us {
            self.step(Some(fault));
        }
        if matches!(fault, Fault::Gone(_)) {
            // Another one, whose clock shows something else.
            self.conductor.expect_sound();
            (self.anchor_us, self.clock_us) = (None, self.clock_us / 3);
        }
        for _ in 0..calm_ms * 1_000 / self.period_us {
            self.step(None);
        }
    }
}

/// How many access units come of `seconds` of sound followed by another track that begins 30 ms before its end.
fn units_of_two_tracks(seconds: i64) -> i64 {
    const OVERLAP: i64 = 48 * 30;
    let scale = Timescale::new(48_000).expect("valid");
    let grid = Grid::new(NonZeroU32::new(2_000).expect("not zero"));
    let begin = grid.start_of(SegmentNumber::new(FIRST), scale);
    let audio = AudioConductor::new(scale, begin, 1_000, true);
    let mut conductor = Conductor::<()>::new(None, audio, scale);
    let length = seconds * 48_000;
    let mut units = 0;
    for (from, until) in [(0, length), (length - OVERLAP, 2 * length)] {
        conductor.begin_sound();
        for at in (from..until).step_by(480) {
            let pcm = Bytes::from(vec![1; 480 * PCM_FRAME_BYTES]);
            let position = Ticks::new(begin.get() + at);
            conductor.sound(position, pcm).expect("near");
            while conductor.poll_output().expect("near").is_some() {
                units += 1;
            }
        }
    }
    units
}

#[test]
fn another_track_of_sound_lies_at_its_own_place() {
    assert_eq!(units_of_two_tracks(2), 192);
}

fn fault() -> impl Strategy<Value = Fault> {
    prop_oneof![
        (50_i64..15_000).prop_map(Fault::Stall),
        (700_i64..8_000).prop_map(Fault::Pause),
        (50_i64..15_000).prop_map(Fault::Gone),
        (50_i64..8_000).prop_map(Fault::Mute),
        (50_i64..8_000).prop_map(Fault::Blind),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn whatever_befalls_the_source_slots_count_on_and_lips_stay_in_sync(
        faults in prop::collection::vec((fault(), 0_i64..12_000), 1..8),
        fps in prop::sample::select(vec![25_u32, 30, 60]),
    ) {
        let mut simulation = Simulation::new(fps, 8_000);
        simulation.run(Fault::Stall(0), 1_000);
        for (fault, calm_ms) in faults {
            simulation.run(fault, calm_ms);
        }
        simulation.run(Fault::Stall(0), 8_000);
        prop_assert!(simulation.compared > 100);
    }
}

#[test]
fn thirty_days_of_bad_days() {
    let mut simulation = Simulation::new(1, 50);
    simulation.run(Fault::Stall(0), 10_000);
    let mut random = 88_172_645_463_325_252_u64;
    while simulation.now_us < START_US + 30 * 86_400 * SECOND {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let ms = i64::try_from(random % 20_000).expect("small");
        let fault = match random >> 60 {
            0..5 => Fault::Stall(ms),
            5..9 => Fault::Gone(ms),
            9..12 => Fault::Pause(1_500 + ms),
            12..14 => Fault::Mute(ms),
            _ => Fault::Blind(ms),
        };
        simulation.run(fault, 10_000 + ms * 40);
    }
    assert!(simulation.compared > 100_000);
}

#[test]
fn sound_that_always_comes_late_is_heard_in_its_place() {
    let mut simulation = Simulation::new(30, 8_000);
    simulation.sound_takes = 45;
    for _ in 0..600 {
        simulation.step(None);
        simulation.calm_since_us = simulation.now_us;
    }
    assert!(simulation.compared > 5_000, "{}", simulation.compared);
    assert_eq!(simulation.conductor.conducted().moves, 0);
}

#[test]
fn sound_that_becomes_late_is_heard_with_its_pictures_and_so_it_is_when_it_is_in_time_again() {
    for fps in [25, 30, 60] {
        let mut simulation = Simulation::new(fps, 8_000);
        simulation.run(Fault::Stall(0), 8_000);
        let slots = |seconds: i64| seconds * i64::from(fps);
        for (seconds, moves) in [(2, 1), (0, 1), (1, 2)] {
            simulation.sound_takes = usize::try_from(slots(seconds)).expect("small");
            for _ in 0..slots(8) {
                simulation.step(None);
                simulation.calm_since_us = simulation.now_us;
            }
            // By now it is heard again, all of it.
            let (compared, filled) = (simulation.compared, simulation.conductor.silence());
            for _ in 0..slots(8) {
                simulation.step(None);
                simulation.calm_since_us = simulation.now_us;
            }
            assert_eq!(simulation.conductor.silence(), filled, "{seconds}");
            assert!(simulation.compared > compared + 3_500, "{seconds}");
            assert_eq!(simulation.conductor.conducted().moves, moves, "{seconds}");
            let off_us = simulation.conductor.shift_us - seconds * SECOND;
            assert!(off_us.abs() < 100_000, "{seconds}: {off_us}");
        }
    }
}

#[test]
fn new_worker_goes_on_at_once_with_what_an_earlier_one_was_given() {
    let mut simulation = Simulation::new(30, 8_000);
    simulation.follow_clock();
    for n in 0..60 {
        // Two seconds of pictures, which came five seconds before what is to be made.
        let at = ticks(
            START_US - 5 * SECOND + n * SECOND / 30,
            Timescale::VIDEO_90K,
        );
        simulation.conductor.picture(at, Some(at)).expect("near");
        simulation.drain();
    }
    simulation.last_sourced = Some(simulation.next_slot - 100);
    for _ in 0..90 {
        simulation.now_us += simulation.period_us;
        simulation.follow_clock();
    }
    let conducted = simulation.conductor.conducted();
    assert_eq!(conducted.shown, Shown::Slate);
    assert!(conducted.slate_ms > 2_500, "{}", conducted.slate_ms);
}

#[test]
fn what_is_due_at_once_comes_in_order_of_time() {
    let mut simulation = Simulation::new(30, 8_000);
    simulation.run(Fault::Stall(0), 5_000);
    let before = simulation.next_slot;
    simulation.now_us += 10 * SECOND;
    let now = WallTime::from_micros(simulation.now_us);
    simulation.conductor.follow(now).expect("near");
    while let Some(output) = simulation.conductor.poll_output().expect("near") {
        match output {
            Output::Slot(slot) => simulation.next_slot = slot.index + 1,
            Output::Block(_) => simulation.next_sample += 16,
        }
        let (slot, rate) = (simulation.next_slot, simulation.rate);
        let pictures = rate.slot_start(slot, Timescale::VIDEO_90K);
        let pictures_us = micros(pictures, Timescale::VIDEO_90K);
        let sound_us = micros(Ticks::new(simulation.next_sample), simulation.scale);
        let apart_us = pictures_us - sound_us;
        assert!(apart_us.abs() <= 100_000, "{apart_us} apart");
    }
    assert!(simulation.next_slot - before > 9 * 30);
}

#[test]
fn pictures_and_sound_end_together_whichever_ended_first() {
    for (pictures_ms, sound_ms) in [(1_000, 1_430), (1_430, 1_000), (1_000, 1_000)] {
        let mut simulation = Simulation::new(30, 48_000);
        let conductor = &mut simulation.conductor;
        let at_us = |ms: i64| START_US + SECOND + ms * 1_000;
        conductor
            .follow(WallTime::from_micros(at_us(0)))
            .expect("near");
        for ms in 0..sound_ms {
            let at = ticks(at_us(ms), simulation.scale);
            let pcm = Bytes::from(vec![0; 48 * PCM_FRAME_BYTES]);
            conductor.sound(at, pcm).expect("near");
        }
        for frame in 0..pictures_ms * 30 / 1_000 {
            let at = ticks(at_us(0) + frame * SECOND / 30, Timescale::VIDEO_90K);
            conductor.picture(at, Some(at)).expect("near");
            while conductor.poll_output().expect("near").is_some() {}
        }
        conductor.finish().expect("near");
        while conductor.poll_output().expect("near").is_some() {}
        let video = conductor.video.as_ref().expect("there");
        let pictures_us = micros(video.position(), Timescale::VIDEO_90K);
        let sound_us = micros(conductor.audio.position(), simulation.scale);
        let ahead_us = (sound_us - pictures_us).abs();
        assert!(
            ahead_us <= SECOND / 30,
            "{pictures_ms} {sound_ms}: {ahead_us}"
        );
        assert!(pictures_us >= at_us(pictures_ms.max(sound_ms)) - SECOND / 30);
    }
}

#[test]
fn short_stall_is_not_seen() {
    let mut simulation = Simulation::new(30, 8_000);
    simulation.run(Fault::Stall(0), 5_000);
    let before = simulation.conductor.conducted();
    simulation.run(Fault::Stall(200), 5_000);
    assert_eq!(simulation.conductor.conducted(), before);
}

#[test]
fn stall_holds_then_shows_the_slate_then_the_present() {
    let mut simulation = Simulation::new(30, 8_000);
    simulation.run(Fault::Stall(0), 5_000);
    let before = simulation.conductor.conducted();
    simulation.run(Fault::Stall(3_000), 0);
    let stalled = simulation.conductor.conducted();
    assert_eq!(stalled.shown, Shown::Slate);
    let held = stalled.held_slots - before.held_slots;
    assert_eq!(held, 60, "two seconds");
    let slate_ms = stalled.slate_ms;
    assert!((600..=800).contains(&slate_ms), "{slate_ms}");
    simulation.run(Fault::Stall(0), 100);
    assert_eq!(simulation.conductor.conducted().shown, Shown::Source);
    assert_eq!(simulation.conductor.conducted().moves, 0);
}

#[test]
fn who_comes_after_a_source_that_was_ahead_is_seen_at_once() {
    // How far ahead the one before is, how much this one begins with, and in pieces of how many pictures it comes.
    let cases = [
        (0, 0, 1),
        (500, 0, 1),
        (1_000, 0, 1),
        (2_500, 0, 1),
        (2_500, 1_500, 1),
        (2_000, 0, 4),
        (2_000, 0, 6),
        (2_000, 1_000, 6),
    ];
    for (lead_ms, begins_with_ms, pieces) in cases {
        let mut made = Simulation::new(30, 48_000);
        made.lead_us = lead_ms * 1_000;
        made.anchor_us = Some(made.now_us + made.lead_us);
        for _ in 0..600 {
            made.step(None);
        }
        made.conductor.detach();
        for _ in 0..20 {
            made.step(Some(Fault::Gone(0)));
        }
        // In time; what it has made before it was asked comes first, and all at once.
        made.conductor.expect_sound();
        let begins_us = begins_with_ms * 1_000;
        made.anchor_us = Some(made.now_us - begins_us - made.clock_us);
        for _ in 0..begins_us / made.period_us {
            made.send(None);
        }
        let gone = made.last_sourced;
        let mut steps = 0;
        while made.last_sourced == gone {
            steps += 1;
            made.step((steps % pieces != 0).then_some(Fault::Stall(0)));
        }
        let ms = steps * made.period_us / 1_000;
        let most = if pieces > 1 { 1_000 } else { 400 };
        assert!(
            ms <= most,
            "{lead_ms} ms ahead, by {pieces}: {ms} ms until it was seen"
        );
        // And it stays where it is, with its sound.
        let before = (made.conductor.moves, made.compared);
        for _ in 0..600 {
            made.step(None);
        }
        assert_eq!(made.conductor.moves, before.0, "{lead_ms} ms ahead");
        assert!(made.compared > before.1 + 500, "lips were not looked at");
    }
}

#[test]
fn source_that_was_moved_and_is_then_put_right_lies_where_it_did() {
    let mut simulation = Simulation::new(30, 8_000);
    simulation.run(Fault::Stall(0), 5_000);
    simulation.run(Fault::Pause(4_000), 3_000);
    assert_eq!(simulation.conductor.conducted().moves, 1);
    simulation.anchor_us = simulation.anchor_us.map(|anchor_us| anchor_us + 4 * SECOND);
    for _ in 0..300 {
        simulation.step(None);
    }
    assert_eq!(simulation.conductor.conducted().moves, 1);
    assert_eq!(simulation.conductor.shift_us, 0);
}

#[test]
fn source_that_stood_still_is_moved_to_the_present() {
    let mut simulation = Simulation::new(30, 8_000);
    simulation.run(Fault::Stall(0), 5_000);
    for pauses in 1..5 {
        simulation.run(Fault::Pause(4_000), 8_000);
        assert_eq!(simulation.conductor.conducted().moves, pauses);
    }
}

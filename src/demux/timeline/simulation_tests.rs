//! A publisher, its clock and its way in, simulated: a month of them in seconds.

use std::collections::VecDeque;

use super::*;

const START_US: i64 = 1_795_000_000_000_000;
const SECOND: i64 = 1_000_000;
/// What nobody notices, as [ITU-R BT.1359] has it for sound that leads: 45 ms.
const LIPS_US: i64 = 40_000;
/// How long it takes until the timeline is right again, whatever happened to a source whose clock is off by
/// 200 ppm: six seconds until it is placed anew, then the slew of what is left.
const RECOVERY: i64 = 1_800 * SECOND;

/// What happens to the source or to its way in.
#[derive(Clone, Copy, Debug)]
enum Event {
    /// The network holds everything for so long, and then delivers it at twice the speed.
    Outage(i64),
    /// The publisher is suspended: no samples, and its clock stands still.
    Suspended(i64),
    /// The publisher sends nothing, but its clock goes on.
    Mute(i64),
    /// The uplink carries nine tenths of what it should for so long, and then catches up.
    Narrow(i64),
    /// The way in becomes longer, or shorter again.
    Longer(i64),
    /// Both tracks change to a new clock, the same for both.
    Jump(i64),
    /// The clocks of both jump alike, apart as they may be.
    JumpTogether(i64),
    /// The clock of one track jumps.
    JumpOf(MediaKind, i64),
    /// One track sends nothing for so long.
    Pause(MediaKind, i64),
}

/// Errors that are kept of each track: more than one track may lag behind the other.
const KEPT: usize = 16;

struct Random(u64);

impl Random {
    /// At least 0, less than `below`.
    fn next(&mut self, below: i64) -> i64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        i64::try_from(self.0 >> 33).expect("31 bits") % below.max(1)
    }

    /// Mostly little, at times up to `most`.
    fn jitter(&mut self, most: i64) -> i64 {
        let one = self.next(1_000);
        most * one * one / 1_000_000 * self.next(1_000) / 1_000
    }
}

/// One track as its encoder sends it.
struct Sent {
    kind: MediaKind,
    /// When its next sample is captured, by the publisher's time, which stands still while it is suspended.
    captured_us: i64,
    step_us: i64,
    /// What its clock is off by, beside drift.
    clock_us: i64,
    /// How much too slow its clock is, and since when.
    ppm: i64,
    drifts_from: i64,
    /// How much later than captured it is sent.
    lag_us: i64,
    silent_until: i64,
}

/// Where samples came to lie, less where they should: by the time of their capture.
#[derive(Default)]
struct Errors {
    video: VecDeque<(i64, i64)>,
    audio: VecDeque<(i64, i64)>,
}

struct World {
    timeline: Timeline,
    random: Random,
    /// Bits of the stamps.
    bits: u32,
    jitter_us: i64,
    delay_us: i64,
    tracks: [Sent; 2],
    /// Nothing is delivered before this, and then at twice the speed until it is delivered in time.
    held_until: i64,
    /// When the publisher was last suspended, by its own time, and for how long in all before and with that.
    suspended: (i64, i64, i64),
    narrow_from: i64,
    narrow_until: i64,
    /// When the newest sample arrived.
    arrived_us: i64,
    lagging_us: i64,
    disturbed_us: i64,
    doubted_until: i64,
    errors: Errors,
    repairs: Vec<Repair>,
    last: [Option<i64>; 2],
    worst_us: i64,
    samples: u64,
}

impl World {
    fn new(seed: u64, ppm: i64) -> Self {
        let sent = |kind, step_us, lag_us| Sent {
            kind,
            // Never at the same instant, of which each track could lie on another side of a seam.
            captured_us: lag_us / 20,
            step_us,
            clock_us: 0,
            ppm,
            drifts_from: 0,
            lag_us,
            silent_until: 0,
        };
        Self {
            timeline: Timeline::default(),
            random: Random(seed),
            bits: 32,
            jitter_us: 60_000,
            delay_us: 40_000,
            tracks: [
                sent(MediaKind::Video, 400_000, 0),
                sent(MediaKind::Audio, 384_000, 150_000),
            ],
            held_until: 0,
            suspended: (0, 0, 0),
            narrow_from: 0,
            narrow_until: 0,
            arrived_us: 0,
            lagging_us: 0,
            disturbed_us: 0,
            doubted_until: 0,
            errors: Errors::default(),
            repairs: Vec::new(),
            last: [None; 2],
            worst_us: 0,
            samples: 0,
        }
    }

    /// The publisher's time when the next sample is sent.
    fn own_now(&self) -> i64 {
        self.tracks
            .iter()
            .map(|track| track.captured_us + track.lag_us)
            .min()
            .expect("two")
    }

    /// The true time at the publisher's time `own`.
    const fn true_time(&self, own: i64) -> i64 {
        let (since, before, with) = self.suspended;
        own + if own < since { before } else { with }
    }

    fn now(&self) -> i64 {
        self.true_time(self.own_now())
    }

    fn happen(&mut self, event: Event) {
        let now = self.now();
        self.disturbed_us = now;
        match event {
            Event::Outage(us) => self.held_until = now + us,
            Event::Suspended(us) => {
                let before = self.suspended.2;
                self.suspended = (self.own_now(), before, before + us);
                self.disturbed_us = now + us;
            }
            Event::Mute(us) => {
                let until = self.own_now() + us;
                for track in &mut self.tracks {
                    track.silent_until = until;
                }
                self.disturbed_us = now + us;
            }
            Event::Narrow(us) => {
                (self.narrow_from, self.narrow_until) = (now, now + us);
                self.disturbed_us = now + us + us / 10;
            }
            Event::Longer(us) => {
                self.delay_us = (self.delay_us + us).max(5_000);
                // They were measured against another way.
                self.errors = Errors::default();
            }
            Event::Jump(us) => {
                let clock_us = self.tracks[0].clock_us + us;
                self.set_clocks(clock_us);
            }
            Event::JumpTogether(us) => {
                for track in &mut self.tracks {
                    track.clock_us += us;
                }
            }
            Event::JumpOf(kind, us) => {
                // What steps forward a little is in doubt until the other track has come there, and nothing moves.
                self.doubted_until = now + 4 * SECOND + 3 * us.clamp(0, 4 * SECOND);
                self.sent(kind).clock_us += us;
            }
            Event::Pause(kind, us) => {
                let track = self.sent(kind);
                track.silent_until = track.captured_us + us;
                self.disturbed_us = now + us;
            }
        }
    }

    /// Another connection, on which nothing is held back, and another clock, the same for both tracks.
    fn connect_anew(&mut self) {
        self.timeline = Timeline::default();
        self.last = [None; 2];
        self.errors = Errors::default();
        (self.held_until, self.narrow_until, self.lagging_us) = (0, 0, 0);
        self.arrived_us = 0;
        let clock_us = self.random.next(4_000_000) * 1_000;
        self.set_clocks(clock_us);
    }

    /// Both tracks have one clock now; from here on each drifts by itself.
    fn set_clocks(&mut self, clock_us: i64) {
        let drifts_from = self.own_now();
        for track in &mut self.tracks {
            (track.clock_us, track.drifts_from) = (clock_us, drifts_from);
        }
    }

    fn sent(&mut self, kind: MediaKind) -> &mut Sent {
        self.tracks
            .iter_mut()
            .find(|track| track.kind == kind)
            .expect("both")
    }

    fn run_until(&mut self, true_us: i64) {
        while self.now() < true_us {
            self.send();
        }
    }

    /// Sends the next sample, lets it arrive and be placed, and looks at where it is.
    fn send(&mut self) {
        let [video, audio] = &mut self.tracks;
        let video_first = video.captured_us + video.lag_us <= audio.captured_us + audio.lag_us;
        let track = if video_first { video } else { audio };
        let (kind, captured) = (track.kind, track.captured_us);
        track.captured_us += track.step_us;
        if captured < track.silent_until {
            return;
        }
        let lag_us = track.lag_us;
        let drift_us = (captured - track.drifts_from) * track.ppm / 1_000_000;
        let clock_ms = (captured + track.clock_us - drift_us).div_euclid(1_000);
        let sent = self.true_time(captured + lag_us);
        let stamp = u32::try_from(clock_ms.rem_euclid(1 << self.bits)).expect("so many bits");
        let mut arrives = sent + self.delay_us + self.random.jitter(self.jitter_us);
        if (self.narrow_from..self.narrow_until).contains(&sent) {
            self.lagging_us = (sent - self.narrow_from) / 10;
        } else if sent < self.held_until {
            self.lagging_us = self.held_until - sent;
        } else {
            self.lagging_us = (self.lagging_us - 200_000).max(0);
        }
        arrives = (arrives + self.lagging_us).max(self.arrived_us);
        self.arrived_us = arrives;
        self.samples += 1;
        let placed = self
            .timeline
            .place(kind, stamp, WallTime::from_micros(START_US + arrives));
        while let Some(repair) = self.timeline.poll_repair() {
            self.repairs.push(repair);
        }
        let at = placed.at.as_micros() + placed.slew_us - START_US;
        self.check(kind, self.true_time(captured), at, placed.moved);
    }

    fn check(&mut self, kind: MediaKind, captured: i64, at: i64, moved: bool) {
        let index = usize::from(kind == MediaKind::Audio);
        let last = self.last[index].replace(at);
        assert!(
            moved || last.is_none_or(|last| at > last),
            "{kind:?} goes back at {captured}"
        );
        let error = at - captured - self.delay_us;
        if captured - self.disturbed_us > RECOVERY {
            self.worst_us = self.worst_us.max(error.abs());
            assert!(
                error.abs() <= 100_000,
                "{kind:?} {} s: {error} us from the wall clock {:?}",
                captured / SECOND,
                self.repairs
            );
        }
        let (own, other) = match kind {
            MediaKind::Video => (&mut self.errors.video, &self.errors.audio),
            MediaKind::Audio => (&mut self.errors.audio, &self.errors.video),
        };
        own.push_back((captured, error));
        if own.len() > KEPT {
            own.pop_front();
        }
        // In peace it is enough to look now and then.
        if captured - self.disturbed_us > 60 * SECOND && !self.samples.is_multiple_of(64) {
            return;
        }
        // Of the four newest, the two in the middle enclose samples of the other track, if there is no hole
        // between. Those lie as they do; where a step is made, one sample more or less is on this side of it.
        let Some(at) = own.len().checked_sub(4) else {
            return;
        };
        let four = [own[at], own[at + 1], own[at + 2], own[at + 3]];
        let step_us = self.tracks[index].step_us;
        if four[2].0 - four[1].0 > 2 * step_us {
            return;
        }
        let least = four.iter().map(|own| own.1).min().expect("four");
        let most = four.iter().map(|own| own.1).max().expect("four");
        for (at, found) in other
            .iter()
            .filter(|(at, _)| (four[1].0..four[2].0).contains(at))
        {
            let off = found - found.clamp(&least, &most);
            assert!(
                off.abs() <= LIPS_US || captured < self.doubted_until,
                "sound and picture are {off} us apart at {} s: {:?}",
                at / SECOND,
                &self.repairs[self.repairs.len().saturating_sub(8)..],
            );
        }
    }

    fn told(&self, name: &str) -> usize {
        self.repairs
            .iter()
            .filter(|repair| Repair::NAMES[repair.index()] == name)
            .count()
    }
}

#[test]
fn a_clean_or_jittery_source_is_left_alone() {
    for (seed, jitter_us) in [(1, 0), (2, 5_000), (3, 80_000), (4, 400_000)] {
        let mut world = World::new(seed, 0);
        world.jitter_us = jitter_us;
        for n in 1..=48 {
            world.run_until(n * 1_800 * SECOND);
            if jitter_us > 0 {
                world.happen(Event::Outage(SECOND * (n % 6)));
            }
        }
        assert_eq!(world.repairs, [], "{jitter_us}");
    }
}

#[test]
fn a_clock_that_is_off_is_slewed_and_measured() {
    for ppm in [-200, -50, 50, 200] {
        let mut world = World::new(7, ppm);
        world.run_until(86_400 * SECOND);
        assert!(
            world.told("slewed") >= 10,
            "{ppm}: {:?}",
            world.repairs.len()
        );
        assert_eq!(world.told("slewed"), world.repairs.len(), "{ppm}");
        let found = world.timeline.drift_ppm().expect("measured");
        assert!((found - ppm).abs() <= 5, "{ppm}: {found}");
        assert!(world.worst_us <= 60_000, "{ppm}: {}", world.worst_us);
    }
}

/// As of phones and cameras whose pictures are stamped by the system and whose sound by counting samples.
#[test]
fn a_clock_of_one_track_that_is_off_moves_no_lips() {
    for (video, audio) in [
        (0, 50),
        (0, -50),
        (0, 200),
        (-200, 0),
        (100, -100),
        (-100, 50),
    ] {
        let mut world = World::new(11, 0);
        (world.tracks[0].ppm, world.tracks[1].ppm) = (video, audio);
        world.run_until(86_400 * SECOND);
        let told = world.told("track_slewed");
        assert!(told >= 10, "{video} {audio}: {:?}", world.repairs);
        assert_eq!(told + world.told("slewed"), world.repairs.len());
    }
}

/// As of an encoder that looks farther ahead once it sends fewer pictures: stamps and lips are right.
#[test]
fn an_encoder_that_holds_one_track_longer_is_believed() {
    for (kind, by) in [(MediaKind::Video, 100_000), (MediaKind::Audio, -120_000)] {
        let mut world = World::new(11, 0);
        world.run_until(200 * SECOND);
        world.sent(kind).lag_us += by;
        world.disturbed_us = world.now();
        world.run_until(7_200 * SECOND);
        assert_eq!(world.told("track_slewed"), 0, "{:?}", world.repairs);
    }
}

#[test]
fn one_track_that_is_reset_in_its_first_seconds_keeps_its_distance() {
    for at in [2, 3, 6, 30] {
        let mut world = World::new(19, 0);
        world.jitter_us = 5_000;
        world.run_until(at * SECOND);
        // It loses a third of a second while it does, which no stamp tells.
        world.sent(MediaKind::Audio).captured_us += 350_000;
        world.sent(MediaKind::Audio).clock_us += -3_000 * SECOND - 350_000;
        world.doubted_until = world.now() + 4 * SECOND;
        world.run_until(300 * SECOND);
        assert_eq!(world.told("realigned"), 1, "{at}: {:?}", world.repairs);
    }
}

/// What is being slewed when nothing comes for an hour is not slewed by an hour's worth.
#[test]
fn a_pause_is_not_slewed_for_all_of_it() {
    let mut world = World::new(7, 0);
    world.run_until(100 * SECOND);
    world.happen(Event::Longer(400_000));
    world.run_until(300 * SECOND);
    assert_eq!(world.told("slewed"), 1);
    let before = world.errors.video.back().expect("sent").1;
    world.happen(Event::Mute(3_600 * SECOND));
    world.run_until(3_905 * SECOND);
    let after = world.errors.video.back().expect("sent").1;
    assert!((before - after).abs() < 20_000, "{before} {after}");
}

#[test]
fn a_drift_is_of_one_track_whoever_leads() {
    let mut world = World::new(11, 50);
    world.run_until(300 * SECOND);
    world.happen(Event::Pause(MediaKind::Video, 10 * SECOND));
    for n in 30..130 {
        world.run_until(n * 10 * SECOND);
        let found = world.timeline.drift_ppm().expect("measured");
        assert!((found - 50).abs() <= 10, "{n}: {found}");
    }
}

#[test]
fn a_suspended_publisher_is_back_at_the_wall_clock_two_seconds_later() {
    for seconds in [1, 3, 20, 3_600] {
        let mut world = World::new(11, 0);
        world.run_until(100 * SECOND);
        world.happen(Event::Suspended(seconds * SECOND));
        world.run_until((100 + seconds + 3) * SECOND);
        assert_eq!(world.told("reanchored"), 1, "{seconds}");
        world.disturbed_us = -RECOVERY;
        world.run_until((200 + seconds) * SECOND);
        assert_eq!(world.repairs.len(), 1, "{seconds}: {:?}", world.repairs);
    }
}

#[test]
fn what_the_network_held_and_then_delivers_is_not_touched() {
    for seconds in [1, 3, 20] {
        let mut world = World::new(13, 0);
        world.run_until(100 * SECOND);
        world.happen(Event::Outage(seconds * SECOND));
        world.disturbed_us = -RECOVERY;
        world.run_until(300 * SECOND);
        assert_eq!(world.repairs, [], "{seconds}");
    }
}

#[test]
fn a_narrow_uplink_is_followed_and_forgiven() {
    let mut world = World::new(17, 0);
    world.run_until(100 * SECOND);
    world.happen(Event::Narrow(120 * SECOND));
    world.run_until(219 * SECOND);
    let behind = world.errors.video.back().expect("sent").1;
    assert!((8 * SECOND..14 * SECOND).contains(&behind), "{behind}");
    // Six seconds after it has delivered everything it is right again.
    world.run_until(260 * SECOND);
    world.disturbed_us = -RECOVERY;
    world.run_until(400 * SECOND);
    assert!(world.told("reanchored") >= 10);
}

#[test]
fn one_track_that_changes_its_clock_keeps_its_distance() {
    for (kind, by) in [
        (MediaKind::Audio, -7_000 * SECOND),
        (MediaKind::Video, 90_000 * SECOND),
        (MediaKind::Audio, 4 * SECOND),
    ] {
        let mut world = World::new(19, 0);
        world.run_until(100 * SECOND);
        world.happen(Event::JumpOf(kind, by));
        world.doubted_until = 0;
        world.run_until(200 * SECOND);
        assert_eq!(world.repairs.len(), 1, "{:?}", world.repairs);
        // It loses a third of a second while it does, which no stamp tells.
        world.sent(kind).captured_us += 350_000;
        world.sent(kind).clock_us += -3_000 * SECOND - 350_000;
        world.doubted_until = world.now() + 4 * SECOND;
        world.run_until(300 * SECOND);
        assert_eq!(
            (world.told("clock_jump"), world.told("realigned")),
            (2, 1),
            "{:?}",
            world.repairs
        );
    }
}

/// A track that was reset alone, by little or by much, is apart from the other by its stamps for good.
#[test]
fn what_one_track_was_reset_by_says_nothing_when_clocks_jump_again() {
    use MediaKind::{Audio, Video};
    for (kind, by) in [
        (Audio, 4),
        (Audio, -6),
        (Video, -6),
        (Video, 9),
        (Audio, 4_000),
    ] {
        for then in [
            Event::JumpTogether(-90 * SECOND),
            Event::JumpTogether(90 * SECOND),
            Event::Jump(-90 * SECOND),
            Event::Jump(3_600 * SECOND),
            Event::JumpOf(Audio, -2 * SECOND),
            Event::JumpOf(Audio, 3 * SECOND),
            Event::JumpOf(Video, -2 * SECOND),
        ] {
            let mut world = World::new(19, 0);
            world.run_until(100 * SECOND);
            world.happen(Event::JumpOf(kind, by * SECOND));
            world.run_until(200 * SECOND);
            world.happen(then);
            world.run_until(300 * SECOND);
            world.happen(Event::JumpTogether(-7 * SECOND));
            world.run_until(400 * SECOND);
            let told = world.told("clock_jump");
            assert_eq!(told, 3, "{kind:?} {by} {then:?}: {:?}", world.repairs);
        }
    }
}

/// Both change to one clock, as far as their stamps tell, but seconds apart.
#[test]
fn two_clocks_that_look_like_one_are_found_out_by_when_they_come() {
    for apart in [-2, 1, 3] {
        let mut world = World::new(19, 0);
        world.run_until(100 * SECOND);
        world.happen(Event::JumpTogether(-90 * SECOND));
        world.sent(MediaKind::Audio).clock_us += apart * SECOND;
        world.doubted_until = world.now() + 4 * SECOND;
        world.run_until(200 * SECOND);
        assert_eq!(world.told("realigned"), 1, "{apart}: {:?}", world.repairs);
    }
}

/// Sound begins with a zero of its own while pictures have come for a while.
#[test]
fn sound_with_a_zero_of_its_own_lies_where_it_comes() {
    for (after, held) in [(4, 0), (8, 0), (8, 3), (60, 0)] {
        let mut world = World::new(19, 0);
        world.jitter_us = 10_000;
        let sound = world.sent(MediaKind::Audio);
        sound.silent_until = after * SECOND;
        sound.clock_us = -after * SECOND;
        sound.lag_us = 20_000;
        world.run_until((after - 1) * SECOND);
        // Its first samples may be held by the network.
        world.happen(Event::Outage(held * SECOND));
        world.run_until(after * SECOND);
        world.doubted_until = world.now() + (4 + 2 * held) * SECOND;
        world.run_until(300 * SECOND);
        assert_eq!(world.told("clock_jump"), 1, "{after}: {:?}", world.repairs);
    }
}

#[test]
fn a_track_that_comes_seconds_late_stays_with_the_other() {
    for (video, audio) in [(0, 3), (4, 0)] {
        let mut world = World::new(23, 150);
        world.tracks[0].lag_us = video * SECOND;
        world.tracks[1].lag_us = audio * SECOND;
        world.run_until(100 * SECOND);
        world.happen(Event::Suspended(10 * SECOND));
        world.run_until(200 * SECOND);
        world.happen(Event::Jump(-90 * SECOND));
        world.run_until(7_200 * SECOND);
        assert_eq!(world.told("reanchored"), 1, "{:?}", world.repairs);
    }
}

#[test]
fn sound_that_is_gone_does_not_keep_the_pictures_from_the_wall_clock() {
    for kind in [MediaKind::Audio, MediaKind::Video] {
        let mut world = World::new(11, 0);
        world.run_until(100 * SECOND);
        world.happen(Event::Pause(kind, 2_000 * SECOND));
        for n in 1..=4 {
            world.run_until((200 * n) * SECOND);
            world.happen(Event::Suspended(30 * SECOND));
            world.run_until((200 * n + 33) * SECOND);
            world.disturbed_us = -RECOVERY;
            assert_eq!(
                world.told("reanchored"),
                usize::try_from(n).expect("few"),
                "{kind:?}"
            );
        }
        // What comes back after all is where the other one is.
        world.run_until(3_000 * SECOND);
        assert_eq!(world.told("reanchored"), 4, "{:?}", world.repairs);
    }
}

#[test]
fn slow_pictures_are_kept_near_the_wall_clock_as_fast_ones_are() {
    for (step, has_sound) in [(1, true), (3, true), (10, true), (1, false), (2, false)] {
        let mut world = World::new(19, 0);
        world.tracks[0].step_us = step * SECOND;
        if !has_sound {
            world.tracks[1].silent_until = i64::MAX;
        }
        world.run_until(100 * SECOND);
        world.happen(Event::Suspended(30 * SECOND));
        world.run_until((133 + if has_sound { 0 } else { 2 * step }) * SECOND);
        world.disturbed_us = world.now() - RECOVERY;
        assert_eq!(world.told("reanchored"), 1, "{step} {has_sound}");
        world.run_until(300 * SECOND);
        assert_eq!(world.repairs.len(), 1, "{step}: {:?}", world.repairs);
        if has_sound && step < 10 {
            // The sound loses a third of a second while it changes its clock.
            world.sent(MediaKind::Audio).captured_us += 350_000;
            world.sent(MediaKind::Audio).clock_us += -3_000 * SECOND - 350_000;
            world.doubted_until = world.now() + 4 * step * SECOND + 4 * SECOND;
            world.disturbed_us = world.now();
            world.run_until(500 * SECOND);
            assert_eq!(world.told("realigned"), 1, "{step}: {:?}", world.repairs);
        }
    }
}

#[test]
fn a_clock_of_24_bits_wraps_without_a_seam() {
    let mut world = World::new(29, 0);
    world.bits = 24;
    world.run_until(86_400 * SECOND);
    assert_eq!(world.repairs.len(), 2 * 5, "{:?}", world.repairs);
    assert_eq!(world.told("wrap_24"), 2 * 5);
}

/// Every quarter of an hour something happens, for thirty days; now and then the publisher connects anew.
#[test]
fn thirty_days_stay_in_sync_and_near_the_wall_clock() {
    let mut world = World::new(31, -200);
    world.sent(MediaKind::Audio).ppm = -100;
    // Of so few samples, the earliest would else be later than of the hundreds that a real source sends.
    world.jitter_us = 10_000;
    let (day, mut at) = (86_400 * SECOND, 60 * SECOND);
    while at < 30 * day {
        world.run_until(at);
        let random = &mut world.random;
        let kind = if random.next(2) == 0 {
            MediaKind::Video
        } else {
            MediaKind::Audio
        };
        let some = SECOND / 2 + random.next(20 * SECOND);
        let any = random.next(100_000) * SECOND - 50_000 * SECOND;
        let little = random.next(20) * SECOND - 10 * SECOND;
        let event = match random.next(11) {
            0 => Event::Outage(some),
            1 => Event::Suspended(some * 10),
            2 => Event::Mute(some),
            3 => Event::Narrow(some * 3),
            4 => Event::Longer(some / 20 - SECOND / 2),
            5 => Event::Jump(any),
            6 => Event::JumpOf(kind, any),
            7 => Event::Pause(kind, some),
            8 => Event::JumpOf(kind, little),
            9 => Event::JumpTogether(any),
            _ => {
                world.connect_anew();
                Event::Longer(0)
            }
        };
        world.happen(event);
        // Some come one upon the other, and then there is peace for an hour.
        at = world.now()
            + if random_pause(&mut world.random) {
                3_600 * SECOND
            } else {
                20 * SECOND
            };
    }
    assert!(world.samples > 10_000_000, "{}", world.samples);
    assert!(world.told("slewed") > 0);
}

fn random_pause(random: &mut Random) -> bool {
    random.next(4) != 0
}

//! What a merger promises, whatever the source and the encoders do.

use std::num::NonZeroU32;

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::media::made_up;
use crate::time::{FrameRate, Span, Ticks};

const VIDEO: TrackId = TrackId::new(NonZeroU32::MIN);
const AUDIO: TrackId = TrackId::new(NonZeroU32::new(2).expect("not zero"));
const PICTURE: i64 = 3_000;
const FRAME: i64 = 1_024;
const EPOCH_S: i64 = 1_795_000_001;
/// The renditions: the copied pictures, two encoded ones, the sound.
const COPIED: usize = 0;
const ENCODED: [usize; 2] = [1, 2];
const SOUND: usize = 3;

fn pictures(width: u32) -> TrackInfo {
    TrackInfo {
        id: VIDEO,
        timescale: Timescale::VIDEO_90K,
        codec: made_up::h264(width, 360, None),
    }
}

fn sound() -> TrackInfo {
    TrackInfo {
        id: AUDIO,
        timescale: Timescale::new(48_000).expect("not zero"),
        codec: made_up::aac(48_000),
    }
}

fn encoded() -> Vec<Rendition> {
    let of = |name: &str| Rendition {
        name: name.parse().expect("legal"),
        timescale: Timescale::VIDEO_90K,
        codec: pictures(320).codec,
        frame_rate: FrameRate::new(30, 1),
        target_bps: 1,
    };
    vec![of("v240"), of("v120")]
}

fn sample(at: i64, duration: i64, keyframe: bool) -> Sample {
    Sample {
        dts: Ticks::new(at),
        pts: Ticks::new(at + 2 * duration),
        duration: Span::new(duration.unsigned_abs()),
        keyframe,
        data: Bytes::new(),
    }
}

/// A ladder whose encoders deliver what was copied so many pictures later, but for those that `lose` says.
struct Ladder<L: Fn(usize, usize) -> bool> {
    grid: Grid,
    copier: Copier,
    merger: Merger,
    /// Pictures that were copied, and how many of them each encoder has delivered.
    copied: Vec<Sample>,
    delivered: [usize; 2],
    lag: [usize; 2],
    lose: L,
    /// What a picture carries.
    data: Bytes,
    outputs: Vec<Output>,
}

impl<L: Fn(usize, usize) -> bool> Ladder<L> {
    fn new(lag: [usize; 2], lose: L) -> Self {
        let grid = Grid::new(NonZeroU32::new(2_000).expect("not zero"));
        let mut merger = Merger::new(grid, true);
        merger.opened(encoded());
        Self {
            grid,
            copier: Copier::new(grid, SegmentNumber::new(0)),
            merger,
            copied: Vec::new(),
            delivered: [0; 2],
            lag,
            lose,
            data: Bytes::new(),
            outputs: Vec::new(),
        }
    }

    fn announce(&mut self, width: u32) {
        for info in [pictures(width), sound()] {
            self.copier.track(info);
        }
    }

    /// Sends pictures and sound for `ms` from `from_ms`, with key frames after so many pictures each.
    fn send(&mut self, from_ms: i64, ms: i64, gops: &[i64]) {
        let mut gops = gops.iter().cycle();
        let (mut left, mut heard) = (0, from_ms * 48);
        for index in 0..ms * 90 / PICTURE {
            // RTMP's stamps are whole milliseconds: pictures lie 33 or 34 of them apart.
            let at = (from_ms + (index * PICTURE + 45) / 90) * 90;
            let keyframe = left == 0;
            if keyframe {
                left = *gops.next().expect("without end");
            }
            left -= 1;
            let mut picture = sample(EPOCH_S * 90_000 + at, PICTURE, keyframe);
            picture.data = self.data.clone();
            self.copier.sample(VIDEO, picture);
            while heard * 90 < at * 48 {
                let block = sample(EPOCH_S * 48_000 + heard, FRAME, true);
                self.copier.sample(AUDIO, block);
                heard += FRAME;
            }
            self.work();
        }
    }

    /// Sends sound alone for `ms` from `from_ms`.
    fn send_sound(&mut self, from_ms: i64, ms: i64) {
        for heard in (from_ms * 48..(from_ms + ms) * 48).step_by(1_024) {
            let block = sample(EPOCH_S * 48_000 + heard, FRAME, true);
            self.copier.sample(AUDIO, block);
            self.work();
        }
        self.deliver(self.lag);
    }

    fn work(&mut self) {
        while let Some(output) = self.copier.poll_output() {
            if let Output::Sample {
                rendition: 0,
                sample,
            } = &output
            {
                self.copied.push(sample.clone());
            }
            self.merger.copied(output);
            self.deliver(self.lag);
        }
        self.outputs
            .extend(std::iter::from_fn(|| self.merger.poll_output()));
    }

    fn deliver(&mut self, lag: [usize; 2]) {
        for (index, lag) in lag.into_iter().enumerate() {
            while self.delivered[index] + lag < self.copied.len() {
                let place = self.delivered[index];
                self.delivered[index] += 1;
                if !(self.lose)(index, place) {
                    let sample = self.copied[place].clone();
                    // What an encoder says, which knows the rate and no place.
                    let duration = Span::new(PICTURE.unsigned_abs());
                    self.merger.encoded(index, Sample { duration, ..sample });
                }
            }
        }
    }

    fn finish(mut self) -> Vec<Output> {
        self.copier.finish();
        self.work();
        self.deliver([0; 2]);
        self.merger.finish();
        self.work();
        self.outputs
    }
}

/// Where each segment begins, in ticks, and how many samples it has, by number.
fn segments(outputs: &[Output], of: usize) -> Vec<(u64, i64, usize)> {
    let (mut found, mut number) = (Vec::<(u64, i64, usize)>::new(), None);
    for output in outputs {
        match output {
            Output::Cut {
                rendition,
                number: cut,
            } if *rendition == of => {
                assert!(number.is_none_or(|number| number < cut.get()), "{number:?}");
                number = Some(cut.get());
            }
            Output::Sample { rendition, sample } if *rendition == of => {
                let number = number.expect("a segment before its samples");
                match found.last_mut().filter(|last| last.0 == number) {
                    Some(last) => last.2 += 1,
                    None => found.push((number, sample.dts.get(), 1)),
                }
            }
            _ => {}
        }
    }
    found
}

/// What belongs to each period, by rendition: its first and its last place of decoding.
fn check_periods(outputs: &[Output]) {
    let (mut begin, mut highest) = ([i64::MIN; 3], [i64::MIN; 3]);
    let mut is_new = [true; 3];
    for output in outputs {
        match output {
            Output::Period { renditions, .. } => {
                let names: Vec<_> = renditions.iter().map(|r| r.name.as_str()).collect();
                assert_eq!(names, [VIDEO_NAME, "v240", "v120", AUDIO_NAME]);
                begin = [highest.into_iter().max().expect("three"); 3];
                is_new = [true; 3];
            }
            Output::Sample { rendition, sample } if *rendition < 3 => {
                let at = sample.dts.get();
                assert!(at > highest[*rendition], "{rendition}: back to {at}");
                if std::mem::take(&mut is_new[*rendition]) {
                    assert!(at > begin[*rendition], "{rendition}: {at} is of before");
                }
                highest[*rendition] = at;
            }
            _ => {}
        }
    }
}

#[test]
fn every_rung_is_cut_where_the_source_has_its_key_frames() {
    let mut ladder = Ladder::new([1, 40], |_, _| false);
    ladder.announce(640);
    ladder.send(0, 30_000, &[60, 71, 20, 90, 13, 66]);
    let outputs = ladder.finish();
    let Some(Output::Opened { renditions, .. }) = outputs.first() else {
        panic!("opens first");
    };
    let names: Vec<_> = renditions.iter().map(|r| r.name.as_str()).collect();
    assert_eq!(names, [VIDEO_NAME, "v240", "v120", AUDIO_NAME]);
    let copied = segments(&outputs, COPIED);
    assert!(copied.len() > 8, "{copied:?}");
    for rung in ENCODED {
        assert_eq!(segments(&outputs, rung), copied);
    }
    let numbers = |of| {
        segments(&outputs, of)
            .iter()
            .map(|s| s.0)
            .collect::<Vec<_>>()
    };
    assert_eq!(numbers(SOUND), numbers(COPIED));
}

#[test]
fn period_begins_with_one_number_when_the_encoders_have_delivered_what_was_before() {
    let mut ladder = Ladder::new([3, 30], |_, _| false);
    ladder.announce(640);
    ladder.send(0, 9_000, &[60]);
    ladder.copier.detach();
    ladder.announce(1_280);
    ladder.send(14_000, 9_000, &[50]);
    let outputs = ladder.finish();
    check_periods(&outputs);
    let is_period = |output: &&Output| matches!(output, Output::Period { .. });
    assert_eq!(outputs.iter().filter(is_period).count(), 1);
    for rung in ENCODED {
        assert_eq!(segments(&outputs, rung), segments(&outputs, COPIED));
    }
}

/// The first sample of each period of a rendition, and the one before it, which ends the period before.
fn seams(outputs: &[Output], of: usize) -> Vec<(Sample, Sample)> {
    let (mut found, mut last, mut is_new) = (Vec::new(), None::<Sample>, false);
    for output in outputs {
        match output {
            Output::Period { .. } => is_new = true,
            Output::Sample { rendition, sample } if *rendition == of => {
                let before = last.replace(sample.clone());
                if std::mem::take(&mut is_new) {
                    found.push((before.expect("a period before"), sample.clone()));
                }
            }
            _ => {}
        }
    }
    found
}

#[test]
fn key_frame_of_a_period_that_begins_where_the_last_one_ends_is_kept_although_encoders_say_longer_lengths()
 {
    let mut ladder = Ladder::new([1, 25], |_, _| false);
    ladder.announce(640);
    ladder.send(0, 9_000, &[60]);
    // Without a break in time: 33 ms after the last picture, and the encoders say 33.3.
    ladder.announce(1_280);
    ladder.send(9_000, 7_000, &[50]);
    // And once more with one.
    ladder.copier.detach();
    ladder.announce(640);
    ladder.send(17_000, 7_000, &[50]);
    let outputs = ladder.finish();
    check_periods(&outputs);
    let copied = seams(&outputs, COPIED);
    assert_eq!(copied.len(), 2);
    for rung in ENCODED {
        assert_eq!(segments(&outputs, rung), segments(&outputs, COPIED));
        for ((before, first), seam) in seams(&outputs, rung).into_iter().zip(&copied) {
            assert!(first.keyframe, "{rung}: {first:?}");
            assert_eq!((before, first), *seam, "{rung}");
        }
    }
}

#[test]
fn last_picture_of_a_source_that_broke_off_is_not_shown_until_the_next_one_begins() {
    let mut ladder = Ladder::new([2, 2], |_, _| false);
    ladder.announce(640);
    ladder.send(0, 5_000, &[60]);
    ladder.copier.detach();
    ladder.work();
    // Two pictures are missing that are shown before the last, so that its encoded one is decoded later.
    let last = ladder.copied.last_mut().expect("some");
    last.dts = Ticks::new(last.dts.get() + 2 * PICTURE);
    ladder.announce(640);
    ladder.send(6_000, 5_000, &[60]);
    let outputs = ladder.finish();
    for rung in ENCODED {
        let found = seams(&outputs, rung);
        assert_eq!(found.len(), 1, "{rung}");
        let (before, _) = &found[0];
        assert_eq!(before.duration, Span::new(PICTURE.unsigned_abs()), "{rung}");
    }
}

#[test]
fn what_is_copied_goes_on_while_the_encoders_are_gone() {
    // From picture 300 on the first delivers nothing for twelve seconds.
    let mut ladder = Ladder::new([1, 1], |index, place| {
        index == 0 && (300..660).contains(&place)
    });
    ladder.announce(640);
    ladder.send(0, 17_000, &[60]);
    let before_end = segments(&ladder.outputs, COPIED);
    assert!(before_end.len() >= 8, "nothing waits: {before_end:?}");
    let cuts = |outputs: &[Output], of| {
        let is_cut = |o: &&Output| matches!(o, Output::Cut { rendition, .. } if *rendition == of);
        outputs.iter().filter(is_cut).count()
    };
    let (copied, given_up) = (cuts(&ladder.outputs, COPIED), cuts(&ladder.outputs, 1));
    assert!(copied - given_up <= 4, "{copied} {given_up}");
    ladder.send(17_000, 13_000, &[60]);
    let outputs = ladder.finish();
    let (copied, rung) = (segments(&outputs, COPIED), segments(&outputs, 1));
    // What it has begins where the source's does, and it is back for the end.
    let whole = rung.iter().filter(|segment| copied.contains(segment));
    assert!(whole.count() >= rung.len() - 1, "{rung:?}\n{copied:?}");
    assert_eq!(rung.last(), copied.last());
    assert_eq!(segments(&outputs, 2), copied);
}

#[test]
fn rung_that_rests_is_not_waited_for() {
    let mut ladder = Ladder::new([1, 1], |index, place| {
        index == 0 && (300..600).contains(&place)
    });
    ladder.announce(640);
    ladder.send(0, 10_500, &[60]);
    ladder.merger.rests(0);
    ladder.send(10_500, 4_000, &[45, 60]);
    let newest = |of: usize| {
        let numbers = ladder.outputs.iter().filter_map(|output| match output {
            Output::Cut { rendition, number } if *rendition == of => Some(number.get()),
            _ => None,
        });
        numbers.max()
    };
    assert_eq!(newest(1), newest(COPIED));
    ladder.send(14_500, 15_500, &[60]);
    let outputs = ladder.finish();
    assert_eq!(
        segments(&outputs, 1).last(),
        segments(&outputs, COPIED).last()
    );
}

#[test]
fn source_waits_only_until_the_encoders_have_caught_up() {
    let mut ladder = Ladder::new([450, 450], |_, _| false);
    ladder.announce(640);
    ladder.send(0, 9_000, &[60]);
    assert!(!ladder.merger.is_ahead());
    ladder.send(9_000, 4_000, &[60]);
    assert!(ladder.merger.is_ahead() && !ladder.merger.has_caught_up());
    ladder.lag = [10, 10];
    ladder.send(13_000, 1_000, &[60]);
    assert!(!ladder.merger.is_ahead() && ladder.merger.has_caught_up());
    ladder.lag = [1_000, 1_000];
    ladder.send(14_000, 20_000, &[60]);
    assert!(!ladder.merger.is_ahead(), "later nothing waits");
}

#[test]
fn sound_that_goes_on_alone_is_not_a_lead_over_the_encoders() {
    // Four seconds of pictures, of which the encoders have made one.
    let mut ladder = Ladder::new([90, 90], |_, _| false);
    ladder.announce(640);
    ladder.send(0, 4_000, &[60]);
    assert!(!ladder.merger.has_caught_up());
    // Then the camera is off, and the encoders are slow.
    for second in 4..40 {
        if second == 14 {
            ladder.lag = [0, 0];
        }
        ladder.send_sound(second * 1_000, 1_000);
        assert!(
            !ladder.merger.is_ahead(),
            "held back for ever at {second} s"
        );
    }
    ladder.send(40_000, 8_000, &[60]);
    assert!(ladder.merger.has_caught_up());
    let outputs = ladder.finish();
    check_periods(&outputs);
    for rung in ENCODED {
        assert_eq!(segments(&outputs, rung), segments(&outputs, COPIED));
    }
}

#[test]
fn time_without_a_source_is_not_a_lead_over_the_encoders() {
    let mut ladder = Ladder::new([90, 90], |_, _| false);
    ladder.announce(640);
    ladder.send(0, 4_000, &[60]);
    ladder.copier.detach();
    ladder.work();
    ladder.announce(640);
    for second in 40..48 {
        ladder.send(second * 1_000, 1_000, &[30]);
        assert!(
            !ladder.merger.is_ahead(),
            "held back for ever at {second} s"
        );
    }
}

#[test]
fn encoders_that_stay_as_far_behind_as_they_look_ahead_have_caught_up() {
    let mut ladder = Ladder::new([120, 120], |_, _| false);
    ladder.announce(640);
    ladder.send(0, 8_000, &[60]);
    assert!(!ladder.merger.has_caught_up());
    ladder.send(8_000, 12_000, &[60]);
    assert!(!ladder.merger.is_ahead() && ladder.merger.has_caught_up());
}

#[test]
fn source_that_had_to_wait_for_nothing_waits_no_longer() {
    // Nothing is known of what is encoded, and it needs sixteen seconds of the source.
    let mut ladder = Ladder::new([500, 500], |_, _| false);
    ladder.merger = Merger::new(ladder.grid, true);
    ladder.announce(640);
    ladder.send(0, 13_000, &[60]);
    assert!(ladder.merger.is_ahead() && !ladder.merger.is_open());
    assert!(ladder.merger.wait_no_longer(), "it may need more pictures");
    assert!(!ladder.merger.is_ahead());
    ladder.send(13_000, 10_000, &[60]);
    assert!(ladder.merger.is_ahead());
    assert!(ladder.merger.wait_no_longer());
    ladder.merger.opened(encoded());
    assert!(ladder.merger.is_open());
    ladder.delivered = [0; 2];
    ladder.send(23_000, 30_000, &[60]);
    assert!(!ladder.merger.has_caught_up());
    // Once it is open, it goes on without them.
    ladder.lag = [1_600, 1_600];
    assert!(ladder.merger.wait_no_longer() && !ladder.merger.is_ahead());
}

#[test]
fn what_waits_before_the_encoders_are_known_is_bounded() {
    let mut ladder = Ladder::new([500, 500], |_, _| false);
    ladder.merger = Merger::new(ladder.grid, true);
    ladder.announce(640);
    ladder.send(0, 13_000, &[60]);
    let mut tries = 0;
    while ladder.merger.wait_no_longer() {
        tries += 1;
        assert!(tries < 4, "waits without end");
    }
}

#[test]
fn period_does_not_wait_for_the_encoders_with_more_than_may_wait() {
    // From the second period on nothing is delivered.
    let mut ladder = Ladder::new([1, 1], |_, place| place >= 240);
    ladder.announce(640);
    ladder.send(0, 8_000, &[60]);
    ladder.announce(1_280);
    let period = |outputs: &[Output]| outputs.iter().any(|o| matches!(o, Output::Period { .. }));
    ladder.send(8_000, 2_000, &[30]);
    assert!(!period(&ladder.outputs), "for two seconds it waits");
    ladder.data = Bytes::from(vec![0; 4 << 20]);
    ladder.send(10_000, 2_000, &[30]);
    assert!(period(&ladder.outputs));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Whatever the source does and whatever encoders lose: numbers go up, nothing is of another period, and a
    /// segment that a rung has begins with the picture that the source's begins with. Who loses nothing has all.
    #[test]
    fn segments_begin_together(
        stretches in prop::collection::vec((0_i64..8_000, 3_000_i64..9_000, prop::collection::vec(1_i64..100, 1..6)), 1..4),
        lags in (0_usize..60, 0_usize..60),
        lost in prop::collection::vec((0_usize..900, 1_usize..200), 0..3),
    ) {
        let lose = |index: usize, place: usize| {
            index == 1 && lost.iter().any(|(from, count)| (*from..from + count).contains(&place))
        };
        let mut ladder = Ladder::new([lags.0, lags.1], lose);
        let mut from_ms = 0;
        for (index, (away_ms, ms, gops)) in stretches.iter().enumerate() {
            if index > 0 {
                ladder.copier.detach();
            }
            ladder.announce(640 + 16 * u32::try_from(index).unwrap_or(0));
            from_ms += away_ms;
            ladder.send(from_ms, *ms, gops);
            from_ms += ms;
        }
        let outputs = ladder.finish();
        check_periods(&outputs);
        let copied = segments(&outputs, COPIED);
        prop_assert_eq!(&segments(&outputs, 1), &copied);
        for (number, at, _) in segments(&outputs, 2) {
            let begins = copied.iter().find(|segment| segment.0 == number).map(|segment| segment.1);
            let late = begins.map(|begins| at - begins);
            prop_assert!(late.is_some_and(|late| (0..=13_500).contains(&late)), "{number}: {late:?}");
        }
        segments(&outputs, SOUND);
    }
}

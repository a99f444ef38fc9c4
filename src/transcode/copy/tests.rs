//! What a copier promises, over sources of all kinds.

use std::num::NonZeroU32;

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::media::made_up;
use crate::time::{Span, Ticks};

const VIDEO: TrackId = TrackId::new(NonZeroU32::MIN);
const AUDIO: TrackId = TrackId::new(NonZeroU32::new(2).expect("not zero"));
const RATE: u32 = 48_000;
const FRAME: i64 = 1_024;
/// A picture at 30 frames per second, in ticks.
const PICTURE: i64 = 3_000;
/// When sources begin: not on the grid of two seconds.
const EPOCH_S: i64 = 1_795_000_001;

fn pictures(width: u32) -> TrackInfo {
    TrackInfo {
        id: VIDEO,
        timescale: Timescale::VIDEO_90K,
        codec: made_up::h264(width, 360, None),
    }
}

fn sound(rate: u32) -> TrackInfo {
    TrackInfo {
        id: AUDIO,
        timescale: Timescale::new(rate).expect("not zero"),
        codec: made_up::aac(rate),
    }
}

fn sample(at: i64, duration: i64, keyframe: bool) -> Sample {
    Sample {
        dts: Ticks::new(at),
        pts: Ticks::new(at + 2 * duration),
        duration: Span::new(duration.unsigned_abs()),
        keyframe,
        // Its own allocation, so that it can be told from every other.
        data: Bytes::from(vec![at.to_le_bytes()[0]; 40]),
    }
}

/// What one source sends: each input with the instant, in milliseconds, by which it is interleaved.
#[derive(Default)]
struct Feed {
    inputs: Vec<(i64, TrackId, Sample)>,
}

impl Feed {
    /// Pictures for `ms` from `from_ms`, with a key frame every `gop` pictures.
    fn pictures(mut self, from_ms: i64, ms: i64, gop: i64) -> Self {
        for index in 0..ms * 90 / PICTURE {
            let at = EPOCH_S * 90_000 + from_ms * 90 + index * PICTURE;
            let picture = sample(at, PICTURE, index % gop == 0);
            self.inputs.push((at / 90, VIDEO, picture));
        }
        self
    }

    /// Sound for `ms` from `from_ms`, which comes `late_ms` after pictures of its time.
    fn sound(mut self, from_ms: i64, ms: i64, late_ms: i64) -> Self {
        for index in 0..ms * i64::from(RATE) / 1_000 / FRAME {
            let from = EPOCH_S * i64::from(RATE) + from_ms * i64::from(RATE) / 1_000;
            let at = from + index * FRAME;
            let due = at * 1_000 / i64::from(RATE) + late_ms;
            self.inputs.push((due, AUDIO, sample(at, FRAME, true)));
        }
        self
    }

    fn sorted(mut self) -> Vec<(TrackId, Sample)> {
        self.inputs.sort_by_key(|(at, ..)| *at);
        let inputs = self.inputs.into_iter();
        inputs.map(|(_, track, sample)| (track, sample)).collect()
    }
}

fn grid() -> Grid {
    Grid::new(NonZeroU32::new(2_000).expect("not zero"))
}

fn copier() -> Copier {
    Copier::new(grid(), SegmentNumber::new(0))
}

fn drain(copier: &mut Copier) -> Vec<Output> {
    std::iter::from_fn(|| copier.poll_output()).collect()
}

/// What a copier of one source makes of `feed`, to its end.
fn copied(feed: Feed) -> (Vec<(TrackId, Sample)>, Vec<Output>, Counts) {
    let mut copier = copier();
    let inputs = feed.sorted();
    for info in [pictures(640), sound(RATE)] {
        if inputs.iter().any(|(track, _)| *track == info.id) {
            assert!(copier.track(info));
        }
    }
    for (track, sample) in &inputs {
        copier.sample(*track, sample.clone());
    }
    copier.finish();
    let outputs = drain(&mut copier);
    (inputs, outputs, copier.counts())
}

fn samples(outputs: &[Output], of: usize) -> Vec<&Sample> {
    let sample = |output| match output {
        &Output::Sample {
            rendition,
            ref sample,
        } if rendition == of => Some(sample),
        _ => None,
    };
    outputs.iter().filter_map(sample).collect()
}

/// Number and first sample of each segment of a rendition.
fn segments(outputs: &[Output], of: usize) -> Vec<(u64, Option<&Sample>)> {
    let mut found: Vec<(u64, Option<&Sample>)> = Vec::new();
    for output in outputs {
        match output {
            Output::Cut { rendition, number } if *rendition == of => {
                found.push((number.get(), None));
            }
            Output::Sample { rendition, sample } if *rendition == of => {
                let (_, first) = found.last_mut().expect("a segment before its samples");
                first.get_or_insert(sample);
            }
            _ => {}
        }
    }
    found
}

fn periods(outputs: &[Output]) -> Vec<u64> {
    let first = |output: &Output| match output {
        Output::Period { first, .. } => Some(first.get()),
        _ => None,
    };
    outputs.iter().filter_map(first).collect()
}

fn longest_ms(outputs: &[Output]) -> u32 {
    match outputs.first() {
        Some(Output::Opened { longest_ms, .. }) => *longest_ms,
        other => panic!("opens with {other:?}"),
    }
}

/// The promises that hold whatever the source does.
fn check(inputs: &[(TrackId, Sample)], outputs: &[Output]) {
    for (rendition, track) in [VIDEO, AUDIO].into_iter().enumerate() {
        let mut sent = inputs.iter().filter(|(of, _)| *of == track);
        for sample in samples(outputs, rendition) {
            let same = |(_, sent): &&(TrackId, Sample)| sent.data.as_ptr() == sample.data.as_ptr();
            let (_, sent) = sent.find(same).expect("in order, the very same bytes");
            assert_eq!(sent.composition_offset(), sample.composition_offset());
            assert_eq!((sent.dts, sent.keyframe), (sample.dts, sample.keyframe));
        }
        for pair in samples(outputs, rendition).windows(2) {
            let end = pair[0].dts.checked_add(pair[0].duration).expect("fits");
            assert!(end <= pair[1].dts, "{:?} overlaps {:?}", pair[0], pair[1]);
        }
        // A period takes the number after the highest of any rendition.
        let numbers: Vec<u64> = segments(outputs, rendition).iter().map(|s| s.0).collect();
        let periods = periods(outputs);
        for pair in numbers.windows(2) {
            assert!(pair[1] > pair[0], "{pair:?}");
            assert!(
                pair[1] == pair[0] + 1 || periods.contains(&pair[1]),
                "{pair:?}"
            );
        }
    }
}

fn ms(sample: &Sample, scale: u32) -> i64 {
    sample.dts.get() * 1_000 / i64::from(scale)
}

#[test]
fn two_second_gops_become_two_second_segments() {
    let feed = Feed::default()
        .pictures(0, 12_000, 60)
        .sound(-40, 12_040, 10);
    let (inputs, outputs, counts) = copied(feed);
    check(&inputs, &outputs);
    assert_eq!(longest_ms(&outputs), 2_000);
    let first = u64::try_from(EPOCH_S / 2).expect("positive");
    let numbers: Vec<u64> = segments(&outputs, 0).iter().map(|s| s.0).collect();
    assert_eq!(numbers, (first..first + 6).collect::<Vec<_>>());
    assert_eq!(samples(&outputs, 0).len(), 360);
    // The sound before the first picture.
    assert_eq!(
        counts,
        Counts {
            left_out: 2,
            ..Counts::default()
        }
    );
}

#[test]
fn renditions_say_what_the_source_is() {
    let (_, outputs, _) = copied(Feed::default().pictures(0, 5_000, 60).sound(0, 5_000, 0));
    let Some(Output::Opened { renditions, .. }) = outputs.first() else {
        panic!("opens first");
    };
    let names: Vec<&str> = renditions.iter().map(|r| r.name.as_str()).collect();
    assert_eq!(names, [VIDEO_NAME, AUDIO_NAME]);
    assert_eq!(renditions[0].frame_rate, crate::time::FrameRate::new(30, 1));
    assert_eq!(renditions[0].target_bps, 10_000);
    assert_eq!(renditions[1].timescale.get(), RATE);
}

#[test]
fn the_longest_segment_follows_from_the_first_gop() {
    for (gop, longest) in [
        (15, 2_000),
        (30, 2_000),
        (59, 4_000),
        (90, 3_000),
        (150, 5_000),
    ] {
        let (_, outputs, counts) = copied(Feed::default().pictures(0, 20_000, gop));
        assert_eq!(longest_ms(&outputs), longest, "{gop}");
        assert_eq!(counts.keyless_cuts, 0, "{gop}");
    }
}

#[test]
fn who_sends_no_key_frame_is_cut_without_one() {
    let (inputs, outputs, counts) = copied(Feed::default().pictures(0, 30_000, 100_000));
    check(&inputs, &outputs);
    assert_eq!(longest_ms(&outputs), 12_000);
    assert_eq!(counts.keyless_cuts, 2);
    assert_eq!(samples(&outputs, 0).len(), 900);
}

#[test]
fn a_later_gop_that_is_too_long_is_cut_and_left_at_its_key_frame() {
    let feed = Feed::default()
        .pictures(0, 6_000, 60)
        .pictures(6_000, 24_000, 240);
    let (inputs, outputs, counts) = copied(feed);
    check(&inputs, &outputs);
    assert!(counts.keyless_cuts > 3, "{counts:?}");
    // The numbers do not run ahead of the clock, and key frames begin segments again.
    let found = segments(&outputs, 0);
    let keyed = found
        .iter()
        .filter(|(_, first)| first.is_some_and(|s| s.keyframe));
    assert!(keyed.count() >= 5);
    for (number, first) in found {
        let at = ms(first.expect("pictures all along"), 90_000);
        assert!(
            at >= i64::try_from(number).expect("fits") * 2_000,
            "{number}"
        );
    }
}

#[test]
fn sound_alone_is_cut_on_the_grid() {
    let (_, outputs, counts) = copied(Feed::default().sound(0, 9_000, 0));
    assert_eq!(counts, Counts::default());
    let first = u64::try_from(EPOCH_S / 2).expect("positive");
    let found = segments(&outputs, 0);
    let numbers: Vec<u64> = found.iter().map(|s| s.0).collect();
    assert_eq!(numbers, (first..first + 5).collect::<Vec<_>>());
    for (number, sound) in found.iter().skip(1) {
        let late = ms(sound.expect("sound"), RATE) - i64::try_from(number * 2_000).expect("fits");
        assert!((0..22).contains(&late), "{late}");
    }
}

#[test]
fn short_broadcast_opens_at_its_end() {
    let (inputs, outputs, _) = copied(Feed::default().pictures(0, 1_000, 300).sound(0, 1_000, 0));
    check(&inputs, &outputs);
    assert_eq!(samples(&outputs, 0).len(), 30);
    assert_eq!(samples(&outputs, 1).len(), 46);
}

#[test]
fn a_source_that_comes_back_begins_a_period() {
    let mut copier = copier();
    let (mut inputs, before) = (Vec::new(), counts_of_feed(0, 5_000));
    for info in [pictures(640), sound(RATE)] {
        copier.track(info);
    }
    for (track, sample) in before {
        inputs.push((track, sample.clone()));
        copier.sample(track, sample);
    }
    copier.detach();
    // Its clock begins a little before the old one ended.
    for info in [pictures(1_280), sound(RATE)] {
        assert!(copier.track(info));
    }
    for (track, sample) in counts_of_feed(4_500, 8_000) {
        inputs.push((track, sample.clone()));
        copier.sample(track, sample);
    }
    copier.finish();
    let outputs = drain(&mut copier);
    check(&inputs, &outputs);
    let first = u64::try_from(EPOCH_S / 2).expect("positive");
    assert_eq!(periods(&outputs), [first + 3]);
    let width = |output: &Output| match output {
        Output::Period { renditions, .. } => renditions[0].codec.dimensions().map(|d| d.width),
        _ => None,
    };
    assert_eq!(outputs.iter().find_map(width), Some(1_280));
    let at = outputs
        .iter()
        .position(|o| matches!(o, Output::Period { .. }))
        .expect("one");
    let after = samples(&outputs[at..], 0)[0];
    assert!(after.keyframe);
    assert_eq!(ms(after, 90_000), EPOCH_S * 1_000 + 6_500);
    assert!(ms(samples(&outputs[at..], 1)[0], RATE) >= EPOCH_S * 1_000 + 6_500);
}

fn counts_of_feed(from_ms: i64, ms: i64) -> Vec<(TrackId, Sample)> {
    let feed = Feed::default()
        .pictures(from_ms, ms, 60)
        .sound(from_ms, ms, 0);
    feed.sorted()
}

#[test]
fn sound_that_changes_begins_a_period_at_the_next_key_frame() {
    let mut copier = copier();
    copier.track(pictures(640));
    copier.track(sound(RATE));
    let mut changed = false;
    for (track, mut sample) in counts_of_feed(0, 10_000) {
        let at = ms(&sample, if track == AUDIO { RATE } else { 90_000 });
        if track == AUDIO && at >= EPOCH_S * 1_000 + 5_000 {
            if !std::mem::replace(&mut changed, true) {
                assert!(copier.track(sound(44_100)));
            }
            let of = |ticks: i64| Ticks::new(ticks * 44_100 / i64::from(RATE));
            (sample.dts, sample.pts) = (of(sample.dts.get()), of(sample.pts.get()));
        }
        copier.sample(track, sample);
    }
    copier.finish();
    let outputs = drain(&mut copier);
    assert_eq!(periods(&outputs).len(), 1);
    assert_eq!(samples(&outputs, 0).len(), 300, "no picture is lost");
    let at = outputs
        .iter()
        .position(|o| matches!(o, Output::Period { .. }))
        .expect("one");
    assert_eq!(
        ms(samples(&outputs[at..], 0)[0], 90_000),
        EPOCH_S * 1_000 + 6_000
    );
}

#[test]
fn sound_that_vanishes_leaves_segments_of_pictures_whole() {
    let feed = Feed::default().pictures(0, 30_000, 60);
    let feed = feed.sound(0, 7_000, 0).sound(21_000, 9_000, 0);
    let (inputs, outputs, _) = copied(feed);
    check(&inputs, &outputs);
    assert!(periods(&outputs).is_empty());
    assert_eq!(samples(&outputs, 0).len(), 900);
    let sound = segments(&outputs, 1);
    assert_eq!(sound.len(), 15);
    let empty = sound.iter().filter(|(_, first)| first.is_none()).count();
    assert_eq!(empty, 7);
    // What comes back does so with a segment.
    assert_eq!(
        ms(sound[11].1.expect("back"), RATE),
        EPOCH_S * 1_000 + 22_002
    );
}

#[test]
fn pictures_that_vanish_leave_segments_of_sound_and_return_with_a_period() {
    let feed = Feed::default().sound(0, 40_000, 0);
    let feed = feed.pictures(0, 8_000, 60).pictures(25_000, 15_000, 60);
    let (inputs, outputs, counts) = copied(feed);
    check(&inputs, &outputs);
    assert_eq!(periods(&outputs).len(), 1);
    assert_eq!(counts.left_out, 0);
    let sound = segments(&outputs, 1);
    assert!(sound.iter().all(|(_, first)| first.is_some()), "{sound:?}");
    let empty = segments(&outputs, 0)
        .iter()
        .filter(|(_, first)| first.is_none())
        .count();
    assert!((8..=9).contains(&empty), "{empty}");
}

#[test]
fn a_jump_of_time_begins_a_period_and_a_short_hole_does_not() {
    for (hole_ms, expected) in [(100, 0), (5_000, 1)] {
        let feed = Feed::default().pictures(0, 6_000, 60).sound(0, 6_000, 0);
        let from = 6_000 + hole_ms;
        let feed = feed.pictures(from, 6_000, 60).sound(from, 6_000, 0);
        let (inputs, outputs, _) = copied(feed);
        check(&inputs, &outputs);
        assert_eq!(periods(&outputs).len(), expected, "{hole_ms}");
        assert_eq!(samples(&outputs, 0).len(), 360, "{hole_ms}");
    }
}

#[test]
fn first_number_is_not_one_that_was_used() {
    let used = SegmentNumber::new(u64::try_from(EPOCH_S).expect("positive"));
    let mut copier = Copier::new(grid(), used);
    copier.track(pictures(640));
    for (track, sample) in counts_of_feed(0, 3_000) {
        copier.sample(track, sample);
    }
    assert!(matches!(copier.poll_output(), Some(Output::Opened { first, .. }) if first == used));
}

#[test]
fn a_track_that_comes_later_is_not_published() {
    let mut copier = copier();
    copier.track(pictures(640));
    for (track, sample) in Feed::default().pictures(0, 3_000, 60).sorted() {
        copier.sample(track, sample);
    }
    assert!(!copier.track(sound(RATE)));
    copier.sample(AUDIO, sample(EPOCH_S * i64::from(RATE), FRAME, true));
    copier.finish();
    assert!(samples(&drain(&mut copier), 1).is_empty());
}

/// One thing that a source does.
#[derive(Clone, Debug)]
enum Act {
    Send { ms: i64, gop: i64 },
    Pause { ms: i64 },
    Reconnect { width: u32, back_ms: i64 },
    Resample,
    Mute { ms: i64 },
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        4 => (500_i64..9_000, 5_i64..400).prop_map(|(ms, gop)| Act::Send { ms, gop }),
        1 => (50_i64..20_000).prop_map(|ms| Act::Pause { ms }),
        1 => (1_u32..4, -500_i64..4_000)
            .prop_map(|(size, back_ms)| Act::Reconnect { width: size * 320, back_ms }),
        1 => Just(Act::Resample),
        1 => (100_i64..15_000).prop_map(|ms| Act::Mute { ms }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn a_steady_source_loses_nothing_and_is_cut_alike(
        gop in 1_i64..500, late_ms in -900_i64..900, seconds in 3_i64..30, skew_ms in -30_i64..30,
    ) {
        let feed = Feed::default().pictures(0, seconds * 1_000, gop);
        let (inputs, outputs, counts) = copied(feed.sound(skew_ms, seconds * 1_000, late_ms));
        check(&inputs, &outputs);
        prop_assert!(periods(&outputs).is_empty());
        let passed = samples(&outputs, 0).len() + samples(&outputs, 1).len();
        prop_assert_eq!(passed as u64 + counts.left_out, inputs.len() as u64);
        prop_assert!(counts.left_out <= 2, "the sound before the first picture");
        for rendition in 0..2 {
            for pair in samples(&outputs, rendition).windows(2) {
                prop_assert_eq!(pair[0].dts.checked_add(pair[0].duration), Some(pair[1].dts));
            }
        }
        let (video, audio) = (segments(&outputs, 0), segments(&outputs, 1));
        let longest = i64::from(longest_ms(&outputs));
        for pair in video.windows(2) {
            let start = |at: usize| ms(pair[at].1.expect("not empty"), 90_000);
            // Only one that begins without a key frame may end before its time.
            let least = if pair[0].1.is_some_and(|s| s.keyframe) { 1_990 } else { 990 };
            prop_assert!(start(1) - start(0) >= least);
            prop_assert!(start(1) - start(0) <= longest + 450);
        }
        for ((number, pictures), (of_sound, sound)) in video.iter().zip(&audio) {
            prop_assert_eq!(number, of_sound);
            if let (Some(pictures), Some(sound)) = (pictures, sound) {
                let apart = ms(sound, RATE) - ms(pictures, 90_000);
                prop_assert!((-1..=52).contains(&apart), "{}", apart);
                let first = number == &video[0].0;
                prop_assert!(first || apart <= 22, "{}", apart);
            }
        }
    }

    #[test]
    fn whatever_a_source_does_the_promises_hold(acts in prop::collection::vec(act(), 1..12)) {
        let mut copier = copier();
        let (mut now, mut rate, mut sent) = (0_i64, RATE, Vec::new());
        copier.track(pictures(640));
        copier.track(sound(rate));
        for act in acts {
            let feed = match act {
                Act::Send { ms, gop } => {
                    now += ms;
                    Feed::default().pictures(now - ms, ms, gop).sound(now - ms, ms, 20)
                }
                Act::Mute { ms } => {
                    now += ms;
                    Feed::default().pictures(now - ms, ms, 60)
                }
                Act::Pause { ms } => {
                    now += ms;
                    continue;
                }
                Act::Reconnect { width, back_ms } => {
                    copier.detach();
                    copier.track(pictures(width));
                    copier.track(sound(rate));
                    now += back_ms;
                    continue;
                }
                Act::Resample => {
                    rate = if rate == RATE { 24_000 } else { RATE };
                    copier.track(sound(rate));
                    continue;
                }
            };
            for (track, mut sample) in feed.sorted() {
                if track == AUDIO {
                    let of = |ticks: i64| Ticks::new(ticks * i64::from(rate) / i64::from(RATE));
                    (sample.dts, sample.pts) = (of(sample.dts.get()), of(sample.pts.get()));
                }
                sent.push((track, sample.clone()));
                copier.sample(track, sample);
            }
        }
        copier.finish();
        let outputs = drain(&mut copier);
        let passed = outputs.iter().filter(|o| matches!(o, Output::Sample { .. })).count() as u64;
        prop_assert!(passed + copier.counts().left_out <= sent.len() as u64);
        check_lenient(&sent, &outputs);
    }
}

/// [`check`] for sound that may have changed its timescale on the way: order and bytes.
fn check_lenient(inputs: &[(TrackId, Sample)], outputs: &[Output]) {
    for (rendition, track) in [VIDEO, AUDIO].into_iter().enumerate() {
        let mut sent = inputs.iter().filter(|(of, _)| *of == track);
        for sample in samples(outputs, rendition) {
            let same = |(_, sent): &&(TrackId, Sample)| sent.data.as_ptr() == sample.data.as_ptr();
            assert!(
                sent.any(|sent| same(&sent)),
                "in order, the very same bytes"
            );
            assert!(sample.duration > Span::ZERO);
        }
        let numbers: Vec<u64> = segments(outputs, rendition).iter().map(|s| s.0).collect();
        let periods = periods(outputs);
        for pair in numbers.windows(2) {
            let follows = pair[1] == pair[0] + 1 || periods.contains(&pair[1]);
            assert!(pair[1] > pair[0] && follows, "{pair:?}");
        }
    }
    let longest = i64::from(longest_ms_or(outputs));
    for (_, first) in segments(outputs, 0).iter().skip(1) {
        assert!(first.is_none_or(|first| first.dts.get() > 0));
    }
    assert!(longest <= 12_000);
}

fn longest_ms_or(outputs: &[Output]) -> u32 {
    outputs.first().map_or(0, |_| longest_ms(outputs))
}

/// The greatest number by which `outputs` of pictures that are one GOP of `gop` frames each are ahead of the clock.
fn lead_of_changes(gop: i64, length_s: i64) -> (i64, Counts) {
    let mut copier = copier();
    assert!(copier.track(pictures(640)));
    let (mut at, mut lead) = (EPOCH_S * 90_000, i64::MIN);
    for index in 0..length_s * 30 / gop {
        // Parameter sets that alternate, once it is open.
        let is_other = index * gop > 200 && index % 2 == 1;
        copier.track(pictures(if is_other { 320 } else { 640 }));
        for picture in 0..gop {
            copier.sample(VIDEO, sample(at, PICTURE, picture == 0));
            at += PICTURE;
        }
        for output in drain(&mut copier) {
            let number = match output {
                Output::Cut { number, .. } => number,
                Output::Period { first, .. } | Output::Opened { first, .. } => first,
                Output::Sample { .. } => continue,
            };
            let clock = grid().segment_at(Ticks::new(at).at(Timescale::VIDEO_90K));
            lead = lead.max(number.get().cast_signed() - clock.get().cast_signed());
        }
    }
    (lead, copier.counts())
}

#[test]
fn a_source_that_changes_all_the_time_does_not_run_ahead_of_the_clock() {
    for gop in [30, 15, 45] {
        let (lead, counts) = lead_of_changes(gop, 600);
        assert!(lead <= 2, "{lead}");
        // Half of it at most is left out.
        assert!(counts.left_out <= 600 * 30 * 3 / 4, "{counts:?}");
        assert!(counts.periods > 100, "{counts:?}");
    }
    let (_, counts) = lead_of_changes(60, 600);
    assert_eq!(counts.left_out, 0, "one that is in time loses nothing");
}

#[test]
fn pictures_that_come_and_go_are_back_with_their_first_key_frame() {
    for phase_ms in [0, 300, 700, 1_100, 1_900] {
        // As OBS sends them: a key frame every two seconds, which is a segment.
        let (mut feed, mut at_ms) = (Feed::default(), 0);
        for n in 0..12 {
            feed = feed.pictures(at_ms, 12_000, 60);
            at_ms += 12_000 + 7_000 + phase_ms + n * 130;
        }
        let sent = feed.inputs.len();
        let (_, outputs, counts) = copied(feed.sound(0, at_ms, 0));
        assert_eq!(periods(&outputs).len(), 11, "{phase_ms}");
        let seen = samples(&outputs, 0).len();
        assert_eq!(seen, sent, "{phase_ms}: {counts:?}");
    }
}

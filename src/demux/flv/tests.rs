use proptest::prelude::*;

use super::*;
use crate::demux::{Fault, check_invariants};
use crate::time::FrameRate;

/// x264 High, 1280x720, 30 fps declared.
const FILM: &[u8] = &[
    0x01, 0x64, 0x00, 0x1F, 0xFF, 0xE1, 0x00, 0x1A, 0x67, 0x64, 0x00, 0x1F, 0xAC, 0xD9, 0x80, 0x50,
    0x05, 0xBB, 0x01, 0x10, 0x00, 0x00, 0x03, 0x00, 0x10, 0x00, 0x00, 0x03, 0x03, 0xC0, 0xF1, 0x83,
    0x19, 0xA0, 0x01, 0x00, 0x05, 0x68, 0xE9, 0x7B, 0x2C, 0x8B, 0xFD, 0xF8, 0xF8, 0x00,
];
/// OpenH264 Constrained Baseline, 322x182, no rate declared.
const OPENH264: &[u8] = &[
    0x01, 0x42, 0xC0, 0x0D, 0xFF, 0xE1, 0x00, 0x10, 0x67, 0x42, 0xC0, 0x0D, 0x8C, 0x8D, 0x40, 0xA8,
    0xCB, 0x11, 0x34, 0x03, 0xC2, 0x21, 0x1A, 0x80, 0x01, 0x00, 0x04, 0x68, 0xCE, 0x3C, 0x80,
];
const STEREO_48: &[u8] = &[0x11, 0x90];
const STEREO_44: &[u8] = &[0x12, 0x10];
const IDR: &[u8] = &[0, 0, 0, 2, 0x65, 0x88];
const SLICE: &[u8] = &[0, 0, 0, 2, 0x41, 0x9A];
/// A recovery point, which FLV flags as a key frame all the same.
const RECOVERY: &[u8] = &[0, 0, 0, 5, 6, 6, 1, 0xC4, 0x80, 0, 0, 0, 2, 0x41, 0x9A];
const START_US: i64 = 1_795_000_000_123_456;

/// A demuxer with all that it said.
#[derive(Default)]
struct Run {
    demuxer: Demuxer,
    outputs: Vec<Output>,
    now_ms: i64,
}

impl Run {
    fn push(&mut self, message: Message) -> Result<(), Error> {
        let now = WallTime::from_micros(START_US + self.now_ms * 1_000);
        let result = self.demuxer.push(message, now);
        while let Some(output) = self.demuxer.poll_output() {
            self.outputs.push(output);
        }
        result
    }

    fn video(&mut self, timestamp_ms: u32, packet: u8, composition_ms: i32, body: &[u8]) {
        let composition = composition_ms.to_be_bytes();
        let mut data = vec![0x17, packet];
        data.extend(&composition[1..]);
        data.extend(body);
        let data = data.into();
        self.push(Message::Video { timestamp_ms, data })
            .expect("valid");
    }

    fn audio(&mut self, timestamp_ms: u32, packet: u8, body: &[u8]) {
        let data = [&[0xAF, packet], body].concat().into();
        self.push(Message::Audio { timestamp_ms, data })
            .expect("valid");
    }

    fn samples(&self, of: TrackId) -> Vec<&Sample> {
        let sample =
            |output: &'_ Output| matches!(output, Output::Sample { track, .. } if *track == of);
        let kept = self.outputs.iter().filter(|output| sample(output));
        kept.filter_map(|output| match output {
            Output::Sample { sample, .. } => Some(sample),
            _ => None,
        })
        .collect()
    }

    fn repairs(&self) -> Vec<Repair> {
        let repair = |output: &Output| match output {
            Output::Repair(repair) => Some(*repair),
            _ => None,
        };
        self.outputs.iter().filter_map(repair).collect()
    }

    fn tracks(&self) -> usize {
        let is_track = |output: &&Output| matches!(output, Output::Track(_));
        self.outputs.iter().filter(is_track).count()
    }

    fn rates(&self) -> Vec<FrameRate> {
        let rate = |output: &Output| match output {
            Output::FrameRate(rate) => Some(*rate),
            _ => None,
        };
        self.outputs.iter().filter_map(rate).collect()
    }
}

/// Thirty frames and forty-six access units a second, both from `first`.
fn broadcast(first: u32, seconds: u32) -> Run {
    let mut run = Run::default();
    run.video(first, 0, 0, FILM);
    run.audio(first, 0, STEREO_48);
    let mut sound = 0_u32;
    for n in 0..seconds * 30 {
        let ms = n * 1_000 / 30;
        run.now_ms = i64::from(ms);
        run.video(
            first.wrapping_add(ms),
            1,
            67,
            if n % 30 == 0 { IDR } else { SLICE },
        );
        while sound * 1_024 / 48 <= ms {
            run.audio(first.wrapping_add(sound * 1_024 / 48), 1, &[1, 2, 3]);
            sound += 1;
        }
    }
    run
}

#[test]
fn the_first_sample_lies_at_its_arrival_and_both_tracks_run_evenly() {
    for first in [0, 4_000_000, u32::MAX - 1_500, 0x00FF_FFFF - 700] {
        let run = broadcast(first, 5);
        check_invariants(&run.outputs).expect("promises");
        let start = WallTime::from_micros(START_US);
        let video = run.samples(VIDEO_TRACK);
        let zero = start.to_ticks(Timescale::VIDEO_90K).get();
        for (n, sample) in (0_i64..).zip(&video) {
            assert_eq!(sample.dts.get(), zero + n * 3_000);
            assert_eq!(sample.composition_offset().get(), 6_000);
            assert_eq!(sample.duration.get(), 3_000);
            assert_eq!(sample.keyframe, n % 30 == 0);
        }
        let scale = Timescale::new(48_000).expect("not zero");
        for (n, sample) in (0_i64..).zip(run.samples(AUDIO_TRACK)) {
            assert_eq!(sample.dts.get(), start.to_ticks(scale).get() + n * 1_024);
        }
        assert_eq!(video.len(), 150);
        assert_eq!((run.tracks(), run.repairs()), (2, vec![]));
        assert_eq!(run.rates(), [FrameRate::new(30, 1).expect("valid")]);
    }
}

#[test]
fn what_comes_before_headers_and_key_frames_is_dropped_and_counted() {
    let mut run = Run::default();
    run.video(0, 1, 0, IDR);
    run.audio(0, 1, &[1]);
    run.video(0, 0, 0, FILM);
    run.video(33, 1, 0, SLICE);
    run.video(66, 1, 0, RECOVERY);
    run.video(100, 1, 0, IDR);
    let dropped = |kind, reason| Repair::Dropped { kind, reason };
    let expected = [
        dropped(MediaKind::Video, DropReason::NoSequenceHeader),
        dropped(MediaKind::Audio, DropReason::NoSequenceHeader),
        dropped(MediaKind::Video, DropReason::NoKeyFrame),
        dropped(MediaKind::Video, DropReason::NoKeyFrame),
    ];
    assert_eq!(run.repairs(), expected);
    assert_eq!(run.samples(VIDEO_TRACK).len(), 1);
}

#[test]
fn a_recovery_point_is_no_key_frame() {
    let mut run = Run::default();
    run.video(0, 0, 0, FILM);
    run.video(0, 1, 0, IDR);
    run.video(33, 1, 0, RECOVERY);
    let keyframes: Vec<bool> = run
        .samples(VIDEO_TRACK)
        .iter()
        .map(|s| s.keyframe)
        .collect();
    assert_eq!(keyframes, [true, false]);
}

#[test]
fn a_new_header_makes_a_new_track_only_if_it_differs() {
    let mut run = broadcast(0, 1);
    run.video(1_000, 0, 0, FILM);
    run.audio(1_000, 0, STEREO_48);
    assert_eq!(run.tracks(), 2);
    run.video(1_000, 0, 0, OPENH264);
    run.audio(1_000, 0, STEREO_44);
    assert_eq!(run.tracks(), 4);
    run.video(1_000, 1, 0, SLICE);
    run.video(1_033, 1, 0, IDR);
    run.audio(1_024, 1, &[7]);
    let samples = run.samples(VIDEO_TRACK);
    assert!(samples[30].keyframe && samples.len() == 31);
    check_invariants(&run.outputs).expect("promises");
}

#[test]
fn sound_that_comes_late_keeps_its_distance_from_the_picture() {
    let mut run = Run::default();
    run.video(0, 0, 0, FILM);
    for n in 0..90 {
        run.video(n * 1_000 / 30, 1, 0, IDR);
    }
    run.now_ms = 3_000;
    run.audio(2_000, 0, STEREO_48);
    run.audio(2_000, 1, &[1]);
    let sound = run.samples(AUDIO_TRACK)[0]
        .dts
        .at(Timescale::new(48_000).expect("valid"));
    let expected = WallTime::from_micros(START_US + 2_000_000);
    assert!((sound.to_wall().as_micros() - expected.as_micros()).abs() < 25);
}

#[test]
fn sound_alone_plays() {
    let mut run = Run::default();
    run.audio(10, 0, STEREO_44);
    for n in 0..100_u32 {
        run.audio(10 + n * 10_240 / 441, 1, &[1]);
    }
    run.audio(5_000, 1, &[]);
    run.push(Message::Audio {
        timestamp_ms: 5_000,
        data: Bytes::new(),
    })
    .expect("silence");
    let samples = run.samples(AUDIO_TRACK);
    assert_eq!(samples.len(), 100);
    for pair in samples.windows(2) {
        assert_eq!(pair[1].dts.get() - pair[0].dts.get(), 1_024);
    }
}

#[test]
fn a_jump_of_the_clock_keeps_sound_and_picture_together() {
    let mut run = broadcast(10_000_000, 2);
    for (n, (video, sound)) in (0_u32..30)
        .map(|n| (n * 1_000 / 30, n * 1_000 / 30 + 7))
        .enumerate()
    {
        run.now_ms = 2_000 + i64::from(video);
        run.video(500 + video, 1, 0, if n == 0 { IDR } else { SLICE });
        run.audio(500 + sound, 1, &[1]);
    }
    check_invariants(&run.outputs).expect("promises");
    let jumps = run
        .repairs()
        .into_iter()
        .filter(|r| matches!(r, Repair::ClockJump { .. }));
    assert_eq!(jumps.count(), 1);
    let (video, audio) = (run.samples(VIDEO_TRACK), run.samples(AUDIO_TRACK));
    let us = |sample: &Sample, scale| sample.dts.at(scale).to_wall().as_micros();
    let first = us(video[60], Timescale::VIDEO_90K);
    let sound = us(
        audio[audio.len() - 30],
        Timescale::new(48_000).expect("valid"),
    );
    assert!((sound - first - 7_000).abs() < 1_000, "{}", sound - first);
    assert!((first - START_US - 2_000_000).abs() < 60_000);
}

#[test]
fn decode_time_that_stands_or_goes_back_is_nudged() {
    let mut run = broadcast(0, 1);
    for stamp in [1_000, 1_000, 990, 1_033] {
        run.video(stamp, 1, 0, SLICE);
    }
    check_invariants(&run.outputs).expect("promises");
    let nudged = run
        .repairs()
        .into_iter()
        .filter(|r| matches!(r, Repair::Nudged { .. }));
    assert_eq!(nudged.count(), 2);
}

#[test]
fn sound_whose_stamp_stands_or_goes_back_is_nudged() {
    let mut run = broadcast(0, 1);
    let before = run.samples(AUDIO_TRACK).len();
    let last = run.samples(AUDIO_TRACK)[before - 1].dts.get();
    // The next one is due at 981 ms.
    for stamp in [981, 981, 970, 1_045] {
        run.audio(stamp, 1, &[1, 2, 3]);
    }
    let placed = run.samples(AUDIO_TRACK).into_iter().skip(before);
    let placed: Vec<i64> = placed.map(|sample| sample.dts.get() - last).collect();
    assert_eq!(placed, [1_024, 2_048, 3_072, 4_096]);
    let kind = MediaKind::Audio;
    assert_eq!(run.repairs(), [Repair::Nudged { kind }; 2]);
}

#[test]
fn presentation_is_kept_where_a_decode_time_goes_back() {
    let mut run = broadcast(0, 1);
    for (stamp, composition) in [(1_000, 67), (933, 167), (1_067, 67)] {
        run.video(stamp, 1, composition, SLICE);
    }
    check_invariants(&run.outputs).expect("promises");
    let first = run.samples(VIDEO_TRACK)[0].pts.get();
    let shown = run.samples(VIDEO_TRACK).into_iter().skip(30);
    let shown: Vec<i64> = shown
        .map(|sample| (sample.pts.get() - first) / 3_000)
        .collect();
    assert_eq!(shown, [30, 31, 32]);
}

#[test]
fn composition_offsets_are_signed_and_bounded() {
    let mut run = broadcast(0, 1);
    run.video(1_000, 1, -33, SLICE);
    run.video(1_033, 1, -8_000_000, SLICE);
    let samples = run.samples(VIDEO_TRACK);
    assert_eq!(samples[30].composition_offset().get(), -3_000);
    assert_eq!(samples[31].composition_offset().get(), -450_000);
    assert_eq!(
        run.repairs(),
        [Repair::CompositionClamped {
            found_ms: -8_000_000
        }]
    );
}

#[test]
fn other_framings_become_lengths_of_four() {
    let mut run = Run::default();
    let mut short = FILM.to_vec();
    short[4] = 0xFD;
    run.video(0, 0, 0, &short);
    run.video(0, 1, 0, &[0, 2, 0x65, 0x88]);
    run.video(0, 0, 0, FILM);
    run.video(33, 1, 0, &[0, 0, 0, 1, 9, 0x10, 0, 0, 0, 1, 0x65, 0x88]);
    let samples = run.samples(VIDEO_TRACK);
    assert_eq!(samples[0].data[..], *IDR);
    assert_eq!(
        samples[1].data[..],
        [0, 0, 0, 2, 9, 0x10, 0, 0, 0, 2, 0x65, 0x88]
    );
    assert_eq!((run.tracks(), run.repairs()), (1, vec![Repair::StartCodes]));
}

#[test]
fn enhanced_headers_of_the_same_codecs_are_taken() {
    let mut run = Run::default();
    let mut video = |data: &[&[u8]]| {
        let data = data.concat().into();
        run.push(Message::Video {
            timestamp_ms: 0,
            data,
        })
        .expect("valid");
    };
    video(&[&[0x90], b"avc1", FILM]);
    video(&[&[0x91], b"avc1", &[0, 0, 33], IDR]);
    video(&[&[0xA7], &[2, 1, 2, 3, 0x03], b"avc1", SLICE]); // a nanosecond modifier in front
    video(&[&[0x94], b"avc1", &[2, 0, 0]]); // colour metadata
    video(&[&[0x92], b"avc1"]);
    for data in [
        [&[0x90][..], b"mp4a", STEREO_48],
        [&[0x91], b"mp4a", &[1, 2]],
    ] {
        let data = data.concat().into();
        run.push(Message::Audio {
            timestamp_ms: 0,
            data,
        })
        .expect("valid");
    }
    assert_eq!(run.samples(VIDEO_TRACK).len(), 2);
    assert_eq!(run.samples(AUDIO_TRACK).len(), 1);
}

#[test]
fn other_codecs_are_refused_with_what_to_set() {
    use MediaKind::{Audio, Video};
    for (kind, data, name) in [
        (Video, &b"\x90vp08"[..], "VP8"),
        (Video, b"\x90vvc1", "VVC"),
        (Video, b"\x91xyz\n", "xyz"),
        (Video, b"\x12\0", "H.263"),
        (Video, b"\x1D\0\0\0\0", "AV1"),
        (Audio, b"\x2F\0", "MP3"),
        (Audio, b"\xB2\0", "Speex"),
        (Audio, b"\x90ac-3", "AC-3"),
        (Audio, b"\x90ec-3", "E-AC-3"),
        (Audio, b"\x91fLaC", "FLAC"),
        (Audio, b"\x91.mp3", "MP3"),
        (Audio, b"\x95\x01ac-3\0\0\0\x01", "AC-3"),
    ] {
        let data = Bytes::from_static(data);
        let message = match kind {
            Video => Message::Video {
                timestamp_ms: 0,
                data,
            },
            Audio => Message::Audio {
                timestamp_ms: 0,
                data,
            },
        };
        let error = Run::default().push(message).expect_err("not taken");
        assert_eq!(error.fault(), Fault::PeerUnsupported);
        let text = error.to_string();
        assert!(
            text.contains(name) && text.contains("in OBS choose"),
            "{text}"
        );
    }
}

#[test]
fn malformed_bodies_are_the_publishers_fault() {
    for data in [
        &[0x17][..],
        &[0x17, 1, 0],
        &[0x17, 9, 0, 0, 0],
        &[0x17, 0, 0, 0, 0, 1, 2],
        &[0x90, 1],
    ] {
        let data = Bytes::from_static(data);
        let error = Run::default()
            .push(Message::Video {
                timestamp_ms: 0,
                data,
            })
            .expect_err("cut");
        assert_eq!(error.fault(), Fault::PeerMisbehaved, "{error}");
    }
    let mut run = Run::default();
    run.video(0, 0, 0, FILM);
    let data = Bytes::from_static(&[0x17, 1, 0, 0, 0, 0, 0, 9, 9, 0x65]);
    let error = run
        .push(Message::Video {
            timestamp_ms: 0,
            data,
        })
        .expect_err("cut");
    assert!(matches!(error, Error::Nal(_)));
    let command = Bytes::from_static(&[0x57, 0]);
    run.push(Message::Video {
        timestamp_ms: 0,
        data: command,
    })
    .expect("command frame");
}

#[test]
fn metadata_declares_the_rate_where_the_stream_does_not() {
    let mut run = Run::default();
    run.push(Message::Metadata {
        frame_rate_millihertz: Some(29_970),
        width: None,
        height: None,
    })
    .expect("hint");
    run.video(0, 0, 0, OPENH264);
    for n in 0..20_u32 {
        run.video(n * 1_001 / 30, 1, 0, IDR);
    }
    assert_eq!(run.rates(), [FrameRate::new(30_000, 1_001).expect("valid")]);
    let first = run.samples(VIDEO_TRACK)[0].dts.get();
    for (n, sample) in (0_i64..).zip(run.samples(VIDEO_TRACK)) {
        assert_eq!(sample.dts.get(), first + n * 3_003);
    }
}

fn any_message() -> impl Strategy<Value = (Message, u32)> {
    let header = prop_oneof![
        Just((true, [&[0x17, 0, 0, 0, 0], FILM].concat())),
        Just((true, [&[0x17, 0, 0, 0, 0], OPENH264].concat())),
        Just((true, [&[0x17, 1, 0, 0, 40], IDR].concat())),
        Just((true, [&[0x27, 1, 0xFF, 0xFF, 0xB0], SLICE].concat())),
        Just((false, [&[0xAF, 0], STEREO_48].concat())),
        Just((false, [&[0xAF, 0], STEREO_44].concat())),
        Just((false, vec![0xAF, 1, 5])),
        (any::<bool>(), proptest::collection::vec(any::<u8>(), 0..40)),
    ];
    let stamp = prop_oneof![0_u32..5_000, any::<u32>()];
    (header, stamp, 0_u32..5_000).prop_map(|((is_video, data), timestamp_ms, wait_ms)| {
        let data = data.into();
        let message = if is_video {
            Message::Video { timestamp_ms, data }
        } else {
            Message::Audio { timestamp_ms, data }
        };
        (message, wait_ms)
    })
}

/// However long, what was not sent is counted once, of either track.
#[test]
fn gap_is_counted_whatever_its_length() {
    for seconds in [2_u32, 4, 30] {
        let mut run = broadcast(0, 20);
        let before = run.repairs().len();
        let ms = 20_000 + seconds * 1_000;
        run.now_ms = i64::from(ms);
        run.video(ms, 1, 67, IDR);
        run.audio(ms, 1, &[1, 2, 3]);
        let gap = |repair: &Repair| match repair {
            Repair::Gap { kind, samples } => Some((*kind, *samples)),
            _ => None,
        };
        let gaps: Vec<_> = run.repairs()[before..].iter().filter_map(gap).collect();
        let expected = u64::from(seconds) * 30;
        let [(MediaKind::Video, pictures), (MediaKind::Audio, sound)] = gaps[..] else {
            panic!("{seconds}: {gaps:?}");
        };
        assert!(pictures.abs_diff(expected) <= 1, "{seconds}: {pictures}");
        assert!(
            sound.abs_diff(u64::from(seconds) * 48_000 / 1_024) <= 2,
            "{sound}"
        );
    }
}

proptest! {
    #[test]
    fn any_row_of_messages_keeps_the_promises(messages in proptest::collection::vec(any_message(), 0..200)) {
        let mut run = Run::default();
        for (message, wait_ms) in messages {
            run.now_ms += i64::from(wait_ms);
            let _ = run.push(message);
        }
        prop_assert_eq!(check_invariants(&run.outputs), Ok(()));
    }
}

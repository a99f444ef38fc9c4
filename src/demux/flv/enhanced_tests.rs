//! What Enhanced RTMP adds: codecs, modifiers, several tracks.

use super::*;
use crate::codec::opus;
use crate::demux::{Fault, check_invariants};

/// x265 Main, 322x182, 29.97 fps declared.
const HVCC: &[u8] = &[
    0x01, 0x01, 0x60, 0x00, 0x00, 0x00, 0x90, 0x00, 0x00, 0x00, 0x00, 0x00, 0x3c, 0xf0, 0x00, 0xfc,
    0xfd, 0xf8, 0xf8, 0x00, 0x00, 0x0f, 0x03, 0xa0, 0x00, 0x01, 0x00, 0x18, 0x40, 0x01, 0x0c, 0x01,
    0xff, 0xff, 0x01, 0x60, 0x00, 0x00, 0x03, 0x00, 0x90, 0x00, 0x00, 0x03, 0x00, 0x00, 0x03, 0x00,
    0x3c, 0x95, 0x98, 0x09, 0xa1, 0x00, 0x01, 0x00, 0x2c, 0x42, 0x01, 0x01, 0x01, 0x60, 0x00, 0x00,
    0x03, 0x00, 0x90, 0x00, 0x00, 0x03, 0x00, 0x00, 0x03, 0x00, 0x3c, 0xa0, 0x0a, 0x48, 0x0b, 0x9c,
    0x95, 0x96, 0x56, 0x69, 0x24, 0xca, 0xf0, 0xe6, 0xa0, 0x20, 0x20, 0x3c, 0x20, 0x00, 0x00, 0x7d,
    0x20, 0x00, 0x0e, 0xa6, 0x01, 0xa2, 0x00, 0x01, 0x00, 0x07, 0x44, 0x01, 0xc1, 0x72, 0xb4, 0x62,
    0x40,
];
/// libaom, 640x360.
const AV1C: &[u8] = &[
    0x81, 0x01, 0x0C, 0x00, 0x0A, 0x0E, 0x00, 0x00, 0x00, 0x0C, 0xC4, 0xFF, 0x67, 0x36, 0xBE, 0x44,
    0x04, 0x04, 0x04, 0x10,
];
/// libvpx, 640x360.
const VP9_KEY: &[u8] = &[0x82, 0x49, 0x83, 0x42, 0x40, 0x27, 0xF0, 0x16, 0x76, 0x04];
const VP9_INTER: &[u8] = &[0x86, 0, 0x40];
const VPCC: &[u8] = &[0, 31, 0x82, 1, 1, 1, 0, 0];
const OPUS_HEAD: &[u8] = b"OpusHead\x01\x02\x38\x01\x80\xBB\x00\x00\x00\x00\x00";
const IDR: &[u8] = &[0, 0, 0, 4, 19 << 1, 1, 0xA0, 0x80];
const CRA: &[u8] = &[0, 0, 0, 4, 21 << 1, 1, 0xA0, 0x80];
const TRAIL: &[u8] = &[0, 0, 0, 4, 1 << 1, 1, 0xD0, 0x80];

/// A demuxer with all that it said.
#[derive(Default)]
struct Run {
    demuxer: Demuxer,
    outputs: Vec<Output>,
}

impl Run {
    fn push(&mut self, message: Message) -> Result<(), Error> {
        let result = self
            .demuxer
            .push(message, WallTime::from_micros(1_795_000_000_000_000));
        self.outputs
            .extend(std::iter::from_fn(|| self.demuxer.poll_output()));
        assert_eq!(check_invariants(&self.outputs), Ok(()));
        result
    }

    fn video(&mut self, timestamp_ms: u32, parts: &[&[u8]]) -> Result<(), Error> {
        let data = parts.concat().into();
        self.push(Message::Video { timestamp_ms, data })
    }

    fn audio(&mut self, timestamp_ms: u32, parts: &[&[u8]]) -> Result<(), Error> {
        let data = parts.concat().into();
        self.push(Message::Audio { timestamp_ms, data })
    }

    fn samples(&self, of: TrackId) -> Vec<&Sample> {
        let sample = |output: &'_ Output| match output {
            Output::Sample { track, .. } => *track == of,
            _ => false,
        };
        let kept = self.outputs.iter().filter(|output| sample(output));
        kept.filter_map(|output| match output {
            Output::Sample { sample, .. } => Some(sample),
            _ => None,
        })
        .collect()
    }

    fn codecs(&self) -> Vec<&CodecConfig> {
        let track = |output: &'_ Output| matches!(output, Output::Track(_));
        let kept = self.outputs.iter().filter(|output| track(output));
        kept.filter_map(|output| match output {
            Output::Track(info) => Some(&info.codec),
            _ => None,
        })
        .collect()
    }

    fn dropped(&self) -> Vec<DropReason> {
        let reason = |output: &Output| match output {
            Output::Repair(Repair::Dropped { reason, .. }) => Some(*reason),
            _ => None,
        };
        self.outputs.iter().filter_map(reason).collect()
    }
}

#[test]
fn hevc_is_taken_with_and_without_composition_times() {
    let mut run = Run::default();
    run.video(0, &[&[0x90], b"hvc1", HVCC]).expect("header");
    run.video(0, &[&[0xA3], b"hvc1", TRAIL]).expect("too early");
    run.video(0, &[&[0x91], b"hvc1", &[0, 0, 67], IDR])
        .expect("frames");
    run.video(33, &[&[0xA1], b"hvc1", &[0xFF, 0xFF, 0xDF], TRAIL])
        .expect("frames");
    run.video(67, &[&[0xA3], b"hvc1", TRAIL]).expect("frames");
    run.video(100, &[&[0x93], b"hvc1", CRA]).expect("frames");
    run.video(133, &[&[0x92], b"hvc1"]).expect("end");
    run.video(133, &[&[0x94], b"hvc1", &[2, 0, 0]])
        .expect("colour");
    let [CodecConfig::Hevc(config)] = run.codecs()[..] else {
        panic!("{:?}", run.codecs());
    };
    assert_eq!((config.dimensions.width, config.level), (322, 60));
    let samples = run.samples(VIDEO_TRACK);
    let keyframes: Vec<bool> = samples.iter().map(|s| s.keyframe).collect();
    assert_eq!(keyframes, [true, false, false, true]);
    let offsets = samples.iter().map(|s| s.composition_offset().get());
    assert_eq!(offsets.collect::<Vec<_>>(), [6_006, -3_003, 0, 0]);
    assert_eq!(run.dropped(), [DropReason::NoKeyFrame]);
    assert_eq!(
        run.codecs()[0].declared_rate(),
        FrameRate::new(30_000, 1_001)
    );
}

#[test]
fn hevc_under_its_old_number_is_taken_too() {
    let mut run = Run::default();
    run.video(0, &[&[0x1C, 0, 0, 0, 0], HVCC]).expect("header");
    run.video(0, &[&[0x1C, 1, 0, 0, 0], IDR]).expect("frames");
    assert!(matches!(run.codecs()[..], [CodecConfig::Hevc(_)]));
    assert_eq!(run.samples(VIDEO_TRACK).len(), 1);
}

#[test]
fn av1_loses_its_delimiters_and_keeps_its_key_frames() {
    let mut run = Run::default();
    run.video(0, &[&[0x90], b"av01", AV1C]).expect("header");
    run.video(0, &[&[0xA1], b"av01", &[0x12, 0, 0x32, 1, 0x30]])
        .expect("too early");
    run.video(
        0,
        &[&[0x91], b"av01", &[0x12, 0], &AV1C[4..], &[0x32, 1, 0x10]],
    )
    .expect("frames");
    run.video(33, &[&[0xA1], b"av01", &[0x32, 1, 0x30]])
        .expect("frames");
    run.video(67, &[&[0xA1], b"av01", &[0x12, 0, 0x2A, 1, 0]])
        .expect("no frame");
    let cut = run.video(100, &[&[0xA1], b"av01", &[0x32, 9, 0x30]]);
    assert_eq!(cut.map_err(|e| e.fault()), Err(Fault::PeerMisbehaved));
    assert!(matches!(run.codecs()[..], [CodecConfig::Av1(_)]));
    let samples = run.samples(VIDEO_TRACK);
    let data: Vec<&[u8]> = samples.iter().map(|s| &s.data[..]).collect();
    assert_eq!(
        data,
        [
            &[&AV1C[4..], &[0x32, 1, 0x10]].concat()[..],
            &[0x32, 1, 0x30]
        ]
    );
    assert!(samples[0].keyframe && !samples[1].keyframe);
    assert_eq!(run.dropped(), [DropReason::NoKeyFrame, DropReason::Empty]);
}

#[test]
fn a_record_without_a_sequence_header_leaves_it_to_the_first_key_frame() {
    let mut run = Run::default();
    let key = [&AV1C[4..], &[0x32, 1, 0x10]].concat();
    for _ in 0..2 {
        run.video(0, &[&[0x90], b"av01", &AV1C[..4]])
            .expect("header");
        run.video(0, &[&[0x91], b"av01", &key]).expect("frames");
    }
    let [CodecConfig::Av1(config)] = run.codecs()[..] else {
        panic!("{:?}", run.codecs());
    };
    assert_eq!(config.av1c[..], *AV1C);
}

#[test]
fn the_size_of_vp9_is_that_of_its_key_frames() {
    let mut run = Run::default();
    run.video(0, &[&[0x90], b"vp09", VPCC]).expect("header");
    assert_eq!(run.codecs().len(), 0);
    run.video(0, &[&[0x91], b"vp09", VP9_KEY]).expect("frames");
    run.video(33, &[&[0xA1], b"vp09", VP9_INTER])
        .expect("frames");
    run.video(33, &[&[0x90], b"vp09", VPCC]).expect("again");
    run.video(67, &[&[0x93], b"vp09", VP9_KEY]).expect("frames");
    let mut wider = VP9_KEY.to_vec();
    wider[5] += 0x10; // 256 pixels more across
    run.video(100, &[&[0x91], b"vp09", &wider]).expect("frames");
    let sizes: Vec<_> = run.codecs().iter().map(|c| c.dimensions()).collect();
    let size = |width, height| Some(crate::codec::video::Dimensions { width, height });
    assert_eq!(sizes, [size(640, 360), size(640 + 256, 360)]);
    let CodecConfig::Vp9(config) = run.codecs()[0] else {
        panic!("not VP9");
    };
    assert_eq!(config.level, 31, "the record's");
    let keyframes: Vec<bool> = run
        .samples(VIDEO_TRACK)
        .iter()
        .map(|s| s.keyframe)
        .collect();
    assert_eq!(keyframes, [true, false, true, true]);
}

#[test]
fn opus_is_as_long_as_its_packets_say() {
    let mut run = Run::default();
    run.audio(0, &[&[0x90], b"Opus", OPUS_HEAD])
        .expect("header");
    run.audio(0, &[&[0x94], b"Opus", &[1, 2]])
        .expect("channels");
    for (n, packet) in [&[0xFC_u8, 1][..], &[0xFC, 2], &[0xF4, 3], &[0xFC, 4]]
        .iter()
        .enumerate()
    {
        run.audio([0, 20, 40, 50][n], &[&[0x91], b"Opus", packet])
            .expect("packets");
    }
    run.audio(70, &[&[0x91], b"Opus", &[0x1B, 0]])
        .expect("no packet");
    let [CodecConfig::Opus(config)] = run.codecs()[..] else {
        panic!("{:?}", run.codecs());
    };
    assert_eq!((config.channels, config.pre_skip), (2, 312));
    let samples = run.samples(AUDIO_TRACK);
    let lengths: Vec<u64> = samples.iter().map(|s| s.duration.get()).collect();
    assert_eq!(lengths, [960, 960, 480, 960]);
    let first = samples[0].dts.get();
    let starts: Vec<i64> = samples.iter().map(|s| s.dts.get() - first).collect();
    assert_eq!(starts, [0, 960, 1_920, 2_400]);
    assert_eq!(run.dropped(), [DropReason::Empty]);
}

#[test]
fn opus_without_a_header_is_as_its_first_packet_says() {
    let mut run = Run::default();
    run.audio(0, &[&[0x91], b"Opus", &[0xF8, 1]])
        .expect("dropped");
    run.audio(0, &[&[0x90], b"Opus"]).expect("an empty header");
    run.audio(0, &[&[0x91], b"Opus", &[0xF8, 1]])
        .expect("packet");
    run.audio(20, &[&[0x91], b"Opus", &[0xF8, 1]])
        .expect("packet");
    let mono = opus::Config {
        channels: 1,
        pre_skip: 312,
        input_sample_rate: 48_000,
    };
    assert_eq!(run.codecs(), [&CodecConfig::Opus(mono)]);
    assert_eq!(run.dropped(), [DropReason::NoSequenceHeader]);
    assert_eq!(run.samples(AUDIO_TRACK).len(), 2);
}

#[test]
fn surround_of_opus_is_refused_with_what_to_set() {
    let mut head = OPUS_HEAD.to_vec();
    (head[9], head[18]) = (6, 1);
    let error = Run::default().audio(0, &[&[0x90], b"Opus", &head]);
    let error = error.expect_err("six channels");
    assert_eq!(error.fault(), Fault::PeerUnsupported);
    assert!(error.to_string().contains("Channels: Stereo"), "{error}");
}

#[test]
fn modifiers_are_passed_over_whatever_their_length() {
    let mut run = Run::default();
    let long = [&[0xFF, 0x01, 0x03][..], &[7; 260], &[0x11]].concat();
    run.video(0, &[&[0x97], &[2, 0, 1, 2, 0x00], b"hvc1", HVCC])
        .expect("a nanosecond modifier");
    // two modifiers, the second one long, then coded frames
    run.video(
        0,
        &[&[0x97, 2, 0, 1, 2, 0x07], &long, b"hvc1", &[0, 0, 0], IDR],
    )
    .expect("two");
    assert_eq!(run.samples(VIDEO_TRACK).len(), 1);
    let endless = [&[0x97][..], &[0, 9, 7].repeat(40)].concat();
    let error = Run::default().video(0, &[&endless]).expect_err("endless");
    assert_eq!(error.fault(), Fault::PeerMisbehaved);
    let cut = Run::default().video(0, &[&[0x97, 9, 1]]);
    assert!(matches!(cut, Err(Error::Cut { needed: 10, .. })), "{cut:?}");
}

#[test]
fn of_several_tracks_the_first_is_taken_and_the_rest_told_once() {
    let size = |data: &[u8]| u32::try_from(data.len()).expect("short").to_be_bytes();
    let sized = |data: &[u8]| [&size(data)[1..], data].concat();
    let mut run = Run::default();
    // one track, the default one
    run.video(0, &[&[0x96, 0x00], b"hvc1", &[0], HVCC])
        .expect("header");
    assert_eq!(run.dropped(), []);
    // one track, another one: what its codec is matters to nobody
    run.video(0, &[&[0x96, 0x00], b"vvc1", &[1], b"whatever"])
        .expect("ignored");
    // many tracks of one codec
    let frames = [&[0, 0, 67], IDR].concat();
    let many = [&[1_u8][..], &sized(b"xyz"), &[0], &sized(&frames)].concat();
    run.video(0, &[&[0x96, 0x11], b"hvc1", &many])
        .expect("frames");
    // many tracks of many codecs
    let many = [&b"hvc1\0"[..], &sized(TRAIL), b"av01\x01", &sized(b"xyz")].concat();
    run.video(33, &[&[0xA6, 0x23], &many]).expect("frames");
    for (timestamp, track) in [(0, 0), (0, 1), (21, 0), (21, 1)] {
        let header: &[u8] = if timestamp == 0 {
            &[0x11, 0x90]
        } else {
            &[0x21, 0]
        };
        let kind = u8::from(timestamp > 0);
        run.audio(timestamp, &[&[0x95, kind], b"mp4a", &[track], header])
            .expect("sound");
    }
    assert_eq!(run.samples(VIDEO_TRACK).len(), 2);
    assert_eq!(run.samples(VIDEO_TRACK)[0].data[..], *IDR);
    assert_eq!(run.samples(AUDIO_TRACK).len(), 1);
    assert_eq!(run.dropped(), [DropReason::OtherTrack; 2]);
    assert_eq!(run.codecs().len(), 2);
}

#[test]
fn tracks_that_do_not_add_up_are_the_publishers_fault() {
    for parts in [
        &[0x96_u8][..],
        &[0x96, 0x36, b'h', b'v', b'c', b'1', 0],
        &[0x96, 0x06, b'h', b'v', b'c', b'1', 0],
        &[0x96, 0x07, b'h', b'v', b'c', b'1', 0],
        &[0x96, 0x11, b'h', b'v', b'c', b'1', 0, 0, 0, 9, 1],
        &[0x96, 0x11, b'h', b'v', b'c', b'1', 3, 0, 0, 1, 1, 2],
        &[0x96, 0x21, b'h', b'v', b'c'],
    ] {
        let error = Run::default().video(0, &[parts]).expect_err("malformed");
        assert_eq!(
            error.fault(),
            Fault::PeerMisbehaved,
            "{parts:02x?}: {error}"
        );
    }
}

#[test]
fn a_header_for_transport_streams_is_refused_by_name() {
    let error = Run::default().video(0, &[&[0x95], b"av01", &[0x80]]);
    let error = error.expect_err("not taken");
    assert_eq!(error.fault(), Fault::PeerUnsupported);
    assert!(error.to_string().contains("MPEG-2"), "{error}");
}

#[test]
fn frames_of_another_codec_than_the_header_are_dropped() {
    let mut run = Run::default();
    run.video(0, &[&[0x90], b"hvc1", HVCC]).expect("header");
    run.video(0, &[&[0x91], b"avc1", &[0, 0, 0, 0, 0, 0, 2, 0x65, 0x88]])
        .expect("dropped");
    run.video(0, &[&[0x91], b"hvc1", &[0, 0, 0], IDR])
        .expect("frames");
    assert_eq!(run.samples(VIDEO_TRACK).len(), 1);
    assert_eq!(run.dropped(), [DropReason::NoSequenceHeader]);
}

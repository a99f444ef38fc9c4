use std::num::NonZeroU32;
use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::codec::video::{Colour, Dimensions, PixelAspect};
use crate::codec::{aac, av1, h264, hevc, opus, vp9};
use crate::media::CodecConfig;
use crate::time::{FrameRate, Grid, Span, Ticks, Timescale};
use crate::transcode::conductor::Shown;
use crate::transcode::ladder::{Machine, Source, VideoSource, plan};
use crate::transcode::template::{SHIPPED, Template};

fn bytes() -> impl Strategy<Value = Bytes> {
    prop::collection::vec(any::<u8>(), 0..40).prop_map(Bytes::from)
}

fn sample() -> impl Strategy<Value = Sample> {
    (
        any::<i64>(),
        any::<i64>(),
        any::<u64>(),
        any::<bool>(),
        bytes(),
    )
        .prop_map(|(dts, pts, duration, keyframe, data)| Sample {
            dts: Ticks::new(dts),
            pts: Ticks::new(pts),
            duration: Span::new(duration),
            keyframe,
            data,
        })
}

fn rate() -> impl Strategy<Value = FrameRate> {
    (1_u32.., 1_u32..).prop_map(|(num, den)| FrameRate::new(num, den).expect("not zero"))
}

fn codec() -> impl Strategy<Value = CodecConfig> {
    prop_oneof![4 => codec_but_hevc(), 1 => hevc()]
}

fn hevc() -> impl Strategy<Value = CodecConfig> {
    let numbers = (any::<[u8; 10]>(), any::<[u32; 3]>(), any::<bool>(), bytes());
    (numbers, prop::option::of(rate())).prop_map(|((small, wide, flag, hvcc), declared_rate)| {
        let [a, b, c, d, constraints @ ..] = small;
        let [compatibility, width, height] = wide;
        CodecConfig::Hevc(hevc::Config {
            hvcc,
            profile_space: a,
            high_tier: flag,
            profile: b,
            compatibility,
            constraints,
            level: c,
            bit_depth: d,
            dimensions: Dimensions { width, height },
            pixel_aspect: PixelAspect {
                width: NonZeroU32::MIN,
                height: NonZeroU32::MIN.saturating_add(width),
            },
            colour: Colour {
                primaries: d,
                transfer: c,
                matrix: b,
                full_range: !flag,
            },
            declared_rate,
        })
    })
}

fn codec_but_hevc() -> impl Strategy<Value = CodecConfig> {
    let numbers = (
        any::<[u8; 4]>(),
        any::<[u32; 2]>(),
        any::<bool>(),
        1_u32..,
        bytes(),
    );
    (0..5, numbers, prop::option::of(rate())).prop_map(
        |(kind, ([a, b, c, d], [width, height], flag, one, data), declared_rate)| {
            let dimensions = Dimensions { width, height };
            let colour = Colour {
                primaries: a,
                transfer: b,
                matrix: c,
                full_range: flag,
            };
            let aspect = NonZeroU32::new(one).expect("not zero");
            match kind {
                0 => CodecConfig::H264(h264::Config {
                    avcc: data,
                    profile: a,
                    compatibility: b,
                    level: c,
                    dimensions,
                    pixel_aspect: PixelAspect {
                        width: aspect,
                        height: NonZeroU32::MIN,
                    },
                    colour,
                    declared_rate,
                }),
                1 => CodecConfig::Vp9(vp9::Config {
                    profile: a,
                    level: b,
                    bit_depth: c,
                    chroma_subsampling: d,
                    dimensions,
                    colour,
                }),
                2 => CodecConfig::Av1(av1::Config {
                    av1c: data,
                    profile: a,
                    level_idx: b,
                    high_tier: flag,
                    bit_depth: c,
                    dimensions,
                    colour,
                }),
                3 => CodecConfig::Aac(aac::Config {
                    asc: data,
                    object_type: a,
                    sample_rate: one,
                    channels: b,
                    frame_samples: width,
                }),
                _ => CodecConfig::Opus(opus::Config {
                    channels: a,
                    pre_skip: u16::from(b),
                    input_sample_rate: width,
                }),
            }
        },
    )
}

fn rendition() -> impl Strategy<Value = Rendition> {
    (
        "[a-z][a-z0-9]{0,20}",
        1_u32..,
        codec(),
        prop::option::of(rate()),
        any::<u64>(),
    )
        .prop_map(|(name, scale, codec, frame_rate, target_bps)| Rendition {
            name: name.parse().expect("legal"),
            timescale: Timescale::new(scale).expect("not zero"),
            codec,
            frame_rate,
            target_bps,
        })
}

fn any_plan() -> impl Strategy<Value = Message> {
    (
        0..SHIPPED.len(),
        16_u32..4_000,
        16_u32..4_000,
        1_u32..100,
        any::<u64>(),
        any::<bool>(),
    )
        .prop_map(|(index, width, height, fps, first, has_video)| {
            let template = Template::named(SHIPPED[index].0).expect("shipped");
            let video = VideoSource {
                dimensions: Dimensions { width, height },
                pixel_aspect: PixelAspect::SQUARE,
                rate: FrameRate::new(fps, 1).expect("not zero"),
            };
            let source = Source {
                video: has_video.then_some(video),
                audio_rate: Some(44_100),
            };
            let grid = Grid::new(NonZeroU32::new(2_000).expect("not zero"));
            let plan =
                plan(&template, &source, Machine { cores: fps }, grid, 333).expect("a ladder");
            Message::Plan {
                plan: Box::new(plan),
                first: SegmentNumber::new(first),
                absence: Absence {
                    hold: Duration::from_millis(first / 2),
                    slate: Bytes::from(vec![7; fps as usize]),
                },
                resume: (0..index)
                    .map(|n| Ticks::new(i64::from(fps) << n))
                    .collect(),
            }
        })
}

fn conducted() -> impl Strategy<Value = Conducted> {
    let shown = prop::sample::select(vec![Shown::Source, Shown::Held, Shown::Slate]);
    (shown, any::<[u64; 5]>()).prop_map(|(shown, [a, b, c, d, e])| Conducted {
        shown,
        held_slots: a,
        slate_slots: b,
        slate_ms: c,
        dropped_frames: d,
        moves: e,
    })
}

fn message() -> impl Strategy<Value = Message> {
    let id = |id| TrackId::new(NonZeroU32::new(id).expect("not zero"));
    prop_oneof![
        any_plan(),
        (1_u32.., 1_u32.., codec()).prop_map(move |(track, scale, codec)| Message::Track(
            TrackInfo {
                id: id(track),
                timescale: Timescale::new(scale).expect("not zero"),
                codec,
            }
        )),
        (1_u32.., sample()).prop_map(move |(track, sample)| Message::Source {
            track: id(track),
            sample
        }),
        prop::collection::vec(rendition(), 0..8).prop_map(Message::Opened),
        (0..MAX_RENDITIONS, sample())
            .prop_map(|(rendition, sample)| Message::Encoded { rendition, sample }),
        Just(Message::Finished),
        any::<i64>().prop_map(|us| Message::Clock(WallTime::from_micros(us))),
        Just(Message::Detach),
        conducted().prop_map(Message::Conducted),
        (0..MAX_RENDITIONS, any::<u64>(), any::<bool>()).prop_map(|(rendition, until, soon)| {
            Message::Rest {
                rendition,
                until: SegmentNumber::new(until),
                soon,
            }
        }),
        any::<(u32, u32, u64)>().prop_map(|(resting, late_ms, left_frames)| Message::Load(Load {
            resting,
            late_ms,
            left_frames
        })),
        Just(Message::Alive),
    ]
}

proptest! {
    #[test]
    fn parsing_is_the_inverse_of_writing_in_any_split(
        messages in prop::collection::vec(message(), 1..6), step in 1_usize..60,
    ) {
        let mut written = BytesMut::new();
        for message in &messages {
            message.write(&mut written).expect("short");
        }
        let (mut read, mut found) = (BytesMut::new(), Vec::new());
        for piece in written.chunks(step) {
            read.extend_from_slice(piece);
            while let Some(message) = Message::parse(&mut read).expect("valid") {
                found.push(message);
            }
        }
        prop_assert!(read.is_empty());
        prop_assert_eq!(found, messages);
    }

    #[test]
    fn a_damaged_frame_never_panics(message in message(), at in any::<prop::sample::Index>(), value in any::<u8>()) {
        let mut bytes = BytesMut::new();
        message.write(&mut bytes).expect("short");
        let at = at.index(bytes.len());
        bytes[at] = value;
        let _ = Message::parse(&mut bytes);
    }
}

#[test]
fn an_endless_body_is_refused_before_it_is_read() {
    let mut bytes = BytesMut::from(&[3, 0xff, 0xff, 0xff, 0xff][..]);
    let found = Message::parse(&mut bytes);
    assert_eq!(found, Err(Error::TooLong { bytes: 0xffff_ffff }));
    let mut bytes = BytesMut::from(&[13, 0, 0, 0, 0][..]);
    assert_eq!(Message::parse(&mut bytes), Err(Error::Kind { kind: 13 }));
}

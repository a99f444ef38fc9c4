//! How many times faster than real time packaging is: samples in, parts, segments and manifests out.
//!
//! Enters: ten minutes of invented samples of one 5 Mbit/s rendition, 30 frames per second
//! Leaves: the ratio on one core, on standard output; failure below 500
//! Never:  disk, network, other threads
//! Time:   the machine's monotonic clock around the loop
//! Spec:   none

use std::hint::black_box;
use std::process::ExitCode;
use std::time::Instant;

use bytes::Bytes;
use headwater::codec::h264;
use headwater::codec::video::{Colour, Dimensions, PixelAspect};
use headwater::id::PeriodId;
use headwater::media::{CodecConfig, Rendition, Sample};
use headwater::package::{Config, Output, Packager, dash, hls};
use headwater::time::{FrameRate, Span, Ticks, Timescale};

/// What the product promises.
const MIN_RATIO: f64 = 500.0;
const FIRST: u64 = 897_600_000;
const SECONDS: u64 = 600;
/// Bytes of one frame of 5 Mbit/s at 30 frames per second.
const FRAME_BYTES: usize = 5_000_000 / 8 / 30;

fn rendition() -> Rendition {
    let avcc = [1, 0x64, 0, 0x1f, 0xff, 0xe1, 0, 4, 0x67, 0x64, 0, 0x1f];
    Rendition {
        name: "v720".parse().expect("valid"),
        timescale: Timescale::VIDEO_90K,
        codec: CodecConfig::H264(h264::Config {
            avcc: avcc.to_vec().into(),
            profile: 0x64,
            compatibility: 0,
            level: 0x1f,
            dimensions: Dimensions {
                width: 1_280,
                height: 720,
            },
            pixel_aspect: PixelAspect::SQUARE,
            colour: Colour::UNSPECIFIED,
            declared_rate: None,
        }),
        frame_rate: FrameRate::new(30, 1),
        target_bps: 5_000_000,
    }
}

/// Packages and renders everything; bytes of media and of manifests that came out.
fn package(config: &Config, samples: impl Iterator<Item = Sample>) -> (u64, usize) {
    let period = PeriodId::new(FIRST);
    let mut packager = Packager::new(config, period, vec![rendition()]).expect("valid");
    let (mut media, mut text) = (0, 0);
    for sample in samples {
        packager.push(0, sample).expect("accepted");
        while let Some(output) = packager.poll_output() {
            match black_box(output) {
                Output::Segment { payload, .. } => media += payload.len(),
                Output::WindowChanged(snapshot) => {
                    let texts = [
                        hls::media::render(&snapshot, 0),
                        hls::multivariant::render(&snapshot),
                        dash::mpd::render(&snapshot),
                    ];
                    text += black_box(texts)
                        .iter()
                        .flatten()
                        .map(String::len)
                        .sum::<usize>();
                }
                _ => {}
            }
        }
    }
    (media, text)
}

#[expect(clippy::print_stdout, reason = "the ratio is what a bench is for")]
fn main() -> ExitCode {
    let data = Bytes::from(vec![0x5a; FRAME_BYTES]);
    let sample = |frame: u64| {
        let dts = Ticks::new(i64::try_from(FIRST * 180_000 + frame * 3_000).expect("fits"));
        Sample {
            dts,
            pts: dts,
            duration: Span::new(3_000),
            keyframe: frame.is_multiple_of(60),
            data: data.clone(),
        }
    };
    let mut passed = true;
    for low_latency in [false, true] {
        let config = Config {
            low_latency: low_latency.into(),
            ..Config::default()
        };
        let begin = Instant::now();
        let (media, text) = package(&config, (0..SECONDS * 30).map(sample));
        let elapsed = begin.elapsed();
        let ratio = f64::from(u32::try_from(SECONDS).expect("small")) / elapsed.as_secs_f64();
        println!(
            "package: low_latency={low_latency} {SECONDS} s of 5 Mbit/s in {elapsed:.1?}: {ratio:.0}x real \
             time, {media} bytes of media, {text} of manifests"
        );
        passed &= ratio > MIN_RATIO;
    }
    if passed {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

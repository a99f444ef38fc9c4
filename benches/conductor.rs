//! What the conductor and the worker's process cost: CPU of a transcoded broadcast, server side and worker,
//! beside one GStreamer pipeline that decodes the same source into the same encoders and nothing else.
//!
//! Both run at once, as fast as they can, with twenty seconds of 720p30 to 720p, 480p and 360p with AAC, so that
//! what else the machine does meets both alike; at the pace of the clock a busy machine would have rungs rest. Printed are both times and their ratio: of user and system
//! time of whole process trees, the median of some runs.

#![expect(clippy::panic, reason = "a bench may fail loudly")]

#[expect(dead_code, reason = "shared with the tests, which use the rest")]
#[path = "../tests/transcode/media.rs"]
mod media;

use std::fmt::Write as _;
use std::io::Write as _;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use gst::prelude::*;
use headwater::id::SegmentNumber;
use headwater::media::CodecConfig;
use headwater::time::{FrameRate, Grid};
use headwater::transcode::ladder::{self, Machine, Plan, Source, VideoSource};
use headwater::transcode::template::{RungSize, Template};
use headwater::transcode::{Absence, Options, Output, Transcoder};

use self::media::{Clip, Item, ffmpeg};

const RUNS: usize = 5;
/// The film's colours: without them GStreamer would guess others for a smaller picture, and convert.
const COLOUR: &str = ",colorimetry=bt709,chroma-site=mpeg2,pixel-aspect-ratio=1/1";
const SECONDS: i64 = 20;
const MACHINE: Machine = Machine { cores: 5 };

fn grid() -> Grid {
    Grid::new(NonZeroU32::new(2_000).expect("not zero"))
}

fn template() -> Template {
    let mut template = Template::named("auto").expect("shipped");
    let wanted = [720, 480, 360].map(RungSize::Lines);
    let rungs = &mut template.video.rungs;
    rungs.retain(|rung| rung.max_fps <= 30 && wanted.contains(&rung.size));
    template
}

fn clip() -> Clip {
    let mut clip = Clip::film(12);
    clip.append(&Clip::film(SECONDS - 12));
    clip
}

/// The clock ticks of user and system time that this process and its ended children have used.
fn cpu_ticks() -> u64 {
    let stat = std::fs::read_to_string("/proc/self/stat").expect("/proc");
    let fields = stat.rsplit(')').next().unwrap_or("").split_whitespace();
    let times = fields.skip(11).take(4);
    times
        .map(|field| field.parse::<u64>().expect("a number"))
        .sum()
}

/// A broadcast as the server runs one.
fn ours() {
    let clip = clip();
    let options = Options {
        stream: "bench".parse().expect("legal"),
        template: template(),
        machine: MACHINE,
        grid: grid(),
        part_ms: 333,
        first: SegmentNumber::new(0),
        program: PathBuf::from(env!("CARGO_BIN_EXE_headwater")),
        absence: Absence::default(),
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let (transcoder, mut outputs) = Transcoder::start(options);
        let items = clip.at(clip.start_of_a_segment());
        tokio::spawn(async move {
            for item in items {
                let sent = match item {
                    Item::Track(info) => transcoder.track(info).await,
                    Item::Sample(track, sample) => transcoder.sample(track, sample).await,
                };
                sent.expect("alive");
            }
        });
        let mut frames = [0_i64; 4];
        while let Some(output) = outputs.next().await {
            match output {
                Output::Sample { rendition, .. } => frames[rendition] += 1,
                Output::Failed(error) => panic!("{error}"),
                _ => {}
            }
        }
        let all = 30 * SECONDS;
        assert!(frames[..3].iter().all(|count| *count == all), "{frames:?}");
    });
}

/// The plan that a broadcast of `clip` has.
fn plan(clip: &Clip) -> Plan {
    let CodecConfig::H264(config) = &clip.video.codec else {
        panic!("the film is H.264");
    };
    let source = Source {
        video: Some(VideoSource {
            dimensions: config.dimensions,
            pixel_aspect: config.pixel_aspect,
            rate: FrameRate::new(30, 1).expect("valid"),
        }),
        audio_rate: Some(48_000),
    };
    ladder::plan(&template(), &source, MACHINE, grid(), 333).expect("a ladder")
}

/// The same encoders behind one decoder, in one pipeline, with a key frame in each two seconds.
fn plain(file: &str) {
    let plan = plan(&clip());
    let video = plan.video.expect("pictures");
    let mut text = format!(
        "filesrc location={file} ! qtdemux name=d \
         d.video_0 ! queue ! h264parse ! avdec_h264 max-threads=1 ! tee name=t \
         d.audio_0 ! queue ! aacparse ! avdec_aac ! audioconvert ! audioresample \
         ! audio/x-raw,format=F32LE,rate=48000,channels=2 ! tee name=a "
    );
    let mut lanes = Vec::new();
    for (index, rung) in video.rungs.iter().enumerate() {
        if !lanes.contains(&rung.lane) {
            lanes.push(rung.lane);
            let _ = write!(
                text,
                "t. ! queue max-size-buffers=8 ! tee name=lane{} ",
                rung.lane
            );
        }
        let size = rung.dimensions;
        let scale = if size == video.canvas {
            String::new()
        } else {
            format!(
                "! videoscale add-borders=false ! video/x-raw,format=I420,width={},height={}{COLOUR} ",
                size.width, size.height
            )
        };
        let encoder = rung.encoder.replace("key-int-max=240", "key-int-max=60");
        let _ = write!(
            text,
            "lane{}. {scale}! {encoder} ! fakesink name=s{index} sync=false async=false ",
            rung.lane
        );
    }
    for rung in plan.audio.iter().flat_map(|audio| &audio.rungs) {
        let _ = write!(
            text,
            "a. ! queue ! {} ! fakesink sync=false async=false ",
            rung.encoder
        );
    }
    gst::init().expect("GStreamer");
    let pipeline = gst::parse::launch(&text).expect("a pipeline");
    pipeline.set_state(gst::State::Playing).expect("plays");
    let bus = pipeline.bus().expect("a bus");
    let limit = gst::ClockTime::from_seconds(120);
    let wanted = [gst::MessageType::Eos, gst::MessageType::Error];
    let message = bus
        .timed_pop_filtered(limit, &wanted)
        .expect("ends in time");
    assert_eq!(message.type_(), gst::MessageType::Eos, "{message:?}");
    pipeline.set_state(gst::State::Null).expect("ends");
}

/// This program again, doing `what`.
fn start(what: &str, file: &str) -> Child {
    let program = std::env::current_exe().expect("this program");
    let mut command = Command::new(program);
    command.args([what, file]).stdout(Stdio::piped());
    command.spawn().expect("starts")
}

/// The ticks that it says it has used.
fn ticks(child: Child) -> u64 {
    let output = child.wait_with_output().expect("ends");
    assert!(output.status.success(), "{}", output.status);
    let text = String::from_utf8_lossy(&output.stdout);
    text.trim().parse().expect("a number")
}

fn main() {
    let mut args = std::env::args().skip(1);
    let (what, file) = (args.next(), args.next().unwrap_or_default());
    match what.as_deref() {
        Some("ours") => ours(),
        Some("plain") => plain(&file),
        _ => return compare(),
    }
    writeln!(std::io::stdout(), "{}", cpu_ticks()).expect("stdout");
}

fn compare() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("source.mp4").display().to_string();
    let seconds = SECONDS.to_string();
    let film = media::FILM;
    let args = [
        "-stream_loop",
        "1",
        "-i",
        film,
        "-t",
        &seconds,
        "-c",
        "copy",
        "-y",
        &file,
    ];
    ffmpeg(&args);
    let mut runs = Vec::new();
    for _ in 0..RUNS {
        let (ours, plain) = (start("ours", &file), start("plain", &file));
        let (ours, plain) = (ticks(ours), ticks(plain));
        runs.push((ours * 1_000 / plain.max(1), ours, plain));
    }
    runs.sort_unstable();
    let (permille, ours, plain) = runs[RUNS / 2];
    let (least, most) = (runs[0].0, runs[RUNS - 1].0);
    writeln!(
        std::io::stdout(),
        "conductor 720p30: headwater {}.{:02} s, one pipeline {}.{:02} s of CPU for {SECONDS} s, ratio {}.{:03} \
         ({}.{:03} to {}.{:03})",
        ours / 100,
        ours % 100,
        plain / 100,
        plain % 100,
        permille / 1_000,
        permille % 1_000,
        least / 1_000,
        least % 1_000,
        most / 1_000,
        most % 1_000,
    )
    .expect("stdout");
}

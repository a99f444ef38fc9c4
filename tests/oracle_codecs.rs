//! Every codec that is taken, from a film to CMAF without being encoded anew: ffmpeg finds the codec, the
//! parameters, the access units and the pictures of the film again.
//!
//! Enters: the film clip, encoded by ffmpeg in each codec
//! Leaves: agreement of ffprobe and ffmpeg on what was packaged and what it was made of
//! Never:  network, a worker
//! Time:   the epoch timeline; the film begins with a segment
//! Spec:   [ERTMP] v2, [CMAF], [NALFF], [AV1ISOBMFF], [VP9MP4], [OPUSMP4]

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test may fail loudly"
)]

mod common;

use std::path::{Path, PathBuf};
use std::time::Duration;

use common::{film, run, run_ok, tool};
use headwater::demux::flv::{Demuxer, Message};
use headwater::demux::{self, Repair, check_invariants};
use headwater::id::PeriodId;
use headwater::media::{CodecString, MediaKind, Rendition, Sample, TrackInfo};
use headwater::package::{Config, Output, Packager};
use headwater::publish::Movie;
use headwater::time::{FrameRate, Ticks, WallTime};

/// Longer than any child process here takes, on a busy machine too.
const LIMIT: Duration = Duration::from_secs(120);
const FIRST: u64 = 897_600_000;
/// Of a segment, the default.
const SEGMENT_US: i64 = 2_000_000;

/// Encodes four seconds of the film with `arguments`.
fn encode(folder: &Path, name: &str, arguments: &str) -> PathBuf {
    let path = folder.join(format!("{name}.mp4"));
    let mut command = tool("ffmpeg", &["-v", "error", "-i"]);
    command.arg(film()).args(["-t", "4"]);
    command.args(arguments.split_whitespace()).arg(&path);
    run_ok(command, LIMIT);
    path
}

/// What a publisher of the film would be understood as.
fn demux(film: &Path) -> (TrackInfo, Vec<Sample>) {
    let movie = Movie::open(film).expect("a film");
    let begin = WallTime::from_micros(i64::try_from(FIRST).expect("small") * SEGMENT_US);
    let mut demuxer = Demuxer::new();
    let mut outputs = Vec::new();
    let mut push = |message: Message, ms: u32| {
        let now = WallTime::from_micros(begin.as_micros() + i64::from(ms) * 1_000);
        demuxer.push(message, now).expect("sound media");
        outputs.extend(std::iter::from_fn(|| demuxer.poll_output()));
    };
    let message = |kind, timestamp_ms, data| match kind {
        MediaKind::Video => Message::Video { timestamp_ms, data },
        MediaKind::Audio => Message::Audio { timestamp_ms, data },
    };
    let metadata = Message::Metadata {
        frame_rate_millihertz: Some(30_000),
        width: None,
        height: None,
    };
    push(metadata, 0);
    for (kind, header) in movie.headers() {
        push(message(kind, 0, header), 0);
    }
    let mut reader = movie.reader().expect("opens");
    for sample in movie.samples() {
        let data = reader.read(sample).expect("in the file");
        let ms = u32::try_from(sample.dts_ns / 1_000_000).expect("short");
        push(message(sample.kind, ms, movie.body(sample, &data)), ms);
    }
    assert_eq!(check_invariants(&outputs), Ok(()));
    let (mut track, mut samples) = (None, Vec::new());
    for output in outputs {
        match output {
            demux::Output::Track(info) => assert_eq!(track.replace(info), None),
            demux::Output::Sample { sample, .. } => samples.push(sample),
            demux::Output::FrameRate(_) => {}
            demux::Output::Repair(repair) => {
                assert!(matches!(repair, Repair::Nudged { .. }), "{repair:?}");
            }
        }
    }
    (track.expect("a track"), samples)
}

/// The film as CMAF: the init segment and all segments in a row.
fn package(track: &TrackInfo, samples: Vec<Sample>) -> Vec<u8> {
    let is_video = track.codec.kind() == MediaKind::Video;
    let rendition = Rendition {
        name: "copy".parse().expect("a name"),
        timescale: track.timescale,
        codec: track.codec.clone(),
        frame_rate: is_video.then(|| FrameRate::new(30, 1)).flatten(),
        target_bps: 300_000,
    };
    let period = PeriodId::new(FIRST);
    let mut packager =
        Packager::new(&Config::default(), period, vec![rendition]).expect("writable");
    let mut outputs = Vec::new();
    let reorder = samples.first().expect("some").composition_offset().get();
    for sample in samples {
        let sample = Sample {
            pts: Ticks::new(sample.pts.get() - reorder),
            ..sample
        };
        packager.push(0, sample).expect("on the grid");
        outputs.extend(std::iter::from_fn(|| packager.poll_output()));
    }
    outputs.extend(packager.finish().expect("finished"));
    let mut bytes = Vec::new();
    for output in outputs {
        match output {
            Output::InitSegment { payload, .. } | Output::Segment { payload, .. } => {
                bytes.extend_from_slice(&payload.to_bytes());
            }
            _ => {}
        }
    }
    bytes
}

/// What ffprobe says of the only track of a file.
fn probe(path: &Path) -> String {
    let fields = "stream=codec_name,profile,width,height,sample_aspect_ratio,pix_fmt,level,\
                  color_range,color_space,color_transfer,color_primaries,sample_rate,channels";
    let mut command = tool("ffprobe", &["-v", "error", "-show_entries", fields]);
    command.args(["-of", "default=nw=1"]).arg(path);
    run_ok(command, LIMIT)
}

/// The hashes of all packets (`copy`) or all decoded frames of a file, without their times.
fn hashes(path: &Path, copy: bool) -> Vec<String> {
    let mut command = tool("ffmpeg", &["-v", "warning", "-i"]);
    command.arg(path);
    if copy {
        command.args(["-c", "copy"]);
    }
    command.args(["-f", "framemd5", "-"]);
    let (code, out, complaints) = run(command, LIMIT);
    assert_eq!((code, &*complaints), (0, ""), "{}", path.display());
    let rows = out.lines().filter(|line| !line.starts_with('#'));
    // stream, decode time, presentation time, duration, size, hash; what else there is is the container's
    let hash = |row: &str| row.split(',').nth(5).expect("a hash").trim().to_owned();
    rows.map(hash).collect()
}

/// Takes the film encoded with `arguments` all the way; its codec string must be `codec`.
fn check(name: &str, codec: &str, arguments: &str) {
    let folder = tempfile::tempdir().expect("a folder");
    let film = encode(folder.path(), name, arguments);
    let (track, samples) = demux(&film);
    assert_eq!(CodecString::of(&track.codec).as_str(), codec);
    let packaged = folder.path().join("packaged.mp4");
    std::fs::write(&packaged, package(&track, samples)).expect("written");
    assert_eq!(probe(&packaged), probe(&film));
    let is_video = track.codec.kind() == MediaKind::Video;
    for copy in [true, false].into_iter().filter(|copy| *copy || is_video) {
        let (found, expected) = (hashes(&packaged, copy), hashes(&film, copy));
        assert_eq!(found.len(), expected.len(), "copy: {copy}");
        let differ = found.iter().zip(&expected).position(|(f, e)| f != e);
        assert_eq!(differ, None, "the first that differs, copy: {copy}");
    }
}

const VIDEO: &str = "-an -vf scale=322:182,setsar=1,format=yuv420p -r 30 -g 60 -keyint_min 60";

#[test]
fn hevc_passes_through_unchanged() {
    check(
        "hevc",
        "hvc1.1.6.L60.90",
        &format!(
            "{VIDEO} -c:v libx265 -preset ultrafast -bf 3 -tag:v hvc1 -colorspace bt709 -color_primaries bt709 \
             -color_trc bt709 -x265-params log-level=none:open-gop=0:scenecut=0:bframes=3"
        ),
    );
}

#[test]
fn hevc_of_ten_bits_and_high_dynamic_range_passes_through_unchanged() {
    let video = VIDEO.replace("yuv420p", "yuv420p10le");
    check(
        "hevc10",
        "hvc1.2.4.H150.90",
        &format!(
            "{video} -c:v libx265 -preset ultrafast -tag:v hev1 -x265-params \
             log-level=none:open-gop=0:scenecut=0:level-idc=5:high-tier=1:hdr10=1:\
             colorprim=bt2020:transfer=smpte2084:colormatrix=bt2020nc:range=limited"
        ),
    );
}

#[test]
fn av1_passes_through_unchanged() {
    check(
        "av1",
        "av01.0.00M.08",
        &format!("{VIDEO} -c:v libaom-av1 -usage realtime -cpu-used 8 -b:v 200k -lag-in-frames 0"),
    );
}

#[test]
fn vp9_passes_through_unchanged() {
    check(
        "vp9",
        "vp09.00.11.08",
        &format!("{VIDEO} -c:v libvpx-vp9 -deadline realtime -cpu-used 8 -b:v 200k"),
    );
}

#[test]
fn opus_passes_through_unchanged() {
    check("opus", "opus", "-vn -c:a libopus -ac 2 -b:a 48k");
}

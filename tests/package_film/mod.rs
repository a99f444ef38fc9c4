//! The film clip as encoders deliver it: samples of two rungs and of sound, on the grid.
//!
//! Enters: the clip, encoded anew by ffmpeg with a key frame every two seconds
//! Leaves: [`Film`]: renditions, and samples of any stretch of the epoch timeline
//! Never:  network
//! Time:   every call says where on the timeline the film begins; it repeats for ever
//! Spec:   none

use std::fs::File;
use std::io::BufReader;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use bytes::Bytes;
use headwater::codec::video::{Colour, Dimensions, PixelAspect};
use headwater::codec::{aac, h264};
use headwater::id::{PeriodId, SegmentNumber};
use headwater::media::{CodecConfig, MediaKind, Rendition, Sample};
use headwater::package::{Config, Cuts, Output, Packager};
use headwater::time::{FrameRate, Span, Ticks, Timescale};

/// How long one child process may take.
const CHILD_LIMIT: Duration = Duration::from_secs(60);
/// Frames of pictures in the part of the film that is used, 12 s.
const FILM_FRAMES: usize = 360;

/// What a child process said.
pub(crate) struct Said {
    /// Whether it exited with success.
    pub(crate) success: bool,
    /// Its standard output.
    pub(crate) stdout: String,
    /// Its standard error.
    pub(crate) stderr: String,
}

/// Runs a program to its end, at most [`CHILD_LIMIT`].
pub(crate) fn run(program: &str, arguments: &[&str]) -> Said {
    let folder = tempfile::tempdir().expect("temporary folder");
    let (out, err) = (folder.path().join("out"), folder.path().join("err"));
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(File::create(&out).expect("file"))
        .stderr(File::create(&err).expect("file"))
        .spawn()
        .expect("the program is installed");
    let success = wait(&mut child);
    let read =
        |path: &Path| String::from_utf8_lossy(&std::fs::read(path).expect("file")).into_owned();
    Said {
        success,
        stdout: read(&out),
        stderr: read(&err),
    }
}

fn wait(child: &mut Child) -> bool {
    let deadline = Instant::now() + CHILD_LIMIT;
    loop {
        if let Some(status) = child.try_wait().expect("child") {
            return status.success();
        }
        if Instant::now() > deadline {
            child.kill().expect("killed");
            child.wait().expect("reaped");
            return false;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The encoded film.
pub(crate) struct Film {
    /// What it consists of: two rungs of pictures and one of sound.
    pub(crate) renditions: Vec<Rendition>,
    samples: Vec<Vec<mp4::Mp4Sample>>,
}

impl Film {
    /// Encodes the clip.
    pub(crate) fn encode() -> Self {
        let folder = tempfile::tempdir().expect("temporary folder");
        let film = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/media/bbb_720p30_12s.mp4");
        let (mut renditions, mut samples) = (Vec::new(), Vec::new());
        for (name, height) in [("v360", 360), ("v180", 180)] {
            let path = encode_video(&film, folder.path(), height);
            let (rendition, read) = read_track(&path, name);
            renditions.push(rendition);
            samples.push(read);
        }
        let path = encode_audio(&film, folder.path());
        let (rendition, read) = read_track(&path, "a96");
        renditions.push(rendition);
        samples.push(read);
        Self {
            renditions,
            samples,
        }
    }

    /// Packages `segments` segments from number `first` on; what came out, in order.
    pub(crate) fn package(&self, config: &Config, first: u64, segments: u64) -> Vec<Output> {
        let mut packager =
            Packager::new(config, PeriodId::new(first), self.renditions.clone()).expect("valid");
        let mut outputs = Vec::new();
        for number in first..first + segments {
            for index in 0..self.renditions.len() {
                for sample in self.segment(index, first, number) {
                    packager.push(index, sample).expect("accepted");
                    outputs.extend(std::iter::from_fn(|| packager.poll_output()));
                }
            }
        }
        outputs.extend(packager.finish().expect("finished"));
        outputs
    }

    /// What a source would send that cuts where it likes: a segment of two or four seconds, in frames each, from
    /// a point between two places of the grid on; with the last of `frames` it turns into another, which comes
    /// after a second of nothing, and whose two pictures have changed places.
    pub(crate) fn package_cut(
        &self,
        config: &Config,
        first: u64,
        frames: [&[u64]; 2],
    ) -> Vec<Output> {
        let cuts = Cuts::Source { longest_ms: 4_000 };
        let number = SegmentNumber::new(first);
        let made = Packager::cut_by(cuts, config, number, self.renditions.clone(), None);
        let mut packager = made.expect("valid");
        let mut outputs = Vec::new();
        let (mut number, mut frame) = (first, first * 60 + 11);
        for (index, frames) in frames.into_iter().enumerate() {
            let sources = [[0, 1, 2], [1, 0, 2]][index];
            if index > 0 {
                frame += 30;
                let mut renditions = self.renditions.clone();
                renditions.swap(0, 1);
                for (rendition, before) in renditions.iter_mut().zip(&self.renditions) {
                    rendition.name = before.name.clone();
                }
                packager
                    .change(renditions, SegmentNumber::new(number))
                    .expect("accepted");
            }
            let begin = frame;
            for length in frames {
                let mut samples = Vec::new();
                for (rendition, source) in sources.into_iter().enumerate() {
                    let stretch = self.stretch(source, begin, frame..frame + length);
                    let scale = self.renditions[source].timescale;
                    let ms = |s: &Sample| s.dts.at(scale).to_wall().as_micros();
                    samples.extend(stretch.into_iter().map(|s| (ms(&s), rendition, s)));
                }
                samples.sort_by_key(|(at, rendition, _)| (*at, *rendition));
                let mut begun = [false; 3];
                for (_, rendition, sample) in samples {
                    if !std::mem::replace(&mut begun[rendition], true) {
                        let number = SegmentNumber::new(number);
                        packager.cut(rendition, number).expect("accepted");
                    }
                    packager.push(rendition, sample).expect("accepted");
                    outputs.extend(std::iter::from_fn(|| packager.poll_output()));
                }
                (number, frame) = (number + 1, frame + length);
            }
        }
        outputs.extend(packager.finish().expect("finished"));
        outputs
    }

    /// The samples of `frames`, counted from the epoch, of a film that began with frame `begin`.
    fn stretch(&self, source: usize, begin: u64, frames: Range<u64>) -> Vec<Sample> {
        let (rendition, samples) = (&self.renditions[source], &self.samples[source]);
        let scale = u64::from(rendition.timescale.get());
        let length = match rendition.codec.kind() {
            MediaKind::Video => scale / 30,
            MediaKind::Audio => 1_024,
        };
        let slot = |frame: u64| (frame * scale).div_ceil(30 * length);
        let sample = |at: u64| {
            let from_start = usize::try_from(at - slot(begin)).expect("small");
            let read = &samples[from_start % samples.len()];
            let dts = Ticks::new(i64::try_from(at * length).expect("fits"));
            let offset = i64::from(read.rendering_offset - samples[0].rendering_offset);
            Sample {
                dts,
                pts: Ticks::new(dts.get() + offset),
                duration: Span::new(length),
                keyframe: read.is_sync || rendition.frame_rate.is_none(),
                data: read.bytes.clone(),
            }
        };
        (slot(frames.start)..slot(frames.end)).map(sample).collect()
    }

    /// The samples of segment `number` of a broadcast that began with segment `first`; 2 s each.
    fn segment(&self, index: usize, first: u64, number: u64) -> Vec<Sample> {
        let rendition = &self.renditions[index];
        let samples = &self.samples[index];
        let scale = u64::from(rendition.timescale.get());
        let length = match rendition.codec.kind() {
            MediaKind::Video => scale / 30,
            MediaKind::Audio => 1_024,
        };
        let slot = |segment: u64| (segment * 2 * scale).div_ceil(length);
        let sample = |at: u64| {
            let from_start = usize::try_from(at - slot(first)).expect("small");
            let read = &samples[from_start % samples.len()];
            let dts = Ticks::new(i64::try_from(at * length).expect("fits"));
            let offset = i64::from(read.rendering_offset - samples[0].rendering_offset);
            Sample {
                dts,
                pts: Ticks::new(dts.get() + offset),
                duration: Span::new(length),
                keyframe: read.is_sync || rendition.frame_rate.is_none(),
                data: read.bytes.clone(),
            }
        };
        (slot(number)..slot(number + 1)).map(sample).collect()
    }
}

fn encode_video(film: &Path, folder: &Path, height: u32) -> PathBuf {
    let path = folder.join(format!("{height}.mp4"));
    let scale = format!("scale=-2:{height},format=yuv420p");
    let arguments = [
        "-v",
        "error",
        "-i",
        &film.to_string_lossy(),
        "-an",
        "-vf",
        &scale,
        "-c:v",
        "libx264",
        "-preset",
        "veryfast",
        "-bf",
        "2",
        "-g",
        "60",
        "-keyint_min",
        "60",
        "-sc_threshold",
        "0",
        "-flags",
        "+cgop",
        "-crf",
        "28",
        "-r",
        "30",
        "-frames:v",
        "360",
        "-video_track_timescale",
        "90000",
        &path.to_string_lossy(),
    ];
    let said = run("ffmpeg", &arguments);
    assert!(said.success, "{}", said.stderr);
    path
}

fn encode_audio(film: &Path, folder: &Path) -> PathBuf {
    let path = folder.join("a.mp4");
    let arguments = [
        "-v",
        "error",
        "-i",
        &film.to_string_lossy(),
        "-vn",
        "-c:a",
        "aac",
        "-b:a",
        "96k",
        "-ar",
        "48000",
        "-ac",
        "2",
        &path.to_string_lossy(),
    ];
    let said = run("ffmpeg", &arguments);
    assert!(said.success, "{}", said.stderr);
    path
}

/// All samples of the only track of a file, by the `mp4` crate, and what they are.
fn read_track(path: &Path, name: &str) -> (Rendition, Vec<mp4::Mp4Sample>) {
    let file = File::open(path).expect("file");
    let size = file.metadata().expect("size").len();
    let mut reader = mp4::Mp4Reader::read_header(BufReader::new(file), size).expect("mp4");
    let (id, track) = reader.tracks().iter().next().expect("a track");
    let (id, scale) = (*id, track.timescale());
    let video = track.media_type().expect("known") == mp4::MediaType::H264;
    let codec = if video {
        video_config(track)
    } else {
        audio_config()
    };
    let count = reader.sample_count(id).expect("count");
    let mut samples: Vec<_> = (1..=count)
        .map(|n| reader.read_sample(id, n).expect("read").expect("there"))
        .collect();
    if video {
        samples.truncate(FILM_FRAMES);
    } else {
        samples.remove(0);
    }
    let rendition = Rendition {
        name: name.parse().expect("valid"),
        timescale: Timescale::new(scale).expect("not zero"),
        codec,
        frame_rate: video.then(|| FrameRate::new(30, 1)).flatten(),
        target_bps: if video { 400_000 } else { 96_000 },
    };
    (rendition, samples)
}

fn video_config(track: &mp4::Mp4Track) -> CodecConfig {
    let sps = track.sequence_parameter_set().expect("sps").to_vec();
    let pps = track.picture_parameter_set().expect("pps").to_vec();
    let mut avcc = vec![1, sps[1], sps[2], sps[3], 0xff, 0xe1];
    avcc.extend_from_slice(&u16::try_from(sps.len()).expect("short").to_be_bytes());
    avcc.extend_from_slice(&sps);
    avcc.push(1);
    avcc.extend_from_slice(&u16::try_from(pps.len()).expect("short").to_be_bytes());
    avcc.extend_from_slice(&pps);
    if matches!(sps[1], 100 | 110 | 122) {
        avcc.extend_from_slice(&[0xfd, 0xf8, 0xf8, 0]); // 4:2:0, 8 bits
    }
    CodecConfig::H264(h264::Config {
        profile: sps[1],
        compatibility: sps[2],
        level: sps[3],
        avcc: avcc.into(),
        dimensions: Dimensions {
            width: track.width().into(),
            height: track.height().into(),
        },
        pixel_aspect: PixelAspect::SQUARE,
        colour: Colour {
            primaries: 1,
            transfer: 1,
            matrix: 1,
            full_range: false,
        },
        declared_rate: None,
    })
}

fn audio_config() -> CodecConfig {
    CodecConfig::Aac(aac::Config {
        asc: Bytes::from_static(&[0x11, 0x90]),
        object_type: 2,
        sample_rate: 48_000,
        channels: 2,
        frame_samples: 1_024,
    })
}

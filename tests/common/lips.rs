//! A film whose picture flashes whenever its sound beeps, and how far apart the two are in what was stored.
//!
//! Enters: the segments of a stored broadcast of that film
//! Leaves: when each flash and each beep begins, on the broadcast's own timeline
//! Never:  a decoder or a parser of Headwater's own
//! Time:   microseconds since the epoch: where the samples of the stored segments lie
//! Spec:   [ITU-R BT.1359]
//!
//! The flashes are not evenly spaced, so that sound which lies a second off is not taken for right.

#![allow(dead_code, reason = "every test binary uses its own part of this")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test may fail loudly"
)]

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::common::{Process, run, run_ok, tool};
use crate::media::Segment;

/// What the acceptance of lips asks for.
pub(crate) const LIPS_US: i64 = 40_000;
/// Of the flashes of a calm stretch, those that must be there with their beeps.
pub(crate) const FLASHES: usize = 3;
/// Rules of how soon something is there, which a busy machine cannot keep; and of the rate that is announced when
/// the film has been nothing but black, which the slate is not.
pub(crate) const LENIENT: [&str; 3] = ["HLS-REFRESH", "LL-BLOCKING-TIME", "HLS-BANDWIDTH"];
/// Longer than any reader takes over what a test makes.
const READ_LIMIT: Duration = Duration::from_secs(120);
/// A flash lasts three frames of 30 per second, a beep as long. At 25 per second there is a frame where each begins too.
const FLASH: &str = "lt(mod(T,7),0.1)+between(mod(T,7),1,1.1)+between(mod(T,7),2.6,2.7)\
                     +between(mod(T,7),3.6,3.7)+between(mod(T,7),5.6,5.7)";
/// As bright as a flash is, of 255: video range, coded and decoded.
const BRIGHT: u8 = 128;
/// As loud as a beep is within its first millisecond, of 32768.
const LOUD: u16 = 4_000;
/// How long it is dark, or silent, before a flash or a beep.
const QUIET_US: i64 = 200_000;
/// A flash and a beep further apart than this do not belong together.
const PAIR_US: i64 = 450_000;

/// What a streamer is told to set.
pub(crate) const PLAIN: [&str; 4] = ["-bf", "0", "-tune", "zerolatency"];

/// What makes ffmpeg invent pictures and sound, whose beeps are so many milliseconds late.
fn sources(late_ms: u32) -> [String; 2] {
    let flash = FLASH.replace('T', "t+0.001");
    let pictures = format!(
        "color=c=black:s=320x180:r=30,drawbox=c=white:t=fill:enable='{flash}',format=yuv420p"
    );
    let beep = FLASH.replace('T', &format!("(t+7-{late_ms}/1000)"));
    let sound = format!("aevalsrc='0.7*sin(2*PI*1000*t)*({beep})':s=48000:c=stereo");
    [pictures, sound]
}

/// Publishes the film to `url` for five minutes, coded as `coded` says.
pub(crate) fn publish(url: &str, coded: &[&str]) -> Process {
    let mut command = tool("ffmpeg", &["-v", "error", "-nostdin"]);
    for source in sources(0) {
        command.args(["-re", "-f", "lavfi", "-i", &source]);
    }
    command.args(["-t", "300", "-c:v", "libx264", "-preset", "ultrafast"]);
    command.args(["-g", "60", "-c:a", "aac"]).args(coded);
    command.args(["-f", "flv", url]);
    Process::start(command)
}

/// Half a minute of the film in an MP4 file, its sound so many milliseconds late.
pub(crate) fn film(file: &Path, late_ms: u32) {
    let mut command = tool("ffmpeg", &["-v", "error", "-nostdin"]);
    for source in sources(late_ms) {
        command.args(["-f", "lavfi", "-i", &source]);
    }
    command.args(["-t", "30", "-c:v", "libx264", "-preset", "ultrafast"]);
    command.args(PLAIN).args(["-c:a", "aac"]).arg(file);
    run_ok(command, READ_LIMIT);
}

/// When flashes and beeps begin.
#[derive(Debug)]
pub(crate) struct Lips {
    pub(crate) flashes: Vec<i64>,
    pub(crate) beeps: Vec<i64>,
    /// Where the pictures begin and end.
    pub(crate) begin_us: i64,
    pub(crate) end_us: i64,
}

impl Lips {
    /// Decodes renditions `video` and `audio` in the stored broadcast `folder`, and checks that both are
    /// one run: no number is missing, no sample is missing or doubled, nothing is hard to decode.
    pub(crate) fn read(folder: &Path, video: &str, audio: &str) -> Self {
        let (pictures, sound) = (Joined::read(folder, video), Joined::read(folder, audio));
        let grey = "scale=2:2:flags=area,format=gray";
        let args = ["-vf", grey, "-fps_mode", "passthrough", "-f", "rawvideo"];
        let frames = pictures.decode(&args);
        assert_eq!(frames.len() / 4, pictures.starts.len(), "{video}: frames");
        let bright = frames.chunks_exact(4).map(|frame| frame[0] >= BRIGHT);
        let flashes = onsets(pictures.starts.iter().copied().zip(bright));
        let pcm = sound.decode(&["-ac", "1", "-ar", "48000", "-f", "s16le"]);
        let first = sound.starts[0];
        let loud = pcm.chunks_exact(2).zip(0_i64..).map(|(pair, n)| {
            let level = i16::from_le_bytes([pair[0], pair[1]]).unsigned_abs();
            (first + n * 1_000_000 / 48_000, level >= LOUD)
        });
        Self {
            flashes,
            beeps: onsets(loud),
            begin_us: pictures.starts[0],
            end_us: pictures.end_us,
        }
    }

    /// How much later the beep is than its flash, in microseconds, for each flash between `from_us` and
    /// `to_us` that has one.
    pub(crate) fn offsets(&self, from_us: i64, to_us: i64) -> Vec<i64> {
        let within = self
            .flashes
            .iter()
            .filter(|at| (from_us..to_us).contains(*at));
        let nearest = within.filter_map(|flash| {
            let apart = self.beeps.iter().map(|beep| beep - flash);
            apart.min_by_key(|apart| apart.abs())
        });
        nearest.filter(|apart| apart.abs() < PAIR_US).collect()
    }

    /// The offset that half of the flashes between `from_us` and `to_us` are above, of `count` or more.
    ///
    /// A single flash may be late: on a busy machine the frame in which it begins comes too late to be shown.
    pub(crate) fn offset(&self, from_us: i64, to_us: i64, count: usize) -> i64 {
        let mut all = self.offsets(from_us, to_us);
        all.sort_unstable();
        assert!(
            all.len() >= count,
            "{all:?} of the flashes from {from_us} to {to_us} have a beep: {self:?}"
        );
        all[all.len() / 2]
    }
}

/// The instants at which something begins that was not there for a while.
fn onsets(is_there: impl Iterator<Item = (i64, bool)>) -> Vec<i64> {
    let (mut found, mut last) = (Vec::new(), i64::MIN);
    for (at, is_there) in is_there {
        if is_there {
            if at.saturating_sub(last) > QUIET_US {
                found.push(at);
            }
            last = at;
        }
    }
    found
}

/// A stored rendition in one file.
struct Joined {
    file: tempfile::NamedTempFile,
    /// When each of its samples is shown.
    starts: Vec<i64>,
    end_us: i64,
}

impl Joined {
    fn read(folder: &Path, name: &str) -> Self {
        let folder = folder.join(name);
        let (mut inits, mut segments) = (Vec::new(), Vec::<(u64, PathBuf)>::new());
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let stem = path.file_stem().unwrap().to_str().unwrap();
            match path.extension().and_then(|e| e.to_str()) {
                Some("mp4") => inits.push(path),
                Some("m4s") => segments.push((stem.parse().unwrap(), path)),
                _ => {}
            }
        }
        assert_eq!(inits.len(), 1, "{name}: {inits:?}");
        segments.sort();
        let init = std::fs::read(&inits[0]).unwrap();
        let (mut bytes, mut starts, mut end) = (init.clone(), Vec::new(), None::<i64>);
        let mut scale = 1;
        for (number, (found, path)) in (segments[0].0..).zip(&segments) {
            assert_eq!(*found, number, "{name}: a number is missing");
            let media = std::fs::read(path).unwrap();
            let segment = Segment::read(&init, &media);
            scale = i64::from(segment.timescale);
            for sample in &segment.samples {
                assert!(end.is_none_or(|end| end == sample.dts), "{name}/{number}");
                end = Some(sample.dts + sample.duration);
                starts.push(micros(sample.pts, scale));
            }
            bytes.extend(media);
        }
        starts.sort_unstable();
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), bytes).unwrap();
        let end_us = micros(end.expect("a sample"), scale);
        Self {
            file,
            starts,
            end_us,
        }
    }

    /// What `args` make ffmpeg write, which has nothing to complain of.
    fn decode(&self, args: &[&str]) -> Vec<u8> {
        let out = tempfile::NamedTempFile::new().unwrap();
        let mut command = tool("ffmpeg", &["-v", "error", "-y", "-nostdin", "-i"]);
        command.arg(self.file.path()).args(args).arg(out.path());
        let shown = format!("{command:?}");
        let (code, _, said) = run(command, READ_LIMIT);
        assert!(code == 0 && said.is_empty(), "{shown}: {said}");
        std::fs::read(out.path()).unwrap()
    }
}

fn micros(ticks: i64, scale: i64) -> i64 {
    i64::try_from(i128::from(ticks) * 1_000_000 / i128::from(scale)).unwrap()
}

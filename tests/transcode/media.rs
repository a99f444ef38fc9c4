//! Clips as a demuxer would deliver them.

use std::io::{BufReader, Cursor};
use std::num::NonZeroU32;
use std::process::Command;

use bytes::Bytes;
use headwater::codec::{aac, h264};
use headwater::id::TrackId;
use headwater::media::{CodecConfig, Sample, TrackInfo};
use headwater::time::{Span, TickDelta, Ticks, Timescale};
use mp4::{Mp4Reader, TrackType};

pub(crate) const FILM: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/fixtures/media/bbb_720p30_12s.mp4"
);
/// The number of a segment of two seconds in the present.
const NOW: i64 = 897_000_000;

/// One thing that a demuxer delivers.
#[derive(Clone, Debug)]
pub(crate) enum Item {
    Track(TrackInfo),
    Sample(TrackId, Sample),
}

/// A source, its first frame at position zero.
#[derive(Clone, Debug)]
pub(crate) struct Clip {
    pub(crate) video: TrackInfo,
    pub(crate) items: Vec<Item>,
    seconds: i64,
}

pub(crate) fn has_element(name: &str) -> bool {
    let mut command = Command::new("gst-inspect-1.0");
    let status = command.args(["--exists", name]).status();
    status.expect("gst-inspect-1.0").success()
}

/// Runs ffmpeg and returns what it writes to stdout.
pub(crate) fn ffmpeg(args: &[&str]) -> Vec<u8> {
    let mut command = Command::new("timeout");
    let output = command
        .args(["60", "ffmpeg", "-v", "error", "-nostdin", "-threads", "1"])
        .args(args)
        .output()
        .expect("ffmpeg");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success() && said.is_empty(),
        "{args:?}: {said}"
    );
    output.stdout
}

impl Clip {
    /// The first `seconds` of the film.
    pub(crate) fn film(seconds: i64) -> Self {
        Self::read(&std::fs::read(FILM).expect("the film"), seconds)
    }

    /// A clip of ffmpeg's test sources.
    pub(crate) fn made(video: &str, audio: &str, seconds: i64) -> Self {
        let coded = "-c:v libx264 -bf 2 -pix_fmt yuv420p";
        Self::coded(video, audio, coded, seconds)
    }

    /// As [`Self::made`], its pictures coded as `coded` says.
    pub(crate) fn coded(video: &str, audio: &str, coded: &str, seconds: i64) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("made.mp4");
        let path = path.to_str().expect("text");
        let length = seconds.to_string();
        let inputs = ["-f", "lavfi", "-i", video, "-f", "lavfi", "-i", audio];
        let mut args = [&inputs[..], &["-t", &length, "-ac", "2"]].concat();
        args.extend(["-preset", "ultrafast", "-g", "60"]);
        args.extend(coded.split(' '));
        args.extend(["-c:a", "aac", "-y", path]);
        ffmpeg(&args);
        Self::read(&std::fs::read(path).expect("made"), seconds)
    }

    /// A white flash and a beep at every whole second, each a tenth of a second long.
    pub(crate) fn flash_and_beep() -> Self {
        Self::made(
            "color=black:size=320x240:rate=30,drawbox=color=white:t=fill:enable='lt(mod(t,1),0.1)'",
            "aevalsrc='0.8*sin(2*PI*1000*t)*lt(mod(t,1),0.1)':s=48000",
            5,
        )
    }

    fn read(bytes: &[u8], seconds: i64) -> Self {
        let size = bytes.len() as u64;
        let reader = BufReader::new(Cursor::new(bytes.to_vec()));
        let mut file = Mp4Reader::read_header(reader, size).expect("an MP4");
        let mut all: Vec<(i64, Item)> = Vec::new();
        let mut video = None;
        for id in file.tracks().keys().copied().collect::<Vec<_>>() {
            let track = &file.tracks()[&id];
            let codec = match track.track_type().expect("known") {
                TrackType::Video => {
                    let set = |bytes: &[u8]| [Bytes::copy_from_slice(bytes)];
                    let sps = set(track.sequence_parameter_set().expect("SPS"));
                    let pps = set(track.picture_parameter_set().expect("PPS"));
                    let config = h264::Config::from_parameter_sets(&sps, &pps);
                    CodecConfig::H264(config.expect("valid"))
                }
                _ => {
                    let rate = track.sample_freq_index().expect("AAC").freq();
                    let channels = track.channel_config().expect("AAC") as u8;
                    let config = aac::Config::low_complexity(rate, channels).expect("valid");
                    CodecConfig::Aac(config)
                }
            };
            let edits = track.trak.edts.as_ref().and_then(|edts| edts.elst.as_ref());
            let shift = edits.map_or(0, |list| list.entries[0].media_time);
            let shift = i64::try_from(shift).expect("small");
            let info = TrackInfo {
                id: TrackId::new(NonZeroU32::new(id).expect("not zero")),
                timescale: Timescale::new(track.timescale()).expect("not zero"),
                codec,
            };
            let scale = i64::from(info.timescale.get());
            if info.codec.dimensions().is_some() {
                video = Some(info.clone());
            }
            all.push((i64::MIN, Item::Track(info.clone())));
            for number in 1..=track.sample_count() {
                let read = file
                    .read_sample(id, number)
                    .expect("readable")
                    .expect("there");
                let dts = i64::try_from(read.start_time).expect("small") - shift;
                let pts = dts + i64::from(read.rendering_offset);
                if pts >= seconds * scale {
                    continue;
                }
                let sample = Sample {
                    dts: Ticks::new(dts),
                    pts: Ticks::new(pts),
                    duration: Span::new(u64::from(read.duration)),
                    keyframe: read.is_sync,
                    data: read.bytes,
                };
                all.push((dts * 1_000_000 / scale, Item::Sample(info.id, sample)));
            }
        }
        all.sort_by_key(|(at, _)| *at);
        Self {
            video: video.expect("pictures"),
            items: all.into_iter().map(|(_, item)| item).collect(),
            seconds,
        }
    }

    pub(crate) fn drop_audio(&mut self) {
        let video = self.video.id;
        self.items.retain(|item| match item {
            Item::Track(info) => info.id == video,
            Item::Sample(track, _) => *track == video,
        });
    }

    pub(crate) fn drop_video(&mut self) {
        let video = self.video.id;
        self.items.retain(|item| match item {
            Item::Track(info) => info.id != video,
            Item::Sample(track, _) => *track != video,
        });
    }

    /// The same with its pictures in 90 kHz, as a publisher's come out of the demuxer.
    pub(crate) fn in_90k(mut self) -> Self {
        let (id, scale) = (self.video.id, self.video.timescale);
        let exact = |at: Ticks| at.at(scale).rescale_nearest(Timescale::VIDEO_90K);
        for item in &mut self.items {
            match item {
                Item::Track(info) if info.id == id => info.timescale = Timescale::VIDEO_90K,
                Item::Sample(track, sample) if *track == id => {
                    let length = Ticks::new(sample.duration.get().cast_signed());
                    let length = exact(length).get().unsigned_abs();
                    (sample.dts, sample.pts) = (exact(sample.dts), exact(sample.pts));
                    sample.duration = Span::new(length);
                }
                _ => {}
            }
        }
        self.video.timescale = Timescale::VIDEO_90K;
        self
    }

    /// What lies before and what after `seconds`, and the latter without its pictures: the camera goes off.
    pub(crate) fn with_camera_off_after(&self, seconds: i64, ms: i64) -> (Vec<Item>, Vec<Item>) {
        let mut scales = std::collections::HashMap::new();
        let is_before = |item: &Item| match item {
            Item::Track(info) => {
                scales.insert(info.id, info.timescale);
                true
            }
            Item::Sample(track, sample) => {
                let at = sample.dts.at(scales[track]);
                at.rescale_floor(Timescale::MILLIS).get() < ms + seconds * 1_000
            }
        };
        let (before, mut after): (Vec<_>, Vec<_>) = self.at(ms).into_iter().partition(is_before);
        let video = self.video.id;
        after.retain(|item| !matches!(item, Item::Sample(track, _) if *track == video));
        (before, after)
    }

    /// Makes the sound's configuration one that no decoder takes.
    pub(crate) fn break_audio(&mut self) {
        for item in &mut self.items {
            if let Item::Track(info) = item
                && let CodecConfig::Aac(config) = &mut info.codec
            {
                config.asc = Bytes::from_static(&[0xff; 4]);
            }
        }
    }

    /// Flips bits in the middle of every `nth` picture that is no key frame.
    pub(crate) fn damage(&mut self, nth: usize) {
        let video = self.video.id;
        let mut seen = 0;
        for item in &mut self.items {
            if let Item::Sample(track, sample) = item
                && *track == video
                && !sample.keyframe
            {
                seen += 1;
                if seen % nth == 0 {
                    let mut data = sample.data.to_vec();
                    let half = data.len() / 2;
                    data[half..].iter_mut().for_each(|byte| *byte ^= 0x5a);
                    sample.data = data.into();
                }
            }
        }
    }

    /// Plays `other` after this clip, as a publisher that changes its settings does.
    pub(crate) fn append(&mut self, other: &Self) {
        let moved = other.at(self.seconds * 1_000);
        self.items.extend(moved);
        self.seconds += other.seconds;
    }

    /// A position, in milliseconds, at which a segment begins.
    pub(crate) fn start_of_a_segment(&self) -> i64 {
        NOW * 2_000
    }

    /// A position, in milliseconds, half a second into a segment.
    pub(crate) fn start_inside_a_segment(&self) -> i64 {
        self.start_of_a_segment() + 500
    }

    /// The clip with its first frame at `ms` after the epoch.
    pub(crate) fn at(&self, ms: i64) -> Vec<Item> {
        let mut scales = std::collections::HashMap::new();
        let mut all = self.items.clone();
        for item in &mut all {
            match item {
                Item::Track(info) => {
                    scales.insert(info.id, info.timescale);
                }
                Item::Sample(track, sample) => {
                    let shift = Ticks::new(ms).at(Timescale::MILLIS);
                    let shift = shift.rescale_nearest(scales[track]).get();
                    let moved = |at: Ticks| at.checked_offset(TickDelta::new(shift)).expect("fits");
                    (sample.dts, sample.pts) = (moved(sample.dts), moved(sample.pts));
                }
            }
        }
        all
    }
}

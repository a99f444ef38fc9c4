//! Reads `pipelines/*.toml`: which rungs a ladder may have and how each is encoded.
//!
//! Enters: the text of a pipeline file, shipped or an operator's own
//! Leaves: a [`Template`] in which every placeholder is known, or all mistakes with their paths
//! Never:  GStreamer, files (the caller reads them), guesses for a missing key
//! Time:   none
//! Spec:   pipelines/README.md

#![deny(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::float_arithmetic
)]

mod fragment;
mod pipeline;
mod reader;

use std::fmt;

use self::fragment::{AUDIO_PLACEHOLDERS, VIDEO_PLACEHOLDERS};
pub use self::fragment::{elements, render};
pub use self::pipeline::Pipeline;
use self::reader::Reader;

/// The most rungs of one kind that a file may list: more would only cost memory and switching.
pub const MAX_RUNGS: usize = 16;
/// The most that an encoder may add where nothing may be held back, in milliseconds: three frames at 30
/// per second, what devices take that code one frame while they take in the next.
pub const MAX_LOW_DELAY_MS: u32 = 100;
/// The longest pipeline file that is read, far above any sensible one.
pub const MAX_TEMPLATE_BYTES: usize = 64 * 1024;

/// The pipeline file in the binary that encodes nothing: its name and its text.
pub const COPY: (&str, &str) = ("copy", include_str!("../../../pipelines/copy.toml"));

/// Every pipeline file in the binary that encodes: its name and its text.
pub const SHIPPED: &[(&str, &str)] = &[
    ("auto", include_str!("../../../pipelines/auto.toml")),
    ("copy-top", include_str!("../../../pipelines/copy-top.toml")),
    (
        "x264-quality",
        include_str!("../../../pipelines/x264-quality.toml"),
    ),
    ("openh264", include_str!("../../../pipelines/openh264.toml")),
    ("vp9", include_str!("../../../pipelines/vp9.toml")),
    ("av1", include_str!("../../../pipelines/av1.toml")),
    ("nvenc", include_str!("../../../pipelines/nvenc.toml")),
    ("vaapi", include_str!("../../../pipelines/vaapi.toml")),
    ("qsv", include_str!("../../../pipelines/qsv.toml")),
];

/// How a rung's pictures are coded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VideoCodec {
    /// H.264.
    H264,
    /// VP9.
    Vp9,
    /// AV1.
    Av1,
}

/// How a rung's sound is coded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AudioCodec {
    /// AAC-LC.
    Aac,
    /// Opus.
    Opus,
}

/// How the encoder is made to begin a segment with a key frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyframePolicy {
    /// It obeys a force-key-unit event.
    Forced,
    /// It ignores such events but counts reliably: the rate is chosen so that a segment is a whole
    /// number of frames, and `{keyint}` is that number.
    Counted,
}

/// How tall a rung is. "Tall" is the shorter side, so that a portrait source has the same rungs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RungSize {
    /// The source's own size.
    Source,
    /// This many pixels on the shorter side.
    Lines(u32),
}

/// One level of quality of pictures that a ladder may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VideoRung {
    /// Its size.
    pub size: RungSize,
    /// The fastest it runs, in frames per second. A rung of more than 30 exists only for a source of
    /// more than 30; a rung of up to 30 takes every second frame of such a source.
    pub max_fps: u32,
    /// The rate its encoder aims at, in kilobits per second, at the nominal size of `size`.
    pub bitrate_kbps: u32,
}

/// The pictures of a ladder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VideoTemplate {
    /// The codec that the encoder writes.
    pub codec: VideoCodec,
    /// How key frames come to lie on the grid.
    pub keyframes: KeyframePolicy,
    /// The launch fragment from raw I420 to access units, with placeholders.
    pub encoder: String,
    /// The fragment in its place where nothing may be held back; `None` where that is the same.
    pub encoder_low_delay: Option<String>,
    /// Consecutive B-frames at most.
    pub b_frames: u32,
    /// What encoding costs: CPU microseconds per thousand pixels. Zero for hardware.
    pub cost_us_per_kilopixel: u32,
    /// Whether the source's own pictures are a rung too, the best.
    pub copies: bool,
    /// The rungs that are encoded, in the file's order. Never empty.
    pub rungs: Vec<VideoRung>,
}

/// One level of quality of sound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AudioRung {
    /// The rate its encoder aims at, in kilobits per second.
    pub bitrate_kbps: u32,
}

/// The sound of a ladder. Always stereo.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AudioTemplate {
    /// The codec that the encoder writes.
    pub codec: AudioCodec,
    /// The launch fragment from raw interleaved samples to access units, with placeholders.
    pub encoder: String,
    /// By how many samples the decoded sound lags what was encoded.
    pub delay_samples: u32,
    /// Samples per access unit: 1024 for AAC, 960 for Opus at 20 ms.
    pub frame_samples: u32,
    /// The rungs, in the file's order.
    pub rungs: Vec<AudioRung>,
}

/// One pipeline file, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    /// The file's name without its ending.
    pub name: String,
    /// One sentence for people.
    pub summary: String,
    /// The time that encoding adds, in milliseconds, as measured for the file's settings.
    pub latency_ms: u32,
    /// The pictures.
    pub video: VideoTemplate,
    /// The sound; `None` where the source's own is handed on, and nothing is encoded.
    pub audio: Option<AudioTemplate>,
}

/// One mistake in a pipeline file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Where: `video.rung[2].bitrate_kbps`; empty for the file as a whole.
    pub path: String,
    /// What is wrong.
    pub what: String,
}

/// A pipeline file that is refused, with every mistake in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invalid {
    /// The file, as the operator named it.
    pub file: String,
    /// Every mistake, in the file's order as far as possible. Never empty.
    pub problems: Vec<Problem>,
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.problems.iter().enumerate() {
            let separator = if index == 0 { "" } else { "\n" };
            let colon = if problem.path.is_empty() { "" } else { ": " };
            let (file, path, what) = (&self.file, &problem.path, &problem.what);
            write!(f, "{separator}{file}: {path}{colon}{what}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Invalid {}

impl Template {
    /// The text of the shipped file called `name`; `None` if there is none.
    #[must_use]
    pub fn shipped(name: &str) -> Option<&'static str> {
        let found = SHIPPED.iter().find(|(shipped, _)| *shipped == name);
        found.map(|(_, text)| *text)
    }

    /// Whether `ladder` is meant as a path to a file rather than as a shipped file's name.
    #[must_use]
    pub fn is_path(ladder: &str) -> bool {
        ladder.contains('/') || ladder.ends_with(".toml")
    }

    /// Parses the shipped file called `name`.
    ///
    /// # Errors
    ///
    /// [`Invalid`] if no such file is shipped; it lists those that are.
    pub fn named(name: &str) -> Result<Self, Invalid> {
        let Some(text) = Self::shipped(name) else {
            let all = SHIPPED.iter().chain([&COPY]);
            let names: Vec<&str> = all.map(|(name, _)| *name).collect();
            let what = format!(
                "no such ladder; there are {}, or give the path of a file",
                names.join(", ")
            );
            let path = String::new();
            return Err(Invalid {
                file: name.to_owned(),
                problems: vec![Problem { path, what }],
            });
        };
        Self::parse(&format!("pipelines/{name}.toml"), text)
    }

    /// Parses `text`, the contents of `file`.
    ///
    /// # Errors
    ///
    /// [`Invalid`] with every mistake: syntax, unknown and missing keys, values out of range, unknown
    /// and missing placeholders.
    pub fn parse(file: &str, text: &str) -> Result<Self, Invalid> {
        let refuse = |problems| Invalid {
            file: file.to_owned(),
            problems,
        };
        let whole = |what: String| {
            let path = String::new();
            vec![Problem { path, what }]
        };
        if text.len() > MAX_TEMPLATE_BYTES {
            let what = format!("longer than {MAX_TEMPLATE_BYTES} bytes");
            return Err(refuse(whole(what)));
        }
        let table: toml::Table = text
            .parse()
            .map_err(|e: toml::de::Error| refuse(whole(e.to_string().trim().to_owned())))?;
        let mut problems = Vec::new();
        let template = read_template(Reader::new(String::new(), table, &mut problems), file);
        match template {
            Some(template) if problems.is_empty() => Ok(template),
            _ => Err(refuse(problems)),
        }
    }

    /// This ladder with encoders that hold nothing back.
    ///
    /// # Errors
    ///
    /// [`Invalid`] if it has none: it says no fragment for that, and its own takes longer than
    /// [`MAX_LOW_DELAY_MS`].
    pub fn into_low_delay(mut self) -> Result<Self, Invalid> {
        let fragment = self.video.encoder_low_delay.take();
        if fragment.is_none() && self.latency_ms > MAX_LOW_DELAY_MS {
            let (found, most) = (self.latency_ms, MAX_LOW_DELAY_MS);
            let what = format!(
                "{found} ms is more than the {most} ms that low_latency = \"ultra\" allows; take another \
                 ladder, or give it a video.encoder_low_delay"
            );
            let path = "latency_ms".to_owned();
            return Err(Invalid {
                file: self.name,
                problems: vec![Problem { path, what }],
            });
        }
        if let Some(fragment) = fragment {
            self.video.encoder = fragment;
        }
        Ok(self)
    }

    /// Whether something of the source is handed on as it is, so that its key frames decide where segments
    /// begin.
    #[must_use]
    pub const fn is_mixed(&self) -> bool {
        self.video.copies || self.audio.is_none()
    }

    /// Every GStreamer element that this ladder needs, sorted, each once: the encoders' own and those
    /// that surround them.
    #[must_use]
    pub fn elements(&self) -> Vec<String> {
        const ALWAYS: &[&str] = &[
            "aacparse",
            "appsink",
            "appsrc",
            "audioconvert",
            "audioresample",
            "avdec_aac",
            "avdec_h264",
            "h264parse",
            "queue",
            "tee",
            "videoconvertscale",
            "videoscale",
        ];
        let mut all: Vec<String> = ALWAYS.iter().map(|name| (*name).to_owned()).collect();
        all.extend(elements(&self.video.encoder));
        let sound = self.audio.iter().flat_map(|audio| elements(&audio.encoder));
        all.extend(sound);
        all.sort_unstable();
        all.dedup();
        all
    }
}

/// The name of a file without its ending.
fn name_of(file: &str) -> String {
    let name = file.rsplit('/').next().unwrap_or(file);
    name.strip_suffix(".toml").unwrap_or(name).to_owned()
}

fn read_template(mut root: Reader<'_>, file: &str) -> Option<Template> {
    let name = name_of(file);
    let summary = root.text("summary");
    let latency_ms = root.integer("latency_ms", 0..=60_000);
    let video = root.table("video").and_then(read_video);
    let audio = root.table("audio").and_then(read_audio);
    if let (Some(video), Some(audio)) = (&video, &audio) {
        check_mixed(&mut root, video, audio.is_some());
    }
    root.finish();
    Some(Template {
        name,
        summary: summary?,
        latency_ms: latency_ms?,
        video: video?,
        audio: audio?,
    })
}

fn read_video(mut table: Reader<'_>) -> Option<VideoTemplate> {
    let codec = table.choice(
        "codec",
        &[
            ("h264", VideoCodec::H264),
            ("vp9", VideoCodec::Vp9),
            ("av1", VideoCodec::Av1),
        ],
    );
    let keyframes = table.choice(
        "keyframes",
        &[
            ("forced", KeyframePolicy::Forced),
            ("counted", KeyframePolicy::Counted),
        ],
    );
    let closed = table.boolean("closed_gop");
    if closed == Some(false) {
        table.problem(
            "closed_gop",
            "must be true: every segment is decodable alone",
        );
    }
    let b_frames = table.integer("b_frames", 0..=16);
    let cost = table.integer("cost_us_per_kilopixel", 0..=100_000);
    let encoder = table.text("encoder");
    let encoder_low_delay = table.optional_text("encoder_low_delay");
    let mut needed: Vec<&[&str]> = vec![&["bitrate_kbps", "bitrate_bps"]];
    if keyframes == Some(KeyframePolicy::Counted) {
        needed.push(&["keyint"]);
    }
    for (key, text) in [
        ("encoder", &encoder),
        ("encoder_low_delay", &encoder_low_delay),
    ] {
        let text = text.as_deref();
        let found = text.map(|text| fragment::problems(text, VIDEO_PLACEHOLDERS, &needed));
        for what in found.unwrap_or_default() {
            table.problem(key, &what);
        }
    }
    let rungs = table.tables("rung", MAX_RUNGS, |rung| read_rung(rung, read_video_rung));
    let (rungs, copies) = sort_rungs(&mut table, rungs);
    table.finish();
    Some(VideoTemplate {
        copies,
        codec: codec?,
        keyframes: keyframes?,
        encoder: encoder?,
        encoder_low_delay,
        b_frames: b_frames?,
        cost_us_per_kilopixel: cost?,
        rungs: rungs?,
    })
}

fn read_video_rung(mut table: Reader<'_>) -> Option<VideoRung> {
    let size = match table.peek_text("height").as_deref() {
        Some("source") => {
            table.skip("height");
            Some(RungSize::Source)
        }
        Some(_) => {
            table.skip("height");
            table.problem("height", "a number of lines or \"source\"");
            None
        }
        None => table.integer("height", 16..=4_320).map(RungSize::Lines),
    };
    let max_fps = table.integer("max_fps", 1..=60);
    let bitrate_kbps = table.integer("bitrate_kbps", 16..=100_000);
    table.finish();
    Some(VideoRung {
        size: size?,
        max_fps: max_fps?,
        bitrate_kbps: bitrate_kbps?,
    })
}

/// What a rung is: encoded, or `None` for the source's own samples.
fn read_rung<T>(
    mut table: Reader<'_>,
    read: impl Fn(Reader<'_>) -> Option<T>,
) -> Option<Option<T>> {
    if !table.has("copy") {
        return read(table).map(Some);
    }
    let copies = table.boolean("copy");
    if copies == Some(false) {
        table.problem("copy", "true, or leave it out");
    }
    table.finish();
    copies.filter(|copies| *copies).map(|_| None)
}

/// The rungs that are encoded, and whether there is one that is not.
fn sort_rungs<T>(table: &mut Reader<'_>, rungs: Option<Vec<Option<T>>>) -> (Option<Vec<T>>, bool) {
    let Some(rungs) = rungs else {
        return (None, false);
    };
    let all = rungs.len();
    let encoded: Vec<T> = rungs.into_iter().flatten().collect();
    let copied = all - encoded.len();
    if copied > 1 {
        table.problem("rung", &format!("one with copy = true, found {copied}"));
    }
    (Some(encoded), copied > 0)
}

/// What of a ladder that copies something is not there.
fn check_mixed(root: &mut Reader<'_>, video: &VideoTemplate, encodes_sound: bool) {
    if video.copies && encodes_sound {
        root.problem(
            "audio.rung",
            "beside pictures that are copied the sound is too: one rung, with copy = true",
        );
    }
    if video.rungs.is_empty() {
        root.problem(
            "video.rung",
            "one at least without copy = true; a ladder of which nothing is encoded is pipelines/copy.toml",
        );
    }
    let is_mixed = video.copies || !encodes_sound;
    if is_mixed && video.keyframes == KeyframePolicy::Counted {
        root.problem(
            "video.keyframes",
            "must be \"forced\" beside a rung with copy = true: its key frames are followed",
        );
    }
}

/// `None` within, where the sound is copied.
fn read_audio(mut table: Reader<'_>) -> Option<Option<AudioTemplate>> {
    let rungs = table.tables("rung", MAX_RUNGS, |rung| read_rung(rung, read_audio_rung));
    let (rungs, copies) = sort_rungs(&mut table, rungs);
    if copies && rungs.as_ref().is_some_and(|rungs| !rungs.is_empty()) {
        table.problem("rung", "either one with copy = true, or none");
    }
    if copies {
        table.finish();
        return Some(None);
    }
    let codec = table.choice(
        "codec",
        &[("aac", AudioCodec::Aac), ("opus", AudioCodec::Opus)],
    );
    let delay_samples = table.integer("delay_samples", 0..=10_000);
    let frame_samples = table.integer("frame_samples", 64..=4_096);
    let encoder = table.text("encoder");
    if let Some(text) = &encoder {
        let needed: &[&[&str]] = &[&["bitrate_kbps", "bitrate_bps"]];
        for what in fragment::problems(text, AUDIO_PLACEHOLDERS, needed) {
            table.problem("encoder", &what);
        }
    }
    table.finish();
    Some(Some(AudioTemplate {
        codec: codec?,
        encoder: encoder?,
        delay_samples: delay_samples?,
        frame_samples: frame_samples?,
        rungs: rungs?,
    }))
}

fn read_audio_rung(mut rung: Reader<'_>) -> Option<AudioRung> {
    let bitrate_kbps = rung.integer("bitrate_kbps", 6..=1_024);
    rung.finish();
    Some(AudioRung {
        bitrate_kbps: bitrate_kbps?,
    })
}

#[cfg(test)]
mod tests;

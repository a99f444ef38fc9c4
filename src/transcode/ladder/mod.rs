//! Decides the rungs: which of a pipeline file's fit this source and this machine, and how each is
//! encoded.
//!
//! Enters: a checked [`Template`], what is known of the source, the machine, the grid
//! Leaves: a [`Plan`] that the worker carries out without deciding anything
//! Never:  GStreamer, clocks, measurements of its own
//! Time:   frame rates as exact fractions; a segment's length in milliseconds
//! Spec:   pipelines/README.md

#![deny(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::float_arithmetic
)]

mod lane;
mod outline;
mod rate;
mod size;

use crate::codec::video::{Dimensions, PixelAspect};
use crate::id::RenditionName;
use crate::media::{FrameLength, PartTarget};
use crate::time::{FrameRate, Grid};
use crate::transcode::template::{
    AudioCodec, AudioTemplate, KeyframePolicy, RungSize, Template, VideoCodec, VideoRung, render,
};

#[cfg(feature = "gst")]
pub(crate) use self::outline::Outline;
pub use self::rate::{ESTIMATE_FRAMES, estimate, output_rate};

/// The longest side of a picture that is accepted, twice that of 4K: more is a mistake or an attack.
pub const MAX_SIDE: u32 = 8_192;
/// The shortest side that every encoder accepts.
pub const MIN_SIDE: u32 = 16;

/// Share of the machine that a ladder may plan to use, in percent; the rest is for bursts, the
/// server itself and the operating system.
const USABLE_PERCENT: u64 = 85;
/// CPU microseconds to decode a thousand pixels of H.264 (`avdec_h264`, 720p film: 1.65 s for 553
/// megapixels).
const DECODE_US_PER_KILOPIXEL: u64 = 3;
/// CPU microseconds to scale a picture down, per thousand pixels read (`videoscale`, bilinear: 3.3 s
/// for 1106 megapixels).
const SCALE_US_PER_KILOPIXEL: u64 = 3;
/// How far apart key frames may lie for an encoder that is told where to put them, in segments: far
/// enough never to happen, near enough to recover if it did.
const FORCED_KEYINT_SEGMENTS: u64 = 4;
/// The most threads per encoder: beyond it latency grows faster than speed.
const MAX_ENCODER_THREADS: u32 = 4;

/// The pictures of a source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VideoSource {
    /// Coded size after cropping.
    pub dimensions: Dimensions,
    /// Shape of its pixels.
    pub pixel_aspect: PixelAspect,
    /// Frames per second, from [`estimate`].
    pub rate: FrameRate,
}

/// What a ladder is derived from. A source has at least one of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Source {
    /// The pictures, if there are any.
    pub video: Option<VideoSource>,
    /// The sound's sample rate, if there is any. A ladder has sound in any case.
    pub audio_rate: Option<u32>,
}

/// What the ladder may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Machine {
    /// Processor cores for this broadcast, at least 1.
    pub cores: u32,
}

/// One rung of pictures, decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannedVideo {
    /// `v720`, `v720p60`.
    pub name: RenditionName,
    /// Size in square pixels; both even.
    pub dimensions: Dimensions,
    /// It takes every `divisor`-th slot of the plan's rate, beginning with slot 0 of the epoch.
    pub divisor: u32,
    /// The rate that its encoder aims at, in bits per second.
    pub bitrate_bps: u64,
    /// Rungs of the same lane are encoded one after another on one thread.
    pub lane: u32,
    /// The launch fragment, complete.
    pub encoder: String,
}

/// All pictures of a ladder, decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VideoPlan {
    /// The codec of every rung.
    pub codec: VideoCodec,
    /// How key frames come to lie on the grid.
    pub keyframes: KeyframePolicy,
    /// The size at which frames enter the encode side, whatever the source becomes later.
    pub canvas: Dimensions,
    /// Slots per second.
    pub rate: FrameRate,
    /// The rungs, best first. Never empty.
    pub rungs: Vec<PlannedVideo>,
}

/// One rung of sound, decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannedAudio {
    /// `a128`.
    pub name: RenditionName,
    /// The rate that its encoder aims at, in bits per second.
    pub bitrate_bps: u64,
    /// The launch fragment, complete.
    pub encoder: String,
}

/// All sound of a ladder, decided. Always stereo.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AudioPlan {
    /// The codec of every rung.
    pub codec: AudioCodec,
    /// Samples per second, 44100 or 48000.
    pub sample_rate: u32,
    /// By how many samples decoded sound lags what was encoded.
    pub delay_samples: u32,
    /// Samples per access unit.
    pub frame_samples: u32,
    /// The rungs, best first. Never empty.
    pub rungs: Vec<PlannedAudio>,
}

/// A ladder, decided: what the worker builds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The grid that all rungs are cut on.
    pub grid: Grid,
    /// How long parts of the renditions will be: every one needs a picture.
    pub part: PartTarget,
    /// The pictures; `None` for a source of sound alone.
    pub video: Option<VideoPlan>,
    /// The sound; `None` where none is encoded.
    pub audio: Option<AudioPlan>,
    /// Whether pictures take the places of the source's own, and have key frames where it has: beside a
    /// rendition that is the source's own. Else all lies on the grid.
    pub follows: bool,
    /// Rungs that the machine cannot carry, best first, for the log and for people.
    pub shed: Vec<RenditionName>,
}

/// Why there is no ladder for a source.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The picture is too small or too large.
    #[error("a picture of {width}x{height}; each side must be {MIN_SIDE} to {MAX_SIDE}")]
    Dimensions {
        /// Pixels across.
        width: u32,
        /// Pixels down.
        height: u32,
    },
    /// There are neither pictures nor sound.
    #[error("the source has neither pictures nor sound")]
    Empty,
}

/// Decides the ladder of `template` for `source` on `machine`, to be cut on `grid` into parts of about
/// `part_ms`.
///
/// # Errors
///
/// [`Error`] if the source has no track or a picture of impossible size.
pub fn plan(
    template: &Template,
    source: &Source,
    machine: Machine,
    grid: Grid,
    part_ms: u32,
) -> Result<Plan, Error> {
    if source.video.is_none() && source.audio_rate.is_none() {
        return Err(Error::Empty);
    }
    let mut shed = Vec::new();
    let video = match &source.video {
        Some(video) => plan_video(template, video, machine, grid, &mut shed)?,
        None => None,
    };
    let audio = template.audio.as_ref();
    let audio = audio.map(|audio| plan_audio(audio, source.audio_rate));
    Ok(Plan {
        grid,
        part: part(video.as_ref(), audio.as_ref(), (grid, part_ms)),
        video,
        audio,
        follows: template.is_mixed(),
        shed,
    })
}

/// How long parts of the planned renditions come to be when they are packaged.
fn part(
    video: Option<&VideoPlan>,
    audio: Option<&AudioPlan>,
    (grid, part_ms): (Grid, u32),
) -> PartTarget {
    let pictures = video.into_iter().flat_map(|video| {
        let rates = video
            .rungs
            .iter()
            .filter_map(|rung| video.rate.divided(rung.divisor));
        rates.map(FrameLength::of_pictures)
    });
    let sound = audio.filter(|audio| !audio.rungs.is_empty());
    let sound =
        sound.and_then(|audio| FrameLength::of_sound(audio.frame_samples, audio.sample_rate));
    let frames: Vec<_> = pictures.chain(sound).collect();
    let suiting = PartTarget::choose(part_ms, grid.segment_ms(), &frames);
    suiting.unwrap_or_else(|| PartTarget::unannounced(part_ms))
}

fn plan_audio(audio: &AudioTemplate, source_rate: Option<u32>) -> AudioPlan {
    let sample_rate = match (audio.codec, source_rate) {
        (AudioCodec::Aac, Some(44_100)) => 44_100,
        _ => 48_000,
    };
    let mut rungs: Vec<PlannedAudio> = Vec::new();
    for rung in &audio.rungs {
        let bps = u64::from(rung.bitrate_kbps) * 1_000;
        let values = [
            ("bitrate_kbps", u64::from(rung.bitrate_kbps)),
            ("bitrate_bps", bps),
            ("sample_rate", u64::from(sample_rate)),
        ];
        let Ok(name) = format!("a{}", rung.bitrate_kbps).parse() else {
            continue;
        };
        if rungs.iter().all(|other| other.name != name) {
            rungs.push(PlannedAudio {
                name,
                bitrate_bps: bps,
                encoder: render(&audio.encoder, &values),
            });
        }
    }
    rungs.sort_by_key(|rung| std::cmp::Reverse(rung.bitrate_bps));
    AudioPlan {
        codec: audio.codec,
        sample_rate,
        delay_samples: audio.delay_samples,
        frame_samples: audio.frame_samples,
        rungs,
    }
}

/// A rung that fits the source, before the machine is asked.
#[derive(Clone, Copy, Debug)]
struct Candidate {
    dimensions: Dimensions,
    divisor: u32,
    max_fps: u32,
    bitrate_kbps: u32,
}

fn plan_video(
    template: &Template,
    source: &VideoSource,
    machine: Machine,
    grid: Grid,
    shed: &mut Vec<RenditionName>,
) -> Result<Option<VideoPlan>, Error> {
    let canvas = size::canvas(source.dimensions, source.pixel_aspect)?;
    let wished = if template.is_mixed() {
        // Every picture of the source is one.
        source.rate
    } else {
        output_rate(source.rate)
    };
    let mut candidates = candidates(&template.video.rungs, canvas, wished);
    if template.video.copies {
        // The source's own is there, and better.
        candidates.retain(|candidate| candidate.dimensions != canvas);
        if candidates.is_empty() {
            return Ok(None);
        }
    }
    let counted = template.video.keyframes == KeyframePolicy::Counted;
    let divisors: Vec<u32> = candidates.iter().map(|c| c.divisor).collect();
    let rate = if template.is_mixed() {
        wished
    } else {
        rate::on_grid(wished, &divisors, counted, grid)
    };
    let cost = u64::from(template.video.cost_us_per_kilopixel);
    let budget = u64::from(machine.cores.max(1)) * 1_000_000 * USABLE_PERCENT / 100;
    let costs = |candidates: &[Candidate]| -> Vec<u64> {
        let one = |candidate| rung_cost(candidate, canvas, rate, cost);
        candidates.iter().map(one).collect()
    };
    let decoding = cost_per_second(canvas, 1, rate, DECODE_US_PER_KILOPIXEL);
    while candidates.len() > 1 && decoding + costs(&candidates).iter().sum::<u64>() > budget {
        let dropped = candidates.remove(0);
        shed.extend(name(&dropped, rate));
    }
    let threads = machine.cores / u32::try_from(candidates.len()).unwrap_or(u32::MAX);
    let threads = threads.clamp(1, MAX_ENCODER_THREADS);
    let lanes = lane::assign(&costs(&candidates));
    let planned = |(candidate, lane): (&Candidate, u32)| {
        planned(template, candidate, rate, lane, (threads, grid))
    };
    let rungs = candidates.iter().zip(lanes).filter_map(planned).collect();
    Ok(Some(VideoPlan {
        codec: template.video.codec,
        keyframes: template.video.keyframes,
        canvas,
        rate,
        rungs,
    }))
}

/// The rungs of `listed` for a source of `canvas` at `rate`, best first.
fn candidates(listed: &[VideoRung], canvas: Dimensions, rate: FrameRate) -> Vec<Candidate> {
    let side = canvas.width.min(canvas.height);
    let mut all: Vec<Candidate> = Vec::new();
    for rung in listed {
        let Some((lines, bitrate_kbps)) = fit(rung, listed, side) else {
            continue;
        };
        all.push(Candidate {
            dimensions: size::scaled(canvas, lines),
            divisor: rate::divisor(rate, rung.max_fps),
            max_fps: rung.max_fps,
            bitrate_kbps,
        });
    }
    // Of two that come out alike, the one that asks for less is meant.
    all.sort_by_key(|c| (c.dimensions.height * c.dimensions.width, c.max_fps));
    all.dedup_by_key(|c| (c.dimensions, c.divisor));
    all.sort_by_key(|c| std::cmp::Reverse((c.dimensions.height * c.dimensions.width, c.max_fps)));
    all
}

/// The lines and the bitrate of `rung` for a source of `side` lines; `None` if it would upscale.
fn fit(rung: &VideoRung, listed: &[VideoRung], side: u32) -> Option<(u32, u32)> {
    let RungSize::Lines(lines) = rung.size else {
        return Some((side, rung.bitrate_kbps));
    };
    if lines <= side {
        return Some((lines, rung.bitrate_kbps));
    }
    let sizes = || {
        listed.iter().filter_map(|other| match other.size {
            RungSize::Lines(lines) => Some(lines),
            RungSize::Source => None,
        })
    };
    let next_above = sizes().filter(|other| *other > side).min();
    let near_below = sizes().any(|other| other <= side && other * 10 > side * 9);
    if next_above != Some(lines) || near_below {
        return None;
    }
    // The first rung above the source lends it its quality: the same bits per pixel.
    let scaled = u64::from(rung.bitrate_kbps) * u64::from(side).pow(2) / u64::from(lines).pow(2);
    Some((side, u32::try_from(scaled.max(16)).ok()?))
}

/// CPU microseconds per second for pictures of `size`, of which every `divisor`-th is taken.
fn cost_per_second(size: Dimensions, divisor: u32, rate: FrameRate, us_per_kilopixel: u64) -> u64 {
    let pixels = u64::from(size.width) * u64::from(size.height);
    pixels * rate.millihertz() / u64::from(divisor) / 1_000 * us_per_kilopixel / 1_000
}

/// CPU microseconds per second to scale from `canvas` and to encode.
fn rung_cost(rung: &Candidate, canvas: Dimensions, rate: FrameRate, encode: u64) -> u64 {
    let scaling = if rung.dimensions == canvas {
        0
    } else {
        cost_per_second(canvas, rung.divisor, rate, SCALE_US_PER_KILOPIXEL)
    };
    cost_per_second(rung.dimensions, rung.divisor, rate, encode) + scaling
}

/// `v720`, or `v720p60` above 30 frames per second. `None` cannot happen: such a name is legal.
fn name(candidate: &Candidate, rate: FrameRate) -> Option<RenditionName> {
    let side = candidate.dimensions.width.min(candidate.dimensions.height);
    let fps = rate::rounded(rate, candidate.divisor);
    let text = if fps > 30 {
        format!("v{side}p{fps}")
    } else {
        format!("v{side}")
    };
    text.parse().ok()
}

fn planned(
    template: &Template,
    candidate: &Candidate,
    rate: FrameRate,
    lane: u32,
    (threads, grid): (u32, Grid),
) -> Option<PlannedVideo> {
    let slots = rate::slots_per_segment(rate, candidate.divisor, grid);
    let keyint = match template.video.keyframes {
        KeyframePolicy::Counted => slots,
        KeyframePolicy::Forced => slots * FORCED_KEYINT_SEGMENTS,
    };
    let bps = u64::from(candidate.bitrate_kbps) * 1_000;
    let values = [
        ("bitrate_kbps", u64::from(candidate.bitrate_kbps)),
        ("bitrate_bps", bps),
        ("fps", rate::rounded(rate, candidate.divisor)),
        ("height", u64::from(candidate.dimensions.height)),
        ("keyint", keyint),
        ("threads", u64::from(threads)),
        ("width", u64::from(candidate.dimensions.width)),
    ];
    Some(PlannedVideo {
        name: name(candidate, rate)?,
        dimensions: candidate.dimensions,
        divisor: candidate.divisor,
        bitrate_bps: bps,
        lane,
        encoder: render(&template.video.encoder, &values),
    })
}

#[cfg(test)]
mod tests;

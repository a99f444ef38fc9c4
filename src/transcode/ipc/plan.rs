//! A [`Plan`] in a message's body.
//!
//! Enters: a plan; a body
//! Leaves: bytes; the same plan
//! Never:  decides anything
//! Spec:   none

use std::num::NonZeroU32;

use super::MAX_RENDITIONS;
use super::codec::{parse_dimensions, parse_rate, write_dimensions, write_rate};
use super::wire::{Input, Output};
use crate::id::RenditionName;
use crate::media::PartTarget;
use crate::time::Grid;
use crate::transcode::ladder::{AudioPlan, Plan, PlannedAudio, PlannedVideo, VideoPlan};
use crate::transcode::template::{AudioCodec, KeyframePolicy, VideoCodec};

pub(super) fn write(plan: &Plan, out: &mut Output<'_>) {
    out.u32(plan.grid.segment_ms());
    out.u64(plan.part.as_micros());
    out.flag(plan.video.is_some());
    if let Some(video) = &plan.video {
        write_video(video, out);
    }
    out.flag(plan.audio.is_some());
    if let Some(audio) = &plan.audio {
        write_audio(audio, out);
    }
    out.flag(plan.follows);
    out.count(plan.shed.len());
    for name in &plan.shed {
        write_name(name, out);
    }
}

pub(super) fn parse(body: &mut Input) -> Option<Plan> {
    let grid = Grid::new(NonZeroU32::new(body.u32()?)?);
    let part = PartTarget::from_micros(body.u64()?);
    let video = if body.flag()? {
        Some(parse_video(body)?)
    } else {
        None
    };
    let audio = if body.flag()? {
        Some(parse_audio(body)?)
    } else {
        None
    };
    let follows = body.flag()?;
    let shed = parse_list(body, parse_name)?;
    Some(Plan {
        grid,
        part,
        video,
        audio,
        follows,
        shed,
    })
}

fn write_name(name: &RenditionName, out: &mut Output<'_>) {
    out.bytes(name.as_str().as_bytes());
}

fn parse_name(body: &mut Input) -> Option<RenditionName> {
    body.text()?.parse().ok()
}

pub(super) fn parse_list<T>(
    body: &mut Input,
    parse: impl Fn(&mut Input) -> Option<T>,
) -> Option<Vec<T>> {
    let count = body.count(MAX_RENDITIONS)?;
    (0..count).map(|_| parse(body)).collect()
}

fn write_video(video: &VideoPlan, out: &mut Output<'_>) {
    out.u8(match video.codec {
        VideoCodec::H264 => 1,
        VideoCodec::Vp9 => 2,
        VideoCodec::Av1 => 3,
    });
    out.flag(video.keyframes == KeyframePolicy::Counted);
    write_dimensions(video.canvas, out);
    write_rate(video.rate, out);
    out.count(video.rungs.len());
    for rung in &video.rungs {
        write_name(&rung.name, out);
        write_dimensions(rung.dimensions, out);
        out.u32(rung.divisor);
        out.u64(rung.bitrate_bps);
        out.u32(rung.lane);
        out.bytes(rung.encoder.as_bytes());
    }
}

fn parse_video(body: &mut Input) -> Option<VideoPlan> {
    let codec = match body.u8()? {
        1 => VideoCodec::H264,
        2 => VideoCodec::Vp9,
        3 => VideoCodec::Av1,
        _ => return None,
    };
    let keyframes = if body.flag()? {
        KeyframePolicy::Counted
    } else {
        KeyframePolicy::Forced
    };
    let rung = |body: &mut Input| {
        Some(PlannedVideo {
            name: parse_name(body)?,
            dimensions: parse_dimensions(body)?,
            divisor: body.u32().filter(|divisor| *divisor > 0)?,
            bitrate_bps: body.u64()?,
            lane: body.u32()?,
            encoder: body.text()?,
        })
    };
    Some(VideoPlan {
        codec,
        keyframes,
        canvas: parse_dimensions(body)?,
        rate: parse_rate(body)?,
        rungs: parse_list(body, rung)?,
    })
}

fn write_audio(audio: &AudioPlan, out: &mut Output<'_>) {
    out.flag(audio.codec == AudioCodec::Opus);
    out.u32(audio.sample_rate);
    out.u32(audio.delay_samples);
    out.u32(audio.frame_samples);
    out.count(audio.rungs.len());
    for rung in &audio.rungs {
        write_name(&rung.name, out);
        out.u64(rung.bitrate_bps);
        out.bytes(rung.encoder.as_bytes());
    }
}

fn parse_audio(body: &mut Input) -> Option<AudioPlan> {
    let codec = if body.flag()? {
        AudioCodec::Opus
    } else {
        AudioCodec::Aac
    };
    let rung = |body: &mut Input| {
        Some(PlannedAudio {
            name: parse_name(body)?,
            bitrate_bps: body.u64()?,
            encoder: body.text()?,
        })
    };
    Some(AudioPlan {
        codec,
        sample_rate: body.u32().filter(|rate| *rate > 0)?,
        delay_samples: body.u32()?,
        frame_samples: body.u32().filter(|samples| *samples > 0)?,
        rungs: parse_list(body, rung)?,
    })
}

//! Tracks, renditions and samples in a message's body.
//!
//! Enters: values of `media`; bodies
//! Leaves: bytes; the same values
//! Never:  re-parses a configuration record: all its fields travel
//! Spec:   none

use std::num::NonZeroU32;
use std::time::Duration;

use super::wire::{Input, Output};
use crate::codec::video::{Colour, Dimensions, PixelAspect};
use crate::codec::{aac, av1, h264, hevc, opus, vp9};
use crate::id::TrackId;
use crate::media::{CodecConfig, Rendition, Sample, TrackInfo};
use crate::time::{FrameRate, Span, Ticks, Timescale};
use crate::transcode::Absence;
use crate::transcode::conductor::{Conducted, Shown};
use crate::transcode::overload::Load;

pub(super) fn write_sample(sample: &Sample, out: &mut Output<'_>) {
    out.i64(sample.dts.get());
    out.i64(sample.pts.get());
    out.u64(sample.duration.get());
    out.flag(sample.keyframe);
    out.bytes(&sample.data);
}

pub(super) fn parse_sample(body: &mut Input) -> Option<Sample> {
    Some(Sample {
        dts: Ticks::new(body.i64()?),
        pts: Ticks::new(body.i64()?),
        duration: Span::new(body.u64()?),
        keyframe: body.flag()?,
        data: body.bytes()?,
    })
}

pub(super) fn parse_track_id(body: &mut Input) -> Option<TrackId> {
    NonZeroU32::new(body.u32()?).map(TrackId::new)
}

pub(super) fn write_absence(absence: &Absence, out: &mut Output<'_>) {
    out.u64(u64::try_from(absence.hold.as_millis()).unwrap_or(u64::MAX));
    out.bytes(&absence.slate);
}

pub(super) fn parse_absence(body: &mut Input) -> Option<Absence> {
    Some(Absence {
        hold: Duration::from_millis(body.u64()?),
        slate: body.bytes()?,
    })
}

pub(super) fn write_conducted(conducted: &Conducted, out: &mut Output<'_>) {
    out.u8(match conducted.shown {
        Shown::Source => 1,
        Shown::Held => 2,
        Shown::Slate => 3,
    });
    out.u64(conducted.held_slots);
    out.u64(conducted.slate_slots);
    out.u64(conducted.dropped_frames);
    out.u64(conducted.moves);
    out.u64(conducted.slate_ms);
}

pub(super) fn parse_conducted(body: &mut Input) -> Option<Conducted> {
    Some(Conducted {
        shown: match body.u8()? {
            1 => Shown::Source,
            2 => Shown::Held,
            3 => Shown::Slate,
            _ => return None,
        },
        held_slots: body.u64()?,
        slate_slots: body.u64()?,
        dropped_frames: body.u64()?,
        moves: body.u64()?,
        slate_ms: body.u64()?,
    })
}

pub(super) fn write_load(load: &Load, out: &mut Output<'_>) {
    out.u32(load.resting);
    out.u32(load.late_ms);
    out.u64(load.left_frames);
}

pub(super) fn parse_load(body: &mut Input) -> Option<Load> {
    Some(Load {
        resting: body.u32()?,
        late_ms: body.u32()?,
        left_frames: body.u64()?,
    })
}

pub(super) fn write_track(info: &TrackInfo, out: &mut Output<'_>) {
    out.u32(info.id.get().get());
    out.u32(info.timescale.get());
    write_codec(&info.codec, out);
}

pub(super) fn parse_track(body: &mut Input) -> Option<TrackInfo> {
    Some(TrackInfo {
        id: parse_track_id(body)?,
        timescale: Timescale::new(body.u32()?)?,
        codec: parse_codec(body)?,
    })
}

pub(super) fn write_rendition(rendition: &Rendition, out: &mut Output<'_>) {
    out.bytes(rendition.name.as_str().as_bytes());
    out.u32(rendition.timescale.get());
    write_codec(&rendition.codec, out);
    write_optional_rate(rendition.frame_rate, out);
    out.u64(rendition.target_bps);
}

pub(super) fn parse_rendition(body: &mut Input) -> Option<Rendition> {
    Some(Rendition {
        name: body.text()?.parse().ok()?,
        timescale: Timescale::new(body.u32()?)?,
        codec: parse_codec(body)?,
        frame_rate: parse_optional_rate(body)?,
        target_bps: body.u64()?,
    })
}

pub(super) fn write_rate(rate: FrameRate, out: &mut Output<'_>) {
    out.u32(rate.num());
    out.u32(rate.den());
}

pub(super) fn parse_rate(body: &mut Input) -> Option<FrameRate> {
    FrameRate::new(body.u32()?, body.u32()?)
}

fn write_optional_rate(rate: Option<FrameRate>, out: &mut Output<'_>) {
    out.flag(rate.is_some());
    if let Some(rate) = rate {
        write_rate(rate, out);
    }
}

fn parse_optional_rate(body: &mut Input) -> Option<Option<FrameRate>> {
    if body.flag()? {
        parse_rate(body).map(Some)
    } else {
        Some(None)
    }
}

pub(super) fn write_dimensions(size: Dimensions, out: &mut Output<'_>) {
    out.u32(size.width);
    out.u32(size.height);
}

pub(super) fn parse_dimensions(body: &mut Input) -> Option<Dimensions> {
    Some(Dimensions {
        width: body.u32()?,
        height: body.u32()?,
    })
}

fn write_pixel_aspect(aspect: PixelAspect, out: &mut Output<'_>) {
    out.u32(aspect.width.get());
    out.u32(aspect.height.get());
}

fn parse_pixel_aspect(body: &mut Input) -> Option<PixelAspect> {
    Some(PixelAspect {
        width: NonZeroU32::new(body.u32()?)?,
        height: NonZeroU32::new(body.u32()?)?,
    })
}

fn write_colour(colour: Colour, out: &mut Output<'_>) {
    out.u8(colour.primaries);
    out.u8(colour.transfer);
    out.u8(colour.matrix);
    out.flag(colour.full_range);
}

fn parse_colour(body: &mut Input) -> Option<Colour> {
    Some(Colour {
        primaries: body.u8()?,
        transfer: body.u8()?,
        matrix: body.u8()?,
        full_range: body.flag()?,
    })
}

fn write_codec(codec: &CodecConfig, out: &mut Output<'_>) {
    match codec {
        CodecConfig::H264(c) => {
            out.u8(1);
            out.bytes(&c.avcc);
            out.u8(c.profile);
            out.u8(c.compatibility);
            out.u8(c.level);
            write_dimensions(c.dimensions, out);
            write_pixel_aspect(c.pixel_aspect, out);
            write_colour(c.colour, out);
            write_optional_rate(c.declared_rate, out);
        }
        CodecConfig::Vp9(c) => {
            out.u8(2);
            out.u8(c.profile);
            out.u8(c.level);
            out.u8(c.bit_depth);
            out.u8(c.chroma_subsampling);
            write_dimensions(c.dimensions, out);
            write_colour(c.colour, out);
        }
        CodecConfig::Av1(c) => {
            out.u8(3);
            out.bytes(&c.av1c);
            out.u8(c.profile);
            out.u8(c.level_idx);
            out.flag(c.high_tier);
            out.u8(c.bit_depth);
            write_dimensions(c.dimensions, out);
            write_colour(c.colour, out);
        }
        CodecConfig::Aac(c) => {
            out.u8(4);
            out.bytes(&c.asc);
            out.u8(c.object_type);
            out.u32(c.sample_rate);
            out.u8(c.channels);
            out.u32(c.frame_samples);
        }
        CodecConfig::Opus(c) => {
            out.u8(5);
            out.u8(c.channels);
            out.u32(u32::from(c.pre_skip));
            out.u32(c.input_sample_rate);
        }
        CodecConfig::Hevc(c) => {
            out.u8(6);
            out.bytes(&c.hvcc);
            out.u8(c.profile_space);
            out.flag(c.high_tier);
            out.u8(c.profile);
            out.u32(c.compatibility);
            for byte in c.constraints {
                out.u8(byte);
            }
            out.u8(c.level);
            out.u8(c.bit_depth);
            write_dimensions(c.dimensions, out);
            write_pixel_aspect(c.pixel_aspect, out);
            write_colour(c.colour, out);
            write_optional_rate(c.declared_rate, out);
        }
    }
}

fn parse_codec(body: &mut Input) -> Option<CodecConfig> {
    Some(match body.u8()? {
        1 => CodecConfig::H264(h264::Config {
            avcc: body.bytes()?,
            profile: body.u8()?,
            compatibility: body.u8()?,
            level: body.u8()?,
            dimensions: parse_dimensions(body)?,
            pixel_aspect: parse_pixel_aspect(body)?,
            colour: parse_colour(body)?,
            declared_rate: parse_optional_rate(body)?,
        }),
        2 => CodecConfig::Vp9(vp9::Config {
            profile: body.u8()?,
            level: body.u8()?,
            bit_depth: body.u8()?,
            chroma_subsampling: body.u8()?,
            dimensions: parse_dimensions(body)?,
            colour: parse_colour(body)?,
        }),
        3 => CodecConfig::Av1(av1::Config {
            av1c: body.bytes()?,
            profile: body.u8()?,
            level_idx: body.u8()?,
            high_tier: body.flag()?,
            bit_depth: body.u8()?,
            dimensions: parse_dimensions(body)?,
            colour: parse_colour(body)?,
        }),
        4 => CodecConfig::Aac(aac::Config {
            asc: body.bytes()?,
            object_type: body.u8()?,
            sample_rate: body.u32()?,
            channels: body.u8()?,
            frame_samples: body.u32()?,
        }),
        5 => CodecConfig::Opus(opus::Config {
            channels: body.u8()?,
            pre_skip: u16::try_from(body.u32()?).ok()?,
            input_sample_rate: body.u32()?,
        }),
        6 => CodecConfig::Hevc(hevc::Config {
            hvcc: body.bytes()?,
            profile_space: body.u8()?,
            high_tier: body.flag()?,
            profile: body.u8()?,
            compatibility: body.u32()?,
            constraints: [
                body.u8()?,
                body.u8()?,
                body.u8()?,
                body.u8()?,
                body.u8()?,
                body.u8()?,
            ],
            level: body.u8()?,
            bit_depth: body.u8()?,
            dimensions: parse_dimensions(body)?,
            pixel_aspect: parse_pixel_aspect(body)?,
            colour: parse_colour(body)?,
            declared_rate: parse_optional_rate(body)?,
        }),
        _ => return None,
    })
}

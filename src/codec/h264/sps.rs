//! The sequence parameter set.
//!
//! Enters: one NAL unit of type 7, from anyone
//! Leaves: [`Sps`], every value checked against the range that the standard gives it
//! Never:  picture parameter sets, extensions of the SPS
//! Spec:   [H264] §7.3.2.1.1, §7.4.2.1.1, annex E.1.1

use super::Error;
use crate::codec::annexb;
use crate::codec::bits::BitReader;
use crate::codec::video::{Colour, Dimensions, PixelAspect};
use crate::codec::vui;
use crate::time::FrameRate;

/// Most pixels along one side: level 6.2 allows 16 880 ([H264] table A-1), and a decoder's memory follows it.
const MAX_SIDE: u32 = 16_880;

/// What an SPS says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sps {
    pub(super) profile: u8,
    pub(super) compatibility: u8,
    pub(super) level: u8,
    pub(super) chroma_format: u8,
    pub(super) luma_depth: u8,
    pub(super) chroma_depth: u8,
    pub(super) dimensions: Dimensions,
    pub(super) frames_only: bool,
    pub(super) pixel_aspect: PixelAspect,
    pub(super) colour: Colour,
    pub(super) declared_rate: Option<FrameRate>,
}

/// The fields that the high profiles put behind the SPS's number.
struct Chroma {
    format: u8,
    luma_depth: u8,
    chroma_depth: u8,
    separate_planes: bool,
}

#[derive(Default)]
struct Vui {
    head: vui::Head,
    declared_rate: Option<FrameRate>,
}

impl Sps {
    pub(super) fn parse(nal: &[u8]) -> Result<Self, Error> {
        let data = annexb::unescape(nal);
        let bits = &mut BitReader::new(&data);
        let found = bits.bits8(8)? & 0x1F;
        if found != 7 {
            return Err(Error::NotSps { found });
        }
        let profile = bits.bits8(8)?;
        let compatibility = bits.bits8(8)?;
        let level = bits.bits8(8)?;
        ranged("seq_parameter_set_id", bits.ue()?, 31)?;
        let chroma = if has_high_fields(profile) {
            parse_chroma(bits)?
        } else {
            Chroma {
                format: 1,
                luma_depth: 8,
                chroma_depth: 8,
                separate_planes: false,
            }
        };
        ranged("log2_max_frame_num_minus4", bits.ue()?, 12)?;
        skip_picture_order(bits)?;
        ranged("max_num_ref_frames", bits.ue()?, 16)?;
        bits.skip(1)?; // gaps_in_frame_num_value_allowed_flag
        let (dimensions, frames_only) = parse_dimensions(bits, &chroma)?;
        let vui = if bits.flag()? {
            parse_vui(bits)?
        } else {
            Vui::default()
        };
        Ok(Self {
            profile,
            compatibility,
            level,
            chroma_format: chroma.format,
            luma_depth: chroma.luma_depth,
            chroma_depth: chroma.chroma_depth,
            dimensions,
            frames_only,
            pixel_aspect: vui.head.pixel_aspect.unwrap_or(PixelAspect::SQUARE),
            colour: vui.head.colour.unwrap_or(Colour::UNSPECIFIED),
            declared_rate: vui.declared_rate,
        })
    }

    /// Whether a record of this SPS ends with the fields of the high profiles.
    pub(super) const fn has_high_fields(&self) -> bool {
        !matches!(self.profile, 66 | 77 | 88) && has_high_fields(self.profile)
    }
}

const fn has_high_fields(profile: u8) -> bool {
    matches!(
        profile,
        100 | 110 | 122 | 244 | 44 | 83 | 86 | 118 | 128 | 138 | 139 | 134 | 135
    )
}

fn ranged(field: &'static str, value: u32, max: u32) -> Result<u32, Error> {
    if value <= max {
        return Ok(value);
    }
    Err(Error::SpsField {
        field,
        found: u64::from(value),
    })
}

fn small(field: &'static str, value: u32, max: u8) -> Result<u8, Error> {
    let value = ranged(field, value, u32::from(max))?;
    Ok(u8::try_from(value).unwrap_or(max))
}

fn parse_chroma(bits: &mut BitReader<'_>) -> Result<Chroma, Error> {
    let format = small("chroma_format_idc", bits.ue()?, 3)?;
    let separate_planes = format == 3 && bits.flag()?;
    let luma_depth = 8 + small("bit_depth_luma_minus8", bits.ue()?, 6)?;
    let chroma_depth = 8 + small("bit_depth_chroma_minus8", bits.ue()?, 6)?;
    bits.skip(1)?; // qpprime_y_zero_transform_bypass_flag
    if bits.flag()? {
        let lists = if format == 3 { 12 } else { 8 };
        for list in 0..lists {
            if bits.flag()? {
                skip_scaling_list(bits, if list < 6 { 16 } else { 64 })?;
            }
        }
    }
    Ok(Chroma {
        format,
        luma_depth,
        chroma_depth,
        separate_planes,
    })
}

fn skip_scaling_list(bits: &mut BitReader<'_>, size: u32) -> Result<(), Error> {
    let mut last = 8_i64;
    for _ in 0..size {
        let delta = bits.se()?;
        if !(-128..=127).contains(&delta) {
            return Err(Error::SpsField {
                field: "delta_scale",
                found: delta.unsigned_abs(),
            });
        }
        let next = (last + delta + 256) % 256;
        if next == 0 {
            return Ok(());
        }
        last = next;
    }
    Ok(())
}

fn skip_picture_order(bits: &mut BitReader<'_>) -> Result<(), Error> {
    match ranged("pic_order_cnt_type", bits.ue()?, 2)? {
        0 => {
            ranged("log2_max_pic_order_cnt_lsb_minus4", bits.ue()?, 12)?;
        }
        1 => {
            bits.skip(1)?; // delta_pic_order_always_zero_flag
            bits.se()?; // offset_for_non_ref_pic
            bits.se()?; // offset_for_top_to_bottom_field
            for _ in 0..ranged("num_ref_frames_in_pic_order_cnt_cycle", bits.ue()?, 255)? {
                bits.se()?;
            }
        }
        _ => {}
    }
    Ok(())
}

/// The size, and whether every picture is a whole frame.
fn parse_dimensions(
    bits: &mut BitReader<'_>,
    chroma: &Chroma,
) -> Result<(Dimensions, bool), Error> {
    let columns = 1 + ranged("pic_width_in_mbs_minus1", bits.ue()?, MAX_SIDE / 16 - 1)?;
    let rows = 1 + ranged(
        "pic_height_in_map_units_minus1",
        bits.ue()?,
        MAX_SIDE / 16 - 1,
    )?;
    let frames_only = bits.flag()?;
    if !frames_only {
        bits.skip(1)?; // mb_adaptive_frame_field_flag
    }
    bits.skip(1)?; // direct_8x8_inference_flag
    let fields = if frames_only { 1 } else { 2 };
    let height = rows * 16 * fields;
    let (unit_x, unit_y) = match (chroma.format, chroma.separate_planes) {
        (1, _) => (2, 2 * fields),
        (2, _) => (2, fields),
        _ => (1, fields),
    };
    let (mut crop_x, mut crop_y) = (0_u64, 0_u64);
    if bits.flag()? {
        crop_x = (u64::from(bits.ue()?) + u64::from(bits.ue()?)) * unit_x;
        crop_y = (u64::from(bits.ue()?) + u64::from(bits.ue()?)) * u64::from(unit_y);
    }
    let dimensions = Dimensions {
        width: cropped("frame_crop_right_offset", columns * 16, crop_x)?,
        height: cropped("frame_crop_bottom_offset", height, crop_y)?,
    };
    Ok((dimensions, frames_only))
}

fn cropped(field: &'static str, coded: u32, crop: u64) -> Result<u32, Error> {
    match u32::try_from(crop) {
        Ok(crop) if crop < coded => Ok(coded - crop),
        _ => Err(Error::SpsField { field, found: crop }),
    }
}

fn parse_vui(bits: &mut BitReader<'_>) -> Result<Vui, Error> {
    let head = vui::Head::parse(bits)?;
    let mut declared_rate = None;
    if bits.flag()? {
        let (units, scale) = (bits.bits(32)?, bits.bits(32)?);
        // A tick is a field's time, and a frame has two.
        declared_rate = vui::rate(scale, 2 * u64::from(units));
    }
    Ok(Vui {
        head,
        declared_rate,
    })
}

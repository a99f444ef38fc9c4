//! The sequence parameter set.
//!
//! Enters: one NAL unit of type 33 and layer 0, from anyone
//! Leaves: [`Sps`], every value checked against the range that the standard gives it
//! Never:  other parameter sets, extensions of the SPS
//! Spec:   [H265] §7.3.2.2, §7.3.3, §7.3.4, §7.3.7, annex E.2.1

use super::{Error, NalType};
use crate::codec::annexb;
use crate::codec::bits::BitReader;
use crate::codec::video::{Colour, Dimensions, PixelAspect};
use crate::codec::vui;
use crate::time::FrameRate;

/// Most pixels along one side: level 6.2 allows 16 888 ([H265] §A.4.1), and a decoder's memory follows it.
const MAX_SIDE: u32 = 16_888;
/// `sps_max_dec_pic_buffering_minus1` is at most 15, so that no set refers to more pictures, each way.
const MAX_REFERENCES: u32 = 16;

/// What an SPS says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sps {
    pub(super) luma_depth: u8,
    pub(super) dimensions: Dimensions,
    pub(super) pixel_aspect: PixelAspect,
    pub(super) colour: Colour,
    pub(super) declared_rate: Option<FrameRate>,
}

impl Sps {
    pub(super) fn parse(nal: &[u8]) -> Result<Self, Error> {
        if super::nal_type(nal) != Some(NalType::Sps) {
            let found = nal.first().map_or(0, |byte| byte >> 1 & 0x3F);
            return Err(Error::NotSps { found });
        }
        let data = annexb::unescape(nal);
        let bits = &mut BitReader::new(data.get(2..).unwrap_or_default());
        bits.skip(4)?; // sps_video_parameter_set_id
        let sub_layers = ranged("sps_max_sub_layers_minus1", bits.bits(3)?, 6)?;
        bits.skip(1)?; // sps_temporal_id_nesting_flag
        skip_profile_tier_level(bits, sub_layers)?;
        ranged("sps_seq_parameter_set_id", bits.ue()?, 15)?;
        let dimensions = parse_dimensions(bits)?;
        let luma_depth = ranged("bit_depth_luma_minus8", bits.ue()?, 8)?;
        ranged("bit_depth_chroma_minus8", bits.ue()?, 8)?;
        let order_bits = 4 + ranged("log2_max_pic_order_cnt_lsb_minus4", bits.ue()?, 12)?;
        let first = if bits.flag()? { 0 } else { sub_layers };
        for _ in first..=sub_layers {
            bits.ue()?; // sps_max_dec_pic_buffering_minus1
            bits.ue()?; // sps_max_num_reorder_pics
            bits.ue()?; // sps_max_latency_increase_plus1
        }
        skip_coding_tools(bits)?;
        skip_references(bits, order_bits)?;
        bits.skip(2)?; // sps_temporal_mvp_enabled_flag, strong_intra_smoothing_enabled_flag
        let (head, declared_rate) = if bits.flag()? {
            parse_vui(bits)?
        } else {
            (vui::Head::default(), None)
        };
        Ok(Self {
            luma_depth: 8 + u8::try_from(luma_depth).unwrap_or(8),
            dimensions,
            pixel_aspect: head.pixel_aspect.unwrap_or(PixelAspect::SQUARE),
            colour: head.colour.unwrap_or(Colour::UNSPECIFIED),
            declared_rate,
        })
    }
}

fn ranged(field: &'static str, value: u32, max: u32) -> Result<u32, Error> {
    if value <= max {
        return Ok(value);
    }
    Err(out_of_range(field, u64::from(value)))
}

const fn out_of_range(field: &'static str, found: u64) -> Error {
    Error::SpsField { field, found }
}

fn skip_profile_tier_level(bits: &mut BitReader<'_>, sub_layers: u32) -> Result<(), Error> {
    bits.skip(8 + 32 + 48 + 8)?; // profile, compatibility, constraints, level
    let mut present = Vec::new();
    for _ in 0..sub_layers {
        present.push((bits.flag()?, bits.flag()?));
    }
    if sub_layers > 0 {
        bits.skip(2 * (8 - present.len()))?; // reserved_zero_2bits
    }
    for (profile, level) in present {
        bits.skip(if profile { 8 + 32 + 48 } else { 0 })?;
        bits.skip(if level { 8 } else { 0 })?;
    }
    Ok(())
}

fn parse_dimensions(bits: &mut BitReader<'_>) -> Result<Dimensions, Error> {
    let chroma = ranged("chroma_format_idc", bits.ue()?, 3)?;
    let separate_planes = chroma == 3 && bits.flag()?;
    let width = ranged("pic_width_in_luma_samples", bits.ue()?, MAX_SIDE)?;
    let height = ranged("pic_height_in_luma_samples", bits.ue()?, MAX_SIDE)?;
    let (unit_x, unit_y) = match (chroma, separate_planes) {
        (1, _) => (2, 2),
        (2, _) => (2, 1),
        _ => (1, 1),
    };
    let (mut crop_x, mut crop_y) = (0_u64, 0_u64);
    if bits.flag()? {
        crop_x = (u64::from(bits.ue()?) + u64::from(bits.ue()?)) * unit_x;
        crop_y = (u64::from(bits.ue()?) + u64::from(bits.ue()?)) * unit_y;
    }
    Ok(Dimensions {
        width: cropped("conf_win_right_offset", width, crop_x)?,
        height: cropped("conf_win_bottom_offset", height, crop_y)?,
    })
}

fn cropped(field: &'static str, coded: u32, crop: u64) -> Result<u32, Error> {
    match u32::try_from(crop) {
        Ok(crop) if crop < coded => Ok(coded - crop),
        _ => Err(out_of_range(field, crop)),
    }
}

/// From the sizes of blocks to the parameters of PCM.
fn skip_coding_tools(bits: &mut BitReader<'_>) -> Result<(), Error> {
    for _ in 0..6 {
        bits.ue()?; // sizes of coding and transform blocks, depths of their trees
    }
    if bits.flag()? && bits.flag()? {
        skip_scaling_lists(bits)?;
    }
    bits.skip(2)?; // amp_enabled_flag, sample_adaptive_offset_enabled_flag
    if bits.flag()? {
        bits.skip(4 + 4)?; // bit depths of PCM samples
        bits.ue()?;
        bits.ue()?; // sizes of PCM blocks
        bits.skip(1)?; // pcm_loop_filter_disabled_flag
    }
    Ok(())
}

fn skip_scaling_lists(bits: &mut BitReader<'_>) -> Result<(), Error> {
    for size in 0..4 {
        for _ in 0..if size == 3 { 2 } else { 6 } {
            if !bits.flag()? {
                bits.ue()?; // scaling_list_pred_matrix_id_delta
                continue;
            }
            if size > 1 {
                bits.se()?; // scaling_list_dc_coef_minus8
            }
            for _ in 0..64.min(1 << (4 + 2 * size)) {
                bits.se()?; // scaling_list_delta_coef
            }
        }
    }
    Ok(())
}

/// All sets of reference pictures, short- and long-term.
fn skip_references(bits: &mut BitReader<'_>, order_bits: u32) -> Result<(), Error> {
    let count = ranged("num_short_term_ref_pic_sets", bits.ue()?, 64)?;
    let mut last = References::default();
    for index in 0..count {
        last = if index > 0 && bits.flag()? {
            References::predicted(bits, &last)?
        } else {
            References::explicit(bits)?
        };
    }
    if bits.flag()? {
        for _ in 0..ranged("num_long_term_ref_pics_sps", bits.ue()?, 32)? {
            bits.skip(order_bits as usize + 1)?; // lt_ref_pic_poc_lsb_sps, used_by_curr_pic_lt_sps_flag
        }
    }
    Ok(())
}

/// A short-term reference picture set: how far in output order its pictures lie, the nearest first. Kept only
/// because the length of the next one depends on it.
#[derive(Default)]
struct References {
    before: Vec<i64>,
    after: Vec<i64>,
}

impl References {
    fn explicit(bits: &mut BitReader<'_>) -> Result<Self, Error> {
        let before = ranged("num_negative_pics", bits.ue()?, MAX_REFERENCES)?;
        let after = ranged("num_positive_pics", bits.ue()?, MAX_REFERENCES)?;
        let mut row = |count, sign: i64| {
            let mut at = 0;
            let mut row = Vec::new();
            for _ in 0..count {
                at += sign * (i64::from(bits.ue()?) + 1);
                bits.skip(1)?; // used_by_curr_pic_flag
                row.push(at);
            }
            Ok::<_, Error>(row)
        };
        Ok(Self {
            before: row(before, -1)?,
            after: row(after, 1)?,
        })
    }

    /// A set made of the one before it, whose pictures are each kept or not and moved by one distance
    /// ([H265] §7.4.8, equations 7-61 and 7-62).
    fn predicted(bits: &mut BitReader<'_>, from: &Self) -> Result<Self, Error> {
        let is_back = bits.flag()?;
        let distance = 1 + i64::from(ranged("abs_delta_rps_minus1", bits.ue()?, 0x7FFF)?);
        let delta = if is_back { -distance } else { distance };
        // Of each picture, and last of the one that the sets are apart by.
        let all = from.before.iter().chain(&from.after).chain([&0]);
        let mut set = Self::default();
        for at in all {
            let is_used = bits.flag()?;
            let is_kept = is_used || bits.flag()?;
            match at + delta {
                moved if is_kept && moved < 0 => set.before.push(moved),
                moved if is_kept && moved > 0 => set.after.push(moved),
                _ => {}
            }
        }
        let most = MAX_REFERENCES as usize;
        if set.before.len() > most || set.after.len() > most {
            let found = set.before.len().max(set.after.len()) as u64;
            return Err(out_of_range("inter_ref_pic_set", found));
        }
        set.before.sort_unstable_by(|a, b| b.cmp(a));
        set.after.sort_unstable();
        Ok(set)
    }
}

fn parse_vui(bits: &mut BitReader<'_>) -> Result<(vui::Head, Option<FrameRate>), Error> {
    let head = vui::Head::parse(bits)?;
    bits.skip(3)?; // neutral_chroma_indication_flag, field_seq_flag, frame_field_info_present_flag
    if bits.flag()? {
        for _ in 0..4 {
            bits.ue()?; // default display window
        }
    }
    let mut declared_rate = None;
    if bits.flag()? {
        let (units, scale) = (bits.bits(32)?, bits.bits(32)?);
        // A tick is a picture's time, and a sample holds one, be it a field.
        declared_rate = vui::rate(scale, u64::from(units));
    }
    Ok((head, declared_rate))
}

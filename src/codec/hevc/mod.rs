//! HEVC: the decoder configuration record, the parameter sets in it, and the kinds of picture.
//!
//! Enters: an `hvcC` body and access units in 4-byte lengths, from a publisher
//! Leaves: [`Config`]; [`Picture`]
//! Never:  slices' contents beyond their heads
//! Spec:   [NALFF] §8.3.3.1, [H265] §7.3.1.2, §7.4.2.2, annex E

mod sps;

use bytes::{Bytes, BytesMut};

use super::annexb::{self, LengthPrefixed, LengthSize};
use super::bits;
use super::video::{Colour, Dimensions, Picture, PixelAspect, Slice};
use crate::time::FrameRate;

/// Most NAL units that are read in a record: a handful of parameter sets for each of a few layers, and the
/// messages beside them.
const MAX_RECORD_NALS: usize = 64;
/// Bytes of a record before its arrays of NAL units.
const RECORD_HEAD_BYTES: usize = 23;
/// Where in a record the size of NAL unit lengths stands.
const LENGTH_SIZE_AT: usize = 21;
/// In the head of an array: all NAL units of its type are there, none is in a sample.
const ARRAY_COMPLETENESS: u8 = 0x80;

/// One HEVC track's parameters: the record as it goes into `hvcC`, and what it and its SPS say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The body of the `hvcC` box.
    pub hvcc: Bytes,
    /// `general_profile_space`, 0 to 3.
    pub profile_space: u8,
    /// Whether the tier is High.
    pub high_tier: bool,
    /// `general_profile_idc`: 1 for Main, 2 for Main 10.
    pub profile: u8,
    /// `general_profile_compatibility_flag`s, the first one highest.
    pub compatibility: u32,
    /// The six bytes of constraint flags.
    pub constraints: [u8; 6],
    /// `general_level_idc`: thirty times the level.
    pub level: u8,
    /// Bits per luma sample.
    pub bit_depth: u8,
    /// Size of the picture after cropping.
    pub dimensions: Dimensions,
    /// Shape of a pixel; square if the SPS does not say.
    pub pixel_aspect: PixelAspect,
    /// Colour; unspecified if the SPS does not say.
    pub colour: Colour,
    /// The rate the VUI declares. A hint only: timing is never derived from it.
    pub declared_rate: Option<FrameRate>,
}

/// Why bytes are no usable configuration of HEVC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The record ends too early.
    #[error("the hvcC record of {length} bytes is cut off")]
    Cut {
        /// Its length.
        length: usize,
    },
    /// `configurationVersion` is not 1.
    #[error("hvcC version {found} is not 1")]
    Version {
        /// What stands there.
        found: u8,
    },
    /// `lengthSizeMinusOne` is 2, which no size has.
    #[error("NAL unit lengths of 3 bytes do not exist")]
    LengthSize,
    /// No SPS of the base layer is in the record.
    #[error("the hvcC record has no sequence parameter set")]
    NoSps,
    /// More NAL units than are read.
    #[error("the hvcC record has more than {MAX_RECORD_NALS} NAL units")]
    TooManyNals,
    /// A NAL unit of another type stands where an SPS belongs.
    #[error("NAL unit type {found} is not a sequence parameter set")]
    NotSps {
        /// The type found.
        found: u8,
    },
    /// A value in the SPS lies outside what the standard allows.
    #[error("{field} of the sequence parameter set is out of range: {found}")]
    SpsField {
        /// Its name in the standard.
        field: &'static str,
        /// Its value.
        found: u64,
    },
    /// The SPS ends too early or holds an endless code.
    #[error("sequence parameter set: {0}")]
    SpsBits(#[from] bits::Error),
}

impl Config {
    /// Reads the body of an `hvcC` box or a sequence header of Enhanced RTMP. The record kept is the one
    /// given, made to say two things that `hvc1` asks for: lengths of 4 bytes (whoever sends other ones,
    /// [`length_size`], must widen its samples), and that parameter sets are in the record alone.
    ///
    /// # Errors
    /// [`Error`] for a record or a first SPS that is cut or out of range.
    pub fn parse_hvcc(hvcc: Bytes) -> Result<Self, Error> {
        length_size(&hvcc)?;
        let cut = Error::Cut { length: hvcc.len() };
        let (head, _) = hvcc.split_first_chunk::<RECORD_HEAD_BYTES>().ok_or(cut)?;
        let [
            _,
            profile,
            c0,
            c1,
            c2,
            c3,
            f0,
            f1,
            f2,
            f3,
            f4,
            f5,
            level,
            ..,
        ] = *head;
        let record = Record::parse(&hvcc)?;
        let sps = record.nals.iter().find(|nal| is_base_sps(nal));
        let sps = sps::Sps::parse(sps.ok_or(Error::NoSps)?)?;
        Ok(Self {
            profile_space: profile >> 6,
            high_tier: profile & 0x20 != 0,
            profile: profile & 0x1F,
            compatibility: u32::from_be_bytes([c0, c1, c2, c3]),
            constraints: [f0, f1, f2, f3, f4, f5],
            level,
            bit_depth: sps.luma_depth,
            dimensions: sps.dimensions,
            pixel_aspect: sps.pixel_aspect,
            colour: sps.colour,
            declared_rate: sps.declared_rate,
            hvcc: record.completed(&hvcc),
        })
    }
}

/// The size of NAL unit lengths that a record announces for its samples.
///
/// # Errors
/// [`Error::Cut`], [`Error::Version`], [`Error::LengthSize`].
pub fn length_size(hvcc: &[u8]) -> Result<LengthSize, Error> {
    let (Some(version), Some(length)) = (hvcc.first(), hvcc.get(LENGTH_SIZE_AT)) else {
        return Err(Error::Cut { length: hvcc.len() });
    };
    if *version != 1 {
        return Err(Error::Version { found: *version });
    }
    match length & 0b11 {
        0 => Ok(LengthSize::One),
        1 => Ok(LengthSize::Two),
        2 => Err(Error::LengthSize),
        _ => Ok(LengthSize::Four),
    }
}

/// What stands behind a record's head.
struct Record<'a> {
    nals: Vec<&'a [u8]>,
    /// Where the arrays of parameter sets begin.
    set_arrays: Vec<usize>,
}

impl<'a> Record<'a> {
    fn parse(hvcc: &'a [u8]) -> Result<Self, Error> {
        let cut = Error::Cut { length: hvcc.len() };
        let number = |at: usize| {
            let bytes = hvcc.get(at..)?.first_chunk()?;
            Some(usize::from(u16::from_be_bytes(*bytes)))
        };
        let arrays = *hvcc.get(RECORD_HEAD_BYTES - 1).ok_or(cut)?;
        let (mut nals, mut set_arrays) = (Vec::new(), Vec::new());
        let mut at = RECORD_HEAD_BYTES;
        for _ in 0..arrays {
            let kind = nal_type_of(hvcc.get(at).ok_or(cut)? & 0x3F);
            if matches!(kind, NalType::Vps | NalType::Sps | NalType::Pps) {
                set_arrays.push(at);
            }
            let count = number(at + 1).ok_or(cut)?;
            at += 3;
            for _ in 0..count {
                let begin = at + 2;
                let end = begin + number(at).ok_or(cut)?;
                nals.push(hvcc.get(begin..end).ok_or(cut)?);
                if nals.len() > MAX_RECORD_NALS {
                    return Err(Error::TooManyNals);
                }
                at = end;
            }
        }
        Ok(Self { nals, set_arrays })
    }

    /// The record as `hvc1` wants it; shares the bytes if it already is so.
    fn completed(&self, hvcc: &Bytes) -> Bytes {
        let marks = self.set_arrays.iter().map(|at| (*at, ARRAY_COMPLETENESS));
        let marks = marks.chain([(LENGTH_SIZE_AT, 0b11)]);
        let lacks = |(at, bits): (usize, u8)| hvcc.get(at).is_some_and(|byte| byte & bits != bits);
        if !marks.clone().any(lacks) {
            return hvcc.clone();
        }
        let mut out = BytesMut::from(&hvcc[..]);
        for (at, bits) in marks {
            if let Some(byte) = out.get_mut(at) {
                *byte |= bits;
            }
        }
        out.freeze()
    }
}

/// What a NAL unit holds, as far as anyone here asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NalType {
    /// A slice of a picture that decoding cannot begin with, and that is none of the next.
    Slice,
    /// A slice of a leading picture that is decodable after the random access point before it (RADL).
    DecodableLeading,
    /// A slice of a leading picture that needs what came before that point (RASL).
    SkippedLeading,
    /// A slice of an IDR picture.
    Idr,
    /// A slice of a broken link access picture: what follows it was cut from another sequence (BLA).
    BrokenLink,
    /// A slice of a clean random access picture: the first of an open GOP (CRA).
    CleanAccess,
    /// Video parameter set.
    Vps,
    /// Sequence parameter set.
    Sps,
    /// Picture parameter set.
    Pps,
    /// Any other `nal_unit_type`.
    Other(u8),
}

impl NalType {
    /// Whether it is a slice of a picture that decoding can begin with (IRAP).
    #[must_use]
    pub const fn is_random_access(self) -> bool {
        matches!(self, Self::Idr | Self::BrokenLink | Self::CleanAccess)
    }

    /// Whether it is a slice of a picture.
    #[must_use]
    pub const fn is_slice(self) -> bool {
        self.is_random_access()
            || matches!(
                self,
                Self::Slice | Self::DecodableLeading | Self::SkippedLeading
            )
    }
}

/// The type of a NAL unit; `None` for one without a whole header.
#[must_use]
pub fn nal_type(nal: &[u8]) -> Option<NalType> {
    let [first, _, ..] = nal else {
        return None;
    };
    Some(nal_type_of(first >> 1 & 0x3F))
}

const fn nal_type_of(kind: u8) -> NalType {
    match kind {
        6 | 7 => NalType::DecodableLeading,
        8 | 9 => NalType::SkippedLeading,
        0..=5 => NalType::Slice,
        16..=18 => NalType::BrokenLink,
        19 | 20 => NalType::Idr,
        21 => NalType::CleanAccess,
        32 => NalType::Vps,
        33 => NalType::Sps,
        34 => NalType::Pps,
        other => NalType::Other(other),
    }
}

fn is_base_sps(nal: &[u8]) -> bool {
    nal_type(nal) == Some(NalType::Sps) && is_base_layer(nal)
}

/// Whether `nuh_layer_id` is 0. Other layers are second views and finer pictures, of no use without it.
fn is_base_layer(nal: &[u8]) -> bool {
    matches!(nal, [first, second, ..] if first & 1 == 0 && second >> 3 == 0)
}

/// Whether decoding can begin with an access unit in 4-byte lengths: an IDR, BLA or CRA picture. After a CRA
/// picture a decoder leaves out the leading pictures that it cannot decode.
#[must_use]
pub fn contains_random_access(data: &[u8]) -> bool {
    slice_types(data).any(NalType::is_random_access)
}

/// Whether an access unit in 4-byte lengths holds a picture at all.
#[must_use]
pub fn contains_picture(data: &[u8]) -> bool {
    slice_types(data).next().is_some()
}

fn slice_types(data: &[u8]) -> impl Iterator<Item = NalType> {
    nals(data)
        .filter_map(nal_type)
        .filter(|kind| kind.is_slice())
}

/// Bytes of a slice that are read: two header bytes, two flags, and two codes of at most 63 bits each.
const SLICE_HEAD_BYTES: usize = 24;

/// What an access unit in 4-byte lengths says of its picture; `None` if it holds none whose head can be read.
#[must_use]
pub fn picture(data: &[u8]) -> Option<Picture> {
    let nal = nals(data).find(|nal| nal_type(nal).is_some_and(NalType::is_slice))?;
    let kind = nal_type(nal)?;
    Some(Picture {
        is_idr: kind == NalType::Idr,
        slice: if kind.is_random_access() {
            Slice::Intra
        } else {
            slice(nal)?
        },
        recovers: false,
        skips: kind == NalType::SkippedLeading,
    })
}

/// The type of the first slice of a picture that is no random access point. Extra bits in slice headers,
/// which only the parameter sets announce, are taken to be none: no encoder of a single layer has any.
fn slice(nal: &[u8]) -> Option<Slice> {
    let head = annexb::unescape(nal.get(..SLICE_HEAD_BYTES.min(nal.len()))?);
    let bits = &mut bits::BitReader::new(head.get(2..)?);
    let first_in_picture = bits.flag().ok()?;
    let _picture_parameter_set = bits.ue().ok()?;
    Some(match bits.ue().ok()? {
        _ if !first_in_picture => return None,
        0 => Slice::Bipredicted,
        1 => Slice::Predicted,
        _ => Slice::Intra,
    })
}

fn nals(data: &[u8]) -> impl Iterator<Item = &[u8]> {
    LengthPrefixed::new(data, LengthSize::Four)
        .map_while(Result::ok)
        .filter(|nal| is_base_layer(nal))
}

#[cfg(test)]
mod tests;

//! H.264: the decoder configuration record and the parameter sets in it.
//!
//! Enters: an `avcC` body, from a publisher or from an encoder
//! Leaves: [`Config`]
//! Never:  slices' contents
//! Spec:   [NALFF] §5.3.3.1, [H264] §7.3.2.1, annex E

mod sps;

use bytes::{BufMut, Bytes, BytesMut};

use super::annexb::{self, LengthPrefixed, LengthSize};
use super::bits;
use super::video::{Colour, Dimensions, Picture, PixelAspect, Slice};
use crate::time::FrameRate;

/// Most parameter sets of one kind that are read: the record counts SPSs in five bits, and no publisher
/// has more than a handful of PPSs.
const MAX_PARAMETER_SETS: usize = 31;

/// One H.264 track's parameters: the record as it goes into `avcC`, and what its SPS says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The body of the `avcC` box.
    pub avcc: Bytes,
    /// `profile_idc`.
    pub profile: u8,
    /// The constraint flags byte after `profile_idc`.
    pub compatibility: u8,
    /// `level_idc`.
    pub level: u8,
    /// Size of the picture after cropping.
    pub dimensions: Dimensions,
    /// Shape of a pixel; square if the SPS does not say.
    pub pixel_aspect: PixelAspect,
    /// Colour; unspecified if the SPS does not say.
    pub colour: Colour,
    /// The rate the VUI declares. A hint only: timing is never derived from it.
    pub declared_rate: Option<FrameRate>,
}

/// Why bytes are no usable configuration of H.264.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The record ends too early.
    #[error("the avcC record of {length} bytes is cut off")]
    Cut {
        /// Its length.
        length: usize,
    },
    /// `configurationVersion` is not 1.
    #[error("avcC version {found} is not 1")]
    Version {
        /// What stands there.
        found: u8,
    },
    /// `lengthSizeMinusOne` is 2, which no size has.
    #[error("NAL unit lengths of 3 bytes do not exist")]
    LengthSize,
    /// No SPS is in the record.
    #[error("the avcC record has no sequence parameter set")]
    NoSps,
    /// More parameter sets than are read.
    #[error("{found} parameter sets are more than {MAX_PARAMETER_SETS}")]
    TooManyParameterSets {
        /// Their number.
        found: usize,
    },
    /// A parameter set longer than a record can hold.
    #[error("a parameter set of {length} bytes is too long")]
    ParameterSetTooLong {
        /// Its length.
        length: usize,
    },
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

/// The parameter sets of a record.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ParameterSets {
    /// Sequence parameter sets, as NAL units.
    pub sps: Vec<Bytes>,
    /// Picture parameter sets, as NAL units.
    pub pps: Vec<Bytes>,
}

impl Config {
    /// Reads the body of an `avcC` box or an RTMP sequence header. The record kept is the one given, but for
    /// its length size, which is always made 4: whoever sends another one ([`length_size`]) must widen its
    /// samples.
    ///
    /// # Errors
    /// [`Error`] for a record or a first SPS that is cut or out of range.
    pub fn parse_avcc(avcc: Bytes) -> Result<Self, Error> {
        let size = length_size(&avcc)?;
        let sets = ParameterSets::parse(&avcc)?;
        let sps = sets.sps.first().ok_or(Error::NoSps)?;
        let sps = sps::Sps::parse(sps)?;
        let avcc = if size == LengthSize::Four {
            avcc
        } else {
            let mut wide = BytesMut::from(&avcc[..]);
            if let Some(byte) = wide.get_mut(4) {
                *byte |= 0b11;
            }
            wide.freeze()
        };
        Ok(Self {
            avcc,
            profile: sps.profile,
            compatibility: sps.compatibility,
            level: sps.level,
            dimensions: sps.dimensions,
            pixel_aspect: sps.pixel_aspect,
            colour: sps.colour,
            declared_rate: sps.declared_rate,
        })
    }

    /// The record that holds `sps` and `pps`, NAL units without framing.
    ///
    /// # Errors
    /// [`Error`] for no SPS, too many or too long parameter sets, or a first SPS out of range.
    pub fn from_parameter_sets(sps: &[Bytes], pps: &[Bytes]) -> Result<Self, Error> {
        let first = sps::Sps::parse(sps.first().ok_or(Error::NoSps)?)?;
        let mut out = BytesMut::new();
        out.put_u8(1); // configurationVersion
        out.put_u8(first.profile);
        out.put_u8(first.compatibility);
        out.put_u8(first.level);
        out.put_u8(0xFC | 3); // lengthSizeMinusOne
        put_sets(&mut out, sps, 0xE0)?;
        put_sets(&mut out, pps, 0)?;
        if first.has_high_fields() {
            out.put_u8(0xFC | first.chroma_format);
            out.put_u8(0xF8 | (first.luma_depth - 8));
            out.put_u8(0xF8 | (first.chroma_depth - 8));
            out.put_u8(0); // numOfSequenceParameterSetExt
        }
        Self::parse_avcc(out.freeze())
    }

    /// The parameter sets in [`Self::avcc`].
    ///
    /// # Errors
    /// [`Error`] only if the public field was replaced by something else than a record.
    pub fn parameter_sets(&self) -> Result<ParameterSets, Error> {
        ParameterSets::parse(&self.avcc)
    }

    /// Whether pictures may be coded as two fields, which are of two instants (`frame_mbs_only_flag` is 0).
    /// Encoders that may do so also code whole frames.
    #[must_use]
    pub fn may_have_fields(&self) -> bool {
        let sets = self.parameter_sets().unwrap_or_default();
        let sps = sets.sps.first().map(|sps| sps::Sps::parse(sps));
        sps.is_some_and(|sps| sps.is_ok_and(|sps| !sps.frames_only))
    }
}

fn put_sets(out: &mut BytesMut, sets: &[Bytes], reserved: u8) -> Result<(), Error> {
    let found = sets.len();
    let count = u8::try_from(found)
        .ok()
        .filter(|_| found <= MAX_PARAMETER_SETS)
        .ok_or(Error::TooManyParameterSets { found })?;
    out.put_u8(reserved | count);
    for set in sets {
        let length = set.len();
        out.put_u16(u16::try_from(length).map_err(|_| Error::ParameterSetTooLong { length })?);
        out.put_slice(set);
    }
    Ok(())
}

impl ParameterSets {
    fn parse(avcc: &Bytes) -> Result<Self, Error> {
        let cut = Error::Cut { length: avcc.len() };
        let mut at = 6;
        let mut read = |count: u8| {
            let found = usize::from(count);
            if found > MAX_PARAMETER_SETS {
                return Err(Error::TooManyParameterSets { found });
            }
            let mut sets = Vec::with_capacity(found);
            for _ in 0..found {
                let Some([high, low]) = avcc.get(at..at + 2) else {
                    return Err(cut);
                };
                let begin = at + 2;
                let end = begin + usize::from(u16::from_be_bytes([*high, *low]));
                if end > avcc.len() {
                    return Err(cut);
                }
                sets.push(avcc.slice(begin..end));
                at = end;
            }
            let next = avcc.get(at).copied();
            at += 1;
            Ok((sets, next))
        };
        let (sps, pps_count) = read(avcc.get(5).ok_or(cut)? & 0x1F)?;
        let (pps, _) = read(pps_count.ok_or(cut)?)?;
        Ok(Self { sps, pps })
    }
}

/// The size of NAL unit lengths that a record announces for its samples.
///
/// # Errors
/// [`Error::Cut`], [`Error::Version`], [`Error::LengthSize`].
pub fn length_size(avcc: &[u8]) -> Result<LengthSize, Error> {
    let [version, _, _, _, length, ..] = avcc else {
        return Err(Error::Cut { length: avcc.len() });
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

/// What a NAL unit holds, as far as anyone here asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NalType {
    /// A slice of a picture that is no IDR (types 1 to 4).
    Slice,
    /// A slice of an IDR picture.
    Idr,
    /// Supplemental information.
    Sei,
    /// Sequence parameter set.
    Sps,
    /// Picture parameter set.
    Pps,
    /// Access unit delimiter.
    AccessUnitDelimiter,
    /// Any other `nal_unit_type`.
    Other(u8),
}

/// The type of a NAL unit; `None` for an empty one.
#[must_use]
pub fn nal_type(nal: &[u8]) -> Option<NalType> {
    Some(match nal.first()? & 0x1F {
        1..=4 => NalType::Slice,
        5 => NalType::Idr,
        6 => NalType::Sei,
        7 => NalType::Sps,
        8 => NalType::Pps,
        9 => NalType::AccessUnitDelimiter,
        other => NalType::Other(other),
    })
}

/// Whether an access unit in 4-byte lengths holds an IDR picture. A recovery point is none.
#[must_use]
pub fn contains_idr(data: &[u8]) -> bool {
    nals(data).any(|nal| nal_type(nal) == Some(NalType::Idr))
}

/// Whether an access unit in 4-byte lengths holds a picture at all.
#[must_use]
pub fn contains_picture(data: &[u8]) -> bool {
    nals(data).any(|nal| matches!(nal_type(nal), Some(NalType::Slice | NalType::Idr)))
}

/// Whether an access unit in 4-byte lengths announces a recovery point, from which a decoder reaches correct
/// pictures after some frames (SEI payload type 6). Such a picture is no key frame here.
#[must_use]
pub fn contains_recovery_point(data: &[u8]) -> bool {
    nals(data)
        .filter(|nal| nal_type(nal) == Some(NalType::Sei))
        .any(|sei| sei_types(&annexb::unescape(sei)).contains(&6))
}

/// Bytes of a slice that are read: the two codes wanted take at most 63 bits each, behind one byte.
const SLICE_HEAD_BYTES: usize = 24;

/// What an access unit in 4-byte lengths says of its picture; `None` if it holds none whose head can be read.
#[must_use]
pub fn picture(data: &[u8]) -> Option<Picture> {
    let mut recovers = false;
    for nal in nals(data) {
        match nal_type(nal)? {
            NalType::Sei => recovers |= sei_types(&annexb::unescape(nal)).contains(&6),
            found @ (NalType::Slice | NalType::Idr) => {
                return Some(Picture {
                    is_idr: found == NalType::Idr,
                    slice: slice(nal)?,
                    recovers,
                    skips: false,
                });
            }
            _ => {}
        }
    }
    None
}

fn slice(nal: &[u8]) -> Option<Slice> {
    let head = annexb::unescape(nal.get(..SLICE_HEAD_BYTES.min(nal.len()))?);
    let bits = &mut bits::BitReader::new(head.get(1..)?);
    let _first_mb_in_slice = bits.ue().ok()?;
    Some(match bits.ue().ok()? % 5 {
        0 | 3 => Slice::Predicted,
        1 => Slice::Bipredicted,
        _ => Slice::Intra,
    })
}

fn nals(data: &[u8]) -> impl Iterator<Item = &[u8]> {
    LengthPrefixed::new(data, LengthSize::Four).map_while(Result::ok)
}

/// The payload types of the messages of one SEI NAL unit; those of 255 and above count as 255.
fn sei_types(sei: &[u8]) -> Vec<u8> {
    let mut types = Vec::new();
    let mut rest = sei.get(1..).unwrap_or_default();
    // What follows the last message is one byte of trailing bits.
    while rest.len() > 2 {
        let Some((kind, after)) = sei_number(rest) else {
            break;
        };
        let Some((size, after)) = sei_number(after) else {
            break;
        };
        types.push(u8::try_from(kind).unwrap_or(u8::MAX));
        rest = after.get(size..).unwrap_or_default();
    }
    types
}

fn sei_number(mut data: &[u8]) -> Option<(usize, &[u8])> {
    let mut sum = 0;
    loop {
        let (byte, rest) = data.split_first()?;
        sum += usize::from(*byte);
        data = rest;
        if *byte != 0xFF {
            return Some((sum, data));
        }
    }
}

#[cfg(test)]
mod tests;

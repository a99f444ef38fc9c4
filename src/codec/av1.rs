//! AV1: the sequence header and the `av1C` record.
//!
//! Enters: an `av1C` body or temporal units, from an encoder or a publisher
//! Leaves: [`Config`]
//! Never:  tiles; of frames more than their first bits
//! Spec:   [AV1] §5.3, §5.5, §5.9.2, [AV1ISOBMFF] §2.3.3, §2.4

use bytes::{BufMut, Bytes, BytesMut};

use super::bits::{self, BitReader};
use super::video::{Colour, Dimensions};

const OBU_SEQUENCE_HEADER: u8 = 1;
const OBU_TEMPORAL_DELIMITER: u8 = 2;
const OBU_FRAME_HEADER: u8 = 3;
const OBU_FRAME: u8 = 6;

/// One AV1 track's parameters: the record as it goes into `av1C`, and what its sequence header says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The body of the `av1C` box.
    pub av1c: Bytes,
    /// `seq_profile`.
    pub profile: u8,
    /// `seq_level_idx[0]`.
    pub level_idx: u8,
    /// Whether the tier is High.
    pub high_tier: bool,
    /// Bits per sample, 8, 10 or 12.
    pub bit_depth: u8,
    /// Size of the picture.
    pub dimensions: Dimensions,
    /// Colour of the pictures.
    pub colour: Colour,
}

/// Why bytes are no usable configuration of AV1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The sequence header ends too early.
    #[error("AV1 sequence header: {0}")]
    Bits(#[from] bits::Error),
    /// An OBU whose header or size is malformed.
    #[error("the OBU at byte {at_byte} is malformed")]
    Obu {
        /// Where it begins.
        at_byte: usize,
    },
    /// No sequence header is there.
    #[error("there is no AV1 sequence header")]
    NoSequenceHeader,
    /// The record's marker or version is another.
    #[error("the av1C record is not version 1")]
    Record,
    /// A profile above 2.
    #[error("AV1 profile {found} is reserved")]
    Profile {
        /// The profile found.
        found: u8,
    },
}

/// One open bitstream unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Obu<'a> {
    kind: u8,
    /// Header, size and payload.
    whole: &'a [u8],
    payload: &'a [u8],
}

/// The OBUs of a temporal unit; ends after the first error.
struct Obus<'a> {
    data: &'a [u8],
    at: usize,
}

impl<'a> Iterator for Obus<'a> {
    type Item = Result<Obu<'a>, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.at >= self.data.len() {
            return None;
        }
        let at_byte = self.at;
        let obu = self.data.get(at_byte..).and_then(read_obu);
        self.at = obu.map_or(self.data.len(), |obu| at_byte + obu.whole.len());
        Some(obu.ok_or(Error::Obu { at_byte }))
    }
}

fn read_obu(data: &[u8]) -> Option<Obu<'_>> {
    let header = *data.first()?;
    if header & 0x80 != 0 {
        return None; // obu_forbidden_bit
    }
    let mut begin = if header & 4 != 0 { 2 } else { 1 };
    let mut end = data.len();
    if header & 2 != 0 {
        let (size, length) = leb128(data.get(begin..)?)?;
        begin += length;
        end = begin.checked_add(size)?;
    }
    Some(Obu {
        kind: header >> 3 & 15,
        whole: data.get(..end)?,
        payload: data.get(begin..end)?,
    })
}

/// A `leb128()` number below 2^32 and the bytes that it takes.
fn leb128(data: &[u8]) -> Option<(usize, usize)> {
    let mut value = 0_u64;
    for (i, byte) in data.iter().take(8).enumerate() {
        value |= u64::from(byte & 0x7F) << (7 * i);
        if byte & 0x80 == 0 {
            let value = u32::try_from(value).ok()?;
            return Some((usize::try_from(value).ok()?, i + 1));
        }
    }
    None
}

fn put_leb128(out: &mut BytesMut, mut value: usize) {
    while value > 0x7F {
        out.put_u8(u8::try_from(value & 0x7F).unwrap_or(0) | 0x80);
        value >>= 7;
    }
    out.put_u8(u8::try_from(value).unwrap_or(0));
}

impl Config {
    /// Reads the body of an `av1C` box, which must hold the sequence header.
    ///
    /// # Errors
    /// [`Error`].
    pub fn parse_av1c(av1c: Bytes) -> Result<Self, Error> {
        let Some((&[marker, _, _, _], units)) = av1c.split_first_chunk::<4>() else {
            return Err(Error::Record);
        };
        if marker != 0x81 {
            return Err(Error::Record);
        }
        let header = Sequence::parse(find_sequence_header(units)?.payload)?;
        Ok(header.into_config(av1c))
    }

    /// Makes the record from a temporal unit, or any row of OBUs, that holds the sequence header.
    ///
    /// # Errors
    /// [`Error`].
    pub fn from_temporal_unit(data: &[u8]) -> Result<Self, Error> {
        let obu = find_sequence_header(data)?;
        let header = Sequence::parse(obu.payload)?;
        let mut out = BytesMut::new();
        out.put_u8(0x81); // marker, version
        out.put_u8(header.profile << 5 | header.level_idx);
        out.put_u8(header.flags());
        out.put_u8(0); // initial_presentation_delay_present
        out.put_u8(OBU_SEQUENCE_HEADER << 3 | 2); // obu_has_size_field
        put_leb128(&mut out, obu.payload.len());
        out.put_slice(obu.payload);
        Ok(header.into_config(out.freeze()))
    }
}

fn find_sequence_header(data: &[u8]) -> Result<Obu<'_>, Error> {
    for obu in (Obus { data, at: 0 }) {
        let obu = obu?;
        if obu.kind == OBU_SEQUENCE_HEADER {
            return Ok(obu);
        }
    }
    Err(Error::NoSequenceHeader)
}

/// Whether a temporal unit holds a frame, be it one that was decoded before and is shown now.
#[must_use]
pub fn contains_frame(unit: &[u8]) -> bool {
    first_frame(unit).is_some()
}

/// Whether decoding can begin with a temporal unit: its first frame is a key frame that is shown. One that is
/// decoded here and shown later is none ([AV1ISOBMFF] §2.4).
#[must_use]
pub fn begins_with_key_frame(unit: &[u8]) -> bool {
    const SHOW_EXISTING_AND_TYPE: u8 = 0b1110_0000;
    const SHOW_FRAME: u8 = 0b0001_0000;
    first_frame(unit).is_some_and(|frame| {
        let first = frame.payload.first().copied();
        first.is_some_and(|bits| bits & (SHOW_EXISTING_AND_TYPE | SHOW_FRAME) == SHOW_FRAME)
    })
}

fn first_frame(unit: &[u8]) -> Option<Obu<'_>> {
    let mut obus = Obus { data: unit, at: 0 }.map_while(Result::ok);
    obus.find(|obu| matches!(obu.kind, OBU_FRAME_HEADER | OBU_FRAME))
}

/// A temporal unit without its temporal delimiters, as samples are stored. Shares the bytes where the only
/// delimiter stands first, as it does by rule.
///
/// # Errors
/// [`Error::Obu`].
pub fn strip_temporal_delimiters(unit: &Bytes) -> Result<Bytes, Error> {
    let obus = Obus { data: unit, at: 0 }.collect::<Result<Vec<_>, _>>()?;
    let is_delimiter = |obu: &Obu<'_>| obu.kind == OBU_TEMPORAL_DELIMITER;
    let leading = obus.iter().take_while(|obu| is_delimiter(obu));
    let begin: usize = leading.map(|obu| obu.whole.len()).sum();
    if obus
        .iter()
        .skip_while(|obu| is_delimiter(obu))
        .any(is_delimiter)
    {
        let kept = obus.iter().filter(|obu| !is_delimiter(obu));
        return Ok(kept.flat_map(|obu| obu.whole).copied().collect());
    }
    Ok(unit.slice(begin..))
}

/// What a sequence header says.
struct Sequence {
    profile: u8,
    level_idx: u8,
    high_tier: bool,
    dimensions: Dimensions,
    colour: ColourConfig,
}

struct ColourConfig {
    bit_depth: u8,
    monochrome: bool,
    subsampled_x: bool,
    subsampled_y: bool,
    sample_position: u8,
    colour: Colour,
}

impl Sequence {
    fn parse(payload: &[u8]) -> Result<Self, Error> {
        let bits = &mut BitReader::new(payload);
        let profile = bits.bits8(3)?;
        if profile > 2 {
            return Err(Error::Profile { found: profile });
        }
        bits.skip(1)?; // still_picture
        let reduced = bits.flag()?;
        let (level_idx, high_tier) = if reduced {
            (bits.bits8(5)?, false)
        } else {
            parse_operating_points(bits)?
        };
        let (width_bits, height_bits) = (bits.bits(4)? + 1, bits.bits(4)? + 1);
        let dimensions = Dimensions {
            width: bits.bits(width_bits)? + 1,
            height: bits.bits(height_bits)? + 1,
        };
        if !reduced && bits.flag()? {
            bits.skip(4 + 3)?; // frame ID lengths
        }
        bits.skip(3)?; // use_128x128_superblock, enable_filter_intra, enable_intra_edge_filter
        if !reduced {
            skip_inter_tools(bits)?;
        }
        bits.skip(3)?; // enable_superres, enable_cdef, enable_restoration
        Ok(Self {
            profile,
            level_idx,
            high_tier,
            dimensions,
            colour: parse_colour(bits, profile)?,
        })
    }

    fn flags(&self) -> u8 {
        let colour = &self.colour;
        u8::from(self.high_tier) << 7
            | u8::from(colour.bit_depth > 8) << 6
            | u8::from(colour.bit_depth > 10) << 5
            | u8::from(colour.monochrome) << 4
            | u8::from(colour.subsampled_x) << 3
            | u8::from(colour.subsampled_y) << 2
            | colour.sample_position
    }

    const fn into_config(self, av1c: Bytes) -> Config {
        Config {
            av1c,
            profile: self.profile,
            level_idx: self.level_idx,
            high_tier: self.high_tier,
            bit_depth: self.colour.bit_depth,
            dimensions: self.dimensions,
            colour: self.colour.colour,
        }
    }
}

/// Timing and operating points; leaves level and tier of the first point.
fn parse_operating_points(bits: &mut BitReader<'_>) -> Result<(u8, bool), Error> {
    let mut delay_bits = None;
    if bits.flag()? {
        bits.skip(32 + 32)?; // num_units_in_display_tick, time_scale
        if bits.flag()? {
            bits.ue()?; // num_ticks_per_picture_minus_1
        }
        if bits.flag()? {
            delay_bits = Some(bits.bits(5)? as usize + 1);
            bits.skip(32 + 5 + 5)?; // num_units_in_decoding_tick, two lengths
        }
    }
    let has_display_delay = bits.flag()?;
    let points = bits.bits(5)? + 1;
    let mut first = None;
    for _ in 0..points {
        bits.skip(12)?; // operating_point_idc
        let level_idx = bits.bits8(5)?;
        let high_tier = level_idx > 7 && bits.flag()?;
        if let Some(length) = delay_bits
            && bits.flag()?
        {
            bits.skip(2 * length + 1)?; // two delays, low_delay_mode_flag
        }
        if has_display_delay && bits.flag()? {
            bits.skip(4)?; // initial_display_delay_minus_1
        }
        first.get_or_insert((level_idx, high_tier));
    }
    Ok(first.unwrap_or((0, false)))
}

fn skip_inter_tools(bits: &mut BitReader<'_>) -> Result<(), Error> {
    bits.skip(4)?; // interintra, masked compound, warped motion, dual filter
    let order_hint = bits.flag()?;
    if order_hint {
        bits.skip(2)?; // enable_jnt_comp, enable_ref_frame_mvs
    }
    let chooses_screen_tools = bits.flag()?;
    let screen_tools = chooses_screen_tools || bits.flag()?;
    if screen_tools && !bits.flag()? {
        bits.skip(1)?; // seq_force_integer_mv
    }
    if order_hint {
        bits.skip(3)?; // order_hint_bits_minus_1
    }
    Ok(())
}

fn parse_colour(bits: &mut BitReader<'_>, profile: u8) -> Result<ColourConfig, Error> {
    let high = bits.flag()?;
    let bit_depth = match (profile, high) {
        (2, true) if bits.flag()? => 12,
        (_, true) => 10,
        (_, false) => 8,
    };
    let monochrome = profile != 1 && bits.flag()?;
    let mut colour = Colour::UNSPECIFIED;
    if bits.flag()? {
        colour.primaries = bits.bits8(8)?;
        colour.transfer = bits.bits8(8)?;
        colour.matrix = bits.bits8(8)?;
    }
    let mut config = ColourConfig {
        bit_depth,
        monochrome,
        subsampled_x: true,
        subsampled_y: true,
        sample_position: 0,
        colour,
    };
    if !monochrome && (colour.primaries, colour.transfer, colour.matrix) == (1, 13, 0) {
        config.colour.full_range = true;
        (config.subsampled_x, config.subsampled_y) = (false, false);
        return Ok(config);
    }
    config.colour.full_range = bits.flag()?;
    if monochrome {
        return Ok(config);
    }
    (config.subsampled_x, config.subsampled_y) = match profile {
        0 => (true, true),
        1 => (false, false),
        _ if bit_depth < 12 => (true, false),
        _ => {
            let x = bits.flag()?;
            (x, x && bits.flag()?)
        }
    };
    if config.subsampled_x && config.subsampled_y {
        config.sample_position = bits.bits8(2)?;
    }
    Ok(config)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// libaom, 640x360, BT.709, studio range, level 2.1.
    const AV1C: &[u8] = &[
        0x81, 0x01, 0x0C, 0x00, 0x0A, 0x0E, 0x00, 0x00, 0x00, 0x0C, 0xC4, 0xFF, 0x67, 0x36, 0xBE,
        0x44, 0x04, 0x04, 0x04, 0x10,
    ];

    #[test]
    fn the_record_of_libaom_is_read() {
        let config = Config::parse_av1c(Bytes::from_static(AV1C)).expect("valid");
        assert_eq!(
            (config.profile, config.level_idx, config.high_tier),
            (0, 1, false)
        );
        assert_eq!(config.bit_depth, 8);
        assert_eq!(
            (config.dimensions.width, config.dimensions.height),
            (640, 360)
        );
        let expected = Colour {
            primaries: 1,
            transfer: 1,
            matrix: 1,
            full_range: false,
        };
        assert_eq!(config.colour, expected);
    }

    #[test]
    fn the_record_is_rebuilt_from_a_temporal_unit() {
        let mut unit = vec![0x12, 0x00];
        unit.extend(&AV1C[4..]);
        unit.extend([0x32, 0x02, 0x14, 0x00]);
        let config = Config::from_temporal_unit(&unit).expect("valid");
        assert_eq!(config.av1c[..], *AV1C);
        assert_eq!(Config::parse_av1c(config.av1c.clone()), Ok(config));
    }

    #[test]
    fn temporal_delimiters_are_stripped_wherever_they_stand() {
        for (unit, stripped) in [
            (&[0x12, 0, 0x32, 1, 9][..], &[0x32, 1, 9][..]),
            (&[0x32, 1, 9], &[0x32, 1, 9]),
            (
                &[0x12, 0, 0x32, 1, 9, 0x12, 0, 0x30, 7, 7],
                &[0x32, 1, 9, 0x30, 7, 7],
            ),
            (&[0x12, 0], &[]),
        ] {
            let unit = Bytes::from_static(unit);
            assert_eq!(
                strip_temporal_delimiters(&unit).expect("valid")[..],
                *stripped
            );
        }
        let cut = Bytes::from_static(&[0x12, 0, 0x32, 5, 1]);
        assert_eq!(
            strip_temporal_delimiters(&cut),
            Err(Error::Obu { at_byte: 2 })
        );
    }

    #[test]
    fn decoding_begins_with_a_key_frame_that_is_shown() {
        for (unit, has_frame, begins) in [
            (&[0x12, 0, 0x0A, 1, 0, 0x32, 1, 0x10][..], true, true),
            (&[0x1A, 1, 0x10, 0x22, 1, 0], true, true),
            (&[0x32, 1, 0x00], true, false), // decoded now, shown later
            (&[0x32, 1, 0x30], true, false), // inter
            (&[0x1A, 1, 0x90], true, false), // shown now, decoded before
            (&[0x32, 1, 0x30, 0x32, 1, 0x10], true, false),
            (&[0x12, 0, 0x2A, 1, 0], false, false),
            (&[0x32, 0], true, false),
        ] {
            assert_eq!(contains_frame(unit), has_frame, "{unit:02x?}");
            assert_eq!(begins_with_key_frame(unit), begins, "{unit:02x?}");
        }
    }

    proptest! {
        #[test]
        fn random_bytes_never_panic(data in proptest::collection::vec(any::<u8>(), 0..40)) {
            let _ = begins_with_key_frame(&data);
            let mut record = vec![0x81, 0, 0, 0, 0x0A, u8::try_from(data.len()).expect("short")];
            record.extend(&data);
            let _ = Config::parse_av1c(record.into());
            let _ = Config::from_temporal_unit(&data);
            let _ = strip_temporal_delimiters(&data.into());
        }
    }
}

//! VP9: what the key frame's header says, for the `vpcC` record.
//!
//! Enters: a key frame from an encoder, or frames and a `vpcC` record from a publisher
//! Leaves: [`Config`]
//! Never:  anything past the uncompressed header
//! Spec:   [VP9MP4] "VP Codec Configuration Record"; VP9 bitstream §6.2, annex A

use super::bits::{self, BitReader};
use super::video::{Colour, Dimensions};
use crate::time::FrameRate;

/// Levels times ten, with the most luma samples per second, per picture, and along one side (annex A).
const LEVELS: [(u8, u64, u64, u32); 14] = [
    (10, 829_440, 36_864, 512),
    (11, 2_764_800, 73_728, 768),
    (20, 4_608_000, 122_880, 960),
    (21, 9_216_000, 245_760, 1_344),
    (30, 20_736_000, 552_960, 2_048),
    (31, 36_864_000, 983_040, 2_752),
    (40, 83_558_400, 2_228_224, 4_160),
    (41, 160_432_128, 2_228_224, 4_160),
    (50, 311_951_360, 8_912_896, 8_384),
    (51, 588_251_136, 8_912_896, 8_384),
    (52, 1_176_502_272, 8_912_896, 8_384),
    (60, 1_176_502_272, 35_651_584, 16_832),
    (61, 2_353_004_544, 35_651_584, 16_832),
    (62, 4_706_009_088, 35_651_584, 16_832),
];

/// One VP9 track's parameters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// Profile, 0 to 3.
    pub profile: u8,
    /// Level times ten: 31 for level 3.1.
    pub level: u8,
    /// Bits per sample, 8, 10 or 12.
    pub bit_depth: u8,
    /// Chroma subsampling code of the record: 1 for 4:2:0 with chroma co-located with luma (0,0).
    pub chroma_subsampling: u8,
    /// Size of the picture.
    pub dimensions: Dimensions,
    /// Colour of the pictures.
    pub colour: Colour,
}

/// Why bytes are no usable configuration of VP9.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The header ends too early.
    #[error("VP9 header: {0}")]
    Bits(#[from] bits::Error),
    /// The frame marker or the sync code is wrong.
    #[error("the frame is not VP9")]
    Marker,
    /// The frame is not a key frame.
    #[error("the frame is not a key frame")]
    NotKeyFrame,
    /// A reserved bit, or chroma subsampling that the record cannot name.
    #[error("the colour configuration of the frame is reserved")]
    Colour,
    /// No level allows this many pixels.
    #[error("no level allows {width}x{height} at this rate")]
    Level {
        /// Pixels across.
        width: u32,
        /// Pixels down.
        height: u32,
    },
    /// A record of another version or with a value out of range.
    #[error("the vpcC record is not version 1 or holds a reserved value")]
    Record,
}

impl Config {
    /// Reads the uncompressed header of a key frame and chooses the lowest level whose limits of size and
    /// of samples per second hold at `rate`.
    ///
    /// # Errors
    /// [`Error`].
    pub fn parse_key_frame(frame: &[u8], rate: FrameRate) -> Result<Self, Error> {
        let bits = &mut BitReader::new(frame);
        if bits.bits(2)? != 2 {
            return Err(Error::Marker);
        }
        let profile = bits.bits8(1)? | bits.bits8(1)? << 1;
        if profile == 3 && bits.flag()? {
            return Err(Error::Colour);
        }
        let (shows_existing, is_inter) = (bits.flag()?, bits.flag()?);
        if shows_existing || is_inter {
            return Err(Error::NotKeyFrame);
        }
        bits.skip(2)?; // show_frame, error_resilient_mode
        if bits.bits(24)? != 0x49_83_42 {
            return Err(Error::Marker);
        }
        let (bit_depth, chroma_subsampling, colour) = parse_colour(bits, profile)?;
        let dimensions = Dimensions {
            width: bits.bits(16)? + 1,
            height: bits.bits(16)? + 1,
        };
        Ok(Self {
            profile,
            level: level(dimensions, rate)?,
            bit_depth,
            chroma_subsampling,
            dimensions,
            colour,
        })
    }

    /// What the sequence header of a publisher and a key frame behind it say together. The header has the
    /// level and names the colour; all else is the frame's. `rate` gives the level where the header has none.
    ///
    /// # Errors
    /// [`Error`].
    pub fn of_stream(record: &[u8], frame: &[u8], rate: FrameRate) -> Result<Self, Error> {
        let mut config = Self::parse_key_frame(frame, rate)?;
        let Some(said) = parse_record(record, config.dimensions)? else {
            return Ok(config);
        };
        if (said.profile, said.bit_depth) != (config.profile, config.bit_depth) {
            return Ok(config);
        }
        if LEVELS.iter().any(|(level, ..)| *level == said.level) {
            config.level = said.level;
        }
        if said.chroma_subsampling <= 1 && config.chroma_subsampling <= 1 {
            config.chroma_subsampling = said.chroma_subsampling;
        }
        let unspecified = Colour {
            full_range: said.colour.full_range,
            ..Colour::UNSPECIFIED
        };
        if said.colour != unspecified {
            config.colour = Colour {
                full_range: config.colour.full_range,
                ..said.colour
            };
        }
        Ok(config)
    }

    /// The body of the `vpcC` box, version and flags included.
    #[must_use]
    pub const fn write_vpcc(&self) -> [u8; 12] {
        let range = self.colour.full_range as u8;
        [
            1,
            0,
            0,
            0, // version, flags
            self.profile,
            self.level,
            self.bit_depth << 4 | (self.chroma_subsampling & 7) << 1 | range,
            self.colour.primaries,
            self.colour.transfer,
            self.colour.matrix,
            0,
            0, // codecInitializationDataSize
        ]
    }

    /// Reads the body of a `vpcC` box, version and flags included. The picture's size is not in it.
    ///
    /// # Errors
    /// [`Error::Record`].
    pub fn parse_vpcc(body: &[u8], dimensions: Dimensions) -> Result<Self, Error> {
        let [
            1,
            _,
            _,
            _,
            profile,
            level,
            packed,
            primaries,
            transfer,
            matrix,
            0,
            0,
            ..,
        ] = *body
        else {
            return Err(Error::Record);
        };
        let (bit_depth, chroma_subsampling) = (packed >> 4, packed >> 1 & 7);
        if profile > 3 || !matches!(bit_depth, 8 | 10 | 12) || chroma_subsampling > 3 {
            return Err(Error::Record);
        }
        Ok(Self {
            profile,
            level,
            bit_depth,
            chroma_subsampling,
            dimensions,
            colour: Colour {
                primaries,
                transfer,
                matrix,
                full_range: packed & 1 == 1,
            },
        })
    }
}

/// Checks the sequence header of a publisher. It may be empty; then key frames say all.
///
/// # Errors
/// [`Error::Record`].
pub fn check_record(record: &[u8]) -> Result<(), Error> {
    let any = Dimensions {
        width: 1,
        height: 1,
    };
    parse_record(record, any).map(drop)
}

/// Reads a record with or without the version and flags of its box: [ERTMP] means the latter.
fn parse_record(record: &[u8], dimensions: Dimensions) -> Result<Option<Config>, Error> {
    match record {
        [] => Ok(None),
        [1, 0, 0, 0, _, _, _, _, _, _, _, _, ..] => {
            Config::parse_vpcc(record, dimensions).map(Some)
        }
        _ => {
            let boxed = [&[1, 0, 0, 0], record].concat();
            Config::parse_vpcc(&boxed, dimensions).map(Some)
        }
    }
}

/// Whether decoding can begin with a frame, or a superframe that begins with it.
#[must_use]
pub fn is_key_frame(frame: &[u8]) -> bool {
    let bits = &mut BitReader::new(frame);
    let mut read = || {
        let is_vp9 = bits.bits(2)? == 2;
        let is_third_profile = bits.bits(2)? == 3;
        bits.skip(usize::from(is_third_profile))?; // reserved_zero
        let shows_existing = bits.flag()?;
        let is_inter = bits.flag()?;
        Ok::<_, bits::Error>(is_vp9 && !shows_existing && !is_inter)
    };
    read().unwrap_or(false)
}

fn parse_colour(bits: &mut BitReader<'_>, profile: u8) -> Result<(u8, u8, Colour), Error> {
    let bit_depth = match profile {
        0 | 1 => 8,
        _ if bits.flag()? => 12,
        _ => 10,
    };
    let space = bits.bits8(3)?;
    let odd_profile = profile % 2 == 1;
    if space == 7 {
        if !odd_profile || bits.flag()? {
            return Err(Error::Colour);
        }
        return Ok((bit_depth, 3, colour(1, 13, 0, true)));
    }
    let full_range = bits.flag()?;
    let mut chroma_subsampling = 1;
    if odd_profile {
        chroma_subsampling = match (bits.flag()?, bits.flag()?) {
            (true, false) => 2,
            (false, false) => 3,
            // 4:2:0 belongs to even profiles; 4:4:0 has no code in the record.
            _ => return Err(Error::Colour),
        };
        if bits.flag()? {
            return Err(Error::Colour);
        }
    }
    let colour = match space {
        1 | 3 => colour(6, 6, 6, full_range),
        2 => colour(1, 1, 1, full_range),
        4 => colour(7, 7, 7, full_range),
        5 if bit_depth == 12 => colour(9, 15, 9, full_range),
        5 => colour(9, 14, 9, full_range),
        _ => colour(2, 2, 2, full_range),
    };
    Ok((bit_depth, chroma_subsampling, colour))
}

const fn colour(primaries: u8, transfer: u8, matrix: u8, full_range: bool) -> Colour {
    Colour {
        primaries,
        transfer,
        matrix,
        full_range,
    }
}

fn level(dimensions: Dimensions, rate: FrameRate) -> Result<u8, Error> {
    let Dimensions { width, height } = dimensions;
    let picture = u64::from(width) * u64::from(height);
    let per_second = u128::from(picture) * u128::from(rate.num());
    LEVELS
        .iter()
        .find(|(_, most_per_second, most, side)| {
            per_second <= u128::from(*most_per_second) * u128::from(rate.den())
                && picture <= *most
                && width.max(height) <= *side
        })
        .map(|(level, ..)| *level)
        .ok_or(Error::Level { width, height })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// libvpx, 640x360, BT.709, studio range.
    const KEY_FRAME: &[u8] = &[0x82, 0x49, 0x83, 0x42, 0x40, 0x27, 0xF0, 0x16, 0x76, 0x04];

    fn rate(fps: u32) -> FrameRate {
        FrameRate::new(fps, 1).expect("not zero")
    }

    #[test]
    fn a_key_frame_gives_the_record_that_ffmpeg_writes() {
        let config = Config::parse_key_frame(KEY_FRAME, rate(30)).expect("valid");
        let expected = Dimensions {
            width: 640,
            height: 360,
        };
        assert_eq!(config.dimensions, expected);
        assert_eq!(
            config.write_vpcc(),
            [1, 0, 0, 0, 0, 21, 0x82, 1, 1, 1, 0, 0]
        );
    }

    #[test]
    fn the_level_follows_size_and_rate() {
        for (width, height, fps, expected) in [
            (256, 144, 15, 10),
            (640, 360, 30, 21),
            (854, 480, 30, 30),
            (1280, 720, 30, 31),
            (1280, 720, 60, 40),
            (1920, 1080, 30, 40),
            (1920, 1080, 60, 41),
            (3840, 2160, 30, 50),
            (3840, 2160, 60, 51),
        ] {
            assert_eq!(
                level(Dimensions { width, height }, rate(fps)),
                Ok(expected),
                "{width}x{height}"
            );
        }
    }

    #[test]
    fn a_publishers_header_adds_level_and_colour_to_its_key_frame() {
        let of_stream = |record: &[u8]| Config::of_stream(record, KEY_FRAME, rate(30));
        let plain = Config::parse_key_frame(KEY_FRAME, rate(30)).expect("valid");
        assert_eq!(of_stream(&[]), Ok(plain));
        let expected = Config {
            level: 31,
            chroma_subsampling: 0,
            colour: colour(9, 16, 9, false),
            ..plain
        };
        let record = [0, 31, 0x80, 9, 16, 9, 0, 0];
        assert_eq!(of_stream(&record), Ok(expected));
        let boxed = [&[1, 0, 0, 0], &record[..]].concat();
        assert_eq!(of_stream(&boxed), Ok(expected));
        // no such level, nothing said of colour; another profile
        assert_eq!(of_stream(&[0, 7, 0x82, 2, 2, 2, 0, 0]), Ok(plain));
        assert_eq!(of_stream(&[1, 31, 0x86, 9, 9, 9, 0, 0]), Ok(plain));
        assert_eq!(of_stream(&[0, 31]), Err(Error::Record));
        assert_eq!(check_record(&[0, 31]), Err(Error::Record));
    }

    #[test]
    fn key_frames_are_told_by_their_first_bits() {
        assert!(is_key_frame(KEY_FRAME));
        for other in [&[0x86][..], &[0x88], &[0x42], &[0xB4, 0x80], &[]] {
            assert!(!is_key_frame(other), "{other:02x?}");
        }
        assert!(is_key_frame(&[0xB0]));
    }

    #[test]
    fn inter_frames_and_other_codecs_are_refused() {
        assert_eq!(
            Config::parse_key_frame(&[0x86, 0, 0x40], rate(30)),
            Err(Error::NotKeyFrame)
        );
        assert_eq!(
            Config::parse_key_frame(&[0x12, 0], rate(30)),
            Err(Error::Marker)
        );
    }

    proptest! {
        #[test]
        fn writing_and_parsing_are_inverse(profile in 0_u8..4, level: u8, depth in 4_u8..7, chroma in 0_u8..4, primaries: u8, transfer: u8, matrix: u8, full_range: bool) {
            let config = Config {
                profile, level, bit_depth: depth * 2, chroma_subsampling: chroma,
                dimensions: Dimensions { width: 2, height: 2 },
                colour: colour(primaries, transfer, matrix, full_range),
            };
            prop_assert_eq!(Config::parse_vpcc(&config.write_vpcc(), config.dimensions), Ok(config));
        }

        #[test]
        fn random_bytes_never_panic(data in proptest::collection::vec(any::<u8>(), 0..30)) {
            let _ = Config::parse_key_frame(&data, rate(30));
            let _ = Config::of_stream(&data, KEY_FRAME, rate(30));
            let _ = is_key_frame(&data);
            let mut marked = KEY_FRAME[..4].to_vec();
            marked.extend(data);
            let _ = Config::parse_key_frame(&marked, rate(30));
        }
    }
}

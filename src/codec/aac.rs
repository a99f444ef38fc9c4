//! AAC: the `AudioSpecificConfig`.
//!
//! Enters: an `AudioSpecificConfig`, from a publisher or from an encoder
//! Leaves: [`Config`]
//! Never:  access units' contents
//! Spec:   [AAC] §1.6.2.1, §4.4.1

use bytes::Bytes;

use super::bits::{self, BitReader};

/// Sample rates by `samplingFrequencyIndex`.
const SAMPLE_RATES: [u32; 13] = [
    96_000, 88_200, 64_000, 48_000, 44_100, 32_000, 24_000, 22_050, 16_000, 12_000, 11_025, 8_000,
    7_350,
];

/// Highest sample rate that is taken: twice the highest of the table, so that an explicit one cannot make
/// anything behind it allocate by its value.
const MAX_SAMPLE_RATE: u32 = 192_000;

/// The longest configuration that is read: a program config element with its comment stays below 512 bytes.
const MAX_ASC_BYTES: usize = 1_024;

/// One AAC track's parameters: the `AudioSpecificConfig` and what it says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The `AudioSpecificConfig`, as it goes into the `esds` box.
    pub asc: Bytes,
    /// Audio object type: 2 for AAC-LC, 5 for HE-AAC, 29 for HE-AAC v2. The latter two only where the
    /// configuration signals them, in either way.
    pub object_type: u8,
    /// Samples per second of the core coder.
    pub sample_rate: u32,
    /// Number of channels of the core coder.
    pub channels: u8,
    /// Samples per access unit and channel: 1024, or 960.
    pub frame_samples: u32,
}

/// Why bytes are no configuration of AAC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The configuration ends too early.
    #[error("AudioSpecificConfig: {0}")]
    Bits(#[from] bits::Error),
    /// Longer than is read.
    #[error("an AudioSpecificConfig of {length} bytes is longer than {MAX_ASC_BYTES}")]
    TooLong {
        /// Its length.
        length: usize,
    },
    /// An object type other than Main, LC, SSR and LTP, with or without SBR and PS.
    #[error("audio object type {found} is not taken, only AAC-LC and HE-AAC")]
    ObjectType {
        /// The type found.
        found: u32,
    },
    /// A reserved index, or an explicit rate of zero or above the limit.
    #[error("the sample rate is reserved or out of range: {found}")]
    SampleRate {
        /// The index, or the explicit rate.
        found: u32,
    },
    /// A reserved channel configuration, or a program without channels.
    #[error("the channel configuration is reserved or empty: {found}")]
    Channels {
        /// The configuration, 0 for a program config element.
        found: u32,
    },
}

impl Config {
    /// Reads an `AudioSpecificConfig`.
    ///
    /// # Errors
    /// [`Error`].
    pub fn parse_asc(asc: Bytes) -> Result<Self, Error> {
        if asc.len() > MAX_ASC_BYTES {
            return Err(Error::TooLong { length: asc.len() });
        }
        let bits = &mut BitReader::new(&asc);
        let first = object_type(bits)?;
        let sample_rate = sample_rate(bits)?;
        let configuration = bits.bits(4)?;
        let mut signalled = first;
        let mut core = first;
        if matches!(first, 5 | 29) {
            self::sample_rate(bits)?; // of the extension
            core = object_type(bits)?;
        }
        if !matches!(core, 1..=4) {
            return Err(Error::ObjectType { found: core });
        }
        let frame_samples = if bits.flag()? { 960 } else { 1_024 };
        if bits.flag()? {
            bits.skip(14)?; // coreCoderDelay
        }
        bits.skip(1)?; // extensionFlag
        let channels = if configuration == 0 {
            program_channels(bits)?
        } else {
            table_channels(configuration)?
        };
        if core == first {
            signalled = trailing_extension(bits).unwrap_or(signalled);
        }
        Ok(Self {
            object_type: u8::try_from(signalled)
                .map_err(|_| Error::ObjectType { found: signalled })?,
            sample_rate,
            channels,
            frame_samples,
            asc,
        })
    }

    /// AAC-LC with 1024 samples per access unit; `None` for a rate outside the table or for channels other
    /// than 1 to 6 or 8.
    #[must_use]
    pub fn low_complexity(sample_rate: u32, channels: u8) -> Option<Self> {
        let index = SAMPLE_RATES.iter().position(|rate| *rate == sample_rate)?;
        let index = u16::try_from(index).ok()?;
        let configuration = match channels {
            1..=6 => u16::from(channels),
            8 => 7,
            _ => return None,
        };
        let asc = 2 << 11 | index << 7 | configuration << 3;
        Self::parse_asc(Bytes::copy_from_slice(&asc.to_be_bytes())).ok()
    }
}

fn object_type(bits: &mut BitReader<'_>) -> Result<u32, bits::Error> {
    match bits.bits(5)? {
        31 => Ok(32 + bits.bits(6)?),
        other => Ok(other),
    }
}

fn sample_rate(bits: &mut BitReader<'_>) -> Result<u32, Error> {
    let index = bits.bits(4)?;
    let (found, rate) = if index == 15 {
        let explicit = bits.bits(24)?;
        (explicit, Some(explicit))
    } else {
        (index, SAMPLE_RATES.get(index as usize).copied())
    };
    rate.filter(|rate| (1..=MAX_SAMPLE_RATE).contains(rate))
        .ok_or(Error::SampleRate { found })
}

const fn table_channels(configuration: u32) -> Result<u8, Error> {
    Ok(match configuration {
        1 => 1,
        2 => 2,
        3 => 3,
        4 => 4,
        5 => 5,
        6 => 6,
        7 | 12 | 14 => 8,
        11 => 7,
        found => return Err(Error::Channels { found }),
    })
}

/// The channels of a `program_config_element`.
fn program_channels(bits: &mut BitReader<'_>) -> Result<u8, Error> {
    bits.skip(4 + 2 + 4)?; // element_instance_tag, object_type, sampling_frequency_index
    let pairable = [bits.bits(4)?, bits.bits(4)?, bits.bits(4)?];
    let low = bits.bits(2)?;
    let data = bits.bits(3)?;
    let coupling = bits.bits(4)?;
    for length in [4, 4, 3] {
        if bits.flag()? {
            bits.skip(length)?; // mono, stereo and matrix mixdown
        }
    }
    let mut channels = low;
    for elements in pairable {
        for _ in 0..elements {
            channels += if bits.flag()? { 2 } else { 1 };
            bits.skip(4)?; // element_tag_select
        }
    }
    bits.skip(4 * low as usize + 4 * data as usize + 5 * coupling as usize)?;
    bits.align();
    let comment = bits.bits(8)?;
    bits.skip(8 * comment as usize)?;
    u8::try_from(channels)
        .ok()
        .filter(|channels| *channels > 0)
        .ok_or(Error::Channels { found: 0 })
}

/// The object type that the backward-compatible extension behind the configuration signals, if there is a
/// whole one.
fn trailing_extension(bits: &mut BitReader<'_>) -> Option<u32> {
    if bits.bits(11).ok()? != 0x2B7 || object_type(bits).ok()? != 5 || !bits.flag().ok()? {
        return None;
    }
    sample_rate(bits).ok()?;
    let parametric = bits.bits(11) == Ok(0x548) && bits.flag() == Ok(true);
    Some(if parametric { 29 } else { 5 })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(asc: &'static [u8]) -> Result<(u8, u32, u8, u32), Error> {
        Config::parse_asc(Bytes::from_static(asc))
            .map(|c| (c.object_type, c.sample_rate, c.channels, c.frame_samples))
    }

    #[test]
    fn configurations_say_type_rate_channels_and_frame() {
        for (asc, expected) in [
            // ffmpeg's encoder, with an empty SBR extension behind
            (&[0x11, 0xB0, 0x56, 0xE5, 0x00][..], (2, 48_000, 6, 1_024)),
            (&[0x12, 0x08, 0x56, 0xE5, 0x00], (2, 44_100, 1, 1_024)),
            // plain stereo, as OBS sends it
            (&[0x11, 0x90], (2, 48_000, 2, 1_024)),
            (&[0x11, 0x94], (2, 48_000, 2, 960)),
            // HE-AAC and HE-AAC v2, explicit, then backward compatible
            (&[0x2B, 0x11, 0x88, 0x00], (5, 24_000, 2, 1_024)),
            (&[0xEB, 0x09, 0x88, 0x00], (29, 24_000, 1, 1_024)),
            (&[0x13, 0x10, 0x56, 0xE5, 0x98], (5, 24_000, 2, 1_024)),
            (
                &[0x13, 0x08, 0x56, 0xE5, 0x9D, 0x48, 0x80],
                (29, 24_000, 1, 1_024),
            ),
            // explicit rate 44 101
            (&[0x17, 0x80, 0x56, 0x22, 0x90], (2, 44_101, 2, 1_024)),
            // program config element: one pair and one single in front, one low-frequency
            (
                &[0x11, 0x80, 0x04, 0xC8, 0x01, 0x00, 0x20, 0x00, 0x00],
                (2, 48_000, 4, 1_024),
            ),
        ] {
            assert_eq!(parse(asc), Ok(expected), "{asc:02X?}");
        }
    }

    #[test]
    fn what_is_not_aac_is_refused() {
        assert_eq!(
            parse(&[0xF9, 0x46, 0x40, 0x00]),
            Err(Error::ObjectType { found: 42 })
        );
        assert_eq!(parse(&[0x16, 0x90]), Err(Error::SampleRate { found: 13 }));
        assert_eq!(parse(&[0x11, 0xC8]), Err(Error::Channels { found: 9 }));
        assert!(matches!(parse(&[0x11]), Err(Error::Bits(_))));
    }

    #[test]
    fn low_complexity_is_written_as_it_is_read() {
        for rate in SAMPLE_RATES {
            for channels in [1, 2, 3, 4, 5, 6, 8] {
                let config = Config::low_complexity(rate, channels).expect("in the tables");
                assert_eq!(
                    (
                        config.object_type,
                        config.sample_rate,
                        config.channels,
                        config.frame_samples
                    ),
                    (2, rate, channels, 1_024)
                );
                assert_eq!(Config::parse_asc(config.asc.clone()), Ok(config));
            }
        }
        let stereo = Config::low_complexity(48_000, 2).expect("in the tables");
        assert_eq!(stereo.asc[..], [0x11, 0x90]);
        assert_eq!(Config::low_complexity(44_101, 2), None);
    }

    proptest! {
        #[test]
        fn random_bytes_never_panic(data in proptest::collection::vec(any::<u8>(), 0..60)) {
            let _ = Config::parse_asc(data.into());
        }
    }
}

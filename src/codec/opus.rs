//! Opus: the identification header, the `dOps` record, and how long a packet is.
//!
//! Enters: an `OpusHead` packet and packets of sound, from an encoder or a publisher
//! Leaves: [`Config`]; samples in a packet
//! Never:  packets' contents beyond their first two bytes
//! Spec:   [OPUSMP4] §4.3.2, [RFC7845] §5.1, [RFC6716] §3

/// Samples per second of every decoder of Opus, and so the timescale of a track.
pub const SAMPLE_RATE: u32 = 48_000;
/// Most samples in a packet: 120 ms ([RFC6716] §3.2.5, R5).
const MAX_PACKET_SAMPLES: u32 = 5_760;
/// Samples that an encoder adds in front where no header says how many: what libopus adds.
const USUAL_PRE_SKIP: u16 = 312;

/// One Opus track's parameters (channel mapping family 0: mono or stereo). Its timescale is 48000.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// Number of channels, 1 or 2.
    pub channels: u8,
    /// Samples at 48 kHz that the decoder drops from the very start.
    pub pre_skip: u16,
    /// Sample rate of the original, information only.
    pub input_sample_rate: u32,
}

/// Why bytes are no configuration of Opus.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The header ends too early.
    #[error("an Opus header of {length} bytes is cut off")]
    Cut {
        /// Its length.
        length: usize,
    },
    /// The packet does not begin with `OpusHead`.
    #[error("the packet does not begin with OpusHead")]
    Magic,
    /// A version that is not known.
    #[error("Opus header version {found} is not known")]
    Version {
        /// The version found.
        found: u8,
    },
    /// A channel mapping family other than 0, a gain, or channels other than 1 and 2.
    #[error("{field} of the Opus header is {found}, which is not taken")]
    Unsupported {
        /// Its name in the specification.
        field: &'static str,
        /// Its value.
        found: i32,
    },
}

impl Config {
    /// Reads an `OpusHead` packet, in which numbers are little-endian.
    ///
    /// # Errors
    /// [`Error`].
    pub fn parse_head(packet: &[u8]) -> Result<Self, Error> {
        let Some((magic, body)) = packet.split_first_chunk::<8>() else {
            return Err(Error::Cut {
                length: packet.len(),
            });
        };
        if magic != b"OpusHead" {
            return Err(Error::Magic);
        }
        let [
            version,
            channels,
            s0,
            s1,
            r0,
            r1,
            r2,
            r3,
            g0,
            g1,
            family,
            ..,
        ] = *body
        else {
            return Err(Error::Cut {
                length: packet.len(),
            });
        };
        // The upper four bits are the major version: 0 and 1 are compatible (RFC 7845 §5.1).
        if version >> 4 != 0 {
            return Err(Error::Version { found: version });
        }
        Self {
            channels,
            pre_skip: u16::from_le_bytes([s0, s1]),
            input_sample_rate: u32::from_le_bytes([r0, r1, r2, r3]),
        }
        .checked(i16::from_le_bytes([g0, g1]), family)
    }

    /// The parameters of a track without a header, by its first packet; `None` if that is none.
    #[must_use]
    pub fn of_packet(packet: &[u8]) -> Option<Self> {
        const STEREO: u8 = 0b100;
        packet_samples(packet)?;
        Some(Self {
            channels: 1 + u8::from(packet.first()? & STEREO != 0),
            pre_skip: USUAL_PRE_SKIP,
            input_sample_rate: SAMPLE_RATE,
        })
    }

    /// The `OpusHead` packet.
    #[must_use]
    pub fn write_head(&self) -> [u8; 19] {
        let mut head = *b"OpusHead\x01\0\0\0\0\0\0\0\0\0\0";
        let [
            _,
            _,
            _,
            _,
            _,
            _,
            _,
            _,
            _,
            channels,
            s0,
            s1,
            r0,
            r1,
            r2,
            r3,
            ..,
        ] = &mut head;
        *channels = self.channels;
        [*s0, *s1] = self.pre_skip.to_le_bytes();
        [*r0, *r1, *r2, *r3] = self.input_sample_rate.to_le_bytes();
        head
    }

    /// Reads the body of a `dOps` box, in which numbers are big-endian.
    ///
    /// # Errors
    /// [`Error`].
    pub fn parse_dops(body: &[u8]) -> Result<Self, Error> {
        let [
            version,
            channels,
            s0,
            s1,
            r0,
            r1,
            r2,
            r3,
            g0,
            g1,
            family,
            ..,
        ] = *body
        else {
            return Err(Error::Cut { length: body.len() });
        };
        if version != 0 {
            return Err(Error::Version { found: version });
        }
        Self {
            channels,
            pre_skip: u16::from_be_bytes([s0, s1]),
            input_sample_rate: u32::from_be_bytes([r0, r1, r2, r3]),
        }
        .checked(i16::from_be_bytes([g0, g1]), family)
    }

    /// The body of the `dOps` box.
    #[must_use]
    pub const fn write_dops(&self) -> [u8; 11] {
        let [s0, s1] = self.pre_skip.to_be_bytes();
        let [r0, r1, r2, r3] = self.input_sample_rate.to_be_bytes();
        [
            0,             // Version
            self.channels, // OutputChannelCount
            s0,
            s1, // PreSkip
            r0,
            r1,
            r2,
            r3, // InputSampleRate
            0,
            0, // OutputGain
            0, // ChannelMappingFamily
        ]
    }

    fn checked(self, gain: i16, family: u8) -> Result<Self, Error> {
        let refuse = |field, found| Err(Error::Unsupported { field, found });
        if family != 0 {
            return refuse("channel mapping family", i32::from(family));
        }
        if gain != 0 {
            return refuse("output gain", i32::from(gain));
        }
        if !matches!(self.channels, 1 | 2) {
            return refuse("channel count", i32::from(self.channels));
        }
        Ok(self)
    }
}

/// Samples at 48 kHz in a packet, by its first byte and, where it says so, its second; `None` for what is no
/// packet ([RFC6716] §3.1, §3.2).
#[must_use]
pub fn packet_samples(packet: &[u8]) -> Option<u32> {
    let toc = *packet.first()?;
    let frame = match toc >> 3 {
        // SILK: 10, 20, 40 and 60 ms
        config @ 0..=11 => [480, 960, 1_920, 2_880][usize::from(config % 4)],
        // both: 10 and 20 ms
        config @ 12..=15 => [480, 960][usize::from(config % 2)],
        // CELT: 2.5, 5, 10 and 20 ms
        config => [120, 240, 480, 960][usize::from(config % 4)],
    };
    let count = match toc & 0b11 {
        0 => 1,
        1 | 2 => 2,
        _ => u32::from(packet.get(1)? & 0x3F),
    };
    let samples = frame * count;
    (1..=MAX_PACKET_SAMPLES)
        .contains(&samples)
        .then_some(samples)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// libopus through ffmpeg: mono, 312 samples to skip.
    const HEAD: &[u8] = b"OpusHead\x01\x01\x38\x01\x80\xBB\x00\x00\x00\x00\x00";
    const DOPS: [u8; 11] = [0, 1, 0x01, 0x38, 0, 0, 0xBB, 0x80, 0, 0, 0];

    #[test]
    fn the_header_of_an_encoder_becomes_the_record_of_a_muxer() {
        let config = Config::parse_head(HEAD).expect("valid");
        assert_eq!((config.channels, config.pre_skip), (1, 312));
        assert_eq!(config.write_dops(), DOPS);
    }

    #[test]
    fn what_is_not_taken_is_named() {
        for (at, value, field) in [
            (9, 6, "channel count"),
            (16, 1, "output gain"),
            (18, 1, "channel mapping family"),
        ] {
            let mut head = HEAD.to_vec();
            head[at] = value;
            match Config::parse_head(&head) {
                Err(Error::Unsupported { field: named, .. }) => assert_eq!(named, field),
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(
            Config::parse_head(&HEAD[..18]),
            Err(Error::Cut { length: 18 })
        );
    }

    #[test]
    fn a_packet_says_how_long_it_is() {
        for (packet, samples) in [
            (&[0xFC, 1, 2][..], Some(960)), // CELT, 20 ms, stereo: what OBS and ffmpeg send
            (&[0xE0, 1], Some(120)),
            (&[0xF1, 1], Some(960)),   // two frames of 10 ms
            (&[0x18, 1], Some(2_880)), // SILK, 60 ms
            (&[0x68, 1], Some(960)),   // hybrid
            (&[0x1B, 2], Some(5_760)), // two frames of 60 ms, counted
            (&[0x1B, 3], None),        // 180 ms
            (&[0x1B, 0], None),
            (&[0x1B], None),
            (&[], None),
            (&[0xFC], Some(960)), // silence
        ] {
            assert_eq!(packet_samples(packet), samples, "{packet:02x?}");
        }
        let channels = |packet: &[u8]| Config::of_packet(packet).map(|config| config.channels);
        assert_eq!(channels(&[0xFC, 1]), Some(2));
        assert_eq!(channels(&[0xF8, 1]), Some(1));
        assert_eq!(channels(&[]), None);
    }

    proptest! {
        #[test]
        fn writing_and_parsing_are_inverse(channels in 1_u8..3, pre_skip: u16, input_sample_rate: u32) {
            let config = Config { channels, pre_skip, input_sample_rate };
            prop_assert_eq!(Config::parse_dops(&config.write_dops()), Ok(config));
            prop_assert_eq!(Config::parse_head(&config.write_head()), Ok(config));
        }

        #[test]
        fn random_bytes_never_panic(data in proptest::collection::vec(any::<u8>(), 0..30)) {
            let _ = Config::parse_head(&data);
            let _ = Config::parse_dops(&data);
            let _ = packet_samples(&data);
        }
    }
}

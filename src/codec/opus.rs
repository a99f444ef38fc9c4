//! Opus: the identification header and the `dOps` record.
//!
//! Enters: an `OpusHead` packet, from an encoder
//! Leaves: [`Config`]
//! Never:  packets' contents
//! Spec:   [OPUSMP4] §4.3.2, RFC 7845 §5.1

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

    proptest! {
        #[test]
        fn writing_and_parsing_are_inverse(channels in 1_u8..3, pre_skip: u16, input_sample_rate: u32) {
            let config = Config { channels, pre_skip, input_sample_rate };
            prop_assert_eq!(Config::parse_dops(&config.write_dops()), Ok(config));
        }

        #[test]
        fn random_bytes_never_panic(data in proptest::collection::vec(any::<u8>(), 0..30)) {
            let _ = Config::parse_head(&data);
            let _ = Config::parse_dops(&data);
        }
    }
}

//! Opus: the identification header and the `dOps` record.
//!
//! Enters: an `OpusHead` packet, from an encoder
//! Leaves: [`Config`]
//! Never:  packets' contents beyond their duration
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

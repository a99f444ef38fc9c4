//! AAC: the `AudioSpecificConfig`.
//!
//! Enters: an `AudioSpecificConfig`, from a publisher or from an encoder
//! Leaves: [`Config`]
//! Never:  access units' contents
//! Spec:   [AAC] §1.6.2.1

use bytes::Bytes;

/// One AAC track's parameters: the `AudioSpecificConfig` and what it says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The `AudioSpecificConfig`, as it goes into the `esds` box.
    pub asc: Bytes,
    /// Audio object type: 2 for AAC-LC, 5 for HE-AAC, 29 for HE-AAC v2.
    pub object_type: u8,
    /// Samples per second of the core coder.
    pub sample_rate: u32,
    /// Number of channels.
    pub channels: u8,
    /// Samples per access unit and channel: 1024, or 960.
    pub frame_samples: u32,
}

//! AV1: the sequence header and the `av1C` record.
//!
//! Enters: an `av1C` body or a temporal unit with a sequence header, from an encoder
//! Leaves: [`Config`]
//! Never:  tiles
//! Spec:   [AV1] §5.5, [AV1ISOBMFF] §2.3.3

use bytes::Bytes;

use super::video::{Colour, Dimensions};

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

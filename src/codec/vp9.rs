//! VP9: what the key frame's header says, for the `vpcC` record.
//!
//! Enters: a key frame from an encoder
//! Leaves: [`Config`]
//! Never:  anything past the uncompressed header
//! Spec:   [VP9MP4] "VP Codec Configuration Record"

use super::video::{Colour, Dimensions};

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

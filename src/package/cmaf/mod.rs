//! Writes CMAF: one track per file, as an init segment and as fragments.
//!
//! Enters: renditions and their samples
//! Leaves: boxes, with the samples' bytes untouched behind them
//! Never:  playlists, decisions about where anything ends
//! Time:   `tfdt` counts from the Unix epoch in the rendition's timescale
//! Spec:   [CMAF] §7, [ISOBMFF] §8

mod fragment;
mod init;

pub(super) use fragment::{Fragment, write_fragment};
pub(super) use init::{check, write_init};

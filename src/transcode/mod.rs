//! Turns the source's samples into the samples of every rung of a ladder, in a process of its own.
//!
//! ```text
//! Transcoder (this process)            worker (child process, the only GStreamer)
//!   source samples ──▶ ipc ──▶ decode ──▶ conductor ──▶ encode ──▶ ipc ──▶ rendition samples
//! ```
//!
//! Enters: [`TrackInfo`](crate::media::TrackInfo) and samples of a source, a pipeline file, a grid
//! Leaves: renditions once, then their samples, cut-ready on the grid
//! Never:  containers, manifests, storage
//! Time:   every position on the Unix epoch timeline, in each track's own timescale
//! Spec:   docs/architecture.md

pub mod conductor;
pub mod copy;
pub mod ipc;
pub mod ladder;
pub mod overload;
pub mod supervisor;
pub mod template;
#[cfg(feature = "gst")]
pub mod worker;

pub use supervisor::{
    Cuts, Error, GivenUp, OWN_PROGRAM, Options, Output, Outputs, RETRY_AFTER, Transcoder,
};

use std::time::Duration;

use bytes::Bytes;

/// The pipeline file used where none is named.
pub const DEFAULT_LADDER: &str = "auto";

/// The codecs of sources beside H.264 and AAC, without which nothing starts, and the elements that decode them:
/// one of each is enough, the first is preferred.
pub const SOURCE_DECODERS: [(&str, &[&str]); 4] = [
    ("HEVC", &["avdec_h265", "libde265dec"]),
    ("AV1", &["dav1ddec", "av1dec"]),
    ("VP9", &["avdec_vp9", "vp9dec"]),
    ("Opus", &["opusdec", "avdec_opus"]),
];

/// The largest slate: it goes to the worker in one message. A photograph of 4K has a third of this.
pub const MAX_SLATE_BYTES: usize = 8 << 20;

/// What an operator may choose about transcoding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The name of a file of `pipelines/`, or a path to a TOML file (anything with a `/` or ending in
    /// `.toml`).
    pub ladder: String,
    /// Whether encoders may hold nothing back: the ladder's fragment for that is taken, and a ladder
    /// that is slow by its nature is refused.
    pub low_delay: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            ladder: DEFAULT_LADDER.to_owned(),
            low_delay: false,
        }
    }
}

/// What a broadcast shows while its source sends nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Absence {
    /// How long the last picture is held; whole milliseconds.
    pub hold: Duration,
    /// The slate after it: a PNG or JPEG file, of at most [`MAX_SLATE_BYTES`]. Empty for the one that is
    /// built in.
    pub slate: Bytes,
}

impl Default for Absence {
    fn default() -> Self {
        Self {
            hold: Duration::from_secs(2),
            slate: Bytes::new(),
        }
    }
}

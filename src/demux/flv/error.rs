//! What can be wrong with an FLV message.
//!
//! Enters: nothing
//! Leaves: [`Error`], with a text that a streamer can act on
//! Never:  text that was put together before it is shown
//! Spec:   [FLV] annex E.4, [ERTMP] v2

use std::fmt;

use crate::codec::{aac, annexb, av1, h264, hevc, opus, vp9};
use crate::demux::Fault;
use crate::media::MediaKind;

/// Why a message is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A codec that is not taken.
    #[error("{} over RTMP is not taken; {}", Named(*kind, *found), advice(*kind))]
    UnsupportedCodec {
        /// Pictures or sound.
        kind: MediaKind,
        /// What was found.
        found: FoundCodec,
    },
    /// Several tracks in one message, in an order that does not exist.
    #[error("the order {found:#04x} of {} tracks in one message is unknown", noun(*kind))]
    Multitrack {
        /// Pictures or sound.
        kind: MediaKind,
        /// The byte that says it.
        found: u8,
    },
    /// The configuration comes as a descriptor of MPEG-2 transport streams.
    #[error(
        "a video header for MPEG-2 transport streams is not taken; in OBS stream to rtmp:// with the encoder's own settings"
    )]
    TransportStreamHeader,
    /// The body ends too early.
    #[error("the {} message is cut off: {needed} bytes needed, {left} left", noun(*kind))]
    Cut {
        /// Pictures or sound.
        kind: MediaKind,
        /// Bytes left.
        left: usize,
        /// Bytes needed.
        needed: usize,
    },
    /// A packet type that does not exist.
    #[error("{} packet type {found} is unknown", noun(*kind))]
    PacketType {
        /// Pictures or sound.
        kind: MediaKind,
        /// The type found.
        found: u8,
    },
    /// The configuration of H.264 is malformed.
    #[error("H.264 sequence header: {0}")]
    H264(#[from] h264::Error),
    /// The configuration of HEVC is malformed.
    #[error("HEVC sequence header: {0}")]
    Hevc(#[from] hevc::Error),
    /// The configuration of AV1 or a temporal unit is malformed.
    #[error("AV1: {0}")]
    Av1(#[from] av1::Error),
    /// The configuration of VP9 or a key frame is malformed.
    #[error("VP9: {0}")]
    Vp9(#[from] vp9::Error),
    /// The configuration of AAC is malformed or of another kind of AAC.
    #[error("AAC sequence header: {0}")]
    Aac(#[from] aac::Error),
    /// The configuration of Opus is malformed, or of more channels than two.
    #[error("Opus header: {0}{advice}", advice = opus_advice(.0))]
    Opus(#[from] opus::Error),
    /// A picture's NAL units do not add up.
    #[error("picture: {0}")]
    Nal(#[from] annexb::Error),
}

impl Error {
    /// Who has to act.
    #[must_use]
    pub const fn fault(&self) -> Fault {
        match self {
            Self::UnsupportedCodec { .. }
            | Self::TransportStreamHeader
            | Self::Aac(aac::Error::ObjectType { .. })
            | Self::Opus(opus::Error::Unsupported { .. }) => Fault::PeerUnsupported,
            Self::Cut { .. }
            | Self::Multitrack { .. }
            | Self::PacketType { .. }
            | Self::H264(_)
            | Self::Hevc(_)
            | Self::Av1(_)
            | Self::Vp9(_)
            | Self::Aac(_)
            | Self::Opus(_)
            | Self::Nal(_) => Fault::PeerMisbehaved,
        }
    }
}

/// A codec as a message names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FoundCodec {
    /// `CodecID` or `SoundFormat` of the legacy header.
    Legacy(u8),
    /// FourCC of the enhanced header.
    FourCc([u8; 4]),
}

struct Named(MediaKind, FoundCodec);

impl fmt::Display for Named {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match (self.0, self.1) {
            (MediaKind::Video, FoundCodec::Legacy(id)) => match id {
                2 => "Sorenson H.263",
                3 | 6 => "Screen Video",
                4 | 5 => "VP6",
                13 => "AV1 without an enhanced header",
                _ => return write!(f, "video codec {id}"),
            },
            (MediaKind::Audio, FoundCodec::Legacy(id)) => match id {
                0 | 3 => "PCM",
                1 => "ADPCM",
                2 | 14 => "MP3",
                4..=6 => "Nellymoser",
                7 | 8 => "G.711",
                11 => "Speex",
                _ => return write!(f, "audio codec {id}"),
            },
            (_, FoundCodec::FourCc(fourcc)) => match &fourcc {
                b"vp08" => "VP8",
                b"vvc1" => "VVC",
                b".mp3" => "MP3",
                b"fLaC" => "FLAC",
                b"ac-3" => "AC-3",
                b"ec-3" => "E-AC-3",
                other => return write!(f, "codec {}", other.escape_ascii()),
            },
        };
        f.write_str(name)
    }
}

const fn advice(kind: MediaKind) -> &'static str {
    match kind {
        MediaKind::Video => "in OBS choose an H.264, HEVC or AV1 encoder",
        MediaKind::Audio => "in OBS choose AAC or Opus as the audio encoder",
    }
}

const fn opus_advice(error: &opus::Error) -> &'static str {
    match error {
        opus::Error::Unsupported { .. } => "; in OBS choose Settings > Audio > Channels: Stereo",
        _ => "",
    }
}

const fn noun(kind: MediaKind) -> &'static str {
    match kind {
        MediaKind::Video => "video",
        MediaKind::Audio => "audio",
    }
}

//! What `/api/v1` says of the server and its streams, as JSON.
//!
//! Enters: the app's own records
//! Leaves: serde values whose field names are the API
//! Never:  secrets: a stream's name is public, what follows `?` in a stream key never comes here
//! Time:   instants as RFC 3339, rates in bits per second
//! Spec:   docs/api.md

use serde::Serialize;

use crate::app::encoding::EncodingStatus;
use crate::app::health::{self, HealthStatus};
use crate::app::line::Publisher;
use crate::media::{CodecConfig, CodecString, MediaKind, Rendition};
use crate::time::FrameRate;

/// `GET /api/v1/server`.
#[derive(Debug, Serialize)]
pub(super) struct ServerStatus {
    /// The program's version.
    pub(super) version: &'static str,
    /// What a publisher has to dial; `null` on a server that only reads.
    pub(super) rtmp: Option<RtmpStatus>,
    /// UTC now.
    pub(super) now: String,
}

/// Where RTMP is taken.
#[derive(Debug, Serialize)]
pub(super) struct RtmpStatus {
    /// TCP port.
    pub(super) port: u16,
    /// Application name.
    pub(super) app: &'static str,
}

/// `GET /api/v1/streams`.
#[derive(Debug, Serialize)]
pub(super) struct StreamsStatus {
    /// All streams that are live or were of late, by name.
    pub(super) streams: Vec<StreamStatus>,
}

/// Where a stream is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum StreamState {
    /// A publisher is there, nothing can be played yet.
    Starting,
    /// It can be played and advances.
    Live,
    /// As live, but the last picture is held: no other comes.
    Holding,
    /// As live, but the slate is shown: no picture has come for a while.
    Slate,
    /// As live, without a publisher: the picture is held, then the slate is shown, until one comes.
    Reconnecting,
    /// It has stopped advancing without having ended.
    Stalled,
    /// It has ended; what was made can still be played for a while.
    Ended,
}

impl StreamState {
    /// Whether it can be played and advances.
    pub(super) const fn is_advancing(self) -> bool {
        matches!(
            self,
            Self::Live | Self::Holding | Self::Slate | Self::Reconnecting
        )
    }
}

/// `GET /api/v1/streams/<stream>`.
#[derive(Clone, Debug, Serialize)]
pub(super) struct StreamStatus {
    /// The stream's name.
    pub(super) name: String,
    /// Where it is in its life.
    pub(super) state: StreamState,
    /// Since when.
    pub(super) state_since: Option<String>,
    /// When its publisher came; `null` on a server that only reads.
    pub(super) started_at: Option<String>,
    /// Path of the HLS multivariant playlist.
    pub(super) hls: String,
    /// Path of the DASH MPD.
    pub(super) dash: String,
    /// The same, for who wants to go back; `null` where nobody can.
    pub(super) dvr: Option<DvrStatus>,
    /// Which input is live; `null` while none is.
    pub(super) live: Option<LiveStatus>,
    /// Every input that somebody has published to.
    pub(super) inputs: Vec<InputStatus>,
    /// Who publishes to the live input; `null` once gone.
    pub(super) publisher: Option<PublisherStatus>,
    /// What it sends; `null` until known.
    pub(super) source: Option<SourceStatus>,
    /// What is made of it.
    pub(super) renditions: Vec<RenditionStatus>,
    /// Whether it is made in time.
    pub(super) encoding: EncodingStatus,
    /// How well it arrives.
    pub(super) ingest: IngestStatus,
}

/// `GET /api/v1/streams/<stream>/shows`.
#[derive(Clone, Debug, Serialize)]
pub(super) struct ShowsStatus {
    /// The newest first.
    pub(super) shows: Vec<ShowStatus>,
    /// What `before` has to be for the next page; `null` on the last.
    pub(super) next: Option<u64>,
}

/// One broadcast that is kept.
#[derive(Clone, Debug, Serialize)]
pub(super) struct ShowStatus {
    /// What it is called by.
    pub(super) first: u64,
    /// When what is kept of it begins and ends.
    pub(super) begins: String,
    pub(super) ends: String,
    /// Whether nothing will be added.
    pub(super) ended: bool,
    /// Paths of its playlist, its MPD and its record.
    pub(super) hls: String,
    pub(super) dash: String,
    pub(super) record: String,
}

/// Where viewers can go back.
#[derive(Clone, Debug, Serialize)]
pub(super) struct DvrStatus {
    /// Path of the HLS multivariant playlist.
    pub(super) hls: String,
    /// Path of the DASH MPD; `null` where the source cuts.
    pub(super) dash: Option<String>,
}

/// Which input is live.
#[derive(Clone, Debug, Serialize)]
pub(super) struct LiveStatus {
    /// `primary` or `backup`.
    pub(super) input: &'static str,
    /// Since when.
    pub(super) since: String,
    /// Why that one: `first`, `gone`, `silent`, `no_pictures`, `steady`.
    pub(super) why: &'static str,
    /// How often another input became live.
    pub(super) switches: u64,
}

/// What an input is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum InputState {
    /// Viewers see what it sends.
    Live,
    /// It is listened to, and may take over.
    Standby,
    /// Nobody publishes to it.
    Absent,
}

/// One input.
#[derive(Clone, Debug, Serialize)]
pub(super) struct InputStatus {
    /// `primary` or `backup`.
    pub(super) name: &'static str,
    /// What it is doing.
    pub(super) state: InputState,
    /// Who publishes to it; `null` once gone.
    pub(super) publisher: Option<PublisherStatus>,
    /// What it sends; `null` until known.
    pub(super) source: Option<SourceStatus>,
    /// Media bits per second, over the last seconds.
    pub(super) received_bps: u64,
    /// How well it arrives, in a word.
    pub(super) health: health::State,
    /// What its streamer should change, in plain words.
    pub(super) warnings: Vec<String>,
}

/// Who publishes.
#[derive(Clone, Debug, Serialize)]
pub(super) struct PublisherStatus {
    /// Address and port.
    pub(super) address: String,
    /// The encoder's own name, if it gave one.
    pub(super) encoder: Option<String>,
    /// When it connected.
    pub(super) connected_at: String,
}

impl PublisherStatus {
    /// What is known of `publisher`.
    #[must_use]
    pub(super) fn of(publisher: &Publisher) -> Self {
        Self {
            address: publisher.address.clone(),
            encoder: publisher.encoder.clone(),
            connected_at: publisher.since.to_string(),
        }
    }
}

/// What the publisher sends.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct SourceStatus {
    /// Its pictures.
    pub(super) video: Option<TrackStatus>,
    /// Its sound.
    pub(super) audio: Option<TrackStatus>,
}

/// One track, by what is known of it; fields that do not apply are left out.
#[derive(Clone, Debug, Serialize)]
pub(super) struct TrackStatus {
    /// RFC 6381 codec string.
    pub(super) codec: String,
    /// Pixels across.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) width: Option<u32>,
    /// Pixels down.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) height: Option<u32>,
    /// Frames per second, three decimals.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) frame_rate: Option<String>,
    /// Samples per second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) sample_rate: Option<u32>,
    /// Number of channels.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) channels: Option<u8>,
}

impl TrackStatus {
    /// What `codec` and the measured `rate` say.
    #[must_use]
    pub(super) fn of(codec: &CodecConfig, rate: Option<FrameRate>) -> Self {
        let dimensions = codec.dimensions();
        let audio = codec.audio();
        Self {
            codec: CodecString::of(codec).to_string(),
            width: dimensions.map(|d| d.width),
            height: dimensions.map(|d| d.height),
            frame_rate: rate.map(|rate| rate.to_string()),
            sample_rate: audio.map(|(rate, _)| rate),
            channels: audio.map(|(_, channels)| channels),
        }
    }
}

/// One rendition.
#[derive(Clone, Debug, Serialize)]
pub(super) struct RenditionStatus {
    /// Its path segment.
    pub(super) name: String,
    /// `video` or `audio`.
    pub(super) kind: &'static str,
    /// What it is.
    #[serde(flatten)]
    pub(super) track: TrackStatus,
    /// The rate its encoder aims at.
    pub(super) target_bps: u64,
    /// The highest rate of a segment, as measured; 0 before the first.
    pub(super) peak_bps: u64,
    /// The mean rate, as measured; 0 before the first segment.
    pub(super) average_bps: u64,
}

impl RenditionStatus {
    /// The status of `rendition`, with its rates as measured.
    #[must_use]
    pub(super) fn of(rendition: &Rendition, peak_bps: u64, average_bps: u64) -> Self {
        Self {
            name: rendition.name.to_string(),
            kind: match rendition.codec.kind() {
                MediaKind::Video => "video",
                MediaKind::Audio => "audio",
            },
            track: TrackStatus::of(&rendition.codec, rendition.frame_rate),
            target_bps: rendition.target_bps,
            peak_bps,
            average_bps,
        }
    }
}

/// How well a stream arrives.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct IngestStatus {
    /// Media bytes received.
    pub(super) received_bytes: u64,
    /// Media bits per second, over the last seconds.
    pub(super) received_bps: u64,
    /// Timestamps and samples that had to be repaired.
    pub(super) repairs: u64,
    /// What the streamer should change, in plain words.
    pub(super) warnings: Vec<String>,
    /// The same and more, in parts.
    pub(super) health: HealthStatus,
}

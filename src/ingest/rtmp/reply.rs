//! The server's own messages to bytes.
//!
//! Enters: what is to be said
//! Leaves: chunks, ready to send in the order of the calls
//! Never:  media, anything longer than one chunk
//! Time:   timestamp 0: replies have no time
//! Spec:   [RTMP] §5.4, §7; [ERTMP] v2 "Enhancing NetConnection connect Command"

#![deny(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::float_arithmetic
)]

use std::collections::HashMap;

use bytes::Bytes;
use rml_amf0::Amf0Value;
use rml_rtmp::chunk_io::ChunkSerializer;
use rml_rtmp::messages::{
    MessagePayload, PeerBandwidthLimitType, RtmpMessage, UserControlEventType,
};
use rml_rtmp::time::RtmpTimestamp;

/// Payload per chunk that we send: every reply fits into one.
const CHUNK_BYTES: u32 = 4_096;
/// How often we want to be told, and promise to tell, how much has arrived.
const WINDOW_BYTES: u32 = 2_500_000;
/// The longest description sent, in characters of at most four bytes: a reply stays within a chunk.
const MAX_DESCRIPTION_CHARS: usize = 512;

/// The codecs of pictures that are taken: H.264, HEVC, AV1, VP9.
const VIDEO_FOURCCS: [&str; 4] = ["avc1", "hvc1", "av01", "vp09"];
/// The codecs of sound that are taken: AAC, Opus.
const AUDIO_FOURCCS: [&str; 2] = ["mp4a", "Opus"];

/// Level of a status.
#[derive(Clone, Copy)]
pub(super) enum Level {
    Status,
    Error,
}

/// A status object: what happened, in a code and in words.
pub(super) struct Status<'a> {
    pub(super) level: Level,
    pub(super) code: &'a str,
    pub(super) description: &'a str,
}

impl Status<'_> {
    fn object(&self) -> HashMap<String, Amf0Value> {
        let level = match self.level {
            Level::Status => "status",
            Level::Error => "error",
        };
        let description: String = self
            .description
            .chars()
            .take(MAX_DESCRIPTION_CHARS)
            .collect();
        HashMap::from([
            ("level".to_owned(), text(level)),
            ("code".to_owned(), text(self.code)),
            ("description".to_owned(), text(&description)),
        ])
    }
}

/// What we take of Enhanced RTMP, so that an encoder that could send more falls back before its first
/// message. Several tracks are understood and not asked for: only the first of a kind is used. No request to
/// reconnect, no offsets of nanoseconds.
fn capabilities() -> [(String, Amf0Value); 4] {
    const CAN_DECODE: f64 = 1.0;
    const MOD_EX: f64 = 4.0;
    let decodes = |codecs: &[&str]| {
        let entry = |codec: &&str| ((*codec).to_owned(), Amf0Value::Number(CAN_DECODE));
        Amf0Value::Object(codecs.iter().map(entry).collect())
    };
    let all = VIDEO_FOURCCS.into_iter().chain(AUDIO_FOURCCS).map(text);
    [
        (
            "fourCcList".to_owned(),
            Amf0Value::StrictArray(all.collect()),
        ),
        ("videoFourCcInfoMap".to_owned(), decodes(&VIDEO_FOURCCS)),
        ("audioFourCcInfoMap".to_owned(), decodes(&AUDIO_FOURCCS)),
        ("capsEx".to_owned(), Amf0Value::Number(MOD_EX)),
    ]
}

/// Writes replies. Headers are whole on every message, as librtmp and ffmpeg read most surely.
pub(super) struct Writer {
    serializer: ChunkSerializer,
}

impl Writer {
    pub(super) fn new() -> Self {
        Self {
            serializer: ChunkSerializer::new(),
        }
    }

    /// The messages that settle window and chunk sizes, and the success of connect; to an `enhanced`
    /// publisher, which said what it can, also what we can.
    pub(super) fn connect_accepted(&mut self, transaction: f64, enhanced: bool) -> Vec<Bytes> {
        let window = self.write(RtmpMessage::WindowAcknowledgement { size: WINDOW_BYTES }, 0);
        let bandwidth = RtmpMessage::SetPeerBandwidth {
            size: WINDOW_BYTES,
            limit_type: PeerBandwidthLimitType::Dynamic,
        };
        let bandwidth = self.write(bandwidth, 0);
        let chunk_size = self
            .serializer
            .set_max_chunk_size(CHUNK_BYTES, RtmpTimestamp::new(0))
            .expect("the chunk size is below 2^31");
        let properties = HashMap::from([
            ("fmsVer".to_owned(), text("FMS/3,0,1,123")),
            ("capabilities".to_owned(), Amf0Value::Number(31.0)),
        ]);
        let mut info = Status {
            level: Level::Status,
            code: "NetConnection.Connect.Success",
            description: "Connection succeeded.",
        }
        .object();
        info.insert("objectEncoding".to_owned(), Amf0Value::Number(0.0));
        if enhanced {
            info.extend(capabilities());
        }
        let result = RtmpMessage::Amf0Command {
            command_name: "_result".to_owned(),
            transaction_id: transaction,
            command_object: Amf0Value::Object(properties),
            additional_arguments: vec![Amf0Value::Object(info)],
        };
        let result = self.write(result, 0);
        vec![window, bandwidth, chunk_size.bytes.into(), result]
    }

    /// `_result` with one value, a number or nothing.
    pub(super) fn result(&mut self, transaction: f64, value: Option<f64>) -> Bytes {
        let message = RtmpMessage::Amf0Command {
            command_name: "_result".to_owned(),
            transaction_id: transaction,
            command_object: Amf0Value::Null,
            additional_arguments: vec![value.map_or(Amf0Value::Undefined, Amf0Value::Number)],
        };
        self.write(message, 0)
    }

    /// `_error` in answer to the command `transaction`.
    pub(super) fn error(&mut self, transaction: f64, status: &Status<'_>) -> Bytes {
        let message = RtmpMessage::Amf0Command {
            command_name: "_error".to_owned(),
            transaction_id: transaction,
            command_object: Amf0Value::Null,
            additional_arguments: vec![Amf0Value::Object(status.object())],
        };
        self.write(message, 0)
    }

    /// `onStatus` on message stream `stream_id`.
    pub(super) fn status(&mut self, stream_id: u32, status: &Status<'_>) -> Bytes {
        let message = RtmpMessage::Amf0Command {
            command_name: "onStatus".to_owned(),
            transaction_id: 0.0,
            command_object: Amf0Value::Null,
            additional_arguments: vec![Amf0Value::Object(status.object())],
        };
        self.write(message, stream_id)
    }

    /// The running total of bytes received, modulo 2^32.
    pub(super) fn acknowledgement(&mut self, total_bytes: u32) -> Bytes {
        let sequence_number = total_bytes;
        self.write(RtmpMessage::Acknowledgement { sequence_number }, 0)
    }

    pub(super) fn stream_begin(&mut self, stream_id: u32) -> Bytes {
        let message = RtmpMessage::UserControl {
            event_type: UserControlEventType::StreamBegin,
            stream_id: Some(stream_id),
            buffer_length: None,
            timestamp: None,
        };
        self.write(message, 0)
    }

    pub(super) fn ping_response(&mut self, timestamp_ms: u32) -> Bytes {
        let message = RtmpMessage::UserControl {
            event_type: UserControlEventType::PingResponse,
            stream_id: None,
            buffer_length: None,
            timestamp: Some(RtmpTimestamp::new(timestamp_ms)),
        };
        self.write(message, 0)
    }

    fn write(&mut self, message: RtmpMessage, stream_id: u32) -> Bytes {
        let payload = MessagePayload::from_rtmp_message(message, RtmpTimestamp::new(0), stream_id)
            .expect("texts are clipped far below what AMF0 can hold");
        self.serializer
            .serialize(&payload, true, false)
            .expect("a reply is far below 16 MiB")
            .bytes
            .into()
    }
}

fn text(text: &str) -> Amf0Value {
    Amf0Value::Utf8String(text.to_owned())
}

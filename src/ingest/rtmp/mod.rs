//! The RTMP server: what OBS, ffmpeg and GStreamer publish to.
//!
//! Enters: TCP connections, their bytes from anybody
//! Leaves: [`PublishRequest`]s, and for each accepted one a channel of [`Message`]s
//! Never:  playback, AMF3 objects, RTMPE; media is passed on unread
//! Time:   RTMP milliseconds as sent; 32 bits that wrap
//! Spec:   [RTMP], [AMF0], [FLV] §E.4 (the bodies)
//!
//! ```text
//! socket ─▶ chunk (bytes → messages) ─▶ session (messages → events, replies) ─▶ listener (tasks, channels)
//!                                          └ amf (commands, metadata)
//! ```
//!
//! Everything but [`serve`] is pure. Of `rml_rtmp` the handshake and the writing of chunks and replies
//! are used; what reads the network is here, because that crate's reader mixes up interleaved chunks and
//! its AMF reader recurses as deep as the peer likes.

pub mod amf;
pub mod chunk;
mod listener;
mod metadata;
mod reply;
pub mod session;

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};

pub use listener::serve;
pub use metadata::Metadata;

use crate::id::ConnId;

/// The one application of this server: the `live` of `rtmp://host/live`.
pub const APP: &str = "live";

/// What the listener needs to know.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Where to listen.
    pub listen: SocketAddr,
    /// Connections at a time; more are closed at once.
    pub max_connections: usize,
    /// From accepting the connection to its handshake, and again to its request to publish.
    pub handshake_timeout: Duration,
    /// From accepting the publication to its first sound or picture.
    pub first_media_timeout: Duration,
    /// From one sound or picture to the next, arrived whole.
    pub idle_timeout: Duration,
    /// The longest message, in bytes. A picture is one message.
    pub max_message_bytes: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::UNSPECIFIED, 1_935)),
            max_connections: 512,
            handshake_timeout: Duration::from_secs(5),
            first_media_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(15),
            max_message_bytes: 8 << 20,
        }
    }
}

/// A publisher asks to publish. The connection reads nothing more until `reply` is used; dropping
/// `reply` refuses.
#[derive(Debug)]
pub struct PublishRequest {
    /// The connection.
    pub conn: ConnId,
    /// Where it comes from.
    pub peer: SocketAddr,
    /// The name after `publish`, up to a `?`. As sent: it may be empty or hold any character.
    pub stream_key: String,
    /// What follows the `?`, without it.
    pub query: Option<String>,
    /// How the publisher names itself: `flashVer` of its connect command.
    pub encoder: Option<String>,
    /// The answer.
    pub reply: oneshot::Sender<Decision>,
}

/// The answer to a [`PublishRequest`].
#[derive(Debug)]
pub enum Decision {
    /// Let it publish.
    Accept {
        /// Where its messages go. While the channel is full the socket is not read, so that a slow
        /// consumer slows the publisher down. Closing the receiver ends the publication. The last
        /// message is an [`Message::End`], unless the connection's task itself failed: a channel that
        /// closes without one is an end too.
        media: mpsc::Sender<Message>,
        /// Refuses after all, say for an unknown codec in the first message. Dropping the sender
        /// means nothing.
        close: oneshot::Receiver<Refusal>,
    },
    /// Tell the publisher why not, and close.
    Refuse(Refusal),
}

/// Room that a channel of [`Message`]s should have: two seconds of 60 fps and its sound. More only
/// hides a consumer that cannot keep up; when it is full the socket waits.
pub const MEDIA_CHANNEL_MESSAGES: usize = 256;

/// Why a publisher is turned away, in words that its user will read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The status code of RTMP.
    pub code: RefusalCode,
    /// A sentence for the person at the encoder.
    pub description: String,
}

/// The RTMP status codes for turning publishers away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RefusalCode {
    /// The stream key is no valid name, or is taken by another publisher.
    BadName,
    /// This publisher may not publish.
    Denied,
    /// What it publishes cannot be used: codec, format.
    Rejected,
    /// The server cannot or can no longer take it.
    Failed,
}

impl RefusalCode {
    /// The code as sent.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::BadName => "NetStream.Publish.BadName",
            Self::Denied => "NetStream.Publish.Denied",
            Self::Rejected => "NetStream.Publish.Rejected",
            Self::Failed => "NetStream.Failed",
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code.as_str(), self.description)
    }
}

/// What a publisher sends once accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// What it says about its media. May come late, again, or never, and may be wrong.
    Metadata(Metadata),
    /// The body of an FLV video tag. Never empty.
    Video {
        /// Milliseconds on the publisher's clock; wraps.
        timestamp_ms: u32,
        /// The body.
        data: Bytes,
        /// When the last of it was read from the socket.
        arrived: Instant,
    },
    /// The body of an FLV audio tag. Never empty.
    Audio {
        /// Milliseconds on the publisher's clock; wraps.
        timestamp_ms: u32,
        /// The body.
        data: Bytes,
        /// When the last of it was read from the socket.
        arrived: Instant,
    },
    /// Nothing more will come.
    End(EndReason),
}

/// Why a publication ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum EndReason {
    /// The publisher said that it is done.
    Unpublished,
    /// The connection was closed or broke, with or without the publisher's intent.
    Disconnected,
    /// No media for too long.
    TimedOut,
    /// The publisher broke the protocol.
    Malformed,
    /// It was refused after having been accepted.
    Refused,
    /// This server is shutting down.
    ShutDown,
}

//! Why a session ends, and whose doing it is.
//!
//! Enters: what was found where something else was expected
//! Leaves: [`Error`] with its words for a log, and its [`Fault`]
//! Never:  words for the publisher: those are a refusal's

use std::time::Duration;

use super::MAX_HELD_BYTES;
use super::command::MAX_CREATED_STREAMS;
use crate::ingest::rtmp::APP;
use crate::ingest::rtmp::amf;
use crate::ingest::rtmp::chunk;

/// Why a connection cannot go on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The handshake is not one.
    #[error("handshake: expected version 3 and two packets of 1536 bytes, found {first_byte:#04x}")]
    Handshake {
        /// The first byte received.
        first_byte: u8,
    },
    /// The chunk stream is broken.
    #[error(transparent)]
    Chunk(#[from] chunk::Error),
    /// A command is broken.
    #[error("message of type {type_id}: {source}")]
    Amf {
        /// Message type.
        type_id: u8,
        /// What is wrong.
        source: amf::Error,
    },
    /// A command without its name or transaction number.
    #[error("command of {found} values, expected a name, a transaction and their arguments")]
    ShortCommand {
        /// Values found.
        found: usize,
    },
    /// A command that has no place where the session stands.
    #[error("command {name:?} while {phase}")]
    UnexpectedCommand {
        /// The command, clipped.
        name: String,
        /// Where the session stands.
        phase: &'static str,
    },
    /// Media where there is no publication.
    #[error("media message of type {type_id} while {phase}")]
    UnexpectedMedia {
        /// Message type.
        type_id: u8,
        /// Where the session stands.
        phase: &'static str,
    },
    /// Media on another message stream than the published one.
    #[error("media on message stream {found}, expected {expected}")]
    ForeignStream {
        /// The message stream of the publication.
        expected: u32,
        /// The one found.
        found: u32,
    },
    /// An aggregate whose parts do not add up, or of more than 4096 parts.
    #[error("aggregate of {found_bytes} bytes ends inside a part or has too many")]
    Aggregate {
        /// Its length.
        found_bytes: usize,
    },
    /// Another application than [`APP`].
    #[error("application {found:?}, expected {APP:?}")]
    App {
        /// What was asked for, clipped.
        found: String,
    },
    /// A player.
    #[error("wants to play, and this server only takes publishers")]
    Play,
    /// More message streams than a publisher needs.
    #[error("more than {MAX_CREATED_STREAMS} message streams created")]
    TooManyStreams,
    /// More input than fits while a decision is awaited.
    #[error("{found_bytes} bytes while a decision is awaited, the limit is {MAX_HELD_BYTES}")]
    Held {
        /// Bytes that would be held.
        found_bytes: usize,
    },
    /// Nothing came in time.
    #[error("no {expected} within {} s", after.as_secs())]
    TimedOut {
        /// What was awaited.
        expected: &'static str,
        /// How long.
        after: Duration,
    },
}

/// Whose doing an [`Error`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// The peer broke the protocol.
    Misbehaved,
    /// Well-formed, and nothing that this server does.
    Unsupported,
    /// A limit of ours.
    Limit,
    /// The peer or the network was too slow.
    Timeout,
}

impl Error {
    /// Whose doing it is.
    #[must_use]
    pub const fn fault(&self) -> Fault {
        match self {
            Self::App { .. } | Self::Play => Fault::Unsupported,
            Self::TimedOut { .. } => Fault::Timeout,
            Self::TooManyStreams
            | Self::Held { .. }
            | Self::Chunk(
                chunk::Error::MessageTooLong { .. }
                | chunk::Error::TooManyChunkStreams { .. }
                | chunk::Error::PartialsTooLarge { .. },
            )
            | Self::Amf {
                source: amf::Error::TooDeep { .. } | amf::Error::TooMany { .. },
                ..
            } => Fault::Limit,
            _ => Fault::Misbehaved,
        }
    }
}

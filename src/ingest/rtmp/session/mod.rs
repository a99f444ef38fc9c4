//! One publisher's connection as a state machine: bytes in, replies and events out.
//!
//! Enters: the bytes of one connection, cut anywhere; the decisions of the owner; the time
//! Leaves: [`Output`]s in order
//! Never:  I/O, clocks; media before the publication is accepted or on a foreign message stream
//! Time:   `Instant` for deadlines, RTMP milliseconds passed through
//! Spec:   [RTMP] §5.2, §7

#![deny(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::float_arithmetic
)]

mod command;
mod error;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rml_rtmp::handshake::{Handshake, HandshakeProcessResult, PeerType};

use super::chunk::{self, ChunkReader, kind};
use super::reply::{Level, Status, Writer};
use super::{Config, Metadata, Refusal};

pub use error::{Error, Fault};

/// Input kept while a decision is awaited. The owner stops reading meanwhile, so this is what one
/// read may bring.
pub const MAX_HELD_BYTES: usize = 1 << 20;
/// Bytes per acknowledgement when the peer names no window of its own.
const DEFAULT_ACK_WINDOW: u32 = 2_500_000;
/// Tags in one aggregate: several seconds of them. Each part becomes an event.
const MAX_AGGREGATE_PARTS: usize = 4_096;
/// C0, C1 and C2.
const HANDSHAKE_BYTES: usize = 1 + 2 * 1_536;

/// What the owner of a [`Session`] has to do next.
#[derive(Debug, PartialEq, Eq)]
pub enum Output {
    /// Send these bytes.
    Send(Bytes),
    /// Something happened.
    Event(Event),
    /// Call [`Session::handle_timeout`] at this instant; replaces the one before.
    Deadline(Instant),
    /// Send what was to be sent, then close. Nothing follows.
    Close,
}

/// What happened on the connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The publisher asks to publish: answer with [`Session::accept`] or [`Session::refuse`].
    Requested(Request),
    /// Metadata of the accepted publication.
    Metadata(Metadata),
    /// The body of an FLV video tag, not empty.
    Video {
        /// Milliseconds on the publisher's clock; wraps.
        timestamp_ms: u32,
        /// The body.
        data: Bytes,
    },
    /// The body of an FLV audio tag, not empty.
    Audio {
        /// Milliseconds on the publisher's clock; wraps.
        timestamp_ms: u32,
        /// The body.
        data: Bytes,
    },
    /// The publisher said that it is done.
    Unpublished,
}

/// A request to publish.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The name up to a `?`, as sent.
    pub stream_key: String,
    /// What follows the `?`.
    pub query: Option<String>,
    /// `flashVer` of the connect command, clipped.
    pub encoder: Option<String>,
}

/// A publisher's connection, after the manner of a peer: feed it, then drain [`Self::poll_output`] to
/// `None` after every call. `now` never goes backwards. After an error it is closed: what it still
/// has to say comes out of [`Self::poll_output`], further input is ignored.
pub struct Session {
    config: Config,
    phase: Phase,
    chunks: ChunkReader,
    writer: Writer,
    outputs: VecDeque<Output>,
    held: Vec<u8>,
    encoder: Option<String>,
    created_streams: u32,
    ack_window: u32,
    acknowledged: u64,
    deadline: Deadline,
}

enum Phase {
    Handshake {
        handshake: Box<Handshake>,
        fed: usize,
        first_byte: u8,
    },
    Connecting,
    Connected,
    Requested {
        stream_id: u32,
    },
    Publishing {
        stream_id: u32,
    },
    Closed,
}

impl Phase {
    const fn name(&self) -> &'static str {
        match self {
            Self::Handshake { .. } => "shaking hands",
            Self::Connecting => "waiting for connect",
            Self::Connected => "waiting for publish",
            Self::Requested { .. } => "waiting for a decision",
            Self::Publishing { .. } => "publishing",
            Self::Closed => "closed",
        }
    }
}

struct Deadline {
    at: Instant,
    after: Duration,
    expected: &'static str,
    announced: bool,
}

impl Session {
    /// A session of a connection that was accepted at `now`.
    #[must_use]
    pub fn new(config: Config, now: Instant) -> Self {
        let after = config.handshake_timeout;
        Self {
            phase: Phase::Handshake {
                handshake: Box::new(Handshake::new(PeerType::Server)),
                fed: 0,
                first_byte: 0,
            },
            chunks: ChunkReader::new(config.max_message_bytes),
            writer: Writer::new(),
            outputs: VecDeque::new(),
            held: Vec::new(),
            encoder: None,
            created_streams: 0,
            ack_window: DEFAULT_ACK_WINDOW,
            acknowledged: 0,
            deadline: Deadline {
                at: now + after,
                after,
                expected: "handshake",
                announced: false,
            },
            config,
        }
    }

    /// Takes bytes from the peer, as many as came, at most [`MAX_HELD_BYTES`].
    ///
    /// # Errors
    /// Any [`Error`]; the session is closed afterwards.
    pub fn handle_bytes(&mut self, bytes: &[u8], now: Instant) -> Result<(), Error> {
        let result = self.process(bytes, now);
        self.close_on_error(result)
    }

    /// Tells the session that it is `now`.
    ///
    /// # Errors
    /// [`Error::TimedOut`] if what was awaited has not come; the session is closed afterwards.
    pub fn handle_timeout(&mut self, now: Instant) -> Result<(), Error> {
        let waits_for_peer = !matches!(self.phase, Phase::Requested { .. } | Phase::Closed);
        if waits_for_peer && now >= self.deadline.at {
            let Deadline {
                expected, after, ..
            } = self.deadline;
            return self.close_on_error(Err(Error::TimedOut { expected, after }));
        }
        self.deadline.announced = false;
        Ok(())
    }

    /// Lets the publisher publish, and takes what it has sent meanwhile. Without an open request
    /// nothing happens.
    ///
    /// # Errors
    /// Any [`Error`] in that; the session is closed afterwards.
    pub fn accept(&mut self, now: Instant) -> Result<(), Error> {
        let Phase::Requested { stream_id } = self.phase else {
            return Ok(());
        };
        self.phase = Phase::Publishing { stream_id };
        let begin = self.writer.stream_begin(stream_id);
        self.send(begin);
        let start = Status {
            level: Level::Status,
            code: "NetStream.Publish.Start",
            description: "Publishing.",
        };
        let start = self.writer.status(stream_id, &start);
        self.send(start);
        self.expect(now, self.config.first_media_timeout, "media");
        let held = std::mem::take(&mut self.held);
        self.handle_bytes(&held, now)
    }

    /// Tells the publisher why not, before or after it was accepted, and closes.
    pub fn refuse(&mut self, refusal: &Refusal) {
        let stream_id = match self.phase {
            Phase::Requested { stream_id } | Phase::Publishing { stream_id } => stream_id,
            Phase::Closed => return,
            _ => 0,
        };
        let status = Status {
            level: Level::Error,
            code: refusal.code.as_str(),
            description: &refusal.description,
        };
        let status = self.writer.status(stream_id, &status);
        self.send(status);
        self.close();
    }

    /// Closes without a word.
    pub fn close(&mut self) {
        if !matches!(self.phase, Phase::Closed) {
            self.phase = Phase::Closed;
            self.held = Vec::new();
            self.outputs.push_back(Output::Close);
        }
    }

    /// What to do next; `None` when there is nothing.
    pub fn poll_output(&mut self) -> Option<Output> {
        if let Some(output) = self.outputs.pop_front() {
            return Some(output);
        }
        if self.deadline.announced || matches!(self.phase, Phase::Closed) {
            return None;
        }
        self.deadline.announced = true;
        Some(Output::Deadline(self.deadline.at))
    }

    /// Bytes of the chunk stream read so far: where in it an error lies.
    #[must_use]
    pub const fn offset(&self) -> u64 {
        self.chunks.offset()
    }

    /// Where the session stands, in words for a log.
    #[must_use]
    pub const fn phase(&self) -> &'static str {
        self.phase.name()
    }

    fn close_on_error(&mut self, result: Result<(), Error>) -> Result<(), Error> {
        if result.is_err() {
            self.close();
        }
        result
    }

    fn process(&mut self, mut bytes: &[u8], now: Instant) -> Result<(), Error> {
        if matches!(self.phase, Phase::Handshake { .. }) {
            self.shake_hands(&mut bytes, now)?;
        }
        loop {
            match self.phase {
                Phase::Closed | Phase::Handshake { .. } => return Ok(()),
                Phase::Requested { .. } => return self.hold(bytes),
                Phase::Connecting | Phase::Connected | Phase::Publishing { .. } => {}
            }
            let Some(message) = self.chunks.read(&mut bytes)? else {
                break;
            };
            self.message(message, now)?;
        }
        self.acknowledge();
        Ok(())
    }

    fn shake_hands(&mut self, bytes: &mut &[u8], now: Instant) -> Result<(), Error> {
        let Phase::Handshake {
            handshake,
            fed,
            first_byte,
        } = &mut self.phase
        else {
            return Ok(());
        };
        let Some(first) = bytes.first() else {
            return Ok(());
        };
        if *fed == 0 {
            *first_byte = *first;
        }
        let (ours, rest) = bytes.split_at(bytes.len().min(HANDSHAKE_BYTES - *fed));
        *fed += ours.len();
        *bytes = rest;
        let first_byte = *first_byte;
        match handshake.process_bytes(ours) {
            Ok(HandshakeProcessResult::InProgress { response_bytes }) => {
                self.send(response_bytes.into());
            }
            Ok(HandshakeProcessResult::Completed { response_bytes, .. }) => {
                self.send(response_bytes.into());
                self.phase = Phase::Connecting;
                self.expect(now, self.config.handshake_timeout, "request to publish");
            }
            Err(_) => return Err(Error::Handshake { first_byte }),
        }
        Ok(())
    }

    fn hold(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let found_bytes = self.held.len() + bytes.len();
        if found_bytes > MAX_HELD_BYTES {
            return Err(Error::Held { found_bytes });
        }
        self.held.extend_from_slice(bytes);
        Ok(())
    }

    fn message(&mut self, message: chunk::Message, now: Instant) -> Result<(), Error> {
        match message.type_id {
            kind::AUDIO | kind::VIDEO => self.media(message, now),
            kind::AGGREGATE => self.aggregate(&message, now),
            kind::COMMAND_AMF0 | kind::COMMAND_AMF3 => self.command(&message, now),
            kind::DATA_AMF0 | kind::DATA_AMF3 => self.data(&message),
            kind::WINDOW_ACK_SIZE => {
                self.ack_window = chunk::control_value(&message)?.max(1);
                Ok(())
            }
            kind::USER_CONTROL => {
                self.user_control(&message.data);
                Ok(())
            }
            // Acknowledgements of our few replies, bandwidth that we do not use, shared objects,
            // and what nobody has defined.
            _ => Ok(()),
        }
    }

    fn media(&mut self, message: chunk::Message, now: Instant) -> Result<(), Error> {
        let chunk::Message {
            type_id,
            stream_id: found,
            timestamp_ms,
            data,
        } = message;
        let Phase::Publishing {
            stream_id: expected,
        } = self.phase
        else {
            let phase = self.phase.name();
            return Err(Error::UnexpectedMedia { type_id, phase });
        };
        if found != expected {
            return Err(Error::ForeignStream { expected, found });
        }
        self.expect(now, self.config.idle_timeout, "media");
        // An empty message of sound stands for silence; there is nothing to hand on.
        if !data.is_empty() {
            let event = match type_id {
                kind::AUDIO => Event::Audio { timestamp_ms, data },
                _ => Event::Video { timestamp_ms, data },
            };
            self.outputs.push_back(Output::Event(event));
        }
        Ok(())
    }

    /// Takes an aggregate apart: FLV tags whose first timestamp stands for the aggregate's own.
    fn aggregate(&mut self, message: &chunk::Message, now: Instant) -> Result<(), Error> {
        const HEADER: usize = 11;
        const BACK_POINTER: usize = 4;
        let whole = &message.data;
        let truncated = Error::Aggregate {
            found_bytes: whole.len(),
        };
        let mut first_ms = None;
        let mut at = 0;
        let mut parts = 0;
        while at < whole.len() {
            parts += 1;
            if parts > MAX_AGGREGATE_PARTS {
                return Err(truncated);
            }
            let header: &[u8; HEADER] =
                whole[at..].first_chunk().ok_or_else(|| truncated.clone())?;
            let length = usize::from(header[1]) << 16 | usize::from(header[2]) << 8;
            let length = length | usize::from(header[3]);
            let time_ms = u32::from_be_bytes([header[7], header[4], header[5], header[6]]);
            let begin = at + HEADER;
            if whole.len() - begin < length {
                return Err(truncated);
            }
            let offset_ms = time_ms.wrapping_sub(*first_ms.get_or_insert(time_ms));
            let part = chunk::Message {
                type_id: header[0],
                stream_id: message.stream_id,
                timestamp_ms: message.timestamp_ms.wrapping_add(offset_ms),
                data: whole.slice(begin..begin + length),
            };
            match part.type_id {
                kind::AUDIO | kind::VIDEO => self.media(part, now)?,
                kind::DATA_AMF0 => self.data(&part)?,
                _ => {}
            }
            at = begin + length + BACK_POINTER;
        }
        Ok(())
    }

    fn user_control(&mut self, data: &[u8]) {
        const PING_REQUEST: [u8; 2] = [0, 6];
        if let Some((&PING_REQUEST, rest)) = data.split_first_chunk()
            && let Some(timestamp) = rest.first_chunk()
        {
            let response = self.writer.ping_response(u32::from_be_bytes(*timestamp));
            self.send(response);
        }
    }

    /// Sends the running total once per window.
    fn acknowledge(&mut self) {
        let total = self.chunks.offset();
        if total - self.acknowledged >= u64::from(self.ack_window) {
            self.acknowledged = total;
            let low = u32::try_from(total & u64::from(u32::MAX)).unwrap_or_default();
            let acknowledgement = self.writer.acknowledgement(low);
            self.send(acknowledgement);
        }
    }

    fn send(&mut self, bytes: Bytes) {
        if !bytes.is_empty() {
            self.outputs.push_back(Output::Send(bytes));
        }
    }

    /// Waits `after` from now for `expected`. A deadline that moves away is not announced again:
    /// the owner comes back at the old one and is told the new one then.
    fn expect(&mut self, now: Instant, after: Duration, expected: &'static str) {
        let at = now + after;
        self.deadline = Deadline {
            at,
            after,
            expected,
            announced: self.deadline.announced && at >= self.deadline.at,
        };
    }
}

#[cfg(test)]
mod tests;

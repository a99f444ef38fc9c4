//! Bytes of the chunk stream to whole messages.
//!
//! Enters: what the socket gave, cut anywhere, after the handshake
//! Leaves: [`Message`]s in the order in which their last chunk arrived
//! Never:  I/O, clocks, allocation on the word of a wire length
//! Time:   RTMP milliseconds, 32 bits that wrap, deltas added up
//! Spec:   [RTMP] §5.3, §5.4

#![deny(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::float_arithmetic
)]

mod header;
mod input;

use bytes::{Bytes, BytesMut};

use header::{EXTENDED, Header};
use input::Replay;

/// Chunk streams one peer may open. Publishers use at most eight; each costs us a partial message.
pub const MAX_CHUNK_STREAMS: usize = 32;

/// How many times the largest message all partial messages together may hold. Two lets a large
/// frame of sound or data arrive inside a picture of the largest size.
pub const MAX_PARTIAL_MESSAGES: usize = 2;

/// Payload bytes per chunk before the peer says otherwise.
const DEFAULT_CHUNK_BYTES: u32 = 128;
/// What a message's buffer begins with at most; from there it grows with what has arrived. Most messages are
/// shorter, and get a buffer of their length once and for all. What a peer only announces costs no memory
/// before it comes: pages that are not written are not there.
const FIRST_RESERVE_BYTES: usize = 128 * 1_024;

/// Types of message, as far as they are handled by number.
pub mod kind {
    /// Set Chunk Size.
    pub const SET_CHUNK_SIZE: u8 = 1;
    /// Abort Message.
    pub const ABORT: u8 = 2;
    /// Acknowledgement.
    pub const ACKNOWLEDGEMENT: u8 = 3;
    /// User Control.
    pub const USER_CONTROL: u8 = 4;
    /// Window Acknowledgement Size.
    pub const WINDOW_ACK_SIZE: u8 = 5;
    /// Set Peer Bandwidth.
    pub const SET_PEER_BANDWIDTH: u8 = 6;
    /// Sound: the body of an FLV audio tag.
    pub const AUDIO: u8 = 8;
    /// Pictures: the body of an FLV video tag.
    pub const VIDEO: u8 = 9;
    /// Data in AMF3, in practice a zero byte and AMF0.
    pub const DATA_AMF3: u8 = 15;
    /// A command in AMF3, in practice a zero byte and AMF0.
    pub const COMMAND_AMF3: u8 = 17;
    /// Data in AMF0.
    pub const DATA_AMF0: u8 = 18;
    /// A command in AMF0.
    pub const COMMAND_AMF0: u8 = 20;
    /// Several messages in one.
    pub const AGGREGATE: u8 = 22;
}

/// One whole message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// One of [`kind`], or any other number.
    pub type_id: u8,
    /// The message stream it belongs to; 0 is the connection itself.
    pub stream_id: u32,
    /// Milliseconds on the peer's clock; wraps.
    pub timestamp_ms: u32,
    /// The body.
    pub data: Bytes,
}

/// What is wrong with a chunk stream. All of it is the peer's doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A header that builds on an earlier one, where there is none.
    #[error("chunk of type {format} on chunk stream {csid}, which has no header yet")]
    NoHeader {
        /// Chunk stream.
        csid: u32,
        /// Type of chunk, 2 or 3.
        format: u8,
    },
    /// A new message begins inside another of the same chunk stream.
    #[error(
        "chunk stream {csid} begins a message of {found_bytes} bytes with {held_bytes} of {expected_bytes} bytes of the last one received"
    )]
    Interrupted {
        /// Chunk stream.
        csid: u32,
        /// Length of the unfinished message.
        expected_bytes: u32,
        /// Bytes of it that have arrived.
        held_bytes: usize,
        /// Length of the message that begins.
        found_bytes: u32,
    },
    /// A message longer than the configured limit.
    #[error("message of type {type_id} has {found_bytes} bytes, the limit is {max_bytes}")]
    MessageTooLong {
        /// Message type.
        type_id: u8,
        /// Announced length.
        found_bytes: u32,
        /// The limit.
        max_bytes: u32,
    },
    /// More than [`MAX_CHUNK_STREAMS`] chunk streams.
    #[error("chunk stream {csid} would be one more than the allowed {MAX_CHUNK_STREAMS}")]
    TooManyChunkStreams {
        /// The chunk stream that is one too many.
        csid: u32,
    },
    /// All unfinished messages together hold too much.
    #[error("unfinished messages hold more than {max_bytes} bytes")]
    PartialsTooLarge {
        /// The limit.
        max_bytes: usize,
    },
    /// Set Chunk Size with a value outside 1 to 2^31 − 1.
    #[error("chunk size {found} is not allowed")]
    ChunkSize {
        /// The value found.
        found: u32,
    },
    /// A protocol control message with a body of the wrong length.
    #[error("control message of type {type_id} has {found_bytes} bytes, expected {expected_bytes}")]
    ControlLength {
        /// Message type.
        type_id: u8,
        /// Bytes found.
        found_bytes: usize,
        /// Bytes expected.
        expected_bytes: usize,
    },
}

/// Puts chunks together. After an error it is closed: every further read gives the same error.
#[derive(Debug)]
pub struct ChunkReader {
    max_message_bytes: u32,
    chunk_bytes: u32,
    streams: Vec<ChunkStream>,
    partial_bytes: usize,
    state: State,
    header: Header,
    replay: Replay,
    offset: u64,
    failed: Option<Error>,
}

impl ChunkReader {
    /// A reader that refuses messages longer than `max_message_bytes`.
    #[must_use]
    pub const fn new(max_message_bytes: u32) -> Self {
        Self {
            max_message_bytes,
            chunk_bytes: DEFAULT_CHUNK_BYTES,
            streams: Vec::new(),
            partial_bytes: 0,
            state: State::Header,
            header: Header::new(),
            replay: Replay::new(),
            offset: 0,
            failed: None,
        }
    }

    /// Takes bytes off the front of `input` until a message is whole, or until there are none left
    /// (`None`). Set Chunk Size and Abort take effect here and are not handed on.
    ///
    /// # Errors
    /// Any [`Error`]; the reader is closed afterwards.
    pub fn read(&mut self, input: &mut &[u8]) -> Result<Option<Message>, Error> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        let before = input.len();
        let result = self.read_any(input);
        self.offset += (before - input.len()) as u64;
        if let Err(error) = result {
            self.failed = Some(error);
        }
        result
    }

    /// Bytes taken so far.
    #[must_use]
    pub const fn offset(&self) -> u64 {
        self.offset
    }

    /// Bytes held in unfinished messages.
    #[must_use]
    pub const fn partial_bytes(&self) -> usize {
        self.partial_bytes
    }

    fn read_any(&mut self, input: &mut &[u8]) -> Result<Option<Message>, Error> {
        loop {
            let index = match self.state {
                State::Header => {
                    let Some(index) = self.read_header(input)? else {
                        return Ok(None);
                    };
                    index
                }
                State::Payload { index, left } => {
                    let Some(index) = self.read_payload(input, index, left)? else {
                        return Ok(None);
                    };
                    index
                }
            };
            if let Some(message) = self.end_of_chunk(index)?
                && let Some(message) = self.control(message)?
            {
                return Ok(Some(message));
            }
        }
    }

    /// Reads on in a header. Gives the chunk stream's index when the header is whole and its chunk
    /// has no payload left to come; otherwise sets the state for the payload and reads that.
    fn read_header(&mut self, input: &mut &[u8]) -> Result<Option<usize>, Error> {
        while self.header.missing() {
            let Some(byte) = self.replay.next(input) else {
                return Ok(None);
            };
            self.header.push(byte);
        }
        let (format, csid) = self.header.basic();
        let index = self.stream_index(format, csid)?;
        if !self.read_extended(input, index, format) {
            return Ok(None);
        }
        let header = std::mem::replace(&mut self.header, Header::new());
        self.begin_chunk(index, &header)?;
        let stream = &self.streams[index];
        let left = stream.left().min(self.chunk_bytes);
        if left == 0 {
            return Ok(Some(index));
        }
        self.read_payload(input, index, left)
    }

    /// Reads the extended timestamp, where there is one; false while bytes are missing.
    ///
    /// A chunk of type 3 repeats it by the letter of the specification, yet some encoders leave it
    /// out: it is there if the next four bytes are the timestamp, and payload otherwise.
    fn read_extended(&mut self, input: &mut &[u8], index: usize, format: u8) -> bool {
        let stream = &self.streams[index];
        let (must, may) = match format {
            3 => (false, stream.extended),
            _ => (self.header.field() == EXTENDED, false),
        };
        if !must && !may {
            return true;
        }
        let candidates = [stream.field, stream.timestamp_ms].map(u32::to_be_bytes);
        while self.header.extended_len < 4 {
            let Some(byte) = self.replay.peek(input) else {
                return false;
            };
            let len = self.header.extended_len;
            if may {
                let matches = |candidate: &[u8; 4]| {
                    candidate[..len] == self.header.extended[..len] && candidate[len] == byte
                };
                if !candidates.iter().any(matches) {
                    self.replay.put_back(&self.header.extended[..len]);
                    self.header.extended_len = 0;
                    return true;
                }
            }
            self.header.extended[len] = byte;
            self.header.extended_len += 1;
            let _taken = self.replay.next(input);
        }
        true
    }

    /// Where the state of `csid` lies; made if it is new and `format` allows it to be.
    fn stream_index(&mut self, format: u8, csid: u32) -> Result<usize, Error> {
        if let Some(index) = self.streams.iter().position(|s| s.csid == csid) {
            return Ok(index);
        }
        // librtmp opens its control stream with a type 1 header, on message stream 0.
        if format >= 2 {
            return Err(Error::NoHeader { csid, format });
        }
        if self.streams.len() == MAX_CHUNK_STREAMS {
            return Err(Error::TooManyChunkStreams { csid });
        }
        self.streams.push(ChunkStream::new(csid));
        Ok(self.streams.len() - 1)
    }

    /// Applies a whole header to its chunk stream.
    fn begin_chunk(&mut self, index: usize, header: &Header) -> Result<(), Error> {
        let (format, csid) = header.basic();
        let stream = &mut self.streams[index];
        let length = header.length().unwrap_or(stream.length);
        let type_id = header.type_id().unwrap_or(stream.type_id);
        if length > self.max_message_bytes {
            return Err(Error::MessageTooLong {
                type_id,
                found_bytes: length,
                max_bytes: self.max_message_bytes,
            });
        }
        if stream.open {
            // Some serializers repeat a full header on every chunk of one message.
            if length == stream.length && type_id == stream.type_id {
                return Ok(());
            }
            return Err(Error::Interrupted {
                csid,
                expected_bytes: stream.length,
                held_bytes: stream.data.len(),
                found_bytes: length,
            });
        }
        if format < 3 {
            stream.extended = header.field() == EXTENDED;
            stream.field = header.timestamp_field();
        }
        stream.timestamp_ms = match format {
            0 => stream.field,
            _ => stream.timestamp_ms.wrapping_add(stream.field),
        };
        stream.length = length;
        stream.type_id = type_id;
        stream.stream_id = header.stream_id().unwrap_or(stream.stream_id);
        stream.open = true;
        Ok(())
    }

    /// Moves payload into the message; gives the index when the chunk is at its end.
    fn read_payload(
        &mut self,
        input: &mut &[u8],
        index: usize,
        mut left: u32,
    ) -> Result<Option<usize>, Error> {
        let max_bytes = self.max_message_bytes as usize * MAX_PARTIAL_MESSAGES;
        while left > 0 {
            let piece = self.replay.take(input, left as usize);
            if piece.is_empty() {
                self.state = State::Payload { index, left };
                return Ok(None);
            }
            if self.partial_bytes + piece.len() > max_bytes {
                return Err(Error::PartialsTooLarge { max_bytes });
            }
            self.partial_bytes += piece.len();
            self.streams[index].extend(&piece);
            left -= u32::try_from(piece.len()).unwrap_or(left);
        }
        self.state = State::Header;
        Ok(Some(index))
    }

    fn end_of_chunk(&mut self, index: usize) -> Result<Option<Message>, Error> {
        self.state = State::Header;
        let stream = &mut self.streams[index];
        if stream.left() > 0 {
            return Ok(None);
        }
        stream.open = false;
        self.partial_bytes -= stream.data.len();
        Ok(Some(Message {
            type_id: stream.type_id,
            stream_id: stream.stream_id,
            timestamp_ms: stream.timestamp_ms,
            data: std::mem::take(&mut stream.data).freeze(),
        }))
    }

    /// Obeys the two messages that change how chunks are read; hands every other one on.
    fn control(&mut self, message: Message) -> Result<Option<Message>, Error> {
        match message.type_id {
            kind::SET_CHUNK_SIZE => {
                let found = control_value(&message)?;
                if found == 0 || found > i32::MAX.unsigned_abs() {
                    return Err(Error::ChunkSize { found });
                }
                self.chunk_bytes = found;
                Ok(None)
            }
            kind::ABORT => {
                let csid = control_value(&message)?;
                if let Some(stream) = self.streams.iter_mut().find(|s| s.csid == csid) {
                    self.partial_bytes -= stream.data.len();
                    stream.open = false;
                    stream.data = BytesMut::new();
                }
                Ok(None)
            }
            _ => Ok(Some(message)),
        }
    }
}

/// The 32-bit value that is the body of most protocol control messages.
///
/// # Errors
/// [`Error::ControlLength`] if the body is shorter.
pub fn control_value(message: &Message) -> Result<u32, Error> {
    match message.data.first_chunk() {
        Some(bytes) => Ok(u32::from_be_bytes(*bytes)),
        None => Err(Error::ControlLength {
            type_id: message.type_id,
            found_bytes: message.data.len(),
            expected_bytes: 4,
        }),
    }
}

#[derive(Clone, Copy, Debug)]
enum State {
    Header,
    /// `left` bytes of this chunk are still to come.
    Payload {
        index: usize,
        left: u32,
    },
}

/// What one chunk stream remembers from header to header, and its unfinished message.
#[derive(Debug)]
struct ChunkStream {
    csid: u32,
    /// A message has begun and is not whole.
    open: bool,
    length: u32,
    type_id: u8,
    stream_id: u32,
    timestamp_ms: u32,
    /// The last timestamp field: absolute after type 0, a delta after 1 and 2, and what a message
    /// that begins with type 3 adds.
    field: u32,
    extended: bool,
    data: BytesMut,
}

impl ChunkStream {
    fn new(csid: u32) -> Self {
        Self {
            csid,
            open: false,
            length: 0,
            type_id: 0,
            stream_id: 0,
            timestamp_ms: 0,
            field: 0,
            extended: false,
            data: BytesMut::new(),
        }
    }

    /// Bytes that the message still lacks.
    fn left(&self) -> u32 {
        u32::try_from(self.data.len()).map_or(0, |held| self.length.saturating_sub(held))
    }

    /// Appends, growing by what has arrived: twice that, at most to the announced length.
    fn extend(&mut self, piece: &[u8]) {
        let need = self.data.len() + piece.len();
        if need > self.data.capacity() {
            let grown = need.saturating_mul(2).max(FIRST_RESERVE_BYTES);
            let target = grown.min(self.length as usize).max(need);
            self.data.reserve(target - self.data.len());
        }
        self.data.extend_from_slice(piece);
    }
}

#[cfg(test)]
mod tests;

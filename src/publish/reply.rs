//! What a server says back, to commands and their values.
//!
//! Enters: the chunk stream of a server, cut anywhere
//! Leaves: [`Reply`]s; everything but commands is passed over
//! Never:  I/O; large messages: a server has nothing long to say to a publisher
//! Spec:   [RTMP] §5.3, §7.1

#![deny(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::float_arithmetic
)]

use rml_amf0::Amf0Value;

use super::Error;

/// The longest message read. A status with a long description is a tenth of it.
const MAX_MESSAGE_BYTES: usize = 4_096;
/// Bytes in one command that could open an object or an array. Values nest no deeper than there are
/// such bytes, and they are read by recursion, which takes kilobytes of stack for each level.
const MAX_OPENERS: usize = 96;
/// Chunk streams a server may use towards us.
const MAX_CHUNK_STREAMS: usize = 16;
const EXTENDED: [u8; 3] = [0xFF; 3];
const SET_CHUNK_SIZE: u8 = 1;
const COMMAND_AMF0: u8 = 20;

/// A command from the server.
#[derive(Debug, PartialEq)]
pub(super) struct Reply {
    /// `_result`, `_error`, `onStatus`, …
    pub(super) name: String,
    /// The transaction it answers; 0 for none.
    pub(super) transaction: f64,
    /// What follows: the command object first.
    pub(super) values: Vec<Amf0Value>,
}

impl Reply {
    /// Text of property `name` in the first object that has it.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.values.iter().find_map(|value| match value {
            Amf0Value::Object(properties) => match properties.get(name) {
                Some(Amf0Value::Utf8String(text)) => Some(&**text),
                _ => None,
            },
            _ => None,
        })
    }

    /// The texts of the list `name` in the first object that has it.
    pub(super) fn texts(&self, name: &str) -> Option<Vec<&str>> {
        let list = self.values.iter().find_map(|value| match value {
            Amf0Value::Object(properties) => properties.get(name),
            _ => None,
        });
        let Some(Amf0Value::StrictArray(list)) = list else {
            return None;
        };
        let texts = list.iter().filter_map(|value| match value {
            Amf0Value::Utf8String(text) => Some(&**text),
            _ => None,
        });
        Some(texts.collect())
    }

    /// Whether it says no, and how.
    pub(super) fn refusal(&self) -> Option<Error> {
        let says_no = self.name == "_error" || self.text("level") == Some("error");
        says_no.then(|| Error::Refused {
            code: self.text("code").unwrap_or("no code").to_owned(),
            description: self
                .text("description")
                .unwrap_or("without a reason")
                .to_owned(),
        })
    }
}

/// Reads replies.
#[derive(Debug)]
pub(super) struct Reader {
    buffer: Vec<u8>,
    chunk_bytes: usize,
    streams: Vec<ChunkStream>,
}

#[derive(Debug, Default)]
struct ChunkStream {
    csid: u32,
    length: usize,
    type_id: u8,
    extended: bool,
    data: Vec<u8>,
}

impl Reader {
    pub(super) const fn new() -> Self {
        Self {
            buffer: Vec::new(),
            chunk_bytes: 128,
            streams: Vec::new(),
        }
    }

    /// Adds what came from the socket.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole command.
    pub(super) fn next(&mut self) -> Result<Option<Reply>, Error> {
        while let Some((index, used)) = self.chunk()? {
            self.buffer.drain(..used);
            let stream = &mut self.streams[index];
            if stream.data.len() < stream.length {
                continue;
            }
            let (type_id, body) = (stream.type_id, std::mem::take(&mut stream.data));
            match type_id {
                SET_CHUNK_SIZE => {
                    let size = body.first_chunk().map(|b| u32::from_be_bytes(*b));
                    let size = size.filter(|size| *size > 0 && *size >> 31 == 0);
                    self.chunk_bytes = size.ok_or(malformed("chunk size"))? as usize;
                }
                COMMAND_AMF0 => return command(&body).map(Some),
                _ => {}
            }
        }
        Ok(None)
    }

    /// Takes in one chunk, if it is whole: its stream's index and its length on the wire.
    fn chunk(&mut self) -> Result<Option<(usize, usize)>, Error> {
        let Some(header) = Header::parse(&self.buffer) else {
            return Ok(None);
        };
        let index = match self.streams.iter().position(|s| s.csid == header.csid) {
            Some(index) => index,
            None if header.format < 2 && self.streams.len() < MAX_CHUNK_STREAMS => {
                let csid = header.csid;
                self.streams.push(ChunkStream {
                    csid,
                    ..ChunkStream::default()
                });
                self.streams.len() - 1
            }
            None => return Err(malformed("chunk stream")),
        };
        let stream = &mut self.streams[index];
        let message = header.message.unwrap_or((stream.length, stream.type_id));
        if message.0 > MAX_MESSAGE_BYTES || (!stream.data.is_empty() && message.0 != stream.length)
        {
            return Err(malformed("message length"));
        }
        let extended = header.extended.unwrap_or(stream.extended);
        let begin = header.len + if extended { 4 } else { 0 };
        let payload = (message.0 - stream.data.len()).min(self.chunk_bytes);
        let Some(bytes) = self.buffer.get(begin..begin + payload) else {
            return Ok(None);
        };
        (stream.length, stream.type_id) = message;
        stream.extended = extended;
        stream.data.extend_from_slice(bytes);
        Ok(Some((index, begin + payload)))
    }
}

/// A chunk header up to the extended timestamp.
struct Header {
    format: u8,
    csid: u32,
    /// Length and type of the message, where the header has them.
    message: Option<(usize, u8)>,
    /// Whether the timestamp is extended, where the header says.
    extended: Option<bool>,
    len: usize,
}

impl Header {
    fn parse(bytes: &[u8]) -> Option<Self> {
        let first = *bytes.first()?;
        let byte = |at: usize| bytes.get(at).copied().map(u32::from);
        let (csid, basic) = match first & 0x3F {
            0 => (64 + byte(1)?, 2),
            1 => (64 + byte(1)? + 256 * byte(2)?, 3),
            id => (u32::from(id), 1),
        };
        let format = first >> 6;
        let len = basic + [11, 7, 3, 0][usize::from(format)];
        let fields = bytes.get(basic..len)?;
        Some(Self {
            format,
            csid,
            message: fields.get(3..7).map(|f| {
                let length = usize::from(f[0]) << 16 | usize::from(f[1]) << 8 | usize::from(f[2]);
                (length, f[3])
            }),
            extended: fields.first_chunk().map(|field| *field == EXTENDED),
            len,
        })
    }
}

fn command(body: &[u8]) -> Result<Reply, Error> {
    let opens = |byte: &&u8| matches!(**byte, 0x03 | 0x08 | 0x0A);
    if body.iter().filter(opens).count() > MAX_OPENERS {
        return Err(malformed("command nesting"));
    }
    let mut rest = body;
    let values = rml_amf0::deserialize(&mut rest).map_err(|_| malformed("command values"))?;
    let mut values = values.into_iter();
    let (name, transaction) = match (values.next(), values.next()) {
        (Some(Amf0Value::Utf8String(name)), Some(Amf0Value::Number(transaction))) => {
            (name, transaction)
        }
        // ffmpeg as a server says onFCPublish and nothing more; it answers no request of ours.
        (Some(Amf0Value::Utf8String(name)), None) => (name, 0.0),
        _ => return Err(malformed("command")),
    };
    Ok(Reply {
        name,
        transaction,
        values: values.collect(),
    })
}

const fn malformed(what: &'static str) -> Error {
    Error::Malformed { what }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(prop_oneof![any::<u8>(), 0_u8..24], 0..3_000), step in 1_usize..500) {
            let mut reader = Reader::new();
            for piece in bytes.chunks(step) {
                reader.push(piece);
                while let Ok(Some(_)) = reader.next() {}
            }
        }
    }

    #[test]
    fn a_list_is_read_from_the_object_that_has_it() {
        let text = |text: &str| Amf0Value::Utf8String(text.to_owned());
        let object = |name: &str, value| Amf0Value::Object([(name.to_owned(), value)].into());
        let list = Amf0Value::StrictArray(vec![text("avc1"), Amf0Value::Null, text("hvc1")]);
        let values = vec![
            text("_result"),
            Amf0Value::Number(1.0),
            object("fmsVer", text("x")),
            object("fourCcList", list),
        ];
        let body = rml_amf0::serialize(&values).expect("small");
        let reply = command(&body).expect("a command");
        assert_eq!(reply.texts("fourCcList"), Some(vec!["avc1", "hvc1"]));
        assert_eq!(reply.texts("fmsVer"), None);
        assert_eq!(reply.texts("capsEx"), None);
    }

    #[test]
    fn a_bare_name_is_a_command() {
        let body = rml_amf0::serialize(&vec![Amf0Value::Utf8String("onFCPublish".to_owned())]);
        let reply = command(&body.expect("small")).expect("a command");
        assert_eq!(
            (reply.name.as_str(), reply.values.len()),
            ("onFCPublish", 0)
        );
    }

    #[test]
    fn nesting_does_not_reach_the_end_of_the_stack() {
        for levels in [MAX_OPENERS, MAX_OPENERS + 1, MAX_MESSAGE_BYTES / 4] {
            let body = [3, 0, 1, b'a'].repeat(levels);
            assert!(command(&body).is_err());
        }
    }
}

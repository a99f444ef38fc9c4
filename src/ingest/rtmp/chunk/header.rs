//! The header of one chunk, gathered byte by byte.
//!
//! Enters: bytes, for as long as [`Header::missing`] says
//! Leaves: the fields as they stand on the wire
//! Never:  what a field means for the message: that depends on the chunks before
//! Spec:   [RTMP] §5.3.1

/// The value of the 24-bit timestamp field that announces the 32-bit one.
pub(super) const EXTENDED: u32 = 0x00FF_FFFF;
/// Basic header 3, message header 11, extended timestamp 4.
const MAX_HEADER_BYTES: usize = 18;

/// A chunk header as it comes in, byte by byte.
#[derive(Debug)]
pub(super) struct Header {
    bytes: [u8; MAX_HEADER_BYTES],
    len: usize,
    pub(super) extended: [u8; 4],
    pub(super) extended_len: usize,
}

impl Header {
    pub(super) const fn new() -> Self {
        Self {
            bytes: [0; MAX_HEADER_BYTES],
            len: 0,
            extended: [0; 4],
            extended_len: 0,
        }
    }

    pub(super) const fn push(&mut self, byte: u8) {
        self.bytes[self.len] = byte;
        self.len += 1;
    }

    /// Whether bytes are missing, the extended timestamp aside.
    pub(super) const fn missing(&self) -> bool {
        self.len == 0 || self.len < self.basic_len() + self.message_len()
    }

    const fn basic_len(&self) -> usize {
        match self.bytes[0] & 0x3F {
            0 => 2,
            1 => 3,
            _ => 1,
        }
    }

    const fn format(&self) -> u8 {
        self.bytes[0] >> 6
    }

    const fn message_len(&self) -> usize {
        match self.format() {
            0 => 11,
            1 => 7,
            2 => 3,
            _ => 0,
        }
    }

    /// Type of chunk and chunk stream.
    pub(super) fn basic(&self) -> (u8, u32) {
        let csid = match self.bytes[0] & 0x3F {
            0 => 64 + u32::from(self.bytes[1]),
            1 => 64 + u32::from(self.bytes[1]) + 256 * u32::from(self.bytes[2]),
            id => u32::from(id),
        };
        (self.format(), csid)
    }

    fn byte(&self, at: usize) -> u32 {
        u32::from(self.bytes[self.basic_len() + at])
    }

    /// The 24-bit timestamp field. Types 0 to 2 only.
    pub(super) fn field(&self) -> u32 {
        self.byte(0) << 16 | self.byte(1) << 8 | self.byte(2)
    }

    /// The timestamp field, or the extended one in its place.
    pub(super) fn timestamp_field(&self) -> u32 {
        match self.field() {
            EXTENDED => u32::from_be_bytes(self.extended),
            field => field,
        }
    }

    pub(super) fn length(&self) -> Option<u32> {
        (self.format() < 2).then(|| self.byte(3) << 16 | self.byte(4) << 8 | self.byte(5))
    }

    pub(super) fn type_id(&self) -> Option<u8> {
        (self.format() < 2).then(|| self.bytes[self.basic_len() + 6])
    }

    pub(super) fn stream_id(&self) -> Option<u32> {
        (self.format() == 0)
            .then(|| self.byte(7) | self.byte(8) << 8 | self.byte(9) << 16 | self.byte(10) << 24)
    }
}

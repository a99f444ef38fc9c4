//! The bytes of the chunk stream with a few of them put back in front.
//!
//! Enters: the socket's bytes; bytes that were taken and turned out to be payload
//! Leaves: the same bytes, in order
//! Never:  more than four bytes of its own

/// Up to three bytes that looked like an extended timestamp and were not: they come before the input.
#[derive(Debug)]
pub(super) struct Replay {
    bytes: [u8; 4],
    len: usize,
}

impl Replay {
    pub(super) const fn new() -> Self {
        Self {
            bytes: [0; 4],
            len: 0,
        }
    }

    pub(super) const fn peek(&self, input: &[u8]) -> Option<u8> {
        if self.len > 0 {
            return Some(self.bytes[0]);
        }
        match input {
            [first, ..] => Some(*first),
            [] => None,
        }
    }

    pub(super) fn next(&mut self, input: &mut &[u8]) -> Option<u8> {
        if self.len > 0 {
            let byte = self.bytes[0];
            self.bytes.copy_within(1.., 0);
            self.len -= 1;
            return Some(byte);
        }
        let (first, rest) = input.split_first()?;
        *input = rest;
        Some(*first)
    }

    /// Puts up to three taken bytes back in front. What is already here was taken together with
    /// them from at most four, so there is room.
    pub(super) fn put_back(&mut self, taken: &[u8]) {
        let count = taken.len().min(self.bytes.len() - self.len);
        self.bytes.copy_within(..self.len, count);
        self.bytes[..count].copy_from_slice(&taken[..count]);
        self.len += count;
    }

    /// Up to `max` bytes from the front; empty when there are none.
    pub(super) fn take<'a>(&mut self, input: &mut &'a [u8], max: usize) -> Piece<'a> {
        if self.len > 0 {
            let count = self.len.min(max);
            let bytes = self.bytes;
            self.bytes.copy_within(count.., 0);
            self.len -= count;
            return Piece::Replayed(bytes, count);
        }
        let (taken, rest) = input.split_at(max.min(input.len()));
        *input = rest;
        Piece::Input(taken)
    }
}

/// Payload bytes from one of the two sources.
pub(super) enum Piece<'a> {
    Replayed([u8; 4], usize),
    Input(&'a [u8]),
}

impl std::ops::Deref for Piece<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Replayed(bytes, count) => &bytes[..*count],
            Self::Input(bytes) => bytes,
        }
    }
}

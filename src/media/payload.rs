//! Bytes in pieces: what is made of many samples is stored and sent without ever being joined.
//!
//! Enters: reference-counted pieces
//! Leaves: a cheap clone of them, whole or as a byte range
//! Never:  copies media
//! Spec:   none

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

/// A body of bytes held in pieces. Clones share the pieces; a slice shares the bytes.
#[derive(Clone, Debug, Default)]
pub struct Payload {
    pieces: Arc<[Bytes]>,
    len: u64,
}

impl Payload {
    /// A body of `pieces` in order; empty ones are dropped.
    #[must_use]
    pub fn new(pieces: impl IntoIterator<Item = Bytes>) -> Self {
        let pieces: Arc<[Bytes]> = pieces
            .into_iter()
            .filter(|piece| !piece.is_empty())
            .collect();
        let len = pieces.iter().map(|piece| piece.len() as u64).sum();
        Self { pieces, len }
    }

    /// The bodies `parts` end to end.
    #[must_use]
    pub fn concat<'a>(parts: impl IntoIterator<Item = &'a Self>) -> Self {
        Self::new(
            parts
                .into_iter()
                .flat_map(|part| part.pieces.iter().cloned()),
        )
    }

    /// Length in bytes.
    #[must_use]
    pub const fn len(&self) -> u64 {
        self.len
    }

    /// Whether there are no bytes.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The pieces in order, none empty.
    #[must_use]
    pub fn pieces(&self) -> &[Bytes] {
        &self.pieces
    }

    /// The bytes of `range`, clamped to what is there; shares them.
    #[must_use]
    pub fn slice(&self, range: Range<u64>) -> Self {
        let mut at = 0_u64;
        let cut = |piece: &Bytes| {
            let (from, to) = (at, at + piece.len() as u64);
            at = to;
            let begin = range.start.clamp(from, to) - from;
            let end = range.end.clamp(from, to) - from;
            let bounds = usize::try_from(begin).ok()?..usize::try_from(end).ok()?;
            (bounds.start < bounds.end).then(|| piece.slice(bounds))
        };
        Self::new(self.pieces.iter().filter_map(cut))
    }

    /// All bytes joined. Copies unless there is one piece: for tests, headers and small bodies.
    #[must_use]
    pub fn to_bytes(&self) -> Bytes {
        match &*self.pieces {
            [] => Bytes::new(),
            [only] => only.clone(),
            many => many.concat().into(),
        }
    }
}

impl From<Bytes> for Payload {
    fn from(bytes: Bytes) -> Self {
        if bytes.is_empty() {
            return Self::default();
        }
        Self {
            len: bytes.len() as u64,
            pieces: Arc::from([bytes]),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn slicing_pieces_is_slicing_the_whole(
            pieces in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..9), 0..9),
            a in 0_usize..90, b in 0_usize..90,
        ) {
            let whole = pieces.concat();
            let payload = Payload::new(pieces.into_iter().map(Bytes::from));
            prop_assert_eq!(payload.len(), whole.len() as u64);
            let (from, to) = (a.min(b).min(whole.len()), a.max(b).min(whole.len()));
            let slice = payload.slice(a.min(b) as u64..a.max(b) as u64);
            prop_assert_eq!(&slice.to_bytes()[..], &whole[from..to]);
        }
    }
}

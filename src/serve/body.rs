//! A body in pieces on its way into a connection.
//!
//! Enters: a [`Payload`], or a stream of them that is still being made
//! Leaves: one frame per payload, its pieces shared, never joined or copied
//! Never:  an end that looks whole where something is missing: the connection breaks instead
//! Spec:   [RFC9112] §7.1, §8; [RFC9113] §8.1

use std::io::IoSlice;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use futures_util::stream::{BoxStream, StreamExt};
use hyper::body::{Body, Frame, SizeHint};

use super::metrics::Gauge;
use crate::media::Payload;

/// The rest of a body that was begun cannot be had. The client sees a broken transfer, so that no cache
/// keeps what it got.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the rest of the object will not come")]
pub(crate) struct Aborted;

/// What a body consists of.
pub(crate) enum Content {
    /// All of it, here.
    Whole(Payload),
    /// What comes as it comes.
    Growing(BoxStream<'static, Result<Payload, Aborted>>),
}

impl From<Payload> for Content {
    fn from(payload: Payload) -> Self {
        Self::Whole(payload)
    }
}

impl Content {
    /// Its length, if that is known.
    pub(crate) const fn len(&self) -> Option<u64> {
        match self {
            Self::Whole(payload) => Some(payload.len()),
            Self::Growing(_) => None,
        }
    }
}

/// The body of an answer. Counts its request as in flight while it lives.
pub(crate) struct PayloadBody {
    content: Content,
    request: Gauge,
}

impl PayloadBody {
    pub(crate) const fn new(content: Content, request: Gauge) -> Self {
        Self { content, request }
    }
}

impl Body for PayloadBody {
    type Data = Pieces;
    type Error = Aborted;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Pieces>, Aborted>>> {
        let payload = match &mut self.content {
            Content::Whole(payload) if payload.is_empty() => return Poll::Ready(None),
            Content::Whole(payload) => std::mem::take(payload),
            Content::Growing(parts) => match std::task::ready!(parts.poll_next_unpin(cx)) {
                None => return Poll::Ready(None),
                Some(Err(aborted)) => return Poll::Ready(Some(Err(aborted))),
                Some(Ok(payload)) => payload,
            },
        };
        self.request.metrics().count_bytes(payload.len());
        Poll::Ready(Some(Ok(Frame::data(Pieces::new(payload)))))
    }

    fn is_end_stream(&self) -> bool {
        self.content.len() == Some(0)
    }

    fn size_hint(&self) -> SizeHint {
        self.content
            .len()
            .map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

/// The pieces of one payload as a buffer, so that a connection can write many of them at once.
#[derive(Debug)]
pub(crate) struct Pieces {
    payload: Payload,
    /// The piece that is next.
    index: usize,
    /// How much of it is written.
    offset: usize,
    left: usize,
}

impl Pieces {
    fn new(payload: Payload) -> Self {
        let left = payload.pieces().iter().map(Bytes::len).sum();
        Self {
            payload,
            index: 0,
            offset: 0,
            left,
        }
    }

    /// What is left, piece by piece.
    fn rest(&self) -> impl Iterator<Item = &[u8]> {
        let pieces = self.payload.pieces().get(self.index..).unwrap_or_default();
        pieces.iter().enumerate().map(|(index, piece)| {
            let from = if index == 0 { self.offset } else { 0 };
            piece.get(from..).unwrap_or_default()
        })
    }
}

impl Buf for Pieces {
    fn remaining(&self) -> usize {
        self.left
    }

    fn chunk(&self) -> &[u8] {
        self.rest().next().unwrap_or_default()
    }

    fn chunks_vectored<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let mut count = 0;
        for (slice, piece) in slices.iter_mut().zip(self.rest()) {
            *slice = IoSlice::new(piece);
            count += 1;
        }
        count
    }

    /// # Panics
    ///
    /// When told of more bytes than there are, as the trait asks.
    fn advance(&mut self, count: usize) {
        assert!(count <= self.left, "advanced past the end");
        self.left -= count;
        let mut count = count;
        while let Some(piece) = self.payload.pieces().get(self.index) {
            let here = piece.len() - self.offset;
            if count < here {
                self.offset += count;
                return;
            }
            count -= here;
            self.index += 1;
            self.offset = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_way_of_reading_gives_the_bytes(
            pieces in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..9), 0..9),
            steps in proptest::collection::vec((1_usize..7, 0_usize..30), 1..40),
        ) {
            let whole = pieces.concat();
            let mut buffer = Pieces::new(Payload::new(pieces.into_iter().map(Bytes::from)));
            let mut read = Vec::new();
            for (width, step) in steps.into_iter().chain([(9, 100), (9, 100)]) {
                let mut slices = vec![IoSlice::new(&[]); width];
                let count = buffer.chunks_vectored(&mut slices);
                let seen: Vec<u8> = slices[..count].iter().flat_map(|s| s.to_vec()).collect();
                prop_assert!(buffer.chunk().iter().eq(seen.iter().take(buffer.chunk().len())));
                let step = step.min(seen.len());
                read.extend_from_slice(&seen[..step]);
                buffer.advance(step);
                prop_assert_eq!(read.len() + buffer.remaining(), whole.len());
            }
            prop_assert_eq!(buffer.has_remaining(), false);
            prop_assert_eq!(read, whole);
        }
    }
}

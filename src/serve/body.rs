//! A body in pieces on its way into a connection.
//!
//! Enters: a [`Payload`]
//! Leaves: its pieces one by one, shared, never joined or copied
//! Never:  waits: everything is in memory
//! Spec:   none

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};

use super::metrics::Gauge;
use crate::media::Payload;

/// The body of an answer. Counts its request as in flight while it lives.
#[derive(Debug)]
pub(crate) struct PayloadBody {
    payload: Payload,
    next: usize,
    left: u64,
    request: Gauge,
}

impl PayloadBody {
    pub(crate) const fn new(payload: Payload, request: Gauge) -> Self {
        let left = payload.len();
        Self {
            payload,
            next: 0,
            left,
            request,
        }
    }
}

impl Body for PayloadBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let Some(piece) = self.payload.pieces().get(self.next).cloned() else {
            return Poll::Ready(None);
        };
        self.next += 1;
        self.left = self.left.saturating_sub(piece.len() as u64);
        self.request.metrics().count_bytes(piece.len());
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

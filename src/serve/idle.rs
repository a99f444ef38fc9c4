//! A connection that ends when nothing moves on it.
//!
//! Enters: a byte stream to and from anyone
//! Leaves: the same stream, which fails when no byte was read or written for too long, or what is read is answered by
//!         nothing for as long
//! Never:  looks at the bytes
//! Time:   tokio's clock
//! Spec:   none
//!
//! The HTTP library can time the reading of a request's head, with a timer that it makes and drops for each, but not the
//! first bytes by which it tells HTTP/1 from HTTP/2, nor a client that stops taking an answer. All of it is timed here,
//! with one timer for a connection's life. A head that trickles in is bytes that come for longer than the limit while
//! nothing is written: whatever is asked is answered sooner.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

/// How much must have come before the opening deadline: the length of HTTP/2's preface, after which
/// the version is known. Any real HTTP/1 request is longer.
const OPENING_BYTES: usize = 24;

/// A byte stream with a limit on silence.
#[derive(Debug)]
pub(crate) struct Idle<S> {
    inner: S,
    limit: Duration,
    last_moved: Instant,
    /// When the first byte came since something was written last.
    heard: Option<Instant>,
    opening: Option<Opening>,
    timer: Pin<Box<Sleep>>,
}

/// The state before the version of the protocol is known.
#[derive(Clone, Copy, Debug)]
struct Opening {
    deadline: Instant,
    bytes: usize,
}

impl<S> Idle<S> {
    /// Wraps `inner`: the first bytes within `opening`, never silent for longer than `limit`, nor read from for
    /// longer without an answer.
    pub(crate) fn new(inner: S, opening: Duration, limit: Duration) -> Self {
        let now = Instant::now();
        Self {
            inner,
            limit,
            last_moved: now,
            heard: None,
            opening: Some(Opening {
                deadline: now + opening,
                bytes: 0,
            }),
            timer: Box::pin(tokio::time::sleep(opening.min(limit))),
        }
    }

    fn moved(&mut self) {
        self.last_moved = Instant::now();
    }

    /// Counts `bytes` that were read just now.
    fn hear(&mut self, bytes: usize) -> io::Result<()> {
        self.count_opening(bytes);
        if bytes == 0 {
            return Ok(());
        }
        let since = *self.heard.get_or_insert(self.last_moved);
        if self.last_moved.duration_since(since) > self.limit {
            return Err(io::ErrorKind::TimedOut.into());
        }
        Ok(())
    }

    fn count_opening(&mut self, bytes: usize) {
        if let Some(opening) = &mut self.opening {
            opening.bytes += bytes;
            if opening.bytes >= OPENING_BYTES {
                self.opening = None;
            }
        }
    }

    /// Pending until the deadline in force has passed. The timer is only moved when it fires, so
    /// that traffic does not pay for it.
    fn poll_deadline(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        loop {
            ready!(self.timer.as_mut().poll(cx));
            let mut deadline = self.last_moved + self.limit;
            if let Some(opening) = self.opening {
                deadline = deadline.min(opening.deadline);
            }
            if deadline <= Instant::now() {
                return Poll::Ready(io::ErrorKind::TimedOut.into());
            }
            self.timer.as_mut().reset(deadline);
        }
    }

    /// `progress`, or the end of the connection if there is none and the deadline has passed.
    fn or_deadline<T>(
        &mut self,
        progress: Poll<io::Result<T>>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<T>> {
        match progress {
            Poll::Pending => self.poll_deadline(cx).map(Err),
            done @ Poll::Ready(_) => {
                self.moved();
                done
            }
        }
    }

    /// The same of what was written.
    fn or_unwritten(
        &mut self,
        progress: Poll<io::Result<usize>>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        if progress.is_ready() {
            self.heard = None;
        }
        self.or_deadline(progress, cx)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Idle<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let progress = Pin::new(&mut self.inner).poll_read(cx, buffer);
        ready!(self.or_deadline(progress, cx))?;
        Poll::Ready(self.hear(buffer.filled().len() - before))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Idle<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let progress = Pin::new(&mut self.inner).poll_write(cx, bytes);
        self.or_unwritten(progress, cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let progress = Pin::new(&mut self.inner).poll_write_vectored(cx, bytes);
        self.or_unwritten(progress, cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Always ready for a socket, also when nothing was written: no sign of life.
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    const OPENING: Duration = Duration::from_secs(10);
    const LIMIT: Duration = Duration::from_secs(65);

    #[tokio::test(start_paused = true)]
    async fn silence_at_the_opening_ends_it_early() {
        let (mut peer, ours) = tokio::io::duplex(1_000);
        let mut idle = Idle::new(ours, OPENING, LIMIT);
        let began = Instant::now();
        peer.write_all(b"PRI * H").await.expect("written");
        let mut buffer = [0; 100];
        assert_eq!(idle.read(&mut buffer).await.expect("read"), 7);
        let ended = idle.read(&mut buffer).await.expect_err("ended");
        assert_eq!(ended.kind(), io::ErrorKind::TimedOut);
        assert_eq!(began.elapsed().as_secs(), 10);
    }

    #[tokio::test(start_paused = true)]
    async fn every_byte_moved_gives_the_whole_limit_again() {
        let (mut peer, ours) = tokio::io::duplex(1_000);
        let mut idle = Idle::new(ours, OPENING, LIMIT);
        let mut buffer = [0; 100];
        peer.write_all(&[0; 24]).await.expect("written");
        idle.read_exact(&mut buffer[..24]).await.expect("read");
        for _ in 0..5 {
            let (wrote, read) = tokio::join!(
                async {
                    tokio::time::sleep(Duration::from_secs(60)).await;
                    peer.write_all(b"x").await
                },
                idle.read(&mut buffer),
            );
            wrote.expect("written");
            assert_eq!(read.expect("read"), 1);
            idle.write_all(b"y").await.expect("written");
        }
        let began = Instant::now();
        assert!(idle.read(&mut buffer).await.is_err());
        assert_eq!(began.elapsed().as_secs(), 65);
    }

    /// After how many seconds of a byte every ten it ended, of 200; every minute it is answered if `is_answered`.
    async fn trickle(is_answered: bool) -> Option<u64> {
        let (mut peer, ours) = tokio::io::duplex(1_000);
        let mut idle = Idle::new(ours, OPENING, LIMIT);
        let mut buffer = [0; 100];
        peer.write_all(&[0; 24]).await.expect("written");
        idle.read_exact(&mut buffer[..24]).await.expect("read");
        for ten in 1..=20 {
            tokio::time::sleep(Duration::from_secs(10)).await;
            peer.write_all(b"x").await.expect("written");
            if let Err(error) = idle.read(&mut buffer).await {
                assert_eq!(error.kind(), io::ErrorKind::TimedOut);
                return Some(10 * ten);
            }
            if is_answered && ten % 6 == 0 {
                idle.write_all(b"x").await.expect("written");
            }
        }
        None
    }

    #[tokio::test(start_paused = true)]
    async fn what_trickles_in_ends_it_unless_it_is_answered() {
        assert_eq!(trickle(false).await, Some(70));
        assert_eq!(trickle(true).await, None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_takes_nothing_is_left() {
        let (_peer, ours) = tokio::io::duplex(10);
        let mut idle = Idle::new(ours, LIMIT, LIMIT);
        assert!(idle.write_all(&[0; 100]).await.is_err());
    }
}

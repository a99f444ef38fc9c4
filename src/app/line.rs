//! The publishers of one input of a broadcast, one after the other.
//!
//! Enters: lines of publishers that were let in
//! Leaves: the line to take media from, once it has shown some
//! Never:  drops media: what a line sent before its turn is kept for it
//! Time:   `Instant`: how long the present publisher has been silent
//! Spec:   docs/resilience.md

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};

use crate::app::inputs::Input;
use crate::app::stream::Stream;
use crate::config::Displace;
use crate::id::ConnId;
use crate::ingest::rtmp::{Message, Refusal, RefusalCode};
use crate::time::WallTime;

/// How long a publisher may be silent before another one may take its place. Longer than a hiccup of a busy
/// encoder, shorter than the patience of one that reconnects.
pub(super) const SILENT_AFTER: Duration = Duration::from_secs(3);

/// Lines that may wait to be looked at: whoever comes when one waits already is turned away.
pub(super) const MAX_LINES: usize = 1;

/// Lines that may stand in the door at once: one that was let in and lost its network before its first media, and the
/// same encoder's next.
const MAX_CANDIDATES: usize = 2;

/// What a line may say before its first media: metadata, which comes once or twice.
const MAX_SAID: usize = 4;

/// The connection that publishes.
#[derive(Clone, Debug)]
pub(super) struct Publisher {
    /// The connection.
    pub(super) conn: ConnId,
    /// Its address, as text.
    pub(super) address: String,
    /// How the encoder calls itself.
    pub(super) encoder: Option<String>,
    /// When it was accepted.
    pub(super) since: WallTime,
}

/// A publisher that was let in.
#[derive(Debug)]
pub(super) struct Line {
    /// Who it is.
    pub(super) publisher: Publisher,
    /// Which input it is to be.
    pub(super) input: Input,
    /// What it said before it was listened to.
    pub(super) said: VecDeque<Message>,
    /// What it says.
    pub(super) media: mpsc::Receiver<Message>,
    /// Refuses it after all.
    pub(super) close: oneshot::Sender<Refusal>,
}

impl Line {
    /// Turns it away. It may have gone by itself, and then needs no reason.
    pub(super) fn refuse(self, code: RefusalCode, description: String) {
        let _ = self.close.send(Refusal { code, description });
    }
}

/// Why a publisher is turned away while another holds the stream.
pub(super) fn taken(stream: &Stream, present: &Publisher) -> String {
    format!(
        "\"{}\" is already being published from {}; stop that one first or use another stream key",
        stream.name(),
        present.address
    )
}

/// Where the publishers of one input come in.
#[derive(Debug)]
pub(super) struct Door {
    stream: Arc<Stream>,
    input: Input,
    displace: Displace,
    lines: mpsc::Receiver<Line>,
    /// Those that have not shown media yet, with when they came, the first first.
    candidates: VecDeque<(Line, Instant)>,
}

impl Door {
    /// The door of `input`, that `lines` come through.
    pub(super) const fn new(
        stream: Arc<Stream>,
        input: Input,
        displace: Displace,
        lines: mpsc::Receiver<Line>,
    ) -> Self {
        Self {
            stream,
            input,
            displace,
            lines,
            candidates: VecDeque::new(),
        }
    }

    /// Whether somebody stands in it who may yet show media.
    pub(super) fn is_used(&self) -> bool {
        !self.candidates.is_empty()
    }

    /// The next line that shows media and may be listened to instead of `present`, or `None` when one has
    /// gone without. Cancel safe.
    pub(super) async fn next(&mut self, present: Option<&Publisher>) -> Option<Line> {
        loop {
            let (at, message) = tokio::select! {
                said = next_said(&mut self.candidates) => said,
                // The stream holds the other end for as long as the broadcast lasts.
                Some(line) = self.lines.recv() => {
                    self.admit(line, Instant::now());
                    continue;
                }
            };
            match message {
                None | Some(Message::End(_)) => {
                    self.candidates.remove(at);
                    return None;
                }
                Some(message @ (Message::Video { .. } | Message::Audio { .. })) => {
                    let (mut line, _) = self.candidates.remove(at)?;
                    line.said.push_back(message);
                    match present {
                        Some(present) if !self.may_displace() => {
                            turn_away(line, &self.stream, present);
                        }
                        _ => return Some(line),
                    }
                }
                Some(message) => {
                    let (candidate, _) = self.candidates.get_mut(at)?;
                    if candidate.said.len() < MAX_SAID {
                        candidate.said.push_back(message);
                    }
                }
            }
        }
    }

    /// Lets `line`, who comes at `now`, stand beside who stands there already: whoever shows media first is listened
    /// to. Where there is no room, the first that has shown nothing for long enough makes some.
    fn admit(&mut self, line: Line, now: Instant) {
        let gives_way = |(_, came): &(Line, Instant)| match self.displace {
            Displace::Always => true,
            Displace::Never => false,
            Displace::Stale => now.saturating_duration_since(*came) >= SILENT_AFTER,
        };
        let room = match self.displace {
            Displace::Never => 1,
            Displace::Always | Displace::Stale => MAX_CANDIDATES,
        };
        if self.candidates.len() >= room {
            let Some(at) = self.candidates.iter().position(gives_way) else {
                if let Some((first, _)) = self.candidates.front() {
                    turn_away(line, &self.stream, &first.publisher);
                }
                return;
            };
            if let Some((before, _)) = self.candidates.remove(at) {
                let by = &line.publisher.address;
                let reason = format!("{by} came with the same stream key while you sent nothing");
                before.refuse(RefusalCode::Failed, reason);
            }
        }
        self.candidates.push_back((line, now));
    }

    fn may_displace(&self) -> bool {
        match self.displace {
            Displace::Always => true,
            Displace::Never => false,
            Displace::Stale => self.stream.silence(self.input, Instant::now()) >= SILENT_AFTER,
        }
    }

    /// Turns away everybody who still comes.
    pub(super) fn close(mut self) {
        self.lines.close();
        let queued = std::iter::from_fn(|| self.lines.try_recv().ok());
        let standing = std::mem::take(&mut self.candidates);
        let standing = standing.into_iter().map(|(line, _)| line);
        for line in standing.chain(queued) {
            let description = "The broadcast has just ended; publish again.".to_owned();
            line.refuse(RefusalCode::Failed, description);
        }
    }

    /// Who has come and was not looked at yet.
    pub(super) fn try_next(&mut self) -> Option<Line> {
        self.lines.try_recv().ok()
    }

    /// Lets `line` stand in it.
    pub(super) fn keep(&mut self, line: Line) {
        self.admit(line, Instant::now());
    }
}

/// What one of them says next, and which. Pends for ever where there is none.
async fn next_said(candidates: &mut VecDeque<(Line, Instant)>) -> (usize, Option<Message>) {
    std::future::poll_fn(|context| {
        for (at, (line, _)) in candidates.iter_mut().enumerate() {
            if let Poll::Ready(said) = line.media.poll_recv(context) {
                return Poll::Ready((at, said));
            }
        }
        Poll::Pending
    })
    .await
}

fn turn_away(line: Line, stream: &Stream, present: &Publisher) {
    let reason = taken(stream, present);
    tracing::warn!(peer = %line.publisher.address, %reason, "publisher refused");
    line.refuse(RefusalCode::BadName, reason);
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::app::stream::tests::{line, publisher};

    /// Somebody who was let in.
    struct Guest {
        media: mpsc::Sender<Message>,
        refused: oneshot::Receiver<Refusal>,
    }

    impl Guest {
        fn show_media(&self) {
            let message = Message::Audio {
                timestamp_ms: 0,
                data: Bytes::from_static(&[0xAF, 1]),
                arrived: Instant::now(),
            };
            self.media.try_send(message).expect("room");
        }

        fn refusal(&mut self) -> Option<RefusalCode> {
            self.refused.try_recv().ok().map(|refusal| refusal.code)
        }
    }

    fn guest(conn: u64) -> (Line, Guest) {
        let (media, received) = mpsc::channel(8);
        let (close, refused) = oneshot::channel();
        let line = Line {
            media: received,
            close,
            ..line(publisher(conn))
        };
        (line, Guest { media, refused })
    }

    fn door(displace: Displace) -> (Door, mpsc::Sender<Line>) {
        let stream = Arc::new(Stream::new("film".parse().expect("a name")));
        let (lines, received) = mpsc::channel(MAX_LINES);
        (Door::new(stream, Input::Primary, displace, received), lines)
    }

    /// Who is listened to next, if that is certain by now.
    async fn next(door: &mut Door) -> Option<ConnId> {
        let next = std::pin::pin!(door.next(None));
        tokio::select! {
            biased;
            line = next => line.map(|line| line.publisher.conn),
            () = tokio::task::yield_now() => None,
        }
    }

    #[tokio::test]
    async fn encoder_whose_first_connection_died_before_its_first_media_is_let_in_by_its_second() {
        for displace in [Displace::Stale, Displace::Always] {
            let (mut door, lines) = door(displace);
            let (line, mut dead) = guest(1);
            lines.send(line).await.expect("room");
            assert_eq!(next(&mut door).await, None);
            let (line, mut alive) = guest(2);
            lines.send(line).await.expect("room");
            assert_eq!(next(&mut door).await, None);
            alive.show_media();
            assert_eq!(next(&mut door).await, Some(ConnId::new(2)));
            assert_eq!((dead.refusal(), alive.refusal()), (None, None));
        }
    }

    #[tokio::test]
    async fn who_shows_media_first_is_listened_to_whoever_came_first() {
        let (mut door, lines) = door(Displace::Stale);
        let guests = [1, 2].map(guest);
        let mut media = Vec::new();
        for (line, guest) in guests {
            lines.send(line).await.expect("room");
            assert_eq!(next(&mut door).await, None);
            media.push(guest);
        }
        media[0].show_media();
        assert_eq!(next(&mut door).await, Some(ConnId::new(1)));
        // The other one may still take the place of a silent one.
        assert!(door.is_used() && media[1].refusal().is_none());
    }

    #[tokio::test]
    async fn who_has_shown_nothing_makes_room_only_once_that_is_stale() {
        let now = Instant::now();
        for (displace, room, after) in [
            (Displace::Stale, 2, Some(SILENT_AFTER)),
            (Displace::Always, 2, Some(Duration::ZERO)),
            (Displace::Never, 1, None),
        ] {
            let (mut door, _lines) = door(displace);
            let mut guests = Vec::new();
            for conn in 0..room {
                let (line, guest) = guest(conn);
                door.admit(line, now);
                guests.push(guest);
            }
            if after != Some(Duration::ZERO) {
                let (line, mut early) = guest(8);
                door.admit(line, now + SILENT_AFTER / 2);
                assert_eq!(early.refusal(), Some(RefusalCode::BadName), "{displace}");
            }
            let (line, mut late) = guest(9);
            door.admit(line, now + after.unwrap_or(SILENT_AFTER * 9));
            let is_in = after.is_some();
            assert_eq!(late.refusal().is_none(), is_in, "{displace}");
            let first = guests[0].refusal();
            assert_eq!(first, is_in.then_some(RefusalCode::Failed), "{displace}");
        }
    }
}

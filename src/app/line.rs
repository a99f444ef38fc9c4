//! The publishers of one input of a broadcast, one after the other.
//!
//! Enters: lines of publishers that were let in
//! Leaves: the line to take media from, once it has shown some
//! Never:  drops media: what a line sent before its turn is kept for it
//! Time:   `Instant`: how long the present publisher has been silent
//! Spec:   docs/resilience.md

use std::collections::VecDeque;
use std::sync::Arc;
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
    /// One that has not shown media yet.
    candidate: Option<Line>,
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
            candidate: None,
        }
    }

    /// Whether somebody stands in it who may yet show media.
    pub(super) const fn is_used(&self) -> bool {
        self.candidate.is_some()
    }

    /// The next line that shows media and may be listened to instead of `present`, or `None` when one has
    /// gone without. Cancel safe.
    pub(super) async fn next(&mut self, present: Option<&Publisher>) -> Option<Line> {
        loop {
            let Some(candidate) = &mut self.candidate else {
                // The stream holds the other end for as long as the broadcast lasts.
                let Some(line) = self.lines.recv().await else {
                    return std::future::pending().await;
                };
                self.candidate = Some(line);
                continue;
            };
            let message = tokio::select! {
                message = candidate.media.recv() => message,
                Some(line) = self.lines.recv() => {
                    turn_away(line, &self.stream, &candidate.publisher);
                    continue;
                }
            };
            match message {
                None | Some(Message::End(_)) => {
                    self.candidate = None;
                    return None;
                }
                Some(message @ (Message::Video { .. } | Message::Audio { .. })) => {
                    let mut line = self.candidate.take()?;
                    line.said.push_back(message);
                    match present {
                        Some(present) if !self.may_displace() => {
                            turn_away(line, &self.stream, present);
                        }
                        _ => return Some(line),
                    }
                }
                Some(message) => {
                    if candidate.said.len() < MAX_SAID {
                        candidate.said.push_back(message);
                    }
                }
            }
        }
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
        for line in self.candidate.take().into_iter().chain(queued) {
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
        self.candidate = Some(line);
    }
}

fn turn_away(line: Line, stream: &Stream, present: &Publisher) {
    let reason = taken(stream, present);
    tracing::warn!(peer = %line.publisher.address, %reason, "publisher refused");
    line.refuse(RefusalCode::BadName, reason);
}

//! One input: the door of its publishers, the one that is listened to, and what is held of it.
//!
//! Enters: lines of publishers, one after the other
//! Leaves: [`Event`]s; items for the transcoder, whether they go there or not
//! Never:  decides whether it is live; makes the other one wait
//! Time:   the broadcast's clock
//! Spec:   docs/resilience.md

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::mpsc;

use crate::app::clock::SteadyClock;
use crate::app::inputs::Input;
use crate::app::inputs::hold::Hold;
use crate::app::intake::{self, Intake};
use crate::app::line::{Door, Line};
use crate::app::stream::Stream;
use crate::ingest::rtmp::{EndReason, Message, RefusalCode};

/// What happens at an input.
#[derive(Debug)]
pub(super) enum Event {
    /// Its publisher says something.
    Message(Message),
    /// A publisher has shown media, and may be listened to; in place of the one that is there, if there is one.
    Came(Line),
    /// Somebody who had shown nothing has gone.
    Passed,
}

/// One input.
pub(super) struct Lane {
    pub(super) input: Input,
    pub(super) door: Door,
    pub(super) hold: Hold,
    pub(super) present: Option<Present>,
    /// Why and when its last publisher left, if nobody has come since.
    pub(super) left: Option<(EndReason, Instant)>,
}

/// A publisher that is listened to.
pub(super) struct Present {
    pub(super) line: Line,
    pub(super) intake: Intake,
    /// Nothing more is taken of it before.
    resume: Option<Instant>,
}

impl Present {
    /// Makes it wait if media at `at_us` are too far ahead of `clock`. Somebody who has gone cannot be made to.
    pub(super) fn pace(&mut self, at_us: i64, clock: SteadyClock) {
        let pause = intake::pause(at_us, clock.now());
        if !pause.is_zero() && !self.line.media.is_closed() {
            self.resume = Instant::now().checked_add(pause);
        }
    }
}

impl Lane {
    /// An input that nobody has come to yet.
    pub(super) fn new(door: Door, input: Input) -> Self {
        Self {
            input,
            door,
            hold: Hold::default(),
            present: None,
            left: None,
        }
    }

    /// What happens next. Cancel safe.
    pub(super) async fn next(&mut self) -> Event {
        let came = |line: Option<Line>| line.map_or(Event::Passed, Event::Came);
        let Some(present) = &mut self.present else {
            return came(self.door.next(None).await);
        };
        let Present { line, resume, .. } = present;
        let Line {
            publisher,
            said,
            media,
            ..
        } = line;
        tokio::select! {
            message = next_message(said, media, resume) => Event::Message(message),
            line = self.door.next(Some(publisher)) => came(line),
        }
    }

    /// Listens to `line` from now on.
    pub(super) fn attach(&mut self, line: Line, stream: &Arc<Stream>, clock: SteadyClock) {
        self.left = None;
        self.hold = Hold::default();
        let intake = Intake::new(stream, self.input, clock);
        self.present = Some(Present {
            line,
            intake,
            resume: None,
        });
    }

    /// Listens no longer to whoever is there, who left for `reason`, or is told to.
    pub(super) fn detach(&mut self, reason: EndReason) -> Option<Line> {
        self.hold = Hold::default();
        self.left = Some((reason, Instant::now()));
        self.present.take().map(|present| present.line)
    }

    /// Closes it, and tells whoever is there why.
    pub(super) fn close(self, why: Option<(RefusalCode, String)>) {
        self.door.close();
        if let (Some(present), Some((code, reason))) = (self.present, why) {
            present.line.refuse(code, reason);
        }
    }
}

/// The next message, not before `resume`; an end where the connection's task failed, which its owner has
/// reported.
async fn next_message(
    said: &mut VecDeque<Message>,
    media: &mut mpsc::Receiver<Message>,
    resume: &mut Option<Instant>,
) -> Message {
    if let Some(until) = *resume {
        tokio::time::sleep_until(until.into()).await;
        *resume = None;
    }
    if let Some(message) = said.pop_front() {
        return message;
    }
    let next = media.recv().await;
    next.unwrap_or(Message::End(EndReason::Disconnected))
}

//! Takes the media of both inputs, and passes on those of the one that is live.
//!
//! Enters: lines of publishers
//! Leaves: tracks and samples in the transcoder, of one input at a time; why there are no more
//! Never:  decides which input is live: that is [`Selector`]
//! Time:   the broadcast's [`SteadyClock`]
//! Spec:   docs/resilience.md

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};
use tokio::time::MissedTickBehavior;

use crate::app::appearance::Appearance;
use crate::app::clock::{SteadyClock, wall_now};
use crate::app::context::Context;
use crate::app::feed::Feed;
use crate::app::inputs::hold::Item;
use crate::app::inputs::lane::{Event, Lane};
use crate::app::inputs::selector::{Choice, Heard, Selector, Why};
use crate::app::inputs::{Both, Input};
use crate::app::line::{Door, Line};
use crate::app::stream::Stream;
use crate::config::Grace;
use crate::demux::flv;
use crate::ingest::rtmp::{EndReason, Message, RefusalCode};
use crate::media::MediaKind;
use crate::time::{Grid, Timescale, WallTime};

/// How often it is looked whether an input is lost, while nothing happens and there is another one to switch to. With
/// one alone each [`CLOCK_PERIOD`] is often enough.
const LOOK_PERIOD: Duration = Duration::from_millis(100);

/// Why no more media are taken.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(in crate::app) enum Error {
    /// They could not be understood.
    #[error(transparent)]
    Demux(#[from] flv::Error),
    /// The transcoder or what follows it has ended, which says why.
    #[error("the transcoder has ended")]
    Downstream,
}

/// How often the transcoder is told the time. It counts on by itself in between, so that this is only how
/// soon a new worker learns it.
const CLOCK_PERIOD: Duration = Duration::from_millis(250);
/// How long a transcoder with pictures has to begin before it is to take over.
const HEAD_START_US: i64 = 1_000_000;

/// Where the media go, and when they came.
struct Way<'a> {
    feed: &'a mut Feed,
    clock: SteadyClock,
    grid: Grid,
}

/// The inputs of one broadcast.
pub(in crate::app) struct Relay {
    context: Arc<Context>,
    stream: Arc<Stream>,
    run: u64,
    closed: watch::Receiver<bool>,
    lanes: Both<Lane>,
    selector: Selector,
    /// Pictures of the live input, where the broadcast has none.
    appearance: Appearance,
    /// How far the media are that were passed on, in microseconds.
    passed_us: i64,
    /// Whether anything was passed on since the transcoder was told last that its source has gone.
    is_fed: bool,
    /// Whether any publisher had something that could be used.
    has_samples: bool,
    /// Why the last publisher left.
    last: EndReason,
}

impl Relay {
    /// The inputs of broadcast `run` of `stream`, whose publishers come in by `lines`, until `closed`.
    pub(in crate::app) fn new(
        (context, stream): (&Arc<Context>, &Arc<Stream>),
        run: u64,
        lines: Both<mpsc::Receiver<Line>>,
        closed: watch::Receiver<bool>,
    ) -> Self {
        let config = &context.config.broadcast;
        let lane = |input, lines| {
            let door = Door::new(Arc::clone(stream), input, config.displace, lines);
            Lane::new(door, input)
        };
        Self {
            lanes: Both {
                primary: lane(Input::Primary, lines.primary),
                backup: lane(Input::Backup, lines.backup),
            },
            selector: Selector::new(config.return_after),
            appearance: Appearance::default(),
            context: Arc::clone(context),
            stream: Arc::clone(stream),
            run,
            closed,
            passed_us: 0,
            is_fed: false,
            has_samples: false,
            last: EndReason::Disconnected,
        }
    }

    /// Passes media on until no more come.
    ///
    /// # Errors
    /// Why no more can be taken. Whoever still publishes is to be told so: [`Self::close`].
    pub(in crate::app) async fn run(
        &mut self,
        feed: &mut Feed,
        (clock, grid): (SteadyClock, Grid),
    ) -> Result<EndReason, Error> {
        let way = &mut Way { feed, clock, grid };
        let mut looks = tokio::time::interval(LOOK_PERIOD);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut ticks = tokio::time::interval(CLOCK_PERIOD);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while !self.is_over() {
            let is_choice = self.lanes.iter().all(|lane| lane.present.is_some());
            let Both { primary, backup } = &mut self.lanes;
            let happened = tokio::select! {
                event = primary.next() => Some((Input::Primary, event)),
                event = backup.next() => Some((Input::Backup, event)),
                _ = looks.tick(), if is_choice => None,
                _ = ticks.tick() => {
                    way.feed.clock(clock.now()).await;
                    None
                }
            };
            if let Some((input, event)) = happened {
                self.handle(input, event, way).await?;
            }
            if let Some(choice) = self.selector.decide(clock.now()) {
                self.switch(choice, way).await?;
            }
        }
        Ok(self.last)
    }

    /// Takes nobody in any more, and tells those who are there why.
    pub(in crate::app) fn close(self, why: Option<(RefusalCode, String)>) {
        let Both { primary, backup } = self.lanes;
        primary.close(why.clone());
        backup.close(why);
    }

    async fn handle(&mut self, input: Input, event: Event, way: &mut Way<'_>) -> Result<(), Error> {
        match event {
            Event::Message(Message::End(reason)) => {
                self.leave(input, reason, way).await?;
                Ok(())
            }
            Event::Message(message) => match self.take(input, message, way).await {
                // Its encoder may be set right while the broadcast holds.
                Err(Error::Demux(error)) if self.has_samples || self.is_joined(input) => {
                    let gone = self.leave(input, EndReason::Refused, way).await?;
                    if let Some(line) = gone {
                        let peer = &line.publisher.address;
                        tracing::warn!(stream = %self.stream.name(), %peer, %error, "publisher closed");
                        line.refuse(RefusalCode::Rejected, error.to_string());
                    }
                    Ok(())
                }
                taken => taken,
            },
            Event::Came(line) => self.listen(line, way).await,
            Event::Passed => Ok(()),
        }
    }

    /// Listens to `line`, in place of whoever is there.
    async fn listen(&mut self, line: Line, way: &mut Way<'_>) -> Result<(), Error> {
        let (input, publisher) = (line.input, line.publisher.clone());
        if let Some(before) = self.leave(input, EndReason::Refused, way).await? {
            let (stream, by) = (self.stream.name(), &publisher.address);
            let peer = &before.publisher.address;
            tracing::warn!(%stream, %peer, %by, "another publisher took over this stream key");
            let reason = format!("another publisher took over this stream key from {by}");
            before.refuse(RefusalCode::Failed, reason);
        }
        tracing::debug!(stream = %self.stream.name(), input = input.as_str(), conn = %publisher.conn, "listening");
        self.stream.attach(input, publisher, Instant::now());
        let lane = self.lanes.get_mut(input);
        lane.attach(line, &self.stream, way.clock);
        self.selector.attach(input, way.clock.now());
        Ok(())
    }

    /// Listens no longer to the publisher of `input`, if there is one; gives its line.
    async fn leave(
        &mut self,
        input: Input,
        reason: EndReason,
        way: &mut Way<'_>,
    ) -> Result<Option<Line>, Error> {
        if self.lanes.get(input).present.is_none() {
            return Ok(None);
        }
        self.last = reason;
        let line = self.lanes.get_mut(input).detach(reason);
        self.stream.detach(input, wall_now());
        if self.has_samples && !self.is_joined(input) {
            tracing::info!(stream = %self.stream.name(), ?reason, grace = %self.grace(),
                "the publisher is gone; waiting for it");
        }
        if self.selector.detach(input) {
            self.stream.set_live(None, wall_now());
            self.unfeed(way).await?;
        }
        Ok(line)
    }

    /// Takes a message of the publisher of `input`.
    async fn take(
        &mut self,
        input: Input,
        message: Message,
        way: &mut Way<'_>,
    ) -> Result<(), Error> {
        let mut heard = match &message {
            Message::Video { .. } | Message::Audio { .. } => Heard::Media,
            _ => Heard::Words,
        };
        let is_live = self.selector.live() == Some(input);
        let lane = self.lanes.get_mut(input);
        let Some(present) = &mut lane.present else {
            return Ok(());
        };
        present.intake.take(message)?;
        let mut has_appeared = false;
        while let Some(item) = present.intake.poll_output() {
            lane.hold.push(&item);
            let Item::Sample {
                kind,
                at_us,
                ref sample,
                ..
            } = item
            else {
                if is_live {
                    pass_on(way.feed, item).await?;
                }
                continue;
            };
            self.has_samples = true;
            if kind == MediaKind::Video {
                heard = Heard::Picture;
            }
            if is_live {
                let is_picture = kind == MediaKind::Video && self.stream.lacks_pictures();
                has_appeared |= is_picture && self.appearance.see(at_us, sample.keyframe);
                pass_on(way.feed, item).await?;
                self.passed_us = at_us;
                present.intake.tell_arrival(kind, at_us);
            }
            present.pace(at_us, way.clock);
        }
        let joinable = lane.hold.joinable(self.passed_us);
        self.selector.hear(input, heard, joinable, way.clock.now());
        if has_appeared && way.feed.may_succeed() {
            self.widen(input, way);
        }
        Ok(())
    }

    /// Has another transcoder made ready, which makes pictures too.
    fn widen(&mut self, input: Input, way: &mut Way<'_>) {
        let soon = WallTime::from_micros(self.passed_us.saturating_add(HEAD_START_US));
        let soon = soon.to_ticks(Timescale::MICROS).at(Timescale::MICROS);
        let first = way.grid.segment_at(soon).next();
        tracing::info!(stream = %self.stream.name(), %first, "pictures come to a broadcast of sound");
        self.appearance.forget();
        way.feed
            .succeed(first, self.lanes.get(input).hold.in_order());
    }

    /// Goes on with another input, from a key frame of it.
    async fn switch(&mut self, choice: Choice, way: &mut Way<'_>) -> Result<(), Error> {
        let Choice { input, why } = choice;
        self.unfeed(way).await?;
        let items = self.lanes.get(input).hold.items(why == Why::Steady);
        self.passed_us = 0;
        self.appearance.forget();
        for item in items {
            if let Item::Sample { at_us, .. } = &item {
                self.passed_us = self.passed_us.max(*at_us);
            }
            pass_on(way.feed, item).await?;
        }
        self.is_fed = true;
        self.stream.set_live(Some((input, why)), wall_now());
        let (stream, input) = (self.stream.name(), input.as_str());
        match why {
            Why::First => tracing::debug!(%stream, input, "input live"),
            _ => tracing::warn!(%stream, input, %why, "switched to another input"),
        }
        Ok(())
    }

    /// Tells the transcoder that its source has gone, if it had one.
    async fn unfeed(&mut self, way: &mut Way<'_>) -> Result<(), Error> {
        if std::mem::take(&mut self.is_fed) {
            let told = way.feed.detach().await;
            told.map_err(|_| Error::Downstream)?;
        }
        Ok(())
    }

    /// Whether somebody publishes to the other input than `input`.
    fn is_joined(&self, input: Input) -> bool {
        self.lanes.get(input.other()).present.is_some()
    }

    fn grace(&self) -> Grace {
        self.context.config.broadcast.reconnect_grace
    }

    /// Whether nobody publishes, and nobody is waited for any longer.
    fn is_over(&mut self) -> bool {
        if self.last == EndReason::ShutDown {
            return true;
        }
        if self.lanes.iter().any(|lane| lane.present.is_some()) {
            return false;
        }
        if *self.closed.borrow() {
            return true;
        }
        let is_late = self.lanes.iter().all(|lane| self.is_given_up(lane));
        // Who stands in the door already is given the chance to show something.
        if !is_late || self.lanes.iter().any(|lane| lane.door.is_used()) {
            return false;
        }
        let Both { primary, backup } = &mut self.lanes;
        let waiting = || primary.door.try_next().or_else(|| backup.door.try_next());
        match self.stream.try_end(self.run, waiting) {
            Some(line) => {
                self.lanes.get_mut(line.input).door.keep(line);
                false
            }
            None => true,
        }
    }

    /// Whether a publisher of `lane` is no longer waited for.
    fn is_given_up(&self, lane: &Lane) -> bool {
        match lane.left {
            Some((reason, at)) if self.has_samples => {
                is_given_up(self.grace(), reason, at.elapsed())
            }
            _ => true,
        }
    }
}

/// Whether a publisher that left for `reason` is not waited for after it has been `away`: one that says that it
/// is done means it.
fn is_given_up(grace: Grace, reason: EndReason, away: Duration) -> bool {
    match grace {
        Grace::Forever => false,
        Grace::For(_) if reason == EndReason::Unpublished => true,
        Grace::For(grace) => away >= grace,
    }
}

async fn pass_on(feed: &mut Feed, item: Item) -> Result<(), Error> {
    feed.give(item).await.map_err(|_| Error::Downstream)
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::num::NonZeroU32;

    use bytes::Bytes;

    use super::*;
    use crate::app::stream::tests::{line, publisher};
    use crate::id::SegmentNumber;
    use crate::transcode::Transcoder;

    /// Headers of H.264: 1280x720 of x264, and 322x182 of OpenH264.
    const HEADERS: [&[u8]; 2] = [
        &[
            0x17, 0, 0, 0, 0, 0x01, 0x64, 0x00, 0x1F, 0xFF, 0xE1, 0x00, 0x1A, 0x67, 0x64, 0x00,
            0x1F, 0xAC, 0xD9, 0x80, 0x50, 0x05, 0xBB, 0x01, 0x10, 0x00, 0x00, 0x03, 0x00, 0x10,
            0x00, 0x00, 0x03, 0x03, 0xC0, 0xF1, 0x83, 0x19, 0xA0, 0x01, 0x00, 0x05, 0x68, 0xE9,
            0x7B, 0x2C, 0x8B, 0xFD, 0xF8, 0xF8, 0x00,
        ],
        &[
            0x17, 0, 0, 0, 0, 0x01, 0x42, 0xC0, 0x0D, 0xFF, 0xE1, 0x00, 0x10, 0x67, 0x42, 0xC0,
            0x0D, 0x8C, 0x8D, 0x40, 0xA8, 0xCB, 0x11, 0x34, 0x03, 0xC2, 0x21, 0x1A, 0x80, 0x01,
            0x00, 0x04, 0x68, 0xCE, 0x3C, 0x80,
        ],
    ];
    const IDR: &[u8] = &[0x17, 1, 0, 0, 0, 0, 0, 0, 2, 0x65, 0x88];
    const SLICE: &[u8] = &[0x27, 1, 0, 0, 0, 0, 0, 0, 2, 0x41, 0x9A];

    /// Two publishers, by a clock that is set.
    struct Scene {
        relay: Relay,
        feed: Feed,
        begin: Instant,
        start: WallTime,
        ms: u32,
        _folder: tempfile::TempDir,
    }

    impl Scene {
        async fn begin() -> Self {
            let folder = tempfile::tempdir().expect("a folder");
            let context = Arc::new(Context::made_up(folder.path()).await);
            let name = "film".parse().expect("a name");
            let stream = Arc::new(Stream::new(name));
            let lines = || mpsc::channel(1).1;
            let lines = Both {
                primary: lines(),
                backup: lines(),
            };
            let relay = Relay::new((&context, &stream), 1, lines, watch::channel(false).1);
            let grid = Self::grid();
            let copy = Transcoder::copy(stream.name().clone(), grid, SegmentNumber::new(0));
            let (transcoder, mut outputs) = copy;
            tokio::spawn(async move { while outputs.next().await.is_some() {} });
            let (feed, _) = Feed::new(transcoder, Box::new(|_| None));
            // By far ahead of the machine's clock.
            let start = WallTime::from_micros(wall_now().as_micros() + 3_600_000_000);
            let mut scene = Self {
                relay,
                feed,
                begin: Instant::now(),
                start,
                ms: 0,
                _folder: folder,
            };
            for (conn, input) in (1..).zip(Input::ALL) {
                let said = VecDeque::new();
                let line = Line {
                    input,
                    said,
                    ..line(publisher(conn))
                };
                let way = &mut Way {
                    clock: scene.clock(),
                    feed: &mut scene.feed,
                    grid: Self::grid(),
                };
                scene.relay.listen(line, way).await.expect("listened to");
            }
            scene
        }

        fn grid() -> Grid {
            Grid::new(NonZeroU32::new(2_000).expect("not zero"))
        }

        fn clock(&self) -> SteadyClock {
            let at_us = self.start.as_micros() + i64::from(self.ms) * 1_000;
            SteadyClock::begin(WallTime::from_micros(at_us), Duration::ZERO)
        }

        async fn say(&mut self, input: Input, body: &'static [u8]) {
            let message = Message::Video {
                timestamp_ms: self.ms,
                data: Bytes::from_static(body),
                arrived: self.begin + Duration::from_millis(self.ms.into()),
            };
            let clock = self.clock();
            let way = &mut Way {
                clock,
                feed: &mut self.feed,
                grid: Self::grid(),
            };
            let taken = self.relay.take(input, message, way).await;
            taken.expect("understood");
            if let Some(choice) = self.relay.selector.decide(clock.now()) {
                self.relay.switch(choice, way).await.expect("switched");
            }
        }

        /// Both send pictures for so many seconds, with a key frame every second; the primary those that it `sends`.
        async fn pass(&mut self, seconds: u32, sends: impl Fn(&'static [u8]) -> bool) {
            for n in 0..seconds * 25 {
                self.ms += 40;
                let body = if n % 25 == 0 { IDR } else { SLICE };
                if sends(body) {
                    self.say(Input::Primary, body).await;
                }
                self.say(Input::Backup, body).await;
            }
        }
    }

    #[tokio::test]
    async fn pictures_that_cannot_be_decoded_are_none() {
        let mut scene = Scene::begin().await;
        for input in Input::ALL {
            scene.say(input, HEADERS[0]).await;
        }
        scene.pass(4, |_| true).await;
        assert_eq!(scene.relay.selector.live(), Some(Input::Primary));
        // Without a key frame nothing can be made of what comes after another header.
        scene.say(Input::Primary, HEADERS[1]).await;
        scene.pass(3, |body| body != IDR).await;
        assert_eq!(scene.relay.selector.live(), Some(Input::Backup));
    }

    #[test]
    fn who_is_done_is_not_waited_for_and_who_is_lost_is_for_the_grace() {
        use EndReason::{Disconnected, Refused, Unpublished};
        let grace = Grace::For(Duration::from_secs(30));
        for (grace, reason, away_s, expected) in [
            (grace, Unpublished, 0, true),
            (grace, Disconnected, 29, false),
            (grace, Disconnected, 30, true),
            (grace, Refused, 29, false),
            (Grace::Forever, Unpublished, 86_400, false),
        ] {
            let found = is_given_up(grace, reason, Duration::from_secs(away_s));
            assert_eq!(found, expected, "{grace} {reason:?} {away_s}");
        }
    }
}

//! One broadcast, from its first publisher's first media to its last stored manifest.
//!
//! Enters: lines of publishers, one after the other: a broadcast outlives any of them
//! Leaves: a [`Publication`], and a refusal for each publisher whose media cannot be used
//! Never:  parses, cuts or encodes: it moves values from stage to stage
//! Time:   one [`SteadyClock`] for all its publishers, told to the transcoder every [`CLOCK_PERIOD`]
//! Spec:   docs/architecture.md, docs/resilience.md
//!
//! ```text
//! lines ─▶ Door ─▶ Intake (one per publisher) ─▶ Transcoder ─▶ Publication
//!                       (this task)                         (a task of its own)
//! ```

use std::convert::Infallible;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use crate::app::clock::{SteadyClock, wall_now};
use crate::app::context::Context;
use crate::app::intake::{self, Intake, MAX_LEAD};
use crate::app::line::{Door, Line, Publisher};
use crate::app::past;
use crate::app::publication::{self, Publication};
use crate::app::stream::Stream;
use crate::config::Grace;
use crate::id::SegmentNumber;
use crate::ingest::rtmp::{EndReason, RefusalCode};
use crate::time::{Grid, Timescale};
use crate::transcode::template::Pipeline;
use crate::transcode::{self, Outputs, Transcoder};

/// How often the transcoder is told the time. It counts on by itself in between, so that this is only how
/// soon a new worker learns it.
const CLOCK_PERIOD: Duration = Duration::from_millis(250);

/// How long a stream that has ended stays in memory for those who still watch its end; then the store
/// answers.
const LINGER: Duration = Duration::from_secs(60);

/// Why a broadcast ended before its publisher did.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(super) enum Error {
    /// The publisher's media could not be used, or the transcoder has ended.
    #[error(transparent)]
    Intake(#[from] intake::Error),
    /// What came out of the transcoder could not be published.
    #[error(transparent)]
    Publication(#[from] publication::Error),
    /// This program could not find itself to start a worker.
    #[error("the path of this program is not known: {0}")]
    Program(std::io::Error),
}

impl Error {
    const DOWNSTREAM: Self = Self::Intake(intake::Error::Downstream);

    /// What the publisher is told.
    const fn code(&self) -> RefusalCode {
        match self {
            Self::Intake(intake::Error::Demux(_)) => RefusalCode::Rejected,
            Self::Publication(error) if error.is_source() => RefusalCode::Rejected,
            _ => RefusalCode::Failed,
        }
    }
}

/// One broadcast.
pub(super) struct Broadcast {
    /// What all broadcasts share.
    pub(super) context: Arc<Context>,
    /// The stream whose broadcast this is.
    pub(super) stream: Arc<Stream>,
    /// Its number among them.
    pub(super) run: u64,
    /// Where its publishers come in.
    pub(super) lines: mpsc::Receiver<Line>,
    /// Turns true when nobody will come any more.
    pub(super) closed: watch::Receiver<bool>,
}

/// Gives the stream back however its broadcast ends, a panic included.
struct Held {
    stream: Arc<Stream>,
    run: u64,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.stream.end(self.run);
    }
}

impl Broadcast {
    /// Runs to the end; everything is stored when this returns.
    pub(super) async fn run(self) {
        let Self {
            context,
            stream,
            run,
            lines,
            closed,
        } = self;
        let held = Held {
            stream: Arc::clone(&stream),
            run,
        };
        // Who comes back at once waits for the end of what came before to be stored.
        let turn = stream.turn().await;
        let displace = context.config.broadcast.displace;
        let cast = Cast {
            context: Arc::clone(&context),
            stream: Arc::clone(&stream),
            run,
            door: Door::new(Arc::clone(&stream), displace, lines),
            closed,
            line: None,
            has_samples: false,
        };
        match cast.run(held).await {
            Ok(end) => tracing::info!(stream = %stream.name(), reason = ?end, "broadcast ended"),
            Err(error) => tracing::warn!(stream = %stream.name(), %error, "broadcast closed"),
        }
        drop(turn);
        let registry = Arc::clone(&context.registry);
        tokio::spawn(async move {
            tokio::time::sleep(LINGER).await;
            registry.forget(stream.name(), run);
        });
    }
}

/// A broadcast on its way.
struct Cast {
    context: Arc<Context>,
    stream: Arc<Stream>,
    run: u64,
    door: Door,
    closed: watch::Receiver<bool>,
    /// Who is listened to.
    line: Option<Line>,
    /// Whether any publisher had something that could be used.
    has_samples: bool,
}

impl Cast {
    async fn run(mut self, held: Held) -> Result<EndReason, Error> {
        let result = self.carry(held).await;
        self.door.close();
        if let (Some(line), Err(error)) = (self.line, &result) {
            line.refuse(error.code(), error.to_string());
        }
        result
    }

    /// Moves the media of the publishers through the stages, to the end.
    async fn carry(&mut self, held: Held) -> Result<EndReason, Error> {
        let grid = Grid::new(self.context.config.package.segment_ms);
        let past = past::read(&self.context.store, self.stream.name()).await;
        let first = earliest_segment(&self.context, &self.stream, past.is_some()).await;
        let clock = clock_from(first, grid);
        let (transcoder, outputs) = self.start_transcoder(grid, first)?;
        let publication =
            Publication::new(Arc::clone(&self.context), Arc::clone(&self.stream), past);
        let mut publishing = tokio::spawn(publication.run(outputs));
        let fed = tokio::select! {
            fed = self.listen_to_all(&transcoder, clock) => fed,
            // What is published fails on its own only when the transcoder or the packager does.
            published = &mut publishing => return Err(early_end(published)),
            never = tell_time(&transcoder, clock) => match never {},
        };
        // The name is free for the next publisher, and the transcoder drains.
        drop((held, transcoder));
        outcome(fed, finished(publishing).await)
    }

    /// Starts what makes the renditions.
    fn start_transcoder(
        &self,
        grid: Grid,
        first: SegmentNumber,
    ) -> Result<(Transcoder, Outputs), Error> {
        let stream = self.stream.name().clone();
        let Pipeline::Encode(template) = &self.context.pipeline else {
            return Ok(Transcoder::copy(stream, grid, first));
        };
        Ok(Transcoder::start(transcode::Options {
            stream,
            template: template.as_ref().clone(),
            machine: self.context.machine_share(),
            grid,
            first,
            program: own_program().map_err(Error::Program)?,
            absence: self.context.absence.clone(),
        }))
    }

    /// Listens to one publisher after the other, until no more come.
    async fn listen_to_all(
        &mut self,
        transcoder: &Transcoder,
        clock: SteadyClock,
    ) -> Result<EndReason, Error> {
        let mut last = EndReason::Disconnected;
        loop {
            if self.line.is_none() {
                self.line = self.wait(last).await;
            }
            let Some(line) = self.line.take() else {
                return Ok(last);
            };
            last = self.listen(line, transcoder, clock).await?;
            if self.is_over(last) {
                return Ok(last);
            }
            self.stream.detach(wall_now());
            let detached = transcoder.detach().await;
            detached.map_err(|_| Error::DOWNSTREAM)?;
        }
    }

    /// Whether a publisher that left for `reason` ends its broadcast at once: one that says so means it.
    fn is_over(&self, reason: EndReason) -> bool {
        match reason {
            EndReason::ShutDown => true,
            EndReason::Unpublished => !matches!(self.grace(), Grace::Forever),
            _ => false,
        }
    }

    fn grace(&self) -> Grace {
        self.context.config.broadcast.reconnect_grace
    }

    /// Waits for a publisher after the last one left for `reason`; `None` if none comes in time.
    async fn wait(&mut self, reason: EndReason) -> Option<Line> {
        let since = Instant::now();
        let until = match self.grace() {
            _ if !self.has_samples => Some(since),
            Grace::Forever => None,
            Grace::For(grace) => since.checked_add(grace),
        };
        if self.has_samples {
            tracing::info!(stream = %self.stream.name(), ?reason, grace = %self.grace(),
                "the publisher is gone; waiting for it");
        }
        let mut closed = self.closed.clone();
        loop {
            let over = async {
                match until {
                    Some(until) => tokio::time::sleep_until(until.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                _ = closed.wait_for(|closed| *closed) => return None,
                line = self.door.next(None) => if line.is_some() {
                    return line;
                },
                // Who stands in the door already is given the chance to show something.
                () = over, if !self.door.is_used() => {}
            }
            let is_late = until.is_some_and(|until| Instant::now() >= until);
            if is_late && self.door.try_end(self.run) {
                return None;
            }
        }
    }

    /// Takes the media of `line`, until it ends or another takes its place. Who still publishes then is in
    /// `self.line`: the one who did so, or whoever is to be told the error.
    async fn listen(
        &mut self,
        line: Line,
        transcoder: &Transcoder,
        clock: SteadyClock,
    ) -> Result<EndReason, Error> {
        let publisher = line.publisher.clone();
        tracing::debug!(stream = %self.stream.name(), conn = %publisher.conn, "listening");
        self.stream.attach(publisher.clone(), Instant::now());
        let mut intake = Intake::new(&self.stream, transcoder, clock);
        let line = self.line.insert(line);
        let came = tokio::select! {
            taken = intake.run(line) => Came::End(taken),
            by = next_line(&mut self.door, &publisher) => Came::Another(by),
        };
        self.has_samples |= intake.has_samples();
        let (stream, peer) = (self.stream.name(), &publisher.address);
        match came {
            Came::End(Err(error @ intake::Error::Demux(_))) if self.has_samples => {
                // Its encoder may be set right while the broadcast holds.
                tracing::warn!(%stream, %peer, %error, "publisher closed");
                self.tell(RefusalCode::Rejected, error.to_string());
                Ok(EndReason::Refused)
            }
            Came::End(Err(error)) => Err(error.into()),
            Came::End(Ok(reason)) => {
                self.line = None;
                Ok(reason)
            }
            Came::Another(by) => {
                let address = by.publisher.address.clone();
                tracing::warn!(%stream, %peer, by = %address, "another publisher took over this stream key");
                let reason = format!("another publisher took over this stream key from {address}");
                self.tell(RefusalCode::Failed, reason);
                self.line = Some(by);
                Ok(EndReason::Refused)
            }
        }
    }

    /// Closes the line with a reason.
    fn tell(&mut self, code: RefusalCode, reason: String) {
        if let Some(line) = self.line.take() {
            line.refuse(code, reason);
        }
    }
}

/// What happens first to a publisher.
enum Came {
    End(Result<EndReason, intake::Error>),
    Another(Line),
}

/// The next line that may take the place of `present`.
async fn next_line(door: &mut Door, present: &Publisher) -> Line {
    loop {
        if let Some(line) = door.next(Some(present)).await {
            return line;
        }
    }
}

/// Tells the transcoder the time, for as long as it is polled.
async fn tell_time(transcoder: &Transcoder, clock: SteadyClock) -> Infallible {
    let mut ticks = tokio::time::interval(CLOCK_PERIOD);
    loop {
        ticks.tick().await;
        transcoder.clock(clock.now());
    }
}

/// The one outcome to tell of two. Media that is not understood leaves the publication without any, so that is
/// the cause; everything else that fails upstream does so because something downstream did.
fn outcome(
    fed: Result<EndReason, Error>,
    published: Result<(), Error>,
) -> Result<EndReason, Error> {
    match (fed, published) {
        (Err(cause @ Error::Intake(intake::Error::Demux(_))), _) => Err(cause),
        (_, Err(cause)) => Err(cause),
        (fed, Ok(())) => fed,
    }
}

/// Why publishing ended while there was still media to publish.
fn early_end(published: Result<Result<(), publication::Error>, tokio::task::JoinError>) -> Error {
    match published {
        Ok(Err(error)) => Error::Publication(error),
        Ok(Ok(())) => Error::DOWNSTREAM,
        Err(panic) => {
            tracing::error!(%panic, "publishing broke down; this is a bug");
            Error::DOWNSTREAM
        }
    }
}

async fn finished(publishing: JoinHandle<Result<(), publication::Error>>) -> Result<(), Error> {
    match publishing.await {
        Ok(result) => Ok(result?),
        Err(panic) => {
            tracing::error!(%panic, "publishing broke down; this is a bug");
            Err(Error::DOWNSTREAM)
        }
    }
}

/// The first segment that no earlier broadcast of this stream has used; `broke_off` is whether the last one never
/// came to its end.
async fn earliest_segment(context: &Context, stream: &Stream, broke_off: bool) -> SegmentNumber {
    let stored = context.store.highest_segment(stream.name()).await.unwrap_or_else(|error| {
        tracing::warn!(stream = %stream.name(), %error, "what is stored already could not be listed");
        None
    });
    // Parts are not stored: of a run that broke off, the segment after the last may have been begun, and what
    // it published in all was before this process began.
    let begun = broke_off.then(|| {
        let started = context.started.to_ticks(Timescale::MILLIS);
        let grid = Grid::new(context.config.package.segment_ms);
        let before = grid.segment_at(started.at(Timescale::MILLIS));
        stored.map_or(before, |last| last.next().max(before))
    });
    let known = stored.into_iter().chain(stream.highest_segment());
    let highest = known.chain(begun).max();
    highest.map_or(SegmentNumber::new(0), SegmentNumber::next)
}

/// The clock of a broadcast whose first segment is `first` or a later one.
fn clock_from(first: SegmentNumber, grid: Grid) -> SteadyClock {
    let earliest = grid
        .start_of(first, Timescale::MILLIS)
        .at(Timescale::MILLIS);
    // As far as a broadcast before it may have led, and the segment it ended in.
    let patience = MAX_LEAD + Duration::from_millis(grid.segment_ms().into());
    SteadyClock::begin(earliest.to_wall(), patience)
}

/// The path of this program. A file replaced by an update is still this program.
fn own_program() -> std::io::Result<PathBuf> {
    let path = std::env::current_exe()?;
    let exists = path.exists();
    Ok(if exists {
        path
    } else {
        PathBuf::from("/proc/self/exe")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demux::flv;
    use crate::media::MediaKind;

    #[test]
    fn the_publisher_is_told_the_cause_not_its_effect() {
        let codec = || {
            intake::Error::Demux(flv::Error::UnsupportedCodec {
                kind: MediaKind::Video,
                found: flv::FoundCodec::FourCc(*b"vvc1"),
            })
        };
        let told = |fed, published| match outcome(fed, published) {
            Ok(reason) => format!("{reason:?}"),
            Err(error) => error.to_string(),
        };
        let effect = || Err(Error::DOWNSTREAM);
        assert_eq!(
            told(Err(codec().into()), effect()),
            "VVC over RTMP is not taken; in OBS choose an H.264, HEVC or AV1 encoder"
        );
        assert_eq!(
            told(Ok(EndReason::Unpublished), effect()),
            "the transcoder has ended"
        );
        assert_eq!(told(Ok(EndReason::Unpublished), Ok(())), "Unpublished");
    }
}

//! One broadcast, from its first publisher's first media to its last stored manifest.
//!
//! Enters: lines of publishers to its two inputs, one after the other: a broadcast outlives any of them
//! Leaves: a [`Publication`], and a refusal for each publisher whose media cannot be used
//! Never:  parses, cuts or encodes: it moves values from stage to stage
//! Time:   one [`SteadyClock`] for all its publishers, told to the transcoder
//! Spec:   docs/architecture.md, docs/resilience.md
//!
//! ```text
//! lines ─▶ Relay (intake of both inputs) ─▶ Transcoder ─▶ Publication
//!                  (this task)                         (a task of its own)
//! ```

use std::num::NonZeroU32;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use crate::app::clock::{SteadyClock, wall_now};
use crate::app::context::Context;
use crate::app::feed::Feed;
use crate::app::inputs::{self, Both, Relay};
use crate::app::intake::MAX_LEAD;
use crate::app::line::Line;
use crate::app::numbering::{self, Used};
use crate::app::past;
use crate::app::publication::{self, Publication};
use crate::app::stream::Stream;
use crate::id::{SegmentNumber, StreamName};
use crate::ingest::rtmp::{EndReason, RefusalCode};
use crate::package;
use crate::time::{Grid, Timescale};
use crate::transcode::template::Pipeline;
use crate::transcode::{self, Outputs, Transcoder};

/// How long a broadcast waits to hear what is stored of its stream: a store that works answers in a few round
/// trips, and of one that does not nothing is known.
const INVENTORY_LIMIT: Duration = Duration::from_secs(3);

/// How long a stream that has ended stays in memory for those who still watch its end; then the store
/// answers.
const LINGER: Duration = Duration::from_secs(60);

/// Why a broadcast ended before its publisher did.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(super) enum Error {
    /// The publisher's media could not be used, or the transcoder has ended.
    #[error(transparent)]
    Inputs(#[from] inputs::Error),
    /// What came out of the transcoder could not be published.
    #[error(transparent)]
    Publication(#[from] publication::Error),
    /// What is stored of the stream cannot be gone on from.
    #[error(transparent)]
    Numbering(#[from] numbering::Unknown),
    /// This program could not find itself to start a worker.
    #[error("the path of this program is not known: {0}")]
    Program(std::io::Error),
}

impl Error {
    const DOWNSTREAM: Self = Self::Inputs(inputs::Error::Downstream);

    /// What the publisher is told.
    const fn code(&self) -> RefusalCode {
        match self {
            Self::Inputs(inputs::Error::Demux(_)) => RefusalCode::Rejected,
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
    /// Where the publishers of its inputs come in.
    pub(super) lines: Both<mpsc::Receiver<Line>>,
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
        let cast = Cast {
            context: Arc::clone(&context),
            stream: Arc::clone(&stream),
            relay: Relay::new((&context, &stream), run, lines, closed),
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
    relay: Relay,
}

impl Cast {
    async fn run(mut self, held: Held) -> Result<EndReason, Error> {
        let result = self.carry(held).await;
        let why = result.as_ref().err();
        self.relay
            .close(why.map(|error| (error.code(), error.to_string())));
        result
    }

    /// Moves the media of the publishers through the stages, to the end.
    async fn carry(&mut self, held: Held) -> Result<EndReason, Error> {
        let store = &self.context.store;
        let writer = store.writers(self.stream.name());
        let inventory = writer.inventory(INVENTORY_LIMIT).await;
        let left = past::read(store, self.stream.name(), &inventory).await;
        if !self.context.config.store.keep.is_on() {
            past::tell_recorded(store, &inventory, &writer).await;
        }
        // A run of which nothing can be known may have broken off a moment ago.
        let broke_off = !left.has_ended || !inventory.is_known();
        let in_memory = self.stream.highest_segment();
        let used = Used {
            highest: inventory.highest_segment().max(in_memory),
            // What is in memory is of late.
            dated: left
                .dated
                .or_else(|| in_memory.map(|number| (number, wall_now()))),
        };
        let package = package_of(&self.context.config.package, self.stream.name(), used)?;
        let grid = Grid::new(package.segment_ms);
        let first = used.first(
            package.segment_ms,
            broke_off.then_some(self.context.started),
        );
        let clock = clock_from(first, grid);
        let maker = Maker {
            context: Arc::clone(&self.context),
            stream: Arc::clone(&self.stream),
            part_ms: package.part_ms,
        };
        let (transcoder, outputs) = maker.start_transcoder(grid, first)?;
        let start = move |first| maker.start_transcoder(grid, first).ok();
        let (mut feed, successors) = Feed::new(transcoder, Box::new(start));
        let publication = Publication::new(
            Arc::clone(&self.context),
            (Arc::clone(&self.stream), clock, package),
            (left.past, writer),
            successors,
        );
        let mut publishing = tokio::spawn(publication.run(outputs));
        let fed = tokio::select! {
            fed = self.relay.run(&mut feed, (clock, grid)) => fed.map_err(Error::from),
            // What is published fails on its own only when the transcoder or the packager does.
            published = &mut publishing => return Err(early_end(published)),
        };
        // The name is free for the next publisher, and the transcoder drains.
        drop(held);
        feed.finish().await;
        outcome(fed, finished(publishing).await)
    }
}

/// Starts transcoders for one broadcast.
struct Maker {
    context: Arc<Context>,
    stream: Arc<Stream>,
    part_ms: NonZeroU32,
}

impl Maker {
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
        let options = transcode::Options {
            stream,
            template: template.as_ref().clone(),
            machine: self.context.machine_share(),
            grid,
            part_ms: self.part_ms.get(),
            first,
            program: own_program().map_err(Error::Program)?,
            absence: self.context.absence.clone(),
        };
        Ok(if template.is_mixed() {
            Transcoder::mix(options)
        } else {
            Transcoder::start(options)
        })
    }
}

/// The one outcome to tell of two. Media that is not understood leaves the publication without any, so that is
/// the cause; everything else that fails upstream does so because something downstream did.
fn outcome(
    fed: Result<EndReason, Error>,
    published: Result<(), Error>,
) -> Result<EndReason, Error> {
    match (fed, published) {
        (Err(cause @ Error::Inputs(inputs::Error::Demux(_))), _) => Err(cause),
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

/// How `package` is for a broadcast of `stream`, of which `used` is known: as configured, but for the length of
/// segments where numbers would go back.
fn package_of(
    package: &package::Config,
    stream: &StreamName,
    used: Used,
) -> Result<package::Config, numbering::Unknown> {
    let wanted = package.segment_ms;
    let segment_ms = used.segment_ms(wanted, wall_now())?;
    if segment_ms != wanted {
        tracing::warn!(%stream, segment_ms, configured_ms = wanted, "package.segment does not count for this stream: \
            what is stored of it has shorter segments, and numbers may not go back. For longer ones publish under \
            another name, or remove the stream's folder from the store");
    }
    let half = NonZeroU32::new(segment_ms.get() / 2).unwrap_or(segment_ms);
    Ok(package::Config {
        segment_ms,
        part_ms: package.part_ms.min(half),
        ..package.clone()
    })
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

/// This program. Not its path: under a long broadcast an update puts another one there, whose worker need not speak
/// the same language.
fn own_program() -> std::io::Result<PathBuf> {
    if cfg!(target_os = "linux") {
        Ok(PathBuf::from(transcode::OWN_PROGRAM))
    } else {
        std::env::current_exe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demux::flv;
    use crate::media::MediaKind;

    #[test]
    fn the_publisher_is_told_the_cause_not_its_effect() {
        let codec = || {
            inputs::Error::Demux(flv::Error::UnsupportedCodec {
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

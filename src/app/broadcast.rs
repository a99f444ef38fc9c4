//! One broadcast, from its publisher's first message to its last stored manifest.
//!
//! Enters: messages of one accepted publisher
//! Leaves: a [`Publication`], and a refusal for the publisher if its media cannot be used
//! Never:  parses, cuts or encodes: it moves values from stage to stage
//! Time:   a [`SteadyClock`] gives each message its arrival; media may run [`MAX_LEAD`] ahead of it
//! Spec:   docs/architecture.md
//!
//! ```text
//! messages ─▶ Demuxer ─▶ Transcoder ─▶ Publication
//!   (this task)                         (a task of its own)
//! ```

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::sync::{Notify, mpsc, oneshot};
use tokio::task::JoinHandle;

use crate::app::clock::{self, SteadyClock};
use crate::app::context::Context;
use crate::app::health::Watch;
use crate::app::past;
use crate::app::publication::{self, Publication};
use crate::app::status::TrackStatus;
use crate::app::stream::{SILENT_AFTER, Stream};
use crate::demux::{self, flv};
use crate::id::{ConnId, SegmentNumber, TrackId};
use crate::ingest::rtmp::{EndReason, Message, Refusal, RefusalCode};
use crate::media::MediaKind;
use crate::time::{FrameRate, Grid, MediaTime, Ticks, Timescale, WallTime};
use crate::transcode::{self, Transcoder};

/// How often the rate of arrival is measured.
const METER_PERIOD: Duration = Duration::from_secs(2);

/// In the order of `Intake::arrivals`.
const KINDS: [MediaKind; 2] = [MediaKind::Video, MediaKind::Audio];

/// How far media may run ahead of time. A publisher that sends faster than its media plays is made to wait
/// for the rest: else its numbers would run into the future, and its next broadcast could only wait for time
/// to come round. Ten seconds are the longest usual GOP, which relays send at once.
const MAX_LEAD: Duration = Duration::from_secs(10);

/// How long a stream that has ended stays in memory for those who still watch its end; then the store
/// answers.
const LINGER: Duration = Duration::from_secs(60);

/// Why a broadcast ended before its publisher did.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(super) enum Error {
    /// The publisher's media could not be understood.
    #[error(transparent)]
    Demux(#[from] flv::Error),
    /// The transcoder or what follows it failed; the reason is in the log and in the other variant.
    #[error("the transcoder has ended")]
    Downstream,
    /// What came out of the transcoder could not be published.
    #[error(transparent)]
    Publication(#[from] publication::Error),
    /// It fell silent, and another publisher came with the same stream key.
    #[error("another publisher took over this stream key after {} s of silence", SILENT_AFTER.as_secs())]
    Displaced,
    /// This program could not find itself to start a worker.
    #[error("the path of this program is not known: {0}")]
    Program(std::io::Error),
}

impl Error {
    /// What the publisher is told.
    fn refusal(&self) -> Refusal {
        let code = match self {
            Self::Demux(_) => RefusalCode::Rejected,
            Self::Publication(error) if error.is_source() => RefusalCode::Rejected,
            _ => RefusalCode::Failed,
        };
        Refusal {
            code,
            description: self.to_string(),
        }
    }
}

/// One accepted publisher's broadcast.
pub(super) struct Broadcast {
    /// What all broadcasts share.
    pub(super) context: Arc<Context>,
    /// The stream it publishes, claimed by `conn`.
    pub(super) stream: Arc<Stream>,
    /// Who publishes.
    pub(super) conn: ConnId,
    /// Told when another publisher takes its place.
    pub(super) displaced: Arc<Notify>,
    /// Its messages.
    pub(super) media: mpsc::Receiver<Message>,
    /// Refuses it after all.
    pub(super) close: oneshot::Sender<Refusal>,
}

/// Gives the stream back however its broadcast ends, a panic included.
struct Claim {
    stream: Arc<Stream>,
    conn: ConnId,
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.stream.release(self.conn);
    }
}

impl Broadcast {
    /// Runs to the end; everything is stored when this returns.
    pub(super) async fn run(self) {
        let Self {
            context,
            stream,
            conn,
            displaced,
            mut media,
            close,
        } = self;
        let claim = Claim {
            stream: Arc::clone(&stream),
            conn,
        };
        // Who comes back at once waits for the end of what came before to be stored.
        let turn = stream.turn().await;
        // The channel outlives it: closing that first would tell the publisher a reason of less use.
        let source = Source {
            media: &mut media,
            displaced: &displaced,
        };
        match carry(&context, &stream, source, claim).await {
            Ok(end) => tracing::info!(stream = %stream.name(), reason = ?end, "broadcast ended"),
            Err(error) => {
                tracing::warn!(stream = %stream.name(), %error, "broadcast closed");
                // The publisher may have gone by itself, and then needs no reason.
                let _ = close.send(error.refusal());
            }
        }
        drop(turn);
        let registry = Arc::clone(&context.registry);
        tokio::spawn(async move {
            tokio::time::sleep(LINGER).await;
            registry.forget(stream.name(), conn);
        });
    }
}

/// What comes of one publisher.
struct Source<'a> {
    media: &'a mut mpsc::Receiver<Message>,
    displaced: &'a Notify,
}

/// Moves the media of one publisher through the stages, to its end.
async fn carry(
    context: &Arc<Context>,
    stream: &Arc<Stream>,
    source: Source<'_>,
    claim: Claim,
) -> Result<EndReason, Error> {
    let grid = Grid::new(context.config.package.segment_ms);
    let first = earliest_segment(context, stream).await;
    let clock = clock_from(first, grid);
    let options = transcode::Options {
        stream: stream.name().clone(),
        template: context.template.clone(),
        machine: context.machine_share(),
        grid,
        first,
        program: own_program().map_err(Error::Program)?,
    };
    let (transcoder, outputs) = Transcoder::start(options);
    let publication = Publication::new(Arc::clone(context), Arc::clone(stream));
    let mut publishing = tokio::spawn(publication.run(outputs));
    let mut intake = Intake::new(stream, transcoder, clock);
    // What is published fails on its own only when the transcoder or the packager does.
    let fed = tokio::select! {
        fed = intake.run(source.media) => fed,
        () = source.displaced.notified() => Err(Error::Displaced),
        published = &mut publishing => return Err(early_end(published)),
    };
    // The name is free for the next publisher, and the transcoder drains.
    drop((claim, intake));
    outcome(fed, finished(publishing).await)
}

/// The one outcome to tell of two. Media that is not understood leaves the publication without any, so that is
/// the cause; everything else that fails upstream does so because something downstream did.
fn outcome(
    fed: Result<EndReason, Error>,
    published: Result<(), Error>,
) -> Result<EndReason, Error> {
    match (fed, published) {
        (Err(cause @ Error::Demux(_)), _) => Err(cause),
        (_, Err(cause)) => Err(cause),
        (fed, Ok(())) => fed,
    }
}

/// Why publishing ended while there was still media to publish.
fn early_end(published: Result<Result<(), publication::Error>, tokio::task::JoinError>) -> Error {
    match published {
        Ok(Err(error)) => Error::Publication(error),
        Ok(Ok(())) => Error::Downstream,
        Err(panic) => {
            tracing::error!(%panic, "publishing broke down; this is a bug");
            Error::Downstream
        }
    }
}

async fn finished(publishing: JoinHandle<Result<(), publication::Error>>) -> Result<(), Error> {
    match publishing.await {
        Ok(result) => Ok(result?),
        Err(panic) => {
            tracing::error!(%panic, "publishing broke down; this is a bug");
            Err(Error::Downstream)
        }
    }
}

/// The first segment that no earlier broadcast of this stream has used.
async fn earliest_segment(context: &Context, stream: &Stream) -> SegmentNumber {
    let stored = context.store.highest_segment(stream.name()).await.unwrap_or_else(|error| {
        tracing::warn!(stream = %stream.name(), %error, "what is stored already could not be listed");
        None
    });
    // Parts are not stored: of a run that broke off, the segment after the last may have been begun, and what
    // it published in all was before this process began.
    let broke_off = past::read(&context.store, stream.name()).await.is_some();
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

/// Demuxes messages into the transcoder.
struct Intake<'a> {
    stream: &'a Stream,
    demuxer: flv::Demuxer,
    transcoder: Transcoder,
    clock: SteadyClock,
    /// The tracks' timescales; the demuxer has two tracks.
    scales: BTreeMap<TrackId, Timescale>,
    rate: Option<FrameRate>,
    meter: Meter,
    arrivals: [Arrivals; 2],
    watch: Watch<'a>,
}

/// When the messages of one kind came, and the ticks of the samples that they become.
#[derive(Clone, Copy, Debug, Default)]
struct Arrivals {
    track: Option<(TrackId, Timescale)>,
    /// The last message, and the one before: whose sample the last one lets go, because the demuxer
    /// holds one to learn how long it lasts.
    last: Option<Instant>,
    before: Option<Instant>,
}

impl<'a> Intake<'a> {
    fn new(stream: &'a Stream, transcoder: Transcoder, clock: SteadyClock) -> Self {
        let demuxer = flv::Demuxer::new();
        Self {
            stream,
            demuxer,
            transcoder,
            clock,
            scales: BTreeMap::new(),
            rate: None,
            meter: Meter::new(Instant::now()),
            arrivals: [Arrivals::default(); 2],
            watch: Watch::new(stream),
        }
    }

    async fn run(&mut self, media: &mut mpsc::Receiver<Message>) -> Result<EndReason, Error> {
        while let Some(message) = media.recv().await {
            let message = match message {
                Message::End(reason) => return Ok(reason),
                Message::Video { timestamp_ms, data } => {
                    self.count(MediaKind::Video, data.len());
                    flv::Message::Video { timestamp_ms, data }
                }
                Message::Audio { timestamp_ms, data } => {
                    self.count(MediaKind::Audio, data.len());
                    flv::Message::Audio { timestamp_ms, data }
                }
                Message::Metadata(metadata) => {
                    if let Some(encoder) = metadata.encoder {
                        self.stream.set_encoder(encoder);
                    }
                    flv::Message::Metadata {
                        frame_rate_millihertz: metadata.frame_rate_millihertz,
                        width: metadata.width,
                        height: metadata.height,
                    }
                }
            };
            self.demuxer.push(message, self.clock.now())?;
            while let Some(output) = self.demuxer.poll_output() {
                let at = self.position(&output);
                self.watch.observe(&output, self.clock.now());
                self.pass_on(output).await?;
                // Somebody who has gone cannot be made to wait.
                if let (Some(at), false) = (at, media.is_closed()) {
                    tokio::time::sleep(pause(at, self.clock.now())).await;
                }
            }
            self.watch
                .examine(self.clock.now(), self.demuxer.drift_ppm());
        }
        // The connection's task failed, which its owner has reported.
        Ok(EndReason::Disconnected)
    }

    fn position(&self, output: &demux::Output) -> Option<MediaTime> {
        match output {
            demux::Output::Sample { track, sample } => {
                Some(sample.dts.at(*self.scales.get(track)?))
            }
            _ => None,
        }
    }

    async fn pass_on(&mut self, output: demux::Output) -> Result<(), Error> {
        let sent = match output {
            demux::Output::Track(track) => {
                self.scales.insert(track.id, track.timescale);
                let rate = (track.codec.kind() == MediaKind::Video)
                    .then_some(self.rate)
                    .flatten();
                self.arrivals_of(track.codec.kind()).track = Some((track.id, track.timescale));
                self.stream
                    .set_source(track.codec.kind(), TrackStatus::of(&track.codec, rate));
                self.transcoder.track(track).await
            }
            demux::Output::FrameRate(rate) => {
                self.rate = Some(rate);
                self.stream.set_source_rate(rate);
                Ok(())
            }
            demux::Output::Sample { track, sample } => {
                let dts = sample.dts;
                let sent = self.transcoder.sample(track, sample).await;
                self.tell_arrival(track, dts);
                sent
            }
            demux::Output::Repair(_) => Ok(()),
        };
        sent.map_err(|_| Error::Downstream)
    }

    /// Tells when the sample at `dts` arrived, now that the transcoder has it.
    fn tell_arrival(&self, track: TrackId, dts: Ticks) {
        for (arrivals, kind) in self.arrivals.iter().zip(KINDS) {
            if let (Some((id, scale)), Some(before)) = (arrivals.track, arrivals.before)
                && id == track
            {
                let at = dts.at(scale).to_wall().as_micros();
                self.stream.latency.arrive(kind, at, before);
            }
        }
    }

    const fn arrivals_of(&mut self, kind: MediaKind) -> &mut Arrivals {
        let [video, audio] = &mut self.arrivals;
        match kind {
            MediaKind::Video => video,
            MediaKind::Audio => audio,
        }
    }

    fn count(&mut self, kind: MediaKind, bytes: usize) {
        let arrivals = self.arrivals_of(kind);
        let now = Instant::now();
        arrivals.before = arrivals.last.replace(now);
        self.stream.hear(now);
        let bytes = bytes as u64;
        self.stream
            .received_bytes
            .fetch_add(bytes, Ordering::Relaxed);
        if let Some(bps) = self.meter.push(bytes, now) {
            self.stream.set_received_bps(bps);
        }
    }
}

/// How long to wait after media at `at`, so that it is no more than [`MAX_LEAD`] ahead of `now`.
fn pause(at: MediaTime, now: WallTime) -> Duration {
    clock::ahead(at.to_wall(), now).saturating_sub(MAX_LEAD)
}

/// Measures a rate over [`METER_PERIOD`].
#[derive(Debug)]
struct Meter {
    since: Instant,
    bytes: u64,
}

impl Meter {
    const fn new(now: Instant) -> Self {
        Self {
            since: now,
            bytes: 0,
        }
    }

    /// Counts `bytes`; at the end of a period, its rate in bits per second.
    fn push(&mut self, bytes: u64, now: Instant) -> Option<u64> {
        self.bytes += bytes;
        let elapsed = now.duration_since(self.since);
        if elapsed < METER_PERIOD {
            return None;
        }
        let millis = u64::try_from(elapsed.as_millis())
            .unwrap_or(u64::MAX)
            .max(1);
        let bps = self.bytes.saturating_mul(8_000) / millis;
        *self = Self::new(now);
        Some(bps)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Ticks;

    #[test]
    fn publisher_waits_for_what_exceeds_the_lead() {
        let now = WallTime::from_micros(1_795_000_000_000_000);
        let pause_at = |ahead_ms: i64| {
            let at = Ticks::new(1_795_000_000_000 + ahead_ms);
            pause(at.at(Timescale::MILLIS), now)
        };
        assert_eq!(pause_at(-3_600_000), Duration::ZERO);
        assert_eq!(pause_at(10_000), Duration::ZERO);
        assert_eq!(pause_at(10_040), Duration::from_millis(40));
    }

    #[test]
    fn the_publisher_is_told_the_cause_not_its_effect() {
        let codec = || flv::Error::UnsupportedCodec {
            kind: MediaKind::Video,
            found: flv::FoundCodec::FourCc(*b"hvc1"),
        };
        let told = |fed, published| match outcome(fed, published) {
            Ok(reason) => format!("{reason:?}"),
            Err(error) => error.refusal().description,
        };
        let effect = || Err(Error::Downstream);
        assert_eq!(
            told(Err(codec().into()), effect()),
            "HEVC over RTMP is not taken yet; in OBS choose an H.264 encoder"
        );
        assert_eq!(
            told(Ok(EndReason::Unpublished), effect()),
            "the transcoder has ended"
        );
        assert_eq!(told(Ok(EndReason::Unpublished), Ok(())), "Unpublished");
    }

    #[test]
    fn meter_gives_the_rate_of_whole_periods() {
        let begin = Instant::now();
        let mut meter = Meter::new(begin);
        assert_eq!(meter.push(1_000, begin + Duration::from_secs(1)), None);
        assert_eq!(
            meter.push(1_000, begin + Duration::from_secs(2)),
            Some(8_000)
        );
        assert_eq!(meter.push(500, begin + Duration::from_secs(3)), None);
        assert_eq!(meter.push(0, begin + Duration::from_secs(4)), Some(2_000));
    }
}

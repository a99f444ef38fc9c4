//! One publisher's messages, demuxed into the transcoder of its broadcast.
//!
//! Enters: messages of one line, from its first media to its end
//! Leaves: tracks and samples on the timeline; what the API says of the source
//! Never:  outlives its publisher: the next one's clock begins anew
//! Time:   the broadcast's [`SteadyClock`] gives each message its arrival; media may run [`MAX_LEAD`] ahead
//! Spec:   docs/architecture.md

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::app::clock::{self, SteadyClock};
use crate::app::health::Watch;
use crate::app::line::Line;
use crate::app::status::TrackStatus;
use crate::app::stream::Stream;
use crate::demux::{self, flv};
use crate::id::TrackId;
use crate::ingest::rtmp::{EndReason, Message};
use crate::media::MediaKind;
use crate::time::{FrameRate, MediaTime, Ticks, Timescale, WallTime};
use crate::transcode::Transcoder;

/// How often the rate of arrival is measured.
const METER_PERIOD: Duration = Duration::from_secs(2);

/// In the order of `Intake::arrivals`.
const KINDS: [MediaKind; 2] = [MediaKind::Video, MediaKind::Audio];

/// How far media may run ahead of time. A publisher that sends faster than its media plays is made to wait
/// for the rest: else its numbers would run into the future, and its next broadcast could only wait for time
/// to come round. Ten seconds are the longest usual GOP, which relays send at once.
pub(super) const MAX_LEAD: Duration = Duration::from_secs(10);

/// Why a publisher's media are taken no further.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(super) enum Error {
    /// They could not be understood.
    #[error(transparent)]
    Demux(#[from] flv::Error),
    /// The transcoder or what follows it has ended, which says why.
    #[error("the transcoder has ended")]
    Downstream,
}

/// Demuxes the messages of one publisher into the transcoder.
pub(super) struct Intake<'a> {
    stream: &'a Stream,
    demuxer: flv::Demuxer,
    transcoder: &'a Transcoder,
    clock: SteadyClock,
    /// The tracks' timescales; the demuxer has two tracks.
    scales: BTreeMap<TrackId, Timescale>,
    rate: Option<FrameRate>,
    meter: Meter,
    arrivals: [Arrivals; 2],
    watch: Watch<'a>,
    /// Whether anything could be passed on.
    has_samples: bool,
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
    /// For the next publisher of a broadcast.
    pub(super) fn new(stream: &'a Stream, transcoder: &'a Transcoder, clock: SteadyClock) -> Self {
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
            has_samples: false,
        }
    }

    /// Whether any sample was understood and passed on.
    pub(super) const fn has_samples(&self) -> bool {
        self.has_samples
    }

    /// Takes what `line` says, to its end.
    ///
    /// # Errors
    /// Why no more of it can be taken.
    pub(super) async fn run(&mut self, line: &mut Line) -> Result<EndReason, Error> {
        loop {
            let message = match line.next().await {
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
                if let (Some(at), false) = (at, line.media.is_closed()) {
                    tokio::time::sleep(pause(at, self.clock.now())).await;
                }
            }
            self.watch
                .examine(self.clock.now(), self.demuxer.drift_ppm());
        }
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
                self.has_samples = true;
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

//! One publisher's messages, demuxed for the transcoder of its broadcast.
//!
//! Enters: messages of one line, from its first media to its end
//! Leaves: tracks and samples on the timeline; what the API says of the source
//! Never:  outlives its publisher: the next one's clock begins anew
//! Time:   a message's arrival at its socket, by the broadcast's [`SteadyClock`]; media may run [`MAX_LEAD`]
//!         ahead
//! Spec:   docs/architecture.md

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::app::clock::{self, SteadyClock};
use crate::app::health::Watch;
use crate::app::inputs::{Input, Item};
use crate::app::status::TrackStatus;
use crate::app::stream::Stream;
use crate::demux::{self, flv};
use crate::id::TrackId;
use crate::ingest::rtmp::Message;
use crate::media::MediaKind;
use crate::time::{FrameRate, Timescale, WallTime};

/// How often the rate of arrival is measured.
const METER_PERIOD: Duration = Duration::from_secs(2);

/// How far media may run ahead of time. A publisher that sends faster than its media plays is made to wait
/// for the rest: else its numbers would run into the future, and its next broadcast could only wait for time
/// to come round. Ten seconds are the longest usual GOP, which relays send at once.
pub(super) const MAX_LEAD: Duration = Duration::from_secs(10);

/// Demuxes the messages of one publisher. Drain [`Self::poll_output`] to `None` after every [`Self::take`].
pub(super) struct Intake {
    stream: Arc<Stream>,
    input: Input,
    demuxer: flv::Demuxer,
    clock: SteadyClock,
    /// The tracks' timescales and kinds; the demuxer has two tracks.
    tracks: BTreeMap<TrackId, (Timescale, MediaKind)>,
    rate: Option<FrameRate>,
    meter: Meter,
    /// When the message came that is being demuxed.
    arrived: WallTime,
    /// When the last message of pictures came, and of sound.
    arrivals: [Option<Instant>; 2],
    watch: Watch,
}

impl Intake {
    /// For the next publisher of an input.
    pub(super) fn new(stream: &Arc<Stream>, input: Input, clock: SteadyClock) -> Self {
        Self {
            stream: Arc::clone(stream),
            input,
            demuxer: flv::Demuxer::new(),
            clock,
            tracks: BTreeMap::new(),
            rate: None,
            meter: Meter::new(Instant::now()),
            arrived: clock.now(),
            arrivals: [None; 2],
            watch: Watch::new(stream, input),
        }
    }

    /// Takes one message; the end of a publisher is nothing to it.
    ///
    /// # Errors
    /// It could not be understood, and no more can be taken.
    pub(super) fn take(&mut self, message: Message) -> Result<(), flv::Error> {
        let message = match message {
            Message::End(_) => return Ok(()),
            Message::Video {
                timestamp_ms,
                data,
                arrived,
            } => {
                self.count(MediaKind::Video, data.len(), arrived);
                flv::Message::Video { timestamp_ms, data }
            }
            Message::Audio {
                timestamp_ms,
                data,
                arrived,
            } => {
                self.count(MediaKind::Audio, data.len(), arrived);
                flv::Message::Audio { timestamp_ms, data }
            }
            Message::Metadata(metadata) => {
                if let Some(encoder) = metadata.encoder {
                    self.stream.set_encoder(self.input, encoder);
                }
                flv::Message::Metadata {
                    frame_rate_millihertz: metadata.frame_rate_millihertz,
                    width: metadata.width,
                    height: metadata.height,
                }
            }
        };
        self.demuxer.push(message, self.arrived)
    }

    /// What became of the messages, in order; `None` when another one is needed.
    pub(super) fn poll_output(&mut self) -> Option<Item> {
        while let Some(output) = self.demuxer.poll_output() {
            self.watch.observe(&output, self.arrived);
            if let Some(item) = self.item(output) {
                return Some(item);
            }
        }
        self.watch.examine(self.arrived, self.demuxer.drift_ppm());
        None
    }

    fn item(&mut self, output: demux::Output) -> Option<Item> {
        match output {
            demux::Output::Track(track) => {
                let kind = track.codec.kind();
                self.tracks.insert(track.id, (track.timescale, kind));
                let rate = self.rate.filter(|_| kind == MediaKind::Video);
                let status = TrackStatus::of(&track.codec, rate);
                self.stream.set_source(self.input, kind, status);
                Some(Item::Track(track))
            }
            demux::Output::FrameRate(rate) => {
                self.rate = Some(rate);
                self.stream.set_source_rate(self.input, rate);
                None
            }
            demux::Output::Sample { track, sample } => {
                let (scale, kind) = *self.tracks.get(&track)?;
                Some(Item::Sample {
                    track,
                    kind,
                    at_us: sample.dts.at(scale).to_wall().as_micros(),
                    sample,
                })
            }
            demux::Output::Repair(_) => None,
        }
    }

    /// Tells that the sample of `kind` at `at_us`, the last that was polled, has been handed to the
    /// transcoder.
    pub(super) fn tell_arrival(&self, kind: MediaKind, at_us: i64) {
        let [video, audio] = self.arrivals;
        let arrived = match kind {
            MediaKind::Video => video,
            MediaKind::Audio => audio,
        };
        if let Some(arrived) = arrived {
            self.stream.latency.arrive(kind, at_us, arrived);
        }
    }

    fn count(&mut self, kind: MediaKind, bytes: usize, arrived: Instant) {
        self.arrived = self.arrived.max(self.clock.at(arrived));
        let [video, audio] = &mut self.arrivals;
        *match kind {
            MediaKind::Video => video,
            MediaKind::Audio => audio,
        } = Some(arrived);
        self.stream.hear(self.input, arrived);
        let bytes = bytes as u64;
        self.stream
            .received_bytes
            .fetch_add(bytes, Ordering::Relaxed);
        if let Some(bps) = self.meter.push(bytes, arrived) {
            self.stream.set_received_bps(self.input, bps);
        }
    }
}

/// How long to wait after media at `at_us`, so that it is no more than [`MAX_LEAD`] ahead of `now`.
pub(super) fn pause(at_us: i64, now: WallTime) -> Duration {
    clock::ahead(WallTime::from_micros(at_us), now).saturating_sub(MAX_LEAD)
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
    use bytes::Bytes;

    use super::*;
    use crate::app::latency::Passage;
    use crate::app::latency::tests::totals;

    #[test]
    fn sample_arrived_with_the_message_that_it_came_in() {
        let stream = Arc::new(Stream::new("film".parse().expect("a name")));
        let begin = Instant::now();
        let clock = SteadyClock::begin(clock::wall_now(), Duration::ZERO);
        let mut intake = Intake::new(&stream, Input::Primary, clock);
        let mut last = (0, begin);
        for n in 0..10_u32 {
            let kind = u8::from(n > 0);
            let data = Bytes::copy_from_slice(&[0xAF, kind, 0x11, 0x90]);
            let arrived = begin + Duration::from_millis(21) * n;
            let message = Message::Audio {
                timestamp_ms: n * 21,
                data,
                arrived,
            };
            intake.take(message).expect("valid");
            while let Some(item) = intake.poll_output() {
                if let Item::Sample { kind, at_us, .. } = item {
                    intake.tell_arrival(kind, at_us);
                    last = (at_us, arrived);
                }
            }
        }
        let published = last.1 + Duration::from_secs(1);
        let passage = Passage {
            transcoded: published,
            packaged: published,
            published,
        };
        stream.latency.publish(MediaKind::Audio, last.0, passage);
        assert_eq!(totals(&stream.latency), ["total_sum 1.0", "total_count 1"]);
    }

    #[test]
    fn publisher_waits_for_what_exceeds_the_lead() {
        let now = WallTime::from_micros(1_795_000_000_000_000);
        let pause_at = |ahead_ms: i64| pause(now.as_micros() + ahead_ms * 1_000, now);
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

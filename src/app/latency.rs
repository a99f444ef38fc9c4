//! How long media takes through the server, stage by stage.
//!
//! Enters: the arrival of each source sample; the moments at which each part went through its stages
//! Leaves: one histogram per stage, in seconds
//! Never:  slows a stage down: one short lock per sample, nothing grows
//! Time:   `Instant`; media by its place on the timeline, which the source and what is made of it share
//! Spec:   docs/metrics.md

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use prometheus_client::metrics::histogram::Histogram;

use crate::media::MediaKind;

/// How many source samples of one kind are remembered: eight seconds of 120 per second. What takes
/// longer through the encoder is not counted.
const MAX_ARRIVALS: usize = 1_024;

/// How far the last source sample may lie before the end of the part that is made of it. Beyond it the
/// picture was held because nothing came.
const MAX_GAP: Duration = Duration::from_millis(250);

/// The limits of the histograms, in seconds: fine around what a part takes.
const LIMITS_S: [f64; 14] = [
    0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 0.75, 1.0, 2.0, 5.0,
];

/// A stretch of the way from the publisher's socket to the playlist.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// From the last message's arrival to its being handed to the transcoder.
    Ingest,
    /// In the transcoder.
    Transcode,
    /// In the packager.
    Package,
    /// Rendering, and waking who waits.
    Publish,
    /// All of it.
    Total,
}

impl Stage {
    /// Every stage.
    pub(super) const ALL: [Self; 5] = [
        Self::Ingest,
        Self::Transcode,
        Self::Package,
        Self::Publish,
        Self::Total,
    ];

    /// As a label.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Ingest => "ingest",
            Self::Transcode => "transcode",
            Self::Package => "package",
            Self::Publish => "publish",
            Self::Total => "total",
        }
    }
}

/// One source sample on its way in.
#[derive(Clone, Copy, Debug)]
struct Arrival {
    /// Its decode time, in microseconds on the timeline.
    at_us: i64,
    arrived: Instant,
    handed_on: Instant,
}

/// When a part went through the last stages.
#[derive(Clone, Copy, Debug)]
pub(super) struct Passage {
    /// Its last sample came out of the transcoder.
    pub(super) transcoded: Instant,
    /// It came out of the packager.
    pub(super) packaged: Instant,
    /// The playlist that lists it can be had.
    pub(super) published: Instant,
}

/// The histograms of one stream.
#[derive(Debug)]
pub(super) struct Latency {
    arrivals: Mutex<[VecDeque<Arrival>; 2]>,
    stages: [Histogram; Stage::ALL.len()],
}

impl Default for Latency {
    fn default() -> Self {
        Self {
            arrivals: Mutex::default(),
            stages: std::array::from_fn(|_| Histogram::new(LIMITS_S)),
        }
    }
}

impl Latency {
    /// A source sample at `at_us` arrived, and was handed to the transcoder just now.
    pub(super) fn arrive(&self, kind: MediaKind, at_us: i64, arrived: Instant) {
        let arrival = Arrival {
            at_us,
            arrived,
            handed_on: Instant::now(),
        };
        let mut arrivals = self.lock();
        let arrivals = of_kind(&mut arrivals, kind);
        if arrivals.len() >= MAX_ARRIVALS {
            arrivals.pop_front();
        }
        // A new broadcast, or time was repaired: what is ahead will not be asked for in order.
        while arrivals.back().is_some_and(|last| last.at_us >= at_us) {
            arrivals.pop_back();
        }
        arrivals.push_back(arrival);
    }

    /// A part whose last sample begins at `at_us` was published.
    pub(super) fn publish(&self, kind: MediaKind, at_us: i64, passage: Passage) {
        let arrival = {
            let mut arrivals = self.lock();
            let arrivals = of_kind(&mut arrivals, kind);
            let after = arrivals.partition_point(|arrival| arrival.at_us <= at_us);
            after
                .checked_sub(1)
                .and_then(|index| arrivals.get(index).copied())
        };
        let gap = i64::try_from(MAX_GAP.as_micros()).unwrap_or(i64::MAX);
        let Some(arrival) = arrival.filter(|a| at_us.saturating_sub(a.at_us) <= gap) else {
            return;
        };
        let Passage {
            transcoded,
            packaged,
            published,
        } = passage;
        let lengths = [
            arrival.handed_on.saturating_duration_since(arrival.arrived),
            transcoded.saturating_duration_since(arrival.handed_on),
            packaged.saturating_duration_since(transcoded),
            published.saturating_duration_since(packaged),
            published.saturating_duration_since(arrival.arrived),
        ];
        for (stage, length) in self.stages.iter().zip(lengths) {
            stage.observe(length.as_secs_f64());
        }
    }

    /// The histogram of each stage; clones of it count on.
    pub(super) fn stages(&self) -> impl Iterator<Item = (Stage, &Histogram)> {
        Stage::ALL.into_iter().zip(&self.stages)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, [VecDeque<Arrival>; 2]> {
        self.arrivals.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

const fn of_kind(arrivals: &mut [VecDeque<Arrival>; 2], kind: MediaKind) -> &mut VecDeque<Arrival> {
    let [video, audio] = arrivals;
    match kind {
        MediaKind::Video => video,
        MediaKind::Audio => audio,
    }
}

#[cfg(test)]
pub(super) mod tests {
    use prometheus_client::encoding::text;
    use prometheus_client::registry::Registry;

    use super::*;

    /// The sum and the count of what all of the way took, as metrics say them.
    pub(in crate::app) fn totals(latency: &Latency) -> Vec<String> {
        let mut registry = Registry::default();
        let total = latency.stages().last().expect("one").1.clone();
        registry.register("total", "", total);
        let mut text = String::new();
        text::encode(&mut text, &registry).expect("renders");
        let is_wanted =
            |line: &&str| line.starts_with("total_sum") || line.starts_with("total_count");
        text.lines().filter(is_wanted).map(str::to_owned).collect()
    }

    fn count(latency: &Latency) -> String {
        totals(latency).pop().expect("a count")
    }

    #[test]
    fn parts_are_measured_from_the_sample_that_ends_them() {
        let latency = Latency::default();
        let began = Instant::now();
        for frame in 0..5_000 {
            latency.arrive(MediaKind::Video, frame * 33_333, began);
        }
        let now = Instant::now();
        let passage = Passage {
            transcoded: now,
            packaged: now,
            published: now,
        };
        latency.publish(MediaKind::Video, 4_990 * 33_333 + 5, passage);
        assert_eq!(count(&latency), "total_count 1");
        // Forgotten, not arrived, and of another kind.
        latency.publish(MediaKind::Video, 10 * 33_333, passage);
        latency.publish(MediaKind::Video, 6_000 * 33_333, passage);
        latency.publish(MediaKind::Audio, 4_990 * 33_333, passage);
        assert_eq!(count(&latency), "total_count 1");
        assert!(latency.lock()[0].len() <= MAX_ARRIVALS);
    }
}

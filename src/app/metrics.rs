//! Everything that is counted, as OpenMetrics text.
//!
//! Enters: the counters that the stages keep by themselves
//! Leaves: the text of `/metrics`
//! Never:  counts: what is read here belongs to the stage that counts it
//! Time:   none
//! Spec:   [OPENMETRICS]; docs/metrics.md

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use crate::app::inputs::Input;
use crate::app::latency::Stage;
use crate::app::stream::Stream;
use crate::serve;
use crate::serve::shelf::{Keep, Shelf};
use crate::store;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StreamLabel {
    stream: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RepairLabels {
    stream: String,
    kind: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct InputLabels {
    stream: String,
    input: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StageLabels {
    stream: String,
    stage: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    kind: String,
    status: String,
}

/// Renders the text of `/metrics` from what the stages have counted.
///
/// # Errors
/// Never in practice: writing to a `String` does not fail.
pub(super) fn render(
    streams: &[Arc<Stream>],
    stores: &[store::Health],
    requests: &serve::Metrics,
) -> Result<Bytes, std::fmt::Error> {
    let mut registry = Registry::with_prefix("headwater");
    add_streams(&mut registry, streams);
    add_stores(&mut registry, stores);
    add_requests(&mut registry, requests);
    let mut out = String::new();
    text::encode(&mut out, &registry)?;
    Ok(out.into())
}

/// The same of a server that only reads the store.
///
/// # Errors
/// Never in practice: writing to a `String` does not fail.
pub(super) fn render_origin<V: Keep>(
    shelf: &Shelf<V>,
    requests: &serve::Metrics,
) -> Result<Bytes, std::fmt::Error> {
    let mut registry = Registry::with_prefix("headwater");
    let (hits, reads) = shelf.counts();
    for (name, help, value) in [
        ("origin_reads", "Objects asked of the store", reads),
        (
            "origin_hits",
            "Requests that were answered from memory or joined a reading under way",
            hits,
        ),
    ] {
        let counter = Counter::<u64>::default();
        counter.inc_by(value);
        registry.register(name, help, counter);
    }
    let held = Gauge::<i64>::default();
    held.set(i64::try_from(shelf.bytes()).unwrap_or(i64::MAX));
    let help = "What was read from the store and is in memory";
    registry.register_with_unit("origin_memory", help, Unit::Bytes, held);
    add_requests(&mut registry, requests);
    let mut out = String::new();
    text::encode(&mut out, &registry)?;
    Ok(out.into())
}

fn add_streams(registry: &mut Registry, streams: &[Arc<Stream>]) {
    let live = Family::<StreamLabel, Gauge>::default();
    let bytes = Family::<StreamLabel, Counter>::default();
    let repairs = Family::<RepairLabels, Counter>::default();
    let restarts = Family::<StreamLabel, Counter>::default();
    let segments = Family::<StreamLabel, Counter>::default();
    let keyless = Family::<StreamLabel, Counter>::default();
    for stream in streams {
        let label = StreamLabel {
            stream: stream.name().to_string(),
        };
        let is_live = stream.state().is_advancing();
        live.get_or_create(&label).set(i64::from(is_live));
        let set = |family: &Family<StreamLabel, Counter>, value: &AtomicU64| {
            family
                .get_or_create(&label)
                .inc_by(value.load(Ordering::Relaxed));
        };
        set(&bytes, &stream.received_bytes);
        for (kind, count) in stream.health.repairs() {
            let stream = label.stream.clone();
            let labels = RepairLabels { stream, kind };
            repairs.get_or_create(&labels).inc_by(count);
        }
        set(&restarts, &stream.worker_restarts);
        set(&segments, &stream.segments);
        set(&keyless, &stream.keyless_segments);
    }
    add_absence(registry, streams);
    add_encoding(registry, streams);
    add_latency(registry, streams);
    registry.register(
        "stream_live",
        "1 while a stream can be played and advances",
        live,
    );
    registry.register_with_unit("ingest", "Media received", Unit::Bytes, bytes);
    registry.register(
        "ingest_repairs",
        "Timestamps and samples repaired, by kind",
        repairs,
    );
    registry.register(
        "worker_restarts",
        "Workers that died and were replaced within a broadcast",
        restarts,
    );
    registry.register(
        "segments",
        "Segments published, all renditions together",
        segments,
    );
    registry.register(
        "keyless_segments",
        "Segments of copied pictures that begin without a key frame",
        keyless,
    );
}

/// What was made up for what publishers did not send.
fn add_absence(registry: &mut Registry, streams: &[Arc<Stream>]) {
    type Of = fn(&Stream) -> u64;
    let counters: [(&str, &str, Of); 4] = [
        (
            "held_slots",
            "Slots that show a picture again because no other came in time",
            |stream| stream.held_slots.load(Ordering::Relaxed),
        ),
        (
            "late_frames",
            "Frames that were not shown because their slot was taken or past",
            |stream| stream.late_frames.load(Ordering::Relaxed),
        ),
        (
            "reconnects",
            "Publishers that took up a broadcast under way",
            |stream| stream.reconnects.load(Ordering::Relaxed),
        ),
        (
            "input_switches",
            "Times that another input became live",
            |stream| stream.switches.load(Ordering::Relaxed),
        ),
    ];
    let label = |stream: &Arc<Stream>| StreamLabel {
        stream: stream.name().to_string(),
    };
    for (name, help, of) in counters {
        let family = Family::<StreamLabel, Counter>::default();
        for stream in streams {
            family.get_or_create(&label(stream)).inc_by(of(stream));
        }
        registry.register(name, help, family);
    }
    let live = Family::<InputLabels, Gauge>::default();
    for stream in streams {
        for input in Input::ALL {
            let labels = InputLabels {
                stream: stream.name().to_string(),
                input: input.as_str(),
            };
            let is_live = stream.live() == Some(input);
            live.get_or_create(&labels).set(i64::from(is_live));
        }
    }
    registry.register("input_live", "1 for the input that viewers see", live);
    let slate = Family::<StreamLabel, Counter<f64, AtomicU64>>::default();
    for stream in streams {
        let shown = Duration::from_millis(stream.slate_ms.load(Ordering::Relaxed));
        slate
            .get_or_create(&label(stream))
            .inc_by(shown.as_secs_f64());
    }
    let help = "How long the slate was shown";
    registry.register_with_unit("slate", help, Unit::Seconds, slate);
}

/// How encoding keeps up.
fn add_encoding(registry: &mut Registry, streams: &[Arc<Stream>]) {
    let label = |stream: &Arc<Stream>| StreamLabel {
        stream: stream.name().to_string(),
    };
    let resting = Family::<StreamLabel, Gauge>::default();
    let late = Family::<StreamLabel, Gauge<f64, AtomicU64>>::default();
    let left = Family::<StreamLabel, Counter>::default();
    let sheds = Family::<StreamLabel, Counter>::default();
    for stream in streams {
        let (label, encoding) = (label(stream), &stream.encoding);
        resting.get_or_create(&label).set(encoding.resting().into());
        let lateness = Duration::from_millis(encoding.late_ms().into());
        late.get_or_create(&label).set(lateness.as_secs_f64());
        left.get_or_create(&label).inc_by(encoding.left_frames());
        sheds.get_or_create(&label).inc_by(encoding.sheds());
    }
    let help = "Rungs that are left out because they cannot be encoded, or not in time";
    registry.register("resting_rungs", help, resting);
    let help = "How late the slowest encoder is";
    registry.register_with_unit("encoding_late", help, Unit::Seconds, late);
    let help = "Frames that were not encoded because they would have been late";
    registry.register("left_frames", help, left);
    let help = "How often a rung had to be left out";
    registry.register("rungs_shed", help, sheds);
}

/// The histograms of all streams as one family.
#[derive(Debug)]
struct PartLatency {
    stages: Vec<(StageLabels, Histogram)>,
}

impl Collector for PartLatency {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let mut family = encoder.encode_descriptor(
            "part_latency",
            "From the arrival of a part's last sample to the playlist that lists it",
            Some(&Unit::Seconds),
            MetricType::Histogram,
        )?;
        for (labels, histogram) in &self.stages {
            histogram.encode(family.encode_family(labels)?)?;
        }
        Ok(())
    }
}

/// The histograms are the streams' own, which count on while they are read.
fn add_latency(registry: &mut Registry, streams: &[Arc<Stream>]) {
    let of_stream = |stream: &Arc<Stream>| {
        let name = stream.name().to_string();
        let labelled = |(stage, histogram): (Stage, &Histogram)| {
            let labels = StageLabels {
                stream: name.clone(),
                stage: stage.as_str(),
            };
            (labels, histogram.clone())
        };
        stream.latency.stages().map(labelled).collect::<Vec<_>>()
    };
    let stages: Vec<_> = streams.iter().flat_map(of_stream).collect();
    if !stages.is_empty() {
        registry.register_collector(Box::new(PartLatency { stages }));
    }
}

/// The label of a store, where there are two.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StoreLabel {
    store: &'static str,
}

/// What is told of a store: name, help, and the value.
type StoreValue = (&'static str, &'static str, fn(&store::Health) -> u64);

const STORE_COUNTERS: [StoreValue; 5] = [
    ("store_objects", "Objects stored", |h| h.stored),
    ("store_deletions", "Objects deleted", |h| h.deleted),
    (
        "store_failures",
        "Attempts to write or delete that failed",
        |h| h.failures,
    ),
    (
        "store_lost",
        "Media given up: it is a gap in the stored playlists",
        |h| h.lost,
    ),
    (
        "store_outdated",
        "Media that fell due for removal before it was stored",
        |h| h.outdated,
    ),
];

const STORE_GAUGES: [StoreValue; 5] = [
    (
        "store_waiting_objects",
        "Objects waiting to be stored",
        |h| h.waiting_objects,
    ),
    (
        "store_waiting_bytes",
        "Bytes waiting to be stored, in memory",
        |h| h.waiting_bytes,
    ),
    (
        "store_spooled_bytes",
        "Bytes waiting to be stored, in the spool",
        |h| h.spooled_bytes,
    ),
    ("store_failing", "Streams whose last write failed", |h| {
        h.failing.len() as u64
    }),
    (
        "store_spool_failing",
        "1 while the spool cannot be written to",
        |h| u64::from(h.spool_failure.is_some()),
    ),
];

fn add_stores(registry: &mut Registry, stores: &[store::Health]) {
    let gauge = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
    if let [health] = stores {
        for (name, help, value) in STORE_COUNTERS {
            let counter = Counter::<u64>::default();
            counter.inc_by(value(health));
            registry.register(name, help, counter);
        }
        for (name, help, value) in STORE_GAUGES {
            let told = Gauge::<i64>::default();
            told.set(gauge(value(health)));
            registry.register(name, help, told);
        }
        return;
    }
    let label = |health: &store::Health| StoreLabel {
        store: if health.is_second { "second" } else { "first" },
    };
    for (name, help, value) in STORE_COUNTERS {
        let family = Family::<StoreLabel, Counter>::default();
        for health in stores {
            family.get_or_create(&label(health)).inc_by(value(health));
        }
        registry.register(name, help, family);
    }
    for (name, help, value) in STORE_GAUGES {
        let family = Family::<StoreLabel, Gauge>::default();
        for health in stores {
            family
                .get_or_create(&label(health))
                .set(gauge(value(health)));
        }
        registry.register(name, help, family);
    }
}

fn add_requests(registry: &mut Registry, metrics: &serve::Metrics) {
    let requests = Family::<RequestLabels, Counter>::default();
    for (kind, status, count) in metrics.requests().filter(|(_, _, count)| *count > 0) {
        let status = if status == 0 {
            "other".to_owned()
        } else {
            status.to_string()
        };
        let labels = RequestLabels {
            kind: kind.as_str().to_owned(),
            status,
        };
        requests.get_or_create(&labels).inc_by(count);
    }
    registry.register("http_requests", "Requests answered", requests);
    let bytes = Counter::<u64>::default();
    bytes.inc_by(metrics.body_bytes());
    registry.register_with_unit(
        "http_body",
        "Bodies handed to connections",
        Unit::Bytes,
        bytes,
    );
    let mut gauge = |name: &str, help: &str, value: u64| {
        let gauge = Gauge::<i64>::default();
        gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
        registry.register(name, help, gauge);
    };
    let connections = metrics.connections();
    gauge("http_connections", "Connections open now", connections);
    gauge(
        "http_waiting",
        "Requests that wait for what is yet to be made",
        metrics.waiting(),
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_are_open_metrics_text_with_a_line_for_each_stream() {
        let stream = Arc::new(Stream::new("demo".parse().expect("a name")));
        stream.received_bytes.store(7, Ordering::Relaxed);
        let text = render(
            &[stream],
            &[store::Health::default()],
            &serve::Metrics::default(),
        );
        let text = String::from_utf8(text.expect("renders").to_vec()).expect("UTF-8");
        assert!(
            text.contains("headwater_ingest_bytes_total{stream=\"demo\"} 7\n"),
            "{text}"
        );
        let histogram = "headwater_part_latency_seconds_count{stream=\"demo\",stage=\"total\"} 0\n";
        assert!(text.contains(histogram), "{text}");
        let types = text
            .matches("# TYPE headwater_part_latency_seconds ")
            .count();
        assert_eq!(types, 1, "{text}");
        assert!(text.ends_with("# EOF\n"));
    }
}

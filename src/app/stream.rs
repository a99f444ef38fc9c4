//! What the server holds of one stream: who publishes it, what can be fetched, how it is doing.
//!
//! Enters: what the broadcast's task publishes
//! Leaves: objects and manifests for the origin, a status for the API
//! Never:  waits: every answer comes from memory, and no lock is held across an await
//! Time:   `Instant` for staleness, UTC for the status
//! Spec:   docs/architecture.md

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, watch};

use crate::app::health::Health;
use crate::app::latency::Latency;
use crate::app::status::{IngestStatus, PublisherStatus, RenditionStatus, SourceStatus};
use crate::app::status::{StreamState, StreamStatus, TrackStatus};
use crate::id::{ConnId, SegmentNumber, StreamName};
use crate::media::{Item, MediaKind, ObjectKey};
use crate::serve::{Found, Live, Object, Version};
use crate::time::{FrameRate, WallTime};

/// How long a publisher may be silent before another one may take its place. Longer than a hiccup of a busy
/// encoder, shorter than the patience of one that reconnects.
pub(super) const SILENT_AFTER: Duration = Duration::from_secs(3);

/// A stream counts as stalled when its manifests have not moved for this many segment durations.
const STALLED_AFTER_SEGMENTS: u32 = 3;

/// One stream by name, over all its broadcasts.
#[derive(Debug)]
pub(super) struct Stream {
    name: StreamName,
    catalog: RwLock<Catalog>,
    facts: Mutex<Facts>,
    /// Held by the broadcast that is under way, to the last of its stored manifests.
    turn: tokio::sync::Mutex<()>,
    /// Media bytes received, over all broadcasts; a counter for metrics.
    pub(super) received_bytes: AtomicU64,
    /// How well it arrives.
    pub(super) health: Health,
    /// Workers that died and were replaced within a broadcast; a counter for metrics.
    pub(super) worker_restarts: AtomicU64,
    /// Segments published, all renditions together; a counter for metrics.
    pub(super) segments: AtomicU64,
    /// How long media takes through the stages; histograms for metrics.
    pub(super) latency: Latency,
}

/// What can be fetched from memory.
#[derive(Debug, Default)]
struct Catalog {
    manifests: HashMap<Item, Arc<watch::Sender<Arc<Live>>>>,
    objects: HashMap<Item, Arc<Object>>,
    progress: Option<Progress>,
}

/// How the newest manifests came to be.
#[derive(Clone, Copy, Debug)]
struct Progress {
    advanced: Instant,
    segment: Duration,
    ended: bool,
}

/// What the API tells and the gate needs to know.
#[derive(Debug, Default)]
struct Facts {
    publisher: Option<Publisher>,
    heard: Option<Instant>,
    last_publisher: Option<ConnId>,
    started: Option<WallTime>,
    source: Option<SourceStatus>,
    renditions: Vec<RenditionStatus>,
    received_bps: u64,
}

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
    /// Told when another publisher takes its place.
    pub(super) displaced: Arc<Notify>,
}

impl Stream {
    /// A stream that nobody has published yet.
    #[must_use]
    pub(super) fn new(name: StreamName) -> Self {
        Self {
            name,
            catalog: RwLock::default(),
            facts: Mutex::default(),
            turn: tokio::sync::Mutex::default(),
            received_bytes: AtomicU64::new(0),
            health: Health::default(),
            worker_restarts: AtomicU64::new(0),
            segments: AtomicU64::new(0),
            latency: Latency::default(),
        }
    }

    /// Its name.
    #[must_use]
    pub(super) const fn name(&self) -> &StreamName {
        &self.name
    }

    /// Makes `publisher` the one that publishes. One that has sent nothing for [`SILENT_AFTER`] is displaced:
    /// an encoder that lost its network comes back while its old connection still looks open.
    ///
    /// # Errors
    /// The publisher that already does, unchanged.
    pub(super) fn claim(&self, publisher: Publisher, now: Instant) -> Result<(), Publisher> {
        let mut facts = self.facts();
        if let Some(present) = &facts.publisher {
            let silence = facts.heard.map(|at| now.saturating_duration_since(at));
            if silence.is_none_or(|silence| silence < SILENT_AFTER) {
                return Err(present.clone());
            }
            present.displaced.notify_one();
        }
        facts.heard = Some(now);
        facts.started = Some(publisher.since);
        facts.last_publisher = Some(publisher.conn);
        facts.publisher = Some(publisher);
        facts.source = None;
        Ok(())
    }

    /// The publisher has sent media.
    pub(super) fn hear(&self, now: Instant) {
        self.facts().heard = Some(now);
    }

    /// The publisher `conn` is gone; another may claim the stream.
    pub(super) fn release(&self, conn: ConnId) {
        let mut facts = self.facts();
        if facts
            .publisher
            .as_ref()
            .is_some_and(|publisher| publisher.conn == conn)
        {
            facts.publisher = None;
            facts.received_bps = 0;
        }
    }

    /// Waits until the broadcast before this one has been stored to its end. Hold it to the end of yours.
    pub(super) async fn turn(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.turn.lock().await
    }

    /// Whether nobody publishes it.
    #[must_use]
    pub(super) fn is_vacant(&self) -> bool {
        self.facts().publisher.is_none()
    }

    /// Who claimed it last, whether it still publishes or not.
    #[must_use]
    pub(super) fn last_publisher(&self) -> Option<ConnId> {
        self.facts().last_publisher
    }

    /// Says how the publisher's encoder calls itself in its metadata. That goes before what it said when it
    /// connected, where OBS and others give the name of an old Adobe product.
    pub(super) fn set_encoder(&self, encoder: String) {
        if let Some(publisher) = &mut self.facts().publisher {
            publisher.encoder = Some(encoder);
        }
    }

    /// Says what a track of the source turned out to be.
    pub(super) fn set_source(&self, kind: MediaKind, track: TrackStatus) {
        let mut facts = self.facts();
        let source = facts.source.get_or_insert_default();
        match kind {
            MediaKind::Video => source.video = Some(track),
            MediaKind::Audio => source.audio = Some(track),
        }
    }

    /// Says the source's frame rate.
    pub(super) fn set_source_rate(&self, rate: FrameRate) {
        if let Some(video) = self
            .facts()
            .source
            .as_mut()
            .and_then(|source| source.video.as_mut())
        {
            video.frame_rate = Some(rate.to_string());
        }
    }

    /// Says what is made of it.
    pub(super) fn set_renditions(&self, renditions: Vec<RenditionStatus>) {
        self.facts().renditions = renditions;
    }

    /// What the best rendition of pictures is given, in bits per second; `None` before there is one.
    pub(super) fn top_rung_bps(&self) -> Option<u64> {
        let facts = self.facts();
        let pictures = facts
            .renditions
            .iter()
            .filter(|rendition| rendition.kind == "video");
        pictures.map(|rendition| rendition.target_bps).max()
    }

    /// Says how fast it arrives, in bits per second.
    pub(super) fn set_received_bps(&self, bps: u64) {
        self.facts().received_bps = bps;
    }

    /// Makes an object fetchable.
    pub(super) fn insert(&self, item: Item, object: Arc<Object>) {
        self.catalog_mut(|catalog| catalog.objects.insert(item, object));
    }

    /// The highest number of a segment or part in memory.
    #[must_use]
    pub(super) fn highest_segment(&self) -> Option<SegmentNumber> {
        let catalog = self.catalog.read().unwrap_or_else(PoisonError::into_inner);
        let number = |item: &Item| match item {
            Item::Segment(_, number) | Item::Part(_, number, _) => Some(*number),
            _ => None,
        };
        catalog.objects.keys().filter_map(number).max()
    }

    /// Drops objects from memory; the store still has them.
    pub(super) fn remove(&self, items: impl IntoIterator<Item = Item>) {
        self.catalog_mut(|catalog| {
            for item in items {
                catalog.objects.remove(&item);
            }
        });
    }

    /// Publishes new versions of manifests, and wakes who waits for them.
    pub(super) fn publish(&self, manifests: Vec<(Item, Version)>, segment: Duration, ended: bool) {
        let known: Vec<_> = self.catalog_mut(|catalog| {
            let feed = |(item, version): (Item, Version)| {
                if let Some(feed) = catalog.manifests.get(&item) {
                    return Some((Arc::clone(feed), version));
                }
                let feed = watch::Sender::new(Arc::new(Live::new(version)));
                catalog.manifests.insert(item, Arc::new(feed));
                None
            };
            manifests.into_iter().filter_map(feed).collect()
        });
        // Thousands may be woken: not while others wait for the lock.
        for (feed, version) in known {
            feed.send_if_modified(|live| {
                let (next, moved) = live.followed_by(version);
                *live = Arc::new(next);
                moved
            });
        }
        // Last, so that what is said to have ended says so itself.
        self.catalog_mut(|catalog| {
            catalog.progress = Some(Progress {
                advanced: Instant::now(),
                segment,
                ended,
            });
        });
    }

    /// Forgets everything that can be fetched: a new broadcast begins, or memory is given back.
    pub(super) fn clear(&self) {
        self.catalog_mut(|catalog| *catalog = Catalog::default());
        self.facts().renditions.clear();
    }

    /// The manifest `item`, if it is in memory.
    #[must_use]
    pub(super) fn manifest(&self, item: &Item) -> Found {
        let catalog = self.catalog.read().unwrap_or_else(PoisonError::into_inner);
        let (Some(feed), Some(progress)) = (catalog.manifests.get(item), catalog.progress) else {
            return Found::Missing;
        };
        if progress.ended {
            Found::Ended(Arc::clone(feed.borrow().newest().document()))
        } else if progress.is_stalled() {
            Found::Stalled {
                retry_after: progress.segment,
            }
        } else {
            Found::Live(feed.subscribe())
        }
    }

    /// The object `item`, if it is in memory.
    #[must_use]
    pub(super) fn object(&self, item: &Item) -> Option<Arc<Object>> {
        let catalog = self.catalog.read().unwrap_or_else(PoisonError::into_inner);
        catalog.objects.get(item).cloned()
    }

    /// Where it is in its life; `None` before its first publisher.
    #[must_use]
    pub(super) fn state(&self) -> StreamState {
        let progress = self
            .catalog
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .progress;
        match progress {
            Some(progress) if progress.ended && self.is_vacant() => StreamState::Ended,
            Some(progress) if progress.ended => StreamState::Starting,
            Some(progress) if progress.is_stalled() => StreamState::Stalled,
            Some(_) => StreamState::Live,
            None if self.is_vacant() => StreamState::Ended,
            None => StreamState::Starting,
        }
    }

    /// What the API says of it.
    #[must_use]
    pub(super) fn status(&self) -> StreamStatus {
        let state = self.state();
        let health = self.health.status();
        let facts = self.facts();
        let path = |item| format!("/{}", ObjectKey::new(self.name.clone(), item));
        StreamStatus {
            name: self.name.to_string(),
            state,
            started_at: facts.started.map(|at| at.to_string()).unwrap_or_default(),
            hls: path(Item::Multivariant),
            dash: path(Item::Mpd),
            publisher: facts.publisher.as_ref().map(|publisher| PublisherStatus {
                address: publisher.address.clone(),
                encoder: publisher.encoder.clone(),
                connected_at: publisher.since.to_string(),
            }),
            source: facts.source.clone(),
            renditions: facts.renditions.clone(),
            ingest: IngestStatus {
                received_bytes: self.received_bytes.load(Ordering::Relaxed),
                received_bps: facts.received_bps,
                repairs: self.health.repairs().map(|(_, count)| count).sum(),
                warnings: health.warnings(),
                health,
            },
        }
    }

    fn facts(&self) -> MutexGuard<'_, Facts> {
        // A panic while it was held leaves plain values behind, which are still true enough to show.
        self.facts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn catalog_mut<T>(&self, change: impl FnOnce(&mut Catalog) -> T) -> T {
        change(&mut self.catalog.write().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Progress {
    fn is_stalled(&self) -> bool {
        self.advanced.elapsed() > self.segment * STALLED_AFTER_SEGMENTS
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A publisher on connection `conn`, the rest of it of no account.
    pub(in crate::app) fn publisher(conn: u64) -> Publisher {
        Publisher {
            conn: ConnId::new(conn),
            address: "192.0.2.1:5000".to_owned(),
            encoder: None,
            since: WallTime::from_micros(0),
            displaced: Arc::default(),
        }
    }

    fn stream() -> Stream {
        Stream::new("demo".parse().expect("a name"))
    }

    #[test]
    fn second_publisher_is_refused_until_the_first_has_gone() {
        let stream = stream();
        let now = Instant::now();
        assert!(stream.claim(publisher(1), now).is_ok());
        assert_eq!(
            stream.claim(publisher(2), now).map_err(|p| p.conn),
            Err(ConnId::new(1))
        );
        stream.release(ConnId::new(2));
        assert!(!stream.is_vacant());
        stream.release(ConnId::new(1));
        assert!(stream.claim(publisher(2), now).is_ok());
    }

    #[tokio::test]
    async fn silent_publisher_is_displaced_and_told() {
        let stream = stream();
        let (first, begun) = (publisher(1), Instant::now());
        let told = Arc::clone(&first.displaced);
        stream.claim(first, begun).expect("vacant");
        stream.hear(begun + Duration::from_secs(10));
        let soon = begun + Duration::from_secs(12);
        assert!(stream.claim(publisher(2), soon).is_err());
        let later = begun + Duration::from_secs(10) + SILENT_AFTER;
        assert!(stream.claim(publisher(2), later).is_ok());
        told.notified().await;
        // The end of the first does not take the stream from the second.
        stream.release(ConnId::new(1));
        assert!(!stream.is_vacant());
    }

    #[test]
    fn metadata_names_the_encoder_better_than_the_connection() {
        let stream = stream();
        stream.set_encoder("nobody publishes".to_owned());
        let connected = Publisher {
            encoder: Some("FMLE/3.0 (compatible; FMSc/1.0)".to_owned()),
            ..publisher(1)
        };
        stream.claim(connected, Instant::now()).expect("vacant");
        let name = || stream.status().publisher.and_then(|p| p.encoder);
        assert_eq!(name().as_deref(), Some("FMLE/3.0 (compatible; FMSc/1.0)"));
        stream.set_encoder("obs-output module".to_owned());
        assert_eq!(name().as_deref(), Some("obs-output module"));
    }

    #[test]
    fn stream_is_starting_then_live_then_ended() {
        let stream = stream();
        stream.claim(publisher(1), Instant::now()).expect("vacant");
        assert_eq!(stream.state(), StreamState::Starting);
        stream.publish(Vec::new(), Duration::from_secs(2), false);
        assert_eq!(stream.state(), StreamState::Live);
        stream.publish(Vec::new(), Duration::from_secs(2), true);
        stream.release(ConnId::new(1));
        assert_eq!(stream.state(), StreamState::Ended);
    }
}

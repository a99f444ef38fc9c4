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

use tokio::sync::{mpsc, watch};

use crate::app::health::Health;
use crate::app::latency::Latency;
use crate::app::line::{Line, MAX_LINES, Publisher, SILENT_AFTER};
use crate::app::status::{IngestStatus, PublisherStatus, RenditionStatus, SourceStatus};
use crate::app::status::{StreamState, StreamStatus, TrackStatus};
use crate::config::Displace;
use crate::id::{SegmentNumber, StreamName};
use crate::media::{Item, MediaKind, ObjectKey};
use crate::serve::{Found, Live, Object, Version};
use crate::time::{FrameRate, WallTime};
use crate::transcode::conductor::{Conducted, Shown};

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
    /// Segments of copied pictures that begin without a key frame; a counter for metrics.
    pub(super) keyless_segments: AtomicU64,
    /// How long the segments of a copied broadcast are meant to be at most, in milliseconds; 0 where they are
    /// encoded on the grid.
    pub(super) copied_segment_ms: AtomicU64,
    /// Slots that show a picture again because no other came; a counter for metrics.
    pub(super) held_slots: AtomicU64,
    /// How long the slate was shown, in milliseconds; a counter for metrics.
    pub(super) slate_ms: AtomicU64,
    /// Frames that came too late to be shown; a counter for metrics.
    pub(super) late_frames: AtomicU64,
    /// How often a publisher took up a broadcast that was under way; a counter for metrics.
    pub(super) reconnects: AtomicU64,
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
    /// Where publishers come into the broadcast that is under way.
    door: Option<mpsc::Sender<Line>>,
    /// How many broadcasts there were.
    runs: u64,
    publisher: Option<Publisher>,
    /// When the publisher last sent media, or was let in.
    heard: Option<Instant>,
    started: Option<WallTime>,
    /// When the last publisher went.
    detached: Option<WallTime>,
    showing: Option<Showing>,
    source: Option<SourceStatus>,
    renditions: Vec<RenditionStatus>,
    received_bps: u64,
}

/// What the pictures show, since when, and the counts of the worker that says so.
#[derive(Clone, Copy, Debug)]
struct Showing {
    conducted: Conducted,
    since: WallTime,
}

/// Whether somebody may publish a stream.
#[derive(Debug)]
pub(super) enum Entry {
    /// Nobody does, or whoever does may be displaced.
    Free,
    /// Whoever does has been silent for a moment: ask again soon.
    Unsure,
    /// This one does.
    Taken(Publisher),
}

/// Where a line went.
#[derive(Debug)]
pub(super) enum Entered {
    /// To the broadcast that is under way.
    Joined,
    /// A broadcast is to be started for it, of this number, which listens here.
    Begins(u64, mpsc::Receiver<Line>),
    /// Nowhere: another one is just coming in.
    Refused(Line),
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
            keyless_segments: AtomicU64::new(0),
            copied_segment_ms: AtomicU64::new(0),
            held_slots: AtomicU64::new(0),
            slate_ms: AtomicU64::new(0),
            late_frames: AtomicU64::new(0),
            reconnects: AtomicU64::new(0),
            latency: Latency::default(),
        }
    }

    /// Its name.
    #[must_use]
    pub(super) const fn name(&self) -> &StreamName {
        &self.name
    }

    /// Whether another publisher, who asked at `asked`, may come in.
    #[must_use]
    pub(super) fn entry(&self, displace: Displace, asked: Instant, now: Instant) -> Entry {
        let facts = self.facts();
        let (Some(present), true) = (&facts.publisher, facts.door.is_some()) else {
            return Entry::Free;
        };
        let taken = || Entry::Taken(present.clone());
        match displace {
            Displace::Always => Entry::Free,
            Displace::Never => taken(),
            // An encoder that lost its network comes back while its old connection still looks open.
            Displace::Stale => match facts.heard {
                Some(heard) if heard > asked => taken(),
                Some(heard) if now.saturating_duration_since(heard) < SILENT_AFTER => Entry::Unsure,
                _ => Entry::Free,
            },
        }
    }

    /// Lets `line` in, into the broadcast under way or a new one.
    pub(super) fn enter(&self, mut line: Line, now: Instant) -> Entered {
        let mut facts = self.facts();
        if let Some(door) = &facts.door {
            match door.try_send(line) {
                Ok(()) => return Entered::Joined,
                Err(mpsc::error::TrySendError::Full(line)) => return Entered::Refused(line),
                Err(mpsc::error::TrySendError::Closed(back)) => line = back,
            }
        }
        let (door, lines) = mpsc::channel(MAX_LINES);
        facts.heard = Some(now);
        facts.started = Some(line.publisher.since);
        facts.detached = None;
        facts.showing = None;
        facts.publisher = Some(line.publisher.clone());
        facts.source = None;
        facts.runs += 1;
        // The channel is new, with room for it.
        let _ = door.try_send(line);
        facts.door = Some(door);
        Entered::Begins(facts.runs, lines)
    }

    /// Ends broadcast `run` for those who come, unless `waiting` finds one who came before.
    pub(super) fn try_end(&self, run: u64, waiting: impl FnOnce() -> Option<Line>) -> Option<Line> {
        let mut facts = self.facts();
        let line = waiting();
        if line.is_none() {
            facts.end(run);
        }
        line
    }

    /// Broadcast `run` takes nobody in any more; another may begin.
    pub(super) fn end(&self, run: u64) {
        self.facts().end(run);
    }

    /// `publisher` is now listened to.
    pub(super) fn attach(&self, publisher: Publisher, now: Instant) {
        let mut facts = self.facts();
        facts.heard = Some(now);
        facts.publisher = Some(publisher);
        facts.source = None;
        if facts.detached.take().is_some() {
            self.reconnects.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Nobody is listened to since `now`.
    pub(super) fn detach(&self, now: WallTime) {
        let mut facts = self.facts();
        facts.publisher = None;
        facts.received_bps = 0;
        facts.detached = Some(now);
    }

    /// The publisher has sent media.
    pub(super) fn hear(&self, now: Instant) {
        self.facts().heard = Some(now);
    }

    /// How long the publisher has been silent.
    #[must_use]
    pub(super) fn silence(&self, now: Instant) -> Duration {
        let heard = self.facts().heard;
        heard.map_or(Duration::MAX, |heard| now.saturating_duration_since(heard))
    }

    /// Waits until the broadcast before this one has been stored to its end. Hold it to the end of yours.
    pub(super) async fn turn(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.turn.lock().await
    }

    /// Whether no broadcast of it is under way.
    #[must_use]
    pub(super) fn is_vacant(&self) -> bool {
        self.facts().door.is_none()
    }

    /// How many broadcasts of it there were.
    #[must_use]
    pub(super) fn runs(&self) -> u64 {
        self.facts().runs
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

    /// Says how conducting goes.
    pub(super) fn conduct(&self, conducted: Conducted, now: WallTime) {
        let mut facts = self.facts();
        let before = facts.showing.map(|showing| showing.conducted);
        // A worker that was started anew counts from nothing.
        let more = |counter: &AtomicU64, of: fn(&Conducted) -> u64| {
            let (value, before) = (of(&conducted), before.as_ref().map_or(0, of));
            let base = if value < before { 0 } else { before };
            counter.fetch_add(value - base, Ordering::Relaxed);
        };
        more(&self.held_slots, |conducted| conducted.held_slots);
        more(&self.slate_ms, |conducted| conducted.slate_ms);
        more(&self.late_frames, |conducted| conducted.dropped_frames);
        let same = facts
            .showing
            .filter(|showing| showing.conducted.shown == conducted.shown);
        let since = same.map_or(now, |showing| showing.since);
        facts.showing = Some(Showing { conducted, since });
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
            Some(_) => self.facts().advancing(),
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
        let since = match state {
            StreamState::Reconnecting => facts.detached,
            StreamState::Live | StreamState::Holding | StreamState::Slate => {
                facts.showing.map(|showing| showing.since)
            }
            _ => None,
        };
        let path = |item| format!("/{}", ObjectKey::new(self.name.clone(), item));
        StreamStatus {
            name: self.name.to_string(),
            state,
            state_since: since.or(facts.started).map(|at| at.to_string()),
            started_at: facts.started.map(|at| at.to_string()),
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

impl Facts {
    fn end(&mut self, run: u64) {
        if self.runs == run {
            self.door = None;
            self.publisher = None;
            self.received_bps = 0;
        }
    }

    /// Where a broadcast that can be played is in its life.
    fn advancing(&self) -> StreamState {
        let shown = self.showing.map(|showing| showing.conducted.shown);
        match (&self.publisher, shown) {
            (None, _) => StreamState::Reconnecting,
            (_, Some(Shown::Held)) => StreamState::Holding,
            (_, Some(Shown::Slate)) => StreamState::Slate,
            _ => StreamState::Live,
        }
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
    use crate::id::ConnId;

    /// A publisher on connection `conn`, the rest of it of no account.
    pub(in crate::app) fn publisher(conn: u64) -> Publisher {
        Publisher {
            conn: ConnId::new(conn),
            address: "192.0.2.1:5000".to_owned(),
            encoder: None,
            since: WallTime::from_micros(0),
        }
    }

    /// Its line, which says nothing.
    pub(in crate::app) fn line(publisher: Publisher) -> Line {
        Line {
            publisher,
            said: std::collections::VecDeque::new(),
            media: mpsc::channel(1).1,
            close: tokio::sync::oneshot::channel().0,
        }
    }

    fn stream() -> Stream {
        Stream::new("demo".parse().expect("a name"))
    }

    fn begin(stream: &Stream, publisher: Publisher) -> (u64, mpsc::Receiver<Line>) {
        match stream.enter(line(publisher), Instant::now()) {
            Entered::Begins(run, lines) => (run, lines),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn who_comes_second_joins_until_the_broadcast_has_ended() {
        let stream = stream();
        let (run, mut lines) = begin(&stream, publisher(1));
        assert!(lines.try_recv().is_ok());
        let enter = |conn| stream.enter(line(publisher(conn)), Instant::now());
        assert!(matches!(enter(2), Entered::Joined));
        assert!(matches!(enter(3), Entered::Refused(_)), "one at a time");
        // Who came before the end is not lost by it.
        let found = stream.try_end(run, || lines.try_recv().ok());
        assert_eq!(found.map(|line| line.publisher.conn), Some(ConnId::new(2)));
        assert!(!stream.is_vacant());
        assert!(stream.try_end(run, || lines.try_recv().ok()).is_none());
        assert!(stream.is_vacant());
        let (next, _lines) = begin(&stream, publisher(4));
        // The end of the first does not end the second.
        stream.end(run);
        assert!(!stream.is_vacant() && next > run);
    }

    #[test]
    fn silent_publisher_may_be_displaced_and_a_live_one_not() {
        use Displace::{Always, Never, Stale};
        let stream = stream();
        let begun = Instant::now();
        let at = |seconds| begun + Duration::from_secs(seconds);
        assert!(matches!(stream.entry(Never, begun, begun), Entry::Free));
        let _broadcast = begin(&stream, publisher(1));
        stream.attach(publisher(1), begun);
        stream.hear(at(10));
        for (displace, asked, now, expected) in [
            (Stale, 9, 11, "Taken"),
            (Stale, 11, 12, "Unsure"),
            (Stale, 11, 13, "Free"),
            (Always, 9, 9, "Free"),
            (Never, 11, 60, "Taken"),
        ] {
            let found = format!("{:?}", stream.entry(displace, at(asked), at(now)));
            assert!(
                found.starts_with(expected),
                "{displace} {asked} {now}: {found}"
            );
        }
        stream.detach(WallTime::from_micros(0));
        assert!(matches!(stream.entry(Never, at(11), at(11)), Entry::Free));
    }

    #[test]
    fn counts_go_on_when_a_worker_counts_anew() {
        let stream = stream();
        let says = |held_slots, shown| {
            let conducted = Conducted {
                shown,
                held_slots,
                slate_slots: 0,
                slate_ms: 0,
                dropped_frames: 0,
                moves: 0,
            };
            stream.conduct(conducted, WallTime::from_micros(0));
            stream.held_slots.load(Ordering::Relaxed)
        };
        let counts = [5, 9, 2].map(|held| says(held, Shown::Held));
        assert_eq!(counts, [5, 9, 11]);
    }

    #[test]
    fn metadata_names_the_encoder_better_than_the_connection() {
        let stream = stream();
        stream.set_encoder("nobody publishes".to_owned());
        let connected = Publisher {
            encoder: Some("FMLE/3.0 (compatible; FMSc/1.0)".to_owned()),
            ..publisher(1)
        };
        let _broadcast = begin(&stream, connected);
        let name = || stream.status().publisher.and_then(|p| p.encoder);
        assert_eq!(name().as_deref(), Some("FMLE/3.0 (compatible; FMSc/1.0)"));
        stream.set_encoder("obs-output module".to_owned());
        assert_eq!(name().as_deref(), Some("obs-output module"));
    }

    #[test]
    fn stream_goes_through_the_states_of_its_life() {
        let stream = stream();
        let (run, _lines) = begin(&stream, publisher(1));
        assert_eq!(stream.state(), StreamState::Starting);
        stream.publish(Vec::new(), Duration::from_secs(2), false);
        assert_eq!(stream.state(), StreamState::Live);
        for (shown, state) in [
            (Shown::Held, StreamState::Holding),
            (Shown::Slate, StreamState::Slate),
            (Shown::Source, StreamState::Live),
        ] {
            let conducted = Conducted {
                shown,
                held_slots: 0,
                slate_slots: 0,
                slate_ms: 0,
                dropped_frames: 0,
                moves: 0,
            };
            stream.conduct(conducted, WallTime::from_micros(0));
            assert_eq!(stream.state(), state);
        }
        stream.detach(WallTime::from_micros(0));
        assert_eq!(stream.state(), StreamState::Reconnecting);
        stream.attach(publisher(2), Instant::now());
        assert_eq!(stream.state(), StreamState::Live);
        assert_eq!(stream.reconnects.load(Ordering::Relaxed), 1);
        stream.publish(Vec::new(), Duration::from_secs(2), true);
        stream.end(run);
        assert_eq!(stream.state(), StreamState::Ended);
    }
}

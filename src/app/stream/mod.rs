//! What the server holds of one stream: who publishes it, what can be fetched, how it is doing.
//!
//! Enters: what the broadcast's task publishes
//! Leaves: objects and manifests for the origin, a status for the API
//! Never:  waits: every answer comes from memory, and no lock is held across an await
//! Time:   `Instant` for staleness, UTC for the status
//! Spec:   docs/architecture.md

mod catalog;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use crate::app::encoding::Encoding;
use crate::app::health::Health;
use crate::app::inputs::{Both, Input, Why};
use crate::app::latency::Latency;
use crate::app::line::{Line, MAX_LINES, Publisher, SILENT_AFTER};
use crate::app::status::{DvrStatus, IngestStatus, PublisherStatus, RenditionStatus, SourceStatus};
use crate::app::status::{InputState, InputStatus, LiveStatus};
use crate::app::status::{StreamState, StreamStatus, TrackStatus};
use crate::config::Displace;
use crate::id::StreamName;
use crate::media::{Item, MediaKind, ObjectKey};
use crate::time::{FrameRate, WallTime};
use crate::transcode::GivenUp;
use crate::transcode::conductor::{Conducted, Shown};
use crate::transcode::overload::Load;

use self::catalog::Catalog;

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
    /// How its encoders keep up.
    pub(super) encoding: Encoding,
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
    /// How often another input became live; a counter for metrics.
    pub(super) switches: AtomicU64,
    /// How long media takes through the stages; histograms for metrics.
    pub(super) latency: Latency,
}

/// What the API tells and the gate needs to know.
#[derive(Debug, Default)]
struct Facts {
    /// Where publishers come into the broadcast that is under way.
    doors: Option<Both<mpsc::Sender<Line>>>,
    /// How many broadcasts there were.
    runs: u64,
    inputs: Both<InputFacts>,
    live: Option<Live>,
    started: Option<WallTime>,
    /// When the last publisher went.
    detached: Option<WallTime>,
    showing: Option<Showing>,
    renditions: Vec<RenditionStatus>,
}

/// What is known of one input.
#[derive(Debug, Default)]
struct InputFacts {
    publisher: Option<Publisher>,
    /// When the publisher last sent media, or was let in.
    heard: Option<Instant>,
    source: Option<SourceStatus>,
    received_bps: u64,
    /// Whether somebody has published to it in this broadcast.
    is_used: bool,
}

/// Which input is live, since when, and why that one.
#[derive(Clone, Copy, Debug)]
struct Live {
    input: Input,
    since: WallTime,
    why: Why,
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
    Begins(u64, Both<mpsc::Receiver<Line>>),
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
            encoding: Encoding::default(),
            worker_restarts: AtomicU64::new(0),
            segments: AtomicU64::new(0),
            keyless_segments: AtomicU64::new(0),
            copied_segment_ms: AtomicU64::new(0),
            held_slots: AtomicU64::new(0),
            slate_ms: AtomicU64::new(0),
            late_frames: AtomicU64::new(0),
            reconnects: AtomicU64::new(0),
            switches: AtomicU64::new(0),
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
    pub(super) fn entry(
        &self,
        (input, displace): (Input, Displace),
        asked: Instant,
        now: Instant,
    ) -> Entry {
        let facts = self.facts();
        let of = facts.inputs.get(input);
        let (Some(present), true) = (&of.publisher, facts.doors.is_some()) else {
            return Entry::Free;
        };
        let taken = || Entry::Taken(present.clone());
        match displace {
            Displace::Always => Entry::Free,
            Displace::Never => taken(),
            // An encoder that lost its network comes back while its old connection still looks open.
            Displace::Stale => match of.heard {
                Some(heard) if heard > asked => taken(),
                Some(heard) if now.saturating_duration_since(heard) < SILENT_AFTER => Entry::Unsure,
                _ => Entry::Free,
            },
        }
    }

    /// Lets `line` in, into the broadcast under way or a new one.
    pub(super) fn enter(&self, mut line: Line, now: Instant) -> Entered {
        let mut facts = self.facts();
        if let Some(doors) = &facts.doors {
            match doors.get(line.input).try_send(line) {
                Ok(()) => return Entered::Joined,
                Err(mpsc::error::TrySendError::Full(line)) => return Entered::Refused(line),
                Err(mpsc::error::TrySendError::Closed(back)) => line = back,
            }
        }
        let (primary, of_primary) = mpsc::channel(MAX_LINES);
        let (backup, of_backup) = mpsc::channel(MAX_LINES);
        let doors = Both { primary, backup };
        facts.started = Some(line.publisher.since);
        facts.detached = None;
        facts.showing = None;
        facts.live = None;
        facts.inputs = Both::default();
        *facts.inputs.get_mut(line.input) = InputFacts {
            publisher: Some(line.publisher.clone()),
            heard: Some(now),
            is_used: true,
            ..InputFacts::default()
        };
        facts.runs += 1;
        // The channel is new, with room for it.
        let _ = doors.get(line.input).try_send(line);
        facts.doors = Some(doors);
        let lines = Both {
            primary: of_primary,
            backup: of_backup,
        };
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

    /// `publisher` is now listened to at `input`.
    pub(super) fn attach(&self, input: Input, publisher: Publisher, now: Instant) {
        let mut facts = self.facts();
        *facts.inputs.get_mut(input) = InputFacts {
            publisher: Some(publisher),
            heard: Some(now),
            is_used: true,
            ..InputFacts::default()
        };
        if facts.detached.take().is_some() {
            self.reconnects.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Nobody is listened to at `input` since `now`.
    pub(super) fn detach(&self, input: Input, now: WallTime) {
        let mut facts = self.facts();
        let left = facts.inputs.get_mut(input);
        left.publisher = None;
        left.received_bps = 0;
        if facts.present().is_none() {
            facts.detached = Some(now);
        }
    }

    /// Another input is live since `now`, and why; or none.
    pub(super) fn set_live(&self, live: Option<(Input, Why)>, now: WallTime) {
        if live.is_some_and(|(_, why)| why != Why::First) {
            self.switches.fetch_add(1, Ordering::Relaxed);
        }
        self.facts().live = live.map(|(input, why)| Live {
            input,
            since: now,
            why,
        });
    }

    /// Which input is live.
    #[must_use]
    pub(super) fn live(&self) -> Option<Input> {
        self.facts().live.map(|live| live.input)
    }

    /// The publisher of `input` has sent media.
    pub(super) fn hear(&self, input: Input, now: Instant) {
        self.facts().inputs.get_mut(input).heard = Some(now);
    }

    /// How long the publisher of `input` has been silent.
    #[must_use]
    pub(super) fn silence(&self, input: Input, now: Instant) -> Duration {
        let heard = self.facts().inputs.get(input).heard;
        heard.map_or(Duration::MAX, |heard| now.saturating_duration_since(heard))
    }

    /// Waits until the broadcast before this one has been stored to its end. Hold it to the end of yours.
    pub(super) async fn turn(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.turn.lock().await
    }

    /// Whether no broadcast of it is under way.
    #[must_use]
    pub(super) fn is_vacant(&self) -> bool {
        self.facts().doors.is_none()
    }

    /// How many broadcasts of it there were.
    #[must_use]
    pub(super) fn runs(&self) -> u64 {
        self.facts().runs
    }

    /// Says how the encoder of the publisher of `input` calls itself in its metadata. That goes before what it
    /// said when it connected, where OBS and others give the name of an old Adobe product.
    pub(super) fn set_encoder(&self, input: Input, encoder: String) {
        if let Some(publisher) = &mut self.facts().inputs.get_mut(input).publisher {
            publisher.encoder = Some(encoder);
        }
    }

    /// Says what a track of `input` turned out to be.
    pub(super) fn set_source(&self, input: Input, kind: MediaKind, track: TrackStatus) {
        let mut facts = self.facts();
        let source = facts.inputs.get_mut(input).source.get_or_insert_default();
        match kind {
            MediaKind::Video => source.video = Some(track),
            MediaKind::Audio => source.audio = Some(track),
        }
    }

    /// Says the frame rate of `input`.
    pub(super) fn set_source_rate(&self, input: Input, rate: FrameRate) {
        let mut facts = self.facts();
        let source = facts.inputs.get_mut(input).source.as_mut();
        if let Some(video) = source.and_then(|source| source.video.as_mut()) {
            video.frame_rate = Some(rate.to_string());
        }
    }

    /// Says what is made of it.
    pub(super) fn set_renditions(&self, renditions: Vec<RenditionStatus>) {
        self.facts().renditions = renditions;
    }

    /// Whether something is made of it, and no pictures are.
    pub(super) fn is_without_pictures(&self) -> bool {
        let facts = self.facts();
        let mut all = facts.renditions.iter();
        !facts.renditions.is_empty() && all.all(|rendition| rendition.kind != "video")
    }

    /// Whether pictures that come now are to be made something of: nothing is, or not any more, and it is cut by the
    /// grid.
    pub(super) fn lacks_pictures(&self) -> bool {
        let is_on_grid = self.copied_segment_ms.load(Ordering::Relaxed) == 0;
        is_on_grid && (self.is_without_pictures() || self.encoding.is_given_up())
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

    /// Says how fast `input` arrives, in bits per second.
    pub(super) fn set_received_bps(&self, input: Input, bps: u64) {
        self.facts().inputs.get_mut(input).received_bps = bps;
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
        more(&self.health.moved, |conducted| conducted.moves);
        let same = facts
            .showing
            .filter(|showing| showing.conducted.shown == conducted.shown);
        let since = same.map_or(now, |showing| showing.since);
        facts.showing = Some(Showing { conducted, since });
    }

    /// Says how encoding keeps up.
    pub(super) fn load(&self, load: Load) {
        let facts = self.facts();
        self.encoding.tell(load, &self.name, &facts.renditions);
    }

    /// Says that encoding was given up, or that it is no more.
    pub(super) fn give_up(&self, given_up: Option<GivenUp>) {
        let facts = self.facts();
        self.encoding
            .give_up(given_up, &self.name, &facts.renditions);
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
        let facts = self.facts();
        let shown = facts.shown();
        let of = facts.inputs.get(shown);
        let health = self.health.status(shown);
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
            dvr: self.has(&Item::Dvr).then(|| DvrStatus {
                hls: path(Item::Dvr),
                dash: self.has(&Item::DvrMpd).then(|| path(Item::DvrMpd)),
            }),
            publisher: of.publisher.as_ref().map(PublisherStatus::of),
            source: of.source.clone(),
            live: facts.live.map(|live| LiveStatus {
                input: live.input.as_str(),
                since: live.since.to_string(),
                why: live.why.as_str(),
                switches: self.switches.load(Ordering::Relaxed),
            }),
            inputs: self.inputs(&facts),
            encoding: self.encoding.status(&facts.renditions),
            renditions: facts.renditions.clone(),
            ingest: IngestStatus {
                received_bytes: self.received_bytes.load(Ordering::Relaxed),
                received_bps: of.received_bps,
                repairs: self.health.repairs().map(|(_, count)| count).sum(),
                warnings: health.warnings(),
                health,
            },
        }
    }

    /// What the API says of each input that was used.
    fn inputs(&self, facts: &Facts) -> Vec<InputStatus> {
        let used = Input::ALL
            .into_iter()
            .filter(|input| facts.inputs.get(*input).is_used);
        let status = |input: Input| {
            let of = facts.inputs.get(input);
            let health = self.health.status(input);
            InputStatus {
                name: input.as_str(),
                state: match (&of.publisher, facts.live) {
                    (None, _) => InputState::Absent,
                    (Some(_), Some(live)) if live.input == input => InputState::Live,
                    (Some(_), _) => InputState::Standby,
                },
                publisher: of.publisher.as_ref().map(PublisherStatus::of),
                source: of.source.clone(),
                received_bps: of.received_bps,
                health: health.state,
                warnings: health.warnings(),
            }
        };
        used.map(status).collect()
    }

    fn facts(&self) -> MutexGuard<'_, Facts> {
        // A panic while it was held leaves plain values behind, which are still true enough to show.
        self.facts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Facts {
    fn end(&mut self, run: u64) {
        if self.runs == run {
            self.doors = None;
            self.live = None;
            for input in self.inputs.iter_mut() {
                input.publisher = None;
                input.received_bps = 0;
            }
        }
    }

    /// The first input that somebody publishes to.
    fn present(&self) -> Option<Input> {
        let mut all = Input::ALL.into_iter();
        all.find(|input| self.inputs.get(*input).publisher.is_some())
    }

    /// The input that is spoken of where one is: the live one, or the one that may become so.
    fn shown(&self) -> Input {
        let live = self.live.map(|live| live.input);
        let used = || self.inputs.backup.is_used && !self.inputs.primary.is_used;
        let last = || {
            if used() {
                Input::Backup
            } else {
                Input::Primary
            }
        };
        live.or_else(|| self.present()).unwrap_or_else(last)
    }

    /// Where a broadcast that can be played is in its life.
    fn advancing(&self) -> StreamState {
        let shown = self.showing.map(|showing| showing.conducted.shown);
        match (self.present(), shown) {
            (None, _) => StreamState::Reconnecting,
            (_, Some(Shown::Held)) => StreamState::Holding,
            (_, Some(Shown::Slate)) => StreamState::Slate,
            _ => StreamState::Live,
        }
    }
}

#[cfg(test)]
pub(super) mod tests;

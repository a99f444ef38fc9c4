//! The `origin` command: serves what other nodes have stored, from the store alone.
//!
//! Enters: a checked configuration; requests, through the [`Origin`] that `serve` asks
//! Leaves: answers out of memory, or out of the store, which is read once for all who ask
//! Never:  writes to the store; takes media in
//! Time:   how long ago a manifest changed tells whether its broadcast goes on
//! Spec:   docs/storage.md

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use tokio::sync::{Semaphore, watch};

use crate::app::clock::wall_now;
use crate::app::encoding::EncodingStatus;
use crate::app::registry::json;
use crate::app::server::{raise_file_limit, until};
use crate::app::shows::Library;
use crate::app::status::{IngestStatus, ServerStatus, StreamState, StreamStatus, StreamsStatus};
use crate::app::{banner, metrics, shutdown};
use crate::config::Config;
use crate::id::StreamName;
use crate::media::{Item, ObjectKey};
use crate::serve::document::{first_playlist, has_ended};
use crate::serve::shelf::{Keep, Shelf};
use crate::serve::shows::Page;
use crate::serve::stretch::Asked;
use crate::serve::{self, Clip, Found, NoClip, Object, Origin, StoreFailed, Stored};
use crate::store::Store;
use crate::time::WallTime;

/// How many objects may be asked of the store at once: as many as keep its connections busy.
const MAX_READS: usize = 64;

/// The least that records and what reaches back may take beside the objects; else a quarter of what those may.
const MIN_LIBRARY_BYTES: u64 = 64 * 1024 * 1024;

/// How old a manifest may be, and how long it is believed that there is nothing: a quarter of a segment of
/// the usual length, by which viewers are further behind at most.
const FRESH: Duration = Duration::from_millis(500);

/// How long a manifest counts that has ended. A new broadcast may take its name.
const ENDED_FRESH: Duration = Duration::from_secs(5);

/// How long a store that failed is left alone, for each object.
const FAILED_FRESH: Duration = Duration::from_secs(1);

/// How many target durations a playlist may stay the same before its broadcast counts as cut off.
const STALLED_TARGETS: u32 = 3;

/// The target duration where a playlist does not say.
const DEFAULT_TARGET: Duration = Duration::from_secs(2);

/// Runs the server until a signal ends it.
///
/// # Errors
/// If it cannot start: a port or a store that cannot be used.
pub(super) async fn run(config: Config) -> anyhow::Result<()> {
    let mut asked = shutdown::watch_signals().context("signals cannot be watched")?;
    raise_file_limit();
    let store = Store::open_to_read(config.store).await?;
    let memory_bytes = config.serve.memory_bytes;
    let http = serve::Server::bind(config.serve)
        .map_err(|error| anyhow::anyhow!("{error} (setting: serve.listen, --http)"))?;
    let address = http.local_addr();
    let origin = StoreOrigin {
        library: Library::new(store.clone(), (memory_bytes / 4).max(MIN_LIBRARY_BYTES)),
        store,
        shelf: Arc::new(Shelf::new(memory_bytes)),
        reads: Arc::new(Semaphore::new(MAX_READS)),
        requests: http.metrics(),
    };
    let (stop, stopped) = watch::channel(false);
    let assets = serve::Assets::of_page();
    let http = tokio::spawn(http.run(Arc::new(origin), assets, until(stopped)));
    banner::print_origin(address);
    shutdown::asked(&mut asked).await;
    stop.send_replace(true);
    http.await.context("the origin broke down; this is a bug")?;
    tracing::info!("drained");
    Ok(())
}

/// What came of reading an object.
#[derive(Clone, Debug)]
struct Reading {
    result: Result<Option<Stored>, StoreFailed>,
    at: Instant,
    /// When the object was first seen as it is.
    changed: Instant,
    /// Whether it is a manifest that says that nothing more comes; `None` where it does not say.
    ended: Option<bool>,
}

impl Reading {
    /// What `found` is beside the `earlier` reading of it: what has not changed stays the same value, so that it
    /// is compressed once.
    fn new(
        key: &ObjectKey,
        found: Result<Option<Stored>, StoreFailed>,
        earlier: Option<Self>,
    ) -> Self {
        let at = Instant::now();
        match (&found, earlier) {
            (Ok(Some(now)), Some(earlier)) if earlier.holds(now) => Self { at, ..earlier },
            _ => Self {
                ended: match &found {
                    Ok(Some(Stored::Manifest { document, .. })) => {
                        has_ended(&key.item, document.text())
                    }
                    _ => None,
                },
                result: found,
                at,
                changed: at,
            },
        }
    }

    fn holds(&self, other: &Stored) -> bool {
        match (&self.result, other) {
            (
                Ok(Some(Stored::Manifest { document, .. })),
                Stored::Manifest {
                    document: other, ..
                },
            ) => document.text() == other.text(),
            _ => false,
        }
    }

    /// Whether the playlist `key` has changed so lately that more is to come.
    fn is_advancing(&self) -> bool {
        let Ok(Some(Stored::Manifest { document, .. })) = &self.result else {
            return false;
        };
        let limit = target_duration(document.text()).saturating_mul(STALLED_TARGETS) + FRESH;
        self.at.duration_since(self.changed) <= limit
    }
}

impl Keep for Reading {
    fn bytes(&self) -> u64 {
        match &self.result {
            Ok(Some(Stored::Media(object))) => object.body().len(),
            // As it is and in two codings.
            Ok(Some(Stored::Manifest { document, .. })) => 2 * document.text().len() as u64,
            Ok(None) | Err(_) => 0,
        }
    }

    fn is_fresh(&self, now: Instant) -> bool {
        let limit = match &self.result {
            Ok(Some(Stored::Media(_))) => return true,
            _ if self.ended == Some(true) => ENDED_FRESH,
            Ok(_) => FRESH,
            Err(_) => FAILED_FRESH,
        };
        now.duration_since(self.at) < limit
    }
}

/// What a playlist says of its target duration.
fn target_duration(text: &[u8]) -> Duration {
    let text = String::from_utf8_lossy(text);
    let said = text
        .lines()
        .find_map(|line| line.strip_prefix("#EXT-X-TARGETDURATION:"));
    let seconds = said.and_then(|text| text.trim().parse::<u32>().ok());
    seconds.map_or(DEFAULT_TARGET, |seconds| {
        Duration::from_secs(seconds.into())
    })
}

/// What the store holds, read on demand.
#[derive(Debug)]
struct StoreOrigin {
    library: Library,
    store: Store,
    shelf: Arc<Shelf<Reading>>,
    reads: Arc<Semaphore>,
    requests: Arc<serve::Metrics>,
}

impl StoreOrigin {
    async fn read(&self, key: &ObjectKey) -> Reading {
        let begin = |earlier| {
            let (store, reads, key) = (self.store.clone(), Arc::clone(&self.reads), key.clone());
            async move {
                let _permit = reads.acquire().await;
                let found = store.get(&key).await.map_err(|error| {
                    tracing::warn!(%key, %error, "the store could not be read");
                    StoreFailed
                });
                let found = found.map(|body| body.map(|body| Stored::new(&key, body, true)));
                Reading::new(&key, found, earlier)
            }
        };
        self.shelf.get(key, begin).await
    }

    /// Whether the broadcast of the manifest `key` goes on. An MPD does not change while it does: the playlists
    /// beside it do.
    async fn is_advancing(&self, key: &ObjectKey, reading: &Reading) -> bool {
        let Ok(Some(Stored::Manifest { document, .. })) = &reading.result else {
            return false;
        };
        match &key.item {
            Item::Media(_) => reading.is_advancing(),
            Item::Mpd => match first_playlist(&key.stream, document.text()) {
                Some(playlist) => self.read(&playlist).await.is_advancing(),
                None => true,
            },
            _ => true,
        }
    }

    /// The streams that somebody has asked for of late, and how they are.
    fn known(&self) -> BTreeMap<StreamName, StreamState> {
        let mut streams = BTreeMap::new();
        for (key, reading) in self.shelf.snapshot() {
            let state = match (&key.item, reading.ended) {
                (Item::Media(_), Some(true)) => StreamState::Ended,
                (Item::Media(_), Some(false)) if reading.is_advancing() => StreamState::Live,
                (Item::Media(_), Some(false)) => StreamState::Stalled,
                _ => continue,
            };
            streams.insert(key.stream, state);
        }
        streams
    }
}

fn status(name: &StreamName, state: StreamState) -> StreamStatus {
    let path = |item| format!("/{}", ObjectKey::new(name.clone(), item));
    StreamStatus {
        name: name.to_string(),
        state,
        state_since: None,
        started_at: None,
        hls: path(Item::Multivariant),
        dash: path(Item::Mpd),
        dvr: None,
        live: None,
        inputs: Vec::new(),
        publisher: None,
        source: None,
        renditions: Vec::new(),
        encoding: EncodingStatus::default(),
        ingest: IngestStatus::default(),
    }
}

impl Origin for StoreOrigin {
    fn manifest(&self, _: &ObjectKey) -> Found {
        Found::Missing
    }

    fn object(&self, key: &ObjectKey) -> Option<Arc<Object>> {
        match self.shelf.peek(key)?.result {
            Ok(Some(Stored::Media(object))) => Some(object),
            _ => None,
        }
    }

    fn stored<'a>(
        &'a self,
        key: &'a ObjectKey,
    ) -> BoxFuture<'a, Result<Option<Stored>, StoreFailed>> {
        Box::pin(async move {
            let reading = self.read(key).await;
            let is_advancing = self.is_advancing(key, &reading).await;
            Ok(reading.result?.map(|stored| match stored {
                Stored::Manifest { document, .. } => Stored::Manifest {
                    document,
                    is_advancing,
                },
                media @ Stored::Media(_) => media,
            }))
        })
    }

    fn clip<'a>(
        &'a self,
        key: &'a ObjectKey,
        asked: Option<Asked>,
    ) -> BoxFuture<'a, Result<Clip, NoClip>> {
        Box::pin(self.library.clip(key, asked))
    }

    fn shows<'a>(
        &'a self,
        name: &'a StreamName,
        page: Page,
    ) -> BoxFuture<'a, Result<Bytes, NoClip>> {
        Box::pin(async move { Ok(json(&self.library.list(name, page).await?)) })
    }

    fn streams(&self) -> Bytes {
        let known = self.known();
        let streams = known.iter().map(|(name, state)| status(name, *state));
        json(&StreamsStatus {
            streams: streams.collect(),
        })
    }

    fn stream(&self, name: &StreamName) -> Option<Bytes> {
        let state = *self.known().get(name)?;
        Some(json(&status(name, state)))
    }

    fn server(&self) -> Bytes {
        json(&ServerStatus {
            version: env!("CARGO_PKG_VERSION"),
            rtmp: None,
            now: self.now().to_string(),
        })
    }

    fn metrics(&self) -> Bytes {
        metrics::render_origin(&self.shelf, &self.requests).unwrap_or_default()
    }

    fn ready(&self) -> Result<String, String> {
        let now = Instant::now();
        let read = self.shelf.snapshot();
        let mut failed = read
            .iter()
            .filter(|(_, reading)| reading.result.is_err() && reading.is_fresh(now));
        match failed.next() {
            Some((key, _)) => Err(format!("the store cannot be read: {key}; the log says why")),
            None => Ok("ready".to_owned()),
        }
    }

    fn now(&self) -> WallTime {
        wall_now()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::Payload;

    fn read(key: &str, text: &str, earlier: Option<Reading>) -> Reading {
        let key = key.parse().expect("a key");
        let body = Payload::from(Bytes::copy_from_slice(text.as_bytes()));
        Reading::new(&key, Ok(Some(Stored::new(&key, body, true))), earlier)
    }

    fn playlist(text: &str, earlier: Option<Reading>) -> Reading {
        read("live/demo/v720/index.m3u8", text, earlier)
    }

    #[test]
    fn a_playlist_that_stays_the_same_for_three_targets_is_cut_off() {
        let text = "#EXTM3U\n#EXT-X-TARGETDURATION:4\nseg\n";
        let first = playlist(text, None);
        let later = |seconds| Reading {
            at: first.at + Duration::from_secs(seconds),
            ..first.clone()
        };
        assert!(first.is_advancing() && later(12).is_advancing());
        assert!(!later(13).is_advancing());
        let same = playlist(text, Some(later(1)));
        assert_eq!(same.changed, first.changed, "it has not changed");
        let other = playlist("#EXTM3U\n", Some(later(1)));
        assert!(other.changed > first.changed);
    }

    #[test]
    fn media_stays_and_manifests_do_not() {
        let now = Instant::now();
        let later = now + Duration::from_secs(2);
        let key = "live/demo/v720/7.m4s".parse().expect("a key");
        for (reading, stays) in [
            (read("live/demo/v720/7.m4s", "media", None), true),
            (playlist("#EXTM3U\n", None), false),
            (playlist("#EXTM3U\n#EXT-X-ENDLIST\n", None), true),
            (Reading::new(&key, Ok(None), None), false),
            (Reading::new(&key, Err(StoreFailed), None), false),
        ] {
            assert!(reading.is_fresh(now), "{reading:?}");
            assert_eq!(reading.is_fresh(later), stays, "{reading:?}");
        }
    }
}

//! All streams by name, and the origin's view of them.
//!
//! Enters: lines of publishers, with the name that each wants
//! Leaves: the [`Origin`] that `serve` asks
//! Never:  holds its lock while anything else happens
//! Time:   the app's clock
//! Spec:   docs/architecture.md

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Instant;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use tokio::sync::{Semaphore, mpsc};

use crate::app::clock::wall_now;
use crate::app::inputs::{Both, Input};
use crate::app::line::{self, Line};
use crate::app::metrics;
use crate::app::shows::{Library, MAX_BYTES, Upkeep};
use crate::app::status::{RtmpStatus, ServerStatus, StreamsStatus};
use crate::app::stream::{Entered, Entry, Stream};
use crate::config::Displace;
use crate::id::StreamName;
use crate::ingest::rtmp;
use crate::media::ObjectKey;
use crate::serve::shows::Page;
use crate::serve::stretch::Asked;
use crate::serve::{self, Clip, Found, NoClip, Object, Origin, StoreFailed, Stored};
use crate::store::Store;
use crate::time::WallTime;

/// Streams that may be published at once. What a machine can encode is far below; this bounds memory.
pub(super) const MAX_STREAMS: usize = 256;

/// How many objects may be read from the store at once: each is held whole until it is sent, and a
/// segment has a few megabytes. More wait their turn.
const MAX_STORE_READS: usize = 32;

/// What came of a line.
#[derive(Debug)]
pub(super) enum Admission {
    /// The broadcast of its name that is under way has it.
    Joined,
    /// A broadcast is to be started for it.
    Begins {
        /// The stream.
        stream: Arc<Stream>,
        /// The number of the broadcast.
        run: u64,
        /// Where its lines come in; the first is there.
        lines: Both<mpsc::Receiver<Line>>,
    },
    /// There is no place for it; why.
    Refused(Line, String),
}

/// All streams.
#[derive(Debug)]
pub(super) struct Registry {
    streams: RwLock<BTreeMap<StreamName, Arc<Stream>>>,
    library: Library,
    store: Store,
    store_reads: Semaphore,
    rtmp_port: u16,
    requests: Arc<serve::Metrics>,
    /// What looks after recordings.
    pub(super) upkeep: Arc<Upkeep>,
}

impl Registry {
    /// No streams yet; what is not in memory is read from `store`.
    #[must_use]
    pub(super) fn new(store: Store, rtmp_port: u16, requests: Arc<serve::Metrics>) -> Self {
        Self {
            streams: RwLock::default(),
            library: Library::new(store.clone(), MAX_BYTES),
            store,
            store_reads: Semaphore::new(MAX_STORE_READS),
            rtmp_port,
            requests,
            upkeep: Arc::default(),
        }
    }

    /// Whether another publisher, who asked at `asked`, may publish to that input of `name`.
    pub(super) fn entry(
        &self,
        (name, input): (&StreamName, Input),
        displace: Displace,
        asked: Instant,
    ) -> Result<(), Option<String>> {
        let Some(stream) = self.get(name) else {
            return Ok(());
        };
        match stream.entry((input, displace), asked, Instant::now()) {
            Entry::Free => Ok(()),
            Entry::Unsure => Err(None),
            Entry::Taken(present) => Err(Some(line::taken(&stream, &present))),
        }
    }

    /// Lets `line` publish `name`.
    pub(super) fn enter(&self, name: &StreamName, line: Line, now: Instant) -> Admission {
        let mut streams = self.streams.write().unwrap_or_else(PoisonError::into_inner);
        if !streams.contains_key(name) && streams.len() >= MAX_STREAMS {
            let reason = format!("this server already carries {MAX_STREAMS} streams");
            return Admission::Refused(line, reason);
        }
        let stream = streams
            .entry(name.clone())
            .or_insert_with(|| Arc::new(Stream::new(name.clone())));
        match stream.enter(line, now) {
            Entered::Joined => Admission::Joined,
            Entered::Begins(run, lines) => Admission::Begins {
                stream: Arc::clone(stream),
                run,
                lines,
            },
            Entered::Refused(line) => {
                let reason = format!("another publisher is just taking over \"{name}\"");
                Admission::Refused(line, reason)
            }
        }
    }

    /// Forgets `name` unless somebody has published it since broadcast `run`, which is over.
    pub(super) fn forget(&self, name: &StreamName, run: u64) {
        let mut streams = self.streams.write().unwrap_or_else(PoisonError::into_inner);
        if streams
            .get(name)
            .is_some_and(|stream| stream.runs() == run && stream.is_vacant())
        {
            streams.remove(name);
        }
    }

    /// How many broadcasts are under way.
    pub(super) fn published(&self) -> usize {
        let streams = self.streams.read().unwrap_or_else(PoisonError::into_inner);
        streams
            .values()
            .filter(|stream| !stream.is_vacant())
            .count()
    }

    /// Whether a broadcast of `name` is under way.
    pub(super) fn is_live(&self, name: &StreamName) -> bool {
        self.get(name).is_some_and(|stream| !stream.is_vacant())
    }

    fn get(&self, name: &StreamName) -> Option<Arc<Stream>> {
        self.streams
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(name)
            .cloned()
    }

    fn all(&self) -> Vec<Arc<Stream>> {
        let streams = self.streams.read().unwrap_or_else(PoisonError::into_inner);
        streams.values().cloned().collect()
    }
}

impl Origin for Registry {
    fn manifest(&self, key: &ObjectKey) -> Found {
        self.get(&key.stream)
            .map_or(Found::Missing, |stream| stream.manifest(&key.item))
    }

    fn object(&self, key: &ObjectKey) -> Option<Arc<Object>> {
        self.get(&key.stream)?.object(&key.item)
    }

    fn stored<'a>(
        &'a self,
        key: &'a ObjectKey,
    ) -> BoxFuture<'a, Result<Option<Stored>, StoreFailed>> {
        Box::pin(async move {
            let _permit = self.store_reads.acquire().await;
            let read = self.store.get(key).await.map_err(|error| {
                tracing::warn!(%key, %error, "the store could not be read");
                StoreFailed
            });
            // What goes on is in memory: the publisher of the rest was cut off.
            Ok(read?.map(|body| Stored::new(key, body, false)))
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
        let streams = self.all().iter().map(|stream| stream.status()).collect();
        json(&StreamsStatus { streams })
    }

    fn stream(&self, name: &StreamName) -> Option<Bytes> {
        Some(json(&self.get(name)?.status()))
    }

    fn server(&self) -> Bytes {
        json(&ServerStatus {
            version: env!("CARGO_PKG_VERSION"),
            rtmp: Some(RtmpStatus {
                port: self.rtmp_port,
                app: rtmp::APP,
            }),
            now: self.now().to_string(),
        })
    }

    fn metrics(&self) -> Bytes {
        let each = self.store.each().into_iter();
        let stores: Vec<_> = each.map(|store| store.health().borrow().clone()).collect();
        metrics::render(&self.all(), &stores, &self.requests).unwrap_or_default()
    }

    fn ready(&self) -> Result<String, String> {
        let each = self.store.each();
        let health = |store: &Store| store.health().borrow().clone();
        let told = each.iter().map(health).filter(|health| !health.is_well());
        let told: Vec<_> = told.map(|health| health.to_string()).collect();
        // What one store loses the other has.
        if each.iter().all(|store| health(store).is_losing()) {
            return Err(told.join("; "));
        }
        // Viewers are served from memory: a balancer that took this server out would make an outage of the store
        // theirs.
        let troubles: Vec<_> = told.into_iter().chain(self.upkeep.trouble()).collect();
        Ok(if troubles.is_empty() {
            "ready".to_owned()
        } else {
            format!("ready; degraded: {}", troubles.join("; "))
        })
    }

    fn now(&self) -> WallTime {
        wall_now()
    }
}

pub(super) fn json(value: &impl serde::Serialize) -> Bytes {
    // These values have no maps with keys that are not strings, which is all that can fail.
    serde_json::to_vec(value).unwrap_or_default().into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::stream::tests::{line, publisher};
    use crate::store;

    #[tokio::test]
    async fn stream_is_forgotten_after_its_last_broadcast_and_no_earlier_one() {
        let folder = tempfile::tempdir().expect("a folder");
        let config = store::Config {
            url: folder.path().display().to_string(),
            ..store::Config::default()
        };
        let store = Store::open(config).await.expect("opens");
        let registry = Registry::new(store, 1_935, Arc::default());
        let name = "demo".parse().expect("a name");
        let mut runs = Vec::new();
        for conn in [1, 2] {
            let Admission::Begins { stream, run, .. } =
                registry.enter(&name, line(publisher(conn)), Instant::now())
            else {
                panic!("taken");
            };
            registry.forget(&name, run);
            assert!(registry.get(&name).is_some(), "it is under way");
            stream.end(run);
            runs.push(run);
        }
        // The second one has let go of the name, and is still being stored.
        registry.forget(&name, runs[0]);
        assert!(registry.get(&name).is_some());
        registry.forget(&name, runs[1]);
        assert!(registry.get(&name).is_none());
    }
}

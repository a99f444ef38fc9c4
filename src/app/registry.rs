//! All streams by name, and the origin's view of them.
//!
//! Enters: publishers that claim a name
//! Leaves: the [`Origin`] that `serve` asks
//! Never:  holds its lock while anything else happens
//! Time:   the app's clock
//! Spec:   docs/architecture.md

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Instant;

use bytes::Bytes;
use futures_util::future::BoxFuture;

use crate::app::clock::wall_now;
use crate::app::metrics;
use crate::app::status::{RtmpStatus, ServerStatus, StreamsStatus};
use crate::app::stream::{Publisher, Stream};
use crate::id::{ConnId, StreamName};
use crate::ingest::rtmp;
use crate::media::{ObjectKey, Payload};
use crate::serve::{self, Found, Object, Origin, StoreFailed};
use crate::store::Store;
use crate::time::WallTime;

/// Streams that may be published at once. What a machine can encode is far below; this bounds memory.
pub(super) const MAX_STREAMS: usize = 256;

/// Why a name could not be claimed.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub(super) enum ClaimError {
    /// Another publisher holds it.
    #[error(
        "\"{name}\" is already being published from {}; stop that one first or use another stream key",
        present.address
    )]
    Taken {
        /// The name.
        name: StreamName,
        /// Who holds it.
        present: Publisher,
    },
    /// [`MAX_STREAMS`] are there.
    #[error("this server already carries {MAX_STREAMS} streams")]
    Full,
}

/// All streams.
#[derive(Debug)]
pub(super) struct Registry {
    streams: RwLock<BTreeMap<StreamName, Arc<Stream>>>,
    store: Store,
    rtmp_port: u16,
    requests: Arc<serve::Metrics>,
}

impl Registry {
    /// No streams yet; what is not in memory is read from `store`.
    #[must_use]
    pub(super) fn new(store: Store, rtmp_port: u16, requests: Arc<serve::Metrics>) -> Self {
        Self {
            streams: RwLock::default(),
            store,
            rtmp_port,
            requests,
        }
    }

    /// The stream `name`, claimed for `publisher`.
    ///
    /// # Errors
    /// Why it cannot have it; nothing has changed.
    pub(super) fn claim(
        &self,
        name: &StreamName,
        publisher: Publisher,
        now: Instant,
    ) -> Result<Arc<Stream>, ClaimError> {
        let mut streams = self.streams.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(stream) = streams.get(name) {
            let claimed = stream.claim(publisher, now);
            return match claimed {
                Ok(()) => Ok(Arc::clone(stream)),
                Err(present) => Err(ClaimError::Taken {
                    name: name.clone(),
                    present,
                }),
            };
        }
        if streams.len() >= MAX_STREAMS {
            return Err(ClaimError::Full);
        }
        let stream = Arc::new(Stream::new(name.clone()));
        // A new stream has no publisher, so that the claim cannot fail.
        let _ = stream.claim(publisher, now);
        streams.insert(name.clone(), Arc::clone(&stream));
        Ok(stream)
    }

    /// Forgets `name` unless somebody has published it since `conn`, whose broadcast is over.
    pub(super) fn forget(&self, name: &StreamName, conn: ConnId) {
        let mut streams = self.streams.write().unwrap_or_else(PoisonError::into_inner);
        if streams
            .get(name)
            .is_some_and(|stream| stream.last_publisher() == Some(conn))
        {
            streams.remove(name);
        }
    }

    /// How many streams have a publisher.
    pub(super) fn published(&self) -> usize {
        let streams = self.streams.read().unwrap_or_else(PoisonError::into_inner);
        streams
            .values()
            .filter(|stream| !stream.is_vacant())
            .count()
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
    ) -> BoxFuture<'a, Result<Option<Payload>, StoreFailed>> {
        Box::pin(async move {
            self.store.get(key).await.map_err(|error| {
                tracing::warn!(%key, %error, "the store could not be read");
                StoreFailed
            })
        })
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
            rtmp: RtmpStatus {
                port: self.rtmp_port,
                app: rtmp::APP,
            },
            now: self.now().to_string(),
        })
    }

    fn metrics(&self) -> Bytes {
        let health = self.store.health().borrow().clone();
        metrics::render(&self.all(), &health, &self.requests).unwrap_or_default()
    }

    fn ready(&self) -> Result<(), String> {
        let health = self.store.health();
        let health = health.borrow();
        match health.failing.first_key_value() {
            Some((stream, failure)) => Err(format!(
                "the store fails for stream \"{stream}\": {}",
                failure.reason
            )),
            None => Ok(()),
        }
    }

    fn now(&self) -> WallTime {
        wall_now()
    }
}

fn json(value: &impl serde::Serialize) -> Bytes {
    // These values have no maps with keys that are not strings, which is all that can fail.
    serde_json::to_vec(value).unwrap_or_default().into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::stream::tests::publisher;
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
        for conn in [1, 2] {
            let stream = registry
                .claim(&name, publisher(conn), Instant::now())
                .expect("vacant");
            stream.release(ConnId::new(conn));
        }
        // The second one has let go of the name, and is still being stored.
        registry.forget(&name, ConnId::new(1));
        assert!(registry.get(&name).is_some());
        registry.forget(&name, ConnId::new(2));
        assert!(registry.get(&name).is_none());
    }
}

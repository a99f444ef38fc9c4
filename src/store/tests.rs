//! Real writers on a store in memory that fails at random, on a clock that is not waited for.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, ObjectStoreExt, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};

use super::bucket::Bucket;
use super::names::named_by;
use super::{Config, Left, Put, Store};
use crate::id::StreamName;
use crate::media::{ObjectKey, Payload};

/// Fails some operations, by a sequence that its seed decides, and checks the promise after each.
#[derive(Debug)]
struct Flaky {
    inner: InMemory,
    seed: AtomicU64,
    /// Of 256 operations, how many fail.
    failing: u64,
}

impl Flaky {
    fn new(seed: u64, failing: u64) -> Self {
        Self {
            inner: InMemory::new(),
            seed: AtomicU64::new(seed),
            failing,
        }
    }

    fn roll(&self) -> u64 {
        let seed = self.seed.fetch_add(1, Ordering::Relaxed);
        xxhash_rust::xxh3::xxh3_64(&seed.to_le_bytes())
    }

    fn fails(&self) -> bool {
        self.roll() % 256 < self.failing
    }

    async fn check(&self) {
        let listed: Vec<_> = self.inner.list(None).collect().await;
        let paths: Vec<_> = listed
            .into_iter()
            .map(|object| object.expect("listed"))
            .collect();
        for object in &paths {
            let key: ObjectKey = object.location.as_ref().parse().expect("a key");
            if !key.item.is_manifest() {
                continue;
            }
            let found = self.inner.get(&object.location).await.expect("there");
            for name in named_by(&key, &found.bytes().await.expect("read")) {
                let stored = paths
                    .iter()
                    .any(|o| o.location.as_ref() == name.to_string());
                assert!(stored, "{key} names {name}, which is not stored");
            }
        }
    }
}

fn full() -> Error {
    Error::Generic {
        store: "flaky",
        source: std::io::Error::from(std::io::ErrorKind::StorageFull).into(),
    }
}

impl fmt::Display for Flaky {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("flaky")
    }
}

#[async_trait::async_trait]
impl ObjectStore for Flaky {
    async fn put_opts(
        &self,
        at: &Path,
        body: PutPayload,
        options: PutOptions,
    ) -> Result<PutResult> {
        tokio::time::sleep(Duration::from_millis(self.roll() % 300)).await;
        if self.fails() {
            return Err(full());
        }
        let result = self.inner.put_opts(at, body, options).await;
        self.check().await;
        // Done, but the answer got lost.
        if self.fails() { Err(full()) } else { result }
    }

    async fn put_multipart_opts(
        &self,
        at: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(at, options).await
    }

    async fn get_opts(&self, at: &Path, options: GetOptions) -> Result<GetResult> {
        self.inner.get_opts(at, options).await
    }

    fn delete_stream(
        &self,
        at: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        if self.fails() {
            return futures_util::stream::once(async { Err(full()) }).boxed();
        }
        self.inner.delete_stream(at)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}

fn store(flaky: &Arc<Flaky>, max_waiting_bytes: u64) -> Store {
    let config = Config {
        max_waiting_bytes,
        ..Config::default()
    };
    let backend: Arc<dyn ObjectStore> = Arc::<Flaky>::clone(flaky);
    Store::with_bucket(Bucket::new(backend, true), config, None)
}

fn stream() -> StreamName {
    "demo".parse().expect("a name")
}

fn put(path: &str, body: impl Into<Bytes>) -> Put {
    Put {
        key: format!("live/demo/{path}").parse().expect("a key"),
        body: Payload::from(body.into()),
        content_type: "video/mp4",
        cache_control: "no-store",
    }
}

fn playlist(period: u64, to: u64) -> String {
    let mut text = format!("#EXT-X-MAP:URI=\"init-{period}.mp4\"\n");
    for number in period.max(to.saturating_sub(5))..=to {
        text.push_str(&format!("#EXTINF:2,\n{number}.m4s\n"));
    }
    text
}

/// Broadcasts for `segments` segments from number `period` on, two seconds each.
async fn broadcast(store: &Store, period: u64, segments: u64) -> super::BroadcastWriter {
    let writer = store.broadcast(stream()).await;
    writer.put(put(&format!("v720/init-{period}.mp4"), "init"));
    for number in period..period + segments {
        writer.put(put(&format!("v720/{number}.m4s"), vec![0; 1_000]));
        writer.put(put("v720/index.m3u8", playlist(period, number)));
        if number == period {
            writer.put(put("index.m3u8", "v720/index.m3u8\n"));
        }
        if number >= period + 6 {
            let gone = put(&format!("v720/{}.m4s", number - 6), "").key;
            writer.delete_after(gone, Duration::from_secs(14));
        }
        tokio::time::sleep(Duration::from_secs(2)).await;
    }
    writer
}

#[tokio::test(start_paused = true)]
async fn the_promise_holds_through_failures_and_crashes_and_the_store_catches_up() {
    for seed in 0..40_u64 {
        let failing = [10, 60, 120, 200][usize::try_from(seed % 4).expect("small")];
        let flaky = Arc::new(Flaky::new(seed * 1_000_003, failing));
        let mut period = 100;
        for crash in [3, 17, 40] {
            let limit = if seed % 3 == 0 { 5_000 } else { 1_000_000 };
            let store = store(&flaky, limit);
            drop(broadcast(&store, period, crash).await);
            period += crash + 1;
        }
        let store = store(&flaky, 1_000_000);
        let writer = broadcast(&store, period, 20).await;
        let left = writer.finish(Duration::from_secs(3_600)).await;
        assert_eq!(left, Left::default(), "seed {seed}");
        let key = put("v720/index.m3u8", "").key;
        let text = store.get(&key).await.expect("read").expect("stored");
        assert_eq!(
            text.to_bytes(),
            playlist(period, period + 19),
            "seed {seed}"
        );
        assert!(store.health().borrow().is_well(), "seed {seed}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_that_is_full_says_so_and_loses_only_what_has_no_room_to_wait() {
    let flaky = Arc::new(Flaky::new(1, 256));
    let store = store(&flaky, 10_000);
    let writer = broadcast(&store, 1, 30).await;
    let health = store.health().borrow().clone();
    let failure = health.failing.get(&stream()).expect("failing");
    assert!(
        failure.attempts > 1 && failure.reason.contains("no storage space"),
        "{failure:?}"
    );
    assert!(
        health.lost > 10 && health.waiting_bytes <= 10_000,
        "{health:?}"
    );
    assert!(!health.is_well());
    let left = writer.finish(Duration::from_secs(1)).await;
    assert!(left.objects > 0);
    assert_eq!(flaky.inner.list(None).count().await, 0);
}

#[tokio::test(start_paused = true)]
async fn attributes_are_kept_where_the_store_keeps_them() {
    let flaky = Arc::new(Flaky::new(1, 0));
    let store = store(&flaky, 10_000);
    let writer = store.broadcast(stream()).await;
    writer.put(put("v720/1.m4s", "s"));
    assert_eq!(writer.finish(Duration::from_secs(9)).await, Left::default());
    let found = flaky
        .inner
        .get(&Path::from("live/demo/v720/1.m4s"))
        .await
        .expect("there");
    let attribute = |name| {
        found
            .attributes
            .get(&name)
            .map(|value| value.as_ref().to_owned())
    };
    assert_eq!(
        attribute(object_store::Attribute::ContentType).as_deref(),
        Some("video/mp4")
    );
    assert_eq!(
        attribute(object_store::Attribute::CacheControl).as_deref(),
        Some("no-store")
    );
}

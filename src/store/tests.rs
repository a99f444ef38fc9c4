//! Real writers on a store in memory that fails at random, on a clock that is not waited for.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
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

use tempfile::TempDir;

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
    failing: AtomicU64,
    /// Whether nothing is ever answered.
    hangs: AtomicBool,
}

impl Flaky {
    fn new(seed: u64, failing: u64) -> Self {
        Self {
            inner: InMemory::new(),
            seed: AtomicU64::new(seed),
            failing: AtomicU64::new(failing),
            hangs: AtomicBool::new(false),
        }
    }

    fn roll(&self) -> u64 {
        let seed = self.seed.fetch_add(1, Ordering::Relaxed);
        xxhash_rust::xxh3::xxh3_64(&seed.to_le_bytes())
    }

    async fn hang(&self) {
        if self.hangs.load(Ordering::Relaxed) {
            std::future::pending().await
        }
    }

    fn fails(&self) -> bool {
        self.roll() % 256 < self.failing.load(Ordering::Relaxed)
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
        self.hang().await;
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
        self.hang().await;
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
        self.hang().await;
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
        content_type: "video/mp4".into(),
        cache_control: "no-store".into(),
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
    let mut writer = store.broadcast(stream());
    writer.begin();
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
    let mut writer = store.broadcast(stream());
    writer.begin();
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

/// A store with a spool in `folder`, as a process that has just started has it.
async fn with_spool(flaky: &Arc<Flaky>, folder: &TempDir, max_waiting_bytes: u64) -> Store {
    let store = store(flaky, max_waiting_bytes);
    let opened = store.with_spool(folder.path().to_owned()).await;
    opened.expect("opens")
}

/// Ends `store` as if its process had died: nothing of it runs any more, and its lock is gone.
async fn die(store: Store, writer: super::BroadcastWriter) {
    let spool = store.spool().map(Arc::downgrade);
    drop((writer, store));
    let is_gone = || spool.as_ref().is_none_or(|spool| spool.strong_count() == 0);
    until("its tasks have ended", is_gone).await;
}

fn spooled(folder: &TempDir) -> Vec<PathBuf> {
    let below = |path: &std::path::Path| {
        let entries = std::fs::read_dir(path).into_iter().flatten();
        entries.map(|entry| entry.expect("an entry").path())
    };
    let folders = below(folder.path()).flat_map(|spool| below(&spool).collect::<Vec<_>>());
    let streams = folders.filter(|path| path.is_dir());
    let mut files: Vec<_> = streams
        .flat_map(|path| below(&path).collect::<Vec<_>>())
        .collect();
    files.sort();
    files
}

async fn stored_text(flaky: &Flaky, path: &str) -> String {
    let path = Path::from(format!("live/demo/{path}"));
    let found = flaky.inner.get(&path).await.expect("stored");
    let bytes = found.bytes().await.expect("read");
    String::from_utf8(bytes.to_vec()).expect("text")
}

/// Time passes for real until `holds`: what the spool does takes threads, which a paused clock does not wait for.
async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..3_000 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{what}");
}

#[tokio::test]
async fn what_waits_outlives_the_process_and_is_stored_by_the_next_one_in_order() {
    let folder = TempDir::new().expect("a folder");
    let flaky = Arc::new(Flaky::new(1, 256));
    let store = with_spool(&flaky, &folder, 1_000_000).await;
    let mut writer = store.broadcast(stream());
    writer.begin();
    writer.put(put("v720/init-1.mp4", "init"));
    for number in 1..=5 {
        writer.put(put(&format!("v720/{number}.m4s"), vec![7; 1_000]));
        writer.put(put("v720/index.m3u8", playlist(1, number)));
    }
    writer.put(put("index.m3u8", "v720/index.m3u8\n"));
    until("all in the spool", || spooled(&folder).len() == 9).await;
    let health = store.health();
    until("told", || health.borrow().spooled_bytes > 5_000).await;
    assert_eq!(health.borrow().waiting_objects, 9, "{:?}", health.borrow());
    // What waits can be read all the same.
    let segment = store.get(&put("v720/3.m4s", "").key).await.expect("asked");
    assert_eq!(segment.expect("there").len(), 1_000);
    die(store, writer).await;
    // The power went while the last file was written, and took a page of another.
    let files = spooled(&folder);
    let (last, segment) = (files.last().expect("some"), &files[3]);
    let len = std::fs::metadata(last).expect("there").len();
    let file = std::fs::File::options().write(true).open(last);
    file.expect("opens").set_len(len - 1).expect("cut");
    let mut bytes = std::fs::read(segment).expect("read");
    let end = bytes.len() - 1;
    bytes[end] = 0;
    std::fs::write(segment, bytes).expect("written");

    flaky.failing.store(0, Ordering::Relaxed);
    let store = with_spool(&flaky, &folder, 1_000_000).await;
    let health = store.health();
    until("the spool is empty", || spooled(&folder).is_empty()).await;
    let text = stored_text(&flaky, "v720/index.m3u8").await;
    assert_eq!(text.matches("#EXT-X-GAP").count(), 1, "{text}");
    let segments = text.lines().filter(|line| line.ends_with(".m4s"));
    assert_eq!(segments.count(), 5, "{text}");
    assert_eq!(health.borrow().lost, 1);
    assert_eq!(health.borrow().spooled_bytes, 0);
    let all = flaky.inner.list(None).count().await;
    assert_eq!(all, 1 + 4 + 1, "the multivariant playlist was torn");
}

#[tokio::test(start_paused = true)]
async fn a_store_that_hangs_makes_nobody_wait() {
    let flaky = Arc::new(Flaky::new(1, 0));
    flaky.hangs.store(true, Ordering::Relaxed);
    let store = store(&flaky, 100_000);
    let begun = tokio::time::Instant::now();
    let mut writer = store.broadcast(stream());
    writer.begin();
    for number in 1..=1_000 {
        writer.put(put(&format!("v720/{number}.m4s"), vec![0; 1_000]));
        writer.delete_after(put(&format!("v720/{number}.m4s"), "").key, Duration::ZERO);
    }
    assert_eq!(begun.elapsed(), Duration::ZERO);
    let inventory = writer.inventory(Duration::from_secs(3)).await;
    assert!(!inventory.is_known());
    assert_eq!(begun.elapsed(), Duration::from_secs(3));
    assert!(store.health().borrow().waiting_bytes <= 100_000);
}

#[tokio::test]
async fn a_spool_is_used_by_one_process_and_for_one_store() {
    let folder = TempDir::new().expect("a folder");
    let flaky = Arc::new(Flaky::new(1, 0));
    let first = with_spool(&flaky, &folder, 1_000).await;
    let second = store(&flaky, 1_000);
    let refused = second.with_spool(folder.path().to_owned()).await;
    let told = refused.expect_err("in use").to_string();
    assert!(
        told.starts_with("store.spool: ") && told.contains("in use"),
        "{told}"
    );
    drop(first);
    let again = store(&flaky, 1_000)
        .with_spool(folder.path().to_owned())
        .await;
    assert!(again.is_ok());
    let config = Config {
        url: "s3://other".to_owned(),
        ..Config::default()
    };
    let other = Store::with_bucket(Bucket::new(flaky, true), config, None);
    let other = other.with_spool(folder.path().to_owned()).await;
    assert!(other.is_ok(), "another store has another folder");
}

/// Failures, lost answers and crashes, with everything that waits on the spool at once, and torn files.
#[tokio::test]
async fn the_promise_holds_through_crashes_with_a_spool() {
    for seed in 0..6_u64 {
        let failing = [30, 120, 220][usize::try_from(seed % 3).expect("small")];
        let folder = TempDir::new().expect("a folder");
        let flaky = Arc::new(Flaky::new(seed * 7_919, failing));
        let mut next = 100;
        for _ in 0..4 {
            let store = with_spool(&flaky, &folder, 20_000).await;
            let mut writer = store.broadcast(stream());
            writer.begin();
            let period = next;
            writer.put(put(&format!("v720/init-{period}.mp4"), "init"));
            for number in period..period + 12 {
                writer.put(put(&format!("v720/{number}.m4s"), vec![0; 1_000]));
                writer.put(put("v720/index.m3u8", playlist(period, number)));
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            next += 15;
            die(store, writer).await;
            if let Some(last) = spooled(&folder).last() {
                let file = std::fs::File::options().write(true).open(last);
                file.expect("opens").set_len(seed * 40).expect("cut");
            }
        }
        flaky.failing.store(0, Ordering::Relaxed);
        let store = with_spool(&flaky, &folder, 20_000).await;
        until("drained", || spooled(&folder).is_empty()).await;
        let health = store.health();
        until("written", || health.borrow().waiting_objects == 0).await;
        flaky.check().await;
    }
}

//! Real writers on a store in memory that fails at random, on a clock that is not waited for.

use std::collections::BTreeSet;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
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

use super::bucket::{Bucket, MAX_UPLOADS};
use super::names::named_by;
use super::probe::Conditional;
use super::{Config, Left, Put, Store};
use crate::id::SegmentNumber;
use crate::id::StreamName;
use crate::media::{Item, ObjectKey, Payload};

/// Fails some operations, by a sequence that its seed decides, and checks the promise after each.
#[derive(Debug)]
struct Flaky {
    inner: InMemory,
    seed: AtomicU64,
    /// Of 256 operations, how many fail.
    failing: AtomicU64,
    /// Whether nothing is ever answered.
    hangs: AtomicBool,
    /// Whether there is no room for anything new; what is there can be removed.
    is_full: AtomicBool,
    /// Whether a write brings down who asks for it.
    breaks: AtomicBool,
    /// How many writes are under way, and how many were at most.
    writes: AtomicUsize,
    most_writes: AtomicUsize,
}

impl Flaky {
    fn new(seed: u64, failing: u64) -> Self {
        Self {
            inner: InMemory::new(),
            seed: AtomicU64::new(seed),
            failing: AtomicU64::new(failing),
            hangs: AtomicBool::new(false),
            is_full: AtomicBool::new(false),
            breaks: AtomicBool::new(false),
            writes: AtomicUsize::new(0),
            most_writes: AtomicUsize::new(0),
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
            let path = object.location.as_ref();
            // The probe's, and the marker.
            if path.starts_with("headwater-") {
                continue;
            }
            let key: ObjectKey = path.parse().expect("a key");
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
        assert!(!self.breaks.load(Ordering::Relaxed), "of the store");
        if self.is_full.load(Ordering::Relaxed) {
            return Err(full());
        }
        let writes = self.writes.fetch_add(1, Ordering::Relaxed) + 1;
        self.most_writes.fetch_max(writes, Ordering::Relaxed);
        tokio::time::sleep(Duration::from_millis(self.roll() % 300)).await;
        self.writes.fetch_sub(1, Ordering::Relaxed);
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
async fn a_full_store_fails_though_something_can_be_removed_from_it() {
    let flaky = Arc::new(Flaky::new(1, 0));
    let store = store(&flaky, 1_000_000);
    let writer = broadcast(&store, 1, 12).await;
    assert!(writer.flush(Duration::from_secs(9)).await);
    let before = store.health().borrow().deleted;
    flaky.is_full.store(true, Ordering::Relaxed);
    writer.put(put("v720/13.m4s", "x"));
    tokio::time::sleep(Duration::from_millis(50)).await;
    for _ in 0..100 {
        let health = store.health().borrow().clone();
        assert!(!health.is_well(), "{health:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let health = store.health().borrow().clone();
    assert!(health.deleted > before + 2, "{health:?}");
    flaky.is_full.store(false, Ordering::Relaxed);
    assert!(writer.flush(Duration::from_secs(9)).await);
    assert!(store.health().borrow().is_well());
}

#[tokio::test(start_paused = true)]
async fn segments_of_many_streams_at_once_are_so_many_uploads_and_no_more() {
    let flaky = Arc::new(Flaky::new(1, 0));
    let store = store(&flaky, 1_000_000);
    let mut writers = Vec::new();
    for stream in 0..30 {
        let name: StreamName = format!("s{stream}").parse().expect("a name");
        let mut writer = store.broadcast(name);
        writer.begin();
        for rendition in 0..6 {
            let key = format!("live/s{stream}/v{rendition}/7.m4s");
            writer.put(Put {
                key: key.parse().expect("a key"),
                ..put("v720/7.m4s", vec![0; 1_000])
            });
        }
        writers.push(writer);
    }
    for writer in writers {
        assert!(writer.flush(Duration::from_secs(60)).await);
    }
    let most = flaky.most_writes.load(Ordering::Relaxed);
    assert_eq!(most, MAX_UPLOADS);
    assert_eq!(flaky.inner.list(None).count().await, 30 * 6);
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

async fn store_all(flaky: &Flaky, objects: &[(&str, &str)]) {
    for (path, body) in objects {
        let path = Path::from(format!("live/demo/{path}"));
        let body = PutPayload::from(body.as_bytes().to_vec());
        flaky.inner.put(&path, body).await.expect("stored");
    }
}

/// Of a rendition that there is no more the whole archive is there, and no playlist.
#[tokio::test]
async fn what_is_looked_through_at_a_start_is_near_the_window_whatever_renditions_there_were() {
    let flaky = Arc::new(Flaky::new(1, 0));
    let old: Vec<_> = (101..150).map(|n| format!("v1080/{n}.m4s")).collect();
    let new: Vec<_> = (140..160).map(|n| format!("v720/{n}.m4s")).collect();
    let text = playlist(101, 157);
    let media = old.iter().chain(&new).map(|path| (&**path, "x"));
    let rest = [
        ("v720/index.m3u8", &*text),
        ("v720/init-101.mp4", ""),
        ("v1080/init-101.mp4", ""),
        ("show-101.json", "{}"),
    ];
    store_all(&flaky, &media.chain(rest).collect::<Vec<_>>()).await;
    let bucket = Bucket::new(flaky, true);
    let numbers = async |from: Option<u64>| {
        let from = from.map(SegmentNumber::new);
        let found = super::inventory::take(&bucket, &stream(), from).await;
        let found = found.expect("looked through").0;
        assert!(found.contains(&put("v1080/init-101.mp4", "").key));
        let number = |key: &ObjectKey| match &key.item {
            Item::Segment(rendition, number) => Some((rendition.to_string(), number.get())),
            _ => None,
        };
        found.iter().filter_map(number).collect::<Vec<_>>()
    };
    let v720 = |from: u64| (from..160).map(|n| ("v720".to_owned(), n));
    assert_eq!(numbers(None).await, v720(152).collect::<Vec<_>>());
    let v1080 = (145..150).map(|n| ("v1080".to_owned(), n));
    let both: Vec<_> = v1080.chain(v720(145)).collect();
    assert_eq!(numbers(Some(145)).await, both);
}

/// Folders that nobody made of a rendition.
#[tokio::test]
async fn of_too_many_folders_those_of_the_live_playlist_are_looked_through() {
    let flaky = Arc::new(Flaky::new(1, 0));
    let strange: Vec<_> = (0..200).map(|n| format!("f{n}/103.m4s")).collect();
    let strange = strange.iter().map(|path| (&**path, "x"));
    let text = playlist(101, 103);
    let live = [
        ("index.m3u8", "#EXTM3U\nv720/index.m3u8\n"),
        ("v720/index.m3u8", &*text),
        ("v720/init-101.mp4", ""),
        ("v720/103.m4s", ""),
    ];
    store_all(&flaky, &strange.chain(live).collect::<Vec<_>>()).await;
    let bucket = Bucket::new(flaky, true);
    let found = super::inventory::take(&bucket, &stream(), None).await;
    let (found, named) = found.expect("looked through");
    let folders: BTreeSet<_> = found
        .iter()
        .filter_map(|key| key.item.rendition())
        .collect();
    assert_eq!(folders.len(), 64);
    assert!(found.contains(&put("v720/103.m4s", "").key));
    assert!(named.contains_key(&put("v720/index.m3u8", "").key));
    let rendition = "v720".parse().expect("a name");
    let few = bucket.list_rendition(&stream(), &rendition, None, 2).await;
    assert_eq!(few.expect("listed").len(), 2);
}

/// The first store was away, and has not got everything yet.
#[tokio::test]
async fn of_two_records_of_a_show_the_one_that_goes_further_counts() {
    let record =
        |end: u64, ended: bool| format!("{{\"first\":101,\"end\":{end},\"ended\":{ended}}}");
    for (first, second, newest) in [
        ((120, false), (150, false), 1),
        ((150, false), (120, false), 0),
        ((150, false), (150, true), 1),
        ((150, true), (150, false), 0),
        ((150, false), (120, true), 0),
    ] {
        let texts = [first, second].map(|(end, ended)| record(end, ended));
        let mut stores = Vec::new();
        for text in &texts {
            let flaky = Arc::new(Flaky::new(1, 0));
            store_all(&flaky, &[("show-101.json", text)]).await;
            stores.push(store(&flaky, 1_000_000));
        }
        let second = stores.pop().expect("two");
        let both = stores.pop().expect("two").with_second(second);
        let key = put("show-101.json", "").key;
        let found = both.get(&key).await.expect("read").expect("there");
        assert_eq!(found.to_bytes(), texts[newest], "{texts:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_listed_is_what_any_version_of_a_playlist_lists_stored_or_waiting() {
    let flaky = Arc::new(Flaky::new(1, 0));
    let store = store(&flaky, 1_000_000);
    let writer = broadcast(&store, 1, 8).await;
    assert!(writer.flush(Duration::from_secs(9)).await);
    flaky.failing.store(256, Ordering::Relaxed);
    for number in 9..=20 {
        writer.put(put(&format!("v720/{number}.m4s"), "x"));
        writer.put(put("v720/index.m3u8", playlist(1, number)));
    }
    let rendition = "v720".parse().expect("a name");
    let listed = store.listed(&stream(), &rendition).await.expect("asked");
    let expected = (SegmentNumber::new(3), SegmentNumber::new(20));
    assert_eq!(listed, Some(expected), "3 to 8 are stored");
    for number in 3..=8 {
        let key = put(&format!("v720/{number}.m4s"), "").key;
        assert!(store.is_listed(&key).await.expect("asked"), "{key}");
    }
    let init = put("v720/init-1.mp4", "").key;
    assert!(store.is_listed(&init).await.expect("asked"));
    let gone = put("v720/2.m4s", "").key;
    assert!(!store.is_listed(&gone).await.expect("asked"));
}

#[tokio::test(start_paused = true)]
async fn a_writer_that_breaks_down_is_told_and_the_next_broadcast_has_another() {
    let flaky = Arc::new(Flaky::new(1, 0));
    let store = store(&flaky, 1_000_000);
    flaky.breaks.store(true, Ordering::Relaxed);
    let writer = broadcast(&store, 1, 3).await;
    let health = store.health().borrow().clone();
    assert!(health.is_losing(), "{health:?}");
    assert!(health.to_string().contains("broke down"), "{health}");
    drop(writer);
    flaky.breaks.store(false, Ordering::Relaxed);
    let writer = broadcast(&store, 11, 3).await;
    let left = writer.finish(Duration::from_secs(60)).await;
    assert_eq!(left, Left::default());
    assert!(store.health().borrow().is_well());
    assert!(
        stored_text(&flaky, "v720/index.m3u8")
            .await
            .contains("13.m4s")
    );
}

/// A store that is away when it is opened.
fn away(flaky: &Arc<Flaky>) -> (Store, Bucket) {
    let backend: Arc<dyn ObjectStore> = Arc::<Flaky>::clone(flaky);
    let config = Config {
        url: "s3://elsewhere/copy".to_owned(),
        table: "store.second",
        ..Config::default()
    };
    let bucket = Bucket::new(backend, true).untried(config.clone());
    (Store::with_bucket(bucket.clone(), config, None), bucket)
}

#[tokio::test(start_paused = true)]
async fn a_store_that_was_away_is_tried_when_it_is_back_before_anything_is_written() {
    let flaky = Arc::new(Flaky::new(1, 256));
    let (store, bucket) = away(&flaky);
    let writer = broadcast(&store, 1, 3).await;
    assert!(bucket.conditional().await.is_err());
    assert_eq!(flaky.inner.list(None).count().await, 0);
    flaky.failing.store(0, Ordering::Relaxed);
    let left = writer.finish(Duration::from_secs(60)).await;
    assert_eq!(left, Left::default());
    let found = bucket.conditional().await.expect("tried");
    assert!(matches!(found, Conditional::Enforced { .. }), "{found:?}");
    let marker = Path::from(super::claim::MARKER);
    assert!(flaky.inner.head(&marker).await.is_ok());
    assert!(
        stored_text(&flaky, "v720/index.m3u8")
            .await
            .contains("3.m4s")
    );
}

#[tokio::test(start_paused = true)]
async fn a_store_that_was_away_and_is_another_programs_is_left_as_it_is() {
    let flaky = Arc::new(Flaky::new(1, 0));
    let foreign = Path::from("live/demo/v720/1.m4s");
    let body = PutPayload::from_static(b"theirs");
    flaky.inner.put(&foreign, body).await.expect("stored");
    let (store, _) = away(&flaky);
    let writer = broadcast(&store, 1, 3).await;
    let left = writer.finish(Duration::from_secs(60)).await;
    assert!(left.objects > 0);
    let health = store.health().borrow().to_string();
    for told in ["store.second.url: s3://elsewhere/copy", "1.m4s"] {
        assert!(health.contains(told), "{health}");
    }
    let found = flaky.inner.get(&foreign).await.expect("there");
    assert_eq!(found.bytes().await.expect("read"), "theirs");
    assert_eq!(flaky.inner.list(None).count().await, 1);
}

#[tokio::test(start_paused = true)]
async fn a_stream_drains_until_what_waits_is_stored_and_its_writer_says_so() {
    let flaky = Arc::new(Flaky::new(1, 0));
    flaky.hangs.store(true, Ordering::Relaxed);
    let hung = store(&flaky, 1_000_000);
    assert!(!hung.is_draining(&stream()));
    let writer = hung.broadcast(stream());
    let why = "nobody knows yet what was left";
    assert!(hung.is_draining(&stream()), "{why}");
    drop(writer);
    let flaky = Arc::new(Flaky::new(1, 0));
    let store = store(&flaky, 1_000_000);
    let writer = broadcast(&store, 1, 3).await;
    flaky.failing.store(256, Ordering::Relaxed);
    writer.put(put("v720/4.m4s", "x"));
    let left = writer.finish(Duration::from_secs(1)).await;
    assert!(left.objects > 0 && store.is_draining(&stream()));
    let drained = tokio::spawn({
        let store = store.clone();
        async move { store.drained(&stream()).await }
    });
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(!drained.is_finished());
    flaky.failing.store(0, Ordering::Relaxed);
    drained.await.expect("drained");
    assert!(!store.is_draining(&stream()));
    stored_text(&flaky, "v720/4.m4s").await;
}

//! What looking after recordings asks of a store, and what it survives.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::stream::BoxStream;
use futures_util::{FutureExt as _, StreamExt as _};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, ObjectStoreExt as _, PutMultipartOptions, PutOptions, PutPayload, PutResult,
    Result,
};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::sweep::{self, Busy, Due};
use super::{Library, MAX_BYTES, Upkeep};
use crate::app::clock::wall_now;
use crate::id::{SegmentNumber, StreamName};
use crate::media::{Item, ObjectKey};
use crate::serve::shows::Page;
use crate::serve::stretch::Asked;
use crate::store::{Keep, Store};
use crate::time::WallTime;

/// Counts what it is asked, and panics at what it is told to, fails, or never answers.
#[derive(Debug, Default)]
pub(super) struct Counting {
    pub(super) inner: InMemory,
    pub(super) requests: AtomicU64,
    pub(super) listed: Arc<AtomicU64>,
    pub(super) is_trap: AtomicBool,
    /// After how many requests one fails, if that is not none.
    pub(super) fails_after: AtomicU64,
    /// What takes how long: "put" or "get" of objects whose names end so.
    pub(super) slow: Option<(String, Duration)>,
    /// What hangs, as "list" of a folder, "put" or "get" of an object, and whether that is over.
    pub(super) hung: Option<(String, watch::Receiver<bool>)>,
}

impl fmt::Display for Counting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("counting")
    }
}

impl Counting {
    /// Has the request after so many more fail, and no other one.
    pub(super) fn fail_after(&self, requests: u64) {
        self.fails_after.store(requests + 1, Ordering::Relaxed);
    }

    /// Has none fail. Whether one was still to.
    pub(super) fn fail_no_more(&self) -> bool {
        self.fails_after.swap(0, Ordering::Relaxed) > 0
    }

    fn fail(&self) -> Result<()> {
        let before = self.fails_after.load(Ordering::Relaxed);
        self.fails_after
            .store(before.saturating_sub(1), Ordering::Relaxed);
        let failed = || Error::Generic {
            store: "counting",
            source: std::io::Error::from(std::io::ErrorKind::TimedOut).into(),
        };
        if before == 1 { Err(failed()) } else { Ok(()) }
    }

    fn count(&self, at: &Path) {
        self.requests.fetch_add(1, Ordering::Relaxed);
        let is_trap = self.is_trap.load(Ordering::Relaxed);
        assert!(!(is_trap && at.as_ref().contains("/bad/")), "a trap");
    }

    /// Waits, of what hangs, until that is over.
    async fn hang(&self, verb: &str, at: &str) {
        if let Some((what, time)) = &self.slow
            && what
                .strip_prefix(verb)
                .is_some_and(|end| at.ends_with(end.trim_start()))
        {
            tokio::time::sleep(*time).await;
        }
        if let Some((what, mut hung)) = self.hung.clone()
            && what.strip_prefix(verb).map(str::trim_start) == Some(at)
        {
            let _ = hung.wait_for(|is_over| *is_over).await;
        }
    }

    /// Requests and listed objects since the last call.
    fn take(&self) -> (u64, u64) {
        let listed = self.listed.swap(0, Ordering::Relaxed);
        (self.requests.swap(0, Ordering::Relaxed), listed)
    }
}

#[async_trait::async_trait]
impl ObjectStore for Counting {
    async fn put_opts(
        &self,
        at: &Path,
        body: PutPayload,
        options: PutOptions,
    ) -> Result<PutResult> {
        self.count(at);
        self.hang("put", at.as_ref()).await;
        self.fail()?;
        self.inner.put_opts(at, body, options).await
    }

    async fn put_multipart_opts(
        &self,
        at: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(at, options).await
    }

    async fn get_opts(&self, at: &Path, options: GetOptions) -> Result<GetResult> {
        self.count(at);
        self.hang("get", at.as_ref()).await;
        self.fail()?;
        self.inner.get_opts(at, options).await
    }

    fn delete_stream(
        &self,
        at: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        self.requests.fetch_add(1, Ordering::Relaxed);
        match self.fail() {
            Ok(()) => self.inner.delete_stream(at),
            Err(error) => futures_util::stream::iter([Err(error)]).boxed(),
        }
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.requests.fetch_add(1, Ordering::Relaxed);
        let listed = Arc::clone(&self.listed);
        let count = move |_: &_| {
            listed.fetch_add(1, Ordering::Relaxed);
        };
        self.inner.list(prefix).inspect(count).boxed()
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        self.requests.fetch_add(1, Ordering::Relaxed);
        let listed = Arc::clone(&self.listed);
        let count = move |_: &_| {
            listed.fetch_add(1, Ordering::Relaxed);
        };
        let all = self.inner.list_with_offset(prefix, offset);
        all.inspect(count).boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.hang("list", prefix.map_or("", AsRef::as_ref)).await;
        self.fail()?;
        let found = self.inner.list_with_delimiter(prefix).await?;
        let count = found.objects.len() + found.common_prefixes.len();
        self.listed.fetch_add(count as u64, Ordering::Relaxed);
        Ok(found)
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}

pub(super) fn open(backend: &Arc<Counting>) -> Store {
    let backend: Arc<dyn ObjectStore> = Arc::<Counting>::clone(backend);
    Store::on(backend)
}

pub(super) async fn put(backend: &Counting, key: String, body: String) {
    let at = Path::from(key);
    backend.inner.put(&at, body.into()).await.expect("stored");
}

/// Waits until what was read is on its shelf, or has found no room there.
async fn settled(is_so: impl Fn() -> bool) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
    while !is_so() {
        assert!(tokio::time::Instant::now() < deadline, "never settled");
        tokio::task::yield_now().await;
    }
}

const RENDITIONS: [&str; 4] = ["a128", "v1080", "v360", "v720"];

/// The record and the segments of a show; the record knows all but the last `behind` of them.
pub(super) async fn fill(
    backend: &Counting,
    stream: &str,
    numbers: Range<u64>,
    behind: u64,
    ended: bool,
) {
    let Range { start: first, end } = numbers;
    let known = end - behind;
    let tracks = RENDITIONS.map(|name| {
        format!(
            "{{\"name\":\"{name}\",\"video\":true,\"codecs\":\"avc1\",\"timescale\":90000,\"frame\":[1,30],\
             \"peak_bps\":1,\"average_bps\":1,\"stored\":[[{first},{known}]]}}"
        )
    });
    let record = format!(
        "{{\"format\":\"headwater-show\",\"version\":1,\"first\":{first},\"from\":{first},\"end\":{known},\
         \"swept\":{first},\"begins\":\"\",\"ends\":\"\",\"ended\":{ended},\"segment_ms\":2000,\
         \"target_duration\":2,\"independent\":true,\"periods\":[{{\"period\":{first},\"first\":{first},\
         \"renditions\":[{}]}}]}}",
        tracks.join(",")
    );
    put(backend, format!("live/{stream}/show-{first}.json"), record).await;
    for name in RENDITIONS {
        let init = format!("live/{stream}/{name}/init-{first}.mp4");
        put(backend, init, String::new()).await;
        for number in first..end {
            let segment = Path::from(format!("live/{stream}/{name}/{number}.m4s"));
            let body = PutPayload::from(Bytes::from_static(b"x"));
            backend.inner.put(&segment, body).await.expect("stored");
        }
    }
}

pub(super) fn now_number() -> u64 {
    u64::try_from(wall_now().as_micros()).expect("after 1970") / 2_000_000
}

fn demo() -> StreamName {
    "demo".parse().expect("a name")
}

/// What each task asks of a store that holds shows of `length` segments: requests, and what listings returned.
async fn asked(length: u64) -> Vec<(&'static str, (u64, u64))> {
    let backend = Arc::new(Counting::default());
    let first = now_number() - 100_000;
    for show in 0..3 {
        let from = first + show * (length + 10);
        let ended = show < 2;
        let behind = if ended { 0 } else { 2 };
        fill(&backend, "demo", from..from + length, behind, ended).await;
    }
    let store = open(&backend);
    let last = first + 2 * (length + 10);
    let mut found = Vec::new();
    let look = async |keep, live| {
        let mut due = Due::new();
        let stream = demo();
        let draining = false;
        let busy = Busy { live, draining };
        let is_busy = || busy;
        let looked = sweep::look_after(&store, keep, (&stream, &is_busy), &mut due);
        looked.await.expect("the store works");
    };
    look(Keep::Forever, true).await;
    found.push(("a look at what is live", backend.take()));
    let next = SegmentNumber::new(last + length + 5);
    sweep::last_open(&store, &demo(), next, true).await;
    found.push(("a broadcast that goes on after a crash", backend.take()));
    let library = Library::new(store.clone(), MAX_BYTES);
    let start = WallTime::from_micros(i64::try_from((last + 3) * 2_000_000).expect("fits"));
    let asked = Asked { start, end: None };
    let key = ObjectKey::new(demo(), Item::Multivariant);
    library.clip(&key, Some(asked)).await.expect("kept");
    found.push(("a stretch", backend.take()));
    look(Keep::Forever, false).await;
    found.push(("closing what broke off", backend.take()));
    look(Keep::For(Duration::from_secs(1)), false).await;
    let (deleting, listed) = backend.take();
    // So many at a look, of each of three shows, and three playlists of each rendition that is not there.
    assert!(deleting <= 3 * (50 * (1 + 200 * 4) + 100), "{deleting}");
    found.push(("removing, its listings", (0, listed)));
    found
}

#[tokio::test]
async fn what_is_asked_of_a_store_does_not_grow_with_what_it_holds() {
    let small = asked(1_000).await;
    let large = asked(12_000).await;
    assert_eq!(small, large);
    for (what, (requests, listed)) in large {
        assert!(requests < 400 && listed < 40, "{what}: {requests} {listed}");
    }
}

#[test]
fn who_asks_for_a_stretch_holds_up_no_thread_that_answers() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .max_blocking_threads(1)
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let backend = Arc::new(Counting::default());
        let first = now_number() - 5_000;
        fill(&backend, "demo", first..first + 1_000, 0, true).await;
        let library = Library::new(open(&backend), MAX_BYTES);
        let playlist = |name: &str| {
            let name = name.parse().expect("a name");
            ObjectKey::new(demo(), Item::ShowMedia(name, SegmentNumber::new(first)))
        };
        let key = playlist("v720");
        library.clip(&playlist("v360"), None).await.expect("kept");
        // All that it is made of is in memory: what is left is to write it, on a thread that somebody else has now.
        let (go_on, wait) = std::sync::mpsc::channel();
        let other = tokio::task::spawn_blocking(move || wait.recv());
        let mut again = std::pin::pin!(library.clip(&key, None));
        assert!((&mut again).now_or_never().is_none());
        go_on.send(()).expect("waited for");
        other.await.expect("ended").expect("told");
        let text = again.await.expect("kept").document.text().to_vec();
        let text = String::from_utf8(text).expect("text");
        assert_eq!(text.matches(".m4s").count(), 1_000);
    });
}

#[tokio::test]
async fn a_page_of_shows_is_read_once_though_their_records_have_no_room() {
    let backend = Arc::new(Counting::default());
    let first = now_number() - 100_000;
    for show in 0..100 {
        let from = first + show * 10;
        fill(&backend, "demo", from..from + 2, 0, true).await;
    }
    // Of the records a few stay.
    let library = Library::new(open(&backend), 16 * 1024);
    let page = Page {
        before: None,
        limit: 100,
    };
    let list = async || library.list(&demo(), page).await.expect("the store works");
    assert_eq!(list().await.shows.len(), 100);
    let (requests, _) = backend.take();
    assert!(requests > 100, "{requests}");
    settled(|| library.shelf.bytes() <= 4 * 1024).await;
    assert_eq!(list().await.shows.len(), 100);
    let (requests, _) = backend.take();
    assert!(requests <= 1, "{requests}");
}

/// Lets viewers go back four hours in the broadcast of `stream` whose show, of 2,000 segments, begins with `first`, and
/// lists the last segment.
async fn let_go_back(backend: &Counting, stream: &str, first: u64, names: &[&str]) {
    let record = format!("live/{stream}/show-{first}.json");
    let text = backend.inner.get(&Path::from(record.clone())).await;
    let text = text.expect("there").bytes().await.expect("read");
    let text = String::from_utf8(text.to_vec()).expect("text");
    let text = text.replace("\"segment_ms\"", "\"dvr_ms\":7200000,\"segment_ms\"");
    put(backend, record, text).await;
    let last = first + 1_999;
    for name in names {
        let live = format!("#EXTM3U\n#EXT-X-MEDIA-SEQUENCE:{last}\n#EXTINF:2,\n{last}.m4s\n");
        put(backend, format!("live/{stream}/{name}/index.m3u8"), live).await;
    }
}

#[tokio::test]
async fn a_playlist_that_reaches_too_far_back_for_memory_pushes_no_record_out() {
    let backend = Arc::new(Counting::default());
    let now = now_number();
    fill(&backend, "demo", now - 2_000..now, 0, false).await;
    let record = ObjectKey::new(demo(), Item::Show(SegmentNumber::new(now - 2_000)));
    let_go_back(&backend, "demo", now - 2_000, &["v720"]).await;
    let library = Library::new(open(&backend), 64 * 1024);
    let key: ObjectKey = "live/demo/v720/dvr.m3u8".parse().expect("a key");
    let begun = Instant::now();
    let clip = library.clip(&key, None).await.expect("made");
    let lines = String::from_utf8_lossy(clip.document.text()).into_owned();
    assert_eq!(lines.matches(".m4s").count(), 2_000);
    // What goes for it goes in a task of its own.
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    let kept = library.shelf.snapshot();
    assert!(kept.iter().any(|(key, _)| *key == record), "{kept:?}");
    // It is not made anew for each who asks, nor kept for long.
    for _ in 0..50 {
        library.clip(&key, None).await.expect("made");
    }
    let made = library.reaching.counts().1;
    let half_seconds = begun.elapsed().as_millis() / 500;
    assert!(u128::from(made) <= 1 + half_seconds, "{made}");
    settled(|| library.reaching.bytes() == 0).await;
}

#[tokio::test(start_paused = true)]
async fn a_record_does_not_wait_for_playlists_that_reach_back_to_be_written() {
    let backend = Arc::new(Counting::default());
    let first = now_number() - 2_000;
    let streams: Vec<_> = (0..20).map(|index| format!("s{index}")).collect();
    for stream in &streams {
        fill(&backend, stream, first..first + 2_000, 0, false).await;
        let_go_back(&backend, stream, first, &["v720"]).await;
    }
    let library = Library::new(open(&backend), MAX_BYTES);
    let all = u32::try_from(library.renderings.available_permits()).expect("few");
    let places = library.renderings.acquire_many(all).await.expect("open");
    let ask = async |stream: &String| {
        let key = format!("live/{stream}/v720/dvr.m3u8");
        let key = key.parse().expect("a key");
        library.clip(&key, None).await.expect("made")
    };
    let mut playlists = std::pin::pin!(futures_util::future::join_all(streams.iter().map(ask)));
    let patience = Duration::from_secs(30);
    let waited = tokio::time::timeout(patience, &mut playlists).await;
    assert!(waited.is_err(), "no place to write them");
    fill(&backend, "demo", first..first + 2, 0, true).await;
    let newest = tokio::time::timeout(patience, library.newest(&demo())).await;
    assert!(newest.expect("in time").expect("read").is_some());
    drop(places);
    assert_eq!(playlists.await.len(), streams.len());
}

#[tokio::test]
async fn a_stretch_is_rendered_once_for_all_who_ask_for_it() {
    let backend = Arc::new(Counting::default());
    let first = now_number() - 5_000;
    fill(&backend, "demo", first..first + 1_000, 0, true).await;
    let library = Library::new(open(&backend), MAX_BYTES);
    let second = |number: u64| {
        let micros = i64::try_from(number * 2_000_000).expect("fits");
        WallTime::from_micros(micros)
    };
    let asked = |end: u64| Asked {
        start: second(first + 10),
        end: Some(second(first + end)),
    };
    let show = Item::ShowMpd(SegmentNumber::new(first));
    for (item, asked) in [
        (Item::Mpd, Some(asked(20))),
        (Item::Mpd, Some(asked(30))),
        (show, None),
    ] {
        let key = ObjectKey::new(demo(), item);
        let all = (0..100).map(|_| library.clip(&key, asked));
        let all = futures_util::future::join_all(all).await;
        let all: Vec<_> = all.into_iter().map(|clip| clip.expect("kept")).collect();
        let one = &all[0].document;
        assert!(all.iter().all(|clip| Arc::ptr_eq(&clip.document, one)));
    }
    assert_eq!(library.clips.counts(), (3 * 99, 3));
}

/// Looks after what `backend` keeps for as long as `keep` says, until it is told to stop.
fn look_after(
    backend: &Arc<Counting>,
    keep: Keep,
) -> (Arc<Upkeep>, watch::Sender<bool>, JoinHandle<()>) {
    look_after_while(backend, keep, |_| false)
}

/// The same while `is_live` says of which streams broadcasts go on.
fn look_after_while(
    backend: &Arc<Counting>,
    keep: Keep,
    is_live: impl Fn(&StreamName) -> bool + Send + Sync + 'static,
) -> (Arc<Upkeep>, watch::Sender<bool>, JoinHandle<()>) {
    let upkeep = Arc::new(Upkeep::default());
    let (stop, stopped) = watch::channel(false);
    let task = Arc::clone(&upkeep).run((open(backend), keep), is_live, stopped);
    (upkeep, stop, tokio::spawn(task))
}

#[tokio::test]
async fn what_breaks_one_streams_turn_is_reported_and_does_not_reach_the_others() {
    let backend = Arc::new(Counting::default());
    backend.is_trap.store(true, Ordering::Relaxed);
    let first = now_number() - 5_000;
    for stream in ["aaa", "bad", "zzz"] {
        fill(&backend, stream, first..first + 5, 0, true).await;
    }
    let (upkeep, stop, task) = look_after(&backend, Keep::For(Duration::from_secs(10)));
    let record = |stream: &str| Path::from(format!("live/{stream}/show-{first}.json"));
    // The last stream is looked after, though the one before it broke down.
    let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
    while backend.inner.head(&record("zzz")).await.is_ok() {
        assert!(tokio::time::Instant::now() < deadline, "never removed");
        tokio::task::yield_now().await;
    }
    assert!(backend.inner.head(&record("aaa")).await.is_err());
    assert!(backend.inner.head(&record("bad")).await.is_ok());
    let trouble = upkeep.trouble().expect("told");
    assert!(
        trouble.contains("the recordings of bad are not looked after"),
        "{trouble}"
    );
    assert!(!task.is_finished());
    stop.send_replace(true);
    task.await.expect("ended as it was told");
}

#[tokio::test(start_paused = true)]
async fn a_folder_that_hangs_is_reported_and_the_other_streams_are_looked_after() {
    let (go_on, hung) = watch::channel(false);
    let backend = Arc::new(Counting {
        hung: Some(("list live/bad".to_owned(), hung)),
        ..Counting::default()
    });
    let first = now_number() - 5_000;
    for stream in ["aaa", "bad", "zzz"] {
        fill(&backend, stream, first..first + 5, 0, true).await;
    }
    let (upkeep, stop, task) = look_after(&backend, Keep::For(Duration::from_secs(10)));
    let record = |stream: &str| Path::from(format!("live/{stream}/show-{first}.json"));
    let is_there = async |stream: &str| backend.inner.head(&record(stream)).await.is_ok();
    // On a clock that runs by itself while everybody waits.
    let until = async |what: &str, is_so: &dyn Fn() -> bool, stream: &str| {
        let deadline = tokio::time::Instant::now() + Duration::from_secs(3_600);
        while !is_so() || is_there(stream).await {
            assert!(tokio::time::Instant::now() < deadline, "{what}");
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    };
    until("never removed", &|| true, "zzz").await;
    let trouble = upkeep.trouble().expect("told");
    assert!(
        trouble.contains("the recordings of bad does not come to an end"),
        "{trouble}"
    );
    // It is begun once, however often the others have their turn.
    tokio::time::sleep(Duration::from_secs(3_600)).await;
    fill(&backend, "zzz", first..first + 5, 0, true).await;
    until("the next turn", &|| true, "zzz").await;
    assert!(is_there("bad").await);
    go_on.send_replace(true);
    until("it goes on", &|| upkeep.trouble().is_none(), "bad").await;
    stop.send_replace(true);
    task.await.expect("ended as it was told");
}

#[tokio::test(start_paused = true)]
async fn a_store_that_does_not_say_what_streams_there_are_is_reported_until_it_does() {
    let (go_on, hung) = watch::channel(false);
    let backend = Arc::new(Counting {
        hung: Some(("list live".to_owned(), hung)),
        ..Counting::default()
    });
    let (upkeep, stop, task) = look_after(&backend, Keep::Forever);
    tokio::time::sleep(Duration::from_secs(3_600)).await;
    let trouble = upkeep.trouble().expect("told");
    assert!(trouble.contains("store.url does not say"), "{trouble}");
    assert_eq!(backend.take().0, 1, "asked once");
    go_on.send_replace(true);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(upkeep.trouble(), None);
    stop.send_replace(true);
    task.await.expect("ended as it was told");
}

/// A store that hangs over `what`, and has a show of fifty segments of the stream `demo`.
async fn hanging(what: String, behind: u64, ended: bool) -> (Arc<Counting>, watch::Sender<bool>) {
    let (go_on, hung) = watch::channel(false);
    let backend = Arc::new(Counting {
        hung: Some((what, hung)),
        ..Counting::default()
    });
    fill(&backend, "demo", OLD..OLD + 50, behind, ended).await;
    (backend, go_on)
}

/// The first segment of a show of long ago.
const OLD: u64 = 800_000_000;
const A_WHILE: Duration = Duration::from_secs(1_800);

/// Which segments of the best pictures are there of `numbers`.
async fn there(backend: &Counting, numbers: Range<u64>) -> Vec<u64> {
    let mut found = Vec::new();
    for number in numbers {
        let segment = Path::from(format!("live/demo/v1080/{number}.m4s"));
        if backend.inner.head(&segment).await.is_ok() {
            found.push(number);
        }
    }
    found
}

#[tokio::test(start_paused = true)]
async fn what_a_live_playlist_has_come_to_name_while_a_turn_hung_is_not_removed() {
    let what = format!("put live/demo/show-{OLD}.json");
    let (backend, go_on) = hanging(what, 0, true).await;
    let (upkeep, stop, task) = look_after(&backend, Keep::For(Duration::from_secs(10)));
    tokio::time::sleep(A_WHILE).await;
    assert!(upkeep.trouble().is_some(), "it hangs");
    // On another node a broadcast has gone on with what was there.
    let listed: String = (OLD + 20..OLD + 26)
        .map(|number| format!("#EXTINF:2,\n{number}.m4s\n"))
        .collect();
    let text = format!("#EXTM3U\n#EXT-X-MAP:URI=\"init-{OLD}.mp4\"\n{listed}");
    put(&backend, "live/demo/v1080/index.m3u8".to_owned(), text).await;
    go_on.send_replace(true);
    tokio::time::sleep(A_WHILE).await;
    let left = there(&backend, OLD..OLD + 50).await;
    assert_eq!(left, (OLD + 20..OLD + 50).collect::<Vec<_>>());
    stop.send_replace(true);
    task.await.expect("ended as it was told");
}

#[tokio::test(start_paused = true)]
async fn a_broadcast_that_has_begun_while_a_turn_hung_is_not_touched() {
    let what = format!("put live/demo/show-{OLD}.json");
    let (backend, go_on) = hanging(what, 0, true).await;
    let live = Arc::new(AtomicBool::default());
    let is_live = Arc::clone(&live);
    let (_, stop, task) = look_after_while(&backend, Keep::For(Duration::from_secs(10)), {
        move |_| is_live.load(Ordering::Relaxed)
    });
    tokio::time::sleep(A_WHILE).await;
    live.store(true, Ordering::Relaxed);
    go_on.send_replace(true);
    tokio::time::sleep(A_WHILE).await;
    assert_eq!(there(&backend, OLD..OLD + 50).await.len(), 50);
    live.store(false, Ordering::Relaxed);
    tokio::time::sleep(A_WHILE).await;
    assert_eq!(there(&backend, OLD..OLD + 50).await.len(), 0);
    stop.send_replace(true);
    task.await.expect("ended as it was told");
}

#[tokio::test(start_paused = true)]
async fn a_show_that_was_gone_on_with_while_a_turn_hung_is_not_closed_as_it_was() {
    let what = format!("get live/demo/v720/{}.m4s", OLD + 48);
    let (backend, go_on) = hanging(what, 2, false).await;
    let (_, stop, task) = look_after(&backend, Keep::Forever);
    tokio::time::sleep(A_WHILE).await;
    let record = Path::from(format!("live/demo/show-{OLD}.json"));
    let read = async || {
        let found = backend.inner.get(&record).await.expect("there");
        String::from_utf8(found.bytes().await.expect("read").to_vec()).expect("text")
    };
    assert!(read().await.contains("\"ended\":false"));
    // A broadcast has resumed it and come to its end.
    fill(&backend, "demo", OLD..OLD + 90, 0, true).await;
    let whole = read().await;
    go_on.send_replace(true);
    tokio::time::sleep(A_WHILE).await;
    assert_eq!(read().await, whole);
    stop.send_replace(true);
    task.await.expect("ended as it was told");
}

//! Low latency over real sockets: a real packager at a scripted pace, a real origin, requests that wait.
//!
//! Enters: invented samples of pictures and sound, pushed as far as each test says
//! Leaves: every rule of blocking, hinting, skipping and growing as a row or a test
//! Never:  media files, the product's own wiring
//! Time:   the epoch timeline for media; the machine's clock only where waiting itself is tested
//! Spec:   [HLS] §6.2.5, §6.2.6, [DASH] §5.3.9.5

use std::collections::HashMap;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::sync::{Arc, RwLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, join_all};
use headwater::codec::video::{Colour, Dimensions, PixelAspect};
use headwater::codec::{aac, h264};
use headwater::id::{PeriodId, StreamName};
use headwater::media::{CodecConfig, ObjectKey, Payload, Rendition, Sample};
use headwater::package::{Config, Output, Packager, Snapshot, hls};
use headwater::serve::blocking::Edge;
use headwater::serve::{
    self, Assets, Document, Found, Live, Object, Origin, Server, StoreFailed, Stored, Version,
};
use headwater::time::{FrameRate, Span, Ticks, Timescale, WallTime};
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;

const PATIENCE: Duration = Duration::from_secs(20);
/// How long a request is watched that must not be answered.
const MOMENT: Duration = Duration::from_millis(150);
const FIRST: u64 = 897_600_000;
const VIDEO: &str = "live/demo/v720";
const SOUND: &str = "live/demo/a128";

/// What is published, as the server's wiring keeps it.
#[derive(Default)]
struct Published {
    objects: RwLock<HashMap<String, Arc<Object>>>,
    feeds: RwLock<HashMap<String, watch::Sender<Arc<Live>>>>,
}

impl Published {
    fn put(&self, path: String, payload: Payload) {
        let object = Arc::new(Object::new(payload));
        self.objects.write().expect("lock").insert(path, object);
    }

    fn bytes(&self, path: &str) -> Vec<u8> {
        let objects = self.objects.read().expect("lock");
        objects.get(path).expect("there").body().to_bytes().to_vec()
    }

    fn edge(&self, folder: &str) -> (u64, u32) {
        let feeds = self.feeds.read().expect("lock");
        let live = feeds[&format!("{folder}/index.m3u8")].borrow().clone();
        let edge = live.newest().edge().expect("live");
        (edge.segment.get(), edge.part.get())
    }

    fn forget(&self) {
        self.objects.write().expect("lock").clear();
        self.feeds.write().expect("lock").clear();
    }
}

impl Origin for Published {
    fn manifest(&self, key: &ObjectKey) -> Found {
        let feeds = self.feeds.read().expect("lock");
        let feed = feeds.get(&key.to_string());
        feed.map_or(Found::Missing, |feed| Found::Live(feed.subscribe()))
    }

    fn object(&self, key: &ObjectKey) -> Option<Arc<Object>> {
        let objects = self.objects.read().expect("lock");
        objects.get(&key.to_string()).cloned()
    }

    fn stored<'a>(
        &'a self,
        _: &'a ObjectKey,
    ) -> BoxFuture<'a, Result<Option<Stored>, StoreFailed>> {
        async { Ok(None) }.boxed()
    }

    fn streams(&self) -> Bytes {
        Bytes::new()
    }

    fn stream(&self, _: &StreamName) -> Option<Bytes> {
        None
    }

    fn server(&self) -> Bytes {
        Bytes::new()
    }

    fn metrics(&self) -> Bytes {
        Bytes::new()
    }

    fn ready(&self) -> Result<String, String> {
        Ok("ready".to_owned())
    }

    fn now(&self) -> WallTime {
        WallTime::from_micros(0)
    }
}

fn renditions() -> Vec<Rendition> {
    let avcc = [
        1, 0x64, 0, 0x1f, 0xff, 0xe1, 0, 4, 0x67, 0x64, 0, 0x1f, 1, 0, 4, 0x68, 0xee, 0x3c, 0x80,
        0xfd, 0xf8, 0xf8, 0,
    ];
    let video = Rendition {
        name: "v720".parse().expect("valid"),
        timescale: Timescale::VIDEO_90K,
        codec: CodecConfig::H264(h264::Config {
            avcc: avcc.to_vec().into(),
            profile: 0x64,
            compatibility: 0,
            level: 0x1f,
            dimensions: Dimensions {
                width: 1_280,
                height: 720,
            },
            pixel_aspect: PixelAspect::SQUARE,
            colour: Colour {
                primaries: 1,
                transfer: 1,
                matrix: 1,
                full_range: false,
            },
            declared_rate: None,
        }),
        frame_rate: FrameRate::new(30, 1),
        target_bps: 3_000_000,
    };
    let sound = Rendition {
        name: "a128".parse().expect("valid"),
        timescale: Timescale::new(48_000).expect("not zero"),
        codec: CodecConfig::Aac(aac::Config {
            asc: vec![0x11, 0x90].into(),
            object_type: 2,
            sample_rate: 48_000,
            channels: 2,
            frame_samples: 1_024,
        }),
        frame_rate: None,
        target_bps: 128_000,
    };
    vec![video, sound]
}

/// A broadcast at the pace of the test.
struct Broadcast {
    packager: Option<Packager>,
    renditions: Vec<Rendition>,
    next: Vec<u64>,
    published: Arc<Published>,
    segment_ms: u64,
    /// How far it has come.
    ms: u64,
}

impl Broadcast {
    fn begin(config: &Config) -> Self {
        let renditions = renditions();
        let segment_ms = u64::from(config.segment_ms.get());
        let packager = Packager::new(config, PeriodId::new(FIRST), renditions.clone());
        let first = FIRST * segment_ms;
        Self {
            packager: Some(packager.expect("valid")),
            next: vec![(first * 30).div_ceil(1_000), (first * 48).div_ceil(1_024)],
            renditions,
            published: Arc::default(),
            segment_ms,
            ms: 0,
        }
    }

    /// Pushes everything that begins before `ms` milliseconds of the broadcast.
    fn run_to(&mut self, ms: u64) {
        while self.ms < ms {
            self.ms = ms.min(self.ms + 50);
            self.push_all();
        }
    }

    fn push_all(&mut self) {
        let end = FIRST * self.segment_ms + self.ms;
        for index in 0..self.renditions.len() {
            let (length, scale) = [(3_000, 90_000), (1_024, 48_000)][index];
            while self.next[index] * length * 1_000 < end * scale {
                let slot = self.next[index];
                self.next[index] += 1;
                let starts = (slot * length * 1_000 / scale) % self.segment_ms;
                let at = Ticks::new(i64::try_from(slot * length).expect("fits"));
                let sample = Sample {
                    dts: at,
                    pts: at,
                    duration: Span::new(length),
                    keyframe: index == 1 || starts * scale < length * 1_000,
                    data: slot
                        .to_be_bytes()
                        .repeat(if index == 0 { 900 } else { 40 })
                        .into(),
                };
                let packager = self.packager.as_mut().expect("not ended");
                packager.push(index, sample).expect("accepted");
                while let Some(output) = self.packager.as_mut().expect("there").poll_output() {
                    self.publish(output);
                }
            }
        }
    }

    fn end(&mut self) {
        let packager = self.packager.take().expect("not ended");
        for output in packager.finish().expect("finished") {
            self.publish(output);
        }
    }

    fn publish(&self, output: Output) {
        let folder = |index: usize| format!("live/demo/{}", self.renditions[index].name);
        match output {
            Output::InitSegment {
                rendition,
                period,
                payload,
            } => {
                let path = format!("{}/init-{period}.mp4", folder(rendition));
                self.published.put(path, payload);
            }
            Output::Part {
                rendition,
                segment,
                part,
                payload,
                ..
            } => {
                let path = format!("{}/{segment}.{part}.m4s", folder(rendition));
                self.published.put(path, payload);
            }
            Output::Segment {
                rendition,
                segment,
                payload,
                ..
            } => {
                let path = format!("{}/{segment}.m4s", folder(rendition));
                self.published.put(path, payload);
            }
            Output::WindowChanged(snapshot) => self.publish_playlists(&snapshot),
            _ => {}
        }
    }

    fn publish_playlists(&self, snapshot: &Snapshot) {
        let mut feeds = self.published.feeds.write().expect("lock");
        for (index, rendition) in self.renditions.iter().enumerate() {
            let path = format!("live/demo/{}/index.m3u8", rendition.name);
            let Some(text) = hls::media::render(snapshot, index) else {
                continue;
            };
            let item = path.parse::<ObjectKey>().expect("a key").item;
            let manifest = |text: String| Arc::new(Document::manifest(&item, text.into()));
            let version = match snapshot.next_part(index) {
                Some((segment, part)) if snapshot.presentation().config.low_latency.is_on() => {
                    let presentation = snapshot.presentation();
                    let last = snapshot.segments(index).next_back().expect("one");
                    let edge = Edge {
                        segment,
                        part,
                        last_parts: u32::try_from(last.parts.len()).expect("few"),
                        target_duration: Duration::from_secs(presentation.target_duration_s.into()),
                        part_target: Duration::from_micros(presentation.part_target.as_micros()),
                    };
                    let delta = hls::media::render_delta(snapshot, index).map(&manifest);
                    Version::low_latency(manifest(text), delta, edge)
                }
                _ => Version::plain(manifest(text)),
            };
            match feeds.get(&path) {
                Some(feed) => {
                    feed.send_if_modified(|live| {
                        let (next, moved) = live.followed_by(version);
                        *live = Arc::new(next);
                        moved
                    });
                }
                None => {
                    let live = Arc::new(Live::new(version));
                    feeds.insert(path, watch::Sender::new(live));
                }
            }
        }
    }
}

struct Running {
    address: SocketAddr,
    metrics: Arc<serve::Metrics>,
    _stop: oneshot::Sender<()>,
}

fn start(published: &Arc<Published>) -> Running {
    let server = Server::bind(serve::Config {
        listen: SocketAddr::from(([127, 0, 0, 1], 0)),
        ..serve::Config::default()
    })
    .expect("a free port");
    let (address, metrics) = (server.local_addr(), server.metrics());
    let (stop, stopped) = oneshot::channel();
    let origin = Arc::clone(published);
    tokio::spawn(server.run(origin, Assets::new(&[]), stopped.map(|_: Result<(), _>| ())));
    Running {
        address,
        metrics,
        _stop: stop,
    }
}

#[derive(Debug, PartialEq)]
struct Answer {
    status: u16,
    head: String,
    body: Vec<u8>,
}

impl Answer {
    fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines
            .find(|(key, _)| key.eq_ignore_ascii_case(name))
            .map(|(_, value)| value)
    }

    fn text(&self) -> String {
        String::from_utf8(self.body.clone()).expect("text")
    }
}

impl Running {
    async fn open(&self, path: &str) -> TcpStream {
        let mut socket = TcpStream::connect(self.address).await.expect("connects");
        let request = format!("GET /{path} HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n");
        socket.write_all(request.as_bytes()).await.expect("sent");
        socket
    }

    async fn get(&self, path: &str) -> Answer {
        read(self.open(path).await).await
    }

    /// Asks, and sees that no answer comes for a moment.
    async fn ask_and_wait(&self, path: &str) -> JoinHandle<Answer> {
        let waiting = self.metrics.waiting();
        let task = tokio::spawn(read(self.open(path).await));
        let until = Instant::now() + PATIENCE;
        while self.metrics.waiting() == waiting {
            assert!(!task.is_finished() && Instant::now() < until, "{path}");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        tokio::time::sleep(MOMENT).await;
        assert!(!task.is_finished(), "{path}");
        task
    }
}

async fn read(mut socket: TcpStream) -> Answer {
    let mut bytes = Vec::new();
    let read = tokio::time::timeout(PATIENCE, socket.read_to_end(&mut bytes)).await;
    read.expect("closes in time").expect("read");
    let end = bytes.windows(4).position(|w| w == b"\r\n\r\n");
    let end = end.expect("a head") + 4;
    let head = String::from_utf8(bytes[..end].to_vec()).expect("text");
    let status = head.split(' ').nth(1).expect("a status").parse();
    let chunked = head
        .to_ascii_lowercase()
        .contains("transfer-encoding: chunked");
    let body = if chunked {
        chunks(&bytes[end..]).expect("whole").concat()
    } else {
        bytes[end..].to_vec()
    };
    Answer {
        status: status.expect("a number"),
        head,
        body,
    }
}

/// The chunks of a body in chunked coding; `None` if the last is missing.
fn chunks(mut bytes: &[u8]) -> Option<Vec<Vec<u8>>> {
    let mut found = Vec::new();
    loop {
        let end = bytes.windows(2).position(|w| w == b"\r\n")?;
        let size = std::str::from_utf8(&bytes[..end]).ok()?;
        let size = usize::from_str_radix(size, 16).ok()?;
        let body = bytes.get(end + 2..end + 2 + size)?;
        if size == 0 {
            return Some(found);
        }
        found.push(body.to_vec());
        bytes = &bytes[end + 4 + size..];
    }
}

/// Ten whole segments, and two parts of the eleventh.
fn running() -> (Broadcast, Running) {
    let mut broadcast = Broadcast::begin(&Config::default());
    broadcast.run_to(20_700);
    let server = start(&broadcast.published);
    assert_eq!(broadcast.published.edge(VIDEO), (FIRST + 10, 2));
    (broadcast, server)
}

const SECOND: Option<&str> = Some("public, max-age=1");
const MINUTE: Option<&str> = Some("public, max-age=60");

#[tokio::test]
async fn directives_are_followed_refused_or_ignored_at_once() {
    let (_broadcast, server) = running();
    let (last, open) = (FIRST + 9, FIRST + 10);
    let rows: Vec<(String, u16, Option<&str>)> = vec![
        (String::new(), 200, SECOND),
        ("token=x&_HLS_new=1".to_owned(), 200, SECOND),
        ("_HLS_skip=YES".to_owned(), 200, SECOND),
        ("_HLS_msn=0".to_owned(), 200, SECOND),
        // Three places behind: the newest, which may be another one for who asks next.
        (format!("_HLS_msn={last}"), 200, SECOND),
        (format!("_HLS_msn={last}&_HLS_part=5"), 200, SECOND),
        (format!("_HLS_msn={last}&_HLS_part=77"), 200, MINUTE),
        (format!("_HLS_msn={open}&_HLS_part=0"), 200, MINUTE),
        (format!("_HLS_msn={open}&_HLS_part=1"), 200, MINUTE),
        (
            format!("_HLS_part=1&_HLS_skip=v2&_HLS_msn={open}"),
            200,
            MINUTE,
        ),
        (format!("_HLS_msn={}", open + 2), 400, SECOND),
        (format!("_HLS_msn={}&_HLS_part=0", open + 2), 400, SECOND),
        (format!("_HLS_msn={open}&_HLS_part=40"), 400, SECOND),
        (format!("_HLS_msn={}&_HLS_part=40", open + 1), 400, SECOND),
        (format!("_HLS_msn={}", u64::MAX), 400, SECOND),
        ("_HLS_part=1".to_owned(), 400, SECOND),
        ("_HLS_msn=-1".to_owned(), 400, SECOND),
        ("_HLS_msn=".to_owned(), 400, SECOND),
        ("_HLS_msn=x".to_owned(), 400, SECOND),
        ("_HLS_msn=99999999999999999999".to_owned(), 400, SECOND),
        (format!("_HLS_msn={last}&_HLS_msn={open}"), 400, SECOND),
        (
            format!("_HLS_msn={last}&_HLS_part=1&_HLS_part=1"),
            400,
            SECOND,
        ),
        ("_HLS_skip=MAYBE".to_owned(), 400, SECOND),
        ("_HLS_skip=YES&_HLS_skip=YES".to_owned(), 400, SECOND),
    ];
    for (query, status, lifetime) in rows {
        let answer = server.get(&format!("{VIDEO}/index.m3u8?{query}")).await;
        assert_eq!(answer.status, status, "{query}");
        assert_eq!(answer.header("cache-control"), lifetime, "{query}");
        assert_eq!(answer.header("access-control-allow-origin"), Some("*"));
        assert!(status == 200 || answer.body.len() < 80, "{query}");
    }
}

#[tokio::test]
async fn all_who_wait_for_a_part_get_the_same_bytes_and_so_does_who_asks_later() {
    let (mut broadcast, server) = running();
    let path = format!("{VIDEO}/index.m3u8?_HLS_msn={}&_HLS_part=2", FIRST + 10);
    let first = server.ask_and_wait(&path).await;
    let sockets = join_all((0..300).map(|_| server.open(&path))).await;
    let others: Vec<_> = sockets.into_iter().map(|s| tokio::spawn(read(s))).collect();
    while server.metrics.waiting() < 301 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    broadcast.run_to(21_010);
    let first = first.await.expect("answered");
    let other = format!("{}.2.m4s", FIRST + 10);
    assert!(first.text().contains(&format!("URI=\"{other}\"")));
    assert_eq!(first.header("cache-control"), MINUTE);
    for other in join_all(others).await {
        assert_eq!(other.expect("answered").body, first.body);
    }
    assert_eq!(server.metrics.waiting(), 0);
    broadcast.run_to(21_400);
    assert_eq!(server.get(&path).await.body, first.body);
    assert_ne!(
        server.get(&format!("{VIDEO}/index.m3u8")).await.body,
        first.body
    );
}

#[tokio::test]
async fn a_whole_segment_is_waited_for_and_past_its_end_lies_the_next_part() {
    let (mut broadcast, server) = running();
    let open = FIRST + 10;
    let playlist = format!("{VIDEO}/index.m3u8");
    let whole = format!("{playlist}?_HLS_msn={open}");
    let beyond = format!("{playlist}?_HLS_msn={open}&_HLS_part=6");
    let whole = server.ask_and_wait(&whole).await;
    let beyond = server.ask_and_wait(&beyond).await;
    broadcast.run_to(22_000);
    let text = whole.await.expect("answered").text();
    assert!(text.contains(&format!("\n{open}.m4s\n")), "{text}");
    assert!(!beyond.is_finished());
    broadcast.run_to(22_400);
    let text = beyond.await.expect("answered").text();
    assert!(
        text.contains(&format!("URI=\"{}.0.m4s\"", open + 1)),
        "{text}"
    );
}

#[tokio::test]
async fn reports_are_as_fresh_as_their_playlist() {
    let (mut broadcast, server) = running();
    for ms in (20_700..24_000).step_by(50) {
        broadcast.run_to(ms);
        let text = server.get(&format!("{VIDEO}/index.m3u8")).await.text();
        let (segment, part) = broadcast.published.edge(SOUND);
        let last = match part.checked_sub(1) {
            Some(part) => format!("LAST-MSN={segment},LAST-PART={part}\n"),
            None => format!("LAST-MSN={},LAST-PART=", segment - 1),
        };
        assert!(text.contains(&last), "{last} {text}");
    }
}

#[tokio::test]
async fn hinted_part_blocks_and_comes_whole_and_others_are_not_there() {
    let (mut broadcast, server) = running();
    let open = FIRST + 10;
    let text = server.get(&format!("{VIDEO}/index.m3u8")).await.text();
    let hint = format!("#EXT-X-PRELOAD-HINT:TYPE=PART,URI=\"{open}.2.m4s\"");
    assert!(text.contains(&hint), "{text}");
    for missing in [
        format!("{VIDEO}/{open}.3.m4s"),
        format!("{VIDEO}/{}.0.m4s", open + 1),
        format!("{VIDEO}/{}.6.m4s", open - 1),
        format!("{VIDEO}/1.0.m4s"),
        format!("live/demo/v1/{open}.2.m4s"),
        format!("live/none/v720/{open}.2.m4s"),
    ] {
        let answer = server.get(&missing).await;
        assert_eq!(
            (answer.status, answer.header("cache-control")),
            (404, SECOND)
        );
    }
    let path = format!("{VIDEO}/{open}.2.m4s");
    let waiting = server.ask_and_wait(&path).await;
    broadcast.run_to(21_010);
    let answer = waiting.await.expect("answered");
    assert_eq!(answer.status, 200);
    assert_eq!(answer.body, broadcast.published.bytes(&path));
    let length = answer.body.len().to_string();
    assert_eq!(answer.header("content-length"), Some(&*length));
    assert!(
        answer
            .header("cache-control")
            .expect("one")
            .contains("immutable")
    );
}

#[tokio::test]
async fn hint_that_the_end_breaks_is_not_found_and_waiting_playlists_say_the_end() {
    let (mut broadcast, server) = running();
    broadcast.run_to(22_000);
    let next = FIRST + 11;
    let hinted = format!("{VIDEO}/{next}.0.m4s");
    let hinted = server.ask_and_wait(&hinted).await;
    let playlist = format!("{VIDEO}/index.m3u8?_HLS_msn={next}");
    let playlist = server.ask_and_wait(&playlist).await;
    broadcast.end();
    assert_eq!(hinted.await.expect("answered").status, 404);
    let text = playlist.await.expect("answered").text();
    assert!(text.ends_with("#EXT-X-ENDLIST\n"), "{text}");
    assert!(!text.contains("PRELOAD-HINT"), "{text}");
    let far = format!("{VIDEO}/index.m3u8?_HLS_msn=999999999999&_HLS_skip=YES");
    assert_eq!(server.get(&far).await.text(), text);
}

#[tokio::test]
async fn parts_end_to_end_are_their_segment() {
    let (broadcast, server) = running();
    for folder in [VIDEO, SOUND] {
        for segment in FIRST + 7..FIRST + 10 {
            let whole = server.get(&format!("{folder}/{segment}.m4s")).await.body;
            let mut joined = Vec::new();
            for part in 0.. {
                let part = server.get(&format!("{folder}/{segment}.{part}.m4s")).await;
                if part.status == 404 {
                    break;
                }
                joined.extend(part.body);
            }
            assert!(
                joined.len() > 1_000 && joined == whole,
                "{folder} {segment}"
            );
        }
    }
    drop(broadcast);
}

#[tokio::test]
async fn delta_updates_reconstruct_to_the_whole_playlist() {
    let (mut broadcast, server) = running();
    for folder in [VIDEO, SOUND] {
        let path = format!("{folder}/index.m3u8");
        let mut known = server.get(&path).await.text();
        for skip in ["YES", "v2"].repeat(6) {
            broadcast.run_to(broadcast.ms + 340);
            let whole = server.get(&path).await.text();
            let answer = server.get(&format!("{path}?_HLS_skip={skip}")).await;
            let delta = answer.text();
            assert!(delta.len() < whole.len() && delta.contains("#EXT-X-VERSION:9\n"));
            assert_eq!(rebuilt(&known, &delta), whole, "{delta}");
            known = whole;
        }
    }
}

/// Head and segments of a playlist, the last with what follows it; each segment with all of its lines.
fn segments(text: &str) -> (String, Vec<String>) {
    let (mut head, mut found, mut lines) = (String::new(), Vec::new(), String::new());
    for line in text.lines() {
        if line.starts_with("#EXT-X-SKIP:") {
            continue;
        }
        if line.starts_with("#EXT-X-PROGRAM-DATE-TIME") && head.is_empty() {
            head = std::mem::take(&mut lines);
        }
        lines += line;
        lines += "\n";
        if !line.starts_with('#') {
            found.push(std::mem::take(&mut lines));
        }
    }
    found.push(lines);
    (head, found)
}

/// The number after `tag` in `text`; 0 without one.
fn number(text: &str, tag: &str) -> usize {
    let value = text.lines().find_map(|line| line.strip_prefix(tag));
    value.map_or(0, |value| value.parse().expect("a number"))
}

/// The playlist that a player has after the update `delta` of the `known` one.
fn rebuilt(known: &str, delta: &str) -> String {
    const SEQUENCE: &str = "#EXT-X-MEDIA-SEQUENCE:";
    let (head, newer) = segments(delta);
    let gone = number(delta, SEQUENCE) - number(known, SEQUENCE);
    let skipped = number(delta, "#EXT-X-SKIP:SKIPPED-SEGMENTS=");
    let (_, older) = segments(known);
    let kept = older.iter().skip(gone).take(skipped);
    let all: String = kept.chain(&newer).map(String::as_str).collect();
    // What is skipped has no parts listed, so the version is all that tells the two apart.
    head.replace("#EXT-X-VERSION:9\n", "#EXT-X-VERSION:6\n") + &all
}

#[tokio::test]
async fn readers_of_a_growing_segment_get_identical_bytes_part_by_part() {
    let (mut broadcast, server) = running();
    let path = format!("{VIDEO}/{}.m4s", FIRST + 10);
    let early = server.ask_and_wait(&path).await;
    broadcast.run_to(21_010);
    let mut late = server.open(&path).await;
    // What there is comes at once, in a chunk for each part.
    let mut seen = Vec::new();
    let parts: usize = (0..3)
        .map(|part| {
            broadcast
                .published
                .bytes(&format!("{VIDEO}/{}.{part}.m4s", FIRST + 10))
                .len()
        })
        .sum();
    while seen.len() < parts {
        late.read_buf(&mut seen).await.expect("read");
    }
    for ms in (21_100..22_100).step_by(100) {
        broadcast.run_to(ms);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    late.read_to_end(&mut seen).await.expect("read");
    let whole = broadcast.published.bytes(&path);
    let early = early.await.expect("answered");
    assert_eq!(early.body, whole);
    assert_eq!(early.header("content-length"), None);
    assert_eq!(early.header("etag"), None);
    let end = seen
        .windows(4)
        .position(|w| w == b"\r\n\r\n")
        .expect("a head")
        + 4;
    let chunks = chunks(&seen[end..]).expect("whole");
    assert_eq!(chunks.concat(), whole);
    for (index, chunk) in chunks.iter().enumerate() {
        let part = format!("{VIDEO}/{}.{index}.m4s", FIRST + 10);
        assert_eq!(*chunk, broadcast.published.bytes(&part));
    }
    let done = server.get(&path).await;
    assert_eq!(done.body, whole);
    assert!(done.header("etag").is_some());
}

#[tokio::test]
async fn growing_segment_comes_over_http2_too() {
    let (mut broadcast, server) = running();
    let path = format!("{VIDEO}/{}.m4s", FIRST + 10);
    let socket = TcpStream::connect(server.address).await.expect("connects");
    let (mut client, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(socket))
            .await
            .expect("HTTP/2");
    tokio::spawn(connection);
    let request = hyper::Request::get(format!("http://t/{path}"));
    let request = request.body(Empty::<Bytes>::new()).expect("a request");
    let answer = client.send_request(request).await.expect("an answer");
    assert_eq!(answer.status(), 200);
    let mut body = answer.into_body();
    let mut seen = Vec::new();
    let first = broadcast
        .published
        .bytes(&format!("{VIDEO}/{}.0.m4s", FIRST + 10));
    while seen.len() < first.len() {
        let frame = body.frame().await.expect("more").expect("a frame");
        seen.extend_from_slice(&frame.into_data().expect("data"));
    }
    broadcast.run_to(22_000);
    seen.extend_from_slice(&body.collect().await.expect("the rest").to_bytes());
    assert_eq!(seen, broadcast.published.bytes(&path));
}

#[tokio::test]
async fn next_segment_is_held_until_it_begins_and_later_ones_are_not_there() {
    let (mut broadcast, server) = running();
    let next = format!("{VIDEO}/{}.m4s", FIRST + 11);
    let later = server.get(&format!("{VIDEO}/{}.m4s", FIRST + 12)).await;
    assert_eq!((later.status, later.header("cache-control")), (404, SECOND));
    let held = server.ask_and_wait(&next).await;
    broadcast.run_to(24_000);
    let held = held.await.expect("answered");
    assert_eq!(
        (held.status, held.body),
        (200, broadcast.published.bytes(&next))
    );
    let missing = format!("{VIDEO}/{}.m4s", FIRST + 13);
    let missing = server.ask_and_wait(&missing).await;
    broadcast.end();
    assert_eq!(missing.await.expect("answered").status, 404);
}

#[tokio::test]
async fn what_cannot_be_finished_does_not_look_whole() {
    let (broadcast, server) = running();
    let mut socket = server.open(&format!("{VIDEO}/{}.m4s", FIRST + 10)).await;
    let mut seen = vec![0; 2_000];
    socket.read_exact(&mut seen).await.expect("read");
    broadcast.published.forget();
    let _ = tokio::time::timeout(PATIENCE, socket.read_to_end(&mut seen)).await;
    let end = seen
        .windows(4)
        .position(|w| w == b"\r\n\r\n")
        .expect("a head")
        + 4;
    assert_eq!(chunks(&seen[end..]), None);
}

#[tokio::test]
async fn who_waits_too_long_is_told() {
    let second = Config {
        segment_ms: NonZeroU32::new(1_000).expect("not zero"),
        ..Config::default()
    };
    let mut broadcast = Broadcast::begin(&second);
    broadcast.run_to(10_400);
    let server = start(&broadcast.published);
    let (segment, part) = broadcast.published.edge(VIDEO);
    let began = Instant::now();
    let paths = [
        format!("{VIDEO}/index.m3u8?_HLS_msn={segment}"),
        format!("{VIDEO}/{segment}.{part}.m4s"),
        format!("{VIDEO}/{}.m4s", segment + 1),
    ];
    for answer in join_all(paths.iter().map(|path| server.get(path))).await {
        assert_eq!(
            (answer.status, answer.header("cache-control")),
            (503, SECOND)
        );
        assert_eq!(answer.header("retry-after"), Some("1"));
    }
    let took = began.elapsed();
    assert!((2_900..8_000).contains(&took.as_millis()), "{took:?}");
    assert_eq!(server.metrics.waiting(), 0);
}

#[tokio::test]
async fn player_that_never_reads_or_goes_away_costs_the_others_nothing() {
    let (mut broadcast, server) = running();
    let growing = format!("{VIDEO}/{}.m4s", FIRST + 10);
    let playlist = format!("{VIDEO}/index.m3u8?_HLS_msn={}", FIRST + 10);
    let idle = join_all((0..50).map(|_| server.open(&growing))).await;
    let gone = join_all((0..50).map(|_| server.open(&playlist))).await;
    while server.metrics.waiting() < 100 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    drop(gone);
    while server.metrics.waiting() > 50 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let other = server.ask_and_wait(&playlist).await;
    broadcast.run_to(22_000);
    assert_eq!(other.await.expect("answered").status, 200);
    drop(idle);
    while server.metrics.waiting() > 0 || server.metrics.in_flight() > 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn without_low_latency_directives_are_ignored_and_nothing_waits() {
    let plain = Config {
        low_latency: false.into(),
        ..Config::default()
    };
    let mut broadcast = Broadcast::begin(&plain);
    broadcast.run_to(20_700);
    let server = start(&broadcast.published);
    let answer = server
        .get(&format!("{VIDEO}/index.m3u8?_HLS_msn=x&_HLS_part=1"))
        .await;
    assert_eq!(
        (answer.status, answer.header("cache-control")),
        (200, SECOND)
    );
    assert!(!answer.text().contains("EXT-X-PART"));
    let next = server.get(&format!("{VIDEO}/{}.m4s", FIRST + 10)).await;
    assert_eq!(next.status, 404);
}

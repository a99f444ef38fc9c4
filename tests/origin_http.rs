//! The origin over real sockets: every address, status and header that caches and players rely on.

use std::collections::HashMap;
use std::io::Read;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use headwater::id::StreamName;
use headwater::media::{ObjectKey, Payload};
use headwater::serve::stretch::Asked;
use headwater::serve::{
    Asset, Assets, Clip, Config, Document, Found, Growth, Live, NoClip, Object, Origin, Server,
    StoreFailed, Stored, Version,
};
use headwater::time::WallTime;
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;

/// Everything here is answered within milliseconds; a test that takes this long is stuck.
const PATIENCE: Duration = Duration::from_secs(20);

/// An origin with a script: what is not in it is missing.
#[derive(Default)]
struct Scripted {
    manifests: HashMap<String, Found>,
    objects: HashMap<String, Arc<Object>>,
    late: Arc<std::sync::Mutex<HashMap<String, Arc<Object>>>>,
    stored: HashMap<String, Result<Payload, StoreFailed>>,
    gate: Option<Arc<tokio::sync::Notify>>,
    unready: bool,
}

impl Origin for Scripted {
    fn manifest(&self, key: &ObjectKey) -> Found {
        let found = self.manifests.get(&key.to_string()).cloned();
        found.unwrap_or(Found::Missing)
    }

    fn object(&self, key: &ObjectKey) -> Option<Arc<Object>> {
        let late = self.late.lock().expect("unpoisoned");
        let path = key.to_string();
        self.objects.get(&path).or_else(|| late.get(&path)).cloned()
    }

    fn stored<'a>(
        &'a self,
        key: &'a ObjectKey,
    ) -> BoxFuture<'a, Result<Option<Stored>, StoreFailed>> {
        async move {
            if let Some(gate) = &self.gate {
                gate.notified().await;
            }
            let stored = self.stored.get(&key.to_string()).cloned().transpose();
            Ok(stored?.map(|body| Stored::new(key, body, false)))
        }
        .boxed()
    }

    fn clip<'a>(
        &'a self,
        key: &'a ObjectKey,
        asked: Option<Asked>,
    ) -> BoxFuture<'a, Result<Clip, NoClip>> {
        async move {
            let text = match asked {
                Some(asked) if asked.start.as_micros() == 0 => {
                    return Err(NoClip::Missing("nothing of that time is kept".to_owned()));
                }
                Some(asked) => asked.to_string(),
                None => "all".to_owned(),
            };
            Ok(Clip {
                document: Arc::new(Document::manifest(&key.item, text.into())),
                delta: None,
                growth: match asked {
                    Some(Asked { end: None, start }) if start.as_micros() == 8_000_000 => {
                        Growth::Over
                    }
                    Some(Asked { end: None, .. }) => Growth::Advancing,
                    _ => Growth::Final,
                },
            })
        }
        .boxed()
    }

    fn streams(&self) -> Bytes {
        Bytes::from_static(b"{\"streams\":[]}")
    }

    fn stream(&self, name: &StreamName) -> Option<Bytes> {
        (name.as_str() == "demo").then(|| Bytes::from_static(b"{\"name\":\"demo\"}"))
    }

    fn server(&self) -> Bytes {
        Bytes::from_static(b"{}")
    }

    fn metrics(&self) -> Bytes {
        Bytes::from_static(b"# EOF\n")
    }

    fn ready(&self) -> Result<String, String> {
        if self.unready {
            return Err("the store cannot be written".to_owned());
        }
        Ok("ready".to_owned())
    }

    fn now(&self) -> WallTime {
        WallTime::from_micros(1_795_132_799_999_000)
    }
}

const PAGE: &[Asset] = &[
    Asset {
        path: "",
        content_type: "text/html; charset=utf-8",
        bytes: b"<!doctype html><title>Headwater</title>",
        immutable: false,
    },
    Asset {
        path: "app-1.js",
        content_type: "text/javascript",
        bytes: &[b'a'; 2_000],
        immutable: true,
    },
    Asset {
        path: "long-1.js",
        content_type: "text/javascript",
        bytes: &[b'a'; 300_000],
        immutable: true,
    },
];

fn playlist() -> String {
    "#EXTINF:2.000000,\n895634.m4s\n".repeat(60)
}

fn key(path: &str) -> ObjectKey {
    path.parse().expect("a key")
}

fn document(path: &str, text: String) -> Arc<Document> {
    Arc::new(Document::manifest(&key(path).item, text.into()))
}

fn live(path: &str, text: String) -> Arc<Live> {
    Arc::new(Live::new(Version::plain(document(path, text))))
}

/// A segment in pieces, the byte at each place known.
fn segment() -> Payload {
    let bytes: Vec<u8> = (0..=255_u8).cycle().take(10_000).collect();
    Payload::new(bytes.chunks(333).map(Bytes::copy_from_slice))
}

fn scripted() -> Scripted {
    let mut origin = Scripted::default();
    for path in [
        "live/demo/index.m3u8",
        "live/demo/manifest.mpd",
        "live/demo/v720/index.m3u8",
    ] {
        let (_, feed) = watch::channel(live(path, playlist()));
        origin.manifests.insert(path.to_owned(), Found::Live(feed));
    }
    let ended = "live/over/v720/index.m3u8";
    let over = document(ended, "#EXTM3U\n#EXT-X-ENDLIST\n".to_owned());
    origin
        .manifests
        .insert(ended.to_owned(), Found::Ended(over));
    origin.manifests.insert(
        "live/stuck/index.m3u8".to_owned(),
        Found::Stalled {
            retry_after: Duration::from_millis(1_500),
        },
    );
    for path in [
        "live/demo/v720/init-7.mp4",
        "live/demo/v720/7.m4s",
        "live/demo/v720/7.0.m4s",
        "live/demo/a128/7.m4s",
    ] {
        let object = Arc::new(Object::new(segment()));
        origin.objects.insert(path.to_owned(), object);
    }
    for (path, stored) in [
        ("live/old/v720/3.m4s", Ok(segment())),
        (
            "live/old/index.m3u8",
            Ok(Bytes::from_static(b"#EXTM3U\n").into()),
        ),
        (
            "live/old/v720/index.m3u8",
            Ok(Bytes::from_static(b"#EXTM3U\n#EXT-X-ENDLIST\n").into()),
        ),
        (
            "live/cut/v720/index.m3u8",
            Ok(Bytes::from_static(b"#EXTM3U\n").into()),
        ),
        ("live/broken/v720/3.m4s", Err(StoreFailed)),
    ] {
        origin.stored.insert(path.to_owned(), stored);
    }
    origin
}

struct Running {
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
    metrics: Arc<headwater::serve::Metrics>,
}

fn start_with(origin: Scripted, change: impl FnOnce(&mut Config)) -> Running {
    let mut config = Config {
        listen: SocketAddr::from(([127, 0, 0, 1], 0)),
        ..Config::default()
    };
    change(&mut config);
    let server = Server::bind(config).expect("a free port");
    let (address, metrics) = (server.local_addr(), server.metrics());
    let (stop, stopped) = oneshot::channel();
    let task = tokio::spawn(async move {
        let shutdown = stopped.map(|_| ());
        server
            .run(Arc::new(origin), Assets::new(PAGE), shutdown)
            .await;
    });
    Running {
        address,
        stop,
        task,
        metrics,
    }
}

fn start() -> Running {
    start_with(scripted(), |_| {})
}

impl Running {
    async fn stop(self) {
        let _ = self.stop.send(());
        tokio::time::timeout(PATIENCE, self.task)
            .await
            .expect("stops in time")
            .expect("no panic");
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.expect("connects")
    }

    async fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)]) -> Answer {
        let mut socket = self.connect().await;
        let mut request = format!("{method} {path} HTTP/1.1\r\nHost: t\r\nConnection: close\r\n");
        for (name, value) in headers {
            request.push_str(&format!("{name}: {value}\r\n"));
        }
        request.push_str("\r\n");
        socket.write_all(request.as_bytes()).await.expect("sent");
        Answer::parse(&rest(&mut socket).await)
    }

    async fn get(&self, path: &str, headers: &[(&str, &str)]) -> Answer {
        self.ask("GET", path, headers).await
    }
}

async fn rest(socket: &mut TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    let read = tokio::time::timeout(PATIENCE, socket.read_to_end(&mut bytes)).await;
    read.expect("closes in time").expect("read");
    bytes
}

#[derive(Debug)]
struct Answer {
    status: u16,
    headers: HashMap<String, String>,
    body: Vec<u8>,
}

impl Answer {
    fn parse(bytes: &[u8]) -> Self {
        let end = bytes.windows(4).position(|w| w == b"\r\n\r\n");
        let end = end.expect("a head");
        let head = String::from_utf8(bytes[..end].to_vec()).expect("text");
        let mut lines = head.split("\r\n");
        let status = lines.next().and_then(|line| line.split(' ').nth(1));
        let status = status.expect("a status line").parse();
        let field = |line: &str| {
            let (name, value) = line.split_once(": ").expect("a field");
            (name.to_ascii_lowercase(), value.to_owned())
        };
        Self {
            status: status.expect("a number"),
            headers: lines.map(field).collect(),
            body: bytes[end + 4..].to_vec(),
        }
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }
}

const IMMUTABLE: &str = "public, max-age=31536000, immutable";
const SECOND: &str = "public, max-age=1";
const HLS: &str = "application/vnd.apple.mpegurl";
const TEXT: &str = "text/plain; charset=utf-8";

/// Path, status, Content-Type, Cache-Control.
const ADDRESSES: &[(&str, u16, &str, &str)] = &[
    ("/", 200, "text/html; charset=utf-8", "public, max-age=60"),
    ("/assets/app-1.js", 200, "text/javascript", IMMUTABLE),
    ("/assets/none.js", 404, TEXT, SECOND),
    ("/live/demo/index.m3u8", 200, HLS, SECOND),
    ("/live/demo/index.m3u8?token=x", 200, HLS, SECOND),
    (
        "/live/demo/manifest.mpd",
        200,
        "application/dash+xml",
        SECOND,
    ),
    ("/live/demo/v720/index.m3u8", 200, HLS, SECOND),
    (
        "/live/demo/v720/index.m3u8?_HLS_msn=7&_HLS_part=1",
        200,
        HLS,
        SECOND,
    ),
    ("/live/demo/v720/init-7.mp4", 200, "video/mp4", IMMUTABLE),
    ("/live/demo/v720/7.m4s", 200, "video/mp4", IMMUTABLE),
    ("/live/demo/v720/7.m4s?x=1", 200, "video/mp4", IMMUTABLE),
    ("/live/demo/v720/7.0.m4s", 200, "video/mp4", IMMUTABLE),
    ("/live/demo/a128/7.m4s", 200, "audio/mp4", IMMUTABLE),
    ("/live/demo/v720/8.m4s", 404, TEXT, SECOND),
    ("/live/demo/v1080/index.m3u8", 404, TEXT, SECOND),
    ("/live/none/index.m3u8", 404, TEXT, SECOND),
    ("/live/over/v720/index.m3u8", 200, HLS, "public, max-age=5"),
    ("/live/stuck/index.m3u8", 503, TEXT, SECOND),
    ("/live/old/v720/3.m4s", 200, "video/mp4", IMMUTABLE),
    ("/live/old/index.m3u8", 200, HLS, SECOND),
    ("/live/old/v720/index.m3u8", 200, HLS, "public, max-age=5"),
    ("/live/cut/v720/index.m3u8", 503, TEXT, SECOND),
    ("/live/broken/v720/3.m4s", 503, TEXT, SECOND),
    ("/live/demo/../../etc/passwd", 404, TEXT, SECOND),
    ("/live/%2e%2e/index.m3u8", 404, TEXT, SECOND),
    ("/nothing", 404, TEXT, SECOND),
    ("/api/v1/streams", 200, "application/json", "no-store"),
    ("/api/v1/streams/demo", 200, "application/json", "no-store"),
    ("/api/v1/streams/none", 404, TEXT, SECOND),
    ("/api/v1/server", 200, "application/json", "no-store"),
    ("/healthz", 200, TEXT, "no-store"),
    ("/readyz", 200, TEXT, "no-store"),
    ("/time", 200, TEXT, "no-store"),
    (
        "/metrics",
        200,
        "application/openmetrics-text; version=1.0.0; charset=utf-8",
        "no-store",
    ),
];

#[tokio::test]
async fn every_address_answers_as_the_design_says_and_head_like_get() {
    let server = start();
    for (path, status, content_type, cache_control) in ADDRESSES {
        let got = server.get(path, &[]).await;
        assert_eq!(got.status, *status, "{path}");
        assert_eq!(got.header("content-type"), Some(*content_type), "{path}");
        assert_eq!(got.header("cache-control"), Some(*cache_control), "{path}");
        assert_eq!(
            got.header("access-control-allow-origin"),
            Some("*"),
            "{path}"
        );
        assert_eq!(got.header("timing-allow-origin"), Some("*"), "{path}");
        assert!(
            got.header("access-control-expose-headers").is_some(),
            "{path}"
        );
        assert!(got.header("date").is_some(), "{path}");
        let length = got.body.len().to_string();
        assert_eq!(got.header("content-length"), Some(&*length), "{path}");
        assert!(!got.body.is_empty(), "{path}: a reason or a body");
        assert_eq!(
            got.header("retry-after").is_some(),
            *status == 503,
            "{path}"
        );

        let mut head = server.ask("HEAD", path, &[]).await;
        assert!(head.body.is_empty(), "{path}");
        head.headers.remove("date");
        let mut expected = got.headers;
        expected.remove("date");
        assert_eq!(
            (head.status, head.headers),
            (got.status, expected),
            "{path}"
        );
    }
    server.stop().await;
}

#[tokio::test]
async fn preflight_and_foreign_methods_are_answered_everywhere() {
    let server = start();
    for (path, ..) in ADDRESSES {
        let options = server
            .ask("OPTIONS", path, &[("Origin", "https://a.example")])
            .await;
        assert_eq!(options.status, 204, "{path}");
        assert_eq!(options.header("access-control-allow-origin"), Some("*"));
        assert_eq!(
            options.header("access-control-allow-methods"),
            Some("GET, HEAD, OPTIONS")
        );
        assert!(
            options
                .header("access-control-allow-headers")
                .is_some_and(|names| names.contains("Range") && names.contains("CMCD-Request"))
        );
        for method in ["POST", "PUT", "DELETE", "PATCH"] {
            let refused = server.ask(method, path, &[("Content-Length", "0")]).await;
            assert_eq!(refused.status, 405, "{method} {path}");
            assert_eq!(refused.header("allow"), Some("GET, HEAD, OPTIONS"));
            assert_eq!(refused.header("access-control-allow-origin"), Some("*"));
            assert_eq!(refused.header("cache-control"), Some(SECOND));
        }
    }
    server.stop().await;
}

#[tokio::test]
async fn what_did_not_change_is_not_sent_again() {
    let server = start();
    for path in [
        "/",
        "/live/demo/index.m3u8",
        "/live/demo/v720/7.m4s",
        "/live/old/v720/3.m4s",
    ] {
        let first = server.get(path, &[]).await;
        let etag = first.header("etag").expect("a tag");
        assert!(etag.starts_with('"'), "{path}: strong");
        for (value, status) in [
            (etag.to_owned(), 304),
            (format!("\"other\", W/{etag}"), 304),
            ("*".to_owned(), 304),
            ("\"other\"".to_owned(), 200),
        ] {
            let again = server.get(path, &[("If-None-Match", &value)]).await;
            assert_eq!(again.status, status, "{path} {value}");
            assert_eq!(again.header("etag"), Some(etag), "{path}");
            assert_eq!(again.header("cache-control"), first.header("cache-control"));
            assert_eq!(again.header("vary"), first.header("vary"));
            assert_eq!(again.header("access-control-allow-origin"), Some("*"));
            assert_eq!(again.body.is_empty(), status == 304);
        }
    }
    server.stop().await;
}

#[tokio::test]
async fn memory_and_store_give_the_same_tag_for_the_same_bytes() {
    let server = start();
    let memory = server.get("/live/demo/v720/7.m4s", &[]).await;
    let stored = server.get("/live/old/v720/3.m4s", &[]).await;
    assert_eq!(memory.header("etag"), stored.header("etag"));
    server.stop().await;
}

#[tokio::test]
async fn ranges_are_the_bytes_they_say() {
    let server = start();
    let whole = segment().to_bytes();
    for path in ["/live/demo/v720/7.m4s", "/live/old/v720/3.m4s"] {
        for (range, status, bytes, content_range) in [
            ("bytes=0-0", 206, 0..1, Some("bytes 0-0/10000")),
            ("bytes=300-700", 206, 300..701, Some("bytes 300-700/10000")),
            (
                "bytes=9999-",
                206,
                9_999..10_000,
                Some("bytes 9999-9999/10000"),
            ),
            (
                "bytes=-5",
                206,
                9_995..10_000,
                Some("bytes 9995-9999/10000"),
            ),
            ("bytes=0-1,5-6", 200, 0..10_000, None),
            ("lines=1-2", 200, 0..10_000, None),
        ] {
            let got = server.get(path, &[("Range", range)]).await;
            assert_eq!(got.status, status, "{range}");
            assert_eq!(got.body, &whole[bytes], "{range}");
            assert_eq!(got.header("content-range"), content_range, "{range}");
            assert_eq!(got.header("accept-ranges"), Some("bytes"), "{range}");
            assert_eq!(got.header("cache-control"), Some(IMMUTABLE), "{range}");
        }
        let beyond = server.get(path, &[("Range", "bytes=10000-")]).await;
        assert_eq!(beyond.status, 416);
        assert_eq!(beyond.header("content-range"), Some("bytes */10000"));
        assert_eq!(beyond.header("access-control-allow-origin"), Some("*"));
        assert_eq!(beyond.header("cache-control"), Some(SECOND));
        let stale = [("Range", "bytes=0-0"), ("If-Range", "\"other\"")];
        assert_eq!(server.get(path, &stale).await.status, 200);
    }
    server.stop().await;
}

#[tokio::test]
async fn compressed_manifests_decode_to_the_plain_text() {
    let server = start();
    let path = "/live/demo/v720/index.m3u8";
    let mut tags = Vec::new();
    for (accept, coding) in [
        ("identity", None),
        ("gzip", Some("gzip")),
        ("gzip, deflate, br", Some("br")),
    ] {
        let got = server.get(path, &[("Accept-Encoding", accept)]).await;
        assert_eq!(got.header("content-encoding"), coding);
        assert_eq!(got.header("vary"), Some("Accept-Encoding"));
        let mut plain = Vec::new();
        match coding {
            Some("gzip") => flate2::read::GzDecoder::new(&*got.body).read_to_end(&mut plain),
            Some(_) => brotli::Decompressor::new(&*got.body, 4_096).read_to_end(&mut plain),
            None => Read::read_to_end(&mut &*got.body, &mut plain),
        }
        .expect("decodes");
        assert_eq!(plain, playlist().as_bytes());
        tags.push(got.header("etag").expect("a tag").to_owned());
    }
    tags.dedup();
    assert_eq!(tags.len(), 3, "one tag per coding");
    let media = server
        .get("/live/demo/v720/7.m4s", &[("Accept-Encoding", "br")])
        .await;
    assert_eq!(media.header("content-encoding"), None);
    assert_eq!(media.header("vary"), None);
    server.stop().await;
}

#[test]
fn who_asks_for_a_long_text_holds_up_no_thread_that_answers() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(1)
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let server = start();
        // Somebody else has the thread for such work.
        let (go_on, wait) = std::sync::mpsc::channel();
        let other = tokio::task::spawn_blocking(move || wait.recv());
        let mut asked = server
            .get("/assets/long-1.js", &[("accept-encoding", "br")])
            .boxed();
        for _ in 0..20 {
            tokio::select! {
                biased;
                answer = &mut asked => panic!("compressed by who answers: {}", answer.status),
                other = server.get("/", &[]) => assert_eq!(other.status, 200),
            }
        }
        go_on.send(()).expect("waited for");
        other.await.expect("ended").expect("told");
        assert_eq!(asked.await.header("content-encoding"), Some("br"));
        server.stop().await;
    });
}

#[tokio::test]
async fn time_is_utc_with_milliseconds_and_stalls_say_when_to_retry() {
    let server = start();
    let time = server.get("/time", &[]).await;
    assert_eq!(time.body, b"2026-11-19T23:59:59.999Z");
    let stuck = server.get("/live/stuck/index.m3u8", &[]).await;
    assert_eq!(stuck.header("retry-after"), Some("2"));
    server.stop().await;
    let unready = Scripted {
        unready: true,
        ..Scripted::default()
    };
    let server = start_with(unready, |config| {
        config.allow_origin = "https://player.example".to_owned();
    });
    let ready = server.get("/readyz", &[]).await;
    assert_eq!(
        (ready.status, &*ready.body),
        (503, &b"the store cannot be written\n"[..])
    );
    assert_eq!(
        ready.header("access-control-allow-origin"),
        Some("https://player.example")
    );
    server.stop().await;
}

#[tokio::test]
async fn page_comes_with_its_content_security_policy() {
    let server = start();
    let page = server.get("/", &[]).await;
    let policy = headwater::serve::page::CONTENT_SECURITY_POLICY;
    assert_eq!(page.header("content-security-policy"), Some(policy));
    let asset = server.get("/assets/app-1.js", &[]).await;
    assert_eq!(asset.header("content-security-policy"), None);
    server.stop().await;
}

#[tokio::test]
async fn a_stretch_is_asked_for_by_its_instants_and_kept_for_long_once_it_is_complete() {
    let server = start();
    let (kept, changing) = ("public, max-age=3600", "public, max-age=1");
    for (address, status, cache, body) in [
        (
            "index.m3u8?start=7&end=9",
            200,
            kept,
            "start=1970-01-01T00:00:07.000Z&end=1970-01-01T00:00:09.000Z",
        ),
        (
            "v720/index.m3u8?start=7",
            200,
            changing,
            "start=1970-01-01T00:00:07.000Z",
        ),
        (
            "v720/index.m3u8?start=8",
            200,
            // Somebody may publish it again.
            "public, max-age=5",
            "start=1970-01-01T00:00:08.000Z",
        ),
        (
            "manifest.mpd?start=7&_HLS_msn=3",
            200,
            changing,
            "start=1970-01-01T00:00:07.000Z",
        ),
        ("show-7.mpd", 200, kept, "all"),
        (
            "v720/show-7.m3u8?start=x",
            400,
            changing,
            "start must be an instant such as 2026-11-20T20:15:00Z, or seconds since 1970\n",
        ),
        ("index.m3u8?end=9", 400, changing, "end needs a start\n"),
        (
            "index.m3u8?start=9&end=7",
            400,
            changing,
            "end must be later than start\n",
        ),
        (
            "index.m3u8?start=0",
            404,
            changing,
            "nothing of that time is kept\n",
        ),
    ] {
        let answer = server.get(&format!("/live/demo/{address}"), &[]).await;
        assert_eq!(answer.status, status, "{address}");
        assert_eq!(answer.header("cache-control"), Some(cache), "{address}");
        assert_eq!(String::from_utf8_lossy(&answer.body), body, "{address}");
    }
    server.stop().await;
}

#[tokio::test]
async fn a_live_manifest_is_its_newest_version() {
    let mut origin = scripted();
    let path = "live/demo/v720/index.m3u8";
    let (sender, feed) = watch::channel(live(path, "one".to_owned()));
    origin.manifests.insert(path.to_owned(), Found::Live(feed));
    let server = start_with(origin, |_| {});
    assert_eq!(server.get(&format!("/{path}"), &[]).await.body, b"one");
    sender
        .send(live(path, "two".to_owned()))
        .expect("a receiver");
    assert_eq!(server.get(&format!("/{path}"), &[]).await.body, b"two");
    server.stop().await;
}

#[tokio::test]
async fn next_segment_is_waited_for_and_no_other() {
    let mut origin = scripted();
    let path = "live/demo/v720/index.m3u8";
    let (sender, feed) = watch::channel(live(path, "one".to_owned()));
    origin.manifests.insert(path.to_owned(), Found::Live(feed));
    let late = Arc::clone(&origin.late);
    let server = start_with(origin, |_| {});
    let publishing = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let object = Arc::new(Object::new(segment()));
        let name = "live/demo/v720/8.m4s".to_owned();
        late.lock().expect("unpoisoned").insert(name, object);
        sender
            .send(live(path, "two".to_owned()))
            .expect("a receiver");
    };
    let (next, far, ()) = tokio::join!(
        server.get("/live/demo/v720/8.m4s", &[]),
        server.get("/live/demo/v720/10.m4s", &[]),
        publishing,
    );
    assert_eq!((next.status, far.status), (200, 404));
    assert_eq!(next.body, segment().to_bytes());
    // One that does not come is not there.
    assert_eq!(server.get("/live/demo/v720/9.m4s", &[]).await.status, 404);
    server.stop().await;
}

#[tokio::test]
async fn one_connection_answers_many_requests() {
    let server = start();
    let mut socket = server.connect().await;
    let path = "/live/demo/v720/7.m4s";
    let mut requests = format!("GET {path} HTTP/1.1\r\nHost: t\r\n\r\n").repeat(9);
    requests.push_str(&format!(
        "GET {path} HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n"
    ));
    socket.write_all(requests.as_bytes()).await.expect("sent");
    let bytes = rest(&mut socket).await;
    assert_eq!(
        bytes.windows(12).filter(|w| w == b"HTTP/1.1 200").count(),
        10
    );
    assert!(bytes.len() > 100_000);
    server.stop().await;
}

#[tokio::test]
async fn connections_that_trickle_or_keep_silent_are_closed() {
    let server = start_with(scripted(), |config| {
        config.opening_timeout = Duration::from_millis(100);
        config.idle_timeout = Duration::from_millis(300);
    });
    let head = "GET /healthz HTTP/1.1\r\nHost: slow.example\r\n";
    for begun in ["", "G", "PRI * HT", head] {
        let mut socket = server.connect().await;
        socket.write_all(begun.as_bytes()).await.expect("sent");
        // Closed by an end, a reset or a 408; never left open, and `rest` has a limit of its own.
        let mut bytes = Vec::new();
        let closed = tokio::time::timeout(PATIENCE, socket.read_to_end(&mut bytes)).await;
        assert!(closed.is_ok(), "{begun:?}");
        assert!(!bytes.starts_with(b"HTTP/1.1 200"), "{begun:?}");
    }
    // A head of which a little comes again and again.
    let mut socket = server.connect().await;
    socket.write_all(head.as_bytes()).await.expect("sent");
    let trickle = async {
        loop {
            tokio::time::sleep(Duration::from_millis(50)).await;
            if socket.write_all(b"X-A: b\r\n").await.is_err() {
                break;
            }
        }
    };
    tokio::time::timeout(PATIENCE, trickle)
        .await
        .expect("closed");
    // Kept alive, then silent.
    let mut socket = server.connect().await;
    let request = b"GET /healthz HTTP/1.1\r\nHost: kept.example\r\n\r\n";
    socket.write_all(request).await.expect("sent");
    assert!(rest(&mut socket).await.starts_with(b"HTTP/1.1 200"));
    assert_eq!(
        server.get("/healthz", &[]).await.status,
        200,
        "others are not affected"
    );
    server.stop().await;
}

#[tokio::test]
async fn a_client_that_takes_nothing_is_left() {
    let mut origin = scripted();
    let big = Payload::new((0..400).map(|_| Bytes::from(vec![7; 100_000])));
    let big = Arc::new(Object::new(big));
    origin
        .objects
        .insert("live/demo/v720/9.m4s".to_owned(), big);
    let server = start_with(origin, |config| {
        config.idle_timeout = Duration::from_millis(300)
    });
    let mut socket = server.connect().await;
    let request = b"GET /live/demo/v720/9.m4s HTTP/1.1\r\nHost: t\r\n\r\n";
    socket.write_all(request).await.expect("sent");
    let left = async {
        while server.metrics.accepted() == 0 || server.metrics.connections() > 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, left).await.expect("left");
    assert_eq!(server.metrics.in_flight(), 0);
    server.stop().await;
}

#[tokio::test]
async fn heads_beyond_the_limits_are_refused() {
    let server = start();
    let long = "x".repeat(40_000);
    let refused = server.get("/healthz", &[("X-Long", &long)]).await;
    assert_eq!(refused.status, 431);
    let many: Vec<_> = (0..150).map(|_| ("X-Many", "1")).collect();
    assert_eq!(server.get("/healthz", &many).await.status, 431);
    server.stop().await;
}

#[tokio::test]
async fn http2_with_prior_knowledge_answers_the_same() {
    let server = start();
    let socket = TokioIo::new(server.connect().await);
    let (mut client, connection) =
        hyper::client::conn::http2::handshake::<_, _, Empty<Bytes>>(TokioExecutor::new(), socket)
            .await
            .expect("a connection");
    let driver = tokio::spawn(connection);
    for (method, path, status, length) in [
        ("GET", "/live/demo/v720/7.m4s", 200, 10_000),
        ("HEAD", "/live/demo/v720/7.m4s", 200, 0),
        ("GET", "/live/demo/v720/8.m4s", 404, 30),
        ("OPTIONS", "/live/demo/v720/7.m4s", 204, 0),
    ] {
        let request = hyper::Request::builder()
            .method(method)
            .uri(format!("http://t{path}"))
            .body(Empty::new())
            .expect("a request");
        let answer = client.send_request(request).await.expect("an answer");
        assert_eq!(answer.status(), status, "{method} {path}");
        assert_eq!(answer.headers()["access-control-allow-origin"], "*");
        let body = answer.collect().await.expect("a body").to_bytes();
        assert_eq!(body.len(), length, "{method} {path}");
        if status == 200 && method == "GET" {
            assert_eq!(body, segment().to_bytes());
        }
    }
    drop(client);
    server.stop().await;
    driver.await.expect("no panic").expect("a clean end");
}

#[tokio::test]
async fn shutdown_answers_what_was_asked_and_takes_no_more() {
    let gate = Arc::new(tokio::sync::Notify::new());
    let mut origin = scripted();
    origin.gate = Some(Arc::clone(&gate));
    let server = start_with(origin, |_| {});
    let mut asked = server.connect().await;
    let request = b"GET /live/old/v720/3.m4s HTTP/1.1\r\nHost: t\r\n\r\n";
    asked.write_all(request).await.expect("sent");
    let mut idle = server.connect().await;
    while server.metrics.in_flight() == 0 || server.metrics.connections() < 2 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let address = server.address;
    let _ = server.stop.send(());
    assert!(
        rest(&mut idle).await.is_empty(),
        "idle connections close at once"
    );
    let refused = async {
        while TcpStream::connect(address).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, refused)
        .await
        .expect("accepts no more");
    assert!(!server.task.is_finished(), "waits for the open request");
    gate.notify_one();
    let answer = Answer::parse(&rest(&mut asked).await);
    assert_eq!((answer.status, answer.body.len()), (200, 10_000));
    let ended = tokio::time::timeout(PATIENCE, server.task).await;
    ended.expect("stops in time").expect("no panic");
    assert_eq!(server.metrics.connections(), 0);
}

#[tokio::test]
async fn shutdown_cuts_off_what_takes_too_long() {
    let mut origin = scripted();
    origin.gate = Some(Arc::default());
    let server = start_with(origin, |config| {
        config.drain_timeout = Duration::from_millis(50)
    });
    let mut asked = server.connect().await;
    let request = b"GET /live/old/v720/3.m4s HTTP/1.1\r\nHost: t\r\n\r\n";
    asked.write_all(request).await.expect("sent");
    while server.metrics.in_flight() == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    server.stop().await;
}

#[tokio::test]
async fn a_port_in_use_is_one_clear_sentence() {
    let server = start();
    let config = Config {
        listen: server.address,
        ..Config::default()
    };
    let error = Server::bind(config).expect_err("in use").to_string();
    assert!(error.contains(&server.address.to_string()), "{error}");
    assert!(error.contains("in use"), "{error}");
    server.stop().await;
}

#[tokio::test]
async fn requests_and_bytes_are_counted() {
    let server = start();
    server.get("/live/demo/v720/7.m4s", &[]).await;
    server
        .get("/live/demo/v720/7.m4s", &[("Range", "bytes=0-99")])
        .await;
    server.get("/nothing", &[]).await;
    let counted: Vec<_> = server
        .metrics
        .requests()
        .filter(|(_, _, count)| *count > 0)
        .map(|(kind, status, count)| (kind.as_str(), status, count))
        .collect();
    assert_eq!(
        counted,
        [
            ("segment", 200, 1),
            ("segment", 206, 1),
            ("unknown", 404, 1)
        ]
    );
    assert_eq!(server.metrics.body_bytes(), 10_000 + 100 + 30);
    assert_eq!(server.metrics.accepted(), 3);
    server.stop().await;
}

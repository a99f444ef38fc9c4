//! The real server on a real S3 service: what lands in the bucket, and what happens when the service does not
//! answer.
//!
//! Enters: the film, published by ffmpeg in real time
//! Leaves: what a client that is not Headwater's finds in the bucket
//! Never:  a store in memory that stands in for the service
//! Time:   wall clock
//! Spec:   [HLS]

#![cfg(feature = "gst")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test may fail loudly"
)]

mod common;

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use common::{Server, command, eventually, ffmpeg_publish, headwater, run, run_ok, small_ladder};

/// The service may need this long to begin on a busy machine; alone it is some fifteen seconds.
const LIMIT: Duration = Duration::from_secs(120);
/// The checksum of an empty body, which a signed request has to name.
const EMPTY_SHA256: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

/// A running gateway. It ends with this process at the latest: it watches its standard input.
struct Gateway {
    child: Child,
    folder: tempfile::TempDir,
    port: u16,
}

impl Gateway {
    /// The one that all tests of this file share.
    fn shared() -> &'static Self {
        static SHARED: OnceLock<Gateway> = OnceLock::new();
        SHARED.get_or_init(Self::start)
    }

    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (port, monitor) = (free_port(), free_port());
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/rgw.sh");
        let mut child = Command::new(script)
            .arg(folder.path())
            .args([port.to_string(), monitor.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let said = lines.next().and_then(Result::ok);
        let log = || std::fs::read_to_string(folder.path().join("setup.log")).unwrap_or_default();
        assert_eq!(said.as_deref(), Some("ready"), "{}", log());
        Self {
            child,
            folder,
            port,
        }
    }

    fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// A new bucket.
    fn bucket(&self) -> String {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let name = format!("shows-{}", COUNT.fetch_add(1, Ordering::Relaxed));
        self.curl(&["-X", "PUT"], &name);
        name
    }

    /// What curl gets for `path`, signed.
    fn curl(&self, args: &[&str], path: &str) -> String {
        let mut curl = command("curl");
        curl.args(["-sS", "--fail-with-body", "--user", "AK:SK"])
            .args(["--aws-sigv4", "aws:amz:us-east-1:s3"])
            .args(["-H", &format!("x-amz-content-sha256: {EMPTY_SHA256}")])
            .args(args)
            .arg(format!("{}/{path}", self.endpoint()));
        run_ok(curl, LIMIT)
    }

    /// The names of all objects in `bucket`.
    fn list(&self, bucket: &str) -> BTreeSet<String> {
        let text = self.curl(&[], &format!("{bucket}?list-type=2"));
        let document = roxmltree::Document::parse(&text).unwrap();
        let is_key = |node: &roxmltree::Node<'_, '_>| {
            node.has_tag_name(("http://s3.amazonaws.com/doc/2006-03-01/", "Key"))
        };
        let keys = document.descendants().filter(is_key);
        keys.filter_map(|node| node.text().map(str::to_owned))
            .collect()
    }

    /// Has the gateway's process stand still, or go on.
    fn signal(&self, name: &str) {
        let pid = std::fs::read_to_string(self.folder.path().join("client.rgw.pid")).unwrap();
        let mut kill = command("kill");
        kill.args([name, pid.trim()]);
        run_ok(kill, LIMIT);
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        if let Some(mut input) = self.child.stdin.take() {
            let _ = input.flush();
        }
        let _ = self.child.wait();
    }
}

/// A port that was free a moment ago; Ceph cannot choose one itself.
fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

/// `headwater serve` on `url`, with the secret that goes with the access key.
fn serve(folder: &std::path::Path, endpoint: &str, (url, secret): (&str, &str)) -> Command {
    let config = folder.join("config.toml");
    let text =
        format!("[store]\nendpoint = \"{endpoint}\"\nregion = \"us-east-1\"\ntimeout = \"2s\"\n");
    std::fs::write(&config, text).unwrap();
    let mut command = headwater(&["serve", "--rtmp", "127.0.0.1:0", "--http", "127.0.0.1:0"]);
    command
        .args(["--store", url, "--ladder", &small_ladder(), "--config"])
        .arg(config)
        .env("AWS_ACCESS_KEY_ID", "AK")
        .env("AWS_SECRET_ACCESS_KEY", secret);
    command
}

fn serve_on(gateway: &Gateway, bucket: &str) -> Server {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("s3://{bucket}/origin");
    let command = serve(folder.path(), &gateway.endpoint(), (&url, "SK"));
    Server::start_command(command, folder)
}

/// Fails unless every playlist of `stream` in `bucket` names only what is there.
fn check_promise(gateway: &Gateway, bucket: &str, stream: &str) {
    // The playlists first: what they name was stored before them, and stays for longer than this takes.
    let base = format!("origin/live/{stream}");
    for rendition in ["v360", "v180", "a96"] {
        let path = format!("{base}/{rendition}");
        let text = gateway.curl(&[], &format!("{bucket}/{path}/index.m3u8"));
        let there = gateway.list(bucket);
        let segments = text
            .lines()
            .filter(|line| !line.starts_with('#') && !line.is_empty());
        let map = text
            .split("URI=\"")
            .nth(1)
            .and_then(|rest| rest.split('"').next());
        let names: Vec<_> = segments.chain(map).collect();
        assert!(names.len() > 1, "{text}");
        for name in names {
            assert!(
                there.contains(&format!("{path}/{name}")),
                "{name} of {path}: {there:#?}"
            );
        }
    }
}

#[test]
fn bucket_holds_what_is_served_with_its_headers() {
    let gateway = Gateway::shared();
    let bucket = gateway.bucket();
    let server = serve_on(gateway, &bucket);
    let mut publisher = ffmpeg_publish(&server.publish_url("film"), 9);
    server.wait_for("/live/film/manifest.mpd", LIMIT);
    check_promise(gateway, &bucket, "film");
    publisher.wait(LIMIT);
    eventually("the end in the bucket", LIMIT, || {
        let path = format!("{bucket}/origin/live/film/v180/index.m3u8");
        gateway
            .curl(&[], &path)
            .contains("#EXT-X-ENDLIST")
            .then_some(())
    });
    check_promise(gateway, &bucket, "film");
    let there = gateway.list(&bucket);
    assert!(
        there.iter().all(|name| !name.contains("probe")),
        "{there:#?}"
    );
    let segment = there
        .iter()
        .find(|name| name.contains("/v180/") && name.ends_with(".m4s"))
        .unwrap();
    let headers = gateway
        .curl(&["-I", "-X", "HEAD"], &format!("{bucket}/{segment}"))
        .to_ascii_lowercase();
    assert!(headers.contains("content-type: video/mp4"), "{headers}");
    assert!(headers.contains("max-age=31536000, immutable"), "{headers}");
    let served = server.get(segment.strip_prefix("origin").unwrap());
    assert_eq!(served.status, 200);
    assert_eq!(
        served.header("content-length").map(str::to_owned),
        header(&headers, "content-length")
    );
    let playlist = gateway.curl(
        &["-I", "-X", "HEAD"],
        &format!("{bucket}/origin/live/film/index.m3u8"),
    );
    assert!(
        playlist
            .to_ascii_lowercase()
            .contains("content-type: application/vnd.apple.mpegurl"),
        "{playlist}"
    );
    let (code, _) = server.drain();
    assert_eq!(code, 0);
}

#[test]
fn viewers_notice_nothing_while_the_service_does_not_answer() {
    // One of its own: the others must not wait for it.
    let gateway = Gateway::start();
    let bucket = gateway.bucket();
    let server = serve_on(&gateway, &bucket);
    let publisher = ffmpeg_publish(&server.publish_url("film"), 120);
    server.wait_for("/live/film/manifest.mpd", LIMIT);
    let last = |text: &str| -> u64 {
        let name = text
            .lines()
            .rfind(|line| line.ends_with(".m4s") && !line.starts_with('#'));
        name.and_then(|name| name.strip_suffix(".m4s")?.parse().ok())
            .unwrap_or(0)
    };
    gateway.signal("-STOP");
    let before = last(&server.get("/live/film/v180/index.m3u8").text());
    eventually("four segments more, the store being away", LIMIT, || {
        let now = last(&server.get("/live/film/v180/index.m3u8").text());
        (now >= before + 4).then_some(())
    });
    let metrics = server.get("/metrics").text();
    let failures = metrics
        .lines()
        .find(|line| line.starts_with("headwater_store_failures_total"));
    assert!(
        failures.is_some_and(|line| !line.ends_with(" 0")),
        "{failures:?}"
    );
    gateway.signal("-CONT");
    eventually("what was kept is stored", LIMIT, || {
        let stored = gateway.curl(&[], &format!("{bucket}/origin/live/film/v180/index.m3u8"));
        (last(&stored) >= before + 4).then_some(())
    });
    check_promise(&gateway, &bucket, "film");
    drop(publisher);
    let lost = server.get("/metrics").text();
    assert!(lost.contains("headwater_store_lost_total 0\n"), "{lost}");
}

#[test]
fn what_is_wrong_with_a_store_is_one_sentence() {
    let gateway = Gateway::shared();
    let bucket = gateway.bucket();
    let dead = format!("http://127.0.0.1:{}", free_port());
    let url = format!("s3://{bucket}/origin");
    for (endpoint, url, secret, told) in [
        (
            gateway.endpoint(),
            url.as_str(),
            "wrong",
            "AWS_SECRET_ACCESS_KEY",
        ),
        (
            gateway.endpoint(),
            "s3://nowhere",
            "SK",
            "check that the bucket exists",
        ),
        (dead, url.as_str(), "SK", "check store.endpoint"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let (code, _, said) = run(serve(folder.path(), &endpoint, (url, secret)), LIMIT);
        assert_eq!(code, 1, "{said}");
        let line = said
            .lines()
            .find(|line| line.contains("store.url"))
            .unwrap_or_else(|| panic!("{said}"));
        assert!(line.contains(told) && line.contains(url), "{line}");
    }
}

fn header(headers: &str, name: &str) -> Option<String> {
    let line = headers
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
    line.map(|value| value.trim().to_owned())
}

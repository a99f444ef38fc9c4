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

#[path = "store_s3/faults.rs"]
mod faults;
#[path = "store_s3/gateway.rs"]
mod gateway;
#[path = "store_s3/kills.rs"]
mod kills;
#[path = "store_s3/pair.rs"]
mod pair;
#[path = "store_s3/plain.rs"]
mod plain;
#[path = "store_s3/proxy.rs"]
mod proxy;
#[path = "store_s3/second.rs"]
mod second;
#[path = "store_s3/watch.rs"]
mod watch;

use std::process::Command;

use common::{Server, eventually, ffmpeg_publish, headwater, run, small_ladder};
use gateway::{Gateway, LIMIT, free_port};

/// `headwater serve` on `url`, with the secret that goes with the access key.
pub(crate) fn serve(
    folder: &std::path::Path,
    endpoint: &str,
    (url, secret): (&str, &str),
) -> Command {
    let config = folder.join("config.toml");
    let text = format!(
        "[store]\nendpoint = \"{endpoint}\"\nregion = \"us-east-1\"\ntimeout = \"2s\"\nspool = \"{}\"\n",
        folder.join("spool").display()
    );
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
    let marker = "origin/headwater-store.json";
    assert!(there.contains(marker), "{there:#?}");
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
    // An earlier release has left none.
    gateway.curl(&["-X", "DELETE"], &format!("{bucket}/{marker}"));
    let server = serve_on(gateway, &bucket);
    assert!(gateway.list(&bucket).contains(marker));
    let (code, _) = server.drain();
    assert_eq!(code, 0);
}

#[test]
fn a_prefix_that_something_else_uses_is_refused_in_one_sentence_and_left_as_it_is() {
    let gateway = Gateway::shared();
    let bucket = gateway.bucket();
    let empty = ["-X", "PUT", "-H", "Content-Length: 0"];
    for name in ["origin/live/cam/index.m3u8", "other/photo.jpg"] {
        gateway.curl(&empty, &format!("{bucket}/{name}"));
    }
    let before = gateway.list(&bucket);
    let start = |url: &str| {
        let folder = tempfile::tempdir().unwrap();
        let command = serve(folder.path(), &gateway.endpoint(), (url, "SK"));
        run(command, LIMIT)
    };
    let root = format!("s3://{bucket}");
    for (url, found) in [
        (format!("{root}/origin"), "live/cam/index.m3u8"),
        (format!("{root}/other"), "photo.jpg"),
        (root.clone(), "origin"),
    ] {
        let (code, _, said) = start(&url);
        assert_eq!(code, 1, "{said}");
        let line = said.lines().find(|line| line.contains("store.url"));
        let line = line.unwrap_or_else(|| panic!("{said}"));
        let told = format!("{url} is used by something else: found \"{found}\"");
        assert!(line.contains(&told) && line.contains("empty"), "{line}");
    }
    assert_eq!(gateway.list(&bucket), before);
    // The operator says that it may be shared.
    let marker = format!("{bucket}/origin/headwater-store.json");
    gateway.curl(&empty, &marker);
    let (code, _) = serve_on(gateway, &bucket).drain();
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

#[test]
fn a_bucket_that_may_only_be_read_is_refused_in_one_sentence_and_left_as_it_is() {
    let gateway = Gateway::shared();
    let bucket = gateway.bucket();
    let before = "sign".to_owned();
    let empty = ["-X", "PUT", "-H", "Content-Length: 0"];
    gateway.curl(&empty, &format!("{bucket}/{before}"));
    gateway.deny(&bucket, "s3:PutObject");
    let folder = tempfile::tempdir().unwrap();
    let url = format!("s3://{bucket}/origin");
    let (code, _, said) = run(
        serve(folder.path(), &gateway.endpoint(), (&url, "SK")),
        LIMIT,
    );
    assert_eq!(code, 1, "{said}");
    let line = said.lines().find(|line| line.contains("store.url"));
    let line = line.unwrap_or_else(|| panic!("{said}"));
    assert!(
        line.contains("cannot write to") && line.contains("what they may do"),
        "{line}"
    );
    assert_eq!(gateway.list(&bucket), [before].into());
}

fn header(headers: &str, name: &str) -> Option<String> {
    let line = headers
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
    line.map(|value| value.trim().to_owned())
}

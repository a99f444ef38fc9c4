//! A server that only reads: live and recorded, from the store alone.
//!
//! Enters: the film, published by ffmpeg to a server that writes; requests to one that reads
//! Leaves: the same bytes and playlists from both, one read for many who ask at once
//! Never:  a claim that depends on how fast the machine is
//! Time:   wall clock
//! Spec:   docs/storage.md

#![cfg(feature = "gst")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test may fail loudly"
)]

mod common;

use std::time::Duration;

use common::{Server, eventually, ffmpeg_publish, get, headwater, run, run_ok, small_ladder, tool};

/// What no step here needs on an idle machine, four times over.
const LIMIT: Duration = Duration::from_secs(60);
const CROWD: usize = 200;

/// The counter `name` of `server`.
fn counter(server: &Server, name: &str) -> u64 {
    let text = server.get("/metrics").text();
    let value = text
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix("_total "));
    value
        .unwrap_or_else(|| panic!("no {name} in {text}"))
        .parse()
        .unwrap()
}

/// The last segment that `playlist` names.
fn last_segment(playlist: &str) -> Option<&str> {
    playlist.lines().rfind(|line| line.ends_with(".m4s"))
}

fn follow_live(writer: &Server, reader: &Server) {
    let media = "/live/show/v180/index.m3u8";
    let listed = eventually("a segment in the store", LIMIT, || {
        let answer = reader.get(media);
        (answer.status == 200).then(|| answer.text())
    });
    assert!(!listed.contains("#EXT-X-PART"), "{listed}");
    let answer = reader.get(media);
    assert_eq!(answer.header("cache-control"), Some("public, max-age=1"));
    assert_eq!(answer.header("access-control-allow-origin"), Some("*"));
    // It goes on.
    let first = last_segment(&listed).unwrap().to_owned();
    eventually("the next segment", LIMIT, || {
        (last_segment(&reader.get(media).text())? != first).then_some(())
    });
    let path = format!("/live/show/v180/{first}");
    let (theirs, ours) = (writer.get(&path), reader.get(&path));
    assert_eq!((theirs.status, ours.status), (200, 200));
    assert_eq!(theirs.body, ours.body);
    assert_eq!(theirs.header("etag"), ours.header("etag"));
    for path in [
        "/live/show/v180/index.m3u8",
        "/live/show/index.m3u8",
        "/live/show/manifest.mpd",
    ] {
        reader.wait_for(path, LIMIT);
    }
    for path in [
        "/live/show/v180/1.m4s",
        "/live/show/v180/1.0.m4s",
        "/live/nobody/index.m3u8",
    ] {
        assert_eq!(reader.get(path).status, 404, "{path}");
    }
    let streams = reader.get("/api/v1/streams").json();
    assert_eq!(streams["streams"][0]["name"], "show", "{streams}");
    assert_eq!(streams["streams"][0]["state"], "live", "{streams}");
    assert_eq!(reader.get("/readyz").status, 200);
}

fn inspected(reader: &Server, length: &str) {
    let url = reader.url("/live/show/index.m3u8");
    let (code, out, err) = run(headwater(&["inspect", &url, "--for", length]), LIMIT);
    assert_eq!(code, 0, "{out}{err}");
}

/// Many who ask at once for what nobody has asked for yet cause one read.
fn crowd(reader: &Server, path: &str) {
    let before = counter(reader, "headwater_origin_reads");
    let answers: Vec<_> = std::thread::scope(|scope| {
        let asked: Vec<_> = (0..CROWD)
            .map(|_| scope.spawn(|| get(&reader.http, path)))
            .collect();
        asked
            .into_iter()
            .map(|asked| asked.join().unwrap())
            .collect()
    });
    assert!(
        answers
            .iter()
            .all(|answer| answer.status == 200 && answer.body == answers[0].body)
    );
    assert_eq!(counter(reader, "headwater_origin_reads") - before, 1);
}

fn play(url: &str) {
    let args = [
        "-v", "error", "-xerror", "-i", url, "-t", "6", "-f", "null", "-",
    ];
    run_ok(tool("ffmpeg", &args), LIMIT);
}

#[test]
fn a_node_that_only_reads_serves_what_another_stores() {
    let writer = Server::start(&["--ladder", &small_ladder()]);
    // The folder is not the reader's own: it may be read, and that is enough.
    let reader = Server::start_origin(writer.store.path());
    let publisher = ffmpeg_publish(&writer.publish_url("show"), 300);
    follow_live(&writer, &reader);
    inspected(&reader, "8s");
    play(&reader.url("/live/show/index.m3u8"));
    drop(publisher);
    let (code, store) = writer.drain();
    assert_eq!(code, 0);
    let media = "/live/show/v360/index.m3u8";
    let ended = eventually("the end", LIMIT, || {
        let text = reader.get(media).text();
        text.contains("#EXT-X-ENDLIST").then_some(text)
    });
    crowd(
        &reader,
        &format!("/live/show/v360/{}", last_segment(&ended).unwrap()),
    );
    inspected(&reader, "5s");
    for manifest in ["index.m3u8", "manifest.mpd"] {
        play(&reader.url(&format!("/live/show/{manifest}")));
    }
    assert_eq!(reader.drain().0, 0);
    drop(store);
}

#[test]
fn a_broadcast_that_was_cut_off_is_told_from_one_that_goes_on() {
    let mut writer = Server::start(&["--ladder", &small_ladder()]);
    let _publisher = ffmpeg_publish(&writer.publish_url("show"), 300);
    writer.wait_for("/live/show/v180/index.m3u8", LIMIT);
    let reader = Server::start_origin(writer.store.path());
    for path in ["/live/show/v180/index.m3u8", "/live/show/manifest.mpd"] {
        reader.wait_for(path, LIMIT);
    }
    // Killed: nothing says that it has ended.
    let pid = writer.process().pid().to_string();
    run_ok(tool("kill", &["-KILL", &pid]), LIMIT);
    for path in ["/live/show/v180/index.m3u8", "/live/show/manifest.mpd"] {
        let answer = eventually(path, LIMIT, || {
            let answer = reader.get(path);
            (answer.status == 503).then_some(answer)
        });
        assert!(answer.header("retry-after").is_some());
    }
}

#[test]
fn what_cannot_be_read_is_named_with_its_setting() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("missing");
    for (store, said) in [
        (
            missing.to_str().unwrap(),
            "store.url: cannot read the folder",
        ),
        ("memory://", "store.url: found \"memory://\""),
    ] {
        let (code, _, err) = run(
            headwater(&["origin", "--http", "127.0.0.1:0", "--store", store]),
            LIMIT,
        );
        assert_eq!(code, 1, "{err}");
        assert!(err.contains(said), "{err}");
    }
}

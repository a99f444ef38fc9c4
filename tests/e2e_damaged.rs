//! A store in which something was damaged, or put by somebody else, while the server was down.
//!
//! Enters: the film, published by ffmpeg; garbage, what another program would write, and what was cut short
//! Leaves: a server that says what is wrong, and harms nothing
//! Never:  a claim that depends on how fast the machine is
//! Time:   wall clock
//! Spec:   docs/storage.md, docs/recordings.md, docs/resilience.md

#![cfg(feature = "gst")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test may fail loudly"
)]

mod common;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use common::{Server, eventually, ffmpeg_publish, run, serve_on, small_ladder};

/// What no step here needs on an idle machine, many times over.
const LIMIT: Duration = Duration::from_secs(120);

const CONFIG: &str =
    "[archive]\nkeep = \"forever\"\n[package]\nwindow_segments = 6\nkept_segments = 7\n";

/// What has become of something that was `whole`: garbage, another program's, cut short.
fn damaged(whole: &[u8]) -> [Vec<u8>; 3] {
    let garbage = (0..=255).collect();
    let foreign = b"{\"format\":\"photo-album\",\"version\":1}\n".to_vec();
    [garbage, foreign, whole[..whole.len() / 2].to_vec()]
}

/// All files below `folder`, and what is in them.
fn files(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let (mut found, mut folders) = (BTreeMap::new(), vec![folder.to_owned()]);
    while let Some(next) = folders.pop() {
        for entry in std::fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let body = std::fs::read(&path).unwrap();
                found.insert(path, body);
            }
        }
    }
    found
}

/// The newest record in `store`.
fn newest_show(store: &Path) -> Option<PathBuf> {
    let files = std::fs::read_dir(store.join("live/show")).ok()?;
    let files = files.map(|file| file.unwrap().path());
    let is_record = |path: &PathBuf| path.extension().is_some_and(|end| end == "json");
    files.filter(is_record).max()
}

/// How many segments the newest record of `server` has, other than that in `before`.
fn recorded(server: &Server, before: Option<&Path>) -> Option<u64> {
    let path = newest_show(server.store.path()).filter(|path| Some(&**path) != before)?;
    let record: serde_json::Value = serde_json::from_slice(&std::fs::read(path).ok()?).ok()?;
    Some(record["end"].as_u64()? - record["from"].as_u64()?)
}

/// The lines in which a log speaks of `key`.
fn said<'l>(log: &'l str, key: &str) -> Vec<&'l str> {
    let lines = log
        .lines()
        .filter(|line| line.contains("WARN") || line.contains("ERROR"));
    lines.filter(|line| line.contains(key)).collect()
}

#[test]
fn a_stream_comes_up_though_its_playlist_and_its_record_are_damaged_and_nothing_of_them_is_lost() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("headwater.toml");
    std::fs::write(&config, CONFIG).unwrap();
    let ladder = small_ladder();
    let args = ["--ladder", &ladder, "--config", config.to_str().unwrap()];
    let server = Server::start(&args);
    let publisher = ffmpeg_publish(&server.publish_url("show"), 600);
    eventually("four segments", LIMIT, || {
        recorded(&server, None).filter(|count| *count >= 4)
    });
    let mut store = server.into_store();
    drop(publisher);
    for kind in 0..3 {
        let playlist = store.path().join("live/show/v180/index.m3u8");
        let record = newest_show(store.path()).unwrap();
        for path in [&playlist, &record] {
            let whole = std::fs::read(path).unwrap();
            std::fs::write(path, &damaged(&whole)[kind]).unwrap();
        }
        let before = files(store.path());
        let server = Server::start_on(store, &args);
        let publisher = ffmpeg_publish(&server.publish_url("show"), 600);
        eventually("the next show", LIMIT, || {
            recorded(&server, Some(&record)).filter(|count| *count >= 4)
        });
        for rendition in ["v180", "v360", "a96"] {
            let listed = server.get(&format!("/live/show/{rendition}/index.m3u8"));
            assert_eq!(listed.status, 200, "{kind}: {}", listed.text());
            let count = listed.text().matches("#EXTINF:").count();
            assert!(count >= 3, "{kind}: {}", listed.text());
        }
        let log = server.log();
        let name = record.file_name().unwrap().to_str().unwrap();
        // By each who looks for it: what looks after recordings, and the broadcast that begins.
        let said_of_record = said(&log, name);
        let is_left = |line: &&str| line.contains("this record is left as it is");
        let are_told = !said_of_record.is_empty() && said_of_record.iter().all(is_left);
        assert!(are_told && said_of_record.len() <= 3, "{kind}: {log}");
        assert_eq!(
            said(&log, "live/show/v180/index.m3u8").len(),
            1,
            "{kind}: {log}"
        );
        store = server.into_store();
        drop(publisher);
        let after = files(store.path());
        assert_eq!(
            after.get(&record),
            before.get(&record),
            "{kind}: it is left as it is"
        );
        for (path, body) in &before {
            let is_media = path
                .extension()
                .is_some_and(|end| end == "m4s" || end == "mp4");
            let is_same = || after.get(path) == Some(body);
            assert!(!is_media || is_same(), "{kind}: {}", path.display());
        }
    }
}

#[test]
fn a_store_whose_marker_is_damaged_is_refused_in_one_sentence_and_left_as_it_is() {
    let server = Server::start(&["--ladder", &small_ladder()]);
    let (code, store) = server.drain();
    assert_eq!(code, 0);
    let marker = store.path().join("headwater-store.json");
    let whole = std::fs::read(&marker).unwrap();
    let playlist = store.path().join("live/show/v180/index.m3u8");
    std::fs::create_dir_all(playlist.parent().unwrap()).unwrap();
    std::fs::write(
        playlist,
        "#EXTM3U\n#EXT-X-MAP:URI=\"init-7.mp4\"\n#EXTINF:2,\n7.m4s\n",
    )
    .unwrap();
    for damaged in damaged(&whole) {
        std::fs::write(&marker, &damaged).unwrap();
        let before = files(store.path());
        let (code, _, err) = run(serve_on(store.path()), LIMIT);
        assert_eq!(code, 1, "{err}");
        let lines: Vec<_> = err
            .lines()
            .filter(|line| line.contains("headwater-store.json"))
            .collect();
        assert_eq!(lines.len(), 1, "{err}");
        let names = lines[0].contains("store.url") && lines[0].contains("did not write");
        assert!(
            names && lines[0].contains("Nothing was written over"),
            "{err}"
        );
        assert_eq!(files(store.path()), before);
    }
    std::fs::write(&marker, whole).unwrap();
    assert_eq!(Server::start_on(store, &[]).drain().0, 0);
}

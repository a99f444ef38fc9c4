//! Recordings: a show and clips of it from the server that made it, from one that only reads and from plain files;
//! one MP4 of it.
//!
//! Enters: the film, published by ffmpeg
//! Leaves: the same samples whichever way they are fetched
//! Never:  a claim that depends on how fast the machine is
//! Time:   wall clock
//! Spec:   docs/recordings.md

#![cfg(feature = "gst")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test may fail loudly"
)]

mod common;

use std::path::Path;
use std::time::Duration;

use common::{Server, eventually, ffmpeg_publish, headwater, run, run_ok, small_ladder, tool};

/// What no step here needs on an idle machine, many times over.
const LIMIT: Duration = Duration::from_secs(120);

const CONFIG: &str = "[archive]\nkeep = \"forever\"\n[broadcast]\nreconnect_grace = \"0s\"\n\
    [package]\nwindow_segments = 6\nkept_segments = 7\n";

/// The number by which the only show in `store` is called.
fn show_in(store: &Path) -> Option<u64> {
    let files = std::fs::read_dir(store.join("live/show")).ok()?;
    let name = |file: std::fs::DirEntry| file.file_name().into_string().unwrap();
    let mut numbers = files.filter_map(|file| {
        let name = name(file.unwrap());
        name.strip_prefix("show-")?
            .strip_suffix(".json")?
            .parse()
            .ok()
    });
    let number = numbers.next()?;
    assert_eq!(numbers.next(), None, "one broadcast is one show");
    Some(number)
}

fn stored(record: &serde_json::Value) -> u64 {
    record["end"].as_u64().unwrap() - record["from"].as_u64().unwrap()
}

/// MD5 of the samples of a stream as they are stored, without their times.
fn samples(input: &str, map: &str) -> String {
    let args = [
        "-v",
        "error",
        "-xerror",
        "-i",
        input,
        "-map",
        map,
        "-c",
        "copy",
        "-f",
        "streamhash",
        "-hash",
        "md5",
        "-",
    ];
    run_ok(tool("ffmpeg", &args), LIMIT)
}

/// Decodes all of it without an error; how many seconds there are.
fn play(input: &str) -> f64 {
    let args = [
        "-v",
        "error",
        "-show_entries",
        "format=duration",
        "-of",
        "csv=p=0",
        input,
    ];
    let length = run_ok(tool("ffprobe", &args), LIMIT);
    let length: f64 = length.trim().parse().unwrap();
    // Of an MPD whose last segment is whole, ffmpeg asks for one more, and that is an error to it.
    let spared = if input.contains(".mpd") { 1.0 } else { 0.0 };
    let limit = (length - spared).to_string();
    let args = [
        "-v", "error", "-xerror", "-i", input, "-t", &limit, "-f", "null", "-",
    ];
    run_ok(tool("ffmpeg", &args), LIMIT);
    length
}

/// Whether two lengths are the same; of an MPD ffmpeg reads whole seconds.
fn near(path: &str, found: f64, expected: f64) -> bool {
    let off = if path.contains("mpd") { 1.0 } else { 0.1 };
    (found - expected).abs() < off
}

/// The lengths that a playlist lists, together.
fn listed(playlist: &str) -> f64 {
    let lengths = playlist
        .lines()
        .filter_map(|line| line.strip_prefix("#EXTINF:"));
    lengths
        .map(|length| length.trim_end_matches(',').parse::<f64>().unwrap())
        .sum()
}

fn starts_over(server: &Server, first: u64) {
    let start = first * 2 + 3;
    let text = server.wait_for(&format!("/live/show/v180/index.m3u8?start={start}"), LIMIT);
    assert!(text.contains("#EXT-X-PLAYLIST-TYPE:EVENT\n"), "{text}");
    assert!(text.contains(&format!("\n{}.m4s\n", first + 1)), "{text}");
    assert!(!text.contains(&format!("\n{first}.m4s\n")), "{text}");
    let mpd = server.wait_for(&format!("/live/show/manifest.mpd?start={start}"), LIMIT);
    assert!(mpd.contains("type=\"dynamic\""), "{mpd}");
    for (query, status) in [
        (format!("start={start}&end={start}"), 400),
        (format!("start={}&end={start}", start + 2), 400),
        ("end=5".to_owned(), 400),
        ("start=yesterday".to_owned(), 400),
        ("start=5&end=7".to_owned(), 404),
    ] {
        for manifest in ["index.m3u8", "manifest.mpd", "v180/index.m3u8"] {
            let answer = server.get(&format!("/live/show/{manifest}?{query}"));
            assert_eq!(
                answer.status,
                status,
                "{manifest}?{query}: {}",
                answer.text()
            );
        }
    }
}

/// The whole show and a clip of it, in HLS and in DASH.
fn plays_all(server: &Server, first: u64, length: f64) {
    let clip = format!("start={}&end={}", first * 2 + 3, first * 2 + 9);
    for (path, expected) in [
        (format!("show-{first}.m3u8"), length),
        (format!("show-{first}.mpd"), length),
        (format!("index.m3u8?{clip}"), 8.0),
        (format!("manifest.mpd?{clip}"), 8.0),
    ] {
        let answer = server.get(&format!("/live/show/{path}"));
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        assert_eq!(
            answer.header("cache-control"),
            Some("public, max-age=3600"),
            "{path}"
        );
        let found = play(&server.url(&format!("/live/show/{path}")));
        assert!(
            near(&path, found, expected),
            "{path}: {found} s of {expected}"
        );
    }
    let url = server.url(&format!("/live/show/show-{first}.m3u8"));
    let (code, out, err) = run(headwater(&["inspect", &url, "--for", "4s"]), LIMIT);
    assert_eq!(code, 0, "{out}{err}");
}

fn exports(server: &Server, store: &Path, first: u64, length: f64) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("show.mp4");
    let (file, store) = (file.to_str().unwrap(), store.to_str().unwrap());
    run_ok(
        headwater(&["export", "show", file, "--store", store]),
        LIMIT,
    );
    let found = play(file);
    assert!((found - length).abs() < 0.1, "{found} s of {length}");
    for (map, rendition) in [("0:v", "v360"), ("0:a", "a96")] {
        let url = server.url(&format!("/live/show/{rendition}/show-{first}.m3u8"));
        assert_eq!(samples(file, map), samples(&url, "0"), "{rendition}");
    }
    let (code, _, err) = run(
        headwater(&["export", "show", file, "--store", store]),
        LIMIT,
    );
    assert!(code == 1 && err.contains("is there already"), "{err}");
    let clip = folder.path().join("clip.mp4");
    let clip = clip.to_str().unwrap();
    let (start, end) = ((first * 2 + 2).to_string(), (first * 2 + 6).to_string());
    let args = [
        "export",
        "show",
        clip,
        "--store",
        store,
        "--start",
        &start,
        "--end",
        &end,
        "--rendition",
        "v180",
    ];
    run_ok(headwater(&args), LIMIT);
    let found = play(clip);
    assert!((found - 4.0).abs() < 0.1, "{found} s");
}

#[test]
fn a_show_is_played_from_any_moment_cut_and_exported_and_the_samples_stay_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("headwater.toml");
    std::fs::write(&config, CONFIG).unwrap();
    let config = config.to_str().unwrap();
    let writer = Server::start(&["--ladder", &small_ladder(), "--config", config]);
    let publisher = ffmpeg_publish(&writer.publish_url("show"), 20);
    let first = eventually("a record", LIMIT, || show_in(writer.store.path()));
    let record = format!("/live/show/show-{first}.json");
    // More than the window and what is kept beyond it would be deleted without an archive.
    eventually("three segments", LIMIT, || {
        (stored(&writer.get(&record).json()) > 2).then_some(())
    });
    starts_over(&writer, first);
    let reader = Server::start_origin(writer.store.path());
    starts_over(&reader, first);
    let ended = eventually("the end", LIMIT, || {
        let record = writer.get(&record).json();
        record["ended"].as_bool().unwrap().then_some(record)
    });
    drop(publisher);
    assert!(stored(&ended) >= 9, "{ended}");
    let playlist = writer
        .get(&format!("/live/show/v360/show-{first}.m3u8"))
        .text();
    assert!(playlist.ends_with("#EXT-X-ENDLIST\n"), "{playlist}");
    let length = listed(&playlist);
    plays_all(&writer, first, length);
    let media = writer.url(&format!("/live/show/v180/show-{first}.m3u8"));
    let samples_of_writer = samples(&media, "0");
    let (code, store) = writer.drain();
    assert_eq!(code, 0);
    // Nobody writes any more.
    plays_all(&reader, first, length);
    let media = reader.url(&format!("/live/show/v180/show-{first}.m3u8"));
    assert_eq!(samples(&media, "0"), samples_of_writer);
    exports(&reader, store.path(), first, length);
    // Any server of files will do.
    for manifest in ["m3u8", "mpd"] {
        let file = store
            .path()
            .join(format!("live/show/show-{first}.{manifest}"));
        let found = play(file.to_str().unwrap());
        assert!(
            near(manifest, found, length),
            "{manifest}: {found} s of {length}"
        );
    }
    assert_eq!(reader.drain().0, 0);
}

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
#[path = "common/players.rs"]
mod players;

use std::path::Path;
use std::time::Duration;

use common::{
    Process, Server, assert_rules_kept, eventually, ffmpeg_publish, headwater, run, run_ok,
    small_ladder, tool,
};

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

/// What an export says on a terminal, and without one: the bar goes up to the end, or is not there.
fn shows_how_far_it_is(store: &Path, first: u64) {
    let folder = tempfile::tempdir().unwrap();
    let (start, end) = ((first * 2).to_string(), (first * 2 + 12).to_string());
    let args = |name: &str| {
        let file = folder.path().join(name).to_str().unwrap().to_owned();
        let store = store.to_str().unwrap();
        [
            "export", "show", &file, "--store", store, "--start", &start, "--end", &end,
        ]
        .map(str::to_owned)
    };
    let plain = args("plain.mp4");
    let (code, out, err) = run(headwater(&plain.each_ref().map(String::as_str)), LIMIT);
    assert_eq!(code, 0, "{err}");
    for text in [out, err] {
        let is_control = |c: char| c.is_control() && c != '\n';
        assert!(!text.contains(is_control), "{text:?}");
    }
    let program = env!("CARGO_BIN_EXE_headwater");
    let line = format!("{program} {}", args("terminal.mp4").join(" "));
    let terminal = tool("script", &["-qec", &line, "/dev/null"]);
    let shown = run_ok(terminal, LIMIT);
    let percent = |piece: &str| piece.rsplit_once(' ')?.1.parse::<u32>().ok();
    let pieces: Vec<_> = shown.split(" %").collect();
    let percents: Vec<_> = pieces.iter().filter_map(|piece| percent(piece)).collect();
    assert!(percents.is_sorted(), "{percents:?}: {shown:?}");
    assert_eq!(percents.last(), Some(&100), "{shown:?}");
    assert!(percents[0] < 100, "{shown:?}");
    // Nothing of it stays.
    let (_, after) = shown.rsplit_once('%').unwrap();
    let is_cleared = after.contains("\u{1b}[2K") && after.contains("wrote 12 s of media");
    assert!(is_cleared, "{after:?}");
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
    shows_how_far_it_is(store.path(), first);
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

const DVR: &str = "[archive]\nkeep = \"forever\"\ndvr = \"3min\"\n\
    [package]\nwindow_segments = 6\nkept_segments = 7\n";

/// The numbers that a media playlist lists, and whether each is a gap.
fn numbers(playlist: &str) -> Vec<(u64, bool)> {
    let (mut found, mut gap) = (Vec::new(), false);
    for line in playlist.lines() {
        gap |= line == "#EXT-X-GAP";
        if let Some(number) = line.strip_suffix(".m4s").filter(|_| !line.starts_with('#')) {
            found.push((number.parse().unwrap(), gap));
            gap = false;
        }
    }
    found
}

/// The first number that `playlist` of the stream lists, once it lists `count` of them.
fn listed_from(server: &Server, playlist: &str, count: usize) -> u64 {
    eventually("what reaches far enough back", LIMIT, || {
        let answer = server.get(playlist);
        let found = numbers(&answer.text());
        let consecutive = found.windows(2).all(|two| two[0].0 + 1 == two[1].0);
        assert!(consecutive, "{}", answer.text());
        (answer.status == 200 && found.len() >= count).then(|| found[0].0)
    })
}

/// Rules of how soon something is there, which a busy machine cannot keep.
const LENIENT: [&str; 3] = ["HLS-REFRESH", "LL-BLOCKING-TIME", "DASH-EDGE"];

/// Whoever serves says the same of what is behind, whole and skipped, and `headwater inspect` finds nothing.
fn reaches_back(server: &Server, first: u64) {
    for rendition in ["v360", "v180", "a96"] {
        let playlist = format!("/live/show/{rendition}/dvr.m3u8");
        let whole = server.get(&playlist);
        assert_eq!(
            numbers(&whole.text())[0],
            (first, false),
            "{}",
            whole.text()
        );
        assert_eq!(whole.header("cache-control"), Some("public, max-age=1"));
        let delta = server.get(&format!("{playlist}?_HLS_skip=YES")).text();
        assert!(delta.contains("#EXT-X-SKIP:SKIPPED-SEGMENTS="), "{delta}");
        assert!(delta.len() < whole.text().len(), "{delta}");
        // The oldest that is listed can be had.
        let oldest = server.get(&format!("/live/show/{rendition}/{first}.m4s"));
        assert_eq!(oldest.status, 200);
        let live = server
            .get(&format!("/live/show/{rendition}/index.m3u8"))
            .text();
        assert!(
            numbers(&live)[0].0 > first && !live.contains("dvr"),
            "{live}"
        );
    }
    let mpd = server.get("/live/show/dvr.mpd").text();
    let (_, depth) = mpd.split_once("timeShiftBufferDepth=\"PT").unwrap();
    let depth: f64 = depth.split_once("S\"").unwrap().0.parse().unwrap();
    assert!(depth > 20.0 && depth < 300.0, "{mpd}");
    obeys_the_rules(server);
}

/// `headwater inspect` finds nothing in what reaches further back.
fn obeys_the_rules(server: &Server) {
    for manifest in ["dvr.m3u8", "dvr.mpd"] {
        let url = server.url(&format!("/live/show/{manifest}"));
        let found = run(headwater(&["inspect", &url, "--for", "6s"]), LIMIT);
        assert_rules_kept(&found, &LENIENT);
    }
}

#[test]
fn viewers_go_back_in_a_live_stream_and_further_back_than_a_crash() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("headwater.toml");
    std::fs::write(&config, DVR).unwrap();
    let ladder = small_ladder();
    let args = ["--ladder", &ladder, "--config", config.to_str().unwrap()];
    let mut writer = Server::start(&args);
    let publisher = ffmpeg_publish(&writer.publish_url("show"), 600);
    let playlist = "/live/show/v180/dvr.m3u8";
    let first = listed_from(&writer, playlist, 14);
    reaches_back(&writer, first);
    let reader = Server::start_origin(writer.store.path());
    reaches_back(&reader, listed_from(&reader, playlist, 14));
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let stretch = (first * 2 + 4, first * 2 + 10);
    let base = writer.url("/");
    runtime
        .block_on(players::rewind(&base, ("show", "hls,dash"), stretch))
        .assert_held();
    let status = writer.get("/api/v1/streams/show").json();
    assert_eq!(status["dvr"]["hls"], "/live/show/dvr.m3u8", "{status}");
    // What was before a crash is there after it.
    let before = numbers(&writer.get(playlist).text());
    writer.process().kill();
    drop(publisher);
    let writer = Server::start_on(writer.into_store(), &args);
    let publisher = ffmpeg_publish(&writer.publish_url("show"), 600);
    let kept = before[before.len() - 12].0;
    let after = eventually("what was before the crash", LIMIT, || {
        let answer = writer.get(playlist);
        let found = numbers(&answer.text());
        (answer.status == 200 && found.first()?.0 <= kept && found.last()?.0 > before.last()?.0)
            .then_some(found)
    });
    assert!(after.contains(&(kept, false)), "{after:?} {kept}");
    for server in [&writer, &reader] {
        let shows = server.get("/api/v1/streams/show/shows?limit=5").json();
        assert_eq!(shows["shows"].as_array().unwrap().len(), 1, "{shows}");
        assert_eq!(
            shows["shows"][0]["first"],
            show_in(writer.store.path()).unwrap()
        );
        assert!(shows["next"].is_null());
    }
    drop(publisher);
    assert_eq!(reader.drain().0, 0);
    assert_eq!(writer.drain().0, 0);
}

/// Test pictures of another size and rate, and sound at `rate`, as an FLV file of `seconds`.
fn other_source(folder: &Path, rate: &str, seconds: &str) -> String {
    let file = folder.join(format!("other-{rate}.flv"));
    let file = file.to_str().unwrap().to_owned();
    let (pictures, sound) = ("testsrc=size=640x360:rate=25", "sine=frequency=440");
    let args = [
        "-v",
        "error",
        "-f",
        "lavfi",
        "-i",
        pictures,
        "-f",
        "lavfi",
        "-i",
        sound,
        "-t",
        seconds,
        "-c:v",
        "libx264",
        "-preset",
        "ultrafast",
        "-g",
        "75",
        "-sc_threshold",
        "0",
        "-pix_fmt",
        "yuv420p",
        "-c:a",
        "aac",
        "-ar",
        rate,
        &file,
    ];
    run_ok(tool("ffmpeg", &args), LIMIT);
    file
}

/// Publishes `file` as it is, at the pace of the clock.
fn publish_copy(file: &str, url: &str) -> Process {
    let args = [
        "-v", "error", "-re", "-i", file, "-c", "copy", "-f", "flv", url,
    ];
    Process::start(tool("ffmpeg", &args))
}

/// The hashes of the packets of what `input` holds of a kind, in order.
fn packets(input: &str, map: &str) -> Vec<String> {
    let args = [
        "-v", "error", "-i", input, "-map", map, "-c", "copy", "-copyts", "-f", "framemd5", "-",
    ];
    let text = run_ok(tool("ffmpeg", &args), LIMIT);
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines
        .map(|line| line.split(',').nth(5).unwrap().trim().to_owned())
        .collect()
}

/// The stored samples of one period of a rendition, in order.
fn stored_packets(folder: &Path, playlist: &str, period: usize) -> Vec<String> {
    let text = std::fs::read_to_string(folder.join(playlist)).unwrap();
    let part = text.split("#EXT-X-MAP:URI=\"").nth(period + 1).unwrap();
    let (init, rest) = part.split_once('"').unwrap();
    let files = rest
        .lines()
        .filter(|line| !line.starts_with('#') && !line.is_empty());
    let here = folder.join(playlist).parent().unwrap().to_owned();
    let pieces = std::iter::once(init).chain(files);
    let pieces: Vec<_> = pieces
        .map(|file| std::fs::read(here.join(file)).unwrap())
        .collect();
    let whole = here.join(format!("joined-{period}.mp4"));
    std::fs::write(&whole, pieces.concat()).unwrap();
    packets(whole.to_str().unwrap(), "0")
}

#[test]
fn viewers_go_back_in_a_broadcast_that_its_source_cuts() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("headwater.toml");
    std::fs::write(&config, DVR).unwrap();
    let film = other_source(folder.path(), "48000", "240");
    let args = ["--ladder", "copy", "--config", config.to_str().unwrap()];
    let writer = Server::start(&args);
    let begun = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let begun = begun.unwrap().as_secs();
    let publisher = publish_copy(&film, &writer.publish_url("show"));
    let reader = Server::start_origin(writer.store.path());
    for server in [&writer, &reader] {
        let firsts = ["vcopy", "acopy"].map(|rendition| {
            let playlist = format!("/live/show/{rendition}/dvr.m3u8");
            listed_from(server, &playlist, 14)
        });
        // As far back as the playlists, though the live MPD is not.
        let mpd = server.get("/live/show/dvr.mpd").text();
        let numbers = |mpd: &str| {
            let all = mpd.split(" startNumber=\"").skip(1);
            let all = all.map(|rest| rest.split('"').next().unwrap().parse::<u64>().unwrap());
            all.collect::<Vec<_>>()
        };
        assert_eq!(numbers(&mpd), firsts, "{mpd}");
        let live = server.get("/live/show/manifest.mpd").text();
        assert!(numbers(&live).iter().all(|n| *n > firsts[0]), "{live}");
        obeys_the_rules(server);
    }
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let base = writer.url("/");
    let stretch = (begun + 6, begun + 12);
    runtime
        .block_on(players::rewind(&base, ("show", "dash"), stretch))
        .assert_held();
    let status = writer.get("/api/v1/streams/show").json();
    assert_eq!(status["dvr"]["dash"], "/live/show/dvr.mpd", "{status}");
    drop(publisher);
    assert_eq!(reader.drain().0, 0);
    assert_eq!(writer.drain().0, 0);
}

#[test]
fn a_copied_broadcast_of_two_sources_is_kept_played_and_exported_as_it_came() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("headwater.toml");
    std::fs::write(&config, CONFIG.replace("\"0s\"", "\"20s\"")).unwrap();
    let (one, other) = (
        other_source(folder.path(), "48000", "60"),
        other_source(folder.path(), "44100", "7"),
    );
    let args = ["--ladder", "copy", "--config", config.to_str().unwrap()];
    let server = Server::start(&args);
    // It breaks off, and another one goes on.
    let broken = publish_copy(&one, &server.publish_url("show"));
    let first = eventually("a record", LIMIT, || show_in(server.store.path()));
    eventually("three segments", LIMIT, || {
        let record = server.get(&format!("/live/show/show-{first}.json"));
        (stored(&record.json()) > 2).then_some(())
    });
    drop(broken);
    let mut other = publish_copy(&other, &server.publish_url("show"));
    assert_eq!(other.wait(LIMIT), 0);
    let record = eventually("the end", LIMIT, || {
        let record = server.get(&format!("/live/show/show-{first}.json")).json();
        record["ended"].as_bool().unwrap().then_some(record)
    });
    assert_eq!(record["periods"].as_array().unwrap().len(), 2, "{record}");
    for manifest in ["m3u8", "mpd"] {
        let url = server.url(&format!("/live/show/show-{first}.{manifest}"));
        let (code, out, err) = run(headwater(&["inspect", &url, "--for", "3s"]), LIMIT);
        assert_eq!(code, 0, "{manifest}: {out}{err}");
    }
    // A stretch over the seam, by the instants that the playlist says.
    let text = server
        .get(&format!("/live/show/vcopy/show-{first}.m3u8"))
        .text();
    let dates = text
        .lines()
        .filter_map(|line| line.strip_prefix("#EXT-X-PROGRAM-DATE-TIME:"));
    let dates: Vec<_> = dates.collect();
    assert_eq!(dates.len(), 2, "{text}");
    let before = format!("start={}&end={}", dates[0], dates[1]);
    let (one, other) = text.split_once("#EXT-X-DISCONTINUITY\n").unwrap();
    let (one, other) = (listed(one), listed(other));
    assert!(
        one > 6.0 && (other - 7.0).abs() < 1.5,
        "{one} s, {other} s of 7"
    );
    let query = format!("start={}", dates[0]);
    let over = server
        .get(&format!("/live/show/vcopy/index.m3u8?{query}"))
        .text();
    assert_eq!(over.matches("#EXT-X-DISCONTINUITY\n").count(), 1, "{over}");
    assert!(over.ends_with("#EXT-X-ENDLIST\n"), "{over}");
    let mpd = server
        .get(&format!("/live/show/manifest.mpd?{query}"))
        .text();
    assert_eq!(mpd.matches("<Period ").count(), 2, "{mpd}");
    let only = server
        .get(&format!("/live/show/vcopy/index.m3u8?{before}"))
        .text();
    assert_eq!(only.matches("#EXT-X-MAP").count(), 1, "{only}");
    let url = server.url(&format!("/live/show/manifest.mpd?{query}"));
    let (code, out, err) = run(headwater(&["inspect", &url, "--for", "3s"]), LIMIT);
    assert_eq!(code, 0, "{out}{err}");
    let (start, end) = (dates[0].to_owned(), dates[1].to_owned());
    let (code, store) = server.drain();
    assert_eq!(code, 0);
    exports_copies(store.path(), first, (&start, &end), one);
}

/// Of two sources whose sound has another rate there is no one file, and it is said how to get two; of the pictures
/// there is, and all of the samples are those that are stored.
fn exports_copies(store: &Path, first: u64, (start, end): (&str, &str), length: f64) {
    let folder = tempfile::tempdir().unwrap();
    let stream = store.join("live/show");
    let file = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let store = store.to_str().unwrap();
    let all = file("all.mp4");
    let (code, _, err) = run(
        headwater(&["export", "show", &all, "--store", store]),
        LIMIT,
    );
    assert!(
        code == 1 && err.contains("export the parts before and after by themselves"),
        "{err}"
    );
    assert_eq!(
        std::fs::read_dir(folder.path()).unwrap().count(),
        0,
        "half a file stays"
    );
    let mut parts = vec![
        "export",
        "show",
        &all,
        "--store",
        store,
        "--rendition",
        "vcopy",
    ];
    run_ok(headwater(&parts), LIMIT);
    let pictures = format!("vcopy/show-{first}.m3u8");
    let stored = [
        stored_packets(&stream, &pictures, 0),
        stored_packets(&stream, &pictures, 1),
    ];
    assert_eq!(packets(&all, "0:v"), stored.concat());
    let one = file("one.mp4");
    parts = vec![
        "export", "show", &one, "--store", store, "--start", start, "--end", end,
    ];
    run_ok(headwater(&parts), LIMIT);
    assert_eq!(packets(&one, "0:v"), stored[0]);
    let sound = format!("acopy/show-{first}.m3u8");
    assert_eq!(packets(&one, "0:a"), stored_packets(&stream, &sound, 0));
    let found = play(&one);
    assert!((found - length).abs() < 0.2, "{found} s of {length}");
}

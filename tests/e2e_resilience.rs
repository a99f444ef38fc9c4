//! Bad days, end to end: sources that stall, vanish, come back as another and change on the way, and what
//! is published meanwhile.
//!
//! Enters: the film and test pictures, published by ffmpeg, which is stopped, killed and started again
//! Leaves: a failure for each thing that a viewer would have noticed beyond the picture
//! Never:  a publisher or a reader of our own
//! Time:   wall clock
//! Spec:   docs/resilience.md

#![cfg(feature = "gst")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test may fail loudly"
)]

mod common;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use common::{
    Process, Server, eventually, ffmpeg_publish, headwater, run, run_ok, small_ladder, tool,
};

/// What a stream needs to start, and to change its state, on a busy machine.
const SOON: Duration = Duration::from_secs(30);
/// Longer than any reader takes over what a test makes.
const READ_LIMIT: Duration = Duration::from_secs(60);

const RENDITIONS: [&str; 3] = ["v360", "v180", "a96"];

/// The size that pictures are compared at.
const WIDTH: usize = 64;
const HEIGHT: usize = 36;

/// A server with `settings` under `[broadcast]`.
fn server(settings: &str) -> (Server, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("config.toml");
    std::fs::write(&file, format!("[broadcast]\n{settings}\n")).unwrap();
    let args = [
        "--config",
        file.to_str().unwrap(),
        "--ladder",
        &small_ladder(),
    ];
    (Server::start(&args), folder)
}

fn state(server: &Server) -> String {
    let status = server.get("/api/v1/streams/show").json();
    status["state"].as_str().unwrap_or_default().to_owned()
}

fn wait_for_state(server: &Server, wanted: &str) {
    eventually(wanted, SOON, || (state(server) == wanted).then_some(()));
}

fn playlist(server: &Server) -> String {
    server.get("/live/show/v180/index.m3u8").text()
}

/// The numbers of the segments that a playlist lists.
fn numbers(playlist: &str) -> Vec<u64> {
    let uris = playlist
        .lines()
        .filter_map(|line| line.strip_suffix(".m4s"));
    uris.filter_map(|number| number.parse().ok()).collect()
}

fn wait_for_progress(server: &Server, more: u64) {
    let last = || numbers(&playlist(server)).last().copied();
    let from = eventually("a segment", SOON, last);
    eventually("more segments", SOON, || {
        last().filter(|now| *now >= from + more)
    });
}

fn signal(name: &str, publisher: &Process) {
    let pid = publisher.pid().to_string();
    run_ok(tool("kill", &[name, &pid]), Duration::from_secs(5));
}

/// Test pictures of `video` and a tone of `audio`, coded for RTMP, for `seconds`, with `more` options.
fn made(video: &str, audio: &str, seconds: u32, more: &[&str]) -> Vec<String> {
    let seconds = seconds.to_string();
    let inputs = [
        "-re", "-f", "lavfi", "-i", video, "-f", "lavfi", "-i", audio,
    ];
    let coded = [
        "-t",
        &seconds,
        "-c:v",
        "libx264",
        "-preset",
        "ultrafast",
        "-g",
        "50",
        "-pix_fmt",
        "yuv420p",
        "-c:a",
        "aac",
    ];
    let all = inputs.iter().chain(&coded).chain(more);
    all.map(|arg| (*arg).to_owned()).collect()
}

fn ffmpeg(args: &[String], target: &str) -> Process {
    let mut command = tool("ffmpeg", &["-v", "error", "-y"]);
    command.args(args).args(["-f", "flv", target]);
    Process::start(command)
}

/// Asks for the playlist again and again until told to stop; every version of it must go on from the one
/// before, in one piece.
fn watch(http: String, stop: Arc<AtomicBool>) -> std::thread::JoinHandle<usize> {
    std::thread::spawn(move || {
        let (mut known, mut map) = (Vec::<u64>::new(), None);
        let mut versions = 0;
        while !stop.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(200));
            let answer = common::get(&http, "/live/show/v180/index.m3u8");
            if answer.status == 404 && known.is_empty() {
                continue;
            }
            assert_eq!(answer.status, 200);
            let text = answer.text();
            assert!(!text.contains("DISCONTINUITY"), "{text}");
            assert!(!text.contains("GAP"), "{text}");
            let maps: Vec<&str> = text
                .lines()
                .filter(|l| l.starts_with("#EXT-X-MAP"))
                .collect();
            assert_eq!(maps.len(), 1, "{text}");
            let init = map.get_or_insert_with(|| maps[0].to_owned());
            assert_eq!(*init, maps[0], "another init segment");
            let now = numbers(&text);
            assert!(now.windows(2).all(|pair| pair[1] == pair[0] + 1), "{text}");
            assert!(now.last() >= known.last(), "{text}");
            versions += usize::from(now != known);
            known = now;
        }
        versions
    })
}

/// All of a stored rendition in one file.
fn joined(store: &Path, rendition: &str, into: &Path) -> PathBuf {
    let folder = store.join("live/show").join(rendition);
    let mut inits = Vec::new();
    let mut segments = Vec::new();
    for entry in std::fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        match path.extension().and_then(|e| e.to_str()) {
            Some("mp4") => inits.push(path),
            Some("m4s") => segments.push((name.parse::<u64>().unwrap(), path)),
            _ => {}
        }
    }
    assert_eq!(inits.len(), 1, "{rendition}: {inits:?}");
    segments.sort();
    let first = segments[0].0;
    for (number, (found, _)) in (first..).zip(&segments) {
        assert_eq!(*found, number, "{rendition}: a number is missing");
    }
    let mut bytes = std::fs::read(&inits[0]).unwrap();
    for (_, path) in &segments {
        bytes.extend(std::fs::read(path).unwrap());
    }
    let file = into.join(format!("{rendition}.mp4"));
    std::fs::write(&file, bytes).unwrap();
    file
}

/// What `args` make ffmpeg write to a file, which has nothing to complain of.
fn decoded(folder: &Path, args: &[&str]) -> Vec<u8> {
    let file = folder.join("decoded");
    let mut command = tool("ffmpeg", &["-v", "error", "-y", "-nostdin"]);
    command.args(args).arg(&file);
    let shown = format!("{command:?}");
    let (code, _, said) = run(command, READ_LIMIT);
    assert!(code == 0 && said.is_empty(), "{shown}: {said}");
    std::fs::read(file).unwrap()
}

/// The pictures of `file`, four per second, small and grey.
fn pictures(file: &Path, folder: &Path) -> Vec<Vec<u8>> {
    let scale = format!("fps=4,scale={WIDTH}:{HEIGHT}:flags=area,format=gray");
    let file = file.to_str().unwrap();
    let args = ["-i", file, "-vf", &scale, "-f", "rawvideo"];
    let bytes = decoded(folder, &args);
    bytes
        .chunks_exact(WIDTH * HEIGHT)
        .map(<[u8]>::to_vec)
        .collect()
}

/// How far two pictures are apart, in mean grey levels.
fn apart(a: &[u8], b: &[u8]) -> u64 {
    let sum: u64 = a
        .iter()
        .zip(b)
        .map(|(a, b)| u64::from(a.abs_diff(*b)))
        .sum();
    sum / a.len() as u64
}

/// The loudness of each half second of `file`, from 0 to 32767.
fn loudness(file: &Path, folder: &Path) -> Vec<u64> {
    let file = file.to_str().unwrap();
    let args = ["-i", file, "-ac", "1", "-ar", "8000", "-f", "s16le"];
    let bytes = decoded(folder, &args);
    let samples: Vec<u64> = bytes
        .chunks_exact(2)
        .map(|pair| u64::from(i16::from_le_bytes([pair[0], pair[1]]).unsigned_abs()))
        .collect();
    let mean = |half: &[u64]| half.iter().sum::<u64>() / half.len() as u64;
    samples.chunks_exact(4_000).map(mean).collect()
}

fn metric(server: &Server, name: &str) -> f64 {
    let text = server.get("/metrics").text();
    let line = format!("headwater_{name}{{stream=\"show\"}} ");
    let value = text.lines().find_map(|l| l.strip_prefix(&line));
    value
        .unwrap_or_else(|| panic!("no {name} in {text}"))
        .parse()
        .unwrap()
}

#[test]
fn stall_and_reconnect_are_seen_in_the_picture_alone() {
    let (server, folder) = server("");
    let publisher = ffmpeg_publish(&server.publish_url("show"), 200);
    server.wait_for("/live/show/v180/index.m3u8", SOON);
    let stop = Arc::new(AtomicBool::new(false));
    let watching = watch(server.http.clone(), Arc::clone(&stop));
    wait_for_progress(&server, 2);

    // The source stalls: its connection stays.
    signal("-STOP", &publisher);
    wait_for_state(&server, "holding");
    wait_for_state(&server, "slate");
    std::thread::sleep(Duration::from_secs(1));
    signal("-CONT", &publisher);
    wait_for_state(&server, "live");
    wait_for_progress(&server, 1);

    // It is gone, and comes back turned, slower, at another sample rate and with one channel.
    drop(publisher);
    wait_for_state(&server, "reconnecting");
    std::thread::sleep(Duration::from_secs(4));
    let args = made(
        "testsrc2=size=360x640:rate=25",
        "sine=frequency=600:sample_rate=44100",
        60,
        &["-ac", "1", "-profile:v", "baseline"],
    );
    let mut back = ffmpeg(&args, &server.publish_url("show"));
    wait_for_state(&server, "live");
    wait_for_progress(&server, 3);
    assert!((metric(&server, "reconnects_total") - 1.0).abs() < 0.1);
    assert!(metric(&server, "slate_seconds_total") >= 2.0);
    assert!(metric(&server, "held_slots_total") >= 60.0);

    // A publisher that says that it is done ends the broadcast.
    signal("-INT", &back);
    back.wait(SOON);
    wait_for_state(&server, "ended");
    stop.store(true, Ordering::Relaxed);
    assert!(watching.join().unwrap() > 5);
    eventually("the stored end", SOON, || {
        let text = |name| {
            let path = server.store.path().join("live/show").join(name);
            std::fs::read_to_string(path.join("index.m3u8")).unwrap_or_default()
        };
        RENDITIONS
            .iter()
            .all(|name| text(name).contains("ENDLIST"))
            .then_some(())
    });
    assert!(!server.log().contains("panicked"), "{}", server.log());

    let files = RENDITIONS.map(|name| joined(server.store.path(), name, folder.path()));
    for file in &files[..2] {
        assert_slate_and_bars(&pictures(file, folder.path()), folder.path());
    }
    let halves = loudness(&files[2], folder.path());
    let is_loud: Vec<bool> = halves.iter().map(|level| *level > 300).collect();
    assert!(
        is_loud[is_loud.len() - 6..is_loud.len() - 1]
            .iter()
            .all(|loud| *loud),
        "{halves:?}"
    );
    let silent = halves
        .rchunks(1)
        .skip_while(|half| half[0] > 10)
        .take_while(|half| half[0] <= 10);
    assert!(silent.count() >= 6, "three seconds of silence: {halves:?}");
}

/// Somewhere in `pictures` the slate was shown, twice, and at the end a picture between black bars.
fn assert_slate_and_bars(pictures: &[Vec<u8>], folder: &Path) {
    let slate = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/transcode/worker/slate/wide.jpg");
    let scale = format!("scale={WIDTH}:{HEIGHT}:flags=area,format=gray");
    let args = [
        "-i",
        slate.to_str().unwrap(),
        "-vf",
        &scale,
        "-f",
        "rawvideo",
    ];
    let slate = decoded(folder, &args);
    let is_slate: Vec<bool> = pictures.iter().map(|p| apart(p, &slate) <= 3).collect();
    let shown = is_slate.iter().filter(|slate| **slate).count();
    assert!(shown >= 8, "two seconds of the slate: {is_slate:?}");
    let times = is_slate
        .windows(2)
        .filter(|pair| !pair[0] && pair[1])
        .count();
    assert_eq!(times, 2, "{is_slate:?}");
    let last = &pictures[pictures.len() - 4];
    let column = |x: usize| {
        (0..HEIGHT)
            .map(|y| u64::from(last[y * WIDTH + x]))
            .sum::<u64>()
    };
    // 9:16 within 16:9 is less than a third of the width.
    assert!(column(8) < 20 * HEIGHT as u64 && column(WIDTH - 8) < 20 * HEIGHT as u64);
    let middle = (WIDTH / 3..2 * WIDTH / 3).map(column).max();
    assert!(middle > Some(100 * HEIGHT as u64), "{middle:?}");
}

#[test]
fn who_does_not_come_back_ends_the_broadcast_properly() {
    let (server, _folder) = server("reconnect_grace = \"3s\"\nhold = \"500ms\"");
    let publisher = ffmpeg_publish(&server.publish_url("show"), 200);
    server.wait_for("/live/show/v180/index.m3u8", SOON);
    drop(publisher);
    wait_for_state(&server, "reconnecting");
    wait_for_state(&server, "ended");
    assert!(playlist(&server).contains("ENDLIST"));
    // The key is free, and numbers go on.
    let last = *numbers(&playlist(&server)).last().unwrap();
    let _again = ffmpeg_publish(&server.publish_url("show"), 200);
    eventually("the next broadcast", SOON, || {
        let text = playlist(&server);
        let all = numbers(&text);
        (!text.contains("ENDLIST") && all.first().is_some_and(|first| *first > last)).then_some(())
    });
}

#[test]
fn channel_for_ever_lives_on_its_slate() {
    let (server, folder) = server("reconnect_grace = \"forever\"");
    let publisher = ffmpeg_publish(&server.publish_url("show"), 5);
    server.wait_for("/live/show/v180/index.m3u8", SOON);
    let stop = Arc::new(AtomicBool::new(false));
    let watching = watch(server.http.clone(), Arc::clone(&stop));
    // It says that it is done, which ends no channel.
    wait_for_state(&server, "reconnecting");
    drop(publisher);
    wait_for_progress(&server, 4);
    let _back = ffmpeg_publish(&server.publish_url("show"), 200);
    wait_for_state(&server, "live");
    wait_for_progress(&server, 2);
    stop.store(true, Ordering::Relaxed);
    assert!(watching.join().unwrap() > 5);
    let (code, store) = server.drain();
    assert_eq!(code, 0);
    for name in RENDITIONS {
        joined(store.path(), name, folder.path());
    }
}

/// One after the other in one FLV file, each after the end of the one before.
fn spliced(files: &[PathBuf], into: &Path) {
    let mut out = std::fs::read(&files[0]).unwrap()[..13].to_vec();
    let mut begin_ms = 0_u32;
    for file in files {
        let bytes = std::fs::read(file).unwrap();
        let (mut at, mut last_ms) = (13, 0);
        while at + 11 <= bytes.len() {
            let size = u32::from_be_bytes([0, bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
            let [a, b, c, high] = [4, 5, 6, 7].map(|n| bytes[at + n]);
            let ms = u32::from_be_bytes([high, a, b, c]);
            last_ms = ms.max(last_ms);
            let end = at + 11 + size as usize + 4;
            let mut tag = bytes[at..end].to_vec();
            let [high, a, b, c] = (ms + begin_ms).to_be_bytes();
            tag[4..8].copy_from_slice(&[a, b, c, high]);
            // Of scripts only the first; ffmpeg would take a second one for data of a stream.
            if bytes[at] != 18 || begin_ms == 0 {
                out.extend(tag);
            }
            at = end;
        }
        begin_ms += last_ms + 40;
    }
    std::fs::write(into, out).unwrap();
}

#[test]
fn source_that_changes_on_the_way_changes_nothing_but_the_picture() {
    let (server, folder) = server("");
    let sources = [
        (
            "testsrc2=size=640x360:rate=30",
            "sine=sample_rate=48000",
            "high",
            "2",
        ),
        (
            "testsrc2=size=360x640:rate=30",
            "sine=sample_rate=44100",
            "main",
            "1",
        ),
        (
            "testsrc2=size=480x360:rate=25",
            "sine=sample_rate=48000",
            "baseline",
            "2",
        ),
        (
            "testsrc2=size=640x360:rate=60",
            "sine=sample_rate=48000",
            "high",
            "2",
        ),
    ];
    let files: Vec<PathBuf> = (0..)
        .zip(sources)
        .map(|(n, (video, audio, profile, channels))| {
            let file = folder.path().join(format!("{n}.flv"));
            let mut args = made(video, audio, 4, &["-profile:v", profile, "-ac", channels]);
            args.retain(|arg| arg != "-re");
            let mut making = ffmpeg(&args, file.to_str().unwrap());
            assert_eq!(making.wait(READ_LIMIT), 0);
            file
        })
        .collect();
    let all = folder.path().join("all.flv");
    spliced(&files, &all);
    let stop = Arc::new(AtomicBool::new(false));
    let watching = watch(server.http.clone(), Arc::clone(&stop));
    let args = ["-re", "-i", all.to_str().unwrap(), "-c", "copy"].map(str::to_owned);
    let mut publisher = ffmpeg(&args, &server.publish_url("show"));
    publisher.wait(READ_LIMIT);
    wait_for_state(&server, "ended");
    stop.store(true, Ordering::Relaxed);
    watching.join().unwrap();
    let (code, store) = server.drain();
    assert_eq!(code, 0);
    let files = RENDITIONS.map(|name| joined(store.path(), name, folder.path()));
    let pictures = pictures(&files[0], folder.path());
    assert!(
        pictures.len() >= 15 * 4,
        "{} quarters of a second",
        pictures.len()
    );
    // Bars beside the second and the third, none beside the first and the last.
    let bars = |second: usize| {
        let picture = &pictures[pictures.len() - 1 - (16 - second) * 4];
        let left: u64 = (0..HEIGHT).map(|y| u64::from(picture[y * WIDTH + 1])).sum();
        left < 20 * HEIGHT as u64
    };
    assert_eq!([2, 6, 10, 14].map(bars), [false, true, true, false]);
    let halves = loudness(&files[2], folder.path());
    let loud = halves.iter().filter(|level| **level > 300).count();
    assert!(loud >= 26, "{halves:?}");
}

#[test]
fn slate_that_is_no_picture_is_refused_at_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let (slate, file) = (
        folder.path().join("slate.png"),
        folder.path().join("c.toml"),
    );
    let text = format!("[broadcast]\nslate = {:?}\n", slate.to_str().unwrap());
    std::fs::write(&file, text).unwrap();
    let store = folder.path().join("store");
    let starts = || {
        let mut command = headwater(&["serve", "--rtmp", "127.0.0.1:0", "--http", "127.0.0.1:0"]);
        command
            .arg("--store")
            .arg(&store)
            .arg("--config")
            .arg(&file);
        run(command, READ_LIMIT)
    };
    for (bytes, expected) in [
        (None, "cannot read"),
        (Some(&b"GIF89a"[..]), "it is neither PNG nor JPEG"),
        (Some(b"\x89PNG\r\n\x1a\nbut no more"), "cannot be shown"),
    ] {
        if let Some(bytes) = bytes {
            std::fs::write(&slate, bytes).unwrap();
        }
        let (code, _, said) = starts();
        assert_eq!(code, 1, "{said}");
        assert!(
            said.contains("broadcast.slate") && said.contains(expected),
            "{said}"
        );
    }
}

//! A ladder of which some is copied and some encoded, end to end: what is copied is the source's own, what is
//! encoded has its key frames where the source has them, and all of it is cut there.
//!
//! Enters: test pictures with key frames at odd times, published by ffmpeg, which is killed in between
//! Leaves: a failure for each place that differs between two renditions, and for each rule of playlists that is
//! broken
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
#[path = "common/players.rs"]
mod players;

use std::path::{Path, PathBuf};
use std::time::Duration;

use common::{Process, Server, eventually, headwater, run, run_ok, tool, worker_of};

/// What a stream needs to start, and to change its state, on a busy machine.
const SOON: Duration = Duration::from_secs(60);
/// Longer than any reader takes over what a test makes.
const LIMIT: Duration = Duration::from_secs(60);
/// The source's own pictures, and what is encoded of 360 lines.
const PICTURES: [&str; 2] = ["vcopy", "v240"];
const SOUND: &str = "acopy";

/// Test pictures of 360 lines, and sound, as an FLV file.
struct Film<'a> {
    name: &'a str,
    pictures: &'a str,
    /// How many B-frames in a row.
    b_frames: &'a str,
    /// Where its key frames are, in seconds.
    keys: &'a str,
    seconds: u32,
    sound_rate: &'a str,
}

impl Film<'_> {
    fn make(&self, folder: &Path) -> PathBuf {
        let file = folder.join(self.name);
        let seconds = self.seconds.to_string();
        let mut args = vec!["-v", "error", "-f", "lavfi", "-i", self.pictures];
        args.extend(["-f", "lavfi", "-i", "sine=frequency=440", "-t", &seconds]);
        args.extend([
            "-c:v",
            "libx264",
            "-preset",
            "ultrafast",
            "-bf",
            self.b_frames,
        ]);
        args.extend(["-sc_threshold", "0", "-g", "600", "-pix_fmt", "yuv420p"]);
        args.extend(["-force_key_frames", self.keys]);
        args.extend(["-c:a", "aac", "-ar", self.sound_rate]);
        let mut command = tool("ffmpeg", &args);
        command.arg(&file);
        run_ok(command, LIMIT);
        file
    }
}

/// Test pictures of which no two segments in a row are equally long, and some begin without a key frame.
fn source(folder: &Path, seconds: u32) -> PathBuf {
    source_with_keys(
        folder,
        "expr:gte(t,n_forced*1.7+0.4*mod(n_forced,3)+0.1*mod(n_forced,2))",
        seconds,
    )
}

/// The same with a key frame for each segment, without which a player can start or switch nowhere.
fn source_for_players(folder: &Path, seconds: u32) -> PathBuf {
    source_with_keys(
        folder,
        "expr:gte(t,n_forced*2+0.2*mod(n_forced,2))",
        seconds,
    )
}

fn source_with_keys(folder: &Path, keys: &str, seconds: u32) -> PathBuf {
    let film = Film {
        name: "source.flv",
        pictures: "testsrc2=size=640x360:rate=30",
        b_frames: "2",
        keys,
        seconds,
        sound_rate: "48000",
    };
    film.make(folder)
}

/// Another encoder: of another size, rate and sound.
fn other_source(folder: &Path, seconds: u32) -> PathBuf {
    let film = Film {
        name: "other.flv",
        pictures: "testsrc=size=480x360:rate=25",
        b_frames: "2",
        keys: "expr:gte(t,n_forced*2.2)",
        seconds,
        sound_rate: "44100",
    };
    film.make(folder)
}

/// Publishes `file` as it is, at the pace of the clock.
fn publish(file: &Path, url: &str) -> Process {
    let mut command = tool("ffmpeg", &["-v", "error", "-re", "-i"]);
    command.arg(file);
    command.args(["-c", "copy", "-f", "flv"]);
    // Sound need not wait for pictures that do not come.
    command.args(["-max_interleave_delta", "100000", url]);
    Process::start(command)
}

/// One entry of a stored playlist: its file, the tags before it but for its length, and that in microseconds.
type Entry = (String, Vec<String>, i64);

fn listed(folder: &Path, rendition: &str) -> Vec<Entry> {
    let text = std::fs::read_to_string(folder.join(rendition).join("index.m3u8")).unwrap();
    let (mut found, mut tags, mut length) = (Vec::new(), Vec::new(), 0);
    for line in text.lines() {
        if let Some(seconds) = line.strip_prefix("#EXTINF:") {
            let micros = seconds.trim_end_matches(',').replace('.', "");
            length = micros.parse().unwrap();
        } else if !line.starts_with('#') {
            found.push((line.to_owned(), std::mem::take(&mut tags), length));
        } else if line != "#EXT-X-ENDLIST" {
            tags.push(line.to_owned());
        }
    }
    found
}

fn is_gap(tags: &[String]) -> bool {
    tags.iter().any(|tag| tag == "#EXT-X-GAP")
}

/// The periods of a rendition, each as one file, with the numbers of its first segment.
fn periods(folder: &Path, rendition: &str) -> Vec<(String, PathBuf)> {
    let folder = folder.join(rendition);
    let (mut found, mut bytes) = (Vec::<(String, PathBuf)>::new(), Vec::new());
    for (segment, tags, _) in listed(folder.parent().unwrap(), rendition) {
        if is_gap(&tags) {
            continue;
        }
        let map = tags
            .iter()
            .find_map(|tag| tag.strip_prefix("#EXT-X-MAP:URI=\""));
        if let Some(init) = map.map(|map| map.trim_end_matches('"')) {
            bytes = std::fs::read(folder.join(init)).unwrap();
            found.push((init.to_owned(), folder.join(format!("whole-{init}"))));
        }
        bytes.extend(std::fs::read(folder.join(segment)).unwrap());
        std::fs::write(&found.last().unwrap().1, &bytes).unwrap();
    }
    found
}

/// When each access unit of the pictures in `file` is shown, in ticks, in that order, and whether it is a key frame.
fn pictures(file: &Path) -> Vec<(i64, bool)> {
    let mut command = tool("ffprobe", &["-v", "error", "-select_streams", "v"]);
    command.args(["-show_entries", "packet=pts,flags", "-of", "csv=p=0"]);
    command.arg(file);
    let text = run_ok(command, LIMIT);
    let picture = |line: &str| {
        let (pts, flags) = line.split_once(',').unwrap();
        (pts.parse().unwrap(), flags.starts_with('K'))
    };
    let mut all: Vec<_> = text.lines().map(picture).collect();
    all.sort_unstable();
    all
}

/// The hashes of the access units of a kind in `file`, as they are coded.
fn hashes(file: &Path, kind: &str) -> Vec<String> {
    let mut command = tool("ffmpeg", &["-v", "error", "-i"]);
    command.arg(file);
    command.args(["-map", kind, "-c", "copy", "-f", "framemd5", "-"]);
    let text = run_ok(command, LIMIT);
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let hash = |line: &str| line.split(',').nth(5).unwrap().trim().to_owned();
    lines.map(hash).collect()
}

fn segments(server: &Server, rendition: &str) -> usize {
    let text = server
        .get(&format!("/live/show/{rendition}/index.m3u8"))
        .text();
    text.lines().filter(|line| line.ends_with(".m4s")).count()
}

#[test]
fn every_rung_is_cut_where_the_source_is_whatever_befalls_publisher_and_worker() {
    let folder = tempfile::tempdir().unwrap();
    let (source, other) = (source(folder.path(), 30), other_source(folder.path(), 7));
    let mut server = Server::start(&["--ladder", "copy-top"]);
    let url = server.publish_url("show");
    let pid = server.process().pid();

    let first = publish(&source, &url);
    eventually("two segments", SOON, || {
        (segments(&server, "v240") >= 2).then_some(())
    });
    let worker = worker_of(pid, "show")
        .expect("there is a worker")
        .to_string();
    run_ok(tool("kill", &["-KILL", &worker]), SOON);
    eventually("four segments", SOON, || {
        (segments(&server, "v240") >= 4).then_some(())
    });
    drop(first);
    // It ends by itself, and properly.
    let mut second = publish(&other, &url);
    assert_eq!(second.wait(LIMIT), 0);
    eventually("the end", SOON, || {
        let text = server.get("/live/show/vcopy/index.m3u8").text();
        text.contains("EXT-X-ENDLIST").then_some(())
    });
    let log = server.log();
    assert!(log.contains("the worker was restarted"), "{log}");
    let (code, store) = server.drain();
    assert_eq!(code, 0, "{log}");

    let stream = store.path().join("live/show");
    check_lists(&stream, &log);
    for (at, source) in [source, other].iter().enumerate() {
        let whole = |rendition: &str| periods(&stream, rendition)[at].1.clone();
        assert_same("0:v", &whole("vcopy"), source);
        assert_same("0:a", &whole(SOUND), source);
        let (copied, encoded) = (pictures(&whole("vcopy")), pictures(&whole("v240")));
        let keys = copied.iter().filter(|(_, is_key)| *is_key).count();
        assert!(keys >= 3, "{copied:?}");
        // Of a source that was killed, the last pictures may not have been decodable.
        let most = copied.len() - if at == 0 { 4 } else { 0 };
        let differs = (0..most).filter(|at| encoded.get(*at) != copied.get(*at));
        let differs: Vec<_> = differs.map(|at| (copied[at], encoded.get(at))).collect();
        // A new worker begins with a key frame, wherever that is.
        let begins =
            |((at, _), found): &((i64, bool), Option<&(i64, bool)>)| *found == Some(&(*at, true));
        let restarts = usize::from(at == 0);
        assert!(
            differs.len() <= restarts && differs.iter().all(begins),
            "{differs:?}"
        );
    }
    let (code, out, err) = run(headwater(&["inspect", stream.to_str().unwrap()]), LIMIT);
    assert_eq!(code, 0, "{out}{err}");
}

/// All renditions list the same numbers and begin the same period at the same one, with nothing missing; those of
/// pictures the same lengths.
fn check_lists(stream: &Path, log: &str) {
    let copied = listed(stream, "vcopy");
    let breaks = |entries: &[Entry]| -> Vec<String> {
        let breaks = entries
            .iter()
            .filter(|entry| entry.1.contains(&"#EXT-X-DISCONTINUITY".to_owned()));
        breaks.map(|entry| entry.0.clone()).collect()
    };
    assert_eq!(breaks(&copied).len(), 1, "{copied:?}\n{log}");
    for rendition in PICTURES.iter().chain([&SOUND]) {
        let other = listed(stream, rendition);
        let numbers = |all: &[Entry]| all.iter().map(|e| e.0.clone()).collect::<Vec<_>>();
        assert_eq!(numbers(&other), numbers(&copied), "{rendition}\n{log}");
        assert_eq!(breaks(&other), breaks(&copied), "{rendition}");
        let gap = other
            .iter()
            .find(|e| e.1.contains(&"#EXT-X-GAP".to_owned()));
        assert_eq!(gap, None, "{rendition}\n{log}");
        if *rendition == SOUND {
            continue;
        }
        let lasts = copied
            .iter()
            .skip(1)
            .map(|next| breaks(&copied).contains(&next.0));
        for ((one, two), is_last) in copied.iter().zip(&other).zip(lasts.chain([true])) {
            let dates = |entry: &Entry| {
                let date = |tag: &&String| tag.starts_with("#EXT-X-PROGRAM-DATE-TIME");
                entry.1.iter().find(date).cloned()
            };
            assert_eq!(dates(one), dates(two), "{rendition}: {}", one.0);
            // Of a source that was killed, as above; and of the very last picture nobody knows how long it lasts.
            let most = if is_last { 150_000 } else { 0 };
            let apart = (one.2 - two.2).abs();
            assert!(
                apart <= most,
                "{one:?} {two:?}\n{copied:#?}\n{other:#?}\n{log}"
            );
        }
    }
}

/// What came out is a row of what went in, without an access unit missing or changed.
fn assert_same(kind: &str, published: &Path, source: &Path) {
    let (made, sent) = (hashes(published, kind), hashes(source, kind));
    let from = sent.iter().position(|hash| *hash == made[0]);
    let from = from.unwrap_or_else(|| panic!("{kind}: the first is not of the source"));
    assert!(made.len() > 60, "{kind}: {} of {}", made.len(), sent.len());
    let differs = (0..made.len()).find(|at| sent.get(from + at) != made.get(*at));
    assert_eq!(
        differs,
        None,
        "{kind}: the first that differs, of {}",
        made.len()
    );
}

/// Test pictures at sixty in a second, which stop after four seconds for seventeen, while the sound goes on. Without
/// B-frames: ffmpeg would put one from after the hole before it.
fn camera_off_source(folder: &Path) -> PathBuf {
    let film = Film {
        name: "camera.flv",
        pictures: "testsrc2=size=640x360:rate=60,select='not(between(t,4.04,21))'",
        b_frames: "0",
        keys: "expr:if(isnan(prev_forced_t),1,gte(t,prev_forced_t+2))",
        seconds: 25,
        sound_rate: "48000",
    };
    film.make(folder)
}

#[test]
fn rung_of_half_the_rate_keeps_its_pictures_and_its_worker_while_the_camera_is_off() {
    let folder = tempfile::tempdir().unwrap();
    let source = camera_off_source(folder.path());
    let config = folder.path().join("config.toml");
    std::fs::write(
        &config,
        "[package]\nwindow_segments = 40\nkept_segments = 41\n",
    )
    .unwrap();
    let arguments = ["--ladder", "copy-top", "--config", config.to_str().unwrap()];
    let server = Server::start(&arguments);
    let mut publisher = publish(&source, &server.publish_url("show"));
    assert_eq!(publisher.wait(LIMIT), 0);
    eventually("the end", SOON, || {
        let text = server.get("/live/show/vcopy/index.m3u8").text();
        text.contains("EXT-X-ENDLIST").then_some(())
    });
    let log = server.log();
    assert!(!log.contains("the worker"), "{log}");
    let (code, store) = server.drain();
    assert_eq!(code, 0, "{log}");

    let stream = store.path().join("live/show");
    let missing = |rendition: &str| {
        let all = listed(&stream, rendition).into_iter();
        let gaps = all.filter(|(_, tags, _)| is_gap(tags));
        gaps.map(|(segment, ..)| segment).collect::<Vec<_>>()
    };
    assert!(missing("vcopy").len() >= 6, "{:?}", missing("vcopy"));
    assert_eq!(missing("v240"), missing("vcopy"), "{log}");
    assert_eq!(missing(SOUND), Vec::<String>::new());
    let all = |rendition: &str| periods(&stream, rendition);
    let (copied, encoded) = (all("vcopy"), all("v240"));
    assert_eq!((copied.len(), encoded.len()), (2, 2), "{log}");
    for (copied, encoded) in copied.iter().zip(&encoded) {
        // Every second one, counted from a key frame.
        let mut since = 0;
        let mut expected = pictures(&copied.1);
        assert!(expected.len() > 200, "{}", expected.len());
        expected.retain(|(_, is_key)| {
            since = if *is_key { 0 } else { since + 1 };
            since % 2 == 0
        });
        assert_eq!(pictures(&encoded.1), expected, "{log}");
    }
    for (_, whole) in all(SOUND) {
        assert_same("0:a", &whole, &source);
    }
    let (code, out, err) = run(headwater(&["inspect", stream.to_str().unwrap()]), LIMIT);
    assert_eq!(code, 0, "{out}{err}");
}

#[test]
fn players_switch_between_what_is_copied_and_what_is_encoded_and_play_across_a_period() {
    let folder = tempfile::tempdir().unwrap();
    let (source, other) = (
        source_for_players(folder.path(), 100),
        other_source(folder.path(), 60),
    );
    let server = Server::start(&["--ladder", "copy-top"]);
    let url = server.publish_url("show");
    let mut publisher = Some(publish(&source, &url));
    eventually("three segments", SOON, || {
        (segments(&server, "v240") >= 3).then_some(())
    });
    let base = server.url("/");
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let options = ["--seconds", "5", "--max-stalls", "3"];
    let play = players::play(&base, "show", players::Engine::Hls, &options);
    runtime.block_on(play).assert_held();
    let verdict = runtime.block_on(players::change_under(&base, "show", |_| {
        drop(publisher.take());
        publisher = Some(publish(&other, &url));
        // Until it is so far back that players, who are behind, have come to it.
        eventually("another period", SOON, || {
            let text = server.get("/live/show/v240/index.m3u8").text();
            let (_, since) = text.rsplit_once("#EXT-X-DISCONTINUITY\n")?;
            let whole = since.lines().filter(|line| line.ends_with(".m4s")).count();
            (whole >= 6).then_some(())
        });
    }));
    verdict.assert_held();
}

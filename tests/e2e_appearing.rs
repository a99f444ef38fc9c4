//! Pictures that come to a broadcast that began with sound alone: players that listen go on, and who comes sees.
//!
//! Enters: the film of flashes and beeps, through a way that withholds its pictures at first
//! Leaves: a failure for each player that stopped, for every rule that was broken, and for a hole in the sound
//! Never:  a player of our own
//! Time:   wall clock; no claim depends on how fast the machine is
//! Spec:   docs/resilience.md

#![cfg(feature = "gst")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test may fail loudly"
)]

mod common;
#[path = "common/faulty.rs"]
mod faulty;
#[path = "common/lips.rs"]
mod lips;
#[path = "common/media.rs"]
mod media;
#[path = "common/players.rs"]
mod players;
#[path = "common/watch.rs"]
mod watch;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use common::{
    Process, Server, assert_rules_kept, broken_rules, eventually, headwater, run, small_ladder,
    tool,
};
use faulty::Faulty;
use lips::{LENIENT, LIPS_US, Lips};
use media::Segment;
use watch::Watch;

/// What a stream needs to start, and to change, on a busy machine.
const SOON: Duration = Duration::from_secs(60);
/// How long `headwater inspect` looks on.
const INSPECTED: &str = "20s";

fn last(server: &Server, rendition: &str) -> Option<u64> {
    let answer = server.get(&format!("/live/film/{rendition}/index.m3u8"));
    let text = answer.text();
    let mut uris = text.lines().filter_map(|line| line.strip_suffix(".m4s"));
    uris.rfind(|uri| !uri.starts_with('#'))?.parse().ok()
}

fn wait_for_segments(server: &Server, rendition: &str, count: u64) {
    let now = eventually("a segment", SOON, || last(server, rendition));
    eventually("more segments", SOON, || {
        last(server, rendition).filter(|last| *last >= now + count)
    });
}

/// The last sample before segment `first` ends where the first one in it begins.
fn assert_no_hole(folder: &Path, first: u64) {
    let inits = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let init = inits
        .into_iter()
        .find(|path| path.extension().is_some_and(|e| e == "mp4"));
    let init = std::fs::read(init.expect("one")).unwrap();
    let [before, after] = [first - 1, first].map(|number| {
        let media = std::fs::read(folder.join(format!("{number}.m4s"))).unwrap();
        Segment::read(&init, &media).samples
    });
    let end = before.last().map(|sample| sample.dts + sample.duration);
    assert_eq!(end, after.first().map(|sample| sample.dts));
}

/// What is stored of `v180` and `a96` from segment `first` on, in a folder of its own.
fn since(stored: &Path, first: u64) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for name in ["v180", "a96"] {
        std::fs::create_dir(folder.path().join(name)).unwrap();
        for entry in std::fs::read_dir(stored.join(name)).unwrap() {
            let path = entry.unwrap().path();
            let file = path.file_name().unwrap().to_str().unwrap();
            let number = file
                .strip_suffix(".m4s")
                .map(|number| number.parse::<u64>().unwrap());
            let is_init = file == format!("init-{first}.mp4");
            let is_since = number.map_or(is_init, |number| number >= first);
            if is_since {
                std::fs::copy(&path, folder.path().join(name).join(file)).unwrap();
            }
        }
    }
    folder
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pictures_that_come_to_a_broadcast_of_sound_are_seen_and_nobody_stops() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("config.toml");
    std::fs::write(&file, "[package]\nkept_segments = 120\n").unwrap();
    let config = file.to_str().unwrap();
    let server = Server::start(&["--config", config, "--ladder", &small_ladder()]);
    let way = Faulty::to(&server.rtmp);
    way.change(|rules| rules.video.withheld = true);
    let _publisher = lips::publish(&way.publish_url("film"), &lips::PLAIN);
    server.wait_for("/live/film/manifest.mpd", SOON);
    let multivariant = server.get("/live/film/index.m3u8").text();
    assert!(!multivariant.contains("v180"), "{multivariant}");
    let watch = std::sync::Arc::new(Watch::new(&server.http, "film", &["a96", "v180"]));
    let watching = std::thread::spawn({
        let watch = std::sync::Arc::clone(&watch);
        move || watch.run()
    });
    let base = server.url("/");
    let url = server.url("/live/film/index.m3u8");
    let looking = move || run(headwater(&["inspect", &url, "--for", INSPECTED]), 2 * SOON);
    let inspecting = std::thread::spawn(looking);
    let engines = "hls,hls-1.6,dash";
    let verdict = players::play_on(&base, ("film", engines), "appear,settle", |fault| {
        println!("{fault}");
        if fault == "appear" {
            way.change(|rules| rules.video.withheld = false);
            server.wait_for("/live/film/v180/index.m3u8", SOON);
        } else {
            wait_for_segments(&server, "v180", 6);
        }
    })
    .await;
    println!("{:#}", verdict.json);
    verdict.assert_held();
    // Who listens goes on listening; who comes sees.
    let later = players::play_on(&base, ("film", "hls,dash"), "", |_| ()).await;
    later.assert_held();
    for engine in ["hls", "dash"] {
        let height = &later.json["players"][engine]["start"]["height"];
        assert!(height.as_u64() > Some(0), "{engine} shows them: {height}");
    }
    watch.end();
    watching.join().unwrap();
    assert_rules_kept(&inspecting.join().unwrap(), &LENIENT);
    let (breaks, gaps) = watch.breaks_and_gaps();
    let first = breaks.first().expect("a period begins").1;
    let all: Vec<_> = breaks.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(all, ["a96", "v180"], "{breaks:?}");
    assert!(
        breaks.iter().all(|(_, number)| *number == first),
        "{breaks:?}"
    );
    let is_before = |(name, number): &(String, u64)| name != "a96" && *number < first;
    assert!(gaps.iter().all(is_before), "sound has no gap: {gaps:?}");
    let stored = server.store.path().join("live/film");
    assert_no_hole(&stored.join("a96"), first);
    let since = since(&stored, first);
    let lips = Lips::read(since.path(), "v180", "a96");
    let offset = lips.offset(lips.begin_us, lips.end_us, 3);
    println!("lips: {offset} us");
    assert!(offset.abs() <= LIPS_US, "{offset} us");
    assert!(!server.log().contains("panicked"), "{}", server.log());
}

/// The small ladder, whose encoder of pictures breaks down with frame number `frames`.
fn broken_ladder(folder: &Path, frames: u32) -> String {
    let ladder = std::fs::read_to_string(small_ladder()).unwrap();
    let breaks = format!("identity error-after={frames} ! x264enc ");
    let broken = ladder.replace("x264enc ", &breaks);
    assert_ne!(ladder, broken);
    let path = folder.join("broken.toml");
    std::fs::write(&path, broken).unwrap();
    path.display().to_string()
}

/// Publishes sound until a segment of it is there, which is the first that counts, and then pictures as well.
fn publish_pictures_late(server: &Server) -> (Faulty, Process, u64) {
    let way = Faulty::to(&server.rtmp);
    way.change(|rules| rules.video.withheld = true);
    let publisher = lips::publish(&way.publish_url("film"), &lips::PLAIN);
    server.wait_for("/live/film/a96/index.m3u8", SOON);
    let first = eventually("a segment", SOON, || last(server, "a96"));
    way.change(|rules| rules.video.withheld = false);
    (way, publisher, first)
}

#[test]
fn sound_goes_on_where_the_encoder_of_pictures_that_come_breaks_down() {
    let folder = tempfile::tempdir().unwrap();
    // With its first frame: one that has made any may have taken over before it is known that it breaks down.
    let server = Server::start(&["--ladder", &broken_ladder(folder.path(), 1)]);
    let (_way, mut publisher, first) = publish_pictures_late(&server);
    let tried = |server: &Server| server.log().matches("are left out again").count();
    let deadline = Instant::now() + SOON;
    while tried(&server) < 2 {
        assert!(Instant::now() < deadline, "{}", server.log());
        std::thread::sleep(Duration::from_millis(50));
    }
    wait_for_segments(&server, "a96", 2);
    let log = server.log();
    assert_eq!(log.matches("the sound goes on").count(), 1, "{log}");
    assert_eq!(tried(&server), 2, "{log}");
    let status = eventually("the finding", SOON, || {
        let status = server.get("/api/v1/streams/film").json();
        let found = status["ingest"]["health"]["findings"].to_string();
        (found.matches("\"pictures_left_out\"").count() == 1).then_some(status)
    });
    assert_eq!(status["state"], "live", "{status}");
    let stored = end(&server, &mut publisher);
    assert!(!stored.join("v180").exists());
    let (code, out) = assert_whole(&stored, first);
    assert_eq!(code, 0, "{out}");
}

/// The publisher stops, and the broadcast ends: what is stored of it then.
fn end(server: &Server, publisher: &mut Process) -> PathBuf {
    run(tool("kill", &["-INT", &publisher.pid().to_string()]), SOON);
    publisher.wait(SOON);
    eventually("the end", SOON, || {
        let status = server.get("/api/v1/streams/film").json();
        (status["state"] == "ended").then_some(())
    });
    let stored = server.store.path().join("live/film");
    eventually("the end in the store", SOON, || {
        let mpd = std::fs::read_to_string(stored.join("manifest.mpd")).ok()?;
        mpd.contains("type=\"static\"").then_some(())
    });
    stored
}

/// No sample of the sound is missing from segment `first` on; what `headwater inspect` has to say.
fn assert_whole(stored: &Path, first: u64) -> (i32, String) {
    let sound = stored.join("a96");
    let end = (first..).find(|number| !sound.join(format!("{number}.m4s")).exists());
    for number in first + 1..end.expect("it ends") {
        assert_no_hole(&sound, number);
    }
    let (code, out, err) = run(headwater(&["inspect", stored.to_str().unwrap()]), SOON);
    (code, format!("{out}\n{err}"))
}

#[test]
fn sound_goes_on_where_encoding_breaks_down_again_and_again_after_pictures_came() {
    let folder = tempfile::tempdir().unwrap();
    // A worker lasts for eight seconds at most, of which the first is on air for five or so.
    let server = Server::start(&["--ladder", &broken_ladder(folder.path(), 240)]);
    let (_way, mut publisher, first) = publish_pictures_late(&server);
    let warning = eventually("what is said of it", SOON, || {
        let status = server.get("/api/v1/streams/film").json();
        let encoding = &status["encoding"];
        let is_said = encoding["why"] == "given_up" && status["state"] == "live";
        is_said.then(|| encoding["warning"].to_string())
    });
    assert!(warning.contains("v180 rests, and only the sound is served"));
    wait_for_segments(&server, "a96", 2);
    let log = server.log();
    assert!(log.contains("the worker was restarted"), "{log}");
    let stored = end(&server, &mut publisher);
    let (_, out) = assert_whole(&stored, first);
    // The list and the MPD of what is over name the pictures, with what is missing of them.
    let other = broken_rules(&out, &LENIENT)
        .into_iter()
        .find(|line| !line.contains("v180"));
    assert_eq!(other, None, "{out}");
    assert!(out.contains("rules checked"), "{out}");
    let list = std::fs::read_to_string(stored.join("v180/index.m3u8")).unwrap();
    assert!(list.contains("#EXT-X-GAP"), "{list}\n{log}");
}

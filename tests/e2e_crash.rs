//! Workers and servers that die, as a publisher and a viewer live through it.
//!
//! Enters: the film, published by ffmpeg in real time; signals to the worker and to the server
//! Leaves: playlists that are one continuous run, media that ffmpeg decodes, a store that `inspect` passes
//! Never:  a process found by its name alone: a worker is a child of the server under test
//! Time:   wall clock; no claim depends on how fast the machine is
//! Spec:   [HLS] §6.2.1, §4.4.4.7; docs/resilience.md

#![cfg(feature = "gst")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test may fail loudly, and say what it does"
)]

mod common;
#[path = "common/media.rs"]
mod media;
#[path = "common/watch.rs"]
mod watch;

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use common::{
    Server, eventually, ffmpeg_publish, headwater, headwater_at, run, run_ok, small_ladder, tool,
    worker_of,
};
use media::Segment;
use watch::Watch;

/// Renditions of the small ladder; the last is sound.
const NAMES: [&str; 3] = ["v360", "v180", "a96"];
/// What no step here needs on an idle machine, four times over.
const LIMIT: Duration = Duration::from_secs(60);

/// Sends `signal` to the worker of `stream`, once there is one; gives its pid.
fn strike(server: &mut Server, stream: &str, signal: &str) -> u32 {
    let parent = server.process().pid();
    let pid = eventually("a worker", LIMIT, || worker_of(parent, stream));
    let status = Command::new("kill")
        .args([signal, &pid.to_string()])
        .status();
    assert!(status.unwrap().success());
    pid
}

/// The first and the last number that the playlist of `name` lists, and its text.
fn listed(server: &Server, name: &str) -> Option<(u64, u64, String)> {
    let answer = server.get(&format!("/live/film/{name}/index.m3u8"));
    let text = (answer.status == 200).then(|| answer.text())?;
    let mut numbers = text.lines().filter_map(|line| {
        let number = line.strip_suffix(".m4s").filter(|_| !line.starts_with('#'));
        number?.parse().ok()
    });
    let first = numbers.next()?;
    Some((first, numbers.next_back().unwrap_or(first), text))
}

/// Waits until `count` more segments are listed than now.
fn wait_for_segments(server: &Server, count: u64) {
    let last = || listed(server, "v180").map(|(_, last, _)| last);
    let now = eventually("a playlist", LIMIT, last);
    eventually("more segments", LIMIT, || {
        last().filter(|last| *last >= now + count)
    });
}

/// Every listed segment holds samples without hole or overlap, and joins the one before.
fn assert_media_is_one_run(server: &Server) {
    for name in NAMES {
        let (_, _, text) = eventually("a playlist", LIMIT, || listed(server, name));
        let file = |file: &str| {
            let answer = server.get(&format!("/live/film/{name}/{file}"));
            assert_eq!(answer.status, 200, "{name}/{file}");
            answer.body
        };
        let map = text.split("#EXT-X-MAP:URI=\"").nth(1).unwrap();
        let init = file(map.split('"').next().unwrap());
        let uris = text
            .lines()
            .filter(|l| l.ends_with(".m4s") && !l.starts_with('#'));
        let mut end = None;
        for uri in uris {
            let segment = Segment::read(&init, &file(uri));
            assert!(end.is_none_or(|end| end == segment.start()), "{name}/{uri}");
            for pair in segment.samples.windows(2) {
                assert_eq!(pair[0].dts + pair[0].duration, pair[1].dts, "{name}/{uri}");
            }
            end = Some(segment.end());
        }
    }
}

/// ffmpeg decodes all that is listed of every rendition without one word.
fn assert_decodes(server: &Server) {
    for name in NAMES {
        let url = server.url(&format!("/live/film/{name}/index.m3u8"));
        let args = [
            "-v",
            "error",
            "-xerror",
            "-live_start_index",
            "0",
            "-i",
            &url,
            "-map",
            "0",
            "-t",
            "14",
            "-f",
            "null",
            "-",
        ];
        let (code, _, said) = run(tool("ffmpeg", &args), LIMIT);
        assert!(code == 0 && said.is_empty(), "{name}: {code}\n{said}");
    }
}

/// `headwater inspect` finds nothing wrong in `folder`, or nothing but what `allowed` names.
fn assert_inspects(folder: &Path, allowed: &[&str]) {
    let folder = folder.join("live/film").display().to_string();
    let (code, out, err) = run(headwater(&["inspect", &folder]), LIMIT);
    let complaints: Vec<_> = out
        .lines()
        .filter(|line| line.contains("HLS-") || line.contains("DASH-") || line.contains("CMAF-"))
        .filter(|line| !allowed.iter().any(|rule| line.contains(rule)))
        .collect();
    assert!(code == 0 || !allowed.is_empty(), "{code}\n{out}\n{err}");
    assert!(complaints.is_empty(), "{out}\n{err}");
}

fn counter(server: &Server, name: &str) -> u64 {
    let text = server.get("/metrics").text();
    let line = text.lines().find(|line| line.starts_with(name));
    let value = line.and_then(|line| line.rsplit(' ').next());
    value.and_then(|value| value.parse().ok()).unwrap_or(0)
}

/// How often worker and server are killed. Three times each is what every change can afford; a release is
/// worth `HEADWATER_TEST_KILLS=20`, ten minutes.
fn kills() -> u32 {
    let wanted = std::env::var("HEADWATER_TEST_KILLS").ok();
    wanted.map_or(3, |text| text.parse().expect("a number"))
}

/// Another instant each time: less than `below`.
fn some_time(below: Duration) -> Duration {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    // The golden ratio spreads what lies close together.
    let hash = u64::from(now.subsec_nanos()).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
    let share = u32::try_from(hash).expect("32 bits");
    let length = below.mul_f64(f64::from(share) / f64::from(u32::MAX));
    println!("after {length:?}");
    length
}

/// What kills with `kill -9` take of a publisher's time.
fn film_seconds() -> u32 {
    120 + kills() * 60
}

#[test]
fn a_killed_worker_is_not_noticed() {
    let mut server = Server::start(&["--ladder", &small_ladder()]);
    let publisher = ffmpeg_publish(&server.publish_url("film"), film_seconds());
    wait_for_segments(&server, 2);
    let pid = server.process().pid();
    let watch = Watch::new(&server.http, "film", &NAMES);
    let mut seen = Vec::new();
    std::thread::scope(|scope| {
        scope.spawn(|| watch.run());
        let _end = End(&watch);
        for _ in 0..kills() {
            std::thread::sleep(some_time(Duration::from_secs(2)));
            let worker = eventually("a worker", LIMIT, || {
                worker_of(pid, "film").filter(|worker| !seen.contains(worker))
            });
            let kill = ["-KILL", &worker.to_string()];
            assert!(Command::new("kill").args(kill).status().unwrap().success());
            seen.push(worker);
            let begun = Instant::now();
            // Far enough apart for each new worker to prove itself, by ten seconds of work.
            wait_for_segments(&server, 7);
            println!("seven segments after {:?}", begun.elapsed());
        }
        assert_media_is_one_run(&server);
        assert_decodes(&server);
    });
    watch.assert_one_run();
    let restarts = counter(&server, "headwater_worker_restarts_total");
    assert_eq!(restarts, u64::from(kills()));
    drop(publisher);
    let (code, store) = server.drain();
    assert_eq!(code, 0);
    assert_inspects(store.path(), &[]);
}

/// Ends a watch, whatever becomes of what it watches.
struct End<'a>(&'a Watch);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.end();
    }
}

#[test]
fn a_new_worker_is_the_servers_own_program_though_there_is_another_by_its_name() {
    let (folder, store) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let program = folder.path().join("headwater");
    std::fs::copy(env!("CARGO_BIN_EXE_headwater"), &program).unwrap();
    let args = ["serve", "--rtmp", "127.0.0.1:0", "--http", "127.0.0.1:0"];
    let mut command = headwater_at(program.to_str().unwrap(), &args);
    command.args(["--ladder", &small_ladder()]);
    command.arg("--store").arg(store.path());
    let mut server = Server::start_command(command, store);
    let _publisher = ffmpeg_publish(&server.publish_url("film"), 300);
    wait_for_segments(&server, 2);
    // As an update does.
    std::fs::remove_file(&program).unwrap();
    std::fs::copy("/bin/false", &program).unwrap();
    strike(&mut server, "film", "-KILL");
    wait_for_segments(&server, 5);
    assert_media_is_one_run(&server);
}

#[test]
fn a_worker_that_hangs_is_replaced() {
    let mut server = Server::start(&["--ladder", &small_ladder()]);
    let _publisher = ffmpeg_publish(&server.publish_url("film"), 300);
    wait_for_segments(&server, 2);
    let stopped = strike(&mut server, "film", "-STOP");
    wait_for_segments(&server, 5);
    assert_media_is_one_run(&server);
    let worker = worker_of(server.process().pid(), "film");
    assert!(worker.is_some_and(|worker| worker != stopped));
}

#[test]
fn a_stream_that_kills_every_worker_is_closed_with_the_reason() {
    let mut server = Server::start(&["--ladder", &small_ladder()]);
    let mut publisher = ffmpeg_publish(&server.publish_url("film"), 300);
    wait_for_segments(&server, 1);
    let mut last = 0;
    for _ in 0..3 {
        let pid = server.process().pid();
        last = eventually("a new worker", LIMIT, || {
            worker_of(pid, "film").filter(|worker| *worker != last)
        });
        let kill = ["-ABRT", &last.to_string()];
        assert!(Command::new("kill").args(kill).status().unwrap().success());
    }
    // ffmpeg is told, and ends.
    publisher.wait(LIMIT);
    let said = eventually("the reason", LIMIT, || {
        let log = server.log();
        let line = log.lines().find(|line| line.contains("broadcast closed"));
        line.map(str::to_owned)
    });
    assert!(said.contains("SIGABRT"), "{said}");
    eventually("the end", LIMIT, || {
        let text = listed(&server, "v180")?.2;
        text.contains("#EXT-X-ENDLIST").then_some(())
    });
}

/// Kills `server` as a power cut does, and starts another one on its store after `pause`.
fn kill_and_restart(mut server: Server, pause: Duration) -> Server {
    let pid = server.process().pid().to_string();
    let killed = Command::new("kill").args(["-KILL", &pid]).status();
    assert!(killed.unwrap().success());
    server.process().wait(LIMIT);
    std::thread::sleep(pause);
    let Server { store, .. } = server;
    Server::start_on(store, &["--ladder", &small_ladder()])
}

#[test]
fn a_killed_server_goes_on_where_it_broke_off() {
    let server = Server::start(&["--ladder", &small_ladder()]);
    let publisher = ffmpeg_publish(&server.publish_url("film"), film_seconds());
    wait_for_segments(&server, 4);
    let map = |text: &str| {
        let line = text.lines().find(|line| line.starts_with("#EXT-X-MAP"));
        line.unwrap().to_owned()
    };
    let map_before = map(&listed(&server, "v180").unwrap().2);
    let watch = Watch::new(&server.http, "film", &NAMES);
    let (server, publisher) = std::thread::scope(|scope| {
        scope.spawn(|| watch.run());
        let _end = End(&watch);
        let (mut server, mut publisher) = (server, publisher);
        // At first long enough for numbers to be missing, not for all that was listed to be too old.
        let mut pause = Duration::from_secs(5);
        for _ in 0..kills() {
            std::thread::sleep(some_time(Duration::from_secs(2)));
            let (_, before, _) = listed(&server, "v180").unwrap();
            server = kill_and_restart(server, pause);
            watch.moved(&server.http);
            publisher = ffmpeg_publish(&server.publish_url("film"), film_seconds());
            let text = eventually("new segments", LIMIT, || {
                let (_, last, text) = listed(&server, "v180")?;
                (last > before + 2).then_some(text)
            });
            assert_eq!(map(&text), map_before, "the same ladder is the same period");
            assert_listed_is_there(&server, before);
            wait_for_segments(&server, 1);
            pause = some_time(Duration::from_secs(3));
        }
        (server, publisher)
    });
    assert!(watch.assert_kept_its_word() > 0, "no number was missing");
    drop(publisher);
    let (code, store) = server.drain();
    assert_eq!(code, 0);
    assert_inspects(store.path(), &["HLS-GAP"]);
    plays_across(store.path());
}

/// Every number is listed, those up to `before` among them, and is there unless it is a gap.
fn assert_listed_is_there(server: &Server, before: u64) {
    let mut old = 0;
    for name in NAMES {
        let (first, _, text) = listed(server, name).unwrap();
        assert!(!text.contains("#EXT-X-DISCONTINUITY\n"), "{text}");
        let mut gap = false;
        let mut next = first;
        for line in text.lines() {
            gap |= line == "#EXT-X-GAP";
            let number = line.strip_suffix(".m4s").filter(|_| !line.starts_with('#'));
            let Some(number) = number.map(|n| n.parse::<u64>().unwrap()) else {
                continue;
            };
            assert_eq!(number, next, "{text}");
            next += 1;
            let status = server
                .get(&format!("/live/film/{name}/{number}.m4s"))
                .status;
            assert_eq!(status == 200, !gap, "{name}/{number}: {status}\n{text}");
            old += u32::from(number <= before && !gap);
            gap = false;
        }
    }
    assert!(old > 0, "nothing of the run before is listed");
}

/// ffmpeg reads the stored playlist from its first segment, over the gap, to the last.
fn plays_across(store: &Path) {
    let path = store
        .join("live/film/v180/index.m3u8")
        .display()
        .to_string();
    let args = ["-v", "error", "-i", &path, "-f", "framemd5", "-"];
    let out = run_ok(tool("ffmpeg", &args), LIMIT);
    let frames = out.lines().filter(|line| !line.starts_with('#')).count();
    let text = std::fs::read_to_string(&path).unwrap();
    let (segments, gaps) = (
        text.matches("#EXTINF").count(),
        text.matches("#EXT-X-GAP").count(),
    );
    assert!(
        frames >= (segments - gaps - 1) * 60,
        "{frames} frames\n{text}"
    );
}

/// The number that the clock has now for segments of one second.
fn second() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    now.as_secs()
}

/// Segments of two seconds would have half the numbers: begun after those that are used, they lie decades ahead, where
/// no player of DASH looks.
#[test]
fn longer_segments_do_not_take_a_known_stream_into_the_future() {
    let folder = tempfile::tempdir().unwrap();
    let settings = |segment: &str| {
        let path = folder.path().join(format!("{segment}.toml"));
        std::fs::write(&path, format!("[package]\nsegment = \"{segment}\"\n")).unwrap();
        path.display().to_string()
    };
    let (short, long) = (settings("1s"), settings("2s"));
    let server = Server::start(&["--config", &short, "--ladder", &small_ladder()]);
    let publisher = ffmpeg_publish(&server.publish_url("film"), 300);
    wait_for_segments(&server, 2);
    let (_, before, _) = listed(&server, "v180").unwrap();
    drop(publisher);
    let (code, store) = server.drain();
    assert_eq!(code, 0);
    let server = Server::start_on(store, &["--config", &long, "--ladder", &small_ladder()]);
    let _publisher = ffmpeg_publish(&server.publish_url("film"), 300);
    let text = eventually("new segments", LIMIT, || {
        let (_, last, text) = listed(&server, "v180")?;
        (last > before + 5 && !text.contains("ENDLIST")).then_some(text)
    });
    assert!(text.contains("#EXTINF:1.0"), "{text}");
    // What a player asks for that computes the number from the clock.
    eventually("the segment of five seconds ago", LIMIT, || {
        let path = format!("/live/film/v180/{}.m4s", second() - 5);
        (server.get(&path).status == 200).then_some(())
    });
    let mpd = eventually("an MPD", LIMIT, || {
        let answer = server.get("/live/film/manifest.mpd");
        (answer.status == 200).then(|| answer.text())
    });
    assert!(mpd.contains(" duration=\"1000\""), "{mpd}");
    let log = server.log();
    assert!(log.contains("package.segment does not count"), "{log}");
}

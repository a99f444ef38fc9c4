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
    reason = "a test may fail loudly"
)]

mod common;
#[path = "common/media.rs"]
mod media;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use common::{Server, eventually, ffmpeg_publish, headwater, run, run_ok, small_ladder, tool};
use media::Segment;

/// Renditions of the small ladder; the last is sound.
const NAMES: [&str; 3] = ["v360", "v180", "a96"];
/// What no step here needs on an idle machine, four times over.
const LIMIT: Duration = Duration::from_secs(60);

/// The pid of the worker that `server` runs for `stream`, if it runs one now.
fn worker_of(server: u32, stream: &str) -> Option<u32> {
    let children = std::fs::read_to_string(format!("/proc/{server}/task/{server}/children"));
    let mut children = children.unwrap_or_default();
    for task in std::fs::read_dir(format!("/proc/{server}/task"))
        .ok()?
        .flatten()
    {
        let more = std::fs::read_to_string(task.path().join("children"));
        children.push_str(&more.unwrap_or_default());
    }
    let is_it = |pid: &u32| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        line.ends_with(format!("\0worker\0{stream}\0").as_bytes())
    };
    let mut pids = children
        .split_whitespace()
        .filter_map(|pid| pid.parse().ok());
    pids.find(is_it)
}

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

/// What the playlists have said over time.
#[derive(Default)]
struct Watch {
    ends: AtomicBool,
    /// By rendition and number: the entry's tags.
    entries: Mutex<BTreeMap<(usize, u64), String>>,
    broken: Mutex<Vec<String>>,
}

impl Watch {
    /// Looks at all playlists until [`Self::end`]: nothing goes back, nothing that was said is taken back.
    fn run(&self, server: &Server) {
        let mut firsts = [0; NAMES.len()];
        while !self.ends.load(Ordering::Relaxed) {
            for (index, name) in NAMES.iter().enumerate() {
                let Some((first, _, text)) = listed(server, name) else {
                    continue;
                };
                if first < firsts[index] {
                    self.complain(format!("{name}: back from {} to {first}", firsts[index]));
                }
                firsts[index] = first;
                self.look(index, &text);
            }
            std::thread::sleep(Duration::from_millis(300));
        }
    }

    fn look(&self, index: usize, text: &str) {
        let mut entries = self.entries.lock().unwrap();
        let mut tags = String::new();
        for line in text.lines() {
            if let Some(number) = line.strip_suffix(".m4s").filter(|_| !line.starts_with('#')) {
                let number = number.parse().unwrap();
                let tags = std::mem::take(&mut tags);
                let before = entries
                    .entry((index, number))
                    .or_insert_with(|| tags.clone());
                if *before != tags {
                    self.complain(format!("{number} was {before} and is {tags}"));
                }
            } else if [
                "#EXTINF",
                "#EXT-X-GAP",
                "#EXT-X-DISCONTINUITY\n",
                "#EXT-X-PROGRAM",
            ]
            .iter()
            .any(|tag| line.starts_with(tag))
            {
                tags.push_str(line);
            }
        }
    }

    fn complain(&self, what: String) {
        self.broken.lock().unwrap().push(what);
    }

    fn end(&self) {
        self.ends.store(true, Ordering::Relaxed);
    }

    /// Everything was as it should be: consecutive numbers without gap or discontinuity.
    fn assert_one_run(&self) {
        let broken = self.broken.lock().unwrap();
        assert!(broken.is_empty(), "{broken:#?}");
        let entries = self.entries.lock().unwrap();
        for (index, name) in NAMES.iter().enumerate() {
            let of = |((i, number), tags): (&(usize, u64), &String)| {
                (*i == index).then(|| (*number, tags.clone()))
            };
            let all: Vec<_> = entries.iter().filter_map(of).collect();
            assert!(!all.is_empty());
            for pair in all.windows(2) {
                assert_eq!(pair[0].0 + 1, pair[1].0, "{name}");
            }
            for (number, tags) in all {
                assert!(
                    !tags.contains("GAP") && !tags.contains("DISCONTINUITY"),
                    "{name}/{number}: {tags}"
                );
            }
        }
    }
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

#[test]
fn a_killed_worker_is_not_noticed() {
    let mut server = Server::start(&["--ladder", &small_ladder()]);
    let publisher = ffmpeg_publish(&server.publish_url("film"), 300);
    wait_for_segments(&server, 2);
    let pid = server.process().pid();
    let watch = Watch::default();
    let mut seen = Vec::new();
    std::thread::scope(|scope| {
        scope.spawn(|| watch.run(&server));
        // In the middle of a segment, near its beginning, near its end; and far enough apart for each new
        // worker to prove itself.
        for after_ms in [0, 700, 1_600] {
            std::thread::sleep(Duration::from_millis(after_ms));
            let worker = eventually("a worker", LIMIT, || {
                worker_of(pid, "film").filter(|worker| !seen.contains(worker))
            });
            let kill = ["-KILL", &worker.to_string()];
            assert!(Command::new("kill").args(kill).status().unwrap().success());
            seen.push(worker);
            let begun = Instant::now();
            wait_for_segments(&server, 6);
            println!("six segments after {:?}", begun.elapsed());
        }
        assert_media_is_one_run(&server);
        assert_decodes(&server);
        watch.end();
    });
    watch.assert_one_run();
    assert_eq!(counter(&server, "headwater_worker_restarts_total"), 3);
    drop(publisher);
    let (code, store) = server.drain();
    assert_eq!(code, 0);
    assert_inspects(store.path(), &[]);
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

#[test]
fn a_killed_server_goes_on_where_it_broke_off() {
    let mut server = Server::start(&["--ladder", &small_ladder()]);
    let publisher = ffmpeg_publish(&server.publish_url("film"), 300);
    wait_for_segments(&server, 4);
    let (_, before, text) = listed(&server, "v180").unwrap();
    let map = |text: &str| {
        let line = text.lines().find(|line| line.starts_with("#EXT-X-MAP"));
        line.unwrap().to_owned()
    };
    let map_before = map(&text);
    let pid = server.process().pid().to_string();
    assert!(
        Command::new("kill")
            .args(["-KILL", &pid])
            .status()
            .unwrap()
            .success()
    );
    server.process().wait(LIMIT);
    drop(publisher);
    // Long enough for numbers to be missing, not for all that was listed to be too old.
    std::thread::sleep(Duration::from_secs(5));
    let Server { store, .. } = server;
    let server = Server::start_on(store, &["--ladder", &small_ladder()]);
    let _publisher = ffmpeg_publish(&server.publish_url("film"), 300);
    let text = eventually("new segments", LIMIT, || {
        let (_, last, text) = listed(&server, "v180")?;
        (last > before + 1 && text.contains("#EXT-X-GAP")).then_some(text)
    });
    assert_eq!(map(&text), map_before, "the same ladder is the same period");
    assert!(!text.contains("#EXT-X-DISCONTINUITY"), "{text}");
    let mut old = 0;
    for name in NAMES {
        let (first, _, text) = listed(&server, name).unwrap();
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
    assert!(old > 0, "nothing of the first run is listed");
    wait_for_segments(&server, 2);
    let (code, store) = server.drain();
    assert_eq!(code, 0);
    assert_inspects(store.path(), &["HLS-GAP"]);
    plays_across(store.path());
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

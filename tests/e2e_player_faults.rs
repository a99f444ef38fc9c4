//! hls.js and dash.js play on through a row of faults, in one run, without being loaded again.
//!
//! Enters: a film published by ffmpeg through a way that spoils it; a worker and a server that are killed
//! Leaves: a failure for each player that gave up, and for every rule of a playlist that was broken meanwhile
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

use std::path::Path;
use std::time::{Duration, SystemTime};

use common::{Process, Server, eventually, headwater, run, run_ok, small_ladder, tool, worker_of};
use faulty::Faulty;
use lips::Lips;
use watch::Watch;

/// What a stream needs to start, and to change its state, on a busy machine.
const SOON: Duration = Duration::from_secs(60);
const NAMES: [&str; 3] = ["v360", "v180", "a96"];
/// How long `headwater inspect` looks on: through all faults but the death of the server.
const INSPECTED: &str = "36s";
/// What the acceptance of lips asks for.
const LIPS_US: i64 = 40_000;
/// How far from when sound was withheld, and from when it was let through again, it is certain that there is none.
const SEAM_US: i64 = 700_000;
/// Rules of how soon something is there, which a busy machine cannot keep; and of the rate that is announced when
/// the film has been nothing but black, which the slate is not.
const LENIENT: [&str; 3] = ["HLS-REFRESH", "LL-BLOCKING-TIME", "HLS-BANDWIDTH"];

/// A stream, and what happens to it.
struct Stage {
    server: Option<Server>,
    way: Faulty,
    publisher: Option<Process>,
    inspecting: Option<std::thread::JoinHandle<(i32, String, String)>>,
    vanished: Option<Vanished>,
}

/// When, in microseconds since the epoch, sound and pictures were withheld one after the other.
struct Vanished {
    sound: [i64; 2],
    /// Since when both were back, and until when nothing else befell the stream.
    calm: [i64; 2],
    /// What was stored from the last segment before to the last that was calm.
    stored: tempfile::TempDir,
}

fn now_us() -> i64 {
    let now = SystemTime::UNIX_EPOCH.elapsed().unwrap();
    i64::try_from(now.as_micros()).unwrap()
}

impl Stage {
    fn server(&self) -> &Server {
        self.server.as_ref().expect("it runs")
    }

    fn wait_for_state(&self, wanted: &str) {
        eventually(wanted, SOON, || {
            let status = self.server().get("/api/v1/streams/film");
            (status.status == 200 && status.json()["state"] == wanted).then_some(())
        });
    }

    fn last(&self) -> Option<u64> {
        let answer = self.server().get("/live/film/v180/index.m3u8");
        let text = answer.text();
        let mut uris = text.lines().filter_map(|line| line.strip_suffix(".m4s"));
        uris.rfind(|uri| !uri.starts_with('#'))?.parse().ok()
    }

    fn wait_for_segments(&self, count: u64) {
        let now = eventually("a segment", SOON, || self.last());
        eventually("more segments", SOON, || {
            self.last().filter(|last| *last >= now + count)
        });
    }

    fn befall(&mut self, fault: &str, watch: &Watch) {
        match fault {
            "vanish" => {
                self.inspect();
                self.vanish();
            }
            "stall" => {
                self.way.stall(Duration::from_millis(3_500));
                self.wait_for_state("slate");
                self.wait_for_state("live");
            }
            "change" => {
                self.publisher = None;
                self.wait_for_state("reconnecting");
                self.publisher = Some(publish(&self.way.publish_url("film"), &TURNED));
                self.wait_for_state("live");
            }
            "jump" => {
                self.way.change(|rules| rules.jump(50_000_000));
                self.wait_for_segments(1);
            }
            "worker" => {
                let pid = self.server.as_mut().expect("it runs").process().pid();
                let worker = worker_of(pid, "film").expect("a worker");
                kill(worker);
                eventually("another worker", SOON, || {
                    worker_of(pid, "film").filter(|new| *new != worker)
                });
                self.wait_for_segments(1);
            }
            "server" => self.kill_server(watch),
            other => panic!("no fault is called {other}"),
        }
    }

    /// Sound vanishes and returns, then pictures do, until the slate is shown: from one publisher, which notices
    /// nothing.
    fn vanish(&mut self) {
        let first = eventually("a segment", SOON, || self.last());
        let gone_us = now_us();
        self.way.change(|rules| rules.audio.withheld = true);
        // Longer than the longest time between flashes.
        self.wait_for_segments(3);
        let back_us = now_us();
        self.way.change(|rules| {
            rules.audio.withheld = false;
            rules.video.withheld = true;
        });
        self.wait_for_state("slate");
        self.way.change(|rules| rules.video.withheld = false);
        self.wait_for_state("live");
        let calm_us = now_us();
        let last = eventually("a segment", SOON, || self.last()) + 3;
        let stored = self.server().store.path().join("live/film");
        eventually("stored segments", SOON, || {
            let all = ["v180", "a96"].map(|name| stored.join(format!("{name}/{last}.m4s")));
            all.iter().all(|path| path.exists()).then_some(())
        });
        self.vanished = Some(Vanished {
            sound: [gone_us, back_us],
            calm: [calm_us, now_us()],
            stored: between(&stored, first, last),
        });
    }

    /// What is stored of the time when sound and pictures vanished: silence in place of the sound, and both in step
    /// once they are back.
    fn assert_in_step(&self) {
        let vanished = self.vanished.as_ref().expect("they did");
        let lips = Lips::read(vanished.stored.path(), "v180", "a96");
        let [gone, back] = vanished.sound;
        let silent = gone + SEAM_US..back - SEAM_US;
        let seen = lips.flashes.iter().filter(|at| silent.contains(at));
        assert!(seen.count() > 0, "{silent:?}: pictures go on: {lips:?}");
        let heard = lips.beeps.iter().filter(|at| silent.contains(at));
        assert_eq!(heard.count(), 0, "{silent:?}: {lips:?}");
        let [from, to] = vanished.calm;
        let offset = lips.offset(from, to, 3);
        assert!(offset.abs() <= LIPS_US, "{offset} us");
    }

    /// The publisher says that it is done; what is stored then breaks no rule.
    fn assert_stored(&mut self) {
        let mut publisher = self.publisher.take().expect("it publishes");
        let pid = publisher.pid().to_string();
        run_ok(tool("kill", &["-INT", &pid]), Duration::from_secs(10));
        publisher.wait(SOON);
        self.wait_for_state("ended");
        let stored = self.server().store.path().join("live/film");
        assert_rules_kept(&run(
            headwater(&["inspect", stored.to_str().unwrap()]),
            SOON,
        ));
    }

    /// Begins to look on.
    fn inspect(&mut self) {
        let url = self.server().url("/live/film/index.m3u8");
        let looking = move || run(headwater(&["inspect", &url, "--for", INSPECTED]), 2 * SOON);
        self.inspecting = Some(std::thread::spawn(looking));
    }

    fn assert_inspected(&mut self) {
        let looking = self.inspecting.take().expect("it looks on");
        assert_rules_kept(&looking.join().unwrap());
    }

    /// `kill -9`, and a new server at the same addresses, where the publisher comes back.
    fn kill_server(&mut self, watch: &Watch) {
        self.assert_inspected();
        self.publisher = None;
        let mut server = self.server.take().expect("it runs");
        kill(server.process().pid());
        server.process().wait(SOON);
        let Server {
            store, http, rtmp, ..
        } = server;
        let mut command = headwater(&["serve", "--rtmp", &rtmp, "--http", &http, "--store"]);
        command
            .arg(store.path())
            .args(["--ladder", &small_ladder()]);
        let server = Server::start_command(command, store);
        watch.moved(&server.http);
        self.publisher = Some(publish(&server.publish_url("film"), &PLAIN));
        self.server = Some(server);
        self.wait_for_segments(2);
    }
}

/// `headwater inspect` found nothing but what a busy machine cannot keep.
fn assert_rules_kept((code, out, err): &(i32, String, String)) {
    let rules = [
        "  HLS-", "  LL-", "  CMAF-", "  DASH-", "  HTTP-", "  GRID-",
    ];
    let broken = out
        .lines()
        .filter(|line| rules.iter().any(|rule| line.starts_with(rule)))
        .filter(|line| !LENIENT.iter().any(|rule| line.contains(rule)));
    assert_eq!(broken.count(), 0, "{code}\n{out}\n{err}");
    assert!(out.contains("rules checked"), "{code}\n{out}\n{err}");
}

/// The segments `first` to `last` of `v180` and `a96` that are `stored`, in a folder of their own.
fn between(stored: &Path, first: u64, last: u64) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for name in ["v180", "a96"] {
        let (from, to) = (stored.join(name), folder.path().join(name));
        std::fs::create_dir(&to).unwrap();
        let mut inits: Vec<_> = std::fs::read_dir(&from)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|file| file.starts_with("init-"))
            .collect();
        inits.sort();
        let media = (first..=last).map(|number| format!("{number}.m4s"));
        for file in media.chain(inits.into_iter().take(1)) {
            std::fs::copy(from.join(&file), to.join(&file)).unwrap();
        }
    }
    folder
}

fn kill(pid: u32) {
    run_ok(
        tool("kill", &["-KILL", &pid.to_string()]),
        Duration::from_secs(10),
    );
}

/// Publishes the film of flashes and beeps, coded as `coded` says.
fn publish(url: &str, coded: &[&str]) -> Process {
    let mut command = tool("ffmpeg", &["-v", "error", "-nostdin"]);
    command.args(lips::inputs(30)).args(coded);
    command.args([
        "-t",
        "300",
        "-c:v",
        "libx264",
        "-preset",
        "ultrafast",
        "-g",
        "60",
    ]);
    command.args([
        "-bf",
        "0",
        "-tune",
        "zerolatency",
        "-c:a",
        "aac",
        "-f",
        "flv",
        url,
    ]);
    Process::start(command)
}

/// What every encoder here but one sends.
const PLAIN: [&str; 2] = ["-vf", "scale=640:360"];
/// Turned, slower, another sample rate, one channel.
const TURNED: [&str; 8] = [
    "-vf",
    "scale=360:640",
    "-r",
    "25",
    "-ar",
    "44100",
    "-ac",
    "1",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn players_play_on_through_losses_stall_change_jump_and_deaths_of_worker_and_server() {
    let server = Server::start(&["--ladder", &small_ladder()]);
    let way = Faulty::to(&server.rtmp);
    let publisher = publish(&way.publish_url("film"), &PLAIN);
    server.wait_for("/live/film/manifest.mpd", SOON);
    let watch = std::sync::Arc::new(Watch::new(&server.http, "film", &NAMES));
    let watching = std::thread::spawn({
        let watch = std::sync::Arc::clone(&watch);
        move || watch.run()
    });
    let base = server.url("/");
    let mut stage = Stage {
        server: Some(server),
        way,
        publisher: Some(publisher),
        inspecting: None,
        vanished: None,
    };
    let faults = ("vanish,stall,change,jump,worker,server", "vanish");
    let verdict = players::play_through(&base, "film", faults, |fault| {
        println!("{fault}");
        stage.befall(fault, &watch);
    })
    .await;
    watch.end();
    watching.join().unwrap();
    println!("{:#}", verdict.json);
    verdict.assert_held();
    watch.assert_kept_its_word();
    stage.assert_in_step();
    stage.assert_stored();
}

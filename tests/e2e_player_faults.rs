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

use std::time::Duration;

use common::{Process, Server, eventually, headwater, run, run_ok, small_ladder, tool, worker_of};
use faulty::Faulty;
use watch::Watch;

/// What a stream needs to start, and to change its state, on a busy machine.
const SOON: Duration = Duration::from_secs(60);
const NAMES: [&str; 3] = ["v360", "v180", "a96"];
/// How long `headwater inspect` looks on: through all faults but the death of the server.
const INSPECTED: &str = "22s";
/// Rules of how soon something is there, which a busy machine cannot keep; and of the rate that is announced when
/// the film has been nothing but black, which the slate is not.
const LENIENT: [&str; 3] = ["HLS-REFRESH", "LL-BLOCKING-TIME", "HLS-BANDWIDTH"];

/// A stream, and what happens to it.
struct Stage {
    server: Option<Server>,
    way: Faulty,
    publisher: Option<Process>,
    inspecting: Option<std::thread::JoinHandle<(i32, String, String)>>,
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
            "stall" => {
                self.inspect();
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

    /// Begins to look on.
    fn inspect(&mut self) {
        let url = self.server().url("/live/film/index.m3u8");
        let looking = move || run(headwater(&["inspect", &url, "--for", INSPECTED]), 2 * SOON);
        self.inspecting = Some(std::thread::spawn(looking));
    }

    fn assert_inspected(&mut self) {
        let looking = self.inspecting.take().expect("it looks on");
        let (code, out, err) = looking.join().unwrap();
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
async fn players_play_on_through_stall_change_jump_and_deaths_of_worker_and_server() {
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
    };
    let faults = "stall,change,jump,worker,server";
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
}

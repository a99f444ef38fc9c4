//! A machine that cannot encode the whole ladder: the best rung is left out, what is left stays in time, players
//! go on, and the rung comes back.
//!
//! Enters: test pictures, published by ffmpeg; a worker that is stopped for most of the time for a while
//! Leaves: a failure for each thing that was not said, or that a viewer would have noticed beyond the picture
//! Never:  a timed assertion that a busy machine would break
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

use std::path::Path;
use std::time::Duration;

use common::{Log, Process, Server, eventually, headwater, run, run_ok, tool};

/// What a stream needs to start, and to change its state, on a busy machine.
const SOON: Duration = Duration::from_secs(60);
/// A rung comes back after half a minute of quiet, a minute if that was too soon, and then two: what a busy machine
/// does while it starts a browser may be too soon twice.
const RETURN_LIMIT: Duration = Duration::from_secs(240);
const TOP: &str = "v180p60";

/// A worker that runs for a seventh of the time, as long as this lives: time enough for the second rung alone, on a
/// machine of any speed. Each stop is too short for the worker to take it for one.
struct Slowed(Option<Process>, String);

impl Slowed {
    fn new(worker: &str) -> Self {
        let script = format!(
            "while kill -STOP {worker}; do sleep 0.24; kill -CONT {worker}; sleep 0.04; done"
        );
        let process = Process::start(tool("sh", &["-c", &script]));
        Self(Some(process), worker.to_owned())
    }
}

impl Drop for Slowed {
    fn drop(&mut self) {
        drop(self.0.take());
        run_ok(tool("kill", &["-CONT", &self.1]), SOON);
    }
}

/// Prints what the server has logged, if the test fails: nothing else tells what the machine was like.
struct Witness(Log);

impl Drop for Witness {
    #[expect(clippy::print_stdout, reason = "it is the test that says so")]
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("the server says\n{}", self.0.text());
        }
    }
}

fn start() -> (Server, Witness) {
    let server = Server::start(&["--ladder", &ladder()]);
    let witness = Witness(server.keep_log());
    (server, witness)
}

fn publish(url: &str) -> Process {
    let pictures = ["-f", "lavfi", "-i", "testsrc2=size=320x180:rate=60"];
    let sound = ["-f", "lavfi", "-i", "sine=frequency=440:sample_rate=48000"];
    let coded = [
        "-c:v",
        "libx264",
        "-preset",
        "ultrafast",
        "-g",
        "60",
        "-pix_fmt",
        "yuv420p",
    ];
    let rest = ["-c:a", "aac", "-t", "800", "-f", "flv", url];
    let mut args = vec!["-v", "error", "-re"];
    for some in [&pictures[..], &sound, &coded, &rest] {
        args.extend(some);
    }
    Process::start(tool("ffmpeg", &args))
}

fn ladder() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/ladders/strained.toml");
    path.display().to_string()
}

fn encoding(server: &Server) -> serde_json::Value {
    server.get("/api/v1/streams/show").json()["encoding"].clone()
}

fn rests(server: &Server) -> bool {
    encoding(server)["resting"] == serde_json::json!([TOP])
}

/// The child of the server that encodes.
fn worker(server: &mut Server) -> String {
    let parent = server.process().pid().to_string();
    run_ok(tool("pgrep", &["-P", &parent]), SOON)
        .trim()
        .to_owned()
}

/// How many of the newest segments of a playlist are there, one after another.
fn newest(playlist: &str) -> usize {
    let mut count = 0;
    for line in playlist.lines() {
        match line {
            "#EXT-X-GAP" => count = 0,
            line if line.starts_with("#EXTINF") => count += 1,
            _ => {}
        }
    }
    count
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn best_rung_rests_while_the_machine_is_slow_and_players_go_on() {
    let (mut server, _witness) = start();
    let _publisher = publish(&server.publish_url("show"));
    server.wait_for("/live/show/manifest.mpd", SOON);
    let base = server.url("/");
    let worker = worker(&mut server);
    let path = format!("/live/show/{TOP}/index.m3u8");
    let watch = |engine: &'static str| {
        let base = base.clone();
        // Standing still is for whoever looks at the figures: a browser does on a busy machine.
        let options = ["--seconds", "45", "--stand", "20", "--limit", "150"];
        tokio::spawn(async move {
            let mut args = vec!["rest.mjs", &base, "--stream", "show", "--top", TOP];
            args.extend(["--engine", engine]);
            args.extend(options);
            players::run(&args).await
        })
    };
    // A machine that is busy enough has the rung rest at once; it is to begin with all of them.
    eventually("all rungs", RETURN_LIMIT, || {
        let top = server.get(&path).text();
        (!rests(&server) && newest(&top) >= 3).then_some(())
    });
    let players = [watch("hls"), watch("dash")];
    tokio::time::sleep(Duration::from_secs(12)).await;
    let slowed = Slowed::new(&worker);
    eventually("the best rung rests", SOON, || rests(&server).then_some(()));
    let warning = encoding(&server)["warning"].as_str().unwrap().to_owned();
    assert!(
        warning.contains(TOP) && warning.contains("cores"),
        "{warning}"
    );
    assert!(server.log().contains("cannot encode the whole ladder"));
    let metrics = server.get("/metrics").text();
    assert!(
        metrics.contains("headwater_resting_rungs{stream=\"show\"} 1"),
        "{metrics}"
    );
    eventually("the MPD names what there is", SOON, || {
        let mpd = server.get("/live/show/manifest.mpd").text();
        (!mpd.contains(TOP) && mpd.contains("\"v180\"")).then_some(())
    });
    eventually("gaps", SOON, || {
        let text = server.get(&path).text();
        text.contains("#EXT-X-GAP").then_some(())
    });
    drop(slowed);
    for player in players {
        let verdict = player.await.unwrap();
        println!("{:#}", verdict.json);
        verdict.assert_held();
    }
    eventually("the best rung is back", RETURN_LIMIT, || {
        (!rests(&server) && newest(&server.get(&path).text()) >= 3).then_some(())
    });
    let state = server.get("/api/v1/streams/show").json()["state"].clone();
    assert_eq!(state, "live");
    assert!(newest(&server.get("/live/show/v180/index.m3u8").text()) >= 6);
    let (code, store) = server.drain();
    assert_eq!(code, 0);
    let folder = store.path().join("live/show").display().to_string();
    let (code, out, err) = run(headwater(&["inspect", &folder]), SOON);
    let complaints = out.lines().filter(|line| {
        let names_rule = ["HLS-", "DASH-", "CMAF-"]
            .iter()
            .any(|rule| line.contains(rule));
        // What rested is missing: HLS names it, and the MPD of a broadcast that is over cannot.
        names_rule && !line.contains("HLS-GAP") && !line.contains("DASH-EDGE")
    });
    assert_eq!(
        complaints.collect::<Vec<_>>(),
        [""; 0],
        "{code}\n{out}\n{err}"
    );
}

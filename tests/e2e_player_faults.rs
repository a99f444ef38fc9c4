//! hls.js and dash.js play on through a row of losses and deaths, in one run, without being loaded again.
//!
//! Enters: a film published by ffmpeg through a way that spoils it; a worker and a server that are killed
//! Leaves: a failure for each player that gave up or was out of step, and for every rule of a playlist that was
//!         broken meanwhile
//! Never:  a player of our own
//! Time:   wall clock; no claim depends on how fast the machine is
//! Spec:   docs/resilience.md

#![cfg(feature = "gst")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test may fail loudly, and say what it does"
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
#[path = "common/stage.rs"]
mod stage;
#[path = "common/watch.rs"]
mod watch;

use std::time::Duration;

use common::{eventually, now_us, run_ok, tool, worker_of};
use lips::Lips;
use stage::{PLAIN, SOON, Stage};

/// How long `headwater inspect` looks on: through all faults but the death of the server.
const INSPECTED: &str = "60s";
/// How far from when sound was withheld, and from when it was let through again, it is certain that there is none.
const SEAM_US: i64 = 700_000;
/// Another encoder: turned, slower, another sample rate, one channel, another profile. (`-r` would leave its pictures
/// late by any part of two frames; the filter does not.)
const TURNED: [&str; 8] = [
    "-vf",
    "fps=25,scale=360:640",
    "-ar",
    "44100",
    "-ac",
    "1",
    "-bf",
    "2",
];

/// What is told of the faults for afterwards.
#[derive(Default)]
struct Told {
    /// From when to when there was no sound, in microseconds since the epoch.
    silent: [i64; 2],
    /// What was stored before the server died.
    stored: Option<tempfile::TempDir>,
}

fn befall(stage: &mut Stage, fault: &str, told: &mut Told) {
    match fault {
        "vanish" => {
            stage.inspect(INSPECTED, &[]);
            told.silent = vanish(stage);
        }
        "stall" => {
            stage.way.stall(Duration::from_millis(3_500));
            stage.wait_for_state("slate");
            stage.wait_for_state("live");
            // By then all of it has its new place.
            stage.wait_for_segments(2);
        }
        "change" => {
            stage.publisher = None;
            stage.wait_for_state("reconnecting");
            stage.publish(&TURNED);
            stage.wait_for_state("live");
        }
        "jump" => {
            stage.way.change(|rules| rules.jump(50_000_000));
            stage.wait_for_segments(1);
        }
        "worker" => {
            let pid = stage.server_pid();
            let worker = worker_of(pid, "film").expect("a worker");
            kill(worker);
            eventually("another worker", SOON, || {
                worker_of(pid, "film").filter(|new| *new != worker)
            });
            stage.wait_for_segments(1);
        }
        "server" => {
            stage.assert_inspected();
            told.stored = Some(stage.kill_server(&PLAIN));
        }
        other => panic!("no fault is called {other}"),
    }
}

/// Sound vanishes and returns, then pictures do, until the slate is shown: from one publisher, which notices nothing.
/// From when to when there was no sound.
fn vanish(stage: &Stage) -> [i64; 2] {
    let gone_us = now_us();
    stage.way.change(|rules| rules.audio.withheld = true);
    // Longer than the longest time between flashes.
    stage.wait_for_segments(3);
    let back_us = now_us();
    stage.way.change(|rules| {
        rules.audio.withheld = false;
        rules.video.withheld = true;
    });
    stage.wait_for_state("slate");
    stage.way.change(|rules| rules.video.withheld = false);
    stage.wait_for_state("live");
    [gone_us, back_us]
}

/// While sound was withheld, silence is stored in its place, and pictures are.
fn assert_silent(lips: &Lips, [gone_us, back_us]: [i64; 2]) {
    let silent = gone_us + SEAM_US..back_us - SEAM_US;
    let seen = lips.flashes.iter().filter(|at| silent.contains(at));
    assert!(seen.count() > 0, "{silent:?}: pictures go on: {lips:?}");
    let heard = lips.beeps.iter().filter(|at| silent.contains(at));
    assert_eq!(heard.count(), 0, "{silent:?}: {lips:?}");
}

fn kill(pid: u32) {
    run_ok(
        tool("kill", &["-KILL", &pid.to_string()]),
        Duration::from_secs(10),
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn players_play_on_through_losses_stall_change_jump_and_deaths_of_worker_and_server() {
    let mut stage = Stage::begin("", &PLAIN, |_| ());
    let mut told = Told::default();
    let faults = ("vanish,stall,change,jump,worker,server", "vanish");
    let play = stage.play(faults, |stage, fault| befall(stage, fault, &mut told));
    play.await;
    let stored = told.stored.expect("the server died");
    let lips = Lips::read(&stored.path().join("film"), "v180", "a96");
    assert_silent(&lips, told.silent);
    stage.assert_in_step(&lips);
    // What was lost with the server has not left the list yet: players are back that soon.
    stage.assert_stored(&["HLS-GAP"]);
}

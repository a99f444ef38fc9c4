//! hls.js and dash.js play on through every disorder of a source's clock, a connection that is lost on one side and
//! a switch of inputs, in one run, without being loaded again; and how well their lips can be read is tried.
//!
//! Enters: a film published by ffmpeg through a way that rewrites its stamps
//! Leaves: a failure for each player that gave up, stood still or was out of step, and for every rule of a playlist
//!         that was broken meanwhile
//! Never:  a player of our own
//! Time:   wall clock; no claim depends on how fast the machine is
//! Spec:   docs/resilience.md, docs/time.md

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

use std::thread::sleep;
use std::time::Duration;

use common::{Process, eventually};
use faulty::{Faulty, Rules};
use stage::{PLAIN, SOON, Stage};

/// A browser full of players is as much as a small machine can do.
static MACHINE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());
/// How long `headwater inspect` looks on: through what befalls clocks, what befalls sound, and the rest.
const INSPECTED: [&str; 3] = ["32s", "18s", "30s"];
/// Where the clock of the source begins.
const BEGINNING_MS: i64 = 5_000_000;
const FAR_MS: i64 = 100_000_000;
/// A clock that is about to wrap does so after this.
const BEFORE_WRAP_MS: i64 = 3_000;
/// How long the server takes to get over something; which of two tracks is right, two seconds of arrivals decide.
const SETTLE: Duration = Duration::from_millis(500);
const SETTLE_TRACK: Duration = Duration::from_secs(3);
const SETTLE_DELAY: Duration = Duration::from_secs(8);
const SETTLE_DRIFT: Duration = Duration::from_secs(5);
/// The primary is live again soon after it is back.
const CONFIG: &str = "[broadcast]\nreturn_after = \"2s\"\n";
/// B-frames, and no fifth picture.
const UNEVEN: [&str; 6] = [
    "-bf",
    "2",
    "-vf",
    "scale=640:360,select='not(eq(mod(n,5),2))'",
    "-fps_mode",
    "vfr",
];
/// Ten times as much as the worst of crystals.
const DRIFT_PPM: i64 = 2_000;
const FAULTS: &str = "wrap32,sound,pictures,wrap24,disorder,late,in time,half-open,backup,primary";

/// The second encoder, with a way of its own.
struct Backup {
    _way: Faulty,
    publisher: Process,
}

fn befall(stage: &mut Stage, fault: &str, backup: &mut Option<Backup>) {
    match fault {
        // By way of serial numbers that is back, to before the beginning.
        "wrap32" => {
            stage.inspect(INSPECTED[0], &[]);
            wrap(stage, 32);
        }
        "sound" => change(stage, SETTLE_TRACK, |rules| rules.audio.add_ms += FAR_MS),
        "pictures" => change(stage, SETTLE_TRACK, |rules| rules.video.reset()),
        "wrap24" => {
            wrap(stage, 24);
            stage
                .wait_for_count("headwater_ingest_repairs_total{stream=\"film\",kind=\"wrap_24\"}");
        }
        "disorder" => change(stage, SETTLE, |rules| {
            rules.video.disorder_every = 9;
            rules.audio.coarse_ms = 10;
        }),
        "late" => {
            stage.inspect(INSPECTED[1], &[]);
            change(stage, SETTLE_DELAY, |rules| {
                rules.video.disorder_every = 0;
                rules.audio.coarse_ms = 0;
                rules.audio.delay = Duration::from_secs(2);
            });
        }
        "in time" => change(stage, SETTLE_DELAY / 2, |rules| {
            rules.audio.delay = Duration::ZERO;
        }),
        "half-open" => {
            stage.inspect(INSPECTED[2], &[]);
            displace(stage);
        }
        "backup" => *backup = Some(lose_primary(stage)),
        "primary" => return_primary(stage),
        other => panic!("no fault is called {other}"),
    }
}

fn change(stage: &Stage, settle: Duration, rules: impl FnOnce(&mut Rules)) {
    stage.way.change(rules);
    sleep(settle);
}

/// The stamps jump to shortly before where so many bits end, and go on from there.
fn wrap(stage: &Stage, bits: u32) {
    let end_ms = 1 << bits;
    stage.way.change(|rules| {
        rules.bits = bits;
        rules.jump_to(end_ms - BEFORE_WRAP_MS);
    });
    let wrapped = || (stage.way.stamp_ms() >= end_ms).then_some(());
    eventually("the end of the stamps", SOON, wrapped);
    sleep(SETTLE);
}

/// The publisher loses its connection, which the server does not learn, and comes back as another encoder, some of
/// whose pictures are shown before they are decoded.
fn displace(stage: &mut Stage) {
    stage.way.half_open();
    stage.way.change(|rules| {
        rules.clear();
        rules.video.add_ms = 100;
        rules.video.composition_ms = -100;
    });
    stage.publish(&UNEVEN);
    stage.wait_for_count("headwater_reconnects_total{stream=\"film\"}");
    stage.wait_for_state("live");
    sleep(SETTLE_TRACK);
}

fn wait_for_live(stage: &Stage, input: &str) {
    eventually(input, SOON, || {
        (stage.status()["live"]["input"] == input).then_some(())
    });
}

/// A backup stands by, and the primary dies.
fn lose_primary(stage: &mut Stage) -> Backup {
    let way = Faulty::to(&stage.server().rtmp);
    let publisher = lips::publish(&way.publish_url("film_backup"), &PLAIN);
    eventually("standby", SOON, || {
        (stage.status()["inputs"][1]["state"] == "standby").then_some(())
    });
    // What has been steady for two seconds is switched to at once.
    sleep(SETTLE_TRACK);
    stage.publisher = None;
    wait_for_live(stage, "backup");
    sleep(SETTLE);
    Backup {
        _way: way,
        publisher,
    }
}

/// The primary is back, with a clock that drifts.
fn return_primary(stage: &mut Stage) {
    stage.way.change(|rules| {
        rules.clear();
        rules.jump(BEGINNING_MS);
        rules.ppm = DRIFT_PPM;
    });
    stage.publish(&PLAIN);
    wait_for_live(stage, "primary");
    sleep(SETTLE_DRIFT);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn players_play_on_in_step_through_all_that_befalls_clocks_and_inputs() {
    let _alone = MACHINE.lock().await;
    let mut stage = Stage::begin(CONFIG, &PLAIN, |rules| rules.jump(BEGINNING_MS));
    let mut backup = None;
    let play = stage.play((FAULTS, FAULTS), |stage, fault| {
        befall(stage, fault, &mut backup);
    });
    play.await;
    stage.assert_inspected();
    backup.expect("it stands by").publisher.stop(SOON);
    stage.assert_stored(&[]);
    stage.assert_in_step(&stage.read_stored());
}

/// Of films whose sound is in step, and late and early by a known time, what the players' test measures is that time.
#[tokio::test]
async fn lips_of_a_player_are_read_to_some_milliseconds() {
    let _alone = MACHINE.lock().await;
    let folder = tempfile::tempdir().unwrap();
    let known = [0, 40, 100];
    let films = known.map(|late_ms| {
        let file = folder.path().join(format!("{late_ms}.mp4"));
        lips::film(&file, late_ms);
        file.display().to_string()
    });
    let args = [&["lips.mjs"], &films.each_ref().map(String::as_str)[..]].concat();
    let verdict = players::run(&args).await;
    println!("{:#}", verdict.json);
    verdict.assert_held();
    for (late_ms, found) in known
        .iter()
        .zip(verdict.json["lips_ms"].as_array().unwrap())
    {
        let off = found["median"].as_f64().unwrap() - f64::from(*late_ms);
        assert!(off.abs() <= 10.0, "{late_ms} ms late: {found}");
    }
}

//! A real browser plays what the real server makes of a real publisher: hls.js and dash.js with forced
//! switches, the page at `/`, and every player at the live edge, through the end of a broadcast and into
//! the next one.
//!
//! Enters: the film, published by ffmpeg; node, Chromium and `npm ci` are set-up's work
//! Leaves: a failure with every figure of the player that did not hold
//! Never:  a player of our own
//! Time:   wall clock
//! Spec:   none

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

use std::path::PathBuf;
use std::time::Duration;

use common::{Server, ffmpeg_publish, small_ladder};
use players::{Engine, Verdict, live_through, open_page, play};

/// A browser full of players and an encoder are as much as a small machine can do in real time: of two at once
/// the server would leave out the best rung, as it should.
static MACHINE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// How long an encoder takes to say goodbye.
const STOPPED: Duration = Duration::from_secs(10);

/// How often a machine that is too slow may try, and what the server logs on one.
const ATTEMPTS: u32 = 3;
const TOO_SLOW: &str = "cannot encode the whole ladder";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn browser_plays_hls_and_dash_and_the_page_at_the_live_edge() {
    let _alone = MACHINE.lock().await;
    let server = Server::start(&["--ladder", &small_ladder()]);
    let _publisher = ffmpeg_publish(&server.publish_url("film"), 400);
    let base = server.url("/");
    server.wait_for("/live/film/v180/index.m3u8", Duration::from_secs(20));
    for engine in [Engine::Hls, Engine::Dash] {
        let verdict = play(&base, "film", engine, &["--seconds", "6"]).await;
        println!("{:#}", verdict.json);
        verdict.assert_held();
        assert_eq!(verdict.json["renditions"].as_array().map(Vec::len), Some(2));
    }
    let shots = std::env::var_os("HEADWATER_SHOTS").map(PathBuf::from);
    let verdict = open_page(&base, "film", shots.as_deref(), &[]).await;
    println!("{:#}", verdict.json);
    verdict.assert_held();
}

/// Two of hls.js, dash.js, Shaka Player with playlists and with the MPD, and the page at `/`, a few at a time: within
/// one browser at most six requests to a server are under way, and only the page is in another one.
///
/// Players of a stream that is encoded too slowly run dry, whatever is done for them, and so do those that get no
/// time themselves: where the machine was too slow, it gets another chance.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn players_hold_the_live_edge_see_the_end_and_play_the_next_broadcast() {
    let _alone = MACHINE.lock().await;
    for engines in ["hls,dash", "hls-1.6,shaka-dash", "shaka-hls,page"] {
        for attempt in 1..=ATTEMPTS {
            let server = Server::start(&["--ladder", &small_ladder()]);
            let verdict = live(&server, &["--engines", engines]).await;
            println!("{:#}", verdict.json);
            let was_slow = server.log().contains(TOO_SLOW) || is_crowded();
            if verdict.failures.is_empty() || !was_slow || attempt == ATTEMPTS {
                verdict.assert_held();
                break;
            }
            println!("the machine was too slow for it: once more");
        }
    }
}

/// dash.js 5.2.1 leaves media out when it is farther behind live than the MPD's `Latency@max`; after the end, where
/// only the clock goes on, it would do so again and again, and never say that it is over.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn player_that_stood_still_as_the_broadcast_ended_plays_to_the_end() {
    let _alone = MACHINE.lock().await;
    let server = Server::start(&["--ladder", &small_ladder()]);
    let (short, late) = (["--seconds", "4", "--settle", "3"], ["--pause", "4.5"]);
    let options = [
        &["--engines", "dash", "--until", "ended"],
        &short[..],
        &late,
    ]
    .concat();
    let verdict = live(&server, &options).await;
    println!("{:#}", verdict.json);
    verdict.assert_held();
}

/// Whether for more than half of the last minute something waited for a core, as Linux counts it.
fn is_crowded() -> bool {
    let text = std::fs::read_to_string("/proc/pressure/cpu").unwrap_or_default();
    let share = text.split("avg60=").nth(1);
    let share = share.and_then(|rest| rest.split(' ').next()?.parse::<f64>().ok());
    share.is_some_and(|share| share > 50.0)
}

/// Publishes to `server`, and watches one broadcast to its end and the next one begin; `options` as in `life.mjs`.
async fn live(server: &Server, options: &[&str]) -> Verdict {
    let address = server.publish_url("film");
    let mut publisher = Some(ffmpeg_publish(&address, 600));
    server.wait_for("/live/film/manifest.mpd", Duration::from_secs(40));
    // Real time is what this takes; a shorter look is for whoever works on it.
    let seconds = std::env::var("HEADWATER_HOLD_SECONDS").unwrap_or_else(|_| "60".to_owned());
    live_through(
        &server.url("/"),
        "film",
        &[&["--seconds", &seconds], options].concat(),
        |phase| match phase {
            "held" => publisher.take().expect("it publishes").stop(STOPPED),
            _ => publisher = Some(ffmpeg_publish(&address, 600)),
        },
    )
    .await
}

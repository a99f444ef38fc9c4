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

use common::{Process, Server, ffmpeg_publish, run_ok, small_ladder, tool};
use players::{Engine, live_through, open_page, play};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn browser_plays_hls_and_dash_and_the_page_at_the_live_edge() {
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

/// Two of hls.js, dash.js, Shaka Player with both manifests, and the page at `/`, all at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn players_hold_the_live_edge_see_the_end_and_play_the_next_broadcast() {
    let server = Server::start(&["--ladder", &small_ladder()]);
    let address = server.publish_url("film");
    let mut publisher = Some(ffmpeg_publish(&address, 600));
    server.wait_for("/live/film/manifest.mpd", Duration::from_secs(40));
    // Real time is what this takes; a shorter look is for whoever works on it.
    let seconds = std::env::var("HEADWATER_HOLD_SECONDS").unwrap_or_else(|_| "60".to_owned());
    let verdict = live_through(
        &server.url("/"),
        "film",
        &["--seconds", &seconds],
        |phase| match phase {
            "held" => stop(publisher.take()),
            _ => publisher = Some(ffmpeg_publish(&address, 600)),
        },
    )
    .await;
    println!("{:#}", verdict.json);
    verdict.assert_held();
}

/// Ends a publication as who presses Stop does: the encoder says goodbye.
fn stop(publisher: Option<Process>) {
    let mut publisher = publisher.expect("it publishes");
    let pid = publisher.pid().to_string();
    run_ok(tool("kill", &["-INT", &pid]), Duration::from_secs(5));
    publisher.wait(Duration::from_secs(10));
}

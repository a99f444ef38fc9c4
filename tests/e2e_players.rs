//! A real browser plays what the real server makes of a real publisher: hls.js and dash.js at the
//! live edge with forced switches, and the page at `/`.
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
use players::{Engine, open_page, play};

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

//! The ingest doctor against real publishers: what it finds, and that it finds nothing where nothing is.
//!
//! Enters: the film, encoded by ffmpeg as streamers should and as they do
//! Leaves: a failure for each fault that the API does not name with the setting that mends it
//! Never:  a publisher of our own
//! Time:   wall clock
//! Spec:   docs/health.md

#![cfg(feature = "gst")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test may fail loudly"
)]

mod common;

use std::time::Duration;

use common::{Process, Server, command, eventually, film, small_ladder};

/// What a finding needs to show itself on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A key frame every ten seconds, B-frames, no sound.
const BAD: [&str; 9] = [
    "-bf",
    "3",
    "-g",
    "300",
    "-sc_threshold",
    "0",
    "-b:v",
    "900k",
    "-an",
];

/// What the page recommends, at the size of a small ladder.
const CLEAN: [&str; 18] = [
    "-bf",
    "0",
    "-g",
    "60",
    "-sc_threshold",
    "0",
    "-b:v",
    "900k",
    "-maxrate",
    "900k",
    "-bufsize",
    "900k",
    "-c:a",
    "aac",
    "-ac",
    "2",
    "-b:a",
    "96k",
];

/// Encodes the film in a loop, at its pace, with `args`.
fn publish(url: &str, args: &[&str]) -> Process {
    let mut command = command("timeout");
    command
        .args([
            "120",
            "ffmpeg",
            "-v",
            "error",
            "-re",
            "-stream_loop",
            "-1",
            "-i",
        ])
        .arg(film());
    command.args([
        "-vf",
        "scale=320:180",
        "-c:v",
        "libx264",
        "-preset",
        "ultrafast",
    ]);
    command.args(args).args(["-f", "flv", url]);
    Process::start(command)
}

fn health(server: &Server, stream: &str) -> serde_json::Value {
    let response = server.get(&format!("/api/v1/streams/{stream}"));
    if response.status == 200 {
        response.json()["ingest"].clone()
    } else {
        serde_json::Value::Null
    }
}

fn found(ingest: &serde_json::Value) -> Vec<String> {
    let findings = ingest["health"]["findings"].as_array();
    let ids = findings
        .into_iter()
        .flatten()
        .map(|finding| finding["id"].as_str());
    ids.map(|id| id.expect("named").to_owned()).collect()
}

#[test]
fn faults_are_named_with_the_setting_that_mends_them_and_a_clean_stream_has_none() {
    let server = Server::start(&["--ladder", &small_ladder()]);
    let _bad = publish(&server.publish_url("bad"), &BAD);
    let _clean = publish(&server.publish_url("clean"), &CLEAN);
    let expected = ["no_sound", "keyframe_interval", "b_frames"];
    let ingest = eventually("the findings", PATIENCE, || {
        let ingest = health(&server, "bad");
        let found = found(&ingest);
        expected
            .iter()
            .all(|id| found.iter().any(|found| found == id))
            .then_some(ingest)
    });
    assert_eq!(ingest["health"]["state"], "poor");
    let text = ingest.to_string();
    for words in [
        "Audio Mixer",
        "Keyframe interval: set 2 s",
        "Max B-frames: 0",
        "one every ",
    ] {
        assert!(text.contains(words), "{words}: {text}");
    }
    let warnings = ingest["warnings"].as_array().expect("a list");
    assert!(
        warnings
            .iter()
            .any(|line| line.as_str().unwrap().contains("In OBS: "))
    );
    let log = server.log();
    assert_eq!(
        log.matches("No sound arrives").count(),
        1,
        "told once:\n{log}"
    );

    // By now the clean one has been watched for as long; a machine that cannot keep up may stall it.
    eventually("figures of the clean one", PATIENCE, || {
        health(&server, "clean")["health"]["picture_bps"].as_u64()
    });
    let clean = health(&server, "clean");
    let of_the_stream: Vec<String> = found(&clean)
        .into_iter()
        .filter(|id| id != "uplink_stalls" && id != "stays_behind")
        .collect();
    assert_eq!(of_the_stream, [""; 0], "{clean}");
    assert_eq!(
        clean["warnings"].as_array().map(Vec::len),
        Some(found(&clean).len())
    );
    let metrics = server.get("/metrics").text();
    let repairs = "headwater_ingest_repairs_total{stream=\"clean\",kind=\"clock_jump\"} 0";
    assert!(metrics.contains(repairs), "{metrics}");
}
